"""The FHIR R4 API for reading: its operations and the CapabilityStatement, both derived from the tables of parameters;
logical ids, searches, `$everything`. Source: HL7 FHIR R4 (4.0.1), "RESTful API", "CapabilityStatement"."""

from collections.abc import Iterable
from datetime import datetime
from email.utils import format_datetime
from typing import Any, ClassVar

import bottle

from myhealth import __version__
from myhealth.common.errors import NotFound
from myhealth.reports.access_log import Access
from myhealth.reports.documents import Document, encode_json
from myhealth.reports.export.fhir_values import Element
from myhealth.reports.fhir.parameters import COUNT, INCLUDES, PARAMETERS, FhirSearch, parse_fhir_search
from myhealth.reports.fhir.resources import find_resource, is_withdrawn, patient_of, report_id_of, resources_of
from myhealth.reports.fhir.search import NO_PATIENT, ResourcePage, count_found, find_named, find_page, find_patients
from myhealth.reports.fhir.values import refuse
from myhealth.reports.filters import FILTER_TEXT_MAX
from wsgi.browse_api.context import STAFF, AuthenticatedBrowseView
from wsgi.browse_api.parameters import (
    SEARCH_AFTER,
    format_place,
    format_search_cursor,
    parse_place,
    parse_search_cursor,
    reading,
    refusals,
)
from wsgi.common.openapi import TEXT, Operation, ref
from wsgi.common.requests import NotAcceptable, WrongMediaType, accepted_type, header, parameter_pairs, read_body, site
from wsgi.common.views import FHIR, JSON, View, answer

VALUE = rf"([^\u0000,\\]|\\[,|$\\]){{1,{FILTER_TEXT_MAX}}}"
VALUES = {**TEXT, "minLength": 1, "pattern": f"^{VALUE}(,{VALUE})*$"}
DATES = {**TEXT, "anyOf": [{"format": "date"}, {"format": "date-time"},
                           {"pattern": "^(eq|ne|gt|lt|ge|le|sa|eb|ap)?[1-9][0-9]{3}(-(0[1-9]|1[0-2]))?$"}]}  # fmt: skip
SCHEMAS = {"date": DATES, "token": VALUES, "string": VALUES, "reference": VALUES}
FORMAT = ("_format", {"enum": ["json", FHIR, JSON, "text/json"]}, "The media type, in place of Accept.")
COUNTED = (
    "_count",
    {"type": "integer", "minimum": 0, "maximum": 10**9, "default": COUNT},
    "Maximum number of resources on a page.",
)
PLACE = {**TEXT, "pattern": r"^-?[0-9]{1,15}_[0-9]{1,18}_[0-9]{1,9}$"}
PREFER = ("Prefer", TEXT, "`handling=strict`: refuse unknown parameters.")
EVERYTHING_KINDS = ("Patient", "DiagnosticReport", "Observation", "Device")
TYPES = {**TEXT, "pattern": rf"^([^\u0000]*,)?({'|'.join(EVERYTHING_KINDS)})(,[^\u0000]*)?$"}
NOT_THERE = {404: "Nothing has this id, or the caller may not see it."}
WHO = "the person, doctor, admin"


def fhir_operation(summary: str, answer: tuple[str, str], roles: str = WHO, **details: Any) -> Operation:
    return reading(summary, answer, roles, content=FHIR, others={JSON: ref(answer[1])}, **details)


def _after_parameter(schema: dict[str, Any]) -> tuple[str, dict[str, Any], str]:
    return "_after", schema, "Where the page begins; the next link has it."


def search_operation(kind: str, *, form: bool = False) -> Operation:
    """Describe the search of one type of resource; `form`: with its parameters in a form."""
    begin = SEARCH_AFTER[1] if kind == "Patient" else PLACE
    controls = [
        COUNTED,
        _after_parameter(begin),
        FORMAT,
        ("_summary", {"enum": ["count", "false"]}, "`count`: only their number."),
    ]
    if INCLUDES[kind]:
        controls += [
            (
                "_sort",
                {"enum": ["-date", "date"]},
                "`-date`, the default: the newest check-up first; `date`: the oldest.",
            ),
            ("_include", {"enum": list(INCLUDES[kind])}, "Resources to add, to which those that were found refer."),
        ]
    own = [(name, SCHEMAS[each.type], each.text) for name, each in PARAMETERS[kind].items()]
    details: dict[str, Any] = {"query": (*own, *controls)}
    if form:
        schema = {"type": "object", "properties": {name: each for name, each, _ in (*own, *controls)}}
        details = {"body": {"content": {"application/x-www-form-urlencoded": {"schema": schema}}}}
    errors = refusals(415, 429) if form else refusals(429)
    told = "A Bundle of what was found; its link `next` leads to the next page."
    return fhir_operation(
        f"Search {kind}s" + " by a form" * form, (told, "FhirSearchset"), errors=errors, headers=(PREFER,), **details
    )


