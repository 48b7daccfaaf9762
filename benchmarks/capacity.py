"""What an event costs: commands, milliseconds and bytes, at three sizes; does the model hold?

    python benchmarks/capacity.py --events 500 1500 4500

The traffic is that of `rns demo`, one event a POST. Every 200 envelopes are worked in, and in the
end all days are closed. The model of docs/scaling.md says that an event costs the same however many
are on record: the last table has what it would predict from the size before.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from typing import NamedTuple

from database import database_uri
from pymongo import MongoClient, monitoring

from app.demo.company import envelopes
from app.notifications.intake import Intake
from app.notifications.projector import Projector
from app.settings import MongoDB, Settings
from app.store import Stores, connect
from app.store.sharding import SHARD_KEYS

AT_ONCE = 200  # envelopes


class Commands(monitoring.CommandListener):
    """How many commands were sent, and how long they took, by phase."""

    def __init__(self) -> None:
        self.phase = ""
        self.number: Counter[tuple[str, str]] = Counter()
        self.ms: Counter[tuple[str, str]] = Counter()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.number[self.phase, event.command_name] += 1

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self.ms[self.phase, event.command_name] += event.duration_micros / 1000

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Is counted, and took no time."""


class Cost(NamedTuple):
    """What so many events cost in all; sizes by collection, documents and indexes apart."""

    events: int
    seconds: dict[str, float]
    commands: Commands
    sizes: dict[str, tuple[int, int, int]]  # documents, their bytes, bytes of indexes

    @property
    def bytes_each(self) -> float:
        return sum(size + index for _, size, index in self.sizes.values()) / self.events

    @property
    def commands_each(self) -> float:
        ours = (number for (phase, _), number in self.commands.number.items() if phase)
        return sum(ours) / self.events


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[500, 1_500, 4_500])
    sizes = parser.parse_args().events
    with database_uri() as uri:
        costs = [measure(uri, number) for number in sizes]
    print_sizes(costs[-1])
    print_commands(costs[-1])
    print_model(costs)


def measure(uri: str, number: int) -> Cost:
    """Take in, work in and summarise so many events, in a database of their own."""
    commands = Commands()
    monitoring.register(commands)
    settings = Settings(mongodb=MongoDB(uri=uri, database=f"capacity_{number}"))
    seconds: Counter[str] = Counter()
    bodies = itertools.islice(envelopes(datetime.now(UTC), 1), number)
    with closing(connect(settings)) as stores, closing(MongoClient(uri)) as client:
        stores.ensure_indexes()
        commands.number.clear()
        commands.ms.clear()
        for phase, began in work(stores, bodies, commands):
            seconds[phase] += time.perf_counter() - began
        monitoring._LISTENERS.command_listeners.remove(commands)
        commands.phase = ""
        database = client[settings.mongodb.database]
        found = {name: database.command("collStats", name) for name in SHARD_KEYS}
        client.drop_database(database.name)
    sizes = {
        name: (stats["count"], stats["size"], stats["totalIndexSize"])
        for name, stats in found.items()
        if stats.get("count")
    }
    return Cost(number, dict(seconds), commands, sizes)


def work(
    stores: Stores, bodies: Iterator[bytes], commands: Commands
) -> Iterator[tuple[str, float]]:
    """Yield each phase, and when it began, at its end."""
    intake, projector = Intake(stores, 2**40), Projector(stores)
    while some := list(itertools.islice(bodies, AT_ONCE)):
        commands.phase, began = "taken in", time.perf_counter()
        for body in some:
            intake.receive(body, "default")
        yield commands.phase, began
        commands.phase, began = "worked in", time.perf_counter()
        projector.drain()
        yield commands.phase, began
    projector.stop()
    commands.phase, began = "summarised", time.perf_counter()
    for day, _ in stores.days.days_of(stores.days.find_states(date.min, date.max)):
        stores.days.close_day(day)  # the server lets a day rest before
    yield commands.phase, began


def print_sizes(cost: Cost) -> None:
    print(f"\nSize, {cost.events:,} events\n")
    print(
        "| Collection | documents/event | bytes/event | of indexes |\n| --- | ---: | ---: | ---: |"
    )
    for name, (count, size, index) in cost.sizes.items():
        each = [count / cost.events, size / cost.events, index / cost.events]
        print(f"| `{name}` | {each[0]:.3f} | {each[1]:,.0f} | {each[2]:,.0f} |")
    sums = [sum(row[place] for row in cost.sizes.values()) / cost.events for place in (1, 2)]
    print(f"| together | | {sums[0]:,.0f} | {sums[1]:,.0f} |")


def print_commands(cost: Cost) -> None:
    print(f"\nCommands, {cost.events:,} events\n")
    print("| Phase | Command | a thousand events | ms/event |\n| --- | --- | ---: | ---: |")
    for (phase, name), number in sorted(cost.commands.number.items()):
        if not phase:
            continue
        ms = cost.commands.ms[phase, name] / cost.events
        print(f"| {phase} | `{name}` | {1000 * number / cost.events:,.0f} | {ms:.3f} |")
    for phase, seconds in cost.seconds.items():
        print(f"| {phase}, all with our own work | | | {1000 * seconds / cost.events:.2f} |")


def print_model(costs: Sequence[Cost]) -> None:
    print("\nModel\n")
    print("| Events | bytes/event | commands/event | ms/event | bytes foretold | off by |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    before: Cost | None = None
    for cost in costs:
        ms = 1000 * sum(cost.seconds.values()) / cost.events
        row = f"| {cost.events:,} | {cost.bytes_each:,.0f} | {cost.commands_each:.2f} | {ms:.2f}"
        foretold = before.bytes_each * cost.events if before else 0.0
        off = foretold / (cost.bytes_each * cost.events) - 1
        print(f"{row} | {foretold:,.0f} | {off:+.0%} |" if before else f"{row} | | |")
        before = cost


if __name__ == "__main__":
    main()
