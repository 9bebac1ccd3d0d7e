"""myhealth completion"""

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), help="The shell in which to complete.")
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script with which a shell completes commands and options.

    Load it in the shell's start-up file: for zsh and fish, save it in a folder of completions.
    """
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - the choice has only shells that click knows
    click.echo(found(context.find_root().command, {}, "myhealth", "_MYHEALTH_COMPLETE").source())
