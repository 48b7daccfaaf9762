"""What becomes of plans: their states, pauses, breakers and brakes, and who changed what."""

from __future__ import annotations

from collections.abc import Collection as Several
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from pymongo.collection import Collection
from pymongo.database import Database

from app.store.errors import translate_errors
from app.store.migrations.documents import fields_from
from app.store.migrations.values import (
    STARTED,
    AuditRow,
    Breaker,
    Look,
    PlanState,
    PlanStatus,
    SourceProcess,
)
from app.store.paging import Document

AUDIT_KEPT = timedelta(days=365)


@translate_errors
class PlanStore:
    """What is known of plans beside their configuration, and the audit."""

    def __init__(self, database: Database[Document]) -> None:
        self._plans: Collection[Document] = database["migration_plans"]
        self._audit: Collection[Document] = database["migration_audit"]

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent."""
        self._audit.create_index("at", expireAfterSeconds=int(AUDIT_KEPT.total_seconds()))

    def get(self, name: str) -> PlanStatus:
        """The status of a plan; that of a draft when nobody started it."""
        document = self._plans.find_one({"_id": name})
        if document is None:
            return PlanStatus(name=name)
        breaker, look = document.get("breaker"), document.get("look")
        fields = fields_from(PlanStatus, document) | {
            "name": name,
            "breaker": Breaker(**breaker) if breaker else None,
            "look": Look(**look) if look else None,
            "processes": [SourceProcess(**known) for known in document.get("processes", [])],
        }
        return PlanStatus(**fields)

    def set_state(
        self,
        name: str,
        state: PlanState,
        who: str,
        now: datetime,
        *,
        before: Several[str] = (),
        despite: str = "",
    ) -> bool:
        """Move a plan to a state; its pause and breaker stay.

        False when it is in none of the states `before`, where there are any. The audit says
        `despite` what somebody insisted.
        """
        made = {"$setOnInsert": {"state": "draft"}}
        self._plans.update_one({"_id": name}, made, upsert=True)
        query: Document = {"_id": name}
        if before:
            query["state"] = {"$in": list(before)}
        update = {"$set": {"state": state, "since": now, "by": who}}
        moved = self._plans.update_one(query, update).matched_count > 0
        if moved:
            what = f"state {state}, by force: {despite}" if despite else f"state {state}"
            self.add_audit(AuditRow(plan=name, who=who, what=what, at=now))
        return moved

    def start(self, name: str, who: str, now: datetime) -> None:
        """Have workers crawl the source of a plan, once more if it is begun, and copy.

        Whether that may be is decided by app.migration.states.
        """
        self._set_plan(name, {"recrawl": True, "recrawl_why": STARTED})
        self.add_audit(AuditRow(plan=name, who=who, what="start", at=now))
        before = ("draft", "frozen", "rolled_back")
        self.set_state(name, "backfill", who, now, before=before)

    def want_crawl(self, name: str, why: str, who: str, now: datetime) -> None:
        """Have workers crawl the source of a plan once more."""
        self._set_plan(name, {"recrawl": True, "recrawl_why": why})
        self.add_audit(AuditRow(plan=name, who=who, what=f"crawl: {why}", at=now))

    def clear_recrawl(self, name: str) -> bool:
        """Take the wish for another crawl; False if there is none."""
        query = {"_id": name, "recrawl": True}
        return self._plans.update_one(query, {"$set": {"recrawl": False}}).modified_count > 0

    def want_verify(self, name: str, who: str, now: datetime) -> None:
        """Have a worker compare both sides of a plan."""
        self._set_plan(name, {"verify_wanted": True})
        self.add_audit(AuditRow(plan=name, who=who, what="verify", at=now))

    def clear_verify(self, name: str) -> None:
        """Take the wish for a verification."""
        self._set_plan(name, {"verify_wanted": False})

    def set_look(
        self, name: str, look: Look, processes: Sequence[SourceProcess], recrawl_why: str
    ) -> None:
        """Remember what both registries of a plan said; have the source crawled for a reason."""
        fields: Document = {
            "look": msgspec.structs.asdict(look),
            "processes": [msgspec.structs.asdict(process) for process in processes],
        }
        if recrawl_why:
            fields |= {"recrawl": True, "recrawl_why": recrawl_why}
        self._set_plan(name, fields)

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

    def add_instance(self, name: str, instance: str, recrawl_why: str) -> None:
        """Remember a registry process that sent events.

        One that was not known has the source crawled once more, where there is a reason to.
        """
        # Known only together with the crawl that it makes due.
        known: Document = {"$push": {"instances": {"$each": [instance], "$slice": -100}}}
        if recrawl_why:
            known["$set"] = {"recrawl": True, "recrawl_why": recrawl_why}
        self._plans.update_one({"_id": name}, {"$setOnInsert": {"state": "draft"}}, upsert=True)
        self._plans.update_one({"_id": name, "instances": {"$ne": instance}}, known)

    def _set_plan(self, name: str, fields: Document) -> None:
        default = {} if "state" in fields else {"$setOnInsert": {"state": "draft"}}
        self._plans.update_one({"_id": name}, {"$set": fields, **default}, upsert=True)

    # The audit

    def add_audit(self, row: AuditRow) -> None:
        """Record who changed what."""
        self._audit.insert_one(msgspec.structs.asdict(row))

    def find_audit(self, plan: str, limit: int = 100) -> list[AuditRow]:
        """The last changes of a plan, newest first."""
        rows = self._audit.find({"plan": plan}).sort("at", -1).limit(limit)
        return [AuditRow(**fields_from(AuditRow, row)) for row in rows]
