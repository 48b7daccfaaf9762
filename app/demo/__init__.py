"""`rns demo`: a company that does not exist, to look at the pages with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from app.analysis.summaries import nobody_closing
from app.demo.company import REGISTRY, parsed_history
from app.notifications.loading import Loaded, load_events
from app.notifications.projector import Projector
from app.store import Stores

FRESH = timedelta(hours=5)  # at night less happens

__all__ = ["REGISTRY", "load", "remove"]


def load(stores: Stores, projector: Projector, now: datetime) -> Iterator[Loaded]:
    """Store what happened in the company until now; tells after each bulk.

    Where it is there already nothing is added. What was interrupted, or is from an earlier day, is
    continued.
    """
    newest = stores.events.find_newest_of(REGISTRY)
    if newest is None:
        return load_events(stores, projector, parsed_history(now))
    if newest.timestamp > now - FRESH:
        return iter(())
    rest = (e for e in parsed_history(now) if e.timestamp > newest.timestamp - FRESH)
    return load_events(stores, projector, rest)


def remove(stores: Stores, projector: Projector) -> int:
    """Delete all demonstration data; returns how many events that were."""

    def remove() -> int:
        stores.manifests.remove_registry(REGISTRY)
        stores.catalogue_writer.remove_registry(REGISTRY)
        return stores.events.remove_registry(REGISTRY)

    removed = projector.alone(remove)
    with nobody_closing(stores):  # who read the events before they went writes their figures later
        stores.days.remove_registry(REGISTRY)
    return removed
