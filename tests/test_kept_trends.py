"""Trends that are kept beside the reports: what they say is what the reports say, whatever happens in between."""

import random
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from support.factories import NOW, document, record, take
from support.sync_processes import FILL, Threads, Writers, carry_over, syncing

from myhealth.intake.corrections import change_checkup, delete_checkup
from myhealth.privacy.erasure import erase_user
from myhealth.reports import kept_trends
from myhealth.reports.filters import PageCursor
from myhealth.reports.kept_trends import KeptTrends
from myhealth.reports.repository import ReportRepository
from myhealth.reports.trends import TrendQuery
from myhealth.reports.writer import ReportWriter
from myhealth.sync.runner import restart_epoch, run_pass
from myhealth.sync.verify import verify
from wsgi.browse_api.views import POINT_COLUMNS, encode_rows

pytestmark = pytest.mark.usefixtures("people")
PRESSURE = TrendQuery(code="8480-6")
LONG = 230  # reports; more than are read as quickly


def patient_of(reports: ReportRepository, name: str = "bholanath") -> dict[str, Any]:
    return reports.people.find_by_username(name)


def is_kept(reports: ReportRepository, wanted: TrendQuery = PRESSURE, name: str = "bholanath") -> bool:
    return reports.kept_trends.find(patient_of(reports, name), wanted, 1) is not None


def read(reports: ReportRepository, wanted: TrendQuery = PRESSURE, name: str = "bholanath") -> list[Any]:
    return [(point.report_id, point.value) for point in reports.trend(patient_of(reports, name), wanted).points]


def expected(db: Any, name: str = "bholanath") -> list[tuple[int, Any]]:
    """Return the same from PostgreSQL."""
    return db(
        "select checkups.id, (result->>'value')::int from checkups join users on users.id = patient_id,"
        " jsonb_array_elements(results) as result where username = %s and result->>'code' = '8480-6'"
        " order by taken_at desc, checkups.id desc",
        name,
    )


def pressure(value: Any) -> list[dict[str, Any]]:
    return [{"code": "8480-6", "name": "Systolic blood pressure", "value": value, "unit": "mm[Hg]"}]


@pytest.fixture
def long_history(db: Any, sync: Any, reports: ReportRepository) -> ReportRepository:
    """A long history of Bholanath and of Savita, whose trends are kept."""
    days = [NOW - timedelta(days=i) for i in range(LONG)]
    take(*[record(i, taken_at=day.isoformat(), results=pressure(100 + i % 90)) for i, day in enumerate(days)])
    savitas = [record(1000 + i, "savita", taken_at=day.isoformat()) for i, day in enumerate(days)]
    take(*savitas)
    sync()
    for name in ("bholanath", "savita"):
        assert read(reports, name=name) == expected(db, name)
        assert is_kept(reports, name=name)
        assert read(reports, name=name) == expected(db, name)
    return reports


ODD = [
    128, 128.5, "5.10", -0.0, 2**40, 2**70, 1e300, "12345678901234567890.125", '"<3"', '"0"', "null", "true",
    '{"a": [1, 5.50]}', '["5.0"]',
]  # fmt: skip
FACTS = [
    "", ', "taken_at": "2026-11-19T01:02:03.5+05:30"', ', "status": "corrected", "specimen": "urine"', ', "ranges": [{"low": 5.50}]',
    ', "taken_at": "2020-01-01T00:00:00Z", "taken_precision": "unknown"', ', "flag": "H", "low": 3.90, "high": 6',
]  # fmt: skip


