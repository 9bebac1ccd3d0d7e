"""Reading HL7 v2: the further facts of results and orders, what is no result, and what is told of a source."""

from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from support.hl7 import MSH, OBR, OBX, PID, Pipe, obx, read, read_bytes, record_of, result_of, results_of

from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.hl7v2.reader import read_hl7
from myhealth.intake.formats.registry import HL7
from myhealth.intake.formats.tables.layout import Layout
from myhealth.intake.validation import validate_record

LOCAL = "tag:myhealth.example,2026:codes:"
TABLE = "http://terminology.hl7.org/CodeSystem/v2-"
OUL = MSH.replace("ORU^R01^ORU_R01", "OUL^R22^OUL_R22")
BERLIN = ZoneInfo("Europe/Berlin")


def later(**fields: str) -> str:
    """Return an OBX segment with fields behind OBX-18 too."""
    numbers = {int(name[1:]): text for name, text in fields.items()}
    return "|".join([obx("NM", "5"), *(numbers.get(number, "") for number in range(19, 26))])


def dump_of(*segments: str, zone: tzinfo = UTC, **options: Any) -> tuple[list[Any], Dump]:
    dump = Dump(HL7, zone=zone, **options)
    return list(read_hl7(Pipe("\r".join(segments).encode(), 1000), dump)), dump


# --- Values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "reason", "code"),
    [
        ("NM", "***.**", "***.**", "error"), ("NM", "----", "----", "error"), ("NM", "--.-", "--.-", "error"),
        ("NM", "-", "-", "error"), ("NM", "####", "####", "error"), ("ST", "***.**", "***.**", "error"),
        ("", "***", "***", "error"), ("NM", "NaN", "NaN", "not-a-number"), ("NM", "", "no value", None),
    ],
)  # fmt: skip
def test_what_could_not_be_measured_has_a_reason(kind: str, text: str, reason: str, code: str | None) -> None:
    result = result_of(obx(kind, text))
    assert (result["value"], result["absent_reason"], result.get("absent_code")) == ("no value", reason, code)


@pytest.mark.parametrize(
    ("kind", "text", "name", "value"),
    [
        ("SN", "^1^/^8", "value_ratio", {"numerator": {"value": 1}, "denominator": {"value": 8}}),
        ("SN", "^10^-^20", "value_range", {"low": {"value": 10}, "high": {"value": 20}}),
        ("NR", "10^", "value_range", {"low": {"value": 10}}),
        ("TS", "20161230", "value_moment", "2016-12-30"),
        ("DR", "20161230^20170101", "value_period", {"start": "2016-12-30", "end": "2017-01-01"}),
        ("CWE", "260385009^Negative^SCT", "value_coded",
         {"codings": [{"system": "http://snomed.info/sct", "code": "260385009", "display": "Negative"}]}),
        ("CWE", "P^Pos^L^260^Positive^SCT^1^2^as written", "value_coded",
         {"text": "as written", "codings": [
             {"system": f"{LOCAL}L", "code": "P", "display": "Pos", "version": "1"},
             {"system": "http://snomed.info/sct", "code": "260", "display": "Positive", "version": "2"}]}),
        ("CE", "P^Pos^L~R^Rare^L", "value_coded",
         {"text": "Pos, Rare", "codings": [{"system": f"{LOCAL}L", "code": "P", "display": "Pos"},
                                           {"system": f"{LOCAL}L", "code": "R", "display": "Rare"}]}),
        ("CE", "^Negative", "value_coded", None),
    ],
)  # fmt: skip
def test_a_value_keeps_its_kind(kind: str, text: str, name: str, value: Any) -> None:
    assert result_of(obx(kind, text)).get(name) == value


