"""What never changes of a manifest: media type, kind, size, references."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from app.rules.events import Descriptor, Event
from app.rules.kinds import is_blob_type
from app.rules.sizes import add_sizes
from app.store.errors import only_duplicates, translate_errors
from app.store.known import Known
from app.store.paging import Document, chunks

BULK = 100  # manifests of one bulk write
MAX_DEPTH = 8  # of an index in an index
MANY = 500  # are read with all others where they are most: embedded, that is the third of the time
TEACHING = ("push", "pull", "check")

Key = tuple[str, str]  # registry and digest


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Immutable facts of a digest; `size` is the manifest's own, `references` may be unknown."""

    digest: str
    media_type: str = ""
    kind: str = "image"
    size: int | None = None
    references: tuple[Descriptor, ...] = ()

    @property
    def children(self) -> list[str]:
        """The manifests that an index names, each once; a build cache names layers."""
        if self.kind != "index":
            return []
        named = (each.digest for each in self.references if not is_blob_type(each.media_type))
        return list(dict.fromkeys(named))

    @property
    def platforms(self) -> list[str]:
        """Those of an index, as `linux/arm/v7`, each once; an attestation in it has none."""
        named = (each.platform for each in self.references if self.kind == "index")
        known = (one for one in named if one and one.os not in ("", "unknown"))
        parts = ([one.os, one.architecture, one.variant] for one in known)
        return list(dict.fromkeys("/".join(filter(None, three)) for three in parts))

    @property
    def blobs(self) -> dict[str, int]:
        """Config and layers, digest → bytes; without those of an index's children."""
        children = set(self.children)
        return {each.digest: each.size for each in self.references if each.digest not in children}


class Whole(NamedTuple):
    """A manifest, and the bytes of config and layers: each blob once, an index with its children.

    `size` is None where it is not known of every part.
    """

    manifest: Manifest
    size: int | None


class _Told(msgspec.Struct, frozen=True):
    """Which events told what is known: the least counts, of `references` as of the rest."""

    facts: str
    references: str | None


@translate_errors
class ManifestStore:
    """Collection `manifests`: `_id` is "registry digest".

    Media type and size are those of the first event, references those of the first that has any,
    and the kind goes with them; first in the order of what happened, whatever comes first.
    """

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection
        self._known: Known[Key, _Told] = Known()

    def forget(self) -> None:
        """Read anew what another process may have written."""
        self._known.forget()

    def learn(self, events: Sequence[Event]) -> set[Key]:
        """Keep what events tell of manifests; idempotent, in any order.

        Returns the registry and digest of those that became known, or got references, by one of
        these events: the same again when they come again. What another process removes meanwhile
        is not put back, but when they come again.
        """
        told: dict[Key, list[Event]] = {}
        for event in events:
            if event.digest and event.action in TEACHING:
                told.setdefault((event.registry, event.digest), []).append(event)
        documents = {key: _document(of_one) for key, of_one in told.items()}
        news = {key: row for key, row in documents.items() if not self._is_settled(key, row)}
        known = self._insert([row for key, row in news.items() if self._known.get(key) is None])
        waiting = {row["_id"]: row for row in news.values() if row["_id"] not in known}
        while waiting:
            stored = self._find(list(waiting))
            refused = self._improve((row, waiting[name]) for name, row in stored.items())
            for name in stored.keys() - refused:
                known[name] = _better(stored[name], waiting[name])
            waiting = {name: waiting[name] for name in refused}
        taught = set()
        for key, told_now in news.items():
            row = known.get(told_now["_id"])
            if row is None:  # removed meanwhile; by another process, which has the lease now
                self._known.drop(key)
                continue
            self._known.put(key, _Told(row["told_by"], row.get("references_by")))
            if _taught(row, told_now):
                taught.add(key)
        return taught

    def _is_settled(self, key: Key, row: Document) -> bool:
        """Whether it is remembered that earlier events told all that these tell."""
        told = self._known.get(key)
        if told is None or row["told_by"] <= told.facts:
            return False
        by = row.get("references_by")
        return by is None or (told.references is not None and by > told.references)

    def _insert(self, documents: Sequence[Document]) -> dict[str, Document]:
        """Insert documents; returns by `_id` those that were not there before."""
        inserted = {row["_id"]: row for row in documents}
        for start in range(0, len(documents), BULK):
            batch = list(documents[start : start + BULK])
            try:
                self._collection.insert_many(batch, ordered=False)
            except BulkWriteError as error:
                for index in only_duplicates(error):
                    del inserted[batch[index]["_id"]]
        return inserted

    def _find(self, ids: Sequence[str]) -> dict[str, Document]:
        found: dict[str, Document] = {}
        if len(ids) > MANY and 2 * len(ids) > self._collection.estimated_document_count():
            wanted = set(ids)
            return {row["_id"]: row for row in self._collection.find() if row["_id"] in wanted}
        for chunk in chunks(ids):
            rows = self._collection.find({"_id": {"$in": chunk}})
            found |= {row["_id"]: row for row in rows}
        return found

    def _improve(self, pairs: Iterable[tuple[Document, Document]]) -> set[str]:
        """Update what is stored, as it was read, where something earlier was told.

        Returns the `_id` of all in a bulk of which another process changed one meanwhile.
        """
        refused: set[str] = set()
        updates = []
        for stored, told in pairs:
            better = _better(stored, told)
            changed = {name: value for name, value in better.items() if stored.get(name) != value}
            if changed:
                as_read = {name: stored.get(name) for name in ("_id", "told_by", "references_by")}
                updates.append((stored["_id"], UpdateOne(as_read, {"$set": changed})))
        for start in range(0, len(updates), BULK):
            ids, writes = zip(*updates[start : start + BULK], strict=True)
            if self._collection.bulk_write(list(writes), ordered=False).matched_count < len(ids):
                refused |= set(ids)
        return refused

    def remove_registry(self, registry: str) -> None:
        """Forget the manifests of one registry."""
        self._collection.delete_many({"registry": registry})
        self._known.forget()

    def find_digests(self, registries: Iterable[str], start: str, limit: int) -> list[str]:
        """Known digests that begin with `start`, at most `limit`: not yet for a person."""
        found: set[str] = set()
        for registry in registries:
            first = _id(registry, start)
            query = {"_id": {"$gte": first, "$lt": f"{first}\U0010ffff"}}
            rows = self._collection.find(query, {"digest": 1}).sort("_id", 1).limit(limit)
            found |= {str(row["_id"]).partition(" ")[2] for row in rows}
        return sorted(found)[:limit]

    def find(self, registry: str, digests: Iterable[str]) -> dict[str, Manifest]:
        """Known manifests of a registry by digest; unknown ones are left out."""
        ids = sorted({_id(registry, digest) for digest in digests})
        return {row["digest"]: _manifest(row) for row in self._find(ids).values()}

    def find_sizes(self, registry: str, digests: Iterable[str]) -> dict[str, int | None]:
        """Bytes by digest; see find_whole."""
        found = self.find_whole(registry, digests)
        return {digest: whole.size for digest, whole in found.items()}

    def find_whole(self, registry: str, digests: Iterable[str]) -> dict[str, Whole]:
        """Known manifests of a registry by digest, each with the size of all its content."""
        wanted = set(digests)
        known = level = self.find(registry, wanted)
        for _ in range(MAX_DEPTH):
            below = {child for manifest in level.values() for child in manifest.children}
            level = self.find(registry, below - known.keys())
            if not level:
                break
            known = known | level
        return {
            digest: Whole(known[digest], _size(digest, known)) for digest in wanted & known.keys()
        }


