"""How registries are wired: who sends their events, and who was refused."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from pymongo.collection import Collection
from pymongo.database import Database

from app.store.errors import translate_errors
from app.store.paging import Document

MAX_ROWS = 200  # of each collection: the newest
REFUSAL_KEPT = timedelta(days=7)


class Sender(msgspec.Struct, frozen=True, kw_only=True):
    """An address from which the events of a registry come, as it was noted last.

    `accepted`, `ignored`, `rejected` are what one process of the server counted since it had noted
    it before, and `slowest_s` its slowest answer in that time.
    """

    registry: str
    address: str
    at: datetime  # UTC, milliseconds
    user_agent: str = ""
    accepted: int = 0
    ignored: int = 0
    rejected: int = 0
    slowest_s: float = 0.0


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody whose notifications were refused; `text` says what is wrong, for a person."""

    address: str
    reason: str  # a word for each kind, or two
    text: str
    first_at: datetime
    at: datetime  # of the newest, to the minute


@translate_errors
class WiringStore:
    """Collections `senders` and `refusals`: one row for each address, bounded."""

    def __init__(self, database: Database[Document]) -> None:
        self._senders: Collection[Document] = database["senders"]
        self._refusals: Collection[Document] = database["refusals"]

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent."""
        seconds = int(REFUSAL_KEPT.total_seconds())
        self._refusals.create_index("at", expireAfterSeconds=seconds)

    def note_sender(self, sender: Sender) -> None:
        """Note that events came."""
        key = f"{sender.registry} {sender.address}"
        _put(self._senders, key, {"$set": msgspec.structs.asdict(sender)})

    def find_senders(self) -> list[Sender]:
        """Who sent events, the newest first."""
        return [Sender(**_values(row, Sender)) for row in _newest_first(self._senders)]

    def note_refusal(self, address: str, reason: str, text: str, now: datetime) -> None:
        """Note that somebody was refused."""
        fields = {"address": address, "reason": reason, "text": text, "at": now}
        change = {"$set": fields, "$setOnInsert": {"first_at": now}}
        _put(self._refusals, f"{reason} {address}", change)

    def find_refusals(self) -> list[Refusal]:
        """Who was refused within seven days, the newest first."""
        return [Refusal(**_values(row, Refusal)) for row in _newest_first(self._refusals)]


def _put(collection: Collection[Document], key: str, change: Document) -> None:
    """Write one row; a new one makes the oldest go where there are too many."""
    result = collection.update_one({"_id": key}, change, upsert=True)
    if result.upserted_id is not None:
        for row in _newest_first(collection)[MAX_ROWS:]:
            collection.delete_one({"_id": row["_id"]})


def _newest_first(collection: Collection[Document]) -> list[Document]:
    return sorted(collection.find(), key=lambda row: row["at"], reverse=True)


def _values(row: Document, kind: type[msgspec.Struct]) -> Document:
    return {name: row[name] for name in kind.__struct_fields__}
