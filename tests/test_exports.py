"""Exports as CSV and as FHIR are complete, safe, valid and equal to the imported data."""

import csv
import gzip
import io
import json
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from support.clients import Caller
from support.factories import NOW, document
from support.fhir import read_text, stored_report
from support.paths import DATA

from myhealth.clinical.units import is_ucum
from myhealth.common.text import escape_unsafe
from myhealth.intake.formats.fhir.reader import read_fhir
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.json_reader import JsonBuffer
from myhealth.intake.formats.registry import FHIR
from myhealth.intake.validation import validate_record
from myhealth.reports.documents import encode_json
from myhealth.reports.export.csv_table import CSV_COLUMNS, report_lines
from myhealth.reports.export.fhir import fhir_bundle
from myhealth.reports.export.fhir_values import code_element

PATIENT = {"_id": 7, "subject": "s7", "username": "savita", "full_name": "Savita Deshpande"}
KEPT = (
    "code",
    "name",
    "value",
    "unit",
    "low",
    "high",
    "flag",
    "other_code",
    "code_system",
    "absent_reason",
    "range_text",
)


def result(**changes: Any) -> dict[str, Any]:
    made = {"code": "8867-4", "name": "Heart rate", "value": 72, "unit": "/min", "low": 60, "high": 100, "flag": "N"}
    return {**made, **changes}


def stored(results: Any, **changes: Any) -> dict[str, Any]:
    return document(1, results=encode_json(results).decode(), **changes)


def went_out(*reports: dict[str, Any]) -> bytes:
    return encode_json(fhir_bundle(reports, PATIENT))


def came_in(text: bytes) -> list[dict[str, Any]]:
    """The records that our own intake makes of FHIR."""
    dump = Dump(FHIR)
    readings = list(read_fhir(JsonBuffer(io.BytesIO(text)), dump))
    assert dump.skipped == {"Patient": 1}
    assert [reading.faults for reading in readings] == [[]] * len(readings)
    return [reading.record for reading in readings]


def kept(found: dict[str, Any]) -> dict[str, str]:
    """A result's fields, numbers by their digits; the range that may be compared, and the others in words."""
    ranges = found.get("ranges", [])
    plain = next((each for each in ranges if each.keys() <= {"low", "high"}), {})
    texts = [each["text"] for each in ranges if "text" in each]
    found = {**found, **plain, **({"range_text": texts[0]} if texts else {})}
    return {name: repr(found[name]) for name in KEPT if found.get(name) not in (None, "")}


def check_fhir(text: bytes) -> None:
    """Raises unless it is FHIR R4 by the models of fhir.resources."""
    bundles = pytest.importorskip("fhir.resources.R4B.bundle", reason="the extra fhir is not installed")
    bundles.Bundle.model_validate_json(text)


