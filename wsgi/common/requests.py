"""Reading requests: the body up to a limit, parameters, headers, credentials, the client's address; the address under
which users see an application, and the refusal of forged requests from other sites (CSRF)."""

import base64
import io
import itertools
import json
import logging
import re
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, BinaryIO
from urllib.parse import parse_qsl

import bottle
import msgspec
from msgspec import Struct

from myhealth.common.addresses import LOCAL, fold_address, is_trusted
from myhealth.common.errors import BadInput, MyHealthError, NotLoggedIn, TooLarge
from myhealth.common.settings import is_served_directly
from myhealth.common.text import printable

log = logging.getLogger(__name__)
HERE = (LOCAL, "127.0.0.1", "::1")
CHUNK, PIECE = 64 * 1024, 8 * 1024
QUICK_BODY_BYTES, SMALL_BODY_BYTES = 128 * 1024, 1024 * 1024
CREDENTIALS_MAX_BYTES = 16 * 1024
JSON_TYPE = re.compile(r"application/(json|[\w.-]+\+json)")
BASIC = 'Basic realm="MyHealth", charset="UTF-8"'


class WrongMediaType(MyHealthError):
    exit_code, status, code = 2, 415, "unsupported_media_type"


class NoCredentials(NotLoggedIn):
    code, challenge = "credentials_missing", BASIC


class NotAcceptable(MyHealthError):
    exit_code, status, code = 2, 406, "not_acceptable"


def header(name: str, default: str = "") -> str:
    """Return a header, its bytes decoded as Latin-1. Bottle's own reader raises if they are not UTF-8."""
    key = name.upper().replace("-", "_")
    found: str = bottle.request.environ.get(key if key == "CONTENT_TYPE" else f"HTTP_{key}", default)
    return found


def read_body(max_bytes: int, check: Callable[[bytes], None] | None = None) -> bytes:
    """Return the request's body, decompressed if it is gzipped. `check` gets it as it was sent.

    Raises TooLarge beyond `max_bytes` before or after decompression, BadInput for damaged gzip, WrongMediaType for
    another encoding.
    """
    body = b"".join(_read_chunks(max_bytes))
    if check is not None:
        check(body)
    return b"".join(_decompressed([body], max_bytes))


def spool_body(max_bytes: int, begin: Callable[[bytes], None] | None = None) -> BinaryIO:
    """Return the request's body as a file, in memory while it is small. `begin` gets its first CHUNK before more is
    read. Raises as `read_body` does."""
    file: Any = io.BytesIO()
    parts = iter(_decompressed(_read_chunks(max_bytes), max_bytes))
    try:
        first = next(parts, b"")
        if begin:
            begin(first)
        for part in itertools.chain([first], parts):
            if file.tell() + len(part) > SMALL_BODY_BYTES and isinstance(file, io.BytesIO):
                small, file = file, tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
                file.write(small.getbuffer())
            file.write(part)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file  # type: ignore[no-any-return]


def _decompressed(parts: Iterable[bytes], max_bytes: int) -> Iterable[bytes]:
    encoding = header("Content-Encoding", "identity").strip().lower()
    if encoding not in ("gzip", "x-gzip", "identity"):
        raise WrongMediaType(f"The Content-Encoding {encoding!a} is not known; gzip is.")
    return parts if encoding == "identity" else _gunzip(parts, max_bytes)


def refuse_twice(body: bytes) -> None:
    """Raise BadInput if a name occurs twice in an object of the JSON: which of its values was meant is unknown."""
    json.loads(body, object_pairs_hook=_members, parse_int=str, parse_float=str)  # no number is too long


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadInput(f"{printable(twice, 60)}occurs twice in the body.")
    return found


def read_json(max_bytes: int, *fields: str) -> dict[str, Any]:
    """Return the body, a JSON object with no other fields than these. Raises BadInput naming the error, WrongMediaType.

    Without a token the media type must be JSON's, or missing: a form of another site can send any other one.
    """
    media_type = header("Content-Type").partition(";")[0].strip().lower()
    if not sent_token() and media_type and not JSON_TYPE.fullmatch(media_type):
        raise WrongMediaType(f"The Content-Type {media_type[:60]!a} is not taken here; application/json is.")
    try:
        body = read_body(max_bytes)
        value = msgspec.json.decode(body)
        refuse_twice(body)
    except msgspec.DecodeError as error:
        raise BadInput(f"The body is not JSON: {error}") from error
    except RecursionError as error:
        raise BadInput("The body is not JSON that can be read: it is nested too deeply.") from error
    if not isinstance(value, dict):
        raise BadInput("The body must be a JSON object.")
    unknown = [name for name in value if name not in fields]
    if unknown:
        place = {"index": None, "field": unknown[0][:100], "message": f"is not a field; known are {', '.join(fields)}"}
        raise BadInput("The body has a field that is not known.", errors=[place])
    return value


def parse_boolean(name: str, text: str) -> bool:
    """Parse a parameter's value. Raises BadInput with the parameter's name."""
    word = text.lower()
    if word not in ("true", "false", "1", "0", "yes", "no"):
        raise BadInput(f"{name} must be true or false.")
    return word in ("true", "1", "yes")


