"""Which worker processes are alive."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from pymongo.collection import Collection
from pymongo.database import Database

from app.store.errors import translate_errors
from app.store.migrations.documents import fields_from
from app.store.migrations.values import LEASE, WorkerBeat
from app.store.paging import Document

WORKER_KEPT = timedelta(seconds=60)


@translate_errors
class WorkerStore:
    """The worker processes, by their signs of life."""

    def __init__(self, database: Database[Document]) -> None:
        self._workers: Collection[Document] = database["migration_workers"]

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent."""
        self._workers.create_index("beat", expireAfterSeconds=int(WORKER_KEPT.total_seconds()))

    def beat(self, worker: WorkerBeat) -> None:
        """Say that a worker process is alive."""
        fields = msgspec.structs.asdict(worker)
        self._workers.update_one({"_id": worker.name}, {"$set": fields}, upsert=True)

    def leave(self, name: str) -> None:
        """Say that a worker process ends."""
        self._workers.delete_one({"_id": name})

    def find(self, now: datetime) -> list[WorkerBeat]:
        """The worker processes that are alive, by name."""
        rows = self._workers.find({"beat": {"$gt": now - LEASE}}).sort("_id", 1)
        return [WorkerBeat(**fields_from(WorkerBeat, row)) for row in rows]
