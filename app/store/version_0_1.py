"""What version 0.1 stored, in the form of today.

It kept what a manifest holds by digest alone, and nowhere else; every move of a tag in `catalogue`,
with the rows made of them. Both outlive their events, which the retention removes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import msgspec
from pymongo import UpdateOne
from pymongo.database import Database

from app.rules.clients import client_class
from app.rules.events import Descriptor, Event
from app.rules.references import is_digest, namespace_of
from app.store.catalogue import CatalogueWriter
from app.store.manifests import MAX_DEPTH, ManifestStore
from app.store.paging import Document, chunks, find_oldest


class Place(NamedTuple):
    """A part of the work, and the position up to which that is done."""

    part: str
    after: str


class Bulk(NamedTuple):
    """How many documents are done at once, and where to go on after them."""

    number: int
    place: Place


BULK = 100  # documents at once: longer commands keep others waiting
OF_0_1: dict[str, Any] = {"registry": {"$exists": False}}  # among the manifests
MOVES: dict[str, Any] = {"type": "move"}  # in the catalogue


def count_0_1(database: Database[Document]) -> int:
    """About how many documents are gone through: events twice, as they are derived anew."""
    events = database["events"].estimated_document_count()
    return 2 * events + database["catalogue"].count_documents(MOVES)


def bring_forward_0_1(database: Database[Document], place: Place | None) -> Iterator[Bulk]:
    """Give pushes their references and events today's client class, then fill the catalogue.

    What 0.1 derived is removed last.
    """
    part, after = place or Place("events", "")
    if part == "events":
        for rows in _bulks(find_oldest(database["events"], {}, after)):
            _mend_events(database, rows)
            yield Bulk(len(rows), Place("events", rows[-1]["position"]))
        after = ""
    catalogue, manifests = CatalogueWriter(database), ManifestStore(database["manifests"])
    for rows in _bulks(find_oldest(database["catalogue"], MOVES, after)):
        told = [_event_of_move(row) for row in rows]
        manifests.learn(_with_children(database, told))
        catalogue.apply(told)
        yield Bulk(len(rows), Place("moves", rows[-1]["position"]))
    database["catalogue"].drop()
    database["manifests"].delete_many(OF_0_1)


def _bulks(rows: Iterator[Document]) -> Iterator[list[Document]]:
    while bulk := list(islice(rows, BULK)):
        yield bulk


def _mend_events(database: Database[Document], rows: Sequence[Document]) -> None:
    known = _find_manifests(database, [row["digest"] for row in rows if row["action"] == "push"])
    updates = []
    for row in rows:
        changed: Document = {}
        client = client_class(row.get("user_agent", ""))
        if client != row.get("client"):
            changed["client"] = client
        references = known.get(row.get("digest", ""), {}).get("references")
        if row["action"] == "push" and references and "references" not in row:
            changed["references"] = references
        if changed:
            key = {name: row[name] for name in ("_id", "repository", "position")}
            updates.append(UpdateOne(key, {"$set": changed}))
    if updates:
        database["events"].bulk_write(updates, ordered=False)


def _find_manifests(database: Database[Document], digests: Sequence[str]) -> dict[str, Document]:
    """What 0.1 knew of manifests, by digest."""
    found: dict[str, Document] = {}
    for chunk in chunks(sorted(set(digests))):
        for row in database["manifests"].find({"_id": {"$in": chunk}}):
            found[row["_id"]] = row
    return found


def _event_of_move(row: Document) -> Event:
    """The push or delete that moved a tag; what else it said is gone."""
    repository, *named, registry = row["of"].split(" ")
    tag = next((name for name in named if not is_digest(name)), None)
    told = row.get("tag_row", {})
    return Event(
        id=row["_id"].removeprefix("move "),
        registry=registry,
        action=row["action"],
        namespace=namespace_of(repository),
        repository=repository,
        tag=tag,
        tag_from="event" if tag else None,
        digest=row["digest"],
        media_type=told.get("media_type", ""),
        kind=told.get("kind", "image"),
        actor=row["actor"],
        timestamp=row["timestamp"],
        position=row["position"],
        received_at=row["timestamp"],
    )


def _with_children(database: Database[Document], told: Sequence[Event]) -> list[Event]:
    """Pushes with all that 0.1 knew of their manifests, and such of what these name."""
    found: list[Event] = []
    level = [event for event in told if event.action == "push"]
    for _ in range(MAX_DEPTH):
        known = _find_manifests(database, [event.digest or "" for event in level])
        level = [
            _with_facts(event, known[event.digest]) for event in level if event.digest in known
        ]
        found += level
        level = [
            msgspec.structs.replace(event, digest=reference.digest, tag=None)
            for event in level
            if event.kind == "index"
            for reference in event.references
        ]
    return found


def _with_facts(push: Event, facts: Document) -> Event:
    return msgspec.structs.replace(
        push,
        media_type=facts["media_type"],
        kind=facts["kind"],
        size=facts["size"],
        references=msgspec.convert(facts.get("references", ()), tuple[Descriptor, ...]),
    )
