"""The search parameters of the FHIR API, and the search that a request with some of them describes. Pure.

Source: HL7 FHIR R4 (4.0.1), "Search", and the search parameters of Patient, Observation and DiagnosticReport.
"""

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, NamedTuple, get_args
from urllib.parse import urlencode

from msgspec import Struct

from myhealth.clinical.status import ReportStatus
from myhealth.reports.documents import Document
from myhealth.reports.export.fhir import SYSTOLIC
from myhealth.reports.export.fhir_values import Element
from myhealth.reports.fhir.values import (
    FIRST,
    LAST,
    DateValue,
    Predicate,
    Span,
    Tokens,
    date_predicate,
    effective_span,
    name_predicate,
    parse_date,
    reference_id,
    refuse,
    span_of,
    split_list,
    token_pair,
    token_predicate,
    unescape,
)
from myhealth.reports.filters import Sort

COUNT, COUNT_MAX = 50, 500
STATUSES = frozenset(get_args(ReportStatus))  # those of results are among them
VALUES_MAX = 100  # of all parameters of a search
ADDRESS_MAX = 3_000  # the bytes of the parameters: a server takes addresses of 4,094
BLOOD_PRESSURE_PANEL = "85354-9"
STATUS_SYSTEM = {kind: f"http://hl7.org/fhir/{name}" for kind, name in
                 (("Observation", "observation-status"), ("DiagnosticReport", "diagnostic-report-status"))}  # fmt: skip
CODE_FIELDS = (
    *("results.code", "results.other_code", "results.codings.code"),
    *("details.codings.code", "details.panels.codings.code"),
)
PRECISION_MAX = timedelta(days=366)  # of a moment of which only the year is known


class Parameter(NamedTuple):
    type: str
    text: str


_CLINICAL = {
    "_id": Parameter("token", "Logical ids."),
    "patient": Parameter("reference", "The patient; staff must name one, others need not."),
    "subject": Parameter("reference", "The same as patient."),
    "category": Parameter("token", "A category."),
    "code": Parameter("token", "What was measured."),
    "date": Parameter("date", "When it was taken; what has no known date is not found."),
    "status": Parameter("token", "The status."),
    "_lastUpdated": Parameter("date", "When it was stored or changed here."),
}
PARAMETERS: dict[str, dict[str, Parameter]] = {
    "Patient": {
        "_id": Parameter("token", "Logical ids."),
        "identifier": Parameter("token", "A number that an authority gave, or a username."),
        "name": Parameter("string", "The beginning of each of these words is in the name, in any order."),
        "birthdate": Parameter("date", "The date of birth."),
    },
    "Observation": _CLINICAL
    | {
        "combo-code": Parameter(
            "token", "What was measured, also as a component, such as one value of a blood pressure."
        )
    },
    "DiagnosticReport": _CLINICAL,
}
INCLUDES: dict[str, tuple[str, ...]] = {
    "Patient": (),
    "Observation": ("Observation:patient", "Observation:subject"),
    "DiagnosticReport": ("DiagnosticReport:patient", "DiagnosticReport:subject", "DiagnosticReport:result"),
}
# Parameters that shape the answer; each but `_include` may occur once.
ASKED_MAX = 10**9
CONTROLS = ("_count", "_sort", "_include", "_summary", "_format", "_after")


def _codings(concepts: Iterable[Element]) -> Tokens:
    return [(each.get("system", ""), each.get("code", "")) for found in concepts for each in found.get("coding", ())]


# What a parameter is compared with in a resource: pairs of system and value.
TOKENS: dict[str, Any] = {
    "_id": lambda resource: [("", resource["id"])],
    "identifier": lambda resource: [(each.get("system", ""), each["value"]) for each in resource["identifier"]],
    "code": lambda resource: _codings([resource["code"]]),
    "combo-code": lambda resource: _codings(each["code"] for each in (resource, *resource.get("component", ()))),
    "category": lambda resource: _codings(resource.get("category", ())),
    "status": lambda resource: [(STATUS_SYSTEM[resource["resourceType"]], resource["status"])],
}
SPANS: dict[str, Any] = {
    "date": effective_span,
    "birthdate": lambda resource: span_of(resource.get("birthDate", "")),
    "_lastUpdated": lambda resource: span_of(resource["meta"].get("lastUpdated", "")),
}


