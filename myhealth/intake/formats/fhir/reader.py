"""Read FHIR R4 resources: a report with its results, a panel with its members, or an Observation alone is one record.

Source: HL7 FHIR R4 (4.0.1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import tzinfo

from myhealth.intake.formats import json_reader
from myhealth.intake.formats.fhir.bundle import (
    Entry,
    Resources,
    Scope,
    bundle_fault,
    read_bundle,
    resource_fault,
    slice_bundle,
    slice_nested,
    small_bundle,
)
from myhealth.intake.formats.fhir.grouping import count_contained, find_heads, gather
from myhealth.intake.formats.fhir.record import read_group
from myhealth.intake.formats.format import ONE_A_LINE, Format
from myhealth.intake.formats.json_reader import JsonBuffer
from myhealth.intake.parsed_record import ParsedRecord


def read_fhir(window: JsonBuffer, zone: tzinfo, skipped: Counter[str]) -> Iterator[ParsedRecord]:
    """Return the records of a FHIR resource, of several resources (NDJSON), or of a list of them, in their order.

    `zone`: the zone of moments that name none. `skipped` counts, by kind, the resources that are not results
    ("Patient", "Observation entered in error"). A record that cannot be read has faults, with fields as in FHIRPath.
    Memory grows with the text of a Bundle, because its entries may refer to each other, but not with the number of
    resources. Time grows with the length of the source.

    Raises BadInput if the source is broken so that nothing further can be found. A broken Bundle longer than RECORD_MAX
    gives no record at all, because a report may lack some of its results. Raises TooLarge if a Bundle has too many
    entries, or its records share too many.
    """
    read = _read_list if window.peek() == "[" else _read_values
    for index, parsed in enumerate(read(window, zone, skipped)):
        parsed.index = index
        yield parsed


def _read_values(window: JsonBuffer, zone: tzinfo, skipped: Counter[str]) -> Iterator[ParsedRecord]:
    while window.peek():
        yield from _next_value(window, zone, skipped)


def _read_list(window: JsonBuffer, zone: tzinfo, skipped: Counter[str]) -> Iterator[ParsedRecord]:
    """Return the records of a list of resources, each by itself."""
    for parsed in json_reader.read_list(window):
        yield from _read_value(parsed, zone, skipped)
    json_reader.require_end(window)


def _next_value(window: JsonBuffer, zone: tzinfo, skipped: Counter[str]) -> Iterator[ParsedRecord]:
    entries = read_bundle(window, Resources())
    if entries is not None:
        yield from _read_bundle(entries, zone, skipped)
        return
    yield from _read_value(window.read_record(0, by_line=True), zone, skipped)


def _read_value(parsed: ParsedRecord, zone: tzinfo, skipped: Counter[str]) -> Iterator[ParsedRecord]:
    """Return the records of one resource."""
    resource = parsed.decoded()
    fault = None if parsed.faults else resource_fault(resource)
    if fault is None and not parsed.faults and resource["resourceType"] == "Bundle":
        fault = bundle_fault(resource)
        if fault is None:
            yield from _read_bundle(slice_bundle(parsed.raw, parsed.line, Resources()), zone, skipped)
            return
    if fault:
        parsed.faults.append(fault)
    if parsed.faults:
        parsed.record = None
        yield parsed
    else:
        entry = Entry(Resources(), parsed.raw, parsed.line, alone=resource).describe(resource)
        yield from _read_scope([entry], zone, skipped, alone=True)


def _read_bundle(entries: list[Entry], zone: tzinfo, skipped: Counter[str]) -> Iterator[ParsedRecord]:
    """Return the records of a Bundle, then those of the Bundles in it (answers to a batch of searches)."""
    waiting = [entries]
    while waiting:
        entries = waiting.pop(0)
        if not entries:
            skipped["empty Bundle"] += 1
        waiting += [slice_nested(entry) for entry in entries if entry.kind == "Bundle"]
        yield from _read_scope([entry for entry in entries if entry.kind != "Bundle"], zone, skipped)


def _read_scope(
    entries: list[Entry], zone: tzinfo, skipped: Counter[str], *, alone: bool = False
) -> Iterator[ParsedRecord]:
    """Return the records of these entries. `alone`: the entry is one resource that was not in a Bundle."""
    scope = Scope(entries)
    heads = find_heads(scope, skipped)
    for entry in entries:
        if entry.fault:
            yield ParsedRecord(0, entry.line, small_bundle([entry]), None, [entry.fault])
        elif id(entry) in heads:
            group = gather(scope, entry, in_circle=heads[id(entry)])
            count_contained(group, skipped)
            yield read_group(group, zone, alone=alone)


FHIR = Format(
    "fhir",
    "application/json",
    detect=lambda source: "resourceType" in source.json_start.names,
    read=lambda source, dump: read_fhir(JsonBuffer(source.stream()), dump.zone, dump.skipped),
    write_rejected=lambda dump: ONE_A_LINE,
    has_record_numbers=True,
)