def query_parameters(*names: str) -> dict[str, str]:
    """Return the address's parameters. Raises BadInput unless each has one of these names, occurs once, is not empty
    and is UTF-8."""
    found: dict[str, str] = {}
    if not (sent := bottle.request.environ.get("QUERY_STRING")):
        return found
    for name, value in parameter_pairs(sent):
        if name in found:
            raise BadInput(f"The parameter {name[:60]!a} occurs twice.")
        if name in names and not value:
            raise BadInput(f"The parameter {name} has no value; leave it out.")
        found[name] = value
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise BadInput(f"The parameter {unknown[0][:60]!a} is not known; known are {', '.join(names) or 'none'}.")
    return found


def parameter_pairs(raw: str) -> list[tuple[str, str]]:
    """Return the names and values of an address's parameters or of a form. Raises BadInput unless they are UTF-8 and at
    most a hundred."""
    # Some clients send bytes beyond ASCII unescaped; they are accepted.
    raw = re.sub(r"[^\x00-\x7f]", lambda found: f"%{ord(found[0]):02X}", raw)
    try:
        return parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError as error:
        raise BadInput("The address's parameters are not UTF-8, or too many.") from error


def accepted_type(*offered: str) -> str:
    """Return the media type that the client prefers, the first of equal ones. Raises NotAcceptable.

    Source: RFC 9110, 12.5.1.
    """
    accept = header("Accept")
    if not accept.strip():
        return offered[0]
    best = max(offered, key=lambda kind: _weight_of(kind, accept))
    if not _weight_of(best, accept):
        raise NotAcceptable(f"This address answers in {' or '.join(offered)}; the request's Accept takes neither.")
    return best


def _weight_of(kind: str, accept: str) -> float:
    """Return the quality that the Accept header's most specific matching range gives the type; 0 without a match."""
    main = kind.partition("/")[0]
    ranks = {kind: 3, f"{main}/*": 2, "*/*": 1}
    found = (0, 0.0)
    for part in accept.split(","):
        name, _, parameters = part.partition(";")
        found = max(found, (ranks.get(name.strip().lower(), 0), _weight(parameters)), key=lambda each: each[0])
    return found[1] if found[0] else 0.0


def _weight(parameters: str) -> float:
    match = re.search(r"(?:^|;)\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*(?:;|$)", parameters, re.ASCII | re.IGNORECASE)
    return float(match[1]) if match else 1.0


def takes_gzip() -> bool:
    """Return whether the client accepts gzip. Source: RFC 9110, 12.5.3."""
    for part in header("Accept-Encoding").split(","):
        name, _, parameters = part.partition(";")
        if name.strip().lower() in ("gzip", "*"):
            return _weight(parameters) > 0
    return False


def sent_token() -> str:
    """Return the token that the request carries, valid or not; "" without one."""
    scheme, _, value = header("Authorization").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else header("x-access-token").strip()


def bearer_token() -> str:
    """Return the token of `Authorization: Bearer T` or `x-access-token: T`. Raises NotLoggedIn without one."""
    token = sent_token()
    if not token:
        raise NotLoggedIn("A token is needed: log in at /login/ first.", code="token_missing")
    return token


def basic_credentials() -> tuple[str, str]:
    """Return the name and password of HTTP Basic (RFC 7617, UTF-8). Raises NoCredentials without them."""
    scheme, _, value = header("Authorization").partition(" ")
    try:
        name, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError:  # not base64, not ASCII, or not UTF-8 within
        name = colon = password = ""
    if scheme.lower() != "basic" or not colon:
        raise NoCredentials("A username and a password are needed, as HTTP Basic has them.")
    return name, password


def _read_chunks(max_bytes: int) -> Iterator[bytes]:
    environ = bottle.request.environ
    source = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH")
    chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    if not length and not chunked:
        return
    if length and not str(length).isdecimal():
        raise BadInput("Content-Length is not a number.")
    if length and int(length) > max_bytes:
        raise TooLarge(f"The body has {length} bytes; at most {max_bytes} are taken.")
    left = int(length) if length and not chunked else max_bytes + 1
    while left > 0:
        try:
            part = source.read(min(CHUNK, left))
        except Exception as error:  # servers raise different errors for malformed chunks and lost clients
            raise BadInput("The body cannot be read.") from error
        if not part:
            break
        left -= len(part)
        yield part
    if chunked and left <= 0:
        raise TooLarge(f"The body has more than {max_bytes} bytes.")
    if not chunked and left > 0:
        raise BadInput("The body is shorter than its Content-Length.")


