"""Compare what two sources call a person. Pure."""

from __future__ import annotations

import re
import unicodedata

# Words that many persons' names contain.
COMMON = re.compile(
    r"(mrs?|ms|miss|dr|prof|sir|jr|sr|phd|med?|herr|frau|hr|fr|sri|shri|smt|mme|monsieur|madame|senora?|sra"
    r"|d[aeiou]|das|dos|de[lnr]|della|l[ae]s?|el|al|van|von|ter|ten|zu|bint?|ibn|y|und|and|[a-z])"
)
APOSTROPHES = re.compile("['`\u00b4\u02bc\u2018\u2019]")
WORDS = re.compile(r"[^\W_]+")
ACCENTS = re.compile("[\u0300-\u036f]")
# Letters that no decomposition reduces to Latin ones, and the digraphs that are written for some: Müller, Mueller.
PLAIN = str.maketrans({"ø": "o", "å": "a", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})
DIGRAPHS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})


def may_be_one_person(one: str, other: str) -> bool:
    """Return whether two names have a word in common, in any order, without case and accents, or cannot be compared.

    Titles, particles and initials do not count. Worked example: "MUELLER, Anna" and "Frau A. Müller" have one.
    """
    words, others = _words(one), _words(other)
    if not words or not others or words & others:
        return True
    # Names in scripts that need no blanks between their words.
    return _contains_word(one, others) or _contains_word(other, words)


def _words(name: str) -> set[str]:
    found = set()
    for word in WORDS.findall(APOSTROPHES.sub("", unicodedata.normalize("NFC", name).casefold())):
        for form in (word, word.translate(DIGRAPHS)):
            plain = ACCENTS.sub("", unicodedata.normalize("NFKD", form.translate(PLAIN)))
            found.add(unicodedata.normalize("NFC", plain))
    return {word for word in found if not COMMON.fullmatch(word)}


def _contains_word(name: str, words: set[str]) -> bool:
    joined = "".join(WORDS.findall(unicodedata.normalize("NFKC", name).casefold()))
    return any(len(word) > 1 and unicodedata.category(word[0]) == "Lo" and word in joined for word in words)
