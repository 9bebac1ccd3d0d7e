"""Read and review check-ups in the source of truth, and keep their earlier versions, each whole.

No function returns what its source withdrew. A review says that a person has looked at the results, with a note for the
patient.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import peewee
from peewee import JOIN

from myhealth.audit.events import current_actor, event_values, insert_events, record_event
from myhealth.checkups.models import RECORD_COLUMNS, REVIEW, SHOWN_COLUMNS, Checkup, CheckupVersion, select_fields
from myhealth.clinical.status import WITHDRAWN, shown_results
from myhealth.common.database import database, fetch_all, transaction
from myhealth.common.decoding import whole_number
from myhealth.common.errors import BadInput, Conflict, NotFound
from myhealth.machines.models import Machine
from myhealth.machines.services import mapped_code
from myhealth.profiles.models import User


def list_checkups(*, patient_id: int | None = None, before: int | None = None, limit: int) -> list[dict[str, Any]]:
    """Return at most `limit` check-ups, the newest id first, each as `get_checkup` does. `before`: only ids below
    it."""
    query = _select().order_by(Checkup.id.desc()).limit(limit)
    if patient_id is not None:
        query = query.where(Checkup.patient == patient_id)
    if before is not None:
        query = query.where(Checkup.id < before)
    with transaction():
        return [_with_shown_results(row) for row in query.dicts()]


UNCODED_COLUMNS = ("machine", "name", "unit", "other_code", "results")
# Raw SQL: results are JSON, and another program may have stored any.
UNCODED = """
select coalesce(serial, ''), coalesce(result->>'name', ''), coalesce(result->>'unit', result->>'unit_text', ''),
    coalesce(result->>'other_code', ''), count(*)
