"""Finding people: by the beginning of the username, or of words of the full name.

MongoDB sorts by an index only what lies within one range of one field. So a search walks through several fields, one
after the other, each with an index of its own: the username, then the full name from its first word on, from its second
one on, and so forth. What an earlier field has found, a later one leaves out; a page's place says in which it stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from myhealth.common.errors import BadInput
from myhealth.reports.documents import Document
from myhealth.reports.filters import ID_MAX, TEXT_MAX, is_unicode
from myhealth.reports.name_matching import KEYS, name_key, name_words
from myhealth.reports.repository import PEOPLE_FOUND_BY, ReportRepository, translate_mongo_errors

ROLES = ("patient", "doctor", "technician", "admin", "service")
# Behind every text that begins with what stands before it: the last code point there is.
LAST = "\U0010ffff"
WHOLE_NAME = "name_keys.1"
# Which of the fields, id, key. The key is the last part, for anything may stand in it.
PLACE = re.compile(rf"([0-{KEYS}])_([0-9]{{1,19}})_([^\0]*)", re.ASCII | re.DOTALL)


@dataclass(frozen=True)
class Search:
    """Which people: those whose username begins with the text, or in whose full name a word begins with each of its
    words; of a role, or of any; behind a place (field, key, id)."""

    text: str = ""
    role: str | None = None
    after: tuple[int, str, int] | None = None

    @cached_property
    def words(self) -> list[str]:
        """The longest one first: it is what few names have, so it is looked up."""
        return sorted(name_words(self.text), key=len, reverse=True)

    @cached_property
    def patterns(self) -> list[str]:
        """What the whole name must look like for the words behind the first: "jo joshi" asks for two words.

        Each word of a name that will do is taken once and for all (an atomic group): to try all choices of them would
        take for ever where a name has many that are alike.
        """
        found: dict[str, None] = {}
        for word in self.words[1:]:
            alike = sum(other.startswith(word) for other in self.words)
            found[f"(^| ){re.escape(word)}" + f"(?>.*? {re.escape(word)})" * (alike - 1)] = None
        return list(found)

    def place(self, person: Document) -> str:
        """Where somebody who is found stands."""
        field, key, id_ = self._stands_at(person) or (0, person["username_key"], person["_id"])
        return f"{field}_{id_}_{key}"

    def finds(self, person: Document) -> bool:
        stands = self._stands_at(person)
        behind = stands is not None and (self.after is None or stands > self.after)
        return behind and self.role in (None, person["role"])

    def _stands_at(self, person: Document) -> tuple[int, str, int] | None:
        """The first field that finds this person, with the key that it has there."""
        if person["username_key"].startswith(name_key(self.text)):
            return 0, person["username_key"], person["_id"]
        keys = person.get("name_keys", {})
        if self.words and all(re.search(pattern, keys.get("1", "")) for pattern in self.patterns):
            for number in range(1, KEYS + 1):
                key = keys.get(str(number), "")
                if key.startswith(self.words[0]):
                    return number, key, person["_id"]
        return None


def read_search(values: Mapping[str, str]) -> Search:
    """The search that an address or a form asks for: `search`, `role`, `after` (what `Search.place` gave). Raises
    BadInput."""
    text, role, after = (values.get(name) or "" for name in ("search", "role", "after"))
    if len(text) > TEXT_MAX or "\0" in text or not is_unicode(text):
        raise BadInput(f"search must be text of at most {TEXT_MAX} characters, without NUL.")
    if role not in ("", *ROLES):
        raise BadInput(f"role must be one of {', '.join(ROLES)}.")
    match = PLACE.fullmatch(after)
    if after and (match is None or not is_unicode(after)):
        raise BadInput("after must be the value that a Link header gave.")
    return Search(text, role or None, (int(match[1]), match[3], min(int(match[2]), ID_MAX)) if match else None)


def find_people(store: ReportRepository, wanted: Search, *, limit: int = 50) -> list[Document]:
    """At most `limit` people, those whose usernames begin so first. Raises Unavailable."""
    found: list[Document] = []
    begin = wanted.after[0] if wanted.after else 0
    for number in range(begin, len(PEOPLE_FOUND_BY) if wanted.words else 1):
        field = PEOPLE_FOUND_BY[number]
        with translate_mongo_errors():
            query = _query(wanted, number)
            found += store.users.find(query, sort=[(field, 1), ("_id", 1)], limit=limit - len(found))
        if len(found) >= limit:
            break
    return found


def _query(wanted: Search, number: int) -> Document:
    """What one of the fields finds, and none before it. No condition but the range leads to an index: with another one,
    MongoDB might sort what it finds."""
    field = PEOPLE_FOUND_BY[number]
    prefix = wanted.words[0] if number else name_key(wanted.text)
    span = {"$gte": prefix, "$lt": prefix + LAST}
    query: Document = {field: span}
    conditions: list[Document] = []
    if number:
        conditions += [_begins_not(PEOPLE_FOUND_BY[0], name_key(wanted.text))]
        conditions += [_begins_not(earlier, prefix) for earlier in PEOPLE_FOUND_BY[1:number]]
        conditions += [{WHOLE_NAME: {"$regex": pattern}} for pattern in wanted.patterns]
    if wanted.after and wanted.after[0] == number:
        _, last, id_ = wanted.after
        span["$gte"] = max(prefix, last)
        conditions += [{"$or": [{field: {"$gt": last}}, {"_id": {"$gt": id_}}]}]
    if wanted.role is not None:
        conditions += [{"role": {"$eq": wanted.role}}]
    return {**query, "$and": conditions} if conditions else query


def _begins_not(field: str, prefix: str) -> Document:
    return {field: {"$not": {"$regex": f"^{re.escape(prefix)}"}}}
