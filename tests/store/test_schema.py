"""What version 0.1 left is brought forward; what a newer version wrote is left alone."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import digest, leave_version_0_1, rule

from app.errors import StartupError
from app.notifications import loading
from app.notifications.lease import Held
from app.server import upgrade
from app.server.upgrade import bring_forward
from app.settings import Settings
from app.store import Stores, schema, version_0_1
from app.store.catalogue import CatalogueQuery
from app.store.schema import NEWEST, Step
from app.store.version_0_1 import Bulk, Place

WRITES = (
    *("insert_one", "insert_many", "update_one", "update_many", "bulk_write"),
    *("delete_one", "delete_many", "drop"),
)
BELONGS = {
    "docker-head": "docker-get",
    "index-head": "index-get",
    "child-get": "index-get",
    "node-child-get": "node-index-get",  # of which 0.1 made two pulls
}


@pytest.fixture
def old(stores: Stores) -> Stores:
    leave_version_0_1(stores.schema._database)
    return stores


def everything(stores: Stores) -> dict[str, Any]:
    """Every document that the server keeps, by collection and id."""
    database = stores.schema._database
    names = ("events", "manifests", "repositories", "tags", "tag_history", "catalogue", "schema")
    return {name: {row["_id"]: row for row in database[name].find()} for name in names}


def test_what_version_0_1_left_is_brought_forward(old: Stores) -> None:
    assert old.schema.note() == 1
    bring_forward(old, Settings())

    assert old.schema.find() == NEWEST
    found = everything(old)
    scope = old.catalogue.find_scope(rule())
    tags = old.catalogue.find_tags(CatalogueQuery(deleted=True), scope).items
    assert {(tag.registry, tag.repository, tag.tag): tag.digest for tag in tags} == {
        ("default", "team/app", "gone"): digest("app-3"),
        ("default", "team/app", "v1"): digest("app-1"),
        ("default", "team/app", "v2"): digest("app-2"),
        ("default", "team/before", "v1"): digest("before"),
        ("default", "team/multi", "v1"): digest("multi"),
        ("default", "team/old", "v0"): None,
        ("default", "team/old", "v1"): digest("old"),
        ("mirror", "team/app", "v1"): digest("app-1"),
    }
    assert [tag.tag for tag in tags if tag.deleted] == ["gone", "v0"]
    parts = {key: row["part_of"] for key, row in found["events"].items() if row.get("part_of")}
    assert parts == BELONGS
    clients = {key: found["events"][key]["client"] for key in ("poll", "by-digest", "index-get")}
    assert clients == {"poll": "updater", "by-digest": "proxy", "index-get": "docker"}
    assert found["catalogue"] == {}
    assert all(row["registry"] for row in found["manifests"].values())


def test_what_outlived_its_events_is_kept(old: Stores) -> None:
    old.schema.note()
    bring_forward(old, Settings())

    scope = old.catalogue.find_scope(rule())
    assert old.events.find("app-push-0", scope) is None
    tag = old.catalogue.get_tag("default", "team/app", "v1", scope)
    assert tag
    moves = old.catalogue.find_history(tag, scope)
    assert [move.digest for move in moves] == [digest("app-1"), digest("app-0")]
    names = ["multi", "arm64", "old", "before"]
    whole = old.manifests.find_whole("default", map(digest, names))
    assert [whole[digest(name)].size for name in names] == [6000, 3000, 6000, 3000]
    assert old.manifests.find_whole("mirror", [digest("app-1")])[digest("app-1")].size == 4000


def test_everything_can_be_derived_anew_afterwards(old: Stores) -> None:
    old.schema.note()
    bring_forward(old, Settings())
    before = everything(old)

    projector = upgrade.make_projector(Settings(), old, passing=True)
    assert sum(map(len, loading.rebuild(old, projector, None))) == len(before["events"])

    assert everything(old) == before


def test_the_days_of_events_are_summarised_anew(old: Stores) -> None:
    old.schema.note()
    bring_forward(old, Settings())

    days = {row["_id"]: row for row in old.schema._database["usage_days"].find()}
    open_ = {key for key, row in days.items() if row["run"] is None}
    assert open_ == {"2026-11-20", "2026-11-21"}
    assert days["2026-11-13"]["removed"]


class Died(BaseException):
    """What a kill -9 is to the code that it stops."""


class Dying:
    """A database, or a collection of it, whose server is killed before the n-th write."""

    def __init__(self, real: Any, left: Iterator[int]) -> None:
        self._real = real
        self._left = left

    def __getitem__(self, name: str) -> Dying:
        return Dying(self._real[name], self._left)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if name not in WRITES:
            return value

        def write(*arguments: Any, **options: Any) -> Any:
            if next(self._left, None) is None:
                raise Died
            return value(*arguments, **options)

        return write

    def with_options(self, **options: Any) -> Dying:
        return Dying(self._real.with_options(**options), self._left)


def fill(database: Any, rows: dict[str, list[dict[str, Any]]]) -> None:
    for name in database.list_collection_names():
        database[name].delete_many({})
    for name, documents in rows.items():
        database[name].insert_many(copy.deepcopy(documents))


def go_on(database: Any) -> Stores:
    """What a server does that starts a minute after another one was killed."""
    database["leases"].delete_many({})
    stores = Stores(database)
    stores.schema.note()
    bring_forward(stores, Settings())
    return stores


def test_who_is_killed_at_any_write_leaves_nothing_that_another_start_does_not_mend(
    mock_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.notifications.projector.RECENT", timedelta(0))
    for module, size in ((version_0_1, 8), (loading, 12)):
        monkeypatch.setattr(module, "BULK", size)
    leave_version_0_1(mock_database)
    names = mock_database.list_collection_names()
    rows = {name: list(mock_database[name].find()) for name in names}
    Stores(mock_database).ensure_indexes()
    whole = everything(go_on(mock_database))
    killed = 0
    while True:
        fill(mock_database, rows)
        stores = Stores(Dying(mock_database, iter(range(killed))))
        try:
            stores.schema.note()
            bring_forward(stores, Settings())
            break
        except Died:
            killed += 1
        assert everything(go_on(mock_database)) == whole, f"killed before write {killed}"

    assert killed > 50


def test_what_is_broken_off_goes_on_where_it_was(
    old: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(version_0_1, "BULK", 8)
    read: list[str] = []
    mend = version_0_1._mend_events

    def note(database: Any, rows: list[dict[str, Any]]) -> None:
        read.extend(row["_id"] for row in rows)
        mend(database, rows)

    monkeypatch.setattr(version_0_1, "_mend_events", note)
    old.schema.note()
    ended = threading.Event()
    ended.set()
    bulks = 0
    original = old.schema.note_progress

    def end_after_one(progress: Any) -> None:
        nonlocal bulks
        bulks += 1
        original(progress)

    monkeypatch.setattr(old.schema, "note_progress", end_after_one)
    with monkeypatch.context() as patch:
        patch.setattr(ended, "is_set", lambda: bulks > 0)
        assert bring_forward(old, Settings(), ended) is False

    assert len(read) == 8
    assert old.schema.find_wait() == (
        f"the database is brought from schema 1 to {NEWEST}: 8 of about 42 documents are done"
    )
    assert old.leases.take(upgrade.LEASE, "another", datetime.now(UTC)), "nobody has to wait"
    old.leases.give_back(upgrade.LEASE, "another")

    assert bring_forward(old, Settings())
    assert len(read) == len(set(read)) == 16
    assert "goes on: 8 of about 42 documents are done" in caplog.text
    assert old.schema.find_wait() is None


def test_a_server_of_before_derives_nothing_once_a_step_is_begun(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.schema.note()
    older = upgrade.make_projector(Settings(), stores)
    assert older.turn() is False
    seen: list[Any] = []
    in_order: list[bool] = []

    def run(database: Any, place: Any) -> Any:
        held = Held(stores, passing=False)
        assert held.take()
        in_order.append(held.in_order)
        held.give_back()
        with monkeypatch.context() as patch:
            patch.setattr(schema, "NEWEST", NEWEST)  # as the older program has it
            with pytest.raises(StartupError, match=f"schema {NEWEST + 1}, .* none after {NEWEST}"):
                seen.append(older.turn())
        yield Bulk(1, Place("", ""))

    steps = (*schema.STEPS, Step(NEWEST + 1, "a step", run, lambda database: 1, derives=False))
    monkeypatch.setattr(upgrade, "STEPS", steps)
    for module in (upgrade, schema):
        monkeypatch.setattr(module, "NEWEST", NEWEST + 1)
    server = threading.Thread(target=bring_forward, args=(stores, Settings()))
    server.start()
    while server.is_alive() and older.turn() is not None:  # until it makes way
        time.sleep(0.01)
    server.join()

    assert stores.schema.find() == NEWEST + 1
    assert seen == []
    assert in_order == [False], "it made way in the midst of something"


def test_one_of_two_servers_takes_a_step_and_the_other_waits(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    waits = threading.Event()

    class Waiting(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.set()
            return super().wait(timeout)

    def run(database: Any, place: Any) -> Any:
        taken.append(1)
        assert waits.wait(10)
        yield Bulk(1, Place("", ""))

    monkeypatch.setattr(upgrade, "LOOK_S", 0.01)
    stores.schema.note()
    steps = (*schema.STEPS, Step(NEWEST + 1, "a step", run, lambda database: 1, derives=False))
    monkeypatch.setattr(upgrade, "STEPS", steps)
    for module in (upgrade, schema):
        monkeypatch.setattr(module, "NEWEST", NEWEST + 1)
    servers = [
        threading.Thread(target=bring_forward, args=(stores, Settings(), Waiting()))
        for _ in range(2)
    ]

    for server in servers:
        server.start()
    for server in servers:
        server.join(20)

    assert taken == [1]
    assert stores.schema.find() == NEWEST + 1


def test_a_new_database_has_the_newest_schema(stores: Stores) -> None:
    assert stores.schema.note() == NEWEST
    bring_forward(stores, Settings())

    assert everything(stores)["schema"] == {"schema": {"_id": "schema", "number": NEWEST}}


def test_a_newer_database_is_refused_and_both_numbers_are_named(stores: Stores) -> None:
    stores.schema._collection.insert_one({"_id": "schema", "number": NEWEST + 1})

    for refused in (stores.schema.check, stores.schema.note):
        with pytest.raises(StartupError, match=f"schema {NEWEST + 1}, .* none after {NEWEST}"):
            refused()


def test_a_server_that_runs_writes_nothing_once_the_database_is_newer(
    stores: Stores, receive: Any
) -> None:
    projector = upgrade.make_projector(Settings(), stores)
    assert projector.turn() is False
    projector.stop()
    stores.schema.note()
    stores.schema.advance(NEWEST + 1)

    with pytest.raises(StartupError):
        projector.turn()
