"""How sources interpret a result: HL7's codes, in words for people, and as our flags. Pure.

Source: HL7 terminology, code system v3-ObservationInterpretation, and HL7 v2 table 0078, its predecessor.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from myhealth.clinical.unit_sizes import size_of

V3_URI = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
V2_URI = "http://terminology.hl7.org/CodeSystem/v2-0078"
SYSTEMS = frozenset(
    {V3_URI, V2_URI, "http://hl7.org/fhir/v3/ObservationInterpretation", "http://hl7.org/fhir/v2/0078"}
    | {"urn:oid:2.16.840.1.113883.5.83", "urn:oid:2.16.840.1.113883.12.78", "2.16.840.1.113883.5.83", "HL70078", "0078"}
)
# Our flag (- is none): each code with its words for people. A change, an intermediate or an indeterminate result is
# neither normal nor abnormal; off the instrument's scale (< and >) says nothing about the range, so that decides.
_TABLE = """
N: N normal; NEG negative; ND not detected; NR not reactive; S susceptible; SYN-S synergy: susceptible; VS very
   susceptible
L: L low; LX below a threshold
H: H high; HX above a threshold
LL: LL critically low; LU far below normal; L< far below normal
HH: HH critically high; HU far above normal; H> far above normal
A: A abnormal; AA critically abnormal; EX outside a threshold; POS positive; DET detected; RR reactive; WR weakly
   reactive; R resistant; NS not susceptible; SYN-R synergy: resistant
-: < below what the instrument can measure; > above what the instrument can measure; B better than before; W worse
   than before; D significantly lower than before; U significantly higher than before; IND indeterminate; E equivocal;
   SDD susceptible, depending on the dose; I intermediate; MS moderately susceptible; NCL no breakpoint is defined; EXP
   expected; UNE unexpected; CAR carrier; AC anti-complementary substances present; TOX toxic to the test's cells;
   IE not enough evidence; QCF the quality control failed; HM held for medical review;
   OBX interpreted in further results
"""
# Code: (words, flag or None).
INTERPRETATIONS = {
    code: (words, None if flag == "-" else flag)
    for flag, row in re.findall(r"^(\S+): ((?:.+\n)(?: .+\n)*)", _TABLE, re.MULTILINE)
    for code, words in (" ".join(each.split()).split(" ", 1) for each in row.split(";"))
}
# The same in plain words, which mean it in whatever system.
_WORDS = """
N: normal; within normal limits; within reference range; 281301001
L: low; below normal; below reference range; decreased; reduced; ↓; 281300000
H: high; above normal; above reference range; elevated; increased; raised; ↑; 281302008
LL: critical low; critically low; very low; panic low; ↓↓
HH: critical high; critically high; very high; panic high; ↑↑
A: abnormal; 263654008
AA: critical; panic; critically abnormal
NEG: negative
POS: positive
"""
PLAIN_WORDS = {  # the numbers are SNOMED CT's
    word: code for code, words in (row.split(": ") for row in _WORDS.strip().split("\n")) for word in words.split("; ")
}
SEVERITY = ("N", "A", "L", "H", "LL", "HH")
# A number, also a bound or with its unit, and a mark beside it: 7.2 H, 7,2 (H), 5 mg/dL*, H 7.2, ↑7.2.
_WORDY = [each for each in PLAIN_WORDS if each.replace(" ", "").isalpha() and PLAIN_WORDS[each] not in ("POS", "NEG")]
_MARK = "|".join((r"hh?|ll?|[na]|\*{1,3}|↑{1,2}|↓{1,2}", *sorted(_WORDY, key=len, reverse=True)))
_MEASURED = r"(?P<rest>(?:[<>]=?|[≤≥])?\s*[+-]?(?:[0-9][0-9.,']*|[.,][0-9]+)(?:\s*(?:%|[^\W\d_(][^\s(*]*/[^\s(*]+))?)"
BEHIND = re.compile(rf"{_MEASURED}\s*(?P<open>[(\[])?(?P<mark>{_MARK})(?(open)[)\]])", re.IGNORECASE)
BEFORE = re.compile(
    rf"(?P<open>[(\[])?(?P<mark>{_MARK})(?(open)[)\]]\s*|(?:(?<=[*↑↓])|\s*:|\s)\s*){_MEASURED}", re.IGNORECASE
)


def flag_of(interpretations: Iterable[Mapping[str, Any]]) -> str | None:
    """Return our flag of the gravest interpretation that has one: a normal one beside it gives no all-clear. Each has
    `code` and `system`. A laboratory's own A may mean anything, so it gives no flag."""
    flags = [known[1] for each in interpretations if (known := _known(each)) and known[1]]
    if {"L", "LL"} & {*flags} and {"H", "HH"} & {*flags}:
        return "A"  # which of the two is not said
    return max(flags, key=SEVERITY.index, default=None)


