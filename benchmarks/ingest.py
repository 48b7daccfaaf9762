"""How fast events come in, against a minimal view: `python benchmarks/ingest.py`.

Both run under gunicorn (2 workers of 32 threads) on one database, in turn. The minimal view
decodes the envelope and does one `insert_one` (one `insert_many` for many events), and no more.
Ours also derives everything meanwhile; `lag` is the time from an answer until the event is on the
pages. Prints medians of several rounds: the ratio is what counts, the machine's speed is not.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from database import database_uri
from pymongo import MongoClient
from stream import Registry, at, body

from app.analysis.summaries import close_days
from app.notifications.intake import Intake
from app.notifications.lease import LEASE
from app.notifications.loading import load_events
from app.notifications.projector import Projector
from app.rules.events import parse_envelope
from app.settings import MongoDB, Settings
from app.store import connect

CHECKOUT = Path(__file__).resolve().parents[1]
MINIMAL = """
import json, os
from flask import Flask, request
from pymongo import MongoClient
app = Flask(__name__)
events = MongoClient(os.environ["MINIMAL_URI"])["minimal"]["events"]
@app.post("/events")
def receive():
    rows = json.loads(request.get_data())["events"]
    for row in rows:
        row["_id"] = row["id"]
    if len(rows) == 1:
        events.insert_one(rows[0])
    else:
        events.insert_many(rows, ordered=False)
    return {"stored": len(rows)}, 202
@app.get("/readyz")
def ready():
    return "ok"
