"""`rns migrate` on a wire server: what it does, prints and exits with. No registry is there."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from command_line import PLAN, Run, rows

from app.cli.migrate import compare, shared, show, steer
from app.migration.advice import advice
from app.registry import RegistryClient, RegistryError
from app.rules.references import parse_repository
from app.store.migrations import (
    LIVE,
    Breaker,
    JobStore,
    MigrationStore,
    Outcome,
    Wish,
    WorkerBeat,
    present,
)

pytestmark = [pytest.mark.wire, pytest.mark.usefixtures("config")]


def fail_job(queue: MigrationStore, tag: str, error_class: str = "forbidden") -> str:
    queue.jobs.wish([Wish("dc2", "team/app", tag)], present())
    key = f"dc2 team/app {tag}"
    (due,) = (job for job in queue.jobs.find_due("dc2", LIVE, present()) if job.id == key)
    job = queue.jobs.claim(due, "worker", present())
    assert job
    queue.jobs.finish(job, Outcome(state="dead", error_class=error_class, error="no"), present())
    return key


def make_ready(queue: MigrationStore, name: str = "dc2") -> None:
    """A live plan with a worker, of which everything is copied and compared."""
    queue.workers.beat(
        WorkerBeat(name="h:1:x", plans=[name], running=0, version="1", beat=present())
    )
    queue.plans.start(name, "test", present())
    queue.plans.clear_recrawl(name)
    queue.plans.set_state(name, "live", "test", present())
    for kind in ("crawl", "verify"):
        begun = queue.runs.begin(name, kind, "test", present())  # type: ignore[arg-type]
        assert begun
        queue.runs.end(begun, "test", present())


def copy_job(queue: MigrationStore, tag: str, size: int) -> None:
    queue.jobs.wish([Wish("dc2", "team/app", tag)], present())
    key = f"dc2 team/app {tag}"
    (due,) = (job for job in queue.jobs.find_due("dc2", LIVE, present()) if job.id == key)
    job = queue.jobs.claim(due, "worker", present())
    assert job
    queue.jobs.finish(job, Outcome(state="done", result="copied", bytes=size), present())


def test_a_plan_that_stays_paused_is_not_started_in_silence(run: Run) -> None:
    run("migrate", "pause")

    started = run("migrate", "start")

    assert started.status == 0
    assert "dc2 stays paused by" in started.err
    run("migrate", "resume")
    assert run("migrate", "start").err == ""


def test_jobs_that_copied_more_than_anybody_can_are_listed_and_added_up(
    run: Run, queue: MigrationStore
) -> None:
    assert run("migrate", "start").status == 0
    sizes = [2**31, 2**43, 2**62]
    for size in sizes:
        copy_job(queue, f"v{size}", size)

    listed = rows(run("migrate", "jobs", "--json"))
    (alike,) = queue.jobs.count_alike("dc2")
    lately = queue.jobs.count_finished_since("dc2", present() - timedelta(hours=1))

    assert sorted(row["bytes"] for row in listed) == [2**31, 2**43, 2**43]
    assert alike.bytes == 2**31 + 2 * 2**43
    assert lately == (3, alike.bytes)
    for command in ("jobs", "status", "status --json"):
        assert run("migrate", *command.split()).status == 0


class Empty(RegistryClient):
    """A registry that has nothing."""

    def ping(self) -> None:
        pass

    def catalog(self, last: str = "") -> Iterator[list[str]]:
        yield []

    def tags(self, repository: str) -> list[str]:
        return []


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "connect_source", lambda plan: Empty(plan.source))
    monkeypatch.setattr(shared, "connect_target", lambda plan: Empty(plan.target))


def test_a_plan_is_started_paused_and_resumed(run: Run, queue: MigrationStore) -> None:
    assert run("migrate", "start").status == 0
    assert rows(run("migrate", "status", "--json"))[0]["state"] == "backfill"

    assert run("migrate", "pause").out == "paused dc2\n"
    (row,) = rows(run("migrate", "status", "--json"))
    assert row["stopped"].startswith("paused by ")
    assert run("migrate", "resume").status == 0

    (row,) = rows(run("migrate", "status", "--json"))
    assert (row["state"], row["stopped"]) == ("backfill", None)


def test_a_brake_is_lifted_by_its_own_command(run: Run, queue: MigrationStore) -> None:
    queue.plans.brake_deletes("dc2", "many deletes", present())

    assert run("migrate", "resume", "--allow-deletes", "5").status == 0
    assert queue.plans.get("dc2").deletes_braked == "many deletes"
    assert run("migrate", "lift-brake").out == "deletes of dc2 are braked no more\n"

    assert queue.plans.get("dc2").deletes_braked == ""


def test_the_status_tells_why_a_plan_waits_and_what_failed(run: Run, queue: MigrationStore) -> None:
    fail_job(queue, "v1")
    queue.plans.start("dc2", "test", present())
    now = present()
    queue.plans.open_breaker(
        "dc2",
        Breaker(registry="https://new", error_class="auth", message="no", since=now, probe_at=now),
    )

    (row,) = rows(run("migrate", "status", "--json"))

    assert (row["stopped"], row["errors"], row["jobs"]) == (
        f"auth: no; tried again at {now:%Y-%m-%d %H:%M} UTC, by rns migrate resume now",
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
    refused = run("migrate", "retry", "--id", "typo")
    assert (refused.status, "no job typo" in refused.err) == (1, True)


def test_a_plan_that_is_not_ready_is_told_why_and_not_cut_over(
    run: Run, queue: MigrationStore
) -> None:
    result = run("migrate", "ready", "--json")

    assert result.status == 1
    assert "not ready: runs, worker, reached, crawled, inbox, verified, events" in result.err
    assert {row["name"]: row["is_met"] for row in rows(result)} == {
        "runs": False,
        "worker": False,
        "reached": False,
        "crawled": False,
        "drained": True,
        "healthy": True,
        "inbox": "unknown",
        "verified": False,
        "events": "unknown",
        "deletes": True,
    }
    assert run("migrate", "cutover", "--force").status == 1


@pytest.mark.usefixtures("empty")
def test_a_plan_that_is_ready_is_cut_over_by_force_where_the_source_tells_nothing(
    run: Run, queue: MigrationStore
) -> None:
    make_ready(queue)
    assert run("migrate", "ready").status == 1
    assert run("migrate", "cutover").status == 1

    result = run("migrate", "cutover", "--force")

    assert "dc2 is cut over: let the clients use https://new.invalid" in result.out
    assert queue.plans.get("dc2").state == "cut_over"
    told = queue.plans.find_audit("dc2")[0].what
    assert told.startswith("state cut_over, by force: crawled (the crawl saw no tag")
    assert told.endswith("events (source.debug_url tells nothing)")


def test_the_audit_says_that_a_source_was_frozen_by_force(
    run: Run, queue: MigrationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steer, "takes_pushes", lambda *_: (True, "it began an upload"))
    run("migrate", "start")
    queue.plans.set_state("dc2", "live", "alice", present())
    why = "https://old.invalid still takes pushes (it began an upload)"

    refused = run("migrate", "freeze")
    assert (refused.status, f"{why}; make it read-only" in refused.err) == (1, True)
    assert queue.plans.find_audit("dc2")[0].what == "state live"

    assert run("migrate", "freeze", "--force").status == 0
    told = {row.what for row in queue.plans.find_audit("dc2")}
    assert f"state frozen, by force: {why}" in told


@pytest.mark.usefixtures("empty")
def test_the_runbook_shows_what_is_next_from_the_beginning_to_the_end(
    run: Run, queue: MigrationStore
) -> None:
    def next_step() -> str:
        lines = run("migrate", "runbook").out.splitlines()
        return next((line for line in lines if line.startswith("[→]")), lines[-1])

    assert "1. Begin: rns migrate start --plan dc2" in next_step()
    run("migrate", "start")
    assert "2. Wait until it is live" in next_step()
    make_ready(queue)
    assert "3. Make https://old.invalid read-only" in next_step()
    assert run("migrate", "freeze").status == 0
    assert "4. Wait for the final crawl" in next_step()
    unmet = run("migrate", "cutover", "--force").err
    assert "crawled (another crawl is wanted: final, as the source is frozen)" in unmet
    queue.plans.clear_recrawl("dc2")
    assert run("migrate", "crawl").out == "dc2 is crawled once more by a worker\n"
    assert (queue.plans.get("dc2").state, queue.plans.get("dc2").recrawl) == ("frozen", True)
    queue.plans.clear_recrawl("dc2")
    assert run("migrate", "cutover", "--force").status == 0
    assert "5. Let the clients' name point to https://new.invalid" in next_step()
    assert run("migrate", "close").out == "closed dc2\n"
    assert "It is over" in next_step()
    changes = {
        row.what.partition(", by force")[0]
        for row in queue.plans.find_audit("dc2")
        if row.who.endswith("command line")
    }
    assert {f"state {state}" for state in ("backfill", "frozen", "cut_over", "closed")} <= changes


def test_a_registry_that_cannot_be_reached_is_a_reason_against_a_cut_over(
    run: Run, queue: MigrationStore
) -> None:
    make_ready(queue)

    result = run("migrate", "cutover", "--force")

    assert result.status == 1
    assert "reached (https://old.invalid: no answer" in result.err
    assert "; https://new.invalid: no answer" in result.err
    assert queue.plans.get("dc2").state == "live"


@pytest.mark.usefixtures("empty")
def test_a_comparison_that_takes_too_long_makes_no_plan_ready(
    run: Run, queue: MigrationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_ready(queue)
    monkeypatch.setattr(Empty, "tags", lambda self, repository: time.sleep(1.1) or ["v1"])
    monkeypatch.setattr(Empty, "catalog", lambda self, last="": iter([["team/app"]]))

    result = run("migrate", "ready", "--within", "1", "--json")

    (verified,) = (row for row in rows(result) if row["name"] == "verified")
    assert verified["is_met"] is False
    assert verified["reason"].endswith("takes longer than 1 s; rns migrate verify has no limit")


def test_a_way_back_is_started_after_the_rollback_and_the_way_there_after_its_own(
    run: Run, queue: MigrationStore, config: Path
) -> None:
    config.write_text(
        """
