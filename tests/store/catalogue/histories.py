"""Random histories of a registry, and what they make of it, restated by playing them through."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from builders import NOW, digest
from hypothesis import strategies as st

from app.rules.events import Event, position_at
from app.rules.references import namespace_of
from app.store import Stores

NAMES = ("a", "a/x", "b", "b/x", "ab")
DIGESTS = tuple(digest(name) for name in ("one", "two", "three"))


def make_event(action: str, repository: str = "a", **given: Any) -> Event:
    """An event `at` seconds after NOW; its id names the moment, of which each has one."""
    at = given.pop("at")
    moment = NOW + timedelta(seconds=at)
    key = given.pop("id", f"{action}-{at}")
    tag = given.get("tag")
    fields: dict[str, Any] = {
        "id": key,
        "registry": "default",
        "action": action,
        "namespace": namespace_of(repository),
        "repository": repository,
        "tag_from": "event" if tag else None,
        "media_type": f"application/type-of-{at}",
        "actor": f"actor-{at}",
        "timestamp": moment,
        "position": f"{position_at(moment)}-{key}",
        "received_at": NOW,
    }
    return Event(**fields | given)


def events_at(at: int) -> st.SearchStrategy[Event]:
    """Any event that concerns the catalogue, at one moment."""
    names, tags, digests = (
        st.sampled_from(NAMES),
        st.sampled_from(("v1", "v2")),
        st.sampled_from(DIGESTS),
    )
    no = st.none()

    def make(action: str, **fields: Any) -> st.SearchStrategy[Event]:
        return st.builds(make_event, st.just(action), at=st.just(at), **fields)

    return st.one_of(
        make("push", repository=names, tag=tags, digest=digests),
        make("push", repository=names, tag=st.one_of(no, tags), digest=digests),
        make("pull", repository=names, tag=tags, digest=digests),
        make("pull", repository=names, tag=no, digest=digests),
        make("check", repository=names, tag=st.one_of(no, tags), digest=digests),
        make("delete", repository=names, tag=tags),
        make("delete", repository=names, digest=digests),
        make("delete", repository=names),
        make("rename", repository=names, from_repository=names),
    )


@st.composite
def histories(draw: st.DrawFn, max_size: int = 14) -> list[Event]:
    """Some events, each at a moment of its own, oldest first."""
    moments = draw(st.lists(st.integers(0, 60), unique=True, max_size=max_size))
    return [draw(events_at(at)) for at in sorted(moments)]


@st.composite
def deliveries(draw: st.DrawFn, max_size: int = 14) -> tuple[list[Event], list[list[Event]]]:
    """A history, and batches in which it comes: in any order, some of it more than once."""
    events = draw(histories(max_size))
    again = draw(st.lists(st.sampled_from(events), max_size=4)) if events else []
    coming = draw(st.permutations([*events, *again]))
    batches: list[list[Event]] = [[]]
    for event in coming:
        if draw(st.booleans()):
            batches.append([])
        batches[-1].append(event)
    return events, batches


def deliver(stores: Stores, batches: Iterable[Sequence[Event]]) -> None:
    """As the projector does."""
    for batch in batches:
        once = list({event.id: event for event in batch}.values())
        stores.events.add(once)
        stores.catalogue_writer.apply(batch)


def played(events: Iterable[Event]) -> dict[str, list[Event]]:
    """What happened in each repository, under the name that it has at the end."""
    names: dict[str, list[Event]] = {}
    for event in sorted(events, key=lambda event: event.position):
        if event.action != "rename":
            names.setdefault(event.repository, []).append(event)
            continue
        old = event.from_repository or ""
        moved = {name: names.pop(name) for name in list(names) if f"{name}/".startswith(f"{old}/")}
        for name, some in moved.items():
            to = event.repository + name.removeprefix(old)
            both = names.pop(to, []) + some
            names[to] = sorted(both, key=lambda event: event.position)
    return names


def tags_of(happened: Sequence[Event]) -> dict[str, dict[str, Any]]:
    """The tags of a repository, played through."""
    tags: dict[str, dict[str, Any]] = {}
    told = {e.tag for e in happened if e.action in ("push", "delete") and e.tag}
    for event in happened:
        if event.action == "push" and event.tag:
            pushed_at = tags.get(event.tag, {}).get("first_pushed_at") or event.timestamp
            tags[event.tag] = {
                "digest": event.digest,
                "media_type": event.media_type,
                "pushed_at": event.timestamp,
                "pushed_by": event.actor,
                "first_pushed_at": pushed_at,
                "seen_by": "push",
                "deleted_at": None,
            }
        elif event.action == "delete" and event.tag:
            unknown = {"digest": None, "seen_by": "push", "deleted_at": None}
            tag = tags.setdefault(event.tag, unknown)
            tag["deleted_at"] = tag["deleted_at"] or event.timestamp
        elif event.action == "delete":
            for tag in tags.values():
                if event.digest in (None, tag["digest"]):
                    tag["deleted_at"] = tag["deleted_at"] or event.timestamp
        elif event.action in ("pull", "check") and event.tag and event.tag not in told:
            first = next(
                each
                for each in happened
                if each.action in ("pull", "check")
                and (each.tag, each.digest) == (event.tag, event.digest)
            )
            tags[event.tag] = {
                "digest": event.digest,
                "media_type": first.media_type,
                "seen_by": "pull",
                "seen_at": first.timestamp,
                "deleted_at": None,
            }
    return tags


def is_deleted(happened: Sequence[Event]) -> bool:
    """Whether the last that happened in a repository was its delete."""
    gone = False
    for event in happened:
        if event.action != "delete":
            gone = False
        elif not event.tag and not event.digest:
            gone = True
    return gone


def tag_at(events: Iterable[Event], pull: Event) -> str | None:
    """The one tag that pointed to the digest when it was pulled."""
    before = [event for event in events if event.position < pull.position]
    tags = tags_of(played(before).get(pull.repository, []))
    found = [
        name
        for name, tag in tags.items()
        if tag["seen_by"] == "push" and tag["digest"] == pull.digest and not tag["deleted_at"]
    ]
    return found[0] if len(found) == 1 else None
