"""Which repositories, tags and manifests exist, and every move of a tag.

Collection `catalogue` holds three types of rows, so that one push is one command:

- `repository`: `_id` "name registry"; first seen, last push, last delete by digest or as a whole
- `tag`: `_id` "name tag registry"; what it points to now, or when it was deleted
- `move`: `_id` of the event; `of` the tag, repository or "name digest registry" that it changed

Every write is conditional on `position`: the newest change of a row wins, whatever order the
events come in, and repeating a write changes nothing. Collection `manifests` (`_id` digest) keeps
what never changes: media type, kind, size, references.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from app.rules.access import Rule
from app.rules.events import Descriptor, Event
from app.store.errors import only_duplicates, translate_errors
from app.store.paging import Count, Document, Page, all_of, chunks
from app.store.scope import Scope, find_scope

BULK = 50  # events of one bulk write; each is up to three updates
Write = tuple[dict[str, Any], dict[str, Any]]  # query, update

Kind = Literal["repository", "tag"]

MAX_NUMBER_LENGTH = 6  # of a number in a cursor
NEVER = "-"  # begins the position of a repository that was pulled but never pushed


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """A known repository. `pushed_at` is None when only pulls of it were seen."""

    registry: str
    namespace: str
    repository: str
    pushed_at: datetime | None = None
    deleted: bool = False


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """What a tag points to; `digest` is None when it was deleted before any push was seen."""

    registry: str
    namespace: str
    repository: str
    tag: str
    digest: str | None = None
    media_type: str = ""
    kind: str = "image"
    pushed_at: datetime | None = None
    pushed_by: str = ""
    deleted: bool = False
    deleted_at: datetime | None = None


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a tag: from `since` on it pointed to `digest`, or was gone (None)."""

    digest: str | None
    since: datetime
    actor: str = ""


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


class CatalogueQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Filters of the repository and tag lists; None, and "" of a text, leave a filter out.

    `q` and `tag_pattern` are patterns: `^begin`, a glob with `*` or `?`, else a substring.
    For tags, `q` may be `repository:tag` with a pattern on both sides.
    """

    q: str | None = None
    registry: str | None = None
    repository: str | None = None
    tag: str | None = None
    tag_pattern: str | None = None
    digest: str | None = None  # tags only: a digest or the beginning of one
    namespace: str | None = None  # "" is that of names without a slash
    since: datetime | None = None  # tags only: first pushed at or after, and before `until`
    until: datetime | None = None
    sort: Literal["name", "pushed"] = "name"
    deleted: bool = False  # also what was deleted


@translate_errors
class Catalogue:
    """All access to the catalogue and the manifests."""

    def __init__(self, collection: Collection[Document], manifests: Collection[Document]) -> None:
        self._collection = collection
        self._manifests = manifests

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

    # Writing

    def add_manifests(self, events: Iterable[Event]) -> None:
        """Keep the facts of pushed manifests; idempotent."""
        updates = [_manifest_update(event) for event in events if event.digest]
        for start in range(0, len(updates), 100):
            self._manifests.bulk_write(updates[start : start + 100], ordered=False)

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

    def remove_manifests(self, digests: Sequence[str]) -> None:
        """Forget the facts of these digests."""
        for chunk in chunks(digests):
            self._manifests.delete_many({"_id": {"$in": chunk}})

    # Reading

    def find_kind(self, digest: str) -> str | None:
        """The kind of a known manifest, or None."""
        document = self._manifests.find_one({"_id": digest}, {"kind": 1})
        return str(document["kind"]) if document else None

    def find_manifests(self, digests: Iterable[str]) -> dict[str, Manifest]:
        """Known manifests by digest; unknown ones are left out."""
        found: dict[str, Manifest] = {}
        for chunk in chunks(sorted(set(digests))):
            for document in self._manifests.find({"_id": {"$in": chunk}}):
                found[document["_id"]] = _manifest(document)
        return found

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
        for part in _queries(kind, query, scope):
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
        for part in _queries(kind, query, scope):
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
        parts = _queries(kind, query, scope)
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


def _queries(kind: Kind, query: CatalogueQuery, scope: Scope) -> list[dict[str, Any]]:
    wanted: dict[str, Any] = {}
    if query.registry:
        wanted["registry"] = query.registry
    if query.namespace is not None:
        wanted["namespace"] = query.namespace
    if query.since or query.until:
        bounds = {"$gte": query.since, "$lt": query.until}
        wanted["first_pushed_at"] = {key: value for key, value in bounds.items() if value}
    if not query.deleted:
        wanted["deleted"] = False
    patterns: list[dict[str, Any]] = []
    name, _, tag = (query.q or "").partition(":") if kind == "tag" else (query.q or "", "", "")
    for field, pattern in (("repository", name), ("tag", tag), ("tag", query.tag_pattern)):
        if pattern:
            patterns.append(_matches(field, pattern))
    if query.tag:
        patterns.append({"tag": query.tag})
    if query.digest:
        patterns.append({"digest": _begins_with(query.digest)})
    parts = (_placed(kind, part) for part in scope.within(query.repository or None))
    return [all_of(part, wanted, *patterns) for part in parts]


def _placed(kind: str, part: dict[str, Any]) -> dict[str, Any]:
    """A scope's condition as one on a single indexed field.

    The embedded database takes the wrong index, or none, where a query names two fields that are
    indexed; hence `space`, type and namespace in one, and no `type` beside a repository.
    """
    if "repository" in part:
        return {**part, "tag": {"$exists": kind == "tag"}}
    if "namespace" not in part:
        return {"type": kind}
    names = part["namespace"]
    if isinstance(names, str):
        return {"space": f"{kind} {names}"}
    return {"space": {"$in": [f"{kind} {name}" for name in names["$in"]]}}


def _matches(field: str, pattern: str) -> dict[str, Any]:
    """`^begin`, a glob with `*` or `?` (both cross `/`), or a substring. Names are lower case."""
    text = pattern.lower() if field == "repository" else pattern
    if text.startswith("^"):
        return {field: _begins_with(text[1:])}
    if "*" in text or "?" in text:
        return {field: {"$regex": glob_expression(text)}}
    return {field: {"$regex": re.escape(text)}}


def glob_expression(text: str) -> str:
    """A glob as a regular expression that takes linear time for each star.

    What stands between two stars is taken where it comes first (an atomic group), never again
    elsewhere: another place leaves less for the rest.
    """
    first, *rest = (re.escape(part).replace(r"\?", ".") for part in text.split("*"))
    if not rest:
        return f"^{first}$"
    between = "".join(f"(?>.*?{part})" for part in rest[:-1])
    return f"^{first}{between}.*{rest[-1]}$"


def _begins_with(text: str) -> dict[str, str]:
    return {"$gte": text, "$lt": f"{text}\U0010ffff"}


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


def _struct(kind: Any, document: Document) -> Any:
    fields = kind.__struct_fields__
    return kind(**{name: document[name] for name in fields if name in document})
