"""`myhealth import-machine` as a technician uses it."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from support.factories import dump, record
from support.hl7 import MSH, OBR, OBX
from support.paths import DATA
from support.servers import running_apis

from myhealth.intake.pipeline import BATCH_RECORDS

pytestmark = pytest.mark.usefixtures("people")
PEOPLE = DATA / "people.json.gz"


@pytest.fixture
def file(tmp_path: Path):
    def write(data: bytes | str, name: str = "dump.json") -> str:
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return str(path)

    return write


def test_it_takes_a_dump_in_and_twice_is_once(db, run_cli, file) -> None:
    path = file(dump([record(1), record(2)]))
    done = run_cli("import-machine", path)
    assert (done.returncode, done.stdout) == (0, f"{path}: 2 accepted, 0 duplicate, 0 rejected.\n"), done.stderr
    assert done.stderr == ""
    again = run_cli("import-machine", path)
    assert (again.returncode, again.stdout) == (0, f"{path}: 0 accepted, 2 duplicate, 0 rejected.\n")
    assert db("select count(*) from checkups") == [(2,)]


def test_it_takes_in_what_a_glob_names_and_says_so_in_all(db, run_cli, file) -> None:
    paths = [file(dump([record(i)]), f"{i}.json") for i in range(3)]
    done = run_cli("import-machine", *paths)
    assert done.stdout.splitlines()[-1] == "In all: 3 accepted, 0 duplicate, 0 rejected."
    done = run_cli("import-machine", *paths, bad := file(b"?", "bad.json"), away := file(b"", "away.json"))
    said = f"In all: 0 accepted, 3 duplicate, 0 rejected; 2 files could not be read: {bad}, {away}."
    assert (done.returncode, done.stdout.splitlines()[-1]) == (2, said)


def test_a_patient_of_all_records_whom_nobody_knows_stops_it_before_anything_is_kept(db, run_cli, file) -> None:
    path = file("taken_at,name,value,unit\n2026-11-20T08:00Z,Glucose,5,mmol/L\n", "one.csv")
    done = run_cli("import-machine", path, "--patient", "nosuch")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no user named nosuch" in done.stderr
    assert db("select count(*) from rejections") == [(0,)]
    made = run_cli("import-machine", path, "--patient", "nosuch", "--create-patients", "--timezone", "UTC")
    assert (made.returncode, db("select count(*) from checkups")) == (0, [(1,)]), made.stderr


def test_it_reads_standard_input(db, run_cli) -> None:
    done = run_cli("import-machine", "-", stdin=gzip.compress(dump([record(1)])))
    assert (done.returncode, done.stdout) == (0, "standard input: 1 accepted, 0 duplicate, 0 rejected.\n")


GOOD = record(1)
BAD = {
    "an unknown patient": (record(2, patient="nobody"), "checkup_for: there is no user named nobody"),
    "a missing field": (record(2, disease=...), "disease: is missing"),
    "a wrong type": (record(2, checkup_type=7), "checkup_type: must be text, not a number"),
    "NUL in text": (record(2, checkup_report="a\0b"), "checkup_report: contains a NUL character (at 1)"),
    "10 MB in one field": (record(2, checkup_report="x" * 10_000_000), "has 10000000 characters; at most 1000000"),
    "a date without a zone": (record(2, taken_at="2026-11-20T09:14:03"), "has no zone; add one"),
    "a date in the year 99999": (record(2, taken_at="99999-01-01T00:00:00Z"), "is not a date and time"),
    "NaN": (json.dumps(record(2)).replace("128,", "NaN,"), "results[0].value: must be a number or text, not NaN"),
    "400 digits": (json.dumps(record(2)).replace("128,", "9" * 400 + ","), "not a number of 400 digits"),
    "not JSON": ('{"record_id" "2"}', "it is not JSON: Expecting ':' delimiter"),
    "not UTF-8": (b'{"checkup_for": "\xff"}', "is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_told_with_its_place_and_kept_and_the_good_ones_are_stored(
    db, run_cli, file, name: str
) -> None:
    bad, said = BAD[name]
    raw = bad if isinstance(bad, bytes) else bad.encode() if isinstance(bad, str) else json.dumps(bad).encode()
    good = json.dumps(GOOD).encode()
    head = b'{"machine": {"serial": "HC-1"}, "records": ['
    path = file(head + good + b", " + raw + b", " + good.replace(b'"1"', b'"3"') + b"]}")
    done = run_cli("import-machine", path)
    assert done.returncode == 1
    assert done.stdout == f"{path}: 2 accepted, 0 duplicate, 1 rejected.\n"
    assert f"{path}, line 1: record 2" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert max(map(len, done.stderr.splitlines())) < 700
    assert db("select record_id from checkups order by id") == [("1",), ("3",)]
    payload, encoded = db("select payload, context ? 'base64' from rejections")[0]
    if encoded:
        import base64

        assert base64.b64decode(payload) == raw
    else:
        assert payload == raw.decode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"this is not JSON", "it is neither JSON, HL7 v2, a table nor gzip"),
        (b"", "the file is empty"),
        (gzip.compress(dump([GOOD]))[:-20], "damaged or cut short"),
    ],
    ids=["not JSON", "empty", "cut gzip"],
)
def test_a_file_that_is_no_dump_ends_with_2(db, run_cli, file, data: bytes, said: str) -> None:
    path = file(data)
    done = run_cli("import-machine", path)
    assert done.returncode == 2
    assert f"Error: {path}: " in done.stderr
    assert said in done.stderr


@pytest.mark.parametrize("form", ["fhir", "ndjson"])
def test_a_truncated_last_value_is_kept_and_ends_with_2(form: str, db, run_cli, file) -> None:
    whole = json.dumps({"resourceType": "Observation", "status": "final"} if form == "fhir" else record(1), indent=1)
    path = file(whole[:-9].encode())
    done = run_cli("import-machine", path)
    assert done.returncode == 2
    line = whole[:-9].count("\n") + 1
    assert f"Error: {path}: line {line}: the file ends in the middle of a value: it is cut short\n" in done.stderr
    assert db("select payload from rejections") == [(whole[:-9],)]


def test_a_truncated_file_ends_with_2_and_what_was_whole_is_stored(db, run_cli, file) -> None:
    data = dump([record(i) for i in range(10)])
    path = file(data[: len(data) * 3 // 4])
    done = run_cli("import-machine", path)
    assert done.returncode == 2
    assert "7 accepted, 0 duplicate, 1 rejected" in done.stdout
    assert "cut short" in done.stderr
    assert data.decode().startswith(data[: len(data) * 3 // 4].decode())
    assert db("select count(*) from rejections") == [(1,)]
    whole = run_cli("import-machine", file(data))
    assert "3 accepted, 7 duplicate, 0 rejected" in whole.stdout


def test_files_that_are_not_there_or_are_folders_are_told_and_the_others_taken(db, run_cli, file, tmp_path) -> None:
    done = run_cli("import-machine", str(tmp_path / "gone.json"), str(tmp_path), file(dump([GOOD])))
    assert done.returncode == 2
    assert "gone.json: it cannot be read: No such file or directory" in done.stderr
    assert f"{tmp_path}: it cannot be read: Is a directory" in done.stderr
    assert "1 accepted" in done.stdout


def test_json_for_scripts(db, run_cli, file) -> None:
    path = file(dump([record(1), record(2, patient="nobody")]))
    done = run_cli("import-machine", "--json", path, "/gone.json")
    first, second = json.loads(done.stdout)
    assert (first["file"], first["accepted"], first["rejected"]) == (path, 1, 1)
    (item,) = first["items"]
    assert (item["index"], item["record_id"], item["errors"][0]["field"]) == (1, "2", "checkup_for")
    assert item["rejection_id"] == 1
    assert "No such file" in second["error"]
    assert done.returncode == 2


def test_a_dry_run_stores_nothing(db, run_cli, file) -> None:
    done = run_cli("import-machine", "--dry-run", "--create-patients", file(dump([record(1), record(2, patient="x")])))
    assert "2 accepted, 0 duplicate, 0 rejected (dry run: nothing was stored)" in done.stdout
    for table in ("checkups", "rejections", "machines"):
        assert db(f"select count(*) from {table}") == [(0,)]
    assert db("select count(*) from users where username = 'x'") == [(0,)]


def test_what_a_dump_says_of_its_machine_is_kept(db, run_cli, file) -> None:
    machine = {"serial": "HC-7", "model": "M", "site": "Pune", "firmware": "1"}
    run_cli("import-machine", file(json.dumps({"machine": machine, "records": [record(1)]})))
    listed = json.loads(run_cli("machines", "list", "--json").stdout)
    assert [{name: row[name] for name in machine} for row in listed] == [machine]


def test_the_machine_can_be_named_for_a_bare_list(db, run_cli, file) -> None:
    path = file(json.dumps([record(1)]))
    assert run_cli("import-machine", "--machine", "HC-3", path).returncode == 0
    assert db("select serial from machines join checkups on machine_id = machines.id") == [("HC-3",)]


def test_only_the_first_refused_records_are_told(db, run_cli, file) -> None:
    done = run_cli("import-machine", file(dump([record(i, patient="nobody") for i in range(50)])))
    assert done.stderr.count("there is no user named nobody") == 20
    assert "… and 30 more." in done.stderr
    assert "50 rejected records kept; see them with: myhealth rejections list" in done.stderr


@pytest.mark.process
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
@pytest.mark.long
def test_an_import_that_is_ended_leaves_whole_batches_and_is_finished_by_the_next(
    db, run_cli, settings, file, how: signal.Signals
) -> None:
    count = 30_000
    path = file(dump([record(i) for i in range(count)]))
    environ = {**os.environ, "MYHEALTH_DATABASE_URL": settings.database_url}
    words = [sys.executable, "-m", "cli", "import-machine", path]
    process = subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while db("select count(*) from checkups")[0][0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(how)
    _, said = process.communicate()
    stored = db("select count(*) from checkups")[0][0]
    assert 0 < stored < count
    assert stored % BATCH_RECORDS == 0
    if how is signal.SIGINT:
        assert process.returncode == 130
        # the last commit may have been on its way back to us
        told = {f"{n:,} records stored so far; import it again to go on." for n in (stored, stored - BATCH_RECORDS)}
        assert any(each in said for each in told), said
        assert said.strip().endswith("Interrupted.")
    done = run_cli("import-machine", path)
    assert f"{count - stored:,} accepted, {stored:,} duplicate, 0 rejected" in done.stdout
    assert db("select count(*), count(distinct record_id) from checkups") == [(count, count)]


@pytest.mark.process
def test_a_bar_is_drawn_on_a_terminal_only(db, settings, file) -> None:
    import pty

    path = file(dump([record(i) for i in range(200)]))
    environ = {**os.environ, "MYHEALTH_DATABASE_URL": settings.database_url, "TERM": "xterm"}
    terminal, other = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "cli", "import-machine", path], env=environ, stderr=other,
                               stdout=subprocess.PIPE)  # fmt: skip
    os.close(other)
    out, _ = process.communicate()
    seen = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert "100%" in seen
    assert out.decode() == f"{path}: 200 accepted, 0 duplicate, 0 rejected.\n"


def test_without_a_database_it_ends_with_75(run_cli, file) -> None:
    environ = {"MYHEALTH_DATABASE_URL": "postgresql://127.0.0.1:1/health"}
    done = run_cli("import-machine", file(dump([GOOD])), env=environ)
    assert done.returncode == 75
    assert "Error: PostgreSQL is unavailable: connection to server" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_real_people_get_their_examinations_and_no_others(db, reports, run_cli, settings) -> None:
    done = run_cli("import-machine", str(PEOPLE), "--create-patients")
    assert done.stdout == f"{PEOPLE}: 1,569 accepted, 0 duplicate, 0 rejected.\n"
    assert db("select count(*) from users where username like 'person%%'") == [(800,)]
    assert run_cli("sync", "--once").returncode == 0
    assert run_cli("users", "set-password", "person233", "--password-stdin", stdin="a long password").returncode == 0
    assert run_cli("sync", "--once").returncode == 0
    with running_apis(settings) as (_, browse_url):
        request = urllib.request.Request(
            f"{browse_url}/login/",
            data=json.dumps({"username": "person233", "password": "a long password"}).encode(),
            headers={"Content-Type": "application/json"},
        )
        token = json.load(urllib.request.urlopen(request))["token"]
        request = urllib.request.Request(f"{browse_url}/reports/", headers={"x-access-token": token})
        mine = json.load(urllib.request.urlopen(request))
    assert [(report["checkup_type"], report["username"]) for report in mine] == [
        ("FOLLOW-UP EXAMINATION", "person233"), ("BASELINE EXAMINATION", "person233")]  # fmt: skip
    sent = [r for r in json.loads(gzip.decompress(PEOPLE.read_bytes()))["records"] if r["checkup_for"] == "person233"]
    for report, original in zip(mine, reversed(sent), strict=True):
        for result, was in zip(report["results"], original["results"], strict=True):
            assert {name: result[name] for name in was} == was


def test_where_refused_records_cannot_be_written_is_said_before_anything_is_stored(
    db, people, run_cli, tmp_path
) -> None:
    path = tmp_path / "dump.json"
    path.write_bytes(dump([record(1), record(2, "nobody")]))
    done = run_cli("import-machine", str(path), "--rejected", str(tmp_path / "gone" / "refused.json"))
    assert (done.returncode, db("select count(*) from checkups")) == (2, [(0,)])
    assert f"there is no folder {tmp_path / 'gone'}" in done.stderr
    done = run_cli("import-machine", str(path), "--rejected", "/dev/full/x")
    assert (done.returncode, db("select count(*) from checkups")) == (2, [(0,)])
    full = tmp_path / "full.json"
    full.symlink_to("/proc/version/nothing")
    done = run_cli("import-machine", str(path), "--rejected", str(full))
    assert done.returncode == 2
    assert f"{full} cannot be written" in done.stderr
    assert db("select count(*) from rejections where resolved_at is null") == [(1,)]


def test_patients_who_were_made_are_counted(db, people, run_cli, tmp_path) -> None:
    path = tmp_path / "dump.json"
    path.write_bytes(dump([record(1), record(2, "asha"), record(3, "Asha"), record(4, "ravi")]))
    refused = run_cli("import-machine", str(path))
    assert "--create-patients" in refused.stderr
    for words, said in (
        (["--dry-run"], "2 patients would be created, without a password"),
        ([], "2 patients created, without a password: they cannot log in yet"),
    ):
        done = run_cli("import-machine", str(path), "--create-patients", *words)
        assert said in done.stderr, done.stderr
    assert "3 records rejected before are stored now" in done.stderr
    again = run_cli("import-machine", str(path), "--create-patients", "--json")
    told = json.loads(again.stdout)[0]
    assert (told["patients_created"], told["resolved"]) == (0, 0)
    assert "created" not in again.stderr


def test_all_that_was_refused_is_dealt_with_at_once_and_summed_up(db, people, run_cli, tmp_path) -> None:
    path = tmp_path / "dump.json"
    path.write_bytes(dump([record(i, "asha" if i < 30 else "nobody") for i in range(40)]))
    run_cli("import-machine", str(path))
    run_cli("users", "create", "asha", "--generate")
    done = run_cli("rejections", "retry", "--all")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[-1] == "40 rejected records: 30 accepted, 10 still rejected."
    assert (len([line for line in lines if ": accepted, check-up" in line]), len(lines)) == (20, 31)
    unasked = run_cli("rejections", "discard", "--all")
    assert (unasked.returncode, db("select count(*) from rejections where resolved_at is null")) == (2, [(10,)])
    first = db("select min(id) from rejections where resolved_at is null")[0][0]
    assert run_cli("rejections", "discard", str(first)).stdout == f"{first}: discarded\n"
    done = run_cli("rejections", "discard", "--all", "--yes", "--reason", "typing errors")
    assert done.stdout.splitlines()[-1] == "9 rejected records: 9 discarded."
    assert db("select count(*) from rejections where resolved_at is null") == [(0,)]
    assert run_cli("rejections", "retry", "--all").stdout == "There is none.\n"


def test_a_retry_tells_what_to_do_to_the_end(people, run_cli, tmp_path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("patient,date,Glucose (mg/dL)\nbholanath,2026-11-03,99\nbholanath,03/04/2026,98\n")
    run_cli("import-machine", str(path))
    assert "or date_format in the layout\n" in run_cli("rejections", "retry", "--all").stdout


def test_a_corrected_record_resolves_its_rejection(db, people, run_cli, tmp_path) -> None:
    path = tmp_path / "dump.json"
    bad = {"disease": 5}
    path.write_bytes(dump([record(1, **bad), record(2, **bad), record(3, **bad), record(4, "nobody"), record(5)]))
    run_cli("import-machine", str(path))
    path.write_bytes(dump([record(1), record(2, "savita"), record(4), record(5, disease="X")]))
    run_cli("import-machine", str(path))
    found = "select context->>'record_id', resolution, checkup_id is not null from rejections order by id"
    still_open = [(number, None, False) for number in ("2", "3", "4", "5")]
    assert db(found) == [("1", "stored since", True), *still_open]
    db("update checkups set patient_id = (select id from users where username = 'bholanath') where record_id = '2'")
    assert run_cli("rejections", "retry", "--all").stdout.splitlines()[-1] == "3 rejected records: 3 still rejected."


def test_a_file_whose_name_is_not_utf8_goes_in(db, people, run_cli, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/Jos\xe9.json"
    Path(os.fsdecode(path)).write_bytes(dump([record(1), record(2, disease=5)]))
    done = run_cli("import-machine", os.fsdecode(path))
    assert (done.returncode, "1 accepted" in done.stdout) == (1, True), done.stderr
    assert "Traceback" not in done.stderr
    ((source,),) = db("select details->>'source' from audit_events where action = 'import'")
    assert source.endswith("Jos\\udce9.json")


def test_what_a_batch_of_messages_has_that_is_no_result_is_told(db, people, run_cli, tmp_path: Path) -> None:
    """Also: a batch that counts more than it has, and places named as the messages name them."""
    message = [MSH, "PID|1||bholanath", OBR, OBX]
    training = [line.replace("|P|2.5.1", "|T|2.5.1").replace("F1^LAB", "F2^LAB") for line in message]
    unknown = [MSH, "PID|1||4711^^^INSURER^HC", OBR.replace("F1^LAB", "F3"), OBX]
    file = tmp_path / "batch.hl7"
    file.write_bytes("\r".join(["BHS|^~\\&", *message, *training, *unknown, "BTS|4", ""]).encode())
    done = run_cli("import-machine", str(file))
    assert done.returncode == 1
    assert "1 accepted, 0 duplicate, 1 rejected." in done.stdout
    assert "not results, passed over: 1 training" in done.stderr
    assert "line 14: BTS-1 counts 4, but there is 3 (message)" in done.stderr
    assert "PID-3: has only numbers that are not a patient's" in done.stderr
    again = run_cli("import-machine", str(file), "--include-training", "--json")
    (summary,) = json.loads(again.stdout)
    assert (summary["accepted"], summary["duplicate"], summary["rejected"]) == (1, 1, 1)
    assert len(summary["notices"]) == 1
