"""What only the dashboard draws: bars by client class, and the hours of the week."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from heapq import nsmallest
from typing import NamedTuple

import msgspec
from flask_babel import gettext

from app.rules.clients import CLIENTS
from app.rules.usage import PULL
from app.web.charts import Chart, Column, Series
from app.web.figures import MAX_HOURLY_DAYS, Figures, Slot, period_before
from app.web.forms import ACTION, CLIENT, DashboardFilter, UsageFilter
from app.web.runtime import runtime
from app.web.signin import viewer
from app.web.texts import show

MAX_CLIENTS = 6  # as many colours can be told apart
MAX_WEEK_DAYS = 100  # of which hours are added up by weekday: a document each
MAX_OPEN = timedelta(days=2)  # of which their events are counted

Pulls = Mapping[str, Mapping[date, int]]  # of each day, by client class


class Cell(NamedTuple):
    """What happened in one hour of a weekday: all of it, and in how many such hours."""

    number: int = 0
    hours: int = 0

    @property
    def mean(self) -> float:
        """How much happened in such an hour."""
        return self.number / self.hours if self.hours else 0.0


class Week(msgspec.Struct, frozen=True):
    """The hours of a week, from Monday: 24 of each day, as the clocks of the zone show them."""

    days: Sequence[Sequence[Cell]]

    @property
    def top(self) -> float:
        """The highest mean."""
        return max(cell.mean for day in self.days for cell in day)


def find_week(form: UsageFilter, figures: Figures) -> Week | None:
    """Pulls, pushes, checks and deletes of a period by weekday and hour, without hours to come.

    None of very few or many days, and where the sums do not tell it: there it would cost too much.
    """
    number = (figures.last - figures.first).days + 1
    if not MAX_HOURLY_DAYS < number <= MAX_WEEK_DAYS:
        return None
    stores, scope, now = runtime().stores, viewer().scope, datetime.now(UTC)
    query = form.query(figures.first, figures.last)
    hours = stores.usage.read_hours(query, scope, now, max_open=MAX_OPEN)
    if hours is None:
        return None
    days = [[Cell()] * 24 for _ in range(7)]
    for span, counts in hours.items():
        if span.start <= now:
            local = stores.days.calendar.local(span.start)
            cell = days[local.weekday()][local.hour]
            days[local.weekday()][local.hour] = Cell(
                cell.number + sum(counts.values()), cell.hours + 1
            )
    return Week(days)


def find_chart(form: DashboardFilter, figures: Figures) -> Chart:
    """The bars of the dashboard: by action, or pulls by client class.

    By client only to who may know with what others pull, and only by day: of hours, and of what
    else happened, the sums do not tell the client.
    """
    if figures.hourly or not viewer().scope.locates_others:
        return figures.chart
    choices = (ACTION, CLIENT)
    if form.by.data != CLIENT:
        return msgspec.structs.replace(figures.chart, choices=choices)
    now = _find_pulls(form, figures.first, figures.last)
    before = _find_pulls(form, *period_before(figures.first, figures.last))
    totals = {
        name: sum(now.get(name, {}).values()) + sum(before.get(name, {}).values())
        for name in now.keys() | before.keys()
    }
    shown = nsmallest(MAX_CLIENTS, totals, key=lambda name: (-totals[name], name))
    rest = totals.keys() - set(shown)
    series = [
        Series(f"client-{place}", show(name), PULL, {"client": name})
        for place, name in enumerate(shown)
    ]
    if rest:
        series.append(Series("others", gettext("all others"), PULL, None))
    groups = [{name} for name in shown] + ([set(rest)] if rest else [])
    return Chart(
        series=series,
        columns=_columns(figures.slots, now, groups),
        before=_columns(figures.slots_before, before, groups),
        by=CLIENT,
        choices=choices,
    )


def _columns(slots: Sequence[Slot], pulls: Pulls, groups: Sequence[Iterable[str]]) -> list[Column]:
    def number(slot: Slot, group: Iterable[str]) -> int:
        return sum(pulls.get(name, {}).get(slot.start.date(), 0) for name in group)

    return [Column(slot.start, slot.end, [number(slot, of) for of in groups]) for slot in slots]


def _find_pulls(form: UsageFilter, first: date, last: date) -> Pulls:
    every = {(name,) for name in CLIENTS}
    query, scope = form.query(first, last), viewer().scope
    lines = runtime().stores.usage.read_lines("clients", every, query, scope, datetime.now(UTC))
    return {
        name: {day: pulls for day, (pulls, _) in days.items()}
        for (name,), days in lines.days.items()
    }
