"""The page of refused records, as a browser without JavaScript uses it, and in Chromium."""

import html
import re
from typing import Any

import pytest
from support.browser import check_accessible, fits, shoot
from support.clients import Caller
from support.factories import PASSWORD, dump, record

from myhealth.intake.rejections import get_rejection
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


def test_the_list_tells_reasons_and_the_last_uploads(upload, refused) -> None:
    page = Page(upload, "tara")
    text = page.send()
    assert "there is no user named B. Joshi" in text
    assert "disease: " in text
    assert "HC-1 : 1 accepted, 0 duplicate, 2 rejected" in text.replace("HC-1:", "HC-1 :")
    other = Page(upload, "dr.ayush").send()
    assert "B. Joshi" in other
    assert "None yet." in other


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
    assert f"Record {refused[0]} is put aside." in page.send(action="discard", reason=HOSTILE)
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


@pytest.mark.long
def test_it_is_accessible_and_fits_a_phone(served, people, page: Any) -> None:
    import requests

    url = served[0]
    token = requests.post(f"{url}/login/", json={"username": "tara", "password": PASSWORD}, timeout=30).json()["token"]
    records = [record(1), record(2, "B. Joshi"), record(3, disease=5, checkup_report=HOSTILE + "x" * 200)]
    body, headers = dump(records), {"Authorization": f"Bearer {token}"}
    sent = requests.post(f"{url}/machines/HC-1/dumps/", body, headers=headers, timeout=30).json()

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
