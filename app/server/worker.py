"""gunicorn's worker, for a port that anybody can reach.

gthread gives a thread to whoever connects, so a few clients that send or take nothing hold up all
others. Here a thread gets whole requests only, and leaves its answer behind. What waits for a
client is done by the poller, which never blocks.
"""

from __future__ import annotations

import logging
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv6Address, ip_address, ip_network
from itertools import chain
from queue import SimpleQueue
from typing import Any

from gunicorn.http.errors import ParseException
from gunicorn.workers.gthread import ThreadWorker

from app.notifications.meter import Meter
from app.notifications.watch import Watch
from app.server.connection import PIECE_BYTES, READ, WRONG_SCHEMES, Connection, Limits
from app.server.cut_off import CutOffs
from app.server.exchange import BodyReader, Exchange
from app.server.held import HeldThreads
from app.server.tls import Certificate

logger = logging.getLogger(__name__)

TICK_S = 1.0  # between two looks for connections whose time is over
STOP_IDLE_S = 2.0  # that a worker which stops listens to connections between two requests
STOP_TICK_S = 0.1
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
UNLIMITED = ("127.0.0.1", "::1", "")  # a proxy on this machine, or on a Unix socket


@dataclass(frozen=True)
class Room:
    """What there is for all clients of a process together.

    `of_address` is how many connections one address may have; None is any number. `held_bytes`
    bounds what is kept of requests and answers that are not whole.
    """

    of_address: int | None = 200
    held_bytes: int = 64 * 1024 * 1024
    limits: Limits = field(default_factory=Limits)