@pytest.mark.parametrize(
    ("kind", "sent", "text"),
    [
        ("RP", r"\\host\ecg^viewer^application^PDF", r"\\host\ecg (application/PDF)"),
        ("RP", "https://x.example/?a=1&b=2", "https://x.example/?a=1&b=2"),
        ("PN", "Rao^Ayush^K", "Ayush Rao"),
        ("XPN", "Rao&van^Ayush", "Ayush Rao"),
        ("XCN", "17^Rao^Ayush", "Ayush Rao"),
        ("XCN", "17", "17"),
        ("AD", "1 Main St^^Pune^MH^411001^IN", "1 Main St, Pune, MH, 411001, IN"),
        ("XAD", r"Rao \T\ Sons&Main St^^Pune", "Rao & Sons, Pune"),
        ("PL", "W1^R2^B3", "W1, R2, B3"),
        ("XTN", "^PRN^PH^^91^20^555", "91 20 555"),
        ("XTN", "555-1234^PRN", "555-1234"),
        ("XTN", "^NET^Internet^a@b.example", "a@b.example"),
        ("XON", "City Lab^L^55", "City Lab"),
        ("HD", "LAB^1.2.3^ISO", "LAB"),
        ("MO", "12.5^USD", "12.5 USD"),
        ("PN", "^^^^^", "no value"),
        ("NR", "^5", "<=5"),
        ("NR", "5^", ">=5"),
        ("DR", "20261101^", "from 2026-11-01"),
        ("DR", "^20261102", "until 2026-11-02"),
        ("SN", "^^-^5", "^^-^5"),
    ],
)  # fmt: skip
def test_a_value_with_parts_reads_as_words(kind: str, sent: str, text: str) -> None:
    assert result_of(obx(kind, sent))["value"] == text


def test_the_ends_of_a_range_have_the_unit_of_the_result() -> None:
    for kind, sent in (("SN", "^5^-^7"), ("NR", "5^7")):
        ends = result_of(obx(kind, sent, f6="mg/dL"))["value_range"]
        assert ends == {"low": {"value": 5, "unit": "mg/dL"}, "high": {"value": 7, "unit": "mg/dL"}}


def test_a_reference_range_may_have_components() -> None:
    for sent in ("3.5^5.1", "3.5-5.1^mmol/L", "3.5-5.1^^mmol/L"):
        result = result_of(obx("NM", "5", f6="mmol/L", f7=sent))
        assert (result["low"], result["high"], "^" in result.get("range_text", "")) == (3.5, 5.1, False)


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (r"a\X000d\\X000A\b", "a\nb"), (r"a\X0D\b", "a\nb"), (r"a\X00\b", "ab"), (r"\X00B5\g", "µg"), (r"\X0041\b", "Ab"),
        (r"\X20AC\ 5", "€ 5"), (r"a\.br\b", "a\nb"), (r"a\.BR\b", "a\nb"), (r"a\.sp\b", "a\nb"), (r"a\.ce\b", "a\nb"),
        (r"a\.in+4\b\.ti-2\c\.fi\d\.nf\e", "abcde"), (r"a\.sk 3\b", "a   b"), (r"\H\a\N\b", "ab"), (r"\C2842\a", "a"),
        (r"\Z9\a", r"\Z9\a"), (r"C:\temp\new", r"C:\temp\new"),
    ],
)  # fmt: skip
def test_escapes_and_formatting_commands_take_effect(sent: str, text: str) -> None:
    assert result_of(obx("FT", sent))["value"] == text
    assert record_of(MSH, PID, OBR, OBX, f"NTE|1|L|{sent}")["results"][0]["notes"][0]["text"] == text


@pytest.mark.parametrize(
    ("sent", "unit", "unit_text"),
    [
        ("10^3/uL", "10*3/uL", "10^3/uL"), ("10^9/L^^ISO+", "10*9/L", "10^9/L"), ("x10^12/L", "10*12/L", "x10^12/L"),
        ("kg/m^2", "kg/m2", "kg/m^2"), ("mL/min/1.73m^2", "mL/min/{1.73_m2}", "mL/min/1.73m^2"), ("mmHg", "mm[Hg]", "mmHg"),
        ("266016^MDC_DIM_MMHG^MDC", "mm[Hg]", "MDC_DIM_MMHG"), ("^MDC_DIM_PERCENT", "%", "MDC_DIM_PERCENT"),
        ("mmol/L", "mmol/L", None), ("furlong", "furlong", None), ("110^text^L", "text", None),
    ],
)  # fmt: skip
def test_a_unit_is_ucum_where_that_is_certain(sent: str, unit: str, unit_text: str | None) -> None:
    result = result_of(obx("NM", "7", f6=sent))
    assert (result["unit"], result.get("unit_text")) == (unit, unit_text)


