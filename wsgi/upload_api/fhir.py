"""The FHIR R4 API for writing: a Bundle of type transaction or batch, or one Observation or DiagnosticReport.

It goes through the same intake as any upload, so sending again is safe. It refuses by name whatever it does not store:
other types of resource (unless a result refers to them), other methods, other conditions.

Source: HL7 FHIR R4 (4.0.1), "Bundle", "RESTful API" (batch/transaction, conditional create).
"""

import contextlib
import io
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import bottle
import msgspec

from myhealth.checkups.models import Checkup
from myhealth.clinical.status import shown_results
from myhealth.common.database import transaction
from myhealth.common.decoding import prepare
from myhealth.common.errors import BadInput, TooLarge
from myhealth.intake.formats.registry import read_dump
from myhealth.intake.insert import find_by_number
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import RecordResult
from myhealth.profiles.models import User
from myhealth.reports.documents import Document, decode_json
from myhealth.reports.fhir.resources import observation_ids
from wsgi.common.application import FHIR, operation_outcome
from wsgi.common.metrics import records_of
from wsgi.common.openapi import JSON, TEXT, Operation, ref, shape
from wsgi.common.requests import JSON_TYPE, WrongMediaType, accepted_type, header, site, spool_body
from wsgi.common.views import json_response
from wsgi.upload_api.schemas import SENDERS
from wsgi.upload_api.uploads import ATOMIC_CHARACTERS, TakesRecords, unpacked_size

RESULTS = ("Observation", "DiagnosticReport")
WITHDRAWAL = re.compile(r"(?:https?://\S+/)?(?:Observation|DiagnosticReport)/[^/\s?#|]+")
CONDITIONS = ("ifMatch", "ifNoneMatch", "ifModifiedSince")
STATUSES = {200: "200 OK", 201: "201 Created", 204: "204 No Content", 422: "422 Unprocessable Entity"}
REFUSED = "It was not stored."


class Resource(msgspec.Struct, rename="camel"):
    resource_type: str


class RequestEntry(msgspec.Struct):
    resource: Resource | None = None
    request: dict[str, Any] = {}


prepare(RequestEntry)


class Entries:
    """The entries of a request. `texts`: as they were sent; `problems`: of those that are refused, by their places;
    `conditions`: the numbers that `ifNoneExist` names, as records have them (system, |, value)."""

    def __init__(self, texts: Sequence[msgspec.Raw]) -> None:
        self.texts = texts
        self.problems: dict[int, list[dict[str, Any]]] = {}
        self.conditions: dict[int, str] = {}
        self.responses: list[dict[str, Any]] = [{} for _ in texts]
        self._entries: list[RequestEntry] = []
        for number, text in enumerate(texts):
            try:
                self._entries.append(msgspec.json.decode(text, type=RequestEntry))
                self._check(number)
            except (msgspec.MsgspecError, RecursionError) as error:
                self._entries.append(RequestEntry())
                self.refuse(number, "", f"cannot be read: {error}", "bad_input")

    def refuse(self, number: int, place: str, message: str, code: str = "not_supported") -> None:
        """Refuse an entry. `place`: the path of the wrong element in the entry; begins with a point."""
        problem = {"index": number, "field": f"Bundle.entry[{number}]{place}", "message": message, "code": code}
        self.problems.setdefault(number, []).append(problem)

    def kind(self, number: int) -> str:
        """Return the type of the resource, "" without one."""
        resource = self._entries[number].resource
        return resource.resource_type if resource else ""

    def deletes(self, number: int) -> bool:
        return self._entries[number].request.get("method") == "DELETE"

    def _check(self, number: int) -> None:
        """Refuse an entry whose request is not supported."""
        request, kind = self._entries[number].request, self.kind(number)
        method, url = str(request.get("method", "")), str(request.get("url", ""))
        if not request:
            self.refuse(number, ".request", "is missing.", "required")
        elif method == "DELETE":
            if not WITHDRAWAL.fullmatch(url):
                self.refuse(number, ".request.url", "only Observation/ID and DiagnosticReport/ID can be withdrawn.")
        elif method != "POST":
            self.refuse(number, ".request.method", f"{method[:20]} is not supported; POST and DELETE are.")
        elif not kind:
            self.refuse(number, ".resource", "is missing.", "required")
        elif url.strip("/") != kind:
            self.refuse(number, ".request.url", "must be the type of the resource.", "bad_input")
        for name in CONDITIONS:
            if name in request:
                self.refuse(number, f".request.{name}", "is not supported.")
        if asked := str(request.get("ifNoneExist", "")):
            pairs = parse_qsl(asked.rpartition("?")[2], keep_blank_values=True)
            if [name for name, _ in pairs] == ["identifier"]:
                self.conditions[number] = pairs[0][1].strip("|")
            else:
                self.refuse(number, ".request.ifNoneExist", "only identifier=system|value is supported.")

    def bundle(self) -> bytes:
        """Return a Bundle of the entries that are still to be stored, each at its place."""
        left = (b"{}" if i in self.problems or self.responses[i] else bytes(text) for i, text in enumerate(self.texts))
        return b'{"resourceType":"Bundle","type":"batch","entry":[' + b",".join(left) + b"]}"

    def answer(
        self, number: int, status: int, location: str, warnings: Sequence[dict[str, Any]], done: str = "It was stored."
    ) -> None:
        response: dict[str, Any] = {"status": STATUSES[status]}
        if location:
            response["location"] = location
        if warnings:
            response["outcome"] = operation_outcome(200, done, "warning", warnings, "warning")
        self.responses[number] = response

    def finish(self) -> list[dict[str, Any]]:
        """Return the entries of the answer."""
        for number, problems in self.problems.items():
            outcome = operation_outcome(422, REFUSED, "refused", problems)
            self.responses[number] = {"status": STATUSES[422], "outcome": outcome}
        return [{"response": each} for each in self.responses]


