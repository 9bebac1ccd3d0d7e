"""Senders of HL7 v2 over MLLP, and `myhealth listen` as a process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from myhealth.common.settings import Settings, child_environ
from support.hl7 import MSH, OBR, OBX, PID

TIMEOUT_S = 60.0


def message(
    number: int | str = 1, patient: str = "bholanath", value: str = "5.10", msh: str = MSH, obx: str = OBX
) -> bytes:
    """Return an ORU^R01 with one result; its order and its control id have the number."""
    segments = (msh.replace("MSG1", f"MSG{number}"), PID.replace("M100^^^HOSP^MR", patient).replace("Kulkarni^Bholanath^V^^^^L", ""),
                OBR.replace("F1", f"F{number}").replace("P1", f"P{number}"), obx.replace("5.10", value))  # fmt: skip
    return "".join(f"{segment}\r" for segment in segments).encode()


def framed(*messages: bytes) -> bytes:
    return b"".join(b"\x0b" + each + b"\x1c\r" for each in messages)


def segments(answer: bytes) -> dict[str, list[list[str]]]:
    """Return the fields of an acknowledgement's segments by name, with those of MSH at their numbers."""
    found: dict[str, list[list[str]]] = {}
    for line in answer.decode("latin-1").rstrip("\r").split("\r"):
        fields = line.split(line[3:4] if line.startswith("MSH") else answer.decode("latin-1")[3])
        found.setdefault(fields[0], []).append([fields[0], "|", *fields[1:]] if fields[0] == "MSH" else fields)
    return found


def code(answer: bytes) -> str:
    return segments(answer)["MSA"][0][1]


class Sender:
    """A connection that sends frames and reads answers."""

    def __init__(self, port: int, wrap: Any = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        if wrap:
            self.socket = wrap(self.socket)
        self._data = b""

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> bytes | None:
        """Return the next answer without its frame; None if the connection was closed instead."""
        while b"\x1c\r" not in self._data:
            try:
                part = self.socket.recv(65536)
            except ConnectionError:
                part = b""
            if not part:
                return None
            self._data += part
        taken, self._data = self._data.split(b"\x1c\r", 1)
        assert taken[:1] == b"\x0b"
        return taken[1:]

    def ask(self, data: bytes) -> str | None:
        """Send a message in a frame; return the code of its answer, None for none."""
        try:
            self.send(framed(data))
        except ConnectionError:
            return None
        answer = self.answer()
        return None if answer is None else code(answer)


class Listening:
    """A running `myhealth listen`. `said`: what it has written to stderr so far."""

    def __init__(self, settings: Settings, *words: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "cli", "-v", "listen", "--port", str(port), *words]
        self.process = subprocess.Popen(
            command, env={**os.environ, **child_environ(settings)}, stderr=subprocess.PIPE, text=True
        )
        self.said = ""
        self._ready = threading.Event()
        self.port = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._ready.wait(TIMEOUT_S)
        if not self.port:
            self.end(signal.SIGKILL)
            raise AssertionError(self.said)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said += line
            if found := re.search(r"listening on mllps?://.*:(\d+)$", line):
                self.port = int(found[1])
                self._ready.set()
        self._ready.set()

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until it has said so, this many times."""
        deadline = time.monotonic() + TIMEOUT_S
        while self.said.count(text) < times:
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal and return its exit code."""
        self.process.send_signal(how)
        return self.wait()

    def wait(self) -> int:
        returned = self.process.wait(TIMEOUT_S)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return returned


@contextlib.contextmanager
def listening(settings: Settings, *words: str, port: int = 0) -> Iterator[Listening]:
    """Run `myhealth listen` with these arguments until the block ends."""
    running = Listening(settings, *words, port=port)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.end(signal.SIGKILL)
