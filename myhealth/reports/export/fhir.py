"""Reports as FHIR R4: a Bundle of the Patient, DiagnosticReports and their Observations, which are panels with their
components or members, and single results. Pure.

Resources that came in as FHIR go out the same; myhealth/README.md names the exceptions. Source: HL7 FHIR R4 (4.0.1),
"Bundle", "Patient", "DiagnosticReport", "Observation", "Specimen", "Device".
"""

import uuid
from collections.abc import Callable, Iterable
from typing import Any

from myhealth.clinical.coding_systems import LOINC, OUR_DISEASE, OUR_REPORT, OUR_SERIAL, OUR_SUBJECT, OUR_USERNAME
from myhealth.clinical.status import WITHDRAWN
from myhealth.clinical.status import WORDS as STATUS_WORDS
from myhealth.reports.documents import Document
from myhealth.reports.export.fhir_values import (
    Element,
    clean,
    coding_elements,
    compact,
    concept_element,
    concept_elements,
    date_time,
    details_of,
    effective,
    has_role,
    identifier_elements,
    instant,
    interpretation_elements,
    measured,
    notes,
    parts,
    party,
)
from myhealth.reports.trends import readable_results

CATEGORY_URI = "http://terminology.hl7.org/CodeSystem/observation-category"
CATEGORY_WORDS = {"vital-signs": "Vital Signs", "laboratory": "Laboratory", "exam": "Exam"}
# FHIR's profile of vital signs, and the codes of the same quantities.
VITAL_SIGNS = frozenset(
    ("85353-1", "9279-1", "8867-4", "2708-6", "59408-5", "8310-5", "8331-1", "8302-2", "9843-4", "29463-7", "39156-5")
) | frozenset(("85354-9", "8480-6", "8462-4", "8478-0"))
SYSTOLIC, DIASTOLIC = "8480-6", "8462-4"
BLOOD_PRESSURE = {
    "name": "Blood pressure",
    "components": True,
    "codings": [{"system": LOINC, "code": "85354-9", "display": "Blood pressure panel with all children optional"}],
}
MISSING = {"display": "members that did not come along"}
STATUSES = ("registered", "preliminary", "final", "amended", "corrected", "cancelled", "unknown")
# Of a report's statuses that a result cannot have.
RESULT_STATUS = {None: "final", "partial": "preliminary", "appended": "amended"}
# What a component cannot have, so that its Observation must have it.
NOT_OF_COMPONENTS = (
    *("status", "taken_at", "taken_precision", "taken_until", "issued_at", "category", "specimen", "method"),
    *("body_site", "device", "performers", "notes", "identifiers", "group"),
)
Numbered = tuple[int, Element]


