"""Whether a plan may be cut over: a list of conditions, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from app.migration.plan import Plan
from app.registry.pending import count_pending
from app.store.migrations import MigrationStore

MAX_LAG_S = 10.0


class Check(msgspec.Struct, frozen=True):
    """One condition; `is_met` is None when nobody can tell."""

    name: str
    is_met: bool | None
    reason: str


def lag_s(queue: MigrationStore, plan: str, now: datetime) -> float:
    """Seconds since when the oldest push waits that is not at the target yet; 0 if none does."""
    oldest = queue.oldest_wish(plan)
    return max(0.0, (now - oldest).total_seconds()) if oldest else 0.0


def find_checks(queue: MigrationStore, plan: Plan, now: datetime) -> list[Check]:
    """Every condition of a cut-over, met or not; asks the source's debug server."""
    pending = count_pending(plan.debug_url) if plan.debug_url else None
    return find_checks_with(queue, plan, pending, queue.count_jobs(plan.name))


def find_checks_with(
    queue: MigrationStore, plan: Plan, pending: int | None, jobs: Mapping[str, int]
) -> list[Check]:
    """The same where the events that wait at the source and the jobs by state are counted."""
    status = queue.get_plan(plan.name)
    crawl = queue.get_run(plan.name, "crawl")
    crawled = crawl is not None and crawl.state == "done" and not status.recrawl
    stopped = status.paused or (status.breaker.message if status.breaker else "")
    return [
        Check("runs", not stopped and status.state != "draft", stopped or status.state),
        Check(
            "crawled",
            crawled,
            f"{crawl.tags} tags seen"
            if crawl and crawled
            else "no crawl is complete since events may have been lost",
        ),
        Check("drained", not _open(jobs), f"{_open(jobs)} jobs are open"),
        Check("healthy", not _failed(jobs), f"{_failed(jobs)} jobs are dead or in conflict"),
        _verified(queue, plan.name),
        Check(
            "events",
            None if pending is None else pending == 0,
            "source.debug_url tells nothing" if pending is None else f"{pending} events wait there",
        ),
        Check("deletes", not status.deletes_braked, status.deletes_braked or "not braked"),
    ]


def _open(jobs: Mapping[str, int]) -> int:
    return jobs.get("pending", 0) + jobs.get("running", 0)


def _failed(jobs: Mapping[str, int]) -> int:
    return jobs.get("dead", 0) + jobs.get("conflict", 0)


def _verified(queue: MigrationStore, plan: str) -> Check:
    run = queue.get_run(plan, "verify")
    if run is None or run.state != "done":
        return Check("verified", False, "no verification is complete")
    drift = {kind: number for kind, number in run.drift.items() if kind != "extra"}
    if drift:
        text = ", ".join(f"{number} {kind}" for kind, number in sorted(drift.items()))
        return Check("verified", False, f"the last verification found {text}")
    if queue.is_wanted_since(plan, run.started_at):
        return Check("verified", False, "something was pushed since the last verification began")
    return Check("verified", True, f"{run.tags} tags are equal")
