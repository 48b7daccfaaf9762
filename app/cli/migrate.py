"""`rns migrate` and `rns catalogue import`; see app.cli for what holds for every command."""

from __future__ import annotations

import contextlib
import csv
import getpass
import io
import logging.config
import os
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import msgspec
from tqdm import tqdm

from app.cli import _print_rows as print_rows
from app.cli import as_json, cli, opened_stores
from app.errors import AppError, ConfigError, IllegalState, InvalidQuery, InvalidReference
from app.migration import Plan, load_plans, states
from app.migration.advice import advice
from app.migration.catalogue import find_pushes
from app.migration.crawler import find_repositories
from app.migration.readiness import Check, find_checks, lag_s
from app.migration.runbook import make_runbook
from app.migration.verifier import (
    CHECKS_AT_A_TIME,
    Extent,
    Verifier,
    verify_plan,
)
from app.migration.verifier import prune_extra as prune_ours
from app.migration.worker import GRACE_S, Worker
from app.registry import Endpoint, RegistryClient
from app.server import LOGGING
from app.settings import Registry, Settings
from app.store import Stores
from app.store.migrations import (
    HARMLESS,
    JOB_STATES,
    SETTLED,
    Job,
    MigrationStore,
    PlanStatus,
    present,
)

POLL_S = 0.2
WATCH_S = 2.0
NICE = 10  # of a worker
LONGEST_STOP_S = GRACE_S + 10  # of a worker
STATUS_COLUMNS = ["plan", "state", "stopped", "lag_s", "jobs", "errors", "workers"]

JOB_COLUMNS = ["id", "state", "result", "attempts", "error_class", "error"]
DRIFT_COLUMNS = ["kind", "repository", "reference", "source_digest", "target_digest", "message"]


@cli.group()
def migrate() -> None:
    """Move everything to another registry while pushes go on."""


