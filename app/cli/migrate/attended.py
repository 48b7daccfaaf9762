"""`rns migrate run`: carries a plan out while somebody decides about what fails."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from collections.abc import Callable, Iterator

import click
import msgspec

from app.cli.migrate.shared import migrate, of_plan, open_plan, who, why_stopped
from app.cli.migrate.work import carry_through
from app.errors import AppError
from app.migration.advice import advice
from app.settings import Settings
from app.store.migrations import Job, MigrationStore, present

ATTEMPTS = 3  # of a job until it is decided about; a person does not wait for eight
RETRIES = 3  # of a job by itself
SHOWN = 20  # failures at a time

Decide = Callable[[str, list[str]], str]  # what happened and the choices → one of these


@migrate.command("run")
@click.option(
    "--on-error",
    type=click.Choice(["prompt", "retry", "skip", "abort"]),
    default="prompt",
    show_default=True,
    help="retry: three times each, then abort.",
)
@of_plan
@click.pass_obj
def migrate_run(settings: Settings, name: str | None, on_error: str) -> None:
    """Crawl and copy like `once`, and decide about each image that could not be copied.

    A skipped one is left out until it is pushed again, or until `rns migrate retry --id`.
    """
    stores, plan = open_plan(settings, name)
    most = min(ATTEMPTS, plan.options.max_attempts)
    plan.options = msgspec.structs.replace(plan.options, max_attempts=most)
    attendant = Attendant(stores.migrations, plan.name, on_error)
    carry_through(stores, plan, attendant.look)


def ask(what: str, choices: list[str]) -> str:
    """Let the person at the terminal choose."""
    click.echo(what, err=True)
    with _interruptible():
        return str(click.prompt("What now?", type=click.Choice(choices), err=True))


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a question; what runs beside it only takes note of them."""
    before = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Attendant:
    """Decides about failures of one plan: as said beforehand, or by asking."""

    def __init__(
        self, migrations: MigrationStore, plan: str, on_error: str, decide: Decide = ask
    ) -> None:
        self._migrations = migrations
        self._plan = plan
        self._on_error = on_error
        self._decide = decide
        self._retried: Counter[str] = Counter()

    def look(self) -> bool:
        """Decide about some of what failed since the last look; False where nothing did.

        Raises:
            AppError: it is to end here.
        """
        why = why_stopped(self._migrations.plans.get(self._plan))
        if why and self._on_error == "prompt":
            if self._decide(f"The whole plan is stopped: {why}", ["retry", "abort"]) == "abort":
                raise AppError(f"aborted: {why}")
            self._migrations.plans.resume(self._plan, who(), present())
        failed = [
            job
            for state in ("dead", "conflict")
            for job in self._migrations.jobs.find(self._plan, state=state, limit=SHOWN).items
        ]
        for job in failed:
            self._settle(job)
        return bool(failed)

    def _settle(self, job: Job) -> None:
        what = f"{job.repository}:{job.reference}: {job.error_class}: {job.error}"
        choice = self._on_error
        if choice == "prompt":
            choices = ["retry", "skip", "abort"]
            choice = self._decide(f"{what}\n{advice(job.error_class)}", choices)
        elif choice == "retry" and self._retried[job.id] >= RETRIES:
            raise AppError(f"aborted after {RETRIES} retries of {what}")
        if choice == "abort":
            raise AppError(f"aborted: {what}")
        jobs = self._migrations.jobs
        if choice == "retry":
            self._retried[job.id] += 1
            jobs.retry(self._plan, who(), present(), id=job.id)
        else:
            jobs.waive(self._plan, who(), job.id, present())
