"""The record of what happened: collection `events`, append-only."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from pymongo import UpdateOne
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError

from app.rules.addresses import parse_ip
from app.rules.clients import OWN_CLIENT
from app.rules.events import Descriptor, Event, position_at
from app.rules.kinds import SUPPLEMENTS
from app.rules.references import DIGEST_TAG
from app.store.errors import only_duplicates, translate_errors
from app.store.paging import (
    Count,
    Document,
    Page,
    all_of,
    between,
    chunks,
    count_newest,
    find_newest,
    find_oldest,
)
from app.store.scope import Scope

# Blobs are mounted ones, and deletes of what is not known as a manifest. No $or: the embedded
# database uses no index for a query that has one.
NO_PARTS: dict[str, Any] = {"part_of": None}
NO_BLOBS: dict[str, Any] = {"kind": {"$ne": "blob"}}
NO_SUPPLEMENTS: dict[str, Any] = {
    "kind": {"$nin": ["blob", *sorted(SUPPLEMENTS)]},
    "tag": {"$not": re.compile(f"^{DIGEST_TAG}$")},
}
NOT_OWN: dict[str, Any] = {"client": {"$ne": OWN_CLIENT}}

MILLISECOND = timedelta(milliseconds=1)
NONE = "-"  # no account, no namespace, no tag: as the value of a filter
CONTENT = "content"  # every kind that figures count: as the value of a filter

_STORED = tuple(name for name in Event.__struct_fields__ if name not in ("id", "references"))
DERIVED = ("part_of", "parent", "tag", "tag_from", "kind")
WITHOUT_REFERENCES = {"references": 0}  # of pushes: nobody who lists events asks for them
BULK = 100  # documents of one command; longer ones keep others waiting


class LastPull(msgspec.Struct, frozen=True):
    """The newest pull of something; `actor` is None where the viewer may not know who it was."""

    timestamp: datetime
    actor: str | None
    parent: str | None


class RecordQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Filters of the record list; None and "" leave a filter out, NONE asks for what has none.

    `since` is inclusive, `until` exclusive, both aware. `network` is one address or a CIDR.
    `kind` may be CONTENT. `parts` adds the events that belong to another one's pull.
    """

    action: str | None = None
    registry: str | None = None
    namespace: str | None = None
    repository: str | None = None
    tag: str | None = None
    digest: str | None = None
    actor: str | None = None
    network: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    client: str | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    parts: bool = False


