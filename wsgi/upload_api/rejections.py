"""Rejected records: technicians see and resolve those of their own uploads, doctors and admins see and resolve all."""

import contextlib
from datetime import UTC, datetime
from typing import Any

import bottle
import msgspec

from myhealth.audit.events import record_event
from myhealth.common.decoding import plain, prepare, whole_number
from myhealth.common.errors import BadInput, NotFound
from myhealth.intake.formats.registry import OBJECT
from myhealth.intake.models import Rejection
from myhealth.intake.rejections import discard, get_rejection, list_rejections, open_rejection, patient_named
from myhealth.intake.results import RecordResult, counts
from myhealth.intake.retry import reread, retry_rejection
from myhealth.intake.settlement import OTHER_CONTENT
from myhealth.profiles.models import User
from wsgi.common.openapi import JSON, MOMENT, Operation, ref
from wsgi.common.requests import SMALL_BODY_BYTES, read_body, refuse_twice
from wsgi.common.views import json_response, list_response
from wsgi.upload_api.checkups import id_in_range
from wsgi.upload_api.context import UploadView
from wsgi.upload_api.schemas import BEFORE_QUERY, LIMIT_QUERY, REASON_MAX, REJECTION, text
from wsgi.upload_api.uploads import item_of

ROLES = ("doctor", "technician", "admin")
UNKNOWN = {404: "There is no such rejected record, or another user uploaded it."}
DONE = {409: "It is resolved already."}
STATES = ("open", "resolved", "all")
FILTERS = (
    ("state", {"enum": list(STATES), "default": STATES[0]}, "Only open or resolved ones, or all."),
    ("machine", text(least=1), "The serial of its machine."),
    ("code", text(least=1), "The code of one of its errors."),
    ("since", MOMENT, "Received at this moment or later."),
)
DETAILS = {"accepted": "It is stored.", "duplicate": "It was stored already.", "rejected": "It is still rejected."}
FIRST_PAGE = 2**63 - 1  # above every id


def optional(schema: str) -> dict[str, Any]:
    """Describe a body that may be missing."""
    return {"required": False, "content": {JSON: {"schema": ref(schema)}}}


class Retry(msgspec.Struct, forbid_unknown_fields=True):
    patient: str | int | float | None = None
    record: msgspec.Raw = msgspec.Raw()


class Discard(msgspec.Struct, forbid_unknown_fields=True):
    reason: str = ""


prepare(Retry, Discard)


class SeesRejections(UploadView):
    """The rejected records that the caller may see."""

    @property
    def uploader(self) -> int | None:
        """The user whose uploads the caller may see; None for all."""
        return self.user.id if self.user.role == "technician" else None

    def shown_whole(self, rejection_id: int) -> dict[str, Any]:
        """Return a rejected record to show, and log that. Raises NotFound."""
        self.check(rejection_id)
        found = open_rejection(id_in_range(rejection_id), self.uploader)
        as_base64, correction = bool(found.context.get("base64")), found.context.get("correction")
        return {**self.shown(found), "payload": found.payload, "base64": as_base64, "correction": correction}

    def check(self, rejection_id: int) -> None:
        """Raise NotFound, and record the refusal, if there is none that the caller may see."""
        try:
            get_rejection(id_in_range(rejection_id), self.uploader)
        except NotFound:
            self.record_refusal()
            raise

    def shown(self, found: Rejection) -> dict[str, Any]:
        """Return what the caller may know. Only a doctor learns in which fields a stored check-up differs."""
        known = {**found.context, "patient": patient_named(found)}
        row = {name: known[name] if name in known else getattr(found, name, None) for name in REJECTION["properties"]}
        errors = found.errors if self.user.role == "doctor" else list(map(without_fields, found.errors))
        number = known.get("record_id")
        return {**row, "record_id": None if number is None else str(number), "errors": errors}

    def retried(
        self, rejection_id: int, patient: str | int | None, record: str, record_format: str = OBJECT.name
    ) -> RecordResult:
        """Try to store a record again, or `record` in its place. Raises NotFound, Conflict."""
        self.check(rejection_id)
        return retry_rejection(
            rejection_id,
            own_authorities=self.context.settings.intake.folded_authorities,
            patient=None if patient is None else self._named(patient),
            correction=record,
            correction_format=record_format,
            names_fields=self.user.role == "doctor",
        )

    def discarded(self, rejection_id: int, reason: str) -> None:
        """Discard a rejected record. Raises BadInput, NotFound, Conflict."""
        if len(reason) > REASON_MAX:
            raise BadInput(f"A reason has at most {REASON_MAX} characters.")
        self.check(rejection_id)
        discard(rejection_id, reason)

    def _named(self, patient: str | int) -> str:
        """Return the username of the patient whom the caller names. Raises NotFound."""
        if isinstance(patient, int):
            may_know = self.user.role != "technician" and 0 < patient < 2**63
            user = User.get_or_none(User.id == patient) if may_know else None
            patient = user.username if user else str(patient)
        return self.person(patient, *ROLES).username


