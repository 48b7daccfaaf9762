"""A Docker engine with a containerd of its own, in one directory, without network of its own.

As root. Nothing of it leaves the directory; containers share the network of this machine.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

from processes import TOOLS, Program, eventually

START_S = 60
CONTAINERD = """version = 2
root = "{directory}/containerd"
state = "{directory}/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{directory}/containerd.sock"
[ttrpc]
address = "{directory}/containerd.sock.ttrpc"
"""


def archive_of(name: str, content: bytes) -> bytes:
    """A tar archive with one file, from which `docker import` makes an image."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class Engine:
    """`containerd` and `dockerd`, and the commands that talk to them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.containerd_socket = directory / "containerd.sock"
        self._docker_socket = directory / "docker.sock"
        self._programs: list[Program] = []
        self._environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{self._docker_socket}",
            "DOCKER_CONFIG": str(directory),
            "DOCKER_BUILDKIT": "0",
        }

    def start(self) -> None:
        (self._directory / "config.json").write_text("{}")  # of docker; buildah wants it there
        config = self._directory / "containerd.toml"
        config.write_text(CONTAINERD.format(directory=self._directory))
        self._launch("containerd", ["containerd", "-c", str(config)])
        eventually(self.containerd_socket.exists, START_S, "containerd listens")
        folders = {"data-root": "docker", "exec-root": "exec", "pidfile": "docker.pid"}
        options = [f"--{option}={self._directory / name}" for option, name in folders.items()]
        options += [
            f"--host=unix://{self._docker_socket}",
            f"--containerd={self.containerd_socket}",
        ]
        options += ["--iptables=false", "--ip6tables=false", "--bridge=none", "--ip-forward=false"]
        self._launch("dockerd", ["dockerd", *options])
        eventually(lambda: self.try_docker("version"), START_S, "the Docker engine answers")

    def clean_up(self) -> None:
        for program in reversed(self._programs):
            program.terminate()
        subprocess.run(
            ["umount", self._directory / "exec/netns/default"], check=False, capture_output=True
        )

    def docker(self, *arguments: str | Path, given: bytes | None = None) -> str:
        """What `docker` prints; fails with its words."""
        answer = self.run_docker(*arguments, given=given)
        assert answer.returncode == 0, f"docker {arguments}: {answer.stderr.decode()[-3000:]}"
        return answer.stdout.decode().strip()

    def try_docker(self, *arguments: str) -> bool:
        return self.run_docker(*arguments).returncode == 0

    def run(self, command: list[str], home: Path) -> str:
        """What any program prints; docker and ctr talk to this engine. Fails with its words."""
        if command[0] == "ctr":
            command = ["ctr", "-a", str(self.containerd_socket), *command[1:]]
        environment = {**self._environment, "HOME": str(home), "PATH": TOOLS}
        answer = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert answer.returncode == 0, f"{command}: {answer.stderr[-3000:]}"
        return answer.stdout.strip()

    def run_docker(
        self, *arguments: str | Path, given: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """A `docker` that has ended, however it ended."""
        return subprocess.run(
            ["docker", *map(str, arguments)],
            env=self._environment,
            input=given,
            capture_output=True,
            timeout=600,
            check=False,
        )

    def _launch(self, name: str, command: list[str]) -> None:
        self._programs.append(Program(name, command, self._directory, os.environ))
