"""HL7 v2 as text: messages out of a stream of bytes, their segments, and the fields of these, unescaped.

Source: HL7 v2.8, chapter 2 (message delimiters, escape sequences, batches, character sets) and the MLLP transport.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from myhealth.common.errors import BadInput
from myhealth.intake.formats.json_reader import CHUNK_BYTES, RECORD_MAX, Readable

# The end of a segment (CR; LF and CRLF are common in files), and the bytes that frame a message in MLLP.
END = re.compile(rb"(\r\n|[\r\n\x0b\x1c])")
BOM = codecs.BOM_UTF8
SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")
MESSAGE_START = re.compile(rb"\s*MSH[^\w\s]")
BATCH = re.compile(rb"\s*(?:FHS|BHS|BTS|FTS)(?:[^\w\s]|$)")
# The one text field in which a line may break, by segment: HL7 forbids it, and machines do it.
BREAKABLE = {"OBX": 5, "NTE": 3}
# What may follow a text in a message with results (chapter 7). Three capitals that are none of these may be text.
KNOWN = re.compile(
    "MSH|MSA|ERR|SFT|UAC|PID|PD1|PV1|PV2|NK1|GT1|IN1|ORC|OBR|OBX|NTE|TQ1|TQ2|SPM|SAC|CTD|CTI|FT1|PRT|ROL|DSC|ADD|AL1"
    "|DG1|ARV|QRD|QRF|QPD|QAK|DSP|OH[1-4]|INV|TCD|SID|EVN|MRG|ACC|TXA|SCH|RGS|AI[SPLG]|NST|Z.."
)
# Table 0211 (character sets) as codecs, with what is written in its place. All of them hold ASCII as it is.
CHARSETS = {
    **dict.fromkeys(("", "ASCII", "UNICODE UTF-8", "UNICODE", "UTF-8", "UTF8", "ISO IR6"), "utf-8"),
    "GB 18030-2000": "gb18030",
    "BIG-5": "big5",
    "KS X 1001": "euc_kr",
}
LINES_MAX = 100
LATIN = re.compile(r"(?:ISO[ -]?)?8859[/-](1[013-6]|[1-9])")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the source, without its end; `number` from 1. `cut`: the source ends in it, or behind it within the
    frame of a message (MLLP), so that more of the message may be missing; `framed`: it is sure that it is."""

    number: int
    data: bytes
    cut: bool = False
    framed: bool = False


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the texts of a message are written: the characters of MSH-1 and MSH-2 ("" where it names none), and the
    codec of MSH-18 ("" where it names one that is not known)."""

    field: str
    component: str
    repetition: str
    escape: str
    subcomponent: str
    truncation: str
    codec: str

    def components(self, text: str) -> list[str]:
        return text.split(self.component) if self.component else [text]

    def subcomponents(self, text: str) -> list[str]:
        return text.split(self.subcomponent) if self.subcomponent else [text]

    def plain(self, text: str) -> str:
        """The text with its escape sequences resolved; unknown ones stay as they are."""
        if not self.escape or self.escape not in text:
            return text
        return _escapes(self.escape).sub(self._meaning, text)

    def _meaning(self, match: re.Match[str]) -> str:
        sequence = match[1]
        if sequence is None:
            found = bytes.fromhex(match[0].replace(f"{self.escape}X", "").replace(self.escape, ""))
            return decode(found, self.codec) or match[0]
        if sequence == "P" and not self.truncation:
            return match[0]
        if sequence.startswith(".sp"):  # so many line ends
            return "\n" * min(int(sequence[3:].lstrip("+") or 1), LINES_MAX)
        meanings = {"F": self.field, "S": self.component, "T": self.subcomponent, "R": self.repetition}
        meanings |= {"E": self.escape, "P": self.truncation, ".br": "\n", "H": "", "N": ""}
        return meanings[sequence]


@lru_cache(maxsize=64)
def _escapes(escape: str) -> re.Pattern[str]:
    """The sequences that have a meaning. Bytes in hex that stand side by side may be one character, so they are one."""
    mark = re.escape(escape)
    return re.compile(rf"{mark}([FSTREPHN]|\.br|\.sp\+?[0-9]{{0,3}}){mark}|(?:{mark}X(?:[0-9A-Fa-f]{{2}})+{mark})+")


class Segment:
    """A line of a message. `fault`: why it cannot be read; `name` is "" where it is no segment at all."""

    __slots__ = ("encoding", "fault", "fields", "line", "name", "raw")

    def __init__(self, line: int, raw: bytes, encoding: Encoding) -> None:
        self.line = line
        self.raw = raw
        self.encoding = encoding
        self.name, self.fault = "", ""
        self.fields: list[str] = []
        self._parse()

    def _parse(self) -> None:
        text = decode(self.raw, self.encoding.codec)
        if text is None:
            text = self.raw.decode("utf-8", "surrogateescape")
            self.fault = f"holds bytes that are not {self.encoding.codec or 'ASCII, in a character set unknown here'}"
        self.fields = text.lstrip().split(self.encoding.field)
        if SEGMENT.fullmatch(self.fields[0].strip()):
            self.name = self.fields[0].strip()
        else:
            self.fault = self.fault or "is no segment of HL7"
        if self.name == "MSH":  # its first field is the character between its fields
            self.fields.insert(1, self.encoding.field)

    def continue_with(self, raw: bytes) -> bool:
        """Takes in the rest of a text field that was broken by the end of a line; False where none was."""
        if len(self.fields) - 1 != BREAKABLE.get(self.name):
            return False
        self.raw += b"\n" + raw
        self._parse()
        return True

    def field(self, number: int) -> str:
        """A field as sent; "" where it is absent, or sent as empty ('""')."""
        text = self.fields[number] if number < len(self.fields) else ""
        return "" if text == '""' else text

    def repetitions(self, number: int) -> list[str]:
        """The repetitions of a field as sent, but for empty ones."""
        text, mark = self.field(number), self.encoding.repetition
        return [each for each in (text.split(mark) if mark else [text]) if each.strip() and each != '""']

    def components(self, number: int) -> list[str]:
        """The components of a field's first repetition, unescaped."""
        found = next(iter(self.repetitions(number)), "")
        return [self.encoding.plain(each).strip() for each in self.encoding.components(found)]

    def text(self, number: int, component: int = 1) -> str:
        found = self.components(number)
        text = found[component - 1] if component <= len(found) else ""
        return "" if text == '""' else text


