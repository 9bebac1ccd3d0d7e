"""Queries of the report store: filters, pages, trends, access log."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from pymongo.monitoring import CommandListener
from support.factories import NOW, document

from myhealth.common.errors import BadInput
from myhealth.reports.access_log import Access
from myhealth.reports.documents import UserRow, user_document
from myhealth.reports.filters import ALL_PATIENTS, NO_FILTER, SORTS, PageCursor, ReportFilter, own_report, own_reports
from myhealth.reports.repository import ReportRepository
from myhealth.reports.trends import TrendPoint, TrendQuery
from myhealth.reports.writer import ReportWriter
from wsgi.browse_api.parameters import (
    access_cursor,
    format_page_cursor,
    parse_access_cursor,
    parse_filter,
    parse_page_cursor,
    report_cursor,
)

DAY = timedelta(days=1)
PULSE = '{"code": "8867-4", "name": "Heart rate", "value": %s, "unit": "/min", "low": 60, "high": 100, "flag": %s}'
OTHER = '{"code": null, "name": "Grip", "value": %s, "unit": "kg", "low": null, "high": null, "flag": null}'
PATIENT = {"_id": 7, "subject": "s7", "username": "savita"}


def points(store: ReportRepository, wanted: TrendQuery, **options) -> list[TrendPoint]:
    return store.trend(PATIENT, wanted, **options).points


def user(id_: int, username: str, role: str = "patient") -> dict:
    return user_document(UserRow(id_, 1, f"s{id_}", username, username.title(), role, True, None, 1), 1)


@pytest.fixture
def filled(reports: ReportRepository) -> ReportRepository:
    """Six of Savita's reports, a day apart, and one of whoever had her id before her."""
    rows = [
        document(1, results="[" + PULSE % (120, '"H"') + "]", checkup_type="ECG", disease="X (rare)"),
        document(2, taken_at=NOW - DAY, results=f"[{PULSE % (70, 'null')}, {OTHER % '40.50'}]", taken_by="dr.ayush"),
        document(3, taken_at=NOW - 2 * DAY, machine="HC-9", checkup_report="All fine. 50% of it"),
        document(4, taken_at=NOW - 3 * DAY, results=f"[{OTHER % 41}]", machine=None),
        document(5, taken_at=NOW - 4 * DAY, results='["odd", null, 5]'),
        document(6, taken_at=NOW - 5 * DAY, results='{"odd": 1}'),
        document(9, subject="s7-before", results="[" + PULSE % (1, '"L"') + "]"),
        document(10, patient_id=8, subject="s8"),
    ]
    ReportWriter(reports).insert("checkup", rows)
    people = [user(7, "savita"), user(8, "Sandeep"), user(9, "dr.ayush", "doctor"), user(10, "sávita")]
    ReportWriter(reports).insert("user", people)
    return reports


