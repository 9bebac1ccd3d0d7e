"""The task runner's own calls, for when it runs on another host than the report store.

For the role service, each request signed with the sync's own key: a token alone opens nothing here.
"""

from typing import Any

import bottle
import msgspec

from myhealth.common.errors import BadInput, MyHealthError, NotFound
from myhealth.common.request_context import client_address
from myhealth.sync.bounds import BoundedWriter
from myhealth.sync.calls import CALLS, decode_documents
from myhealth.sync.signature import HEADER
from wsgi.browse_api.context import BrowseContext
from wsgi.browse_api.parameters import ANYTHING, DOCUMENTS, WHOLE
from wsgi.common.openapi import COUNT, TEXT, Operation, listed, shape
from wsgi.common.requests import bearer_token, header, parse_boolean, read_body
from wsgi.common.views import View, json_response

NEW = ("new", {"type": "boolean"}, "The documents are expected to be new, which is quicker if they are.")
SIGNED = (HEADER, TEXT, "`t=…, key=…, sig=…`: Ed25519 over method, path, the body's SHA-256, and the time.")
REFUSED = {
    400: "The body or a parameter is wrong.",
    403: "For the role service only, signed with the sync's key (codes `signature_…`).",
    409: "Another sync has begun a pass (code `taken_over`), or the call goes beyond what its pass has sent"
    " (`out_of_bounds`).",
}


class SignedView(View):
    """For views that the task runner alone may call. `body`: of the request, whose signature is right."""

    context: BrowseContext

    def prepare(self) -> None:
        super().prepare()
        self.address = client_address()
        self.user = self.context.service_of_token(bearer_token(), self.address)
        try:
            self.context.signatures.read(header(HEADER))  # without one, nothing of the body is read
            self.body = read_body(self.context.settings.upload.max_body_bytes, self._check_signature)
        except MyHealthError as error:
            if error.code.startswith("signature_"):
                self.context.log_sync_refusal(self.user, self.address)
            raise
        self.writer = BoundedWriter(self.context.reports, audit_days=self.context.settings.retention.audit_days)

    def _check_signature(self, body: bytes) -> None:
        environ = bottle.request.environ
        query = environ.get("QUERY_STRING", "")
        path = environ["PATH_INFO"] + (f"?{query}" if query else "")
        self.context.signatures.check(header(HEADER), environ["REQUEST_METHOD"], path, body)

    def _log_write(self) -> None:
        self.context.log_sync(self.user, self.address)


class ReportDocumentsView(SignedView):
    """Takes reports as the report store has them."""

    @Operation(
        "Receive reports from the sync", {201: ("Done, and stored durably.", "TakenReports")}, "service",
        body="ReportDocuments", query=(NEW,), headers=(SIGNED,), errors=REFUSED,
    )  # fmt: skip
    def post(self) -> Any:
        self._log_write()
        new = parse_boolean("new", bottle.request.query.get("new", "false"))
        documents = decode_documents("checkup", self.body)
        if len({document["_id"] for document in documents}) != len(documents):
            raise BadInput("The list has two documents of one _id.")
        done = (self.writer.insert if new else self.writer.put)("checkup", documents)
        failed = {failure.id: failure.reason for failure in done.quarantined}
        answer = {
            "report_ids": [document["_id"] for document in documents if document["_id"] not in failed],
            "written": done.written,
            "unchanged": done.unchanged,
            "failed": [{"id": id_, "reason": reason} for id_, reason in failed.items()],
        }
        return json_response(answer, 201)


class CallView(SignedView):
    """One call of the table `CALLS`: the body is the list of its arguments."""

    @Operation(
        "Call a method of the report store's writer", {200: ("Done, and stored durably.", "CallResult")}, "service",
        body="CallArguments", headers=(SIGNED,), errors={**REFUSED, 404: "There is no such method."},
    )  # fmt: skip
    def post(self, method: str) -> Any:
        call = CALLS.get(method)
        if call is None:
            raise NotFound("There is no such method.")
        try:
            arguments = msgspec.json.decode(self.body, type=call.arguments)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BadInput(f"The body is not what {method} takes: {error}") from error
        if call.writes:
            self._log_write()
        return json_response({"result": getattr(self.writer, method)(*arguments)})


FAILED = {"type": "array", "items": shape({"id": WHOLE, "reason": {"type": "string"}})}
TAKEN = {"report_ids": {"type": "array", "items": WHOLE}, "written": COUNT, "unchanged": COUNT, "failed": FAILED}
ARGUMENTS, STRUCTS = msgspec.json.schema_components(
    [call.arguments for call in CALLS.values()], ref_template="#/components/schemas/{name}"
)
SYNC_SCHEMAS: dict[str, Any] = {
    **STRUCTS,
    **DOCUMENTS,
    "ReportDocuments": listed("ReportDocument"),
    "TakenReports": shape(TAKEN),
    "CallArguments": {"anyOf": [{"title": method, **schema} for method, schema in zip(CALLS, ARGUMENTS, strict=True)]},
    "CallResult": shape({"result": ANYTHING}),
}
