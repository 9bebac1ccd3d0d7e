"""Why a result has no value: the codes of FHIR and of HL7 v3, in words for people. Pure.

Source: HL7 terminology, code systems data-absent-reason and v3-NullFlavor.
"""

ABSENT_URI = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
NO_VALUE = "no value"
NOT_SENT_AGAIN = "not sent again"  # only the status changed: the value is the one that came before
WORDS = {
    "unknown": "not known",
    "asked-unknown": "asked, but not known",
    "temp-unknown": "not known yet",
    "not-asked": "not asked",
    "asked-declined": "the patient did not want to say",
    "masked": "not shown, to protect privacy",
    "not-applicable": "does not apply",
    "unsupported": "cannot be recorded by the source",
    "as-text": "only in words",
    "error": "not measured, because of an error",
    "not-a-number": "not a number",
    "negative-infinity": "lower than can be measured",
    "positive-infinity": "higher than can be measured",
    "not-performed": "not measured",
    "not-permitted": "not allowed to be given",
}
NULL_FLAVORS = {
    **dict.fromkeys(("UNK", "NI"), "unknown"),
    "ASKU": "asked-unknown",
    **dict.fromkeys(("NAV", "NAVU"), "temp-unknown"),
    "NASK": "not-asked",
    "MSK": "masked",
    "NA": "not-applicable",
    "NINF": "negative-infinity",
    "PINF": "positive-infinity",
    "NP": "not-performed",
}


def absent_code(code: str) -> str | None:
    """Return FHIR's code of an absent reason by its own code or a null flavor; None for any other."""
    code = code.strip()
    return code.lower() if code.lower() in WORDS else NULL_FLAVORS.get(code.upper())


def absent_reason_text(code: str | None, reason: str = "") -> str:
    """Return why there is no value, in words: those of a known code, else the source's `reason`."""
    return WORDS.get(absent_code(code or "") or "", "") or reason or NO_VALUE
