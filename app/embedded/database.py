"""The database from launch to death, in the one thread that owns it."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from pymongo.errors import PyMongoError

from app.embedded.child import Child, PortTaken, find_program
from app.embedded.connection import (
    HOST,
    USER,
    PasswordRefused,
    connect,
    free_port,
    is_ready,
    listens_at,
    make_uri,
    probe,
)
from app.embedded.lock import release_lock, take_lock
from app.embedded.space import shortage
from app.errors import StartupError

logger = logging.getLogger(__name__)

READY_S = 120.0  # after a kill it recovers for 7 s with a million events
POLL_S = 0.2
PROBE_EVERY_S = 5.0
FAILED_PROBES = 3
ANSWER_MS = 30_000  # a scan or an index build keeps everybody waiting for seconds
MAX_DELAY_S = 5.0
NOTICE = (
    "embedded database: to try this out, up to about 50,000 events. "
    "For production set mongodb.uri; `rns events export` and `import` move what is here."
)


class EmbeddedDatabase:
    """SecantusDB as a child process: started first, stopped last, restarted when it dies."""

    def __init__(self, data_dir: Path, log: Callable[[str], None] = logger.warning) -> None:
        """`log` gets one line, in another thread, whenever the database fails or is back."""
        self.uri = ""
        self._data_dir = data_dir.absolute()
        self._uri_file = self._data_dir / "embedded.uri"
        self._log = log
        self._stopping = Event()
        self._thread: Thread | None = None
        self._owner = 0  # process id
        self._program = ""
        self._lock: int | None = None
        self._port = 0
        self._child: Child | None = None  # only when it was ready
        self._restarts = 0  # since it last worked and had space

    def start(self) -> None:
        """Start the database and return when reads and writes work; `uri` is then set.

        Raises:
            StartupError: the program is missing, the directory in use or unusable, space short,
                or the program did not start. Nothing is left running.
        """
        if self._thread is not None:
            raise RuntimeError("already started")
        started: Future[None] = Future()
        self._stopping.clear()
        self._owner = os.getpid()
        self._thread = Thread(target=self._supervise, args=[started], daemon=True)
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self.stop()
            raise

    def announce(self) -> None:
        """Tell the log what it is good for."""
        self._log(NOTICE)

    def stop(self) -> None:
        """Stop the database, by force after 30 s; without effect when stopped or in a fork."""
        if self._thread is None or self._owner != os.getpid():
            return
        self._stopping.set()
        if self._lock is not None:  # who starts meanwhile has to wait a little, not give up
            self._uri_file.unlink(missing_ok=True)
        child = self._child
        if child is not None:
            child.terminate()  # also ends a probe that waits for its answer
        self._thread.join()
        self._thread = None

    def _supervise(self, started: Future[None]) -> None:
        try:
            self._begin()
        except BaseException as error:
            self._end()
            started.set_exception(error)
            return
        started.set_result(None)
        while not self._stopping.is_set():
            try:
                self._watch()
                self._restart()
            except Exception as error:  # whatever it was, the database must come back
                if not self._stopping.is_set():
                    self._log(f"embedded database: not restarted: {error}; trying again")
        self._end()

    def _begin(self) -> None:
        try:
            self._program = find_program()
            self._prepare_directory()
            is_served = self._is_served()
            self._lock = take_lock(self._data_dir, self._stopping, is_served=is_served)
            self._uri_file.unlink(missing_ok=True)
            if short := shortage(self._data_dir):
                raise StartupError(f"the embedded database cannot start: {short}")
            self._start_with_password()
            _write_private(self._uri_file, self.uri)
        except OSError as error:
            reason = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
            raise StartupError(f"data_dir {self._data_dir} cannot be used: {reason}") from error
        except PyMongoError as error:
            raise StartupError(f"the embedded database does not work: {error}") from error

    def _end(self) -> None:
        self._end_child()
        if self._lock is not None:
            with suppress(OSError):
                self._uri_file.unlink(missing_ok=True)
            release_lock(self._lock)
            self._lock = None

    def _is_served(self) -> bool:
        """Whether a database answers for the directory, which then is another process's."""
        try:
            return listens_at(self._uri_file.read_text("ascii"))
        except (OSError, UnicodeDecodeError):
            return False

    def _prepare_directory(self) -> None:
        if self._data_dir.exists() and not self._data_dir.is_dir():
            raise StartupError(f"data_dir {self._data_dir} is not a directory")
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._data_dir / "embedded").mkdir(mode=0o700, exist_ok=True)
        (self._data_dir / "embedded.toml").touch(mode=0o600)

    def _start_with_password(self) -> None:
        """Start with the password on file; without one that is accepted, make a user and one."""
        file = self._data_dir / "embedded.password"
        if file.exists():
            with suppress(PasswordRefused):
                self._launch_on_free_port(file.read_text("ascii").strip())
                return
        unfinished = self._begin_first_start(is_first=not file.exists())
        self._launch_on_free_port(None)
        password = secrets.token_urlsafe(32)
        with connect(self.uri) as client:
            client["admin"].command("dropAllUsersFromDatabase")
            client["admin"].command("createUser", USER, pwd=password, roles=["root"])
        self._end_child(by_force=True)  # SIGTERM would leave it open for 2 s more
        self._launch_on_free_port(password)
        with connect(self.uri) as client:
            for user in list(client["admin"]["system.users"].find()):
                if (user["db"], user["user"]) != ("admin", USER):
                    client[user["db"]].command("dropUser", user["user"])
        _write_private(file, password)  # last: a start that was interrupted begins again
        unfinished.unlink(missing_ok=True)

    def _begin_first_start(self, is_first: bool) -> Path:
        """Mark a first start as unfinished, and clear away what an unfinished one left.

        Killed while it makes its files, the program now and then cannot use them afterwards. Until
        the password is kept nothing can have been stored. A directory with data, but without its
        password, has no such mark and is never cleared.
        """
        storage, mark = self._data_dir / "embedded", self._data_dir / "embedded.unfinished"
        if is_first and mark.exists():
            shutil.rmtree(storage)
            storage.mkdir(mode=0o700)
        if is_first and not any(storage.iterdir()):
            mark.touch(mode=0o600)
        return mark

    def _launch_on_free_port(self, password: str | None) -> None:
        for _ in range(5):
            self._port = free_port()
            self.uri = make_uri(self._port, password)
            with suppress(PortTaken):  # since it was found free
                self._launch(ask_password=password is not None)
                return
        raise StartupError(f"no port of {HOST} stays free for the embedded database")

    def _launch(self, ask_password: bool = True) -> None:
        """Run the program at the port chosen; return when it works."""
        assert self._lock is not None
        child = Child(self._program, self._data_dir, self._port, self._lock, ask_password)
        try:
            os.pwrite(self._lock, f"process {os.getpid()}, database {child.pid}\n".encode(), 0)
            deadline = time.monotonic() + READY_S
            while not is_ready(self._port, self.uri):
                if not child.is_alive():
                    raise child.failure()
                if self._stopping.wait(0.03):
                    raise StartupError("the embedded database was stopped while it started")
                if time.monotonic() > deadline:
                    raise StartupError(f"the embedded database is not ready after {READY_S:.0f} s")
        except BaseException:
            child.end()
            raise
        self._child = child

    def _end_child(self, by_force: bool = False) -> None:
        child = self._child
        if child is not None:
            child.end(by_force)
            self._child = None

    def _watch(self) -> None:
        """Return when the child is dead or useless, the last launch failed, or stop() is called."""
        if self._child is None:
            return
        failed, probed_at = 0, time.monotonic()
        with connect(self.uri, ANSWER_MS) as client:
            while not self._stopping.wait(POLL_S):
                if not self._child.is_alive():
                    self._log(f"embedded database: died{self._child.last_words()}; restarting")
                    return
                if time.monotonic() - probed_at < PROBE_EVERY_S:
                    continue
                error = probe(client)
                probed_at = time.monotonic()
                failed = failed + 1 if error else 0
                if failed == FAILED_PROBES:
                    self._log(f"embedded database: does not work ({error}); restarting")
                    return
                if not error and not shortage(self._data_dir):
                    self._restarts = 0

    def _restart(self) -> None:
        """Launch it again, at the same port, after a delay that grows if this is repeated."""
        if self._stopping.is_set():
            return
        self._end_child()
        if self._restarts:
            self._wait_for_space()
            self._stopping.wait(min(0.1 * 2**self._restarts, MAX_DELAY_S))
        self._restarts = min(self._restarts + 1, 10)
        self._launch()
        self._log("embedded database: works again")

    def _wait_for_space(self) -> None:
        if short := shortage(self._data_dir):
            self._log(f"embedded database: {short}; it restarts when there is more")
            while shortage(self._data_dir) and not self._stopping.wait(1):
                pass


def _write_private(file: Path, text: str) -> None:
    """Write a file whole or not at all; nobody but its owner can read it at any time."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(f"{text}\n")
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)
