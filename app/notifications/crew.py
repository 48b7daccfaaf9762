"""The projectors of a process: its fair part of all that there are."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from app.errors import StartupError, StoreUnavailable
from app.logs import COMPLAIN_S, Complaints
from app.notifications.lease import LEASE, TURN_S, WANTED, Held, LeaseLost, lease_of, length_of
from app.notifications.projector import LOOK_S, Projector, ProjectorThread
from app.rules.shares import WHOLE, Share
from app.store import Stores, deadline
from app.store.leases import new_owner

logger = logging.getLogger(__name__)

PRESENT = "process "  # begins the names of the leases by which processes are counted
PRESENCE = timedelta(seconds=5)  # without a renewal
GONE = timedelta(minutes=1)  # and then its lease is removed, and what it wanted counts no more


def agree(stores: Stores, number: int, held: Held) -> bool:
    """Whether there are so many projectors; makes it so where that is wanted.

    No projector works meanwhile: `held` is the right to derive everything. False where others are
    wanted, or where projectors have not made way yet: try again.
    """
    is_wanted = stores.schema.find_wanted_projectors() == number
    there = stores.schema.check_projectors()
    if not is_wanted or there == number:
        if held.is_asking:  # it was wanted until a moment ago
            held.give_back()
        return is_wanted
    stores.inbox.ensure_indexes(number)
    if not held.take():
        return False
    try:
        stores.inbox.divide(number, datetime.now(UTC))
        held.keep()
        stores.schema.set_projectors(number)
    except LeaseLost:
        return False
    finally:
        held.give_back()
    logger.warning("%d projectors from now on; there were %d", number, there)
    return True


def is_forsaken(stores: Stores, now: datetime) -> bool:
    """Whether nobody is there who works by the wanted number of projectors, or is about to."""
    held = stores.leases.find_held(now)
    is_so = stores.schema.check_projectors() == stores.schema.find_wanted_projectors()
    return WANTED not in held and not (is_so and any(name.startswith(LEASE) for name in held))


class _Member(NamedTuple):
    """A projector with its thread and connections."""

    stores: Stores
    projector: Projector
    thread: ProjectorThread

    def leave(self) -> None:
        """Let another process have the share; after the end of the thread."""
        self.projector.stop()
        self.stores.close()


class Crew(threading.Thread):
    """Runs projectors as long as the process lives: one, or of several its fair part.

    A fair part is what each process would have if all had as many, rounded up.
    """

    def __init__(
        self,
        number: int,
        connect: Callable[[], Stores],
        make: Callable[[Stores, Share], Projector],
    ) -> None:
        """`number` is how many projectors there are to be in all processes together."""
        super().__init__(name="projectors", daemon=True)
        self._number = number
        self._connect = connect
        self._make = make
        self._stores = connect()
        self._all = Held(self._stores, passing=True)
        self._name = f"{PRESENT}{new_owner()}"
        self._members: dict[int, _Member] = {}
        self._ended = threading.Event()
        self._looked_at: float | None = None
        self._swept_at = 0.0
        self._agreed_at = time.monotonic()
        self._forsaken = 0  # how many looks ago others were there, whose number is wanted
        self._complaints = Complaints()

    def run(self) -> None:
        """Until the process ends; an outage of the database is waited out."""
        while not self._ended.is_set():
            try:
                self._let_go()
                with deadline(TURN_S):
                    is_agreed = agree(self._stores, self._number, self._all)
                    if is_agreed and self._number > 1:
                        self.look()
                    if not is_agreed:
                        self.wait_for_others()
                if not is_agreed and time.monotonic() - self._agreed_at > COMPLAIN_S:
                    whom = "others have another notifications.projectors"
                    self._complaints.tell(logger, whom, "this one waits")
                elif is_agreed:
                    self._agreed_at, self._forsaken = time.monotonic(), 0
                if is_agreed and self._number == 1:
                    ProjectorThread(lambda: self._make(self._stores, WHOLE)).run()
            except (StoreUnavailable, StartupError) as error:
                self._complaints.tell(logger, "waiting for the database", error)
            except Exception:
                logger.exception("the projectors cannot be looked after")
            self._ended.wait(LOOK_S)

    def look(self) -> None:
        """Count who is there; begin with shares that nobody has, and give back what is too many."""
        now = datetime.now(UTC)
        before, self._looked_at = self._looked_at, time.monotonic()
        presence = length_of(PRESENCE, self._looked_at - before if before else 0.0)
        self._stores.leases.take(self._name, self._name, now, presence)
        held = self._stores.leases.find_held(now)
        fair = -(-self._number // sum(name.startswith(PRESENT) for name in held))
        for member in list(self._members.values())[fair:]:
            member.thread.stop()
        free = [
            number
            for number in range(self._number)
            if lease_of(number) not in held and number not in self._members
        ]
        if WANTED not in held:
            for number in free[: max(0, fair - len(self._members))]:
                self._begin(number)
        if time.monotonic() - self._swept_at > GONE.total_seconds():
            self._swept_at = time.monotonic()
            self._stores.leases.remove(PRESENT, now - GONE)

    def wait_for_others(self) -> None:
        """Let them have the number that they want, unless they have been gone for a minute."""
        if not is_forsaken(self._stores, datetime.now(UTC)):
            self._forsaken = 0
            return
        self._forsaken += 1
        if self._forsaken * LOOK_S > GONE.total_seconds():
            self._stores.schema.want_projectors(self._number)

    def _let_go(self) -> None:
        """Give back the shares whose threads have ended."""
        for number, member in list(self._members.items()):
            if not member.thread.is_alive():
                del self._members[number]
                member.leave()

    def _begin(self, number: int) -> None:
        stores = self._connect()
        projector = self._make(stores, Share(number, self._number))
        thread = ProjectorThread(lambda: projector, stays=False)
        self._members[number] = _Member(stores, projector, thread)
        thread.start()
