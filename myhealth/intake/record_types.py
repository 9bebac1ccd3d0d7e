"""The types of the fields of a record: their limits, their schemas, and the checks that a type cannot express."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from msgspec import Meta

from myhealth.common.exact_numbers import INT_MAX, INT_MIN
from myhealth.intake.parsed_record import UnrepresentableNumber
from myhealth.machines.services import SERIAL_MAX, serial_fault

# Characters. A report is a doctor's text; the whole record must fit in one MongoDB document (16 MiB).
REPORT_MAX = 1_000_000
TEXT_MAX = 500
VALUE_MAX = 10_000
RESULTS_MAX = 2_000
LIST_MAX = 200  # entries of a list within a result or a check-up

NO_NUL = r"^[^\x00]*$"
NOT_BLANK = r"^[^\x00]*[^\s\x00][^\x00]*$"
SERIAL_PATTERN = r"^[^\s/\x00-\x1f\x7f-\x9f]([^/\x00-\x1f\x7f-\x9f]*[^\s/\x00-\x1f\x7f-\x9f])?$"
NO_NUL_SCHEMA = {"pattern": NO_NUL}
NUMBER_SCHEMA = {"type": ["number", "null"]}
VALUE_SCHEMA = {"anyOf": [{"type": "number"}, {"type": "string", "maxLength": VALUE_MAX, "pattern": NO_NUL}]}

# A check beyond a field's type: true, or the reason in words, if the value is refused. In a Meta: `extra`.
Fault = Callable[[Any], str | bool]


def is_number(value: Any) -> bool:
    """Return whether a decoded JSON value is a number that can be stored; true and false are not."""
    kind = value.__class__
    return INT_MIN <= value <= INT_MAX if kind is int else kind is float or kind is Decimal


def json_kind(value: Any) -> str:
    """Return the kind of a decoded JSON value in words, such as "a list"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, (int, float, Decimal, UnrepresentableNumber)):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object"


def number_fault(value: Any) -> str:
    return "" if value is None or is_number(value) else f"must be a number or null, not {refused_number(value)}"


def value_fault(value: Any) -> str:
    """Return the fault of a result's value. The explanation of a text value is that of any other text."""
    return "" if is_number(value) else f"must be a number or text, not {refused_number(value)}"


def refused_number(value: Any) -> str:
    """Return the kind of a value that is not a storable number; for a number also the reason."""
    if type(value) is int:
        value = UnrepresentableNumber(str(value))
    if not isinstance(value, UnrepresentableNumber):
        return json_kind(value)
    if value.text in ("NaN", "Infinity", "-Infinity"):
        return value.text
    return f"{value}, which cannot be kept exactly: 64-bit integers can, and 34 digits within a double's range"


Text = Annotated[str, Meta(max_length=TEXT_MAX, extra_json_schema=NO_NUL_SCHEMA)]
# Blank text is refused by `validation`: a pattern of the Struct's own would cost a tenth of the speed.
RequiredText = Annotated[str, Meta(min_length=1, max_length=TEXT_MAX, extra_json_schema={"pattern": NOT_BLANK})]
Serial = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=SERIAL_MAX,
        extra_json_schema={"pattern": SERIAL_PATTERN},
        extra={"fault": serial_fault},
    ),
]
RecordId = RequiredText | Annotated[int, Meta(ge=INT_MIN, le=INT_MAX)]
Moment = Annotated[datetime, Meta(tz=True)]
LongText = Annotated[str, Meta(max_length=REPORT_MAX, extra_json_schema=NO_NUL_SCHEMA)]
# A Struct's own number types would change digits, so numbers are decoded without a type.
Number = Annotated[Any, Meta(extra_json_schema=NUMBER_SCHEMA, extra={"fault": number_fault})]
Value = Annotated[Any, Meta(extra_json_schema=VALUE_SCHEMA, extra={"fault": value_fault, "text_max": VALUE_MAX})]
