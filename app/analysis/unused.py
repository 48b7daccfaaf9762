"""Which tags nobody used for some days: read-only, and careful about what could not be seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import NamedTuple

import msgspec

from app.analysis.contents import Contents, find_all_tags, find_contents
from app.errors import InvalidQuery
from app.rules.clients import CLIENTS, NOT_USE, RUNTIMES
from app.rules.references import digest_tag_subject
from app.rules.sizes import add_sizes
from app.rules.usage import CHECK, PULL, PULL_PART, Row
from app.store import Stores
from app.store.catalogue import CatalogueQuery, Tag
from app.store.scope import Scope
from app.store.usage import Image, UsageQuery

# Who pulls because somebody wants the image; a proxy does.
USERS = frozenset(CLIENTS) - NOT_USE

Place = tuple[str, str, str]  # registry, repository, and a tag or digest


class UnusedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which tags are asked for: unused for `days` days. None leaves a filter out.

    Only `clients` (classes) use something: by a pull, and container runtimes by a check, as they
    check what they have already.
    """

    days: int
    clients: frozenset[str] = USERS
    registry: str | None = None
    namespace: str | None = None
    repository: str | None = None

    def is_use(self, row: Row) -> bool:
        """Whether what a row tells is a use."""
        return self.counts(row.action, row.client)

    def counts(self, action: str, client: str) -> bool:
        """Whether such a pull or check by a client of this class is a use."""
        if client not in self.clients:
            return False
        return action in (PULL, PULL_PART) or (action == CHECK and client in RUNTIMES)


class UnusedTag(msgspec.Struct, frozen=True, kw_only=True):
    """A tag that can go. `size` is of config and layers; None: the registry did not tell."""

    registry: str
    namespace: str
    repository: str
    tag: str
    digest: str
    kind: str
    pushed_at: datetime
    pushed_by: str
    size: int | None