@pytest.mark.parametrize(
    ("sent", "ranges"),
    [
        ("M: 13-17; F: 12-16", [{"low": 13, "high": 17, "sex": "male"}, {"low": 12, "high": 16, "sex": "female"}]),
        ("M 13-17, F 12-16", [{"low": 13, "high": 17, "sex": "male"}, {"low": 12, "high": 16, "sex": "female"}]),
        ("Male 13.5-17.5 Female 12.0-15.5", [{"low": 13.5, "high": 17.5, "sex": "male"},
                                             {"low": 12.0, "high": 15.5, "sex": "female"}]),
        ("Men: 13-17~Women: 12-16", [{"low": 13, "high": 17, "sex": "male"}, {"low": 12, "high": 16, "sex": "female"}]),
        ("(F) <5", [{"high": 5, "sex": "female"}]),
        ("0-1 years: 5-10; > 60 y: 3-9", [{"low": 5, "high": 10, "age_low": 0, "age_high": 1, "age_unit": "a"},
                                          {"low": 3, "high": 9, "age_low": 60, "age_unit": "a"}]),
        ("Adults: 70-99", [{"low": 70, "high": 99, "age_low": 18}]),
        ("0-28 days: 9-30", [{"low": 9, "high": 30, "age_low": 0, "age_high": 28, "age_unit": "d"}]),
        ("fasting: 70-99", None), ("M: see note; F: 12-16", None), ("negative", None),
    ],
)  # fmt: skip
def test_a_range_with_a_condition_keeps_it(sent: str, ranges: list[dict[str, Any]] | None) -> None:
    result = result_of(obx("NM", "15", f6="g/dL", f7=sent))
    assert (result["low"], result["high"]) == (None, None)
    assert result["range_text"] == sent.replace("~", "; ")
    found = result.get("ranges")
    assert (found and [{name: each[name] for name in each if name != "text"} for each in found]) == ranges


@pytest.mark.parametrize(
    ("sent", "flag", "kept"),
    [
        ("H", "H", None), ("H^High^HL70078", "H", [{"system": f"{TABLE}0078", "code": "H", "display": "High"}]),
        ("LU", "LL", [{"code": "LU"}]), ("<", None, [{"code": "<"}]), ("H~D", "H", [{"code": "H"}, {"code": "D"}]),
        ("^Abnormal", "A", [{"text": "Abnormal"}]), ("A^own^99LAB", None, [{"system": f"{LOCAL}99LAB", "code": "A", "display": "own"}]),
        ("SDD", None, [{"code": "SDD"}]), ("", None, None),
    ],
)  # fmt: skip
def test_interpretations_are_kept_as_sent(sent: str, flag: str | None, kept: Any) -> None:
    result = result_of(obx("NM", "5", f8=sent))
    assert (result["flag"], result.get("interpretations")) == (flag, kept)


@pytest.mark.parametrize(
    ("code", "sub_id", "name"),
    [("2", "GLU", "GLU"), ("", "GLU", "GLU"), ("2^^L", "K", "K"), ("WBC", "A", "WBC"), ("2^Sugar", "GLU", "Sugar"), ("2", "1.1", "2"),
     ("2093-3", "a", "Total cholesterol")],
)  # fmt: skip
def test_a_name_may_stand_in_the_sub_id(code: str, sub_id: str, name: str) -> None:
    result = result_of(obx("NM", "5", f3=code, f4=sub_id))
    assert (result["name"], result["sub_id"]) == (name, sub_id)


