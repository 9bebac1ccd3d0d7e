"""The page on which tables (CSV) are uploaded: choose a layout, look at a preview, store. The table, if it is
small, travels in a hidden field from the preview to the next request.
"""

import base64
import contextlib
import gzip
import io
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import bottle
from multipart import MultipartError, MultipartSegment, PushMultipartParser

from myhealth.common.errors import BadInput, TooLarge
from myhealth.examples import NAMES, named_layout
from myhealth.intake.file_import import PREVIEW_COLUMNS, PREVIEWED, preview_row
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.source import GZIP_MAGIC
from myhealth.intake.formats.tables.layout import ORDERS, dump_layout
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.results import RecordResult, counts
from myhealth.machines.services import register_machine
from wsgi.common.requests import parameter_pairs
from wsgi.upload_api.form_page import CREDENTIALS, FIELD_MAX, FORM_MAX_BYTES, TABLE, FormPage, boundary, in_page_words
from wsgi.upload_api.schemas import SENDERS

# Fields that may say a part of a layout.
SAID = {"date_format": "date_format", "timezone": "zone", "decimal": "decimal", "encoding": "encoding"}
FIELDS = (*CREDENTIALS, "machine", "patient", "layout", *SAID, "action", "name")
ENCODINGS = ("windows-1252", "iso8859-1", "iso8859-15", "utf-16-le", "shift_jis", "gb18030", "cp1251")
HIDDEN_MAX_BYTES = 1024 * 1024  # of a packed table that the page carries
PARTS_MAX, FILE_IN_MEMORY = 100, 64 * 1024  # of a form; bytes
REJECTED_SHOWN = 100


class Preview:
    """The outcome of a table: counts by status, the first records, and the rejected ones."""

    def __init__(self) -> None:
        self.counts = counts([])
        self.rows: list[list[str]] = []
        self.rejected: list[list[str]] = []

    def add(self, parsed: Sequence[ParsedRecord], results: Sequence[RecordResult]) -> None:
        for status, count in counts(results).items():
            self.counts[status] += count
        for record, result in zip(parsed, results, strict=True):
            if len(self.rows) < PREVIEWED:
                self.rows.append(_row(record, result))
            elif result.errors and len(self.rejected) < REJECTED_SHOWN:
                self.rejected.append(_row(record, result))


def _row(parsed: ParsedRecord, result: RecordResult) -> list[str]:
    return [in_page_words(cell, TABLE) for cell in preview_row(parsed, result)]


class TablePage(FormPage):
    """POST is the preview or, with `action` store, stores the table."""

    template, fields, further = "table.html", FIELDS, re.compile("content")

    @property
    def max_bytes(self) -> int:
        return self.context.settings.upload.max_body_bytes

    def read_form(self, body: Any, form: dict[str, Any], held: contextlib.ExitStack) -> None:
        self.size = body.seek(0, io.SEEK_END)
        self.read_table = _read_form(body, self.size, form, held)

    def answer(self, form: dict[str, Any], held: contextlib.ExitStack) -> Any:
        self.make_room(self.size, held)
        form["data"] = self.read_table()
        store = form["action"] == "store"
        machine = form["machine"].strip()
        layout = named_layout(form["layout"], **{part: form[name].strip() for name, part in SAID.items()})
        patient = self.person(form["patient"], *SENDERS).username if form["patient"].strip() else None
        dump = self.opened(io.BytesIO(form["data"]), machine, patient, layout, is_table=True)
        outcome = Preview()
        intake = self.intake(dump, f"POST /csv {form['name']}"[:200], patient, as_dump=True, dry_run=not store)
        self.store_records(dump, intake, outcome.add)
        if store and machine and any(form[name].strip() for name in ("layout", *SAID)):
            register_machine(machine, layout=dump_layout(dump.layout))
        return self.page(form, outcome=outcome, dump=dump, stored=store)

    def page(self, form: dict[str, Any], status: int = 200, **values: Any) -> bottle.HTTPResponse:
        found = {"message": "", "outcome": None, "dump": Dump, "stored": False, **values}
        found["message"] = in_page_words(found["message"], TABLE)
        content = _packed(form["data"]) if found["outcome"] else form.get("content", "")
        choices = {"names": NAMES, "orders": ORDERS, "encodings": ENCODINGS, "columns": PREVIEW_COLUMNS}
        return super().page({**form, "content": content}, status, **choices, **found)


def _read_form(body: Any, size: int, form: dict[str, Any], held: contextlib.ExitStack) -> Callable[[], bytes]:
    """Add the fields of a form to `form`; return a function that reads its table: the chosen file, else the table that
    the page carried. Raises BadInput."""
    between = boundary()
    if not between:
        if size > FORM_MAX_BYTES:
            raise TooLarge(f"A form without a file has at most {FORM_MAX_BYTES} bytes.")
        sent = dict(parameter_pairs(body.read().decode("latin-1")))
        form |= _checked({field: sent.get(field, "").encode() for field in FIELDS})
        return lambda: _unpacked(sent.get("content", ""))
    parts: dict[str, tuple[str | None, Any]] = {}
    body.seek(0)
    try:
        with PushMultipartParser(between, max_segment_count=PARTS_MAX) as parser:
            for event in parser.parse_blocking(body.read, FILE_IN_MEMORY):
                if isinstance(event, MultipartSegment):
                    file = held.enter_context(tempfile.SpooledTemporaryFile(FILE_IN_MEMORY))  # noqa: SIM115
                    parts[event.name] = event.filename, file
                elif event:
                    file.write(event)
    except MultipartError as error:
        raise BadInput(f"The form cannot be read: {error}") from error
    for _, each in parts.values():
        each.seek(0)
    form |= _checked({field: parts[field][1].read(FIELD_MAX + 1) if field in parts else b"" for field in FIELDS})
    name, chosen = parts.get("file", (None, None))
    if name:
        form["name"] = name
        return chosen.read  # type: ignore[no-any-return]
    carried = parts["content"][1].read if "content" in parts else bytes
    return lambda: _unpacked(carried())


def _checked(values: Mapping[str, bytes]) -> dict[str, str]:
    """Return the fields of a form as text, without the credentials. Raises BadInput."""
    if any(len(value) > FIELD_MAX for value in values.values()):
        raise BadInput("A field of the form is too long.")
    return {name: value.decode("utf-8", "replace") for name, value in values.items() if name not in CREDENTIALS}


def _packed(table: bytes) -> str:
    """Return the table as the text of a hidden field (gzip, base64), "" if it is too large."""
    packed = table if table.startswith(GZIP_MAGIC) else gzip.compress(table, mtime=0)
    return base64.b64encode(packed).decode() if len(packed) <= HIDDEN_MAX_BYTES else ""


def _unpacked(content: bytes | str) -> bytes:
    """Return the table of a hidden field. Raises BadInput."""
    try:
        return base64.b64decode(content, validate=True)
    except ValueError as error:
        raise BadInput(f"The form cannot be read: {error}") from error
