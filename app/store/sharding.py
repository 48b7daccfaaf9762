"""How the collections are divided among the shards of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
from pymongo.database import Database

from app.errors import IllegalState
from app.store.errors import translate_errors
from app.store.paging import Document

Key = Mapping[str, Literal[1, "hashed"]]

# Every write of one document names its key, and the index that a key needs is there anyway, but
# for that of the inbox. `_id` is unique on each shard only: so a key is `_id`, or what the same
# `_id` never has otherwise.
SHARD_KEYS: dict[str, Key] = {
    # Of a repository the newest first: what the projector, and most pages, ask for. An event that
    # is sent again has the same repository and position, so it meets itself.
    "events": {"repository": 1, "position": 1},
    # Ids begin with the time: by range all would be written to one shard.
    "inbox": {"_id": "hashed"},
    "manifests": {"_id": 1},  # registry, digest
    "repositories": {"_id": 1},  # repository, registry
    "tags": {"_id": 1},  # repository, tag, registry
    "tag_history": {"_id": 1},  # the event's; what a move stands under changes with a rename
    "usage": {"namespace": 1, "day": 1},  # is inserted and deleted, never updated
    "usage_sums": {"of": 1, "day": 1},
    "migration_jobs": {"_id": 1},  # plan, repository, tag
    "migration_blobs": {"_id": 1},  # target, digest
}

# Stay whole, on the database's first shard: a row for each of something few, or rows that are
# bounded in number or removed after a time.
WHOLE = frozenset(
    {
        *("api_tokens", "sign_ins", "senders", "refusals", "heard_nodes", "event_gaps"),
        *("catalogue_checks", "catalogue_differences", "rejected_events", "usage_days"),
        *("leases", "progress", "health", "schema"),
        *("migration_plans", "migration_audit", "migration_runs", "migration_drift"),
        *("migration_history", "migration_workers"),
    }
)


class Sharded(msgspec.Struct, frozen=True):
    """A collection with its key, and what becomes of it.

    `other`: it is divided by another key, and stays so.
    """

    collection: str
    key: Key
    state: Literal["to do", "done", "as it was", "other"]


@translate_errors
class Sharding:
    """Divides the collections of SHARD_KEYS; the others stay whole."""

    def __init__(self, database: Database[Document]) -> None:
        self._database = database

    def shard(self, *, dry_run: bool = False) -> Iterator[Sharded]:
        """Divide every collection that is not divided yet; may be repeated.

        Raises:
            IllegalState: the database is no cluster.
        """
        admin = self._database.client["admin"]
        if admin.command("hello").get("msg") != "isdbgrid":
            raise IllegalState("mongodb.uri: not a sharded cluster (mongos); nothing was changed")
        there = {
            row["_id"]: row["key"] for row in self._database.client["config"]["collections"].find()
        }
        if not dry_run:
            admin.command("enableSharding", self._database.name)  # before MongoDB 6
        for collection, key in SHARD_KEYS.items():
            place = f"{self._database.name}.{collection}"
            if place in there:
                is_same = list(there[place].items()) == list(key.items())
                yield Sharded(collection, key, "as it was" if is_same else "other")
                continue
            if not dry_run:
                self._shard(place, collection, key)
            yield Sharded(collection, key, "to do" if dry_run else "done")

    def _shard(self, place: str, collection: str, key: Key) -> None:
        if key != {"_id": 1}:
            fields: list[tuple[str, Any]] = list(key.items())
            self._database[collection].create_index(fields)  # shardCollection asks for it
        self._database.client["admin"].command("shardCollection", place, key=dict(key))
