"""Envelopes that are accepted and not worked in yet: what a 202 promises to keep."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime

import msgspec
from bson import Binary
from pymongo.collection import Collection
from pymongo.write_concern import WriteConcern

from app.store.errors import translate_errors
from app.store.paging import Document, chunks

# A failover must not take back what was acknowledged, whatever the URI asks for.
DURABLE = WriteConcern(w="majority", j=True)


class Letter(msgspec.Struct, frozen=True):
    """One accepted envelope. `id` is ordered by the time at which it came."""

    id: str
    registry: str
    received_at: datetime  # UTC, milliseconds
    body: bytes  # the events of manifests, as they came
    failures: int = 0


@translate_errors
class InboxStore:
    """Collection `inbox`, without any index but that of `_id`."""

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection
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

    def find_oldest(self, limit: int, after: str = "", until: str = "") -> list[Letter]:
        """At most `limit` envelopes in the order in which they came.

        `after` and `until` are bounds of the id, "" leaves a side open: the embedded database
        reads all that the bounds allow, whatever the limit.
        """
        bounds = {"$gt": after, "$lte": until}
        given = {operator: value for operator, value in bounds.items() if value}
        query: Document = {"_id": given} if given else {}
        found = self._collection.find(query).sort("_id", 1).limit(limit)
        return [_letter(document) for document in found]

    def note_failure(self, letter: Letter) -> None:
        """Count that an envelope could not be worked in."""
        self._collection.update_one({"_id": letter.id}, {"$inc": {"failures": 1}})

    def remove(self, ids: Sequence[str]) -> None:
        """Forget envelopes that are worked in."""
        for chunk in chunks(ids):
            self._collection.delete_many({"_id": {"$in": chunk}})

    def size(self) -> tuple[int, int]:
        """How many envelopes wait, and their bytes, as the database keeps account of them."""
        answer = self._collection.database.command("collStats", self._collection.name)
        return int(answer["count"]), int(answer["size"])


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
