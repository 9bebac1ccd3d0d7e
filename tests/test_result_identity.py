"""Which stored result a later message means: by moment, code, sub-id and number; and values that come without a value."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from support.fhir import bundle, concept, observation, quantity, report
from support.hl7 import MSH, OBR

from myhealth.intake.content import is_same, said_text
from myhealth.intake.corrections import change_checkup, delete_checkup
from myhealth.intake.file_import import FileImport, ImportOptions

PID = "PID|1||bholanath||Kulkarni^Bholanath"


def send(source: Any) -> list[tuple[str, str]]:
    """Import a source of bholanath's results; return the status and the effect of each record."""
    data = (
        json.dumps(source).replace("Patient/p1", "Patient/bholanath").encode() if isinstance(source, dict) else source
    )
    taken = FileImport(io.BytesIO(data), "test", ImportOptions())
    return [(result.status, result.effect) for batch in taken for _, result in batch]


def message(*segments: str, hour: int = 9, obr: str = OBR) -> bytes:
    head = MSH.replace("20261120091500", f"20261120{hour:02}1500")
    return "\r".join((head, PID, obr, *segments, "")).encode()


def obx(value: Any, status: str = "F", code: str = "2093-3^Cholesterol^LN", hour: int | None = None) -> str:
    moment = "" if hour is None else f"20261120{hour:02}0000"
    return f"OBX|1|NM|{code}||{value}|mmol/L|||||{status}|||{moment}"


def shown(db: Any) -> list[Any]:
    """Return the values that are shown as current."""
    found = db(
        "select status, results::text from checkups where status is distinct from 'entered-in-error' order by id"
    )
    results = [each for _, text in found for each in json.loads(text) if each.get("status") != "entered-in-error"]
    return [None if "absent_reason" in each else each["value"] for each in results]


@pytest.mark.parametrize("obr", [OBR, OBR.replace("P1^ORD", "")], ids=["with the sample's number", "without"])
@pytest.mark.parametrize(
    ("later", "effects", "values"),
    [
        ([obx(5.5, "C", hour=10)], ("accepted", "replaced"), [5.1, 5.5]),
        ([obx(5.2, "W", hour=10)], ("accepted", "withdrawn"), [5.1]),
        ([obx(5.2, hour=10)], ("duplicate", "none"), [5.1, 5.2]),
        ([obx(5.1, hour=9), obx(5.2, hour=10), obx(5.3, hour=11)], ("accepted", "replaced"), [5.1, 5.2, 5.3]),
        ([obx(5.6, "C", hour=10), obx(5.1, hour=9)], ("accepted", "replaced"), [5.1, 5.6]),
    ],
    ids=["one is corrected", "one is withdrawn", "one comes again", "a third one", "in another order"],
)
def test_of_a_days_profile_the_moment_tells_which_value_is_meant(db, people, obr, later, effects, values) -> None:
    send(message(obx(5.1, hour=9), obx(5.2, hour=10), obr=obr))
    assert send(message(*later, hour=12, obr=obr)) == [effects]
    assert shown(db) == values


def test_a_point_of_a_profile_that_comes_alone_is_added_and_a_correction_of_none_is_refused(db, people) -> None:
    send(message(obx(5.1, hour=9), obx(5.2, hour=10)))
    assert send(message(obx(5.3, hour=11), hour=12)) == [("accepted", "replaced")]
    assert send(message(obx(5.4, "C", hour=13), hour=14)) == [("rejected", "none")]
    assert shown(db) == [5.1, 5.2, 5.3]


SUBS = {
    "a number under another sub_id": ("1", "2", "C", 5.5, ("accepted", "replaced"), [5.5]),
    "it gets a sub_id": ("", "1", "C", 5.5, ("accepted", "replaced"), [5.5]),
    "it loses its sub_id": ("1", "", "C", 5.5, ("accepted", "replaced"), [5.5]),
    "it is withdrawn": ("1", "2", "D", "", ("accepted", "withdrawn"), []),
    "a further number": ("1", "2", "F", 5.5, ("accepted", "replaced"), [5.1, 5.5]),
}


