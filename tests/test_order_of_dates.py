"""Day and month in the order that a layout says, in a table that has the other one."""

import pytest
from support.tables import faults, read, refusal

from myhealth.intake.formats.tables.layout import Layout

ROWS = "patient,date,T\n{}asha,{},5\n"


@pytest.mark.parametrize(
    ("order", "text"), [("dmy", "03/25/2026"), ("dmy", "3-25-2026 07:30"), ("mdy", "25.3.2026"), ("mdy", "25/03/26")]
)
def test_a_table_whose_first_days_have_the_other_order_is_refused_before_a_row_is_read(order: str, text: str) -> None:
    said = refusal(ROWS.format("asha,03/04/2026,5\n", text), Layout(date_format=order))
    assert f"line 3: '{text}' has the {'month' if order == 'dmy' else 'day'} first, unlike the layout" in said
    assert read(
        ROWS.format("asha,03/04/2026,5\n", text), Layout(date_format="mdy" if order == "dmy" else "dmy", zone="UTC")
    )


@pytest.mark.parametrize(
    "text", ["13/13/2026", "31/11/2026", "soon", "2026-02-30", "", "25/03/2026", "2026-03-25", "Mar 25, 2026"]
)
def test_a_day_that_no_order_makes_right_refuses_no_table(text: str) -> None:
    text = f'"{text}"' if "," in text else text
    assert len(read(ROWS.format("asha,03/04/2026,5\n", text), Layout(date_format="dmy"))) == 2


def test_further_on_such_a_day_is_told_in_its_row() -> None:
    table = ROWS.format("savita,03/04/2026,5\n" * 30, "03/25/2026")
    ((line, column, message),) = faults(table, Layout(date_format="dmy"))
    assert (line, column, "day and month are exchanged" in message) == (32, "date", True)
