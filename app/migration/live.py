"""What events of a source registry mean for migrations: look at these references again."""

from __future__ import annotations

import time
from collections.abc import Sequence

from app.migration.plan import Plan
from app.rules.clients import OWN_CLIENT
from app.rules.events import Event
from app.store.migrations import LIVE, MigrationStore, Wish, present

MAX_INSTANCES = 1_000
CLOSED_S = 10.0  # between two looks for plans that were closed; none is ever opened again


class LiveWishes:
    """Wishes for the jobs of what events changed; threads share it."""

    def __init__(self, migrations: MigrationStore, plans: Sequence[Plan]) -> None:
        self._migrations = migrations
        self._plans = list(plans)
        self._instances: set[tuple[str, str]] = set()
        self._looked_for_closed: float | None = None

    def __call__(self, events: Sequence[Event]) -> None:
        """Wish for the jobs of all plans that these events concern; one command for one wish.

        Raises:
            StoreUnavailable: the events must come again, though they are stored.
        """
        self._migrations.follow_clock()
        self._note_instances(events)
        wishes = {wish: None for event in events for wish in self._wishes_of(event)}
        if not wishes:
            return
        self._leave_closed()
        open_plans = {plan.name for plan in self._plans}
        self._migrations.jobs.wish([wish for wish in wishes if wish.plan in open_plans], present())

    def _leave_closed(self) -> None:
        """Forget the plans that are closed."""
        now = time.monotonic()
        if self._looked_for_closed is None or now - self._looked_for_closed > CLOSED_S:
            closed = self._migrations.plans.find_closed()
            self._plans = [plan for plan in self._plans if plan.name not in closed]
            self._looked_for_closed = now

    def _wishes_of(self, event: Event) -> list[Wish]:
        reference = event.tag or event.digest
        if event.client == OWN_CLIENT or event.action not in ("push", "delete") or not reference:
            return []
        return [
            Wish(plan.name, event.repository, reference, LIVE, plan.options.debounce_s)
            for plan in self._plans
            if plan.registry == event.registry
            and (event.action == "push" or plan.deletes != "off")
            and plan.takes(event.repository, reference)
        ]

    def _note_instances(self, events: Sequence[Event]) -> None:
        """A registry process that is new may have lost the events of the one before it."""
        for event in events:
            for plan in self._plans:
                key = (plan.name, event.instance)
                if plan.registry != event.registry or not event.instance or key in self._instances:
                    continue
                self._migrations.note_instance(*key)
                if len(self._instances) < MAX_INSTANCES:
                    self._instances.add(key)
