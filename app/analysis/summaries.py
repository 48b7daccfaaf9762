"""Closing days: who does it, when, and never two at once."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime

from app.errors import AppError, StartupError, StoreUnavailable
from app.store import Stores
from app.store.leases import new_owner

logger = logging.getLogger(__name__)

LEASE = "usage"
PAUSE_S = 60.0
LOOK_S = 0.4  # between two looks whether another one has done


class Busy(AppError):
    """Another process is closing days."""


def close_days(
    stores: Stores, first: date | None = None, last: date | None = None
) -> Iterator[tuple[date, int, int]]:
    """Close the days that are open; yields each day, its number of rows, and how many are left.

    What is newest first: before the days the hours of the one that is not over. With `first` or
    `last` all days between them that have events and are settled are summarised anew, except those
    whose events the retention removed. What is done is kept when the caller stops.

    Raises:
        Busy: another one does it right now.
    """
    days, leases = stores.days, stores.leases
    owner = new_owner()
    if not leases.take(LEASE, owner, datetime.now(UTC)):
        raise Busy("another process is summarising; try again in a few minutes")
    try:
        for hour in days.find_open_hours(datetime.now(UTC)):
            days.close(hour, datetime.now(UTC))
            if not leases.take(LEASE, owner, datetime.now(UTC)):
                return
        now = datetime.now(UTC)
        is_chosen = first is not None or last is not None
        due = days.find_settled_days(now, first, last) if is_chosen else days.find_open_days(now)
        for index, day in enumerate(due, 1):
            rows = days.close_day(day, datetime.now(UTC))
            if not leases.take(LEASE, owner, datetime.now(UTC)):
                return
            yield day, rows, len(due) - index
    finally:
        leases.give_back(LEASE, owner)


@contextlib.contextmanager
def nobody_closing(stores: Stores) -> Iterator[None]:
    """Wait for who is closing days, and let nobody begin meanwhile."""
    owner = new_owner()
    while not stores.leases.take(LEASE, owner, datetime.now(UTC)):
        time.sleep(LOOK_S)
    try:
        yield
    finally:
        stores.leases.give_back(LEASE, owner)


class Closer(threading.Thread):
    """Closes days and applies the retention in the background, once a minute, while it lives."""

    def __init__(self, make_stores: Callable[[], Stores]) -> None:
        super().__init__(name="closer", daemon=True)
        self._make_stores = make_stores
        self._end = threading.Event()

    def run(self) -> None:
        """Until the process ends; an outage of the database is waited out."""
        stores = self._make_stores()
        pause = random.uniform(0.2, 0.5) * PAUSE_S  # noqa: S311 - workers take turns
        while not self._end.wait(pause):
            pause = PAUSE_S
            try:
                self.close(stores)
            except (Busy, StartupError, StoreUnavailable):
                continue
            except Exception:
                logger.exception("summarising failed; tried again in a minute")

    def close(self, stores: Stores) -> None:
        """One round; not on the database of a newer program, which has its own."""
        stores.schema.check()
        closed: list[date] = []
        number = 0
        try:
            for day, rows, _ in close_days(stores):
                closed.append(day)
                number += rows
        finally:
            if closed:
                text = "summarised %d days, %s to %s: %d rows"
                logger.info(text, len(closed), min(closed), max(closed), number)
        removed = stores.days.remove_events(datetime.now(UTC))
        if removed:
            logger.info("removed %d events beyond notifications.retention_days", removed)

    def stop(self) -> None:
        """End before the next round."""
        self._end.set()
