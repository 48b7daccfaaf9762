"""Envelopes that are accepted and not worked in yet: what a 202 promises to keep."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime

import msgspec
from bson import Binary
from pymongo import DeleteMany
from pymongo.collection import Collection
from pymongo.write_concern import WriteConcern

from app.store.errors import translate_errors
from app.store.paging import Document

# A failover must not take back what was acknowledged, whatever the URI asks for. Where no majority
# is left, a write is not waited for for ever.
DURABLE = WriteConcern(w="majority", j=True, wtimeout=10_000)


class Letter(msgspec.Struct, frozen=True):
    """One accepted envelope. `id` is ordered by the time at which it came."""

    id: str
    registry: str
    received_at: datetime  # UTC, milliseconds
    body: bytes  # the events of manifests, as they came
    failures: int = 0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the projector is. What came before `until` (UTC) is worked in.

    `batch_s` is what the newest batch took, `lag_s` how long its oldest envelope had waited when it
    was worked in.
    """

    until: datetime
    batch_s: float = 0.0
    lag_s: float = 0.0

    def seconds_behind(self, now: datetime) -> float:
        """How long ago came what is worked in last; about a second where nothing waits."""
        return (now - self.until).total_seconds()


@translate_errors
class InboxStore:
    """Collection `inbox`, without any index but that of `_id`; how far it is, in `progress`."""

    def __init__(self, collection: Collection[Document], progress: Collection[Document]) -> None:
        self._collection = collection
        self._progress = progress
        self._durable = collection.with_options(write_concern=DURABLE)

    def add(self, registry: str, body: bytes, received_at: datetime) -> None:
        """Keep one envelope; when this returns it is durable."""
        self._durable.insert_one(
            {
                "_id": f"{id_at(received_at)}-{secrets.token_hex(6)}",
                "registry": registry,
                "received_at": received_at,
                "body": Binary(body),
            }
        )

    def find_oldest(self, limit: int, max_bytes: int) -> list[Letter]:
        """At most `limit` envelopes in the order in which they came, and not much over `max_bytes`.

        The embedded database reads the whole inbox for it: ask for many, and seldom.
        """
        found: list[Letter] = []
        size = 0
        with self._collection.find({}).sort("_id", 1).limit(limit) as cursor:
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

    def note_progress(self, progress: Progress) -> None:
        """Note how far the projector is."""
        document = msgspec.structs.asdict(progress)
        self._progress.update_one({"_id": "inbox"}, {"$set": document}, upsert=True)

    def find_progress(self) -> Progress | None:
        """How far the projector is; None where it never ran."""
        document = self._progress.find_one({"_id": "inbox"})
        if document is None:
            return None
        return Progress(**{name: document[name] for name in Progress.__struct_fields__})

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


def _letter(document: Document) -> Letter:
    return Letter(
        document["_id"],
        document["registry"],
        document["received_at"],
        bytes(document["body"]),
        document.get("failures", 0),
    )
