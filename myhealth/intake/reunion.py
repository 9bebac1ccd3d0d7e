"""Look up, for the FHIR records of a batch, the check-ups that contain them or that they contain.

All functions work within the transaction that stores the batch.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec.structs import replace

from myhealth.checkups.models import Checkup, select_list
from myhealth.checkups.services import find_versions, keep_version, record_change
from myhealth.clinical.status import WITHDRAWN
from myhealth.intake.bulk_insert import STORED_NAMES, StoredRow
from myhealth.intake.content import Content, held_in, numbers_in, results_in
from myhealth.intake.deletions import FOUND, is_number_of, parts_of
from myhealth.intake.members import contains, is_alone, is_member, known_addresses, merge_part, take_in
from myhealth.intake.record import encode_json
from myhealth.intake.results import Pending
from myhealth.intake.settlement import (
    CORRECTED_HERE,
    DIFFERS,
    Unsettled,
    as_source_said,
    content_of,
    content_of_row,
    decoded_version,
)

FIND = f"""{FOUND}
select machine_id, record_id, {select_list(STORED_NAMES)} from checkups
where id in (select id from found) and patient_id = any(%s) and record_id is not null
order by coalesce(machine_id, 0), record_id collate "C" for update"""
# Two uploads at once, of an Observation and of its report, would not see each other's rows.
LOCK_PATIENTS = "select 1 from users where id = any(%s) order by id for no key update"

OBSERVATION = {"Observation"}


class Reunion:
    """Records sorted by the stored check-ups that they belong to.

    `parts`: the records of Observations that belong to a stored report, once for each one. `refused`: reports that
    contradict a stored Observation, and why. `others`: the remaining records; those of reports contain the results of
    the Observations that are stored alone, which `retire` then takes away."""

    def __init__(self, cursor: Any, rows: Sequence[Pending]) -> None:
        self.parts: list[Pending] = []
        self.refused: list[tuple[Pending, Unsettled]] = []
        self._alone: list[tuple[Pending, StoredRow, str]] = []
        self._related = _find_related(cursor, rows)
        of_one = [each for found in self._related.values() for each in found]
        self._versions = find_versions(cursor, [each["id"] for each in of_one]) if of_one else {}
        self._held = {each["id"]: content_of_row(each) for each in of_one}
        self.others = [row for row in rows if row.patient_id not in self._related or not self._is_settled(row)]

    def _is_settled(self, row: Pending) -> bool:
        """Return whether the record belongs to stored reports, or is refused."""
        content = self._at_known_addresses(row)
        return self._find_parts(row, content) or self._take_in(row, content)

    def _at_known_addresses(self, row: Pending) -> Content:
        """Return a record's content. Where the stored addresses of it and its results have, or lack, the server, they
        become the record's."""
        content, parsed = content_of(row, None), row.item.parsed
        names = known_addresses(content, (self._held[each["id"]] for each in self._related[row.patient_id]))
        if not names:
            return content
        details = content["details"] or {}
        for each in (*results_in(content), *details.get("panels", ())):
            if "sub_id" in each:
                each["sub_id"] = names.get(each["sub_id"], each["sub_id"])
        row.record.record_id = names.get(str(row.record.record_id), row.record.record_id)
        row.record.results, row.item.copied = encode_json(content["results"]).decode(), ""
        row.record.details = encode_json(details).decode() if details else None
        parsed.entries = {place: names.get(number, number) for place, number in parsed.entries.items()}
        return content_of(row, None)

    def _others(self, row: Pending) -> Iterator[tuple[StoredRow, Content]]:
        for stored in self._related.get(row.patient_id, ()):
            if (stored["machine_id"], stored["record_id"]) != row.key:
                yield stored, self._held[stored["id"]]

    def _find_parts(self, row: Pending, content: Content) -> bool:
        """Note the check-ups that contain the record's Observation, and return whether there are any."""
        if not is_alone(row):
            return False
        found = [stored for stored, held in self._others(row) if contains(held, content)]
        for stored in found:
            record = replace(row.record, record_id=stored["record_id"])
            self.parts.append(replace(row, record=record, machine_id=stored["machine_id"], part=content))
        for stored in self._related.get(row.patient_id, ()) if found else ():
            if (stored["machine_id"], stored["record_id"]) == row.key:
                self._alone.append((row, stored, str(stored["record_id"])))
        return bool(found)

    def _take_in(self, row: Pending, content: Content) -> bool:
        """Add the results of stored Observations to the record that contains them. Return whether it is refused."""
        # A report that is stored already says nothing new with what it only refers to.
        is_stored = any(
            (each["machine_id"], each["record_id"]) == row.key for each in self._related.get(row.patient_id, ())
        )
        elsewhere = () if is_stored else row.item.parsed.elsewhere
        known = {number for each in self._related.get(row.patient_id, ()) for number in held_in(self._held[each["id"]])}
        changed, others = content, [*self._others(row)]
        numbers = [str(held["record_id"]) for _, held in others]
        # Without its server, an address that several have means none of them.
        elsewhere = [name for name in elsewhere if sum(is_number_of(name, each, OBSERVATION) for each in numbers) == 1]
        for stored, held in others:
            number = str(held["record_id"])
            if not is_member(content, elsewhere, number) or (held["status"] == WITHDRAWN and number in known):
                continue
            versions = [(reason, decoded_version(text)) for reason, text in self._versions.get(stored["id"], ())]
            said, corrected = as_source_said(held, versions)
            done = merge_part(changed, said)
            if not done.effect or (corrected and done.notes):
                self.refused.append((row, CORRECTED_HERE if corrected else Unsettled(*DIFFERS, done.places)))
                return True
            changed = take_in(done.content, held, forced=corrected)
            self._alone.append((row, stored, number))
        if changed is not content:
            row.record.results, row.item.copied = encode_json(results_in(changed)).decode(), ""
        return False

    def retire(self) -> None:
        """Withdraw the check-ups of Observations that are now shown in that of a report, each with its history."""
        for row, stored, number in self._alone:
            holder = Checkup.get_or_none(Checkup.id == row.result.id) if row.result.id else None
            if holder is None or stored["status"] == WITHDRAWN or holder.id == stored["id"]:
                continue
            held = {"record_id": holder.record_id, "results": holder.results, "details": holder.details}
            if number in held_in(held):
                keep_version(stored["id"], "withdrawn")
                Checkup.update(status=WITHDRAWN).where(Checkup.id == stored["id"]).execute()
                record_change("checkup.change", row.patient_id, stored["id"], changed=["status"], by="its source")


def _find_related(cursor: Any, rows: Sequence[Pending]) -> dict[int, list[StoredRow]]:
    """Return by patient the other check-ups that have a number of the records or of their results."""
    wanted: set[str] = set()
    for row in rows:
        content = content_of(row, None)
        numbers = [each for each in (*numbers_in(content), content["record_id"]) if each]
        wanted.update(part for name in (*numbers, *row.item.parsed.elsewhere) for part in parts_of(name))
    if not wanted:
        return {}
    cursor.execute(FIND, (sorted(wanted), sorted({row.patient_id for row in rows})))
    found: dict[int, list[StoredRow]] = {}
    for values in cursor.fetchall():
        stored = dict(zip(("machine_id", "record_id", *STORED_NAMES), values, strict=True))
        found.setdefault(stored["patient_id"], []).append(stored)
    return found
