"""Siblings of the inputs in tests/data/faults: other units, marks, ranges, codes and devices of the same kinds.

A row names a place in the record, as in `results[0].unit`, and its value.
"""

import io
import json
from decimal import Decimal
from typing import Any

import pytest
from support.fhir import bundle, observation, quantity, read_text, report, stored_report
from support.fhir import read as fhir_read
from support.fhir import record_of as fhir_record
from support.hl7 import MSH, OBR, PID, at, read_bytes, record_of

from myhealth.clinical.in_words import range_words, value_text
from myhealth.intake.formats.fhir.reader import read_fhir
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.json_reader import JsonBuffer
from myhealth.intake.formats.registry import FHIR
from myhealth.intake.parsed_record import DECODER
from myhealth.intake.validation import validate_record
from myhealth.reports.documents import encode_json
from myhealth.reports.export.fhir import fhir_bundle
from myhealth.reports.export.fhir_values import measured

MDC, TABLE_78 = "urn:iso:std:iso:11073:10101", "http://terminology.hl7.org/CodeSystem/v2-0078"
WOMAN = "PID|1||M100^^^HOSP^MR||Test^Person||19900101|F"
NO_BIRTH_DATE = "PID|1||M100^^^HOSP^MR||Test^Person"


def obx(value: str = "5", *, kind: str = "NM", code: str = "T^Test^L", unit: str = "", range: str = "", mark: str = ""):
    return f"OBX|1|{kind}|{code}||{value}|{unit}|{range}|{mark}|||F"


def stored(*segments: str, pid: str = WOMAN) -> dict[str, Any]:
    """Return the first result of a message, as it is stored."""
    record = record_of(MSH, pid, OBR, *segments)
    made, faults = validate_record(record)
    assert made is not None and faults == []
    return DECODER.decode(made.results)[0]


UNITS = {
    "a space before the power": ("10 ^3/uL", "10*3/uL", "10^3/uL"),
    "the slash as a component of its own": ("10^9^/L", "10*9/L", "10^9/L"),
    "cubic millimetres": ("10^3/mm^3", "10*3/uL", "10^3/mm^3"),
    "a square": ("m^2", "m2", "m^2"),
    "a code of a device without its system": ("264864", "/min", "264864"),
    "UCUM as the alternate": ("10^3/uL^^L^10*3/uL^^UCUM", "10*3/uL", "10^3/uL"),
}


@pytest.mark.parametrize(("sent", "unit", "text"), UNITS.values(), ids=UNITS)
def test_a_unit_with_marks_of_hl7_is_one_unit(sent: str, unit: str, text: str) -> None:
    result = stored(obx(unit=sent))
    assert (result["unit"], result.get("unit_text")) == (unit, text)


MARKS = {
    "the graver of two": ("H~HH", "HH"),
    "normal beside abnormal": ("N~A", "A"),
    "susceptible beside resistant": ("S~R", "A"),
    "high in words": ("HIGH", "H"),
    "low in words without a code": ("^Low^L", "L"),
    "high in the words of a laboratory's code": ("99^High^L", "H"),
    "very high in words": ("^Critically high^L", "HH"),
    "a laboratory's own H": ("H^Heterozygous^L", None),
    "off the scale": (">", None),
    "two stars": ("**", None),
}


@pytest.mark.parametrize(("sent", "flag"), MARKS.values(), ids=MARKS)
def test_a_mark_gives_no_false_all_clear(sent: str, flag: str | None) -> None:
    assert stored(obx(mark=sent))["flag"] == flag


JUDGED = {
    "words that are not known": ("HIGH!", None, None),
    "a star": ("*", None, None),
    "a laboratory's own H": ("H^Heterozygous^L", None, None),
    "beside one that is known": ("U~*", None, None),
    "a change": ("U", "N", 70),
    "an arrow": ("↑", "H", 70),
    "above normal": ("^Above normal^L", "H", 70),
    "critical": ("^Critical^L", "A", 70),
    "of SNOMED CT": ("281302008^^SCT", "H", 70),
    "normal in words": ("^Within normal limits^L", "N", 70),
}


