"""Real pulls from two replicas of a registry: `python benchmarks/replica_pulls.py --pulls 250`.

A Docker engine and containerd, as root, pull so often each, images and indexes, and remove each
before the next. Two docker-registry share their storage and stand behind nginx, which takes them in
turn for each request: so the requests of one pull meet both. Each has its own queue of
notifications to one server. Every pull must be one pull on record, with its tag, and nothing a
check. Needs docker, dockerd, containerd, ctr, docker-registry, nginx and skopeo (packages of
Debian).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pymongo import MongoClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from clients import Skopeo
from images import build_image, build_index
from processes import HOST, Program, Registry, Server, cleaned_up, eventually, free_port

from app.embedded import recorded_uri

PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
REPOSITORY = "team/app"
READY_S = 120.0
NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream replicas {{ server {one}; server {other}; }}
  server {{
    listen {address};
    location / {{
      proxy_pass http://replicas;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
    }}
  }}
}}
"""
CONTAINERD = """
version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{folder}/containerd.sock"
[ttrpc]
address = "{folder}/containerd.sock.ttrpc"
[plugins."io.containerd.metadata.v1.bolt"]
content_sharing_policy = "isolated"  # dockerd keeps manifests there, which ctr need not pull then
"""

Pull = Callable[[str], None]  # of a tag; the image is gone before it returns


def run(*command: str) -> str:
    done = subprocess.run(command, env=PATH, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr}")
    return done.stdout


def succeeds(*command: str) -> bool:
    return not subprocess.run(command, env=PATH, capture_output=True, check=False).returncode


@contextmanager
def running(name: str, command: list[str], folder: Path) -> Iterator[Program]:
    program = Program(name, command, folder, PATH)
    try:
        yield program
    finally:
        with suppress(AssertionError):
            program.terminate()


@contextmanager
def behind_nginx(folder: Path, one: Registry, other: Registry) -> Iterator[str]:
    """The address that stands for both registries."""
    folder.mkdir()
    address = f"{HOST}:{free_port()}"
    file = folder / "nginx.conf"
    names = {"folder": folder, "address": address, "one": one.address, "other": other.address}
    file.write_text(NGINX.format(**names))
    with running("nginx", ["nginx", "-c", str(file)], folder):
        eventually(
            lambda: succeeds("curl", "-fs", f"http://{address}/v2/"), READY_S, "nginx answers"
        )
        yield address


@contextmanager
def engines(folder: Path, address: str) -> Iterator[dict[str, Pull]]:
    """A pull by docker and one by containerd."""
    folder.mkdir()
    socket = f"{folder}/containerd.sock"
    file = folder / "containerd.toml"
    file.write_text(CONTAINERD.format(folder=folder))
    docker = ["docker", "-H", f"unix://{folder}/docker.sock"]
    dockerd = ["dockerd", "--data-root", f"{folder}/docker", "--exec-root", f"{folder}/exec"]
    dockerd += ["-H", docker[2], "-p", f"{folder}/docker.pid", "--containerd", socket]
    dockerd += ["--storage-driver", "vfs", "--iptables=false", "--ip6tables=false"]
    dockerd += ["--bridge=none", "--ip-forward=false"]
    images = ["ctr", "-a", socket, "images"]

    def by_docker(tag: str) -> None:
        name = f"{address}/{REPOSITORY}:{tag}"
        run(*docker, "pull", "-q", name)
        run(*docker, "rmi", "-f", name)

    def by_containerd(tag: str) -> None:
        name = f"{address}/{REPOSITORY}:{tag}"
        run(*images, "pull", "--plain-http", "--snapshotter", "native", name)
        run(*images, "rm", "--sync", name)

    with running("containerd", ["containerd", "-c", str(file)], folder):
        eventually(lambda: succeeds("ctr", "-a", socket, "version"), READY_S, "containerd answers")
        with running("dockerd", dockerd, folder):
            eventually(lambda: succeeds(*docker, "info"), READY_S, "dockerd answers")
            try:
                yield {"docker": by_docker, "containerd": by_containerd}
            finally:
                succeeds("umount", f"{folder}/exec/netns/default")


def push_images(registry: Registry, folder: Path) -> list[str]:
    """Images of one platform and of two; returns their tags."""
    skopeo = Skopeo(registry, "ci-bot", folder)
    tags = []
    for number in range(3):
        for build in (build_image, build_index):
            tag = f"{build.__name__.removeprefix('build_')}-{number}"
            skopeo.push(build(folder / tag, tag), f"{REPOSITORY}:{tag}")
            tags.append(tag)
    return tags


def pull_all(pulls: dict[str, Pull], tags: list[str], number: int) -> Counter[tuple[str, str]]:
    """Pull the tags in turn, so often with each client; returns how often which by whom."""
    done: Counter[tuple[str, str]] = Counter()
    began = time.monotonic()
    for turn in range(number):
        for client, pull in pulls.items():
            tag = tags[turn % len(tags)]
            pull(tag)
            done[client, tag] += 1
        if (turn + 1) % 25 == 0 or turn + 1 == number:
            print(f"  {done.total():4} pulls, {time.monotonic() - began:.0f} s", flush=True)
    return done


def report(events: list[Any], done: Counter[tuple[str, str]]) -> bool:
    """Print what is on record beside what was done; returns whether it is the same."""
    whole = [row for row in events if not row.get("part_of")]
    recorded = Counter((row["client"], row.get("tag")) for row in whole if row["action"] == "pull")
    instances = defaultdict(set)
    for row in events:
        instances[row.get("part_of") or row["_id"]].add(row["instance"])
    columns = ("pulled", "pulls", "checks", "events", "of both replicas")
    print(f"{'client':12}" + "".join(f"{name:>18}" for name in columns))
    for client in ("docker", "containerd"):
        of_client = [row for row in whole if row["client"] == client]
        actions = Counter(row["action"] for row in of_client)
        counts = (
            sum(number for (name, _), number in done.items() if name == client),
            actions["pull"],
            actions["check"],
            sum(row["client"] == client for row in events),
            sum(len(instances[row["_id"]]) == 2 for row in of_client),
        )
        print(f"{client:12}" + "".join(f"{count:18}" for count in counts))
    for key in sorted(recorded.keys() | done.keys(), key=str):
        if recorded[key] != done[key]:
            print(f"{key}: {recorded[key]} pulls on record, not {done[key]}")
    return recorded == done and len(whole) == done.total()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pulls", type=int, default=250, help="of each client")
    number = parser.parse_args().pulls
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        home = Path(directory)
        server = stack.enter_context(cleaned_up(Server(home / "server")))
        server.start()
        storage = home / "storage"
        replicas = [
            stack.enter_context(
                cleaned_up(Registry(home / name, server, accounts=False, storage=storage))
            )
            for name in ("one", "other")
        ]
        for replica in replicas:
            replica.start()
        tags = push_images(replicas[0], home)
        address = stack.enter_context(behind_nginx(home / "nginx", *replicas))
        pulls = stack.enter_context(engines(home / "engines", address))
        done = pull_all(pulls, tags, number)
        for replica in replicas:
            replica.wait_until_delivered(READY_S)
        server.wait_until_worked_in()
        with MongoClient[Any](recorded_uri(server.data_dir)) as client:
            query = {"action": {"$in": ["pull", "check"]}}
            events = list(client["registry"]["events"].find(query))
    sys.exit(not report(events, done))


if __name__ == "__main__":
    main()
