"""What real clients do, and what a person would write down of it, against real registries.

Those that Debian has not are built by `.ci/run` (crane, regctl, oras, helm, cosign; registry 3).
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
from clients import Account
from engine import Engine
from images import build_image, build_index
from processes import PASSWORDS, Registry, Server, cleaned_up, eventually, need_program

pytestmark = pytest.mark.e2e

_numbers = count(1)


class Step(NamedTuple):
    """A command, and the records that a person would write down of it: action and tag.

    `@list` is the tag of the list of what refers to the index, where a registry has no such API.

    HOST, REPOSITORY, NAME (its last part), LAYOUT (of another image than the one that is there),
    HERE (a directory of the client) and NEW (a name not used before) are filled in, `@tag` and
    `@digest` after a repository.
    """

    command: str
    records: tuple[tuple[str, str | None], ...]


PULL, CHECK, PUSH = ("pull", "v1"), ("check", "v1"), ("push", "v2")
DELETE = ("delete", None)  # by digest, with all tags
CHART_PUSH, CHART_PULL = ("push", "0.1.0"), ("pull", "0.1.0")
COSIGN = "env COSIGN_PASSWORD= cosign"
STORES = "--root HERE/root --runroot HERE/run --storage-driver vfs"
REGCTL = "regctl --host reg=HOST,tls=disabled"

# By client: the class of its records, and what it does, one after the other, to an index.
CLIENTS: dict[str, tuple[str, list[Step]]] = {
    "docker": (
        "docker",
        [
            Step("docker pull -q HOST/REPOSITORY@tag", (PULL,)),
            Step("docker pull -q HOST/REPOSITORY@tag", (CHECK,)),
            Step("docker pull -q HOST/REPOSITORY@digest", ()),  # it has that
            Step("docker tag HOST/REPOSITORY@tag HOST/REPOSITORY:v2", ()),
            Step("docker push -q HOST/REPOSITORY:v2", (PUSH,)),
        ],
    ),
    "ctr": (
        "containerd",
        [
            Step("ctr images pull --plain-http --snapshotter native HOST/REPOSITORY@tag", (PULL,)),
            Step("ctr images pull --plain-http --snapshotter native HOST/REPOSITORY@tag", (CHECK,)),
            Step("ctr content fetch --plain-http HOST/REPOSITORY@digest", (CHECK,)),
        ],
    ),
    "podman": (
        "podman",
        [
            Step(f"podman {STORES} pull -q --tls-verify=false HOST/REPOSITORY@tag", (PULL,)),
            Step(f"podman {STORES} pull -q --tls-verify=false HOST/REPOSITORY@tag", (PULL,)),
            Step(f"podman {STORES} pull -q --tls-verify=false HOST/REPOSITORY@digest", (PULL,)),
        ],
    ),
    "buildah": (
        "podman",
        [
            Step(f"buildah {STORES} pull -q --tls-verify=false HOST/REPOSITORY@tag", (PULL,)),
            Step(f"buildah {STORES} pull -q --tls-verify=false HOST/REPOSITORY@tag", ()),
        ],
    ),
    "skopeo": (
        "podman",
        [
            Step(
                "skopeo copy -q --src-tls-verify=false docker://HOST/REPOSITORY@tag dir:HERE/NEW",
                (PULL,),
            ),
            Step(
                "skopeo copy -q --src-tls-verify=false docker://HOST/REPOSITORY@digest "
                "dir:HERE/NEW",
                (PULL,),
            ),
            # It gets the manifest, as a pull does.
            Step("skopeo inspect -n --tls-verify=false docker://HOST/REPOSITORY@tag", (PULL,)),
            Step(
                "skopeo copy -q --dest-tls-verify=false LAYOUT docker://HOST/REPOSITORY:v2",
                (PUSH,),
            ),
            # It gets what it deletes.
            Step("skopeo delete --tls-verify=false docker://HOST/REPOSITORY@tag", (PULL, DELETE)),
        ],
    ),
    "crane": (
        "crane",
        [
            Step(
                "crane pull --insecure --platform linux/amd64 HOST/REPOSITORY@tag HERE/NEW", (PULL,)
            ),
            Step(
                "crane pull --insecure --platform linux/amd64 HOST/REPOSITORY@digest HERE/NEW",
                (PULL,),
            ),
            Step("crane digest --insecure HOST/REPOSITORY@tag", (CHECK,)),
            Step("crane copy --insecure HOST/REPOSITORY@tag HOST/REPOSITORY:v2", (PULL, PUSH)),
            Step("crane delete --insecure HOST/REPOSITORY@digest", (DELETE,)),
        ],
    ),
    "regctl": (
        "crane",
        [
            Step(f"{REGCTL} image copy HOST/REPOSITORY@tag ocidir://HERE/NEW", (PULL,)),
            Step(f"{REGCTL} image copy HOST/REPOSITORY@digest ocidir://HERE/NEW", (PULL,)),
            Step(f"{REGCTL} image digest HOST/REPOSITORY@tag", (CHECK,)),
            Step(f"{REGCTL} manifest delete HOST/REPOSITORY@digest", (DELETE,)),
        ],
    ),
    "oras": (
        "oras",
        [
            Step(
                "oras copy --from-plain-http HOST/REPOSITORY@tag --to-oci-layout HERE/NEW:x",
                (PULL,),
            ),
            Step("oras manifest fetch --descriptor --plain-http HOST/REPOSITORY@tag", (CHECK,)),
            Step(
                "oras manifest delete --force --plain-http HOST/REPOSITORY@digest", (PULL, DELETE)
            ),
        ],
    ),
    "helm": (
        "helm",
        [
            Step("helm create HERE/NAME", ()),
            Step("helm package -d HERE HERE/NAME", ()),
            Step("helm push --plain-http HERE/NAME-0.1.0.tgz oci://HOST/team", (CHART_PUSH,)),
            Step(
                "helm pull --plain-http -d HERE oci://HOST/REPOSITORY --version 0.1.0",
                (CHART_PULL,),
            ),
        ],
    ),
    "cosign": (
        "crane",
        [
            Step(f"{COSIGN} generate-key-pair --output-key-prefix HERE/key", ()),
            Step(
                f"{COSIGN} sign -y --key HERE/key.key --use-signing-config=false "
                "--tlog-upload=false --allow-http-registry HOST/REPOSITORY@digest",
                # The signature is pushed with the list of what refers to the index.
                (PULL, CHECK, ("push", "@list")),
            ),
            Step(
                f"{COSIGN} verify --key HERE/key.pub --insecure-ignore-tlog "
                "--allow-http-registry HOST/REPOSITORY@tag",
                (PULL, PULL, *[("pull", "@list")] * 2),  # it gets both twice
            ),
        ],
    ),
}


@pytest.fixture(scope="module")
def server(make_module_server: Callable[..., Server]) -> Server:
    server = make_module_server()
    server.start()
    server.rns("accounts", "passwd", "admin", "--password-stdin", given=f"{PASSWORDS['admin']}\n")
    return server


@pytest.fixture(scope="module", params=["docker-registry", "registry"], ids=["2.8", "3"])
def registry(
    request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Registry]:
    """A registry without accounts that notifies `server`."""
    program = need_program(request.param)
    directory = tmp_path_factory.mktemp("registry")
    with cleaned_up(Registry(directory, server, accounts=False, program=program)) as registry:
        registry.start()
        yield registry


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of a client, with a short name: podman asks for one."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.mark.parametrize("name", CLIENTS)
def test_what_a_client_does_is_on_record_as_a_person_would_write_it_down(
    name: str, registry: Registry, server: Server, engine: Engine, tmp_path: Path, home: Path
) -> None:
    need_program(name)
    seen_as, steps = CLIENTS[name]
    repository = f"team/{name}-{next(_numbers)}"
    index = build_index(tmp_path / "index", repository)
    other = build_image(tmp_path / "image", repository)
    target = f"docker://{registry.address}/{repository}:v1"
    copy = ["skopeo", "copy", "-q", "--all", "--preserve-digests", "--dest-tls-verify=false"]
    subprocess.run([*copy, index.source, target], check=True)

    tags = {index.digest.replace(":", "-"): "@list"}
    with closing(Account(server, "admin")) as account:
        known: set[str] = set()

        def is_on_record(*expected: tuple[str, str | None]) -> bool:
            """Whether the records that were not known are these, of this client."""
            records = account.records(repository=repository)
            new = [record for record in records if record["id"] not in known]
            found = [(r["action"], tags.get(r["tag"], r["tag"])) for r in new]
            is_so = sorted(found, key=str) == sorted(expected, key=str)
            if is_so and known:
                assert {record["client"] for record in new} <= {seen_as}
            known.update(record["id"] for record in records if is_so)
            return is_so

        eventually(lambda: is_on_record(("push", "v1")), 10, "the push before all")
        for number, step in enumerate(steps):
            filled = {
                "REPOSITORY@tag": "REPOSITORY:v1",
                "REPOSITORY@digest": f"REPOSITORY@{index.digest}",
                "REPOSITORY": repository,
                "NAME": repository.partition("/")[2],
                "HOST": registry.address,
                "LAYOUT": other.source,
                "HERE": str(home),
                "NEW": f"new-{number}",
            }
            command = step.command
            for word, value in filled.items():
                command = command.replace(word, value)
            engine.run(command.split(), home)
            records = partial(is_on_record, *step.records)
            eventually(records, 10, f"{step.command}: {step.records}")
