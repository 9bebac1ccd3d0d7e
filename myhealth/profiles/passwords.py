"""Passwords: rules, hashing, verification. Source: bcrypt (Provos, Mazières, 1999)."""

import functools
import os
import secrets
import unicodedata
from pathlib import Path

import bcrypt

from myhealth.common.concurrency import Gate
from myhealth.common.errors import BadInput

MIN_CHARACTERS = 8
COMMON = Path(__file__).with_name("common_passwords.txt")
MAX_BYTES = 72  # bcrypt ignores further bytes: two long passwords with the same beginning would be equal
# Without characters that people confuse (0 O, 1 l I), for passwords that are read aloud or copied from paper.
ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
CODE_ALPHABET = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"  # in capitals, I is one of them
# Few threads of a process compute hashes or wait to: that leaves most of its eight threads, and half of the cores, to
# other requests (two processes of eight threads are the default of `serve` and of the examples for gunicorn).
HASHING = Gate(slots=min(2, max(1, (os.cpu_count() or 1) // 2)), waiting=2)
# The rest of a valid hash that matches no password: an unknown user takes as much time as a known one.
DUMMY_TAIL = "$" + "." * 22 + "u" * 31


def hash_password(password: str, rounds: int) -> str:
    """Return the bcrypt hash of an acceptable password. Raises BadInput, with the reason, for any other, and Busy."""
    check_acceptable(password)
    with HASHING.enter():
        return hash_in_gate(password, rounds)


def hash_in_gate(password: str, rounds: int) -> str:
    """Return the bcrypt hash of an acceptable password. The caller must have entered the gate HASHING."""
    return bcrypt.hashpw(_encode(password), bcrypt.gensalt(rounds)).decode()


def check_acceptable(password: str) -> None:
    """Raise BadInput unless the password has 8 characters or more, 72 bytes or fewer, no NUL, and is not common."""
    if len(password) < MIN_CHARACTERS:
        raise BadInput(f"the password has {len(password)} characters; it needs at least {MIN_CHARACTERS}")
    size = len(_encode(password))
    if size > MAX_BYTES:
        raise BadInput(f"the password has {size} bytes; at most {MAX_BYTES} can be used")
    if "\0" in password:
        raise BadInput("the password contains a NUL character")
    if password.strip().casefold() in _common_passwords():
        raise BadInput("the password is one of the most common ones, which are tried first")


@functools.cache
def _common_passwords() -> frozenset[str]:
    """Return the common passwords, case-folded and without blanks; "" stands for a password of blanks only."""
    return frozenset(["", *COMMON.read_text(encoding="utf-8").split()])


def password_matches(password: str, hashed: str | None, rounds: int) -> bool:
    """Return whether `hashed` is the hash of this password; False if `hashed` is None, after the same time.

    The caller must have entered the gate HASHING. `rounds`: the cost if `hashed` is None. A password that breaks the
    rules is wrong, not an error.
    """
    encoded = _encode(password)
    usable = len(encoded) <= MAX_BYTES and b"\0" not in encoded
    try:
        checked = bcrypt.checkpw(encoded if usable else b"-", (hashed or f"$2b${rounds:02d}{DUMMY_TAIL}").encode())
    except ValueError:  # the stored value is not a hash: no password matches it
        return False
    return checked and usable and hashed is not None


def generate_password() -> str:
    """Return sixteen random characters (80 bits) in four groups: `k7wd-9xqm-tt3c-hv5p`."""
    return _in_groups(ALPHABET, 4)


def generate_code() -> str:
    """Return twenty random characters (99 bits) in five groups: `K7WD-9XQM-TT3C-HV5P-2AJR`."""
    return _in_groups(CODE_ALPHABET, 5)


def _in_groups(alphabet: str, groups: int) -> str:
    return "-".join("".join(secrets.choice(alphabet) for _ in range(4)) for _ in range(groups))


def _encode(password: str) -> bytes:
    """Encode as NFC, so that a password is the same bytes from any keyboard."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
