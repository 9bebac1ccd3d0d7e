"""Passwords: which are accepted, how they are kept, how they are checked. Source: bcrypt (Provos, Mazières, 1999)."""

from __future__ import annotations

import secrets
import unicodedata

import bcrypt

from myhealth.common.errors import BadInput

MIN_CHARACTERS = 8
MAX_BYTES = 72  # bcrypt reads no further; a longer password would be cut, and a cut one is not what was chosen
# Without the characters that people mix up (0 O, 1 l I): a password that is read aloud or copied from paper.
ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
# Well-formed, of nobody's password: so that an unknown user costs as much time as a known one.
DUMMY_TAIL = "$" + "." * 22 + "u" * 31


def hash_password(password: str, rounds: int) -> str:
    """The bcrypt hash of an acceptable password. Raises BadInput with the reason for any other."""
    check_acceptable(password)
    return bcrypt.hashpw(_encode(password), bcrypt.gensalt(rounds)).decode()


def check_acceptable(password: str) -> None:
    """Raises BadInput unless the password has 8 characters or more, 72 bytes or fewer, and no NUL."""
    if len(password) < MIN_CHARACTERS:
        raise BadInput(f"the password has {len(password)} characters; it needs at least {MIN_CHARACTERS}")
    size = len(_encode(password))
    if size > MAX_BYTES:
        raise BadInput(f"the password has {size} bytes; at most {MAX_BYTES} can be used")
    if "\0" in password:
        raise BadInput("the password holds a NUL character")


def password_matches(password: str, hashed: str | None, rounds: int) -> bool:
    """Whether it is the password behind `hashed`; takes as long when there is none (`rounds`: its cost then).

    A password that could never have been accepted is a wrong one, not an error.
    """
    encoded = _encode(password)
    usable = len(encoded) <= MAX_BYTES and b"\0" not in encoded
    try:
        checked = bcrypt.checkpw(encoded if usable else b"-", (hashed or f"$2b${rounds:02d}{DUMMY_TAIL}").encode())
    except ValueError:  # what is stored is no hash: nothing opens it
        return False
    return checked and usable and hashed is not None


def generate_password() -> str:
    """Sixteen characters in four groups, 80 bits of chance, easy to read out: `k7wd-9xqm-tt3c-hv5p`."""
    letters = "".join(secrets.choice(ALPHABET) for _ in range(16))
    return "-".join(letters[i : i + 4] for i in range(0, 16, 4))


def _encode(password: str) -> bytes:
    """NFC, so that one password typed on two keyboards is the same bytes."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
