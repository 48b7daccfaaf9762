"""What is kept of runs: each job's last twenty, and every crawl and verification."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_migration_jobs import Setting, verify_plan_of

from app.migration.frozen import takes_pushes
from app.migration.runbook import warn_of_rollback, warn_of_start
from app.migration.sides import connect_source
from app.registry import Endpoint
from app.store.clock import Clock
from app.store.migrations import present


def names() -> list[str]:
    return []


def test_a_job_that_is_given_up_shows_how_often_it_was_tried(make: Callable[..., Setting]) -> None:
    setting = make(options={"max_attempts": 3})
    setting.source.push("team/app", "v1")

    def fail(method: str, *arguments: str) -> None:
        if method == "put_manifest":
            raise setting.target.error("server")

    setting.target.fail = fail
    setting.wish("v1")
    for _ in range(3):
        setting.drain()
        setting.hurry()
    job = setting.job()
    assert (job.state, job.attempts) == ("dead", 3)
    assert [row.error_class for row in job.log] == ["server"] * 3
    assert [row.worker for row in job.log] == ["worker"] * 3
    assert job.log[-1].error == f"{setting.target.url}: server"

    setting.target.fail = lambda *_: None
    setting.queue.jobs.retry("dc2", "test", present(), id=job.id)
    setting.drain()
    job = setting.job()
    assert (job.state, job.attempts, job.log[-1].result) == ("done", 0, "copied")
    assert len(job.log) == 4


def test_of_a_job_the_last_twenty_runs_are_kept(make: Callable[..., Setting]) -> None:
    setting = make()
    for number in range(25):
        setting.source.push("team/app", "v1", str(number))
        setting.wish("v1")
        setting.drain()

    log = setting.job().log
    assert len(log) == 20
    assert [row.result for row in log] == ["copied"] * 20
    assert [row.at for row in log] == sorted(row.at for row in log)
    assert all(row.seconds >= 0 for row in log)


def test_every_crawl_and_verification_is_kept_with_what_stopped_it(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    setting.source.push("team/app", "v1")

    def fail(method: str, *arguments: str) -> None:
        if method == "tags":
            raise setting.source.error("rate_limited")

    setting.source.fail = fail
    with pytest.raises(Exception, match="rate_limited"):
        setting.worker.conductor.conduct_once()
    (stopped,) = setting.queue.runs.find_history("dc2")
    assert (stopped.kind, stopped.state, stopped.finished_at) == ("crawl", "running", None)
    assert "rate_limited" in stopped.message

    setting.source.fail = lambda *_: None
    setting.worker.conductor.conduct_once()
    (ended,) = setting.queue.runs.find_history("dc2")
    assert (ended.state, ended.tags, ended.message) == ("done", 1, "")

    verify_plan_of(setting)
    verify_plan_of(setting, share=0.9999)
    kinds = {run.kind for run in setting.queue.runs.find_history("dc2")}
    assert kinds == {"crawl", "verify", "partial"}
    assert setting.queue.runs.find_history("other") == []


@pytest.mark.parametrize(
    ("error_class", "takes"), [("", True), ("readonly", False), ("forbidden", None), ("down", None)]
)
def test_a_source_that_is_said_to_be_frozen_is_asked_to_take_an_upload(
    make: Callable[..., Setting], error_class: str, takes: bool | None
) -> None:
    setting = make(repos={"exclude": ["other/**"]})
    setting.source.push("other/app", "v1")
    setting.source.push("team/app", "v1")

    def fail(method: str, *arguments: str) -> None:
        if method == "start_upload" and error_class:
            raise setting.source.error(error_class)

    setting.source.fail = fail
    found, why = takes_pushes(setting.source, setting.plan, names)  # type: ignore[arg-type]

    assert found is takes
    assert (error_class or "team/app took") in why
    begun = [call[:2] for call in setting.source.calls if "upload" in call[0]]
    assert begun[0] == ("start_upload", "team/app")
    assert ("cancel_upload", "team/app") in begun or error_class


@pytest.mark.parametrize("options", [{}, {"platforms": ["linux/amd64"]}])
def test_a_source_is_asked_whatever_a_plan_takes_of_it(
    make: Callable[..., Setting], options: dict[str, Any]
) -> None:
    setting = make(options=options)
    setting.source.push("team/app", "v1")
    source = connect_source(setting.plan, setting.source)  # type: ignore[arg-type]

    assert takes_pushes(source, setting.plan, names)[0]


def test_of_a_folder_nobody_can_tell(make: Callable[..., Setting], tmp_path: Path) -> None:
    setting = make()
    setting.plan.source = Endpoint(url=f"oci:{tmp_path}")
    source = connect_source(setting.plan)

    assert takes_pushes(source, setting.plan, names) == (None, "it is a folder")


def test_of_a_source_without_repositories_nobody_can_tell(make: Callable[..., Setting]) -> None:
    setting = make(repos={"exclude": ["team/**"]})
    setting.source.push("team/app", "v1")

    found, why = takes_pushes(setting.source, setting.plan, names)  # type: ignore[arg-type]

    assert (found, why) == (None, "it shows no repository of this plan")


@pytest.mark.parametrize(
    ("existing", "words"),
    [
        ("overwrite", "overwrites tags that were pushed there"),
        ("backup", "TAG-before-DIGEST"),
        ("skip", "stay, also once"),
        ("fail", "become conflicts"),
    ],
)
def test_who_rolls_back_is_told_what_becomes_of_what_was_pushed_to_the_target(
    make: Callable[..., Setting], existing: str, words: str
) -> None:
    setting = make(options={"existing": existing})
    plans = setting.queue.plans
    assert warn_of_rollback(setting.queue, setting.plan) == ""
    assert warn_of_start(setting.queue, setting.plan) == ""

    plans.set_state("dc2", "cut_over", "test", present())
    assert words in warn_of_rollback(setting.queue, setting.plan)
    assert warn_of_start(setting.queue, setting.plan) == ""

    plans.set_state("dc2", "rolled_back", "test", present())
    assert words in warn_of_start(setting.queue, setting.plan)
    assert warn_of_rollback(setting.queue, setting.plan) == ""


def told(moment: datetime | None) -> Any:
    """A database whose clock shows a moment; None: it tells none."""
    commands: list[str] = []

    def command(name: str) -> dict[str, Any]:
        commands.append(name)
        return {"localTime": moment.replace(tzinfo=None)} if moment else {}

    admin = SimpleNamespace(command=command)
    return SimpleNamespace(client=SimpleNamespace(admin=admin), commands=commands)


@pytest.mark.parametrize(
    ("by", "ahead_s"), [(300, 300), (-300, -300), (0.3, 0)], ids=["ahead", "behind", "alike"]
)
def test_time_is_that_of_the_database(by: float, ahead_s: float) -> None:
    clock = Clock()
    database = told(datetime.now(UTC) + timedelta(seconds=by))

    clock.follow(database)
    clock.follow(database)

    assert clock.ahead.total_seconds() == pytest.approx(ahead_s, abs=1)
    assert database.commands == ["hello"]  # once a minute


def test_an_answer_that_was_waited_for_tells_no_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The database was just starting, so nobody knows how long ago it looked at its clock."""
    monkeypatch.setattr("app.store.clock.TOLERATED", timedelta(milliseconds=20))

    def command(_: str) -> dict[str, Any]:
        time.sleep(0.1)
        return {"localTime": datetime.now(UTC).replace(tzinfo=None)}

    database: Any = SimpleNamespace(client=SimpleNamespace(admin=SimpleNamespace(command=command)))
    clock = Clock()
    clock.follow(database)

    assert clock.ahead == timedelta(0)
    assert not caplog.messages


def test_where_the_database_tells_no_time_the_machine_does() -> None:
    clock = Clock()

    clock.follow(told(None))

    assert clock.ahead == timedelta(0)
