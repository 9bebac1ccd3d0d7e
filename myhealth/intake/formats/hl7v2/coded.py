"""Read the coded fields, numbers, people and organisations of HL7 v2 (CE, CWE, CX, EI, HD, XCN, XON, XPN).

The results for short fields are cached, because the same codes come in every message. Treat them as constant. Source:
HL7 v2.8, chapter 2.A, and table 0396 (coding systems).
"""

import re
from typing import Any

from myhealth.clinical.catalog import name_of
from myhealth.clinical.coding_systems import LOINC, LOINC_CODE, is_loinc, uri_of
from myhealth.intake.formats.hl7v2.encoding import Encoding, cached
from myhealth.intake.formats.hl7v2.segments import Fields
from myhealth.intake.record_types import LIST_MAX, TEXT_MAX

Facts = dict[str, Any]
# Coding systems of table 0396 whose codes may look like LOINC; L and 99… are local ones.
OTHER_SYSTEM = re.compile(
    r"L|99.*|LB|LCL|LOCAL|SCT|SNM|SNM3|SRT|SNOMED.*|C4|CPT.*|I9.*|I10.*|MDC|NPU|HL7.*|ICD.*|AS4E?|NCID"
)
UNIVERSAL = {"ISO": "urn:oid:", "UUID": "urn:uuid:", "GUID": "urn:uuid:", "URI": "", "URL": ""}
OID = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]*)){2,}")


def without_empty(**facts: Any) -> Facts:
    """Return the facts that are there, with texts not longer than a field may be."""
    return {name: fact[:TEXT_MAX] if type(fact) is str else fact for name, fact in facts.items() if fact}


@cached
def parse_code(text: str, encoding: Encoding) -> Facts:
    """Return `code` if a coded field has a LOINC code, first or alternate; else `other_code` and `code_system`."""
    coded = encoding.parts(text, 6)
    pairs = [(coded[0], coded[2]), (coded[3], coded[5])]
    for code, system in pairs:
        if LOINC_CODE.fullmatch(code) and uri_of(system) == LOINC:  # WBC^White cells^LN is not one
            return {"code": code}
    for code, system in pairs:
        if is_loinc(code) and not OTHER_SYSTEM.fullmatch(system.upper()):
            return {"code": code}
    code, system = next((pair for pair in pairs if pair[0]), ("", ""))
    found: Facts = {"code": None}
    return found | ({"other_code": code} if code else {}) | ({"code_system": system} if code and system else {})


@cached
def coded_text(text: str, encoding: Encoding) -> str:
    """Return the words of a coded field: its text, its original or alternate text; "" if it has only codes."""
    coded = encoding.parts(text, 9)
    return next((words for words in (coded[1], coded[8], coded[4]) if words), "")


@cached
def label_of(text: str, encoding: Encoding) -> str:
    """Return the words of a coded field, else its code."""
    coded = encoding.parts(text, 4)
    return coded_text(text, encoding) or coded[0] or coded[3]


@cached
def name_of_coded(text: str, encoding: Encoding) -> str:
    """Return the words of a coded field, else the catalogue's name of its code, else the code."""
    code = parse_code(text, encoding)["code"]
    return coded_text(text, encoding) or name_of(code) or label_of(text, encoding)


@cached
def codings_of(text: str, encoding: Encoding) -> list[Facts]:
    """Return the codes of a coded field with their systems as URIs: the first, the alternate, the second alternate."""
    coded = encoding.parts(text, 13)
    loinc = parse_code(text, encoding)["code"]
    found = []
    for at, version in ((0, 6), (3, 7), (9, 12)):
        code, display, system = coded[at : at + 3]
        if code and len(code) <= TEXT_MAX:
            uri = LOINC if code == loinc and not OTHER_SYSTEM.fullmatch(system.upper()) else uri_of(system)
            found.append(without_empty(system=uri, code=code, display=display, version=coded[version]))
    return found


