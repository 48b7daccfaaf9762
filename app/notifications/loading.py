"""What comes into the record other than through the inbox, and what is derived anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TypeVar

import msgspec

from app.errors import InvalidEnvelope, InvalidQuery, StoreUnavailable
from app.notifications.projector import Projector, came
from app.rules.events import Event, Rejected, join_events, parse_envelope
from app.store import Stores
from app.store.transfer import Row, parse_row

Result = TypeVar("Result")

BULK = 3_000  # events at once, as fewer rows are written twice; between two the inbox is worked in
PATIENCE_S = 60.0  # for which a database that does not answer is waited for
PAUSE_S = 1.0  # between two tries


class Loaded(msgspec.Struct):
    """What became of lines or events that were read."""

    stored: int = 0
    duplicate: int = 0
    rejected: int = 0


def load_events(stores: Stores, projector: Projector, events: Iterable[Event]) -> Iterator[Loaded]:
    """Store events, each once, and everything derived of them; tells after each bulk.

    The inbox is worked in between two bulks. What is stored when the caller stops stays. A database
    that is away for a moment is waited for.
    """
    waiting = iter(events)
    while batch := list(islice(waiting, BULK)):
        yield _load(stores, projector, batch)
        _patiently(projector.turn)


def load_lines(
    stores: Stores, projector: Projector, lines: Iterable[bytes], registry: str
) -> Iterator[Loaded]:
    """Read an export, or raw envelopes of `registry`, one per line; tells after each bulk.

    Raises:
        InvalidQuery: a line is neither, or an envelope while `registry` is empty; what stands
            before it is stored.
    """
    numbered = enumerate(lines, 1)
    while batch := list(islice(numbered, BULK)):
        events: list[Event] = []
        rows: list[Row] = []
        rejected: list[Rejected] = []
        problem: InvalidQuery | None = None
        for number, line in batch:
            try:
                _sort(line, registry, events, rows, rejected)
            except (InvalidQuery, InvalidEnvelope, UnicodeDecodeError) as error:
                text = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error
                problem = InvalidQuery(f"line {number}: {text}")
                break
        _patiently(partial(stores.rejected.add, rejected))
        known = _patiently(partial(stores.transfer.count_known, rows))
        _patiently(partial(stores.transfer.add, rows))
        loaded = _load(stores, projector, events)
        loaded.stored += len(rows) - known
        loaded.duplicate += known
        loaded.rejected += len(rejected)
        yield loaded
        if problem:
            raise problem
        _patiently(projector.turn)


def rebuild(stores: Stores, projector: Projector, since: datetime | None) -> Iterator[list[Event]]:
    """Derive everything anew from the events since then, the oldest first; yields each bulk."""
    events = stores.events.iterate(since)
    while batch := list(islice(events, BULK)):
        _patiently(partial(projector.rework, batch))
        yield batch
        _patiently(projector.turn)


def retry_rejected(stores: Stores, projector: Projector, rejected: Sequence[Rejected]) -> int:
    """Try rejected events again; those understood now are stored and no longer rejected."""
    understood = 0
    for event in rejected:
        try:
            envelope = parse_envelope(event.body.encode(), event.registry, event.received_at)
        except InvalidEnvelope:
            continue
        if not envelope.rejected:
            _load(stores, projector, envelope.events)
            stores.rejected.drop(event.id)
            understood += 1
    return understood


def take_in_again(stores: Stores, rejected: Sequence[Rejected]) -> list[str]:
    """Put rejected events that are understood now into the inbox; returns why the others are not.

    For a server, whose projector works them in. What goes wrong half way is done by another try.
    """
    reasons = []
    for event in rejected:
        now = datetime.now(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        body = event.body.encode()
        try:
            envelope = parse_envelope(body, event.registry, now)
        except InvalidEnvelope as error:
            reasons.append(str(error))
            continue
        if envelope.rejected:
            reasons.append(envelope.rejected[0].reason)
            continue
        if envelope.kept:
            stores.inbox.add(event.registry, join_events(envelope.kept), now)
            came.set()
        stores.rejected.drop(event.id)
    return reasons


def _load(stores: Stores, projector: Projector, events: Sequence[Event]) -> Loaded:
    if not events:
        return Loaded()
    # What a try stores before it fails was not there before.
    new = {event.id for event in events}
    new -= _patiently(partial(stores.events.find_known, sorted(new)))
    _patiently(partial(projector.load, events))
    return Loaded(len(new), len(events) - len(new))


def _patiently(work: Callable[[], Result]) -> Result:
    """Do what may be repeated, again while the database does not answer.

    Raises:
        StoreUnavailable: it has not answered for PATIENCE_S.
    """
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return work()
        except StoreUnavailable:
            if time.monotonic() >= until:
                raise
        time.sleep(PAUSE_S)


def _sort(
    line: bytes,
    registry: str,
    events: list[Event],
    rows: list[Row],
    rejected: list[Rejected],
) -> None:
    if not line.strip():
        return
    if line.startswith(b'{"collection"'):
        row = parse_row(line.decode())
        events.append(row) if isinstance(row, Event) else rows.append(row)
        return
    envelope = parse_envelope(line, registry, datetime.now(UTC))
    if not registry:
        raise InvalidQuery("an envelope, and --registry does not say of which registry")
    events += envelope.events
    rejected += envelope.rejected
