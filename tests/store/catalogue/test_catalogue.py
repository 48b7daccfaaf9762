"""The catalogue follows from what happened, whatever comes first, in batches of any size."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

import mongomock
import pytest
from builders import NOW, rule
from histories import (
    DIGESTS,
    deliver,
    deliveries,
    is_deleted,
    make_event,
    played,
    tag_at,
    tags_of,
)
from hypothesis import given, settings
from pymongo.database import Database

from app.rules.events import Event
from app.store import Stores
from app.store.catalogue import CatalogueQuery, Repointed

ONE, TWO, THREE = DIGESTS
COLLECTIONS = ("repositories", "tags", "tag_history")


def fresh() -> tuple[Stores, Any]:
    database: Any = mongomock.MongoClient(tz_aware=True)["registry"]
    return Stores(database), database


def contents(database: Any) -> dict[str, list[Any]]:
    return {
        name: sorted(database[name].find(), key=lambda row: str(row["_id"]))
        for name in COLLECTIONS
    }


def known_tags(database: Any) -> dict[tuple[str, str], dict[str, Any]]:
    names = ("digest", "media_type", "pushed_at", "pushed_by", "first_pushed_at", "seen_by")
    names += ("seen_at", "deleted_at")
    found = {}
    for row in database["tags"].find():
        assert row["deleted"] == bool(row["deleted_at"])
        found[row["repository"], row["tag"]] = {n: row[n] for n in names if n in row}
    return found


def known_repositories(database: Any) -> dict[str, tuple[Any, bool]]:
    return {
        row["repository"]: (row.get("pushed_at"), row["deleted"])
        for row in database["repositories"].find()
    }


def expected_repositories(names: dict[str, list[Event]]) -> dict[str, tuple[Any, bool]]:
    return {
        name: (
            max((e.timestamp for e in happened if e.action == "push"), default=None),
            is_deleted(happened),
        )
        for name, happened in names.items()
    }


def assert_played(database: Any, events: Sequence[Event]) -> None:
    names = played(events)
    expected = {
        (name, tag): row for name in names for tag, row in tags_of(names[name]).items()
    }
    assert known_tags(database) == expected
    assert known_repositories(database) == expected_repositories(names)


@settings(max_examples=300, deadline=None)
@given(deliveries())
def test_the_catalogue_is_what_happened_played_through(
    delivery: tuple[list[Event], list[list[Event]]],
) -> None:
    events, batches = delivery
    stores, database = fresh()
    in_order, other = fresh()

    deliver(stores, batches)
    deliver(in_order, [[event] for event in events])

    assert_played(database, events)
    assert contents(database) == contents(other)
