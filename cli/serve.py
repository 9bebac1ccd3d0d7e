"""myhealth serve and listen"""

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
from cli.import_machine import load_map, reading_options
from cli.output import warn_of_exposed_secrets
from myhealth import grants, processes, stores
from myhealth.common import addresses, database, database_watch, settings_checks
from myhealth.common.errors import SettingsError, Unavailable
from myhealth.intake.formats import terminology
from myhealth.mllp import Limits
from myhealth.mllp import receiver as receivers
from myhealth.mllp import server as servers
from myhealth.profiles import tokens

if TYPE_CHECKING:
    import ssl

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


LIMITS = Limits()
SECONDS = click.FloatRange(min=0.1, max=86400)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=2575, show_default=True, help="Port to listen on.")
@click.option("--fd", type=click.IntRange(min=3), hidden=True, help="A socket that listens already, instead of a port.")
@click.option(
    "--allow",
    metavar="NETWORKS",
    help="Addresses and networks that may send, with commas between them. Needed unless HOST is loopback.",
)
@click.option("--tls-cert", type=click.Path(), metavar="FILE", help="Certificate chain (PEM); then TLS only.")
@click.option("--tls-key", type=click.Path(), metavar="FILE", help="Its private key (PEM).")
@click.option(
    "--tls-client-ca", type=click.Path(), metavar="FILE", help="Only clients with a certificate of these CAs."
)
@click.option(
    "--machine", "machines", multiple=True, metavar="[SENDER=]SERIAL",
    help="The machine of a sender, which is an address, a network, MSH-3 or MSH-3@MSH-4; without it, of all others.",
)  # fmt: skip
@reading_options
@click.option(
    "--max-message", type=click.IntRange(1024, LIMITS.message_max), default=LIMITS.message_max, show_default=True,
    metavar="BYTES", help="The longest message that is taken.",
)  # fmt: skip
@click.option(
    "--idle-timeout", type=SECONDS, default=LIMITS.idle_s, show_default=True, metavar="S",
    help="Close a connection that sends no message for so long.",
)  # fmt: skip
@click.option(
    "--frame-timeout", type=SECONDS, default=LIMITS.frame_s, show_default=True, metavar="S",
    help="Close a connection whose message is not complete so long after its beginning.",
)  # fmt: skip
@click.option("--metrics", metavar="HOST:PORT", help="Where Prometheus reads figures of this listener.")
@pass_app
def listen(app: App, /, host: str, port: int, fd: int | None, **given: Any) -> None:
    """Take results from analyzers by HL7 v2 over MLLP.

    Stores each message as import-machine does, and acknowledges it once it is committed: AA; AE if a record was
    rejected, with its place and the number of the kept rejection; AR for what is not taken. While the database is
    unavailable it closes the connection without an answer, and the sender repeats the message; a repeated message
    stores nothing twice. SIGTERM or Ctrl-C end it once what is being stored is answered; a second one ends it at once.
    """
    allow, limits = given["allow"], (given[name] for name in ("max_message", "idle_timeout", "frame_timeout"))
    if allow is None and not settings_checks.is_loopback(f"tcp://[{host}]" if ":" in host else f"tcp://{host}"):
        raise click.UsageError(f"--host {host} lets others in; name those who may send with --allow")
    addresses.parse_networks(allow or "", "--allow")
    given["zone"] = given["zone"] or "UTC"
    terminology.read_zone(given["zone"])
    tls = tls_context(given["tls_cert"], given["tls_key"], given["tls_client_ca"])
    import asyncio  # it takes long to load, and help does without it

    settings = app.settings()
    receiver = receivers.Receiver(receivers.Senders(given["machines"]), load_map(given["patient_map"]), given["zone"])
    receiver.create_patients, receiver.include_training = given["create_patients"], given["include_training"]
    receiver.own_authorities = settings.intake.folded_authorities
    server = servers.MllpServer(receiver.answer, Limits(allow or LIMITS.allow, *limits))
    if given["metrics"]:
        servers.serve_metrics(server.figures, given["metrics"])
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(fileno=fd) if fd else processes.open_listening_socket(host, port))
        stack.enter_context(stores.opened_database(settings, is_served=True))
        grants.warn_of_data_in_the_log()
        stack.callback(database_watch.Watch(database.database.obj, stores.database_url(settings)).stop)
        click.echo(f"listening on {processes.url_of(listener).replace('http', 'mllp')}", err=True)
        asyncio.run(server.run(listener, tls))


def tls_context(cert: str | None, key: str | None, client_ca: str | None) -> ssl.SSLContext | None:
    """Return the context of the options; None without TLS. Raises SettingsError if a file cannot be used."""
    if cert is None:
        if key or client_ca:
            raise click.UsageError("--tls-key and --tls-client-ca need --tls-cert")
        return None
    import ssl

    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
        context.load_cert_chain(cert, key)
    except (OSError, ValueError) as error:
        raise SettingsError(f"the certificate, its key or the CAs cannot be used: {error}") from error
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
