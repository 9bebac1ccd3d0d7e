"""The FHIR R4 API for writing: a Bundle of type transaction or batch, or one Observation or DiagnosticReport.

It goes through the same intake as any upload, so sending again is safe. What is not taken is refused by name: other
types of resource, unless a result refers to them, other methods, other conditions.
"""

import contextlib
import io
from typing import Any

import bottle
import msgspec

from myhealth.checkups.models import Checkup
from myhealth.clinical.status import shown_results
from myhealth.common.database import transaction
from myhealth.common.decoding import prepare
from myhealth.common.errors import BadInput, TooLarge
from myhealth.intake.bulk_insert import find_by_number
from myhealth.intake.formats.registry import read_dump
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import RecordResult
from myhealth.profiles.models import User
from myhealth.reports.documents import Document, decode_json
from myhealth.reports.fhir.resources import observation_id
from wsgi.common.fhir_outcome import FHIR, operation_outcome
from wsgi.common.metrics import RECORDS
from wsgi.common.openapi import JSON, TEXT, Operation, ref, shape
from wsgi.common.requests import JSON_TYPE, WrongMediaType, accepted_type, header, spool_body
from wsgi.common.site_address import site
from wsgi.common.views import json_response
from wsgi.upload_api.checkups import ATOMIC_CHARACTERS, SENDERS, TakesRecords, is_large
from wsgi.upload_api.fhir_requests import RESULTS, Entries

ENTRIES_MAX, PARTS_MAX = 5_000, 400_000
PROBLEMS_MAX = 100  # told of one transaction
TYPES = ("transaction", "batch")


class Unprocessable(BadInput):
    status, code = 422, "refused"


class Bundle(msgspec.Struct, rename="camel"):
    """A resource; of a Bundle, the texts of its entries."""

    resource_type: str
    type: str = ""
    entry: list[msgspec.Raw] = []


prepare(Bundle)


