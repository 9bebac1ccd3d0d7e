"""Reading HL7 v2: values come out as they were sent; none is lost or invented."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hl7 import INDIA, MSH, OBR, OBX, PID, SAMPLE, R, obx, read, read_bytes, record_of, result_of, results_of

from myhealth.intake.formats.hl7v2.coded import is_loinc
from myhealth.intake.validation import validate_record

# --- The sample that HL7 wrote --------------------------------------------------------------------------------------


def test_the_example_of_hl7_comes_out_as_it_is() -> None:
    (reading,), skipped = read_bytes(SAMPLE.read_bytes())
    assert reading.faults == []
    assert validate_record(reading.record)[1] == []
    assert (reading.patient_field, reading.full_name, reading.line) == ("PID-3", "EVE EVERYWOMAN", 3)
    common = {"name": "GLUCOSE", "value": 182, "unit": "mg/dl", "low": 70, "high": 105, "flag": "H"}
    local = "tag:myhealth.example,2026:codes:POST%2012H%20CFST%3AMCNC%3APT%3ASER%2FPLAS%3AQN"
    assert reading.record == {
        "checkup_for": "555-44-4444",
        "patient": {"identifiers": [{"value": "555-44-4444"}], "name": "EVE EVERYWOMAN", "sex": "female"},
        "machine": "GHH LAB@ELAB-3",
        "record_id": "1045813^GHH LAB",
        "taken_at": "2002-02-15T07:30:00+00:00",
        "taken_by": None,  # the names stand in OBR-15 and OBR-30, one field before where they belong
        "checkup_type": "GLUCOSE",
        "disease": "",
        "checkup_report": "",
        "details": {
            "codings": [{"system": "http://loinc.org", "code": "1554-5", "display": "GLUCOSE"}],
            "identifiers": [
                {"value": "845439", "system": "GHH OE", "type": "PLAC"},
                {"value": "1045813", "system": "GHH LAB", "type": "FILL"},
            ],
            "updated_at": "2002-02-15T09:30:00+00:00",
        },
        "results": [
            {**common, "code": "1554-5"},
            # 1553 would have the check digit 7: it is no code of LOINC
            {
                **common,
                "code": None,
                "other_code": "1553-5",
                "code_system": "POST 12H CFST:MCNC:PT:SER/PLAS:QN",
                "codings": [{"system": local, "code": "1553-5", "display": "GLUCOSE"}],
            },
        ],
    }
    assert not skipped


@pytest.mark.parametrize("size", [1, 2, 7, 100])
@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n", b"\r\r\n"], ids=repr)
def test_line_ends_and_parts_of_any_size_make_no_difference(end: bytes, size: int) -> None:
    data = SAMPLE.read_bytes()
    expected = read_bytes(data)[0][0]
    for framed in (data, b"\x0b" + data + b"\x1c\r", b"\xef\xbb\xbf" + data):
        (reading,), _ = read_bytes(framed.replace(b"\r", end), size=size)
        assert (reading.record, reading.raw) == (expected.record, expected.raw)
        assert reading.line == (5 if end == b"\r\r\n" else 3)


# --- Values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("NM", "182", 182),
        ("NM", "5.10", Decimal("5.10")),
        ("NM", "5.1", 5.1),
        ("NM", "+5", 5),
        ("NM", "007", 7),
        ("NM", "-3.50", Decimal("-3.50")),
        ("NM", ".5", 0.5),
        ("NM", "5.", 5),
        ("NM", "0", 0),
        ("NM", "00.0", 0.0),
        ("NM", " 12 ", 12),
        ("NM", "1E2", Decimal("1E+2")),
        ("NM", "0.1000000000000000055511151231257827", Decimal("0.1000000000000000055511151231257827")),
        ("NM", "1" * 30, "1" * 30),
        ("NM", "<5", "<5"),
        ("NM", "5,1", 5.1), ("NM", "1,234", "1,234"), ("NM", "<5,1", "<5.1"), ("NM", "0,125", 0.125), ("SN", "^5,1", 5.1),
        ("NM", "clotted", "clotted"),
        ("NM", ".", "."),
        ("NM", ".e0", ".e0"),
        ("NM", "٣", "٣"),
        ("NM", "5~6", "5, 6"),
        ("SN", "^182", 182),
        ("SN", "=^182", 182),
        ("SN", "182", 182),
        ("SN", ">^100", ">100"),
        ("SN", "<=^0.50", "<=0.50"),
        ("SN", "<>^5", "<>5"),
        ("SN", "^1^:^128", "1:128"),
        ("SN", "^10^-^20", "10-20"),
        ("SN", "^2^+", "2+"),
        ("SN", "^many", "many"),
        ("FN", "^182", 182),
        ("FN", "182", 182),
        ("XX", "some text", "some text"),
        ("", "5.1", 5.1),
        ("ST", "5.10", "5.10"),
        ("ST", "a^b & c", "a^b & c"),
        ("ST", r"pH \T\ salt \S\ \F\ \R\ \E\ ", r"pH & salt ^ | ~ " + "\\"),
        ("TX", "one~two", "one\ntwo"),
        ("FT", r"one\.br\two \H\bold\N\ \.in+4\ ", "one\ntwo bold  "),
        ("CE", "260385009^Negative^SCT", "Negative"),
        ("CWE", "260385009^^SCT^NEG^none seen^L", "none seen"),
        ("CWE", "260385009^^SCT^^^^^^not a trace", "not a trace"),
        ("CNE", "260385009", "260385009"),
        ("CE", "POS^Positive~X^Rare", "Positive, Rare"),
        ("DT", "20161230", "2016-12-30"),
        ("TS", "201612", "2016-12"),
        ("DTM", "20161230091500+0100", "2016-12-30T09:15:00+01:00"),
        ("TS", "20161330", "20161330"),
        ("TM", "0915", "09:15:00"),
        ("TM", "2515", "2515"),
        ("DR", "20160101^201612", "2016-01-01 to 2016-12"),
        ("NR", "1.50^3", "1.50-3"),
        ("CQ", "5.10^mg", Decimal("5.10")),
        ("SN", "<^.5", "<0.5"),
        ("SN", "<=0.50", "<=0.50"),
        ("NM", ".8", 0.8),
        ("ST", "+++", "+++"),
        ("ST", "-", "-"),
        ("ID", "007", "007"),
        ("NA", "1^2^3", "1, 2, 3"),
        ("CX", "123^^^HOSP", "123"),
        ("ED", "LAB^AP^PDF^Base64^JVBERi0=", "document (AP/PDF)"),
    ],
)  # fmt: skip
def test_a_value_of_any_type_is_kept(kind: str, text: str, value: Any) -> None:
    result = result_of(obx(kind, text))
    assert (result["value"], type(result["value"])) == (value, type(value))
    assert str(result["value"]) == str(value)
    assert "absent_reason" not in result


def test_a_file_that_is_not_kept_is_told() -> None:
    (found,) = read(MSH, PID, OBR, OBX, obx("ED", "LAB^AP^PDF^Base64^JVBERi0="))
    assert found.warnings == [("OBX[2]-5", "the attached file is not kept")]
    assert read(MSH, PID, OBR, OBX, obx("ED", ""))[0].warnings == []


@pytest.mark.parametrize(("text", "status"), [("", "F"), ('""', "F"), ("", "X"), (" ", "F")])
def test_an_empty_value_is_no_value(text: str, status: str) -> None:
    result = result_of(obx("NM", text, f11=status))
    assert (result["value"], result["absent_reason"]) == ("no value", "no value")


def test_what_could_not_be_obtained_keeps_what_was_sent() -> None:
    result = result_of(obx("ST", "haemolysed", f11="X"))
    assert (result["value"], result["absent_reason"]) == ("haemolysed", "no value")


@pytest.mark.parametrize(
    ("text", "low", "high", "words"),
    [
        ("70-105", 70, 105, ""), ("70_105", 70, 105, ""), ("(70-105)", 70, 105, "(70-105)"), ("-", None, None, ""),
        ("> OR = 60", 60, None, "> OR = 60"), ("up to 250", None, 250, "up to 250"), ("03.9-05.5", 3.9, 5.5, ""), ("70 - 105", 70, 105, ""), ("70 to 105", 70, 105, ""),
        ("70–105", 70, 105, ""), ("3.10-6.20", Decimal("3.10"), Decimal("6.20"), ""), ("-5-5", -5, 5, ""),
        ("-5--1", -5, -1, ""), ("10..20", 10, 20, ""), ("70-105 mg/dl", 70, 105, ""), ("<5", None, 5, "<5"),
        ("<=5", None, 5, "<=5"), ("≤5.0", None, 5.0, "≤5.0"), (">60", 60, None, ">60"), (">=60", 60, None, ">=60"),
        ("≥60", 60, None, "≥60"), ("", None, None, ""), ('""', None, None, ""), ("negative", None, None, "negative"),
        ("M 13-17, F 12-15", None, None, "M 13-17, F 12-15"), ("105-70", None, None, "105-70"),
        ("70-", None, None, "70-"), ("70-105 mmol/L", None, None, "70-105 mmol/L"), ("1-2-3", None, None, "1-2-3"),
        ("-105", None, None, "-105"),
    ],
)  # fmt: skip
def test_a_reference_range_is_low_and_high_or_words(text: str, low: Any, high: Any, words: str) -> None:
    result = result_of(obx("NM", "5", f6="mg/dl", f7=text))
    assert (result["low"], result["high"], result.get("range_text", "")) == (low, high, words)
    assert ("range_text" in result) == bool(words)


@pytest.mark.parametrize(
    ("field", "flag"),
    [("H", "H"), ("L", "L"), ("HH", "HH"), ("LL", "LL"), ("N", "N"), ("A", "A"), ("AA", "A"), ("HU", "HH"),
     ("LU", "LL"), (">", None), ("<", None), ("POS", "A"), ("NEG", "N"), ("R", "A"), ("S", "N"), ("U", None),
     ("H^High^HL70078", "H"), ("U~H", "H"), ("n", "N"), ("", None), ("?", None)],
)  # fmt: skip
def test_a_flag_is_one_of_six(field: str, flag: str | None) -> None:
    assert result_of(obx("NM", "5", f8=field))["flag"] == flag


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("718-7^Hb^LN", {"code": "718-7", "name": "Hb"}),
        ("718-7^Hb^LOINC", {"code": "718-7", "name": "Hb"}),
        ("HB^Haemoglobin^L^718-7^Hb^LN", {"code": "718-7", "name": "Haemoglobin"}),
        ("718-7^Hb", {"code": "718-7", "name": "Hb"}),
        ("718-8^Hb", {"code": None, "other_code": "718-8", "name": "Hb"}),
        ("718-7^Hb^L", {"code": None, "other_code": "718-7", "code_system": "L", "name": "Hb"}),
        ("718-7^Hb^99LAB", {"code": None, "other_code": "718-7", "code_system": "99LAB", "name": "Hb"}),
        ("1234^Hb^SCT", {"code": None, "other_code": "1234", "code_system": "SCT", "name": "Hb"}),
        ("718-7", {"code": "718-7", "name": "Haemoglobin"}),
        ("^Hb", {"code": None, "name": "Hb"}),
        ("WBC^White cells^LN", {"code": None, "other_code": "WBC", "code_system": "LN", "name": "White cells"}),
        ("718-8^Hb^LN", {"code": "718-8", "name": "Hb"}),
        ("^^^GLU", {"code": None, "other_code": "GLU", "name": "GLU"}),
        ("", {"code": None, "name": "Lipid panel"}),
        ("X^^L^Y^Other^L", {"code": None, "other_code": "X", "code_system": "L", "name": "Other"}),
    ],
)  # fmt: skip
def test_a_code_is_loinc_or_named_with_its_system(field: str, expected: dict[str, Any]) -> None:
    result = result_of(obx("NM", "5", f3=field))
    assert {name: result[name] for name in result if name in ("code", "other_code", "code_system", "name")} == expected


@pytest.mark.parametrize(
    "code", ["2093-3", "718-7", "15074-8", "8480-6", "1554-5", "85354-9", "29463-7", "35200-5", "100000-9"]
)
def test_the_check_digit_of_loinc_is_known(code: str) -> None:
    assert is_loinc(code)
    assert not any(is_loinc(f"{code[:-1]}{digit}") for digit in range(10) if str(digit) != code[-1])
    assert not is_loinc(code[:-2])


def test_a_unit_is_kept_as_sent() -> None:
    result = result_of(obx("NM", "5", f6="10*3/uL^thousands per microlitre^UCUM"))
    assert (result["unit"], result["unit_text"]) == ("10*3/uL", "thousands per microlitre")
    assert result_of(obx("NM", "5", f6=r"mg\T\x"))["unit"] == "mg&x"
    assert result_of(obx("NM", "5"))["unit"] is None


def test_the_lines_of_a_text_are_one_result_and_stand_in_the_report() -> None:
    lines = [obx("TX", "Heart normal."), obx("TX", ""), obx("TX", "Lungs clear."), obx("TX", "Other", f3="U^Other^L")]
    record = record_of(
        MSH, PID, OBR, *lines, obx("ST", "E. coli"), obx("ST", "none", f8="A"), obx("ST", "short", f3="V^Short")
    )
    assert [(r["name"], r["value"]) for r in record["results"]] == [
        ("Test", "Heart normal.\n\nLungs clear."), ("Other", "Other"), ("Test", "E. coli"), ("Test", "none"),
        ("Short", "short")]  # fmt: skip
    assert record["checkup_report"] == "Test:\nHeart normal.\n\nLungs clear.\nOther: Other"


def test_a_text_too_long_for_a_value_stands_in_the_report() -> None:
    record = record_of(MSH, PID, OBR, obx("FT", "long " * 3000), obx("NM", "5"))
    assert [result["value"] for result in record["results"]] == [5]
    assert record["checkup_report"].count("long") == 3000


def test_what_was_withdrawn_says_so() -> None:
    results = results_of(*(obx("NM", str(at), f3=f"{at}^T{at}^L", f11=status) for at, status in enumerate("DWXCF")))
    withdrawn = "entered-in-error"
    assert [each.get("status") for each in results] == [withdrawn, withdrawn, withdrawn, "corrected", None]


# --- Records --------------------------------------------------------------------------------------------------------


def test_an_order_with_its_results_is_a_record() -> None:
    text = obx("ST", "clear", f3="5767-9^Appearance^LN")
    (reading,) = read(
        MSH, PID, "PV1|1|O", "ORC|RE", OBR, "NTE|1||fasting", OBX, "NTE|1||checked~twice", text, zone=INDIA
    )
    assert reading.record == {
        "checkup_for": "M100",
        "machine": "HC9000@PUNE",
        "record_id": "F1^LAB",
        "taken_at": "2026-11-20T09:00:00+05:30",
        "taken_by": None,
        "checkup_type": "Lipid panel",
        "disease": "",
        "checkup_report": "",
        "patient": {
            "identifiers": [{"value": "M100", "system": "HOSP", "type": "MR"}],
            "name": "Bholanath Kulkarni",
        },
        "details": {
            "codings": [{"system": "http://loinc.org", "code": "24331-1", "display": "Lipid panel"}],
            "notes": [{"text": "fasting"}],
            "identifiers": [
                {"value": "P1", "system": "ORD", "type": "PLAC"},
                {"value": "F1", "system": "LAB", "type": "FILL"},
            ],
            "updated_at": "2026-11-20T09:15:00+05:30",
        },
        "results": [
            {"code": "2093-3", "name": "Cholesterol", "value": Decimal("5.10"), "unit": "mmol/L", "low": 3.0, "high": 5.2,
             "flag": "N", "notes": [{"text": "checked\ntwice"}]},
            {**R, "code": "5767-9", "name": "Appearance", "value": "clear"},
        ],
    }  # fmt: skip
    assert (reading.index, reading.line, reading.full_name) == (0, 5, "Bholanath Kulkarni")


@pytest.mark.parametrize(
    ("obr", "record_id"),
    [("OBR|1|P1^ORD|F1^LAB", "F1^LAB"), ("OBR|1|P1^ORD|F1", "F1"), ("OBR|1|P1^ORD", "P1^ORD"), ("OBR|1", "MSG1-1"),
     ('OBR|1|P1|""', "P1")],
)  # fmt: skip
def test_the_number_of_a_record(obr: str, record_id: str) -> None:
    assert read(MSH, PID, obr, OBX)[0].record["record_id"] == record_id


def test_orders_without_a_number_or_with_the_same_have_records_of_their_own() -> None:
    found = read(MSH, PID, "OBR|1||F1", OBX, "OBR|1||F1", OBX, "OBR|1", OBX, PID, "OBR|1||F1", OBX, "OBR|1", OBX)
    expected = ["F1", "F1#2", "MSG1-3", "F1#4", "MSG1-5"]
    assert [reading.record["record_id"] for reading in found] == expected
    assert [read(reading.raw)[0].record["record_id"] for reading in found] == expected
    assert read(MSH, PID, OBR, OBX, "ZMH|7|R", "OBR|2", OBX)[1].record["record_id"] == "MSG1-2"  # it is not ours
    assert "record_id" not in read(MSH.replace("MSG1", ""), PID, "OBR|1", OBX)[0].record


@pytest.mark.parametrize(
    ("observed", "ordered", "sent", "taken_at", "said"),
    [
        ("20261120091403", "", "", "2026-11-20T09:14:03+05:30", None),
        ("20261120091403.25-0800", "", "", "2026-11-20T09:14:03.250000-08:00", -480),
        ("", "202611200914", "", "2026-11-20T09:14:00+05:30", None),
        ("", "2026112009", "", "2026-11-20T09:00:00+05:30", None),
        ("", "20261120", "", "2026-11-20T12:00:00+00:00", "day"),
        ("", "20261120000000^D", "", "2026-11-20T12:00:00+00:00", "day"),
        ("", "202611", "", "2026-11-01T12:00:00+00:00", "month"),
        ("", "2026", "", "2026-01-01T12:00:00+00:00", "year"),
        ("", "", "20261120091500", None, "unknown"),  # when it was sent is not when it was measured
        ("", "202611200914", "20261120091500+0100", "2026-11-20T09:14:00+01:00", 60),
        ("", "20261120091403Z", "", "2026-11-20T09:14:03+00:00", 0),
        ("00000000", "20261120", "", "2026-11-20T12:00:00+00:00", "day"),
        ("20261320", "20261120", "", None, "OBX[1]-14"),
        ("", "20261120", "2026-13-20", "2026-11-20T12:00:00+00:00", "MSH-7"),
        ("20261120091403+9900", "", "", None, "OBX[1]-14"),
        ("", "", "", None, "unknown"),
    ],
)  # fmt: skip
def test_when_it_was_taken(observed: str, ordered: str, sent: str, taken_at: str | None, said: Any) -> None:
    head = MSH.replace("20261120091500", sent)
    (reading,) = read(head, PID, f"OBR|1||F1|X^Test|||{ordered}", obx("NM", "5", f14=observed), zone=INDIA)
    assert reading.record.get("taken_at") == taken_at
    if said is None or isinstance(said, int) or said.islower():
        offset, precision = (said, None) if isinstance(said, int) else (None, said)
        assert (reading.record.get("taken_offset"), reading.record.get("taken_precision")) == (offset, precision)
        assert (reading.faults, reading.warnings) == ([], [])
    else:
        assert [name for name, _ in reading.faults + reading.warnings] == [said]


@pytest.mark.parametrize(
    ("pid", "numbers", "checkup_for", "place"),
    [
        ("PID|1||S1^^^GOV^SS~M100^^^HOSP^MR~P7^^^X^PI", ["HOSP M100", "X P7", "GOV S1"], "M100", "PID-3"),
        ("PID|1||S1^^^GOV^SS~M100^^^HOSP^MR~P7", ["HOSP M100", "GOV S1", " P7"], "P7", "PID-3"),
        ("PID|1|EXT|M1||Kulkarni^Bholanath", [" M1"], "M1", "PID-3"),
        ("PID|1|EXT||ALT1~ALT2|Kulkarni&van^^", [" EXT"], "EXT", "PID-2"),
        ('PID|1||""^^^X~M2', [" M2"], "M2", "PID-3"),
        ("PID|1||||Kulkarni^Bholanath", [], None, "PID-3"),
        ("PID|1|||BED", [], None, "PID-3"),
        ("PID|1||M1~M1", [" M1"], "M1", "PID-3"),
        ("PID|1||4711^^^INSURER^HC", [], None, "PID-3"),
        ("PID|1|EXT|4711^^^INSURER^HC", [], None, "PID-3"),
        ("PID|1||4711^^^PAYER&1.2.3&ISO^SN~99001^^^HOSP&1.2.4&ISO^mr", ["urn:oid:1.2.4 99001"], "99001", "PID-3"),
        ("PID|1||7^^^&https://h.example/mrn&URI^MR", ["https://h.example/mrn 7"], "7", "PID-3"),
        ("PID|1||V1^^^HOSP^VN~A1^^^HOSP^AN~M1^^^HOSP^MR", ["HOSP M1"], "M1", "PID-3"),
    ],
)  # fmt: skip
def test_the_patient_is_known_by(pid: str, numbers: list[str], checkup_for: str | None, place: str) -> None:
    (reading,) = read(MSH, pid, OBR, OBX)
    found = reading.record.get("patient", {}).get("identifiers", [])
    assert [f"{each.get('system', '')} {each['value']}" for each in found] == numbers
    assert (reading.record.get("checkup_for"), reading.patient_field) == (checkup_for, place)


@pytest.mark.parametrize(
    ("pid", "about"),
    [
        ("PID|1||M1||Kulkarni^Bholanath||19830719145307|F", ("Bholanath Kulkarni", "1983-07-19", "female")),
        ("PID|1||M1||Kulkarni&van^^~X^Y||198307|M", ("Kulkarni", "1983-07", "male")),
        ("PID|1||M1||~X^Y||1983|A", ("Y X", "1983", "other")),
        ("PID|1||M1||||19831330|U", (None, None, None)),
        ("PID|1||M1||||00000000|N", (None, None, None)),
        ('PID|1||M1||""||""|""', (None, None, None)),
    ],
)
def test_what_is_known_of_the_patient(pid: str, about: tuple[str | None, ...]) -> None:
    patient = record_of(MSH, pid, OBR, OBX)["patient"]
    assert tuple(patient.get(name) for name in ("name", "birth_date", "sex")) == about


def test_each_patient_of_a_message_has_his_own_records() -> None:
    second = "PID|2||M200"
    found = read(
        MSH, "SFT|x", PID, "NTE|1||of the first", OBR, OBX, "OBR|2||F2", OBX, second, "PV1|1", "OBR|1||F3", OBX
    )
    assert [(reading.record["checkup_for"], reading.record["record_id"]) for reading in found] == [
        ("M100", "F1^LAB"), ("M100", "F2"), ("M200", "F3")]  # fmt: skip
    assert [reading.record["details"].get("notes") for reading in found] == [*[[{"text": "of the first"}]] * 2, None]
    assert [name.split("|")[0] for name in found[2].raw.split("\r")] == ["MSH", "SFT", "PID", "PV1", "OBR", "OBX", ""]
    assert "of the first" in found[1].raw
    assert "F1" not in found[1].raw
    assert "patient" not in read(MSH, OBR, OBX)[0].record


@pytest.mark.parametrize(
    ("person", "taken_by"),
    [
        ("17^Rao^Ayush^^^^MD", "Ayush Rao"), ("17", "17"), ("^Rao", "Rao"), ("17^Rao&van^Ayush", "Ayush Rao"), ("", None),
        ("~17^Rao^Ayush", "Ayush Rao"),
    ],
)  # fmt: skip
def test_who_took_it(person: str, taken_by: str | None) -> None:
    assert record_of(MSH, PID, f"{OBR}|||||||||{person}", OBX)["taken_by"] == taken_by
    late = f"{OBR}{'|' * 25}{person.replace('^', '&') if '&' not in person else person}"
    assert record_of(MSH, PID, late, OBX)["taken_by"] == taken_by


def test_the_one_who_ordered_comes_before_the_one_who_judged() -> None:
    assert record_of(MSH, PID, f"{OBR}|||||||||16^A^B{'|' * 16}32&C&D", OBX)["taken_by"] == "B A"


@pytest.mark.parametrize(
    ("application", "facility", "instruments", "machine"),
    [
        ("HC9000", "PUNE", ["HC-1^x"], "HC-1"), ("HC9000", "PUNE", ["HC-1", "", "HC-1"], "HC-1"),
        ("HC9000", "PUNE", ["HC-1", "HC-2"], "HC9000@PUNE"), ("HC9000^x", "", [""], "HC9000"), ("", "PUNE", [""], None),
        ("HC/9", "PUNE", [""], None), ("HC9000", "PUNE", ["A/B"], None),
    ],
)  # fmt: skip
def test_the_machine_is_known_by_a_serial(
    application: str, facility: str, instruments: list[str], machine: str | None
) -> None:
    head = MSH.replace("HC9000|PUNE", f"{application}|{facility}")
    record = record_of(head, PID, OBR, *(obx("NM", "5", f18=each) for each in instruments))
    assert record.get("machine") == machine


@pytest.mark.parametrize(
    ("ordered", "observed", "status", "of_results"),
    [
        ("P", ["P", "F", "C"], "preliminary", [None, "final", "corrected"]),
        ("F", ["F", "P", "", "R", "S", "I", "U"], None, [None, "preliminary", None, "preliminary", "preliminary",
                                                         "registered", None]),
        ("C", ["C", "F", ""], "corrected", [None, "final", None]),
        ("A", ["F", "P"], "partial", ["final", "preliminary"]),
        ("", ["C", "F"], None, ["corrected", None]),
        ("X", [], "cancelled", []),
    ],
)  # fmt: skip
def test_a_result_has_a_status_where_it_differs(
    ordered: str, observed: list[str], status: str | None, of_results: list[str | None]
) -> None:
    results = [obx("NM", str(at), f3=f"{at}^T{at}^L", f11=each) for at, each in enumerate(observed)]
    record = record_of(MSH, PID, f"{OBR}{'|' * 18}{ordered}", *results)
    assert record.get("status") == status
    assert [each.get("status") for each in record["results"]] == of_results
    assert record["checkup_report"] == ""


def test_results_without_an_order_are_a_record() -> None:
    record = record_of(MSH, PID, "PV1|1", OBX, OBX)
    assert (record["checkup_type"], record["record_id"], len(record["results"])) == ("Cholesterol", "MSG1-1", 2)


def test_an_order_control_segment_belongs_to_its_order() -> None:
    before = read(MSH, PID, "ORC|RE|a", OBR, OBX, "ORC|RE|b", "OBR|2||F2", OBX)
    assert [("ORC|RE|a" in reading.raw, "ORC|RE|b" in reading.raw) for reading in before] == [
        (True, False),
        (False, True),
    ]
    behind = read(
        MSH.replace("ORU^R01^ORU_R01", "OUL^R22"),
        PID,
        "SPM|1",
        OBR,
        "ORC|RE|a",
        OBX,
        "SPM|2",
        "OBR|2||F2",
        "ORC|RE|b",
        OBX,
    )
    assert [("ORC|RE|a" in reading.raw, "ORC|RE|b" in reading.raw) for reading in behind] == [
        (True, False),
        (False, True),
    ]
    assert [len(reading.record["results"]) for reading in behind] == [1, 1]


@settings(max_examples=100, deadline=None)
@given(
    st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9),
    st.sampled_from(["", "0", "00"]),
)
def test_any_number_comes_out_with_its_value_and_precision(value: Decimal, zeros: str) -> None:
    text = f"{'-' if value < 0 else ''}{zeros}{abs(value)}"
    assert str(Decimal(str(result_of(obx("NM", text))["value"]))) == str(value)


@pytest.mark.parametrize(
    ("sent", "unit"),
    [
        ("mmol/L", "mmol/L"),
        ("^mmol/L", "mmol/L"),
        ("mmol/L^^UCUM", "mmol/L"),
        ("266016^MDC_DIM_MMHG^MDC^mm[Hg]^mm[Hg]^UCUM", "mm[Hg]"),
        ("266016^MDC_DIM_MMHG^MDC", "mm[Hg]"),
        ("1^^UCUM", "1"),
        ("10*3/uL^^UCUM", "10*3/uL"),
    ],
)
def test_a_unit_is_what_people_know_it_by(sent: str, unit: str) -> None:
    assert result_of(obx("NM", "7", f6=sent))["unit"] == unit
