"""Read JSON records from a stream: the elements of a list, or one value after another (NDJSON).

Memory does not grow with the file. A record that is not JSON becomes a record with a fault that names its place; its
end is found by its brackets or by the beginning of the next record, and reading continues there.

ijson 3.6 is not used: it stops at the first malformed record, gives no raw text (a rejection is stored as it was
sent), and is a third as fast (109,000 records a second against 313,000).
Well-formed records of a list are read many at once with msgspec, in a third of the time; others one by one with `json`.
"""

import codecs
import contextlib
import json
import re
import sys
from collections.abc import Iterator
from json.decoder import JSONDecodeError
from typing import Any, Protocol

import msgspec

from myhealth.common.errors import BadInput
from myhealth.intake.parsed_record import DECODER as DECODER
from myhealth.intake.parsed_record import UNREAD, ParsedRecord
from myhealth.intake.record import DetailedResult, SentRecord

CHUNK_BYTES = 256 * 1024
# The longest record in characters: MongoDB stores no document over 16 MiB, so a longer one could never be shown.
RECORD_MAX = 16 * 1024 * 1024
KEPT_MAX = 1024 * 1024  # characters of a longer one that are kept
# A character beyond U+FFFF makes each character of a text take four bytes in memory.
WIDE_MAX_BYTES = 2 * RECORD_MAX + 8 * 1024 * 1024
# The most values, roughly, that the text of one record may have: decoded they take a hundred times as much memory.
PARTS_MAX = 400_000
OVERLAP = 200  # characters that are enough to recognise the beginning of a record

