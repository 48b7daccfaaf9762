"""Which job of a plan a worker takes next."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime

from app.migration.plan import Plan
from app.store.migrations import BACKFILL, LIVE, Job, JobStore, present

IDLE_S = 0.2  # between two looks into an empty queue
EXPIRED_EVERY_S = 5.0  # between two looks for jobs of workers that went silent
RESERVED = 5  # one claim in so many goes to the backfill first, which pushes would starve else


class Claims:
    """Claims jobs of one plan, one after the other.

    `give_up` is called with a job that no worker brings to an end.
    """

    def __init__(
        self, jobs: JobStore, plan: Plan, owner: str, give_up: Callable[[Job], None]
    ) -> None:
        self._jobs = jobs
        self._plan = plan
        self._owner = owner
        self._give_up = give_up
        self._due: dict[int, deque[Job]] = {LIVE: deque(), BACKFILL: deque()}  # to be claimed
        self._turns = itertools.count(1)
        self._looked_for_pushes = 0.0
        self._looked_for_expired = 0.0

    def claim(self) -> Job | None:
        """Lease the next job: of a worker that went silent, a push, or what is left to copy."""
        now = present()
        if time.monotonic() - self._looked_for_expired > EXPIRED_EVERY_S:
            job = self._jobs.claim_expired(self._plan.name, self._owner, now)
            if job and job.attempts > self._plan.options.max_attempts:
                self._give_up(job)
            elif job:
                return job
            self._looked_for_expired = time.monotonic()
        is_reserved = next(self._turns) % RESERVED == 0
        if self._due[BACKFILL] and not self._due[LIVE]:  # a look for each job of a backfill is dear
            is_reserved |= time.monotonic() - self._looked_for_pushes < IDLE_S
        for priority in (BACKFILL, LIVE) if is_reserved else (LIVE, BACKFILL):
            job = self._claim_of(priority, now)
            if job:
                return job
        return None

    def _claim_of(self, priority: int, now: datetime) -> Job | None:
        due = self._due[priority]
        for is_fresh in (False, True):  # what was seen before may be gone by now
            if is_fresh:
                if priority == LIVE:
                    self._looked_for_pushes = time.monotonic()
                due.extend(self._jobs.find_due(self._plan.name, priority, now))
            while due:
                job = self._jobs.claim(due.popleft(), self._owner, now)
                if job:
                    return job
        return None
