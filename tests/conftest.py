"""Databases for the tests: mongomock, and a server that speaks MongoDB's wire protocol.

The server is the one of RNS_TEST_MONGODB_URI, with TEST_ENGINE=ferretdb a FerretDB, else the
embedded SecantusDB; no test runs on two at once. A test that takes `stores` runs on mongomock and
on the server.
"""

from __future__ import annotations

import os
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import ferretdb
import mongomock
import pymongo.message
import pytest
from flask import Flask
from jinja2.bccache import Bucket, BytecodeCache
from mongomock.aggregate import process_pipeline
from mongomock.collection import BulkOperationBuilder, Collection, Cursor
from pymongo import MongoClient
from pymongo.database import Database

from app.embedded import EmbeddedDatabase
from app.store import TYPES, Stores, accounts

# Clients look after their servers in threads. Their numbers for requests come from `random`, whose
# state has to stand still while hypothesis draws.
pymongo.message.random = random.Random()
accounts.BCRYPT_ROUNDS = 4  # bcrypt's least: tests sign in hundreds of times


class _CompiledOnce(BytecodeCache):
    """Templates for all applications of the tests: each test makes one, and compiling is dear."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.code:
            self._codes[bucket.key, bucket.checksum] = bucket.code


Flask.jinja_options = {"bytecode_cache": _CompiledOnce()}


def _without_sort(method: Callable[..., Any]) -> Callable[..., Any]:
    """mongomock 4.3 does not know the argument that pymongo 4.20 always passes."""

    def called(self: Any, *args: Any, sort: Any = None, **kwargs: Any) -> Any:
        assert sort is None
        return method(self, *args, **kwargs)

    return called


for _name in ("add_update", "add_replace"):
    setattr(BulkOperationBuilder, _name, _without_sort(getattr(BulkOperationBuilder, _name)))


# mongomock writes documents while other threads of a test read them.
_one_at_a_time = threading.RLock()


def _alone(method: Callable[..., Any]) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        with _one_at_a_time:
            return method(*args, **kwargs)

    return called


for _name in ("_update", "_insert", "_delete", "_find_and_modify"):
    setattr(Collection, _name, _alone(getattr(Collection, _name)))
Cursor._compute_results = _alone(Cursor._compute_results)


_aggregate = Collection.aggregate


def _aggregate_what_matches(self: Any, pipeline: Any, *args: Any, **kwargs: Any) -> Any:
    """As mongomock does it, but for copying the whole collection before the first $match."""
    first, *rest = pipeline
    if "$match" not in first:
        return _aggregate(self, pipeline, *args, **kwargs)
    return process_pipeline(list(self.find(first["$match"])), self.database, rest, None)


Collection.aggregate = _aggregate_what_matches


_command = mongomock.Database.command


def _command_of_disk(self: Any, command: Any, **kwargs: Any) -> Any:
    """mongomock does not know the command; without figures the disk is not told."""
    return {"ok": 1.0} if command == "dbStats" else _command(self, command, **kwargs)


mongomock.Database.command = _command_of_disk


def pytest_terminal_summary(terminalreporter: Any) -> None:
    server = "embedded SecantusDB, not mongod"
    if os.environ.get("RNS_TEST_MONGODB_URI"):
        server = "RNS_TEST_MONGODB_URI"
    elif ferretdb.IS_MEANT:
        server = "FerretDB with SQLite, not mongod"
    terminalreporter.write_line(f"wire server: {server}")


@pytest.fixture(scope="session")
def wire_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    uri = os.environ.get("RNS_TEST_MONGODB_URI")
    if uri:
        yield uri
        return
    if ferretdb.IS_MEANT:
        with ferretdb.running(tmp_path_factory.mktemp("ferretdb")) as uri:
            yield uri
        return
    server = EmbeddedDatabase(tmp_path_factory.mktemp("database"))
    server.start()
    yield server.uri
    server.stop()


@pytest.fixture(scope="session")
def wire_client(wire_uri: str) -> Iterator[MongoClient[Any]]:
    with MongoClient(wire_uri, tz_aware=True, type_registry=TYPES) as client:
        yield client


@pytest.fixture
def wire_database(wire_client: MongoClient[Any]) -> Iterator[Database[Any]]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield wire_client[name]
    wire_client.drop_database(name)


@pytest.fixture
def mock_database() -> Any:
    return mongomock.MongoClient(tz_aware=True)["registry"]


@pytest.fixture
def mock_stores(mock_database: Any) -> Stores:
    stores = Stores(mock_database)
    stores.ensure_indexes()
    return stores


@pytest.fixture(params=["mongomock", pytest.param("wire", marks=pytest.mark.wire)])
def stores(request: pytest.FixtureRequest) -> Stores:
    name = {"mongomock": "mock_database", "wire": "wire_database"}[request.param]
    made = Stores(request.getfixturevalue(name))
    made.ensure_indexes()
    return made


@pytest.fixture
def receive(stores: Stores) -> Callable[..., Any]:
    """Store wire events as one envelope each; returns how many were new."""
    from builders import NOW, deliver, envelope

    def receive(*events: Any, together: bool = False, registry: str = "default") -> int:
        groups = [events] if together else [(event,) for event in events]
        return sum(deliver(stores, envelope(*group), registry, NOW) for group in groups)

    return receive
