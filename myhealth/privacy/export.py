"""Export everything that is held on a person: a zip of readable JSON, and of the reports as FHIR R4 Bundles.

Raw SQL: whole rows as JSON, so that a new column is exported too. Digests and the password's hash are not: they say
nothing that a person can read.
"""

import contextlib
import itertools
import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from myhealth.audit.events import current_actor, record_event
from myhealth.common.database import database, transaction
from myhealth.common.errors import BadInput
from myhealth.privacy.erasure import Mentions, find_rejections, find_spellings
from myhealth.profiles.held_names import BY_NAME, find_held_names
from myhealth.profiles.identifiers import list_identifiers
from myhealth.profiles.models import User
from myhealth.reports.access_log import Access, AccessEvent
from myhealth.reports.documents import Document, encode_json
from myhealth.reports.export.fhir import fhir_bundle
from myhealth.reports.repository import ReportRepository

BUNDLE_REPORTS = 200
# The files of the zip: one of each table that holds a person's data.
QUERIES = {
    "users": "select to_jsonb(t) - '{password_hash,changed_in}'::text[] from users t where id = %(id)s",
    "patient_identifiers": "select to_jsonb(t) from patient_identifiers t where patient_id = %(id)s order by t.id",
    "checkups": "select to_jsonb(t) || jsonb_build_object('machine', serial, 'reviewer', reviewer.username)"
    " - 'changed_in' from checkups t left join machines on machines.id = machine_id"
    " left join users reviewer on reviewer.id = reviewed_by where patient_id = %(id)s order by t.id",
    "checkup_versions": "select to_jsonb(t) from checkup_versions t join checkups on checkups.id = checkup_id"
    " where patient_id = %(id)s order by checkup_id, t.revision",
    "superseded": "select to_jsonb(t) - 'digest' from superseded t where patient_id = %(id)s order by checkup_id",
    "rejections": "select to_jsonb(t) - 'digest' from rejections t where id = any(%(rejections)s) order by id",
    "idempotency_keys": "select to_jsonb(t) - 'request' from idempotency_keys t where user_id = %(id)s order by key",
    "invitations": "select to_jsonb(t) - 'digest' from invitations t where user_id = %(id)s",
    "login_attempts": "select to_jsonb(t) from login_attempts t where user_id = %(id)s or (user_id is null and"
    f" {BY_NAME.format('username')}) order by id",
    "audit_events": "select case when is_subject then to_jsonb(t)"
    " else to_jsonb(t) - '{subject,subject_id,details}'::text[] end from audit_events t, lateral (select"
    f" coalesce(subject_id = %(id)s, {BY_NAME.format('subject')}) as is_subject,"
    f" coalesce(actor_id = %(id)s, {BY_NAME.format('actor')}) as is_actor) as role where is_subject or is_actor"
    " order by id",
}


def export_user(user: User, reports: ReportRepository, path: Path) -> dict[str, int]:
    """Write the zip; return how many rows each file of it has. `audit_events` and `access_log` list who read or changed
    what, in either store. For the person's own acts they omit whose record it was.

    Only our system account may read the file. Raises BadInput if it exists or cannot be written, and Unavailable.
    """
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"))
            incomplete = contextlib.ExitStack()
            incomplete.callback(path.unlink)
            with incomplete, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                record_event("read", subject_id=user.id, subject=user.username, what="export")
                counts = {**_write_rows(archive, user), **_write_reports(archive, user, reports)}
                incomplete.pop_all()
        except FileExistsError:
            raise BadInput(f"{path} is there already; name another file with --output") from None
        except OSError as error:
            raise BadInput(f"{path} cannot be written: {error.strerror or error}") from error
    return counts


def _write_rows(archive: zipfile.ZipFile, user: User) -> dict[str, int]:
    with transaction() as cursor:
        held = find_held_names(cursor, user)
        mentions = Mentions(held, held, list_identifiers(user))
        rejections = find_rejections(cursor, mentions).certain
        values = {"id": user.id, "rejections": rejections, **find_spellings(cursor, mentions)}
        return {table: _write_list(archive, f"{table}.json", _json_rows(sql, values)) for table, sql in QUERIES.items()}


def _json_rows(sql: str, values: dict[str, Any]) -> Iterator[bytes]:
    """Yield each row as PostgreSQL's own JSON, which keeps all digits of a number, in bounded memory."""
    with database.connection().cursor(name="export", withhold=True) as cursor:
        cursor.execute(f"select jsonb_pretty(row) from ({sql}) as rows (row)", values)
        for (text,) in cursor:
            yield text.encode()


def _write_reports(archive: zipfile.ZipFile, user: User, reports: ReportRepository) -> dict[str, int]:
    patient = reports.people.get(str(user.subject))
    if patient is None:  # the sync has not been there yet
        return {"reports": 0, "access_log": 0}
    reports.access_log.log(Access.by_operator(current_actor().name or "", patient, "export"))
    events = map(msgspec.json.format, map(encode_json, _access_events(reports, patient)))
    seen = _write_list(archive, "access_log.json", events)
    written, found = 0, reports.iterate(patient)
    for number, page in enumerate(iter(lambda: [*itertools.islice(found, BUNDLE_REPORTS)], []), 1):
        archive.writestr(f"fhir/{number:04}.json", msgspec.json.format(encode_json(fhir_bundle(page, patient))))
        written += len(page)
    return {"reports": written, "access_log": seen}


def _access_events(reports: ReportRepository, person: Document) -> Iterator[AccessEvent]:
    for event in reports.access_log.find_of_person(person):
        is_own = event.actor_subject == person["subject"]
        yield replace(event, username=None, patient_id=None, report_id=None) if is_own else event


def _write_list(archive: zipfile.ZipFile, name: str, rows: Iterable[bytes]) -> int:
    count = 0
    with archive.open(name, "w") as file:
        file.write(b"[")
        for count, row in enumerate(rows, 1):
            file.write((b"\n" if count == 1 else b",\n") + row)
        file.write(b"\n]\n")
    return count
