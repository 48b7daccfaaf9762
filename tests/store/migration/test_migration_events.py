"""What the webhook's events mean for migrations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from builders import NOW, deliver, digest, envelope, wire_event
from pymongo import monitoring

from app.errors import StoreUnavailable
from app.migration import Plan
from app.migration.live import LiveWishes
from app.settings import Migration
from app.store import Stores
from app.store.migrations import LIVE, JobStore, MigrationStore, Wish


def plan(**keys: Any) -> Plan:
    document = {
        "name": "dc2",
        "source": {"url": "https://old"},
        "target": {"url": "https://new"},
        **keys,
    }
    return Plan(msgspec.convert(document, Migration))


def receive(stores: Stores, *events: Any, registry: str = "default", plans: Any = None) -> Any:
    live = LiveWishes(stores.migrations, plans or [plan()])
    return deliver(stores, envelope(*events), registry, NOW, live)


def wished(stores: Stores, name: str = "dc2") -> dict[str, int]:
    """How often each reference was wished for."""
    jobs = stores.migrations.jobs.find(name, limit=500).items
    return {f"{job.repository} {job.reference}": job.generation for job in jobs}


def test_a_push_has_its_tag_looked_at(stores: Stores) -> None:
    new = receive(stores, wire_event(tag="v1"))

    assert new == 1
    assert wished(stores) == {"team/app v1": 1}


def test_a_push_without_tag_has_its_digest_looked_at(stores: Stores) -> None:
    receive(stores, wire_event(of="child"))

    assert wished(stores) == {f"team/app {digest('child')}": 1}


def test_an_envelope_counts_a_tag_once(stores: Stores) -> None:
    receive(stores, *(wire_event(tag="v1", of=name) for name in "abc"))

    assert wished(stores) == {"team/app v1": 1}


def test_a_redelivered_push_is_looked_at_once_more(stores: Stores) -> None:
    event = wire_event(tag="v1")
    for _ in range(2):
        receive(stores, event)

    assert wished(stores) == {"team/app v1": 2}


@pytest.mark.parametrize(
    "event",
    [
        wire_event("pull", tag="v1"),
        wire_event("check", tag="v1"),
        wire_event(tag="v1", user_agent="rns-migrate/1.0"),
        wire_event(repository="other/app", tag="v1"),
        wire_event(tag="v1-dev"),
        wire_event("delete", tag="v1", of=None),
    ],
    ids=["pull", "check", "our own push", "repository", "tag", "delete"],
)
def test_what_changes_nothing_for_a_plan_is_not_looked_at(stores: Stores, event: Any) -> None:
    filters = {"repos": {"include": ["team/*"]}, "tags": {"exclude": ["*-dev"]}}

    receive(stores, event, plans=[plan(**filters)])

    assert wished(stores) == {}


def test_a_push_to_another_registry_is_not_looked_at(stores: Stores) -> None:
    receive(stores, wire_event(tag="v1"), registry="other")

    assert wished(stores) == {}


def test_a_delete_is_looked_at_where_a_plan_deletes(stores: Stores) -> None:
    event = wire_event("delete", tag="v1", of=None)

    receive(stores, event, plans=[plan(options={"deletes": "tags"})])

    assert wished(stores) == {"team/app v1": 1}


def test_every_plan_of_a_registry_looks_at_a_push(stores: Stores) -> None:
    receive(stores, wire_event(tag="v1"), plans=[plan(), plan(name="dc3")])

    assert wished(stores) == wished(stores, "dc3") == {"team/app v1": 1}


@pytest.mark.parametrize("action", ["push", "pull"])
def test_a_new_process_of_the_registry_has_everything_crawled_again(
    stores: Stores, action: str
) -> None:
    queue = stores.migrations
    first = {"source": {"addr": "node", "instanceID": "one"}}
    receive(stores, wire_event(tag="v1") | first)
    queue.runs.begin("dc2", "crawl", "worker", NOW)
    receive(stores, wire_event(tag="v2") | first)
    assert not queue.plans.get("dc2").recrawl

    receive(
        stores, wire_event(action, tag="v3") | {"source": {"addr": "node", "instanceID": "two"}}
    )

    assert queue.plans.get("dc2").recrawl


def test_a_push_is_not_looked_at_for_a_plan_that_is_closed(stores: Stores) -> None:
    plans = [plan(), plan(name="dc3")]
    stores.migrations.close("dc2", "admin", NOW)

    receive(stores, wire_event(tag="v1"), plans=plans)

    assert wished(stores) == {}
    assert wished(stores, "dc3") == {"team/app v1": 1}


class FailingOnce(JobStore):
    """A queue that is away the first time."""

    failed = False

    def wish(self, wishes: Sequence[Wish], now: Any) -> None:
        if not self.failed:
            self.failed = True
            raise StoreUnavailable("away")
        super().wish(wishes, now)


def test_a_push_that_the_queue_cannot_take_is_refused_and_looked_at_when_it_comes_again(
    stores: Stores, mock_database: Any
) -> None:
    queue = MigrationStore(stores._database)
    queue.jobs = FailingOnce(stores._database, queue.plans)
    push = envelope(wire_event(tag="v1"))

    with pytest.raises(StoreUnavailable):
        deliver(stores, push, now=NOW, after=LiveWishes(queue, [plan()]))
    # Another process may get it then.
    new = deliver(stores, push, now=NOW, after=LiveWishes(queue, [plan()]))

    assert new == 0
    assert wished(stores) == {"team/app v1": 1}


@pytest.mark.wire
def test_a_push_costs_one_command_more(wire_uri: str, wire_database: Any) -> None:
    from pymongo import MongoClient

    class Counter(monitoring.CommandListener):
        names: list[str] = []  # noqa: RUF012 - one instance

        def started(self, event: Any) -> None:
            if event.command_name in ("update", "insert", "find", "findAndModify"):
                self.names.append(event.command_name)

        def succeeded(self, event: Any) -> None:
            pass

        def failed(self, event: Any) -> None:
            pass

    counter = Counter()
    with MongoClient[Any](wire_uri, tz_aware=True, event_listeners=[counter]) as client:
        stores = Stores(client[wire_database.name])
        stores.ensure_indexes()
        costs = []
        for plans in ([], [plan()]):
            after = LiveWishes(stores.migrations, plans)
            for number in range(2):
                counter.names.clear()
                event = wire_event(tag=f"v{number}-{len(plans)}", of=f"{number} {plans}")
                deliver(stores, envelope(event), now=NOW, after=after)
            costs.append(len(counter.names))
    assert costs[1] == costs[0] + 1


def test_the_priority_of_a_push_is_live(stores: Stores) -> None:
    receive(stores, wire_event(tag="v1"))

    (job,) = stores.migrations.jobs.find("dc2").items
    assert job.priority == LIVE
