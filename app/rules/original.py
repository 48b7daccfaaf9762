"""What the original Registry Notification Server stored, as events. Pure.

Source: github.com/duyanghao/Registry_Notification_Server, `models/cnt.go` and `pkg/handler/`. It
took manifests of one media type, and kept neither digests nor user agents.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from app.errors import InvalidEvent
from app.rules.addresses import parse_address
from app.rules.events import (
    MAX_ACTOR_LENGTH,
    Action,
    Event,
    check_id,
    check_moment,
    event_key,
    position_at,
)
from app.rules.kinds import kind_of
from app.rules.references import namespace_of, parse_repository, parse_tag
from app.rules.text import clean_text

MEDIA_TYPE = "application/vnd.docker.distribution.manifest.v2+json"  # it refused all others
ID_PREFIX = "original-"


class Row(msgspec.Struct, frozen=True):
    """A document: its `_id` as text, the time that an ObjectId holds (UTC), and all fields."""

    id: str
    made_at: datetime | None
    fields: Mapping[str, Any]


def parse_record(row: Row, registry: str, received_at: datetime) -> Event:
    """The event of a row `{src, timestamp, action, repo: "name:tag", user}`; `user` is the actor.

    The tag is empty where somebody pulled or pushed by digest.

    Raises:
        InvalidEvent, InvalidReference: it is none.
    """
    image, src = _text(row, "repo"), _text(row, "src", optional=True)
    timestamp = row.fields.get("timestamp")
    if ":" not in image:
        raise InvalidEvent(f"repo: expected name:tag, got {image[:80]!r}")
    if not isinstance(timestamp, datetime):
        raise InvalidEvent("timestamp: is no time")
    repository, _, tag = image.rpartition(":")
    action: Action
    match _text(row, "action"):
        case "push" | "pull" as action:
            pass
        case other:
            raise InvalidEvent(f"action: expected push or pull, got {other[:40]!r}")
    event = _make_event(row, action, (registry, repository, tag), timestamp, received_at)
    actor = clean_text(_text(row, "user", optional=True), MAX_ACTOR_LENGTH)
    return msgspec.structs.replace(event, actor=actor, address=parse_address(src))


def parse_tag_row(row: Row, registry: str, received_at: datetime) -> Event:
    """The first push of the tag that a row `{user: namespace, repo, tag}` names: it made the row.

    Nobody knows any more whose it was.

    Raises:
        InvalidEvent, InvalidReference: it is none.
    """
    repository = f"{_text(row, 'user')}/{_text(row, 'repo')}"
    tag = _text(row, "tag")
    if row.made_at is None:
        raise InvalidEvent("_id: is no ObjectId, which would tell when the tag was pushed")
    return _make_event(row, "push", (registry, repository, tag), row.made_at, received_at)


def is_taken_over(event: Event) -> bool:
    """Whether an event was made of such a row."""
    return event.id.startswith(event_key(event.registry, ID_PREFIX))


def _make_event(
    row: Row, action: Action, image: tuple[str, str, str], at: datetime, received_at: datetime
) -> Event:
    """`image` is registry, repository and tag, "" for none."""
    registry, repository, tag = image
    check_id(f"{ID_PREFIX}{row.id}")
    check_moment(at, received_at)
    key = event_key(registry, f"{ID_PREFIX}{row.id}")
    return Event(
        id=key,
        registry=registry,
        action=action,
        namespace=namespace_of(parse_repository(repository)),
        repository=repository,
        tag=parse_tag(tag) if tag else None,
        tag_from="event" if tag else None,
        media_type=MEDIA_TYPE,
        kind=kind_of(MEDIA_TYPE, "", [], tag or None),
        timestamp=at.astimezone(UTC),
        position=f"{position_at(at)}-{key}",
        received_at=received_at,
    )


def _text(row: Row, name: str, *, optional: bool = False) -> str:
    value = row.fields.get(name)
    if value is None and optional:
        return ""
    if not isinstance(value, str):
        raise InvalidEvent(f"{name}: is missing" if value is None else f"{name}: is no text")
    return value
