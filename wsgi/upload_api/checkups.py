"""Upload of records, in any format; each record has its own result. Doctors list, correct and delete check-ups."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable
from typing import Any

import bottle
import msgspec

from myhealth.audit.events import record_event
from myhealth.checkups import services
from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, TooLarge
from myhealth.intake import corrections
from myhealth.intake.formats.detect import read_dump
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.registry import FORMATS
from myhealth.intake.idempotency import KEY_MAX, Answer, once
from myhealth.intake.parsed_record import DECODER, DuplicateKeyDict, ParsedRecord
from myhealth.intake.pipeline import Intake
from myhealth.intake.rejected_files import rejected_bytes
from myhealth.intake.results import ImportSource, RecordResult, counts
from myhealth.machines.services import register_machine
from myhealth.profiles.models import User
from wsgi.common.application import encode_json, error_body
from wsgi.common.openapi import Operation, one_of
from wsgi.common.requests import header, query_flag, read_body
from wsgi.common.views import json_response, list_response, page_limit
from wsgi.upload_api.context import UploadView
from wsgi.upload_api.users import LIMIT_QUERY

BULK_ANSWERS = {
    201: ("At least one record was accepted.", "BulkAnswer"),
    200: ("All records that can be stored were stored already.", "BulkAnswer"),
    422: ("Every record was rejected.", "BulkAnswer"),
}
BODY_DESCRIPTION = "A record, a list of records, NDJSON, a machine-memory dump, FHIR R4 or HL7 v2; gzipped or not."


def bulk_body(*json_schemas: str) -> dict[str, Any]:
    """Describe a body in any format; the JSON formats have schemas."""
    content: dict[str, Any] = {"application/json": {"schema": one_of(*json_schemas)}}
    for media_type in sorted({each.media_type for each in FORMATS}, reverse=True):
        content.setdefault(media_type, {"schema": {"type": "string"}})
    return {"description": BODY_DESCRIPTION, "content": content}


BULK_BODY = bulk_body("Record", "Records", "Dump", "FhirResource")
# The address names the patient, so a record may leave it out.
PATIENT_BODY = bulk_body("PatientRecord", "PatientRecords", "PatientDump", "FhirResource")
BULK_HEADERS = (
    (
        "Idempotency-Key",
        {
            "type": "string",
            "minLength": 1,
            "maxLength": KEY_MAX,
            "pattern": "^[\\x21-\\x7e]([\\x20-\\x7e]*[\\x21-\\x7e])?$",
        },
        "Makes the request repeatable: the same key gets the same answer, and nothing is done twice.",
    ),
)
BULK_QUERY = (
    ("atomic", {"type": "boolean", "default": False}, "All or nothing."),
    (
        "refused_file",
        {"type": "boolean", "default": False},
        "Answer with the rejected records too, in the format they came in.",
    ),
)
UNKNOWN_USER = "User does not exist!"
UNKNOWN = {404: UNKNOWN_USER}
FORBIDDEN = {403: "Not with the caller's role."}
BEFORE_QUERY = (
    "after",
    {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    "Where the page begins; the `Link` header has it.",
)


REPLAYED = (
    "Idempotent-Replayed",
    {"const": "true"},
    "Present if this is the earlier answer to the same `Idempotency-Key`.",
)


def bulk(summary: str, roles: str, body: dict[str, Any] | None = None) -> Operation:
    return Operation(
        summary, BULK_ANSWERS, roles, body=body or BULK_BODY, query=BULK_QUERY, headers=BULK_HEADERS, sends=(REPLAYED,),
        errors={**FORBIDDEN, **UNKNOWN, 409: "The answer stored under the Idempotency-Key has just expired."},
    )  # fmt: skip


class TakesRecords(UploadView):
    """Upload: read the whole body, store it as one batch, answer for each record."""

    def take(self, *, machine: str = "", patient: str | None = None, as_dump: bool = False) -> Any:
        """Store the body and answer it. `machine`: the serial. `patient`: the patient of every record. `as_dump`: give
        records without a record_id a derived one, so that the same dump sent twice is stored once."""
        body = read_body(self.context.settings.upload.max_body_bytes)
        source = f"{bottle.request.method} {bottle.request.path}"[:200]
        atomic, with_rejected = query_flag("atomic"), query_flag("refused_file")
        key = header("Idempotency-Key") if "HTTP_IDEMPOTENCY_KEY" in bottle.request.environ else None

        def work() -> Answer:
            dump, parsed = self._parse(body, machine)
            results = self._store(dump, parsed, source, patient, as_dump, atomic)
            return _answer(dump, parsed, results, with_rejected)

        same = b"\0".join([source.encode(), str(atomic).encode(), str(with_rejected).encode(), body])
        answer = work() if key is None else once(self.user.id, key, same, work)
        headers = {"Idempotent-Replayed": "true"} if answer.replayed else None
        return json_response(answer.body, answer.status, headers=headers)

    def _parse(self, body: bytes, machine: str) -> tuple[Dump, list[ParsedRecord]]:
        """Raises BadInput if the body cannot be read or has no record, TooLarge if it has too many."""
        limits = self.context.settings.upload
        dump = read_dump(io.BytesIO(body), machine=machine, max_bytes=limits.max_body_bytes)
        parsed = list(itertools.islice(dump.records, limits.max_records + 1))
        if len(parsed) > limits.max_records:
            raise TooLarge(f"The body has more than {limits.max_records} records; send them in parts.")
        if not parsed and not dump.skipped:
            raise BadInput("The body holds no record.", code="no_records")
        return dump, parsed

    def _store(
        self, dump: Dump, parsed: list[ParsedRecord], source: str, patient: str | None, as_dump: bool, atomic: bool
    ) -> list[RecordResult]:
        derive_ids = as_dump or dump.format.has_record_numbers
        origin = ImportSource(source, dump.serial, dump.format.name, derive_ids=derive_ids, patient=patient)
        origin.names_fields, origin.log_upload = self.user.role == "doctor", True
        intake = Intake(origin)
        if not dump.describes_machine:
            return intake.store_batch(parsed, atomic=atomic)
        with transaction():
            register_machine(**dump.machine)
            return intake.store_batch(parsed, atomic=atomic)


class CheckupsView(TakesRecords):
    spec = {
        "get": Operation(
            "List check-ups, the one stored last first", {200: ("Check-ups.", ["Checkup"])}, "doctor",
            query=(LIMIT_QUERY, BEFORE_QUERY), errors={**FORBIDDEN, 400: "The page is not one."},
        ),
        "post": bulk("Upload records", "doctor, technician"),
    }  # fmt: skip

    def get(self) -> Any:
        self.require("doctor")
        limit = page_limit(bottle.request.query)
        found = services.list_checkups(before=_before(), limit=limit + 1)
        others = {(row["patient_id"], row["username"]) for row in found[:limit]} - {(self.user.id, self.user.username)}
        for patient_id, username in others:
            record_event("read", subject_id=patient_id, subject=username, what="checkups")
        return list_response([public(row) for row in found], limit, _place)

    def post(self) -> Any:
        self.require("doctor", "technician")
        return self.take()


class UserCheckupsView(TakesRecords):
    unknown_user = UNKNOWN_USER
    spec = {
        "get": Operation(
            "List a patient's check-ups, the one stored last first", {200: ("Check-ups.", ["Checkup"])},
            "the patient, doctor", query=(LIMIT_QUERY, BEFORE_QUERY), errors={**UNKNOWN, 400: "The page is not one."},
        ),
        "post": bulk("Upload records of one patient", "doctor, technician", PATIENT_BODY),
    }  # fmt: skip

    def get(self, username: str) -> Any:
        patient = self.person(username, "doctor")
        limit = page_limit(bottle.request.query)
        found = services.list_checkups(patient_id=patient.id, before=_before(), limit=limit + 1)
        if patient.id != self.user.id:
            record_event("read", subject_id=patient.id, subject=patient.username, what="checkups")
        return list_response([public(row) for row in found], limit, _place)

    def post(self, username: str) -> Any:
        self.require("doctor", "technician")
        return self.take(patient=self.person(username, "doctor", "technician").username)


class UserCheckupView(UploadView):
    unknown_user = UNKNOWN_USER
    spec = {
        "get": Operation("Show a check-up", {200: ("The check-up.", "Checkup")}, "the patient, doctor", errors=UNKNOWN),
        "put": Operation(
            "Correct a check-up", {200: ("The check-up.", "Checkup")}, "doctor", body="CheckupChanges",
            errors={**UNKNOWN, **FORBIDDEN, 409: "It was corrected meanwhile."},
        ),
        "delete": Operation(
            "Delete a check-up", {204: ("It is gone.", None)}, "doctor", errors={**UNKNOWN, **FORBIDDEN}
        ),
    }  # fmt: skip

    def get(self, username: str, checkup_id: int) -> Any:
        patient = self.person(username, "doctor")
        found = services.get_checkup(patient.id, _storable(checkup_id))
        self._log_access(patient, checkup_id)
        return json_response(public(found))

    def put(self, username: str, checkup_id: int) -> Any:
        self.require("doctor")
        patient = self.person(username, "doctor")
        try:
            changes = DECODER.decode(read_body(self.context.settings.upload.max_body_bytes).decode())
        except (ValueError, RecursionError) as error:
            raise BadInput(f"The body is not JSON: {error}") from error
        if not isinstance(changes, dict) or isinstance(changes, DuplicateKeyDict):
            raise BadInput("The body must be a JSON object in which no name stands twice.")
        found = corrections.change_checkup(patient.id, _storable(checkup_id), changes)
        if not set(changes) - {"revision"}:  # nothing was changed, but the check-up is shown
            self._log_access(patient, checkup_id)
        return json_response(public(found))

    def _log_access(self, patient: User, checkup_id: int) -> None:
        if patient.id != self.user.id:
            record_event("read", subject_id=patient.id, subject=patient.username, what="checkups", checkup=checkup_id)

    def delete(self, username: str, checkup_id: int) -> Any:
        self.require("doctor")
        patient = self.person(username, "doctor")
        corrections.delete_checkup(patient.id, _storable(checkup_id))
        return bottle.HTTPResponse(status=204)


def public(row: dict[str, Any]) -> dict[str, Any]:
    """Return a check-up for an answer; its results stay PostgreSQL's JSON, digit by digit."""
    shown = {name: value for name, value in row.items() if name != "patient_id"}
    shown["results"] = msgspec.Raw(row["results"].encode())
    return shown


