"""Works the inbox in: one thread among all servers at a time, a batch of envelopes at once."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from app.errors import AppError, StartupError, StoreUnavailable
from app.notifications.derivation import After, Derivation
from app.notifications.meter import Meter
from app.rules.events import Event, Rejected, parse_envelope, reject
from app.store import Stores, deadline
from app.store.inbox import Letter, Progress

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

LEASE = "projector"
WANTED = "projector wanted"  # held by a command that has events to load: servers make way for it
HELD = timedelta(seconds=2.5)  # without a renewal; so another one takes over within 3 s
RENEWED_S = 0.7
POLL_S = 0.2  # what another process received is seen after so long
GATHER_S = 0.4  # between the beginnings of two batches, unless more waits than one holds
NOTED_S = 1.0  # between two notes that nothing waits
LOOK_S = 0.4  # between two tries to take the lease
TURN_S = 60.0  # no step takes longer, whatever the database does
READ, READ_BYTES = 4_000, 8 * 2**20  # envelopes that are read at once
BATCH_BYTES = 2**20  # of the envelopes that are worked in at once
AT_ONCE = 1_000  # events
MAX_FAILURES = 3  # of one envelope
RECENT = timedelta(minutes=2)  # is folded anew by who takes over
SLICE = timedelta(seconds=1)  # of it at once: it may be much
COMPLAIN_S = 60.0  # between two log lines that say the same

came = threading.Event()
"""Set when this process received an envelope."""


class LeaseLost(AppError):
    """Another process works the inbox in."""


class Held:
    """The right to derive, which one process has at a time.

    Servers hold it as long as they live, and make way for a command, which is `passing`. It is
    renewed before anything is written, and from beside while something is `going_on`.
    """

    def __init__(self, stores: Stores, *, passing: bool) -> None:
        self._leases = stores.leases
        self._passing = passing
        self._owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
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
            else:
                may_take = not self._leases.is_held(WANTED, now)
            if may_take and self._renew():
                self._renew_at = time.monotonic() + RENEWED_S
                self._hangs_at = time.monotonic() + TURN_S
                return True
            if not may_take:
                self._leases.give_back(LEASE, self._owner)
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
        self._until = 0.0
        self._leases.give_back(LEASE, self._owner)
        if self._passing:
            self._leases.give_back(WANTED, self._owner)

    def _beat(self, ended: threading.Event) -> None:
        half = HELD.total_seconds() / 2
        while not ended.wait(half / 4):
            with self._lock, contextlib.suppress(StoreUnavailable), deadline(half):
                beat = time.monotonic()
                if self.is_mine and beat > self._until - half and beat < self._hangs_at:
                    self._renew()

    def _renew(self) -> bool:
        asked_at = time.monotonic()
        is_mine = self._leases.take(LEASE, self._owner, datetime.now(UTC), HELD)
        self._until = asked_at + HELD.total_seconds() if is_mine else 0.0
        return is_mine


class Projector:
    """Works in what the inbox holds, as long as it holds the lease.

    That of a command is `passing`: servers make way for it until `stop`.
    """

    def __init__(
        self,
        stores: Stores,
        after: After = lambda events: None,
        meter: Meter | None = None,
        *,
        passing: bool = False,
    ) -> None:
        self._stores = stores
        self._meter = meter
        self._held = Held(stores, passing=passing)
        self._derivation = Derivation(stores, after, self._held.keep)
        self._is_caught_up = False  # what is derived follows from all that is on record
        self._waiting: deque[Letter] = deque()  # read, and not worked in
        self._progress = Progress(until=datetime.now(UTC))
        self._note_at = 0.0

    def turn(self) -> bool | None:
        """Work one batch in. True: there may be more; False: all is done; None: not our turn.

        Raises:
            StartupError: the database is newer than this program.
            StoreUnavailable: the database is away; nothing is lost by another turn.
        """
        with contextlib.suppress(LeaseLost), self._at_work():
            return self._turn()
        return None

    def _turn(self) -> bool | None:
        if not self._may_write():
            return None
        with deadline(TURN_S):
            self._held.keep()
            began = time.monotonic()
            letters = self._next()
        self._work_in(letters)
        with deadline(TURN_S):
            self._note_progress(letters, began)
        return bool(letters)

    @property
    def is_behind(self) -> bool:
        """Whether more waits than the last batch held."""
        return bool(self._waiting)

    def drain(self) -> int:
        """Work in all that waits; returns how many turns that took. Waits for the lease."""
        turns = 0
        while (turned := self.turn()) is not False:
            turns += 1
            if turned is None:
                time.sleep(LOOK_S)
        return turns

    def load(self, events: Sequence[Event]) -> int:
        """Work in events that came another way; returns how many were new. Waits for the lease."""
        return self._while_mine(lambda: self._derivation.work_in(events))

    def rework(self, events: Sequence[Event]) -> None:
        """Derive everything anew from events on record. Waits for the lease."""
        self._while_mine(lambda: self._derivation.rework(events))

    def alone(self, work: Callable[[], Result]) -> Result:
        """Do what nobody may derive at the same time. Waits for the lease."""
        try:
            return self._while_mine(work)
        finally:
            self._derivation.forget()

    def stop(self) -> None:
        """Let another process go on at once."""
        self._held.give_back()

    def _while_mine(self, work: Callable[[], Result]) -> Result:
        while True:
            with contextlib.suppress(LeaseLost), self._at_work():
                if self._may_write():
                    return work()
            time.sleep(LOOK_S)

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Hold the lease meanwhile; what breaks off may have stored the half of something."""
        try:
            with self._held.going_on():
                yield
        except BaseException:
            self._is_caught_up = False
            self._waiting.clear()
            raise

    def _may_write(self) -> bool:
        """Take the lease if need be, and catch up; False where another process has it."""
        if self._held.is_mine and self._is_caught_up:
            return True
        with deadline(TURN_S):
            if not self._held.take():
                return False
            self._stores.schema.check()  # raises where a newer program took over
        self._derivation.forget()
        self._waiting.clear()
        try:
            self._catch_up()
        except (LeaseLost, StoreUnavailable):
            raise
        except Exception:
            self._derivation.forget()
            logger.exception("what came last could not be folded anew")
        self._is_caught_up = True
        return True

    def _catch_up(self) -> None:
        """Fold anew what came last: another process, or this one, may have broken off."""
        now = datetime.now(UTC)
        since = now - RECENT
        while since <= now:
            until = since + SLICE if since + SLICE <= now else None
            with deadline(TURN_S):
                self._held.keep()
                if events := self._stores.events.find_all_between(since, until):
                    self._derivation.fold_anew(events)
            since += SLICE

    def _next(self) -> list[Letter]:
        """The oldest envelopes: as many as one batch may hold."""
        if not self._waiting:
            self._waiting.extend(self._stores.inbox.find_oldest(READ, READ_BYTES))
        letters: list[Letter] = []
        size = 0
        while self._waiting and len(letters) < AT_ONCE and size < BATCH_BYTES:
            letters.append(self._waiting.popleft())
            size += len(letters[-1].body)
        return letters

    def _work_in(self, letters: Sequence[Letter]) -> None:
        try:
            self._derive(letters)
        except LeaseLost:
            raise
        except Exception as error:
            self._is_caught_up = False
            self._derivation.forget()
            self._stores.check()  # raises when it is the database that fails
            logger.warning("a batch of %d envelopes: %s; one by one", len(letters), error)
            for letter in letters:
                self._work_in_alone(letter)

    def _derive(self, letters: Sequence[Letter]) -> None:
        events: list[Event] = []
        rejected: list[Rejected] = []
        for letter in letters:
            envelope = parse_envelope(letter.body, letter.registry, letter.received_at)
            events += envelope.events
            rejected += envelope.rejected
        if rejected:
            with deadline(TURN_S):
                self._stores.rejected.add(rejected)
        for start in range(0, len(events), AT_ONCE):
            with deadline(TURN_S):
                self._derivation.work_in(events[start : start + AT_ONCE])
        with deadline(TURN_S):
            self._held.keep()
            self._stores.inbox.remove([letter.id for letter in letters])

    def _work_in_alone(self, letter: Letter) -> None:
        """Work one envelope in; the third time that it fails it is kept as rejected."""
        try:
            self._derive([letter])
        except LeaseLost:
            raise
        except Exception as error:
            self._stores.check()
            self._derivation.forget()
            logger.exception("envelope %s of %s failed", letter.id, letter.registry)
            self._stores.inbox.note_failure(letter)
            if letter.failures + 1 >= MAX_FAILURES:
                self._give_up(letter, f"could not be worked in: {type(error).__name__}: {error}")

    def _give_up(self, letter: Letter, reason: str) -> None:
        whole = reject(letter.body, letter.registry, reason, letter.received_at)
        self._stores.rejected.add([whole])
        self._stores.inbox.remove([letter.id])

    def _note_progress(self, letters: Sequence[Letter], began: float) -> None:
        now, beat = datetime.now(UTC), time.monotonic()
        if self._meter:
            self._meter.count_derived(
                (now - letter.received_at).total_seconds() for letter in letters
            )
        if letters:
            self._progress = Progress(
                until=letters[-1].received_at,
                batch_s=beat - began,
                lag_s=(now - letters[0].received_at).total_seconds(),
            )
        elif beat < self._note_at:
            return
        else:
            self._progress = msgspec.structs.replace(self._progress, until=now)
        self._note_at = beat + NOTED_S
        self._stores.inbox.note_progress(self._progress)


