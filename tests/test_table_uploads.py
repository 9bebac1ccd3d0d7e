"""Tables over HTTP: layouts by the address and by the machine, and the page that works without JavaScript."""

import gzip
import io
import re
import time
from typing import Any

import pytest
from support.factories import PASSWORD
from urllib3 import encode_multipart_formdata

from myhealth.intake.pipeline import BATCH_RECORDS
from wsgi.upload_api import table_page

LONG = (
    "patient,taken_at,name,code,value,unit\nbholanath,{},Glucose,2345-7,6.3,mmol/L\nnobody,{},Glucose,2345-7,5,mmol/L\n"
)
OMRON = (
    "Date,Time,Systolic (mmHg),Diastolic (mmHg),Pulse (bpm),Symptoms,Consumed,TruRead,Notes\n"
    "Jan 12 2026,08:12,114,74,47,-,-,-,-\n"
)
VALUES = (
    "select serial, results->0->>'code', results->0->>'value' from checkups join machines on machines.id = machine_id"
)


def test_a_table_is_uploaded_with_its_content_type(upload, log_in, db) -> None:
    body, day = LONG.format("2026-11-20", "2026-11-20").encode(), "03/04/2026"
    for status, counts in ((201, (1, 0, 1)), (200, (0, 1, 1))):
        answer = upload(
            "POST", "/machines/HC-1/dumps/", body, token=log_in("tara"), headers={"Content-Type": "text/csv"},
            query_string="refused_file=true",
        )  # fmt: skip
        assert answer.status_code == status
        assert tuple(answer.json[name] for name in ("accepted", "duplicate", "rejected")) == counts
    refused = answer.json["items"][1]
    assert (refused["line"], refused["errors"][0]["field"]) == (3, "patient")
    assert (
        answer.json["refused_file"]
        == "\ufeff" + LONG.format("", day).split("\n")[0] + "\n" + LONG.format("", "2026-11-20").split("\n")[2] + "\n"
    )
    assert db(VALUES) == [("HC-1", "2345-7", "6.3")]
    ambiguous = LONG.format(day, day).encode()
    asked = upload("POST", "/checkups/", ambiguous, token=log_in("tara"))
    assert (asked.status_code, "may be day first or month first" in asked.json["details"]) == (400, True)
    taken = upload("POST", "/checkups/", ambiguous, token=log_in("tara"), query_string="date_format=dmy")
    assert (taken.status_code, taken.json["accepted"]) == (201, 1)


def test_text_of_the_type_csv_that_is_no_table_says_what_it_lacks(upload, log_in) -> None:
    answer = upload("POST", "/checkups/", b"hello", token=log_in("tara"), headers={"Content-Type": "text/csv"})
    assert (answer.status_code, "line 1: a wide table has" in answer.json["details"]) == (400, True)


def test_the_layout_of_a_machine_is_used_until_the_address_names_another(upload, log_in, db, run_cli) -> None:
    token, path = log_in("tara"), "/machines/BP-7/dumps/"
    send = {"token": token, "headers": {"Content-Type": "text/csv"}}
    unnamed = upload("POST", path, OMRON.encode(), **send)
    assert (unnamed.status_code, "no column names the patient" in unnamed.json["details"]) == (400, True)
    month = upload("POST", path, OMRON.encode(), query_string="patient=savita", **send)
    assert (month.status_code, "Date Time" in str(month.json)) == (422, True)
    named = upload(
        "POST", path, OMRON.encode(), query_string="patient=savita&layout=omron-blood-pressure&timezone=UTC", **send
    )
    assert (named.status_code, named.json["accepted"]) == (201, 1)
    kept = upload("POST", "/machines/", {"serial": "BP-7", "layout": "omron-blood-pressure"}, token=token)
    assert '"Systolic (mmHg)"' in kept.json["layout"]
    again = upload("POST", path, OMRON.encode(), query_string="patient=savita&timezone=UTC", **send)
    assert (again.status_code, again.json["duplicate"]) == (200, 1)
    assert db(VALUES) == [("BP-7", "8480-6", "114")]
    done = run_cli("import-machine", "-", "--machine", "BP-7", "--patient", "savita", "--timezone", "UTC", stdin=OMRON)
    assert done.stdout == "standard input: 0 accepted, 1 duplicate, 0 rejected.\n", done.stderr
    assert run_cli("machines", "register", "BP-7", "--layout", "long").returncode == 0
    assert db("select layout from machines where serial = 'BP-7'") == [('{"kind":"long"}',)]
    for layout in ("", "klingon = 1", 7):
        wrong = upload("POST", "/machines/", {"serial": "BP-7", "layout": layout}, token=token)
        assert wrong.status_code == 400
    assert upload("POST", path, OMRON.encode(), query_string="layout=nope", **send).status_code == 400
    unknown = upload("POST", path, OMRON.encode(), query_string="patient=nobody", **send)
    assert unknown.status_code == 404


