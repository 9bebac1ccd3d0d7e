"""Upload of records, in any format; each record has its own result. Doctors list, correct and delete check-ups."""

import contextlib
import hashlib
import itertools
import os
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, Protocol

import bottle
import msgspec

# Loaded at start, not for the first such upload: code may be replaced under a running server.
import myhealth.intake.formats.fhir.reader
import myhealth.intake.formats.hl7v2.reader  # noqa: F401
from myhealth.audit.events import record_event
from myhealth.checkups import services
from myhealth.checkups.models import JSON_NAMES, OMITTED_NULLS
from myhealth.checkups.services import open_history
from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, TooLarge
from myhealth.examples import NAMES, named_layout
from myhealth.intake import corrections
from myhealth.intake.file_import import use_layout_of_machine
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.json_reader import PARTS_MAX, RECORD_MAX
from myhealth.intake.formats.registry import CSV, FORMATS, read_dump
from myhealth.intake.formats.source import GZIP_MAGIC, Source
from myhealth.intake.formats.tables.layout import GUESSED, ORDERS, Layout, dump_layout
from myhealth.intake.idempotency import Answer, once
from myhealth.intake.parsed_record import DECODER, DuplicateKeyDict, ParsedRecord
from myhealth.intake.pipeline import BATCH_RECORDS, Intake, Rollback, read_batches
from myhealth.intake.results import ImportSource, RecordResult
from myhealth.machines.services import register_machine
from wsgi.common.metrics import RECORDS
from wsgi.common.openapi import Operation, after_parameter, one_of
from wsgi.common.requests import CHUNK, QUICK_BODY_BYTES, SMALL_BODY_BYTES, header, read_body, read_json, spool_body
from wsgi.common.views import json_response, list_response, page_limit
from wsgi.upload_api.bulk_answer import UNKNOWN_USER, BulkAnswer
from wsgi.upload_api.context import UploadView, sent_file_name
from wsgi.upload_api.schemas import BULK_HEADERS
from wsgi.upload_api.users import LIMIT_QUERY, WRONG_PAGE

# The text of a batch: its records take some twenty times as much memory.
BATCH_CHARACTERS, ATOMIC_CHARACTERS = 2 * 1024 * 1024, 8 * 1024 * 1024
REVIEW_MAX_BYTES = 32 * 1024  # a note whose every character is escaped
REQUEST_MAX_S = 120  # from the first record to the last one; checked between records

BULK_ANSWERS = {
    201: ("At least one record was accepted.", "BulkAnswer"),
    200: ("All records that can be stored were stored already.", "BulkAnswer"),
    422: ("Every record was rejected.", "BulkAnswer"),
}
BODY_DESCRIPTION = "A record, a list of them, NDJSON, a machine-memory dump, FHIR R4, HL7 v2 or CSV; gzipped or not."
FURTHER = ("layout", "date_format", "timezone", "decimal", "patient")


def bulk_body(*json_schemas: str) -> dict[str, Any]:
    """Describe a body in any format; the JSON formats have schemas."""
    content: dict[str, Any] = {"application/json": {"schema": one_of(*json_schemas)}}
    for media_type in sorted({each.media_type for each in FORMATS}, reverse=True):
        content.setdefault(media_type, {"schema": {"type": "string"}})
    return {"description": BODY_DESCRIPTION, "content": content}


