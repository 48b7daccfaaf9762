"""Everything that the server keeps as lines of text, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime

from bson import json_util
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from app.errors import InvalidQuery
from app.rules.events import Event
from app.store.errors import only_duplicates, translate_errors
from app.store.events import event_of
from app.store.paging import Document, chunks

BULK = 100
EVENTS = "events"
DUMPED = (
    "manifests",
    "repositories",
    "tags",
    "tag_history",
    "rejected_events",
    "usage_days",
    "usage",
    "usage_sums",
    EVENTS,
    "inbox",
)

Row = tuple[str, Document]  # collection, document

_JSON_OPTIONS = json_util.JSONOptions(tz_aware=True)


@translate_errors
class Transfer:
    """Reads and writes whole documents of DUMPED collections."""

    def __init__(self, database: Database[Document]) -> None:
        self._database = database

    def dump(self) -> Iterator[str]:
        """Every document that the server keeps, one JSON line each; accounts excluded."""
        for name in DUMPED:
            for document in self._database[name].find():
                yield json_util.dumps({"collection": name, "document": document})

    def count_known(self, rows: Iterable[Row]) -> int:
        """How many of these documents are there, whatever they hold."""
        number = 0
        for name, documents in _by_collection(rows).items():
            for chunk in chunks([document["_id"] for document in documents]):
                number += len(list(self._database[name].find({"_id": {"$in": chunk}}, {"_id": 1})))
        return number

    def add(self, rows: Iterable[Row]) -> None:
        """Put dumped documents back, except events; one whose `_id` is there stays as it is."""
        for name, documents in _by_collection(rows).items():
            for start in range(0, len(documents), BULK):
                try:
                    self._database[name].insert_many(documents[start : start + BULK], ordered=False)
                except BulkWriteError as error:
                    only_duplicates(error)


def _by_collection(rows: Iterable[Row]) -> dict[str, list[Document]]:
    by_name: defaultdict[str, list[Document]] = defaultdict(list)
    for name, document in rows:
        by_name[name].append(document)
    return by_name


def parse_row(line: str) -> Row | Event:
    """One line of a dump: an event, or another document and the collection that it is of.

    Raises:
        InvalidQuery: not a line of a dump.
    """
    try:
        row = json_util.loads(line, json_options=_JSON_OPTIONS)
        name, document = row["collection"], dict(row["document"])
        document["_id"]
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidQuery(f"not a line of an export: {error}") from None
    if name not in DUMPED:
        raise InvalidQuery(f"not a collection of an export: {str(name)[:40]}")
    if name != EVENTS:
        return name, document
    try:
        event = event_of(document)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidQuery(f"not an event of an export: {error}") from None
    if not isinstance(event.timestamp, datetime) or not isinstance(event.position, str):
        raise InvalidQuery("not an event of an export: timestamp, position")
    return event
