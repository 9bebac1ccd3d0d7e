"""Signatures of the sync's requests over HTTP: Ed25519 (RFC 8032) with a key pair of its own.

The signed text has a line each for: VERSION, the method, the path with its query, the SHA-256 of the body as sent
(after compression), and the time. The path is the one that the browse API receives, without a proxy's prefix.
"""

import base64
import hashlib
import re
import threading
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from myhealth.common.errors import NotAllowed, NotLoggedIn, SettingsError

HEADER = "MyHealth-Signature"
VERSION = "myhealth-sync-1"
TOLERANCE_S = 300.0  # the clocks of both hosts may differ so much
FORM = re.compile(r"t=([0-9]{1,11}\.[0-9]{6}), key=([\w-]{43}), sig=([\w-]{86})", re.ASCII)
NEW_KEY_HINT = "make a pair with: myhealth sync --new-key FILE"


def new_key() -> tuple[str, str]:
    """Return a new key pair as base64url text: the private and the public half."""
    key = Ed25519PrivateKey.generate()
    return _text(key.private_bytes_raw()), _text(key.public_key().public_bytes_raw())


class RequestSigner:
    """Signs requests with the private key of `sync.signing_key`."""

    def __init__(self, private_key: str) -> None:
        """Raise SettingsError if this is no private key."""
        if not private_key:
            raise SettingsError("sync.reports_api_url needs sync.signing_key", hint=NEW_KEY_HINT)
        try:
            self._key = Ed25519PrivateKey.from_private_bytes(_bytes(private_key))
        except ValueError:
            raise SettingsError("sync.signing_key is not a key", hint=NEW_KEY_HINT) from None
        self._public = _text(self._key.public_key().public_bytes_raw())

    def sign(self, method: str, path: str, body: bytes, now: float | None = None) -> str:
        """Return the header's value. `now`: Unix seconds; its microseconds make each signature another one."""
        at = f"{time.time() if now is None else now:.6f}"
        return f"t={at}, key={self._public}, sig={_text(self._key.sign(_signed_text(method, path, body, at)))}"


class SignatureChecker:
    """Checks requests against the public keys of `browse.sync_public_key`. Safe to share between threads."""

    def __init__(self, public_keys: str) -> None:
        """Raise SettingsError if one of these, separated by commas, is no public key."""
        texts = [text.strip() for text in public_keys.split(",") if text.strip()]
        try:
            self._keys = {text: Ed25519PublicKey.from_public_bytes(_bytes(text)) for text in texts}
        except ValueError:
            raise SettingsError("browse.sync_public_key is not a public key", hint=NEW_KEY_HINT) from None
        self._seen: dict[bytes, float] = {}
        self._lock = threading.Lock()

    def read(self, header: str) -> tuple[str, str, str]:
        """Return the time, the key and the signature. Raises NotAllowed without them, and for an unknown key."""
        found = FORM.fullmatch(header)
        if not found:
            raise NotAllowed(f"The request needs the header {HEADER}.", code="signature_missing")
        if found[2] not in self._keys:
            raise NotAllowed("The signature's key is not browse.sync_public_key's.", code="signature_unknown_key")
        return found[1], found[2], found[3]

    def check(self, header: str, method: str, path: str, body: bytes, now: float | None = None) -> None:
        """Raise NotAllowed unless the request is signed by one of the keys and its time is near.

        Raise NotLoggedIn for a signature that this process has accepted before: its sender signs anew.
        """
        now = time.time() if now is None else now
        at, key, signature = self.read(header)
        try:
            self._keys[key].verify(_bytes(signature), _signed_text(method, path, body, at))
        except (InvalidSignature, ValueError):
            raise NotAllowed("The signature is not this request's.", code="signature_wrong") from None
        if abs(now - float(at)) > TOLERANCE_S:
            raise NotAllowed("The signature is too old, or the clocks of both hosts differ.", code="signature_old")
        self._remember(_bytes(signature), now)

    def _remember(self, signature: bytes, now: float) -> None:
        with self._lock:
            if self._seen.setdefault(signature, now) != now:
                raise NotLoggedIn("The request was sent before; sign it anew.", code="signature_seen")
            for old, at in list(self._seen.items()):
                if at > now - 2 * TOLERANCE_S:
                    break
                del self._seen[old]


def _signed_text(method: str, path: str, body: bytes, at: str) -> bytes:
    return "\n".join((VERSION, method, path, hashlib.sha256(body).hexdigest(), at)).encode()


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)
