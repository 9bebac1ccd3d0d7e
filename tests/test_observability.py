"""Each request can be followed: its id, its access line, its context in warnings, its metrics."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from support.clients import Caller, basic
from support.factories import PASSWORD, record
from support.paths import ROOT

from myhealth.common.logs import LogHandler, configure_logging
from myhealth.common.settings import LogSettings, Settings, child_environ
from myhealth.processes import open_listening_socket, url_of

EXAMPLES = ROOT / "examples"


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return each sample by its name and the values of its labels, in the order of their names."""
    return {
        (each.name, *(value for _, value in sorted(each.labels.items()))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def wait_for(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (result := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return result


# -- the request's id ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", ["upload", "browse"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/livez"), ("GET", "/nothing-here"), ("PUT", "/livez"), ("GET", "/users/"), ("GET", "/docs"),
     ("POST", "/login/"), ("GET", "/%ff"), ("GET", "/openapi.json")],
)  # fmt: skip
def test_every_answer_has_the_id_that_was_sent_or_a_new_one(request, api: str, method: str, path: str) -> None:
    call: Caller = request.getfixturevalue(api)
    assert call(method, path, headers={"X-Request-ID": "a1.B_2-c"}).headers.getlist("X-Request-ID") == ["a1.B_2-c"]
    for wrong in ("", "two words", "x" * 65, "é", 'a"b', "a/b"):
        ids = {call(method, path, headers={"X-Request-ID": wrong}).headers["X-Request-ID"] for _ in range(2)}
        assert len(ids) == 2
        assert all(re.fullmatch("[0-9a-f]{16}", each) for each in ids)


def test_an_id_goes_through_both_apis_into_the_audit_of_both_stores(
    db, browse: Caller, settings: Settings, upload: Caller, serving, calling, log_in, reports
) -> None:
    from wsgi.browse import make_app

    both: Caller = calling(make_app(dataclasses.replace(settings, auth_url=serving(upload.application))))
    body = {"username": "bholanath", "password": PASSWORD}
    assert both("POST", "/login/", body, headers={"X-Request-ID": "first-1"}).status_code == 200
    assert both("POST", "/login/", body | {"password": "wrong"}, headers={"X-Request-ID": "first-2"}).status_code == 401
    said = db("select action, outcome, details->>'request_id' from audit_events where action = 'login' order by id")
    assert said == [("login", "done", "first-1"), ("login", "refused", "first-2")]
    doctor = log_in("dr.ayush")
    assert both("GET", "/users/savita/reports/", token=doctor, headers={"X-Request-ID": "third"}).status_code == 200
    (event,) = reports.access_log.find_events(subject="savita")
    assert event.request_id == "third"


# -- the log ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def logged(capsys: Any, **settings: Any) -> Iterator[list[str]]:
    """Yield the lines that were logged, with these settings, once the block has ended."""
    root, lines = logging.getLogger(), list[str]()
    levels = {name: logging.getLogger(name).level for name in ("", "myhealth", "wsgi", "cli")}
    capsys.readouterr()
    configure_logging(LogSettings(**settings))
    try:
        yield lines
    finally:
        lines += capsys.readouterr().err.splitlines()
        for handler in [each for each in root.handlers if isinstance(each, LogHandler)]:
            root.removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def test_each_request_has_one_line_with_its_route_and_no_name(upload: Caller, log_in, people, capsys) -> None:
    with logged(capsys) as lines:
        sent = {"X-Request-ID": "r-1"}
        answer = upload("GET", "/users/savita/?x=secret", token=log_in("dr.ayush"), headers=sent)
        upload("GET", "/users/savita/", token=log_in("dr.ayush"), headers=sent)
        upload("GET", "/", headers=sent)
    size, moment = len(answer.data), r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}"
    who = f"role=doctor user_id={people['dr.ayush']}"
    for line, text in zip(
        lines,
        [
            rf"GET /users/<username>/ 400 [\d.]+ ms {who} bytes={size} request_id=r-1",
            rf"GET /users/<username>/ 200 [\d.]+ ms {who} bytes=\d+ request_id=r-1",
            r"GET / 200 [\d.]+ ms role=- user_id=- bytes=\d+ request_id=r-1",
        ],
        strict=True,
    ):
        assert re.fullmatch(f"{moment} INFO wsgi.access {text}", line), line
    assert not any(word in line for line in lines for word in ("savita", "secret"))


def test_a_streamed_answer_is_logged_at_its_end_with_all_its_bytes(browse: Caller, log_in, capsys) -> None:
    with logged(capsys, format="json") as lines:
        answer = browse("GET", "/reports/", token=log_in("bholanath"), headers={"Accept": "application/fhir+json"})
        size = len(answer.data)
        answer.close()
    (line,) = map(json.loads, lines)
    assert (line["route"], line["status"], line["bytes"], line["role"]) == ("/reports/", 200, size, "patient")


def test_json_lines_have_the_same_facts(upload: Caller, log_in, capsys, monkeypatch) -> None:
    monkeypatch.setattr("wsgi.upload_api.context.get_user", lambda *_: 1 / 0)
    with logged(capsys, format="json") as lines:
        sent = {"X-Request-ID": "r-2"}
        upload("GET", "/users/savita/", token=log_in("dr.ayush"), headers=sent)
    error, access = map(json.loads, lines)
    assert error["level"] == "ERROR"
    facts = {name: error[name] for name in ("method", "route", "network", "request_id")}
    assert facts == {"method": "GET", "route": "/users/<username>/", "network": "local", "request_id": "r-2"}
    assert "ZeroDivisionError" in error["message"]
    assert {"time", "level", "logger", "message", "ms", "bytes"} <= access.keys()
    assert (access["status"], access["request_id"], access["role"]) == (500, "r-2", "doctor")


def test_a_log_that_cannot_be_written_ends_no_request(upload: Caller, capsys, monkeypatch) -> None:
    with logged(capsys) as lines, (closed := io.StringIO()):
        closed.close()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", closed)
            assert upload("GET", "/livez").status_code == 200
        assert upload("GET", "/livez").status_code == 200
    assert len(lines) == 1


def test_the_level_leaves_lines_out(upload: Caller, capsys) -> None:
    with logged(capsys, level="warning") as lines:
        upload("GET", "/livez")
    assert lines == []


def test_a_warning_of_throttling_names_route_and_network_for_fail2ban(upload: Caller, capsys) -> None:
    origin = {"REMOTE_ADDR": "203.0.113.77"}
    with logged(capsys, level="warning") as lines:
        for _ in range(14):
            upload("GET", "/login/", headers=basic("savita", "wrong one"), environ_overrides=origin)
    throttled = [line for line in lines if "too_many_attempts for 203.0.113.77: " in line]
    assert 1 <= len(throttled) <= 2  # two if the minute ended meanwhile
    assert "[method=GET route=/login/ user_id=- network=203.0.113.77 request_id=" in throttled[0]
    assert "savita" not in "".join(lines)


# -- metrics ---------------------------------------------------------------------------------------------------------


def test_metrics_count_requests_records_and_logins(upload: Caller, log_in) -> None:
    def shown() -> dict[tuple[str, ...], float]:
        return samples(upload("GET", "/metrics").text)

    before, keys = shown(), [
        ("http_requests_total", "upload", "POST", "/checkups/", "201"),
        ("http_request_duration_seconds_count", "upload", "POST", "/checkups/", "201"),
        ("myhealth_upload_records_total", "accepted"),
        ("myhealth_upload_records_total", "rejected"),
        ("myhealth_logins_total", "wrong"),
        ("myhealth_logins_total", "done"),
    ]  # fmt: skip
    upload("POST", "/checkups/", [record(1), record(2), {"record_id": "x"}], token=log_in("tara"))
    upload("POST", "/login/", {"username": "savita", "password": "wrong one"})
    upload("POST", "/login/", {"username": "savita", "password": PASSWORD})
    after = shown()
    assert [after[key] - before.get(key, 0) for key in keys] == [1, 1, 2, 1, 1, 1]
    assert after[("myhealth_stores_available",)] == 1
    assert any(key[0] == "myhealth_build_info" for key in after)
    assert "savita" not in upload("GET", "/metrics").text


@pytest.mark.process
def test_metrics_are_those_of_all_workers_also_of_one_that_ended(people, reports, settings, tmp_path: Path) -> None:
    """gunicorn-upload.conf.py with JSON lines, and metrics at an address of their own."""
    sockets = [open_listening_socket("127.0.0.1", 0) for _ in range(2)]
    url, metrics = map(url_of, sockets)
    for each in sockets:
        each.close()
    own = dataclasses.replace(settings.upload, metrics_listen=metrics.removeprefix("http://"))
    environ = child_environ(dataclasses.replace(settings, upload=own, log=LogSettings("json", "info")))
    words = [sys.executable, "-m", "gunicorn", "-c", str(EXAMPLES / "gunicorn-upload.conf.py"), "--bind", url[7:]]
    asked, key = 40, ("http_requests_total", "upload", "GET", "/livez", "200")

    def scrape() -> dict[tuple[str, ...], float]:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{metrics}/metrics", timeout=20) as answer:
            return samples(answer.read().decode())
        return {}

    with (tmp_path / "log").open("w") as log:
        environ["TMPDIR"] = str(tmp_path)
        running = subprocess.Popen(words, env=environ, cwd=tmp_path, stderr=log)
    try:
        wait_for(scrape)
        for _ in range(asked):
            with urllib.request.urlopen(f"{url}/livez", timeout=20) as answer:
                assert answer.status == 200
        assert {scrape()[key] for _ in range(6)} == {asked}
        assert scrape()[("myhealth_schema_migration",)] > 0
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url}/metrics", timeout=20)
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        gone = lambda: not list(tmp_path.glob(f"*/metrics/gauge_live*_{children[0]}.db"))  # noqa: E731
        wait_for(gone)
        assert {wait_for(scrape)[key] for _ in range(6)} == {asked}
    finally:
        running.terminate()
        running.wait(60)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {"gunicorn.error", "wsgi.access"} <= {line["logger"] for line in lines}
    assert sum(line.get("route") == "/livez" for line in lines) == asked


