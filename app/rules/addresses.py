"""Addresses of clients, as registries and proxies write them. Pure."""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address

from app.rules.text import clean_text

MAX_ADDRESS_LENGTH = 64

_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d*)?|([^:]*):\d*")


def parse_address(text: str) -> str:
    """The client's address, in one spelling and without port, out of whatever names it.

    Of a list, as in X-Forwarded-For, it is the first. IPv4 in IPv6 becomes IPv4, IPv6 its canonical
    spelling; a zone (`%eth0`) stays. Text that is no address stays as it is, cleaned and bounded.
    """
    bare, address = _read(text)
    return clean_text(str(address or bare), MAX_ADDRESS_LENGTH)


def parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    """The address that `parse_address` finds, to be compared: without zone. None if it is none."""
    address = _read(text)[1]
    if isinstance(address, IPv6Address) and address.scope_id:
        return IPv6Address(int(address))
    return address


def find_client(peer: str, forwarded_for: str, trusted_proxies: int) -> str:
    """The address of whoever sent a request, "" where none can be read.

    Of X-Forwarded-For only what our own proxies added is believed: as many values as there are
    proxies, from the right. The first of them that can be read is the client, or the proxy that
    was nearest to it; after them comes `peer`, who opened the connection.
    """
    hops = forwarded_for.split(",")[-trusted_proxies:] if trusted_proxies else []
    found = next((hop for hop in (*hops, peer) if _read(hop)[1]), "")
    return parse_address(found)


def _read(text: str) -> tuple[str, IPv4Address | IPv6Address | None]:
    """The text without port and brackets, and the address that it is."""
    first = text.lstrip(", \t").partition(",")[0].strip()
    match = _WITH_PORT.fullmatch(first)
    bare = (match[1] or match[2] or "").strip() if match else first
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return bare, None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return bare, mapped or address
