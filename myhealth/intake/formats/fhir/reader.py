"""Read FHIR R4 resources: a report with its results, a panel with its members, or an Observation alone is one record.

Source: HL7 FHIR R4 (4.0.1).
"""

from collections.abc import Iterator

from myhealth.intake.formats import json_reader
from myhealth.intake.formats.fhir.bundle import (
    Entry,
    KnownPatients,
    Scope,
    read_bundle,
    slice_bundle,
    slice_nested,
    small_bundle,
)
from myhealth.intake.formats.fhir.element import bundle_fault, resource_fault, wrapping_fault
from myhealth.intake.formats.fhir.grouping import count_contained, find_heads, gather
from myhealth.intake.formats.fhir.patients import teach
from myhealth.intake.formats.fhir.record import read_deleted, read_group
from myhealth.intake.formats.fhir.resources import Resources, outcome_notes
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.json_reader import JsonBuffer
from myhealth.intake.parsed_record import ParsedRecord

NOTICES_MAX = 100
OF_TESTS = "some resources are marked as test data (HTEST in meta): their results are stored like others"


def read_fhir(window: JsonBuffer, dump: Dump) -> Iterator[ParsedRecord]:
    """Return the records of a FHIR resource, of several resources (NDJSON), or of a list of them, in their order.

    `dump.skipped` counts, by kind, the resources that are not a patient's results ("Patient", "Observation about a
    Device"), `dump.notices` says what is missing, and `dump.known` keeps the patients for what follows. A record that
    cannot be read has faults, with fields as in FHIRPath. Memory grows with the text of a Bundle, because its entries
    may refer to each other, but not with the number of resources. Time grows with the length of the source.

    Raises BadInput if the source is broken so that nothing further can be found. A broken Bundle longer than RECORD_MAX
    gives no record at all, because a report may lack some of its results. Raises TooLarge if a Bundle has too many
    entries, or its records share too many.
    """
    read = _read_list if window.peek() == "[" else _read_values
    for index, parsed in enumerate(read(window, dump)):
        parsed.index = index
        yield parsed


def _read_values(window: JsonBuffer, dump: Dump) -> Iterator[ParsedRecord]:
    while window.peek():
        yield from _next_value(window, dump)
    dump.truncated = json_reader.truncation(window)


def _read_list(window: JsonBuffer, dump: Dump) -> Iterator[ParsedRecord]:
    """Return the records of a list of resources, each by itself."""
    for parsed in json_reader.read_list(window):
        yield from _read_value(parsed, dump)
    json_reader.require_end(window)


def _next_value(window: JsonBuffer, dump: Dump) -> Iterator[ParsedRecord]:
    resources = Resources()
    entries = read_bundle(window, resources)
    if entries is not None:
        yield from _read_bundle(entries, resources, dump)
        return
    yield from _read_value(window.read_record(0, by_line=True), dump)


def _read_value(parsed: ParsedRecord, dump: Dump) -> Iterator[ParsedRecord]:
    """Return the records of one resource."""
    resource = parsed.decoded()
    fault = None if parsed.faults else resource_fault(resource)
    if fault is None and not parsed.faults and resource["resourceType"] == "Bundle":
        fault = bundle_fault(resource)
        if fault is None:
            resources = Resources()
            yield from _read_bundle(slice_bundle(parsed.raw, parsed.line, resources), resources, dump)
            return
    if fault is None and not parsed.faults:
        fault = wrapping_fault(resource)
        if fault is None and resource["resourceType"] == "Parameters":  # in a Bundle, an operation's answer
            fault = "Parameters", "has no resource, so there is no result in it"
    if fault:
        parsed.faults.append(fault)
    if parsed.faults:
        parsed.record = None
        yield parsed
    else:
        raw = f'{{"resource":{parsed.raw}}}'
        entry = Entry(Resources(), raw, parsed.line, alone=resource).describe(resource)
        yield from _read_scope([entry], dump, alone=parsed.raw)


def _read_bundle(entries: list[Entry], resources: Resources, dump: Dump) -> Iterator[ParsedRecord]:
    """Return the records of a Bundle, then those of the Bundles in it (answers to a batch of searches)."""
    waiting = [entries]
    while waiting:
        entries = waiting.pop(0)
        if not entries:
            dump.skipped["empty Bundle"] += 1
        waiting += [slice_nested(entry) for entry in entries if entry.kind == "Bundle"]
        dump.notices += resources.notes
        resources.notes.clear()
        yield from _read_scope([entry for entry in entries if entry.kind != "Bundle"], dump)


def _read_scope(entries: list[Entry], dump: Dump, *, alone: str = "") -> Iterator[ParsedRecord]:
    """Yield the records that these entries of one Bundle make. `alone`: the text of a resource without a Bundle."""
    if dump.known is None:
        dump.known = KnownPatients()
    for entry in entries:
        if entry.kind == "OperationOutcome" and not entry.fault and len(dump.notices) < NOTICES_MAX:
            dump.notices += outcome_notes(entry)
    if OF_TESTS not in dump.notices and any('"HTEST"' in entry.raw for entry in entries):
        dump.notices.append(OF_TESTS)
    scope = Scope(entries, dump.known)
    heads = find_heads(scope, dump.skipped)
    for entry in entries:
        if entry.fault:
            raw, own = small_bundle([entry]), {entry.number: ""}
            yield ParsedRecord(0, entry.line, raw, None, [entry.fault], entries=own)
        elif id(entry) in heads:
            if entry.deleted:
                yield read_deleted(entry)
                continue
            group = gather(scope, entry, in_circle=heads[id(entry)])
            count_contained(group, dump.skipped)
            yield read_group(group, dump.zone, alone=alone)
    dump.people.extend(teach(entries, dump.known))
