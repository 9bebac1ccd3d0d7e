"""Rows of the source of truth as documents of the report store. Pure. Source: myhealth/README.md, "Data model"."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from myhealth.clinical.ranges import is_outside
from myhealth.common.exact_numbers import INT_MAX, INT_MIN, exact_number
from myhealth.reports.name_matching import name_key, name_keys

Document = dict[str, Any]
# Which form the documents below have: a report store that was filled in another one is filled anew by the next sync.
# 2: users have `name_keys`. 3: `abnormal` also where a value lies outside its range and no flag says so.
FORM = 3
NUMBERS = ("value", "low", "high")
NORMAL = (None, "N")

_decode = msgspec.json.Decoder(float_hook=exact_number).decode


def read_results(text: str | bytes) -> tuple[Any, bool]:
    """Results out of JSON text, every number with its digits, and whether one is not normal. Raises a ValueError where
    it is no JSON."""
    decoded = _decode(text)
    return decoded, _look_through(decoded)


def report_document(
    epoch: int,
    id_: int,
    xid: int,
    patient_id: int,
    subject: str,
    checkup_type: str,
    checkup_report: str,
    disease: str,
    machine: str | None,
    taken_by: str | None,
    taken_at: datetime,
    created_at: datetime,
    updated_at: datetime,
    results: str,
    revision: int,
) -> Document:
    """The report of one check-up, of its columns in this order; `results` as JSON text, `machine` the serial,
    `subject` the patient's: an id may be handed out again, to somebody else, and a report is its patient's alone.

    Moments are in UTC, with or without a zone; MongoDB keeps them to the millisecond.
    """
    decoded, abnormal = read_results(results)
    return {
        "_id": id_,
        "patient_id": patient_id,
        "subject": subject,
        "checkup_type": checkup_type,
        "checkup_report": checkup_report,
        "disease": disease,
        "machine": machine,
        "taken_by": taken_by,
        "taken_at": taken_at,
        "created_at": created_at,
        "updated_at": updated_at,
        "results": decoded,
        "abnormal": abnormal,
        "revision": revision,
        "epoch": epoch,
    }


def user_document(
    epoch: int,
    id_: int,
    xid: int,
    subject: str,
    username: str,
    full_name: str,
    role: str,
    active: bool,
    tokens_valid_after: datetime | None,
    revision: int,
) -> Document:
    """What the report store knows of a user, of these columns: no password, nothing that browsing does not need.

    `username_key`, `name_keys`: for finding a name. `subject`: who it is, for good; ids may be handed out again.
    """
    return {
        "_id": id_,
        "subject": subject,
        "username": username,
        "username_key": name_key(username),
        "full_name": full_name,
        "name_keys": name_keys(full_name),
        "role": role,
        "active": active,
        "tokens_valid_after": None if tokens_valid_after is None else next_millisecond(tokens_valid_after),
        "revision": revision,
        "epoch": epoch,
    }


def _look_through(results: Any) -> bool:
    """Makes decimals of the integers that BSON has no room for; whether a result carries a flag other than N, or lies
    outside its range.

    Results that some other program wrote may be of any form. One loop for both: it runs for every result there is.
    """
    abnormal = False
    for result in results if type(results) is list else ():
        if type(result) is dict:
            get = result.get
            if not abnormal:
                abnormal = get("flag") not in NORMAL or is_outside(get("value"), get("low"), get("high"))
            for name in NUMBERS:
                number = get(name)
                if type(number) is int and not INT_MIN <= number <= INT_MAX:
                    result[name] = Decimal(number)
    return abnormal


def next_millisecond(moment: datetime) -> datetime:
    """MongoDB cuts a moment to the millisecond: rounded up, no token that has ended comes to life by it."""
    rest = moment.microsecond % 1000
    return moment + timedelta(microseconds=1000 - rest) if rest else moment
