"""Which projector derives what: repositories are divided by a hash of their names."""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

from app.rules.events import Event


class Share(NamedTuple):
    """Share `number` of `of`; what is folded together lies in one repository, and so in one."""

    number: int = 0
    of: int = 1

    def has(self, event: Event) -> bool:
        """Whether what is derived of an event belongs to this share."""
        return share_of(event, self.of) == self.number


WHOLE = Share()


def share_of(event: Event, of: int) -> int:
    """The share of the repository in which an event happened; always the same."""
    return crc32(f"{event.registry} {event.repository}".encode()) % of
