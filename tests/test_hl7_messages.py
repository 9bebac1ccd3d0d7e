"""Reading HL7 v2: batches, delimiters, character sets, escapes, and messages that are cut short or mutilated."""

import io
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.hl7 import MSH, OBR, OBX, PID, SAMPLE, obx, read, read_bytes, record_of, result_of

from myhealth.common.errors import BadInput
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.hl7v2 import segments
from myhealth.intake.formats.hl7v2.reader import read_hl7
from myhealth.intake.formats.registry import HL7, read_dump
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.validation import validate_record


def test_batches_and_files_of_messages_are_read_in_order() -> None:
    one, two = ("\r".join([MSH.replace("MSG1", f"MSG{n}"), PID, f"OBR|1||F{n}", OBX]) for n in (1, 2))
    adt = MSH.replace("ORU^R01^ORU_R01", "ADT^A01") + "\r" + PID
    order = "\r".join([MSH.replace("ORU^R01^ORU_R01", "ORM^O01"), PID, OBR])
    data = "\r".join(
        [
            "FHS|^~\\&|x",
            "BHS|^~\\&",
            one,
            adt,
            "BTS|1",
            "BHS|^~\\&",
            order,
            two,
            "BTS",
            "FTS|1",
            MSH.replace("ORU^R01^ORU_R01", ""),
            "",
        ]
    )
    found, skipped = read_bytes(data.encode())
    assert [(reading.index, reading.line, reading.record["record_id"]) for reading in found] == [
        (0, 5, "F1"),
        (1, 16, "F2"),
    ]
    assert skipped == {"ADT^A01": 1, "ORM^O01": 1, "message without a type": 1}
    framed = b"".join(b"\x0b" + each.encode() + b"\r\x1c\r" for each in (one, two))
    assert [reading.record["record_id"] for reading in read_bytes(framed)[0]] == ["F1", "F2"]


def test_an_order_of_another_message_is_a_record_if_it_has_results() -> None:
    data = "\r".join([MSH.replace("ORU^R01^ORU_R01", "OML^O21"), PID, OBR, "OBR|2||F2", OBX])
    found, skipped = read_bytes(data.encode())
    assert [reading.record["record_id"] for reading in found] == ["F2"]
    assert skipped == {"OBR without results": 1}


@pytest.mark.parametrize(
    ("marks", "text"),
    [
        ("|^~\\&", "a&b"), ("|^~\\&#", "a\\T\\b\\P\\"), ("!@%?$", "a$b"), ("|^~", "a\\T\\b"), ("|^", "a~b"),
    ],
)  # fmt: skip
def test_the_characters_of_the_message_part_its_fields(marks: str, text: str) -> None:
    field, component = marks[0], marks[1]
    head = f"MSH{marks}{field}APP{field}FAC"
    head += field * 5 + f"ORU{component}R01{field}M{field}P{field}2.5"
    segments = [f"PID{field}1{field}{field}M1", f"OBR{field}1{field}{field}F1{component}LAB{field}X{component}Test",
                f"OBX{field}1{field}ST{field}T{component}Test{field}{field}{text}"]  # fmt: skip
    record = record_of(head, *segments)
    expected = {"a\\T\\b\\P\\": "a&b#", "a\\T\\b": "a\\T\\b"}.get(text, text)
    assert (record["record_id"], record["results"][0]["value"]) == ("F1^LAB", expected)


@pytest.mark.parametrize(
    ("charset", "codec", "text"),
    [("", "utf-8", "नमस्ते µ"), ("UNICODE UTF-8", "utf-8", "µ"), ("8859/1", "latin-1", "µmol é"), ("ASCII", "ascii", "plain"),
     ("8859/15", "iso8859-15", "€"), ("8859/7", "iso8859-7", "μ"), ("8859/1~UNICODE UTF-8", "latin-1", "é"),
     ("ISO-8859-2", "iso8859-2", "ł"), ("GB 18030-2000", "gb18030", "乗|".removesuffix("|"))],
)  # fmt: skip
def test_a_message_is_in_the_character_set_that_it_names(charset: str, codec: str, text: str) -> None:
    segments = [f"{MSH}||||||{charset}", PID, OBR, obx("ST", text)]
    (reading,), _ = read_bytes("\r".join(segments).encode(codec))
    assert reading.record["results"][0]["value"] == text
    assert reading.faults == []
    assert reading.raw.encode("utf-8", "surrogateescape").split(b"\r")[3] == obx("ST", text).encode(codec)


