"""A live migration between two real registries, with what goes wrong on the way."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from clients import Publisher, Skopeo
from images import IMAGE, Image
from processes import (
    PASSWORDS,
    TOKEN,
    Program,
    Refuser,
    Registry,
    Server,
    cleaned_up,
    eventually,
    free_port,
    need_program,
)
from test_registry_copies import put_image

from app.embedded import recorded_uri
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
            **plan.pop("source", {}),
        }
        server.configure(migrations=[{"name": "dc2", "source": source, "target": target, **plan}])

    def skopeo(self, registry: Registry) -> Skopeo:
        return Skopeo(registry, "ci-bot", self._directory)

    def client(self, registry: Registry) -> RegistryClient:
        endpoint = Endpoint(url=registry.url, plain_http=True, **BOT)
        return self._stack.enter_context(closing(RegistryClient(endpoint)))

    def worker(self, *options: str) -> Program:
        worker = self.server.launch_worker(*options)
        self._stack.callback(worker.kill_group)
        return worker

    def jobs(self, **filters: str) -> Rows:
        options = [text for key, value in filters.items() for text in (f"--{key}", value)]
        return _rows(self.server.ask("migrate", "jobs", "--json", *options))

    def status(self) -> dict[str, Any]:
        (row,) = _rows(self.server.ask("migrate", "status", "--json"))
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


def damage(storage: Path, digest: str, content: bytes | None) -> None:
    """Have a registry lose a blob or manifest, or keep something else of the same length."""
    (file,) = storage.glob(
        f"docker/registry/v2/blobs/sha256/*/{digest.removeprefix('sha256:')}/data"
    )
    file.unlink()
    if content is not None:
        file.write_bytes(content)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte; skips the test for who may not mount one."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("only root mounts a disk that gets full")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def deny(method: str) -> tuple[int, dict[str, str], str]:
    """Answers of a registry that lets an account read only."""
    if method == "GET":
        return 200, {}, "{}"
    errors = [{"code": "DENIED", "message": "requested access to the resource is denied"}]
    return (404, {}, "") if method == "HEAD" else (403, {}, json.dumps({"errors": errors}))


def send_elsewhere(method: str) -> tuple[int, dict[str, str], str]:
    """Answers of a registry that wants a token of somebody nobody knows."""
    challenge = 'Bearer realm="http://tokens.example/token",service="registry"'
    return 401, {"WWW-Authenticate": challenge}, ""


@pytest.fixture
def failing(
    make_server: Callable[..., Server], tmp_path: Path, small_disk: Path
) -> Iterator[Migration]:
    """Plans from one source to targets of which each fails in another way, and one that works."""
    need_program("docker-registry")
    with ExitStack() as stack:

        def target(name: str, **more: Any) -> str:
            registry = Registry(tmp_path / name, **more)
            stack.enter_context(cleaned_up(registry)).start()
            return registry.url

        migration = Migration(stack, tmp_path, make_server())
        read_only = {"storage": {"maintenance": {"readonly": {"enabled": True}}}}
        working = migration.target.url
        targets = {
            "auth": (working, "not-the-password"),
            "realm": (stack.enter_context(cleaned_up(Refuser(send_elsewhere))).url, ""),
            "forbidden": (stack.enter_context(cleaned_up(Refuser(deny))).url, ""),
            "readonly": (target("readonly", config=read_only), ""),
            "disk_full": (target("full", storage=small_disk), ""),
            "down": (f"http://127.0.0.1:{free_port()}", ""),
            "works": (working, ""),
        }
        source = {"url": migration.source.url, "plain_http": True, **BOT}
        migration.server.configure(
            migrations=[
                {
                    "name": name.replace("_", "-"),
                    "source": source,
                    "target": {"url": url, "plain_http": True, **BOT}
                    | ({"password": password} if password else {}),
                    "options": {"max_attempts": 2},
                }
                for name, (url, password) in targets.items()
            ]
        )
        yield migration


ADVICE = {  # of what stops a whole plan
    "auth": "check user name and password",
    "realm": "add it to token_realms",
    "readonly": "the registry is read-only: switch that off",
    "disk_full": "free space at the registry",
    "down": "Connection refused",
}


def test_every_failure_is_told_with_its_reason_and_stops_nothing_else(failing: Migration) -> None:
    server, source = failing.server, failing.source
    source.start()
    failing.target.start()
    with closing(failing.client(source)) as client:
        for number in range(5):
            put_image(client, "team/app", f"v{number}", [os.urandom(1_500_000)])
        layers = [b"lost", b"damaged", b"fine"]
        made = [put_image(client, "team/app", layer.decode(), [layer]) for layer in layers]
    damage(source.storage, made[0].blobs[1].digest, None)
    damage(source.storage, made[1].blobs[1].digest, b"DAMAGED")
    damage(source.storage, made[2].digest, None)
    server.start()
    for name in (*ADVICE, "forbidden", "works"):
        server.rns("migrate", "start", "--plan", name.replace("_", "-"))
    worker = failing.worker()

    def plans() -> dict[str, Any]:
        return {row["plan"]: row for row in _rows(server.ask("migrate", "status", "--json"))}

    def are_over() -> Any:
        rows = plans()
        stopped = all(rows[name.replace("_", "-")]["stopped"] for name in ADVICE)
        over = [set(rows[name]["jobs"]) <= {"done", "dead"} for name in ("works", "forbidden")]
        return rows if stopped and all(over) and rows["works"]["state"] == "live" else None

    rows = eventually(are_over, SETTLED_S, "every plan is over or stopped", every=1)
    assert worker.terminate() == 0

    for error_class, advice in ADVICE.items():
        row = rows[error_class.replace("_", "-")]
        assert row["stopped"].startswith(f"{error_class}: ")
        assert advice in row["stopped"]
        assert not row["jobs"].get("done")
    assert rows["forbidden"]["errors"].get("forbidden", 0) >= 5
    assert not rows["forbidden"]["jobs"].get("done")
    denied = failing.jobs(plan="forbidden", **{"class": "forbidden"})
    assert all("give the account the right" in job["error"] for job in denied)
    jobs = {job["reference"]: job for job in failing.jobs(plan="works")}
    told = {
        "lost": ("dead", "blob_unknown"),
        "damaged": ("dead", "digest_mismatch"),
        "fine": ("dead", "blob_unknown"),
        **{f"v{number}": ("done", "") for number in range(5)},
    }
    assert {tag: (jobs[tag]["state"], jobs[tag]["error_class"]) for tag in told} == told
    assert all("push it anew" in jobs[tag]["error"] for tag in ("lost", "damaged", "fine"))
    assert {jobs[tag]["attempts"] for tag in ("lost", "damaged", "fine")} == {2}
    assert made[0].blobs[1].digest in jobs["lost"]["error"]
    with closing(failing.client(failing.target)) as copy:
        assert copy.tags("team/app") == [f"v{number}" for number in range(5)]
    assert "not-the-password" not in str(rows) + str(denied) + worker.log


def test_differences_are_shown_copied_and_deletes_follow_where_asked_for(
    make_migration: Callable[..., Migration], build_image: Callable[[str], Image]
) -> None:
    migration = make_migration(options={"deletes": "tags"})
    server = migration.server
    server.configure(registries=[_registry(migration)])
    server.make_database()
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
    server.wait_until_worked_in()
    server.rns("migrate", "once")

    with closing(migration.client(migration.target)) as copy:
        # Somebody else had put v2 there.
        assert copy.tags("team/app") == ["v0", *(f"v{number}" for number in range(2, 10))]


def _registry(migration: Migration) -> dict[str, Any]:
    return {"name": "default", "token": TOKEN, "url": migration.source.url, **BOT}


@pytest.mark.parametrize(
    ("options", "nice"), [([], 10), (["--nice", "3"], 3), (["--nice", "0"], 0)]
)
def test_a_worker_lets_the_server_beside_it_go_first_as_far_as_asked_to(
    make_migration: Callable[..., Migration], options: list[str], nice: int
) -> None:
    migration = make_migration()
    migration.server.start()
    worker = migration.worker(*options)
    session = Path(f"/proc/{worker.pid}/autogroup")
    ours = os.getpriority(os.PRIO_PROCESS, 0)

    def gives_way() -> bool:
        is_nice = os.getpriority(os.PRIO_PROCESS, worker.pid) == min(ours + nice, 19)
        return is_nice and (not session.exists() or f"nice {nice}" in session.read_text())

    eventually(gives_way, SETTLED_S, "the worker gives way")
    assert os.getpriority(os.PRIO_PROCESS, migration.server.program.pid) == ours


def test_a_worker_follows_the_embedded_database_over_restarts_of_the_server(
    make_migration: Callable[..., Migration], build_image: Callable[[str], Image]
) -> None:
    migration = make_migration()
    server, old = migration.server, migration.skopeo(migration.source)
    for program in (migration.source, migration.target, server):
        program.start()
    server.rns("migrate", "start")
    worker = migration.worker()
    places = set()
    for number in range(3):
        places.add(recorded_uri(server.data_dir))
        old.push(build_image(f"v{number}"), f"team/app:v{number}")
        copied = f"team/app v{number}: copied"
        eventually(lambda text=copied: text in worker.log, SETTLED_S, f"the worker has {copied}")
        server.stop()
        server.start()

    assert len(places) > 1
    assert worker.is_alive()
    eventually(lambda: migration.status()["workers"] == 1, SETTLED_S, "one worker is known")
    assert worker.terminate() == 0


def test_a_source_that_takes_pushes_is_not_frozen(
    make_migration: Callable[..., Migration], build_image: Callable[[str], Image]
) -> None:
    migration = make_migration()
    server, source = migration.server, migration.source
    for program in (source, migration.target, server):
        program.start()
    migration.skopeo(source).push(build_image("v1"), "team/app:v1")
    server.rns("migrate", "start")
    migration.worker()
    eventually(lambda: migration.status()["state"] == "live", SETTLED_S, "it is live", every=1)

    refused = server.run_rns("migrate", "freeze")
    assert (refused.returncode, "still takes pushes" in refused.stderr) == (1, True)
    assert not list(source.storage.glob("**/_uploads/*/data"))

    source.make_read_only()
    assert server.run_rns("migrate", "freeze").stderr == ""
    assert migration.status()["state"] == "frozen"


def test_fifty_pushes_of_one_tag_make_few_copies(make_migration: Callable[..., Migration]) -> None:
    migration = make_migration()
    server = migration.server
    for program in (migration.source, migration.target, server):
        program.start()
    server.rns("migrate", "start")
    worker = migration.worker()
    with closing(Publisher(migration.source, "ci-bot")) as publisher:
        config = publisher.put_blob("team/app", b"{}", "application/vnd.oci.image.config.v1+json")
        put = partial(publisher.put_manifest, "team/app", config=config, layers=[])
        put("v1", IMAGE)
        eventually(lambda: "team/app v1: copied" in worker.log, SETTLED_S, "the worker copies")

        pushed = [put("latest", IMAGE, annotations={"n": str(number)}) for number in range(50)]

    last = f"team/app latest: copied {pushed[-1]['digest']}"
    eventually(lambda: last in worker.log, SETTLED_S, "the last push is copied")
    assert 1 <= worker.log.count("team/app latest: copied") <= 10
    assert migration.skopeo(migration.target).digest("team/app:latest") == pushed[-1]["digest"]


def test_who_runs_a_migration_decides_about_each_image_that_fails(
    make_migration: Callable[..., Migration],
) -> None:
    migration = make_migration()
    server, source = migration.server, migration.source
    for program in (source, migration.target, server):
        program.start()
    with closing(migration.client(source)) as client:
        made = {tag: put_image(client, "team/app", tag, [tag.encode()]) for tag in "abc"}
    for tag in "bc":
        damage(source.storage, made[tag].blobs[1].digest, None)

    aborted = server.run_rns("migrate", "run", given="skip\nabort\n")
    assert aborted.returncode == 1
    # Both are copied at the same time: either may fail first.
    (tag,) = set(re.findall(r"aborted: team/app:([bc]): blob_unknown", aborted.stderr))
    skipped = {"b": "c", "c": "b"}[tag]
    assert f"team/app:{skipped}: blob_unknown" in aborted.stderr

    with closing(migration.client(source)) as client:
        put_image(client, "team/app", tag, [tag.encode()])
    finished = server.run_rns("migrate", "run", given="retry\n")
    assert finished.returncode == 0
    assert finished.stdout == "2 done, 1 skipped\n"
