"""A result has a life: the same again, later, earlier, withdrawn, corrected here, of another sample or patient."""

from __future__ import annotations

import io
import json
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support import compare
from support.factories import record, statuses, take
from support.paths import DATA
from support.stored_results import effects, stored, values, versions

from myhealth.common.database import database
from myhealth.common.errors import Unavailable
from myhealth.intake.corrections import change_checkup, delete_checkup
from myhealth.intake.file_import import FileImport, ImportOptions
from myhealth.intake.results import RecordResult

T1, T2, T3 = (f"2026-11-0{day}T08:00:00Z" for day in (1, 2, 3))


def result(value: Any, code: str = "2823-3", name: str = "Potassium", **changes: Any) -> dict[str, Any]:
    return {"code": code, "name": name, "value": value, "unit": "mmol/L", **changes}


def lab(*results: Any, at: str = T1, status: str | None = None, version: str | None = None, **changes: Any) -> Any:
    details = {"updated_at": at, **({"version": version} if version else {}), **changes.pop("details", {})}
    made = record("A-05", results=list(results), details=details, status=status, checkup_report="", **changes)
    return {name: value for name, value in made.items() if value is not None}


def send(*records: Any, format: str = "hl7", **origin: Any) -> list[RecordResult]:
    return take(*records, format=format, **origin)


BOTH = pytest.mark.parametrize("format", ["hl7", "fhir"])


@BOTH
def test_a_later_status_takes_the_place_and_every_version_stays(db, people, format) -> None:
    messages = [
        lab(result(6.9), status="preliminary"),
        lab(result(6.1)),
        lab(result(5.1), status="corrected"),
        lab(result(5.2), status="corrected", at=T2),
    ]
    sent = [send(each, format=format)[0] for each in messages]
    assert effects(sent) == [("accepted", "created")] + [("accepted", "replaced")] * 3
    assert len({each.id for each in sent}) == 1
    (now,) = stored(db)
    assert (now["value"], now["previous_value"], now["corrected_at"]) == (5.2, 5.1, T2)
    assert db("select status, revision from checkups") == [("corrected", 4)]
    assert versions(db) == [("replaced", [6.9]), ("replaced", [6.1]), ("replaced", [5.1])]
    for each in messages:  # the source sends its whole memory again
        again = send(each, format=format)
        assert effects(again) == [("duplicate", "none")]
    assert values(db) == [5.2]
    assert len(versions(db)) == 3


@BOTH
def test_every_version_stays_of_those_that_come_in_one_batch(db, people, format) -> None:
    send(lab(result(6.9), status="preliminary"), format=format)
    sent = send(lab(result(6.1)), lab(result(5.1), status="corrected"), lab(result(5.2), status="corrected", at=T2),
                format=format)  # fmt: skip
    assert effects(sent) == [("accepted", "replaced")] * 3
    assert values(db) == [5.2]
    assert versions(db) == [("replaced", [6.9]), ("replaced", [6.1]), ("replaced", [5.1])]
    assert db("select count(*) from audit_events where action = 'checkup.change'") == [(3,)]


def test_many_corrections_take_as_many_statements_as_a_few(db, people, monkeypatch) -> None:
    def statements(count: int, least: float, at: str) -> int:
        ran: list[str] = []
        with monkeypatch.context() as patch:
            real = database.obj.execute_sql
            patch.setattr(database.obj, "execute_sql", lambda sql, *rest: (ran.append(sql), real(sql, *rest))[1])
            records = [
                lab(result(least + i), at=at, status="corrected") | {"record_id": f"A-{i}"} for i in range(count)
            ]
            assert effects(send(*records)) == [("accepted", "replaced")] * count
        return len([sql for sql in ran if "update checkups" in sql or "checkup_versions" in sql])

    send(*[lab(result(5.0 + i)) | {"record_id": f"A-{i}"} for i in range(40)])
    assert statements(40, 7.5, T2) == statements(4, 8.25, T3) == 2
    assert len(versions(db)) == 44


