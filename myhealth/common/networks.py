"""Addresses of clients, and the networks that they stand for in limits."""

from __future__ import annotations

import ipaddress
import re

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# One customer has at least a /64 of IPv6, and may use each of its addresses. Source: RFC 6177.
IPV6_PREFIX = 64
TEXT_MAX = 100
# Some balancers append the port: 198.51.100.1:1001, [2001:db8::1]:1001.
WITH_PORT = re.compile(r"\[(?P<six>[^\]]*)\](?::\d+)?|(?P<four>[0-9.]+):\d+", re.ASCII)


def parse_address(text: str) -> Address | None:
    """Return the address without port and zone, an IPv4-mapped one as IPv4; None if the text is no address."""
    found = WITH_PORT.fullmatch(text.strip())
    bare = (found["six"] or found["four"] or "") if found else text.strip()
    try:
        address = ipaddress.ip_address(bare.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def network_of(text: str | None) -> str:
    """Return the network by which limits count a client: `198.51.100.1`, `2001:db8::/64`, or a text that is no address.

    Example: `::ffff:198.51.100.1` and `198.51.100.1:1001` are `198.51.100.1`.
    """
    address = parse_address(text or "")
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(address), IPV6_PREFIX), strict=False))
    return str(address) if address else (text or "")[:TEXT_MAX]
