"""The page on which a check-up is typed in, as a browser without JavaScript uses it."""

import dataclasses
import html
import re
from datetime import date, timedelta
from typing import Any

import pytest
from support.browser import check_accessible, fits, shoot, too_small
from support.clients import Caller
from support.factories import PASSWORD

from myhealth.privacy.erasure import erase_user
from myhealth.profiles.services import set_full_name
from wsgi.upload import make_app

HOSTILE = '"><script>alert(1)</script>'


class Page:
    """Sends the form that was shown last, with what it holds."""

    def __init__(self, upload: Any, caller: str = "tara") -> None:
        self.client, self.text = upload.client, ""
        self.send(username=caller, password=PASSWORD)

    def send(self, status: int = 200, **fields: str) -> str:
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', self.text))
        answer = self.client.post("/type-in", data={**hidden, **fields})
        assert answer.status_code == status, answer.text
        self.text = answer.text
        assert "<script" not in self.text
        assert PASSWORD not in self.text
        return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", self.text)))

    def store(self, status: int = 200, **fields: str) -> str:
        return self.send(status, action="store", patient="bholanath", **fields)


@pytest.fixture
def typing(upload: Caller, people) -> Page:
    return Page(upload)


def test_any_tests_are_stored_as_the_apis_record(typing, db) -> None:
    typing.send(action="find", search="BHOLANATH")
    assert 'type="radio" name="patient" value="bholanath"' in typing.text
    values = {"value:1558-6": "5.60", "unit:1558-6": "mmol/L", "value:59408-5": "<95", "value:29463-7": " 71 "}
    text = typing.store(pressure=" 128 / 82", taken_at="2026-11-20T09:30", machine="HC-5", remark=HOSTILE, **values)
    assert re.search(r"Stored as check-up \d+ of bholanath\.", text)
    ((results, taken_at, taken_by, remark, serial),) = db(
        "select results::text, taken_at::text, taken_by, checkup_report, serial from checkups join machines"
        " on machines.id = machine_id where patient_id = 1"
    )
    assert re.findall(r'"code": "([^"]+)"', results) == ["8480-6", "8462-4", "59408-5", "29463-7", "1558-6"]
    assert re.findall(r'"value": ([^,}]+)', results) == ["128", "82", '"<95"', "71", "5.60"]
    assert re.findall(r'"unit": "([^"]+)"', results)[-1] == "mmol/L"
    assert (taken_at[:16], taken_by, remark, serial) == ("2026-11-20 09:30", "tara", HOSTILE, "HC-5")
    assert 'value="5.60"' not in typing.text, "the next form is empty"


def test_a_form_that_is_sent_twice_is_stored_once(typing, db) -> None:
    typing.send(action="find", search="bholanath")
    first = typing.text
    stored = re.search(r"check-up \d+", typing.store(pressure="128/82")).group()
    typing.text = first
    assert stored in typing.store(pressure="128/82")
    assert db("select count(*) from checkups") == [(1,)]
    typing.store(pressure="128/82")
    assert db("select count(*) from checkups") == [(2,)], "another form"


def test_who_had_a_check_up_typed_in_is_erased_with_what_was_told_of_it(typing, db) -> None:
    typing.send(action="find", search="bholanath")
    first = typing.text
    fields = {"value:8310-5": "98.6", "unit:8310-5": "Cel"}
    typing.send(action="store_as_typed", patient="bholanath", **fields)
    assert db("select answer like '%outside what a living body has%' from idempotency_keys") == [(True,)]
    erase_user("savita")
    assert "outside" in db("select answer from idempotency_keys")[0][0], "another's"
    erase_user("bholanath")
    assert "outside" not in db("select answer from idempotency_keys")[0][0]
    typing.text = first
    typing.send(404, action="store_as_typed", patient="bholanath", **fields)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"pressure": "128"}, "must be written like 128/82"),
        ({"pressure": "82/128"}, "the upper (systolic) value first"),
        ({"value:1558-6": "5,6"}, "Fasting glucose: decimals follow a full stop"),
        ({"value:1558-6": "<5,6"}, "Fasting glucose: decimals follow a full stop"),
        ({"value:1558-6": "5", "unit:1558-6": "kg"}, "Fasting glucose has no unit"),
        ({}, "Nothing was typed in"),
        ({"pressure": "128/82", "taken_at": "yesterday"}, "The time must be written like"),
        ({"value:1558-6": "x" * 50_000}, "Fasting glucose: "),
        ({"value:1558-6": "9" * 20}, "Fasting glucose: "),
        ({"pressure": "128/82", "machine": "a/b"}, "machine: "),
    ],
)
def test_what_is_wrong_is_told_beside_what_was_typed_and_nothing_is_kept(typing, db, fields, told) -> None:
    typing.send(action="find", search="bholanath")
    assert told in typing.store(422, **({"remark": "Seated."} | fields if fields else {}))
    assert all(html.escape(value) in typing.text for value in fields.values() if value != "kg")
    assert db("select (select count(*) from checkups), (select count(*) from rejections)") == [(0, 0)]
    assert "Stored as check-up" in typing.store(
        pressure="128/82", **{name: "" for name in fields if name != "pressure"}
    )


