"""The lease on a share: who may have it, and when it is renewed."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from builders import divide

from app.notifications import lease
from app.notifications.lease import LEASE, WANTED, Held, LeaseLost, lease_of
from app.store import Stores


class Beats(threading.Event):
    """Comes after so many beats, at once."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._left = number

    def wait(self, timeout: float | None = None) -> bool:
        self._left -= 1
        return self._left < 0


@pytest.mark.parametrize("name", [LEASE, WANTED])
def test_who_is_to_renew_a_lease_that_another_has_writes_no_more(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(lease, "RENEWED_S", 0.0)
    held = Held(mock_stores, passing=False)
    assert held.take()
    held.keep()

    if name == LEASE:
        held.give_back()
        held._until = time.monotonic() + 60.0  # as it had believed
    assert mock_stores.leases.take(name, "another", datetime.now(UTC))

    with pytest.raises(LeaseLost):
        held.keep()
    assert not held.is_mine
    assert not held.take()


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
