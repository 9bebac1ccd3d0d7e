"""The earlier versions of a check-up, for doctors."""

from typing import Any

import msgspec

from myhealth.checkups.versions import open_history
from wsgi.common.openapi import Operation
from wsgi.common.views import json_response
from wsgi.upload_api.bulk_answer import UNKNOWN_USER
from wsgi.upload_api.checkups import FORBIDDEN, storable
from wsgi.upload_api.context import UploadView


class HistoryView(UploadView):
    unknown_user = UNKNOWN_USER
    spec = {
        "get": Operation(
            "List the earlier versions of a check-up, the newest first", {200: ("Versions.", ["CheckupVersion"])},
            "doctor, admin", errors={404: UNKNOWN_USER, **FORBIDDEN},
        ),
    }  # fmt: skip

    def get(self, username: str, checkup_id: int) -> Any:
        self.require("doctor", "admin")
        patient = self.person(username, "doctor", "admin")
        found = open_history(storable(checkup_id), patient.id)
        return json_response([{**each, "content": msgspec.Raw(each["content"].encode())} for each in found])
