"""What pages cost as events grow: records, search, a tag, and the dashboard over 30 days.

    python benchmarks/analysis.py [--events 10000,100000,1000000]

Events of 30 days are stored through ingest's own documents, the days closed, and each page asked
for as an account that may see one of 20 namespaces and as an administrator. Prints a table:
p50 and p95 in milliseconds, and the p50 as ratio to that of the smallest number of events.
Uses RNS_TEST_MONGODB_URI, else the embedded database.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from database import database_uri
from pymongo import MongoClient

from app import create_app
from app.analysis.summaries import close_days
from app.notifications.projector import Projector
from app.rules.events import parse_envelope
from app.settings import MongoDB, Server, Settings
from app.store import Stores
from app.store.usage.days import OPEN

ROUNDS = 20
DAYS = 30
BATCH = 100
PATHS = {
    "records": "/analysis/user/login/",
    "records of a repository": "/analysis/user/login/?repository=team3/app-43",
    "repository search": "/search/user/login/?q=app-1",
    "tag": "/search/tag?repository=team3/app-43&tag=v1",
    "repository": "/search/repository?repository=team3/app-43",
    "digest": f"/search/digest?digest=sha256:{43:032x}{1:032x}",
    "dashboard, 30 days": "/analysis/?days=30",
    "dashboard of an account": "/analysis/?days=30&actor=account-7",
    "dashboard of a day": "/analysis/?days=1",
    "unused": "/analysis/unused?days=20",
    "storage": "/analysis/storage",
}


def envelopes(number: int, end: datetime) -> Iterator[tuple[bytes, datetime]]:
    """`number` events of 30 days in envelopes of 100, and when each comes.

    200 repositories, 50 accounts.
    """
    dice = random.Random(1)
    step = timedelta(days=DAYS) / number
    for start in range(0, number, BATCH):
        events = []
        for n in range(start, min(start + BATCH, number)):
            is_first = n < 2000  # of each tag a push
            app = n % 200 if is_first else dice.randrange(200)
            version = n // 200 if is_first else dice.randrange(10)
            tag = f"v{version}"
            is_push = is_first or dice.random() < 0.02
            events.append(
                {
                    "id": f"event-{n}",
                    "timestamp": (end - timedelta(days=DAYS) + n * step).isoformat(),
                    "action": "push" if is_push else "pull",
                    "target": {
                        "mediaType": "application/vnd.oci.image.manifest.v1+json",
                        "size": 500,
                        "digest": f"sha256:{app:032x}{version:032x}",
                        "repository": f"team{app % 20}/app-{app}",
                        "tag": tag,
                    },
                    "request": {
                        "id": str(n),
                        "addr": f"10.0.{dice.randrange(4)}.{dice.randrange(20)}:1",
                        "method": "PUT" if is_push else "GET",
                        "useragent": dice.choice(["docker/27", "containerd/1.7", "cri-o/1.30"]),
                    },
                    "actor": {"name": f"account-{dice.randrange(50)}"},
                }
            )
        came = end - timedelta(days=DAYS) + (start + BATCH) * step
        yield json.dumps({"events": events}).encode(), came


def durations(work: Callable[[], Any]) -> list[float]:
    """Milliseconds of ROUNDS calls, sorted."""
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        found.append((time.perf_counter() - start) * 1000)
    return sorted(found)


def fill(client: MongoClient[Any], number: int) -> Stores:
    """Store the events in a database of their own and close their days."""
    client.drop_database(_name(number))
    stores = Stores(client[_name(number)])
    stores.ensure_indexes()
    now = datetime.now(UTC)
    projector = Projector(stores)
    start = time.perf_counter()
    for body, came in envelopes(number, now):
        projector.load(parse_envelope(body, "default", came).events)
    taken = time.perf_counter() - start
    time.sleep(OPEN.total_seconds() + 1)  # the days of late events rest so long
    start = time.perf_counter()
    days = len(list(close_days(stores)))
    closing = time.perf_counter() - start
    print(
        f"{number:,} events: stored in {taken:.0f} s, "
        f"{days} days and the hours of today closed in {closing:.1f} s",
        flush=True,
    )
    stores.accounts.add("admin", "secret", {})
    stores.accounts.add("reader", "secret", {})
    stores.accounts.add_acl_entry({"seq": 1, "match": {"name": "team3/*"}, "actions": ["pull"]})
    return stores


def measure(stores: Stores, number: int, base: dict[tuple[str, str], float]) -> None:
    """Print one row for each page and account."""
    app = create_app(
        Settings(server=Server(secret_key="key"), mongodb=MongoDB(uri="mongodb://unused")), stores
    )
    print(f"\n{number:,} events")
    print(f"{'page':26} {'account':8} {'p50 ms':>8} {'p95 ms':>8} {'ratio':>6}")
    for account in ("admin", "reader"):
        browser = app.test_client()
        form = browser.get("/login").text
        token = form.split('name="csrf_token"')[1].split('value="')[1].split('"')[0]
        fields = {"username": account, "password": "secret", "csrf_token": token}
        assert browser.post("/login", data=fields).status_code == 303
        for page, path in PATHS.items():
            response = browser.get(path)
            assert response.status_code == 200, (path, response.status_code)
            found = durations(partial(browser.get, path))
            p50, p95 = statistics.median(found), found[int(len(found) * 0.95) - 1]
            ratio = p50 / base.setdefault((page, account), p50)
            print(f"{page:26} {account:8} {p50:8.1f} {p95:8.1f} {ratio:6.1f}", flush=True)


def _name(number: int) -> str:
    return f"benchmark_analysis_{number}"


def main() -> None:
    """Measure each number of events."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", default="10000,100000,1000000")
    arguments = parser.parse_args()
    base: dict[tuple[str, str], float] = {}
    with database_uri() as uri:
        client: MongoClient[Any] = MongoClient(uri, tz_aware=True)
        numbers = [int(number) for number in arguments.events.split(",")]
        filled = {number: fill(client, number) for number in numbers}
        for number, stores in filled.items():
            measure(stores, number, base)
        for number in numbers:
            client.drop_database(_name(number))


if __name__ == "__main__":
    main()