READ = fhir_operation(
    "Read a resource", ("The resource.", "FhirResource"), query=(FORMAT,), errors={**NOT_THERE, **refusals(410)}
)
METADATA = fhir_operation("Describe the FHIR API", ("A CapabilityStatement.", "FhirResource"), "", query=(FORMAT,))
EVERYTHING = fhir_operation(
    "Read all of a patient's resources",
    ("The Patient, DiagnosticReports, Observations and Devices.", "FhirSearchset"),
    query=(
        ("_type", TYPES, "Only these resource types; unknown ones are ignored."),
        ("_since", {**TEXT, "format": "date-time"}, "Only what was changed since."),
        (COUNTED[0], {**COUNTED[1], "minimum": 1}, COUNTED[2]),
        *(_after_parameter(PLACE), FORMAT),
    ),
    errors={**NOT_THERE, **refusals(429)},
)


SECURITY = "A token of POST /login/, as Authorization: Bearer. Patients see their own, doctors and admins everybody's."


def capability_statement(base: str) -> dict[str, Any]:
    rest = {
        "mode": "server",
        "security": {"cors": False, "description": SECURITY},
        "resource": [_resource(kind) for kind in ("Patient", "Observation", "DiagnosticReport", "Device")],
    }
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026-11-28",
        "kind": "instance",
        "software": {"name": "MyHealth", "version": __version__},
        "implementation": {"description": "MyHealth: people's own health check-up reports", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["json", FHIR],
        "rest": [rest],
    }


def _resource(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": kind,
        "interaction": [{"code": "read"}],
        "versioning": "versioned",
        "readHistory": False,
        "conditionalRead": "not-match",
    }
    if kind in PARAMETERS:
        found["interaction"].append({"code": "search-type"})
        found["searchParam"] = [
            {"name": name, "type": each.type, "documentation": each.text} for name, each in PARAMETERS[kind].items()
        ]
        if INCLUDES[kind]:
            found["searchInclude"] = list(INCLUDES[kind])
    if kind == "Patient":
        definition = "http://hl7.org/fhir/OperationDefinition/Patient-everything"
        found["operation"] = [{"name": "everything", "definition": definition}]
    return found


FORM = "application/x-www-form-urlencoded"
FORM_MAX_BYTES = 64 * 1024
FORMATS = {"json": FHIR, FHIR: FHIR, JSON: JSON, "text/json": JSON}
NO_RESOURCE = "There is no such report."  # as of a report that the caller may not see


class Gone(NotFound):
    status, code = 410, "withdrawn"


def fhir_base() -> str:
    return f"{site().base_url()}/fhir"


def fhir_media_type(pairs: list[tuple[str, str]]) -> str:
    """Return the media type of the answer: `_format`, else what Accept asks for. Raises NotAcceptable."""
    asked = [value.replace(" ", "+") for name, value in pairs if name == "_format"]
    if asked and asked[-1] not in FORMATS:
        raise NotAcceptable(f"The _format {asked[-1][:60]!a} is not known; JSON is: {', '.join(FORMATS)}.")
    return FORMATS[asked[-1]] if asked else accepted_type(FHIR, JSON)


class MetadataView(View):
    @METADATA
    def get(self) -> Any:
        media_type = fhir_media_type(parameter_pairs(bottle.request.environ.get("QUERY_STRING", "")))
        return answer(encode_json(capability_statement(fhir_base())), media_type)


