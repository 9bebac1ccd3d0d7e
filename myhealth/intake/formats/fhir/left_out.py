"""Find the resources that are no examination of the patient: quality control, calibration, others.

A resource that is marked as test data (HTEST) is taken, which is told: public examples are.
"""

from collections.abc import Iterator
from typing import Any

from myhealth.intake.formats.controls import (
    kind_of_examination,
    kind_of_measurement,
    kind_of_name,
    kind_of_specimen,
)
from myhealth.intake.formats.fhir.element import Element, parse_address, person_name
from myhealth.intake.formats.terminology import joined_name

PERSONS = ("Patient", "RelatedPerson", "Practitioner", "PractitionerRole", "Group")
THINGS = ("Device", "Location", "Substance", "Specimen")


def kind_of_resource(resource: dict[str, Any]) -> str:
    """Return what a resource is if it is not of a patient, "" if it is."""
    part, kind = Element(resource, "", []), resource.get("resourceType")
    if kind == "Patient":
        return _first(map(kind_of_name, _names(part)))
    if kind == "Specimen":
        return _first(map(kind_of_specimen, _labels(part.part("type"))))
    if kind not in ("Observation", "DiagnosticReport"):
        return ""
    tell = kind_of_measurement if kind == "Observation" else kind_of_examination
    found = _first(map(tell, _labels(part.part("code")))) or kind_of_specimen(part.part("specimen").text("display"))
    categories = part.parts("category") if not found and "category" in resource else ()
    if "contained" in resource and not found and kind == "Observation":
        inside = (each.data for each in part.parts("contained"))
        found = _first(kind_of_resource(each) for each in inside if each.get("resourceType") == "Specimen")
    return found or _first(kind_of_examination(label) for each in categories for label in _labels(each))


def focus_of(resource: dict[str, Any]) -> str:
    """Return the reference to what an Observation is about, if that is not its subject, the patient in whose record it
    is; else "".

    Worked example: a fetus, in the record of its mother.
    """
    part = Element(resource, "", [])
    inside = {each.text("id"): each.text("resourceType") for each in part.parts("contained")}
    for each in part.parts("focus"):
        text = each.text("reference").strip()
        address = parse_address(text)
        kind = inside.get(text[1:], "") if text.startswith("#") else address[2] if address else each.text("type")
        if kind in PERSONS and text != part.part("subject").text("reference"):
            return "person other than the patient"
        if kind in THINGS:
            return kind
    return ""


def _names(patient: Element) -> Iterator[str]:
    for each in patient.parts("name"):
        yield joined_name(" ".join(each.texts("family")), " ".join(each.texts("given")))
        yield person_name(Element({"name": [each.data]}, "", []))


def _labels(concept: Element) -> Iterator[str]:
    yield concept.text("text")
    for each in concept.parts("coding"):
        yield each.text("display") or each.text("code")


def _first(kinds: Iterator[str]) -> str:
    return next(filter(None, kinds), "")
