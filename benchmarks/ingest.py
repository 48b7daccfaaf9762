"""How fast events come in, against a minimal view: `python benchmarks/ingest.py`.

Both run under the same gunicorn (gthread, same workers and threads) on the same embedded database.
The minimal view decodes the envelope and does one `insert_one` (one `insert_many` for many events).
Prints medians of several rounds; the ratio is what counts, the machine's speed is not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path

import requests
from worker_memory import event

from app.embedded import EmbeddedDatabase

MINIMAL = """
import json, os
from flask import Flask, request
from pymongo import MongoClient
from pymongo.errors import BulkWriteError
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def gunicorn(application: str, port: int, environment: dict[str, str], cwd: str) -> object:
    command = [sys.executable, "-m", "gunicorn", "-k", "gthread", "-w", "2", "--threads", "4"]
    command += ["--keep-alive", "75", "--no-control-socket", "-b", f"127.0.0.1:{port}"]
    return subprocess.Popen(
        [*command, application],
        env={**os.environ, **environment},
        cwd=cwd,
        stderr=subprocess.DEVNULL,
    )


def post(base: str, count: int, size: int, connections: int, action: str) -> tuple[float, list]:
    """Events a second, and the seconds each POST took."""
    taken: list[float] = []

    def run() -> None:
        http = requests.Session()
        for _ in range(count // connections):
            rows = []
            for _ in range(size):
                row = event(int(uuid.uuid4()) % 10**9)
                rows.append(row | {"id": str(uuid.uuid4()), "action": action})
            body = json.dumps({"events": rows})
            start = time.perf_counter()
            answer = http.post(
                f"{base}/events", data=body, headers={"Content-Type": "application/json"}
            )
            taken.append(time.perf_counter() - start)
            assert answer.status_code == 202, answer.text

    start = time.perf_counter()
    threads = [threading.Thread(target=run) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(taken) * size / (time.perf_counter() - start), taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--posts", type=int, default=400)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        database = EmbeddedDatabase(Path(directory) / "data")
        database.start()
        (Path(directory) / "minimal.py").write_text(MINIMAL)
        ports = {"ours": free_port(), "minimal": free_port()}
        shared = {
            "RNS_MONGODB__URI": database.uri,
            "RNS_MONGODB__DATA_DIR": directory,
            "MINIMAL_URI": database.uri,
        }
        servers = [
            gunicorn("app:create_app()", ports["ours"], shared, directory),
            gunicorn("minimal:app", ports["minimal"], shared, directory),
        ]
        try:
            measure({name: f"http://127.0.0.1:{port}" for name, port in ports.items()}, arguments)
        finally:
            for server in servers:
                server.send_signal(signal.SIGTERM)
                server.wait(30)
            database.stop()


def measure(bases: dict[str, str], arguments: argparse.Namespace) -> None:
    for base in bases.values():
        for _ in range(100):
            try:
                if requests.get(f"{base}/readyz", timeout=5).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.2)
    cases = [
        ("pulls by tag, one event a POST, 1 connection", 1, 1, "pull"),
        ("pushes, one event a POST, 1 connection", 1, 1, "push"),
        ("pulls by tag, one event a POST, 8 connections", 1, 8, "pull"),
        ("pulls by tag, 100 events a POST, 1 connection", 100, 1, "pull"),
    ]
    print(f"{'case':48} {'ours/s':>8} {'minimal/s':>9} {'ratio':>6} {'p50 ms':>7} {'p99 ms':>7}")
    for name, size, connections, action in cases:
        rates: dict[str, list[float]] = {"ours": [], "minimal": []}
        taken: list[float] = []
        count = arguments.posts if size == 1 else arguments.posts // 10
        for _ in range(arguments.rounds):
            for which, base in bases.items():
                rate, times = post(base, count, size, connections, action)
                rates[which].append(rate)
                if which == "ours":
                    taken += times
        ours, minimal = (statistics.median(rates[which]) for which in ("ours", "minimal"))
        taken.sort()
        p50, p99 = (1000 * taken[int(len(taken) * part)] for part in (0.5, 0.99))
        row = f"{name:48} {ours:8.0f} {minimal:9.0f} {ours / minimal:6.2f} {p50:7.1f} {p99:7.1f}"
        print(row, flush=True)


if __name__ == "__main__":
    main()
