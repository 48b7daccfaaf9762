"""Leases: of several processes, one does it."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from app.store.clock import clock
from app.store.errors import only_duplicates, translate_errors
from app.store.paging import Document

LEASE = timedelta(minutes=5)
LONG_OVER = datetime.fromtimestamp(0, UTC)


class Taken(NamedTuple):
    """Whether one holds all leases, and whether one was another's who did not give it back."""

    is_all: bool
    is_from_gone: bool


def new_owner() -> str:
    """A name for who takes leases, that nobody else has."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


@translate_errors
class LeaseStore:
    """Collection `leases`: `_id` the name, and who holds it until when.

    `now` is by the clock of this machine; leases are kept by that of the database.
    """

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection

    def take(self, name: str, owner: str, now: datetime, length: timedelta = LEASE) -> bool:
        """Whether `owner` now holds the lease for `length`: it was free, over, or its own."""
        return self.take_all([name], owner, now, length).is_all

    def take_all(
        self, names: Sequence[str], owner: str, now: datetime, length: timedelta = LEASE
    ) -> Taken:
        """Let `owner` hold all of these leases for `length`; where it cannot, those that it can."""
        named = {"_id": {"$in": list(names)}}
        now = self._of_database(now)
        values = {"owner": owner, "until": now + length}
        taken = self._collection.update_many(named | {"owner": owner}, {"$set": values})
        if taken.matched_count == len(names):
            return Taken(is_all=True, is_from_gone=False)
        over = self._collection.update_many(named | {"until": {"$lt": now}}, {"$set": values})
        number = taken.matched_count + over.matched_count
        if number < len(names):
            try:
                self._collection.insert_many(
                    [{"_id": name, **values} for name in names], ordered=False
                )
                number = len(names)
            except BulkWriteError as error:
                number += len(names) - len(only_duplicates(error))
        return Taken(number == len(names), over.matched_count > 0)

    def renew_all(
        self, names: Sequence[str], owner: str, now: datetime, length: timedelta = LEASE
    ) -> bool:
        """Let `owner` hold for `length` what it took; whether it is all, and nobody had it since.

        In one write: who needs many would lose the first before it has the last.
        """
        own = {"_id": {"$in": list(names)}, "owner": owner}
        until = self._of_database(now) + length
        renewed = self._collection.update_many(own, {"$set": {"until": until}})
        return renewed.matched_count == len(names)

    def is_held(self, name: str, now: datetime) -> bool:
        """Whether anybody holds the lease."""
        held = {"_id": name, "until": {"$gt": self._of_database(now)}}
        return self._collection.find_one(held) is not None

    def find_held(self, now: datetime) -> set[str]:
        """The names of all leases that anybody holds."""
        held = {"until": {"$gt": self._of_database(now)}}
        return {row["_id"] for row in self._collection.find(held, {"_id": 1})}

    def remove(self, prefix: str, before: datetime) -> None:
        """Forget leases with names that begin so, and that were over before a time."""
        names = {"$gte": prefix, "$lt": f"{prefix}\U0010ffff"}
        over = {"$lt": self._of_database(before)}
        self._collection.delete_many({"_id": names, "until": over})

    def give_back(self, name: str, owner: str) -> None:
        """Let another one take the lease at once."""
        self._collection.delete_one({"_id": name, "owner": owner})

    def leave(self, name: str, owner: str) -> None:
        """As `give_back`, but who takes it learns that its holder is gone."""
        named = {"_id": name, "owner": owner}
        self._collection.update_one(named, {"$set": {"until": LONG_OVER}})

    def _of_database(self, moment: datetime) -> datetime:
        clock.follow(self._collection.database)
        return moment + clock.ahead
