"""The credential of a sync over HTTP can only sync: a token alone opens nothing, and the key's holder is bounded."""

import dataclasses
import io
import json
import stat
import time
from typing import Any

import pytest
from msgspec.structs import replace
from support.clients import Caller
from support.compare import NONE, differences
from support.factories import PASSWORD, document, record, take

from myhealth.common.errors import NotAllowed, NotLoggedIn, SettingsError
from myhealth.privacy.erasure import erase_user
from myhealth.profiles import services
from myhealth.profiles.services import get_user
from myhealth.profiles.tokens import Signer, load_secret
from myhealth.reports.documents import UserRow, user_document
from myhealth.reports.writer import ReportWriter
from myhealth.sync.calls import CALLS, encode_document
from myhealth.sync.checkpoint import Checkpoint, Position, from_document, to_document
from myhealth.sync.runner import run_pass
from myhealth.sync.signature import RequestSigner, SignatureChecker, new_key
from myhealth.sync.targets import ReportsApi

pytestmark = pytest.mark.usefixtures("people")
DOCTOR = UserRow(1, 1000, "s", "x", "", "doctor", True, None, 1000)


def contents(reports) -> list[Any]:
    return [list(collection.find()) for collection in (reports.reports, reports.users, reports.state, reports.failures)]


@pytest.fixture
def over_http(served, settings, reports) -> ReportsApi:
    """The report store through the browse API, as the sync sees it."""
    sync = dataclasses.replace(settings.sync, reports_api_url=served[1], username="runner", password=PASSWORD)
    return ReportsApi(dataclasses.replace(settings, auth_url=served[0], sync=sync))


# -- a stolen token --------------------------------------------------------------------------------------------------


def test_a_stolen_token_alone_changes_nothing(browse: Caller, log_in, reports) -> None:
    before, token = contents(reports), log_in("runner")
    forged = [json.loads(encode_document(document(1, 1000, checkup_report="HIV POSITIVE (forged)")))]
    doctor = [json.loads(encode_document({**user_document(DOCTOR, 1), "subject": str(get_user("runner").subject)}))]
    mark = {**ReportWriter(reports).read_checkpoint(), "last_checkup_id": 99, "_id": ..., "recheck": None}
    mark = {name: value for name, value in mark.items() if value is not ...}
    for path, body in (("/reports/", forged), ("/sync/call/put_users", [doctor]), ("/sync/call/begin", [mark])):
        answer = browse("POST", path, body, token=token)
        assert (answer.status_code, answer.json["code"]) == (403, "signature_missing"), path
    for method in CALLS:
        assert browse("POST", f"/sync/call/{method}", [], token=token).status_code == 403
    body = io.BytesIO(b"[]")
    headers = {"Authorization": f"Bearer {token}"}
    unsigned = browse.client.post("/reports/", input_stream=body, content_length=2, headers=headers)
    assert (unsigned.status_code, body.tell()) == (403, 0), "nothing of the body is read"
    assert contents(reports) == before
    assert browse("GET", "/users/bholanath/reports/", token=token).status_code == 404
    events = [event for event in reports.access_log.find_events(action="refused") if event.what == "sync"]
    assert {(event.actor, event.what) for event in events} == {("runner", "sync")}
    assert len(events) <= 2, "one a minute, not one a request"


@pytest.mark.parametrize("who", ["bholanath", "dr.ayush", "root"])
def test_who_tries_the_syncs_calls_is_noted(browse: Caller, log_in, reports, who: str) -> None:
    for path in ("/reports/", "/sync/call/put_users"):
        assert browse("POST", path, [], token=log_in(who)).status_code == 403
    refused = [event for event in reports.access_log.find_events(action="refused") if event.what == "sync"]
    assert [(event.actor, event.outcome, event.count) for event in refused] == [(who, "refused", 2)]


