"""The whole migration: everything that a registry can have, while everything goes wrong."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from clients import Publisher, Skopeo
from images import IMAGE, INDEX, LAYER, Image
from processes import Registry, Relay, Server, cleaned_up, eventually, need_program
from test_migration import Migration

pytestmark = pytest.mark.e2e

DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
TAR = "application/vnd.oci.image.layer.v1.tar"
FOREIGN = {"validation": {"manifests": {"urls": {"allow": ["^https://layers.example/"]}}}}

REPOSITORIES = [f"team/app-{number}" for number in range(10)]
LARGE_BYTES = 50_000_000
OUTAGE_S = 20.0
DELETES = 12  # of the writer; from 20 in ten minutes on they would be braked
COPIED_S = 240.0  # the workers are nice: whatever else runs here comes first
DRAINED_S = 400.0
SEED = int(os.environ.get("RNS_TEST_SEED", "20"))  # of what people do meanwhile

Item = dict[str, Any]


class Writer:
    """Somebody who pushes, moves and deletes; `tags` is what there must be at the source."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.tags: dict[tuple[str, str], str] = {}
        self.errors: list[BaseException] = []
        self.actions = 0
        self._contents = (f"layer {number}".encode() for number in count())
        self._random = random.Random(SEED)
        self._deletes_left = DELETES
        self._new = count()
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)

    # One thing of each kind

    def image(
        self, repository: str, tag: str, *, docker: bool = False, layers: Any = (), **more: Any
    ) -> Item:
        """An image with the layer that all share, and one of its own unless `layers` are given."""
        kind, layer = (DOCKER_IMAGE, DOCKER_LAYER) if docker else (IMAGE, LAYER)
        config_type = (
            "application/vnd.docker.container.image.v1+json"
            if docker
            else "application/vnd.oci.image.config.v1+json"
        )
        put = self.publisher.put_blob
        if not layers:
            contents = (b"the layer of all", next(self._contents))
            layers = [put(repository, content, layer) for content in contents]
        config = more.pop("config", None) or put(repository, b'{"os":"linux"}', config_type)
        return self._manifest(repository, tag, kind, config=config, layers=layers, **more)

    def index(self, repository: str, tag: str, *children: Item, docker: bool = False) -> Item:
        made = children or [self.image(repository, "", docker=docker) for _ in range(2)]
        platforms = [{"os": "linux", "architecture": name} for name in ("amd64", "arm64")]
        listed = [{**child, "platform": platforms[n % 2]} for n, child in enumerate(made)]
        kind = DOCKER_LIST if docker else INDEX
        return self._manifest(repository, tag, kind, manifests=listed)

    def special(self, repository: str, tag: str, config_type: str, layer: str, **more: Any) -> Item:
        """What is stored as if it were an image."""
        put = self.publisher.put_blob
        content = put(repository, next(self._contents), layer)
        config = put(repository, b"{}", config_type)
        return self.image(repository, tag, config=config, layers=[content], **more)

    def fill(self, repository: str) -> None:
        """One repository with tags of all kinds."""
        images = [self.image(repository, f"v{number}") for number in range(1, 9)]
        for number in range(1, 4):
            self.image(repository, f"docker-{number}", docker=True)
        self.index(repository, "multi")
        self.index(repository, "list", docker=True)
        self.index(repository, "nested", self.index(repository, ""))
        helm = "application/vnd.cncf.helm"
        chart = f"{helm}.chart.content.v1.tar+gzip"
        self.special(repository, "chart", f"{helm}.config.v1+json", chart)
        named = images[0]["digest"].replace(":", "-")
        signature = "application/vnd.dev.cosign.simplesigning.v1+json"
        self.special(repository, f"{named}.sig", IMAGE, signature)
        artifact = self.special(
            repository,
            "sbom",
            "application/vnd.oci.empty.v1+json",
            "application/spdx+json",
            subject=images[0],
            artifactType="application/spdx+json",
        )
        self._manifest(repository, named, INDEX, manifests=[artifact])
        plain = self.publisher.put_blob(repository, next(self._contents), TAR)
        self.image(repository, "plain", layers=[plain])
        elsewhere = f"https://layers.example/{repository}"
        foreign = {**images[1], "mediaType": FOREIGN_LAYER, "urls": [elsewhere]}
        own = self.publisher.put_blob(repository, next(self._contents), DOCKER_LAYER)
        self.image(repository, "foreign", docker=True, layers=[foreign, own])
        self.image(repository, "latest")

    def delete(self, repository: str, tag: str) -> None:
        """Delete a tag's image, and with it all of its tags."""
        digest = self.tags[repository, tag]
        self.publisher.delete(repository, digest)
        gone = [key for key in self.tags if key[0] == repository and self.tags[key] == digest]
        for key in gone:
            del self.tags[key]

    def _manifest(self, repository: str, tag: str, kind: str, **content: Any) -> Item:
        item = self.publisher.put_manifest(repository, tag, kind, **content)
        if tag:
            self.tags[repository, tag] = item["digest"]
        return item

    # All the time

    @contextmanager
    def writing(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Between two things that it does."""
        with self._turn:
            yield

    def _write(self) -> None:
        try:
            while not self._stop.wait(0.4):
                with self._turn:
                    self._act()
                    self.actions += 1
        except BaseException as error:
            self.errors.append(error)

    def _act(self) -> None:
        choose = self._random
        repository = f"team/new-{choose.randrange(3)}"
        own = sorted(key for key in self.tags if key[0].startswith("team/new-"))
        action = choose.choices(["new", "index", "move", "retag", "delete"], [5, 2, 5, 2, 1])[0]
        if action == "delete" and self._deletes_left and len(own) > 5:
            self._deletes_left -= 1
            self.delete(*choose.choice(own))
        elif action == "retag" and own:
            key, tag = choose.choice(own), f"same-{next(self._new)}"
            item = self.image(*key)
            self.publisher.add_tag(key[0], item, tag)
            self.tags[key[0], tag] = item["digest"]
        elif action == "move":
            moved = [(name, "latest") for name in REPOSITORIES]
            self.image(*choose.choice([*moved, *own]))
        elif action == "index":
            self.index(repository, f"n{next(self._new)}")
        else:
            self.image(repository, f"n{next(self._new)}", docker=choose.random() < 0.3)


class Digests:
    """What skopeo says of every tag of a registry."""

    def __init__(self, skopeo: Skopeo, renamed: Callable[[str], str] = str) -> None:
        self._skopeo = skopeo
        self._renamed = renamed

    def of(self, repositories: set[str]) -> dict[tuple[str, str], str]:
        with ThreadPoolExecutor(4) as pool:
            listed = pool.map(lambda name: self._skopeo.tags(self._renamed(name)), repositories)
            keys = [(n, tag) for n, tags in zip(repositories, listed, strict=True) for tag in tags]
            digests = pool.map(lambda k: self._skopeo.digest(f"{self._renamed(k[0])}:{k[1]}"), keys)
            return dict(zip(keys, digests, strict=True))


@pytest.fixture
def migration(
    make_server: Callable[..., Server], tmp_path: Path
) -> Iterator[tuple[Migration, Relay]]:
    for program in ("docker-registry", "skopeo"):
        need_program(program)
    with ExitStack() as stack:
        server = make_server()
        relay = stack.enter_context(cleaned_up(Relay(server)))
        yield (
            Migration(
                stack,
                tmp_path,
                server,
                notify=relay,
                registry_config=FOREIGN,
                map=[{"from": "team/", "to": "moved/"}],
                target={"limits": {"mb_per_s": 20}},
                options={"deletes": "tags"},
            ),
            relay,
        )


def restart_unheard(writer: Writer, source: Registry, relay: Relay, copied: str) -> None:
    """Push, move and delete, and let the registry's process end before it could tell anybody."""
    relay.refuses = True
    writer.image(REPOSITORIES[1], "unheard-of")
    writer.image(REPOSITORIES[1], "latest")
    writer.delete(copied, "v2")
    assert source.pending() > 0
    source.program.end_by(signal.SIGKILL)
    relay.refuses = False
    source.start()


def is_uploading_much(registry: Registry) -> bool:
    """Whether a part of the large layer is there, and not yet all of it."""
    there = registry.storage / "docker/registry/v2/repositories" / moved(REPOSITORIES[0])
    try:
        sizes = [file.stat().st_size for file in there.glob("_uploads/*/data")]
    except FileNotFoundError:  # an upload ended meanwhile
        return False
    return any(size > LARGE_BYTES / 10 for size in sizes)


def having(target: Registry, tag: str) -> list[str]:
    """The repositories that have a tag at the target."""
    there = target.storage / "docker/registry/v2/repositories"
    tags = {name: there / moved(name) / "_manifests/tags" / tag for name in REPOSITORIES}
    return [name for name, place in tags.items() if place.exists()]


def moved(repository: str) -> str:
    return repository.replace("team/", "moved/", 1)


def test_every_digest_arrives_whatever_is_pushed_moved_and_deleted_and_whatever_dies(
    migration: tuple[Migration, Relay],
    build_image: Callable[[str], Image],
    build_index: Callable[[str], Image],
    tmp_path: Path,
) -> None:
    move, relay = migration
    server, source, target = move.server, move.source, move.target
    move.silent.start()
    with closing(Publisher(move.silent, "ci-bot")) as publisher:
        old = Writer(publisher)
        for repository in REPOSITORIES:
            old.fill(repository)
        large = publisher.put_blob(REPOSITORIES[0], random.Random(1).randbytes(LARGE_BYTES), TAR)
        old.image(REPOSITORIES[0], "large", layers=[large])
    people = move.skopeo(move.silent)
    for tag, image in (("image", build_image("one")), ("index", build_index("two"))):
        people.push(image, f"team/skopeo:{tag}-oci")
        people.push(image, f"team/skopeo:{tag}-docker", "--format", "v2s2")
    old.tags |= Digests(people).of({"team/skopeo"})
    assert len(old.tags) >= 200
    move.silent.program.terminate()
    for program in (source, target, server):
        program.start()

    workers = [move.worker()]
    server.rns("migrate", "start")

    def kill_a_worker() -> None:
        workers[-1].end_by(signal.SIGKILL)
        workers.append(move.worker())

    def copies() -> int:
        return workers[-1].log.count(": copied ")

    def more_copies(number: int, within: float = COPIED_S) -> None:
        wanted = copies() + number
        eventually(lambda: copies() >= wanted, within, f"{number} more copies", every=0.2)

    with closing(Publisher(source, "ci-bot")) as publisher:
        writer = Writer(publisher)
        writer.tags = old.tags
        with writer.writing():
            begun = partial(is_uploading_much, target)
            eventually(begun, COPIED_S, "the large layer is on its way", every=0.01)
            kill_a_worker()
            more_copies(20)

            target.program.terminate()
            over = time.monotonic() + OUTAGE_S
            time.sleep(5)
            kill_a_worker()
            time.sleep(over - time.monotonic())
            target.start()

            more_copies(30)
            kill_a_worker()
            (copied, *_) = eventually(
                lambda: having(target, "v2"), COPIED_S, "what is deleted is copied"
            )

            with writer.resting():
                restart_unheard(writer, source, relay, copied)
            time.sleep(2)
            kill_a_worker()

            target.program.terminate()
            over = time.monotonic() + OUTAGE_S
            time.sleep(OUTAGE_S / 2)
            kill_a_worker()
            time.sleep(over - time.monotonic())
            target.start()
            more_copies(5)
    assert writer.errors == []
    assert len(workers) == 6

    source.wait_until_delivered(DRAINED_S)
    server.wait_until_worked_in()

    def is_over() -> bool:
        status = move.status()
        return status["state"] == "live" and set(status["jobs"]) <= {"done", "skipped"}

    eventually(is_over, DRAINED_S, "everything is copied", every=2)
    assert server.rns("migrate", "verify", "--deep", "--recheck", "0", "--json") == ""
    repositories = {repository for repository, _ in writer.tags}
    assert Digests(move.skopeo(source)).of(repositories) == writer.tags
    assert Digests(move.skopeo(target), moved).of(repositories) == writer.tags
    assert relay.denied >= relay.passed // 20 > 10
    assert server.rns("migrate", "ready", "--json").count('"is_met":true') == 10
    assert "is cut over" in server.rns("migrate", "cutover")
    assert workers[-1].terminate() == 0
    for number, reference in enumerate(("app-0:large", "app-1:list", "skopeo:index-docker")):
        move.skopeo(target).pull(f"moved/{reference}", tmp_path / f"pulled-{number}")
