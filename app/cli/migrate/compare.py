"""Source and target side by side: `rns migrate plan` before, `verify` after."""

from __future__ import annotations

import contextlib
import csv
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
import msgspec
from tqdm import tqdm

from app.cli.migrate.shared import migrate, of_plan, open_plan
from app.cli.shared import as_json, print_rows
from app.errors import AppError, IllegalState, InvalidReference
from app.migration import Plan
from app.migration.crawler import find_repositories
from app.migration.sides import Sides, connect_source, connect_target
from app.migration.verification import CHECKS_AT_A_TIME, verify_plan
from app.migration.verification import prune_extra as prune_ours
from app.migration.verifier import Extent, Verifier
from app.settings import Settings
from app.store.migrations import HARMLESS

DRIFT_COLUMNS = ["kind", "repository", "reference", "source_digest", "target_digest", "message"]


@migrate.command("plan")
@as_json
@of_plan
@click.pass_obj
def migrate_plan(settings: Settings, name: str | None, as_json: bool) -> None:
    """Show what would be copied; writes nothing."""
    stores, plan = open_plan(settings, name)
    with (
        contextlib.closing(connect_source(plan)) as source,
        contextlib.closing(connect_target(plan)) as target,
        ThreadPoolExecutor(CHECKS_AT_A_TIME) as threads,
    ):

        def known() -> list[str]:
            return stores.catalogue.find_names(plan.registry)

        verifier = Verifier(Sides(plan, source, target), threads, known=known)
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
@of_plan
@click.pass_obj
def migrate_verify(
    settings: Settings,
    /,
    name: str | None,
    prune_extra: bool,
    recheck: int,
    as_csv: bool,
    as_json: bool,
    **extent: Any,
) -> None:
    """Compare source and target; exit 1 if they differ. Differences are copied anew.

    A part alone (--sample, --repo) never makes a plan ready.
    """
    stores, plan = open_plan(settings, name)
    queue = stores.migrations
    if prune_extra and queue.plans.get(plan.name).target_leads:
        raise IllegalState("--prune-extra: after the cut-over the target is right")
    with (
        contextlib.closing(connect_source(plan)) as source,
        contextlib.closing(connect_target(plan)) as target,
    ):
        owner = f"verify {socket.gethostname()}:{os.getpid()}"
        how = Extent(**extent, recheck_s=recheck)
        rows = verify_plan(stores, Sides(plan, source, target), owner, extent=how)
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
        number = prune_ours(queue.jobs, plan, rows)
        print(f"{number} tags at the target are deleted by a worker", file=sys.stderr)
    if any(row.kind not in HARMLESS for row in rows):
        raise AppError(f"{len(rows)} differences between source and target")
