"""Text that comes from outside, made fit to be shown."""

from __future__ import annotations


def printable(text: str, most: int = 200) -> str:
    """The text on one line, with an escape for each character that would steer a terminal or cannot be stored."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:most])
    return shown if len(text) <= most else f"{shown}…"
