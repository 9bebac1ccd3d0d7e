"""Read the value, the unit and the reference range of an OBX segment: OBX-5 by OBX-2, OBX-6 and OBX-7.

Source: HL7 v2.8, chapter 7, and chapter 2.A.
"""

import re
from collections.abc import Callable
from datetime import tzinfo
from functools import lru_cache

from myhealth.clinical.absent_reasons import NO_VALUE, NOT_SENT_AGAIN
from myhealth.clinical.coding_systems import is_local, uri_of
from myhealth.clinical.mdc import is_mdc_reference, mdc_unit
from myhealth.clinical.unit_sizes import contradiction_in_unit
from myhealth.clinical.units import ucum_unit
from myhealth.intake.formats.hl7v2.coded import Facts, concept_of, label_of, person_of, without_empty
from myhealth.intake.formats.hl7v2.encoding import CACHED_MAX, Encoding, cached
from myhealth.intake.formats.hl7v2.moments import iso_moment, iso_time
from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.formats.terminology import DECIMAL_COMMA, NOT_A_NUMBER, UNMEASURED, absent_value, in_order, number
from myhealth.intake.record_types import LIST_MAX, TEXT_MAX

TEXT_TYPES = ("ST", "TX", "FT")
CODED_TYPES = ("CE", "CWE", "CNE", "CF")
MOMENT_TYPES = ("DT", "TS", "DTM", "TM")
# Types whose values are text even if they look like a number. A value of any other type is a number if it looks so.
OTHER_TYPES = re.compile("D[TR]|T[MSNQ]|DTM|I[DS]|SI|C[KNMPQ]|MO|X[CP]N|P?PN|X?AD|XTN|XON|PL|R[PI]")
# A structured number (SN): comparator, number, separator or suffix, number.
DIGITS = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
COMPARATORS = {"≤": "<=", "=<": "<=", "≥": ">=", "=>": ">="}
COMPARED = re.compile(rf"(<>|[<>]=?|=[<>]?|[≤≥])\s*({DIGITS})")
STRUCTURED = re.compile(rf"(<>|[<>]=?|=?)?\^?({DIGITS})?(?:\^([-+/.:]?)(?:\^({DIGITS})?)?)?")
SIGN = re.compile(r"<>|[<>]=?|=[<>]?|[≤≥]|")
UNMEASURED_NUMBER = re.compile(r"(?=.*[*#_-])[*#_.\s-]+")
NO_UNIT = re.compile(r"[-–./ ]*|n/?a|none|null", re.IGNORECASE)
ABSENT_BY_STATUS = {"N": "not-asked", "I": "temp-unknown", "X": "not-performed"}
# 10^3/uL and m^2, where the sender did not escape the power although ^ parts the components.
POWER = re.compile(r"((?<![0-9.])10|(?<![A-Za-z])[cdkm]?m)\s*\^\s*(-?[0-9]{1,2})(?:\^+(?=/))?(?![0-9A-Za-z.])")
RAISED = "\x1a"


def parse_value(segment: Segment, kind: str, zone: tzinfo) -> Facts:
    """Return `value`, exact if it is a number, and the further facts of its type (OBX-2); the reason if it is absent.
    Treat them as constant."""
    encoding = segment.encoding
    repetitions = segment.repetitions(5)
    if kind in ("TX", "FT"):  # free text: a repetition is a new line; it has no components
        text = "\n".join(encoding.plain(each) for each in repetitions)
        return {"value": text} if text.strip() else _absent_facts(segment)
    if len(repetitions) == 1 and len(repetitions[0]) < CACHED_MAX:
        found = _parse_short(encoding, kind, repetitions[0], zone)
    else:
        several = [_parse_repetition(encoding, kind, each, zone) for each in repetitions]
        found = _join_repetitions([each for each in several if each.get("value") not in (None, "")], kind)
    return found if found.get("value") not in (None, "") else _absent_facts(segment)


