"""Commands to copy: what pulls something, and what deletes a tag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.rules.events import Event
from app.store.events import RecordQuery
from app.web.lists import Item
from app.web.runtime import runtime
from app.web.signin import viewer

RECENT = 10  # records that tell the host of a registry
MAX_PULL_COMMANDS = 5  # of a digest: one for each repository


def pull_command(kind: str, place: str, tag: str = "", digest: str = "") -> str:
    """What pulls something of a kind from a host and repository: an image, a chart, other files."""
    named = f"{place}:{tag}" if tag else f"{place}@{digest}"
    if kind == "chart":
        version = tag.replace("_", "+")  # a tag has no plus
        return f"helm pull oci://{place} --version {version}" if tag else f"helm pull oci://{named}"
    return f"docker pull {named}" if kind in ("image", "index") else f"oras pull {named}"


def find_places(tags: Iterable[Item], records: Sequence[Event]) -> list[str]:
    """Host and name of some of the repositories that have a digest.

    Those where a tag points to it; a platform of an index has none, so those of its newest records.
    """
    places = {(tag["registry"], tag["repository"]) for tag in tags if not tag["deleted"]}
    if not places:
        last = {(row.registry, row.repository): row.action for row in reversed(records)}
        places = {place for place, action in last.items() if action != "delete"}
    some = sorted(places)[:MAX_PULL_COMMANDS]
    return [f"{host_of(registry, records)}/{name}" for registry, name in some]


def host_of(registry: str, records: Iterable[Event]) -> str:
    """The host of a registry as clients write it.

    As config.yml names it; else as all who pushed and pulled last called it, for a client may call
    it anything.
    """
    registries = runtime().settings.registries
    configured = next((each.hosts for each in registries if each.name == registry), [])
    called = {event.host for event in records if event.host and event.registry == registry}
    return configured[0] if configured else called.pop() if len(called) == 1 else "REGISTRY"


def delete_commands(rows: Sequence[Item]) -> str:
    """What deletes unused tags, and them alone: a line for each."""
    firsts = {row["registry"]: row for row in reversed(rows)}
    hosts = {name: host_of(name, _newest_records(row)) for name, row in firsts.items()}
    return "".join(
        f"regctl tag delete {hosts[row['registry']]}/{row['repository']}:{row['tag']}\n"
        for row in rows
    )


def _newest_records(row: Item) -> Sequence[Event]:
    query = RecordQuery(registry=row["registry"], repository=row["repository"])
    events = runtime().stores.events
    return events.find_page(query, viewer().scope, limit=RECENT).items
