"""The upload API: logins, tokens, and records that are acknowledged one by one."""

import base64
import gzip
import json
import threading
import time

import pytest
from support.clients import Caller, basic
from support.factories import PASSWORD, dump, record

from myhealth.common.database import database
from myhealth.intake.retry import retry_rejection
from myhealth.privacy.erasure import erase_user
from myhealth.profiles import services
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import run_pass
from wsgi.common.application import LazyApplication

# -- logging in ------------------------------------------------------------------------------------------------------


def test_a_login_gives_a_token_that_opens_the_api(upload: Caller, db) -> None:
    for answer in (
        upload("GET", "/login/", headers=basic("tara", PASSWORD)),
        upload("POST", "/login/", {"username": "tara", "password": PASSWORD}),
        upload("POST", "/login", {"username": "TARA", "password": PASSWORD}),
    ):
        assert answer.status_code == 200
        assert set(answer.json) == {"token", "expires_at"}
        assert answer.headers["Cache-Control"] == "no-store"
        for headers in ({"x-access-token": answer.json["token"]}, {"Authorization": f"bearer {answer.json['token']}"}):
            sent = upload("POST", "/checkups/", [record(None)], headers=headers)
            assert sent.status_code == 201


@pytest.mark.parametrize(
    ("code", "headers"),
    [("wrong_credentials", basic("tara", "wrong")), ("wrong_credentials", basic("nobody", PASSWORD)),
     ("wrong_credentials", basic("tara", "x" * 100)), ("credentials_missing", {}),
     ("credentials_missing", {"Authorization": "Basic !!!"}), ("credentials_missing", {"Authorization": "Digest x"}),
     ("credentials_missing", {"Authorization": "Basic " + base64.b64encode(b"no colon").decode()}),
     ("credentials_missing", {"Authorization": "Basic /////w=="}), ("credentials_missing", {"Authorization": "Basic"}),
     ("credentials_missing", {"Authorization": "Basic \xe9"}), ("credentials_missing", {"Authorization": "Bearer \xe9"})],
    ids=str,
)  # fmt: skip
def test_a_wrong_login_is_401_whatever_is_wrong(upload: Caller, browse: Caller, code: str, headers: dict) -> None:
    for answer in (upload("GET", "/login/", headers=headers), browse("GET", "/login/", headers=headers)):
        assert answer.status_code == 401
        assert answer.json["code"] == code
        if code == "wrong_credentials":
            assert answer.json["details"] == "The username or the password is wrong."
        assert answer.headers["WWW-Authenticate"].startswith('Basic realm="MyHealth"')


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"{", 400), (b"[]", 400), ({"username": "tara"}, 401), ({"username": {"$ne": 1}, "password": 5}, 401),
     ({"username": "tara", "password": "x", "role": "admin"}, 400), (b"\xff", 400), (b"x" * 20_000, 413)],
    ids=repr,
)  # fmt: skip
def test_a_login_that_is_no_login_is_an_error_and_never_a_500(upload: Caller, body, status: int) -> None:
    assert upload("POST", "/login/", body).status_code == status


def test_anybody_can_register_as_a_patient(upload: Caller, db) -> None:
    answer = upload("POST", "/registration/", {"username": "new.one", "password": "a long password"})
    assert (answer.status_code, answer.json["details"]) == (201, "New user created")
    assert db("select role from users where username = 'new.one'") == [("patient",)]
    again = upload("POST", "/registration/", {"username": "NEW.one", "password": "a long password"})
    assert (again.status_code, again.json["details"]) == (400, "User with same information is already exists.")
    for body in ({"username": "x", "password": "short"}, {"username": "a b", "password": PASSWORD}, {"username": "x"},
                 {"username": "x", "password": PASSWORD, "role": "admin"}, {"username": ["x"], "password": PASSWORD}):  # fmt: skip
        assert upload("POST", "/registration/", body).status_code == 400
    assert db("select count(*) from users where role = 'admin'") == [(1,)]


