"""Which repositories of a target have a blob: hints only, they may be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from app.store.errors import only_duplicates, translate_errors
from app.store.paging import Document

BLOB_KEPT = timedelta(days=7)
BLOB_REPOSITORIES = 3  # candidates for a mount that are remembered of one blob


@translate_errors
class BlobStore:
    """Where blobs of the targets were seen, for a week."""

    def __init__(self, database: Database[Document]) -> None:
        self._blobs: Collection[Document] = database["migration_blobs"]

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent."""
        self._blobs.create_index("seen", expireAfterSeconds=int(BLOB_KEPT.total_seconds()))

    def find_repositories(self, target: str, digests: Sequence[str]) -> dict[str, list[str]]:
        """Repositories of the target that had these blobs, at most three of each."""
        found: dict[str, list[str]] = {}
        for start in range(0, len(digests), 100):
            keys = [f"{target} {digest}" for digest in digests[start : start + 100]]
            for row in self._blobs.find({"_id": {"$in": keys}}):
                found[row["_id"].rpartition(" ")[2]] = row["repositories"]
        return found

    def add(self, target: str, digests: Sequence[str], repository: str, now: datetime) -> None:
        """Remember that a repository of the target has these blobs."""
        for start in range(0, len(digests), 100):
            updates = [
                UpdateOne(
                    {"_id": f"{target} {digest}"},
                    {
                        "$set": {"seen": now},
                        "$push": {
                            "repositories": {"$each": [repository], "$slice": -BLOB_REPOSITORIES}
                        },
                    },
                    upsert=True,
                )
                for digest in digests[start : start + 100]
            ]
            try:
                self._blobs.bulk_write(updates, ordered=False)
            except BulkWriteError as error:
                only_duplicates(error)  # another thread made the same row: it is as good
