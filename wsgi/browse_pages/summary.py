"""One sentence about all results of a report. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from wsgi.browse_pages.blocks import Block
from wsgi.browse_pages.result_view import IMPOSSIBLE, UNKNOWN


def summary(results: Sequence[Block]) -> str:
    """Return the sentence: "1 of 2 results outside the usual range"; a blood pressure is one result."""
    impossible = sum(result.position == IMPOSSIBLE for result in results)
    unusual = sum(result.is_unusual for result in results) - impossible
    uncompared = [result for result in results if result.position == UNKNOWN]
    has_range = any(result.usual for result in uncompared)
    if not results:
        return "No single measurements in this report"
    if len(results) in (unusual, impossible):
        return _all_of(len(results), "outside {} usual range" if unusual else "hardly possible")
    if unusual or impossible:
        counts = (
            (unusual, "outside the usual range"),
            (impossible, "hardly possible"),
            (len(uncompared), "not compared"),
        )
        first, *rest = [f"{count} {words}" for count, words in counts if count]
        return ", ".join([first.replace(" ", f" of {counted(len(results), 'result')} ", 1), *rest])
    if not uncompared:
        return _all_of(len(results), "within {} usual range")
    if len(uncompared) == len(results):
        return f"{counted(len(results), 'result')}, {'not compared with' if has_range else 'without'} a usual range"
    others = "the rest is not compared with one" if has_range else "no range is given for the rest"
    return f"{len(results) - len(uncompared)} of {counted(len(results), 'result')} within the usual range; {others}"


def counted(count: int, one: str, many: str = "") -> str:
    """Return a count with its noun: 1 result, 2 results."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def _all_of(count: int, words: str) -> str:
    """Return a sentence about all results; {} in `words` is replaced by "its" or "their"."""
    subject = {1: "The result is", 2: "Both results are"}.get(count, f"All {count} results are")
    return f"{subject} {words.format('its' if count == 1 else 'their')}"
