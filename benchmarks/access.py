"""What access costs: an ACL of many regexes, and a sign-in with each request.

    python benchmarks/access.py [--repositories 100000] [--entries 1000]

Prints two tables. The first has, for each of several ACLs, the milliseconds to find what an account
may see (rule and query), and to show the first page of 50, as ratios to `team/*`. The second has
the milliseconds of one request to the API, and how often it runs bcrypt, by how it signs in.
Uses RNS_TEST_MONGODB_URI, else the embedded database.
"""

from __future__ import annotations

import argparse
import base64
import re
import statistics
import time
from collections.abc import Callable
from typing import Any

from database import database_uri
from pymongo import MongoClient

from app import create_app
from app.rules.access import Account, compile_rule, parse_acl
from app.rules.tokens import DEFAULT_LIFETIME
from app.settings import MongoDB, Server, Settings
from app.store import Stores, accounts
from app.store.catalogue import CatalogueQuery
from app.store.sign_ins import now

ROUNDS = 3
REQUESTS = 50


def acls(entries: int) -> dict[str, list[tuple[str, list[str]]]]:
    """Names of ACLs and their entries: pattern and actions."""
    allow = ["pull"]
    return {
        "team/*": [("team7/*", allow)],
        "everything": [("/.*/", allow)],
        "${account}/* and 10 globs": [("${account}/*", allow)]
        + [(f"team{n}/*", allow) for n in range(10)],
        f"{entries:,} names": [(f"team{n % 100}/app-{n}", allow) for n in range(entries)],
        f"{entries:,} regexes with a beginning": [
            (f"/^team{n % 100}/app-{n}[0-9]*$/", allow) for n in range(entries)
        ],
        f"{entries:,} regexes without": [(f"/app-{n}[0-9]?$/", allow) for n in range(entries)],
        f"{entries:,} regexes that match nothing": [
            (f"/x{n}[a-z]+y/", allow) for n in range(entries)
        ],
    }


def fill(stores: Stores, number: int) -> None:
    """Put repositories into the catalogue as the projector would."""
    rows = []
    for n in range(number):
        name = f"team{n % 100}/app-{n}"
        rows.append(
            {
                "_id": f"{name} default",
                "registry": "default",
                "repository": name,
                "namespace": f"team{n % 100}",
                "position": f"2026-11-23T18:00:00.{n:06}Z-{n}",
                "deleted": False,
            }
        )
    for start in range(0, number, 100):
        stores.catalogue._repositories.insert_many(rows[start : start + 100])


def median_ms(work: Callable[[], Any]) -> float:
    """The median duration of ROUNDS calls."""
    durations = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        durations.append((time.perf_counter() - start) * 1000)
    return statistics.median(durations)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repositories", type=int, default=100_000)
    parser.add_argument("--entries", type=int, default=1_000)
    arguments = parser.parse_args()
    with database_uri() as uri:
        stores = Stores(MongoClient(uri, tz_aware=True)["benchmark_access"])
        stores.ensure_indexes()
        fill(stores, arguments.repositories)
        measure(stores, arguments.entries)
        measure_sign_ins(stores)
        stores._database.client.drop_database("benchmark_access")


def measure(stores: Stores, entries: int) -> None:
    """One row for each ACL."""
    base = 0.0
    print(f"{'ACL':42} {'visible':>8} {'rule ms':>9} {'page ms':>9} {'ratio':>7}")
    for name, patterns in acls(entries).items():
        documents = [
            {"seq": seq, "match": {"name": pattern}, "actions": actions}
            for seq, (pattern, actions) in enumerate(patterns)
        ]
        acl = parse_acl(documents)

        def find_scope() -> Any:
            rule = compile_rule(
                acl,  # noqa: B023
                Account("team3", {}),
                address="10.0.0.1",
                service="registry",
                own_namespace=True,
                administrators=[],
            )
            return stores.catalogue.find_scope(rule)

        def show_page() -> Any:
            return stores.catalogue.find_repositories(CatalogueQuery(), find_scope(), limit=50)

        visible = stores.catalogue.count("repository", CatalogueQuery(), find_scope(), cap=200_000)
        rule_ms, page_ms = median_ms(find_scope), median_ms(show_page)
        base = base or page_ms
        print(
            f"{name:42} {visible.number:8,} {rule_ms:9.1f} {page_ms:9.1f} {page_ms / base:7.1f}",
            flush=True,
        )


def measure_sign_ins(stores: Stores) -> None:
    """One row for each way to sign in."""
    password = "a password"
    stores.accounts.add("team3", password, {})
    stores.accounts.add_acl_entry({"seq": 1, "match": {"name": "team7/*"}, "actions": ["pull"]})
    token = stores.tokens.add("team3", "benchmark", DEFAULT_LIFETIME, now())
    settings = Settings(server=Server(secret_key="key"), mongodb=MongoDB(uri="mongodb://unused"))
    client = create_app(settings, stores).test_client()
    calls = 0
    check = accounts.bcrypt.checkpw

    def counting(*given: Any) -> bool:
        nonlocal calls
        calls += 1
        return check(*given)

    def basic(secret: str) -> dict[str, str]:
        return {"Authorization": f"Basic {base64.b64encode(f'team3:{secret}'.encode()).decode()}"}

    accounts.bcrypt.checkpw = counting  # type: ignore[assignment]
    session = create_app(settings, stores).test_client()
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', session.get("/login").text)
    assert found
    form = {"username": "team3", "password": password, "csrf_token": found[1]}
    assert session.post("/login", data=form).status_code == 303
    print(f"\n{'sign-in':34} {'request ms':>10} {'bcrypt per request':>19}")
    for name, by, headers in (
        ("session", session, {}),
        ("token as Bearer", client, {"Authorization": f"Bearer {token}"}),
        ("token as the password of Basic", client, basic(token)),
        ("password of Basic", client, basic(password)),
    ):
        calls, durations = 0, []
        for _ in range(REQUESTS):
            start = time.perf_counter()
            answer = by.get("/api/v1/repositories?limit=1", headers=headers)
            durations.append((time.perf_counter() - start) * 1000)
            assert answer.status_code == 200
        print(f"{name:34} {statistics.median(durations):10.1f} {calls / REQUESTS:19.1f}")


if __name__ == "__main__":
    main()
