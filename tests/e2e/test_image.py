"""The container image: built from the Dockerfile and run by a Docker engine, read-only, as a user.

The base image cannot be had everywhere, so one of its name is made of Debian's packages. It and the
wheels of the dependencies are kept in `~/.cache/rns-tests` for the next run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from engine import Engine, archive_of
from processes import (
    CHECKOUT,
    HOST,
    TOKEN,
    Registry,
    answers,
    cleaned_up,
    eventually,
    free_port,
    need_program,
)

pytestmark = pytest.mark.e2e

CACHE = Path.home() / ".cache" / "rns-tests"
BASE = "python:3.11-slim-bookworm"
IMAGE = "registry-notification-server"
PACKAGES = "python3,python3-venv,ca-certificates"
REQUIREMENTS = ("requirements.txt", "requirements-embedded.txt")


def base_system() -> Path:
    """The files of a Debian with Python."""
    need_program("debootstrap")
    root = CACHE / "bookworm"
    if not (root / "usr/bin/python3").exists() or (root / "debootstrap").exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return root


def wheels() -> Path:
    """The wheels that the Dockerfile installs, for the Python of the base image."""
    content = b"".join((CHECKOUT / name).read_bytes() for name in REQUIREMENTS)
    folder = CACHE / f"wheels-{hashlib.sha256(content).hexdigest()[:16]}"
    if not folder.exists():
        partial = folder.with_suffix(".partial")
        pip = [sys.executable, "-m", "pip", "download", "-q", "--only-binary", ":all:"]
        pip += ["--python-version", "3.11", "-d", str(partial)]
        for name in REQUIREMENTS:
            subprocess.run([*pip, "--no-deps", "-r", CHECKOUT / name], check=True)
        subprocess.run([*pip, "--no-deps", "setuptools"], check=True)
        partial.rename(folder)
    return folder


@pytest.fixture(scope="module")
def image(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image, built from what is in the checkout."""
    archive = subprocess.run(
        ["tar", "-C", base_system(), "-c", "."], check=True, capture_output=True
    )
    engine.docker("import", "-", BASE, given=archive.stdout)
    context = tmp_path_factory.mktemp("context")
    copied = ("app", "setup.cfg", "setup.py", "README.md", "LICENSE", "config.yml", "Dockerfile")
    for name in (*copied, ".dockerignore", *REQUIREMENTS):
        subprocess.run(["cp", "-r", CHECKOUT / name, context], check=True)
    shutil.copytree(wheels(), context / "wheels")
    engine.docker("build", "-q", "-t", IMAGE, "--build-arg", "PIP_NO_INDEX=1", context)
    return IMAGE


@pytest.fixture
def container(engine: Engine, image: str) -> Iterator[tuple[str, int]]:
    """A server as a container with the embedded database: its name and its port."""
    name, port = f"server-{free_port()}", free_port()
    engine.docker(
        *("run", "-d", "--name", name, "--network", "host"),
        *("--read-only", "--tmpfs", "/tmp", "--tmpfs", "/data:uid=1000,mode=0700"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("-e", f"RNS_SERVER__BIND={HOST}:{port}", "-e", f"RNS_REGISTRIES__0__TOKEN={TOKEN}"),
        image,
    )
    try:
        yield name, port
    finally:
        engine.try_docker("rm", "-f", name)


def test_a_push_by_docker_is_shown_by_the_server_in_a_container(
    engine: Engine, container: tuple[str, int], tmp_path: Path
) -> None:
    name, port = container
    url = f"http://{HOST}:{port}"
    eventually(lambda: answers(f"{url}/readyz", 200), 60, f"ready: {engine.docker('logs', name)}")
    endpoint = {
        "name": "rns",
        "url": f"{url}/events",
        "headers": {"Authorization": [f"Bearer {TOKEN}"]},
        "timeout": "1s",
        "threshold": 5,
        "backoff": "1s",
    }
    notifications = {"events": {"includereferences": True}, "endpoints": [endpoint]}
    with cleaned_up(
        Registry(tmp_path, accounts=False, config={"notifications": notifications})
    ) as registry:
        registry.start()
        reference = f"{registry.address}/team/app:v1"
        engine.docker("import", "-", reference, given=archive_of("content", b"of a small image"))
        engine.docker("push", reference)
        password = engine.docker("exec", name, "cat", "/data/first_password")

        def pushes() -> list[Any]:
            found = requests.get(
                f"{url}/api/v1/records?action=push", auth=("admin", password), timeout=10
            )
            assert found.status_code == 200, found.text
            return found.json()["items"]

        (push,) = eventually(pushes, 15, "the push is on record")

    assert (push["repository"], push["tag"], push["client"]) == ("team/app", "v1", "docker")


def test_the_container_may_do_no_more_than_it_needs(
    engine: Engine, container: tuple[str, int]
) -> None:
    name, port = container
    eventually(lambda: answers(f"http://{HOST}:{port}/healthz", 200), 60, "it answers")

    assert engine.docker("exec", name, "id", "-u") == "1000"
    assert not engine.try_docker("exec", name, "touch", "/etc/rns/x")
    assert not engine.try_docker("exec", name, "python3", "-m", "pip", "--version")
    engine.docker("stop", "-t", "30", name)
    assert engine.docker("inspect", name, "--format", "{{.State.ExitCode}}") == "0"


def test_the_health_check_fails_where_nothing_answers(engine: Engine, image: str) -> None:
    told = json.loads(engine.docker("inspect", image, "--format", "{{json .Config.Healthcheck}}"))
    assert told["Test"][0] == "CMD"

    assert not engine.try_docker(
        "run", "--rm", "--entrypoint", told["Test"][1], image, *told["Test"][2:]
    )


def test_without_a_token_the_container_ends_with_a_sentence(engine: Engine, image: str) -> None:
    answer = engine.run_docker("run", "--rm", "--read-only", "--tmpfs", "/data:uid=1000", image)

    assert answer.returncode == 1
    assert b"registries.0.token" in answer.stderr or b"registries[0].token" in answer.stderr
