"""Events into the store: what is one pull, exactly once, catalogue in any order of arrival."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from builders import INDEX, NOW, deliver, digest, envelope, recorded_bodies, rule, wire_event
from pymongo.errors import AutoReconnect

from app.errors import StoreUnavailable
from app.notifications.loading import retry_rejected
from app.notifications.projector import Projector
from app.rules.events import Event
from app.store import Stores
from app.store.catalogue import CatalogueQuery, Tag
from app.store.events import RecordQuery
from app.store.paging import LONGEST_SLICE

Receive = Callable[..., int]


def records(stores: Stores, **query: Any) -> list[Event]:
    scope = stores.catalogue.find_scope(rule())
    return stores.events.find_page(RecordQuery(**query), scope, limit=1000).items


def tags(stores: Stores, **query: Any) -> list[Tag]:
    scope = stores.catalogue.find_scope(rule())
    return stores.catalogue.find_tags(CatalogueQuery(**query), scope, limit=1000).items


def summary(events: list[Event]) -> list[tuple[str, str | None, str | None]]:
    return [(event.action, event.tag, event.tag_from) for event in events]


def test_one_docker_pull_is_one_pull_with_its_tag(stores: Stores, receive: Receive) -> None:
    receive(
        wire_event("check", tag="v1", of="index", media_type=INDEX, children=["amd64"]),
        wire_event("pull", of="index", media_type=INDEX, children=["amd64"], at=0.1),
        wire_event("pull", of="amd64", at=0.2),
        wire_event("pull", of="layer", at=0.3, media_type="application/octet-stream"),
    )

    assert summary(records(stores)) == [("pull", "v1", "paired")]
    assert len(records(stores, parts=True)) == 3


def test_one_docker_pull_in_one_envelope_is_one_pull(stores: Stores, receive: Receive) -> None:
    received = receive(
        wire_event("check", tag="v1", of="index", media_type=INDEX, children=["amd64"]),
        wire_event("pull", of="index", media_type=INDEX, children=["amd64"], at=0.1),
        wire_event("pull", of="amd64", at=0.2),
        together=True,
    )

    assert received == 3
    assert summary(records(stores)) == [("pull", "v1", "paired")]


def test_a_lone_head_is_a_check(stores: Stores, receive: Receive) -> None:
    receive(wire_event("check", tag="v1"))

    assert summary(records(stores)) == [("check", "v1", "event")]


@pytest.mark.parametrize(
    "other",
    [
        {"actor": "bob"},
        {"address": "10.0.0.2:5000"},
        {"repository": "team/other"},
        {"of": "another"},
        {"at": 61},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_check_of_something_else_is_not_paired(
    stores: Stores, receive: Receive, other: dict[str, Any]
) -> None:
    receive(wire_event("check", tag="v1"), wire_event("pull", **{"at": 1} | other))

    assert summary(records(stores)) == [("pull", None, None), ("check", "v1", "event")]


def test_two_pulls_take_the_tags_of_their_own_checks(stores: Stores, receive: Receive) -> None:
    receive(
        wire_event("check", tag="v1", at=0),
        wire_event("pull", at=1),
        wire_event("check", tag="stable", at=2),
        wire_event("pull", at=3),
    )

    assert summary(records(stores)) == [("pull", "stable", "paired"), ("pull", "v1", "paired")]


def test_a_digest_that_one_tag_names_is_pulled_under_that_tag(
    stores: Stores, receive: Receive
) -> None:
    receive(wire_event("push", tag="v1"), wire_event("pull", at=1))

    assert summary(records(stores, action="pull")) == [("pull", "v1", "history")]


def test_a_digest_that_two_tags_name_is_pulled_under_none(stores: Stores, receive: Receive) -> None:
    receive(
        wire_event("push", tag="v1"),
        wire_event("push", tag="stable", at=1),
        wire_event("pull", at=2),
    )

    assert summary(records(stores, action="pull")) == [("pull", None, None)]


def test_children_are_folded_even_when_the_registry_sends_no_references(
    stores: Stores, receive: Receive
) -> None:
    receive(
        wire_event("pull", tag="v1", of="index", media_type=INDEX),
        wire_event("pull", of="amd64", at=1),
    )

    assert summary(records(stores)) == [("pull", "v1", "event")]
    child = records(stores, parts=True, digest=digest("amd64"))[0]
    assert child.parent == digest("index")


def test_a_manifest_that_is_no_child_of_the_index_is_counted(
    stores: Stores, receive: Receive
) -> None:
    receive(
        wire_event("pull", tag="v1", of="index", media_type=INDEX, children=["amd64"]),
        wire_event("pull", of="another", at=1),
    )

    assert len(records(stores)) == 2


@pytest.mark.parametrize("together", [False, True])
def test_a_push_of_several_platforms_is_one_push(
    stores: Stores, receive: Receive, together: bool
) -> None:
    receive(
        wire_event("push", of="amd64"),
        wire_event("push", of="arm64", at=1),
        wire_event("push", of="another", at=1),
        wire_event("push", of="amd64", at=1, actor="bob"),
        wire_event("push", tag="kept", of="arm64", at=1),
        wire_event(
            "push", tag="v1", of="index", media_type=INDEX, children=["amd64", "arm64"], at=2
        ),
        together=together,
    )

    found = [(event.tag, event.actor, event.digest) for event in records(stores)]
    assert sorted(found, key=str) == [
        ("kept", "alice", digest("arm64")),
        ("v1", "alice", digest("index")),
        (None, "alice", digest("another")),
        (None, "bob", digest("amd64")),
    ]


def test_the_same_envelope_three_times_is_stored_once(stores: Stores, receive: Receive) -> None:
    event = wire_event("push", tag="v1")

    received = [receive(event) for _ in range(3)]

    assert received == [1, 0, 0]
    assert len(records(stores)) == 1


def test_the_same_event_twice_in_one_envelope_is_one(stores: Stores, receive: Receive) -> None:
    event = wire_event("pull", tag="v1")

    assert receive(event, event, together=True) == 1


def test_a_broken_event_in_the_middle_stores_the_rest(stores: Stores, receive: Receive) -> None:
    received = receive(
        wire_event("push", tag="v1"),
        {"id": "broken", "action": "push"},
        wire_event("push", tag="v2"),
        together=True,
    )

    assert received == 2
    assert [tag.tag for tag in tags(stores)] == ["v1", "v2"]
    assert '"broken"' in next(stores.rejected.find_all()).body


def test_a_rejected_event_is_kept_once_however_often_it_comes(
    stores: Stores, receive: Receive
) -> None:
    for _ in range(3):
        receive({"id": "broken"})

    assert len(list(stores.rejected.find_all())) == 1


def test_what_comes_after_a_rejected_event_that_is_known_is_kept_too(
    stores: Stores, receive: Receive
) -> None:
    broken = [{"id": f"broken {number}"} for number in range(250)]
    receive(broken[0])

    receive(*broken, together=True)

    assert stores.rejected.count() == 250


def test_a_rejected_event_that_is_understood_later_can_be_retried(
    stores: Stores, receive: Receive
) -> None:
    receive({"id": "broken"})
    kept = next(stores.rejected.find_all())
    fixed = type(kept)(kept.id, "default", "old", envelope(wire_event())[12:-2].decode(), NOW)

    stored = retry_rejected(stores, Projector(stores), [fixed, kept])

    assert stored == 1
    assert len(records(stores)) == 1


def test_events_of_two_registries_with_one_id_are_two(stores: Stores, receive: Receive) -> None:
    event = wire_event("push", tag="v1")

    receive(event)
    receive(event, registry="second")

    assert {event.registry for event in records(stores)} == {"default", "second"}
    assert len(tags(stores)) == 2


def test_a_blob_delete_is_in_no_list_and_a_manifest_delete_is(
    stores: Stores, receive: Receive
) -> None:
    receive(wire_event("push", of="image"))

    received = receive(
        wire_event("delete", of="some blob", at=1), wire_event("delete", of="image", at=2)
    )

    assert received == 2
    assert [event.digest for event in records(stores, action="delete")] == [digest("image")]


def test_a_manifest_known_from_a_pull_alone_is_recognised_when_deleted(
    stores: Stores, receive: Receive
) -> None:
    received = receive(
        wire_event("pull", tag="v1", of="index", media_type=INDEX),
        wire_event("delete", of="index", at=1),
    )

    assert received == 2
    assert records(stores, action="delete")[0].kind == "index"


def test_the_delete_of_what_a_tag_pointed_to_stays_one_when_a_push_before_it_comes_late(
    stores: Stores, receive: Receive
) -> None:
    receive(
        wire_event("push", tag="v1", of="old"),
        wire_event("delete", of="old", at=10),
        wire_event("push", tag="v1", of="new", at=5),
    )

    [delete] = records(stores, action="delete")
    assert (delete.digest, delete.kind) == (digest("old"), "image")


def test_a_mount_is_recorded_with_where_it_came_from(stores: Stores, receive: Receive) -> None:
    receive(
        wire_event(
            "mount", of="blob", media_type="application/octet-stream", fromRepository="team/base"
        )
    )

    assert records(stores) == []
    [mount] = records(stores, action="mount")
    assert (mount.action, mount.kind, mount.from_repository) == ("mount", "blob", "team/base")


def test_a_repository_is_known_from_its_first_pull(stores: Stores, receive: Receive) -> None:
    receive(wire_event("pull", "old/app", tag="v1"))

    page = stores.catalogue.find_repositories(CatalogueQuery(), stores.catalogue.find_scope(rule()))
    assert [(row.repository, row.pushed_at) for row in page.items] == [("old/app", None)]


HISTORY = [
    wire_event("push", tag="v1", of="one", at=1, id="h1"),
    wire_event("push", tag="v2", of="one", at=2, id="h2"),
    wire_event("push", tag="v1", of="two", at=3, id="h3"),
    wire_event("delete", of="one", at=4, id="h4"),
    wire_event("push", tag="v3", of="one", at=5, id="h5"),
    wire_event("delete", tag="v1", of=None, at=6, id="h6"),
]


def catalogue_of(stores: Stores) -> list[tuple[str, str | None, bool, list[str | None]]]:
    return [
        (
            tag.tag,
            tag.digest,
            tag.deleted,
            [move.digest for move in stores.catalogue.find_history(tag, None)],
        )
        for tag in tags(stores, deleted=True)
    ]


EXPECTED = [
    ("v1", digest("two"), True, [None, digest("two"), digest("one")]),
    ("v2", digest("one"), True, [None, digest("one")]),
    ("v3", digest("one"), False, [digest("one")]),
]


def test_pushes_and_deletes_in_order_give_the_catalogue(stores: Stores, receive: Receive) -> None:
    receive(*HISTORY)

    assert catalogue_of(stores) == EXPECTED


def test_pushes_and_deletes_in_any_order_give_the_same_catalogue(
    mock_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All of it lies within seconds: one look into the past will do.
    monkeypatch.setattr("app.store.paging.FIRST_SLICE", 2 * LONGEST_SLICE)
    for order in itertools.permutations(HISTORY):
        mock_database.client.drop_database(mock_database.name)
        stores = Stores(mock_database)
        stores.ensure_indexes()
        for event in order:
            deliver(stores, envelope(event), now=NOW)

        assert catalogue_of(stores) == EXPECTED, [event["id"] for event in order]


def test_shuffled_and_repeated_deliveries_give_the_same_catalogue_on_the_server(
    stores: Stores, receive: Receive
) -> None:
    shuffled = [*HISTORY, *HISTORY]
    random.Random(7).shuffle(shuffled)

    receive(*shuffled)

    assert catalogue_of(stores) == EXPECTED


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_a_deleted_repository_loses_its_tags_whatever_comes_first(
    stores: Stores, receive: Receive, order: tuple[int, ...]
) -> None:
    events = [
        wire_event("push", tag="v1", at=1),
        wire_event("delete", of=None, at=2),
        wire_event("push", "team/other", tag="v1", at=3),
    ]

    receive(*(events[index] for index in order))

    assert [(tag.repository, tag.tag) for tag in tags(stores)] == [("team/other", "v1")]
    scope = stores.catalogue.find_scope(rule())
    found = stores.catalogue.find_repositories(CatalogueQuery(deleted=True), scope).items
    assert [(row.repository, row.deleted) for row in found] == [
        ("team/app", True),
        ("team/other", False),
    ]


def test_a_push_after_the_repository_was_deleted_brings_it_back(
    stores: Stores, receive: Receive
) -> None:
    receive(
        wire_event("push", tag="v1", at=1),
        wire_event("delete", of=None, at=2),
        wire_event("push", tag="v2", at=3),
    )

    assert [tag.tag for tag in tags(stores)] == ["v2"]
    scope = stores.catalogue.find_scope(rule())
    assert len(stores.catalogue.find_repositories(CatalogueQuery(), scope).items) == 1


def test_the_recorded_events_give_these_counts_and_this_catalogue(stores: Stores) -> None:
    new = sum(deliver(stores, body, now=NOW) for body in recorded_bodies())

    assert new == 89  # three are deletes of blobs
    assert Counter(event.action for event in records(stores)) == {
        "push": 29,  # 15 more are children of the five indexes
        "pull": 16,
        "check": 2,
        "delete": 4,  # with the tags that they took
    }
    assert Counter(event.action for event in records(stores, parts=True)) == {
        "push": 44,
        "pull": 25,
        "check": 4,
        "delete": 10,
    }
    assert len(records(stores, action="mount")) == 3
    found = [(tag.repository, tag.tag, tag.kind) for tag in tags(stores)]
    long_name = "/".join([letter * 60 for letter in "nmk"]) + "/x"
    signature = "sha256-2f6cb6b589fa90cd48263084ee8ed8e584987746da77a3118b0fa8b51e16935f.sig"
    assert found == [
        ("a/b/c/d", "t", "image"),
        ("a/b/c/d/e-f.g__h", "v1.0_x-y", "image"),
        ("charts/mychart", "0.1.0", "chart"),
        ("ev2/multi", "oci", "index"),
        ("ev2/multi", "v1", "index"),
        ("ev2/skmulti", "v1", "index"),
        (long_name, "t" * 128, "image"),
        ("q/app", "afterrestart", "image"),
        ("q/app", "lost0", "image"),
        ("q/app", "slow1", "image"),
        ("single", "t", "image"),
        ("team/app", "multi", "index"),
        ("team/app", "sbom", "chart"),
        ("team/app", signature, "signature"),
        ("team/app", "stable", "image"),
        ("team/many", "v1", "image"),
        ("team/multi", "dlist", "index"),
        ("team/multi", "v1", "index"),
        ("team/oci", "v1", "image"),
    ]
    gone = [(tag.repository, tag.tag) for tag in tags(stores, deleted=True) if tag.deleted]
    assert gone == [
        ("busybox", "latest"),
        ("ev2/app", "a"),
        ("ev2/app", "b"),
        ("team/app", "v1"),
        ("team/app", "v2"),
    ]


class _FailingCollection:
    """A collection that works for so many writes and then loses its connection."""

    writes_left = 0

    def __init__(self, collection: Any) -> None:
        self._collection = collection

    def __getattr__(self, name: str) -> Any:
        if name in ("insert_one", "insert_many", "bulk_write", "update_one", "update_many"):
            _FailingCollection.writes_left -= 1
            if _FailingCollection.writes_left < 0:
                raise AutoReconnect("connection closed")
        return getattr(self._collection, name)


class _FailingDatabase:
    def __init__(self, database: Any) -> None:
        self._database = database

    def __getitem__(self, name: str) -> Any:
        return _FailingCollection(self._database[name])


def test_a_crash_between_any_two_writes_followed_by_redelivery_loses_and_doubles_nothing(
    mock_database: Any,
) -> None:
    events = [
        *HISTORY,
        {"id": "broken"},
        wire_event("check", tag="v3", of="one", at=7, id="h7"),
        wire_event("pull", of="one", at=8, id="h8"),
        wire_event("delete", "team/other", of="late", at=10, id="h9"),
        wire_event("push", "team/other", of="late", at=9, id="h10"),
        wire_event("pull", "team/third", of="three", at=12, id="h11"),
        wire_event("push", "team/third", tag="late", of="three", at=11, id="h12"),
    ]
    for survived in range(24):
        mock_database.client.drop_database(mock_database.name)
        stores = Stores(mock_database)
        stores.ensure_indexes()
        for event in events:
            _FailingCollection.writes_left = survived % 8
            failing = Stores(_FailingDatabase(mock_database))  # type: ignore[arg-type]
            for _ in range(10):  # the registry sends until it gets a 2xx
                try:
                    deliver(failing, envelope(event), now=NOW)
                    break
                except StoreUnavailable:
                    _FailingCollection.writes_left = 10

        assert [row for row in catalogue_of(stores) if row[0] != "late"] == EXPECTED
        found = Counter(event.id for event in records(stores, parts=True))
        assert found == {f"h{number}": 1 for number in range(1, 13)}
        assert summary(records(stores, action="pull")) == [
            ("pull", "late", "history"),
            ("pull", "v3", "paired"),
        ]
        assert len(records(stores, action="delete", repository="team/other")) == 1
        assert len(list(stores.rejected.find_all())) == 1


def test_the_window_of_a_pairing_is_sixty_seconds(stores: Stores, receive: Receive) -> None:
    receive(
        wire_event("check", tag="v1", at=NOW),
        wire_event("pull", at=NOW + timedelta(seconds=60)),
    )

    assert summary(records(stores)) == [("pull", "v1", "paired")]


def rename(old: str, new: str, at: float) -> dict[str, Any]:
    """GitLab's event of a repository that has another name from now on."""
    event = wire_event("push", new, of=None, at=at, id=f"rename {old}")
    renaming = {"type": "name", "from": old, "to": new}
    return event | {"action": "rename", "target": {"repository": old, "rename": renaming}}


