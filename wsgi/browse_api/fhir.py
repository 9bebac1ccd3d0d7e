"""The FHIR R4 API for reading: logical ids, searches, `$everything`. Source: HL7 FHIR R4 (4.0.1), "RESTful API"."""

from collections.abc import Iterable
from datetime import datetime
from email.utils import format_datetime
from typing import Any, ClassVar

import bottle

from myhealth.common.errors import NotFound
from myhealth.reports.access_log import Access
from myhealth.reports.documents import Document, encode_json
from myhealth.reports.export.fhir_values import Element
from myhealth.reports.fhir.parameters import PARAMETERS, FhirSearch, parse_fhir_search
from myhealth.reports.fhir.resources import find_resource, is_withdrawn, patient_of, report_id_of, resources_of
from myhealth.reports.fhir.search import NO_PATIENT, ResourcePage, count_found, find_named, find_page, find_patients
from myhealth.reports.fhir.values import refuse
from wsgi.browse_api.context import STAFF, AuthenticatedBrowseView
from wsgi.browse_api.fhir_capability import (
    EVERYTHING,
    EVERYTHING_KINDS,
    METADATA,
    READ,
    capability_statement,
    search_operation,
)
from wsgi.browse_api.parameters import format_place, format_search_cursor, parse_place, parse_search_cursor
from wsgi.common.requests import NotAcceptable, WrongMediaType, accepted_type, header, parameter_pairs, read_body, site
from wsgi.common.views import FHIR, JSON, View, answer

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
    """What the FHIR API can do, for everybody."""

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


class SearchBase(FhirView):
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


class SearchView(SearchBase):
    def get(self) -> Any:
        return self.search()


class SearchFormView(SearchBase):
    def post(self) -> Any:
        return self.search()


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


def _of(kind: str, view: type[FhirView], **spec: Any) -> type[FhirView]:
    return type(f"{kind}{view.__name__}", (view,), {"kind": kind, **({"spec": spec} if spec else {})})


FHIR_VIEWS: dict[str, Any] = {"/fhir/metadata/": MetadataView}
for _kind in EVERYTHING_KINDS:
    FHIR_VIEWS[f"/fhir/{_kind}/<resource_id:fhir_id>/"] = _of(_kind, ReadView)
for _kind in PARAMETERS:
    FHIR_VIEWS[f"/fhir/{_kind}/"] = _of(_kind, SearchView, get=search_operation(_kind))
    FHIR_VIEWS[f"/fhir/{_kind}/_search/"] = _of(_kind, SearchFormView, post=search_operation(_kind, form=True))
FHIR_VIEWS["/fhir/Patient/<resource_id:fhir_id>/$everything/"] = EverythingView
