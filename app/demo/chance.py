"""Chance that is always the same: every choice is the hash of what it is about.

Not `random`: its choices may differ between versions of Python, and depend on those before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeVar

T = TypeVar("T")

# UTC hours of an office in central Europe, as often as things happen in them.
OFFICE_HOURS = (6, 7, 7, 8, 8, 8, 9, 9, 9, 10, 10, 11, 12, 12, 13, 13, 13, 14, 14, 15, 15, 16)
CLUSTER_HOURS = (*range(24), *OFFICE_HOURS)  # nodes also come and go at night
NIGHT_HOURS = (1, 2, 3)


def hex_of(*key: object) -> str:
    """64 hexadecimal digits that belong to `key`."""
    return hashlib.sha256("\0".join(map(str, key)).encode()).hexdigest()


def digest_of(*key: object) -> str:
    """The digest of the content that `key` names."""
    return f"sha256:{hex_of(*key)}"


def fraction(*key: object) -> float:
    """A number from 0 up to 1, without it, evenly spread over all keys."""
    return int(hex_of(*key)[:12], 16) / 16**12


def between(low: float, high: float, *key: object) -> float:
    """A number from `low` up to `high`."""
    return low + (high - low) * fraction(*key)


def pick(options: Sequence[T], *key: object) -> T:
    """One of the options."""
    return options[int(fraction(*key) * len(options))]


def moment_on(day: date, hours: Sequence[int], *key: object) -> datetime:
    """A moment (UTC) of the day, in one of these hours."""
    seconds = pick(hours, day, "hour", *key) * 3600 + between(0, 3600, day, "second", *key)
    return midnight(day) + timedelta(seconds=seconds)


def midnight(day: date) -> datetime:
    """The beginning of the day (UTC)."""
    return datetime.combine(day, time.min, UTC)


def is_weekday(day: date) -> bool:
    """Monday to Friday."""
    return day.weekday() < 5
