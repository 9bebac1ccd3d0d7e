"""Look up, for the FHIR records of a batch, the check-ups that contain them or that they contain.

All functions work within the transaction that stores the batch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from myhealth.checkups.models import select_list
from myhealth.checkups.services import Change, change_checkups
from myhealth.clinical.status import WITHDRAWN
from myhealth.common.text import printable
from myhealth.intake.content import Content, held_in, numbers_in, results_in, version_order
from myhealth.intake.deletions import FORGET, ByParts, Gone, find_gone, find_numbered, is_number_of
from myhealth.intake.insert import STORED_NAMES, StoredRow
from myhealth.intake.members import KnownAddresses, contains, is_alone, is_member, known_addresses, merge_part, take_in
from myhealth.intake.merge import shared_facts
from myhealth.intake.parsed_record import MISSING
from myhealth.intake.record import decode_json, encode_json
from myhealth.intake.results import Pending
from myhealth.intake.settlement import (
    CORRECTED_HERE,
    DIFFERS,
    Unsettled,
    as_source_said,
    content_of,
    content_of_row,
    find_contents,
)

FIND = f"""
select machine_id, record_id, {select_list(STORED_NAMES)} from checkups
where id = any(%s) and patient_id = any(%s) and record_id is not null
order by coalesce(machine_id, 0), record_id collate "C" for update"""
HOLDERS = """
select id, record_id, results::text, coalesce(details, 'null')::text from checkups
where id = any(%s) and status is distinct from 'entered-in-error'"""
# Two uploads at once, of an Observation and of its report, would not see each other's rows.
LOCK_PATIENTS = "select 1 from users where id = any(%s) order by id for no key update"

OBSERVATION = {"Observation"}


class Related:
    """The stored check-ups of a patient that belong to the records of a batch, with their contents in `held` by id.

    `keys`: their keys; `by_number`: check-ups by their number; `holders`: those that contain an Observation, by its
    number.
    """

    def __init__(self, stored: Sequence[StoredRow]) -> None:
        self.stored = stored
        self.held: dict[int, Content] = {each["id"]: content_of_row(each) for each in stored}
        self.keys = {(each["machine_id"], each["record_id"]) for each in stored}
        self.by_number: dict[str, list[StoredRow]] = {}
        self.holders: dict[str, list[StoredRow]] = {}
        for each in stored:
            self.by_number.setdefault(str(each["record_id"]), []).append(each)
            for number in held_in(self.held[each["id"]]):
                self.holders.setdefault(number, []).append(each)
        self.addresses = KnownAddresses(self.held.values())
        shown = [each for each in self.held.values() if each["status"] != WITHDRAWN]
        pairs = [pair for each in shown for pair in zip(numbers_in(each), results_in(each), strict=True)]
        # the Observations that one of the check-ups shows
        self.shown = {number for number, each in pairs if each.get("status") != WITHDRAWN}

    def others(self, row: Pending, rows: Iterable[StoredRow]) -> Iterator[tuple[StoredRow, Content]]:
        """Yield these check-ups, but the record's own, each once, in the order of the store."""
        chosen = {each["id"]: each for each in rows if (each["machine_id"], each["record_id"]) != row.key}
        for stored in self.stored if len(chosen) > 1 else [*chosen.values()]:
            if stored["id"] in chosen:
                yield stored, self.held[stored["id"]]


NONE = Related(())


