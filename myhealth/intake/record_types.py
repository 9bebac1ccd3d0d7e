"""The types of the fields of a record: their limits, their schemas, the checks that a type cannot express, and Structs.

The Structs are the further facts of a check-up and of its results, each optional and left out where it is absent. Their
names follow FHIR R4 (DiagnosticReport, Observation) in snake case. A text may stand for a coded text without codes.
"""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from myhealth.clinical.status import ResultStatus
from myhealth.common.decoding import INT_MAX, INT_MIN
from myhealth.intake.parsed_record import UnrepresentableNumber
from myhealth.machines.services import SERIAL_MAX, serial_fault
from myhealth.profiles.names import BIRTH_DATE, birth_date_fault

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
    """Return the fault of a result's value, "" if it is valid."""
    if type(value) is str:
        return f"has more than {VALUE_MAX} characters" if len(value) > VALUE_MAX else ""
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


Precision = Literal["day", "month", "year", "unknown"]
Sex = Literal["male", "female", "other", "unknown"]
# A moment with the precision of its source, such as 2026-11, or a time of day.
MomentText = Annotated[str, Meta(max_length=40, min_length=1, extra_json_schema={"pattern": NOT_BLANK})]
NumberText = Annotated[str, Meta(max_length=VALUE_MAX, extra_json_schema=NO_NUL_SCHEMA)]


