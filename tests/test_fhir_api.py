"""The FHIR API for reading: every answer is FHIR R4, found by an index, and only for whom it is."""

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from support.clients import Caller
from support.factories import NOW, document, record, take

from myhealth.intake.record import DetailedResult
from myhealth.profiles import services
from myhealth.profiles.identifiers import add_identifier
from myhealth.profiles.services import get_user
from myhealth.reports.documents import encode_json
from myhealth.reports.fhir.resources import OBSERVATIONS, resources_of
from myhealth.reports.repository import ReportRepository

FHIR = "application/fhir+json"


def model_of(kind: str) -> Any:
    return getattr(pytest.importorskip(f"fhir.resources.R4B.{kind.lower()}"), kind)


def check(answer: Any, status: int = 200) -> Any:
    """Return the resource of an answer, which must be valid FHIR R4."""
    assert answer.status_code == status, answer.data[:500]
    assert answer.mimetype in (FHIR, "application/json")
    found = json.loads(answer.data)
    model_of(found["resourceType"]).model_validate_json(answer.data)
    return found


@pytest.fixture
def fhir(browse: Caller, log_in) -> Any:
    """Return a function that asks the FHIR API as somebody: (path, caller, **options) -> resource."""

    def ask(path: str, caller: str = "bholanath", status: int = 200, **options: Any) -> Any:
        method = options.pop("method", "GET")
        token = log_in(caller) if caller else ""
        return check(browse(method, f"/fhir/{path}", options.pop("body", None), token=token, **options), status)

    return ask


def id_of(name: str) -> str:
    return str(get_user(name).subject)


def ids(bundle: Any, mode: str = "match") -> list[str]:
    return [each["resource"]["id"] for each in bundle.get("entry", ()) if each["search"]["mode"] == mode]


def link(bundle: Any, relation: str) -> str:
    return next((each["url"].partition("/fhir/")[2] for each in bundle["link"] if each["relation"] == relation), "")


def refused(outcome: Any) -> tuple[str, str]:
    (issue,) = outcome["issue"]
    return issue["code"], issue.get("expression", [""])[0]


def test_metadata_is_for_everybody_and_claims_what_is_there(fhir) -> None:
    found = fhir("metadata", "")
    assert found["fhirVersion"] == "4.0.1"
    assert [each["type"] for each in found["rest"][0]["resource"]] == [
        "Patient",
        "Observation",
        "DiagnosticReport",
        "Device",
    ]
    for each in found["rest"][0]["resource"]:
        for parameter in each.get("searchParam", ()):
            value = "2026" if parameter["type"] == "date" else "x"
            fhir(f"{each['type']}?{parameter['name']}={value}", headers={"Prefer": "handling=strict"})


READS = {"Observation/1-1": 200, "DiagnosticReport/1": 200, "Device/1": 200, "Observation/1-2": 404, "Observation/99-1": 404, "Observation/1": 404,
         "DiagnosticReport/01": 404, "Patient/x": 404, "Encounter/1": 404, "Observation/a_b": 404, "Observation/4-1": 404,
         f"Observation/{10**18}-1": 404, "DiagnosticReport/9999999999999999999": 404}  # fmt: skip


def test_a_resource_is_read_by_its_id(fhir) -> None:
    for path, status in READS.items():
        found = fhir(path, status=status)
        if status == 404:
            assert refused(found)[0] == "not-found"
        else:
            assert f"{found['resourceType']}/{found['id']}" == path
            assert path == "Device/1" or found["subject"]["reference"] == f"Patient/{id_of('bholanath')}"
        assert fhir(path, headers={"Accept": "application/json"}, status=status) == found


def test_a_patient_carries_the_username(fhir) -> None:
    found = fhir(f"Patient/{id_of('bholanath')}")
    assert "bholanath" in [each["value"] for each in found["identifier"]]


def test_a_known_version_is_not_sent_again(browse: Caller, log_in) -> None:
    first = browse("GET", "/fhir/Observation/1-1", token=log_in("bholanath"))
    assert first.headers["ETag"] == f'W/"{first.json["meta"]["versionId"]}"'
    assert first.headers["Last-Modified"].endswith("GMT")
    again = browse(
        "GET", "/fhir/Observation/1-1", token=log_in("bholanath"), headers={"If-None-Match": first.headers["ETag"]}
    )
    assert (again.status_code, again.data) == (304, b"")


