"""The upload API under requests that nobody would write by hand: no fault, nothing outside its description, and no
other person's data. Every check of schemathesis is on.

A share of the requests runs with the long tests; the whole (more than 20,000 requests), which takes some minutes, with
`FUZZ_EXAMPLES=80 pytest -m long tests/test_upload_fuzz.py`.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
from schemathesis.core.parameters import ParameterLocation
from support import fuzzing
from support.factories import PASSWORD, record, take
from support.upload_access import CALLERS

from myhealth.profiles.services import create_user
from wsgi.upload import make_app

EXAMPLES = fuzzing.examples(2)
# What no answer to somebody else may hold: the one is in Savita's check-up, the other her name.
SECRET, NAME = "the secret of savita", "Savita the Secret"
SEEING = {SECRET: ("savita", "dr.ayush"), NAME: ("savita", "dr.ayush", "root")}
ROLES = {"bholanath": "patient", "savita": "patient", "dr.ayush": "doctor", "tara": "technician", "root": "admin",
         "runner": "service"}  # fmt: skip
# Rules that JSON Schema cannot state, in the words of the answers.
UNSAYABLE = re.compile(
    "there is no user named|look alike|look like others|bytes; at most 72|the username (holds|contains|mixes|is a path)|most common ones"
    "|with same information|came under this Idempotency-Key|the dump is of the machine|, the patient of all records"
    "|is not between the years|an impossible zone|, above high|cannot be kept exactly|, but the whole dump is of"
    "|(holds|contains) a control character|account_not_linked|is not linked to a person|was erased|begins or ends with a space|must be text or a whole number, not a number|is empty"
    "|there is no patient with|nobody said that the account|contradicts what is known|are different users here"
    "|has no number that names|is not a date like 1983|is not between 1[0-9]+ and today|was corrected here|must be a whole number, not a number"
    "|is stored with other content|was deleted here with other content|another record of this all-or-nothing"
    "|is not a zone|; the columns are|there is no header|the header contains bytes|the file is empty|it is a binary file|the layout cannot be read"  # no table
)


@pytest.mark.long
@pytest.mark.parametrize("caller", ["", *CALLERS])
def test_nothing_breaks_it_and_nothing_leaks(people, settings, calling, log_in, db, caller: str) -> None:
    upload = calling(make_app(dataclasses.replace(settings, trusted_proxies="unix")))
    asked, addresses = fuzzing.Asked(), others()

    def headers() -> dict[str, str]:
        """A new login, for the last request may have ended the one before; from elsewhere, for guesses are slowed."""
        token = {"Authorization": f"Bearer {log_in(caller)}"} if caller else {}
        return {"X-Forwarded-For": next(addresses), **token}

    def look(answer: Any) -> None:
        for marker, seeing in SEEING.items():
            if caller not in seeing:
                assert marker.encode() not in answer.content

    schema = fuzzing.described(upload)
    for operation in schema.get_all_operations():
        restore(db)
        fuzzing.ask_many(operation.ok(), EXAMPLES, headers, asked, look, aim, excused)
    print(f"\n{caller or 'nobody'}: {sum(asked.values())} requests, {dict(sorted(asked.items()))}")
    assert sum(asked.values()) >= EXAMPLES * 10
    assert max(asked) < 500


def others() -> Iterator[str]:
    for number in itertools.count():
        yield f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def restore(db: Any) -> None:
    """People as they were, whatever a request has made of them; check-ups 1 and 2."""
    db("delete from users")
    db("delete from erased_digests")
    db("alter table checkups alter id restart")
    for name, role in ROLES.items():
        create_user(name, password=PASSWORD, role=role, rounds=4, full_name=NAME if name == "savita" else "")
    take(record(1), record(2, patient="savita", checkup_report=SECRET))


def aim(case: Any, luck: Any) -> None:
    """Every other request is about people and check-ups that are there, and every other good one brings what can be
    taken in."""
    parts = case.path_parameters or {}
    there = {
        "username": luck.choice(list(ROLES)),
        "checkup_id": luck.choice([1, 2]),
        "serial": "HC-1",
        "rejection_id": 1,
    }
    if parts and not case.meta.is_negative_at(ParameterLocation.PATH) and luck.random() < 0.5:
        case.path_parameters = parts = {name: there[name] for name in parts}
    if case.meta.generation.mode.is_positive and luck.random() < 0.5:
        patient = parts.get("username") or luck.choice(["bholanath", "savita"])
        login = {"username": patient, "password": PASSWORD}
        case.body = login if case.operation.path == "/login/" else aimed(case.body, patient, luck)


def aimed(body: Any, patient: str, luck: Any) -> Any:
    """A body whose records are about this patient, and whose revision is the one that is stored."""
    if isinstance(body, list):
        return [aimed(part, patient, luck) for part in body]
    if not isinstance(body, dict):
        return body
    changes = {"checkup_for": patient, "record_id": luck.choice(["1", "2", None, "x"]), "revision": 1}
    found = {**body, **{name: value for name, value in changes.items() if name in body}}
    return {**found, "records": aimed(body["records"], patient, luck)} if "records" in body else found


def excused(case: Any, answer: Any) -> bool:
    if answer.status_code in (200, 201) and case.method == "POST" and b'"rejected":' in answer.content:
        return answer.json()["rejected"] > 0  # a bad record stops no good one
    if answer.status_code not in (400, 422):
        return False
    if isinstance(case.body, dict) and "resourceType" in case.body:
        return True  # what FHIR demands is HL7's to describe
    said = answer.json()
    if "resourceType" in said:
        return True
    if said["details"] == "It is still rejected." and not (isinstance(case.body, dict) and case.body.get("record")):
        return True  # what was stored before, not what was sent
    faults = [fault for item in said.get("items", [said]) for fault in item["errors"]]
    told = [fault["message"] for fault in faults if not str(fault["field"]).startswith("sent")]  # `sent` has any form
    return all(UNSAYABLE.search(message) for message in (told if faults else [said["details"]]))