@pytest.mark.parametrize(("old", "new", "status", "value", "effect", "values"), SUBS.values(), ids=SUBS)
def test_a_correction_under_another_sub_id_means_the_only_result_of_its_code(
    db, people, old, new, status, value, effect, values
) -> None:
    send(message(obx(5.1).replace("||5.1", f"|{old}|5.1")))
    assert send(message(obx(5.5, status).replace("||5.5", f"|{new}|{value}"), hour=10)) == [effect]
    assert shown(db) == values


@pytest.mark.parametrize(("old", "new"), [("1", "2"), ("", "1"), ("1", "")])
def test_a_result_and_its_correction_under_another_sub_id_are_known_again(db, people, old, new) -> None:
    first = message(obx(5.1).replace("||5.1", f"|{old}|5.1"))
    second = message(obx(5.5, "C").replace("||5.5", f"|{new}|5.5"), hour=10)
    send(first)
    send(second)
    for _ in range(2):
        assert [status for each in (first, second) for status, _ in send(each)] == ["duplicate"] * 2
    assert shown(db) == [5.5]
    third = message(obx(5.7, "C").replace("||5.7", f"|{new}|5.7"), hour=11)
    assert send(third) == [("accepted", "replaced")]
    assert shown(db) == [5.7]


FIRST: dict[str, tuple[tuple[Any, ...], tuple[Any, ...], tuple[str, str], list[Any]]] = {
    "a correction": ((5.5, "C", "2"), (5.1, "F", "1"), ("duplicate", "none"), [5.5]),
    "a correction without a sub_id": ((5.5, "C", ""), (5.1, "F", "1"), ("duplicate", "none"), [5.5]),
    "a withdrawal": (("", "D", "2"), (5.1, "F", "1"), ("duplicate", "none"), []),
    "a withdrawal of the value": ((5.1, "W", "2"), (5.1, "F", "1"), ("duplicate", "none"), []),
    "a withdrawal of another value": ((5.1, "W", "2"), (6.1, "F", "1"), ("accepted", "replaced"), [6.1]),
    "a correction of another moment": ((5.5, "C", "2", 10), (5.1, "F", "1", 9), ("accepted", "replaced"), [5.5, 5.1]),
}


@pytest.mark.parametrize(("first", "then", "effect", "values"), FIRST.values(), ids=FIRST)
def test_what_comes_before_its_original_under_another_sub_id_counts(db, people, first, then, effect, values) -> None:
    def sent(value: Any, status: str, sub: str, hour: int | None = None) -> bytes:
        return message(obx("VALUE", status, hour=hour).replace("||VALUE", f"|{sub}|{value}"))

    assert send(sent(*first))[0][0] == "accepted"
    assert send(sent(*then)) == [effect]
    assert send(sent(*then)) == [("duplicate", "none")]
    assert shown(db) == values


def test_of_two_that_may_be_the_original_of_a_correction_both_are_kept(db, people) -> None:
    send(message(obx(5.5, "C").replace("||5.5", "|3|5.5")))
    both = [obx(value).replace(f"||{value}", f"|{sub}|{value}") for sub, value in enumerate((5.1, 5.2), 1)]
    assert send(message(*both, hour=8)) == [("accepted", "replaced")]
    assert shown(db) == [5.5, 5.1, 5.2]


def test_a_correction_under_another_sub_id_is_refused_if_it_may_mean_several_or_another_finding(db, people) -> None:
    send(message(obx(5.1).replace("||5.1", "|1|5.1"), obx(5.2).replace("||5.2", "|2|5.2")))
    assert send(message(obx(5.5, "C").replace("||5.5", "|3|5.5"), hour=10)) == [("rejected", "none")]
    finding = "OBX|1|CE|ORG^Organism^L|{}|{}^L||||||{}"
    order = OBR.replace("F1", "F2").replace("P1", "P2")
    coli, aureus = finding.format(1, "ECO^E. coli", "F"), finding.format(2, "SAU^S. aureus", "C")
    assert send(message(coli, obr=order)) == [("accepted", "created")]
    assert send(message(aureus, obr=order, hour=10)) == [("rejected", "none")]
    assert send(message(coli, aureus, obr=order, hour=10)) == [("accepted", "replaced")]
    assert shown(db) == [5.1, 5.2, "E. coli", "S. aureus"]