def is_understood(interpretation: Mapping[str, Any]) -> bool:
    """Return whether it is known what an interpretation means."""
    return _known(interpretation) is not None


def read_mark(text: str) -> tuple[str | None, dict[str, Any] | None]:
    """Return (our flag, the interpretation) of a mark in a table; no interpretation if the flag has all its meaning.

    Worked examples: "h" is ("H", None), "High" ("H", those words), "POS" ("A", that code), "*" (None, those words).
    """
    code = text.upper()
    found = {"code": code} if code in INTERPRETATIONS else {"text": text}
    flag = flag_of([found])
    return flag, None if code == flag else found


def mark_facts(*marks: str) -> dict[str, Any]:
    """Return the flag and the interpretations of a result's marks, {} if it has none; the gravest gives the flag."""
    if not marks:
        return {}
    read = [*map(read_mark, dict.fromkeys(marks))]
    told = [each or {"code": flag} for flag, each in read if each or len(read) > 1]
    return {"flag": flag_of(told) if told else read[0][0]} | ({"interpretations": told} if told else {})


@lru_cache(maxsize=1024)
def split_mark(text: str, unit: str | None = None) -> tuple[str, str] | None:
    """Return (number, mark) of a number with a mark beside it, for `read_mark`; None if it may be read otherwise. The
    number is as written, and may be followed by its unit.

    `unit`: the value's. A letter that is a unit of the same kind is one: 5 L is no low volume, 7 h no high duration.
    Without a unit L, N, A and h may be one, and L before a number may mean left unless the unit is a concentration.
    Worked examples: "7.2 H" is ("7.2", "H"), "7,2 (H)" ("7,2", "H"), "*7.2" ("7.2", "*"), "5 L" of mmol/L ("5", "L").
    """
    is_before = False
    if not (found := BEHIND.fullmatch(text)):
        found, is_before = BEFORE.fullmatch(text), True
    if not found:
        return None
    rest, mark = found["rest"], found["mark"]
    own = unit or rest.lstrip("<>=≤≥+-0123456789.,' ")
    is_concentration = "/" in own or "%" in own
    if mark in ("L", "l", "N", "n", "A", "a", "h") and (not own or (is_before and not is_concentration)):
        return None
    kind, of = size_of(mark), size_of(own) if own else None
    return None if kind and of and kind[1] == of[1] else (rest, mark)


def interpretation_text(interpretation: Mapping[str, Any]) -> str:
    """Return an interpretation in words for people: in plain ones if the code is HL7's, else in the source's own."""
    known = _known(interpretation)
    own = (interpretation.get(name) for name in ("text", "display", "code"))
    return known[0] if known else next((str(words) for words in own if words), "")


def _known(interpretation: Mapping[str, Any]) -> tuple[str, str | None] | None:
    told = [str(interpretation.get(name) or "").strip() for name in ("code", "text", "display")]
    in_words = next((PLAIN_WORDS[each.lower()] for each in told if each.lower() in PLAIN_WORDS), "")
    own = (interpretation.get("system") or V3_URI) in SYSTEMS and INTERPRETATIONS.get((told[0] or told[1]).upper())
    return own or INTERPRETATIONS.get(in_words)
