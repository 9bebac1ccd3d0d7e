"""Reports as FHIR R4: a Bundle of DiagnosticReports and their Observations. Pure.

Data that came in as FHIR goes out with the same code, value, unit, range, interpretation, status and date. Ranges and
marks of our catalogue (`range_source`) are not exported. Source: HL7 FHIR R4 (4.0.1), "Bundle", "DiagnosticReport",
"Observation", "Data Types".
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from myhealth.clinical.catalog import source_flag
from myhealth.clinical.report_status import StatusLines, known_precision, on_one_line, parse_status_lines
from myhealth.clinical.ucum import is_ucum
from myhealth.common.exact_numbers import exact_number
from myhealth.reports.documents import Document
from myhealth.reports.trends import readable_results

LOINC_URI = "http://loinc.org"
UCUM_URI = "http://unitsofmeasure.org"
INTERPRETATION_URI = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
# Our identifier systems as tag URIs (RFC 4151), which need no server.
REPORT_SYSTEM, PERSON_SYSTEM, MACHINE_SYSTEM = (
    f"tag:myhealth.example,2026:{what}" for what in ("report", "username", "serial")
)
NAMESPACE = uuid.UUID("6e0ff3b0-2c0c-5c3f-9a55-6a2f6f6f1c0e")
FLAG_WORDS = {"L": "Low", "H": "High", "LL": "Critical low", "HH": "Critical high", "N": "Normal", "A": "Abnormal"}
DECIMAL_PATTERN = r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
BOUND_PATTERN = re.compile(rf" *(<=|>=|<|>|≤|≥) *({DECIMAL_PATTERN}) *")
RANGE_PATTERN = re.compile(rf"({DECIMAL_PATTERN}) - ({DECIMAL_PATTERN})")
CODE_PATTERN = re.compile(r"\S+(?: \S+)*")
URI_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")  # absolute, as FHIR requires; HL7 v2 has names like 99LAB
CONTROL_PATTERN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # not allowed in FHIR's strings
Resource = dict[str, Any]


def fhir_bundle(reports: Iterable[Document], patient: Document, *, next_url: str | None = None) -> Resource:
    """Return a Bundle of type collection: each report, followed by its Observations. All are of one patient.

    `next_url`: the absolute address of the next page.
    """
    bundle: Resource = {"resourceType": "Bundle", "type": "collection"}
    if next_url:
        bundle["link"] = [{"relation": "next", "url": next_url}]
    if entries := [entry for report in reports for entry in report_entries(report, patient)]:
        bundle["entry"] = entries
    return bundle


def report_entries(report: Document, patient: Document) -> list[Resource]:
    """Return the entries of one report in a Bundle: the report, followed by its Observations."""
    remarks, results = parse_status_lines(report["checkup_report"]), readable_results(report)
    shared = {"subject": _subject(patient), "effectiveDateTime": _effective_time(report)}
    statuses = _statuses(results, remarks)
    observations = [_observation(report, n, each, statuses[n], shared) for n, each in enumerate(results)]
    resources = [_report(report, observations, remarks.status or "final", shared), *observations]
    return [{"fullUrl": _address(each["id"]), "resource": each} for each in resources]


def _subject(patient: Document) -> Resource:
    name = _clean(patient["full_name"]) or patient["username"]
    return {"identifier": {"system": PERSON_SYSTEM, "value": patient["username"]}, "display": name}


def _report(report: Document, observations: list[Resource], status: str, shared: Resource) -> Resource:
    """Return the DiagnosticReport, without empty elements, as FHIR requires."""
    found: Resource = {
        "resourceType": "DiagnosticReport",
        "id": str(report["_id"]),
        "identifier": [{"system": REPORT_SYSTEM, "value": str(report["_id"])}],
        "status": status,
        "code": {"text": _clean(report["checkup_type"]) or "Check-up"},
        **shared,
        "issued": _instant(report["updated_at"]),
    }
    if disease := _clean(report["disease"]):
        found["category"] = [{"text": disease}]
    if taken_by := _clean(report["taken_by"]):
        found["performer"] = [{"display": taken_by}]
    if conclusion := _clean(report["checkup_report"]):
        found["conclusion"] = conclusion
    if observations:
        found["result"] = [{"reference": _address(each["id"])} for each in observations]
    return found


def _observation(report: Document, number: int, result: Document, status: str, shared: Resource) -> Resource:
    found: Resource = {
        "resourceType": "Observation",
        "id": f"{report['_id']}-{number}",
        "status": status,
        "code": _code_element(result),
        **shared,
        **_value_element(result),
    }
    if machine := _clean(report["machine"]):
        found["device"] = {"identifier": {"system": MACHINE_SYSTEM, "value": machine}}
    flag = source_flag(result)
    if flag in FLAG_WORDS:
        coding = {"system": INTERPRETATION_URI, "code": flag, "display": FLAG_WORDS[flag]}
        found["interpretation"] = [{"coding": [coding]}]
    if ranges := _ranges(result):
        found["referenceRange"] = ranges
    return found


def _statuses(results: list[Document], remarks: StatusLines) -> list[str]:
    """Return each result's own status, else the report's, else final.

    A status is unknown if the report states one for a name that no result has, such as a panel's, or for a name that
    several results share.
    """
    names = [on_one_line(_clean(result.get("name"))) for result in results]
    other = "final" if remarks.of_results.keys() <= set(names) else "unknown"
    found = {name: remarks.status_of(name) or other for name in names}
    for name in remarks.of_results:
        if names.count(name) > 1 and found[name] != remarks.status_of(""):
            found[name] = "unknown"
    return [found[name] for name in names]


def _code_element(result: Document) -> Resource:
    name, code, other = (_clean(result.get(key)) for key in ("name", "code", "other_code"))
    system = _clean(result.get("code_system"))
    concept: Resource = {"text": name or code or other or "Result"}
    if CODE_PATTERN.fullmatch(code):
        concept["coding"] = [{"system": LOINC_URI, "code": code}]  # a display would have to be LOINC's name
    elif CODE_PATTERN.fullmatch(other):
        concept["coding"] = [{**({"system": system} if URI_PATTERN.fullmatch(system) else {}), "code": other}]
    return concept


def _value_element(result: Document) -> Resource:
    """Return the value as a Quantity, a Range or text, or the reason of its absence."""
    value, unit = result.get("value"), _clean(result.get("unit"))
    if _is_number(value):
        return {"valueQuantity": _amount(value, unit)}
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if value is None or not text.strip() or result.get("absent_reason") == value:
        return {"dataAbsentReason": {"text": _clean(result.get("absent_reason")) or "no value"}}
    if match := BOUND_PATTERN.fullmatch(text):
        comparator = match[1].replace("≤", "<=").replace("≥", ">=")
        return {"valueQuantity": {**_amount(_number(match[2]), unit), "comparator": comparator}}
    if unit and (match := RANGE_PATTERN.fullmatch(text)):
        return {
            "valueRange": {
                "low": _amount(_number(match[1]), unit),
                "high": _amount(_number(match[2]), unit),
            }
        }
    return {"valueString": _printable(text), **({"note": [{"text": f"Unit: {unit}"}]} if unit else {})}


def _ranges(result: Document) -> list[Resource]:
    """Return the normal range, then the other ranges as text."""
    ends = {
        end: _amount(result[end], _clean(result.get("unit"))) for end in ("low", "high") if _is_number(result.get(end))
    }
    found = [ends] if ends and "range_source" not in result else []
    text = "" if "range_source" in result else _clean(result.get("range_text"))
    return [*found, {"text": text}] if text else found


def _amount(number: Any, unit: str) -> Resource:
    """Return a number with its unit, coded if the unit is UCUM_URI."""
    coded = {"system": UCUM_URI, "code": unit} if is_ucum(unit) else {}
    return {"value": number, **({"unit": unit} if unit else {}), **coded}


def _number(text: str) -> Any:
    return int(text) if re.fullmatch(r"-?[0-9]{1,15}", text) else exact_number(text)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _clean(value: Any) -> str:
    """Return the stripped text, "" for anything else. FHIR has no empty strings."""
    return _printable(value.strip()) if isinstance(value, str) else ""


def _printable(text: str) -> str:
    return CONTROL_PATTERN.sub("\ufffd", text)


def _effective_time(report: Document) -> str:
    """Return the moment, with only the precision that is known."""
    moment = report["taken_at"]
    known = known_precision(report["checkup_report"], moment)
    return moment.date().isoformat()[: {"year": 4, "month": 7, "day": 10}[known]] if known else _instant(moment)


def _instant(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _address(id_: str) -> str:
    """Return the URN of an entry, the same in every Bundle. Worked example: "5-0" gives urn:uuid:…"""
    return f"urn:uuid:{uuid.uuid5(NAMESPACE, id_)}"
