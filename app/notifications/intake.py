"""Takes envelopes in: one write each, whatever they hold. The projector does the rest."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import msgspec

from app.errors import InboxFull
from app.notifications.meter import Meter
from app.notifications.projector import came
from app.rules.events import Envelope, Kept, join_events, parse_envelope
from app.rules.shares import Share, share_of
from app.store import Stores, deadline

DEADLINE_S = 0.8  # of the database: a registry waits for a second by default
LOOK_S = 5.0  # between two looks at how full the inbox is
BEHIND_S = 10.0  # an inbox that is worked in so soon is not full


class Receipt(msgspec.Struct):
    """What became of the events of one envelope; the three numbers add up to its length.

    `ignored` are transfers of blobs, `rejected` is kept whole, with the reason.
    """

    accepted: int = 0
    ignored: int = 0
    rejected: int = 0


class Intake:
    """The one way in. One instance serves all threads of a process."""

    def __init__(self, stores: Stores, max_inbox_bytes: int) -> None:
        self._inbox = stores.inbox
        self._max_bytes = max_inbox_bytes
        self._looking = threading.Lock()
        self._look_at = 0.0
        self._is_full = False
        self._projectors = 1  # among whom envelopes are divided

    def receive(
        self, body: bytes, registry: str, now: datetime | None = None, meter: Meter | None = None
    ) -> Receipt:
        """Keep one notification envelope; when this returns, what it accepted is durable.

        Raises:
            InvalidEnvelope: the body is no envelope; nothing was kept.
            StoreUnavailable: the sender must send the whole envelope again.
        """
        now = now or datetime.now(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        envelope = parse_envelope(body, registry, now)
        receipt = Receipt(len(envelope.events), envelope.ignored, len(envelope.rejected))
        if envelope.kept:
            # Not of reading a large envelope: that would take as long the next time.
            with deadline(DEADLINE_S):
                self.refuse_when_full()
                self._keep(envelope, registry, body, now)
            came.set()
        if meter:
            meter.count_envelope(registry, envelope, now)
        return receipt

    def _keep(self, envelope: Envelope, registry: str, body: bytes, now: datetime) -> None:
        """Keep what is not ignored, in one write: by shares, unless it concerns all of them."""
        if shares := divide(envelope, self._projectors):
            bodies = {share: join_events(kept) for share, kept in shares.items()}
            self._inbox.add_divided(registry, bodies, now)
        else:
            kept = join_events(envelope.kept) if envelope.ignored else body
            self._inbox.add(registry, kept, now)

    def refuse_when_full(self) -> None:
        """Raise InboxFull where it is, or was within the last 5 s."""
        if time.monotonic() >= self._look_at and self._looking.acquire(blocking=False):
            try:
                self._look_at = time.monotonic() + LOOK_S
                self._is_full = self._find_full()
            finally:
                self._looking.release()
        if self._is_full:
            raise InboxFull(
                "the inbox is full: it holds notifications.max_inbox_bytes; registries keep the "
                "rest until some is worked in"
            )

    def _find_full(self) -> bool:
        progress = self._inbox.find_progress()
        self._projectors = progress.of if progress else 1
        if progress is None or progress.seconds_behind(datetime.now(UTC)) < BEHIND_S:
            return False
        return self._inbox.size() >= self._max_bytes


def divide(envelope: Envelope, of: int) -> dict[Share, list[Kept]]:
    """What is kept of an envelope, by the shares of `of` projectors.

    Empty where one of them works everything in, or none may do so alone: a rename concerns what
    stands under other names. What was not understood goes with the first event.
    """
    if of == 1 or any(event.action == "rename" for event in envelope.events):
        return {}
    first = share_of(envelope.events[0], of) if envelope.events else 0
    found: dict[Share, list[Kept]] = {}
    for kept in envelope.kept:
        number = share_of(kept.event, of) if kept.event else first
        found.setdefault(Share(number, of), []).append(kept)
    return found
