"""The record of what happened: collection `events`, append-only."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
from pymongo.collection import Collection
from pymongo.errors import BulkWriteError, DuplicateKeyError

from app.rules.clients import OWN_CLIENT
from app.rules.events import Event, position_at
from app.store.errors import only_duplicates, translate_errors
from app.store.paging import (
    Count,
    Document,
    Page,
    all_of,
    chunks,
    count_newest,
    find_newest,
    stages,
)
from app.store.scope import Scope

PAIRING_WINDOW = timedelta(seconds=60)
ADOPTION_WINDOW = timedelta(hours=1)  # a slow upload lies between the children and their index

# What a check or the pull of an index stands for: a check becomes PART of the pull that follows it.
# In this order, so that one $max does it and leaves the pull of an index as it is.
ALONE, PART, WHOLE = "1 alone", "2 part", "3 whole"

# A check that began a pull, and a child pulled or pushed with its index, are part of that. No $or:
# the embedded database uses no index for a query that has one.
COUNTED: dict[str, Any] = {"parent": None, "standing": {"$ne": PART}}
NOT_OWN: dict[str, Any] = {"client": {"$ne": OWN_CLIENT}}

ANY = "any"  # what the pull of an index awaits whose children the registry did not send
NONE = "-"  # no account, no namespace, no tag: as the value of a filter

_STORED = tuple(name for name in Event.__struct_fields__ if name not in ("id", "references"))


class RecordQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Filters of the record list; None and "" leave a filter out, NONE asks for what has none.

    `since` is inclusive, `until` exclusive, both aware. `network` is one address or a CIDR.
    `parts` adds the events that belong to another one's pull.
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
    since: datetime | None = None
    until: datetime | None = None
    parts: bool = False


@translate_errors
class EventStore:
    """All access to the recorded events."""

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection

    def ensure_indexes(self) -> None:
        """Create the indexes; idempotent. The ranged key is always the last one."""
        self._collection.create_index("position")
        for field in ("namespace", "repository", "digest", "actor"):
            self._collection.create_index([(field, 1), ("position", 1)])

    def add(self, events: Sequence[Event]) -> int:
        """Store events, each once by its id; returns how many were new.

        Safe to repeat and to run concurrently: a duplicate is left as it was first stored.
        """
        if len(events) == 1:
            try:
                self._collection.insert_one(_document(events[0]))
            except DuplicateKeyError:
                return 0
            return 1
        new = 0
        for start in range(0, len(events), 100):
            batch = [_document(event) for event in events[start : start + 100]]
            try:
                self._collection.insert_many(batch, ordered=False)
                new += len(batch)
            except BulkWriteError as error:
                new += len(batch) - len(only_duplicates(error))
        return new

    def pair(self, pull: Event) -> Event | None:
        """What an untagged pull of a manifest belongs to, or None.

        The newest event of the same client and repository in the 60 s before it that is either a
        check of the same digest, which is marked as paired with this pull, or the pull of an index
        that has this digest as a child. An index whose children are unknown (the registry does
        not send references) is taken to have it. One command, idempotent.
        """
        earliest = position_at(pull.timestamp - PAIRING_WINDOW)
        document = self._collection.find_one_and_update(
            {
                "repository": pull.repository,
                "position": {"$gte": earliest, "$lt": pull.position},
                "registry": pull.registry,
                "actor": pull.actor,
                "address": pull.address,
                "awaits": {"$in": [pull.digest, ANY], "$nin": [_none_of(pull.digest)]},
            },
            {"$set": {"followed_by": pull.id}, "$max": {"standing": PART}},
            sort=[("position", -1)],
        )
        return _event(document) if document else None

    def adopt(self, index: Event) -> None:
        """Make the pushes of an index's children part of the push of the index; idempotent.

        A client pushes the children first, by digest. They are those of the same registry,
        repository and actor in the hour before.
        """
        earliest = position_at(index.timestamp - ADOPTION_WINDOW)
        for children in chunks([reference.digest for reference in index.references]):
            query = {
                "repository": index.repository,
                "position": {"$gte": earliest, "$lt": index.position},
                "registry": index.registry,
                "actor": index.actor,
                "action": "push",
                "digest": {"$in": children},
                "tag": None,
            }
            self._collection.update_many(query, {"$set": {"parent": index.digest}})

    def find_followers(self, event: Event) -> list[Event]:
        """What came before `event` although it happened after it, and belongs to it; by time.

        The untagged pulls by the same client in the 60 s after it to which `pair` gives `event`.
        """
        latest = position_at(event.timestamp + PAIRING_WINDOW)
        query: dict[str, Any] = {
            "repository": event.repository,
            "registry": event.registry,
            "actor": event.actor,
            "address": event.address,
            "action": {"$in": ["pull", "check"]},
        }
        bounds = {"position": {"$gt": event.position, "$lte": latest}}
        order = {"$sort": {"position": 1}}
        mine = _awaited(event)
        followers: list[Event] = []
        newer: list[list[str]] = []  # what the checks and pulls of indexes in between await
        for row in self._collection.aggregate([*stages(query, bounds), order]):
            digest = row.get("digest")
            is_untagged = row["action"] == "pull" and row.get("tag_from") != "event"
            is_ours = _awaits(mine, digest) and not any(_awaits(other, digest) for other in newer)
            if is_untagged and is_ours:
                followers.append(_event(row))
            if "awaits" in row:
                newer.append(row["awaits"])
        return followers

    def find_adopter(self, push: Event) -> Event | None:
        """The push of an index, already stored, that takes in this push of a child, or None."""
        query = {
            "repository": push.repository,
            "registry": push.registry,
            "actor": push.actor,
            "action": "push",
            "kind": "index",
            "children": push.digest,
        }
        latest = position_at(push.timestamp + ADOPTION_WINDOW)
        bounds = {"position": {"$gt": push.position, "$lte": latest}}
        found = self._collection.aggregate([*stages(query, bounds), {"$limit": 1}])
        return next((_event(document) for document in found), None)

    def set_part(self, pulls: Sequence[Event], began: Event) -> None:
        """Store anew what pulls belong to: `began`, and no other check; idempotent.

        Takes tag and parent from the first one: they are the same for all.
        """
        first, last = pulls[0], pulls[-1]
        facts = {"tag": first.tag, "tag_from": first.tag_from, "parent": first.parent}
        earliest = position_at(first.timestamp - PAIRING_WINDOW)
        mark = {"$set": {"followed_by": last.id}, "$max": {"standing": PART}}
        self._collection.update_one({"_id": began.id}, mark)
        for ids in chunks([pull.id for pull in pulls]):
            self._collection.update_many({"_id": {"$in": ids}}, {"$set": facts})
            others = {
                "repository": first.repository,
                "position": {"$gte": earliest, "$lt": last.position},
                "followed_by": {"$in": ids},
                "_id": {"$ne": began.id},
                "action": "check",
            }
            self._collection.update_many(others, {"$set": {"followed_by": None, "standing": ALONE}})

    def find_kind(self, repository: str, digest: str) -> str | None:
        """The kind of a manifest that was seen pulled or pushed in a repository, or None."""
        query = {"digest": digest, "repository": repository, "action": {"$in": ["push", "pull"]}}
        document = self._collection.find_one(query, {"kind": 1})
        return str(document["kind"]) if document else None

    def find_page(
        self, query: RecordQuery, scope: Scope, *, cursor: str | None = None, limit: int = 50
    ) -> Page[Event]:
        """Events newest first; `cursor` is the `next` of the page before.

        Stable under inserts: new events appear on newer pages only.
        """
        queries = _queries(query, scope)
        lower, upper = _bounds(query)
        if cursor is not None:
            upper = min(cursor, upper or cursor)
        documents = find_newest(
            self._collection, queries, lower=lower, upper=upper, limit=limit + 1
        )
        more = documents[limit - 1]["position"] if len(documents) > limit else None
        return Page([_seen_by(scope, _event(document)) for document in documents[:limit]], more)

    def count(self, query: RecordQuery, scope: Scope, *, cap: int) -> Count:
        """How many events match, exact up to `cap`."""
        lower, upper = _bounds(query)
        return count_newest(
            self._collection, _queries(query, scope), lower=lower, upper=upper, cap=cap
        )

    def find_newest_time(self) -> datetime | None:
        """When the newest event happened, or None if there is none."""
        found = find_newest(self._collection, [{}], lower=None, upper=None, limit=1)
        return found[0]["timestamp"] if found else None

    def find_last(self, action: str, query: RecordQuery, scope: Scope) -> Event | None:
        """The newest event of one action among those that `query` selects, or None."""
        only = msgspec.structs.replace(query, action=action)
        page = self.find_page(only, scope, limit=1)
        return page.items[0] if page.items else None

    def find_by_digests(
        self,
        digests: Sequence[str],
        scope: Scope,
        repository: str | None = None,
        registry: str | None = None,
    ) -> Iterator[Event]:
        """Every pull and check of these digests, parts and our own too; in no order.

        Our own as well: anybody may call its client as ours.
        """
        of_registry = {} if registry is None else {"registry": registry}
        for digest in digests:
            for part in scope.within(repository):
                query = all_of({"digest": digest}, part, of_registry)
                for document in self._collection.find(query):
                    if document["action"] in ("pull", "check"):
                        yield _event(document)

    def find_digests(self, registry: str) -> set[str]:
        """The digests that events of one registry name."""
        documents = self._collection.find({"registry": registry}, {"digest": 1})
        return {document["digest"] for document in documents if document.get("digest")}

    def find_known_digests(self, digests: Sequence[str]) -> set[str]:
        """Those of `digests` that any event names."""
        known: set[str] = set()
        for chunk in chunks(digests):
            for document in self._collection.find({"digest": {"$in": chunk}}, {"digest": 1}):
                known.add(document["digest"])
        return known

    def remove_registry(self, registry: str) -> int:
        """Delete every event of one registry; returns how many there were."""
        return self._collection.delete_many({"registry": registry}).deleted_count

    def iterate(self) -> Iterator[Event]:
        """Every event, oldest first, in slices that do not hold the database up."""
        after = ""
        while True:
            query = {"position": {"$gt": after}}
            documents = list(self._collection.find(query).sort("position", 1).limit(500))
            for document in documents:
                yield _event(document)
            if not documents:
                return
            after = documents[-1]["position"]


def _seen_by(scope: Scope, event: Event) -> Event:
    """`event` without the name of another repository that may not be seen."""
    if event.from_repository is None or scope.may_see(event.from_repository):
        return event
    return msgspec.structs.replace(event, from_repository=None)


def address_key(address: str) -> str | None:
    """An address as 32 hexadecimal digits (IPv4 as IPv4-mapped), so that a CIDR is a range."""
    try:
        return _hex(ipaddress.ip_address(address))
    except ValueError:
        return None


def _hex(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    number = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
    return f"{number:032x}"


def _queries(query: RecordQuery, scope: Scope) -> list[dict[str, Any]]:
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
    counted = {} if query.parts else COUNTED
    ours = {} if query.client else NOT_OWN
    return [all_of(part, wanted, counted, ours) for part in scope.within(query.repository or None)]


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
    if event.kind == "index" and event.references:
        document["children"] = [reference.digest for reference in event.references]
    if awaited := _awaited(event):
        document["standing"] = WHOLE if event.action == "pull" else ALONE
        if event.followed_by and event.action == "check":
            document["standing"] = PART
        document["awaits"] = awaited
    return document


def _awaited(event: Event) -> list[str | None]:
    """The digests whose pull belongs to a check or the pull of an index; see `pair`."""
    if event.action == "check":
        return [event.digest]
    if event.action == "pull" and event.kind == "index":
        return [child.digest for child in event.references] or [ANY, _none_of(event.digest)]
    return []


def _awaits(awaited: Sequence[str | None], digest: str | None) -> bool:
    """The counterpart of the condition in `pair`."""
    return (digest in awaited or ANY in awaited) and _none_of(digest) not in awaited


def _none_of(digest: str | None) -> str:
    return f"not {digest}"


def _event(document: Document) -> Event:
    given = {name: document[name] for name in _STORED if name in document}
    return Event(id=document["_id"], **given)
