"""All formats of input. To add one, write its module and name it here."""

from __future__ import annotations

from myhealth.intake.formats.fhir.reader import FHIR
from myhealth.intake.formats.format import Format
from myhealth.intake.formats.hl7v2.reader import HL7
from myhealth.intake.formats.json_list import LIST
from myhealth.intake.formats.json_object import OBJECT
from myhealth.intake.formats.machine_memory import MEMORY
from myhealth.intake.formats.ndjson import NDJSON
from myhealth.intake.formats.tables.reader import CSV

# In this order they are asked whether they know a source: the particular ones before the general ones.
FORMATS: list[Format] = [
    HL7,
    FHIR,
    LIST,
    MEMORY,
    OBJECT,
    NDJSON,
    CSV,
]


def format_names() -> list[str]:
    return [each.name for each in FORMATS]


def get_format(name: str) -> Format:
    """Return the format of this name; for any other name (as of a rejection from before it was stored) OBJECT."""
    return next((each for each in FORMATS if each.name == name), OBJECT)
