"""Importing a machine's file: from bytes to outcomes, batch by batch, in bounded memory."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import BinaryIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from myhealth.common.concurrency import prefetch
from myhealth.common.errors import BadInput
from myhealth.intake.formats.detect import Dump, read_dump
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import ImportSource, RecordResult
from myhealth.machines.services import register_machine

BATCH_RECORDS = 5000
# A batch ends early when its records are large: what is in memory at once stays bounded.
BATCH_CHARACTERS = 8 * 1024 * 1024


@dataclass(frozen=True)
class ImportOptions:
    """How a file is to be read and taken in; see `read_dump` and `Origin`. `zone`: as `read_zone` takes it."""

    format: str = ""
    machine: str = ""
    patient: str | None = None
    patient_map: Mapping[str, str] = field(default_factory=dict)
    zone: str = "UTC"
    create_patients: bool = False
    dry_run: bool = False


class FileImport:
    """One file on its way in. Iterating takes it in and gives each batch once it is committed.

    `dump`: what is known of the file; `stored`: how many records were accepted or duplicates so far. A file that is
    broken further on raises BadInput after the batches that came before it: those are stored. Raises Unavailable where
    the database goes away; importing again finishes the job.
    """

    def __init__(self, source: BinaryIO, name: str, options: ImportOptions) -> None:
        self.options = options
        self.dump: Dump = read_dump(
            source, format=options.format, machine=options.machine, zone=read_zone(options.zone)
        )
        self.stored = 0
        self._intake = Intake(
            ImportSource(
                source=name,
                machine=self.dump.serial,
                format=self.dump.format,
                derive_ids=True,
                create_patients=options.create_patients,
                dry_run=options.dry_run,
                patient=options.patient,
                patient_map=options.patient_map,
                zone=options.zone,
            )
        )

    @property
    def created(self) -> int:
        """How many patients were made so far."""
        return self._intake.created

    def __iter__(self) -> Iterator[list[tuple[ParsedRecord, RecordResult]]]:
        if len(self.dump.machine) > 1 and not self.options.dry_run:  # it says more of its machine than the serial
            register_machine(**self.dump.machine)
        broken: list[BadInput] = []
        checked = map(self._intake.check, _batches(_until_broken(self.dump.readings, broken)))
        with prefetch(checked, 1) as batches:  # the next batch is read and checked while PostgreSQL stores this one
            for batch in batches:
                outcomes = self._intake.store(batch)
                self.stored += sum(outcome.status != "rejected" for outcome in outcomes)
                yield [(item.reading, outcome) for item, outcome in zip(batch, outcomes, strict=True)]
        if broken:
            raise broken[0]


def read_zone(name: str) -> tzinfo:
    """A zone by its name in the tz database (Asia/Kolkata) or its distance from UTC (+05:30). Raises BadInput."""
    if name.upper() in ("UTC", "Z"):
        return UTC
    if name[:1] in "+-":
        try:
            zone = datetime.fromisoformat(f"2000-01-01T00:00{name}").tzinfo
        except ValueError as error:
            raise BadInput(f"{name!r} is not a zone; one is like +05:30") from error
        return zone or UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadInput(f"{name!r} is not a zone; one is like Asia/Kolkata or +05:30") from error


def read_patient_map(lines: Iterable[str]) -> dict[str, str]:
    """Usernames by the names that machines have for their patients, from CSV with the columns `patient` and `username`.

    Raises BadInput naming the line where the header is another, a cell is empty, or a patient is named twice.
    """
    reader = csv.DictReader(lines, strict=True)
    found: dict[str, str] = {}
    try:
        if set(reader.fieldnames or ()) != {"patient", "username"}:
            raise BadInput("line 1: the header must be patient,username")
        for row in reader:
            patient, username = ((row.get(name) or "").strip() for name in ("patient", "username"))
            if not patient or not username or None in row:
                raise BadInput(f"line {reader.line_num}: it must have a patient and a username")
            if found.setdefault(patient, username) != username:
                raise BadInput(f"line {reader.line_num}: {patient} is mapped twice")
    except csv.Error as error:
        raise BadInput(f"line {reader.line_num}: {error}") from error
    return found


def _until_broken(readings: Iterator[ParsedRecord], broken: list[BadInput]) -> Iterator[ParsedRecord]:
    """Ends where the source is broken, so that the batch under way is stored first."""
    try:
        yield from readings
    except BadInput as error:
        broken.append(error)


def _batches(readings: Iterator[ParsedRecord]) -> Iterator[list[ParsedRecord]]:
    batch: list[ParsedRecord] = []
    characters = 0
    for reading in readings:
        batch.append(reading)
        characters += len(reading.raw)
        if len(batch) >= BATCH_RECORDS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
