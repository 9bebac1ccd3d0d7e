"""What a format gives for each record it finds, and the numbers in it, kept exactly as they were sent."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from decimal import Decimal
from math import isinf
from typing import Any

# The range of BSON's and PostgreSQL's 64-bit integers, and the digits of BSON's decimal128 (IEEE 754-2008).
INT_MIN, INT_MAX = -(2**63), 2**63 - 1
DECIMAL_DIGITS = 34


class UnrepresentableNumber:
    """A number that is none (NaN) or that cannot be kept as it was sent; a check finds it and names its place."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text if len(self.text) <= 24 else f"a number of {len(self.text)} digits"


class DuplicateKeyDict(dict[str, Any]):
    """An object in which a name stands twice: which value was meant cannot be known."""

    name = ""


def parse_int(text: str) -> int | UnrepresentableNumber:
    """A JSON integer; Unkeepable beyond 64 bits."""
    if len(text) > 20:
        return UnrepresentableNumber(text)
    value = int(text)
    return value if INT_MIN <= value <= INT_MAX else UnrepresentableNumber(text)


def parse_float(text: str) -> float | Decimal | UnrepresentableNumber:
    """A JSON number with a point or an exponent: a float where that says the same (5.1), else a Decimal (5.10, 1e-22).

    Trailing zeros are the precision of a measurement (FHIR R4, "decimal"), so they are kept. Unkeepable beyond the
    range of a double, for most readers of JSON would see infinity or 0, and beyond the digits of a decimal128.
    """
    value = float(text)
    if repr(value) == text:
        return value
    exact = Decimal(text) if len(text) <= DECIMAL_DIGITS + 8 else None
    if exact is None or len(exact.as_tuple().digits) > DECIMAL_DIGITS or isinf(value) or (exact and not value):
        return UnrepresentableNumber(text)
    return exact


def parse_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; Doubled where a name stands twice in it."""
    found = dict(pairs)
    if len(found) != len(pairs):
        doubled = DuplicateKeyDict(found)
        names = [name for name, _ in pairs]
        doubled.name = next(name for name in names if names.count(name) > 1)
        return doubled
    return found


# JSON with every number as it was sent, and with what is wrong with it marked where it stands.
DECODER = json.JSONDecoder(
    parse_float=parse_float, parse_int=parse_int, parse_constant=UnrepresentableNumber, object_pairs_hook=parse_object
)
UNREAD: Any = object()


@dataclass(slots=True)
class ParsedRecord:
    """One record as a machine sent it. What its text says is decoded when it is first wanted: `decoded()`.

    `index`: its position among the records of its source, from 0. `line`: where it begins, from 1. `raw`: its text
    as sent (bytes that are not UTF-8 as lone surrogates, "surrogateescape"); read again in the same format, it gives
    the same record. `record`: what that text says, None where it says nothing. `faults`: why it cannot be read, as
    (field or "", message). `patients`: names that the patient may be known by, best first, where a format gives
    several; `full_name`: the patient's, where the format tells it. `distinct`: it is JSON, and no name stands twice in
    it or its results; None where it is JSON and nobody has looked.
    """

    index: int
    line: int
    raw: str
    record: Any = UNREAD
    faults: list[tuple[str, str]] = field(default_factory=list)
    patients: tuple[str, ...] = ()
    full_name: str = ""
    distinct: bool | None = False

    def decoded(self) -> Any:
        """What the text says, with every number as it was sent; None, and one of `faults`, where it says nothing."""
        if self.record is UNREAD:
            try:
                self.record = DECODER.decode(self.raw)
            except json.JSONDecodeError as error:
                self.record = None
                self.faults.append(("", f"it is not JSON: {error.msg}"))
            except RecursionError:
                self.record = None
                self.faults.append(("", "it is nested too deeply"))
        return self.record


def is_utf8(raw: str) -> bool:
    """Whether the text came from bytes that are UTF-8."""
    return not SURROGATE.search(raw)


SURROGATE = re.compile("[\ud800-\udfff]")
