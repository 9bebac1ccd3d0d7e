"""Reports and users as the resources that the FHIR API answers with. Pure.

Logical ids: a Patient's is the subject, which a user has for good; a DiagnosticReport's and a Device's the check-up's
id; an Observation's the check-up's id and the number of the result (or p and the number of the panel), which stay
through corrections. Source: HL7 FHIR R4 (4.0.1), "Resource".

The Observations of plain reports are made quickly: those alike but for moments and numbers share a template, which is
made by the same code as any other Observation, from numbers that mark their places.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from myhealth.clinical.coding_systems import OUR_SERIAL
from myhealth.clinical.status import WITHDRAWN
from myhealth.reports.documents import Document
from myhealth.reports.export.fhir import Observations, patient_resource, report_resources
from myhealth.reports.export.fhir_values import Element, clean, instant
from myhealth.reports.trends import readable_results

OBSERVATIONS = frozenset(("Observation",))
OBSERVATION_ID = re.compile(r"(0|[1-9][0-9]{0,18})-(p?[0-9]{1,9})", re.ASCII)
REPORT_ID = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


def patient_of(user: Document) -> Element:
    return _versioned(patient_resource(user) | {"id": user["subject"]}, user)


def resources_of(report: Document, kinds: frozenset[str] | None = None) -> list[Element]:
    """Return the DiagnosticReport, the Observations and the Device of a report; only those of these kinds."""
    if kinds == OBSERVATIONS and (found := plain_observations(report, _meta(report))) is not None:
        return found
    subject = {"reference": f"Patient/{report['subject']}"}
    device = f"Device/{report['_id']}" if clean(report["machine"]) else ""
    found = []
    for resource in report_resources(report, subject, "Observation/{}".format):
        if kinds is None or resource["resourceType"] in kinds:
            if device and "device" in resource:
                resource["device"].setdefault("reference", device)
            found.append(_versioned(resource, report))
    if device and (kinds is None or "Device" in kinds):
        found.append(_versioned(_device_element(report), report))
    return found


def report_id_of(kind: str, id_: str) -> int | None:
    """Return the report that a resource of this kind and id is a part of; None if no resource has such an id."""
    match = (OBSERVATION_ID if kind == "Observation" else REPORT_ID).fullmatch(id_)
    return int(match[0].partition("-")[0]) if match else None


def find_resource(report: Document, kind: str, id_: str) -> Element | None:
    return next((each for each in resources_of(report, frozenset((kind,))) if each["id"] == id_), None)


def observation_ids(report: Document) -> Callable[[str], str]:
    """Return a function from the number (`sub_id`) under which an Observation was sent to its id; to "" if it is not
    there. For the number "", the id is that of the first Observation that no other contains."""
    results = readable_results(report)
    observations, top = Observations(report, {}, str).of(results)
    there = {each["id"] for each in observations}
    panels = (report.get("details") or {}).get("panels") or ()
    found = {"": top[0]} if top else {}
    for prefix, parts in (("", results), ("p", panels)):
        for place, each in enumerate(parts, 1):
            id_ = f"{report['_id']}-{prefix}{each.get('number', place)}"
            if (number := each.get("sub_id")) and id_ in there:
                found.setdefault(number, id_)
    both = f"{report['_id']}-p0"  # both values of a blood pressure are parts of one
    return lambda number: found.get(number, both if both in there else "")


def is_withdrawn(report: Document, id_: str) -> bool:
    """Return whether the source withdrew the result, or the whole report. After a withdrawal the
    other results have a `number`; a lower number that is missing is the withdrawn one's."""
    if report.get("status") == WITHDRAWN:
        return True
    numbers = [number for each in readable_results(report) if type(number := each.get("number")) is int]
    asked = id_.partition("-")[2]
    return asked.isdecimal() and int(asked) not in numbers and int(asked) < max(numbers, default=0)


def _device_element(report: Document) -> Element:
    serial = clean(report["machine"])
    return {
        "resourceType": "Device",
        "id": str(report["_id"]),
        "identifier": [{"system": OUR_SERIAL, "value": serial}],
        "serialNumber": serial,
    }


