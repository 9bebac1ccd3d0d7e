"""myhealth users"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from cli.context import App, pass_app
from cli.output import (
    as_json,
    confirm,
    is_json,
    plural,
    print_error,
    print_json,
    print_records,
    print_table,
    tell,
)
from cli.patients import identifier_rows, identifiers_, tell_stored, users_invite
from myhealth.audit import events
from myhealth.common.errors import BadInput
from myhealth.common.text import printable
from myhealth.profiles import ROLES, SEXES, names, passwords, services

if TYPE_CHECKING:
    from myhealth.common.settings import Settings
    from myhealth.profiles.models import User

role_option = click.option(
    "--role", type=click.Choice(ROLES), default="patient", show_default=True, help="The user's role."
)


SHOWN_MAX = 20


def person_options(command: Any) -> Any:
    """Add the options for the facts that distinguish persons of the same name or number."""
    command = click.option("--sex", type=click.Choice(SEXES), help="The person's sex.")(command)
    return click.option("--birth-date", metavar="YYYY-MM-DD", help="The person's birth date.")(command)


def password_options(command: Any) -> Any:
    """Add the options for a password: a hidden prompt (the default), standard input, or a generated one."""
    command = click.option("--generate", is_flag=True, help="Generate a password and print it, once.")(command)
    return click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")(command)


@click.group()
def users() -> None:
    """Create and manage users.

    Names are compared without regard to case. Passwords have 8 characters to 72 bytes, and are not common ones.
    """


@users.command()
@click.argument("username", help="The user name.")
@role_option
@click.option("--full-name", default="", help="The person's name.")
@person_options
@password_options
@click.option("--no-password", is_flag=True, help="Set no password: the user cannot log in until one is set.")
@click.option("--reuse-erased-name", is_flag=True, help="Give out the name of a user who was deleted.")
@as_json
@pass_app
def create(app: App, /, username: str, password_stdin: bool, generate: bool, no_password: bool, **values: Any) -> None:
    """Create a user; asks for the password unless an option gives it."""
    if no_password and (password_stdin or generate):
        raise click.UsageError("--no-password goes with neither --password-stdin nor --generate")
    problem = names.username_error(username)
    if problem:
        raise BadInput(problem)
    with app.database() as settings:
        password = None if no_password else read_password(password_stdin, generate)
        user = services.create_user(username, password=password, rounds=settings.bcrypt_rounds, **values)
        shown = user_row(services.get_user(user.username))
    tell_password(f"Created {user.role} {user.username} (id {user.id}).", shown, password if generate else None)


@users.command("list")
@click.option("--role", type=click.Choice(ROLES), help="Only users of this role.")
@click.option("--to-review", is_flag=True, help="Only accounts that registered themselves and were not reviewed.")
@as_json
@pass_app
def users_list(app: App, role: str | None, to_review: bool) -> None:
    """List users by name."""
    with app.database():
        events.record_event("read", what="people")
        found = services.list_users(role=role, to_review=to_review)
    columns = ("id", "username", "role", "full_name", "active", "linked", "password")
    print_records([user_row(user) for user in found], columns)


@users.command("show")
@click.argument("username", help="The user name.")
@as_json
@pass_app
def users_show(app: App, username: str) -> None:
    """Show one user."""
    with app.database():
        found = services.get_user(username)
        events.record_event("read", subject_id=found.id, subject=found.username, what="profile")
        user = user_row(found)
        user["identifiers"] = identifier_rows(found)
        user["checkups"] = services.count_checkups(username)
    if is_json():
        print_json(user)
    else:
        numbers = ", ".join(f"{each['value']} of {each['system']}" for each in user["identifiers"])
        print_table(list({**user, "identifiers": numbers}.items()), ("", ""))


@users.command("link")
@click.argument("username", help="The user name.")
@as_json
@pass_app
def users_link(app: App, username: str) -> None:
    """Link an account that registered itself to its person: it then receives records.

    Records that were rejected because it was not linked are stored now.
    """
    from myhealth.intake.retry import link_patient  # it loads all that reads records

    with app.database() as settings:
        already = " already" if services.get_user(username).linked_at else ""
        done = link_patient(username, settings.intake.folded_authorities)
    tell_stored(f"{username} is linked{already}", done)


users.add_command(users_invite)
users.add_command(identifiers_)


@users.command("set-password")
@click.argument("username", help="The user name.")
@password_options
@as_json
@pass_app
def users_set_password(app: App, username: str, password_stdin: bool, generate: bool) -> None:
    """Set a user's password; it logs the user out everywhere."""
    with app.database() as settings:
        user = services.get_user(username)
        password = read_password(password_stdin, generate)
        services.set_password(user.username, password, rounds=settings.bcrypt_rounds)
        end_logins(settings, services.get_user(user.username))
        shown = user_row(services.get_user(user.username))
    tell_password(f"Set the password of {user.username}.", shown, password if generate else None)


