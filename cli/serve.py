"""myhealth serve"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from cli.context import App, pass_app
from cli.output import warn_of_exposed_secrets
from myhealth import processes, stores
from myhealth.common import settings_checks
from myhealth.common.errors import Unavailable
from myhealth.profiles import tokens

if TYPE_CHECKING:
    from myhealth.common.settings import Settings

POLL_S = 0.2
# Settings that neither the browse API nor the listener needs.
API_SECRETS = ("secret_key", "sync.source_url", "sync.password", "sync.signing_key")

UNPROTECTED = (
    "Other hosts reach these ports without HTTPS, and a few slow clients can hold all threads: let a firewall keep them"
    " out, and nginx (examples/nginx.conf) in front."
)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--upload-port", type=click.IntRange(0, 65535), default=5000, show_default=True, help="The upload API's.")
@click.option("--browse-port", type=click.IntRange(0, 65535), default=5001, show_default=True, help="The browse API's.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True, help="Processes of each API.")
@click.option("--threads", type=click.IntRange(min=1), default=8, show_default=True, help="Threads of each process.")
@click.option(
    "--mllp", is_flag=False, flag_value=2575, type=click.IntRange(0, 65535), metavar="[PORT]",
    help="Also take HL7 v2 over MLLP, at port 2575 or this one: `myhealth listen`.",
)  # fmt: skip
@click.option("--mllp-allow", metavar="NETWORKS", help="Who may send there: --allow of `myhealth listen`.")
@click.option("--no-sync", is_flag=True, help="Leave the sync to cron or another host.")
@pass_app
def serve(app: App, /, host: str, upload_port: int, browse_port: int, **given: Any) -> None:
    """Run both APIs and the sync on this machine.

    Use it on one machine and for trials; Ctrl-C or SIGTERM end it. The sync carries uploads over at once
    (`sync.listen`, unless a setting turns it off). Put an HTTPS proxy in front before other hosts may reach it.
    """
    if upload_port == browse_port != 0:
        raise click.UsageError("--upload-port and --browse-port must differ")
    settings = app.settings()
    warn_of_exposed_secrets(settings)
    with contextlib.ExitStack() as stack:
        upload = stack.enter_context(processes.open_listening_socket(host, upload_port))
        browse = stack.enter_context(processes.open_listening_socket(host, browse_port))
        if "auth_url" not in settings.origins:
            settings = dataclasses.replace(settings, auth_url=processes.url_of(upload))
            settings_checks.check_settings(settings)
        if "sync.listen" not in settings.origins:
            settings = dataclasses.replace(settings, sync=dataclasses.replace(settings.sync, listen=True))
        tokens.load_secret(settings)
        with stores.opened_database(settings), app.reports(settings):
            pass  # report an unavailable store or an older schema before anything is started
        ended: list[int] = []  # no Event: a handler cannot set one on which its own thread waits
        signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
        running = _start(stack, settings, host, {"upload": upload, "browse": browse}, **given)
        click.echo(f"upload API  {processes.url_of(upload)}\nbrowse API  {processes.url_of(browse)}", err=True)
        click.echo(f"pages for people to read their reports on  {processes.url_of(browse)}/", err=True)
        if not ipaddress.ip_address(browse.getsockname()[0]).is_loopback:
            click.echo(UNPROTECTED, err=True)
        click.echo("Ctrl-C ends them.", err=True)
        while not ended:
            time.sleep(POLL_S)
            for name, process in running.items():
                if process.poll() is not None and not ended:
                    raise Unavailable(f"{name} ended unexpectedly with exit code {process.returncode}")


def _start(
    stack: contextlib.ExitStack,
    settings: Settings,
    host: str,
    listeners: Mapping[str, socket.socket],
    *,
    workers: int,
    threads: int,
    mllp: int | None,
    mllp_allow: str | None,
    no_sync: bool,
) -> dict[str, subprocess.Popen[bytes]]:
    """Start the processes, by name; they end with `stack`."""
    running = {}
    for name, listener in listeners.items():
        without = ("database_url", *API_SECRETS) if name == "browse" else ()
        server = processes.gunicorn(
            f"wsgi.{name}:app", listener, settings, workers=workers, threads=threads, without=without
        )
        running[f"the {name} API"] = stack.enter_context(server)
    if mllp is not None:
        listener = stack.enter_context(processes.open_listening_socket(host, mllp))
        words = ["-m", "cli", "listen", "--host", host, "--fd", str(listener.fileno())]
        words += ["--allow", mllp_allow] if mllp_allow else []
        listening = processes.started(words, settings, without=API_SECRETS, pass_fds=(listener.fileno(),))
        running["the listener"] = stack.enter_context(listening)
    if not no_sync:
        running["the sync"] = stack.enter_context(processes.started(["-m", "cli", "sync"], settings))
    return running
