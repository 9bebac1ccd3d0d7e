"""A character that no database holds, in any text of a file, refuses a record at most: no error, nothing lost."""

import io
import json
import re

import pytest
from support.factories import dump, record
from support.fhir import FULL, PATIENT, bundle, report

from myhealth.common.errors import BadInput
from myhealth.intake.file_import import FileImport, ImportOptions

pytestmark = pytest.mark.usefixtures("people")

HL7 = "\r".join(
    [
        "MSH|^~\\&|HC9000|PUNE|||20261120091500||ORU^R01^ORU_R01|MSG1|P|2.5.1",
        "PID|1||bholanath^^^HOSP^MR||Kulkarni^Bholanath||19600102|M",
        "OBR|1|P1^ORD|F1^LAB|24331-1^Lipid panel^LN|||20261120090000",
        "OBX|1|NM|2093-3^Cholesterol^LN|1|5.10|mmol/L^mmol/L^UCUM|3.0-5.2|N|||F|||20261120091000",
        "NTE|1||fasting",
        "",
    ]
)
MISSING = bundle(
    PATIENT,
    report("https://x.example/Observation/m", "Observation/n"),
    urls=("https://x.example/Patient/p1", "https://x.example/DiagnosticReport/r1"),
)
DELETED = bundle() | {"entry": [{"fullUrl": "https://x.example/Observation/a",
                                 "request": {"method": "DELETE", "url": "Observation/a"}}]}  # fmt: skip
FILES = {
    "fhir": json.dumps(FULL),
    "missing": json.dumps(MISSING),
    "deleted": json.dumps(DELETED),
    "memory": dump([record(0)]).decode(),
    "hl7": HL7,
    "csv": "patient,taken_at,Glucose (mg/dL)\nbholanath,2026-11-20T09:14:03+05:30,98\n",
}


def broken(text: str) -> list[bytes]:
    """Return the file with each bad character in each of its texts."""
    is_json = text.startswith("{")
    places = [found.end() - 1 for found in re.finditer('"[A-Za-z0-9/#]' if is_json else r"[|^,\n][\w]", text)]
    characters = (b"\xff", b"\\u0000" if is_json else b"\0")
    return [text[:at].encode() + bad + text[at:].encode() for at in places for bad in characters]


@pytest.mark.parametrize("name", FILES)
def test_a_character_that_cannot_be_stored_is_told_wherever_it_stands(db, name: str) -> None:
    refused = 0
    for data in broken(FILES[name]):
        try:
            found = [pair for batch in FileImport(io.BytesIO(data), name, ImportOptions(create_patients=True))
                     for pair in batch]  # fmt: skip
        except BadInput as error:
            assert error.message
            refused += 1
            continue
        for parsed, outcome in found:
            assert outcome.status in ("accepted", "duplicate") or outcome.errors, parsed.raw
        refused += any(outcome.status == "rejected" for _, outcome in found)
    assert refused > 2
    assert db("select count(*) from rejections where payload is null") == [(0,)]
