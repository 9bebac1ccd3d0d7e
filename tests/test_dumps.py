"""Reading dumps: every record is returned as it was sent, for any bytes."""

import gzip
import io
import json
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.factories import dump, record

from myhealth.common.errors import BadInput, TooLarge
from myhealth.intake.formats import json_reader
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.registry import read_dump
from myhealth.intake.parsed_record import ParsedRecord, UnrepresentableNumber


class Pipe(io.RawIOBase):
    """A stream that cannot be sought and gives a few bytes at a time."""

    def __init__(self, data: bytes, size: int = 7) -> None:
        self._data = io.BytesIO(data)
        self._size = size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, self._size) if size >= 0 else self._size)


def read(data: bytes, **options) -> tuple[Dump, list[ParsedRecord]]:
    found = read_dump(io.BytesIO(data), **options)
    return found, list(found.records)


def until_broken(data: bytes, **options) -> tuple[list[ParsedRecord], str]:
    """What is given before the source breaks, and why it breaks."""
    given_: list[ParsedRecord] = []
    try:
        dump = read_dump(io.BytesIO(data), **options)
        given_.extend(dump.records)
    except BadInput as error:
        return given_, error.message
    return given_, dump.truncated


RECORDS = [record(1), record(2, checkup_report='} ] " \\ , { [ नमस्ते 🩺'), record(3, results=[])]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("piped", [False, True], ids=["file", "pipe"])
@pytest.mark.parametrize(
    ("format", "data"),
    [
        ("memory", dump(RECORDS)),
        ("memory", json.dumps(json.loads(dump(RECORDS)), indent=3).encode()),
        ("list", json.dumps(RECORDS, ensure_ascii=False).encode()),
        ("ndjson", "\r\n".join(map(json.dumps, RECORDS)).encode()),
        ("ndjson", b"\xef\xbb\xbf" + b"\n\n".join(json.dumps(r).encode() for r in RECORDS) + b"\n"),
    ],
    ids=["memory", "memory-indented", "list", "ndjson", "ndjson-bom"],
)
def test_a_format_is_recognised_and_read(format: str, data: bytes, piped: bool, packed: bool) -> None:
    data = gzip.compress(data) if packed else data
    found = read_dump(Pipe(data) if piped else io.BytesIO(data))
    readings = list(found.records)
    assert found.format.name == format
    assert [reading.decoded() for reading in readings] == RECORDS
    assert [json.loads(reading.raw) for reading in readings] == RECORDS
    assert [reading.index for reading in readings] == [0, 1, 2]
    assert found.serial == ("HC-1" if format == "memory" else None)


@given(st.lists(st.dictionaries(st.text(), st.recursive(st.none() | st.booleans() | st.text() | st.integers(
    -(2**63), 2**63 - 1), lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=5)), max_size=8),
    st.integers(1, 40))  # fmt: skip
def test_any_list_of_records_comes_out_as_it_went_in(records: list, size: int) -> None:
    data = json.dumps(records, ensure_ascii=False).encode("utf-8", "surrogatepass")
    found = read_dump(Pipe(data, size)) if data.strip() else None
    if found is not None and b"\xed" not in data:
        assert [reading.decoded() for reading in found.records] == records


@pytest.mark.parametrize(
    ("text", "value"),
    [("128", 128), ("5.1", 5.1), ("5.10", Decimal("5.10")), ("1e-22", 1e-22), ("1E2", Decimal("1E+2")), ("-0.0", -0.0),
     ("9223372036854775807", 2**63 - 1), ("0.1000000000000000055511151231257827", Decimal("0.1000000000000000055511151231257827"))],
)  # fmt: skip
def test_a_number_is_kept_exactly(text: str, value: object) -> None:
    _, (reading,) = read(b'[{"value": %s}]' % text.encode())
    assert repr(reading.decoded()["value"]) == repr(value)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "1e-999", "1" * 400, "9223372036854775808",
                                  "0." + "1" * 50, "-" + "9" * 5000, "1e99999999999"])  # fmt: skip
def test_a_number_that_cannot_be_kept_is_marked_and_reading_goes_on(text: str) -> None:
    _, (bad, good) = read(b'[{"value": %s}, {"value": 1}]' % text.encode())
    assert isinstance(bad.decoded()["value"], UnrepresentableNumber)
    assert len(str(bad.decoded()["value"])) < 40
    assert text in bad.raw
    assert good.decoded() == {"value": 1}


