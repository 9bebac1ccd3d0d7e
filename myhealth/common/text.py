"""Make text from outside safe to show."""

from __future__ import annotations


def printable(text: str, most: int = 200) -> str:
    """Return the text on one line, at most `most` characters, with control and surrogate characters escaped."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:most])
    return shown if len(text) <= most else f"{shown}…"
