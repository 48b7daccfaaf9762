"""Events as a busy registry sends them: 20 % push, 40 % HEAD, 40 % GET by digest."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

IMAGE = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
REPOSITORIES = [f"team-{number % 12}/service-{number}" for number in range(60)]
CLIENTS = [
    (f"cluster-{number % 5}", f"10.{number % 5}.0.{number}", "containerd/v1.7.22")
    for number in range(60)
]
HEAD, GET, PUT = "HEAD", "GET", "PUT"


class Registry:
    """One registry's repositories, and what happens in them; seeded, so each run is alike."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._builds = itertools.count(1)
        self._seed = seed
        self._newest: dict[str, tuple[str, str]] = {}

    def events(self) -> Iterator[dict[str, Any]]:
        """One push, then two pulls of two events each, and so on; without times."""
        while True:
            yield self.push()
            yield from self.pull()
            yield from self.pull()

    def push(self) -> dict[str, Any]:
        """A build: a new tag every other time, else `latest` moves."""
        number = next(self._builds)
        repository = self._chance.choice(REPOSITORIES)
        digest = _digest(f"{self._seed} {number}")
        tag = f"build-{number}" if number % 2 else "latest"
        self._newest[repository] = (tag, digest)
        return _event("push", PUT, repository, tag, digest, ("ci", "10.9.9.9", "buildkit/v0.16"))

    def pull(self) -> list[dict[str, Any]]:
        """What a node sends: a HEAD by tag, and a GET by digest."""
        repository = self._chance.choice(list(self._newest))
        tag, digest = self._newest[repository]
        client = self._chance.choice(CLIENTS)
        return [
            _event("pull", HEAD, repository, tag, digest, client),
            _event("pull", GET, repository, None, digest, client),
        ]


def at(event: dict[str, Any], moment: datetime | None = None) -> dict[str, Any]:
    """The event as it happens now, or then."""
    moment = moment or datetime.now(UTC)
    return event | {"timestamp": moment.isoformat().replace("+00:00", "Z")}


def body(*events: dict[str, Any]) -> bytes:
    """A notification that holds these events."""
    return json.dumps({"events": events}).encode()


def _event(
    action: str,
    method: str,
    repository: str,
    tag: str | None,
    digest: str,
    client: tuple[str, str, str],
) -> dict[str, Any]:
    actor, address, user_agent = client
    layers = [
        {"mediaType": LAYER, "size": 3_000_000, "digest": _digest(f"{repository} layer {number}")}
        for number in range(5)
    ]
    config = {"mediaType": CONFIG, "size": 7_000, "digest": _digest(f"config {digest}")}
    target = {
        "mediaType": IMAGE,
        "size": 1_200,
        "length": 1_200,
        "digest": digest,
        "repository": repository,
        "url": f"https://registry.example.org/v2/{repository}/manifests/{tag or digest}",
        "references": [config, *layers],
    }
    if tag:
        target["tag"] = tag
    return {
        "id": str(uuid.uuid4()),
        "action": action,
        "target": target,
        "request": {
            "id": str(uuid.uuid4()),
            "addr": f"{address}:40000",
            "host": "registry.example.org",
            "method": method,
            "useragent": user_agent,
        },
        "actor": {"name": actor},
        "source": {"addr": "registry-1:5000", "instanceID": "6c3a1b2e-0000-4000-8000-000000000000"},
    }


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