class Worker(ThreadWorker):  # type: ignore[misc]
    """gthread with a poller that does all that can take long."""

    room = Room()
    watch: Watch | None = None  # told of who speaks the wrong scheme
    meter: Meter | None = None  # for the application: `rns.meter`
    missed: SimpleQueue[int] | None = None  # signals that came before its own handlers were there
    cut_offs = CutOffs()  # the master loads this class, and shares them with all workers

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.alive: bool
        self._open: dict[Connection, str] = {}  # with what counts as its address
        self._waiting: dict[Connection, None] = {}  # the poller has them; in the order they came
        self._of_address: Counter[str] = Counter()
        self._held = HeldThreads(max(1, self.cfg.threads // 2))
        self._certificate = Certificate(self.cfg) if self.cfg.is_ssl else None
        self._asked_bytes = 0  # of the requests that threads have, or are to have
        self._tick_at = 0.0

    def init_signals(self) -> None:
        """Let the master alone end a worker, from before the application is loaded.

        A terminal sends Ctrl-C to both. gunicorn 27's own handlers of SIGINT and SIGQUIT shut the
        thread pool down inside the signal handler, which now and then waits for its own lock, and
        raise SystemExit wherever the worker is, which a finalizer prints and forgets.
        """
        super().init_signals()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGQUIT, self.handle_exit)
        while self.missed and not self.missed.empty():
            if self.missed.get_nowait() in ENDING:
                self.alive = False

    def load_wsgi(self) -> None:
        """Load the application, and let it see how many were cut off: `rns.cut_off` by reason."""
        super().load_wsgi()
        application: Callable[..., Any] = self.wsgi  # type: ignore[has-type]

        def seeing(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            environ["rns.cut_off"] = self.cut_offs.totals
            environ["rns.meter"] = self.meter
            return application(environ, start_response)  # type: ignore[no-any-return]

        self.wsgi = seeing

    def run(self) -> None:
        """Serve until told to stop, then finish what was begun."""
        self.poller.register(self.method_queue.fileno(), READ, self.method_queue.run_callbacks)
        self.set_accept_enabled(True)
        while self.alive and self.is_parent_alive():
            self._turn(TICK_S)
        self.alive = False
        self.set_accept_enabled(False)
        self._take_in_last()
        self._tick_at = 0.0
        stop_at = time.monotonic() + self.cfg.graceful_timeout
        while self._open and time.monotonic() < stop_at:
            self._turn(STOP_TICK_S)
        for connection in self._open:
            connection.cut_off("")  # its thread may have it: do not close
        self.tpool.shutdown(wait=False)
        self.poller.close()
        self.method_queue.close()

    def _take_in_last(self) -> None:
        """Take in who has connected already, and listen no more.

        The kernel resets who waits to be taken in when the last process closes the socket, and
        refuses who comes then: that one knows that nobody has what it would have sent.
        """
        for listener in self.sockets:
            for _ in range(self.cfg.backlog):  # who floods us is not waited for
                if not self.accept(listener):
                    break
            listener.close()

    def _turn(self, tick_s: float) -> None:
        self.notify()
        self.wait_for_and_dispatch_events(tick_s)
        now = time.monotonic()
        if now >= self._tick_at:
            self._tick_at = now + tick_s
            self.set_accept_enabled(self.alive)  # it may have been disabled for want of files
            self._end_overdue(now)
            self.cut_offs.tell()

    def _end_overdue(self, now: float) -> None:
        for connection in list(self._waiting):
            state = connection.state
            if not self.alive and state in ("handshake", "silent", "idle"):
                connection.deadline = min(connection.deadline, now + STOP_IDLE_S)
            if connection.deadline > now or (state == "answer" and connection.is_taking()):
                continue
            if not self.alive or state in ("idle", "closing"):
                self._end(connection)
            else:
                self._cut(connection, state)

    def accept(self, listener: Any) -> bool:
        """Take one connection in, or close it at once if there is no room for it.

        False where there was none, or no more can be taken in now.
        """
        try:
            sock, client = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False  # another worker was faster, or the client is gone
        except OSError:  # the process may open no more files
            if not self._drop_oldest():  # else its file is free
                self.set_accept_enabled(False)
            return False
        source, limit = source_of(client), self.room.of_address
        if limit is not None and self._of_address[source] >= limit and source not in UNLIMITED:
            self.cut_offs.add(self.age, "address", source)
            sock.close()
        elif len(self._open) >= self.worker_connections and not self._drop_oldest():
            self.cut_offs.add(self.age, "full", source)
            sock.close()
        else:
            tls = self._certificate.wrap if self._certificate else None
            server = listener.getsockname()
            connection = Connection(sock, client, server, self.room.limits, tls)
            self._open[connection] = source
            self._of_address[source] += 1
            self._waiting[connection] = None
            self._attend(connection)
        return True

    def _attend(self, connection: Connection, _sock: Any = None) -> None:
        """Go on with a connection that is new, ready, or given back by its thread."""
        if connection not in self._open:
            return  # an earlier event of the same turn ended it
        try:
            self._watch(connection, connection.advance())
            if connection.state == "whole":
                self._enqueue(connection)
            elif connection.state == "over":
                self._end(connection)
            elif connection.held_bytes > PIECE_BYTES:
                self._shed()
        except Exception:  # the worker must outlive whatever one client does
            logger.exception("closing a connection")
            if connection in self._open:
                self._end(connection)

    def _enqueue(self, connection: Connection) -> None:
        """Have a thread answer, unless this is large and too much waits for threads already."""
        size = connection.held_bytes
        if size > PIECE_BYTES and self._asked_bytes + size > self.room.held_bytes:
            self._cut(connection, "full")
            return
        del self._waiting[connection]
        exchange = Exchange(connection, self.cfg, self.room.limits.take_s, self._held)
        self._asked_bytes += exchange.size
        self.enqueue_req(exchange)

    def _watch(self, connection: Connection, events: int) -> None:
        """Have the selector wait for these events of the connection, and for no others."""
        if events == connection.events:
            return
        descriptor, attend = connection.sock.fileno(), partial(self._attend, connection)
        if not events:
            self.poller.unregister(descriptor)
        elif connection.events:
            self.poller.modify(descriptor, events, attend)
        else:
            self.poller.register(descriptor, events, attend)
        connection.events = events

    def handle(self, exchange: Exchange) -> bool:
        """Answer one request, in a thread of the pool; returns whether another one may follow."""
        try:
            may_follow = super().handle(exchange)
            exchange.flush()
        except OSError:
            return False
        finally:
            self._held.leave(exchange.connection)
        return bool(may_follow)

    def handle_request(self, req: Any, exchange: Exchange) -> Any:
        """Have the application answer."""
        req._expected_100_continue = False  # the poller said it, where it was to be said
        req.body.reader = BodyReader(req.body.reader)
        if not exchange.can_go_on:
            req.force_close()
        return super().handle_request(req, exchange)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what is no request without a line of the log for each: anybody can send many."""
        if req is None and isinstance(exc, ParseException):
            client.refuse(exc)
        else:
            super().handle_error(req, client, addr, exc)

    def _keepalive_after(self, exchange: Exchange, keepalive: bool) -> bool:
        """Whether another request may follow; nothing is left of this one, read or not."""
        return keepalive and exchange.can_go_on and not exchange.parser.mesg.body.failed

    def finish_request(self, exchange: Exchange, future: Future[bool]) -> None:
        """Take a connection back from its thread."""
        connection = exchange.connection
        self._asked_bytes -= exchange.size
        if exchange.is_malformed:
            self.cut_offs.add(self.age, "malformed", self._open[connection])
        is_done = not future.cancelled() and not future.exception()
        connection.give_back(is_last=not (is_done and future.result()))
        self._waiting[connection] = None
        self._attend(connection)

    def _shed(self) -> None:
        """Cut off who holds much and waits the longest, until the others fit in memory."""
        held_bytes = sum(connection.held_bytes for connection in self._waiting)
        for connection in list(self._waiting):
            if held_bytes <= self.room.held_bytes:
                break
            if connection.held_bytes > PIECE_BYTES:
                held_bytes -= connection.held_bytes
                self._cut(connection, "full")

    def _drop_oldest(self) -> bool:
        """Make room for one more connection; false where every other one is being answered.

        Those go first that never asked for anything, then those between two requests.
        """
        strangers = (c for c in self._waiting if not c.has_asked)
        idle = (c for c in self._waiting if c.state == "idle")
        oldest = next(chain(strangers, idle, self._waiting), None)
        if oldest:
            self._cut(oldest, "full")
        return oldest is not None

    def _cut(self, connection: Connection, reason: str) -> None:
        connection.cut_for = reason
        self._end(connection)

    def _end(self, connection: Connection) -> None:
        source = self._open.pop(connection)
        if connection.cut_for:
            self.cut_offs.add(self.age, connection.cut_for, source)
        if self.watch and connection.cut_for in WRONG_SCHEMES:
            address = connection.client[0] if isinstance(connection.client, tuple) else ""
            text = WRONG_SCHEMES[connection.cut_for]
            self.tpool.submit(self.watch.note_refusal, address, connection.cut_for, text)
        self._watch(connection, 0)
        self._waiting.pop(connection, None)
        self._of_address[source] -= 1
        if not self._of_address[source]:
            del self._of_address[source]
        connection.close()


def source_of(client: Any) -> str:
    """What counts as one address: of IPv6 a /64, which is what one customer gets."""
    if not isinstance(client, tuple):
        return ""  # of a Unix socket
    address = ip_address(client[0].partition("%")[0])
    if isinstance(address, IPv6Address):
        mapped = address.ipv4_mapped
        if mapped or address.is_loopback:
            return str(mapped or address)
        return str(ip_network((int(address), 64), strict=False))
    return str(address)
