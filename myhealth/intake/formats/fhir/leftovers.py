"""Keep the parts of a record's resources that no field holds: references to orders and encounters, extensions.

A part that is too long is left out, with a warning. Narratives repeat the rest, and attached files may be large, so
neither is kept.
"""

from typing import Any

from myhealth.common.text import UNSTORABLE
from myhealth.intake.formats.fhir.element import Element
from myhealth.intake.formats.fhir.grouping import FhirGroup
from myhealth.intake.parsed_record import DuplicateKeyDict, UnrepresentableNumber
from myhealth.intake.record import encode_json

TOO_LONG = "contains too much besides its result: that was not kept"
SENT_MAX = 64 * 1024  # characters of all that a record keeps
READ = frozenset(
    (
        *("resourceType", "id", "text", "contained", "identifier", "status", "category", "code", "subject"),
        *("effectiveDateTime", "effectiveInstant", "effectivePeriod", "issued", "performer", "resultsInterpreter"),
        *("result", "dataAbsentReason", "interpretation", "note", "comment", "comments", "bodySite", "method"),
        *("specimen", "device", "referenceRange", "hasMember", "component"),
        *("conclusion", "conclusionCode", "codedDiagnosis"),
    )
)


def sent_of(group: FhirGroup) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return what a group's resources contain beyond the record, and a warning for each resource with too much of it.

    `resource`: of the head. `results`: of the other results, by position. `missing`: the results that are not here.
    """
    budget, too_long = SENT_MAX, list[tuple[str, str]]()
    found: dict[str, Any] = {"missing": [each for each in group.elsewhere if each]} if any(group.elsewhere) else {}
    results = enumerate(group.observations, 1)
    parts = [("", group.head, group.top)]
    parts += [(str(i), entry, part) for i, (entry, part) in results if entry is not group.head]
    for number, entry, part in parts:
        rest = _rest(part)
        size = len(encode_json(rest)) if rest else 0
        if size and size <= budget:
            budget -= size
            if number:
                found.setdefault("results", {})[number] = rest
            else:
                found["resource"] = rest
        elif size:
            too_long.append((entry.kind, TOO_LONG))
    return found, too_long


def _rest(part: Element) -> dict[str, Any]:
    rest = {}
    for name, value in part.data.items():
        if name in READ:
            continue
        if name == "meta" and isinstance(value, dict):
            value = {each: kept for each, kept in value.items() if each not in ("versionId", "lastUpdated")}
        elif name == "presentedForm" and isinstance(value, list):
            value = [_without_data(each) for each in value]
        elif name.startswith(("value", "_value")):
            continue
        if value and UNSTORABLE.search(name) is None and _is_storable(value):
            rest[name] = value
    return rest


def _without_data(form: Any) -> Any:
    return {name: value for name, value in form.items() if name != "data"} if isinstance(form, dict) else form


def _is_storable(value: Any) -> bool:
    if isinstance(value, (UnrepresentableNumber, DuplicateKeyDict)):
        return False
    if isinstance(value, str):
        return not UNSTORABLE.search(value)
    if isinstance(value, dict):
        return all(not UNSTORABLE.search(name) and _is_storable(each) for name, each in value.items())
    return all(map(_is_storable, value)) if isinstance(value, list) else True