def _place(row: dict[str, Any]) -> str:
    return str(row["id"])


def _before() -> int | None:
    text = bottle.request.query.get("after")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise BadInput("after must be the value that a Link header gave.")
    return int(text)


def _storable(checkup_id: int) -> int:
    """Return the id, or -1, which no check-up has, if it is beyond PostgreSQL's bigint."""
    return checkup_id if checkup_id < 2**63 else -1


def _codes(results: Iterable[RecordResult]) -> set[str]:
    return {error.get("code", "") for result in results for error in result.errors}


def rejected_file(dump: Dump, parsed: list[ParsedRecord], results: list[RecordResult]) -> str:
    """Return the rejected records in the format they came in, to be corrected and sent again; "" if there are none."""
    rejected = [record for record, result in zip(parsed, results, strict=True) if result.errors]
    return rejected_bytes(dump, rejected).decode("utf-8", "replace") if rejected else ""


def _answer(dump: Dump, parsed: list[ParsedRecord], results: list[RecordResult], with_rejected: bool) -> Answer:
    if dump.format.is_single and "unknown_user" in _codes(results):
        # not an exception: under an Idempotency-Key it would roll back the storing of the rejected record
        return Answer(404, error_body(UNKNOWN_USER, "unknown_user", results[0].errors).decode(), lasting=False)
    found = counts(results)
    if found["accepted"]:
        status, details = 201, "User checkup created…"
    elif found["rejected"] and not found["duplicate"]:
        status, details = 422, "No record was stored; each has its errors in items."
    else:
        status, details = 200, "Every record that could be stored was stored already."
    items = [_item(record, result) for record, result in zip(parsed, results, strict=True)]
    answer: dict[str, Any] = {"details": details, **found, "items": items}
    if dump.skipped:
        answer["skipped"] = dict(dump.skipped)
    if with_rejected:
        answer["refused_file"] = rejected_file(dump, parsed, results)
    return Answer(status, encode_json(answer).decode(), lasting=found["accepted"] > 0)


def _item(parsed: ParsedRecord, result: RecordResult) -> dict[str, Any]:
    """Return the result of a record; with errors or warnings, also its place in the body and its record_id."""
    item: dict[str, Any] = {
        "index": result.index,
        "status": result.status,
        "id": result.id,
        "errors": result.errors,
        "rejection_id": result.rejection_id,
    }
    if result.warnings:
        item["warnings"] = result.warnings
    if result.errors or result.warnings:
        record = parsed.decoded()
        record_id = record.get("record_id") if isinstance(record, dict) else None
        item |= {"line": parsed.line, "record_id": str(record_id) if type(record_id) in (str, int) else None}
    return item
