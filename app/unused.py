"""Which tags nobody used for some days: read-only, and careful about what could not be seen."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta

import msgspec

from app.events import CLIENTS
from app.references import digest_tag_subject
from app.store import Stores
from app.store.catalogue import CatalogueQuery, Manifest, Tag
from app.store.scope import Scope
from app.store.usage import Image, UsageQuery

# Pulls by these do not mean that anybody runs the image.
USERS = tuple(client for client in CLIENTS if client not in ("scanner", "mirror"))

Place = tuple[str, str, str]  # registry, repository, and a tag or digest


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


class Report(msgspec.Struct, frozen=True):
    """The unused tags that one viewer may see, by repository and tag.

    `since` is the moment from which a use would have counted. Tags of registries in `too_new`
    (name → when their tags can be called unused) are not judged, and none at all while days in
    `missing` are being prepared. `freed` adds up each blob once that only unused tags hold,
    `unknown` is the number of tags whose blobs are not known.
    """

    since: datetime
    tags: Sequence[UnusedTag]
    freed: int
    unknown: int
    too_new: Mapping[str, datetime]
    missing: Sequence[date]


def find_unused(
    stores: Stores,
    scope: Scope,
    days: int,
    now: datetime,
    *,
    clients: Collection[str] = USERS,
    registry: str | None = None,
    namespace: str | None = None,
    repository: str | None = None,
) -> Report:
    """The tags that were neither pushed nor pulled in the last `days` days, nor are needed.

    A tag is needed whose digest was pulled in its repository, also by another tag or by digest,
    or is the child of an index that was, or is an index with such a child; a signature, or list of
    referrers, while its subject is needed. Checks are no use. Only pulls by `clients` (classes)
    count.
    """
    calendar = stores.usage.calendar
    first = calendar.day_of(now) - timedelta(days=days)
    since = calendar.start_of(first)
    query = UsageQuery(
        first=first, last=calendar.day_of(now), registry=registry, clients=frozenset(clients)
    )
    pulled, missing = stores.usage.find_pulled(query, scope, now)
    tags = list(_all_tags(stores, scope, registry))
    known = stores.usage.find_known_since()
    too_new = {
        name: since_when + timedelta(days=days)
        for name in {tag.registry for tag in tags}
        if (since_when := known.get(name, calendar.end_of(query.last))) > since
    }
    judged = [tag for tag in tags if tag.registry not in too_new and tag.digest]
    if missing:
        return Report(since, [], 0, 0, too_new, missing)
    manifests = _find_manifests(stores, judged, pulled)
    needed = _find_needed(judged, manifests, pulled, since)
    unused = _without_need(judged, manifests, needed)
    chosen = [
        tag
        for tag in unused
        if namespace in (None, tag.namespace) and repository in (None, tag.repository)
    ]
    freed, unknown = _freed(chosen, judged, manifests, pulled)
    items = [_item(tag, manifests) for tag in chosen]
    return Report(since, items, freed, unknown, too_new, missing)


def _all_tags(stores: Stores, scope: Scope, registry: str | None) -> Iterable[Tag]:
    cursor: str | None = None
    while True:
        page = stores.catalogue.find_tags(
            CatalogueQuery(registry=registry), scope, cursor=cursor, limit=500
        )
        yield from page.items
        cursor = page.next
        if cursor is None:
            return


def _find_manifests(
    stores: Stores, tags: Iterable[Tag], pulled: Iterable[Image]
) -> dict[str, Manifest]:
    """What the tags point to, what was pulled though no tag does any more, and the children."""
    digests = {tag.digest for tag in tags} | {digest for *_, digest in pulled}
    found = stores.catalogue.find_manifests(digest for digest in digests if digest)
    children = {
        reference.digest
        for manifest in found.values()
        if manifest.kind == "index"
        for reference in manifest.references
    }
    return found | stores.catalogue.find_manifests(children - found.keys())


def _find_needed(
    tags: Sequence[Tag], manifests: Mapping[str, Manifest], pulled: Iterable[Image], since: datetime
) -> set[Place]:
    """The digests, by repository, that were pulled or that tags in use point to, with children."""
    pulled_tags = {(registry, repository, tag) for registry, repository, tag, _ in pulled}
    needed = {(registry, repository, digest or "") for registry, repository, _, digest in pulled}
    for tag in tags:
        is_young = tag.pushed_at is None or tag.pushed_at >= since
        if is_young or (tag.registry, tag.repository, tag.tag) in pulled_tags:
            needed.add((tag.registry, tag.repository, tag.digest or ""))
    for registry, repository, digest in list(needed):
        needed.update((registry, repository, child) for child in _children(digest, manifests))
    return needed


def _without_need(
    tags: Sequence[Tag], manifests: Mapping[str, Manifest], needed: set[Place]
) -> list[Tag]:
    """Those whose digest is not needed, nor a child of it, nor what a signature is about."""
    kept: set[Place] = set(needed)
    unused = []
    for tag in tags:
        parts = (tag.digest or "", *_children(tag.digest or "", manifests))
        places = {(tag.registry, tag.repository, digest) for digest in parts}
        if places & needed:
            kept |= places
        else:
            unused.append(tag)
    return [
        tag
        for tag in unused
        if (tag.registry, tag.repository, digest_tag_subject(tag.tag)) not in kept
    ]


def _children(digest: str, manifests: Mapping[str, Manifest]) -> list[str]:
    manifest = manifests.get(digest)
    if manifest is None or manifest.kind != "index":
        return []
    return [reference.digest for reference in manifest.references]


def _blobs(digest: str, manifests: Mapping[str, Manifest]) -> dict[str, int] | None:
    """Size by digest of all that a manifest holds, or None where that is not known whole."""
    manifest = manifests.get(digest)
    if manifest is None or not manifest.references:
        return None
    if manifest.kind != "index":
        return {reference.digest: reference.size for reference in manifest.references}
    blobs: dict[str, int] = {}
    for child in _children(digest, manifests):
        of_child = _blobs(child, manifests) if child != digest else None
        if of_child is None:
            return None
        blobs |= of_child
    return blobs


def _freed(
    unused: Sequence[Tag],
    tags: Sequence[Tag],
    manifests: Mapping[str, Manifest],
    pulled: Iterable[Image],
) -> tuple[int, int]:
    """Bytes of the blobs that only `unused` hold, each once in a registry; tags without a size."""
    going = {(tag.registry, tag.repository, tag.tag) for tag in unused}
    kept: set[tuple[str, str]] = set()
    used = {(registry, digest) for registry, _, _, digest in pulled}
    staying = {
        (tag.registry, tag.digest)
        for tag in tags
        if (tag.registry, tag.repository, tag.tag) not in going
    }
    for registry, digest in staying | used:
        kept.update((registry, blob) for blob in _blobs(digest or "", manifests) or ())
    freed: dict[tuple[str, str], int] = {}
    unknown = 0
    for tag in unused:
        blobs = _blobs(tag.digest or "", manifests)
        unknown += blobs is None
        for blob, size in (blobs or {}).items():
            if (tag.registry, blob) not in kept:
                freed[tag.registry, blob] = size
    return sum(freed.values()), unknown


def _item(tag: Tag, manifests: Mapping[str, Manifest]) -> UnusedTag:
    blobs = _blobs(tag.digest or "", manifests)
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
        size=None if blobs is None else sum(blobs.values()),
    )
