"""`rns database`: what an operator does with MongoDB itself."""

from __future__ import annotations

import click
import msgspec

from app.cli.shared import as_json, open_stores, print_rows
from app.errors import AppError
from app.settings import Settings


@click.group()
def database() -> None:
    """The database itself."""


@database.command("shard")
@click.option("--dry-run", is_flag=True, help="Say what would be done.")
@as_json
@click.pass_obj
def database_shard(settings: Settings, dry_run: bool, as_json: bool) -> None:
    """Divide the collections among the shards of a cluster; repeating is harmless.

    A collection that is divided by another key stays as it is, and the exit status is 1.
    """
    stores = open_stores(settings, only_looks=dry_run)
    sharded = list(stores.sharding.shard(dry_run=dry_run))
    rows = [msgspec.to_builtins(one) for one in sharded]
    print_rows(rows, ["collection", "key", "state"], as_json)
    if others := [one.collection for one in sharded if one.state == "other"]:
        raise AppError(f"divided by another key: {', '.join(others)}; see reshardCollection")
