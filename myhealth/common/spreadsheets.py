"""Recognise what spreadsheets leave in place of a number or a name."""

import re

# Long numbers as spreadsheets write them to CSV: 123456789012 becomes 1.23E+11, and the rest of its digits is lost.
ROUNDED = re.compile(r"[0-9](?:[.,][0-9]+)?E\+[0-9]{2,3}", re.IGNORECASE)
# The errors of formulas, in any language: #N/A, #REF!, #NAME?, #WERT!, #NV.
FAILED = re.compile(r"#(?:N/[AD]|NV|[\u00a1\u00bf]?[^\W\d_][\w/]*[!?])")
# Blanks and marks that nobody sees: of direction, as Windows adds them to dates, zero-width blanks, soft hyphens.
_MARKS = r"[\s\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]+"
UNSEEN = re.compile(f"^{_MARKS}|{_MARKS}$")
# What spreadsheets make of texts such as 1-5, 5/1 and 2345-7: 5-Jan, Jan-05, Jul-45.
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
MADE_DATE = re.compile(rf"[0-9]{{1,2}}-(?:{_MONTHS})(?:-[0-9]{{2}})?|(?:{_MONTHS})-[0-9]{{2}}", re.IGNORECASE)
GUARDED = re.compile('="([^"]*)"')


def unguarded(cell: str) -> str:
    """Return the text of a cell, without the marks that keep a spreadsheet from reading it as a number (="007"), and
    without invisible characters around it."""
    text = cell.strip() if cell.isascii() else UNSEEN.sub("", cell)
    guarded = GUARDED.fullmatch(text)
    return guarded[1].strip() if guarded else text


def spoilt(text: str) -> str:
    """Return how a spreadsheet spoilt a number or a name, "" if the text may still be one."""
    if "+" not in text and "#" not in text:  # as nearly all
        return ""
    if ROUNDED.fullmatch(text):
        return f"is '{text}', of which a spreadsheet has rounded the digits away; write the whole number, as text"
    return f"is '{text}', the error of a formula" if FAILED.fullmatch(text) else ""
