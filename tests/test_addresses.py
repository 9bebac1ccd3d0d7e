"""One form of an address; whose X-Forwarded-For is believed."""

from typing import Any

import bottle
import pytest
from support.factories import PASSWORD

from myhealth.common.addresses import fold_address, is_trusted
from myhealth.common.settings import DIRECT
from wsgi.common import requests
from wsgi.common.requests import find_address


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("192.0.2.7:1001", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[::ffff:192.0.2.7]:443", "192.0.2.7"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:8080", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("unknown", "unknown"),
        ("local", "local"),
        ("", ""),
        ("192.0.2.7:x", "192.0.2.7:x"),
        ("999.1.1.1", "999.1.1.1"),
    ],
)
def test_an_address_has_one_form(text: str, folded: str) -> None:
    assert fold_address(text) == folded


@pytest.mark.parametrize(
    ("address", "trusted", "is_so"),
    [
        ("10.2.3.4", "10.0.0.0/8", True),
        ("11.2.3.4", "10.0.0.0/8", False),
        ("10.2.3.4", "10.9.9.9/8", True),
        ("10.2.3.4", "::ffff:10.0.0.0/104", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("2001:db8::7", "2001:db8::/32, 127.0.0.1", True),
        ("127.0.0.1", "2001:db8::/32,127.0.0.1", True),
        ("local", "unix", True),
        ("local", "127.0.0.1", False),
        ("10.2.3.4", "unix", False),
        ("10.2.3.4", "", False),
        ("unknown", "0.0.0.0/0", False),
    ],
)
def test_networks_are_trusted(address: str, trusted: str, is_so: bool) -> None:
    assert is_trusted(address, trusted) is is_so


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("198.51.100.9", "192.0.2.7", "198.51.100.9"),
        ("127.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "192.0.2.7:4711", "192.0.2.7"),
        ("::ffff:127.0.0.1", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "6.6.6.6, 192.0.2.7, 10.0.0.3", "192.0.2.7"),
        ("127.0.0.1", "::ffff:192.0.2.7", "192.0.2.7"),
        ("", "192.0.2.7", "192.0.2.7"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "\xe9\xff", "\xe9\xff"),
    ],
)
def test_the_clients_address(peer: str, forwarded: str, address: str) -> None:
    bottle.request.bind({"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": forwarded})
    assert find_address("127.0.0.1,10.0.0.0/8,unix") == address


def test_a_client_of_a_unix_socket_is_local_unless_it_is_a_proxy() -> None:
    bottle.request.bind({"REMOTE_ADDR": "", "HTTP_X_FORWARDED_FOR": "192.0.2.7"})
    assert find_address("127.0.0.1") == "local"


HEADERS = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via", "Host", "Origin",
           "Sec-Fetch-Site", "Accept", "Accept-Encoding", "Cookie", "Authorization", "x-access-token", "If-None-Match",
           "Content-Type", "Content-Encoding", "Idempotency-Key", "User-Agent", "Referer")  # fmt: skip
CALLS = [("GET", "/users/"), ("POST", "/login/"), ("GET", "/login/"), ("POST", "/reports/"), ("GET", "/nothing")]
PAGES = [("GET", "/my/login"), ("GET", "/my/"), ("POST", "/my/login"), ("GET", "/my/nothing"), ("GET", "/my/trends")]


def test_bytes_beyond_ascii_in_a_header_are_no_500(upload: Any, browse: Any, log_in: Any, caplog: Any) -> None:
    token = log_in("dr.ayush")
    for name in HEADERS:
        key = "CONTENT_TYPE" if name == "Content-Type" else f"HTTP_{name.upper().replace('-', '_')}"
        for text in ("\xe9", "a\xff\xfeb, 192.0.2.7"):
            for application, calls in ((upload, CALLS), (browse, CALLS + PAGES)):
                for method, path in calls:
                    body = b'{"username": "x", "password": "y"}' if method == "POST" else None
                    used = {} if name in ("Authorization", "x-access-token") else {"token": token}
                    answer = application(method, path, body, **used, environ_overrides={key: text})
                    assert answer.status_code < 500, (name, method, path, answer.data)
    assert "Traceback" not in caplog.text
    assert "failed" not in caplog.text


def test_a_proxy_that_hides_its_clients_is_warned_of_once(upload, caplog, monkeypatch) -> None:
    requests._warn_of_proxy.cache_clear()
    login = {"username": "bholanath", "password": PASSWORD}
    elsewhere: list[dict[str, Any]] = [
        {"environ_overrides": {"REMOTE_ADDR": "192.0.2.7"}},
        {"environ_overrides": {"REMOTE_ADDR": "127.0.0.1"}, "headers": {"X-Forwarded-For": "192.0.2.7"}},
    ]
    for options in elsewhere:
        assert upload("POST", "/login/", login, **options).status_code == 200
    with monkeypatch.context() as served:
        served.setenv(DIRECT, "1")
        assert upload("POST", "/login/", login, environ_overrides={"REMOTE_ADDR": "127.0.0.1"}).status_code == 200
    assert "X-Forwarded-For" not in caplog.text
    for address in ("127.0.0.1", "", "::1"):
        assert upload("POST", "/login/", login, environ_overrides={"REMOTE_ADDR": address}).status_code == 200
    assert caplog.text.count("without X-Forwarded-For; a proxy must set it") == 1
