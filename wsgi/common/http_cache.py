"""Compression and ETags of answers."""

import hashlib
import zlib
from collections.abc import Iterable, Iterator

from wsgi.common.requests import header, takes_gzip

GZIP_FROM_BYTES = 1024  # a smaller answer fits into one packet
ANSWER_GZIP_LEVEL = 4


def pack(content: bytes, headers: dict[str, str]) -> bytes:
    """Return the content, gzipped if the client accepts it and it is large; set Content-Encoding in `headers`."""
    if len(content) < GZIP_FROM_BYTES or not takes_gzip():
        return content
    packer = zlib.compressobj(ANSWER_GZIP_LEVEL, wbits=31)
    headers["Content-Encoding"] = "gzip"
    return packer.compress(content) + packer.flush()


def pack_stream(blocks: Iterable[bytes], headers: dict[str, str]) -> Iterator[bytes]:
    """Return an iterator over the blocks, gzipped if the client accepts it; set Content-Encoding in `headers`."""
    if not takes_gzip():
        return iter(blocks)
    headers["Content-Encoding"] = "gzip"
    return _gzipped(blocks)


def _gzipped(blocks: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(ANSWER_GZIP_LEVEL, wbits=31)
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()


def etag(content: bytes) -> str:
    """Return the weak ETag of the uncompressed content."""
    return f'W/"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


def etag_matches(tag: str) -> bool:
    """Return whether If-None-Match contains the tag, by weak comparison. Source: RFC 9110, 13.1.2."""
    known = header("If-None-Match")
    if not known:
        return False
    opaque = tag.removeprefix("W/")
    return any(each.strip() == "*" or each.strip().removeprefix("W/") == opaque for each in known.split(","))