# Finds where a value ends, several times quicker than DECODER, which keeps numbers exactly. (An integer of over 4300
# digits would be an error to `int`.)
SCANNER = json.JSONDecoder(parse_int=float)
# Like it, but a string may contain line ends and other control characters: finds the end of such a malformed record.
LENIENT = json.JSONDecoder(parse_int=float, strict=False)
SPACE = re.compile(r"[ \t\r\n]*")
LINE_REST = re.compile(r"[ \t\r]*(\n|\Z)")
# The tokens that determine where a malformed value ends: brackets, and strings (complete, broken by a line end, or
# continuing beyond the buffer).
TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*+(?:"|\n|\\?\Z)|[{}\[\]]', re.DOTALL)
NEXT_LINE = re.compile(r"\n(?=[{\[])")
# The comma before the next record of a list, after any malformed text: an object whose first name is one of a record,
# which a result does not have.
RECORD_NAMES = "|".join(sorted({*SentRecord.__struct_fields__} - {*DetailedResult.__struct_fields__}))
NEXT_RECORD = re.compile(rf',\s*(?=\{{\s*"(?:{RECORD_NAMES})"\s*:)')
LITERALS = ("-Infinity", "Infinity", "NaN", "true", "false", "null")
LITERAL_MAX = len(LITERALS[0])
# To read many records at once: the text between two of them, the beginning of one, and a decoder that finds their ends.
# If the decoder rejects the text, this many records are read one by one before the next attempt. (It rejects all that
# SCANNER rejects, and more.)
BETWEEN = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")
RECORD_START = re.compile(rf'\{{\s*"(?:{RECORD_NAMES}|fullUrl|resource)"\s*:')
SLICES = msgspec.json.Decoder(list[msgspec.Raw])
DOUBTFUL_RECORDS, BRACES_TRIED = 100, 50


def count_parts(text: str, start: int = 0, end: int | None = None) -> int:
    """Return the number of commas and opening brackets: JSON text has at most one value more than these."""
    return sum(text.count(mark, start, end) for mark in ",[{")


class Readable(Protocol):
    """A stream of bytes; `read` returns at most `size` of them, and b"" at its end."""

    def read(self, size: int, /) -> bytes: ...


class JsonBuffer:
    """A stream of bytes as text. `text`: the part in memory; `position`: the index in it of the next character.

    Bytes that are not UTF-8 become lone surrogates ("surrogateescape").
    """

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
        self._next_bytes = CHUNK_BYTES
        self.text = ""
        self.position = 0
        self.line = 1
        self.ended = False
        self.is_cut = False  # the last value is truncated by the end
        self._doubtful = 0
        self._held: tuple[int, int] | None = None  # position and line
        self._kept: list[str] = []  # what was held and is no longer in `text`
        self._ahead = ""  # the text after `text`, if a long record made it read

    def hold(self) -> None:
        """Keep the text from here on until `release`, or until it is longer than RECORD_MAX."""
        self._held = self.position, self.line

    @property
    def is_held(self) -> bool:
        return self._held is not None

    def rewind(self) -> None:
        """Return to the place of `hold`."""
        if self._held is not None:
            self.position, self.line = self._held
            self.text = "".join([*self._kept, self.text])
        self.release()

    def release(self) -> None:
        self._held, self._kept = None, []

    def read_more(self) -> bool:
        """Read a further part, twice as large if nothing was consumed since. Return False at the end."""
        if self.ended:
            return False
        if self._held is not None:
            if self.position:
                self._kept.append(self.text[self._held[0] : self.position])
                self._held = 0, self._held[1]
            size = sum(map(sys.getsizeof, (*self._kept, self.text)))
            if size > 2 * RECORD_MAX or sum(map(len, self._kept)) > RECORD_MAX:
                self.release()
        if self.position:
            self.text, self._next_bytes, self.position = self.text[self.position :], CHUNK_BYTES, 0
        else:
            self._next_bytes = min(2 * self._next_bytes, RECORD_MAX // 4)
        if self._ahead:
            self.text += self._ahead[: self._next_bytes]
            self._ahead = self._ahead[self._next_bytes :]
            return True
        data = self._source.read(self._next_bytes)
        self.ended = not data
        self.text += self._decode(data, final=self.ended)
        return True

    def _shorten(self) -> None:
        """Move text out of the buffer until a record needs it: the next one may be short."""
        self._next_bytes, end = CHUNK_BYTES, self.position + CHUNK_BYTES
        if len(self.text) > end + CHUNK_BYTES:
            self.text, self._ahead, self.ended = self.text[:end], self.text[end:] + self._ahead, False

    def _forget(self) -> None:
        """Drop the text before the position, because each error of Python's JSON decoder counts all its lines."""
        if self._held is None and self.position > CHUNK_BYTES // 8:
            self.text, self.position = self.text[self.position :], 0

    def _parts_end(self) -> int:
        """Return an index before which the text has a little more than PARTS_MAX parts; 0 if it has fewer."""
        parts = 0
        for start in range(self.position, len(self.text), CHUNK_BYTES):
            parts += count_parts(self.text, start, start + CHUNK_BYTES)
            if parts > PARTS_MAX:
                return start + CHUNK_BYTES
        return 0

    def consume(self, end: int) -> str:
        """Move the position to `end` and return the text before it."""
        consumed = self.text[self.position : end]
        self.line += consumed.count("\n")
        self.position = end
        return consumed

    def peek(self) -> str:
        """Skip white space and return the next character without consuming it; "" at the end."""
        while True:
            if self.text[self.position : self.position + 1] > " ":
                return self.text[self.position]
            match = SPACE.match(self.text, self.position)
            end = match.end() if match else self.position
            self.consume(end)
            if end < len(self.text):
                return self.text[end]
            if not self.read_more():
                return ""

    def expect(self, characters: str, description: str) -> str:
        """Consume one of these characters. Raises BadInput naming the line if there is another one, or the end."""
        found = self.peek()
        if not found:
            raise BadInput(f"line {self.line}: the file ends where {description} is expected: it is cut short")
        if found not in characters:
            raise BadInput(f"line {self.line}: {description} is expected, not {found!r}")
        self.consume(self.position + 1)
        return found

    def read_value(self) -> Any:
        """Consume one value and return it decoded. Raises BadInput if it is malformed or missing."""
        parsed = self.read_record(0)
        if parsed.faults:
            raise BadInput(f"line {parsed.line}: {parsed.faults[0][1]}")
        return parsed.record

    def read_record(self, index: int, *, by_line: bool = False, scan: bool = False) -> ParsedRecord:
        """Consume one value and return it as a record, with a fault if it is not JSON, truncated or too long.

        `by_line`: nothing may follow it on its line, and a malformed one ends where the next one begins a line. `scan`:
        only find its end; ParsedRecord.decoded() decodes it on demand.
        """
        self.peek()
        self._shorten()
        line, decoder = self.line, SCANNER if scan else DECODER
        while True:
            record, fault, end = None, "", 0
            cut = self._parts_end() if len(self.text) - self.position > 2 * CHUNK_BYTES else 0
            try:
                record, end = decoder.raw_decode(self.text[:cut] if cut else self.text, self.position)
                if by_line and not LINE_REST.match(self.text, end):
                    fault, end = "it is not one JSON value: something follows it on its line", self._broken_end(by_line)
            except JSONDecodeError as error:
                if cut:
                    return self._overlong(index, NEXT_LINE if by_line else NEXT_RECORD, f"{PARTS_MAX} values")
                if self.ended or self._is_certain(error):
                    at = line + self.text.count("\n", self.position, error.pos)
                    where = f" (line {at})" if at != line and not by_line else ""
                    fault, end = f"it is not JSON: {error.msg}{where}", self._broken_end(by_line)
                    if end == len(self.text) and self._is_truncated(error):
                        end = 0
            except RecursionError:
                fault, end = "it is nested too deeply", self._broken_end(by_line)
            if end and (end < len(self.text) or self.ended or (not by_line and self.text[end - 1] == "}")):
                break
            length = len(self.text) - self.position
            too_long = length > RECORD_MAX
            if too_long or length * sys.getsizeof(self.text) // (len(self.text) or 1) > WIDE_MAX_BYTES:
                most = f"{RECORD_MAX} characters" if too_long else f"{WIDE_MAX_BYTES} bytes of memory"
                return self._overlong(index, NEXT_LINE if by_line else NEXT_RECORD, most)
            if not self.read_more():
                fault, end, self.is_cut = "it is cut short: the file ends in it", len(self.text), True
                break
        if fault:
            raw = self.consume(end)
            self._forget()
            return ParsedRecord(index, line, raw, None, [("", fault)])
        return ParsedRecord(index, line, self.consume(end), UNREAD if scan else record)

    def read_complete_records(self, index: int) -> list[ParsedRecord]:
        """Fast path: consume every complete record in the buffer except the last, with the commas after them.

        Return [] if any is malformed, or if the last one is not found quickly. If the buffer parses as a list, it can
        be split at any top-level comma.
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
            found.append(ParsedRecord(index + len(found), self.line, raw))
            between = BETWEEN.match(self.text, self.position + len(raw))
            self.consume(between.end() if between else end)
        return found

    def _last_start(self) -> int:
        """Return the index where the last record in the buffer seems to begin, after a comma; 0 if not found."""
        at = min(len(self.text), self.position + CHUNK_BYTES)
        for _ in range(BRACES_TRIED):
            at = self.text.rfind("{", self.position + 1, at)
            if at < 0:
                break
            if RECORD_START.match(self.text, at) and self.text[max(0, at - 100) : at].rstrip().endswith(","):
                return at
        return 0

    def skip_garbage(self, index: int) -> ParsedRecord | None:
        """Consume text between two records of a list and return it as a faulty record; None if no record follows."""
        self.peek()
        line = self.line
        while (found := NEXT_RECORD.search(self.text, self.position)) is None:
            if len(self.text) - self.position > RECORD_MAX or not self.read_more():
                return None
        return ParsedRecord(index, line, self.consume(found.start()), None, [("", "it is not a record")])

    def _is_certain(self, error: JSONDecodeError) -> bool:
        """Return whether the value is malformed, and not only truncated by the end of the buffer."""
        if error.msg.startswith("Unterminated string"):
            return False
        return error.pos + LITERAL_MAX < len(self.text)

    def _is_truncated(self, error: JSONDecodeError) -> bool:
        """Return whether the value is well-formed as far as the text goes."""
        rest = self.text[error.pos :].strip()
        return error.msg.startswith("Unterminated string") or any(each.startswith(rest) for each in LITERALS)

    def _broken_end(self, by_line: bool) -> int:
        """Return the index where the malformed value at the position ends: with its brackets, or where the next record
        begins; 0 if neither is in the buffer."""
        if by_line:
            line_end = NEXT_LINE.search(self.text, self.position)
            return line_end.start() if line_end else len(self.text) if self.ended else 0
        with contextlib.suppress(JSONDecodeError, RecursionError):
            return LENIENT.raw_decode(self.text, self.position)[1]
        closing = self._closing_bracket()
        # the next record counts only before the closing bracket: searching on would read the buffer for each record
        last = closing + OVERLAP if closing else len(self.text)
        next_record = NEXT_RECORD.search(self.text, self.position + 1, last)
        ends = [end for end in (closing, next_record.start() if next_record else 0) if end]
        return min(ends, default=0)

    def _closing_bracket(self) -> int:
        depth = 0
        for token in TOKEN.finditer(self.text, self.position):
            found = token.group()
            if found in ("{", "["):
                depth += 1
            elif found in ("}", "]"):
                depth -= 1
                if depth <= 0:
                    return token.end() if depth == 0 else token.start()
            elif found[-1] not in '"\n' or found == '"':
                return 0
        return 0

    def _overlong(self, index: int, next_one: re.Pattern[str], most: str) -> ParsedRecord:
        """Consume a record that has more than `most`; at most KEPT_MAX characters of it are kept."""
        line, raw = self.line, self.text[self.position : self.position + min(KEPT_MAX, RECORD_MAX)]
        self.consume(self.position + 1)
        while (found := next_one.search(self.text, self.position)) is None:
            self.consume(max(self.position, len(self.text) - OVERLAP))
            if not self.read_more():
                self.consume(len(self.text))
                break
        else:
            self.consume(found.start())
        fault = f"has more than {most}; only its beginning is kept"
        return ParsedRecord(index, line, raw, None, [("", fault)])


def read_values(window: JsonBuffer) -> Iterator[ParsedRecord]:
    """Return one record after another, as in NDJSON; a malformed one ends with its line."""
    index = 0
    while window.peek():
        yield window.read_record(index, by_line=True, scan=True)
        index += 1


def read_list(window: JsonBuffer, *, scan: bool = True) -> Iterator[ParsedRecord]:
    """Consume the list at the buffer's position and return its elements. Raises BadInput if it is truncated.

    `scan`: only find their ends, as `read_record` does."""
    window.expect("[", "a list of records")
    index = 0
    if window.peek() == "]":
        window.consume(window.position + 1)
        return
    while True:
        if window.peek() in (",", "]"):
            raise BadInput(f"line {window.line}: a record is expected, not {window.peek()!r}")
        for parsed in window.read_complete_records(index):
            yield parsed
            index += 1
        yield window.read_record(index, scan=scan)
        index += 1
        while window.peek() not in (",", "]", ""):
            garbage = window.skip_garbage(index)
            if garbage is None:
                break
            yield garbage
            index += 1
        if window.expect(",]", "a comma or the end of the list") == "]":
            return


def read_members(window: JsonBuffer) -> Iterator[tuple[str, int]]:
    """Return the name and line of each member of the object; the caller consumes its value before the next one."""
    window.expect("{", "an object")
    if window.peek() == "}":
        window.consume(window.position + 1)
        return
    while True:
        window.peek()
        line, name = window.line, window.read_value()
        if not isinstance(name, str):
            raise BadInput(f"line {line}: a name in double quotes is expected")
        window.expect(":", "a colon")
        yield name, line
        if window.expect(",}", "a comma or the end of the object") == "}":
            return


def require_end(window: JsonBuffer) -> None:
    """Raise BadInput if anything but white space follows."""
    if window.peek():
        raise BadInput(f"line {window.line}: nothing more is expected, but {window.peek()!r} follows")


def truncation(window: JsonBuffer) -> str:
    """Return where the end of the source truncates the last value, which is rejected as a record; "" if nowhere."""
    return f"line {window.line}: the file ends in the middle of a value: it is cut short" if window.is_cut else ""
