"""What pushes and deletes make of the catalogue, in whatever order they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from app.rules.events import Event
from app.store.errors import only_duplicates, translate_errors
from app.store.paging import Document

BULK = 50  # events of one bulk write; each is up to three updates
Write = tuple[dict[str, Any], dict[str, Any]]  # query, update
NEVER = "-"  # begins the position of a repository that was pulled but never pushed


@translate_errors
class CatalogueWriter:
    """Writes collection `catalogue`; Catalogue reads it."""

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection

    def add_pushes(self, pushes: Sequence[Event]) -> None:
        """Apply pushes: repository, tag and tag history. Idempotent, in any order.

        One command, unless a newer change of the same tag, or a newer delete, came before.
        """
        for start in range(0, len(pushes), BULK):
            batch = [
                (push, *write) for push in pushes[start : start + BULK] for write in _push(push)
            ]
            refused = self._upsert([(query, update) for _, _, query, update in batch])
            for push, row in (batch[index][:2] for index in refused):
                if row == "repository" or not self._is_current(push):
                    self._add_late_push(push)

    def _is_current(self, push: Event) -> bool:
        """Whether the tag already shows this very push: a redelivery."""
        query = {"_id": _tag_key(push), "position": push.position}
        return self._collection.find_one(query, {"_id": 1}) is not None

    def _add_late_push(self, push: Event) -> None:
        """Apply a push that a newer change of its tag, or a newer delete, overtook."""
        key = _repository_key(push)
        pushed = {"position": push.position, "pushed_at": push.timestamp}
        self._collection.update_one({"_id": key}, {"$max": pushed})
        alive = {"_id": key, "deleted_position": {"$not": {"$gt": push.position}}}
        self._collection.update_one(alive, {"$set": {"deleted": False}})
        if push.tag:
            first = {"$min": {"first_pushed_at": push.timestamp}}
            self._collection.update_one({"_id": _tag_key(push)}, first)
            self._rebuild_tag(push)

    def _rebuild_tag(self, event: Event) -> None:
        """Derive the tag of `event` from its moves, as if they had come in order.

        `revision` changes with every write of the row, so a move that comes meanwhile is not lost.
        """
        key = _tag_key(event)
        while True:
            row = self._collection.find_one({"_id": key}, {"revision": 1}) or {}
            state = self._find_state(event)
            update = {"$set": state, "$inc": {"revision": 1}}
            query = {"_id": key, "revision": row.get("revision")}
            if not state or self._collection.update_one(query, update).matched_count:
                return

    def _find_state(self, event: Event) -> Document:
        """What the newest push of the tag of `event`, and the newest delete since, make of it."""
        push = self._find_newest_move(_tag_key(event), "push") or {}
        deleted = [_tag_key(event), _repository_key(event)]
        if push:
            deleted.append(f"{event.repository} {push['digest']} {event.registry}")
        since = push.get("position", "")
        found = (self._find_newest_move(of, "delete", since) for of in deleted)
        deletes = [delete for delete in found if delete]
        if not push and not deletes:
            return {}
        state: Document = _row("tag", event) | {"tag": event.tag} | push.get("tag_row", {})
        if deletes:
            state |= _deletion(max(deletes, key=lambda delete: str(delete["position"])))
        return state

    def _find_newest_move(self, of: str, action: str, after: str = "") -> Document | None:
        found = self._collection.aggregate(
            [
                {"$match": {"of": of, "position": {"$gt": after}}},  # alone: see paging.stages
                {"$match": {"action": action}},
                {"$sort": {"position": -1}},
                {"$limit": 1},
            ]
        )
        return next(iter(found), None)

    def add_delete(self, delete: Event) -> None:
        """Apply a delete of a tag, a digest or a whole repository. Idempotent, in any order."""
        move = _move(delete, _delete_key(delete))
        deletion = _deletion(move)
        older = {"$lt": delete.position}
        if delete.tag:
            row = _row("tag", delete) | {"tag": delete.tag} | deletion
            query = {"_id": _tag_key(delete), "position": older}
            update = {"$set": row, "$inc": {"revision": 1}}
            if self._upsert([_once(delete.id, move), (query, update)]):
                self._rebuild_tag(delete)
            return
        key = _repository_key(delete)
        newest = {"last_delete": delete.position}
        if not delete.digest:
            newest["deleted_position"] = delete.position
        static = _row("repository", delete) | {"position": f"{NEVER}{key}", "deleted": False}
        # The move stands before the tags change: a push that overtakes finds the one or the other.
        self._upsert(
            [_once(delete.id, move), ({"_id": key}, {"$max": newest, "$setOnInsert": static})]
        )
        tags = {"type": "tag", "repository": delete.repository, "registry": delete.registry}
        if delete.digest:
            tags["digest"] = delete.digest
        else:
            query = {"_id": key, "position": older}
            self._collection.update_one(query, {"$set": {"deleted": True}})
        update = {"$set": deletion, "$inc": {"revision": 1}}
        self._collection.update_many({**tags, "position": older}, update)

    def _upsert(self, writes: list[Write]) -> list[int]:
        """Run conditional upserts in one command; returns the indexes of those refused.

        A row that is newer than the write refuses it as a duplicate. So does a row that another
        process made at the same moment, hence the second try, which never inserts.
        """
        updates = [UpdateOne(query, update, upsert=True) for query, update in writes]
        try:
            self._collection.bulk_write(updates, ordered=False)
        except BulkWriteError as error:
            refused = only_duplicates(error)
            again = (writes[index] for index in refused)
            results = [self._collection.update_one(query, update) for query, update in again]
            pairs = zip(refused, results, strict=True)
            return [index for index, result in pairs if not result.matched_count]
        return []

    def add_repository(self, event: Event) -> None:
        """Make the repository of a pull known; idempotent."""
        key = _repository_key(event)
        row = _row("repository", event) | {"position": f"{NEVER}{key}", "deleted": False}
        self._collection.update_one({"_id": key}, {"$setOnInsert": row}, upsert=True)

    def remove_registry(self, registry: str) -> None:
        """Delete every row of one registry; manifests stay."""
        self._collection.delete_many({"registry": registry})


def _row(kind: str, event: Event) -> Document:
    return {
        "type": kind,
        "registry": event.registry,
        "space": f"{kind} {event.namespace}",
        "namespace": event.namespace,
        "repository": event.repository,
    }


def _repository_key(event: Event) -> str:
    return f"{event.repository} {event.registry}"


def _tag_key(event: Event) -> str:
    return f"{event.repository} {event.tag} {event.registry}"


def _delete_key(delete: Event) -> str:
    parts = (delete.repository, delete.tag or delete.digest, delete.registry)
    return " ".join(part for part in parts if part)


def _move(event: Event, of: str) -> Document:
    return {
        "type": "move",
        "of": of,
        "registry": event.registry,
        "action": event.action,
        "digest": event.digest,
        "position": event.position,
        "timestamp": event.timestamp,
        "actor": event.actor,
    }


def _deletion(move: Document) -> Document:
    """What a delete sets on the rows of the tags that it removed."""
    return {
        "position": move["position"],
        "deleted": True,
        "deleted_at": move["timestamp"],
    }


def _once(event_id: str, move: Document) -> Write:
    return {"_id": f"move {event_id}"}, {"$setOnInsert": move}


def _push(push: Event) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The upserts of one push, named by row: with a tag the tag and its move, and the repository.

    The repository comes last, as it tells of a later delete: one that comes meanwhile either finds
    the tag, or is found. (mongod carries out the updates of one command in their order.)
    """
    writes: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
    if push.tag:
        row = {
            "tag": push.tag,
            "digest": push.digest,
            "media_type": push.media_type,
            "kind": push.kind,
            "position": push.position,
            "pushed_at": push.timestamp,
            "pushed_by": push.actor,
            "deleted": False,
            "deleted_at": None,
        }
        query = {"_id": _tag_key(push), "position": {"$lt": push.position}}
        update = {
            "$set": _row("tag", push) | row,
            "$inc": {"revision": 1},
            "$min": {"first_pushed_at": push.timestamp},
        }
        move = _move(push, _tag_key(push)) | {"tag_row": row}
        writes.append(("tag", query, update))
        writes.append(("move", *_once(push.id, move)))
    not_deleted_since = {"last_delete": {"$not": {"$gt": push.position}}}
    repository: dict[str, Any] = {
        "$max": {"position": push.position, "pushed_at": push.timestamp},
        "$set": _row("repository", push) | {"deleted": False},
    }
    writes.append(("repository", {"_id": _repository_key(push)} | not_deleted_since, repository))
    return writes
