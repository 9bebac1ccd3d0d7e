"""The page of refused records, as a browser without JavaScript uses it, and in Chromium."""

import html
import io
import json
import re
from typing import Any

import pytest
from support.browser import check_accessible, fits, shoot
from support.clients import Caller
from support.factories import PASSWORD, dump, record

from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.identity import PatientMap
from myhealth.intake.rejections import get_rejection
from myhealth.privacy.erasure import erase_user
from myhealth.profiles.services import create_user, set_full_name

HOSTILE = '"><script>alert(1)</script>'


class Page:
    """Sends the forms of the page that was shown last."""

    def __init__(self, upload: Any, caller: str) -> None:
        self.client = upload.client
        self.text = self.client.get("/refused").text
        self.send(username=caller, password=PASSWORD)

    def send(self, status: int = 200, **fields: str) -> str:
        hidden = dict(re.findall(r'<input type="hidden" name="(token|id)" value="([^"]*)">', self.text))
        answer = self.client.post("/refused", data={**hidden, **fields})
        assert answer.status_code == status, answer.text
        assert (answer.headers["Cache-Control"], answer.headers.get("Set-Cookie")) == ("no-store", None)
        self.text = answer.text
        assert "<script" not in self.text
        assert PASSWORD not in self.text
        return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", self.text)))


@pytest.fixture
def refused(upload: Caller, people, log_in) -> list[int]:
    """Send a dump of tara's; return the ids of its rejected records."""
    records = [record(1), record(2, "B. Joshi"), record(3, disease=5, checkup_report=HOSTILE)]
    sent = upload("POST", "/machines/HC-1/dumps/", dump(records), token=log_in("tara"))
    return [item["rejection_id"] for item in sent.json["items"][1:]]


@pytest.mark.parametrize(
    ("action", "typed"),
    [
        ("retry", {"field:disease": "BP & more"}),
        ("retry", {"record": '{"disease": "<BP>"}'}),
        ("discard", {"reason": 'a "test"'}),
        ("", {"search": "savi"}),
    ],
)
def test_what_was_typed_in_is_still_there_after_another_login(upload, refused, action, typed) -> None:
    page = Page(upload, "tara")
    page.send(id=str(refused[1]))
    upload("POST", "/logout/", token=re.search(r'name="token" value="([^"]+)"', page.text)[1])
    assert "log in again" in page.send(401, action=action, **typed)
    held = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.text)
    answer = upload.client.post(
        "/refused",
        data={"username": "tara", "password": PASSWORD, **{name: html.unescape(text) for name, text in held}},
    )
    assert answer.status_code == 200
    inputs = re.findall(r'<input id="\w+" name="([^"]+)" value="([^"]*)"', answer.text)
    inputs += re.findall(r'<input id="\w+" name="([^"]+)" maxlength="150" value="([^"]*)"', answer.text)
    inputs += re.findall(r'<textarea id="\w+" name="([^"]+)"[^>]*>([^<]*)<', answer.text)
    shown = {name: html.unescape(text) for name, text in inputs}
    assert shown.items() >= typed.items()
    assert get_rejection(refused[1]).resolved_at is None


def test_the_list_tells_reasons_and_the_last_uploads(upload, refused) -> None:
    page = Page(upload, "tara")
    text = page.send()
    assert "there is no user named B. Joshi" in text
    assert "disease: " in text
    assert "HC-1 : 1 accepted, 0 duplicate, 2 rejected" in text.replace("HC-1:", "HC-1 :")
    other = Page(upload, "dr.ayush").send()
    assert "B. Joshi" in other
    assert "None yet." in other


def test_a_rejected_record_is_listed_with_its_file(upload, people, log_in, run_cli) -> None:
    named = {"Content-Disposition": "attachment; filename*=UTF-8''" + "W%C3%A4rd%203%3B%0A.json"}
    sent = upload("POST", "/checkups/", [record(1, "nobody")], token=log_in("tara"), headers=named)
    assert upload("POST", "/checkups/", [record(2, "nobody")], token=log_in("tara")).status_code == 422
    page = Page(upload, "tara")
    assert "UTC · Wärd 3;\\n.json, line 1 " in page.send()
    assert "· Wärd 3;\\n.json, line 1 · received" in page.send(id=str(sent.json["items"][0]["rejection_id"]))
    listed = run_cli("rejections", "list").stdout
    assert ("POST /checkups/ Wärd 3;\\n.json" in listed, listed.count("POST /checkups/")) == (True, 2)


def test_a_technician_is_told_whose_records_are_not_listed(upload, people, log_in) -> None:
    sent = json.dumps([record(1, ...)])
    list(FileImport(io.BytesIO(sent.encode()), "x", ImportOptions()))
    upload("POST", "/checkups/", json.loads(sent), token=log_in("tara"))
    assert "also see what came before from another person" in Page(upload, "tara").send()
    staff = Page(upload, "dr.ayush").send()
    assert ("No patient is named · " in staff, "also see" in staff) == (True, False)


