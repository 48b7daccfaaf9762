"""What a person decides of a plan: begin, pause, cut over, close; and of its jobs."""

from __future__ import annotations

import contextlib
import sys
from functools import partial

import click

from app.cli.migrate.shared import compare_now, migrate, of_plan, open_plan, who, within
from app.errors import IllegalState, InvalidQuery
from app.migration import states
from app.migration.frozen import takes_pushes
from app.migration.runbook import make_runbook, warn_of_rollback, warn_of_start
from app.migration.sides import connect_source
from app.settings import Settings
from app.store.migrations import present


@migrate.command("start")
@of_plan
@click.pass_obj
def migrate_start(settings: Settings, name: str | None) -> None:
    """Copy all that is there, then follow the pushes. Harmless to repeat: another crawl.

    A frozen plan takes pushes again; one that was rolled back begins anew.
    """
    stores, plan = open_plan(settings, name)
    if warning := warn_of_start(stores.migrations, plan):
        _warn(warning)
    states.start(stores.migrations, plan, who(), present())
    if paused := stores.migrations.plans.get(plan.name).paused:
        _warn(f"{plan.name} stays paused by {paused}: rns migrate resume lets it go on")
    print(f"started {plan.name}; rns migrate worker carries it out")


@migrate.command("crawl")
@of_plan
@click.pass_obj
def migrate_crawl(settings: Settings, name: str | None) -> None:
    """Crawl once more and leave the state as it is: after many tags went at the source."""
    stores, plan = open_plan(settings, name)
    states.crawl(stores.migrations, plan, who(), present())
    print(f"{plan.name} is crawled once more by a worker")


@migrate.command("pause")
@of_plan
@click.pass_obj
def migrate_pause(settings: Settings, name: str | None) -> None:
    """Begin no more jobs; pushes are still noted."""
    stores, plan = open_plan(settings, name)
    stores.migrations.plans.pause(plan.name, who(), present())
    print(f"paused {plan.name}")


@migrate.command("resume")
@click.option(
    "--allow-deletes", type=click.IntRange(0), default=0, help="So many, under the brake."
)
@of_plan
@click.pass_obj
def migrate_resume(settings: Settings, name: str | None, allow_deletes: int) -> None:
    """Go on after a pause, or at once after an outage."""
    stores, plan = open_plan(settings, name)
    stores.migrations.plans.resume(plan.name, who(), present(), allow_deletes)
    print(f"resumed {plan.name}")


@migrate.command("lift-brake")
@of_plan
@click.pass_obj
def migrate_lift_brake(settings: Settings, name: str | None) -> None:
    """Let deletes be carried out as they come, after the brake."""
    stores, plan = open_plan(settings, name)
    stores.migrations.plans.lift_brake(plan.name, who(), present())
    print(f"deletes of {plan.name} are braked no more")


@migrate.command("retry")
@click.option("--id", "key", help="Of one job.")
@click.option("--class", "error_class", help="All jobs with this error class.")
@click.option("--all", "everything", is_flag=True, help="All dead and conflicting jobs.")
@of_plan
@click.pass_obj
def migrate_retry(
    settings: Settings, name: str | None, key: str | None, error_class: str | None, everything: bool
) -> None:
    """Begin jobs anew that are dead or in conflict; one that is skipped with --id only."""
    stores, plan = open_plan(settings, name)
    if not (key or error_class or everything):
        raise click.UsageError("name jobs by --id, --class or --all")
    filters = {"id": key or "", "error_class": error_class or ""}
    number = stores.migrations.jobs.retry(plan.name, who(), present(), **filters)
    if key and not number:
        raise InvalidQuery(f"no job {key} that is dead, in conflict or skipped")
    print(f"{number} jobs begin anew")


@migrate.command("skip")
@click.argument("key", metavar="ID")
@of_plan
@click.pass_obj
def migrate_skip(settings: Settings, name: str | None, key: str) -> None:
    """Leave a job out until its reference is pushed again."""
    stores, plan = open_plan(settings, name)
    if not stores.migrations.jobs.waive(plan.name, who(), key, present()):
        raise InvalidQuery(f"no job {key} that is not running")
    print(f"skipped {key}")


@migrate.command("freeze")
@click.option("--force", is_flag=True, help="Although the source takes pushes.")
@of_plan
@click.pass_obj
def migrate_freeze(settings: Settings, name: str | None, force: bool) -> None:
    """Record that you made the source read-only, and crawl it for the last time.

    Looks whether it is: refused if the source still takes pushes.
    """
    stores, plan = open_plan(settings, name)
    despite = ""
    if stores.migrations.plans.get(plan.name).state == "live":
        with contextlib.closing(connect_source(plan)) as source:
            known = partial(stores.catalogue.find_names, plan.registry)
            takes, why = takes_pushes(source, plan, known)
        if takes:
            despite = f"{plan.source.url} still takes pushes ({why})"
            if not force:
                raise IllegalState(f"{despite}; make it read-only")
        if takes is None:
            _warn(f"nobody can tell whether {plan.source.url} takes pushes: {why}")
    states.freeze(stores.migrations, plan, who(), present(), despite=despite)
    print(f"{plan.name} is frozen; when the crawl is over, rns migrate verify and ready")


def _warn(text: str) -> None:
    print(f"rns: warning: {text}", file=sys.stderr)


@migrate.command("cutover")
@click.option("--force", is_flag=True, help="Although conditions are unknown.")
@within
@of_plan
@click.pass_obj
def migrate_cutover(settings: Settings, name: str | None, force: bool, within: int) -> None:
    """Record that clients go to the target from now on, if everything is there.

    Both registries are asked and compared before, as by `ready`.

    What they push there is never overwritten nor deleted by this plan again. See `runbook` for
    what comes before and after.
    """
    stores, plan = open_plan(settings, name)
    compare_now(stores, plan, within)
    states.cut_over(stores, plan, who(), present(), force=force)
    print(f"{plan.name} is cut over: let the clients use {plan.target.url}\n")
    for line in make_runbook(stores, plan, present()):
        print(line)


@migrate.command("rollback")
@of_plan
@click.pass_obj
def migrate_rollback(settings: Settings, name: str | None) -> None:
    """Record that clients go back to the source; workers leave the plan alone."""
    stores, plan = open_plan(settings, name)
    if warning := warn_of_rollback(stores.migrations, plan):
        _warn(warning)
    states.roll_back(stores.migrations, plan, who(), present())
    print(f"{plan.name} is rolled back: let the clients use {plan.source.url}", end="")
    print(f", after rns migrate start --plan {plan.counterpart}" if plan.counterpart else "")


@migrate.command("close")
@of_plan
@click.pass_obj
def migrate_close(settings: Settings, name: str | None) -> None:
    """End a plan for good: no more jobs, pushes are no longer noted."""
    stores, plan = open_plan(settings, name)
    states.close(stores.migrations, plan, who(), present())
    print(f"closed {plan.name}")