BULK_BODY = bulk_body("Record", "Records", "Dump", "FhirUpload")
# The address names the patient, so a record may leave it out.
PATIENT_BODY = bulk_body("PatientRecord", "PatientRecords", "PatientDump", "FhirUpload")
BULK_QUERY = (
    ("atomic", {"type": "boolean", "default": False}, "Store all records or none."),
    ("refused_file", {"type": "boolean", "default": False}, "Also return the rejected records, as they were sent."),
)
CHARSET = re.compile(r";\s*charset=\"?([\w.:-]{1,40})", re.IGNORECASE)
ZONE = {"type": "string", "minLength": 1, "maxLength": 100}
TABLE_QUERY = (
    ("layout", {"enum": [*NAMES]}, "What a table's columns mean; if not given, the machine's layout, or by names."),
    ("date_format", {"enum": [*ORDERS]}, "The order of day and month in a table."),
    ("decimal", {"enum": [".", ","]}, "The decimal separator of a table's numbers; a point, if nothing else is said."),
    ("timezone", ZONE, "The time zone of a table's times that have none, such as Asia/Kolkata."),
)
UNKNOWN = {404: UNKNOWN_USER}
REVIEWED = ("id", "revision", "reviewed_at", "reviewed_by", "review_note")
DOCTOR, SENDERS, REVIEWERS = ("doctor",), ("doctor", "technician"), ("doctor", "admin")
BEFORE_QUERY = after_parameter(type="integer", minimum=0, maximum=10**18 - 1)
REPLAYED = (
    "Idempotent-Replayed", {"const": "true"}, "Present if this is the earlier answer to the same `Idempotency-Key`."
)  # fmt: skip


def bulk(
    summary: str, roles: tuple[str, ...], body: dict[str, Any] | None = None, query: tuple[Any, ...] = ()
) -> Operation:
    return Operation(
        summary, BULK_ANSWERS, roles, body=body or BULK_BODY, query=(*BULK_QUERY, *TABLE_QUERY, *query),
        headers=BULK_HEADERS, sends=(REPLAYED,),
        errors={**UNKNOWN, 409: "The answer stored under the Idempotency-Key has just expired."},
    )  # fmt: skip


class Collector(Protocol):
    """Collects the results of an upload, batch by batch."""

    def add(self, parsed: Sequence[ParsedRecord], results: Sequence[RecordResult]) -> None: ...


