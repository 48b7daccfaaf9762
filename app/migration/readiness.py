"""Whether a plan may be cut over: a list of conditions, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from app.migration.plan import Plan
from app.registry.pending import count_pending
from app.store.migrations import HARMLESS, WORKED, MigrationStore, PlanStatus, Run

MAX_LAG_S = 10.0
NAMED = 3  # repositories in a reason
NO_CATALOGUE = "the source shows no catalogue: only repositories known from events were seen"


class Check(msgspec.Struct, frozen=True):
    """One condition; `is_met` is None when nobody can tell."""

    name: str
    is_met: bool | None
    reason: str


def lag_s(migrations: MigrationStore, plan: str, now: datetime) -> float:
    """Seconds since when the oldest push waits that is not at the target yet; 0 if none does.

    Also 0 of a plan on which nobody works, whatever waits there for its start.
    """
    if migrations.plans.get(plan).state not in WORKED:
        return 0.0
    oldest = migrations.jobs.oldest_wish(plan)
    return max(0.0, (now - oldest).total_seconds()) if oldest else 0.0


def find_checks(migrations: MigrationStore, plan: Plan, now: datetime) -> list[Check]:
    """Every condition of a cut-over, met or not; asks the source's debug server."""
    pending = count_pending(plan.debug_url) if plan.debug_url else None
    return find_checks_with(migrations, plan, pending, migrations.jobs.count_by_state(plan.name))


def find_checks_with(
    migrations: MigrationStore, plan: Plan, pending: int | None, jobs: Mapping[str, int]
) -> list[Check]:
    """The same where the events that wait at the source and the jobs by state are counted."""
    status = migrations.plans.get(plan.name)
    crawl = migrations.runs.get(plan.name, "crawl")
    return [
        _runs(status),
        _crawled(status, crawl),
        Check("drained", not _open(jobs), f"{_open(jobs)} jobs are open"),
        Check("healthy", not _failed(jobs), f"{_failed(jobs)} jobs are dead or in conflict"),
        _verified(migrations, status, crawl),
        Check(
            "events",
            None if pending is None else pending == 0,
            "source.debug_url tells nothing" if pending is None else f"{pending} events wait there",
        ),
        Check("deletes", not status.deletes_braked, status.deletes_braked or "not braked"),
    ]


def _runs(status: PlanStatus) -> Check:
    if status.state not in ("live", "frozen"):
        return Check("runs", False, f"it is {status.state.replace('_', ' ')}, not live or frozen")
    if status.paused:
        return Check("runs", False, f"paused by {status.paused}")
    if status.breaker:
        return Check("runs", False, status.breaker.message)
    return Check("runs", True, status.state)


def _crawled(status: PlanStatus, crawl: Run | None) -> Check:
    if status.recrawl:
        return Check("crawled", False, f"another crawl is wanted: {status.recrawl_why}")
    if crawl is None:
        return Check("crawled", False, "there was no crawl")
    if crawl.state != "done":
        stopped = f"; it stopped: {crawl.message}" if crawl.message else ""
        return Check("crawled", False, f"the crawl saw {crawl.tags} tags so far{stopped}")
    if crawl.passed_over:
        more = len(crawl.passed_over) - NAMED
        named = ", ".join(crawl.passed_over[:NAMED]) + (f" and {more} more" if more > 0 else "")
        return Check("crawled", False, f"the source does not list the tags of {named}")
    if crawl.names_from_events:
        return Check("crawled", None, NO_CATALOGUE)
    return Check("crawled", True, f"{crawl.tags} tags seen")


def _open(jobs: Mapping[str, int]) -> int:
    return jobs.get("pending", 0) + jobs.get("running", 0)


def _failed(jobs: Mapping[str, int]) -> int:
    return jobs.get("dead", 0) + jobs.get("conflict", 0)


def _verified(migrations: MigrationStore, status: PlanStatus, crawl: Run | None) -> Check:
    """Whether all was compared since whatever could have changed something, and was equal."""
    run = migrations.runs.get(status.name, "verify")
    if run is None or run.state != "done":
        return Check("verified", False, "no verification of everything is complete")
    drift = {kind: number for kind, number in run.drift.items() if kind not in HARMLESS}
    if drift:
        text = ", ".join(f"{number} {kind}" for kind, number in sorted(drift.items()))
        return Check("verified", False, f"the last verification found {text}")
    if status.state == "frozen" and status.since and run.started_at < status.since:
        return Check("verified", False, "the source was frozen after the last verification began")
    if crawl and crawl.finished_at and run.started_at < crawl.finished_at:
        return Check("verified", False, "a crawl ended after the last verification began")
    if migrations.jobs.is_wanted_since(status.name, run.started_at):
        return Check("verified", False, "something was pushed since the last verification began")
    if run.names_from_events:
        return Check("verified", None, NO_CATALOGUE)
    left_out = run.drift.get("left_out", 0)
    more = f", {left_out} are left out on purpose" if left_out else ""
    return Check("verified", True, f"{run.tags - left_out} tags are equal{more}")
