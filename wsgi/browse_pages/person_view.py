"""A user as the pages show one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from wsgi.browse_pages.navigation import link


@dataclass(frozen=True)
class PersonView:
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
