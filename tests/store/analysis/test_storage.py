"""What tags hold by namespace, as events tell it, and for whom."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import mongomock
import pytest
from builders import INDEX, deliver, digest, envelope, rule, wire_event

from app.analysis.storage import Storage, StorageQuery, find_storage
from app.store import Stores
from app.store.scope import Scope

NOW = datetime(2026, 11, 9, 12, tzinfo=UTC)
Send = Callable[..., None]
BOB = [{"seq": 1, "match": {"account": "bob", "name": "ops/*"}, "actions": ["pull"]}]


def send_to(stores: Stores) -> Send:
    """What stores one wire event some days ago, with layers of these sizes."""

    def send(
        action: str, name: str, tag: str | None, days: float, *sizes: int, **fields: Any
    ) -> None:
        at = NOW - timedelta(days=days)
        if sizes:
            fields["references"] = [
                {"mediaType": "application/octet-stream", "digest": digest(f"{n}"), "size": n}
                for n in sizes
            ]
        registry = fields.pop("registry", "default")
        event = wire_event(action, name, tag=tag, at=at, **{"of": f"{sizes}", **fields})
        deliver(stores, envelope(event), registry, at)

    return send


@pytest.fixture
def send(stores: Stores) -> Send:
    return send_to(stores)


def storage(stores: Stores, scope: Scope | None = None, **query: Any) -> Storage:
    scope = scope or stores.catalogue.find_scope(rule())
    return find_storage(stores, scope, StorageQuery(**{"days": 30, **query}), NOW)


def rows(found: Storage) -> dict[str, tuple[int, int, int]]:
    return {row.namespace: (row.tags, row.size, row.came) for row in found.namespaces}


def test_namespaces_hold_what_their_tags_do_and_grow_by_what_came(
    stores: Stores, send: Send
) -> None:
    send("push", "team/app", "v1", 40, 5, 10)
    send("push", "team/app", "v2", 3, 5, 20)
    send("push", "team/db", "v1", 2, 5, 40)
    send("push", "ops/app", "v1", 1, 5, 80)
    send("push", "ubuntu", "v1", 50, 160)

    found = storage(stores)

    assert rows(found) == {"": (1, 160, 0), "ops": (1, 85, 85), "team": (3, 75, 60)}
    assert (found.size, found.came) == (315, 140)
    ago = [NOW.date() - timedelta(days=number) for number in range(4)]
    assert found.by_day == {
        ("default", "ops"): {ago[1]: 80},
        ("default", "team"): {ago[2]: 40, ago[3]: 20},
    }


def test_what_was_deleted_or_replaced_is_not_in_it(stores: Stores, send: Send) -> None:
    send("push", "team/app", "v1", 9, 5, 10)
    send("push", "team/app", "latest", 8, 20)
    send("push", "team/app", "latest", 7, 40)
    send("push", "ops/app", "v1", 6, 80)
    send("delete", "team/app", "v1", 5, of=None)
    send("delete", "ops/app", "v1", 5, of=None)

    assert rows(storage(stores)) == {"team": (1, 40, 40)}


def test_an_index_holds_its_platforms_which_came_with_it(stores: Stores, send: Send) -> None:
    send("push", "team/app", None, 40, 5, 10, of="amd64")
    send("push", "team/app", None, 40, 5, 20, of="arm64")
    shape = {"media_type": INDEX, "children": ["amd64", "arm64"]}
    send("push", "team/app", "v1", 3, of="index", **shape)
    send("push", "team/app", "v2", 2, of="other", media_type=INDEX, children=["amd64", "gone"])

    found = storage(stores)

    assert rows(found) == {"team": (2, 35, 35)}
    assert found.unknown == 1


def test_a_tag_that_only_a_pull_tells_of_holds_what_was_there_before(
    stores: Stores, send: Send
) -> None:
    send("pull", "team/app", "v1", 3, 5, 10)

    found = storage(stores)

    assert rows(found) == {"team": (1, 15, 0)}
    assert found.undated == 1


def test_storage_is_filtered(stores: Stores, send: Send) -> None:
    send("push", "team/app", "v1", 3, 5, 10)
    send("push", "team/db", "v1", 2, 5, 20)
    send("push", "ubuntu", "v1", 2, 40)
    send("push", "team/app", "v1", 1, 5, 80, registry="other")

    assert rows(storage(stores, registry="other")) == {"team": (1, 85, 85)}
    assert rows(storage(stores, namespace="team", registry="default")) == {"team": (2, 35, 35)}
    assert rows(storage(stores, namespace="")) == {"": (1, 40, 40)}
    assert rows(storage(stores, repository="team/db")) == {"team": (1, 25, 25)}
    assert rows(storage(stores, days=2, repository="team/app", registry="default")) == {
        "team": (1, 15, 0)
    }
    assert [row.registry for row in storage(stores).namespaces] == ["default", "default", "other"]


def test_what_may_not_be_seen_changes_nothing_of_the_answer() -> None:
    twins = []
    for hidden in (False, True):
        stores = Stores(mongomock.MongoClient(tz_aware=True)["registry"])
        send = send_to(stores)
        send("push", "ops/app", "v1", 5, 5, 10)
        if hidden:
            send("push", "team/app", "v1", 9, 5, 10)
            send("push", "team/app", "v2", 1, 5, 20)
            send("pull", "ops2/app", "v1", 1, 5)
        scopes = {name: stores.catalogue.find_scope(rule(name, BOB)) for name in ("bob", "mallory")}
        twins.append({name: storage(stores, scope) for name, scope in scopes.items()})

    assert twins[0] == twins[1]
    assert rows(twins[1]["bob"]) == {"ops": (1, 15, 15)}
    assert rows(twins[1]["mallory"]) == {}
    assert (twins[1]["mallory"].size, twins[1]["mallory"].by_day) == (0, {})