def test_a_record_that_is_not_json_is_told_and_the_next_one_read() -> None:
    data = b'[{"a": 1},\n {"a" 2, "b": "}]"},\n {"a": 3},\n {"a": tru},{"a":\n4,}, {"a": 5}]'
    _, readings = read(data)
    assert [reading.decoded() for reading in readings] == [{"a": 1}, None, {"a": 3}, None, None, {"a": 5}]
    assert [reading.line for reading in readings] == [1, 2, 3, 4, 4, 5]
    assert readings[1].raw == '{"a" 2, "b": "}]"}'
    assert "it is not JSON: Expecting ':' delimiter" in readings[1].faults[0][1]
    assert "(line 5)" in readings[4].faults[0][1]


def test_a_line_of_ndjson_that_is_not_json_is_told_and_the_next_one_read() -> None:
    readings, error = until_broken(b'{"a": 1}\n{"a": \n{"a": [}\n{"a": "unended}\n{"a": 5}\n{"a": 6')
    assert [reading.decoded() for reading in readings] == [{"a": 1}, None, None, None, {"a": 5}, None]
    assert [reading.line for reading in readings] == [1, 2, 3, 4, 5, 6]
    assert error == "line 6: the file ends in the middle of a value: it is cut short"


@pytest.mark.parametrize("end", ["", "{", '"te', '"te\\', "tr", "-", "-Inf", "[5", "[5,", "{\n"])
def test_a_value_that_the_end_of_the_file_truncates_is_told(end: str) -> None:
    text = '{"a": {"b": 1, "c": ' + end
    (reading,), error = until_broken(text.encode(), format="ndjson")
    assert reading.faults == [("", "it is cut short: the file ends in it")]
    assert error == f"line {1 + text.count(chr(10))}: the file ends in the middle of a value: it is cut short"


@pytest.mark.parametrize("end", ["?", "tre", "[5 6", "{5", ",", "nul}"])
def test_a_malformed_value_at_the_end_of_a_file_truncates_nothing(end: str) -> None:
    (reading,), error = until_broken(b'{"a": {"b": 1, "c": ' + end.encode(), format="ndjson")
    assert reading.faults[0][1].startswith("it is not JSON: ")
    assert error == ""


def test_bytes_that_are_not_utf8_spoil_one_record_only() -> None:
    _, readings = read(b'[{"a": "\xff\xfe"}, {"a": 2}]')
    assert readings[0].raw.encode("utf-8", "surrogateescape") == b'{"a": "\xff\xfe"}'
    assert readings[1].decoded() == {"a": 2}


