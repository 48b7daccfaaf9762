"""Where a plan is: `rns migrate status`, `jobs`, `ready` and `runbook`."""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
import msgspec

from app.cli.migrate.shared import (
    compare_now,
    migrate,
    of_plan,
    open_plan,
    until_signal,
    why_stopped,
    within,
)
from app.cli.shared import as_json, open_stores, print_rows
from app.errors import AppError
from app.migration import Plan, load_plans
from app.migration.advice import advice
from app.migration.readiness import Check, find_checks, lag_s
from app.migration.runbook import make_runbook
from app.settings import Settings
from app.store.migrations import JOB_STATES, Job, MigrationStore, present

WATCH_S = 2.0
STATUS_COLUMNS = ["plan", "state", "stopped", "waits", "lag_s", "jobs", "errors", "workers"]
JOB_COLUMNS = ["id", "state", "result", "attempts", "error_class", "error"]


@migrate.command("status")
@click.option("--plan", "names", multiple=True, help="Of this one only; may be repeated.")
@click.option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
@as_json
@click.pass_obj
def migrate_status(settings: Settings, names: tuple[str, ...], watch: bool, as_json: bool) -> None:
    """Show where every plan is."""
    plans = load_plans(settings, names)
    stores = open_stores(settings)
    with until_signal() as ended:
        shown = ""
        while not ended.is_set():
            rows = [_status_row(stores.migrations, plan) for plan in plans]
            with contextlib.redirect_stdout(io.StringIO()) as text:
                print_rows(rows, STATUS_COLUMNS, as_json)
                if not as_json:
                    _print_advice(rows)
            # A terminal shows the last one; a file or pipe is told of changes only.
            if watch and sys.stdout.isatty():
                click.clear()
                print(text.getvalue(), end="", flush=True)
            elif text.getvalue() != shown:
                print(shown := text.getvalue(), end="", flush=True)
            if not watch:
                return
            ended.wait(WATCH_S)


def _print_advice(rows: Sequence[Mapping[str, Any]]) -> None:
    for error_class in sorted({name for row in rows for name in row["errors"]}):
        print(f"{error_class}: {advice(error_class)}")


def _status_row(queue: MigrationStore, plan: Plan) -> dict[str, Any]:
    now = present()
    status = queue.plans.get(plan.name)
    workers = [worker for worker in queue.workers.find(now) if plan.name in worker.plans]
    waits = {worker.troubles[plan.name]: None for worker in workers if plan.name in worker.troubles}
    conflicts = queue.jobs.count_errors(plan.name, "conflict")
    return {
        "plan": plan.name,
        "state": status.state,
        "since": status.since,
        "stopped": why_stopped(status) or None,
        "lag_s": round(lag_s(queue, plan.name, now), 1),
        "jobs": queue.jobs.count_by_state(plan.name),
        "errors": dict(Counter(queue.jobs.count_errors(plan.name)) + Counter(conflicts)),
        "waits": "; ".join(waits) or None,
        "workers": len(workers),
        "crawl": queue.runs.get(plan.name, "crawl"),
        "verify": queue.runs.get(plan.name, "verify"),
        "deep": queue.runs.get(plan.name, "deep"),
        "partial": queue.runs.get(plan.name, "partial"),
        "deletes_braked": status.deletes_braked,
        "cannot_delete": status.cannot_delete,
    }


@migrate.command("jobs")
@click.option("--state", type=click.Choice(JOB_STATES), default=None)
@click.option("--class", "error_class", help="Of the last error, as in rns migrate status.")
@as_json
@of_plan
@click.pass_obj
def migrate_jobs(
    settings: Settings, name: str | None, state: str | None, error_class: str | None, as_json: bool
) -> None:
    """List the jobs of a plan."""
    stores, plan = open_plan(settings, name)
    rows = [
        msgspec.to_builtins(job)
        for job in _all_jobs(
            stores.migrations, plan, state=state or "", error_class=error_class or ""
        )
    ]
    for row in rows:
        del row["token"]
    print_rows(rows, JOB_COLUMNS, as_json)


def _all_jobs(queue: MigrationStore, plan: Plan, **filters: str) -> Iterator[Job]:
    cursor: str | None = None
    while True:
        page = queue.jobs.find(plan.name, cursor=cursor, limit=500, **filters)
        yield from page.items
        cursor = page.next
        if cursor is None:
            return


@migrate.command("ready")
@within
@as_json
@of_plan
@click.pass_obj
def migrate_ready(settings: Settings, name: str | None, as_json: bool, within: int) -> None:
    """Ask and compare both registries, and say whether a plan can be cut over; exit 1 if not."""
    stores, plan = open_plan(settings, name)
    compare_now(stores, plan, within)
    checks = find_checks(stores, plan, present())
    print_rows([_check_row(check) for check in checks], ["name", "is_met", "reason"], as_json)
    unmet = [check.name for check in checks if not check.is_met]
    if unmet:
        raise AppError(f"not ready: {', '.join(unmet)}")


def _check_row(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "is_met": "unknown" if check.is_met is None else check.is_met,
        "reason": check.reason,
    }


@migrate.command("runbook")
@of_plan
@click.pass_obj
def migrate_runbook(settings: Settings, name: str | None) -> None:
    """Show what is left until the cut-over, with the values and commands of this moment."""
    stores, plan = open_plan(settings, name)
    for line in make_runbook(stores, plan, present()):
        print(line)
