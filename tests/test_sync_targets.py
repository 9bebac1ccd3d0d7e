"""The sync writes to MongoDB and over HTTP by one contract, with equal results."""

import dataclasses
import gzip
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from msgspec.structs import replace
from support.compare import NONE, differences
from support.factories import NOW, PASSWORD, document, record, take

from myhealth.common.errors import MyHealthError, SettingsError, Unavailable
from myhealth.common.settings import Settings
from myhealth.reports.access_log import UploadEvent
from myhealth.reports.documents import UserRow, name_keys, user_document
from myhealth.reports.epochs import FIRST_ID, newest_epoch
from myhealth.reports.repository import ReportRepository
from myhealth.reports.user_search import Search
from myhealth.reports.writer import LeaseLost, ReportWriter
from myhealth.sync.calls import decode_documents, encode_document
from myhealth.sync.checkpoint import (
    FEEDS,
    ID_MAX,
    Checkpoint,
    History,
    Position,
    Recheck,
    from_document,
    to_document,
)
from myhealth.sync.runner import restart_epoch, run_pass
from myhealth.sync.signature import HEADER
from myhealth.sync.targets import ReportsApi, Target

pytestmark = pytest.mark.usefixtures("people")


@pytest.fixture
def remote(served: tuple[str, str], settings: Settings, people, reports) -> Settings:
    """Settings of a sync that writes through the browse API, which runs as it does in production."""
    upload_url, browse_url = served
    sync = dataclasses.replace(settings.sync, reports_api_url=browse_url, username="runner", password=PASSWORD)
    return dataclasses.replace(settings, auth_url=upload_url, sync=sync)


@pytest.fixture(params=["direct", "http"])
def target(request, reports, remote) -> Target:
    return ReportWriter(reports) if request.param == "direct" else ReportsApi(remote)


# -- the contract ----------------------------------------------------------------------------------------------------


def test_new_documents_known_ones_and_refused_ones(target: Target, reports) -> None:
    batch = [document(i) for i in range(5)]
    assert target.insert("checkup", batch).written == 5
    again = target.insert("checkup", [*batch, document(9)])
    assert (again.written, again.unchanged, again.quarantined) == (1, 5, [])
    mixed = target.put(
        "checkup", [document(1, revision=2), document(2), document(3, results='[{"value": %s}]' % ("9" * 40))]
    )
    assert (mixed.written, mixed.unchanged) == (1, 1)
    assert [(f.kind, f.id, f.reason.split(":")[0]) for f in mixed.quarantined] == [
        ("checkup", 3, "BSON cannot hold it")
    ]
    assert (target.quarantined_ids("checkup"), target.quarantined_ids("user"), target.count_quarantined()) == (
        [3],
        [],
        1,
    )
    assert reports.get(1)["revision"] == 2
    assert target.put("checkup", []).written == target.insert("checkup", []).written == 0
    too_large = target.put("checkup", [document(4, revision=2, checkup_report="x" * 17_000_000), document(5)])
    assert (too_large.written, [failure.id for failure in too_large.quarantined]) == (1, [4])
    assert reports.get(4) is None


def test_deletions_and_earlier_epochs(target: Target, reports) -> None:
    for epoch in (1, 2):
        target.begin(to_document(start(epoch)))
    target.insert("checkup", [document(1, 3), document(2, 5), document(3, 1, epoch=2)])
    assert newest_epoch(target) == 2
    assert [id_ for id_, _ in target.list_subjects("checkup", 1)] == [2, 3]
    assert target.list_subjects("checkup", 3) == target.list_subjects("user", -1) == []
    assert target.remove("checkup", [(1, 4), (2, 4), (99, 1)], 1) == 1
    assert target.remove("checkup", [], 1) == 0
    assert target.sweep(2, FIRST_ID) == (1, None)
    assert [found["_id"] for found in reports.reports.find()] == [3]
    assert target.quarantine("user", []).quarantined == []
    aside = target.quarantine("checkup", [({"_id": 3, "epoch": 2, "revision": 2}, "why")])
    assert [(failure.id, failure.reason) for failure in aside.quarantined] == [(3, "why")]
    assert reports.get(3) is None


