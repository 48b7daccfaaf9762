"""Events that could not be understood, whole, for an administrator to retry or drop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from app.rules.events import Rejected
from app.store.errors import only_duplicates, translate_errors
from app.store.paging import Document, Page

MAX_KEPT = 10_000


@translate_errors
class RejectedStore:
    """Collection `rejected_events`: `_id` (hash of registry and content) → reason, body, time."""

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent."""
        self._collection.create_index("received_at")

    def add(self, rejected: Sequence[Rejected]) -> None:
        """Keep events, once each; beyond 10,000 the oldest make room."""
        documents = [_document(event) for event in rejected]
        for start in range(0, len(documents), 100):
            try:
                self._collection.insert_many(documents[start : start + 100], ordered=False)
            except BulkWriteError as error:
                only_duplicates(error)
        surplus = self._collection.count_documents({}) - MAX_KEPT
        if surplus > 0:
            oldest = self._collection.find({}, {"_id": 1}).sort("received_at", 1).limit(surplus)
            for document in oldest:
                self._collection.delete_one({"_id": document["_id"]})

    def find_all(self) -> Iterator[Rejected]:
        """Every kept event, oldest first."""
        for document in self._collection.find().sort("received_at", 1):
            yield _rejected(document)

    def find_page(self, *, cursor: str | None = None, limit: int = 50) -> Page[Rejected]:
        """Kept events, the newest first; `cursor` is the `next` of the page before."""
        # Of all of them their times alone: bodies may be long.
        times = self._collection.find({}, {"received_at": 1})
        keys = sorted(f"{row['received_at'].isoformat()} {row['_id']}" for row in times)
        before = [key for key in reversed(keys) if cursor is None or key < cursor]
        ids = [key.partition(" ")[2] for key in before[:limit]]
        found = {row["_id"]: row for row in self._collection.find({"_id": {"$in": ids}})}
        items = [_rejected(found[id]) for id in ids if id in found]
        return Page(items, before[limit - 1] if len(before) > limit else None)

    def find(self, event_id: str) -> Rejected | None:
        """One kept event, or None."""
        document = self._collection.find_one({"_id": event_id})
        return _rejected(document) if document else None

    def count(self) -> int:
        """How many events are kept."""
        return self._collection.count_documents({})

    def drop(self, event_id: str) -> bool:
        """Forget one event; False when it is not there."""
        return self._collection.delete_one({"_id": event_id}).deleted_count == 1


def _rejected(document: Document) -> Rejected:
    return Rejected(id=document.pop("_id"), **document)


def _document(event: Rejected) -> Document:
    document = msgspec.structs.asdict(event)
    document["_id"] = document.pop("id")
    return document
