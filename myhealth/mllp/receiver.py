"""Store one message through the intake, as a file's import does, and say what became of it."""

import io
import logging
import re
import traceback
from collections.abc import Collection, Iterable, Sequence
from typing import Any

# Loaded at start, not for the first message: code may be replaced under a running server.
from msgspec import Struct, field
from msgspec.structs import replace

import myhealth.intake.formats.hl7v2.reader  # noqa: F401
from myhealth.audit.events import Actor, acting_as
from myhealth.common.addresses import is_trusted, parse_networks
from myhealth.common.database import database
from myhealth.common.errors import BadInput, SettingsError, Unavailable
from myhealth.common.text import printable
from myhealth.intake.formats.format import Dump
from myhealth.intake.formats.hl7v2.segments import Segment
from myhealth.intake.formats.registry import read_dump
from myhealth.intake.formats.terminology import read_zone
from myhealth.intake.identity import PatientMap
from myhealth.intake.parsed_record import ParsedRecord
from myhealth.intake.pipeline import Intake
from myhealth.intake.results import ImportSource, RecordResult
from myhealth.machines.services import serial_fault
from myhealth.mllp.protocol import FS, LINE_END, VT, Problem, Verdict, acknowledge, read_head


class Senders:
    """The serials of machines by sender. `given`: SENDER=SERIAL, where the sender is an address, a network, MSH-3 or
    MSH-3@MSH-4; or SERIAL, for all others. Raises BadInput."""

    def __init__(self, given: Iterable[str] = ()) -> None:
        self._names: dict[str, str] = {}
        self._networks: dict[str, str] = {}
        for text in given:
            sender, _, serial = text.rpartition("=")
            if fault := serial_fault(serial):
                raise BadInput(f"{text!r}: {fault}")
            known = self._networks if _is_network(sender) else self._names
            if known.setdefault(sender, serial) != serial:
                raise BadInput(f"{text!r}: the sender has another machine already")

    def serial(self, address: str, application: str, facility: str) -> str:
        """Return the serial of a sender's machine, "" if none is known: by its address, else by its names."""
        by_address = (serial for network, serial in self._networks.items() if is_trusted(address, network))
        named = self._names.get(f"{application}@{facility}") or (application and self._names.get(application))
        return next(by_address, "") or named or self._names.get("", "")

    def is_elsewhere(self, serial: str) -> bool:
        """Return whether only other addresses may send for a machine that a message names."""
        return serial in self._networks.values()


def _is_network(sender: str) -> bool:
    try:
        return bool(parse_networks(sender))
    except SettingsError:
        return False


log = logging.getLogger(__name__)

PLACE = re.compile(r"([A-Z][A-Z0-9]{2})(?:\[([0-9]+)\])?(?:-([0-9]+))?")
SECOND_MESSAGE = re.compile(rb"[\r\n][ \t\f]*MSH[^\w\s]")
# These segments follow the OBR of their record; the others precede it.
BEHIND = ("OBX", "NTE", "SPM")
ACKNOWLEDGEMENTS = ("ACK", "MCF", "NAK")  # never answered, or two systems would answer each other for ever
UNKNOWN_PATIENT = (
    "unknown_user", "identifier_unconfirmed", "identity_conflict", "ambiguous_user", "account_not_linked"
)  # fmt: skip
CODES = {**dict.fromkeys(UNKNOWN_PATIENT, "204"), "stored_with_other_content": "205", "deleted_here": "205"}
MISSING = re.compile("is (missing|empty)")


