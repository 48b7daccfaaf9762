"""Live migrations: the state of plans, the queue of jobs, runs, drift, workers and the audit.

A job says "make this reference of this repository at the target what it is at the source now": it
is wanted again and again, and carried out once for any number of wishes that came before it was
begun. Every operation is one conditional update, or two of which either order of crashes is
harmless; no operation needs a transaction. Times come from the caller's clock: clocks that differ
only move a lease or a pause, because whoever lost a lease is refused by its token.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection as Several
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

import msgspec
from pymongo import ReturnDocument, UpdateOne
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError

from app.store.errors import only_duplicates, translate_errors
from app.store.paging import Count, Document, Page

LEASE = timedelta(seconds=20)  # a worker that is silent for so long has lost its jobs
WORKER_KEPT = timedelta(seconds=60)
BLOB_KEPT = timedelta(days=7)
BLOB_REPOSITORIES = 3  # candidates for a mount that are remembered of one blob
AUDIT_KEPT = timedelta(days=365)
BULK = 50  # wishes in one command; each is two to four updates
UPSERT_TRIES = 3

LIVE, BACKFILL = 0, 5  # `priority`: the first goes first

PlanState = Literal["draft", "backfill", "live", "frozen", "cut_over", "rolled_back", "closed"]
JobState = Literal["pending", "running", "done", "skipped", "conflict", "dead"]
Result = Literal["copied", "present", "deleted", "absent", "kept", "filtered", "waived"]
RunKind = Literal["crawl", "verify", "partial"]  # partial: a verification of a part
DriftKind = Literal[
    "missing", "different", "extra", "broken_child", "broken_blob", "unknown", "left_out"
]

JOB_STATES: tuple[JobState, ...] = ("pending", "running", "done", "skipped", "conflict", "dead")
DRIFT_KINDS: tuple[DriftKind, ...] = get_args(DriftKind)
# Too much at the target, or left out on purpose: no reason not to cut over.
HARMLESS: tuple[DriftKind, ...] = ("extra", "left_out")
SETTLED: tuple[JobState, ...] = ("done", "skipped", "conflict", "dead")
WORKED: tuple[PlanState, ...] = ("backfill", "live", "frozen", "cut_over")
TARGET_LEADS: tuple[PlanState, ...] = ("cut_over", "rolled_back", "closed")


class Breaker(msgspec.Struct, frozen=True, kw_only=True):
    """Why nobody works on a plan: one endpoint failed several times in a row."""

    registry: str  # URL of the endpoint
    error_class: str
    message: str
    since: datetime
    probe_at: datetime  # when somebody tries again
    probes: int = 0


class PlanStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a plan beside its configuration."""

    name: str
    state: PlanState = "draft"
    since: datetime | None = None  # of the state
    by: str = ""  # who moved it there
    paused: str = ""  # who or what paused it, "" while it runs
    breaker: Breaker | None = None
    recrawl: bool = False  # another crawl is wanted
    recrawl_why: str = ""
    deletes_braked: str = ""  # why deletes wait for a person, "" while they do not
    deletes_allowed: int = 0  # how many a person allowed although they are braked
    brake_lifted_at: datetime | None = None
    cannot_delete: bool = False  # the target refuses deletes

    @property
    def is_worked_on(self) -> bool:
        """Whether workers take jobs of it."""
        return self.state in WORKED and not self.paused and self.breaker is None

    @property
    def target_leads(self) -> bool:
        """Whether people push to the target, or did: the source is then no reason to change it."""
        return self.state in TARGET_LEADS


