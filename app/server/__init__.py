"""gunicorn's configuration: `rns serve` and plain `gunicorn wsgi:app` both read this.

With `mongodb.uri: embedded` the master starts the database before the workers and stops it after
them.
"""

from __future__ import annotations

import contextlib
import logging
import logging.config
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from app import kept_secret_key
from app.analysis.summaries import Closer
from app.embedded import EmbeddedDatabase
from app.errors import AppError, ConfigError, StartupError, StoreUnavailable
from app.migration import load_plans
from app.settings import Settings, check_listener, load_settings, parse_bind
from app.store import Stores, connect

logger = logging.getLogger(__name__)

KEEPALIVE_S = 75  # longer than the 60 s between events that proxies usually allow
PREPARE_PAUSE_S = 1.0  # between two tries to prepare a database that was away at the start
SEND_LIMIT_S = 30.0  # for a client to send a whole request, TLS handshake and body included
EMBEDDED_NOTICE = (
    "embedded database: to try this out, up to about 50,000 events. "
    "For production set mongodb.uri; `rns events export` and `import` move what is here."
)

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "app.logs.LineFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s: %(message)s",
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO"},
        "gunicorn.access": {"level": "WARNING"},
        "pymongo": {"level": "WARNING"},
    },
}


def gunicorn_settings(settings: Settings) -> dict[str, Any]:
    """What gunicorn needs to know, by its own setting names."""
    return {
        "bind": [settings.server.bind],
        "worker_class": "app.server.Worker",
        "workers": settings.server.workers,
        "threads": settings.server.threads,
        "keepalive": KEEPALIVE_S,
        "timeout": 60,
        "graceful_timeout": 20,
        "certfile": settings.server.tls.certificate or None,
        "keyfile": settings.server.tls.private_key or None,
        "control_socket_disable": True,
        "preload_app": False,  # a MongoClient must not cross the fork
        "forwarded_allow_ips": "",  # X-Forwarded-* is read by the application alone
        "worker_tmp_dir": "/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108
        "logconfig_dict": LOGGING,
    }


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's gthread, but a client that sends too slowly is cut off.

    gthread itself would let each such client occupy a thread for ever (Slowloris). An answer may
    take as long as it likes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._receiving: dict[int, tuple[float, Any]] = {}  # by thread: since when, connection

    def load_wsgi(self) -> None:
        """Load the application, and note when it has what the client sent."""
        super().load_wsgi()
        application: Callable[..., Any] = self.wsgi  # type: ignore[has-type]

        def noting(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            def start(*args: Any) -> Any:
                self._receiving.pop(threading.get_ident(), None)
                return start_response(*args)

            has_body = environ.get("CONTENT_LENGTH") or environ.get("HTTP_TRANSFER_ENCODING")
            if not has_body:
                self._receiving.pop(threading.get_ident(), None)
            return application(environ, start)  # type: ignore[no-any-return]

        self.wsgi = noting

    def handle(self, conn: Any) -> Any:
        """Serve one request of a connection; runs in a thread of the pool."""
        self._receiving[threading.get_ident()] = (time.monotonic(), conn)
        try:
            return super().handle(conn)
        finally:
            self._receiving.pop(threading.get_ident(), None)

    def notify(self) -> None:
        """Tell the master that the worker lives, at least once a second; hang up meanwhile."""
        super().notify()
        for thread, (since, conn) in list(self._receiving.items()):
            if time.monotonic() - since > SEND_LIMIT_S:
                self._receiving.pop(thread, None)
                peer = conn.client[0] if isinstance(conn.client, tuple) else conn.client
                logger.warning("%s sent no whole request in %.0f s: cut off", peer, SEND_LIMIT_S)
                with contextlib.suppress(OSError):
                    conn.sock.shutdown(socket.SHUT_RDWR)


class Hooks:
    """What the gunicorn master does around its workers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database: EmbeddedDatabase | None = None
        self._is_prepared = False
        self._master = 0

    def on_starting(self, server: Any) -> None:
        """Start the embedded database, create indexes and, if there is none, the first account."""
        logging.config.dictConfig(LOGGING)
        self._master = os.getpid()
        try:
            for address in server.cfg.address:  # -b and GUNICORN_CMD_ARGS included
                if not isinstance(address, str):  # the path of a Unix socket
                    host = address[0] if isinstance(address, tuple) else ""
                    check_listener(self._settings, host, f"{host or 'a file descriptor'}")
            check_port(self._settings.server.bind)
            self._start()
        except AppError as error:
            if self._database:
                self._database.stop()
            print(f"rns: {error}", file=sys.stderr)
            sys.exit(1)

    def _start(self) -> None:
        load_plans(self._settings)  # raises where a worker would, which gunicorn would start again
        if self._settings.is_embedded:
            data_dir = Path(self._settings.mongodb.data_dir)
            self._database = EmbeddedDatabase(data_dir, logger.warning)
            self._database.start()
            logger.warning(EMBEDDED_NOTICE)
        if not self._settings.server.secret_key:
            kept_secret_key(Path(self._settings.mongodb.data_dir))  # raises as load_plans does
        try:
            prepare(connect(self._settings), self._settings)
            self._is_prepared = True
        except StoreUnavailable as error:
            logger.error("starting without the database: %s", error)

    def post_worker_init(self, worker: Any) -> None:
        """Work in the background, and let the master alone end a worker.

        A terminal sends Ctrl-C to both. gunicorn 27's own handlers of SIGINT and SIGQUIT shut the
        thread pool down inside the signal handler, which now and then waits for its own lock.
        """
        Closer(lambda: connect(self._settings)).start()
        if not self._is_prepared:
            threading.Thread(target=self._prepare_later, name="preparer", daemon=True).start()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGQUIT, worker.handle_exit)

    def _prepare_later(self) -> None:
        """Prepare the database that was away at the start as soon as it answers."""
        stores = connect(self._settings)
        while True:
            try:
                prepare(stores, self._settings)
            except StoreUnavailable:
                time.sleep(PREPARE_PAUSE_S)
            else:
                logger.info("the database answers")
                return

    def on_exit(self, server: Any) -> None:
        """Stop the embedded database, after the workers."""
        if self._database and os.getpid() == self._master:
            self._database.stop()


def prepare(stores: Stores, settings: Settings) -> None:
    """Create indexes, and `admin` with a random password where our own database has no account.

    A database that is away now is no reason not to start: POST /events answers 503 until it is
    back, and the registry keeps its events.

    Raises:
        StoreUnavailable: nothing is lost by trying again.
    """
    stores.ensure_indexes()
    there = settings.docker_auth
    if there.uri or there.htpasswd or stores.accounts.has_any():
        return
    # Several processes may get here at once; whoever does not hold the lease leaves it to who does.
    lease, owner = "first account", secrets.token_hex(8)
    if not stores.leases.take(lease, owner, datetime.now(UTC)):
        return
    try:
        if not stores.accounts.has_any():
            _add_first_account(stores, settings)
    finally:
        stores.leases.give_back(lease, owner)


def _add_first_account(stores: Stores, settings: Settings) -> None:
    name = next(iter(settings.access.administrators), "admin")
    password = secrets.token_urlsafe(12)
    if stores.accounts.add(name, password, {}):
        # To the terminal and not through the log, which is kept.
        print(
            f"\n  First account: {name}\n  Password:      {password}\n"
            f"  Shown once; change it with: rns accounts passwd {name}\n",
            flush=True,
        )


def check_port(bind: str) -> None:
    """Raise StartupError when nothing can listen on `bind`.

    gunicorn itself would try for five seconds, with a traceback's worth of lines.
    """
    host, port = parse_bind(bind)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartupError(f"server.bind: cannot listen on {bind}: {reason}") from None


def configure(namespace: dict[str, Any]) -> None:
    """Fill the namespace of a gunicorn configuration file; exits with one line if it cannot."""
    try:
        settings = load_settings()
    except ConfigError as error:
        print(f"rns: {error}", file=sys.stderr)
        sys.exit(1)
    hooks = Hooks(settings)
    namespace.update(gunicorn_settings(settings))
    namespace.update(
        on_starting=hooks.on_starting,
        post_worker_init=hooks.post_worker_init,
        on_exit=hooks.on_exit,
    )
