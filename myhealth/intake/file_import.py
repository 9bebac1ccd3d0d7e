"""Import a machine's file: from bytes to stored records, batch by batch, in bounded memory."""

import contextlib
from collections.abc import Collection, Iterable, Iterator
from typing import Any, BinaryIO

from msgspec import Struct, field

from myhealth.audit.events import record_event
from myhealth.common.concurrency import prefetch, relaxed_gc
from myhealth.common.database import transaction
from myhealth.common.errors import BadInput, MyHealthError, Unavailable
from myhealth.intake.formats.detect import read_dump
from myhealth.intake.formats.tables.layout import GUESSED, Layout, dump_layout
from myhealth.intake.formats.terminology import read_zone
from myhealth.intake.machine_layouts import use_layout_of_machine
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.patient_map import PatientMap
from myhealth.intake.pipeline import Intake, Rollback
from myhealth.intake.rejections import resolve_stored
from myhealth.intake.results import ImportSource, RecordResult, counts
from myhealth.machines.services import register_machine

BATCH_RECORDS = 5000
# A batch ends early if its records are large, so that memory stays bounded.
BATCH_CHARACTERS = 8 * 1024 * 1024


class ImportOptions(Struct, frozen=True):
    """How to read a file and store its records; see `read_dump` and `ImportSource`. `zone`: as for `read_zone`."""

    format: str = ""
    machine: str = ""
    patient: str | None = None
    patient_map: PatientMap = field(default_factory=PatientMap)
    own_authorities: Collection[str] = ()
    zone: str = "UTC"
    create_patients: bool = False
    dry_run: bool = False
    include_training: bool = False
    layout: Layout = GUESSED


class FileImport:
    """The import of one file. Iterating stores it, and gives each batch after its commit. A dry run does the same in
    one transaction, and undoes it.

    `dump`: the file; `counts`: the number of records so far by their status. If the file is broken further on, raises
    BadInput after the batches before that place, which are stored. Raises Unavailable if the database becomes
    unavailable; importing the file again finishes the job.
    """

    def __init__(self, source: BinaryIO, name: str, options: ImportOptions) -> None:
        self.name = name
        self.options = options
        self.dump = read_dump(
            source,
            format=options.format,
            machine=options.machine,
            zone=read_zone(options.zone),
            include_training=options.include_training,
            layout=options.layout,
            patient_given=options.patient is not None,
        )
        use_layout_of_machine(self.dump)
        self.counts = counts([])
        self._intake = Intake(
            ImportSource(
                source=name,
                machine=self.dump.serial,
                format=self.dump.format.name,
                derive_ids=True,
                create_patients=options.create_patients,
                dry_run=options.dry_run,
                patient=options.patient,
                patient_map=options.patient_map,
                zone=options.zone,
                layout=dump_layout(self.dump.layout),
                own_authorities=options.own_authorities,
            ),
            self.dump.people,
        )

    @property
    def stored(self) -> int:
        """The number of records so far that are in the database now."""
        return self.counts["accepted"] + self.counts["duplicate"]

    @property
    def created(self) -> int:
        """The number of patients created so far."""
        return self._intake.created

    def __iter__(self) -> Iterator[list[tuple[ParsedRecord, RecordResult]]]:
        if not self.options.dry_run:
            yield from self._store()
            return
        with contextlib.suppress(Rollback), transaction():  # so that each batch finds the ones before it
            yield from self._store()
            raise Rollback

    def _store(self) -> Iterator[list[tuple[ParsedRecord, RecordResult]]]:
        if self.dump.describes_machine and not self.options.dry_run:
            register_machine(**self.dump.machine)
        # A thread reads and checks the next batch while PostgreSQL stores this one.
        with relaxed_gc(), prefetch(map(self._intake.validate, read_batches(self.dump.records)), 1) as batches:
            for batch in batches:
                results = self._intake.store_validated(batch)
                for status, count in counts(results).items():
                    self.counts[status] += count
                yield [(item.parsed, result) for item, result in zip(batch, results, strict=True)]
        self._intake.learn_people()
        if self.counts["accepted"] and not self.options.dry_run:
            resolve_stored()


@contextlib.contextmanager
def audited_import(source: BinaryIO, name: str, options: ImportOptions) -> Iterator[FileImport]:
    """Open a file for import. When the block ends, log one audit event; after an error only if records were processed.

    Raises BadInput if the file cannot be read, as FileImport does.
    """
    started = FileImport(source, name, options)
    try:
        yield started
    except Unavailable:  # the database cannot store the event either
        raise
    except BaseException:  # also Ctrl-C: what was stored until then is logged
        if any(started.counts.values()):
            with contextlib.suppress(MyHealthError):
                _record_import(started, ended=False)
        raise
    _record_import(started, ended=True)


def _record_import(done: FileImport, *, ended: bool) -> None:
    details: dict[str, Any] = {"source": done.name, "ended": ended, **done.counts}
    if not done.options.dry_run:
        record_event("import", machine=done.dump.serial, **details)


def read_batches(
    records: Iterable[ParsedRecord], characters_max: int = BATCH_CHARACTERS, records_max: int = BATCH_RECORDS
) -> Iterator[list[ParsedRecord]]:
    """Group records into batches; one ends when it has so many characters or records. If the source is broken, give the
    records before that place, then raise BadInput."""
    batch: list[ParsedRecord] = []
    characters = 0
    try:
        for parsed in records:
            batch.append(parsed)
            characters += len(parsed.raw)
            if len(batch) >= records_max or characters >= characters_max:
                yield batch
                batch, characters = [], 0
    except BadInput:
        if batch:
            yield batch
        raise
    if batch:
        yield batch
