"""myhealth users identifiers"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from cli.context import App, pass_app
from cli.output import as_json, plural, print_records, tell
from myhealth.audit import events
from myhealth.common.text import printable
from myhealth.profiles import identifiers, services

if TYPE_CHECKING:
    from myhealth.profiles.models import User


@click.group("identifiers")
def identifiers_() -> None:
    """List, add and remove the numbers that authorities, such as hospitals, gave to a patient.

    A record with such a number belongs to the patient who has the number here, and to no other.
    """


@identifiers_.command("list")
@click.argument("username", help="The user name.")
@as_json
@pass_app
def identifiers_list(app: App, username: str) -> None:
    """List the identifiers of a user."""
    with app.database():
        found = services.get_user(username)
        events.record_event("read", subject_id=found.id, subject=found.username, what="profile")
        rows = identifier_rows(found)
    print_records(rows, ("system", "value"), header=("authority", "value"))


@identifiers_.command("add")
@click.argument("username", help="The user name.")
@click.argument("authority", help="Who gave the number, as records name it.")
@click.argument("value", help="The number.")
@click.option("--reuse-erased", is_flag=True, help="Also a number of a user who was deleted.")
@as_json
@pass_app
def identifiers_add(app: App, username: str, authority: str, value: str, reuse_erased: bool) -> None:
    """Give a user an identifier, and store the rejected records that waited for it.

    If the user has it already, the name under which sources sent it is forgotten.
    """
    from myhealth.intake.retry import store_waiting  # it loads all that reads records

    with app.database() as settings:
        user = identifiers.add_identifier(username, authority, value, reuse_erased=reuse_erased)
        done = store_waiting(user, settings.intake.folded_authorities)
    tell_stored(f"{user.username} is {printable(value.strip())} of {printable(authority.strip())}", done)


@identifiers_.command("remove")
@click.argument("username", help="The user name.")
@click.argument("authority", help="Who gave the number.")
@click.argument("value", help="The number.")
@as_json
@pass_app
def identifiers_remove(app: App, username: str, authority: str, value: str) -> None:
    """Take an identifier from a user; check-ups that are stored stay."""
    with app.database():
        identifiers.remove_identifier(username, authority, value)
    text = f"{username} is not {printable(value)} of {printable(authority)} any more."
    tell(text, {"username": username, "system": authority, "value": value})


def identifier_rows(user: User) -> list[dict[str, str]]:
    """Return a user's identifiers for tables and JSON."""
    return [{"system": system, "value": value} for system, value in identifiers.list_identifiers(user)]


def tell_stored(done: str, counts: Mapping[str, int]) -> None:
    """Print what was done, and the result of the records that waited for it."""
    tell(f"{done}; {plural(counts['accepted'], 'kept record')} stored.", dict(counts))
    if counts["rejected"]:
        click.echo(f"{plural(counts['rejected'], 'record')} still rejected; see: myhealth rejections list", err=True)
