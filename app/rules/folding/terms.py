"""How near events must be, and who and what is the same."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import takewhile
from typing import Literal

from app.rules.events import Event

SKEW = timedelta(seconds=5)  # of the clocks of two nodes
BLINK = timedelta(milliseconds=100)  # by which one node may date events in another order
WINDOW = timedelta(seconds=60)
LONGEST = timedelta(minutes=10)
UPLOAD = timedelta(hours=1)
BURST = timedelta(seconds=2)

# A new event changes the fold of events from this long before it to so long after it; what these
# are folded into depends on events as far again from them (LONGEST for the children of an index).
BEFORE = 2 * WINDOW + SKEW
AFTER = LONGEST + 2 * WINDOW + SKEW

Children = Mapping[str, Sequence[str]]
"""The digests that an index names, by its own. One that is missing, or names none, has unknown
children: a registry that tells no references tells none of an index either."""

TagAt = Callable[[Event], str | None]
"""The tag that pointed to the event's digest, in its repository, when it happened; None if not
exactly one did."""

TagFrom = Literal["event", "paired", "history"]


def own_tag(event: Event) -> str | None:
    """The tag that the event itself named."""
    return event.tag if event.tag_from == "event" else None


def by_time(event: Event) -> str:
    return event.position


def client_of(event: Event) -> tuple[str, str, str]:
    return (event.actor, event.address, event.user_agent)


def is_index(event: Event, children: Children) -> bool:
    return event.kind == "index" or event.digest in children


def neighbours(events: Sequence[Event], event: Event) -> tuple[Event | None, Event | None]:
    """The neighbours of `event` among others in order of time: the last before, the first after."""
    place = bisect_left(events, event.position, key=by_time)
    before = events[place - 1] if place else None
    after = events[place] if place < len(events) else None
    return before, after


def cause_after(events: Sequence[Event], event: Event) -> Event | None:
    """The first of others, in order of time, that is dated after `event` though it came before."""
    place = bisect_left(events, event.position, key=by_time)
    near = takewhile(lambda one: one.timestamp - event.timestamp <= SKEW, events[place:])
    return next((one for one in near if one.timestamp - event.timestamp <= skew(one, event)), None)


def skew(one: Event, other: Event) -> timedelta:
    """By how much the later of two may be dated before the earlier."""
    return BLINK if node_of(one) == node_of(other) else SKEW


def node_of(event: Event) -> tuple[str, str]:
    """Where the event was dated: two nodes, two clocks."""
    return event.source, event.instance