@BOTH
@pytest.mark.parametrize("batch", [True, False], ids=["one batch", "one by one"])
def test_an_earlier_version_that_comes_late_changes_nothing_and_is_told(db, people, format, batch) -> None:
    late = [lab(result(5.1), status="corrected"), lab(result(6.1)), lab(result(6.9), status="preliminary")]
    sent = send(*late, format=format) if batch else [send(each, format=format)[0] for each in late]
    assert statuses(sent) == ["accepted", "duplicate", "duplicate"]
    assert [[each["code"] for each in outcome.warnings] for outcome in sent] == [
        [],
        ["earlier_version"],
        ["earlier_version"],
    ]
    assert values(db) == [5.1]


@BOTH
def test_of_one_status_the_later_moment_counts(db, people, format) -> None:
    assert effects(send(lab(result(6.1), at=T2), format=format)) == [("accepted", "created")]
    assert effects(send(lab(result(6.3), at=T1), format=format)) == [("duplicate", "none")]
    assert effects(send(lab(result(6.2), at=T3), format=format)) == [("accepted", "replaced")]
    assert values(db) == [6.2]
    (refused,) = send(lab(result(6.4), at=T3), format=format)
    assert (refused.status, refused.errors[0]["code"]) == ("rejected", "stored_with_other_content")
    assert values(db) == [6.2]


def test_the_sources_own_version_counts_before_its_status(db, people) -> None:
    send(lab(result(6.1), version="2", status="corrected"), format="fhir")
    assert effects(send(lab(result(6.0), version="1", status="corrected", at=T3), format="fhir")) == [
        ("duplicate", "none")
    ]
    assert effects(send(lab(result(6.1), version="3", status="corrected"), format="fhir")) == [("duplicate", "none")]
    assert effects(send(lab(result(6.2), version="10"), format="fhir")) == [("accepted", "replaced")]
    assert values(db) == [6.2]


@BOTH
def test_the_same_in_a_new_envelope_is_a_duplicate(db, people, format) -> None:
    send(lab(result(3.1)), format=format)
    assert effects(send(lab(result(3.1), at=T3, issued_at=T3), format=format)) == [("duplicate", "none")]
    assert versions(db) == []


def test_an_earlier_message_in_a_new_envelope_changes_nothing(db, people) -> None:
    for value, at in ((5.1, T1), (5.2, T2)):
        send(lab(result(value), at=at))
    assert statuses(send(lab(result(5.1), at=T3))) == ["duplicate"]
    assert values(db) == [5.2]


@pytest.mark.parametrize("changed", [{"status": "corrected"}, {"issued_at": T3}], ids=["OBX-11", "OBR-22"])
def test_a_correction_may_go_back_where_its_source_says_so(db, people, changed) -> None:
    for value, at in ((5.1, T1), (5.2, T2)):
        send(lab(result(value), at=at, **{name: at if value_ == T3 else value_ for name, value_ in changed.items()}))
    (back,) = send(lab(result(5.1), at=T3, **changed))
    assert (back.effect, values(db)) == ("replaced", [5.1])
    (again,) = send(lab(result(5.1), at=T3, **changed))
    assert (again.status, len(versions(db))) == ("duplicate", 2)
    (late,) = send(lab(result(5.2), at=T2, **{**changed, **({"issued_at": T2} if "issued_at" in changed else {})}))
    assert (late.status, values(db)) == ("duplicate", [5.1])


def test_a_correction_after_a_withdrawal_is_shown_and_the_withdrawn_value_is_not(db, people) -> None:
    send(lab(result(5.1)))
    send(lab(result(5.1, status="entered-in-error"), at=T2))
    for again in (lab(result(5.1), at=T3), lab(result(5.1), at=T3, status="corrected")):
        (outcome,) = send(again)
        assert (outcome.status, outcome.warnings[-1]["code"], values(db)) == ("duplicate", "withdrawn", [])
    (outcome,) = send(lab(result(5.3), at=T3, status="corrected"))
    assert (outcome.effect, values(db)) == ("replaced", [5.3])
    assert "previous_value" not in stored(db)[0]