@translate_errors
class EventStore:
    """All access to the recorded events.

    An update `names_shard` of its event. The embedded database has none, and would find the event
    by the other fields, which takes it twice as long.
    """

    def __init__(self, collection: Collection[Document], *, names_shard: bool = True) -> None:
        self._collection = collection
        self._names_shard = names_shard

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent. The ranged key is always the last one."""
        self._collection.create_index("position")
        for field in ("namespace", "repository", "digest", "actor"):
            self._collection.create_index([(field, 1), ("position", 1)])

    def add(self, events: Sequence[Event]) -> set[str]:
        """Store events, each once by its id; returns the ids that were there before.

        Safe to repeat and to run concurrently: a duplicate is left as it was first stored.
        """
        known: set[str] = set()
        for start in range(0, len(events), BULK):
            batch = events[start : start + BULK]
            try:
                self._collection.insert_many(map(_document, batch), ordered=False)
            except BulkWriteError as error:
                known |= {batch[index].id for index in only_duplicates(error)}
        return known

    def set_derived(self, events: Sequence[Event]) -> None:
        """Store anew what is derived of these events; what came stays as it is."""
        for start in range(0, len(events), BULK):
            self._collection.bulk_write(
                [
                    UpdateOne(
                        self._key_of(event),
                        {"$set": {name: getattr(event, name) for name in DERIVED}},
                    )
                    for event in events[start : start + BULK]
                ],
                ordered=False,
            )

    def _key_of(self, event: Event) -> Document:
        key: Document = {"_id": event.id}
        if self._names_shard:
            key |= {"repository": event.repository, "position": event.position}
        return key

    def find_between(
        self, registry: str, repository: str, since: datetime, until: datetime | None
    ) -> list[Event]:
        """What happened in a repository from `since` to `until` (both included), in no order.

        `until` None is no bound.
        """
        bounds = between(position_at(since), position_at(until + MILLISECOND) if until else None)
        found = self._collection.find({"repository": repository, **bounds}, WITHOUT_REFERENCES)
        return [event_of(document) for document in found if document["registry"] == registry]

    def find_all_between(self, since: datetime, until: datetime | None) -> list[Event]:
        """What happened anywhere from `since` until before `until`, in no order.

        `until` None is no bound.
        """
        bounds = between(position_at(since), position_at(until) if until else None)
        return [
            event_of(document) for document in self._collection.find(bounds, WITHOUT_REFERENCES)
        ]

    def find_by_digests(self, registry: str, digests: Sequence[str]) -> list[Event]:
        """What names one of these digests, in any repository of a registry, in no order."""
        found: list[Event] = []
        for chunk in chunks(digests):
            documents = self._collection.find({"digest": {"$in": chunk}}, WITHOUT_REFERENCES)
            found += (event_of(row) for row in documents if row["registry"] == registry)
        return found

    def find_by_ids(self, ids: Sequence[str]) -> list[Event]:
        """The events with these ids, in no order."""
        found: list[Event] = []
        for chunk in chunks(ids):
            found += map(event_of, self._collection.find({"_id": {"$in": chunk}}))
        return found

    def find_known(self, ids: Sequence[str]) -> set[str]:
        """Which of these ids are on record."""
        known: set[str] = set()
        for chunk in chunks(ids):
            rows = self._collection.find({"_id": {"$in": chunk}}, {"_id": 1})
            known.update(row["_id"] for row in rows)
        return known

    def find(self, event_id: str, scope: Scope) -> Event | None:
        """The event with this id, if the scope shows it."""
        for part in scope.records_within(None):
            document = self._collection.find_one(all_of({"_id": event_id}, part))
            if document:
                return _seen_by(scope, event_of(document))
        return None

    def find_after(self, digest: str, position: str) -> list[Event]:
        """What names a digest, in any repository, and happened after `position`, in no order."""
        query = {"digest": digest, "position": {"$gt": position}}
        found = self._collection.find(query, WITHOUT_REFERENCES)
        return [event_of(document) for document in found]

    def find_page(
        self, query: RecordQuery, scope: Scope, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Event]:
        """Events newest first; `cursor` is the `next` of the page before.

        Stable under inserts: new events appear on newer pages only.
        """
        queries = _records(query, scope)
        lower, upper = _bounds(query)
        if cursor is not None:
            upper = min(cursor, upper or cursor)
        documents = find_newest(
            self._collection, queries, lower=lower, upper=upper, limit=limit + 1
        )
        more = documents[limit - 1]["position"] if len(documents) > limit else None
        return Page([_seen_by(scope, event_of(document)) for document in documents[:limit]], more)

    def count(self, query: RecordQuery, scope: Scope, *, cap: int) -> Count:
        """How many events match, exact up to `cap`."""
        lower, upper = _bounds(query)
        return count_newest(
            self._collection, _records(query, scope), lower=lower, upper=upper, cap=cap
        )

    def find_newest(self) -> Event | None:
        """The event that happened last, or None if there is none."""
        found = find_newest(self._collection, [{}], lower=None, upper=None, limit=1)
        return event_of(found[0]) if found else None

    def find_newest_of(self, registry: str) -> Event | None:
        """The event of one registry that happened last, or None."""
        found = find_newest(
            self._collection, [{"registry": registry}], lower=None, upper=None, limit=1
        )
        return event_of(found[0]) if found else None

    def find_newest_within(
        self,
        since: datetime,
        limit: int,
        *,
        until: datetime | None = None,
        registry: str | None = None,
    ) -> list[Event]:
        """The newest events from `since` until before `until`, parts too.

        All of that time is read where a registry sent little in it.
        """
        documents = find_newest(
            self._collection,
            [{} if registry is None else {"registry": registry}],
            lower=position_at(since),
            upper=position_at(until) if until else None,
            limit=limit,
        )
        return [event_of(document) for document in documents]

    def find_last_pull(self, query: RecordQuery, scope: Scope) -> LastPull | None:
        """The newest pull, by whomever, of the image that `query` names, or None."""
        event = self._find_last(msgspec.structs.replace(query, action="pull"), scope)
        if event is None:
            return None
        actor = event.actor if scope.may_name(event.actor) else None
        return LastPull(event.timestamp, actor, event.parent)

    def find_registry(self, digest: str, scope: Scope, registry: str | None = None) -> str | None:
        """A registry that told of this digest in what the scope allows, or None.

        With `registry` that one, or None.
        """
        query = RecordQuery(digest=digest, registry=registry, parts=True)
        event = self._find_last(query, scope)
        return event.registry if event else None

    def _find_last(self, query: RecordQuery, scope: Scope) -> Event | None:
        """The newest event that `query` selects, also one that the scope does not show.

        Not for a query by account, address or client: that it finds something would tell of people.
        """
        assert not any((query.actor, query.network, query.client))
        queries = _queries(query, scope.within(query.repository or None))
        lower, upper = _bounds(query)
        found = find_newest(self._collection, queries, lower=lower, upper=upper, limit=1)
        return event_of(found[0]) if found else None

    def find_pulls(
        self,
        digests: Sequence[str],
        scope: Scope,
        repository: str | None = None,
        registry: str | None = None,
    ) -> Iterator[Event]:
        """Every pull and check of these digests that is shown, parts and our own too; in no order.

        Our own as well: anybody may call its client as ours.
        """
        of_registry = {} if registry is None else {"registry": registry}
        for digest in digests:
            for part in scope.records_within(repository):
                query = all_of({"digest": digest}, part, of_registry)
                for document in self._collection.find(query):
                    if document["action"] in ("pull", "check"):
                        yield _seen_by(scope, event_of(document))

    def remove_registry(self, registry: str) -> int:
        """Delete every event of one registry; returns how many there were."""
        return self._collection.delete_many({"registry": registry}).deleted_count

    def iterate(self, since: datetime | None = None) -> Iterator[Event]:
        """Every event from `since` on, oldest first."""
        after = position_at(since) if since else ""
        yield from map(event_of, find_oldest(self._collection, {}, after))


def _seen_by(scope: Scope, event: Event) -> Event:
    """`event` without what is not shown: another repository, from where and with what it came."""
    hidden: dict[str, str | None] = {}
    if event.from_repository is not None and not scope.may_see(event.from_repository):
        hidden["from_repository"] = None
    if not scope.may_locate(event.actor):
        hidden |= dict.fromkeys(("address", "client", "user_agent"), "")
    return msgspec.structs.replace(event, **hidden) if hidden else event


def address_key(address: str) -> str | None:
    """An address as 32 hexadecimal digits (IPv4 as IPv4-mapped), so that a CIDR is a range."""
    parsed = parse_ip(address)
    return None if parsed is None else _hex(parsed)


def _hex(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    number = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
    return f"{number:032x}"


def _records(query: RecordQuery, scope: Scope) -> list[dict[str, Any]]:
    """Queries for the records that `query` selects among those that the scope shows."""
    by_client = query.network is not None or bool(query.client)
    return _queries(query, scope.records_within(query.repository or None, by_client=by_client))


def _queries(query: RecordQuery, within: list[dict[str, Any]]) -> list[dict[str, Any]]:
    fields = ("action", "registry", "namespace", "tag", "digest", "actor", "client")
    wanted: dict[str, Any] = {
        name: value for name in fields if (value := getattr(query, name)) not in (None, "")
    }
    for name, empty in (("actor", ""), ("namespace", ""), ("tag", None)):
        if wanted.get(name) == NONE:
            wanted[name] = empty
    if query.network is not None:
        first, last = query.network.network_address, query.network.broadcast_address
        wanted["address_key"] = {"$gte": _hex(first), "$lte": _hex(last)}
    parts = {} if query.parts else NO_PARTS
    ours = {} if query.client else NOT_OWN
    conditions = (wanted, parts, _kinds(query), ours)
    return [all_of(part, *conditions) for part in within]


def _kinds(query: RecordQuery) -> dict[str, Any]:
    if query.kind == CONTENT:
        return NO_SUPPLEMENTS
    if query.kind:
        return {"kind": query.kind}
    return {} if query.action == "mount" else NO_BLOBS


def _bounds(query: RecordQuery) -> tuple[str | None, str | None]:
    lower = position_at(query.since) if query.since else None
    upper = position_at(query.until) if query.until else None
    return lower, upper


def _document(event: Event) -> Document:
    document = {
        name: value for name in _STORED if (value := getattr(event, name)) not in (None, "")
    }
    # Written even when empty: "" is the namespace of `ubuntu` and the actor of an open registry.
    document |= {"_id": event.id, "namespace": event.namespace, "actor": event.actor}
    document["address"] = event.address
    if key := address_key(event.address):
        document["address_key"] = key
    if event.action == "push" and event.references:
        document["references"] = msgspec.to_builtins(event.references)
    return document


def event_of(document: Document) -> Event:
    """The event that a document of the collection holds."""
    given = {name: document[name] for name in _STORED if name in document}
    references = msgspec.convert(document.get("references", ()), tuple[Descriptor, ...])
    return Event(id=document["_id"], references=references, **given)
