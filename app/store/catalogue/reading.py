"""What is in the catalogue, for whoever may see it: lists, counts, the history of a tag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pymongo.collection import Collection

from app.rules.access import Rule
from app.rules.events import Event
from app.store.catalogue.queries import CatalogueQuery, Kind, queries_of
from app.store.catalogue.values import Move, Repository, Tag
from app.store.errors import translate_errors
from app.store.paging import Count, Document, Page, all_of, chunks
from app.store.scope import Scope, find_scope

MAX_NUMBER_LENGTH = 6  # of a number in a cursor


@translate_errors
class Catalogue:
    """Reads collection `catalogue`; CatalogueWriter writes it."""

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent. The ranged key is always the last one."""
        for field in ("type", "space", "repository"):
            for last in ("_id", "position"):
                self._collection.create_index([(field, 1), (last, 1)])
        for field in ("type", "space"):
            self._collection.create_index([(field, 1), ("first_pushed_at", 1)])
        self._collection.create_index("digest")
        self._collection.create_index([("of", 1), ("position", 1)])

    def find_scope(self, rule: Rule) -> Scope:
        """The queries that select exactly what `rule` allows."""
        return find_scope(self._collection, rule)

    def find_repositories(
        self, query: CatalogueQuery, scope: Scope, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Repository]:
        """Repositories by name, or by last push, newest first."""
        documents, more = self._find_page("repository", query, scope, cursor, limit)
        return Page([_struct(Repository, document) for document in documents], more)

    def find_names(self, registry: str = "") -> list[str]:
        """Every repository name of a registry, or of any, once, by name: for administrators."""
        fields = {"registry": 1, "repository": 1, "_id": 0}
        rows = self._collection.find({"type": "repository"}, fields)
        return sorted({row["repository"] for row in rows if registry in ("", row["registry"])})

    def find_tags(
        self, query: CatalogueQuery, scope: Scope, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Tag]:
        """Tags by repository and name, or by last push, newest first."""
        documents, more = self._find_page("tag", query, scope, cursor, limit)
        return Page([_struct(Tag, document) for document in documents], more)

    def count(self, kind: Kind, query: CatalogueQuery, scope: Scope, *, cap: int) -> Count:
        """How many repositories or tags match, exact up to `cap`."""
        number = 0
        for part in queries_of(kind, query, scope):
            number += self._collection.count_documents(part, limit=cap + 1)
            if number > cap:
                return Count(cap, at_least=True)
        return Count(number)

    def count_tags(self, repositories: Sequence[Repository]) -> dict[tuple[str, str], int]:
        """How many tags each of one page of repositories has, by (registry, repository)."""
        names = sorted({row.repository for row in repositories})
        query = {"repository": {"$in": names}, "type": "tag", "deleted": False}
        group = {"_id": {"registry": "$registry", "repository": "$repository"}, "n": {"$sum": 1}}
        rows = self._collection.aggregate([{"$match": query}, {"$group": group}])
        return {(row["_id"]["registry"], row["_id"]["repository"]): row["n"] for row in rows}

    def get_tag(self, registry: str, repository: str, tag: str) -> Tag | None:
        """One tag, deleted or not, or None. The caller has asked the scope."""
        document = self._collection.find_one({"_id": f"{repository} {tag} {registry}"})
        return _struct(Tag, document) if document else None

    def find_tags_of_digest(self, event: Event) -> list[str]:
        """At most two tags that name the event's digest in its repository now."""
        query = {
            "type": "tag",
            "digest": event.digest,
            "repository": event.repository,
            "registry": event.registry,
            "deleted": False,
        }
        return [document["tag"] for document in self._collection.find(query).limit(2)]

    def find_history(self, tag: Tag) -> list[Move]:
        """Every move of a tag, newest first; a push of what it already pointed to is no move."""
        moves: list[Move] = []
        current: str | None = None
        for row in self._find_moves(tag.repository, tag.tag, tag.registry):
            is_push = row["action"] == "push"
            if not is_push and row.get("digest") not in (None, current):
                continue
            target = row["digest"] if is_push else None
            if target != current:
                moves.append(Move(digest=target, since=row["timestamp"], actor=row["actor"]))
            current = target
        return moves[::-1]

    def _find_moves(self, repository: str, tag: str, registry: str) -> list[Document]:
        """The moves of a tag, and the deletes that may have concerned it, oldest first."""
        rows = list(self._collection.find({"of": f"{repository} {tag} {registry}"}))
        digests = {row["digest"] for row in rows if row.get("digest")}
        deletes = [f"{repository} {registry}"]
        deletes += [f"{repository} {digest} {registry}" for digest in sorted(digests)]
        for chunk in chunks(deletes):
            rows += self._collection.find({"of": {"$in": chunk}})
        return sorted(rows, key=lambda row: str(row["position"]))

    def _find_page(
        self,
        kind: Kind,
        query: CatalogueQuery,
        scope: Scope,
        cursor: str | None,
        limit: int,
    ) -> tuple[list[Document], str | None]:
        if query.sort == "pushed":
            return self._find_pushed_page(kind, query, scope, cursor, limit)
        after = {} if cursor is None else {"_id": {"$gt": cursor}}
        found: list[Document] = []
        for part in queries_of(kind, query, scope):
            found += self._collection.find(all_of(part, after)).sort("_id", 1).limit(limit + 1)
        found.sort(key=lambda row: str(row["_id"]))
        more = found[limit - 1]["_id"] if len(found) > limit else None
        return found[:limit], more

    def _find_pushed_page(
        self, kind: Kind, query: CatalogueQuery, scope: Scope, cursor: str | None, limit: int
    ) -> tuple[list[Document], str | None]:
        """The newest change first.

        A delete by digest gives all its tags one position. Where a page ends among them the cursor
        also has the number of those that were shown, by `_id`.
        """
        number, position = _parse_cursor(cursor)
        parts = queries_of(kind, query, scope)
        found = self._find_at(parts, position)[number:] if number else []
        after = {"position": {"$lt": position}} if position else {}
        older: list[Document] = []
        for part in parts:
            rows = self._collection.find(all_of(part, after)).sort("position", -1)
            older += rows.limit(limit + 1)
        found += sorted(older, key=lambda row: str(row["position"]), reverse=True)
        if len(found) <= limit:
            return found, None
        last = found[limit - 1]["position"]
        if found[limit]["position"] != last:
            return found[:limit], last
        if last == position:
            return found[:limit], f"{number + limit} {last}"
        newer = [row for row in found if row["position"] > last]
        shown = (newer + self._find_at(parts, last))[:limit]
        return shown, f"{len(shown) - len(newer)} {last}"

    def _find_at(self, parts: Iterable[dict[str, Any]], position: str) -> list[Document]:
        """All that these queries select at one position, by `_id`."""
        at = {"position": position}
        found = [row for part in parts for row in self._collection.find(all_of(part, at))]
        return sorted(found, key=lambda row: str(row["_id"]))


def _parse_cursor(cursor: str | None) -> tuple[int, str]:
    """Number and position; text that has no number is a position."""
    number, _, position = (cursor or "").partition(" ")
    if position and number.isascii() and number.isdecimal() and len(number) <= MAX_NUMBER_LENGTH:
        return int(number), position
    return 0, cursor or ""


def _struct(kind: Any, document: Document) -> Any:
    fields = kind.__struct_fields__
    return kind(**{name: document[name] for name in fields if name in document})
