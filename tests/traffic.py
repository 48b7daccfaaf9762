"""What people and programs do with a registry, at random, as its events; without dates."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from builders import INDEX, digest, wire_event

EVENTS_S = 60
CLOCKS_S = (0.0, 2.3, -1.9)  # by which the nodes' clocks are wrong

Item = dict[str, Any]


class Client(NamedTuple):
    actor: str
    address: str
    user_agent: str


class Content(NamedTuple):
    """A manifest; `children` are those of an index."""

    name: str
    children: tuple[str, ...] = ()


class Step(NamedTuple):
    """One request so many seconds after the first one of what a client does."""

    after_s: float
    action: str
    tag: str | None = None
    content: Content | None = None


class Traffic:
    """What people and programs do with a registry's repositories; seeded.

    Of the last one no push was ever told, only pulls. Its name is in that of every content, because
    two histories on one server may not tell different things of one digest.
    """

    def __init__(self, chance: random.Random, repositories: Sequence[str], clients: int) -> None:
        self._chance = chance
        *self._repositories, self._mirror = repositories
        self._builds = itertools.count(1)
        self._tags: dict[str, dict[str, Content]] = {name: {} for name in repositories}
        agents = ("docker/27.3.1 go/go1.22.7", "containerd/v1.7.22", "skopeo/1.16")
        self._clients = [
            Client(f"cluster-{number % 3}", f"10.0.{number % 5}.{number}", agents[number % 3])
            for number in range(clients)
        ]

    def act(self) -> tuple[str, Client, list[Step]]:
        """What somebody does next: where, who, and in what steps."""
        repository = self._chance.choice(self._repositories)
        tags = self._tags[repository]
        what = self._chance.random()
        if len(tags) < 2 or what < 0.2:
            client = Client("ci", f"10.9.0.{self._chance.randrange(3)}", "buildkit/v0.16")
            return repository, client, self._push(tags)
        if what > 0.96:  # the push of this tag came before the registry told anybody
            number = next(self._builds)
            content = Content(f"{self._mirror} {number // 50}")
            step = Step(0, self._chance.choice(["pull", "check"]), f"v{number % 3}", content)
            return self._mirror, self._chance.choice(self._clients), [step]
        if what < 0.24:
            return repository, Client("ops", "10.9.1.1", "regctl/0.8"), self._delete(tags)
        tag = self._chance.choice(sorted(tags))
        return repository, self._chance.choice(self._clients), self._pull(tag, tags[tag])

    def _push(self, tags: dict[str, Content]) -> list[Step]:
        """A build, of one platform or of two: a new tag, or one that moves, or a promotion."""
        number = next(self._builds)
        if tags and self._chance.random() < 0.15:  # what is there gets one more tag
            content = tags[self._chance.choice(sorted(tags))]
            tags["stable"] = content
            return [Step(0, "push", "stable", content)]
        if self._chance.random() < 0.15:  # as helm does
            content, tag = Content(f"{self._mirror} chart {number}"), f"v{number % 7}"
            tags[tag] = content
            return [
                Step(0, "push", None, content),
                Step(0.05, "pull", None, content),
                Step(0.1, "push", tag, content),
            ]
        platforms = (f"{self._mirror} {number} amd64", f"{self._mirror} {number} arm64")
        children = platforms if self._chance.random() < 0.4 else ()
        content = Content(f"{self._mirror} build {number}", children)
        tag = self._chance.choice(["latest", f"v{number % 7}", f"build-{number}"])
        tags[tag] = content
        parts = [
            Step(0.2 * place, "push", None, Content(child)) for place, child in enumerate(children)
        ]
        return [*parts, Step(0.5 if parts else 0, "push", tag, content)]

    def _delete(self, tags: dict[str, Content]) -> list[Step]:
        """A tag, or a digest and with it all of its tags."""
        tag = self._chance.choice(sorted(tags))
        if self._chance.random() < 0.5:
            del tags[tag]
            return [Step(0, "delete", tag)]
        content = tags[tag]
        gone = [name for name, there in tags.items() if there == content]
        for name in gone:
            del tags[name]
        return [
            Step(0, "delete", None, content),
            *(Step(0.005 * place, "delete", name) for place, name in enumerate(gone, 1)),
        ]

    def _pull(self, tag: str, content: Content) -> list[Step]:
        what = self._chance.random()
        if what < 0.1:  # a node looks whether its image is still that of the tag
            return [Step(0, "check", tag, content)]
        child = [Content(self._chance.choice(content.children))] if content.children else []
        if what < 0.2:  # as skopeo and older clients do
            return [Step(0, "pull", tag, content), *(Step(0.1, "pull", None, c) for c in child)]
        if what < 0.3:  # a deployment that names the digest
            return [Step(0, "pull", None, content), *(Step(0.1, "pull", None, c) for c in child)]
        pause_s = self._chance.choice([0.03, 0.03, 0.2, 3.0])
        return [
            Step(0, "check", tag, content),
            Step(pause_s, "pull", None, content),
            *(Step(2 * pause_s, "pull", None, each) for each in child),
        ]


def make_event(step: Step, repository: str, client: Client, request_id: str) -> Item:
    """What a node tells of a request; without a date."""
    content = step.content
    fields: dict[str, Any] = {}
    if content and step.action != "delete":
        names = content.children or (f"{content.name} config", f"{content.name} layer")
        kind = "manifest.v1+json" if content.children else "config.v1+json"
        media_types = [f"application/vnd.oci.image.{kind}"] * len(names)
        if not content.children:
            media_types[1] = "application/vnd.oci.image.layer.v1.tar+gzip"
        else:
            fields["media_type"] = INDEX
        fields["references"] = [
            {"mediaType": media_type, "size": 1_000, "digest": digest(name)}
            for media_type, name in zip(media_types, names, strict=True)
        ]
    event = wire_event(
        step.action,
        repository,
        id=str(uuid.uuid4()),
        tag=step.tag,
        of=content.name if content else None,
        **client._asdict() | {"address": f"{client.address}:40000"},
        **fields,
    )
    return event | {"request": event["request"] | {"id": request_id}}


def live(chance: random.Random, seconds: float) -> Iterator[tuple[float, int, Item]]:
    """What happens in so many seconds: when, which node tells of it, and the event.

    It is dated by the node's clock.
    """
    begin = datetime.now(UTC) - timedelta(seconds=30)
    traffic = Traffic(chance, [f"team/app-{number}" for number in range(3)], 4)
    second, numbers = 0.0, itertools.count()
    while second < seconds:
        repository, client, steps = traffic.act()
        second += len(steps) / EVENTS_S
        request, one = f"delete {next(numbers)}", chance.randrange(3)
        for step in steps:
            is_delete = step.action == "delete"
            node = one if is_delete else chance.choice([one, chance.randrange(3)])
            id = request if is_delete else f"request {next(numbers)}"
            at = second + step.after_s
            date = begin + timedelta(seconds=at + CLOCKS_S[node])
            yield (
                at,
                node,
                make_event(step, repository, client, id)
                | {
                    "id": f"event {next(numbers)}",
                    "timestamp": date.isoformat().replace("+00:00", "Z"),
                    "source": {"addr": f"node-{node}:5000", "instanceID": f"instance {node}"},
                },
            )


def deliver(
    happened: list[tuple[float, int, Item]], chance: random.Random
) -> list[tuple[float, Item]]:
    """In what order it comes: each node's in its own, some late, a tenth twice."""
    free_at, late_s = [0.0] * 3, [0.0] * 3
    arrivals: list[tuple[float, Item]] = []
    for at, node, event in sorted(happened, key=lambda each: each[:2]):
        if chance.random() < 0.05:
            late_s[node] = chance.choice([0.0, chance.uniform(0, 2.5)])
        free_at[node] = max(free_at[node], at + late_s[node])
        arrivals.append((free_at[node], event))
        if chance.random() < 0.1:
            arrivals.append((free_at[node] + chance.uniform(0, 10), event))
    return sorted(arrivals, key=lambda each: each[0])
