"""Names as they are looked for: without regard to how somebody happens to type them. Pure."""

from __future__ import annotations

import re
import unicodedata

# Where a full name can be found by: at each of its first words, and at its last.
KEYS = 5
KEY_MAX = 200  # characters
# Accents of Latin, Greek and Cyrillic letters stand apart once they are decomposed; the vowels of other scripts,
# which are marks too, are letters to whoever reads them.
ACCENTS = re.compile("[\u0300-\u036f]")
APOSTROPHES = re.compile("['`\u00b4\u02bc\u2018\u2019]")
BORDERS = re.compile(r"[\s,.;:/()\[\]\"\-\u2010-\u2015\u00b7\u201c\u201d]+")


def name_key(username: str) -> str:
    """A name without regard to case and to how its accents are written."""
    return unicodedata.normalize("NFC", username).lower()


def name_words(text: str) -> list[str]:
    """The words of a full name without regard to case, accents, apostrophes, hyphens and marks that nobody sees:
    "José O’Neill-García" -> jose, oneill, garcia."""
    if not text.isascii():
        plain = ACCENTS.sub("", unicodedata.normalize("NFKD", text))
        text = unicodedata.normalize("NFC", "".join(c for c in plain if unicodedata.category(c) != "Cf"))
    return BORDERS.sub(" ", APOSTROPHES.sub("", text.casefold())).split()


def name_keys(full_name: str) -> dict[str, str]:
    """The full name from each of its words on, by number: of a name with more than KEYS words from the first ones and
    from the last one."""
    words = name_words(full_name)
    begins = [*range(len(words))] if len(words) <= KEYS else [*range(KEYS - 1), len(words) - 1]
    return {str(number): " ".join(words[begin:])[:KEY_MAX] for number, begin in enumerate(begins, 1)}
