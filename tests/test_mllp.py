"""`myhealth listen`: connections, timeouts, TLS, signals, and senders that others wrote."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pytest
from support.hl7 import SAMPLE
from support.mllp import Listening, Sender, code, framed, listening, message

from cli.main import cli
from myhealth.common.settings import Settings

pytestmark = pytest.mark.process

CONTROL = ["MSG1", "MSG2", "MSG3"]
COUNT = "select count(*) from checkups"


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Listening]:
    """A listener for all tests of the file."""
    with listening(settings, "--max-message", "100000") as running:
        yield running
        assert running.end() == 0
        assert "Traceback" not in running.said


def test_several_frames_at_once_are_answered_in_order(db, people, server) -> None:
    with Sender(server.port) as sender:
        sender.send(b"\r\n" + framed(message(1), message(2)) + framed(message(3)).removesuffix(b"\r") + framed(b"x"))
        answers = [sender.answer() for _ in range(4)]
    assert [code(each or b"") for each in answers] == ["AA", "AA", "AA", "AR"]
    assert [(each or b"").split(b"MSA|AA|")[1][:4].decode() for each in answers[:3]] == CONTROL
    assert db(COUNT) == [(3,)]


def test_garbage_is_passed_over_and_told_once(db, people, server) -> None:
    before = server.said.count("bytes outside of frames")
    with Sender(server.port) as sender:
        for number in range(3):
            sender.send(b"GET / HTTP/1.1\r\n\r\n" * 1000)
            assert sender.ask(message(number)) == "AA"
    server.wait_for("bytes outside of frames", before + 1)
    assert server.said.count("bytes outside of frames") == before + 1


def test_a_frame_without_an_end_is_refused_at_the_limit(db, people, server) -> None:
    with Sender(server.port) as sender:
        sender.send(b"\x0b" + message(5) + b"x" * 200_000)
        answer = sender.answer()
        assert answer is not None
        assert (code(answer), b"MSA|AR|MSG5|it has more than 100000 bytes" in answer) == ("AR", True)
        assert sender.answer() is None
    assert db(COUNT) == [(0,)]


def test_a_sender_that_closes_within_a_frame_stores_nothing(db, people, server) -> None:
    with Sender(server.port) as sender:
        sender.send(framed(message(1)) + b"\x0b" + message(2))
        sender.socket.shutdown(socket.SHUT_WR)
        assert code(sender.answer() or b"") == "AA"
        assert sender.answer() is None
    assert db(COUNT) == [(1,)]


def test_200_connections_of_which_most_do_nothing_hold_nobody_back(db, people, server) -> None:
    others = [Sender(server.port) for _ in range(200)]
    for number, other in enumerate(others[:150]):
        other.send((b"", b"\x0b", b"\x0bMSH|", b"noise", framed(message(number))[:-2])[number % 5])
    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(lambda at: others[150 + at].ask(message(1000 + at)), range(50))) == {"AA"}
    assert db("select count(*) from checkups where record_id like 'F1___^LAB'") == [(50,)]
    for other in others:
        other.socket.close()


def test_python_hl7s_mllp_send_sends_the_samples(db, people, server, tmp_path: Path) -> None:
    file = tmp_path / "sample.hl7"
    file.write_bytes(SAMPLE.read_bytes().replace(b"555-44-4444", b"bholanath").replace(b"196203520", b"19620320"))
    words = [
        sys.executable,
        "-m",
        "hl7.client",
        "--port",
        str(server.port),
        "--loose",
        "--file",
        str(file),
        "127.0.0.1",
    ]
    for _ in range(2):
        done = subprocess.run(words, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert b"\rMSA|AA|CNTRL-3456\r" in done.stdout.replace(b"\n", b"\r"), done.stdout
    assert db("select record_id from checkups") == [("1045813^GHH LAB",)]


@contextlib.contextmanager
def slow_inserts(db) -> Iterator[None]:
    """Let each insert of a check-up take until there is a machine called `go`."""
    db("create function wait_to_go() returns trigger language plpgsql as $$ begin"
       " while not exists (select from machines where serial = 'go') loop perform pg_sleep(0.02); end loop;"
       " return new; end $$")  # fmt: skip
    db("create trigger wait_to_go before insert on checkups for each row execute function wait_to_go()")
    try:
        yield
    finally:
        go(db)
        db("drop trigger wait_to_go on checkups; drop function wait_to_go")


def go(db) -> None:
    db("insert into machines (serial) values ('go') on conflict do nothing")


def wait_for_insert(db) -> None:
    deadline = time.monotonic() + 60
    while not db("select 1 from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()"):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_a_signal_ends_it_once_what_is_being_stored_is_answered(db, people, settings, how) -> None:
    with slow_inserts(db), listening(settings) as running, contextlib.ExitStack() as stack:
        idle, sender = (stack.enter_context(Sender(running.port)) for _ in range(2))
        sender.send(framed(message(1), message(2)))
        wait_for_insert(db)
        running.process.send_signal(how)
        assert idle.answer() is None
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", running.port), timeout=5)
        go(db)
        assert code(sender.answer() or b"") == "AA"
        assert sender.answer() is None
        assert running.wait() == 0
    assert db(COUNT) == [(1,)]


@pytest.mark.long
def test_a_second_signal_ends_it_at_once(db, people, settings) -> None:
    with slow_inserts(db), listening(settings) as running, contextlib.ExitStack() as stack:
        idle, sender = (stack.enter_context(Sender(running.port)) for _ in range(2))
        sender.send(framed(message(1)))
        wait_for_insert(db)
        running.process.send_signal(signal.SIGTERM)
        assert idle.answer() is None
        assert running.end() == -signal.SIGTERM


def test_only_allowed_addresses_may_send(db, people, settings) -> None:
    with (
        listening(settings, "--allow", "10.0.0.0/8", "--metrics", "127.0.0.1:0") as running,
        Sender(running.port) as sender,
    ):
        assert sender.ask(message(1)) is None
        running.wait_for("refused 127.0.0.1: it is not allowed to send")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--host", "0.0.0.0"], 2, "name those who may send with --allow"),
        (["--allow", "10.0.0.0/40"], 78, "--allow: '10.0.0.0/40' is neither an address"),
        (["--tls-key", "x"], 2, "need --tls-cert"),
        (["--tls-cert", "/nowhere"], 78, "cannot be used"),
        (["--machine", "a/b"], 2, "contains a /"),
        (["--metrics", "nowhere"], 78, "metrics cannot be served at nowhere"),
        (["--timezone", "Mars"], 2, "is not a zone"),
    ],
)  # fmt: skip
def test_wrong_options_are_told(words: list[str], status: int, said: str) -> None:
    with pytest.raises(click.ClickException, match=said) as found:
        cli.main(["listen", *words], standalone_mode=False)
    assert found.value.exit_code == status


def certificate(folder: Path, name: str) -> list[str]:
    """Make a self-signed certificate; return the names of its file and of its key's."""
    files = [str(folder / f"{name}.{kind}") for kind in ("pem", "key")]
    words = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    words += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]]
    subprocess.run(["openssl", "req", *words], check=True, capture_output=True)
    return files


def test_tls_with_a_certificate_of_the_client(db, people, settings, tmp_path: Path) -> None:
    ours, theirs = certificate(tmp_path, "server"), certificate(tmp_path, "client")
    words = ["--tls-cert", ours[0], "--tls-key", ours[1], "--tls-client-ca", theirs[0]]
    context = ssl.create_default_context(cafile=ours[0])
    with listening(settings, *words) as running:
        with Sender(running.port) as plain:
            assert plain.ask(message(1)) is None
        with pytest.raises(OSError), Sender(running.port, lambda each: context.wrap_socket(each, server_hostname="127.0.0.1")) as stranger:  # fmt: skip
            assert stranger.ask(message(1)) is None
            raise ConnectionError
        context.load_cert_chain(*theirs)
        with Sender(running.port, lambda each: context.wrap_socket(each, server_hostname="127.0.0.1")) as sender:
            assert sender.ask(message(1)) == "AA"
            assert sender.ask(b"x" * 300_000) == "AR"
        assert running.end() == 0
        assert "Traceback" not in running.said
    assert db(COUNT) == [(1,)]
