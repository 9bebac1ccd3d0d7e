"""Import a machine's file: from bytes to stored records, batch by batch, in bounded memory.

It reads a table by the layout that was chosen for its machine, previews the records that would be stored, and writes
the file of rejected records in the format in which they came, ready to be corrected and imported again.
"""

import contextlib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from msgspec import Struct, field
from msgspec.structs import replace

from myhealth.audit.events import record_event
from myhealth.common.concurrency import prefetch, relaxed_gc
from myhealth.common.errors import BadInput, MyHealthError, Unavailable
from myhealth.common.text import printable
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.registry import CSV, read_dump
from myhealth.intake.formats.tables.layout import (
    BESIDE_LAYOUT,
    GUESSED,
    Layout,
    check_layout,
    dump_layout,
    parse_layout,
)
from myhealth.intake.formats.terminology import read_zone
from myhealth.intake.identity import PatientMap
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.pipeline import Intake, read_batches
from myhealth.intake.rejections import resolve_stored
from myhealth.intake.results import ImportSource, RecordResult, counts
from myhealth.machines.services import find_machine, register_machine

PREVIEWED = 10
MOMENT = re.compile(r"(.{10})T(.{5})(?::[0-9.]*)?([+-].*|Z)")
PREVIEW_COLUMNS = ("line", "outcome", "patient", "taken", "results")


def preview_row(parsed: ParsedRecord, result: RecordResult) -> list[str]:
    """Return the cells of PREVIEW_COLUMNS for one record; of a rejected one the reasons instead of the results."""
    found = parsed.decoded()
    record: dict[str, Any] = found if isinstance(found, dict) else {}
    taken = str(record.get("taken_at") or "")[: 10 if record.get("taken_precision") == "day" else None]
    if match := MOMENT.fullmatch(taken):
        taken = " ".join(match.groups())
    words = [_in_words(each) for each in record.get("results") or ()] or [record.get("checkup_report") or ""]
    if result.errors:
        words = [": ".join(filter(None, (each["field"], each["message"]))) for each in result.errors]
    cells = (parsed.line, result.status, record.get("checkup_for") or "", taken, "; ".join(words))
    return [printable(str(cell)) for cell in cells]


def _in_words(result: dict[str, Any]) -> str:
    code = result.get("code") or result.get("other_code")
    words = " ".join(str(each) for each in (result["name"], result["value"], result.get("unit")) if each is not None)
    return f"{words} ({code})" if code else words


def use_layout_of_machine(dump: Dump) -> None:
    """Read a table that came without a layout by the layout of its machine, if the machine has one."""
    asked = dump.layout
    if dump.serial is None or asked.is_given or asked.kind:
        return
    machine = find_machine(dump.serial)
    if machine is not None and machine.layout:
        layout = parse_layout(machine.layout)
        named = {name: value for name in BESIDE_LAYOUT if (value := getattr(asked, name))}
        dump.layout = check_layout(replace(layout, **named))


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
    """The import of one file. Iterating stores it, and gives each batch after its commit. A dry run undoes each
    batch at once.

    `dump`: the file; `counts`: the number of records so far by their status; `resolved`: at the end, how many records
    that were rejected before are stored now. If the file is broken further on, raises
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
        if self.dump.format is CSV:
            use_layout_of_machine(self.dump)
        self.counts = counts([])
        self.resolved = 0
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
        if len(self.dump.machine) > 1 and not self.options.dry_run:
            register_machine(**self.dump.machine)
        # A thread reads and checks the next batch while PostgreSQL stores this one.
        with relaxed_gc(), prefetch(map(self._intake.validate, read_batches(self.dump.records)), 1) as batches:
            for batch in batches:
                self._intake.origin.layout = dump_layout(self.dump.layout)  # with what its first rows told
                results = self._intake.store_validated(batch)
                for status, count in counts(results).items():
                    self.counts[status] += count
                yield [(item.parsed, result) for item, result in zip(batch, results, strict=True)]
        self._intake.learn_people()
        if self.counts["accepted"] and not self.options.dry_run:
            self.resolved = resolve_stored()
        if self.dump.truncated:
            raise BadInput(self.dump.truncated)


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


class RejectedFile:
    """A file that is created when the first record is added; closing it writes its end."""

    def __init__(self, path: Path, dump: Dump) -> None:
        """Raises BadInput if the file exists: it may contain corrections that are not imported yet."""
        if path.exists():
            raise BadInput(f"{path} is there already; move it away first, it may hold what is not imported yet")
        self.path = path
        self._dump = dump
        self._file: BinaryIO | None = None

    def add(self, parsed: ParsedRecord) -> None:
        """Raises BadInput if it cannot be written."""
        layout = self._dump.format.write_rejected(self._dump)
        with self._writing():
            if self._file is None:
                self._file = self.path.open("xb")
                self._file.write(layout.before)
            else:
                self._file.write(layout.between)
            self._file.write(layout.encode(parsed))

    def close(self) -> None:
        """Write the end of the file. Raises BadInput if it cannot be written."""
        if self._file is not None:
            with self._writing(), self._file as file:
                file.write(self._dump.format.write_rejected(self._dump).after)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BadInput(f"{self.path} cannot be written: {error.strerror or error}") from error
