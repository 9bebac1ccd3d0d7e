"""The layout of a table: how its text is written, and what each column means."""

from __future__ import annotations

import codecs
import re
import tomllib
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Literal

import msgspec
from msgspec import Struct

from myhealth.clinical.catalog import code_of, name_of
from myhealth.clinical.units import ucum_unit
from myhealth.common.decoding import prepare
from myhealth.common.errors import BadInput
from myhealth.intake.formats.terminology import read_zone
from myhealth.intake.record_types import RESULTS_MAX

LAYOUT_MAX = 20_000  # characters
COLUMNS_MAX = RESULTS_MAX + 100
BESIDE_LAYOUT = ("date_format", "decimal", "encoding", "zone")  # what a sender may say without a layout
ORDERS = ("dmy", "mdy", "ymd")
# The fields of a record, of the result in each row of a long table, and the fields that several columns may make up.
PATIENT_FIELDS = ("authority", "patient_name", "birth_date", "sex", "age")
RECORD_FIELDS = (
    *("patient", "taken_at", "machine", "record_id", "checkup_type", "checkup_report", "disease", "taken_by", "status"),
    *PATIENT_FIELDS,
)
RESULT_FIELDS = (
    *("name", "code", "value", "unit", "low", "high", "flag", "range_source"),
    *("range_text", "interpretation", "specimen", "method", "absent_reason"),
)
WIDE_FIELDS = (*RECORD_FIELDS, "specimen", "method")  # of a wide table: those of a result hold for the whole row
WORDS = ("checkup_report", "ignored")  # texts for people
JOINED = ("taken_at", "checkup_report", "ignored")
# The folded names of columns that a guessed layout knows.
_NAMES = """
patient: patient, patient id, username, user, checkup for
taken_at: taken at, date, time, datetime, date time, date/time, timestamp, measured at
machine: machine, serial, serial number, device serial
record_id: record id, checkup, check-up, checkup id
checkup_type: checkup type, type
checkup_report: checkup report, report, notes, note, comments, comment, remarks
disease: disease
taken_by: taken by, doctor, operator
status: status, result status
authority: authority, assigning authority, patient authority, issuer
patient_name: patient name, name of patient, full name
birth_date: birth date, date of birth, birthdate, dob
sex: sex, gender
age: age, patient age
name: name, test, test name, analyte, analyte name, parameter, parameter name, investigation
code: code, loinc
value: value, result
unit: unit, units
low: low
high: high
flag: flag
range_source: range source
range_text: range text, range, reference range, reference interval, ref range, ref. range, normal range
interpretation: interpretation, interpretations, abnormal flag
specimen: specimen, specimen type, sample type
method: method
absent_reason: absent reason
ignored: no, no., nr, nr., #, row, index
"""
FIELD_OF = {
    name: field
    for field, _, names in (line.partition(": ") for line in _NAMES.split("\n"))
    for name in names.split(", ")
}
# A file of our own export: its numbers are those of our check-ups.
EXPORTED = {"id", "username", "number", "result status"}
# Encodings of text by the names of their codecs. Others of Python's unpack, escape or rewrite.
ENCODINGS = re.compile(
    r"utf-(8(-sig)?|(16|32)(-[bl]e)?)|ascii|(iso8859|koi8|mac)-\w+|cp\d+|tis-620"
    r"|gb2312|gbk|gb18030|big5(hkscs)?|euc_\w+|shift_jis\w*|johab"
)
ABOUT = re.compile(r"(.+?) (?:flag|units?|low|high|(?:reference |ref\.? |normal )?range|interpretation|status)")
ABOUT_OTHER = "make a long table, or, if each column is a test of its own, say so with --layout wide"
LOINC = re.compile(r"\b[0-9]{1,7}-[0-9]\b")
UNIT = re.compile(r"\s*[(\[]([^()\[\]]*(?:\[[^\]]*\])?[^()\[\]]*)[)\]]\s*$")


