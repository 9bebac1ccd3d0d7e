"""Searching people by name: matches, their order, and each person once."""

import itertools
import random
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from myhealth.common.errors import BadInput
from myhealth.reports.documents import KEYS, UserRow, name_keys, name_words, user_document
from myhealth.reports.repository import ReportRepository
from myhealth.reports.user_search import Search
from myhealth.reports.writer import ReportWriter
from wsgi.browse_api.parameters import format_search_cursor, parse_search

PEOPLE = {
    "bholanath": "Bholanath Joshi",
    "joshi.b": "Bhavna Joshi-Jones",
    "garcia": "Gabriel García Márquez",
    "gm2": "Jose\u0301 GARCIA",
    "oneill": "Seán O’Neill",
    "long": "Maria Anna von und zu Hohenlohe-Waldenburg",
    "hindi": "भोलानाथ जोशी",
    "nameless": "",
    "Savita": "Savita Deshpande",
    "sávita": "Another Savita",
    "dr.joshi": "Dr. J. Joshi",
}


def user(id_: int, username: str, full_name: str = "") -> dict:
    role = "doctor" if username.startswith("dr.") else "patient"
    return user_document(UserRow(id_, 1, f"s{id_}", username, full_name, role, True, None, 1), 1)


@pytest.fixture
def filled(reports: ReportRepository) -> ReportRepository:
    ReportWriter(reports).insert("user", [user(i, *each) for i, each in enumerate(PEOPLE.items(), 1)])
    return reports


def names(store: ReportRepository, text: str = "", role: str = "patient", **options) -> list[str]:
    return [each["username"] for each in store.people.search(parse_search({"search": text, "role": role}), **options)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SAV", ["Savita", "sávita"]),
        ("sáv", ["sávita", "Savita"]),
        ("Joshi", ["joshi.b", "bholanath"]),
        ("joshi bho", ["bholanath"]),
        ("bholanath joshi", ["bholanath"]),
        ("Joshi, Bholanath", ["bholanath"]),
        ("jones", ["joshi.b"]),
        ("joshi-jo", ["joshi.b"]),
        ("jo jo", ["joshi.b"]),
        ("garcia", ["garcia", "gm2"]),
        ("GARCÍA", ["gm2", "garcia"]),
        ("jose\u0301", ["gm2"]),
        ("josé", ["gm2"]),
        ("o'neill", ["oneill"]),
        ("ONEILL", ["oneill"]),
        ("waldenburg", ["long"]),
        ("hohenlohe", []),  # neither one of the first four words nor the last
        ("maria waldenburg", ["long"]),
        ("जोशी", ["hindi"]),
        ("जोश", ["hindi"]),
        ("oshi", []),
        (".*", []),
        ("^", []),
        ("joshi\\", []),
        ("' -", []),
    ],
)
def test_people_are_found_by_the_beginning_of_their_names(filled: ReportRepository, text: str, found: list) -> None:
    assert names(filled, text) == found


def test_without_a_name_everybody_is_there_by_username(filled: ReportRepository) -> None:
    assert names(filled) == sorted((name for name in PEOPLE if not name.startswith("dr.")), key=str.lower)
    assert names(filled, "joshi", "doctor") == names(filled, "joshi dr", "") == ["dr.joshi"]
    assert names(filled, "g", limit=1) == ["garcia"]


@pytest.mark.parametrize(
    "after", ["x", "_", "1_b", "0_1_\ud800", "6_1_a", "-1_1_a", "0_99999999999999999999_a", "0_1_\0", "1_x_a"]
)
def test_it_rejects_a_malformed_cursor(after: str) -> None:
    with pytest.raises(BadInput):
        parse_search({"after": after})
    assert parse_search({"after": f"{KEYS}_1_a_b\n"}).after == (KEYS, "a_b\n", 1)


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
@pytest.mark.parametrize("text", ["", "a", "an", "ab a", "ba an a", "a.", "ann ann"])
def test_pages_show_each_person_once_and_all_of_them(reports: ReportRepository, text: str, limit: int) -> None:
    """Names out of few syllables, so that each search is answered by several fields, and many keys are alike."""
    some = random.Random(3)
    words = ["an", "ann", "anna", "ab", "abba", "ba", "ban"]
    people = [
        user(i, some.choice(words) + some.choice(words), " ".join(some.choices(words, k=some.randrange(8))))
        for i in range(1, 61)
    ]
    ReportWriter(reports).insert("user", people)
    seen, values = [], {"search": text}
    for _ in range(len(people) + 1):
        page = reports.people.search(parse_search(values), limit=limit)
        seen += [person["_id"] for person in page]
        if len(page) < limit:
            break
        values["after"] = format_search_cursor(parse_search(values).cursor_of(page[-1]))
    assert len(seen) == len(set(seen))
    expected = {person["_id"] for person in people if finds(text, person)}
    assert set(seen) == expected
    assert expected or text == "a."


def finds(text: str, person: dict) -> bool:
    """The same question, answered in the plainest way."""
    words = person["full_name"].split()
    kept = [*words[: KEYS - 1], *words[-1:]] if len(words) > KEYS else words
    asked = sorted(text.strip(".").split(), key=len, reverse=True)
    by_name = asked and any(word.startswith(asked[0]) for word in kept)
    return person["username"].startswith(text) or bool(
        by_name and any(all(map(str.startswith, some, asked)) for some in itertools.permutations(words, len(asked)))
    )


def test_who_asks_about_himself_is_found_like_by_anybody_else(filled: ReportRepository) -> None:
    everybody = list(filled.users.find())
    for text, role in itertools.product(["", "jo", "joshi b", "garcía", "sav", "x"], ["", "patient"]):
        found = {person["_id"] for person in filled.people.search(parse_search({"search": text, "role": role}))}
        assert found == {person["_id"] for person in everybody if Search(text, role or None).finds(person)}


def test_no_search_takes_long_whatever_a_name_is(reports: ReportRepository) -> None:
    """Anybody may call himself so, and looks for himself in our own process, where all others wait meanwhile."""
    many, begun = user(1, "u", "ab " * 30), time.process_time()
    ReportWriter(reports).insert("user", [many, user(2, "v", "ab " * 32)])
    wanted = parse_search({"search": "a " * 31})
    assert not wanted.finds(many)
    assert [each["_id"] for each in reports.people.search(wanted)] == [2]
    assert time.process_time() - begun < 10  # without end, if it tried each way to divide the name


@given(st.text(max_size=60))
@example("ǅ ﬁ ß İ")
@settings(max_examples=200)
def test_a_name_is_found_by_itself_however_it_is_typed(name: str) -> None:
    words = name_words(name)
    assert name_words(" ".join(words)) == words, "it is folded once and for all"
    assert name_words(name.upper()) == name_words(name.upper().lower())
    keys = name_keys(name)
    assert len(keys) == min(len(words), KEYS)
    assert all(key.startswith(word) for key, word in zip(keys.values(), words[: KEYS - 1], strict=False))