def test_of_two_results_that_nothing_tells_apart_no_one_is_changed(db, people) -> None:
    send(message(obx(5.1), obx(5.2)))
    assert send(message(obx(5.5, "C"), hour=10)) == [("rejected", "none")]
    assert send(message(obx(5.2), hour=10)) == [("duplicate", "none")]
    assert send(message(obx(5.1), obx(5.5, "C"), hour=11)) == [("accepted", "replaced")]
    assert shown(db) == [5.1, 5.5]


@pytest.mark.parametrize(
    "codes", [("GLU^Glucose^L", "GLU^Glucose^L^15074-8^Glucose^LN"), ("15074-8^G^LN^GLU^G^L", "GLU^G^L")]
)
def test_a_result_that_gets_or_loses_its_loinc_code_is_the_same_one(db, people, codes) -> None:
    send(message(obx(5.1, code=codes[0])))
    assert send(message(obx(6.1, "C", code=codes[1]), hour=10)) == [("accepted", "replaced")]
    assert shown(db) == [6.1]


def test_two_tests_with_one_code_of_their_laboratory_stay_two(db, people) -> None:
    fasting, later = "1558-6^Fasting^LN^GLU^G^L", "1521-4^Two hours^LN^GLU^G^L"
    send(message(obx(5.1, code=fasting)))
    send(message(obx(7.1, code=later), hour=10))
    assert shown(db) == [5.1, 7.1]


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a report"])
def test_an_observation_stays_the_same_with_another_code(db, people, grouped) -> None:
    def sent(**changes: Any) -> dict[str, Any]:
        return bundle(observation("a", **changes), *([report("Observation/a", meta=changes["meta"])] * grouped))

    send(sent(meta={"versionId": "1"}))
    other = concept("2345-7", text="Glucose", system="http://loinc.org")
    changed = sent(meta={"versionId": "2"}, code=other, valueQuantity=quantity(110, "mg/dL"), status="corrected")
    assert send(changed) == [("accepted", "replaced")]
    assert shown(db) == [110]


def test_a_contained_result_is_known_under_another_id(db, people) -> None:
    def sent(*names: str, **changes: Any) -> dict[str, Any]:
        second = {"effectiveDateTime": "2026-11-20T10:00:00Z"}
        held = [observation(name, **(second if place else {})) for place, name in enumerate(names)]
        return report(*(f"#{name}" for name in names), contained=held, **changes)

    send(sent("1"))
    assert send(sent("a")) == [("duplicate", "none")]
    assert send(sent("b", "c", issued="2026-11-21T09:00:00Z")) == [("accepted", "replaced")]
    assert send(sent("d", "e")) == [("duplicate", "none")]
    assert shown(db) == [6.3, 6.3]


NOTHING: dict[str, Any] = {"status": "cancelled", "valueQuantity": ...}


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a report"])
def test_a_value_follows_what_was_cancelled_without_one_but_not_what_came_before(db, people, grouped) -> None:
    def sent(**changes: Any) -> dict[str, Any]:
        state = {"status": changes["status"]} if "status" in changes else {}
        return bundle(observation("a", **changes), *([report("Observation/a", **state)] * grouped))

    send(sent(**NOTHING))
    assert shown(db) == [None]
    assert send(sent()) == [("accepted", "replaced")]
    assert shown(db) == [6.3]
    assert send(sent(**NOTHING)) == [("accepted", "replaced")]
    assert send(sent()) == [("duplicate", "none")]  # the source sends its whole memory again
    assert shown(db) == [None]


def test_a_cancelled_report_may_come_with_its_results_later(db, people) -> None:
    send(report(status="cancelled"))
    assert send(bundle(observation("a"), report("Observation/a"))) == [("accepted", "replaced")]
    assert shown(db) == [6.3]


