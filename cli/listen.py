"""myhealth listen"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import TextIO

import click

from cli.context import App, pass_app
from cli.import_machine import load_map
from myhealth import processes, stores
from myhealth.common.addresses import parse_networks
from myhealth.common.database import database
from myhealth.common.database_watch import Watch
from myhealth.common.errors import BadInput, SettingsError
from myhealth.common.settings_checks import is_loopback
from myhealth.intake.file_import import read_zone
from myhealth.mllp.receiver import Receiver
from myhealth.mllp.senders import Senders, read_senders
from myhealth.mllp.server import Limits, Server

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
@click.option("--machine", default="", metavar="SERIAL", help="The machine of all that is sent and not mapped.")
@click.option(
    "--machines",
    type=click.File("r", encoding="utf-8-sig"),
    metavar="FILE.csv",
    help="Machines by sender: columns sender, machine. A sender is an address, a network, or MSH-3 or MSH-3@MSH-4.",
)
@click.option(
    "--patient-map",
    type=click.File("r", encoding="utf-8-sig"),
    metavar="FILE.csv",
    help="Usernames for the patient names that machines use, as for import-machine.",
)
@click.option(
    "--timezone", "zone", default="UTC", show_default=True, metavar="ZONE", help="The zone of moments without one."
)
@click.option("--create-patients", is_flag=True, help="Create unknown patients, without a password.")
@click.option("--include-training", is_flag=True, help="Take messages for training or debugging for results.")
@click.option(
    "--max-message", type=click.IntRange(1024, Limits.message_max), default=Limits.message_max, show_default=True,
    metavar="BYTES", help="The longest message that is taken.",
)  # fmt: skip
@click.option(
    "--idle-timeout", type=SECONDS, default=Limits.idle_s, show_default=True, metavar="S",
    help="Close a connection that sends no message for so long.",
)  # fmt: skip
@click.option(
    "--frame-timeout", type=SECONDS, default=Limits.frame_s, show_default=True, metavar="S",
    help="Close a connection whose message is not complete so long after its beginning.",
)  # fmt: skip
@pass_app
def listen(
    app: App,
    host: str,
    port: int,
    fd: int | None,
    allow: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    tls_client_ca: str | None,
    machine: str,
    machines: TextIO | None,
    patient_map: TextIO | None,
    zone: str,
    create_patients: bool,
    include_training: bool,
    max_message: int,
    idle_timeout: float,
    frame_timeout: float,
) -> None:
    """Take results from analyzers by HL7 v2 over MLLP.

    Stores each message as import-machine does, and acknowledges it once it is committed: AA; AE if a record was
    rejected, with its place and the number of the kept rejection; AR for what is not taken. While the database is
    unavailable it closes the connection without an answer, and the sender repeats the message; a repeated message
    stores nothing twice. SIGTERM or Ctrl-C end it once what is being stored is answered; a second one ends it at once.
    """
    if allow is None and not is_loopback(f"tcp://[{host}]" if ":" in host else f"tcp://{host}"):
        raise click.UsageError(f"--host {host} lets others in; name those who may send with --allow")
    parse_networks(allow or "", "--allow")
    read_zone(zone)
    senders = load_senders(machines, machine)
    tls = tls_context(tls_cert, tls_key, tls_client_ca)
    settings = app.settings()
    limits = Limits(allow or Limits.allow, max_message, idle_timeout, frame_timeout)
    receiver = Receiver(
        senders, load_map(patient_map), settings.intake.folded_authorities, zone, create_patients, include_training
    )
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(fileno=fd) if fd else processes.listen(host, port))
        stack.enter_context(stores.opened_database(settings, is_served=True))
        stores.warn_of_data_in_the_log()
        stack.callback(Watch(database.obj, stores.database_url(settings)).stop)
        click.echo(f"listening on {processes.url_of(listener).replace('http', 'mllp')}", err=True)
        asyncio.run(run(receiver, limits, listener, tls))


async def run(receiver: Receiver, limits: Limits, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
    await Server(receiver.answer, limits).run(listener, tls)


def load_senders(file: TextIO | None, always: str) -> Senders:
    if file is None:
        return Senders(always)
    try:
        return read_senders(file, always)
    except (BadInput, UnicodeDecodeError) as error:
        raise BadInput(f"{file.name}: {error}") from error


def tls_context(cert: str | None, key: str | None, client_ca: str | None) -> ssl.SSLContext | None:
    """Return the context of the options; None without TLS. Raises SettingsError if a file cannot be used."""
    if cert is None:
        if key or client_ca:
            raise click.UsageError("--tls-key and --tls-client-ca need --tls-cert")
        return None
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
        context.load_cert_chain(cert, key)
    except (OSError, ValueError) as error:
        raise SettingsError(f"the certificate, its key or the CAs cannot be used: {error}") from error
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