def test_anothers_record_is_as_if_it_were_not_there(fhir, reports: ReportRepository) -> None:
    paths = ("Observation/1-1", "DiagnosticReport/1", "Device/1", "Patient/{}", "Patient/{}/$everything")
    for path in paths:
        hidden = fhir(path.format(id_of("bholanath")), "savita", 404)
        assert hidden == fhir(path.replace("/1", "/999").format("0" * 8), "savita", 404)
    for query in ("patient={}", "subject=Patient/{}", "_id=1-1", "_id=1-1&patient={}"):
        found = fhir(f"Observation?{query.format(id_of('bholanath'))}", "savita")
        assert (found["total"], found.get("entry")) == (0, None)
    assert ids(fhir("Patient", "savita")) == [id_of("savita")]
    for query in ("_id={}", "identifier=bholanath", "name=b"):
        assert ids(fhir(f"Patient?{query.format(id_of('bholanath'))}", "savita")) == []
    noted = [(each.actor, each.outcome) for each in reports.access_log.find_events()]
    assert noted == [("savita", "refused")] * 7, "equal ones are summed"
    assert fhir(f"Patient/{id_of('bholanath')}", "tara", 404) == fhir("Patient/x", "runner", 404)


def test_an_error_is_an_operation_outcome(fhir) -> None:
    for path in ("Observation/1-1", "Observation", "Observation/1-1?_format=xml", "Patient/x"):
        assert refused(fhir(path, "", 401))[0] == "login"
    assert refused(fhir("nothing", "", 404))[0] == "not-found"


def test_errors_of_the_server_itself_are_operation_outcomes(fhir, browse: Caller, log_in, reports) -> None:
    assert refused(fhir("Observation", status=405, method="PUT"))[0] == "not-supported"
    assert refused(fhir("Observation?_format=xml", status=406))[0] == "not-supported"
    assert refused(fhir("Observation", status=406, headers={"Accept": "text/csv"}))[0] == "not-supported"
    assert refused(fhir("Observation/_search", status=415, method="POST", body=b"{}"))[0] == "not-supported"
    reports.access_log.collection.database.command("collMod", "audit_events", validator={"actor": {"$ne": "dr.ayush"}})
    assert refused(fhir("DiagnosticReport/1", "dr.ayush", 500))[0] == "exception"


ALL = ["3-1", "2-1", "1-1"]
SEARCHES: list[tuple[str, list[str]]] = [
    ("", ALL), ("_sort=date", ["1-1", "2-1", "3-1"]), ("_count=2", ["3-1", "2-1"]),
    ("code=8480-6", ALL), ("code=http://loinc.org|8480-6", ALL), ("code=http://loinc.org|", ALL),
    ("code=|8480-6", []), ("code=http://x|8480-6", []), ("code=1,8480-6", ALL), ("code=1", []),
    ("combo-code=8480-6", ALL), ("category=vital-signs", ALL), ("category=laboratory", []),
    ("status=final", ALL), ("status=amended,preliminary", []), ("_id=1-1,2-1,9-1,x", ["2-1", "1-1"]), ("_id=4-1", []),
    ("date=2026-11-02", ["2-1"]), ("date=eq2026-11-02T09:00:00Z", ["2-1"]), ("date=ge2026-11-02", ["3-1", "2-1"]), ("date=gt2026-11-02", ["3-1"]),
    ("date=lt2026-11-02", ["1-1"]), ("date=le2026-11-02", ["2-1", "1-1"]), ("date=ne2026-11-02", ["3-1", "1-1"]), ("date=sa2026-11-01", ["3-1", "2-1"]),
    ("date=eb2026-11-03", ["2-1", "1-1"]), ("date=ge2026-11-02&date=lt2026-11-03", ["2-1"]), ("date=2026", ALL),
    ("date=2026-11-01,2026-11-03", ["3-1", "1-1"]), ("_lastUpdated=gt2020", ALL), ("_lastUpdated=lt2020-01-01", []),
    ("date=2026-11-02T14:30:00%2B05:30", ["2-1"]), ("date=9999-12-31", []), ("date=0001", []), ("unknown=1", ALL),
    ("patient={}", ALL), ("subject=Patient/{}", ALL), ("subject:Patient={}", ALL),
    ("patient=http://localhost/fhir/Patient/{}", ALL), ("patient=http://elsewhere/fhir/Patient/{}", []), ("subject=Group/{}", []),
    ("patient=nobody", []), ("patient=nobody,{}", ALL), ("patient={}&patient=nobody", []),
]  # fmt: skip


