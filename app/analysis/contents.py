"""Tags and what they hold, for what is counted over all of them: *Unused* and *Storage*."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from app.store import Stores
from app.store.catalogue import CatalogueQuery, Tag
from app.store.manifests import Manifest, held_blobs
from app.store.scope import Scope

MAX_DEPTH = 8  # of an index in an index

Content = tuple[str, str]  # registry and digest


def find_all_tags(stores: Stores, scope: Scope, query: CatalogueQuery) -> Iterable[Tag]:
    """Every tag that `query` selects, by repository and name."""
    cursor: str | None = None
    while True:
        page = stores.catalogue.find_tags(query, scope, cursor=cursor, limit=500)
        yield from page.items
        cursor = page.next
        if cursor is None:
            return


def find_contents(stores: Stores, wanted: Iterable[tuple[str, str | None]]) -> Contents:
    """What manifests, by registry and digest, hold, and the manifests in them; None is passed."""
    levels: defaultdict[str, set[str]] = defaultdict(set)
    for registry, digest in wanted:
        if digest:
            levels[registry].add(digest)
    manifests: dict[Content, Manifest] = {}
    for registry, level in levels.items():
        known: dict[str, Manifest] = {}
        for _ in range(MAX_DEPTH):
            found = stores.manifests.find(registry, level)
            known |= found
            level = {child for one in found.values() for child in one.children} - known.keys()
            if not level:
                break
        manifests |= {(registry, digest): manifest for digest, manifest in known.items()}
    return Contents(manifests)


class Contents:
    """What manifests hold, as far as that is known."""

    def __init__(self, manifests: Mapping[Content, Manifest]) -> None:
        self._manifests = manifests
        self._found: dict[Content, tuple[dict[str, int], bool]] = {}

    def children(self, registry: str, digest: str | None) -> list[str]:
        """Of an index, each once."""
        manifest = self._manifests.get((registry, digest or ""))
        return manifest.children if manifest else []

    def lacks_children(self, registry: str, digest: str) -> bool:
        """Whether it is an index, and nobody told of what."""
        manifest = self._manifests.get((registry, digest))
        return manifest is not None and manifest.kind == "index" and not manifest.references

    def blobs(self, registry: str, digest: str | None) -> tuple[dict[str, int], bool]:
        """Size by digest of what a manifest is known to hold, and whether that is all."""
        key = registry, digest or ""
        if key in self._found:
            return self._found[key]
        found = held_blobs(key[1], lambda one: self._manifests.get((registry, one)))
        if self.children(registry, digest):  # what costs more to find than to keep
            self._found[key] = found
        return found
