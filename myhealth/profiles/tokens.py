"""Tokens: JSON Web Tokens (RFC 7519) signed with Ed25519 (EdDSA, RFC 8037).

Only the upload API can sign: its key is derived from `secret_key`. Whoever serves reports verifies with the
public key, which the upload API publishes as a JSON Web Key Set (RFC 7517).
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from myhealth.common.errors import NotLoggedIn, SettingsError, Unavailable
from myhealth.common.settings import Settings

log = logging.getLogger(__name__)

EXAMPLES_SECRET = "replace-this-with-48-random-bytes-of-your-own"  # noqa: S105 - examples/myhealth.toml
ALGORITHM = "EdDSA"
ISSUER = "myhealth-upload"
AUDIENCE = "myhealth"
KEY_PURPOSE = b"myhealth token signing key, Ed25519, 1"
REFETCH_AFTER_S = 10  # a forged key id must not make us ask the upload API at every request
RETRY_AFTER_S = 1
LEEWAY_S = 30  # clocks of hosts differ
# A token's signature is checked once in so many seconds. Whether its user may still log in is asked every time.
CHECKED_FOR_S = 60
CHECKED_MOST = 20_000


@dataclass(frozen=True)
class Claims:
    """What a valid token says: whose it is (a user's `subject`), and when it was given out and ends (Unix seconds).

    `service`: the user had the role service by then.
    """

    subject: str
    issued_at: float
    expires_at: float
    service: bool = False


def load_secret(settings: Settings) -> bytes:
    """The upload API's secret; with embedded PostgreSQL one is made once, in a file that its owner alone may read.

    Raises WrongSettings when a database_url is set and no secret_key: two hosts would make two secrets; and for the
    one of the example, with which anybody could sign.
    """
    hint = "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
    if settings.secret_key == EXAMPLES_SECRET:
        raise SettingsError("secret_key is still the one of the example, which everybody knows", hint=hint)
    if settings.secret_key:
        return settings.secret_key.encode()
    if settings.database_url:
        raise SettingsError(
            "MYHEALTH_SECRET_KEY is not set; set it, or MYHEALTH_SECRET_KEY_FILE, for the upload API to sign tokens",
            hint=hint,
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
    """Writes a private file whole or not at all; the first of several writers wins."""
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
    """Gives out tokens. Two signers of one secret are the same signer."""

    def __init__(self, secret: bytes, ttl_s: int) -> None:
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=KEY_PURPOSE).derive(secret)
        self._key = Ed25519PrivateKey.from_private_bytes(derived)
        self.ttl_s = ttl_s
        self.jwk = _jwk(self._key.public_key())

    def sign(self, subject: Any, now: float | None = None, *, service: bool = False) -> tuple[str, datetime]:
        """A token for the user of this `subject`, given out at `now`, and the moment at which it ends (UTC).

        `service`: the user has the role service. It is the one role that a token says: the task runner brings the
        browse API its users, itself among them, and must be let in before.
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
        """The public key as a JSON Web Key Set; it holds nothing secret."""
        return {"keys": [self.jwk]}


class Verifier:
    """Checks tokens against the keys that `fetch` brings: a JSON Web Key Set.

    Keys are kept for good and fetched again when a token names one that is not known, so that logins outlast the
    upload API's absence, and a new key is known as soon as it is used.
    """

    def __init__(self, fetch: Callable[[], dict[str, Any]]) -> None:
        self._fetch = fetch
        self._keys: dict[str, Any] = {}
        self._fetch_again_at = float("-inf")
        self._fault: Unavailable | None = None
        self._lock = threading.Lock()

    def verify(self, token: str) -> Claims:
        """What the token says. Raises NotLoggedIn unless it is ours, whole, and valid now; Unavailable when the
        keys cannot be had."""
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
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise NotLoggedIn("The token is not valid; log in again.", code="token_invalid") from error

    def _key_for(self, kid: Any) -> Any:
        if isinstance(kid, str) and kid in self._keys:  # without the lock: a forged name must not make others wait
            return self._keys[kid]
        with self._lock:
            if kid not in self._keys and time.monotonic() >= self._fetch_again_at:
                self._refresh()
            if not isinstance(kid, str) or kid not in self._keys:
                raise self._fault or jwt.InvalidTokenError("no such key")
            return self._keys[kid]

    def _refresh(self) -> None:
        try:
            self._keys = {jwk["kid"]: jwt.PyJWK(jwk, ALGORITHM).key for jwk in self._fetch()["keys"]}
            self._fault, wait_s = None, REFETCH_AFTER_S
        except Unavailable as fault:
            self._fault, wait_s = fault, RETRY_AFTER_S
        except jwt.PyJWTError as error:
            self._fault, wait_s = Unavailable(f"the upload API's keys cannot be used: {error}"), RETRY_AFTER_S
        self._fetch_again_at = time.monotonic() + wait_s


class CheckedTokens:
    """Remembers for a minute what a verified token says; the check of a signature costs as much as a request does."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._known: dict[str, tuple[float, Claims]] = {}

    def verify(self, token: str) -> Claims:
        """Raises NotLoggedIn and Unavailable, as the verifier does."""
        found, now = self._known.get(token), time.time()
        if found is not None and now < found[0]:
            return found[1]
        claims = self._verifier.verify(token)
        if len(self._known) >= CHECKED_MOST:
            self._known.clear()
        self._known[token] = (min(now + CHECKED_FOR_S, claims.expires_at + LEEWAY_S), claims)
        return claims


def is_revoked(claims: Claims, tokens_valid_after: datetime | None) -> bool:
    """Whether the user's tokens were ended after this one was given out."""
    return tokens_valid_after is not None and claims.issued_at < tokens_valid_after.timestamp()


def _jwk(key: Ed25519PublicKey) -> dict[str, str]:
    """The key as a JSON Web Key, named by its thumbprint (RFC 7638)."""
    x = _base64url(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
    thumbprint = hashlib.sha256(json.dumps({"crv": "Ed25519", "kty": "OKP", "x": x}, separators=(",", ":")).encode())
    kid = _base64url(thumbprint.digest())
    return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": ALGORITHM, "kid": kid, "x": x}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
