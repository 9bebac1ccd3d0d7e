"""Split a stream of bytes into HL7 v2 messages, these into segments and fields, and unescape their texts.

Source: HL7 v2.8, chapter 2 (message delimiters, escape sequences, batches, character sets) and the MLLP transport.
"""

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from myhealth.common.errors import BadInput
from myhealth.intake.formats.hl7v2.encoding import Encoding, cached, decode, read_encoding
from myhealth.intake.formats.json_reader import CHUNK_BYTES, PARTS_MAX, RECORD_MAX, Readable

# The end of a segment (CR; LF and CRLF are common in files), and the bytes that frame a message in MLLP.
END = re.compile(rb"(\r\n|[\r\n\x0b\x1c])")
BOM = codecs.BOM_UTF8
SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")
MESSAGE_START = re.compile(rb"\s*MSH[^\w\s]")
MESSAGE_OR_BATCH = re.compile(rb"\s*(?:(MSH)[^\w\s]|(?:FHS|BHS|BTS|FTS)(?:[^\w\s]|$))")
# The text field of a segment in which a line may break: HL7 forbids it, but machines do it.
BREAKABLE = {"OBX": 5, "NTE": 3}
# Segments that may follow a text in a message with results (chapter 7). Three other capitals may be text.
_KNOWN = """MSH MSA ERR SFT UAC PID PD1 PV1 PV2 NK1 GT1 IN1 ORC OBR OBX NTE TQ1 TQ2 SPM SAC CTD CTI FT1 PRT ROL DSC ADD
AL1 DG1 ARV QRD QRF QPD QAK DSP OH1 OH2 OH3 OH4 INV TCD SID EVN MRG ACC TXA SCH RGS AIS AIP AIL AIG NST"""
KNOWN = frozenset(_KNOWN.split())
CACHED_BYTES = 1000  # of a segment: longer ones do not come again
Read = TypeVar("Read")


class Line(Struct, frozen=True):
    """A line of the source, without its end; `number` from 1.

    `truncated`: the source ended in this line or inside its MLLP frame, so data may be lost. `frame_open`: the MLLP end
    byte is missing, so data is certainly lost.
    """

    number: int
    data: bytes
    truncated: bool = False
    frame_open: bool = False


class Fields:
    """The fields of a segment, numbered from 1."""

    __slots__ = ("encoding", "fields")

    def __init__(self, fields: Sequence[str], encoding: Encoding) -> None:
        self.fields = fields
        self.encoding = encoding

    def field(self, number: int) -> str:
        """Return a field as sent; "" if it is absent or sent as empty ('""')."""
        try:
            text = self.fields[number]
        except IndexError:
            return ""
        return "" if text == '""' else text

    def repetitions(self, number: int) -> list[str]:
        """Return the repetitions of a field as sent, without empty ones."""
        return self.encoding.repetitions(self.field(number))

    def first(self, number: int) -> str:
        """Return the first repetition of a field as sent; "" if there is none."""
        return self.encoding.first(self.field(number))

    def text(self, number: int, component: int = 1) -> str:
        """Return a component of a field's first repetition, unescaped."""
        field = self.fields[number] if number < len(self.fields) else ""
        if not field or field.isalnum() or not self.encoding.find_marks(field):  # most have no delimiter
            return field if component == 1 else ""
        parts = _first_parts(field, self.encoding)
        return parts[component - 1] if component <= len(parts) else ""


class Segment(Fields):
    """A line of a message. `fault`: the reason why it cannot be read; `name` is "" if it is not a segment. `told`: what
    was read from it, once it was."""

    __slots__ = ("_more", "fault", "line", "name", "raw", "told")

    fields: list[str]

    def __init__(self, line: int, raw: bytes, encoding: Encoding) -> None:
        self.line = line
        self.raw = raw
        self.encoding = encoding
        self.name, self.fault = "", ""
        self.told: Any = None
        self._more: list[bytes] = []
        self._parse()

    def _parse(self) -> None:
        text = decode(self.raw, self.encoding.codec)
        if text is None:
            text = self.raw.decode("utf-8", "replace")
            self.fault = self.encoding.fault
        self.fields = text.lstrip().split(self.encoding.field)
        name = self.fields[0].strip()
        if name in KNOWN or SEGMENT.fullmatch(name):
            self.name = name
            if name == "MSH":  # its first field is the character between its fields
                self.fields.insert(1, self.encoding.field)
        else:
            self.fault = self.fault or "is not a segment of HL7"

    def continue_with(self, raw: bytes) -> bool:
        """Append the rest of a text field that a line end broke. Return False if the segment has no such field.

        Call `finish` after the last one: parsed anew for each line, a long text would take the square of its length.
        """
        if len(self.fields) - 1 != BREAKABLE.get(self.name):
            return False
        self._more.append(raw)
        text = decode(raw, self.encoding.codec)
        if text is None or self.encoding.field in text:
            self.finish()
        return True

    def finish(self) -> None:
        if self._more:
            self.raw, self._more = b"\n".join((self.raw, *self._more)), []
            self._parse()


