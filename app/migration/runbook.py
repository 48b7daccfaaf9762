"""What is left to do until a plan is cut over, with the values of this moment."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime

import msgspec

from app.migration.plan import Plan
from app.migration.readiness import Check, find_checks, lag_s
from app.store import Stores
from app.store.migrations import MigrationStore, PlanState

WIDTH = 100


class Step(msgspec.Struct, frozen=True):
    """One step; it is done when the plan has left all of the states `during`."""

    during: tuple[PlanState, ...]
    text: str


def make_runbook(stores: Stores, plan: Plan, now: datetime) -> Iterator[str]:
    """The lines of the runbook: where the plan is, what holds it back, and the next commands."""
    migrations = stores.migrations
    status = migrations.plans.get(plan.name)
    since = f" since {status.since:%Y-%m-%d %H:%M} UTC, by {status.by}" if status.since else ""
    yield f"{plan.name}: {plan.source.url} → {plan.target.url}"
    yield f"state    {status.state}{since}"
    yield f"lag      {lag_s(migrations, plan.name, now):.1f} s"
    if not status.target_leads:
        for check in find_checks(stores, plan, now):
            yield f"{_mark(check)} {check.name:<9} {check.reason}"
    yield ""
    for number, step in enumerate(_steps(plan), 1):
        state = status.state
        mark = "→" if state in step.during else "x" if _is_past(state, step) else " "
        yield from textwrap.wrap(
            f"[{mark}] {number}. {step.text}",
            WIDTH,
            subsequent_indent=" " * 7,
            break_long_words=False,
            break_on_hyphens=False,
        )
    if status.state in ("rolled_back", "closed"):
        yield ""
        yield _after(status.state, plan)


def warn_of_rollback(migrations: MigrationStore, plan: Plan) -> str:
    """What is lost by a rollback now, "" if nothing is."""
    if migrations.plans.get(plan.name).state != "cut_over":
        return ""
    way = f"rns migrate start --plan {plan.counterpart}" if plan.counterpart else "a way back"
    return (
        f"what was pushed to {plan.target.url} since the cut-over is not at {plan.source.url}; "
        f"{way} brings it there. {_OVERWRITTEN[plan.options.existing]}"
    )


def warn_of_start(migrations: MigrationStore, plan: Plan) -> str:
    """What is lost by a start now, "" if nothing is."""
    if migrations.plans.get(plan.name).state != "rolled_back":
        return ""
    return f"clients may have pushed to {plan.target.url}. {_OVERWRITTEN[plan.options.existing]}"


_OVERWRITTEN = {
    "overwrite": "Once the plan is started again, it overwrites tags that were pushed there, where "
    "the source has others (options.existing: backup keeps a copy)",
    "backup": "Once the plan is started again, tags that were pushed there are kept as "
    "TAG-before-DIGEST, where the source has others",
    "skip": "Tags that were pushed there stay, also once the plan is started again",
    "fail": "Tags that were pushed there stay, and become conflicts once the plan is started again",
}


def _mark(check: Check) -> str:
    return {True: "ok     ", False: "unmet  ", None: "unknown"}[check.is_met]


def _is_past(state: PlanState, step: Step) -> bool:
    order: list[PlanState] = ["draft", "backfill", "live", "frozen", "cut_over", "closed"]
    return state in order and order.index(state) > max(map(order.index, step.during))


def _steps(plan: Plan) -> list[Step]:
    name = f"--plan {plan.name}"
    back = (
        f" The way back: rns migrate rollback {name}, then rns migrate start and runbook "
        f"--plan {plan.counterpart}."
        if plan.counterpart and not plan.is_way_back
        else ""
    )
    return [
        Step(("draft",), f"Begin: rns migrate start {name}; keep rns migrate worker running."),
        Step(("backfill",), f"Wait until it is live: rns migrate status {name} --watch"),
        Step(
            ("live",),
            f"Make {plan.source.url} read-only. A restart drops the events that wait in it: look "
            f"at `events` above before. Then rns migrate freeze {name}",
        ),
        Step(
            ("frozen",),
            f"Wait for the final crawl. rns migrate verify {name} --deep until nothing differs, "
            f"and rns migrate ready {name} exits 0, or finds conditions unknown and none unmet. "
            f"Then rns migrate cutover {name}, which compares once more, with --force where "
            "conditions are unknown",
        ),
        Step(
            ("cut_over",),
            f"Let the clients' name point to {plan.target.url}. What is still pushed to the source "
            "comes there too, unless the tag was changed there meanwhile. When nobody pushes to "
            f"the source any more: rns migrate close {name}.{back}",
        ),
    ]


def _after(state: PlanState, plan: Plan) -> str:
    if state == "closed":
        return "It is over: workers leave it alone, and pushes to the source are not noted."
    return (
        f"Clients use {plan.source.url}; workers leave the plan alone. To try again: "
        f"rns migrate start --plan {plan.name}"
    )
