"""Envelopes that are accepted and not worked in yet: what a 202 promises to keep."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from bson import Binary
from pymongo import DeleteMany, UpdateOne
from pymongo.collection import Collection
from pymongo.cursor import Cursor
from pymongo.write_concern import WriteConcern

from app.rules.events import join_events
from app.rules.shares import WHOLE, Share
from app.store.errors import translate_errors
from app.store.paging import Document

# A failover must not take back what was acknowledged, whatever the URI asks for. Where no majority
# is left, a write is not waited for for ever.
DURABLE = WriteConcern(w="majority", j=True, wtimeout=10_000)
NO_EVENTS = join_events([])


class Letter(msgspec.Struct, frozen=True):
    """One accepted envelope, or what of it is one share's. `id` is ordered by when it came.

    Without events but with `digests` it is from one projector to another: look again at what names
    these manifests of the registry.
    """

    id: str
    registry: str
    received_at: datetime  # UTC, milliseconds
    body: bytes  # the events of manifests, as they came
    failures: int = 0
    digests: Sequence[str] = ()


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the projector is. What came before `until` (UTC) is worked in.

    `batch_s` is what the newest batch took, `lag_s` how long its oldest envelope had waited when it
    was worked in, and 0 once nothing waits. There are `of` projectors, and of all three this is the
    worst.
    """

    until: datetime
    batch_s: float = 0.0
    lag_s: float = 0.0
    of: int = 1

    def seconds_behind(self, now: datetime) -> float:
        """How long ago came what is worked in last; about a second where nothing waits."""
        return (now - self.until).total_seconds()