def _absent_facts(segment: Segment) -> Facts:
    code = ABSENT_BY_STATUS.get(segment.text(11).upper())
    # U: final, the preliminary value is not sent again (table 0085)
    reason = NOT_SENT_AGAIN if segment.text(11).upper() == "U" and segment.fields[5:6] != ['""'] else NO_VALUE
    return {"value": NO_VALUE, "absent_reason": reason} | without_empty(absent_code=code)


def _join_repetitions(several: list[Facts], kind: str) -> Facts:
    """Return the values of several repetitions as one text, with all their codes."""
    if len(several) < 2:
        return several[0] if several else {}
    text = ", ".join(str(each["value"]) for each in several)
    codings = [code for each in several for code in each.get("value_coded", {}).get("codings", ())][:LIST_MAX]
    coded = {"text": text[:TEXT_MAX], "codings": codings} if codings else None
    return {"value": text} | without_empty(value_coded=coded)


def _parse_repetition(encoding: Encoding, kind: str, text: str, zone: tzinfo) -> Facts:
    """Return one repetition of OBX-5, read by its type (OBX-2); {} if it has nothing but delimiters."""
    if not text[:1].isalnum() and not text.strip(f"{encoding.component}{encoding.subcomponent} \n"):
        return {}
    if kind == "ST":
        plain = encoding.plain(text).strip()
        return absent_value(plain, "error") if UNMEASURED.fullmatch(plain) else {"value": plain}
    if kind in CODED_TYPES:
        return _parse_coded(encoding, text)
    parts = [encoding.plain(each).strip() for each in encoding.components(text)]
    while len(parts) > 1 and not parts[-1]:  # empty ones at the end say nothing
        parts.pop()
    if kind in MOMENT_TYPES:
        moment = iso_time(parts[0]) if kind == "TM" else iso_moment(parts[0], zone)
        if not moment or (kind == "TM" and moment[-6:-5] in ("+", "-")):  # a FHIR time has no zone
            return {"value": moment or "^".join(parts)}
        return {"value": moment, "value_moment": moment}
    if (words := WORDS.get(kind)) and (found := words(text, encoding)):
        return {"value": found}
    if read := READERS.get(kind):
        return read(parts, encoding, zone)
    if kind in ("NM", "SN"):
        parts = [each.replace("\N{MINUS SIGN}", "-") for each in parts]
        parts = [each.replace(",", ".") if DECIMAL_COMMA.fullmatch(each) else each for each in parts]
    if kind == "SN" and sum(map(bool, parts)) == 1:  # ^>5 and ^1:128
        parts = [*filter(None, parts)]
    plain = "^".join(parts)
    if OTHER_TYPES.fullmatch(kind) or (kind == "NM" and len(parts) > 1 and not SIGN.fullmatch(parts[0])):
        return {"value": plain}
    if len(parts) > 1 and UNMEASURED.fullmatch(printed := "".join(parts)):  # ^***
        return absent_value(printed, "error")
    return (_parse_number(plain, kind) if len(parts) == 1 else _parse_structured(parts)) or {"value": plain}


_parse_short = lru_cache(maxsize=4096)(_parse_repetition)


def _parse_number(plain: str, kind: str) -> Facts:
    found = number(plain)
    if found is not None:
        return {"value": found}
    if UNMEASURED_NUMBER.fullmatch(plain) if kind == "NM" else UNMEASURED.fullmatch(plain):
        return absent_value(plain, "error")
    if kind in ("NM", "SN") and (code := NOT_A_NUMBER.get(plain.upper())):
        return absent_value(plain, code)
    if kind == "SN" and (match := COMPARED.fullmatch(plain)):
        return _parse_structured([COMPARATORS.get(match[1], match[1]), match[2]]) or {}
    return {}


def _parse_coded(encoding: Encoding, text: str) -> Facts:
    """Return a coded value: its words, else its code, and its codes."""
    coded = concept_of(text, encoding)
    return {"value": label_of(text, encoding)} | ({"value_coded": coded} if isinstance(coded, dict) else {})


