"""The fields of a check-up record and of a result, each declared once.

`validation` accepts and explains by these Structs, and the upload API generates its OpenAPI schemas from them. To add
an optional field, declare it in `CheckupFields` or `Result` with the default None.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import UNSET, Meta

from myhealth.common.exact_numbers import INT_MAX, INT_MIN
from myhealth.intake.parsed_record import UnrepresentableNumber
from myhealth.machines.services import SERIAL_MAX, serial_fault

# Characters. A report is a doctor's text; the whole record must fit in one MongoDB document (16 MiB).
REPORT_MAX = 1_000_000
TEXT_MAX = 500
VALUE_MAX = 10_000
RESULTS_MAX = 2_000

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
    return "" if value is None or is_number(value) else f"must be a number or null, not {_refused_number(value)}"


def value_fault(value: Any) -> str:
    """Return the fault of a result's value. The explanation of a text value is that of any other text."""
    return "" if is_number(value) else f"must be a number or text, not {_refused_number(value)}"


def _refused_number(value: Any) -> str:
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
ReportText = Annotated[str, Meta(max_length=REPORT_MAX, extra_json_schema=NO_NUL_SCHEMA)]
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
# A Struct's own number types would change digits, so numbers are decoded without a type.
Number = Annotated[Any, Meta(extra_json_schema=NUMBER_SCHEMA, extra={"fault": number_fault})]
Value = Annotated[Any, Meta(extra_json_schema=VALUE_SCHEMA, extra={"fault": value_fault, "text_max": VALUE_MAX})]
_Flag = Literal["L", "H", "LL", "HH", "N", "A"]
Flag = Annotated[_Flag, Meta(extra={"values": get_args(_Flag)})]  # msgspec sorts the values of a Literal

# The default of a field where validation distinguishes a field that was not sent from null. None replaces it.
NOT_SENT: Any = UNSET


class Result(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """One measurement. The first seven fields are always stored, null if they were not sent; the others if they hold a
    value: a code of another system than LOINC, why there is no value, the range in words, and what the catalogue
    adds."""

    code: Text | None = NOT_SENT
    name: Annotated[RequiredText, Meta(extra={"null": "is missing"})]
    value: Value
    unit: Text | None = NOT_SENT
    low: Number = NOT_SENT
    high: Number = NOT_SENT
    flag: Flag | None = NOT_SENT
    code_system: Text | None = None
    other_code: Text | None = None
    absent_reason: Text | None = None
    range_text: Text | None = None
    range_source: Text | None = None
    warning: Text | None = None


class CheckupFields(msgspec.Struct, gc=False):
    """The fields that a record has both as it is sent and as it is stored."""

    checkup_for: RequiredText
    checkup_type: RequiredText
    checkup_report: ReportText
    disease: Text
    machine: Serial | None = NOT_SENT
    taken_by: Text | None = NOT_SENT
    taken_at: Moment | None = NOT_SENT


class SentRecord(CheckupFields, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A record as a machine sends it. `machine`: the serial."""

    record_id: RecordId | None = NOT_SENT
    results: Annotated[list[Result], Meta(max_length=RESULTS_MAX)] | None = NOT_SENT


class Record(CheckupFields, gc=False):
    """A record that can be stored. `taken_at` is None if it was not sent. `results` is JSON text. `warnings` are
    (field, message) of values that were accepted but look wrong. `results_as_sent`: their text in the source, if the
    record has no number and they are stored as they came."""

    record_id: str | None = None
    results: str = "[]"
    warnings: list[tuple[str, str]] = []
    results_as_sent: str = ""

    def content(self) -> str:
        """Return everything but the record's number as one text, to compare records and to derive their numbers.

        A field beyond those named here is left out where it is None, so that a new field changes no number.
        """
        taken_at = self.taken_at.isoformat() if self.taken_at else None
        texts = (self.checkup_for, self.machine, self.checkup_type, self.checkup_report, self.disease, self.taken_by)
        more = [[name, value] for name in FURTHER_FIELDS if (value := getattr(self, name)) is not None]
        return encode_json([*texts, taken_at, self.results_as_sent or self.results, *more]).decode()


NUMBERS = ("value", "low", "high")  # the fields of a result that may be numbers
FURTHER_FIELDS = CheckupFields.__struct_fields__[7:]
encode_json = msgspec.json.Encoder(decimal_format="number").encode