@pytest.mark.parametrize("how", ["disabled", "deleted", "new password", "logged out"])
def test_a_token_ends_with_what_it_stands_for(upload: Caller, log_in, people, how: str) -> None:
    token = log_in("tara")
    assert upload("POST", "/checkups/", [record(None)], token=token).status_code == 201
    time.sleep(0.01)
    if how == "disabled":
        services.set_active("tara", False)
    elif how == "deleted":
        erase_user("tara")
    elif how == "new password":
        services.set_password("tara", "another password", rounds=4)
    else:
        services.revoke_tokens(people["tara"])
    answer = upload("POST", "/checkups/", [record(None)], token=token)
    assert (answer.status_code, answer.json["code"]) == (401, "token_ended")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_public_key_is_public(upload: Caller) -> None:
    answer = upload("GET", "/.well-known/jwks.json")
    (key,) = answer.json["keys"]
    assert (key["kty"], key["crv"], key["alg"]) == ("OKP", "Ed25519", "EdDSA")
    assert "d" not in key


# -- usernames -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "name", "status"),
    [("root", "savita", 200), ("root", "Savita", 200), ("root", "savita.k", 200), ("root", "bholanath", 409),
     ("root", "BHOLANATH", 409), ("root", "a b", 400), ("root", "", 400), ("root", None, 400), ("savita", "savita", 200),
     ("savita", "SAVITA", 200), ("savita", "savita.k", 403), ("savita", "bholanath", 403), ("savita", "a b", 403),
     ("bholanath", "savita", 404), ("dr.ayush", "savita.k", 404), ("tara", "savita", 404), ("runner", "savita.k", 404)],
)  # fmt: skip
def test_only_an_admin_renames_a_user_and_the_same_name_is_no_change(
    upload: Caller, log_in, people, db, who: str, name: str | None, status: int
) -> None:
    answer = upload("PUT", "/users/savita/", {"username": name, "full_name": "S"}, token=log_in(who))
    assert answer.status_code == status
    after = name if (who, status) == ("root", 200) else "savita"
    assert db("select username, full_name from users where id = %s", people["savita"]) == [
        (after, "S" if status == 200 else "")
    ]
    if status == 200:
        assert answer.json["username"] == after
    if status == 409:
        assert answer.json["code"] == "user_exists"


def test_a_renamed_user_keeps_tokens_records_and_reports(
    upload: Caller, browse: Caller, log_in, settings, reports
) -> None:
    patient, doctor = log_in("savita"), log_in("dr.ayush")
    before = browse("GET", "/reports/", token=patient).json
    assert upload("PUT", "/users/savita/", {"username": "savita.k"}, token=log_in("root")).status_code == 200
    assert upload("GET", "/users/savita.k/", token=patient).json["username"] == "savita.k"
    assert upload("GET", "/users/savita/", token=doctor).status_code == 404
    assert [row["username"] for row in upload("GET", "/users/savita.k/checkups/", token=doctor).json] == ["savita.k"]
    run_pass(settings.database_url, ReportWriter(reports), settings)
    assert browse("GET", "/reports/", token=patient).json == [{**report, "username": "savita.k"} for report in before]
    assert browse("GET", "/users/savita.k/reports/", token=doctor).json
    assert browse("GET", "/users/savita/reports/", token=doctor).status_code == 404


def test_names_can_be_exchanged_within_one_pass_of_the_sync(
    upload: Caller, browse: Caller, log_in, settings, reports
) -> None:
    admin = log_in("root")
    for old, new in (("savita", "x"), ("bholanath", "savita"), ("x", "bholanath")):
        assert upload("PUT", f"/users/{old}/", {"username": new}, token=admin).status_code == 200
    run_pass(settings.database_url, ReportWriter(reports), settings)
    found = {name: len(browse("GET", f"/users/{name}/reports/", token=log_in("dr.ayush")).json)
             for name in ("savita", "bholanath")}  # fmt: skip
    assert found == {"savita": 3, "bholanath": 1}


def test_rejected_records_of_a_renamed_user_stay_with_the_user(upload: Caller, log_in, people, db) -> None:
    admin, sent = log_in("root"), [record(1, "savita", disease=5), record(2, "nobody")]
    upload("POST", "/checkups/", sent, token=log_in("tara"))
    (broken,), (unknown,) = db("select id from rejections order by id")
    upload("PUT", "/users/savita/", {"username": "savita.k"}, token=admin)
    upload("PUT", "/users/bholanath/", {"username": "nobody"}, token=admin)
    db('update rejections set payload = replace(payload, \'"disease": 5\', \'"disease": "BP"\')')
    assert retry_rejection(broken).status == "accepted"
    assert retry_rejection(unknown).status == "accepted"
    assert db("select patient_id from checkups order by id") == [(people["savita"],), (people["bholanath"],)]


