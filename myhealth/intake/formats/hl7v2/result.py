"""Make the results of a group: an OBX segment with every fact that it has; the lines of a text are one result.

Source: HL7 v2.8, chapter 7 (OBX), and the tables named below.
"""

from collections import Counter
from datetime import tzinfo

from msgspec import Struct

from myhealth.clinical.absent_reasons import NO_VALUE
from myhealth.clinical.coding_systems import LOINC, MDC, uri_of
from myhealth.clinical.interpretations import flag_of
from myhealth.clinical.mdc import device_name, is_mdc_reference, mdc_loinc
from myhealth.clinical.range_text import range_facts
from myhealth.clinical.ranges import parse_measurement
from myhealth.clinical.status import WITHDRAWN, result_status
from myhealth.intake.formats.hl7v2.coded import (
    Facts,
    codings_of,
    field_concept,
    field_identifiers,
    label_of,
    name_of_coded,
    organization_of,
    parse_code,
    practitioner_of,
    without_empty,
)
from myhealth.intake.formats.hl7v2.encoding import Encoding, cached
from myhealth.intake.formats.hl7v2.grouping import OrderGroup
from myhealth.intake.formats.hl7v2.left_out import kind_of_result
from myhealth.intake.formats.hl7v2.segments import Fields, Segment, cached_without
from myhealth.intake.formats.hl7v2.values import (
    TEXT_TYPES,
    contradiction_in_units,
    parse_unit,
    parse_value,
    parts_with_powers,
)
from myhealth.intake.formats.terminology import number
from myhealth.intake.parsed_record import FILE_NOT_KEPT, NOT_TAKEN
from myhealth.intake.record_types import LIST_MAX, TEXT_MAX, VALUE_MAX

PANEL = "85354-9"  # a blood pressure as a whole


class ObxFacts(Struct, frozen=True):
    """What an OBX segment says beside its value and its moments: the facts of its result. Constant.

    `kind`: what it is if that is not a result, else ""; `type`: OBX-2; `doubt`: how parts of its unit contradict each
    other; `status`: OBX-11; `device`: OBX-18.
    """

    kind: str
    type: str
    facts: Facts
    doubt: str
    status: str
    device: str


class ObxResult(Struct, eq=False):
    """A result and its OBX segments, of which the first is number `place` and says `told`. `texts`: that of each."""

    place: int
    result: Facts
    told: ObxFacts
    segments: list[Segment]
    texts: list[str]

    def finished(self) -> Facts:
        """Return the result with its whole text."""
        if len(self.texts) > 1:
            text = "\n".join(self.texts).strip("\n")
            self.result["value"] = text or NO_VALUE
            if text:
                self.result.pop("absent_reason", None)
        return self.result

    def is_short(self) -> bool:
        """Return whether the text of the finished result, which the report contains too, fits a value."""
        value = self.result["value"]
        return not isinstance(value, str) or len(value) <= VALUE_MAX

    def free_text(self) -> str:
        """Return a free text for the report; "" for any other result, and for a text (ST) of one line."""
        short = len(self.texts) == 1 and len(self.texts[0]) <= VALUE_MAX
        if short and self.told.type not in ("TX", "FT"):
            return ""
        text = "\n".join(self.texts).strip()
        if not text or self.result.get("status") == WITHDRAWN:
            return ""
        return f"{self.result['name']}:{chr(10) if chr(10) in text else ' '}{text}"


def results_of(group: OrderGroup, zone: tzinfo, skipped: Counter[str]) -> list[ObxResult]:
    """Return the results in file order.

    The lines of a text, each an OBX of its own with the same code, are one result. A result without a name gets the
    name of the order; add a fault if that has no name either. Segments that are not results of a patient are counted in
    `skipped`.
    """
    found: list[ObxResult] = []
    for place, segment in enumerate(group.all("OBX"), 1):
        told = facts_of_obx(segment)
        if told.kind:
            skipped[told.kind] += 1
            continue
        result = parse_result(segment, told, zone)
        if told.doubt and (doubt := _refuse_unclear_unit(result, told.doubt)):
            group.warnings.append((f"OBX[{place}]-6", doubt, NOT_TAKEN))
        if told.type == "ED" and "absent_reason" not in result:
            group.warnings.append((f"OBX[{place}]-5", FILE_NOT_KEPT))
        if not result["name"]:
            orders = (label_of(each.field(4), each.encoding) for each in group.all("OBR"))
            result["name"] = next(orders, "")
        if not result["name"]:
            group.faults.append((f"OBX[{place}]-3", "is empty: what was measured?"))
        text = "" if "absent_reason" in result else str(result["value"])
        if result["code"] == PANEL and "absent_reason" in result:
            skipped["heading"] += 1  # of the values that follow it
        elif found and _continues(found[-1], result, told):
            found[-1].texts.append(text)
            found[-1].segments.append(segment)
        else:
            found.append(ObxResult(place, result, told, [segment], [text]))
    return found


