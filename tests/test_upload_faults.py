"""The upload API's processes are killed: what was acknowledged is stored, and nothing is stored twice."""

import json
import os
import random
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

import pytest
from conftest import record

from myhealth import processes

UPLOADS, RECORDS, CLIENTS = 200, 20, 4


def send(url: str, token: str, number: int) -> dict[str, Any] | None:
    """One bulk upload; None where it was not acknowledged."""
    records = [record(f"{number}-{index}", machine="HC-1") for index in range(RECORDS)]
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/checkups/", json.dumps(records).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return dict(json.load(answer))
    except urllib.error.HTTPError as error:
        assert error.code == 503, error.read()
        assert int(error.headers["Retry-After"]) > 0
    except (OSError, HTTPException, ValueError):
        pass
    return None


def workers_of(master: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(master)], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


@pytest.mark.long
def test_workers_killed_at_any_moment_lose_and_double_nothing(settings, people, db, log_in) -> None:
    token, numbers, answers = log_in("tara"), iter(range(UPLOADS)), {}
    lock, kills, repeats, kill_at = threading.Lock(), 0, 0, 5

    def client() -> None:
        nonlocal repeats
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            while (answer := send(url, token, number)) is None:
                repeats += 1
                time.sleep(0.05)
            answers[number] = answer

    with (
        processes.listen("127.0.0.1", 0) as listener,
        processes.gunicorn("wsgi.upload:app", listener, settings, workers=2) as master,
    ):
        url = processes.url_of(listener)
        threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            # a worker that is killed before it has started would take no upload at all
            if len(answers) < kill_at:
                time.sleep(0.005)
                continue
            time.sleep(random.uniform(0, 0.1))
            for pid in workers_of(master.pid):
                os.kill(pid, signal.SIGKILL)
                kills += 1
            kill_at = len(answers) + random.randint(15, 30)
    assert kills > 0
    assert repeats > 0, "no kill has met an upload"
    assert len(answers) == UPLOADS
    stored = dict(db("select id, record_id from checkups"))
    assert len(stored) == UPLOADS * RECORDS
    for number, answer in answers.items():
        assert answer["rejected"] == 0
        assert [stored[item["id"]] for item in answer["items"]] == [f"{number}-{index}" for index in range(RECORDS)]
