"""What is seen of the registries at the door: who sends, and who is refused and why."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from datetime import UTC, datetime

from app.errors import StoreUnavailable
from app.rules.text import clean_text
from app.store import deadline
from app.store.wiring import Sender, WiringStore

logger = logging.getLogger(__name__)

SENDER_AGAIN_S = 10.0  # between two notes of one sender
REFUSAL_AGAIN_S = 60.0  # between two of one refusal, in the log and in the store
MAX_SENDERS = 200  # that a process counts at a time
MAX_REFUSALS = 100  # that a process notes in a minute, whatever comes
MAX_TEXT = 500  # characters
NOTE_S = 0.3  # for a note to be written: what is lost is noted the next time


class Watch:
    """What one process sees; its threads share it, and all processes share the store."""

    def __init__(self, store: WiringStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._senders: dict[tuple[str, str], tuple[Sender, float]] = {}  # and when it was noted
        self._refused: dict[tuple[str, str], float] = {}

    def note_receipt(self, receipt: Sender) -> None:
        """Note one envelope that was taken in; at most every ten seconds for each sender."""
        key, beat = (receipt.registry, receipt.address), time.monotonic()
        with self._lock:
            before, noted_at = self._senders.get(key, (None, -SENDER_AGAIN_S))
            sender = _add(before, receipt)
            if is_due := beat - noted_at >= SENDER_AGAIN_S:
                self._senders.pop(key, None)
                if len(self._senders) >= MAX_SENDERS:
                    self._senders.clear()
                nothing = Sender(registry=receipt.registry, address=receipt.address, at=receipt.at)
                self._senders[key] = nothing, beat
            else:
                self._senders[key] = sender, noted_at
        if is_due:
            with contextlib.suppress(StoreUnavailable), deadline(NOTE_S):
                self._store.note_sender(sender)

    def note_refusal(self, address: str, reason: str, text: str) -> None:
        """Tell the log and the store, once a minute for each address and reason."""
        text = clean_text(text, MAX_TEXT)  # a terminal may show it
        key, beat = (address, reason), time.monotonic()
        with self._lock:
            if key in self._refused and beat - self._refused[key] < REFUSAL_AGAIN_S:
                return
            if len(self._refused) >= MAX_REFUSALS:
                recent = {k: at for k, at in self._refused.items() if beat - at < REFUSAL_AGAIN_S}
                self._refused = recent
                if len(recent) >= MAX_REFUSALS:
                    return
            self._refused[key] = beat
        logger.warning("notifications from %s are refused: %s", address or "a Unix socket", text)
        now = datetime.now(UTC)
        now = now.replace(microsecond=now.microsecond // 1000 * 1000)
        with contextlib.suppress(StoreUnavailable), deadline(NOTE_S):
            self._store.note_refusal(address, reason, text, now)


def _add(before: Sender | None, receipt: Sender) -> Sender:
    """The sender after one more envelope."""
    if before is None:
        return receipt
    return Sender(
        registry=receipt.registry,
        address=receipt.address,
        at=receipt.at,
        user_agent=receipt.user_agent,
        accepted=before.accepted + receipt.accepted,
        ignored=before.ignored + receipt.ignored,
        rejected=before.rejected + receipt.rejected,
        slowest_s=max(before.slowest_s, receipt.slowest_s),
    )
