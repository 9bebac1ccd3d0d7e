"""The registry of formats: everything that handles a format asks it, so that a new one is one file and one line."""

import gzip
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.factories import dump, record
from support.paths import ROOT

from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.formats import NAMES, registry
from myhealth.intake.formats.format import Format
from myhealth.intake.formats.json_reader import WIDE_MAX_BYTES
from myhealth.intake.formats.registry import detect_format, read_dump
from myhealth.intake.formats.source import Source
from myhealth.intake.rejections import list_rejections
from myhealth.intake.retry import retry_rejection
from myhealth.profiles.services import create_user

TABLE = b"!toy|record_id|checkup_for|value\n1|bholanath|128\n2|nobody|119\n3|savita|131\n4|nobody|118\n"
RUN_WITH_TOY = "import sys; import support.toy_format; from cli.main import main; sys.argv[0] = 'myhealth'; main()"


@pytest.fixture
def toy() -> Iterator[Format]:
    before = list(registry.FORMATS)
    try:
        from support.toy_format import TOY

        registry.FORMATS[:] = [TOY, *(each for each in before if each is not TOY)]
        yield TOY
    finally:
        registry.FORMATS[:] = [each for each in before if each.name != "toy"]


def test_help_names_the_formats_of_the_registry() -> None:
    assert list(NAMES) == registry.format_names()


