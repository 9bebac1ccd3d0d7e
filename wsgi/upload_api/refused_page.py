"""The page of rejected records: the list, one record, whose it is, a correction, another try, putting it aside."""

import contextlib
import re
from typing import Any

import bottle
import msgspec

from myhealth.audit.events import find_last_uploads
from myhealth.common.errors import BadInput
from myhealth.intake.formats.format import reread_json
from myhealth.intake.formats.registry import get_format
from myhealth.intake.parsed_record import UnrepresentableNumber
from myhealth.intake.rejections import get_rejection, payload_text
from myhealth.intake.retry import reread
from wsgi.upload_api.form_page import CREDENTIALS, FormPage, typed_value
from wsgi.upload_api.rejections import ROLES, RejectionsView

FIELDS = (*CREDENTIALS, "action", "id", "after", "search", "patient", "record", "reason")
CORRECTED = "field:"  # before the place of a field in the name of its input
LISTED, SHOWN_CHARACTERS = 50, 20_000
NUMBERS = ("value", "low", "high")  # fields whose text is a number if it looks like one
PLACE = re.compile(r"[^.\[\]]+")


class RefusedPage(FormPage, RejectionsView):
    """POST is a form; each of its buttons has an `action`."""

    template, fields, roles = "refused.html", FIELDS, ROLES

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
            return self._list(form, f"Record {id_} is put aside.")
        return self._record(form, id_) if id_ else self._list(form)

    def page(self, form: dict[str, Any], status: int = 200, **values: Any) -> bottle.HTTPResponse:
        found = {"rows": None, "row": None, "uploads": (), "older": "", **values}
        return super().page(form, status, prefix=CORRECTED, **found)

    def _list(self, form: dict[str, Any], notice: str = "") -> Any:
        self.parameters = {"after": form["after"]} if form["after"] else {}
        rows = self.listed(LISTED + 1, {})
        older = str(rows[LISTED - 1]["id"]) if len(rows) > LISTED else ""
        uploads = find_last_uploads(self.user.id)
        return self.page(form, notice=notice, rows=rows[:LISTED], older=older, uploads=uploads)

    def _record(self, form: dict[str, Any], id_: int, status: int = 200, message: str = "") -> Any:
        row = self.shown_whole(id_)
        found = get_rejection(id_)
        record = reread(found).decoded()
        # errors of other formats name fields of theirs
        is_ours = found.context.get("correction") or get_format(found.context.get("format") or "").reread is reread_json
        return self.page(
            form,
            status,
            message=message,
            row=row,
            sent=payload_text(found).encode("utf-8", "replace").decode()[:SHOWN_CHARACTERS],
            whole=as_text(record),
            fields=[(error, shown_value(record, error["field"])) for error in row["errors"] if is_ours],
            people=self.find_patients(form["search"]),
            is_staff=self.finds_by_name,
        )

    def _retry(self, form: dict[str, Any], id_: int) -> Any:
        self.check(id_)
        changes = {name[len(CORRECTED) :]: text for name, text in form.items() if name.startswith(CORRECTED)}
        record = form["record"] or corrected(reread(get_rejection(id_)).decoded(), changes)
        result = self.retried(id_, form["patient"].strip() or None, record)
        if result.status == "rejected":
            return self._record(form, id_, 422, "It is still rejected.")
        number = f" as check-up {result.id}" if result.id else ""
        return self._list(form, f"Record {id_} is stored{number}.")


def as_text(record: Any) -> str:
    """Return a record as JSON to edit, its numbers as they were sent; "" if there is none."""
    try:
        encoded = msgspec.json.Encoder(decimal_format="number", enc_hook=_exact).encode(record)
        return "" if record is None else msgspec.json.format(encoded, indent=2).decode()
    except (TypeError, ValueError, msgspec.MsgspecError):  # a reader's own type, a lone surrogate, NaN
        return ""


def _exact(value: Any) -> Any:
    if isinstance(value, UnrepresentableNumber):
        return msgspec.Raw(value.text.encode())
    raise TypeError(type(value).__name__)


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