class Wish(msgspec.Struct, frozen=True):
    """A reference (tag or digest) that a plan has to look at.

    A live one waits `debounce_s` if its job ended less than that before. One of what is `broken`
    has everything copied once more that the manifest names, present or not.
    """

    plan: str
    repository: str
    reference: str
    priority: int = LIVE
    debounce_s: float = 0
    broken: bool = False


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One reference of one repository, and what became of it.

    `source_digest` is what the source was last seen at, `target_digest` what both sides were last
    seen at together, `put_digest` what we stored at the target ourselves, and `putting` what we
    were last about to store there.
    """

    id: str
    plan: str
    repository: str
    reference: str
    state: JobState
    priority: int = LIVE
    generation: int = 0  # how often it was wished for
    attempts: int = 0  # since it was wished for, this one included
    wanted_at: datetime
    due: datetime  # not to be begun before
    owner: str = ""
    token: str = ""
    claimed_at: datetime | None = None
    source_digest: str = ""
    target_digest: str = ""
    put_digest: str = ""
    putting: str = ""
    target_repository: str = ""
    result: str = ""
    bytes: int = 0  # sent to the target by the last run that copied
    media_type: str = ""
    broken: bool = False  # something that it names is missing at the target
    prune: bool = False  # a person wants it deleted at the target, if the source has it no more
    error_class: str = ""  # of the last attempt that failed, "" after one that did not
    error: str = ""
    gone_at: datetime | None = None  # when the source said first that it has it no more
    finished_at: datetime | None = None


class JobCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs are alike in this, and what they sent to the target together."""

    state: JobState
    priority: int
    result: str
    error_class: str
    number: int
    bytes: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended that needs no other: the ledger that later jobs read."""

    state: JobState
    result: Result | Literal[""] = ""
    source_digest: str = ""
    target_digest: str = ""
    put_digest: str = ""
    target_repository: str = ""
    bytes: int = 0
    media_type: str = ""
    error_class: str = ""
    error: str = ""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """The last crawl or verification of a plan.

    A crawl goes on at `cursor`, or in the list of what is pulled most, after an interruption; a
    verification begins anew.
    """

    plan: str
    kind: RunKind
    state: Literal["running", "done"] = "running"
    started_at: datetime
    finished_at: datetime | None = None
    ranked_done: int = 0  # how many of the list of what is pulled most are done
    cursor: str = ""  # the last repository that is done
    repositories: int = 0
    tags: int = 0
    tags_before: int = 0  # that the crawl before this one saw
    message: str = ""  # what stopped it, until it goes on
    deep: bool = False  # everything that manifests name was asked for
    hashed: bool = False  # every blob of the target was read
    part: str = ""  # what was compared, "" is all
    names_from_events: bool = False  # the source shows no catalogue: there may be more
    passed_over: list[str] = []  # repositories that could not be listed; the first hundred
    drift: dict[str, int] = {}


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between source and target that a verification found."""

    plan: str
    repository: str
    reference: str
    kind: DriftKind
    source_digest: str = ""
    target_digest: str = ""
    message: str = ""
    at: datetime


class WorkerBeat(msgspec.Struct, frozen=True, kw_only=True):
    """A worker process that was alive at `beat`."""

    name: str  # host:pid:random
    plans: list[str]
    running: int
    version: str
    beat: datetime


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """Who changed what of a plan."""

    plan: str
    who: str
    what: str
    at: datetime


def job_key(plan: str, repository: str, reference: str) -> str:
    """The id of the one job of a reference."""
    return f"{plan} {repository} {reference}"