"""


class Taken(list[float]):
    """The seconds that each POST of a round took, and how many events they held."""

    events = 0


def post(port: int, seconds: float, size: int, connections: int, kind: str) -> tuple[float, Taken]:
    """POST for so long; returns events a second, and what was taken."""
    taken = Taken()
    end = time.perf_counter() + seconds

    def run(number: int) -> None:
        registry = Registry(time.time_ns() + number)
        pushes = (registry.push() for _ in itertools.count())
        events = pushes if kind == "push" else registry.events()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while time.perf_counter() < end:
            content = body(*(at(event) for event in itertools.islice(events, size)))
            began = time.perf_counter()
            connection.request("POST", "/events", content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            taken.append(time.perf_counter() - began)
            taken.events += size
            if answer.status != 202:
                raise SystemExit(f"{answer.status} {text!r}")
        connection.close()

    start = time.perf_counter()
    threads = [threading.Thread(target=run, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken.events / (time.perf_counter() - start), taken


class Lag:
    """How long what came takes until it is worked in, watched from beside."""

    def __init__(self, database: Any) -> None:
        self._inbox, self._progress = database["inbox"], database["progress"]
        self.seconds: list[float] = []
        self.waiting = 0
        self._ended = threading.Event()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        yield
        self._ended.set()
        thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.25):
            row = self._progress.find_one({"_id": "inbox"})
            if row:
                until = row["until"].replace(tzinfo=UTC)
                self.seconds.append((datetime.now(UTC) - until).total_seconds())


def drain(database: Any, limit_s: float = 600) -> float:
    """Wait until nothing is left in the inbox; returns the seconds that took.

    A look into the inbox reads all of it on the embedded database: so only near the end.
    """
    began, end = time.perf_counter(), datetime.now(UTC) - timedelta(seconds=0.02)
    while time.perf_counter() - began < limit_s:
        row = database["progress"].find_one({"_id": "inbox"})
        if row and row["until"].replace(tzinfo=UTC) > end and not database["inbox"].find_one():
            return time.perf_counter() - began
        time.sleep(0.05)
    raise SystemExit("the inbox is not worked in")


def preload(uri: str, directory: str, number: int) -> None:
    """Put so many events on record, of the 30 days before today, and close those days."""
    settings = Settings(mongodb=MongoDB(uri=uri, data_dir=directory))
    stores = connect(settings)
    stores.ensure_indexes()
    start = datetime.now(UTC) - timedelta(days=30)
    step = timedelta(days=29) / max(number, 1)
    registry = Registry(1)
    events = (
        event
        for index, row in enumerate(itertools.islice(registry.events(), number))
        for event in parse_envelope(
            body(at(row, start + index * step)), "default", start + index * step
        ).events
    )
    projector = Projector(stores)
    for _ in load_events(stores, projector, events):
        pass
    projector.stop()
    for _ in close_days(stores):
        pass
    stores.close()


def fill_inbox(uri: str, directory: str, envelopes: int, size: int) -> None:
    """Leave so many envelopes for the projector."""
    stores = connect(Settings(mongodb=MongoDB(uri=uri, data_dir=directory)))
    intake, events = Intake(stores, 2**40), Registry(envelopes + size).events()
    for _ in range(envelopes):
        intake.receive(body(*(at(event) for event in itertools.islice(events, size))), "default")
    stores.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(command: list[str], environment: dict[str, str], cwd: str, port: int) -> Iterator[int]:
    """A server, until the block ends."""
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, cwd=cwd, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    break
            time.sleep(0.2)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextlib.contextmanager
def both(uri: str, directory: str) -> Iterator[dict[str, int]]:
    """Our server and the minimal view, by name."""
    ports = {"ours": free_port(), "minimal": free_port()}
    (Path(directory) / "minimal.py").write_text(MINIMAL)
    gunicorn = [sys.executable, "-m", "gunicorn"]
    ours = {
        "RNS_MONGODB__URI": uri,
        "RNS_MONGODB__DATA_DIR": directory,
        "RNS_SERVER__BIND": f"127.0.0.1:{ports['ours']}",
        "RNS_CONFIG": "",
    }
    plain = ["-k", "gthread", "-w", "2", "--threads", "32", "--keep-alive", "75"]
    plain += ["--no-control-socket", "-b", f"127.0.0.1:{ports['minimal']}", "minimal:app"]
    with (
        served([*gunicorn, "wsgi:app"], ours, str(CHECKOUT), ports["ours"]),
        served([*gunicorn, *plain], {"MINIMAL_URI": uri}, directory, ports["minimal"]),
    ):
        yield ports


CASES = [
    ("stream, one event a POST, 1 connection", 1, 1, "stream"),
    ("stream, one event a POST, 8 connections", 1, 8, "stream"),
    ("100 events of the stream a POST, 1 connection", 100, 1, "stream"),
    ("100 pushes a POST, 1 connection", 100, 1, "push"),
]
HEAD = (
    f"{'case':46} {'on record':>9} {'ours/s':>8} {'minimal/s':>9} {'ratio':>6} {'p50 ms':>7}"
    f" {'p99 ms':>7} {'lag p95 s':>9} {'left s':>7}"
)


def measure(ports: dict[str, int], database: Any, case: Any, on_record: int, options: Any) -> None:
    """One row of the table."""
    name, size, connections, kind = case
    rates: dict[str, list[float]] = {"ours": [], "minimal": []}
    taken: list[float] = []
    lags: list[float] = []
    left: list[float] = []
    for _ in range(options.rounds):
        lag = Lag(database)
        with lag.watched():
            rate, times = post(ports["ours"], options.seconds, size, connections, kind)
        left.append(drain(database))
        lags += lag.seconds
        taken += times
        rates["ours"].append(rate)
        rates["minimal"].append(post(ports["minimal"], options.seconds, size, connections, kind)[0])
    ours, minimal = (statistics.median(rates[which]) for which in ("ours", "minimal"))
    taken.sort()
    lags.sort()
    p50, p99 = (1000 * taken[int(len(taken) * part)] for part in (0.5, 0.99))
    print(
        f"{name:46} {on_record:9} {ours:8.0f} {minimal:9.0f} {ours / minimal:6.2f} {p50:7.1f}"
        f" {p99:7.1f} {lags[int(len(lags) * 0.95)]:9.2f} {statistics.median(left):7.1f}",
        flush=True,
    )


def measure_projector(uri: str, directory: str, ports: dict[str, int], database: Any) -> None:
    """How fast a full inbox is worked in, with nothing else going on."""
    serial, _ = post(ports["minimal"], 5, 1, 1, "stream")
    for envelopes, size in ((10_000, 1), (240, 100)):
        far = datetime.now(UTC) + timedelta(days=1)
        held = {"$set": {"owner": "benchmark", "until": far}}
        database["leases"].update_one({"_id": LEASE}, held, upsert=True)
        fill_inbox(uri, directory, envelopes, size)
        database["leases"].delete_one({"_id": LEASE})
        seconds = drain(database)
        rate = envelopes * size / seconds
        print(
            f"projector: {envelopes:,} envelopes of {size}: {rate:.0f} events/s,"
            f" {rate / serial:.2f} x the minimal view's {serial:.0f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--on-record", type=int, nargs="+", default=[1_000, 50_000, 200_000])
    parser.add_argument("--cases", type=int, nargs="+", default=list(range(len(CASES))))
    parser.add_argument("--no-projector", action="store_true")
    options = parser.parse_args()
    for on_record in options.on_record:
        with database_uri() as uri, tempfile.TemporaryDirectory() as directory:
            preload(uri, directory, on_record)
            database = MongoClient(uri)["registry"]
            with both(uri, directory) as ports:
                print(HEAD)
                for number in options.cases:
                    measure(ports, database, CASES[number], on_record, options)
                if not options.no_projector:
                    measure_projector(uri, directory, ports, database)


if __name__ == "__main__":
    main()
