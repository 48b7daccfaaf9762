"""Which events are one pull, one push, one delete, one check. Pure.

A person pulls once, and a registry sends up to a dozen events. `fold` is given events of one
repository and says of each what it is part of, and which tag it concerns. The answer depends on
the set of events alone: not on the order they came in, nor on how often.

*Client* is account, address and user agent. Nodes of a registry have clocks of their own, so what
caused an event may be dated up to SKEW after it.

Pulls and checks of one client:

1. A check with a tag (HEAD by tag) and a pull (GET) of the same digest at most WINDOW later are one
   pull with that tag. One check serves one pull. Of the possible pairs the nearest in time is taken
   first, then the nearest of what is left. A check that is dated after the pull counts as so far
   away as it is where another node saw it; where the same node did, it comes after every check
   that stands before. A pull that names a tag itself takes only a check of that tag.
2. The pull of an index takes in pulls and checks of its children, and of their children, that name
   no tag and were not paired: from SKEW before it to WINDOW after the last one it took in, and to
   LONGEST after itself. Of several such pulls the newest before the child takes it. Between a check
   and the pull of a child, the index is nearer than the check.
3. A check without tag is part of the next pull of its digest, at most WINDOW later.
4. Where nobody told the children of an index: the pulls without tag and check of one single digest
   are taken for its child, if the client pulled nothing else from WINDOW before the index to WINDOW
   after it.
5. A check that is left is a check. A pull, or check, that is left without tag has the tag that
   pointed to its digest at that time, if exactly one did.

Pushes of one account: a push without tag is part of the first push of an index that names it, at
most UPLOAD later (else the last one at most SKEW before).

Deletes: by tag, part of the delete by digest with the same request id, else of the nearest by the
same client within BURST.

What is part of a part is part of the whole.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from app.rules.events import Event

SKEW = timedelta(seconds=5)
WINDOW = timedelta(seconds=60)
LONGEST = timedelta(minutes=10)
UPLOAD = timedelta(hours=1)
BURST = timedelta(seconds=2)

# A new event changes the fold of events from this long before it to so long after it; what these
# are folded into depends on events as far again from them (LONGEST for the children of an index).
BEFORE = 2 * WINDOW + SKEW
AFTER = LONGEST + 2 * WINDOW + SKEW

Children = Mapping[str, Sequence[str]]
"""The digests that an index names, by its own; an index that is missing has unknown children."""

TagAt = Callable[[Event], str | None]
"""The tag that pointed to the event's digest, in its repository, when it happened; None if not
exactly one did."""

Names = Mapping[str, set[str]]
"""By digest of an index that a client pulled: the digests of its children, and of theirs."""

TagFrom = Literal["event", "paired", "history"]


class Fold(NamedTuple):
    """What is derived of one event.

    `part_of` is the id of the event that stands for what the client did, None where it is this one;
    `parent` the digest of the index that it was pulled or pushed with.
    """

    part_of: str | None = None
    parent: str | None = None
    tag: str | None = None
    tag_from: TagFrom | None = None


def fold(events: Iterable[Event], children: Children, tag_at: TagAt) -> dict[str, Fold]:
    """Fold events of one registry and repository; returns the fold of each, by its id.

    Of two events with one id the first in order of time counts.
    """
    once: dict[str, Event] = {}
    for event in sorted(events, key=_by_time):
        once.setdefault(event.id, event)
    downloads: defaultdict[tuple[str, str, str], list[Event]] = defaultdict(list)
    uploads: defaultdict[str, list[Event]] = defaultdict(list)
    deletes: list[Event] = []
    for event in once.values():
        if event.action in ("pull", "check"):
            downloads[_client(event)].append(event)
        elif event.action == "push":
            uploads[event.actor].append(event)
        elif event.action == "delete":
            deletes.append(event)
    belongs: dict[str, Event] = {}
    paired: dict[str, str] = {}
    for of_client in downloads.values():
        _fold_downloads(of_client, children, tag_at, belongs, paired)
    for of_actor in uploads.values():
        _fold_uploads(of_actor, children, belongs)
    _fold_deletes(deletes, belongs)
    return {event.id: _result(event, belongs, paired, tag_at) for event in once.values()}


def related(digests: Iterable[str], indexes: Iterable[str], children: Children) -> set[str] | None:
    """The digests whose events may be folded with those of `digests`, themselves included.

    `indexes` are those that the client pulled, or the account pushed, near by. None is any digest:
    of one of the indexes nobody told the children.
    """
    found = set(digests)
    families = []
    for index in indexes:
        names = _descendants(index, children)
        if not names:
            return None
        families.append(names | {index})
    grew = True
    while grew:
        grew = False
        for family in families:
            if not family.isdisjoint(found) and not family <= found:
                found |= family
                grew = True
    return found


def own_tag(event: Event) -> str | None:
    """The tag that the event itself named."""
    return event.tag if event.tag_from == "event" else None


def _result(
    event: Event, belongs: Mapping[str, Event], paired: Mapping[str, str], tag_at: TagAt
) -> Fold:
    tag, tag_from = own_tag(event), "event"
    whole = _whole(event, belongs)
    if tag is None and event.id in paired:
        tag, tag_from = paired[event.id], "paired"
    if whole is not event:
        parent = None if event.action == "delete" or whole.digest == event.digest else whole.digest
        return Fold(whole.id, parent, tag, "event" if tag else None)
    if tag is None and event.action in ("pull", "check"):
        tag, tag_from = tag_at(event), "history"
    return Fold(None, None, tag, tag_from if tag else None)  # type: ignore[arg-type]


def _whole(event: Event, belongs: Mapping[str, Event]) -> Event:
    seen = {event.id}
    while event.id in belongs:
        event = belongs[event.id]
        if event.id in seen:  # manifests that claim to hold each other
            return min((belongs[id] for id in seen), key=_by_time)
        seen.add(event.id)
    return event


def _by_time(event: Event) -> str:
    return event.position


def _client(event: Event) -> tuple[str, str, str]:
    return (event.actor, event.address, event.user_agent)


# Pulls and checks


class _Taking:
    """The pull of an index, while it may take in its children."""

    def __init__(self, event: Event, names: set[str]) -> None:
        self.event = event
        self.names = names
        self.last = event.timestamp

    def takes(self, event: Event) -> bool:
        return (
            event.digest in self.names
            and event.timestamp <= self.last + WINDOW
            and event.timestamp <= self.event.timestamp + LONGEST
        )


def _fold_downloads(
    events: Sequence[Event],
    children: Children,
    tag_at: TagAt,
    belongs: dict[str, Event],
    paired: dict[str, str],
) -> None:
    """Fold the pulls and checks of one client, given in order of time."""
    names: Names = {
        event.digest: _descendants(event.digest, children)
        for event in events
        if event.action == "pull" and event.digest and _is_index(event, children)
    }
    _pair(events, names, belongs, paired)
    _take_in(events, names, belongs, paired)
    _attach_checks(events, belongs)
    _guess_children(events, names, tag_at, belongs, paired)


def _is_index(event: Event, children: Children) -> bool:
    return event.kind == "index" or event.digest in children


def _descendants(digest: str, children: Children) -> set[str]:
    """The children of an index, and theirs; empty where nobody told them."""
    found: set[str] = set()
    waiting = list(children.get(digest, ()))
    while waiting:
        child = waiting.pop()
        if child not in found and child != digest:
            found.add(child)
            waiting.extend(children.get(child, ()))
    return found


def _pair(
    events: Sequence[Event],
    names: Names,
    belongs: dict[str, Event],
    paired: dict[str, str],
) -> None:
    """Rule 1: by digest, first the pulls that name a tag, then the others."""
    by_digest: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.digest and (event.action == "pull" or own_tag(event)):
            by_digest[event.digest].append(event)
    for digest, same in by_digest.items():
        if len({event.action for event in same}) < 2:
            continue
        holding = [
            event.timestamp
            for event in events
            if event.action == "pull" and digest in names.get(event.digest or "", ())
        ]
        tags = {own_tag(event) for event in same if event.action == "pull"} - {None}
        for tag in tags:
            of_tag = [event for event in same if own_tag(event) == tag]
            belongs |= ((check.id, pull) for check, pull in _Row(of_tag, []).pairs())
        left = [
            event
            for event in same
            if event.id not in belongs and (event.action == "check" or own_tag(event) is None)
        ]
        for check, pull in _Row(left, holding).pairs():
            belongs[check.id] = pull
            paired[pull.id] = own_tag(check) or ""


class _Row:
    """Checks and pulls of one digest, in order of time, to be paired with their neighbours.

    `holding` are the times of pulls of an index that has the digest as a child.
    """

    def __init__(self, events: Sequence[Event], holding: Sequence[datetime]) -> None:
        self._events = events
        self._holding = holding
        self._before = list(range(-1, len(events) - 1))
        self._after = list(range(1, len(events) + 1))
        self._possible: list[tuple[timedelta, int, int]] = []

    def pairs(self) -> Iterator[tuple[Event, Event]]:
        """Each check with its pull, the nearest pair first."""
        for number in range(len(self._events)):
            self._consider(number, number + 1)
        gone: set[int] = set()
        while self._possible:
            _, first, second = heapq.heappop(self._possible)
            if first in gone or second in gone:
                continue
            gone |= {first, second}
            one, other = self._events[first], self._events[second]
            yield (one, other) if one.action == "check" else (other, one)
            self._close_gap(self._before[first], self._after[second])

    def _close_gap(self, first: int, second: int) -> None:
        if first >= 0:
            self._after[first] = second
        if second < len(self._events):
            self._before[second] = first
        self._consider(first, second)

    def _consider(self, first: int, second: int) -> None:
        if first >= 0 and second < len(self._events):
            distance = self._distance(self._events[first], self._events[second])
            if distance is not None:
                heapq.heappush(self._possible, (distance, first, second))

    def _distance(self, first: Event, second: Event) -> timedelta | None:
        """How far apart the two are; None where they are no pair. `first` is the earlier one."""
        if first.action == second.action:
            return None
        distance = second.timestamp - first.timestamp
        if first.action == "check":
            is_cut = bisect_right(self._holding, second.timestamp) > bisect_right(
                self._holding, first.timestamp
            )
            return None if distance > WINDOW or is_cut else distance
        if distance > SKEW:
            return None
        return distance if _may_differ(first, second) else WINDOW + distance


def _take_in(
    events: Sequence[Event],
    names: Names,
    belongs: dict[str, Event],
    paired: Mapping[str, str],
) -> None:
    """Rule 2."""
    if not names:
        return
    takings: list[_Taking] = []
    left: list[Event] = []
    for event in events:
        if _is_free(event, belongs, paired):
            taking = next((one for one in reversed(takings) if one.takes(event)), None)
            if taking:
                belongs[event.id] = taking.event
                taking.last = event.timestamp
                continue
            left.append(event)
        if event.action == "pull" and event.digest in names:
            takings.append(_Taking(event, names[event.digest or ""]))
    for event in left:
        for taking in takings:
            ahead = taking.event.timestamp - event.timestamp
            if event.digest in taking.names and timedelta(0) <= ahead <= SKEW:
                belongs[event.id] = taking.event
                break


def _is_free(event: Event, belongs: Mapping[str, Event], paired: Mapping[str, str]) -> bool:
    """Whether it names no tag and is neither paired nor part of anything yet."""
    return own_tag(event) is None and event.id not in belongs and event.id not in paired


def _attach_checks(events: Sequence[Event], belongs: dict[str, Event]) -> None:
    """Rule 3."""
    checks = [
        event
        for event in events
        if event.action == "check" and own_tag(event) is None and event.id not in belongs
    ]
    if not checks:
        return
    pulls: defaultdict[str | None, list[Event]] = defaultdict(list)
    for event in events:
        if event.action == "pull":
            pulls[event.digest].append(event)
    for check in checks:
        same = pulls[check.digest]
        place = bisect_left(same, check.position, key=_by_time)
        if place < len(same) and same[place].timestamp - check.timestamp <= WINDOW:
            belongs[check.id] = same[place]
        elif (
            place
            and check.timestamp - same[place - 1].timestamp <= SKEW
            and _may_differ(check, same[place - 1])
        ):
            belongs[check.id] = same[place - 1]


def _may_differ(one: Event, other: Event) -> bool:
    """Whether the clocks of the two may differ."""
    return (one.source, one.instance) != (other.source, other.instance)


def _guess_children(
    events: Sequence[Event],
    names: Names,
    tag_at: TagAt,
    belongs: dict[str, Event],
    paired: Mapping[str, str],
) -> None:
    """Rule 4."""
    for index in [e for e in events if e.action == "pull" and e.digest in names]:
        if names[index.digest or ""] or index.id in belongs:
            continue
        around = [
            event
            for event in events
            if event.action == "pull"
            and event is not index
            and event.id not in belongs
            and index.timestamp - WINDOW <= event.timestamp <= index.timestamp + WINDOW
        ]
        near = [event for event in around if event.timestamp >= index.timestamp - SKEW]
        if (
            around == near
            and len({event.digest for event in near}) == 1
            and near[0].digest != index.digest
            and all(_is_free(e, belongs, paired) and tag_at(e) is None for e in near)
            and all(e.digest not in names for e in near)
        ):
            belongs.update((event.id, index) for event in near)


# Pushes


def _fold_uploads(events: Sequence[Event], children: Children, belongs: dict[str, Event]) -> None:
    """Fold the pushes of one account, given in order of time."""
    naming: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        for child in children.get(event.digest or "", ()):
            naming[child].append(event)
    for event in events:
        if own_tag(event) is not None:
            continue
        indexes = naming.get(event.digest or "", [])
        place = bisect_right(indexes, event.position, key=_by_time)
        if place < len(indexes) and indexes[place].timestamp - event.timestamp <= UPLOAD:
            belongs[event.id] = indexes[place]
        elif place and event.timestamp - indexes[place - 1].timestamp <= SKEW:
            belongs[event.id] = indexes[place - 1]


# Deletes


def _fold_deletes(events: Sequence[Event], belongs: dict[str, Event]) -> None:
    by_digest = [event for event in events if event.digest]
    for event in events:
        if event.digest or not own_tag(event):
            continue
        same = [
            delete
            for delete in by_digest
            if event.request_id and delete.request_id == event.request_id
        ] or [
            delete
            for delete in by_digest
            if _client(delete) == _client(event)
            and abs(delete.timestamp - event.timestamp) <= BURST
        ]
        if same:
            belongs[event.id] = min(
                same, key=lambda d: (abs(d.timestamp - event.timestamp), d.position)
            )
