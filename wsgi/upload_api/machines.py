"""Machines, and uploads of their memory dumps."""

from typing import Any

from myhealth.common.errors import BadInput
from myhealth.machines.models import Machine
from myhealth.machines.services import list_machines, register_machine
from wsgi.common.openapi import Operation
from wsgi.common.requests import read_json
from wsgi.common.views import json_response
from wsgi.upload_api.checkups import TakesRecords, bulk
from wsgi.upload_api.context import UploadView

BODY_MAX_BYTES = 16 * 1024
FIELDS = ("serial", "model", "site", "firmware")
TECHNICIAN = ("technician",)


class MachinesView(UploadView):
    spec = {
        "get": Operation("List machines by serial", {200: ("Machines.", ["Machine"])}, TECHNICIAN),
        "post": Operation(
            "Register a machine, or describe it further", {201: ("The machine.", "Machine")}, TECHNICIAN, "NewMachine"
        ),
    }

    def get(self) -> Any:
        return json_response([machine_json(machine) for machine in list_machines()])

    def post(self) -> Any:
        body = read_json(BODY_MAX_BYTES, *FIELDS)
        if not isinstance(body.get("serial"), str):
            raise BadInput("A serial is needed, as text.")
        return json_response(machine_json(register_machine(**body)), 201)


class DumpsView(TakesRecords):
    spec = {"post": bulk("Upload a machine-memory dump as the machine made it", TECHNICIAN)}

    def post(self, serial: str) -> Any:
        return self.take(machine=serial, as_dump=True)


def machine_json(machine: Machine) -> dict[str, Any]:
    names = ("id", "serial", "model", "site", "firmware", "last_upload_at", "created_at", "updated_at")
    return {name: getattr(machine, name) for name in names}