def test_users_are_found_by_name_whichever_way_they_came(target: Target, reports) -> None:
    people = [user_document(UserRow(i, 1, f"s{i}", f"u{i}", name, "patient", True, None, 1), 1) for i, name in
              enumerate(["Savita Deshpande", "José García Márquez", ""])]  # fmt: skip
    assert target.put("user", people).written == 3
    assert [each["_id"] for each in reports.people.search(Search("garcia jo"))] == [1]
    assert target.put("user", [{**people[0], "revision": 2, "name_keys": name_keys("Garcia")}]).written == 1
    assert [each["_id"] for each in reports.people.search(Search("garcia"))] == [0, 1]


def test_events_of_the_upload_api_are_stored_once(target: Target, reports) -> None:
    target.begin(to_document(start(1)))
    patient = {"_id": 7, "subject": "s7"}
    events = [UploadEvent(i, NOW, 3, "s3", "dr.ayush", "doctor", "read", "checkups", 7, "s7", "savita", i, None)
              for i in (1, 2, 3)]  # fmt: skip
    assert target.event_position(1) == 0
    target.put_events(events[:2], 1, 1)
    target.put_events(events, 1, 3)
    target.put_events([], 1, 2)
    assert [event.report_id for event in reports.access_log.find_for_patient(patient)] == [3, 2, 1]
    assert reports.access_log.find_for_patient(patient)[0].at == NOW
    assert (target.event_position(1), target.event_position(2)) == (2, 0)


def test_the_mark_and_who_has_it(target: Target, reports) -> None:
    assert target.read_checkpoint() is None
    begun = start(1, run="a", horizon=2**63 - 1, recheck=Recheck(Position(7, 8), NOW, True))
    target.begin(to_document(begun))
    assert from_document(target.read_checkpoint()) == begun
    moved = replace(begun, phase="follow", feeds=dict.fromkeys(FEEDS, Position(2**63 - 2, ID_MAX)))
    target.write_checkpoint(to_document(moved), "a")
    with pytest.raises(LeaseLost):
        target.write_checkpoint(to_document(replace(moved, run="b")), "b")
    assert from_document(target.read_checkpoint()) == moved


def start(epoch: int, **values: Any) -> Checkpoint:
    """Return the checkpoint with which an epoch begins."""
    return Checkpoint(History("1", 1, "t"), epoch, "scan", values.pop("horizon", 9), "", **values)


def test_collections_are_known_apart(target: Target, reports) -> None:
    before = target.identity()
    assert target.prepare() == before
    reports.reports.drop()
    assert target.identity() != before
    made = target.prepare()
    assert made not in ("", before)
    assert len(reports.reports.index_information()) > 1


# -- whole passes ----------------------------------------------------------------------------------------------------

NUMBERS = ["5.10", "5.1", "0", "-0.0", "128", "2147483648", "9223372036854775807", "9223372036854775808", "1e-22", "1e20",
           "0.00001", "123456789.123456789", "6.02e23", "2.5E+19", "0.1234567890123456789012345678901234"]  # fmt: skip


def contents(reports: ReportRepository) -> dict[str, dict[Any, bytes]]:
    """Every document in its bytes."""
    writer = ReportWriter(reports)
    return {kind: {stored.id: stored.content for stored in writer.raw(kind, {})} for kind in ("checkup", "user")}


