"""The report repository: the report store as browsing sees it. With `mirror`, the only importer of pymongo."""

from __future__ import annotations

import atexit
import contextlib
import sys
import warnings
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pymongo
from bson.codec_options import CodecOptions, TypeCodec, TypeRegistry
from bson.decimal128 import Decimal128
from pymongo import IndexModel
from pymongo.collection import Collection
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    WTimeoutError,
)
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from myhealth.common.errors import SettingsError, Unavailable
from myhealth.reports.documents import Document, next_millisecond
from myhealth.reports.name_matching import KEYS, name_key

# What holds where the URL does not say it: nobody waits for ever for a store that is away.
DEFAULTS = {
    "appName": "myhealth",
    "serverSelectionTimeoutMS": 10_000,
    "connectTimeoutMS": 10_000,
    "socketTimeoutMS": 120_000,
}
# Codes by which MongoDB says that it cannot do it now: not reachable, stepping down, shutting down, out of time, out of
# room, interrupted, in conflict with another write. Source: MongoDB's error_codes.yml.
TRANSIENT_CODES = frozenset(
    {6, 7, 24, 50, 64, 89, 91, 100, 112, 134, 189, 202, 262, 317, 358, 384, 8000, 9001, 10107}
    | {11600, 11601, 11602, 13388, 13435, 13436, 14031}
)
TRANSIENT_LABELS = ("RetryableWriteError", "TransientTransactionError", "RetryableError", "SystemOverloadedError")
BROWSED_BY = [("patient_id", 1), ("taken_at", -1), ("_id", -1)]
# The fields by which people are found, in this order; an index of each leads on by _id.
PEOPLE_FOUND_BY = ("username_key", *(f"name_keys.{number}" for number in range(1, KEYS + 1)))
REFUSED_CODES = (13, 18)  # Unauthorized, AuthenticationFailed


class _DecimalCodec(TypeCodec):
    """Decimals as BSON's decimal128, which keeps their digits (IEEE 754-2008)."""

    python_type = Decimal
    bson_type = Decimal128

    def transform_python(self, value: Decimal) -> Decimal128:
        return Decimal128(value)

    def transform_bson(self, value: Decimal128) -> Decimal:
        return value.to_decimal()


# Moments come in UTC as it is: with a `tzinfo`, the driver would convert each once more.
CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True, type_registry=TypeRegistry([_DecimalCodec()]))
# For reading much at once: where it has codecs of types, the driver goes through every document a second time.
QUICK_CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True)
# What of a result's values is not as `CODEC` would give it, or may hold such a value.
_UNFINISHED = frozenset((Decimal128, dict, list))


class ReportRepository:
    """Reports and users of one MongoDB database. Safe to share between threads."""

    def __init__(self, client: pymongo.MongoClient[Document], name: str) -> None:
        self.client = client
        # An acknowledged write has reached the journals of a majority: what moved the mark cannot be lost.
        concern = WriteConcern(w="majority", j=True)
        self._database = client.get_database(name, codec_options=CODEC, write_concern=concern)
        self.reports = self._database["reports"]
        self.users = self._database.get_collection("users", codec_options=QUICK_CODEC)  # these hold no decimals
        # Decimals come as BSON has them: `finished` and `decimal_of` make them what they are.
        self.quick_reports: Collection[Document] = self.reports.with_options(codec_options=QUICK_CODEC)
        self.audit_events = self._database["audit_events"]
        # The mark is read where it is written, whatever the URL says of reading.
        self.state = self._database.get_collection("sync_state", read_preference=ReadPreference.PRIMARY)
        self.failures = self._database.get_collection("sync_failures", read_preference=ReadPreference.PRIMARY)

    @classmethod
    def connect(cls, url: str, **defaults: Any) -> ReportRepository:
        """The database that the URL names. Nothing is asked of the server yet. `defaults`: of the driver's options,
        where the URL does not say them. Raises WrongSettings for a URL that MongoDB does not know."""
        try:
            said = url.partition("?")[2].lower()
            wanted = {**DEFAULTS, **defaults}
            options: Any = {name: value for name, value in wanted.items() if f"{name.lower()}=" not in said}
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)  # an option that PyMongo does not know
                client: pymongo.MongoClient[Document] = pymongo.MongoClient(url, **options)
            return cls(client, client.get_default_database().name)
        except (InvalidURI, SettingsError, ValueError, UserWarning) as error:
            raise SettingsError(f"mongo_url is not right: {error}") from None

    def close(self) -> None:
        """Ends the connections. Nothing is lost by it: every write has been acknowledged when its call returned."""
        self.client.close()
        _leave_quickly()

    def ping(self) -> None:
        """Raises Unavailable unless the server answers."""
        with translate_mongo_errors():
            self.client.admin.command("ping")

    def drop(self) -> None:
        """Deletes the whole report store; the next pass of the sync fills it anew."""
        with translate_mongo_errors():
            self.client.drop_database(self._database.name)

    def count(self) -> tuple[int, int]:
        """How many reports and users there are."""
        with translate_mongo_errors():
            return self.reports.count_documents({}), self.users.count_documents({})

    def identity(self) -> str:
        """The UUIDs of the collections that hold reports and users, empty where one is not there."""
        with translate_mongo_errors():
            found = self._database.list_collections(filter={"name": {"$in": ["reports", "users"]}})
            known = {each["name"]: str(each["info"].get("uuid", "")) for each in found}
        return "/".join(known.get(name, "") for name in ("reports", "users"))

    def make_indexes(self) -> None:
        """Makes every index that browsing needs; without effect where they are. `patient_id` leads all of reports'."""
        looks = [("patient_id", 1), ("at", -1), ("_id", -1)], [("at", 1), ("_id", 1)]
        wanted = (
            (self.reports, [IndexModel(BROWSED_BY)]),
            (self.users, [IndexModel([("subject", 1)]), *(_index_of_names(field) for field in PEOPLE_FOUND_BY)]),
            (self.audit_events, [IndexModel(keys) for keys in looks]),
        )
        with translate_mongo_errors():
            server = self.client.admin.command("hello")
            # Left to itself, a replica set waits for every member that votes: for ever, while one is down.
            alone = "setName" not in server and server.get("msg") != "isdbgrid"
            options: Any = {} if alone else {"commitQuorum": "majority"}
            for collection, indexes in wanted:
                collection.create_indexes(indexes, **options)

    def defer_index(self) -> None:
        """Where there is no report yet, drops the index that they are browsed by: to make it once they are all there
        takes MongoDB a third of the time that it takes to keep it up while they come."""
        with translate_mongo_errors():
            if self.reports.find_one({}, {"_id": 1}) is None:
                with contextlib.suppress(OperationFailure):  # not there, or not ours to drop
                    self.reports.drop_index(BROWSED_BY)

    def user_of(self, subject: str) -> Document | None:
        with translate_mongo_errors():
            return self.users.find_one({"subject": subject})

    def end_tokens(self, subject: str, moment: datetime) -> None:
        """Lets no token of this user in that is from before this moment: at once, and not with the next sync, which
        brings the same. Never the other way round."""
        with translate_mongo_errors():
            self.users.update_one({"subject": subject}, {"$max": {"tokens_valid_after": next_millisecond(moment)}})

    def user_named(self, username: str) -> Document | None:
        """The user of that name, case aside; None also where several are alike."""
        with translate_mongo_errors():
            found = list(self.users.find({"username_key": name_key(username)}).limit(2))
        exact = [user for user in found if user["username"] == username]
        alike = exact or found
        return alike[0] if len(alike) == 1 else None

    def full_names(self, subjects: Iterable[str]) -> dict[str, str]:
        """By subject; of those who have one."""
        with translate_mongo_errors():
            found = self.users.find({"subject": {"$in": sorted(set(subjects))}}, {"subject": 1, "full_name": 1})
            return {user["subject"]: user["full_name"] for user in found if user["full_name"].strip()}

    def report(self, report_id: int) -> Document | None:
        with translate_mongo_errors():
            return self.reports.find_one({"_id": report_id})


