"""How fast images are copied, against skopeo: `python benchmarks/copying.py`.

Ours is a worker with its queue in the database, as `rns migrate worker` runs it: the time is from
the wish for the tags to the last finished job. skopeo is `skopeo copy -q --all --preserve-digests`,
one process for each image, four at a time (as ours) and one after the other. Both copy between the
same two docker-registry processes; every measurement begins with an empty target. Prints medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
from database import database_uri
from pymongo import MongoClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from clients import Publisher
from images import IMAGE, LAYER
from processes import Registry, cleaned_up

from app.migration import Plan
from app.migration.worker import Worker
from app.settings import Migration
from app.store import Stores
from app.store.migrations import LIVE, Wish, present

CONFIG = "application/vnd.oci.image.config.v1+json"
AT_A_TIME = 4  # as limits.images is by default


class Case:
    def __init__(self, name: str, repository: str, tags: list[str], is_repeated: bool) -> None:
        self.name = name
        self.repository = repository
        self.tags = tags
        self.is_repeated = is_repeated  # measured is the second copy


def fill(source: Registry) -> list[Case]:
    publisher = Publisher(source, "ci-bot")
    put = publisher.put_blob

    def image(repository: str, tag: str, layers: list[bytes]) -> None:
        config = put(repository, f'{{"tag":"{tag}"}}'.encode(), CONFIG)
        described = [put(repository, layer, LAYER) for layer in layers]
        publisher.put_manifest(repository, tag, IMAGE, config=config, layers=described)

    small = [f"v{number}" for number in range(100)]
    for tag in small:
        image("bench/small", tag, [os.urandom(2_000), os.urandom(20_000)])
    image("bench/large", "v1", [os.urandom(200_000_000)])
    shared = os.urandom(100_000_000)
    for tag in small[:4]:
        image("bench/shared", tag, [shared, os.urandom(1_000)])
    publisher.close()
    return [
        Case("100 small images", "bench/small", small, False),
        Case("one layer of 200 MB", "bench/large", ["v1"], False),
        Case("100 images that are there", "bench/small", small, True),
        Case("4 tags with one new layer of 100 MB", "bench/shared", small[:4], False),
    ]


@contextmanager
def new_target(directory: Path) -> Iterator[Registry]:
    with (
        tempfile.TemporaryDirectory(dir=directory) as home,
        cleaned_up(Registry(Path(home), accounts=False)) as target,
    ):
        target.start()
        yield target


def measure_ours(stores: Stores, source: Registry, target: Registry, case: Case) -> float:
    name = f"plan-{target.port}-{len(case.tags)}"
    document = {
        "name": name,
        "source": {"url": source.url, "plain_http": True},
        "target": {"url": target.url, "plain_http": True},
    }
    stores.migrations.plans.set_state(name, "live", "benchmark", present())
    worker = Worker(stores, [Plan(msgspec.convert(document, Migration))])
    worker.start()
    time.sleep(1)

    def copy() -> float:
        wishes = [Wish(name, case.repository, tag, LIVE) for tag in case.tags]
        expected = worker.plans[0].done + len(wishes)
        start = time.perf_counter()
        stores.migrations.jobs.wish(wishes, present())
        while worker.plans[0].done < expected:
            time.sleep(0.005)
        taken = time.perf_counter() - start
        assert stores.migrations.jobs.count_by_state(name) == {"done": len(wishes)}
        return taken

    try:
        taken = copy()
        return copy() if case.is_repeated else taken
    finally:
        worker.stop()


def measure_skopeo(source: Registry, target: Registry, case: Case, at_a_time: int) -> float:
    command = ["skopeo", "--insecure-policy", "copy", "-q", "--all", "--preserve-digests"]
    command += ["--src-tls-verify=false", "--dest-tls-verify=false"]

    def copy_tag(tag: str) -> None:
        names = [f"docker://{r.address}/{case.repository}:{tag}" for r in (source, target)]
        environment = {**os.environ, "HOME": str(target.storage.parent)}
        subprocess.run([*command, *names], check=True, env=environment)

    def copy() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(at_a_time) as pool:
            list(pool.map(copy_tag, case.tags))
        return time.perf_counter() - start

    taken = copy()
    return copy() if case.is_repeated else taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with (
        tempfile.TemporaryDirectory() as directory,
        database_uri() as uri,
        cleaned_up(Registry(Path(directory) / "source", accounts=False)) as source,
    ):
        source.start()
        cases = fill(source)
        stores = Stores(MongoClient(uri, tz_aware=True)["benchmark"])
        stores.ensure_indexes()
        engines: dict[str, Callable[[Registry, Case], float]] = {
            "ours": lambda target, case: measure_ours(stores, source, target, case),
            "skopeo x4": lambda target, case: measure_skopeo(source, target, case, AT_A_TIME),
            "skopeo x1": lambda target, case: measure_skopeo(source, target, case, 1),
        }
        print(f"{'case':36}" + "".join(f"{name:>11}" for name in engines) + "   ratio x4, x1")
        for case in cases:
            taken: dict[str, list[float]] = {name: [] for name in engines}
            for _ in range(rounds):
                for name, measure in engines.items():
                    with new_target(Path(directory)) as target:
                        taken[name].append(measure(target, case))
            ours, four, one = (statistics.median(times) for times in taken.values())
            row = "".join(f"{seconds:9.2f} s" for seconds in (ours, four, one))
            print(f"{case.name:36}{row}   {four / ours:5.2f} {one / ours:5.2f}", flush=True)


if __name__ == "__main__":
    main()
