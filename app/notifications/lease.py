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
LONGEST = timedelta(seconds=30)  # that one lasts where the database is slow
RENEWED_S = 0.7
TURN_S = 60.0  # no step takes longer, whatever the database does


class LeaseLost(AppError):
    """Another process works the inbox in."""


def lease_of(number: int) -> str:
    """The name of the lease on a share."""
    return f"{LEASE} {number}" if number else LEASE


def length_of(usual: timedelta, took_s: float) -> timedelta:
    """How long a lease is to last where to renew it took so long the last time.

    Else nobody could hold one while the database is slow, and nothing would ever be done.
    """
    return max(usual, min(LONGEST, timedelta(seconds=5 * took_s)))


class Held:
    """The right to derive a share, which one process has at a time.

    Servers hold it as long as they live, and make way for who is `passing`: that takes the right to
    derive all shares. It is renewed before anything is written, and from beside while something is
    `going_on`.

    While it is not `in_order`, something that was derived under it may have been left half done.
    `term` counts how often it was taken: between two terms another process may have had it.
    """

    def __init__(self, stores: Stores, share: Share = WHOLE, *, passing: bool) -> None:
        self._leases = stores.leases
        self._schema = stores.schema
        self._names = [lease_of(share.number)]
        self._passing = passing
        self.is_asking = False  # others make way
        self.in_order = True
        self.term = 0
        self._owner = new_owner()
        self._length = HELD
        self._asked_at: float | None = None
        self._until = 0.0  # monotonic
        self._renew_at = 0.0
        self._hangs_at = 0.0
        self._lock = threading.Lock()

    @property
    def is_mine(self) -> bool:
        """Whether nobody else may have it."""
        return time.monotonic() < self._until

    def take(self) -> bool:
        """Take it, or renew it where that is due; False where another process has it.

        Makes way for who is to have it: call it where nothing is half done.
        """
        with self._lock:
            if self._is_lasting() or (self._may_take() and self._hold(takes=True)):
                self._hangs_at = time.monotonic() + TURN_S
                return True
            return False

    def keep(self) -> None:
        """Renew it where that is due, also where another process is to have it.

        Raises:
            LeaseLost: another process may have it, or had it since it was taken.
        """
        with self._lock:
            self._hangs_at = time.monotonic() + TURN_S
            if self._is_lasting():
                return
            if self._passing and self.is_mine:
                self._ask()
            if not self._hold(takes=False):
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
            self._give_back()
            if self._passing:
                self._leases.give_back(WANTED, self._owner)
                self.is_asking, self._asked_at = False, None

    def _give_back(self) -> None:
        self._until = 0.0
        end = self._leases.give_back if self.in_order else self._leases.leave
        for name in self._names:
            end(name, self._owner)

    def _beat(self, ended: threading.Event) -> None:
        while not ended.wait(HELD.total_seconds() / 8):
            with self._lock, contextlib.suppress(StoreUnavailable):
                beat = time.monotonic()
                left = self._until - beat
                is_due = 0 < left < self._length.total_seconds() / 2
                if is_due and beat < self._hangs_at:
                    with deadline(left):
                        self._renew()

    def _is_lasting(self) -> bool:
        return self.is_mine and time.monotonic() < self._renew_at

    def _may_take(self) -> bool:
        """Whether no other is to have it; makes way for who is."""
        if self._ask() if self._passing else not self._leases.is_held(WANTED, datetime.now(UTC)):
            return True
        self._give_back()
        return False

    def _ask(self) -> bool:
        """Have others make way; False where they do for another."""
        before, self._asked_at = self._asked_at, time.monotonic()
        length = length_of(2 * HELD, self._asked_at - before if before else 0.0)
        self.is_asking = self._leases.take(WANTED, self._owner, datetime.now(UTC), length)
        if self.is_asking and not self.is_mine:
            # Also of shares that are to be: who begins with one learns what was left.
            there = self._schema.check_projectors()
            number = max(there, self._schema.find_wanted_projectors())
            self._names = list(map(lease_of, range(number)))
        return self.is_asking

    def _hold(self, *, takes: bool) -> bool:
        """Renew it where it is one's own; else take it, if it may be another's since."""
        if not ((self.is_mine and self._renew()) or (takes and self._take())):
            return False
        self._renew_at = time.monotonic() + RENEWED_S
        return True

    def _renew(self) -> bool:
        """Whether nobody else had it since it was taken: then it lasts anew."""
        for _ in range(2):  # once more where that took longer than it lasts
            asked_at = time.monotonic()
            is_all = self._leases.renew_all(*self._asked())
            self._note(asked_at, is_all)
            if self.is_mine or not is_all:
                break
        return self.is_mine

    def _take(self) -> bool:
        self.term += 1
        was_in_order, self.in_order = self.in_order, False  # nor is it where no answer comes
        asked_at = time.monotonic()
        taken = self._leases.take_all(*self._asked())
        self.in_order = was_in_order and not taken.is_from_gone
        self._note(asked_at, taken.is_all)
        return self.is_mine or (taken.is_all and self._renew())

    def _asked(self) -> tuple[list[str], str, datetime, timedelta]:
        return self._names, self._owner, datetime.now(UTC), self._length

    def _note(self, asked_at: float, is_all: bool) -> None:
        """Until when one has it, as it was asked for then, and for how long to ask next."""
        self._until = asked_at + self._length.total_seconds() if is_all else 0.0
        self._length = length_of(HELD, time.monotonic() - asked_at)
