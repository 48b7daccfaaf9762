"""The catalogue follows from what happened, whatever comes first, in batches of any size."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import mongomock
import pytest
from builders import rule
from histories import (
    DIGESTS,
    NAMES,
    deliver,
    deliveries,
    is_deleted,
    make_event,
    played,
    tag_at,
    tags_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from mongomock import Collection
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from app.errors import StoreUnavailable
from app.rules.events import Event
from app.store import Stores
from app.store.catalogue import CatalogueQuery, Repointed

ONE, TWO, THREE = DIGESTS
COLLECTIONS = ("repositories", "tags", "tag_history")


def fresh() -> tuple[Stores, Any]:
    database: Any = mongomock.MongoClient(tz_aware=True)["registry"]
    return Stores(database), database


def contents(database: Any) -> dict[str, list[Any]]:
    return {
        name: sorted(database[name].find(), key=lambda row: str(row["_id"])) for name in COLLECTIONS
    }


def known_tags(database: Any) -> dict[tuple[str, str], dict[str, Any]]:
    names = ("digest", "media_type", "pushed_at", "pushed_by", "first_pushed_at", "seen_by")
    names += ("seen_at", "deleted_at")
    found = {}
    for row in database["tags"].find():
        assert row["deleted"] == bool(row["deleted_at"])
        found[row["repository"], row["tag"]] = {n: row[n] for n in names if n in row}
    return found


def known_repositories(database: Any) -> dict[str, tuple[Any, bool]]:
    return {
        row["repository"]: (row.get("pushed_at"), row["deleted"])
        for row in database["repositories"].find()
    }


def expected_repositories(names: dict[str, list[Event]]) -> dict[str, tuple[Any, bool]]:
    return {
        name: (
            max((e.timestamp for e in happened if e.action == "push"), default=None),
            is_deleted(happened),
        )
        for name, happened in names.items()
    }


def assert_played(database: Any, events: Sequence[Event]) -> None:
    names = played(events)
    expected = {(name, tag): row for name in names for tag, row in tags_of(names[name]).items()}
    assert known_tags(database) == expected
    assert known_repositories(database) == expected_repositories(names)


@settings(max_examples=60, deadline=None)
@given(deliveries())
def test_the_catalogue_is_what_happened_played_through(
    delivery: tuple[list[Event], list[list[Event]]],
) -> None:
    events, batches = delivery
    stores, database = fresh()
    in_order, other = fresh()

    deliver(stores, batches)
    deliver(in_order, [[event] for event in events])

    assert_played(database, events)
    assert contents(database) == contents(other)


class Projector:
    """Derives the tags of pulls as they come, and anew where it is told to."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.pulls: dict[str, Event] = {}
        self.found: dict[str, str | None] = {}

    def work(self, batch: Sequence[Event]) -> None:
        self.stores.events.add(list({event.id: event for event in batch}.values()))
        repointed = self.stores.catalogue_writer.apply(batch)
        new = {event.id: event for event in batch if event.action in ("pull", "check")}
        self.pulls |= new
        concerned = [
            pull for pull in self.pulls.values() if pull.id in new or is_concerned(pull, repointed)
        ]
        self.found |= self.stores.catalogue.find_tags_at(concerned)


def project(stores: Stores, batches: Iterable[Sequence[Event]]) -> dict[str, str | None]:
    projector = Projector(stores)
    for batch in batches:
        projector.work(batch)
    return projector.found


def is_concerned(pull: Event, repointed: Iterable[Repointed]) -> bool:
    place = (pull.registry, pull.repository, pull.digest)
    return any(each[:3] == place and pull.position > each.position for each in repointed)


@settings(max_examples=60, deadline=None)
@given(deliveries())
def test_a_pull_has_the_tag_that_pointed_to_its_digest_then_once_what_changed_is_derived_anew(
    delivery: tuple[list[Event], list[list[Event]]],
) -> None:
    events, batches = delivery
    stores, _ = fresh()
    pulls = [event for event in events if event.action in ("pull", "check")]
    expected = {pull.id: tag_at(events, pull) for pull in pulls}

    assert project(stores, batches) == expected
    assert stores.catalogue.find_tags_at(pulls) == expected


