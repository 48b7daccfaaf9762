"""How the server starts, refuses to start, and ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from builders import wire_event
from clients import Account, Webhook
from processes import HOST, Server, answers, database_pids

from app.embedded import EmbeddedDatabase

pytestmark = pytest.mark.e2e

MakeServer = Callable[..., Server]

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

    pressed_at = time.monotonic()
    assert server.program.end_by(signal.SIGINT, whole_group=True) == 0  # as a terminal does

    assert time.monotonic() - pressed_at < PATIENCE_S
    assert database_pids(server.data_dir) == []
    assert "Traceback" not in server.program.log


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
