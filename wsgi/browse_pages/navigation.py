"""The menus of the pages, the addresses that the pages link to, and a person as the pages show one. Pure.

The menus are data. They are not in `wsgi/browse.py`: that imports every page, and every page shows the menus.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from msgspec import Struct


class MenuItem(Struct, frozen=True):
    """One entry of a menu. `name` identifies the page; `parts` are the parts of its path after the menu's own path."""

    name: str
    text: str
    parts: tuple[str, ...] = ()


class MenuLink(Struct, frozen=True):
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


class PersonView(Struct, frozen=True):
    """A person as pages show one.

    `name`: the full name, or the username of a user without one. `username`: the username to show beside the name; ""
    if the name contains the same. `path`: the address of the person's reports for staff. `born`: the birth date (ISO
    8601), or "".
    """

    name: str
    username: str
    path: str
    is_active: bool
    born: str

    @property
    def whole_name(self) -> str:
        """Bholanath Joshi (bholanath)"""
        return f"{self.name} ({self.username})" if self.username else self.name


def person_view(person: dict[str, Any]) -> PersonView:
    """Return the view of a user document."""
    full_name, username = person["full_name"].strip(), str(person["username"])
    is_same = full_name.casefold() in ("", username.casefold())
    shown, path, born = "" if is_same else username, link("patients", username), person.get("birth_date") or ""
    return PersonView(full_name or username, shown, path, person["active"], born)
