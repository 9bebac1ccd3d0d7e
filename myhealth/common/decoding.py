"""Types that msgspec checks and decodes, with their bounds and JSON Schemas; numbers that keep the digits with which
they were written; and msgspec's messages in plain words."""

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec import Meta

# The range of BSON's and PostgreSQL's 64-bit integers.
INT_MIN, INT_MAX = -(2**63), 2**63 - 1


def exact_number(text: str) -> float | Decimal:
    """Parse a JSON number exactly: 5.1 as a float, 5.10 as a Decimal, because the float would print as 5.1.

    Raises ValueError or decimal.InvalidOperation if the text is not a number.
    """
    value = float(text)
    return value if repr(value) == text else Decimal(text)


def whole_number(value: object) -> object:
    """Return a number such as 3.0 as the integer that it is in JSON Schema, and anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Integer = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
# Schemas of datetimes without a `tz` constraint have no format.
StoredMoment = Annotated[datetime, Meta(extra_json_schema={"format": "date-time"})]


KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "object": "an object"}


def prepare(*types: Any) -> None:
    """Have msgspec work out types of ours. Call it where they are defined, so while their module is imported.

    Otherwise it works a type out when it first needs it, and two threads that do so at once crash the process (seen
    with msgspec 0.22).
    """
    for each in types:
        msgspec.json.Decoder(each)


def plain(error: Exception) -> str:
    """Return msgspec's message of a wrong value, or of a wrong form, in words of the field."""
    text, _, place = str(error).partition(" - at ")
    field = place.strip("`").removeprefix("$.")
    text = re.sub("^Invalid enum .*", "it is not one of the allowed values", text).replace(", got", ", not")
    text = re.sub("^Expected ", f"{field or 'it'} must be ", text)
    return re.sub(r"`(\w+)( \| null)?`", lambda found: KINDS.get(found[1], found[1]), text)
