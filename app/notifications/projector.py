"""Works the inbox in: one thread among all servers for each share, a batch of envelopes at once."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from app.errors import AppError, StartupError, StoreUnavailable
from app.logs import Complaints
from app.notifications.derivation import After, Derivation
from app.notifications.lease import TURN_S, Held, LeaseLost
from app.notifications.meter import Meter
from app.rules.events import Event, Rejected, parse_envelope, reject
from app.rules.shares import WHOLE, Share
from app.store import Stores, deadline
from app.store.inbox import Letter, Progress

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

POLL_S = 0.2  # what another process received is seen after so long
GATHER_S = 0.4  # between the beginnings of two batches, unless more waits than one holds
NOTED_S = 1.0  # between two notes that nothing waits
LOOK_S = 0.4  # between two tries to take the lease
READ, READ_BYTES = 4_000, 8 * 2**20  # envelopes that are read at once
BATCH_BYTES = 2**20  # of the envelopes that are worked in at once
AT_ONCE = 1_000  # events
MAX_FAILURES = 3  # of one envelope
RECENT = timedelta(minutes=2)  # is folded anew by who takes over
SLICE = timedelta(seconds=1)  # of it at once, or more where that is little

came = threading.Event()
"""Set when this process received an envelope."""


class Outvoted(AppError):
    """The repositories are divided among more projectors, or fewer, than this one knows."""


class ConcernsAll(AppError):
    """What is to be worked in concerns other shares, too."""


class Projector:
    """Works in what the inbox holds for its share, as long as it holds the lease.

    That of a command is `passing`: it works in everything, and servers make way for it until
    `stop`. What concerns several shares a server works in `alone`, too.
    """

    def __init__(
        self,
        stores: Stores,
        after: After = lambda events: None,
        meter: Meter | None = None,
        *,
        share: Share = WHOLE,
        passing: bool = False,
    ) -> None:
        self._stores = stores
        self._meter = meter
        self._share = share
        self._passing = passing
        self._held = self._own = Held(stores, share, passing=passing)
        self._derivation = Derivation(stores, after, lambda: self._held.keep())
        self._derivation.share = share
        self._term = 0  # of the lease, in which what is at hand was read
        self._waiting: deque[Letter] = deque()  # read, and not worked in
        self._progress = Progress(until=datetime.now(UTC))
        self._projectors = share.of  # that there are, also of who works in everything
        self._note_at = 0.0

    def turn(self) -> bool | None:
        """Work one batch in. True: there may be more; False: all is done; None: not our turn.

        Raises:
            Outvoted: a server that started later wants another number of projectors.
            StartupError: the database is newer than this program.
            StoreUnavailable: the database is away; nothing is lost by another turn.
        """
        with contextlib.suppress(LeaseLost), self._at_work():
            return self._turn()
        return None

    def _turn(self) -> bool | None:
        if not self._may_write():
            return None
        try:
            return self._work_batch()
        except ConcernsAll:
            self._go_alone()
            return True

    def _work_batch(self) -> bool:
        with deadline(TURN_S):
            began = time.monotonic()
            common = self._find_common()
            letters = common or self._next()
        self._work_in(letters)
        if self._meter:
            self._meter.count_derived(_waited(letter) for letter in letters if not letter.digests)
        if common:
            return True
        with deadline(TURN_S):
            self._note_progress(letters, began)
        if self.is_alone:
            self._go_back()
        return bool(letters)

    def _find_common(self) -> list[Letter]:
        """Some of what is nobody's share, which only who is alone may work in.

        Raises:
            ConcernsAll: there is such, and this one is not alone.
        """
        if self.is_alone:
            return self._stores.inbox.find_common(AT_ONCE, BATCH_BYTES, self._share.of)
        is_to_look = self._share.of > 1 and self._share.number == 0
        if is_to_look and self._stores.inbox.find_common(1, 1, self._share.of):
            raise ConcernsAll
        return []

    @property
    def is_alone(self) -> bool:
        """Whether it has, or waits for, the right to derive all shares, to give it back soon."""
        return self._held is not self._own

    def _go_alone(self) -> None:
        """From the next turn on work in what concerns all, when all others have made way."""
        self._begin_anew(Held(self._stores, passing=True), WHOLE)

    def _go_back(self) -> None:
        """From the next turn on work in what is of the own share alone."""
        self._begin_anew(self._own, self._share)

    def _begin_anew(self, held: Held, share: Share) -> None:
        with deadline(TURN_S):
            self._held.give_back()
        self._held = held
        self._derivation.share = share
        self._term = 0
        self._waiting.clear()

    @property
    def is_behind(self) -> bool:
        """Whether more waits than the last batch held, or all others wait."""
        return bool(self._waiting) or self.is_alone

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
                    with self._writing():
                        return work()
            time.sleep(LOOK_S)

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Hold the lease meanwhile, and trust nothing where it breaks off.

        Who loses the lease before it writes leaves all in order.
        """
        try:
            with self._held.going_on():
                yield
        except BaseException as error:
            if not isinstance(error, LeaseLost):
                self._held.in_order = False
            self._waiting.clear()
            raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What breaks off meanwhile may have stored the half of something."""
        was_in_order, self._held.in_order = self._held.in_order, False
        yield
        self._held.in_order = was_in_order

    def _may_write(self) -> bool:
        """Take the lease if need be, and put in order what was left half done.

        False where another process has it.
        """
        with deadline(TURN_S):
            if not self._held.take():
                return False
            if self._held.term == self._term and self._held.in_order:
                return True
            self._term = self._held.term
            # Raises where a newer program took over.
            self._projectors = self._stores.schema.check_projectors()
            if not self._passing and self._projectors != self._share.of:
                self.stop()
                raise Outvoted(f"there are {self._projectors} projectors, not {self._share.of}")
        self._derivation.forget()
        self._waiting.clear()
        if self._held.in_order:
            return True
        try:
            self._catch_up()
        except (LeaseLost, StoreUnavailable):
            raise
        except Exception:
            self._derivation.forget()
            logger.exception("what came last could not be folded anew")
        self._held.in_order = True
        return True

    def _catch_up(self) -> None:
        """Fold anew what came last: another process, or this one, may have broken off."""
        now = datetime.now(UTC)
        since, length = now - RECENT, SLICE
        while since <= now:
            until = since + length if since + length <= now else None
            with deadline(TURN_S):
                self._held.keep()
                events = self._stores.events.find_all_between(since, until)
                if own := list(filter(self._derivation.share.has, events)):
                    self._derivation.fold_anew(own)
            since += length
            length = max(SLICE, length * 2 if len(events) < AT_ONCE / 2 else length / 2)

    def _next(self) -> list[Letter]:
        """The oldest envelopes: as many as one batch may hold."""
        if not self._waiting:
            self._waiting.extend(self._stores.inbox.find_oldest(READ, READ_BYTES, self._share))
        letters: list[Letter] = []
        size = 0
        while self._waiting and len(letters) < AT_ONCE and size < BATCH_BYTES:
            letters.append(self._waiting.popleft())
            size += len(letters[-1].body)
        return letters

    def _work_in(self, letters: Sequence[Letter]) -> None:
        try:
            self._derive(letters)
        except (LeaseLost, ConcernsAll):
            raise
        except Exception as error:
            self._derivation.forget()
            self._stores.check()  # raises when it is the database that fails
            logger.warning("a batch of %d envelopes: %s; one by one", len(letters), error)
            for letter in letters:
                self._work_in_single(letter)

    def _derive(self, letters: Sequence[Letter]) -> None:
        events: list[Event] = []
        rejected: list[Rejected] = []
        told: defaultdict[str, set[str]] = defaultdict(set)
        for letter in letters:
            told[letter.registry].update(letter.digests)
            envelope = parse_envelope(letter.body, letter.registry, letter.received_at)
            events += envelope.events
            rejected += envelope.rejected
        with deadline(TURN_S):
            if self._derivation.share.of > 1 and any(map(self._is_renamed, events)):
                raise ConcernsAll
        with self._writing():
            if rejected:
                with deadline(TURN_S):
                    self._stores.rejected.add(rejected)
            for registry, digests in told.items():
                if digests:
                    with deadline(TURN_S):
                        self._derivation.look_again(registry, digests)
            for start in range(0, len(events), AT_ONCE):
                with deadline(TURN_S):
                    self._derivation.work_in(events[start : start + AT_ONCE])
            with deadline(TURN_S):
                self._held.keep()
                self._stores.inbox.remove([letter.id for letter in letters])

    def _is_renamed(self, event: Event) -> bool:
        """Whether what follows from an event stands under another name, and so in another share."""
        return event.action == "rename" or self._stores.catalogue_writer.is_renamed(event)

    def _work_in_single(self, letter: Letter) -> None:
        """Work one envelope in; the third time that it fails it is kept as rejected."""
        try:
            self._derive([letter])
        except (LeaseLost, ConcernsAll):
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
        if letters:
            self._progress = Progress(
                until=letters[-1].received_at,
                batch_s=beat - began,
                lag_s=_waited(letters[0]),
            )
        elif beat < self._note_at:
            return
        else:
            self._progress = msgspec.structs.replace(self._progress, until=now, lag_s=0.0)
        self._note_at = beat + NOTED_S
        self._stores.inbox.note_progress(self._progress, self._share, self._projectors)


def _waited(letter: Letter) -> float:
    """How many seconds ago a letter came."""
    return (datetime.now(UTC) - letter.received_at).total_seconds()


class ProjectorThread(threading.Thread):
    """Works the inbox in while the process lives, whenever this process holds the lease.

    It ends where there are other shares now, and unless it `stays` where another process holds it.
    """

    def __init__(self, make: Callable[[], Projector], *, stays: bool = True) -> None:
        super().__init__(name="projector", daemon=True)
        self._make = make
        self._stays = stays
        self._ended = threading.Event()
        self._complaints = Complaints()

    def run(self) -> None:
        """Until the process ends; an outage of the database is waited out."""
        projector = self._make()
        while not self._ended.is_set():
            came.clear()
            began = time.monotonic()
            try:
                turned = projector.turn()
            except (StoreUnavailable, StartupError) as error:
                self._complaints.tell(logger, "waiting for the database", error)
                self._ended.wait(LOOK_S)
                continue
            except Outvoted:
                return
            except Exception:
                logger.exception("the projector failed; it goes on in a second")
                self._ended.wait(1.0)
                continue
            if turned is None:
                if not (self._stays or projector.is_alone):
                    return
                self._ended.wait(LOOK_S)
            elif not turned:
                came.wait(POLL_S)
            elif not projector.is_behind:
                self._ended.wait(max(0.0, began + GATHER_S - time.monotonic()))

    def stop(self) -> None:
        """End after this turn."""
        self._ended.set()
