"""When events may have been lost: a registry's process that is new, and no server that ran."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from app.rules.events import Event
from app.store import Stores
from app.store.checks import NOTED_EVERY, CheckStore, Gap

SILENCE = timedelta(seconds=15)  # of our own, from which on it is told


class NodeWatch:
    """Notes which processes of registries events come from; one thread uses it."""

    def __init__(self, checks: CheckStore) -> None:
        self._checks = checks
        self._noted: dict[tuple[str, str, str], datetime] = {}

    def __call__(self, events: Sequence[Event]) -> None:
        """Note what is new, and once a minute what is not."""
        for event in sorted(events, key=lambda event: event.timestamp):
            if not event.instance:
                continue
            key = (event.registry, event.source, event.instance)
            noted = self._noted.get(key)
            if noted is None or event.timestamp - noted >= NOTED_EVERY:
                self._checks.note_node(*key, event.timestamp)
                self._noted[key] = event.timestamp


def note_silence(stores: Stores, registries: Iterable[str], now: datetime) -> None:
    """Note, when a server starts, since when none ran that events could come to."""
    progress = stores.inbox.find_progress()
    if progress is None or now - progress.until < SILENCE:
        return
    for registry in registries:
        gap = Gap(registry=registry, began=progress.until, ended=now, why="no server listened")
        stores.checks.add_gap(gap)