def test_another_technician_sees_nothing_of_it(upload, refused) -> None:
    create_user("tim", password=PASSWORD, role="technician", rounds=4)
    page = Page(upload, "tim")
    assert "Nothing waits here." in page.send()
    for fields in ({}, {"action": "retry"}, {"action": "discard"}):
        text = page.send(404, id=str(refused[0]), **fields)
        assert f"there is no rejection {refused[0]}" in text
        assert "Joshi" not in text


def test_a_record_is_stored_for_the_patient_who_is_found(upload, refused, db) -> None:
    page = Page(upload, "tara")
    page.send(id=str(refused[0]))
    assert "No patient is found." in page.send(search="bhola")
    set_full_name("bholanath", "Bholanath Joshi")
    found = page.send(search="BHOLANATH")
    assert 'name="patient" value="bholanath"' in page.text
    assert "Bholanath Joshi" not in found
    assert f"Record {refused[0]} is stored as check-up " in page.send(action="retry", patient="bholanath")
    assert db("select count(*) from checkups where patient_id = 1") == [(2,)]
    doctors = Page(upload, "dr.ayush")
    doctors.send(id=str(refused[1]))
    assert "bholanath · Bholanath Joshi" in doctors.send(search="joshi")


def test_a_field_is_corrected_and_the_record_stored(upload, refused, db) -> None:
    page = Page(upload, "tara")
    page.send(id=str(refused[1]))
    assert 'name="field:disease" value="5"' in page.text
    assert "It is still rejected." in page.send(422, action="retry", **{"field:disease": "5"})
    assert "correction" not in get_rejection(refused[1]).context
    assert "is stored as check-up" in page.send(action="retry", **{"field:disease": "BP"})
    assert db("select disease, checkup_report from checkups where record_id = '3'") == [("BP", HOSTILE)]
    assert '"value": 128' in get_rejection(refused[1]).context["correction"]


def test_a_result_and_the_whole_record_are_corrected(upload, people, log_in, db) -> None:
    wrong = record(1, results=[{"code": "8480-6", "name": "Systolic", "value": [1], "unit": "mm[Hg]", "low": "ninety"}])
    sent = upload("POST", "/machines/HC-1/dumps/", dump([wrong]), token=log_in("tara"))
    page = Page(upload, "tara")
    page.send(id=str(sent.json["items"][0]["rejection_id"]))
    assert 'name="field:results[0].low" value="ninety"' in page.text
    assert 'name="field:results[0].value"' not in page.text
    page.send(422, action="retry", **{"field:results[0].low": "90.50"})
    whole = html.unescape(re.search(r"<textarea[^>]*>(.*?)</textarea>", page.text, re.DOTALL).group(1))
    assert "90.50" in whole
    page.send(action="retry", record=re.sub(r'"value": \[\s*1\s*\]', '"value": 128.0', whole))
    ((results,),) = db("select results::text from checkups")
    assert '"value":128.0' in results.replace(" ", "")
    assert '"low":90.50' in results.replace(" ", "")


def test_a_record_is_put_aside_with_a_reason(upload, refused, db) -> None:
    page = Page(upload, "tara")
    page.send(id=str(refused[0]))
    assert f"Record {refused[0]} is discarded." in page.send(action="discard", reason=HOSTILE)
    assert "has been dealt with already" in page.send(409, id=str(refused[0]), action="retry")
    assert "Dealt with: discarded: " in page.send(id=str(refused[0]))
    assert 'value="retry"' not in page.text


def test_every_look_is_audited(upload, refused, db) -> None:
    page = Page(upload, "tara")
    page.send(id=str(refused[0]), search="x")
    reads = db("select details->>'what', subject from audit_events where action = 'read' order by id")
    assert reads == [("rejections", None), ("rejection", "B. Joshi"), ("people", None)]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"username": "tara", "password": "wrong-horse"}, 401),
        ({"username": "bholanath", "password": PASSWORD}, 403),
        ({"token": HOSTILE}, 401),
        ({"username": HOSTILE}, 401),
        ({"username": "tara", "password": PASSWORD, "id": "1 or 1"}, 400),
        ({"username": "tara", "password": PASSWORD, "id": "9" * 40}, 404),
        ({"username": "tara", "password": PASSWORD, "id": "1", "search": "\0"}, 400),
        ({"username": "tara", "password": PASSWORD, "after": HOSTILE}, 400),
        ({"username": "tara", "password": PASSWORD, "id": "1", "action": "retry", "field:x.y[9].z": "1"}, 400),
        ({"username": "tara", "password": PASSWORD, "id": "2", "action": "retry", "record": HOSTILE}, 422),
        ({"username": "tara", "password": PASSWORD, "id": "2", "action": "retry", "patient": HOSTILE}, 404),
        ({"username": "tara", "password": PASSWORD, "id": "2", "action": "discard", "reason": "x" * 151}, 400),
    ],
    ids=repr,
)
def test_what_cannot_be_done_is_said_on_the_page(upload, refused, db, fields, status) -> None:
    answer = upload.client.post("/refused", data=fields)
    assert answer.status_code == status
    assert '<form method="post"' in answer.text
    assert "<script" not in answer.text
    assert db("select count(*) from rejections where resolved_at is null") == [(2,)]


