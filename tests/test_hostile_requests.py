"""Send malformed bytes to the upload API under gunicorn: the answer is clear, nothing is stored, and the next request
is served."""

import gzip
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.clients import check_error_shape
from support.factories import dump, record

MOST = 67_108_864
GOOD = json.dumps([record(1)]).encode()
NAME = "Jos\xe9"
DEEP = 200_000


def request(
    *headers: str, body: bytes = b"", length: int | None = None, line: str = "POST /checkups/ HTTP/1.1"
) -> bytes:
    sized = [] if length == -1 else [f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([line, "Host: x", "Connection: close", *sized, *headers, "", ""]).encode("latin-1") + body


def chunked(*parts: bytes, ending: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + ending
    return request("Transfer-Encoding: chunked", body=body, length=-1)


def packed(body: bytes) -> bytes:
    return request("Content-Encoding: gzip", body=body)


# What is sent, the status, and what is said.
REFUSED: dict[str, tuple[bytes, int, str]] = {
    "a gzip bomb": (packed(gzip.compress(b" " * (MOST + 1))), 413, f"more than {MOST} bytes"),
    "a bomb of many parts": (packed(gzip.compress(b" " * 10**6) * 70), 413, f"more than {MOST} bytes"),
    "parts without number": (packed(gzip.compress(b"") * 400_000), 400, "empty"),
    "gzip in gzip": (packed(gzip.compress(gzip.compress(b" " * (MOST + 1)))), 400, "empty"),
    "a bomb in a file": (request(body=gzip.compress(b'["' + b"x" * MOST)), 413, f"more than {MOST} bytes"),
    "gzip that is cut short": (packed(gzip.compress(GOOD)[:-9]), 400, "cut short"),
    "two packings": (request("Content-Encoding: gzip, gzip", body=gzip.compress(gzip.compress(GOOD))), 415, "not known"),
    "lists in lists": (request(body=b"[" * DEEP), 400, "cut short"),
    "objects in objects": (request(body=b'{"a":' * DEEP), 400, ""),
    "lists in lists, whole": (request(body=b"[" * DEEP + b"]" * DEEP), 422, ""),
    "a record too deep": (request(body=GOOD.replace(b'"dr.ayush"', b"[" * DEEP + b"]" * DEEP)), 422, ""),
    "a deep login": (request(body=b"[" * 10_000, line="POST /login/ HTTP/1.1"), 400, "nested too deeply"),
    "a body cut short": (request(body=GOOD, length=len(GOOD) + 1), 400, "shorter than its Content-Length"),
    "a body that is said to be too large": (request(body=GOOD, length=MOST + 1), 413, f"at most {MOST}"),
    "chunks that are too many": (chunked(*[b" " * 2**20] * 65), 413, f"more than {MOST} bytes"),
    "a chunk without a length": (chunked(GOOD, ending=b"zz\r\n\r\n"), 400, "cannot be read"),
    "chunks without an end": (chunked(GOOD, ending=b""), 400, ""),
    "no body": (request(), 400, "empty"),
    "a page": (request("Content-Type: text/html", body=b"<html>"), 400, "it is XML"),
    "a form": (request("Content-Type: application/x-www-form-urlencoded", body=b"checkup_for=bholanath"), 400, "neither JSON"),
    "a picture": (request("Content-Type: image/png", body=b"\x89PNG\r\n\x1a\n" + bytes(100)), 400, "a binary file"),
    "parts": (request("Content-Type: multipart/form-data; boundary=x", body=b"--x\r\n\r\n[]\r\n--x--"), 400, "neither JSON"),
    "UTF-16": (request("Content-Type: application/json; charset=utf-16", body=GOOD.decode().encode("utf-16")), 400, ""),
    "UTF-32": (request("Content-Type: application/json; charset=utf-32", body=GOOD.decode().encode("utf-32")), 400, ""),
    "Latin-1": (request("Content-Type: application/json; charset=latin-1", body=GOOD.replace(b"dr.ayush", NAME.encode("latin-1"))), 422, ""),
    "NUL": (request(body=GOOD.replace(b"dr.ayush", b"\0")), 422, ""),
    "half a character": (request(body=GOOD.replace(b"dr.ayush", b"\\ud83d")), 422, ""),
    "a name twice": (request(body=GOOD.replace(b'"taken_by"', b'"disease"')), 422, ""),
    "no number": (request(body=GOOD.replace(b"128,", b"NaN,")), 422, ""),
    "a number beyond all": (request(body=GOOD.replace(b"128,", b"1e999,")), 422, ""),
    "digits without end": (request(body=GOOD.replace(b"128,", b"9" * 100_000 + b",")), 422, ""),
    "a path that is no UTF-8": (request(body=GOOD, line="POST /users/%E9/checkups/ HTTP/1.1"), 400, "not UTF-8"),
}  # fmt: skip
# What gunicorn answers itself, before we see it, in words of its own.
GUNICORNS: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "a huge header": (request("X-Large: " + "x" * 100_000, body=GOOD), (400, 431)),
    "very many headers": (request(*[f"X-{i}: x" for i in range(500)], body=GOOD), (400, 431)),
    "a huge address": (request(body=GOOD, line=f"POST /{'x' * 100_000} HTTP/1.1"), (400, 414)),
    "a length that is none": (request("Content-Length: ten", body=GOOD, length=-1), (400,)),
    "a length below nothing": (request("Content-Length: -5", body=GOOD, length=-1), (400,)),
    "two lengths": (request("Content-Length: 3", body=GOOD), (400,)),
    "a length and chunks": (request("Transfer-Encoding: chunked", body=GOOD), (400,)),
    "an unknown transfer": (request("Transfer-Encoding: rot13", body=GOOD), (400, 501)),
    "no HTTP": (b"hello\r\n\r\n", (400,)),
    "HTTP/9": (request(body=GOOD, line="POST /checkups/ HTTP/9.9"), (400, 505)),
}


class Raw:
    """Sends bytes as they are and reads what comes back."""

    def __init__(self, url: str, token: str) -> None:
        split = urlsplit(url)
        self.address, self.token = (split.hostname, split.port), token

    def __call__(self, sent: bytes) -> tuple[int, dict[str, str], bytes]:
        sent = sent.replace(b"Host: x\r\n", f"Host: x\r\nAuthorization: Bearer {self.token}\r\n".encode(), 1)
        received = b""
        with socket.create_connection(self.address, timeout=30) as connection:
            try:
                connection.sendall(sent)
                connection.shutdown(socket.SHUT_WR)
            except OSError:  # it has heard enough, and answers
                pass
            try:
                while part := connection.recv(65536):
                    received += part
            except ConnectionResetError:
                pass
        head, _, body = received.partition(b"\r\n\r\n")
        line, *headers = head.decode("latin-1").split("\r\n")
        named = dict(header.lower().split(": ", 1) for header in headers)
        return int(line.split()[1]), named, body


@pytest.fixture
def send(served, people, db, log_in) -> Raw:
    return Raw(served[0], log_in("tara"))


@pytest.mark.parametrize(("sent", "status", "said"), REFUSED.values(), ids=list(REFUSED))
def test_it_is_refused_in_json(send: Raw, db: Any, sent: bytes, status: int, said: str) -> None:
    answer, headers, body = send(sent)
    assert (answer, headers["content-type"]) == (status, "application/json"), body[:300]
    told = json.loads(body)
    check_error_shape(told)
    assert said in told["details"]
    assert db("select count(*) from checkups") == [(0,)]
    assert send(request(body=GOOD))[0] == 201


@pytest.mark.parametrize(
    "path", ["//metrics", "///metrics", "/%2Fmetrics", "//metrics/", "/metrics//", "//fhir/metadata"]
)
def test_a_path_has_one_spelling(send: Raw, path: str) -> None:
    assert send(request(line=f"GET {path} HTTP/1.1"))[0] == 404


@pytest.mark.parametrize(("sent", "statuses"), GUNICORNS.values(), ids=list(GUNICORNS))
def test_it_is_refused_before_it_reaches_us(send: Raw, db: Any, sent: bytes, statuses: tuple[int, ...]) -> None:
    answer, _, body = send(sent)
    assert answer in statuses, body[:300]
    assert b"Traceback" not in body
    assert db("select count(*) from checkups") == [(0,)]
    assert send(request(body=GOOD))[0] == 201


@pytest.mark.parametrize(
    "sent",
    [chunked(GOOD[:10], GOOD[10:]), chunked(*[GOOD[i : i + 1] for i in range(len(GOOD))]), request("Content-Type: text/plain", body=GOOD),
     packed(gzip.compress(GOOD[:9]) + gzip.compress(GOOD[9:])), request(body=b"\xef\xbb\xbf" + GOOD), request(body=gzip.compress(GOOD)),
     request("Content-Type: application/json; charset=utf-8", body=GOOD), request(body=b" \r\n" + GOOD + b"\n\n"),
     request("Content-Encoding: identity", body=dump([record(1)]))],
    ids=["two chunks", "a chunk a byte", "plain text", "two parts of gzip", "a mark before it", "packed and not said", "UTF-8", "space around",
         "identity"],
)  # fmt: skip
def test_what_is_unusual_and_right_is_taken(send: Raw, db: Any, sent: bytes) -> None:
    answer, _, body = send(sent)
    assert answer == 201, body[:300]
    assert db("select record_id from checkups") == [("1",)]


def test_a_slow_body_holds_up_nobody_else(send: Raw, db: Any) -> None:
    sent = request(f"Authorization: Bearer {send.token}", body=json.dumps([record(2)]).encode())
    with socket.create_connection(send.address, timeout=30) as slow:
        slow.sendall(sent[:-20])
        assert send(request(body=GOOD))[0] == 201
        slow.sendall(sent[-20:])
        assert slow.recv(100).startswith(b"HTTP/1.1 201 ")
    assert db("select record_id from checkups order by 1") == [("1",), ("2",)]