def test_the_same_documents_arrive_byte_for_byte(db, reports, remote, settings) -> None:
    take(*[record(i) for i in range(30)])
    for i, number in enumerate(NUMBERS, start=1):
        results = f'[{{"value": {number}, "low": {number}, "flag": "H", "odd": [5.10, 0.1, null, true, "\\u00e9\\ud83d\\ude00"]}}, 5]'
        db(
            "update checkups set results = %s, taken_at = now() - interval '1 microsecond' * %s where id = %s",
            results,
            i,
            i,
        )
    db("update checkups set taken_by = null, results = '[[], {}]' where id = 20")
    db(
        "update users set tokens_valid_after = now(), full_name = 'José María de la Cruz O’Neill-García' where username = 'savita'"
    )
    run_pass(settings.database_url, ReportWriter(reports), settings)
    direct = contents(reports)
    reports.drop()
    done = run_pass(settings.database_url, ReportsApi(remote), remote)
    assert (done.quarantined_count, done.epoch) == (0, 1)
    assert contents(reports) == direct
    assert len(direct["checkup"]) == 30
    assert differences(db, reports)["lost"] == []


@pytest.mark.parametrize("way", ["direct", "http"])
def test_every_column_that_a_check_up_has_arrives_and_no_other(db, reports, remote, settings, way: str) -> None:
    take(record(1, status="partial", taken_offset=330, issued_at="2026-11-21T00:00:00Z", sent={"x": 1}), record(2))
    db("""update checkups set taken_until = '2026-11-20 10:00:00.123456Z', taken_precision = 'day',
          details = '{"low": 5.10, "of": [{"count": 123456789012345678901}]}' where record_id = '1'""")
    target = ReportWriter(reports) if way == "direct" else ReportsApi(remote)
    run_pass(settings.database_url, target, settings if way == "direct" else remote)
    assert differences(db, reports) == NONE
    first, second = (reports.get(id_) for id_ in (1, 2))
    assert list(first)[13:] == ["status", "taken_precision", "taken_offset", "taken_until", "issued_at", "details",
                                "revision", "epoch"]  # fmt: skip
    assert list(second)[13:] == ["revision", "epoch"]
    assert repr(first["details"]) == "{'of': [{'count': Decimal('123456789012345678901')}], 'low': Decimal('5.10')}"


def test_everything_travels_over_http(db, reports, remote, settings) -> None:
    target = ReportsApi(remote)
    take(*[record(i) for i in range(20)])

    def sync(**options: Any) -> Any:
        return run_pass(settings.database_url, target, remote, **options)

    assert sync().written == 26
    db("update checkups set disease = 'edited' where id < 4")
    db("delete from checkups where id in (7, 8)")
    db("update users set full_name = 'S.' where username = 'savita'")
    done = sync()
    assert (done.written, done.removed) == (4, 2)
    assert differences(db, reports) == NONE
    assert sync().read == 0
    db("update checkups set results = %s where id = 9", '[{"value": %s}]' % ("9" * 40))
    assert sync().quarantined_count == 1
    db("update checkups set results = '[]' where id = 9")
    assert sync().written == 1
    assert target.quarantined_ids("checkup") == []
    reports.reports.insert_one({"_id": 77, "patient_id": 1, "epoch": 1, "revision": 1})
    assert restart_epoch(settings.database_url, target)
    done = sync(retry_quarantined=True)
    assert (done.epoch, done.removed) == (2, 1)
    assert differences(db, reports) == NONE
    assert run_pass(settings.database_url, ReportWriter(reports), settings).read == 0, (
        "the other way goes on from its mark"
    )


