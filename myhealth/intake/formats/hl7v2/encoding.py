"""The delimiters, the escape sequences and the character set of an HL7 v2 message.

Source: HL7 v2.8, chapter 2 (message delimiters, escape sequences, character sets); table 0211.
"""

import codecs
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from msgspec import Struct

from myhealth.common.text import printable

# Character sets (table 0211, DICOM's and common names) as codecs, by their letters and digits. All contain ASCII.
CHARSETS = {
    **dict.fromkeys(("", "ASCII", "USASCII", "UNICODE", "UNICODEUTF8", "UTF8", "ISOIR6", "ISOIR192"), "utf-8"),
    **dict.fromkeys(("GB180302000", "GB18030", "GBK", "GB2312"), "gb18030"),
    **dict.fromkeys(("SHIFTJIS", "SJIS", "ISOIR13", "ISOIR14", "JISX0201", "JISX02011976"), "cp932"),
    **dict.fromkeys(("KSX1001", "KSC5601", "ISOIR149"), "cp949"),
    "BIG5": "big5",
    **{
        f"ISOIR{number}": f"iso8859-{part}"
        for number, part in zip(
            (100, 101, 109, 110, 144, 127, 126, 138, 148, 166), (1, 2, 3, 4, 5, 6, 7, 8, 9, 11), strict=True
        )
    },
}
LATIN = re.compile(r"(?:ISO)?8859(1[013-6]|[1-9])")
CODE_PAGE = re.compile(r"(?:WINDOWS|MSWIN|WIN|CP|IBM)?(125[0-8]|437|850|852|866|874|932|936|949|950)")
# Character sets that a message switches to with an escape character (ISO 2022).
SWITCHED = re.compile(r"ISOIR(?:87|159)|JISX02(?:08|12|02).*|ISO2022JP.*")
WITH_ASCII = re.compile(r"iso8859|cp[0-9]|koi8|mac|euc|big5|gb|johab|tis|kz|ptcp")
PRINTABLE = bytes(range(32, 127))
REPEATED_MAX = 100  # line ends or blanks of one command
CACHED_MAX = 200  # characters: longer texts do not come again
Read = TypeVar("Read")
LATIN_1 = "iso8859-1"
WESTERN = (LATIN_1, "iso8859-15", "cp1252")
CONTROLS = re.compile(rb"[\x80\x82-\x8c\x8e\x91-\x9c\x9e\x9f]")  # of Latin-1; signs such as the euro in Windows-1252
LATIN_LETTERS = 0xA0  # where the letters and signs of Latin-1 begin
LATIN_TO_PUNCTUATION = range(0x30)  # the first byte of a two-byte character: alphabets and punctuation


class Encoding(Struct, frozen=True, eq=False):
    """The encoding of a message: the delimiters of MSH-1 and MSH-2 ("" if not given), and the codec of the character
    set that MSH-18 names ("" if it is unknown). Equal encodings are one object, so they are quick keys of a cache."""

    field: str
    component: str
    repetition: str
    escape: str
    subcomponent: str
    truncation: str
    codec: str
    charset: str
    find_marks: Callable[[str], re.Match[str] | None]  # what must be taken out of a text: delimiters, quotes, blanks

    @property
    def fault(self) -> str:
        """The fault of bytes that cannot be decoded."""
        if self.codec:
            unnamed = "" if self.charset.strip() else ", and MSH-18 names no character set"
            return f"contains bytes that are not {self.codec}{unnamed}"
        named = printable(self.charset, 40)
        return f"contains bytes beyond ASCII, and MSH-18 names a character set that is not known: '{named}'"

    def components(self, text: str) -> list[str]:
        return text.split(self.component) if self.component else [text]

    def subcomponents(self, text: str) -> list[str]:
        return text.split(self.subcomponent) if self.subcomponent else [text]

    def repetitions(self, text: str) -> list[str]:
        """Return the repetitions of a field as sent, without empty ones."""
        if not self.repetition or self.repetition not in text:
            return [text] if text and text != '""' and not text.isspace() else []
        found = text.split(self.repetition)
        return [each for each in found if each.strip() and each != '""']

    def first(self, text: str) -> str:
        """Return the first repetition of a field as sent; "" if there is none."""
        return next(iter(self.repetitions(text)), "")

    def plain(self, text: str) -> str:
        """Return the text with its escape sequences resolved; unknown ones stay unchanged."""
        if not self.escape or self.escape not in text:
            return text
        return _escapes(self.escape).sub(self._meaning, text)

    def unquoted(self, text: str) -> str:
        """Return the text, unescaped and without blanks around it; one sent as empty ("") is empty."""
        found = self.plain(text).strip()
        return "" if found == '""' else found

    def parts(self, text: str, least: int = 0) -> list[str]:
        """Return the components as `unquoted` does, with empty ones behind them if they are fewer than `least`."""
        found = list(map(self.unquoted, self.components(text)))
        return found if len(found) >= least else found + [""] * (least - len(found))

    def _meaning(self, match: re.Match[str]) -> str:
        letter, command, size = match[1], match[2], match[3]
        if letter:
            meanings = {"F": self.field, "S": self.component, "T": self.subcomponent, "R": self.repetition}
            meanings |= {"E": self.escape, "P": self.truncation or match[0], "H": "", "N": ""}
            return meanings[letter]
        if command:
            count = min(int(size.lstrip("+-") or 1), REPEATED_MAX)
            return {"br": "\n", "ce": "\n", "sp": "\n" * count, "sk": " " * count}.get(command.lower(), "")
        if match[4] is None:  # another character set, which the codec knows by itself
            return ""
        found = _characters(bytes.fromhex(match[4].replace(f"{self.escape}X", "").replace(self.escape, "")), self.codec)
        return match[0] if found is None else found