@pytest.mark.parametrize(
    ("charset", "data"),
    [("UNICODE UTF-8", b"\xe9"), ("8859/6", b"\xa1"), ("JIS X 0202", b"\xe9"), ("8859/12", b"\xe9")],
)
def test_bytes_that_are_no_text_spoil_one_record_and_are_kept(charset: str, data: bytes) -> None:
    bad = obx("ST", "@").encode().replace(b"@", data)
    segments = [
        f"{MSH}||||||{charset}".encode(),
        PID.encode(),
        OBR.encode(),
        OBX.encode(),
        bad,
        b"OBR|2||F2",
        OBX.encode(),
    ]
    spoilt, good = read_bytes(b"\r".join(segments))[0]
    assert [name for name, _ in spoilt.faults] == ["OBX[2]"]
    assert bad in spoilt.raw.encode("utf-8", "surrogateescape")
    assert good.faults == []


@pytest.mark.parametrize(
    ("charset", "sequence", "text"),
    [("UNICODE UTF-8", r"\XC2B5\g", "µg"), ("UNICODE UTF-8", r"\XC2\\XB5\g", "µg"), ("8859/1", r"\XB5\g", "µg"),
     ("UNICODE UTF-8", r"\XB5\g", "µg"), ("UNICODE UTF-8", r"\X81\g", r"\X81\g"), ("", r"a\X0D0A\b", "a\nb"), ("", r"\Xq\ \Z1\ C:\temp\T\x", r"\Xq\ \Z1\ C:\temp&x"),
     ("", r"\E\T\E\ ", r"\T" + "\\")],
)  # fmt: skip
def test_an_escape_sequence_is_what_it_stands_for(charset: str, sequence: str, text: str) -> None:
    (reading,) = read(f"{MSH}||||||{charset}", PID, OBR, obx("ST", sequence))
    assert reading.record["results"][0]["value"] == text


def test_a_line_that_goes_on_is_text_or_a_fault() -> None:
    whole = record_of(MSH, PID, OBR, "NTE|1||first\nsecond", "OBX|1|TX|T^Test||one\nBUT\nthree|mg|||||F")
    assert whole["results"][0]["value"] == "one\nBUT\nthree"
    assert whole["results"][0]["unit"] == "mg"
    assert whole["details"]["notes"] == [{"text": "first\nsecond"}]
    (reading,) = read(MSH, PID, OBR, OBX, "oBX|2|NM|X||7")
    assert reading.faults == [("", "is not a segment of HL7")]
    assert "oBX|2|NM|X||7" in reading.raw


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("hello\nworld", "it is not an HL7 v2 message"),
        ("PID|1||M1", "it is not an HL7 v2 message"),
        ("MSH|", "MSH-2 does not name the characters"),
        ("MSH|||APP", "MSH-2 does not name the characters"),
        ("MSH|^^^^|APP", "MSH-2 does not name the characters"),
        ("MSH|^~\\&|A||||||ORU^R01\rPID|1||M1\r", "neither an OBR nor an OBX"),
        ("MSH|^~\\&|A||||||ORU^R01\rPID|1||M", "cut short: it has no result, and its last segment has no end"),
        (f"{MSH}\r{PID}\rOBR|1||F1\rOBX|1|NM|||5\r", "what was measured"),
        (f"{MSH}\r{PID}\rOBR|1||F1\r", "what was examined"),
    ],
)
def test_what_cannot_be_read_is_a_fault_with_its_text(data: str, said: str) -> None:
    (reading,), skipped = read_bytes(data.encode())
    assert any(said in message for _, message in reading.faults)
    assert reading.raw.replace("\r", "") == data.replace("\r", "").replace("\n", "")
    assert not skipped


def test_what_stands_between_messages_is_told() -> None:
    one = "\r".join([MSH, PID, OBR, OBX])
    found, _ = read_bytes(f"{one}\rBTS|1\rjunk\rmore junk\r{one}".encode())
    assert [reading.raw if reading.record is None else "good" for reading in found] == [
        "good",
        "junk\rmore junk\r",
        "good",
    ]


def test_a_message_beyond_all_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "RECORD_MAX", 2000)
    monkeypatch.setattr(segments, "CHUNK_BYTES", 100)
    good = "\r".join([MSH, PID, OBR, OBX])
    for long in (obx("TX", "x" * 9000), "\r".join([OBX] * 90)):
        found: list[ParsedRecord] = []
        with pytest.raises(BadInput, match=r"^line [58]: (the message|it) has more than 2000 bytes$"):
            found.extend(read_hl7(io.BytesIO(f"{good}\r{MSH}\r{PID}\r{OBR}\r{long}".encode()), Dump(HL7)))
    count = sum(1 for _ in read_hl7(io.BytesIO(f"{good}\r".encode() * 50), Dump(HL7)))
    assert count == 50


# --- Properties -----------------------------------------------------------------------------------------------------

