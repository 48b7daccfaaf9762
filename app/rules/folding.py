"""Which events are one pull, one push, one delete, one check. Pure.

A person pulls once, and a registry sends up to a dozen events. `fold` is given events of one
repository and says of each what it is part of, and which tag it concerns. The answer depends on
the set of events alone: not on the order they came in, nor on how often.

*Client* is account, address and user agent. Nodes of a registry have clocks of their own, so what
caused an event may be dated up to SKEW after it.

Pulls and checks of one client:

1. A check with a tag (HEAD by tag) and a pull (GET) of the same digest at most WINDOW later are one
   pull with that tag. One check serves one pull. Of the possible pairs the nearest in time is taken
   first, then the nearest of what is left; of two that are as near, the one whose check stands
   before. A check that is dated after the pull, by up to SKEW, counts as so far away as it is where
   another node saw it; where the same node did, it comes after all others. A pull that names a tag
   itself takes only a check of that tag.
2. The pull of an index takes in pulls and checks of its children, and of their children, that name
   no tag and were not paired: from SKEW before it to WINDOW after the last one it took in, and to
   LONGEST after itself. Of several such pulls the newest before the child takes it, else the first
   after it. What an index that was taken in would take falls to the one that took it. Between a
   check and the pull of a child, the index is nearer than the check.
3. A check without tag is part of the next pull of its digest, at most WINDOW later, else of the one
   before, at most SKEW earlier, where another node saw that.
4. Where nobody told the children of an index: if from WINDOW before to WINDOW after it the client
   pulled, beside the index, one single digest, which is no index, and that without tag (its own or
   one that pointed to it) and check, the digest is taken for its child, from SKEW before to WINDOW
   after. Of several such pulls of an index the newest before takes it, else the first after.
5. A check that is left is a check. A pull, or check, that is left without tag has the tag that
   pointed to its digest at that time, if exactly one did.

Pushes of one account: a push without tag is part of the first push of an index that names it, at
most UPLOAD later (else the last one at most SKEW before).

Deletes: by tag, part of the nearest delete by digest with the same request id, at most LONGEST
away, else of the nearest by the same client within BURST.

What is part of a part is part of the whole.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
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
"""The digests that an index names, by its own. One that is missing, or names none, has unknown
children: a registry that tells no references tells none of an index either."""

TagAt = Callable[[Event], str | None]
"""The tag that pointed to the event's digest, in its repository, when it happened; None if not
exactly one did."""

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
        _Downloads(of_client, children, belongs, paired).fold(tag_at)
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
    tag = own_tag(event)
    whole = _whole(event, belongs)
    if whole is not event:
        parent = None if event.action == "delete" or whole.digest == event.digest else whole.digest
        return Fold(whole.id, parent, tag, "event" if tag else None)
    if tag:
        return Fold(tag=tag, tag_from="event")
    if event.id in paired:
        return Fold(tag=paired[event.id], tag_from="paired")
    if event.action in ("pull", "check"):
        tag = tag_at(event)
    return Fold(tag=tag, tag_from="history" if tag else None)


def _whole(event: Event, belongs: Mapping[str, Event]) -> Event:
    path = [event]
    while path[-1].id in belongs:
        whole = belongs[path[-1].id]
        if whole in path:  # manifests that claim to hold each other: the first is the whole
            return min(path[path.index(whole) :], key=_by_time)
        path.append(whole)
    return path[-1]


def _by_time(event: Event) -> str:
    return event.position


def _client(event: Event) -> tuple[str, str, str]:
    return (event.actor, event.address, event.user_agent)


# Pulls and checks


class _Downloads:
    """The pulls and checks of one client, given in order of time, while they are folded."""

    def __init__(
        self,
        events: Sequence[Event],
        children: Children,
        belongs: dict[str, Event],
        paired: dict[str, str],
    ) -> None:
        self._events = events
        self._belongs = belongs
        self._paired = paired
        self._held: dict[str, set[str]] = {}  # by index that was pulled: what it holds
        self._holding: defaultdict[str, list[Event]] = defaultdict(list)  # by child: their pulls
        seen = {event.digest for event in events}
        for event in events:
            if event.action == "pull" and event.digest and _is_index(event, children):
                if event.digest not in self._held:
                    self._held[event.digest] = _descendants(event.digest, children) & seen
                for child in self._held[event.digest]:
                    self._holding[child].append(event)
        self._unknown = {index for index in self._held if not children.get(index)}

    def fold(self, tag_at: TagAt) -> None:
        self._pair()
        self._take_in()
        self._attach_checks()
        if self._unknown:
            self._guess_children(tag_at)

    def _pair(self) -> None:
        """Rule 1."""
        by_digest: defaultdict[str, list[Event]] = defaultdict(list)
        for event in self._events:
            if event.digest and (event.action == "pull" or own_tag(event)):
                by_digest[event.digest].append(event)
        for digest, same in by_digest.items():
            if len({event.action for event in same}) == 1:
                continue
            holding = [index.position for index in self._holding.get(digest, ())]
            for check, pull in _nearest_pairs(same, holding):
                self._belongs[check.id] = pull
                self._paired[pull.id] = own_tag(check) or ""

    def _take_in(self) -> None:
        """Rule 2."""
        if not self._holding:
            return
        takings: defaultdict[str, list[_Taking]] = defaultdict(list)  # by child, the newest last
        indexes: defaultdict[str, list[Event]] = defaultdict(list)  # by child, in order of time
        left: list[Event] = []
        for event in self._events:
            digest = event.digest or ""
            if digest in self._holding and self._is_free(event):
                while takings[digest] and not takings[digest][-1].takes(event):
                    takings[digest].pop()  # nor would it take a later one
                if takings[digest]:
                    self._belongs[event.id] = takings[digest][-1].take(event)
                    continue
                left.append(event)
            if event.action == "pull" and digest in self._held:
                taking = _Taking(event)
                for child in self._held[digest]:
                    takings[child].append(taking)
                    indexes[child].append(event)
        for event in left:
            _, index = _around(indexes[event.digest or ""], event)
            if index and index.timestamp - event.timestamp <= SKEW:
                self._belongs[event.id] = index

    def _attach_checks(self) -> None:
        """Rule 3."""
        pulls: defaultdict[str | None, list[Event]] = defaultdict(list)
        for event in self._events:
            if event.action == "pull":
                pulls[event.digest].append(event)
        for check in self._events:
            if check.action != "check" or not self._is_free(check):
                continue
            before, after = _around(pulls[check.digest], check)
            if after and after.timestamp - check.timestamp <= WINDOW:
                self._belongs[check.id] = after
            elif (
                before
                and check.timestamp - before.timestamp <= SKEW
                and _node(check) != _node(before)
            ):
                self._belongs[check.id] = before

    def _guess_children(self, tag_at: TagAt) -> None:
        """Rule 4."""
        pulls = [e for e in self._events if e.action == "pull" and e.id not in self._belongs]
        guesses: defaultdict[str | None, list[Event]] = defaultdict(list)
        for index, child in self._guesses(pulls, tag_at):
            guesses[child].append(index)
        for pull in pulls:
            before, after = _around(guesses[pull.digest], pull)
            if before and pull.timestamp - before.timestamp <= WINDOW:
                self._belongs[pull.id] = before
            elif after and after.timestamp - pull.timestamp <= SKEW:
                self._belongs[pull.id] = after

    def _guesses(self, pulls: Sequence[Event], tag_at: TagAt) -> Iterator[tuple[Event, str | None]]:
        """The pulls of an index with unknown children, each with what is taken for its child."""
        marks = [(pull.digest, self._may_be_child(pull, tag_at)) for pull in pulls]
        near: Counter[tuple[str | None, bool]] = Counter()  # within WINDOW of the index
        begin = end = 0
        for index in pulls:
            if index.digest not in self._unknown:
                continue
            while end < len(pulls) and pulls[end].timestamp <= index.timestamp + WINDOW:
                near[marks[end]] += 1
                end += 1
            while pulls[begin].timestamp < index.timestamp - WINDOW:
                near[marks[begin]] -= 1
                if not near[marks[begin]]:
                    del near[marks[begin]]
                begin += 1
            if len(near) == 2:  # the index itself and one other
                yield from ((index, digest) for digest, may_be_child in near if may_be_child)

    def _may_be_child(self, pull: Event, tag_at: TagAt) -> bool:
        return pull.digest not in self._held and self._is_free(pull) and tag_at(pull) is None

    def _is_free(self, event: Event) -> bool:
        """Whether it names no tag and is neither paired nor part of anything yet."""
        return (
            own_tag(event) is None
            and event.id not in self._belongs
            and event.id not in self._paired
        )


class _Taking:
    """The pull of an index, while it may take in its children."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self._last = event.timestamp

    def takes(self, child: Event) -> bool:
        return (
            child.timestamp <= self._last + WINDOW
            and child.timestamp <= self._event.timestamp + LONGEST
        )

    def take(self, child: Event) -> Event:
        self._last = child.timestamp
        return self._event


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


