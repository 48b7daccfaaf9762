"""What events make of the catalogue, in whatever order they come, and however often."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from pymongo.database import Database

from app.rules.clients import OWN_CLIENT
from app.rules.events import Event
from app.store.catalogue.history import (
    SIGHTED,
    History,
    Place,
    TagPlace,
    make_move,
    make_rename,
    make_sighting,
)
from app.store.catalogue.names import Rename, Renames, digest_key, tag_key
from app.store.catalogue.repositories import Happened, RepositoryRows
from app.store.catalogue.sightings import Sightings
from app.store.catalogue.tags import TagRows
from app.store.catalogue.timeline import SEEN, digest_at, digest_before
from app.store.catalogue.values import Repointed
from app.store.errors import translate_errors
from app.store.paging import Document, between, chunks, select

USES = ("push", "pull", "check", "mount")


class _Placed(NamedTuple):
    """An event, and the name that its repository has now."""

    event: Event
    repository: str

    @property
    def place(self) -> Place:
        return self.event.registry, self.repository

    @property
    def tag(self) -> TagPlace:
        return self.event.registry, self.repository, self.event.tag or ""

    @property
    def is_move(self) -> bool:
        action = self.event.action
        return action == "delete" or (action == "push" and bool(self.event.tag))

    @property
    def is_sighting(self) -> bool:
        """Whether it is a pull that itself named a tag, and not our own look at the registry."""
        event = self.event
        return (
            event.action in ("pull", "check")
            and event.tag_from == "event"
            and event.client != OWN_CLIENT
            and bool(event.tag and event.digest)
        )


@translate_errors
class CatalogueWriter:
    """Writes `repositories`, `tags` and `tag_history`; Catalogue reads them.

    One process at a time for each repository, and for all where one was renamed. What stands in the
    collections is the same whatever order events come in, and in whatever batches, however often.
    Collection `events` is only asked, about the pulls of repositories that were deleted or renamed:
    those of a batch that has such a delete or rename are stored before they are applied.
    """

    def __init__(self, database: Database[Document]) -> None:
        self._events = database["events"]
        self._history = History(database["tag_history"])
        self._tags = TagRows(database["tags"], self._history)
        self._sightings = Sightings(self._history)
        self._repositories = RepositoryRows(database["repositories"], self._was_used)
        self._renames: dict[str, Renames] = {}

    def forget(self) -> None:
        """Read anew what another process may have written."""
        for rows in (self._tags, self._sightings, self._repositories):
            rows.forget()
        self._renames = {}

    def apply(self, events: Sequence[Event]) -> set[Repointed]:
        """Apply what happened; returns where another tag, or none, points to a digest now.

        Pushes and deletes move tags, renames move repositories with all that they hold, and a pull
        tells of its repository, and of its tag where nothing else does. Events that were applied
        before are named again in what is returned.
        """
        repointed: set[Repointed] = set()
        for registry, renames in self._take_renames(events).items():
            repointed |= self._rename(registry, renames)
        placed = [
            _Placed(event, self._renames[event.registry].name(event.repository, event.position))
            for event in events
            if event.action != "rename"
        ]
        moves = {
            each.event.id: make_move(each.event, each.repository) for each in placed if each.is_move
        }
        repeated = self._history.insert(list(moves.values()))
        self._place_anew([moves[id] for id in repeated])
        deletes = self._repositories.add(_happened(placed))
        repointed |= self._move_tags(placed, moves, repeated, deletes)
        self._see([each for each in placed if each.is_sighting], deletes)
        return repointed

    def is_renamed(self, event: Event) -> bool:
        """Whether the repository of an event has had another name since it happened."""
        self._find_renames({event.registry})
        return len(self._renames[event.registry].trail(event.repository, event.position)) > 1

    def remove_registry(self, registry: str) -> None:
        """Delete everything of one registry."""
        self._history.remove_registry(registry)
        self._tags.remove_registry(registry)
        self._repositories.remove_registry(registry)
        self.forget()

    def _take_renames(self, events: Iterable[Event]) -> dict[str, list[Rename]]:
        """Put renames on record; returns them by registry."""
        self._find_renames({event.registry for event in events})
        found: defaultdict[str, list[Rename]] = defaultdict(list)
        renaming = [event for event in events if event.action == "rename"]
        self._history.insert([make_rename(event) for event in renaming])
        for event in renaming:
            self._renames[event.registry].add(Rename.of(event))
            found[event.registry].append(Rename.of(event))
        return found

    def _place_anew(self, repeated: Iterable[Document]) -> None:
        """Put moves under their new names.

        What broke off before its repository was known, a rename that came then did not find.
        """
        names = {
            move["_id"]: move["repository"]
            for move in repeated
            if move["repository"] != move["named"]
        }
        stored = self._history.find_by_id(sorted(names))
        self._history.rename(stored.values(), lambda move: names[move["_id"]])

    def _find_renames(self, registries: set[str]) -> None:
        """Have the renames in these registries at hand."""
        self._renames |= self._history.find_renames(registries - self._renames.keys())

    # Tags

    def _move_tags(
        self,
        placed: Iterable[_Placed],
        moves: Mapping[str, Document],
        repeated: set[str],
        deletes: Mapping[Place, str],
    ) -> set[Repointed]:
        """Apply pushes and deletes that are in the history already."""
        once = {each.event.id: each for each in placed if each.is_move}
        concerned = self._find_deleted([e for e in once.values() if e.event.action == "delete"])
        pushes: defaultdict[TagPlace, list[Event]] = defaultdict(list)
        for each in once.values():
            if each.event.action == "push":
                pushes[each.tag].append(each.event)
        simple: dict[str, list[Document]] = {}
        for tag, some in pushes.items():
            some.sort(key=lambda event: event.position)
            is_new = repeated.isdisjoint(event.id for event in some)
            is_newest = tag not in concerned and some[0].position > deletes[tag[:2]]
            if is_new and is_newest and not self._is_before_rename(some[0]):
                simple[_key(tag)] = [moves[event.id] for event in some]
        steps, overtaken = self._tags.advance(simple)
        repointed: set[Repointed] = set()
        for move, before in steps:
            repointed.update(self._repoint(once[move["_id"]].event, (move["digest"], before)))
        for tag, some in pushes.items():
            if (key := _key(tag)) in overtaken or key not in simple:
                concerned[tag] += some
        return repointed | self._derive(concerned, deletes)

    def _derive(
        self, concerned: Mapping[TagPlace, Iterable[Event]], deletes: Mapping[Place, str]
    ) -> set[Repointed]:
        """Derive tags anew; returns what the events that concern each of them changed."""
        changes = self._tags.derive(concerned, lambda place: bool(deletes[place]))
        repointed: set[Repointed] = set()
        for tag, events in concerned.items():
            of_tag = changes.get(_key(tag), [])
            for event in events:
                if self._is_before_rename(event):  # when other moves stood under another name
                    repointed.update(self._repoint(event, {change.digest for change in of_tag}))
                    continue
                before = digest_before(of_tag, event.position)
                after = digest_at(of_tag, event.position)
                if before != after:
                    repointed.update(self._repoint(event, (before, after)))
        return repointed

    def _find_deleted(self, deletes: Sequence[_Placed]) -> defaultdict[TagPlace, list[Event]]:
        """The tags that deletes may have concerned, each with these deletes."""
        concerned: defaultdict[TagPlace, list[Event]] = defaultdict(list)
        of_digest: defaultdict[str, list[Event]] = defaultdict(list)
        of_place: defaultdict[Place, list[Event]] = defaultdict(list)
        for each in deletes:
            if each.event.tag:
                concerned[each.tag].append(each.event)
            elif each.event.digest:
                registry, repository = each.place
                key = digest_key(repository, each.event.digest, registry)
                of_digest[key].append(each.event)
            else:
                of_place[each.place].append(each.event)
        for move in self._history.find_pointing(of_digest):
            known = concerned[move["registry"], move["repository"], move["tag"]]
            known += (event for event in of_digest[move["target"]] if event not in known)
        for tag in self._tags.find_in(of_place):
            concerned[tag] += of_place[tag[:2]]
        return concerned

    def _repoint(self, event: Event, digests: Iterable[str | None]) -> Iterator[Repointed]:
        """What changes by a move, under each name that its repository had from then on."""
        trail = self._renames[event.registry].trail(event.repository, event.position)
        for digest in digests:
            if digest:
                for name, since in trail:
                    yield Repointed(event.registry, name, digest, since)

    def _is_before_rename(self, event: Event) -> bool:
        return bool(self._renames[event.registry].since(event.position))

    # Sightings

    def _see(self, placed: Sequence[_Placed], deletes: Mapping[Place, str]) -> None:
        """Keep what pulls tell of tags that were never pushed or deleted."""
        places = {_key(each.tag): each.tag for each in placed}
        rows = self._tags.find(places)
        settled = {key for key, row in rows.items() if row.seen_by == "push"}
        sightings = [
            make_sighting(_sighted(each.event), each.repository)
            for each in placed
            if _key(each.tag) not in settled
        ]
        first = self._sightings.add(sightings)
        told = {(sighting["of"], sighting["digest"]) for sighting in sightings}
        derived = {key for key, _ in first} | {
            key for key, digest in told if key not in rows or rows[key].digest != digest
        }
        self._tags.derive((places[key] for key in derived), lambda place: bool(deletes[place]))

    # Repositories

    def _was_used(self, place: Place, known_as: Iterable[str], position: str) -> bool:
        """Whether anything but a delete is on record of a repository after a position."""
        registry, repository = place
        renames = self._renames[registry]
        for name in known_as:
            query = {"repository": name, "registry": registry, "action": {"$in": USES}}
            for row in select(self._events, query, between(position, None), {"position": 1}):
                if renames.name(name, row["position"]) == repository:
                    return True
        return False

    def _rename(self, registry: str, renames: Sequence[Rename]) -> set[Repointed]:
        """Derive anew all that stands where renames moved something, from or to."""
        now = self._renames[registry]
        parents = {parent for rename in renames for parent in now.touched(rename)}
        stood = self._repositories.find_beneath(registry, parents)
        names, moves, events = self._find_all(registry, stood)
        places = [(registry, name) for name in names]
        tags = self._tags.find_in(places)
        repointed = set(_renamed(moves, now, now.without(renames)))
        self._history.remove([move["_id"] for move in moves if move["action"] == SEEN])
        moves = [move for move in moves if move["action"] != SEEN]
        self._history.rename(moves, lambda move: now.name(move["named"], move["position"]))
        settled = {move["of"] for move in moves if move["tag"]}
        tags |= {(registry, move["repository"], move["tag"]) for move in moves if move["tag"]}
        happened: defaultdict[str, list[Happened]] = defaultdict(list)
        for move in moves:
            happened[move["repository"]].append(_of_document(move["named"], move))
        sightings: list[Document] = []
        for name, row in events:
            happened[name].append(_of_document(row["repository"], row))
            if _is_sighting(row) and tag_key(name, row["tag"], registry) not in settled:
                sightings.append(make_sighting(row, name))
                tags.add((registry, name, row["tag"]))
        for rows in (self._tags, self._sightings, self._repositories):
            rows.forget()
        self._sightings.add(sightings)
        self._tags.derive(tags, lambda place: True)
        # What is repeated after it broke off finds all names, until each is where it belongs.
        origins = {event.named for some in happened.values() for event in some}
        for name, some in happened.items():
            self._repositories.set((registry, name), some, origins)
        for name in names:
            self._repositories.set((registry, name), happened.get(name, []))
        return repointed

    def _find_all(
        self, registry: str, repositories: Iterable[str]
    ) -> tuple[set[str], list[Document], list[tuple[str, Document]]]:
        """All that is on record of repositories, and of those which have a name in common.

        Returns the repositories, their moves, and their events, each with its repository now.
        """
        now = self._renames[registry]
        names: set[str] = set()
        origins: set[str] = set()
        moves: list[Document] = []
        events: list[tuple[str, Document]] = []
        waiting = set(repositories)
        while waiting:
            names |= waiting
            found = [move for name in waiting for move in self._history.find_in(registry, name)]
            came = self._repositories.find_origins(registry, waiting)
            came |= {move["named"] for move in found}
            rows = [
                (now.name(row["repository"], row["position"]), row)
                for row in self._find_events(registry, came - origins)
            ]
            origins |= came
            moves += found
            events += rows
            waiting = {now.name(move["named"], move["position"]) for move in found}
            waiting |= {name for name, _ in rows}
            waiting -= names
        return names, moves, events

    def _find_events(self, registry: str, repositories: Iterable[str]) -> Iterator[Document]:
        fields = dict.fromkeys((*SIGHTED, "action", "tag_from", "client"), 1)
        for chunk in chunks(sorted(repositories)):
            for row in self._events.find({"repository": {"$in": chunk}}, fields):
                if row["registry"] == registry and row["action"] in (*USES, "delete"):
                    yield row


def _key(tag: TagPlace) -> str:
    registry, repository, name = tag
    return tag_key(repository, name, registry)


def _happened(placed: Iterable[_Placed]) -> dict[Place, list[Happened]]:
    told: defaultdict[Place, list[Happened]] = defaultdict(list)
    for each in placed:
        event = each.event
        is_whole = event.action == "delete" and not (event.tag or event.digest)
        told[each.place].append(
            Happened(event.repository, event.action, event.position, event.timestamp, is_whole)
        )
    return told


def _of_document(named: str, row: Mapping[str, Any]) -> Happened:
    is_whole = row["action"] == "delete" and not (row.get("tag") or row.get("digest"))
    return Happened(named, row["action"], row["position"], row["timestamp"], is_whole)


def _sighted(event: Event) -> Document:
    return {name: getattr(event, name) for name in SIGHTED}


def _is_sighting(row: Mapping[str, Any]) -> bool:
    is_pull = row["action"] in ("pull", "check") and row.get("client") != OWN_CLIENT
    return is_pull and row.get("tag_from") == "event"


def _renamed(moves: Iterable[Document], now: Renames, before: Renames) -> Iterator[Repointed]:
    """Where tags began or ceased to point to digests by some of the renames.

    What moves to a name may take the place of what stood there.
    """
    for move in moves:
        if move["action"] != "push":
            continue
        registry, digest = move["registry"], move["digest"]
        trails = (names.trail(move["named"], move["position"]) for names in (now, before))
        first, second = (_turns(trail) for trail in trails)
        for name, since in first ^ second:
            yield Repointed(registry, name, digest, since)
        for since in now.added_to(before):
            if since > move["position"]:
                name = now.name(move["named"], move["position"], since)
                yield Repointed(registry, name, digest, since)


def _turns(trail: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Each name with the positions at which it was taken and given up."""
    ends = {(name, end) for (name, _), (_, end) in pairwise(trail)}
    return ends.union(trail)
