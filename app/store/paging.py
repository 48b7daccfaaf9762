"""Keyset pages, newest first, that cost the same on a small and on a large collection."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

import msgspec
from pymongo.collection import Collection

from app.events import position_at

Document = dict[str, Any]
Query = Mapping[str, Any]
Item = TypeVar("Item")

# The embedded database reads every document that the bounds of an index match before it applies a
# limit, so a newest-first page asks for a short span first; on mongod the same bounds cost nothing.
SPANS = (timedelta(hours=1), timedelta(days=1), timedelta(days=7), timedelta(days=30))


class Page(msgspec.Struct, Generic[Item]):
    """One page of a list; `next` is the cursor of the page after it, None on the last one."""

    items: list[Item]
    next: str | None = None


class Count(msgspec.Struct, frozen=True):
    """A number of matches: exact, or `at_least` when counting stopped at the cap."""

    number: int
    at_least: bool = False


def all_of(*conditions: Query) -> dict[str, Any]:
    """The conjunction of queries, flat wherever they name different fields.

    Flat matters: the embedded database finds an index for the fields of a flat query only, and
    takes the one that begins with the first of them.
    """
    merged: dict[str, Any] = {}
    rest: list[Query] = []
    for condition in conditions:
        if condition.keys() & merged.keys():
            rest.append(condition)
        else:
            merged.update(condition)
    return {**merged, "$and": rest} if rest else merged


def between(lower: str | None, upper: str | None) -> dict[str, Any]:
    """The query `lower <= position < upper`; None leaves a side open."""
    bounds = {"$gte": lower, "$lt": upper}
    given = {operator: value for operator, value in bounds.items() if value is not None}
    return {"position": given} if given else {}


def find_newest(
    collection: Collection[Document],
    queries: Iterable[Query],
    *,
    lower: str | None,
    upper: str | None,
    limit: int,
) -> list[Document]:
    """The `limit` newest documents that match any of the disjoint `queries`, by `position`.

    `lower` is inclusive, `upper` (the cursor of a page) exclusive.
    """
    found: list[Document] = []
    for query in queries:
        found += _find_newest_of(collection, query, lower, upper, limit)
    found.sort(key=lambda document: document["position"], reverse=True)
    return found[:limit]


def _find_newest_of(
    collection: Collection[Document],
    query: Query,
    lower: str | None,
    upper: str | None,
    limit: int,
) -> list[Document]:
    anchor = _moment_of(upper)
    for start in [*(_start(anchor, span) for span in SPANS), lower]:
        start = max(start or "", lower or "") or None
        bounded = all_of(query, between(start, upper))
        documents = list(collection.find(bounded).sort("position", -1).limit(limit))
        if len(documents) == limit or start == lower:
            return documents
    return []


def count_newest(
    collection: Collection[Document],
    queries: Iterable[Query],
    *,
    lower: str | None,
    upper: str | None,
    cap: int,
) -> Count:
    """How many documents match any of the disjoint `queries`, exact up to `cap`."""
    number = 0
    for query in queries:
        end, span = upper, timedelta(hours=1)
        anchor = _moment_of(upper)
        while number <= cap:
            start = max(_start(anchor, span), lower or "")
            is_last = span > timedelta(days=3650) or start == lower
            bounds = between(lower if is_last else start, end)
            number += collection.count_documents(all_of(query, bounds), limit=cap + 1)
            if is_last:
                break
            end, span = start, span * 4
    return Count(min(number, cap), number > cap)


def _start(anchor: datetime, span: timedelta) -> str:
    try:
        return position_at(anchor - span)
    except OverflowError:
        return ""


def _moment_of(position: str | None) -> datetime:
    try:
        return datetime.fromisoformat((position or "")[:19]).replace(tzinfo=UTC)
    except ValueError:
        return datetime.now(UTC)


def chunks(values: Sequence[str], size: int = 100) -> Iterable[list[str]]:
    """`values` in lists of at most `size`: embedded, `$in` costs the square of its length."""
    return (list(values[start : start + size]) for start in range(0, len(values), size))