def test_the_command_goes_over_http(db, reports, remote, run_cli, settings) -> None:
    take(record(1))
    env = {
        "MYHEALTH_DATABASE_URL": settings.database_url,
        "MYHEALTH_MONGO_URL": "mongodb://127.0.0.1:1/is_not_asked",
        "MYHEALTH_AUTH_URL": remote.auth_url,
        "MYHEALTH_SYNC_REPORTS_API_URL": remote.sync.reports_api_url,
        "MYHEALTH_SYNC_USERNAME": "runner",
        "MYHEALTH_SYNC_PASSWORD": PASSWORD,
        "MYHEALTH_SYNC_SIGNING_KEY": remote.sync.signing_key,
    }
    done = run_cli("sync", "--once", "-v", env=env)
    assert done.returncode == 0, done.stderr
    assert "sync read=7 written=7" in done.stderr
    assert differences(db, reports) == NONE
    wrong = run_cli("sync", "--once", env={**env, "MYHEALTH_SYNC_USERNAME": "tara"})
    assert wrong.returncode == 78
    assert "give tara the role service" in wrong.stderr
    refused = run_cli("sync", "--once", env={**env, "MYHEALTH_SYNC_PASSWORD": "wrong"})
    assert refused.returncode == 78
    assert "does not let runner in" in refused.stderr
    shown = run_cli("status", "--json", "--max-age", "300", env=env)
    assert (shown.returncode, json.loads(shown.stdout)["store"]) == (0, {"reports": 1, "users": 6}), shown.stderr
    without = {name: value for name, value in env.items() if name != "MYHEALTH_MONGO_URL"}
    assert json.loads(run_cli("status", "--json", env=without).stdout)["behind"]["rows"] == 0
    refused = run_cli("verify", env=without)
    assert (refused.returncode, "behind sync.reports_api_url" in refused.stderr) == (78, True)
    del env["MYHEALTH_SYNC_PASSWORD"]
    assert run_cli("sync", "--once", env=env).returncode == 78


# -- a browse API that is not well -----------------------------------------------------------------------------------


class Proxy(BaseHTTPRequestHandler):
    """Answers in the browse API's place as `answer(path)` says; None passes a call on to the real one."""

    answer: Callable[[str], tuple[int, bytes] | None]
    to = ""

    def _do(self) -> None:
        import urllib.error
        import urllib.request

        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = type(self).answer(self.command + " " + self.path)
        if found is None:
            names = ("Authorization", "Content-Type", "Content-Encoding", HEADER)
            headers = {name: self.headers[name] for name in names if self.headers[name]}
            request = urllib.request.Request(type(self).to + self.path, body or None, headers, method=self.command)
            try:
                with urllib.request.urlopen(request) as answer:
                    found = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                found = error.code, error.read()
        self.send_response(found[0])
        self.send_header("Content-Length", str(len(found[1])))
        self.end_headers()
        self.wfile.write(found[1])

    do_GET = do_POST = do_PUT = _do

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxied(remote: Settings):
    """Puts a proxy before the browse API that answers as it is told: the settings of a sync that goes through it."""
    running = []

    def start(answer: Callable[[str], tuple[int, bytes] | None]) -> Settings:
        handler = type("Handler", (Proxy,), {"answer": staticmethod(answer), "to": remote.sync.reports_api_url})
        server = HTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        running.append(server)
        sync = dataclasses.replace(remote.sync, reports_api_url=f"http://127.0.0.1:{server.server_port}")
        return dataclasses.replace(remote, sync=sync)

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


