"""What is in the catalogue, for whoever may see it: lists, counts, the history of a tag."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from pymongo.collection import Collection
from pymongo.database import Database

from app.rules.access import Rule
from app.rules.events import Event
from app.store.catalogue.history import History, TagPlace
from app.store.catalogue.names import Renames, digest_key, tag_key
from app.store.catalogue.queries import CatalogueQuery, Kind, queries_of
from app.store.catalogue.timeline import SEEN, digest_before, find_changes
from app.store.catalogue.values import Move, Repository, Tag
from app.store.errors import translate_errors
from app.store.paging import Count, Document, Page, all_of, chunks
from app.store.scope import Records, Scope, find_scope

MAX_NUMBER_LENGTH = 6  # of a number in a cursor


@translate_errors
class Catalogue:
    """Reads `repositories`, `tags` and `tag_history`; CatalogueWriter writes them."""

    def __init__(self, database: Database[Document]) -> None:
        self._repositories = database["repositories"]
        self._tags = database["tags"]
        self._history = History(database["tag_history"])

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent.

        As few as the queries need: each costs at every push. What is ranged is the only key of an
        index, or its last.
        """
        for field in ("repository", "namespace"):
            self._repositories.create_index(field)
        for field in ("repository", "digest", "first_pushed_at", "position"):
            self._tags.create_index(field)
        self._tags.create_index([("namespace", 1), ("position", 1)])
        self._history.ensure_indexes()

    def find_scope(self, rule: Rule, account: str = "", records: Records = "all") -> Scope:
        """The queries that select exactly what `rule` allows; `records` see Scope."""
        return find_scope(self._repositories, rule, account, records)

    def find_repositories(
        self, query: CatalogueQuery, scope: Scope, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Repository]:
        """Repositories by name, or by last push, newest first."""
        documents, more = self._find_page("repository", query, scope, cursor, limit)
        return Page([_struct(Repository, document) for document in documents], more)

    def find_names(self, registry: str = "") -> list[str]:
        """Every repository name of a registry, or of any, once, by name: for administrators."""
        rows = self._repositories.find({}, {"registry": 1, "repository": 1, "_id": 0})
        return sorted({row["repository"] for row in rows if registry in ("", row["registry"])})

    def find_registries(self) -> list[str]:
        """The registries of which any repository is known, by name."""
        rows = self._repositories.find({}, {"registry": 1, "_id": 0})
        return sorted({row["registry"] for row in rows})

    def find_tags(
        self, query: CatalogueQuery, scope: Scope, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Tag]:
        """Tags by repository and name, or by last push, newest first."""
        documents, more = self._find_page("tag", query, scope, cursor, limit)
        return Page([_seen_by(scope, _struct(Tag, document)) for document in documents], more)

    def count(self, kind: Kind, query: CatalogueQuery, scope: Scope, *, cap: int) -> Count:
        """How many repositories or tags match, exact up to `cap`."""
        number = 0
        for part in queries_of(kind, query, scope):
            number += self._rows(kind).count_documents(part, limit=cap + 1)
            if number > cap:
                return Count(cap, at_least=True)
        return Count(number)

    def count_tags(self, repositories: Sequence[Repository]) -> dict[tuple[str, str], int]:
        """How many tags each of one page of repositories has, by (registry, repository)."""
        names = sorted({row.repository for row in repositories})
        group = {"_id": {"registry": "$registry", "repository": "$repository"}, "n": {"$sum": 1}}
        found: dict[tuple[str, str], int] = {}
        for chunk in chunks(names):
            query = {"repository": {"$in": chunk}, "deleted": False}
            for row in self._tags.aggregate([{"$match": query}, {"$group": group}]):
                found[row["_id"]["registry"], row["_id"]["repository"]] = row["n"]
        return found

    def get_tag(self, registry: str, repository: str, tag: str, scope: Scope | None) -> Tag | None:
        """One tag, deleted or not, or None. Without a scope it is not for a person."""
        if scope and not scope.may_see(repository):
            return None
        document = self._tags.find_one({"_id": tag_key(repository, tag, registry)})
        found: Tag | None = _struct(Tag, document) if document else None
        return _seen_by(scope, found) if scope and found else found

    def find_named(self, places: Iterable[TagPlace], scope: Scope) -> list[Tag]:
        """Those of the tags (registry, repository, tag) that are there, in no order."""
        keys = {tag_key(name, tag, of) for of, name, tag in places if scope.may_see(name)}
        found: list[Document] = []
        for chunk in chunks(sorted(keys)):
            found += self._tags.find({"_id": {"$in": chunk}})
        return [_seen_by(scope, _struct(Tag, row)) for row in found if not row["deleted"]]

    def find_digests(self, registry: str, repository: str) -> dict[str, str]:
        """What every tag of a repository points to that is not deleted: not for a person.

        "" where nobody told the digest.
        """
        query = {"repository": repository, "registry": registry, "deleted": False}
        rows = self._tags.find(query, {"tag": 1, "digest": 1})
        return {row["tag"]: row.get("digest") or "" for row in rows}

    def find_history(self, tag: Tag, scope: Scope | None) -> list[Move]:
        """Every move of a tag, newest first; a push of what it already pointed to is no move.

        One that is known by pull has, of each digest, the first sighting, and the last if another
        digest was seen in between. The caller has the tag from `scope`; see get_tag.
        """
        key = tag_key(tag.repository, tag.tag, tag.registry)
        moves = self._history.find_moves([(tag.registry, tag.repository, tag.tag)])[key]
        return [
            Move(
                digest=digest,
                since=move["timestamp"],
                actor=move["actor"] if scope is None or scope.may_name(move["actor"]) else None,
                seen_by="pull" if move["action"] == SEEN else "push",
            )
            for digest, move in reversed(find_changes(moves))
        ]

    def find_tags_at(self, events: Sequence[Event]) -> dict[str, str | None]:
        """The tag that pointed to the digest of each event, there and then, by the event's id.

        None where not exactly one did. Pushes, deletes and renames tell it, and what happened
        since does not matter; nor do tags that only pulls tell of.
        """
        renames = self._history.find_renames({event.registry for event in events})
        pairs = self._find_candidates(events, renames)
        states = self._find_states({key for _, key, _ in pairs})
        late = [
            (key, tag)
            for event, key, tag in pairs
            if not _is_after(event, states.get(key), renames[event.registry])
        ]
        moves = self._history.find_moves({tag for _, tag in late})
        found: dict[str, set[str]] = {event.id: set() for event in events}
        for event, key, (_, _, name) in pairs:
            of_registry, state = renames[event.registry], states.get(key)
            if state and _is_after(event, state, of_registry):
                digest = None if state["deleted"] else state["digest"]
            else:
                digest = _digest_then(event, moves[key], of_registry)
            if digest == event.digest:
                found[event.id].add(name)
        return {key: min(names) if len(names) == 1 else None for key, names in found.items()}

    def _find_candidates(
        self, events: Iterable[Event], renames: Mapping[str, Renames]
    ) -> list[tuple[Event, str, TagPlace]]:
        """Events, each with the key and place of a tag that ever pointed to its digest."""
        wanted: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            if event.digest:
                name = renames[event.registry].name(event.repository, event.position)
                wanted[digest_key(name, event.digest, event.registry)].append(event)
        tags = {
            (move["target"], move["of"], (move["registry"], move["repository"], move["tag"]))
            for move in self._history.find_pointing(wanted)
            if move["action"] == "push"
        }
        return [(event, key, tag) for target, key, tag in tags for event in wanted[target]]

    def _find_states(self, keys: Iterable[str]) -> dict[str, Document]:
        """What tags point to now, those that pushes told of."""
        fields = dict.fromkeys(("tag", "digest", "position", "deleted", "seen_by"), 1)
        found: dict[str, Document] = {}
        for chunk in chunks(sorted(keys)):
            rows = self._tags.find({"_id": {"$in": chunk}}, fields)
            found |= {row["_id"]: row for row in rows if row["seen_by"] == "push"}
        return found

    def _rows(self, kind: Kind) -> Collection[Document]:
        return self._tags if kind == "tag" else self._repositories

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
            rows = self._rows(kind).find(all_of(part, after))
            found += rows.sort("_id", 1).limit(limit + 1)
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
        found = self._find_at(kind, parts, position)[number:] if number else []
        after = {"position": {"$lt": position}} if position else {}
        older: list[Document] = []
        for part in parts:
            rows = self._rows(kind).find(all_of(part, after)).sort("position", -1)
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
        shown = (newer + self._find_at(kind, parts, last))[:limit]
        return shown, f"{len(shown) - len(newer)} {last}"

    def _find_at(
        self, kind: Kind, parts: Iterable[dict[str, Any]], position: str
    ) -> list[Document]:
        """All that these queries select at one position, by `_id`."""
        at = {"position": position}
        found = [row for part in parts for row in self._rows(kind).find(all_of(part, at))]
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


def _seen_by(scope: Scope, tag: Tag) -> Tag:
    """`tag` without who pushed it, where that is not shown."""
    return tag if scope.may_name(tag.pushed_by) else msgspec.structs.replace(tag, pushed_by="")


def _is_after(event: Event, state: Document | None, renames: Renames) -> bool:
    """Whether a tag was as it is now when the event happened."""
    return state is not None and event.position > max(str(state["position"]), renames.last)


def _digest_then(event: Event, moves: Iterable[Document], renames: Renames) -> str | None:
    """What a tag pointed to in the event's repository, just before it, by pushes alone.

    Whoever died in between may have left sightings beside the push that overrules them.
    """
    before = (
        move
        for move in moves
        if move["action"] != SEEN
        and move["position"] < event.position
        and renames.name(move["named"], move["position"], event.position) == event.repository
    )
    return digest_before(find_changes(before), event.position)
