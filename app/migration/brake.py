"""The brake on deletes: many at a time are a sign of something going wrong."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from threading import Lock

from app.store.migrations import MigrationStore, PlanStatus, present

logger = logging.getLogger(__name__)

BRAKE_WINDOW = timedelta(minutes=10)
BRAKE_LEAST, BRAKE_SHARE = 20, 0.05  # deletes in the window, and as a share of all jobs done


class Brake:
    """Lets deletes of a plan wait for a person; `status` is the plan's status as it is now."""

    def __init__(
        self, migrations: MigrationStore, plan: str, status: Callable[[], PlanStatus]
    ) -> None:
        self._migrations = migrations
        self._plan = plan
        self._status = status
        self._lock = Lock()

    def may_delete(self) -> bool:
        """Whether one more delete is no sign of something going wrong."""
        plans, jobs = self._migrations.plans, self._migrations.jobs
        with self._lock:
            status = self._status()
            if status.deletes_allowed:
                return plans.take_delete(self._plan)
            if status.deletes_braked:
                return False
            since = present() - BRAKE_WINDOW
            deleted = jobs.count_deleted_since(
                self._plan, max(since, status.brake_lifted_at or since)
            )
            if deleted < BRAKE_LEAST:
                return True
            if deleted < BRAKE_SHARE * jobs.count_done(self._plan):
                return True
            why = f"{deleted} deletes within {BRAKE_WINDOW.seconds // 60} minutes"
            plans.brake_deletes(self._plan, why, present())
            logger.error("plan %s: deletes are braked: %s", self._plan, why)
            return False
