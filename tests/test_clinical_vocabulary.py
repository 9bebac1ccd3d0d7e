"""Statuses, interpretations, coding systems, absent reasons and device codes: the vocabulary of sources in ours."""

from typing import Any

import pytest

from myhealth.clinical import absent_reasons, coding_systems, interpretations, mdc, status
from myhealth.clinical.units import is_ucum
from myhealth.intake.formats.hl7v2.coded import is_loinc


@pytest.mark.parametrize(
    ("found", "flag"),
    [("L", "L"), ("HH", "HH"), ("N", "N"), ("a", "A"), ("LU", "LL"), ("HX", "H"), ("<", None), (">", None), ("U", None),
     ("I", None), ("POS", "A"), ("NR", "N"), ("R", "A"), ("SDD", None), ("UNE", None), ("QUES", None), ("", None)],
)  # fmt: skip
def test_an_interpretation_has_our_flag_or_none(found: str, flag: str | None) -> None:
    assert interpretations.flag_of([{"code": found}]) == flag
    assert interpretations.flag_of([{"code": found, "system": "urn:my-own"}]) is None


def test_the_first_interpretation_with_a_flag_gives_it_and_one_in_text_counts() -> None:
    assert interpretations.flag_of([{"code": "U"}, {"code": "H"}, {"code": "A"}]) == "H"
    assert interpretations.flag_of([{"text": "HH"}]) == "HH"
    assert interpretations.flag_of([]) is None


@pytest.mark.parametrize(
    ("found", "words"),
    [({"code": "R"}, "resistant"), ({"code": "<", "text": "x"}, "below what the instrument can measure"),
     ({"code": "R", "system": "urn:my-own", "display": "Red"}, "Red"), ({"code": "QUES"}, "QUES"), ({"text": "odd"}, "odd"),
     ({"code": "H", "system": "HL70078"}, "high"), ({}, "")],
)  # fmt: skip
def test_an_interpretation_is_told_in_words(found: dict[str, Any], words: str) -> None:
    assert interpretations.interpretation_text(found) == words


@pytest.mark.parametrize(
    ("name", "uri"),
    [("LN", "http://loinc.org"), ("MDC", "urn:iso:std:iso:11073:10101"), ("SCT", "http://snomed.info/sct"),
     ("I10", "http://hl7.org/fhir/sid/icd-10"), ("NPU", "http://npu-terminology.org"), ("UCUM", "http://unitsofmeasure.org"),
     ("sct", "http://snomed.info/sct"), ("2.16.840.1.113883.6.96", "http://snomed.info/sct"),
     ("urn:oid:2.16.840.1.113883.6.1", "http://loinc.org"), ("1.2.3", "urn:oid:1.2.3"), ("https://loinc.org/", "http://loinc.org"),
     ("http://other.example/codes/", "http://other.example/codes/"), ("HL70078", "http://terminology.hl7.org/CodeSystem/v2-0078"),
     ("99MRC", "tag:myhealth.example,2026:codes:99MRC"), ("L", "tag:myhealth.example,2026:codes:L"),
     ("my codes", "tag:myhealth.example,2026:codes:my%20codes"), ("", "")],
)  # fmt: skip
def test_a_coding_system_has_one_uri(name: str, uri: str) -> None:
    assert coding_systems.uri_of(name) == uri
    assert coding_systems.uri_of(uri) == uri


@pytest.mark.parametrize("name", ["LN", "MDC", "SCT", "I10", "I10C", "NPU", "HL70078", "99MRC", "L", "my codes", "ä^b"])
def test_a_coding_system_goes_back_to_its_name(name: str) -> None:
    assert coding_systems.v2_name_of(coding_systems.uri_of(name)) == name


def test_local_codes_are_told_from_those_of_the_world() -> None:
    assert coding_systems.is_local(coding_systems.uri_of("99MRC"))
    assert not coding_systems.is_local(coding_systems.uri_of("SCT"))
    assert coding_systems.v2_name_of("http://other.example") == ""


LIFE = ["registered", "partial", "preliminary", "final", "amended", "entered-in-error"]


@pytest.mark.parametrize("new", range(len(LIFE)))
@pytest.mark.parametrize("old", range(len(LIFE)))
def test_statuses_are_ordered_as_a_result_lives(new: int, old: int) -> None:
    assert status.compare_status(LIFE[new], LIFE[old]) == (new > old) - (new < old)


