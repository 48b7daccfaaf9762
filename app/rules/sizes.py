"""Numbers of bytes: whatever a registry claims, what adds them up can be stored and sent. Pure."""

from __future__ import annotations

from collections.abc import Iterable

MAX_SIZE = 2**63 - 1  # MongoDB takes no larger number
# 8 TiB, of one push or one copy: MongoDB itself adds up a million of these and more.
MAX_CONTENT_SIZE = 2**43


def add_sizes(sizes: Iterable[int]) -> int:
    """Their sum, MAX_SIZE at most."""
    return min(sum(sizes), MAX_SIZE)
