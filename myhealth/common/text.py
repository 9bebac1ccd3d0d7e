"""Make text from outside safe to show, and compare usernames."""

from __future__ import annotations

import unicodedata


def printable(text: str, most: int = 200) -> str:
    """Return the text on one line, at most `most` characters, with control and surrogate characters escaped."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:most])
    return shown if len(text) <= most else f"{shown}…"


def fold_name(username: str) -> str:
    """Return the username as it is compared everywhere, and stored in `users.folded_name`.

    NFKC and Unicode's full case folding; İ as i. Computed here, because databases and locales fold differently.
    Worked example: ΟΔΟΣ and οδος give οδοσ, "Zoe\u0308" gives zoë.
    """
    if username.isascii():
        return username.lower()
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", username).casefold())
    return folded.replace("i\u0307", "i")
