"""The connection to MongoDB: options, BSON codecs, and the translation of the driver's errors."""

import atexit
import contextlib
import sys
import warnings
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pymongo
from bson.codec_options import CodecOptions, TypeCodec, TypeRegistry
from bson.decimal128 import Decimal128
from bson.raw_bson import RawBSONDocument
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WTimeoutError,
)

from myhealth.common.errors import SettingsError, Unavailable
from myhealth.common.text import plain_reason
from myhealth.reports.documents import Document

# Driver options that apply unless the URL sets them: no call waits forever for an unavailable server.
DEFAULTS = {
    "appName": "myhealth",
    "serverSelectionTimeoutMS": 10_000,
    "connectTimeoutMS": 10_000,
    "socketTimeoutMS": 120_000,
}
# Error codes that a retry can help against: not reachable, stepping down, shutting down, out of time, out of disk
# space, interrupted, write conflict. Source: MongoDB's error_codes.yml.
TRANSIENT_CODES = frozenset(
    {6, 7, 24, 50, 64, 89, 91, 100, 112, 134, 189, 202, 262, 317, 358, 384, 8000, 9001, 10107}
    | {11600, 11601, 11602, 13388, 13435, 13436, 14031}
)
TRANSIENT_LABELS = ("RetryableWriteError", "TransientTransactionError", "RetryableError", "SystemOverloadedError")
DUPLICATE_KEY, ILLEGAL_OPERATION = 11000, 20
AUTH_CODES = (13, 18)  # Unauthorized, AuthenticationFailed


class _DecimalCodec(TypeCodec):
    """Store decimals as BSON's decimal128, which keeps every digit (IEEE 754-2008)."""

    python_type = Decimal
    bson_type = Decimal128

    def transform_python(self, value: Decimal) -> Decimal128:
        return Decimal128(value)

    def transform_bson(self, value: Decimal128) -> Decimal:
        return value.to_decimal()


# Datetimes are decoded as UTC. With a `tzinfo` option, the driver would convert each of them a second time.
CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True, type_registry=TypeRegistry([_DecimalCodec()]))
# For reading many documents: with a type registry, the driver traverses every document a second time.
READ_CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True)
# For reading documents as bytes.
RAW_CODEC: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
# For reading reports: the driver takes six times as long for an aware moment as `aware` does. Moments arrive without
# their zone, UTC, and decimals as Decimal128; `restore_report` converts both.
REPORT_CODEC: CodecOptions[Document] = CodecOptions(tz_aware=False)
# Types of values that `restore_report` must convert or search.
TO_RESTORE = frozenset((Decimal128, dict, list, datetime))


def restore_report(report: Document) -> Document:
    """Convert the moments and the decimals of a report that was read with REPORT_CODEC, in place."""
    results = report["results"]
    is_plain = type(results) is list
    for result in results if is_plain else ():
        if type(result) is not dict or not TO_RESTORE.isdisjoint(map(type, result.values())):
            is_plain = False
            break
    for name, value in report.items():
        kind = type(value)
        if kind is datetime:
            report[name] = datetime.combine(value, value.time(), UTC)  # as `aware`, without a call for each
        elif kind in TO_RESTORE and not (is_plain and value is results):
            report[name] = restore_value(value)
    return report


def restore_value(value: Any) -> Any:
    """Convert one value that was read with REPORT_CODEC, at any depth."""
    kind = type(value)
    if kind is dict:
        return {name: restore_value(each) for name, each in value.items()}
    if kind is list:
        return [restore_value(each) for each in value]
    return value.to_decimal() if kind is Decimal128 else aware(value) if kind is datetime else value


def aware(moment: datetime) -> datetime:
    """Return a moment that was read with REPORT_CODEC with its zone, UTC. (`replace` takes six times as long.)"""
    return datetime.combine(moment, moment.time(), UTC)


def connect_client(url: str, **defaults: Any) -> pymongo.MongoClient[Document]:
    """Return a client for the URL, without asking the server. `defaults`: driver options that the URL overrides.

    Raises SettingsError for a URL or an option that MongoDB does not know.
    """
    try:
        in_url = url.partition("?")[2].lower()
        options: Any = {
            name: value for name, value in {**DEFAULTS, **defaults}.items() if f"{name.lower()}=" not in in_url
        }
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # PyMongo warns of an unknown option
            client: pymongo.MongoClient[Document] = pymongo.MongoClient(url, **options)
        client.get_default_database()
        return client
    except (ConfigurationError, ValueError, UserWarning) as error:
        raise SettingsError(f"mongo_url is not right: {error}") from None


def close_client(client: pymongo.MongoClient[Document]) -> None:
    """Close the client's connections, and let the process exit without waiting for PyMongo's monitor threads.

    The monitors wake every 0.5 s, and a hook of PyMongo joins them when Python exits, even after `close()`. They are
    daemon threads that hold nothing once the client is closed. The hook's name is private: with a PyMongo that has no
    such hook, exiting is slow again but still correct.
    """
    client.close()
    hook = getattr(sys.modules.get("pymongo.synchronous.monitor"), "_shutdown_resources", None)
    if hook is not None:
        atexit.unregister(hook)


@contextlib.contextmanager
def translate_mongo_errors() -> Iterator[None]:
    """Raise Unavailable for errors that a retry can help against, and SettingsError for a refused login."""
    try:
        yield
    except BulkWriteError as error:
        if error.details.get("writeConcernErrors"):
            reason = error.details["writeConcernErrors"][0].get("errmsg", "")
            raise Unavailable(f"MongoDB did not store it durably: {reason}") from error
        check_transient(error.details.get("writeErrors", ()))
        raise
    except PyMongoError as error:
        if isinstance(error, OperationFailure) and error.code in AUTH_CODES:
            raise SettingsError(f"MongoDB does not let us in: {reason_of(error)}", hint="look at mongo_url") from error
        if is_transient(error) or isinstance(error, (ConnectionFailure, ExecutionTimeout, WTimeoutError)):
            what = "cannot do it now" if isinstance(error, OperationFailure) else "is unavailable"
            raise Unavailable(f"MongoDB {what}: {reason_of(error)}") from error
        raise


def check_transient(failed: Iterable[Any]) -> None:
    """Raise Unavailable if one of these failed writes may succeed later."""
    for each in failed:
        if each["code"] in TRANSIENT_CODES:
            raise Unavailable(f"MongoDB cannot do it now: {each['errmsg']}")


def reason_of(error: PyMongoError) -> str:
    """Return the message of an error without the driver's state, its options, and what the server sent beside it."""
    return plain_reason((getattr(error, "details", None) or {}).get("errmsg") or error)


def is_transient(error: PyMongoError) -> bool:
    """Return whether the same call may succeed later.

    One case is PyMongo's own. After a lost connection it repeats a write as a retryable write, and a server outside a
    replica set refuses that (seen with 4.20, while mongod starts again).
    """
    code, details = (error.code, error.details or {}) if isinstance(error, OperationFailure) else (None, {})
    if code == ILLEGAL_OPERATION and str(details.get("errmsg", "")).startswith("Transaction numbers"):
        return True
    return code in TRANSIENT_CODES or any(error.has_error_label(label) for label in TRANSIENT_LABELS)
