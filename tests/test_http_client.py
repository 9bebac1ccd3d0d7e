"""The client that all calls to other servers go through, against real sockets."""

import gzip
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from myhealth.common.http_client import BadResponse, HttpClient, NoResponse, ResponseTimeout


class Server(http.server.BaseHTTPRequestHandler):
    """Records each request, and responds by its path; `connections` counts those that were opened."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, Any]] = []
    connections = 0

    def setup(self) -> None:
        type(self).connections += 1
        super().setup()

    def respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append({"method": self.command, "path": self.path, "headers": self.headers, "body": body})
        if self.path == "/slow":
            time.sleep(1)
        if self.path == "/hang-up" or (self.path == "/hang-up-once" and len(self.seen) == 1):
            self.close_connection = True
            return
        content = gzip.compress(b"x" * 5000) if self.path == "/packed" else json.dumps({"details": "D", "code": "C"}).encode()  # fmt: skip
        self.send_response(302 if self.path == "/elsewhere" else 200)
        self.send_header("Content-Length", str(len(content) + (self.path == "/cut-off")))
        if self.path == "/packed":
            self.send_header("Content-Encoding", "gzip")
        if self.path == "/elsewhere":
            self.send_header("Location", "/")
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = self.path == "/cut-off"

    do_GET = do_POST = do_PUT = do_DELETE = respond

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[type[Server]]:
    handler = type("Recording", (Server,), {"seen": [], "connections": 0})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}).start()
    handler.url = f"http://127.0.0.1:{running.server_port}"  # type: ignore[attr-defined]
    yield handler
    running.shutdown()
    running.server_close()


@pytest.fixture
def client(server: Any) -> Iterator[HttpClient]:
    with closing(HttpClient(server.url + "/", timeout_s=0.5, response_max_bytes=1000)) as client:
        yield client


def test_it_sends_what_it_is_given_and_returns_any_status(server: Any, client: HttpClient) -> None:
    response = client.call("PUT", "/users/b%C3%A9/", b"{}", {"Authorization": "Bearer T"})
    assert (response.status, response.json_object(), response.error()) == (
        200,
        {"details": "D", "code": "C"},
        ("D", "C"),
    )
    (seen,) = server.seen
    assert (seen["method"], seen["path"], seen["body"]) == ("PUT", "/users/b%C3%A9/", b"{}")
    assert seen["headers"]["Authorization"] == "Bearer T"


def test_it_follows_no_redirect(server: Any, client: HttpClient) -> None:
    for repeatable in (True, False):
        response = client.call("GET", "/elsewhere", headers={"Authorization": "Bearer T"}, repeatable=repeatable)
        assert (response.status, response.headers["location"]) == (302, "/")
    assert [seen["path"] for seen in server.seen] == ["/elsewhere"] * 2


def test_repeatable_calls_share_a_connection_and_others_do_not(server: Any, client: HttpClient) -> None:
    for _ in range(3):
        client.call("POST", "/", b"x", repeatable=True)
    assert server.connections == 1
    for _ in range(3):
        client.call("POST", "/", b"x")
    assert server.connections == 4


def test_a_closed_connection_is_replaced_for_repeatable_calls_only(server: Any, client: HttpClient) -> None:
    assert client.call("POST", "/hang-up-once", b"x", repeatable=True).status == 200
    assert len(server.seen) == 2
    server.seen.clear()
    with pytest.raises(NoResponse):
        client.call("POST", "/hang-up-once", b"x")
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("path", "kind", "sent"),
    [("/slow", ResponseTimeout, 1), ("/hang-up", NoResponse, 2), ("/cut-off", NoResponse, 1), ("/packed", BadResponse, 1)],
)  # fmt: skip
def test_it_says_how_a_response_failed(server: Any, client: HttpClient, path: str, kind: type, sent: int) -> None:
    with pytest.raises(kind) as caught:
        client.call("GET", path, repeatable=True)
    assert len(server.seen) == sent
    assert isinstance(caught.value, ResponseTimeout) == (kind is ResponseTimeout)


def test_a_server_that_is_not_there_has_not_timed_out() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        client = HttpClient(url, timeout_s=5, response_max_bytes=1)
        with pytest.raises(NoResponse) as caught:
            client.call("GET", "/")
    assert not isinstance(caught.value, ResponseTimeout)
    assert str(caught.value) == f"{url} cannot be reached: Failed to establish a new connection: Connection refused"


def test_a_proxy_of_the_environment_serves_all_but_this_machine(server: Any, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    with closing(HttpClient("http://upload.example", timeout_s=5, response_max_bytes=1000)) as client:
        assert client.call("GET", "/healthz").status == 200
    assert server.seen[0]["path"] == "http://upload.example/healthz"
    with closing(HttpClient(server.url, timeout_s=5, response_max_bytes=1000)) as client:
        client.call("GET", "/healthz")
    assert server.seen[1]["path"] == "/healthz"


def test_an_error_of_another_program_is_its_reason_phrase(server: Any, client: HttpClient) -> None:
    response = client.call("GET", "/")
    assert type(response)(502, "Bad Gateway", {}, b"<html>").error() == ("Bad Gateway", "")
    assert type(response)(502, "Bad Gateway", {}, b"[]").error() == ("Bad Gateway", "")
