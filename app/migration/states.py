"""How a plan moves from one state to another, and what has to be so before it may.

    draft → backfill → live → frozen → cut_over → closed
                 ↑______|________|         |
                 |______ rolled_back ←_____|

Every move is recorded with who made it. Workers carry out `backfill` to `cut_over`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from app.errors import IllegalState
from app.migration.plan import Plan
from app.migration.readiness import Check, find_checks
from app.store import Stores
from app.store.migrations import ASKED_FOR, WORKED, MigrationStore


def start(migrations: MigrationStore, plan: Plan, who: str, now: datetime) -> None:
    """Crawl and copy; once more if that is begun, and from the beginning after a rollback.

    A plan that was frozen takes pushes again. Of a plan and its way back only one is worked on at a
    time: each would take for new at its target what the other has not brought from there yet.

    Raises:
        IllegalState: it is closed, or its counterpart is in the way.
    """
    status = migrations.plans.get(plan.name)
    if status.state == "closed":
        raise _closed(plan)
    other = migrations.plans.get(plan.counterpart) if plan.counterpart else None
    if other and (other.state in WORKED or (plan.is_way_back and other.state == "draft")):
        first = "rns migrate rollback" if other.state in WORKED else "rns migrate start"
        raise IllegalState(
            f"{plan.name} and {other.name} lead opposite ways, and {other.name} is {other.state}; "
            f"first {first} --plan {other.name}"
        )
    migrations.plans.start(plan.name, who, now)


def crawl(migrations: MigrationStore, plan: Plan, who: str, now: datetime) -> None:
    """Crawl once more and leave the state as it is; a draft is started.

    Raises:
        IllegalState: it is rolled back or closed.
    """
    state = migrations.plans.get(plan.name).state
    if state == "draft":
        start(migrations, plan, who, now)
    elif state in WORKED:
        migrations.plans.want_crawl(plan.name, ASKED_FOR, who, now)
    elif state == "closed":
        raise _closed(plan)
    else:
        raise IllegalState(f"{plan.name} is {state}; rns migrate start begins it anew")


def verify(migrations: MigrationStore, plan: Plan, who: str, now: datetime) -> None:
    """Have a worker compare both sides.

    Raises:
        IllegalState: the plan is neither live nor frozen.
    """
    if migrations.plans.get(plan.name).state not in ("live", "frozen"):
        raise _refusal(migrations, plan, "only a plan that is live or frozen is compared")
    migrations.plans.want_verify(plan.name, who, now)


def freeze(
    migrations: MigrationStore, plan: Plan, who: str, now: datetime, *, despite: str = ""
) -> None:
    """Record that the source takes no pushes any more; the final crawl is then wanted.

    `despite` is for the audit: what somebody knew who insisted.

    Raises:
        IllegalState: the plan is not live.
    """
    if not migrations.plans.set_state(
        plan.name, "frozen", who, now, before=["live"], despite=despite
    ):
        raise _refusal(migrations, plan, "only a live plan can be frozen")
    migrations.plans.want_crawl(plan.name, "final, as the source is frozen", who, now)


def cut_over(stores: Stores, plan: Plan, who: str, now: datetime, *, force: bool = False) -> None:
    """Record that clients use the target; what they push there is never overwritten from then on.

    Both sides have to be compared just before (app.migration.looking.examine). `force` takes
    conditions for met of which nobody can tell, and the audit names them; never those that are not.

    Raises:
        IllegalState: the plan is neither live nor frozen, or not ready.
    """
    migrations = stores.migrations
    state = migrations.plans.get(plan.name).state
    if state not in ("live", "frozen"):
        raise _refusal(migrations, plan, "only a plan that is live or frozen can be cut over")
    open_ = [check for check in find_checks(stores, plan, now) if not check.is_met]
    if unmet := [check for check in open_ if check.is_met is False or not force]:
        raise IllegalState(f"not ready: {_told(unmet)}")
    if not migrations.plans.set_state(
        plan.name, "cut_over", who, now, before=[state], despite=_told(open_)
    ):
        raise _refusal(migrations, plan, "somebody moved it just now")


def roll_back(migrations: MigrationStore, plan: Plan, who: str, now: datetime) -> None:
    """Record that clients use the source; workers leave the plan alone until it is started.

    Raises:
        IllegalState: it is not begun, or over.
    """
    if not migrations.plans.set_state(plan.name, "rolled_back", who, now, before=WORKED):
        raise _refusal(migrations, plan, "nothing is to be rolled back")


def close(migrations: MigrationStore, plan: Plan, who: str, now: datetime) -> None:
    """End a plan for good: no jobs, no wishes.

    Raises:
        IllegalState: it is closed already.
    """
    if not migrations.close(plan.name, who, now):
        raise _refusal(migrations, plan, "there is nothing to close")


def _told(checks: Sequence[Check]) -> str:
    return "; ".join(f"{check.name} ({check.reason})" for check in checks)


def _closed(plan: Plan) -> IllegalState:
    return IllegalState(f"{plan.name} is closed; give the migration another name to begin anew")


def _refusal(migrations: MigrationStore, plan: Plan, rule: str) -> IllegalState:
    return IllegalState(f"{plan.name} is {migrations.plans.get(plan.name).state}: {rule}")
