"""Tokens: JSON Web Tokens (RFC 7519) signed with Ed25519 (EdDSA, RFC 8037).

Only the upload API can sign: its key is derived from `secret_key`. The browse API verifies with the public key, which
the upload API publishes as a JSON Web Key Set (RFC 7517).
"""

import base64
import hashlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct

from myhealth.common.errors import NotLoggedIn, SettingsError, Unavailable
from myhealth.common.settings import Settings
from myhealth.common.settings_checks import SECRET_HINT, read_private_file

log = logging.getLogger(__name__)

EXAMPLES_SECRET = "replace-this-with-48-random-bytes-of-your-own"  # noqa: S105 - examples/upload.toml
ALGORITHM = "EdDSA"
ISSUER = "myhealth-upload"
AUDIENCE = "myhealth"
KEY_PURPOSE = b"myhealth token signing key, Ed25519, 1"
REFETCH_AFTER_S = 10  # a forged key id must not cause a call of the upload API at every request
RETRY_AFTER_S = 1
# A key that was withdrawn, because the secret was changed, is trusted for at most so long.
KEYS_KEPT_S = 300
LEEWAY_S = 30  # the clocks of hosts differ
# A valid signature is remembered for this time. Whether the user is active is checked at every request.
CHECKED_FOR_S = 60
CHECKED_MAX = 20_000


class Claims(Struct, frozen=True):
    """The content of a valid token: the user's `subject`, and when it was issued and expires (Unix seconds).

    `service`: the user had the role service when the token was issued.
    """

    subject: str
    issued_at: float
    expires_at: float
    service: bool = False


def load_secret(settings: Settings) -> bytes:
    """Return the upload API's secret. With embedded PostgreSQL, create it once, in a file that only its owner may read.

    Raises SettingsError if database_url is set and secret_key is not (two hosts would create two secrets), and for the
    secret of the example file, which is public, unless allow_insecure is set.
    """
    if settings.secret_key == EXAMPLES_SECRET and not settings.allow_insecure:
        raise SettingsError("secret_key is still the one of the example file, which is public", hint=SECRET_HINT)
    if settings.secret_key:
        return settings.secret_key.encode()
    if settings.database_url:
        raise SettingsError(
            "MYHEALTH_SECRET_KEY is not set; set it, or MYHEALTH_SECRET_KEY_FILE, for the upload API to sign tokens",
            hint=SECRET_HINT,
        )
    path = settings.folder / "secret_key"
    try:
        settings.folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            _write_once(path, os.urandom(48).hex().encode())
        secret = path.read_bytes()
    except OSError as error:
        raise SettingsError(f"the secret in {path} cannot be used: {error.strerror}") from error
    if len(secret) < 32:
        raise SettingsError(f"the secret in {path} is shorter than 32 bytes; remove the file to have a new one made")
    return secret


def _write_once(path: Path, content: bytes) -> None:
    """Write a private file completely or not at all; the first of several writers wins."""
    part = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)
    except FileExistsError:
        pass
    finally:
        part.unlink()


class Signer:
    """Issues tokens. Two signers with one secret have the same key."""

    def __init__(self, secret: bytes, ttl_s: int) -> None:
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=KEY_PURPOSE).derive(secret)
        self._key = Ed25519PrivateKey.from_private_bytes(derived)
        self.ttl_s = ttl_s
        self.jwk = _jwk(self._key.public_key())

    def sign(self, subject: Any, now: float | None = None, *, service: bool = False) -> tuple[str, datetime]:
        """Return a token for the user with this `subject`, issued at `now` (Unix seconds), and its expiry (UTC).

        `service`: the user has the role service. It is the only role that a token contains: the task runner copies
        the users, itself among them, to the browse API, and needs access before that.
        """
        now = time.time() if now is None else now
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(subject),
            "iat": now,
            "exp": int(now) + self.ttl_s,
            "jti": uuid.uuid4().hex,
            **({"service": True} if service else {}),
        }
        token = jwt.encode(claims, self._key, ALGORITHM, headers={"kid": self.jwk["kid"]})
        return token, datetime.fromtimestamp(int(now) + self.ttl_s, UTC)

    def jwks(self) -> dict[str, Any]:
        """Return the public key as a JSON Web Key Set."""
        return {"keys": [self.jwk]}


