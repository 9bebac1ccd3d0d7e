"""The users of the report store: looked up by subject or username, and searched by name.

A search finds users by the beginning of the username or of words of the full name. MongoDB sorts by an index only
within one range of one field. So a search runs through several fields in order, each with its own index: the username,
then the full name from its first word on, from its second word on, and so on. Users whom an earlier field finds are
left out of later fields, and a cursor names the field that it is in.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import force_setattr
from pymongo.collection import Collection

from myhealth.common.text import fold_name
from myhealth.reports.connection import translate_mongo_errors
from myhealth.reports.documents import KEYS, Document, name_words, next_millisecond

# The fields that a search runs through, in this order; each has an index with _id behind it.
SEARCH_FIELDS = ("username_key", *(f"name_keys.{number}" for number in range(1, KEYS + 1)))
WHOLE_NAME = "name_keys.1"
LAST_CODE_POINT = "\U0010ffff"  # sorts behind every continuation of a prefix


class SearchCursor(NamedTuple):
    """The position behind a user: the number of the field that found the user, its value, the user's id."""

    field: int
    key: str
    user_id: int


class Search(Struct, frozen=True, dict=True):
    """Users whose username begins with the text, or whose full name has for each word of the text a word that begins
    with it. `role`: only this role. `after`: only users behind this position."""

    text: str = ""
    role: str | None = None
    after: SearchCursor | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "text", self.text.strip())  # as a person types it

    @cached_property
    def words(self) -> list[str]:
        """The words, the longest first: the longest is the most selective, so the index is asked for it."""
        return sorted(name_words(self.text), key=len, reverse=True)

    @cached_property
    def patterns(self) -> list[str]:
        """Patterns of the whole name for the words after the first; "jo joshi" needs two words of the name.

        Atomic groups fix each match: backtracking over all choices would never end for a name of many similar words.
        """
        found: dict[str, None] = {}
        for word in self.words[1:]:
            same_prefix = sum(other.startswith(word) for other in self.words)
            found[f"(^| ){re.escape(word)}" + f"(?>.*? {re.escape(word)})" * (same_prefix - 1)] = None
        return list(found)

    def cursor_of(self, user: Document) -> SearchCursor:
        """Return the position of a user whom this search found."""
        return self._position(user) or SearchCursor(0, user["username_key"], user["_id"])

    def finds(self, user: Document) -> bool:
        """Return whether the search finds this user, without asking MongoDB."""
        position = self._position(user)
        behind = position is not None and (self.after is None or position > self.after)
        return behind and self.role in (None, user["role"])

    def _position(self, user: Document) -> SearchCursor | None:
        """Return the position in the first field that finds this user, or None."""
        if user["username_key"].startswith(fold_name(self.text)):
            return SearchCursor(0, user["username_key"], user["_id"])
        keys = user.get("name_keys", {})
        if self.words and all(re.search(pattern, keys.get("1", "")) for pattern in self.patterns):
            for number in range(1, KEYS + 1):
                key = keys.get(str(number), "")
                if key.startswith(self.words[0]):
                    return SearchCursor(number, key, user["_id"])
        return None


