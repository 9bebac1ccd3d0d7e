"""Make text from outside safe to show, and compare usernames."""

import re
import unicodedata
from typing import Any

# Control characters but TAB and line breaks; surrogates; characters that turn the direction of the text after them.
# Source: Unicode Standard Annex 9, 2, "Directional Formatting Characters".
UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# Combining accents of decomposed Latin, Greek and Cyrillic letters. Vowel signs of other scripts are marks too, but
# their readers treat them as letters; they stay.
ACCENTS = re.compile("[\u0300-\u036f]")
APOSTROPHES = re.compile("['`\u00b4\u02bc\u2018\u2019]")
# PostgreSQL's text and JSON cannot hold them.
UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def unstorable_fault(text: str) -> str:
    """Return why PostgreSQL cannot hold the text, and where, or ""."""
    if "\0" not in text and text.isascii():
        return ""
    found = UNSTORABLE.search(text)
    if found is None:
        return ""
    if found.group() == "\0":
        return f"contains a NUL character (at {found.start()})"
    return f"contains bytes that are not UTF-8, or half a character (at {found.start()})"


def storable(value: Any) -> Any:
    """Return a JSON value without the characters in its texts that PostgreSQL's JSON cannot hold."""
    if isinstance(value, str):
        return UNSTORABLE.sub("\ufffd", value)
    return [storable(each) for each in value] if isinstance(value, list | tuple) else value


def printable(text: str, most: int = 200) -> str:
    """Return the text on one line, at most `most` characters, with control and surrogate characters escaped."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:most])
    return shown if len(text) <= most else f"{shown}…"


def plain_reason(error: object) -> str:
    """Return a driver's message without its objects, options, error numbers and state."""
    inner = r"^\w+\(host=[^)]*\): |\[Errno -?\d+\] | \(configured timeouts: [^)]*\)|, (Timeout|full error):.*"
    return re.sub(inner, "", str(error))


def fold_name(username: str) -> str:
    """Return the username as it is compared everywhere, and stored in `users.folded_name`.

    NFKC and Unicode's full case folding; İ as i. Computed here, because databases and locales fold differently.
    Worked example: ΟΔΟΣ and οδος give οδοσ, "Zoe\u0308" gives zoë.
    """
    if username.isascii():
        return username.lower()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", username).casefold())
    return folded.replace("i\u0307", "i")


def escape_unsafe(text: str) -> str:
    """Return the text with control characters and direction overrides escaped; TAB and line breaks stay."""
    return text if text.isprintable() else UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def strip_unsafe(text: str) -> str:
    """Return the text without control characters and direction overrides; TAB and line breaks stay."""
    return text if text.replace("\n", "").isprintable() else UNSAFE.sub("", text)  # twice as quick for a page
