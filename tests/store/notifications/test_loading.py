"""What comes into the record other than through the inbox, while the database comes and goes."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from bson import json_util
from builders import NOW, envelope, wire_event

from app.errors import StoreUnavailable
from app.notifications import loading
from app.notifications.loading import load_events, load_lines, rebuild
from app.notifications.projector import Projector
from app.rules.events import Event, parse_envelope
from app.store import Stores


@pytest.fixture
def events() -> list[Event]:
    pushes = [wire_event("push", tag=f"v{number}", at=number) for number in range(5)]
    return parse_envelope(envelope(*pushes), "default", NOW).events


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "BULK", 2)
    monkeypatch.setattr(loading, "PAUSE_S", 0)


def failing(monkeypatch: Any, owner: Any, name: str, times: int) -> None:
    """Have the first calls of a method raise as if the database were away, after their work."""
    method, left = getattr(owner, name), iter(range(times))

    def call(*arguments: Any) -> Any:
        result = method(*arguments)
        if next(left, None) is not None:
            raise StoreUnavailable("away")
        return result

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize("name", ["load", "turn"])
def test_a_database_that_is_away_for_a_moment_does_not_end_a_load(
    mock_stores: Stores, events: list[Event], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    projector = Projector(mock_stores, passing=True)
    failing(monkeypatch, projector, name, 2)

    loaded = list(load_events(mock_stores, projector, events))
    again = list(load_events(mock_stores, projector, events))

    assert [(row.stored, row.duplicate) for row in loaded] == [(2, 0), (2, 0), (1, 0)]
    assert [(row.stored, row.duplicate) for row in again] == [(0, 2), (0, 2), (0, 1)]
    assert {event.id for event in mock_stores.events.iterate()} == {event.id for event in events}


def test_a_database_that_is_away_for_a_moment_does_not_end_a_rebuild(
    mock_stores: Stores, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    projector = Projector(mock_stores, passing=True)
    list(load_events(mock_stores, projector, events))
    failing(monkeypatch, projector, "rework", 2)

    assert sum(map(len, rebuild(mock_stores, projector, None))) == 5


def test_what_a_try_stored_before_it_failed_was_not_there_before(
    mock_stores: Stores, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = events[0].timestamp
    line = json_util.dumps({"collection": "manifests", "document": {"_id": "a", "at": moment}})
    projector = Projector(mock_stores, passing=True)
    failing(monkeypatch, mock_stores.transfer, "add", 1)

    [loaded] = load_lines(mock_stores, projector, [line.encode()], "")
    [again] = load_lines(mock_stores, projector, [line.encode()], "")

    assert (loaded.stored, loaded.duplicate) == (1, 0)
    assert (again.stored, again.duplicate) == (0, 1)


def test_a_database_that_stays_away_ends_it(
    mock_stores: Stores, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PATIENCE_S", 0)
    projector = Mock(load=Mock(side_effect=StoreUnavailable("away")))

    with pytest.raises(StoreUnavailable):
        list(load_events(mock_stores, projector, events))
    projector.load.assert_called_once()
