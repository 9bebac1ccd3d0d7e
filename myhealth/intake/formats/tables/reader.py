"""Read tables as CSV: each row of a wide table is one record; of a long one each row is a record with one result, or
the rows with one number that follow each other are one record.

Source: RFC 4180, and what devices and spreadsheets make of it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from myhealth.clinical.absent_reasons import NO_VALUE
from myhealth.clinical.catalog import SOURCE, name_of
from myhealth.clinical.coding_systems import OUR_REPORT, is_loinc
from myhealth.clinical.guide import BLOOD_PRESSURE, DIASTOLIC, SYSTOLIC
from myhealth.clinical.interpretations import read_mark
from myhealth.clinical.range_choice import sex_named
from myhealth.clinical.range_text import range_facts
from myhealth.clinical.status import WITHDRAWN
from myhealth.clinical.units import series_unit, ucum_unit
from myhealth.common.errors import BadInput
from myhealth.common.text import UNSTORABLE
from myhealth.intake.formats.format import Dump, RejectedLayout
from myhealth.intake.formats.source import Source
from myhealth.intake.formats.tables.cells import (
    EITHER_FIRST,
    AmbiguousDate,
    NoZone,
    read_birth_date,
    read_moment,
    read_number,
    read_result,
    read_status,
)
from myhealth.intake.formats.tables.layout import FittedLayout, Layout, fold_column
from myhealth.intake.formats.tables.rows import NOT_UTF8, Lines, TableRow, read_header, read_rows
from myhealth.intake.formats.tables.rows import is_table as is_table
from myhealth.intake.formats.terminology import read_zone
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.record_types import RESULTS_MAX, TEXT_MAX

TEXTS = ("machine", "record_id", "taken_by")  # fields of a record that have the column's text
BLANK = ("-", "--", "n/a", "N/A", "null", "NULL")  # typed into other cells than values, they say nothing
LATIN = re.compile(r"(WINDOWS-|CP)1252|LATIN-?[19]|ISO-?8859-(1|15)", re.IGNORECASE)
CODED = re.compile(r"(?:(?:LOINC|LN|http://loinc\.org)[\s:|]*)?([1-9][0-9]{0,6}-[0-9])", re.IGNORECASE)
GUARDED = re.compile('="([^"]*)"')
PRESSURE = re.compile(r"([0-9]{2,3})\s*/\s*([0-9]{2,3})")
PRESSURES = frozenset(("bp", "blood pressure", "nibp"))
SEVERAL = "Measurements"  # the type of a check-up with several tests, where the layout names none
EXPECTED = {"": "year first", "ymd": "year first", "dmy": "day first", "mdy": "month first"}
AGE = re.compile(r"([0-9]{1,3})\s*(?:a|y|yrs?|years?)?", re.IGNORECASE)
SEXES = {"o": "other", "u": "unknown"}
FINAL, MMHG = "final", "mm[Hg]"
NOTHING = {"value": NO_VALUE, "absent_reason": NO_VALUE}
FORM = "--date-format, or date_format in the layout, names another form"
ZONE = "--timezone, timezone= in the address, or zone in the layout"


class TableReader:
    """Makes records of the rows of one table. Its faults name columns."""

    def __init__(self, table: FittedLayout, encoding: str) -> None:
        self.table, self.layout, self.encoding = table, table.layout, encoding
        self.zone = read_zone(self.layout.zone) if self.layout.zone else None
        self._read_a_moment = False
        self._header = [*map(fold_column, table.names)]
        self._is_latin = LATIN.fullmatch(encoding) is not None

    def column(self, field: str) -> str:
        return " ".join(self.table.names[place] for place in self.table.places.get(field, ()))

    def read(self, row: TableRow) -> ParsedRecord | None:
        """Return the record of a row; None if the row says nothing."""
        parsed = ParsedRecord(0, row.line, row.text, {}, [], warnings=[], patient_field=self.column("patient"))
        record, texts = parsed.record, self._texts(row)
        if patient := texts.get("patient"):
            record["checkup_for"] = patient
        if about := self._patient(parsed, texts):
            record["patient"] = about
        if fault := self._fault_of(row):
            parsed.faults.append(fault)
            return parsed
        record |= {name: texts[name] for name in TEXTS if name in texts}
        if self.table.is_exported and "record_id" in record:
            record["record_id"] = f"{OUR_REPORT}|{record['record_id']}"
        self._add_moment(row, parsed, texts.get("taken_at", ""))
        results = self._wide(row, parsed, texts) if self.table.results else self._long(parsed, texts)
        report = texts.get("checkup_report", "")
        if self.table.results and "status" in texts:
            record["status"] = _checked(parsed, self.column("status"), read_status, texts["status"])
        withdraws = record.get("status") == WITHDRAWN and "record_id" in record  # it need not say what
        if not results and not report and not parsed.faults and not withdraws:
            return None
        named = results[0]["name"][:TEXT_MAX] if len(results) == 1 else SEVERAL
        record["checkup_type"] = texts.get("checkup_type") or self.layout.checkup_type or named or SEVERAL
        record |= {"checkup_report": report, "disease": texts.get("disease", ""), "results": results}
        return parsed

    def _patient(self, parsed: ParsedRecord, texts: dict[str, str]) -> dict[str, Any]:
        """Return what the row says of its patient beside a username; {} if it says nothing."""
        found: dict[str, Any] = {}
        if "authority" in texts and "patient" in texts:
            found["identifiers"] = [{"system": texts["authority"], "value": texts["patient"]}]
        if "patient_name" in texts:
            found["name"] = texts["patient_name"]
        if "birth_date" in texts:
            column = self.column("birth_date")
            found["birth_date"] = _checked(parsed, column, read_birth_date, texts["birth_date"], self.layout)
        if sex := texts.get("sex", "").casefold():
            found["sex"] = sex_named(sex) or SEXES.get(sex, sex)
        if match := AGE.fullmatch(texts.get("age", "")):
            found["age"] = int(match[1])
        return found

    def _texts(self, row: TableRow) -> dict[str, str]:
        """Return the texts of the fields that say something; of several columns together."""
        found = {}
        for field, places in self.table.places.items():
            texts = [_plain(row.cells[place]) for place in places if place < len(row.cells)]
            joint = "\n" if field == "checkup_report" else " "
            text = joint.join(each for each in texts if each and each not in self.layout.blank)
            if text and (field == "value" or text not in BLANK):
                found[field] = text
        return found

    def _fault_of(self, row: TableRow) -> tuple[str, str] | None:
        names = self.table.names
        if row.fault:
            return names[min(len(row.cells), len(names)) - 1], row.fault
        for name, cell in zip(names, row.cells, strict=False):
            if found := UNSTORABLE.search(cell):
                is_nul = found[0] == "\0"
                return name, "holds a NUL character" if is_nul else NOT_UTF8.format(self.encoding)
            if self._is_latin and not cell.isascii() and _is_utf8_read_as(cell, self.encoding):
                return name, f"holds bytes that are UTF-8, not {self.encoding}; name no encoding, or the right one"
        if len(row.cells) < len(names) or any(map(str.strip, row.cells[len(names) :])):
            return "", f"the row has {len(row.cells)} cells, and the header has {len(names)}"
        return None

    def is_header(self, row: TableRow) -> bool:
        """Return whether the row is the header again, as where two files were joined.

        Raises BadInput if its columns are in another order: the rows behind it cannot be read.
        """
        if len(row.cells) != len(self._header) or fold_column(row.cells[0]) not in self._header:
            return False
        cells = [*map(fold_column, row.cells)]
        if cells != self._header and sorted(cells) == sorted(self._header):
            raise BadInput(f"line {row.line}: another header begins here, with its columns in another order",
                           hint="make a file of its own of what follows")  # fmt: skip
        return cells == self._header

    def _add_moment(self, row: TableRow, parsed: ParsedRecord, text: str) -> None:
        column = self.column("taken_at")
        if not text:
            parsed.record["taken_precision"] = "unknown"
            return
        try:
            found = read_moment(text, self.layout, self.zone)
        except AmbiguousDate:
            message = f"'{text[:40]}' {EITHER_FIRST}"
            if not self._read_a_moment:  # so is every row
                raise BadInput(f"line {row.line}, {column}: {message}") from None
            parsed.faults.append((column, message))
        except NoZone:
            self._read_a_moment = True
            parsed.faults.append((column, f"'{text[:40]}' has no zone; add one, or name that of all rows: {ZONE}"))
        except ValueError:
            wanted = EXPECTED.get(self.layout.date_format, self.layout.date_format)
            message = f"is no date and time ({wanted}): '{text[:40]}'; {FORM}"
            parsed.faults.append((column, message))
        else:
            self._read_a_moment = True
            parsed.record["taken_at"] = found.text
            if found.known:
                parsed.record["taken_precision"] = found.known
            if found.doubt:
                parsed.warnings.append((column, found.doubt))

    def _wide(self, row: TableRow, parsed: ParsedRecord, texts: dict[str, str]) -> list[dict[str, Any]]:
        results, columns = [], []
        for place, test in self.table.results.items():
            text = _plain(row.cells[place])
            if text and text not in self.layout.blank:
                column = self.table.names[place]
                value = _checked_value(parsed, column, text, self.layout)
                found = _table_results(test.name, test.code, test.unit, value)
                results += [each | _circumstances(texts) for each in found]
                columns += [column] * len(found)
        parsed.locate = partial(self.locate, columns)
        return results

    def _long(self, parsed: ParsedRecord, texts: dict[str, str]) -> list[dict[str, Any]]:
        """Return the result of a row of a long table, or both of a blood pressure; none if it has neither a value nor
        the name of a test."""
        name, code, text, column = (
            texts.get("name"),
            texts.get("code", ""),
            texts.get("value", ""),
            self.column("value"),
        )
        if not (name or code or text):
            return []
        status = None
        if "status" in texts:
            status = _checked(parsed, self.column("status"), read_status, texts["status"])
        withdraws = status == WITHDRAWN and "record_id" in texts  # it need not repeat the value
        absent = NOTHING | ({"absent_reason": texts["absent_reason"]} if "absent_reason" in texts else {})
        if not text and not withdraws and "absent_reason" not in texts:
            parsed.faults.append((column, "is missing"))
        unit, in_header = texts.get("unit", ""), self.table.unit
        if unit and in_header and series_unit(unit) != series_unit(in_header):
            parsed.faults.append((self.column("unit"), f"is {unit[:40]}, but the column {column} is in {in_header}"))
        value = absent if not text else _checked_value(parsed, column, text, self.layout)
        results = _table_results(name or name_of(code) or code, code, unit or in_header, value)
        more = _circumstances(texts)
        if status not in (None, FINAL):
            more["status"] = status
        if len(results) == 1:
            more |= self._range(parsed, texts) | self._mark(texts)
        parsed.locate = partial(self.locate, [])
        return [each | more for each in results]

    def _range(self, parsed: ParsedRecord, texts: dict[str, str]) -> dict[str, Any]:
        if texts.get("range_source") == SOURCE:  # what our catalogue added to our own export
            return {}
        ends = [name for name in ("low", "high") if name in texts]
        found: dict[str, Any] = {}
        for end in ends:
            found[end] = _checked(parsed, self.column(end), read_number, texts[end], self.layout)
            if found[end] is None:
                parsed.faults.append((self.column(end), f"is no number: '{texts[end][:40]}'"))
        if "range_text" not in texts:
            return found
        words = texts["range_text"]
        return found | {"range_text": words} if found else range_facts(words, texts.get("unit") or self.table.unit)

    def _mark(self, texts: dict[str, str]) -> dict[str, Any]:
        if texts.get("range_source") == SOURCE or not (text := texts.get("flag") or texts.get("interpretation", "")):
            return {}
        flag, interpretation = read_mark(text)
        return {"flag": flag} | ({"interpretations": [interpretation]} if interpretation else {})

    def locate(self, columns: list[str], name: str) -> str:
        """Return the name of the column that a field of the record comes from. `columns`: those of a wide table."""
        first, _, part = name.partition(".")
        if first.startswith("results["):
            return columns[int(first[8:-1])] if columns else self.column(part) or self.column("value")
        if first == "patient" and part:
            return self.column("patient_name" if part == "name" else part) or self.column("authority") or name
        return self.column("patient" if first == "checkup_for" else first) or name


def _checked(parsed: ParsedRecord, column: str, read: Callable[..., Any], text: str, *layout: Layout) -> Any:
    try:
        return read(text, *layout)
    except ValueError as error:
        parsed.faults.append((column, str(error)))
        return text


def _checked_value(parsed: ParsedRecord, column: str, text: str, layout: Layout) -> dict[str, Any]:
    found = _checked(parsed, column, read_result, text, layout)
    return found if isinstance(found, dict) else {"value": found}


def _table_results(name: str, code: str, unit: str, value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a result, or the two of a blood pressure such as 128/82; what they lack is left out."""
    pressure = PRESSURE.fullmatch(str(value["value"]))
    is_pressure = code == BLOOD_PRESSURE or (not code and name.casefold() in PRESSURES)
    if pressure and is_pressure and series_unit(unit) in ("", MMHG) and int(pressure[1]) > int(pressure[2]):
        both = zip((SYSTOLIC, DIASTOLIC), pressure.groups(), strict=True)
        return [_table_result(name_of(code) or code, code, MMHG, {"value": int(digits)}) for code, digits in both]
    return [_table_result(name, code, unit, value)]