def test_a_record_that_names_two_users_after_a_rename_is_given_to_neither(upload: Caller, log_in, db) -> None:
    upload("POST", "/checkups/", record(1, "savita", disease=5), token=log_in("tara"))
    upload("PUT", "/users/savita/", {"username": "savita.k"}, token=log_in("root"))
    services.create_user("savita")
    db('update rejections set payload = replace(payload, \'"disease": 5\', \'"disease": "BP"\')')
    ((rejection,),) = db("select id from rejections")
    assert retry_rejection(rejection).status == "rejected"
    erase_user("savita.k")
    assert db("select count(*) from rejections") == [(0,)]


# -- records ---------------------------------------------------------------------------------------------------------

ADDRESSES = ["/checkups/", "/checkups", "/reports/", "/users/bholanath/checkups/", "/machines/HC-1/dumps/"]


@pytest.mark.parametrize(
    ("who", "path"), [("tara", path) for path in ADDRESSES] + [("dr.ayush", path) for path in ADDRESSES[:-1]]
)
def test_records_are_acknowledged_one_by_one(upload: Caller, db, log_in, path: str, who: str) -> None:
    token = log_in(who)
    answer = upload("POST", path, [record(1), record(2, disease=5), record(3)], token=token)
    assert answer.status_code == 201
    assert answer.json["details"] == "User checkup created…"
    assert (answer.json["accepted"], answer.json["duplicate"], answer.json["rejected"]) == (2, 0, 1)
    items = answer.json["items"]
    assert [item["status"] for item in items] == ["accepted", "rejected", "accepted"]
    assert [item["index"] for item in items] == [0, 1, 2]
    assert items[1]["errors"][0]["field"] == "disease"
    assert db("select id from checkups order by id") == [(items[0]["id"],), (items[2]["id"],)]
    assert db("select id from rejections") == [(items[1]["rejection_id"],)]
    again = upload("POST", path, [record(1), record(3)], token=token)
    assert (again.status_code, again.json["duplicate"]) == (200, 2)
    assert [item["id"] for item in again.json["items"]] == [items[0]["id"], items[2]["id"]]
    refused = upload("POST", path, [record(9, disease=5)], token=token)
    assert (refused.status_code, refused.json["rejected"]) == (422, 1)


def test_a_record_that_something_is_said_of_is_found_again_in_what_was_sent(upload: Caller, db, log_in) -> None:
    hot = {"code": "8310-5", "name": "Body temperature", "value": 366, "unit": "Cel"}
    sent = [record(7), record(8, disease=5), record(9, results=[hot]), record(None, disease=5), ["no record"]]
    body = b"\n".join(json.dumps(each).encode() for each in sent)
    items = upload("POST", "/checkups/", body, token=log_in("tara")).json["items"]
    assert [(item["status"], item.get("line"), item.get("record_id", "")) for item in items] == [
        ("accepted", None, ""),
        ("rejected", 2, "8"),
        ("accepted", 3, "9"),
        ("rejected", 4, None),
        ("rejected", 5, None),
    ]


OLD = {"checkup_type": "BP", "checkup_report": "FINE", "checkup_for": "bholanath", "machine": "HC-1",
       "taken_by": "dr.ayush", "disease": "BP"}  # fmt: skip


@pytest.mark.parametrize("path", ["/users/bholanath/checkups/", "/users/bholanath/checkups", "/checkups/", "/reports/"])
def test_todays_clients_keep_working(upload: Caller, db, log_in, path: str) -> None:
    token = log_in("dr.ayush")
    one = upload("POST", path, OLD, headers={"x-access-token": token})
    assert (one.status_code, one.json["details"]) == (201, "User checkup created…")
    three = upload("POST", path, [OLD, OLD, OLD], headers={"x-access-token": token})
    assert (three.status_code, three.json["accepted"]) == (201, 3)
    assert db("select count(*) from checkups") == [(4,)]
    unknown = upload("POST", "/checkups/", {**OLD, "checkup_for": "nobody"}, token=token)
    assert (unknown.status_code, unknown.json["details"]) == (404, "User does not exist!")
    unknown = upload("POST", "/users/nobody/checkups/", OLD, token=token)
    assert (unknown.status_code, unknown.json["details"]) == (404, "User does not exist!")


def test_an_address_of_a_patient_takes_records_of_that_patient_only(upload: Caller, db, log_in) -> None:
    token = log_in("dr.ayush")
    unnamed = {name: value for name, value in OLD.items() if name != "checkup_for"}
    answer = upload("POST", "/users/bholanath/checkups/", [unnamed, {**OLD, "checkup_for": "savita"}, OLD], token=token)
    assert [item["status"] for item in answer.json["items"]] == ["accepted", "rejected", "accepted"]
    assert "is not bholanath, the patient of all records" in answer.json["items"][1]["errors"][0]["message"]


