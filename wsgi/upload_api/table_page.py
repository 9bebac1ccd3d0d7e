"""The page on which tables (CSV) are uploaded: choose a layout, look at a preview, store. It works without JavaScript.

No cookie is set. The token and, if it is small, the table travel in hidden fields from the preview to the next request.
"""

from __future__ import annotations

import base64
import contextlib
import email.message
import gzip
import io
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import bottle

from myhealth.audit.events import Actor, acting_as
from myhealth.common.errors import BadInput, MyHealthError, NotLoggedIn
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.source import GZIP_MAGIC
from myhealth.intake.formats.tables.layout import ORDERS
from myhealth.intake.formats.tables.reader import DAY_FIRST, FORM, ZONE
from myhealth.intake.machine_layouts import remember_layout
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.preview import COLUMNS, PREVIEWED, preview_row
from myhealth.intake.results import RecordResult, counts
from myhealth.layouts import NAMES
from wsgi.common.pages import html_response
from wsgi.common.requests import WrongMediaType, client_address, header, spool_body
from wsgi.upload_api.accounts import UploadLogin
from wsgi.upload_api.checkups import SENDERS, TakesRecords, layout_of

CREDENTIALS = ("username", "password", "token")  # they come first in a form, so that only known users' forms are read
FIELDS = (*CREDENTIALS, "machine", "patient", "layout", "date_format", "timezone", "action", "name")
NAMED = re.compile(rb'[; ]name="?(\w+)"?')
FIELD_MAX = 10_000  # characters
HIDDEN_MAX_BYTES = 1024 * 1024  # of a packed table that the page carries
REJECTED_SHOWN = 100
IN_PAGE_WORDS = {
    DAY_FIRST: "choose it under Order of dates",
    FORM: "choose another Order of dates",
    ZONE: "fill in Time zone",
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


class TablePage(TakesRecords):
    """GET is the form; POST is the preview or, with `action` store, stores the table."""

    spec = {}

    def perform(self, verb: str, **parts: Any) -> Any:
        self.context.open()
        self.address = client_address(self.context.settings.trusted_proxies)
        return getattr(self, verb)()

    def get(self) -> Any:
        return self._page({})

    def post(self) -> Any:
        form: dict[str, Any] = {}
        with contextlib.ExitStack() as held:
            try:
                if header("Content-Encoding"):  # no browser packs a form, and nobody has logged in yet
                    raise WrongMediaType("The form is taken as it is only.")
                begin = partial(self.enter, form, SENDERS)
                body: Any = held.enter_context(spool_body(self.context.settings.upload.max_body_bytes, begin))
                size = body.seek(0, io.SEEK_END)
                with acting_as(Actor(self.user.id, self.user.username, self.address)):
                    read_table = _read_form(body, size, form, held)
                    if size > HIDDEN_MAX_BYTES:
                        held.enter_context(self.context.large_bodies.enter())
                    form["data"] = read_table()
                    return self._take(form)
            except MyHealthError as error:
                if isinstance(error, NotLoggedIn):
                    form["token"] = ""
                hint = f" ({error.hint})" if error.hint else ""
                return self._page(form, error.status, message=_in_page_words(error.message + hint))

    def enter(self, form: dict[str, Any], roles: Sequence[str], head: bytes) -> None:
        """Let the user in with whose token or password a form begins: nobody else's form is read further."""
        form |= _first_fields(head)
        form["token"] = form["token"] or self._log_in(form["username"], form["password"])
        self.user = self.context.user_of_token(form["token"])
        with acting_as(Actor(self.user.id, self.user.username, self.address)):
            self.require(*roles)

    def _log_in(self, username: str, password: str) -> str:
        login = UploadLogin(self.context)
        login.address = self.address
        with acting_as(Actor(None, None, self.address)):
            body = json.loads(login.log_in(username, password).body)
        if "token" not in body:
            raise NotLoggedIn(body["details"])
        return str(body["token"])

    def _take(self, form: dict[str, Any]) -> Any:
        """Preview or store the table of the form."""
        store = form["action"] == "store"
        machine = form["machine"].strip()
        layout = layout_of(form["layout"], form["date_format"], form["timezone"].strip())
        patient = self.person(form["patient"], *SENDERS).username if form["patient"].strip() else None
        dump = self.opened(io.BytesIO(form["data"]), machine, patient, layout, is_table=True)
        outcome = Preview()
        self._store(dump, f"POST /csv {form['name']}"[:200], patient, True, False, outcome, dry_run=not store)
        if store and machine and (form["layout"] or form["date_format"] or form["timezone"].strip()):
            remember_layout(machine, dump.layout)
        return self._page(form, outcome=outcome, dump=dump, stored=store)

    def _page(self, form: dict[str, Any], status: int = 200, **found: Any) -> bottle.HTTPResponse:
        content = _packed(form["data"]) if found.get("outcome") else ""
        values = {"message": "", "outcome": None, "dump": Dump, "stored": False, **found}
        form = {**dict.fromkeys(FIELDS, ""), **form, "content": content, "password": ""}
        return html_response("table.html", status, form=form, names=NAMES, orders=ORDERS, columns=COLUMNS, **values)


def _first_fields(head: bytes) -> dict[str, str]:
    """Return who sends a form, as its beginning says it. Raises BadInput."""
    described = email.message.Message()
    described["Content-Type"] = header("Content-Type").encode("ascii", "replace").decode()
    pairs: list[tuple[str, str]] = []
    if boundary := described.get_boundary():
        for part in (b"\r\n" + head).split(b"\r\n--" + boundary.encode()):
            start, _, value = part.partition(b"\r\n\r\n")
            if named := NAMED.search(start):
                pairs.append((named[1].decode(), value.decode(errors="replace")))
    else:
        pairs = parse_qsl(head.decode("latin-1"))
    found = {name: value for name, value in pairs if name in CREDENTIALS}
    if any(len(value) > FIELD_MAX for value in found.values()):
        raise BadInput("A field of the form is too long.")
    return dict.fromkeys(CREDENTIALS, "") | found


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
