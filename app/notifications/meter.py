"""Numbers of the intake for Prometheus: right under several processes, and after one's death."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from app.rules.events import ACTIONS, Envelope

ROWS = 256  # processes, living and dead
STATUSES = (202, 400, 401, 413, 500, 503)
BLOB, UNKNOWN = "blob", "unknown"  # as an action: of what is ignored, and of what is rejected

# Upper bounds in seconds; above the last one there is no bound.
HISTOGRAMS: Mapping[str, Sequence[float]] = {
    "answer": (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.8, 1.0),
    "delivery": (0.1, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600),  # an event happened → it came here
    "derivation": (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300),  # it came here → it is worked in
}
Key = tuple[str, ...]


class Meter:
    """Counts in memory that a master shares with its workers; made before they are forked.

    Each process writes a row of its own, so there is no lock that a killed one could keep. A row is
    used again after 256 processes, and goes on from where it was.
    """

    def __init__(self, registries: Sequence[str]) -> None:
        self.registries = registries
        keys: list[Key] = [("status", str(status)) for status in STATUSES]
        for registry in registries:
            keys += [("events", registry, action, "accepted") for action in ACTIONS]
            keys += [("events", registry, BLOB, "ignored")]
            keys += [("events", registry, UNKNOWN, "rejected")]
        for name, bounds in HISTOGRAMS.items():
            keys += [(name, str(bound)) for bound in (*bounds, "+Inf", "sum")]
        self._columns = {key: column for column, key in enumerate(keys)}
        self._width = len(keys)
        self._numbers = memoryview(mmap.mmap(-1, 8 * self._width * ROWS)).cast("d")
        self._row = 0
        self._lock = threading.Lock()  # of this process's threads

    def use_row(self, process: int) -> None:
        """Count on a row of its own from now on; `process` is the number of this process."""
        self._row = process % ROWS * self._width

    def count_answer(self, status: int, seconds: float) -> None:
        """Count one answer to a POST of notifications."""
        with self._lock:
            self._add(("status", str(status)), 1)
            self._observe("answer", seconds)

    def count_envelope(self, registry: str, envelope: Envelope, now: datetime) -> None:
        """Count the events of one envelope that was taken in at `now`."""
        with self._lock:
            for event in envelope.events:
                self._add(("events", registry, event.action, "accepted"), 1)
                self._observe("delivery", (now - event.timestamp).total_seconds())
            self._add(("events", registry, BLOB, "ignored"), envelope.ignored)
            self._add(("events", registry, UNKNOWN, "rejected"), len(envelope.rejected))

    def count_derived(self, seconds: Iterable[float]) -> None:
        """Count envelopes that are worked in, each so many seconds after it came."""
        with self._lock:
            for value in seconds:
                self._observe("derivation", value)

    def _add(self, key: Key, number: float) -> None:
        column = self._columns.get(key)
        if column is not None:
            self._numbers[self._row + column] += number

    def _observe(self, name: str, seconds: float) -> None:
        value = max(seconds, 0.0)  # the clock of a registry may be ahead
        bound = next((str(b) for b in HISTOGRAMS[name] if value <= b), "+Inf")
        self._add((name, bound), 1)
        self._add((name, "sum"), value)

    def totals(self) -> dict[Key, float]:
        """The counts of all processes since the master started."""
        end = self._width * ROWS
        return {
            key: sum(self._numbers[column : end : self._width])
            for key, column in self._columns.items()
        }

    def histogram(
        self, totals: Mapping[Key, float], name: str
    ) -> tuple[list[tuple[str, float]], float]:
        """Cumulative buckets as (upper bound, number), and the sum of all values."""
        buckets, number = [], 0.0
        for bound in (*map(str, HISTOGRAMS[name]), "+Inf"):
            number += totals[name, bound]
            buckets.append((str(float(bound)) if bound != "+Inf" else bound, number))
        return buckets, totals[name, "sum"]