@pytest.mark.parametrize(("sent", "flag", "low"), JUDGED.values(), ids=JUDGED)
def test_the_catalogue_gives_no_all_clear_where_the_source_says_something_else(sent: str, flag: Any, low: Any) -> None:
    glucose = {"code": "2345-7^Glucose^LN", "unit": "mg/dL"}
    result = stored(obx("120", mark=sent, **glucose))
    assert (result["flag"], result["low"], result.get("range_source")) == (flag, low, "catalogue" if low else None)
    assert stored(obx("120", mark=sent, range="70-99", **glucose))["high"] == 99
    assert stored(obx("0", mark=sent, **glucose))["warning"]


RANGES = {
    "under five years is not five and a half": ("<5 years: 5-10", [{"low": 5, "high": 10, "age_high": 4, "age_unit": "a"}]),
    "under two years": ("<2 years: 5-10", [{"low": 5, "high": 10, "age_high": 24, "age_unit": "mo"}]),
    "up to five years": ("<=5 years: 5-10", [{"low": 5, "high": 10, "age_high": 5, "age_unit": "a"}]),
    "both sexes": ("M: 13-17 F: 12-16", [{"low": 13, "high": 17, "sex": "male"}, {"low": 12, "high": 16, "sex": "female"}]),
    "women alone": ("Women 12-16", [{"low": 12, "high": 16, "sex": "female"}]),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "ranges"), RANGES.values(), ids=RANGES)
def test_conditions_in_words_are_read_alike_of_both_formats(sent: str, ranges: list[dict[str, Any]]) -> None:
    of_hl7 = stored(obx(range=sent))["ranges"]
    (of_fhir,) = fhir_record(observation(referenceRange=[{"text": sent}]))["results"]
    for found in (of_hl7, of_fhir["ranges"]):
        assert [{name: value for name, value in each.items() if name != "text"} for each in found] == ranges
    if len(ranges) > 1:
        assert of_fhir["range_text"] == sent


def test_the_tilde_of_a_range_may_be_the_mark_of_repetitions() -> None:
    result = stored(obx(range="3.5~5.1"))
    assert (result["low"], result["high"]) == (3.5, 5.1)


@pytest.mark.parametrize(
    ("born", "low"), [("20220301", None), ("20231201", 9)], ids=["a child of four", "a child of three"]
)
def test_months_are_not_rounded_to_years(born: str, low: int | None) -> None:
    result = stored(obx(range="0-36 months: 9-11"), pid=f"PID|1||M100^^^HOSP^MR||Test^Person||{born}")
    assert result["low"] == low


def test_the_ends_of_an_age_may_have_units_of_their_own() -> None:
    age = {"low": quantity(6, "mo"), "high": quantity(18, "a")}
    (result,) = fhir_record(observation(referenceRange=[{"high": quantity(9, "mmol/L"), "age": age}]))["results"]
    (found,) = result["ranges"]
    assert (found["age_low"], found["age_low_unit"], found["age_high"]) == (6, "mo", 18)
    assert range_words(found, "mmol/L") == "6 months to 18 years: up to 9 mmol/L"
    (out,) = measured(result)["referenceRange"]
    assert (out["age"]["low"]["code"], out["age"]["high"]["code"]) == ("mo", "a")


def test_the_ends_of_a_range_in_two_units_are_not_compared() -> None:
    ends = {"low": quantity(120, "g/L"), "high": quantity(16, "g/dL")}
    (result,) = fhir_record(observation(valueQuantity=quantity(13, "g/dL"), referenceRange=[ends]))["results"]
    assert (result["low"], result["high"], result["range_text"]) == (None, None, "120 g/L - 16 g/dL")


ENDS: dict[str, tuple[dict[str, Any], str, tuple[Any, Any]]] = {
    "the high end in words alone": ({"low": quantity(135)}, "135-145", (135, 145)),
    "the low end in words alone": ({"high": quantity(5.0)}, "3.50 - 5.00 mmol/L", (3.5, 5)),
    "other ends in words": ({"low": quantity(4), "high": quantity(6)}, "3.0-4.5", (None, None)),
    "another end in words": ({"low": quantity(135), "high": quantity(150)}, "135-145", (None, None)),
    "an end that the words leave open": ({"low": quantity(0), "high": quantity(150)}, "<150", (0, 150)),
    "words that are no range": ({"low": quantity(4), "high": quantity(6)}, "see note", (4, 6)),
}