@users.command("set-role")
@click.argument("username", help="The user name.")
@click.argument("role", type=click.Choice(ROLES), help="The new role.")
@as_json
@pass_app
def users_set_role(app: App, username: str, role: str) -> None:
    """Set a user's role."""
    with app.database() as settings:
        services.set_role(username, role)
        end_logins(settings, services.get_user(username))
        tell_user(f"{username} is {role} now.", username)


@users.command("set-name")
@click.argument("username", help="The user name.")
@click.argument("full_name", help="The full name.")
@as_json
@pass_app
def set_name(app: App, username: str, full_name: str) -> None:
    """Set a user's full name, by which doctors find a patient."""
    with app.database():
        services.set_full_name(username, full_name)
        tell_user(f"{username} is called {printable(full_name)} now.", username)


@users.command("set-person")
@click.argument("username", help="The user name.")
@person_options
@as_json
@pass_app
def users_set_person(app: App, /, username: str, **given: str | None) -> None:
    """Set a user's birth date and sex: a record that contradicts them is rejected."""
    values = {name: value for name, value in given.items() if value is not None}
    if not values:
        raise click.UsageError("name a --birth-date, a --sex, or both")
    with app.database():
        services.set_person(username, **values)
        tell_user(f"Changed {username}.", username)


@users.command()
@click.argument("username", help="The user name.")
@as_json
@pass_app
def disable(app: App, username: str) -> None:
    """Disable a user: no login, and logged out everywhere. Nothing is deleted."""
    with app.database() as settings:
        services.set_active(username, False)
        at_once = end_logins(settings, services.get_user(username))
        later = "" if at_once else "; the browse API could not be reached, and ends the logins with the next sync"
        tell_user(f"{username} cannot log in any more{later}.", username, ended_at_once=at_once)


@users.command("unblock")
@click.argument("username", required=False, help="The user name.")
@click.option("--address", metavar="A", help="Only attempts from this address; without USERNAME, those of all users.")
@as_json
@pass_app
def users_unblock(app: App, username: str | None, address: str | None) -> None:
    """Forget failed logins of a user, of an address (its /64 if it is IPv6), or both: the waiting ends."""
    if username is None and address is None:
        raise click.UsageError("name a user, an --address, or both")
    with app.database():
        found = services.unblock(username, address)
    tell(f"Forgot {plural(found, 'failed login')}.", {"forgotten": found})


@users.command()
@click.argument("username", help="The user name.")
@as_json
@pass_app
def enable(app: App, username: str) -> None:
    """Enable a disabled user again."""
    with app.database():
        services.set_active(username, True)
        tell_user(f"{username} can log in again.", username)


