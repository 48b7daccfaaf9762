"""From events to everything that is known: catalogue, manifests, what is one pull, open days.

Each step is idempotent, and what it makes does not depend on the order in which events come. So a
crash between any two of them, followed by the same events once more, loses and doubles nothing.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from app.notifications.recent import CHANGES, Neighbourhood, Place, Recent, is_foldable, place
from app.rules.events import Event, position_at
from app.rules.folding import AFTER, BEFORE, LONGEST, SKEW, UPLOAD, Fold, fold
from app.rules.shares import WHOLE, Share
from app.store import Stores
from app.store.catalogue import Repointed
from app.store.events import DERIVED
from app.store.manifests import Key, Manifest

MAX_MANIFESTS = 10_000  # that are at hand
# Events of a repository that lie further apart change nothing in common, and are folded apart.
APART = CHANGES

After = Callable[[Sequence[Event]], None]


class Derivation:
    """Works events in. Only one process may do so at a time, for each `share` of the repositories.

    `after` is called with the events once they are stored, also if they were stored before.
    `before_write` is called before anything is written, and stops all by what it raises.
    """

    share: Share = WHOLE

    def __init__(
        self,
        stores: Stores,
        after: After = lambda events: None,
        before_write: Callable[[], None] = lambda: None,
    ) -> None:
        self._stores = stores
        self._after = after
        self._before_write = before_write
        self._recent = Recent(stores.events)
        self._manifests: OrderedDict[Key, Manifest] = OrderedDict()
        self._newest: str | None = None  # position of all that is on record

    def forget(self) -> None:
        """Trust nothing that is at hand: another process may have written, or this one in part."""
        self._recent.forget()
        self._manifests.clear()
        self._newest = None
        self._stores.manifests.forget()
        self._stores.catalogue_writer.forget()

    def work_in(self, events: Sequence[Event], now: datetime | None = None) -> int:
        """Store events, each once, and everything derived of them; returns how many were new.

        Raises:
            StoreUnavailable: they must be given once more.
        """
        now = now or datetime.now(UTC)
        given = list({event.id: event for event in reversed(events)}.values())[::-1]
        if any(map(_is_sweeping, given)):
            known = self._store_first(given, now)
        else:
            late = self._learn(given)
            given = [self._with_kind(event) for event in given]
            known = self._fold_in(given, late, now)
        self._after(given)
        return len(given) - len(known)

    def _store_first(self, given: Sequence[Event], now: datetime) -> set[str]:
        """Store events before the catalogue is told, which then reads what else is on record."""
        self._before_write()
        self._stores.days.open_days((event.timestamp for event in given), now)
        known = self._stores.events.add(given)
        self._recent.forget()
        self._newest = None
        late = self._learn(given)
        stored = self._find_stored(given)
        self._fold_in([], [*stored, *late], now)
        return known

    def rework(self, events: Sequence[Event], now: datetime | None = None) -> None:
        """Derive everything anew from events that are on record, and open their days."""
        now = now or datetime.now(UTC)
        late = {event.id: event for event in (*self._learn(events), *events)}
        self._stores.days.open_days((event.timestamp for event in events), now)
        self._fold_in([], list(late.values()), now)

    def fold_anew(self, events: Sequence[Event], now: datetime | None = None) -> None:
        """Derive anew what events on record are part of, and what is around them."""
        self._fold_in([], events, now or datetime.now(UTC))

    def _learn(self, events: Sequence[Event]) -> list[Event]:
        """Apply events to manifests and catalogue; returns what on record that concerns."""
        self._before_write()
        better = self._stores.manifests.learn(events)
        self._before_write()
        self._tell_others(better)
        repointed = self._stores.catalogue_writer.apply(events)
        for key in better:
            self._manifests.pop(key, None)
        self._know_manifests((e.registry, e.digest) for e in events if e.digest)
        return self._find_late(better, repointed)

    def _tell_others(self, manifests: Iterable[Key]) -> None:
        """Have the other shares look again at what names these manifests.

        Also where nothing does: it may be worked in just now, by what was known before.
        """
        if self.share.of > 1:
            for registry, digests in _by_registry(manifests).items():
                self._stores.inbox.tell_others(registry, digests, self.share)

    def look_again(
        self, registry: str, digests: Collection[str], now: datetime | None = None
    ) -> None:
        """Derive anew what names these manifests, of which another share learned something."""
        manifests = {(registry, digest) for digest in digests}
        for key in manifests:
            self._manifests.pop(key, None)
        self.fold_anew(self._find_late(manifests, ()), now)

    def _find_late(self, better: Iterable[Key], repointed: Iterable[Repointed]) -> list[Event]:
        """Events on record that new facts of a manifest, or of the history of a tag, concern."""
        found: dict[str, Event] = {}
        for registry, digests in _by_registry(better).items():
            for event in self._stores.events.find_by_digests(registry, digests):
                if self.share.has(event):
                    found[event.id] = event
        for change in repointed:
            if change.position < self._find_newest():
                for event in self._stores.events.find_after(change.digest, change.position):
                    if place(event) == (change.registry, change.repository):
                        found[event.id] = event
        return list(found.values())

    def _find_newest(self) -> str:
        """The position of the newest event on record."""
        if self._newest is None:
            newest = self._stores.events.find_newest()
            self._newest = newest.position if newest else ""
        return self._newest

    def _with_kind(self, event: Event) -> Event:
        if not event.digest or event.action in ("mount", "rename"):
            return event
        manifest = self._manifests.get((event.registry, event.digest))
        kind = manifest.kind if manifest else "blob" if event.action == "delete" else event.kind
        return event if kind == event.kind else msgspec.structs.replace(event, kind=kind)

    # Folding

    def _fold_in(self, given: Sequence[Event], late: Sequence[Event], now: datetime) -> set[str]:
        """Store `given`, and all that folding changes; returns the ids that were there before.

        `late` are on record, and all that is derived of them is derived anew.
        """
        self._know_manifests((e.registry, e.digest) for e in late if e.digest)
        seeds = {event.id: self._with_kind(event) for event in late}
        seeds |= {event.id: event for event in given}
        # One event from a clock that is ahead must not make all others look old.
        newest = min(self._find_newest(), position_at(now))
        on_record = {event.id: event for event in late}
        groups = [
            _Group(found, on_record, self._recent.around(found, newest))
            for found in _by_place_and_time(seeds.values())
        ]
        self._fold_groups(groups)
        for group in groups:
            on_record |= group.on_record
        derived = {event.id: event for group in groups for event in group.derived}
        changed = [
            event
            for event in derived.values()
            if event.id in on_record and _is_derived_otherwise(event, on_record[event.id])
        ]
        new = [derived[event.id] for event in given if event.id not in on_record]
        self._before_write()
        self._stores.days.open_days((event.timestamp for event in (*new, *changed)), now)
        doubled = self._stores.events.add(new)
        self._before_write()
        self._stores.events.set_derived(changed)
        self._recent.put(changed)
        self._recent.put(event for event in new if event.id not in doubled)
        self._newest = max([self._find_newest(), *(event.position for event in new)])
        if any(is_foldable(event) for event in new if event.id in doubled):
            self._repair(given, doubled, now)
        return {event.id for event in given if event.id in on_record} | doubled

    def _repair(self, given: Sequence[Event], doubled: set[str], now: datetime) -> None:
        """Fold anew with what is on record under the ids of events that say otherwise."""
        self._recent.forget()
        self._fold_in([], self._find_stored(given), now)

    def _find_stored(self, given: Sequence[Event]) -> list[Event]:
        """What is on record under the ids of events; one may be of another share's repository."""
        stored = self._stores.events.find_by_ids([event.id for event in given])
        return list(filter(self.share.has, stored))

    def _fold_groups(self, groups: Sequence[_Group]) -> None:
        """Fold, ask for the tags that only the history can tell, and fold with those."""
        for group in groups:
            group.children = self._find_children(group.registry, group.find_indexes())
            group.fold({})
        asked = [event for group in groups for event in group.asked]
        if asked:
            tags = self._stores.catalogue.find_tags_at(asked)
            for group in groups:
                if group.asked:
                    group.fold(tags)

    def _find_children(self, registry: str, indexes: Collection[str]) -> dict[str, list[str]]:
        """The children of indexes by digest, as far as they are known."""
        self._know_manifests((registry, digest) for digest in indexes)
        found: dict[str, list[str]] = {}
        for digest in indexes:
            manifest = self._manifests.get((registry, digest))
            if manifest and manifest.kind == "index" and manifest.references:
                found[digest] = [reference.digest for reference in manifest.references]
        return found

    def _know_manifests(self, keys: Iterable[tuple[str, str]]) -> None:
        """Have at hand what is known of manifests."""
        unknown: defaultdict[str, set[str]] = defaultdict(set)
        for registry, digest in keys:
            if (registry, digest) not in self._manifests:
                unknown[registry].add(digest)
        for registry, digests in unknown.items():
            for digest, manifest in self._stores.manifests.find(registry, digests).items():
                self._manifests[registry, digest] = manifest
        while len(self._manifests) > MAX_MANIFESTS:
            self._manifests.popitem(last=False)


