"""Addresses of clients, as registries and proxies write them. Pure."""

from __future__ import annotations

import ipaddress
import re

from app.rules.text import clean_text

MAX_ADDRESS_LENGTH = 64

_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d*)?|([^:]*):\d*")


def parse_address(text: str) -> str:
    """The client's address, in one spelling and without port, out of whatever names it.

    Of a list, as in X-Forwarded-For, it is the first. IPv4 in IPv6 becomes IPv4, IPv6 its canonical
    spelling; a zone (`%eth0`) stays. Text that is no address stays as it is, cleaned and bounded.
    """
    first = text.lstrip(", \t").partition(",")[0].strip()
    match = _WITH_PORT.fullmatch(first)
    bare = (match[1] or match[2] or "").strip() if match else first
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return clean_text(bare, MAX_ADDRESS_LENGTH)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return clean_text(str(mapped or address), MAX_ADDRESS_LENGTH)
