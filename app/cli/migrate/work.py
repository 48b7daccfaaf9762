"""Processes that carry plans out: `rns migrate worker` and `once`."""

from __future__ import annotations

import contextlib
import logging.config
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click
from tqdm import tqdm

from app.cli.migrate.shared import migrate, of_plan, open_plan, until_signal, who, why_stopped
from app.cli.shared import open_stores
from app.embedded import has_database, recorded_uri, running_uri
from app.errors import AppError, ConfigError, StartupError, StoreUnavailable
from app.logs import logging_config
from app.migration import Plan, load_plans, states
from app.migration.worker import GRACE_S, PlanWorker, Worker
from app.settings import Settings
from app.store import Stores, connect
from app.store.migrations import SETTLED, MigrationStore, present

logger = logging.getLogger(__name__)

POLL_S = 0.2
MOVED_EVERY_S = 1.0  # between two looks where the embedded database is
NICE = 10  # of a worker, by default
LONGEST_STOP_S = GRACE_S + 10  # of a worker


def find_server(ended: threading.Event, settings: Settings) -> bool:
    """Wait for a server whose embedded database a worker can take; False if the end comes first.

    A worker that ran the database itself would let no server start.
    """
    data_dir = Path(settings.mongodb.data_dir)
    if not settings.is_embedded or not has_database(data_dir):
        return True
    is_told = False
    while running_uri(data_dir) is None:
        if not is_told:
            is_told = True
            logger.warning("no server runs on %s; waiting for rns serve", data_dir.absolute())
        if ended.wait(MOVED_EVERY_S):
            return False
    return True


def _wait_for(ended: threading.Event, settings: Settings, place: str) -> str:
    """Wait for the end, or until the database is not at `place` any more: returns where it is.

    With pauses: a signal that was taken by a thread that is just being started, as one is for each
    job, does not wake the main thread, which handles it.
    """
    next_look = 0.0
    while not ended.wait(POLL_S):
        if time.monotonic() < next_look:
            continue
        next_look = time.monotonic() + MOVED_EVERY_S
        now = _find_place(settings)
        if now not in ("", place):
            return now
    return ""


def _give_way(nice: int) -> None:
    """Let what runs beside this process go first: the events of registries before copies.

    Under systemd or in containers their shares of the CPU decide instead (docs/migration.md).
    """
    if not nice:
        return
    os.nice(nice)
    # Linux shares the CPU between sessions first, so that it counts within this one only. Others
    # that belong to it, a server perhaps, are not meant: not a session that somebody else began.
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # another system, or one without autogroups
            Path("/proc/self/autogroup").write_text(str(nice), "ascii")


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
@click.option(
    "--nice", type=click.IntRange(0, 19), default=NICE, show_default=True, help="0: as it began."
)
@click.pass_obj
def migrate_worker(settings: Settings, names: tuple[str, ...], nice: int) -> None:
    """Carry out the plans that are started; any number of workers may run.

    It takes the embedded database of the server, waits for that, and follows it over restarts.
    """
    logging.config.dictConfig(logging_config(settings.log.format, settings.log.level))
    plans = load_plans(settings, names)
    if not plans:
        raise ConfigError("migrations: none is configured")
    with until_signal() as ended:
        if not find_server(ended, settings):
            return
        stores = open_stores(settings)
        _give_way(nice)
        place = _find_place(settings)
        while True:
            worker = Worker(stores, plans)
            worker.start()
            place = _wait_for(ended, settings, place)
            if not place:
                break
            logger.warning("the embedded database has moved; the worker follows it")
            worker.stop(grace_s=0)
            stores.close()
            stores = connect(settings, place)
            with contextlib.suppress(StoreUnavailable):  # which the worker waits out
                stores.schema.check()
        _end_within(LONGEST_STOP_S)
        _stop(worker)


def _find_place(settings: Settings) -> str:
    """Where the embedded database is now; "" while it is nowhere, or for another database."""
    if not settings.is_embedded:
        return ""
    try:
        return recorded_uri(Path(settings.mongodb.data_dir))
    except StartupError:
        return ""


@migrate.command("once")
@of_plan
@click.pass_obj
def migrate_once(settings: Settings, name: str | None) -> None:
    """Crawl, copy everything that is missing and exit; exit 1 if something could not be copied."""
    stores, plan = open_plan(settings, name)
    carry_through(stores, plan, lambda: False)


def carry_through(stores: Stores, plan: Plan, look: Callable[[], bool]) -> None:
    """Crawl and copy in this process until nothing is left; `look` is called now and then.

    It says whether it changed anything: then what is left is looked at once more.

    Raises:
        AppError: something stopped the plan, could not be copied, or `look` ends it.
    """
    queue = stores.migrations
    states.crawl(queue, plan, who(), present())
    worker = Worker(stores, [plan])
    _go_on(queue, worker.plans[0])
    conductor = worker.plans[0].conductor
    with until_signal() as ended, tqdm(unit="tag", disable=None) as progress:
        worker.start()
        try:
            while not ended.wait(POLL_S):
                jobs = queue.jobs.count_by_state(plan.name)
                progress.total = sum(jobs.values())
                progress.update(sum(jobs.get(state, 0) for state in SETTLED) - progress.n)
                progress.clear()
                is_drained = _is_drained(queue, plan.name)  # before: what failed is decided about
                is_changed = look()
                is_stopped = conductor.failed or why_stopped(queue.plans.get(plan.name))
                if is_stopped or (is_drained and not is_changed):
                    break
        except (AppError, click.Abort) as error:
            if isinstance(error, AppError):  # a thread that hangs may end this process
                print(f"rns: {error}", file=sys.stderr)
            _stop(worker, status=1)
            raise
        _stop(worker, status=1)
    if ended.is_set():
        raise click.Abort
    _report(queue, plan, conductor.failed)


def _report(queue: MigrationStore, plan: Plan, failed: AppError | None) -> None:
    """Say what became of the jobs; AppError if that is not all of them."""
    status, jobs = queue.plans.get(plan.name), queue.jobs.count_by_state(plan.name)
    if failed or why_stopped(status):
        raise AppError(f"stopped: {why_stopped(status) or failed}")
    print(", ".join(f"{number} {state}" for state, number in sorted(jobs.items())) or "no tags")
    if jobs.get("pending"):
        raise AppError(
            f"deletes are braked: {status.deletes_braked}; "
            "rns migrate resume --allow-deletes N lets N of them go on, lift-brake all"
        )
    number = jobs.get("dead", 0) + jobs.get("conflict", 0)
    if number:
        raise AppError(f"{number} jobs failed: see rns migrate jobs --state dead or conflict")


def _go_on(queue: MigrationStore, worker: PlanWorker) -> None:
    """Forget what stopped an earlier run; not a password that was refused, unless that is due.

    This may be run every few minutes, and the account be locked.

    Raises:
        AppError: it is not due, or the password is refused once more.
    """
    name = worker.plan.name
    breaker = queue.plans.get(name).breaker
    if breaker is None or breaker.error_class != "auth":
        queue.plans.close_breaker(name)
        return
    worker.dispatch_one()
    if queue.plans.get(name).breaker:
        raise AppError(f"stopped: {why_stopped(queue.plans.get(name))}")


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
