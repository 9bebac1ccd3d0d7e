"""Find what the deletion of a FHIR resource means here.

A deletion names the resource by its address on its server, or by an identifier. The check-up may be stored under
another of its numbers, and the resource may be one result of a check-up. What is stored of a resource that was deleted
before is not shown, alone or within a report.
"""

import re
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec.structs import replace

from myhealth.clinical.status import WITHDRAWN
from myhealth.intake.content import Content, as_moment, held_in, numbers_in, version_order
from myhealth.intake.record import decode_json, encode_json
from myhealth.intake.results import Pending, RecordKey

Value = TypeVar("Value")
ADDRESS = re.compile(r"(https?://\S+/)?([A-Z][A-Za-z]{0,63})/([^/\s?#|]+)")
# Each number by itself (with && or in a join, each row would be compared with all: hence `offset 0`), and by the index
# of migration 22, which is a bitmap scan, even if PostgreSQL believes that the table is still empty.
FIND_NUMBERED = """
set local enable_seqscan = off;
set local enable_indexscan = off;
select distinct id from unnest(%s::text[]) as wanted (number)
cross join lateral (
    select id from checkups where checkup_numbers(record_id, results, details) @> array[wanted.number]
        and (record_id ~ '[/#|]|^urn:' or results @? '$[*].sub_id ? (@ like_regex "[^0-9.]")'
             or details @? '$.panels[*].sub_id') offset 0) as holders"""
CANDIDATES = """
select id, patient_id, machine_id, record_id, results::text, details::text, status from checkups
where id = any(%s) and record_id is not null
order by id"""
# Deletions here of check-ups of patients, and those by a source that came before what they name.
OF_GONE = """
select checkup_id, patient_id, machine_id, record_id, numbers, details, taken_at, at from superseded
where deleted and numbers is not null and"""
GONE = f"{OF_GONE} patient_id = any(%s)"
WAITING = f"""{OF_GONE} patient_id is null
    and (numbers->>0 = any(%(parts)s) or numbers->>1 = any(%(parts)s))"""
ANY_WAITING = "select exists (select from superseded where patient_id is null)"
KEEP = """
insert into superseded (checkup_id, record_id, digest, taken_at, deleted, numbers, details)
values (nextval(pg_get_serial_sequence('checkups', 'id')), %s, '', now(), true, %s, %s)"""
FORGET = "delete from superseded where patient_id is null and (checkup_id = any(%s) or record_id = any(%s))"
# A deletion that names what is not stored yet waits for the records that are stored meanwhile.
LOCK_RECORDS, LOCK_DELETIONS = (
    f"select pg_advisory_xact_lock{kind}(hashtextextended('deletions', 0))" for kind in ("_shared", "")
)


class Gone(NamedTuple):
    """A check-up that was deleted here, with the FHIR `numbers` in it. Without a patient: a deletion by a source that
    came at `at`, before what it names; `details` has the version that it deleted."""

    id: int
    patient_id: int | None
    machine_id: int | None
    record_id: str
    numbers: list[str]
    details: Content | None
    taken_at: datetime
    at: datetime

    @property
    def key(self) -> RecordKey:
        return self.machine_id, self.record_id

    def means(self, number: str, facts: Content, kinds: set[str]) -> bool:
        """Return whether it is a deletion of the resource of this number. `facts`: its version and moments; `kinds`:
        what it may be."""
        if self.patient_id is None:
            return is_number_of(self.record_id, number, kinds) and not self.is_before(facts)
        is_at = as_moment(facts.get("taken_at")) == self.taken_at
        return number in self.numbers or (is_at and any(is_number_of(number, each, set()) for each in self.numbers))

    def is_before(self, facts: Content) -> bool:
        """Return whether the resource was changed or made anew later."""
        later = (as_moment(facts.get(name)) for name in ("updated_at", "issued_at", "taken_at"))
        return version_order(facts, self.details or {}) > 0 or any(each and each > self.at for each in later)


def find_gone(cursor: Any, patient_ids: Iterable[int], numbers: Iterable[str]) -> list[Gone]:
    """Return what was deleted of these patients, and the deletions that came before their records. `numbers`: of the
    resources in these. A deletion that may mean several of them means none."""
    cursor.execute(GONE, ([*patient_ids],))
    found = [Gone(*values) for values in cursor.fetchall()]
    cursor.execute(ANY_WAITING)
    if not cursor.fetchone()[0]:  # the usual case: nothing is asked of each number
        return found
    sent, kinds = ByParts((each, each) for each in numbers), {"Observation", "DiagnosticReport"}
    cursor.execute(WAITING, {"parts": sent.parts})
    waiting = [Gone(*values) for values in cursor.fetchall()]
    numbered = [[is_number_of(gone.record_id, each, kinds) for each in sent.near(gone.record_id)] for gone in waiting]
    return found + [gone for gone, each in zip(waiting, numbered, strict=True) if sum(each) == 1]