@pytest.mark.parametrize("format", ["hl7", "fhir", "dump"])
def test_a_withdrawn_value_is_not_shown_beside_the_one_in_its_place(db, people, format) -> None:
    for version, value, status in (("1", 5.1, "final"), ("2", 5.1, "entered-in-error"), ("3", 5.3, "final")):
        for whole in (status, None):
            own = {} if whole else {"status": status}
            send(
                lab(result(value, **own), result(140, "2951-2", "Sodium"), version=version, status=whole), format=format
            )
    assert [(each["value"], each.get("previous_value")) for each in stored(db)] == [(5.3, None), (140, None)]


@BOTH
def test_what_a_message_does_not_mention_stays(db, people, format) -> None:
    sodium = result(140, "2951-2", "Sodium")
    send(lab(result(6.9), sodium, result(1, None, "x", sub_id="1"), result(2, None, "x", sub_id="2")), format=format)
    (changed,) = send(
        lab(result(3, None, "x", sub_id="2", status="corrected"), at=T2, status="corrected"), format=format
    )
    assert changed.effect == "replaced"
    found = [(each["name"], each["value"], each.get("status", "corrected")) for each in stored(db)]
    assert found == [("Potassium", 6.9, "final"), ("Sodium", 140, "final"), ("x", 1, "final"), ("x", 3, "corrected")]
    send(lab(result(7.0, status="corrected"), at=T3, status="corrected"), format=format)
    assert [each["value"] for each in stored(db)] == [7.0, 140, 1, 3]


def test_results_of_an_early_message_that_comes_late_are_added(db, people) -> None:
    send(lab(result(6.1), at=T2))
    late = lab(result(6.9), result(140, "2951-2", "Sodium"), at=T1, status="preliminary")
    assert effects(send(late)) == [("accepted", "replaced")]
    assert [(each["value"], each.get("status")) for each in stored(db)] == [(6.1, None), (140, "preliminary")]


def test_a_message_may_change_one_result_and_withdraw_another(db, people) -> None:
    send(lab(result(6.9), result(140, "2951-2", "Sodium"), result(5, "2345-7", "Glucose")))
    withdrawn = result(140, "2951-2", "Sodium", status="entered-in-error")
    (outcome,) = send(lab(withdrawn, result(6.1, status="corrected"), at=T2, status="corrected"))
    assert (outcome.effect, outcome.warnings[0]["field"]) == ("replaced", "results")
    assert [each["value"] for each in stored(db)] == [6.1, 5]
    assert versions(db) == [("replaced", [6.9, 140, 5])]


@BOTH
@pytest.mark.parametrize("first", [True, False], ids=["it was stored", "it comes first"])
@pytest.mark.parametrize("whole", [True, False], ids=["the record", "its only result"])
def test_what_is_withdrawn_is_not_shown_and_not_resurrected(db, people, format, first, whole) -> None:
    if first:
        send(lab(result(7.7)), format=format)
    withdrawal = lab(result(7.7, status=None if whole else "entered-in-error"), at=T2)
    withdrawal["status"] = "entered-in-error" if whole else "corrected"
    (outcome,) = send(withdrawal, format=format)
    assert (outcome.status, outcome.effect) == ("accepted", "withdrawn")
    assert "withdrawn" in outcome.warnings[0]["message"]
    assert values(db) == []
    for late in (lab(result(7.7)), lab(result(7.9), status="preliminary"), withdrawal, lab(result(7.7), at=T3)):
        assert effects(send(late, format=format)) == [("duplicate", "none")]
    assert values(db) == []
    assert versions(db) == ([("withdrawn", [7.7])] if first else [])


