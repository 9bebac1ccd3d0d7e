"""Upload of records, in any format, and its answer: a result for each record, of bounded length."""

import contextlib
import hashlib
import itertools
import json
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO
from urllib.parse import unquote

import bottle
import msgspec

# Loaded at start, not for the first such upload: code may be replaced under a running server.
import myhealth.intake.formats.fhir.reader
import myhealth.intake.formats.hl7v2.reader  # noqa: F401
from myhealth.audit.events import record_event
from myhealth.checkups.services import list_checkups
from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, TooLarge
from myhealth.common.text import printable
from myhealth.examples import named_layout
from myhealth.intake.file_import import use_layout_of_machine
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.registry import CSV, read_dump
from myhealth.intake.formats.source import GZIP_MAGIC, Source
from myhealth.intake.formats.tables.layout import GUESSED, Layout, dump_layout
from myhealth.intake.idempotency import Answer, once
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.pipeline import BATCH_RECORDS, Intake, Rollback, read_batches
from myhealth.intake.results import ERASED, ImportSource, RecordResult, counts
from myhealth.machines.services import register_machine
from myhealth.reports.documents import encode_json
from wsgi.common.application import error_body
from wsgi.common.metrics import records_of
from wsgi.common.openapi import Operation
from wsgi.common.requests import CHUNK, QUICK_BODY_BYTES, SMALL_BODY_BYTES, header, spool_body
from wsgi.common.views import json_response, list_response
from wsgi.upload_api.checkups import public
from wsgi.upload_api.context import UploadView
from wsgi.upload_api.schemas import (
    BEFORE_QUERY,
    LIMIT_QUERY,
    PATIENT_BODY,
    SENDERS,
    UNKNOWN,
    UNKNOWN_USER,
    USERNAME,
    WRONG_PAGE,
    bulk,
)

# The text of a batch: its records take some twenty times as much memory.
BATCH_CHARACTERS, ATOMIC_CHARACTERS = 2 * 1024 * 1024, 8 * 1024 * 1024
REQUEST_MAX_S = 120  # from the first record to the last one; checked between records

FURTHER = ("layout", "date_format", "timezone", "decimal", "patient")
PATIENT_QUERY = (("patient", USERNAME, "The username of every record's patient, if the source names none."),)
FILE_NAME = re.compile(r"filename\*=UTF-8''([^;\s]+)", re.IGNORECASE)  # Content-Disposition, RFC 8187
CHARSET = re.compile(r";\s*charset=\"?([\w.:-]{1,40})", re.IGNORECASE)

# The bytes of all items. The shortest item has 51, so the items of 100,000 records fit.
ITEMS_MAX_BYTES = 5_200_000
DETAILS_MAX_BYTES = 2_500_000  # the items with errors or warnings among them
REJECTED_FILE_MAX_BYTES = 2_000_000
PLAIN = b',"effect":"%s","errors":[],"rejection_id":null}'  # the rest of the item of a record without errors
ALREADY = "Every record that could be stored was stored already."
NO_RECORD = "There is no record in it."
NOTHING_WITHDRAWN = "What was to be withdrawn is not stored here."
NOT_LISTED = " The errors of {} more are not listed; `myhealth rejections` shows them, or send these alone."
NOT_IN_FILE = " {} more are not in refused_file."