BROKEN = {
    "an unclosed string": '{"record_id": "5, "checkup_for": "x", "results": [{"name": "a"}]}',
    "an unclosed object": '{"record_id": "5", "checkup_for": "x", "results": [{"name": "a"}]',
    "an unclosed list": '{"record_id": "5", "checkup_for": "x", "results": [{"name": "a"}}',
    "a bracket too many": '{"record_id": "5", "checkup_for": "x"}}',
    "a line end in a text": '{"record_id": "5", "checkup_report": "two\nlines, {brackets]", "disease": "x"}',
    "a tab in a text": '{"record_id": "5", "checkup_report": "a\tb"}',
    "a word": '{"record_id": "5", "disease": yes, "results": [{"name": "a"}, {"name": "b"}]}',
    "nothing": "",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("size", [64, 1_000_000])
def test_whatever_breaks_a_record_costs_that_record_only(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reader, "CHUNK_BYTES", size)
    good = [json.dumps(record(i)) for i in range(10)]
    good[5] = BROKEN[name]
    for data in ("[" + ",\n".join(good) + "]", '{"machine": "A", "records": [' + ", ".join(good) + "]}"):
        readings, error = until_broken(data.encode())
        if name == "nothing":
            assert "a record is expected" in error
            continue
        assert error == ""
        whole = [r.decoded() for r in readings if not r.faults]
        spoilt = [r for r in readings if r.faults]
        wanted = {json.loads(text)["record_id"] for i, text in enumerate(good) if i != 5}
        assert {r["record_id"] for r in whole} - {"5"} == wanted
        assert len(spoilt) == 1
        assert all(part in "".join(r.raw for r in readings) for part in BROKEN[name].split())


def test_long_values_of_many_lines_are_whole_wherever_they_are_cut() -> None:
    """A value whose inner lines begin with a bracket, larger than what is read at once."""
    one = json.dumps(record(1, results=[record()["results"][0]] * 40), indent=0)
    _, readings = read(("\n".join([one] * 300)).encode())
    assert len(readings) == 300
    assert not [r for r in readings if r.faults]


@pytest.mark.parametrize("first", ["checkup_report", "record_id"])
def test_a_single_long_record_is_a_record(first: str) -> None:
    long = {first: None, **record(1, checkup_report="x" * 900_000)}
    found, readings = read(json.dumps(long).encode())
    assert found.format.name == "object"
    assert len(readings) == 1


def test_a_large_dump_with_a_record_a_line_is_a_dump() -> None:
    lines = ",\n".join(json.dumps(record(i)) for i in range(2000))
    for head in (
        '"machine": "A", "records": [\n',
        '"format": "myhealth.machine-memory/1", "machine": "A",\n"records": [\n',
    ):
        found, readings = read(("{" + head + lines + "\n]}").encode())
        assert (found.format.name, len(readings)) == ("memory", 2000)


def test_what_follows_a_record_on_its_line_spoils_it() -> None:
    _, readings = read(b'{"a": 1},\n{"a": 2} {"a": 3}\n{"a": 4}')
    assert [bool(r.faults) for r in readings] == [True, True, False]
    assert "something follows it on its line" in readings[0].faults[0][1]


def test_labels_of_a_machine_are_taken_as_far_as_they_are_good() -> None:
    found, _ = read(b'{"machine": {"serial": "A", "site": "Ward 3/4", "firmware": 4, "model": ""}, "records": []}')
    assert found.machine == {"serial": "A", "site": "Ward 3/4", "firmware": "4"}
    assert read(b'{"machine": {}, "records": []}', machine="HC-1")[0].serial == "HC-1"


@pytest.mark.parametrize("size", range(0, 300, 13))
def test_a_file_that_is_cut_gives_what_is_whole_and_the_rest_as_it_is(size: int) -> None:
    data = dump(RECORDS[:1] * 20)
    cut = data[: len(data) // 2 + size]
    readings, error = until_broken(cut)
    assert "cut short" in error
    whole = [reading for reading in readings if not reading.faults]
    assert all(reading.decoded() == RECORDS[0] for reading in whole)
    assert len(readings) - len(whole) <= 1
    for reading in readings:
        if reading.faults:
            assert cut.decode().endswith(reading.raw), "the fragment is kept as well"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b" \n ", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"hello", "line 1: it is neither JSON, HL7 v2, a table nor gzip; it begins with 'hello'"),
        (b"\xff\xfe[\x00", "it is UTF-16; save it as UTF-8"),
        (b"<Bundle/>", "it is XML; FHIR is read as JSON"),
        (b"\x1f\x8b\x08broken", "the gzipped file is damaged"),
        (b"\x1f\x8b", "the gzipped file is damaged"),
        (gzip.compress(b"[1, 2]", mtime=0)[:-9], "the gzipped file is damaged or cut short"),
        (b"[1, 2] 3", "line 1: nothing more is expected, but '3' follows"),
        (b"[1 2]", "line 1: a comma or the end of the list is expected, not '2'"),
        (b"[1,\n,2]", "line 2: a record is expected, not ','"),
        (b"[1,]", "line 1: a record is expected, not ']'"),
        (b'{"format": "myhealth.machine-memory/2", "records": []}', "format 'myhealth.machine-memory/2' is not known"),
        (b'{"format": "myhealth.machine-memory/1", "machine": "A"}', "the dump has no records"),
        (b'{"machine": "A", "records": {}}', "line 1: a list of records is expected, not '{'"),
        (b'{"machine": "A", "records": [],\n"records": []}', "line 2: the dump has two lists named records"),
        (b'{"records": [1]}', "does not say which machine"),
        (b'{"machine": {"serial": 5}, "records": []}', "line 1: machine.serial: a machine's serial is needed"),
        (b'{"machine": ["A"], "records": []}', "line 1: machine must be an object with a serial"),
        (b'{"machine": "A\\n", "records": []}', "machine.serial"),
        (b'{"format" "x", "records": []}', "line 1: a colon is expected"),
        (b'{"format": nonsense, "records": []}', "line 1: it is not JSON"),
    ],
    ids=lambda value: repr(value)[:40] if isinstance(value, bytes) else "",
)  # fmt: skip
def test_a_source_that_is_no_dump_is_told_with_its_place(data: bytes, said: str) -> None:
    _, error = until_broken(data)
    assert said in error


