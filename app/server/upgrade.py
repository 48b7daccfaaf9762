"""Bringing the database to this program's schema, before anything else is done with it."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from app.notifications.loading import rebuild
from app.server.projecting import make_projector
from app.settings import Settings
from app.store import Stores
from app.store.schema import NEWEST, STEPS, Step

logger = logging.getLogger(__name__)

LEASE = "schema"
HELD = timedelta(minutes=1)  # without a renewal, which comes after each bulk
LOOK_S = 0.5  # between two looks whether another server is done
TOLD_S = 10.0  # between two lines of progress


def bring_forward(stores: Stores, settings: Settings) -> None:
    """Take the steps that this database needs; of several servers one does, the others wait.

    What was broken off goes on about where it was.

    Raises:
        StartupError: the database is newer than this program.
        StoreUnavailable: nothing is lost by trying again.
    """
    owner = secrets.token_hex(8)
    told_at = time.monotonic()
    while stores.schema.find() < NEWEST:
        if not stores.leases.take(LEASE, owner, datetime.now(UTC), HELD):
            if time.monotonic() - told_at >= TOLD_S:
                told_at = time.monotonic()
                logger.warning("waiting for another server, which brings the database forward")
            time.sleep(LOOK_S)
            continue
        try:
            # Looked at once more: another server may have taken the step until a moment ago.
            number = stores.schema.find()
            if missing := [step for step in STEPS if step.number > number]:
                _take(stores, settings, missing[0], owner)
        finally:
            stores.leases.give_back(LEASE, owner)


def _take(stores: Stores, settings: Settings, step: Step, owner: str) -> None:
    """Take one step; stops where another server has the lease."""
    logger.warning("the database is brought to schema %d: %s", step.number, step.what)
    number, told_at = 0, time.monotonic()
    for read in _work(stores, settings, step):
        if not stores.leases.take(LEASE, owner, datetime.now(UTC), HELD):
            return
        number += read
        if time.monotonic() - told_at >= TOLD_S:
            told_at = time.monotonic()
            logger.warning("schema %d: %s documents are done", step.number, f"{number:,}")
    stores.schema.advance(step.number)
    logger.warning("the database has schema %d: %s documents", step.number, f"{number:,}")


def _work(stores: Stores, settings: Settings, step: Step) -> Iterator[int]:
    """All that a step asks for; yields how many documents were read, by the bulk."""
    since = stores.schema.find_derived_until()
    if since is None:
        yield from stores.schema.carry_out(step)
    if not step.derives:
        return
    projector = make_projector(settings, stores, passing=True)
    try:
        for events in rebuild(stores, projector, since):
            stores.schema.note_derived_until(events[-1].timestamp)
            yield len(events)
    finally:
        projector.stop()
