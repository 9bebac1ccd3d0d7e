"""What is no examination of a patient in any format, by its names: quality control and calibration. Pure."""

import re
from functools import lru_cache
from typing import Any

CONTROL, CALIBRATION = "quality control", "calibration"
CONTROL_ORDER = re.compile(
    r"(?:.*\b)?(?:qcr?|quality[ -]?control|proficiency (?:test\w*|survey|sample))(?:\b.*)?", re.IGNORECASE
)
# The name of a "patient". A person may be called Control, but not Control Level 2.
CONTROL_NAME = re.compile(
    r"(?:qc|quality[ -]?control|proficiency)(?:[ _-].*)?"
    r"|controls?[ _-]?(?:level|lot|lvl|low|normal|high|abnormal|[0-9]).*",
    re.IGNORECASE,
)
# In place of a patient's number. A patient may have the number QC-10023.
CONTROL_NUMBER = re.compile(
    r"(?:qc|controls?|ctrl)(?:[ _-]?(?:level|lvl|low|normal|high|l))?(?:[ _-]?[0-9]{1,2})?", re.IGNORECASE
)
CALIBRATOR_NAME = re.compile(r"calibrat(?:or|ion)s?(?:[ _-].*)?", re.IGNORECASE)
CALIBRATION_ORDER = re.compile(r".*\bcalibrat(?:ion|or)s?\b.*", re.IGNORECASE)
CONTROL_RESULT = re.compile(
    r"(?:qc|quality control)[ _](?:result|level|lot|file|no|id|mode|type|target|batch).*", re.IGNORECASE
)
CONTROL_SPECIMEN = re.compile(
    r"(?:qc|ctrl|(?:quality[ -]?)?controls?)"
    r"(?:[ _-]?(?:material|specimen|sample|serum|plasma|blood|solution|level|[0-9]).*)?",
    re.IGNORECASE,
)


@lru_cache(maxsize=1024)
def kind_of_name(name: str) -> str:
    """Return what a sample is, such as a control, if its "patient" has this name; "" if the name is a person's."""
    return CONTROL if CONTROL_NAME.fullmatch(name) else CALIBRATION if CALIBRATOR_NAME.fullmatch(name) else ""


def kind_of_number(text: str) -> str:
    """Return what a sample is if its "patient" has this number, or name in place of a number; "" if it is a person."""
    return CONTROL if CONTROL_NUMBER.fullmatch(text) else kind_of_name(text) if " " in text else ""


@lru_cache(maxsize=1024)
def kind_of_examination(label: str) -> str:
    """Return what an order or a report of this name is, if it is not an examination of a patient, else ""."""
    return CONTROL if CONTROL_ORDER.fullmatch(label) else CALIBRATION if CALIBRATION_ORDER.fullmatch(label) else ""


@lru_cache(maxsize=1024)
def kind_of_measurement(label: str) -> str:
    """Return CONTROL if a result of this name is one of quality control, else ""."""
    return CONTROL if CONTROL_RESULT.fullmatch(label) else ""


@lru_cache(maxsize=1024)
def kind_of_specimen(label: str) -> str:
    """Return what a specimen of this name is, if it is not a patient's, else ""."""
    return CONTROL if CONTROL_SPECIMEN.fullmatch(label) else CALIBRATION if CALIBRATOR_NAME.fullmatch(label) else ""


def kind_of_record(record: Any) -> str:
    """Return what a record of our own form is, if nothing in it is of a patient, else ""."""
    name = (record.get("patient") or {}).get("name") or ""
    kind = kind_of_name(name) if name else kind_of_number(str(record.get("checkup_for") or ""))
    results = record.get("results") or ()
    kinds = [kind_of_measurement(each["name"]) or kind_of_specimen(each.get("specimen", "")) for each in results]
    return kind or (kinds[0] if kinds and all(kinds) else "")