class Measured(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A column of a wide table with the values of one test. `name`, `unit`: "" to take them from the column's name."""

    column: str
    name: str = ""
    code: str = ""
    unit: str = ""


class Layout(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """How to read a table. Every part may be left out; without `columns` and `results` they are guessed by the names.

    `kind`: guess only this kind. `delimiter`: guessed if empty. `encoding`: a BOM wins; else UTF-8. `decimal`,
    `thousands`: the separators of numbers; without `thousands` numbers have none. `blank`: texts of empty cells, such
    as "-". `date_format`: of days whose year does not come first: dmy, mdy, or as for strptime. `zone`: of moments that
    name none. `checkup_type`: of all records. `columns`: the columns of RECORD_FIELDS and RESULT_FIELDS, and those
    `ignored`. `results`: the tests of a wide table.
    """

    kind: Literal["", "wide", "long"] = ""
    delimiter: Literal["", ",", ";", "\t", "|"] = ""
    encoding: str = ""
    decimal: Literal[".", ",", ""] = ""
    thousands: Literal["", ".", ",", " ", "'"] = ""
    blank: list[str] = []
    date_format: str = ""
    zone: str = ""
    checkup_type: str = ""
    columns: dict[str, str | list[str]] = {}
    results: list[Measured] = []

    @property
    def is_given(self) -> bool:
        return bool(self.columns or self.results)


prepare(Layout)
GUESSED = Layout()


def parse_layout(text: str) -> Layout:
    """Return the layout of a text: "wide", "long", TOML, or what `dump_layout` returned. Raises BadInput."""
    if text in ("wide", "long"):
        return Layout(kind=text)  # type: ignore[arg-type]
    try:
        if len(text) > LAYOUT_MAX:
            raise ValueError(f"it has more than {LAYOUT_MAX} characters")
        found = msgspec.json.decode(text) if text.startswith("{") else tomllib.loads(text)
        layout = msgspec.convert(found, Layout)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise BadInput(f"the layout cannot be read: {error}") from error
    return check_layout(layout)


def dump_layout(layout: Layout) -> str:
    """Return the layout as text; "" if it says nothing."""
    text = msgspec.json.encode(layout).decode()
    return "" if text == "{}" else text


def check_layout(layout: Layout, **given: str | None) -> Layout:
    """Return the layout with the parts that are given. Raises BadInput where it contradicts itself or names what does
    not exist."""
    layout = msgspec.structs.replace(layout, **{part: value for part, value in given.items() if value})
    unknown = layout.columns.keys() - {*RECORD_FIELDS, *RESULT_FIELDS, "ignored"}
    several = [name for name, value in layout.columns.items() if isinstance(value, list) and name not in JOINED]
    fault = ""
    if unknown:
        known = ", ".join((*RECORD_FIELDS, *RESULT_FIELDS))
        fault = f"columns.{min(unknown)} is not known; known are {known}"
    elif several:
        fault = f"columns.{several[0]} must be one column"
    elif layout.is_given and bool(layout.results) == ("value" in layout.columns):
        fault = "it needs either results (a wide table) or columns.value (a long one)"
    elif layout.results and (long := layout.columns.keys() - {*WIDE_FIELDS, "ignored"}):
        fault = f"columns.{min(long)} is of a long table, and results make it a wide one"
    elif layout.decimal not in ("", ".", ","):
        fault = f"the decimal separator must be . or , and not {layout.decimal[:20]!r}"
    elif layout.decimal and layout.decimal == layout.thousands:
        fault = "decimal and thousands are the same character"
    elif layout.date_format and layout.date_format not in ORDERS and not _is_whole(layout.date_format):
        fault = f"date_format {layout.date_format!r} must be dmy, mdy, ymd, or have a whole day, as %d/%m/%Y has"
    else:
        try:
            is_text = ENCODINGS.fullmatch(codecs.lookup(layout.encoding or "utf-8").name)
        except (LookupError, ValueError):
            is_text = None
        if not is_text:
            fault = f"the encoding {layout.encoding!r} is not known; known are utf-8, utf-16, windows-1252 and the like"
    if fault:
        raise BadInput(f"the layout cannot be used: {fault}")
    if layout.zone:
        read_zone(layout.zone)
    return layout


def _is_whole(date_format: str) -> bool:
    """Return whether a format of strptime has a year, a month and a day."""
    for moment in (datetime(2001, 2, 3), datetime(2015, 11, 25)):
        try:
            if datetime.strptime(moment.strftime(date_format), date_format).date() != moment.date():
                return False
        except (ValueError, re.error):  # a part that occurs twice
            return False
    return True


class FittedLayout(Struct, frozen=True, dict=True):
    """A layout that fits a header. `names`: of the columns. `places`: the columns of each field. `results`: the columns
    of a wide table with what is known of their test. `unit`: of a long table's values, from its header."""

    layout: Layout
    names: list[str]
    places: dict[str, list[int]]
    results: dict[int, Measured]
    is_exported: bool = False
    unit: str = ""

    @cached_property
    def unnamed(self) -> list[int]:
        """The places of the columns without a name."""
        return [place for place, name in enumerate(self.names) if not name]

    @cached_property
    def words(self) -> set[int]:
        """The places of texts for people, and of columns that are not read."""
        read = {place for field, places in self.places.items() if field not in WORDS for place in places}
        return {*range(len(self.names))} - read - self.results.keys()

    @cached_property
    def unread(self) -> list[str]:
        """The names of the columns that the layout does not name."""
        read = {place for places in self.places.values() for place in places} | self.results.keys()
        return [name for place, name in enumerate(self.names) if place not in read and name]


def fit(layout: Layout, cells: Sequence[str]) -> FittedLayout | str:
    """Return the table if the cells are its header, else why they are not."""
    if len(cells) > COLUMNS_MAX:
        return f"it has more than {COLUMNS_MAX:,} columns"
    names = [cell.strip() for cell in cells]
    folded = [fold_column(name) for name in names]
    return _fit_given(layout, names, folded) if layout.is_given else _guess(layout, names, folded)


def fold_column(name: str) -> str:
    """Return the name of a column as it is compared: without case, with one blank for blanks and underscores."""
    return re.sub(r"[\s_\ufeff]+", " ", name).strip().casefold()


def _fit_given(layout: Layout, names: list[str], folded: list[str]) -> FittedLayout | str:
    places = {field: [value] if isinstance(value, str) else value for field, value in layout.columns.items()}
    ignored = [folded.index(fold_column(name)) for name in places.pop("ignored", ()) if fold_column(name) in folded]
    wanted = [*(name for each in places.values() for name in each), *(each.column for each in layout.results)]
    for name in wanted:
        if folded.count(fold_column(name)) != 1:
            return f"the column {name[:40]!r} {'occurs twice' if fold_column(name) in folded else 'is missing'}"
    found = {field: [folded.index(fold_column(name)) for name in each] for field, each in places.items()} | {
        "ignored": ignored
    }
    results = {folded.index(fold_column(each.column)): each for each in layout.results}
    described = {place: _described(each) for place, each in results.items()}
    unit = "" if results else _split_unit(layout.columns["value"])[1]  # type: ignore[arg-type]
    return FittedLayout(layout, names, found, described, unit=unit)


def _guess(layout: Layout, names: list[str], folded: list[str]) -> FittedLayout | str:
    places: dict[str, list[int]] = {}
    counted = Counter(folded)
    unit = ""
    for place, name in enumerate(folded):
        field = FIELD_OF.get(name)
        if not field and FIELD_OF.get(fold_column((split := _split_unit(names[place]))[0])) == "value":
            field, unit = "value", split[1]
        if field and counted[name] > 1:
            return f"the column {names[place][:40]!r} occurs twice"
        if field:
            places.setdefault(field, []).append(place)
    if "taken_at" in places:  # a day comes before its time
        places["taken_at"].sort(key=lambda place: folded[place] == "time")
    is_exported = set(folded) >= EXPORTED
    if is_exported:
        places["record_id"] = [folded.index("id")]
    is_long = "value" in places and ("name" in places or "code" in places)
    if is_long and layout.kind != "wide":
        double = next((field for field, each in places.items() if len(each) > 1 and field not in JOINED), "")
        return f"two columns may be {double}" if double else FittedLayout(layout, names, places, {}, is_exported, unit)
    if layout.kind == "long":
        return "a long table has columns named value and name or code"
    wide = {field: each for field, each in places.items() if field in (*WIDE_FIELDS, "ignored")}
    if "name" in folded:
        wide.setdefault("patient_name", [folded.index("name")])
    taken = {place for each in wide.values() for place in each}
    results = {place: _described(Measured(name)) for place, name in enumerate(names) if name and place not in taken}
    long = next(
        (names[place] for place in results if folded[place] in FIELD_OF or place in places.get("value", ())), ""
    )
    if "taken_at" in wide and long:
        return f"the column {long[:40]!r} is of a long table, which has columns named value and name or code"
    if "taken_at" not in wide or not results:
        return "a wide table has a column named taken_at, date or the like, and a column for each test"
    about = next((names[place] for place in results if _is_about_other(place, results)), "")
    if about and layout.kind != "wide":
        return f"the column {about[:40]!r} is about another one; {ABOUT_OTHER}"
    double = next((name for place, name in enumerate(folded) if name and counted[name] > 1), "")
    double = double or next((field for field, each in wide.items() if len(each) > 1 and field not in JOINED), "")
    return f"two columns are named or may be {double[:40]!r}" if double else FittedLayout(layout, names, wide, results)


def _is_about_other(place: int, results: dict[int, Measured]) -> bool:
    """Return whether a column has the flag, the unit or the range of another column."""
    found = ABOUT.fullmatch(fold_column(results[place].column))
    others = {fold_column(name) for at, each in results.items() if at != place for name in (each.column, each.name)}
    return found is not None and found[1] in others


def _described(column: Measured) -> Measured:
    """Return the column with its name, code and unit, from "Glucose (mg/dL)" and "Glucose 2345-7" as far as it says.

    A name of the catalogue has the code of its unit.
    """
    text, in_header = _split_unit(column.column.strip())
    unit = column.unit or in_header
    coded = LOINC.search(text)
    code = column.code or (coded[0] if coded else "")
    name = column.name or LOINC.sub("", text).strip() or name_of(code) or code
    return Measured(column.column, name, code or code_of(name, unit), unit)


def _split_unit(name: str) -> tuple[str, str]:
    """Return the name of a column without a unit in brackets at its end, and that unit, "" if there is none."""
    found = UNIT.search(name)
    return (name[: found.start()], found[1].strip()) if found and ucum_unit(found[1]) else (name, "")