def _parse_structured(parts: list[str]) -> Facts | None:
    """Read a structured number (SN): a number if it has no other part, else text; None if it is not an SN.

    Worked example: ["", "182"] is 182, [">", "100"] is ">100", ["", "1", ":", "128"] is "1:128" and a ratio.
    """
    parts = [COMPARATORS.get(parts[0], parts[0]), *parts[1:]]
    if len(parts) > 4 or not STRUCTURED.fullmatch("^".join(parts)) or not any(map(str.isdigit, "".join(parts))):
        return None
    comparator, first, mark, second = (*parts, "", "", "")[:4]
    if (mark or second) and not any(map(str.isdigit, first)):  # neither ^^-^5 nor ^-^5 is -5
        return None
    ends = number(first), number(second)
    if comparator in ("", "=") and not mark and not second:
        return {"value": first if ends[0] is None else ends[0]}
    text = "".join((comparator, _written(first), mark, _written(second)))
    low, high = ({"value": each} for each in ends)
    if None in ends or comparator not in ("", "="):
        return {"value": text}
    if mark in (":", "/"):
        return {"value": text, "value_ratio": {"numerator": low, "denominator": high}}
    return {"value": text, "value_range": {"low": low, "high": high}} if mark == "-" else {"value": text}


def _written(digits: str) -> str:
    """Return a number with a digit before its point, and no point at its end, as people and FHIR write it."""
    return re.sub(r"^([+-]?)\.", r"\g<1>0.", digits.removesuffix("."))


def _parse_period(parts: list[str], _: Encoding, zone: tzinfo) -> Facts:
    """Return a period of dates (DR)."""
    start, end = (iso_moment(each, zone) for each in (*parts, "", "")[:2])
    if not start and not end:
        return {"value": "^".join(parts)}
    text = f"{start} to {end}" if start and end else f"from {start}" if start else f"until {end}"
    return {"value": text, "value_period": without_empty(start=start, end=end)}


def _parse_range(parts: list[str], _: Encoding, __: tzinfo) -> Facts:
    """Return a range of numbers (NR)."""
    low, high = (number(each) for each in (*parts, "", "")[:2])
    if (low is None and high is None) or not in_order(low, high):
        return {"value": "^".join(parts)}
    ends = {name: {"value": end} for name, end in (("low", low), ("high", high)) if end is not None}
    text = f"{low}-{high}" if len(ends) == 2 else f"<={high}" if low is None else f">={low}"
    return {"value": text, "value_range": ends}


def _parse_quantity(parts: list[str], encoding: Encoding, _: tzinfo) -> Facts:
    """Return a number with its unit (CQ)."""
    found = number(parts[0])
    if found is None:
        return {"value": "^".join(parts)}
    coded = encoding.component.join(encoding.subcomponents(parts[1])) if len(parts) > 1 else ""
    unit, sent = parse_unit(coded, encoding)
    return {"value": found} | without_empty(unit=unit, unit_text=sent)


def _describe_document(parts: list[str], _: Encoding, __: tzinfo) -> Facts:
    """Return what a document in base64 (ED) is; a result cannot contain it."""
    return {"value": f"document ({'/'.join(filter(None, parts[1:3]))})"}


def _describe_pointer(text: str, encoding: Encoding) -> str:
    """Return where a document is (RP), and its type."""
    parts = encoding.parts(text, 4)
    kind = "/".join(filter(None, parts[2:4]))
    return " ".join(filter(None, (parts[0], f"({kind})" if kind else "")))


def _join_parts(text: str, encoding: Encoding) -> str:
    """Return the parts of an address or of a place (AD, XAD, PL), each by its first part."""
    firsts = (encoding.unquoted(encoding.subcomponents(each)[0]) for each in encoding.components(text)[:6])
    return ", ".join(filter(None, firsts))


def _telephone(text: str, encoding: Encoding) -> str:
    """Return a telephone number or an address (XTN): as one text, else country, area and number, else the e-mail."""
    parts = encoding.parts(text, 12)
    return parts[0] or parts[11] or " ".join(filter(None, parts[4:7])) or parts[3]


