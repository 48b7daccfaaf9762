"""What can be told of the database as a whole: version, schema, indexes, disk."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
from pymongo.database import Database

from app.store.paging import Document

logger = logging.getLogger(__name__)

BUILDING = {"_id": "indexes"}  # in collection `health`, while indexes are built


class DatabaseState(msgspec.Struct, frozen=True):
    """`missing_indexes` are as `collection.index`; `free_bytes` is None where it does not tell."""

    name: str
    version: str
    schema: int
    indexes: int
    missing_indexes: list[str]
    free_bytes: int | None

    @property
    def index_problems(self) -> list[str]:
        """What is wrong with the indexes, in words."""
        if self.missing_indexes and len(self.missing_indexes) == self.indexes:
            return ["no index is there: a server creates them when it starts"]
        return [f"the index {name} is missing: restart the server" for name in self.missing_indexes]


def find_state(
    database: Database[Document],
    create_indexes: Callable[[Database[Document]], None],
    schema: int,
) -> DatabaseState:
    """The state of a database that should have the indexes that `create_indexes` creates."""
    wanted = _wanted_by(create_indexes)
    disk = database.command("dbStats")
    total, used = disk.get("fsTotalSize"), disk.get("fsUsedSize")
    return DatabaseState(
        name=database.name,
        version=str(database.client.server_info()["version"]),
        schema=schema,
        indexes=sum(map(len, wanted.values())),
        missing_indexes=_find_missing(database, wanted),
        free_bytes=None if total is None or used is None else int(total - used),
    )


def create_whole_indexes(
    database: Database[Document], create_indexes: Callable[[Database[Document]], None]
) -> None:
    """Create what indexes are missing in the embedded database.

    Killed while it builds one, it keeps a part of it, which hides documents from queries and which
    it takes for the whole. So it is noted that some are built, and who finds that drops them all.
    """
    wanted, notes = _wanted_by(create_indexes), database["health"]
    if notes.find_one(BUILDING):
        logger.warning("indexes were being built when the database was killed: all are built anew")
        for name in wanted.keys() & set(database.list_collection_names()):
            database[name].drop_indexes()
    if _find_missing(database, wanted):
        notes.update_one(BUILDING, {"$set": {"since": datetime.now(UTC)}}, upsert=True)
        create_indexes(database)
        notes.delete_one(BUILDING)


def _wanted_by(create_indexes: Callable[[Database[Document]], None]) -> dict[str, set[str]]:
    """The names of the indexes that are created, by collection."""
    wanted = _Wanted()
    create_indexes(wanted)  # type: ignore[arg-type]
    return wanted.found


def _find_missing(database: Database[Document], wanted: dict[str, set[str]]) -> list[str]:
    return sorted(
        f"{collection}.{index}"
        for collection, indexes in wanted.items()
        for index in indexes - database[collection].index_information().keys()
    )


class _Wanted:
    """Stands in for a database, and notes by collection which indexes are created."""

    def __init__(self, name: str = "", found: dict[str, set[str]] | None = None) -> None:
        self.name = name
        self.found: dict[str, set[str]] = {} if found is None else found

    def __getitem__(self, name: str) -> _Wanted:
        return _Wanted(name, self.found)

    def with_options(self, **_: Any) -> _Wanted:
        return self

    def create_index(self, keys: str | list[tuple[str, int]], **_: Any) -> None:
        pairs = [(keys, 1)] if isinstance(keys, str) else keys
        name = "_".join(f"{field}_{direction}" for field, direction in pairs)
        self.found.setdefault(self.name, set()).add(name)
