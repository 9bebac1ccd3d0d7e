"""Correct the cells of one rejected row."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from itertools import islice

from msgspec import Struct
from msgspec.structs import replace

from myhealth.common.errors import BadInput
from myhealth.intake.formats.tables.grouping import with_end
from myhealth.intake.formats.tables.layout import FittedLayout, Layout
from myhealth.intake.formats.tables.rows import Lines, read_header, read_rows


class CorrectableRow(Struct, frozen=True):
    """The only row behind the header of a table."""

    table: FittedLayout
    delimiter: str
    header: str
    cells: list[str]

    def places_of(self, column: str) -> list[int]:
        """Return the places of the cells that an error is about. `column`: the column's name in the error; a moment may
        be in two columns."""
        names = self.table.names
        if column in names:
            return [names.index(column)]
        return next(
            (each for each in self.table.places.values() if " ".join(names[place] for place in each) == column), []
        )

    def corrected(self, changes: Mapping[int, str]) -> str:
        """Return the table with other cells, by their places; "" if nothing changes. Raises BadInput for a place that
        does not exist."""
        if not all(0 <= place < len(self.cells) for place in changes):
            raise BadInput("There is no such cell to correct.")
        cells = [changes.get(place, cell) for place, cell in enumerate(self.cells)]
        if cells == self.cells:
            return ""
        target = io.StringIO()
        csv.writer(target, delimiter=self.delimiter, lineterminator="\n").writerow(cells)
        return with_end(self.header) + target.getvalue()


def open_row(text: str, layout: Layout) -> CorrectableRow | None:
    """Return the row of a table with one row; None if it has several, or its cells cannot be told apart."""
    lines = Lines.of(b"", io.BytesIO(text.encode("utf-8", "surrogateescape")), "")
    try:
        table, delimiter, header = read_header(lines, replace(layout, encoding=""))
        rows = list(islice(read_rows(lines, delimiter, table, lambda cells: False), 2))
    except BadInput:
        return None
    if len(rows) != 1 or rows[0].fault:
        return None
    return CorrectableRow(table, delimiter, header, rows[0].cells)