ENTRIES_MAX, PARTS_MAX = 5_000, 400_000
PROBLEMS_MAX = 100  # reported for one transaction
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
    errors = {406: "The answer has no media type that `Accept` allows.", 422: "Rejected; each issue names its place."}
    others = {JSON: ref("FhirResource")}
    return Operation(summary, told, SENDERS, body, errors=errors, content=FHIR, others=others, **details)


ENTRIES = {"type": "array", "items": {}}  # each has its own answer, also one that is no object
IF_NONE_EXIST = (
    "If-None-Exist",
    TEXT,
    "`identifier=system|value`: store it only if nothing is stored with this identifier.",
)
LOCATION = ("Location", TEXT, "The resource's address at the browse API.")


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
        self.make_room(unpacked_size(file), held)
        body = file.read()
        if body.count(b",") > PARTS_MAX:
            raise TooLarge(f"The resource has more than {PARTS_MAX} parts; send it in parts.")
        try:
            found = msgspec.json.decode(body, type=Bundle)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BadInput(f"The body is not a FHIR resource in JSON: {error}") from error
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
            records_of(each.status).inc()
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
        answers = {201: "Stored.", 200: "It was stored already, or took the place of an earlier version."}
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
    """Raise Unprocessable, with all problems, if there are any and `atomic`."""
    if atomic and entries.problems:
        problems = [each for found in entries.problems.values() for each in found]
        raise Unprocessable("Nothing was stored, because something was refused.", errors=problems[:PROBLEMS_MAX])


def _find_existing(entries: Entries, heads: dict[int, ParsedRecord], intake: Intake) -> dict[int, int]:
    """Return the check-ups that make conditional creates unnecessary, by the places of their entries. Refuse
    conditions that name another resource. A check-up of another patient does not count as existing: the intake
    decides about it."""
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
    """Return the documents from which the locations of these check-ups' resources follow, by their ids."""
    if not checkup_ids:
        return {}
    columns = Checkup.id, User.subject, Checkup.results.cast("text"), Checkup.details.cast("text")
    found: Any = Checkup.select(*columns).join(User).where(Checkup.id.in_(checkup_ids)).tuples()
    documents: dict[int, Document] = {}
    for id_, subject, results, details in found:
        facts = {"results": decode_json(shown_results(results)), "details": decode_json(details or "null")}
        document = {"_id": id_, "subject": str(subject)}
        documents[id_] = document | {"observation_id": observation_ids(document | facts)}
    return documents


def _location(kind: str, number: str, document: Document) -> str:
    """Return the address of a resource that was stored; "" for those that are parts of others."""
    if kind == "Patient":
        return f"Patient/{document['subject']}"
    id_ = document["observation_id"](number) if kind == "Observation" else ""
    if id_:
        return f"Observation/{id_}"
    return f"DiagnosticReport/{document['_id']}" if kind in RESULTS else ""


FHIR_WRITE_VIEWS: dict[str, Any] = {
    "/fhir/": FhirBundleView,
    **{f"/fhir/{kind}/": FhirResultView.of(kind) for kind in RESULTS},
}
