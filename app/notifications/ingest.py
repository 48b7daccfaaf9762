"""From a request body to stored events: the one way in.

Order of writes: what could not be understood, manifests, catalogue, and the events last. Each is
idempotent, so a crash between any two followed by the registry's redelivery loses nothing and
counts nothing twice. Round trips of a one-event envelope: a pull by tag 1 (2 of an index), a check
2, a pull by digest 2 (3 where nothing but the catalogue can tell its tag), a push 3 (4 of an index,
which takes in its children, and by digest), a mount 1; the first event of a repository that this
process sees pulled costs one more, and so does each older day that a late event belongs to, and a
push that a migration follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import msgspec

from app.errors import InvalidEnvelope
from app.rules.events import Envelope, Event, Rejected, parse_envelope
from app.store import Stores
from app.store.events import ADOPTION_WINDOW, PAIRING_WINDOW


class Receipt(msgspec.Struct):
    """What became of the events of one envelope; the four numbers add up to its length."""

    stored: int = 0
    duplicate: int = 0
    ignored: int = 0
    rejected: int = 0


class Ingest:
    """Stores envelopes. One instance serves all threads of a process.

    `after` is called with the events of each envelope once they are stored, and with those that
    were stored before: when it raises StoreUnavailable, the redelivery makes up for it.
    """

    def __init__(
        self, stores: Stores, after: Callable[[Sequence[Event]], None] = lambda events: None
    ) -> None:
        self._stores = stores
        self._after = after

    def receive(self, body: bytes, registry: str, now: datetime | None = None) -> Receipt:
        """Store every event of one notification envelope; returns once all of it is durable.

        Raises:
            InvalidEnvelope: the body is no envelope; nothing was stored.
            StoreUnavailable: the sender must send the whole envelope again.
        """
        now = now or datetime.now(UTC)
        return self.store(parse_envelope(body, registry, now), now)

    def retry(self, rejected: Sequence[Rejected]) -> int:
        """Try rejected events again; those understood now are stored and no longer rejected."""
        stored = 0
        for event in rejected:
            body = b'{"events":[' + event.body.encode() + b"]}"
            try:
                envelope = parse_envelope(body, event.registry, event.received_at)
            except InvalidEnvelope:
                continue
            if not envelope.rejected:
                self.store(envelope, datetime.now(UTC))
                self._stores.rejected.drop(event.id)
                stored += 1
        return stored

    def store(self, envelope: Envelope, now: datetime) -> Receipt:
        """Store a parsed envelope; see `receive`."""
        if envelope.rejected:
            self._stores.rejected.add(envelope.rejected)
        events = self._resolve_deletes(envelope.events)
        receipt = Receipt(ignored=envelope.ignored + len(envelope.events) - len(events))
        receipt.rejected = len(envelope.rejected)
        self._stores.manifests.learn(envelope.events)
        self._stores.catalogue_writer.apply(envelope.events)
        if events:
            resolved = self._resolve_parts(events)
            self._stores.days.open_days((t for event in events for t in _touched(event)), now)
            receipt.stored = self._stores.events.add(resolved)
            receipt.duplicate = len(events) - receipt.stored
            self._resolve_followers(resolved)
            self._after(events)
        return receipt

    def _resolve_deletes(self, events: Sequence[Event]) -> list[Event]:
        """Give deletes by digest their kind, and leave out those of blobs.

        A delete says nothing of what it deleted: a digest that was never seen as a manifest,
        pushed or pulled, in this envelope or before, is a blob.
        """
        kept = []
        for event in events:
            if event.action != "delete" or not event.digest:
                kept.append(event)
                continue
            here = (e.kind for e in events if e.digest == event.digest and e.action != "delete")
            kind = (
                next(here, None)
                or self._find_kind(event)
                or self._stores.events.find_kind(event.repository, event.digest)
            )
            if kind:
                kept.append(msgspec.structs.replace(event, kind=kind))
        return kept

    def _find_kind(self, event: Event) -> str | None:
        digest = event.digest or ""
        manifest = self._stores.manifests.find(event.registry, [digest]).get(digest)
        return manifest.kind if manifest else None

    def _resolve_parts(self, events: Sequence[Event]) -> list[Event]:
        """Find out what belongs to another pull or push, within the envelope or before it.

        Returns each id once.
        """
        resolved: dict[str, Event] = {}
        recent: dict[tuple[str, ...], list[Event]] = {}
        for event in sorted(events, key=lambda event: event.position):
            neighbours = recent.setdefault(_client(event), [])
            if event.action == "pull" and event.digest and not event.tag:
                before = _find_before(event, neighbours)
                if before and before.action == "check":
                    resolved[before.id] = msgspec.structs.replace(before, followed_by=event.id)
                event = self._belonging(event, before or self._stores.events.pair(event))
            if event.action == "push" and event.kind != "index" and not event.tag:
                index = self._stores.events.find_adopter(event)
                if index:
                    event = msgspec.structs.replace(event, parent=index.digest)
            if event.action == "push" and event.kind == "index":
                self._stores.events.adopt(event)
                resolved.update((part.id, part) for part in _adopted(event, neighbours))
            if event.action != "pull" or event.kind == "index":
                neighbours.append(event)
            resolved[event.id] = event
        return list(resolved.values())

    def _resolve_followers(self, events: Sequence[Event]) -> None:
        """Give stored pulls what they belong to where that came after them; idempotent."""
        here = {event.id for event in events}
        for event in events:
            if event.action == "check" or (event.action == "pull" and event.kind == "index"):
                found = self._stores.events.find_followers(event)
                pulls = [pull for pull in found if pull.id not in here]
                if pulls:
                    nothing = {"tag": None, "tag_from": None, "parent": None}
                    told = self._belonging(msgspec.structs.replace(pulls[0], **nothing), event)
                    self._stores.events.set_part([told, *pulls[1:]], event)

    def _belonging(self, pull: Event, before: Event | None) -> Event:
        if before and before.action == "pull":
            return msgspec.structs.replace(pull, parent=before.digest)
        if before and before.tag:
            return msgspec.structs.replace(pull, tag=before.tag, tag_from="paired")
        tag = self._stores.catalogue.find_tags_at([pull])[pull.id]
        if tag:
            return msgspec.structs.replace(pull, tag=tag, tag_from="catalogue")
        return pull


def _touched(event: Event) -> Iterator[datetime]:
    """The earliest and latest time of events that this one may change, itself included."""
    window = ADOPTION_WINDOW if event.action == "push" else PAIRING_WINDOW
    yield event.timestamp
    if event.action != "delete":
        yield event.timestamp - window
        yield event.timestamp + window


def _client(event: Event) -> tuple[str, ...]:
    return (event.registry, event.repository, event.actor, event.address)


def _find_before(pull: Event, neighbours: Sequence[Event]) -> Event | None:
    """The in-envelope counterpart of EventStore.pair."""
    for event in reversed(neighbours[-100:]):
        if pull.timestamp - event.timestamp > PAIRING_WINDOW:
            return None
        if event.digest == pull.digest:
            if event.action == "check":
                return event
        elif event.action == "pull":
            children = {reference.digest for reference in event.references}
            if not children or pull.digest in children:
                return event
    return None


def _adopted(index: Event, neighbours: Sequence[Event]) -> list[Event]:
    """The in-envelope counterpart of EventStore.adopt."""
    children = {reference.digest for reference in index.references}
    return [
        msgspec.structs.replace(event, parent=index.digest)
        for event in neighbours
        if event.action == "push" and not event.tag and event.digest in children
    ]
