"""The whole system under load: tablets upload, the sync copies, patients browse, on real servers."""

import json
import os
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.compare import NONE, differences
from support.factories import record
from support.servers import running_apis
from support.sync_processes import carry_over, syncing

from myhealth.profiles.services import create_user

pytestmark = pytest.mark.long

SECONDS = float(os.environ.get("SYNC_FAULT_SECONDS", "8"))
PATIENTS = ["bholanath", "savita", *(f"patient-{n}" for n in range(6))]
CLIENTS, READERS = 4, 3


def call(url: str, token: str, body: Any = None) -> tuple[Any, str]:
    """The answer, out of JSON, and the address of the next page, if there is one."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, None if body is None else json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        following = re.search(r'<([^>]+)>; rel="next"', answer.headers.get("Link", ""))
        return json.load(answer), following.group(1) if following else ""


def walk(browse: str, token: str, limit: int) -> Iterator[dict[str, Any]]:
    """All reports that are shown to somebody, page by page."""
    path = f"/reports/?limit={limit}"
    while path:
        page, path = call(browse + path if path.startswith("/") else path, token)
        yield from page


class Tablets:
    """Clients that upload, and at times send again what was acknowledged already. `kept`: what was acknowledged, by
    id: whose it is, and its text."""

    def __init__(self, upload: str, token: str) -> None:
        self.kept: dict[int, tuple[str, str]] = {}
        self._upload, self._token = upload, token

    def run(self, client: int, ending: threading.Event) -> None:
        chance, number = random.Random(client), 0
        while not ending.is_set():
            number += 1
            records = [self._record(f"{client}-{number}-{n}", chance) for n in range(chance.randint(1, 20))]
            for _ in range(chance.choice([1, 1, 1, 2])):
                answer, _ = call(f"{self._upload}/checkups/", self._token, records)
                assert answer["rejected"] == 0, answer
                for each, item in zip(records, answer["items"], strict=True):
                    what = each["checkup_for"], each["checkup_report"]
                    assert self.kept.setdefault(item["id"], what) == what

    def _record(self, number: str, chance: random.Random) -> dict[str, Any]:
        patient, taken_at = chance.choice(PATIENTS), f"2026-11-{chance.randint(1, 25):02}T09:14:03Z"
        return record(number, patient, machine="HC-1", taken_at=taken_at, checkup_report=f"{patient} {number}")


def browse_on(browse: str, log_in: Callable[[str], str], seed: int, ending: threading.Event, shown: list[int]) -> None:
    """Looks at all reports of one patient after the other; adds to `shown` how many there were."""
    chance = random.Random(seed)
    tokens = {patient: log_in(patient) for patient in PATIENTS}
    while not ending.is_set():
        patient = chance.choice(PATIENTS)
        found = list(walk(browse, tokens[patient], chance.choice([7, 50, 200])))
        assert {report["username"] for report in found} <= {patient}
        assert {report["checkup_report"].split()[0] for report in found} <= {patient}
        assert len({report["id"] for report in found}) == len(found)
        shown.append(len(found))


def test_what_is_acknowledged_is_seen_once_by_its_patient_and_by_nobody_else(
    db, people, reports, settings, log_in
) -> None:
    for patient in PATIENTS[2:]:
        create_user(patient, rounds=4)
    carry_over(settings)
    ending, chance, faults, shown, kills = threading.Event(), random.Random(), list[BaseException](), list[int](), 0

    def guarded(work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is asserted on below
            faults.append(error)

    with running_apis(settings, workers=2) as (upload, browse):
        tablets = Tablets(upload, log_in("tara"))
        uploads = [lambda n=n: tablets.run(n, ending) for n in range(CLIENTS)]
        looks = [lambda n=n: browse_on(browse, log_in, n, ending, shown) for n in range(READERS)]
        threads = [threading.Thread(target=guarded, args=(work,)) for work in (*uploads, *looks)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with syncing(settings, "--interval", "0.1", MYHEALTH_SYNC_BATCH_ROWS="10"):
                time.sleep(chance.uniform(0.5, 2))
            kills += 1  # by -9, as the block ends
        carry_over(settings)  # on a busy machine, each of them was killed before it began
        while sum(shown) <= 100 and not faults and time.monotonic() < deadline + 120:
            time.sleep(0.1)
        ending.set()
        for thread in threads:
            thread.join()
        assert faults == []
        carry_over(settings)
        print(f"\n{len(tablets.kept):,} reports acknowledged, {sum(shown):,} shown meanwhile, {kills} kills")
        for patient in PATIENTS:
            found = sorted((each["id"], each["checkup_report"]) for each in walk(browse, log_in(patient), 100))
            assert found == sorted((id_, text) for id_, (whose, text) in tablets.kept.items() if whose == patient)
        for id_, (whose, _) in random.sample(sorted(tablets.kept.items()), 20):
            other = next(patient for patient in PATIENTS if patient != whose)
            with pytest.raises(urllib.error.HTTPError, match="404"):
                call(f"{browse}/reports/{id_}/", log_in(other))
    assert len(tablets.kept) > 100
    assert sum(shown) > 100
    assert differences(db, reports) == NONE
