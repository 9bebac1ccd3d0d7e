"""Which stored result a later message means: by moment, code, sub-id and number; and values that come without a value."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from support.fhir import bundle, concept, observation, quantity, report
from support.hl7 import MSH, OBR

from myhealth.intake.file_import import FileImport, ImportOptions

PID = "PID|1||bholanath||Kulkarni^Bholanath"


def send(source: Any) -> list[tuple[str, str]]:
    """Import a source of bholanath's results; return the status and the effect of each record."""
    data = (
        json.dumps(source).replace("Patient/p1", "Patient/bholanath").encode() if isinstance(source, dict) else source
    )
    taken = FileImport(io.BytesIO(data), "test", ImportOptions())
    return [(result.status, result.effect) for batch in taken for _, result in batch]


def message(*segments: str, hour: int = 9, obr: str = OBR) -> bytes:
    head = MSH.replace("20261120091500", f"20261120{hour:02}1500")
    return "\r".join((head, PID, obr, *segments, "")).encode()


def obx(value: Any, status: str = "F", code: str = "2093-3^Cholesterol^LN", hour: int | None = None) -> str:
    moment = "" if hour is None else f"20261120{hour:02}0000"
    return f"OBX|1|NM|{code}||{value}|mmol/L|||||{status}|||{moment}"


def shown(db: Any) -> list[Any]:
    """Return the values that are shown as current."""
    found = db(
        "select status, results::text from checkups where status is distinct from 'entered-in-error' order by id"
    )
    results = [each for _, text in found for each in json.loads(text) if each.get("status") != "entered-in-error"]
    return [None if "absent_reason" in each else each["value"] for each in results]


@pytest.mark.parametrize("obr", [OBR, OBR.replace("P1^ORD", "")], ids=["with the sample's number", "without"])
@pytest.mark.parametrize(
    ("later", "effects", "values"),
    [
        ([obx(5.5, "C", hour=10)], ("accepted", "replaced"), [5.1, 5.5]),
        ([obx(5.2, "W", hour=10)], ("accepted", "withdrawn"), [5.1]),
        ([obx(5.2, hour=10)], ("duplicate", "none"), [5.1, 5.2]),
        ([obx(5.1, hour=9), obx(5.2, hour=10), obx(5.3, hour=11)], ("accepted", "replaced"), [5.1, 5.2, 5.3]),
        ([obx(5.6, "C", hour=10), obx(5.1, hour=9)], ("accepted", "replaced"), [5.1, 5.6]),
    ],
    ids=["one is corrected", "one is withdrawn", "one comes again", "a third one", "in another order"],
)
def test_of_a_days_profile_the_moment_tells_which_value_is_meant(db, people, obr, later, effects, values) -> None:
    send(message(obx(5.1, hour=9), obx(5.2, hour=10), obr=obr))
    assert send(message(*later, hour=12, obr=obr)) == [effects]
    assert shown(db) == values


def test_a_point_of_a_profile_that_comes_alone_is_added_and_a_correction_of_none_is_refused(db, people) -> None:
    send(message(obx(5.1, hour=9), obx(5.2, hour=10)))
    assert send(message(obx(5.3, hour=11), hour=12)) == [("accepted", "replaced")]
    assert send(message(obx(5.4, "C", hour=13), hour=14)) == [("rejected", "none")]
    assert shown(db) == [5.1, 5.2, 5.3]


def test_of_two_results_that_nothing_tells_apart_no_one_is_changed(db, people) -> None:
    send(message(obx(5.1), obx(5.2)))
    assert send(message(obx(5.5, "C"), hour=10)) == [("rejected", "none")]
    assert send(message(obx(5.2), hour=10)) == [("duplicate", "none")]
    assert send(message(obx(5.1), obx(5.5, "C"), hour=11)) == [("accepted", "replaced")]
    assert shown(db) == [5.1, 5.5]


@pytest.mark.parametrize(
    "codes", [("GLU^Glucose^L", "GLU^Glucose^L^15074-8^Glucose^LN"), ("15074-8^G^LN^GLU^G^L", "GLU^G^L")]
)
def test_a_result_that_gets_or_loses_its_loinc_code_is_the_same_one(db, people, codes) -> None:
    send(message(obx(5.1, code=codes[0])))
    assert send(message(obx(6.1, "C", code=codes[1]), hour=10)) == [("accepted", "replaced")]
    assert shown(db) == [6.1]


def test_two_tests_with_one_code_of_their_laboratory_stay_two(db, people) -> None:
    fasting, later = "1558-6^Fasting^LN^GLU^G^L", "1521-4^Two hours^LN^GLU^G^L"
    send(message(obx(5.1, code=fasting)))
    send(message(obx(7.1, code=later), hour=10))
    assert shown(db) == [5.1, 7.1]


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a report"])
def test_an_observation_stays_the_same_with_another_code(db, people, grouped) -> None:
    def sent(**changes: Any) -> dict[str, Any]:
        return bundle(observation("a", **changes), *([report("Observation/a", meta=changes["meta"])] * grouped))

    send(sent(meta={"versionId": "1"}))
    other = concept("2345-7", text="Glucose", system="http://loinc.org")
    changed = sent(meta={"versionId": "2"}, code=other, valueQuantity=quantity(110, "mg/dL"), status="corrected")
    assert send(changed) == [("accepted", "replaced")]
    assert shown(db) == [110]


