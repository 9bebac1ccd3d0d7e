"""Find what the deletion of a FHIR resource means here.

It names the resource by its address on its server, or by an identifier. The check-up may be stored under another of its
numbers, and the resource may be one result of a check-up.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from msgspec.structs import replace

from myhealth.clinical.status import WITHDRAWN
from myhealth.intake.content import Content, held_in, numbers_in
from myhealth.intake.parsed_record import DECODER
from myhealth.intake.results import Pending

ADDRESS = re.compile(r"(https?://\S+/)?([A-Z][A-Za-z]{0,63})/([^/\s?#|]+)")
# By the index of migration 22, whatever else a statement asks.
FOUND = """
with found as materialized (
    select id from checkups
    where checkup_numbers(record_id, results, details) && %s::text[]
        and (record_id ~ '[/#|]|^urn:' or results @? '$[*].sub_id ? (@ like_regex "[^0-9.]")'
             or details @? '$.panels[*].sub_id'))"""
CANDIDATES = f"""{FOUND}
select id, patient_id, machine_id, record_id, results::text, details::text from checkups
where id in (select id from found) and status is distinct from 'entered-in-error' and record_id is not null
order by id"""


class Meant(NamedTuple):
    """A check-up of which a resource was deleted. `member`: the number of the one of its results that was; "" if it is
    the whole check-up."""

    id: int
    patient_id: int
    machine_id: int | None
    record_id: str
    member: str = ""

    def carry_out(self, entry: Pending) -> Pending:
        """Return the record of a deletion as one of this check-up."""
        part: Content = {"record_id": self.member, "status": WITHDRAWN, "results": []}
        part["details"] = DECODER.decode(entry.record.details or "null")
        record = replace(entry.record, record_id=self.record_id)
        ids = {"id": self.id, "patient_id": self.patient_id, "machine_id": self.machine_id}
        return replace(entry, record=record, part=part if self.member else None, **ids)


def find_meant(cursor: Any, names: Iterable[str]) -> dict[str, list[Meant]]:
    """Return the check-ups that the deleted resources may be, by the addresses or identifiers that were sent; more than
    one where nothing tells which of them is meant."""
    wanted = list(names)
    cursor.execute(CANDIDATES, ([*{part for name in wanted for part in parts_of(name)}],))
    found: dict[str, list[Meant]] = {name: [] for name in wanted}
    for id_, patient_id, machine_id, number, results, details in cursor.fetchall():
        content = {"record_id": number, "results": DECODER.decode(results), "details": DECODER.decode(details or "{}")}
        stored, members = (id_, patient_id, machine_id, number), held_in(content)
        alone = len(members) < len(set(numbers_in(content)))
        kinds = {"Observation"} if alone or "panels" in content["details"] else set()
        kinds |= set() if alone else {"DiagnosticReport"}
        for name in wanted:
            if is_number_of(name, number, kinds):
                found[name].append(Meant(*stored))
            found[name] += [
                Meant(*stored, each) for each in sorted(members) if is_number_of(name, each, {"Observation"})
            ]
    return found


def parts_of(name: str) -> tuple[str, str]:
    """Return what the numbers of a resource of this name have in common with it: the name without its id, or the id."""
    return name.partition("#")[0], re.split("[/#]", name)[-1]


def is_number_of(name: str, number: str, kinds: set[str]) -> bool:
    """Return whether a number may be that of the resource of this name. `kinds`: what the number's resource may be.

    Worked example: Observation/o6 may be Observation/o6, http://a.example/Observation/o6 and http://lab.example|77#o6.
    """
    address, other = ADDRESS.fullmatch(name), ADDRESS.fullmatch(number)
    if address is None or number == name:
        return name in (number, number.partition("#")[0])
    if other is not None:
        servers = {(each[1] or "").partition("://")[2] for each in (address, other)} - {""}
        return address.groups()[1:] == other.groups()[1:] and len(servers) < 2
    return address[2] in kinds and "#" in number and number.rpartition("#")[2] == address[3]
