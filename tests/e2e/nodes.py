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

from clients import Item, Webhook
from processes import Server
from traffic import CLOCKS_S, Traffic, make_event

BACKOFF_S = 0.2
LATE_S = 40.0  # until what was acknowledged is sent once more, at most
MANY = 2_000  # posts that wait: then nobody does anything more, or they would never be sent


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
    server: Server | Sequence[Server],
    seed: int,
    repositories: Sequence[str],
    *,
    clients: int,
    doubled: float = 0.0,
) -> Busy:
    """A registry of three nodes that notify a server, or by turns several."""
    chance = random.Random(seed)
    servers = [server] if isinstance(server, Server) else server
    nodes = [
        Node(
            servers[number % len(servers)],
            f"node-{number}",
            clock_s,
            random.Random(chance.random()),
            doubled,
        )
        for number, clock_s in enumerate(CLOCKS_S)
    ]
    return Busy(nodes, Traffic(chance, repositories, clients), chance)