def test_a_signature_holds_for_one_request_of_one_key_for_minutes(browse, signed, settings) -> None:
    body, now = b"[]", time.time()
    assert signed("/sync/call/identity", body).status_code == 200
    other = new_key()[0]
    assert signed("/sync/call/identity", body, key=other).json["code"] == "signature_unknown_key"
    assert signed("/sync/call/identity", body, now=now - 301).json["code"] == "signature_old"
    assert signed("/sync/call/identity", body, now=now + 310).json["code"] == "signature_old"
    assert signed("/sync/call/identity", body, now=now - 290).status_code == 200
    signer, checker = RequestSigner(settings.sync.signing_key), SignatureChecker(settings.browse.sync_public_key)
    header = signer.sign("POST", "/a?x=1", body, now)
    for call in (("PUT", "/a?x=1", body), ("POST", "/a?x=2", body), ("POST", "/a", body), ("POST", "/a?x=1", b"[1]")):
        with pytest.raises(NotAllowed, match="not this request's"):
            checker.check(header, *call, now)
    for spoiled in (
        "",
        header + " ",
        header.replace("sig=", "sig=A"),
        header[:-1] + ("A" if header[-1] != "A" else "Q"),
    ):
        with pytest.raises(NotAllowed):
            checker.check(spoiled, "POST", "/a?x=1", body, now)
    checker.check(header, "POST", "/a?x=1", body, now)
    with pytest.raises(NotLoggedIn, match="sent before"):
        checker.check(header, "POST", "/a?x=1", body, now + 1)
    rotated = SignatureChecker(f"{new_key()[1]}, {settings.browse.sync_public_key}")
    rotated.check(header, "POST", "/a?x=1", body, now)
    with pytest.raises(NotAllowed):
        SignatureChecker("").check(header, "POST", "/a?x=1", body, now)
    for wrong in ("x", settings.browse.sync_public_key[:-1]):
        with pytest.raises(SettingsError):
            SignatureChecker(wrong)
        with pytest.raises(SettingsError):
            RequestSigner(wrong)
    with pytest.raises(SettingsError, match=r"needs sync\.signing_key"):
        RequestSigner("")


def test_the_body_is_not_unpacked_before_the_signature_is_right(browse, log_in) -> None:
    damaged = browse("POST", "/reports/", b"no gzip", token=log_in("runner"), headers={"Content-Encoding": "gzip"})
    assert damaged.json["code"] == "signature_missing"


# -- tokens that have ended ------------------------------------------------------------------------------------------


@pytest.fixture
def asked(application, settings, reports):
    """A function that makes a signed call with a token; a real upload API says whether the token has ended."""
    caller = Caller(application)

    def ask(token: str) -> Any:
        signature = RequestSigner(settings.sync.signing_key).sign("POST", "/sync/call/identity", b"[]")
        return caller("POST", "/sync/call/identity", b"[]", token=token, headers={"MyHealth-Signature": signature})

    return ask


def test_a_runner_whom_the_sync_has_not_brought_yet_is_let_in_while_its_login_lasts(asked, settings, reports) -> None:
    signer, runner = Signer(load_secret(settings), 6000), get_user("runner").subject
    assert asked(signer.sign(runner, time.time() - 3000, service=True)[0]).status_code == 200, "of any age"
    for other in ("bholanath", "dr.ayush", "root", "tara"):
        assert asked(signer.sign(get_user(other).subject, service=True)[0]).status_code == 403
    reports.users.insert_one(user_document(UserRow(1, 1, str(runner), "runner", "", "patient", True, None, 1), 1))
    assert asked(signer.sign(runner, service=True)[0]).status_code == 403, "what is known beats what a token says"
    reports.users.update_one({"_id": 1}, {"$set": {"role": "service", "active": False}})
    assert asked(signer.sign(runner, service=True)[0]).status_code == 401


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("end", [erase_user, lambda name: services.set_active(name, False)])
def test_the_token_of_an_ended_account_opens_nothing_at_once(asked, sync, settings, reports, end, synced) -> None:
    signer = Signer(load_secret(settings), 6000)
    tokens = {name: signer.sign(get_user(name).subject, service=name == "runner")[0] for name in ("runner", "savita")}
    end("runner")
    if synced:
        sync()
    assert asked(tokens["runner"]).status_code == 401