@pytest.mark.parametrize(("ends", "words", "expected"), ENDS.values(), ids=ENDS)
def test_the_words_of_a_range_complete_its_numbers_or_contradict_them(ends: Any, words: str, expected: Any) -> None:
    (read,) = fhir_read(observation(valueQuantity=quantity(5, "mmol/L"), referenceRange=[{**ends, "text": words}]))
    made, _ = validate_record(read.record)
    assert made is not None
    (result,) = DECODER.decode(made.results)
    assert (result.get("low"), result.get("high")) == expected
    told = [message for _, message, *_ in read.warnings]
    assert [words in message for message in told] == ([True] if expected == (None, None) else [])
    assert words in str(result)


def test_a_bound_with_a_comparator_is_read() -> None:
    bound = {**quantity(16, "mmol/L"), "comparator": "<"}
    (result,) = fhir_record(observation(referenceRange=[{"high": bound}]))["results"]
    assert result["ranges"] == [{"high": 16, "text": "<16"}]


def test_an_age_among_the_results_keeps_the_ranges_of_adults_away() -> None:
    pulse = obx("110", code="8867-4^Heart rate^LN", unit="/min")
    ages = {"5^yr": None, "4^mo": None, "50^Year": 60, "": 60}
    for age, low in ages.items():
        value, _, unit = age.partition("^")
        told = [obx(value, code="30525-0^Age^LN", unit=unit)] if age else []
        assert stored(pulse, *told, pid=NO_BIRTH_DATE)["low"] == low, age
    assert stored(pulse, obx("5", code="30525-0^Age^LN", unit="yr"))["low"] == 60  # the birth date counts


DEVICES = {
    "a reference identifier alone": ("MDC_PULS_OXIM_PULS_RATE^^MDC", "8867-4", "Heart rate"),
    "LOINC beside it": ("150456^MDC_PULS_OXIM_SAT_O2^MDC^59408-5^O2 sat^LN", "59408-5", "Oxygen saturation"),
    "a number without words": ("149530^^MDC", "8867-4", "Heart rate"),
    "no test of the catalogue": ("188420^MDC_TEMP_RECT^MDC", "8332-9", "Body temperature (rectal)"),
    "an arterial pressure is another": ("150033^MDC_PRESS_BLD_ART_SYS^MDC", None, "MDC_PRESS_BLD_ART_SYS"),
}


@pytest.mark.parametrize(("sent", "code", "name"), DEVICES.values(), ids=DEVICES)
def test_a_devices_code_has_a_name_for_people(sent: str, code: str | None, name: str) -> None:
    result = stored(obx(code=sent))
    assert (result["code"], result["name"]) == (code, name)
    coding = {"system": MDC, "code": sent.split("^")[0], "display": sent.split("^")[1]}
    (of_fhir,) = fhir_record(observation(code={"coding": [{k: v for k, v in coding.items() if v}]}))["results"]
    assert (of_fhir["code"], of_fhir["name"]) == (code, name)


NOT_RESULTS = {
    "an order of control material": (PID, f"{OBR}||||Q", obx(), {"quality control": 1}),
    "a patient called quality control": ("PID|1||L1^^^HOSP^MR||QC^Level 1", OBR, obx(), {"quality control": 1}),
    "a control's level": ("PID|1||L1^^^HOSP^MR||CONTROL^LEVEL 2", OBR, obx(), {"quality control": 1}),
    "a calibrator": ("PID|1||L1^^^HOSP^MR||CALIBRATOR^A", OBR, obx(), {"calibration": 1}),
    "a proficiency test": (
        PID,
        OBR.replace("24331-1^Lipid panel^LN", "PT^Proficiency Testing^L"),
        obx(),
        {"quality control": 1},
    ),
    "a result of quality control": (PID, OBR, obx(code="Q^Quality control result^L"), {"quality control": 1}),
    "the patient's sex": (PID, OBR, obx("F", kind="ST", code="46098-0^Sex^LN"), {"patient's data": 1}),
    "the patient's name": (PID, OBR, obx("X", kind="ST", code="^Patient Name^L"), {"patient's data": 1}),
    "the operator": (PID, OBR, obx("X", kind="ST", code="^Operator^L"), {"run setting": 1}),
    "the place of the sample": (PID, OBR, obx("3", code="^Sample Position^L"), {"run setting": 1}),
    "the physician": (PID, OBR, obx("X", kind="ST", code="^Referring physician^L"), {"run setting": 1}),
    "a heading": (PID, OBR, "OBX|1||150020^MDC_PRESS_BLD_NONINV^MDC|||||||F", {"heading": 1}),
}


