"""What one text of config.yml says: a time, an address."""

from __future__ import annotations

import re
from datetime import timedelta

from app.errors import ConfigError


def parse_duration(text: str) -> timedelta:
    """The time that `90s`, `15m`, `24h` or `30d` says; `0` is none.

    Raises:
        ValueError: it says no time.
    """
    match = re.fullmatch(r"0|([0-9]{1,5})([smhd])", text)
    if not match:
        raise ValueError(text)
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2] or "s"]
    return timedelta(**{unit: int(match[1] or 0)})


def parse_bind(bind: str) -> tuple[str, int]:
    """Split `host:port`, `[v6]:port` or `:port` (all addresses).

    Raises:
        ConfigError: it is none of them.
    """
    match = _BIND.fullmatch(bind)
    if not match or int(match["port"]) > 65535:
        raise ConfigError(f"server.bind: expected address:port, got {bind!r}")
    host = match["v6"] or match["host"]
    return host or "0.0.0.0", int(match["port"])  # noqa: S104 - what ":8000" means


# What gunicorn reads the same way: an IPv6 address needs its brackets.
_BIND = re.compile(r"(?:\[(?P<v6>[^\[\]\s]+)\]|(?P<host>[^\[\]\s:/]*)):(?P<port>[0-9]{1,5})")
