"""The page of rejected records: the list, one record, its patient, a correction, another try, discarding it."""

import contextlib
import re
from typing import Any, NamedTuple

import bottle
import msgspec

from myhealth.audit.events import find_last_uploads
from myhealth.common.errors import BadInput
from myhealth.intake.formats.format import reread_json
from myhealth.intake.formats.registry import CSV, OBJECT
from myhealth.intake.formats.tables.correction import open_row
from myhealth.intake.models import Rejection
from myhealth.intake.parsed_record import is_utf8
from myhealth.intake.rejections import get_rejection, payload_text
from myhealth.intake.retry import layout_of, reread, text_to_read
from wsgi.upload_api.form_page import CREDENTIALS, REFUSED, FormPage, errors_in_page_words, exact_json, typed_value
from wsgi.upload_api.rejections import ROLES, RejectionsView

FIELDS = (*CREDENTIALS, "action", "id", "after", "search", "patient", "record", "reason")
CORRECTED = "field:"  # before the place of a field in the name of its input
LISTED, SHOWN_CHARACTERS = 50, 20_000
NUMBERS = ("value", "low", "high")  # fields whose text is a number if it looks like one
PLACE = re.compile(r"[^.\[\]]+")


class Field(NamedTuple):
    """An input of the form. `key`: a part of the input's name; `message`: why its value is refused."""

    key: str
    label: str
    value: str
    message: str


