"""Live migrations: the state of plans, the queue of jobs, runs, drift, workers and the audit.

Every operation is one conditional update, or two of which either order of crashes is harmless; no
operation needs a transaction. Times come from the caller, who takes them from the database's clock
(`present`); a clock that is wrong moves a lease or a pause, and no more, because whoever lost a
lease is refused by its token.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import get_args

from pymongo.database import Database

from app.store.clock import clock, present
from app.store.errors import translate_errors
from app.store.migrations.blobs import BlobStore
from app.store.migrations.jobs import JobStore
from app.store.migrations.plans import PlanStore
from app.store.migrations.runs import RunStore
from app.store.migrations.values import (
    ASKED_FOR,
    BACKFILL,
    BROKEN,
    DRIFT_KINDS,
    HARMLESS,
    JOB_STATES,
    LEASE,
    LEAST_SHARE,
    LIVE,
    SETTLED,
    WORKED,
    Attempt,
    Breaker,
    Drift,
    DriftKind,
    Job,
    JobCount,
    Look,
    Outcome,
    PlanState,
    PlanStatus,
    Run,
    SourceProcess,
    Wish,
    WorkerBeat,
)
from app.store.migrations.workers import WorkerStore
from app.store.paging import Document

__all__ = [
    "ASKED_FOR",
    "BACKFILL",
    "BROKEN",
    "DRIFT_KINDS",
    "HARMLESS",
    "JOB_STATES",
    "LEASE",
    "LEAST_SHARE",
    "LIVE",
    "SETTLED",
    "WORKED",
    "Attempt",
    "Breaker",
    "Drift",
    "DriftKind",
    "Job",
    "JobCount",
    "JobStore",
    "Look",
    "MigrationStore",
    "Outcome",
    "PlanState",
    "PlanStatus",
    "PlanStore",
    "Run",
    "RunStore",
    "SourceProcess",
    "Wish",
    "WorkerBeat",
    "present",
]


@translate_errors
class MigrationStore:
    """All access to the `migration_*` collections."""

    def __init__(self, database: Database[Document]) -> None:
        self._database = database
        self.plans = PlanStore(database)
        self.jobs = JobStore(database, self.plans)
        self.runs = RunStore(database)
        self.blobs = BlobStore(database)
        self.workers = WorkerStore(database)

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent."""
        for store in (self.plans, self.jobs, self.runs, self.blobs, self.workers):
            store.ensure_indexes()

    def follow_clock(self) -> None:
        """Let `present` be the database's time; asks once a minute at most."""
        clock.follow(self._database)

    def close(self, plan: str, who: str, now: datetime) -> bool:
        """End a plan and all that waits in its queue; False when it is closed already."""
        before = [state for state in get_args(PlanState) if state != "closed"]
        if not self.plans.set_state(plan, "closed", who, now, before=before):
            return False
        self.jobs.waive_pending(plan, now)
        return True

    def note_instance(self, plan: str, instance: str) -> None:
        """Remember a registry process that sent events; a new one may have lost some.

        A crawl that is under way or over is then wanted once more.
        """
        self.plans.add_instance(plan, instance, self._why_crawl_again(plan))

    def note_look(
        self, plan: str, look: Look, processes: Sequence[SourceProcess], *, is_new: bool
    ) -> None:
        """Remember what both registries said, and the processes of the source that are known.

        `is_new`: the source has a process that was not known. As with `note_instance`.
        """
        why = self._why_crawl_again(plan) if is_new else ""
        self.plans.set_look(plan, look, processes, why)

    def _why_crawl_again(self, plan: str) -> str:
        is_begun = self.runs.get(plan, "crawl") is not None
        return "the source was restarted, and may have lost events" if is_begun else ""