def test_a_record_of_another_format_is_corrected_as_a_whole(upload, people, log_in, db) -> None:
    text = "MSH|^~\\&|A|B|C|D|20261120||ORU^R01|1|P|2.5\rPID|1||nobody\rOBR|1|7||BP\rOBX|1|NM|8480-6^Systolic^LN||128|mm[Hg]|||||F\r"
    headers = {"Content-Type": "application/hl7-v2"}
    sent = upload("POST", "/checkups/", text.encode(), token=log_in("tara"), headers=headers)
    page = Page(upload, "tara")
    page.send(id=str(sent.json["items"][0]["rejection_id"]))
    assert "MSH|^~\\&|A|B" in html.unescape(page.text)
    assert 'name="field:' not in page.text
    page.send(search="bholanath")
    assert "is stored as check-up" in page.send(action="retry", patient="bholanath")


TABLE = "Patient;Date;T;Notes\r\nbholanath;2026-11-20;4;\r\n"


def refused_row(upload: Caller, log_in: Any, row: str) -> str:
    """Send a table with this row; return the id of its rejection."""
    sent = upload(
        "POST",
        "/machines/HC-1/dumps/",
        (TABLE + row).encode(),
        token=log_in("tara"),
        headers={"Content-Type": "text/csv"},
    )
    return str(sent.json["items"][1]["rejection_id"])


def test_the_day_of_a_row_is_corrected_in_its_cell(upload, people, log_in, db) -> None:
    page = Page(upload, "tara")
    row = 'savita;01/02/2026;5;"a; b\nc"\r\n'
    text = page.send(id=refused_row(upload, log_in, row))
    assert 'name="field:1" value="01/02/2026"' in page.text
    assert "Date '01/02/2026' may be day first or month first" in text
    assert "may be day first or month first; write it as YYYY-MM-DD" in text
    assert "It is still rejected." in page.send(422, action="retry")
    assert "Date : '01/02/2026' may be day" in page.text.replace("Date:", "Date :").replace("&#039;", "'")
    assert "It is still rejected." in page.send(422, action="retry", **{"field:1": "2/1/2026"})
    assert 'name="field:1" value="2/1/2026"' in page.text
    assert "is stored as check-up" in page.send(action="retry", **{"field:1": "2026-02-01"})
    stored = "select taken_at::date::text, taken_precision, checkup_report from checkups order by id desc limit 1"
    assert db(stored) == [("2026-02-01", "day", "a; b\nc")]
    corrected = (TABLE + row).replace("01/02/2026", "2026-02-01").encode()
    answer = upload(
        "POST", "/machines/HC-1/dumps/", corrected, token=log_in("tara"), headers={"Content-Type": "text/csv"}
    )
    assert (answer.json["accepted"], answer.json["duplicate"]) == (0, 2)


def test_what_is_told_names_no_option_of_a_command(upload, people, log_in) -> None:
    page = Page(upload, "tara")
    number = refused_row(upload, log_in, "savita;01/02/2026;5,5;\n")
    for text in (page.send(), page.send(id=number)):
        assert "may be day first or month first; write it as YYYY-MM-DD" in text
        assert "decimal separator '.'; write it without thousands" in text
        assert "--" not in text
        assert "in the address" not in text


def test_a_record_that_no_retry_can_help_has_no_such_button(upload, people, log_in) -> None:
    page = Page(upload, "tara")
    headers, again = {"Content-Type": "text/csv"}, '<button name="action" value="retry">Try again'
    for row, is_offered in ((b"savita;2026-02-01;five;m\xfcde\n", False), (b"nobody;2026-02-01;5;\n", True)):
        sent = upload("POST", "/machines/HC-1/dumps/", TABLE.encode() + row, token=log_in("tara"), headers=headers)
        text = page.send(id=str(sent.json["items"][1]["rejection_id"]))
        assert (again in page.text, "What helps Nothing in this text can be corrected here." in text) == (
            is_offered, not is_offered
        )  # fmt: skip


