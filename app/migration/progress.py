"""How far a plan is and how fast it goes, from what the store knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from app.migration.advice import advice
from app.migration.plan import Plan
from app.migration.readiness import lag_s
from app.store.migrations import (
    JOB_STATES,
    WORKED,
    Breaker,
    JobCount,
    MigrationStore,
    PlanState,
    Run,
    WorkerBeat,
)

WINDOW = timedelta(minutes=10)  # over which rates are taken
LEAST_SPAN_S = 10.0  # a shorter one gives no rate that means anything


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one error class: given up, and to be tried again."""

    error_class: str
    given_up: int
    waiting: int
    advice: str


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One plan as the page and the API show it; nothing in it is secret.

    A job is a tag, or a digest that comes without one. `eta_s` is None when nobody can tell, and
    grows while the crawl is not over. Rates are those of the last ten minutes.
    """

    plan: str
    source: str
    target: str
    state: PlanState
    paused: str  # by whom, "" while it runs
    breaker: Breaker | None
    deletes_braked: str
    cannot_delete: bool
    is_crawled: bool
    is_worked_on: bool
    done: int  # at the target as they should be, or left out on purpose
    failed: int  # given up
    total: int
    jobs: dict[str, int]
    copied_bytes: int
    jobs_per_min: float
    bytes_per_s: float
    eta_s: float | None
    lag_s: float
    failures: list[Failure]
    workers: list[WorkerBeat]
    crawl: Run | None
    verify: Run | None
    deep: Run | None  # the last verification that looked at all blobs

    @property
    def open(self) -> int:
        """The jobs that are not over."""
        return self.total - self.done - self.failed

    @property
    def is_going_on(self) -> bool:
        """Whether figures change from one look to the next."""
        is_begun = self.state in WORKED and not self.paused
        is_busy = bool(self.open) or not self.is_crawled or self.state == "backfill"
        verify = self.verify
        is_verifying = verify is not None and verify.state != "done" and not verify.message
        return (is_begun and is_busy) or is_verifying


def find_progress(migrations: MigrationStore, plan: Plan, now: datetime) -> Progress:
    """Everything about one plan but its readiness; counts all of its jobs once.

    `now` is the database's time (see `present`).
    """
    status, crawl = migrations.plans.get(plan.name), migrations.runs.get(plan.name, "crawl")
    counts = migrations.jobs.count_alike(plan.name)
    jobs: dict[str, int] = {
        state: sum(count.number for count in counts if count.state == state) for state in JOB_STATES
    }
    open_jobs = jobs["pending"] + jobs["running"]
    workers = [worker for worker in migrations.workers.find(now) if plan.name in worker.plans]
    since = max(now - WINDOW, crawl.started_at) if crawl else now - WINDOW
    ended, sent_bytes = migrations.jobs.count_finished_since(plan.name, since)
    span_s = max(LEAST_SPAN_S, (now - since).total_seconds())
    is_going = status.is_worked_on and bool(workers)
    return Progress(
        plan=plan.name,
        source=plan.source.url,
        target=plan.target.url,
        state=status.state,
        paused=status.paused,
        breaker=status.breaker,
        deletes_braked=status.deletes_braked,
        cannot_delete=status.cannot_delete,
        is_crawled=crawl is not None and crawl.state == "done" and not status.recrawl,
        is_worked_on=status.is_worked_on,
        done=jobs["done"] + jobs["skipped"],
        failed=jobs["dead"] + jobs["conflict"],
        total=sum(jobs.values()),
        jobs=jobs,
        copied_bytes=sum(count.bytes for count in counts),
        jobs_per_min=60 * ended / span_s,
        bytes_per_s=sent_bytes / span_s,
        eta_s=find_eta_s(open_jobs, ended / span_s if is_going else 0),
        lag_s=lag_s(migrations, plan.name, now),
        failures=find_failures(counts),
        workers=workers,
        crawl=crawl,
        verify=migrations.runs.get(plan.name, "verify"),
        deep=migrations.runs.get(plan.name, "deep"),
    )


def find_eta_s(jobs: int, jobs_per_s: float) -> float | None:
    """Seconds until so many jobs are over at this rate; None if they never are."""
    if not jobs:
        return 0.0
    return jobs / jobs_per_s if jobs_per_s else None


def find_failures(counts: Sequence[JobCount]) -> list[Failure]:
    """The classes of errors of jobs that are not done, the most frequent first."""
    given_up: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    for count in counts:
        if count.error_class and count.state in ("dead", "conflict"):
            given_up[count.error_class] += count.number
        elif count.error_class and count.state in ("pending", "running"):
            waiting[count.error_class] += count.number
    classes = sorted(given_up | waiting, key=lambda name: (-given_up[name], -waiting[name], name))
    return [
        Failure(
            error_class=name,
            given_up=given_up[name],
            waiting=waiting[name],
            advice=advice(name),
        )
        for name in classes
    ]
