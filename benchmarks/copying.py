"""How fast images are copied, against skopeo: `python benchmarks/copying.py`.

Ours is `rns migrate worker --nice 0`, a process that waits for work: the time is from the wish for
the tags to the last finished job. It is given twice, without and with the start of that process,
which a migration pays once. skopeo is `skopeo copy -q --all --preserve-digests`, one process for
each image, four at a time (as ours) and one after the other, and `skopeo sync`, one process for a
whole repository, which lists its tags too. All run at the same niceness and copy between the same
two docker-registry processes; every measurement begins with an empty target. Prints medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import yaml
from database import database_uri
from pymongo import MongoClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from clients import Publisher
from images import IMAGE, LAYER
from processes import Registry, cleaned_up

from app.store import Stores
from app.store.migrations import LIVE, Wish, present

CONFIG = "application/vnd.oci.image.config.v1+json"
DATABASE = "benchmark"
ENGINES = ["ours", "with start", "skopeo x4", "skopeo x1", "sync"]  # 4: as limits.images is
CHECKOUT = Path(__file__).resolve().parents[1]


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


def measure_ours(
    stores: Stores, uri: str, source: Registry, target: Registry, case: Case
) -> tuple[float, float]:
    """Seconds for the copies, and these with the start of the worker's process."""
    name = f"plan-{target.port}-{len(case.tags)}"
    plan = {
        "name": name,
        "source": {"url": source.url, "plain_http": True},
        "target": {"url": target.url, "plain_http": True},
    }
    config = target.storage.parent / "config.yml"
    mongodb = {"uri": uri, "database": DATABASE, "data_dir": str(config.parent / "data")}
    registries = [{"name": "default", "token": "of-the-benchmark"}]
    document = {"mongodb": mongodb, "registries": registries, "migrations": [plan]}
    config.write_text(yaml.safe_dump(document))
    stores.migrations.plans.set_state(name, "live", "benchmark", present())
    wishes = [Wish(name, case.repository, tag, LIVE) for tag in case.tags]

    def copy() -> float:
        start = time.perf_counter()
        stores.migrations.jobs.wish(wishes, present())
        while stores.migrations.jobs.count_by_state(name) != {"done": len(wishes)}:
            time.sleep(max(0.01, 0.02 * (time.perf_counter() - start)))  # asking costs, too
        return time.perf_counter() - start

    environment = {**os.environ, "RNS_CONFIG": str(config), "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "app", "migrate", "worker", "--nice", "0"]
    start = time.perf_counter()
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as worker:
        try:
            while not stores.migrations.workers.find(present()):
                time.sleep(0.005)
            started = time.perf_counter() - start
            taken = copy()
            if case.is_repeated:
                taken = copy()
        finally:
            worker.terminate()
    return taken, started + taken


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


def measure_sync(source: Registry, target: Registry, case: Case) -> float:
    command = ["skopeo", "--insecure-policy", "sync", "--all", "--preserve-digests"]
    command += ["--src-tls-verify=false", "--dest-tls-verify=false"]
    command += ["--src", "docker", "--dest", "docker"]
    command += [f"{source.address}/{case.repository}", f"{target.address}/bench"]
    environment = {**os.environ, "HOME": str(target.storage.parent)}

    def copy() -> float:
        start = time.perf_counter()
        subprocess.run(command, check=True, env=environment, capture_output=True)
        return time.perf_counter() - start

    taken = copy()
    return copy() if case.is_repeated else taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", default="", help="only those with this in their name")
    options = parser.parse_args()
    rounds = options.rounds
    with (
        tempfile.TemporaryDirectory() as directory,
        database_uri() as uri,
        cleaned_up(Registry(Path(directory) / "source", accounts=False)) as source,
    ):
        source.start()
        cases = [case for case in fill(source) if options.case in case.name]
        stores = Stores(MongoClient(uri, tz_aware=True)[DATABASE])
        stores.ensure_indexes()
        stores.schema.note()
        print(f"{'case':36}" + "".join(f"{name:>11}" for name in ENGINES) + "   ratios to ours")
        for case in cases:
            taken: dict[str, list[float]] = {name: [] for name in ENGINES}
            for _ in range(rounds):
                for name in ENGINES[1:]:
                    with new_target(Path(directory)) as target:
                        if name == "with start":
                            ours, started = measure_ours(stores, uri, source, target, case)
                            taken["ours"].append(ours)
                            taken[name].append(started)
                        elif name == "sync":
                            taken[name].append(measure_sync(source, target, case))
                        else:
                            at_a_time = int(name.removeprefix("skopeo x"))
                            taken[name].append(measure_skopeo(source, target, case, at_a_time))
            ours, *others = (statistics.median(times) for times in taken.values())
            row = "".join(f"{seconds:9.2f} s" for seconds in (ours, *others))
            ratios = " ".join(f"{seconds / ours:5.2f}" for seconds in others)
            print(f"{case.name:36}{row}   {ratios}", flush=True)


if __name__ == "__main__":
    main()
