"""`machines map`: tests that a machine sends without a LOINC code get one in the reports; check-ups stay as sent."""

import json
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from support.compare import NONE, differences
from support.factories import record, statuses, take

from myhealth.checkups.services import list_uncoded_tests, send_again
from myhealth.common.errors import BadInput, NotFound
from myhealth.machines.services import TESTS_MAX, get_machine, map_test, mapped_code
from myhealth.reports.trends import TrendQuery
from myhealth.reports.writer import ReportWriter
from myhealth.sync.verify import verify

pytestmark = pytest.mark.usefixtures("people")

GLUCOSE = {"name": "Glu", "value": 95, "unit": "mg/dL"}
MOLAR = {"name": "Glu", "value": 5.10, "unit": "mmol/L"}
LOCAL = {"name": "Zucker", "other_code": "Glu", "code_system": "urn:lab", "value": 94, "unit": "mg/dL"}
CODED = {"name": "Glu", "code": "2339-0", "value": 93, "unit": "mg/dL"}


def codes_of(reports: Any) -> dict[int, list[str | None]]:
    return {each["_id"]: [result["code"] for result in each["results"]] for each in reports.reports.find()}


def change(serial: str, test: str, unit: str, code: str | None) -> int:
    map_test(serial, test, unit, code)
    return send_again(serial, test)


def test_reports_get_the_code_earlier_ones_too_and_check_ups_stay(db, reports, sync, settings) -> None:
    take(record(1, results=[GLUCOSE, MOLAR]), record(2, results=[LOCAL, CODED]), record(3))
    take(record(1, results=[GLUCOSE]), machine="HC-2")
    sync()
    stored = db("select id, results from checkups order by id")
    assert change("HC-1", "Glu", "mmol/L", "14749-6") == 2
    assert change("HC-1", "Glu", "", "2345-7") == 2
    assert statuses(take(record(1, results=[GLUCOSE, MOLAR]))) == ["duplicate"]
    take(record(4, results=[GLUCOSE]))
    sync()
    found = codes_of(reports)
    assert [found[id_] for id_ in (1, 2, 3, 4)] == [["2345-7", "14749-6"], ["2345-7", "2339-0"], ["8480-6"], [None]]
    assert [*found.values()][-1] == ["2345-7"]
    assert db("select id, results from checkups order by id")[:4] == stored
    assert differences(db, reports) == NONE
    assert verify(settings.database_url, ReportWriter(reports), 100).differences == 0
    assert [row["machine"] for row in list_uncoded_tests()] == ["HC-2"]
    assert change("HC-1", "Glu", "", None) == 3
    sync()
    assert codes_of(reports)[1] == [None, "14749-6"]
    assert differences(db, reports) == NONE


def test_a_check_up_that_commits_late_gets_the_code(db, reports, sync, settings) -> None:
    take(record(1, results=[GLUCOSE]))
    copy = (
        'insert into checkups select (jsonb_populate_record(c, \'{"id": 77, "record_id": "late"}\')).* from checkups c'
    )
    with psycopg2.connect(settings.database_url) as late, late.cursor() as cursor:
        cursor.execute(copy)
        assert change("HC-1", "Glu", "", "2345-7") == 1
        late.commit()
    sync()
    assert codes_of(reports) == {1: ["2345-7"], 77: ["2345-7"]}
    assert differences(db, reports) == NONE


def test_a_trend_has_the_results_of_both_machines(db, reports, sync) -> None:
    take(record(1, results=[{**GLUCOSE, "code": "2345-7"}]))
    take(record(1, results=[{**GLUCOSE, "name": "GLUC"}]), machine="HC-2")
    change("HC-2", "GLUC", "mg/dL", "2345-7")
    sync()
    patient = reports.users.find_one({"username": "bholanath"})
    assert len(reports.trend(patient, TrendQuery(code="2345-7")).points) == 2


@pytest.mark.parametrize(
    ("result", "code"),
    [
        ({"name": "Glu"}, "2345-7"),
        ({"name": "Glu", "unit": "mmol/L"}, "14749-6"),
        ({"name": "Glu", "unit_text": "mmol/L"}, "14749-6"),
        ({"name": "Glu", "unit": 7}, "2345-7"),
        ({"name": "x", "other_code": "K"}, None),
        ({"name": "x", "other_code": "K", "unit": "mmol/L"}, "2823-3"),
        ({"name": "Glu", "other_code": "K"}, "2345-7"),
        ({"name": ["Glu"], "other_code": None}, None),
        ({"name": "glu"}, None),
    ],
)
def test_a_result_is_found_by_its_code_or_name_and_its_unit(result: Any, code: str | None) -> None:
    codes = {"Glu": {"": "2345-7", "mmol/L": "14749-6"}, "K": {"mmol/L": "2823-3"}}
    assert mapped_code(codes, result) == code


def test_what_cannot_be_mapped_is_told(db) -> None:
    take(record(1))
    for refused, fault in ((("HC-7", "Glu", "", "2345-7"), NotFound), (("HC-1", "Glu", "", None), NotFound),
                           (("HC-1", " ", "", "2345-7"), BadInput), (("HC-1", "a\0", "", "2345-7"), BadInput),
                           (("HC-1", "Glu", "x" * 501, "2345-7"), BadInput)):  # fmt: skip
        with pytest.raises(fault):
            map_test(*refused)
    full = {str(i): {"": "2345-7"} for i in range(TESTS_MAX)}
    db("update machines set codes = %s::jsonb returning id", json.dumps(full))
    with pytest.raises(BadInput, match="at most 2000 tests"):
        map_test("HC-1", "Glu", "", "2345-7")
    assert get_machine("HC-1").codes == full


@pytest.mark.process
def test_the_command_tells_what_it_did_and_lists_the_codes(db, run_cli: Callable[..., Any]) -> None:
    take(record(1, results=[GLUCOSE]))
    done = run_cli("machines", "map", "HC-1", "Glu", "2345-7", "--unit", "mg/dL")
    assert done.stdout == "Glu in mg/dL of HC-1 has the code 2345-7. The next sync writes 1 report again.\n"
    assert run_cli("machines", "map", "HC-1").stdout.split() == ["test", "unit", "code", "Glu", "mg/dL", "2345-7"]
    told = json.loads(run_cli("machines", "map", "HC-1", "Glu", "--unit", "mg/dL", "--remove", "--json").stdout)
    assert told == {"serial": "HC-1", "test": "Glu", "unit": "mg/dL", "code": None, "reports": 1}
    assert json.loads(run_cli("machines", "map", "HC-1", "--json").stdout) == []
    assert db("select count(*) from audit_events where action = 'machine.change'") == [(2,)]
    for words, message in (
        (("HC-1", "Glu", "2345-8"), "Error: 2345-8 is not a LOINC code: its form or its last digit is wrong\n"),
        (("HC-1", "Glu", "--remove"), "Error: no code is stored for Glu\n"),
        (("HC-7",), "Error: there is no machine HC-7\n"),
    ):
        refused = run_cli("machines", "map", *words)
        assert (refused.returncode, refused.stderr) == (2, message)
    assert run_cli("machines", "map", "HC-1", "Glu").returncode == 2
