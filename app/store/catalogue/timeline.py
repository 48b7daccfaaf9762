"""What the moves of a tag make of it. Pure.

Moves are documents of `tag_history`: pushes and sightings of the tag, and the deletes of it, of a
digest, or of its repository.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from app.store.catalogue.names import NEVER
from app.store.paging import Document

SEEN = "seen"  # the action of a sighting: a pull that named the tag


class Change(NamedTuple):
    """From `move` on a tag pointed to `digest`, or was gone (None)."""

    digest: str | None
    move: Document


def find_changes(moves: Iterable[Document]) -> list[Change]:
    """The moves that changed what a tag points to, oldest first."""
    changes: list[Change] = []
    current: str | None = None
    for move in _that_count(moves):
        is_delete = move["action"] == "delete"
        if is_delete and move["digest"] not in (None, current):
            continue
        digest = None if is_delete else move["digest"]
        if digest != current:
            changes.append(Change(digest, move))
        current = digest
    return changes


def digest_before(changes: Iterable[Change], position: str) -> str | None:
    """What a tag pointed to just before a position."""
    current: str | None = None
    for digest, move in changes:
        if move["position"] >= position:
            break
        current = digest
    return current


def digest_at(changes: Iterable[Change], position: str) -> str | None:
    """What a tag points to once what happened at a position has happened."""
    return digest_before(changes, f"{position}\0")


def make_tag(key: str, moves: Iterable[Document]) -> Document | None:
    """The document of a tag, or None where nothing tells of it.

    A tag that was deleted is as it was pushed last, gone since the first delete after that.
    """
    counted = _that_count(moves)
    pointing = [move for move in counted if move["action"] != "delete"]
    last = pointing[-1] if pointing else None
    deletes = [move for move in counted if move["action"] == "delete"]
    if last:
        deletes = [
            move
            for move in deletes
            if move["position"] > last["position"] and move["digest"] in (None, last["digest"])
        ]
    else:
        deletes = [move for move in deletes if move["of"] == key]
    deletion = deletes[0] if deletes else None
    known = last or deletion
    if known is None:
        return None
    tag: Document = {
        "_id": key,
        "registry": known["registry"],
        "namespace": known["repository"].rpartition("/")[0],
        "repository": known["repository"],
        "tag": known["tag"],
        "digest": None,
        "seen_by": "push",
        "position": known["position"],
        "deleted": False,
        "deleted_at": None,
    }
    if last:
        if last["action"] == SEEN:
            first = next(move for move in pointing if move["digest"] == last["digest"])
            tag |= pointed(first)
            tag |= {"position": f"{NEVER}{key}", "seen_at": first["timestamp"]}
        else:
            tag |= pointed(last)
            tag["first_pushed_at"] = pointing[0]["timestamp"]
    if deletion:
        tag |= {"deleted": True, "deleted_at": deletion["timestamp"]}
        tag["position"] = deletion["position"]
    return tag


def pointed(move: Document) -> Document:
    """What a push, or a sighting, tells of its tag."""
    facts: Document = {name: move[name] for name in ("digest", "media_type", "kind")}
    if move["action"] == SEEN:
        return facts | {"seen_by": "pull"}
    return facts | {
        "seen_by": "push",
        "position": move["position"],
        "pushed_at": move["timestamp"],
        "pushed_by": move["actor"],
    }


def is_settled(key: str, moves: Iterable[Document]) -> bool:
    """Whether a push or a delete of the tag itself is on record: sightings count no more."""
    return any(move["of"] == key and move["action"] != SEEN for move in moves)


def _that_count(moves: Iterable[Document]) -> list[Document]:
    """By position; sightings only where no push or delete of the tag itself is on record."""
    ordered = sorted(moves, key=lambda move: str(move["position"]))
    of_tag = {move["of"] for move in ordered if move["action"] == SEEN}
    if any(move["of"] in of_tag and move["action"] != SEEN for move in ordered):
        return [move for move in ordered if move["action"] != SEEN]
    return ordered
