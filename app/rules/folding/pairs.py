"""Checks and the pulls that they began (rule 1)."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from app.rules.events import Event
from app.rules.folding.terms import (
    BLINK,
    SKEW,
    WINDOW,
    node_of,
    own_tag,
)

_Pair = tuple[bool, timedelta, bool, int, int]
"""How near they are, then their numbers, the first's negative: inner pairs come before outer."""


def nearest_pairs(events: Sequence[Event], holding: Sequence[str]) -> Iterator[tuple[Event, Event]]:
    """Pair checks and pulls of one digest, given in order of time: each check with its pull.

    `holding` are the positions of the pulls of an index that has the digest as a child. The nearest
    pair of a row are always neighbours, so only neighbours are looked at.
    """
    rows_of: defaultdict[int, list[_Row]] = defaultdict(list)
    possible: list[_Pair] = []
    for row in _rows(events, holding):
        pairs = [pair for pair in map(row.pair, row.numbers, row.numbers[1:]) if pair]
        if pairs:  # else there will be none: those that become neighbours are further apart
            possible += pairs
            row.link()
            for number in row.numbers:
                rows_of[number].append(row)
    heapq.heapify(possible)
    gone: set[int] = set()
    while possible:
        *_, minus_first, second = heapq.heappop(possible)
        first = -minus_first
        if first in gone or second in gone:
            continue
        gone |= {first, second}
        one, other = events[first], events[second]
        yield (one, other) if one.action == "check" else (other, one)
        for number in (first, second):
            for row in rows_of[number]:
                pair = row.close_gap(number)
                if pair:
                    heapq.heappush(possible, pair)


class _Row:
    """Checks and pulls, by their numbers, of which each check may be paired with each pull after
    it; in a `late` row with each pull before it."""

    def __init__(
        self,
        events: Sequence[Event],
        numbers: Iterable[int],
        *,
        late: bool = False,
        last: bool = False,
        holding: Sequence[str] = (),
    ) -> None:
        self.numbers = sorted(numbers)
        self._events = events
        self._late = late
        self._last = last  # whether its pairs come after those of other rows
        self._holding = holding
        self._before: dict[int, int] = {}
        self._after: dict[int, int] = {}

    def link(self) -> None:
        """Make ready for events to be taken out."""
        self._before = dict(zip(self.numbers[1:], self.numbers, strict=False))
        self._after = dict(zip(self.numbers, self.numbers[1:], strict=False))

    def pair(self, first: int, second: int) -> _Pair | None:
        """Two neighbours as a pair, None where they cannot be one."""
        one, other = self._events[first], self._events[second]
        if one.action == other.action or self._late == (one.action == "check"):
            return None
        distance = other.timestamp - one.timestamp
        if distance > (WINDOW if not self._late else BLINK if self._last else SKEW):
            return None
        if self._holding and bisect_left(self._holding, one.position) < bisect_left(
            self._holding, other.position
        ):
            return None
        return self._last, distance, self._late, -first, second

    def close_gap(self, number: int) -> _Pair | None:
        """Take one out; returns its neighbours where they are a pair."""
        before, after = self._before.pop(number, None), self._after.pop(number, None)
        if before is not None:
            del self._after[before]
        if after is not None:
            del self._before[after]
        if before is None or after is None:
            return None
        self._before[after], self._after[before] = before, after
        return self.pair(before, after)


def _rows(events: Sequence[Event], holding: Sequence[str]) -> Iterator[_Row]:
    pulls: defaultdict[str | None, list[int]] = defaultdict(list)
    checks: defaultdict[str | None, list[int]] = defaultdict(list)
    for number, event in enumerate(events):
        tag = own_tag(event)
        if event.action == "pull":
            pulls[tag].append(number)
        else:
            checks[tag].append(number)
            checks[None].append(number)
    for tag, pulled in pulls.items():
        checked = checks.get(tag, [])
        yield _Row(events, pulled + checked, holding=() if tag else holding)
        for node in {node_of(events[number]) for number in pulled}:
            here = [number for number in pulled if node_of(events[number]) == node]
            same = [number for number in checked if node_of(events[number]) == node]
            other = [number for number in checked if node_of(events[number]) != node]
            yield _Row(events, here + same, late=True, last=True)
            yield _Row(events, here + other, late=True)
