"""myhealth settings"""

import json
from collections.abc import Iterator

import click

from cli.context import App, pass_app
from cli.output import as_json, print_records, warn_of_exposed_secrets
from myhealth.common.settings import keys, setting_rows

HEADER = """# MyHealth's settings, with their defaults. Remove the # before those that shall differ. This is read from
# ./myhealth.toml, /etc/myhealth/myhealth.toml or --settings PATH. MYHEALTH_KEY in the environment (in a section,
# MYHEALTH_SECTION_KEY) overrides it. Secrets are better kept in files: MYHEALTH_SECRET_KEY_FILE=/etc/myhealth/key."""


@click.command()
@click.option("--example", is_flag=True, help="Print a settings file with every key, its explanation and its default.")
@as_json
@pass_app
def settings(app: App, example: bool, as_json: bool) -> None:
    """Show every setting and where it comes from.

    Secrets are masked. An empty database_url or mongo_url means an embedded server in data_dir.
    """
    if example:
        click.echo("\n".join(example_lines()))
        return
    found = app.settings()
    warn_of_exposed_secrets(found)
    rows = setting_rows(found)
    print_records(rows, ("key", "value", "origin"), as_json=as_json, header=("setting", "value", "from"))


def example_lines() -> Iterator[str]:
    """Return the lines of a TOML file in which every key is a comment with its default: examples/myhealth.toml."""
    yield HEADER
    section = ""
    for key in keys():
        of, _, name = key.name.rpartition(".")
        if of != section:
            section = of
            yield f"\n[{of}]"
        yield f"\n# {key.text}\n#{name} = {json.dumps(key.default, ensure_ascii=False)}"
