"""Keyset pages, newest first, that cost the same on a small and on a large collection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec
from pymongo.collection import Collection
from pymongo.errors import AutoReconnect, CursorNotFound

from app.rules.events import position_at

Document = dict[str, Any]
Query = Mapping[str, Any]
Item = TypeVar("Item")

# The embedded database reads every document that the bounds of an index match before it applies a
# limit, so what is newest is read in slices of time, the next as long as it takes to find what is
# still wanted if things go on as densely. On mongod slices cost next to nothing.
LEADING = ("repository", "digest", "digests", "actor", "namespace")  # of indexes, the best first
FIRST_SLICE = timedelta(minutes=10)
GROWTH = 2  # a slice is at most so many times the one before it: that may have been a quiet one
MARGIN = 1.25
LONGEST_SLICE = timedelta(days=3650)
BATCH = 500  # documents that a cursor brings at once


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


def stages(query: Query, bounds: Query) -> list[dict[str, Any]]:
    """The stages of an aggregation that select `query` within `bounds`.

    The first has one field of LEADING and the bounds, and nothing else: the embedded database uses
    the bounds only where a query names just the fields of an index. mongod joins the stages.
    """
    lead = next((field for field in LEADING if isinstance(query.get(field), str)), None)
    head = {} if lead is None else {lead: query[lead]}
    rest = {key: value for key, value in query.items() if key not in head}
    return [{"$match": {**head, **bounds}}, *([{"$match": rest}] if rest else [])]


def select(
    collection: Collection[Document], query: Query, bounds: Query, fields: Query | None = None
) -> Iterable[Document]:
    """What `query` selects within `bounds`, in no order; see stages."""
    first, *rest = stages(query, bounds)
    if not rest:
        return collection.find(first["$match"], fields)
    shape = [{"$project": fields}] if fields else []
    return collection.aggregate([first, *rest, *shape])


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
        _read_newest(partial(_find_into, found, collection, query), lower, upper, limit)
    found.sort(key=lambda document: document["position"], reverse=True)
    return found[:limit]


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
        number += _read_newest(partial(_count, collection, query), lower, upper, cap + 1 - number)
        if number > cap:
            return Count(cap, at_least=True)
    return Count(number)


def find_oldest(
    collection: Collection[Document], query: Query, after: str = ""
) -> Iterator[Document]:
    """What `query` selects and has a `position` after `after`, the oldest first.

    It is read once, by one cursor: each new query would cost the embedded database all that is
    left. Where the database closes the cursor, another one goes on behind what came.
    """
    while True:
        began = after
        bounds = {"position": {"$gt": after}}
        try:
            for document in (
                collection.find({**query, **bounds}).sort("position", 1).batch_size(BATCH)
            ):
                after = document["position"]
                yield document
            return
        except (AutoReconnect, CursorNotFound):
            if after == began:
                raise


def _find_into(
    found: list[Document],
    collection: Collection[Document],
    query: Query,
    bounds: Query,
    wanted: int,
) -> int:
    before = len(found)
    order: list[Document] = [{"$sort": {"position": -1}}, {"$limit": wanted}]
    found += collection.aggregate([*stages(query, bounds), *order])
    return len(found) - before


def _count(collection: Collection[Document], query: Query, bounds: Query, wanted: int) -> int:
    counted = [*stages(query, bounds), {"$limit": wanted}, {"$count": "number"}]
    return sum(row["number"] for row in collection.aggregate(counted))


def _read_newest(
    read: Callable[[Query, int], int], lower: str | None, upper: str | None, wanted: int
) -> int:
    """Have slice after slice read, the newest first, until there are `wanted`; returns how many.

    `read` is given bounds and how many are still wanted, and says how many it found.
    """
    end, moment, length, number = upper, _moment_of(upper), FIRST_SLICE, 0
    while True:
        start = max(_before(moment, length), lower or "")
        is_last = length > LONGEST_SLICE or start == (lower or "")
        found = read(between(lower if is_last else start, end), wanted - number)
        number += found
        if is_last or number >= wanted:
            return number
        end, moment = start, _moment_of(start)
        needed = MARGIN * (wanted - number) / found if found else GROWTH
        length *= min(GROWTH, max(1.0, needed))


def _before(moment: datetime, length: timedelta) -> str:
    try:
        return position_at(moment - length)
    except OverflowError:
        return ""


def _moment_of(position: str | None) -> datetime:
    try:
        return datetime.fromisoformat((position or "")[:19]).replace(tzinfo=UTC)
    except ValueError:
        return datetime.now(UTC)


def chunks(values: Sequence[str], size: int = 25) -> Iterable[list[str]]:
    """`values` in lists of at most `size`: embedded, `$in` costs the square of its length."""
    return (list(values[start : start + size]) for start in range(0, len(values), size))
