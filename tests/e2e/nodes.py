"""Nodes of one registry: what clients do with them, and the queue in which each has its events.

Each node has a clock of its own, and sends one event after the other, each until it is
acknowledged, as distribution does. The requests of one pull may meet different nodes.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from builders import INDEX, digest, wire_event
from clients import Item, Webhook
from processes import Server

CLOCKS_S = (0.0, 2.3, -1.9)  # by which the nodes' clocks are wrong
BACKOFF_S = 0.2
LATE_S = 40.0  # until what was acknowledged is sent once more, at most
MANY = 2_000  # posts that wait: then nobody does anything more, or they would never be sent


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


class Node:
    """One node with its clock and its queue."""

    def __init__(
        self, server: Server, name: str, clock_s: float, chance: random.Random, doubled: float
    ) -> None:
        """`doubled` is the part of all posts that are repeated though they were acknowledged."""
        self.acknowledged: list[Item] = []
        self.doubled = self.refusals = 0
        self._server = server
        self._source = {"addr": f"{name}:5000", "instanceID": str(uuid.uuid4())}
        self._clock = timedelta(seconds=clock_s)
        self._chance = chance
        self._part = doubled
        self._queue: deque[Item] = deque()
        self._again: list[tuple[float, int, Item]] = []
        self._numbers = itertools.count()
        self._still_until = 0.0
        self._ended = threading.Event()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def waiting(self) -> int:
        """How many posts are to come."""
        return len(self._queue) + len(self._again)

    def happen(self, event: Item) -> None:
        """Date an event by this node's clock and put it into the queue."""
        moment = datetime.now(UTC) + self._clock
        stamp = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
        self._queue.append(event | {"timestamp": stamp, "source": self._source})

    def stand_still(self, seconds: float) -> None:
        """Send nothing for so long."""
        self._still_until = time.monotonic() + seconds

    def end(self) -> None:
        """End when all is sent."""
        self._ended.set()

    def _run(self) -> None:
        with closing(Webhook(self._server)) as webhook:
            while True:
                if self._ended.is_set() and not self.waiting:
                    return
                if time.monotonic() < self._still_until or not self._send_one(webhook):
                    time.sleep(0.02)

    def _send_one(self, webhook: Webhook) -> bool:
        """Send what is next, until it is acknowledged; False where nothing is due."""
        if self._again and (self._again[0][0] <= time.monotonic() or self._ended.is_set()):
            *_, event = self._again[0]
            self._deliver(webhook, event)
            heapq.heappop(self._again)
            self.doubled += 1
            return True
        if not self._queue:
            return False
        event = self._queue[0]
        self._deliver(webhook, event)
        self.acknowledged.append(event)
        if self._chance.random() < self._part:
            after_s = self._chance.choice([0.0, self._chance.uniform(0, LATE_S)])
            heapq.heappush(self._again, (time.monotonic() + after_s, next(self._numbers), event))
        self._queue.popleft()
        return True

    def _deliver(self, webhook: Webhook, event: Item) -> None:
        while not webhook.is_acknowledged(event):
            self.refusals += 1
            time.sleep(BACKOFF_S)


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


class Busy:
    """A registry of some nodes that is in use, until it ends."""

    def __init__(self, nodes: Sequence[Node], traffic: Traffic, chance: random.Random) -> None:
        self.nodes = nodes
        self._traffic = traffic
        self._chance = chance
        self._numbers = itertools.count()
        self._to_come: list[tuple[float, int, Node, Item]] = []

    @property
    def acknowledged(self) -> list[Item]:
        """All events that were, so far."""
        return [event for node in self.nodes for event in node.acknowledged]

    @property
    def waiting(self) -> int:
        """How many posts are to come."""
        return sum(node.waiting for node in self.nodes)

    @property
    def refusals(self) -> int:
        """How many posts were not acknowledged."""
        return sum(node.refusals for node in self.nodes)

    @contextmanager
    def in_use(self, events_s: float, still_s: float = 0.0) -> Iterator[None]:
        """Let about so many events happen in a second; at the end all of them are sent.

        One node after the other stands still for `still_s`, while the others go on.
        """
        ended = threading.Event()
        user = threading.Thread(target=self._use, args=(ended, events_s, still_s), daemon=True)
        for thread in (user, *(node.thread for node in self.nodes)):
            thread.start()
        try:
            yield
        finally:
            ended.set()
            user.join()
            for node in self.nodes:
                node.end()
        for node in self.nodes:
            node.thread.join()

    def _use(self, ended: threading.Event, events_s: float, still_s: float) -> None:
        next_act = next_still = time.monotonic()
        while not ended.is_set() or self._to_come:
            now = time.monotonic()
            while not ended.is_set() and next_act <= now:
                number = self._act(now) if self.waiting < MANY else 1
                next_act += number / events_s
            if still_s and next_still <= now and not ended.is_set():
                next_still = now + 1.3 * still_s
                self._chance.choice(self.nodes).stand_still(still_s)
            while self._to_come and self._to_come[0][0] <= now:
                *_, node, event = heapq.heappop(self._to_come)
                node.happen(event)
            time.sleep(0.01)

    def _act(self, now: float) -> int:
        """Let somebody do something; returns how many events that makes."""
        repository, client, steps = self._traffic.act()
        deleting = str(uuid.uuid4())  # one request, and so one node
        one = self._chance.choice(self.nodes)
        is_spread = self._chance.random() < 0.5 and steps[0].action != "delete"
        for step in steps:
            node = self._chance.choice(self.nodes) if is_spread else one
            request_id = deleting if step.action == "delete" else str(uuid.uuid4())
            event = make_event(step, repository, client, request_id)
            heapq.heappush(self._to_come, (now + step.after_s, next(self._numbers), node, event))
        return len(steps)


def make_busy(
    server: Server, seed: int, repositories: Sequence[str], *, clients: int, doubled: float = 0.0
) -> Busy:
    """A registry of three nodes that notify a server."""
    chance = random.Random(seed)
    nodes = [
        Node(server, f"node-{number}", clock_s, random.Random(chance.random()), doubled)
        for number, clock_s in enumerate(CLOCKS_S)
    ]
    return Busy(nodes, Traffic(chance, repositories, clients), chance)


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
