"""Which events are one pull, one push, one delete, one check. Pure.

A person pulls once, and a registry sends up to a dozen events. `fold` is given events of one
repository and says of each what it is part of, and which tag it concerns. The answer depends on
the set of events alone: not on the order they came in, nor on how often.

*Client* is account, address and user agent. Nodes of a registry have clocks of their own, so what
caused an event may be dated after it: by up to SKEW, and by up to BLINK where one node saw both.

Pulls and checks of one client:

1. A check with a tag (HEAD by tag) and a pull (GET) of the same digest at most WINDOW later are one
   pull with that tag. One check serves one pull. Of the possible pairs the nearest in time is taken
   first, then the nearest of what is left; of two that are as near, the one whose check stands
   before. A check that is dated after the pull counts as so far away as it is where
   another node saw it; where the same node did, it comes after all others. A pull that names a tag
   itself takes only a check of that tag.
2. The pull of an index takes in pulls and checks of its children that name no tag and were not
   paired: from SKEW (or BLINK) before it to WINDOW after the last one it took in, and to LONGEST
   after itself. Of several such pulls the newest before the child takes it, else the first after
   it. What an index that was taken in would take falls to the one that took it. Between a check and
   the pull of a child, the index is nearer than the check.
3. A check without tag is part of the next pull of its digest, at most WINDOW later, else of the one
   before, at most SKEW (or BLINK) earlier.
4. Where nobody told the children of an index: if from WINDOW before to WINDOW after it the client
   pulled, beside the index, one single digest, which is no index, and that without tag (its own or
   one that pointed to it) and check, the digest is taken for its child, from SKEW before to WINDOW
   after. Of several such pulls of an index the newest before takes it, else the first after.
5. A check that is left is a check. A pull, or check, that is left without tag has the tag that
   pointed to its digest at that time, if exactly one did.

Pushes of one account: a push without tag is part of the first push of an index that names it, or
of its own digest with a tag, at most UPLOAD later (else the last one at most SKEW before).

What a client reads back, as helm and oras do between a push by digest and that of the tag: a pull
that is left without tag, of what its client pushed without tag at most WINDOW before it (or SKEW
or BLINK after), is part of the client's first push of the digest with a tag, at most SKEW later,
else of the last one at most SKEW (or BLINK) before.

Deletes: by tag, part of the nearest delete by digest with the same request id, at most LONGEST
away, else of the nearest by the same client within BURST.

What is part of a part is part of the whole, where that is at most UPLOAD later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from app.rules.events import Event
from app.rules.folding.changes import fold_deletes, fold_readings, fold_uploads
from app.rules.folding.downloads import Downloads
from app.rules.folding.terms import (
    AFTER,
    BEFORE,
    LONGEST,
    SKEW,
    UPLOAD,
    WINDOW,
    Children,
    TagAt,
    TagFrom,
    by_time,
    client_of,
    own_tag,
)

__all__ = [
    "AFTER",
    "BEFORE",
    "LONGEST",
    "SKEW",
    "UPLOAD",
    "WINDOW",
    "Children",
    "Fold",
    "TagAt",
    "fold",
    "own_tag",
    "related",
]


class Fold(NamedTuple):
    """What is derived of one event.

    `part_of` is the id of the event that stands for what the client did, None where it is this one;
    `parent` the digest of the index that it was pulled or pushed with.
    """

    part_of: str | None = None
    parent: str | None = None
    tag: str | None = None
    tag_from: TagFrom | None = None


def fold(events: Iterable[Event], children: Children, tag_at: TagAt) -> dict[str, Fold]:
    """Fold events of one registry and repository; returns the fold of each, by its id.

    Of two events with one id the first in order of time counts.
    """
    once: dict[str, Event] = {}
    for event in sorted(events, key=by_time):
        once.setdefault(event.id, event)
    downloads: defaultdict[tuple[str, str, str], list[Event]] = defaultdict(list)
    uploads: defaultdict[str, list[Event]] = defaultdict(list)
    deletes: list[Event] = []
    for event in once.values():
        if event.action in ("pull", "check"):
            downloads[client_of(event)].append(event)
        elif event.action == "push":
            uploads[event.actor].append(event)
        elif event.action == "delete":
            deletes.append(event)
    belongs: dict[str, Event] = {}
    paired: dict[str, str] = {}
    for of_actor in uploads.values():
        fold_uploads(of_actor, children, belongs)
    for client, of_client in downloads.items():
        Downloads(of_client, children, belongs, paired).fold(tag_at)
        left = [
            event
            for event in of_client
            if event.action == "pull"
            and own_tag(event) is None
            and event.id not in belongs
            and event.id not in paired
        ]
        own = [event for event in uploads.get(client[0], ()) if client_of(event) == client]
        fold_readings(left, own, belongs)
    fold_deletes(deletes, belongs)
    return {event.id: _result(event, belongs, paired, tag_at) for event in once.values()}


def related(digests: Iterable[str], indexes: Iterable[str], children: Children) -> set[str] | None:
    """The digests whose events may be folded with those of `digests`, themselves included.

    `indexes` are those that the client pulled, or the account pushed, near by. None is any digest:
    of one of the indexes nobody told the children.
    """
    found = set(digests)
    families = []
    for index in indexes:
        names = children.get(index)
        if not names:
            return None
        families.append({index, *names})
    grew = True
    while grew:
        grew = False
        for family in families:
            if not family.isdisjoint(found) and not family <= found:
                found |= family
                grew = True
    return found


def _result(
    event: Event, belongs: Mapping[str, Event], paired: Mapping[str, str], tag_at: TagAt
) -> Fold:
    tag = own_tag(event)
    whole = _whole(event, belongs)
    if whole is not event:
        parent = None if event.action == "delete" or whole.digest == event.digest else whole.digest
        return Fold(whole.id, parent, tag, "event" if tag else None)
    if tag:
        return Fold(tag=tag, tag_from="event")
    if event.id in paired:
        return Fold(tag=paired[event.id], tag_from="paired")
    if event.action in ("pull", "check"):
        tag = tag_at(event)
    return Fold(tag=tag, tag_from="history" if tag else None)


def _whole(event: Event, belongs: Mapping[str, Event]) -> Event:
    path = [event]
    while path[-1].id in belongs:
        whole = belongs[path[-1].id]
        if whole.timestamp - event.timestamp > UPLOAD:
            break
        if whole in path:  # manifests that claim to hold each other: the first is the whole
            return min(path[path.index(whole) :], key=by_time)
        path.append(whole)
    return path[-1]
