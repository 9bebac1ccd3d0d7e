"""myhealth users identifiers, and users invite: codes with which patients set a password, as slips or as a table"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from cli.context import App, pass_app
from cli.output import as_json, is_json, plural, print_csv, print_error, print_json, print_records, tell
from myhealth.audit import events
from myhealth.common.errors import Conflict, NotFound, SettingsError
from myhealth.common.text import printable
from myhealth.profiles import identifiers, invitations, services

if TYPE_CHECKING:
    from myhealth.common.settings import Settings
    from myhealth.profiles.invitations import IssuedInvitation
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
    return [{"system": system, "value": value} for system, value in identifiers.list_identifiers(user)]


def tell_stored(done: str, counts: Mapping[str, int]) -> None:
    """Print what was done, and the result of the records that waited for it."""
    tell(f"{done}; {plural(counts['accepted'], 'kept record')} stored.", dict(counts))
    if counts["rejected"]:
        click.echo(f"{plural(counts['rejected'], 'record')} still rejected; see: myhealth rejections list", err=True)


COLUMNS = ("username", "full_name", "address", "code", "expires_at")
HEAD = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Invitations</title>
<style>
body { font: 12pt/1.5 sans-serif; color: #000; background: #fff; margin: 2em; overflow-wrap: anywhere }
section { break-after: page; break-inside: avoid; max-width: 36em; margin: 0 auto 4em }
svg { display: block }
code { font-size: 1.3em; white-space: nowrap }
</style></head>
<body>
"""
SLIP = """<section>
<h1>Your health reports</h1>
<p>For <strong><bdi>{name}</bdi></strong></p>
<ol>
<li>Scan the square below with the camera of a phone, or open <b>{address}</b></li>
<li>Your username: <code><bdi>{username}</bdi></code></li>
<li>Your code: <code>{code}</code></li>
<li>Choose a password.</li>
</ol>
{qr}
<p>The code works once, until {until}. Show it to nobody: it opens your reports.</p>
</section>
"""


@click.command("invite")
@click.argument("usernames", nargs=-1, metavar="[USER]...", help="The patients' user names.")
@click.option("--all-without-password", is_flag=True, help="Every active, linked patient who has no password.")
@click.option("--html", "as_html", is_flag=True, help="Print slips with QR codes, a page each.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for letters.")
@as_json
@pass_app
def users_invite(app: App, usernames: tuple[str, ...], all_without_password: bool, as_html: bool, as_csv: bool) -> None:
    """Make codes with which patients set a password, the first one or a new one.

    A code works once and for 14 days. It is shown this once, and an earlier code of the same person ends. Staff are
    not invited: `users set-password` is for them. If one cannot be invited, the others are, and the exit code is 1.
    """
    if as_html + as_csv + is_json() != 1:
        raise click.UsageError("choose one of --html, --csv and --json")
    if bool(usernames) == all_without_password:
        raise click.UsageError("name users, or give --all-without-password")
    errors: list[str] = []
    with app.database() as settings:
        if not settings.browse.public_url:
            for name in usernames:
                services.get_user(name)  # that there is no such user comes first
            hint = "set it (MYHEALTH_BROWSE_PUBLIC_URL) to the address of the pages, like https://health.example"
            raise SettingsError("browse.public_url is empty, and slips need it", hint=hint)
        address = f"{settings.browse.public_url.rstrip('/')}/my/welcome"
        made = _invite_each(invitations.list_without_password() if all_without_password else usernames, errors)
        if as_html:
            sys.stdout.writelines(_slips(made, address, settings))
        else:
            rows = ((each.username, each.full_name, address, each.code, each.expires_at) for each in made)
            if as_csv:
                print_csv(rows, COLUMNS)
            else:
                print_json([dict(zip(COLUMNS, row, strict=True)) for row in rows])
    for error in errors:
        print_error(error)
    if errors:
        click.get_current_context().exit(1)


def _invite_each(usernames: Iterable[str], errors: list[str]) -> Iterator[IssuedInvitation]:
    for username in usernames:
        try:
            yield invitations.invite(username)
        except (NotFound, Conflict) as error:
            errors.append(error.message)


def _slips(invitations: Iterable[IssuedInvitation], address: str, settings: Settings) -> Iterator[str]:
    """Yield a page of HTML with a slip for each. What the QR code carries behind # is sent to no server."""
    from html import escape  # only here: other commands do without these
    from urllib.parse import urlencode
    from zoneinfo import ZoneInfo

    import segno

    zone = ZoneInfo(settings.time_zone)
    yield HEAD
    for each in invitations:
        filled_in = urlencode({"username": each.username, "code": each.code})
        texts: dict[str, Any] = {
            "name": each.full_name or each.username,
            "username": each.username,
            "address": address,
            "code": each.code,
            "until": f"{each.expires_at.astimezone(zone):%d %B %Y, %H:%M} ({settings.time_zone})",
        }
        qr = segno.make(f"{address}#{filled_in}", micro=False, error="m").svg_inline(scale=3, border=4)
        yield SLIP.format(qr=qr, **{name: escape(text) for name, text in texts.items()})
    yield "</body>\n</html>\n"
