"""The lease on a share: who may have it, and when it is renewed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import pytest
from builders import abandon, divide

from app.errors import StoreUnavailable
from app.notifications import lease
from app.notifications.lease import (
    HELD,
    LEASE,
    LONGEST,
    WANTED,
    Held,
    LeaseLost,
    lease_of,
    length_of,
)
from app.rules.shares import Share
from app.store import Stores
from app.store.leases import LONG_OVER, LeaseStore, Taken


class Beats(threading.Event):
    """Comes after so many beats, at once."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._left = number

    def wait(self, timeout: float | None = None) -> bool:
        self._left -= 1
        return self._left < 0


def test_who_is_to_renew_a_lease_that_another_has_writes_no_more(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWED_S", 0.0)
    held = Held(mock_stores, passing=False)
    assert held.take()
    held.keep()

    held.give_back()
    held._until = time.monotonic() + 60.0  # as it had believed
    assert mock_stores.leases.take(LEASE, "another", datetime.now(UTC))

    with pytest.raises(LeaseLost):
        held.keep()
    assert not held.is_mine
    assert not held.take()


@pytest.mark.parametrize("passing", [False, True])
def test_who_is_in_the_midst_of_something_ends_it_before_it_makes_way(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch, passing: bool
) -> None:
    monkeypatch.setattr(lease, "RENEWED_S", 0.0)
    held = Held(mock_stores, passing=passing)
    assert held.take()
    mock_stores.leases._collection.delete_one({"_id": WANTED})
    assert mock_stores.leases.take(WANTED, "another", datetime.now(UTC))

    held.keep()

    assert held.is_mine
    assert mock_stores.leases.find_held(datetime.now(UTC)) == {LEASE, WANTED}
    assert not held.take()
    assert mock_stores.leases.find_held(datetime.now(UTC)) == {WANTED}


@pytest.mark.parametrize("in_order", [True, False])
def test_who_takes_it_learns_whether_all_is_in_order(mock_stores: Stores, in_order: bool) -> None:
    first, second = (Held(mock_stores, passing=False) for _ in range(2))
    assert first.take()
    first.in_order = in_order
    first.give_back()

    assert second.take()
    assert second.in_order == in_order
    second.give_back()

    third = Held(mock_stores, passing=False)
    assert third.take()
    assert third.in_order == in_order, "nobody put it in order meanwhile"


def test_a_lease_that_was_over_and_that_nobody_else_had_is_as_it_was(mock_stores: Stores) -> None:
    held = Held(mock_stores, passing=False)
    assert held.take()
    assert held.take()
    assert held.term == 1
    held._until = 0.0

    assert held.take()
    assert held.in_order
    assert held.term == 2, "what is at hand may be old"


def test_of_shares_that_are_to_be_who_begins_with_one_learns_what_was_left(
    mock_stores: Stores,
) -> None:
    divide(mock_stores, 2)
    abandon(mock_stores, 1)
    divide(mock_stores, 4)

    begun = [Held(mock_stores, Share(number, 4), passing=False) for number in range(4)]
    assert all(held.take() for held in begun)
    assert [held.in_order for held in begun] == [False] * 4


def test_who_wants_fewer_shares_waits_until_all_that_there_are_have_made_way(
    mock_stores: Stores,
) -> None:
    divide(mock_stores, 4)
    mock_stores.schema.want_projectors(2)
    last = Held(mock_stores, Share(3, 4), passing=False)
    assert last.take()

    held = Held(mock_stores, passing=True)
    assert not held.take()
    last.give_back()
    assert held.take()
    assert not last.take()


def test_it_is_renewed_from_beside_when_half_of_its_time_is_over_and_not_before(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HELD", timedelta(hours=1))
    monkeypatch.setattr(lease, "TURN_S", 3600.0)
    held = Held(mock_stores, passing=False)
    assert held.take()
    taken = held._until

    held._beat(Beats(3))
    assert held._until == taken

    held._until = time.monotonic() + 900
    held._beat(Beats(3))
    assert held._until >= taken


def test_one_that_lasts_long_is_renewed_from_beside_when_half_of_that_is_over(
    mock_stores: Stores,
) -> None:
    held = Held(mock_stores, passing=False)
    assert held.take()
    held._length = timedelta(minutes=30)
    held._until = time.monotonic() + 800.0
    held._hangs_at = held._until

    held._beat(Beats(3))
    assert held._until >= time.monotonic() + 1200


def test_who_works_long_at_one_thing_still_has_others_make_way(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWED_S", 0.0)
    held = Held(mock_stores, passing=True)
    assert held.take()
    mock_stores.leases._collection.delete_one({"_id": WANTED})

    held.keep()

    assert mock_stores.leases.is_held(WANTED, datetime.now(UTC))


def test_who_gave_it_back_does_not_take_it_again_from_beside(mock_stores: Stores) -> None:
    held = Held(mock_stores, passing=False)
    assert held.take()
    held.give_back()

    held._beat(Beats(3))

    assert not held.is_mine
    assert mock_stores.leases.find_held(datetime.now(UTC)) == set()


def test_who_makes_way_gives_back_all_it_has_however_many_there_are_now(
    mock_stores: Stores,
) -> None:
    divide(mock_stores, 3)
    held = Held(mock_stores, passing=True)
    assert held.take()
    held._until = 0.0  # it hung
    mock_stores.leases._collection.delete_one({"_id": WANTED})
    assert mock_stores.leases.take(WANTED, "another", datetime.now(UTC))
    mock_stores.schema.set_projectors(1)

    assert not held.take()

    left = mock_stores.leases.find_held(datetime.now(UTC))
    assert left.isdisjoint(map(lease_of, range(3)))


def test_a_lease_lasts_longer_where_the_database_is_slow_and_never_for_ever() -> None:
    lengths = [length_of(HELD, took_s) for took_s in (0.0, 0.5, 2.0, 60.0)]

    assert lengths == [HELD, HELD, timedelta(seconds=10), LONGEST]


def test_who_needs_longer_to_take_it_than_it_lasts_has_it_nevertheless(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody could hold one while the database is slow, and nothing would ever be done."""
    clock = [1_000_000.0]

    def slowly(method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            clock[0] += 3.0
            return method(*arguments)

        return called

    for name in ("take_all", "renew_all"):
        monkeypatch.setattr(LeaseStore, name, slowly(getattr(LeaseStore, name)))
    monkeypatch.setattr(lease, "time", Mock(wraps=time, monotonic=lambda: clock[0]))
    held = Held(mock_stores, passing=False)

    assert held.take()
    assert held.term == 1
    assert held.is_mine
    clock[0] += 11.0
    assert held.is_mine, "15 s from when it was asked for"
    clock[0] += 1.1
    assert not held.is_mine
    assert not mock_stores.leases.take(LEASE, "another", datetime.now(UTC))
    later = datetime.now(UTC) + timedelta(seconds=15.1)
    assert mock_stores.leases.take(LEASE, "another", later), "nor does it last longer for others"


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("renews", ["who works", "from beside"])
def test_a_lease_that_another_one_had_since_is_not_renewed_though_it_is_free_again(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch, renews: str, in_order: bool
) -> None:
    """What is at hand may be old, and what the other one left half done is not seen."""
    monkeypatch.setattr(lease, "RENEWED_S", 0.0)
    held, other = (Held(mock_stores, passing=False) for _ in range(2))
    assert held.take()
    mock_stores.leases._collection.update_one({"_id": LEASE}, {"$set": {"until": LONG_OVER}})
    assert other.take()
    other.in_order = in_order
    other.give_back()

    if renews == "from beside":
        held._until = time.monotonic() + 1.0
        held._beat(Beats(1))
    with pytest.raises(LeaseLost):
        held.keep()
    assert mock_stores.leases.find_held(datetime.now(UTC)) == set()

    assert held.take()
    assert held.term == 2
    assert held.in_order == in_order


def test_a_renewal_that_takes_longer_than_the_lease_lasts_costs_it_where_another_took_it(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWED_S", 0.0)
    clock = [1_000_000.0]
    monkeypatch.setattr(lease, "time", Mock(wraps=time, monotonic=lambda: clock[0]))
    held, other = (Held(mock_stores, passing=False) for _ in range(2))
    assert held.take()
    renew_all = mock_stores.leases.renew_all
    is_to_lose = [True, False]

    def renew_slowly(*arguments: Any) -> bool:
        is_mine = renew_all(*arguments)
        clock[0] += 3.0
        if is_to_lose.pop():
            over = {"$set": {"until": LONG_OVER}}
            mock_stores.leases._collection.update_one({"_id": LEASE}, over)
            assert other._take()
        return is_mine

    monkeypatch.setattr(mock_stores.leases, "renew_all", renew_slowly)
    held.keep()
    assert held.is_mine, "nobody had it meanwhile"
    is_to_lose[:] = [False, True]
    clock[0] += 11.0
    with pytest.raises(LeaseLost):
        held.keep()


def test_who_does_not_learn_whether_another_is_gone_tells_who_takes_it_next_that_it_may_be(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandon(mock_stores)
    held = Held(mock_stores, passing=False)
    take_all = mock_stores.leases.take_all

    def lose_the_answer(*arguments: Any) -> Taken:
        assert take_all(*arguments) == (True, True)
        raise StoreUnavailable("the answer is lost")

    with monkeypatch.context() as lost:
        lost.setattr(mock_stores.leases, "take_all", lose_the_answer)
        with pytest.raises(StoreUnavailable):
            held.take()
    assert held.take()
    held.give_back()

    other = Held(mock_stores, passing=False)
    assert other.take()
    assert not other.in_order


def test_others_make_way_for_longer_where_the_database_is_slow(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1_000_000.0]
    monkeypatch.setattr(lease, "time", Mock(wraps=time, monotonic=lambda: clock[0]))
    held = Held(mock_stores, passing=True)
    assert mock_stores.leases.take(LEASE, "a server", datetime.now(UTC))
    assert not held.take()
    clock[0] += 4.0
    assert not held.take()

    now = datetime.now(UTC)
    assert mock_stores.leases.is_held(WANTED, now + timedelta(seconds=19))
    assert not mock_stores.leases.is_held(WANTED, now + timedelta(seconds=21))


def test_a_pause_between_two_times_of_asking_is_no_slow_database(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1_000_000.0]
    monkeypatch.setattr(lease, "time", Mock(wraps=time, monotonic=lambda: clock[0]))
    held = Held(mock_stores, passing=True)
    assert held.take()
    held.give_back()
    clock[0] += 3600.0
    assert held.take()

    later = datetime.now(UTC) + 2 * lease.HELD
    assert not mock_stores.leases.is_held(WANTED, later)