@cached
def _first_parts(field: str, encoding: Encoding) -> list[str]:
    return encoding.parts(encoding.first(field))


def cached_without(*differing: int) -> Callable[[Callable[[Fields], Read]], Callable[[Segment], Read]]:
    """Cache what a function reads from a segment, in the segment and for the next ones. It gets the segment without the
    `differing` fields, which differ from message to message. Treat what it returns as constant.

    Segments of one name must have one such function at most.
    """

    def decorate(read: Callable[[Fields], Read]) -> Callable[[Segment], Read]:
        quick = lru_cache(maxsize=2048)(lambda fields, encoding: read(Fields(fields, encoding)))

        def read_cached(segment: Segment) -> Read:
            if segment.told is None:
                fields = segment.fields.copy()
                for number in differing:
                    if number < len(fields):
                        fields[number] = ""
                is_short = len(segment.raw) < CACHED_BYTES
                segment.told = quick(tuple(fields), segment.encoding) if is_short else read(segment)
            return segment.told  # type: ignore[no-any-return]

        return read_cached

    return decorate


def parse_message(lines: list[Line]) -> tuple[list[Segment], str]:
    """Return the segments of a message, MSH first, and the reason why it cannot be accepted ("" if it can)."""
    head = lines[0].data.lstrip()
    if not MESSAGE_START.match(head):
        return [], "it is not an HL7 v2 message: that begins with MSH and the character between its fields"
    encoding = read_encoding(head)
    if encoding is None:
        return [], "MSH-2 does not name the characters that separate its fields, or names one twice"
    whole = b"\r".join([line.data for line in lines])
    if len(lines) + sum(map(whole.count, _separators(encoding))) > PARTS_MAX:
        return [], f"it has more than {PARTS_MAX} parts"
    segments: list[Segment] = []
    for line in lines:
        segment = Segment(line.number, line.data, encoding)
        name = segment.name
        if name in KNOWN or name[:1] == "Z" or not segments[-1].continue_with(line.data):
            segments.append(segment)
    for segment in segments:
        segment.finish()
    return segments, _truncation(segments, lines[-1])


@lru_cache(maxsize=256)
def _separators(encoding: Encoding) -> list[bytes]:
    """Return the delimiters that make parts, in the character set of the message."""
    marks = (encoding.field, encoding.component, encoding.repetition, encoding.subcomponent)
    return [*filter(None, [mark.encode(encoding.codec or "latin-1", "ignore") for mark in marks])]


def _truncation(segments: list[Segment], last: Line) -> str:
    """Return the reason why the message seems truncated, else "". Of a value 72, only 7 may be left.

    Many files lack the end of their last segment. An OBX there is complete if it has the required status (OBX-11), or
    if no other OBX of the message has one.
    """
    if last.frame_open:
        return "it is cut short: the end of its frame (the byte 1C) is missing"
    if not last.truncated or not segments or segments[-1].name not in ("MSH", "PID", "OBR", "OBX"):
        return ""
    results = [segment for segment in segments if segment.name == "OBX"]
    if segments[-1].name != "OBX":
        kind = segments[0].text(9)
        empty = not results and (not kind or kind.startswith("ORU"))
        return "it is cut short: it has no result, and its last segment has no end" if empty else ""
    others = [segment for segment in results[:-1] if segment.field(11)]
    if segments[-1].field(11) or (len(results) > 1 and not others):
        return ""
    return f"it is cut short: it ends in the segment OBX[{len(results)}], before the status of its result (OBX-11)"


