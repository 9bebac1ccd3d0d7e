"""The menus of the pages and the addresses that the pages link to. Pure.

The menus are data. They are apart from `routes.py`, which imports every page: each page shows the menus.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote


@dataclass(frozen=True)
class MenuItem:
    """One entry of a menu. `name` identifies the page; `parts` are the parts of its path after the menu's own path."""

    name: str
    text: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class MenuLink:
    """A menu item as one page shows it."""

    text: str
    path: str
    is_current: bool


PATIENTS = MenuItem("patients", "Patients", ("patients",))
TO_REVIEW = MenuItem("to-review", "To review", ("to-review",))
ACCOUNTS = MenuItem("accounts", "Accounts", ("accounts",))
# The reader's own record. Staff have PATIENTS before it.
OWN_MENU = (
    MenuItem("reports", "My reports"),
    MenuItem("trends", "My trends", ("trends",)),
    MenuItem("access-log", "Who looked", ("access-log",)),
)
# The record of a patient, below /my/patients/USERNAME.
PATIENT_MENU = (
    MenuItem("reports", "Reports"),
    MenuItem("trends", "Trends", ("trends",)),
    MenuItem("access-log", "Who looked", ("access-log",)),
)
OWN_RECORD = frozenset(item.name for item in OWN_MENU)


def menu_links(menu: Iterable[MenuItem], current: str, *base: str) -> list[MenuLink]:
    """Return the links of a menu. `current`: the name of the open page; `base`: the menu's own path."""
    return [MenuLink(item.text, link(*base, *item.parts), item.name == current) for item in menu]


def link(*parts: object, **query: object) -> str:
    """Return the address of a page below /my/. Parameters that are None or "" are left out.

    link("patients", "bholanath", "trends", code="8480-6") -> "/my/patients/bholanath/trends?code=8480-6"
    """
    path = "/my/" + "/".join(map(_quoted, parts))
    given = "&".join([f"{name}={_quoted(value)}" for name, value in query.items() if value not in ("", None)])
    return f"{path}?{given}" if given else path


def _quoted(part: object) -> str:
    text = str(part)
    return text if text.isascii() and text.isalnum() else quote(text, safe="")
