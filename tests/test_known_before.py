"""Files that an earlier release stored, and that come again: nothing of them is doubled or rejected."""

from typing import Any

import pytest
from support.factories import record, statuses, take
from support.hl7 import MSH, OBX, PID
from support.tables import before_identity_in_any_order, take_in

from myhealth.intake.formats.tables import reader
from myhealth.profiles.identifiers import add_identifier, list_identifiers
from myhealth.profiles.services import get_user

OF_ORC = [MSH, PID, "ORC|RE|P1|F1", "OBR|1|||24331-1^Lipid panel^LN|||20261120090000", OBX, ""]


def test_a_patient_known_by_a_bare_oid_is_known_by_its_urn(people: Any) -> None:
    add_identifier("bholanath", "1.2.276.0.76", "M1")
    known = {"identifiers": [{"system": "urn:oid:1.2.276.0.76", "value": "M1"}]}
    sent = record(1, checkup_for=..., patient=known) | {"patient": known}
    assert statuses(take(sent, create_patients=True)) == ["accepted"]


def test_a_new_patient_has_one_form_of_an_oid(people: Any) -> None:
    known = {"identifiers": [{"system": "urn:oid:1.2.276.0.76", "value": "M1"}]}
    take(record(1, checkup_for=..., patient=known) | {"patient": known}, create_patients=True)
    assert list_identifiers(get_user("M1")) == [("urn:oid:1.2.276.0.76", "M1")]


def test_an_order_stored_under_the_number_of_its_message_is_known_by_that_of_its_orc(people: Any, db: Any) -> None:
    text = "\r".join(OF_ORC)
    take_in(text, create_patients=True)
    db("update checkups set record_id = 'MSG1-1'")  # as releases did that read no ORC
    assert take_in(text)["duplicate"] == 1
    assert db("select record_id from checkups") == [("MSG1-1",)]


def test_what_readers_before_the_last_change_stored_is_known_again(db: Any) -> None:
    ((since,),) = db("select fuller_readers_since() from schema_migration where name = '0024_readers_once_more'")
    assert since is not None
    text = "\r".join([MSH, PID, "OBR|1|P1|F1|24331-1^Lipid panel^LN|||20261120090000", OBX, ""])
    take_in(text, create_patients=True)
    db(
        "update checkups set results = jsonb_set(results, '{0,value}', '\"^5.10\"'), created_at = %s::timestamptz - interval '1 s'",
        since,
    )
    assert take_in(text)["rejected"] == 0


DAY = "2026-11-20"
BEFORE = {
    "a unit in a cell": (f"patient,date,T (mg/dL)\nasha,{DAY},98 mg/dL\n", "98 mg/dL"),
    "a unit in a long row": (f"patient,taken at,test,value,unit\nasha,{DAY},T,98 mg/dL,mg/dL\n", "98 mg/dL"),
    "other digits": (f"patient,date,T\nasha,{DAY},\u096f\u096e\n", "\u096f\u096e"),
    "a failed formula": (f"patient,date,T\nasha,{DAY},#WERT!\n", "#WERT!"),
    "under a number": (f"patient,record id,date,T (mg/dL)\nasha,L1,{DAY},98 mg/dL\n", "98 mg/dL"),
}


@pytest.mark.parametrize(("text", "cell"), BEFORE.values(), ids=BEFORE)
def test_a_cell_that_was_stored_as_text_is_known_again(
    people: Any, db: Any, text: str, cell: str, monkeypatch: Any
) -> None:
    with before_identity_in_any_order(monkeypatch) as before:
        before.setattr(reader, "read_result", lambda each, layout, unit="": {"value": each})
        before.setattr(reader, "was_text", lambda each, value: False)
        assert take_in(text, create_patients=True)["accepted"] == 1
    assert db("select results->0->>'value' from checkups") == [(cell,)]
    assert take_in(text)["duplicate"] == 1
    assert db("select results->0->>'value' from checkups") == [(cell,)]


def test_a_row_that_was_stored_twice_under_its_number_is_known_again(people: Any, db: Any) -> None:
    row = f"asha,L1,{DAY},T,98,mg/dL\n"
    text = f"patient,record id,taken at,test,value,unit\n{row}{row}"
    assert take_in(text, create_patients=True)["accepted"] == 1
    db("update checkups set results = results || results")
    assert take_in(text)["duplicate"] == 1
