"""myhealth settings"""

import click

from cli.context import App, pass_app
from cli.output import as_json, print_records, warn_of_exposed_secrets
from myhealth.common.settings import setting_rows


@click.command()
@as_json
@pass_app
def settings(app: App, as_json: bool) -> None:
    """Show every setting and where it comes from.

    Secrets are masked. An empty database_url or mongo_url means an embedded server in data_dir.
    """
    found = app.settings()
    warn_of_exposed_secrets(found)
    rows = setting_rows(found)
    print_records(rows, ("key", "value", "origin"), as_json=as_json, header=("setting", "value", "from"))