def test_a_correction_here_and_one_of_the_source_that_cross_are_told(db, people) -> None:
    (created,) = send(lab(result(6.1)))
    change_checkup(people["bholanath"], created.id, {"results": [result(6.4)]})
    (now,) = stored(db)
    assert (now["value"], now["previous_value"]) == (6.4, 6.1)
    assert statuses(send(lab(result(6.1)))) == ["duplicate"]
    (conflict,) = send(lab(result(5.1), status="corrected", at=T2))
    assert (conflict.status, conflict.errors[0]["code"]) == ("rejected", "corrected_here")
    assert conflict.rejection_id is not None
    assert statuses(send(lab(result(6.9), status="preliminary"))) == ["duplicate"]
    assert values(db) == [6.4]
    assert versions(db) == [("corrected", [6.1])]


def test_a_correction_here_after_the_sources_knows_what_the_source_sent(db, people) -> None:
    send(lab(result(6.1)))
    (changed,) = send(lab(result(5.1), status="corrected", at=T2))
    for value in (5.3, 5.4):
        change_checkup(people["bholanath"], changed.id, {"results": [result(value)]})
    assert statuses([*send(lab(result(6.1))), *send(lab(result(5.1), status="corrected", at=T2))]) == ["duplicate"] * 2
    assert send(lab(result(5.0), status="corrected", at=T3))[0].errors[0]["code"] == "corrected_here"
    assert values(db) == [5.4]


def test_what_was_deleted_here_stays_away_in_a_new_envelope(db, people) -> None:
    (created,) = send(lab(result(6.1)))
    delete_checkup(people["bholanath"], created.id)
    assert statuses(send(lab(result(6.1), at=T3))) == ["duplicate"]
    assert send(lab(result(5.1), status="corrected", at=T3))[0].errors[0]["code"] == "deleted_here"
    assert values(db) == []


@BOTH
def test_another_patient_under_the_same_number_is_refused(db, people, format) -> None:
    send(lab(result(6.1)), format=format)
    (refused,) = send({**lab(result(5.1), status="corrected", at=T2), "checkup_for": "savita"}, format=format)
    assert (refused.errors[0]["field"], refused.errors[0]["code"]) == ("checkup_for", "stored_with_other_content")
    assert db("select patient_id from checkups") == [(people["bholanath"],)]


def test_a_dump_means_what_it_meant_unless_it_says_that_it_is_later(db, people) -> None:
    plain = record(7, results=[result(6.1), result(140, "2951-2", "Sodium")])
    for name in ("machine-memory", ""):
        take(plain, format=name)
        assert statuses(take({**plain, "results": [result(6.2)]}, format=name)) == ["rejected"]
    later = {**plain, "results": [result(141, "2951-2", "Sodium"), result(9, "x", "x")], "status": "corrected"}
    assert effects(take(later)) == [("accepted", "replaced")]
    assert [(each["value"], each.get("number")) for each in stored(db)] == [(141, 2), (9, 3)]
    assert statuses(take(plain)) == ["rejected"]
    assert statuses(take({**plain, "status": "final"})) == ["duplicate"]


def test_an_answer_says_the_effect_and_shows_nothing_withdrawn(upload, log_in, run_cli, db) -> None:
    token = log_in("tara")
    sodium = result(140, "2951-2", "Sodium")
    for name, changes in (
        ("created", {}),
        ("none", {}),
        ("replaced", {"status": "corrected", "results": [result(5.1), sodium]}),
        ("withdrawn", {"status": "entered-in-error"}),
    ):
        answer = upload("POST", "/checkups/", [{**lab(result(6.1), sodium), **changes}], token=token)
        (item,) = answer.json["items"]
        assert item["effect"] == name
    doctor = log_in("dr.ayush")
    assert upload("GET", "/users/bholanath/checkups/", token=doctor).json == []
    path = f"/users/bholanath/checkups/{item['id']}/"
    assert upload("GET", path, token=doctor).status_code == 404
    assert upload("PUT", path, {"disease": "x"}, token=doctor).status_code == 404
    history = upload("GET", path + "history/", token=doctor).json
    assert [each["reason"] for each in history] == ["withdrawn", "replaced"]
    assert history[1]["content"]["results"][0]["value"] == 6.1
    assert [upload("GET", path + "history/", token=log_in(name)).status_code for name in ("bholanath", "tara")] == [
        403,
        403,
    ]
    assert upload("GET", f"/users/savita/checkups/{item['id']}/history/", token=doctor).status_code == 404
    assert db("select count(*) from audit_events where details->>'what' = 'history'") == [(1,)]
    shown = run_cli("reports", "history", str(item["id"]))
    assert "Potassium 5.1, Sodium 140" in shown.stdout, shown.stderr
    assert json.loads(run_cli("reports", "history", "--json", str(item["id"])).stdout)[1]["revision"] == 1
    assert upload("DELETE", path, token=doctor).status_code == 204
    assert db("select count(*) from checkup_versions") == [(0,)]


