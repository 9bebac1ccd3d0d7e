"""FHIR R4 resources as records: a report with its results, a panel with its members, or an Observation alone.

Source: HL7 FHIR R4 (4.0.1); DESIGN.md, "Source of truth" and "A machine-memory dump" for what a record is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import tzinfo
from json import JSONDecodeError
from typing import Any

from myhealth.intake.formats import json_reader
from myhealth.intake.formats.fhir.bundle import (
    Entry,
    Scope,
    bundle_fault,
    entry_of,
    read_entries,
    resource_fault,
    slice_bundle,
    slice_nested,
    small_bundle,
)
from myhealth.intake.formats.fhir.grouping import FhirGroup, find_groups
from myhealth.intake.formats.fhir.report import record_id_of, report_of, taken_at_of
from myhealth.intake.formats.fhir.subjects import machine_of, patient_of, performer_of
from myhealth.intake.formats.fhir.values import name_of, results_of
from myhealth.intake.formats.format import ONE_A_LINE, Format
from myhealth.intake.formats.json_reader import JsonBuffer
from myhealth.intake.parsed_record import ParsedRecord

BUNDLE_START = re.compile(r'\{\s*"resourceType"\s*:\s*"Bundle"')


def read_fhir(window: JsonBuffer, zone: tzinfo, skipped: Counter[str]) -> Iterator[ParsedRecord]:
    """The records of a FHIR resource, of one resource after another (NDJSON), or of a list of them, in their order.

    `zone`: what moments without a zone are in. `skipped` counts by kind what is no result ("Patient", "Observation
    entered in error"). What cannot be read is a reading with faults, their fields as FHIRPath writes them. Memory
    grows with a Bundle, for anything in it may refer to anything else, but not with the number of resources.

    Raises BadInput where the source is broken in a way that nothing further can be found; a Bundle that is longer
    than a record may be and is broken anywhere gives nothing at all, lest a report lose some of its results.
    """
    read = _read_list if window.peek() == "[" else _read_values
    for index, reading in enumerate(read(window, zone, skipped)):
        reading.index = index
        yield reading


def _read_values(window: JsonBuffer, zone: tzinfo, skipped: Counter[str]) -> Iterator[ParsedRecord]:
    while window.peek():
        yield from _next_value(window, zone, skipped)


def _read_list(window: JsonBuffer, zone: tzinfo, skipped: Counter[str]) -> Iterator[ParsedRecord]:
    """The resources of a bare list, each for itself."""
    for reading in json_reader.read_list(window):
        yield from _read_value(reading, zone, skipped)
    json_reader.require_end(window)


def _next_value(window: JsonBuffer, zone: tzinfo, skipped: Counter[str]) -> Iterator[ParsedRecord]:
    if _is_long_bundle(window):
        yield from _read_bundle([entry_of(item) for item in read_entries(window)], zone, skipped)
        return
    yield from _read_value(window.reading(0, by_line=True), zone, skipped)


def _read_value(reading: ParsedRecord, zone: tzinfo, skipped: Counter[str]) -> Iterator[ParsedRecord]:
    """The records of one resource."""
    resource = reading.decoded()
    fault = None if reading.faults else resource_fault(resource)
    if fault is None and not reading.faults and resource["resourceType"] == "Bundle":
        fault = bundle_fault(resource)
        if fault is None:
            yield from _read_bundle(list(slice_bundle(resource, reading.raw, reading.line)), zone, skipped)
            return
    if fault:
        reading.faults.append(fault)
    if reading.faults:
        reading.record = None
        yield reading
    else:
        yield from _read_scope([Entry(resource, reading.raw, reading.line)], zone, skipped, alone=True)


def _is_long_bundle(window: JsonBuffer) -> bool:
    """Whether a Bundle stands there too long for one text begins here and is well-formed so far."""
    if not BUNDLE_START.match(window.text, window.position):
        return False
    while True:
        try:
            _, end = json_reader.SCANNER.raw_decode(window.text, window.position)
        except JSONDecodeError as error:
            broken = error.pos + json_reader.LITERAL_MAX < len(window.text)
            if broken and not error.msg.startswith("Unterminated string"):
                return False
        except RecursionError:
            return False
        else:
            return end - window.position > json_reader.RECORD_MAX
        if len(window.text) - window.position > json_reader.RECORD_MAX:
            return True
        if not window.more():
            return False


def _read_bundle(entries: list[Entry], zone: tzinfo, skipped: Counter[str]) -> Iterator[ParsedRecord]:
    """The records of a Bundle, then those of the Bundles in it (answers to a batch of searches)."""
    waiting = [entries]
    while waiting:
        entries = waiting.pop(0)
        if not entries:
            skipped["empty Bundle"] += 1
        waiting += [list(slice_nested(entry)) for entry in entries if entry.kind == "Bundle"]
        yield from _read_scope([entry for entry in entries if entry.kind != "Bundle"], zone, skipped)


def _read_scope(
    entries: list[Entry], zone: tzinfo, skipped: Counter[str], *, alone: bool = False
) -> Iterator[ParsedRecord]:
    """The records of these entries. `alone`: it is one resource, that stood in no Bundle."""
    groups = find_groups(Scope(entries), skipped)
    for entry in entries:
        if entry.fault:
            yield ParsedRecord(0, entry.line, small_bundle([entry]), None, [entry.fault])
        elif id(entry) in groups:
            yield _read_group(groups.pop(id(entry)), zone, alone=alone)


def _read_group(group: FhirGroup, zone: tzinfo, *, alone: bool) -> ParsedRecord:
    """The record of a group. Its text holds every entry that was looked at."""
    patients, full_name = patient_of(group)
    machine, machines = machine_of(group)
    moment = taken_at_of(group, zone)
    record: dict[str, Any] = {
        "checkup_for": patients[0] if patients else None,
        "machine": machine,
        "record_id": record_id_of(group),
        "taken_at": moment.text if moment else None,
        "checkup_type": name_of(group.top),
        "disease": _category(group),
        "checkup_report": report_of(group, moment, machines),
        "results": [result for _, part in group.observations for result in results_of(part)],
    }
    record = {name: value for name, value in record.items() if value is not None}
    record["taken_by"] = performer_of(group)
    raw = group.head.raw if alone else group.text()
    faults = list(dict.fromkeys(group.faults))
    return ParsedRecord(0, group.head.line, raw, record, faults, tuple(patients), full_name)


def _category(group: FhirGroup) -> str:
    """What the report or the Observation is sorted under, in words; "" where it is not, or by a bare code."""
    for category in group.top.parts("category"):
        told = [category.text("text"), *(coding.text("display") for coding in category.parts("coding"))]
        for text in told:
            if text.strip():
                return text
    return ""


FHIR = Format(
    "fhir",
    "application/json",
    detect=lambda source: "resourceType" in source.json_start.names,
    read=lambda source, dump: read_fhir(JsonBuffer(source.stream()), dump.zone, dump.skipped),
    write_rejected=lambda dump: ONE_A_LINE,
    has_record_numbers=True,
)
