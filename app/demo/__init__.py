"""Recorded envelopes as demonstration data: moved to the last days, spread over accounts.

Everything is filed under the registry `demo`, so it can be told apart and removed again. Replaying
it twice on the same day adds nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

from app.notifications.ingest import Ingest
from app.rules.events import parse_timestamp
from app.store import Stores

REGISTRY = "demo"

_PEOPLE = ("alice", "bob", "carol")
_PULLERS: tuple[tuple[str, str, str], ...] = (
    ("alice", "10.20.0.11:50312", "docker/27.3.1 go/go1.22.7 UpstreamClient(Docker-Client/27.3.1)"),
    ("bob", "10.20.0.12:41877", "containers/5.32.0 (github.com/containers/image)"),
    ("ci-bot", "10.30.1.5:60001", "buildkit/v0.16"),
    ("k8s-prod", "10.40.7.21:35110", "containerd/v1.7.22"),
    ("k8s-prod", "10.40.7.22:35111", "containerd/v1.7.22"),
    ("k8s-staging", "[fd00:40::9]:35112", "cri-o/1.30.4 go/go1.22.5"),
    ("scanner", "10.50.0.2:44120", "trivy/0.56.2"),
)


def make_envelopes(now: datetime, days: int) -> list[bytes]:
    """The recorded envelopes, once for each of the last `days`, oldest first.

    `now` is aware. The recording's own pace is kept within a day; its last round ends before now.
    """
    recorded = [json.loads(line) for line in _lines()]
    moments = [parse_timestamp(_event(envelope)["timestamp"])[0] for envelope in recorded]
    last = max(moments)
    bodies: list[tuple[datetime, bytes]] = []
    for day in range(days):
        # Later rounds of a day happen at other hours, so that charts have a shape.
        shift = now - last - timedelta(days=day, minutes=(day * 97) % 600)
        for index, envelope in enumerate(recorded):
            moment = moments[index] + shift
            bodies.append((moment, _moved(envelope, moment, day, index)))
    return [body for _, body in sorted(bodies, key=lambda pair: pair[0])]


def replay(stores: Stores, envelopes: Iterable[bytes]) -> int:
    """Receive the envelopes as if the registry `demo` had sent them as it happened.

    Returns the number of events stored.
    """
    ingest, stored = Ingest(stores), 0
    for body in envelopes:
        moment, _ = parse_timestamp(_event(json.loads(body))["timestamp"])
        stored += ingest.receive(body, REGISTRY, moment).stored
    return stored


def remove(stores: Stores) -> int:
    """Delete all demonstration data; returns the number of events."""
    removed = stores.events.remove_registry(REGISTRY)
    stores.catalogue_writer.remove_registry(REGISTRY)
    stores.days.remove_registry(REGISTRY)
    stores.manifests.remove_registry(REGISTRY)
    return removed


def _lines() -> list[str]:
    text = resources.files("app.demo").joinpath("envelopes.jsonl").read_text("utf-8")
    return text.splitlines()


def _event(envelope: dict[str, Any]) -> dict[str, Any]:
    event: dict[str, Any] = envelope["events"][0]
    return event


def _moved(envelope: dict[str, Any], moment: datetime, day: int, index: int) -> bytes:
    recorded = _event(envelope)
    request = dict(recorded["request"])
    # One client's requests stay one client's: who it is depends on the second, not on the request.
    choice = day + int(recorded["timestamp"][14:16] + recorded["timestamp"][17:19])
    if recorded["action"] == "pull":
        actor, request["addr"], request["useragent"] = _PULLERS[choice % len(_PULLERS)]
    else:
        actor = "ci-bot" if choice % 3 else _PEOPLE[choice % len(_PEOPLE)]
    stamp = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    key = hashlib.sha256(f"{recorded['id']} {moment.date()} {index}".encode()).hexdigest()[:32]
    event = recorded | {"id": key, "timestamp": stamp, "request": request, "actor": {"name": actor}}
    return json.dumps({"events": [event]}).encode()