class _Group:
    """Events of one repository that are folded together: `seeds`, and what is around them.

    `late` are events as they are on record, among them those of the seeds that are.
    """

    def __init__(
        self, seeds: Sequence[Event], late: Mapping[str, Event], around: Neighbourhood
    ) -> None:
        self._seeds = seeds
        self._were = [late[event.id] for event in seeds if event.id in late]
        self._around = around
        self.registry = seeds[0].registry
        self.children: dict[str, list[str]] = {}
        self.on_record: dict[str, Event] = {}
        self.derived: list[Event] = []
        self.asked: list[Event] = []
        moments = [event.timestamp for event in seeds]
        self._first, self._last = min(moments), max(moments)

    def find_indexes(self) -> set[str]:
        """The digests of all indexes that may matter."""
        own = {e.digest for e in self._seeds if e.kind == "index" and e.digest}
        return own | self._around.find_indexes(self._seeds)

    def fold(self, tags: Mapping[str, str | None]) -> None:
        """Derive what belongs to what; `asked` are events whose tag is not among `tags`."""
        seeds = {event.id: event for event in self._seeds if is_foldable(event)}
        # One that is no index any more holds nothing of what it held.
        changing = [event for event in (*seeds.values(), *self._were) if is_foldable(event)]
        self.on_record = self._around.find_related(changing, self.children)
        events = {**self.on_record, **seeds}
        for event in self._seeds:
            if event.id not in seeds:
                events.pop(event.id, None)
        beside = self._around.find_own_pushes(events.values())
        asked: dict[str, Event] = {}

        def tag_at(event: Event) -> str | None:
            if event.id in tags:
                return tags[event.id]
            if event.id not in seeds and event.part_of is None and event.tag_from != "paired":
                return event.tag  # as it was told when it was stored
            asked[event.id] = event
            return None

        folds = fold({**beside, **events}.values(), self.children, tag_at)
        self.derived = [event for event in self._seeds if event.id not in seeds]
        self.derived += [
            _with_fold(event, folds[id]) for id, event in events.items() if self._is_near(event)
        ]
        self.asked = [event for event in asked.values() if self._is_near(event)]

    def _is_near(self, event: Event) -> bool:
        """Whether the seeds may change it, and all that decides over it is known."""
        if event.action == "push":
            return self._first - 2 * (UPLOAD + SKEW) <= event.timestamp <= self._last + 2 * SKEW
        if event.action == "delete":
            return self._first - LONGEST <= event.timestamp <= self._last + LONGEST
        return self._first - BEFORE <= event.timestamp <= self._last + AFTER


def _by_registry(manifests: Iterable[Key]) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for registry, digest in manifests:
        found[registry].append(digest)
    return found


def _is_sweeping(event: Event) -> bool:
    """Whether it deletes a repository as a whole."""
    return event.action == "delete" and not event.digest and not event.tag


def _is_derived_otherwise(event: Event, other: Event) -> bool:
    return any(getattr(event, name) != getattr(other, name) for name in DERIVED)


def _with_fold(event: Event, result: Fold) -> Event:
    derived = result._asdict()
    if all(getattr(event, name) == value for name, value in derived.items()):
        return event
    return msgspec.structs.replace(event, **derived)


def _by_place_and_time(events: Iterable[Event]) -> Iterator[list[Event]]:
    places: defaultdict[Place, list[Event]] = defaultdict(list)
    for event in events:
        places[place(event)].append(event)
    for found in places.values():
        found.sort(key=lambda event: event.position)
        group = [found[0]]
        for event in found[1:]:
            if event.timestamp - group[-1].timestamp > APART:
                yield group
                group = []
            group.append(event)
        yield group