def test_the_address_names_the_decimal_separator_and_the_type_the_encoding(upload, log_in, db) -> None:
    body = "patient;taken_at;name;value;unit\nsavita;2026-11-20;Hämoglobin;13,5;g/dL\n".encode("windows-1252")
    sent = {"token": log_in("tara"), "headers": {"Content-Type": "text/csv; charset=windows-1252"}}
    refused = upload("POST", "/checkups/", body, **sent).json["items"][0]["errors"]
    assert ["name another: --decimal, decimal= in the address" in each["message"] for each in refused] == [True]
    assert upload("POST", "/checkups/", body, query_string="decimal=,", **sent).status_code == 201
    assert db("select results->0->>'name', results->0->>'value' from checkups") == [("Hämoglobin", "13.5")]
    wrong = {**sent, "headers": {"Content-Type": "text/csv; charset=klingon"}}
    assert "'klingon' is not known" in upload("POST", "/checkups/", body, **wrong).json["details"]


def test_what_is_said_beside_a_machines_layout_may_not_contradict_it(upload, log_in, people) -> None:
    token = log_in("tara")
    upload("POST", "/machines/", {"serial": "HC-1", "layout": "decimal = ','\nthousands = '.'"}, token=token)
    body, path = LONG.format("2026-11-20", "2026-11-20").encode(), "/machines/HC-1/dumps/"
    answer = upload("POST", path, body, token=token, query_string="decimal=.", headers={"Content-Type": "text/csv"})
    assert (answer.status_code, "are the same character" in answer.json["details"]) == (400, True)


# --- the page


class Page:
    """The page as a browser without JavaScript uses it: it sends the fields of the form that the last answer has."""

    def __init__(self, upload: Any) -> None:
        self.client = upload.client
        self.text = self.client.get("/csv").text

    def hidden(self) -> dict[str, str]:
        return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', self.text))

    def send(self, data: bytes | None = None, status: int = 200, **fields: str) -> str:
        form: dict[str, Any] = {
            "layout": "",
            "date_format": "",
            "timezone": "",
            "machine": "",
            "patient": "",
            **self.hidden(),
            **fields,
        }
        form["file"] = ("" if data is None else "t.csv", data or b"")
        body, kind = encode_multipart_formdata(form)  # as a browser does; the client forgets the end of an empty field
        answer = self.client.post("/csv", data=body, headers={"Content-Type": kind})
        assert answer.status_code == status, answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        self.text = answer.text
        return self.text


@pytest.mark.parametrize("packed", [False, True])
def test_a_table_is_previewed_then_stored_and_its_layout_is_remembered(upload, people, db, packed: bool) -> None:
    page, data = Page(upload), OMRON.encode()
    login = {"username": "tara", "password": PASSWORD}
    choices = {"machine": "BP-9", "patient": "savita", "layout": "omron-blood-pressure", "timezone": "+05:30"}
    text = page.send(gzip.compress(data) if packed else data, action="preview", **login, **choices)
    assert "Preview: nothing is stored yet" in text
    assert "1 accepted, 0 duplicate, 0 rejected" in text
    assert "Systolic blood pressure 114 mm[Hg] (8480-6)" in text
    assert "2026-01-12 08:12 +05:30" in text
    assert PASSWORD not in text
    assert db("select (select count(*) from checkups), (select count(*) from machines)") == [(0, 0)]
    assert '<h2 id="outcome">Stored</h2>' in page.send(action="store", **choices)
    assert db(VALUES) == [("BP-9", "8480-6", "114")]
    assert "0 accepted, 1 duplicate" in page.send(data, action="store", machine="BP-9", patient="savita")
    assert db("select action, subject from audit_events where action = 'upload'") == [("upload", "savita")] * 2


def test_a_table_and_what_was_chosen_are_still_there_after_another_login(upload, people, db) -> None:
    page, login = Page(upload), {"username": "tara", "password": PASSWORD}
    choices = {"machine": "BP-9", "patient": "savita", "layout": "omron-blood-pressure", "timezone": "+05:30"}
    page.send(OMRON.encode(), action="preview", **login, **choices)
    upload("POST", "/logout/", token=page.hidden()["token"])
    text = page.send(status=401, action="store", **choices)
    assert "log in again" in text
    assert all(f'name="{name}" value="{choices[name]}"' in text for name in ("machine", "patient", "timezone"))
    assert "t.csv is kept" in text
    assert "1 accepted, 0 duplicate" in page.send(action="preview", **login, **choices)
    assert '<h2 id="outcome">Stored</h2>' in page.send(action="store", **choices)


