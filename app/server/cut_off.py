"""How many clients were cut off, and why: counted over all workers, told in the log."""

from __future__ import annotations

import logging
import mmap
import time

logger = logging.getLogger(__name__)

TELL_EVERY_S = 60
REASONS = (
    "silent",  # no request at all
    "handshake",  # of TLS: not done in time, or failed
    "tls",  # to a port without it
    "plain",  # HTTP to a port with TLS
    "malformed",  # what it sent is no request
    "header",  # half a header
    "body",  # half a body
    "answer",  # not taken
    "address",  # too many connections of one address
    "full",  # too many connections, or too much in memory
)
_ROWS = 256  # workers, living and dead; see CutOffs
_WIDTH = 1 + len(REASONS)
_ADDRESS_BYTES = 64


class CutOffs:
    """Counts in memory that a master shares with its workers; made before they are forked.

    Each worker writes a row of its own, so there is no lock that a killed one could keep. A row is
    used again after 256 workers.
    """

    def __init__(self) -> None:
        rows = 8 * _WIDTH * (_ROWS + 1)
        memory = memoryview(mmap.mmap(-1, rows + _ADDRESS_BYTES))
        self._numbers = memory[:rows].cast("Q")  # the last row is what was told, and when
        self._address = memory[rows:]

    def add(self, worker: int, reason: str, address: str) -> None:
        """Count one client; `worker` tells apart who counts."""
        self._numbers[_WIDTH * (worker % _ROWS) + 1 + REASONS.index(reason)] += 1
        self._address[:] = address.encode()[:_ADDRESS_BYTES].ljust(_ADDRESS_BYTES, b"\0")

    def totals(self) -> dict[str, int]:
        """How many were cut off by all workers since the master started, by reason."""
        return {
            reason: sum(self._numbers[c : _WIDTH * _ROWS : _WIDTH])
            for c, reason in enumerate(REASONS, 1)
        }

    def tell(self) -> None:
        """Write one line to the log if anything is new, once a minute whichever worker asks."""
        now, told = int(time.monotonic()), self._numbers[_WIDTH * _ROWS :]
        if told[0] and now - told[0] < TELL_EVERY_S:
            return
        totals = self.totals()
        new = {reason: totals[reason] - told[c] for c, reason in enumerate(REASONS, 1)}
        if not any(new.values()):
            return
        told[0] = now
        for c, reason in enumerate(REASONS, 1):
            told[c] = totals[reason]
        counts = ", ".join(f"{number} {reason}" for reason, number in new.items() if number)
        address = bytes(self._address).rstrip(b"\0").decode("utf-8", "replace")
        source = address or "a Unix socket"
        logger.warning("connections cut off: %s; the last one from %s", counts, source)