@translate_errors
class MigrationStore:
    """All access to the `migration_*` collections."""

    def __init__(self, database: Database[Document]) -> None:
        self._plans: Collection[Document] = database["migration_plans"]
        self._jobs: Collection[Document] = database["migration_jobs"]
        self._runs: Collection[Document] = database["migration_runs"]
        self._drift: Collection[Document] = database["migration_drift"]
        self._blobs: Collection[Document] = database["migration_blobs"]
        self._workers: Collection[Document] = database["migration_workers"]
        self._audit: Collection[Document] = database["migration_audit"]

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent. The ranged key is always the last one."""
        jobs = self._jobs
        jobs.create_index([("plan", 1), ("state", 1), ("priority", 1), ("due", 1)])
        jobs.create_index([("plan", 1), ("wished_at", 1)])
        jobs.create_index([("plan", 1), ("finished_at", 1)])
        self._drift.create_index([("plan", 1), ("_id", 1)])
        for collection, field, kept in (
            (self._blobs, "seen", BLOB_KEPT),
            (self._workers, "beat", WORKER_KEPT),
            (self._audit, "at", AUDIT_KEPT),
        ):
            collection.create_index(field, expireAfterSeconds=int(kept.total_seconds()))

    # Plans

    def get_plan(self, name: str) -> PlanStatus:
        """The status of a plan; that of a draft when nobody started it."""
        document = self._plans.find_one({"_id": name})
        if document is None:
            return PlanStatus(name=name)
        breaker = document.get("breaker")
        fields = _fields(PlanStatus, document) | {"name": name}
        return PlanStatus(**fields | {"breaker": Breaker(**breaker) if breaker else None})

    def set_state(
        self, name: str, state: PlanState, who: str, now: datetime, *, before: Several[str] = ()
    ) -> bool:
        """Move a plan to a state; its pause and breaker stay.

        False when it is in none of the states `before`, where there are any.
        """
        made = {"$setOnInsert": {"state": "draft"}}
        self._plans.update_one({"_id": name}, made, upsert=True)
        query: Document = {"_id": name}
        if before:
            query["state"] = {"$in": list(before)}
        update = {"$set": {"state": state, "since": now, "by": who}}
        moved = self._plans.update_one(query, update).matched_count > 0
        if moved:
            self.add_audit(AuditRow(plan=name, who=who, what=f"state {state}", at=now))
        return moved

    def start(self, name: str, who: str, now: datetime) -> None:
        """Have workers crawl the source of a plan, once more if it is begun, and copy.

        Whether that may be is decided by app.migration.states.
        """
        self._set_plan(name, {"recrawl": True, "recrawl_why": "started"})
        self.add_audit(AuditRow(plan=name, who=who, what="start", at=now))
        before = ("draft", "frozen", "rolled_back")
        self.set_state(name, "backfill", who, now, before=before)

    def want_crawl(self, name: str, why: str, who: str, now: datetime) -> None:
        """Have workers crawl the source of a plan once more."""
        self._set_plan(name, {"recrawl": True, "recrawl_why": why})
        self.add_audit(AuditRow(plan=name, who=who, what=f"crawl: {why}", at=now))

    def close(self, name: str, who: str, now: datetime) -> bool:
        """End a plan and all that waits in its queue; False when it is closed already."""
        before = [state for state in get_args(PlanState) if state != "closed"]
        if not self.set_state(name, "closed", who, now, before=before):
            return False
        over = {"state": "skipped", "result": "waived", "finished_at": now}
        self._jobs.update_many({"plan": name, "state": "pending"}, {"$set": over})
        return True

    def find_closed(self) -> list[str]:
        """The names of the plans that are closed; none is ever opened again."""
        return [row["_id"] for row in self._plans.find({"state": "closed"}, {"_id": 1})]

    def pause(self, name: str, who: str, now: datetime) -> None:
        """Let no worker begin another job of the plan."""
        self._set_plan(name, {"paused": who})
        self.add_audit(AuditRow(plan=name, who=who, what="pause", at=now))

    def resume(self, name: str, who: str, now: datetime, deletes: int = 0) -> None:
        """End a pause and close the breaker; `deletes` more may be carried out under the brake."""
        fields: Document = {"paused": "", "breaker": None}
        if deletes:
            fields |= {"deletes_allowed": deletes, "cannot_delete": False}
        self._set_plan(name, fields)
        what = f"resume, {deletes} deletes allowed" if deletes else "resume"
        self.add_audit(AuditRow(plan=name, who=who, what=what, at=now))

    def open_breaker(self, name: str, breaker: Breaker) -> bool:
        """Stop work on a plan; False when it is stopped already."""
        fields = msgspec.structs.asdict(breaker)
        query = {"_id": name, "breaker": None}
        return self._plans.update_one(query, {"$set": {"breaker": fields}}).modified_count > 0

    def claim_probe(self, name: str, now: datetime, next_at: datetime) -> bool:
        """Whether the caller is the one who tries now if the endpoint works again."""
        query = {"_id": name, "breaker.probe_at": {"$lte": now}}
        update = {"$set": {"breaker.probe_at": next_at}, "$inc": {"breaker.probes": 1}}
        return self._plans.update_one(query, update).modified_count > 0

    def close_breaker(self, name: str) -> None:
        """Let work on a plan go on."""
        self._set_plan(name, {"breaker": None})

    def brake_deletes(self, name: str, why: str, now: datetime) -> None:
        """Let deletes wait for a person."""
        self._set_plan(name, {"deletes_braked": why, "deletes_allowed": 0})
        self.add_audit(AuditRow(plan=name, who="brake", what=why, at=now))

    def lift_brake(self, name: str, who: str, now: datetime) -> None:
        """Let deletes be carried out as they come; those until now brake no more."""
        fields = {"deletes_braked": "", "deletes_allowed": 0, "brake_lifted_at": now}
        self._set_plan(name, fields)
        self.add_audit(AuditRow(plan=name, who=who, what="lift the brake", at=now))

    def take_delete(self, name: str) -> bool:
        """Use up one of the deletes that a person allowed; False when none is left."""
        query = {"_id": name, "deletes_allowed": {"$gt": 0}}
        update = {"$inc": {"deletes_allowed": -1}}
        return self._plans.update_one(query, update).modified_count > 0

    def set_cannot_delete(self, name: str) -> None:
        """Remember that the target refuses deletes."""
        self._set_plan(name, {"cannot_delete": True})

    def note_instance(self, name: str, instance: str) -> None:
        """Remember a registry process that sent events; a new one may have lost some.

        A crawl that is under way or over is then wanted once more.
        """
        # Known only together with the crawl that it makes due.
        known: Document = {"$push": {"instances": {"$each": [instance], "$slice": -100}}}
        if self._runs.find_one({"_id": f"{name} crawl"}, {"_id": 1}):
            why = "the source was restarted, and may have lost events"
            known["$set"] = {"recrawl": True, "recrawl_why": why}
        self._plans.update_one({"_id": name}, {"$setOnInsert": {"state": "draft"}}, upsert=True)
        self._plans.update_one({"_id": name, "instances": {"$ne": instance}}, known)

    def _set_plan(self, name: str, fields: Document) -> None:
        default = {} if "state" in fields else {"$setOnInsert": {"state": "draft"}}
        self._plans.update_one({"_id": name}, {"$set": fields, **default}, upsert=True)

    def add_audit(self, row: AuditRow) -> None:
        """Record who changed what."""
        self._audit.insert_one(msgspec.structs.asdict(row))

    def find_audit(self, plan: str, limit: int = 100) -> list[AuditRow]:
        """The last changes of a plan, newest first."""
        rows = self._audit.find({"plan": plan}).sort("at", -1).limit(limit)
        return [AuditRow(**_fields(AuditRow, row)) for row in rows]

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
            updates = [update for wish in again for update in _wish(wish, now)]
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
                | _made(wish, now)
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
        query = _job_filter(plan, {"state": {"$in": states}}, filters)
        begun = {"state": "pending", "attempts": 0, "due": now, "wanted_at": now, "wished_at": now}
        update = {"$set": begun}
        number = self._jobs.update_many(query, update).modified_count
        if number:
            of = ", ".join(f"{key} {value}" for key, value in filters.items() if value) or "all"
            what = f"retry {of}: {number} jobs"
            self.add_audit(AuditRow(plan=plan, who=who, what=what, at=now))
        return number

    def waive(self, plan: str, who: str, key: str, now: datetime) -> bool:
        """Leave a job out until its reference is pushed again; False if it runs or is none."""
        query = {"_id": key, "plan": plan, "state": {"$ne": "running"}}
        over = {"state": "skipped", "result": "waived", "finished_at": now, "gone_at": None}
        # Counted as a wish: a worker that found the job before must not claim it as it was.
        update = {"$set": over, "$inc": {"generation": 1}}
        is_waived = self._jobs.update_one(query, update).matched_count > 0
        if is_waived:
            self.add_audit(AuditRow(plan=plan, who=who, what=f"skip {key}", at=now))
        return is_waived

    def want_pruned(self, plan: str, repository: str, reference: str) -> bool:
        """Let the next run of a job delete what we put at the target; False if we put nothing."""
        key = job_key(plan, repository, reference)
        ours = {"_id": key, "put_digest": {"$nin": ["", None]}}
        # Counted as a wish: a run that is under way does not know of it, and is not the last.
        update = {"$set": {"prune": True}, "$inc": {"generation": 1}}
        return self._jobs.update_one(ours, update).matched_count > 0

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
        if outcome.result != "copied":
            del fields["bytes"]
        held = {"_id": job.id, "token": job.token}
        ended = (
            fields
            | _NOT_LEASED
            | {
                "state": outcome.state,
                "finished_at": now,
                "attempts": 0,
                "gone_at": None,
            }
        )
        same = {**held, "generation": job.generation}
        # A job that failed still has to, when a person begins it anew.
        over = {} if outcome.state in ("dead", "conflict") else {"broken": False, "prune": False}
        if self._jobs.update_one(same, {"$set": ended | over}).matched_count:
            return True
        again = {"state": "pending", "due": now + debounce, "wanted_at": job.claimed_at or now}
        update = {"$set": ended | again}
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
        fields: Document = {**_NOT_LEASED, "state": "pending", "due": due}
        if error_class:
            fields |= {"error_class": error_class, "error": error, "gone_at": gone_at}
        if not counts:
            fields["attempts"] = max(0, job.attempts - 1)
        held = {"_id": job.id, "token": job.token}
        same = {**held, "generation": job.generation}
        if self._jobs.update_one(same, {"$set": fields}).matched_count:
            return True
        del fields["due"]  # the one that it was claimed at is over
        return self._jobs.update_one(held, {"$set": fields}).matched_count > 0

    # Reading the queue

    def get_job(self, plan: str, repository: str, reference: str) -> Job | None:
        """The job of a reference, or None if it was never wished for."""
        document = self._jobs.find_one({"_id": job_key(plan, repository, reference)})
        return _job(document) if document else None

    def find_jobs(
        self, plan: str, *, cursor: str | None = None, limit: int = 50, **filters: str
    ) -> Page[Job]:
        """Jobs by id; `filters` are fields and their exact values, "" leaves one out."""
        query = _job_filter(plan, {}, filters)
        if cursor is not None:
            query["_id"] = {"$gt": cursor}
        documents = list(self._jobs.find(query).sort("_id", 1).limit(limit + 1))
        jobs = [_job(document) for document in documents[:limit]]
        return Page(jobs, jobs[-1].id if len(documents) > limit else None)

    def count_found_jobs(self, plan: str, *, cap: int, **filters: str) -> Count:
        """How many jobs `find_jobs` finds, exact up to `cap`."""
        return _count_capped(self._jobs, _job_filter(plan, {}, filters), cap)

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

    def count_jobs(self, plan: str) -> dict[str, int]:
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

    # Runs

    def get_run(self, plan: str, kind: RunKind) -> Run | None:
        """The last crawl or verification of a plan, or None if there was none."""
        document = self._runs.find_one({"_id": f"{plan} {kind}"})
        return Run(**_fields(Run, document)) if document else None

    def begin_run(
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
        lease = {"owner": owner, "lease_until": now + LEASE}
        expired = {"_id": key, "state": "running", "lease_until": {"$lt": now}}
        is_interrupted = last is not None and last["state"] == "running"
        if is_interrupted and kind == "crawl":
            taken = self._runs.find_one_and_update(
                expired, {"$set": lease}, return_document=ReturnDocument.AFTER
            )
            return Run(**_fields(Run, taken)) if taken else None
        run = Run(
            plan=plan,
            kind=kind,
            started_at=now,
            tags_before=last["tags"] if last else 0,
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

    def set_ranking(self, plan: str, repositories: Sequence[str]) -> None:
        """Keep with which repositories the crawl of a plan begins, and in which order."""
        fields = {"plan": plan, "repositories": list(repositories)}
        self._runs.update_one({"_id": f"{plan} ranking"}, {"$set": fields}, upsert=True)

    def get_ranking(self, plan: str) -> list[str]:
        """With which repositories the crawl of a plan begins."""
        document = self._runs.find_one({"_id": f"{plan} ranking"})
        return document["repositories"] if document else []

    def save_run(self, run: Run, owner: str, now: datetime) -> bool:
        """Keep how far a run is and extend its lease; False when another worker has it."""
        fields = msgspec.structs.asdict(run) | {"lease_until": now + LEASE}
        query = {"_id": f"{run.plan} {run.kind}", "owner": owner}
        return self._runs.update_one(query, {"$set": fields}).matched_count > 0

    def end_run(self, run: Run, owner: str, now: datetime) -> bool:
        """Record that a run is complete; False when another worker has it."""
        ended = msgspec.structs.replace(run, state="done", finished_at=now, message="")
        return self.save_run(ended, owner, now)

    def renew_run(self, run: Run, owner: str, now: datetime) -> None:
        """Extend the lease of a run that is under way."""
        query = {"_id": f"{run.plan} {run.kind}", "owner": owner, "state": "running"}
        self._runs.update_one(query, {"$set": {"lease_until": now + LEASE}})

    def release_run(self, run: Run, owner: str, now: datetime, why: str) -> None:
        """Let another worker go on with a run that is not complete; `why` is what stopped it."""
        query = {"_id": f"{run.plan} {run.kind}", "owner": owner, "state": "running"}
        self._runs.update_one(query, {"$set": {"lease_until": now - LEASE, "message": why}})

    def clear_recrawl(self, plan: str) -> bool:
        """Take the wish for another crawl; False if there is none."""
        query = {"_id": plan, "recrawl": True}
        return self._plans.update_one(query, {"$set": {"recrawl": False}}).modified_count > 0

    # Drift

    def set_drift(self, plan: str, rows: Iterable[Drift]) -> None:
        """Replace the differences that are known of a plan."""
        self._drift.delete_many({"plan": plan})
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
        query = {**_job_filter(plan, {}, filters), "_id": {"$gt": cursor or ""}}
        documents = list(self._drift.find(query).sort("_id", 1).limit(limit + 1))
        rows = [Drift(**_fields(Drift, document)) for document in documents[:limit]]
        return Page(rows, documents[limit - 1]["_id"] if len(documents) > limit else None)

    def count_drift(self, plan: str, *, cap: int, **filters: str) -> Count:
        """How many differences `find_drift` finds, exact up to `cap`."""
        return _count_capped(self._drift, _job_filter(plan, {}, filters), cap)

    # Blobs: hints only, they may be wrong

    def find_blob_repositories(self, target: str, digests: Sequence[str]) -> dict[str, list[str]]:
        """Repositories of the target that had these blobs, at most three of each."""
        found: dict[str, list[str]] = {}
        for start in range(0, len(digests), 100):
            keys = [f"{target} {digest}" for digest in digests[start : start + 100]]
            for row in self._blobs.find({"_id": {"$in": keys}}):
                found[row["_id"].rpartition(" ")[2]] = row["repositories"]
        return found

    def add_blobs(
        self, target: str, digests: Sequence[str], repository: str, now: datetime
    ) -> None:
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

    # Workers

    def beat(self, worker: WorkerBeat) -> None:
        """Say that a worker process is alive."""
        fields = msgspec.structs.asdict(worker)
        self._workers.update_one({"_id": worker.name}, {"$set": fields}, upsert=True)

    def leave(self, name: str) -> None:
        """Say that a worker process ends."""
        self._workers.delete_one({"_id": name})

    def find_workers(self, now: datetime) -> list[WorkerBeat]:
        """The worker processes that are alive, by name."""
        rows = self._workers.find({"beat": {"$gt": now - LEASE}}).sort("_id", 1)
        return [WorkerBeat(**_fields(WorkerBeat, row)) for row in rows]


def present() -> datetime:
    """The present time, in the milliseconds that MongoDB keeps."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


