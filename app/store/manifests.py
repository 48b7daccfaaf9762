"""What never changes of a manifest: media type, kind, size, references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from pymongo import UpdateOne
from pymongo.collection import Collection

from app.rules.events import Descriptor, Event
from app.store.errors import translate_errors
from app.store.paging import Document, chunks

BULK = 100  # manifests of one bulk write


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Immutable facts of a digest; `size` is the manifest's own, `references` may be unknown."""

    digest: str
    media_type: str = ""
    kind: str = "image"
    size: int | None = None
    references: tuple[Descriptor, ...] = ()

    @property
    def content_size(self) -> int | None:
        """Bytes of config and layers, each once; None for an index or without references."""
        if self.kind == "index" or not self.references:
            return None
        return sum({reference.digest: reference.size for reference in self.references}.values())


@translate_errors
class ManifestStore:
    """Collection `manifests`: `_id` is the digest, whatever the repository and registry."""

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection

    def add(self, events: Iterable[Event]) -> None:
        """Keep the facts of pushed manifests; idempotent."""
        updates = [_manifest_update(event) for event in events if event.digest]
        for start in range(0, len(updates), BULK):
            self._collection.bulk_write(updates[start : start + BULK], ordered=False)

    def remove(self, digests: Sequence[str]) -> None:
        """Forget the facts of these digests."""
        for chunk in chunks(digests):
            self._collection.delete_many({"_id": {"$in": chunk}})

    def find_kind(self, digest: str) -> str | None:
        """The kind of a known manifest, or None."""
        document = self._collection.find_one({"_id": digest}, {"kind": 1})
        return str(document["kind"]) if document else None

    def find(self, digests: Iterable[str]) -> dict[str, Manifest]:
        """Known manifests by digest; unknown ones are left out."""
        found: dict[str, Manifest] = {}
        for chunk in chunks(sorted(set(digests))):
            for document in self._collection.find({"_id": {"$in": chunk}}):
                found[document["_id"]] = _manifest(document)
        return found


def _manifest_update(event: Event) -> UpdateOne:
    facts: Document = {"media_type": event.media_type, "kind": event.kind, "size": event.size}
    if event.references:
        facts["references"] = msgspec.to_builtins(event.references)
    return UpdateOne({"_id": event.digest}, {"$set": facts}, upsert=True)


def _manifest(document: Document) -> Manifest:
    references = msgspec.convert(document.get("references", []), tuple[Descriptor, ...])
    return Manifest(
        digest=document["_id"],
        media_type=document["media_type"],
        kind=document["kind"],
        size=document["size"],
        references=references,
    )
