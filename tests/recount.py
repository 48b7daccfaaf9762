"""What follows from events, once more: all at once, in the order of time, as slow as it reads.

Of the product only the parsing of an event is used. The rules of folding are those of
`folding_oracle`, which is too slow for all events of a registry: so it is given what one client did
in one repository without a pause that is longer than all that the rules join.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import folding_oracle

from app.rules.events import Event

PAUSE = timedelta(seconds=70)  # longer than from one part of a pull to the next, and clocks apart

Line = tuple[str, str | None, str | None, str]  # repository, tag, digest, action


class TagState(NamedTuple):
    """What a tag points to, or last pointed to, by whose push or pull."""

    digest: str | None
    by: str  # push or pull
    pushed_at: datetime | None
    pushed_by: str
    deleted_at: datetime | None


class Recount:
    """What follows from events.

    `folds` by id, `tags`, when each repository was `pushed` last, and `lines` of usage: how often
    something happened, without what is part of something else.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        self.events = sorted(events, key=lambda event: event.position)
        self.pushed: dict[str, datetime | None] = {}
        self._places: defaultdict[str, dict[str, TagState]] = defaultdict(dict)
        self._tag_then: dict[str, str | None] = {}
        for event in self.events:
            self._replay(event, self._places[event.repository])
        self.folds = self._fold()
        self.lines = Counter(self._lines())

    @property
    def tags(self) -> dict[tuple[str, str], TagState]:
        """Every tag by repository and name."""
        return {
            (repository, tag): state
            for repository, states in self._places.items()
            for tag, state in states.items()
        }

    def _replay(self, event: Event, tags: dict[str, TagState]) -> None:
        """Note which tag pointed to the event's digest, then let the event move tags."""
        pointing = [
            tag
            for tag, state in tags.items()
            if state.by == "push" and not state.deleted_at and state.digest == event.digest
        ]
        self._tag_then[event.id] = pointing[0] if len(pointing) == 1 else None
        self.pushed.setdefault(event.repository, None)
        if event.action == "push":
            self.pushed[event.repository] = event.timestamp
        if event.action == "delete":
            for tag, state in tags.items():
                if (tag == event.tag or state.digest == event.digest) and not state.deleted_at:
                    tags[tag] = state._replace(deleted_at=event.timestamp)
        elif event.tag and event.action == "push":
            tags[event.tag] = TagState(event.digest, "push", event.timestamp, event.actor, None)
        elif event.tag and tags.get(event.tag, _NEW).by == "pull":
            tags[event.tag] = TagState(event.digest, "pull", None, "", None)

    def _fold(self) -> dict[str, folding_oracle.Answer]:
        children = {
            event.digest: [reference.digest for reference in event.references]
            for event in self.events
            if event.kind == "index" and event.references
        }
        answers: dict[str, folding_oracle.Answer] = {}
        pushes = [event for event in self.events if event.action == "push"]
        for group in self._groups():
            beside = [] if group[0].action == "push" else pushes
            own = [
                push
                for push in beside
                if push.repository == group[0].repository
                and group[0].timestamp - PAUSE <= push.timestamp <= group[-1].timestamp + PAUSE
            ]
            folds = folding_oracle.fold(
                [*own, *group], children, lambda event: self._tag_then[event.id]
            )
            answers |= {event.id: folds[event.id] for event in group}
        return answers

    def _groups(self) -> Iterator[list[Event]]:
        """What may belong together."""
        of: defaultdict[Any, list[Event]] = defaultdict(list)
        for event in self.events:
            kind = "pull" if event.action == "check" else event.action
            client = (event.actor, event.address, event.user_agent) if kind == "pull" else ""
            of[event.repository, kind, client].append(event)
        for (_, kind, _), events in of.items():
            group = events[:1]
            for event in events[1:]:
                if kind == "pull" and event.timestamp - group[-1].timestamp > PAUSE:
                    yield group
                    group = []
                group.append(event)
            yield group

    def _lines(self) -> Iterator[Line]:
        for event in self.events:
            part_of, _, tag, _ = self.folds[event.id]
            if part_of is None:
                yield event.repository, tag, event.digest, event.action


_NEW = TagState(None, "pull", None, "", None)


def differing(found: Mapping[Any, Any], wanted: Mapping[Any, Any]) -> dict[Any, Any]:
    """What two dictionaries have under other keys, or otherwise: both values by key."""
    keys = sorted(found.keys() | wanted.keys(), key=str)
    pairs = {key: (found.get(key), wanted.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def tag_states(rows: Iterable[Any]) -> dict[tuple[str, str], TagState]:
    """Documents of tags as a Recount has them."""
    return {
        (row["repository"], row["tag"]): TagState(
            row["digest"],
            row["seen_by"],
            row.get("pushed_at"),
            row.get("pushed_by", ""),
            row["deleted_at"],
        )
        for row in rows
    }