def test_a_withdrawn_result_is_not_answered_and_the_others_keep_their_numbers(upload, log_in, db) -> None:
    gone = result(1, "2951-2", "Sodium", status="entered-in-error")
    upload("POST", "/checkups/", [lab(gone, result(6.10))], token=log_in("tara"))
    (found,) = upload("GET", "/users/bholanath/checkups/", token=log_in("dr.ayush")).json
    assert [(each["name"], each["number"]) for each in found["results"]] == [("Potassium", 2)]
    doctor = log_in("dr.ayush")
    changes = {"results": [result(6.2)]}
    assert upload("PUT", f"/users/bholanath/checkups/{found['id']}/", changes, token=doctor).status_code == 200
    (text,) = db("select results::text from checkups")[0]
    assert [(each["value"], each.get("number")) for each in json.loads(text)] == [(6.2, 2), (1, 1)]


def test_a_report_that_was_withdrawn_is_nowhere_in_the_report_store(
    upload, browse, log_in, db, sync, reports, run_cli, people
) -> None:
    token, doctor = log_in("tara"), log_in("dr.ayush")
    sodium = result(140, "2951-2", "Sodium")
    (item,) = upload("POST", "/checkups/", [lab(result(7.7), sodium)], token=token).json["items"]
    sync()
    path = f"/reports/{item['id']}/"
    assert browse("GET", path, token=doctor).status_code == 200
    take(lab(result(7.7, status="entered-in-error"), at=T2), format="hl7", machine=None)
    sync()
    shown = browse("GET", path, token=doctor).json
    upload("POST", "/checkups/", [{**lab(sodium), "status": "entered-in-error"}], token=token)
    sync()
    assert [each["name"] for each in shown["results"]] == ["Sodium"]
    assert shown["results"][0]["number"] == 2
    assert browse("GET", path, token=doctor).status_code == 404
    listed = browse("GET", "/users/bholanath/reports/", token=doctor).json
    assert item["id"] not in [each["id"] for each in listed]
    left = reports.get(item["id"])
    assert (left["patient_id"], left["results"], left["checkup_report"], left["subject"]) == (0, [], "", "")
    assert compare.differences(db, reports)["stale"] == []
    verified = run_cli("verify")
    assert verified.returncode == 0, verified.stdout
    db("delete from users where id = %s", people["bholanath"])
    sync()
    assert reports.get(item["id"]) is None


FAULTS = DATA / "faults"


@pytest.fixture
def load(run_cli: Any, db: Any) -> Any:
    """Import files of the samples; return the exit codes and the summaries."""

    def run(*names: str) -> Any:
        paths = [str(next(FAULTS.glob(f"{name}*"))) for name in names]
        done = run_cli("import-machine", "--create-patients", "--json", *paths)
        keys = ("accepted", "replaced", "withdrawn", "duplicate", "rejected")
        return done.returncode, [tuple(each[key] for key in keys) for each in json.loads(done.stdout)]

    return run


CREATED, REPLACED, WITHDRAWN, DUPLICATE = (1, 0, 0, 0, 0), (1, 1, 0, 0, 0), (1, 0, 1, 0, 0), (0, 0, 0, 1, 0)