class BulkAnswer:
    """Collect the results of an upload, batch by batch. `with_rejected`: answer with the rejected records too.

    All items have `index`, `status` and `id`. If all items together are too large, the last ones lack the other names;
    items of accepted and duplicate records lose them first.
    """

    def __init__(self, dump: Dump, with_rejected: bool) -> None:
        self.dump = dump
        self._with_rejected = with_rejected
        self.counts = counts([])
        self._short: list[bytes] = []
        self._effects: list[bytes] = []
        self._detailed: dict[int, bytes] = {}
        self._details_bytes = 0
        self._first: RecordResult | None = None
        self._unknown = 0  # withdrawals of what is not stored
        self._file: list[bytes] = []
        self._file_bytes = self._not_in_file = 0

    def add(self, parsed: Sequence[ParsedRecord], results: Sequence[RecordResult]) -> None:
        for record, result in zip(parsed, results, strict=True):
            self._first = self._first or result
            self.counts[result.status] += 1
            short = {"index": result.index, "status": result.status, "id": result.id}
            self._short.append(encode_json(short))
            self._effects.append(result.effect.encode())
            if result.errors or result.warnings:
                self._unknown += any(warning.get("code") == "not_stored" for warning in result.warnings)
                self._add_detailed(record, result)
            if result.errors and self._with_rejected:
                self._add_rejected(record)

    def _add_detailed(self, record: ParsedRecord, result: RecordResult) -> None:
        if self._details_bytes < DETAILS_MAX_BYTES:
            encoded = encode_json(item_of(record, result))
            self._details_bytes += len(encoded)
            self._detailed[len(self._short) - 1] = encoded

    def _add_rejected(self, record: ParsedRecord) -> None:
        raw = self.dump.format.write_rejected(self.dump).encode(record)
        size = len(encode_json(raw.decode("utf-8", "replace")))
        if self._file_bytes + size > REJECTED_FILE_MAX_BYTES:
            self._not_in_file += 1
        else:
            self._file_bytes += size
            self._file.append(raw)

    def finish(self) -> Answer:
        """Return the answer, as JSON, without the rejected records."""
        if (
            self.dump.format.is_single
            and self._first
            and self._first.errors
            and any(error.get("code") == "unknown_user" for error in self._first.errors)
        ):
            # not an exception: under an Idempotency-Key it would roll back the storing of the rejected record
            body = error_body(UNKNOWN_USER, "unknown_user", self._first.errors)
            return Answer(404, body.decode(), lasting=False)
        found = self.counts
        if found["accepted"]:
            status, details = 201, "User checkup created…"
        elif found["rejected"] and not found["duplicate"]:
            status, details = 422, "No record was stored; each has its errors in items."
        elif not self._short:
            status, details = 200, NO_RECORD
        else:
            status, details = 200, NOTHING_WITHDRAWN if self._unknown == len(self._short) else ALREADY
        items, shortened = self._items()
        details += NOT_LISTED.format(shortened) if shortened else ""
        details += NOT_IN_FILE.format(self._not_in_file) if self._not_in_file else ""
        answer: dict[str, Any] = {"details": details, **found, "items": msgspec.Raw(items)}
        if self.dump.skipped:
            answer["skipped"] = dict(self.dump.skipped.most_common(100))
        if self.dump.notices:
            answer["notices"] = self.dump.notices[:100]
        return Answer(status, encode_json(answer).decode(), lasting=found["accepted"] > 0)

    def collect_rejected(self, records: Iterable[ParsedRecord], earlier: Answer) -> None:
        """Collect the rejected records of the same request as they came; those that were erased since are left out."""
        for record, item in zip(records, json.loads(earlier.body)["items"], strict=False):
            erased = any(error.get("code") == ERASED for error in item.get("errors", ()))
            if item["status"] == "rejected" and not erased:
                self._add_rejected(record)

    def with_file(self, answer: Answer) -> str:
        """Return the JSON of an answer with the rejected records; they are not kept with it."""
        layout = self.dump.format.write_rejected(self.dump)
        file = layout.before + layout.between.join(self._file) + layout.after if self._file else b""
        return f'{answer.body[:-1]},"refused_file":{encode_json(file.decode("utf-8", "replace")).decode()}}}'

    def _items(self) -> tuple[bytes, int]:
        """Return the list of all items, and the number of rejected ones without their errors."""
        items = self._short
        room = ITEMS_MAX_BYTES - sum(map(len, items)) - len(items)
        shortened = self.counts["rejected"]
        for place, encoded in self._detailed.items():
            room -= len(encoded) - len(items[place])
            if room < 0:
                break
            shortened -= b'"status":"rejected"' in encoded[:60]
            items[place] = encoded
        for place, short in enumerate(items if room > 0 else []):
            if place not in self._detailed and b'"rejected"' not in short:
                rest = PLAIN % self._effects[place]
                room -= len(rest)
                if room < 0:
                    break
                items[place] = short[:-1] + rest
        return b"[" + b",".join(items) + b"]", shortened


