"""The further facts of a report and of its results, beside the values, as (name, text) for people. Pure.

The caller writes moments: `write(moment, precision)` returns one as text.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from myhealth.clinical import interpretations, status
from myhealth.clinical.in_words import (
    concept_text,
    concept_texts,
    known_name,
    known_names,
    mappings,
    plain_text,
    unit_text,
    value_text,
)

Write = Callable[[datetime, str | None], str]
Facts = list[tuple[str, str]]
LENGTHS = {"day": 10, "month": 7, "year": 4}  # of a date in ISO 8601, by its precision
PRECISIONS = {length: precision for precision, length in LENGTHS.items()}
NOON = "0001-01-01T12:00:00+00:00"  # completes a date; noon UTC is the same day in most zones
# A plain result has none of these.
TOLD = frozenset(
    {"status", "corrected_at", "previous_value", "taken_at", "interpretations", "specimen", "body_site"}
) | {"method", "device", "performers", "group", "notes"}


def results_facts(results: Sequence[Mapping[str, Any]], write: Write) -> list[Facts]:
    """Return the further facts of each result of a check-up, and its panel if the check-up has several."""
    if all(map(TOLD.isdisjoint, results)):  # nearly all
        return [[] for _ in results]
    groups = [plain_text(result.get("group")) for result in results]
    several = len(set(groups)) > 1
    return [
        ([("Part of", group)] if group and several else []) + _result_facts(result, write)
        for result, group in zip(results, groups, strict=True)
    ]


def _result_facts(result: Mapping[str, Any], write: Write) -> Facts:
    if TOLD.isdisjoint(result):
        return []
    get = result.get
    corrected = _correction(result, write)
    told = "" if corrected and str(get("status")) in status.CORRECTED else status.status_text(get("status"))
    facts = [
        ("Status", told),
        ("Corrected", corrected),
        ("Measured", moment_text(get("taken_at"), write, get("taken_precision"), get("taken_until"))),
        ("Marked as", _interpretations(result)),
        *_specimen_facts(get("specimen"), write),
        ("Body site", concept_text(get("body_site"))),
        ("Method", concept_text(get("method"))),
        ("Device", known_name(concept_text(get("device")))),
        ("Done by", known_names(get("performers"))),
        *(("Note", note) for note in notes_of(result, write)),
    ]
    return [(name, text) for name, text in facts if text]


def checkup_facts(report: Mapping[str, Any], write: Write) -> Facts:
    """Return the further facts of a check-up, without its status and its notes."""
    details = report.get("details")
    if not isinstance(details, Mapping):
        details = {}
    performers = known_names(details.get("performers"))
    facts = [
        ("Done by", "" if performers == report.get("taken_by") else performers),
        ("Kind", concept_texts(details.get("category"))),
        *_specimen_facts(details.get("specimen"), write),
        ("Device", known_name(concept_text(details.get("device")))),
        ("Reason", concept_texts(details.get("reasons"))),
        ("Clinical information", plain_text(details.get("clinical_information"))),
        ("Conclusion", concept_texts(details.get("conclusion_codes"))),
        ("Issued", moment_text(report.get("issued_at"), write)),
        *(_panel(panel, write) for panel in mappings(details.get("panels"))),
    ]
    return [(name, text) for name, text in facts if text]


def notes_of(noted: Any, write: Write) -> list[str]:
    """Return the notes of a result, a specimen or a check-up's details, each with its author and its moment."""
    notes = mappings(noted.get("notes")) if isinstance(noted, Mapping) else []
    found = []
    for note in notes:
        by = ", ".join(filter(None, (plain_text(note.get("author")), moment_text(note.get("at"), write))))
        found.append(f"{plain_text(note.get('text'))} ({by})" if by else plain_text(note.get("text")))
    return list(filter(None, found))


def moment_text(value: Any, write: Write, precision: Any = None, until: Any = None) -> str:
    """Return a moment in words, "" for None. `value`: a datetime, or text with the precision of its source."""
    if isinstance(value, str):
        precision = PRECISIONS.get(len(value), precision)
        try:
            moment = datetime.fromisoformat(value + NOON[len(value) :] if len(value) in PRECISIONS else value)
        except ValueError:
            return plain_text(value)
        value = moment if moment.tzinfo else value
    text = write(value, precision) if isinstance(value, datetime) else plain_text(value)
    return f"{text} to {moment_text(until, write)}" if until and text else text


def _panel(panel: Mapping[str, Any], write: Write) -> tuple[str, str]:
    told = [_interpretations(panel), *notes_of(panel, write)]
    return concept_text(panel.get("name")) or "Panel", "; ".join(filter(None, told))


def _correction(result: Mapping[str, Any], write: Write) -> str:
    before, at = result.get("previous_value"), moment_text(result.get("corrected_at"), write)
    unit = unit_text(plain_text(result.get("previous_unit") or result.get("unit")))
    earlier = "" if before is None else f"before: {value_text(before)} {unit}".rstrip()
    return "; ".join(filter(None, (at and f"on {at}", earlier)))


def _interpretations(result: Mapping[str, Any]) -> str:
    """Return the interpretations in words, without those that only repeat the flag."""
    sent = mappings(result.get("interpretations"))
    found = [{name: text for name, text in each.items() if isinstance(text, str)} for each in sent]
    words = [
        interpretations.interpretation_text(each) for each in found if each.get("code") != (result.get("flag") or "N")
    ]
    return ", ".join(dict.fromkeys(filter(None, map(plain_text, words))))


def _specimen_facts(specimen: Any, write: Write) -> Facts:
    if not isinstance(specimen, Mapping):
        return [("Specimen", plain_text(specimen))]
    site, at = concept_text(specimen.get("body_site")), moment_text(specimen.get("collected_at"), write)
    parts = (concept_text(specimen), site and f"from {site}", at and f"taken {at}")
    return [("Specimen", ", ".join(filter(None, parts))), *(("Note", note) for note in notes_of(specimen, write))]