class RejectionView(SeesRejections):
    @Operation("Show a rejected record as it was sent", {200: ("The record.", "RejectionWhole")}, ROLES, errors=UNKNOWN)
    def get(self, rejection_id: int) -> Any:
        return json_response(self.shown_whole(rejection_id))


class RejectionsView(SeesRejections):
    @Operation(
        "List rejected records, the newest first", {200: ("Rejected records.", ["Rejection"])}, ROLES,
        query=(LIMIT_QUERY, BEFORE_QUERY, *FILTERS), errors={400: "A parameter is wrong."},
    )  # fmt: skip
    def get(self) -> Any:
        asked = {name: value for name, value in self.parameters.items() if name not in ("limit", "after")}
        limit, before = self.numbered_page()
        return list_response(self.listed(limit + 1, before, asked), limit, **asked)

    def listed(self, limit: int, before: int | None, asked: dict[str, str]) -> list[dict[str, Any]]:
        """Return rejected records to show, and log that. Raises BadInput."""
        state, since = asked.get("state", STATES[0]), asked.get("since")
        if state not in STATES:
            raise BadInput(f"state must be one of {', '.join(STATES)}.")
        if any("\0" in value for value in asked.values()):
            raise BadInput("A parameter contains a control character.")
        record_event("read", what="rejections")
        found = list_rejections(
            before=FIRST_PAGE if before is None else before,
            limit=limit,
            state=state,
            machine=asked.get("machine"),
            code=asked.get("code"),
            since=_parse_since(since) if since else None,
            user_id=self.uploader,
        )
        return [self.shown(each) for each in found]


class RetryView(SeesRejections):
    @Operation(
        "Try again to store a rejected record, as another patient's or corrected if the body says so",
        {200: ("It is stored.", "BulkAnswer"), 422: ("It is still rejected.", "BulkAnswer")}, ROLES,
        body=optional("RejectionRetry"), errors={**UNKNOWN, **DONE},
    )  # fmt: skip
    def post(self, rejection_id: int) -> Any:
        body = _read_body(Retry)
        record = bytes(body.record).decode()
        patient: Any = whole_number(body.patient)
        if isinstance(patient, float):
            raise BadInput("patient must be a username or an id.")
        result = self.retried(rejection_id, patient, "" if record == "null" else record)
        parsed = reread(get_rejection(rejection_id))
        told = {"details": DETAILS[result.status], **counts([result]), "items": [item_of(parsed, result)]}
        return json_response(told, 422 if result.status == "rejected" else 200)


class DiscardView(SeesRejections):
    @Operation(
        "Discard a rejected record; it is kept, and not stored", {204: ("It is discarded.", None)}, ROLES,
        body=optional("RejectionDiscard"), errors={**UNKNOWN, **DONE},
    )  # fmt: skip
    def post(self, rejection_id: int) -> Any:
        self.discarded(rejection_id, _read_body(Discard).reason)
        return bottle.HTTPResponse(status=204)


def without_fields(error: dict[str, Any]) -> dict[str, Any]:
    """Return an error without the fields in which a stored check-up differs."""
    before, words, fields = str(error["message"]).partition(f"{OTHER_CONTENT}: ")
    return {**error, "field": "record_id", "message": f"{before}{OTHER_CONTENT}"} if words and fields else error


def _parse_since(text: str) -> datetime:
    """Parse a moment or a day (UTC). Raises BadInput."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadInput("since must be a moment like 2026-11-28T09:00:00Z, or a day.") from error
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    with contextlib.suppress(OverflowError):  # outside the years 1 to 9999: the zone does not matter then
        return moment.astimezone(UTC)  # PostgreSQL knows no zone beyond 15:59
    return moment.replace(tzinfo=UTC)


def _read_body(kind: type[Any]) -> Any:
    """Return the body, a JSON object, or nothing. Raises BadInput."""
    body = read_body(SMALL_BODY_BYTES)
    try:
        found = msgspec.json.decode(body or b"{}", type=kind)
        refuse_twice(body or b"{}")
        return found
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadInput(f"The body cannot be read: {plain(error)}") from error


REJECTION_VIEWS: dict[str, Any] = {
    "/rejections/": RejectionsView,
    "/rejections/<rejection_id:int>/": RejectionView,
    "/rejections/<rejection_id:int>/retry/": RetryView,
    "/rejections/<rejection_id:int>/discard/": DiscardView,
}
