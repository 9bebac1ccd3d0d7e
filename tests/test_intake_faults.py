"""Faults that an import survives: killed processes and mutilated input."""

import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.factories import dump, record
from support.paths import DATA
from support.servers import crash

from myhealth import stores
from myhealth.common.errors import BadInput
from myhealth.embedded.postgres import Postgres
from myhealth.intake.file_import import FileImport, ImportOptions

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("people")]
COUNT = 30_000
OBX = "OBX|1|NM|2093-3^Cholesterol^LN||5.10|mmol/L|3.0-5.2|N|||F|||20261120091000"
HL7 = "\r".join(
    [
        "MSH|^~\\&|HC9000|PUNE|||20261120091500||ORU^R01^ORU_R01|MSG1|P|2.5.1",
        "PID|1||bholanath^^^HOSP^MR||Kulkarni^Bholanath",
        "OBR|1|P1^ORD|F1^LAB|24331-1^Lipid panel^LN|||20261120090000",
        OBX,
        "OBR|2|P1^ORD|F2^LAB|58410-2^CBC^LN|||20261120090000",
        OBX.replace("2093-3^Cholesterol", "718-7^Haemoglobin"),
        "",
    ]
)
OBSERVATION = {
    "resourceType": "Observation",
    "id": "o1",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "2345-7", "display": "Glucose"}]},
    "subject": {"reference": "Patient/bholanath"},
    "effectiveDateTime": "2026-11-20T09:14:03+05:30",
    "valueQuantity": {"value": 6.3, "unit": "mmol/L"},
}
# How many mutilated files; INTAKE_MUTATIONS=50000 for a thorough run.
MUTATIONS = int(os.environ.get("INTAKE_MUTATIONS", "1500"))


