"""Fill status, taken_precision and the status of results from the lines of reports that held them before.

Earlier readers wrote them into the report, each on a line: `Status: preliminary.`, `Status of Glucose: cancelled.`,
`Only the day is known.` A line that no field can hold stays. Only check-ups with such a line are written.
"""

import json
import re
from typing import Any

atomic = False  # each batch is a transaction, so that no row stays locked for long; a second run goes on
BATCH = 2000
FIND = """
select id, checkup_report, results::text, (taken_at at time zone 'UTC')::time = '12:00' from checkups
where id > %s and status is null and taken_precision is null
    and (strpos(checkup_report, 'Status') > 0 or strpos(checkup_report, 'Only the ') > 0)
order by id limit %s for update"""
# A join by hash would read the whole table for each batch.
FILL = """
set local enable_hashjoin = off;
set local enable_mergejoin = off;
update checkups set checkup_report = filled.report, results = coalesce(filled.results::jsonb, checkups.results),
    status = filled.status, taken_precision = filled.known
from unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[])
    as filled (id, report, results, status, known)
where checkups.id = filled.id"""
# FHIR's words, and those of HL7's tables 0085 and 0123 with their FHIR values.
STATUSES = {
    **{word: word for word in ("registered", "partial", "preliminary", "cancelled", "unknown")},
    "not verified": "preliminary",
    "some results only": "partial",
    "pending": "registered",
}
STATUS = re.compile(rf"Status(?: of (.+))?: ({'|'.join(STATUSES)})\.")
KNOWN = re.compile(r"Only the (day|month|year) is known\.")


def read_lines(report: str, results: list[Any], at_noon: bool) -> tuple[str, str | None, str | None, dict[int, str]]:
    """Return the report without the lines that become fields, the status, the precision of the moment, and the status
    of results by their place. `at_noon`: the moment is that of a day whose time is not known."""
    names = [" ".join(str(each.get("name")).split()) if isinstance(each, dict) else None for each in results]
    status = known = None
    of_results: dict[int, str] = {}
    kept = []
    for line in report.splitlines():
        found, precision = STATUS.fullmatch(line), KNOWN.fullmatch(line)
        if precision and at_noon:
            known = known or precision[1]
        elif found and found[1] is None:
            status = status or STATUSES[found[2]]
        elif found and names.count(found[1]) == 1:
            word = STATUSES[found[2]]
            of_results.setdefault(names.index(found[1]), "preliminary" if word == "partial" else word)
        else:
            kept.append(line)
    return report if len(kept) == len(report.splitlines()) else "\n".join(kept), status, known, of_results


def _filled(row: tuple[Any, ...]) -> tuple[Any, ...]:
    id_, report, text, at_noon = row
    # Numbers are kept as text, so that every digit stays.
    results = json.loads(text, parse_float=_Number, parse_int=_Number)
    results = results if isinstance(results, list) else []
    report, status, known, of_results = read_lines(report, results, at_noon)
    for place, word in of_results.items():
        results[place]["status"] = word
    return id_, report, _encoded(results) if of_results else None, status, known


class _Number(str):
    __slots__ = ()


def _encoded(value: Any) -> str:
    if isinstance(value, _Number):
        return value
    if isinstance(value, list):
        return f"[{','.join(map(_encoded, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{json.dumps(name)}:{_encoded(each)}' for name, each in value.items())}}}"
    return json.dumps(value)


def up(migrator: Any, db: Any) -> None:
    last = 0
    while True:
        with db.atomic():
            cursor = db.cursor()
            cursor.execute(FIND, (last, BATCH))
            rows = cursor.fetchall()
            if not rows:
                return
            last = rows[-1][0]
            filled = [new for row in rows if (new := _filled(row))[1] != row[1]]
            if filled:
                cursor.execute(FILL, [[*column] for column in zip(*filled, strict=True)])


def down(migrator: Any, db: Any) -> None:
    """The lines are not written back: the fields hold what they said, as long as migration 14 is applied."""
