"""Give the results of a record the reference ranges that hold for its patient."""

from datetime import UTC, datetime

from myhealth.clinical.range_choice import age_at, for_person
from myhealth.intake.parsed_record import DECODER
from myhealth.intake.record import Record, encode_json


def fit_to_person(record: Record, sex: str | None = None, birth_date: str | None = None) -> bool:
    """Choose the range of each result by what is known of the patient; return whether any result changed.

    `sex`, `birth_date`: what is stored of the patient; what the source says in `record.patient` comes first. The number
    of a record that has none stays the same: it is derived from `results_as_sent`.
    """
    text = record.results
    if '"range' not in text or ('"ranges"' not in text and '"range_source"' not in text):
        return False
    if record.patient is not None:
        sex, birth_date = record.patient.sex or sex, record.patient.birth_date or birth_date
    age = age_at(birth_date, (record.taken_at or datetime.now(UTC)).date())
    if age is None and record.patient is not None:
        age = record.patient.age
    results = DECODER.decode(text)
    fitted = [for_person(result, sex, age) for result in results]
    if fitted != results:
        record.results = encode_json(fitted).decode()
    return record.results is not text
