"""Who has the bad image: everybody who pulled a digest, or what a tag pointed to for a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

import msgspec

from app.errors import NotFound
from app.store import Stores
from app.store.catalogue import CatalogueQuery, Move, SeenBy
from app.store.manifests import MAX_DEPTH
from app.store.scope import Scope


class Interval(msgspec.Struct, frozen=True):
    """A time in which a tag pointed to a digest; `until` None is now."""

    digest: str
    since: datetime
    until: datetime | None
    actor: str | None  # who moved it there; None where the viewer may not know
    seen_by: SeenBy  # a pull tells neither who did, nor when: `since` or before


class Consumer(msgspec.Struct, frozen=True, kw_only=True):
    """One who has it: an account at an address with a client, newest pull first in a list.

    `pulls` counts an index with its children once; `checks` are of a client that had it already:
    HEADs that no pull followed, and what it read back of its own push. `first` and `last` are of
    either. Others are one row for each repository where the viewer may not know from where and with
    what they pulled.
    """

    actor: str
    address: str
    client: str
    repository: str
    registry: str
    pulls: int
    checks: int
    first: datetime
    last: datetime
    user_agent: str  # of the newest


class Recall(msgspec.Struct, frozen=True):
    """`digests` are what was looked for: those asked for, and the children of indexes.

    Who pulled before `kept_since` is not known any more; None while nothing was removed.
    """

    digests: Sequence[str]
    intervals: Sequence[Interval]
    consumers: Sequence[Consumer]
    kept_since: datetime | None


def recall_digest(stores: Stores, scope: Scope, digest: str, registry: str | None = None) -> Recall:
    """Who pulled this digest, or a child of it, anywhere that the scope allows, or in one registry.

    Its children are those that registries tell where something of it may be seen.
    """
    registries = [registry] if registry else stores.catalogue.find_registries()
    telling = [name for name in registries if _is_seen(stores, scope, digest, name)]
    digests = _with_children(stores, telling, [digest])
    consumers = _find_consumers(stores, scope, digests, None, registry)
    return Recall(digests, [], consumers, stores.days.find_kept_since())


def _is_seen(stores: Stores, scope: Scope, digest: str, registry: str) -> bool:
    """Whether anything of a digest in a registry may be seen: a tag that points to it, or did, or
    an event.
    """
    query = CatalogueQuery(digest=digest, registry=registry, deleted=True)
    tags = stores.catalogue.find_tags(query, scope, limit=1).items
    return bool(tags or stores.events.find_registry(digest, scope, registry))


def recall_tag(
    stores: Stores,
    scope: Scope,
    registry: str,
    repository: str,
    tag: str,
    since: datetime | None,
    until: datetime | None,
) -> Recall:
    """Who pulled, at any time, what the tag pointed to at some moment from `since` to `until`.

    In the tag's registry and repository, by whatever name. None leaves a side open.

    Raises:
        NotFound: no such tag, or none that may be seen.
    """
    found = stores.catalogue.get_tag(registry, repository, tag, scope)
    if found is None:
        raise NotFound("There is no such tag.")
    intervals = [
        interval
        for interval in _intervals(stores.catalogue.find_history(found, scope))
        if (until is None or interval.since < until)
        and (since is None or interval.until is None or interval.until > since)
    ]
    digests = _with_children(stores, [registry], [interval.digest for interval in intervals])
    consumers = _find_consumers(stores, scope, digests, repository, registry)
    return Recall(digests, intervals, consumers, stores.days.find_kept_since())


def _intervals(history: Sequence[Move]) -> list[Interval]:
    """Newest first, as the history."""
    ends: list[datetime | None] = [None, *(move.since for move in history)]
    return [
        Interval(move.digest, move.since, end, move.actor, move.seen_by)
        for move, end in zip(history, ends, strict=False)
        if move.digest
    ]


def _with_children(stores: Stores, registries: Iterable[str], digests: Iterable[str]) -> list[str]:
    """Digests, then what they hold, the outer before the inner."""
    found = dict.fromkeys(digests)
    for registry in registries:
        level = list(found)
        for _ in range(MAX_DEPTH):
            manifests = stores.manifests.find(registry, level).values()
            named = (child for manifest in manifests for child in manifest.children)
            level = [child for child in named if child not in found]
            found |= dict.fromkeys(level)
    return list(found)


def _find_consumers(
    stores: Stores,
    scope: Scope,
    digests: Sequence[str],
    repository: str | None,
    registry: str | None,
) -> list[Consumer]:
    found: dict[tuple[str, ...], Consumer] = {}
    counted: set[str] = set()
    for event in stores.events.find_pulls(digests, scope, repository, registry):
        whole = event.part_of or event.id
        is_get = event.action == "pull"
        is_own = is_get and event.part_of is not None and event.parent is None  # of its own push
        # An index is counted, its child went with it.
        is_pull = is_get and not is_own and whole not in counted
        is_check = is_own or (event.action == "check" and not event.part_of)
        if not is_pull and not is_check:
            continue
        if is_pull:
            counted.add(whole)
        key = (event.registry, event.repository, event.actor, event.address, event.client)
        one = Consumer(
            actor=event.actor,
            address=event.address,
            client=event.client,
            repository=event.repository,
            registry=event.registry,
            pulls=int(is_pull),
            checks=int(is_check),
            first=event.timestamp,
            last=event.timestamp,
            user_agent=event.user_agent,
        )
        found[key] = _sum(found[key], one) if key in found else one
    return sorted(found.values(), key=_order, reverse=True)


def _order(row: Consumer) -> tuple[datetime, str, str, str, str, str]:
    return (row.last, row.actor, row.address, row.client, row.repository, row.registry)


def _sum(row: Consumer, other: Consumer) -> Consumer:
    return msgspec.structs.replace(
        max(row, other, key=lambda one: one.last),
        pulls=row.pulls + other.pulls,
        checks=row.checks + other.checks,
        first=min(row.first, other.first),
    )
