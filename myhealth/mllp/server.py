"""Serve MLLP connections: one event loop reads and writes, a few threads store. Nobody waits for a slow sender.

The loop holds at most one message of each connection; a sender that sends several at once gets its answers in order.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import prometheus_client
from msgspec import Struct, field
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from myhealth.common.addresses import fold_address, is_trusted
from myhealth.common.errors import MyHealthError, SettingsError
from myhealth.mllp import Limits
from myhealth.mllp.protocol import FS, VT, Frames, FrameTooLong, acknowledge, read_head
from myhealth.mllp.receiver import refused

log = logging.getLogger(__name__)

THREADS = 4
LARGE_BYTES, LARGE_AT_ONCE = 256 * 1024, 2  # the other threads are for small messages
HELD_MAX = 256 * 1024 * 1024  # bytes of all connections together
CONNECTIONS_MAX = 500
CHUNK = 64 * 1024
WRITE_S, TLS_S, LINGER_S = 10.0, 10.0, 2.0
RETRY_S = 1.0  # many senders connect again at once when they got no answer
SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A peer that is gone is noticed after two minutes.
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


class Figures(Struct):
    """What a server has done so far. `answers`: the number of messages by the code of their acknowledgement, "none" for
    those that were not answered; `seconds`: how long they took. `connections`: now; `refused`: how many were not taken.
    """

    connections: int = 0
    refused: int = 0
    seconds: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)


class MllpServer:
    """Takes messages over MLLP and acknowledges each.

    `answer`: stores the message of an address; returns the code of its acknowledgement and what to send back. It is
    called in threads, and raises MyHealthError if the message is not to be answered."""

    def __init__(self, answer: Callable[[bytes, str], tuple[str, list[bytes]]], limits: Limits) -> None:
        self.figures = Figures()
        self._answer, self._limits = answer, limits
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="mllp")
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._stop = asyncio.Event()
        self._held: dict[Any, int] = {}  # bytes by connection (its task)
        self._reading: set[Any] = set()  # connections that wait for their sender

    async def run(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve until SIGTERM or SIGINT; then finish, answer and close what is being stored. A second signal ends the
        process at once."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_log_failure)
        for number in SIGNALS:
            loop.add_signal_handler(number, self._end)
        timeout = TLS_S if tls else None
        server = await asyncio.start_server(self._connected, sock=listener, ssl=tls, ssl_handshake_timeout=timeout)
        await self._stop.wait()
        server.close()
        for task in self._reading:
            task.cancel()
        if self._held:
            await asyncio.wait(list(self._held))
        self._pool.shutdown()

    def stop(self) -> None:
        """Let `run` end. Call it in the event loop."""
        self._stop.set()

    def _end(self) -> None:
        self.stop()
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address, task = fold_address(str((writer.get_extra_info("peername") or ("",))[0])), asyncio.current_task()
        is_allowed = is_trusted(address, self._limits.allow)
        if not is_allowed or len(self._held) >= CONNECTIONS_MAX or self._stop.is_set():
            self.figures.refused += 1
            log.warning(
                "refused %s: %s", address, "too many connections" if is_allowed else "it is not allowed to send"
            )
            writer.transport.abort()
            return
        self.figures.connections += 1
        self._held[task] = 0
        try:
            _prepare(writer)
            await self._serve(Frames(self._limits.message_max), reader, writer, address)
            self._held[task] = 0
            await _linger(reader, writer)
        except asyncio.CancelledError:  # the server ends
            pass
        except TimeoutError:
            log.warning("closed the connection of %s: it sent nothing, or took no answer, for too long", address)
        except OSError as error:
            log.info("lost the connection of %s: %s", address, error.strerror)
        finally:
            self.figures.connections -= 1
            del self._held[task]
            self._reading.discard(task)
            writer.close()

    async def _serve(
        self, frames: Frames, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str
    ) -> None:
        """Answer one message after the other until the sender has closed or must be left. Raises TimeoutError."""
        is_broken = False
        while not (is_broken or self._stop.is_set()):
            try:
                message = await self._next(frames, reader, address)
                if message is None:
                    return
                began = time.monotonic()
                code, answers = await self._store(message, address)
                self.figures.seconds += time.monotonic() - began
            except FrameTooLong as error:
                verdict = refused("207", f"it has more than {self._limits.message_max} bytes")
                code, answers = "AR", acknowledge(read_head(error.start), verdict)
                is_broken = True
            except MyHealthError as error:
                log.warning("a message of %s was not answered, so that it comes again: %s", address, error)
                self.figures.answers["none"] += 1
                await asyncio.sleep(RETRY_S)
                return
            log.info("a message of %s: %s", address, code)
            self.figures.answers[code] += 1
            writer.writelines([VT + answer + FS + b"\r" for answer in answers])
            async with asyncio.timeout(WRITE_S):
                await writer.drain()

    async def _next(self, frames: Frames, reader: asyncio.StreamReader, address: str) -> bytes | None:
        """Return the next message, None at the end of the connection. Raises TimeoutError, FrameTooLong."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        deadline, began = loop.time() + self._limits.idle_s, False
        self._reading.add(task)
        try:
            while True:
                before = frames.stray
                message = frames.take()
                if frames.stray and not before:
                    log.warning("%s sends bytes outside of frames; they are passed over", address)
                if message is not None:
                    self._held[task] = len(frames) + len(message)
                    return message
                if frames.is_open and not began:
                    deadline, began = min(deadline, loop.time() + self._limits.frame_s), True
                async with asyncio.timeout_at(deadline):
                    data = await reader.read(CHUNK)
                if not data:
                    return None
                frames.feed(data)
                self._held[task] = len(frames)
                if len(frames) > LARGE_BYTES and sum(self._held.values()) > HELD_MAX:
                    log.warning("closed the connection of %s: too much comes in at once", address)
                    return None
        finally:
            self._reading.discard(task)

    async def _store(self, message: bytes, address: str) -> tuple[str, list[bytes]]:
        async with self._large if len(message) > LARGE_BYTES else contextlib.nullcontext():
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._answer, message, address)