def _body(kind: str, optional: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    schema = shape({"resourceType": {"const": kind}, **more}, optional, closed=False)
    return {"content": {media_type: {"schema": schema} for media_type in (FHIR, JSON)}}


def _fhir_operation(summary: str, answers: dict[int, str], body: dict[str, Any], **details: Any) -> Operation:
    told: dict[int, Any] = {status: (text, "FhirResource") for status, text in answers.items()}
    errors = {406: "The answer has no media type that `Accept` allows.", 422: "Refused; each issue has its place."}
    others = {JSON: ref("FhirResource")}
    return Operation(summary, told, SENDERS, body, errors=errors, content=FHIR, others=others, **details)


ENTRIES = {"type": "array", "items": {}}  # each has its own answer, also one that is no object
IF_NONE_EXIST = ("If-None-Exist", TEXT, "identifier=system|value: only if it is not stored yet.")
LOCATION = ("Location", TEXT, "Where the browse API has it.")


class FhirWriteView(TakesRecords):
    """Store a resource of one type. `kind`: the type that this address takes."""

    kind = "Bundle"

    def read(self, held: contextlib.ExitStack) -> tuple[bytes, Bundle]:
        """Return the body. Raises BadInput unless it is a resource of this type, TooLarge, WrongMediaType."""
        media_type = header("Content-Type").partition(";")[0].strip().lower()
        if media_type and not JSON_TYPE.fullmatch(media_type):
            raise WrongMediaType(f"The Content-Type {media_type[:60]!a} is not taken here; {FHIR} is.")
        self.media_type = accepted_type(FHIR, JSON)
        file = held.enter_context(spool_body(min(self.context.settings.upload.max_body_bytes, ATOMIC_CHARACTERS)))
        if is_large(file):
            held.enter_context(self.context.large_bodies.enter())
        body = file.read()
        if body.count(b",") > PARTS_MAX:
            raise TooLarge(f"The resource has more than {PARTS_MAX} parts; send it in parts.")
        try:
            found = msgspec.json.decode(body, type=Bundle)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BadInput(f"The body is no FHIR resource in JSON: {error}") from error
        if found.resource_type != self.kind:
            raise BadInput(
                f"A {self.kind} is taken at this address.", errors=[_problem("resourceType", "is another one.")]
            )
        if len(found.entry) > ENTRIES_MAX:
            raise TooLarge(f"The Bundle has more than {ENTRIES_MAX} entries; send it in parts.")
        return body, found

    def store(self, entries: Entries, *, atomic: bool) -> None:
        """Store what the entries hold, and answer each. Raises Unprocessable if one is refused and `atomic`."""
        dump = read_dump(io.BytesIO(entries.bundle()), format="fhir")
        heads = {next(iter(each.entries)): each for each in self._records(dump)}
        used = {number for each in heads.values() for number in each.entries}
        for number in range(len(entries.texts)):
            if number not in used and number not in entries.problems:
                kind = entries.kind(number)
                reason = "is about no patient" if kind in RESULTS else "is taken only where a result refers to it"
                entries.refuse(number, ".resource", f"{kind[:60]} {reason}.")
        intake = self.intake(dump, f"POST {bottle.request.path}"[:200])
        known = _find_existing(entries, heads, intake)
        _refuse_all(entries, atomic)
        left = [each for head, each in heads.items() if head not in known and head not in entries.problems]
        results = intake.store_batch(left, atomic=atomic) if left else []
        for each in results:
            RECORDS.labels(each.status).inc()
        documents = _documents([each.id for each in results if each.id] + [*known.values()])
        done = {id(record): result for record, result in zip(left, results, strict=True)}
        for head, record in heads.items():
            result = done.get(id(record)) or RecordResult(0, "duplicate", known.get(head))
            _answer(entries, head, record.entries, result, documents.get(result.id or 0))
        _refuse_all(entries, atomic)
        for number in used - entries.problems.keys():
            if not entries.responses[number]:
                entries.refuse(number, ".resource", "what refers to it was refused.", "refused")


class FhirBundleView(FhirWriteView):
    @_fhir_operation(
        "Upload a FHIR transaction or batch",
        {200: "A response to each entry."},
        _body("Bundle", {"entry": ENTRIES}, type={"enum": list(TYPES)}),
    )
    def post(self) -> Any:
        with contextlib.ExitStack() as held:
            _, bundle = self.read(held)
            if bundle.type not in TYPES:
                errors = [_problem("Bundle.type", f"must be {' or '.join(TYPES)}.")]
                raise BadInput("Only a transaction or a batch is taken.", code="not_supported", errors=errors)
            entries = Entries(bundle.entry)
            if entries.texts:
                self.store(entries, atomic=bundle.type == "transaction")
        answer: Document = {"resourceType": "Bundle", "type": f"{bundle.type}-response"}
        found = entries.finish()
        return json_response(answer | ({"entry": found} if found else {}), headers={"Content-Type": self.media_type})


class FhirResultView(FhirWriteView):
    @classmethod
    def of(cls, kind: str) -> type:
        answers = {201: "Stored.", 200: "Stored already, or in place of an earlier version."}
        summary, body = f"Upload one FHIR {kind}", _body(kind)
        spec = {"post": _fhir_operation(summary, answers, body, headers=(IF_NONE_EXIST,), sends=(LOCATION,))}
        return type(f"Fhir{kind}View", (cls,), {"kind": kind, "spec": spec})

    def post(self) -> Any:
        with contextlib.ExitStack() as held:
            body, _ = self.read(held)
            request = {"method": "POST", "url": self.kind, "ifNoneExist": header("If-None-Exist")}
            text = b'{"resource":%b,"request":%b}' % (body, msgspec.json.encode(request))
            entries = Entries([msgspec.Raw(text)])
            try:
                self.store(entries, atomic=True)
            except Unprocessable as error:
                for each in error.errors:
                    each["field"] = each["field"].replace("Bundle.entry[0].resource", self.kind)
                raise
        response = entries.responses[0]
        status, location = int(response["status"][:3]), response.get("location", "")
        base = self.context.settings.browse.public_url.rstrip("/") or site().base_url()
        headers = {"Content-Type": self.media_type} | ({"Location": f"{base}/fhir/{location}"} if location else {})
        told = response.get("outcome") or operation_outcome(200, "It is stored.", "stored", (), "information")
        return json_response(told, status, headers)


def _problem(field: str, message: str) -> dict[str, Any]:
    return {"index": None, "field": field, "message": message}


def _refuse_all(entries: Entries, atomic: bool) -> None:
    """Raise Unprocessable, with all problems, if all is stored or nothing."""
    if atomic and entries.problems:
        problems = [each for found in entries.problems.values() for each in found]
        raise Unprocessable("Nothing was stored, because something was refused.", errors=problems[:PROBLEMS_MAX])


def _find_existing(entries: Entries, heads: dict[int, ParsedRecord], intake: Intake) -> dict[int, int]:
    """Return the check-ups that make conditional creates unnecessary, by the places of their entries. Refuse conditions
    that name another resource. A check-up of another patient is another one: the intake says what becomes of it."""
    asked: dict[int, str] = {}
    for number, condition in entries.conditions.items():
        if entries.kind(number) in RESULTS:
            record = heads[number].record if number in heads else None
            own = str((record or {}).get("record_id") or "")
            if own.partition("#")[0] == condition:
                asked[number] = own
            else:
                message = "must name the identifier by which the resource is known, and no part of another one."
                entries.refuse(number, ".request.ifNoneExist", message)
    if not asked:
        return {}
    with transaction() as cursor:
        rows = find_by_number(cursor, [*asked.values()])
    stored: dict[tuple[str, int | None], int] = {(record_id, patient_id): id_ for id_, patient_id, _, record_id in rows}
    owners = intake.patients_of([heads[number] for number in asked]) if stored else [None] * len(asked)
    keys = zip(asked.items(), owners, strict=True)
    return {number: stored[own, owner] for (number, own), owner in keys if (own, owner) in stored}


def _answer(
    entries: Entries, head: int, parts: dict[int, str], result: RecordResult, document: Document | None
) -> None:
    """Answer the entries of one record. `parts`: their places, with the numbers of their results."""
    for error in result.errors:
        place = (error["field"] or "").partition(".")[2]
        entries.refuse(head, f".resource{place and '.'}{place}", error["message"], error.get("code", "refused"))
    for number, own in parts.items() if head not in entries.problems else ():
        if entries.deletes(number):
            done = "It was withdrawn." if result.effect == "withdrawn" else "Nothing was withdrawn."
            entries.answer(number, 204, "", result.warnings, done)
        else:
            status = 201 if result.effect == "created" and entries.kind(number) in RESULTS else 200
            location = _location(entries.kind(number), own, document) if document else ""
            entries.answer(number, status, location, result.warnings if number == head else ())


def _documents(checkup_ids: list[int]) -> dict[int, Document]:
    """Return what the locations of these check-ups' resources need, by their ids."""
    if not checkup_ids:
        return {}
    columns = Checkup.id, User.subject, Checkup.results.cast("text"), Checkup.details.cast("text")
    found: Any = Checkup.select(*columns).join(User).where(Checkup.id.in_(checkup_ids)).tuples()
    return {
        id_: {
            "_id": id_,
            "subject": str(subject),
            "results": decode_json(shown_results(results)),
            "details": decode_json(details or "null"),
        }
        for id_, subject, results, details in found
    }


def _location(kind: str, number: str, document: Document) -> str:
    """Return the address of a resource that was stored; "" for those that are parts of others."""
    if kind == "Patient":
        return f"Patient/{document['subject']}"
    id_ = observation_id(document, number) if kind == "Observation" else ""
    if id_:
        return f"Observation/{id_}"
    return f"DiagnosticReport/{document['_id']}" if kind in RESULTS else ""


FHIR_WRITE_VIEWS: dict[str, Any] = {
    "/fhir/": FhirBundleView,
    **{f"/fhir/{kind}/": FhirResultView.of(kind) for kind in RESULTS},
}
