"""The collections divided among shards, and what is not divided."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any
from unittest.mock import MagicMock

import pytest
from pymongo.database import Database
from routing import flat, is_equal, is_targeted
from wire_proxy import WireProxy

from app.errors import IllegalState, StoreUnavailable
from app.settings import MongoDB, Settings
from app.store import Stores, connect
from app.store.sharding import SHARD_KEYS, WHOLE, Sharded

GRANTED = {"enableSharding", "shardCollection", "createIndexes"}


@pytest.fixture
def cluster(wire_uri: str) -> Iterator[WireProxy]:
    """Looks like mongos, and says yes to what divides."""
    proxy = WireProxy(wire_uri, is_cluster=True)
    proxy.granted = GRANTED
    yield proxy
    proxy.close()


@pytest.fixture
def stores(cluster: WireProxy, wire_database: Database[Any]) -> Iterator[Stores]:
    mongodb = MongoDB(uri=cluster.uri, database=wire_database.name)
    with closing(connect(Settings(mongodb=mongodb))) as stores:
        yield stores


def commands(cluster: WireProxy) -> list[tuple[str, Any]]:
    found = [next(iter(body.items())) for body in cluster.seen]
    return [(name, value) for name, value in found if name in GRANTED]


@pytest.mark.wire
def test_every_collection_is_divided_by_its_key(
    cluster: WireProxy, stores: Stores, wire_database: Database[Any]
) -> None:
    done = list(stores.sharding.shard())

    assert done == [Sharded(name, key, "done") for name, key in SHARD_KEYS.items()]
    places = {name: f"{wire_database.name}.{name}" for name in SHARD_KEYS}
    keys = {body["shardCollection"]: body["key"] for body in cluster.seen if "key" in body}
    assert keys == {places[name]: key for name, key in SHARD_KEYS.items()}
    assert commands(cluster)[0] == ("enableSharding", wire_database.name)
    assert ("createIndexes", "inbox") in commands(cluster)


@pytest.mark.wire
def test_a_dry_run_changes_nothing(cluster: WireProxy, stores: Stores) -> None:
    assert {one.state for one in stores.sharding.shard(dry_run=True)} == {"to do"}
    assert commands(cluster) == []


@pytest.mark.wire
def test_what_is_divided_already_stays_as_it_is(
    cluster: WireProxy, stores: Stores, wire_database: Database[Any]
) -> None:
    there = {"tags": {"_id": 1}, "events": {"position": 1}}
    rows = [{"_id": f"{wire_database.name}.{name}", "key": key} for name, key in there.items()]
    known = wire_database.client["config"]["collections"]
    known.insert_many(rows)
    try:
        states = {one.collection: one.state for one in stores.sharding.shard()}
    finally:
        known.delete_many({"_id": {"$in": [row["_id"] for row in rows]}})

    assert (states.pop("tags"), states.pop("events")) == ("as it was", "other")
    assert set(states.values()) == {"done"}
    assert len(commands(cluster)) == 1 + len(states) + 3  # the keys that are not _id alone


@pytest.mark.wire
def test_what_is_no_cluster_is_not_divided(wire_uri: str, wire_database: Database[Any]) -> None:
    mongodb = MongoDB(uri=wire_uri, database=wire_database.name)
    with (
        closing(connect(Settings(mongodb=mongodb))) as stores,
        pytest.raises(IllegalState, match="not a sharded cluster"),
    ):
        list(stores.sharding.shard())


def test_every_collection_is_divided_or_stays_whole() -> None:
    used = set()
    database = MagicMock()
    database.__getitem__.side_effect = lambda name: used.add(name) or MagicMock()
    with suppress(StoreUnavailable):  # which check() says, as the database tells nothing
        Stores(database, MagicMock()).check()

    assert used == SHARD_KEYS.keys() | WHOLE
    assert WHOLE.isdisjoint(SHARD_KEYS)


@pytest.mark.parametrize(
    ("collection", "query", "expected"),
    [
        ("events", {"repository": "a"}, True),
        ("events", {"repository": {"$in": ["a", "b"]}}, True),
        ("events", {"$and": [{"digest": "d"}, {"repository": "a"}]}, True),
        ("events", {"repository": {"$regex": "^a"}}, False),
        ("events", {"position": {"$gte": "a", "$lt": "b"}}, False),
        ("tags", {"_id": {"$gte": "a", "$lt": "b"}}, True),
        ("tags", {"_id": {"$gt": "a"}}, False),
        ("inbox", {"_id": {"$gte": "a", "$lt": "b"}}, False),  # hashed
        ("inbox", {}, False),
    ],
)
def test_a_query_goes_to_one_shard_if_it_names_the_first_field_of_the_key(
    collection: str, query: dict[str, Any], expected: bool
) -> None:
    assert is_targeted(collection, flat(query)) is expected


def test_only_one_value_is_a_shard_key() -> None:
    values = ["a", {"a": 1}, {"$in": ["a"]}, {"$lt": "a"}, None]
    assert [is_equal(value) for value in values] == [True, True, False, False, False]
