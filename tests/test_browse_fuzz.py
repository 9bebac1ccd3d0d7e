"""The browse API under requests that nobody would write by hand: no fault, nothing outside its description, and no
other person's data. Every check of schemathesis is on. What the task runner alone may write is left out for it: what
it sends is put into the store; `test_sync_targets` sends it what is not right.

A share of the requests runs with the long tests; the whole (more than 20,000 requests), which takes some minutes, with
`FUZZ_EXAMPLES=170 pytest -m long tests/test_browse_fuzz.py`.
"""

from typing import Any

import pytest
from support import fuzzing
from support.clients import Caller
from support.upload_access import CALLERS

from myhealth.reports.repository import ReportRepository

EXAMPLES = fuzzing.examples(4)
# What no answer to somebody else may hold: it stands in Savita's report alone.
SECRET = "the secret of savita"
SEEING = ("savita", "dr.ayush", "root")


@pytest.mark.long
@pytest.mark.parametrize("caller", ["", *CALLERS])
def test_nothing_breaks_it_and_nothing_leaks(browse: Caller, log_in, reports: ReportRepository, caller: str) -> None:
    reports.reports.update_one({"_id": 4}, {"$set": {"checkup_report": SECRET}})

    def headers() -> dict[str, str]:  # some of the requests log out
        return {"Authorization": f"Bearer {log_in(caller)}"} if caller else {}

    asked = fuzzing.Asked()

    def look(answer: Any) -> None:
        if caller not in SEEING:
            assert SECRET.encode() not in answer.content

    for operation in fuzzing.described(browse).get_all_operations():
        if not (caller == "runner" and is_the_runners_own(operation.ok())):
            fuzzing.ask_many(operation.ok(), EXAMPLES, headers, asked, look, excused=excused)
    print(f"\n{caller or 'nobody'}: {sum(asked.values())} requests, {dict(sorted(asked.items()))}")
    assert sum(asked.values()) >= EXAMPLES * 10
    assert max(asked) < 500
    assert reports.count() == (4, 6)


def excused(case: Any, answer: Any) -> bool:
    """Whether a search of the FHIR API was refused for what JSON Schema cannot say, or has an object in its form, which
    the client leaves out."""
    if case.operation.path.endswith("/_search/") and isinstance(case.body, dict):
        values = [each for value in case.body.values() for each in (value if isinstance(value, list) else [value])]
        if any(isinstance(each, dict) for each in values):
            return True
    return any(words in answer.text for words in ("is needed: name a patient", "ask in parts"))


def is_the_runners_own(operation: Any) -> bool:
    return operation.path.startswith("/sync/") or (operation.path, operation.method.lower()) == ("/reports/", "post")
