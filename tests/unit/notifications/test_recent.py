"""What is at hand around new events: as much as folding needs, and never less than is on record."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.notifications import recent as module
from app.notifications.recent import (
    CHANGES,
    LATE,
    MANY,
    PULLS,
    PULLS_OF_INDEXES,
    Recent,
    is_foldable,
    place,
    who,
)
from app.rules.events import Event, position_at
from app.rules.folding import AFTER, BEFORE, LONGEST, SKEW, UPLOAD, WINDOW

NOW = datetime(2026, 11, 23, 18, tzinfo=UTC)
MOMENT = timedelta(milliseconds=1)
NOTHING = timedelta(0)
NEVER = position_at(NOW - timedelta(days=1000))  # the newest on record, so that all is newer
_numbers = itertools.count(1)


def event(
    action: Any, at: timedelta = NOTHING, digest: str | None = "image", **changes: Any
) -> Event:
    key = changes.pop("id", None) or f"{next(_numbers):06}"
    moment = NOW + at
    fields: dict[str, Any] = {"actor": "alice", "address": "10.0.0.1", "user_agent": "docker/27"}
    fields |= {"registry": "default", "repository": "team/app", "namespace": "team"}
    return Event(
        id=key,
        action=action,
        digest=digest,
        timestamp=moment,
        received_at=moment,
        position=f"{position_at(moment)}-{key}",
        **fields | changes,
    )


class Record:
    """The events on record, and how often they were read."""

    def __init__(self, *events: Event) -> None:
        self.events = list(events)
        self.reads = 0

    def find_between(
        self, registry: str, repository: str, since: datetime, until: datetime | None
    ) -> list[Event]:
        self.reads += 1
        return [
            one
            for one in self.events
            if place(one) == (registry, repository)
            and since <= one.timestamp
            and (until is None or one.timestamp <= until)
        ]


def recent_of(record: Record) -> Recent:
    return Recent(record)  # type: ignore[arg-type]


def found(
    recent: Recent,
    *events: Event,
    newest: str = NEVER,
    children: Mapping[str, list[str]] | None = None,
) -> set[str]:
    around = recent.around(events, newest)
    return set(around.find_related(events, children or {}))


def ids(events: Iterable[Event]) -> set[str]:
    return {one.id for one in events}


def test_what_is_looked_at_is_as_far_as_folds_reach() -> None:
    assert PULLS == BEFORE + WINDOW + SKEW
    assert PULLS_OF_INDEXES == BEFORE + LONGEST + WINDOW
    assert CHANGES == 2 * (UPLOAD + SKEW) + 2 * SKEW


# Who and what


@pytest.mark.parametrize("other", [{"actor": "bob"}, {"address": "::1"}, {"user_agent": "crane"}])
@pytest.mark.parametrize("action", ["pull", "check"])
def test_pulls_and_checks_of_another_client_are_not_related(
    action: str, other: dict[str, str]
) -> None:
    own, others = event(action), event(action, **other)

    assert found(recent_of(Record(own, others)), event("pull")) == {own.id}


def test_pushes_of_an_account_are_related_from_wherever_they_come() -> None:
    own = event("push", address="::1", user_agent="crane")
    elsewhere = event("pull", address="::1"), event("pull", actor="bob")
    record = Record(own, event("push", actor="bob"), *elsewhere, event("delete"))

    assert found(recent_of(record), event("push")) == {own.id}


def test_what_the_client_of_a_push_read_back_is_related() -> None:
    own = event("pull")
    record = Record(own, event("pull", digest="other"), event("pull", user_agent="crane"))

    assert found(recent_of(record), event("push")) == {own.id}


def test_the_pushes_beside_a_pull_are_those_of_its_account_and_digest() -> None:
    own = event("push"), event("push", tag="v1", tag_from="event")
    others = event("push", actor="bob"), event("push", digest="other"), event("pull")
    around = recent_of(Record(*own, *others)).around([event("pull")], NEVER)

    assert set(around.find_own_pushes([event("pull")])) == ids(own)
    named = event("pull", tag="v1", tag_from="event")
    assert around.find_own_pushes([named, event("check"), event("push")]) == {}


def test_all_deletes_are_related() -> None:
    deletes = [event("delete", actor="bob"), event("delete", digest="other"), event("delete")]
    record = Record(*deletes, event("pull"), event("push"))

    assert found(recent_of(record), event("delete", digest=None, tag="v1")) == ids(deletes)


def test_what_cannot_be_folded_is_not_related() -> None:
    events = [event("mount"), event("rename")]
    recent = recent_of(Record(*events))

    assert not any(map(is_foldable, events))
    assert found(recent, *events, event("push"), event("pull"), event("delete")) == set()


def test_a_pull_of_another_digest_is_not_related() -> None:
    record = Record(event("pull", digest="other"), event("pull", digest=None))

    assert found(recent_of(record), event("pull")) == set()


def test_events_of_another_registry_or_repository_are_not_around() -> None:
    record = Record(event("pull", registry="dc2"), event("pull", repository="team/other"))

    assert found(recent_of(record), event("pull")) == set()


@pytest.mark.parametrize("action", ["pull", "push"])
def test_the_children_of_an_index_are_related_to_it_and_to_each_other(action: str) -> None:
    index = event(action, digest="index", kind="index")
    children = [event(action, digest=digest) for digest in ("amd64", "arm64")]
    record = Record(index, *children, event(action, digest="other"))
    told = {"index": ["amd64", "arm64"]}

    assert found(recent_of(record), children[0], children=told) == ids([index, *children])
    assert found(recent_of(record), index, children=told) == ids([index, *children])


def test_the_children_of_an_index_that_comes_now_are_related_to_it() -> None:
    child = event("pull", digest="amd64")
    index = event("pull", digest="index", kind="index")
    record = Record(child, event("pull", digest="other"))

    assert found(recent_of(record), index, children={"index": ["amd64"]}) == {child.id}


def test_the_index_of_another_account_relates_nothing() -> None:
    record = Record(
        event("push", digest="index", kind="index", actor="bob"), event("push", digest="arm64")
    )
    told = {"index": ["amd64", "arm64"]}

    assert found(recent_of(record), event("push", digest="amd64"), children=told) == set()


def test_any_pull_is_related_to_one_of_an_index_whose_children_nobody_told() -> None:
    events = [event("pull", digest="index", kind="index"), event("pull", digest="other")]

    assert found(recent_of(Record(*events)), event("pull")) == ids(events)


def test_what_was_taken_for_the_child_of_an_index_is_related_to_it() -> None:
    index = event("pull", digest="index", kind="index")
    alone, taken = event("pull", digest="taken"), event("pull", digest="taken", parent="index")
    record = Record(index, alone, taken, event("pull", digest="other", parent="another"))

    related = found(recent_of(record), index, children={"index": ["amd64"]})
    assert related == ids([index, alone, taken])


def test_a_push_is_not_related_to_an_index_whose_children_nobody_told() -> None:
    record = Record(event("push", digest="index", kind="index"), event("push", digest="other"))

    assert found(recent_of(record), event("push")) == set()


def test_the_indexes_near_by_are_those_of_the_same_clients() -> None:
    record = Record(
        event("pull", digest="index", kind="index"),
        event("check", digest="index"),  # which did not say what it is
        event("pull", digest="image"),
        event("pull", digest="another", kind="index", actor="bob"),
        event("push", digest="pushed", kind="index"),
    )
    pull = event("pull")

    assert recent_of(record).around([pull], NEVER).find_indexes([pull]) == {"index"}


# How far


@pytest.mark.parametrize(
    ("action", "with_pushes", "since"),
    [
        ("pull", False, LATE + PULLS_OF_INDEXES),
        ("pull", True, LATE + PULLS_OF_INDEXES),
        ("delete", False, LATE + CHANGES),
        ("push", True, LATE + CHANGES),
    ],
)
def test_as_much_is_read_as_an_event_that_is_late_needs(
    action: str, with_pushes: bool, since: timedelta
) -> None:
    first, before = event(action, -since), event(action, -since - MOMENT)
    seeds = [event(action), event(action, timedelta(minutes=1))]
    if with_pushes:
        seeds.append(event("push", timedelta(minutes=1)))

    assert first.id in found(recent_of(Record(first, before)), *seeds)
    assert before.id not in found(recent_of(Record(first, before)), *seeds)


@pytest.mark.parametrize(
    ("action", "until"),
    [("pull", AFTER + PULLS_OF_INDEXES), ("push", CHANGES), ("delete", CHANGES)],
)
def test_around_old_events_as_much_is_read_after_them_as_before(
    action: str, until: timedelta
) -> None:
    last, after = event(action, until), event(action, until + MOMENT)
    recent = recent_of(Record(last, after))
    newest = position_at(NOW + timedelta(days=1))

    seeds = [event(action, -timedelta(minutes=1)), event(action)]
    assert found(recent, *seeds, newest=newest) == {last.id}


def test_what_was_read_around_old_events_does_not_stay_at_hand() -> None:
    record = Record(event("pull"))
    newest = event("pull", AFTER)
    recent = recent_of(record)

    for _ in range(2):
        found(recent, event("pull"), newest=newest.position)
    assert record.reads == 2

    for _ in range(2):
        found(recent, event("pull", MOMENT), newest=newest.position)
    assert record.reads == 3


# What stays at hand


def test_what_is_at_hand_is_not_read_again_and_what_was_stored_since_is_among_it() -> None:
    record = Record(event("pull"))
    recent = recent_of(record)
    found(recent, event("pull"))
    later = event("pull", timedelta(seconds=1))
    recent.put([later, event("pull", repository="team/other")])

    assert found(recent, event("pull")) == {record.events[0].id, later.id}
    assert record.reads == 1
    recent.forget()
    assert found(recent, event("pull")) == {record.events[0].id}
    assert record.reads == 2


def test_what_is_derived_of_an_event_later_takes_its_place() -> None:
    before = event("pull", id="one")
    recent = recent_of(Record(before))
    around = recent.around([before], NEVER)
    after = event("pull", id="one", part_of="two")

    recent.put([after])

    assert around.find_related([after], {}) == {"one": after}
    assert around.number == 1


def test_what_cannot_be_folded_is_not_put_at_hand() -> None:
    recent = recent_of(Record())
    around = recent.around([event("push")], NEVER)

    recent.put([event("mount")])

    assert around.number == 0


@pytest.mark.parametrize("action", ["pull", "push"])
def test_what_is_at_hand_serves_an_event_as_late_as_it_reaches(action: str) -> None:
    record = Record()
    recent = recent_of(record)
    found(recent, event(action))

    found(recent, event(action, -LATE), event(action))
    assert record.reads == 1
    found(recent, event(action, -LATE - MOMENT), event(action))
    assert record.reads == 2


def test_pushes_are_read_where_only_pulls_are_at_hand() -> None:
    push = event("push", -CHANGES)
    record = Record(push)
    recent = recent_of(record)
    assert found(recent, event("pull")) == set()

    assert found(recent, event("push"), event("pull")) == {push.id}
    assert found(recent, event("pull")) == set()
    assert record.reads == 2


def test_the_repositories_that_were_used_last_stay_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PLACES", 2)
    record = Record()
    recent = recent_of(record)
    for repository in ("a", "b", "a", "c"):  # b is the one that was not used for longest
        found(recent, event("pull", repository=repository))
    assert record.reads == 3

    found(recent, event("pull", repository="a"))
    found(recent, event("pull", repository="c"))
    assert record.reads == 3
    found(recent, event("pull", repository="b"))
    assert record.reads == 4


def test_so_many_events_stay_at_hand_and_always_those_of_one_repository(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 4)
    record = Record(*(event("pull", repository=name) for name in ("a", "a", "b", "b", "c")))
    recent = recent_of(record)
    for repository in ("a", "b"):
        found(recent, event("pull", repository=repository))
    for repository in ("a", "b"):
        found(recent, event("pull", repository=repository))
    assert record.reads == 2

    found(recent, event("pull", repository="c"))  # a goes, and that is enough
    found(recent, event("pull", repository="b"))
    assert record.reads == 3
    found(recent, event("pull", repository="a"))
    assert record.reads == 4
    record.events += [event("pull", repository="many") for _ in range(5)]
    for _ in range(2):
        found(recent, event("pull", repository="many"))
    assert record.reads == 5


def test_repositories_that_grow_at_hand_make_the_oldest_one_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS", 4)
    record = Record()
    recent = recent_of(record)
    for repository in ("a", "b"):
        found(recent, event("pull", repository=repository))

    for _ in range(3):
        recent.put([event("pull", repository="a"), event("pull", repository="b")])

    found(recent, event("pull", repository="b"))
    assert record.reads == 2
    found(recent, event("pull", repository="a"))
    assert record.reads == 3


# What is too old


def many(number: int, at: timedelta) -> list[Event]:
    return [event("pull", at, digest=f"{number}") for number in range(number)]


LATER = timedelta(hours=5)


@pytest.mark.parametrize(
    ("kept", "since"),
    [
        (event("pull"), PULLS),
        (event("delete"), CHANGES),
        (event("pull", kind="index"), PULLS_OF_INDEXES),
        (event("pull", parent="index"), PULLS_OF_INDEXES),
        (event("push"), CHANGES),
        (event("push", kind="index"), CHANGES),
    ],
    ids=lambda value: value.action if isinstance(value, Event) else "",
)
def test_of_a_busy_repository_stays_what_an_event_that_is_late_needs(
    kept: Event, since: timedelta
) -> None:
    record = Record()
    recent = recent_of(record)
    around = recent.around([event("push"), event("pull")], NEVER)
    old = [
        event(kept.action, LATER - LATE - since - gap, kind=kept.kind, parent=kept.parent)
        for gap in (NOTHING, MOMENT)
    ]
    recent.put(old)

    recent.put(many(MANY, LATER))

    stays, goes = old
    related = around.find_related([kept], {})
    assert (stays.id in related, goes.id in related) == (True, False)
    assert around.number == MANY + 1


def test_of_a_repository_that_is_not_busy_all_stays() -> None:
    recent = recent_of(Record())
    around = recent.around([event("pull")], NEVER)

    recent.put([event("pull"), *many(MANY - 1, LATER)])

    assert around.number == MANY


@pytest.mark.parametrize(("action", "since"), [("pull", LATE), ("push", LATE)])
def test_what_is_no_longer_at_hand_is_read_again(action: str, since: timedelta) -> None:
    record = Record()
    recent = recent_of(record)
    found(recent, event("push"), event("pull"))
    recent.put([*many(MANY + 1, LATER), *many(1, NOTHING)])

    found(recent, event(action, LATER - since))
    assert record.reads == 1
    found(recent, event(action, LATER - since - MOMENT))
    assert record.reads == 2


def test_a_busy_repository_that_is_not_old_is_not_read_again_for_being_trimmed() -> None:
    record = Record()
    recent = recent_of(record)
    found(recent, event("push"), event("pull"))
    recent.put(many(MANY + 1, NOTHING))  # complete from further back than needed: it stays so

    found(recent, event("pull", -LATE))
    found(recent, event("push", -LATE))
    assert record.reads == 1


# Any history


@pytest.mark.parametrize("seed", range(8))
def test_all_that_folding_needs_is_at_hand_in_any_history(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(module, "MAX_EVENTS", 60)
    record = Record()
    recent = recent_of(record)
    at = timedelta(0)
    for _ in range(300):
        at += timedelta(seconds=chance.choice([0, 1, 30, 300, 3000]))
        seed_event = event(
            chance.choice(["pull", "check", "push", "delete"]),
            at - timedelta(seconds=chance.choice([0, 0, 5, 100, 1000, 10_000])),
            digest=chance.choice("abc"),
            repository=chance.choice(["x", "y"]),
            actor=chance.choice(["alice", "bob"]),
        )
        newest = max((one.position for one in record.events), default="")
        has = found(recent, seed_event, newest=newest)

        before, after = (
            (CHANGES, CHANGES)
            if seed_event.action in ("push", "delete")
            else (PULLS, AFTER + PULLS_OF_INDEXES)
        )
        needed = {
            one.id
            for one in record.events
            if place(one) == place(seed_event)
            and who(one) == who(seed_event)
            and (one.digest == seed_event.digest or one.action == "delete")
            and -before <= one.timestamp - seed_event.timestamp <= after
        }
        assert needed <= has
        record.events.append(seed_event)
        recent.put([seed_event])
