"""What the catalogue tells: repositories, tags, and the moves of a tag."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

SeenBy = Literal["push", "pull"]


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """A known repository. `pushed_at` is None when only pulls of it were seen."""

    registry: str
    namespace: str
    repository: str
    pushed_at: datetime | None = None
    deleted: bool = False


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """What a tag points to; `digest` is None when it was deleted before any push was seen.

    Where no push or delete of it was seen it is known by pull: `digest` is that of the newest, and
    `seen_at` when this digest was first seen under the tag. `pushed_by` is "" too where the viewer
    may not know who it was.
    """

    registry: str
    namespace: str
    repository: str
    tag: str
    digest: str | None = None
    media_type: str = ""
    kind: str = "image"
    pushed_at: datetime | None = None
    pushed_by: str = ""
    seen_by: SeenBy = "push"
    seen_at: datetime | None = None
    deleted: bool = False
    deleted_at: datetime | None = None


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a tag: from `since` on it pointed to `digest`, or was gone (None).

    One that is seen by a pull happened at `since` or before, by nobody knows whom. `actor` is None
    where the viewer may not know who it was.
    """

    digest: str | None
    since: datetime
    actor: str | None = ""
    seen_by: SeenBy = "push"


class Repointed(NamedTuple):
    """From `position` on the answer to which tags point to `digest` there is another one."""

    registry: str
    repository: str  # its name at that time
    digest: str
    position: str
