"""Several orders (OBR) of one number: which one a message means, in whatever sequence they come."""

from __future__ import annotations

import io
import itertools
import json
from typing import Any

import pytest
from support.hl7 import MSH, read
from support.tables import take_in

from myhealth.intake.corrections import delete_checkup
from myhealth.intake.file_import import FileImport, ImportOptions

ORC = "ORC|RE|P1^ORD|F1^LAB"
PID = "PID|1||bholanath"
CREATED, REPLACED, DUPLICATE = ("accepted", "created"), ("accepted", "replaced"), ("duplicate", "none")
NUMBERS = itertools.count(1)


def order(code: str, test: str, value: Any, status: str = "F", hour: int = 9, number: str = "") -> list[str]:
    """Return an OBR with one result. `number`: OBR-2 and OBR-3."""
    return [
        f"OBR|1|{number or '|'}|{code}^{code}^L|||20261120{hour:02}0000",
        f"OBX|1|NM|{test}^{test}^L||{value}|mmol/L|||||{status}",
    ]


def message(*orders: list[str]) -> str:
    """Return a message of orders under one ORC, with a number and a time of its own."""
    number = next(NUMBERS)
    head = MSH.replace("MSG1", f"MSG{number}").replace(
        "20261120091500", f"202611201{number // 60:01}{number % 60:02}00"
    )
    return "\r".join([head, PID, ORC, *itertools.chain(*orders), ""])


def take(text: str) -> list[tuple[str, str]]:
    taken = FileImport(io.BytesIO(text.encode()), "test", ImportOptions())
    return [(result.status, result.effect) for batch in taken for _, result in batch]


def send(*orders: list[str]) -> list[tuple[str, str]]:
    return take(message(*orders))


def shown(db: Any) -> dict[str, list[Any]]:
    """Return the values that are shown, by the number of their check-up."""
    found = db(
        "select record_id, results::text from checkups where status is distinct from 'entered-in-error' order by id"
    )
    return {
        number: [each["value"] for each in json.loads(text) if each.get("status") != "entered-in-error"]
        for number, text in found
    }


def test_an_order_control_segment_counts_for_the_orders_behind_it_without_a_number(db, people) -> None:
    found = read(MSH, PID, ORC, *order("A", "a", 1), *order("B", "b", 2), *order("C", "c", 3, number="P9|F9"))
    assert [each.record["record_id"] for each in found] == ["F1^LAB", "F1^LAB#2", "F9"]
    assert [read(*each.raw.split("\r"))[0].record == each.record for each in found] == [True] * 3
    assert [each.record["record_id"] for each in read(MSH, PID, ORC, *order("A", "a", 1), PID, *order("B", "b", 2))] == [
        "F1^LAB", "MSG1-2"
    ]  # fmt: skip


def test_an_order_stored_under_the_number_of_its_message_is_known_by_the_segment_before_the_first(db, people) -> None:
    text = "\r".join([MSH, PID, ORC, *order("A", "a", 1), *order("B", "b", 2), ""])
    assert take_in(text)["accepted"] == 2
    db("update checkups set record_id = 'MSG1-2' where id = 2")  # as releases did that read it for the first alone
    assert take_in(text)["duplicate"] == 2


def test_a_long_control_segment_of_many_orders_is_not_repeated_without_bound() -> None:
    (found,) = read(MSH, PID, f"ORC|RE|P1|F1|{'x' * 200_000}", *["OBR|1"] * 100)
    assert "its orders repeat too much" in found.faults[0][1]


A, B = order("A", "a", 1), order("B", "b", 2)
KINDS = {
    "other orders": (A, B, order("B", "b", 2.5, "C")),
    "one order at two moments": (A, order("A", "a", 2, hour=10), order("A", "a", 2.5, "C", hour=10)),
    "one order for two tests": (A, order("A", "b", 2), order("A", "b", 2.5, "C")),
}


