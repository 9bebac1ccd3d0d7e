"""FHIR R4 resources, and their reading as records."""

import io
import json
from collections import Counter
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from myhealth.intake.formats.fhir.reader import read_fhir
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.json_reader import JsonBuffer
from myhealth.intake.formats.registry import FHIR
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.validation import validate_record
from support.factories import NOW, document

KOLKATA = ZoneInfo("Asia/Kolkata")
LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"


def read_text(data: str | bytes, zone: tzinfo = UTC) -> tuple[list[ParsedRecord], Counter[str]]:
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    dump = Dump(FHIR, zone=zone)
    return list(read_fhir(JsonBuffer(io.BytesIO(raw)), dump)), dump.skipped


def read(*resources: Any, zone: tzinfo = UTC) -> list[ParsedRecord]:
    return read_text("\n".join(map(json.dumps, resources)), zone)[0]


def record_of(resource: Any, zone: tzinfo = UTC) -> dict[str, Any]:
    """Return the only record of a resource; it must be valid if it is about a patient."""
    (reading,) = read(resource, zone=zone)
    assert reading.faults == []
    if "checkup_for" in reading.record:
        assert validate_record(reading.record)[1] == []
    return reading.record


def result_of(**changes: Any) -> dict[str, Any]:
    (result,) = record_of(observation(**changes))["results"]
    return result


def faults_of(resource: Any) -> list[tuple[str, str]]:
    (reading,) = read(resource)
    return reading.faults


def observation(name: str = "glucose", **changes: Any) -> dict[str, Any]:
    """Return a valid Observation with these changes; the value ... removes an element."""
    made = {
        "resourceType": "Observation",
        "id": name,
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "15074-8", "display": "Glucose in Blood"}], "text": "Glucose"},
        "subject": {"reference": "Patient/p1", "display": "Bholanath Kulkarni"},
        "effectiveDateTime": "2026-11-20T09:14:03+05:30",
        "valueQuantity": quantity(6.3, "mmol/l", "mmol/L"),
        **changes,
    }
    return {key: value for key, value in made.items() if value is not ...}


def quantity(value: Any, unit: str = "", code: str = "", system: str = UCUM) -> dict[str, Any]:
    told = {"value": value, "unit": unit, "code": code, "system": system if code else ""}
    return {key: each for key, each in told.items() if each != ""}


def concept(*codes: str, text: str = "", system: str = "") -> dict[str, Any]:
    coding = [{"code": code, **({"system": system} if system else {})} for code in codes]
    return {key: value for key, value in (("coding", coding), ("text", text)) if value}


def report(*references: str, **changes: Any) -> dict[str, Any]:
    made = {
        "resourceType": "DiagnosticReport",
        "id": "r1",
        "status": "final",
        "code": {"text": "Lipid panel"},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2026-11-20T09:00:00Z",
        "result": [{"reference": reference} for reference in references],
        **changes,
    }
    return {key: value for key, value in made.items() if value is not ...}


def bundle(*resources: dict[str, Any], kind: str = "collection", urls: tuple[str, ...] = ()) -> dict[str, Any]:
    entries: list[dict[str, Any]] = [{"resource": resource} for resource in resources]
    for entry, url in zip(entries, urls, strict=False):
        if url:
            entry["fullUrl"] = url
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


PATIENT = {
    "resourceType": "Patient",
    "id": "p1",
    "identifier": [
        {"use": "old", "value": "OLD-1"},
        {"system": "http://example.org/card", "value": "CARD-7"},
        {"use": "usual", "value": "bholanath"},
    ],
    "name": [
        {"use": "nickname", "given": ["Bholu"]},
        {"use": "official", "family": "Kulkarni", "given": ["Bholanath", "V"]},
    ],
}


def named(name: str, *members: str, **changes: Any) -> dict[str, Any]:
    """Return an Observation whose name is its id; with members it has no value."""
    own = {"valueQuantity": ...} if members else {}
    return observation(name, code={"text": name}, hasMember=[{"reference": each} for each in members], **own, **changes)


def same_again(reading: ParsedRecord) -> None:
    """Assert that the record's text, read alone, gives this record and no other."""
    if any("JSON" in message for _, message in reading.faults):
        return
    (again,), _ = read_text(reading.raw)
    for name in ("record", "faults", "patients", "full_name", "raw"):
        assert str(getattr(again, name)) == str(getattr(reading, name)), name


FULL = bundle(
    PATIENT,
    {"resourceType": "Device", "id": "d1", "identifier": [{"value": "HC-9"}]},
    {"resourceType": "Practitioner", "id": "d2", "name": [{"family": "Rao", "given": ["Ayush"]}]},
    report("Observation/a", "urn:uuid:b", "#c", performer=[{"reference": "Practitioner/d2"}], contained=[named("c")]),
    named("a", device={"reference": "Device/d1"}, interpretation=[concept("H")], referenceRange=[{"high": quantity(5)}]),
    named("b", "Observation/d", note=[{"text": "n"}]),
    named("d", status="entered-in-error"),
    named("e", "Observation/f", "Observation/gone"),
    named("f", "Observation/e", "Observation/a"),
    named("g", component=[{"code": {"text": "k"}, "valueRatio": {"numerator": quantity(1), "denominator": quantity(8)}}]),
    urls=("", "", "", "https://x.example/fhir/DiagnosticReport/r1", "", "urn:uuid:b"),
)  # fmt: skip


def patients_of(reading: ParsedRecord) -> tuple[str, ...]:
    """Return the values of the patient's identifiers, or what the record calls the patient."""
    identifiers = (reading.record.get("patient") or {}).get("identifiers", ())
    named = [each["value"].strip() for each in identifiers] or [reading.record.get("checkup_for")]
    return tuple(dict.fromkeys(filter(None, named)))


def stored_report(parsed: ParsedRecord, id_: int = 1) -> dict[str, Any]:
    """Return the report that the store has of a record."""
    record, faults = validate_record(parsed.record)
    assert record is not None, faults
    columns = {
        name: getattr(record, name)
        for name in ("status", "taken_precision", "taken_offset", "taken_until", "issued_at", "details")
    }
    columns |= {
        name: getattr(record, name)
        for name in ("checkup_type", "checkup_report", "disease", "machine", "taken_by", "results")
    }
    return document(id_, taken_at=record.taken_at or NOW, **columns)