def test_a_search_finds_what_it_should(fhir) -> None:
    """By the patient and by a doctor, by GET and by POST, and as many as it counts."""
    own = id_of("bholanath")
    for query, found in SEARCHES:
        for caller in ("bholanath", "dr.ayush"):
            asked = query.format(own)
            if caller == "dr.ayush" and not any(each in asked for each in ("patient", "subject", "_id")):
                asked = f"{asked}&patient={own}"
            bundle = fhir(f"Observation?{asked}", caller)
            assert ids(bundle) == (["4-1"] if (caller, query) == ("dr.ayush", "_id=4-1") else found), (caller, asked)
            assert "unknown" not in link(bundle, "self")
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert ids(fhir("Observation/_search", method="POST", body=query.format(own).encode(), headers=form)) == found
        total = fhir(f"Observation?{query.format(own)}&_summary=count")["total"]
        assert total == (3 if query == "_count=2" else len(found)), query
        if "code" not in query and "_id" not in query:
            expected = [each.partition("-")[0] for each in found]
            assert ids(fhir(f"DiagnosticReport?{query.format(own)}")) == expected, query


def test_pages_are_linked_and_have_everything_once(fhir) -> None:
    take(record(20, results=[{"name": f"r{i}", "value": i} for i in range(7)], taken_at="2026-11-02T09:00:00Z"))
    for order in ("", "&_sort=date"):
        whole = ids(fhir(f"Observation?_count=500{order}"))
        found, path = [], f"Observation?_count=2{order}"
        while path:
            bundle = fhir(path)
            found += ids(bundle)
            path = link(bundle, "next")
        assert found == whole
        assert len(found) == len(set(found)) == 3


# A search that is refused: the code of the issue and its place.
REFUSED = {
    "code:missing=true": ("not-supported", "http.code:missing"), "code:text=x": ("not-supported", "http.code:text"),
    "patient.name=b": ("not-supported", "http.patient.name"), "subject:Group=1": ("not-supported", "http.subject:Group"),
    "date=yesterday": ("invalid", "http.date"), "date=2026-13": ("invalid", "http.date"), "date=2026-02-30": ("invalid", "http.date"),
    "date=2026-01-01T25:00:00Z": ("invalid", "http.date"), "date=xx2026": ("invalid", "http.date"), "date=0000": ("invalid", "http.date"),
    "_lastUpdated=x": ("invalid", "http._lastUpdated"), "_count=-1": ("invalid", "http._count"), "_count=1e9": ("invalid", "http._count"),
    "_count=x": ("invalid", "http._count"), "_count=1&_count=2": ("invalid", "http._count"), "_sort=code": ("not-supported", "http._sort"),
    "_sort=date,-date": ("not-supported", "http._sort"), "_sort=date&_sort=date": ("invalid", "http._sort"), "_summary=text": ("not-supported", "http._summary"),
    "_include=Observation:encounter": ("not-supported", "http._include"), "_include:iterate=Observation:patient": ("not-supported", "http._include:iterate"),
    "code=": ("invalid", "http.code"), "code=a,,b": ("invalid", "http.code"), "code=%00": ("invalid", "http.code"), f"code={'x' * 201}": ("invalid", "http.code"),
    f"code={','.join(['1'] * 101)}": ("too-costly", "http.code"), "&".join(f"code={'x' * 200}" for _ in range(20)): ("too-costly", "http.Observation"),
    "_after=x": ("invalid", ""), "_after=1_2_x": ("invalid", ""), "code=%ff": ("invalid", ""), "code=a%5C": ("invalid", "http.code"), "status=a%5Cb": ("invalid", "http.status"), "&".join("a=1" for _ in range(101)): ("invalid", ""),
}  # fmt: skip
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def test_a_search_that_cannot_be_done_is_refused_at_its_place(fhir, reports: ReportRepository) -> None:
    for query, (code, place) in REFUSED.items():
        outcome = fhir(f"Observation?patient={id_of('bholanath')}&{query}", "dr.ayush", 400)
        assert refused(outcome) == (code, place), query
    strict = {"Prefer": "respond-async; handling=strict"}
    for query in ("x=1", "_elements=id", "_has:Observation:patient:code=1"):
        fhir(f"Observation?{query}")
        assert refused(fhir(f"Observation?{query}", status=400, headers=strict))[0] == "not-supported"
    assert refused(fhir("Observation?code=1", "dr.ayush", 400)) == ("required", "http.patient")
    codes = b"code=" + ",".join(f"{i}-1" for i in range(12_000)).encode()
    for body, status, code in ((codes, 413, "too-long"), (codes[:9000], 400, "too-costly")):
        outcome = fhir("Observation/_search", status=status, method="POST", body=body, headers=FORM)
        assert refused(outcome)[0] == code
    assert list(reports.access_log.find_events()) == [], "what is no question is no look"


