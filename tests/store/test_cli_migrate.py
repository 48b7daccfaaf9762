"""`rns migrate` on a wire server: what it does, prints and exits with. No registry is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database
from test_cli import Run, rows, run

from app.migration.advice import advice
from app.store import Stores
from app.store.migrations import (
    Breaker,
    MigrationStore,
    Outcome,
    Wish,
    present,
)

__all__ = ["run"]  # a fixture

pytestmark = pytest.mark.wire

PLAN = """
migrations:
  - name: dc2
    source: {url: "https://old.invalid"}
    target: {url: "https://new.invalid"}
"""


@pytest.fixture
def queue(wire_database: Database[Any]) -> MigrationStore:
    stores = Stores(wire_database)
    stores.ensure_indexes()
    return stores.migrations


@pytest.fixture(autouse=True)
def config(tmp_path: Path, run: Run) -> Path:
    file = tmp_path / "config.yml"
    file.write_text(PLAN)
    return file


def fail_job(queue: MigrationStore, tag: str, error_class: str = "forbidden") -> str:
    queue.wish([Wish("dc2", "team/app", tag)], present())
    key = f"dc2 team/app {tag}"
    job = queue.claim(key, "worker", present())
    assert job
    queue.finish(job, Outcome(state="dead", error_class=error_class, error="no"), present())
    return key


def test_a_plan_is_started_paused_and_resumed(run: Run, queue: MigrationStore) -> None:
    assert run("migrate", "start").status == 0
    assert rows(run("migrate", "status", "--json"))[0]["state"] == "backfill"

    assert run("migrate", "pause").out == "paused dc2\n"
    (row,) = rows(run("migrate", "status", "--json"))
    assert row["stopped"].startswith("paused by ")
    assert run("migrate", "resume").status == 0

    (row,) = rows(run("migrate", "status", "--json"))
    assert (row["state"], row["stopped"]) == ("backfill", None)


def test_the_status_tells_why_a_plan_waits_and_what_failed(run: Run, queue: MigrationStore) -> None:
    fail_job(queue, "v1")
    queue.start("dc2", "test", present())
    now = present()
    queue.open_breaker(
        "dc2",
        Breaker(registry="https://new", error_class="auth", message="no", since=now, probe_at=now),
    )

    (row,) = rows(run("migrate", "status", "--json"))

    assert (row["stopped"], row["errors"], row["jobs"]) == (
        "auth: no",
        {"forbidden": 1},
        {"dead": 1},
    )
    assert f"forbidden: {advice('forbidden')}" in run("migrate", "status").out
    assert run("migrate", "resume").status == 0
    assert rows(run("migrate", "status", "--json"))[0]["stopped"] is None


def test_jobs_are_listed_retried_and_skipped(run: Run, queue: MigrationStore) -> None:
    first, second = fail_job(queue, "v1"), fail_job(queue, "v2", "server")

    listed = rows(run("migrate", "jobs", "--state", "dead", "--json"))
    assert [job["id"] for job in listed] == [first, second]
    assert all("token" not in job for job in listed)
    assert [job["id"] for job in rows(run("migrate", "jobs", "--class", "server", "--json"))] == [
        second
    ]

    assert run("migrate", "retry", "--class", "server").out == "1 jobs begin anew\n"
    assert run("migrate", "skip", first).status == 0
    assert run("migrate", "skip", "dc2 nobody v1").status == 1
    states = {job["id"]: job["state"] for job in rows(run("migrate", "jobs", "--json"))}
    assert states == {first: "skipped", second: "pending"}
    assert run("migrate", "retry").status == 2
    assert run("migrate", "retry", "--id", first).out == "1 jobs begin anew\n"


def test_a_plan_that_is_not_ready_is_told_why_and_not_cut_over(
    run: Run, queue: MigrationStore
) -> None:
    result = run("migrate", "ready", "--json")

    assert result.status == 1
    assert "not ready: runs, crawled, verified, events" in result.err
    assert {row["name"]: row["is_met"] for row in rows(result)} == {
        "runs": False,
        "crawled": False,
        "drained": True,
        "healthy": True,
        "verified": False,
        "events": "unknown",
        "deletes": True,
    }
    assert run("migrate", "cutover", "--force").status == 1


def test_a_plan_that_is_ready_is_cut_over_by_force_where_the_source_tells_nothing(
    run: Run, queue: MigrationStore
) -> None:
    queue.start("dc2", "test", present())
    queue.clear_recrawl("dc2")
    for kind in ("crawl", "verify"):
        begun = queue.begin_run("dc2", kind, "test", present())  # type: ignore[arg-type]
        assert begun
        queue.end_run(begun, "test", present())
    assert run("migrate", "ready").status == 1
    assert run("migrate", "cutover").status == 1

    assert run("migrate", "cutover", "--force").status == 0

    assert queue.get_plan("dc2").state == "cut_over"
    assert queue.find_audit("dc2")[0].what == "state cut_over"


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (("status", "extra"), 2, "unexpected"),
        (("start", "--plan", "other"), 1, "migrations: there is none with the name other"),
        (("jobs", "--state", "lost"), 2, "--state"),
    ],
)
def test_wrong_usage_is_told(run: Run, arguments: tuple[str, ...], status: int, error: str) -> None:
    result = run("migrate", *arguments)

    assert (result.status, result.out) == (status, "")
    assert error in result.err


def test_a_plan_must_be_named_where_there_are_two(run: Run, config: Path) -> None:
    second = PLAN.replace("dc2", "dc3").replace("migrations:\n", "")
    config.write_text(PLAN + second.lstrip("\n"))

    result = run("migrate", "start")

    assert result.status == 2
    assert "--plan: choose one of dc2, dc3" in result.err
    assert run("migrate", "start", "--plan", "dc3").status == 0


def test_a_plan_that_cannot_be_is_found_by_check(run: Run, config: Path) -> None:
    config.write_text(PLAN + "    repos: {include: ['re:(']}\n")

    result = run("check")

    assert result.status == 1
    assert "migrations[0].repos.include[0]: not a regular expression" in result.err


def test_a_registry_that_is_not_there_is_told(run: Run) -> None:
    result = run("migrate", "verify")

    assert result.status == 1
    assert "https://old.invalid: no answer" in result.err


def test_an_import_needs_the_address_of_a_registry(run: Run) -> None:
    result = run("catalogue", "import")

    assert (result.status, result.err) == (1, "rns: registries: default has no url\n")