class FhirView(AuthenticatedBrowseView):
    """A view of one type of resource. `kind`: the type; `pairs`: the parameters of the address and of the form."""

    kind: ClassVar[str]
    pairs: list[tuple[str, str]]

    def perform(self, verb: str, **parts: Any) -> Any:
        self.prepare()
        self.pairs = parameter_pairs(bottle.request.environ.get("QUERY_STRING", ""))
        if verb == "post":
            if header("Content-Type").partition(";")[0].strip().lower() != FORM:
                raise WrongMediaType(f"A search is sent as {FORM}.")
            self.pairs += parameter_pairs(read_body(FORM_MAX_BYTES).decode("latin-1"))
        self.media_type = fhir_media_type(self.pairs)
        return getattr(self, verb)(**parts)

    def patient(self, id_: str, what: str) -> Document | None:
        """Return the user with this logical id, if it is the caller, or for staff. A refusal is logged, whether or not
        there is such a user; the access of staff is not."""
        if id_ == self.user["subject"]:
            return self.user
        found = self.context.reports.people.get(id_)
        if found is None or self.user["role"] not in STAFF or found["role"] in NO_PATIENT:
            self._log_refusal(found, what, id_)
            return None
        return found

    def answer_resource(self, resource: Element) -> Any:
        """Answer with a resource; its version is the ETag."""
        meta, more = resource["meta"], {}
        if "lastUpdated" in meta:
            updated = datetime.fromisoformat(meta["lastUpdated"])
            more["Last_Modified"] = format_datetime(updated, usegmt=True)
        return answer(encode_json(resource), self.media_type, tag=f'W/"{meta["versionId"]}"', **more)

    def answer_bundle(
        self, search: FhirSearch, entries: list[Element], after: str = "", total: int | None = None
    ) -> Any:
        address = fhir_base() + bottle.request.path.rstrip("/").removeprefix("/fhir").removesuffix("/_search")
        links = [{"relation": "self", "url": "?".join(filter(None, (address, search.query())))}]
        if after:
            links.append({"relation": "next", "url": f"{address}?{search.query(after)}"})
        bundle: Element = {"resourceType": "Bundle", "type": "searchset"}
        if total is not None:
            bundle["total"] = total
        bundle["link"] = links
        return answer(encode_json(bundle | ({"entry": entries} if entries else {})), self.media_type)


def entries_of(resources: Iterable[Element], mode: str = "match") -> list[Element]:
    base = fhir_base()
    return [
        {"fullUrl": f"{base}/{each['resourceType']}/{each['id']}", "resource": each, "search": {"mode": mode}}
        for each in resources
    ]


class ReadView(FhirView):
    @READ
    def get(self, resource_id: str) -> Any:
        if self.kind == "Patient":
            patient = self.patient(resource_id, "profile")
            if patient is None:
                raise NotFound("There is no such patient.")
            self.log_access(patient, "profile")
            return self.answer_resource(patient_of(patient))
        number = report_id_of(self.kind, resource_id)
        report = self._report(-1 if number is None else number)
        found = find_resource(report, self.kind, resource_id)
        if found is None:
            raise Gone("Its source withdrew it.") if is_withdrawn(report, resource_id) else NotFound(NO_RESOURCE)
        return self.answer_resource(found)

    def _report(self, number: int) -> Document:
        """Return a report that the caller may see. Raises NotFound; for staff, Gone if its source withdrew it."""
        try:
            return self.report(number)[0]
        except NotFound:
            named = number >= 0 and self.user["role"] in STAFF
            stub = self.context.reports.get(number) if named else None
            if stub is not None and is_withdrawn(stub, ""):
                raise Gone("Its source withdrew it.") from None
            raise


