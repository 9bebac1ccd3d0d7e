"""The form that asks for certain reports, and the meaning of its fields. Days are in the reader's time zone."""

from collections import Counter
from collections.abc import Callable
from datetime import date, datetime, timedelta
from itertools import repeat
from typing import Any

import bottle
from msgspec import Struct
from msgspec.structs import replace

from myhealth.clinical.catalog import codes_of
from myhealth.clinical.in_words import kind_text, mappings, name_text
from myhealth.common.errors import BadInput
from myhealth.reports.filters import ReportFilter
from wsgi.browse_api.parameters import FILTER_PARAMETERS, parse_filter
from wsgi.browse_pages.dates import Dates
from wsgi.browse_pages.result_view import shortened

WORDS = (
    ("type", "of the kind “{}”"),
    ("disease", "checked for “{}”"),
    ("machine", "of the machine {}"),
    ("taken_by", "taken by {}"),
    ("code", "with the measurement {}"),
    ("text", "with the words “{}”"),
)


BACKWARDS = "The first day that you asked for comes after the last one. Perhaps they are swapped."


class ReportQuery(Struct, frozen=True):
    """The query of an address: `values` are its parameters as sent, `wanted` is the filter that they mean."""

    values: dict[str, str]
    wanted: ReportFilter

    @property
    def is_backwards(self) -> bool:
        """Whether the first day comes after the last one, so that no report can match."""
        since, until = self.wanted.since, self.wanted.until
        return since is not None and until is not None and since >= until

    def words(self, dates: Dates, found: list[dict[str, Any]]) -> str:
        """Return the filter in words, "" without a filter. `found`: reports that have a measurement's name."""
        parts, values = [], {**self.values}
        if "code" in values:
            values["code"] = name_of_code(values["code"], found)
        for name, words in WORDS:
            if name in values:
                parts.append(words.format(values[name]))
        if self.wanted.abnormal is not None:
            parts.append(f"with {'something' if self.wanted.abnormal else 'nothing'} outside its usual range")
        return ", ".join([*parts, *self._days(dates)])

    def _days(self, dates: Dates) -> list[str]:
        """Return the days that are asked for in words, [] without any."""
        since, until = self.wanted.since, self.wanted.until
        first = "" if since is None else dates.day(since)
        last = "" if until is None else dates.day(until - timedelta(seconds=1))
        if first and last:
            return [f"of {first}" if first == last else f"from {first} to {last}"]
        return [f"since {first}"] if first else [f"up to {last}"] if last else []


def name_of_code(code: str, found: list[dict[str, Any]]) -> str:
    """Return the measurement's name in the newest report that has it; the code if no report has it."""
    codes, results = codes_of(code), (result for report in found for result in mappings(report["results"]))
    return next(
        (name for result in results if result.get("code") in codes and (name := name_text(result.get("name")))), code
    )


def parse_report_query(dates: Dates) -> ReportQuery:
    """Return the query of the address. Empty fields ask for nothing. Raises BadInput, which names the field."""
    query = bottle.request.query
    values = {name: query.getunicode(name, "").strip() for name in FILTER_PARAMETERS if name in query}
    values = {name: text for name, text in values.items() if text}
    days = {name: values[name] for name in ("from", "to") if name in values}
    wanted = parse_filter({name: text for name, text in values.items() if name not in days})
    since = dates.begin_of(read_day("The first day", days["from"])) if "from" in days else None
    until = dates.begin_of(read_day("The last day", days["to"]) + timedelta(days=1)) if "to" in days else None
    return ReportQuery(values, replace(wanted, since=since, until=until))


def read_day(name: str, text: str) -> date:
    """Return a day in the form that a browser's date field sends. Raises BadInput."""
    try:
        if len(text) != 10:
            raise ValueError(text)
        day = datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError as error:
        raise BadInput(f"{name} must be written like 2026-11-20.", code="no_day") from error
    if not 1900 <= day.year <= 9000:
        raise BadInput(f"{name} must lie between the years 1900 and 9000.", code="no_day")
    return day


def choices(values: dict[str, str], name: str, known: Any) -> list[tuple[str, str, bool]]:
    """Return the choices of a field: (value, text, whether it is chosen). A chosen value that is unknown is added."""
    chosen = values.get(name, "")
    offered = [(value, text, value == chosen) for value, text in known]
    if chosen and not any(selected for *_, selected in offered):
        offered.append((chosen, chosen, True))
    return offered


KINDS = 3  # chips for kinds of check-ups


def chips(kinds: Counter[str], query: ReportQuery, path: Callable[..., str]) -> list[tuple[str, str, bool]]:
    """Return the selections that one touch makes: (words, address, whether it is the present one)."""
    named = [kind for kind, _ in kinds.most_common(KINDS) if kind.strip()]
    words = map(shortened, ["All", "Outside usual range", *map(kind_text, named)], repeat(30))
    offered = [{}, {"abnormal": "true"}, *({"type": kind} for kind in named)]
    return [(text, path(**values), query.values == values) for text, values in zip([*words], offered, strict=True)]
