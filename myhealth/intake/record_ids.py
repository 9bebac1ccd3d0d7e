"""Give the records of one source their derived numbers. The contents that came before are kept in a temporary file, so
that memory does not grow with the source."""

import hashlib
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from msgspec.structs import astuple

from myhealth.clinical.catalog import first_findings
from myhealth.common.database import fetch_all
from myhealth.common.text import fold_name
from myhealth.intake.record import Record, Result
from myhealth.intake.results import ValidatedRecord
from myhealth.profiles.held_names import IS_RENAME

# Text whose results had to be written anew, as `results_as_sent` judges it.
FIRST_FIELDS = 7
NO_OTHERS = (None,) * (len(Result.__struct_fields__) - FIRST_FIELDS)
MANY_DIGITS = re.compile(r"[0-9.eE+-]{18}")
SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


# A record, a number that it may have, and the id of the patient whose check-up must have it, None for anybody's.
Former = tuple[ValidatedRecord, Record, str, int | None]
DERIVED = re.compile("sha256:[0-9a-f]{40}:[0-9]+")
# The positions of the records (serial, record_id, owner) whose number is that of a check-up that is stored, or was
# changed or deleted. `owner`: null for anybody's. The three parts each use an index; a single comparison with a machine
# that may be null would read all.
HELD = """
select position from unnest(%s::text[], %s::text[], %s::bigint[])
    with ordinality as wanted (serial, record_id, owner, position)
left join machines on machines.serial = wanted.serial
where (wanted.serial is null or machines.id is not null) and exists (
    select from checkups where record_id = wanted.record_id and machine_id = machines.id
        and (wanted.owner is null or patient_id = wanted.owner)
    union all
    select from checkups where record_id = wanted.record_id and machine_id is null and machines.id is null
        and (wanted.owner is null or patient_id = wanted.owner)
    union all
    select from superseded where record_id = wanted.record_id and coalesce(machine_id, 0) = coalesce(machines.id, 0)
        and (wanted.owner is null or patient_id = wanted.owner))"""
# Also those that were erased.
HELD_BEFORE = f"""{HELD}
    or wanted.owner is null and exists (select from erased_digests where kind = 'record'
        and digest = keyed_digest(wanted.serial, wanted.record_id))"""
RENAMED = f"""
select distinct folded_name, audit_events.subject, users.id from users join audit_events on subject_id = users.id
where folded_name = any(%s) and linked_at is not null and {IS_RENAME}"""


def is_derived(record_id: Any) -> bool:
    """Return whether a record's number was derived from its content."""
    return isinstance(record_id, str) and DERIVED.fullmatch(record_id) is not None


class Occurrences(msgspec.Struct):
    """Names contents by a digest and the number of times that they have come. If there are many, the digests are on
    disk.

    `first`: the number of a content that comes for the first time here.
    """

    first: int = 1
    opened: Any = None

    @property
    def _database(self) -> Any:
        if self.opened is None:  # opened by the thread that uses it, if any does
            self.opened = sqlite3.connect("", isolation_level=None)
            self.opened.execute("create table counts (digest text primary key, n integer) without rowid")
            self.opened.execute("begin")  # one transaction to the end, as a file of its own needs no other
        return self.opened

    def names(self, *contents: str) -> list[str]:
        """Return the names of the contents, which all differ."""
        digests = [*map(_digest, contents)]
        rows = ", ".join([f"(?, {self.first})"] * len(digests))
        counted = self._database.execute(
            f"insert into counts values {rows} on conflict do update set n = n + 1 returning digest, n", digests
        )
        counts = dict(counted.fetchall())
        return [f"sha256:{digest}:{counts[digest]}" for digest in digests]


def _digest(content: str) -> str:
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def use_former_numbers(cursor: Any, checked: Iterable[ValidatedRecord]) -> None:
    """Give records the numbers that earlier releases derived, or that were derived before the patient's user was
    renamed, if these are stored here. A number of earlier releases depended on how the source wrote the content."""
    former: list[Former] = [
        (item, item.record, number, None) for item in checked if item.record for number in item.former_ids
    ]
    former += _numbers_before_renaming(cursor, checked)
    if not former:
        return
    wanted = [(record.machine, number, owner) for _, record, number, owner in former]
    cursor.execute(HELD_BEFORE, [*map(list, zip(*wanted, strict=True))])
    for (position,) in cursor.fetchall():
        _, record, number, _ = former[position - 1]
        record.record_id = number


def _numbers_before_renaming(cursor: Any, checked: Iterable[ValidatedRecord]) -> Iterator[Former]:
    """Yield the records whose patient's user was renamed, with each number derived from an earlier name."""
    by_name = defaultdict[str, list[tuple[ValidatedRecord, Record]]](list)
    for item in checked:
        if item.record and item.patients and is_derived(item.record.record_id):
            by_name[fold_name(item.patients[0])].append((item, item.record))
    for name, before, id_ in fetch_all(cursor, RENAMED, ([*by_name],)) if by_name else ():
        for item, record in by_name[name]:
            occurrence = str(record.record_id).rpartition(":")[2]
            for content in (record.identity(before), record.identity_by_order(before)):
                yield item, record, f"sha256:{_digest(content)}:{occurrence}", id_


class _ResultsText(msgspec.Struct):
    results: msgspec.Raw = msgspec.Raw(b"[]")


_decode_results_text = msgspec.json.Decoder(_ResultsText).decode


def results_as_sent(results: Sequence[Result], findings: Iterable[tuple[int, Any]], raw: str) -> str:
    """Return the text of a record's results if they are stored as they came, else "".

    Earlier releases derived the number of a record without one from this text. The rule must not change: a dump that
    they imported would be stored again. `results`: complete as sent; `findings`: what the catalogue finds in them, by
    index. `raw`: the record's text.
    """
    broken = False
    for result in results:
        code, value, unit = result.code, result.value, result.unit
        numbers = (value, result.low, result.high)
        fraction = any(isinstance(number, float | Decimal) for number in numbers)
        if (fraction and 0 in numbers) or astuple(result)[FIRST_FIELDS:] != NO_OTHERS:
            return ""
        if type(value) is str and first_findings(code, value, unit, None, None, None, None):
            return ""
        broken = broken or fraction
    for place, _ in findings:
        found = results[place]
        if first_findings(found.code, found.value, found.unit, found.low, found.high, found.flag, None):
            return ""
    if (broken and MANY_DIGITS.search(raw)) or ("\\" in raw and SURROGATE_ESCAPE.search(raw)):
        return ""
    return str(_decode_results_text(raw).results, "utf-8")
