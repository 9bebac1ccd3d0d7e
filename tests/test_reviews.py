"""Reviews of check-ups: who may mark them, what ends a review, and where the note arrives."""

import json
import zipfile

import pytest
from support.factories import record, statuses, take

from myhealth.checkups.services import NOTE_MAX
from myhealth.privacy.erasure import erase_user

PATH = "/users/bholanath/checkups/1/"
REVIEW = f"{PATH}review/"
COLUMNS = "select reviewed_at is not null, reviewed_by, review_note from checkups where id = 1"
NONE = [(False, None, None)]


def test_a_review_is_stored_audited_and_taken_back(stored, upload, log_in, db, people) -> None:
    doctor = log_in("dr.ayush")
    answer = upload("POST", REVIEW, {"note": " Please drink more. "}, token=doctor)
    assert answer.status_code == 200
    assert answer.json["review_note"] == "Please drink more."
    assert answer.json["reviewed_by"] == people["dr.ayush"]
    assert upload("GET", PATH, token=log_in("bholanath")).json["review_note"] == "Please drink more."
    assert db("select actor, subject, details->>'checkup' from audit_events where action = 'checkup.review'") == [
        ("dr.ayush", "bholanath", "1")
    ]
    again = upload("POST", REVIEW, {}, token=log_in("root")).json
    assert again["reviewed_by"] == people["root"]
    assert again.keys() == {"id", "revision", "reviewed_at", "reviewed_by"}, "admins read no check-up here"
    assert upload("DELETE", REVIEW, token=doctor).status_code == 204
    assert db(COLUMNS) == NONE
    assert db("select count(*) from checkup_versions") == [(0,)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"note": "x" * NOTE_MAX}, 200),
        ({"note": "\U0001f600" * NOTE_MAX}, 200),
        ({"note": None, "revision": 1}, 200),
        ({"revision": 1.0}, 200),
        ({"note": "x" * (NOTE_MAX + 1)}, 400),
        ({"note": "a\0b"}, 400),
        ({"note": 7}, 400),
        ({"revision": "1"}, 400),
        ({"revision": True}, 400),
        ({"revision": 1.5}, 400),
        ({"revision": 2}, 409),
        ({"reviewed_at": "2026-11-20T10:00:00Z"}, 400),
        ([], 400),
    ],
)
def test_a_review_is_checked(stored, upload, log_in, db, body, status: int) -> None:
    assert upload("POST", REVIEW, body, token=log_in("dr.ayush")).status_code == status
    assert (db(COLUMNS) == NONE) == (status != 200)


def test_only_of_the_named_patient(stored, upload, log_in, db) -> None:
    doctor = log_in("dr.ayush")
    for path in ("/users/savita/checkups/1/review/", "/users/bholanath/checkups/99/review/"):
        assert [upload(verb, path, {}, token=doctor).status_code for verb in ("POST", "DELETE")] == [404, 404]
    assert db(COLUMNS) == NONE


def test_no_record_and_no_correction_sets_a_review(stored, upload, log_in, db) -> None:
    sent = {**record(9), "review_note": "All well", "reviewed_at": "2026-11-20T10:00:00Z"}
    assert upload("POST", "/checkups/", [sent], token=log_in("tara")).status_code == 422
    assert upload("PUT", PATH, {"review_note": "All well"}, token=log_in("dr.ayush")).status_code == 400
    assert db("select count(*) from checkups where review_note is not null") == [(0,)]


def test_a_correction_ends_the_review_and_leaves_the_note(stored, upload, log_in, db) -> None:
    doctor = log_in("dr.ayush")
    upload("POST", REVIEW, {"note": "Fine"}, token=doctor)
    assert upload("PUT", PATH, {"disease": "BP"}, token=doctor).json["review_note"] == "Fine"
    assert db(COLUMNS) == [(False, None, "Fine")]
    assert db("select content ?| array['reviewed_at', 'reviewed_by', 'review_note'] from checkup_versions") == [
        (False,)
    ]


def test_a_later_version_of_the_source_ends_the_review(people, upload, log_in, db) -> None:
    take(record(1, status="preliminary"))
    upload("POST", REVIEW, {"note": "Fine"}, token=log_in("dr.ayush"))
    assert statuses(take(record(1, status="preliminary"))) == ["duplicate"]
    assert db(COLUMNS)[0][0]
    assert take(record(1, status="final", disease="Other"))[0].effect == "replaced"
    assert db(COLUMNS) == [(False, None, "Fine")]


def test_the_sync_carries_a_review(stored, sync, upload, browse, log_in, reports, people, settings) -> None:
    upload("POST", REVIEW, {"note": "Fine"}, token=log_in("dr.ayush"))
    sync()
    shown = browse("GET", "/reports/1/", token=log_in("bholanath")).json
    assert shown["review_note"] == "Fine"
    assert shown["reviewed_by"] == people["dr.ayush"]
    assert "reviewed_at" not in reports.get(2)
    upload("DELETE", REVIEW, token=log_in("dr.ayush"))
    sync()
    assert not {"reviewed_at", "reviewed_by", "review_note"} & reports.get(1).keys()


def test_an_export_has_the_review_and_an_erasure_takes_it(
    stored, upload, log_in, people, run_cli, tmp_path, db
) -> None:
    upload("POST", REVIEW, {"note": "Fine"}, token=log_in("dr.ayush"))
    assert run_cli("users", "export", "bholanath", cwd=tmp_path).returncode == 0
    with zipfile.ZipFile(tmp_path / "bholanath.zip") as archive:
        first = json.loads(archive.read("checkups.json"))[0]
    assert first["review_note"] == "Fine"
    assert (first["reviewed_by"], first["reviewer"]) == (people["dr.ayush"], "dr.ayush")
    erase_user("bholanath")
    assert db("select count(*) from checkups where review_note is not null") == [(0,)]
    assert db("select count(*) from audit_events where details::text like '%Fine%'") == [(0,)]