def _versioned(resource: Element, source: Document) -> Element:
    """Return the resource with its version, which is that of the document it is made of."""
    return {"resourceType": resource["resourceType"], "id": resource["id"], "meta": _meta(source), **resource}


def _meta(source: Document) -> Element:
    updated = instant(source.get("updated_at"))
    return {"versionId": str(source["revision"])} | ({"lastUpdated": updated} if updated else {})


FACTS = ("code", "name", "unit", "low", "high", "flag")
# A result with anything else is not plain, nor is a report with one of these.
KNOWN = frozenset((*FACTS, "value", "range_source", "range_text", "unit_text", "other_code", "code_system"))
FURTHER = frozenset(("details", "status", "taken_precision", "taken_offset", "taken_until", "issued_at"))
SCALARS = frozenset((str, int, float, type(None)))
NUMBERS = (int, float)
TEMPLATES = 1_000  # a few kilobytes each
FIRST_MARK = 10**15
ANY_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)


class Template(NamedTuple):
    """An Observation, the end of its id, and the places of values: (component or -1, the result's place)."""

    observation: Element
    suffix: str
    places: list[tuple[int, int]]


def plain_observations(report: Document, meta: Element) -> list[Element] | None:
    """Return the Observations of a plain report with this `meta`; None for any other report."""
    results, moment = report["results"], report["taken_at"]
    if not report.keys().isdisjoint(FURTHER) or type(results) is not list or type(moment) is not datetime:
        return None
    facts: list[tuple[Any, ...]] = []
    for result in results:
        if type(result) is not dict or not result.keys() <= KNOWN or type(result.get("value")) not in NUMBERS:
            return None
        names, values = (*result,), [*result.values()]
        values[names.index("value")] = None
        kinds = (*map(type, values),)
        if not SCALARS.issuperset(kinds):
            return None
        facts.append((names, (*values,), kinds, repr(values) if float in kinds else ""))  # 0.0 equals -0.0 and 0
    templates = _templates(report["machine"], tuple(facts))
    if templates is None:
        return None
    subject, at = {"reference": f"Patient/{report['subject']}"}, instant(moment)
    return [
        _fill_template(each, results, report, {"meta": meta, "subject": subject, "effectiveDateTime": at})
        for each in templates
    ]


def _fill_template(template: Template, results: list[Element], report: Document, own: Element) -> Element:
    observation, suffix, places = template
    made = {**observation, "id": f"{report['_id']}-{suffix}", **own}
    if "device" in made:
        made["device"] = {**made["device"], "reference": f"Device/{report['_id']}"}
    if "component" in made:
        made["component"] = [{**each} for each in made["component"]]
    for component, place in places:
        part = made if component < 0 else made["component"][component]
        part["valueQuantity"] = {**part["valueQuantity"], "value": results[place]["value"]}
    return made


@lru_cache(maxsize=TEMPLATES)
def _templates(machine: Any, facts: tuple[tuple[Any, ...], ...]) -> list[Template] | None:
    """Return the templates of reports with these facts; None unless each value has exactly one place in them."""
    results = []
    for place, (names, values, *_) in enumerate(facts):
        results.append({**dict(zip(names, values, strict=True)), "value": FIRST_MARK + place})
    observations, _ = Observations({"_id": 0, "machine": machine, "taken_at": ANY_MOMENT}, {}, str).of(results)
    found = []
    for each in observations:
        parts = [(-1, each), *enumerate(each.get("component", ()))]
        marks = ((number, part.get("valueQuantity", {}).get("value", 0)) for number, part in parts)
        places = [(number, mark - FIRST_MARK) for number, mark in marks if mark >= FIRST_MARK]
        made = {"resourceType": "Observation", "id": "", "meta": {}, **each}
        found.append(Template(made, each["id"].partition("-")[2], places))
    return found if sum(len(each.places) for each in found) == len(results) else None