@cached
def concept_of(text: str, encoding: Encoding) -> Facts | str | None:
    """Return a coded field as words with codes, or as words alone; None if it is empty."""
    codings, words = codings_of(text, encoding), coded_text(text, encoding)[:TEXT_MAX]
    if not codings:
        return words or None
    original = encoding.parts(text, 9)[8] or ("" if codings[0].get("display") else words)
    return without_empty(text=original, codings=codings)


def field_concept(segment: Fields, field: int) -> Facts | str | None:
    """Return the first repetition of a coded field as `concept_of` does."""
    return concept_of(segment.first(field), segment.encoding)


def field_concepts(segment: Fields, field: int) -> list[Any]:
    """Return the repetitions of a coded field as `concept_of` does."""
    found = (concept_of(each, segment.encoding) for each in segment.repetitions(field)[:LIST_MAX])
    return [each for each in found if each]


@cached
def authority_of(text: str, encoding: Encoding) -> str:
    """Return the authority of a number (HD, whose parts are subcomponents): its universal id as a URI, else its name.

    Worked examples: "HOSP_A" is HOSP_A, "HOSP&1.2.3&ISO" and "1.2.3" urn:oid:1.2.3, "&hosp.example&DNS" hosp.example.
    """
    name, universal, kind = ([encoding.plain(each).strip() for each in encoding.subcomponents(text)] + ["", "", ""])[:3]
    if universal and kind.upper() in UNIVERSAL:
        prefix = UNIVERSAL[kind.upper()]
        return universal if universal.lower().startswith(prefix or "urn:") else prefix + universal
    named = name or universal
    return f"urn:oid:{named}" if OID.fullmatch(named) else named


def identifier_of(text: str, encoding: Encoding, **facts: str) -> Facts | None:
    """Return a number (EI) with its authority and further facts; None if it is empty."""
    parts = [*encoding.components(text), "", "", "", ""]
    value = encoding.unquoted(parts[0])
    if not value or len(value) > TEXT_MAX:
        return None
    sub = encoding.subcomponent or "&"
    return without_empty(value=value, system=authority_of(sub.join(parts[1:4]), encoding), **facts)


def field_identifiers(segment: Fields, field: int, **facts: str) -> list[Facts]:
    found = [identifier_of(each, segment.encoding, **facts) for each in segment.repetitions(field)[:LIST_MAX]]
    return [each for each in found if each]


def person_of(text: str, encoding: Encoding, family: int) -> tuple[str, str]:
    """Return (name, number) of a person. `family`: the index of the component with the family name (XPN: 0; XCN: 1)."""
    parts = encoding.components(text)
    inner = encoding.subcomponents(parts[0])
    if family and len(inner) > 1:  # NDL: the first component has the whole person
        parts = inner
    parts = [*parts, "", "", ""]
    names = (encoding.unquoted(encoding.subcomponents(parts[at])[0]) for at in (family + 1, family))
    return " ".join(filter(None, names)), encoding.plain(parts[0]).strip() if family else ""


@cached
def practitioner_of(text: str, encoding: Encoding) -> Facts | None:
    """Return a person with a number (XCN, NDL) as a performer; None if it is empty."""
    name, number = person_of(text, encoding, 1)
    return _party("Practitioner", name, "" if number == '""' else number) if name or number else None


@cached
def organization_of(text: str, encoding: Encoding) -> Facts | None:
    """Return an organisation (XON; a CE of table 0396 too) as a performer; None if it is empty.

    Its number: the tenth component of an XON, or the code of a CE, whose words are the name.
    """
    parts = encoding.parts(text, 10)
    name, number = (parts[1], parts[0]) if parts[1] and parts[2] else (parts[0] or parts[1], parts[9])
    return _party("Organization", name, number) if name else None


def _party(kind: str, name: str, number: str) -> Facts:
    numbers = [{"value": number}] if number and len(number) <= TEXT_MAX else None
    return without_empty(name=name, kind=kind, identifiers=numbers)
