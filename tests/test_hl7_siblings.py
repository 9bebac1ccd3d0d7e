"""Siblings of the HL7 inputs in tests/data/faults: values of parts, character sets, moments, authorities of numbers."""

import io
from decimal import Decimal
from typing import Any

import pytest
from support.hl7 import MSH, OBR, PID, obx, read_bytes, record_of, result_of, results_of
from support.stored_results import stored

from myhealth.common.errors import BadInput
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.formats.registry import read_dump

STRUCTURED: dict[str, tuple[str, str, Any]] = {
    "nothing but delimiters": ("SN", "^^", "no value"),
    "delimiters behind it": ("SN", "^5.10^^^", Decimal("5.10")),
    "delimiters behind a number": ("NM", "5^", 5),
    "a point at its end": ("SN", "<^5.", "<5"),
    "a comparator of two signs": ("SN", "=<^5", "<=5"),
    "a comparator of one sign": ("SN", "≥^5", ">=5"),
    "a comparator in the number": ("SN", "^>5", ">5"),
    "a titre in the number": ("SN", "^1:128", "1:128"),
    "a separator before a number is no minus": ("SN", "^-^4", "^-^4"),
    "a minus sign": ("NM", "−2.5", Decimal("-2.5")),
    "a quantity with a coded unit": ("CQ", "5^mg&milligram&UCUM", 5),
}


@pytest.mark.parametrize(("kind", "sent", "value"), STRUCTURED.values(), ids=STRUCTURED)
def test_a_value_of_parts_is_what_they_say(kind: str, sent: str, value: Any) -> None:
    result = result_of(obx(kind, sent))
    assert (result["value"], str(result["value"])) == (value, str(value))
    assert result.get("unit") == ("mg" if kind == "CQ" else None)


CHARSETS: dict[str, tuple[str, bytes, str, list[str]]] = {
    "UTF-8 that is called Latin-1": ("8859/1", "µg ü".encode(), "µg ü", ["MSH-18"]),
    "UTF-8 that is called Windows-1252": ("WINDOWS-1252", "–".encode(), "–", ["MSH-18"]),
    "Latin-1": ("8859/1", "µg ü".encode("latin-1"), "µg ü", []),
    "Windows-1252 that is called Latin-1": ("8859/1", "4–6 €".encode("cp1252"), "4–6 €", []),
}


@pytest.mark.parametrize(("charset", "data", "text", "told"), CHARSETS.values(), ids=CHARSETS)
def test_a_character_set_of_another_name_is_known_by_its_bytes(charset: str, data: bytes, text: str, told: Any) -> None:
    lines = (f"{MSH}||||||{charset}", PID, OBR, obx("ST", "@"))
    (reading,), _ = read_bytes("\r".join([*lines, ""]).encode().replace(b"@", data))
    assert reading.record["results"][0]["value"] == text
    assert [place for place, *_ in reading.warnings] == told


def test_hl7_without_its_first_segment_is_no_table() -> None:
    with pytest.raises(BadInput, match="it is HL7 v2, but begins with PID: a message begins with MSH"):
        read_dump(io.BytesIO("\r".join([PID, OBR, obx("NM", "5")]).encode()))


def test_two_numbers_as_text_are_two_values_and_no_text_of_two_lines() -> None:
    values = [each["value"] for each in results_of(obx("ST", "5.1"), obx("ST", "<5"), obx("ST", "a"), obx("ST", "b"))]
    assert values == ["5.1", "<5", "a\nb"]


def test_of_the_versions_of_a_result_in_one_message_the_last_is_shown(db, people) -> None:
    potassium = ("6.9", "P"), ("6.1", "F"), ("5.1", "C")
    sent = [obx("NM", value, f6="mmol/L", f11=status) for value, status in potassium]
    pid = PID.replace("M100^^^HOSP^MR", "savita").replace("Kulkarni^Bholanath^V^^^^L", "")
    for segments, status in (
        (sent, "accepted"),
        (sent[1:2], "duplicate"),
        (sent[:1], "duplicate"),
        (sent, "duplicate"),
    ):
        message = "\r".join([MSH, pid, OBR, *segments, ""]).encode()
        coming = FileImport(io.BytesIO(message), "x.hl7", ImportOptions())
        ((result,),) = [[result for _, result in batch] for batch in coming]
        assert result.status == status
    assert [(str(each["value"]), each["previous_value"]) for each in stored(db)] == [("5.1", 6.1)]


def test_hl7_in_utf16_is_no_table() -> None:
    source = "\r".join([MSH, PID, OBR, obx("NM", "5")]).encode("utf-16")
    with pytest.raises(BadInput, match="it is UTF-16; save it as UTF-8"):
        read_dump(io.BytesIO(source))


@pytest.mark.parametrize(
    ("sent", "taken_at"),
    [("20261120T091403", "2026-11-20T09:14:03+00:00"), ("20261120T0914Z", "2026-11-20T09:14:00+00:00"),
     ("20261120091403+05:30", "2026-11-20T09:14:03+05:30"), ("20261120091403+05", "2026-11-20T09:14:03+05:00")],
)  # fmt: skip
def test_a_moment_in_the_short_form_of_iso_8601_is_read(sent: str, taken_at: str) -> None:
    assert record_of(MSH, PID, OBR.replace("20261120090000", sent), obx("NM", "5"))["taken_at"] == taken_at


