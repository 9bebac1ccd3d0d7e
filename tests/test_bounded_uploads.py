"""Uploads: memory, answers, rejected records and time have bounds, and nothing that was acknowledged is lost."""

import contextlib
import gzip
import io
import json
import threading
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.clients import Caller
from support.factories import record, take

from myhealth import processes
from myhealth.common.concurrency import Gate
from myhealth.common.errors import Busy
from myhealth.intake import rejections
from wsgi.upload_api import uploads

BASE_MB, ANSWER_MAX = 300, 5 * 1024 * 1024


@pytest.fixture
def send(upload: Caller, log_in: Any) -> Any:
    def send(body: Any, path: str = "/checkups/", **options: Any) -> Any:
        return upload("POST", path, body, token=log_in("tara"), **options)

    return send


def test_the_errors_of_one_record_are_bounded(send: Any) -> None:
    answer = send([record(None, results=[{}] * 2_000), record(None, **{f"x{i}": 1 for i in range(5_000)})])
    for item in answer.json["items"]:
        assert len(item["errors"]) == 21
        assert item["errors"][-1]["message"] == "and more errors than these 20"
    assert len(answer.data) < 20_000


def test_the_answer_is_bounded_and_still_has_an_item_for_each_record(send: Any, monkeypatch: Any, db: Any) -> None:
    monkeypatch.setattr(uploads, "ITEMS_MAX_BYTES", 9_000)
    answer = send([record(f"r{i}", disease=5 if i % 3 else "BP") for i in range(150)])
    items = answer.json["items"]
    assert [item["index"] for item in items] == list(range(150))
    assert [item["status"] for item in items] == ["rejected" if i % 3 else "accepted" for i in range(150)]
    assert all(item["id"] for item in items if item["status"] == "accepted")
    listed = [item for item in items if item.get("errors")]
    assert 0 < len(listed) < 100
    assert f"The errors of {100 - len(listed)} more are not listed" in answer.json["details"]
    assert len(answer.data) < 9_500
    assert db("select count(*) from rejections") == [(100,)]