@users.command()
@click.argument("username", help="The user name.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
@pass_app
def delete(app: App, username: str, yes: bool) -> None:
    """Erase a user with all check-ups and everything else that is held, permanently.

    Prints what was removed, and what an operator must still do.
    """
    from myhealth.privacy.erasure import erase_user
    from myhealth.privacy.rules import LEFT_TO_DO

    with app.database() as settings:
        user, checkups = services.get_user(username), services.count_checkups(username)
        if not yes:
            question = f"Delete {user.role} {user.username} and {plural(checkups, 'check-up')}, permanently?"
            confirm(question)
        done = erase_user(user.username)
        at_once = end_logins(settings, user)
    removed = {**done.removed, "reports": checkups if at_once else None}
    if is_json():
        print_json({"removed": removed, "review": done.review, "left_to_do": LEFT_TO_DO})
        return
    click.echo(f"Deleted {user.username} and {plural(checkups, 'check-up')}.")
    counts = {name: "with the next sync" if count is None else count for name, count in removed.items()}
    print_table(list(counts.items()), ("removed", "rows"))
    if done.review:
        ids = " ".join(map(str, done.review))
        click.echo(f"Look at these rejected records, which may name the person too, and erase them: {ids}")
        click.echo("  (myhealth rejections show ID; myhealth rejections discard --erase ID)")
    for line in LEFT_TO_DO:
        click.echo(f"Left to do: {line}")


@users.command()
@click.argument("username", help="The user name.")
@click.option("--output", type=click.Path(), help="The file to write, a zip; USERNAME.zip without it.", metavar="FILE")
@as_json
@pass_app
def export(app: App, username: str, output: str | None) -> None:
    """Write everything that is held on a person into a zip: readable JSON, and the reports as FHIR R4 Bundles.

    Only the user who runs the command may read the file; a file that is there is not replaced.
    """
    from myhealth.privacy.export import export_user  # it loads FHIR

    with app.database() as settings, app.reports(settings) as reports:
        user = services.get_user(username)
        path = Path(output or f"{user.username}.zip")
        counts = export_user(user, reports, path)
    listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    tell(f"Wrote {path}. It has these rows: {listed}.", {"file": str(path), **counts})


@users.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8-sig", errors="strict"), help="The CSV file.")
@click.option("--skip-existing", is_flag=True, help="Do not report usernames that are taken.")
@as_json
@pass_app
def import_(app: App, file: TextIO, skip_existing: bool) -> None:
    """Create users from a CSV file (- is standard input).

    The header names the columns: username, and optionally full_name, role, password, birth_date, sex, and authority
    with identifier. A user without a password
    cannot log in until one is set. A bad line is reported and does not stop the others; the exit code is then 1.
    """
    from myhealth.profiles.user_import import import_users

    made, errors = 0, list[dict[str, Any]]()
    try:
        with app.database() as settings:
            for row in import_users(file, rounds=settings.bcrypt_rounds, skip_existing=skip_existing):
                made += not row.error
                if row.error:
                    errors.append({"line": row.line, "error": row.error})
                    if len(errors) <= SHOWN_MAX:
                        click.echo(f"{file.name}: line {row.line}: {printable(row.error)}", err=True)
    except UnicodeDecodeError as error:
        problem = f"it is not UTF-8 ({error.reason} at byte {error.start})"
        raise BadInput(f"{file.name}: {problem}; {plural(made, 'user')} created before") from error
    except BadInput as error:
        raise BadInput(f"{file.name}: {error.message}; {plural(made, 'user')} created before") from error
    if len(errors) > SHOWN_MAX:
        click.echo(f"… and {len(errors) - SHOWN_MAX:,} more refused lines.", err=True)
    text = f"{plural(made, 'user')} created, {len(errors):,} refused."
    tell(text, {"created": made, "refused": len(errors), "errors": errors})
    if errors:
        click.get_current_context().exit(1)


def read_password(from_stdin: bool, generate: bool) -> str:
    """Return the password from the source that the options name. Raises BadInput if it is not acceptable."""
    if from_stdin and generate:
        raise click.UsageError("--password-stdin and --generate exclude each other")
    if generate:
        return passwords.generate_password()
    if from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask for the password; use --password-stdin or --generate")
    else:
        password = ask_password()
    passwords.check_acceptable(password)
    return password


def ask_password() -> str:
    """Ask until an acceptable password is typed twice alike."""
    while True:
        password: str = click.prompt("Password", hide_input=True, err=True)
        try:
            passwords.check_acceptable(password)
        except BadInput as error:
            print_error(f"{error.message}; try another")
            continue
        if click.prompt("Once more", hide_input=True, err=True) == password:
            return password
        print_error("the two differ; try again")


def end_logins(settings: Settings, user: User) -> bool:
    """End a user's logins at the browse API. Return False if the next pass of the sync will."""
    from myhealth import end_logins  # it loads PyMongo, which most commands about users do without

    return end_logins.end_logins(settings, user)


def user_row(user: User) -> dict[str, Any]:
    """Return a user for tables and JSON; `password` is whether one is set."""
    names = ("id", "username", "role", "full_name", "birth_date", "sex", "active", "created_at")
    shown = {name: getattr(user, name) for name in names}
    return {**shown, "linked": user.linked_at is not None, "password": user.password_hash is not None}


def tell_user(text: str, username: str, **more: Any) -> None:
    """Print what was done, as JSON with the user as he or she is now."""
    tell(text, {**user_row(services.get_user(username)), **more})


def tell_password(text: str, user: dict[str, Any], generated: str | None) -> None:
    """Print what was done, and a generated password, which is shown this once."""
    if generated is None or is_json():
        tell(text, user if generated is None else {**user, "generated_password": generated})
    else:
        click.echo(text, err=True)
        click.echo(generated)