def decode(data: bytes, codec: str) -> str | None:
    """The text that the bytes are; None where they are none, or their codec is not known."""
    try:
        return data.decode(codec or "ascii")
    except UnicodeDecodeError:
        return None


def parse_message(lines: list[Line]) -> tuple[list[Segment], str]:
    """The segments of a message, MSH first, and "" ; or none, and why it is no message."""
    head = lines[0].data.lstrip()
    if not MESSAGE_START.match(head):
        return [], "it is no HL7 v2 message: that begins with MSH and the character between its fields"
    encoding = _encoding(head)
    if encoding is None:
        return [], "MSH-2 does not name the characters that part its fields, or names one twice"
    segments: list[Segment] = []
    for line in lines:
        segment = Segment(line.number, line.data, encoding)
        if KNOWN.fullmatch(segment.name) or not segments[-1].continue_with(line.data):
            segments.append(segment)
    return segments, _cut_short(segments, lines[-1])


def _cut_short(segments: list[Segment], last: Line) -> str:
    """Why the message seems to have lost its end; "" where it does not. What is left of 72 may be 7.

    The end of a segment is often left out at the end of a file. An OBX that ends there is whole where it has the
    status that every OBX must have (OBX-11), or where its kin in the message have none either.
    """
    if last.framed:
        return "it is cut short: the end of its frame (the byte 1C) is missing"
    results = [segment for segment in segments if segment.name == "OBX"]
    if not last.cut or not segments or segments[-1].name not in ("MSH", "PID", "OBR", "OBX"):
        return ""
    if segments[-1].name != "OBX":
        kind = segments[0].text(9)
        empty = not results and (not kind or kind.startswith("ORU"))
        return "it is cut short: it has no result, and its last segment has no end" if empty else ""
    others = [segment for segment in results[:-1] if segment.field(11)]
    if segments[-1].field(11) or (len(results) > 1 and not others):
        return ""
    return f"it is cut short: it ends in the segment OBX[{len(results)}], before the status of its result (OBX-11)"


def _encoding(head: bytes) -> Encoding | None:
    """What the MSH segment says of how the message is written."""
    fields = head.split(head[3:4])
    name = fields[17].split(fields[1][1:2] or b"~")[0] if len(fields) > 17 else b""
    shown = name.decode("ascii", "replace").strip().upper()
    latin = LATIN.fullmatch(shown)
    codec = f"iso8859-{latin[1]}" if latin else CHARSETS.get(shown, "")
    text = decode(head, codec) or head.decode("latin-1")
    marks = text.split(text[3])[1][:5]
    characters = (text[3], *marks)
    if not marks or len(set(characters)) != len(characters) or any(each.isalnum() for each in characters):
        return None
    component, repetition, escape, subcomponent, truncation = (*marks, "", "", "", "", "")[:5]
    return Encoding(text[3], component, repetition, escape, subcomponent, truncation, codec)


def read_messages(source: Readable) -> Iterator[list[Line]]:
    """The lines of one message after another; those of batches and files, and the framing of MLLP, are left out.

    What stands outside of any message is given as if it were one: it does not begin with MSH. Raises BadInput where
    a message is longer than a record may be. Memory does not grow with the source.
    """
    message: list[Line] = []
    size = 0
    for line in _read_lines(source):
        starts = MESSAGE_START.match(line.data)
        ends = starts or BATCH.match(line.data)
        if ends and message:
            yield message
        if ends:
            message, size = [], 0
        if starts or not ends:
            message.append(line)
            size += len(line.data)
        if size > RECORD_MAX:
            raise BadInput(f"line {message[0].number}: the message has more than {RECORD_MAX} bytes")
    if message:
        yield message


def _read_lines(source: Readable) -> Iterator[Line]:
    """The lines that are not blank. Raises BadInput where one is longer than a record may be."""
    number, rest, framed = 1, b"", False
    last: Line | None = None  # held back: whether it is cut shows behind it
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
        last = Line(number, rest, cut=True)
    if last:
        yield replace(last, cut=last.cut or framed, framed=framed)