def test_the_parts_of_a_dump_may_stand_in_any_order() -> None:
    data = b'{"records": [{"a": 1}], "x": [1, {"records": 2}], "machine": {"serial": "HC-9", "model": "M"}}'
    found, readings = read(data)
    assert found.machine == {"serial": "HC-9", "model": "M"}
    assert [reading.decoded() for reading in readings] == [{"a": 1}]


def test_the_machine_that_was_named_must_be_the_dumps_own() -> None:
    assert read(dump([]), machine="HC-1")[0].serial == "HC-1"
    with pytest.raises(BadInput, match="of the machine HC-1, not of HC-2"):
        read(dump([]), machine="HC-2")
    with pytest.raises(BadInput, match="of the machine HC-1, not of HC-2"):
        read(b'{"records": [{}], "machine": {"serial": "HC-1"}}', machine="HC-2")
    with pytest.raises(BadInput, match="a machine's serial is needed"):
        read(dump([]), machine=" ")
    assert read(b'{"records": []}', machine="HC-2")[0].serial == "HC-2"


def test_deep_nesting_is_a_fault_of_its_record() -> None:
    _, readings = read(b'[{"a": 1}, ' + b"[" * 100_000 + b"]" * 100_000 + b", 3]")
    assert [bool(reading.faults) for reading in readings] == [False, True, False]


def test_a_record_beyond_all_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reader, "RECORD_MAX", 1000)
    monkeypatch.setattr(json_reader, "CHUNK_BYTES", 100)
    long = b'{"disease": "' + b"x" * 5000 + b'"}'
    for data in (b'[{"a": 1},\n' + long + b', {"disease": "y"}]', b'{"a": 1}\n' + long + b'\n{"disease": "y"}'):
        readings, error = until_broken(data)
        assert [bool(reading.faults) for reading in readings] == [False, True, False]
        assert "has more than 1000 characters" in readings[1].faults[0][1]
        assert readings[2].decoded() == {"disease": "y"}
        assert error == ""


def test_unpacking_stops_at_its_bound() -> None:
    bomb = gzip.compress(b"[" + b" " * 50_000_000 + b"]")
    with pytest.raises(TooLarge):
        list(read_dump(io.BytesIO(bomb), max_bytes=1_000_000).records)


def test_a_name_that_stands_twice_is_noticed() -> None:
    _, (reading,) = read(b'[{"a": 1, "b": 2, "a": 3}]')
    assert reading.decoded().name == "a"


@settings(max_examples=300)
@given(st.binary(max_size=300))
@example(b'{"a"' * 50)
@example(b'["' + b"\\" * 99)
@example(b"[" * 5000)
def test_no_bytes_at_all_make_it_stumble(data: bytes) -> None:
    readings, _ = until_broken(data)
    for reading in readings:
        assert (
            reading.raw.encode("utf-8", "surrogateescape") in data.replace(b"\xef\xbb\xbf", b"")
            or data[:2] == b"\x1f\x8b"
        )


def test_sound_records_are_passed_many_at_a_time_and_come_out_like_those_read_one_by_one(monkeypatch) -> None:
    """A broken one among them, text that looks like a record, line ends between them, and letters of several bytes."""
    records = [record(i, checkup_report='Zoë said: , {"record_id": ' * (i % 3)) for i in range(3000)]
    parts = [json.dumps(each, ensure_ascii=i % 5 == 0) for i, each in enumerate(records)]
    parts[700], parts[2000] = parts[700].replace('"BP"', '"B\tP"'), '{"record_id" "x"}'
    data = ("[\n" + ",\r\n ".join(parts) + "\n]").encode()
    _, quick = read(data)
    monkeypatch.setattr("myhealth.intake.formats.json_reader.BRACES_TRIED", 0)
    _, slow = read(data)
    facts = [[(r.index, r.line, r.raw, r.faults, r.faults or r.decoded()) for r in each] for each in (quick, slow)]
    assert facts[0] == facts[1]
    assert [reading.raw for reading in quick] == [reading.raw for reading in slow]
    assert [reading.index for reading in quick if reading.faults] == [700, 2000]
    assert quick[2999].line == 3001
