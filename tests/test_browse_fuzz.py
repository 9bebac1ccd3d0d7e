"""The browse API under requests that nobody would write by hand: no fault, nothing outside its description, and no
other person's data. Every check of schemathesis is on. What the task runner alone may write is left out for it: what
it sends is put into the store; `test_sync_targets` sends it what is not right.

A share of the requests runs with the long tests; the whole (more than 20,000 requests), which takes some minutes, with
`FUZZ_EXAMPLES=170 pytest -m long tests/test_browse_fuzz.py`.
"""

import collections
import contextlib
import os
from typing import Any

import pytest
import schemathesis
from conftest import Caller
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as limits
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, load_all_checks
from test_isolation import CALLERS

from myhealth.reports.repository import ReportRepository

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))
# What no answer to somebody else may hold: it stands in Savita's report alone.
SECRET = "the secret of savita"
SEEING = ("savita", "dr.ayush", "root")


@pytest.mark.long
@pytest.mark.parametrize("caller", ["", *CALLERS])
def test_nothing_breaks_it_and_nothing_leaks(browse: Caller, log_in, reports: ReportRepository, caller: str) -> None:
    reports.reports.update_one({"_id": 4}, {"$set": {"checkup_report": SECRET}})
    headers = {"Accept-Encoding": "identity"}  # its client of WSGI does not unpack
    headers |= {"Authorization": f"Bearer {log_in(caller)}"} if caller else {}
    load_all_checks()
    schema = schemathesis.openapi.from_wsgi("/openapi.json", browse.application)
    schema.config.generation.update(modes=list(schemathesis.GenerationMode))
    asked: collections.Counter[int] = collections.Counter()
    for operation in schema.get_all_operations():
        if caller == "runner" and is_the_runners_own(operation.ok()):
            continue
        ask_many(operation.ok(), headers, caller, asked)
    assert sum(asked.values()) >= EXAMPLES * 10
    assert max(asked) < 500
    assert reports.count() == (4, 6)


def is_the_runners_own(operation: Any) -> bool:
    return operation.path.startswith("/sync/") or (operation.path, operation.method.lower()) == ("/reports/", "post")


def ask_many(operation: Any, headers: dict[str, str], caller: str, asked: collections.Counter[int]) -> None:
    """Requests to one operation, good ones and bad ones; each answer is checked."""

    def ask(case: Any) -> None:
        answer = case.call(headers=headers)
        asked[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS.get_all(), headers=headers)
        if caller not in SEEING:
            assert SECRET.encode() not in answer.content

    for mode in schemathesis.GenerationMode:
        cases = operation.as_strategy(generation_mode=mode)
        settled = limits(
            max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
        )
        with contextlib.suppress(Unsatisfiable):  # nothing that one could send would be wrong
            settled(given(case=cases)(ask))()
