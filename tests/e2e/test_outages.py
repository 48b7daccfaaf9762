"""What is left after a stop and after deaths: everything acknowledged, once."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from threading import Event, Thread

import pytest
from builders import wire_event
from clients import Account, Item, Skopeo, Webhook
from images import Image
from processes import READY_S, Registry, Server, database_pids, eventually

pytestmark = pytest.mark.e2e

WRITERS = 3
PAUSE_S = 0.01  # between two events of a writer
BACKOFF_S = 0.1


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


class Writer:
    """A registry that sends one event after the other, each until it is acknowledged.

    In turn: a push that moves a tag, the look-up of that tag, and the pull by digest that follows.
    """

    def __init__(self, server: Server, name: str) -> None:
        self.name = name
        self.acknowledged: list[Item] = []
        self.refusals = 0
        self._server = server
        self._enough = Event()
        self._thread = Thread(target=self._run, name=name)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Return when the event that is on its way has arrived."""
        self._enough.set()
        self._thread.join(READY_S)
        assert not self._thread.is_alive(), "an event is never acknowledged"

    def _run(self) -> None:
        with closing(Webhook(self._server)) as webhook:
            number = 0
            while not self._enough.is_set():
                for event in self._session(number):
                    self._deliver(webhook, event)
                number += 1

    def _session(self, number: int) -> Iterator[Item]:
        content = f"{self.name} {number}"
        tag = f"v{number % 5}"
        yield self._event("push", tag=tag, of=content)
        yield self._event("check", tag=tag, of=content)
        yield self._event("pull", of=content)

    def _event(self, action: str, **fields: str) -> Item:
        return wire_event(
            action,
            f"team/{self.name}",
            id=str(uuid.uuid4()),
            at=datetime.now(UTC),
            actor=self.name,
            **fields,
        )

    def _deliver(self, webhook: Webhook, event: Item) -> None:
        deadline = time.monotonic() + READY_S
        while not webhook.is_acknowledged(event):
            assert time.monotonic() < deadline, f"never acknowledged: {event['id']}"
            self.refusals += 1
            time.sleep(BACKOFF_S)
        self.acknowledged.append(event)
        time.sleep(PAUSE_S)


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
def endangered(make_server: Callable[..., Server]) -> Server:
    """A running server that may be killed; `alice` may see team/*."""
    server = make_server()
    server.start()
    server.add_account("alice")
    server.add_acl_entry(1, "alice", "team/*")
    return server


@pytest.mark.parametrize(
    ("kill", "times"),
    [(kill_the_server, 1), (kill_the_database, 2), (kill_a_worker, 2), (kill_everything, 1)],
)
def test_every_acknowledged_event_survives_kill_9_once(
    endangered: Server, kill: Callable[[Server], None], times: int
) -> None:
    names = [f"{kill.__name__.replace('_', '-')}-{number}" for number in range(WRITERS)]
    writers = [Writer(endangered, name) for name in names]

    with writers[0], writers[1], writers[2]:
        for _ in range(times):
            time.sleep(0.7)
            sent = sum(len(writer.acknowledged) for writer in writers)
            kill(endangered)
            eventually(
                lambda sent=sent: sum(len(writer.acknowledged) for writer in writers) > sent + 10,
                READY_S,
                "events are acknowledged again",
            )

    assert kill is kill_a_worker or sum(writer.refusals for writer in writers) > 0
    endangered.wait_until_worked_in()
    exported = exported_ids(endangered)
    with closing(Account(endangered, "alice")) as alice:
        for writer in writers:
            assert_recorded_once(writer, alice, exported)


def exported_ids(server: Server) -> list[str]:
    """The id of every event that `rns events export` writes, as often as it writes it."""
    rows = [json.loads(line) for line in server.rns("events", "export").splitlines()]
    return [row["document"]["_id"] for row in rows if row["collection"] == "events"]


def assert_recorded_once(writer: Writer, alice: Account, exported: list[str]) -> None:
    """Compare what a writer was told with records, counts and catalogue."""
    sent = sorted(event["id"] for event in writer.acknowledged)
    repository = f"team/{writer.name}"
    assert sorted(id for id in exported if id in set(sent)) == sent
    recorded = alice.records(repository=repository, parts=1)
    assert sorted(record["id"] for record in recorded) == sent

    pushes = [event for event in writer.acknowledged if event["action"] == "push"]
    newest = {event["target"]["tag"]: event["target"]["digest"] for event in pushes}
    tag_of = {event["target"]["digest"]: event["target"]["tag"] for event in pushes}
    tags = alice.tags(repository=repository)
    assert {tag["tag"]: tag["digest"] for tag in tags} == newest
    pulls = alice.records(repository=repository, action="pull")
    assert len(pulls) == len(pushes)
    assert {pull["digest"]: pull["tag"] for pull in pulls} == tag_of
    assert alice.records(repository=repository, action="check") == []
