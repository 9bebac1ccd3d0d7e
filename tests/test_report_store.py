"""Report documents and their writer: no newer document is replaced, and refused ones are reported."""

import itertools
import json
import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import bson
import pytest
from pymongo.errors import OperationFailure
from support.factories import NOW, document

from myhealth.common.errors import SettingsError, Unavailable
from myhealth.reports.bson_documents import BUT_FOR_EPOCH, VERSION, StoredBson, encode, encode_all, ends_with_version
from myhealth.reports.connection import translate_mongo_errors
from myhealth.reports.documents import Document, UserRow, user_document
from myhealth.reports.repository import ReportRepository
from myhealth.reports.writer import ReportWriter, WriteResult


@pytest.mark.parametrize(
    ("results", "abnormal"),
    [([], False), ([{"flag": "N"}, {"flag": None}, {}], False), ([{"flag": "N"}, {"flag": "HH"}], True),
     ([{"flag": "A"}], True), ([{"value": 121, "low": 90, "high": 120}], True), ([{"value": 89, "low": 90}], True),
     ([{"value": 120, "low": 90, "high": 120}], False), ([{"value": 121, "high": 120, "flag": "N"}], True), (["odd", 5, None], False), ({}, False), (None, False),
     ([{"value": "HI", "unit": "mg/dL", "code": "2345-7"}], True), ([{"value": "HI", "unit": "mg/dL", "code": ["2345-7"]}], False)],
)  # fmt: skip
def test_abnormal_is_a_flag_other_than_n_or_a_value_outside_its_range(results: object, abnormal: bool) -> None:
    assert document(results=json.dumps(results))["abnormal"] is abnormal


@pytest.mark.parametrize("id_", [1, -7, 2**40])
def test_the_bytes_of_a_document_tell_its_version_wherever_the_fields_are(id_: int) -> None:
    """The quick path reads the last two fields; another order, or another type, is decoded."""
    user = user_document(UserRow(id_, 1, "s", "u", "Savita Rao", "patient", True, None, 3), 9)
    for given in (document(id_, 3, 9, results='[{"value": 5.10}]'), user):
        assert ends_with_version(encode(given))
        reordered = dict(reversed(given.items()))
        large = {**given, "epoch": 2**40}
        assert not ends_with_version(encode(reordered)) and not ends_with_version(encode(large))
        for each, epoch in ((given, 9), (reordered, 9), (large, 2**40)):
            stored = StoredBson(encode(each))
            assert (stored.id, stored.revision, stored.epoch) == (id_, 3, epoch)
        stored, later, edited = (encode({**given, **changed}) for changed in ({}, {"epoch": 10}, {"revision": 4}))
        assert stored[BUT_FOR_EPOCH] == later[BUT_FOR_EPOCH] != edited[BUT_FOR_EPOCH]
        assert ends_with_version(stored[VERSION]) and not ends_with_version(encode(reordered)[VERSION])


def test_documents_encoded_together_are_those_encoded_alone() -> None:
    some = [document(i, checkup_report="x" * (i % 300)) for i in range(1, 1202)]
    assert encode_all(some) == [encode(each) for each in some]
    assert encode_all([]) == []


def test_numbers_and_moments_arrive_as_they_were(reports: ReportRepository) -> None:
    text = '[{"value": 5.10}, {"value": 5.1}, {"value": 128}, {"value": 9223372036854775807}, {"value": 1e-22}]'
    ReportWriter(reports).insert("checkup", [document(results=text)])
    found = reports.get(1)
    values = [result["value"] for result in found["results"]]
    assert [repr(value) for value in values] == [repr(v) for v in (Decimal("5.10"), 5.1, 128, 2**63 - 1, 1e-22)]
    assert found["taken_at"] == NOW
    assert found["taken_at"].tzinfo is not None


@pytest.mark.parametrize("name", ["value", "low", "high"])
def test_a_number_beyond_bson_s_integers_is_stored_with_its_digits(reports: ReportRepository, name: str) -> None:
    for id_, number in ((1, 2**63), (2, -(2**63) - 1)):
        measured = {"value": 5, "low": 1, "high": 9, name: number}
        ReportWriter(reports).insert("checkup", [document(id_, results=json.dumps([measured]))])
        assert reports.get(id_)["results"] == [{**measured, name: Decimal(number)}]


@pytest.mark.parametrize("write", ["insert", "put"])
def test_whatever_order_versions_come_in_the_newest_stays(reports: ReportRepository, write: str) -> None:
    versions = [document(1, revision, epoch) for epoch in (1, 2) for revision in (1, 2, 3)]
    for order in itertools.islice(itertools.permutations(versions), 0, 720, 37):
        reports.reports.delete_many({})
        for version in order:
            getattr(ReportWriter(reports), write)("checkup", [dict(version)])
        found = reports.get(1)
        assert (found["epoch"], found["revision"]) == (2, 3)


