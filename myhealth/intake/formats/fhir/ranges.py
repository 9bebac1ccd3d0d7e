"""Read the reference ranges of an Observation, with the conditions under which each holds.

Source: HL7 FHIR R4 (4.0.1), "Observation.referenceRange".
"""

from __future__ import annotations

from typing import Any, NamedTuple

from myhealth.clinical.range_choice import choose_range, sex_named
from myhealth.clinical.range_text import parse_range
from myhealth.intake.formats.fhir.element import Element, codings, compact, concept, words
from myhealth.intake.formats.fhir.quantities import Unit, read_unit, span

GENDER_URI = "http://hl7.org/fhir/administrative-gender"


class Person(NamedTuple):
    """What decides which range holds: sex, and age in years; None if not known."""

    sex: str | None = None
    age: float | None = None


def ranges_of(part: Element, unit: Unit, person: Person) -> dict[str, Any]:
    """Return `low` and `high` of the range that holds for the person, all `ranges` as sent if these two do not tell
    all, and in `range_text` the words of those that are not compared.

    A range in words is compared if it is plain. A range in another unit than the value's is not.
    """
    parts = part.parts("referenceRange")
    ranges = [_read_range(each, unit) for each in parts]
    compared = [_compared(each, unit) for each in ranges]
    best = choose_range([each for each in compared if each is not None], person.sex, person.age)
    chosen = next((i for i, each in enumerate(compared) if each is best), None) if best is not None else None
    low, high = (None, None) if best is None else (best.get("low"), best.get("high"))
    found: dict[str, Any] = {"low": low, "high": high}
    if ranges not in ([], [compact(low=low, high=high)]):
        found["ranges"] = ranges
    said = [_in_words(each) for i, each in enumerate(parts) if i != chosen or _is_only_words(ranges[i])]
    if text := "; ".join(filter(None, said)):
        found["range_text"] = text
    return found


def _is_only_words(each: dict[str, Any]) -> bool:
    return "low" not in each and "high" not in each


def _compared(each: dict[str, Any], unit: Unit) -> dict[str, Any] | None:
    """Return the range as it is compared: with the ends that stand in its words. None if it has another unit."""
    if "unit" in each and unit.code:
        return None
    if not _is_only_words(each) or "text" not in each:
        return {**each}
    low, high = parse_range(each["text"], unit.code or None) or (None, None)
    return {**each, **compact(low=low, high=high)}


def _read_range(each: Element, unit: Unit) -> dict[str, Any]:
    low, high = ends_of(each)
    plain = not low.text("comparator") and not high.text("comparator")
    own = read_unit(low if low.data.get("unit") or low.data.get("code") else high)
    age_low, age_high = ends_of(each.part("age"))
    age_unit = next((text for end in (age_low, age_high) for name in ("code", "unit") if (text := end.text(name))), "")
    return compact(
        low=low.number("value") if plain else None,
        high=high.number("value") if plain else None,
        unit=own.code if not own.is_same(unit) else None,
        unit_text=own.text if own.text and (own.text != unit.text or not own.is_same(unit)) else None,
        text=each.text("text") or ("" if plain else span(low, high)),
        type=concept(each.part("type")),
        age_low=age_low.number("value"),
        age_high=age_high.number("value"),
        age_unit=age_unit if age_unit != "a" else "",
        **_conditions(each),
    )


def _conditions(each: Element) -> dict[str, Any]:
    """Return the sex that a range is for, and the other groups. `sex_coded`: the sex as sent, if it is not FHIR's own
    code alone."""
    found: dict[str, Any] = {"applies_to": []}
    for group in each.parts("appliesTo"):
        coded = codings(group)
        told = [coding.get("code", "") for coding in coded] + [group.text("text")]
        sexes = {sex for text in told if (sex := sex_named(text))}
        if len(sexes) == 1 and "sex" not in found:
            found["sex"] = sexes.pop()
            if group.text("text") or coded != [{"system": GENDER_URI, "code": found["sex"]}]:
                found["sex_coded"] = concept(group)
        elif made := concept(group):
            found["applies_to"].append(made)
    return found


def ends_of(each: Element) -> tuple[Element, Element]:
    return each.part("low"), each.part("high")


def _in_words(each: Element) -> str:
    """Return a range in words: the group that it applies to, and its ends."""
    low, high = ends_of(each)
    unit = read_unit(low).code or read_unit(high).code
    ends = " ".join(filter(None, (span(low, high), unit))) if span(low, high) else ""
    age_low, age_high = ends_of(each.part("age"))
    age = span(age_low, age_high)
    group = [words(each.part("type")), *map(words, each.parts("appliesTo"))]
    if age:
        group.append(f"age {age} {read_unit(age_low).code or read_unit(age_high).code}".strip())
    text = each.text("text").strip() or ends
    return ": ".join(filter(None, (", ".join(filter(None, group)), text)))
