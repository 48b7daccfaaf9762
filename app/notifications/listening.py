"""When events may have been lost: a registry's process that is new, and no server that ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from app.rules.events import Event
from app.store import Stores
from app.store.checks import NOTED_EVERY, CheckStore, Gap

Key = tuple[str, str, str]  # registry, node, process

SILENCE = timedelta(seconds=15)  # of our own, from which on it is told


class NodeWatch:
    """Notes which processes of registries events come from; one thread uses it."""

    def __init__(self, checks: CheckStore) -> None:
        self._checks = checks
        self._noted: dict[Key, datetime] = {}

    def __call__(self, events: Sequence[Event]) -> None:
        """Note what is new, and once a minute what is not: of many events of a process the last."""
        due: dict[Key, datetime] = {}
        for event in sorted(events, key=lambda event: event.timestamp):
            if not event.instance:
                continue
            key = (event.registry, event.source, event.instance)
            if key not in self._noted:
                # A gap begins with the last word of the process before.
                self._note(due)
                due = {}
                self._note({key: event.timestamp})
            elif event.timestamp - self._noted[key] >= NOTED_EVERY:
                due[key] = event.timestamp
        self._note(due)

    def _note(self, due: Mapping[Key, datetime]) -> None:
        for key, at in due.items():
            self._checks.note_node(*key, at)
            self._noted[key] = at


def note_silence(stores: Stores, registries: Iterable[str], now: datetime) -> None:
    """Note, when a server starts, since when none ran that events could come to."""
    progress = stores.inbox.find_progress()
    if progress is None or now - progress.until < SILENCE:
        return
    # What waits came to a server that listened.
    heard = max(progress.until, stores.inbox.find_newest() or progress.until)
    if now - heard < SILENCE:
        return
    for registry in registries:
        gap = Gap(registry=registry, began=heard, ended=now, why="no server listened")
        stores.checks.add_gap(gap)
