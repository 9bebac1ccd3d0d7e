"""Searches of the FHIR API against the report store: pages of resources, behind keyset cursors.

The order is that of the check-ups, so that an index answers every search. A result with a moment of its own is sorted
with its check-up.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from myhealth.common.decoding import INT_MAX
from myhealth.reports.documents import Document
from myhealth.reports.export.fhir_values import Element
from myhealth.reports.fhir.parameters import COUNT_MAX, FhirSearch
from myhealth.reports.fhir.resources import patient_of, report_id_of, resources_of
from myhealth.reports.fhir.values import refuse
from myhealth.reports.filters import PageCursor, reports_query, sort_keys
from myhealth.reports.repository import ReportRepository
from myhealth.reports.user_search import Search, SearchCursor

# Reports that are read, and resources made, for one page: a page may be short, and the next one goes on.
SCANNED_MAX, MADE_MAX = 1_000, 5_000
COUNTED_MAX = 50_000  # resources that are made for a count
TOO_MANY = "there are too many to count; search for less."
BATCH_MAX = 51
NO_PATIENT = ("service",)  # roles of accounts that are no people


class SearchPosition(NamedTuple):
    """Where a page begins: at this report, behind the first resources that it makes."""

    report: PageCursor
    skipped: int


class ResourcePage(NamedTuple):
    """Resources with the documents that they are made of. `after`: where the next page begins, a SearchPosition or, of
    Patients, a SearchCursor; None on the last."""

    found: list[tuple[Element, Document]]
    after: Any = None


def find_page(
    store: ReportRepository,
    search: FhirSearch,
    owners: Sequence[Document],
    kinds: frozenset[str],
    after: SearchPosition | None,
) -> ResourcePage:
    """Return one page of the resources of these kinds of the owners' reports."""
    found: list[tuple[Element, Document]] = []
    made = 0
    reports = _reports(store, search, owners, after)
    for report in itertools.islice(reports, SCANNED_MAX):
        if made > MADE_MAX:
            return ResourcePage(found, SearchPosition(PageCursor.of(report), 0))
        skipped = after.skipped if after and after.report == PageCursor.of(report) else 0
        resources = resources_of(report, kinds)
        made += len(resources)
        for number, resource in enumerate(resources):
            if number >= skipped and search.finds(resource):
                if len(found) == search.count:
                    return ResourcePage(found, SearchPosition(PageCursor.of(report), number))
                found.append((resource, report))
    more = next(reports, None)
    return ResourcePage(found, more and SearchPosition(PageCursor.of(more), 0))


def count_found(store: ReportRepository, search: FhirSearch, owners: Sequence[Document]) -> int:
    """Return how many resources a search finds in all, in bounded memory. Raises BadInput if too many must be made."""
    total, after = 0, None
    if search.kind != "Patient":
        kinds, made = frozenset((search.kind,)), 0
        for report in _reports(store, search, owners, None):
            resources = resources_of(report, kinds)
            made, total = made + len(resources), total + sum(map(search.finds, resources))
            if made > COUNTED_MAX:
                raise refuse("_summary", TOO_MANY, "too_costly")
        return total
    search.count = COUNT_MAX
    for _ in range(COUNTED_MAX // COUNT_MAX):
        page = find_patients(store, search, after)
        total, after = total + len(page.found), page.after
        if after is None:
            return total
    raise refuse("_summary", TOO_MANY, "too_costly")


def find_named(store: ReportRepository, search: FhirSearch) -> list[Document]:
    """Return the reports that the ids of a search name, of any patient."""
    numbers = set.intersection(*({report_id_of(search.kind, id_) for id_ in ids} for ids in search.ids))
    wanted = [number for number in numbers if number is not None and number <= INT_MAX]
    return store.find_by_query({"_id": {"$in": wanted}}) if wanted else []


def _reports(
    store: ReportRepository, search: FhirSearch, owners: Sequence[Document], place: SearchPosition | None
) -> Iterator[Document]:
    """Yield the reports in which the search may find something, from a place on."""
    newest_first = search.sort == "-taken_at"
    known = {(owner["_id"], owner["subject"]) for owner in owners}
    if search.ids:
        found = [each for each in find_named(store, search) if (each["patient_id"], each["subject"]) in known]
        for report in sorted(found, key=_position, reverse=newest_first):
            begin = place and (place.report.taken_at, place.report.report_id)
            if begin is None or (_position(report) <= begin if newest_first else _position(report) >= begin):
                yield report
        return
    # just before the report at which the page begins
    after = place and PageCursor(place.report.taken_at, place.report.report_id + (1 if newest_first else -1))
    size = min(search.count + 1, BATCH_MAX) if search.count else BATCH_MAX
    while owners:
        batch = store.find_by_query(_query(search, owners, after), sort_keys(search.sort), size)
        yield from (each for each in batch if (each["patient_id"], each["subject"]) in known)
        if len(batch) < size:
            return
        after = PageCursor.of(batch[-1])


def _query(search: FhirSearch, owners: Sequence[Document], after: PageCursor | None) -> Document:
    query = reports_query(owners[0], sort=search.sort, after=after)
    if len(owners) > 1:
        names = {"patient_id": "_id", "subject": "subject"}
        query |= {name: {"$in": [owner[field] for owner in owners]} for name, field in names.items()}
    return query | ({"$and": search.conditions} if search.conditions else {})


def _position(report: Document) -> tuple[object, int]:
    return report["taken_at"], report["_id"]


def find_patients(store: ReportRepository, search: FhirSearch, after: SearchCursor | None) -> ResourcePage:
    """Return one page of the Patients that a search finds among all people, in the order of the index that it uses."""
    limit, people = search.count, store.people
    sought = Search(max((each[0] for each in search.names if len(each) == 1), key=len, default=""), after=after)
    cursor_of, by_name = sought.cursor_of, partial(_cursor, "username_key")
    if search.ids or search.identifiers:
        named = people.named(search.ids[0] if search.ids else (), search.identifiers[0] if not search.ids else ())
        users = [user for user in named if after is None or by_name(user) > after]
        cursor_of = by_name
    elif search.births and not search.names:
        low, high = (each.date().isoformat() for each in search.births[0])
        users = people.born(low, high, after=after, limit=limit + 1)
        cursor_of = partial(_cursor, "birth_date")
    else:
        users = people.search(sought, limit=limit + 1)
    found = [(patient_of(user), user) for user in users[:limit] if user["role"] not in NO_PATIENT]
    found = [(resource, user) for resource, user in found if search.finds(resource)]
    return ResourcePage(found, cursor_of(users[limit - 1]) if len(users) > limit else None)


def _cursor(field: str, user: Document) -> SearchCursor:
    return SearchCursor(0, user[field], user["_id"])
