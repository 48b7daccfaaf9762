"""What is left after fifty deaths: `python benchmarks/kills.py --kills 50 --seed 1`.

`rns serve` with the embedded database in a temporary directory, and three nodes of one registry,
each with a clock and a queue of its own, which send every event until it is acknowledged. Meanwhile
a worker, the server or the database is killed (SIGKILL), at random. At the end everything on record
is compared with two recounts: a plain one of the acknowledged events, and a fresh database into
which they were loaded in the order of time. All numbers but the first must be nought.

The second round repeats a tenth of all posts, at once or later, and lets one node after the other
stand still for 30 s while the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from builders import rule
from nodes import Busy, make_busy
from processes import Server, answers, cleaned_up, database_pids
from recount import Recount, differing, tag_states

from app.embedded import EmbeddedDatabase, recorded_uri
from app.notifications.loading import load_events
from app.notifications.projector import Projector
from app.rules.events import Event, parse_envelope
from app.rules.usage import COUNTED, Row
from app.store import TYPES, Stores
from app.store.usage import UsageQuery

REPOSITORIES = [f"team-{number % 4}/app-{number}" for number in range(10)] + ["mirror/base"]
CLIENTS = 40
EVENTS_S = 40
SOME = 100  # events
PATIENCE = 6_000  # looks, ten a second
SHOWN = 5  # differences of each kind
COMPARED = ("events", "manifests", "repositories", "tags", "tag_history")
ROUNDS = {"plain": (0.0, 0.0), "doubled and apart": (0.1, 30.0)}  # doubled, seconds of standing


def kill_a_worker(server: Server, chance: random.Random) -> None:
    os.kill(chance.choice(server.worker_pids()), signal.SIGKILL)


def kill_the_server(server: Server, chance: random.Random) -> None:
    os.kill(server.program.pid, signal.SIGKILL)


def kill_the_database(server: Server, chance: random.Random) -> None:
    os.kill(chance.choice(database_pids(server.data_dir)), signal.SIGKILL)


TARGETS = {"worker": kill_a_worker, "server": kill_the_server, "database": kill_the_database}


@contextmanager
def supervised(server: Server) -> Iterator[None]:
    """Start the server whenever it is dead."""
    ended = threading.Event()

    def supervise() -> None:
        while not ended.wait(0.2):
            if not server.program.is_alive():
                server.launch()

    server.start()
    thread = threading.Thread(target=supervise)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def kill_at_random(server: Server, busy: Busy, kills: int, chance: random.Random) -> Counter[str]:
    """Kill so often; three times of four not before some events are acknowledged again."""
    killed: Counter[str] = Counter()
    began = time.monotonic()
    while killed.total() < kills:
        if chance.random() < 0.75:
            enough = len(busy.acknowledged) + SOME
            wait_for(lambda n=enough: len(busy.acknowledged) > n, "events are acknowledged")
        time.sleep(chance.uniform(0.1, 6))
        target = chance.choice(sorted(TARGETS))
        with suppress(OSError, IndexError):  # dead already: another one then
            TARGETS[target](server, chance)
            killed[target] += 1
            print(
                f"  {time.monotonic() - began:6.0f} s  kill {killed.total():3}: {target:8} "
                f" {len(busy.acknowledged):6} acknowledged, {busy.waiting:5} wait",
                flush=True,
            )
    return killed


def wait_for(check: Callable[[], Any], what: str) -> None:
    for _ in range(PATIENCE):
        if check():
            return
        time.sleep(0.1)
    raise SystemExit(f"never: {what}")


class Record:
    """What is on record in a database."""

    def __init__(self, uri: str) -> None:
        client: MongoClient[Any] = MongoClient(uri, tz_aware=True, type_registry=TYPES)
        self.database = client["registry"]
        self.stores = Stores(self.database)
        self.stores.usage.max_live_rows = sys.maxsize

    def documents(self, name: str) -> dict[str, Any]:
        """A collection by `_id`, without what is None, and without when an event came here."""
        rows = list(self.database[name].find())
        if len({row["_id"] for row in rows}) != len(rows):
            raise SystemExit(f"{name}: a document comes twice")
        return {
            row["_id"]: {
                key: value
                for key, value in row.items()
                if value is not None and key != "received_at"
            }
            for row in rows
        }

    def rows(self) -> dict[Any, Row]:
        """The rows of usage by their names."""
        days = self._days()
        query = UsageQuery(first=days[0], last=days[-1])
        scope = self.stores.catalogue.find_scope(rule())
        found = self.stores.usage.read(query, scope, datetime.now(UTC))
        return {(*row[:3], *row.names): row for row in found.rows}

    def close_days(self) -> None:
        """Close all days, though they are not over."""
        for day in self._days():
            self.stores.days.close_day(day)

    def _days(self) -> list[date]:
        states = self.stores.days.find_states(date.min, date.max)
        return [day for day, _ in self.stores.days.days_of(states)]


def compare(record: Record, fresh: Record, recount: Recount) -> dict[str, int]:
    """How much differs, by what."""
    stored = record.documents("events")
    wanted = {event.id for event in recount.events}
    found = {
        "acknowledged": len(wanted),
        "stored": len(stored),
        "lost": len(wanted - stored.keys()),
        "stored but never acknowledged": len(stored.keys() - wanted),
        "rejected": record.stores.rejected.count(),
        "left in the inbox": record.stores.inbox.count(),
    }
    folds = {
        key: (row.get("part_of"), row.get("parent"), row.get("tag"), row.get("tag_from"))
        for key, row in stored.items()
    }
    tags = list(record.database["tags"].find())
    repositories = record.database["repositories"].find()
    pushed = {row["repository"]: row.get("pushed_at") for row in repositories}
    lines: Counter[Any] = Counter()
    for row in record.rows().values():
        if row.action in COUNTED:
            lines[row.repository, row.tag, row.digest, row.action] += row.number
    differences = {
        "folds, plain recount": differing(folds, recount.folds),
        "tags, plain recount": differing(tag_states(tags), recount.tags),
        "repositories, plain recount": differing(pushed, recount.pushed),
        "usage, plain recount": differing(lines, recount.lines),
    }
    for name in COMPARED:
        differences[f"{name}, fresh database"] = differing(
            record.documents(name), fresh.documents(name)
        )
    rows = fresh.rows()
    differences["usage, fresh database"] = differing(record.rows(), rows)
    record.close_days()
    differences["usage, days closed"] = differing(record.rows(), rows)
    for name, pairs in differences.items():
        found[name] = len(pairs)
        for key, (one, other) in list(pairs.items())[:SHOWN]:
            what = differing(one, other) if isinstance(one, dict) and other else (one, other)
            print(f"  differs: {name}: {key}: {what}", flush=True)
    return found


def is_worked_in(server: Server) -> bool:
    time.sleep(1)
    with suppress(PyMongoError), MongoClient[Any](recorded_uri(server.data_dir)) as client:
        return client["registry"]["inbox"].find_one({}, {"_id": 1}) is None
    return False


@contextmanager
def opened(data_dir: Path) -> Iterator[Record]:
    """The database of a data directory."""
    database = EmbeddedDatabase(data_dir)
    database.start()
    try:
        yield Record(database.uri)
    finally:
        database.stop()


def load(record: Record, events: Sequence[Event]) -> None:
    """Put events on record, in their order."""
    record.stores.ensure_indexes()
    projector = Projector(record.stores)
    for _ in load_events(record.stores, projector, events):
        pass
    projector.stop()


def parsed(rows: Iterable[Any]) -> Iterator[Event]:
    """Events as the server understands them."""
    for row in rows:
        yield from parse_envelope(json.dumps(row).encode(), "default", datetime.now(UTC)).events


def run_round(directory: Path, name: str, options: argparse.Namespace) -> dict[str, int]:
    """One server and its deaths; returns what is counted at the end, by name."""
    doubled, still_s = ROUNDS[name]
    print(f"{name}: {options.kills} kills, seed {options.seed}", flush=True)
    server = Server(directory / "server")
    chance = random.Random(options.seed)
    busy = make_busy(server, options.seed, REPOSITORIES, clients=CLIENTS, doubled=doubled)
    with cleaned_up(server):
        with supervised(server):
            with busy.in_use(EVENTS_S, still_s):
                killed = kill_at_random(server, busy, options.kills, chance)
            wait_for(lambda: answers(f"{server.url}/readyz", 200), "the server is ready")
            wait_for(lambda: is_worked_in(server), "the inbox is empty")
        server.stop()
    print("  comparing", flush=True)
    recount = Recount(parsed(busy.acknowledged))
    with opened(server.data_dir) as record, opened(directory / "fresh") as fresh:
        load(fresh, recount.events)
        result = compare(record, fresh, recount)
    repeated = sum(node.doubled for node in busy.nodes)
    return {
        **{f"kills: {target}": killed[target] for target in TARGETS},
        "posts": len(busy.acknowledged) + repeated + busy.refusals,
        "posts without an acknowledgement": busy.refusals,
        "posts of what was acknowledged": repeated,
        **result,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for name in ROUNDS:
        with tempfile.TemporaryDirectory() as directory:
            for key, number in run_round(Path(directory), name, options).items():
                print(f"  {key:34}{number:8}", flush=True)


if __name__ == "__main__":
    main()