def item_of(parsed: ParsedRecord, result: RecordResult) -> dict[str, Any]:
    """Return the result of a record; with errors or warnings, also its place in the body and its record_id."""
    item: dict[str, Any] = {
        "index": result.index,
        "status": result.status,
        "id": result.id,
        "effect": result.effect,
        "errors": result.errors,
        "rejection_id": result.rejection_id,
    }
    if result.warnings:
        item["warnings"] = result.warnings
    if result.errors or result.warnings:
        record = parsed.decoded()
        record_id = record.get("record_id") if isinstance(record, dict) else None
        number = str(record_id)[:200] if type(record_id) in (str, int) else None
        item |= {"line": parsed.line, "record_id": number}
    return item


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
            sent = held.enter_context(spool_body(self.context.settings.upload.max_body_bytes))
            self.make_room(unpacked_size(sent), held)
            if key is not None:
                further = {name: self.parameters[name] for name in FURTHER if name in self.parameters}
                digest = _digest(sent, source, str(atomic), str(with_rejected), *map(str, further.items()))
            is_table = header("Content-Type").startswith(CSV.media_type)
            layout = self.asked_layout(is_table=is_table) if is_table or self.parameters else GUESSED
            bulk = BulkAnswer(self.opened(sent, machine, patient, layout, is_table=is_table), with_rejected)

            found = FILE_NAME.search(header("Content-Disposition"))
            named = f"{source} {name}"[:200] if found and (name := printable(unquote(found[1]))) else source

            def work() -> Answer:
                self.store_records(bulk.dump, self.intake(bulk.dump, named, patient, as_dump), bulk.add, atomic)
                return bulk.finish()

            answer = work() if key is None else once(self.user.id, key, digest, work)
            if answer.replayed and with_rejected:  # the kept answer has no rejected record, but the request has
                bulk.collect_rejected(self._records(bulk.dump), answer)
        counted = {"replayed": 1} if answer.replayed else bulk.counts
        for outcome in filter(counted.get, counted):
            records_of(outcome).inc(counted[outcome])
        headers = {"Idempotent-Replayed": "true"} if answer.replayed else None
        body = bulk.with_file(answer) if with_rejected and answer.status != 404 else answer.body
        return json_response(body, answer.status, headers=headers)

    def asked_layout(self, *, is_table: bool) -> Layout:
        """Return the layout of a table that the request names, with the parts that it gives. Raises BadInput."""
        charset = CHARSET.search(header("Content-Type")) if is_table else None
        given = {"encoding": charset and charset[1], "zone": self.parameters.get("timezone")}
        given |= {part: self.parameters.get(part) for part in ("date_format", "decimal")}
        return named_layout(self.parameters.get("layout"), **given)

    def opened(self, body: BinaryIO, machine: str, patient: str | None, layout: Layout, *, is_table: bool) -> Dump:
        """Open an upload; a table without a layout has that of its machine. Raises BadInput."""
        most, known = self.context.settings.upload.max_body_bytes, patient is not None
        name = CSV.name if is_table else ""
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

    def store_records(
        self,
        dump: Dump,
        intake: Intake,
        add: Callable[[Sequence[ParsedRecord], Sequence[RecordResult]], object],
        atomic: bool = False,
    ) -> None:
        """Store the records in one transaction: if the body turns out to be broken further on, nothing is stored.
        `add` gets the results, batch by batch."""
        most = self.context.settings.upload.max_records + 1
        limits = (ATOMIC_CHARACTERS, most) if atomic else (BATCH_CHARACTERS, BATCH_RECORDS)
        batches = read_batches(self._records(dump), *limits)
        ahead = deque(itertools.islice(batches, 2))
        if dump.format is CSV:
            intake.origin.layout = dump_layout(dump.layout)  # with what its first rows told
        if atomic and len(ahead) > 1:
            raise TooLarge(f"An all-or-nothing request has at most {ATOMIC_CHARACTERS} characters of records.")
        describes_machine = len(dump.machine) > 1
        if len(ahead) < 2 and not describes_machine:
            first = ahead[0] if ahead else []
            add(first, intake.store_batch(first, atomic=atomic))
            return
        with contextlib.suppress(Rollback), transaction():
            if describes_machine:
                register_machine(**dump.machine)
            while batch := ahead.popleft() if ahead else next(batches, None):
                add(batch, intake.store_batch(batch, atomic=atomic))
            if intake.origin.dry_run:
                raise Rollback

    def intake(
        self, dump: Dump, source: str, patient: str | None = None, as_dump: bool = False, *, dry_run: bool = False
    ) -> Intake:
        """Return the Intake that stores the records of this upload."""
        derive_ids = as_dump or dump.format.has_record_numbers
        serial = dump.machine.get("serial")
        origin = ImportSource(source, serial, dump.format.name, derive_ids=derive_ids, patient=patient)
        origin.names_fields, origin.log_upload, origin.user_id = self.user.role == "doctor", True, self.user.id
        origin.own_authorities = self.context.settings.intake.folded_authorities
        origin.dry_run = dry_run
        return Intake(origin, dump.people)


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


class CheckupsView(TakesRecords):
    @Operation(
        "List check-ups, the newest first", {200: ("Check-ups.", ["Checkup"])}, ("doctor",),
        query=(LIMIT_QUERY, BEFORE_QUERY), errors=WRONG_PAGE,
    )  # fmt: skip
    def get(self) -> Any:
        limit, before = self.numbered_page()
        found = list_checkups(before=before, limit=limit + 1)
        others = {(row["patient_id"], row["username"]) for row in found[:limit]} - {(self.user.id, self.user.username)}
        for patient_id, username in others:
            record_event("read", subject_id=patient_id, subject=username, what="checkups")
        return list_response([public(row) for row in found], limit)

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
        limit, before = self.numbered_page()
        found = list_checkups(patient_id=patient.id, before=before, limit=limit + 1)
        self.record_read(patient, "checkups")
        return list_response([public(row) for row in found], limit)

    @bulk("Upload records of one patient", SENDERS, PATIENT_BODY)
    def post(self, username: str) -> Any:
        return self.take(patient=self.person(username, *SENDERS).username)


class DumpsView(TakesRecords):
    @bulk("Upload a machine-memory dump or a table as the machine made it", ("technician",), query=PATIENT_QUERY)
    def post(self, serial: str) -> Any:
        patient = self.parameters.get("patient")
        if patient is not None:
            patient = self.person(patient, *SENDERS).username
        return self.take(machine=serial, patient=patient, as_dump=True)
