"""The fields of a check-up record and of a result, each declared once.

`validation` accepts and explains by these Structs, and the upload API generates its OpenAPI schemas from them. To add
an optional field, declare it in `CheckupFields` or `Result` with the default None.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal, Self, get_args

import msgspec
from msgspec import UNSET, Meta
from msgspec.structs import astuple, replace

from myhealth.clinical.status import WITHDRAWN, ReportStatus, ResultStatus
from myhealth.common.decoding import prepare
from myhealth.common.text import fold_name
from myhealth.intake.parsed_record import parse_float
from myhealth.intake.record_types import (
    LIST_MAX,
    RESULTS_MAX,
    CheckupDetails,
    Coding,
    Codings,
    Concept,
    Concepts,
    Device,
    Identifiers,
    Interpretation,
    LongText,
    Moment,
    MomentText,
    Notes,
    Number,
    Parties,
    Patient,
    Period,
    Precision,
    QuantityRange,
    Ratio,
    RecordId,
    ReferenceRange,
    RequiredText,
    Samples,
    Serial,
    Specimen,
    Text,
    Value,
)

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
    flag_source: Text | None = None
    warning: Text | None = None


class DetailedResult(Result):
    """A result with further facts, each left out where the source has none.

    `number`: unique in its check-up, through corrections; without one, a result's position from 1. `sub_id`: the
    source's number of the result within its order. `group`: the name of the panel that contains it. `value_type`:
    FHIR's type of the value where `value` does not tell it. `unit_coding`: the unit's code in another system than UCUM.
    `absent_code`: of FHIR's data-absent-reason; `absent_coded`: the reason as sent, if it has other codes.
    `updated_at`: when the source changed it; `version`: its version there, where that is not its check-up's.
    `corrected_at`, `previous_value`, `previous_unit`: of the version before.
    """

    number: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    sub_id: Text | None = None
    taken_at: Moment | None = None
    taken_precision: Precision | None = None
    taken_until: Moment | None = None
    issued_at: Moment | None = None
    status: ResultStatus | None = None
    codings: Codings | None = None
    category: Concepts | None = None
    value_type: Literal["integer", "string"] | None = None
    value_coded: Concept | None = None
    value_boolean: bool | None = None
    value_ratio: Ratio | None = None
    value_range: QuantityRange | None = None
    value_moment: MomentText | None = None
    value_period: Period | None = None
    value_samples: Samples | None = None
    unit_text: Text | None = None
    unit_coding: Coding | None = None
    ranges: Annotated[list[ReferenceRange], Meta(max_length=LIST_MAX)] | None = None
    interpretations: Annotated[list[Interpretation], Meta(max_length=LIST_MAX)] | None = None
    specimen: Specimen | Text | None = None
    method: Concept | None = None
    body_site: Concept | None = None
    device: Device | Text | None = None
    performers: Parties | None = None
    notes: Notes | None = None
    absent_code: Text | None = None
    absent_coded: Concept | None = None
    identifiers: Identifiers | None = None
    group: Text | None = None
    updated_at: MomentText | None = None
    version: Text | None = None
    corrected_at: MomentText | None = None
    previous_value: Value = None
    previous_unit: Text | None = None


class CheckupFields(msgspec.Struct, gc=False):
    """The fields that a record has both as it is sent and as it is stored."""

    checkup_for: RequiredText
    checkup_type: RequiredText
    checkup_report: LongText
    disease: Text
    machine: Serial | None = NOT_SENT
    taken_by: Text | None = NOT_SENT
    taken_at: Moment | None = NOT_SENT


class SentRecord(CheckupFields, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A record as a machine sends it. `machine`: the serial."""

    record_id: RecordId | None = NOT_SENT
    results: Annotated[list[Result], Meta(max_length=RESULTS_MAX)] | None = NOT_SENT


