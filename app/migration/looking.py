"""Both registries of a plan asked now: whether they answer, and whether they are equal."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from app.errors import AppError
from app.migration.readiness import BEHIND_S
from app.migration.sides import Sides
from app.migration.traffic import Aborted
from app.migration.verification import verify_plan
from app.migration.verifier import RECHECK_S, Extent
from app.registry import RegistryClient, RegistryError
from app.registry.debug_server import ask_debug_server
from app.store import Stores
from app.store.migrations import Look, MigrationStore, SourceProcess, present

ANSWER_S = 15.0  # for both registries together
INBOX_LOOK_S = 0.2
MAX_PROCESSES = 20  # of a source of several nodes behind one name


class TookTooLong(AppError):
    """A comparison was not over in time."""


def look(migrations: MigrationStore, sides: Sides) -> list[RegistryError]:
    """Ask both registries whether they answer, and the source which process it is; note that.

    A process that was not known may have lost the events of the one before it: another crawl is
    then wanted. Takes 20 seconds at most. Returns why a registry cannot be used.
    """
    plan = sides.plan
    errors = _ping([sides.source, sides.target])
    state = ask_debug_server(plan.debug_url) if plan.debug_url else None
    status = migrations.plans.get(plan.name)
    processes, is_new = status.processes, False
    if state:
        others = [
            known for known in processes if not state.goes_on(known.collections, known.last_at)
        ]
        is_new = bool(processes) and len(others) == len(processes)
        seen = SourceProcess(state.collections, state.last_at)
        processes = [*others, seen][-MAX_PROCESSES:]
    said = Look(
        at=present(),
        source=str(errors[0] or ""),
        target=str(errors[1] or ""),
        pending=state.pending if state else None,
    )
    migrations.note_look(plan.name, said, processes, is_new=is_new)
    return [error for error in errors if error]


def _ping(clients: list[RegistryClient]) -> list[RegistryError | None]:
    """Why each cannot be used, None where it can; a request that hangs is left behind."""
    late = f"does not answer within {ANSWER_S:.0f} s"
    found: list[RegistryError | None] = [
        RegistryError("down", f"{client.url}: {late}", registry=client.url) for client in clients
    ]

    def ping(place: int) -> None:
        try:
            clients[place].ping()
        except RegistryError as error:
            found[place] = error
        except Aborted:  # nobody waits for the answer any more
            pass
        else:
            found[place] = None

    threads = [
        threading.Thread(target=ping, args=[place], name="ping", daemon=True)
        for place in range(len(clients))
    ]
    deadline = time.monotonic() + ANSWER_S
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return list(found)


def examine(
    stores: Stores,
    sides: Sides,
    owner: str,
    *,
    within_s: float,
    each: Callable[[], object] = lambda: None,
    recheck_s: float = RECHECK_S,
) -> None:
    """Look at both sides and compare everything, if the plan could be cut over at all.

    What comes out is in the store, where app.migration.readiness reads it. `each` is called for
    every tag. A comparison that takes longer than `within_s`, or that a registry ends, is no
    verification; what differs is copied anew.
    """
    plan, migrations = sides.plan, stores.migrations
    errors = look(migrations, sides)
    if errors or migrations.plans.get(plan.name).state not in ("live", "frozen"):
        return
    deadline = time.monotonic() + within_s

    def one_more() -> None:
        if time.monotonic() > deadline:
            raise TookTooLong(
                f"it takes longer than {within_s:.0f} s; rns migrate verify has no limit"
            )
        each()

    with contextlib.suppress(RegistryError, TookTooLong):  # noted with the verification
        verify_plan(stores, sides, owner, extent=Extent(recheck_s=recheck_s), each=one_more)
    look(migrations, sides)  # a restart meanwhile may have lost what changed behind its back
    _wait_for_inbox(stores)


def _wait_for_inbox(stores: Stores) -> None:
    """Wait until what came by now is worked in, if a server is at it: app.migration.readiness."""
    now, deadline = present(), time.monotonic() + BEHIND_S
    while (progress := stores.inbox.find_progress()) and progress.until < now:
        if progress.seconds_behind(now) > BEHIND_S or time.monotonic() > deadline:
            return
        time.sleep(INBOX_LOOK_S)