def test_final_without_the_value_again_keeps_the_preliminary_value(db, people) -> None:
    again = "OBX|1|NM|2093-3^Cholesterol^LN||||||||U"
    send(message(obx(5.1, "P")))
    assert send(message(again, hour=10)) == [("accepted", "replaced")]
    assert send(message(again, hour=11)) == [("duplicate", "none")]
    assert shown(db) == [5.1]
    assert db("select results::jsonb->0->>'status', status from checkups") == [(None, None)]
    send(message(again, obr=OBR.replace("F1", "F2")))
    assert db("select results::jsonb->0->>'absent_reason' from checkups where record_id like 'F2%%'") == [
        ("not sent again",)
    ]


GLUCOSE, SODIUM, POTASSIUM = (f"OBR|1|P1|F1|{code}^{code} panel^L|||20261120090000" for code in ("GLU", "NA", "K"))


def orders(*segments: str, hour: int = 9) -> bytes:
    return message(*segments[1:], hour=hour, obr=segments[0])


def result(code: str, value: Any, status: str = "F") -> str:
    return obx(value, status, f"{code}^{code}^L")


@pytest.mark.parametrize(
    ("later", "values"),
    [
        ((SODIUM, result("NA", 141, "C")), [5.1, 141]),
        ((SODIUM, result("NA", 140, "W")), [5.1]),
        ((SODIUM, result("NA", 140)), [5.1, 140]),
        ((SODIUM, result("NA", 141, "C"), GLUCOSE, result("GLU", 5.1)), [5.1, 141]),
        ((GLUCOSE, result("GLU", 5.5, "C")), [5.5, 140]),
        ((POTASSIUM, result("K", 4.1)), [5.1, 4.1, 140]),
    ],
    ids=["the second", "the second withdrawn", "the second again", "in another sequence", "the first", "a new one"],
)
def test_an_order_is_known_by_what_was_ordered_where_several_have_one_number(db, people, later, values) -> None:
    send(orders(GLUCOSE, result("GLU", 5.1), SODIUM, result("NA", 140)))
    sent = send(orders(*later, hour=10))
    assert [status for status, _ in sent if status == "rejected"] == []
    assert shown(db) == values
    assert [status for status, _ in send(orders(*later, hour=10))] == ["duplicate"] * len(sent)


def test_an_order_that_came_alone_under_the_number_of_another_is_the_same_one(db, people) -> None:
    send(orders(GLUCOSE, result("GLU", 5.1)))
    send(orders(SODIUM, result("NA", 140), hour=10))
    send(orders(GLUCOSE, result("GLU", 5.5, "C"), SODIUM, result("NA", 144, "C"), hour=11))
    assert shown(db) == [5.5, 144]


def test_two_orders_of_one_kind_are_two_and_which_is_meant_must_be_clear(db, people) -> None:
    send(orders(GLUCOSE, result("X", 5.1)))
    send(orders(GLUCOSE, result("X", 5.1), GLUCOSE, result("X", 7.1), GLUCOSE, result("X", 8.1), hour=10))
    assert shown(db) == [5.1, 7.1, 8.1]
    send(
        orders(SODIUM, result("NA", 1), GLUCOSE, result("X", 2), GLUCOSE, result("X", 3), hour=11).replace(
            b"|F1|", b"|F2|"
        )
    )
    assert send(orders(GLUCOSE, result("X", 4, "C"), hour=12).replace(b"|F1|", b"|F2|")) == [("rejected", "none")]
    assert shown(db) == [5.1, 7.1, 8.1, 1, 2, 3]