class Observations:
    """Makes the Observations of one report. `address`: the URN of an entry by its id."""

    def __init__(self, report: Element, subject: Element, address: Callable[[str], str]) -> None:
        self._report = report
        self._subject = subject
        self._address = address
        self._details = details_of(report)

    def of(self, results: list[Element]) -> tuple[list[Element], list[str]]:
        """Return the Observations, and the addresses of those that no other contains, in the order of the results."""
        left = {
            number if type(number := each.get("number")) is int else place: each
            for place, each in enumerate(results, 1)
            if each.get("status") != WITHDRAWN
        }
        panels = [each for each in parts(self._details.get("panels")) if isinstance(each, dict)]
        panels = [each for each in panels if isinstance(each.get("name"), str)]
        if pair := _blood_pressure(left):
            panels.append(BLOOD_PRESSURE)
            left |= {number: left[number] | {"group": BLOOD_PRESSURE["name"]} for number in pair}
        found: list[Element] = []
        top: dict[str, tuple[int, Element]] = {}
        for place, panel in enumerate(panels, 1):
            inside = [(number, each) for number, each in left.items() if each.get("group") == panel["name"]]
            for number, _ in inside:
                del left[number]
            first = min((number for number, _ in inside), default=0)
            # ours keeps its number whatever other panels come later
            made = self._panel(f"p{0 if panel is BLOOD_PRESSURE else place}", panel, inside)
            found += made
            outer = top.get(panel["group"]) if isinstance(panel.get("group"), str) else None
            if outer is None:
                top[panel["name"]] = (first, made[0])
            else:
                self._add_member(outer[1], made[0])
        for number, each in left.items():
            found.append(self._result(number, each))
            top[f"\n{number}"] = (number, found[-1])
        order = sorted(top.values(), key=lambda each: each[0])
        return found, [self._address(each["id"]) for _, each in order]

    def _add_member(self, panel: Element, member: Element) -> None:
        panel["hasMember"] = [each for each in panel.get("hasMember", ()) if each != MISSING]
        panel["hasMember"].append({"reference": self._address(member["id"])})

    def _panel(self, name: str, panel: Element, inside: list[Numbered]) -> list[Element]:
        """Return the Observation of a panel, then those of its members. Its own value is the first result."""
        if panel.get("valued") and inside:
            (number, own), *inside = inside
            made = self._result(number, own)
        else:
            of_all = inside[0][1] if panel.get("components") and inside else {}
            facts = {each: of_all[each] for each in NOT_OF_COMPONENTS if each in of_all} | panel
            code = compact(coding=coding_elements(panel.get("codings")), text=clean(panel["name"]) or "Panel")
            made = self._observation(
                name, facts, {"code": code, **compact(interpretation=interpretation_elements(panel))}
            )
        if panel.get("components"):
            made["component"] = [measured(each) for _, each in inside]
            made |= compact(note=[note for each in (made, *made["component"]) for note in each.pop("note", [])])
            if not inside:
                del made["component"]
            return [made]
        members = [self._result(number, each) for number, each in inside]
        for each in members:
            self._add_member(made, each)
        if not members and not panel.get("valued"):
            made["hasMember"] = [MISSING]
        return [made, *members]

    def _result(self, number: int, result: Element) -> Element:
        return self._observation(str(number), result, measured(result))

    def _observation(self, name: str, facts: Element, measured: Element) -> Element:
        """Return an Observation with these facts; facts that it lacks are the report's."""
        specimen, contained = _specimen_element(facts.get("specimen") or self._details.get("specimen"))
        device, instrument = self._device(facts.get("device") or self._details.get("device"))
        inherited = self._report.get("status")
        status = facts.get("status") or RESULT_STATUS.get(inherited, inherited)
        own_time = facts if facts.get("taken_at") else self._report
        people = parts(facts.get("performers")) or parts(self._details.get("performers"))
        issued = facts.get("issued_at") or self._report.get("issued_at")
        return {
            "resourceType": "Observation",
            "id": f"{self._report['_id']}-{name}",
            **compact(contained=[*contained, *instrument], identifier=identifier_elements(facts.get("identifiers"))),
            "status": status if status in STATUSES else "unknown",
            "category": self._category(facts),
            "subject": self._subject,
            **effective(own_time, self._report.get("taken_offset")),
            **compact(
                issued=instant(issued),
                performer=[found for each in people if not has_role(each) and (found := party(each))],
                bodySite=concept_element(facts.get("body_site")),
                method=concept_element(facts.get("method")),
                specimen=specimen,
                device=device,
                note=[*notes(facts.get("notes")), *measured.pop("note", [])],
            ),
            **measured,
        }

    def _category(self, facts: Element) -> list[Element]:
        """Return the categories as they were sent, else the one that the code implies."""
        if own := concept_elements(facts.get("category")):
            return own
        shared = concept_elements(self._details.get("category"))
        if any(each.get("system") == CATEGORY_URI for found in shared for each in found.get("coding", ())):
            return shared
        codes = (
            {facts["code"] if isinstance(facts["code"], str) else None}
            if "code" in facts
            else {each.get("code") for each in coding_elements(facts.get("codings"))}
        )
        laboratory = facts.get("specimen") or None not in codes
        code = "vital-signs" if codes & VITAL_SIGNS else "laboratory" if laboratory else "exam"
        return [{"coding": [{"system": CATEGORY_URI, "code": code, "display": CATEGORY_WORDS[code]}]}]

    def _device(self, device: Any) -> tuple[Element, list[Element]]:
        """Return the Reference to the machine, and the contained Device if it has more than a serial or a name."""
        serial = clean(self._report.get("machine"))
        own = [{"system": OUR_SERIAL, "value": serial}] if serial else []
        found = compact(identifier=own[0] if own else None)
        if not isinstance(device, dict):
            return found | compact(display=clean(device)), []
        contained = {"resourceType": "Device", "id": "device"} | compact(
            identifier=[*own, *identifier_elements(device.get("identifiers"))],
            deviceName=[{"name": name, "type": "other"}] if (name := clean(device.get("text"))) else [],
            type_=compact(coding=coding_elements(device.get("codings"))),
        )
        return found | {"reference": "#device"}, [contained]


def _specimen_element(specimen: Any) -> tuple[Element, list[Element]]:
    """Return the Reference to a specimen, and the Specimen where it has more than words."""
    if not isinstance(specimen, dict):
        return compact(display=clean(specimen)), []
    collection = compact(
        collectedDateTime=date_time(specimen.get("collected_at")), bodySite=concept_element(specimen.get("body_site"))
    )
    found = {"resourceType": "Specimen", "id": "specimen"} | compact(
        identifier=identifier_elements(specimen.get("identifiers")),
        type_=concept_element({"text": specimen.get("text"), "codings": specimen.get("codings")}),
        collection=collection,
        note=notes(specimen.get("notes")),
    )
    return compact(reference="#specimen", display=clean(specimen.get("text"))), [found]


def _blood_pressure(results: dict[int, Element]) -> list[int]:
    """Return the numbers of the two values of a blood pressure, if both are of one measurement of their own, and have
    nothing that a component cannot have."""
    found = [[number for number, each in results.items() if each.get("code") == code] for code in (SYSTOLIC, DIASTOLIC)]
    pair = [numbers[0] for numbers in found if len(numbers) == 1]
    plain = all(name not in results[number] for number in pair for name in NOT_OF_COMPONENTS)
    return pair if len(pair) == 2 and plain else []


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
    details, status, disease = details_of(report), report.get("status"), clean(report["disease"])
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
    """Return the order of the check-up, if the source gave its reason or information for the laboratory."""
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
