"""Unusual reports for the tests of the pages: every kind of value, many scripts, a long history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from support.factories import record
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.result_view import ResultView, present_all

LONG_NAME = "Maria-Theresia Alexandrina Konstantinopolitanskaja-Papadimitrakopoulou von und zu Hohenlohe-Waldenburg"
XSS = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}% import os"


def result(name: str, value: Any, unit: str | None = None, low: Any = None, high: Any = None, flag: str | None = None, code: str | None = None) -> dict[str, Any]:  # fmt: skip
    return {"code": code, "name": name, "value": value, "unit": unit, "low": low, "high": high, "flag": flag}


def present(measured: dict[str, Any]) -> ResultView:
    """Return the view of one result."""
    return present_all([{"results": [measured]}], Dates("Asia/Kolkata").moment)[0][0]


BLOOD_COUNT = [
    result("Hemoglobin", 11.2, "g/dL", 12.0, 17.5, "L", "718-7"),
    result("Leukocytes", 6.8, "10*3/uL", 4.0, 11.0, "N", "6690-2"),
    result("Erythrocytes", 4.51, "10*6/uL", 4.1, 5.9, "N", "789-8"),
    result("Platelets", 480, "10*3/uL", 150, 400, "HH", "777-3"),
    result("Thyrotropin", 2.31, "u[IU]/mL", 0.4, 4.0, "N", "3016-3"),
    result("eGFR", 88, "mL/min/{1.73_m2}", 60, None, "N", "33914-3"),
]
ODD = [
    result("Glucose in urine", "negative", None, None, None, "N", "2350-7"),
    result("ANA titre", "1:128", None, None, None, "A"),
    result("Ketones", "trace", "mg/dL"),
    result("C-reactive protein", "<5", "mg/L", None, 5, None, "1988-5"),
    result("D-dimer", "<1000", "ug/L", None, 500, None, "48065-7"),
    result("Glucose", "<3", "mg/dL", 70, 99, None, "2345-7"),
    result("Cholesterol", 228, "mg/dL", None, 200, "H", "2093-3"),
    result("ضغط الدم الانقباضي", 128, "mm[Hg]", 90, 120, "N", "8480-6"),
    result("血糖（空腹）", 5.4, "mmol/L", 3.9, 5.6, "N"),
    result(
        "A measurement whose name goes on and on, for the machine writes whole sentences into it " * 2,
        -0.000012,
        "kg.m2/s2",
    ),
    result("Culture", "No growth after 48 hours.\nGram stain: no organisms seen; few leukocytes. " * 4),
]


def temperatures(patient: str) -> list[dict[str, Any]]:
    """Return two possible temperatures without a range, and an impossible one between them."""
    made = []
    for i, value in enumerate((36.6, 366, 37.9)):
        measured = result("Body temperature", value, "Cel", code="8310-5")
        made.append(
            record(
                f"t{i}",
                patient,
                taken_at=f"2026-11-{i + 10}T09:00:00Z",
                checkup_type="TEMPERATURE",
                disease="",
                checkup_report="",
                results=[measured],
            )
        )
    return made  # fmt: skip


def history(patient: str, points: int = 24) -> list[dict[str, Any]]:
    """Return blood pressures at irregular intervals over two years, the last one a few days old."""
    begun = datetime(2024, 11, 3, 3, 30, tzinfo=UTC)
    made = []
    for i in range(points):
        when = begun + timedelta(days=i * i * 1.3)
        high, low = 112 + (i * 7) % 31, 70 + (i * 5) % 17
        made.append(record(f"bp{i}", patient, taken_at=when.isoformat(), disease="BP", checkup_report=f"ALL FINE. {high}/{low}" if high <= 120 else f"{high}/{low}. Measure again after a rest.", results=[
            result("Systolic blood pressure", high, "mm[Hg]", 90, 120, "H" if high > 120 else "N", "8480-6"),
            result("Diastolic blood pressure", low, "mm[Hg]", 60, 80, "H" if low > 80 else "N", "8462-4"),
        ]))  # fmt: skip
    return made


def varied(patient: str) -> list[dict[str, Any]]:
    """Return one report of each unusual kind."""
    return [
        record("cbc", patient, taken_at="2026-11-18T05:10:00Z", checkup_type="BLOOD COUNT", disease="ANAEMIA", checkup_report="Repeat in four weeks.", results=BLOOD_COUNT),
        record("odd", patient, taken_at="2026-11-19T07:45:00Z", checkup_type="Laboratory panel", disease="", taken_by=None, checkup_report="تم الفحص. النتائج ضمن المعتاد.\n\nPlease bring this page along.", results=ODD),
        record("empty", patient, taken_at="2026-11-20T11:00:00Z", checkup_type="ECG", disease="HEART", checkup_report="Sinus rhythm. " + "The tracing was read twice and shows nothing that needs doing. " * 30, results=[]),
        record("xss", patient, taken_at="2026-11-21T11:00:00Z", checkup_type=XSS, disease=XSS, taken_by=XSS, checkup_report=XSS, results=[result(XSS, XSS, XSS, None, None, "A", XSS)]),
    ]  # fmt: skip


def sixty(patient: str) -> list[dict[str, Any]]:
    """Return a report with sixty results of every kind, and an older one with two of its text results."""
    kinds = [("Hemoglobin", 11.2, "g/dL", 12.0, 17.5, "L"), ("Platelets", 480, "10*3/uL", 150, 400, "HH"), ("Colour", "yellow", None, None, None, None),
             ("Ferritin", 80, "ng/mL", None, None, None), ("pH", 5.5, "[pH]", 4.5, 8.0, "N"), ("Culture", "No growth after 48 hours. " * 6, None, None, None, "A")]  # fmt: skip
    many = [result(name if i < 6 else f"{name} {i}", *rest) for i, (name, *rest) in enumerate(kinds * 10)]
    few = [result("Colour", "straw"), result("Culture", "No growth.")]
    return [
        record("sixty", patient, taken_at="2026-11-21T05:10:00Z", checkup_type="Whole blood and everything else that a laboratory can find out about a person in one morning", disease="GENERAL", checkup_report="Everything was looked at. " * 60, results=many),
        record("few", patient, taken_at="2026-10-21T05:10:00Z", checkup_type="URINE", results=few),
    ]  # fmt: skip


def rich(patient: str) -> list[dict[str, Any]]:
    """Return reports with every further fact: a preliminary one, one of a month, one of an unknown time."""
    by_sex = [{"low": 12, "high": 16, "sex": "female"}, {"low": 14, "high": 18, "sex": "male"}]
    haemoglobin = {**result("Hemoglobin", 11.2, "g/dL", code="718-7"), "ranges": by_sex}
    results = [
        {**haemoglobin, "status": "corrected", "corrected_at": "2026-11-21T03:40:00Z", "previous_value": 12.1},
        {**result("Glucose", 5.9, "mmol/L", code="2345-7"), "low": 3.9, "high": 5.5, "flag": "H",
         "taken_at": "2026-11-20T06:00:00Z", "interpretations": [{"code": "H"}, {"code": "U"}],
         "ranges": [{"low": 3.9, "high": 5.5}, {"high": 7.8, "applies_to": ["two hours after a meal"]}],
         "notes": [{"text": "Slightly haemolysed", "author": "Dr. Rao", "at": "2026-11-20"}], "method": {"text": "Photometry"}},
        {**result("Protein", "", "mg/dL"), "absent_code": "not-performed", "status": "cancelled",
         "specimen": {"text": "Urine", "collected_at": "2026-11-20T01:00:00Z"}, "performers": [{"name": "Central laboratory"}]},
        {**result("HIV 1+2 antibodies", "reactive"), "flag": "A", "interpretations": [{"code": "RR"}], "ranges": [{"text": "non-reactive"}],
         "group": "Infection serology", "device": {"text": "Analyser 9"}, "body_site": "left arm"},
    ]  # fmt: skip
    details = {"performers": [{"name": "Central laboratory", "kind": "Organization"}], "category": ["Laboratory"],
               "specimen": "Venous blood", "clinical_information": "Known diabetes", "reasons": ["Yearly check-up"],
               "notes": [{"text": "Patient was not fasting."}]}  # fmt: skip
    return [
        record("whole", patient, taken_at="2026-11-20T03:44:00Z", taken_offset=330, status="preliminary", checkup_type="LABORATORY",
               issued_at="2026-11-20T12:00:00Z", checkup_report="", details=details, results=results),
        record("month", patient, taken_at="2026-11-01T12:00:00Z", taken_precision="month", checkup_type="ECG", results=[]),
        record("unknown", patient, taken_at=None, taken_precision="unknown", checkup_type="BLOOD COUNT",
               results=[{**haemoglobin, "value": 13}, result("Grip", 40, "kg")]),
    ]  # fmt: skip
