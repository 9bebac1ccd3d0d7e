"""What comes in as FHIR goes out the same: counted per field over all FHIR files, without the code of either side."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.fhir import read_text, stored_report
from support.paths import DATA

from myhealth.reports.documents import encode_json
from myhealth.reports.export.fhir import fhir_bundle

FILES = [path for folder in ("fhir-r4", "bundles", "faults") for path in sorted((DATA / folder).glob("*.json"))]
PATIENT = {"_id": 7, "subject": "s7", "username": "savita", "full_name": "Savita Deshpande", "sex": "female",
           "birth_date": "1970-05-17"}  # fmt: skip
COUNTED = ("DiagnosticReport", "Observation")
RELATIVE = re.compile(r"[A-Z][A-Za-z]+/[^/]+")
Facts = Counter[tuple[str, str]]


def facts_of(resources: list[dict[str, Any]]) -> Facts:
    """Count the facts of the reports and Observations among the resources, each as (field, text)."""
    here = {f"{each['resourceType']}/{each.get('id')}": each for each in resources}
    here |= {each["fullUrl"]: each for each in resources if each.get("fullUrl")}
    found: Facts = Counter()
    for each in resources:
        if each["resourceType"] in COUNTED and each.get("status") != "entered-in-error":
            contained = {f"#{inner['id']}": inner for inner in each.get("contained", []) if "id" in inner}
            found.update((field, json.dumps(value, sort_keys=True)) for field, value in _facts(each, here | contained))
    return found


def _facts(part: dict[str, Any], here: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in part.items():
        if name.startswith("value"):
            yield f"value ({name[5:]})", _unit_apart(value)
            if isinstance(value, dict) and value.get("unit"):
                yield "unit", value["unit"]
            if isinstance(value, dict) and value.get("code"):
                yield "unit: coding", (value.get("system"), value["code"])
    for field, name in (
        ("code", "code"),
        ("method", "method"),
        ("body site", "bodySite"),
        ("no value", "dataAbsentReason"),
    ):
        yield from _concept(field, part.get(name))
    for field, name in (
        ("category", "category"),
        ("interpretation", "interpretation"),
        ("conclusion", "conclusionCode"),
    ):
        for each in part.get(name, []):
            yield from _concept(field, each)
    for each in part.get("referenceRange", []):
        ends = {end: each[end].get("value") for end in ("low", "high") if end in each}
        conditions = {key: each[key] for key in ("type", "appliesTo") if key in each}
        conditions |= {end: age.get("value") for end, age in each.get("age", {}).items()}
        yield from (
            (f"range: {name}", (told, conditions))
            for name, told in (("ends", ends), ("text", each.get("text")))
            if told
        )
    yield from (("note", each) for each in part.get("note", []))
    yield from (
        ("identifier", {key: each.get(key) for key in ("system", "value")}) for each in part.get("identifier", [])
    )
    yield from (("performer", _name(each, here)) for each in part.get("performer", []))
    specimens = part.get("specimen", [])
    for each in specimens if isinstance(specimens, list) else [specimens]:
        specimen = here.get(each.get("reference"), {})
        yield from _concept("specimen", specimen.get("type") or {"text": each.get("display")})
        yield from (
            ("specimen", specimen["collection"][key]) for key in ("collectedDateTime",) if "collection" in specimen
        )
    if "conclusion" in part:
        yield "conclusion", part["conclusion"]
    if "status" in part:
        yield "status", part["status"]
    for name in ("effectiveDateTime", "issued"):
        if name in part:
            yield name, _moment(part[name])
    if "effectivePeriod" in part:
        ends = [_moment(part["effectivePeriod"][end]) for end in ("start", "end") if end in part["effectivePeriod"]]
        # A period with one end only goes out as that moment.
        yield ("effectivePeriod", ends) if len(ends) == 2 else ("effectiveDateTime", ends[0])
    for component in part.get("component", []):
        yield from _facts(component, here)


def _unit_apart(value: Any) -> Any:
    return (
        {key: value[key] for key in ("value", "comparator") if key in value}
        if isinstance(value, dict) and "value" in value
        else value
    )


def _concept(field: str, concept: Any) -> Iterator[tuple[str, Any]]:
    for coding in (concept or {}).get("coding", []):
        yield f"{field}: coding", {key: coding.get(key) for key in ("system", "code", "display", "version")}
    if (concept or {}).get("text"):
        yield f"{field}: text", concept["text"]


def _name(reference: dict[str, Any], here: dict[str, Any]) -> str:
    found = here.get(reference.get("reference", ""), {})
    names = found.get("name")
    own = (
        names
        if isinstance(names, str)
        else " ".join([*names[0].get("given", []), names[0].get("family", "")])
        if names
        else ""
    )
    return str(reference.get("display") or own or reference.get("reference") or reference["identifier"]["value"])


def _moment(text: str) -> str:
    return text if len(text) < 11 else datetime.fromisoformat(text).astimezone(UTC).isoformat()


def resources_of(text: str | bytes) -> list[dict[str, Any]]:
    whole = json.loads(text, parse_float=str)
    if whole["resourceType"] != "Bundle":
        return [whole]
    return [{"fullUrl": each.get("fullUrl"), **each["resource"]} for each in whole["entry"]]


def compare(path: Path) -> tuple[Facts, Facts]:
    """Return the facts that went in, and those of them that came out, over all records of a file."""
    went_in, came_out = Counter(), Counter()
    for parsed in read_text(path.read_bytes())[0]:
        if parsed.faults or parsed.record.get("status") == "entered-in-error":
            continue
        parsed.record.setdefault("checkup_for", "savita")
        sent = facts_of(resources_of(parsed.raw))
        exported = encode_json(fhir_bundle([stored_report(parsed)], PATIENT))
        went_in += sent
        came_out += sent & facts_of(resources_of(exported))
    return went_in, came_out


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_fact_that_went_in_comes_out(path: Path) -> None:
    went_in, came_out = compare(path)
    assert went_in - came_out == Counter()