def keep_deletion(cursor: Any, name: str, details: str | None) -> None:
    """Remember the deletion of what is not stored. `details`: the version that was deleted, as JSON."""
    cursor.execute(FORGET, ([], [name]))
    cursor.execute(KEEP, (name, encode_json(parts_of(name)).decode(), details))


class Meant(NamedTuple):
    """A check-up, or one of its results, whose resource was deleted. `member`: the number of the result; "" for the
    whole check-up."""

    id: int
    patient_id: int
    machine_id: int | None
    record_id: str
    member: str = ""

    @property
    def resource(self) -> tuple[int, str]:
        return self.patient_id, self.member or self.record_id

    def carry_out(self, entry: Pending) -> Pending:
        """Return the record `entry` of a deletion, directed at this check-up or its result."""
        part: Content = {"record_id": self.member, "status": WITHDRAWN, "results": []}
        part["details"] = decode_json(entry.record.details or "null")
        record = replace(entry.record, record_id=self.record_id)
        ids = {"id": self.id, "patient_id": self.patient_id, "machine_id": self.machine_id}
        return replace(entry, record=record, part=part if self.member else None, **ids)


def find_numbered(cursor: Any, names: Iterable[str]) -> list[int]:
    """Return the ids of the check-ups whose number, or that of a result or panel, may be one of these."""
    cursor.execute(FIND_NUMBERED, (sorted({part for name in names for part in parts_of(name)}),))
    found = [id_ for (id_,) in cursor.fetchall()]
    cursor.execute("set local enable_seqscan to default; set local enable_indexscan to default")
    return found


def find_meant(cursor: Any, names: Collection[str]) -> tuple[dict[str, list[Meant]], set[str]]:
    """Return the check-ups that the deleted resources may be, by the addresses or identifiers that were sent; more than
    one if it is not certain which of them is meant. Also return the names of those that are withdrawn already."""
    wanted = ByParts((name, name) for name in names)
    cursor.execute(CANDIDATES, (find_numbered(cursor, names),))
    shown, withdrawn = ({name: list[Meant]() for name in names} for _ in range(2))
    for id_, patient_id, machine_id, number, results, details, status in cursor.fetchall():
        found = withdrawn if status == WITHDRAWN else shown
        content = {"record_id": number, "results": decode_json(results), "details": decode_json(details or "{}")}
        stored, members = (id_, patient_id, machine_id, number), held_in(content)
        alone = len(members) < len(set(numbers_in(content)))
        kinds = {"Observation"} if alone or "panels" in content["details"] else set()
        kinds |= set() if alone else {"DiagnosticReport"}
        of_members = [(each, Meant(*stored, each), {"Observation"}) for each in sorted(members)]
        for each, meant, of_kinds in ((number, Meant(*stored), kinds), *of_members):
            for name in wanted.near(each):
                if is_number_of(name, each, of_kinds):
                    found[name].append(meant)
    return shown, {name for name, each in withdrawn.items() if each}


def parts_of(name: str) -> tuple[str, str]:
    """Return the parts by which the numbers of the resource with this name are found: the name without its id, and the
    id."""
    return name.partition("#")[0], re.split("[/#]", name)[-1]


class ByParts(Generic[Value]):
    """Values under the parts of their names, so that not each number is compared with each name."""

    def __init__(self, named: Iterable[tuple[str, Value]]) -> None:
        self._values: dict[str, dict[int, Value]] = {}
        for name, value in named:
            for part in parts_of(name):
                self._values.setdefault(part, {})[id(value)] = value

    @property
    def parts(self) -> list[str]:
        return [*self._values]

    def near(self, name: str) -> list[Value]:
        """Return the values of the names that share a part with this one: of all names that `is_number_of` accepts."""
        found = [self._values.get(part, {}) for part in dict.fromkeys(parts_of(name))]
        return [*(found[0] | found[-1]).values()]


def is_number_of(name: str, number: str, kinds: set[str]) -> bool:
    """Return whether a number may belong to the resource with this name. `kinds`: what the number's resource may be.

    Worked example: Observation/o6 may be Observation/o6, http://a.example/Observation/o6 and http://lab.example|77#o6.
    """
    address, other = ADDRESS.fullmatch(name), ADDRESS.fullmatch(number)
    if address is None or number == name:
        return name in (number, number.partition("#")[0])
    if other is not None:
        servers = {(each[1] or "").partition("://")[2] for each in (address, other)} - {""}
        return address.groups()[1:] == other.groups()[1:] and len(servers) < 2
    return address[2] in kinds and "#" in number and number.rpartition("#")[2] == address[3]