def test_lines_of_a_text_may_be_numbered_but_not_findings() -> None:
    lines = results_of(*(obx("TX", text, f4=str(at)) for at, text in enumerate(["one", "two"], 1)))
    assert [(each["value"], each["sub_id"]) for each in lines] == [("one\ntwo", "1")]
    found = results_of(*(obx("ST", text, f4=str(at)) for at, text in enumerate(["E. coli", "Klebsiella"], 1)))
    assert [(each["value"], each["sub_id"]) for each in found] == [("E. coli", "1"), ("Klebsiella", "2")]


def test_both_codes_are_kept_with_their_systems() -> None:
    result = result_of(obx("NM", "5", f3="HB^Hb^99LAB^718-7^Haemoglobin^LN"))
    assert (result["code"], result["name"]) == ("718-7", "Hb")
    assert result["codings"] == [
        {"system": f"{LOCAL}99LAB", "code": "HB", "display": "Hb"},
        {"system": "http://loinc.org", "code": "718-7", "display": "Haemoglobin"},
    ]
    assert "codings" not in result_of(obx("NM", "5", f3="718-7^Hb^LN"))


# --- The circumstances of results and orders ------------------------------------------------------------------------


def test_who_measured_how_with_what_and_where() -> None:
    segment = later(f23="City Lab^D^^^^^^^^55", f20="LA^Left arm^HL70163").split("|")
    segment[15:19] = ["LAB^Central^L", "17^Rao^Ayush~18^Das", "HEX^Hexokinase^99LAB", "SN7^^1.2.3^ISO"]
    (result,) = record_of(MSH, PID, OBR, "|".join(segment))["results"]
    assert result["performers"] == [
        {"name": "Central", "kind": "Organization", "identifiers": [{"value": "LAB"}]},
        {"name": "City Lab", "kind": "Organization", "identifiers": [{"value": "55"}]},
        {"name": "Ayush Rao", "kind": "Practitioner", "identifiers": [{"value": "17"}]},
        {"name": "Das", "kind": "Practitioner", "identifiers": [{"value": "18"}]},
    ]
    assert result["method"] == {"codings": [{"system": f"{LOCAL}99LAB", "code": "HEX", "display": "Hexokinase"}]}
    assert result["body_site"] == {"codings": [{"system": f"{TABLE}0163", "code": "LA", "display": "Left arm"}]}
    assert "device" not in result  # it is the machine of the record
    several = results_of(obx("NM", "5", f18="HC-1"), obx("NM", "5", f18="HC-2^^1.2.3^ISO"))
    assert several[1]["device"] == {"identifiers": [{"value": "HC-2", "system": "urn:oid:1.2.3"}]}


def test_the_facts_of_an_order() -> None:
    fields = {7: "20261120090000", 8: "20261120091000", 13: "fever~cough", 16: "16^A^B", 22: "20261121", 24: "HM", 25: "F",
              31: "R73.9^High^I10~^Check", 32: "32&C&D", 34: "34&E&F"}  # fmt: skip
    obr = "|".join(
        [
            "OBR",
            "1",
            "P1^ORD",
            "F1^LAB",
            "24331-1^Lipid panel^LN^L1^Lipids^L",
            *(fields.get(at, "") for at in range(5, 35)),
        ]
    )
    record = record_of(MSH, PID, obr, OBX)
    details = record["details"]
    assert (record["taken_at"], record["taken_until"]) == ("2026-11-20T09:00:00+00:00", "2026-11-20T09:10:00+00:00")
    assert (record.get("issued_at"), details["updated_at"]) == (None, "2026-11-20T09:15:00+00:00")
    assert details["clinical_information"] == "fever; cough"
    assert details["category"] == [{"codings": [{"system": f"{TABLE}0074", "code": "HM"}]}]
    assert [each["code"] for each in details["codings"]] == ["24331-1", "L1"]
    assert details["reasons"][1] == "Check"
    assert [each["name"] for each in details["performers"]] == ["D C", "F E"]
    later_ = record_of(MSH, PID, obr.replace("|20261121|", "|20261121100000+0530|"), OBX)
    assert later_["issued_at"] == later_["details"]["updated_at"] == "2026-11-21T10:00:00+05:30"


