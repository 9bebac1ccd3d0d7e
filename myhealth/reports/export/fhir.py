"""Reports as FHIR R4: a Bundle of the Patient, DiagnosticReports and their Observations. Pure.

What came in as FHIR goes out the same; myhealth/README.md names what does not. Source: HL7 FHIR R4 (4.0.1), "Bundle",
"Patient", "DiagnosticReport".
"""

import uuid
from collections.abc import Callable, Iterable
from typing import Any

from myhealth.clinical.coding_systems import OUR_DISEASE, OUR_REPORT, OUR_SUBJECT, OUR_USERNAME
from myhealth.clinical.status import WORDS as STATUS_WORDS
from myhealth.reports.documents import Document
from myhealth.reports.export.fhir_observations import Observations
from myhealth.reports.export.fhir_values import (
    Element,
    clean,
    coding_elements,
    compact,
    concept_elements,
    date_time,
    effective,
    has_role,
    identifier_elements,
    instant,
    notes,
    parts,
    party,
)
from myhealth.reports.trends import readable_results

NAMESPACE = uuid.UUID("6e0ff3b0-2c0c-5c3f-9a55-6a2f6f6f1c0e")
# DiagnosticReport.note of R5, as an extension for R4.
NOTE_EXTENSION = "http://hl7.org/fhir/5.0/StructureDefinition/extension-DiagnosticReport.note"


def fhir_bundle(reports: Iterable[Document], patient: Document, *, next_url: str | None = None) -> Element:
    """Return a Bundle of type collection: the patient, then each report, followed by its Observations.

    `next_url`: the absolute address of the next page. Its last member is `entry`.
    """
    bundle: Element = {"resourceType": "Bundle", "type": "collection"}
    if next_url:
        bundle["link"] = [{"relation": "next", "url": next_url}]
    entries = [entry for report in reports for entry in report_entries(report, patient)]
    return bundle | {"entry": [_entry(patient_resource(patient)), *entries]}


def report_entries(report: Document, patient: Document) -> list[Element]:
    """Return the entries of one report in a Bundle: the report, followed by its Observations."""
    subject = {
        "reference": _address(f"patient-{patient['_id']}"),
        "identifier": {"system": OUR_USERNAME, "value": patient["username"]},
        "display": clean(patient["full_name"]) or patient["username"],
    }
    return [_entry(each) for each in report_resources(report, subject, _address)]


def report_resources(report: Document, subject: Element, address: Callable[[str], str]) -> list[Element]:
    """Return the DiagnosticReport of a report, then its Observations. `address`: of an Observation, by its id."""
    observations, top = Observations(report, subject, address).of(readable_results(report))
    found = _report(report, subject) | compact(result=[{"reference": each} for each in top])
    if "category" not in found and observations:
        found["category"] = observations[0]["category"]
    return [found, *observations]


def _entry(resource: Element) -> Element:
    name = f"patient-{resource['id']}" if resource["resourceType"] == "Patient" else resource["id"]
    return {"fullUrl": _address(name), "resource": resource}


def patient_resource(patient: Document) -> Element:
    """Return the Patient; the username is the first identifier."""
    own = [
        {"use": "usual", "system": OUR_USERNAME, "value": patient["username"]},
        {"use": "secondary", "system": OUR_SUBJECT, "value": patient["subject"]},
    ]
    sex = patient.get("sex")
    return {"resourceType": "Patient", "id": str(patient["_id"])} | compact(
        identifier=[*own, *identifier_elements(patient.get("identifiers"))],
        name=[{"text": name}] if (name := clean(patient["full_name"])) else [],
        gender=sex if sex in ("male", "female", "other", "unknown") else "",
        birthDate=date_time(patient.get("birth_date"))[:10],
    )


def _report(report: Document, subject: Element) -> Element:
    """Return the DiagnosticReport, without empty elements, as FHIR requires."""
    details: Any = report.get("details")
    details = details if isinstance(details, dict) else {}
    status, disease = report.get("status"), clean(report["disease"])
    coded = [{"coding": [{"system": OUR_DISEASE, "display": disease}], "text": disease}] if disease else []
    people = performers_of(report, details)
    order = _service_request(details, subject)
    extensions = [{"url": NOTE_EXTENSION, "valueAnnotation": note} for note in notes(details.get("notes"))]
    return {
        "resourceType": "DiagnosticReport",
        "id": str(report["_id"]),
        **compact(contained=[order] if order else [], extension=extensions),
        "identifier": [
            {"use": "usual", "system": OUR_REPORT, "value": str(report["_id"])},
            *identifier_elements(details.get("identifiers")),
        ],
        **compact(
            basedOn=[{"reference": "#order"}] if order else [], category=concept_elements(details.get("category"))
        ),
        "status": status if status in STATUS_WORDS else "final" if status is None else "unknown",
        "code": compact(
            coding=coding_elements(details.get("codings")), text=clean(report["checkup_type"]) or "Check-up"
        ),
        "subject": subject,
        **effective(report, report.get("taken_offset")),
        "issued": instant(report.get("issued_at") or report["updated_at"]),
        **compact(
            performer=[party(each) for each in people if not has_role(each)],
            resultsInterpreter=[party(each) for each in people if has_role(each)],
            conclusion=clean(report["checkup_report"]),
            conclusionCode=[*coded, *concept_elements(details.get("conclusion_codes"))],
        ),
    }


def performers_of(report: Document, details: Element) -> list[Any]:
    """Return who measured: everybody whom the source named, and `taken_by`, which a person may have corrected."""
    found = [each for each in parts(details.get("performers")) if party(each)]
    taken_by = clean(report["taken_by"])
    names = {party(each).get("display") for each in found}
    return [taken_by, *found] if taken_by and taken_by not in names else found


def _service_request(details: Element, subject: Element) -> Element:
    """Return the order of the check-up, if the source told its reason or what the laboratory should know."""
    said = compact(
        reasonCode=concept_elements(details.get("reasons")), note=notes([{"text": details.get("clinical_information")}])
    )
    if not said:
        return {}
    order = {"resourceType": "ServiceRequest", "id": "order", "status": "unknown", "intent": "order"}
    return order | {"subject": subject, **said}


def _address(id_: str) -> str:
    """Return the URN of an entry, the same in every Bundle. Worked example: "5-1" gives urn:uuid:…"""
    return f"urn:uuid:{uuid.uuid5(NAMESPACE, id_)}"
