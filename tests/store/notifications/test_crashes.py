"""Whatever breaks off between any two writes: what follows from the events follows all the same."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from builders import rule
from pymongo.errors import AutoReconnect, BulkWriteError
from recount import Recount, differing, tag_states
from traffic import deliver, live

from app.errors import StoreUnavailable
from app.notifications.intake import Intake
from app.notifications.projector import Projector
from app.rules.events import parse_envelope
from app.store import Stores
from app.store.events import RecordQuery

SECONDS = 4.0  # of the registry's life
WRITES = (
    *("insert_one", "insert_many", "bulk_write", "update_one", "update_many"),
    *("delete_one", "delete_many"),
)


class Weather:
    """Whether the database can be reached; it may go away while something is written."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.writes_left = self.writes_lost = self.breaks = 0
        self.is_bad = False

    def turn_bad(self) -> None:
        """After some writes the next ones are lost."""
        self.is_bad = True
        self.writes_left, self.writes_lost = self._chance.randrange(20), self._chance.choice([1, 3])

    def write(self, method: Callable[..., Any], *given: Any, **more: Any) -> Any:
        """Carry a write out, or lose it: before, in the middle, or its answer alone."""
        self.writes_left -= 1
        if not self.is_bad or self.writes_left >= 0:
            return method(*given, **more)
        self.writes_lost -= 1
        self.breaks += 1
        self.is_bad = self.writes_lost > 0
        there = self._chance.choice(["nothing", "half", "all"])
        if there == "half" and isinstance(given[0], list):
            given = (given[0][::2], *given[1:])
        if there != "nothing":
            with contextlib.suppress(BulkWriteError):  # its answer does not arrive either
                method(*given, **more)
        raise AutoReconnect("connection closed")


class Windy:
    """A database, or one of its collections, in such weather."""

    def __init__(self, place: Any, weather: Weather) -> None:
        self._place = place
        self._weather = weather

    def __getitem__(self, name: str) -> Any:
        return Windy(self._place[name], self._weather)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._place, name)
        if name not in WRITES:
            return found
        return lambda *given, **more: self._weather.write(found, *given, **more)


@pytest.mark.parametrize("seed", range(10))
def test_whatever_breaks_off_all_follows_as_if_nothing_had(mock_database: Any, seed: int) -> None:
    chance = random.Random(seed)
    weather = Weather(chance)
    stores = Stores(mock_database)
    stores.ensure_indexes()
    happened = list(live(chance, SECONDS))
    waiting = deliver(happened, chance)[::-1]
    projector = Projector(Stores(Windy(mock_database, weather)))  # type: ignore[arg-type]
    is_over = False

    while not is_over:
        until = waiting[-1][0] + chance.choice([0.1, 0.4, 1.5]) if waiting else 0
        while waiting and waiting[-1][0] <= until:
            body = json.dumps({"events": [waiting.pop()[1]]}).encode()
            Intake(stores, 2**30).receive(body, "default")
        if waiting and not weather.is_bad and chance.random() < 0.5:
            weather.turn_bad()
        try:
            is_over = projector.turn() is False and not waiting
        except StoreUnavailable:
            if chance.random() < 0.5:  # the process died of it
                mock_database["leases"].delete_many({})
                projector = Projector(Stores(Windy(mock_database, weather)))  # type: ignore[arg-type]

    assert weather.breaks > 0
    sent = json.dumps({"events": [event for _, _, event in happened]}).encode()
    recount = Recount(parse_envelope(sent, "default", datetime.now(UTC)).events)
    scope = stores.catalogue.find_scope(rule())
    rows = stores.events.find_page(RecordQuery(parts=True), scope, limit=2 * len(happened)).items
    folds = {row.id: (row.part_of, row.parent, row.tag, row.tag_from) for row in rows}
    assert differing(folds, recount.folds) == {}
    assert differing(tag_states(mock_database["tags"].find()), recount.tags) == {}