def test_a_dump_sent_twice_is_stored_once_also_without_numbers(upload: Caller, db, log_in) -> None:
    body = dump([record(None), record(None), record(7)])
    token = log_in("tara")
    assert upload("POST", "/machines/HC-1/dumps/", body, token=token).json["accepted"] == 3
    assert upload("POST", "/machines/HC-1/dumps/", body, token=token).json["duplicate"] == 3
    other = upload("POST", "/machines/HC-2/dumps/", body, token=token)
    assert other.status_code == 400
    assert "of the machine HC-1, not of HC-2" in other.json["details"]


def test_all_or_nothing(upload: Caller, db, log_in) -> None:
    answer = upload("POST", "/checkups/?atomic=true", [record(1), record(2, disease=5)], token=log_in("tara"))
    assert (answer.status_code, answer.json["rejected"]) == (422, 2)
    assert db("select count(*) from checkups") == [(0,)]


def test_a_gzipped_body_is_unpacked(upload: Caller, db, log_in) -> None:
    body = gzip.compress(json.dumps([record(1)]).encode())
    answer = upload("POST", "/checkups/", body, token=log_in("tara"), headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"", {}, 400, "empty"),
        (b"hello", {}, 400, "neither JSON, HL7 v2, a table nor gzip"),
        (b"[]", {}, 400, "no record"),
        (b'[{"a": 1}', {}, 400, "cut short"),
        (b"nothing packed", {"Content-Encoding": "gzip"}, 400, "damaged"),
        (gzip.compress(b"[1]")[:-3], {"Content-Encoding": "gzip"}, 400, "cut short"),
        (gzip.compress(b" " * 80_000_000), {"Content-Encoding": "gzip"}, 413, "more than 67108864 bytes"),
        (b"x", {"Content-Encoding": "br"}, 415, "'br' is not known"),
    ],
    ids=["empty", "text", "empty list", "cut", "damaged", "cut gzip", "bomb", "brotli"],
)
def test_a_body_that_cannot_be_taken_is_an_error_and_stores_nothing(
    upload: Caller, db, log_in, body: bytes, headers: dict, status: int, said: str
) -> None:
    answer = upload("POST", "/checkups/", body, token=log_in("tara"), headers=headers)
    assert answer.status_code == status
    assert said in answer.json["details"]
    assert db("select count(*) from checkups") == [(0,)]


def test_a_body_is_refused_before_it_is_read(upload: Caller, log_in) -> None:
    lengths = {"70000000": 413, "10": 400, "x": 400, "-5": 400}
    for length, status in lengths.items():
        overrides = {"CONTENT_LENGTH": length}
        answer = upload("POST", "/checkups/", b"[1]", token=log_in("tara"), environ_overrides=overrides)
        assert answer.status_code == status


@pytest.mark.parametrize("key", ["", "\u20ac", "x" * 256, "a\tb"], ids=["empty", "euro", "long", "tab"])
def test_a_key_that_is_none_is_refused_and_not_passed_over(upload: Caller, db, log_in, key: str) -> None:
    """Whoever sends one counts on it."""
    headers = {"Idempotency-Key": key.encode().decode("latin-1")}
    answer = upload("POST", "/checkups/", [record(1)], token=log_in("tara"), headers=headers)
    assert (answer.status_code, answer.json["code"]) == (400, "bad_input")
    assert db("select count(*) from checkups") == [(0,)]


@pytest.mark.parametrize("query", ["limit=", "after=", "limit=0", "after=-1", "limit=501", "after=x"])
def test_a_page_that_is_none_is_refused(upload: Caller, log_in, query: str) -> None:
    assert upload("GET", f"/checkups/?{query}", token=log_in("dr.ayush")).status_code == 400


@pytest.mark.parametrize("query", ["limit=", "limit=x", "after=a%00b", "after=%E9"])
@pytest.mark.parametrize("who", ["root", "bholanath"])
def test_a_page_of_users_that_is_none_is_refused(upload: Caller, log_in, query: str, who: str) -> None:
    assert upload("GET", f"/users/?{query}", token=log_in(who)).status_code == 400


