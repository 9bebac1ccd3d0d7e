"""Siblings of the inputs in tests/data/faults in how systems exchange results: requests, references, whole messages."""

from typing import Any

import pytest
from support.fhir import bundle, observation, quantity, record_of
from support.fhir import read as fhir_read
from support.hl7 import MSH, OBR, PID, obx
from support.hl7 import read as hl7_read
from support.hl7 import record_of as hl7_record
from support.tables import read as read_table

from myhealth.intake.validation import validate_record

PATIENTS = [{"resourceType": "Patient", "id": name, "identifier": [{"value": name}]} for name in ("p1", "p2")]


@pytest.mark.parametrize(
    ("condition", "identifier"),
    [
        ("identifier=urn:h|7", {"system": "urn:h", "value": "7"}),
        ("active=true&identifier=urn:h%7C7", {"system": "urn:h", "value": "7"}),
        ("identifier=7", {"value": "7"}),
        ("identifier=7&identifier=8", None),
        ("identifier=7,8", None),
        ("identifier:not=7", None),
        ("identifier=urn:h|", None),
    ],
)
def test_a_conditional_reference_names_one_patient_or_nobody(condition: str, identifier: Any) -> None:
    (parsed,) = fhir_read(observation(subject={"reference": f"Patient?{condition}"}))
    found = (parsed.record.get("patient") or {}).get("identifiers")
    assert found == (identifier and [identifier])
    assert [name for name, _ in parsed.faults] == ([] if identifier else ["Observation.subject.reference"])


@pytest.mark.parametrize(
    ("method", "url", "resource", "said"),
    [
        ("delete", "Observation/a", None, "its method is not one of FHIR"),
        ("PUT", "Observation/b", {}, "the resource has another id"),
        ("PUT", "Observation/b", {"id": ...}, "the resource has another id"),
        ("PUT", "Observation/a", {}, None),
        ("PUT", "Observation?identifier=urn:h|7", {}, None),
        ("GET", "Observation/a", None, None),
    ],
)
def test_a_request_that_cannot_be_carried_out_is_told(method: str, url: str, resource: Any, said: str | None) -> None:
    sent = {} if resource is None else {"resource": observation("a", **resource)}
    entry = {"request": {"method": method, "url": url}, **sent}
    found = [
        fault
        for each in fhir_read({"resourceType": "Bundle", "type": "batch", "entry": [entry]})
        for fault in each.faults
    ]
    assert found == ([("Bundle.entry.request", f"{method} {url} is not carried out: {said}")] if said else [])


@pytest.mark.parametrize(
    ("whose", "faults"), [("p1", []), ("p2", [("Encounter.subject", "is another one than the record's")])]
)
def test_an_encounter_of_another_patient_is_told(whose: str, faults: Any) -> None:
    encounter = {"resourceType": "Encounter", "id": "e", "subject": {"reference": f"Patient/{whose}"}}
    (parsed,) = fhir_read(bundle(*PATIENTS, encounter, observation(encounter={"reference": "Encounter/e"})))
    assert parsed.faults == faults


def test_what_a_result_of_a_specimen_may_suffer_from_is_kept() -> None:
    specimen = {"resourceType": "Specimen", "id": "s", "type": {"text": "Serum"}, "status": "unsatisfactory",
                "condition": [{"text": "haemolysed"}]}  # fmt: skip
    found = record_of(bundle(specimen, observation(specimen={"reference": "Specimen/s"})))["details"]["specimen"]
    assert [each["text"] for each in found["notes"]] == ["status: unsatisfactory", "condition: haemolysed"]
    spm = "SPM|1|S1||BLD^Blood^HL70487" + "|" * 17 + "RH^Haemolysed^HL70490|||CLOT^Clotted^HL70493"
    found = hl7_record(MSH, PID, OBR, obx("NM", "5"), spm)["details"]["specimen"]
    assert [each["text"] for each in found["notes"]] == ["rejected: Haemolysed", "condition: Clotted"]


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        ({"effectiveDateTime": ..., "effectiveTiming": {"code": {"text": "BID"}}}, "effectiveTiming", "has no moment that is read"),
        (
            {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/observation-replaces",
                            "valueReference": {"reference": "Observation/old"}}]},
            "extension",
            "replaces Observation/old, which is shown until",
        ),
    ],
)  # fmt: skip
def test_what_is_not_read_of_an_observation_is_told(changes: dict[str, Any], place: str, said: str) -> None:
    (parsed,) = fhir_read(observation(**changes))
    assert [(name, said in words) for name, words in parsed.warnings] == [(f"Observation.{place}", True)]