def test_writing_twice_is_told_as_unchanged(reports: ReportRepository) -> None:
    batch = [document(i) for i in range(5)]
    first, second = (
        ReportWriter(reports).insert("checkup", batch),
        ReportWriter(reports).insert("checkup", [*batch, document(9)]),
    )
    assert (first.written, first.unchanged, first.quarantined) == (5, 0, [])
    assert (second.written, second.unchanged, second.quarantined) == (1, 5, [])
    third = ReportWriter(reports).put("checkup", [*batch, document(2, revision=2)][1:])
    assert (third.written, third.unchanged) == (1, 4)


@pytest.mark.parametrize("write", ["insert", "put"])
def test_a_document_that_cannot_be_held_is_told_and_the_rest_stored(reports: ReportRepository, write: str) -> None:
    too_large = document(2, checkup_report="x" * 17_000_000)
    too_long = document(3, results='[{"value": %s}]' % ("9" * 40))
    done = getattr(ReportWriter(reports), write)("checkup", [document(1), too_large, too_long, document(4)])
    assert done.written == 2
    assert sorted(failure.id for failure in done.quarantined) == [2, 3]
    assert {failure.reason.split(" ")[0] for failure in done.quarantined} <= {"it", "BSON"}
    assert reports.count()[0] == 2


@pytest.fixture
def replaced(monkeypatch) -> list[int]:
    """The ids of the documents that are replaced."""
    ids: list[int] = []
    replace = ReportWriter._replace

    def watched(self: ReportWriter, kind: str, documents: Sequence[Document]) -> WriteResult:
        ids.extend(each["_id"] for each in documents)
        return replace(self, kind, documents)

    monkeypatch.setattr(ReportWriter, "_replace", watched)
    return ids


@pytest.mark.parametrize(
    ("ids", "others"),
    [([1, 2, 3, 4], [0, 1.5, 5]), ([4, 2, 3, 1], [-1, 2.5, 5]), ([1, 2, 2**40], [3, 2**40 - 1]), ([5], [4, 4.5, 6])],
)
def test_a_new_epoch_moves_the_documents_of_its_batch_alone(
    reports: ReportRepository, replaced: list[int], ids: list[int], others: list[float]
) -> None:
    """Not what has their epoch and revision beside or between them: of a killed pass, or another program."""
    ReportWriter(reports).insert("checkup", [document(id_) for id_ in [*ids, *others]])
    done = ReportWriter(reports).put("checkup", [document(id_, epoch=2) for id_ in ids])
    assert (done.written, done.unchanged, replaced) == (len(ids), 0, [])
    assert {each["_id"] for each in reports.reports.find({"epoch": 2})} == set(ids)
    assert {each["_id"] for each in reports.reports.find({"epoch": 1})} == set(others)


def test_a_document_that_comes_twice_moves_none_between_it_and_the_next(reports: ReportRepository) -> None:
    ReportWriter(reports).insert("checkup", [document(id_) for id_ in (1, 2, 3)])
    ReportWriter(reports).put("checkup", [document(id_, epoch=2) for id_ in (1, 1, 3)])
    assert [each["epoch"] for each in reports.reports.find().sort("_id", 1)] == [2, 1, 2]


def test_a_new_epoch_does_not_confirm_a_document_with_other_content(reports: ReportRepository, replaced) -> None:
    ReportWriter(reports).insert("checkup", [document(id_) for id_ in range(1, 8)])
    reports.reports.update_one({"_id": 3}, {"$set": {"disease": "another"}})
    reports.reports.update_one({"_id": 4}, {"$set": {"disease": "E"}})  # of the same length
    reports.reports.update_one({"_id": 5}, {"$set": {"epoch": 2**31 - 1}})  # no sync has given it
    reports.reports.delete_one({"_id": 7})
    done = ReportWriter(reports).put("checkup", [document(id_, epoch=2) for id_ in range(1, 8)])
    assert (done.written, sorted(replaced)) == (7, [3, 4, 5, 7])
    assert [each["disease"] for each in reports.reports.find({"epoch": 2})] == ["D"] * 7