@translate_errors
class InboxStore:
    """Collection `inbox`; how far each projector is, in `progress`.

    With one projector it has no index but that of `_id`. With several each letter says which share
    it is, and of how many; one that does not concerns them all.
    """

    def __init__(
        self,
        collection: Collection[Document],
        progress: Collection[Document],
        *,
        is_embedded: bool,
    ) -> None:
        self._collection = collection
        self._is_embedded = is_embedded
        self._progress = progress
        self._durable = collection.with_options(write_concern=DURABLE)

    def add(self, registry: str, body: bytes, received_at: datetime) -> None:
        """Keep one envelope; when this returns it is durable."""
        self._durable.insert_one(_document(registry, body, received_at))

    def add_divided(
        self, registry: str, bodies: Mapping[Share, bytes], received_at: datetime
    ) -> None:
        """Keep one envelope by shares, in one write; where this fails a part may be kept."""
        self._durable.insert_many(
            [
                _document(registry, body, received_at) | {"share": share.number, "of": share.of}
                for share, body in bodies.items()
            ]
        )

    def tell_others(self, registry: str, digests: Iterable[str], share: Share) -> None:
        """Have all shares but this look again at what names these manifests."""
        now = datetime.now(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        told = {"digests": sorted(digests), "of": share.of}
        others = (number for number in range(share.of) if number != share.number)
        self._durable.insert_many(
            [_document(registry, NO_EVENTS, now) | told | {"share": number} for number in others]
        )

    def ensure_indexes(self, of: int) -> None:
        """Create what `of` projectors need to find their own; idempotent.

        Not in the embedded database: it hides documents where it is killed while it builds one.
        """
        if of > 1 and not self._is_embedded:
            self._collection.create_index([("of", 1), ("share", 1), ("_id", 1)])

    def find_oldest(self, limit: int, max_bytes: int, share: Share = WHOLE) -> list[Letter]:
        """At most `limit` envelopes in the order in which they came, and not much over `max_bytes`.

        Those of one share only, if that is not the whole. The embedded database reads the whole
        inbox for it: ask for many, and seldom.
        """
        query = {} if share == WHOLE else {"of": share.of, "share": share.number}
        return self._read(self._collection.find(query).sort("_id", 1).limit(limit), max_bytes)

    def find_common(self, limit: int, max_bytes: int, of: int) -> list[Letter]:
        """As `find_oldest`, but in no order: what is not the share of one of `of` projectors."""
        return self._read(self._collection.find({"of": {"$ne": of}}).limit(limit), max_bytes)

    def _read(self, found_by: Cursor[Document], max_bytes: int) -> list[Letter]:
        found: list[Letter] = []
        size = 0
        with found_by as cursor:
            for document in cursor:
                found.append(_letter(document))
                size += len(found[-1].body)
                if size > max_bytes:
                    break
        return found

    def note_failure(self, letter: Letter) -> None:
        """Count that an envelope could not be worked in."""
        self._collection.update_one({"_id": letter.id}, {"$inc": {"failures": 1}})

    def remove(self, ids: Sequence[str]) -> None:
        """Forget envelopes that are worked in."""
        # On the embedded database longer lists of ids cost more for each.
        writes = [DeleteMany({"_id": {"$in": ids[at : at + 10]}}) for at in range(0, len(ids), 10)]
        for at in range(0, len(writes), 10):
            self._collection.bulk_write(writes[at : at + 10], ordered=False)

    def note_progress(self, progress: Progress, share: Share = WHOLE, of: int = 1) -> None:
        """Note how far the projector of a share is; of the whole, that each of `of` is so far."""
        # The first of all is noted last: it says how many count.
        shares = [Share(number, of) for number in reversed(range(of))]
        document = msgspec.structs.asdict(progress)
        self._progress.bulk_write(
            [
                UpdateOne(
                    {"_id": _progress_key(one.number)},
                    {"$set": document | {"of": one.of}},
                    upsert=True,
                )
                for one in (shares if share == WHOLE else [share])
            ]
        )

    def find_progress(self) -> Progress | None:
        """How far the projectors are; None where none ever ran."""
        rows = {row["_id"]: row for row in self._progress.find({})}
        if not (first := rows.get(_progress_key(0))):
            return None
        of = first.get("of", 1)
        keys = map(_progress_key, range(of))
        own = [row for key in keys if (row := rows.get(key))]
        return Progress(
            until=min(row["until"] for row in own),
            batch_s=max(row["batch_s"] for row in own),
            lag_s=max(row["lag_s"] for row in own),
            of=of,
        )

    def divide(self, of: int, now: datetime) -> None:
        """Let progress be that of `of` projectors: none is further than all were before."""
        progress = self.find_progress()
        if progress is None:
            waiting = self.find_oldest(1, 1)
            progress = Progress(until=waiting[0].received_at if waiting else now)
        self.note_progress(progress, of=of)

    def find_newest(self) -> datetime | None:
        """When the newest envelope that waits came (UTC, milliseconds); None where none waits."""
        fields = {"received_at": 1}
        document = self._collection.find_one({}, fields, sort=[("_id", -1)])
        return document["received_at"] if document else None

    def count(self) -> int:
        """About how many envelopes wait."""
        return self._collection.estimated_document_count()

    def size(self) -> int:
        """The bytes that wait, as the database keeps account of them."""
        answer = self._collection.database.command("collStats", self._collection.name)
        return int(answer["size"])


def id_at(moment: datetime) -> str:
    """The lower bound of the ids of all envelopes that came at or after `moment` (aware)."""
    return f"{int(moment.timestamp() * 1_000_000):017d}"


def _progress_key(number: int) -> str:
    return f"inbox {number}" if number else "inbox"


def _document(registry: str, body: bytes, received_at: datetime) -> Document:
    return {
        "_id": f"{id_at(received_at)}-{secrets.token_hex(6)}",
        "registry": registry,
        "received_at": received_at,
        "body": Binary(body),
    }


def _letter(document: Document) -> Letter:
    return Letter(
        document["_id"],
        document["registry"],
        document["received_at"],
        bytes(document["body"]),
        document.get("failures", 0),
        document.get("digests", ()),
    )
