"""Closing days: by one process at a time, the newest first, and with few words."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from builders import deliver, envelope, wire_event

from app import demo
from app.analysis import summaries
from app.analysis.summaries import Busy, Closer, close_days
from app.notifications.projector import Projector
from app.store import Stores

LONG_AGO = datetime(2013, 5, 5, 12, tzinfo=UTC)
DAY = timedelta(days=1)
NOON = time(12)


def push(stores: Stores, at: datetime) -> None:
    deliver(stores, envelope(wire_event("push", tag="v1", at=at)), "default", at)


@pytest.fixture
def days(mock_stores: Stores) -> list[Any]:
    """Three days with events, the newest first, none of them closed."""
    now = datetime.now(UTC)
    moments = [now - 3 * DAY, now - 40 * DAY, LONG_AGO]
    for at in moments:
        push(mock_stores, at)
    return [at.date() for at in moments]


def test_days_are_closed_newest_first_and_hours_before_them(
    days: list[Any], mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(mock_stores, datetime.now(UTC))
    keys: list[str] = []
    close: Callable[..., Any] = mock_stores.days.close
    monkeypatch.setattr(
        mock_stores.days, "close", lambda span, now: keys.append(span.key) or close(span, now)
    )

    closed = list(close_days(mock_stores))

    assert [(day, left) for day, _, left in closed] == [(days[0], 2), (days[1], 1), (days[2], 0)]
    assert [key for key in keys if "T" not in key] == [str(day) for day in days]
    assert keys[-3:] == [str(day) for day in days]


def test_only_what_is_asked_for_is_summarised_anew(days: list[Any], mock_stores: Stores) -> None:
    list(close_days(mock_stores))

    assert list(close_days(mock_stores)) == []
    assert [day for day, *_ in close_days(mock_stores, days[1])] == days[:2]
    assert [day for day, *_ in close_days(mock_stores, days[1], days[1])] == [days[1]]


def test_a_round_writes_one_line_whatever_it_closes(
    days: list[Any], mock_stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    closer = Closer(lambda: mock_stores)
    with caplog.at_level(logging.INFO):
        closer.close(mock_stores)
        closer.close(mock_stores)

    expected = f"summarised 3 days, 2013-05-05 to {days[0]}: 3 rows"
    assert [record.getMessage() for record in caplog.records] == [expected]


def test_only_one_process_closes_days(days: list[Any], mock_stores: Stores) -> None:
    first = close_days(mock_stores)
    next(first)

    with pytest.raises(Busy):
        list(close_days(mock_stores))
    first.close()
    assert len(list(close_days(mock_stores))) == 2


def test_a_day_that_is_opened_while_another_is_summarised_rests_first(
    days: list[Any], mock_stores: Stores
) -> None:
    closing = close_days(mock_stores)
    next(closing)
    late = datetime.combine(days[1], NOON, UTC)
    mock_stores.days.open_days([late], datetime.now(UTC))  # and the event is stored a moment later

    list(closing)

    states = mock_stores.days.find_states(days[2], days[0])
    assert [bool(states[str(day)].get("run")) for day in days] == [True, False, True]


def test_demonstration_data_leaves_no_figures_that_were_just_summarised(
    mock_stores: Stores, mock_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime.now(UTC) - 3 * DAY
    deliver(mock_stores, envelope(wire_event("push", tag="v1", at=at)), demo.REGISTRY, at)
    mock_stores.leases.take(summaries.LEASE, "a server", datetime.now(UTC))
    waits: list[float] = []

    def finish(seconds: float) -> None:
        """The server read the events before they were removed, and writes now."""
        waits.append(seconds)
        mock_database["usage"].insert_one({"registry": demo.REGISTRY, "day": str(at.date())})
        mock_stores.leases.give_back(summaries.LEASE, "a server")

    # Not that of the module `time`: threads of others sleep, too.
    monkeypatch.setattr(summaries, "time", SimpleNamespace(sleep=finish))

    assert demo.remove(mock_stores, Projector(mock_stores, passing=True)) == 1
    assert len(waits) == 1
    assert mock_database["usage"].count_documents({}) == 0