GONE = json.dumps({"details": "gone", "code": "error", "errors": []}).encode()
ANSWERS = {
    "500": (500, GONE), "503": (503, GONE), "429": (429, GONE), "400": (400, GONE), "403": (403, GONE), "404": (404, b"x"),
    "413": (413, GONE), "302": (302, b""), "200 with nothing": (200, b""), "200 of a proxy": (200, b"<html>"),
    "200 with less": (200, b'{"written": 1, "unchanged": 0, "failed": []}'), "a list": (201, b"[]"), "204": (204, b""),
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_target_that_answers_with_an_error_never_moves_the_mark(
    db, reports, proxied, settings, monkeypatch, answer
) -> None:
    monkeypatch.setattr("myhealth.sync.pass_result.RETRY_FOR_S", 0.5)
    run_pass(settings.database_url, ReportWriter(reports), settings)
    before = ReportWriter(reports).read_checkpoint()
    take(*[record(i) for i in range(5)])
    sick = proxied(lambda call: ANSWERS[answer] if "/reports/" in call else None)
    with pytest.raises((MyHealthError, KeyError)):
        run_pass(settings.database_url, ReportsApi(sick), sick)
    after = ReportWriter(reports).read_checkpoint()
    assert after["feeds"]["checkups"] == before["feeds"]["checkups"]
    assert reports.count()[0] == 0
    run_pass(settings.database_url, ReportWriter(reports), settings)
    assert differences(db, reports) == NONE


def test_a_short_fault_is_borne_within_the_pass(db, reports, proxied, settings) -> None:
    take(*[record(i) for i in range(50)])
    faults = [(503, GONE), None, (500, b"not ours"), (429, GONE), None, (503, GONE)]

    def answer(call: str) -> tuple[int, bytes] | None:
        return faults.pop() if "/reports/" in call and faults else None

    shaky = proxied(answer)
    small = dataclasses.replace(shaky, sync=dataclasses.replace(shaky.sync, batch_rows=9))
    run_pass(settings.database_url, ReportsApi(small), small)
    assert faults == []
    assert differences(db, reports) == NONE


def test_a_token_that_has_ended_is_renewed(db, reports, remote, settings) -> None:
    target = ReportsApi(remote)
    run_pass(settings.database_url, target, remote)
    target._token = "ended.long.ago"
    take(record(1))
    assert run_pass(settings.database_url, target, remote).written == 1
    with pytest.raises(SettingsError):
        ReportsApi(dataclasses.replace(remote, auth_url=remote.sync.reports_api_url, sync=dataclasses.replace(
            remote.sync, password="wrong"))).read_checkpoint()  # fmt: skip


def test_a_browse_api_that_is_away_is_unavailable(remote) -> None:
    nowhere = dataclasses.replace(remote, sync=dataclasses.replace(remote.sync, reports_api_url="http://127.0.0.1:1"))
    with pytest.raises(Unavailable, match="cannot be reached"):
        ReportsApi(nowhere).read_checkpoint()


# -- who may, and what is taken --------------------------------------------------------------------------------------


def test_reports_are_taken_from_any_client_with_the_role_and_the_key(signed) -> None:
    sent = [json.loads(encode_document(document(id_, epoch=1))) for id_ in (100, 101)]
    answer = signed("/reports/", sent)
    assert (answer.status_code, answer.json["report_ids"]) == (201, [100, 101])
    packed = gzip.compress(json.dumps(sent).encode())
    answer = signed("/reports", packed, headers={"Content-Encoding": "gzip"})
    assert (answer.status_code, answer.json["unchanged"]) == (201, 2)
    assert sent[0]["taken_at"].endswith("Z")


@pytest.mark.parametrize("change", [{"_id": "x"}, {"taken_at": "yesterday"}, {"extra": 1}, {"revision": -1}, {"subject": ...},
                                    {"_id": 2**63}, {"abnormal": 1}], ids=str)  # fmt: skip
def test_what_is_no_document_is_refused_whole_with_its_place(signed, reports, change) -> None:
    good = json.loads(encode_document(document(100)))
    bad = {name: value for name, value in {**good, "_id": 101, **change}.items() if value is not ...}
    answer = signed("/reports/", [good, bad])
    assert answer.status_code == 400
    assert answer.json["errors"][0]["index"] == 1
    assert reports.get(100) is None
    assert signed("/reports/", [good, good]).status_code == 400


def test_a_document_outlives_its_way_as_text() -> None:
    given = document(
        7, results="[" + ",".join(f'{{"value": {number}}}' for number in NUMBERS if "e" not in number) + "]"
    )
    (found,) = decode_documents("checkup", b"[" + encode_document(given) + b"]")
    assert found == given
    assert list(found) == list(given)
    assert [repr(r["value"]) for r in found["results"]] == [repr(r["value"]) for r in given["results"]]


def test_what_is_nested_too_deeply_is_refused(signed) -> None:
    for path, before in (("/reports/", b'[{"_id": 1, "results": '), ("/sync/call/begin", b'[{"a": ')):
        assert signed(path, before + b"[" * 10_000).status_code == 400, path