class Verifier:
    """Verifies tokens with the keys that `fetch` returns as a JSON Web Key Set.

    Keys are kept, and fetched again when a token names an unknown key, and every five minutes. So logins work while the
    upload API is unavailable, a new key is known at its first use, and a withdrawn one is forgotten.

    `file`: keeps the keys beyond the process's end, so that it can start while the upload API is unavailable. Valid
    tokens are remembered for a minute: checking a signature takes as long as a whole request.
    """

    def __init__(self, fetch: Callable[[], dict[str, Any]], file: Path | None = None) -> None:
        self._fetch, self._file = fetch, file
        self._stale_at = float("-inf")
        self._keys: dict[str, Any] = {}
        self._fetch_again_at = float("-inf")
        self._error: Unavailable | None = None
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Claims]] = {}

    def verify(self, token: str) -> Claims:
        """Return the token's claims. Raises NotLoggedIn if it is forged, damaged or expired, Unavailable if the keys
        cannot be fetched."""
        found, now = self._known.get(token), time.time()
        if found is not None and now < found[0]:
            return found[1]
        claims = self.check(token)
        if len(self._known) >= CHECKED_MAX:
            self._known.clear()
        self._known[token] = (min(now + CHECKED_FOR_S, claims.expires_at + LEEWAY_S), claims)
        return claims

    def check(self, token: str) -> Claims:
        """Do what `verify` does, and remember nothing."""
        try:
            key = self._key_for(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=ISSUER,
                audience=AUDIENCE,
                leeway=LEEWAY_S,
                options={"require": ["iss", "aud", "sub", "iat", "exp", "jti"], "strict_aud": True},
            )
            return Claims(
                str(uuid.UUID(claims["sub"])), float(claims["iat"]), float(claims["exp"]), claims.get("service") is True
            )
        except jwt.ExpiredSignatureError as error:
            raise NotLoggedIn("The login has ended; log in again.", code="token_expired") from error
        except jwt.ImmatureSignatureError as error:
            log.warning("a token was issued more than %d s ahead of this host's clock: run NTP on all hosts", LEEWAY_S)
            raise NotLoggedIn("The token is not valid; log in again.", code="token_invalid") from error
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise NotLoggedIn("The token is not valid; log in again.", code="token_invalid") from error

    def fetch(self) -> None:
        """Fetch the keys unless they are here. Raises Unavailable."""
        with self._lock:
            if not self._keys and time.monotonic() >= self._fetch_again_at:
                self._refresh()
            if not self._keys:
                raise self._error or Unavailable("the upload API has no key")

    def _key_for(self, kid: Any) -> Any:
        if isinstance(kid, str) and kid in self._keys:  # without the lock: a forged kid must not make others wait
            if time.monotonic() < self._stale_at or not self._lock.acquire(blocking=False):
                return self._keys[kid]
            try:
                if time.monotonic() >= max(self._stale_at, self._fetch_again_at):
                    self._refresh()
            finally:
                self._lock.release()
            if kid in self._keys:
                return self._keys[kid]
        with self._lock:
            if kid not in self._keys and time.monotonic() >= self._fetch_again_at:
                self._refresh()
            if not isinstance(kid, str) or kid not in self._keys:
                raise self._error or jwt.InvalidTokenError("no such key")
            return self._keys[kid]

    def _refresh(self) -> None:
        try:
            found = self._fetch()
            self._keys = self._parse(found)
            self._error, wait_s = None, REFETCH_AFTER_S
            self._stale_at = time.monotonic() + KEYS_KEPT_S
            self._keep(found)
        except Unavailable as error:
            self._error, wait_s = error, RETRY_AFTER_S
            self._keys = self._keys or self._kept()
        except jwt.PyJWTError as error:
            self._error, wait_s = Unavailable(f"the upload API's keys cannot be used: {error}"), RETRY_AFTER_S
        self._fetch_again_at = time.monotonic() + wait_s

    @staticmethod
    def _parse(found: dict[str, Any]) -> dict[str, Any]:
        return {jwk["kid"]: jwt.PyJWK(jwk, ALGORITHM).key for jwk in found["keys"]}

    def _keep(self, found: dict[str, Any]) -> None:
        text = json.dumps(found).encode()
        try:
            if self._file is not None and not (self._file.exists() and self._file.read_bytes() == text):
                self._file.unlink(missing_ok=True)
                _write_once(self._file, text)
        except OSError as error:
            log.warning("browse.keys_file cannot be written: %s", error.strerror)

    def _kept(self) -> dict[str, Any]:
        """Return the keys of the file, none if there is no file of ours."""
        try:
            return {} if self._file is None else self._parse(json.loads(read_private_file(self._file, "keys' file")))
        except (OSError, ValueError, KeyError, TypeError, jwt.PyJWTError, SettingsError) as error:
            log.warning("browse.keys_file cannot be used: %s", error)
            return {}


def is_revoked(claims: Claims, tokens_valid_after: datetime | None) -> bool:
    """Return whether the user's tokens were revoked after this one was issued."""
    return tokens_valid_after is not None and claims.issued_at < tokens_valid_after.timestamp()


def _jwk(key: Ed25519PublicKey) -> dict[str, str]:
    """Return the key as a JSON Web Key, named by its thumbprint (RFC 7638)."""
    x = _base64url(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
    thumbprint = hashlib.sha256(json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":")).encode())
    kid = _base64url(thumbprint.digest())
    return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": ALGORITHM, "kid": kid, "x": x}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
