"""The database of the original Registry Notification Server, read only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from bson import ObjectId
from bson.errors import InvalidBSON
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.errors import ConfigurationError, InvalidURI, PyMongoError

from app.errors import ConfigError, StoreUnavailable
from app.rules.original import Row
from app.settings.yaml_file import read_yaml
from app.store.paging import Document

TIMEOUT_MS = 10_000
BATCH = 1_000  # rows that come at once: a cursor that is not asked for ten minutes is closed
RECORDS, TAGS = "analysis_config", "search_repo"  # sections of its configuration


class _DialInfo(msgspec.Struct):
    """mgo's DialInfo as YAML has it; the database is also the one that knows the account."""

    addrs: list[str] = []
    database: str = ""
    username: str = ""
    password: str = ""
    source: str = ""
    replicasetname: str = ""


class _Place(msgspec.Struct):
    dial_info: _DialInfo = msgspec.field(default_factory=_DialInfo)
    collection: str = ""


class OriginalRows:
    """One collection, as the section `where` of its configuration names it."""

    def __init__(self, where: str, collection: Collection[Document]) -> None:
        self.where = where
        self._collection = collection

    def count(self) -> int:
        """About how many rows there are.

        Raises:
            StoreUnavailable: the database does not answer, or does not let us in.
        """
        try:
            return self._collection.estimated_document_count()
        except PyMongoError as error:
            raise self._unavailable(error) from error

    def find_all(self) -> Iterator[Row]:
        """Every row, in the order in which they came; raises as `count`."""
        try:
            for document in self._collection.find().sort("_id", 1).batch_size(BATCH):
                yield _row(document)
        except (PyMongoError, InvalidBSON) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        # Messages of pymongo name hosts, never credentials.
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return StoreUnavailable(f"the database of {self.where} does not answer: {reason}")


@contextlib.contextmanager
def open_original(
    file: Path, uri: str | None, database: str | None
) -> Iterator[dict[str, OriginalRows]]:
    """The collections that the original's configuration `file` names, by RECORDS and TAGS.

    `uri` and `database` say where they are now, if elsewhere.

    Raises:
        ConfigError: it cannot be read, or names none; a URI that cannot be read.
    """
    sections = read_yaml(file)
    found: dict[str, OriginalRows] = {}
    with contextlib.ExitStack() as clients:
        for where in (RECORDS, TAGS):
            try:
                place = msgspec.convert(sections.get(where) or {}, _Place, strict=False)
            except msgspec.ValidationError as error:
                raise ConfigError(f"{file}: {where}: {error}") from None
            if not place.collection:
                continue
            name = database or place.dial_info.database
            if not name:
                raise ConfigError(f"{file}: {where}.dial_info.database: is empty; give --database")
            client = _connect(place.dial_info, uri, f"{file}: {where}.dial_info")
            clients.enter_context(client)
            found[where] = OriginalRows(where, client[name][place.collection])
        if not found:
            raise ConfigError(f"{file}: names no collection, neither in {RECORDS} nor in {TAGS}")
        yield found


def _connect(dial: _DialInfo, uri: str | None, where: str) -> MongoClient[Document]:
    options: dict[str, Any] = {}
    if uri is None:
        if not any(dial.addrs):
            raise ConfigError(f"{where}.addrs: is empty; give --uri")
        if dial.username:
            options["username"], options["password"] = dial.username, dial.password
            options["authSource"] = dial.source or dial.database
        if dial.replicasetname:
            options["replicaSet"] = dial.replicasetname
    try:
        return MongoClient(
            uri or dial.addrs,
            tz_aware=True,
            datetime_conversion="DATETIME_AUTO",  # a year that Python has not is no end of all
            unicode_decode_error_handler="replace",
            serverSelectionTimeoutMS=TIMEOUT_MS,
            connectTimeoutMS=TIMEOUT_MS,
            **options,
        )
    except (InvalidURI, ConfigurationError, PyMongoError, ValueError, TypeError) as error:
        # The message may quote the URI with its password.
        name = "--uri" if uri else f"{where}.addrs"
        raise ConfigError(f"{name}: not where a MongoDB is ({type(error).__name__})") from None


def _row(document: Mapping[str, Any]) -> Row:
    key = document.get("_id")
    made_at: datetime | None = key.generation_time if isinstance(key, ObjectId) else None
    return Row(str(key), made_at, document)