def _refuse_unclear_unit(result: Facts, doubt: str) -> str:
    """Remove the value of a result whose unit is given in two ways; return the reason, "" if it is no number."""
    if not ("value_range" in result or "value_ratio" in result or parse_measurement(result["value"])):
        return ""
    for name in ("value_range", "value_ratio", "unit_text"):
        result.pop(name, None)
    message = f"{result['value']} is not taken: {doubt}"
    result.update(value=NO_VALUE, absent_reason=message, unit=None)
    return message


def _continues(before: ObxResult, result: Facts, told: ObxFacts) -> bool:
    """Return whether this is the next line of a text: the segments differ only in the text. The lines of a long text
    may have numbers (OBX-4). A number is a value of its own, never continued by the next segment."""
    types = before.told.type, told.type
    if not (types[0] in TEXT_TYPES and types[1] in TEXT_TYPES) or "X" in (before.told.status, told.status):
        return False
    if "ST" in types and len(before.texts) == 1 and parse_measurement(before.texts[0]):
        return False
    own = ("value", "absent_reason", *(() if "ST" in types else ("sub_id", "identifiers")))
    one, other = ({name: each for name, each in of.items() if name not in own} for of in (before.result, result))
    return one == other


def parse_result(segment: Segment, told: ObxFacts, zone: tzinfo) -> Facts:
    """Return the result of an OBX segment as a record has it; numbers as they were sent."""
    value = parse_value(segment, told.type, zone)
    if "unit" in value:
        told = _read_obx(segment, value["unit"], value.get("unit_text"))
    result = {**value, **told.facts}
    if "value_range" in value:
        unit = without_empty(unit=result["unit"], unit_text=told.facts.get("unit_text"))
        result["value_range"] = {name: end | unit for name, end in value["value_range"].items()}
    if told.status.upper() == "X":
        result.setdefault("absent_reason", NO_VALUE)
    return result


def _read_obx(segment: Fields, unit_of_value: str | None = None, sent_of_value: str | None = None) -> ObxFacts:
    """Return what an OBX segment says. `unit_of_value`, `sent_of_value`: the unit in the value, and as sent."""
    encoding, coded_unit, sub_id = segment.encoding, segment.first(6), segment.text(4)
    unit, unit_text = parse_unit(coded_unit, encoding)
    if unit is None:
        unit, unit_text = unit_of_value, sent_of_value
    observed, mdc = observed_of(segment.first(3), encoding)
    facts: Facts = {**observed, "unit": unit}
    if mdc and (loinc := mdc_loinc(mdc[0], mdc[1], unit)):
        facts["code"] = loinc
        for name in ("other_code", "code_system"):
            facts.pop(name, None)
    if is_mdc_reference(facts["name"]) or (mdc and facts["name"] == mdc[0]):
        facts["name"] = device_name(facts["code"]) or facts["name"]
    if sub_id:
        facts["sub_id"] = sub_id[:TEXT_MAX]
        if _names_the_result(observed, sub_id):
            facts["name"] = sub_id
    facts |= range_facts(_range_words(segment.repetitions(7), encoding), unit_text or unit)
    facts["flag"], interpretations = parse_interpretations(segment.field(8), encoding)
    status = result_status(segment.text(11))
    facts |= without_empty(interpretations=interpretations, unit_text=unit_text, status=status)
    return ObxFacts(
        kind_of_result(segment.field(3), encoding),
        segment.text(2).upper(),
        facts | _circumstances(segment) if len(segment.fields) > 15 else facts,
        contradiction_in_units(coded_unit, encoding) if encoding.component in segment.field(6) else "",
        segment.text(11),
        segment.text(18),
    )


facts_of_obx = cached_without(1, 5, 14, 19)(_read_obx)  # all but its number, its value and its moments


