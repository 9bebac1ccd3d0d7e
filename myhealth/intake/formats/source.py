"""A source of bytes: gzip is unpacked, and its beginning can be examined before it is read."""

import codecs
import contextlib
import gzip
import json
import zlib
from collections.abc import Set
from functools import cached_property
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from myhealth.common.errors import BadInput, TooLarge
from myhealth.intake.formats.json_reader import (
    CHUNK_BYTES,
    LITERAL_MAX,
    PARTS_MAX,
    RECORD_MAX,
    SCANNER,
    TOKEN,
    Readable,
    count_parts,
)

GZIP_MAGIC = b"\x1f\x8b"
HEAD_BYTES = 1024  # enough to distinguish HL7 v2, XML and the like from JSON
OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
WHITE_SPACE = " \t\r\n"
# Only a check-up record has these names; an object that has one is not a machine-memory dump.
REQUIRED_NAMES = frozenset(("checkup_for", "checkup_type", "checkup_report"))


class JsonStart(Struct, frozen=True):
    """The beginning of JSON text. `first`: its first character that is not white space.

    `names`: the names of its first object (of a list: of the object in it), as far as they were read. `whole`: that
    object is complete and well-formed; `alone`: and nothing follows it. `by_line`: a further line begins with `{`.
    `text`: an object that is alone, and `line`, on which it begins, from 1.
    """

    first: str
    names: Set[str] = frozenset()
    whole: bool = False
    alone: bool = False
    by_line: bool = False
    text: str = ""
    line: int = 1


class Source:
    """Bytes whose beginning can be examined, then read once as a stream.

    `max_bytes`: raise TooLarge beyond so many unpacked bytes (0: no bound). Reading raises BadInput if gzipped data
    are damaged.
    """

    def __init__(self, raw: BinaryIO, max_bytes: int = 0) -> None:
        self._raw = raw
        self._max_bytes = max_bytes
        self._count, self._complete = 0, False
        self._unpacked: Any
        first, self._unpacked = raw.read(CHUNK_BYTES), raw
        if first.startswith(GZIP_MAGIC):
            packed: Any = _Joined(first, raw)
            first, self._unpacked = b"", gzip.GzipFile(fileobj=packed, mode="rb")
        self._head = self._counted(first)

    def head(self, size: int = HEAD_BYTES) -> bytes:
        """Return all bytes examined so far: at least `size` of them, unless the source is shorter."""
        while not self._complete and len(self._head) < size:
            part = self.read(CHUNK_BYTES)
            self._head += part
            self._complete = not part
        return self._head

    def stream(self) -> Readable:
        """Return all bytes from the beginning. Call it once, after the examination."""
        return _Joined(self._head, self)

    def read(self, size: int) -> bytes:
        """Return the next bytes behind those examined."""
        try:
            return self._counted(self._unpacked.read(size))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise BadInput(f"the gzipped file is damaged or cut short: {error}") from error

    def _counted(self, data: bytes) -> bytes:
        self._count += len(data)
        if self._max_bytes and self._count > self._max_bytes:
            raise TooLarge(f"unpacked it has more than {self._max_bytes} bytes")
        return data

    def seekable(self) -> bool:
        return self._raw.seekable()

    def rewound(self) -> "Source":
        """Return the same source, from its beginning."""
        self._raw.seek(0)
        return Source(self._raw, self._max_bytes)

    @cached_property
    def json_start(self) -> JsonStart:
        """Examine as much as the names of the first object need; at most the length of one record."""
        text = self._text()
        if text[:1] != "{":
            names = top_names(text[1:].lstrip()[:CHUNK_BYTES]) if text[:1] == "[" else set()
            return JsonStart(text[:1], names)
        while True:
            if len(text) > PARTS_MAX and count_parts(text) > PARTS_MAX:
                return JsonStart("{", top_names(text[:CHUNK_BYTES]), by_line="\n{" in text)
            with contextlib.suppress(msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
                names = set(OBJECT.decode(text))  # by far the most: a record alone
                return self._whole(names, text)
            try:
                found, end = SCANNER.raw_decode(text)
                return self._whole({*found}, text, end)
            except (json.JSONDecodeError, RecursionError) as error:
                if self._complete or len(text) >= CHUNK_BYTES:
                    names = top_names(text)
                    # one long record is read to its end; nothing else needs more than its first names
                    if not (_is_cut(error, text) and names & REQUIRED_NAMES) or self._complete:
                        return JsonStart("{", names, by_line="\n{" in text)
                    if len(text) >= RECORD_MAX:
                        return JsonStart("{", names, by_line="\n{" in text)
            self.head(2 * len(self._head))
            text = self._text()

    def _whole(self, names: Set[str], text: str, end: int | None = None) -> JsonStart:
        """Return the beginning that is a whole object, which ends at `end` or with the text."""
        alone = not (end and text[end:].strip(WHITE_SPACE)) and self._only_space_follows()
        before = self._head[: self._head.find(b"{")]
        text = text[:end].rstrip(WHITE_SPACE) if alone else ""
        return JsonStart("{", names, whole=True, alone=alone, text=text, line=1 + before.count(b"\n"))

    def _text(self) -> str:
        head = self.head()
        if self._complete:
            return head.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape").lstrip(WHITE_SPACE)
        decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")  # a character may be cut in two
        return decoder.decode(head).lstrip(WHITE_SPACE)

    def _only_space_follows(self) -> bool:
        while not self._complete:
            examined = len(self._head)
            if self.head(examined + 1)[examined:].strip(WHITE_SPACE.encode()) or examined > RECORD_MAX:
                return False
        return True


def _is_cut(error: Exception, text: str) -> bool:
    """Return whether the value may go on beyond the text, rather than be malformed."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated string") or error.pos + LITERAL_MAX >= len(text)


def top_names(text: str) -> set[str]:
    """Return the names of the object that a text begins with; the text may be truncated. `records` is the last one, for
    only a dump has it."""
    depth, names = 0, set()
    for token in TOKEN.finditer(text):
        found = token.group()
        if found in ("{", "["):
            depth += 1
        elif found in ("}", "]"):
            depth -= 1
            if depth <= 0:
                break
        elif depth == 1 and text[token.end() : token.end() + 20].lstrip().startswith(":"):
            names.add(name := found.strip('"'))
            if name == "records":
                break
    return names


class _Joined:
    """Bytes that were read already, then the rest of their stream: a pipe cannot be sought back."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._rest.read(size)
        cut = size if size >= 0 else len(self._head)
        head, self._head = self._head[:cut], self._head[cut:]
        return head
