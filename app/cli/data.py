"""`rns usage`, `rns events` and `rns catalogue`: what is recorded."""

from __future__ import annotations

import contextlib
import sys
from datetime import datetime
from typing import IO

import click
import msgspec
from tqdm import tqdm

from app.analysis.summaries import close_days
from app.cli.shared import as_json, open_stores, print_rows
from app.errors import ConfigError, InvalidEnvelope, InvalidQuery
from app.migration import load_plans
from app.migration.catalogue import find_pushes
from app.migration.live import LiveWishes
from app.notifications.ingest import Ingest, Receipt
from app.registry import Endpoint, RegistryClient
from app.settings import Registry, Settings
from app.store import Stores


@click.group()
def usage() -> None:
    """Figures by day."""


_DAY = click.DateTime(["%Y-%m-%d"])


@usage.command("refresh")
@click.option("--from", "first", type=_DAY, help="Summarise anew from this day on.")
@click.option("--to", "last", type=_DAY, help="Until this day.")
@click.pass_obj
def usage_refresh(settings: Settings, first: datetime | None, last: datetime | None) -> None:
    """Summarise the days that are over and open; the server does so by itself.

    Days whose events were removed by the retention keep their figures. A day for which an event
    came within the last minute is left for the next time.
    """
    stores = open_stores(settings)
    if first and last and last < first:
        raise InvalidQuery("--to: is before --from")
    days = close_days(stores, first and first.date(), last and last.date())
    done = rows = 0
    with tqdm(unit="day", disable=None) as bar:
        for _, number, left in days:
            done, rows = done + 1, rows + number
            bar.total = done + left
            bar.update()
    print(f"summarised {done:,} days, {rows:,} rows")


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


@click.group()
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
    stores = open_stores(settings)
    with contextlib.closing(RegistryClient(_endpoint(registry))) as client:
        number = 0
        for push in tqdm(find_pushes(client, name), unit="tag", disable=None):
            known = stores.catalogue.get_tag(name, push.repository, push.tag or "")
            if known and not known.deleted and known.digest == push.digest:
                continue
            stores.manifests.learn([push])
            stores.catalogue_writer.apply([push])
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