@settings(max_examples=60, deadline=None)
@given(deliveries(max_size=10), st.integers(0, 25), st.booleans())
def test_a_batch_that_broke_off_anywhere_and_is_repeated_leaves_nothing_behind(
    delivery: tuple[list[Event], list[list[Event]]], survived: int, is_new_process: bool
) -> None:
    events, batches = delivery
    stores, database = fresh()
    in_order, other = fresh()
    pulls = [event for event in events if event.action in ("pull", "check")]
    projector = Projector(stores)
    with failing_after(survived):
        for batch in batches:
            try:
                projector.work(batch)
            except StoreUnavailable:
                if is_new_process:
                    projector.stores = Stores(database)
                projector.work(batch)
    deliver(in_order, [[event] for event in events])

    assert contents(database) == contents(other)
    assert projector.found == {pull.id: tag_at(events, pull) for pull in pulls}


@contextlib.contextmanager
def failing_after(writes: int) -> Iterator[None]:
    """One write fails, the one after so many."""
    left = [writes]

    def counted(method: Any) -> Any:
        def called(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.name in COLLECTIONS:
                left[0] -= 1
                if left[0] == -1:
                    raise AutoReconnect("gone")
            return method(self, *args, **kwargs)

        return called

    names = ("insert_many", "bulk_write", "replace_one", "delete_many", "delete_one")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(Collection, name, counted(getattr(Collection, name)))
        yield


def random_history(chance: random.Random, size: int) -> list[Event]:
    events = []
    for at in range(size):
        action = chance.choice(["push", "push", "push", "pull", "check", "delete", "rename"])
        given: dict[str, Any] = {}
        if action == "rename":
            given["from_repository"] = chance.choice(NAMES)
        elif action != "delete" or chance.random() < 0.8:
            given["digest"] = chance.choice(DIGESTS)
            if action != "delete" and chance.random() < 0.8:
                given["tag"] = chance.choice(("v1", "v2"))
            elif action == "delete" and chance.random() < 0.5:
                given = {"tag": chance.choice(("v1", "v2"))}
        events.append(make_event(action, chance.choice(NAMES), at=at, **given))
    return events


@pytest.mark.wire
@pytest.mark.parametrize("seed", range(3))
def test_on_a_server_too_the_catalogue_is_what_happened_played_through(
    wire_database: Database[Any], seed: int
) -> None:
    chance = random.Random(seed)
    events = random_history(chance, 40)
    stores = Stores(wire_database.client.get_database(wire_database.name))
    stores.ensure_indexes()
    coming = [*events, *chance.sample(events, 5)]
    chance.shuffle(coming)
    pulls = [event for event in events if event.action in ("pull", "check")]

    found = project(stores, [coming[start : start + 4] for start in range(0, len(coming), 4)])

    assert_played(wire_database, events)
    assert found == {pull.id: tag_at(events, pull) for pull in pulls}
    in_order, other = fresh()
    deliver(in_order, [events])
    assert contents(wire_database) == contents(other)


# Writes


def test_a_push_in_order_needs_no_look_up_and_repeated_pulls_no_write(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushes = [
        make_event("push", tag="v1", digest=digest, at=at) for at, digest in enumerate(DIGESTS)
    ]
    pulls = [make_event("pull", tag="v1", digest=THREE, at=10 + at) for at in range(3)]
    mock_stores.catalogue_writer.apply(pushes[:2])
    mock_stores.catalogue_writer.apply(pulls[:1])
    calls: list[str] = []
    for name in ("find", "insert_many", "bulk_write", "replace_one", "delete_many"):
        method = getattr(Collection, name)

        def called(
            self: Any, *args: Any, _method: Any = method, _name: str = name, **rest: Any
        ) -> Any:
            calls.append(f"{_name} {self.name}")
            return _method(self, *args, **rest)

        monkeypatch.setattr(Collection, name, called)

    repointed = mock_stores.catalogue_writer.apply(pushes[2:])

    assert calls == ["insert_many tag_history", "bulk_write repositories", "bulk_write tags"]
    position = pushes[2].position
    assert repointed == {
        Repointed("default", "a", THREE, position),
        Repointed("default", "a", TWO, position),
    }
    calls.clear()

    assert mock_stores.catalogue_writer.apply(pulls[1:]) == set()
    assert calls == []


# What the lists and pages read


def read_tags(stores: Stores, **query: Any) -> list[Any]:
    scope = stores.catalogue.find_scope(rule())
    return stores.catalogue.find_tags(CatalogueQuery(**query), scope).items


def test_a_tag_that_was_only_pulled_is_known_with_the_digest_of_the_newest_pull(
    stores: Stores,
) -> None:
    events = [
        make_event("check", "library/nginx", tag="1.27", digest=ONE, at=1),
        make_event("pull", "library/nginx", tag="1.27", digest=TWO, at=3),
        make_event("pull", "library/nginx", digest=THREE, at=4),
        make_event("pull", "library/nginx", tag="1.26", digest=ONE, at=5),
    ]

    deliver(stores, [events[2:], events[:2]])

    tags = read_tags(stores, q="nginx:1.*")
    assert [(tag.tag, tag.digest, tag.seen_by) for tag in tags] == [
        ("1.26", ONE, "pull"),
        ("1.27", TWO, "pull"),
    ]
    history = stores.catalogue.find_history(tags[1], None)
    assert [(move.digest, move.since, move.seen_by) for move in history] == [
        (TWO, events[1].timestamp, "pull"),
        (ONE, events[0].timestamp, "pull"),
    ]
    assert tags[1].seen_at == events[1].timestamp
    assert [tag.tag for tag in read_tags(stores, digest=ONE)] == ["1.26"]


@pytest.mark.parametrize("carried_out", range(3))
def test_an_older_sighting_that_breaks_off_loses_no_newer_one(
    monkeypatch: pytest.MonkeyPatch, carried_out: int
) -> None:
    newer = make_event("pull", tag="v1", digest=ONE, at=5)
    older = make_event("pull", tag="v1", digest=ONE, at=1)
    stores, database = fresh()
    deliver(stores, [[newer]])
    written = 0

    def break_off(self: Any, writes: Sequence[Any], **more: Any) -> Any:
        nonlocal written
        for each in writes:
            if self.name == "tag_history" and written == carried_out:
                raise AutoReconnect("gone")
            written += self.name == "tag_history"
            result = bulk_write(self, [each], **more)
        return result

    bulk_write = Collection.bulk_write
    with monkeypatch.context() as patch, contextlib.suppress(StoreUnavailable):
        patch.setattr(Collection, "bulk_write", break_off)
        stores.catalogue_writer.apply([older])
    deliver(Stores(database), [[older]])

    ends = {row["position"] for row in database["tag_history"].find()}
    assert ends == {older.position, newer.position}


@pytest.mark.parametrize(
    ("event", "digest"),
    [
        (make_event("push", tag="v1", digest=TWO, at=1), TWO),
        (make_event("delete", tag="v1", at=1), None),
    ],
)
def test_a_push_or_delete_overrules_what_pulls_told_even_one_that_is_older(
    stores: Stores, event: Event, digest: str | None
) -> None:
    pull = make_event("pull", tag="v1", digest=ONE, at=5)

    deliver(stores, [[pull], [event], [pull]])

    (tag,) = read_tags(stores, deleted=True)
    assert (tag.digest, tag.seen_by) == (digest, "push")
    assert [move.digest for move in stores.catalogue.find_history(tag, None)] == [digest][
        : bool(digest)
    ]


def test_a_pull_after_the_repository_was_deleted_brings_it_back_whatever_comes_first(
    stores: Stores,
) -> None:
    push = make_event("push", tag="v1", digest=ONE, at=1)
    delete = make_event("delete", at=2)
    pull = make_event("pull", digest=ONE, at=3)
    scope = stores.catalogue.find_scope(rule())

    deliver(stores, [[push, pull], [delete]])

    (found,) = stores.catalogue.find_repositories(CatalogueQuery(), scope).items
    assert not found.deleted
    (tag,) = read_tags(stores, deleted=True)
    assert tag.deleted


def test_a_rename_takes_along_tags_history_and_late_pushes_and_leaves_the_name_to_others(
    stores: Stores,
) -> None:
    events = [
        make_event("push", "team/app", tag="v1", digest=ONE, at=1),
        make_event("push", "team/app/deep", tag="v1", digest=TWO, at=2),
        make_event("push", "team/apple", tag="v1", digest=TWO, at=3),
        make_event("rename", "crew/app", from_repository="team/app", at=5),
        make_event("push", "team/app", tag="v2", digest=THREE, at=6),
    ]
    late = make_event("push", "team/app", tag="v1", digest=TWO, at=4)

    deliver(stores, [events, [late]])

    assert [(tag.namespace, tag.repository, tag.tag, tag.digest) for tag in read_tags(stores)] == [
        ("crew", "crew/app", "v1", TWO),
        ("crew/app", "crew/app/deep", "v1", TWO),
        ("team", "team/app", "v2", THREE),
        ("team", "team/apple", "v1", TWO),
    ]
    moved = read_tags(stores)[0]
    assert [move.digest for move in stores.catalogue.find_history(moved, None)] == [TWO, ONE]
    assert stores.catalogue.find_names() == ["crew/app", "crew/app/deep", "team/app", "team/apple"]


def test_the_registry_of_a_rename_alone_is_renamed(stores: Stores) -> None:
    push = make_event("push", "a", tag="v1", digest=ONE, at=1)
    other = make_event("push", "a", tag="v1", digest=ONE, at=2, registry="other")
    rename = make_event("rename", "b", from_repository="a", at=3)

    deliver(stores, [[push, other, rename]])

    assert [(tag.registry, tag.repository) for tag in read_tags(stores)] == [
        ("other", "a"),
        ("default", "b"),
    ]


def test_a_registry_is_removed_and_another_stays(stores: Stores) -> None:
    push = make_event("push", tag="v1", digest=ONE, at=1)
    other = make_event("push", tag="v1", digest=ONE, at=2, registry="other")
    deliver(stores, [[push, other]])

    stores.catalogue_writer.remove_registry("other")
    deliver(stores, [[make_event("push", tag="v2", digest=ONE, at=3)]])

    assert [(tag.registry, tag.tag) for tag in read_tags(stores)] == [
        ("default", "v1"),
        ("default", "v2"),
    ]
    assert stores.catalogue.find_registries() == ["default"]


def test_more_tags_than_one_command_takes_are_written_and_found(stores: Stores) -> None:
    pushes = [make_event("push", tag=f"v{number}", digest=ONE, at=number) for number in range(250)]
    pull = make_event("pull", digest=ONE, at=300)

    deliver(stores, [pushes, [make_event("delete", digest=ONE, at=260)]])

    assert read_tags(stores) == []
    assert stores.catalogue.find_tags_at([pull]) == {pull.id: None}


@pytest.mark.parametrize("writes", range(6))
def test_a_push_that_broke_off_does_not_name_what_was_pulled_before_it(writes: int) -> None:
    stores, _ = fresh()
    deliver(stores, [[make_event("pull", tag="v1", digest=ONE, at=1)]])
    before, after = (make_event("pull", digest=ONE, at=at) for at in (5, 15))

    with failing_after(writes), contextlib.suppress(StoreUnavailable):
        stores.catalogue_writer.apply([make_event("push", tag="v1", digest=ONE, at=10)])

    tags = stores.catalogue.find_tags_at([before, after])
    assert tags == {before.id: None, after.id: "v1" if writes else None}
