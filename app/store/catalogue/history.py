"""Collection `tag_history`: what moved a tag, and the renames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pymongo import ReplaceOne, UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from app.rules.events import Event
from app.rules.kinds import kind_of
from app.store.catalogue.names import (
    Rename,
    Renames,
    digest_key,
    renames_key,
    repository_key,
    tag_key,
)
from app.store.catalogue.timeline import SEEN
from app.store.errors import only_duplicates
from app.store.paging import Document, chunks

BULK = 100  # documents of one bulk write

SIGHTED = (
    *("registry", "repository", "tag", "digest"),
    *("position", "timestamp", "media_type", "kind"),
)  # fields of an event that a sighting keeps

Place = tuple[str, str]  # registry, repository
TagPlace = tuple[str, str, str]  # registry, repository, tag


class History:
    """Reads and writes moves; used inside of the stores only.

    `of` is what a move changed: a tag, or the digest or repository that a delete names. `target`
    is, of a push or sighting, the digest that the tag then pointed to. `named` is the repository's
    name as it came, `repository` the one after all renames since, and so in `of` and `target`.
    """

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent."""
        for field in ("of", "target"):
            self._collection.create_index(field)

    def insert(self, moves: Sequence[Document]) -> set[str]:
        """Insert moves, each once; returns the ids of those that were there."""
        return insert_new(self._collection, moves)

    def replace(self, moves: Iterable[Document]) -> None:
        """Insert or overwrite moves."""
        bulk_write(
            self._collection,
            [ReplaceOne({"_id": move["_id"]}, move, upsert=True) for move in moves],
        )

    def remove(self, ids: Sequence[str]) -> None:
        """Delete moves."""
        for chunk in chunks(ids):
            self._collection.delete_many({"_id": {"$in": chunk}})

    def find_by_id(self, ids: Sequence[str]) -> dict[str, Document]:
        """Moves by their ids."""
        return {row["_id"]: row for row in self._find("_id", ids)}

    def find_pointing(self, targets: Iterable[str]) -> list[Document]:
        """The pushes and sightings that made a tag point to these."""
        return self._find("target", sorted(set(targets)))

    def find_of(self, keys: Iterable[str]) -> list[Document]:
        """The moves of these tags, or deletes of these digests or repositories."""
        return self._find("of", sorted(set(keys)))

    def find_in(self, registry: str, repository: str) -> list[Document]:
        """Every move that stands under this very name."""
        query = {"of": {"$gte": f"{repository} ", "$lt": f"{repository}!"}}
        return [row for row in self._collection.find(query) if row["registry"] == registry]

    def find_renames(self, registries: Iterable[str]) -> dict[str, Renames]:
        """All renames by registry, for each that is asked for."""
        found = {registry: Renames() for registry in registries}
        for row in self.find_of(renames_key(registry) for registry in found):
            found[row["registry"]].add(Rename(row["position"], row["old"], row["new"]))
        return found

    def find_moves(
        self, tags: Iterable[TagPlace], has_deletes: Callable[[Place], bool] = lambda place: True
    ) -> dict[str, list[Document]]:
        """The moves of tags, and the deletes that may have concerned them, by the tag's key.

        Where no `has_deletes`, nothing of the repository was ever deleted.
        """
        keys = {tag_key(name, tag, registry): (registry, name) for registry, name, tag in tags}
        moves: dict[str, list[Document]] = {key: [] for key in keys}
        for row in self.find_of(keys):
            moves[row["of"]].append(row)
        wanted = {key: _deletes_of(keys[key], moves[key]) for key in keys if has_deletes(keys[key])}
        deletes: dict[str, list[Document]] = {}
        for row in self.find_of({of for each in wanted.values() for of in each}):
            deletes.setdefault(row["of"], []).append(row)
        for key, each in wanted.items():
            moves[key] += (delete for of in each for delete in deletes.get(of, ()))
        return moves

    def rename(self, moves: Iterable[Document], names: Callable[[Document], str]) -> None:
        """Put moves under the names that they have now."""
        updates = []
        for move in moves:
            name = names(move)
            if name != move["repository"]:
                changed = {"repository": name, **keys_of({**move, "repository": name})}
                move.update(changed)
                updates.append(UpdateOne({"_id": move["_id"]}, {"$set": changed}))
        bulk_write(self._collection, updates)

    def remove_registry(self, registry: str) -> None:
        """Delete every move in one registry."""
        self._collection.delete_many({"registry": registry})

    def _find(self, field: str, values: Sequence[str]) -> list[Document]:
        found: list[Document] = []
        for chunk in chunks(values):
            found += self._collection.find({field: {"$in": chunk}})
        return found