def test_the_work_of_a_page_and_of_a_count_is_bounded(fhir, monkeypatch) -> None:
    monkeypatch.setattr("myhealth.reports.fhir.search.MADE_MAX", 0)
    pages, path = 0, "Observation?status=amended"
    while path:
        bundle = fhir(path)
        pages, path = pages + 1, link(bundle, "next")
        assert ids(bundle) == []
    assert pages == 3, "short pages, each a report further"
    monkeypatch.setattr("myhealth.reports.fhir.search.COUNTED_MAX", 2)
    assert refused(fhir("Observation?_summary=count", status=400)) == ("too-costly", "http._summary")


def test_counts_beyond_the_limits(fhir) -> None:
    assert len(ids(fhir("Observation?_count=1000000000"))) == 3
    found = fhir("Observation?_count=0")
    assert (found["total"], found.get("entry")) == (3, None)


USERNAME = "tag:myhealth.example%5C,2026:username"
BOTH = {"bholanath", "savita"}
PATIENTS: dict[str, set[str]] = {
    "identifier=A-1": {"savita"}, "identifier=http://hosp.example|A-1": {"savita"}, "identifier=http://x|A-1": set(),
    f"identifier={USERNAME}|bholanath": {"bholanath"}, "identifier=bholanath,A-1": BOTH, "name=joshi": BOTH, "name=jose": {"bholanath"},
    "name=jo%20bho": {"bholanath"}, "name=bho,sav": BOTH, "name=x": set(), "birthdate=1980": {"savita"}, "birthdate=ge1975-01-31": BOTH,
    "birthdate=lt1975-01-31": set(), "birthdate=le1975": {"bholanath"}, "name=joshi&birthdate=1975-01": {"bholanath"}, "birthdate=ne1980": {"bholanath"},
    "name=joshi&identifier=A-1": {"savita"}, "_id={}": {"savita"}, "_id=x": set(),
}  # fmt: skip


def test_staff_find_patients(fhir, db, reports: ReportRepository, sync) -> None:
    services.set_full_name("bholanath", "Bholanath José Joshi")
    services.set_full_name("savita", "Savita Joshi")
    add_identifier("savita", "http://hosp.example", "A-1")
    db("update users set birth_date = '1980-05-02' where username = 'savita'")
    db("update users set birth_date = '1975-01-31' where username = 'bholanath'")
    sync()
    for query, found in PATIENTS.items():
        asked = query.format(id_of("savita"))
        assert set(ids(fhir(f"Patient?{asked}", "dr.ayush"))) == {id_of(name) for name in found}, query
        assert fhir(f"Patient?{asked}&_summary=count", "dr.ayush")["total"] == len(found)
    for query in ("", "name=jo&", "birthdate=gt1900&"):
        shown, path = [], f"Patient?{query}_count=1"
        while path:
            bundle = fhir(path, "root")
            shown += ids(bundle)
            path = link(bundle, "next")
        assert len(shown) == len(set(shown)) == (2 if query else 5), "the task runner is no patient"
    noted = {(each.actor, each.what, each.username) for each in reports.access_log.find_events() if each.username}
    seen = {("dr.ayush", "profile", name) for name in BOTH}
    assert noted == seen | {("root", "profile", name) for name in (*BOTH, "dr.ayush", "tara")}


