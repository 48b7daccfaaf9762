"""Memory of the gunicorn workers while events come in: `python benchmarks/worker_memory.py`.

Runs `rns serve` with the embedded database in a temporary directory, posts EVENTS events (most in
envelopes of 100, the rest one by one) and prints the resident memory of the workers and of the
database as it goes. Flat means: the last rows are not above the middle ones.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests

SINGLE = 50  # of every thousand events, those that come alone


def event(number: int) -> dict[str, object]:
    digest = f"sha256:{number % 500:064x}"
    when = datetime.now(UTC) - timedelta(seconds=1)
    return {
        "id": f"event-{number}",
        "timestamp": when.isoformat().replace("+00:00", "Z"),
        "action": "push" if number % 10 == 0 else "pull",
        "target": {
            "repository": f"team-{number % 20}/app-{number % 200}",
            "tag": f"v{number % 50}",
            "digest": digest,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "size": 1000,
        },
        "request": {"addr": f"10.0.{number % 250}.1:5", "method": "GET", "useragent": "docker/27"},
        "actor": {"name": f"actor-{number % 300}"},
    }


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(row for row in status.splitlines() if row.startswith("VmRSS")).split()[1]) / 1e3


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sorted({int(c) for t in threads for c in (t / "children").read_text().split()} or found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    total = parser.parse_args().events
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        environment = {
            **os.environ,
            "RNS_SERVER__BIND": f"127.0.0.1:{port}",
            "RNS_MONGODB__DATA_DIR": directory,
        }
        command = [sys.executable, "-m", "app", "serve"]
        server = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            post_all(f"http://127.0.0.1:{port}", server.pid, total)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


def post_all(base: str, pid: int, total: int) -> None:
    http = requests.Session()
    for _ in range(200):
        try:
            if http.get(f"{base}/readyz", timeout=5).ok:
                break
        except requests.ConnectionError:
            time.sleep(0.2)
    print(f"{'events':>8}  {'seconds':>8}  resident MB of the master's children")
    start = time.monotonic()
    number = 0
    while number < total:
        sizes = [100] * ((1000 - SINGLE) // 100) + [1] * SINGLE
        for size in sizes:
            body = json.dumps({"events": [event(number + n) for n in range(size)]})
            headers = {"Content-Type": "application/json"}
            while True:
                answer = http.post(f"{base}/events", data=body, headers=headers, timeout=30)
                if answer.status_code == 202:
                    break
                time.sleep(0.5)
            number += size
        if number * 10 // total != (number - sum(sizes)) * 10 // total:
            memory = "  ".join(f"{resident_mb(child):7.1f}" for child in children(pid))
            print(f"{number:8}  {time.monotonic() - start:8.1f}  {memory}", flush=True)


if __name__ == "__main__":
    main()
