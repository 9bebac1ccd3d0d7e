"""A record as a format finds it, and JSON decoded without loss: exact numbers, repeated keys."""

import contextlib
import json
import re
from collections.abc import Callable
from decimal import Decimal
from math import isinf
from typing import Any

import msgspec
from msgspec import Struct

from myhealth.common.decoding import INT_MAX, INT_MIN, exact_number

# The digits of BSON's decimal128 (IEEE 754-2008), and the characters of a number that has as many.
DECIMAL_DIGITS = 34
NUMBER_LENGTH_MAX = DECIMAL_DIGITS + 8
# The warning of a format whose records may carry files.
FILE_NOT_KEPT = "the attached file is not kept"
CONTAINED = "/contained/"  # between the number of a FHIR resource and the id of one that it contains
MISSING = "results.missing"  # the field of the results that a FHIR report names and that are nowhere
NOT_TAKEN = "not_taken"  # the code of a warning: the value, or the range, was not taken


class UnrepresentableNumber:
    """A JSON number that cannot be stored as it was sent: NaN, an infinity, too many digits. `text`: as it was sent."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text if len(self.text) <= 24 else f"a number of {len(self.text)} digits"


class DuplicateKeyDict(dict[str, Any]):
    """A JSON object with a repeated key: which of its values was meant is unknown. `name`: the key."""

    name = ""
    __repr__ = object.__repr__  # never that of an object without a repeated key


def parse_int(text: str) -> int | UnrepresentableNumber:
    """Parse a JSON integer. Return UnrepresentableNumber beyond 64 bits."""
    if len(text) > 20:
        return UnrepresentableNumber(text)
    value = int(text)
    return value if INT_MIN <= value <= INT_MAX else UnrepresentableNumber(text)


def parse_float(text: str) -> float | Decimal | UnrepresentableNumber:
    """Parse a JSON number with a point or an exponent exactly: 5.1 as a float; 5.10 and 1e-22 as a Decimal.

    Trailing zeros are the precision of a measurement (FHIR R4, "decimal"), so they are kept. Return
    UnrepresentableNumber beyond the range of a double, because most readers of JSON would see infinity or 0, and beyond
    the digits of a decimal128.
    """
    if len(text) > NUMBER_LENGTH_MAX:
        return UnrepresentableNumber(text)
    exact = exact_number(text)
    if exact.__class__ is float:
        return exact
    value = float(text)
    if len(Decimal(exact).as_tuple().digits) > DECIMAL_DIGITS or isinf(value) or (exact and not value):
        return UnrepresentableNumber(text)
    return exact


def parse_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object. Return a DuplicateKeyDict if a key is repeated."""
    found = dict(pairs)
    if len(found) != len(pairs):
        doubled = DuplicateKeyDict(found)
        names = [name for name, _ in pairs]
        doubled.name = next(name for name in names if names.count(name) > 1)
        return doubled
    return found


# Decodes JSON with every number exact; numbers and objects with a fault are marked where they are.
DECODER = json.JSONDecoder(
    parse_float=parse_float, parse_int=parse_int, parse_constant=UnrepresentableNumber, object_pairs_hook=parse_object
)
QUICK_DECODER = msgspec.json.Decoder(float_hook=parse_float)
QUICK_ENCODER = msgspec.json.Encoder(decimal_format="number")
MANY_DIGITS = re.compile("[1-9][0-9]{18}")  # of a whole number that may be beyond 64 bits


def decode_exactly(text: str) -> Any:
    """Decode JSON as DECODER does, several times quicker where nothing is wrong. Raises JSONDecodeError and
    RecursionError.

    A repeated key is found by the commas: only one of its values is decoded, so the text encoded again has fewer.
    """
    with contextlib.suppress(msgspec.MsgspecError, UnicodeEncodeError, TypeError, RecursionError):
        found = QUICK_DECODER.decode(text)
        commas = QUICK_ENCODER.encode(found).count(b",")
        if commas == text.count(",") and "\\u002" not in text and not MANY_DIGITS.search(text):
            return found
    return DECODER.decode(text)


# The patient of a record in our own format, in any text around it.
CHECKUP_FOR = re.compile(r'"checkup_for"\s*:\s*("[^"\\]*(?:\\.[^"\\]*)*")', re.IGNORECASE | re.DOTALL)
# The record of a ParsedRecord whose text has not been decoded.
UNREAD: Any = object()


class ParsedRecord(Struct):
    """One record as a machine sent it.

    `index`: its position among the records of its source, from 0. `line`: its first line, from 1. `raw`: its text as
    sent, with bytes that are not UTF-8 as lone surrogates ("surrogateescape"); read again in the same format, it gives
    the same record. `record`: the decoded text, or None if it cannot be decoded; UNREAD until `decoded()` is called,
    and then `raw` is the JSON text of the record itself. `faults`: why it cannot be read, as (field or "", message).
    `patients`: possible names of the patient, best first, if the format gives several. `full_name`: the patient's, if
    the format gives it. `patient_field`: the source's own field that names the patient. `patient_reference`: the
    reference by which a FHIR resource names a patient whose resource the source does not contain. `patient_doubt`: why
    it may be about another patient than it names, so that a person must say whose it is. `warnings`: what looks wrong
    in a record that can be read, as (the source's own field, message) or (field, message, code). `locate`: returns the
    source's own name for a field of ours, as errors name it. `entries`: the places of the Bundle's entries that it is
    made of, the head first, each with the number of its result (`sub_id`), "" where it is none. `elsewhere`: the
    addresses of its results that the source does not contain. `unnumbered`: the number may differ when the record is
    sent again, because it is only the message's, or an address within a Bundle. `former_id`: the number under which
    earlier releases stored it, "" if it is the same. `former`: the fields that they read otherwise, with their values.
    `before_marks`: the results with the values that have a mark as text.
    """

    index: int
    line: int
    raw: str
    record: Any = UNREAD
    faults: list[tuple[str, str]] = []
    patients: tuple[str, ...] = ()
    full_name: str = ""
    patient_field: str = "checkup_for"
    patient_reference: str = ""
    patient_doubt: str = ""
    warnings: list[tuple[str, ...]] = []
    locate: Callable[[str], str] = str
    entries: dict[int, str] = {}
    elsewhere: list[str] = []
    unnumbered: bool = False
    former_id: str = ""
    former: dict[str, Any] = {}
    before_marks: list[Any] = []

    def decoded(self) -> Any:
        """Return the decoded text with exact numbers. If it is not JSON, return None and add to `faults`."""
        if self.record is UNREAD:
            try:
                self.record = decode_exactly(self.raw)
            except json.JSONDecodeError as error:
                self.record = None
                self.faults.append(("", f"it is not JSON: {error.msg}"))
            except RecursionError:
                self.record = None
                self.faults.append(("", "it is nested too deeply"))
        return self.record


def named_in(text: str) -> list[str]:
    """Return the patients that a text names in the fields of our own records, even if it is not valid JSON."""
    found = []
    for quoted in CHECKUP_FOR.findall(text):
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(quoted, strict=False).strip())
    return found


SURROGATE = re.compile("[\ud800-\udfff]")


def is_utf8(raw: str) -> bool:
    """Return whether the text came from bytes that are UTF-8."""
    return not SURROGATE.search(raw)