# How the values of types with components read.
WORDS: dict[str, Callable[[str, Encoding], str]] = {
    "RP": _describe_pointer,
    "XTN": _telephone,
    "MO": lambda text, encoding: " ".join(filter(None, encoding.parts(text))),
    **dict.fromkeys(("AD", "XAD", "PL"), _join_parts),
    **dict.fromkeys(("PN", "XPN"), lambda text, encoding: person_of(text, encoding, 0)[0]),
    **dict.fromkeys(("CN", "XCN", "PPN"), lambda text, encoding: next(filter(None, person_of(text, encoding, 1)), "")),
    **dict.fromkeys(("HD", "XON", "CK"), lambda text, encoding: encoding.parts(text)[0]),
}
READERS: dict[str, Callable[[list[str], Encoding, tzinfo], Facts]] = {
    "DR": _parse_period,
    "NR": _parse_range,
    "CQ": _parse_quantity,
    "ED": _describe_document,
    "NA": lambda parts, encoding, zone: {"value": ", ".join(parts)},
    **dict.fromkeys(("CX", "EI"), lambda parts, encoding, zone: {"value": parts[0] or "^".join(parts)}),
}


@cached
def parse_unit(text: str, encoding: Encoding) -> tuple[str | None, str | None]:
    """Return the unit (OBX-6) in UCUM if that is certain, else as sent; and as sent, if that differs.

    Worked examples: "266016^MDC_DIM_MMHG^MDC^mm[Hg]^mm[Hg]^UCUM" is mm[Hg], "mmol/L^^ISO+" mmol/L, "10^3/uL" 10*3/uL.
    """
    coded = parts_with_powers(text, encoding, 6)
    first = "" if len(coded[0]) > 2 and coded[0].isdigit() and coded[1] else coded[0]  # a code in numbers is not a unit
    if is_local(uri_of(coded[2])) and ucum_unit(coded[1]):
        first = ""  # nor is a laboratory's own code beside its words
    sent = first or coded[1] or coded[3] or coded[4]
    sent = "" if NO_UNIT.fullmatch(sent) else sent
    for code, words, system in (coded[:3], coded[3:6]):
        if code and system.upper() == "UCUM":
            known = ucum_unit(code) or code
            return known, _differing(words or (code if known != code else sent), known)
    for code, words, system in (coded[:3], coded[3:6]):
        if (system.upper() == "MDC" or is_mdc_reference(words or code) or code.isdigit()) and (
            found := mdc_unit(code, words)
        ):
            return found, _differing(words or code, found)
    found = ucum_unit(sent) or sent
    return found or None, _differing(sent, found)


def parts_with_powers(text: str, encoding: Encoding, least: int = 0) -> list[str]:
    """Return the components as `Encoding.parts` does, but do not split at the ^ of a power, as in 10^3/uL."""
    if encoding.component == "^" and "^" in text:
        text = POWER.sub(rf"\1{RAISED}\2", text)
    return [part.replace(RAISED, "^") for part in encoding.parts(text, least)]


@cached
def contradiction_in_units(text: str, encoding: Encoding) -> str:
    """Return how the other parts of a unit (OBX-6) contradict the one that counts; "" if they do not.

    Worked example: mmol/L^mg/dL^UCUM. A laboratory's own code of letters, as in M^mmol/L^99LAB, contradicts nothing.
    """
    coded, unit = parts_with_powers(text, encoding, 6), parse_unit(text, encoding)[0] or ""
    codes = (code for code, _, system in (coded[:3], coded[3:6]) if "/" in code or not is_local(uri_of(system)))
    found = (contradiction_in_unit(each, unit) for each in (coded[1], coded[4], *codes) if each)
    return next(filter(None, found), "")


def _differing(sent: str, unit: str) -> str | None:
    return sent[:TEXT_MAX] if sent and sent != unit else None