NOTHING: dict[str, Any] = {"status": "cancelled", "valueQuantity": ...}


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a report"])
def test_a_value_follows_what_was_cancelled_without_one_but_not_what_came_before(db, people, grouped) -> None:
    def sent(**changes: Any) -> dict[str, Any]:
        state = {"status": changes["status"]} if "status" in changes else {}
        return bundle(observation("a", **changes), *([report("Observation/a", **state)] * grouped))

    send(sent(**NOTHING))
    assert shown(db) == [None]
    assert send(sent()) == [("accepted", "replaced")]
    assert shown(db) == [6.3]
    assert send(sent(**NOTHING)) == [("accepted", "replaced")]
    assert send(sent()) == [("duplicate", "none")]  # the source sends its whole memory again
    assert shown(db) == [None]


def test_a_cancelled_report_may_come_with_its_results_later(db, people) -> None:
    send(report(status="cancelled"))
    assert send(bundle(observation("a"), report("Observation/a"))) == [("accepted", "replaced")]
    assert shown(db) == [6.3]


def test_final_without_the_value_again_keeps_the_preliminary_value(db, people) -> None:
    again = "OBX|1|NM|2093-3^Cholesterol^LN||||||||U"
    send(message(obx(5.1, "P")))
    assert send(message(again, hour=10)) == [("accepted", "replaced")]
    assert send(message(again, hour=11)) == [("duplicate", "none")]
    assert shown(db) == [5.1]
    assert db("select results::jsonb->0->>'status', status from checkups") == [(None, None)]
    send(message(again, obr=OBR.replace("F1", "F2")))
    assert db("select results::jsonb->0->>'absent_reason' from checkups where record_id like 'F2%%'") == [
        ("not sent again",)
    ]


GLUCOSE, SODIUM, POTASSIUM = (f"OBR|1|P1|F1|{code}^{code} panel^L|||20261120090000" for code in ("GLU", "NA", "K"))


def orders(*segments: str, hour: int = 9) -> bytes:
    return message(*segments[1:], hour=hour, obr=segments[0])


def result(code: str, value: Any, status: str = "F") -> str:
    return obx(value, status, f"{code}^{code}^L")


@pytest.mark.parametrize(
    ("later", "values"),
    [
        ((SODIUM, result("NA", 141, "C")), [5.1, 141]),
        ((SODIUM, result("NA", 140, "W")), [5.1]),
        ((SODIUM, result("NA", 140)), [5.1, 140]),
        ((SODIUM, result("NA", 141, "C"), GLUCOSE, result("GLU", 5.1)), [5.1, 141]),
        ((GLUCOSE, result("GLU", 5.5, "C")), [5.5, 140]),
        ((POTASSIUM, result("K", 4.1)), [5.1, 4.1, 140]),
    ],
    ids=["the second", "the second withdrawn", "the second again", "in another sequence", "the first", "a new one"],
)
def test_an_order_is_known_by_what_was_ordered_where_several_have_one_number(db, people, later, values) -> None:
    send(orders(GLUCOSE, result("GLU", 5.1), SODIUM, result("NA", 140)))
    sent = send(orders(*later, hour=10))
    assert [status for status, _ in sent if status == "rejected"] == []
    assert shown(db) == values
    assert [status for status, _ in send(orders(*later, hour=10))] == ["duplicate"] * len(sent)


def test_an_order_that_came_alone_under_the_number_of_another_is_the_same_one(db, people) -> None:
    send(orders(GLUCOSE, result("GLU", 5.1)))
    send(orders(SODIUM, result("NA", 140), hour=10))
    send(orders(GLUCOSE, result("GLU", 5.5, "C"), SODIUM, result("NA", 144, "C"), hour=11))
    assert shown(db) == [5.5, 144]


def test_two_orders_of_one_kind_are_two_and_which_is_meant_must_be_clear(db, people) -> None:
    send(orders(GLUCOSE, result("X", 5.1)))
    send(orders(GLUCOSE, result("X", 5.1), GLUCOSE, result("X", 7.1), GLUCOSE, result("X", 8.1), hour=10))
    assert shown(db) == [5.1, 7.1, 8.1]
    send(
        orders(SODIUM, result("NA", 1), GLUCOSE, result("X", 2), GLUCOSE, result("X", 3), hour=11).replace(
            b"|F1|", b"|F2|"
        )
    )
    assert send(orders(GLUCOSE, result("X", 4, "C"), hour=12).replace(b"|F1|", b"|F2|")) == [("rejected", "none")]
    assert shown(db) == [5.1, 7.1, 8.1, 1, 2, 3]
