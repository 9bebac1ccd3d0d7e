"""Requests that schemathesis generates from an API's OpenAPI description, with all its checks.

A share of them runs with the long tests; FUZZ_EXAMPLES sets the number of each kind.
"""

import collections
import contextlib
import os
from collections.abc import Callable
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as limits
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, load_all_checks

from support.clients import Caller

Asked = collections.Counter[int]  # status -> how many answers had it


def examples(default: int) -> int:
    """Return how many valid and how many invalid requests to make of each operation."""
    return int(os.environ.get("FUZZ_EXAMPLES", default))


def described(api: Caller) -> Any:
    """Return the API's description as a schema of schemathesis."""
    load_all_checks()
    schema = schemathesis.openapi.from_wsgi("/openapi.json", api.application)
    schema.config.generation.update(modes=list(schemathesis.GenerationMode))
    refused = schema.config.checks.negative_data_rejection
    refused.expected_statuses = [*refused.expected_statuses, "413"]  # some bad bodies are just too large
    return schema


def ask_many(
    operation: Any,
    count: int,
    headers: Callable[[], dict[str, str]],
    asked: Asked,
    look: Callable[[Any], None],
    aim: Callable[[Any, Any], None] = lambda case, luck: None,
    excused: Callable[[Any, Any], bool] = lambda case, answer: False,
) -> None:
    """Send `count` valid and `count` invalid requests to one operation; check each answer.

    `headers`: made anew for each request. `look`: a check of ours. `aim`: changes a request, with some luck, so that it
    is about what is there. `excused`: whether a good request was refused for what JSON Schema cannot say.
    """
    everything = CHECKS.get_all()
    judging = [CHECKS.get_one(name) for name in ("positive_data_acceptance", "negative_data_rejection")]
    without = [check for check in everything if check not in judging]

    def ask(case: Any, luck: Any) -> None:
        aim(case, luck)
        sent = {"Accept-Encoding": "identity", **headers()}  # schemathesis' client of WSGI does not unpack
        answer = case.call(headers=sent)
        asked[answer.status_code] += 1
        case.validate_response(answer, checks=without if excused(case, answer) else everything, headers=sent)
        look(answer)

    for mode in schemathesis.GenerationMode:
        cases = operation.as_strategy(generation_mode=mode)
        settled = limits(
            max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
        )
        with contextlib.suppress(Unsatisfiable):  # nothing that one could send would be wrong
            settled(given(case=cases, luck=st.randoms(use_true_random=False))(ask))()