def test_the_file_of_rejected_records_is_bounded(send: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(uploads, "REJECTED_FILE_MAX_BYTES", 2_000)
    body = [record(f"r{i}", disease=5) for i in range(50)]
    answer = send(body, "/checkups/?refused_file=true").json
    kept = json.loads(answer["refused_file"])
    assert kept == body[: len(kept)]
    assert 0 < len(kept) < 50
    assert f"{50 - len(kept)} more are not in refused_file" in answer["details"]


def test_a_record_refused_beyond_the_quota_says_so(send: Any, monkeypatch: Any, db: Any) -> None:
    monkeypatch.setattr(rejections, "REQUEST_ROWS", 3)
    monkeypatch.setattr(rejections, "DAY_ROWS", 5)
    bad = [record(f"r{i}", disease=5) for i in range(4)]
    for _ in range(2):  # a record that is stored already takes no further place
        answer = send([*bad, record("good")]).json
        assert [item["rejection_id"] is None for item in answer["items"]] == [False, False, False, True, True]
        assert answer["items"][3]["errors"][-1]["code"] == "not_kept"
        assert answer["items"][4]["status"] in ("accepted", "duplicate")
        assert db("select count(*) from rejections") == [(3,)]
        monkeypatch.setattr(rejections, "DAY_ROWS", 3)
    monkeypatch.setattr(rejections, "DAY_ROWS", 5)
    found = [send(record(f"s{i}", disease=5)).json["items"][0]["rejection_id"] for i in range(4)]
    assert [id_ is None for id_ in found] == [False, False, True, True]
    monkeypatch.setattr(rejections, "DAY_ROWS", 50)
    monkeypatch.setattr(rejections, "DAY_BYTES", 0)
    assert send(record("t", disease=5)).json["items"][0]["rejection_id"] is None


def test_one_record_has_one_rejection_however_it_comes(send: Any, db: Any) -> None:
    for path in (
        "/checkups/",
        "/checkups",
        "/reports/",
        "/reports",
        "/users/bholanath/checkups/",
        "/users/BHOLANATH/checkups",
    ):
        send(record("r1", disease=5), path)
    assert db("select source, times from rejections") == [("POST /checkups/", 6)]
    take(record("r1", disease=5), machine="", source="dump.json")
    assert db("select times from rejections") == [(7,)]
    for patient in ("savita", "bholanath"):  # the path alone says whose record it is
        send(record("r2", checkup_for=..., disease=5), f"/users/{patient}/checkups/")
    assert db("select context->'patients', times from rejections order by id offset 1") == [
        (["savita"], 1),
        (["bholanath"], 1),
    ]


def test_a_large_upload_is_stored_in_batches_and_whole_or_not_at_all(send: Any, monkeypatch: Any, db: Any) -> None:
    monkeypatch.setattr(uploads, "BATCH_RECORDS", 7)
    body = [record(f"r{i}", disease=5 if i == 15 else "BP") for i in range(20)]
    text = json.dumps(body).encode()
    broken = send(text[:-1] + b", {", headers={"Idempotency-Key": "k"})
    assert broken.status_code == 400
    assert db("select count(*) from checkups") == db("select count(*) from rejections") == [(0,)]
    monkeypatch.setattr(uploads, "REQUEST_MAX_S", -1)
    late = send(text)
    assert (late.status_code, "nothing was stored" in late.json["details"]) == (413, True)
    assert db("select count(*) from checkups") == [(0,)]
    monkeypatch.setattr(uploads, "REQUEST_MAX_S", 100)
    for key in ("k", "k", "k2"):
        answer = send(text, headers={"Idempotency-Key": key}).json
        assert [item["index"] for item in answer["items"]] == list(range(20))
        assert (answer["accepted"] + answer["duplicate"], answer["rejected"]) == (19, 1)
    assert db("select count(*) from checkups") == [(19,)]
    assert db("select count(*) from rejections") == [(1,)]


def test_an_all_or_nothing_request_of_several_batches_is_refused_by_its_length(send: Any, monkeypatch: Any) -> None:
    body = [record(f"r{i}") for i in range(20)]
    monkeypatch.setattr(uploads, "BATCH_RECORDS", 7)
    assert send(body, "/checkups/?atomic=true").status_code == 201
    monkeypatch.setattr(uploads, "ATOMIC_CHARACTERS", 1_000)
    answer = send(body, "/checkups/?atomic=true")
    assert (answer.status_code, answer.json["code"]) == (413, "too_large")


def test_a_large_body_waits_for_another_and_small_ones_do_not(send: Any, upload: Caller, monkeypatch: Any) -> None:
    gate, entered = upload.application.context.large_bodies, []
    enter = gate.enter
    monkeypatch.setattr(gate, "enter", lambda: entered.append(gate) or enter())
    large = json.dumps([record(None, checkup_report="x" * 999_000)] * 2).encode()
    assert send(large).status_code == 201
    assert send(gzip.compress(large), headers={"Content-Encoding": "gzip"}).status_code == 201
    assert send(gzip.compress(large)).status_code == 201
    assert len(entered) == 3
    gate._wait_s = 0.05
    with enter():
        assert send(record(None)).status_code == 201
        answer = send(large)
        assert (answer.status_code, answer.json["code"], answer.headers["Retry-After"]) == (503, "busy", "10")
    assert send(large).status_code == 201


def test_a_users_bodies_leave_threads_for_others(send: Any, upload: Caller, log_in: Any, people: Any) -> None:
    long = json.dumps([record(None, checkup_report="x" * 140_000)]).encode()
    room = upload.application.context.bodies
    with contextlib.ExitStack() as held:
        for _ in range(4):
            held.enter_context(room.enter(people["tara"]))
        for body in (long, gzip.compress(long)):
            answer = send(body)
            assert (answer.status_code, answer.json["code"], answer.headers["Retry-After"]) == (503, "busy", "2")
        answer = send({"resourceType": "Bundle", "type": "batch", "x": "x" * 140_000}, "/fhir/")
        assert answer.status_code == 503
        table = {"token": log_in("tara"), "machine": "HC-1", "file": (io.BytesIO(b"x" * 140_000), "t.csv")}
        assert upload.client.post("/csv", data=table, content_type="multipart/form-data").status_code == 503
        assert send(record(None)).status_code == 201
        assert upload("POST", "/checkups/", long, token=log_in("dr.ayush")).status_code == 201
    assert send(long).status_code == 201
    assert not room._inside


def test_the_gate_lets_one_in_and_few_wait() -> None:
    gate, inside, peak = Gate(slots=1, waiting=1, wait_s=10), [], []

    def work() -> None:
        with gate.enter():
            inside.append(1)
            peak.append(len(inside))
            threading.Event().wait(0.05)
            inside.pop()

    with gate.enter():
        waiting = threading.Thread(target=work)
        waiting.start()
        while gate._present[None] < 2:
            pass
        with pytest.raises(Busy), gate.enter():
            pass
    waiting.join()
    assert peak == [1]
    work()


RESULT = '{"code":"8480-6","name":"Systolic","value":128,"unit":"mm[Hg]","low":90,"high":120,"flag":"H"}'
RECORD = (
    '{"record_id":"%d","checkup_for":"bholanath","taken_by":"dr.ayush","taken_at":"2026-11-20T09:14:03+05:30",'
    f'"checkup_type":"BLOOD PRESSURE","disease":"BP","checkup_report":"ALL FINE. 128/82","results":[{RESULT}]}}'
)
ENTRY = (
    '{"resource":{"resourceType":"Observation","id":"%d","status":"final","code":{"text":"Glucose"},'
    '"subject":{"reference":"Patient/p1"},"valueQuantity":{"value":6.3,"unit":"mmol/l"},"note":[{"text":"'
    + "y" * 700
    + '"}]}}'
)
MB = 1_000_000
HL7 = b"MSH|^~\\&|LAB|A|||20260101||ORU^R01|1|P|2.5\rPID|1||bholanath\r"
LARGE: dict[str, Any] = {
    "honest dump": lambda: (
        b'{"machine":"HC-1","records":[' + ",".join(RECORD % i for i in range(100_000)).encode() + b"]}"
    ),
    "honest bundle": lambda: (
        b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Patient","id":"p1","identifier":'
        b'[{"value":"bholanath"}]}},' + ",".join(ENTRY % i for i in range(40_000)).encode() + b"]}"
    ),
    "empty entries": lambda: b'{"resourceType":"Bundle","entry":[' + b"{}," * (21 * MB) + b"{}]}",
    "numbers": lambda: b"[" + b"1," * 99_999 + b"1]",
    "empty objects": lambda: b"[" + b"{}," * (21 * MB) + b"{}]",
    "faulty results": lambda: (
        b"[" + b",".join([b'{"checkup_for":"bholanath","results":[' + b"{}," * 1_999 + b"{}]}"] * 5_000) + b"]"
    ),
    "lists in a record": lambda: b'{"checkup_for":"a","results":[' + b"[]," * (21 * MB) + b"[]]}",
    "lists in records": lambda: b"\n".join([b'{"checkup_for":"a","results":[' + b"[]," * 130_000 + b"[]]}"] * 150),
    "long texts": lambda: b"[" + b",".join(
        ['{"checkup_for":"a","checkup_report":"\U0001f600'.encode() + b"x" * (15 * MB) + b'"}'] * 4) + b"]",
    "lines of wide text": lambda: b"\n".join(['{"checkup_for":"a","x":"\U0001f600'.encode() + b"x" * 9_000 + b'"}'] * 6_000),
    "keys": lambda: b'{"checkup_for":"a",' + b",".join(b'"%d":1' % i for i in range(5 * MB)) + b"}",
    "results of an order": lambda: HL7 + b"OBR|1||1|X\r" + b"OBX|1|NM|X||1||||||F\r" * 700_000,
    "orders": lambda: HL7 + b"OBR|1||1|X\rOBX|1|NM|X||1||||||F\r" * 1_900_000,
    "contained": lambda: (
        b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Observation","contained":['
        + b'{"id":"a"},' * 100_000 + b'{"id":"a"}]}}' + b",{}]}"
    ),
}  # fmt: skip


def _peak_mb(pid: int) -> float:
    """Return the highest resident size of the only child of a process: gunicorn's worker."""
    child = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
    status = Path(f"/proc/{child}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.mark.long
@pytest.mark.parametrize("shape", LARGE)
def test_a_worker_and_an_answer_stay_small_whatever_64_mb_say(
    shape: str, settings: Any, people: Any, log_in: Any, capsys: Any
) -> None:
    """gunicorn with the threads of the example's configuration; VmHWM of its worker, the length of its answer."""
    body = LARGE[shape]()
    assert len(body) <= settings.upload.max_body_bytes
    with (
        processes.open_listening_socket("127.0.0.1", 0) as listener,
        processes.gunicorn("wsgi.upload:app", listener, settings, threads=8) as process,
    ):
        before = _peak_mb(process.pid)
        headers = {"Authorization": f"Bearer {log_in('tara')}", "Content-Encoding": "gzip"}
        request = urllib.request.Request(
            f"{processes.url_of(listener)}/checkups/", gzip.compress(body, 1), headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        peak = _peak_mb(process.pid)
    with capsys.disabled():
        print(
            f"\n{shape}: {len(body) / MB:.0f} MB, {status}, answer {len(text) / MB:.1f} MB, {before:.0f} -> {peak:.0f} MB"
        )
    assert status in (201, 400, 413, 422)
    assert len(text) < ANSWER_MAX
    assert peak < BASE_MB
    if shape.startswith("honest"):
        assert (status, peak - before < 150) == (201, True), (before, peak)


def test_a_correction_is_bounded_as_a_record_is(upload: Caller, log_in, monkeypatch: Any) -> None:
    take(record(1))
    put = partial(upload, "PUT", "/users/bholanath/checkups/1/", token=log_in("dr.ayush"))
    results = json.dumps({"results": [{"name": f"T{n}", "value": n} for n in range(2_000)]}).encode()
    assert put(results).status_code == 200
    packed = {"Content-Encoding": "gzip"}
    for hostile in (b'{"results":[' + b"{}," * 400_001 + b"{}]}", b'{"disease":"' + b"x" * 17_000_000 + b'"}'):
        answer = put(gzip.compress(hostile), headers=packed)
        assert (answer.status_code, answer.json["code"]) == (413, "too_large")
    gate = upload.application.context.large_bodies
    monkeypatch.setattr(gate, "_wait_s", 0.05)
    with gate.enter():
        assert put(b'{"disease":"' + b" " * 1_100_000 + b'"}').status_code == 503
        assert put({"disease": "BP"}).status_code == 200
