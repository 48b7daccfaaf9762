"""Whether a plan may be cut over: a list of conditions, each with its reason.

All are read from the store, so that page, API and command line say the same. What the registries
say comes there by app.migration.looking: from a worker all the time, and from who asks now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from app.migration.plan import Plan
from app.store import Stores
from app.store.migrations import (
    BROKEN,
    DRIFT_KINDS,
    HARMLESS,
    LEAST_SHARE,
    WORKED,
    DriftKind,
    Look,
    MigrationStore,
    PlanStatus,
    Run,
)

NAMED = 3  # repositories or tags in a reason
LOOK_AGE = timedelta(seconds=45)  # after which nobody knows whether a registry answers
NOT_ASKED = f"nobody asked the registries within {LOOK_AGE.total_seconds():.0f} s"
VERIFIED_FOR = timedelta(minutes=10)  # from its end: later, a push may have been missed since
BEHIND_S = 10.0  # of the inbox; it is about a second where nothing waits
COUNTED = tuple(kind for kind in DRIFT_KINDS if kind not in HARMLESS)
NO_TAGS = "the crawl saw no tag that this plan takes: see its repos and tags, and the source"
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


def find_checks(
    stores: Stores, plan: Plan, now: datetime, jobs: Mapping[str, int] | None = None
) -> list[Check]:
    """Every condition of a cut-over, met or not. `jobs` by state spare counting them once more."""
    migrations = stores.migrations
    if jobs is None:
        jobs = migrations.jobs.count_by_state(plan.name)
    status = migrations.plans.get(plan.name)
    crawl = migrations.runs.get(plan.name, "crawl")
    look = status.look if status.look and now - status.look.at <= LOOK_AGE else None
    open_jobs = jobs.get("pending", 0) + jobs.get("running", 0)
    failed = jobs.get("dead", 0) + jobs.get("conflict", 0)
    return [
        _runs(status),
        _worked(migrations, plan, now),
        _reached(look),
        _crawled(status, crawl),
        Check("drained", not open_jobs, f"{open_jobs} jobs are open"),
        Check("healthy", not failed, f"{failed} jobs are dead or in conflict"),
        _heard(stores, migrations.runs.get(plan.name, "verify"), now),
        _verified(stores, plan, status, crawl, now),
        _sent(plan, look),
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


def _worked(migrations: MigrationStore, plan: Plan, now: datetime) -> Check:
    alive = sum(plan.name in worker.plans for worker in migrations.workers.find(now))
    if not alive:
        return Check("worker", False, "none is alive to copy what is pushed: rns migrate worker")
    return Check("worker", True, f"{alive} alive")


def _reached(look: Look | None) -> Check:
    if look is None:
        return Check("reached", False, NOT_ASKED)
    errors = [error for error in (look.source, look.target) if error]
    return Check("reached", not errors, "; ".join(errors) or "both registries answer")


def _sent(plan: Plan, look: Look | None) -> Check:
    """Whether the source has told us everything that it knows."""
    if not plan.registry:
        return Check("events", True, "a folder sends none")
    if look is None:
        return Check("events", None, NOT_ASKED)
    if look.pending is None:
        return Check("events", None, "source.debug_url tells nothing")
    return Check("events", not look.pending, f"{look.pending} events wait there")


def _heard(stores: Stores, verify: Run | None, now: datetime) -> Check:
    """Whether all that was told to us until the end of a verification, at least, is worked in."""
    progress = stores.inbox.find_progress()
    if progress is None:
        return Check("inbox", None, "no server ran yet that events could come to")
    behind_s = progress.seconds_behind(now)
    if behind_s > BEHIND_S:
        reason = f"what came in the last {behind_s:.0f} s is not worked in: does rns serve run?"
        return Check("inbox", False, reason)
    if behind_s < -BEHIND_S:  # nobody knows how far it is
        reason = f"the clock of rns serve is {-behind_s:.0f} s ahead of the database's"
        return Check("inbox", False, reason)
    if verify and verify.finished_at and progress.until < verify.finished_at:
        return Check("inbox", False, "what came during the last verification is not worked in yet")
    return Check("inbox", True, "every event that came is worked in")


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
    if crawl.is_short:
        reason = (
            f"the crawl saw {crawl.tags} tags, the one before it {crawl.tags_before}: if the "
            "source lists all that it has, rns migrate crawl looks once more"
        )
        return Check("crawled", False, reason)
    if crawl.names_from_events:
        return Check("crawled", None, NO_CATALOGUE)
    if not crawl.tags:
        return Check("crawled", None, NO_TAGS)
    return Check("crawled", True, f"{crawl.tags} tags seen")


def _verified(
    stores: Stores, plan: Plan, status: PlanStatus, crawl: Run | None, now: datetime
) -> Check:
    """Whether all was compared since whatever could have changed something, and was equal."""
    migrations = stores.migrations
    run = migrations.runs.get(status.name, "verify")
    if run is None or run.state != "done":
        stopped = f"; the last one stopped: {run.message}" if run and run.message else ""
        return Check("verified", False, f"no verification of everything is complete{stopped}")
    drift = {kind: number for kind, number in run.drift.items() if kind not in HARMLESS}
    if drift:
        text = ", ".join(
            f"{number} {kind.replace('_', ' ')}" for kind, number in sorted(drift.items())
        )
        named = _name_drift(migrations, status.name, sum(drift.values()))
        return Check("verified", False, f"the last verification found {text}{named}")
    if crawl and run.tags < LEAST_SHARE * crawl.tags:
        reason = (
            f"the last verification saw {run.tags} tags, the crawl {crawl.tags}: if the source "
            "lists all that it has, rns migrate crawl looks once more"
        )
        return Check("verified", False, reason)
    deep = migrations.runs.get(status.name, "deep")
    why = (
        _why_broken(migrations, status, deep)
        or _why_old(migrations, status, crawl, run, now)
        or _why_unheard(stores, plan, run)
    )
    if why:
        return Check("verified", False, why)
    if run.names_from_events:
        return Check("verified", None, NO_CATALOGUE)
    left_out = run.drift.get("left_out", 0)
    more = f", {left_out} are left out on purpose" if left_out else ""
    if deep:
        more += f"; {_name_deep(deep)} found nothing broken"
    return Check("verified", True, f"{run.tags - left_out} tags are equal{more}")


def _why_broken(migrations: MigrationStore, status: PlanStatus, deep: Run | None) -> str:
    """What a comparison of tags alone cannot show to be mended; "" where that is nothing."""
    if deep is None or not deep.broken:
        return ""
    named = _name_drift(migrations, status.name, deep.broken, BROKEN)
    again = "rns migrate verify --bytes" if deep.hashed else "rns migrate verify --deep"
    return f"{_name_deep(deep)} found {deep.broken} broken{named}; {again} tells if they still are"


def _name_deep(deep: Run) -> str:
    what = "of all bytes" if deep.hashed else "of all blobs"
    return f"a verification {what}, begun {deep.started_at:%Y-%m-%d %H:%M} UTC,"


def _why_old(
    migrations: MigrationStore, status: PlanStatus, crawl: Run | None, run: Run, now: datetime
) -> str:
    """What a complete verification may not have seen; "" where that is nothing."""
    if status.state == "frozen" and status.since and run.started_at < status.since:
        return "the source was frozen after the last verification began"
    if crawl and crawl.finished_at and run.started_at < crawl.finished_at:
        return "a crawl ended after the last verification began"
    if migrations.jobs.is_wanted_since(status.name, run.started_at):
        return "something was pushed since the last verification began"
    age = now - (run.finished_at or run.started_at)
    if age > VERIFIED_FOR:
        minutes = age.total_seconds() // 60
        return (
            f"the last verification ended {minutes:.0f} minutes ago, and a push may have been "
            "missed since: rns migrate ready compares now"
        )
    return ""


def _why_unheard(stores: Stores, plan: Plan, run: Run) -> str:
    """Whether events may have been lost since a verification began; "" where none was."""
    for gap in stores.checks.find_gaps(plan.registry, 1):
        if gap.ended > run.started_at:
            return (
                f"events of {gap.began:%H:%M:%S} to {gap.ended:%H:%M:%S} UTC may be missing "
                f"({gap.why}), and the last verification began before"
            )
    return ""


def _name_drift(
    migrations: MigrationStore,
    plan: str,
    number: int,
    kinds: Sequence[DriftKind] = COUNTED,
) -> str:
    """The first differences that count, as they stand behind their number."""
    rows = [
        row
        for kind in kinds
        for row in migrations.runs.find_drift(plan, kind=kind, limit=NAMED).items
    ][:NAMED]
    names = [f"{row.repository}:{row.reference}".rstrip(":") for row in rows]
    more = f" and {number - len(names)} more" if number > len(names) else ""
    return f": {', '.join(names)}{more}" if names else ""