def test_a_deleted_persons_young_token_is_ended_and_a_new_persons_waits(application, log_in, sync) -> None:
    caller, token = Caller(application), log_in("savita")
    answer = caller("GET", "/reports/", token=token)
    assert (answer.status_code, answer.json["code"]) == (503, "not_here_yet")
    erase_user("savita")
    assert caller("GET", "/reports/", token=token).status_code == 401
    sync()
    assert caller("GET", "/reports/", token=token).json["code"] == "token_ended"


# -- the bounds of the key's holder ----------------------------------------------------------------------------------


def json_of(checkpoint: Any) -> dict[str, Any]:
    return to_document(checkpoint)


def refused(answer: Any) -> bool:
    return (answer.status_code, answer.json["code"]) == (409, "out_of_bounds")


def test_the_checkpoint_moves_over_nothing_that_was_not_sent(signed, reports, sync, db) -> None:
    stored = from_document(ReportWriter(reports).read_checkpoint())
    take(record(77))
    ((xid, id_),) = db("select changed_in::text::bigint, id from checkups order by id desc limit 1")
    run = replace(stored, run="r", finished=False, began=stored.feeds["tombstones"])
    assert signed("/sync/call/begin", [json_of(run)]).status_code == 200
    over = run.with_feed_position("checkups", Position(xid, id_))
    assert refused(signed("/sync/call/write_checkpoint", [json_of(over), "r"])), "nothing was sent"
    known = [json.loads(encode_document(document(1)))]
    assert signed("/reports/", known).status_code == 201
    assert refused(signed("/sync/call/write_checkpoint", [json_of(over), "r"])), "another row was sent"
    for wrong in (
        run.with_feed_position("tombstones", Position(xid, 1)),
        run.with_feed_position("users", Position(xid, 1)),
        run.with_scanned("checkups", 99),
        run.with_last_id(99),
        replace(run, phase="scan"),
        replace(run, epoch=run.epoch + 1),
        replace(run, horizon=xid + 1),
        replace(run, store=""),
        replace(run, feeds={}),
    ):
        assert refused(signed("/sync/call/write_checkpoint", [json_of(wrong), "r"])), wrong
        assert refused(signed("/sync/call/begin", [json_of(wrong)])), wrong
    assert signed("/sync/call/write_checkpoint", [json_of(run), "other"]).json["code"] == "taken_over"
    assert signed("/sync/call/write_checkpoint", [json_of(run.with_run_done()), "r"]).status_code == 200
    assert sync().written == 1
    assert ReportWriter(reports).has_documents_after("checkup", id_ - 1)


def test_the_position_among_events_moves_over_nothing_that_was_not_sent(
    signed, upload, log_in, sync, reports, people
) -> None:
    """Else whoever has the key could hide a look at a record from its patient."""
    sync()
    sent = {"id": 3, "at": "2026-11-20T00:00:00Z", "actor_id": 3, "actor_subject": "s", "actor": "dr.ayush",
            "actor_role": "doctor", "action": "read", "what": "checkups", "patient_id": people["bholanath"],
            "subject": "s", "username": "bholanath", "report_id": None, "address": None}  # fmt: skip
    before = contents(reports)
    for events, epoch, after in (([], 1, 2**40), ([sent], 1, 4), ([], 2, 0), ([sent], 2, 1), ([], 2**30, 0)):
        assert refused(signed("/sync/call/put_events", [events, epoch, after])), (epoch, after)
    assert contents(reports) == before
    upload("GET", "/users/bholanath/checkups/", token=log_in("dr.ayush"))
    sync()
    assert [
        event.actor for event in reports.access_log.find_for_patient(reports.people.find_by_username("bholanath"))
    ] == ["dr.ayush"]
    assert signed("/sync/call/put_events", [[sent], 1, 3]).status_code == 200


@pytest.mark.parametrize("mark", [{"$set": {"x": 1}}, {}, {"epoch": 1}, "mark", None, {"feeds": {"$set": 1}}])
def test_what_is_no_checkpoint_is_a_400(signed, reports, mark) -> None:
    before = contents(reports)
    assert signed("/sync/call/begin", [mark]).status_code == 400
    assert signed("/sync/call/write_checkpoint", [mark, "r"]).status_code == 400
    assert contents(reports) == before