def _range_words(repetitions: list[str], encoding: Encoding) -> str:
    """Return OBX-7 as one text. Two bare numbers are the ends of a range, whether ~ or ^ separates them: 3.5~5.1,
    3.5^5.1. Other components are joined as words: 3.5-5.1^mmol/L."""
    found = []
    for each in repetitions:
        parts = [part for part in parts_with_powers(each, encoding) if part]
        found.append(("-" if len(parts) == 2 and None not in map(number, parts) else " ").join(parts))
    return ("-" if len(found) == 2 and None not in map(number, found) else "; ").join(found)


@cached
def observed_of(text: str, encoding: Encoding) -> tuple[Facts, tuple[str, str] | None]:
    """Return code, name and codings of what was observed (OBX-3), and its code of IEEE 11073 if LOINC's is not given.

    A code without words is named as the catalogue names it. `codings` are left out where they are LOINC's alone.
    """
    found, codings = parse_code(text, encoding), codings_of(text, encoding)
    code = found["code"]
    name = name_of_coded(text, encoding)
    facts = {**found, "name": name}
    lone = len(codings) == 1 and codings[0].get("system") == LOINC and codings[0].get("display", name) == name
    if codings and not (lone and code):
        facts["codings"] = codings
    mdc = next(
        (
            (each["code"], each.get("display", ""))
            for each in codings
            if each.get("system") == MDC or is_mdc_reference(each.get("display") or each["code"])
        ),
        ("", name) if is_mdc_reference(name) else None,
    )
    return facts, None if code else mdc


def _names_the_result(observed: Facts, sub_id: str) -> bool:
    """Return whether OBX-4 has the name, as some analyzers send it: OBX-3 is empty or a bare number."""
    bare = observed["name"] in ("", observed.get("other_code"))
    return bare and not any(map(str.isalpha, observed["name"])) and any(map(str.isalpha, sub_id))


@cached
def parse_interpretations(text: str, encoding: Encoding) -> tuple[str | None, list[Facts] | None]:
    """Return our flag, and the interpretations (OBX-8, table 0078) as sent, unless the flag has all their meaning.

    Worked examples: "H" is (H, None), "H~U" (H, both), "<" (None, that one), for off the scale is not low.
    """
    found = []
    for each in encoding.repetitions(text)[:LIST_MAX]:
        parts = encoding.parts(each, 9)
        own = parts[8] or ("" if parts[0] else parts[1])
        for (code, words, system), text in ((parts[:3], own), (parts[3:6], "")):  # the alternate too
            coded = {"system": uri_of(system), "code": code, "display": words} if code else {}
            found.append(without_empty(**coded, text=text))
    found = [each for each in found if each]
    flag = flag_of(found)
    plain = len(found) == 1 and found[0].keys() == {"code"} and found[0]["code"].upper() == flag
    return flag, None if plain or not found else found


def _circumstances(segment: Fields) -> Facts:
    """Return who produced a result, how, with what and where (OBX-15 to OBX-23).

    Some senders shift these fields: then the field that holds the name of a method or a laboratory decides.
    """
    encoding = segment.encoding
    producers = [organization_of(each, encoding) for place in (15, 23) for each in segment.repetitions(place)]
    method, observers = field_concept(segment, 17), segment.repetitions(16)
    if not method and len(observers) == 1 and _is_coded(observers[0], encoding):
        method, observers = field_concept(segment, 16), []
    instance = field_identifiers(segment, 21)
    if instance and not any(producers) and len(encoding.components(segment.field(22))) > 2:
        producers, instance = [organization_of(segment.repetitions(21)[0], encoding)], []
    people = [practitioner_of(each, encoding) for each in observers]
    numbers = field_identifiers(segment, 18)
    performers = [each for each in (*producers, *people) if each]
    unique = [each for at, each in enumerate(performers) if each not in performers[:at]]
    return without_empty(
        performers=unique[:LIST_MAX],
        method=method,
        device=without_empty(identifiers=numbers),
        body_site=field_concept(segment, 20),
        identifiers=instance,
    )


def _is_coded(text: str, encoding: Encoding) -> bool:
    """Return whether the field of a person contains a coded text without a code, such as ^Hexokinase^L."""
    parts = encoding.parts(text)
    return len(parts) == 3 and not parts[0] and (parts[2] in ("L", "LN") or parts[2].startswith("99"))