def _table_result(name: str, code: str, unit: str, value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, **value}
    if code:
        coded = CODED.fullmatch(code)
        found |= {"code": coded[1]} if coded and is_loinc(coded[1]) else {"other_code": code}
    if unit:
        found["unit"] = ucum_unit(unit) or unit
        if found["unit"] != unit:
            found["unit_text"] = unit
    return found


def _plain(cell: str) -> str:
    """Return the text of a cell, without what keeps a spreadsheet from reading it as a number: ="007"."""
    text = cell.strip()
    guarded = GUARDED.fullmatch(text)
    return guarded[1].strip() if guarded else text


def _circumstances(texts: dict[str, str]) -> dict[str, Any]:
    return {name: texts[name] for name in ("specimen", "method") if name in texts}


def _is_utf8_read_as(cell: str, encoding: str) -> bool:
    """Return whether a text was made of bytes that are UTF-8, in another encoding than that."""
    try:
        cell.encode(encoding).decode()
    except ValueError:
        return False
    return True


def read_table(source: Source, dump: Dump) -> Iterator[ParsedRecord]:
    """Return the records of a table. Memory does not grow with it.

    Raises BadInput naming the line if no layout fits the header, nobody says whose the rows are, or the first moment
    may mean two days.
    """
    lines = Lines.of(source.head(), source.stream(), dump.layout.encoding)
    table, delimiter, dump.header = read_header(lines, dump.layout)
    if "patient" not in table.places and not dump.patient_given:
        raise BadInput("no column names the patient", hint="name the patient of all rows (--patient), or a layout that"
                       " says which column it is (columns.patient)")  # fmt: skip
    if table.unread and not table.is_exported:
        dump.notices.append(f"the layout reads no column named {', '.join(table.unread)[:500]}")
    reader = TableReader(table, lines.encoding)
    for index, parsed in enumerate(_grouped(_records(reader, read_rows(lines, delimiter), dump))):
        parsed.index, parsed.raw = index, _after_header(dump.header) + parsed.raw
        yield parsed


