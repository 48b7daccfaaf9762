"""Leases: who holds one, and who holds all that there are."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient, monitoring
from pymongo.database import Database

from app.notifications.lease import Held
from app.rules.shares import Share
from app.store import Stores
from app.store.clock import clock

pytestmark = pytest.mark.wire

NOW = datetime.now(UTC)
LENGTH = timedelta(minutes=1)


class Heard(monitoring.CommandListener):
    """The writes that were sent."""

    def __init__(self) -> None:
        self.writes: list[str] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name in ("update", "insert", "delete", "findAndModify"):
            self.writes.append(event.command_name)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def stores(wire_uri: str, wire_database: Database[Any], heard: Heard) -> Iterator[Stores]:
    with MongoClient[Any](
        wire_uri, tz_aware=True, retryWrites=False, event_listeners=[heard]
    ) as client:
        yield Stores(client[wire_database.name])


def test_of_all_leases_those_are_taken_that_are_free_or_over_or_ones_own(stores: Stores) -> None:
    leases = stores.leases
    leases.take("own", "a", NOW, LENGTH)
    leases.take("over", "b", NOW - 2 * LENGTH, LENGTH)
    leases.take("another's", "b", NOW, LENGTH)
    names = ["own", "over", "free", "another's"]

    assert leases.take_all(names, "a", NOW, LENGTH) == (False, True)
    assert leases.take_all(names[:3], "a", NOW, LENGTH) == (True, False)
    assert not leases.take("free", "b", NOW, LENGTH)
    leases.give_back("another's", "b")
    assert leases.take_all(names, "a", NOW, LENGTH) == (True, False)


def test_who_takes_a_lease_learns_whether_another_is_gone_who_did_not_give_it_back(
    stores: Stores,
) -> None:
    leases = stores.leases
    for name in ("one", "two"):
        leases.take(name, "a", NOW, LENGTH)
    leases.give_back("one", "a")
    leases.leave("two", "a")
    leases.leave("two", "b")

    assert leases.find_held(NOW) == set()
    assert leases.take_all(["two"], "a", NOW, LENGTH) == (True, False), "its own"
    leases.leave("two", "a")
    assert leases.take_all(["one"], "b", NOW, LENGTH) == (True, False)
    assert leases.take_all(["two"], "b", NOW, LENGTH) == (True, True)
    assert leases.take_all(["two"], "b", NOW, LENGTH) == (True, False), "renewed"


def test_what_another_one_had_since_is_not_renewed_and_the_rest_is(stores: Stores) -> None:
    leases = stores.leases
    for name in ("one", "two"):
        leases.take(name, "a", NOW, LENGTH)
    later = NOW + 2 * LENGTH
    assert leases.renew_all(["one", "two"], "a", later, LENGTH), "nobody had it, though it was over"

    leases.give_back("two", "a")
    assert not leases.renew_all(["one", "two"], "a", later + LENGTH, LENGTH)
    leases.take("two", "b", NOW, LENGTH)
    assert not leases.renew_all(["one", "two"], "a", later + LENGTH, LENGTH)
    assert leases.find_held(later + 1.5 * LENGTH) == {"one"}


def test_leases_are_kept_by_the_clock_of_the_database(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose clock is ahead would take what another still has."""
    leases = stores.leases
    monkeypatch.setattr(clock, "_asked_at", time.monotonic())  # asks no more
    assert leases.take("one", "a", NOW, LENGTH)
    late = NOW + 2 * LENGTH

    monkeypatch.setattr(clock, "ahead", -2 * LENGTH)
    assert not leases.take("one", "b", late, LENGTH)
    assert leases.is_held("one", late)
    assert leases.find_held(late) == {"one"}
    leases.remove("o", late)
    assert leases.renew_all(["one"], "a", late, 3 * LENGTH)

    monkeypatch.setattr(clock, "ahead", timedelta(0))
    assert leases.is_held("one", NOW + 2 * LENGTH)
    assert not leases.is_held("one", NOW + 4 * LENGTH)


def test_who_holds_the_leases_of_all_projectors_renews_them_in_one_write(
    stores: Stores, heard: Heard
) -> None:
    """One after the other the first would be over before the last is taken."""
    stores.schema.note()
    stores.schema.set_projectors(64)
    held = Held(stores, passing=True)
    heard.writes.clear()

    assert held.take()
    free = ["update", "update", "insert"]
    assert heard.writes == free * 2, "that it is wanted, and all leases"
    heard.writes.clear()

    held._renew_at = 0.0
    assert held.take()
    assert heard.writes == ["update", "update"]
    assert not Held(stores, Share(63, 64), passing=False).take()