def test_a_number_that_has_expired_counts_last_and_never_alone() -> None:
    pid = "PID|1||OLD^^^H^MR^^20000101^20100101~NEW^^^H^MR||{}"
    values = [
        [each["value"] for each in record_of(MSH, pid.format(name), OBR, obx("NM", "5"))["patient"]["identifiers"]]
        for name in ("Test^Person", "")
    ]
    assert values == [["NEW", "OLD"], ["NEW"]]


def test_an_expired_number_without_anything_else_is_refused() -> None:
    ((reading,), _) = read_bytes(
        "\r".join((MSH, "PID|1||OLD^^^H^MR^^20000101^20100101", OBR, obx("NM", "5"), "")).encode()
    )
    assert [place for place, said in reading.faults if "not valid now" in said] == ["PID-3"]


def test_a_facility_stands_in_for_the_authority_of_a_number() -> None:
    for field, system in (("7^^^^MR^H", "H"), ("7^^^A^MR^H", "A"), ('7^^^""^MR^&1.2.36.1&ISO', "urn:oid:1.2.36.1")):
        record = record_of(MSH, f"PID|1||{field}||Test^Person", OBR, obx("NM", "5"))
        assert [each["system"] for each in record["patient"]["identifiers"]] == [system]


@pytest.mark.parametrize(
    "authority", ["1.2.36.1", "&1.2.36.1&ISO", "&1.2.36.1", "H&1.2.36.1&ISO", "&urn:oid:1.2.36.1&URI"]
)
def test_an_oid_is_one_authority_wherever_it_stands(authority: str) -> None:
    record = record_of(MSH, f"PID|1||7^^^{authority}^MR||Test^Person", OBR, obx("NM", "5"))
    assert [each["system"] for each in record["patient"]["identifiers"]] == ["urn:oid:1.2.36.1"]


@pytest.mark.parametrize(
    ("sent", "unit", "low", "words"),
    [("10^3-10^4", "", None, "10^3-10^4"), ("4.0-10.0^10^9/L", "10^9/L", Decimal("4.0"), None), ("3.5^5.1", "", Decimal("3.5"), None)],
)  # fmt: skip
def test_the_power_of_a_range_stays(sent: str, unit: str, low: Any, words: str | None) -> None:
    result = result_of(obx("NM", "5", f6=unit, f7=sent))
    assert (result["low"], result.get("range_text")) == (low, words)


@pytest.mark.parametrize(
    ("orc", "obr_25", "status"),
    [("ORC|RE||||CA", "", "cancelled"), ("ORC|OC", "", "cancelled"), ("ORC|RE||||CM", "", None), ("ORC|RE||||CA", "F", None)],
)  # fmt: skip
def test_an_order_that_is_cancelled_in_its_control_segment_is_cancelled(orc: str, obr_25: str, status: Any) -> None:
    assert record_of(MSH, PID, orc, f"{OBR}{'|' * 18}{obr_25}", obx("NM", "5")).get("status") == status


@pytest.mark.parametrize("unit", ["-", "–", "N/A", "none", ".", " / "])
def test_a_unit_that_is_none_is_none(unit: str) -> None:
    result = result_of(obx("NM", "5", f6=unit))
    assert (result["unit"], "unit_text" in result) == (None, False)


def test_of_several_specimens_none_is_that_of_every_result() -> None:
    def specimens(*types: str) -> Any:
        segments = [
            each for at, name in enumerate(types) for each in (obx("NM", str(at)), f"SPM|{at}|||{name}^^HL70487")
        ]
        return record_of(MSH, PID, OBR, *segments)["details"]["specimen"]

    assert specimens("SER^Serum", "UR^Urine") == {"text": "Serum, Urine"}
    assert specimens("SER^Serum", "PLAS^Plasma")["codings"][0]["code"] == "SER"


def test_a_reference_identifier_in_words_alone_is_one_of_a_device() -> None:
    result = result_of(obx("NM", "162", f3="^MDC_PRESS_BLD_NONINV_SYS", f6="mmHg"))
    assert (result["code"], result["name"]) == ("8480-6", "Systolic blood pressure")


def test_a_withdrawal_that_nothing_tells_the_original_of_is_told(db, people) -> None:
    pid, told = "PID|1||savita||Test^Person", []
    for number, (status, order) in enumerate((("F", "OBR|1|||K^K^L"), ("W", "OBR|1|||K^K^L"), ("W", "OBR|1||7|K^K^L"))):
        head = MSH.replace("MSG1", f"MSG{number}")
        message = "\r".join([head, pid, order, obx("NM", "6", f11=status), ""]).encode()
        ((result,),) = [
            [result for _, result in batch] for batch in FileImport(io.BytesIO(message), "x", ImportOptions())
        ]
        told.append("not_stored" in [each.get("code") for each in result.warnings])
    assert told == [False, True, False]
