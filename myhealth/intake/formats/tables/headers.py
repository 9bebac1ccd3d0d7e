"""Recognise header lines where rows are expected: the header again, another table's, a second line with units."""

import re
from collections.abc import Sequence
from typing import Any

from myhealth.clinical.units import ucum_unit
from myhealth.common.errors import BadInput
from myhealth.common.spreadsheets import unguarded
from myhealth.intake.formats.tables.cells import DAY_FIRST, fits_other_order
from myhealth.intake.formats.tables.layout import FittedLayout, fit, fold_column
from myhealth.intake.formats.tables.rows import Lines, TableRow
from myhealth.profiles.names import names_nobody

DIGIT = re.compile(r"\d")
SECOND_LINE = "it looks like a second line of the header, with units or parts of names"


class Headers:
    """The header of a table, for comparison. `blank`: the texts of empty cells."""

    def __init__(self, table: FittedLayout, blank: Sequence[str]) -> None:
        self.table, self.blank = table, frozenset(blank)
        self._folded = [*map(fold_column, table.names)]
        self._moment = table.places.get("taken_at", [])

    def is_again(self, row: TableRow) -> bool:
        """Return whether the row is the header again, as where two files were joined.

        Raises BadInput if it is the header of another table: the rows behind it cannot be read.
        """
        moment = self._texts(row, self._moment or [0])
        if not moment or any(map(_has_digit, moment)):
            return False
        cells = [*map(fold_column, row.cells)]
        other = fit(self.table.layout, row.cells)
        if cells == self._folded or (isinstance(other, FittedLayout) and _meaning(other) == _meaning(self.table)):
            return True
        moved = sorted(cells) == sorted(self._folded)
        if not moved and not isinstance(other, FittedLayout):
            return False
        what = "with its columns in another order" if moved else "with other columns"
        raise BadInput(f"line {row.line}: another header begins here, {what}",
                       hint="make a file of its own of what follows")  # fmt: skip

    def check_first(self, row: TableRow) -> None:
        """Raise BadInput if the row behind the header of a wide table has units or parts of names in place of values:
        the values below would lose them."""
        cells = [cell for place, cell in enumerate(row.cells) if place in self.table.results and cell.strip()]
        if not cells or any(_has_digit(cell) and not ucum_unit(cell) for cell in cells):
            return
        moment, patient = self._texts(row, self._moment), self._texts(row, self.table.places.get("patient", []))
        moment = [text for text in moment if not names_nobody(text)]  # a date that is unknown
        if any(map(_has_digit, moment)) or any(map(_has_digit, patient)):
            return
        if moment or ("patient" in self.table.places and not patient) or all(map(ucum_unit, cells)):
            raise BadInput(f"line {row.line}: {SECOND_LINE}",
                           hint="make one line of both, such as: Glucose (mg/dL)")  # fmt: skip

    def _texts(self, row: TableRow, places: Sequence[int]) -> list[str]:
        texts = [row.cells[place].strip() for place in places if place < len(row.cells)]
        return [text for text in texts if text and text not in self.blank]


def check_order(lines: Lines, delimiter: str, table: FittedLayout) -> None:
    """Raise BadInput if a day among the first rows fits only the other order of day and month than the layout's: the
    other rows would be stored with both exchanged."""
    for number, cells in enumerate(lines.ahead(delimiter), lines.number + 1):
        moment = [cells[place] for place in table.places.get("taken_at", ()) if place < len(cells)]
        if fits_other_order(" ".join(map(unguarded, moment)).strip(), table.layout):
            order = "month" if table.layout.date_format == "dmy" else "day"
            raise BadInput(f"line {number}: '{' '.join(moment)[:40]}' has the {order} first, unlike the layout",
                           hint=f"if all rows have, say which: {DAY_FIRST}")  # fmt: skip


def _meaning(table: FittedLayout) -> tuple[Any, ...]:
    """Return what the columns of a table mean, whatever their names."""
    tests = {place: (test.name, test.code, test.unit) for place, test in table.results.items()}
    return len(table.names), table.places, tests, table.unit


def _has_digit(text: str) -> bool:
    return DIGIT.search(text) is not None
