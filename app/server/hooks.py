"""What happens around the workers: before the first, in each, and after the last."""

from __future__ import annotations

import logging
import logging.config
import os
import re
import signal
import socket
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from app import kept_secret_key
from app.analysis.summaries import Closer
from app.embedded import EmbeddedDatabase
from app.errors import AccountsUnavailable, AppError, StartupError, StoreUnavailable
from app.logs import COMPLAIN_S, Complaints, logging_config
from app.migration import load_plans
from app.notifications.crew import Crew
from app.notifications.meter import Meter
from app.notifications.watch import Watch
from app.server.catalogue_checks import CatalogueChecker
from app.server.connection import Limits
from app.server.listening import check_port
from app.server.preparation import prepare, token_server_of
from app.server.projecting import make_projector
from app.server.worker import Room, Worker
from app.settings import Settings, check_listener
from app.store import PATIENT_TIMEOUT_MS, connect
from app.store.schema import NEWEST

logger = logging.getLogger(__name__)

PREPARE_PAUSE_S = 1.0  # before a try to prepare a database that was away at the start
BREAK_OFF_S = 10.0  # that a worker which ends waits for a bulk of the preparation to end

SWITCH_S = 0.001  # a request waits no longer for the thread that works the inbox in


class Hooks:
    """What the gunicorn master does around its workers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database: EmbeddedDatabase | None = None
        self._is_prepared = False
        self._preparer: threading.Thread | None = None
        self._ended = threading.Event()
        self._meter = Meter([registry.name for registry in settings.registries])  # before the fork

    def on_starting(self, server: Any) -> None:
        """Start the embedded database and prepare it, or exit with one line."""
        log = self._settings.log
        logging.config.dictConfig(logging_config(log.format, log.level))
        try:
            for address in server.cfg.address:  # -b and GUNICORN_CMD_ARGS included
                if not isinstance(address, str):  # the path of a Unix socket
                    host = address[0] if isinstance(address, tuple) else ""
                    check_listener(self._settings, host, f"{host or 'a file descriptor'}")
            if self._settings.server.bind in server.cfg.bind:  # -b may say another one
                check_port(self._settings.server.bind)
            self._start()
        except (AppError, KeyboardInterrupt) as error:
            if self._database:
                self._database.stop()
            if isinstance(error, KeyboardInterrupt):
                sys.exit(130)  # as a shell names the end by Ctrl-C
            print(f"rns: {error}", file=sys.stderr)
            sys.exit(1)

    def _start(self) -> None:
        load_plans(self._settings)  # raises where a worker would, which gunicorn would start again
        if self._settings.is_embedded:
            data_dir = Path(self._settings.mongodb.data_dir)
            self._database = EmbeddedDatabase(data_dir, logger.warning)
            self._database.start()
            self._database.announce()
        if not self._settings.server.secret_key:
            kept_secret_key(Path(self._settings.mongodb.data_dir))  # raises as load_plans does
        stores = connect(self._settings)
        try:
            if stores.schema.note() == NEWEST:
                self._is_prepared = prepare(stores, self._settings)
            else:  # may take long: a worker does it, while probes and registries are answered
                logger.warning("an older version wrote the database: events wait in the inbox")
        except StoreUnavailable as error:
            logger.error("starting without the database: %s", error)
        try:
            if token_server := token_server_of(self._settings):
                token_server.check()
        except AccountsUnavailable as error:  # events are taken in all the same
            logger.error("starting without sign-ins: %s", error)

    def when_ready(self, server: Any) -> None:
        """Say where the pages are and where registries send to."""
        for listener in server.LISTENERS:
            if str(listener).startswith("unix:"):
                logger.info("listening on %s, for a proxy on this machine", listener)
                continue
            base = f"{_reachable(str(listener))}{self._settings.server.base_path}"
            logger.info("the pages are at %s/, registries send to %s/events", base, base)

    @staticmethod
    def post_fork(server: Any, worker: Any) -> None:
        """Have a worker see signals that come before its own handlers are there.

        Until then it has the master's, which put them into what is now a copy of the master's
        queue: told to end just then, it would go on, and be killed after `graceful_timeout`.
        """
        worker.missed = server.SIG_QUEUE

    def post_worker_init(self, worker: Any) -> None:
        """Tell the worker what it has room for, and work in the background."""
        sys.setswitchinterval(SWITCH_S)
        self._meter.use_row(worker.age)
        if isinstance(worker, Worker):  # gunicorn's own options may name another one
            worker.room = room_for(self._settings)
            worker.watch = Watch(connect(self._settings).wiring)
            worker.meter = self._meter
        if self._is_prepared:
            self._work_beside()
        else:
            self._ended = threading.Event()  # the master's is set when a worker of it is gone
            self._preparer = threading.Thread(
                target=self._prepare_later, name="preparer", daemon=True
            )
            self._preparer.start()

    def _work_beside(self) -> None:
        """Begin all that works in the background: on a database of this program's schema."""
        Closer(lambda: connect(self._settings)).start()
        Crew(
            self._settings.notifications.projectors,
            lambda: connect(self._settings),
            lambda stores, share: make_projector(self._settings, stores, self._meter, share=share),
        ).start()
        passing = partial(make_projector, passing=True)
        CatalogueChecker(self._settings, lambda: connect(self._settings), passing).start()

    def _prepare_later(self) -> None:
        """Prepare a database that was away at the start, or that an older version wrote."""
        stores = connect(self._settings, timeout_ms=PATIENT_TIMEOUT_MS)
        complaints = Complaints()
        while not self._ended.wait(PREPARE_PAUSE_S):
            try:
                if not prepare(stores, self._settings, self._ended):
                    return
            except StoreUnavailable as error:
                complaints.tell(logger, "waiting for the database", error)
            except StartupError as error:
                logger.error("%s", error)
                os.kill(os.getppid(), signal.SIGTERM)  # the master, and with it all workers
                return
            except Exception:
                logger.exception("the database cannot be prepared; tried again in a minute")
                self._ended.wait(COMPLAIN_S)
            else:
                logger.info("the database answers")
                self._work_beside()
                return

    def worker_exit(self, server: Any, worker: Any) -> None:
        """Break off what prepares the database, so that the next server need not wait for it."""
        self._ended.set()
        if self._preparer:
            self._preparer.join(BREAK_OFF_S)

    def on_exit(self, server: Any) -> None:
        """Stop the embedded database, after the workers."""
        if self._database:
            self._database.stop()


def _reachable(address: str) -> str:
    """An address to give to others: that of all interfaces is none."""
    return re.sub(r"//(0\.0\.0\.0|\[::\])(?=:)", f"//{socket.gethostname()}", address)


def room_for(settings: Settings) -> Room:
    """What clients may take up. Behind proxies all of them have the address of a proxy."""
    max_body_bytes = settings.notifications.max_body_bytes
    return Room(
        of_address=None if settings.server.trusted_proxies else Room.of_address,
        held_bytes=max(Room.held_bytes, 4 * max_body_bytes),
        limits=Limits(max_body_bytes=max_body_bytes),
    )