NO_NUMBER = "OBR|1|||24331-1^Lipid panel^LN|||20261120090000"
CREATED, REPLACED, DUPLICATE = ("accepted", "created"), ("accepted", "replaced"), ("duplicate", "none")
AGAIN: dict[str, tuple[list[tuple[Any, str]], list[Any], list[Any]]] = {
    "in another message": ([(5.1, "F"), (5.1, "F")], [CREATED, DUPLICATE], [5.1]),
    "another value": ([(5.1, "F"), (5.2, "F"), (5.1, "F")], [CREATED, CREATED, DUPLICATE], [5.1, 5.2]),
    "final": ([(5.1, "P"), (5.2, "F")], [CREATED, REPLACED], [5.2]),
    "corrected": ([(5.1, "F"), (5.2, "C")], [CREATED, REPLACED], [5.2]),
    "withdrawn": ([(5.1, "F"), ("", "D")], [CREATED, ("accepted", "withdrawn")], []),
    "corrected before it came": ([(5.2, "C"), (5.1, "F")], [CREATED, DUPLICATE], [5.2]),
    "preliminary after final": ([(5.2, "F"), (5.1, "P")], [CREATED, DUPLICATE], [5.2]),
    "again after its correction": ([(5.1, "F"), (5.2, "C"), (5.1, "F")], [CREATED, REPLACED, DUPLICATE], [5.2]),
    "another after its withdrawal": ([(5.1, "W"), (6.1, "F")], [("accepted", "withdrawn"), CREATED], [6.1]),
    "of which is unknown": ([(5.1, "F"), (5.2, "F"), (5.3, "C")], [CREATED] * 3, [5.1, 5.2, 5.3]),
}


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one file"])
@pytest.mark.parametrize(("values", "effects", "left"), AGAIN.values(), ids=AGAIN)
def test_a_result_without_an_order_number_is_known_by_order_and_moment(
    db, people, values, effects, left, together
) -> None:
    messages = [
        message(obx(value, status), hour=hour, obr=NO_NUMBER).replace(b"MSG1", b"MSG%d" % hour)
        for hour, (value, status) in enumerate(values, 10)
    ]
    found = send(b"".join(messages)) if together else [one for each in messages for one in send(each)]
    assert found == effects
    assert shown(db) == left


@pytest.mark.parametrize(
    ("value", "status", "effect", "left"),
    [
        (5.2, "C", REPLACED, [5.2]),
        ("", "D", ("accepted", "withdrawn"), []),
        (5.2, "F", CREATED, [5.1, 5.2]),
        (5.1, "F", CREATED, [5.1, 5.1]),
    ],
)
def test_of_a_day_without_a_time_a_correction_means_the_only_order(db, people, value, status, effect, left) -> None:
    order = NO_NUMBER.replace("20261120090000", "20261120")
    send(message(obx(5.1), obr=order))
    assert send(message(obx(value, status), hour=10, obr=order).replace(b"MSG1", b"MSG2")) == [effect]
    assert shown(db) == left


def test_a_further_result_of_an_order_without_a_number_is_added_to_it(db, people) -> None:
    glucose = "2345-7^Glucose^LN"
    send(message(obx(5.1), obr=NO_NUMBER))
    whole = message(obx(5.1), obx(6.1, code=glucose), hour=10, obr=NO_NUMBER).replace(b"MSG1", b"MSG2")
    assert send(whole) == [REPLACED]
    assert send(message(obx(6.1, code=glucose), hour=11, obr=NO_NUMBER).replace(b"MSG1", b"MSG3")) == [DUPLICATE]
    assert shown(db) == [5.1, 6.1]


def in_bundle(number: int) -> dict[str, Any]:
    """Return a report with its result, under temporary addresses of this number."""
    urls = tuple(f"urn:uuid:6f1ce2f2-0000-4000-8000-{name}{number:011}" for name in "ab")
    return bundle(observation(id=...), report(urls[0], id=...), kind="transaction", urls=urls)


