"""Several projectors, each with a share of the repositories: what follows is what one makes of it.

`World` is a database and processes that take events in and work them in. Before any write of one of
them others may have their turn, and at any write a process may die.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import mongomock
import pytest
from builders import IMAGE, INDEX, digest, envelope, wire_event
from pymongo.errors import BulkWriteError
from recount import differing

from app.notifications import lease
from app.notifications import projector as module
from app.notifications.crew import agree
from app.notifications.intake import Intake
from app.notifications.lease import Held, LeaseLost
from app.notifications.projector import Outvoted, Projector
from app.rules.shares import Share
from app.store import Stores

NAMES = [f"team/app-{number}" for number in range(6)]
CHILDREN = {"inner": ["amd64", "arm64"], "outer": ["inner"], "other": ["amd64"]}
CLIENTS = [("alice", "docker/27"), ("alice", "helm/3.16"), ("bob", "oras/1.2")]
WRITES = (
    *("insert_one", "insert_many", "bulk_write", "update_one", "update_many"),
    *("delete_many", "replace_one"),
)
COMPARED = ("events", "manifests", "repositories", "tags", "tag_history", "rejected_events")


class Died(BaseException):
    """The process is no more."""


class World:
    """A database, the processes on it, and what happens to them between two writes."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.database: Any = mongomock.MongoClient(tz_aware=True)["registry"]
        self.stores = Stores(self.database)
        self.stores.ensure_indexes()
        self.stores.schema.note()
        self.all = Held(self.stores, passing=True)
        self.wanted = 1
        self.is_calm = False
        self.deaths = self.losses = self.nested = 0
        self.projectors: dict[int, Projector] = {}
        self._at_work: list[int] = []

    def start(self, number: int) -> None:
        """A server that wants so many projectors, and works all of them itself."""
        self.wanted = number
        self.stores.schema.want_projectors(number)

    def act(self) -> None:
        """One projector has a turn, or one more server sees to how many there are."""
        if not agree(self.stores, self.wanted, self.all):
            self.turn_one(list(self.projectors))
            return
        self.turn_one(list(range(self.wanted)))

    def turn_one(self, numbers: list[int]) -> bool | None:
        """A turn of a projector that is not in the middle of one."""
        free = [number for number in numbers if number not in self._at_work]
        if not free:
            return None
        return self.turn(self.chance.choice(free))

    def turn(self, number: int) -> bool | None:
        if number not in self.projectors:
            stores: Any = Stores(Eventful(self.database, self, number))  # type: ignore[arg-type]
            share = Share(number, self.wanted)
            self.projectors[number] = Projector(stores, share=share)
        self._at_work.append(number)
        try:
            return self.projectors[number].turn()
        except (Died, Outvoted):
            self.bury(number)
            return None
        finally:
            self._at_work.pop()

    def bury(self, number: int) -> None:
        """Nobody renews the leases of the dead."""
        dead = self.projectors.pop(number)
        for held in (dead._held, dead._own):
            self.database["leases"].delete_many({"owner": held._owner})

    def happen(self, number: int) -> None:
        """Something may happen before a projector writes."""
        if self.is_calm or threading.current_thread() is not threading.main_thread():
            return
        what = self.chance.random()
        if what < 0.1 and len(self._at_work) < 3:
            self.nested += 1
            self.turn_one(list(self.projectors))
        elif what < 0.11:
            self.losses += 1
            projector = self.projectors[number]
            projector._held._until = 0.0
            self.database["leases"].delete_many({"owner": projector._held._owner})
            raise LeaseLost

    def is_fatal(self) -> bool:
        main = threading.current_thread() is threading.main_thread()
        return main and not self.is_calm and self.chance.random() < 0.01

    def settle(self) -> None:
        """Let all be worked in, without accidents."""
        self.is_calm = True
        for _ in range(500):
            is_agreed = agree(self.stores, self.wanted, self.all)
            numbers = {*self.projectors, *range(self.wanted)} if is_agreed else {*self.projectors}
            if [self.turn(number) for number in sorted(numbers)] == [False] * self.wanted:
                return
        raise AssertionError("never done")


class Eventful:
    """A database, or one of its collections, as a projector sees it."""

    def __init__(self, place: Any, world: World, number: int, name: str = "") -> None:
        self._place, self._world, self._number, self._name = place, world, number, name

    def __getitem__(self, name: str) -> Any:
        return Eventful(self._place[name], self._world, self._number, name)

    def with_options(self, **_: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._place, name)
        if name not in WRITES or self._name in ("leases", "health"):
            return found
        return lambda *given, **more: self._write(found, *given, **more)

    def _write(self, method: Callable[..., Any], *given: Any, **more: Any) -> Any:
        self._world.happen(self._number)
        if not self._world.is_fatal():
            return method(*given, **more)
        self._world.deaths += 1
        there = self._world.chance.choice(["nothing", "half", "all"])
        if there == "half" and isinstance(given[0], list):
            given = (given[0][::2], *given[1:])
        if there != "nothing" and given[0]:
            with contextlib.suppress(BulkWriteError):
                method(*given, **more)
        raise Died