RESULTS = {
    "a number": {},
    "no range": {"low": None, "high": None, "flag": None},
    "an open range": {"low": None},
    "digits": {"value": Decimal("5.10"), "low": Decimal("3.90"), "high": 5.5},
    "a small number": {"value": 1e-7},
    "less than": {"value": "<5"},
    "at least, with digits": {"value": ">=5.10"},
    "a span": {"value": "3 - 5.5"},
    "text": {"value": "positive", "unit": None, "flag": "A"},
    "no code": {"code": None},
    "another code": {"code": None, "other_code": "GRIP", "code_system": "http://example.org/codes"},
    "no unit": {"unit": None},
    "a unit that is not UCUM": {"unit": "beats a minute"},
    "other ranges": {"range_text": "men: 55 - 95 /min"},
    "only other ranges": {"low": None, "high": None, "range_text": "see comment"},
    "no value": {"value": "Not Performed", "absent_reason": "Not Performed", "unit": None, "flag": None},
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_goes_out_as_fhir_and_comes_in_the_same(name: str) -> None:
    report = stored([result(**RESULTS[name])])
    text = went_out(report)
    check_fhir(text)
    (record,) = came_in(text)
    assert [kept(found) for found in record["results"]] == [kept(found) for found in report["results"]]
    assert record["checkup_for"] == "savita"
    assert (record["checkup_type"], record["disease"], record["checkup_report"]) == ("T", "D", "R")
    assert (record["machine"], record["taken_at"][:23]) == ("M", "2026-11-20T03:44:03.123")


@pytest.mark.parametrize(
    ("sent", "out"),
    [
        ({"value": "", "absent_reason": "Specimen clotted"}, {"dataAbsentReason": {"text": "Specimen clotted"}}),
        ({"value": " "}, {"dataAbsentReason": {"text": "no value"}}),
        (
            {"value": "≤ 5.10 ", "unit": None},
            {"valueQuantity": {"value": 5.1, "comparator": "<="}},
        ),
    ],
)
def test_what_a_machine_wrote_in_its_own_way_goes_out_in_fhirs(sent: dict[str, Any], out: dict[str, Any]) -> None:
    text = went_out(stored([result(**sent)]))
    check_fhir(text)
    (observation,) = [
        each["resource"] for each in json.loads(text)["entry"] if each["resource"]["resourceType"] == "Observation"
    ]
    assert {name: observation[name] for name in out} == out
    assert b"5.10" in text or "≤" not in sent["value"]


def test_our_own_catalogues_range_stays_here() -> None:
    text = went_out(stored([result(range_source="catalogue")]))
    assert b"referenceRange" not in text
    assert b"interpretation" not in text


@pytest.mark.parametrize("flag", ["L", "H", "LL", "HH", "N", "A"])
def test_an_interpretation_is_coded(flag: str) -> None:
    observation = json.loads(went_out(stored([result(flag=flag)])))["entry"][2]["resource"]
    coding = observation["interpretation"][0]["coding"][0]
    assert coding["system"] == "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
    assert coding["code"] == flag


UCUM = ["mm[Hg]", "/min", "{beats}/min", "10*3/uL", "mL/min/{1.73_m2}", "mL/min/1.73.m2", "kg/m2", "%", "mmol/l", "Cel", "[degF]",
        "m[IU]/L", "ug/(24.h)", "%{Hb}", "[arb'U]/mL", "dB[SPL]", "1"]  # fmt: skip
NO_UCUM = ["mmHg", "bpm", "beats/minute", "IU/L", "C", "°C", "F", "K/uL", "T/L", "u/L", "mcg", "lb", "x10^9/L", "µmol/L", "kg/m^2", "mg dL",
           "mg//dL", "mg/", "(mg", "mg)", "{a", "", "m" * 500, "(" * 500]  # fmt: skip


@pytest.mark.parametrize("unit", UCUM + NO_UCUM)
def test_a_unit_is_called_ucum_where_it_is(unit: str) -> None:
    assert is_ucum(unit) == (unit in UCUM)
    report = stored([result(unit=unit)])
    quantity = json.loads(went_out(report))["entry"][2]["resource"]["valueQuantity"]
    assert quantity.get("unit", "") == unit
    assert (quantity.get("code") == unit and quantity.get("system") == "http://unitsofmeasure.org") == (unit in UCUM)
    (record,) = came_in(went_out(report))
    (again,) = record["results"]
    assert again.get("unit_text", again["unit"]) == (unit or None)


def test_a_name_of_the_machines_is_not_given_out_as_loincs() -> None:
    observation = json.loads(went_out(stored([result(name="PULSE 1")])))["entry"][2]["resource"]
    assert observation["code"] == {"text": "PULSE 1", "coding": [{"system": "http://loinc.org", "code": "8867-4"}]}


@pytest.mark.parametrize("system", ["99LAB", "POST 12H", "http://a b"])
def test_a_local_system_gets_a_uri_of_ours(system: str) -> None:
    text = went_out(stored([result(code=None, other_code="GLU", code_system=system)]))
    assert json.loads(text)["entry"][2]["resource"]["code"]["coding"] == [
        {"system": f"tag:myhealth.example,2026:codes:{quote(system, safe='')}", "code": "GLU"}
    ]


def test_no_text_holds_what_fhir_forbids() -> None:
    texts = {"checkup_report": "a\x07\tb\r\nc", "checkup_type": "d\x1b"}
    text = went_out(stored([result(value="e\x00f", name="g\x07")], **texts)).decode()
    for found in ("a�\\tb\\r\\nc", "d�", "e�f", "g�"):
        assert f'"{found}"' in text


ODD: list[Any] = [{"odd": 1}, ["text", 5, None, [1]], [{}], [{"value": None, "name": 5}], [{"value": True}], [{"value": [1, {"a": "b"}]}],
                  [{"value": " ", "name": " ", "unit": " "}], [{"value": "x", "flag": "?", "low": "a", "code": "a\nb", "unit": "\t"}]]  # fmt: skip


@pytest.mark.parametrize("results", ODD, ids=str)
def test_whatever_another_program_stored_goes_out_valid(results: Any) -> None:
    empty = {"checkup_type": "", "checkup_report": "", "disease": " ", "machine": None, "taken_by": None}
    for changes in ({}, empty):
        report = stored(results, **changes)
        check_fhir(went_out(report))
        assert next(csv.reader(report_lines([report], "savita"))) == list(CSV_COLUMNS)
    check_fhir(went_out())


SAMPLE_FILES = sorted(DATA.glob("fhir-r4/*.json")) + sorted(DATA.glob("bundles/*.json"))


@pytest.mark.parametrize("file", SAMPLE_FILES, ids=lambda file: file.stem)
def test_what_others_sent_goes_out_the_same(file: Path) -> None:
    """From FHIR through the intake's check to a report, out as FHIR, and in again."""
    for reading in read_fhir(JsonBuffer(io.BytesIO(file.read_bytes())), Dump(FHIR)):
        if reading.faults or not reading.record or not reading.record.get("checkup_for"):
            continue
        record, faults = validate_record(reading.record)[:2]
        assert record is not None, faults
        report = stored_report(reading)
        sent = [kept(found) for found in reading.record["results"]]
        text = went_out(report)
        check_fhir(text)
        again = [kept(found) for each in came_in(text) for found in each["results"]]
        assert again == sent


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.one_of(st.integers(-(2**53), 2**53), st.floats(-1e9, 1e9), st.decimals("-999.99", "999.99", places=2))


@limits(max_examples=100, deadline=None)
@given(st.lists(st.fixed_dictionaries({"code": st.none() | TEXT, "name": TEXT, "value": NUMBERS | TEXT, "unit": st.none() | TEXT,
                                       "low": st.none() | NUMBERS, "high": st.none() | NUMBERS, "flag": st.sampled_from([None, "H", "N"])}), max_size=3),
       TEXT, TEXT)  # fmt: skip
def test_anything_goes_out_valid_and_no_cell_is_a_formula(results: list[Any], kind: str, text: str) -> None:
    report = document(1, results="[]", checkup_type=kind, checkup_report=text)
    report["results"] = results
    check_fhir(went_out(report))
    rows = list(csv.reader(io.StringIO("".join(report_lines([report], kind)), newline="")))
    assert {len(row) for row in rows} == {len(CSV_COLUMNS)}
    assert len(rows) == 1 + max(1, len(results))
    for row in rows[1:]:
        numbers = dict(zip(CSV_COLUMNS, row, strict=True))
        for name, cell in numbers.items():
            if name not in ("value", "low", "high", "id"):
                assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
            elif cell.startswith(("=", "+", "-", "@")):
                Decimal(cell)
        assert numbers["checkup_report"].replace("'", "") == escape_unsafe(text).replace("'", "")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t1", "\r1", "  =1", "＝1", '=HYPERLINK("http://x","y")'])
def test_what_a_spreadsheet_takes_for_a_formula_is_text(text: str) -> None:
    report = stored([result(value=text, name=text), result(value=-5)], checkup_report=text)
    rows = list(csv.DictReader(io.StringIO("".join(report_lines([report], text)), newline="")))
    assert {rows[0][name] for name in ("username", "checkup_report", "value", "name")} == {f"'{text}"}
    assert rows[1]["value"] == "-5", "a number is a number"


def test_csv_has_a_line_a_result() -> None:
    lines = "".join(report_lines([stored([result(), result(value=Decimal("5.10"))]), document(2)], "savita")).split(
        "\r\n"
    )
    assert lines[0] == ",".join(CSV_COLUMNS)
    assert lines[1] == (
        "1,savita,2026-11-20T03:44:03.123000Z,T,D,R,M,,true,8867-4,Heart rate,72,/min,60,100,N,,,within,,"
        ",1,final,,,http://loinc.org|8867-4,,,,,,,,,,"
    )
    assert ",5.10," in lines[2]
    assert lines[3] == "2,savita,2026-11-20T03:44:03.123000Z,T,D,R,M,,false,,,,,,,,,,,,,,final,,,,,,,,,,,,,"
    assert NOW.isoformat()[:10] in lines[3]


def test_csv_has_every_code_and_the_new_facts_behind_the_old_columns() -> None:
    codings = [{"system": "http://snomed.info/sct", "code": "1"}, {"system": "http://loinc.org", "code": "8867-4"}]
    detailed = result(codings=codings, number=4, status="amended", specimen={"text": "Urine"}, notes=[{"text": "n"}],
                      ranges=[{"low": 60, "sex": "female"}], interpretations=[{"code": "H"}], method="strip")  # fmt: skip
    report = stored([detailed], taken_precision="unknown", details='{"performers": [{"name": "Dr Who"}, "Lab"]}')
    (row,) = csv.DictReader(io.StringIO("".join(report_lines([report], "savita")), newline=""))
    assert (row["taken_at"], row["taken_precision"]) == ("", "unknown")
    assert row["codes"] == "http://snomed.info/sct|1; http://loinc.org|8867-4"
    assert (row["number"], row["result_status"], row["specimen"], row["method"]) == ("4", "amended", "Urine", "strip")
    assert (row["notes"], row["performers"], row["interpretations"]) == ("n", "Dr Who, Lab", "H")
    assert "60" in row["ranges"]


def test_a_code_that_is_none_of_loinc_leaves_without_its_system() -> None:
    assert code_element({"code": "GLU", "name": "Glucose"})["coding"] == [{"code": "GLU"}]
    assert code_element({"code": "2345-7", "name": "Glucose"})["coding"][0]["system"] == "http://loinc.org"


def test_csv_has_the_words_of_a_coded_absence() -> None:
    report = stored([result(value="", absent_code="error"), result(value="", absent_code="nan", absent_reason="clot")])
    rows = csv.DictReader(io.StringIO("".join(report_lines([report], "savita")), newline=""))
    assert [row["absent_reason"] for row in rows] == ["not measured, because of an error", "clot"]


def panel(status: str, own: str, when: str, name: str = "Glucose", conclusion: str = "Fine.\nStatus: stable.") -> bytes:
    """A report of two Observations, as some other program sends it."""
    resources: list[dict[str, Any]] = [
        {"resourceType": "Observation", "id": called[:4], "status": of, "code": {"text": called}, "valueInteger": 5}
        for called, of in ((name, own), ("Urea", "final"))
    ]
    references = [{"reference": f"Observation/{each['id']}"} for each in resources]
    report = {"resourceType": "DiagnosticReport", "id": "r", "status": status, "code": {"text": "Blood"},
              "subject": {"identifier": {"value": "savita"}}, "result": references, "effectiveDateTime": when,
              "conclusion": conclusion}  # fmt: skip
    return json.dumps({"resourceType": "Bundle", "type": "collection",
                       "entry": [{"resource": each} for each in (report, *resources)]}).encode()  # fmt: skip


@pytest.mark.parametrize(
    ("status", "own", "out"),
    [
        ("final", "final", ["final", "final", "final"]),
        ("amended", "corrected", ["amended", "corrected", "final"]),
        ("preliminary", "final", ["preliminary", "final", "final"]),
        ("final", "preliminary", ["final", "preliminary", "final"]),
        ("partial", "registered", ["partial", "registered", "final"]),
        ("cancelled", "cancelled", ["cancelled", "cancelled", "final"]),
        ("unknown", "unknown", ["unknown", "unknown", "final"]),
    ],
)
@pytest.mark.parametrize(
    "when", ["2026", "2026-11", "2026-11-20", "2026-11-20T12:00:00Z", "2026-11-20T09:14:03.123+05:30"]
)
def test_what_is_not_final_or_known_by_its_day_goes_out_so(status: str, own: str, out: list[str], when: str) -> None:
    (parsed,) = read_text(panel(status, own, when))[0]
    text = went_out(stored_report(parsed))
    check_fhir(text)
    resources = [entry["resource"] for entry in json.loads(text)["entry"]][1:]
    assert [each["status"] for each in resources] == out
    assert {each["effectiveDateTime"] for each in resources} == {when}
    (again,) = came_in(text)
    for name in ("checkup_report", "taken_precision", "taken_offset", "status"):
        assert again.get(name) == parsed.record.get(name)
    assert datetime.fromisoformat(again["taken_at"]) == datetime.fromisoformat(parsed.record["taken_at"])


def test_an_unknown_moment_has_no_effective_time() -> None:
    text = went_out(stored([result()], taken_precision="unknown"))
    check_fhir(text)
    assert b"effective" not in text
    assert came_in(text)[0]["taken_precision"] == "unknown"


# -- over HTTP -----------------------------------------------------------------------------------------------------

ACCEPTS = {
    "": "application/json",
    "*/*": "application/json",
    "application/*": "application/json",
    "text/html, application/json;q=0.9": "application/json",
    "text/csv": "text/csv",
    "TEXT/CSV;q=0.5, application/json;q=0.4": "text/csv",
    "application/fhir+json": "application/fhir+json",
    "application/json;q=0, */*;q=0.1": "application/fhir+json",
    "text/*": "text/csv",
    "text/html": None,
    "application/json;q=0": None,
    "nonsense": None,
}


@pytest.mark.parametrize("accept", ACCEPTS)
def test_accept_chooses(browse: Caller, log_in, accept: str) -> None:
    for path in ("/reports/", "/reports/1/", "/users/bholanath/reports/"):
        answer = browse("GET", path, token=log_in("bholanath"), headers={"Accept": accept} if accept else {})
        if ACCEPTS[accept] is None:
            assert (answer.status_code, answer.json["code"]) == (406, "not_acceptable")
            continue
        assert (answer.status_code, answer.mimetype) == (200, ACCEPTS[accept])
        if answer.mimetype == "application/fhir+json":
            check_fhir(answer.data)
            assert {each["resource"]["resourceType"] for each in answer.json["entry"]} == {
                "Patient",
                "DiagnosticReport",
                "Observation",
            }
        elif answer.mimetype == "text/csv":
            assert {row["username"] for row in csv.DictReader(io.StringIO(answer.text))} == {"bholanath"}


def test_what_a_client_has_is_not_sent_again(browse: Caller, log_in) -> None:
    first = browse("GET", "/reports/", token=log_in("bholanath"))
    tag = first.headers["ETag"]
    for known in (tag, f'"x", {tag}', tag.removeprefix("W/"), "*"):
        again = browse("GET", "/reports/", token=log_in("bholanath"), headers={"If-None-Match": known})
        assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)
    other = browse("GET", "/reports/?limit=1", token=log_in("bholanath"), headers={"If-None-Match": tag})
    assert other.status_code == 200
    assert browse("GET", "/reports/", token=log_in("savita"), headers={"If-None-Match": tag}).status_code == 200
    assert browse("GET", "/reports/", token="x", headers={"If-None-Match": tag}).status_code == 401


