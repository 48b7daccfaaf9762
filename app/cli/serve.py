"""`rns serve` and `rns demo`."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime

import click
from tqdm import tqdm

from app import demo as demo_data
from app.cli.shared import open_projector, open_stores
from app.server import check_port
from app.settings import Settings


@click.command()
@click.pass_obj
def serve(settings: Settings) -> None:
    """Run the server in the foreground; with `mongodb.uri: embedded` the database too."""
    check_port(settings.server.bind)
    if config := click.get_current_context().find_root().params["config"]:
        os.environ["RNS_CONFIG"] = str(config)
    program = [sys.executable, "-m", "gunicorn", "--config", "python:app.server.gunicorn_conf"]
    os.execv(sys.executable, [*program, "app:create_app()"])  # noqa: S606 - no shell wanted


@click.command()
@click.option("--remove", is_flag=True, help="Remove all demonstration data again.")
@click.pass_obj
def demo(settings: Settings, remove: bool) -> None:
    """Fill the pages with a hundred days of a made-up company; once more adds nothing."""
    stores = open_stores(settings)
    with open_projector(settings, stores) as projector:
        if remove:
            print(f"removed {demo_data.remove(stores, projector):,} events")
            return
        stored = 0
        with tqdm(unit="event", disable=None) as bar:
            for loaded in demo_data.load(stores, projector, datetime.now(UTC)):
                stored += loaded.stored
                bar.update(loaded.stored + loaded.duplicate)
    if stored:
        print(f"stored {stored:,} events of the registry `{demo_data.REGISTRY}`")
    else:
        print("the demonstration data is there already; --remove takes it away")
