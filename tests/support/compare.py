"""Compare both stores without any code of the sync or of `myhealth verify`."""

from __future__ import annotations

import contextlib
import json
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg2

from myhealth.reports.repository import ReportRepository

NONE: dict[str, list[Any]] = {"lost": [], "ghost": [], "stale": [], "people": []}
REPORTS = """
select c.id, c.patient_id, u.subject::text, c.checkup_type, c.checkup_report, c.disease, m.serial, c.taken_by, c.taken_at,
       c.created_at, c.updated_at, c.results::text, c.revision,
       jsonb_path_exists(c.results, '$[*] ? ((@.flag != null && @.flag != "N") || @.value < @.low || @.value > @.high)')
       {further}
from checkups c join users u on u.id = c.patient_id left join machines m on m.id = c.machine_id"""
FIELDS = ("patient_id", "subject", "checkup_type", "checkup_report", "disease", "machine", "taken_by", "taken_at",
          "created_at", "updated_at", "results", "revision", "abnormal")  # fmt: skip
# The further columns of check-ups with their types, by the catalog: a report leaves them out where they are null.
FURTHER = """
select attname::text, atttypid::regtype::text from pg_attribute
where attrelid = 'checkups'::regclass and attnum > 0 and not attisdropped
    and attname not in ('id', 'machine_id', 'record_id', 'changed_in', 'sent', {known})"""
# How columns of a type are read: no report has a moment that Python does not know.
FORMS = {
    "jsonb": "c.{0}::text",
    # Of what the tests measure, a systolic pressure alone has a second threshold.
    "far": 'nullif(jsonb_path_exists(c.results, \'$[*] ? (@.flag == "HH" || @.flag == "LL" || (@.code == "8480-6"'
    ' && @.unit == "mm[Hg]" && @.value >= 160 && @.high < 160))\'), false)',
    "timestamp with time zone": "case when c.{0} between '0001-01-02' and '9999-12-30' then c.{0} end",
}
# The time until which tokens are revoked is rounded up: no revoked token becomes valid again.
PEOPLE = """
select id, subject::text, username, full_name, role, active, revision,
       date_trunc('milliseconds', tokens_valid_after + interval '999 microseconds'), birth_date::text, sex,
       (select jsonb_agg(jsonb_build_object('system', system, 'value', value) order by id) from patient_identifiers
        where patient_id = users.id and system <> '' and left(system, 15) <> 'fhir-reference:') from users"""
PEOPLE_FIELDS = (
    "subject",
    "username",
    "full_name",
    "role",
    "active",
    "revision",
    "tokens_valid_after",
    "birth_date",
    "sex",
    "identifiers",
    "username_key",
    "name_keys",
)


def differences(db: Callable[[str], list[Any]], reports: ReportRepository) -> dict[str, list[Any]]:
    """Return the ids of reports that are lost, extra or different, and of users that are any of these.

    Every field of the report store is compared except the epoch. The result is NONE if the stores agree.
    """
    further = {"far": "far"} | dict(db(FURTHER.format(known=", ".join(f"'{name}'" for name in FIELDS))))
    selected = "".join(f", {FORMS.get(kind, 'c.{0}').format(name)}" for name, kind in further.items())
    read_json = ["results", *(name for name, kind in further.items() if kind == "jsonb")]
    rows = {
        id_: {
            name: digits(json.loads(value, parse_float=Decimal)) if name in read_json else plain(value)
            for name, value in zip((*FIELDS, *further), values, strict=True)
            if name in FIELDS or value is not None
        }
        for id_, *values in db(REPORTS.format(further=selected))
    }
    codes = dict(db("select serial, codes from machines where codes is not null"))
    rows = {id_: without_withdrawn(with_codes(row, codes)) for id_, row in rows.items()}
    found = {
        document["_id"]: {
            name: digits(value) if name in read_json else plain(value)
            for name, value in document.items()
            if name not in ("_id", "epoch")
        }
        for document in reports.reports.find()
    }
    people = {
        id_: [*map(plain, rest), unicodedata.normalize("NFC", rest[1]).lower(), name_keys(rest[2])]
        for id_, *rest in db(PEOPLE)
    }
    known = {document["_id"]: content(document, PEOPLE_FIELDS) for document in reports.users.find()}
    return {
        "lost": sorted(rows.keys() - found.keys()),
        "ghost": sorted(found.keys() - rows.keys()),
        "stale": sorted(id_ for id_ in rows.keys() & found.keys() if rows[id_] != found[id_]),
        "people": sorted(id_ for id_ in people.keys() | known.keys() if people.get(id_) != known.get(id_)),
    }


def without_withdrawn(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a report has of a row: nothing of what its source withdrew; other results keep their numbers."""
    if row.get("status") == "entered-in-error":
        kept = {"created_at", "updated_at", "taken_at", "revision", "status"}
        blank = dict.fromkeys(("subject", "checkup_type", "checkup_report", "disease"), "")
        blank |= {"patient_id": 0, "machine": None, "taken_by": None, "results": [], "abnormal": False}
        return {name: value for name, value in row.items() if name in kept} | blank
    gone = [isinstance(each, dict) and each.get("status") == "entered-in-error" for each in row["results"]]
    if not any(gone):
        return row
    numbered = [{"number": ("number", str(i)), **each} for i, each in enumerate(row["results"], 1)]
    return row | {"results": [each for each, is_gone in zip(numbered, gone, strict=True) if not is_gone]}


def with_codes(row: dict[str, Any], codes: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the LOINC codes that `machines map` gave to tests of its machine."""
    given = {
        (test, unit): code for test, units in codes.get(row["machine"], {}).items() for unit, code in units.items()
    }
    for result in [each for each in row["results"] if given and each["code"] is None]:
        keys = [(result.get(name), unit) for name in ("other_code", "name") for unit in (result["unit"] or "", "")]
        result["code"] = next((given[key] for key in keys if key in given), None)
    return row


def name_keys(full_name: str) -> dict[str, str]:
    """Return the search keys of the plain names in these tests: at most five words, letters only."""
    words = full_name.lower().replace(".", "").split()
    return {str(i + 1): " ".join(words[i:]) for i in range(len(words))}


def content(document: dict[str, Any], fields: tuple[str, ...]) -> list[Any]:
    """Return the values of these fields, and the names of all further fields."""
    further = sorted(document.keys() - {*fields, "_id", "epoch"})
    return [plain(document.get(name)) for name in fields] + further


def plain(value: Any) -> Any:
    """Return a time in whole milliseconds, MongoDB's resolution; return other values as they are."""
    return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) if type(value) is datetime else value


def digits(value: Any) -> Any:
    """Return the value with each number as its digits: 5.10 is not 5.1."""
    if isinstance(value, dict):
        return {name: digits(each) for name, each in value.items()}
    if isinstance(value, list):
        return [digits(each) for each in value]
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return "number", str(Decimal(repr(value)) if isinstance(value, float) else Decimal(value))
    return value


@contextlib.contextmanager
def asking(url: str) -> Iterator[Callable[..., list[Any]]]:
    """Return a function that runs SQL at any server, as the fixture `db` does; each statement is a transaction."""
    connection = psycopg2.connect(url)
    connection.autocommit = True

    def run(sql: str, *values: Any) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    try:
        yield run
    finally:
        connection.close()
