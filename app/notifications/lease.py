"""The lease on a share: the right to derive what belongs to it, which one process has at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from app.errors import AppError, StoreUnavailable
from app.rules.shares import WHOLE, Share
from app.store import Stores, deadline
from app.store.leases import new_owner

LEASE = "projector"
WANTED = "projector wanted"  # held by a command that has events to load: servers make way for it
HELD = timedelta(seconds=2.5)  # without a renewal; so another one takes over within 3 s
RENEWED_S = 0.7
TURN_S = 60.0  # no step takes longer, whatever the database does


class LeaseLost(AppError):
    """Another process works the inbox in."""


def lease_of(number: int) -> str:
    """The name of the lease on a share."""
    return f"{LEASE} {number}" if number else LEASE


class Held:
    """The right to derive a share, which one process has at a time.

    Servers hold it as long as they live, and make way for who is `passing`: that takes the right to
    derive all shares. It is renewed before anything is written, and from beside while something is
    `going_on`.
    """

    def __init__(self, stores: Stores, share: Share = WHOLE, *, passing: bool) -> None:
        self._leases = stores.leases
        self._schema = stores.schema
        self._names = [lease_of(share.number)]
        self._passing = passing
        self.is_asking = False  # others make way
        self._owner = new_owner()
        self._until = 0.0  # monotonic
        self._renew_at = 0.0
        self._hangs_at = 0.0
        self._lock = threading.Lock()

    @property
    def is_mine(self) -> bool:
        """Whether nobody else may have it."""
        return time.monotonic() < self._until

    def take(self) -> bool:
        """Take or renew it; False where another process has it, or is to have it."""
        with self._lock:
            now = datetime.now(UTC)
            if self._passing:
                may_take = self._leases.take(WANTED, self._owner, now, 2 * HELD)
                self.is_asking = may_take
                if may_take and not self.is_mine:
                    self._names = list(map(lease_of, range(self._schema.check_projectors())))
            else:
                may_take = not self._leases.is_held(WANTED, now)
            if may_take and self._renew():
                self._renew_at = time.monotonic() + RENEWED_S
                self._hangs_at = time.monotonic() + TURN_S
                return True
            if not may_take:
                self._give_back()
            self._until = 0.0
            return False

    def keep(self) -> None:
        """Renew it where that is due.

        Raises:
            LeaseLost: another process may have it.
        """
        self._hangs_at = time.monotonic() + TURN_S
        if not self.is_mine or (time.monotonic() >= self._renew_at and not self.take()):
            with self._lock:
                self._until = 0.0
            raise LeaseLost("another process works the inbox in")

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Renew it from beside meanwhile, so that a slow database does not cost it.

        Who neither takes nor keeps it for TURN_S hangs, and loses it.
        """
        ended = threading.Event()
        beside = threading.Thread(target=self._beat, args=[ended], name="lease", daemon=True)
        beside.start()
        try:
            yield
        finally:
            ended.set()
            beside.join()

    def give_back(self) -> None:
        """Let another process take it at once."""
        with self._lock:
            self._until = 0.0
            self._give_back()
            if self._passing:
                self._leases.give_back(WANTED, self._owner)
                self.is_asking = False

    def _give_back(self) -> None:
        for name in self._names:
            self._leases.give_back(name, self._owner)

    def _beat(self, ended: threading.Event) -> None:
        half = HELD.total_seconds() / 2
        while not ended.wait(half / 4):
            with self._lock, contextlib.suppress(StoreUnavailable), deadline(half):
                beat = time.monotonic()
                if self.is_mine and beat > self._until - half and beat < self._hangs_at:
                    self._renew()

    def _renew(self) -> bool:
        asked_at, now = time.monotonic(), datetime.now(UTC)
        is_mine = self._leases.take_all(self._names, self._owner, now, HELD)
        self._until = asked_at + HELD.total_seconds() if is_mine else 0.0
        return is_mine
