"""The client of the upload API against upload APIs in trouble; against a real one it is tested with the browse API."""

import http.server
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from myhealth.common.concurrency import WAIT_S
from myhealth.common.errors import Busy, NotAllowed, TooManyAttempts, Unavailable
from myhealth.profiles.upload_client import (
    LOGINS_MAX,
    TOKENS_VALID_AFTER,
    BadGateway,
    GatewayTimeout,
    UploadApiUnavailable,
    UploadClient,
)

CALLS: dict[str, Callable[[UploadClient], Any]] = {
    "log in": lambda client: client.log_in("bholanath", "secret"),
    "log out": lambda client: client.log_out("TOKEN"),
    "delete a user": lambda client: client.delete_user("bholanath", "TOKEN"),
    "change a password": lambda client: client.change_password("bholanath", "TOKEN", "old", "new"),
    "list accounts": lambda client: client.list_accounts_to_review("TOKEN", "", 20),
    "link an account": lambda client: client.link_user("bholanath", "TOKEN"),
    "fetch keys": lambda client: client.fetch_keys(),
}
ERROR = b'{"details": "It is so.", "code": "so"}'


class Stub(http.server.BaseHTTPRequestHandler):
    responses: dict[str, tuple[int, dict[str, str], bytes]]
    seen: list[tuple[str, str | None]]

    def respond(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.path, self.headers["Authorization"]))
        status, headers, body = self.responses.get(self.path, self.responses[""])
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = respond

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[Callable[..., tuple[UploadClient, list[Any]]]]:
    """Starts an upload API that responds so to everything; returns its client, and the requests that it has seen."""
    running: list[Any] = []

    def start(status: int, body: bytes = b"", **headers: str) -> tuple[UploadClient, list[Any]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        handler = type("Handler", (Stub,), {"responses": {"": (status, named, body)}, "seen": []})
        running.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=running[-1].serve_forever, args=(0.02,)).start()
        return UploadClient(f"http://127.0.0.1:{running[-1].server_port}"), handler.seen  # type: ignore[attr-defined]

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("name", CALLS)
def test_a_redirect_takes_the_token_nowhere_and_is_no_success(answering, name: str) -> None:
    elsewhere, seen = answering(200, b'{"token": "T", "expires_at": "", "keys": []}')
    client, _ = answering(302, Location=f"{elsewhere._url}/")
    with pytest.raises(Unavailable):
        CALLS[name](client)
    assert seen == []


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [(503, ERROR, UploadApiUnavailable), (504, b"", GatewayTimeout), (500, b"oops", BadGateway), (200, b"[", BadGateway),
     (404, b"<html>", BadGateway)],
)  # fmt: skip
def test_it_tells_the_errors_of_the_upload_api_apart(answering, status: int, body: bytes, error: type) -> None:
    client, _ = answering(status, body)
    with pytest.raises(error):
        CALLS["delete a user"](client)
    with pytest.raises(UploadApiUnavailable if error is GatewayTimeout else error):  # a login may be repeated
        CALLS["log in"](client)


def test_an_error_of_the_caller_is_raised(answering) -> None:
    client, seen = answering(403, ERROR)
    for call in (
        lambda: client.delete_user("a/b", "TOKEN"),
        lambda: client.change_password("a", "TOKEN", "old", "new"),
    ):
        with pytest.raises(NotAllowed, match="It is so") as caught:
            call()
        assert caught.value.code == "so"
    assert seen == [("/users/a%2Fb/", "Bearer TOKEN"), ("/users/a/", "Bearer TOKEN")]


@pytest.mark.parametrize(
    ("header", "expected"), [("7", 7), ("99999", 3600), ("Wed, 21 Oct 2026 07:28:00 GMT", 60), ("-1", 60)]
)
def test_too_many_attempts_say_when_to_try_again(answering, header: str, expected: int) -> None:
    client, _ = answering(429, ERROR, Retry_After=header)
    with pytest.raises(TooManyAttempts) as caught:
        client.log_in("bholanath", "secret")
    assert caught.value.retry_after_s == expected


def test_it_reads_from_when_on_tokens_are_valid(answering) -> None:
    moment = datetime(2026, 11, 28, 7, tzinfo=UTC)
    client, _ = answering(204, **{TOKENS_VALID_AFTER: moment.isoformat()})
    assert client.log_out("TOKEN") == moment
    client, _ = answering(401, ERROR, **{TOKENS_VALID_AFTER: moment.isoformat()})
    assert client.log_out("TOKEN") is None
    client, _ = answering(200, b"{}", **{TOKENS_VALID_AFTER: "soon"})
    assert client.change_password("a", "TOKEN", "old", "new") is None


@pytest.mark.parametrize("keys", [{}, {"keys": 1}, {"keys": [{}]}, {"keys": [{"kid": 1}]}, {"keys": ["x"]}], ids=str)
def test_keys_without_a_name_are_unusable(answering, keys: dict[str, Any]) -> None:
    client, _ = answering(200, json.dumps(keys).encode())
    with pytest.raises(Unavailable, match="gives no keys"):
        client.fetch_keys()


def test_few_threads_wait_for_passwords_and_the_others_are_refused_at_once() -> None:
    """An upload API that is busy with logins holds up no reading: the other threads of the process stay free."""
    with ThreadPoolExecutor(LOGINS_MAX) as threads, socket.create_server(("127.0.0.1", 0)) as silent:
        client = UploadClient(f"http://127.0.0.1:{silent.getsockname()[1]}")
        waiting = [threads.submit(CALLS["log in"], client) for _ in range(LOGINS_MAX)]
        taken = [silent.accept()[0] for _ in waiting]
        started = time.monotonic()
        with pytest.raises(Busy) as refused:
            client.log_in("bholanath", "secret")
        assert time.monotonic() - started < WAIT_S
        with pytest.raises(Busy):
            CALLS["change a password"](client)
        with pytest.raises(Busy):
            client.get_caller("TOKEN")
        assert refused.value.retry_after_s == 1
        silent.close()
        for connection in taken:
            connection.close()
        for each in waiting:
            with pytest.raises(Unavailable):
                each.result()


def test_a_busy_upload_api_says_when_to_try_again(answering) -> None:
    client, _ = answering(503, ERROR, Retry_After="1")
    with pytest.raises(UploadApiUnavailable) as caught:
        client.log_in("bholanath", "secret")
    assert caught.value.retry_after_s == 1
