"""Query strings as the repository's query objects. The pages read their forms with the same functions."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from myhealth.common.errors import BadInput
from myhealth.profiles.models import ROLES
from myhealth.reports.filters import SORTS, ReportFilter, Sort, check_filter_text, parse_moment
from myhealth.reports.trends import TrendQuery
from myhealth.reports.user_search import Search
from wsgi.browse_api.cursors import parse_page_cursor, parse_search_cursor
from wsgi.common.requests import parse_boolean

SPAN_FIELD = {"from": "since", "to": "until"}
# Parameter of an address: the filter's field.
FILTER_PARAMETERS = SPAN_FIELD | {
    field.name: field.name for field in fields(ReportFilter) if field.name not in SPAN_FIELD.values()
}


def parse_filter(values: Mapping[str, str]) -> ReportFilter:
    """Return the filter for parameters or form fields, by the names in FILTER_PARAMETERS; empty ones do not count.

    `from` and `to`: RFC 3339 with a zone, or days (UTC), of which `to` is the last one. Raises BadInput naming the
    parameter.
    """
    return ReportFilter(
        **{field: _parse_value(name, values[name]) for name, field in FILTER_PARAMETERS.items() if values.get(name)}
    )


def _parse_value(name: str, text: str) -> Any:
    check_filter_text(name, text)
    if name in SPAN_FIELD:
        return parse_moment(name, text)
    return parse_boolean(name, text) if name == "abnormal" else text


def parse_sort(text: str) -> Sort:
    """Return the sort order; "" is the newest first. Raises BadInput."""
    for sort in SORTS:
        if text in (sort, ""):
            return sort
    raise BadInput(f"sort must be one of {', '.join(SORTS)}.")


def parse_search(values: Mapping[str, str]) -> Search:
    """Return the search for the parameters `search`, `role` and `after`. Raises BadInput."""
    text, role, after = (values.get(name) or "" for name in ("search", "role", "after"))
    check_filter_text("search", text)
    if role not in ("", *ROLES):
        raise BadInput(f"role must be one of {', '.join(ROLES)}.")
    return Search(text, role or None, parse_search_cursor(after))


def parse_trend(values: Mapping[str, str]) -> TrendQuery:
    """Return the measurement, span and position of a trend. If `code` is given, `name` is ignored. Raises BadInput."""
    span: dict[str, Any] = {
        field: parse_moment(name, values[name]) for name, field in SPAN_FIELD.items() if values.get(name)
    }
    code = values.get("code")
    name = values.get("name") if code is None else None
    return TrendQuery(code, name, after=parse_page_cursor(values.get("after", "")), **span)
