"""`rns events`: what is recorded, out and in again, and what was rejected."""

from __future__ import annotations

import sys
from typing import IO

import click
import msgspec
from tqdm import tqdm

from app.cli.shared import as_json, open_stores, print_rows
from app.errors import InvalidEnvelope, InvalidQuery
from app.migration import load_plans
from app.migration.live import LiveWishes
from app.notifications.ingest import Ingest, Receipt
from app.settings import Settings
from app.store import Stores


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
    for line in tqdm(stores.dump(), unit="row", disable=None):
        output.write(f"{line}\n")
        number += 1
    print(f"exported {number:,} documents", file=sys.stderr)


def _ingest(settings: Settings, stores: Stores) -> Ingest:
    """As the server's own: what is stored reaches live migrations."""
    return Ingest(stores, LiveWishes(stores.migrations, load_plans(settings)))


@events.command("import")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--registry", default="default", help="For lines that are raw envelopes.")
@click.pass_obj
def events_import(settings: Settings, file: IO[bytes], registry: str) -> None:
    """Read an export, or raw envelopes, one per line; repeating is harmless."""
    stores = open_stores(settings)
    ingest, total = _ingest(settings, stores), Receipt()
    is_known = registry in [known.name for known in settings.registries]
    for number, line in enumerate(tqdm(file, unit="line", disable=None), 1):
        if not line.strip():
            continue
        try:
            if not line.startswith(b'{"events"'):
                is_new = int(stores.load(line.decode()))
                receipt = Receipt(stored=is_new, duplicate=1 - is_new)
            elif is_known:
                receipt = ingest.receive(line, registry)
            else:
                raise click.UsageError(f"--registry: {registry} is none of registries")
        except UnicodeDecodeError:
            raise InvalidQuery(f"line {number}: not UTF-8") from None
        except (InvalidQuery, InvalidEnvelope) as error:
            raise InvalidQuery(f"line {number}: {error}") from None
        total.stored += receipt.stored
        total.duplicate += receipt.duplicate
        total.rejected += receipt.rejected
    print(
        f"imported {total.stored:,}, already there {total.duplicate:,}, "
        f"rejected {total.rejected:,}",
        file=sys.stderr,
    )


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
        stored = _ingest(settings, stores).retry(rejected)
        print(f"stored {stored}, still rejected {len(rejected) - stored}")
    else:
        rows = [msgspec.to_builtins(event) for event in rejected]
        print_rows(rows, ["id", "registry", "received_at", "reason"], as_json)
