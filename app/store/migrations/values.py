"""What the store tells and is told of migrations."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, get_args

import msgspec

LEASE = timedelta(seconds=20)  # a worker that is silent for so long has lost its jobs
LIVE, BACKFILL = 0, 5  # `priority`: the first goes first

PlanState = Literal["draft", "backfill", "live", "frozen", "cut_over", "rolled_back", "closed"]
JobState = Literal["pending", "running", "done", "skipped", "conflict", "dead"]
Result = Literal["copied", "present", "deleted", "absent", "kept", "filtered", "waived"]
# partial: a verification of a part; deep: the last deep one of all, whatever was compared since
RunKind = Literal["crawl", "verify", "partial", "deep"]
DriftKind = Literal[
    "missing", "different", "extra", "broken_child", "broken_blob", "unknown", "left_out"
]

JOB_STATES: tuple[JobState, ...] = ("pending", "running", "done", "skipped", "conflict", "dead")
DRIFT_KINDS: tuple[DriftKind, ...] = get_args(DriftKind)
# Too much at the target, or left out on purpose: no reason not to cut over.
HARMLESS: tuple[DriftKind, ...] = ("extra", "left_out")
# What only a deep verification finds.
BROKEN: tuple[DriftKind, ...] = ("broken_child", "broken_blob")
SETTLED: tuple[JobState, ...] = ("done", "skipped", "conflict", "dead")
# Why a crawl was begun, if a person wants it to be taken for all that there is.
STARTED, ASKED_FOR = BY_A_PERSON = ("started", "asked for")
LEAST_SHARE = 0.8  # of the tags of before: a source that lists fewer may not read its storage
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


class SourceProcess(msgspec.Struct, frozen=True):
    """A process of the source, as app.registry.debug_server tells it from others."""

    collections: int
    last_at: int  # ns since 1970


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What both registries of a plan said when they were asked last."""

    at: datetime
    source: str = ""  # why it cannot be used, "" where it can
    target: str = ""
    pending: int | None = None  # events that wait at the source; None where it does not tell


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
    verify_wanted: bool = False  # a person wants both sides compared now
    look: Look | None = None
    processes: list[SourceProcess] = []  # of the source that were seen; the newest at the end

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


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a job: when it ended, how, and by which worker."""

    at: datetime
    worker: str  # host:pid
    seconds: float
    result: str = ""  # of one that was over, "" of one that failed or has to wait
    error_class: str = ""
    error: str = ""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One reference of one repository, and what became of it.

    `source_digest` is what the source was last seen at, `target_digest` what both sides were last
    seen at together, `put_digest` what we stored at the target ourselves, and `putting` what we
    were last about to store there. `log` are the last 20 runs, the newest last.
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
    log: list[Attempt] = []


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
    tags_before: int = 0  # that the crawl before this one saw, or the one before if it is_short
    why: str = ""  # a crawl was begun
    message: str = ""  # what stopped it, until it goes on
    deep: bool = False  # everything that manifests name was asked for
    hashed: bool = False  # every blob of the target was read
    part: str = ""  # what was compared, "" is all
    names_from_events: bool = False  # the source shows no catalogue: there may be more
    passed_over: list[str] = []  # repositories that could not be listed; the first hundred
    drift: dict[str, int] = {}

    @property
    def is_short(self) -> bool:
        """Whether a crawl that no person asked for saw so few tags that one has to look."""
        return self.why not in BY_A_PERSON and self.tags < LEAST_SHARE * self.tags_before

    @property
    def broken(self) -> int:
        """How many tags it found of which the target lacks a part, or has other bytes."""
        return sum(self.drift.get(kind, 0) for kind in BROKEN)

    def settles(self, before: Run | None) -> bool:
        """Whether a verification looked as closely as the one that found something broken."""
        return before is None or not before.broken or (self.deep and self.hashed >= before.hashed)


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
    troubles: dict[str, str] = {}  # by plan: a registry that asks to wait, or does not answer


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """Who changed what of a plan."""

    plan: str
    who: str
    what: str
    at: datetime


def job_key(plan: str, repository: str, reference: str) -> str:
    """The id of the one job of a reference."""
    return f"{plan} {repository} {reference}"
