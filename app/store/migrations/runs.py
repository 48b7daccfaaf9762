"""Crawls and verifications, and the differences that these found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec
from pymongo import ReturnDocument, UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from app.store.errors import translate_errors
from app.store.migrations.documents import count_capped, fields_from, query_of
from app.store.migrations.values import LEASE, Drift, DriftKind, Run, RunKind, job_key
from app.store.paging import Count, Document, Page

HISTORY_KEPT = timedelta(days=365)


@translate_errors
class RunStore:
    """The last run of each kind of each plan, and the differences that are known."""

    def __init__(self, database: Database[Document]) -> None:
        self._runs: Collection[Document] = database["migration_runs"]
        self._drift: Collection[Document] = database["migration_drift"]
        self._history: Collection[Document] = database["migration_history"]

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent."""
        self._drift.create_index([("plan", 1), ("_id", 1)])
        kept_s = int(HISTORY_KEPT.total_seconds())
        self._history.create_index("started_at", expireAfterSeconds=kept_s)

    def get(self, plan: str, kind: RunKind) -> Run | None:
        """The last crawl or verification of a plan, or None if there was none."""
        document = self._runs.find_one({"_id": f"{plan} {kind}"})
        return Run(**fields_from(Run, document)) if document else None

    def begin(
        self,
        plan: str,
        kind: RunKind,
        owner: str,
        now: datetime,
        *,
        deep: bool = False,
        hashed: bool = False,
        part: str = "",
    ) -> Run | None:
        """Lease the run of a plan: a crawl that was interrupted, or a new one; None if it is held.

        A verification is always a new one: the interrupted one may have been of another part.
        """
        key = f"{plan} {kind}"
        last = self._runs.find_one({"_id": key})
        before = Run(**fields_from(Run, last)) if last else None
        lease = {"owner": owner, "lease_until": now + LEASE}
        expired = {"_id": key, "state": "running", "lease_until": {"$lt": now}}
        is_interrupted = last is not None and last["state"] == "running"
        if is_interrupted and kind == "crawl":
            taken = self._runs.find_one_and_update(
                expired, {"$set": lease}, return_document=ReturnDocument.AFTER
            )
            return Run(**fields_from(Run, taken)) if taken else None
        run = Run(
            plan=plan,
            kind=kind,
            started_at=now,
            tags_before=(before.tags_before if before.is_short else before.tags) if before else 0,
            deep=deep,
            hashed=hashed,
            part=part,
        )
        fields = msgspec.structs.asdict(run) | lease
        if is_interrupted:
            return run if self._runs.update_one(expired, {"$set": fields}).matched_count else None
        try:
            began = self._runs.update_one(
                {"_id": key, "state": {"$ne": "running"}}, {"$set": fields}, upsert=True
            )
        except DuplicateKeyError:
            return None
        return run if began.matched_count or began.upserted_id else None

    def save(self, run: Run, owner: str, now: datetime) -> bool:
        """Keep how far a run is and extend its lease; False when another worker has it."""
        fields = msgspec.structs.asdict(run) | {"lease_until": now + LEASE}
        query = {"_id": f"{run.plan} {run.kind}", "owner": owner}
        return self._runs.update_one(query, {"$set": fields}).matched_count > 0

    def end(self, run: Run, owner: str, now: datetime) -> bool:
        """Record that a run is complete; False when another worker has it."""
        ended = msgspec.structs.replace(run, state="done", finished_at=now, message="")
        is_ours = self.save(ended, owner, now)
        if is_ours:
            self._remember(ended)
            is_deep = ended.kind == "verify" and ended.deep
            if is_deep and ended.settles(self.get(run.plan, "deep")):
                fields = msgspec.structs.asdict(ended)
                self._runs.update_one({"_id": f"{run.plan} deep"}, {"$set": fields}, upsert=True)
        return is_ours

    def renew(self, run: Run, owner: str, now: datetime) -> None:
        """Extend the lease of a run that is under way."""
        query = {"_id": f"{run.plan} {run.kind}", "owner": owner, "state": "running"}
        self._runs.update_one(query, {"$set": {"lease_until": now + LEASE}})

    def release(self, run: Run, owner: str, now: datetime, why: str) -> None:
        """Let another worker go on with a run that is not complete; `why` is what stopped it."""
        query = {"_id": f"{run.plan} {run.kind}", "owner": owner, "state": "running"}
        released = {"lease_until": now - LEASE, "message": why}
        if self._runs.update_one(query, {"$set": released}).matched_count and why:
            stopped = self.get(run.plan, run.kind)
            self._remember(stopped or run)

    def _remember(self, run: Run) -> None:
        key = {"_id": f"{run.plan} {run.kind} {run.started_at.isoformat()}"}
        self._history.update_one(key, {"$set": msgspec.structs.asdict(run)}, upsert=True)

    def find_history(self, plan: str, limit: int = 50) -> list[Run]:
        """The runs that ended or were stopped, of all kinds, newest first; kept for a year.

        One that went on after it was stopped is one.
        """
        rows = self._history.find({"plan": plan}).sort("started_at", -1).limit(limit)
        return [Run(**fields_from(Run, row)) for row in rows]

    def set_ranking(self, plan: str, repositories: Sequence[str]) -> None:
        """Keep with which repositories the crawl of a plan begins, and in which order."""
        fields = {"plan": plan, "repositories": list(repositories)}
        self._runs.update_one({"_id": f"{plan} ranking"}, {"$set": fields}, upsert=True)

    def get_ranking(self, plan: str) -> list[str]:
        """With which repositories the crawl of a plan begins."""
        document = self._runs.find_one({"_id": f"{plan} ranking"})
        return document["repositories"] if document else []

    # Drift

    def set_drift(
        self, plan: str, rows: Iterable[Drift], *, kept: Sequence[DriftKind] = ()
    ) -> None:
        """Replace the differences that are known of a plan, but those of the kinds `kept`."""
        self._drift.delete_many({"plan": plan, "kind": {"$nin": list(kept)}})
        self.add_drift(plan, rows)

    def add_drift(self, plan: str, rows: Iterable[Drift]) -> None:
        """Add to the differences that are known of a plan; idempotent."""
        writes = [
            UpdateOne(
                {"_id": f"{job_key(plan, row.repository, row.reference)} {row.kind}"},
                {"$set": msgspec.structs.asdict(row)},
                upsert=True,
            )
            for row in rows
        ]
        for start in range(0, len(writes), 100):
            self._drift.bulk_write(writes[start : start + 100], ordered=False)

    def find_drift(
        self, plan: str, *, cursor: str | None = None, limit: int = 50, **filters: str
    ) -> Page[Drift]:
        """The differences that the last verification found, by repository and reference.

        `filters` are fields and their exact values, "" leaves one out.
        """
        query = {**query_of(plan, filters), "_id": {"$gt": cursor or ""}}
        documents = list(self._drift.find(query).sort("_id", 1).limit(limit + 1))
        rows = [Drift(**fields_from(Drift, document)) for document in documents[:limit]]
        return Page(rows, documents[limit - 1]["_id"] if len(documents) > limit else None)

    def count_drift(self, plan: str, *, cap: int, **filters: str) -> Count:
        """How many differences `find_drift` finds, exact up to `cap`."""
        return count_capped(self._drift, query_of(plan, filters), cap)