class ProjectorThread(threading.Thread):
    """Works the inbox in while the process lives, whenever this process holds the lease."""

    def __init__(self, make: Callable[[], Projector]) -> None:
        super().__init__(name="projector", daemon=True)
        self._make = make
        self._ended = threading.Event()
        self._complained_at = -COMPLAIN_S

    def run(self) -> None:
        """Until the process ends; an outage of the database is waited out."""
        projector = self._make()
        while not self._ended.is_set():
            came.clear()
            began = time.monotonic()
            try:
                turned = projector.turn()
            except (StoreUnavailable, StartupError) as error:
                self._complain("waiting for the database: %s", error)
                self._ended.wait(LOOK_S)
                continue
            except Exception:
                logger.exception("the projector failed; it goes on in a second")
                self._ended.wait(1.0)
                continue
            if turned is None:
                self._ended.wait(LOOK_S)
            elif not turned:
                came.wait(POLL_S)
            elif not projector.is_behind:
                self._ended.wait(max(0.0, began + GATHER_S - time.monotonic()))

    def stop(self) -> None:
        """End after this turn."""
        self._ended.set()

    def _complain(self, text: str, *values: object) -> None:
        if time.monotonic() - self._complained_at >= COMPLAIN_S:
            self._complained_at = time.monotonic()
            logger.error(text, *values)
