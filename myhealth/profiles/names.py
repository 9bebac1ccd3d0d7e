"""Names: usernames (no two may look alike), and names and birth dates of persons as sources write them. Pure.

Usernames must work in URLs, HTTP Basic and tables.
"""

import re
import unicodedata
from datetime import UTC, date, datetime, timedelta
from typing import Any

from myhealth.common.spreadsheets import spoilt
from myhealth.common.text import ACCENTS, APOSTROPHES

USERNAME_MAX = 150
# Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties.txt) beyond the categories C and Z, and three that are
# drawn as a blank: the empty Braille pattern, the Khitan filler, the null notehead.
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
    "\u2800\U00016fe4\U0001d159]"
)
OID = re.compile(r"urn:oid:([0-2](?:\.[0-9]+)+)|([0-2](?:\.[0-9]+){2,})", re.IGNORECASE)
UUID = re.compile(r"(?:urn:uuid:)?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.IGNORECASE)
# Scripts that one name may mix, as Chinese, Japanese and Korean do; with Latin this is the "highly restrictive" level
# of Unicode Technical Standard 39.
JAPANESE = ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA")
EAST_ASIAN = [{"CJK", "IDEOGRAPHIC", *others} for others in (JAPANESE, ("BOPOMOFO",), ("HANGUL",))]


def authority_forms(system: str) -> tuple[str, ...]:
    """Return the ways in which one authority is written: the one that counts, then those that are stored perhaps.

    Worked examples: 1.2.3 and URN:OID:1.2.3 are urn:oid:1.2.3; a UUID is urn:uuid: with small letters.
    """
    if oid := OID.fullmatch(system):
        bare = oid[1] or oid[2]
        return tuple(dict.fromkeys((f"urn:oid:{bare}", system, bare)))
    if uuid := UUID.fullmatch(system):
        return tuple(dict.fromkeys((f"urn:uuid:{uuid[1].lower()}", system, uuid[1])))
    return (system,)


def username_error(username: Any) -> str:
    """Return why this cannot be a username, or ""."""
    if not isinstance(username, str) or not username:
        return "a username is needed"
    if len(username) > USERNAME_MAX:
        return f"the username has {len(username)} characters; at most {USERNAME_MAX} are allowed"
    if username in (".", ".."):
        return "the username is a path, not a name"
    for character in username:
        if character in "/\\:" or unicodedata.category(character)[0] in "CZ":
            return f"the username contains {character!a}; spaces, control characters and / \\ : are not allowed"
    if invisible := INVISIBLE.search(username):
        return f"the username contains {invisible.group()!a}, which is invisible"
    if unicodedata.normalize("NFKC", username) != unicodedata.normalize("NFC", username):
        return "the username contains characters that look like others"
    scripts = {unicodedata.name(letter, "").split(" ")[0] for letter in username if letter.isalpha()} - {"MODIFIER"}
    if len(scripts) > 1 and not any(scripts - {"LATIN"} <= mixed for mixed in EAST_ASIAN):
        return f"the username mixes {' and '.join(map(str.capitalize, sorted(scripts)))} letters, which look alike"
    return ""


# Placeholders for a missing name: records of many persons have them.
PLACEHOLDER = re.compile(
    r"[-\u2013\u2014_?*#/]+|0+|9{5,20}|x{2,20}|tbd|dummy|temp(?:orary)?(?:[ _-]?(?:id|mrn|no|number|patient))?"
    r"|n/?a\.?|nan|nil|none|null|undefined|not known|unnamed|no name|anon(?:ym(?:ous)?)?"
    r"|unk|(?:unknown|unidentified)(?:[ ,^_-]+(?:unknown|patient|person|(?:fe)?male|(?:wo)?man|child|baby))*"
    r"|(?:grand |sub-?)?totals?|average|avg|mean|median|st(?:andar)?d\.? ?dev(?:iation)?|summe|mittelwert|moyenne"
    r"|unbekannt|inconnue?|desconocid[oa]|\(?(?:null|unknown|none)\)?"
)


def names_nobody(text: str) -> bool:
    """Return whether a name or a number is a placeholder for a missing one, or was spoilt by a spreadsheet."""
    return PLACEHOLDER.fullmatch(text.strip().casefold()) is not None or spoilt(text) != ""


# Words that many persons' names contain.
COMMON = re.compile(
    r"(mrs?|ms|miss|dr|prof|sir|jr|sr|phd|med?|herr|frau|hr|fr|sri|shri|smt|mme|monsieur|madame|senora?|sra"
    r"|d[aeiou]|das|dos|de[lnr]|della|l[ae]s?|el|al|van|von|ter|ten|zu|bint?|ibn|y|und|and|[a-z])"
)
BIRTH_DATE = re.compile(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?")
OLDEST = 1850
WORDS = re.compile(r"[^\W_]+")
# Letters that no decomposition reduces to Latin ones, and the digraphs that are written for some: Müller, Mueller.
PLAIN = str.maketrans({"ø": "o", "å": "a", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"})
DIGRAPHS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})


def is_no_name(name: str) -> bool:
    """Return whether a person's name, given or family name first, is a placeholder, such as "Female Unknown"."""
    return names_nobody(name) or names_nobody(" ".join(reversed(name.split())))


def may_be_one_person(one: str, other: str) -> bool:
    """Return whether two names have a word in common, in any order, without case and accents, or cannot be compared.

    Titles, particles and initials do not count. Worked example: "MUELLER, Anna" and "Frau A. Müller" have one.
    """
    words, others = _name_words(one), _name_words(other)
    if not words or not others or words & others:
        return True
    # Names in scripts that need no blanks between their words.
    return _contains_word(one, others) or _contains_word(other, words)


def birth_date_fault(value: Any) -> str:
    """Return why this cannot be a birth date, or a part of one: YYYY, YYYY-MM or YYYY-MM-DD."""
    try:
        if not BIRTH_DATE.fullmatch(value):
            raise ValueError
        born = date.fromisoformat(value + "-01-01"[len(value) - 4 :])
    except (TypeError, ValueError):
        return "is not a date like 1983-07-19"
    today = datetime.now(UTC).date() + timedelta(days=1)  # in every zone
    return f"is not between {OLDEST} and today" if born.year < OLDEST or born > today else ""


def is_certain_birth_date(text: str | None) -> bool:
    """Return whether a birth date is a whole one, and not the first of January, as many sources write a year alone."""
    return text is not None and len(text) == len("1983-07-19") and not text.endswith("-01-01")


def _name_words(name: str) -> set[str]:
    found = set()
    for word in WORDS.findall(APOSTROPHES.sub("", unicodedata.normalize("NFC", name).casefold())):
        for form in (word, word.translate(DIGRAPHS)):
            plain = ACCENTS.sub("", unicodedata.normalize("NFKD", form.translate(PLAIN)))
            found.add(unicodedata.normalize("NFC", plain))
    return {word for word in found if not COMMON.fullmatch(word)}


def _contains_word(name: str, words: set[str]) -> bool:
    joined = "".join(WORDS.findall(unicodedata.normalize("NFKC", name).casefold()))
    return any(len(word) > 1 and unicodedata.category(word[0]) == "Lo" and word in joined for word in words)
