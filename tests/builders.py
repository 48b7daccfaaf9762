"""Builders with defaults: wire events as a registry sends them, and rules of access."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bson import json_util

from app.notifications.crew import agree
from app.notifications.derivation import Derivation
from app.notifications.lease import Held, lease_of
from app.notifications.projector import Projector
from app.rules.access import Account, compile_rule, parse_acl
from app.rules.events import Event, parse_envelope
from app.store import Stores

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
DATA = Path(__file__).parent / "data"
INDEX = "application/vnd.oci.image.index.v1+json"
PASSWORDS = {"admin": "secret-admin", "alice": "secret-alice", "mallory": "secret-mallory"}
IMAGE = "application/vnd.oci.image.manifest.v1+json"
_ids = itertools.count(1)


def digest(name: str) -> str:
    """The digest of a thing with this name."""
    return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def wire_event(
    action: str = "push",
    repository: str = "team/app",
    *,
    tag: str | None = None,
    of: str | None = "image",
    at: datetime | float = 0,
    id: str | None = None,
    media_type: str | None = IMAGE,
    method: str | None = None,
    actor: str = "alice",
    address: str = "10.0.0.1:5000",
    user_agent: str = "docker/27.3.1",
    children: list[str] | None = None,
    **target: Any,
) -> dict[str, Any]:
    """One event; `at` is a time or seconds after NOW, `of` names the manifest."""
    moment = NOW + timedelta(seconds=at) if isinstance(at, int | float) else at
    fields: dict[str, Any] = {"repository": repository}
    if of is not None:
        fields |= {"digest": digest(of), "mediaType": media_type, "size": 500}
    if tag is not None:
        fields["tag"] = tag
    if children is not None:
        fields["references"] = [
            {"mediaType": IMAGE, "size": 500, "digest": digest(child)} for child in children
        ]
    if action == "delete":
        fields.pop("mediaType", None)
        fields.pop("size", None)
    methods = {"push": "PUT", "pull": "GET", "check": "HEAD", "delete": "DELETE", "mount": "POST"}
    return {
        "id": id or f"event-{next(_ids)}",
        "timestamp": moment.isoformat().replace("+00:00", "Z"),
        "action": "pull" if action == "check" else action,
        "target": fields | target,
        "request": {
            "id": "r",
            "addr": address,
            "host": "registry.example:5000",
            "method": method or methods.get(action, "GET"),
            "useragent": user_agent,
        },
        "actor": {"name": actor} if actor else {},
        "source": {"addr": "node:5000", "instanceID": "instance"},
    }


def time_of(event: Any) -> datetime:
    """When a wire event happened."""
    return datetime.fromisoformat(event["timestamp"])


def envelope(*events: Any) -> bytes:
    """A request body."""
    return json.dumps({"events": list(events)}).encode()


def deliver(
    stores: Stores,
    body: bytes,
    registry: str = "default",
    now: datetime | None = None,
    after: Callable[[Sequence[Event]], None] = lambda events: None,
) -> int:
    """Have a body worked in as if it came now; returns how many events were new."""
    now = now or datetime.now(UTC)
    parsed = parse_envelope(body, registry, now)
    stores.rejected.add(parsed.rejected)
    return Derivation(stores, after).work_in(parsed.events, now)


def divide(stores: Stores, number: int) -> None:
    """Let there be so many projectors."""
    stores.schema.note()
    stores.schema.want_projectors(number)
    assert agree(stores, number, Held(stores, passing=True))


def abandon(stores: Stores, number: int = 0) -> None:
    """Let who derived a share be gone in the midst of it, a minute ago."""
    then = datetime.now(UTC) - timedelta(minutes=1)
    assert stores.leases.take(lease_of(number), "gone", then, timedelta(seconds=1))


def work_in(stores: Stores) -> None:
    """Have the envelopes worked in that were taken in, as the server does a moment later."""
    projector = Projector(stores)
    projector.drain()
    projector.stop()


def recorded_bodies() -> list[bytes]:
    """Every envelope recorded from real registries, in order."""
    bodies = []
    for name in ("registry-2.8.3.jsonl", "registry-2.8.2-cases.jsonl"):
        for line in (DATA / name).read_text().splitlines():
            row = json.loads(line)
            bodies.append(json.dumps(row.get("envelope") or row["body"]).encode())
    return bodies


def leave_version_0_1(database: Any) -> None:
    """Fill a database as version 0.1 left it: five of its ten days are beyond the retention."""
    options = json_util.JSONOptions(tz_aware=True)
    for line in (DATA / "version-0.1.jsonl").read_text().splitlines():
        row = json_util.loads(line, json_options=options)
        database[row["collection"]].insert_one(row["document"])


def rule(name: str = "admin", acl: list[dict[str, Any]] | None = None) -> Any:
    """The compiled rule of an account; `admin` sees everything."""
    return compile_rule(
        parse_acl(acl or []),
        Account(name=name, labels={}),
        address="10.0.0.1",
        service="registry",
        own_namespace=True,
        administrators=["admin"],
    )


def csrf_token(html: str) -> str:
    match = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', html)
    assert match
    return match[1]


def basic(name: str, password: str | None = None) -> dict[str, str]:
    """The header of HTTP Basic."""
    credentials = f"{name}:{PASSWORDS[name] if password is None else password}".encode()
    return {"Authorization": f"Basic {base64.b64encode(credentials).decode()}"}
