"""Rows of the source of truth as documents of the report store. Pure.

The report store keeps a report for each check-up and a document for each user, in collections of the same names.
Source: myhealth/README.md, "Data model".
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from myhealth.clinical.ranges import is_outside
from myhealth.common.exact_numbers import INT_MAX, INT_MIN, exact_number
from myhealth.common.text import fold_name
from myhealth.reports.name_matching import name_keys

Document = dict[str, Any]
# The form of the documents below. The next sync fills a report store of another form anew.
# 2: users have `name_keys`. 3: `abnormal` is also true if a value lies outside its range and no flag says so.
FORM = 3
NUMBERS = ("value", "low", "high")
NORMAL = (None, "N")


class CheckupRow(NamedTuple):
    """The columns of a check-up that make its report.

    `xid`: the transaction that wrote the row last. `subject`: the patient's; an id may be given to another person
    later, a subject may not. `machine`: the serial number. Moments are in UTC, with or without a zone. `results`: JSON.
    """

    id: int
    xid: int
    patient_id: int
    subject: str
    checkup_type: str
    checkup_report: str
    disease: str
    machine: str | None
    taken_by: str | None
    taken_at: datetime
    created_at: datetime
    updated_at: datetime
    results: str
    revision: int


class UserRow(NamedTuple):
    """The columns of a user that browsing needs: no password. `xid`: the transaction that wrote the row last."""

    id: int
    xid: int
    subject: str
    username: str
    full_name: str
    role: str
    active: bool
    tokens_valid_after: datetime | None
    revision: int


_decode = msgspec.json.Decoder(float_hook=exact_number).decode


def read_results(text: str | bytes) -> tuple[Any, bool]:
    """Return the results in JSON text, every number with its digits, and whether one is abnormal.

    Raises a ValueError if the text is not JSON.
    """
    decoded = _decode(text)
    return decoded, _finish_results(decoded)


def report_document(row: CheckupRow, epoch: int) -> Document:
    """Return the report of one check-up. MongoDB keeps moments to the millisecond.

    `revision` and `epoch` are the last two fields; bson_compare.py reads them there.
    """
    results, abnormal = read_results(row.results)
    return {
        "_id": row.id,
        "patient_id": row.patient_id,
        "subject": row.subject,
        "checkup_type": row.checkup_type,
        "checkup_report": row.checkup_report,
        "disease": row.disease,
        "machine": row.machine,
        "taken_by": row.taken_by,
        "taken_at": row.taken_at,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "results": results,
        "abnormal": abnormal,
        "revision": row.revision,
        "epoch": epoch,
    }


def user_document(row: UserRow, epoch: int) -> Document:
    """Return the document of one user; `username_key` and `name_keys` serve the search by name.

    `revision` and `epoch` are the last two fields, as in a report.
    """
    tokens_valid_after = row.tokens_valid_after
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
        "revision": row.revision,
        "epoch": epoch,
    }


def _finish_results(results: Any) -> bool:
    """Replace integers beyond BSON's range by decimals; return whether a result is abnormal.

    A result is abnormal if it has a flag other than N, or if its value lies outside its range. Another program may
    have stored results of any form. One loop does both tasks, because it runs for every result.
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
    """Round up to the millisecond. MongoDB cuts moments, which would make a token valid that has ended."""
    rest = moment.microsecond % 1000
    return moment + timedelta(microseconds=1000 - rest) if rest else moment