def test_a_doctors_search_is_logged_for_each_patient_named(fhir, reports: ReportRepository) -> None:
    two = f"{id_of('bholanath')},{id_of('savita')}"
    assert ids(fhir(f"Observation?patient={two}", "dr.ayush")) == ["4-1", "3-1", "2-1", "1-1"]
    assert ids(fhir(f"Observation?patient={two}&_count=1", "dr.ayush")) == ["4-1"]
    assert fhir("Observation?_id=4-1,1-1", "dr.ayush")["total"] == 2
    fhir("DiagnosticReport/1", "dr.ayush")
    fhir(f"Patient/{id_of('savita')}/$everything", "root")
    noted = [(each.what, each.username) for each in reports.access_log.find_events()]
    assert sorted(noted[:2]) == [("reports", "bholanath"), ("reports", "savita")]
    for page in (noted[2:4], noted[4:6]):
        assert sorted(page) == [("reports", "bholanath"), ("reports", "savita")]
    assert noted[6:] == [("report", "bholanath"), ("export", "savita")]


def test_a_doctors_search_that_finds_nothing_is_logged_too(fhir, reports: ReportRepository) -> None:
    for path in (
        f"Observation?patient={id_of('bholanath')}&code=none",
        "Observation?_id=1-1&date=1999",
        f"Patient?_id={id_of('bholanath')}&birthdate=1999",
    ):
        assert fhir(path, "dr.ayush")["total"] == 0
    noted = [(each.what, each.username) for each in reports.access_log.find_events()]
    assert noted == [("reports", "bholanath"), ("reports", "bholanath"), ("people", None)]


def test_what_is_included(fhir) -> None:
    found = fhir("DiagnosticReport?_include=DiagnosticReport:result&_include=DiagnosticReport:patient")
    assert ids(found) == ["3", "2", "1"]
    assert sorted(ids(found, "include")) == sorted(["3-1", "2-1", "1-1", id_of("bholanath")])
    assert ids(fhir("Observation?_count=1&_include=Observation:subject"), "include") == [id_of("bholanath")]


def test_everything_is_all_of_a_patient(fhir) -> None:
    own = id_of("bholanath")
    whole = fhir(f"Patient/{own}/$everything")
    expected = [own, "3", "3-1", "3", "2", "2-1", "2", "1", "1-1", "1"]
    assert ids(whole) == expected
    for count in (1, 2, 3):
        found, path = [], f"Patient/{own}/$everything?_count={count}"
        while path:
            bundle = fhir(path)
            assert len(ids(bundle)) <= count
            found += ids(bundle)
            path = link(bundle, "next")
        assert found == expected
    assert ids(fhir(f"Patient/{own}/$everything?_type=Observation")) == ["3-1", "2-1", "1-1"]
    assert ids(fhir(f"Patient/{own}/$everything?_since=2999-01-01T00:00:00Z&_type=Device")) == []
    assert refused(fhir(f"Patient/{own}/$everything?start=2026", status=400)) == ("not-supported", "http.start")
    known = {f"{each['resource']['resourceType']}/{each['resource']['id']}" for each in whole["entry"]}
    named = set(re.findall(r'"reference": "([A-Z][^"]+)"', json.dumps(whole)))
    assert named <= known, "every reference leads somewhere"


def test_what_nothing_has_is_no_page_that_goes_on(fhir, monkeypatch) -> None:
    monkeypatch.setattr("myhealth.reports.fhir.search.SCANNED_MAX", 1)
    own = id_of("bholanath")
    for asked in ("Condition", "x", ",", "Patient&_type=Device"):
        outcome = fhir(f"Patient/{own}/$everything?_type={asked}", status=400)
        assert refused(outcome) == ("not-supported", "http._type"), asked
    for path, found in ((f"Patient/{own}/$everything?_type=Patient,Condition", [own]), ("Observation?status=x", [])):
        answer = fhir(path)
        assert (ids(answer), link(answer, "next")) == (found, "")
    assert link(fhir("Observation?status=x,final"), "next")


