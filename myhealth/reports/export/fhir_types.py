"""Parts of a report as FHIR's data types: what is stored goes out valid, whatever another program wrote there. Pure.

Each function returns an element without empty parts, or an empty one. Source: HL7 FHIR R4 (4.0.1), "Data Types".
"""

import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from myhealth.clinical.coding_systems import UCUM, uri_of
from myhealth.clinical.ucum import is_ucum

Element = dict[str, Any]
CODE_PATTERN = re.compile(r"\S+(?: \S+)*")
URI_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")  # absolute, as FHIR requires
CONTROL_PATTERN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # not allowed in FHIR's strings
IDENTIFIER_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"
DATE_TIME_PATTERN = re.compile(
    r"[0-9]{4}(?:-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12][0-9]|3[01])"
    r"(?:T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9]|[+-]14:00))?)?)?"
)
TIME_PATTERN = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]+)?")


def compact(**parts: Any) -> Element:
    """Return the parts that are not empty. FHIR has no empty elements."""
    return {name.rstrip("_"): value for name, value in parts.items() if value not in (None, "", [], {})}


def clean(value: Any) -> str:
    """Return the stripped text, "" for anything else."""
    return without_controls(value.strip()) if isinstance(value, str) else ""


def without_controls(text: str) -> str:
    return CONTROL_PATTERN.sub("\ufffd", text)


def parts(value: Any) -> list[Any]:
    """Return the entries of a list that are objects or texts, none for anything else."""
    return [each for each in value if isinstance(each, (dict, str))] if isinstance(value, list) else []


def code(value: Any) -> str:
    return found if CODE_PATTERN.fullmatch(found := clean(value)) else ""


def uri(value: Any) -> str:
    return found if URI_PATTERN.fullmatch(found := clean(value)) else ""


def date_time(value: Any) -> str:
    """Return a moment as it was sent, if it is one of FHIR's."""
    return found if DATE_TIME_PATTERN.fullmatch(found := clean(value)) else ""


def coding_element(value: Any) -> Element:
    """Return a Coding; a system by a name of HL7 v2 gets its URI."""
    if not isinstance(value, dict):
        return {}
    system = clean(value.get("system"))
    return compact(
        system=uri(system) or uri(uri_of(system)),
        version=clean(value.get("version")),
        code=code(value.get("code")),
        display=clean(value.get("display")),
    )


def coding_elements(value: Any) -> list[Element]:
    return [found for each in parts(value) if (found := coding_element(each))]


def concept_element(value: Any) -> Element:
    if not isinstance(value, dict):
        return compact(text=clean(value))
    return compact(coding=coding_elements(value.get("codings")), text=clean(value.get("text")))


def concept_elements(value: Any) -> list[Element]:
    return [found for each in parts(value) if (found := concept_element(each))]


def identifier_elements(value: Any) -> list[Element]:
    found = []
    for each in parts(value):
        if isinstance(each, dict) and clean(each.get("value")):
            kind = code(each.get("type"))
            type_ = {"coding": [{"system": IDENTIFIER_TYPES, "code": kind}]} if kind else {}
            found.append(compact(type=type_, system=system_of(each.get("system")), value=clean(each["value"])))
    return found


def system_of(value: Any) -> str:
    return uri(value) or uri(uri_of(clean(value)))


def is_finite_number(value: Any) -> bool:
    if isinstance(value, Decimal):
        return value.is_finite()
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def quantity(number: Any, unit: Any, text: Any = None, unit_coding: Any = None) -> Element:
    """Return a number with its unit: as it was sent, and coded if it is UCUM or was coded otherwise."""
    unit = clean(unit)
    coded: Element = {"system": UCUM, "code": unit} if is_ucum(unit) else {}
    if isinstance(unit_coding, dict):
        coded = compact(system=uri(unit_coding.get("system")), code=code(unit_coding.get("code")))
    return compact(unit=clean(text) or unit, **coded) | ({"value": number} if is_finite_number(number) else {})


def stored_quantity(value: Any) -> Element:
    """Return a Quantity that is a part of a value."""
    if not isinstance(value, dict):
        return {}
    found = quantity(*(value.get(name) for name in ("value", "unit", "unit_text", "unit_coding")))
    comparator = value.get("comparator")
    return found | ({"comparator": comparator} if comparator in ("<", "<=", ">", ">=") else {})


def notes(value: Any) -> list[Element]:
    found = []
    for each in parts(value):
        if isinstance(each, dict) and clean(each.get("text")):
            found.append(
                compact(
                    authorString=clean(each.get("author")), time=date_time(each.get("at")), text=clean(each["text"])
                )
            )
    return found


def party(value: Any) -> Element:
    """Return a Reference to a person or an organisation. A relative address of the source's means nothing here."""
    if not isinstance(value, dict):
        return compact(display=clean(value))
    return compact(
        reference=uri(value.get("reference")),
        type=code(value.get("kind")),
        identifier=next(iter(identifier_elements(value.get("identifiers"))), None),
        display=clean(value.get("name")) or clean(value.get("reference")),
    )


def has_role(value: Any) -> bool:
    """Return whether a party interpreted the results, rather than produced them."""
    return isinstance(value, dict) and value.get("role") == "resultsInterpreter"


def instant(value: Any, offset: Any = None) -> str:
    """Return an instant, in the zone that is so many minutes east of UTC; "" if it is none."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return ""
    if not isinstance(value, datetime) or value.tzinfo is None:
        return ""
    if isinstance(offset, int) and abs(offset) < 14 * 60:
        value = value.astimezone(timezone(timedelta(minutes=offset)))
    found: str = value.isoformat(timespec="milliseconds" if value.microsecond else "seconds")
    return found.replace("+00:00", "Z")


def moment(value: Any, precision: Any, offset: Any = None) -> str:
    """Return a moment with only the precision that is known; "" if it is not known at all."""
    found = "" if precision == "unknown" else instant(value, None if precision else offset)
    return found[: {"year": 4, "month": 7, "day": 10}.get(precision or "", 40)]


def effective(source: Element, offset: Any = None) -> Element:
    """Return effectiveDateTime or effectivePeriod of a check-up or a result; {} if its moment is not known."""
    precision = source.get("taken_precision")
    start, end = (moment(source.get(name), precision, offset) for name in ("taken_at", "taken_until"))
    if start and end:
        return {"effectivePeriod": {"start": start, "end": end}}
    return compact(effectiveDateTime=start)
