"""What version 0.1 left is brought forward; what a newer version wrote is left alone."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from builders import digest, leave_version_0_1, rule

from app.errors import StartupError
from app.notifications import loading
from app.server import upgrade
from app.server.upgrade import bring_forward
from app.settings import Settings
from app.store import Stores, schema, version_0_1
from app.store.catalogue import CatalogueQuery
from app.store.schema import NEWEST, Step

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


def test_what_is_broken_off_anywhere_goes_on(
    mock_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh() -> Stores:
        stores = Stores(mock_database)
        stores.ensure_indexes()
        return stores

    leave_version_0_1(mock_database)
    fresh().schema.note()
    bring_forward(fresh(), Settings())
    whole = everything(fresh())

    monkeypatch.setattr(version_0_1, "BULK", 2)
    monkeypatch.setattr(loading, "BULK", 2)
    for name in mock_database.list_collection_names():
        mock_database.drop_collection(name)
    leave_version_0_1(mock_database)
    fresh().schema.note()
    tries = 0
    while fresh().schema.find() < NEWEST:
        tries += 1
        _break_off_after(tries, monkeypatch, fresh())

    assert tries > 3
    assert everything(fresh()) == whole


def _break_off_after(number: int, monkeypatch: pytest.MonkeyPatch, stores: Stores) -> None:
    """Bring a database forward as a server that is killed after so many bulks."""
    left = iter(range(number))
    take = stores.leases.take

    def killed(name: str, *arguments: Any) -> bool:
        if name == upgrade.LEASE and next(left, None) is None:
            raise KeyboardInterrupt
        return take(name, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(stores.leases, "take", killed)
        try:
            bring_forward(stores, Settings())
        except KeyboardInterrupt:
            stores.leases._collection.delete_many({})  # as a minute later


def test_one_of_two_servers_takes_a_step_and_the_other_waits(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    waits = threading.Event()

    def run(database: Any) -> Any:
        taken.append(1)
        assert waits.wait(10)
        yield 1

    monkeypatch.setattr(upgrade, "LOOK_S", 0.01)
    monkeypatch.setattr("app.server.upgrade.time.sleep", lambda seconds: waits.set())
    stores.schema.note()
    steps = (*schema.STEPS, Step(NEWEST + 1, "a step", run, derives=False))
    monkeypatch.setattr(upgrade, "STEPS", steps)
    for module in (upgrade, schema):
        monkeypatch.setattr(module, "NEWEST", NEWEST + 1)
    servers = [threading.Thread(target=bring_forward, args=(stores, Settings())) for _ in range(2)]

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