class Detail(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """A part of a check-up or of a result. All its fields are optional."""


class Coding(Detail):
    """A code in a system, which is a URI; `display`: its words in that system."""

    system: Text | None = None
    code: Text | None = None
    display: Text | None = None
    version: Text | None = None


class CodedText(Detail):
    """Words with their codes."""

    text: Text | None = None
    codings: Annotated[list[Coding], Meta(max_length=LIST_MAX)] | None = None


Concept = CodedText | Text


class Identifier(Detail):
    """A number and the system (a URI, or the name of an authority) that gave it. `type`: a code of HL7 table 0203."""

    value: RequiredText
    system: Text | None = None
    type: Text | None = None


class Quantity(Detail):
    """A number with its unit. `unit`: UCUM where it is known; `unit_text`: as sent; `unit_coding`: its code in another
    system; `comparator`: <, <=, > or >=."""

    value: Number = None
    comparator: Literal["<", "<=", ">=", ">", "~", "<>"] | None = None
    unit: Text | None = None
    unit_text: Text | None = None
    unit_coding: Coding | None = None


class Ratio(Detail):
    """A ratio such as a titre of 1:128."""

    numerator: Quantity | None = None
    denominator: Quantity | None = None


class QuantityRange(Detail):
    """A value that is a range."""

    low: Quantity | None = None
    high: Quantity | None = None


class Period(Detail):
    """A value that is a period."""

    start: MomentText | None = None
    end: MomentText | None = None


class Samples(Detail):
    """A series of samples, as FHIR's SampledData. `period`: milliseconds between two; `data`: numbers and blanks."""

    origin: Quantity | None = None
    period: Number = None
    factor: Number = None
    lower: Number = None
    upper: Number = None
    dimensions: int | None = None
    data: NumberText | None = None


class ReferenceRange(Detail):
    """A reference range and the condition under which it holds. `low`, `high`: both belong to the range, either may be
    open. `unit`: where it is not the result's. `type`: normal, treatment and the like. `sex_coded`: `sex` as sent, if
    it was not FHIR's own code. `age_low`, `age_high`: in `age_unit`, years ("a") by default;
    `age_low_unit`: of the former, where it is another."""

    low: Number = None
    high: Number = None
    unit: Text | None = None
    unit_text: Text | None = None
    text: Text | None = None
    type: Concept | None = None
    sex: Sex | None = None
    sex_coded: Concept | None = None
    age_low: Number = None
    age_high: Number = None
    age_unit: Text | None = None
    age_low_unit: Text | None = None
    applies_to: Annotated[list[Concept], Meta(max_length=LIST_MAX)] | None = None


class Interpretation(Coding):
    """How the source interprets a result, such as H of HL7's ObservationInterpretation. `text`: in its own words."""

    text: Text | None = None


class Party(Detail):
    """A person or an organisation. `kind`: the FHIR resource type; `reference`: as sent; `role`: resultsInterpreter and
    the like, where it is not simply the performer."""

    name: Text | None = None
    kind: Text | None = None
    role: Text | None = None
    reference: Text | None = None
    identifiers: Annotated[list[Identifier], Meta(max_length=LIST_MAX)] | None = None


class Note(Detail):
    """A note with its author and its moment, as far as they are known."""

    text: LongText
    author: Text | None = None
    at: MomentText | None = None


class Specimen(CodedText):
    """A specimen: its type in words and codes, when and where it was taken, its numbers."""

    collected_at: MomentText | None = None
    body_site: Concept | None = None
    identifiers: Annotated[list[Identifier], Meta(max_length=LIST_MAX)] | None = None
    notes: Annotated[list[Note], Meta(max_length=LIST_MAX)] | None = None


class Device(CodedText):
    """A device that measured: its type or name, and its numbers."""

    identifiers: Annotated[list[Identifier], Meta(max_length=LIST_MAX)] | None = None


Parties = Annotated[list[Party | Text], Meta(max_length=LIST_MAX)]
Notes = Annotated[list[Note], Meta(max_length=LIST_MAX)]
Concepts = Annotated[list[Concept], Meta(max_length=LIST_MAX)]
Codings = Annotated[list[Coding], Meta(max_length=LIST_MAX)]
Identifiers = Annotated[list[Identifier], Meta(max_length=LIST_MAX)]


class Panel(Detail):
    """The facts of a group of results as a whole. Its results, and panels within it, have its `name` as their `group`.

    `components`: the results are parts of one measurement. `valued`: the first of them is the value of the whole.
    """

    name: RequiredText
    group: Text | None = None
    components: bool = False
    valued: bool = False
    status: ResultStatus | None = None
    taken_at: Moment | None = None
    taken_precision: Precision | None = None
    taken_until: Moment | None = None
    issued_at: Moment | None = None
    sub_id: Text | None = None
    codings: Codings | None = None
    category: Concepts | None = None
    interpretations: Annotated[list[Interpretation], Meta(max_length=LIST_MAX)] | None = None
    specimen: Specimen | Text | None = None
    method: Concept | None = None
    body_site: Concept | None = None
    device: Device | Text | None = None
    performers: Parties | None = None
    notes: Notes | None = None
    identifiers: Identifiers | None = None


class CheckupDetails(Detail):
    """The further facts of a check-up that no column holds. `version`: the source's, such as FHIR's meta.versionId;
    `updated_at`: when the source changed it."""

    performers: Parties | None = None
    category: Concepts | None = None
    codings: Codings | None = None
    conclusion_codes: Concepts | None = None
    notes: Notes | None = None
    clinical_information: LongText | None = None
    reasons: Concepts | None = None
    identifiers: Identifiers | None = None
    specimen: Specimen | Text | None = None
    device: Device | Text | None = None
    panels: Annotated[list[Panel], Meta(max_length=RESULTS_MAX)] | None = None
    version: Text | None = None
    updated_at: MomentText | None = None


BIRTH_DATE_META = Meta(
    max_length=10,
    min_length=4,
    extra_json_schema={"pattern": f"^({BIRTH_DATE.pattern})$"},
    extra={"fault": birth_date_fault},
)


class Patient(Detail):
    """What the source knows of the patient. `birth_date`: YYYY, YYYY-MM or YYYY-MM-DD; `sex`: FHIR's administrative
    gender; `age`: in years at the check-up, used where no birth date is known, and not stored."""

    identifiers: Identifiers | None = None
    name: Text | None = None
    birth_date: Annotated[str, BIRTH_DATE_META] | None = None
    age: Annotated[int, Meta(ge=0, le=150)] | Annotated[float, Meta(ge=0, le=150)] | None = None
    sex: Sex | None = None