def test_numbers_of_an_order_may_stand_in_its_control_segment() -> None:
    record = record_of(MSH, PID, "ORC|RE|P9^ORD|F9", "OBR|1|||X^Test", OBX)
    assert [(each["value"], each["type"]) for each in record["details"]["identifiers"]] == [
        ("P9", "PLAC"),
        ("F9", "FILL"),
    ]


@pytest.mark.parametrize(
    ("source", "specimen"),
    [
        ("SER", {"text": "Serum", "codings": [{"system": f"{TABLE}0070", "code": "SER"}]}), ("serum", "serum"),
        ("UR&Urine&HL70070", {"codings": [{"system": f"{TABLE}0070", "code": "UR", "display": "Urine"}]}),
        ("^^from the left ear", "from the left ear"), ("", None), ("555-55", None),
    ],
)  # fmt: skip
def test_the_source_of_a_specimen(source: str, specimen: Any) -> None:
    assert record_of(MSH, PID, f"{OBR}{'|' * 8}{source}", OBX)["details"].get("specimen") == specimen


def test_a_specimen_of_its_own_segment() -> None:
    spm = "SPM|1|P5&ORD^F5&LAB||UR^Urine^HL70487||||LA^Left arm^HL70163|||P||||||20261120080000+0000"
    specimen = record_of(MSH, PID, f"{OBR}{'|' * 8}SER", OBX, spm, "NTE|1|L|cloudy")["details"]["specimen"]
    assert specimen["codings"][0]["display"] == "Urine"
    assert specimen["collected_at"] == "2026-11-20T08:00:00+00:00"
    assert specimen["identifiers"] == [{"value": "P5", "system": "ORD"}, {"value": "F5", "system": "LAB"}]
    assert specimen["notes"] == [{"text": "cloudy", "author": "laboratory"}]
    assert record_of(MSH, PID, "OBR|1||F1|X^Test", OBX, spm)["taken_at"] == "2026-11-20T08:00:00+00:00"


def test_each_order_has_the_specimen_that_it_was_made_of() -> None:
    first, second = "SPM|1|||SER^Serum", "SPM|2|||UR^Urine"
    led = read(OUL, PID, first, "OBR|1||F1|X^T", OBX, "OBR|2||F2|X^T", OBX, second, "OBR|3||F3|X^T", OBX)
    followed = read(MSH, PID, "OBR|1||F1|X^T", OBX, first, "OBR|2||F2|X^T", OBX, second)
    for found, words in ((led, ["Serum", "Serum", "Urine"]), (followed, ["Serum", "Urine"])):
        assert [each.record["details"]["specimen"]["codings"][0]["display"] for each in found] == words
        assert [read(each.raw)[0].record == each.record for each in found] == [True] * len(words)


def test_a_note_belongs_to_what_it_stands_behind() -> None:
    record = record_of(
        MSH, "NTE|1||of all", PID, "NTE|1|P|not fasting", "NTE|2|P|at all", OBR, "NTE|1|L|late", OBX, "NTE|1|L|checked",
        "NTE|2|L|twice||17^Rao^Ayush|20261120", obx("NM", "6", f3="U^Other^L"),
    )  # fmt: skip
    assert record["details"]["notes"] == [
        {"text": "of all"}, {"text": "not fasting\nat all", "author": "orderer"}, {"text": "late", "author": "laboratory"},
    ]  # fmt: skip
    assert record["results"][0]["notes"] == [
        {"text": "checked", "author": "laboratory"}, {"text": "twice", "author": "Ayush Rao", "at": "2026-11-20"},
    ]  # fmt: skip
    assert "notes" not in record["results"][1]
    assert record["checkup_report"] == ""


