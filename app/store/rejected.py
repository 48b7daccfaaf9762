"""Events that could not be understood, whole, for an administrator to retry or drop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from app.rules.events import Rejected
from app.store.errors import only_duplicates, translate_errors
from app.store.paging import Document

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
            yield Rejected(id=document.pop("_id"), **document)

    def count(self) -> int:
        """How many events are kept."""
        return self._collection.count_documents({})

    def drop(self, event_id: str) -> bool:
        """Forget one event; False when it is not there."""
        return self._collection.delete_one({"_id": event_id}).deleted_count == 1


def _document(event: Rejected) -> Document:
    document = msgspec.structs.asdict(event)
    document["_id"] = document.pop("id")
    return document