def _gunzip(parts: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Decompress all gzip members, at most `max_bytes` in total.

    The input is fed in small pieces: zlib copies the rest behind each member, and there may be a million members.
    """
    left, unpacker = max_bytes, zlib.decompressobj(wbits=31)
    for piece in (part[start : start + PIECE] for part in parts for start in range(0, len(part), PIECE)):
        while piece:
            if unpacker.eof:
                unpacker = zlib.decompressobj(wbits=31)
            try:
                unpacked = unpacker.decompress(piece, left + 1)
            except zlib.error as error:
                raise BadInput(f"The gzipped body is damaged: {error}") from error
            left -= len(unpacked)
            if left < 0:
                raise TooLarge(f"Unpacked, the body has more than {max_bytes} bytes.")
            yield unpacked
            piece = unpacker.unused_data
    if not unpacker.eof:
        raise BadInput("The gzipped body is cut short.")


def find_address(trusted_proxies: str) -> str:
    """Find the client's address, which `client_address` tells from then on: the last one in X-Forwarded-For that is not
    a trusted proxy.

    `trusted_proxies`: as `parse_networks` reads it. The header counts only if a trusted proxy sent it. Without ports;
    IPv4-mapped addresses as IPv4.
    """
    address = peer_address()
    hops = [*filter(str.strip, header("X-Forwarded-For").split(","))]
    while hops and is_trusted(address, trusted_proxies):
        address = fold_address(hops.pop().strip())
    return address[:100]


def note_login() -> None:
    """Warn once if logins come from this machine without X-Forwarded-For, as through a proxy that does not set it;
    not under `myhealth serve` on this machine's own address, where people log in without a proxy.
    """
    if peer_address() in HERE and not header("X-Forwarded-For") and not is_served_directly():
        _warn_of_proxy()


@cache
def _warn_of_proxy() -> None:
    log.warning(
        "a login came from this machine without X-Forwarded-For; a proxy must set it (examples/nginx.conf), else wrong"
        " passwords of one client lock all out"
    )


def peer_address() -> str:
    """Return the address of the connection's other end; LOCAL for a Unix socket."""
    return fold_address(bottle.request.environ.get("REMOTE_ADDR") or LOCAL)


def address_with_proxy(address: str) -> str:
    """Return the client's address and, if another host forwarded the request, that host's: `192.0.2.7 via ::1`."""
    sender = peer_address()
    return address if sender == address else f"{address} via {sender}"


HOST = re.compile(r"[A-Za-z0-9._~-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")
DEFAULT_PORT = re.compile(r":(80|443)$")
LOCAL_HOST = re.compile(r"(([\w-]+\.)*localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.ASCII | re.IGNORECASE)
PROXY_HEADERS = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "Via")
HSTS = "max-age=31536000"  # a year, as hstspreload.org asks for


class Site(Struct, frozen=True):
    """The site that a request came to.

    `public_url`: the setting, "" to take the address from each request; `trusted_proxies`: the setting.
    """

    public_url: str = ""
    trusted_proxies: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every response. Browsers keep to HTTPS where users see it (RFC 6797)."""
        secure = {"Strict-Transport-Security": HSTS} if self.public_url.lower().startswith("https:") else {}
        return {"X-Content-Type-Options": "nosniff", **secure}

    def link_base(self) -> str:
        """Return the prefix of paths in Link headers; "" without `public_url`, so that links are relative."""
        return self.public_url.rstrip("/")

    def base_url(self) -> str:
        """Return scheme and host as the user sees them: `public_url`, else those of the request. Headers of proxies
        count only if a trusted proxy sent them."""
        if self.public_url:
            return self.link_base()
        scheme, host = bottle.request.environ.get("wsgi.url_scheme", "http"), header("Host")
        if is_trusted(peer_address(), self.trusted_proxies):
            scheme, host = _last("X-Forwarded-Proto") or scheme, _last("X-Forwarded-Host") or host
        return f"{'https' if scheme == 'https' else 'http'}://{host if HOST.fullmatch(host) else 'localhost'}"

    def needs_secure_cookies(self) -> bool:
        """Return whether cookies must be Secure: over HTTPS, and without `public_url` wherever the browser is not
        certainly on this machine. Many proxies send our local address as the host."""
        if self.public_url:
            return self.public_url.lower().startswith("https:")
        return any(map(header, PROXY_HEADERS)) or not LOCAL_HOST.fullmatch(header("Host"))

    def is_foreign(self, *, takes_null: bool = False) -> bool:
        """Return whether another site made the browser send this request.

        `takes_null`: whether to accept `Origin: null`, which browsers send with forms of pages that give no referrer.
        Source: https://www.w3.org/TR/fetch-metadata/; RFC 6454.
        """
        fetched, origin = header("Sec-Fetch-Site"), header("Origin")
        if fetched:
            return fetched not in ("same-origin", "none")
        if not origin or (origin == "null" and takes_null):
            return False
        if self.public_url:
            return origin.lower() != DEFAULT_PORT.sub("", self.link_base().lower())
        return _authority(origin) != _authority(self.base_url())


def site() -> Site:
    """Return the site of the application that handles the request."""
    found: Site = bottle.request.app.site
    return found


def _last(name: str) -> str:
    """Return the value that the nearest proxy added."""
    return header(name).rpartition(",")[2].strip()


def _authority(url: str) -> str:
    """Return host and port; the scheme does not count, because a proxy may not report it."""
    return DEFAULT_PORT.sub("", url.partition("://")[2].lower())
