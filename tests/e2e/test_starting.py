"""How the server starts, refuses to start, and ends."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from builders import wire_event
from clients import ENVELOPE, Account, Webhook
from processes import (
    HOST,
    READY_S,
    TOKEN,
    Program,
    Server,
    answers,
    database_pids,
    eventually,
)
from pymongo import MongoClient

from app.embedded import EmbeddedDatabase
from app.store.migrations import present

pytestmark = pytest.mark.e2e

MakeServer = Callable[..., Server]

# No exception gets out of a finalizer: it is printed and forgotten.
PRESSED_WHILE_LOADING = """
import os, signal, time

class Pressed:
    def __del__(self):
        os.killpg(0, signal.SIGINT)
        time.sleep(0.5)

Pressed()
application = print
"""

# Both the master and the worker, before that has handlers of its own, as at a terminal.
PRESSED_WHILE_BEGINNING = """
import os, signal, time

from app.server.hooks import Hooks

def post_fork(server, worker):
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(1)  # the master tells it to end meanwhile
    Hooks.post_fork(server, worker)
"""

PATIENCE_S = 10.0  # of somebody who pressed Ctrl-C; gunicorn kills a worker that hangs after 20


@pytest.fixture
def database_dir(tmp_path: Path) -> Path:
    return tmp_path / "database"


@pytest.fixture
def database(database_dir: Path) -> Iterator[EmbeddedDatabase]:
    """Somebody else's database, which speaks MongoDB's wire protocol."""
    database = EmbeddedDatabase(database_dir)
    database.start()
    yield database
    database.stop()


def test_with_a_mongodb_uri_that_database_is_used_and_none_started(
    make_server: MakeServer, database: EmbeddedDatabase, database_dir: Path
) -> None:
    server = make_server(mongodb={"uri": database.uri, "database": "elsewhere"})

    server.start()
    with closing(Webhook(server)) as webhook:
        receipt = webhook.post(wire_event(id="kept elsewhere", tag="v1")).json()
    server.wait_until_worked_in()

    assert receipt["accepted"] == 1
    rows = [json.loads(line) for line in server.rns("events", "export").splitlines()]
    assert "kept elsewhere" in [row["document"]["_id"] for row in rows]
    assert database_pids(server.data_dir) == []
    assert list(server.data_dir.glob("embedded*")) == []
    assert server.stop() == 0
    assert len(database_pids(database_dir)) == 1


def test_the_first_start_keeps_a_password_that_works_and_names_its_file(
    make_server: MakeServer,
) -> None:
    server = make_server()
    server.start()
    file = server.data_dir / "first_password"
    password = file.read_text().strip()

    assert f"first account: admin; its password is in {file}" in server.program.log
    urls = f"the pages are at {server.url}/, registries send to {server.url}/events"
    assert urls in server.program.log
    assert password not in server.program.log
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with closing(Account(server, "admin", password=password)) as admin:
        assert admin.repositories() == []
    length = len(server.program.log)
    file.unlink()
    server.stop()
    server.start()

    assert "password" not in server.program.log[length:]
    assert not file.exists()
    with closing(Account(server, "admin", password=password)) as admin:
        assert admin.repositories() == []


def test_on_a_terminal_the_first_start_prints_the_password(make_server: MakeServer) -> None:
    server = make_server()
    program = server.launch(on_terminal=True)
    server.wait_until_ready(program.is_alive)

    printed = re.search(r"First account: (\S+)\s+Password:\s+(\S+)", program.log)
    assert printed, program.log
    with closing(Account(server, printed[1], password=printed[2])) as admin:
        assert admin.repositories() == []
    assert not (server.data_dir / "first_password").exists()


def test_ctrl_c_ends_the_server_and_its_database(make_server: MakeServer) -> None:
    server = make_server()
    server.start()
    assert len(database_pids(server.data_dir)) == 1
    time.sleep(2)  # pymongo, where its threads just begin, writes a traceback of its own at the end

    pressed_at = time.monotonic()
    assert server.program.end_by(signal.SIGINT, whole_group=True) == 0  # as a terminal does

    assert time.monotonic() - pressed_at < PATIENCE_S
    assert database_pids(server.data_dir) == []
    assert "Traceback" not in server.program.log


def test_ctrl_c_while_a_worker_loads_the_application_ends_it_without_a_word(
    tmp_path: Path,
) -> None:
    (tmp_path / "pressed.py").write_text(PRESSED_WHILE_LOADING)

    _, log = run_gunicorn(tmp_path, "pressed:application")

    assert "Booting worker" in log
    assert "Traceback" not in log


def test_ctrl_c_while_a_worker_begins_ends_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "begun.py").write_text(PRESSED_WHILE_BEGINNING)

    took_s, log = run_gunicorn(tmp_path, "--config", "python:begun", "builtins:print")

    assert "Booting worker" in log
    assert took_s < PATIENCE_S


def run_gunicorn(directory: Path, *options: str) -> tuple[float, str]:
    """Run it with our worker until it ends well; returns how long it took, and its log."""
    worker = ["-k", "app.server.worker.Worker", "-b", f"{HOST}:0", "--no-control-socket"]
    command = [sys.executable, "-m", "gunicorn", *worker, *options]
    began_at = time.monotonic()
    program = Program("gunicorn", command, directory, os.environ)
    try:
        eventually(lambda: not program.is_alive(), READY_S, "the server ended")
    finally:
        program.kill_group()
    assert program.terminate() == 0
    return time.monotonic() - began_at, program.log


class Balancer:
    """Posts one event after the other to one of two servers, as what stands before them does.

    Where one takes no connection, the other one is asked.
    """

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = servers
        self._ended = threading.Event()
        self.acknowledged: list[str] = []  # ids of events
        self.unanswered: list[str] = []

    def __enter__(self) -> Balancer:
        self._threads = [threading.Thread(target=self._post_all, args=[name]) for name in "abcd"]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _post_all(self, name: str) -> None:
        for number in itertools.count():
            if self._ended.is_set():
                return
            event_id = f"{name}-{number}"
            try:
                while self._post(event_id, number) == 503:  # a registry too sends it once more
                    time.sleep(0.1)
            except (OSError, HTTPException) as error:
                self.unanswered.append(f"{event_id}: {error!r}")
            self.acknowledged.append(event_id)
            time.sleep(0.01)

    def _post(self, event_id: str, number: int) -> int:
        body = json.dumps({"events": [wire_event(id=event_id, tag="v1", at=present())]})
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": ENVELOPE}
        first = number % 2
        for server in (self._servers[first], self._servers[1 - first]):
            with closing(HTTPConnection(HOST, server.port, timeout=30)) as connection:
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    continue
                connection.request("POST", "/events", body, headers | {"Connection": "close"})
                return connection.getresponse().status
        raise ConnectionRefusedError("by both servers")


def test_two_servers_that_are_restarted_in_turn_answer_every_post_and_keep_each_once(
    make_server: MakeServer, database: EmbeddedDatabase
) -> None:
    servers = [make_server(mongodb={"uri": database.uri}) for _ in range(2)]
    for server in servers:
        server.launch()
    for server in servers:
        server.wait_until_ready()

    with Balancer(servers) as balancer:
        for server in servers:
            sent = len(balancer.acknowledged)
            assert server.stop() == 0
            server.start()
            assert len(balancer.acknowledged) > sent + 20

    assert balancer.unanswered == []
    servers[0].wait_until_worked_in()
    with MongoClient[Any](database.uri) as client:
        kept = [event["_id"] for event in client["registry"]["events"].find({}, {"_id": 1})]
    assert sorted(kept) == sorted(balancer.acknowledged)


def refusal(server: Server) -> str:
    """The one line with which `rns serve` refuses to start."""
    refused = server.run_rns("serve")
    assert (refused.returncode, refused.stdout) == (1, "")
    lines = refused.stderr.splitlines()
    assert len(lines) == 1, refused.stderr
    return lines[0]


def test_a_taken_port_is_one_line_and_no_traceback(make_server: MakeServer) -> None:
    second = make_server()

    with socket.socket() as taken:
        taken.bind((HOST, second.port))
        taken.listen()
        line = refusal(second)

    assert line.startswith(f"rns: server.bind: cannot listen on {HOST}:{second.port}")
    assert database_pids(second.data_dir) == []


def test_a_data_directory_in_use_is_one_line_and_leaves_its_server_alone(
    server: Server, make_server: MakeServer
) -> None:
    second = make_server(mongodb={"data_dir": str(server.data_dir)})

    line = refusal(second)

    assert line.startswith(f"rns: data_dir {server.data_dir} is in use")
    assert answers(f"{server.url}/readyz", 200)
    assert len(database_pids(server.data_dir)) == 1