# --- What is no result of a patient ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segments", "kind"),
    [
        ([MSH.replace("|P|", "|Q|"), PID, OBR, OBX], "quality control"),
        ([MSH.replace("|P|", "|T|"), PID, OBR, OBX], "training"),
        ([MSH.replace("|P|", "|D^T|"), PID, OBR, OBX], "debugging"),
        ([f"{MSH}||||2", PID, OBR, OBX], "quality control"),
        ([f"{MSH}||||1", PID, OBR, OBX], "calibration"),
        ([MSH, PID, "OBR|1||F1|00003^LJ QCR^99MRC", OBX], "quality control"),
        ([MSH, PID, "OBR|1||F1|X^Quality control level 2", OBX], "quality control"),
        ([MSH, PID, "OBR|1||F1|X^Calibration", OBX], "calibration"),
        ([MSH, PID, OBR, obx("IS", "H", f3="05001^Qc Level^99MRC"), OBX], "quality control"),
        ([MSH, PID, OBR, OBX, "SPM|1|||SER|||||||Q"], "quality control"),
        ([OUL, PID, "SPM|1|||SER|||||||C", OBR, OBX], "calibration"),
    ],
)  # fmt: skip
def test_what_was_not_measured_of_a_patient_is_left_out(segments: list[str], kind: str) -> None:
    found, dump = dump_of(*segments)
    assert (found, dump.skipped) == ([], {kind: 1})


@pytest.mark.parametrize("mark", ["T", "D"])
def test_training_is_taken_if_it_is_asked_for(mark: str) -> None:
    message = MSH.replace("|P|", f"|{mark}|"), PID, OBR, OBX
    (reading,), _ = dump_of(*message, include_training=True)
    assert reading.record["results"][0]["name"] == "Cholesterol"
    assert HL7.reread(HL7, reading.raw, UTC, Layout()).record == reading.record
    assert dump_of(MSH.replace("|P|", "|Q|"), PID, OBR, OBX, include_training=True)[0] == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("08001^Take Mode^99MRC", "run setting"), ("08002^Blood Mode^99MRC", "run setting"), ("01002^Ref Group^99MRC", "run setting"),
        ("30525-0^Age^LN", "patient's age"), ("AGE^Patient age^L", "patient's age"),
        ("15001^WBC Histogram. Left Line^99MRC", "histogram"), ("X^DIFF Scattergram. BIN^99MRC", "histogram"),
        ("67996^MDC_ATTR_VAL_BATT_CHARGE^MDC", "device's own data"),
        ("69965^MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS^MDC", "device's own data"),
        ("718-7^Hb^LN", ""), ("12014^Anemia^99MRC", ""), ("X^Fetal age^L", ""), ("X^PT control^L", ""), ("X^Dosage^L", ""),
    ],
)  # fmt: skip
def test_what_is_no_result_is_counted_by_its_kind(code: str, kind: str) -> None:
    found, dump = dump_of(MSH, PID, OBR, OBX, obx("NM", "5", f3=code))
    assert (len(found[0].record["results"]), dump.skipped) == ((1, {kind: 1}) if kind else (2, {}))
    if kind:
        assert dump_of(MSH, PID, OBR, obx("NM", "5", f3=code))[0] == []


# --- What is told ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("charset", "codec", "text"),
    [
        ("Windows-1252", "cp1252", "„µ“ €"), ("CP1252", "cp1252", "€"), ("ISO_IR 100", "latin-1", "é"), ("ISO IR100", "latin-1", "é"),
        ("8859/1", "latin-1", "é"), ("ISO_IR 144", "iso8859-5", "ж"), ("Shift_JIS", "cp932", "血糖ソ表"), ("SJIS", "cp932", "ソ"),
        ("~ISO IR87", "iso2022_jp_2", "血糖"), ("GBK", "gb18030", "血糖"), ("UNICODE UTF-8", "utf-8", "血"), ("EUC-JP", "euc_jp", "血"),
        ("KS X 1001", "cp949", "혈당"),
    ],
)  # fmt: skip
def test_a_character_set_that_is_named_is_read(charset: str, codec: str, text: str) -> None:
    segments = [f"{MSH}||||||{charset}", PID, OBR, obx("ST", text)]
    (reading,), _ = read_bytes("\r".join(segments).encode(codec))
    assert (reading.faults, reading.record["results"][0]["value"]) == ([], text)


