"""The server of MLLP connections, with answers of the test: timeouts, slow senders, limits, half-open connections."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support.mllp import framed

from myhealth.common.errors import SettingsError, Unavailable
from myhealth.mllp import Limits
from myhealth.mllp import server as module
from myhealth.mllp.protocol import Frames
from myhealth.mllp.server import Figures, MllpServer, serve_metrics
from myhealth.processes import open_listening_socket

TIMEOUT_S = 60
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Connection]]


def echo(message: bytes, _: str) -> tuple[str, list[bytes]]:
    return "AA", [message]


def serve(scenario: Callable[[MllpServer, Connect], Awaitable[None]], answer: Any = echo, **limits: Any) -> MllpServer:
    """Run a scenario against a server; it gets the server and a function that connects to it."""

    async def main() -> MllpServer:
        server = MllpServer(answer, Limits(**limits))
        with open_listening_socket("127.0.0.1", 0) as listener:
            opened: list[Connection] = []

            async def connect() -> Connection:
                opened.append(await asyncio.open_connection("127.0.0.1", listener.getsockname()[1]))
                return opened[-1]

            running = asyncio.create_task(server.run(listener))
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await scenario(server, connect)
            finally:
                for _, writer in opened:
                    writer.transport.abort()
                server.stop()
                await running
        return server

    return asyncio.run(main())


async def ask(connection: Connection, *messages: bytes) -> bytes:
    """Send messages; return as many bytes as they have, less at the end of the connection."""
    connection[1].write(framed(*messages))
    wanted = len(framed(*messages))
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        return await connection[0].readexactly(wanted)
    return b""


async def is_closed(connection: Connection) -> bool:
    with contextlib.suppress(ConnectionError):
        while await connection[0].read(65536):
            pass
    return True


def test_a_connection_without_a_message_is_closed_and_garbage_does_not_keep_it() -> None:
    async def scenario(_: MllpServer, connect: Connect) -> None:
        silent, noisy = await connect(), await connect()

        async def make_noise() -> None:
            with contextlib.suppress(ConnectionError):
                while True:
                    noisy[1].write(b"noise")
                    await noisy[1].drain()
                    await asyncio.sleep(0.02)

        noise = asyncio.create_task(make_noise())
        assert await is_closed(silent)
        assert await is_closed(noisy)
        noise.cancel()

    assert serve(scenario, idle_s=0.3).figures.answers == {}


def test_a_message_that_drips_in_is_left_and_others_are_answered_meanwhile() -> None:
    async def scenario(_: MllpServer, connect: Connect) -> None:
        slow, other = await connect(), await connect()
        slow[1].write(b"\x0b")
        closing = asyncio.create_task(is_closed(slow))
        with contextlib.suppress(ConnectionError):
            while not closing.done():
                slow[1].write(b"x")
                await slow[1].drain()
                assert await ask(other, b"quick") == framed(b"quick")
        assert await closing

    serve(scenario, frame_s=0.3)


def test_a_sender_that_takes_no_answers_is_left(monkeypatch) -> None:
    monkeypatch.setattr(module, "WRITE_S", 0.3)

    async def scenario(server: MllpServer, connect: Connect) -> None:
        deaf, other = await connect(), await connect()
        deaf[1].write(framed(*[b"a"] * 100))
        while server.figures.answers["AA"] < 1:
            await asyncio.sleep(0.01)
        assert await ask(other, b"") != b""
        while len(server._held) > 1:
            await asyncio.sleep(0.01)
        assert server.figures.answers["AA"] < 100

    serve(scenario, lambda message, _: ("AA", [b"x" * 20_000_000 if message else b""]))


def test_small_messages_pass_large_ones_that_are_being_stored() -> None:
    stored = threading.Event()

    def answer(message: bytes, _: str) -> tuple[str, list[bytes]]:
        if len(message) > module.LARGE_BYTES:
            stored.wait(TIMEOUT_S)
        return "AA", [message[:1]]

    async def scenario(_: MllpServer, connect: Connect) -> None:
        large = [await connect() for _ in range(6)]
        for connection in large:
            connection[1].write(framed(b"L" * (module.LARGE_BYTES + 1)))
        other = await connect()
        for _ in range(3):
            assert await ask(other, b"s") == framed(b"s")
        stored.set()
        for connection in large:
            assert await connection[0].readexactly(4) == framed(b"L")

    serve(scenario, answer)


def test_too_many_connections_and_too_many_bytes_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 2)
    monkeypatch.setattr(module, "HELD_MAX", 3 * module.LARGE_BYTES)

    async def scenario(server: MllpServer, connect: Connect) -> None:
        first, second = await connect(), await connect()
        assert await ask(first, b"a") + await ask(second, b"b") == framed(b"a", b"b")
        assert await is_closed(await connect())
        first[1].write(b"\x0b" + b"x" * (module.LARGE_BYTES + 1))
        while max(server._held.values()) <= module.LARGE_BYTES:
            await asyncio.sleep(0.01)
        second[1].write(b"\x0b" + b"x" * (module.LARGE_BYTES * 3))
        assert await is_closed(second)
        first[1].write(b"\x1c")
        assert await first[0].readexactly(module.LARGE_BYTES) == b"\x0b" + b"x" * (module.LARGE_BYTES - 1)

    figures = serve(scenario).figures
    assert (figures.connections, figures.refused) == (0, 1)


def test_what_cannot_be_stored_now_is_not_answered_and_nothing_behind_it_either(monkeypatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.01)

    def answer(message: bytes, _: str) -> tuple[str, list[bytes]]:
        if message == b"b":
            raise Unavailable("PostgreSQL is unavailable")
        return "AA", [message]

    async def scenario(_: MllpServer, connect: Connect) -> None:
        connection = await connect()
        connection[1].write(framed(b"a", b"b", b"c"))
        assert await connection[0].read() == framed(b"a")

    assert serve(scenario, answer).figures.answers == {"AA": 1, "none": 1}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux lists its sockets there")
def test_the_system_asks_whether_a_silent_peer_is_still_there() -> None:
    async def scenario(_: MllpServer, connect: Connect) -> None:
        connection = await connect()
        assert await ask(connection, b"a") == framed(b"a")
        _, port = connection[1].get_extra_info("peername")
        ours = f":{port:04X} "
        (row,) = [
            line for line in Path("/proc/net/tcp").read_text().splitlines()
            if ours in line[:20] and line.split()[3] == "01"
        ]  # fmt: skip
        assert row.split()[5].startswith("02:"), "its timer is not that of keepalive"

    serve(scenario)


def test_its_figures_are_served_for_prometheus() -> None:
    figures = Figures(connections=2, refused=1, seconds=0.5, answers=Counter({"AA": 3, "AE": 1}))
    server = serve_metrics(figures, "127.0.0.1:0")
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
    finally:
        server.shutdown()
        server.server_close()
    shown = {line for line in lines if not line.startswith("#")}
    assert shown == {
        'myhealth_mllp_messages_total{code="AA"} 3.0', 'myhealth_mllp_messages_total{code="AE"} 1.0',
        "myhealth_mllp_seconds_total 0.5", "myhealth_mllp_refused_total 1.0", "myhealth_mllp_connections 2.0",
    }  # fmt: skip
    with pytest.raises(SettingsError, match="metrics cannot be served at nowhere"):
        serve_metrics(figures, "nowhere")


def test_many_frames_cost_time_in_their_number_only() -> None:
    frames = Frames(10**7)
    frames.feed(framed(*[b"x"] * 100_000) + b"\x0b" * 1_000_000)
    assert sum(1 for _ in iter(frames.take, None)) == 100_000
    for _ in range(2000):
        frames.feed(b"y" * 1000)
        assert frames.take() is None
    frames.feed(b"\x1c")
    assert frames.take() == b"y" * 2_000_000