@pytest.mark.process
@pytest.mark.parametrize(
    ("names", "counted", "left"),
    [
        (["05a", "05b", "05c"], [CREATED, REPLACED, REPLACED], [5.1]),
        (["05c", "05a", "05b"], [CREATED, DUPLICATE, DUPLICATE], [5.1]),
        (["06d", "06e", "06d", "06e"], [CREATED, WITHDRAWN, DUPLICATE, DUPLICATE], []),
        (["06e", "06d"], [WITHDRAWN, DUPLICATE], []),
        (["07a", "07b", "07a"], [CREATED, DUPLICATE, DUPLICATE], [3.1]),
        (["B9", "B9"], [WITHDRAWN, DUPLICATE], []),
        (["A4a", "A4b", "A4c", "A4a"], [CREATED, REPLACED, REPLACED, DUPLICATE], [5, 10, 15]),
    ],
    ids=lambda value: "-".join(value) if value and isinstance(value[0], str) else "",
)
def test_the_samples_come_out_right(db, load, names, counted, left) -> None:
    assert load(*names) == (0, counted)
    assert values(db) == left


def place(sample: str | None = None, **changes: Any) -> dict[str, Any]:
    identifiers = [{"value": "2", "type": "FILL"}] + ([{"value": sample, "type": "PLAC"}] if sample else [])
    made = lab(result(changes.pop("value", 5)), details={"identifiers": identifiers}, **changes)
    return {**made, "record_id": changes.get("record_id", "2")}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (place("S1"), place("S2", value=6)),
        (place("S1"), {**place("S2", value=6), "checkup_for": "savita"}),
        (place(), {**place(value=6), "checkup_for": "savita"}),
        (place(), place(value=6, taken_at="2026-11-21T09:00:00Z")),
        (place("S1", record_id="LAB-1"), place("S2", value=6, record_id="LAB-1")),
    ],
    ids=["sample", "sample and patient", "patient", "moment", "a long number"],
)
def test_a_place_in_the_rack_is_used_again_and_nothing_is_lost(db, people, first, second) -> None:
    assert effects(send(first, second)) == [("accepted", "created")] * 2
    assert values(db) == [5, 6]
    assert statuses(send(second, first, second)) == ["duplicate"] * 3
    corrected = {**second, "results": [result(7)], "status": "corrected"}
    assert effects(send(corrected)) == [("accepted", "replaced")]
    assert values(db) == [5, 7]
    assert db("select record_id from checkups where id = 1") == [(first["record_id"],)]


def test_a_place_in_the_rack_of_other_formats_means_what_it_meant(db, people) -> None:
    assert statuses(send(place("S1"), place("S2", value=6), format="fhir")) == ["accepted", "rejected"]


def test_two_uploads_of_one_record_at_once_leave_the_later_version(db, people, settings) -> None:
    """Each thread sends the versions of twenty records in its own order; nothing is lost, none fails."""

    def version(number: int, at: int) -> dict[str, Any]:
        return {**lab(result(at), at=f"2026-11-{at:02}T08:00:00Z"), "record_id": f"A-{number}"}

    def upload_all(seed: int) -> list[str]:
        order = random.Random(seed)
        found = []
        for at in order.sample(range(1, 9), 8):
            numbers = order.sample(range(20), 20)
            found += statuses(send(*(version(number, at) for number in numbers)))
        return found

    with ThreadPoolExecutor(4) as threads:
        answers = [answer for found in threads.map(upload_all, range(4)) for answer in found]
    assert {*answers} == {"accepted", "duplicate"}
    assert values(db) == [8] * 20
    current = db("select sum(revision) from checkups")[0][0]
    assert db("select count(*) + 20 from checkup_versions") == [(current,)]


