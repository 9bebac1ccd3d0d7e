"""Network addresses in one form, and networks whose members are trusted."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from myhealth.common.errors import SettingsError

Networks = tuple[IPv4Network | IPv6Network | str, ...]
UNIX = "unix"  # in trusted_proxies: every client of a Unix socket
LOCAL = "local"  # the address of such a client
PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([^:]*):\d+")
IPV6_PREFIX, TEXT_MAX = 64, 100
MAPPED_BITS = 96  # of ::ffff:0:0/96. Source: RFC 4291, 2.5.5.2


@lru_cache(maxsize=1024)
def fold_address(text: str) -> str:
    """Return an address in its one form: without port, brackets and zone, an IPv4-mapped address as IPv4.

    `[::ffff:192.0.2.7]:443` -> `192.0.2.7`. A text that is not an address is returned as it is.
    """
    found = PORT.fullmatch(text.strip())
    address = _parse_address((found[1] or found[2] or "") if found else text.strip())
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address or text)


def _parse_address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def network_of(address: str | None) -> str:
    """Return the network by which limits count a client: `198.51.100.1`, `2001:db8::/64`, or a text that is no address.

    One customer has at least a /64 of IPv6, and may use each of its addresses. Source: RFC 6177.
    """
    folded = fold_address(address or "")[:TEXT_MAX]
    is_ipv6 = isinstance(_parse_address(folded), IPv6Address)
    return str(ip_network((folded, IPV6_PREFIX), strict=False)) if is_ipv6 else folded


@lru_cache(maxsize=64)
def parse_networks(text: str, key: str = "trusted_proxies") -> Networks:
    """Return the addresses and networks of a list separated by commas, `unix` for Unix sockets.

    Raises SettingsError, which names the first invalid entry. `key`: whose list it is, for that message.
    """
    return tuple(_parse_network(entry.strip(), key) for entry in text.split(",") if entry.strip())


def _parse_network(entry: str, key: str) -> IPv4Network | IPv6Network | str:
    if entry == UNIX:
        return UNIX
    try:
        network = ip_network(entry, strict=False)
    except ValueError:
        raise SettingsError(
            f"{key}: {entry!r} is neither an address, a network nor {UNIX}",
            hint="list addresses (127.0.0.1), networks (10.0.0.0/8) and unix, with commas between them",
        ) from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped and network.prefixlen >= MAPPED_BITS:
        return ip_network((mapped, network.prefixlen - MAPPED_BITS))
    return network


@lru_cache(maxsize=1024)
def is_trusted(address: str, trusted: str) -> bool:
    """Return whether a folded address is in one of the networks of a list, as `parse_networks` reads it."""
    networks = parse_networks(trusted)
    if address == LOCAL:
        return UNIX in networks
    parsed = _parse_address(address)
    return parsed is not None and any(not isinstance(each, str) and parsed in each for each in networks)
