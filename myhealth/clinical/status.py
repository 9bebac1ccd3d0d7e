"""The life of a result and of a report: its statuses, their order, HL7 v2's codes for them, and words for people. Pure.

The statuses are FHIR R4's ObservationStatus and DiagnosticReportStatus; None is final. Sources: HL7 v2.8 tables 0085
(OBX-11) and 0123 (OBR-25); HL7 Version 2 to FHIR, concept maps of these tables.
"""

import re
from typing import Literal, get_args

import msgspec

ReportStatus = Literal[
    "registered",
    "partial",
    "preliminary",
    "final",
    "amended",
    "corrected",
    "appended",
    "cancelled",
    "entered-in-error",
    "unknown",
]
ResultStatus = Literal[
    "registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error", "unknown"
]
# Statuses in the order in which a result gets them. Of two with one rank, neither is later.
RANKS = {
    "registered": 1,
    "partial": 2,
    "preliminary": 3,
    "final": 4,
    "amended": 5,
    "corrected": 5,
    "appended": 5,
    "cancelled": 5,
    "entered-in-error": 6,
}
WITHDRAWN = "entered-in-error"
CORRECTED = frozenset({"amended", "corrected", "appended"})
OBX_11 = {
    **dict.fromkeys("IO", "registered"),
    **dict.fromkeys("PRS", "preliminary"),
    **dict.fromkeys("FUV", "final"),
    **dict.fromkeys("AB", "amended"),  # B: appended, which FHIR has for reports alone
    "C": "corrected",
    "N": "final",  # was not asked: nothing more will come, and it has no value
    **dict.fromkeys("DWX", WITHDRAWN),
}
OBR_25 = {
    **dict.fromkeys("OISN", "registered"),
    "A": "partial",
    **dict.fromkeys("PRM", "preliminary"),
    "F": "final",
    "C": "corrected",
    "X": "cancelled",
    **dict.fromkeys("YZ", "unknown"),
}
# What tables write, beside FHIR's codes and those of HL7 v2.
PLAIN_WORDS = {
    **dict.fromkeys(("pending", "ordered"), "registered"),
    **dict.fromkeys(("provisional", "interim"), "preliminary"),
    **dict.fromkeys(("complete", "completed", "verified", "validated", "released", "approved", "ok"), "final"),
    **dict.fromkeys(("appended", "updated"), "amended"),
    **dict.fromkeys(("correction", "revised"), "corrected"),
    "canceled": "cancelled",
    "partial": "unknown",  # the report lacks results: says nothing about the present ones
    **dict.fromkeys(("withdrawn", "retracted", "deleted", "in error", "void", "voided", "invalid"), WITHDRAWN),
}
WORDS = {
    "registered": "not measured yet",
    "partial": "some results are still missing",
    "preliminary": "preliminary; it may still change",
    "final": "final",
    "amended": "changed later",
    "corrected": "corrected",
    "appended": "completed later",
    "cancelled": "cancelled",
    "entered-in-error": "withdrawn; it was reported in error",
    "unknown": "status not known",
}


def result_status(obx_11: str) -> str | None:
    """Return the status of a result by its OBX-11: unknown where that is not in table 0085, None where it is empty."""
    sent = obx_11.strip().upper()
    return OBX_11.get(sent, "unknown") if sent else None


def status_of_words(text: str) -> str | None:
    """Return the status of a result by its code of FHIR or HL7 v2 or in plain words; None for any other text.

    Worked examples: "C" and "Corrected" are corrected, "entered in error" is entered-in-error.
    """
    words = " ".join(re.sub(r"[\s_-]+", " ", text).casefold().split())
    code = words.replace(" ", "-")
    return code if code in get_args(ResultStatus) else PLAIN_WORDS.get(words) or OBX_11.get(text.strip().upper())


def report_status(obr_25: str) -> str | None:
    """Return the status of a report by its OBR-25: unknown where that is not in table 0123, None where it is empty."""
    sent = obr_25.strip().upper()
    return OBR_25.get(sent, "unknown") if sent else None


def compare_status(new: str | None, old: str | None) -> int:
    """Return 1 if `new` is a later status than `old`, -1 if an earlier one, 0 if neither is certainly later.

    Worked examples: final after preliminary is 1, preliminary after final -1; corrected after corrected and unknown
    after anything are 0. A withdrawn status is later than any other.
    """
    ranks = [RANKS.get(status or "final") for status in (new, old)]
    if ranks[0] is None or ranks[1] is None:
        return 0
    return (ranks[0] > ranks[1]) - (ranks[0] < ranks[1])


def status_text(status: str | None) -> str:
    """Return a status in words for people; "" for final, which needs no word."""
    return "" if status in (None, "final") else WORDS.get(str(status), str(status))


_decode = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


def shown_results(text: str) -> str:
    """Return results, as JSON, without withdrawn ones; the others keep their number and every digit."""
    if WITHDRAWN not in text:
        return text
    try:
        results = _decode(text)
    except msgspec.MsgspecError:  # another program stored results of another form
        return text
    kept = []
    for place, result in enumerate(results, 1):
        if bytes(result.get("status", b"")) != f'"{WITHDRAWN}"'.encode():
            kept.append({**result, "number": result.get("number", msgspec.Raw(str(place).encode()))})
    return text if len(kept) == len(results) else msgspec.json.encode(kept).decode()
