"""What can be told of the database as a whole: version, schema, indexes, disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from pymongo.database import Database

from app.store.paging import Document


class DatabaseState(msgspec.Struct, frozen=True):
    """`missing_indexes` are as `collection.index`; `free_bytes` is None where it does not tell."""

    name: str
    version: str
    schema: int
    indexes: int
    missing_indexes: list[str]
    free_bytes: int | None


def find_state(
    database: Database[Document],
    create_indexes: Callable[[Database[Document]], None],
    schema: int,
) -> DatabaseState:
    """The state of a database that should have the indexes that `create_indexes` creates."""
    wanted = _Wanted()
    create_indexes(wanted)  # type: ignore[arg-type]
    missing = [
        f"{collection}.{index}"
        for collection, indexes in wanted.found.items()
        for index in indexes - database[collection].index_information().keys()
    ]
    disk = database.command("dbStats")
    total, used = disk.get("fsTotalSize"), disk.get("fsUsedSize")
    return DatabaseState(
        name=database.name,
        version=str(database.client.server_info()["version"]),
        schema=schema,
        indexes=sum(map(len, wanted.found.values())),
        missing_indexes=sorted(missing),
        free_bytes=None if total is None or used is None else int(total - used),
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