class Receiver(Struct):
    """How messages are read and stored; see ImportOptions."""

    senders: Senders = field(default_factory=Senders)
    patient_map: PatientMap = field(default_factory=PatientMap)
    zone: str = "UTC"
    own_authorities: Collection[str] = ()
    create_patients: bool = False
    include_training: bool = False

    def answer(self, message: bytes, address: str) -> tuple[str, list[bytes]]:
        """Store a message. Return the code of its acknowledgement, and what to send back, once all is committed.

        Raises Unavailable and SettingsError if it cannot be stored for now. Then answer nothing: senders repeat what
        nobody acknowledged, and many take any acknowledgement, also of an error, for the end of the matter.
        """
        head = read_head(message)
        if head is not None and head.text(9) in ACKNOWLEDGEMENTS:
            return "ACK", []
        try:
            verdict = self._verdict(message, head, address)
        except (Unavailable, SettingsError):
            raise
        except Exception as error:  # noqa: BLE001 - a message that meets any error must not end the listener
            # Its text may quote the record, so it is not logged.
            where = traceback.extract_tb(error.__traceback__)[-1]
            log.error("a message met %s in %s, line %s", type(error).__name__, where.name, where.lineno)
            text = "it met an error of the receiver, and may not be stored"
            verdict = Verdict("AE", text, [Problem("207", text)], is_safe=False)
        finally:
            if database.obj is not None and not database.is_closed():
                database.close()  # for the next thread
        return verdict.code, acknowledge(head, verdict)

    def _verdict(self, message: bytes, head: Segment | None, address: str) -> Verdict:
        if head is None:
            return refused("100", "it is not an HL7 v2 message: that begins with MSH and its delimiters", "1")
        if SECOND_MESSAGE.search(message):
            return refused("100", "it is more than one message: send each in a frame of its own", "2")
        # in a frame, so that its last segment is known to be whole
        source, zone = io.BytesIO(VT + message + FS), read_zone(self.zone)
        try:
            dump = read_dump(source, format="hl7", zone=zone, include_training=self.include_training)
            records = list(dump.records)
            if not records:
                return _without_records(dump, head)
            origin, actor = self._origin(head, address)
            if not origin.machine and any(map(self.senders.is_elsewhere, _machines(records))):
                return refused("207", "it names a machine that sends from another address", "3")
            with acting_as(actor):
                results = Intake(origin).store_batch(records)
        except BadInput as error:
            return refused("207", error.message)
        return _verdict_of(message, records, results, dump)

    def _origin(self, head: Segment, address: str) -> tuple[ImportSource, Actor]:
        application, facility = head.text(3), head.text(4)
        serial = self.senders.serial(address, application, facility)
        origin = ImportSource(
            f"MLLP from {address}", format="hl7", derive_ids=True, names_fields=False, log_upload=True
        )
        origin.zone, origin.create_patients, origin.patient_map = self.zone, self.create_patients, self.patient_map
        origin.machine, origin.overrides_machine = serial or None, bool(serial)
        origin.own_authorities = self.own_authorities
        sender = printable(serial or "@".join(filter(None, (application, facility))) or "an analyzer", 100)
        return origin, Actor(None, f"{sender} over MLLP", address)


def _machines(records: Sequence[ParsedRecord]) -> set[str]:
    """Return the serials that the records of a message name."""
    return {str(each.record.get("machine")) for each in records if isinstance(each.record, dict)}


def refused(code: str, text: str, field: str = "") -> Verdict:
    """Return the verdict on a message that is not taken. `field`: the number of a field of MSH."""
    return Verdict("AR", text, [Problem(code, text, ("MSH", "1", field) if field else ())])


def _without_records(dump: Dump, head: Segment) -> Verdict:
    """Return the verdict on a message without results of a patient: quality control is passed over, as in a file."""
    found = ", ".join(sorted(dump.skipped))
    if "training" in dump.skipped or "debugging" in dump.skipped:
        return refused("202", f"it is for {found}, which is not taken", "11")
    kind = "^".join(filter(None, (head.text(9, 1), head.text(9, 2))))
    if not kind:
        return refused("101", "it does not say its type (MSH-9)", "9")
    if printable(kind, 60) in dump.skipped:
        return refused("200", f"it brings no results: {found}", "9")
    return Verdict("AA", f"passed over, nothing to store: {found}")


def _verdict_of(
    message: bytes, records: Sequence[ParsedRecord], results: Sequence[RecordResult], dump: Dump
) -> Verdict:
    names = [line[:3].decode("ascii", "replace") for line in LINE_END.split(message)]
    rejected = [result for result in results if result.status == "rejected"]
    problems: list[Problem] = []
    for parsed, result in zip(records, results, strict=True):
        kept = f"; kept as rejection {result.rejection_id}" if result.rejection_id else "; not kept"
        for each in result.errors:
            problems.append(_error_segment(each, parsed, names, kept))
        for each in result.warnings if result.status != "rejected" else ():
            problems.append(replace(_error_segment(each, parsed, names), code="0", severity="W"))
    problems += [Problem("0", notice, severity="W") for notice in dump.notices]
    if not rejected:
        return Verdict("AA", "", problems)
    text = f"{len(rejected)} of {len(results)} rejected: {rejected[0].errors[0]['message']}"
    return Verdict("AE", text, problems, all(result.rejection_id for result in rejected))


def _error_segment(found: dict[str, Any], parsed: ParsedRecord, names: list[str], more: str = "") -> Problem:
    """Return the ERR segment of an error. `names`: of the message's segments, one for each line."""
    named, message = parsed.locate(found["field"] or ""), str(found["message"])
    missing = "101" if MISSING.match(message) else "102" if named else "207"
    code = CODES.get(found.get("code", ""), missing)
    match = PLACE.fullmatch(named)
    if match is None:
        return Problem(code, f"{named}: {message}{more}" if named else message + more)
    before = names[: parsed.line].count(match[1])  # up to the OBR of the record
    number = before + int(match[2] or 1) if match[1] in BEHIND else max(before, 1)
    return Problem(code, message + more, (match[1], str(number), *filter(None, [match[3]])))