FILTERS = {
    "nothing": ({}, [1, 2, 3, 4, 5, 6]),
    "empty": ({"type": "", "from": ""}, [1, 2, 3, 4, 5, 6]),
    "type": ({"type": "ECG"}, [1]),
    "disease": ({"disease": "X (rare)"}, [1]),
    "machine": ({"machine": "HC-9"}, [3]),
    "taken_by": ({"taken_by": "dr.ayush"}, [2]),
    "abnormal": ({"abnormal": "true"}, [1]),
    "not abnormal": ({"abnormal": "false", "code": "8867-4"}, [2]),
    "code": ({"code": "8867-4"}, [1, 2]),
    "from": ({"from": "2026-11-19"}, [1, 2]),
    "a moment": ({"from": "2026-11-20T09:14:03.123+05:30"}, [1]),
    "a moment whose + arrived as a blank": ({"from": "2026-11-20T09:14:03.123 05:30"}, [1]),
    "to, the whole day": ({"to": "2026-11-17"}, [4, 5, 6]),
    "to the last day there is": ({"to": "9999-12-31"}, [1, 2, 3, 4, 5, 6]),
    "before the first moment there is": ({"from": "0001-01-01T00:00:00+23:59"}, [1, 2, 3, 4, 5, 6]),
    "from a leap second on": ({"from": "2026-11-19t23:59:60.5z"}, [1]),
    "from and to": ({"from": "2026-11-18", "to": "2026-11-18"}, [3]),
    "text, case aside": ({"text": "all FINE"}, [3]),
    "text is no pattern": ({"text": "0% o"}, [3]),
    "text with brackets": ({"text": "(rare)"}, [1]),
    "text of a result": ({"text": "grip"}, [2, 4]),
    "a pattern": ({"text": ".*"}, []),
    "an operator": ({"type": '{"$ne": null}'}, []),
    "a dollar": ({"code": "$results.code"}, []),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_finds_what_is_like_it(filled: ReportRepository, name: str) -> None:
    values, expected = FILTERS[name]
    wanted = parse_filter(values)
    assert [report["_id"] for report in filled.find(PATIENT, wanted)] == expected
    assert [report["_id"] for report in filled.iterate(PATIENT, wanted)] == expected
    backwards = filled.find(PATIENT, wanted, sort="taken_at")
    assert [report["_id"] for report in backwards] == expected[::-1]


@pytest.mark.parametrize(("name", "text"), [("from", "yesterday"), ("from", "2026-02-30"), ("to", "2026-11-20T24:61:00Z"), ("from", "2026-11-20T00:00"),
                                       ("abnormal", "maybe"), ("text", "x" * 201), ("type", "a\0b"), ("code", "\ud800")])  # fmt: skip
def test_a_wrong_filter_is_told_by_name(name: str, text: str) -> None:
    with pytest.raises(BadInput, match=f"^{name} must be"):
        parse_filter({name: text})


@pytest.mark.parametrize("sort", ["-taken_at", "taken_at"])
@pytest.mark.parametrize("arriving", [False, True], ids=["at rest", "while reports arrive"])
def test_pages_follow_each_other_without_gap_or_overlap(reports: ReportRepository, sort, arriving: bool) -> None:
    moments = [NOW - timedelta(days=i // 7) for i in range(40)]
    writer = ReportWriter(reports)
    writer.insert("checkup", [document(i, taken_at=moment) for i, moment in enumerate(moments)])
    writer.insert("checkup", [document(100, patient_id=8)])
    seen, after, new = [], None, 1000
    while page := reports.find(PATIENT, ReportFilter(since=NOW - 50 * DAY), sort=sort, limit=4, after=after):
        seen += [report["_id"] for report in page]
        after = parse_page_cursor(report_cursor(page[-1]))
        if arriving:  # one behind the place, one before it, one beside it
            for moment in (after.taken_at, NOW + 9 * DAY, NOW - 9 * DAY)[: 3 if new < 1030 else 0]:
                writer.insert("checkup", [document(new, taken_at=moment)])
                new += 1
    old = [id_ for id_ in seen if id_ < 100]
    assert len(seen) == len(set(seen))
    assert old == sorted(range(40), key=lambda i: (moments[i], i), reverse=sort == "-taken_at")


@pytest.mark.parametrize("text", ["x", "1_x", "_", "1_", "99999999999999999999_1", "9999999999999999_1",
                                  "1_1_1", "1_-1", "٣_1"])  # fmt: skip
def test_a_wrong_place_is_told(text: str) -> None:
    with pytest.raises(BadInput):
        parse_page_cursor(text)


def test_a_place_is_exact_to_the_millisecond_at_any_time() -> None:
    for moment in (
        datetime(1, 1, 2, tzinfo=UTC),
        datetime(1901, 1, 1, 0, 0, 0, 1000, UTC),
        datetime(2026, 11, 20, 3, 44, 3, 999000, UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999000, UTC),
    ):
        assert parse_page_cursor(format_page_cursor(PageCursor(moment, 5))) == PageCursor(moment, 5)


def test_a_trend_is_one_measurement_newest_first(filled: ReportRepository) -> None:
    found = points(filled, TrendQuery("8867-4"))
    assert [(p.report_id, p.value, p.unit, p.low, p.high, p.flag) for p in found] == [
        (1, 120, "/min", 60, 100, "H"),
        (2, 70, "/min", 60, 100, None),
    ]
    assert [p.value for p in points(filled, TrendQuery(name="Grip"))] == [Decimal("40.50"), 41]
    assert [p.code for p in points(filled, TrendQuery(name="Grip"))] == [None, None]
    by_name = points(filled, TrendQuery(name="Heart rate"))
    assert [(p.report_id, p.code) for p in by_name] == [(1, "8867-4"), (2, "8867-4")]
    assert points(filled, TrendQuery(name="Heart rate", coded=False)) == []
    assert len(points(filled, TrendQuery(name="Grip", coded=False))) == 2
    assert {p.code for p in found} == {None}, "it was asked for"
    assert points(filled, TrendQuery("8867-4", until=NOW))[0].report_id == 2
    assert [p.report_id for p in points(filled, TrendQuery("8867-4"), limit=1)] == [1]
    assert [p.report_id for p in points(filled, TrendQuery("8867-4", after=PageCursor(NOW, 1)))] == [2]
    for nothing in ("$ne", "", "8867"):
        assert points(filled, TrendQuery(nothing)) == []


def test_a_trend_takes_no_value_for_a_field_and_no_odd_result_for_a_measurement(reports: ReportRepository) -> None:
    odd = '["8867-4", null, 5, ["8867-4"], {"code": ["8867-4"]}, {"code": {"code": "8867-4"}}]'
    rows = [
        document(1, results="[" + PULSE % (70, "null") + "]"),
        document(2, results='[{"code": "$$this.code", "value": 1}, {"code": "$results.code", "name": "$$ROOT"}]'),
        document(3, results=odd),
        document(4, results=PULSE % (80, "null")),  # no list
        document(5, results=odd[:-1] + "," + PULSE % ("90.50", "null") + "]"),
    ]
    ReportWriter(reports).insert("checkup", rows)
    by_code = [(p.report_id, p.value) for p in points(reports, TrendQuery("8867-4"))]
    assert by_code == [(5, Decimal("90.50")), (1, 70)]
    assert [p.report_id for p in points(reports, TrendQuery("$$this.code"))] == [2]
    assert [p.report_id for p in points(reports, TrendQuery("$results.code"))] == [2]
    assert [p.report_id for p in points(reports, TrendQuery(name="$$ROOT"))] == [2]


def test_a_trend_goes_on_behind_odd_results(reports: ReportRepository) -> None:
    """Each of these counts for the limit only if it has a point."""
    odd = ['["8867-4"]', '[[{"code": "8867-4", "name": "Pulse"}]]', '[{"code": ["8867-4"], "name": ["Pulse"]}]',
           '{"code": "8867-4", "name": "Pulse"}', '[{"code": [null], "name": "Pulse"}]']  # fmt: skip
    rows = [document(i, results=text, taken_at=NOW - i * DAY) for i, text in enumerate(odd, 1)]
    good = [("8867-4", 8), (None, 9)]
    rows += [document(i, results=json.dumps([{"code": c, "name": "Pulse"}]), taken_at=NOW - i * DAY) for c, i in good]
    ReportWriter(reports).insert("checkup", rows)
    assert [p.report_id for p in points(reports, TrendQuery("8867-4"), limit=1)] == [8]
    assert [p.report_id for p in points(reports, TrendQuery(name="Pulse", coded=False), limit=1)] == [9]
    assert [p.report_id for p in points(reports, TrendQuery(name="Pulse"), limit=3)] == [5, 8, 9]


@pytest.mark.parametrize("results", [
    '[{"value": 1.50}]', '[{"value": 1, "low": 0.10, "high": 2.00}]', '[{"value": 5}, {"more": {"deep": [1.50, "x"]}}]',
    '[{"value": [1.50]}]', '[[1.50]]', '{"value": 1.50}', '{"a": {"b": 1.50}}', "1.50", '"1.50"', "null", "[]",
    '[{"value": 123456789012345678901234567890}]', '[{"value": 5.1, "flag": "H"}, null, "x", 7]',
])  # fmt: skip
def test_what_is_read_at_once_is_what_is_there_digit_by_digit(reports: ReportRepository, results: str) -> None:
    ReportWriter(reports).insert("checkup", [document(1, results=results)])
    there = {
        name: value.astimezone(UTC) if isinstance(value, datetime) else value
        for name, value in reports.reports.find_one({"_id": 1}).items()
    }
    for [found] in (reports.find(PATIENT), list(reports.iterate(PATIENT)), [reports.get(1)]):
        assert repr(found) == repr(there)


def test_every_moment_that_is_read_names_its_zone(filled: ReportRepository) -> None:
    """A moment without a zone would be one of the server's own zone. Another program may have stored others."""
    odd = {"issued_at": NOW, "details": {"at": [NOW]}, "results": [{"code": "8867-4", "value": NOW}]}
    filled.reports.update_one({"_id": 1}, {"$set": odd})
    filled.reports.delete_one({"_id": 9})
    report = filled.get(1)
    assert report["results"] == odd["results"] and report["details"] == odd["details"]
    assert filled.find(PATIENT)[0] == report == next(filled.iterate(PATIENT)) == filled.last_of_each([PATIENT])["s7"]
    assert {report[name] for name in ("taken_at", "created_at", "updated_at", "issued_at")} == {NOW}
    found, after = filled.trend(PATIENT, TrendQuery("8867-4"), limit=1)
    newest = [line[0] for line in filled.newest(PATIENT, 1).points().values()]
    listed = filled.measurements(PATIENT)
    assert after.taken_at == NOW
    assert all(
        at.tzinfo for at in [found[0].taken_at, *(each.taken_at for each in newest), *(m.last_at for m in listed)]
    )


def test_what_was_measured_is_listed(filled: ReportRepository) -> None:
    found = [(m.code, m.name, m.units, m.count, m.first_at, m.last_at) for m in filled.measurements(PATIENT)]
    assert found == [
        (None, "Grip", ("kg",), 2, NOW - 3 * DAY, NOW - DAY),
        ("8867-4", "Heart rate", ("/min",), 2, NOW - DAY, NOW),
    ]
    assert filled.types(PATIENT) == ["ECG", "T"]
    nobody = {"_id": 99, "subject": "s99", "username": "x"}
    assert filled.measurements(nobody) == []
    assert filled.types(nobody) == []


def test_a_report_of_whoever_had_the_id_before_is_nobodys(filled: ReportRepository) -> None:
    assert filled.get_with_patient(9) is None
    assert filled.get_with_patient(-1) is filled.get_with_patient(2**63) is filled.get_with_patient(77) is None
    report, patient = filled.get_with_patient(1) or ({}, {})
    assert (report["_id"], patient["username"]) == (1, "savita")


def test_a_user_comes_with_the_reports_that_were_asked_for_and_with_nobody_elses(filled: ReportRepository) -> None:
    user = filled.people.get("s7")
    for sort in SORTS:
        for wanted in (NO_FILTER, ReportFilter(type="ECG"), ReportFilter(abnormal=True), ReportFilter(since=NOW - DAY)):
            everything = filled.find(user, wanted, sort=sort)
            after = PageCursor.of(everything[0]) if everything else None
            for options in ({"limit": 50}, {"limit": 1}, {"limit": 50, "after": after}):
                found = filled.get_user("s7", own_reports(wanted, sort=sort, **options))
                assert found == (user, filled.find(user, wanted, sort=sort, **options))
    assert filled.get_user("s7", own_report(1)) == (user, [filled.get(1)])
    for subject, asked in (("s8", 1), ("s7", 9), ("s7", 77)):
        assert filled.get_user(subject, own_report(asked)) == (filled.people.get(subject), [])
    assert filled.get_user("nobody", own_report(1)) == (None, [])
    assert own_report(-1) is own_report(2**63) is None


def test_the_number_of_queries_does_not_tell_whether_a_report_exists(filled: ReportRepository, settings) -> None:
    class Counting(CommandListener):
        count = 0

        def started(self, event: object) -> None:
            self.count += 1

        def succeeded(self, event: object) -> None: ...
        def failed(self, event: object) -> None: ...

    counting, counts = Counting(), {}
    store = ReportRepository.connect(settings.mongo_url, event_listeners=[counting])
    for reader, asked in (("owner", 1), ("other", 1), ("other", 77), ("owner", 77)):
        before, user = counting.count, {**PATIENT, "subject": "s7" if reader == "owner" else "s8"}
        found = store.get_with_patient(asked, user)
        assert (found is not None) == (asked == 1) and (found is None or found[1]["subject"] == "s7")
        counts[reader, asked] = counting.count - before
    store.close()
    assert list(counts.values()) == [1, 2, 2, 2]


def test_accesses_are_logged_but_not_those_to_ones_own_record(filled: ReportRepository) -> None:
    doctor, patient = filled.people.find_by_username("dr.ayush"), filled.people.find_by_username("savita")
    access_log = filled.access_log
    for minute in range(5):
        access = Access(doctor, patient, "report", report_id=minute, address="::1")
        access_log.log(access, now=NOW + timedelta(minutes=minute))
    access_log.log(Access(patient, patient, "reports"), now=NOW)
    access_log.log(Access(doctor, filled.people.find_by_username("sandeep"), "reports"), now=NOW)
    access_log.log(Access(patient, None, "reports", action="refused", outcome="refused"), now=NOW)
    found = access_log.find_for_patient(patient)
    assert [(event.actor, event.actor_role, event.what, event.report_id) for event in found] == [
        ("dr.ayush", "doctor", "report", minute) for minute in (4, 3, 2, 1, 0)
    ]
    after = parse_access_cursor(access_cursor(found[1]))
    assert access_log.find_for_patient(patient, limit=2) + access_log.find_for_patient(patient, after=after) == found
    assert access_log.find_for_patient({**patient, "subject": "s7-before"}) == []
    assert len(list(access_log.find_events())) == 7
    assert [event.outcome for event in access_log.find_events(action="refused")] == ["refused"]
    since = NOW + timedelta(minutes=3)
    assert len(list(access_log.find_events(actor="DR.AYUSH", subject="savita", since=since))) == 2
    assert list(access_log.find_events(actor="dr")) == []
    assert len(list(access_log.find_events(after=found[2].id))) == 4


def test_many_accesses_are_logged_in_one_write(filled: ReportRepository) -> None:
    database = filled.state.database
    doctor = filled.people.find_by_username("dr.ayush")
    patients = [filled.people.find_by_username(name) for name in ("savita", "sandeep", "dr.ayush")]
    database.command("profile", 2)
    filled.access_log.log(*[Access(doctor, patient, "reports", report_id=1) for patient in patients])
    filled.access_log.log(Access(doctor, doctor, "reports"))
    database.command("profile", 0)
    assert database["system.profile"].count_documents({"op": "insert"}) == 1
    assert {event.username for event in filled.access_log.find_events()} == {"savita", "Sandeep"}


def test_all_patients_reports_are_found_only_where_that_is_asked_for(filled: ReportRepository) -> None:
    assert {report["_id"] for report in filled.find(ALL_PATIENTS)} == {1, 2, 3, 4, 5, 6, 9, 10}
    assert [report["_id"] for report in filled.find(ALL_PATIENTS, ReportFilter(abnormal=True), limit=1)] == [9]
    with pytest.raises(TypeError):
        filled.find(None)  # type: ignore[arg-type]