def _after_header(header: str) -> str:
    return header if header.endswith(("\n", "\r")) else f"{header}\n"


def _records(reader: TableReader, rows: Iterator[TableRow], dump: Dump) -> Iterator[ParsedRecord]:
    unnamed = reader.table.unnamed
    for row in rows:
        for place in unnamed:
            if "".join(row.cells[place : place + 1]).strip():
                dump.notices.append(f"column {place + 1} has no name and is not read")
                unnamed = []
                break
        if reader.is_header(row):
            dump.skipped["header again"] += 1
        elif (parsed := reader.read(row)) is None:
            dump.skipped["row without a value"] += 1
        else:
            yield parsed


def _grouped(records: Iterator[ParsedRecord]) -> Iterator[ParsedRecord]:
    """Join the rows with one number that follow each other."""
    first: ParsedRecord | None = None
    for parsed in records:
        if first is not None and _belongs(first, parsed):
            _add(first, parsed)
            continue
        if first is not None:
            yield first
        first = parsed
    if first is not None:
        yield first


def _belongs(first: ParsedRecord, parsed: ParsedRecord) -> bool:
    number, results = first.record.get("record_id"), first.record.get("results", ())
    return number is not None and number == parsed.record.get("record_id") and len(results) < RESULTS_MAX


def _add(first: ParsedRecord, parsed: ParsedRecord) -> None:
    """Add the results of a further row to the record of the first one."""
    record, more = first.record, parsed.record
    for name in sorted((record.keys() | more.keys()) - {"results", "checkup_type"}):
        if record.get(name) != more.get(name):
            parsed.faults.append((first.locate(name), f"is not that of the first row of record {record['record_id']}"))
    if record["checkup_type"] != more["checkup_type"]:
        record["checkup_type"] = SEVERAL
    first.faults += [(f"line {parsed.line}, {name}", message) for name, message in parsed.faults]
    record["results"] += more["results"]
    first.raw = _after_header(first.raw) + parsed.raw


def write_rejected_rows(dump: Dump) -> RejectedLayout:
    """Write the header once. The file is UTF-8 with a BOM, whatever the encoding of the source was."""
    header = _after_header(dump.header)

    def encode(parsed: ParsedRecord) -> bytes:
        return _after_header(parsed.raw.removeprefix(header)).encode("utf-8", "surrogateescape")

    return RejectedLayout(codecs.BOM_UTF8 + header.encode(), b"", b"", encode)
