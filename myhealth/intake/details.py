"""The further facts of a check-up and of its results, as Structs; each is optional and left out where it is absent.

The names follow FHIR R4 (DiagnosticReport, Observation) in snake case. A text may stand for a coded text without codes.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from myhealth.clinical.status import ResultStatus
from myhealth.intake.record_types import (
    LIST_MAX,
    NO_NUL_SCHEMA,
    NOT_BLANK,
    RESULTS_MAX,
    VALUE_MAX,
    LongText,
    Moment,
    Number,
    RequiredText,
    Text,
)
from myhealth.profiles.person import BIRTH_DATE, birth_date_fault

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