NOT_RESULTS |= {
    "a number of a control without a name": ("PID|1||QC2^^^LAB^MR", OBR, obx(), {"quality control": 1}),
    "a control in place of a number": ("PID|1||CONTROL LOW", OBR, obx(), {"quality control": 1}),
    "a specimen of control material": (PID, OBR, obx() + "\rSPM|1|||CTL^Control serum^L", {"quality control": 1}),
    "a control as the source of the specimen": (PID, f"{OBR}||||||||CTRL", obx(), {"quality control": 1}),
}


@pytest.mark.parametrize(("pid", "obr", "result", "kinds"), NOT_RESULTS.values(), ids=NOT_RESULTS)
def test_what_is_no_result_is_counted(pid: str, obr: str, result: str, kinds: dict[str, int]) -> None:
    found, skipped = read_bytes("\r".join((MSH, pid, obr, result, "")).encode())
    assert (found, skipped) == ([], kinds)


def left_out(*resources: Any, **changes: Any) -> dict[str, int]:
    """Return what is counted of a Bundle in which nothing is of a patient."""
    found, skipped = read_text(json.dumps({**bundle(*resources), **changes}))
    assert found == []
    return dict(skipped)


LABEL = {"a coded name": {"coding": [{"display": "QC Level"}]}, "words": {"text": "Quality control result"}}