@pytest.mark.parametrize(("first", "second", "corrected"), KINDS.values(), ids=KINDS)
def test_orders_of_one_number_are_told_apart_in_any_sequence(db, people, first, second, corrected) -> None:
    assert send(first, second) == [CREATED] * 2
    for again in ([first, second], [second, first], [second], [first]):
        assert send(*again) == [DUPLICATE] * len(again)
    assert shown(db) == {"F1^LAB": [1], "F1^LAB#2": [2]}
    assert send(corrected) == [REPLACED]
    for again in ([first, second], [second, first], [second], [corrected, first]):
        assert send(*again) == [DUPLICATE] * len(again)
    assert shown(db) == {"F1^LAB": [1], "F1^LAB#2": [2.5]}


@pytest.mark.parametrize(("first", "second", "corrected"), KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("deleted", [1, 2])
def test_a_deleted_order_does_not_come_back_within_another_one(db, people, first, second, corrected, deleted) -> None:
    send(first, second)
    delete_checkup(people["bholanath"], deleted)
    left = {"F1^LAB": [1]} if deleted == 2 else {"F1^LAB#2": [2]}
    for again in ([first, second], [second, first], [second], [first]):
        assert send(*again) == [DUPLICATE] * len(again)
        assert shown(db) == left


def test_a_correction_of_a_deleted_order_is_refused(db, people) -> None:
    send(A, B)
    delete_checkup(people["bholanath"], 2)
    assert send(order("B", "b", 2.5, "C")) == [("rejected", "none")]
    assert send(A, B, order("C", "c", 3)) == [DUPLICATE, DUPLICATE, CREATED]
    assert shown(db) == {"F1^LAB": [1], "F1^LAB#3": [3]}


SEQUENCES: dict[str, tuple[list[list[list[str]]], list[Any]]] = {
    "an order that came with another": ([[A], [B], [order("B", "c", 3, "P"), order("A", "a", 4)]], [2, 3, 4]),
    "corrected behind another": ([[A], [order("B", "b", 2), order("A", "a", 5, "C")]], [2, 5]),
    "in another sequence": ([[A, B], [B, A], [order("B", "b", 3), A]], [1, 3]),
}


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one file"])
@pytest.mark.parametrize(("messages", "values"), SEQUENCES.values(), ids=SEQUENCES)
def test_messages_of_one_file_are_taken_as_one_after_the_other(db, people, messages, values, together) -> None:
    texts = [message(*each) for each in messages]
    for again in range(2):
        found = take("\r".join(texts)) if together else [one for each in texts for one in take(each)]
        assert not again or {status for status, _ in found} == {"duplicate"}
        assert sorted(each for found in shown(db).values() for each in found) == values


DAY = "20261120"
AGAIN: dict[str, tuple[str, list[tuple[Any, str]], list[Any]]] = {
    "the deleted value": (f"{DAY}090000", [(3, "F"), ("", "D"), (3, "P")], []),
    "its preliminary value": (f"{DAY}090000", [(3, "P"), (2, "F"), ("", "D"), (3, "P")], []),
    "another value after it": (f"{DAY}090000", [(3, "F"), ("", "D"), (2, "P")], [2]),
    "of a day": (DAY, [(1, "P"), (1, "F")], [1]),
    "of a day with two": (DAY, [(1, "F"), (3, "C"), (2, "F")], [2, 3]),
    "of one status": (f"{DAY}090000", [(2, "F"), (1, "P"), (1, "F")], [1, 2]),
}


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one file"])
@pytest.mark.parametrize(("moment", "sent", "values"), AGAIN.values(), ids=AGAIN)
def test_messages_without_an_order_number_are_known_again(db, people, moment, sent, values, together) -> None:
    head = [MSH, PID, f"OBR|1|||A^A^L|||{moment}"]
    texts = [
        "\r".join([*head, f"OBX|1|NM|a^a^L||{value}|mmol/L|||||{status}", ""]).replace("MSG1", f"MSG{number}")
        for number, (value, status) in enumerate(sent)
    ]
    for again in range(2):
        found = take("\r".join(texts)) if together else [one for each in texts for one in take(each)]
        assert not again or {status for status, _ in found} == {"duplicate"}
        assert sorted(each for found in shown(db).values() for each in found) == values