def held_blobs(digest: str, find: Callable[[str], Manifest | None]) -> tuple[dict[str, int], bool]:
    """What a manifest holds as far as `find` knows it, and whether that is all of it.

    Config and layers, those of an index and of all manifests in it, digest → bytes: the most of
    what manifests say.
    """
    blobs: dict[str, int] = {}
    is_whole = True
    seen: set[str] = set()
    waiting = [digest]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        manifest = find(one)
        if manifest is None or not manifest.references:
            is_whole = False
            continue
        for blob, size in manifest.blobs.items():
            blobs[blob] = max(size, blobs.get(blob, size))
        waiting += manifest.children
    return blobs, is_whole


def _size(digest: str, known: Mapping[str, Manifest]) -> int | None:
    blobs, is_whole = held_blobs(digest, known.get)
    return add_sizes(blobs.values()) if is_whole else None


def _id(registry: str, digest: str) -> str:
    return f"{registry} {digest}"


def _document(events: Sequence[Event]) -> Document:
    """What events of one manifest tell together."""
    first = min(events, key=_rank)
    document: Document = {
        "_id": _id(first.registry, first.digest or ""),
        "registry": first.registry,
        "digest": first.digest,
        "media_type": first.media_type,
        "size": first.size,
        "kind": first.kind,
        "told_by": _rank(first),
    }
    telling = [event for event in events if event.references]
    if telling:
        teller = min(telling, key=_rank)
        document["kind"] = teller.kind
        document["references"] = msgspec.to_builtins(teller.references)
        document["references_by"] = _rank(teller)
    return document


def _rank(event: Event) -> str:
    """The least of events tells; one that names no media type does while none does."""
    return f"{0 if event.media_type else 1} {event.position}"


def _better(stored: Document, told: Document) -> Document:
    """Of two documents of one manifest what the earlier events told."""
    first = min(stored, told, key=lambda row: str(row["told_by"]))
    telling = [row for row in (stored, told) if "references" in row]
    teller: dict[str, Any] = min(telling, key=lambda row: str(row["references_by"]), default={})
    names = ("kind", "references", "references_by")
    return first | {name: teller[name] for name in names if name in teller}


def _taught(row: Document, told: Document) -> bool:
    """Whether what is known in `row` comes from `told`."""
    by = told.get("references_by")
    return row["told_by"] == told["told_by"] or (by is not None and row["references_by"] == by)


def _manifest(document: Document) -> Manifest:
    references = msgspec.convert(document.get("references", []), tuple[Descriptor, ...])
    return Manifest(
        digest=document["digest"],
        media_type=document["media_type"],
        kind=document["kind"],
        size=document["size"],
        references=references,
    )
