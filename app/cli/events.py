"""`rns events`: what is recorded, out and in again, and what was rejected."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import IO

import click
import msgspec
from tqdm import tqdm

from app.cli.shared import DAY, as_json, open_projector, open_stores, print_rows
from app.errors import InvalidQuery
from app.notifications.loading import Loaded, load_lines, rebuild, retry_rejected
from app.settings import Settings


@click.group()
def events() -> None:
    """Move recorded events, and look after rejected ones."""


@events.command("export")
@click.option("--output", type=click.File("w", encoding="utf-8"), default="-")
@click.pass_obj
def events_export(settings: Settings, output: IO[str]) -> None:
    """Write everything the server keeps, but accounts, as NDJSON."""
    stores = open_stores(settings)
    number = 0
    for line in tqdm(stores.transfer.dump(), unit="row", disable=None):
        output.write(f"{line}\n")
        number += 1
    print(f"exported {number:,} documents", file=sys.stderr)


@events.command("import")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--registry", metavar="NAME", help="For lines that are raw envelopes; else default.")
@click.pass_obj
def events_import(settings: Settings, file: IO[bytes], registry: str | None) -> None:
    """Read an export, or raw envelopes, one per line; repeating is harmless."""
    known = [known.name for known in settings.registries]
    if registry is None:
        registry = "default" if "default" in known else ""
    elif registry not in known:
        raise click.UsageError(f"--registry: {registry} is none of registries")
    stores, total = open_stores(settings), Loaded()
    with open_projector(settings, stores) as projector, tqdm(unit="event", disable=None) as bar:
        for loaded in load_lines(stores, projector, file, registry):
            total.stored += loaded.stored
            total.duplicate += loaded.duplicate
            total.rejected += loaded.rejected
            bar.update(loaded.stored + loaded.duplicate + loaded.rejected)
    print(
        f"imported {total.stored:,}, already there {total.duplicate:,}, "
        f"rejected {total.rejected:,}",
        file=sys.stderr,
    )


@events.command("rebuild")
@click.option("--from", "first", type=DAY, help="From this day (UTC) on; else from the first.")
@click.pass_obj
def events_rebuild(settings: Settings, first: datetime | None) -> None:
    """Derive everything anew from the events on record, while the server runs.

    What belongs to what, tags, history, manifests; the days are summarised anew after that. It can
    be interrupted: what is done stays, and to begin again is harmless.
    """
    stores, number = open_stores(settings), 0
    since = first and first.replace(tzinfo=UTC)
    with open_projector(settings, stores) as projector, tqdm(unit="event", disable=None) as bar:
        for read in rebuild(stores, projector, since):
            number += len(read)
            bar.update(len(read))
    print(f"derived everything anew from {number:,} events", file=sys.stderr)


@events.command("rejected")
@click.option("--retry", is_flag=True, help="Try all of them again, after an update.")
@click.option("--drop", metavar="ID", help="Forget one.")
@click.option("--drop-all", is_flag=True, help="Forget all.")
@as_json
@click.pass_obj
def events_rejected(
    settings: Settings, retry: bool, drop: str | None, drop_all: bool, as_json: bool
) -> None:
    """List, retry or drop the events that could not be understood."""
    stores = open_stores(settings)
    if drop:
        if not stores.rejected.drop(drop):
            raise InvalidQuery(f"there is no rejected event {drop}")
        print(f"dropped {drop}")
        return
    rejected = list(stores.rejected.find_all())
    if drop_all:
        for event in rejected:
            stores.rejected.drop(event.id)
        print(f"dropped {len(rejected)}")
    elif retry:
        with open_projector(settings, stores) as projector:
            stored = retry_rejected(stores, projector, rejected)
        print(f"stored {stored}, still rejected {len(rejected) - stored}")
    else:
        rows = [msgspec.to_builtins(event) for event in rejected]
        print_rows(rows, ["id", "registry", "received_at", "reason"], as_json)
