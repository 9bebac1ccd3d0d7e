"""Find what the deletion of a FHIR resource means here.

It names the resource by its address on its server, or by an identifier. The check-up may be stored under another of its
numbers, and the resource may be one result of a check-up.
"""

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from msgspec.structs import replace

from myhealth.clinical.status import WITHDRAWN
from myhealth.intake.parsed_record import DECODER
from myhealth.intake.record import encode_json
from myhealth.intake.results import Pending

ADDRESS = re.compile(r"(https?://\S+/)?([A-Z][A-Za-z]{0,63})/([^/\s?#|]+)")
# By the end of a number after its last / or #, which is the resource's id. Deletions are few, so no index is kept.
CANDIDATES = """
select id, patient_id, machine_id, record_id, status, results::text, coalesce(details ? 'panels', false)
from checkups
where record_id ~ '[/#|]' and status is distinct from 'entered-in-error' and (
    regexp_replace(record_id, '^.*[/#]', '') = any(%(ids)s) or split_part(record_id, '#', 1) = any(%(names)s)
    or exists (select from jsonb_path_query(results, '$[*].sub_id') as found (sub_id)
               where regexp_replace(sub_id #>> '{}', '^.*[/#]', '') = any(%(ids)s) or sub_id #>> '{}' = any(%(names)s)))
order by id"""


class Meant(NamedTuple):
    """A check-up of which a resource was deleted. `withdrawn`: the deleted one of its results, as JSON, as it is then;
    "" if it is the whole check-up."""

    id: int
    patient_id: int
    machine_id: int | None
    record_id: str
    status: str | None
    withdrawn: str = ""

    def carry_out(self, entry: Pending) -> Pending:
        """Turn the record of a deletion into one of this check-up."""
        record = entry.record
        record.record_id = self.record_id
        if self.withdrawn:
            record.status, record.results = self.status, self.withdrawn
        return replace(entry, id=self.id, patient_id=self.patient_id, machine_id=self.machine_id)


def find_meant(cursor: Any, names: Iterable[str]) -> dict[str, list[Meant]]:
    """Return the check-ups that the deleted resources may be, by the addresses or identifiers that were sent; more than
    one where nothing tells which of them is meant."""
    wanted = list(names)
    ids = [re.split("[/#]", name)[-1] for name in wanted]
    cursor.execute(CANDIDATES, {"ids": ids, "names": [each.partition("#")[0] for each in wanted]})
    found: dict[str, list[Meant]] = {name: [] for name in wanted}
    for id_, patient_id, machine_id, number, status, text, has_panels in cursor.fetchall():
        stored = (id_, patient_id, machine_id, number, status)
        results = [each for each in DECODER.decode(text) if isinstance(each, dict)]
        alone = [each for each in results if "sub_id" not in each]  # not results of a report
        kinds = {"Observation"} if alone or has_panels else set()
        kinds |= set() if alone else {"DiagnosticReport"}
        for name in wanted:
            if _is_number_of(name, number, kinds):
                found[name].append(Meant(*stored))
            for each in results:
                if _is_number_of(name, str(each.get("sub_id") or ""), {"Observation"}):
                    withdrawn = encode_json([{**each, "status": WITHDRAWN}]).decode()
                    found[name].append(Meant(*stored, withdrawn))
    return found


def _is_number_of(name: str, number: str, kinds: set[str]) -> bool:
    """Return whether a number may be that of the resource of this name. `kinds`: what the number's resource may be.

    Worked example: Observation/o6 may be Observation/o6, http://a.example/Observation/o6 and http://lab.example|77#o6.
    """
    address, other = ADDRESS.fullmatch(name), ADDRESS.fullmatch(number)
    if address is None or number == name:
        return name in (number, number.partition("#")[0])
    if other is not None:
        return address.groups()[1:] == other.groups()[1:] and not (address[1] and other[1])
    return address[2] in kinds and "#" in number and number.rpartition("#")[2] == address[3]
