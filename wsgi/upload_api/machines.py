"""Machines, and uploads of their memory dumps."""

from typing import Any

from myhealth.common.errors import BadInput
from myhealth.examples import NAMES, named_layout
from myhealth.intake.formats.tables.layout import dump_layout, parse_layout
from myhealth.machines.models import Machine
from myhealth.machines.services import list_machines, register_machine
from wsgi.common.openapi import Operation
from wsgi.common.requests import read_json
from wsgi.common.views import json_response
from wsgi.upload_api.checkups import SENDERS, TakesRecords, bulk
from wsgi.upload_api.context import UploadView
from wsgi.upload_api.schemas import USERNAME

BODY_MAX_BYTES = 16 * 1024
FIELDS = ("serial", "model", "site", "firmware", "layout")
TECHNICIAN, READERS = ("technician",), ("doctor", "technician", "admin")
PATIENT = (("patient", USERNAME, "The username of every record's patient, if the source names none."),)


class MachinesView(UploadView):
    @Operation("List machines by serial", {200: ("Machines.", ["Machine"])}, READERS)
    def get(self) -> Any:
        return json_response([machine_json(machine) for machine in list_machines()])

    @Operation(
        "Register a machine, or describe it further", {201: ("The machine.", "Machine")}, TECHNICIAN, "NewMachine"
    )
    def post(self) -> Any:
        body = read_json(BODY_MAX_BYTES, *FIELDS)
        if not isinstance(body.get("serial"), str):
            raise BadInput("A serial is needed, as text.")
        layout = body.pop("layout", None)
        if layout is not None:
            if not isinstance(layout, str) or not layout:
                raise BadInput("layout must be text: the name of a layout, or TOML.")
            body["layout"] = dump_layout(named_layout(layout) if layout in NAMES else parse_layout(layout))
        return json_response(machine_json(register_machine(**body)), 201)


class DumpsView(TakesRecords):
    @bulk("Upload a machine-memory dump or a table as the machine made it", TECHNICIAN, query=PATIENT)
    def post(self, serial: str) -> Any:
        patient = self.parameters.get("patient")
        if patient is not None:
            patient = self.person(patient, *SENDERS).username
        return self.take(machine=serial, patient=patient, as_dump=True)


def machine_json(machine: Machine) -> dict[str, Any]:
    names = ("id", "serial", "model", "site", "firmware", "layout", "last_upload_at", "created_at", "updated_at")
    return {name: getattr(machine, name) for name in names}
