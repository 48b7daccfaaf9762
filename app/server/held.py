"""Which threads wait for a client to take a long answer: never all of them."""

from __future__ import annotations

import threading

from app.server.connection import Connection


class HeldThreads:
    """The connections whose thread waits, or did during the present answer; at most `most`.

    Where one more has to wait, the client is cut off that has held its thread the longest: some
    readers of long exports, however slow, must not stop the events.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._connections: dict[Connection, None] = {}  # in the order in which they began to wait

    def enter(self, connection: Connection) -> None:
        """Its thread is going to wait."""
        with self._lock:
            if connection in self._connections:
                return
            if len(self._connections) >= self._most:
                oldest = next(iter(self._connections))
                del self._connections[oldest]
                oldest.cut_off("full")
            self._connections[connection] = None

    def leave(self, connection: Connection) -> None:
        """The answer is over."""
        with self._lock:
            self._connections.pop(connection, None)