def cached(read: Callable[[str, Encoding], Read]) -> Callable[[str, Encoding], Read]:
    """Cache what `read` returns for a short text."""
    quick = lru_cache(maxsize=2048)(read)
    return lambda text, encoding: (quick if len(text) < CACHED_MAX else read)(text, encoding)


def _characters(data: bytes, codec: str) -> str | None:
    """Return the characters of an escape sequence in hex; None if the bytes cannot be decoded. Some senders write two
    bytes for each character.

    Worked examples: 0D0A and 000D 000A are a line end; C2B5 (in UTF-8), 00B5 and B5 the micro sign. A NUL vanishes.
    """
    text = decode(data, codec)
    two_byte = not len(data) % 2 and (data[0] in LATIN_TO_PUNCTUATION if text is None else "\0" in text)
    if two_byte:
        text = decode(data, "utf-16-be") or text
    elif text is None and min(data) >= LATIN_LETTERS:
        text = data.decode("latin-1")
    return text and text.replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")


@lru_cache(maxsize=64)
def _escapes(escape: str) -> re.Pattern[str]:
    """Return a pattern of the known sequences. Adjacent bytes in hex may be one character, so they match together."""
    mark = re.escape(escape)
    commands = r"\.((?i:br|sp|in|ti|fi|nf|ce|sk))\ ?([+-]?[0-9]{0,4})"
    charsets = "C[0-9A-Fa-f]{4}|M(?:[0-9A-Fa-f]{2}){2,3}"
    return re.compile(rf"{mark}(?:([FSTREPHN])|{commands}|{charsets}){mark}|((?:{mark}X(?:[0-9A-Fa-f]{{2}})+{mark})+)")


def is_misnamed(data: bytes, codec: str) -> bool:
    """Return whether bytes are UTF-8 although the message names a western character set, in which they would make no
    sense."""
    return codec in WESTERN and not data.isascii() and decode(data, "utf-8") is not None


def decode(data: bytes, codec: str) -> str | None:
    """Decode the bytes. Return None if they are invalid in the codec (ASCII if `codec` is empty).

    Senders that name a western character set may mean UTF-8, and those that name Latin-1 Windows-1252.
    """
    if codec in WESTERN and not data.isascii():
        if is_misnamed(data, codec):
            codec = "utf-8"
        elif codec == LATIN_1 and CONTROLS.search(data):
            codec = "cp1252"
    try:
        return data.decode(codec or "ascii")
    except UnicodeDecodeError:
        return None


def read_encoding(head: bytes) -> Encoding | None:
    """Read the delimiters and the codec from the MSH segment. Return None if the delimiters are not valid."""
    fields = head.split(head[3:4], 18)
    charset = fields[17].strip().decode("ascii", "replace") if len(fields) > 17 else ""
    marks = head[3:4] + fields[1][:5]
    if marks.isascii():
        return _encoding(marks.decode(), charset)
    repetition = fields[1][1:2].decode("latin-1") or "~"
    text = decode(head, codec_of(*charset.split(repetition))) or head.decode("latin-1")
    return _encoding(text[3] + text.split(text[3])[1][:5], charset)


@lru_cache(maxsize=256)
def _encoding(marks: str, charset: str) -> Encoding | None:
    if len(marks) < 2 or len(set(marks)) != len(marks) or any(each.isalnum() for each in marks):
        return None
    field, component, repetition, escape, subcomponent, truncation = (*marks, "", "", "", "")[:6]
    codec = codec_of(*charset.split(repetition or "~"))
    find_marks = re.compile(rf"[{re.escape(component + repetition + escape)}\"\s]").search
    return Encoding(field, component, repetition, escape, subcomponent, truncation, codec, charset, find_marks)


@lru_cache(maxsize=256)
def codec_of(*names: str) -> str:
    """Return the codec of the character sets that MSH-18 names; "" if it is unknown. The first one holds, unless the
    message switches to another one."""
    keys = [re.sub(r"[^A-Z0-9]", "", name.upper()) for name in names] or [""]
    if any(SWITCHED.fullmatch(key) for key in keys):
        return "iso2022_jp_2"
    if keys[0] in CHARSETS:
        return CHARSETS[keys[0]]
    if latin := LATIN.match(keys[0]):
        return f"iso8859-{latin[1]}" if latin.end() == len(keys[0]) else ""
    if page := CODE_PAGE.fullmatch(keys[0]):
        return f"cp{page[1]}"
    try:
        codec = codecs.lookup(names[0].strip()).name
    except (LookupError, ValueError):
        return ""
    return codec if WITH_ASCII.match(codec) and PRINTABLE.decode(codec) == PRINTABLE.decode() else ""