from checkups left join machines on machines.id = machine_id
cross join jsonb_path_query(results, '$[*] ? (@.type() == "object")') as result
where coalesce(result->>'code', '') = '' and status is distinct from %s and (%s::text is null or serial = %s)
group by 1, 2, 3, 4 order by 1, 5 desc, 2, 3, 4"""


def list_uncoded_tests(serial: str | None = None) -> list[dict[str, Any]]:
    """Return the tests of check-ups whose results have no LOINC code and get none by their machine's codes, the most
    frequent of a machine first: `machine`, `name`, `unit`, `other_code` (the source's), and the number of `results`.
    `serial`: only of this machine."""
    with transaction() as cursor:
        found = fetch_all(cursor, UNCODED, (WITHDRAWN, serial, serial))
        codes = {machine.serial: machine.codes for machine in Machine.select().where(Machine.codes.is_null(False))}
    rows = [dict(zip(UNCODED_COLUMNS, row, strict=True)) for row in found]
    return [row for row in rows if mapped_code(codes.get(row["machine"], {}), row) is None]


# Raw SQL: a search within JSON. To write a row as it is moves it to the end of the feed.
SEND_AGAIN = """
update checkups set machine_id = machine_id where machine_id = (select id from machines where serial = %(serial)s)
and (results @> jsonb_build_array(jsonb_build_object('name', %(test)s::text))
     or results @> jsonb_build_array(jsonb_build_object('other_code', %(test)s::text)))"""


def send_again(serial: str, test: str) -> int:
    """Let the sync make the reports again that contain a test of a machine; return their number.

    Call it when the machine's new codes are committed: a check-up that is stored meanwhile gets them by itself.
    """
    with transaction() as cursor:
        cursor.execute(SEND_AGAIN, {"serial": serial, "test": test})
        return int(cursor.rowcount)


def get_checkup(patient_id: int, checkup_id: int, *, withdrawn: bool = False) -> dict[str, Any]:
    """Return one check-up of this patient by column name, with the patient's `username` and the serial as `machine`.
    `results` is JSON text. `withdrawn`: also one that was withdrawn. Raises NotFound, also for a check-up of another
    patient."""
    with transaction():
        rows = _select(withdrawn=withdrawn).where(Checkup.id == checkup_id, Checkup.patient == patient_id)
        found = rows.dicts().first()
    if found is None:
        raise NotFound("There is no such check-up.", code="unknown_checkup")
    return _with_shown_results(found)


def _select(*, withdrawn: bool = False) -> Any:
    return (
        Checkup.select(
            Checkup.id,
            User.username,
            Machine.serial.alias("machine"),
            *select_fields(
                (*(column.name for column in SHOWN_COLUMNS), "created_at", "updated_at", "revision", "patient_id")
            ),
        )
        .join(User)
        .switch(Checkup)
        .join(Machine, peewee.JOIN.LEFT_OUTER)
        .where(peewee.Value(withdrawn) | Checkup.status.is_null() | (Checkup.status != WITHDRAWN))
    )


def _with_shown_results(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "results": shown_results(row["results"])}


def record_changes(action: str, changes: Sequence[tuple[int, int, dict[str, Any]]]) -> None:
    """Add an audit event of each change, within the caller's transaction. `changes`: the check-up's id, its patient's
    id and the details."""
    patients = User.select(User.id, User.username).where(User.id.in_([patient_id for _, patient_id, _ in changes]))
    names = {each.id: each.username for each in patients}
    insert_events([
        event_values(action, {"checkup": id_, **details}, current_actor(), patient_id, names.get(patient_id))
        for id_, patient_id, details in changes
    ])  # fmt: skip


NOTE_MAX = 2000  # characters


def review_checkup(patient_id: int, checkup_id: int, note: Any = None, revision: Any = None) -> dict[str, Any]:
    """Store the caller's review in place of an earlier one, and return the check-up.

    `note`: for the patient; blank or None: no note. `revision`, if given, must be the stored one. Raises NotFound,
    BadInput, Conflict (code `changed_meanwhile`).
    """
    text = "" if note is None else note
    if not isinstance(text, str) or len(text) > NOTE_MAX or "\0" in text:
        raise BadInput(f"note must be text of at most {NOTE_MAX} characters, without NUL.")
    revision = whole_number(revision)
    if revision is not None and type(revision) is not int:
        raise BadInput("revision must be a number.")
    by = {"reviewed_at": datetime.now(UTC), "reviewed_by": current_actor().id, "review_note": text.strip() or None}
    return _store(patient_id, checkup_id, by, revision)


def withdraw_review(patient_id: int, checkup_id: int) -> None:
    """Remove the review with its note. Raises NotFound."""
    nothing = {"reviewed_at": None, "reviewed_by": None, "review_note": None}
    _store(patient_id, checkup_id, nothing, None)


def _store(patient_id: int, checkup_id: int, values: dict[str, Any], revision: int | None) -> dict[str, Any]:
    with transaction():
        Checkup.select(Checkup.id).where(Checkup.id == checkup_id).for_update().execute()
        found = get_checkup(patient_id, checkup_id)["revision"]
        if revision not in (None, found):
            message = f"The check-up has been changed meanwhile; it is at revision {found} now."
            raise Conflict(message, code="changed_meanwhile")
        Checkup.update(values).where(Checkup.id == checkup_id).execute()
        taken_back = {} if values["reviewed_at"] else {"taken_back": True}
        record_changes("checkup.review", [(checkup_id, patient_id, taken_back)])
        return get_checkup(patient_id, checkup_id)


CORRECTED = "corrected"  # here, by a person; other reasons are a source's
NOT_KEPT = ["id", "patient_id", "machine_id", "revision", "changed_in", *REVIEW]
# Raw SQL: a whole row as JSON, and the versions of thousands of check-ups at once.
KEEP = """
insert into checkup_versions (checkup_id, revision, replaced_by, reason, content)
select id, revision, %s, wanted.reason, to_jsonb(t) - %s::text[]
from unnest(%s::bigint[], %s::text[]) as wanted (checkup_id, reason) join checkups t on id = wanted.checkup_id"""
# It ends the review, for the reviewer saw other values. JSON is sent as text, so that its numbers keep their digits.
CHANGE = """
update checkups set {assigned} from json_to_recordset(%s::json) as sent ({sent}) where checkups.id = sent.id"""
FIND = """
select checkup_id, reason, content::text from checkup_versions where checkup_id = any(%s)
order by checkup_id, revision"""


class Change(NamedTuple):
    """New values of a check-up by column name, JSON as text. `reason`: as in CheckupVersion."""

    checkup_id: int
    patient_id: int
    reason: str
    values: dict[str, Any]


def change_checkups(changes: Sequence[Change], **details: Any) -> None:
    """Change check-ups, each once, within the caller's transaction, in a statement for all that change the same
    columns. Keep their versions and record events with these `details`."""
    keep_versions([(each.checkup_id, each.reason) for each in changes])
    alike = defaultdict[tuple[str, ...], list[dict[str, Any]]](list)
    for each in changes:
        alike[tuple(sorted(each.values))].append({"id": each.checkup_id, **each.values})
    for names, sent in alike.items():
        columns = [column for column in RECORD_COLUMNS if column.name in names]
        assigned = [f"{each.name} = sent.{each.name}{'::jsonb' if each.is_json else ''}" for each in columns]
        assigned += ["reviewed_at = null", "reviewed_by = null"]
        types = ["id bigint", *(f"{each.name} {'text' if each.is_json else each.sql_type}" for each in columns)]
        statement = CHANGE.format(assigned=", ".join(assigned), sent=", ".join(types))
        database.execute_sql(statement, (msgspec.json.encode(sent).decode(),))
    told = [(each.checkup_id, each.patient_id, {"changed": sorted(each.values), **details}) for each in changes]
    record_changes("checkup.change", told)


def keep_versions(checkups: Iterable[tuple[int, str]]) -> None:
    """Store the check-ups as they are, in the transaction that will change them. `checkups`: their ids and reasons."""
    ids, reasons = zip(*checkups, strict=True)
    database.execute_sql(KEEP, (current_actor().id, NOT_KEPT, [*ids], [*reasons]))


def find_versions(cursor: Any, checkup_ids: Iterable[int]) -> dict[int, list[tuple[str, str]]]:
    """Return by check-up the (reason, JSON text of the columns) of its earlier versions, the oldest first."""
    cursor.execute(FIND, (sorted(checkup_ids),))
    found: dict[int, list[tuple[str, str]]] = {}
    for checkup_id, *version in cursor.fetchall():
        found.setdefault(checkup_id, []).append((version[0], version[1]))
    return found


def open_history(checkup_id: int, patient_id: int | None = None) -> list[dict[str, Any]]:
    """Return the earlier versions of a check-up, the newest first, and log that access: `revision`, `replaced_at`,
    `replaced_by` (a username or None), `reason`, and `content`, the columns as JSON text. Raises NotFound, also for a
    check-up of another patient than `patient_id`."""
    kept = CheckupVersion
    columns = kept.revision, kept.replaced_at, User.username.alias("replaced_by"), kept.reason
    versions = kept.select(*columns, kept.content.cast("text").alias("content")).where(kept.checkup == checkup_id)
    versions = versions.join(User, JOIN.LEFT_OUTER, on=User.id == kept.replaced_by).order_by(kept.revision.desc())
    with transaction():
        patient = User.select(User.id, User.username).join(Checkup).where(Checkup.id == checkup_id).first()
        if patient is None or patient_id not in (None, patient.id):
            raise NotFound("There is no such check-up.", code="unknown_checkup")
        record_event("read", subject_id=patient.id, subject=patient.username, what="history", checkup=checkup_id)
        found: list[Any] = list(versions.dicts())
        return found