NUMBERS = [{"system": "urn:lab", "value": "9"}, {"system": "urn:lab", "value": "10"}]
ALONE: dict[str, tuple[dict[str, Any], dict[str, Any], list[Any]]] = {
    "corrected": ({}, {"status": "corrected"}, [7]),
    "another number": ({"identifier": NUMBERS[:1]}, {"identifier": NUMBERS[1:], "status": "corrected"}, [6.3, 7]),
    "one number": ({"identifier": NUMBERS[:1]}, {"identifier": NUMBERS[:1], "status": "amended", "id": "b"}, [7]),
    "another value": ({}, {}, [6.3, 7]),
    "cancelled": ({"identifier": NUMBERS[:1]}, {"identifier": NUMBERS[:1], "status": "cancelled", "id": "b"}, [6.3, 7]),
    "was cancelled": (
        {"identifier": NUMBERS[:1], "status": "cancelled"},
        {"identifier": NUMBERS[:1], "id": "b"},
        [6.3, 7],
    ),
    "another moment": ({}, {"effectiveDateTime": "2026-11-20T10:00:00Z", "status": "corrected"}, [6.3, 7]),
}


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a report"])
@pytest.mark.parametrize(("first", "later", "values"), ALONE.values(), ids=ALONE)
def test_a_correction_under_other_addresses_means_the_only_record_of_its_moment(
    db, people, grouped, first, later, values
) -> None:
    def sent(number: int, value: float, **changes: Any) -> dict[str, Any]:
        found = observation(id=changes.pop("id", "a"), valueQuantity=quantity(value), **changes)
        found = found if "identifier" in changes else {name: each for name, each in found.items() if name != "id"}
        urls = tuple(f"urn:uuid:6f1ce2f2-0000-4000-8000-{name}{number:011}" for name in "ab")
        whole = [report(urls[0], id=..., effectiveDateTime=found["effectiveDateTime"])] * grouped
        return bundle(found, *whole, kind="transaction", urls=urls)

    if grouped and "identifier" in first:
        return
    send(sent(1, 6.3, **first))
    send(sent(2, 7, **later))
    assert shown(db) == values
    assert [send(sent(3, 6.3, **first)), send(sent(4, 7, **later))][1] == [DUPLICATE]
    assert shown(db) == values


FOUR = {"glucose": 5.1, "sodium": 140, "potassium": 4.1, "urea": 5}
DAYS: dict[str, tuple[list[dict[str, Any]], dict[str, Any], list[Any]]] = {
    "one value": ([{"glucose": 5.1}] * 2, {}, [5.1, 5.1]),
    "one value that was issued then": ([{"glucose": 5.1}] * 2, {"issued": "2026-11-20T10:00:00Z"}, [5.1]),
    "many values": ([FOUR] * 2, {}, [*FOUR.values()]),
    "one of many is another": ([FOUR, {**FOUR, "urea": 6}], {}, [*FOUR.values(), 6]),
    "many values twice": ([FOUR, FOUR, FOUR], {}, [*FOUR.values()]),
}


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a report"])
@pytest.mark.parametrize(("sent", "changes", "values"), DAYS.values(), ids=DAYS)
def test_of_a_day_without_a_time_what_is_sent_again_under_other_addresses_is_known(
    db, people, grouped, sent, changes, values
) -> None:
    for number, each in enumerate(sent):
        urls = tuple(f"urn:uuid:6f1ce2f2-0000-4000-8000-{place}{number:011}" for place in range(5))
        day = {"effectiveDateTime": "2026-11-20", "id": ..., **changes}
        found = [observation(code={"text": name}, valueQuantity=quantity(value), **day) for name, value in each.items()]
        whole = [report(*urls[: len(found)], **day)] * grouped
        send(bundle(*found, *whole, kind="transaction", urls=(*urls[: len(found)], f"urn:uuid:r{number}")))
    if grouped and len({str(each) for each in sent}) > 1:
        values = [value for each in sent for value in each.values()]  # another report
    assert shown(db) == values


def test_equal_values_of_one_day_in_one_bundle_stay_as_many(db, people) -> None:
    for number in range(3):
        urls = tuple(f"urn:uuid:6f1ce2f2-0000-4000-8000-{place}{number:011}" for place in range(4))
        count = 3 if number < 2 else 4
        found = [observation(id=..., effectiveDateTime="2026-11-20") for _ in range(count)]
        send(bundle(*found, kind="transaction", urls=urls[:count]))
        assert len(shown(db)) == count