class SearchView(FhirView):
    """A search; `FHIR_VIEWS` says by which verb it comes."""

    def search(self) -> Any:
        strict = "handling=strict" in header("Prefer").replace(" ", "").lower()
        search = parse_fhir_search(self.kind, self.pairs, fhir_base(), strict=strict)
        with self.context.long_reads.enter(self.user["subject"]):
            return self._patients(search) if self.kind == "Patient" else self._results(search)

    def _patients(self, search: FhirSearch) -> Any:
        after = parse_search_cursor(search.after)
        if self.user["role"] not in STAFF:
            own = patient_of(self.user)
            found = [(own, self.user)] if after is None and search.finds(own) else []
            page, total = ResourcePage(found), len(found)
        elif search.counts_only:
            self.log_access(None, "people")
            page, total = ResourcePage([]), count_found(self.context.reports, search, ())
        else:
            page = find_patients(self.context.reports, search, after)
            if page.found:
                self._log([user for _, user in page.found], "profile")
            else:  # that nobody is like this says something too
                self.log_access(None, "people")
            total = len(page.found)
        entries = [] if search.counts_only else entries_of(resource for resource, _ in page.found)
        next_ = format_search_cursor(page.after) if page.after else ""
        return self.answer_bundle(search, entries, next_, None if next_ or search.after else total)

    def _results(self, search: FhirSearch) -> Any:
        after, store = parse_place(search.after), self.context.reports
        owners = self._owners(search)
        if search.counts_only:
            with self.context.exports.enter(self.user["subject"]):
                self._log(owners, "reports")
                return self.answer_bundle(search, [], total=count_found(store, search, owners))
        page = find_page(store, search, owners, frozenset((self.kind,)), after)
        self._log(owners, "reports")
        entries = entries_of(resource for resource, _ in page.found)
        entries += entries_of(self._included(search, page, owners), "include")
        next_ = format_place(page.after) if page.after else ""
        return self.answer_bundle(search, entries, next_, None if next_ or after else len(page.found))

    def _owners(self, search: FhirSearch) -> list[Document]:
        """Return the patients whose results are searched: those whom the search names and the caller may see."""
        if search.patients:
            ids = [each for each in search.patients[0] if all(each in more for more in search.patients[1:])]
            return [user for id_ in dict.fromkeys(ids) if (user := self.patient(id_, "reports"))]
        if self.user["role"] not in STAFF:
            return [self.user]
        if not search.ids:
            raise refuse("patient", "is needed: name a patient, or _id.", "required")
        subjects = {report["subject"] for report in find_named(self.context.reports, search)}
        return self.context.reports.people.named([*subjects], ())

    def _included(self, search: FhirSearch, page: ResourcePage, owners: list[Document]) -> list[Element]:
        found = []
        if any(each.endswith((":patient", ":subject")) for each in search.includes):
            shown = {report["subject"] for _, report in page.found}
            found += [patient_of(owner) for owner in owners if owner["subject"] in shown]
        if "DiagnosticReport:result" in search.includes:
            for resource, report in page.found:
                top = {each["reference"] for each in resource.get("result", ())}
                inside = resources_of(report, frozenset(("Observation",)))
                found += [each for each in inside if f"Observation/{each['id']}" in top]
        return found

    def _log(self, patients: list[Document], what: str) -> None:
        """Log the access to these patients in one write, before anything is shown. An empty answer is an access too."""
        accesses = [Access(self.user, patient, what, address=self.address) for patient in patients]
        self.context.reports.access_log.log(*accesses)


class EverythingView(FhirView):
    """`$everything`: the Patient, and a page of all that the reports have."""

    @EVERYTHING
    def get(self, resource_id: str) -> Any:
        search, kinds = self._search()
        after = parse_place(search.after)
        patient = self.patient(resource_id, "export")
        if patient is None:
            raise NotFound("There is no such patient.")
        first = [patient_of(patient)] if after is None and "Patient" in kinds else []
        search.count -= len(first)
        with self.context.exports.enter(self.user["subject"]):
            self.log_access(patient, "export")
            kinds -= {"Patient"}
            page = find_page(self.context.reports, search, [patient], kinds, after) if kinds else ResourcePage([])
        entries = entries_of([*first, *(resource for resource, _ in page.found)])
        return self.answer_bundle(search, entries, format_place(page.after) if page.after else "")

    def _search(self) -> tuple[FhirSearch, frozenset[str]]:
        """Return the search, and the types of resource that are asked for. Raises BadInput."""
        kinds, pairs = frozenset(EVERYTHING_KINDS), []
        for name, value in self.pairs:
            if name == "_type":
                kinds &= frozenset(value.split(","))
            elif name not in ("_since", "_count", "_format", "_after"):
                raise refuse(name, "is not supported here.", "not_supported")
            pairs.append(("_lastUpdated", f"ge{value}") if name == "_since" else (name, value))
        search = parse_fhir_search("DiagnosticReport", [each for each in pairs if each[0] != "_type"], fhir_base())
        if search.counts_only:
            raise refuse("_count", "must be at least 1.")
        if not kinds:
            raise refuse("_type", f"supported are: {', '.join(EVERYTHING_KINDS)}.", "not_supported")
        search.used = self.pairs
        return search, kinds


def _search_view(kind: str, verb: str) -> type[FhirView]:
    spec = {verb: search_operation(kind, form=verb == "post")}
    return type(f"{kind}Search", (SearchView,), {"kind": kind, "spec": spec, verb: SearchView.search})


FHIR_VIEWS: dict[str, Any] = {"/fhir/metadata/": MetadataView}
for _kind in EVERYTHING_KINDS:
    FHIR_VIEWS[f"/fhir/{_kind}/<resource_id:fhir_id>/"] = type(f"{_kind}Read", (ReadView,), {"kind": _kind})
for _kind in PARAMETERS:
    FHIR_VIEWS[f"/fhir/{_kind}/"] = _search_view(_kind, "get")
    FHIR_VIEWS[f"/fhir/{_kind}/_search/"] = _search_view(_kind, "post")
FHIR_VIEWS["/fhir/Patient/<resource_id:fhir_id>/$everything/"] = EverythingView
