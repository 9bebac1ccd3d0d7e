"""Check usernames: they must work in URLs, HTTP Basic and tables, and no two may look alike."""

import re
import unicodedata
from typing import Any

USERNAME_MAX = 150
# Default_Ignorable_Code_Point (Unicode, DerivedCoreProperties.txt) beyond the categories C and Z, and three that are
# drawn as a blank: the empty Braille pattern, the Khitan filler, the null notehead.
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
    "\u2800\U00016fe4\U0001d159]"
)
# Scripts that one name may mix, as Chinese, Japanese and Korean do; with Latin this is the "highly restrictive" level
# of Unicode Technical Standard 39.
JAPANESE = ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA")
EAST_ASIAN = [{"CJK", "IDEOGRAPHIC", *others} for others in (JAPANESE, ("BOPOMOFO",), ("HANGUL",))]


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