@pytest.mark.process
@pytest.mark.usefixtures("people")
def test_a_format_of_one_file_is_imported_rejected_written_and_imported_again(db, settings, tmp_path: Path) -> None:
    """The command line in a process of its own, whose only difference is the line that registers the format."""
    environ = {**os.environ, "MYHEALTH_DATABASE_URL": settings.database_url, "PYTHONPATH": f"{ROOT}/tests"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", RUN_WITH_TOY, *words]
        return subprocess.run(command, capture_output=True, text=True, env=environ, cwd=ROOT)

    path, rejected = tmp_path / "table", tmp_path / "rejected"
    path.write_bytes(TABLE)
    done = run("import-machine", str(path), "--rejected", str(rejected))
    assert done.stdout == f"{path}: 2 accepted, 0 duplicate, 2 rejected.\n", done.stderr
    assert f"{path}, line 3: record 2 (record_id 2): checkup_for: there is no user named nobody" in done.stderr
    assert rejected.read_text() == "!toy|record_id|checkup_for|value\n2|nobody|119\n4|nobody|118\n"
    rejected.write_bytes(rejected.read_bytes().replace(b"nobody", b"savita", 1))
    again = run("import-machine", str(rejected), "--format", "toy")
    assert again.stdout == f"{rejected}: 1 accepted, 0 duplicate, 1 rejected.\n", again.stderr
    create_user("nobody")
    retried = run("rejections", "retry", "--all")
    assert "2 rejected records: 1 still rejected, 1 accepted." in retried.stdout, retried  # record 2 is savita's by now
    found = db("select record_id, username, results->0->>'value' from checkups join users on users.id = patient_id"
               " order by record_id")  # fmt: skip
    assert found == [
        ("1", "bholanath", "128"),
        ("2", "savita", "119"),
        ("3", "savita", "131"),
        ("4", "nobody", "118"),
    ]


def test_a_registered_format_is_read_and_retried_in_this_process(db, people, toy: Format) -> None:
    started = FileImport(io.BytesIO(TABLE), "table", ImportOptions())
    assert started.dump.format is toy
    statuses = [result.status for batch in started for _, result in batch]
    assert statuses == ["accepted", "rejected", "accepted", "rejected"]
    assert {row.context["format"] for row in list_rejections()} == {"toy"}
    create_user("nobody")
    results = [retry_rejection(row.id) for row in list_rejections()]
    assert [result.status for result in results] == ["accepted", "accepted"], results


def test_an_upload_of_a_registered_format_answers_with_its_rejected_records(upload, log_in, toy: Format) -> None:
    token = log_in("tara")
    for status in ("accepted", "duplicate"):
        answer = upload("POST", "/checkups/", TABLE, token=token, query_string="refused_file=true")
        assert (answer.json[status], answer.json["rejected"]) == (2, 2)
        assert answer.json["refused_file"] == "!toy|record_id|checkup_for|value\n2|nobody|119\n4|nobody|118\n"


ONE, TWO = (json.dumps(record(i)) for i in (1, 2))
LONG = json.dumps(record(3, checkup_report="x" * 900_000))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (ONE, "object"),
        (f"\n {ONE}\n\n", "object"),
        (json.dumps(record(1), indent=2), "object"),
        (LONG, "object"),
        ("{}", "object"),
        (f"{ONE}\n{TWO}", "ndjson"),
        (f"{LONG}\n{TWO}", "ndjson"),
        (f"{ONE} {TWO}", "ndjson"),
        (f'{ONE[:-1]}\n{{"a": 1}}', "ndjson"),
        ('{"checkup_for": "x" "y"}', "ndjson"),
        (f"[{ONE}]", "list"),
        ("[]", "list"),
        (dump([record(1)]).decode(), "memory"),
        (f'{{"records": [{LONG}]}}', "memory"),
        ('{"unknown": [1, 2', "memory"),
        ('{"resourceType": "Observation"}', "fhir"),
        ('[{"resourceType": "Observation"}]', "fhir"),
        ('{"resourceType": "Bundle", "machine": "HC-1", "records": []}', "memory"),
        ("MSH|^~\\&|HC9000", "hl7"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else "",
)
def test_a_source_is_recognised(data: str, name: str) -> None:
    assert detect_format(Source(io.BytesIO(data.encode()))).name == name


def test_only_a_single_object_answers_404_for_an_unknown_user(upload, log_in) -> None:
    """Clients of the first version rely on it: a list, or an object on each of several lines, has an answer for each."""
    token = log_in("tara")
    unknown = json.dumps(record(1, patient="nobody"))

    def status(body: str) -> tuple[int, Any]:
        answer = upload("POST", "/checkups/", body.encode(), token=token)
        return answer.status_code, answer.json["details"]

    assert status(unknown) == (404, "User does not exist!")
    assert status(f"\n{unknown}\n") == (404, "User does not exist!")
    assert status(f"[{unknown}]")[0] == 422
    assert status(f"{unknown}\n{unknown}")[0] == 422


def test_no_module_asks_for_a_formats_name() -> None:
    """Only the registry and the format's own module know it."""
    names = "|".join(registry.format_names())
    asking = re.compile(rf"format\S* (?:==|!=|in|not in) [(\[{{]?[\"'](?:{names})[\"']")
    files = [path for folder in ("myhealth", "cli", "wsgi") for path in (ROOT / folder).rglob("*.py")]
    assert not {str(path) for path in files if asking.search(path.read_text())}


RECORD = json.dumps(record(1, checkup_report="Zoë\n"), indent=1, ensure_ascii=False)


@pytest.mark.parametrize(
    ("sent", "line", "raw"),
    [
        (RECORD.encode(), 1, RECORD),
        (f"\ufeff \r\n\n\t{RECORD} \n\n".encode(), 3, RECORD),
        (gzip.compress(f"\n{RECORD}".encode()), 2, RECORD),
        (f'{RECORD[:-1]}, "n": NaN}}\n'.encode(), 1, f'{RECORD[:-1]}, "n": NaN}}'),
        (RECORD.encode("latin-1"), 1, RECORD.encode("latin-1").decode("utf-8", "surrogateescape")),
        (f"\n{RECORD}{' ' * 300_000}\n".encode(), 2, RECORD),
    ],
    ids=["plain", "with space around it", "gzipped", "with NaN", "not in UTF-8", "with much space behind it"],
)
def test_a_record_alone_is_its_own_text(sent: bytes, line: int, raw: str) -> None:
    (parsed,) = (dump := read_dump(io.BytesIO(sent))).records
    assert (dump.format.name, parsed.index, parsed.line, parsed.raw) == ("object", 0, line, raw)
    assert parsed.faults == []


def test_a_record_alone_that_takes_too_much_memory_is_rejected() -> None:
    wide = json.dumps(record(1, checkup_report="\U0001f600" + "x" * (WIDE_MAX_BYTES // 3)), ensure_ascii=False)
    (parsed,) = (dump := read_dump(io.BytesIO(wide.encode()))).records
    assert dump.format.name == "object"
    assert "bytes of memory; only its beginning is kept" in parsed.faults[0][1]