@pytest.mark.parametrize(
    ("born", "is_told"), [("20201202", True), ("20201120", False), ("2020", False), ("202012", True)]
)
def test_a_result_from_before_the_birth_is_told(born: str, is_told: bool) -> None:
    (parsed,) = hl7_read(
        MSH, f"{PID.rsplit('||', 1)[0]}||Test^Person||{born}", OBR.replace("2026", "2020"), obx("NM", "5")
    )
    checked, faults = validate_record(parsed.record)
    assert checked is not None, faults
    assert ["lies before the patient's birth" in said for _, said in checked.warnings] == [True] * is_told


TWO_PATIENTS = "is there for two patients before the order: whose it is, is not said"
CONTINUED = "continues a message, which is not put together here: send it whole"


@pytest.mark.parametrize(
    ("segments", "faults"),
    [
        ((PID, PID.replace("M100", "M200"), OBR, obx("NM", "5")), [("PID", TWO_PATIENTS)]),
        ((PID, "PV1|1|O", PID.replace("M100", "M200"), OBR, obx("NM", "5")), [("PID", TWO_PATIENTS)]),
        ((PID, PID, OBR, obx("NM", "5")), []),
        ((PID, OBR, obx("TX", "long"), "ADD|er"), [("ADD", CONTINUED)]),
        ((PID, OBR, obx("NM", "7"), "DSC|12|I"), [("DSC", CONTINUED)]),
        ((PID, OBR, obx("NM", "7"), "DSC|"), []),
    ],
)
def test_a_message_that_may_be_anothers_or_goes_on_is_told(segments: tuple[str, ...], faults: Any) -> None:
    (parsed,) = hl7_read(MSH, *segments)
    assert parsed.faults == faults
    (again,) = hl7_read(*parsed.raw.strip().split("\r"))  # a retry
    assert again.faults == faults


def test_the_orders_of_two_patients_are_each_ones_own() -> None:
    found = hl7_read(MSH, PID, OBR, obx("NM", "5"), PID.replace("M100", "M200"), OBR, obx("NM", "6"))
    assert [(each.record["checkup_for"], each.faults) for each in found] == [("M100", []), ("M200", [])]


@pytest.mark.parametrize(
    ("words", "code", "is_taken"),
    [("Fahrenheit", "Cel", False), ("pounds", "kg", False), ("Milligrams per deciliter", "mmol/L", False),
     ("grams", "kg", False), ("feet", "m", False), ("Degrees Celsius", "Cel", True), ("kilograms", "kg", True)],
)  # fmt: skip
def test_a_unit_in_whole_words_may_contradict_its_code(words: str, code: str, is_taken: bool) -> None:
    (parsed,) = fhir_read(observation(code={"text": "Test"}, valueQuantity=quantity(38, words, code)))
    assert (parsed.record["results"][0]["value"] == 38) is is_taken
    assert ["is not taken" in each[1] for each in parsed.warnings] == [True] * (not is_taken)


def test_marks_that_contradict_each_other_have_no_direction() -> None:
    marks = [{"coding": [{"code": code}]} for code in ("L", "H")]
    assert record_of(observation(interpretation=marks))["results"][0]["flag"] == "A"
    assert hl7_record(MSH, PID, OBR, obx("NM", "5", f8="LL~H"))["results"][0]["flag"] == "A"


@pytest.mark.parametrize("kind", ["Insurance number", "Account No.", "Member ID", "Policy"])
def test_a_number_that_words_call_an_insurers_is_nobodys(kind: str) -> None:
    patient = {"resourceType": "Patient", "id": "p1", "identifier": [{"value": "bholanath", "type": {"text": kind}}]}
    (parsed,) = fhir_read(bundle(patient, observation()))
    assert [name for name, _ in parsed.faults] == ["Observation.subject"]


def test_what_a_spreadsheet_made_a_date_of_is_told() -> None:
    wide = read_table(
        "patient,date,Casts\nbholanath,2026-11-20T09:00:00Z,5-Jan\nbholanath,2026-11-21T09:00:00Z,Jan-05\n"
    )
    long = read_table("patient,taken_at,name,code,value,unit\nbholanath,2026-11-20T09:00:00Z,Glucose,Jul-45,99,mg/dL\n")
    told = [(name, said.partition("'")[2][:6]) for each in (*wide, *long) for name, said in each.warnings]
    assert told == [("Casts", "5-Jan'"), ("Casts", "Jan-05"), ("code", "Jul-45")]