def fhir_patient(**changes: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": "p1", "identifier": [{"value": "7"}], **changes}


def test_quality_control_in_fhir_is_counted_and_no_patients() -> None:
    for name in ({"text": "QC Level 1"}, {"family": "CONTROL", "given": ["LEVEL 2"]}):
        assert left_out(fhir_patient(name=[name]), observation()) == {"Patient": 1, "quality control": 1}
    calibrator = fhir_patient(name=[{"text": "Calibrator A"}])
    assert left_out(calibrator, observation()) == {"Patient": 1, "calibration": 1}
    assert [left_out(observation(code=each)) for each in LABEL.values()] == [{"quality control": 1}] * 2
    assert left_out(observation(category=[{"text": "Quality Control"}])) == {"quality control": 1}
    qc = report("Observation/glucose", code={"text": "QC"})
    assert left_out(qc, observation()) == {"quality control": 2}
    specimen = {"resourceType": "Specimen", "id": "s", "type": {"coding": [{"code": "CTRL"}]}}
    assert left_out(specimen, observation(specimen={"reference": "Specimen/s"})) == {
        "Specimen": 1,
        "quality control": 1,
    }
    assert left_out(observation(specimen={"reference": "#s"}, contained=[specimen])) == {"quality control": 1}
    assert left_out(observation(specimen={"display": "Control serum"})) == {"quality control": 1}


def test_a_control_in_the_report_of_a_patient_is_left_out_of_it() -> None:
    control = observation("qc", code=LABEL["words"])
    found, skipped = read_text(json.dumps(bundle(report("Observation/a", "Observation/qc"), observation("a"), control)))
    assert ([len(each.record["results"]) for each in found], skipped) == ([1], {"quality control": 1})


def test_a_person_whose_name_begins_alike_is_a_patient() -> None:
    assert len(fhir_read(bundle(fhir_patient(name=[{"family": "Control", "given": ["Ann"]}]), observation()))) == 1
    for number in ("QC-10023", "CONTROL7X", "ctrlaltdel"):
        assert len(read_bytes("\r".join((MSH, f"PID|1||{number}", OBR, obx(), "")).encode())[0]) == 1, number
    for name in ("Qcumber^Ann", "Control^Ann", "Blank^Ann", "Controlla^Levelle"):
        found, skipped = read_bytes("\r".join((MSH, f"PID|1||L1^^^HOSP^MR||{name}", OBR, obx(), "")).encode())
        assert (len(found), skipped) == (1, {}), name


ABSENT = {
    "not measured": (obx("***.**"), "not given: not measured, because of an error", "error"),
    "in a structured number": (obx("^***", kind="SN"), "not given: not measured, because of an error", "error"),
    "not asked": ("OBX|1|NM|T^Test^L||||||||N", "not given: not asked", "not-asked"),
    "nothing": (obx(""), "not given", None),
}


@pytest.mark.parametrize(("segment", "words", "code"), ABSENT.values(), ids=ABSENT)
def test_an_absent_value_is_shown_and_exported_as_absent(segment: str, words: str, code: str | None) -> None:
    result = stored(segment)
    assert value_text(result["value"], result.get("absent_reason"), result.get("absent_code")) == words
    out = measured(result)
    assert not [name for name in out if name.startswith("value")]
    assert at(out["dataAbsentReason"], "coding[0].code") == code


@pytest.mark.parametrize(
    ("value", "unit", "flag"),
    [(".8", "mmol/L", "L"), ("1e3", "mg/dL", None), ("<.5", "mg/dL", "L"), ("5,4", "mg/dL", None)],
)
def test_a_number_as_text_is_compared(value: str, unit: str, flag: str | None) -> None:
    made, _ = validate_record(
        {"checkup_for": "x", "checkup_type": "T", "checkup_report": "", "disease": "",
         "results": [{"code": "2345-7", "name": "Glucose", "value": value, "unit": unit}]}
    )  # fmt: skip
    assert made is not None
    (result,) = DECODER.decode(made.results)
    assert (result["value"], result["flag"]) == (value, flag)


def test_a_moment_as_iso_8601_writes_it_is_read() -> None:
    for text, moment, precision in (
        ("2026-11-20T09:00:00+05:30", "2026-11-20T09:00:00+05:30", None),
        ("2026-11-20 09:00", "2026-11-20T09:00:00+00:00", None),
        ("2026-11-20T09:00:00.25Z", "2026-11-20T09:00:00.250000+00:00", None),
        ("2026-11-20", "2026-11-20T12:00:00+00:00", "day"),
    ):
        record = record_of(MSH, PID, OBR.replace("20261120090000", text), obx())
        assert (record["taken_at"], record.get("taken_precision")) == (moment, precision)


def test_a_patient_with_an_insurers_number_alone_is_told() -> None:
    ((found,), _) = read_bytes("\r".join((MSH, "PID|1||77^^^AOK^HC||Test^Person", OBR, obx(), "")).encode())
    said = "has only numbers that are not a patient's, such as an insurer's; their kinds: HC"
    assert found.faults == [("PID-3", said)]


def test_digits_of_a_decimal_comma_stay() -> None:
    assert stored(obx("5,10"))["value"] == Decimal("5.10")


FOCUS = {
    "another patient": ({"reference": "Patient/fetus"}, "person other than the patient"),
    "a person in it": ({"reference": "#her"}, "person other than the patient"),
    "a device": ({"type": "Device", "display": "Pacemaker"}, "Device"),
    "the subject itself": ({"reference": "Patient/p1"}, ""),
    "a part of the body": ({"display": "Left knee"}, ""),
}


@pytest.mark.parametrize(("focus", "about"), FOCUS.values(), ids=FOCUS)
def test_a_result_about_somebody_else_is_not_the_patients(focus: dict[str, str], about: str) -> None:
    contained = [{"resourceType": "RelatedPerson", "id": "her"}]
    found, skipped = read_text(json.dumps(observation(focus=[focus], contained=contained)))
    assert (len(found), dict(skipped)) == ((0, {f"Observation about a {about}": 1}) if about else (1, {}))


def test_the_etag_of_a_version_is_its_number() -> None:
    assert fhir_record(observation(meta={"versionId": 'W/"3"'}))["details"]["version"] == "3"


def test_an_error_of_a_fhir_record_names_its_element() -> None:
    (found,) = fhir_read(observation(subject=...))
    assert found.locate("checkup_for") == "Observation.subject"


def test_who_interprets_a_report_did_not_measure_its_results() -> None:
    report = {"resourceType": "DiagnosticReport", "id": "r", "status": "final", "code": {"text": "Panel"},
              "subject": {"reference": "Patient/p1"}, "result": [{"reference": "#a"}], "contained": [observation("a")],
              "performer": [{"display": "Lab"}], "resultsInterpreter": [{"display": "Dr X"}]}  # fmt: skip
    (read,) = fhir_read(report)
    bundle = fhir_bundle([stored_report(read)], {"_id": 1, "subject": "s", "username": "p1", "full_name": ""})
    _, top, inside = (each["resource"] for each in bundle["entry"])
    assert [each["display"] for each in (*top["performer"], *top["resultsInterpreter"])] == ["Lab", "Dr X"]
    assert [each["display"] for each in inside["performer"]] == ["Lab"]


def sent_out(read: Any) -> list[dict[str, Any]]:
    """Return the resources of the export of a record, which is valid FHIR R4, without the Patient."""
    patient = {"_id": 1, "subject": "s", "username": "p1", "full_name": ""}
    bundle = fhir_bundle([stored_report(read)], patient)
    models = pytest.importorskip("fhir.resources.R4B.bundle", reason="the extra fhir is not installed")
    models.Bundle.model_validate_json(encode_json(bundle))
    return [each["resource"] for each in bundle["entry"][1:]]


LOCAL = "tag:myhealth.example,2026:codes:"
SYSTEMS = {
    "MDC": (MDC, "150021"), "SCT": ("http://snomed.info/sct", "271649006"), "SNOMED-CT": ("http://snomed.info/sct", "1"),
    "I10": ("http://hl7.org/fhir/sid/icd-10", "E11.9"), "ICD10CM": ("http://hl7.org/fhir/sid/icd-10-cm", "E11.9"),
    "NPU": ("http://npu-terminology.org", "NPU02319"), "LN": ("http://loinc.org", "2093-3"), "L": (f"{LOCAL}L", "K"),
    "99MRC": (f"{LOCAL}99MRC", "K"), "C4": ("http://www.ama-assn.org/go/cpt", "82465"), "HL70136": (f"{TABLE_78[:-4]}0136", "Y"),
    "2.16.840.1.113883.6.96": ("http://snomed.info/sct", "2"), "1.2.3.4": ("urn:oid:1.2.3.4", "K"),
    "JC10": ("urn:oid:1.2.392.200119.4.504", "4A025"), "ISO+": (f"{LOCAL}ISO%2B", "K"),
}  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_hl7_in_and_fhir_out_keep_the_system_of_every_code(name: str) -> None:
    uri, code = SYSTEMS[name]
    coded = f"{code}^Words^{name}"
    segments = (
        MSH, WOMAN, f"OBR|1|P1|F1|{coded}|||20261120090000{'|' * 24}{coded}",
        f"OBX|1|CWE|{coded}^{code}^Words^99ALT||{coded}||||||F||||||{coded}|||{coded}", f"SPM|1|||{coded}",
    )  # fmt: skip
    ((read,), _) = read_bytes("\r".join((*segments, "")).encode())
    report, found = sent_out(read)
    places = (report["code"], report["contained"][0]["reasonCode"][0], found["code"], found["valueCodeableConcept"],
              found["method"], found["bodySite"], found["contained"][0]["type"])  # fmt: skip
    for place in places:
        assert (place["coding"][0]["system"], place["coding"][0]["code"]) == (uri, code), place
    assert found["code"]["coding"][1]["system"] == f"{LOCAL}99ALT"


def test_an_absent_reason_in_another_system_comes_out_as_it_went_in() -> None:
    flavors = {"system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "code": "ASKU"}
    own = {"system": "http://lab.example/why", "code": "HEM", "display": "Haemolysed"}
    for reason in ({"coding": [flavors]}, {"coding": [own], "text": "Sample haemolysed"}, {"coding": [flavors, own]}):
        sent = observation(valueQuantity=..., dataAbsentReason=reason)
        (read,) = fhir_read(sent)
        (result,) = read.record["results"]
        assert "absent_coded" in result
        assert sent_out(read)[1]["dataAbsentReason"] == reason
    assert value_text("ASKU", "ASKU", "ASKU") == "not given: asked, but not known"
    assert value_text("no value", "Haemolysed", "not-performed") == "not given: not measured (Haemolysed)"


def test_a_contained_device_keeps_its_name_type_and_numbers() -> None:
    device = {"resourceType": "Device", "id": "d", "identifier": [{"system": "urn:dev", "value": "D-77"}],
              "deviceName": [{"name": "M7", "type": "model-name"}], "type": {"coding": [{"system": "urn:t", "code": "43"}]}}  # fmt: skip
    (read,) = fhir_read(observation(device={"reference": "#d"}, contained=[device]))
    assert read.record["machine"] == "D-77"
    (out,) = sent_out(read)[1]["contained"]
    assert device["identifier"][0] in out["identifier"]
    assert (out["deviceName"][0]["name"], out["type"]) == ("M7", device["type"])


def test_an_order_gives_its_reasons_and_what_the_laboratory_should_know() -> None:
    reason = {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10", "code": "R73.9"}], "text": "High sugar"}
    order = {"resourceType": "ServiceRequest", "id": "o", "status": "active", "intent": "order",
             "subject": {"reference": "Patient/p1"}, "reasonCode": [reason], "note": [{"text": "fasting"}]}  # fmt: skip
    (read,) = fhir_read(observation(basedOn=[{"reference": "#o"}], contained=[order]))
    report = sent_out(read)[0]
    (out,) = report["contained"]
    assert (out["reasonCode"], out["note"]) == ([reason], [{"text": "fasting"}])
    assert report["basedOn"] == [{"reference": "#order"}]


PAGES = {
    "the last page": ({"total": 7, "link": [{"relation": "previous", "url": "x"}]}, "1 of 7 entries; 6 are missing"),
    "a page that does not count": ({"link": [{"relation": "next", "url": "x"}]}, "one page; more are missing"),
    "all": ({"total": 1, "link": [{"relation": "self", "url": "x"}]}, ""),
    "a collection": ({"type": "collection", "total": 7}, ""),
}


@pytest.mark.parametrize(("changes", "told"), PAGES.values(), ids=PAGES)
def test_missing_pages_are_told(changes: dict[str, Any], told: str) -> None:
    entry = [
        {"resource": observation()},
        {"resource": {"resourceType": "Patient", "id": "p1"}, "search": {"mode": "include"}},
    ]
    bundle = {"resourceType": "Bundle", "type": "searchset", "entry": entry, **changes}
    for nested in (False, True):
        whole = (
            {"resourceType": "Bundle", "type": "batch-response", "entry": [{"resource": bundle}]} if nested else bundle
        )
        dump = Dump(FHIR)
        assert len(list(read_fhir(JsonBuffer(io.BytesIO(json.dumps(whole).encode())), dump))) == 1
        assert [told in notice for notice in dump.notices] == ([True] if told else [])


def test_a_panel_of_panels_goes_out_without_a_member_that_is_not_there() -> None:
    def panel(name: str, member: str) -> dict[str, Any]:
        return observation(
            name, code={"text": name}, valueQuantity=..., hasMember=[{"reference": f"Observation/{member}"}]
        )

    entries = [{"resource": each} for each in (panel("outer", "inner"), panel("inner", "a"), observation("a"))]
    (read,) = fhir_read({"resourceType": "Bundle", "type": "collection", "entry": entries})
    outer, inner = (each for each in sent_out(read) if "hasMember" in each)
    assert [[*each] for each in (*outer["hasMember"], *inner["hasMember"])] == [["reference"]] * 2


def test_one_year_is_one_year() -> None:
    assert range_words({"low": 5, "high": 9, "age_high": 1}, "g/L") == "up to 1 year: 5 to 9 g/L"
    assert range_words({"low": 5, "high": 9, "age_high": 11}, "g/L") == "up to 11 years: 5 to 9 g/L"
    assert range_words({"high": 9, "age_low": 1, "age_unit": "mo", "age_high": 1.1}, "g/L").startswith(
        "1 to 1.1 months"
    )


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("Entered-In-Error", "entered-in-error"),
        ("FINAL", None),
        ("complete", "unknown"),
        ("", "unknown"),
        (..., "unknown"),
    ],
)
def test_a_status_that_is_not_known_is_said_to_be_unknown(sent: Any, status: str | None) -> None:
    assert fhir_record(observation(status=sent)).get("status") == status


@pytest.mark.parametrize(("letter", "status"), [("K", "unknown"), ("f", None), ("", None), ("w", "entered-in-error")])
def test_a_letter_that_is_no_status_is_said_to_be_unknown(letter: str, status: str | None) -> None:
    assert stored(f"OBX|1|NM|T^Test^L||5||||||{letter}").get("status") == status
    record = record_of(MSH, WOMAN, f"{OBR}{'|' * 18}{letter}", obx())
    assert record.get("status") == (status if letter not in ("w",) else "unknown")
