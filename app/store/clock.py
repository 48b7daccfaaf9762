"""The time by which leases are kept: the database's, whatever the machines of its users show."""

from __future__ import annotations

import contextlib
import logging
import time
from datetime import UTC, datetime, timedelta
from threading import Lock

from pymongo.database import Database

from app.store.paging import Document

logger = logging.getLogger(__name__)

ASK_EVERY_S = 60.0
TOLERATED = timedelta(seconds=1)  # a request takes time, too


class Clock:
    """The machine's clock, and by how much the database's is ahead of it."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)
        self._asked_at: float | None = None  # time.monotonic()
        self._lock = Lock()

    def follow(self, database: Database[Document]) -> None:
        """Ask the database for its time, once a minute at most; not every database tells it."""
        now = time.monotonic()
        with self._lock:
            if self._asked_at is not None and now - self._asked_at < ASK_EVERY_S:
                return
            self._asked_at = now
        began = datetime.now(UTC)
        told = None
        with contextlib.suppress(NotImplementedError):
            told = database.client.admin.command("hello").get("localTime")
        took = datetime.now(UTC) - began
        if told is None or took > TOLERATED:  # it waited for the database, nobody knows where
            return
        middle = began + took / 2
        ahead = told.replace(tzinfo=UTC) - middle
        ahead = timedelta(0) if abs(ahead) < TOLERATED else ahead
        if abs(ahead - self.ahead) > TOLERATED:
            logger.warning("the database's clock is ahead of this machine's by %s", ahead)
        self.ahead = ahead


clock = Clock()  # one for the process: all of its stores are on one database


def present() -> datetime:
    """The present time by the database's clock, in the milliseconds that MongoDB keeps."""
    moment = datetime.now(UTC) + clock.ahead
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
