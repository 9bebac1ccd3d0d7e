"""Answers packed for the way, and not sent twice."""

from __future__ import annotations

import hashlib
import zlib

from wsgi.common.requests import header, takes_gzip

GZIP_FROM_BYTES = 1024  # a smaller answer fits into a packet as it is
GZIP_LEVEL = 4


def pack(content: bytes, headers: dict[str, str]) -> bytes:
    """The content as the client takes it, and in the headers how it is packed."""
    if len(content) < GZIP_FROM_BYTES or not takes_gzip():
        return content
    packer = zlib.compressobj(GZIP_LEVEL, wbits=31)
    headers["Content-Encoding"] = "gzip"
    return packer.compress(content) + packer.flush()


def etag(content: bytes) -> str:
    """The ETag by which a client may keep it, packed or not."""
    return f'W/"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


def etag_matches(tag: str) -> bool:
    """Whether If-None-Match names it; tags are compared weakly. Source: RFC 9110, 13.1.2."""
    known = header("If-None-Match")
    if not known:
        return False
    opaque = tag.removeprefix("W/")
    return any(each.strip() == "*" or each.strip().removeprefix("W/") == opaque for each in known.split(","))
