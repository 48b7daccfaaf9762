"""The events around others, as they are on record; the newest of each repository stay at hand.

Only who writes events may trust what is at hand: one projector at a time, which forgets it when it
takes over from another.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from app.rules.events import Event, position_at
from app.rules.folding import (
    AFTER,
    BEFORE,
    LONGEST,
    SKEW,
    UPLOAD,
    WINDOW,
    Children,
    own_tag,
    related,
)
from app.store.events import EventStore

Place = tuple[str, str]  # registry, repository
Who = tuple[str, ...]

MAX_PLACES = 5_000  # that are at hand
MAX_EVENTS = 100_000  # in all of them
MANY = 200  # of one place: what is too old is dropped from here on
# What may be folded with an event, or changes what that is folded with, is at most so much older.
PULLS = BEFORE + WINDOW + SKEW
PULLS_OF_INDEXES = BEFORE + LONGEST + WINDOW
CHANGES = 2 * (UPLOAD + 2 * SKEW)  # pushes and deletes
# The newest event may be so much newer than one that comes now.
LATE = 2 * WINDOW
# What many events say alike.
_SHARED = (
    "registry",
    "namespace",
    "repository",
    "tag",
    "digest",
    "parent",
    "media_type",
    "actor",
    "address",
    "user_agent",
    "source",
    "instance",
)


class Neighbourhood:
    """Events of one repository by who sent them and digest, complete from some time on."""

    def __init__(self, since: datetime, changes_since: datetime) -> None:
        self.since = since
        self.changes_since = changes_since
        self.number = 0
        self._trim_at = MANY
        self._events: dict[Who, dict[str, dict[str, Event]]] = {}
        self._indexes: defaultdict[Who, set[str]] = defaultdict(set)  # their digests

    def put(self, event: Event) -> None:
        """Take in an event, or what is derived of it now."""
        of_digest = self._events.setdefault(who(event), {}).setdefault(event.digest or "", {})
        self.number += event.id not in of_digest
        of_digest[event.id] = _lean(event)
        if event.kind == "index":
            self._indexes[who(event)].add(event.digest or "")

    def drop(self, event: Event) -> None:
        """Leave out an event that can no longer be folded with another one."""
        of_digest = self._events.get(who(event), {}).get(event.digest or "", {})
        self.number -= of_digest.pop(event.id, None) is not None

    def find_related(self, events: Sequence[Event], children: Children) -> dict[str, Event]:
        """Those that may be folded with `events`, by id.

        `children` are those of `find_indexes`, as far as they are known.
        """
        found: dict[str, Event] = {}
        indexes = {event.digest for event in events if event.kind == "index" and event.digest}
        for name, digests in _digests_by_who(events).items():
            by_digest = self._events.get(name, {})
            for digest in self._related(name, digests, indexes & digests, children):
                found |= by_digest.get(digest, {})
        return found

    def find_own_pushes(self, events: Iterable[Event]) -> dict[str, Event]:
        """The pushes, by id, of what those who pulled it may have read back themselves."""
        found: dict[str, Event] = {}
        for event in events:
            if event.action == "pull" and own_tag(event) is None:
                pushed = self._events.get(("push", event.actor), {})
                found |= pushed.get(event.digest or "", {})
        return found

    def find_indexes(self, events: Iterable[Event]) -> set[str]:
        """The digests of indexes that those who sent `events` pulled or pushed."""
        return {
            digest
            for name in _digests_by_who(events)
            for digest in self._indexes_of(name)
            if digest
        }

    def trim(self, newest: datetime) -> None:
        """Drop what is too old for an event that comes at most LATE after `newest`, if many are."""
        if self.number <= self._trim_at:
            return
        self.since = max(self.since, newest - LATE - PULLS)
        self.changes_since = max(self.changes_since, newest - LATE - CHANGES)
        of_indexes = newest - LATE - PULLS_OF_INDEXES
        events = [
            event
            for some in self._events.values()
            for one in some.values()
            for event in one.values()
        ]
        self._events, self.number = {}, 0
        self._indexes.clear()
        for event in events:
            is_longer = event.kind == "index" or event.parent
            since = of_indexes if is_longer else self.since
            changes_since = min(of_indexes, self.changes_since)
            if event.timestamp >= (changes_since if _is_change(event) else since):
                self.put(event)
        self._trim_at = max(MANY, self.number * 3 // 2)

    def _related(
        self, name: Who, digests: set[str], indexes: set[str], children: Children
    ) -> Iterable[str]:
        by_digest = self._events.get(name, {})
        if name[0] == "delete":
            return by_digest
        near = indexes | self._indexes_of(name)
        if name[0] == "push":
            near &= children.keys()
        wanted = related(digests, near, children)
        if wanted is None:
            return by_digest
        # While nobody had told the children of an index, others may have been taken for them.
        return wanted | {
            digest
            for digest, events in by_digest.items()
            if indexes and any(event.parent in indexes for event in events.values())
        }

    def _indexes_of(self, name: Who) -> set[str]:
        by_digest = self._events.get(name, {})
        return {
            digest
            for digest in self._indexes.get(name, ())
            if any(event.kind == "index" for event in by_digest.get(digest, {}).values())
        }


class Recent:
    """Neighbourhoods, read from the store where they are not at hand."""

    def __init__(self, events: EventStore) -> None:
        self._store = events
        self._at_hand: OrderedDict[Place, Neighbourhood] = OrderedDict()

    def forget(self) -> None:
        """Have nothing at hand any more."""
        self._at_hand.clear()

    def put(self, events: Iterable[Event]) -> None:
        """Take in events that were just stored, or what is derived of them now."""
        newest: dict[Place, datetime] = {}
        for event in events:
            of = place(event)
            if of in self._at_hand and not is_foldable(event):
                self._at_hand[of].drop(event)
            elif of in self._at_hand:
                self._at_hand[of].put(event)
                newest[of] = max(event.timestamp, newest.get(of, event.timestamp))
        for of, moment in newest.items():
            self._at_hand[of].trim(moment)
        self._drop_oldest()

    def around(self, events: Sequence[Event], newest: str) -> Neighbourhood:
        """What is on record around events of one place; see PULLS, CHANGES.

        `newest` is the position of the newest event on record.
        """
        of = place(events[0])
        first = min(event.timestamp for event in events)
        has_changes = any(map(_is_change, events))
        known = self._at_hand.get(of)
        if (
            known
            and first - PULLS >= known.since
            and (not has_changes or first - CHANGES >= known.changes_since)
        ):
            self._at_hand.move_to_end(of)
            return known
        last = max(event.timestamp for event in events)
        is_newest = position_at(last + AFTER) > newest
        found = self._read(of, first, None if is_newest else last, has_changes)
        if is_newest:
            self._keep(of, found)
        return found

    def _read(
        self, of: Place, first: datetime, last: datetime | None, has_changes: bool
    ) -> Neighbourhood:
        since = first - LATE - PULLS_OF_INDEXES
        changes_since = first - LATE - CHANGES
        found = Neighbourhood(
            first - LATE - PULLS,
            changes_since if has_changes else datetime.max.replace(tzinfo=first.tzinfo),
        )
        until = last and last + (CHANGES if has_changes else AFTER + PULLS_OF_INDEXES)
        for event in self._store.find_between(*of, changes_since if has_changes else since, until):
            if is_foldable(event) and (_is_change(event) or event.timestamp >= since):
                found.put(event)
        return found

    def _keep(self, of: Place, found: Neighbourhood) -> None:
        self._at_hand[of] = found
        self._at_hand.move_to_end(of)
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        total = sum(one.number for one in self._at_hand.values())
        while len(self._at_hand) > 1 and (total > MAX_EVENTS or len(self._at_hand) > MAX_PLACES):
            _, oldest = self._at_hand.popitem(last=False)
            total -= oldest.number


def place(event: Event) -> Place:
    """Where an event happened."""
    return event.registry, event.repository


def who(event: Event) -> Who:
    """Whose events may be folded with this one: a client's pulls, an account's pushes, deletes."""
    if event.action == "push":
        return ("push", event.actor)
    if event.action == "delete":
        return ("delete",)
    return _who_pulls(event)


def _who_pulls(event: Event) -> Who:
    return ("pull", event.actor, event.address, event.user_agent)


def is_foldable(event: Event) -> bool:
    """Whether an event can be folded with another one."""
    return event.action in ("push", "pull", "check", "delete")


def _is_change(event: Event) -> bool:
    return event.action in ("push", "delete")


def _lean(event: Event) -> Event:
    """`event` as it is kept at hand: what others say, too, stands in memory once.

    What folding does not ask for is left out.
    """
    shared = {name: sys.intern(value) for name in _SHARED if (value := getattr(event, name))}
    if event.action != "delete":
        shared["request_id"] = ""
    return msgspec.structs.replace(
        event, references=(), received_at=event.timestamp, host="", **shared
    )


def _digests_by_who(events: Iterable[Event]) -> Mapping[Who, set[str]]:
    found: defaultdict[Who, set[str]] = defaultdict(set)
    for event in events:
        found[who(event)].add(event.digest or "")
        if event.action == "push":  # its client may have read it back
            found[_who_pulls(event)].add(event.digest or "")
    return found