class UserDirectory:
    """Reads the collection of users, and revokes tokens in it. All methods raise Unavailable."""

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection

    def get(self, subject: str) -> Document | None:
        """Return the user with this permanent id, or None."""
        with translate_mongo_errors():
            return self._collection.find_one({"subject": subject})

    def name_of_id(self, user_id: int) -> str:
        """Return the full name of a user, or the username; "" if there is no such user any more."""
        with translate_mongo_errors():
            user = self._collection.find_one({"_id": user_id})
        return (user["full_name"].strip() or user["username"]) if user else ""

    def find_by_username(self, username: str) -> Document | None:
        """Return the user with this name, in any case; None also if several names differ only in case."""
        username = username.strip()
        with translate_mongo_errors():
            found = list(self._collection.find({"username_key": fold_name(username)}).limit(2))
        exact = [user for user in found if user["username"] == username]
        candidates = exact or found
        return candidates[0] if len(candidates) == 1 else None

    def full_names(self, subjects: Iterable[str]) -> dict[str, str]:
        """Return, by subject, the full names of those of the users who have one."""
        with translate_mongo_errors():
            found = self._collection.find({"subject": {"$in": sorted(set(subjects))}}, {"subject": 1, "full_name": 1})
            return {user["subject"]: user["full_name"] for user in found if user["full_name"].strip()}

    def named(self, subjects: Sequence[str], identifiers: Sequence[str]) -> list[Document]:
        """Return the users with one of these permanent ids, usernames (in any case) or numbers of authorities, in the
        order of their usernames."""
        queries: list[Document] = [{"subject": {"$in": [*subjects]}}] if subjects else []
        if identifiers:
            queries.append({"username_key": {"$in": [fold_name(each) for each in identifiers]}})
            queries += [{field: {"$in": [*identifiers]}} for field in ("subject", "identifiers.value")]
        with translate_mongo_errors():
            found = {user["_id"]: user for query in queries for user in self._collection.find(query)}
        return sorted(found.values(), key=lambda user: (user["username_key"], user["_id"]))

    def born(self, low: str, high: str, *, after: SearchCursor | None, limit: int) -> list[Document]:
        """Return at most `limit` users born on these days (ISO 8601), by day; `after`: with the day as its key."""
        query: Document = {"birth_date": {"$gte": max(low, after.key) if after else low, "$lte": high}}
        if after:
            query["$or"] = [{"birth_date": {"$gt": after.key}}, {"_id": {"$gt": after.user_id}}]
        with translate_mongo_errors():
            return list(self._collection.find(query, sort=[("birth_date", 1), ("_id", 1)], limit=limit))

    def revoke_tokens(self, subject: str, moment: datetime, **state: Any) -> None:
        """Revoke the user's tokens issued before `moment`, before the sync delivers the same. Never moves backward.

        `state`: further fields to set in the user's document.
        """
        with translate_mongo_errors():
            change = {"$max": {"tokens_valid_after": next_millisecond(moment)}, **({"$set": state} if state else {})}
            self._collection.update_one({"subject": subject}, change)

    def search(self, wanted: Search, *, limit: int = 50) -> list[Document]:
        """Return at most `limit` users, those found by username first."""
        found: list[Document] = []
        first = wanted.after.field if wanted.after else 0
        for number in range(first, len(SEARCH_FIELDS) if wanted.words else 1):
            keys = [(SEARCH_FIELDS[number], 1), ("_id", 1)]
            with translate_mongo_errors():
                found += self._collection.find(search_query(wanted, number), sort=keys, limit=limit - len(found))
            if len(found) >= limit:
                break
        return found

    def patients_by_name(self, *, limit: int, after: SearchCursor | None = None) -> list[Document]:
        """Return at most `limit` patients: those with a full name in its order, then the others by username."""
        found: list[Document] = []
        for number, field in ((1, WHOLE_NAME), (0, SEARCH_FIELDS[0])):
            if after and after.field < number:
                continue  # it is among those without a name
            begin = after if after and after.field == number else SearchCursor(number, "", -1)
            behind = {"$or": [{field: {"$gt": begin.key}}, {"_id": {"$gt": begin.user_id}}]}
            nameless = {} if number else {WHOLE_NAME: None}
            query = {field: {"$gte": begin.key}, "role": "patient", **behind, **nameless}
            with translate_mongo_errors():
                found += self._collection.find(query, sort=[(field, 1), ("_id", 1)], limit=limit - len(found))
            if len(found) >= limit:
                break
        return found


def name_cursor(user: Document) -> SearchCursor:
    """Return the position of a user among the patients by name."""
    key = user.get("name_keys", {}).get("1")
    return SearchCursor(1, key, user["_id"]) if key else SearchCursor(0, user["username_key"], user["_id"])


def search_query(wanted: Search, number: int) -> Document:
    """Return the query for the users whom the field `number` finds, without those whom an earlier field finds.

    Only the range may use an index: with another indexed condition, MongoDB might sort the results in memory.
    """
    field = SEARCH_FIELDS[number]
    prefix = wanted.words[0] if number else fold_name(wanted.text)
    span = {"$gte": prefix, "$lt": prefix + LAST_CODE_POINT}
    query: Document = {field: span}
    conditions: list[Document] = []
    if number:
        conditions += [_not_prefix(SEARCH_FIELDS[0], fold_name(wanted.text))]
        conditions += [_not_prefix(earlier, prefix) for earlier in SEARCH_FIELDS[1:number]]
        conditions += [{WHOLE_NAME: {"$regex": pattern}} for pattern in wanted.patterns]
    if wanted.after and wanted.after.field == number:
        span["$gte"] = max(prefix, wanted.after.key)
        conditions += [{"$or": [{field: {"$gt": wanted.after.key}}, {"_id": {"$gt": wanted.after.user_id}}]}]
    if wanted.role is not None:
        conditions += [{"role": {"$eq": wanted.role}}]
    return {**query, "$and": conditions} if conditions else query


def _not_prefix(field: str, prefix: str) -> Document:
    return {field: {"$not": {"$regex": f"^{re.escape(prefix)}"}}}
