"""examples/nginx.conf in front of both APIs: who the client is, what is let through, and what is not."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.factories import record
from support.paths import ROOT
from support.proxy import FROM, NGINX, Proxy
from support.sync_processes import wait_for

from myhealth import processes
from myhealth.common.settings import Settings

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        NGINX is None, reason="there is no nginx here; its example needs it: apt-get install nginx-light"
    ),
]


@pytest.fixture(scope="module")
def proxy(settings: Settings) -> Iterator[Proxy]:
    """Both APIs on Unix sockets with the example's gunicorn configurations, and nginx before them."""
    folder = Path(tempfile.mkdtemp(prefix="mh"))  # a socket's path has 108 characters at most
    folder.chmod(0o755)
    own = {"MYHEALTH_DATABASE_URL": settings.database_url, "MYHEALTH_MONGO_URL": settings.mongo_url,
           "MYHEALTH_SECRET_KEY": settings.secret_key, "MYHEALTH_BCRYPT_ROUNDS": "4", "TMPDIR": str(folder)}  # fmt: skip
    with processes.open_listening_socket("127.0.0.1", 0) as probe:
        upload = processes.url_of(probe)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for name in ("upload", "browse"):
            words = ["-c", str(ROOT / f"examples/gunicorn-{name}.conf.py"), "--workers", "1"]
            words += ["--bind", f"unix:{folder}/myhealth-{name}.sock"]
            words += ["--bind", upload.removeprefix("http://")] if name == "upload" else []
            environ = {**os.environ, **own, "MYHEALTH_AUTH_URL": upload}
            running.append(subprocess.Popen([sys.executable, "-m", "gunicorn", *words], env=environ, cwd=ROOT))
        found = Proxy(folder)
        running.append(found.process)
        wait_for(lambda: found.serves("upload") and found.serves("health"))
        yield found
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def test_the_client_is_who_nginx_sees_and_not_who_it_says(proxy: Proxy, people: Any, db: Any) -> None:
    spoofed = {"X_Forwarded_For": "203.0.113.9", "Forwarded": "for=203.0.113.9", "X_Real_IP": "203.0.113.9"}
    for host in ("upload", "health"):
        login = {"username": "bholanath", "password": "wrong"}
        assert proxy.call(host, "POST", "/login/", login, **spoofed).status == 401
    assert db("select distinct address from login_attempts") == [(FROM,)]
    assert db("select distinct address from audit_events where action = 'login'") == [(FROM,)]


def test_plain_http_is_sent_on_to_https(proxy: Proxy) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxy.plain, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/my/login", headers={"Host": "health.example"})
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Location")) == (301, "https://health.example/my/login")


def test_cookies_are_those_of_https(proxy: Proxy) -> None:
    cookies = proxy.call("health", "GET", "/my/login").headers.get_all("Set-Cookie")
    assert cookies
    for cookie in cookies:
        assert cookie.startswith("__Host-")
        assert "secure" in cookie.lower()


def test_uploads_are_as_large_as_the_api_allows(proxy: Proxy, people: Any, log_in: Any) -> None:
    """nginx's own limit would be 1 MB."""
    token = {"Authorization": f"Bearer {log_in('tara')}"}
    large = [record(n, checkup_report="x" * 20_000) for n in range(100)]
    assert proxy.call("upload", "POST", "/checkups/", large, **token).status == 201
    refused = proxy.call("upload", "POST", "/checkups/", "", Content_Length=str(64 * 1024 * 1024 + 1), **token)
    assert (refused.status, refused.json["code"]) == (413, "too_large")


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "//metrics", "/%6detrics", "/x/../metrics", "/metrics?a=1"])
@pytest.mark.parametrize("host", ["upload", "health"])
def test_metrics_are_closed(proxy: Proxy, host: str, path: str) -> None:
    answer = proxy.call(host, "GET", path)
    assert answer.status == 404
    assert b"myhealth_" not in answer.body


def test_a_request_keeps_its_id(proxy: Proxy) -> None:
    sent = proxy.call("upload", "GET", "/livez", X_Request_ID="from-a-tablet.1")
    assert sent.headers.get_all("X-Request-ID") == ["from-a-tablet.1"]
    (own,) = proxy.call("upload", "GET", "/livez", X_Request_ID="no id at all").headers.get_all("X-Request-ID")
    assert re.fullmatch("[0-9a-f]{32}", own)
    log = proxy.folder / "myhealth.log"
    wait_for(lambda: own in log.read_text())
    assert "/livez" not in log.read_text()


def test_an_api_that_is_away_is_a_503_of_our_form(proxy: Proxy) -> None:
    socket = proxy.folder / "myhealth-browse.sock"
    socket.rename(proxy.folder / "away")
    try:
        answer = proxy.call("health", "GET", "/reports/")
    finally:
        (proxy.folder / "away").rename(socket)
    assert (answer.status, answer.json["code"]) == (503, "unavailable")
    assert answer.headers.get_all("Retry-After") == ["5"]
    assert proxy.call("health", "GET", "/livez").status == 200
