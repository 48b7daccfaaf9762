"""Collection `tags`: what every tag points to now, or when it was deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pymongo import ReplaceOne, UpdateOne
from pymongo.collection import Collection

from app.store.catalogue.history import History, Place, TagPlace, bulk_write, insert_new
from app.store.catalogue.timeline import (
    SEEN,
    Change,
    find_changes,
    is_settled,
    make_tag,
    pointed,
)
from app.store.known import Known
from app.store.paging import Document, chunks

BULK = 100  # tags that are derived anew at a time


class TagRow(NamedTuple):
    """What the writer needs to know of a tag."""

    digest: str | None  # None: gone
    position: str
    seen_by: str

    @property
    def is_odd(self) -> bool:
        """Whether a push changes more than what the tag points to."""
        return self.digest is None or self.seen_by == "pull"


class Step(NamedTuple):
    """A push that moved a tag on from `before`."""

    move: Document
    before: str | None


class TagRows:
    """Writes tags; used inside of the CatalogueWriter only."""

    def __init__(self, collection: Collection[Document], history: History) -> None:
        self._collection = collection
        self._history = history
        self._known: Known[str, TagRow] = Known()

    def forget(self) -> None:
        """Read anew what another process may have written."""
        self._known.forget()

    def find(self, keys: Iterable[str]) -> dict[str, TagRow]:
        """The known tags among these keys."""
        found = {key: row for key in keys if (row := self._known.get(key))}
        for document in self._find_documents(key for key in keys if key not in found):
            found[document["_id"]] = row = _row(document)
            self._known.put(document["_id"], row)
        return found

    def find_in(self, places: Iterable[Place]) -> set[TagPlace]:
        """The tags of repositories, deleted or not."""
        found: set[TagPlace] = set()
        fields = {"registry": 1, "repository": 1, "tag": 1}
        for registry, repository in places:
            for row in self._collection.find({"repository": repository}, fields):
                if row["registry"] == registry:
                    found.add((registry, repository, row["tag"]))
        return found

    def advance(self, pushes: Mapping[str, Sequence[Document]]) -> tuple[list[Step], set[str]]:
        """Apply pushes, newest last, to tags of which nothing newer is known.

        Returns what they moved, and the keys of tags where something newer was: those are to be
        derived anew.
        """
        known = self.find(pushes)
        steps: dict[str, list[Step]] = {}
        new: list[Document] = []
        updates: list[tuple[str, Document]] = []
        overtaken: set[str] = set()
        for key, moves in pushes.items():
            row = known.get(key)
            if row and (row.is_odd or row.position >= moves[0]["position"]):
                overtaken.add(key)
                continue
            steps[key] = _steps(moves, row.digest if row else None)
            if row is None:
                new.append(make_tag(key, moves) or {})
            else:
                updates.append((key, _state(moves[-1])))
        overtaken |= insert_new(self._collection, new)
        overtaken |= self._update(updates)
        for key in steps.keys() - overtaken:
            last = pushes[key][-1]
            self._known.put(key, TagRow(last["digest"], last["position"], "push"))
        return [step for key in steps.keys() - overtaken for step in steps[key]], overtaken

    def _update(self, updates: Sequence[tuple[str, Document]]) -> set[str]:
        """Update tags to newer states; returns the keys of a bulk in which one was newer still."""
        refused: set[str] = set()
        for start in range(0, len(updates), BULK):
            some = updates[start : start + BULK]
            writes = [
                UpdateOne({"_id": key, "position": {"$lt": state["position"]}}, {"$set": state})
                for key, state in some
            ]
            if bulk_write(self._collection, writes) < len(some):
                refused |= {key for key, _ in some}
        return refused

    def derive(
        self, tags: Iterable[TagPlace], has_deletes: Callable[[Place], bool]
    ) -> dict[str, list[Change]]:
        """Derive tags anew from all their moves; returns the changes of those that were pushed."""
        changes: dict[str, list[Change]] = {}
        places = sorted(set(tags))
        for start in range(0, len(places), BULK):
            moves = self._history.find_moves(places[start : start + BULK], has_deletes)
            stored = {row["_id"]: row for row in self._find_documents(moves)}
            self._write(stored, {key: make_tag(key, moves[key]) for key in moves})
            overruled = [
                move["_id"]
                for key in moves
                if is_settled(key, moves[key])
                for move in moves[key]
                if move["action"] == SEEN
            ]
            self._history.remove(overruled)
            for key in moves:
                if is_settled(key, moves[key]):
                    changes[key] = find_changes(moves[key])
        return changes

    def remove_registry(self, registry: str) -> None:
        """Delete the tags of one registry."""
        self._collection.delete_many({"registry": registry})

    def _write(self, stored: Mapping[str, Document], rows: Mapping[str, Document | None]) -> None:
        insert_new(
            self._collection, [row for key, row in rows.items() if row and key not in stored]
        )
        changed = {key: row for key, row in rows.items() if row and stored.get(key, row) != row}
        writes: list[Any] = [ReplaceOne({"_id": key}, row) for key, row in changed.items()]
        bulk_write(self._collection, writes)
        gone = [key for key, row in rows.items() if row is None]
        for chunk in chunks([key for key in gone if key in stored]):
            self._collection.delete_many({"_id": {"$in": chunk}})
        for key, row in rows.items():
            if row:
                self._known.put(key, _row(row))
            else:
                self._known.drop(key)

    def _find_documents(self, keys: Iterable[str]) -> list[Document]:
        found: list[Document] = []
        for chunk in chunks(sorted(keys)):
            found += self._collection.find({"_id": {"$in": chunk}})
        return found


def _row(document: Document) -> TagRow:
    digest = None if document["deleted"] else document["digest"]
    return TagRow(digest, document["position"], document["seen_by"])


def _steps(moves: Iterable[Document], before: str | None) -> list[Step]:
    steps = []
    for move in moves:
        if move["digest"] != before:
            steps.append(Step(move, before))
        before = move["digest"]
    return steps


def _state(push: Document) -> Document:
    """What a push sets on a tag of which no newer move is known."""
    return pointed(push) | {"deleted": False, "deleted_at": None}
