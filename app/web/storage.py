"""What tags hold, by namespace: as a list, and as bars of what came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from heapq import nsmallest
from itertools import accumulate
from typing import Any

from flask_babel import gettext

from app.analysis.storage import Growth, Place, Storage, find_storage
from app.rules.sizes import MAX_SIZE
from app.rules.usage import PUSH, days_between
from app.store.events import NONE
from app.store.paging import Page
from app.web import lists
from app.web.charts import Chart, Column, Series
from app.web.forms import StorageFilter
from app.web.lists import Item, Listing, fields_of, page_url
from app.web.runtime import runtime
from app.web.signin import viewer

MAX_SERIES = 6  # as many colours can be told apart
MAX_COLUMNS = 60


def find_held(form: StorageFilter) -> Storage:
    """What a valid form asks for."""
    return find_storage(runtime().stores, viewer().scope, form.query(), datetime.now(UTC))


def storage_listing(form: StorageFilter, found: Storage) -> Listing:
    """The namespaces, in the order of the form."""
    rows, key = found.namespaces, _KEYS[form.sort.data]

    def find(cursor: str | None, limit: int) -> Page[Item]:
        page, more = lists.slice_of(rows, key, cursor, limit)
        return Page([fields_of(row) for row in page], more)

    return Listing("storage", Growth.__struct_fields__, find, lambda cap: lists.count_of(rows, cap))


def _name(row: Growth) -> str:
    return f"{row.namespace} {row.registry}"


def _most(field: str) -> Callable[[Growth], str]:
    """A key that has the greatest number first, then the names."""
    return lambda row: f"{MAX_SIZE - getattr(row, field):019} {_name(row)}"


_KEYS = {"name": _name, **{field: _most(field) for field in ("came", "size", "tags")}}


def tags_link(action: str = PUSH, *_period: Any, **place: str | None) -> str:
    """The URL of the tags of a `registry`, `namespace` and `repository`, the newest push first."""
    return page_url("search.tags", sort="pushed", **place)


def place_filters(place: Place) -> dict[str, str]:
    """The filters that select a namespace of a registry."""
    registry, namespace = place
    return {"registry": registry, "namespace": namespace or NONE}


def held_chart(found: Storage) -> Chart:
    """What came from the first day until each of some others, the last included.

    By the namespaces of which most came, and all others together.
    """
    totals = {place: sum(days.values()) for place, days in found.by_day.items()}
    shown = nsmallest(MAX_SERIES, totals, key=lambda place: (-totals[place], place))
    rest = totals.keys() - set(shown)
    has_registries = len({registry for registry, _ in totals}) > 1
    series = [
        Series(f"client-{number}", _label(place, has_registries), PUSH, place_filters(place))
        for number, place in enumerate(shown)
    ]
    if rest:
        series.append(Series("others", gettext("all others"), PUSH, None))
    groups = [[place] for place in shown] + ([list(rest)] if rest else [])
    return Chart(series, _columns(found, groups), is_size=True)


def _label(place: Place, has_registries: bool) -> str:
    registry, namespace = place
    name = namespace or gettext("no namespace")
    return f"{name} ({registry})" if has_registries else name


def _columns(found: Storage, groups: Iterable[Iterable[Place]]) -> list[Column]:
    days = list(days_between(found.first, found.last))
    sums = []
    for group in groups:
        came = Counter[date]()
        for place in group:
            came.update(found.by_day[place])
        sums.append(list(accumulate(came[day] for day in days)))
    step = -(-len(days) // MAX_COLUMNS)
    calendar = runtime().stores.days.calendar
    return [
        Column(
            calendar.local(calendar.start_of(days[place])),
            calendar.local(calendar.end_of(days[place])),
            [of_group[place] for of_group in sums],
        )
        for place in range((len(days) - 1) % step, len(days), step)
    ]
