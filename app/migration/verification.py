"""A verification of a plan from beginning to end: leased, recorded, and what differs repaired."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event, Thread

from app.errors import AppError, StoreUnavailable
from app.migration.plan import Plan
from app.migration.sides import Sides
from app.migration.verifier import ALL, Extent, Verifier
from app.store import Stores
from app.store.migrations import (
    BACKFILL,
    BROKEN,
    HARMLESS,
    LEASE,
    Drift,
    JobStore,
    Run,
    RunStore,
    Wish,
    present,
)

CHECKS_AT_A_TIME = 8


def wanted_again(rows: Sequence[Drift]) -> list[Drift]:
    """The differences that a job can repair."""
    return [row for row in rows if row.kind not in (*HARMLESS, "unknown")]


def verify_plan(
    stores: Stores,
    sides: Sides,
    owner: str,
    *,
    extent: Extent = ALL,
    is_stopped: Callable[[], bool] = lambda: False,
    each: Callable[[], object] = lambda: None,
) -> list[Drift] | None:
    """Compare the two sides, record what differs, and have it copied anew.

    None when another process verifies the plan, or this one was stopped. A verification of a part
    is recorded as such, and never as that of the plan. `each` is called for every tag, by several
    threads, and may raise.

    Raises:
        RegistryError: one side does not list what it has.
    """
    plan, jobs, runs = sides.plan, stores.migrations.jobs, stores.migrations.runs
    run = runs.begin(
        plan.name,
        "partial" if extent.part else "verify",
        owner,
        present(),
        deep=extent.deep or extent.hashed,
        hashed=extent.hashed,
        part=extent.part,
    )
    if run is None:
        return None
    with (
        _leased(runs, run, owner),
        ThreadPoolExecutor(CHECKS_AT_A_TIME) as threads,
    ):
        verifier = Verifier(
            sides,
            threads,
            find_job=partial(jobs.get, plan.name),
            known=partial(stores.catalogue.find_names, plan.registry),
            extent=extent,
            target_leads=stores.migrations.plans.get(plan.name).target_leads,
            each=each,
        )
        verified = verifier.verify(
            run, lambda run: runs.save(run, owner, present()) and not is_stopped()
        )
        if verified is None:
            return None
        ended, rows = verified
        if extent.part:
            runs.add_drift(plan.name, rows)
        else:
            is_settled = run.settles(runs.get(plan.name, "deep"))
            runs.set_drift(plan.name, rows, kept=() if is_settled else BROKEN)
        jobs.wish([_repair(row) for row in wanted_again(rows)], present())
        runs.end(ended, owner, present())
    return rows


def _repair(row: Drift) -> Wish:
    """The wish for the job that repairs a difference."""
    is_broken = row.kind in ("broken_child", "broken_blob")
    return Wish(row.plan, row.repository, row.reference, BACKFILL, broken=is_broken)


@contextlib.contextmanager
def _leased(runs: RunStore, run: Run, owner: str) -> Iterator[None]:
    """Keep the lease of a run while the block lasts: one blob alone may take minutes."""
    ended = Event()
    why = "interrupted"

    def renew() -> None:
        while not ended.wait(LEASE.total_seconds() / 3):
            with contextlib.suppress(StoreUnavailable):
                runs.renew(run, owner, present())

    thread = Thread(target=renew, daemon=True)
    thread.start()
    try:
        yield
    except AppError as error:
        why = str(error)
        raise
    finally:
        ended.set()
        thread.join()
        runs.release(run, owner, present(), why)


def prune_extra(jobs: JobStore, plan: Plan, rows: Iterable[Drift]) -> int:
    """Have deleted at the target what verification found to be too much and we put there.

    Says how much that is. The jobs look at both sides once more, and the brake holds for them.
    """
    ours = [
        Wish(plan.name, row.repository, row.reference, BACKFILL)
        for row in rows
        if row.kind == "extra" and jobs.want_pruned(plan.name, row.repository, row.reference)
    ]
    jobs.wish(ours, present())
    return len(ours)
