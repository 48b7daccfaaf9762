"""Working events in: facts that come late, what another process wrote, and what is far away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise, permutations
from typing import Any

import pytest
from builders import IMAGE, INDEX, NOW, deliver, digest, envelope, rule, wire_event

from app.errors import StoreUnavailable
from app.notifications import derivation as module
from app.notifications.derivation import Derivation
from app.notifications.recent import LATE, PULLS_OF_INDEXES
from app.rules.events import Event, parse_envelope
from app.store import Stores
from app.store.catalogue import CatalogueQuery
from app.store.events import EventStore, RecordQuery
from app.store.manifests import ManifestStore

EDGE_S = (LATE + PULLS_OF_INDEXES).total_seconds()  # so much is read before a pull


def records(stores: Stores, **query: Any) -> list[Event]:
    scope = stores.catalogue.find_scope(rule())
    return stores.events.find_page(RecordQuery(**query), scope, limit=1000).items


def told(stores: Stores, **query: Any) -> list[tuple[str, str | None, str | None]]:
    """What was done, in order of time: action, tag and who told the tag."""
    rows = sorted(records(stores, **query), key=lambda row: row.position)
    return [(row.action, row.tag, row.tag_from) for row in rows]


def parse(*events: Any) -> list[Event]:
    return list(parse_envelope(envelope(*events), "default", NOW).events)


def index(action: str, *children: str, at: float, **fields: Any) -> dict[str, Any]:
    return wire_event(
        action, of="index", media_type=INDEX, at=at, children=list(children) or None, **fields
    )


# What another process wrote


def test_who_forgets_sees_what_another_one_stored_since(mock_stores: Stores) -> None:
    lasting = Derivation(mock_stores)
    lasting.work_in(parse(wire_event("pull", at=0)), NOW)  # its neighbourhood is at hand
    deliver(mock_stores, envelope(wire_event("check", tag="v1", at=100)), now=NOW)

    lasting.forget()
    lasting.work_in(parse(wire_event("pull", at=101)), NOW)

    assert told(mock_stores) == [("pull", None, None), ("pull", "v1", "paired")]


def test_who_forgets_sees_what_another_one_learned_of_a_manifest(mock_stores: Stores) -> None:
    lasting = Derivation(mock_stores)
    lasting.work_in(parse(index("pull", at=0)), NOW)  # whose children nobody told
    deliver(mock_stores, envelope(index("push", "amd64", "arm64", at=1)), now=NOW)

    lasting.forget()
    parts = [index("pull", at=1000)]
    parts += [wire_event("pull", of=child, at=1001) for child in ("amd64", "arm64")]
    lasting.work_in(parse(*parts), NOW)

    assert len(records(mock_stores, action="pull")) == 2


def test_manifests_that_are_not_at_hand_are_read(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_MANIFESTS", 1)
    lasting = Derivation(mock_stores)
    events = [
        index("push", "amd64", "arm64", at=0, tag="v1"),
        wire_event("push", of="other", at=1, tag="v2"),
        index("pull", at=1000),
        wire_event("pull", of="amd64", at=1001),
        wire_event("pull", of="arm64", at=1002),
    ]
    for event in events:
        lasting.work_in(parse(event), NOW)

    assert len(lasting._manifests) <= 1
    assert [row.tag for row in records(mock_stores, action="pull")] == ["v1"]


# Before anything is written


def test_before_each_kind_of_write_it_is_asked_whether_that_is_still_allowed(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def note(owner: Any, name: str) -> None:
        method = getattr(owner, name)

        def noted(self: Any, *arguments: Any) -> Any:
            steps.append(name)
            return method(self, *arguments)

        monkeypatch.setattr(owner, name, noted)

    note(ManifestStore, "learn")
    note(type(mock_stores.catalogue_writer), "apply")
    note(EventStore, "add")
    note(EventStore, "set_derived")
    derivation = Derivation(mock_stores, before_write=lambda: steps.append("asked"))

    derivation.work_in(parse(wire_event("push", tag="v1")), NOW)
    derivation.work_in(parse(wire_event("delete", of=None, at=1)), NOW)  # of all the repository

    writes = [(before, step) for before, step in pairwise(["", *steps]) if step != "asked"]
    assert {before for before, _ in writes} == {"asked"}
    assert [step for _, step in writes] == [
        *("learn", "apply", "add", "set_derived"),
        *("add", "learn", "apply", "add", "set_derived"),
    ]


def test_what_comes_once_more_writes_nothing_derived(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    lasting = Derivation(mock_stores)
    pushed = wire_event("push", of="index", media_type=INDEX, children=["amd64"])
    pulled = wire_event("pull", of="index", media_type=INDEX, children=["amd64"], at=1)
    lasting.work_in(parse(pushed, pulled), NOW)
    written: list[Event] = []
    monkeypatch.setattr(EventStore, "set_derived", lambda self, events: written.extend(events))

    lasting.work_in(parse(pushed, pulled), NOW)
    Derivation(mock_stores).work_in(parse(pushed, pulled), NOW)

    assert written == []


@pytest.mark.parametrize("tag", ["v1", None])
def test_who_may_no_longer_write_writes_nothing(mock_stores: Stores, tag: str | None) -> None:
    def lost() -> None:
        raise StoreUnavailable("lost")

    derivation = Derivation(mock_stores, before_write=lost)
    events = [wire_event("push", tag="v1"), wire_event("delete", of=None, tag=tag, at=1)]

    with pytest.raises(StoreUnavailable):
        derivation.work_in(parse(*events), NOW)

    assert records(mock_stores) == []
    assert mock_stores.manifests.find("default", [digest("image")]) == {}
    assert mock_stores.days.find_first_day() is None


# What comes late


def test_a_tag_that_becomes_known_late_is_that_of_what_was_stored_with_a_deleted_repository(
    mock_stores: Stores,
) -> None:
    lasting = Derivation(mock_stores)
    lasting.work_in(parse(wire_event("push", "team/a", tag="v1", of="first", at=0)), NOW)
    gone = wire_event("delete", "team/b", of=None, at=100)
    lasting.work_in(parse(gone, wire_event("pull", at=100)), NOW)

    lasting.work_in(parse(wire_event("push", tag="v1", at=50)), NOW)

    assert told(mock_stores, action="pull") == [("pull", "v1", "history")]


def test_a_tag_that_becomes_known_late_concerns_its_own_repository_alone(
    mock_stores: Stores,
) -> None:
    for repository in ("team/app", "team/other"):
        deliver(mock_stores, envelope(wire_event("pull", repository, at=100)), now=NOW)

    deliver(mock_stores, envelope(wire_event("push", tag="v1", at=50)), now=NOW)

    assert told(mock_stores, repository="team/app", action="pull") == [("pull", "v1", "history")]
    assert told(mock_stores, repository="team/other", action="pull") == [("pull", None, None)]


def test_what_comes_with_the_delete_of_a_repository_is_folded(mock_stores: Stores) -> None:
    gone = wire_event("delete", "team/other", of=None, at=100)
    pair = [wire_event("check", tag="v1", at=0), wire_event("pull", at=1)]

    deliver(mock_stores, envelope(gone, *pair), now=NOW)

    assert told(mock_stores, repository="team/app") == [("pull", "v1", "paired")]


def test_what_was_taken_for_a_child_is_none_once_the_children_are_told(
    mock_stores: Stores,
) -> None:
    deliver(mock_stores, envelope(index("pull", at=100)), now=NOW)
    deliver(mock_stores, envelope(wire_event("pull", of="other", at=101)), now=NOW)
    assert len(records(mock_stores, action="pull")) == 1

    deliver(mock_stores, envelope(index("push", "amd64", "arm64", at=50)), now=NOW)

    assert len(records(mock_stores, action="pull")) == 2


SIGNATURE = f"sha256-{digest('other').removeprefix('sha256:')}.sig"


def test_what_is_no_index_any_more_holds_nothing_of_what_it_held(mock_stores: Stores) -> None:
    lasting = Derivation(mock_stores)
    child = wire_event("push", of="amd64", at=0)
    lasting.work_in(parse(child, index("push", "amd64", tag="v1", at=1)), NOW)
    assert told(mock_stores) == [("push", "v1", "event")]

    # The first word on a manifest settles what it is.
    lasting.work_in(parse(index("push", "amd64", tag=SIGNATURE, at=-1)), NOW)
    again = wire_event("push", of="index", media_type=INDEX, at=20)  # reads what is at hand
    lasting.work_in(parse(again), NOW)

    assert [row.digest for row in records(mock_stores, kind="image")] == [digest("amd64")]
    assert len(records(mock_stores, kind="signature")) == 3


def test_what_is_no_index_for_a_while_is_one_again(mock_stores: Stores) -> None:
    lasting = Derivation(mock_stores)

    lasting.work_in(parse(index("push", tag="v1", at=2)), NOW)
    lasting.work_in(parse(index("push", tag=SIGNATURE, at=1)), NOW)
    assert {row.kind for row in records(mock_stores)} == {"signature"}
    lasting.work_in(parse(index("push", "amd64", tag="v2", at=3)), NOW)  # tells its references

    assert {row.kind for row in records(mock_stores)} == {"index"}


def test_a_push_that_came_with_the_delete_of_a_repository_is_what_its_manifest_says(
    mock_stores: Stores,
) -> None:
    pushes = [index("push", "amd64", tag=tag, at=at) for at, tag in enumerate([SIGNATURE, "v1"])]
    untagged = index("push", "amd64", at=2)
    gone = wire_event("delete", "team/other", of=None, at=100)

    deliver(mock_stores, envelope(gone, *pushes, untagged), now=NOW)

    assert {row.kind for row in records(mock_stores, action="push")} == {"signature"}


def test_the_children_of_an_index_in_an_index_may_be_told_after_they_were_pulled(
    mock_stores: Stores,
) -> None:
    outer = wire_event("pull", tag="v1", of="outer", media_type=INDEX, children=["inner"], at=1000)
    inner = wire_event("pull", of="inner", media_type=INDEX, at=1001)
    child = wire_event("pull", of="amd64", at=1002)
    deliver(mock_stores, envelope(outer, inner, child), now=NOW)
    assert len(records(mock_stores, action="pull")) == 2

    told = wire_event("push", of="inner", media_type=INDEX, children=["amd64"], at=0)
    deliver(mock_stores, envelope(told), now=NOW)

    assert [row.digest for row in records(mock_stores, action="pull")] == [digest("outer")]


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize(("until", "whole"), [(3600, "outer"), (3601, "inner"), (7190, "inner")])
def test_what_is_pushed_within_hours_may_come_in_any_order(
    mock_stores: Stores, order: Sequence[int], until: int, whole: str
) -> None:
    events = [
        wire_event("push", of="amd64", at=0),
        wire_event("push", of="inner", media_type=INDEX, children=["amd64"], at=3595),
        wire_event("push", tag="v1", of="outer", media_type=INDEX, children=["inner"], at=until),
    ]

    for number in order:
        deliver(mock_stores, envelope(events[number]), now=NOW)

    parents = {row.digest: row.parent for row in records(mock_stores, parts=True)}
    assert parents == {
        digest("amd64"): digest(whole),
        digest("inner"): digest("outer"),
        digest("outer"): None,
    }


@pytest.mark.parametrize("action", ["pull", "push"])
def test_what_comes_with_the_rename_of_its_repository_has_the_new_name(
    mock_stores: Stores, action: str
) -> None:
    rename = wire_event("push", "team/old", of=None, at=2)
    renaming = {"type": "name", "from": "team/old", "to": "team/new"}
    rename |= {"action": "rename", "target": {"repository": "team/old", "rename": renaming}}
    late = wire_event("pull", "team/old", of="other", tag="late", at=1.5)

    deliver(mock_stores, envelope(wire_event(action, "team/old", tag="v1", at=1), rename), now=NOW)
    deliver(mock_stores, envelope(late), now=NOW)

    scope = mock_stores.catalogue.find_scope(rule())
    names = {
        row.repository for row in mock_stores.catalogue.find_tags(CatalogueQuery(), scope).items
    }
    assert names == {"team/new"}


def test_a_child_that_was_pushed_most_of_an_hour_before_its_index_is_part_of_it(
    mock_stores: Stores,
) -> None:
    deliver(mock_stores, envelope(wire_event("push", of="amd64", at=0)), now=NOW)

    deliver(mock_stores, envelope(index("push", "amd64", "arm64", at=3590, tag="v1")), now=NOW)

    assert told(mock_stores) == [("push", "v1", "event")]


def test_the_children_of_an_index_that_come_before_it_are_part_of_it(mock_stores: Stores) -> None:
    for child in ("amd64", "arm64"):
        deliver(mock_stores, envelope(wire_event("pull", of=child, at=1)), now=NOW)

    deliver(mock_stores, envelope(index("pull", "amd64", "arm64", at=0, tag="v1")), now=NOW)

    assert told(mock_stores) == [("pull", "v1", "event")]


def test_a_delete_takes_in_its_tags_of_minutes_before_and_after(mock_stores: Stores) -> None:
    for at in (0, 1190):
        tag = wire_event("delete", of=None, tag=f"v{at}", at=at)
        deliver(mock_stores, envelope(tag), now=NOW)
    deliver(mock_stores, envelope(wire_event("push", at=2000)), now=NOW)

    deliver(mock_stores, envelope(wire_event("delete", at=595)), now=NOW)

    assert told(mock_stores, action="delete") == [("delete", None, None)]


# What is far away


def test_the_oldest_events_that_are_read_keep_what_they_were_paired_with(
    mock_stores: Stores,
) -> None:
    check = wire_event("check", tag="v1", at=-EDGE_S - 0.5)
    pull = wire_event("pull", at=-EDGE_S + 0.5)
    deliver(mock_stores, envelope(check, pull), now=NOW)

    deliver(mock_stores, envelope(wire_event("pull", at=0)), now=NOW)

    assert told(mock_stores) == [("pull", "v1", "paired"), ("pull", None, None)]


def test_events_that_lie_apart_in_one_batch_are_each_folded_with_what_is_near(
    mock_stores: Stores,
) -> None:
    hours = [n * 3600 for n in range(4)]
    checks = [wire_event("check", tag=f"v{at}", at=at) for at in hours]
    pulls = [wire_event("pull", at=at + 1) for at in hours]
    deliver(mock_stores, envelope(*checks), now=NOW)

    deliver(mock_stores, envelope(*reversed(pulls)), now=NOW)

    assert told(mock_stores) == [("pull", f"v{at}", "paired") for at in hours]


def test_what_is_near_to_events_that_lie_apart_is_folded_with_both(mock_stores: Stores) -> None:
    deliver(mock_stores, envelope(wire_event("push", of="amd64", at=3)), now=NOW)

    its_index = index("push", "amd64", at=0, tag="v1")
    again = wire_event("push", of="amd64", at=3602)
    deliver(mock_stores, envelope(its_index, again), now=NOW)

    assert told(mock_stores) == [("push", "v1", "event"), ("push", None, None)]


# Derived anew


@pytest.mark.parametrize("rework", [True, False])
def test_days_are_opened_by_what_is_derived_anew(
    mock_stores: Stores, rework: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    push = wire_event("push", tag="v1", at=now - timedelta(days=3))
    events = list(parse_envelope(envelope(push), "default", now).events)
    derivation = Derivation(mock_stores)
    derivation.work_in(events)
    opened: list[datetime] = []
    open_days = type(mock_stores.days).open_days

    def note(self: Any, moments: Sequence[datetime], now: datetime) -> None:
        given = list(moments)
        opened.extend(given)
        open_days(self, given, now)

    monkeypatch.setattr(type(mock_stores.days), "open_days", note)
    if rework:
        derivation.rework(events)
    else:
        derivation.fold_anew(events)

    assert opened == ([events[0].timestamp] if rework else [])


def test_after_is_told_of_events_with_their_kind_each_time_they_come(mock_stores: Stores) -> None:
    seen: list[tuple[str, str]] = []
    after: Callable[[Sequence[Event]], None] = lambda events: seen.extend(  # noqa: E731
        (event.id, event.kind) for event in events
    )
    derivation = Derivation(mock_stores, after)
    push = index("push", "amd64", at=0, id="one")
    gone = wire_event("delete", of="index", at=1, id="two")

    news = [derivation.work_in(parse(gone, push, gone), NOW) for _ in range(2)]

    assert news == [2, 0]
    assert sorted(seen) == [("one", "index")] * 2 + [("two", "index")] * 2


def test_what_was_pulled_or_deleted_is_what_its_manifest_says_and_nothing_else_is(
    mock_stores: Stores,
) -> None:
    events = [
        wire_event("push", of="index", media_type=INDEX, tag="v1", id="push"),
        wire_event("delete", of="layer", at=1, id="blob"),
        wire_event("delete", of="index", at=2, id="delete"),
        wire_event("pull", of="index", media_type=IMAGE, at=3, id="pull"),
        wire_event("delete", of=None, tag="v1", at=4, id="tag"),
        wire_event("mount", of="index", media_type=IMAGE, at=5, id="mount", fromRepository="a/b"),
    ]
    deliver(mock_stores, envelope(*events), now=NOW)

    found = mock_stores.events.find_by_ids([event["id"] for event in events])
    kinds = {row.id: row.kind for row in found}
    assert kinds == {
        "push": "index",
        "blob": "blob",
        "delete": "index",
        "pull": "index",
        "tag": "image",
        "mount": "image",
    }