@pytest.mark.parametrize("who", ["bholanath", "dr.ayush", "tara", "root"])
@pytest.mark.parametrize(
    "name", ["a%00b", "%ED%A0%80", "%F4%8F%BF%BF", "x" * 5000], ids=["NUL", "surrogate", "last", "long"]
)
def test_a_name_that_cannot_be_one_is_never_a_500(upload: Caller, log_in, name: str, who: str) -> None:
    token = log_in(who)
    for method in ("GET", "PUT", "POST", "DELETE"):
        for path in (
            f"/users/{name}/",
            f"/users/{name}/checkups/",
            f"/users/{name}/checkups/1/",
            f"/machines/{name}/dumps/",
        ):
            answer = upload(method, path, None if method in ("GET", "DELETE") else {}, token=token)
            assert 400 <= answer.status_code < 500, (method, path)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/nothing/", 404, "not_found"), ("DELETE", "/login/", 405, "method_not_allowed"),
     ("GET", "/users/a%2Fb/checkups/", 404, "not_found"), ("POST", "/healthz", 405, "method_not_allowed"),
     ],
)  # fmt: skip
def test_every_error_is_json(upload: Caller, method: str, path: str, status: int, code: str) -> None:
    answer = upload(method, path)
    assert (answer.status_code, answer.json["code"]) == (status, code)


def test_a_path_that_is_not_utf8_is_nobodys(upload: Caller, db, log_in) -> None:
    """Bottle drops such bytes: a record for José, sent in Latin-1, would be Jos's."""
    services.create_user("Jos")
    path = "/users/Jos\xe9/checkups/"
    answer = upload("POST", "/", [record(None)], token=log_in("tara"), environ_overrides={"PATH_INFO": path})
    assert (answer.status_code, answer.json["code"]) == (400, "bad_request")
    assert db("select count(*) from checkups") == [(0,)]


def test_a_fault_of_ours_leaves_no_traceback(upload: Caller, log_in, monkeypatch, caplog) -> None:
    from myhealth.intake import pipeline

    def stumble(*_: object, **__: object) -> None:
        raise RuntimeError("".join(["a secret", " detail"]))

    monkeypatch.setattr(pipeline.Intake, "store_batch", stumble)
    answer = upload("POST", "/checkups/", [record(1)], token=log_in("tara"))
    assert (answer.status_code, answer.json["code"]) == (500, "internal_error")
    assert b"secret detail" not in answer.data
    assert "RuntimeError" in caplog.text
    assert "in take" in caplog.text
    assert "secret detail" not in caplog.text, "what an error says may be a patient's data"


def test_it_is_well_and_says_so(upload: Caller) -> None:
    assert upload("GET", "/healthz").json["status"] == "ok"


@pytest.mark.process
def test_a_database_that_is_away_is_503_with_a_time(upload: Caller, log_in, postgres, db) -> None:
    token = log_in("tara")
    database.close_all()
    postgres.stop()
    try:
        for method, path, body in (("GET", "/healthz", None), ("POST", "/checkups/", [record(1)])):
            answer = upload(method, path, body, token=token)
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert "PostgreSQL" not in answer.json["details"]
    finally:
        postgres.ensure()
    assert upload("POST", "/checkups/", [record(1)], token=token).status_code == 201


def test_connections_that_died_are_replaced(upload: Caller, log_in, connect, db) -> None:
    token = log_in("tara")
    together = threading.Barrier(5)

    def open_one() -> None:
        with database.connection_context():
            database.execute_sql("select 1")
            together.wait(30)

    threads = [threading.Thread(target=open_one) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert upload("POST", "/checkups/", [record(1)], token=token).status_code == 201
    other = connect()
    with other, other.cursor() as cursor:
        for method, path, body, status in (("GET", "/healthz", None, 200), ("POST", "/checkups/", [record(2)], 201)):
            cursor.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'myhealth'")
            assert upload(method, path, body, token=token).status_code == status


def test_an_application_that_cannot_be_made_says_so_and_tries_again() -> None:
    from myhealth.common.errors import SettingsError

    tries = []

    def make(_site):
        tries.append(1)
        if len(tries) == 1:
            raise SettingsError("secret detail of the settings")
        return lambda environ, start: (start("200 OK", []), [b"well"])[1]

    call = Caller(LazyApplication("upload", make))
    first = call("GET", "/")
    assert first.status_code == 503
    assert b"secret detail" not in first.data
    time.sleep(1)  # the error is remembered for as long as the attempt took, at most a second
    assert call("GET", "/").data == b"well"
    assert call("GET", "/").data == b"well"
    assert len(tries) == 2
