"""Every query of every route is answered by an index: nothing reads a whole collection or sorts in memory."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.clients import Caller
from support.factories import NOW, document

from myhealth.profiles.services import get_user
from myhealth.reports.access_log import Access
from myhealth.reports.documents import UserRow, user_document
from myhealth.reports.filters import PageCursor, ReportFilter, own_reports
from myhealth.reports.repository import ReportRepository
from myhealth.reports.user_search import name_cursor
from myhealth.reports.writer import ReportWriter
from wsgi.browse import VIEWS

FILTERS = ["type=ECG", "disease=BP", "machine=HC-1", "taken_by=x", "from=2026-01-01", "to=2026-12-31", "abnormal=true",
           "code=8480-6", "text=fine"]  # fmt: skip
AFTER = "limit=1&after=1793437200000_2"
PATIENT = "patient={subject}"
FHIR_SEARCHES = [
    "",
    ",x",
    ",{other}&_sort=date&_count=1",
    "&code=8480-6,85354-9",
    "&date=ge2026-01-01&date=lt2027",
    "&status=final&category=laboratory&_lastUpdated=gt2026&_count=1&_after=1793437200000_2_1",
    "&_sort=date&code=http://loinc.org|8480-6&_after=1793437200000_2_1&_include={kind}:patient",
    "&_id=1-1,1",
    ",{other}&_summary=count",
]
PATHS = {
    "/reports/": ["", AFTER, f"{AFTER}&sort=taken_at", *FILTERS, "&".join([AFTER, *FILTERS])],
    "/reports/1/": [""],
    "/users/": [
        "",
        "search=b",
        "search=b&role=patient&limit=1&after=0_1_b",
        "search=jo+bho&limit=1",
        "search=jo+bho&role=patient&after=2_1_joshi",
        "search=jo&after=5_1_joshi",
    ],
    "/users/bholanath/": [""],
    "/users/bholanath/reports/": ["", AFTER, "sort=taken_at", "&".join([AFTER, *FILTERS])],
    "/users/bholanath/trends/": ["", "code=8480-6", f"code=8480-6&from=2026-01-01&to=2026-12-31&{AFTER}", "name=Grip"],
    "/users/bholanath/access-log/": ["", "limit=1&after=1793437200000_000000000000000000000000"],
    "/fhir/metadata/": [""],
    "/fhir/Patient/": [
        "",
        "name=jo",
        "name=jo+bho&birthdate=1980",
        "name=a,b&_count=1&_after=2_1_joshi",
        "birthdate=1980",
        "birthdate=ge1980&_count=1&_after=0_1_1980-01-01",
        "identifier=A-1,bholanath",
        "_id={subject}",
        "_summary=count",
    ],
    "/fhir/Patient/{subject}/": [""],
    "/fhir/Patient/{subject}/$everything/": ["", "_since=2026-01-01T00:00:00Z&_count=1&_after=1793437200000_2_1"],
    **{
        f"/fhir/{kind}/": [f"{PATIENT}{each}" for each in FHIR_SEARCHES] for kind in ("Observation", "DiagnosticReport")
    },
    "/fhir/Observation/1-1/": [""],
    "/fhir/DiagnosticReport/1/": [""],
    "/fhir/Device/1/": [""],
    "/login/": [""],
    "/logout/": [""],
    "/livez": [""],
    "/metrics": [""],
    "/readyz": [""],
    "/healthz": [""],
}
# Stages that read or sort everything. Source: MongoDB manual, "Explain Results".
REFUSED = {"COLLSCAN", "SORT", "SORT_KEY_GENERATOR", "$sort"}


@pytest.fixture
def profiled(reports: ReportRepository) -> Iterator[ReportRepository]:
    """The report store, noting every command it is given."""
    reports.state.database.command("profile", 2)
    yield reports
    reports.state.database.command("profile", 0)


def stages(plan: Any) -> Iterator[str]:
    """The names of all stages in a plan, however deep."""
    if isinstance(plan, list):
        for each in plan:
            yield from stages(each)
    elif isinstance(plan, dict):
        if isinstance(plan.get("stage"), str):
            yield plan["stage"]
        for name, inner in plan.items():
            if name in REFUSED:
                yield name
            if name not in ("rejectedPlans", "command"):  # the command is repeated
                yield from stages(inner)


def commands(store: ReportRepository) -> list[dict[str, Any]]:
    """What was asked of the store's own collections since profiling began."""
    found = store.state.database["system.profile"].find({"op": {"$in": ["query", "command"]}})
    asked = [each["command"] for each in found]
    return [
        each
        for each in asked
        if {"find", "aggregate", "distinct", "count"} & set(each) and "system.profile" not in each.values()
    ]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("caller", ["bholanath", "dr.ayush"])
def test_an_index_answers_every_query_of(
    browse: Caller, log_in, profiled: ReportRepository, path: str, caller: str
) -> None:
    known = {
        "subject": get_user("bholanath").subject,
        "other": get_user("savita").subject,
        "kind": f"{path}//".split("/")[2],
    }
    for query in PATHS[path]:
        answer = browse("GET", f"{path}?{query}".format(**known), token=log_in(caller))
        assert answer.status_code == {"/login/": 401, "/logout/": 405}.get(path, 200), (query, answer.data)
    asked = check_plans(profiled)
    assert asked or path in ("/login/", "/logout/", "/livez", "/metrics", "/fhir/metadata/")


