"""The tags that a registry has now, as if their pushes were seen now."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from app.errors import InvalidReference
from app.migration.crawler import find_repositories
from app.registry import RegistryClient, RegistryError
from app.rules.events import Descriptor, Event, event_key, position_at
from app.rules.kinds import INDEX_TYPES
from app.rules.references import digest_tag_kind, namespace_of, parse_tag
from app.store.migrations import present

logger = logging.getLogger(__name__)


def find_pushes(client: RegistryClient, registry: str) -> Iterator[Event]:
    """A push of every tag, at the time at which it was looked at: nobody knows the true one.

    So an event of a later push wins over it, and one of an earlier push does not.
    """
    for repository, _ in find_repositories(client):
        try:
            tags = client.tags(repository)
        except InvalidReference as error:
            logger.warning("%s: %s", client.url, error)
            continue
        for tag in tags:
            seen_at = present()
            try:
                manifest = client.head_manifest(repository, parse_tag(tag))
            except RegistryError as error:
                if error.error_class != "gone":
                    raise
                continue  # deleted meanwhile
            yield make_push(registry, repository, tag, manifest, seen_at)


def make_push(
    registry: str, repository: str, tag: str, manifest: Descriptor, seen_at: datetime
) -> Event:
    """A push of what a tag points to, as it was asked for at `seen_at`."""
    is_index = manifest.media_type in INDEX_TYPES
    return _make_event(
        registry,
        repository,
        tag,
        seen_at,
        action="push",
        digest=manifest.digest,
        media_type=manifest.media_type,
        kind=digest_tag_kind(tag) or ("index" if is_index else "image"),
        size=manifest.size or None,
    )


def make_delete(registry: str, repository: str, tag: str, seen_at: datetime) -> Event:
    """A delete of a tag that the registry had no more when it was asked at `seen_at`."""
    return _make_event(registry, repository, tag, seen_at, action="delete")


def _make_event(
    registry: str, repository: str, tag: str, seen_at: datetime, **fields: Any
) -> Event:
    key = event_key(registry, f"{fields['action']} seen {repository}:{tag} {seen_at.isoformat()}")
    return Event(
        id=key,
        registry=registry,
        namespace=namespace_of(repository),
        repository=repository,
        tag=tag,
        tag_from="event",
        timestamp=seen_at,
        position=f"{position_at(seen_at)}-{key}",
        received_at=seen_at,
        **fields,
    )
