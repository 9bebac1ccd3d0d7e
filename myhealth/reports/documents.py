"""Documents of the report store: a report for each check-up, and a document for each user with keys to search its name.

Pure. Source: myhealth/README.md, "Data model".
"""

import re
import unicodedata
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

import msgspec

from myhealth.clinical.ranges import ABOVE, BELOW, PLAIN, compare, is_outside
from myhealth.common.decoding import INT_MAX, INT_MIN, exact_number
from myhealth.common.text import ACCENTS, APOSTROPHES, fold_name

# Number of search keys of a full name: from each of its first words, and from its last.
KEYS = 5
NAME_KEY_MAX = 200  # characters
BORDER_PATTERN = re.compile(r"[\s,.;:/()\[\]\"\-\u2010-\u2015\u00b7\u201c\u201d]+")


def name_words(text: str) -> list[str]:
    """Split a full name into words, without case, accents, apostrophes, hyphens and invisible characters.

    Worked example: "José O’Neill-García" gives jose, oneill, garcia.
    """
    if not text.isascii():
        plain = ACCENTS.sub("", unicodedata.normalize("NFKD", text))
        text = unicodedata.normalize("NFC", "".join(c for c in plain if unicodedata.category(c) != "Cf"))
    return BORDER_PATTERN.sub(" ", APOSTROPHES.sub("", text.casefold())).split()


def name_keys(full_name: str) -> dict[str, str]:
    """Return the full name from each of its words on, by number from "1".

    A name of more than KEYS words has keys from its first KEYS - 1 words and from its last.
    """
    words = name_words(full_name)
    begins = [*range(len(words))] if len(words) <= KEYS else [*range(KEYS - 1), len(words) - 1]
    return {str(number): " ".join(words[begin:])[:NAME_KEY_MAX] for number, begin in enumerate(begins, 1)}


Document = dict[str, Any]
# The form of the documents below. The next sync fills a report store of another form anew.
# 2: users have `name_keys`. 3: `abnormal` is also true if a value lies outside its range and no flag says so.
# 4: reports with a result far outside its range have `far`. Other thresholds in clinical/guide.txt are another form.
# 5: a value at an end that the words of its range exclude is abnormal.  6: also in FHIR.
FORM = 6
NORMAL = (None, "N")
OUTSIDE = (ABOVE, BELOW)
# The checkpoint's document in `sync_state`; the name is that of existing stores.
CHECKPOINT = {"_id": "mark"}


class UserRow(NamedTuple):
    """The columns of a user that browsing needs: no password. `xid`: the transaction that wrote the row last.
    `identifiers`: JSON text of a list of {system, value}."""

    id: int
    xid: int
    subject: str
    username: str
    full_name: str
    role: str
    active: bool
    tokens_valid_after: datetime | None
    revision: int
    birth_date: str | None = None
    sex: str | None = None
    identifiers: str = "[]"


def _plain_integer(value: Any) -> int:
    """Convert Int64, the type of MongoDB's integers beyond 32 bits."""
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


# The JSON of what MongoDB holds.
encode_json = msgspec.json.Encoder(decimal_format="number", enc_hook=_plain_integer).encode
# Every number keeps its digits. Raises a ValueError if the text is not JSON.
decode_json = msgspec.json.Decoder(float_hook=exact_number).decode


@cache
def _guide() -> Any:
    """Load the guide with the first abnormal result: a pass of the sync with nothing to do needs none."""
    from myhealth.clinical import guide

    return guide


def finish_results(results: Any) -> tuple[bool, bool]:
    """Replace integers beyond BSON's range by decimals; return whether a result is abnormal, and whether one is far
    outside its range.

    A result is abnormal if it has a flag other than N, or if its value lies outside its range or beyond what a meter
    can measure. Another program may have stored results of any form. One loop does all tasks, because it runs for
    every result.
    """
    abnormal = far = False
    for result in results if type(results) is list else ():
        if type(result) is not dict:
            continue
        value: Any = result.get("value")
        low: Any = result.get("low")
        high: Any = result.get("high")
        flag = result.get("flag")
        if (
            type(value) in PLAIN
            and type(low) in PLAIN
            and type(high) in PLAIN
            and INT_MIN <= low <= high <= INT_MAX
            and INT_MIN <= value <= INT_MAX
        ):  # nearly all
            if low <= value <= high:
                abnormal = abnormal or flag not in NORMAL
            elif not far:
                abnormal, far = True, _guide().is_far(result, True)
            continue
        if not far and (
            flag not in NORMAL
            or is_outside(value, low, high)
            or ((type(result.get("range_text")) is str or "ranges" in result) and compare(result).position in OUTSIDE)
            or (type(value) is str and _guide().is_beyond_meter(result))
        ):
            abnormal, far = True, _guide().is_far(result, False)
        if any(type(number) is int and not INT_MIN <= number <= INT_MAX for number in (value, low, high)):
            result.update({name: bson_safe(number) for name, number in result.items()})
    return abnormal, far


def bson_safe(value: Any) -> Any:
    """Replace integers beyond BSON's range by decimals, at any depth."""
    if type(value) is dict:
        return {name: bson_safe(each) for name, each in value.items()}
    if type(value) is list:
        return [bson_safe(each) for each in value]
    return Decimal(value) if type(value) is int and not INT_MIN <= value <= INT_MAX else value


def public_report(report: Document, username: str | None) -> Document:
    """Return a report for an answer: `id` instead of `_id`, the patient's username instead of the UUID `subject`, no
    moment and no `far` that only sort."""
    shown = {"id": report["_id"], "username": username, **report}
    del shown["_id"], shown["subject"]
    shown.pop("far", None)
    if report.get("taken_precision") == "unknown":
        shown["taken_at"] = None
    return shown


def user_document(row: UserRow, epoch: int) -> Document:
    """Return the document of one user; `username_key` and `name_keys` serve the search by name.

    `revision` and `epoch` are the last two fields, as in a report.
    """
    tokens_valid_after = row.tokens_valid_after
    known = {"birth_date": row.birth_date, "sex": row.sex, "identifiers": decode_json(row.identifiers)}
    return {
        "_id": row.id,
        "subject": row.subject,
        "username": row.username,
        "username_key": fold_name(row.username),
        "full_name": row.full_name,
        "name_keys": name_keys(row.full_name),
        "role": row.role,
        "active": row.active,
        "tokens_valid_after": None if tokens_valid_after is None else next_millisecond(tokens_valid_after),
        **{name: value for name, value in known.items() if value},
        "revision": row.revision,
        "epoch": epoch,
    }


def next_millisecond(moment: datetime) -> datetime:
    """Round up to the millisecond. MongoDB truncates moments, which would make a revoked token valid."""
    rest = moment.microsecond % 1000
    return moment + timedelta(microseconds=1000 - rest) if rest else moment
