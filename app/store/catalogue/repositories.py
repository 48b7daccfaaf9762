"""Collection `repositories`: the names seen, and when they were pushed or deleted last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from pymongo import UpdateOne
from pymongo.collection import Collection

from app.rules.references import namespace_of
from app.store.catalogue.history import Place, bulk_write, insert_new
from app.store.catalogue.names import NEVER, is_beneath, repository_key
from app.store.known import Known
from app.store.paging import Document, chunks

FACTS = ("position", "pushed_at", "last_delete", "deleted_position")

WasUsed = Callable[[Place, Iterable[str], str], bool]
"""Whether the record has anything but a delete of a repository, which came under these names,
after a position."""


class Happened(NamedTuple):
    """What is of interest of an event: a delete may be that of the repository as a whole."""

    named: str  # the repository's name as it came
    action: str
    position: str
    timestamp: datetime
    is_whole: bool = False


class RepositoryRows:
    """Writes repositories; used inside of the CatalogueWriter only.

    `last_delete` is the newest delete in it, `deleted_position` that of it as a whole: it is there
    if anything else happened since. `known_as` are the names that its events came with.
    """

    def __init__(self, collection: Collection[Document], was_used: WasUsed) -> None:
        self._collection = collection
        self._was_used = was_used
        self._known: Known[Place, Document] = Known()

    def forget(self) -> None:
        """Read anew what another process may have written."""
        self._known.forget()

    def add(self, told: dict[Place, list[Happened]]) -> dict[Place, str]:
        """Take in what happened in repositories, one write for each that it changes.

        Returns the position of the newest delete in each, "" without any.
        """
        known = self._find_known(told)
        rows = {place: self._merge(place, known.get(place), told[place]) for place in told}
        insert_new(self._collection, [rows[place] for place in rows if place not in known])
        changed = [row for place, row in rows.items() if row != known.get(place, row)]
        bulk_write(self._collection, [_update(row) for row in changed])
        for place, row in rows.items():
            self._known.put(place, row)
        return {place: str(row.get("last_delete", "")) for place, row in rows.items()}

    def find_beneath(self, registry: str, parents: Iterable[str]) -> set[str]:
        """The known repositories with these names, or beneath them."""
        found: set[str] = set()
        for parent in parents:
            query = {"repository": {"$gte": parent, "$lt": f"{parent}0"}}
            for row in self._collection.find(query, {"registry": 1, "repository": 1}):
                if row["registry"] == registry and is_beneath(row["repository"], parent):
                    found.add(row["repository"])
        return found

    def find_origins(self, registry: str, repositories: Iterable[str]) -> set[str]:
        """The names that the events of these repositories came with."""
        ids = [repository_key(repository, registry) for repository in sorted(repositories)]
        return {
            name
            for chunk in chunks(ids)
            for row in self._collection.find({"_id": {"$in": chunk}})
            for name in row["known_as"]
        }

    def set(
        self, place: Place, events: Sequence[Happened], also_known_as: Iterable[str] = ()
    ) -> None:
        """Derive a repository from all that ever happened in it; there is none without."""
        self._known.drop(place)
        registry, repository = place
        row = _row(place) | _facts(events)
        row["known_as"] = sorted({*also_known_as, *(event.named for event in events)})
        key = {"_id": repository_key(repository, registry)}
        if events:
            row["deleted"] = _last_use(events) < row.get("deleted_position", "")
            self._collection.replace_one(key, row, upsert=True)
        else:
            self._collection.delete_one(key)

    def remove_registry(self, registry: str) -> None:
        """Delete the repositories of one registry."""
        self._collection.delete_many({"registry": registry})

    def _find_known(self, places: Iterable[Place]) -> dict[Place, Document]:
        known = {place: row for place in places if (row := self._known.get(place))}
        missing = [repository_key(*place[::-1]) for place in places if place not in known]
        for chunk in chunks(missing):
            for row in self._collection.find({"_id": {"$in": chunk}}):
                known[row["registry"], row["repository"]] = row
        return known

    def _merge(self, place: Place, known: Document | None, events: Sequence[Happened]) -> Document:
        before, told = known or _row(place), _facts(events)
        newer = {name for name in told if name not in before or before[name] < told[name]}
        row = before | {name: told[name] for name in newer}
        row["known_as"] = sorted({*before["known_as"], *(event.named for event in events)})
        deleted, told_deleted = row.get("deleted_position"), told.get("deleted_position")
        if deleted is None or max(_last_use(events), row["position"]) > deleted:
            row["deleted"] = False
        elif told_deleted == deleted:
            row["deleted"] = not self._was_used(place, row["known_as"], deleted)
        return row


def _row(place: Place) -> Document:
    registry, repository = place
    key = repository_key(repository, registry)
    return {
        "_id": key,
        "registry": registry,
        "namespace": namespace_of(repository),
        "repository": repository,
        "position": f"{NEVER}{key}",
        "deleted": False,
        "known_as": [],
    }


def _facts(events: Iterable[Happened]) -> Document:
    facts: Document = {}
    for event in sorted(events, key=lambda event: event.position):
        if event.action == "push":
            facts |= {"position": event.position, "pushed_at": event.timestamp}
        elif event.action == "delete":
            facts["last_delete"] = event.position
            if event.is_whole:
                facts["deleted_position"] = event.position
    return facts


def _last_use(events: Iterable[Happened]) -> str:
    used = (event.position for event in events if event.action != "delete")
    return max(used, default="")


def _update(row: Document) -> UpdateOne:
    newest = {name: row[name] for name in FACTS if name in row}
    state = {name: row[name] for name in ("deleted", "known_as")}
    return UpdateOne({"_id": row["_id"]}, {"$max": newest, "$set": state})
