"""Rows made from events: how each counts, and which came in time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from pymongo.collection import Collection

from app.rules.clients import OWN_CLIENT
from app.rules.events import position_at
from app.rules.kinds import is_supplement
from app.rules.sizes import MAX_SIZE
from app.rules.usage import COUNTED, PULL_PART, PUSH_PART, Calendar, Row, Span
from app.store.paging import Document, between, select

IN_TIME = timedelta(days=1)  # from when something happened until its event comes, at most

_PROJECTION = {
    **dict.fromkeys(("registry", "namespace", "repository", "tag", "digest", "action"), 1),
    **dict.fromkeys(("actor", "client", "address", "parent", "part_of"), 1),
    **dict.fromkeys(("timestamp", "content_size", "kind"), 1),
}
CAME = dict.fromkeys(("registry", "timestamp", "received_at"), 1)

Place = tuple[str, str, str]  # registry, namespace, repository


def count_rows(
    events: Collection[Document],
    calendar: Calendar,
    parts: Iterable[dict[str, Any]],
    span: Span,
    heard: set[Place] | None = None,
) -> Iterator[tuple[str, Row]]:
    """Rows made from the events of a time that `parts` select, each with its namespace.

    Where any event came within a day, counted or not, is added to `heard`.
    """
    counted: dict[tuple[Any, ...], list[Any]] = {}
    fields = _PROJECTION if heard is None else _PROJECTION | CAME
    for part in parts:
        for event in select(events, part, bounds_of(span), fields):
            if heard is not None and is_in_time(event):
                heard.add((event["registry"], event["namespace"], event["repository"]))
            action = _action_of(event)
            if action is None:
                continue
            key = (
                event["namespace"],
                calendar.day_of(event["timestamp"]),
                event["registry"],
                event["repository"],
                event.get("tag"),
                event.get("digest"),
                action,
                event["actor"],
                event.get("client", "other"),
                event.get("address", ""),
                is_supplement(event.get("kind", "image"), event.get("tag")),
            )
            sums = counted.setdefault(key, [0, event["timestamp"], 0])
            sums[0] += 1
            sums[1] = max(sums[1], event["timestamp"])
            sums[2] += event.get("content_size") or 0
    for key, (number, last, size) in counted.items():
        yield key[0], Row(*key[1:-1], number, last, min(size, MAX_SIZE), key[-1])


def bounds_of(span: Span) -> dict[str, Any]:
    """The query of the events of a time."""
    return between(position_at(span.start), position_at(span.end))


def is_in_time(event: Document) -> bool:
    """Whether an event, read with CAME, came soon enough to tell that its registry is heard."""
    return bool(event["received_at"] - event["timestamp"] <= IN_TIME)


def _action_of(event: Document) -> str | None:
    """How an event counts, or None."""
    action = event["action"]
    if event.get("client") == OWN_CLIENT or action not in COUNTED:
        return None
    if event.get("part_of"):
        return {"pull": PULL_PART, "push": PUSH_PART}.get(action) if event.get("parent") else None
    if event.get("kind") == "blob":  # a delete of what was never seen as a manifest
        return None
    return str(action)
