"""The report repository: all reading from MongoDB, and the collections that the writer fills."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any

import pymongo
from pymongo import IndexModel
from pymongo.collection import Collection
from pymongo.errors import OperationFailure
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from myhealth.common.decoding import INT_MAX
from myhealth.reports import TREND_LIMIT
from myhealth.reports.access_log import ACCESS_LOG_INDEXES, AccessLog
from myhealth.reports.connection import (
    CODEC,
    READ_CODEC,
    REPORT_CODEC,
    aware,
    close_client,
    connect_client,
    restore_report,
    restore_value,
    translate_mongo_errors,
)
from myhealth.reports.documents import Document
from myhealth.reports.filters import (
    ALL_PATIENTS,
    NO_FILTER,
    Owner,
    OwnReports,
    PageCursor,
    ReportFilter,
    Sort,
    reports_query,
    sort_keys,
)
from myhealth.reports.kept_trends import KEPT_FROM, KeptTrends
from myhealth.reports.newest import PROJECTION, NewestPoints, newest_query
from myhealth.reports.trends import (
    Measurement,
    TrendPage,
    TrendQuery,
    measurements,
    measurements_pipeline,
    trend_points,
    trend_projection,
    trend_query,
)
from myhealth.reports.user_search import SEARCH_FIELDS, UserDirectory

# An overview reads all reports of a patient; one that takes longer is not worth the server's time.
OVERVIEW_MAX_MS = 10_000
NEWEST_READ = 100  # reports that one query for the newest values reads
NEWEST_READ_FIRST = 10  # times the values of each measurement: reports that the first query reads at most
# Documents of one reply while all reports are read: MongoDB's default is as many as fit into 16 MB.
ITERATED_BATCH = 100
BROWSED_BY = [("patient_id", 1), ("taken_at", -1), ("_id", -1)]
# An index of abnormal reports alone. A report without a review lacks the first field, and one that is not far outside
# the second; the index holds null for them.
REVIEWED_BY = [("reviewed_at", 1), ("far", -1), ("taken_at", -1), ("_id", -1), ("machine", 1)]
ABNORMAL = {"abnormal": True}


class ReportRepository:
    """Reports, users (`people`) and the access log of one MongoDB database. Safe to share between threads.

    All methods raise Unavailable when the server cannot be reached. The collections `reports`, `users`, `state` and
    `failures` are for ReportWriter.
    """

    def __init__(self, client: pymongo.MongoClient[Document], name: str) -> None:
        self.client = client
        # An acknowledged write is in the journals of a majority: a batch before a moved checkpoint cannot be lost.
        concern = WriteConcern(w="majority", j=True)
        self._database = client.get_database(name, codec_options=CODEC, write_concern=concern)
        self.reports = self._database["reports"]
        self.users = self._database.get_collection("users", codec_options=READ_CODEC)  # users have no decimals
        # All reading of reports goes through this collection, and through `restore_report`.
        self._readable: Collection[Document] = self.reports.with_options(codec_options=REPORT_CODEC)
        self._current = self._readable.with_options(read_preference=ReadPreference.PRIMARY)
        self._counted: Collection[Document] = self.reports.with_options(codec_options=READ_CODEC)
        self._users_and_reports: Collection[Document] = self.users.with_options(codec_options=REPORT_CODEC)
        self.people = UserDirectory(self.users)
        self.access_log = AccessLog(self._database["audit_events"])
        # The checkpoint is read where it is written, whatever read preference the URL has.
        self.state = self._database.get_collection("sync_state", read_preference=ReadPreference.PRIMARY)
        self.kept_trends = KeptTrends(self._database["trends"], self.state, self._find_trend)
        self.failures = self._database.get_collection("sync_failures", read_preference=ReadPreference.PRIMARY)

    @classmethod
    def connect(cls, url: str, **defaults: Any) -> ReportRepository:
        """Open the database that the URL names, without asking the server. `defaults`: driver options that the URL
        overrides. Raises SettingsError for a URL that MongoDB does not know."""
        client = connect_client(url, **defaults)
        return cls(client, client.get_default_database().name)

    def close(self) -> None:
        """Close the connections. Nothing is lost: every write is acknowledged before its call returns."""
        close_client(self.client)

    def ping(self, seconds: float = 10.0) -> None:
        """Raise an error unless the server lets us read within these seconds."""
        with translate_mongo_errors(), pymongo.timeout(seconds):
            self.users.find_one({"_id": 0}, {"_id": 1})

    def server_facts(self) -> Document:
        """Return the server's `version` (numbers) and `clock` (Unix seconds), and whether we are `authenticated`, over
        `tls`."""
        with translate_mongo_errors():
            build, now = self._database.command("buildInfo"), self._database.command("hello")["localTime"]
            users = self._database.command("connectionStatus")["authInfo"]["authenticatedUsers"]
        tls = self.client.options.pool_options._ssl_context is not None
        facts = {"authenticated": bool(users), "tls": tls}
        return {**facts, "version": build["versionArray"], "clock": now.replace(tzinfo=UTC).timestamp()}

    def drop(self) -> None:
        """Delete the whole report store; the next sync pass fills it again."""
        with translate_mongo_errors():
            self.client.drop_database(self._database.name)

    def count(self) -> tuple[int, int]:
        with translate_mongo_errors():
            return self.reports.count_documents({}), self.users.count_documents({})

    def identity(self) -> str:
        """Return the UUIDs of the collections of reports and users, joined by "/"; empty for a missing one."""
        with translate_mongo_errors():
            found = self._database.list_collections(filter={"name": {"$in": ["reports", "users"]}})
            known = {each["name"]: str(each["info"].get("uuid", "")) for each in found}
        return "/".join(known.get(name, "") for name in ("reports", "users"))

    def _wanted_indexes(self) -> tuple[tuple[Any, list[IndexModel]], ...]:
        user_indexes = [IndexModel([("subject", 1)]), *map(_name_index, (*SEARCH_FIELDS, "birth_date"))]
        user_indexes.append(IndexModel([("identifiers.value", 1)], sparse=True))
        return (
            (self.reports, [IndexModel(BROWSED_BY), IndexModel(REVIEWED_BY, partialFilterExpression=ABNORMAL)]),
            (self.users, user_indexes),
            (self.access_log.collection, list(ACCESS_LOG_INDEXES)),
        )

    def missing_indexes(self) -> list[str]:
        """Return the names of the indexes that `make_indexes` would create."""
        with translate_mongo_errors():
            return [
                f"{collection.name}.{index.document['name']}"
                for collection, indexes in self._wanted_indexes()
                for found in [[each["key"] for each in collection.index_information().values()]]
                for index in indexes
                if [*index.document["key"].items()] not in found
            ]

    def make_indexes(self) -> None:
        """Create the indexes that browsing needs; existing ones stay. `patient_id` leads those of reports."""
        with translate_mongo_errors():
            server = self.client.admin.command("hello")
            # By default, a replica set waits for every voting member, forever while one is down.
            standalone = "setName" not in server and server.get("msg") != "isdbgrid"
            options: Any = {} if standalone else {"commitQuorum": "majority"}
            for collection, indexes in self._wanted_indexes():
                collection.create_indexes(indexes, **options)

    def defer_index(self) -> None:
        """Drop the browsing indexes while there are no reports. Building one after a first sync takes MongoDB a third
        of the time that updating it during the sync takes."""
        with translate_mongo_errors():
            if self.reports.find_one({}, {"_id": 1}) is None:
                for keys in (BROWSED_BY, REVIEWED_BY):
                    with contextlib.suppress(OperationFailure):  # not there, or no permission
                        self.reports.drop_index(keys)

    def find(
        self,
        owner: Owner,
        wanted: ReportFilter = NO_FILTER,
        *,
        sort: Sort = "-taken_at",
        limit: int = 50,
        after: PageCursor | None = None,
    ) -> list[Document]:
        """Return at most `limit` reports of a patient, behind `after`. Pages stay stable while reports arrive.

        `owner`: the patient's user document, or ALL_PATIENTS, for which there is no index yet. Ask for one report more
        than a page shows to learn whether there is a next page.
        """
        return self.find_by_query(reports_query(owner, wanted, sort=sort, after=after), sort_keys(sort), limit)

    def find_by_query(
        self, query: Document, sort: list[tuple[str, int]] | None = None, limit: int = 0
    ) -> list[Document]:
        """Return the reports that a query of the FHIR API finds."""
        with translate_mongo_errors():
            size = limit + 1 if limit else ITERATED_BATCH
            found = self._readable.find(query, sort=sort, limit=limit, batch_size=size).to_list()
        return [restore_report(report) for report in found]

    def to_review(
        self,
        wanted: ReportFilter,
        *,
        limit: int,
        after: PageCursor | None = None,
        machines: Sequence[str] | None = None,
        behind_far: bool = False,
    ) -> list[Document]:
        """Return at most `limit` abnormal reports of all patients that nobody has reviewed: first those with a value
        far outside its range, then the others, the newest first. `machines`: only of these. `behind_far`: `after` is
        one of the others."""
        found: list[Document] = []
        for far in (None,) if behind_far else (True, None):
            query = {**reports_query(ALL_PATIENTS, wanted, after=after), **ABNORMAL, "reviewed_at": None, "far": far}
            if machines is not None:
                query["machine"] = {**query.get("machine", {}), "$in": [*machines]}
            if len(found) < limit:
                found += self.find_by_query(query, sort_keys("-taken_at"), limit - len(found))
            after = None
        return found

    def last_of_each(self, patients: Sequence[Document]) -> dict[str, Document]:
        """Return the newest report of each patient who has one, by subject. MongoDB reads nothing else: it skips in
        the index from one patient to the next."""
        found: list[Document] = [
            {"$match": {"patient_id": {"$in": [patient["_id"] for patient in patients]}}},
            {"$sort": dict(BROWSED_BY)},
            {"$group": {"_id": "$patient_id", "report": {"$first": "$$ROOT"}}},
        ]
        with translate_mongo_errors():
            reports = [restore_report(each["report"]) for each in self._readable.aggregate(found)]
        of_them = {patient["subject"] for patient in patients}  # an id may have been somebody else's before
        return {report["subject"]: report for report in reports if report["subject"] in of_them}

    def iterate(self, patient: Document, wanted: ReportFilter = NO_FILTER) -> Iterator[Document]:
        """Yield all matching reports of a patient, the newest first, in bounded memory."""
        query, keys = reports_query(patient, wanted), sort_keys("-taken_at")
        with translate_mongo_errors(), self._readable.find(query, sort=keys, batch_size=ITERATED_BATCH) as found:
            yield from map(restore_report, found)

    def get(self, report_id: int) -> Document | None:
        with translate_mongo_errors():
            report = self._readable.find_one({"_id": report_id})
        return restore_report(report) if report else None

    def get_user(self, subject: str, own: OwnReports | None = None) -> tuple[Document | None, list[Document]]:
        """Return the user with this permanent id, or None, and the user's reports that `own` asks for. One query takes
        two thirds of the time of two."""
        if own is None:
            return self.people.get(subject), []
        lookup = {"from": "reports", "localField": "_id", "foreignField": "patient_id", "as": "report"}
        stages = [{"$match": {**own.query, "subject": subject}}, {"$sort": dict(own.sort)}, {"$limit": own.limit}]
        pipeline: list[Document] = [
            {"$match": {"subject": subject}},
            {"$limit": 1},
            {"$lookup": {**lookup, "pipeline": stages}},
            # All in one would not fit into 16 MB. The user comes with the first report only: decoding takes time.
            {"$unwind": {"path": "$report", "preserveNullAndEmptyArrays": True, "includeArrayIndex": "at"}},
            {"$replaceWith": {"$cond": [{"$gt": ["$at", 0]}, "$report", "$$ROOT"]}},
        ]
        with translate_mongo_errors():
            found = self._users_and_reports.aggregate(pipeline, batchSize=own.limit + 1).to_list()
        if not found:
            return None, []
        user = found[0]
        newest = user.pop("report", None)
        del user["at"]
        return restore_value(user), [*map(restore_report, [newest, *found[1:]] if newest else [])]

    def get_with_patient(self, report_id: int, reader: Document | None = None) -> tuple[Document, Document] | None:
        """Return a report and its patient, or None. The caller must check who may see it. `reader`: the user who asks,
        as just read.

        A missing report takes the same number of queries as another person's, so that the time reveals nothing.
        """
        if not 0 <= report_id <= INT_MAX:
            return None
        report = self.get(report_id)
        subject = report["subject"] if report else ""
        patient = reader if reader and reader["subject"] == subject else self.people.get(subject)
        if report is None or patient is None or patient["_id"] != report["patient_id"]:
            return None
        return report, patient

    def trend(self, patient: Document, wanted: TrendQuery, *, limit: int = TREND_LIMIT) -> TrendPage:
        """Return the results of one measurement, the newest first, out of at most `limit` reports."""
        kept = self.kept_trends.find(patient, wanted, limit)
        if kept is not None:
            return kept
        found = self._find_trend(patient, wanted, limit + 1, current=False)
        if len(found) >= KEPT_FROM:
            self.kept_trends.keep(patient, wanted)
        after = PageCursor.of(found[limit - 1]) if len(found) > limit else None
        return TrendPage(trend_points(found[:limit], wanted), after)

    def _find_trend(self, patient: Document, wanted: TrendQuery, limit: int, *, current: bool = True) -> list[Document]:
        """Return the newest reports that have a result of the measurement, and of their results only these. `current`:
        from the primary, whatever read preference the URL has."""
        query, projection = trend_query(patient, wanted), trend_projection(wanted)
        return self._find_measured(query, projection, limit, self._current if current else self._readable)

    def newest(
        self,
        patient: Document,
        most: int,
        *,
        only: Sequence[Mapping[str, Any]] | None = None,
        after: PageCursor | None = None,
        rounds: int | None = None,
        read: Sequence[Document] = (),
        any_unit: bool = False,
    ) -> NewestPoints:
        """Return the `most` newest points of each measurement, or of those of the results `only`, behind `after`.

        `rounds`: how many queries at most; a point that is not among their reports is not found. `read`: the newest
        reports, if the caller has them and there may be more; they are not read again. `any_unit`: points in other
        units than the newest one's too."""
        found = NewestPoints(most, only, any_unit)
        if read:
            found.add(read)
            after = PageCursor.of(read[-1])
        lacking = found.lacking() if read or only is not None else None
        size = min(NEWEST_READ_FIRST * most, NEWEST_READ)
        while (only is None or lacking is not None) and rounds != 0:
            query = newest_query(patient, lacking, after)
            reports = self._find_measured(query, PROJECTION, size, self._readable, max_time_ms=OVERVIEW_MAX_MS)
            found.add(reports)
            if len(reports) < size:
                break
            after, lacking, size = PageCursor.of(reports[-1]), found.lacking(), NEWEST_READ
            rounds = None if rounds is None else rounds - 1
        return found

    def _find_measured(
        self, query: Document, projection: Document, limit: int, source: Collection[Document], **options: Any
    ) -> list[Document]:
        """Return the newest reports of a query with these fields; of their values, only the moment is converted."""
        options |= {"sort": sort_keys("-taken_at"), "limit": limit, "batch_size": limit + 1}
        with translate_mongo_errors():
            found = source.find(query, projection, **options).to_list()
        for report in found:
            report["taken_at"] = aware(report["taken_at"])
        return found

    def measurements(self, patient: Document) -> list[Measurement]:
        """Return everything that was measured of a patient, by name."""
        with translate_mongo_errors():
            return measurements(self._counted.aggregate(measurements_pipeline(patient), maxTimeMS=OVERVIEW_MAX_MS))

    def types(self, patient: Document) -> list[str]:
        """Return the types of a patient's reports, for a form to offer."""
        with translate_mongo_errors():
            found = self._counted.distinct("checkup_type", reports_query(patient), maxTimeMS=OVERVIEW_MAX_MS)
        return sorted(text for text in found if isinstance(text, str) and text)


def _name_index(field: str) -> IndexModel:
    """Index a name's key; partial for the words of full names, because few names have five words."""
    partial: dict[str, Any] = {"partialFilterExpression": {field: {"$exists": True}}} if "." in field else {}
    return IndexModel([(field, 1), ("_id", 1)], **partial)