def history(chance: random.Random) -> Iterator[dict[str, Any]]:
    """What happens in repositories that have much content in common."""
    at = datetime.now(UTC) - timedelta(seconds=100)
    odd = chance.choice([0.02, 0.1])
    for number in range(60):
        at += timedelta(seconds=chance.choice([0, 0.3, chance.random(), 2]))
        action = chance.choice(["push", "push", "push", "pull", "pull", "pull", "check", "delete"])
        of = chance.choice(["amd64", "arm64", "inner", "outer", "other"])
        actor, agent = chance.choice(CLIENTS)
        name = chance.choice(NAMES)
        tells = of in CHILDREN and action == "push" and name == NAMES[0]
        more: dict[str, Any] = {}
        if chance.random() < odd:
            action = chance.choice(["rename", "rename", "mount", "whole"])
        if action == "mount":
            more["fromRepository"] = chance.choice(NAMES)
        event = wire_event(
            "delete" if action == "whole" else action,
            name,
            of=None if action == "whole" else of,
            tag=chance.choice([None, "v1", "v2"]) if action in ("push", "pull", "check") else None,
            at=at.replace(microsecond=at.microsecond // 1000 * 1000),
            id=f"e{number}",
            actor=actor,
            user_agent=agent,
            media_type=INDEX if of in CHILDREN else IMAGE,
            children=CHILDREN[of] if tells else None,
            **more,
        )
        for reference in event["target"].get("references", []):
            if reference["digest"] in map(digest, CHILDREN):
                reference["mediaType"] = INDEX
        if action == "rename":
            old = event["target"]["repository"]
            renaming = {"type": "name", "from": old, "to": chance.choice(NAMES)}
            event |= {"target": {"repository": old, "rename": renaming}}
        yield event


def documents(database: Any, name: str) -> dict[str, Any]:
    return {
        row["_id"]: {
            key: value for key, value in row.items() if value is not None and key != "received_at"
        }
        for row in database[name].find()
    }


def by_one(events: list[dict[str, Any]], broken: list[Any]) -> Any:
    """The database in which one projector works in everything at once."""
    database: Any = mongomock.MongoClient(tz_aware=True)["registry"]
    stores = Stores(database)
    stores.ensure_indexes()
    Intake(stores, 2**30).receive(envelope(*events, *broken), "default")
    Projector(stores).drain()
    return database


def assert_nothing_is_claimed(world: World) -> None:
    """What waits is not said to be worked in."""
    waiting = [row["received_at"] for row in world.database["inbox"].find({"digests": None})]
    progress = world.stores.inbox.find_progress()
    if waiting and progress:
        assert progress.until <= min(waiting)


@pytest.mark.parametrize("seed", range(10))
def test_however_many_projectors_work_and_whoever_dies_all_follows_as_one_makes_it(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(lease, "RENEWED_S", 0.0)
    monkeypatch.setattr(lease, "HELD", timedelta(seconds=60))
    monkeypatch.setattr(module, "RECENT", timedelta())  # would put right what was forgotten
    world = World(seed)
    chance = world.chance
    events = list(history(chance))
    broken: list[Any] = [{"id": f"broken {number}"} for number in range(3)]
    coming = sorted(events, key=lambda _: chance.random()) if chance.random() < 0.5 else events[:]
    coming += chance.sample(coming, 8) + broken
    intakes = [Intake(world.stores, 2**30) for _ in range(2)]
    world.start(chance.choice([1, 2, 3, 4]))
    for _ in range(3):
        world.act()

    while coming:
        some = [
            coming.pop(chance.randrange(len(coming)))
            for _ in range(chance.randrange(1, 5))
            if coming
        ]
        intake = chance.choice(intakes)
        if chance.random() < 0.9:
            intake._look_at = 0.0
        intake.receive(envelope(*some), "default")
        if chance.random() < 0.04:
            world.start(chance.choice([1, 2, 3, 4]))
        for _ in range(chance.randrange(4)):
            world.act()
            assert_nothing_is_claimed(world)
    world.settle()

    assert world.stores.inbox.count() == 0
    one = by_one(events, broken)
    for name in COMPARED:
        assert differing(documents(world.database, name), documents(one, name)) == {}, name
    assert [*documents(world.database, "usage_days")] == [*documents(one, "usage_days")]
    assert world.deaths + world.losses + world.nested > 0


@pytest.mark.wire
def test_two_projectors_on_a_server(wire_database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWED_S", 0.0)
    stores = Stores(wire_database)
    stores.ensure_indexes()
    stores.schema.note()
    stores.schema.want_projectors(2)
    assert agree(stores, 2, Held(stores, passing=True))
    two = [Projector(Stores(wire_database), share=Share(number, 2)) for number in range(2)]
    renaming = {"type": "name", "from": "team/app-0", "to": "team/renamed"}
    index = {"of": "outer", "media_type": INDEX}
    sent = [
        wire_event("pull", "team/app-4", id="index", at=1, **index),
        wire_event("pull", "team/app-4", id="child", at=2, of="inner", media_type=INDEX),
        wire_event("push", "team/app-0", id="push", tag="v1", children=["inner"], **index),
        wire_event("push", at=5) | {"action": "rename", "target": {"rename": renaming}},
    ]

    for event in sent:
        Intake(stores, 2**30).receive(envelope(event), "default")
        while [projector.turn() for projector in two] != [False, False]:
            pass

    stored = {event.id: event for event in stores.events.iterate()}
    assert (len(stored), stored["child"].part_of) == (4, "index")
    assert [row["repository"] for row in wire_database["tags"].find()] == ["team/renamed"]
    progress = stores.inbox.find_progress()
    assert (stores.inbox.count(), progress and progress.of) == (0, 2)