class TakesRecords(UploadView):
    """Upload: read the body to a file, store its records batch by batch in one transaction, answer for each record."""

    def make_room(self, size: int, held: contextlib.ExitStack) -> None:
        """Keep a body of so many bytes from taking the threads and memory of others, until `held` ends. Raises Busy."""
        if size > QUICK_BODY_BYTES:
            held.enter_context(self.context.bodies.enter(self.user.id))
        if size > SMALL_BODY_BYTES:
            held.enter_context(self.context.large_bodies.enter())

    def take(self, *, machine: str = "", patient: str | None = None, as_dump: bool = False) -> Any:
        """Store the body and answer it. `machine`: the serial. `patient`: the patient of every record. `as_dump`: give
        records without a record_id a derived one, so that the same dump sent twice is stored once."""
        atomic, with_rejected = self.flag("atomic"), self.flag("refused_file")
        key = header("Idempotency-Key") if "HTTP_IDEMPOTENCY_KEY" in bottle.request.environ else None
        # one name for all spellings of the path: an unresolved rejection of the same source is not stored twice
        place = f"machines/{machine}/dumps" if as_dump else f"users/{patient}/checkups" if patient else "checkups"
        source = f"POST /{place}/"[:200]
        with contextlib.ExitStack() as held:
            body = held.enter_context(spool_body(self.context.settings.upload.max_body_bytes))
            self.make_room(unpacked_size(body), held)
            if key is not None:
                further = {name: self.parameters[name] for name in FURTHER if name in self.parameters}
                digest = _digest(body, source, str(atomic), str(with_rejected), *map(str, further.items()))
            is_table = header("Content-Type").startswith(CSV.media_type)
            layout = self.asked_layout(is_table=is_table) if is_table or self.parameters else GUESSED
            bulk = BulkAnswer(self.opened(body, machine, patient, layout, is_table=is_table), with_rejected)

            named = f"{source} {name}"[:200] if (name := sent_file_name()) else source

            def work() -> Answer:
                self._store(bulk.dump, named, patient, as_dump, atomic, bulk)
                return bulk.finish()

            answer = work() if key is None else once(self.user.id, key, digest, work)
            if answer.replayed and with_rejected:  # the kept answer has no rejected record, but the request has
                bulk.collect_rejected(self._records(bulk.dump), answer)
        counted = {"replayed": 1} if answer.replayed else bulk.counts
        for outcome in filter(counted.get, counted):
            RECORDS.labels(outcome).inc(counted[outcome])
        headers = {"Idempotent-Replayed": "true"} if answer.replayed else None
        return json_response(bulk.with_file(answer), answer.status, headers=headers)

    def asked_layout(self, *, is_table: bool) -> Layout:
        """Return the layout of a table that the request names, with the parts that it gives. Raises BadInput."""
        charset = CHARSET.search(header("Content-Type")) if is_table else None
        given = {"encoding": charset and charset[1], "zone": self.parameters.get("timezone")}
        given |= {part: self.parameters.get(part) for part in ("date_format", "decimal")}
        return named_layout(self.parameters.get("layout"), **given)

    def opened(self, body: BinaryIO, machine: str, patient: str | None, layout: Layout, *, is_table: bool) -> Dump:
        """Open an upload; a table without a layout has that of its machine. Raises BadInput."""
        most, known, name = (
            self.context.settings.upload.max_body_bytes,
            patient is not None,
            CSV.name if is_table else "",
        )
        dump = read_dump(body, format=name, machine=machine, max_bytes=most, layout=layout, patient_given=known)
        if dump.format is CSV:
            use_layout_of_machine(dump)
        return dump

    def _records(self, dump: Dump) -> Iterator[ParsedRecord]:
        """Return the records. Raises BadInput if the body cannot be read or has no record, TooLarge if it has too many
        or takes too long."""
        records_max, deadline = self.context.settings.upload.max_records, time.monotonic() + REQUEST_MAX_S
        count = 0
        for count, parsed in enumerate(dump.records, 1):
            if count > records_max:
                raise TooLarge(f"The body has more than {records_max} records; send them in parts.")
            if time.monotonic() > deadline:
                raise TooLarge(f"It took more than {REQUEST_MAX_S} s, so nothing was stored; send it in parts.")
            yield parsed
        if not count and not dump.skipped:
            raise BadInput("The body holds no record.", code="no_records")

    def _store(
        self,
        dump: Dump,
        source: str,
        patient: str | None,
        as_dump: bool,
        atomic: bool,
        answer: Collector,
        *,
        dry_run: bool = False,
    ) -> None:
        """Store the records in one transaction: if the body turns out to be broken further on, nothing is stored."""
        intake = self.intake(dump, source, patient, as_dump, dry_run=dry_run)
        most = self.context.settings.upload.max_records + 1
        limits = (ATOMIC_CHARACTERS, most) if atomic else (BATCH_CHARACTERS, BATCH_RECORDS)
        batches = read_batches(self._records(dump), *limits)
        ahead = deque(itertools.islice(batches, 2))
        if dump.format is CSV:
            intake.origin.layout = dump_layout(dump.layout)  # with what its first rows told
        if atomic and len(ahead) > 1:
            raise TooLarge(f"An all-or-nothing request has at most {ATOMIC_CHARACTERS} characters of records.")
        if len(ahead) < 2 and not dump.describes_machine:
            first = ahead[0] if ahead else []
            answer.add(first, intake.store_batch(first, atomic=atomic))
            return
        with contextlib.suppress(Rollback), transaction():
            if dump.describes_machine:
                register_machine(**dump.machine)
            while batch := ahead.popleft() if ahead else next(batches, None):
                answer.add(batch, intake.store_batch(batch, atomic=atomic))
            if dry_run:
                raise Rollback

    def intake(
        self, dump: Dump, source: str, patient: str | None = None, as_dump: bool = False, *, dry_run: bool = False
    ) -> Intake:
        """Return the Intake that stores the records of this upload."""
        derive_ids = as_dump or dump.format.has_record_numbers
        origin = ImportSource(source, dump.serial, dump.format.name, derive_ids=derive_ids, patient=patient)
        origin.names_fields, origin.log_upload, origin.user_id = self.user.role == "doctor", True, self.user.id
        origin.own_authorities = self.context.settings.intake.folded_authorities
        origin.dry_run = dry_run
        return Intake(origin, dump.people)