def _deletes_of(place: Place, moves: Iterable[Document]) -> set[str]:
    """`of` of the deletes that may concern a tag with these moves."""
    registry, repository = place
    digests = {move["digest"] for move in moves if move["digest"]}
    keys = {digest_key(repository, digest, registry) for digest in digests}
    return keys | {repository_key(repository, registry)}


def make_move(event: Event, repository: str) -> Document:
    """The document of a push or delete in what is called `repository` now."""
    is_push = event.action == "push"
    move = {
        "_id": event.id,
        "registry": event.registry,
        "repository": repository,
        "named": event.repository,
        "action": event.action,
        "tag": event.tag,
        "digest": None if event.action == "delete" and event.tag else event.digest,
        "position": event.position,
        "timestamp": event.timestamp,
        "actor": event.actor,
    }
    if is_push:
        move |= {"media_type": event.media_type, "kind": event.kind}
    return move | keys_of(move)


def make_sighting(seen: Mapping[str, Any], repository: str) -> Document:
    """The document of a pull that named a tag, given the SIGHTED fields of its event."""
    told = {
        "media_type": "",
        "kind": "image",
        **{name: seen[name] for name in SIGHTED if name in seen},
    }
    if not told["media_type"]:  # the kind on record is what others told of the manifest
        told["kind"] = kind_of("", "", (), told["tag"])
    move = told | {"repository": repository, "named": seen["repository"]}
    move |= {"action": SEEN, "actor": ""}
    return move | keys_of(move)


def make_rename(event: Event) -> Document:
    """The document of a rename."""
    return {
        "_id": event.id,
        "registry": event.registry,
        "action": event.action,
        "old": event.from_repository,
        "new": event.repository,
        "position": event.position,
        "timestamp": event.timestamp,
        "actor": event.actor,
        "of": renames_key(event.registry),
    }


def keys_of(move: Mapping[str, Any]) -> Document:
    """`of` and `target` of a move."""
    registry, repository = move["registry"], move["repository"]
    digest = digest_key(repository, move["digest"], registry) if move["digest"] else None
    if move["action"] != "delete":
        return {"of": tag_key(repository, move["tag"], registry), "target": digest}
    if move["tag"]:
        return {"of": tag_key(repository, move["tag"], registry)}
    return {"of": digest or repository_key(repository, registry)}


def insert_new(collection: Collection[Document], rows: Sequence[Document]) -> set[str]:
    """Insert documents; returns the ids of those that were there."""
    there: set[str] = set()
    for start in range(0, len(rows), BULK):
        batch = list(rows[start : start + BULK])
        try:
            collection.insert_many(batch, ordered=False)
        except BulkWriteError as error:
            there |= {batch[index]["_id"] for index in only_duplicates(error)}
    return there


def bulk_write(collection: Collection[Document], writes: Sequence[Any]) -> int:
    """Carry out updates; returns how many found their document."""
    matched = 0
    for start in range(0, len(writes), BULK):
        result = collection.bulk_write(writes[start : start + BULK], ordered=False)
        matched += result.matched_count + result.upserted_count
    return matched