# -- the examples for Prometheus and Grafana --------------------------------------------------------------------------


def metric_names(text: str) -> set[str]:
    return {name for name in re.findall(r"\b(?:http|myhealth)_[a-z_]+", text) if not name.endswith("_")}


def label_names(text: str) -> set[str]:
    """Return the labels that an expression, a legend or an annotation names."""
    grouped = ",".join(re.findall(r"\bby \(([^)]*)\)", text))
    named = re.findall(r"[{,]\s*(\w+)\s*(?:=|!=|=~|!~)\s*\"", text) + re.findall(
        r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}", text
    )
    return {each.strip() for each in grouped.split(",") if each.strip()} | set(named)


@pytest.mark.parametrize("name", ["alerts.yml", "dashboard.json"])
def test_the_examples_use_metrics_and_labels_that_there_are(name: str, upload: Caller, sync, log_in) -> None:
    text = (EXAMPLES / name).read_text()
    read: Any = yaml.safe_load(text) if name == "alerts.yml" else json.loads(text)
    if name == "alerts.yml":
        rules = [rule for group in read["groups"] for rule in group["rules"]]
        assert all({"alert", "expr", "labels", "annotations"} <= rule.keys() for rule in rules)
        asked = [(rule["expr"], rule["annotations"]["summary"].replace("$value", "")) for rule in rules]
    else:
        targets = [target for panel in read["panels"] for target in panel["targets"]]
        asked = [(target["expr"], target.get("legendFormat", "")) for target in targets]
    sync()
    upload("POST", "/checkups/", record(1), token=log_in("tara"))
    upload("POST", "/login/", {"username": "savita", "password": PASSWORD})
    labels: dict[str, set[str]] = {"up": set()}
    exported = wait_for(lambda: "database_connections{" in (text := upload("GET", "/metrics").text) and text)
    for family in text_string_to_metric_families(exported):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    for expression, shown in asked:
        used = metric_names(expression) or {"up"}
        assert used <= labels.keys(), expression
        known = {"instance", "job"}.union(*(labels[each] for each in used))  # these two are of Prometheus itself
        assert label_names(f"{expression} {shown}") <= known, expression
    assert len(asked) > 10


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool here: apt-get install prometheus")
def test_promtool_takes_the_alert_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(EXAMPLES / "alerts.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
