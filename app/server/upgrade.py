"""Bringing the database to this program's schema, while events are taken into the inbox."""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from threading import Event

from app.notifications.lease import Held
from app.notifications.loading import rebuild
from app.server.projecting import make_projector
from app.settings import Settings
from app.store import Stores
from app.store.schema import NEWEST, STEPS, Progress, Step

logger = logging.getLogger(__name__)

LEASE = "schema"
HELD = timedelta(minutes=1)  # without a renewal, which comes after each bulk
LOOK_S = 0.5  # between two looks whether another server is done
TOLD_S = 10.0  # between two lines of progress
WAITING_TOLD_S = 60.0  # between two lines of who waits


def bring_forward(stores: Stores, settings: Settings, ended: Event | None = None) -> bool:
    """Take the steps that this database needs; of several servers one does, the others wait.

    What was broken off goes on where it was. Returns whether all is done: not if `ended` was set.

    Raises:
        StartupError: the database is newer than this program.
        StoreUnavailable: nothing is lost by trying again.
    """
    ended = ended or Event()
    owner = secrets.token_hex(8)
    told_at = 0.0
    while stores.schema.check() < NEWEST:
        if ended.is_set():
            return False
        if not stores.leases.take(LEASE, owner, datetime.now(UTC), HELD):
            if time.monotonic() - told_at >= WAITING_TOLD_S:
                told_at = time.monotonic()
                logger.warning("another process is at it: %s", stores.schema.find_wait())
            ended.wait(LOOK_S)
            continue
        try:
            # Looked at once more: another server may have taken the step until a moment ago.
            number = stores.schema.find()
            if missing := [step for step in STEPS if step.number > number]:
                _take(stores, settings, missing[0], owner, ended)
        finally:
            stores.leases.give_back(LEASE, owner)
    return True


def _take(stores: Stores, settings: Settings, step: Step, owner: str, ended: Event) -> None:
    """Take one step; stops where another server has the lease, or when `ended` is set."""
    progress = stores.schema.begin(step)
    logger.warning("the database is brought to schema %d: %s", step.number, step.what)
    if progress.done:
        logger.warning("schema %d goes on: %s", step.number, progress)
    _push_out_older(stores, ended)
    told_at = time.monotonic()
    with contextlib.closing(_work(stores, settings, step, progress)) as steps:
        for progress in steps:
            if not stores.leases.take(LEASE, owner, datetime.now(UTC), HELD):
                return
            stores.schema.note_progress(progress)
            if ended.is_set():
                logger.warning("schema %d is broken off: %s", step.number, progress)
                return
            if time.monotonic() - told_at >= TOLD_S:
                told_at = time.monotonic()
                logger.warning("schema %d: %s", step.number, progress)
    stores.schema.advance(step.number)
    logger.warning("the database has schema %d: %s documents", step.number, f"{progress.done:,}")


def _push_out_older(stores: Stores, ended: Event) -> None:
    """Have a server of an older version make way: it comes back only to find the step begun."""
    held = Held(stores, passing=True)
    while not held.take() and not ended.wait(LOOK_S):
        pass
    held.in_order = False  # an older one makes way in the midst of something
    held.give_back()


def _work(
    stores: Stores, settings: Settings, step: Step, progress: Progress
) -> Generator[Progress, None, None]:
    """All that a step asks for, from where it is on; yields how far it is then, by the bulk."""
    if progress.derived_until is None:
        for bulk in stores.schema.carry_out(step, progress.place):
            progress = progress._replace(done=progress.done + bulk.number, place=bulk.place)
            yield progress
    if not step.derives:
        return
    projector = make_projector(settings, stores, passing=True)
    try:
        for events in rebuild(stores, projector, progress.derived_until):
            progress = progress._replace(
                done=progress.done + len(events), derived_until=events[-1].timestamp
            )
            yield progress
    finally:
        projector.stop()
