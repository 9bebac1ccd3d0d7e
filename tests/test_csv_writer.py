"""No cell of a CSV is a formula, whatever separator its reader assumes; nothing of it controls a terminal."""

import csv
import io
import re
from decimal import Decimal, InvalidOperation
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cli.output import print_csv
from myhealth.common.csv_writer import csv_line
from myhealth.common.text import escape_unsafe, printable, strip_unsafe

WIDE = " \xa0\u3000\u200b\ufeff\u2007\u202f\u2060\u00ad\ufe0f\u2800\u3164"
FORMULA = re.compile(f'[{WIDE}"]*[=+@\t\r＝＋－＠-]')
PIECES = st.text(st.sampled_from("=+-@＝,;|\t\r\n\"' a1\xa0\u3000\u200b\ufeff"), max_size=12)
HOSTILE = "a\x1b]0;owned\x07\x1b[2J\u202e\u2066\x9b1m\x7f\x00"


def is_number(cell: str) -> bool:
    try:
        Decimal(cell)
    except InvalidOperation:
        return False
    return True


def cells(line: str) -> list[str]:
    """All cells that a reader of any separator finds, reading strictly or splitting inside quotes too."""
    return [cell for separator in ",;|\t" for row in csv.reader(io.StringIO(line, newline=""), delimiter=separator) for cell in row]  # fmt: skip


@given(PIECES, PIECES)
@example("a;=1+1;b", "a\t=1")
@example('a;"=1+1"', "a|@x")
@example("a\n=1", "a,-cmd")
@example("a; =1", "\n=1")
def test_no_cell_is_a_formula_for_any_separator(one: str, other: str) -> None:
    line = csv_line(["x", one, other, Decimal("-5.10"), -7])
    for cell in cells(line):
        assert is_number(cell) or not FORMULA.match(cell), (cell, line)
    for text in (one, other):
        (row,) = csv.reader(io.StringIO(csv_line([text, "end"]), newline=""))
        assert not re.search("[,;|\t\n][=+@\t\r＝＋－＠-]", row[0])
        assert row[0].replace("'", "") == text.replace("'", ""), "nothing else is changed"


@pytest.mark.parametrize("blank", WIDE, ids=ascii)
@pytest.mark.parametrize("sign", "=+-@＝＋－＠")
@pytest.mark.parametrize("before", ["", "a,", "a;", "a|", "a\t", "a\n"], ids=ascii)
def test_a_blank_of_any_width_hides_no_formula(blank: str, sign: str, before: str) -> None:
    line = csv_line([f"{before}{blank}{sign}1+1", "end"])
    assert not any(FORMULA.match(cell) for cell in cells(line)), ascii(line)


def test_numbers_stay_numbers() -> None:
    assert csv_line([-5, Decimal("-5.10"), -0.5, None, True]) == "-5,-5.10,-0.5,,true\r\n"


@pytest.mark.parametrize("text", ["120/80", "a-b; c", "5 - 10", "e=mc2", "Glucose, fasting", "a@b.example"])
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert next(csv.reader([csv_line([text])])) == [text]


def test_a_terminal_gets_no_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    print_csv([[HOSTILE, "a\rb\tc", "two\r\nlines", -5]], [HOSTILE, "b", "c", "d"])
    out = capsys.readouterr().out
    assert all(character.isprintable() or character in "\r\n" for character in out)
    assert "\r" not in out.replace("\r\n", "")
    assert r"a\x1b]0;owned" in out
    assert "two\nlines" in out


def test_display_leaves_scripts_and_lines_as_they_are() -> None:
    for text in ("नमस्ते\u200dक", "שלום\u200f 5", "two\nlines\tand a tab", "👩\u200d⚕️"):
        assert escape_unsafe(text) == strip_unsafe(text) == text
    assert strip_unsafe(HOSTILE) == "a]0;owned[2J1m"
    assert printable(HOSTILE).isprintable()


def test_an_unauthenticated_name_does_not_reach_the_terminal(db: Any, upload: Any, run_cli: Any) -> None:
    """A wrong login's name is in the audit, which an admin prints."""
    assert upload("POST", "/login/", {"username": "\x1b]0;x\x07\u202eevil", "password": "x"}).status_code == 401
    for words in (["--csv"], ["--json"], []):
        done = run_cli("audit", *words)
        assert "evil" in done.stdout
        assert all(character.isprintable() or character in "\r\n" for character in done.stdout), words
