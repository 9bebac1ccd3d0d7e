"""How sources interpret a result: HL7's codes, in words for people, and as our flags. Pure.

Source: HL7 terminology, code system v3-ObservationInterpretation, and HL7 v2 table 0078, its predecessor.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

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
