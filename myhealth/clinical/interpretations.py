"""How sources interpret a result: HL7's codes, in words for people, and as our flags. Pure.

Source: HL7 terminology, code system v3-ObservationInterpretation, and HL7 v2 table 0078, its predecessor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

V3_URI = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
V2_URI = "http://terminology.hl7.org/CodeSystem/v2-0078"
SYSTEMS = frozenset(
    {V3_URI, V2_URI, "http://hl7.org/fhir/v3/ObservationInterpretation", "http://hl7.org/fhir/v2/0078"}
    | {"urn:oid:2.16.840.1.113883.5.83", "urn:oid:2.16.840.1.113883.12.78", "2.16.840.1.113883.5.83", "HL70078", "0078"}
)
# Code: (words for people, our flag or None). A change, an intermediate or an indeterminate result is neither normal nor
# abnormal; off the instrument's scale (< and >) tells nothing of the range, so the range decides.
INTERPRETATIONS: dict[str, tuple[str, str | None]] = {
    "N": ("normal", "N"),
    "L": ("low", "L"),
    "H": ("high", "H"),
    "LL": ("critically low", "LL"),
    "HH": ("critically high", "HH"),
    "LU": ("far below normal", "LL"),
    "HU": ("far above normal", "HH"),
    "L<": ("far below normal", "LL"),
    "H>": ("far above normal", "HH"),
    "A": ("abnormal", "A"),
    "AA": ("critically abnormal", "A"),
    "EX": ("outside a threshold", "A"),
    "LX": ("below a threshold", "L"),
    "HX": ("above a threshold", "H"),
    "<": ("below what the instrument can measure", None),
    ">": ("above what the instrument can measure", None),
    "B": ("better than before", None),
    "W": ("worse than before", None),
    "D": ("significantly lower than before", None),
    "U": ("significantly higher than before", None),
    "POS": ("positive", "A"),
    "NEG": ("negative", "N"),
    "DET": ("detected", "A"),
    "ND": ("not detected", "N"),
    "IND": ("indeterminate", None),
    "E": ("equivocal", None),
    "RR": ("reactive", "A"),
    "WR": ("weakly reactive", "A"),
    "NR": ("not reactive", "N"),
    "S": ("susceptible", "N"),
    "SDD": ("susceptible, depending on the dose", None),
    "I": ("intermediate", None),
    "R": ("resistant", "A"),
    "NS": ("not susceptible", "A"),
    "SYN-S": ("synergy: susceptible", "N"),
    "SYN-R": ("synergy: resistant", "A"),
    "MS": ("moderately susceptible", None),
    "VS": ("very susceptible", "N"),
    "NCL": ("no breakpoint is defined", None),
    "EXP": ("expected", None),
    "UNE": ("unexpected", None),
    "CAR": ("carrier", None),
    "AC": ("anti-complementary substances present", None),
    "TOX": ("toxic to the test's cells", None),
    "IE": ("not enough evidence", None),
    "QCF": ("the quality control failed", None),
    "HM": ("held for medical review", None),
    "OBX": ("interpreted in further results", None),
}


def is_known_system(system: str | None) -> bool:
    """Return whether the codes of a system are HL7's; those without a system are taken for them."""
    return not system or system in SYSTEMS


def flag_of(interpretations: Iterable[Mapping[str, Any]]) -> str | None:
    """Return our flag of the first interpretation that has one. Each has `code` and `system`; a laboratory's own A may
    mean anything, so it has none."""
    for each in interpretations:
        known = _known(each)
        if known and known[1]:
            return known[1]
    return None


def words_of(interpretation: Mapping[str, Any]) -> str:
    """Return what an interpretation says to a person: in plain words if the code is HL7's, else in the source's own."""
    known = _known(interpretation)
    own = (interpretation.get(name) for name in ("text", "display", "code"))
    return known[0] if known else next((str(words) for words in own if words), "")


def _known(interpretation: Mapping[str, Any]) -> tuple[str, str | None] | None:
    if not is_known_system(interpretation.get("system")):
        return None
    code = interpretation.get("code") or interpretation.get("text") or ""
    return INTERPRETATIONS.get(str(code).strip().upper())
