"""Leases: of several processes, one does it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from app.store.errors import only_duplicates, translate_errors
from app.store.paging import Document

LEASE = timedelta(minutes=5)


@translate_errors
class LeaseStore:
    """Collection `leases`: `_id` the name, and who holds it until when."""

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection

    def take(self, name: str, owner: str, now: datetime, length: timedelta = LEASE) -> bool:
        """Whether `owner` now holds the lease for `length`: it was free, over, or its own."""
        return self.take_all([name], owner, now, length)

    def take_all(
        self, names: Sequence[str], owner: str, now: datetime, length: timedelta = LEASE
    ) -> bool:
        """Whether `owner` now holds all of these leases; where not, those that it could take.

        One write for all: who needs many would lose the first before it has the last.
        """
        values = {"$set": {"owner": owner, "until": now + length}}
        free = [{"until": {"$lt": now}}, {"owner": owner}]
        writes = [UpdateOne({"_id": name, "$or": free}, values, upsert=True) for name in names]
        try:
            self._collection.bulk_write(writes, ordered=False)
        except BulkWriteError as error:
            only_duplicates(error)  # raises where it is anything else
            return False
        return True

    def is_held(self, name: str, now: datetime) -> bool:
        """Whether anybody holds the lease."""
        return self._collection.find_one({"_id": name, "until": {"$gt": now}}) is not None

    def find_held(self, now: datetime) -> set[str]:
        """The names of all leases that anybody holds."""
        return {row["_id"] for row in self._collection.find({"until": {"$gt": now}}, {"_id": 1})}

    def remove(self, prefix: str, before: datetime) -> None:
        """Forget leases with names that begin so, and that were over before a time."""
        names = {"$gte": prefix, "$lt": f"{prefix}\U0010ffff"}
        self._collection.delete_many({"_id": names, "until": {"$lt": before}})

    def give_back(self, name: str, owner: str) -> None:
        """Let another one take the lease at once."""
        self._collection.delete_one({"_id": name, "owner": owner})
