"""Pace and memory over a long time: `python benchmarks/endurance.py --events 100000`.

`rns serve` with the embedded database in a temporary directory. The realistic stream comes one
event a POST, over one connection that is kept alive. After each tenth of the events nothing is sent
until all are worked in. Printed are how many a second were accepted while they were sent, how many
were worked in until the inbox was empty, and the resident memory of every process then. Flat means:
the last tenth is at least 0.9 times as fast as the first, and the last rows are not above the
middle ones.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ingest import drain
from pymongo import MongoClient
from stream import Registry, at, body

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from processes import HOST, TOKEN, Server, cleaned_up, database_pids

from app.embedded import recorded_uri

HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}


def send(port: int, events: Iterator[Any], number: int) -> tuple[float, int]:
    """POST so many events, each until it is accepted; returns the seconds, and the refusals."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    refusals = 0
    began = time.perf_counter()
    for event in itertools.islice(events, number):
        content = body(at(event))
        while True:
            connection.request("POST", "/events", content, HEADERS)
            answer = connection.getresponse()
            answer.read()
            if answer.status == 202:
                break
            refusals += 1
            time.sleep(0.2)
    connection.close()
    return time.perf_counter() - began, refusals


def processes(server: Server) -> dict[str, int]:
    """The processes of a server by name."""
    workers = {f"worker {number}": pid for number, pid in enumerate(server.worker_pids(), 1)}
    (database,) = database_pids(server.data_dir)
    return {"master": server.program.pid, **workers, "database": database}


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(row for row in status.splitlines() if row.startswith("VmRSS")).split()[1]) / 1e3


def measure(server: Server, total: int) -> None:
    events = Registry(1).events()
    known = processes(server)
    columns = "".join(f"{name:>10}" for name in known)
    print(f"{'events':>8} {'accepted/s':>11} {'worked in/s':>12} {'refused':>8}{columns}  (MB)")
    rates: list[tuple[float, float]] = []
    with MongoClient[Any](recorded_uri(server.data_dir)) as client:
        for tenth in range(1, 11):
            number = total // 10
            sent_s, refusals = send(server.port, events, number)
            left_s = drain(client["registry"])
            rates.append((number / sent_s, number / (sent_s + left_s)))
            accepted, worked_in = rates[-1]
            if processes(server) != known:
                raise SystemExit("a process died")
            memory = "".join(f"{resident_mb(pid):10.1f}" for pid in known.values())
            print(
                f"{tenth * number:8} {accepted:11.1f} {worked_in:12.1f} {refusals:8}{memory}",
                flush=True,
            )
    for name, first, last in zip(("accepted", "worked in"), rates[0], rates[-1], strict=True):
        print(f"{name}: the last tenth {last / first:.2f} x the first")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    total = parser.parse_args().events
    with (
        tempfile.TemporaryDirectory() as directory,
        cleaned_up(Server(Path(directory) / "server")) as server,
    ):
        server.start()
        measure(server, total)


if __name__ == "__main__":
    main()