def _index_of_names(field: str) -> IndexModel:
    """Few names have five words: nobody else is in the index of the fifth."""
    there: dict[str, Any] = {"partialFilterExpression": {field: {"$exists": True}}} if "." in field else {}
    return IndexModel([(field, 1), ("_id", 1)], **there)


def decimal_of(value: Any) -> Any:
    """A value out of `quick_reports` as `reports` gives it."""
    return value.to_decimal() if type(value) is Decimal128 else value


def restore_decimals(report: Document) -> Document:
    """A report out of `quick_reports` as `reports` gives it; few have anything to do."""
    results = report["results"]
    if type(results) is list:
        for result in results:
            if type(result) is not dict or not _UNFINISHED.isdisjoint(map(type, result.values())):
                break
        else:
            return report
    report["results"] = _finished_value(results)
    return report


def _finished_value(value: Any) -> Any:
    if type(value) is dict:
        return {name: _finished_value(each) for name, each in value.items()}
    if type(value) is list:
        return [_finished_value(each) for each in value]
    return decimal_of(value)


@contextlib.contextmanager
def translate_mongo_errors() -> Iterator[None]:
    """Turns what a retry can help against into Unavailable, and a refused login into WrongSettings."""
    try:
        yield
    except BulkWriteError as error:
        if error.details.get("writeConcernErrors"):
            said = error.details["writeConcernErrors"][0].get("errmsg", "")
            raise Unavailable(f"MongoDB did not keep it safely: {said}") from error
        raise
    except DuplicateKeyError:
        raise
    except (ConnectionFailure, ExecutionTimeout, WTimeoutError) as error:
        raise Unavailable(f"MongoDB is away: {str(error).split(', Timeout:')[0]}") from error
    except OperationFailure as error:
        if error.code in REFUSED_CODES:
            raise SettingsError(f"MongoDB refuses us: {error}", hint="look at mongo_url") from error
        if is_transient(error):
            raise Unavailable(f"MongoDB cannot do it now: {error}") from error
        raise
    except PyMongoError as error:
        if is_transient(error):
            raise Unavailable(f"MongoDB is away: {error}") from error
        raise


def is_transient(error: PyMongoError) -> bool:
    """Whether the same call may succeed later."""
    code = error.code if isinstance(error, OperationFailure) else None
    return code in TRANSIENT_CODES or any(error.has_error_label(label) for label in TRANSIENT_LABELS)


def _leave_quickly() -> None:
    """Spares a short process half a second at its end.

    PyMongo's monitors look whether they are wanted every 0.5 s, and a hook of its own joins them when Python exits,
    even after `close()`. They are daemon threads that hold nothing once the client is closed, so the process can
    leave without them. The hook's name is private: where a later PyMongo has none, leaving is slow again, and right.
    """
    hook = getattr(sys.modules.get("pymongo.synchronous.monitor"), "_shutdown_resources", None)
    if hook is not None:
        atexit.unregister(hook)