def _log_failure(_: asyncio.AbstractEventLoop, found: dict[str, Any]) -> None:
    log.warning("a connection failed: %s: %s", found["message"], type(found.get("exception")).__name__)


def _prepare(writer: asyncio.StreamWriter) -> None:
    """Let the system close half-open connections, and `drain` wait for all that was written."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, seconds in KEEPALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
    writer.transport.set_write_buffer_limits(0)


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Give the sender time to read our last answer: if we closed while it is sending, the system would discard the
    answer."""
    if writer.can_write_eof():
        writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while await reader.read(CHUNK):
                pass


class _Collector(Struct, eq=False):
    figures: Figures

    def collect(self) -> Iterable[Metric]:
        found = self.figures
        answers = CounterMetricFamily("myhealth_mllp_messages", "Messages by acknowledgement.", labels=("code",))
        for code, count in list(found.answers.items()):
            answers.add_metric((code,), count)
        yield answers
        yield CounterMetricFamily("myhealth_mllp_seconds", "Seconds until messages were stored.", found.seconds)
        yield CounterMetricFamily("myhealth_mllp_refused", "Connections that were not taken.", found.refused)
        yield GaugeMetricFamily("myhealth_mllp_connections", "Open connections.", found.connections)


def serve_metrics(figures: Figures, address: str) -> Any:
    """Answer scrapes at `HOST:PORT` in a thread; return the server. Raises SettingsError."""
    host, _, port = address.rpartition(":")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(figures))
    try:
        return prometheus_client.start_http_server(int(port), host.strip("[]"), registry)[0]
    except (OSError, ValueError, OverflowError) as error:
        raise SettingsError(f"metrics cannot be served at {address}: {error}", hint="name HOST:PORT") from error
