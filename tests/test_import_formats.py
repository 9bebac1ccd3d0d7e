"""`myhealth import-machine` with every format: rejected records are written back, and samples are accepted whole."""

import gzip
import json

import pytest
from support.factories import dump, record
from support.paths import DATA

from myhealth.profiles.services import create_user

pytestmark = pytest.mark.usefixtures("people")


def observation(number: int, patient: str) -> dict:
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7", "display": "Glucose"}]},
        "subject": {"reference": f"Patient/{patient}"},
        "effectiveDateTime": "2026-11-20T09:14:03+05:30",
        "valueQuantity": {"value": 6.3, "unit": "mmol/L"},
    }


def message(number: int, patient: str) -> str:
    return "\r".join(
        [
            f"MSH|^~\\&|HC9000|PUNE|||20261120091500||ORU^R01^ORU_R01|MSG{number}|P|2.5.1",
            f"PID|1||{patient}||Kulkarni^Bholanath",
            f"OBR|1||F{number}^LAB|24331-1^Lipid panel^LN|||20261120090000",
            "OBX|1|NM|2093-3^Cholesterol^LN||5.10|mmol/L|3.0-5.2|N|||F",
            "",
        ]
    )


def bundle(resources: list[dict]) -> bytes:
    entries = [{"resource": resource} for resource in resources]
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}, indent=1).encode()


NAMES = ["bholanath", "nobody", "savita", "nobody"]
RECORDS = [record(i, patient=name) for i, name in enumerate(NAMES)]
RESOURCES = [observation(i, name) for i, name in enumerate(NAMES)]
FORMATS = {
    "memory": dump(RECORDS),
    "list": json.dumps(RECORDS, indent=2).encode(),
    "ndjson": "\n".join(map(json.dumps, RECORDS)).encode(),
    "fhir bundle": bundle(RESOURCES),
    "fhir ndjson": "\n".join(map(json.dumps, RESOURCES)).encode(),
    "fhir list": json.dumps(RESOURCES).encode(),
    "hl7": "".join(message(i, name) for i, name in enumerate(NAMES)).encode(),
    "csv": (
        "record_id,patient,taken_at,name,code,value,unit\n"
        + "".join(f"{i},{name},2026-11-20,Glucose,2345-7,6.3,mmol/L\n" for i, name in enumerate(NAMES))
    ).encode(),
    "gzipped": gzip.compress(dump(RECORDS)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_refused_records_come_back_in_their_format_and_go_in_once_they_are_right(
    db, run_cli, tmp_path, name: str
) -> None:
    path, refused = tmp_path / "dump", tmp_path / "refused"
    path.write_bytes(FORMATS[name])
    words = ("--machine", "HC-1") if name in ("list", "ndjson") else ()
    done = run_cli("import-machine", str(path), "--rejected", str(refused), *words)
    assert done.stdout == f"{path}: 2 accepted, 0 duplicate, 2 rejected.\n", done.stderr
    assert b"savita" not in refused.read_bytes()
    refused.write_bytes(refused.read_bytes().replace(b"nobody", b"savita"))
    again = run_cli("import-machine", str(refused), *words)
    assert (again.returncode, again.stdout) == (0, f"{refused}: 2 accepted, 0 duplicate, 0 rejected.\n"), again.stderr
    assert db("select count(*), count(distinct record_id) from checkups") == [(4, 4)]
    assert db("select count(distinct machine_id) from checkups where machine_id is not null")[0][0] <= 1


@pytest.mark.parametrize("name", FORMATS)
def test_a_patient_map_says_who_is_meant_and_a_retry_takes_the_others_in(db, run_cli, tmp_path, name: str) -> None:
    path, people = tmp_path / "dump", tmp_path / "people.csv"
    path.write_bytes(FORMATS[name].replace(b"savita", b"M-77") if name != "gzipped" else FORMATS[name])
    people.write_text("patient,username\nM-77,savita\n")
    done = run_cli("import-machine", str(path), "--patient-map", str(people))
    assert done.stdout == f"{path}: 2 accepted, 0 duplicate, 2 rejected.\n", done.stderr
    whose = "select username from checkups join users on users.id = patient_id order by username"
    assert db(whose) == [("bholanath",), ("savita",)]
    create_user("nobody")
    assert run_cli("rejections", "retry", "--all").returncode == 0
    assert db(whose) == [("bholanath",), ("nobody",), ("nobody",), ("savita",)]


def test_a_refused_file_that_is_there_is_never_written_over(db, run_cli, tmp_path) -> None:
    path, refused = tmp_path / "dump", tmp_path / "refused"
    path.write_bytes(FORMATS["memory"])
    refused.write_text("corrected by hand")
    done = run_cli("import-machine", str(path), "--rejected", str(refused))
    assert done.returncode == 2
    assert "is there already; move it away first" in done.stderr
    assert refused.read_text() == "corrected by hand"


def test_a_format_can_be_forced_and_a_wrong_one_is_told(db, run_cli, tmp_path) -> None:
    path = tmp_path / "dump"
    path.write_bytes(json.dumps(RECORDS[0], indent=2).encode())
    assert run_cli("import-machine", str(path), "--format", "ndjson").returncode == 0
    for wrong in ("memory", "list", "fhir", "hl7"):
        done = run_cli("import-machine", str(path), "--format", wrong)
        assert done.returncode in (1, 2), wrong
        assert "Traceback" not in done.stderr
    assert db("select count(*) from checkups") == [(1,)]


def test_all_that_others_wrote_goes_in_and_what_is_no_result_is_said(db, run_cli) -> None:
    """HL7's examples, two synthetic patients and HL7's own message, in one command; then once more."""
    files = [str(path) for folder in ("fhir-r4", "bundles", "hl7v2") for path in sorted((DATA / folder).iterdir())]
    (nobodys,) = [file for file in files if file.endswith("Observation-decimal.json")]  # it names no patient at all
    files.remove(nobodys)
    done = run_cli("import-machine", "--create-patients", "--json", *files)
    assert "Traceback" not in done.stderr
    told = {summary["file"].rsplit("/", 1)[1]: summary for summary in json.loads(done.stdout)}
    assert not any(summary["error"] or summary["rejected"] for summary in told.values()), {
        name: (s["error"], s["items"]) for name, s in told.items() if s["error"] or s["rejected"]
    }
    stored = db("select count(*) from checkups")[0][0]
    assert stored == sum(summary["accepted"] for summary in told.values())