def _around(events: Sequence[Event], event: Event) -> tuple[Event | None, Event | None]:
    """The neighbours of `event` among others in order of time: the last before, the first after."""
    place = bisect_left(events, event.position, key=_by_time)
    before = events[place - 1] if place else None
    after = events[place] if place < len(events) else None
    return before, after


def _node(event: Event) -> tuple[str, str]:
    """Where the event was dated: two nodes, two clocks."""
    return event.source, event.instance


# Pairs of a check and a pull

_Pair = tuple[bool, timedelta, bool, int, int]
"""How near they are, then their numbers, the first's negative: inner pairs come before outer."""


def _nearest_pairs(
    events: Sequence[Event], holding: Sequence[str]
) -> Iterator[tuple[Event, Event]]:
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
        if distance > (SKEW if self._late else WINDOW):
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
        for node in {_node(events[number]) for number in pulled}:
            here = [number for number in pulled if _node(events[number]) == node]
            same = [number for number in checked if _node(events[number]) == node]
            other = [number for number in checked if _node(events[number]) != node]
            yield _Row(events, here + same, late=True, last=True)
            yield _Row(events, here + other, late=True)


# Pushes


def _fold_uploads(events: Sequence[Event], children: Children, belongs: dict[str, Event]) -> None:
    """Fold the pushes of one account, given in order of time."""
    parts = [event for event in events if own_tag(event) is None]
    by_digest: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_digest[event.digest or ""].append(event)
    naming: dict[str, list[Event]] = {event.digest or "": [] for event in parts}
    for digest, same in by_digest.items():
        for child in naming.keys() & set(children.get(digest, ())) - {digest}:
            naming[child] += same
    for indexes in naming.values():
        indexes.sort(key=_by_time)
    for event in parts:
        before, after = _around(naming[event.digest or ""], event)
        if after and after.timestamp - event.timestamp <= UPLOAD:
            belongs[event.id] = after
        elif before and event.timestamp - before.timestamp <= SKEW:
            belongs[event.id] = before


# Deletes


def _fold_deletes(events: Sequence[Event], belongs: dict[str, Event]) -> None:
    """Fold the deletes of all clients, given in order of time."""
    by_request: defaultdict[str, list[Event]] = defaultdict(list)
    by_client: defaultdict[tuple[str, str, str], list[Event]] = defaultdict(list)
    for event in events:
        if event.digest:
            by_client[_client(event)].append(event)
            if event.request_id:
                by_request[event.request_id].append(event)
    for event in events:
        if own_tag(event) and not event.digest:
            whole = _nearest(by_request[event.request_id], event, LONGEST) or _nearest(
                by_client[_client(event)], event, BURST
            )
            if whole:
                belongs[event.id] = whole


def _nearest(events: Sequence[Event], event: Event, within: timedelta) -> Event | None:
    """Of events in order of time the nearest to `event`, of two the earlier."""
    near = [
        (abs(other.timestamp - event.timestamp), other.position, other)
        for other in _around(events, event)
        if other and abs(other.timestamp - event.timestamp) <= within
    ]
    return min(near)[2] if near else None