def test_a_killed_session_leaves_the_version_and_the_change_or_neither(db, people) -> None:
    send(lab(result(6.9), status="preliminary"))
    db(
        "create function die() returns trigger language plpgsql as"
        " $$ begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$"
    )
    db("create trigger die after update on checkups for each row execute function die()")
    try:
        with pytest.raises(Unavailable):
            send(lab(result(6.1)))
    finally:
        db("drop trigger die on checkups; drop function die()")
    assert (values(db), versions(db)) == ([6.9], [])
    assert effects(send(lab(result(6.1)))) == [("accepted", "replaced")]


def send_hl7(minute: int, *observations: str) -> tuple[str, str]:
    """Send the values of one order, each as OBX-5 to OBX-11 with an instance identifier (OBX-21) behind it, or none."""
    lines = [f"MSH|^~\\&|LAB|A|||202611200{minute}||ORU^R01|{minute}|P|2.8.2", "PID|||bholanath", "OBR|1|P7|F7|BG^Gas"]
    for place, each in enumerate(observations, 1):
        value, _, name = each.partition("#")
        lines.append(f"OBX|{place}|NM|2339-0^Glucose^LN|1|{value}|||20261120|||||||{name}")
    started = FileImport(io.BytesIO("\r".join(lines).encode()), "a.hl7", ImportOptions(format="hl7"))
    ((outcome,),) = [[result for _, result in batch] for batch in started]
    return outcome.status, outcome.effect


F, C, X = "|mmol/L|||||F", "|mmol/L|||||C", "|mmol/L|||||X"
INSTANCES = {
    "one of two": ([f"5{F}#a^LAB", f"6{F}#b^LAB"], [f"7{C}#b^LAB"], [5, 7]),
    "one of two is withdrawn": ([f"5{F}#a", f"6{F}#b"], [f"6{X}#b"], [5]),
    "in another order": ([f"5{F}#a", f"6{F}#b"], [f"6{F}#b", f"7{C}#a"], [7, 6]),
    "first without": ([f"5{F}", f"6{F}"], [f"5{F}#a", f"7{C}#b"], [5, 7]),
    "then without": ([f"5{F}#a", f"6{F}#b"], [f"5{F}", f"7{C}"], [5, 7]),
    "a third": ([f"5{F}#a", f"6{F}#b"], [f"7{F}#c"], [5, 6, 7]),
}


@pytest.mark.parametrize(("first", "then", "expected"), INSTANCES.values(), ids=INSTANCES)
def test_an_instance_identifier_tells_which_result_is_meant(db, people, first, then, expected) -> None:
    assert send_hl7(800, *first) == ("accepted", "created")
    assert send_hl7(801, *[each.partition("#")[0] for each in first]) == ("duplicate", "none")
    assert send_hl7(805, *then)[0] == "accepted"
    assert values(db) == expected
    assert send_hl7(805, *then) == ("duplicate", "none")
    assert values(db) == expected


def test_a_value_may_follow_what_was_cancelled_without_one(db, people) -> None:
    def order(hour: int, *segments: str) -> tuple[str, str]:
        head = [f"MSH|^~\\&|LAB|A|||2026112{hour}||ORU^R01|{hour}|P|2.5.1", "PID|||bholanath"]
        head.append(f"OBR|1|P7|F7|BG^Gas|||20261120080000|||||||||||||||202611200{hour}00||")
        started = FileImport(io.BytesIO("\r".join([*head, *segments]).encode()), "a.hl7", ImportOptions(format="hl7"))
        ((outcome,),) = [[result for _, result in batch] for batch in started]
        return outcome.status, outcome.effect

    def value(number: str, status: str) -> str:
        return f"OBX|1|NM|2339-0^Glucose^LN||{number}|mmol/L|||||{status}"

    assert order(1, value("", "X")) == ("accepted", "withdrawn")
    assert order(1, value("5.1", "F")) == ("duplicate", "none")
    assert order(2, value("5.1", "F")) == ("accepted", "replaced")
    assert values(db) == [5.1]
    assert order(3, value("", "X")) == ("accepted", "withdrawn")
    assert order(4, value("5.1", "F")) == ("duplicate", "none")  # what was withdrawn does not come back
    assert values(db) == []
