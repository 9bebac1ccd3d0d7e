"""Single check-ups, which doctors correct, review and delete; and machines."""

import contextlib
from typing import Any

import bottle
import msgspec

from myhealth.checkups import services
from myhealth.checkups.models import JSON_NAMES, OMITTED_NULLS
from myhealth.checkups.services import open_history
from myhealth.common.errors import BadInput, TooLarge
from myhealth.examples import NAMES, named_layout
from myhealth.intake import corrections
from myhealth.intake.formats.json_reader import PARTS_MAX, RECORD_MAX
from myhealth.intake.formats.tables.layout import dump_layout, parse_layout
from myhealth.intake.parsed_record import DECODER, DuplicateKeyDict
from myhealth.machines.models import Machine
from myhealth.machines.services import list_machines, register_machine
from wsgi.common.openapi import Operation
from wsgi.common.requests import SMALL_BODY_BYTES, read_body, read_json
from wsgi.common.views import json_response
from wsgi.upload_api.context import UploadView
from wsgi.upload_api.schemas import UNKNOWN, UNKNOWN_USER

REVIEW_MAX_BYTES = 32 * 1024  # a note whose every character is escaped
REVIEWED = ("id", "revision", "reviewed_at", "reviewed_by", "review_note")
DOCTOR, TECHNICIAN, REVIEWERS = ("doctor",), ("technician",), ("doctor", "admin")


class UserCheckupView(UploadView):
    unknown_user = UNKNOWN_USER

    @Operation("Show a check-up", {200: ("The check-up.", "Checkup")}, "the patient, doctor", errors=UNKNOWN)
    def get(self, username: str, checkup_id: int) -> Any:
        patient = self.person(username, "doctor")
        found = services.get_checkup(patient.id, id_in_range(checkup_id))
        self.record_read(patient, "checkups", checkup=checkup_id)
        return json_response(public(found))

    @Operation(
        "Correct a check-up", {200: ("The check-up.", "Checkup")}, DOCTOR, body="CheckupChanges",
        errors={**UNKNOWN, 409: "It was changed since the `revision` that was sent."},
    )  # fmt: skip
    def put(self, username: str, checkup_id: int) -> Any:
        patient = self.person(username, "doctor")
        body = read_body(min(self.context.settings.upload.max_body_bytes, RECORD_MAX))
        if body.count(b",") > PARTS_MAX:
            raise TooLarge(f"The body has more than {PARTS_MAX} parts.")
        with self.context.large_bodies.enter() if len(body) > SMALL_BODY_BYTES else contextlib.nullcontext():
            try:
                changes = DECODER.decode(body.decode())
            except (ValueError, RecursionError) as error:
                raise BadInput(f"The body is not JSON: {error}") from error
            if not isinstance(changes, dict) or isinstance(changes, DuplicateKeyDict):
                raise BadInput("The body must be a JSON object in which no name occurs twice.")
            found = corrections.change_checkup(patient.id, id_in_range(checkup_id), changes)
        if not set(changes) - {"revision"}:  # nothing was changed, but the check-up is shown
            self.record_read(patient, "checkups", checkup=checkup_id)
        return json_response(public(found))

    @Operation("Delete a check-up", {204: ("Deleted.", None)}, DOCTOR, errors=UNKNOWN)
    def delete(self, username: str, checkup_id: int) -> Any:
        patient = self.person(username, "doctor")
        corrections.delete_checkup(patient.id, id_in_range(checkup_id))
        return bottle.HTTPResponse(status=204)


class HistoryView(UploadView):
    unknown_user = UNKNOWN_USER

    @Operation(
        "List the earlier versions of a check-up, the newest first", {200: ("Versions.", ["CheckupVersion"])},
        ("doctor", "admin"), errors=UNKNOWN,
    )  # fmt: skip
    def get(self, username: str, checkup_id: int) -> Any:
        patient = self.person(username, "doctor", "admin")
        found = open_history(id_in_range(checkup_id), patient.id)
        return json_response([{**each, "content": msgspec.Raw(each["content"].encode())} for each in found])


class ReviewView(UploadView):
    """A check-up's review. It is not sent with records."""

    unknown_user = UNKNOWN_USER

    @Operation(
        "Mark a check-up as reviewed, with a note for its patient", {200: ("The review.", "Reviewed")}, REVIEWERS,
        body="Review", errors={**UNKNOWN, 409: "It was changed since the `revision` that was sent."},
    )  # fmt: skip
    def post(self, username: str, checkup_id: int) -> Any:
        patient = self.person(username, *REVIEWERS)
        sent = read_json(REVIEW_MAX_BYTES, "note", "revision")
        found = public(services.review_checkup(patient.id, id_in_range(checkup_id), **sent))
        return json_response({name: found[name] for name in REVIEWED if name in found})  # admins read no check-up here

    @Operation("Take a review back", {204: ("Deleted.", None)}, REVIEWERS, errors=UNKNOWN)
    def delete(self, username: str, checkup_id: int) -> Any:
        services.withdraw_review(self.person(username, *REVIEWERS).id, id_in_range(checkup_id))
        return bottle.HTTPResponse(status=204)


def public(row: dict[str, Any]) -> dict[str, Any]:
    """Return a check-up for an answer; its JSON is PostgreSQL's own text, so that no digit changes."""
    shown = {
        name: msgspec.Raw(value.encode()) if name in JSON_NAMES and value is not None else value
        for name, value in row.items()
        if name != "patient_id" and (value is not None or name not in OMITTED_NULLS)
    }
    return shown | {"taken_at": None} if row["taken_precision"] == "unknown" else shown  # the stored one only sorts


def id_in_range(checkup_id: int) -> int:
    """Return the id, or -1, which no check-up has, if it is beyond PostgreSQL's bigint."""
    return checkup_id if checkup_id < 2**63 else -1


MACHINE_MAX_BYTES = 16 * 1024
MACHINE_FIELDS = ("serial", "model", "site", "firmware", "layout")
MACHINE_READERS = ("doctor", "technician", "admin")


class MachinesView(UploadView):
    @Operation("List machines by serial", {200: ("Machines.", ["Machine"])}, MACHINE_READERS)
    def get(self) -> Any:
        return json_response([machine_json(machine) for machine in list_machines()])

    @Operation(
        "Register a machine, or describe it further", {201: ("The machine.", "Machine")}, TECHNICIAN, "NewMachine"
    )
    def post(self) -> Any:
        body = read_json(MACHINE_MAX_BYTES, *MACHINE_FIELDS)
        if not isinstance(body.get("serial"), str):
            raise BadInput("A serial is needed, as text.")
        layout = body.pop("layout", None)
        if layout is not None:
            if not isinstance(layout, str) or not layout:
                raise BadInput("layout must be text: the name of a layout, or TOML.")
            body["layout"] = dump_layout(named_layout(layout) if layout in NAMES else parse_layout(layout))
        return json_response(machine_json(register_machine(**body)), 201)


def machine_json(machine: Machine) -> dict[str, Any]:
    names = ("id", "serial", "model", "site", "firmware", "layout", "last_upload_at", "created_at", "updated_at")
    return {name: getattr(machine, name) for name in names}