@pytest.mark.parametrize("charset", ["ISO_IR 999", "8859/12", "UTF-16", "rot13", "martian", "idna"])
def test_an_unknown_character_set_is_told_with_its_place(charset: str) -> None:
    segments = [f"{MSH}||||||{charset}", PID, OBR, OBX, obx("ST", "é")]
    (reading,), _ = read_bytes("\r".join(segments).encode("latin-1"))
    ((place, message),) = reading.faults
    assert place == "OBX[2]"
    assert f"MSH-18 names a character set that is not known: '{charset}'" in message


@pytest.mark.parametrize(
    ("trailers", "notices"),
    [
        (["BTS|2", "FTS|1"], []), (["BTS", "FTS"], []), (["BTS|3", "FTS|1"], ["line 11: BTS-1 counts 3, but there is 2 (message)"]),
        (["BTS|2", "FTS|4"], ["line 12: FTS-1 counts 4, but there is 1 (batch)"]),
        (["BTS|2"], ["line 1: FHS has no FTS; the file may be cut short"]),
        ([], ["line 2: BHS has no BTS; the file may be cut short", "line 1: FHS has no FTS; the file may be cut short"]),
    ],
)  # fmt: skip
def test_a_batch_that_counts_more_than_it_has_is_told(trailers: list[str], notices: list[str]) -> None:
    message = [MSH, PID, OBR, OBX]
    found, dump = dump_of("FHS|^~\\&", "BHS|^~\\&", *message, *message, *trailers, "")
    assert len(found) == 2
    assert dump.notices == notices


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ("20260329023000", "does not exist in the zone Europe/Berlin"), ("20261025023000", "exists twice in the zone Europe/Berlin"),
        ("20261025023000+0100", ""), ("20261025033000", ""), ("20260329", ""),
    ],
)  # fmt: skip
def test_an_hour_that_clocks_did_not_show_once_is_told(moment: str, said: str) -> None:
    (reading,), _ = dump_of(MSH, PID, OBR.replace("20261120090000", moment), OBX, zone=BERLIN)
    assert (reading.faults, [place for place, _ in reading.warnings]) == ([], ["OBR-7"] if said else [])
    assert all(said in message for _, message in reading.warnings)


@pytest.mark.parametrize(
    ("segments", "place"),
    [
        ([MSH, "PID|1||||X^Y", OBR, OBX], "PID-3"),
        ([MSH, "PID|1||4711^^^INSURER^HC", OBR, OBX], "PID-3"),
        ([MSH, PID, f"OBR|1||F1|{'long' * 200}", OBX], "OBR-4"),
        ([MSH, PID, OBR, obx("NM", "1", f3="30525-0^Age^LN"), OBX, obx("NM", "5", f6="m" * 600)], "OBX[3]-6"),
        ([MSH, PID, OBR, obx("ST", "a\0b")], "OBX[1]-5"),
        ([MSH, PID, OBR, obx("FT", "long " * 3000), obx("NM", "5", f3=f"X^{'n' * 600}^L")], "OBX[2]-3"),
    ],
)
def test_an_error_names_the_field_of_the_message(segments: list[str], place: str) -> None:
    (reading,) = read(*segments)
    _, faults = validate_record(reading.record)
    assert [reading.locate(name) for name, _ in faults][:1] == [place]


def test_a_moment_that_is_none_is_told_where_it_does_not_decide() -> None:
    results = obx("NM", "5", f14="20261120090000"), obx("NM", "6", f3="U^O^L", f14="yesterday")
    (reading,) = read(MSH, PID, f"{OBR}{'|' * 15}soon", *results)
    assert [place for place, _ in reading.warnings] == ["OBX[2]-14", "OBR-22"]
    assert reading.faults == []
    assert reading.record["results"][1]["taken_precision"] == "unknown"
