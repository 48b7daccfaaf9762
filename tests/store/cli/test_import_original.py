"""`rns import original`: the data of the original server, taken over on a wire server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from builders import NOW, deliver, digest, envelope, rule, wire_event
from command_line import Run
from pymongo import MongoClient
from pymongo.database import Database

from app.store import Stores
from app.store.catalogue import CatalogueQuery
from app.store.events import RecordQuery
from app.store.scope import Scope

pytestmark = pytest.mark.wire

THEN = datetime(2020, 4, 6, 12, 0, tzinfo=UTC)
SECTIONS = """
server: {{address: 0.0.0.0, port: 80}}
search_user: {{dial_info: {{addrs: [""], timeout: 10s}}, collection: users}}
search_repo: {{dial_info: {{addrs: ["{address}"], database: old}}, collection: search_notify}}
analysis_config: {{dial_info: {{addrs: ["{address}"], database: old}}, collection: analysis_notify}}
"""


@pytest.fixture
def original(wire_client: MongoClient[Any], wire_database: Database[Any]) -> Iterator[Any]:
    """The database of an original server."""
    name = f"{wire_database.name}_original"
    yield wire_client[name]
    wire_client.drop_database(name)


@pytest.fixture
def stores(wire_database: Database[Any]) -> Stores:
    return Stores(wire_database)


@pytest.fixture
def take_over(run: Run, original: Database[Any], wire_uri: str, tmp_path: Path) -> Any:
    file = tmp_path / "original.yml"
    file.write_text(SECTIONS.format(address="gone.invalid"))
    options = ("--config", str(file), "--uri", wire_uri, "--database", original.name)
    return lambda *more: run("import", "original", *options, *more)


def record(action: str, repo: str, minutes: int = 0, **fields: Any) -> dict[str, Any]:
    moment = THEN + timedelta(minutes=minutes)
    row = {"src": "10.1.2.3:4711", "timestamp": moment, "action": action, "repo": repo}
    return row | {"user": "alice"} | fields


def records(stores: Stores, scope: Scope) -> list[tuple[Any, ...]]:
    page = stores.events.find_page(RecordQuery(), scope)
    return [(e.action, e.repository, e.tag, e.digest, e.actor, e.address) for e in page.items]


def all_of(stores: Stores) -> Scope:
    return stores.catalogue.find_scope(rule())


def test_records_and_tags_are_taken_over_once(
    take_over: Any, original: Database[Any], stores: Stores
) -> None:
    original["analysis_notify"].insert_many(
        [
            record("push", "team/app:v1"),
            record("pull", "team/app:v1", 5, user="bob"),
            record("pull", "team/app:", 6),
        ]
    )
    made = ObjectId.from_datetime(THEN - timedelta(days=3))
    original["search_notify"].insert_many(
        [
            {"user": "team", "repo": "app", "tag": "v1"},
            {"_id": made, "user": "team", "repo": "old", "tag": "v0"},
        ]
    )

    first, second = take_over(), take_over()

    told = "not understood 0, left out 0 of a time from which this server has its own\n"
    assert (first.status, first.err) == (0, f"imported 4, already there 0, {told}")
    assert (second.status, second.err) == (0, f"imported 0, already there 4, {told}")
    scope = all_of(stores)
    assert records(stores, scope) == [
        ("pull", "team/app", None, None, "alice", "10.1.2.3"),
        ("pull", "team/app", "v1", None, "bob", "10.1.2.3"),
        ("push", "team/app", "v1", None, "alice", "10.1.2.3"),
        ("push", "team/old", "v0", None, "", ""),
    ]
    tags = stores.catalogue.find_tags(CatalogueQuery(), scope).items
    assert [(tag.repository, tag.tag, tag.digest, tag.pushed_at, tag.deleted) for tag in tags] == [
        ("team/app", "v1", None, THEN, False),
        ("team/old", "v0", None, THEN - timedelta(days=3), False),
    ]


def test_who_may_not_pull_sees_nothing_of_it(
    take_over: Any, original: Database[Any], stores: Stores
) -> None:
    original["analysis_notify"].insert_one(record("push", "team/app:v1"))
    take_over()

    scope = stores.catalogue.find_scope(rule("mallory"), "mallory")

    assert records(stores, scope) == []
    assert stores.catalogue.find_tags(CatalogueQuery(), scope).items == []


def test_what_is_no_record_is_named_and_the_others_are_taken(
    take_over: Any, original: Database[Any], stores: Stores
) -> None:
    bad: list[dict[str, Any]] = [
        record("delete", "team/app:v1"),
        record("push", "team/app"),
        record("push", "Team/App:v1"),
        record("push", "team/app:-"),
        record("push", "team/app:v1", timestamp="2020"),
        record("push", "team/app:v1", timestamp=datetime(1, 1, 1)),
        record("push", "team/app:v1", user=7),
        {"_id": "x" * 300, **record("push", "team/app:v1")},
        {},
    ]
    original["analysis_notify"].insert_many([*bad, record("push", "team/app:v2")])
    original["search_notify"].insert_one({"_id": 7, "user": "team", "repo": "app", "tag": "v3"})

    result = take_over()

    *lines, last = result.err.splitlines()
    assert last.startswith("imported 1, already there 0, not understood 10, ")
    assert [line.rpartition(": ")[0].split(": ")[0] for line in lines] == (
        ["analysis_config"] * 9 + ["search_repo"]
    )
    for row, why in zip(
        bad,
        ["push or pull", "name:tag", "Team/App", "not a tag", "no time", "2013", "no text"],
        strict=False,
    ):
        (line,) = [line for line in lines if f" {row['_id']}: " in line]
        assert why in line
    assert [row[:3] for row in records(stores, all_of(stores))] == [("push", "team/app", "v2")]


def test_what_this_server_saw_itself_is_not_taken_over(
    take_over: Any, original: Database[Any], stores: Stores
) -> None:
    deliver(stores, envelope(wire_event("push", tag="v1", at=THEN + timedelta(hours=1))), now=NOW)
    original["analysis_notify"].insert_many(
        [
            record("push", "team/app:v1"),
            record("push", "team/app:v1", 60),
            record("pull", "team/app:v1", 70),
        ]
    )
    made = ObjectId.from_datetime(THEN)
    original["search_notify"].insert_one({"_id": made, "user": "team", "repo": "app", "tag": "v1"})

    for stored, there in ((1, 0), (0, 1)):
        result = take_over()
        assert result.err.startswith(
            f"imported {stored}, already there {there}, not understood 0, left out 2 "
        )
    tag = stores.catalogue.get_tag("default", "team/app", "v1", None)
    assert tag
    assert (tag.digest, tag.pushed_at) == (digest("image"), THEN + timedelta(hours=1))
    moves = [(move.digest, move.since) for move in stores.catalogue.find_history(tag, None)]
    assert moves == [(digest("image"), THEN + timedelta(hours=1))]


def test_without_uri_the_data_are_where_the_file_says(
    run: Run, original: Database[Any], wire_uri: str, tmp_path: Path
) -> None:
    original["analysis_notify"].insert_one(record("push", "team/app:v1"))
    uri = wire_uri.removeprefix("mongodb://").partition("/")[0]
    account, _, address = uri.rpartition("@")
    name, _, password = account.partition(":")
    text = SECTIONS.format(address=address).replace("database: old", f"database: {original.name}")
    if name:
        login = f"username: {name}, password: '{password}', source: admin"
        text = text.replace("addrs:", f"{login}, addrs:")
    (tmp_path / "original.yml").write_text(text)

    result = run("import", "original", "--config", str(tmp_path / "original.yml"))

    assert result.err.startswith("imported 1, ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "names no collection, neither in analysis_config nor in search_repo"),
        ("search_repo: {collection: a}", "search_repo.dial_info.database: is empty"),
        (
            "search_repo: {collection: a, dial_info: {database: b}}",
            "search_repo.dial_info.addrs: is empty; give --uri",
        ),
        ("search_repo: [1]", "search_repo: "),
        ("a: b: c", "not valid YAML"),
    ],
)
def test_a_file_that_says_too_little_is_one_line(
    run: Run, tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "original.yml").write_text(text)

    result = run("import", "original", "--config", str(tmp_path / "original.yml"))

    assert result.status == 1
    assert said in result.err
    assert result.err.count("\n") == 1


def test_a_database_that_is_away_and_a_wrong_uri_do_not_tell_the_password(
    take_over: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.original.TIMEOUT_MS", 50)

    for uri in ("mongodb://a:secret@127.0.0.1:1/", "mongodb://a:secret@@x/"):
        result = take_over("--uri", uri)
        assert (result.status, result.err.count("\n")) == (1, 1)
        assert result.err.startswith("rns: ")
        assert "secret" not in result.err


def test_a_registry_that_does_not_exist_is_wrong_usage(take_over: Any) -> None:
    assert take_over("--registry", "other").status == 2