registries: [{name: default}, {name: new}]
migrations:
  - name: dc2
    source: {url: "https://old.invalid"}
    target: {url: "https://new.invalid", registry_id: new}
  - {name: back, reverse_of: dc2}
"""
    )

    def start(name: str) -> tuple[int, str]:
        result = run("migrate", "start", "--plan", name)
        return result.status, result.err

    assert start("back") == (
        1,
        "rns: back and dc2 lead opposite ways, and dc2 is draft; "
        "first rns migrate start --plan dc2\n",
    )
    make_ready(queue)
    queue.plans.set_state("dc2", "cut_over", "test", present())
    assert "first rns migrate rollback --plan dc2" in start("back")[1]
    result = run("migrate", "rollback", "--plan", "dc2")
    assert (
        "pushed to https://new.invalid since the cut-over is not at https://old.inv" in result.err
    )
    assert result.out.endswith("use https://old.invalid, after rns migrate start --plan back\n")

    assert start("back") == (0, "")
    assert "first rns migrate rollback --plan back" in start("dc2")[1]
    run("migrate", "rollback", "--plan", "back")
    status, warning = start("dc2")
    assert (status, "it overwrites tags that were pushed there" in warning) == (0, True)
    assert queue.plans.get("dc2").state == "backfill"


def test_a_closed_plan_is_not_begun_again(run: Run, queue: MigrationStore) -> None:
    queue.jobs.wish([Wish("dc2", "team/app", "v1")], present())
    run("migrate", "close")

    for command in ("start", "once", "freeze", "cutover", "rollback", "close"):
        result = run("migrate", command)
        assert (result.status, "dc2 is closed" in result.err) == (1, True), command
    assert rows(run("migrate", "status", "--json"))[0]["jobs"] == {"skipped": 1}


def test_the_status_is_told_to_a_pipe_when_it_changes_until_a_signal(
    run: Run, queue: MigrationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "WATCH_S", 0.01)
    seen = queue.jobs.count_by_state
    calls = itertools.count(1)

    def count_by_state(self: JobStore, plan: str) -> dict[str, int]:
        number = next(calls)
        if number == 3:
            queue.plans.pause("dc2", "somebody", present())
        if number == 5:
            signal.raise_signal(signal.SIGINT)
        return seen(plan)

    monkeypatch.setattr(JobStore, "count_by_state", count_by_state)

    result = run("migrate", "status", "--watch")

    assert result.status == 0
    assert result.out.count("dc2") == 2
    assert "paused by somebody" in result.out.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (("verify", "--sample", "0%"), 2, "expected a share above 0"),
        (("verify", "--sample", "some"), 2, "expected a share above 0"),
        (("verify", "--repo", "re:("), 1, "not a regular expression"),
        (("freeze",), 1, "dc2 is draft: only a live plan can be frozen"),
        (("cutover",), 1, "dc2 is draft: only a plan that is live or frozen can be cut over"),
        (("rollback",), 1, "dc2 is draft: nothing is to be rolled back"),
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


def test_a_registry_that_is_not_there_is_told(run: Run) -> None:
    result = run("migrate", "verify")

    assert result.status == 1
    assert "https://old.invalid: no answer" in result.err


def test_a_crawl_that_cannot_go_on_ends_what_is_done_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: RegistryClient, last: str = "") -> Iterator[list[str]]:
        raise RegistryError("server", f"{self.url}: 500")

    monkeypatch.setattr(RegistryClient, "catalog", fail)

    result = run("migrate", "once")

    assert (result.status, result.err) == (1, "rns: stopped: https://old.invalid: 500\n")


class Registry(RegistryClient):
    """Has two empty repositories, one of a name that cannot be."""

    def catalog(self, last: str = "") -> Iterator[list[str]]:
        yield ["Odd/Name", "team/app"]

    def tags(self, repository: str) -> list[str]:
        parse_repository(repository)
        return []


def test_a_repository_whose_name_is_none_is_unknown_to_the_plan(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "connect_source", lambda plan: Registry(plan.source))
    monkeypatch.setattr(compare, "connect_target", lambda plan: Registry(plan.target))

    result = run("migrate", "plan", "--json")

    assert [(row["repository"], row["unknown"]) for row in rows(result)] == [
        ("Odd/Name", 1),
        ("team/app", 0),
    ]


HANGING = """
import threading
from app.cli.migrate import work
work._end_within(0.2)
threading.Thread(target=threading.Event().wait).start()  # the end of Python waits for it
"""


def test_a_worker_that_waits_for_something_that_hangs_ends_all_the_same() -> None:
    command = [sys.executable, "-c", HANGING]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert (ended.returncode, ended.stderr) == (
        1,
        "rns: ended by force; jobs left are begun anew\n",
    )


TAKEN = """
import os, signal, threading
from app.cli.migrate import shared, work
from app.settings import Settings
with shared.until_signal() as ended:
    threading.Thread(target=threading.Event().wait, daemon=True).start()  # it takes the signal
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    work._wait_for(ended, Settings(), "")
print("ended")
"""


def test_a_worker_ends_although_another_thread_than_the_first_took_the_signal() -> None:
    command = [sys.executable, "-c", TAKEN]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert (ended.returncode, ended.stdout) == (0, "ended\n")
