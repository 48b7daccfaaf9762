"""Processes that carry plans out: `rns migrate worker` and `once`."""

from __future__ import annotations

import contextlib
import logging.config
import os
import sys
import threading
from pathlib import Path

import click
from tqdm import tqdm

from app.cli.migrate.shared import migrate, of_plan, open_plan, until_signal, who, why_stopped
from app.cli.shared import open_stores
from app.errors import AppError, ConfigError
from app.logs import logging_config
from app.migration import load_plans, states
from app.migration.worker import GRACE_S, Worker
from app.settings import Settings
from app.store.migrations import SETTLED, MigrationStore, present

POLL_S = 0.2
NICE = 10  # of a worker
LONGEST_STOP_S = GRACE_S + 10  # of a worker


def _wait_for(ended: threading.Event) -> None:
    """Wait for the end, with pauses.

    A signal that was taken by a thread that is just being started, as one is for each job, does
    not wake the main thread, which handles it.
    """
    while not ended.wait(POLL_S):
        pass


def _give_way() -> None:
    """Let what runs beside this process go first: the events of registries before copies.

    Under systemd or in containers their shares of the CPU decide instead (docs/migration.md).
    """
    os.nice(NICE)
    # Linux shares the CPU between sessions first, so that it counts within this one only. Others
    # that belong to it, a server perhaps, are not meant: not a session that somebody else began.
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # another system, or one without autogroups
            Path("/proc/self/autogroup").write_text(str(NICE), "ascii")


def _stop(worker: Worker, status: int = 0) -> None:
    """Stop a worker; ends this process with `status` when a thread of it does not end."""
    if not worker.stop():
        # A thread waits for a registry, and Python would wait for the thread.
        print("rns: a registry does not answer; its jobs are handed back", file=sys.stderr)
        os._exit(status)


def _end_within(seconds: float) -> None:
    """End this process whatever it waits for, a database that does not answer for example."""

    def end() -> None:
        with contextlib.suppress(OSError):  # nobody reads it
            print("rns: ended by force; jobs left are begun anew", file=sys.stderr, flush=True)
        os._exit(1)

    watch = threading.Timer(seconds, end)
    watch.daemon = True
    watch.start()


@migrate.command("worker")
@click.option("--plan", "names", multiple=True, help="Work on this one only; may be repeated.")
@click.pass_obj
def migrate_worker(settings: Settings, names: tuple[str, ...]) -> None:
    """Carry out the plans that are started; any number of workers may run."""
    logging.config.dictConfig(logging_config(settings.log.format, settings.log.level))
    plans = load_plans(settings, names)
    if not plans:
        raise ConfigError("migrations: none is configured")
    stores = open_stores(settings)
    _give_way()  # now: a database that was started above is not meant
    worker = Worker(stores, plans)
    with until_signal() as ended:
        worker.start()
        _wait_for(ended)
        _end_within(LONGEST_STOP_S)
        _stop(worker)


@migrate.command("once")
@of_plan
@click.pass_obj
def migrate_once(settings: Settings, name: str | None) -> None:
    """Crawl, copy everything that is missing and exit; exit 1 if something could not be copied."""
    stores, plan = open_plan(settings, name)
    queue = stores.migrations
    states.crawl(queue, plan, who(), present())
    queue.plans.close_breaker(plan.name)  # of an earlier run
    worker = Worker(stores, [plan])
    conductor = worker.plans[0].conductor
    with until_signal() as ended, tqdm(unit="tag", disable=None) as progress:
        worker.start()
        while not ended.wait(POLL_S):
            jobs = queue.jobs.count_by_state(plan.name)
            progress.total = sum(jobs.values())
            progress.update(sum(jobs.get(state, 0) for state in SETTLED) - progress.n)
            is_stopped = conductor.failed or why_stopped(queue.plans.get(plan.name))
            if is_stopped or _is_drained(queue, plan.name):
                break
        _stop(worker, status=1)
    if ended.is_set():
        raise click.Abort
    status, jobs = queue.plans.get(plan.name), queue.jobs.count_by_state(plan.name)
    if conductor.failed or why_stopped(status):
        raise AppError(f"stopped: {why_stopped(status) or conductor.failed}")
    print(", ".join(f"{number} {state}" for state, number in sorted(jobs.items())) or "no tags")
    if jobs.get("pending"):
        raise AppError(
            f"deletes are braked: {status.deletes_braked}; "
            "rns migrate resume --allow-deletes N lets N of them go on, lift-brake all"
        )
    failed = jobs.get("dead", 0) + jobs.get("conflict", 0)
    if failed:
        raise AppError(f"{failed} jobs failed: see rns migrate jobs --state dead or conflict")


def _is_drained(queue: MigrationStore, plan: str) -> bool:
    """Whether everything is crawled, and over but for deletes that wait for a person."""
    status, crawl = queue.plans.get(plan), queue.runs.get(plan, "crawl")
    if status.recrawl or crawl is None or crawl.state != "done":
        return False
    jobs = queue.jobs.count_by_state(plan)
    if jobs.get("running"):
        return False
    if jobs.get("pending"):
        return set(queue.jobs.count_errors(plan, "pending")) == {"braked"}
    return status.state != "backfill"