class FhirSearch(Struct):
    """The conditions of a search. `used`: the parameters that count, as they came. `predicates`: exact conditions on a
    resource. `conditions`: the same for MongoDB, which checks them first and lets more through. `patients`: for each
    parameter, the ids that it names. `ids`, `identifiers`, `names`, `births`: conditions on Patients. `counts_only`:
    without resources."""

    kind: str
    used: list[tuple[str, str]] = []
    predicates: list[Predicate] = []
    conditions: list[Document] = []
    patients: list[list[str]] = []
    ids: list[list[str]] = []
    identifiers: list[list[str]] = []
    names: list[list[str]] = []
    births: list[Span] = []
    count: int = COUNT
    counts_only: bool = False
    sort: Sort = "-taken_at"
    includes: list[str] = []
    after: str = ""

    def finds(self, resource: Element) -> bool:
        return all(matches(resource) for matches in self.predicates)

    def query(self, after: str = "") -> str:
        """Return the address's parameters of this search; `after`: those of its next page."""
        pairs = [(name, value) for name, value in self.used if name != "_after" or not after]
        return urlencode([*pairs, ("_after", after)] if after else pairs)

    def add(self, name: str, value: str, base: str) -> None:
        values = split_list(name, value)
        kind = PARAMETERS[self.kind][name.partition(":")[0]].type
        if kind == "reference":
            self.patients.append([reference_id(each, base) for each in values])
        elif kind == "string":
            self.names.append([unescape(each) for each in values])
            self.predicates.append(name_predicate(values))
        elif kind == "date":
            self._add_dates(name, [parse_date(name, each) for each in values])
        else:
            self._add_tokens(name, [token_pair(each) for each in values])

    def _add_dates(self, name: str, dates: list[DateValue]) -> None:
        self.predicates.append(date_predicate(dates, SPANS[name]))
        low, high = min(each.bounds.low for each in dates), max(each.bounds.high for each in dates)
        if name == "birthdate":
            self.births.append(Span(low, high))
        elif name == "_lastUpdated":
            self.conditions.append({"updated_at": {"$gte": low, "$lte": high}})
        elif (low, high) != (FIRST, LAST):
            earliest = low - PRECISION_MAX if low - FIRST > PRECISION_MAX else FIRST
            own = [{"taken_until": {"$exists": True}}, {"results.taken_at": {"$exists": True}}]
            self.conditions.append({"$or": [{"taken_at": {"$gte": earliest, "$lte": high}}, *own]})

    def _add_tokens(self, name: str, pairs: list[tuple[str | None, str]]) -> None:
        self.predicates.append(token_predicate(pairs, TOKENS[name]))
        codes = [code for _, code in pairs]
        if name == "_id":
            self.ids.append(codes)
        elif name == "identifier":
            self.identifiers.append(codes)
        elif name in ("code", "combo-code") and all(codes):
            codes += [SYSTOLIC] if BLOOD_PRESSURE_PANEL in codes else []
            self.conditions.append({"$or": [{each: {"$in": codes}} for each in CODE_FIELDS]})
        elif name == "status" and all(codes) and STATUSES.isdisjoint(codes):
            self.conditions.append({"_id": {"$in": []}})  # nothing has it, so no report is read


def parse_fhir_search(kind: str, pairs: Iterable[tuple[str, str]], base: str, *, strict: bool = False) -> FhirSearch:
    """Return the search of these parameters. `base`: the address of the FHIR API. `strict`: refuse parameters that are
    not known; else they do not count. Raises BadInput naming the parameter."""
    search, values = FhirSearch(kind), 0
    for name, value in pairs:
        bare, _, modifier = name.partition(":")
        if bare not in PARAMETERS[kind] and bare not in CONTROLS:
            if strict or bare.partition(".")[0] in PARAMETERS[kind]:
                raise refuse(name, "is not supported here.", "not_supported")
            continue
        if modifier and name != "subject:Patient":
            raise refuse(name, f"the modifier :{modifier[:60]} is not supported.", "not_supported")
        if not value:
            raise refuse(name, "has no value; leave it out.")
        values += value.count(",") + 1
        if values > VALUES_MAX:
            raise refuse(name, f"a search has at most {VALUES_MAX} values; ask in parts.", "too_costly")
        if bare in CONTROLS:
            _control(search, name, value)
        else:
            search.add(name, value, base)
        search.used.append((name, value))
    if len(search.query()) > ADDRESS_MAX:
        raise refuse(kind, f"the parameters have more than {ADDRESS_MAX} bytes; ask in parts.", "too_costly")
    return search


def _control(search: FhirSearch, name: str, value: str) -> None:
    """Add a parameter that shapes the answer."""
    if name != "_include" and name in (each for each, _ in search.used):
        raise refuse(name, "occurs twice.")
    if name == "_count":
        if not re.fullmatch(r"[0-9]{1,10}", value, re.ASCII) or int(value) > ASKED_MAX:
            raise refuse(name, f"must be a whole number up to {ASKED_MAX}.")
        search.count = min(int(value), COUNT_MAX)
        search.counts_only |= search.count == 0
    elif name == "_summary":
        if value not in ("count", "false"):
            raise refuse(name, "only count and false are supported.", "not_supported")
        search.counts_only |= value == "count"
    elif name == "_sort":
        if search.kind == "Patient" or value not in ("date", "-date"):
            raise refuse(name, "only date and -date are supported, of what was measured.", "not_supported")
        search.sort = "taken_at" if value == "date" else "-taken_at"
    elif name == "_include":
        if value not in INCLUDES[search.kind]:
            known = ", ".join(INCLUDES[search.kind]) or "none"
            raise refuse(name, f"supported are: {known}.", "not_supported")
        search.includes.append(value)
    elif name == "_after":
        search.after = value
