"""A live migration between two real registries, with what goes wrong on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from clients import Skopeo
from images import Image
from processes import (
    PASSWORDS,
    TOKEN,
    Program,
    Registry,
    Server,
    cleaned_up,
    need_program,
)
from test_registry_copies import put_image

from app.registry import Endpoint, RegistryClient

pytestmark = pytest.mark.e2e

BOT = {"username": "ci-bot", "password": PASSWORDS["ci-bot"]}
SETTLED_S = 75.0  # a killed worker's lease included

Rows = list[dict[str, Any]]


class Migration:
    """A source that notifies a server, a target, and a plan from one to the other."""

    def __init__(self, stack: ExitStack, directory: Path, server: Server, **plan: Any) -> None:
        self._stack = stack
        self._directory = directory
        self.server = server
        storage, config = directory / "storage", plan.pop("registry_config", None)
        notify = plan.pop("notify", server)
        self.silent = Registry(directory / "silent", storage=storage, config=config)
        self.source = Registry(directory / "source", notify, storage=storage, config=config)
        self.target = Registry(directory / "target", config=plan.pop("target_config", config))
        for registry in (self.silent, self.source, self.target):
            stack.enter_context(cleaned_up(registry))
        target = {"url": self.target.url, "plain_http": True, **BOT, **plan.pop("target", {})}
        source = {
            "url": self.source.url,
            "plain_http": True,
            "debug_url": self.source.debug_url,
            **BOT,
        }
        server.configure(migrations=[{"name": "dc2", "source": source, "target": target, **plan}])

    def skopeo(self, registry: Registry) -> Skopeo:
        return Skopeo(registry, "ci-bot", self._directory)

    def client(self, registry: Registry) -> RegistryClient:
        endpoint = Endpoint(url=registry.url, plain_http=True, **BOT)
        return self._stack.enter_context(closing(RegistryClient(endpoint)))

    def worker(self) -> Program:
        worker = self.server.launch_worker()
        self._stack.callback(worker.kill_group)
        return worker

    def jobs(self, **filters: str) -> Rows:
        options = [text for key, value in filters.items() for text in (f"--{key}", value)]
        return _rows(self.server.rns("migrate", "jobs", "--json", *options))

    def status(self) -> dict[str, Any]:
        (row,) = _rows(self.server.rns("migrate", "status", "--json"))
        return row


def _rows(text: str) -> Rows:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def make_migration(
    make_server: Callable[..., Server], tmp_path: Path
) -> Iterator[Callable[..., Migration]]:
    for program in ("docker-registry", "skopeo"):
        need_program(program)
    with ExitStack() as stack:
        yield lambda **plan: Migration(stack, tmp_path, make_server(), **plan)


@pytest.mark.parametrize(
    ("plan", "error_class"),
    [
        ({"target": {"password": "not-the-password"}}, "auth"),
        (
            {"target_config": {"storage": {"maintenance": {"readonly": {"enabled": True}}}}},
            "readonly",
        ),
    ],
    ids=["wrong password", "read-only"],
)
def test_a_target_that_refuses_stops_the_plan_with_its_reason_and_without_the_password(
    make_migration: Callable[..., Migration],
    build_image: Callable[[str], Image],
    plan: Any,
    error_class: str,
) -> None:
    migration = make_migration(**plan)
    migration.silent.start()
    people = migration.skopeo(migration.silent)
    image = build_image("one")
    for number in range(6):
        people.push(image, f"team/app:v{number}")
    migration.silent.program.terminate()
    migration.source.start()
    migration.target.start()

    finished = migration.server.run_rns("migrate", "once")

    assert finished.returncode == 1
    assert f"rns: stopped: {error_class}: " in finished.stderr
    assert "not-the-password" not in finished.stderr + finished.stdout
    assert {row["error_class"] for row in migration.jobs()} == {error_class}
    assert {row["state"] for row in migration.jobs()} == {"pending"}


def test_an_image_of_which_something_is_missing_at_the_source_dies_alone(
    make_migration: Callable[..., Migration], build_image: Callable[[str], Image]
) -> None:
    migration = make_migration(options={"max_attempts": 2})
    migration.silent.start()
    people = migration.skopeo(migration.silent)
    people.push(build_image("good"), "team/app:good")
    with closing(migration.client(migration.silent)) as client:
        broken = put_image(client, "team/app", "broken", [b"a layer of its own"])
    layer = broken.blobs[-1].digest.removeprefix("sha256:")
    for file in migration.silent.storage.rglob(f"{layer}/*"):
        file.unlink()
    migration.silent.program.terminate()
    migration.source.start()
    migration.target.start()

    finished = migration.server.run_rns("migrate", "once")

    assert finished.returncode == 1
    (dead,) = migration.jobs(state="dead")
    assert (dead["reference"], dead["error_class"]) == ("broken", "blob_unknown")
    source, target = migration.skopeo(migration.source), migration.skopeo(migration.target)
    assert target.digest("team/app:good") == source.digest("team/app:good")


def test_differences_are_shown_copied_and_deletes_follow_where_asked_for(
    make_migration: Callable[..., Migration], build_image: Callable[[str], Image]
) -> None:
    migration = make_migration(options={"deletes": "tags"})
    server = migration.server
    server.configure(registries=[_registry(migration)])
    for program in (migration.source, migration.target):
        program.start()
    people, new = migration.skopeo(migration.source), migration.skopeo(migration.target)
    for number in range(10):  # so many that two deletes are nothing unusual
        people.push(build_image(f"v{number}"), f"team/app:v{number}")
    new.push(build_image("v2"), "team/app:v2")

    assert _rows(server.rns("migrate", "plan", "--json"))[0]["to_copy"] == 9
    assert server.run_rns("migrate", "verify", "--recheck", "0").returncode == 1
    server.rns("migrate", "once")
    assert new.digest("team/app:v1") == people.digest("team/app:v1")
    server.rns("migrate", "verify", "--recheck", "0")
    assert server.rns("catalogue", "import") == "imported 10 tags\n"
    assert server.rns("catalogue", "import") == "imported 0 tags\n"

    server.start()
    people.delete("team/app:v1")
    people.delete("team/app:v2")
    migration.source.wait_until_delivered()
    server.rns("migrate", "once")

    with closing(migration.client(migration.target)) as copy:
        # Somebody else had put v2 there.
        assert copy.tags("team/app") == ["v0", *(f"v{number}" for number in range(2, 10))]


def _registry(migration: Migration) -> dict[str, Any]:
    return {"name": "default", "token": TOKEN, "url": migration.source.url, **BOT}