def test_what_broke_off_before_a_rename_stands_under_the_new_name(mock_stores: Stores) -> None:
    """The repository of its first push was not known when the rename came."""
    push = envelope(wire_event("push", "team/old", tag="v1", at=1))
    repositories = mock_stores.catalogue_writer._repositories
    add, repositories.add = repositories.add, None  # type: ignore[method-assign, assignment]
    with pytest.raises(TypeError):
        deliver(mock_stores, push, now=NOW)
    repositories.add = add  # type: ignore[method-assign]

    deliver(mock_stores, envelope(rename("team/old", "team/new", 2)), now=NOW)
    deliver(mock_stores, push, now=NOW)

    [tag] = mock_stores.catalogue_writer._tags._collection.find()
    assert (tag["repository"], tag["tag"]) == ("team/new", "v1")


@pytest.mark.parametrize("together", [False, True])
def test_a_renamed_repository_keeps_its_tags_and_what_came_with_the_rename(
    stores: Stores, receive: Receive, together: bool
) -> None:
    events = [
        wire_event("push", "team/old", tag="v1", of="one", at=1),
        wire_event("pull", "team/old", tag="seen", of="one", at=2),
        rename("team/old", "team/new", at=3),
        wire_event("push", "team/new", tag="v2", of="two", at=4),
        wire_event("pull", "team/new", of="one", at=5),
    ]

    receive(*events, together=together)
    receive(*events, together=together)

    assert {(tag.repository, tag.tag) for tag in tags(stores)} >= {
        ("team/new", "v1"),
        ("team/new", "v2"),
    }
    [pull] = records(stores, repository="team/new", action="pull")
    assert pull.tag == "v1"


@pytest.mark.parametrize("together", [False, True])
def test_a_repository_that_is_pulled_after_it_was_deleted_is_there(
    stores: Stores, receive: Receive, together: bool
) -> None:
    events = [
        wire_event("pull", tag="v1", at=3),
        wire_event("delete", of=None, at=2),
        wire_event("push", tag="v1", at=1),
    ]

    receive(*events, together=together)

    scope = stores.catalogue.find_scope(rule())
    found = stores.catalogue.find_repositories(CatalogueQuery(deleted=True), scope).items
    assert [row.deleted for row in found] == [False]