def test_orders_without_numbers_of_a_day_are_known_by_many_equal_values(db, people) -> None:
    order = NO_NUMBER.replace("20261120090000", "20261120")
    values = [obx(value, code=f"{value}^Test {value}^L") for value in (1, 2, 3)]
    assert send(message(*values, obr=order)) == [CREATED]
    assert send(message(*values, hour=10, obr=order).replace(b"MSG1", b"MSG2")) == [DUPLICATE]


ENVELOPES = {
    "HL7": lambda number: message(obx(6.3), hour=number, obr=NO_NUMBER).replace(b"MSG1", b"MSG%d" % number),
    "FHIR": in_bundle,
}


@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES)
@pytest.mark.parametrize("deleted", [True, False], ids=["deleted here", "corrected here"])
def test_a_record_without_a_number_is_known_in_another_envelope_after_a_person_changed_it(
    db, people, envelope, deleted
) -> None:
    send(envelope(1))
    if deleted:
        delete_checkup(people["bholanath"], 1)
    else:
        (result,) = json.loads(db("select results::text from checkups")[0][0])
        change_checkup(people["bholanath"], 1, {"results": [result | {"value": 7}]})
    assert [send(envelope(number)) for number in (2, 1, 3)] == [[DUPLICATE]] * 3
    assert shown(db) == ([] if deleted else [7])


@pytest.mark.parametrize("moment", ["", "20261120"], ids=["no moment", "a day"])
def test_without_a_number_and_a_moment_the_message_tells(db, people, moment) -> None:
    order = NO_NUMBER.replace("20261120090000", moment)
    for number in (b"MSG1", b"MSG2"):
        assert send(message(obx(5.1), obr=order).replace(b"MSG1", number)) == [CREATED]


def test_the_number_of_an_order_may_stand_in_its_control_segment_alone(db, people) -> None:
    order = f"ORC|RE|P9^ORD|F9^LAB\r{NO_NUMBER}"
    assert send(message(obx(5.1), obr=order)) == [CREATED]
    corrected = message(obx(5.2, "C"), hour=10, obr=order).replace(b"MSG1", b"MSG2")
    assert send(corrected) == [REPLACED]
    assert shown(db) == [5.2]
    assert db("select record_id from checkups") == [("F9^LAB",)]


def issued(hour: int, status: str = "") -> str:
    return f"{OBR}{'|' * 15}20261120{hour:02}0000|||{status}"


def test_a_new_value_may_follow_a_deleted_one_but_not_the_deleted_one_again(db, people) -> None:
    send(message(obx(5.1), obr=issued(9)))
    assert send(message(obx(5.1, "D"), hour=10, obr=issued(10))) == [("accepted", "withdrawn")]
    assert send(message(obx(5.1), hour=11, obr=issued(11))) == [DUPLICATE]
    assert shown(db) == []
    assert send(message(obx(6.1), hour=12, obr=issued(12))) == [REPLACED]
    assert send(message(obx(5.1), hour=13, obr=issued(9))) == [DUPLICATE]
    assert shown(db) == [6.1]


@pytest.mark.parametrize(("value", "status", "is_told"), [("", "F", True), (5.1, "F", True), ("", "C", False)])
def test_a_deletion_that_comes_again_does_not_delete_the_new_value(db, people, value, status, is_told) -> None:
    hours = [issued(hour) if is_told else OBR for hour in (9, 10, 12)]
    sent = [(obx(5.1), 9), (obx(value, "D"), 10), (obx(6.1, status), 12)]
    messages = [message(result, hour=hour, obr=obr) for (result, hour), obr in zip(sent, hours, strict=True)]
    for each in messages:
        assert send(each)[0][0] == "accepted"
    assert [send(each) for each in messages] == [[DUPLICATE]] * 3
    assert shown(db) == [6.1]
    later = message(obx("", "D"), hour=13, obr=issued(13) if is_told else OBR)
    assert send(later) == [("accepted", "withdrawn")]