FULL = "\r".join(
    [
        MSH + "||||||UNICODE UTF-8", "SFT|x", PID, "PV1|1", "ORC|RE", OBR, "NTE|1||note", OBX, obx("TX", "one"), obx("TX", "two"),
        "OBR|2||F1^LAB|G^Glucose", obx("SN", "^1^:^8", f8="A", f7="<5"), "OBR|3|||X^Y|||2026", obx("CE", "P^Pos^L"),
        "PID|2||M200", obx("NM", "+07", f11="P"), MSH.replace("ORU^R01^ORU_R01", "OML^O21"), OBR, "ORC|x", OBX, "OBR|2", "BTS|1",
    ]
).encode()  # fmt: skip


def same_again(reading: ParsedRecord) -> None:
    """Its text, read alone, gives this record again, and nothing else."""
    (again,), _ = read_bytes(reading.raw.encode("utf-8", "surrogateescape"))
    for name in ("record", "faults", "warnings", "patient_field", "full_name", "raw"):
        assert str(getattr(again, name)) == str(getattr(reading, name)), name


def test_each_record_can_be_read_alone() -> None:
    found, _ = read_bytes(FULL)
    assert [reading.record["record_id"] for reading in found] == ["F1^LAB", "F1^LAB#2", "MSG1-3", "MSG1-4", "F1^LAB"]
    for reading in found:
        assert reading.faults == []
        same_again(reading)


def sources() -> list[bytes]:
    return [FULL, SAMPLE.read_bytes()]


PIECES = [bytes([byte]) for byte in b'|^~\\&\r\n\x0b\x1c"0 XFOM\xff\xe9\x00-<'] + [
    b"",
    b"OBX|",
    b"OBR|1",
    b"PID|",
    b"MSH|^~\\&|",
    b"ORC|",
    b"\rZMH|7|R\r",
]
edits = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 40), st.sampled_from(PIECES)), max_size=8)


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(sources()), edits)
@example(FULL.replace(b"\r", b"\n"), [])
def test_a_mutilated_message_never_makes_it_stumble(source: bytes, changes: Any) -> None:
    for place, length, piece in changes:
        start = place % (len(source) + 1)
        source = source[:start] + piece + source[start + length :]
    for reading in read_bytes(source, size=50)[0]:
        same_again(reading)
        validate_record(reading.record)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
@example(b"\xef\xbb\xbf")
def test_no_bytes_at_all_make_it_stumble(data: bytes) -> None:
    for reading in read_bytes(data)[0]:
        same_again(reading)


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\x0b\x1c\r\n"), min_size=1, max_size=60))
def test_any_text_that_is_escaped_comes_back(text: str) -> None:
    escaped = text
    for plain, mark in (("\\", "E"), ("|", "F"), ("^", "S"), ("&", "T"), ("~", "R")):
        escaped = escaped.replace(plain, f"\\{mark}\\") if plain != "\\" else escaped.replace("\\", "\\E\\")
    (reading,) = read(MSH, PID, OBR, obx("TX", escaped))
    expected = text if text.strip() and text != '""' else "no value"
    assert reading.record["results"][0]["value"] == expected


def test_a_file_may_begin_with_a_byte_order_mark() -> None:
    data = b"\xef\xbb\xbf" + "\r".join([MSH, PID, OBR, OBX]).encode()
    assert [reading.faults for reading in read_dump(io.BytesIO(data)).records] == [[]]


MESSAGE = "\r".join([MSH, PID, OBR, OBX.replace("5.10", "72")])


@pytest.mark.parametrize("end", range(MESSAGE.index("OBX"), MESSAGE.rindex("|F") + 2))
def test_what_is_left_of_a_value_is_never_taken_for_it(end: int) -> None:
    """A message that ends somewhere in its result is refused, also when it is read again; a whole one is taken."""
    (reading,) = read_bytes(MESSAGE[:end].encode())[0]
    if end == len(MESSAGE):
        assert reading.faults == []
    elif end > MESSAGE.index("OBX"):
        assert reading.faults
        (again,) = read_bytes(reading.raw.encode())[0]
        assert again.faults == reading.faults


def test_a_frame_without_its_end_is_a_message_cut_short() -> None:
    whole = f"\x0b{MESSAGE}\r\x1c\r"
    readings, _ = read_bytes((whole + whole.replace("\x1c\r", "")).encode())
    assert [bool(reading.faults) for reading in readings] == [False, True]
    assert read_bytes(readings[1].raw.encode())[0][0].faults == readings[1].faults


def test_line_ends_that_are_escaped_are_line_ends() -> None:
    assert result_of(obx("FT", r"one\.br\two\.sp2\four"))["value"] == "one\ntwo\n\nfour"