def test_ids_stay_and_what_was_withdrawn_is_gone(fhir, db, sync) -> None:
    pair = [{"name": name, "code": code, "value": value, "unit": "mm[Hg]"} for name, code, value in
            (("Systolic", "8480-6", 120), ("Diastolic", "8462-4", 80))]  # fmt: skip
    (stored,) = take(record(30, results=[{"name": "a", "value": 1}, {"name": "b", "value": 2}, *pair]))
    sync()
    number = stored.id
    assert ids(fhir("Observation?_count=3")) == [f"{number}-p0", f"{number}-1", f"{number}-2"]
    (found,) = fhir("Observation?combo-code=8462-4")["entry"]
    assert found["resource"]["component"][1]["valueQuantity"]["value"] == 80
    assert ids(fhir("Observation?code=85354-9")) == [f"{number}-p0"]
    db("update checkups set results = jsonb_set(results, '{0,status}', '\"entered-in-error\"') where id = %s", number)
    sync()
    assert ids(fhir("Observation?_count=2")) == [f"{number}-p0", f"{number}-2"]
    assert refused(fhir(f"Observation/{number}-1", status=410))[0] == "deleted"
    assert refused(fhir(f"Observation/{number}-9", status=404))[0] == "not-found"
    db("update checkups set status = 'entered-in-error' where id = %s", number)
    sync()
    for path in (f"Observation/{number}-2", f"DiagnosticReport/{number}"):
        assert fhir(path, status=404) == fhir("DiagnosticReport/999", status=404)
        assert refused(fhir(path, "dr.ayush", 410))[0] == "deleted"
    assert ids(fhir("DiagnosticReport")) == ["3", "2", "1"]


NUMBERS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, places=3),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
)
VALUES = st.one_of(NUMBERS, st.none(), st.booleans(), st.sampled_from(["", "positive", "<5", "3 - 5"]))
RESULT = st.fixed_dictionaries(
    {"code": st.sampled_from([None, "8480-6", "8462-4", "8867-4", " x"]), "name": st.sampled_from(["a", "b", ""]), "value": VALUES},
    optional={"unit": st.sampled_from([None, "mm[Hg]", "bpm"]), "low": NUMBERS, "high": st.one_of(st.none(), NUMBERS), "flag": st.sampled_from([None, "H", "N", "?"]),
              "range_source": st.just("catalogue"), "range_text": st.just("men 1 - 2"), "number": st.integers(1, 9), "unit_text": st.just("mm Hg"), "other_code": st.just("GRIP"),
              "code_system": st.sampled_from(["L", "http://x"]), "status": st.sampled_from(["final", "entered-in-error"]), "value_type": st.just("integer")},
)  # fmt: skip


def check_templates(report: Any) -> None:
    whole = [each for each in resources_of(report) if each["resourceType"] == "Observation"]
    quick = resources_of(report, OBSERVATIONS)
    assert repr([sorted(each.items()) for each in quick]) == repr([sorted(each.items()) for each in whole])


def test_numbers_that_equal_each_other_stay_as_they_are() -> None:
    for number in (0, 0.0, -0.0, 1, 1.0, Decimal("1.0"), Decimal("1.00"), True):
        for name in ("low", "high", "value", "flag"):
            check_templates({**document(12), "results": [{"name": "a", "value": 1, "unit": "mm", name: number}]})


@given(
    st.lists(RESULT, max_size=4),
    st.sampled_from([{}, {"status": "amended"}, {"machine": None}, {"taken_precision": "day"}, {"issued_at": NOW}]),
)
@limits(max_examples=300)
def test_a_template_gives_what_is_made_one_by_one(results: list[Any], changes: Any) -> None:
    check_templates({**document(12), "results": results, **changes})


ODD: list[Any] = [5, True, Decimal("1.50"), 10**18, "", "a", [1], [None], [{"text": 1}], [{"code": [5]}], {}, {"a": {}}]


@pytest.mark.parametrize("name", [*DetailedResult.__struct_fields__, "results", "details"])
def test_what_another_program_stored_is_answered(name: str) -> None:
    """The source's JSON may hold anything where it does not come from us."""
    for value in ODD:
        report: dict[str, Any] = document(12)
        if name in ("results", "details"):
            report[name] = value
        else:
            report["results"] = [{"code": "8480-6", "name": "Systolic", "value": 128, "unit": "mm[Hg]", name: value}]
        assert json.loads(encode_json(resources_of(report)))
