"""`rns usage`: the figures by day."""

from __future__ import annotations

from datetime import datetime

import click
from tqdm import tqdm

from app.analysis.summaries import close_days
from app.cli.shared import DAY, open_stores
from app.errors import InvalidQuery
from app.settings import Settings


@click.group()
def usage() -> None:
    """Figures by day."""


@usage.command("refresh")
@click.option("--from", "first", type=DAY, help="Summarise anew from this day on.")
@click.option("--to", "last", type=DAY, help="Until this day.")
@click.pass_obj
def usage_refresh(settings: Settings, first: datetime | None, last: datetime | None) -> None:
    """Summarise the days that are over and open; the server does so by itself.

    Days whose events were removed by the retention keep their figures. A day for which an event
    came within the last two minutes is left for the next time.
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
