"""What a migration costs the webhook, and how late it is: `python benchmarks/migration_latency.py`.

First: how long POST /events takes, one event after the other over one connection as a registry
sends them, in turn without a worker, beside `rns migrate worker` that copies between two
registries, and, to tell what is the machine's part, beside four `skopeo copy` at a time that copy
the same images between registries of the same kind and never ask the database. Then: with nothing
else to do, images are pushed one by one to a registry that notifies the server, and the lag is
from before the push of the manifest until the target has the tag. `rns serve` runs with the
embedded database.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from clients import Publisher
from images import IMAGE, LAYER
from processes import TOKEN, Program, Registry, Server, cleaned_up, eventually

CONFIG = "application/vnd.oci.image.config.v1+json"
IMAGES = 600  # of one round: more than the worker copies meanwhile
AT_A_TIME = 4  # as limits.images is by default


def event(number: int) -> dict[str, object]:
    when = datetime.now(UTC) - timedelta(seconds=1)
    return {
        "id": str(uuid.uuid4()),
        "timestamp": when.isoformat().replace("+00:00", "Z"),
        "action": "push" if number % 10 == 0 else "pull",
        "target": {
            "repository": f"team-{number % 20}/app-{number % 200}",
            "tag": f"v{number % 50}",
            "digest": f"sha256:{number % 500:064x}",
            "mediaType": IMAGE,
            "size": 1000,
        },
        "request": {"addr": f"10.0.{number % 250}.1:5", "method": "GET", "useragent": "docker/27"},
        "actor": {"name": f"actor-{number % 300}"},
    }


def push(publisher: Publisher, tag: str, layers: Sequence[bytes]) -> str:
    put = publisher.put_blob
    config = put("bench/app", f'{{"tag":"{tag}"}}'.encode(), CONFIG)
    described = [put("bench/app", layer, LAYER) for layer in layers]
    made = publisher.put_manifest("bench/app", tag, IMAGE, config=config, layers=described)
    return str(made["digest"])


def post(server: Server, count: int) -> list[float]:
    """Milliseconds of each POST; one event in ten is a push."""
    taken = []
    with requests.Session() as http:
        http.headers.update(
            {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        )
        for number in range(count):
            body = json.dumps({"events": [event(number)]})
            start = time.perf_counter()
            answer = http.post(f"{server.url}/events", data=body)
            taken.append(1000 * (time.perf_counter() - start))
            assert answer.status_code == 202, answer.text
    return taken


def percentiles(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [ordered[int(len(ordered) * part)] for part in (0.5, 0.95, 0.99)]


class Copies:
    """skopeo copies of one image after the other, AT_A_TIME at a time, until told to stop."""

    def __init__(self, source: Registry, target: Registry) -> None:
        self._source, self._target = source, target
        self._numbers = iter(range(IMAGES))
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self.done = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._copy) for _ in range(AT_A_TIME)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def _copy(self) -> None:
        options = ["-q", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"]
        while not self._stopping.is_set():
            with self._lock:
                name = f"bench/app:v{next(self._numbers):03}"
            places = [f"docker://{r.address}/{name}" for r in (self._source, self._target)]
            subprocess.run(["skopeo", "copy", *options, *places], check=True)
            with self._lock:
                self.done += 1


class Setting:
    def __init__(self, stack: ExitStack, directory: Path, rounds: int) -> None:
        self._stack = stack
        self.server = stack.enter_context(cleaned_up(Server(directory / "rns")))
        self.idle = Registry(directory / "idle", self.server, accounts=False)
        self.full = Registry(directory / "full", accounts=False)
        self.targets = [
            Registry(directory / f"target-{number}", accounts=False)
            for number in range(2 * rounds + 1)
        ]
        for registry in (self.idle, self.full, *self.targets):
            stack.enter_context(cleaned_up(registry)).start()
        plans = [self._plan("live", self.idle, "default", self.targets[-1])]
        for number in range(rounds):
            plans.append(self._plan(f"r{number}", self.full, "full", self.targets[number]))
        registries = [{"name": "default", "token": TOKEN}, {"name": "full", "token": "other-token"}]
        self.server.configure(migrations=plans, registries=registries)
        self.server.start()

    def _plan(self, name: str, source: Registry, registry: str, target: Registry) -> object:
        return {
            "name": name,
            "source": {"url": source.url, "plain_http": True, "registry_id": registry},
            "target": {"url": target.url, "plain_http": True},
        }

    def begin(self, plan: str) -> Program:
        """Start a plan, and a worker for it alone."""
        self.server.rns("migrate", "start", "--plan", plan)
        command = [sys.executable, "-m", "app", "migrate", "worker", "--plan", plan]
        directory, environment = self.server.directory, self.server.environment
        worker = Program(f"worker-{plan}", command, directory, environment)
        self._stack.callback(worker.kill_group)
        return worker


def measure_events(setting: Setting, rounds: int, posts: int) -> None:
    publisher = Publisher(setting.full, "ci-bot")
    large = [os.urandom(20_000_000) for _ in range(3)]
    for number in range(IMAGES):
        layers = large[:1] if number % 200 == 50 else [os.urandom(20_000)]
        large = large[1:] if number % 200 == 50 else large
        push(publisher, f"v{number:03}", layers)
    publisher.close()
    post(setting.server, posts)  # warm
    found: dict[str, list[list[float]]] = {"without": [], "worker": [], "skopeo": []}
    for number in range(rounds):
        found["without"].append(post(setting.server, posts))
        worker = setting.begin(f"r{number}")
        eventually(lambda: worker.log.count(": copied") > 5, 30, "the worker copies")  # noqa: B023
        before, start = worker.log.count(": copied"), time.monotonic()
        found["worker"].append(post(setting.server, posts))
        rate = (worker.log.count(": copied") - before) / (time.monotonic() - start)
        assert worker.log.count(": copied") < IMAGES, "it had nothing more to do"
        worker.terminate()
        copies = Copies(setting.full, setting.targets[rounds + number])
        with copies.running():
            eventually(lambda: copies.done > 5, 30, "skopeo copies")  # noqa: B023
            before, start = copies.done, time.monotonic()
            found["skopeo"].append(post(setting.server, posts))
            skopeo_rate = (copies.done - before) / (time.monotonic() - start)
        print(f"round {number + 1}: {rate:.1f} copies/s by a worker, {skopeo_rate:.1f} by skopeo")
    print(f"{'beside':8} {'p50 ms':>7} {'p95':>7} {'p99':>7}  p95 ratio, median of the rounds")
    for name, lists in found.items():
        p50, p95, p99 = percentiles([value for values in lists for value in values])
        ratios = [
            percentiles(values)[1] / percentiles(alone)[1]
            for values, alone in zip(lists, found["without"], strict=True)
        ]
        print(f"{name:8} {p50:7.1f} {p95:7.1f} {p99:7.1f}  {statistics.median(ratios):.2f}")


def measure_lag(setting: Setting, pushes: int) -> None:
    worker = setting.begin("live")
    target = f"{setting.targets[-1].url}/v2/bench/app/manifests"
    publisher = Publisher(setting.idle, "ci-bot")
    lags = []
    with requests.Session() as http:
        http.headers["Accept"] = IMAGE
        for number in range(pushes + 3):
            layer = publisher.put_blob("bench/app", os.urandom(50_000), LAYER)
            config = publisher.put_blob("bench/app", f"{number}".encode(), CONFIG)
            time.sleep(0.5 + number % 7 / 10)  # not in step with the worker
            start = time.perf_counter()
            publisher.put_manifest("bench/app", f"v{number}", IMAGE, config=config, layers=[layer])
            while http.head(f"{target}/v{number}").status_code != 200:
                time.sleep(0.01)
            lags.append(time.perf_counter() - start)
    publisher.close()
    worker.terminate()
    p50, p95, _ = percentiles(lags[3:])  # the first wait for the worker's start
    print(
        f"live lag of {pushes} pushes: p50 {p50:.2f} s, p95 {p95:.2f} s, max {max(lags[3:]):.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--posts", type=int, default=300)
    parser.add_argument("--pushes", type=int, default=60)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        setting = Setting(stack, Path(directory), arguments.rounds)
        measure_lag(setting, arguments.pushes)
        measure_events(setting, arguments.rounds, arguments.posts)


if __name__ == "__main__":
    main()