@pytest.mark.parametrize("epoch", [3, 2**30, 2**31 - 1, 2**31])
def test_no_epoch_is_skipped(signed, reports, epoch) -> None:
    stored = from_document(ReportWriter(reports).read_checkpoint())
    assert stored.epoch == 1
    wide = epoch if epoch < 2**31 else epoch - 1
    reports_body = [{**json.loads(encode_document(document(1, 9))), "epoch": epoch}]
    users = [[{**json.loads(encode_document(user_document(DOCTOR, 1))), "epoch": epoch}]]
    start = json_of(Checkpoint(stored.history, 1, "scan", stored.horizon, "w", store=stored.store)) | {"epoch": epoch}
    before = contents(reports)
    for path, body in (("/reports/", reports_body), ("/sync/call/put_users", users), ("/sync/call/begin", [start]),
                       ("/sync/call/sweep", [epoch, 0]), ("/sync/call/remove", ["checkup", [[1, 1]], epoch]),
                       ("/sync/call/quarantine", ["checkup", [[{"_id": 1, "epoch": epoch, "revision": 1}, "x"]]])):  # fmt: skip
        assert signed(path, body).status_code == (409 if wide == epoch else 400), path
    assert contents(reports) == before
    assert signed("/sync/call/begin", [{**start, "epoch": 2}]).status_code == 200


@pytest.mark.parametrize("epoch", [2**31 - 1, 2**31 - 2, 2**30, 2**63 - 1], ids=str)
@pytest.mark.parametrize("where", ["reports", "users", "state"])
def test_an_epoch_that_no_sync_gave_breaks_no_later_pass(db, reports, settings, over_http, where, epoch) -> None:
    take(*[record(i) for i in range(3)])

    def one_pass() -> Any:
        return run_pass(settings.database_url, over_http, settings)

    one_pass()
    collection = {"reports": reports.reports, "users": reports.users, "state": reports.state}[where]
    collection.update_one({}, {"$set": {"epoch": epoch}})
    for _ in range(3):
        reports.reports.drop()  # each begins a new epoch
        one_pass()
        if where == "users":
            assert reports.users.find_one({"epoch": {"$gt": 2**30 + 10}}) is None
        assert differences(db, reports) == NONE
    assert ReportWriter(reports).read_checkpoint()["epoch"] < 2**30 + 10


def test_every_minute_of_writing_is_one_event(signed, reports) -> None:
    assert signed("/sync/call/identity", []).status_code == 200
    assert list(reports.access_log.find_events(action="sync")) == [], "reading is no event"
    for number in range(20):
        assert signed("/sync/call/remove", ["checkup", [[1000 + number, 1]], 1]).status_code == 200
    signed("/reports/", [json.loads(encode_document(document(1)))])
    events = list(reports.access_log.find_events(action="sync"))
    assert 1 <= len(events) <= 2
    assert {(event.actor, event.what, event.outcome) for event in events} == {("runner", "sync", "done")}


# -- the key pair ----------------------------------------------------------------------------------------------------


def test_a_new_key_is_for_its_owner_alone_and_replaces_none(run_cli, tmp_path) -> None:
    path = tmp_path / "signing_key"
    done = run_cli("sync", "--new-key", str(path))
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    private, public = path.read_text(), done.stdout.strip()
    assert private.strip() not in done.stdout + done.stderr
    header = RequestSigner(private.strip()).sign("POST", "/", b"")
    SignatureChecker(public).check(header, "POST", "/", b"")
    assert run_cli("sync", "--new-key", str(path)).returncode == 2
    assert path.read_text() == private


def test_the_sync_over_http_does_not_begin_without_its_key(settings) -> None:
    sync = dataclasses.replace(settings.sync, reports_api_url="http://127.0.0.1:1", username="u", password="p")
    with pytest.raises(SettingsError, match="signing_key"):
        ReportsApi(dataclasses.replace(settings, sync=dataclasses.replace(sync, signing_key="")))