_NOT_LEASED: Document = {"owner": "", "token": "", "lease_until": None}


def _made(wish: Wish, now: datetime) -> Document:
    """What no later wish changes of a job that is new."""
    return {
        "plan": wish.plan,
        "repository": wish.repository,
        "reference": wish.reference,
        "state": "pending",
        "attempts": 0,
        "due": now,
        "wanted_at": now,
    }


def _wish(wish: Wish, now: datetime) -> list[UpdateOne]:
    """The updates of one wish, in this order.

    The first counts the wish, so that who runs the job sees at its end that it is not over. Were
    it the last, a job could end between the two and never be begun again. `wished_at` is the last
    wish, and `wanted_at` the first that is not carried out.
    """
    key = job_key(wish.plan, wish.repository, wish.reference)
    count = {
        "$inc": {"generation": 1},
        "$min": {"priority": wish.priority},
        "$set": {"wished_at": now, **({"broken": True} if wish.broken else {})},
        "$setOnInsert": _made(wish, now),
    }
    updates = [UpdateOne({"_id": key}, count, upsert=True)]
    begun = {"state": "pending", "attempts": 0, "wanted_at": now, "priority": wish.priority}
    settled: Document = {"_id": key, "state": {"$in": list(SETTLED)}}
    if wish.priority == LIVE:
        # A push ends the pause after a failure; not the one between the two looks of a delete.
        failed = {"$nin": ["", None, "gone"]}
        waits = {"_id": key, "state": "pending", "error_class": failed}
        updates.append(UpdateOne(waits, {"$min": {"due": now}}))
        if wish.debounce_s:
            pause = timedelta(seconds=wish.debounce_s)
            just_over = settled | {"finished_at": {"$gt": now - pause}}
            updates.append(UpdateOne(just_over, {"$set": begun | {"due": now + pause}}))
    else:  # A crawl does not bring back what a person left out.
        settled["result"] = {"$ne": "waived"}
    return [*updates, UpdateOne(settled, {"$set": begun | {"due": now}})]


def _job_filter(plan: str, default: Document, filters: dict[str, str]) -> Document:
    named = {"_id" if key == "id" else key: value for key, value in filters.items() if value}
    return {"plan": plan, **default, **named}


def _count_capped(collection: Collection[Document], query: Document, cap: int) -> Count:
    number = collection.count_documents(query, limit=cap + 1)
    return Count(min(number, cap), number > cap)


def _job(document: Document) -> Job:
    return Job(**_fields(Job, document) | {"id": document["_id"]})


def _fields(kind: type[msgspec.Struct], document: Document) -> dict[str, Any]:
    return {name: document[name] for name in kind.__struct_fields__ if name in document}
