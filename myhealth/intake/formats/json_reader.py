"""JSON records out of a stream: a machine-memory dump, a bare list, or one value after another (NDJSON).

Records are decoded one at a time, so memory does not grow with the file. A record that is not JSON is told with
its place and passed over: its end is found by its brackets, and the next one is read.
"""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from collections.abc import Iterator
from json.decoder import JSONDecodeError
from typing import Any, Protocol

import msgspec

from myhealth.common.errors import BadInput
from myhealth.intake.parsed_record import DECODER as DECODER
from myhealth.intake.parsed_record import UNREAD, ParsedRecord

CHUNK_BYTES = 256 * 1024
# One record in characters; MongoDB holds no document over 16 MiB, so a longer one could never be shown.
RECORD_MAX = 16 * 1024 * 1024
OVERLAP = 200  # characters in which the beginning of a record shows

# Finds where a value ends, several times quicker than DECODER, which keeps numbers exactly. Objects come as lists of
# pairs, so that a name that stands twice shows. (An integer of over 4300 digits would be an error to `int`.)
SCANNER = json.JSONDecoder(parse_int=float, object_pairs_hook=list)
# Like it, but a string may hold line ends and other control characters: for the end of a record that is broken so.
LENIENT = json.JSONDecoder(parse_int=float, strict=False)
SPACE = re.compile(r"[ \t\r\n]*")
LINE_REST = re.compile(r"[ \t\r]*(\n|\Z)")
# What matters for finding where a broken value ends: strings (whole, broken by a line's end, or not ended yet in
# what is in sight) and brackets.
TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*+(?:"|\n|\\?\Z)|[{}\[\]]', re.DOTALL)
NEXT_LINE = re.compile(r"\n(?=[{\[])")
# Where a further record of a list begins, whatever stands before it: the comma in front of an object whose first name
# is one of a record's, which no result has.
RECORD_NAMES = "record_id|checkup_for|machine|taken_by|taken_at|checkup_type|checkup_report|disease|results"
NEXT_RECORD = re.compile(rf',\s*(?=\{{\s*"(?:{RECORD_NAMES})"\s*:)')
LITERAL_MAX = len("-Infinity")
# Sound records of a list, many at a time: what stands between two of them, where one begins, and where each ends (the
# decoder refuses whatever SCANNER refuses, and more; then they are read one by one, so many before it is tried again).
BETWEEN = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
RECORD_START = re.compile(rf'\{{\s*"(?:{RECORD_NAMES})"\s*:')
SLICES = msgspec.json.Decoder(list[msgspec.Raw])
DOUBTFUL_RECORDS = 100
BRACES_TRIED = 50


class Readable(Protocol):
    """Whatever gives bytes, and none at its end."""

    def read(self, size: int, /) -> bytes: ...


class JsonBuffer:
    """A stream of bytes seen as text, a part at a time. `position` is where reading stands in `text`."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
        self._next_bytes = CHUNK_BYTES
        self.text = ""
        self.position = 0
        self.line = 1
        self.ended = False
        self._doubtful = 0

    def more(self) -> bool:
        """Takes in a further part, larger each time that nothing is used up in between; False at the end."""
        if self.ended:
            return False
        if self.position:
            self.text, self.position, self._next_bytes = self.text[self.position :], 0, CHUNK_BYTES
        else:
            self._next_bytes = min(2 * self._next_bytes, RECORD_MAX)
        data = self._source.read(self._next_bytes)
        self.ended = not data
        self.text += self._decode(data, final=self.ended)
        return True

    def use(self, end: int) -> str:
        """Moves on to `end` and gives what was passed."""
        passed = self.text[self.position : end]
        self.line += passed.count("\n")
        self.position = end
        return passed

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            match = SPACE.match(self.text, self.position)
            end = match.end() if match else self.position
            self.use(end)
            if end < len(self.text):
                return self.text[end]
            if not self.more():
                return ""

    def expect(self, characters: str, what: str) -> str:
        """Passes one of these characters. Raises BadInput naming the line where another stands, or the end."""
        found = self.peek()
        if not found:
            raise BadInput(f"line {self.line}: the file ends where {what} is expected: it is cut short")
        if found not in characters:
            raise BadInput(f"line {self.line}: {what} is expected, not {found!r}")
        self.use(self.position + 1)
        return found

    def value(self) -> Any:
        """Decodes one value and passes it. Raises BadInput where there is none."""
        reading = self.reading(0)
        if reading.faults:
            raise BadInput(f"line {reading.line}: {reading.faults[0][1]}")
        return reading.record

    def reading(self, index: int, *, by_line: bool = False, scan: bool = False) -> ParsedRecord:
        """Passes one value and gives it as a reading, with a fault where it is not JSON, cut short or too long.

        `by_line`: nothing may follow it on its line, and a broken one ends where a further one begins a line. `scan`:
        only find its end; it is decoded when somebody wants it.
        """
        self.peek()
        line, decoder = self.line, SCANNER if scan else DECODER
        while True:
            record, fault, end = None, "", 0
            try:
                record, end = decoder.raw_decode(self.text, self.position)
                if by_line and not LINE_REST.match(self.text, end):
                    fault, end = "something follows it on its line", self._broken_end(by_line)
            except JSONDecodeError as error:
                if self.ended or self._is_certain(error):
                    at = line + self.text.count("\n", self.position, error.pos)
                    where = f" (line {at})" if at != line and not by_line else ""
                    fault, end = f"it is not JSON: {error.msg}{where}", self._broken_end(by_line)
            except RecursionError:
                fault, end = "it is nested too deeply", self._broken_end(by_line)
            if end and (end < len(self.text) or self.ended):
                break
            if len(self.text) - self.position > RECORD_MAX:
                return self._overlong(index, NEXT_LINE if by_line else NEXT_RECORD)
            if not self.more():
                fault, end = "it is cut short: the file ends in it", len(self.text)
                break
        if fault:
            return ParsedRecord(index, line, self.use(end), None, [("", fault)])
        return ParsedRecord(
            index, line, self.use(end), UNREAD if scan else record, distinct=scan and has_unique_keys(record)
        )

    def read_complete_records(self, index: int) -> list[ParsedRecord]:
        """Passes the records of a list that are in sight, but for the last, and the comma behind them; none where one
        of them is not sound, or where it is not quickly seen.

        Text that is a list of values between two brackets is so wherever it is cut at a comma between two of them.
        """
        if self._doubtful > 0:
            self._doubtful -= 1
            return []
        end = self._last_start()
        slices: list[msgspec.Raw] = []
        if end > self.position:
            with contextlib.suppress(msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
                slices = SLICES.decode(f"[{self.text[self.position : end].rstrip()[:-1]}]")
        if not slices:
            self._doubtful = DOUBTFUL_RECORDS
        found: list[ParsedRecord] = []
        for part in slices:
            raw = str(part, "utf-8")
            found.append(ParsedRecord(index + len(found), self.line, raw, distinct=None))
            between = BETWEEN.match(self.text, self.position + len(raw))
            self.use(between.end() if between else end)
        return found

    def _last_start(self) -> int:
        """Where the last record in sight seems to begin, behind a comma; 0 where none is seen."""
        at = len(self.text)
        for _ in range(BRACES_TRIED):
            at = self.text.rfind("{", self.position + 1, at)
            if at < 0:
                break
            if RECORD_START.match(self.text, at) and self.text[max(0, at - 100) : at].rstrip().endswith(","):
                return at
        return 0

    def garbage(self, index: int) -> ParsedRecord | None:
        """Passes what stands between two records of a list and belongs to neither; None where no further one begins."""
        self.peek()
        line = self.line
        while (found := NEXT_RECORD.search(self.text, self.position)) is None:
            if len(self.text) - self.position > RECORD_MAX or not self.more():
                return None
        return ParsedRecord(index, line, self.use(found.start()), None, [("", "it is no record")])

    def _is_certain(self, error: JSONDecodeError) -> bool:
        """Whether more text could not mend it: what is wrong is in sight, and not just the end of what is."""
        if error.msg.startswith("Unterminated string"):
            return False
        return error.pos + LITERAL_MAX < len(self.text)

    def _broken_end(self, by_line: bool) -> int:
        """Where the broken value at the position ends: where the next begins, or with its brackets; 0 if neither is in
        sight."""
        if by_line:
            line_end = NEXT_LINE.search(self.text, self.position)
            return line_end.start() if line_end else len(self.text) if self.ended else 0
        with contextlib.suppress(JSONDecodeError, RecursionError):
            return LENIENT.raw_decode(self.text, self.position)[1]
        next_record = NEXT_RECORD.search(self.text, self.position + 1)
        ends = [end for end in (self._closing_bracket(), next_record.start() if next_record else 0) if end]
        return min(ends, default=0)

    def _closing_bracket(self) -> int:
        depth = 0
        for token in TOKEN.finditer(self.text, self.position):
            mark = token.group()
            if mark in ("{", "["):
                depth += 1
            elif mark in ("}", "]"):
                depth -= 1
                if depth <= 0:
                    return token.end() if depth == 0 else token.start()
            elif mark[-1] not in '"\n' or mark == '"':
                return 0
        return 0

    def _overlong(self, index: int, next_one: re.Pattern[str]) -> ParsedRecord:
        """Passes a record that is longer than a record may be; its beginning is what is kept of it."""
        line, raw = self.line, self.text[self.position : self.position + RECORD_MAX]
        self.use(self.position + 1)
        while (found := next_one.search(self.text, self.position)) is None:
            self.use(max(self.position, len(self.text) - OVERLAP))
            if not self.more():
                self.use(len(self.text))
                break
        else:
            self.use(found.start())
        fault = f"has more than {RECORD_MAX} characters; only its beginning is kept"
        return ParsedRecord(index, line, raw, None, [("", fault)])


def top_names(text: str) -> set[str]:
    """The names of the object that a text begins with, as far as it is in sight."""
    depth, names = 0, set()
    for token in TOKEN.finditer(text):
        mark = token.group()
        if mark in ("{", "["):
            depth += 1
        elif mark in ("}", "]"):
            depth -= 1
            if depth <= 0:
                break
        elif depth == 1 and text[token.end() : token.end() + 20].lstrip().startswith(":"):
            names.add(mark.strip('"'))
    return names


def has_unique_keys(scanned: Any) -> bool:
    """Whether it is an object in which no name stands twice, nor in any of its results."""
    if not isinstance(scanned, list) or not scanned or type(scanned[0]) is not tuple:
        return False
    record = dict(scanned)
    results = record.get("results") or []
    if len(record) != len(scanned) or not isinstance(results, list):
        return False
    return all(isinstance(result, list) and len(dict(result)) == len(result) for result in results if result)


def read_values(window: JsonBuffer) -> Iterator[ParsedRecord]:
    """One record after another, as in NDJSON; a broken one ends with its line."""
    index = 0
    while window.peek():
        yield window.reading(index, by_line=True, scan=True)
        index += 1


def read_list(window: JsonBuffer, first: int = 0) -> Iterator[ParsedRecord]:
    """The elements of the list at the window's position, and passes it. Raises BadInput where it is cut short."""
    window.expect("[", "a list of records")
    index = first
    if window.peek() == "]":
        window.use(window.position + 1)
        return
    while True:
        if window.peek() in (",", "]"):
            raise BadInput(f"line {window.line}: a record is expected, not {window.peek()!r}")
        for reading in window.read_complete_records(index):
            yield reading
            index += 1
        yield window.reading(index, scan=True)
        index += 1
        while window.peek() not in (",", "]", ""):
            garbage = window.garbage(index)
            if garbage is None:
                break
            yield garbage
            index += 1
        if window.expect(",]", "a comma or the end of the list") == "]":
            return


def read_members(window: JsonBuffer) -> Iterator[tuple[str, int]]:
    """The names of the object at the window's position; whoever takes a name passes its value before the next."""
    window.expect("{", "an object")
    if window.peek() == "}":
        window.use(window.position + 1)
        return
    while True:
        window.peek()
        line, name = window.line, window.value()
        if not isinstance(name, str):
            raise BadInput(f"line {line}: a name in double quotes is expected")
        window.expect(":", "a colon")
        yield name, line
        if window.expect(",}", "a comma or the end of the object") == "}":
            return


def require_end(window: JsonBuffer) -> None:
    """Raises BadInput where something follows."""
    if window.peek():
        raise BadInput(f"line {window.line}: nothing more is expected, but {window.peek()!r} follows")
