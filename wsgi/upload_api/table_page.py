"""The page on which tables (CSV) are uploaded: choose a layout, look at a preview, store. The table, if it is
small, travels in a hidden field from the preview to the next request.
"""

import base64
import contextlib
import gzip
import io
from collections.abc import Callable, Sequence
from typing import Any

import bottle

from myhealth.common.errors import BadInput
from myhealth.examples import NAMES
from myhealth.intake.file_import import PREVIEW_COLUMNS, PREVIEWED, preview_row
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.source import GZIP_MAGIC
from myhealth.intake.formats.tables.cells import DAY_FIRST, DECIMAL
from myhealth.intake.formats.tables.layout import ORDERS, dump_layout
from myhealth.intake.formats.tables.reader import FORM, ZONE
from myhealth.intake.formats.tables.rows import ENCODING
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.results import RecordResult, counts
from myhealth.machines.services import register_machine
from wsgi.upload_api.checkups import SENDERS, layout_of
from wsgi.upload_api.form_page import CREDENTIALS, FIELD_MAX, FormPage

# Fields that may say a part of a layout.
SAID = {"date_format": "date_format", "timezone": "zone", "decimal": "decimal", "encoding": "encoding"}
FIELDS = (*CREDENTIALS, "machine", "patient", "layout", *SAID, "action", "name")
ENCODINGS = ("windows-1252", "iso8859-1", "iso8859-15", "utf-16-le", "shift_jis", "gb18030", "cp1251")
HIDDEN_MAX_BYTES = 1024 * 1024  # of a packed table that the page carries
REJECTED_SHOWN = 100
IN_PAGE_WORDS = {
    DAY_FIRST: "choose it under Order of dates",
    FORM: "choose another Order of dates",
    ZONE: "fill in Time zone",
    DECIMAL: "choose another Decimal separator",
    ENCODING: "choose another Encoding",
    " (--patient), or a layout that says which column it is (columns.patient)": "",
    "name a layout that fits: --layout wide, long or a file; examples/table-layout.toml explains it": "choose a Layout",
}


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
    return [_in_page_words(cell) for cell in preview_row(parsed, result)]


def _in_page_words(text: str) -> str:
    """Name the fields of the page where a message names options of the command."""
    for option, words in IN_PAGE_WORDS.items():
        text = text.replace(option, words)
    return text


class TablePage(FormPage):
    """POST is the preview or, with `action` store, stores the table."""

    template, fields = "table.html", FIELDS

    @property
    def max_bytes(self) -> int:
        return self.context.settings.upload.max_body_bytes

    def read_form(self, body: Any, form: dict[str, Any], held: contextlib.ExitStack) -> None:
        self.size = body.seek(0, io.SEEK_END)
        self.read_table = _read_form(body, self.size, form, held)

    def answer(self, form: dict[str, Any], held: contextlib.ExitStack) -> Any:
        if self.size > HIDDEN_MAX_BYTES:
            held.enter_context(self.context.large_bodies.enter())
        form["data"] = self.read_table()
        store = form["action"] == "store"
        machine = form["machine"].strip()
        layout = layout_of(form["layout"], **{part: form[name].strip() for name, part in SAID.items()})
        patient = self.person(form["patient"], *SENDERS).username if form["patient"].strip() else None
        dump = self.opened(io.BytesIO(form["data"]), machine, patient, layout, is_table=True)
        outcome = Preview()
        self._store(dump, f"POST /csv {form['name']}"[:200], patient, True, False, outcome, dry_run=not store)
        if store and machine and any(form[name].strip() for name in ("layout", *SAID)):
            register_machine(machine, layout=dump_layout(dump.layout))
        return self.page(form, outcome=outcome, dump=dump, stored=store)

    def page(self, form: dict[str, Any], status: int = 200, **values: Any) -> bottle.HTTPResponse:
        found = {"message": "", "outcome": None, "dump": Dump, "stored": False, **values}
        found["message"] = _in_page_words(found["message"])
        content = _packed(form["data"]) if found["outcome"] else ""
        choices = {"names": NAMES, "orders": ORDERS, "encodings": ENCODINGS, "columns": PREVIEW_COLUMNS}
        return super().page({**form, "content": content}, status, **choices, **found)


def _read_form(body: Any, size: int, form: dict[str, Any], held: contextlib.ExitStack) -> Callable[[], bytes]:
    """Add the fields of a form to `form`; return what reads its table: the chosen file, else that which the page
    carried. Raises BadInput."""
    body.seek(0)
    bottle.request.environ |= {"wsgi.input": body, "CONTENT_LENGTH": str(size)}
    try:
        held.enter_context(bottle.request.body)
        sent = bottle.request.POST
    except (bottle.HTTPError, ValueError) as error:
        raise BadInput(f"The form cannot be read: {error}") from error
    files = {name: held.enter_context(value.file) for name, value in sent.items() if not isinstance(value, str)}
    values = {field: files.get(field) or sent.get(field) or "" for field in FIELDS}
    if any(not isinstance(value, str) or len(value) > FIELD_MAX for value in values.values()):
        raise BadInput("A field of the form is too long.")
    form |= {name: value for name, value in values.items() if name not in CREDENTIALS}
    if name := getattr(sent.get("file"), "filename", ""):
        form["name"] = name
        return files["file"].read  # type: ignore[no-any-return]
    return lambda: _unpacked(files["content"].read() if "content" in files else sent.get("content", ""))


def _packed(table: bytes) -> str:
    """Return the table as the page carries it, "" if it is too large."""
    packed = table if table.startswith(GZIP_MAGIC) else gzip.compress(table, mtime=0)
    return base64.b64encode(packed).decode() if len(packed) <= HIDDEN_MAX_BYTES else ""


def _unpacked(content: bytes | str) -> bytes:
    """Return the table that the page carried. Raises BadInput."""
    try:
        return base64.b64decode(content, validate=True)
    except ValueError as error:
        raise BadInput(f"The form cannot be read: {error}") from error
