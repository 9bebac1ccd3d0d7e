"""Normalized names for searching, independent of case, accents and punctuation. Pure."""

import re
import unicodedata

# Number of search keys of a full name: from each of its first words, and from its last.
KEYS = 5
NAME_KEY_MAX = 200  # characters
# Combining accents of decomposed Latin, Greek and Cyrillic letters. Vowel signs of other scripts are marks too, but
# their readers treat them as letters; they stay.
ACCENT_PATTERN = re.compile("[\u0300-\u036f]")
APOSTROPHE_PATTERN = re.compile("['`\u00b4\u02bc\u2018\u2019]")
BORDER_PATTERN = re.compile(r"[\s,.;:/()\[\]\"\-\u2010-\u2015\u00b7\u201c\u201d]+")


def name_words(text: str) -> list[str]:
    """Split a full name into words, without case, accents, apostrophes, hyphens and invisible characters.

    Worked example: "José O’Neill-García" gives jose, oneill, garcia.
    """
    if not text.isascii():
        plain = ACCENT_PATTERN.sub("", unicodedata.normalize("NFKD", text))
        text = unicodedata.normalize("NFC", "".join(c for c in plain if unicodedata.category(c) != "Cf"))
    return BORDER_PATTERN.sub(" ", APOSTROPHE_PATTERN.sub("", text.casefold())).split()


def name_keys(full_name: str) -> dict[str, str]:
    """Return the full name from each of its words on, by number from "1".

    A name of more than KEYS words has keys from its first KEYS - 1 words and from its last.
    """
    words = name_words(full_name)
    begins = [*range(len(words))] if len(words) <= KEYS else [*range(KEYS - 1), len(words) - 1]
    return {str(number): " ".join(words[begin:])[:NAME_KEY_MAX] for number, begin in enumerate(begins, 1)}