class Point(NamedTuple):
    """How many tags nobody used for so many days, and what deleting them would free; see Report."""

    days: int
    tags: int
    freed: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The unused tags that one viewer may see, by repository and tag.

    `since` is the moment from which a use would have counted. Tags of registries in `too_new`
    (name → when their tags can be called unused) are not judged, and none at all while days in
    `missing` are being prepared. Nor are those of registries in `silent` (name → the day of their
    last event), which may have no endpoint any more, nor repositories in `unclear`, where an index
    is in use whose children are not known. All of it follows from the events of repositories that
    the viewer may see, and from no others. `freed` adds up each blob once that only unused tags
    hold; `unknown` is the number of unused tags whose blobs are not known, and `maybe_shared` that
    of the others: what they hold may be counted as freed.
    """

    since: datetime
    tags: Sequence[UnusedTag] = []
    freed: int = 0
    unknown: int = 0
    maybe_shared: int = 0
    too_new: Mapping[str, datetime]
    silent: Mapping[str, date]
    unclear: Sequence[str] = []
    missing: Sequence[date]
    judged: int = 0
    curve: Sequence[Point] = []


def find_unused(
    stores: Stores, scope: Scope, query: UnusedQuery, now: datetime, curve: Sequence[int] = ()
) -> Report:
    """The tags that were neither pushed nor used in the last days, nor are needed.

    `curve` are numbers of days below `query.days` for which it is counted too, which reads nothing
    more; those for which no registry is known long enough are left out.

    A tag is needed whose digest was used in its repository, also by another tag or by digest, or is
    the child of an index that was, or is an index with such a child; a signature, or list of
    referrers, while its subject is needed.

    Raises:
        InvalidQuery: who does not see the clients of others asks which of them count.
    """
    if query.clients != USERS and not scope.locates_others:
        raise InvalidQuery("clients: those of other people are not shown to you (access.records)")
    calendar = stores.days.calendar
    today = calendar.day_of(now)
    first = today - timedelta(days=query.days)
    period = UsageQuery(first=first, last=today, registry=query.registry, supplements=True)
    used, heard, missing = stores.usage.find_images(period, scope, now, query.is_use)
    tags = list(find_all_tags(stores, scope, CatalogueQuery(registry=query.registry)))
    registries = {tag.registry for tag in tags}
    before = stores.usage.find_heard_before(first, registries, scope, now)
    report = Report(
        since=calendar.start_of(first),
        too_new={
            name: calendar.end_of(heard[name][0] if name in heard else today) + (today - first)
            for name in registries - before.keys()
        },
        silent={name: day for name, day in before.items() if name not in heard},
        missing=missing,
    )
    if missing:
        return report
    seen = _Seen(tags, used, heard, frozenset(before))
    days = {today - timedelta(days) for days in sorted(curve) if days < query.days} | {first}
    spans = {day: seen.within(day) if day > first else seen for day in sorted(days, reverse=True)}
    held = {(tag.registry, tag.digest) for tag in _judged_in(spans.values())}
    contents = find_contents(stores, held | {(registry, digest) for registry, *_, digest in used})
    verdicts = {
        day: _judge(of_span, contents, query, calendar.start_of(day))
        for day, of_span in spans.items()
        if of_span.judged
    }
    found = verdicts.get(first, _Verdict())
    return msgspec.structs.replace(
        report,
        judged=len(seen.judged),
        tags=[_item(tag, contents) for tag in found.unused],
        unclear=found.unclear,
        freed=found.freed,
        unknown=found.unknown,
        maybe_shared=found.maybe_shared,
        curve=_points(verdicts, today) if curve else [],
    )


def _points(verdicts: Mapping[date, _Verdict], today: date) -> list[Point]:
    return [
        Point((today - day).days, len(verdict.unused), verdict.freed)
        for day, verdict in verdicts.items()
    ]


def _judged_in(spans: Iterable[_Seen]) -> set[Tag]:
    return {tag for of_span in spans for tag in of_span.judged}


class _Seen(NamedTuple):
    """What is known of a period: tags, what was used and last when, and of whom anything came.

    `before` are the registries of which anything came before the period.
    """

    tags: Sequence[Tag]
    used: Mapping[Image, date]
    heard: Mapping[str, tuple[date, date]]
    before: frozenset[str]

    @property
    def judged(self) -> list[Tag]:
        """The tags of registries that were watched the whole time."""
        watched = self.before & self.heard.keys()
        return [tag for tag in self.tags if tag.registry in watched and tag.digest]

    def within(self, first: date) -> _Seen:
        """The same of the part of the period that begins with `first`."""
        began = {name for name, (day, _) in self.heard.items() if day < first}
        return _Seen(
            self.tags,
            {image: last for image, last in self.used.items() if last >= first},
            {name: days for name, days in self.heard.items() if days[1] >= first},
            self.before | began,
        )


class _Verdict(NamedTuple):
    """See Report."""

    unused: Sequence[Tag] = ()
    unclear: Sequence[str] = ()
    freed: int = 0
    unknown: int = 0
    maybe_shared: int = 0


def _judge(seen: _Seen, contents: Contents, query: UnusedQuery, since: datetime) -> _Verdict:
    judged = seen.judged
    needed = _find_needed(judged, seen.used, since)
    unused, unclear = _without_need(judged, contents, needed)
    chosen = [
        tag
        for tag in unused
        if query.namespace in (None, tag.namespace) and query.repository in (None, tag.repository)
    ]
    return _Verdict(chosen, unclear, *_freed(chosen, judged, contents, seen.used))


def _find_needed(tags: Sequence[Tag], used: Iterable[Image], since: datetime) -> set[Place]:
    """The digests, by repository, that were used or that tags in use point to."""
    used_tags = {(registry, repository, tag) for registry, repository, tag, _ in used}
    needed = {(registry, repository, digest or "") for registry, repository, _, digest in used}
    for tag in tags:
        is_young = tag.pushed_at is None or tag.pushed_at >= since
        if is_young or (tag.registry, tag.repository, tag.tag) in used_tags:
            needed.add((tag.registry, tag.repository, tag.digest or ""))
    return needed


def _without_need(
    tags: Sequence[Tag], contents: Contents, needed: Iterable[Place]
) -> tuple[list[Tag], list[str]]:
    """The tags that nothing needed leads to, and the repositories where that cannot be told.

    It leads from an index to its children and back, from a digest to its tags, and from an image
    to its signature or list of referrers, over any number of steps.
    """
    led_to: dict[Place, list[Tag]] = {}
    for tag in tags:
        subject = digest_tag_subject(tag.tag)
        held = contents.children(tag.registry, tag.digest)
        for digest in {tag.digest, subject, *held} - {None}:
            led_to.setdefault((tag.registry, tag.repository, digest or ""), []).append(tag)
    kept: set[Place] = set()
    kept_tags: set[Place] = set()
    unclear: set[tuple[str, str]] = set()
    waiting = list(needed)
    while waiting:
        place = waiting.pop()
        if place in kept:
            continue
        kept.add(place)
        registry, repository, digest = place
        held = contents.children(registry, digest)
        waiting += [(registry, repository, child) for child in held]
        if contents.lacks_children(registry, digest):
            unclear.add((registry, repository))
        for tag in led_to.get(place, ()):
            kept_tags.add((registry, repository, tag.tag))
            waiting.append((registry, repository, tag.digest or ""))
    unused = [
        tag
        for tag in tags
        if (tag.registry, tag.repository, tag.tag) not in kept_tags
        and (tag.registry, tag.repository) not in unclear
    ]
    return unused, sorted({repository for _, repository in unclear})


def _freed(
    unused: Sequence[Tag], tags: Sequence[Tag], contents: Contents, used: Iterable[Image]
) -> tuple[int, int, int]:
    """Bytes of the blobs that only `unused` hold, each once in a registry.

    And how many of them, and of the other `tags`, hold what is not known.
    """
    going = {(tag.registry, tag.repository, tag.tag) for tag in unused}
    staying = [tag for tag in tags if (tag.registry, tag.repository, tag.tag) not in going]
    kept = {
        (registry, blob)
        for registry, digest in {(registry, digest) for registry, _, _, digest in used}
        | {(tag.registry, tag.digest) for tag in staying}
        for blob in contents.blobs(registry, digest)[0]
    }
    freed = {
        (tag.registry, blob): size
        for tag in unused
        for blob, size in contents.blobs(tag.registry, tag.digest)[0].items()
        if (tag.registry, blob) not in kept
    }
    unknown, maybe_shared = (
        sum(not contents.blobs(tag.registry, tag.digest)[1] for tag in some)
        for some in (unused, staying)
    )
    return add_sizes(freed.values()), unknown, maybe_shared


def _item(tag: Tag, contents: Contents) -> UnusedTag:
    blobs, is_whole = contents.blobs(tag.registry, tag.digest)
    assert tag.pushed_at is not None
    return UnusedTag(
        registry=tag.registry,
        namespace=tag.namespace,
        repository=tag.repository,
        tag=tag.tag,
        digest=tag.digest or "",
        kind=tag.kind,
        pushed_at=tag.pushed_at,
        pushed_by=tag.pushed_by,
        size=add_sizes(blobs.values()) if is_whole else None,
    )