@pytest.fixture
def importing(db, settings, tmp_path):
    """Starts an import of COUNT records as a process of its own."""
    path = tmp_path / "dump.json"
    path.write_bytes(dump([record(i) for i in range(COUNT)]))
    environ = {**os.environ, "MYHEALTH_DATABASE_URL": settings.database_url}
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "cli", "import-machine", str(path)]
        started.append(subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_an_import_killed_at_random_moments_is_finished_by_the_next_and_stores_everything_once(db, importing) -> None:
    rng, killed = random.Random(7), 0
    for _ in range(40):
        process = importing()
        try:
            process.wait(rng.uniform(0.3, 1.5))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += 1
        else:
            break
    out, err = importing().communicate(timeout=120)
    assert "0 rejected" in out, err
    assert killed
    assert db("select count(*), count(distinct record_id) from checkups") == [(COUNT, COUNT)]
    assert db("select count(*) from rejections") == [(0,)]


def test_postgresql_that_crashes_during_an_import_ends_it_with_75_and_again_completes_it(
    db, importing, postgres: Postgres
) -> None:
    process = importing()
    deadline = time.monotonic() + 60
    while db("select count(*) from checkups")[0][0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    crash(postgres)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        stores.close_database()
        postgres.ensure()
    assert "Traceback" not in err, err
    assert process.returncode == 75, (out, err)
    stored = db("select count(*) from checkups")[0][0]
    assert 0 < stored < COUNT
    done = importing()
    out, err = done.communicate(timeout=120)
    assert (done.returncode, out.split(": ")[1]) == (
        0, f"{COUNT - stored:,} accepted, {stored:,} duplicate, 0 rejected.\n")  # fmt: skip
    assert db("select count(*), count(distinct record_id) from checkups") == [(COUNT, COUNT)]


def test_postgresql_that_comes_and_goes_is_borne_by_importing_again(db, importing, postgres: Postgres) -> None:
    """Each import ends with 75 or is done; none needs anybody to clean up behind it."""
    rng, codes = random.Random(11), []
    while (not codes or codes[-1]) and len(codes) < 40:
        process = importing()
        try:
            process.wait(rng.uniform(0.4, 1.2) if codes.count(75) < 3 else 60)
        except subprocess.TimeoutExpired:
            crash(postgres)
            time.sleep(rng.uniform(0, 1))
            stores.close_database()
            postgres.ensure()
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        codes.append(process.returncode)
    assert set(codes) == {75, 0}, codes
    assert "0 rejected" in out
    assert db("select count(*), count(distinct record_id) from checkups") == [(COUNT, COUNT)]
    assert db("select count(*) from rejections") == [(0,)]


def seeds() -> list[bytes]:
    """A small file of each format, and what others wrote of each kind, if it is there."""
    records = [record(i, results=record()["results"] * 2) for i in range(3)]
    found = [
        dump(records),
        json.dumps(records, ensure_ascii=False, indent=1).encode(),
        "\n".join(map(json.dumps, records)).encode(),
        json.dumps(OBSERVATION).encode(),
        json.dumps({"resourceType": "Bundle", "type": "batch", "entry": [{"resource": OBSERVATION}] * 2}).encode(),
        HL7.encode(),
        f"\x0b{HL7}\x1c\r".encode(),
    ]
    found += [path.read_bytes() for path in sorted(DATA.rglob("*")) if path.suffix in (".json", ".hl7", ".csv")]
    return [*found, some_people()]


def some_people() -> bytes:
    """The first records of a large dump."""
    whole = json.loads(gzip.decompress((DATA / "people.json.gz").read_bytes()))
    return json.dumps({**whole, "records": whole["records"][:5]}).encode()


SEEDS = seeds()
PARTS = [b"", b"\0", b"\xff", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"|", b"^", b"~", b"&", b"\r", b"\n",
         b"\x0b", b"\x1c", b"NaN", b"1e999", b"-", b"9" * 30, b"null", b'\\ud800', b"MSH|^~\\&|", b'"resourceType":', b'{"record_id":']  # fmt: skip


@st.composite
def mutilated(draw: st.DrawFn) -> bytes:
    """A file in which a few places are flipped, left out, put in, doubled or exchanged, or that is cut short."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        at, other = (draw(st.integers(0, len(data) - 1)) for _ in range(2))
        what = draw(st.sampled_from(["flip", "flip", "drop", "put", "double", "cut"]))
        if what == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "drop":
            del data[min(at, other) : min(at, other) + draw(st.integers(1, 40))]
        elif what == "put":
            data[at:at] = draw(st.sampled_from(PARTS))
        elif what == "double":
            data[at:at] = data[other : other + draw(st.integers(1, 400))]
        else:
            del data[at:]
    return bytes(data)


def test_whatever_is_done_to_a_file_every_record_in_it_is_accounted_for(db) -> None:
    """No other error than BadInput; what is accepted is in the table whole, what is rejected is kept whole."""
    seen = {"accepted": 0, "duplicate": 0, "rejected": 0, "broken": 0}

    @settings(max_examples=MUTATIONS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mutilated())
    def check(data: bytes) -> None:
        db("truncate checkups, rejections, machines cascade")
        outcomes, readings = [], []
        try:
            for batch in FileImport(io.BytesIO(data), "mutilated", ImportOptions(create_patients=True)):
                readings += [reading for reading, _ in batch]
                outcomes += [outcome for _, outcome in batch]
        except BadInput as error:
            assert error.message
            seen["broken"] += 1
        for outcome in outcomes:
            seen[outcome.status] += 1
        assert [outcome.index for outcome in outcomes] == list(range(len(outcomes)))
        taken = [outcome for outcome in outcomes if outcome.status == "accepted"]
        accepted = {outcome.id for outcome in taken}
        assert {id_ for (id_,) in db("select id from checkups")} == accepted
        created = [outcome.id for outcome in taken if outcome.effect == "created"]
        assert len(created) == len(set(created))
        replaced = {outcome.id for outcome in taken if outcome.effect != "created"}  # by a later message of the file
        assert {outcome.id for outcome in outcomes if outcome.status == "duplicate"} <= accepted
        kept = {id_ for (id_,) in db("select id from rejections")}
        refused = [outcome for outcome in outcomes if outcome.status == "rejected"]
        assert {outcome.rejection_id for outcome in refused} == kept
        assert all(outcome.errors for outcome in refused)
        for reading, outcome in zip(readings, outcomes, strict=True):
            if outcome.status == "accepted" and outcome.id not in replaced:
                results = db("select jsonb_array_length(results) from checkups where id = %s", outcome.id)
                assert results == [(len(reading.decoded().get("results") or []),)]

    check()
    assert seen["accepted"] > MUTATIONS / 20
    assert seen["rejected"] > MUTATIONS / 20
    print(f"\n{MUTATIONS:,} files: {seen}")
