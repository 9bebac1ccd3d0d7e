"""The page of refused records: the list, one record, whose it is, a correction, another try, putting it aside."""

import re
from functools import partial
from typing import Any

import msgspec
from peewee import Expression

from myhealth.audit.events import Actor, acting_as, find_last_uploads, record_event
from myhealth.common.errors import BadInput, MyHealthError, NotLoggedIn
from myhealth.common.text import fold_name
from myhealth.intake.formats.format import reread_json
from myhealth.intake.formats.registry import get_format
from myhealth.intake.parsed_record import DECODER, UnrepresentableNumber
from myhealth.intake.rejections import get_rejection, payload_text
from myhealth.intake.retry import reread
from myhealth.profiles.models import PatientIdentifier, User
from wsgi.common.pages import html_response
from wsgi.common.requests import SMALL_BODY_BYTES, WrongMediaType, header, parameter_pairs, spool_body
from wsgi.upload_api.rejections import ROLES, RejectionsView
from wsgi.upload_api.table_page import CREDENTIALS, TablePage

FIELDS = (*CREDENTIALS, "action", "id", "after", "search", "patient", "record", "reason")
CORRECTED = "field:"  # before the place of a field in the name of its input
FORM_MAX_BYTES = 3 * SMALL_BODY_BYTES  # a record, each of its bytes escaped
LISTED, FOUND_MAX, SHOWN_CHARACTERS = 50, 10, 20_000
NUMBERS = ("value", "low", "high")  # fields whose text is a number if it looks like one
PLACE = re.compile(r"[^.\[\]]+")


class RefusedPage(TablePage, RejectionsView):
    """GET is the login, as on the page of tables. POST is a form; each of its buttons has an `action`."""

    def post(self) -> Any:
        form: dict[str, Any] = {}
        try:
            if header("Content-Encoding"):
                raise WrongMediaType("The form is taken as it is only.")
            with spool_body(FORM_MAX_BYTES, partial(self.enter, form, ROLES)) as body:
                form = _read_form(body.read()) | form
            with acting_as(Actor(self.user.id, self.user.username, self.address)):
                return self._answer(form)
        except MyHealthError as error:
            if isinstance(error, NotLoggedIn):
                form["token"] = ""
            return self._page(form, error.status, message=error.message)

    def _answer(self, form: dict[str, Any]) -> Any:
        id_ = int(form["id"][:19] or 0)
        if form["action"] == "retry":
            return self._retry(form, id_)
        if form["action"] == "discard":
            self.discarded(id_, form["reason"])
            return self._list(form, f"Record {id_} is put aside.")
        return self._record(form, id_) if id_ else self._list(form)

    def _page(self, form: dict[str, Any], status: int = 200, **found: Any) -> Any:
        form = {**dict.fromkeys(FIELDS, ""), **form, "password": ""}
        values = {"message": "", "notice": "", "rows": None, "row": None, "uploads": (), "older": "", **found}
        return html_response("refused.html", status, form=form, prefix=CORRECTED, **values)

    def _list(self, form: dict[str, Any], notice: str = "") -> Any:
        self.parameters = {"after": form["after"]} if form["after"] else {}
        rows = self.listed(LISTED + 1, {})
        older = str(rows[LISTED - 1]["id"]) if len(rows) > LISTED else ""
        uploads = find_last_uploads(self.user.id)
        return self._page(form, notice=notice, rows=rows[:LISTED], older=older, uploads=uploads)

    def _record(self, form: dict[str, Any], id_: int, status: int = 200, message: str = "") -> Any:
        row = self.shown_whole(id_)
        found = get_rejection(id_)
        record = reread(found).decoded()
        # errors of other formats name fields of theirs
        is_ours = found.context.get("correction") or get_format(found.context.get("format") or "").reread is reread_json
        people = self._find(form["search"].strip()) if form["search"].strip() else None
        return self._page(
            form,
            status,
            message=message,
            row=row,
            sent=payload_text(found).encode("utf-8", "replace").decode()[:SHOWN_CHARACTERS],
            whole=as_text(record),
            fields=[(error, shown_value(record, error["field"])) for error in row["errors"] if is_ours],
            people=people,
            is_staff=self.uploader is None,
        )

    def _retry(self, form: dict[str, Any], id_: int) -> Any:
        self.check(id_)
        changes = {name[len(CORRECTED) :]: text for name, text in form.items() if name.startswith(CORRECTED)}
        record = form["record"] or corrected(reread(get_rejection(id_)).decoded(), changes)
        result = self.retried(id_, form["patient"].strip() or None, record)
        if result.status == "rejected":
            return self._record(form, id_, 422, "It is still refused.")
        number = f" as check-up {result.id}" if result.id else ""
        return self._list(form, f"Record {id_} is stored{number}.")

    def _find(self, words: str) -> list[User]:
        """Return the patients of that username or identifier; for staff, also those whose names contain the words."""
        record_event("read", what="people")
        numbered = PatientIdentifier.select(PatientIdentifier.patient).where(PatientIdentifier.value == words)
        wanted: Expression = (User.folded_name == fold_name(words)) | User.id.in_(numbered)
        if self.uploader is None:
            wanted |= User.folded_name.startswith(fold_name(words)) | User.full_name.contains(words)
        query = User.select().where(wanted, User.role == "patient", User.active).order_by(User.folded_name)
        return list(query.limit(FOUND_MAX))


def _read_form(body: bytes) -> dict[str, Any]:
    """Return the fields of the form. Raises BadInput."""
    form = dict.fromkeys(FIELDS, "") | dict(parameter_pairs(body.decode("latin-1")))
    if any("\0" in value for value in form.values()) or (form["id"] and not form["id"].isdecimal()):
        raise BadInput("The form cannot be read.")
    return form


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
        holder[key] = text.strip()
        if key in NUMBERS and re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", holder[key]):
            holder[key] = DECODER.decode(holder[key])
    return as_text(record) if different else ""
