"""nginx with the configuration of the examples, and clients that come through it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from myhealth import processes
from support.paths import ROOT

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
FROM = "127.0.0.9"  # the address that clients come from
SURROUNDINGS = """
daemon off;
user {user};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 2048; }}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/myhealth.conf;
}}"""


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Proxy:
    """nginx with the example's configuration; only ports, paths and certificates are those of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plain, self.secure = free_ports()
        write_certificate(folder)
        self._context = trusting(folder)
        text = (ROOT / "examples/nginx.conf").read_text()
        text = re.sub(r"listen \[::\].*\n", "\n", text)
        text = text.replace("listen 80;", f"listen 127.0.0.1:{self.plain};")
        text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{self.secure} ssl")
        text = re.sub(r"/etc/ssl/myhealth/\w+\.(pem|key)", rf"{folder}/own.\1", text)
        text = text.replace("unix:/run/", f"unix:{folder}/").replace("/var/log/nginx/", f"{folder}/")
        (folder / "myhealth.conf").write_text(text)
        user = "root" if os.geteuid() == 0 else "nobody"
        (folder / "nginx.conf").write_text(SURROUNDINGS.format(folder=folder, user=user))
        words = [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
        tried = subprocess.run([*words, "-t"], capture_output=True, text=True, check=False)
        assert tried.returncode == 0, tried.stderr + (folder / "error.log").read_text()
        self.process = subprocess.Popen(words)

    @classmethod
    def existing(cls, folder: Path, secure: int) -> Proxy:
        """Return the one that another process runs."""
        found = cls.__new__(cls)
        found.folder, found.secure, found._context = folder, secure, trusting(folder)
        return found

    def serves(self, host: str) -> bool:
        """Return whether an API answers through nginx."""
        assert self.process.poll() is None, (self.folder / "error.log").read_text()
        with contextlib.suppress(OSError):
            return self.call(host, "GET", "/livez").status == 200
        return False

    def call(
        self, host: str, method: str, path: str, body: Any = None, *, address: str = FROM, **headers: str
    ) -> Answer:
        """Send a request by TLS from an address of this machine; `headers` are written with _ for -."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.secure, context=self._context, timeout=120,
                                                 source_address=(address, 0))  # fmt: skip
        content = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body).encode()
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        kind = {"Content-Type": "application/json"} if content is not None and "Content-Type" not in named else {}
        with contextlib.closing(connection):
            connection.request(method, path, content, {"Host": f"{host}.example", **kind, **named})
            found = connection.getresponse()
            return Answer(found.status, found.headers, found.read())


def trusting(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "own.pem"))
    context.check_hostname = False
    return context


def free_ports() -> tuple[int, int]:
    with processes.open_listening_socket("127.0.0.1", 0) as one, processes.open_listening_socket("127.0.0.1", 0) as two:
        return one.getsockname()[1], two.getsockname()[1]


def write_certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "upload.example")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    certificate = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (folder / "own.pem").write_bytes(certificate)
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "own.key").write_bytes(key.private_bytes(*pem))
