"""A plan that is ready to be cut over, between two registries in memory."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
from memory_registry import MemoryRegistry

from app.migration import Plan
from app.migration.readiness import Check, find_checks
from app.migration.sides import Sides
from app.rules.shares import WHOLE, Share
from app.settings import Migration
from app.store import Stores
from app.store.inbox import Progress
from app.store.migrations import LIVE, Look, Outcome, Wish, WorkerBeat, present

OLD, NEW = "https://old", "https://new"


class Night:
    """A plan that is ready at `now`, between two registries in memory."""

    def __init__(self, stores: Stores, debug_url: str = "") -> None:
        source = {"url": OLD, "debug_url": debug_url}
        document = {"name": "dc2", "source": source, "target": {"url": NEW}}
        self.plan = Plan(msgspec.convert(document, Migration))
        self.stores, self.queue = stores, stores.migrations
        self.source, self.target = MemoryRegistry(OLD), MemoryRegistry(NEW)
        self.sides: Any = Sides(self.plan, self.source, self.target)  # type: ignore[arg-type]
        self.now = present()
        self.queue.plans.set_state("dc2", "live", "test", self.now - timedelta(hours=1))
        self.beat(self.now)
        self.look(pending=0)
        self.run("crawl", timedelta(minutes=9))
        self.run("verify", timedelta(minutes=8))
        self.hear(self.now)

    def beat(self, at: datetime, plan: str = "dc2") -> None:
        beat = WorkerBeat(name="h:1:x", plans=[plan], running=0, version="1", beat=at)
        self.queue.workers.beat(beat)

    def look(self, ago: timedelta = timedelta(0), **said: Any) -> None:
        self.queue.plans.set_look("dc2", Look(at=self.now - ago, **said), [], "")

    def hear(self, until: datetime, share: Share = WHOLE, of: int = 1) -> None:
        """Note how far a projector is; of the whole, that each of `of` is so far."""
        self.stores.inbox.note_progress(Progress(until=until), share, of)

    def run(self, kind: Any, ago: timedelta, took: timedelta = timedelta(0), **fields: Any) -> None:
        """Have a run that began so long ago and is over."""
        begun = self.queue.runs.begin("dc2", kind, "test", self.now - ago)
        assert begun
        ended = msgspec.structs.replace(begun, **{"tags": 2, **fields})
        assert self.queue.runs.end(ended, "test", self.now - ago + took)

    def end_job(self, state: Any, at: datetime) -> None:
        self.queue.jobs.wish([Wish("dc2", "team/app", state)], at)
        if state != "pending":
            (job,) = self.queue.jobs.find_due("dc2", LIVE, at)
            claimed = self.queue.jobs.claim(job, "worker", at)
            assert claimed
            if state != "running":
                self.queue.jobs.finish(claimed, Outcome(state=state), at)

    def checks(self) -> dict[str, Check]:
        return {check.name: check for check in find_checks(self.stores, self.plan, self.now)}

    def unmet(self) -> dict[str, str]:
        return {name: check.reason for name, check in self.checks().items() if not check.is_met}