class DetailedRecord(SentRecord, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A record with further facts. `taken_offset`: minutes east of UTC as sent. `sent`: what the source contains and no
    field holds."""

    results: Annotated[list[DetailedResult], Meta(max_length=RESULTS_MAX)] | None = NOT_SENT  # type: ignore[assignment]
    patient: Patient | None = None
    status: ReportStatus | None = None
    taken_precision: Precision | None = None
    taken_offset: Annotated[int, Meta(ge=-14 * 60, le=14 * 60)] | None = None
    taken_until: Moment | None = None
    issued_at: Moment | None = None
    details: CheckupDetails | None = None
    sent: dict[str, Any] | None = None


class Record(msgspec.Struct, gc=False):
    """A record that can be stored: the columns of a check-up, and further facts. `taken_at` is None if it was not sent.
    `results` is JSON text; `details` and `sent` are too, or None. `warnings`: (field, message) or (field, message,
    code) of values that were accepted but look wrong. `results_as_sent`: the results as the source sent them, if the
    record has no number and they are stored otherwise or words in them were read. `results_text`: the results with the
    blanks of the source, from which earlier releases derived the number, if these differ. `all_results`: also those
    that others of the record replace, if there are any."""

    record_id: str | None
    checkup_type: str
    checkup_report: str
    disease: str
    taken_by: str | None
    taken_at: datetime | None
    results: str
    status: str | None = None
    taken_precision: str | None = None
    taken_offset: int | None = None
    taken_until: datetime | None = None
    issued_at: datetime | None = None
    details: str | None = None
    sent: str | None = None
    checkup_for: str = ""
    machine: str | None = None
    warnings: list[tuple[str, ...]] = []
    results_as_sent: str = ""
    results_text: str = ""
    patient: Patient | None = None
    all_results: str = ""

    def columns(self) -> tuple[Any, ...]:
        """Return the values of RECORD_NAMES, in their order."""
        return astuple(self)[:COLUMN_COUNT]

    def content(self) -> str:
        """Return everything but the record's number as one text, to compare records and to derive their numbers.

        A field beyond those named here is left out where it is None, so that a new field changes no number.
        """
        taken_at = self.taken_at.isoformat() if self.taken_at else None
        texts = (self.checkup_for, self.machine, self.checkup_type, self.checkup_report, self.disease, self.taken_by)
        more = [[name, value] for name in FURTHER_FIELDS if (value := getattr(self, name)) is not None]
        return encode_json([*texts, taken_at, self.results_as_sent or self.results, *more]).decode()

    def identity(self, patient: str) -> str:
        """Return the content from which the number of a record without one is derived. `patient`: whose record it is.

        It does not change when the source withdraws the record, or writes its patient's name, its zone or the blanks in
        its results differently, the names of tests, units and the machine in other letters, the tests in another order.
        """
        made = self._before_withdrawal()
        results = decode_json(made.results_as_sent or made.results)
        for each in results:
            each["name"], each["unit"] = _fold(each["name"]), _fold(each.pop("unit_text", None) or each["unit"] or "")
        if len(results) > 1:
            results.sort(key=lambda each: str((each["code"], each.get("other_code"), each["name"], each["unit"])))
        text = encode_json(results).decode()
        report = "\n".join(sorted(made.checkup_report.splitlines()))
        kind, machine = _fold(made.checkup_type), made.machine and made.machine.lower()
        made = replace(made, checkup_type=kind, checkup_report=report, results_as_sent=text, machine=machine)
        return f"in any order {made.identity_by_order(patient)}"

    def identity_by_order(self, patient: str) -> str:
        """Return the content from which earlier releases derived the number of a record without one."""
        name, moment = fold_name(patient.strip()), self.taken_at and self.taken_at.astimezone(UTC)
        return replace(self._before_withdrawal(), checkup_for=name, taken_at=moment).content()

    def former_identity(self) -> str:
        """Return the content from which still earlier releases derived the number of a record without one."""
        return replace(self, results_as_sent=self.results_text or self.results_as_sent)._before_withdrawal().content()

    def _before_withdrawal(self) -> Self:
        if self.status != WITHDRAWN and WITHDRAWN not in self.results:
            return self
        texts = [text.replace(f'"status":"{WITHDRAWN}",', "") for text in (self.results, self.results_as_sent)]
        status = None if self.status == WITHDRAWN else self.status
        return replace(self, status=status, results=texts[0], results_as_sent=texts[1])


@lru_cache(maxsize=4096)
def _fold(name: str) -> str:
    """Return the name of a test or a unit as it is compared: without case, with one blank for blanks and underscores.
    The rule must not change: a record that is stored would be stored again."""
    return " ".join(fold_name(name).replace("_", " ").split())


# The columns that only a DetailedRecord fills.
DETAIL_COLUMNS = DetailedRecord.__struct_fields__[DetailedRecord.__struct_fields__.index("patient") + 1 :]
NUMBERS = ("value", "low", "high")  # the fields of a result that may be numbers
FURTHER_FIELDS = ("patient", *DETAIL_COLUMNS)
COLUMN_COUNT = Record.__struct_fields__.index("checkup_for")
encode_json = msgspec.json.Encoder(decimal_format="number").encode
decode_json = msgspec.json.Decoder(float_hook=parse_float).decode  # of what is stored: quicker than DECODER
prepare(SentRecord, DetailedRecord)


def warn_of_withdrawn(record: Record) -> None:
    """Add a warning of what the source withdrew. A record whose every result is withdrawn is withdrawn itself."""
    results = decode_json(record.results)
    count = sum(isinstance(each, dict) and each.get("status") == WITHDRAWN for each in results)
    if count and count == len(results):
        record.status = WITHDRAWN
    if record.status == WITHDRAWN:
        record.warnings.append(("status", "withdrawn by its source: it is not shown", "withdrawn"))
    elif count:
        record.warnings.append(("results", f"{count} withdrawn by the source: not shown", "withdrawn"))
