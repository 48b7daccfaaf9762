"""The queue of jobs: what is wished for, who works on it, and what became of it.

A job says "make this reference of this repository at the target what it is at the source now": it
is wanted again and again, and carried out once for any number of wishes that came before it was
begun.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

import msgspec
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from app.rules.sizes import MAX_CONTENT_SIZE
from app.store.clock import present
from app.store.errors import only_duplicates, translate_errors
from app.store.migrations.documents import count_capped, fields_from, query_of
from app.store.migrations.plans import PlanStore
from app.store.migrations.values import (
    BACKFILL,
    LEASE,
    LIVE,
    Attempt,
    AuditRow,
    Job,
    JobCount,
    JobState,
    Outcome,
    Wish,
    job_key,
)
from app.store.migrations.wishes import new_job, updates_of
from app.store.paging import Count, Document, Page

BULK = 50  # wishes in one command; each is two to four updates
UPSERT_TRIES = 3
MAX_LOG = 20  # runs of a job
MAX_LISTS = 20  # digests of a list that is written again for each entry


@translate_errors
class JobStore:
    """The jobs of all plans; what a person changes of them goes into the audit of `plans`."""

    def __init__(self, database: Database[Document], plans: PlanStore) -> None:
        self._jobs: Collection[Document] = database["migration_jobs"]
        self._plans = plans

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent. The ranged key is always the last one."""
        self._jobs.create_index([("plan", 1), ("state", 1), ("priority", 1), ("due", 1)])
        self._jobs.create_index([("plan", 1), ("wished_at", 1)])
        self._jobs.create_index([("plan", 1), ("finished_at", 1)])

    # Wishes: what begins or repeats a job

    def wish(self, wishes: Sequence[Wish], now: datetime) -> None:
        """Have each reference looked at, once more if that is under way or over.

        Idempotent but for the repetition; one command for one wish, three at most for each 50. Ten
        wishes for a job that nobody has begun are one.
        """
        for start in range(0, len(wishes), BULK):
            batch = wishes[start : start + BULK]
            # A push must not take long on its way. Of what a crawl finds most is new, and to upsert
            # that costs the embedded database five times as much as to insert it.
            again = batch if len(batch) == 1 else self._insert(batch, now)
            updates = [update for wish in again for update in updates_of(wish, now)]
            for left in reversed(range(UPSERT_TRIES if updates else 0)):
                try:
                    self._jobs.bulk_write(updates, ordered=True)
                    break
                except BulkWriteError as error:
                    # Two processes made the same job at the same moment: once more, as an update.
                    if not left or not only_duplicates(error):
                        raise

    def _insert(self, wishes: Sequence[Wish], now: datetime) -> list[Wish]:
        """Make the jobs that nobody wished for before; returns the other wishes."""
        keys = [job_key(wish.plan, wish.repository, wish.reference) for wish in wishes]
        known = {row["_id"] for row in self._jobs.find({"_id": {"$in": keys}}, {"_id": 1})}
        again: list[Wish] = []
        new: dict[str, Wish] = {}
        for key, wish in zip(keys, wishes, strict=True):
            if key in known or key in new:
                again.append(wish)
            else:
                new[key] = wish
        if new:
            rows = [
                {"_id": key, "generation": 1, "priority": wish.priority, "wished_at": now}
                | ({"broken": True} if wish.broken else {})
                | new_job(wish, now)
                for key, wish in new.items()
            ]
            try:
                self._jobs.insert_many(rows, ordered=False)
            except BulkWriteError as error:  # another process made the same job at this moment
                made = list(new.values())
                again += [made[index] for index in only_duplicates(error)]
        return again

    def retry(self, plan: str, who: str, now: datetime, **filters: str) -> int:
        """Begin dead and conflicting jobs of a plan anew, a skipped one by its id; says how many.

        `filters` are fields and their values: `id`, `error_class`, `state`.
        """
        states = ["dead", "conflict", *(["skipped"] if filters.get("id") else [])]
        query = query_of(plan, filters, state={"$in": states})
        begun = {"state": "pending", "attempts": 0, "due": now, "wanted_at": now, "wished_at": now}
        update = {"$set": begun}
        number = self._jobs.update_many(query, update).modified_count
        if number:
            of = ", ".join(f"{key} {value}" for key, value in filters.items() if value) or "all"
            what = f"retry {of}: {number} jobs"
            self._plans.add_audit(AuditRow(plan=plan, who=who, what=what, at=now))
        return number

    def waive(self, plan: str, who: str, key: str, now: datetime) -> bool:
        """Leave a job out until its reference is pushed again; False if it runs or is none."""
        query = {"_id": key, "plan": plan, "state": {"$ne": "running"}}
        over = {"state": "skipped", "result": "waived", "finished_at": now, "gone_at": None}
        # Counted as a wish: a worker that found the job before must not claim it as it was.
        update = {"$set": over, "$inc": {"generation": 1}}
        is_waived = self._jobs.update_one(query, update).matched_count > 0
        if is_waived:
            self._plans.add_audit(AuditRow(plan=plan, who=who, what=f"skip {key}", at=now))
        return is_waived

    def waive_pending(self, plan: str, now: datetime) -> None:
        """Leave out all that waits in the queue of a plan."""
        over = {"state": "skipped", "result": "waived", "finished_at": now}
        self._jobs.update_many({"plan": plan, "state": "pending"}, {"$set": over})

    def want_pruned(self, plan: str, repository: str, reference: str) -> bool:
        """Let the next run of a job delete what we put at the target; False if we put nothing."""
        key = job_key(plan, repository, reference)
        ours = {"_id": key, "put_digest": {"$nin": ["", None]}}
        # Counted as a wish: a run that is under way does not know of it, and is not the last.
        update = {"$set": {"prune": True}, "$inc": {"generation": 1}}
        return self._jobs.update_one(ours, update).matched_count > 0

    # Lists of referrers, which are ours at the target though the source has none

    def note_list(self, wish: Wish, digest: str, target_repository: str, now: datetime) -> None:
        """Remember that a list is about to be ours under a tag; its job, if new, is done."""
        known: Document = {
            "$set": {"put_digest": digest},
            "$push": {"put_lists": {"$each": [digest], "$slice": -MAX_LISTS}},
        }
        done = {
            "state": "done",
            "result": "copied",
            "priority": wish.priority,
            "generation": 1,
            "finished_at": now,
            "target_repository": target_repository,
        }
        new = {"$setOnInsert": new_job(wish, now) | done}
        key = {"_id": job_key(wish.plan, wish.repository, wish.reference)}
        self._jobs.update_one(key, known | new, upsert=True)

    def find_lists(self, plan: str, repository: str, tag: str) -> list[str]:
        """The digests of the last lists that were ours under a tag."""
        row = self._jobs.find_one({"_id": job_key(plan, repository, tag)}, {"put_lists": 1})
        return list(row.get("put_lists", [])) if row else []

    # The queue, as workers see it

    def find_due(self, plan: str, priority: int, now: datetime, limit: int = 500) -> list[Job]:
        """Jobs of this priority that may be begun, those due the longest first.

        To be claimed one by one: the embedded database reads all that are due whenever it looks
        for the first of them, and lets everybody else wait.
        """
        query = {"plan": plan, "state": "pending", "priority": priority, "due": {"$lte": now}}
        return [_job(row) for row in self._jobs.find(query).sort("due", 1).limit(limit)]

    def claim(self, job: Job, owner: str, now: datetime) -> Job | None:
        """Lease a job as it was found, or None if anything happened to it since.

        One update, so that two workers never hold the same job.
        """
        as_found = {
            "state": "pending",
            "due": {"$lte": now},
            "generation": job.generation,
            "claimed_at": job.claimed_at,
        }
        return self._claim(job, as_found, owner, now)

    def claim_expired(self, plan: str, owner: str, now: datetime) -> Job | None:
        """Lease a job that another worker held and went silent over, or None."""
        # Those that run are few: not worth an index by lease, for which every update would pay.
        for row in self._jobs.find({"plan": plan, "state": "running"}):
            if row["lease_until"] < now:
                as_found = {"state": "running", "lease_until": row["lease_until"]}
                job = self._claim(_job(row), as_found, owner, now)
                if job:
                    return job
        return None

    def _claim(self, job: Job, as_found: Document, owner: str, now: datetime) -> Job | None:
        lease: Document = {
            "state": "running",
            "owner": owner,
            "token": uuid.uuid4().hex,
            "claimed_at": now,
        }
        update = {"$set": lease | {"lease_until": now + LEASE}, "$inc": {"attempts": 1}}
        # Not find_one_and_update: the embedded database looks at every job for it.
        if not self._jobs.update_one({"_id": job.id, **as_found}, update).matched_count:
            return None
        return msgspec.structs.replace(job, attempts=job.attempts + 1, **lease)

    def renew(self, job: Job, now: datetime, putting: str = "") -> bool:
        """Extend the lease; False when another worker has the job now, or it is handed back.

        Asked before anything at the target that another worker could overtake; `putting` is the
        digest that the reference is about to get there.
        """
        query = {"_id": job.id, "token": job.token}
        fields: Document = {"lease_until": now + LEASE}
        if putting:
            fields["putting"] = putting
        return self._jobs.update_one(query, {"$set": fields}).matched_count > 0

    def finish(
        self, job: Job, outcome: Outcome, now: datetime, debounce: timedelta = timedelta(0)
    ) -> bool:
        """End a job, or put it back into the queue if it was wished for meanwhile.

        Then it waits for `debounce`. False when the lease was lost; then nothing is changed.
        """
        fields = {
            key: value for key, value in msgspec.structs.asdict(outcome).items() if key != "state"
        }
        if outcome.result in ("deleted", "absent"):  # whoever puts it there now is not us
            fields["putting"] = ""
        elif not outcome.put_digest:
            del fields["put_digest"]
        fields["bytes"] = min(outcome.bytes, MAX_CONTENT_SIZE)
        if outcome.result != "copied":
            del fields["bytes"]
        held = {"_id": job.id, "token": job.token}
        ended = (
            fields
            | _NOT_LEASED
            | {
                "state": outcome.state,
                "finished_at": now,
                "gone_at": None,
            }
        )
        if outcome.state not in ("dead", "conflict"):  # of those it is shown how often
            ended["attempts"] = 0
        same = {**held, "generation": job.generation}
        # A job that failed still has to, when a person begins it anew.
        over = {} if outcome.state in ("dead", "conflict") else {"broken": False, "prune": False}
        logged = _logged(job, now, outcome.result, outcome.error_class, outcome.error)
        if self._jobs.update_one(same, {"$set": ended | over, **logged}).matched_count:
            return True
        again = {
            "state": "pending",
            "due": now + debounce,
            "wanted_at": job.claimed_at or now,
            "attempts": 0,
        }
        update = {"$set": ended | again, **logged}
        return self._jobs.update_one(held, update).matched_count > 0

    def postpone(
        self,
        job: Job,
        due: datetime,
        error_class: str = "",
        error: str = "",
        *,
        counts: bool,
        gone_at: datetime | None = None,
    ) -> bool:
        """Put a job back that failed, or that was not begun; False when the lease was lost.

        `counts`: the attempt is one of those that the job has. A job that was wished for
        meanwhile does not wait until `due`.
        """
        now = present()
        fields: Document = {**_NOT_LEASED, "state": "pending", "due": due}
        if error_class:
            fields |= {"error_class": error_class, "error": error, "gone_at": gone_at}
        if not counts:
            fields["attempts"] = max(0, job.attempts - 1)
        held = {"_id": job.id, "token": job.token}
        same = {**held, "generation": job.generation}
        logged = _logged(job, now, "", error_class, error) if error or error_class else {}
        if self._jobs.update_one(same, {"$set": fields, **logged}).matched_count:
            return True
        del fields["due"]  # the one that it was claimed at is over
        return self._jobs.update_one(held, {"$set": fields, **logged}).matched_count > 0

    # Reading the queue

    def get(self, plan: str, repository: str, reference: str) -> Job | None:
        """The job of a reference, or None if it was never wished for."""
        document = self._jobs.find_one({"_id": job_key(plan, repository, reference)})
        return _job(document) if document else None

    def find(
        self, plan: str, *, cursor: str | None = None, limit: int = 50, **filters: str
    ) -> Page[Job]:
        """Jobs by id; `filters` are fields and their exact values, "" leaves one out."""
        query = query_of(plan, filters)
        if cursor is not None:
            query["_id"] = {"$gt": cursor}
        documents = list(self._jobs.find(query).sort("_id", 1).limit(limit + 1))
        jobs = [_job(document) for document in documents[:limit]]
        return Page(jobs, jobs[-1].id if len(documents) > limit else None)

    def count_found(self, plan: str, *, cap: int, **filters: str) -> Count:
        """How many jobs `find` finds, exact up to `cap`."""
        return count_capped(self._jobs, query_of(plan, filters), cap)

    def count_alike(self, plan: str) -> list[JobCount]:
        """Every job of a plan counted once, by all that tells jobs apart on a page of figures."""
        by = ("state", "priority", "result", "error_class")
        group: Document = {
            "_id": {key: f"${key}" for key in by},
            "number": {"$sum": 1},
            "bytes": {"$sum": "$bytes"},
        }
        rows = self._jobs.aggregate([{"$match": {"plan": plan}}, {"$group": group}])
        return [
            JobCount(
                state=row["_id"]["state"],
                priority=row["_id"]["priority"],
                result=row["_id"].get("result") or "",
                error_class=row["_id"].get("error_class") or "",
                number=row["number"],
                bytes=row["bytes"],
            )
            for row in rows
        ]

    def count_finished_since(self, plan: str, moment: datetime) -> tuple[int, int]:
        """How many jobs workers ended after `moment`, and the bytes that these sent."""
        query = {"plan": plan, "finished_at": {"$gt": moment}}
        group = {"_id": "$result", "number": {"$sum": 1}, "bytes": {"$sum": "$bytes"}}
        rows = list(self._jobs.aggregate([{"$match": query}, {"$group": group}]))
        return (
            sum(row["number"] for row in rows if row["_id"] != "waived"),
            sum(row["bytes"] for row in rows if row["_id"] == "copied"),
        )

    def count_by_state(self, plan: str) -> dict[str, int]:
        """How many jobs of a plan are in each state; a state without any is left out."""
        return self._count({"plan": plan}, "$state")

    def count_errors(self, plan: str, state: JobState = "dead") -> dict[str, int]:
        """How many jobs in a state have each error class."""
        return self._count({"plan": plan, "state": state}, "$error_class")

    def _count(self, query: Document, key: str) -> dict[str, int]:
        group = {"_id": key, "number": {"$sum": 1}}
        rows = self._jobs.aggregate([{"$match": query}, {"$group": group}])
        return {str(row["_id"]): row["number"] for row in rows}

    def has_open(self, plan: str, priority: int) -> bool:
        """Whether any job of this priority is running or pending."""
        # The few that run first: the embedded database reads all that match to find one.
        return any(
            self._jobs.find_one({"plan": plan, "state": state, "priority": priority}, {"_id": 1})
            for state in ("running", "pending")
        )

    def oldest_wish(self, plan: str) -> datetime | None:
        """Since when the oldest open live job is wanted; None if there is none."""
        oldest: list[datetime] = []
        for state in ("pending", "running"):
            query = {"plan": plan, "state": state, "priority": LIVE}
            rows = self._jobs.find(query, {"wanted_at": 1}).sort("wanted_at", 1).limit(1)
            oldest += [row["wanted_at"] for row in rows]
        return min(oldest, default=None)

    def is_wanted_since(self, plan: str, moment: datetime) -> bool:
        """Whether any job was wished for after `moment`."""
        query = {"plan": plan, "wished_at": {"$gt": moment}}
        return self._jobs.find_one(query, {"_id": 1}) is not None

    def find_unwanted_since(self, plan: str, moment: datetime) -> Iterator[Wish]:
        """What we stored at the target and nobody wished for after `moment`, as wishes."""
        query = {"plan": plan, "wished_at": {"$lt": moment}, "state": "done"}
        fields = {"repository": 1, "reference": 1, "put_digest": 1, "putting": 1}
        for row in self._jobs.find(query, fields):
            if row.get("put_digest") or row.get("putting"):
                yield Wish(plan, row["repository"], row["reference"], BACKFILL)

    def count_done(self, plan: str) -> int:
        """How many jobs of a plan are done."""
        return self._jobs.count_documents({"plan": plan, "state": "done"})

    def count_deleted_since(self, plan: str, moment: datetime) -> int:
        """How many jobs deleted something at the target after `moment`."""
        query = {"plan": plan, "state": "done", "result": "deleted", "finished_at": {"$gt": moment}}
        return self._jobs.count_documents(query)


_NOT_LEASED: Document = {"owner": "", "token": "", "lease_until": None}


def _job(document: Document) -> Job:
    log = [Attempt(**fields_from(Attempt, row)) for row in document.get("log", [])]
    return Job(**fields_from(Job, document) | {"id": document["_id"], "log": log})


def _logged(job: Job, now: datetime, result: str, error_class: str, error: str) -> Document:
    """The part of an update that keeps how a run of a job ended."""
    attempt = Attempt(
        at=now,
        worker=job.owner.rpartition(":")[0] or job.owner,
        seconds=round((now - job.claimed_at).total_seconds(), 1) if job.claimed_at else 0,
        result=result,
        error_class=error_class,
        error=error,
    )
    kept = {"$each": [msgspec.structs.asdict(attempt)], "$slice": -MAX_LOG}
    return {"$push": {"log": kept}}
