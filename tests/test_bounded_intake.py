"""Reading takes time and memory in proportion to the bytes, whatever shape they have; limits are reported."""

import gc
import io
import json
import time
import tracemalloc
from collections.abc import Callable
from datetime import tzinfo
from typing import Any

import pytest
from support.fhir import bundle, named, observation, read, read_text, report

from myhealth.common.errors import BadInput, TooLarge
from myhealth.intake.formats import json_reader
from myhealth.intake.formats.fhir import resources
from myhealth.intake.formats.hl7v2 import subject
from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.formats.json_reader import PARTS_MAX, RECORD_MAX
from myhealth.intake.formats.registry import read_dump

MESSAGE = b"MSH|^~\\&|LAB|A|||20260101||ORU^R01|1|P|2.5\rPID|1||p1\r"
RESULT = b"OBX|1|NM|X||1||||||F\r"


def _same_id(n: int) -> Any:
    return bundle(*[named("1", "Observation/1") for _ in range(n)])


def _history(n: int) -> Any:
    return bundle(
        *[named("1", f"http://a.example/Observation/1/_history/{i - 1}", meta={"versionId": str(i)}) for i in range(n)],
        urls=("http://a.example/Observation/1",) * n,
    )


def _patients(n: int) -> Any:
    patients = [{"resourceType": "Patient", "id": "p1"} for _ in range(n // 2)]
    urls = [f"http://s{i}.example/Patient/p1" for i in range(n // 2)]
    urls += [f"http://s{i}.example/Observation/{i}" for i in range(n // 2)]
    return bundle(*patients, *[named(str(i)) for i in range(n // 2)], urls=tuple(urls))


def _chain(n: int) -> Any:
    return bundle(*[named(str(i), f"Observation/{i + 1}") for i in range(n)])


def _backward_chain(n: int) -> Any:
    return bundle(*[named(str(i), f"Observation/{i - 1}") for i in range(n)])


def _shared_panel(n: int) -> Any:
    reports = [report("Observation/panel", id=f"r{i}") for i in range(n // 2)]
    panel = named("panel", *(f"Observation/{i}" for i in range(n // 2)))
    return bundle(*reports, panel, *[named(str(i)) for i in range(n // 2)])


SHAPES: dict[str, Callable[[int], bytes]] = {
    **{
        make.__name__: lambda n, make=make: json.dumps(make(n)).encode()
        for make in (_same_id, _history, _patients, _chain, _backward_chain, _shared_panel)
    },
    "orders_without_results": lambda n: MESSAGE + b"OBR|1||1|X\r" + 4 * n * b"ORC|RE\r" + RESULT,
    "a_text_of_many_lines": lambda n: MESSAGE + b"OBR|1||1|X\rOBX|1|TX|X||" + 20 * n * b"abc\r" + RESULT,
    "many_notes_before_many_orders": lambda n: MESSAGE + n * b"NTE|1||abc\r" + n * b"OBR|1||1|X\r",
    "escapes": lambda n: MESSAGE + b"OBR|1||1|X\rOBX|1|TX|X||" + 10 * n * b"\\X41\\\\F\\" + b"||||||F\r",
    "blank_lines": lambda n: MESSAGE + 400 * n * b"\r" + RESULT,
    "a_line_without_an_end": lambda n: MESSAGE + min(3_000 * n, RECORD_MAX - 1_000) * b"^",
    "broken_elements": lambda n: b"[" + n * b"{a}," + b"1]",
    "malformed_lists": lambda n: b"[" + n * b"[1}," + b"1]",
}


ORDER = b"OBR|1||1|X\rNTE|1||own\r"


def _cpu_s(data: bytes) -> float:
    started = time.process_time()
    try:
        for _ in read_dump(io.BytesIO(data)).records:
            pass
    except TooLarge:
        pass
    return time.process_time() - started


def _grows_linearly(shape: str, few: int) -> bool:
    """Return whether four times the entries take less than ten times the time: what is quadratic takes 16.

    Other programs disturb it, so the least of up to eight turns counts; of the few entries always that of two.
    """
    gc.freeze()  # what the tests before this one left is not looked through again
    try:
        least, most = _cpu_s(SHAPES[shape](few)), float("inf")
        for _ in range(8):
            least, most = min(least, _cpu_s(SHAPES[shape](few))), min(most, _cpu_s(SHAPES[shape](4 * few)))
            if most < 10 * max(least, 0.1):
                return True
        return False
    finally:
        gc.unfreeze()


def test_a_note_before_all_orders_is_read_once_and_is_of_each_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million readings of a thousand notes for a thousand orders took 12 s."""
    read_note, read_texts = subject._read_note, []

    def watched(segment: Segment, zone: tzinfo) -> dict[str, Any]:
        read_texts.append(segment.text(3))
        return read_note(segment, zone)

    monkeypatch.setattr(subject, "_read_note", watched)
    notes = b"NTE|1||a\rNTE|2||b\r"
    found = [each.record["details"]["notes"] for each in read_dump(io.BytesIO(MESSAGE + notes + 5 * ORDER)).records]
    assert found == [[{"text": "a\nb\nown"}]] * 5
    assert read_texts == ["a", "b", *["own"] * 5]


@pytest.mark.parametrize("shape", SHAPES)
def test_time_grows_with_the_length_of_the_source(shape: str) -> None:
    assert _grows_linearly(shape, 1_000)


@pytest.mark.long
@pytest.mark.parametrize("shape", SHAPES)
def test_four_times_the_entries_cost_about_four_times_the_time(shape: str) -> None:
    """Measured beyond every cap."""
    assert _grows_linearly(shape, 6_000)


def test_a_bundle_with_too_many_entries_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "ENTRIES_MAX", 20)
    assert len(read(bundle(*[named(str(i)) for i in range(20)]))) == 20
    for whole in (
        bundle(*[named(str(i)) for i in range(21)]),
        bundle(bundle(*[named(str(i)) for i in range(20)])),
        bundle(named("a", "#1", contained=[named(str(i)) for i in range(20)])),
    ):
        with pytest.raises(TooLarge, match="more than 20 entries; send it in parts"):
            read(whole)


def test_records_that_share_everything_are_an_error() -> None:
    with pytest.raises(TooLarge, match="share too many"):
        read(_shared_panel(500))
    assert len(read(_shared_panel(100))) == 50
    photo = {"resourceType": "Patient", "id": "p1", "photo": [{"data": "x" * 50_000}]}
    assert len(read(bundle(photo, *[named(str(i)) for i in range(300)]))) == 300


def test_a_nest_of_bundles_is_read_only_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "EXAMINED_MIN", 0)
    nested: dict[str, Any] = bundle(observation())
    for _ in range(100):
        nested = bundle(nested)
    with pytest.raises(TooLarge):
        read(nested)


def test_a_chain_longer_than_a_record_gives_every_result_in_some_record() -> None:
    for make in (_chain, _backward_chain):
        found = read(make(5_000))
        assert len(found) == 3
        assert sum("has more than 2000 results" in str(each.faults) for each in found) == 2
        ids = {text.split('"')[0] for each in found for text in each.raw.split('"id": "')[1:]}
        assert len(ids) == 5_000


def test_the_places_in_a_long_chain_take_little_memory() -> None:
    data = json.dumps(_chain(2_000)).encode()
    tracemalloc.start()
    try:
        (found,) = read_dump(io.BytesIO(data)).records
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.entries) == 2_000
    assert peak < 100_000_000


def test_a_record_of_too_many_values_is_an_error_and_costs_no_other() -> None:
    many = "[" + "[]," * PARTS_MAX + "[]]"
    good = '{"checkup_for": "a"}'
    line = f'{{"checkup_for": "a", "results": {many}}}'
    found = list(read_dump(io.BytesIO(f"{line}\n{good}\n".encode())).records)
    assert [each.faults for each in found] == [
        [("", f"has more than {PARTS_MAX} values; only its beginning is kept")],
        [],
    ]
    found = list(read_dump(io.BytesIO(f"[{good},{line},{good}]".encode())).records)
    assert [bool(each.faults) for each in found] == [False, True, False]
    small = ",".join([good] * 60_000)  # together they have more values, and the long text before them reads ahead
    long = json.dumps({"checkup_for": "a", "checkup_report": "x" * 6_000_000})
    found = list(read_dump(io.BytesIO(f"[{long},{small}]".encode())).records)
    assert (len(found), [each for each in found if each.faults]) == (60_001, [])


def test_a_bundle_may_name_its_type_after_its_entries() -> None:
    whole = bundle(report("Observation/a"), named("a"))
    late = {"id": "b", "entry": whole["entry"], "resourceType": "Bundle"}
    assert [each.record for each in read(late)] == [each.record for each in read(whole)]
    other = {"entry": [{"item": 1}], **observation()}
    assert len(read(other, whole)) == 2


def test_what_follows_a_bundle_on_its_line_is_an_error() -> None:
    text = json.dumps(bundle(named("a")))
    (found,), _ = read_text(f"{text} {text}")
    assert "something follows it on its line" in found.faults[0][1]
    assert len(read_text(f"{text}   \r\n\n{text}\n")[0]) == 2
    with pytest.raises(BadInput):
        read_dump(io.BytesIO(b""))


def test_a_message_of_too_many_parts_is_an_error_and_costs_no_other() -> None:
    many = MESSAGE + b"OBR|1||1|X\r" + RESULT * (PARTS_MAX // 10)
    repeated = MESSAGE + b"OBR|1||1|X\rOBX|1|TX|X||" + b"a~" * PARTS_MAX + b"||||||F\r"
    good = MESSAGE + b"OBR|1||1|X\r" + RESULT
    found = list(read_dump(io.BytesIO(many + repeated + good)).records)
    assert [each.faults for each in found] == [[("", f"it has more than {PARTS_MAX} parts")]] * 2 + [[]]


def test_a_long_text_of_wide_characters_is_an_error_before_it_takes_much_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_reader, "WIDE_MAX_BYTES", 4_000_000)
    lines = [
        json.dumps({"checkup_for": "a", "x": wide + "x" * 1_500_000}, ensure_ascii=False)
        for wide in ("\U0001f600", "e")
    ]
    found = list(read_dump(io.BytesIO("\n".join([*lines, "{}"]).encode())).records)
    assert [bool(each.faults) for each in found] == [True, False, False]
    assert len(found[0].raw) <= json_reader.KEPT_MAX
    assert "bytes of memory" in found[0].faults[0][1]


def test_a_wide_character_makes_no_bundle_of_short_entries_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_reader, "WIDE_MAX_BYTES", 4_000_000)
    whole = bundle(*[named(str(i), note=[{"text": "\U0001f600" + "x" * 1_000}]) for i in range(2_000)])
    found, _ = read_text(json.dumps(whole, ensure_ascii=False))
    assert (len(found), [each for each in found if each.faults]) == (2_000, [])
