"""The projector of a server or command, and whom it tells."""

from __future__ import annotations

from collections.abc import Sequence

from app.migration import load_plans
from app.migration.live import LiveWishes
from app.notifications.listening import NodeWatch
from app.notifications.meter import Meter
from app.notifications.projector import Projector
from app.rules.events import Event
from app.rules.shares import WHOLE, Share
from app.settings import Settings
from app.store import Stores


def make_projector(
    settings: Settings,
    stores: Stores,
    meter: Meter | None = None,
    *,
    share: Share = WHOLE,
    passing: bool = False,
) -> Projector:
    """What works the inbox in, and tells migrations and checks; see Projector."""
    wish, watch = LiveWishes(stores.migrations, load_plans(settings)), NodeWatch(stores.checks)

    def after(events: Sequence[Event]) -> None:
        wish(events)
        watch(events)

    return Projector(stores, after, meter, share=share, passing=passing)