def test_a_document_that_changes_while_a_new_epoch_compares_it_is_not_confirmed(reports, replaced, monkeypatch) -> None:
    ReportWriter(reports).insert("checkup", [document(id_) for id_ in range(1, 5)])
    same_content = ReportWriter._same_content

    def changed_meanwhile(self: ReportWriter, *given: Any) -> Any:
        found = same_content(self, *given)
        reports.reports.replace_one({"_id": 2}, document(2, 5, 9, disease="newer"))
        reports.reports.delete_one({"_id": 3})
        return found

    monkeypatch.setattr(ReportWriter, "_same_content", changed_meanwhile)
    done = ReportWriter(reports).put("checkup", [document(id_, epoch=2) for id_ in range(1, 5)])
    assert (done.written, done.unchanged, replaced) == (1, 3, [1, 2, 3, 4])
    assert [(each["epoch"], each["disease"]) for each in reports.reports.find().sort("_id", 1)] == [
        (2, "D"), (9, "newer"), (2, "D"), (2, "D")
    ]  # fmt: skip


def test_a_new_epoch_reads_a_batch_that_mongodb_cannot_send_at_once(reports: ReportRepository, replaced) -> None:
    """It sends at most 16 MB. Of ids that are not stored, it sends none."""
    text = "x" * 5_000_000
    ReportWriter(reports).insert("checkup", [document(id_, checkup_report=text) for id_ in (1, 2, 3, 5, 6, 7)])
    done = ReportWriter(reports).put("checkup", [document(id_, epoch=2, checkup_report=text) for id_ in range(1, 9)])
    assert (done.written, replaced) == (8, [4, 8])
    assert reports.reports.count_documents({"epoch": 2}) == 8


def test_a_deletion_removes_its_version_and_older_ones_only(reports: ReportRepository) -> None:
    ReportWriter(reports).insert("checkup", [document(1, 3), document(2, 5), document(3, 1, epoch=2)])
    assert ReportWriter(reports).remove("checkup", [(1, 4), (2, 4), (3, 4), (99, 1)], epoch=1) == 1
    assert reports.get(1) is None
    assert ReportWriter(reports).sweep(2) == (1, None)
    assert reports.count()[0] == 1


def test_a_store_that_is_away_is_told_so() -> None:
    repository = ReportRepository.connect("mongodb://127.0.0.1:1/myhealth_test?serverSelectionTimeoutMS=100")
    with pytest.raises(Unavailable, match=r"^MongoDB is unavailable: 127\.0\.0\.1:1: Connection refused$"):
        repository.ping()
    repository.close()


def test_a_write_that_the_driver_repeats_on_a_server_alone_may_succeed_later(reports: ReportRepository) -> None:
    """The server's real refusal of a retryable write; PyMongo 4.20 sends one after a failed connection."""
    session = {"id": bson.Binary.from_uuid(uuid.uuid4())}
    write = {"insert": "x", "documents": [{}], "lsid": session, "txnNumber": bson.Int64(1)}
    with pytest.raises(Unavailable, match="cannot do it now: Transaction numbers"), translate_mongo_errors():
        reports.state.database.command(write)
    with pytest.raises(OperationFailure), translate_mongo_errors():
        reports.state.database.command({"collMod": "no_such_collection"})


@pytest.mark.parametrize("url", ["mongodb://", "mongodb://host:x/db"])
def test_a_wrong_url_is_told_so(url: str) -> None:
    with pytest.raises(SettingsError):
        ReportRepository.connect(url)


def test_a_batch_that_is_too_long_for_one_command_goes_in_by_parts(reports: ReportRepository, monkeypatch) -> None:
    """By inserts, of 16 MB at most; only what is too large by itself is left to be refused."""
    put = []
    monkeypatch.setattr(ReportWriter, "put", lambda self, kind, documents: put.extend(documents) or WriteResult())
    documents = [document(i, checkup_report="x" * (17 if i == 3 else 5) * 1_000_000) for i in range(1, 8)]
    assert ReportWriter(reports).insert("checkup", documents).written == 6
    assert reports.count()[0] == 6
    assert [each["_id"] for each in put] == [3]


def test_an_insert_tells_apart_what_was_new_what_was_there_and_what_is_refused(reports: ReportRepository) -> None:
    writer = ReportWriter(reports)
    writer.insert("checkup", [document(2), document(3, disease="old")])
    reports._database.command("collMod", "reports", validator={"disease": {"$ne": "bad"}})
    done = writer.insert("checkup", [document(1), document(2), document(3, revision=2), document(4, disease="bad")])
    assert (done.written, done.unchanged, [failure.id for failure in done.quarantined]) == (2, 1, [4])
    assert reports.get(3)["revision"] == 2
    assert reports.get(4) is None


def test_an_index_that_was_dropped_is_made_again_by_migrate(reports: ReportRepository, run_cli) -> None:
    collections = (reports.reports, reports.users, reports.access_log.collection)
    before = [collection.index_information() for collection in collections]
    for collection in collections:
        collection.drop_indexes()
    assert run_cli("migrate").returncode == 0
    assert [collection.index_information() for collection in collections] == before
