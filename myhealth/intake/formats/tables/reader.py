"""Read tables as CSV: each row of a wide table is one record; of a long one each row is a record with one result, or
the rows with one number that follow each other are one record.

Source: RFC 4180, and what devices and spreadsheets make of it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from datetime import UTC
from functools import partial
from typing import Any

from msgspec.structs import replace

from myhealth.clinical.absent_reasons import NO_VALUE
from myhealth.clinical.catalog import SOURCE, code_of, name_of
from myhealth.clinical.coding_systems import OUR_REPORT
from myhealth.clinical.interpretations import read_mark
from myhealth.clinical.range_choice import sex_named
from myhealth.clinical.range_text import completed, range_facts
from myhealth.clinical.status import WITHDRAWN
from myhealth.clinical.units import series_unit
from myhealth.common.errors import BadInput
from myhealth.common.spreadsheets import MADE_DATE, spoilt, unguarded
from myhealth.common.text import UNSTORABLE
from myhealth.intake.formats.controls import kind_of_record
from myhealth.intake.formats.format import Dump, RejectedLayout
from myhealth.intake.formats.marked_numbers import part_marks
from myhealth.intake.formats.source import Source
from myhealth.intake.formats.tables.cells import (
    EITHER_FIRST,
    AmbiguousDate,
    NoZone,
    fits_other_order,
    has_decimal_points,
    read_age,
    read_birth_date,
    read_marked_number,
    read_moment,
    read_number,
    read_result,
    read_status,
    table_result,
    table_results,
)
from myhealth.intake.formats.tables.grouping import (
    SEVERAL,
    group_rows,
    note_former,
    note_former_age,
    only_one,
    was_text,
    with_end,
    with_replaced,
)
from myhealth.intake.formats.tables.headers import Headers, check_order
from myhealth.intake.formats.tables.layout import FittedLayout, Layout
from myhealth.intake.formats.tables.rows import (
    NOT_UTF8,
    Lines,
    TableRow,
    is_utf8_read_as,
    may_be_cut,
    read_header,
    read_rows,
)
from myhealth.intake.formats.tables.rows import is_table as is_table
from myhealth.intake.formats.terminology import number, read_zone
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.record_types import TEXT_MAX

TEXTS = ("machine", "record_id", "taken_by")  # fields of a record that have the column's text
NUMBERED = ("patient", "authority", "machine", "record_id")  # spoilt, they would name somebody else
BLANK = ("-", "--", "n/a", "N/A", "null", "NULL")  # these mean an empty cell, except in the column of values
LATIN = re.compile(r"(WINDOWS-|CP)1252|LATIN-?[19]|ISO-?8859-(1|15)", re.IGNORECASE)
EXPECTED = {"": "year first", "ymd": "year first", "dmy": "day first", "mdy": "month first"}
SEXES = {"o": "other", "u": "unknown"}
FINAL = "final"
NOTHING = {"value": NO_VALUE, "absent_reason": NO_VALUE}
FORM = "--date-format, or date_format in the layout, names another form"
OTHER_ORDER = (
    "day and month are exchanged; if so they are in the file, the stored rows of it have another day: delete them"
)
ZONE = "--timezone, timezone= in the address, or zone in the layout"


class TableReader:
    """Makes records of the rows of one table. Its faults name columns. `delimiter`: between the cells. `is_reread`: as
    in Dump."""

    def __init__(self, table: FittedLayout, encoding: str, delimiter: str, is_reread: bool = False) -> None:
        self.table, self.encoding = table, encoding
        self.layout = replace(table.layout, delimiter=delimiter)
        self.zone = read_zone(self.layout.zone) if self.layout.zone else None
        self._read_a_moment = is_reread
        self._is_latin = LATIN.fullmatch(encoding) is not None

    def column(self, field: str) -> str:
        return " ".join(self.table.names[place] for place in self.table.places.get(field, ()))

    def read(self, row: TableRow) -> ParsedRecord | None:
        """Return the record of a row; None if the row is empty."""
        parsed = ParsedRecord(0, row.line, row.text, {}, [], warnings=[], patient_field=self.column("patient"))
        record, texts = parsed.record, self._texts(row)
        if patient := texts.get("patient"):
            record["checkup_for"] = patient
        parsed.faults += [(self.column(name), why) for name in NUMBERED if (why := spoilt(texts.get(name, "")))]
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
        if parsed.former and (texts.get("checkup_type") or self.layout.checkup_type):
            parsed.former["checkup_type"] = record["checkup_type"]
        if "age" in texts:
            note_former_age(parsed, record.get("patient", {}), texts["age"])
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
        if "age" in texts:
            age = _checked(parsed, self.column("age"), read_age, texts["age"])
            found |= {} if age is None else {"age": age}
        return found

    def _texts(self, row: TableRow) -> dict[str, str]:
        """Return the text of each field that is not blank; the texts of several columns are joined."""
        found = {}
        for field, places in self.table.places.items():
            texts = [unguarded(row.cells[place]) for place in places if place < len(row.cells)]
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
                return name, "contains a NUL character" if is_nul else NOT_UTF8.format(self.encoding)
            if self._is_latin and not cell.isascii() and is_utf8_read_as(cell, self.encoding):
                return name, f"contains bytes that are UTF-8, not {self.encoding}; name no encoding, or the right one"
        if len(row.cells) < len(names) or any(map(str.strip, row.cells[len(names) :])):
            return "", f"the header has {len(names)} cells, and the row has {len(row.cells)}"
        return None

    def is_whole(self, cells: list[str]) -> bool:
        """Return whether these are the cells of a whole row, with its moment."""
        places = self.table.places.get("taken_at", ())
        if len(cells) != len(self.table.names) or not places:
            return False
        text = " ".join(cells[place].strip() for place in places).strip()
        try:
            read_moment(text, self.layout, self.zone or UTC)
        except AmbiguousDate:
            return True
        except ValueError:
            return False
        return True

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
            form = OTHER_ORDER if fits_other_order(text, self.layout) else FORM
            parsed.faults.append((column, f"is not a date and time ({wanted}): '{text[:40]}'; {form}"))
        else:
            self._read_a_moment = True
            parsed.record |= {"taken_at": found.text} | ({"taken_precision": found.known} if found.known else {})
            if found.doubt:
                parsed.warnings.append((column, found.doubt))

    def _wide(self, row: TableRow, parsed: ParsedRecord, texts: dict[str, str]) -> list[dict[str, Any]]:
        results, columns = list[dict[str, Any]](), list[str]()
        before: dict[int, tuple[int, dict[str, Any]]] = {}
        more = _circumstances(texts)
        for place, test in self.table.results.items():
            text = unguarded(row.cells[place])
            if text and text not in self.layout.blank:
                column = self.table.names[place]
                value = _checked_value(parsed, column, text, self.layout, test.unit)
                code = test.code or code_of(test.name, value.get("unit", ""))
                found = table_results(test.name, code, test.unit, value, parsed, column)
                if (value["value"].__class__ is str or "unit" in value or not text.isascii()) and was_text(text, value):
                    then = table_result(test.name, test.code, test.unit, {"value": text}) | more
                    before[len(results)] = len(found), then
                results += [each | more for each in found] if more else found
                columns += [column] * len(found)
        if before:
            note_former(parsed, with_replaced(results, before), SEVERAL)
        parsed.locate = partial(self.locate, columns)
        return results

    def _long(self, parsed: ParsedRecord, texts: dict[str, str]) -> list[dict[str, Any]]:
        """Return the result of a row of a long table, or both of a blood pressure; [] if it has neither a value nor the
        name of a test."""
        if not texts.keys() & {"name", "code", "value"}:
            return []
        status = None
        if "status" in texts:
            status = _checked(parsed, self.column("status"), read_status, texts["status"])
        results = self._values(parsed, texts, withdraws=status == WITHDRAWN and "record_id" in texts)
        more = _circumstances(texts)
        if status not in (None, FINAL):
            more["status"] = status
        if len(results) == 1:
            more |= self._range(parsed, texts) | self._mark(texts)
        parsed.locate = partial(self.locate, [])
        if "results" in parsed.former:
            former = [each | more for each in parsed.former["results"]]
            note_former(parsed, former, SEVERAL)
        return [each | more for each in results]

    def _values(self, parsed: ParsedRecord, texts: dict[str, str], *, withdraws: bool) -> list[dict[str, Any]]:
        """Return the result of a row of a long table, or both of a blood pressure, as far as name, value and unit say
        it. `withdraws`: the row need not repeat the value."""
        code, text, column = texts.get("code", ""), texts.get("value", ""), self.column("value")
        name = texts.get("name") or name_of(code) or code
        _warn_of_date(parsed, self.column("code"), code)
        unit, in_header = texts.get("unit", ""), self.table.unit
        if self.table.is_exported and "absent_reason" not in texts:  # written by us: a text is one
            found = number(text)
            return [table_result(name, code, unit, {"value": found if str(found) == text else text})]
        absent = NOTHING | ({"absent_reason": texts["absent_reason"]} if "absent_reason" in texts else {})
        if not text and not withdraws and "absent_reason" not in texts:
            parsed.faults.append((column, "is missing"))
        if unit and in_header and series_unit(unit) != series_unit(in_header):
            parsed.faults.append((self.column("unit"), f"is {unit[:40]}, but the column {column} is in {in_header}"))
        value = absent if not text else _checked_value(parsed, column, text, self.layout, unit or in_header)
        if text and was_text(text, value):
            note_former(parsed, [table_result(name, code, unit or in_header, {"value": text})], SEVERAL)
        return table_results(name, code, unit or in_header, value, parsed, column)

    def _range(self, parsed: ParsedRecord, texts: dict[str, str]) -> dict[str, Any]:
        if texts.get("range_source") == SOURCE:  # what our catalogue added to our own export
            return {}
        ends = [name for name in ("low", "high") if name in texts]
        found: dict[str, Any] = {}
        for end in ends:
            found[end] = _checked(parsed, self.column(end), read_number, texts[end], self.layout)
            if found[end] is None:
                parsed.faults.append((self.column(end), f"is not a number: '{texts[end][:40]}'"))
        if "range_text" not in texts:
            return found
        words, unit = texts["range_text"], texts.get("unit") or self.table.unit
        if not found:
            return range_facts(words, unit)
        is_read = not parsed.faults and not self.table.is_exported
        both = completed(found.get("low"), found.get("high"), words, unit) if is_read else ()
        if both is None:
            parsed.faults.append((self.column("range_text"), f"'{words[:40]}' is another range than low and high"))
        return found | dict(zip(("low", "high"), both or (), strict=False)) | {"range_text": words}

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


def _checked_value(parsed: ParsedRecord, column: str, text: str, layout: Layout, unit: str) -> dict[str, Any]:
    found = _checked(parsed, column, partial(read_result, unit=unit), text, layout)
    _warn_of_date(parsed, column, text)
    return found if isinstance(found, dict) else {"value": found}


def _warn_of_date(parsed: ParsedRecord, column: str, text: str) -> None:
    if MADE_DATE.fullmatch(text):
        parsed.warnings.append(
            (column, f"'{text}' may be what a spreadsheet made of another text, such as 1-5 or 2345-7")
        )


def _circumstances(texts: dict[str, str]) -> dict[str, Any]:
    return {name: texts[name] for name in ("specimen", "method") if name in texts}


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
    if delimiter == ";" and not table.layout.decimal and has_decimal_points(table, lines.ahead(delimiter)):
        dump.layout = replace(dump.layout, decimal=".")  # its rejected rows are read again alone
        table = replace(table, layout=replace(table.layout, decimal="."))
    if not dump.is_reread:
        check_order(lines, delimiter, table)
    reader = TableReader(table, lines.encoding, delimiter, dump.is_reread)
    rows = read_rows(lines, delimiter, table, reader.is_whole)
    records = group_rows(_records(reader, rows, dump), dump.skipped)
    for index, parsed in enumerate(only_one(records) if dump.is_reread else records):
        if not table.is_exported:
            parsed.before_marks = part_marks(parsed.record, partial(read_marked_number, layout=reader.layout))
        parsed.index, parsed.raw = index, with_end(dump.header) + parsed.raw
        yield parsed


def _records(reader: TableReader, rows: Iterator[TableRow], dump: Dump) -> Iterator[ParsedRecord]:
    unnamed = reader.table.unnamed
    headers = Headers(reader.table, (*BLANK, *reader.layout.blank))
    row = None
    for place, row in enumerate(rows):
        if place == 0 and not dump.is_reread:
            headers.check_first(row)
        for column in unnamed:
            if "".join(row.cells[column : column + 1]).strip():
                dump.notices.append(f"column {column + 1} has no name and is not read")
                unnamed = []
                break
        if headers.is_again(row):
            dump.skipped["header again"] += 1
        elif (parsed := reader.read(row)) is None:
            dump.skipped["row without a value"] += 1
        elif kind := "" if dump.is_reread else kind_of_record(parsed.record):
            dump.skipped[kind] += 1
        else:
            yield parsed
    if row is not None and may_be_cut(reader.table, row):
        dump.notices.append(f"line {row.line} has no end: if the file was cut short, so is its last cell")


def write_rejected_rows(dump: Dump) -> RejectedLayout:
    """Write the header once. The file is UTF-8 with a BOM, whatever the encoding of the source was."""
    header = with_end(dump.header)

    def encode(parsed: ParsedRecord) -> bytes:
        return with_end(parsed.raw.removeprefix(header)).encode("utf-8", "surrogateescape")

    return RejectedLayout(codecs.BOM_UTF8 + header.encode(), b"", b"", encode)
