"""What the catalogue tells: repositories, tags, and the moves of a tag."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """A known repository. `pushed_at` is None when only pulls of it were seen."""

    registry: str
    namespace: str
    repository: str
    pushed_at: datetime | None = None
    deleted: bool = False


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """What a tag points to; `digest` is None when it was deleted before any push was seen."""

    registry: str
    namespace: str
    repository: str
    tag: str
    digest: str | None = None
    media_type: str = ""
    kind: str = "image"
    pushed_at: datetime | None = None
    pushed_by: str = ""
    deleted: bool = False
    deleted_at: datetime | None = None


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a tag: from `since` on it pointed to `digest`, or was gone (None)."""

    digest: str | None
    since: datetime
    actor: str = ""