class RefusedPage(FormPage, RejectionsView):
    """POST is a form; each of its buttons has an `action`."""

    template, fields, roles, further = "refused.html", FIELDS, ROLES, re.compile(f"{CORRECTED}.{{1,200}}")

    def read_form(self, body: Any, form: dict[str, Any], held: contextlib.ExitStack) -> None:
        super().read_form(body, form, held)
        if form["id"] and not form["id"].isdecimal():
            raise BadInput("The form cannot be read.")

    def answer(self, form: dict[str, Any], held: contextlib.ExitStack) -> Any:
        id_ = int(form["id"][:19] or 0)
        if form["action"] == "retry":
            return self._retry(form, id_)
        if form["action"] == "discard":
            self.discarded(id_, form["reason"])
            return self._list(form, f"Record {id_} is discarded.")
        return self._record(form, id_) if id_ else self._list(form)

    def page(self, form: dict[str, Any], status: int = 200, **values: Any) -> bottle.HTTPResponse:
        found = {"rows": None, "row": None, "uploads": (), "older": "", "is_staff": True, **values}
        return super().page(form, status, prefix=CORRECTED, **found)

    def _list(self, form: dict[str, Any], notice: str = "") -> Any:
        self.parameters = {"after": form["after"]} if form["after"] else {}
        rows = [*map(self._in_words, self.listed(LISTED + 1, self.numbered_page()[1], {}))]
        older = str(rows[LISTED - 1]["id"]) if len(rows) > LISTED else ""
        uploads = find_last_uploads(self.user.id)
        is_staff = self.finds_by_name
        return self.page(form, notice=notice, rows=rows[:LISTED], older=older, uploads=uploads, is_staff=is_staff)

    def _in_words(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a rejected record with its errors in a page's words, and the machine and the file that it is from."""
        file = re.sub(r"POST \S+ ?", "", row["source"])
        origin = " · ".join(filter(None, (row["machine"], file))) or row["source"]
        return {**row, "errors": errors_in_page_words(row["errors"], REFUSED), "origin": origin}

    def _record(self, form: dict[str, Any], id_: int, status: int = 200, message: str = "") -> Any:
        row = self._in_words(self.shown_whole(id_))
        found = get_rejection(id_)
        correctable = Correctable(found)
        fields = correctable.fields(row["errors"])
        depends_on_stored = any(error.get("code") for error in row["errors"])  # such as an unknown patient
        return self.page(
            form,
            status,
            message=message,
            row=row,
            sent=_cut(payload_text(found).encode("utf-8", "replace").decode()),
            whole=correctable.whole,
            is_table=correctable.is_table,
            fields=fields,
            may_help=bool(fields or correctable.whole or depends_on_stored),
            people=self.find_patients(form["search"]),
            is_staff=self.finds_by_name,
        )

    def _retry(self, form: dict[str, Any], id_: int) -> Any:
        self.check(id_)
        changes = {name[len(CORRECTED) :]: text for name, text in form.items() if name.startswith(CORRECTED)}
        correctable = Correctable(get_rejection(id_))
        record = correctable.typed(form["record"]) or correctable.corrected(changes)
        result = self.retried(id_, form["patient"].strip() or None, record, correctable.format_name)
        if result.status == "rejected":
            return self._record(form, id_, 422, "It is still rejected.")
        number = f" as check-up {result.id}" if result.id else ""
        return self._list(form, f"Record {id_} is stored{number}.")


class Correctable:
    """The parts of a rejected record that a form may correct: fields and the whole text, as JSON; of a table, cells and
    rows as CSV. `whole`: the whole text, "" if the record can only be corrected at its source."""

    def __init__(self, rejection: Rejection) -> None:
        found, text = text_to_read(rejection)
        self.is_table, self._row, self._record = found is CSV, None, None
        if self.is_table:
            self.whole = text if is_utf8(text) and "\0" not in text else ""  # a form would change other bytes
            self._row = open_row(text, layout_of(rejection)) if self.whole else None
        else:
            self._record = reread(rejection).decoded()
            self.whole = as_text(self._record)
        self._is_ours = found.reread is reread_json  # errors of other formats name fields of theirs
        self.format_name = found.name if self.is_table else OBJECT.name

    def fields(self, errors: list[dict[str, Any]]) -> list[Field]:
        """Return the fields that the errors are about, each once."""
        found: dict[str, Field] = {}
        for error in errors:
            for key, label, value in self._fields_of(error["field"] or ""):
                before = found[key].message + "; " if key in found else ""
                found[key] = Field(key, label, value, before + error["message"])
        return [*found.values()]

    def _fields_of(self, name: str) -> list[tuple[str, str, str]]:
        if self._row is not None:
            row = self._row
            return [(str(place), row.table.names[place], row.cells[place]) for place in row.places_of(name)]
        value = shown_value(self._record, name) if self._is_ours else None
        return [] if value is None else [(name, name, value)]

    def typed(self, text: str) -> str:
        """Return a whole text that was typed in, with the line ends of the original: a form sends others."""
        return text if "\r" in self.whole or not self.is_table else text.replace("\r\n", "\n")

    def corrected(self, changes: dict[str, str]) -> str:
        """Return the whole text with the changed values, "" if nothing changes. Raises BadInput if there is no such
        field."""
        if self._row is None:
            return corrected(self._record, changes)
        places = {int(key) if key.isdecimal() else -1: text for key, text in changes.items()}
        return self._row.corrected({place: text.strip() for place, text in places.items()})


def _cut(text: str) -> str:
    """Return a text cut for the page, with the number of characters that are left out."""
    rest = len(text) - SHOWN_CHARACTERS
    return text if rest <= 0 else f"{text[:SHOWN_CHARACTERS]}…\n({rest:,} more characters)"


def as_text(record: Any) -> str:
    """Return a record as JSON to edit, its numbers as they were sent; "" if there is none."""
    try:
        return "" if record is None else msgspec.json.format(exact_json(record), indent=2).decode()
    except (TypeError, ValueError, msgspec.MsgspecError):  # a reader's own type, a lone surrogate, NaN
        return ""


def _holder(record: Any, place: str | None) -> tuple[Any, Any]:
    """Return the object or list of a place such as results[0].value, and the name or number in it; None if there is no
    such place."""
    names = PLACE.findall(place or "")
    for position, name in enumerate(names):
        key: Any = int(name) if isinstance(record, list) and name.isdecimal() else name
        if isinstance(record, list) and not (isinstance(key, int) and key < len(record)):
            break
        if not isinstance(record, dict | list):
            break
        if position == len(names) - 1:
            return record, key
        record = record[key] if isinstance(record, list) else record.get(key)
    return None, None


def shown_value(record: Any, place: str | None) -> str | None:
    """Return the value of a field as text, "" if it is missing; None if it cannot be corrected alone."""
    holder, key = _holder(record, place)
    value = holder.get(key, "") if isinstance(holder, dict) else None
    return None if holder is None or isinstance(value, dict | list) else value if isinstance(value, str) else str(value)


def corrected(record: Any, changes: dict[str, str]) -> str:
    """Return the record with other values as JSON, "" if nothing changes. Raises BadInput if there is no such field."""
    different = {place: text for place, text in changes.items() if text != shown_value(record, place)}
    for place, text in different.items():
        holder, key = _holder(record, place)
        if not isinstance(holder, dict):
            raise BadInput(f"There is no field {place[:60]!a} to correct.")
        holder[key] = typed_value(text) if key in NUMBERS else text.strip()
    return as_text(record) if different else ""