def check_plans(profiled: ReportRepository) -> list[Any]:
    """Return the commands since profiling began; each was answered by an index."""
    profiled.state.database.command("profile", 0)
    asked = commands(profiled)
    for command in asked:
        kept = ("find", "aggregate", "filter", "sort", "projection", "limit", "pipeline", "cursor", "hint")
        clean = {name: command[name] for name in command if name in kept}
        for each in parts_of(clean):
            plan = profiled.state.database.command("explain", each, verbosity="queryPlanner")
            names = set(stages(plan))
            assert names & {"IXSCAN", "IDHACK", "DISTINCT_SCAN"}, (each, names)
            assert not names & REFUSED, (each, names)
    return asked


def parts_of(command: dict[str, Any]) -> list[dict[str, Any]]:
    """The queries of a command: one, or with a $lookup what is before it and, for one document, its own."""
    pipeline = command.get("pipeline", ())
    joins = [number for number, stage in enumerate(pipeline) if "$lookup" in stage]
    if not joins:
        return [command]
    join = pipeline[joins[0]]["$lookup"]
    inner = [{"$match": {join["foreignField"]: 7}}, *join["pipeline"]]
    return [
        {**command, "pipeline": pipeline[: joins[0]]},
        {"aggregate": join["from"], "pipeline": inner, "cursor": {}},
    ]


@pytest.mark.parametrize("wanted", [ReportFilter(), ReportFilter(machine="HC-1", since=NOW, until=NOW)])
@pytest.mark.parametrize("after", [None, PageCursor(NOW, 2)])
def test_an_index_answers_what_is_to_review(stored, profiled: ReportRepository, wanted: Any, after: Any) -> None:
    profiled.to_review(wanted, limit=2, after=after)
    profiled.to_review(wanted, limit=2, after=after, behind_far=True)
    assert len(check_plans(profiled)) == 3, "the far ones, and twice the others"


def test_an_index_answers_what_staff_sees_of_patients(stored, profiled: ReportRepository) -> None:
    staff = profiled.people.find_by_username("dr.ayush")
    people = profiled.people.patients_by_name(limit=10)
    profiled.people.patients_by_name(limit=1, after=name_cursor(people[0]))
    for day, person in enumerate(people):
        profiled.access_log.log(Access(staff, person, "reports"), now=NOW + timedelta(days=day))
    assert profiled.access_log.opened_by(staff, 1) == [people[-1]["subject"]]
    last = profiled.last_of_each(people)
    assert {subject: [report] for subject, report in last.items()} == {
        person["subject"]: profiled.find(person, limit=1) for person in people
    }
    assert profiled.last_of_each([{**each, "subject": "of an earlier holder of the id"} for each in people]) == {}
    profiled.to_review(ReportFilter(machine="HC-1"), limit=2, machines=["HC-1", "HC-2"])
    assert len(check_plans(profiled)) == 11


def test_what_is_to_review_reads_no_more_than_it_shows(profiled: ReportRepository) -> None:
    days = [{"taken_at": NOW + timedelta(days=i), "results": '[{"flag": "H"}]'} for i in range(300)]
    rows = [document(i, **day, **({} if i % 3 else {"reviewed_at": NOW})) for i, day in enumerate(days, 1)]
    ReportWriter(profiled).insert("checkup", [*rows, *(document(i) for i in range(400, 500))])
    found = profiled.to_review(ReportFilter(), limit=20)
    assert [each["_id"] for each in found][:3] == [299, 298, 296]
    noted = list(profiled.state.database["system.profile"].find({"command.find": "reports"}))
    assert sum(each["docsExamined"] for each in noted) <= 21
    assert sum(each["keysExamined"] for each in noted) <= 26


def test_every_route_is_among_them() -> None:
    """But for the task runner's own calls, which go through documents by slices of their ids, and searches by forms."""
    shown = {path.replace("<username>", "bholanath").replace("<report_id:int>", "1") for path in VIEWS}
    ids = {"Patient": "{subject}", "Observation": "1-1"}
    shown = {path.replace("<resource_id:fhir_id>", ids.get(f"{path}//".split("/")[2], "1")) for path in shown}
    assert set(PATHS) == {path for path in shown if not path.startswith("/sync/") and "/_search/" not in path}


def test_a_late_page_reads_no_more_than_the_first(profiled: ReportRepository) -> None:
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    rows = [document(i, taken_at=begin + timedelta(days=i // 3)) for i in range(1, 2001)]
    ReportWriter(profiled).insert("checkup", rows)
    patient, after = {"_id": 7, "subject": "s7"}, None
    ReportWriter(profiled).insert("user", [user_document(UserRow(7, 1, "s7", "asha", "", "patient", True, None, 1), 1)])
    for _ in range(40):
        page = profiled.find(patient, limit=50, after=after)
        assert profiled.get_user("s7", own_reports(limit=50, after=after))[1] == page
        after = PageCursor.of(page[-1])
    for query in ({"command.find": "reports"}, {"command.aggregate": "users"}):
        noted = profiled.state.database["system.profile"].find(query).sort("$natural", 1)
        read = [(each["keysExamined"], each["docsExamined"]) for each in noted]
        assert len(read) == 40
        assert max(keys for keys, _ in read) <= 50 + 4
        assert max(documents for _, documents in read) <= 50 + 4
