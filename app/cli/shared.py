"""What the commands share.

A command takes the settings (`click.pass_obj`) and opens the stores itself, when it needs them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from app.embedded import has_database, running_or_started
from app.errors import StartupError
from app.notifications.projector import Projector
from app.server.projecting import make_projector
from app.settings import Settings, find_file
from app.store import PATIENT_TIMEOUT_MS, Stores, connect
from app.store.explaining import QueryListener
from app.store.schema import NEWEST


def open_stores(
    settings: Settings, listener: QueryListener | None = None, *, only_looks: bool = False
) -> Stores:
    """The stores, until the command ends; runs the embedded database for it if no server does.

    A `listener` hears what is sent. Who `only_looks` finds indexes missing that others create, and
    need not be allowed to write.

    Raises:
        StartupError: there is no embedded database, or it does not start, or it has the schema of
            another version.
        StoreUnavailable: the database does not answer.
    """
    context = click.get_current_context()
    uri = None
    if settings.is_embedded:
        if not has_database(Path(settings.mongodb.data_dir)):
            raise StartupError(
                f"there is no database in {Path(settings.mongodb.data_dir).absolute()}, which "
                f"mongodb.data_dir of {configuration_in_use()} names: run this with the "
                "configuration and in the directory of the server (--config, RNS_CONFIG); for a "
                "new one run rns serve first"
            )
        uri = context.with_resource(running_or_started(Path(settings.mongodb.data_dir)))
    stores = connect(settings, uri, timeout_ms=PATIENT_TIMEOUT_MS, listener=listener)
    context.call_on_close(stores.close)
    number = stores.schema.check() if only_looks else stores.schema.note()
    if number < NEWEST:
        raise StartupError(
            f"the database has schema {number}, which an older version wrote, and this one needs "
            f"{NEWEST}: the server (rns serve) brings it there, and its log says how far it is"
        )
    if not only_looks:
        stores.ensure_indexes()
    stores.migrations.follow_clock()
    return stores


def configuration_in_use() -> str:
    """The file that this command read, or that there was none."""
    file = find_file(click.get_current_context().find_root().params.get("config"))
    return str(file.absolute()) if file else f"the defaults (no config.yml in {Path.cwd()})"


@contextlib.contextmanager
def open_projector(settings: Settings, stores: Stores) -> Iterator[Projector]:
    """What derives: servers make way for it until the block ends."""
    projector = make_projector(settings, stores, passing=True)
    try:
        yield projector
    finally:
        projector.stop()


DAY = click.DateTime(["%Y-%m-%d"])
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document per line.")


def print_rows(rows: list[dict[str, Any]], columns: list[str], as_json: bool) -> None:
    """Print rows as a table of some columns, or whole as JSON: one document per line."""
    if as_json:
        for row in rows:
            print(msgspec.json.encode(row).decode())
        return
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(map(len, values)) for values in zip(columns, *cells, strict=True)]
    for line in [[column.upper() for column in columns], *cells]:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(text.rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode().strip('"')