class BatchCount:
    """Compare the number of messages in a batch (BTS-1), and of batches in a file (FTS-1), with what is there."""

    def __init__(self, notices: list[str]) -> None:
        self._notices = notices
        self._messages = self._batches = 0
        self._open = {"BHS": 0, "FHS": 0}  # the line in which one began

    def add_message(self) -> None:
        self._messages += 1

    def add(self, line: Line) -> None:
        """Add a segment of a batch or a file."""
        data = line.data.lstrip()
        name = data[:3].decode()
        if name in self._open:
            self._end(name)
            self._open[name] = line.number
            if name == "FHS":
                self._batches = 0
            self._messages = 0
            return
        fields = data.split(data[3:4]) if data[3:4] else [data]
        sent = fields[1].strip().decode("ascii", "replace") if len(fields) > 1 else ""
        self._compare(line, name, sent)
        self._open["BHS" if name == "BTS" else "FHS"] = 0

    def _compare(self, line: Line, name: str, sent: str) -> None:
        count, what = (self._messages, "message") if name == "BTS" else (self._batches, "batch")
        if name == "FTS" and not count:  # a file without batches
            count, what = (self._messages, "message") if sent != "1" else (1, "batch")
        if sent.isascii() and sent.isdigit() and len(sent) < 10 and int(sent) != count:
            self._notices.append(f"line {line.number}: {name}-1 counts {int(sent)}, but there is {count} ({what})")
        if name == "BTS":
            self._batches += 1
            self._messages = 0

    def _end(self, name: str) -> None:
        if self._open[name]:
            trailer = "BTS" if name == "BHS" else "FTS"
            self._notices.append(f"line {self._open[name]}: {name} has no {trailer}; the file may be cut short")

    def finish(self) -> None:
        for name in self._open:
            self._end(name)


def read_messages(source: Readable, notices: list[str]) -> Iterator[list[Line]]:
    """Return the lines of each message, without the segments of batches and files and without MLLP framing. Add to
    `notices` each count of a batch or file that does not match.

    Lines outside of any message are returned as if they were one, which does not begin with MSH. Raises BadInput if a
    message is longer than RECORD_MAX. Memory does not grow with the source.
    """
    message: list[Line] = []
    size = 0
    batches = BatchCount(notices)
    for line in _read_lines(source):
        ends = MESSAGE_OR_BATCH.match(line.data)
        starts = ends and ends[1]
        if ends and message:
            yield message
        if ends:
            message, size = [], 0
        if starts:
            batches.add_message()
        elif ends:
            batches.add(line)
        if starts or not ends:
            message.append(line)
            size += len(line.data)
        if size > RECORD_MAX:
            raise BadInput(f"line {message[0].number}: the message has more than {RECORD_MAX} bytes")
    if message:
        yield message
    batches.finish()


def _read_chunks(source: Readable) -> Iterator[bytes]:
    """Yield the source in parts, of which none ends between a CR and its LF."""
    held = b""
    while data := source.read(CHUNK_BYTES):
        data = held + data
        held = b"\r" if data.endswith(b"\r") else b""
        yield data.removesuffix(b"\r")
    if held:
        yield held


def _read_lines(source: Readable) -> Iterator[Line]:
    """Return the lines that are not blank. Raises BadInput if one is longer than RECORD_MAX."""
    number, framed, size = 1, False, 0
    begun: list[bytes] = []  # of a line without its end; searched again for each chunk, it would take its square
    last: Line | None = None  # held back until it is known whether it is truncated
    for data in _read_chunks(source):
        *parts, rest = END.split(data)
        if parts:
            parts[0], begun, size = b"".join((*begun, parts[0])), [], 0
        begun.append(rest)
        size += len(rest)
        for text, end in zip(parts[::2], parts[1::2], strict=True):
            text = text.removeprefix(BOM) if number == 1 else text
            if text.strip():
                if last:
                    yield last
                last = Line(number, text)
            number += end in (b"\r\n", b"\r", b"\n")
            framed = end == b"\x0b" or (framed and end != b"\x1c")
        if size > RECORD_MAX:
            raise BadInput(f"line {number}: it has more than {RECORD_MAX} bytes")
    rest = b"".join(begun)
    rest = rest.removeprefix(BOM) if number == 1 else rest
    if rest.strip():
        if last:
            yield last
        last = Line(number, rest, truncated=True)
    if last:
        yield replace(last, truncated=last.truncated or framed, frame_open=framed)
