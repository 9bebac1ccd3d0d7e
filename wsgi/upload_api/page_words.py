"""What the pages say in place of the options of commands and the parameters of addresses, which their readers lack."""

from collections.abc import Mapping, Sequence
from typing import Any

from myhealth.intake.formats.tables.cells import DAY_FIRST, DECIMAL, EITHER_POINT
from myhealth.intake.formats.tables.layout import ABOUT_OTHER
from myhealth.intake.formats.tables.reader import FORM, ZONE
from myhealth.intake.formats.tables.rows import ENCODING
from myhealth.intake.patients import RETRY

WHICH_DAY, WHICH_ZONE = f"say which: {DAY_FIRST}", f"name that of all rows: {ZONE}"
BY_ADMINISTRATOR = {
    "if it is: myhealth users": "if it is, an administrator runs: myhealth users",
    "if there is: myhealth users": "if there is, an administrator runs: myhealth users",
    "link it with `myhealth": "an administrator links it with `myhealth",
}
MAP = "say who is meant with a patient map"
# On the page of tables: its fields.
TABLE = BY_ADMINISTRATOR | {
    WHICH_DAY: "say which: choose it under Order of dates",
    FORM: "choose another Order of dates",
    WHICH_ZONE: "fill in Time zone",
    DECIMAL: "choose another Decimal separator",
    EITHER_POINT: "if decimals, choose the Decimal separator point; if thousands, a Layout that names both",
    ENCODING: "choose another Encoding",
    ABOUT_OTHER: "make a long table, or, if each column is a test of its own, choose the Layout wide",
    " (--patient), or a layout that says which column it is (columns.patient)": "",
    "name a layout that fits: --layout wide, long or a file; examples/table-layout.toml explains it": "choose a Layout",
    RETRY: "store the table, then find the patient under Rejected records",
    MAP: "store the table, then find the patient under Rejected records",
}
# On the page of files: where else to choose it.
FILES = BY_ADMINISTRATOR | {
    WHICH_DAY: "choose the Order of dates under Upload a table",
    FORM: "choose another Order of dates under Upload a table",
    WHICH_ZONE: "fill in the Time zone under Upload a table",
    DECIMAL: "choose another Decimal separator under Upload a table",
    EITHER_POINT: "if decimals, choose the Decimal separator point under Upload a table; if thousands, a Layout there",
    ENCODING: "choose another Encoding under Upload a table",
    ABOUT_OTHER: "make a long table, or, if each column is a test, choose the Layout wide under Upload a table",
    RETRY: "find the patient under Rejected records",
    MAP: "find the patient under Rejected records",
    "`myhealth rejections` shows them": "Rejected records has them",
}
# On the page of rejected records: what to type there.
REFUSED = BY_ADMINISTRATOR | {
    WHICH_DAY: "write it as 2026-02-01",
    FORM: "write it as 2026-02-01, or as the table's layout has it",
    f"or {WHICH_ZONE}": "as in 2026-02-01T09:14:03+05:30",
    DECIMAL: "write it without thousands, and with the table's decimal separator",
    EITHER_POINT: "write it with the decimals that it has, without thousands",
    ENCODING: "send the table again under Upload a table, with its Encoding",
    RETRY: "find the patient here",
    MAP: "find the patient here",
}


def in_page_words(message: str, words: Mapping[str, str]) -> str:
    """Return a message with the words of a page."""
    for option, said in words.items():
        message = message.replace(option, said)
    return message


def errors_in_page_words(errors: Sequence[dict[str, Any]], words: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{**error, "message": in_page_words(error["message"], words)} for error in errors]