def _with_plan(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the stores and the plan of --plan, the only one by default."""

    @click.option("--plan", "name", help="Its name; may be left out where there is only one.")
    @click.pass_obj
    def opened(settings: Settings, /, *args: Any, name: str | None, **kwargs: Any) -> Any:
        plans = load_plans(settings, [name] if name else ())
        if len(plans) != 1:
            names = ", ".join(plan.name for plan in plans)
            raise click.UsageError(
                f"--plan: choose one of {names}" if names else "migrations: none in config.yml"
            )
        with opened_stores(settings) as stores:
            return command(stores, plans[0], *args, **kwargs)

    opened.__doc__ = command.__doc__
    opened.__name__ = command.__name__
    # click keeps the options of a command here until the command is made.
    parameters = getattr(command, "__click_params__", [])
    opened.__click_params__ = [*opened.__click_params__, *parameters]  # type: ignore[attr-defined]
    return opened


def _who() -> str:
    """Who runs the command, for the audit."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # as in a container whose user has no name
        name = f"user {os.getuid()}"
    return f"{name} at the command line"


@contextlib.contextmanager
def _until_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set."""
    ended = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: ended.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
    logging.config.dictConfig(LOGGING)
    plans = load_plans(settings, names)
    if not plans:
        raise ConfigError("migrations: none is configured")
    with opened_stores(settings) as stores:
        _give_way()  # now: a database that was started above is not meant
        worker = Worker(stores, plans)
        with _until_signal() as ended:
            worker.start()
            _wait_for(ended)
            _end_within(LONGEST_STOP_S)
            _stop(worker)


@migrate.command("start")
@_with_plan
def migrate_start(stores: Stores, plan: Plan) -> None:
    """Copy all that is there, then follow the pushes. Harmless to repeat: another crawl.

    A frozen plan takes pushes again; one that was rolled back begins anew.
    """
    states.start(stores.migrations, plan, _who(), present())
    print(f"started {plan.name}; rns migrate worker carries it out")


@migrate.command("pause")
@_with_plan
def migrate_pause(stores: Stores, plan: Plan) -> None:
    """Begin no more jobs; pushes are still noted."""
    stores.migrations.pause(plan.name, _who(), present())
    print(f"paused {plan.name}")


@migrate.command("resume")
@click.option(
    "--allow-deletes", type=click.IntRange(0), default=0, help="So many, under the brake."
)
@_with_plan
def migrate_resume(stores: Stores, plan: Plan, allow_deletes: int) -> None:
    """Go on after a pause, or at once after an outage."""
    stores.migrations.resume(plan.name, _who(), present(), allow_deletes)
    print(f"resumed {plan.name}")


@migrate.command("lift-brake")
@_with_plan
def migrate_lift_brake(stores: Stores, plan: Plan) -> None:
    """Let deletes be carried out as they come, after the brake."""
    stores.migrations.lift_brake(plan.name, _who(), present())
    print(f"deletes of {plan.name} are braked no more")


@migrate.command("status")
@click.option("--plan", "names", multiple=True, help="Of this one only; may be repeated.")
@click.option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
@as_json
@click.pass_obj
def migrate_status(settings: Settings, names: tuple[str, ...], watch: bool, as_json: bool) -> None:
    """Show where every plan is."""
    plans = load_plans(settings, names)
    with opened_stores(settings) as stores, _until_signal() as ended:
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
    status = queue.get_plan(plan.name)
    conflicts = queue.count_errors(plan.name, "conflict")
    return {
        "plan": plan.name,
        "state": status.state,
        "since": status.since,
        "stopped": _stopped(status) or None,
        "lag_s": round(lag_s(queue, plan.name, now), 1),
        "jobs": queue.count_jobs(plan.name),
        "errors": dict(Counter(queue.count_errors(plan.name)) + Counter(conflicts)),
        "workers": sum(plan.name in worker.plans for worker in queue.find_workers(now)),
        "crawl": queue.get_run(plan.name, "crawl"),
        "verify": queue.get_run(plan.name, "verify"),
        "partial": queue.get_run(plan.name, "partial"),
        "deletes_braked": status.deletes_braked,
        "cannot_delete": status.cannot_delete,
    }


def _stopped(status: PlanStatus) -> str:
    if status.paused:
        return f"paused by {status.paused}"
    return f"{status.breaker.error_class}: {status.breaker.message}" if status.breaker else ""


@migrate.command("jobs")
@click.option("--state", type=click.Choice(JOB_STATES), default=None)
@click.option("--class", "error_class", help="Of the last error, as in rns migrate status.")
@as_json
@_with_plan
def migrate_jobs(
    stores: Stores, plan: Plan, state: str | None, error_class: str | None, as_json: bool
) -> None:
    """List the jobs of a plan."""
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
        page = queue.find_jobs(plan.name, cursor=cursor, limit=500, **filters)
        yield from page.items
        cursor = page.next
        if cursor is None:
            return


@migrate.command("retry")
@click.option("--id", "key", help="Of one job.")
@click.option("--class", "error_class", help="All jobs with this error class.")
@click.option("--all", "everything", is_flag=True, help="All dead and conflicting jobs.")
@_with_plan
def migrate_retry(
    stores: Stores, plan: Plan, key: str | None, error_class: str | None, everything: bool
) -> None:
    """Begin jobs anew that are dead or in conflict; one that is skipped with --id only."""
    if not (key or error_class or everything):
        raise click.UsageError("name jobs by --id, --class or --all")
    filters = {"id": key or "", "error_class": error_class or ""}
    number = stores.migrations.retry(plan.name, _who(), present(), **filters)
    print(f"{number} jobs begin anew")


@migrate.command("skip")
@click.argument("key", metavar="ID")
@_with_plan
def migrate_skip(stores: Stores, plan: Plan, key: str) -> None:
    """Leave a job out until its reference is pushed again."""
    if not stores.migrations.waive(plan.name, _who(), key, present()):
        raise InvalidQuery(f"no job {key} that is not running")
    print(f"skipped {key}")


def _parse_share(_: click.Context, __: click.Parameter, text: str | None) -> float:
    if text is None:
        return 1
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = 0
    if not 0 < percent <= 100:
        raise click.BadParameter("expected a share above 0, as 5%")
    return percent / 100


@migrate.command("verify")
@click.option("--deep", is_flag=True, help="Also every child and blob at the target.")
@click.option("--bytes", "hashed", is_flag=True, help="Also read every blob there; implies --deep.")
@click.option("--sample", "share", callback=_parse_share, metavar="N%", help="Some of the tags.")
@click.option("--repo", "repositories", default="", metavar="PATTERN", help="At the source.")
@click.option("--prune-extra", is_flag=True, help="Delete what is too much and we put there.")
@click.option("--recheck", type=click.IntRange(0), default=30, show_default=True, help="Seconds.")
@click.option("--csv", "as_csv", is_flag=True, help="The differences as CSV.")
@as_json
@_with_plan
def migrate_verify(
    stores: Stores,
    plan: Plan,
    prune_extra: bool,
    recheck: int,
    as_csv: bool,
    as_json: bool,
    **extent: Any,
) -> None:
    """Compare source and target; exit 1 if they differ. Differences are copied anew.

    A part alone (--sample, --repo) never makes a plan ready.
    """
    queue = stores.migrations
    if prune_extra and queue.get_plan(plan.name).target_leads:
        raise IllegalState("--prune-extra: after the cut-over the target is right")
    with (
        contextlib.closing(RegistryClient(plan.source)) as source,
        contextlib.closing(RegistryClient(plan.target)) as target,
    ):
        owner = f"verify {socket.gethostname()}:{os.getpid()}"
        rows = verify_plan(
            stores, plan, source, target, owner, extent=Extent(**extent), recheck_s=recheck
        )
    if rows is None:
        raise AppError("another verification of this plan is under way")
    documents = [msgspec.to_builtins(row) for row in rows]
    if as_csv:
        writer = csv.DictWriter(sys.stdout, DRIFT_COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(documents)
    else:
        print_rows(documents, DRIFT_COLUMNS, as_json)
    if prune_extra:
        number = prune_ours(queue, plan, rows)
        print(f"{number} tags at the target are deleted by a worker", file=sys.stderr)
    if any(row.kind not in HARMLESS for row in rows):
        raise AppError(f"{len(rows)} differences between source and target")


@migrate.command("ready")
@as_json
@_with_plan
def migrate_ready(stores: Stores, plan: Plan, as_json: bool) -> None:
    """Say whether a plan can be cut over; exit 1 if it cannot."""
    checks = find_checks(stores.migrations, plan, present())
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
@_with_plan
def migrate_runbook(stores: Stores, plan: Plan) -> None:
    """Show what is left until the cut-over, with the values and commands of this moment."""
    for line in make_runbook(stores.migrations, plan, present()):
        print(line)


@migrate.command("freeze")
@_with_plan
def migrate_freeze(stores: Stores, plan: Plan) -> None:
    """Record that you made the source read-only, and crawl it for the last time."""
    states.freeze(stores.migrations, plan, _who(), present())
    print(f"{plan.name} is frozen; when the crawl is over, rns migrate verify and ready")


@migrate.command("cutover")
@click.option("--force", is_flag=True, help="Although conditions are unknown.")
@_with_plan
def migrate_cutover(stores: Stores, plan: Plan, force: bool) -> None:
    """Record that clients go to the target from now on, if everything is there.

    What they push there is never overwritten nor deleted by this plan again. See `runbook` for
    what comes before and after.
    """
    states.cut_over(stores.migrations, plan, _who(), present(), force=force)
    print(f"{plan.name} is cut over: let the clients use {plan.target.url}\n")
    for line in make_runbook(stores.migrations, plan, present()):
        print(line)


@migrate.command("rollback")
@_with_plan
def migrate_rollback(stores: Stores, plan: Plan) -> None:
    """Record that clients go back to the source; workers leave the plan alone."""
    states.roll_back(stores.migrations, plan, _who(), present())
    print(f"{plan.name} is rolled back: let the clients use {plan.source.url}", end="")
    print(f", after rns migrate start --plan {plan.counterpart}" if plan.counterpart else "")


@migrate.command("close")
@_with_plan
def migrate_close(stores: Stores, plan: Plan) -> None:
    """End a plan for good: no more jobs, pushes are no longer noted."""
    states.close(stores.migrations, plan, _who(), present())
    print(f"closed {plan.name}")


@migrate.command("once")
@_with_plan
def migrate_once(stores: Stores, plan: Plan) -> None:
    """Crawl, copy everything that is missing and exit; exit 1 if something could not be copied."""
    queue = stores.migrations
    states.crawl(queue, plan, _who(), present())
    queue.close_breaker(plan.name)  # of an earlier run
    worker = Worker(stores, [plan])
    conductor = worker.plans[0].conductor
    with _until_signal() as ended, tqdm(unit="tag", disable=None) as progress:
        worker.start()
        while not ended.wait(POLL_S):
            jobs = queue.count_jobs(plan.name)
            progress.total = sum(jobs.values())
            progress.update(sum(jobs.get(state, 0) for state in SETTLED) - progress.n)
            is_stopped = conductor.failed or _stopped(queue.get_plan(plan.name))
            if is_stopped or _is_drained(queue, plan.name):
                break
        _stop(worker, status=1)
    if ended.is_set():
        raise click.Abort
    status, jobs = queue.get_plan(plan.name), queue.count_jobs(plan.name)
    if conductor.failed or _stopped(status):
        raise AppError(f"stopped: {_stopped(status) or conductor.failed}")
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
    status, crawl = queue.get_plan(plan), queue.get_run(plan, "crawl")
    if status.recrawl or crawl is None or crawl.state != "done":
        return False
    jobs = queue.count_jobs(plan)
    if jobs.get("running"):
        return False
    if jobs.get("pending"):
        return set(queue.count_errors(plan, "pending")) == {"braked"}
    return status.state != "backfill"


@migrate.command("plan")
@as_json
@_with_plan
def migrate_plan(stores: Stores, plan: Plan, as_json: bool) -> None:
    """Show what would be copied; writes nothing."""
    with (
        contextlib.closing(RegistryClient(plan.source)) as source,
        contextlib.closing(RegistryClient(plan.target)) as target,
        ThreadPoolExecutor(CHECKS_AT_A_TIME) as threads,
    ):

        def known() -> list[str]:
            return stores.catalogue.find_names(plan.registry)

        verifier = Verifier(plan, source, target, threads, known=known)
        rows = [
            {
                "repository": repository,
                "target_repository": _map_or_none(plan, repository),
                "tags": tags,
                "to_copy": sum(row.kind in ("missing", "different") for row in drift),
                "unknown": sum(row.kind == "unknown" for row in drift),
            }
            for repository, _ in tqdm(
                find_repositories(source, known=known),
                unit="repository",
                disable=None,
            )
            if plan.takes(repository)
            for tags, drift in [verifier.compare(repository)]
        ]
    print_rows(rows, ["repository", "target_repository", "tags", "to_copy", "unknown"], as_json)


def _map_or_none(plan: Plan, repository: str) -> str:
    with contextlib.suppress(InvalidReference):
        return plan.map(repository)
    return ""


@cli.group()
def catalogue() -> None:
    """What repositories and tags there are."""


@catalogue.command("import")
@click.option("--registry", "name", default="default", show_default=True)
@click.pass_obj
def catalogue_import(settings: Settings, name: str) -> None:
    """Take in the tags of a registry that were pushed before events came; repeating is harmless."""
    registry = next((entry for entry in settings.registries if entry.name == name), None)
    if registry is None:
        raise ConfigError(f"registries: there is none with the name {name}")
    if not registry.url:
        raise ConfigError(f"registries: {name} has no url")
    with (
        opened_stores(settings) as stores,
        contextlib.closing(RegistryClient(_endpoint(registry))) as client,
    ):
        number = 0
        for push in tqdm(find_pushes(client, name), unit="tag", disable=None):
            known = stores.catalogue.get_tag(name, push.repository, push.tag or "")
            if known and not known.deleted and known.digest == push.digest:
                continue
            stores.manifests.add([push])
            stores.catalogue_writer.add_pushes([push])
            number += 1
    print(f"imported {number:,} tags")


def _endpoint(registry: Registry) -> Endpoint:
    return Endpoint(
        url=registry.url,
        username=registry.username,
        password=registry.password,
        ca_file=registry.ca_file,
        insecure=registry.insecure,
        plain_http=registry.url.startswith("http://"),
    )
