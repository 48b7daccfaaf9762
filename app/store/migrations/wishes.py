"""The updates that a wish makes to its job."""

from __future__ import annotations

from datetime import datetime, timedelta

from pymongo import UpdateOne

from app.store.migrations.values import LIVE, SETTLED, Wish, job_key
from app.store.paging import Document


def new_job(wish: Wish, now: datetime) -> Document:
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


def updates_of(wish: Wish, now: datetime) -> list[UpdateOne]:
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
        "$setOnInsert": new_job(wish, now),
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