@pytest.fixture
def odd(sync: Any, reports: ReportRepository) -> ReportRepository:
    """Reports of every kind of value and facts, in pairs of the same moment, as the sync stores them."""
    sync()
    patient, documents = patient_of(reports), []
    for i, (value, facts) in enumerate(product(ODD, FACTS)):
        results = f'[{{"code": "8480-6", "name": "n", "value": {value}{facts}}}, {{"name": "n", "value": {i}}}]'
        whose = {"patient_id": patient["_id"], "subject": patient["subject"]}
        at = NOW - timedelta(hours=i // 2, microseconds=1000 * i)
        documents.append(document(i + 1, results=results, taken_at=at, **whose))
    ReportWriter(reports).insert("checkup", documents)
    return reports


def answers(reports: ReportRepository, wanted: TrendQuery) -> list[Any]:
    """Return the answers to many questions of one measurement."""
    patient, found = patient_of(reports), []
    moments = [None, NOW, NOW - timedelta(hours=20, microseconds=40_500), NOW - timedelta(days=400)]
    places = [None, PageCursor(NOW, 3), PageCursor(NOW - timedelta(hours=3, milliseconds=7), 8)]
    for since, until, after, limit in product(moments, moments, places, (1, 7, 84, 1000)):
        asked = TrendQuery(wanted.code, wanted.name, wanted.coded, since, until, after)
        page = reports.trend(patient, asked, limit=limit)
        found.append([encode_rows(page.points, POINT_COLUMNS, kind) for kind in ("application/json", "text/csv")])
        found[-1].append((page.after, [(isinstance(each.value, Decimal), each.value) for each in page.points]))
    return found


@pytest.mark.parametrize("wanted", [PRESSURE, TrendQuery(name="n"), TrendQuery(name="n", coded=False)], ids=str)
def test_a_kept_trend_answers_every_question_as_its_reports_do(
    odd: ReportRepository, wanted: TrendQuery, monkeypatch: Any
) -> None:
    plain = answers(odd, wanted)
    assert not is_kept(odd, wanted)
    monkeypatch.setattr(kept_trends, "KEPT_FROM", 1)
    monkeypatch.setattr("myhealth.reports.repository.KEPT_FROM", 1)
    odd.trend(patient_of(odd), wanted)
    assert is_kept(odd, wanted)
    for one, other in zip(answers(odd, wanted), plain, strict=True):
        assert one == other


def test_a_short_history_and_one_that_is_too_long_are_not_kept(sync, reports, monkeypatch) -> None:
    take(*[record(i) for i in range(20)])
    sync()
    for least, most, kept in [(21, 5000, False), (1, 19, False), (20, 20, True)]:
        monkeypatch.setattr(kept_trends, "KEPT_FROM", least)
        monkeypatch.setattr(kept_trends, "KEPT_MAX", most)
        monkeypatch.setattr("myhealth.reports.repository.KEPT_FROM", 1)
        assert len(read(reports)) == 20
        assert is_kept(reports) == kept


def move(people: dict[str, int], db: Any) -> None:
    db("update checkups set patient_id = %s where record_id = '3' returning 1", people["savita"])


CHANGES: dict[str, tuple[Callable[[Any, Any], Any], set[str]]] = {
    "a new report": (lambda people, db: take(record(500, results=pressure(77))), {"savita"}),
    "a correction": (lambda people, db: change_checkup(people["bholanath"], 5, {"results": pressure(66)}), {"savita"}),
    "a deletion": (lambda people, db: delete_checkup(people["bholanath"], 5), {"savita"}),
    "another moment": (
        lambda people, db: change_checkup(people["bholanath"], 5, {"taken_at": "2001-01-01T00:00:00Z"}), {"savita"}
    ),
    "a report that moves to another patient": (move, set()),
    "a document that MongoDB refuses": (
        lambda people, db: db(
            "update checkups set results = %s where id = 5 returning 1", '[{"value": %s}]' % ("9" * 40)
        ),
        {"savita"},
    ),
    "a row that cannot become a document": (
        lambda people, db: db("update checkups set taken_until = '10000-01-01' where id = 5 returning 1"),
        {"savita"},
    ),
    "an erasure": (lambda people, db: erase_user("savita"), {"bholanath"}),
    "a change of nobody's results": (
        lambda people, db: db("update users set full_name = 'B' where username = 'bholanath' returning 1"),
        {"bholanath", "savita"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_nobody_is_shown_what_was_kept_before(
    long_history: ReportRepository, people, db, sync, settings, change: str
) -> None:
    make, unchanged = CHANGES[change]
    make(people, db)
    sync()
    assert {
        name for name in ("bholanath", "savita") if patient_of(long_history, name) and is_kept(long_history, name=name)
    } == unchanged
    for name in ("bholanath", "savita") if change != "an erasure" else ("bholanath",):
        for _ in range(2):
            is_set_aside = "refuses" in change or "cannot" in change
            shown = [each for each in expected(db, name) if not (is_set_aside and each[0] == 5)]
            assert read(long_history, name=name) == shown
    assert verify(settings.database_url, ReportWriter(long_history), 100).counts["altered"] == 0


def test_an_erasure_leaves_no_copy_even_before_the_sync(long_history: ReportRepository) -> None:
    savita = patient_of(long_history, "savita")
    ReportWriter(long_history).erase_person(savita["_id"], savita["subject"])
    assert long_history.kept_trends.collection.count_documents({}) == 0


class Ended(Exception):
    """The process is killed here."""


@pytest.mark.parametrize("write", ["insert", "put", "remove", "quarantine"])
@pytest.mark.parametrize("when", ["before", "behind"])
def test_a_pass_that_is_killed_at_a_write_leaves_nothing_outdated(
    long_history: ReportRepository, db, people, settings, sync, write: str, when: str
) -> None:
    """A reader who asks before the next pass keeps nothing of the half that is done."""
    change = {
        "insert": "a new report",
        "put": "a correction",
        "remove": "a deletion",
        "quarantine": "a document that MongoDB refuses",
    }
    CHANGES[change[write]][0](people, db)

    class Killed(ReportWriter):
        pass

    def kill(self: Any, *arguments: Any) -> Any:
        if when == "behind" and arguments[0] == "checkup":
            getattr(ReportWriter, write)(self, *arguments)
        if arguments[0] == "checkup" and arguments[1]:
            raise Ended
        return getattr(ReportWriter, write)(self, *arguments)

    setattr(Killed, write, kill)
    with pytest.raises(Ended):
        run_pass(settings.database_url, Killed(long_history), settings)
    plain = [(each["_id"], result["value"]) for each in long_history.find(patient_of(long_history), limit=1000)
             for result in each["results"] if result.get("code") == "8480-6"]  # fmt: skip
    assert read(long_history) == plain
    sync()
    shown = [each for each in expected(db) if write != "quarantine" or each[0] != 5]
    for _ in range(2):
        assert read(long_history) == shown
    assert is_kept(long_history)


@pytest.mark.parametrize("moment", ["while the reports are read", "before it is looked at again", "before it is kept"])
def test_a_pass_that_begins_while_a_trend_is_made_has_it_not_kept(
    long_history: ReportRepository, db, sync, moment: str
) -> None:
    def change() -> None:
        if not changed:
            changed.append(take(record(600, results=pressure(55))))
            sync()

    changed: list[Any] = []
    store = long_history

    class Collection:
        """A collection whose reads or writes let a pass through."""

        def __init__(self, real: Any, name: str, count: int) -> None:
            self.real, self.method, self.count = real, name, count

        def __getattr__(self, name: str) -> Any:
            if name != self.method:
                return getattr(self.real, name)
            self.count -= 1
            if self.count == 0 and self.method == "find_one":
                found = self.real.find_one({"_id": "mark"}, {"run": 1, "trends": 1, "finished": 1})
                change()
                return lambda *_: found
            if self.count == 0:
                change()
            return getattr(self.real, name)

        def with_options(self, **_: Any) -> Any:
            return self

    def reading(*arguments: Any) -> Any:
        found = store._find_trend(*arguments)
        if moment == "while the reports are read":
            change()
        return found

    store.kept_trends.collection.delete_many({})
    state = Collection(store.state, "find_one", 2 if moment == "before it is kept" else 0)
    collection = Collection(store.kept_trends.collection, "replace_one", moment == "before it is looked at again")
    KeptTrends(collection, state, reading).keep(patient_of(store), PRESSURE)  # type: ignore[arg-type]
    assert changed
    assert not is_kept(store)
    assert read(store) == expected(db)


def test_a_trend_that_is_made_when_a_person_is_erased_is_not_kept(long_history: ReportRepository) -> None:
    savita, store = patient_of(long_history, "savita"), long_history

    def reading(*arguments: Any) -> Any:
        found = store._find_trend(*arguments)
        ReportWriter(store).erase_person(savita["_id"], savita["subject"])
        return found

    KeptTrends(store.kept_trends.collection, store.state, reading).keep(savita, PRESSURE)
    assert store.kept_trends.find(savita, PRESSURE, 1) is None
    assert store.kept_trends.collection.count_documents({"content": {"$exists": True}}) == 0


def test_while_a_pass_is_at_work_nothing_is_kept(long_history: ReportRepository) -> None:
    long_history.kept_trends.collection.delete_many({})
    long_history.state.update_one({"_id": "mark"}, {"$set": {"finished": False}})
    assert len(read(long_history)) == LONG
    assert long_history.kept_trends.collection.count_documents({}) == 0


def test_what_is_kept_counts_no_more_once_an_older_program_has_written(
    long_history: ReportRepository, db, people, sync
) -> None:
    """An older sync replaces the checkpoint and deletes no trends."""
    checkpoint = long_history.state.find_one({"_id": "mark"})
    del checkpoint["trends"]
    long_history.state.replace_one({"_id": "mark"}, checkpoint)
    long_history.reports.update_one({"_id": 5}, {"$set": {"results": pressure(44)}})
    assert (5, 44) in read(long_history)
    assert not is_kept(long_history)
    take(record(700, results=pressure(1)))
    sync()
    assert long_history.kept_trends.collection.count_documents({}) == 0


def test_before_the_first_pass_trends_are_kept_too_and_the_pass_forgets_them(
    long_history: ReportRepository, sync
) -> None:
    long_history.state.delete_many({})
    assert not is_kept(long_history)
    read(long_history)
    assert is_kept(long_history)
    sync()
    assert long_history.kept_trends.collection.count_documents({}) == 0


def test_a_new_epoch_forgets_all_trends(long_history: ReportRepository, settings, db) -> None:
    restart_epoch(settings.database_url, ReportWriter(long_history))
    assert long_history.kept_trends.collection.count_documents({}) == 0
    run_pass(settings.database_url, ReportWriter(long_history), settings)
    assert read(long_history) == expected(db)
    assert is_kept(long_history)


def test_verify_finds_a_trend_that_differs_from_its_reports(long_history: ReportRepository, settings, people) -> None:
    """Another program has changed a report."""
    long_history.reports.update_one({"_id": 5}, {"$set": {"abnormal": None}})  # no part of a trend
    compare = ReportWriter(long_history)
    assert [each.kind for each in verify(settings.database_url, compare, 100).first] == ["checkup"]
    assert verify(settings.database_url, compare, 100, repair=True).mended == 1
    assert is_kept(long_history, name="savita")
    long_history.reports.update_one({"_id": LONG + 5}, {"$set": {"results.0.value": 1}})
    long_history.reports.update_one({"_id": LONG + 5}, {"$set": {"results.0.value": 128}})
    assert verify(settings.database_url, compare, 100).differences == 0
    content = long_history.kept_trends.collection.find_one({"patient_id": people["savita"]})["content"]
    spoilt = {"$set": {"content": content.replace(b"Systolic", b"systolic", 1)}}
    long_history.kept_trends.collection.update_one({"patient_id": people["savita"]}, spoilt)
    found = verify(settings.database_url, compare, 100)
    assert [(each.what, each.kind, each.id) for each in found.first] == [("altered", "trend", people["savita"])]
    assert verify(settings.database_url, compare, 100, repair=True).mended == 1
    assert verify(settings.database_url, compare, 100).differences == 0
    assert not is_kept(long_history, name="savita")


@pytest.mark.parametrize("fault", [{"results.0.value": 1}, {"_id": 9000}], ids=["altered", "ghost"])
def test_a_repair_forgets_what_was_made_of_a_wrong_report(long_history: ReportRepository, db, settings, fault) -> None:
    report = long_history.reports.find_one({"_id": 5})
    report["results"][0]["value"] = 1
    long_history.reports.replace_one({"_id": 5}, report)
    if "_id" in fault:
        long_history.reports.insert_one({**report, **fault})
        long_history.reports.update_one({"_id": 5}, {"$set": {"results.0.value": expected(db)[4][1]}})
    long_history.kept_trends.collection.delete_many({})
    assert read(long_history) != expected(db)
    assert is_kept(long_history)
    assert verify(settings.database_url, ReportWriter(long_history), 100, repair=True).mended == 1
    assert read(long_history) == expected(db)


def test_a_sweep_forgets_what_was_made_of_reports_of_an_earlier_epoch(long_history: ReportRepository, db) -> None:
    long_history.reports.insert_one({**long_history.reports.find_one({"_id": 5}), "_id": 9000, "epoch": 0})
    long_history.kept_trends.collection.delete_many({})
    assert len(read(long_history)) == LONG + 1
    assert ReportWriter(long_history).sweep(1)[0] == 1
    assert read(long_history) == expected(db)


class Readers(Threads):
    """Readers who ask for everybody's trend all the time, so that each is kept as soon as it may be."""

    def __init__(self, reports: ReportRepository) -> None:
        self.kept, self._reports = 0, reports
        super().__init__(self._run, 2)

    def _run(self, seed: int) -> None:
        while not self.ending.is_set():
            for user in list(self._reports.users.find()):
                self._reports.trend(user, TrendQuery(name="n"))
            self.kept = max(
                self.kept, self._reports.kept_trends.collection.count_documents({"content": {"$exists": True}})
            )


@pytest.mark.long
def test_with_readers_writers_and_killed_syncs_no_kept_trend_differs_from_its_reports(
    db, reports, settings, monkeypatch
) -> None:
    monkeypatch.setattr(kept_trends, "KEPT_FROM", 1)
    monkeypatch.setattr("myhealth.reports.repository.KEPT_FROM", 1)
    chance, deadline, kept, slowness = random.Random(), time.monotonic() + 8, 0, 1.0
    db(FILL, 200)
    carry_over(settings)
    with Readers(reports) as readers:
        with Writers(settings.database_url, 3):
            # on a slow machine, until a pass came far enough for a reader to keep something
            while time.monotonic() < deadline + (0 if readers.kept else 100):
                with syncing(settings, "--once", MYHEALTH_SYNC_BATCH_ROWS="20") as process:
                    time.sleep(chance.uniform(0.3, 1.2) * slowness)
                    process.kill()
                    slowness *= 1 if readers.kept else 1.3
                    process.wait()
                kept += len([*reports.kept_trends.collection.find({"content": {"$exists": True}})])
                assert [*reports.kept_trends.differing()] == []
        carry_over(settings)
        time.sleep(0.5)
        carry_over(settings)
    found = verify(settings.database_url, ReportWriter(reports), 100)
    assert (found.first, found.not_yet) == ([], 0)
    print(f"\nat most {readers.kept} trends were kept at once, {kept} at the ends of passes")
    assert readers.kept