class Reunion:
    """Records sorted by the stored check-ups that they belong to.

    `parts`: the records of Observations that belong to a stored report, once for each one. `refused`: reports that
    contradict a stored Observation, and why. `others`: the remaining records; those of reports contain the results of
    the Observations that are stored alone, which `retire` then takes away."""

    def __init__(self, cursor: Any, rows: Sequence[Pending]) -> None:
        self.parts: list[Pending] = []
        self.refused: list[tuple[Pending, Unsettled]] = []
        self._alone: list[tuple[Pending, StoredRow, str]] = []
        self._cursor = cursor
        self._carried_out: list[tuple[Pending, int]] = []
        found, gone = _find_related(cursor, rows)
        self._gone = ByParts((name, each) for each in gone for name in (each.record_id, *each.numbers))
        of_gone = {each.patient_id for each in gone}
        patients = {row.patient_id for row in rows if of_gone & {None, row.patient_id}}
        self._related = {id_: Related(found.get(id_, ())) for id_ in {*found, *patients}}
        ids = [each["id"] for found in self._related.values() for each in found.stored]
        self._versions = find_contents(cursor, ids) if ids else {}
        self.others = [row for row in rows if row.patient_id not in self._related or not self._is_settled(row)]
        for row in self.others:
            self._tell_missing(row)

    def _is_settled(self, row: Pending) -> bool:
        """Return whether the record belongs to stored reports, or is rejected."""
        content = self._at_known_addresses(row)
        gone = self._gone_of(row, content)
        itself = [each for each in gone.values() if each.patient_id and each.key == row.key]
        if itself and row.key not in self._related[row.patient_id].keys:
            return self._find_parts(row, content | {"status": WITHDRAWN})  # it is not stored again
        gone = {id(each): each for each in gone.values() if each not in itself}
        if gone and (why := self._withdraw_gone(row, content, gone)):
            self.refused.append((row, why))
            return True
        is_gone = gone and row.record.status == WITHDRAWN
        content = content_of(row, None) if gone else content
        return self._find_parts(row, content) or (not is_gone and self._take_in(row, content))

    def _gone_of(self, row: Pending, content: Content) -> dict[int, Gone]:
        """Return by id() the deletions that may be of the record or of its results."""
        numbers = (*numbers_in(content), str(content["record_id"]))
        near = [each for number in numbers for each in self._gone.near(number)]
        return {id(each): each for each in near if each.patient_id in (None, row.patient_id)}

    def _withdraw_gone(self, row: Pending, content: Content, gone: Mapping[int, Gone]) -> Unsettled | None:
        """Withdraw in a record what was deleted before and is not shown elsewhere. Return why it is rejected, if
        it was changed after its deletion here."""
        own, facts, related = str(content["record_id"]), shared_facts(content), self._related[row.patient_id]
        sent = {name: facts | each for name, each in zip(numbers_in(content), results_in(content), strict=True)}
        sent[own] = facts | {"version": (content["details"] or {}).get("version")}
        kind, changed = row.item.parsed.patient_field.partition(".")[0], content
        for number, said in sent.items():
            for each in self._gone.near(number) if number not in related.shown else ():
                if id(each) not in gone or not each.means(number, said, {kind} if number == own else OBSERVATION):
                    continue
                if each.patient_id and each.is_before(said):
                    message = f"has {printable(number)}, which was deleted here, with other content"
                    return Unsettled(message, "deleted_here", ["results"])
                part: Content = {"record_id": number, "status": WITHDRAWN, "results": [], "details": each.details}
                changed = changed | {"status": WITHDRAWN} if number == own else merge_part(changed, part).content
                by, code = ("here", "deleted_here") if each.patient_id else ("by its source before", "withdrawn")
                row.warn("status", f"{printable(number)} was deleted {by}: it is stored, but not shown", code)
                self._carried_out.append((row, each.id))
        if changed is not content:
            row.record.results = encode_json(changed["results"]).decode()
            row.record.status = changed["status"]
        return None

    def _at_known_addresses(self, row: Pending) -> Content:
        """Return a record's content. Give its resources the addresses under which they are stored, if these differ only
        in the server, which one of the two lacks."""
        content, parsed = content_of(row, None), row.item.parsed
        names = known_addresses(content, self._related[row.patient_id].addresses)
        if not names:
            return content
        details = content["details"] or {}
        for each in (*results_in(content), *details.get("panels", ())):
            if "sub_id" in each:
                each["sub_id"] = names.get(each["sub_id"], each["sub_id"])
        row.record.record_id = names.get(str(row.record.record_id), row.record.record_id)
        row.record.results = encode_json(content["results"]).decode()
        row.record.details = encode_json(details).decode() if details else None
        parsed.entries = {place: names.get(number, number) for place, number in parsed.entries.items()}
        return content_of(row, None)

    def _find_parts(self, row: Pending, content: Content) -> bool:
        """Note the check-ups that contain the record's Observation, and return whether there are any."""
        if not is_alone(row):
            return False
        related = self._related[row.patient_id]
        numbers = {str(content["record_id"]), *numbers_in(content)[:1]}
        holders = [each for number in numbers for each in related.holders.get(number, ())]
        found = [stored for stored, held in related.others(row, holders) if contains(held, content)]
        if row.key in related.keys or self._is_later(content, found):  # a withdrawn report does not withdraw it
            found = [stored for stored in found if stored["status"] != WITHDRAWN]
        for stored in found:
            record = replace(row.record, record_id=stored["record_id"])
            self.parts.append(replace(row, record=record, machine_id=stored["machine_id"], part=content))
        for stored in related.by_number.get(str(row.record.record_id), ()) if found else ():
            if (stored["machine_id"], stored["record_id"]) == row.key:
                self._alone.append((row, stored, str(stored["record_id"])))
        return bool(found)

    def _is_later(self, content: Content, holders: Iterable[StoredRow]) -> bool:
        """Return whether an Observation is of a later version than the same one in reports."""
        contents = [self._related[each["patient_id"]].held[each["id"]] for each in holders]
        pairs = [pair for each in contents for pair in zip(numbers_in(each), results_in(each), strict=True)]
        own = [result for number, result in pairs if number == content["record_id"]]
        return bool(own) and all(version_order(content, result) > 0 for result in own)

    def _take_in(self, row: Pending, content: Content) -> bool:
        """Add the results of stored Observations to the record that contains them. Return whether it is rejected."""
        # References in a report that is stored already are not new.
        related = self._related[row.patient_id]
        elsewhere: Sequence[str] = () if row.key in related.keys else row.item.parsed.elsewhere
        known, own = related.holders, dict.fromkeys(numbers_in(content))
        members = [each for number in own for each in related.by_number.get(number, ())]
        changed, others = content, [*related.others(row, related.stored if elsewhere else members)]
        numbers = [str(held["record_id"]) for _, held in others]
        # An address without a server that fits several results means none of them.
        near = ByParts((each, each) for each in numbers)
        elsewhere = [
            name for name in elsewhere if sum(is_number_of(name, each, OBSERVATION) for each in near.near(name)) == 1
        ]
        for stored, held in others:
            number = str(held["record_id"])
            if not is_member(content, elsewhere, number) or (held["status"] == WITHDRAWN and number in known):
                continue
            said, corrected = as_source_said(held, self._versions.get(stored["id"], ()))
            done = merge_part(changed, said)
            if not done.effect or (corrected and done.notes):
                self.refused.append((row, CORRECTED_HERE if corrected else Unsettled(*DIFFERS, done.places)))
                return True
            changed = take_in(done.content, held, forced=corrected)
            self._alone.append((row, stored, number))
        if changed is not content:
            row.record.results = encode_json(results_in(changed)).decode()
        return False

    def _tell_missing(self, row: Pending) -> None:
        """Add a warning if a record that is new names results that are neither in its source nor stored."""
        related = self._related.get(row.patient_id, NONE)
        if not row.item.parsed.elsewhere or row.key in related.keys:
            return
        known = ByParts((each, each) for each in {*related.by_number, *related.holders})
        names = row.item.parsed.elsewhere
        missing = [
            name for name in names if not any(is_number_of(name, each, OBSERVATION) for each in known.near(name))
        ]
        if missing:
            row.warn(MISSING, f"is not here: {printable(', '.join(missing), 200)}", "results_missing")

    def retire(self) -> None:
        """Withdraw the check-ups of Observations that are now shown in that of a report, each with its history. Forget
        the deletions that were carried out."""
        if done := [id_ for row, id_ in self._carried_out if row.result.status == "accepted"]:
            self._cursor.execute(FORGET, (done, []))
        shown = [each for each in self._alone if each[1]["status"] != WITHDRAWN]
        self._cursor.execute(HOLDERS, ([row.result.id for row, *_ in shown],))
        held = {
            id_: held_in({"record_id": number, "results": decode_json(results), "details": decode_json(details)})
            for id_, number, results, details in (self._cursor.fetchall() if shown else ())
        }
        gone = {
            stored["id"]: row.patient_id
            for row, stored, number in shown
            if row.result.id != stored["id"] and number in held.get(row.result.id or 0, ())
        }
        if gone:
            withdrawn = {"status": WITHDRAWN}
            changes = [Change(id_, patient_id, "withdrawn", withdrawn) for id_, patient_id in gone.items()]
            change_checkups(changes, by="its source")


def _find_related(cursor: Any, rows: Sequence[Pending]) -> tuple[dict[int, list[StoredRow]], list[Gone]]:
    """Return by patient the other check-ups that have a number of the records or of their results, and what was deleted
    under these numbers."""
    sent, elsewhere = set[str](), set[str]()
    for row in rows:
        record = row.record
        content: Content = {"record_id": record.record_id, "results": decode_json(record.results)}
        content["details"] = record.details and decode_json(record.details)
        sent.update(each for each in (*numbers_in(content), record.record_id) if each)
        elsewhere.update(row.item.parsed.elsewhere)
    patients = sorted({row.patient_id for row in rows})
    found: dict[int, list[StoredRow]] = {}
    if ids := find_numbered(cursor, sent | elsewhere):
        cursor.execute(FIND, (ids, patients))
        for values in cursor.fetchall():
            stored = dict(zip(("machine_id", "record_id", *STORED_NAMES), values, strict=True))
            found.setdefault(stored["patient_id"], []).append(stored)
    return found, find_gone(cursor, patients, sent)
