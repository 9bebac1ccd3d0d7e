"""Faults that the sync must survive, with real processes: whatever is killed, goes away or comes back, at any moment,
in the end both stores say the same."""

import os
import random
import subprocess
import time
from typing import Any

import pytest
from stores_compared import NONE, differences
from sync_processes import TAKEN, Writers, carry_over, syncing

pytestmark = [pytest.mark.usefixtures("people"), pytest.mark.long]

# SYNC_FAULT_SECONDS=60 for a thorough run.
SECONDS = float(os.environ.get("SYNC_FAULT_SECONDS", "10"))
FILL = ("insert into checkups (patient_id, checkup_type, checkup_report, disease)"
        " select 1, 'T', n::text, '' from generate_series(1, %s) n")  # fmt: skip


def test_a_sync_killed_at_random_moments_loses_nothing_that_six_writers_write(db, reports, settings) -> None:
    chance, seen = random.Random(), {"runs": 0, "kills": 0, "kills within a pass": 0, "locked out": 0}
    db(FILL, 4000)
    deadline = time.monotonic() + SECONDS
    with Writers(settings.database_url) as writers:
        while time.monotonic() < deadline or seen["kills within a pass"] < 3:
            seen["runs"] += 1
            anew = seen["runs"] % 6 == 0 and deadline - time.monotonic() > SECONDS / 2  # it would heal what was lost
            words = ["--restart"] if anew else ["--once"]
            with syncing(settings, *words, MYHEALTH_SYNC_BATCH_ROWS="20") as process:
                try:
                    process.wait(chance.uniform(0.2, 1.2))
                except subprocess.TimeoutExpired:
                    process.kill()
                    seen["kills"] += 1
                    mark = reports.state.find_one({"_id": "mark"})
                    seen["kills within a pass"] += bool(mark) and not mark["finished"]
                seen["locked out"] += TAKEN in process.communicate()[1]
    carry_over(settings)
    found = differences(db, reports)
    ((rows, highest),) = db("select count(*), max(id) from checkups")
    ((deleted, users),) = db("select count(*) filter (where kind = 'checkup'), count(*) filter (where kind = 'user')"
                             " from tombstones")  # fmt: skip
    print(f"\n{SECONDS:g} s: {seen}, {writers.commits:,} commits, {rows:,} check-ups of {highest:,} ids, {deleted:,}"
          f" and {users} users deleted; {({name: len(ids) for name, ids in found.items()})}")  # fmt: skip
    assert found == NONE
    assert rows > 1000
    assert users > 0


def test_a_cursor_over_ids_loses_rows_of_the_same_writers(db, settings) -> None:
    """Which shows that the writers are what the test above needs."""
    seen, last, deadline = set(), 0, time.monotonic() + 5
    rows: list[Any] = []
    with Writers(settings.database_url):
        while time.monotonic() < deadline:
            seen |= {id_ for (id_,) in rows}
            rows = db("select id from checkups where id > %s order by id", last)
            last = max((id_ for (id_,) in rows), default=last)
    seen |= {id_ for (id_,) in db("select id from checkups where id > %s", last)} | {id_ for (id_,) in rows}
    lost = {id_ for (id_,) in db("select id from checkups")} - seen
    print(f"\n{len(lost)} of {len(seen | lost):,} rows are lost")
    assert lost
