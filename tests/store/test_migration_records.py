"""What the store keeps of lists, of runs and of jobs; also on a wire server."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from test_migrations import DONE, queue, wish

from app.store.migrations import BACKFILL, LIVE, MigrationStore, Outcome, Wish, present

__all__ = ["queue"]


def run_once(queue: MigrationStore, outcome: Outcome) -> None:
    wish(queue)
    (due,) = queue.jobs.find_due("dc2", LIVE, present())
    job = queue.jobs.claim(due, "host:7:abc", present())
    assert job
    assert queue.jobs.finish(job, outcome, present())


def test_the_last_twenty_runs_of_a_job_are_kept(queue: MigrationStore) -> None:
    for number in range(23):
        run_once(queue, msgspec.structs.replace(DONE, error=str(number)))

    job = queue.jobs.get("dc2", "team/app", "v1")
    assert job
    assert [row.error for row in job.log] == [str(number) for number in range(3, 23)]
    assert {(row.worker, row.result) for row in job.log} == {("host:7", "copied")}


@pytest.mark.parametrize(("state", "attempts"), [("dead", 1), ("conflict", 1), ("done", 0)])
def test_attempts_are_kept_of_what_was_given_up(
    queue: MigrationStore, state: str, attempts: int
) -> None:
    run_once(queue, msgspec.structs.replace(DONE, state=state))  # type: ignore[arg-type]

    job = queue.jobs.get("dc2", "team/app", "v1")
    assert job
    assert (job.state, job.attempts) == (state, attempts)


def test_lists_that_are_ours_are_known_whether_or_not_there_is_a_job(queue: MigrationStore) -> None:
    tag = f"sha256-{'a' * 64}"
    list_wish = Wish("dc2", "team/app", tag, BACKFILL)
    assert queue.jobs.find_lists("dc2", "team/app", tag) == []

    for number in range(25):
        queue.jobs.note_list(list_wish, f"sha256:{number}", "new/app", present())

    assert queue.jobs.find_lists("dc2", "team/app", tag) == [f"sha256:{n}" for n in range(5, 25)]
    job = queue.jobs.get("dc2", "team/app", tag)
    assert job
    assert (job.state, job.put_digest, job.target_repository) == ("done", "sha256:24", "new/app")
    assert list(queue.jobs.find_unwanted_since("dc2", present())) == []

    queue.jobs.wish([list_wish], present())
    queue.jobs.note_list(list_wish, "sha256:25", "new/app", present())
    job = queue.jobs.get("dc2", "team/app", tag)
    assert job
    assert (job.state, job.put_digest) == ("pending", "sha256:25")


def test_runs_are_kept_newest_first(queue: MigrationStore) -> None:
    for number in range(3):
        run = queue.runs.begin("dc2", "crawl", "worker", present())
        assert run
        queue.runs.end(msgspec.structs.replace(run, tags=number), "worker", present())

    history = queue.runs.find_history("dc2")
    assert [run.started_at for run in history] == sorted(
        (run.started_at for run in history), reverse=True
    )
    assert len(queue.runs.find_history("dc2", limit=2)) == 2


def test_the_time_of_the_database_is_followed_where_it_tells_it(queue: MigrationStore) -> None:
    queue.follow_clock()

    assert abs((present() - datetime.now(UTC)).total_seconds()) < 5
