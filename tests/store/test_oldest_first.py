"""A collection is read once, the oldest first, whatever closes the cursor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from builders import wire_event
from pymongo.errors import AutoReconnect, CursorNotFound

from app.errors import StoreUnavailable
from app.store import Stores, paging

SIX = [f"e{number}" for number in range(6)]


class Breaking:
    """A collection whose cursors break after so many documents each; -1 is never."""

    def __init__(self, real: Any, after: list[int], error: Exception) -> None:
        self._real = real
        self._after = after
        self._error = error

    def find(self, query: Any) -> Any:
        after = self._after.pop(0)
        cursor = self._real.find(query)

        class Cursor:
            def sort(self, *by: Any) -> Cursor:
                cursor.sort(*by)
                return self

            def batch_size(self, size: int) -> Any:
                return broken()

        def broken() -> Iterator[Any]:
            for number, document in enumerate(cursor):
                if number == after:
                    raise self._error
                yield document

        return Cursor()


@pytest.fixture
def six(stores: Stores, receive: Any) -> Stores:
    receive(*(wire_event(id=id, at=-number) for number, id in enumerate(reversed(SIX))))
    return stores


def test_events_are_told_the_oldest_first_in_more_than_one_batch(
    six: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "BATCH", 2)

    assert [event.id for event in six.events.iterate()] == SIX
    third = next(event for event in six.events.iterate() if event.id == "e2")
    assert [event.id for event in six.events.iterate(third.timestamp)] == SIX[2:]


@pytest.mark.parametrize("error", [CursorNotFound("closed"), AutoReconnect("started anew")])
def test_where_the_database_closes_the_cursor_it_goes_on_behind_what_came(
    six: Stores, error: Exception
) -> None:
    six.events._collection = Breaking(six.events._collection, [4, 1, -1], error)  # type: ignore[assignment]

    assert [event.id for event in six.events.iterate()] == SIX


def test_a_database_that_stays_away_is_told(six: Stores) -> None:
    away = AutoReconnect("away")
    six.events._collection = Breaking(six.events._collection, [4, 0], away)  # type: ignore[assignment]
    found = []

    with pytest.raises(StoreUnavailable):
        found.extend(event.id for event in six.events.iterate())
