"""Read tables as CSV: each row of a wide table is one record; of a long one each row is a record with one result, or
the rows with one number that follow each other are one record.

Source: RFC 4180, and what devices and spreadsheets make of it.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from myhealth.clinical.catalog import SOURCE, name_of
from myhealth.clinical.coding_systems import OUR_REPORT
from myhealth.clinical.units import ucum_unit
from myhealth.common.errors import BadInput
from myhealth.common.text import UNSTORABLE
from myhealth.intake.formats.format import Dump, RejectedLayout
from myhealth.intake.formats.source import Source
from myhealth.intake.formats.tables.cells import AmbiguousDate, NoZone, read_moment, read_number, read_value
from myhealth.intake.formats.tables.layout import LOINC, FittedLayout, Layout
from myhealth.intake.formats.tables.rows import NOT_UTF8, Lines, TableRow, read_header, read_rows
from myhealth.intake.formats.tables.rows import is_table as is_table
from myhealth.intake.formats.terminology import read_zone
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.record_types import RESULTS_MAX, TEXT_MAX

TEXTS = ("machine", "record_id", "taken_by")  # fields of a record that have the column's text
SEVERAL = "Measurements"  # the type of a check-up with several tests, where the layout names none
EXPECTED = {"": "year first", "ymd": "year first", "dmy": "day first", "mdy": "month first"}
DAY_FIRST = "--date-format dmy or mdy, or date_format in the layout"
FORM = "--date-format, or date_format in the layout, names another form"
ZONE = "--timezone, timezone= in the address, or zone in the layout"


class TableReader:
    """Makes records of the rows of one table. Its faults name columns."""

    def __init__(self, table: FittedLayout, encoding: str) -> None:
        self.table, self.layout, self.encoding = table, table.layout, encoding
        self.zone = read_zone(self.layout.zone) if self.layout.zone else None
        self._read_a_moment = False

    def column(self, field: str) -> str:
        return " ".join(self.table.names[place] for place in self.table.places.get(field, ()))

    def read(self, row: TableRow) -> ParsedRecord | None:
        """Return the record of a row; None if the row says nothing."""
        parsed = ParsedRecord(0, row.line, row.text, {}, [], warnings=[], patient_field=self.column("patient"))
        record, texts = parsed.record, self._texts(row)
        if patient := texts.get("patient"):
            record["checkup_for"] = patient
        if fault := self._fault_of(row):
            parsed.faults.append(fault)
            return parsed
        record |= {name: texts[name] for name in TEXTS if name in texts}
        if self.table.is_exported and "record_id" in record:
            record["record_id"] = f"{OUR_REPORT}|{record['record_id']}"
        self._add_moment(row, parsed, texts.get("taken_at", ""))
        results = self._wide(row, parsed) if self.table.results else self._long(parsed, texts)
        report = texts.get("checkup_report", "")
        if not results and not report and not parsed.faults:
            return None
        named = results[0]["name"][:TEXT_MAX] if len(results) == 1 else SEVERAL
        record["checkup_type"] = texts.get("checkup_type") or self.layout.checkup_type or named
        record |= {"checkup_report": report, "disease": texts.get("disease", ""), "results": results}
        return parsed

    def _texts(self, row: TableRow) -> dict[str, str]:
        """Return the texts of the fields that say something; of several columns together."""
        found = {}
        for field, places in self.table.places.items():
            texts = [row.cells[place].strip() for place in places if place < len(row.cells)]
            joint = "\n" if field == "checkup_report" else " "
            if text := joint.join(each for each in texts if each and each not in self.layout.blank):
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
        if len(row.cells) < len(names) or any(map(str.strip, row.cells[len(names) :])):
            return "", f"the row has {len(row.cells)} cells, and the header has {len(names)}"
        return None

    def _add_moment(self, row: TableRow, parsed: ParsedRecord, text: str) -> None:
        column = self.column("taken_at")
        if not text:
            parsed.record["taken_precision"] = "unknown"
            return
        try:
            found = read_moment(text, self.layout, self.zone)
        except AmbiguousDate:
            message = f"'{text[:40]}' may be day first or month first; say which: {DAY_FIRST}"
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

    def _wide(self, row: TableRow, parsed: ParsedRecord) -> list[dict[str, Any]]:
        results, columns = [], []
        for place, test in self.table.results.items():
            text = row.cells[place].strip()
            if text and text not in self.layout.blank:
                columns.append(self.table.names[place])
                value = _checked(parsed, columns[-1], read_value, text, self.layout)
                results.append(_table_result(test.name, test.code, test.unit, value))
        parsed.locate = partial(self.locate, columns)
        return results

    def _long(self, parsed: ParsedRecord, texts: dict[str, str]) -> list[dict[str, Any]]:
        """Return the result of a row of a long table; none if it has neither a value nor the name of a test."""
        name, code, text, column = (
            texts.get("name"),
            texts.get("code", ""),
            texts.get("value", ""),
            self.column("value"),
        )
        if not (name or code or text):
            return []
        if not text:
            parsed.faults.append((column, "is missing"))
        value = _checked(parsed, column, read_value, text, self.layout)
        result = _table_result(name or name_of(code) or code, code, texts.get("unit", ""), value)
        if texts.get("range_source") != SOURCE:  # what our catalogue added to our own export
            for end in [each for each in ("low", "high") if each in texts]:
                result[end] = _checked(parsed, self.column(end), read_number, texts[end], self.layout)
            if "flag" in texts:
                result["flag"] = texts["flag"]
        parsed.locate = partial(self.locate, [])
        return [result]

    def locate(self, columns: list[str], name: str) -> str:
        """Return the name of the column that a field of the record comes from. `columns`: those of a wide table."""
        first, _, part = name.partition(".")
        if first.startswith("results["):
            return columns[int(first[8:-1])] if columns else self.column(part) or self.column("value")
        return self.column("patient" if first == "checkup_for" else first) or name


def _checked(parsed: ParsedRecord, column: str, read: Callable[[str, Layout], Any], text: str, layout: Layout) -> Any:
    try:
        return read(text, layout)
    except ValueError as error:
        parsed.faults.append((column, str(error)))
        return text


def _table_result(name: str, code: str, unit: str, value: Any) -> dict[str, Any]:
    """Return a result; what it lacks is left out."""
    found: dict[str, Any] = {"name": name, "value": value}
    if code:
        found["code" if LOINC.fullmatch(code) else "other_code"] = code
    if unit:
        found["unit"] = ucum_unit(unit) or unit
        if found["unit"] != unit:
            found["unit_text"] = unit
    return found


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
    for row in rows:
        parsed = reader.read(row)
        if parsed is None:
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
