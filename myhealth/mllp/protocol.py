"""MLLP: find the frames in a stream of bytes, and write the acknowledgement of an HL7 v2 message (ACK). Pure.

An acknowledgement is written in the delimiters and the character set of its sender. Sources: HL7 Minimal Lower Layer
Protocol, release 1: a frame is VT, the message, FS, CR. HL7 v2.8, chapter 2 (message acknowledgment, original and
enhanced mode; MSA; ERR) and table 0357.
"""

import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct
from msgspec.structs import replace

from myhealth.common.text import printable
from myhealth.intake.formats.hl7v2.encoding import Encoding, decode, read_encoding
from myhealth.intake.formats.hl7v2.segments import BOM, MESSAGE_START, Segment

VT, FS = b"\x0b", b"\x1c"
BLANK = b"\r\n \t\0"  # without meaning between two frames


class FrameTooLong(Exception):
    """A frame is longer than allowed. `start`: its beginning."""

    def __init__(self, start: bytes) -> None:
        self.start = start


class Frames:
    """The frames of one connection. Senders differ: the CR behind FS may be missing, and a VT before FS means that the
    sender began anew.

    `is_open`: a frame has begun and has not ended. `stray`: the number of bytes so far outside of whole frames, which
    are passed over.
    """

    def __init__(self, frame_max: int) -> None:
        self.is_open = False
        self.stray = 0
        self._max = frame_max
        self._data = bytearray()
        self._searched = 0

    def __len__(self) -> int:
        """Return the number of bytes that are kept."""
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Add what has come in."""
        self._data += data

    def take(self) -> bytes | None:
        """Return the next message, without its frame; None if more has to come in. Raises FrameTooLong."""
        while self.is_open or self._open():
            end = self._data.find(FS, self._searched)
            is_whole, end = end >= 0, end if end >= 0 else len(self._data)
            again = self._data.rfind(VT, self._searched, end)
            if again >= 0:
                self.stray += len(self._cut(again))
                continue
            self._searched = end
            if end > self._max:
                raise FrameTooLong(bytes(self._data[: self._max]))
            self.is_open = not is_whole
            return self._cut(end) if is_whole else None
        return None

    def _open(self) -> bool:
        """Pass over what comes before the next frame. Return whether there is one."""
        start = self._data.find(VT)
        self.is_open = start >= 0
        self.stray += len(self._cut(start if self.is_open else len(self._data)).strip(BLANK))
        return self.is_open

    def _cut(self, end: int) -> bytes:
        """Remove and return the bytes up to `end`; remove the mark there too."""
        taken = bytes(self._data[:end])
        del self._data[: end + 1]
        self._searched = 0
        return taken


LINE_END = re.compile(rb"\r\n|[\r\n]")
OLD_VERSION = re.compile(r"(?:2(?:\.[0-4](?:\..*)?)?)?")  # before 2.5, ERR-1 names the place, and nothing is a warning
DEFAULT = Segment(1, rb"MSH|^~\&||||||||||2.5.1", read_encoding(rb"MSH|^~\&|"))  # type: ignore[arg-type] # these are delimiters
TEXT_MAX, SHORT_MAX, PROBLEMS_MAX = 250, 80, 50
# Table 0357.
MESSAGES = {
    "0": "Message accepted",
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "200": "Unsupported message type",
    "202": "Unsupported processing id",
    "204": "Unknown key identifier",
    "205": "Duplicate key identifier",
    "207": "Application error",
}
ACCEPT_CODES = {"AA": "CA", "AE": "CE", "AR": "CR"}
MODES = ("AL", "NE", "ER", "SU")  # table 0155


class Problem(Struct, frozen=True):
    """One ERR segment. `place`: segment, its number in the message and field, as far as they are known. `severity`: E
    for an error, W for a warning, I for information."""

    code: str
    text: str
    place: tuple[str, ...] = ()
    severity: str = "E"


class Verdict(Struct, frozen=True):
    """What became of a message. `code`: AA, AE or AR. `is_safe`: all of it is stored, as check-ups or as rejections, so
    that its sender need not keep it."""

    code: str
    text: str = ""
    problems: Sequence[Problem] = ()
    is_safe: bool = True


def read_head(message: bytes) -> Segment | None:
    """Return the MSH segment, whose fields are exactly those sent; None if the message does not begin with one."""
    line = LINE_END.split(message.removeprefix(BOM).lstrip(), 1)[0]
    encoding = read_encoding(line) if MESSAGE_START.match(line) else None
    if encoding is None:
        return None
    if decode(line, encoding.codec) is None:
        encoding = replace(encoding, codec="latin-1")
    return Segment(1, line, encoding)


def acknowledge(head: Segment | None, verdict: Verdict) -> list[bytes]:
    """Return the messages that answer one: none, one, or in enhanced mode up to two. `head`: its MSH segment."""
    head = head or DEFAULT
    # Mindray writes the kind of a run into MSH-16: any other value means the original mode.
    accept, application = (mode if mode in MODES else "" for mode in (head.text(15).upper(), head.text(16).upper()))
    if not (accept or application):
        return [_build_message(head, verdict.code, verdict)]
    is_received = verdict.is_safe and verdict.code != "AR"
    answers = []
    if _is_wanted(accept, is_received):
        code = "CA" if is_received else ACCEPT_CODES[verdict.code]
        answers.append(_build_message(head, code, Verdict(code) if is_received else verdict))
    if _is_wanted(application, verdict.code == "AA"):
        answers.append(_build_message(head, verdict.code, verdict))
    return answers


def _is_wanted(mode: str, succeeded: bool) -> bool:
    return mode == "AL" or mode == ("SU" if succeeded else "ER")


def _build_message(head: Segment, code: str, verdict: Verdict) -> bytes:
    encoding = head.encoding
    kind = ["ACK", *([head.text(9, 2), "ACK"] if head.text(9, 3) else filter(None, [head.text(9, 2)]))]
    is_old = bool(OLD_VERSION.fullmatch(head.text(12)))
    fields = [""] * 19
    fields[:2] = "MSH", head.fields[2] if len(head.fields) > 2 else ""
    fields[2:6] = (_sent(head, number) for number in (5, 6, 3, 4))
    fields[6] = f"{datetime.now(UTC):%Y%m%d%H%M%S}+0000"
    fields[8:10] = (encoding.component or "^").join(kind), secrets.token_hex(10)
    fields[10:12] = _sent(head, 11) or "P", _sent(head, 12)
    fields[17] = _sent(head, 18)
    lines = [fields, ["MSA", code, _sent(head, 10), _escaped(printable(verdict.text, SHORT_MAX), encoding)]]
    told = [each for each in verdict.problems if each.severity == "E" or not is_old]
    lines += [_error(each, encoding, is_old) for each in told[:PROBLEMS_MAX]]
    text = "\r".join(encoding.field.join(line).rstrip(encoding.field) for line in lines)
    return f"{text}\r".encode(encoding.codec or "ascii", "replace")


def _error(problem: Problem, encoding: Encoding, is_old: bool) -> list[str]:
    component, inner = encoding.component or "^", encoding.subcomponent or "&"
    coded = problem.code, MESSAGES[problem.code], "HL70357"
    place = component.join(_escaped(part, encoding) for part in problem.place)
    first = component.join([*(*problem.place, "", "", "")[:3], inner.join(coded)]) if is_old else ""
    text = _escaped(printable(problem.text, TEXT_MAX), encoding)
    return ["ERR", first, place, component.join(coded), problem.severity, "", "", "", text]


def _sent(head: Segment, number: int) -> str:
    return head.fields[number] if number < len(head.fields) else ""


def _escaped(text: str, encoding: Encoding) -> str:
    """Return the text with its delimiters escaped; as blanks if the sender has no escape character."""
    letters = {encoding.escape: "E", encoding.field: "F", encoding.component: "S"}
    letters |= {encoding.repetition: "R", encoding.subcomponent: "T", encoding.truncation: "P"}
    escape = encoding.escape
    return "".join(
        each if each not in letters else f"{escape}{letters[each]}{escape}" if escape else " " for each in text
    )
