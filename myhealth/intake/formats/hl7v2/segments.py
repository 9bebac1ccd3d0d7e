"""Split a stream of bytes into HL7 v2 messages, these into segments and fields, and unescape their texts.

Source: HL7 v2.8, chapter 2 (message delimiters, escape sequences, batches, character sets) and the MLLP transport.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from myhealth.common.errors import BadInput
from myhealth.intake.formats.hl7v2.encoding import Encoding, decode, read_encoding
from myhealth.intake.formats.json_reader import CHUNK_BYTES, PARTS_MAX, RECORD_MAX, Readable

# The end of a segment (CR; LF and CRLF are common in files), and the bytes that frame a message in MLLP.
END = re.compile(rb"(\r\n|[\r\n\x0b\x1c])")
BOM = codecs.BOM_UTF8
SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")
MESSAGE_START = re.compile(rb"\s*MSH[^\w\s]")
BATCH = re.compile(rb"\s*(?:FHS|BHS|BTS|FTS)(?:[^\w\s]|$)")
# The text field of a segment in which a line may break: HL7 forbids it, but machines do it.
BREAKABLE = {"OBX": 5, "NTE": 3}
# Segments that may follow a text in a message with results (chapter 7). Three other capitals may be text.
KNOWN = re.compile(
    "MSH|MSA|ERR|SFT|UAC|PID|PD1|PV1|PV2|NK1|GT1|IN1|ORC|OBR|OBX|NTE|TQ1|TQ2|SPM|SAC|CTD|CTI|FT1|PRT|ROL|DSC|ADD|AL1"
    "|DG1|ARV|QRD|QRF|QPD|QAK|DSP|OH[1-4]|INV|TCD|SID|EVN|MRG|ACC|TXA|SCH|RGS|AI[SPLG]|NST|Z.."
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the source, without its end; `number` from 1.

    `truncated`: the source ended in this line or inside its MLLP frame, so data may be lost. `frame_open`: the MLLP end
    byte is missing, so data is certainly lost.
    """

    number: int
    data: bytes
    truncated: bool = False
    frame_open: bool = False


class Segment:
    """A line of a message. `fault`: the reason why it cannot be read; `name` is "" if it is not a segment."""

    __slots__ = ("_more", "encoding", "fault", "fields", "line", "name", "raw")

    def __init__(self, line: int, raw: bytes, encoding: Encoding) -> None:
        self.line = line
        self.raw = raw
        self.encoding = encoding
        self.name, self.fault = "", ""
        self.fields: list[str] = []
        self._more: list[bytes] = []
        self._parse()

    def _parse(self) -> None:
        text = decode(self.raw, self.encoding.codec)
        if text is None:
            text = self.raw.decode("utf-8", "replace")
            self.fault = self.encoding.fault
        self.fields = text.lstrip().split(self.encoding.field)
        if SEGMENT.fullmatch(self.fields[0].strip()):
            self.name = self.fields[0].strip()
        else:
            self.fault = self.fault or "is no segment of HL7"
        if self.name == "MSH":  # its first field is the character between its fields
            self.fields.insert(1, self.encoding.field)

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
        return next(iter(self.repetitions(number)), "")

    def text(self, number: int, component: int = 1) -> str:
        """Return a component of a field's first repetition, unescaped."""
        field = self.fields[number] if number < len(self.fields) else ""
        if not field or field.isalnum():  # most have no delimiter
            return field if component == 1 else ""
        return self.encoding.parts(self.first(number), component)[component - 1]


def parse_message(lines: list[Line]) -> tuple[list[Segment], str]:
    """Return the segments of a message, MSH first, and the reason why it cannot be accepted ("" if it can)."""
    head = lines[0].data.lstrip()
    if not MESSAGE_START.match(head):
        return [], "it is no HL7 v2 message: that begins with MSH and the character between its fields"
    encoding = read_encoding(head)
    if encoding is None:
        return [], "MSH-2 does not name the characters that part its fields, or names one twice"
    marks = (encoding.field, encoding.component, encoding.repetition, encoding.subcomponent)
    coded = [mark.encode(encoding.codec or "latin-1", "ignore") for mark in marks]
    if len(lines) + sum(line.data.count(mark) for line in lines for mark in coded if mark) > PARTS_MAX:
        return [], f"it has more than {PARTS_MAX} parts"
    segments: list[Segment] = []
    for line in lines:
        segment = Segment(line.number, line.data, encoding)
        if KNOWN.fullmatch(segment.name) or not segments[-1].continue_with(line.data):
            segments.append(segment)
    for segment in segments:
        segment.finish()
    return segments, _truncation(segments, lines[-1])


def _truncation(segments: list[Segment], last: Line) -> str:
    """Return the reason why the message seems truncated, else "". Of a value 72, only 7 may be left.

    Many files lack the end of their last segment. An OBX there is complete if it has the required status (OBX-11), or
    if no other OBX of the message has one.
    """
    if last.frame_open:
        return "it is cut short: the end of its frame (the byte 1C) is missing"
    results = [segment for segment in segments if segment.name == "OBX"]
    if not last.truncated or not segments or segments[-1].name not in ("MSH", "PID", "OBR", "OBX"):
        return ""
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
    `notices` what does not match in these.

    Lines outside of any message are returned as if they were one, which does not begin with MSH. Raises BadInput if a
    message is longer than RECORD_MAX. Memory does not grow with the source.
    """
    message: list[Line] = []
    size = 0
    batches = BatchCount(notices)
    for line in _read_lines(source):
        starts = MESSAGE_START.match(line.data)
        ends = starts or BATCH.match(line.data)
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


def _read_lines(source: Readable) -> Iterator[Line]:
    """Return the lines that are not blank. Raises BadInput if one is longer than RECORD_MAX."""
    number, rest, framed = 1, b"", False
    last: Line | None = None  # held back until it is known whether it is truncated
    while data := source.read(CHUNK_BYTES):
        while data.endswith(b"\r") and (following := source.read(1)):  # a LF may follow
            data += following
        *parts, rest = END.split(rest + data)
        for text, end in zip(parts[::2], parts[1::2], strict=True):
            text = text.removeprefix(BOM) if number == 1 else text
            if text.strip():
                if last:
                    yield last
                last = Line(number, text)
            number += end in (b"\r\n", b"\r", b"\n")
            framed = end == b"\x0b" or (framed and end != b"\x1c")
        if len(rest) > RECORD_MAX:
            raise BadInput(f"line {number}: it has more than {RECORD_MAX} bytes")
    rest = rest.removeprefix(BOM) if number == 1 else rest
    if rest.strip():
        if last:
            yield last
        last = Line(number, rest, truncated=True)
    if last:
        yield replace(last, truncated=last.truncated or framed, frame_open=framed)