def test_a_preview_of_many_batches_stores_nothing(upload, people, db) -> None:
    rows = "".join(f"bholanath,2026-11-20,T{i},,1,\n" for i in range(BATCH_RECORDS + 1))
    data = gzip.compress(("patient,taken_at,name,code,value,unit\n" + rows + "nobody,2026-11-20,T,,1,\n").encode())
    text = Page(upload).send(data, action="preview", username="tara", password=PASSWORD)
    assert f"{BATCH_RECORDS + 1} accepted, 0 duplicate, 1 rejected" in text
    assert "there is no user named nobody" in text
    assert db("select (select count(*) from checkups), (select count(*) from rejections)") == [(0, 0)]


def test_refused_rows_are_shown_with_their_reasons_and_kept(upload, people, db) -> None:
    page = Page(upload)
    data = LONG.format("03/04/2026", "03/04/2026").replace("nobody", "<b>x</b>").encode()
    asked = page.send(data, 400, action="preview", username="dr.ayush", password=PASSWORD)
    assert "may be day first or month first; say which: choose it under Order of dates" in asked
    assert "--" not in asked.split("<form")[0]
    text = page.send(data, action="store", date_format="dmy")
    assert "1 accepted, 0 duplicate, 1 rejected" in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert "<b>x" not in text
    assert db("select payload from rejections") == [
        (data.decode().replace("bholanath,03/04/2026,Glucose,2345-7,6.3,mmol/L\n", ""),)
    ]


def test_the_page_names_its_own_fields_and_no_option_of_a_command(upload, people) -> None:
    page, login = Page(upload), {"username": "tara", "password": PASSWORD}
    data = b"patient;taken_at;name;value;unit\nsavita;2026-11-20;Glucose;5,1;mmol/L\nsavita;2026-11-20;Glucose;1.234;mmol/L\n"
    told = page.send(data, action="preview", **login).split("<form")[0]
    assert "if decimals, choose the Decimal separator point; if thousands" in told
    assert ("--" in told, "in the address" in told) == (False, False)
    assert "There is no user named nosuch." in page.send(data, 404, action="store", patient="nosuch")


def test_a_table_too_large_to_be_carried_is_chosen_again(upload, people, db, monkeypatch) -> None:
    page, data = Page(upload), LONG.format("2026-11-20", "2026-11-20").encode()
    page.send(data, action="preview", username="tara", password=PASSWORD)
    assert page.hidden().keys() == {"token", "content", "name"}
    monkeypatch.setattr(table_page, "HIDDEN_MAX_BYTES", 50)
    page.send(data, action="preview")
    assert page.hidden().keys() == {"token"}
    assert 'accept=".csv,.tsv,.txt,.gz,text/csv" required>' in page.text


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"username": "tara", "password": "wrong-horse"}, 401, "The username or the password is wrong."),
        ({"username": "bholanath", "password": PASSWORD}, 403, "for the role doctor or technician only"),
        ({"token": "x.y.z"}, 401, ""),
        ({"username": "tara", "password": PASSWORD, "patient": "nobody"}, 404, "There is no user named nobody."),
        ({"username": "tara", "password": PASSWORD, "layout": "../x"}, 400, "there is no layout named"),
        ({"username": "tara", "password": PASSWORD, "machine": "a/b"}, 400, "contains a /"),
        ({"username": "tara", "password": PASSWORD, "content": "%%%"}, 400, "The form cannot be read"),
        ({"username": "tara" * 4000, "password": PASSWORD}, 400, "A field of the form is too long"),
    ],
)
def test_what_cannot_be_taken_is_said_on_the_page(upload, people, db, fields, status, said) -> None:
    data = None if "content" in fields else LONG.format("2026-11-20", "2026-11-20").encode()
    text = Page(upload).send(data, status, action="store", **fields)
    assert said in text
    assert '<form method="post"' in text
    assert db("select count(*) from checkups") == [(0,)]


def test_decimal_separator_and_encoding_are_chosen_on_the_page(upload, people, db) -> None:
    data = "patient;taken_at;name;value;unit\nsavita;2026-11-20;Hämoglobin;13,5;g/dL\n".encode("windows-1252")
    page, login = Page(upload), {"username": "tara", "password": PASSWORD}
    assert "choose another Encoding" in page.send(data, action="preview", **login)
    text = page.send(action="preview", encoding="windows-1252")
    assert "choose another Decimal separator" in text
    assert "layout" not in text.split("choose another Decimal separator")[1].split("</table>")[0]
    page.send(action="store", encoding="windows-1252", decimal=",", machine="HC-1")
    assert db("select results->0->>'name', results->0->>'value' from checkups") == [("Hämoglobin", "13.5")]
    assert db("select layout from machines") == [('{"encoding":"windows-1252","decimal":","}',)]