@pytest.mark.parametrize(
    ("new", "old", "order"),
    [(None, "final", 0), (None, "preliminary", 1), ("corrected", "amended", 0), ("unknown", "final", 0), ("final", "unknown", 0),
     ("final", "cancelled", -1), ("entered-in-error", "cancelled", 1), ("corrected", None, 1)],
)  # fmt: skip
def test_no_status_is_final_and_an_unknown_one_tells_nothing(new: Any, old: Any, order: int) -> None:
    assert status.compare_status(new, old) == order


@pytest.mark.parametrize(
    ("code", "of_result", "of_report"),
    [("F", "final", "final"), ("P", "preliminary", "preliminary"), ("C", "corrected", "corrected"), ("X", "entered-in-error", "cancelled"),
     ("D", "entered-in-error", "unknown"), ("W", "entered-in-error", "unknown"), ("A", "amended", "partial"), ("I", "registered", "registered"),
     ("R", "preliminary", "preliminary"), ("p", "preliminary", "preliminary"), ("B", "amended", "unknown"), ("", None, None),
     ("?", "unknown", "unknown")],
)  # fmt: skip
def test_statuses_of_hl7_v2_are_those_of_fhir(code: str, of_result: str | None, of_report: str | None) -> None:
    assert status.result_status(code) == of_result
    assert status.report_status(code) == of_report


def test_each_status_but_final_has_words() -> None:
    assert {each for each in (*status.RANKS, "unknown", None) if not status.status_text(each)} == {"final", None}


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [("not-performed", "broken", "not measured"), ("NASK", "", "not asked"), ("Unknown", "", "not known"), ("x", "broken", "broken"),
     (None, "", "no value")],
)  # fmt: skip
def test_an_absent_value_says_why(code: str | None, reason: str, words: str) -> None:
    assert absent_reasons.absent_reason_text(code, reason) == words


@pytest.mark.parametrize(
    ("code", "reference", "unit", "loinc"),
    [("150021", "", "mm[Hg]", "8480-6"), ("150022", "MDC_PRESS_BLD_NONINV_DIA", None, "8462-4"), ("149546", "", None, "8867-4"),
     ("150456", "", "%", "59408-5"), ("150344", "", "Cel", "8310-5"), ("", "MDC_TEMP", "Cel", "8310-5"), ("188736", "", "kg", "29463-7"),
     ("149522", "MDC_PULS_RATE", None, "8867-4"), ("160184", "", "mg/dL", "41653-7"), ("160184", "", "mmol/L", "14743-9"),
     ("150020", "", None, "85354-9"), ("1", "", None, None), ("", "", None, None), ("67975", "MDC_ATTR_TIME_ABS", None, None)],
)  # fmt: skip
def test_the_code_of_a_device_has_the_loinc_of_its_trend(
    code: str, reference: str, unit: str | None, loinc: str | None
) -> None:
    assert mdc.mdc_loinc(code, reference, unit) == loinc


@pytest.mark.parametrize(
    ("code", "reference", "unit"),
    [("266016", "", "mm[Hg]"), ("", "MDC_DIM_MMHG", "mm[Hg]"), ("264864", "", "/min"), ("262688", "", "%"), ("268192", "", "Cel"),
     ("268224", "MDC_DIM_FAHR", "[degF]"), ("263875", "", "kg"), ("99", "", None)],
)  # fmt: skip
def test_the_unit_of_a_device_is_ucum(code: str, reference: str, unit: str | None) -> None:
    assert mdc.mdc_unit(code, reference) == unit


def test_the_tables_of_devices_hold_true_loinc_codes_ucum_units_and_partitions() -> None:
    assert all(map(is_loinc, {*mdc.LOINC_OF.values(), *mdc.MOLAR.values()}))
    assert all(map(is_ucum, mdc.UCUM_OF.values()))
    assert {int(code) >> 16 for code in mdc.LOINC_OF if code.isdigit()} == {
        2
    }  # supervisory control and data acquisition
    assert {int(code) >> 16 for code in mdc.UCUM_OF if code.isdigit()} == {4}  # dimensions


@pytest.mark.parametrize(
    ("text", "found"), [("MDC_TEMP", True), ("MDC_DIM_MMHG", True), ("mdc_temp", False), ("MDC", False)]
)
def test_a_reference_identifier_is_recognised(text: str, found: bool) -> None:
    assert mdc.is_mdc_reference(text) == found