def test_an_order_that_is_cancelled_without_its_results_is_told(db, people) -> None:
    send(message(obx(5.1), obr=issued(9)))
    (batch,) = FileImport(io.BytesIO(message(hour=10, obr=issued(10, "X"))), "test", ImportOptions())
    (warning,) = batch[0][1].warnings
    assert (warning["field"], warning["code"]) == ("OBR-25", "cancelled")
    assert shown(db) == [5.1]


MOVED = ("20261120070000", "20261120073000", "20261121090000")


@pytest.mark.parametrize("status", ["C", "W"])
def test_a_correction_may_change_the_moment(db, people, status) -> None:
    first, moved, later = (OBR.replace("P1^ORD", "").replace("20261120090000", each) for each in MOVED)
    assert send(message(obx(6.1), obr=first)) == [("accepted", "created")]
    effect = "withdrawn" if status == "W" else "replaced"
    value = 6.1 if status == "W" else 5.1
    assert send(message(obx(value, status), hour=10, obr=moved)) == [("accepted", effect)]
    assert send(message(obx(6.1), hour=11, obr=first)) == [("duplicate", "none")]
    assert shown(db) == ([5.1] if status == "C" else [])
    assert send(message(obx(4.1), hour=12, obr=later)) == [("accepted", "created")]  # another sample


RENAMED = {
    "of another code": (obx(5.1, code="CHOL^Cholesterol^L"), "2093-3^cholesterol^LN", ["accepted", "duplicate"], [9.9, 5.5]),
    "of another name": (obx(5.1, code="CHOL^Chol^L"), "2093-3^Cholesterol^LN", ["accepted", "duplicate"], [5.1, 9.9, 5.5]),
    "of another unit": (obx(5.1, code="CHOL^Cholesterol^L").replace("mmol/L", "mg/dL"), "2093-3^Cholesterol^LN",
                        ["accepted", "duplicate"], [5.1, 9.9, 5.5]),
}  # fmt: skip


@pytest.mark.parametrize(("first", "code", "statuses", "values"), RENAMED.values(), ids=RENAMED)
def test_a_correction_under_another_code_means_the_number_of_its_name(
    db, people, first, code, statuses, values
) -> None:
    other = obx(9.9, code="718-7^Haemoglobin^LN")
    assert send(message(first, other)) == [("accepted", "created")]
    found = [send(message(obx(5.5, "C", code=code), hour=10))[0][0], send(message(first, other, hour=11))[0][0]]
    assert (found, sorted(shown(db))) == (statuses, sorted(values))


def test_a_correction_under_another_code_is_refused_if_two_have_its_name(db, people) -> None:
    both = [obx(value, code=f"CHOL{value}^Cholesterol^L") for value in (5, 6)]
    send(message(*both))
    assert send(message(obx(5.5, "C"), hour=10)) == [("rejected", "none")]


SAID = {"record_id": "urn:uuid:1", "taken_at": datetime(2026, 11, 20, tzinfo=UTC), "taken_precision": None}
SAID |= {"issued_at": None, "details": None, "results": [{"code": "2345-7", "value": 5, "sub_id": "urn:uuid:2"}]}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"record_id": "urn:uuid:9", "issued_at": datetime(2026, 11, 21, tzinfo=UTC)}, True),
        ({"taken_at": datetime(2026, 11, 20, 5, 30, tzinfo=timezone(timedelta(hours=5.5)))}, True),
        ({"taken_at": datetime(2026, 11, 20, 5, 30, tzinfo=UTC)}, False),
        ({"details": {"updated_at": "2026-11-20T00:00:00Z"}}, True),
        ({"results": [{"sub_id": "urn:uuid:2", "value": 5, "code": "2345-7", "unit": None}]}, True),
        ({"results": [{"sub_id": "urn:uuid:2", "value": Decimal("5.0"), "code": "2345-7"}]}, False),
        ({"results": [{"sub_id": "urn:uuid:2", "value": "5", "code": "2345-7"}]}, False),
    ],
)
def test_the_texts_of_two_contents_are_equal_where_the_contents_are_the_same(
    change: dict[str, Any], same: bool
) -> None:
    other = SAID | change
    assert (said_text(SAID) == said_text(other)) == is_same(SAID, other) == same
