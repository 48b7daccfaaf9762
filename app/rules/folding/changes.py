"""Pushes of one account, what their clients read back, and deletes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta

from app.rules.events import Event
from app.rules.folding.terms import (
    BURST,
    LONGEST,
    SKEW,
    UPLOAD,
    WINDOW,
    Children,
    by_time,
    client_of,
    neighbours,
    own_tag,
    skew,
)


def fold_uploads(events: Sequence[Event], children: Children, belongs: dict[str, Event]) -> None:
    """Fold the pushes of one account, given in order of time."""
    parts = [event for event in events if own_tag(event) is None]
    by_digest: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_digest[event.digest or ""].append(event)
    digests = {event.digest or "" for event in parts}
    naming = {digest: [e for e in by_digest[digest] if own_tag(e)] for digest in digests}
    for digest, same in by_digest.items():
        for child in naming.keys() & set(children.get(digest, ())) - {digest}:
            naming[child] += same
    for indexes in naming.values():
        indexes.sort(key=by_time)
    for event in parts:
        before, after = neighbours(naming[event.digest or ""], event)
        if after and after.timestamp - event.timestamp <= UPLOAD:
            belongs[event.id] = after
        elif before and event.timestamp - before.timestamp <= SKEW:
            belongs[event.id] = before


def fold_readings(
    pulls: Sequence[Event], pushes: Sequence[Event], belongs: dict[str, Event]
) -> None:
    """Fold pulls without tag of one client with its own pushes, both given in order of time."""
    untagged: defaultdict[str | None, list[Event]] = defaultdict(list)
    tagged: defaultdict[str | None, list[Event]] = defaultdict(list)
    for push in pushes:
        (tagged if own_tag(push) else untagged)[push.digest].append(push)
    for pull in pulls:
        same, tags = untagged[pull.digest], tagged[pull.digest]
        if not any(-skew(push, pull) <= pull.timestamp - push.timestamp <= WINDOW for push in same):
            continue
        # The nearest before may be of the same node, and one further away of another.
        before = [
            push
            for push in tags
            if by_time(push) < by_time(pull) and pull.timestamp - push.timestamp <= skew(push, pull)
        ]
        _, after = neighbours(tags, pull)
        if after and after.timestamp - pull.timestamp <= SKEW:
            belongs[pull.id] = after
        elif before:
            belongs[pull.id] = before[-1]


def fold_deletes(events: Sequence[Event], belongs: dict[str, Event]) -> None:
    """Fold the deletes of all clients, given in order of time."""
    by_request: defaultdict[str, list[Event]] = defaultdict(list)
    by_client: defaultdict[tuple[str, str, str], list[Event]] = defaultdict(list)
    for event in events:
        if event.digest:
            by_client[client_of(event)].append(event)
            if event.request_id:
                by_request[event.request_id].append(event)
    for event in events:
        if own_tag(event) and not event.digest:
            whole = _nearest(by_request[event.request_id], event, LONGEST) or _nearest(
                by_client[client_of(event)], event, BURST
            )
            if whole:
                belongs[event.id] = whole


def _nearest(events: Sequence[Event], event: Event, within: timedelta) -> Event | None:
    """Of events in order of time the nearest to `event`, of two the earlier."""
    near = [
        (abs(other.timestamp - event.timestamp), other.position, other)
        for other in neighbours(events, event)
        if other and abs(other.timestamp - event.timestamp) <= within
    ]
    return min(near)[2] if near else None
