"""The Observations of plain reports, made quickly: those alike but for moments and numbers share a template. Pure.

A template is made by the same code as any other Observation, from numbers that mark their places.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from myhealth.reports.documents import Document
from myhealth.reports.export.fhir_observations import Observations
from myhealth.reports.export.fhir_values import Element, instant

FACTS = ("code", "name", "unit", "low", "high", "flag")
# A result with anything else is not plain, nor is a report with one of these.
KNOWN = frozenset((*FACTS, "value", "range_source", "range_text", "unit_text", "other_code", "code_system"))
FURTHER = frozenset(("details", "status", "taken_precision", "taken_offset", "taken_until", "issued_at"))
SCALARS = frozenset((str, int, float, type(None)))
NUMBERS = (int, float)
TEMPLATES = 1_000  # a few kilobytes each
FIRST_MARK = 10**15
ANY_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)


class Template(NamedTuple):
    """An Observation, the end of its id, and the places of values: (component or -1, the result's place)."""

    observation: Element
    suffix: str
    places: list[tuple[int, int]]


def plain_observations(report: Document, meta: Element) -> list[Element] | None:
    """Return the Observations of a plain report with this `meta`; None for any other report."""
    results, moment = report["results"], report["taken_at"]
    if not report.keys().isdisjoint(FURTHER) or type(results) is not list or type(moment) is not datetime:
        return None
    facts: list[tuple[Any, ...]] = []
    for result in results:
        if type(result) is not dict or not result.keys() <= KNOWN or type(result.get("value")) not in NUMBERS:
            return None
        names, values = (*result,), [*result.values()]
        values[names.index("value")] = None
        kinds = (*map(type, values),)
        if not SCALARS.issuperset(kinds):
            return None
        facts.append((names, (*values,), kinds, repr(values) if float in kinds else ""))  # 0.0 equals -0.0 and 0
    templates = _templates(report["machine"], tuple(facts))
    if templates is None:
        return None
    subject, at = {"reference": f"Patient/{report['subject']}"}, instant(moment)
    return [
        _fill_template(each, results, report, {"meta": meta, "subject": subject, "effectiveDateTime": at})
        for each in templates
    ]


def _fill_template(template: Template, results: list[Element], report: Document, own: Element) -> Element:
    observation, suffix, places = template
    made = {**observation, "id": f"{report['_id']}-{suffix}", **own}
    if "device" in made:
        made["device"] = {**made["device"], "reference": f"Device/{report['_id']}"}
    if "component" in made:
        made["component"] = [{**each} for each in made["component"]]
    for component, place in places:
        part = made if component < 0 else made["component"][component]
        part["valueQuantity"] = {**part["valueQuantity"], "value": results[place]["value"]}
    return made


@lru_cache(maxsize=TEMPLATES)
def _templates(machine: Any, facts: tuple[tuple[Any, ...], ...]) -> list[Template] | None:
    """Return the templates of reports with these facts; None if not every value has one place in them."""
    results = []
    for place, (names, values, *_) in enumerate(facts):
        results.append({**dict(zip(names, values, strict=True)), "value": FIRST_MARK + place})
    observations, _ = Observations({"_id": 0, "machine": machine, "taken_at": ANY_MOMENT}, {}, str).of(results)
    found = []
    for each in observations:
        parts = [(-1, each), *enumerate(each.get("component", ()))]
        marks = ((number, part.get("valueQuantity", {}).get("value", 0)) for number, part in parts)
        places = [(number, mark - FIRST_MARK) for number, mark in marks if mark >= FIRST_MARK]
        made = {"resourceType": "Observation", "id": "", "meta": {}, **each}
        found.append(Template(made, each["id"].partition("-")[2], places))
    return found if sum(len(each.places) for each in found) == len(results) else None
