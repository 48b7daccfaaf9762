"""What is left after a stop and after deaths: everything acknowledged, once."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from clients import Account, Skopeo
from images import Image
from nodes import Busy, make_busy
from processes import READY_S, Registry, Server, database_pids, eventually
from pymongo.database import Database
from recount import Recount, differing

from app.rules.events import parse_envelope

pytestmark = pytest.mark.e2e


def test_pushes_during_a_stop_of_the_server_arrive_after_its_start_once(
    server: Server,
    registry: Registry,
    skopeo: Callable[[str], Skopeo],
    alice: Account,
    build_image: Callable[[str], Image],
    repository: str,
) -> None:
    images = [build_image("while it is away"), build_image("still away")]
    registry.wait_until_delivered()

    assert server.stop() == 0
    try:
        for number, image in enumerate(images):
            skopeo("ci-bot").push(image, f"{repository}:v{number}")
        assert registry.pending() > 0
    finally:
        server.start()
    registry.wait_until_delivered()

    pushes = alice.records(repository=repository, parts=1)
    assert sorted((push["tag"], push["digest"]) for push in pushes) == [
        ("v0", images[0].digest),
        ("v1", images[1].digest),
    ]


def kill_the_server(server: Server) -> None:
    server.program.end_by(signal.SIGKILL)
    server.restart_until_ready()


def kill_the_database(server: Server) -> None:
    (pid,) = database_pids(server.data_dir)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: pid not in database_pids(server.data_dir), 5, "the database is dead")
    eventually(lambda: database_pids(server.data_dir), READY_S, "the database runs again")
    server.wait_until_ready()


def kill_a_worker(server: Server) -> None:
    os.kill(min(server.worker_pids()), signal.SIGKILL)
    server.wait_until_ready()


def kill_everything(server: Server) -> None:
    """As the kernel does when memory is short, or a power cut."""
    database = database_pids(server.data_dir)
    server.program.kill_group()
    for pid in database:
        os.kill(pid, signal.SIGKILL)
    server.restart_until_ready()


@pytest.fixture(scope="module")
def endangered(make_module_server: Callable[..., Server]) -> Server:
    """A running server that may be killed; `alice` may see team/*."""
    server = make_module_server()
    server.start()
    server.add_account("alice")
    server.add_acl_entry(1, "alice", "team/*")
    return server


@pytest.mark.parametrize(
    ("kill", "times"),
    [(kill_the_server, 1), (kill_the_database, 2), (kill_a_worker, 2), (kill_everything, 1)],
)
def test_every_acknowledged_event_survives_kill_9_once_and_all_follows_that_follows_from_it(
    endangered: Server, kill: Callable[[Server], None], times: int
) -> None:
    """A tenth of all posts is repeated, and one node after the other stands still meanwhile."""
    names = [f"team/{kill.__name__.replace('_', '-')}-{number}" for number in range(3)]
    busy = make_busy(endangered, times, names, clients=4, doubled=0.1)

    with busy.in_use(events_s=80, still_s=1):
        for _ in range(times):
            time.sleep(0.7)
            sent = len(busy.acknowledged)
            kill(endangered)
            eventually(
                lambda sent=sent: len(busy.acknowledged) > sent + 10,
                READY_S,
                "events are acknowledged again",
            )

    assert kill is kill_a_worker or busy.refusals > 0
    endangered.wait_until_worked_in()
    exported = exported_ids(endangered)
    with closing(Account(endangered, "alice")) as alice:
        assert_follows(busy, names, alice, exported)


def test_four_processes_of_two_servers_that_share_the_work_lose_nothing_when_they_are_killed(
    make_server: Callable[..., Server], wire_uri: str, wire_database: Database[Any]
) -> None:
    mongodb = {"uri": wire_uri, "database": wire_database.name}
    servers = [make_server(mongodb=mongodb, notifications={"projectors": 4}) for _ in range(2)]
    for server in servers:
        server.launch()
    for server in servers:
        server.wait_until_ready()
    servers[0].add_account("alice")
    servers[0].add_acl_entry(1, "alice", "team/*")
    names = [f"team/shared-{number}" for number in range(8)]
    busy = make_busy(servers, 1, names, clients=8, doubled=0.1)
    eventually(lambda: len(projecting(wire_database)) == 4, READY_S, "each process has a share")

    with busy.in_use(events_s=60):
        for server, kill in [
            (servers[0], kill_a_worker),
            (servers[1], kill_a_worker),
            (servers[1], kill_the_server),
        ]:
            time.sleep(1)
            sent = len(busy.acknowledged)
            kill(server)
            eventually(
                lambda sent=sent: len(busy.acknowledged) > sent + 20,
                READY_S,
                "events are acknowledged again",
            )

    assert busy.refusals > 0
    servers[0].wait_until_worked_in()
    with closing(Account(servers[0], "alice")) as alice:
        assert_follows(busy, names, alice, exported_ids(servers[0]))


def projecting(database: Database[Any]) -> set[str]:
    """The processes that hold a projector's lease."""
    held = {"_id": {"$regex": "^projector"}, "until": {"$gt": datetime.now(UTC)}}
    return {row["owner"].rpartition(":")[0] for row in database["leases"].find(held)}


def exported_ids(server: Server) -> list[str]:
    """The id of every event that `rns events export` writes, as often as it writes it."""
    rows = [json.loads(line) for line in server.rns("events", "export").splitlines()]
    return [row["document"]["_id"] for row in rows if row["collection"] == "events"]


def assert_follows(busy: Busy, names: list[str], alice: Account, exported: list[str]) -> None:
    """Compare what was acknowledged with records, catalogue and figures."""
    body = json.dumps({"events": busy.acknowledged}).encode()
    recount = Recount(parse_envelope(body, "default", datetime.now(UTC)).events)
    assert sorted(id for id in exported if id in recount.folds) == sorted(recount.folds)

    records = [row for name in names for row in alice.records(repository=name, parts=1)]
    folds = {
        row["id"]: (row["part_of"], row["parent"], row["tag"], row["tag_from"]) for row in records
    }
    assert differing(folds, recount.folds) == {}
    tags = [row for name in names for row in alice.tags(repository=name, deleted=1)]
    found = {(row["repository"], row["tag"]): (row["digest"], row["deleted"]) for row in tags}
    wanted = {key: (state.digest, bool(state.deleted_at)) for key, state in recount.tags.items()}
    assert differing(found, wanted) == {}
    for name in names:
        counts = alice.get("/api/v1/usage", repository=name).json()["totals"]
        lines = Counter[str]()
        for (repository, _, _, action), number in recount.lines.items():
            lines[action] += number if repository == name else 0
        totals = {"push": "pushes", "pull": "pulls", "check": "checks", "delete": "deletes"}
        assert {action: counts[totals[action]] for action in lines} == lines