def test_all_that_is_wrong_with_a_form_is_told_at_once(typing, db) -> None:
    wrong = {"pressure": "82/128", "value:1558-6": "5,6", "value:2093-3": "9" * 20, "taken_at": "yesterday",
             "machine": "a/b"}  # fmt: skip
    text = typing.send(422, action="store", search="bholanath", **wrong)
    assert 'type="radio" name="patient" value="bholanath"' in typing.text
    for told in ("choose whose check-up it is", "systolic", "Fasting glucose: decimals", "Total cholesterol: ", "The time must",
                 "machine: "):  # fmt: skip
        assert told in text, told
    assert "checkup_for" not in text
    text = typing.store(422, pressure="82/128", **{"value:8310-5": "98.6", "unit:8310-5": "Cel"})
    assert ("systolic" in text, "outside what a living body has" in text) == (True, True)
    assert db("select (select count(*) from checkups), (select count(*) from rejections)") == [(0, 0)]


@pytest.mark.parametrize(
    ("fields", "told"),
    [({"value:8310-5": "98.6", "unit:8310-5": "Cel"}, "outside what a living body has"),
     ({"pressure": "128/82", "taken_at": f"{date.today() + timedelta(40)}T10:00"}, "taken_at")],
)  # fmt: skip
def test_what_seems_mistyped_is_stored_only_if_it_is_said_to_be_right(typing, db, fields, told) -> None:
    typing.send(action="find", search="bholanath")
    asked = typing.store(422, **fields)
    assert ("Nothing is stored yet" in asked, told in asked) == (True, True)
    assert db("select count(*) from checkups") == [(0,)]
    stored = typing.send(action="store_as_typed", patient="bholanath", **fields)
    assert ("Stored as check-up" in stored, told in stored) == (True, True)
    assert db("select count(*) from checkups") == [(1,)]


def test_whose_it_is_must_be_chosen_and_only_senders_type_in(typing, upload, db) -> None:
    assert "choose whose check-up it is" in typing.send(422, action="store", search="bholanath", pressure="128/82")
    set_full_name("bholanath", "Bholanath Joshi")
    assert "No patient is found." in typing.send(action="find", search="joshi")
    assert "Bholanath Joshi" not in typing.send(action="find", search="bholanath")
    assert "bholanath · Bholanath Joshi" in Page(upload, "dr.ayush").send(action="find", search="joshi")
    assert "There is no user named nobody." in typing.send(404, action="store", patient="nobody", pressure="128/82")
    for who in ("bholanath", "root"):
        answer = upload.client.post("/type-in", data={"username": who, "password": PASSWORD})
        assert answer.status_code == 403
    assert upload.client.post("/type-in", data={"token": "x", "action": "store"}).status_code == 401
    assert db("select count(*) from checkups") == [(0,)]


def test_what_was_typed_in_is_still_there_after_another_login(typing, upload, db) -> None:
    typing.send(action="find", search="bholanath")
    fields = {"value:1558-6": "5.60", "unit:1558-6": "mmol/L", "pressure": "128/82", "remark": HOSTILE}
    token = re.search(r'name="token" value="([^"]+)"', typing.text)[1]
    upload("POST", "/logout/", token=token)
    text = typing.send(401, action="store", search="bholanath", patient="bholanath", **fields)
    assert "log in again" in text
    assert 'name="token"' not in typing.text
    held = {
        name: html.unescape(value)
        for name, value in re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', typing.text)
    }
    assert held.items() >= fields.items()
    answer = upload.client.post("/type-in", data={"username": "tara", "password": PASSWORD, **held})
    assert answer.status_code == 200
    assert all(f'value="{value}"' in answer.text for value in ("5.60", "128/82"))
    assert '"mmol/L" selected' in answer.text
    assert 'name="patient" value="bholanath" checked' in answer.text
    assert db("select count(*) from checkups") == [(0,)]


@pytest.mark.long
def test_a_technician_types_a_check_up_in_at_a_tablet(page: Any, served: tuple[str, str], people, db) -> None:
    page.goto(f"{served[0]}/type-in")
    page.get_by_label("Username").fill("tara")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_label("Patient").fill("bholanath")
    page.get_by_role("button", name="Find the patient").click()
    page.get_by_label("bholanath").check()
    page.get_by_label("Blood pressure").fill("128/82")
    check_accessible(page)
    assert fits(page)
    assert too_small(page) == []
    shoot(page, "type-in")
    page.get_by_role("button", name="Store").click()
    page.get_by_role("status").get_by_text("Stored as check-up").wait_for()
    check_accessible(page)
    assert db("select count(*) from checkups") == [(1,)]


MOMENTS = {
    "of the server's zone": ("2026-11-20T09:30", "2026-11-20 08:30:00", None),
    "with another zone": ("2026-11-20T09:30+05:30", "2026-11-20 04:00:00", None),
    "a day": ("2026-11-20", "2026-11-20 12:00:00", "day"),
    "that the clocks skip": ("2026-03-29T02:30", "2026-03-29 01:30:00", None),
    "that the clocks show twice": ("2025-10-26T02:30", "2025-10-26 00:30:00", None),
}


@pytest.mark.parametrize(("text", "stored", "precision"), MOMENTS.values(), ids=MOMENTS)
def test_a_moment_is_stored_as_it_was_typed(
    text: str, stored: str, precision: Any, people, settings, calling, db
) -> None:
    typing = Page(calling(make_app(dataclasses.replace(settings, time_zone="Europe/Berlin"))))
    if text.endswith("02:30"):
        assert "in the zone Europe/Berlin" in typing.store(422, pressure="128/82", taken_at=text)
        typing.send(action="store_as_typed", patient="bholanath", pressure="128/82", taken_at=text)
    else:
        typing.store(pressure="128/82", taken_at=text)
    assert db("select (taken_at at time zone 'UTC')::text, taken_precision from checkups") == [(stored, precision)]
