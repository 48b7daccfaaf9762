"""What clients do, as the events that a registry sends for it. Pure.

Source: distribution 3.1 with `includereferences: true`, recorded.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any

from app.demo.chance import between, fraction, hex_of, midnight
from app.demo.images import Manifest
from app.demo.tables import HOST, Client

WireEvent = dict[str, Any]

_NODES = ("registry-0:5000", "registry-1:5000")
_METHODS = {"push": "PUT", "check": "HEAD", "pull": "GET"}


def push(
    at: datetime, manifest: Manifest, tags: tuple[str, ...], client: Client
) -> Iterator[WireEvent]:
    """Push a manifest under every tag, its children before it; without tags by digest."""
    for child in manifest.children:
        yield _manifest_event(at, "push", child, None, client)
        at = _later(at, 0.1, 0.9, child.digest)
    for tag in tags or (None,):
        yield _manifest_event(at, "push", manifest, tag, client)
        at = _later(at, 0.1, 0.4, tag)


def move_tag(at: datetime, manifest: Manifest, tag: str, client: Client) -> Iterator[WireEvent]:
    """Push a manifest that the registry has under a tag: an ordinary push without the children."""
    yield _manifest_event(at, "push", manifest, tag, client)


def check(at: datetime, manifest: Manifest, tag: str, client: Client) -> Iterator[WireEvent]:
    """Ask whether a tag moved, and get nothing."""
    yield _manifest_event(at, "check", manifest, tag, client)


def pull(at: datetime, manifest: Manifest, tag: str | None, client: Client) -> Iterator[WireEvent]:
    """Pull by tag, or by digest when `tag` is None; of an index also the client's own image."""
    if tag and client.agent.head_first:
        yield _manifest_event(at, "check", manifest, tag, client)
        at, tag = _later(at, 0.05, 0.4, manifest.digest, client.address), None
    yield _manifest_event(at, "pull", manifest, tag, client)
    if images := [child for child in manifest.children if child.architecture]:
        own = [child for child in images if child.architecture == client.architecture]
        at = _later(at, 0.05, 0.4, client.address)
        yield _manifest_event(at, "pull", (own or images)[0], None, client)


def delete(
    at: datetime, manifest: Manifest, tags: tuple[str, ...], client: Client
) -> Iterator[WireEvent]:
    """Delete a manifest by digest: the registry tells of each of its tags in the same request."""
    request_id = _unique_id(at, "delete", manifest.digest)
    nothing = {"mediaType": "", "digest": "", "size": 0, "repository": manifest.repository}
    for part in ({"digest": manifest.digest}, *({"tag": tag} for tag in tags)):
        yield _event(at, "delete", "DELETE", nothing | part, client, request_id)
        at += timedelta(milliseconds=4)


def _manifest_event(
    at: datetime, what: str, manifest: Manifest, tag: str | None, client: Client
) -> WireEvent:
    target = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": manifest.size,
        "length": manifest.size,
        "repository": manifest.repository,
        "url": f"https://{HOST}/v2/{manifest.repository}/manifests/{manifest.digest}",
        "references": manifest.references,
    }
    if tag:
        target["tag"] = tag
    action = "pull" if what == "check" else what
    return _event(at, action, _METHODS[what], target, client)


def _event(
    at: datetime,
    action: str,
    method: str,
    target: dict[str, Any],
    client: Client,
    request_id: str = "",
) -> WireEvent:
    key = (method, target["repository"], target["digest"], target.get("tag"), *client[:2])
    event_id = _unique_id(at, *key)
    address = f"[{client.address}]" if ":" in client.address else client.address
    request_id = request_id or _unique_id(at, "request", *key)
    node = _NODES[int(request_id[-1], 16) % len(_NODES)]
    return {
        "id": event_id,
        "timestamp": f"{at:%Y-%m-%dT%H:%M:%S.%f}{int(event_id[-3:], 16) % 1000:03}Z",
        "action": action,
        "target": target,
        "request": {
            "id": request_id,
            "addr": f"{address}:{32768 + int(fraction(client.address, at.minute) * 28000)}",
            "host": HOST,
            "method": method,
            "useragent": client.agent.user_agent,
        },
        "actor": {"name": client.actor},
        "source": {"addr": node, "instanceID": _instance_of(node, at.date())},
    }


def _unique_id(at: datetime, *key: object) -> str:
    """A UUID of version 7, as registry 3 makes them: milliseconds first, the rest is the hash."""
    moment, rest = f"{int(at.timestamp() * 1000):012x}", hex_of(at, *key)
    return f"{moment[:8]}-{moment[8:]}-7{rest[:3]}-a{rest[3:6]}-{rest[6:18]}"


@cache
def _instance_of(node: str, day: date) -> str:
    """The registry restarts every third Sunday."""
    return _unique_id(midnight(date.fromordinal(day.toordinal() // 21 * 21)), node)


def _later(at: datetime, low: float, high: float, *key: object) -> datetime:
    return at + timedelta(seconds=between(low, high, at, *key))
