"""Whatever breaks off, and whoever is gone: what is half done is put in order before more comes."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from types import SimpleNamespace
from typing import Any

import mongomock
import pytest

from app.errors import StoreUnavailable
from app.notifications import lease
from app.notifications.lease import Held, LeaseLost
from app.store import Stores

BEGIN = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)


class World:
    """Processes that want one lease, on a database that is slow at times and loses answers."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = 1_000_000.0
        self.stores = Stores(mongomock.MongoClient(tz_aware=True)["registry"])
        self.stores.schema.note()
        self.slow = self.chance.choice([0.02, 0.1, 0.3])
        for name in ("take_all", "renew_all", "give_back", "leave", "is_held"):
            whole = self.badly(getattr(self.stores.leases, name))
            setattr(self.stores.leases, name, whole)
        self.deciding: set[Held] = set()
        self.held = [self.begin() for _ in range(4)]
        self.at_work: list[Held] = []
        self.half_done: set[Held] = set()
        self.written = self.put_in_order = 0

    def begin(self) -> Held:
        held = Held(self.stores, passing=self.chance.random() < 0.5)
        if held._passing and self.chance.random() < 0.5:
            self.deciding.add(held)
        return held

    def badly(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any) -> Any:
            self.wait()
            fate = self.chance.random()
            if fate < 0.03:
                raise StoreUnavailable("it does not answer")
            answer = method(*given)
            self.wait()
            if fate > 0.95:
                raise StoreUnavailable("the answer is lost")
            return answer

        return called

    def wait(self) -> None:
        """Time goes by, and others have their turn."""
        is_slow = self.chance.random() < self.slow
        self.clock += self.chance.choice([1.0, 2.6, 4.0] if is_slow else [0, 0.01, 0.1, 0.3])
        if len(self.at_work) < 3 and self.chance.random() < 0.15:
            self.act()

    def act(self) -> None:
        free = [held for held in self.held if held not in self.at_work]
        held = self.chance.choice(free)
        self.at_work.append(held)
        try:
            self.turn(held)
            if self.chance.random() < 0.2:
                held.give_back()
        except LeaseLost:
            pass
        except StoreUnavailable:
            if held not in self.deciding:
                held.in_order = False
        finally:
            self.at_work.pop()
        if self.chance.random() < 0.1:  # it is killed
            self.held[self.held.index(held)] = self.begin()

    def turn(self, held: Held) -> None:
        """As Projector has it, or who decides how many there are."""
        if not held.take():
            return
        if held in self.deciding:
            held.keep()
            held.give_back()
            return
        if not held.in_order:
            for _ in range(2):
                held.keep()
                self.wait()
            held.keep()
            self.half_done.clear()
            self.put_in_order += 1
            held.in_order = True
        held.in_order = False
        for _ in range(self.chance.randrange(1, 4)):
            held.keep()
            assert self.half_done <= {held}
            self.half_done.add(held)
            self.written += 1
            self.wait()
            if self.chance.random() < 0.05:
                raise StoreUnavailable("in the midst")
        held.keep()
        self.half_done.discard(held)
        held.in_order = True


@pytest.mark.parametrize("seed", range(30))
def test_nobody_writes_while_another_ones_half_is_not_put_in_order(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    world = World(seed)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return BEGIN + timedelta(seconds=world.clock)

    monkeypatch.setattr(lease, "time", SimpleNamespace(monotonic=lambda: world.clock))
    monkeypatch.setattr(lease, "datetime", Clock)
    for _ in range(150):
        world.act()

    assert world.written
    assert world.put_in_order