@pytest.mark.parametrize("body", [b"", b"--x\r\nnonsense", b"a=b"])
def test_a_form_that_is_none_is_told(upload, people, body: bytes) -> None:
    for kind in ("multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/plain"):
        answer = upload.client.post("/csv", data=body, headers={"Content-Type": kind})
        assert answer.status_code in (400, 401)
        assert '<form method="post"' in answer.text


def test_what_is_sent_without_a_login_costs_little(upload, people, monkeypatch) -> None:
    packed = gzip.compress(b"token=x")

    def read(*_: Any, **__: Any) -> bytes:
        raise AssertionError("read before the login")

    monkeypatch.setattr(table_page.gzip, "compress", read)
    monkeypatch.setattr(table_page.base64, "b64decode", read)
    form = {"token": "guessed", "content": "H4sI"}
    assert upload.client.post("/csv", data=form).status_code == 401
    answer = upload.client.post("/csv", data=packed, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415


class Counted(io.BytesIO):
    """Counts the bytes that were read."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        part = super().read(size)
        self.taken += len(part)
        return part


MULTIPART = "multipart/form-data; boundary=x"
PATHS = [("/csv", MULTIPART), ("/csv", "text/plain"), ("/refused", "application/x-www-form-urlencoded"), ("/refused", MULTIPART), ("/type-in", MULTIPART),
         *((path, "application/json") for path in ("/checkups/", "/reports/", "/machines/HC-1/dumps/", "/fhir/", "/fhir/Observation/",
           "/users/bholanath/checkups/", "/users/", "/machines/", "/rejections/1/retry/", "/users/bholanath/checkups/1/review/"))]  # fmt: skip


@pytest.mark.parametrize("caller", ["", "guessed", "bholanath"])
def test_no_body_is_read_before_it_is_known_who_sends_it(upload, people, log_in, caller: str) -> None:
    token = log_in(caller) if caller == "bholanath" else caller
    part = f'--x\r\nContent-Disposition: form-data; name="token"\r\n\r\n{token}\r\n--x\r\n'
    for path, kind in PATHS:
        form = part if kind == MULTIPART else f"token={token}&file="
        body, headers = Counted(form.encode() + b"a" * 2_000_000), {"Content-Type": kind}
        if token and path not in ("/csv", "/refused", "/type-in"):
            headers["Authorization"] = f"Bearer {token}"
        answer = upload.client.post(path, input_stream=body, headers=headers, content_length=2_000_000)
        assert (answer.status_code in (401, 403, 404), body.taken <= 64 * 1024) == (True, True), (path, kind)


FILE = 'Content-Disposition: form-data; name="file"; filename="t.csv"'


@pytest.mark.parametrize(
    "part",
    ["X: a\r\n" + " bbbbbbbbbbbb\r\n" * 500_000 + FILE + "\r\n\r\n", (FILE + "\r\n\r\n\r\n--x\r\n") * 100_000,
     "X: a\r\n" * 1_000_000, FILE + "\r\n\r\n" + "\r\n--" * 2_000_000],
    ids=["a folded header", "many parts", "many headers", "no end"],
)  # fmt: skip
def test_a_hostile_form_is_refused_at_once(upload, log_in, part: str) -> None:
    token = f'--x\r\nContent-Disposition: form-data; name="token"\r\n\r\n{log_in("tara")}\r\n--x\r\n'
    started = time.process_time()
    answer = upload.client.post("/csv", data=(token + part).encode(), headers={"Content-Type": MULTIPART})
    assert (answer.status_code, '<form method="post"' in answer.text) == (400, True)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("date_format", ["%d/%d/%m/%Y", "%c %d %m %Y"])
def test_a_date_format_with_a_part_twice_is_refused(upload, log_in, date_format: str) -> None:
    layout = {"serial": "BP-7", "layout": f'date_format = "{date_format}"'}
    answer = upload("POST", "/machines/", layout, token=log_in("tara"))
    assert (answer.status_code, "must be dmy, mdy, ymd" in answer.json["details"]) == (400, True)


def test_a_header_of_too_many_columns_is_refused(upload, log_in) -> None:
    body = f"date,patient,{','.join(f'a{number}' for number in range(100_000))}\n".encode()
    answer = upload("POST", "/checkups/", body, token=log_in("tara"), headers={"Content-Type": "text/csv"})
    assert (answer.status_code, "more than 2,100 columns" in answer.json["details"]) == (400, True)
