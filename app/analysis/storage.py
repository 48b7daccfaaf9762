"""What the tags of each namespace hold, and what of it came lately.

Only of what is there today: what was deleted or replaced meanwhile is in no number.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import msgspec

from app.analysis.contents import Contents, find_all_tags, find_contents
from app.rules.sizes import add_sizes
from app.rules.usage import Calendar
from app.store import Stores
from app.store.catalogue import CatalogueQuery, Tag
from app.store.scope import Scope

ALWAYS = datetime.min.replace(tzinfo=UTC)

Place = tuple[str, str]  # registry and namespace


class StorageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What came in the last `days`, today included. None leaves a filter out."""

    days: int
    registry: str | None = None
    namespace: str | None = None
    repository: str | None = None


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """What the tags of a namespace hold, in bytes of config and layers, each blob once.

    `came` is what of `size` came in the period: a blob comes with the first push among the tags
    that hold it now, each by its last push. `unknown` tags hold what nobody told, which is in
    neither. Of `undated` ones only pulls tell, so what they hold was there before the period.
    """

    registry: str
    namespace: str
    tags: int
    size: int
    came: int
    unknown: int
    undated: int


class Storage(msgspec.Struct, frozen=True, kw_only=True):
    """What tags hold, by namespace and registry, and all together.

    `size` and `came` have a blob once in a registry, though several namespaces hold it. So has
    `by_day`, the bytes that came on each day from `first` to `last`: at the namespace that had the
    blob first, the first by name of several.
    """

    first: date
    last: date
    namespaces: Sequence[Growth]
    by_day: Mapping[Place, Mapping[date, int]]
    size: int
    came: int
    unknown: int
    undated: int


class _Blob(NamedTuple):
    """When a blob came, and its bytes: the most of what manifests say."""

    came: datetime
    size: int

    def also(self, other: _Blob | None) -> _Blob:
        """The same, when `other` was told of it too."""
        if other is None:
            return self
        return _Blob(min(self.came, other.came), max(self.size, other.size))


def find_storage(stores: Stores, scope: Scope, query: StorageQuery, now: datetime) -> Storage:
    """What the tags hold that one viewer may see and the query selects."""
    wanted = CatalogueQuery(
        registry=query.registry, namespace=query.namespace, repository=query.repository
    )
    tags = list(find_all_tags(stores, scope, wanted))
    contents = find_contents(stores, {(tag.registry, tag.digest) for tag in tags})
    calendar = stores.days.calendar
    last = calendar.day_of(now)
    return add_up(tags, contents, calendar, last - timedelta(days=query.days - 1), last)


def add_up(
    tags: Iterable[Tag], contents: Contents, calendar: Calendar, first: date, last: date
) -> Storage:
    """What tags hold, and what of it came from `first` to `last`. Pure.

    What is said to come after `last` came on that day: a registry's clock is ahead.
    """
    counts: dict[Place, Counter[str]] = defaultdict(Counter)
    held: dict[Place, dict[str, _Blob]] = defaultdict(dict)
    for tag in tags:
        blobs, is_whole = contents.blobs(tag.registry, tag.digest)
        place = tag.registry, tag.namespace
        counts[place] += Counter(tags=1, unknown=not is_whole, undated=not tag.pushed_at)
        of_place = held[place]
        for digest, size in blobs.items():
            of_place[digest] = _Blob(tag.pushed_at or ALWAYS, size).also(of_place.get(digest))
    since = calendar.start_of(first)
    by_place: dict[Place, dict[date, int]] = defaultdict(lambda: defaultdict(int))
    every = _each_once(held)
    for (registry, _), (blob, namespace) in every.items():
        if blob.came >= since:
            day = min(calendar.day_of(blob.came), last)
            by_place[registry, namespace][day] += blob.size
    total = sum(counts.values(), Counter[str]())
    return Storage(
        first=first,
        last=last,
        namespaces=[
            _growth(place, counts[place], held[place].values(), since) for place in sorted(counts)
        ],
        by_day={
            place: {day: add_sizes([size]) for day, size in days.items()}
            for place, days in by_place.items()
        },
        size=add_sizes(blob.size for blob, _ in every.values()),
        came=_came((blob for blob, _ in every.values()), since),
        unknown=total["unknown"],
        undated=total["undated"],
    )


def _each_once(
    held: Mapping[Place, Mapping[str, _Blob]],
) -> dict[tuple[str, str], tuple[_Blob, str]]:
    """Each blob of a registry, by registry and digest, with the namespace that had it first."""
    found: dict[tuple[str, str], tuple[_Blob, str]] = {}
    for (registry, namespace), blobs in sorted(held.items()):
        for digest, blob in blobs.items():
            before, owner = found.get((registry, digest), (None, namespace))
            if before and blob.came < before.came:
                owner = namespace
            found[registry, digest] = blob.also(before), owner
    return found


def _growth(
    place: Place, counts: Mapping[str, int], blobs: Iterable[_Blob], since: datetime
) -> Growth:
    held = list(blobs)
    registry, namespace = place
    return Growth(
        registry=registry,
        namespace=namespace,
        tags=counts["tags"],
        size=add_sizes(blob.size for blob in held),
        came=_came(held, since),
        unknown=counts["unknown"],
        undated=counts["undated"],
    )


def _came(blobs: Iterable[_Blob], since: datetime) -> int:
    return add_sizes(blob.size for blob in blobs if blob.came >= since)