def test_a_row_of_too_many_cells_is_corrected_as_text(upload, people, log_in, db) -> None:
    page = Page(upload, "tara")
    text = page.send(id=refused_row(upload, log_in, "savita;2026-02-01;5;6;7\n"))
    assert 'name="field:' not in page.text
    assert "The row, below its header" in text
    whole = html.unescape(re.search(r"<textarea[^>]*>(.*?)</textarea>", page.text, re.DOTALL).group(1))
    two = whole.replace("5;6;7", "5;6") + "savita;2026-02-02;5;6\n"
    assert "these are rows of several records" in page.send(422, action="retry", record=two)
    assert "is stored as check-up" in page.send(action="retry", record=whole.replace("5;6;7", "5;6"))
    assert db("select results->0->>'value' from checkups order by id desc limit 1") == [("5",)]


def test_of_two_wrong_cells_one_may_be_corrected_first_and_the_patient_stays(people, upload, log_in, db) -> None:
    options = ImportOptions(patient_map=PatientMap({"P-17": "savita"}))
    list(FileImport(io.BytesIO((TABLE + "P-17;01/02/2026;1,5;\n").encode()), "a table", options))
    ((number,),) = db("select id from rejections")
    page = Page(upload, "dr.ayush")
    page.send(id=str(number))
    page.send(422, action="retry", **{"field:1": "2026-02-01", "field:2": "1,5"})
    assert 'name="field:2" value="1,5"' in page.text
    assert 'name="field:1"' not in page.text
    assert "is stored as check-up" in page.send(action="retry", **{"field:2": "1.5"})
    mine = "select results->0->>'value' from checkups join users on users.id = patient_id where username = 'savita'"
    assert db(mine) == [("1.5",)]
    erase_user("savita")
    assert db("select id from rejections") == []


def test_text_that_cannot_be_corrected_here_says_what_can_be_done(upload, people, log_in, db) -> None:
    page = Page(upload, "tara")
    sent = upload("POST", "/checkups/", b'[{"checkup_for": "savita", "disease": }]', token=log_in("tara"))
    said = "Nothing in this text can be corrected here. Correct it where it came from and send it again"
    assert said in page.send(id=str(sent.json["items"][0]["rejection_id"]))
    body = TABLE.encode() + "savita;2026-02-01;5;m\xfcde\n".encode("latin-1")
    sent = upload("POST", "/machines/HC-1/dumps/", body, token=log_in("tara"), headers={"Content-Type": "text/csv"})
    assert said in page.send(id=str(sent.json["items"][1]["rejection_id"]))
    assert "<textarea" not in page.text
    assert page.client.post(
        "/refused", data={"username": "tara", "password": PASSWORD, "id": "1", "action": "retry", "field:9": "x"}
    ).status_code in (400, 422)


def test_what_is_cut_of_a_long_record_is_counted(upload, people, log_in, run_cli) -> None:
    long = record(1, "nobody", checkup_report="x" * 30_000)
    sent = upload("POST", "/machines/HC-1/dumps/", dump([long]), token=log_in("tara"))
    number = str(sent.json["items"][0]["rejection_id"])
    rest = len(json.dumps(long)) - 20_000
    assert f"… ({rest:,} more characters)" in Page(upload, "tara").send(id=number)
    assert f"… and {rest:,} more characters; --json has all" in run_cli("rejections", "show", number).stderr


@pytest.mark.long
def test_it_is_accessible_and_fits_a_phone(served, people, page: Any) -> None:
    import requests

    url = served[0]
    token = requests.post(f"{url}/login/", json={"username": "tara", "password": PASSWORD}, timeout=30).json()["token"]
    records = [record(1), record(2, "B. Joshi"), record(3, disease=5, checkup_report=HOSTILE + "x" * 200)]
    body, headers = dump(records), {"Authorization": f"Bearer {token}"}
    sent = requests.post(f"{url}/machines/HC-1/dumps/", body, headers=headers, timeout=30).json()
    table = (TABLE + f"savita;01/02/2026;{'5' * 60} x;\n").encode()
    headers["Content-Type"] = "text/csv"
    row = requests.post(f"{url}/machines/HC-1/dumps/", table, headers=headers, timeout=30).json()

    def look(name: str) -> None:
        assert fits(page)
        check_accessible(page)
        shoot(page, name)

    page.goto(f"{url}/refused")
    look("refused-login")
    page.fill("#username", "tara")
    page.fill("#password", PASSWORD)
    page.click("text=Log in")
    look("refused-list")
    page.click(f"text=Open record {sent['items'][2]['rejection_id']}")
    page.fill("#search", "bholanath")
    page.click("text=Find the patient")
    page.click("summary >> nth=1")
    look("refused-record")
    page.fill("input[name='field:disease']", "BP")
    page.click("button:text-is('Try again')")
    page.wait_for_selector("text=is stored as check-up")
    page.click(f"text=Open record {row['items'][1]['rejection_id']}")
    page.click("summary >> nth=1")
    look("refused-row")
