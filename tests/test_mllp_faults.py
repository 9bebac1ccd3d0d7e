"""`myhealth listen` killed at random moments, and a database that goes away, while senders repeat until AA."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from typing import Any

import pytest
from support.mllp import Listening, Sender, listening, message
from support.paths import DATA
from support.servers import crash, hanging

from myhealth.mllp.receiver import Receiver
from myhealth.processes import open_listening_socket

pytestmark = [pytest.mark.long, pytest.mark.process]

KILLS = int(os.environ.get("MLLP_KILLS", "30"))
SENDERS = 4
STORED = "select record_id, results->0->>'value' from checkups order by id"


class Repeating(threading.Thread):
    """Sends one message after the other, each until it is accepted, as an analyzer does. `accepted`: value by number;
    `answers`: how many there were of each code, None for none."""

    def __init__(self, port: int, name: str, ending: threading.Event) -> None:
        super().__init__(daemon=True)
        self.port, self.prefix, self.ending = port, name, ending
        self.accepted: dict[str, str] = {}
        self.answers: Counter[str | None] = Counter()

    def run(self) -> None:
        sender: Sender | None = None
        number = 0
        while not self.ending.is_set():
            number += 1
            value, code = f"{number % 89 + 1}.5", None
            while code != "AA":
                try:
                    sender = sender or Sender(self.port)
                    code = sender.ask(message(f"{self.prefix}-{number}", value=value))
                except OSError:
                    code = None
                self.answers[code] += 1
                if code is None:
                    if sender:
                        sender.socket.close()
                    sender = None
                    time.sleep(0.05)
            self.accepted[f"F{self.prefix}-{number}^LAB"] = value
        if sender:
            sender.socket.close()


def free_port() -> int:
    with open_listening_socket("127.0.0.1", 0) as probe:
        return int(probe.getsockname()[1])


def started(port: int) -> tuple[threading.Event, list[Repeating]]:
    ending = threading.Event()
    senders = [Repeating(port, chr(ord("A") + at), ending) for at in range(SENDERS)]
    for sender in senders:
        sender.start()
    return ending, senders


def ended(ending: threading.Event, senders: list[Repeating]) -> dict[str, str]:
    """Let the senders come to their ends; return what was accepted."""
    ending.set()
    for sender in senders:
        sender.join(120)
        assert not sender.is_alive()
    return {number: value for sender in senders for number, value in sender.accepted.items()}


def test_killed_at_random_moments_each_result_is_stored_once(db, people, settings, connect) -> None:
    chance, port = random.Random(), free_port()
    ending, senders = started(port)
    for _ in range(KILLS):
        with listening(settings, port=port) as running:
            before = sum(sender.answers["AA"] for sender in senders)
            deadline = time.monotonic() + 60
            while sum(sender.answers["AA"] for sender in senders) < before + SENDERS and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.2))
            assert running.end(signal.SIGKILL) == -signal.SIGKILL
    with listening(settings, port=port) as running:
        accepted = ended(ending, senders)
        assert running.end() == 0
    compare(connect(), accepted)
    assert {code for sender in senders for code in sender.answers} == {"AA", None}


def test_a_database_that_crashes_or_hangs_loses_nothing_and_nothing_is_accepted_in_vain(
    db, people, settings, postgres, connect
) -> None:
    with listening(settings) as running:
        ending, senders = started(running.port)
        for _ in range(2):
            wait_for_answers(running, senders)
            crash(postgres)
            wait_for_answers(running, senders, None)
            postgres.ensure()
            wait_for_answers(running, senders)
            with hanging(postgres):
                wait_for_answers(running, senders, None)
        accepted = ended(ending, senders)
        assert running.end() == 0
        assert "Traceback" not in running.said
    compare(connect(), accepted)
    assert {code for sender in senders for code in sender.answers} == {"AA", None}


def test_whatever_is_done_to_a_message_it_is_answered_without_an_error_of_ours(db, people, caplog) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    files = [message(1), *(path.read_bytes() for path in sorted(DATA.glob("*/*.hl7")))]
    odd = [
        b"|",
        b"^",
        b"~",
        b"\\",
        b"&",
        b"\r",
        b"\0",
        b"\xff",
        b"\rOBX|",
        b"\rPID|",
        b"\\X00\\",
        b"9" * 50,
        b"x" * 2000,
    ]
    for _ in range(300):
        data = chance.choice(files)
        for _ in range(chance.choice([1, 2, 5, 20])):
            at, cut = chance.randrange(len(data) + 1), chance.choice([0, 0, 1, 30])
            data = data[:at] + chance.choice(odd) * (cut == 0) + data[at + cut :]
        code, _ = Receiver(create_patients=chance.random() < 0.5).answer(data, "10.1.2.3")
        assert code in ("AA", "AE", "AR", "ACK"), seed
        assert "a message met" not in caplog.text, (seed, data)


def wait_for_answers(running: Listening, senders: list[Repeating], code: str | None = "AA") -> None:
    """Wait until each sender got a further answer of this code."""
    before = [sender.answers[code] for sender in senders]
    deadline = time.monotonic() + 120
    while any(sender.answers[code] <= count for sender, count in zip(senders, before, strict=True)):
        assert time.monotonic() < deadline, running.said
        time.sleep(0.02)


def compare(connection: Any, accepted: dict[str, str]) -> None:
    """Compare what was acknowledged with what is stored, both ways."""
    with connection.cursor() as cursor:
        cursor.execute(STORED)
        rows = cursor.fetchall()
        cursor.execute("select count(*) from rejections")
        assert cursor.fetchone() == (0,)
    assert len(rows) == len(dict(rows)), "a result is stored twice"
    assert dict(rows) == accepted