class CheckupsView(TakesRecords):
    @Operation(
        "List check-ups, the newest first", {200: ("Check-ups.", ["Checkup"])}, DOCTOR,
        query=(LIMIT_QUERY, BEFORE_QUERY), errors=WRONG_PAGE,
    )  # fmt: skip
    def get(self) -> Any:
        limit, before = page_limit(self.parameters), id_after(self.parameters.get("after"))
        found = services.list_checkups(before=before, limit=limit + 1)
        others = {(row["patient_id"], row["username"]) for row in found[:limit]} - {(self.user.id, self.user.username)}
        for patient_id, username in others:
            record_event("read", subject_id=patient_id, subject=username, what="checkups")
        return list_response([public(row) for row in found], limit, _cursor_of)

    @bulk("Upload records", SENDERS)
    def post(self) -> Any:
        return self.take()


class UserCheckupsView(TakesRecords):
    unknown_user = UNKNOWN_USER

    @Operation(
        "List a patient's check-ups, the newest first", {200: ("Check-ups.", ["Checkup"])},
        "the patient, doctor", query=(LIMIT_QUERY, BEFORE_QUERY), errors={**UNKNOWN, **WRONG_PAGE},
    )  # fmt: skip
    def get(self, username: str) -> Any:
        patient = self.person(username, "doctor")
        limit, before = page_limit(self.parameters), id_after(self.parameters.get("after"))
        found = services.list_checkups(patient_id=patient.id, before=before, limit=limit + 1)
        self.record_read(patient, "checkups")
        return list_response([public(row) for row in found], limit, _cursor_of)

    @bulk("Upload records of one patient", SENDERS, PATIENT_BODY)
    def post(self, username: str) -> Any:
        return self.take(patient=self.person(username, *SENDERS).username)


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
    """The earlier versions of a check-up."""

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


def _digest(body: BinaryIO, *marks: str) -> bytes:
    """Return the digest of a request: of the marks and the body, which it leaves at its beginning."""
    digest = hashlib.sha256(b"\0".join([*map(str.encode, marks), b""]))
    while part := body.read(CHUNK):
        digest.update(part)
    body.seek(0)
    return digest.digest()


def unpacked_size(body: BinaryIO) -> int:
    """Return the bytes of a body, unpacked if it is a gzip file; of a large one, any number over SMALL_BODY_BYTES.
    Leave the body at its beginning."""
    size = body.seek(0, os.SEEK_END)
    body.seek(0)
    try:
        if size > SMALL_BODY_BYTES or body.read(len(GZIP_MAGIC)) != GZIP_MAGIC:
            return size
        body.seek(0)
        return len(Source(body).head(SMALL_BODY_BYTES + 1))
    except BadInput:  # damaged: the reader will report it
        return size
    finally:
        body.seek(0)


def public(row: dict[str, Any]) -> dict[str, Any]:
    """Return a check-up for an answer; its JSON is PostgreSQL's own text, so that no digit changes."""
    shown = {
        name: msgspec.Raw(value.encode()) if name in JSON_NAMES and value is not None else value
        for name, value in row.items()
        if name != "patient_id" and (value is not None or name not in OMITTED_NULLS)
    }
    return shown | {"taken_at": None} if row["taken_precision"] == "unknown" else shown  # the stored one only sorts


def _cursor_of(row: dict[str, Any]) -> str:
    return str(row["id"])


def id_after(text: str | None) -> int | None:
    """Parse the parameter `after` of a list of numbered rows, the newest first. Raises BadInput."""
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise BadInput("after must be the value that a Link header gave.")
    return int(text)


def id_in_range(checkup_id: int) -> int:
    """Return the id, or -1, which no check-up has, if it is beyond PostgreSQL's bigint."""
    return checkup_id if checkup_id < 2**63 else -1
