"""Fill status, taken_precision and the status of results from the lines of reports that held them before.

Earlier readers wrote them into the report, each on a line: `Status: preliminary.`, `Status of Glucose: cancelled.`,
`Only the day is known.` A line that no field can hold stays. Only check-ups with such a line are written.
"""

import json
import re
from typing import Any

atomic = False  # each batch is a transaction, so that no row stays locked for long; a second run goes on
BATCH = 2000
# In the order of the index: the planner would sort all that is left, for each batch.
FIND = """
set local enable_seqscan = off;
set local enable_bitmapscan = off;
set local enable_sort = off;
select id, checkup_report, (taken_at at time zone 'UTC')::time = '12:00',
    case when strpos(checkup_report, 'Status of ') > 0 and jsonb_typeof(results) = 'array'
         then array(select each ->> 'name' from jsonb_array_elements(results) as each) else '{}' end
from checkups
where id > %s and status is null and taken_precision is null
    and (strpos(checkup_report, 'Status') > 0 or strpos(checkup_report, 'Only the ') > 0)
order by id limit %s for update"""
# A join by hash would read the whole table for each batch.
FILL = """
set local enable_hashjoin = off;
set local enable_mergejoin = off;
update checkups set checkup_report = filled.report, status = filled.status, taken_precision = filled.known,
    results = case when words is null then results else (
        select jsonb_agg(case when words::jsonb ? place then each || jsonb_build_object('status', words::jsonb -> place)
                              else each end order by n)
        from jsonb_array_elements(results) with ordinality as of_row (each, n), cast(n - 1 as text) as place) end
from unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[])
    as filled (id, report, status, known, words)
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


def read_lines(
    report: str, names: list[str | None], at_noon: bool
) -> tuple[str, str | None, str | None, dict[int, str]]:
    """Return the report without the lines that become fields, the status, the precision of the moment, and the status
    of results by their place. `names`: of the results. `at_noon`: the moment is that of a day whose time is not known.
    """
    names = [None if name is None else " ".join(name.split()) for name in names]
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
    id_, report, at_noon, names = row
    report, status, known, of_results = read_lines(report, names, at_noon)
    return id_, report, status, known, json.dumps(of_results) if of_results else None


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
    """Do nothing: the fields keep the meaning of the lines as long as migration 14 is applied."""