def test_an_answer_is_packed_for_who_unpacks(browse: Caller, log_in) -> None:
    plain = browse("GET", "/reports/", token=log_in("bholanath"))
    assert "Content-Encoding" not in plain.headers
    assert "Accept-Encoding" in plain.headers["Vary"]
    packed = browse("GET", "/reports/", token=log_in("bholanath"), headers={"Accept-Encoding": "br, gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert packed.headers["ETag"] == plain.headers["ETag"]
    unwanted = browse("GET", "/reports/", token=log_in("bholanath"), headers={"Accept-Encoding": "gzip;q=0"})
    assert "Content-Encoding" not in unwanted.headers


@pytest.mark.parametrize("kind", ["application/json", "text/csv", "application/fhir+json"])
def test_pages_are_linked_in_every_form(browse: Caller, log_in, kind: str) -> None:
    path, pages = "/users/bholanath/reports/?limit=2&type=BLOOD%20PRESSURE&text=fine", []
    while path:
        pages.append(browse("GET", path, token=log_in("bholanath"), headers={"Accept": kind}))
        path = pages[-1].headers.get("Link", "").partition(">")[0].lstrip("<")
    assert len(pages) == 2
    if kind == "application/fhir+json":
        assert (
            pages[0]
            .json["link"][0]["url"]
            .startswith("http://localhost/users/bholanath/reports/?limit=2&type=BLOOD+PRESSURE")
        )
