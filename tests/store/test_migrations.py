"""The queue of migration jobs: nothing is lost, nothing runs twice at a time."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from builders import NOW, digest
from pymongo.database import Database
from pymongo.errors import AutoReconnect

from app.errors import StoreUnavailable
from app.store import Stores
from app.store.migrations import (
    BACKFILL,
    JOB_STATES,
    LEASE,
    LIVE,
    Breaker,
    Drift,
    DriftKind,
    Job,
    MigrationStore,
    Outcome,
    Wish,
    WorkerBeat,
)
from app.store.paging import Count

DONE = Outcome(state="done", result="copied", source_digest=digest("a"), put_digest=digest("a"))


@pytest.fixture
def queue(stores: Stores) -> MigrationStore:
    return stores.migrations


def wish(
    queue: MigrationStore, reference: str = "v1", priority: int = LIVE, after: float = 0
) -> None:
    queue.jobs.wish([Wish("dc2", "team/app", reference, priority)], at(after))


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def present(after: float = 0) -> datetime:
    """For rows that the database throws away when they are old."""
    return datetime.now(UTC) + timedelta(seconds=after)


def claim(queue: MigrationStore, priority: int = LIVE, after: float = 0) -> Job | None:
    due = queue.jobs.find_due("dc2", priority, at(after))
    return queue.jobs.claim(due[0], "worker", at(after)) if due else None


def claimed(queue: MigrationStore, priority: int = LIVE, after: float = 0) -> Job:
    job = claim(queue, priority, after)
    assert job
    return job


def job_of(queue: MigrationStore, reference: str = "v1") -> Job:
    job = queue.jobs.get("dc2", "team/app", reference)
    assert job
    return job


def test_ten_pushes_of_a_tag_are_one_job(queue: MigrationStore) -> None:
    for number in range(10):
        wish(queue, after=number)

    job = claimed(queue, after=10)

    assert (job.reference, job.generation, job.wanted_at) == ("v1", 10, NOW)
    assert claim(queue, after=10) is None


def test_a_push_during_a_copy_makes_it_run_once_more(queue: MigrationStore) -> None:
    wish(queue)
    first = claimed(queue, after=1)
    wish(queue, after=2)
    wish(queue, after=3)

    assert queue.jobs.finish(first, DONE, at(4))

    again = claimed(queue, after=4)
    assert again.wanted_at == at(1)
    assert queue.jobs.finish(again, DONE, at(5))
    assert (job_of(queue).state, job_of(queue).put_digest) == ("done", digest("a"))
    assert claim(queue, after=100) is None


@pytest.mark.parametrize("is_running", [False, True], ids=["before", "during"])
def test_a_push_counts_from_when_it_came_although_its_job_is_open(
    queue: MigrationStore, is_running: bool
) -> None:
    wish(queue)
    running = claimed(queue, after=1) if is_running else None

    wish(queue, after=5)
    if running:
        queue.jobs.finish(running, DONE, at(6))
    queue.jobs.finish(claimed(queue, after=7), DONE, at(8))

    assert queue.jobs.is_wanted_since("dc2", at(4))
    assert not queue.jobs.is_wanted_since("dc2", at(5))
    assert not list(queue.jobs.find_unwanted_since("dc2", at(5)))
    assert list(queue.jobs.find_unwanted_since("dc2", at(6)))


@pytest.mark.parametrize("state", ["done", "skipped", "conflict", "dead"])
def test_a_push_begins_a_settled_job_anew(queue: MigrationStore, state: Any) -> None:
    wish(queue)
    queue.jobs.finish(claimed(queue), Outcome(state=state), NOW)

    wish(queue, after=5)

    assert (job_of(queue).state, job_of(queue).wanted_at) == ("pending", at(5))
    assert claimed(queue, after=5).attempts == 1


def test_a_push_goes_before_the_backfill_of_the_same_tag(queue: MigrationStore) -> None:
    wish(queue, priority=BACKFILL)
    wish(queue, priority=LIVE)
    wish(queue, priority=BACKFILL)

    assert claim(queue, BACKFILL) is None
    assert claimed(queue, LIVE).generation == 3


def test_a_crawl_after_a_push_is_backfill_again(queue: MigrationStore) -> None:
    wish(queue)
    queue.jobs.finish(claimed(queue), DONE, NOW)

    wish(queue, priority=BACKFILL)

    assert claim(queue, LIVE) is None
    assert claimed(queue, BACKFILL).reference == "v1"


def test_jobs_are_claimed_in_the_order_in_which_they_are_due(queue: MigrationStore) -> None:
    for number, reference in enumerate("cab"):
        wish(queue, reference, after=number)

    assert [claimed(queue, after=9).reference for _ in range(3)] == ["c", "a", "b"]


def test_a_push_ends_the_pause_after_a_failure_and_a_crawl_does_not(queue: MigrationStore) -> None:
    wish(queue)
    queue.jobs.postpone(claimed(queue), at(600), "down", "no answer", counts=True)

    wish(queue, priority=BACKFILL, after=1)
    assert claim(queue, after=1) is None
    wish(queue, after=2)

    assert claimed(queue, after=2).attempts == 2


def wish_again(queue: MigrationStore, after: float) -> None:
    """A push of a plan that waits two seconds."""
    queue.jobs.wish([Wish("dc2", "team/app", "v1", LIVE, 2)], at(after))


def test_many_pushes_of_a_tag_are_few_copies_and_the_first_does_not_wait(
    queue: MigrationStore,
) -> None:
    copied: list[float] = []
    for tenth in range(100):  # ten seconds, and a push in every tenth of one
        wish_again(queue, tenth / 10)
        job = claim(queue, after=tenth / 10)
        if job:
            copied.append(tenth / 10)
            queue.jobs.finish(job, DONE, at(tenth / 10), timedelta(seconds=2))

    assert copied[0] == 0
    assert len(copied) == 5
    wish_again(queue, 100)
    assert claimed(queue, after=100)


def test_a_push_during_a_copy_waits_and_no_further_push_hurries_it(queue: MigrationStore) -> None:
    wish_again(queue, 0)
    job = claimed(queue, after=0)
    wish_again(queue, 1)
    queue.jobs.finish(job, DONE, at(1), timedelta(seconds=2))

    wish_again(queue, 2)

    assert claim(queue, after=2.9) is None
    assert claimed(queue, after=3)


def test_a_push_does_not_shorten_the_pause_between_the_two_looks_of_a_delete(
    queue: MigrationStore,
) -> None:
    wish(queue)
    queue.jobs.postpone(claimed(queue), at(10), "gone", "gone", counts=False)

    wish(queue, after=1)

    assert claim(queue, after=9) is None
    assert claimed(queue, after=10)


def test_a_push_during_an_attempt_that_fails_does_not_wait(queue: MigrationStore) -> None:
    wish(queue)
    job = claimed(queue)
    wish(queue, after=1)

    queue.jobs.postpone(job, at(600), "server", "no", counts=True)

    assert claimed(queue, after=2).attempts == 2


def test_an_attempt_that_does_not_count_is_given_back(queue: MigrationStore) -> None:
    wish(queue)

    for _ in range(3):
        queue.jobs.postpone(claimed(queue), NOW, counts=False)

    assert claimed(queue).attempts == 1


def test_the_job_of_a_silent_worker_is_taken_over_and_the_silent_worker_is_refused(
    queue: MigrationStore,
) -> None:
    wish(queue)
    silent = claimed(queue)
    assert queue.jobs.claim_expired("dc2", "other", at(1)) is None

    after = LEASE.total_seconds() + 1
    taken = queue.jobs.claim_expired("dc2", "other", at(after))

    assert taken
    assert (taken.owner, taken.attempts) == ("other", 2)
    assert not queue.jobs.renew(silent, at(after))
    assert not queue.jobs.finish(silent, DONE, at(after))
    assert not queue.jobs.postpone(silent, at(after), counts=True)
    assert queue.jobs.finish(taken, DONE, at(after))


def test_two_workers_that_saw_the_same_job_do_not_both_get_it(queue: MigrationStore) -> None:
    wish(queue)
    (found,) = queue.jobs.find_due("dc2", LIVE, NOW)

    jobs = [queue.jobs.claim(found, owner, NOW) for owner in ("one", "two")]

    assert [job.owner for job in jobs if job] == ["one"]


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("priority", [LIVE, BACKFILL])
def test_a_job_is_the_same_whether_it_is_wished_for_alone_or_among_others(
    queue: MigrationStore, priority: int, broken: bool
) -> None:
    first, *others = [
        Wish("dc2", "team/app", f"v{number}", priority, 2, broken) for number in range(4)
    ]
    for _ in range(2):
        queue.jobs.wish([first], NOW)
        queue.jobs.wish(others, NOW)
    queue.jobs.wish([first, first, *others, *others], NOW)

    made = [
        {key: value for key, value in row.items() if key not in ("_id", "reference")}
        for row in queue.jobs._jobs.find()
    ]

    assert made == [made[0]] * 4
    assert made[0]["generation"] == 4


@pytest.mark.parametrize("meanwhile", ["pushed", "held by another"])
def test_a_job_that_is_not_as_it_was_found_is_not_claimed(
    queue: MigrationStore, meanwhile: str
) -> None:
    wish(queue)
    (found,) = queue.jobs.find_due("dc2", LIVE, NOW)
    if meanwhile == "pushed":
        wish(queue)
    else:  # it noted what it was about to store, and gave the job back
        other = queue.jobs.claim(found, "other", at(1))
        assert other
        assert queue.jobs.renew(other, at(1), putting=digest("new"))
        assert queue.jobs.postpone(other, at(1), counts=False)

    assert queue.jobs.claim(found, "worker", at(2)) is None

    assert claimed(queue, after=2) == job_of(queue)


def test_a_worker_that_beats_keeps_its_job(queue: MigrationStore) -> None:
    wish(queue)
    job = claimed(queue)

    assert queue.jobs.renew(job, at(15))

    assert queue.jobs.claim_expired("dc2", "other", at(LEASE.total_seconds() + 1)) is None


def test_a_job_that_a_person_left_out_comes_back_with_a_push_only(queue: MigrationStore) -> None:
    wish(queue)
    assert queue.jobs.waive("dc2", "alice", job_of(queue).id, NOW)

    wish(queue, priority=BACKFILL)
    assert job_of(queue).state == "skipped"
    wish(queue)

    assert job_of(queue).state == "pending"


def test_dead_jobs_of_a_class_are_begun_anew(queue: MigrationStore) -> None:
    for reference, error_class in (("a", "down"), ("b", "forbidden")):
        wish(queue, reference)
        queue.jobs.finish(claimed(queue), Outcome(state="dead", error_class=error_class), NOW)
    assert queue.jobs.count_errors("dc2") == {"down": 1, "forbidden": 1}

    assert queue.jobs.retry("dc2", "alice", NOW, error_class="down") == 1

    assert queue.jobs.count_by_state("dc2") == {"pending": 1, "dead": 1}
    assert claimed(queue).reference == "a"


def test_what_a_person_left_out_is_begun_anew_by_its_id_only(queue: MigrationStore) -> None:
    wish(queue)
    queue.jobs.finish(claimed(queue), Outcome(state="dead", error_class="down"), NOW)
    key = job_of(queue).id
    queue.jobs.waive("dc2", "alice", key, NOW)

    assert queue.jobs.retry("dc2", "alice", NOW, error_class="down") == 0
    assert queue.jobs.retry("dc2", "alice", NOW) == 0
    assert queue.jobs.retry("dc2", "alice", NOW, id=key) == 1


def test_who_begins_jobs_anew_or_leaves_one_out_is_on_record(queue: MigrationStore) -> None:
    wish(queue)
    queue.jobs.finish(claimed(queue), Outcome(state="dead", error_class="down"), NOW)
    now = present()

    assert queue.jobs.retry("dc2", "alice", now, error_class="other") == 0
    queue.jobs.retry("dc2", "alice", now, error_class="down")
    assert not queue.jobs.waive("dc2", "bob", "no such job", now)
    queue.jobs.waive("dc2", "bob", job_of(queue).id, now + timedelta(seconds=1))

    assert [(row.who, row.what) for row in queue.plans.find_audit("dc2")] == [
        ("bob", "skip dc2 team/app v1"),
        ("alice", "retry error_class down: 1 jobs"),
    ]


def test_the_bytes_of_a_copy_are_kept_when_a_later_run_has_nothing_to_do(
    queue: MigrationStore,
) -> None:
    wish(queue)
    queue.jobs.finish(claimed(queue), msgspec.structs.replace(DONE, bytes=700), NOW)
    assert queue.jobs.count_finished_since("dc2", at(-1)) == (1, 700)

    wish(queue, after=60)
    present_now = Outcome(state="done", result="present")
    queue.jobs.finish(claimed(queue, after=60), present_now, at(61))

    assert queue.jobs.count_finished_since("dc2", at(60)) == (1, 0)
    assert [(row.result, row.number, row.bytes) for row in queue.jobs.count_alike("dc2")] == [
        ("present", 1, 700)
    ]


def test_jobs_are_counted_by_what_tells_them_apart(queue: MigrationStore) -> None:
    for reference in ("a", "b"):
        wish(queue, reference)
        failed = Outcome(state="dead", error_class="forbidden")
        queue.jobs.finish(claimed(queue), failed, NOW)
    wish(queue, "c", priority=BACKFILL)

    counts = {
        (row.state, row.priority, row.error_class): row.number
        for row in queue.jobs.count_alike("dc2")
    }

    assert counts == {("dead", LIVE, "forbidden"): 2, ("pending", BACKFILL, ""): 1}
    assert queue.jobs.count_found("dc2", cap=1, state="dead") == Count(1, at_least=True)
    assert queue.jobs.count_found("dc2", cap=2, repository="team/app", state="dead") == Count(2)
    assert queue.jobs.count_found("dc2", cap=2, repository="team/other") == Count(0)
    assert queue.jobs.count_alike("dc3") == []


def test_lag_is_the_age_of_the_oldest_open_push(queue: MigrationStore) -> None:
    wish(queue, "old", priority=BACKFILL, after=-60)
    assert queue.jobs.oldest_wish("dc2") is None

    wish(queue, "a", after=1)
    wish(queue, "b", after=2)
    claimed(queue, after=3)

    assert queue.jobs.oldest_wish("dc2") == at(1)


def test_jobs_are_paged_and_filtered(queue: MigrationStore) -> None:
    for reference in "dbac":
        wish(queue, reference)
    queue.jobs.finish(claimed(queue), Outcome(state="dead"), NOW)

    first = queue.jobs.find("dc2", state="pending", limit=2)
    rest = queue.jobs.find("dc2", state="pending", limit=2, cursor=first.next)

    assert [job.reference for job in first.items + rest.items] == ["a", "b", "c"]
    assert rest.next is None


def test_one_worker_opens_the_breaker_and_one_probes(queue: MigrationStore) -> None:
    breaker = Breaker(
        registry="https://new", error_class="down", message="no", since=NOW, probe_at=at(2)
    )
    queue.plans.set_state("dc2", "live", "test", NOW)
    assert queue.plans.get("dc2").is_worked_on

    assert queue.plans.open_breaker("dc2", breaker)
    assert not queue.plans.open_breaker("dc2", breaker)
    assert not queue.plans.get("dc2").is_worked_on

    assert not queue.plans.claim_probe("dc2", at(1), at(9))
    assert queue.plans.claim_probe("dc2", at(2), at(9))
    assert not queue.plans.claim_probe("dc2", at(2), at(9))
    queue.plans.close_breaker("dc2")
    assert queue.plans.get("dc2").is_worked_on


def test_a_paused_plan_keeps_its_state(queue: MigrationStore) -> None:
    queue.plans.set_state("dc2", "backfill", "test", present())
    queue.plans.pause("dc2", "admin", present())
    assert not queue.plans.get("dc2").is_worked_on

    queue.plans.resume("dc2", "admin", present())

    assert (queue.plans.get("dc2").state, queue.plans.get("dc2").is_worked_on) == ("backfill", True)
    assert {row.what for row in queue.plans.find_audit("dc2")} == {
        "state backfill",
        "pause",
        "resume",
    }


def test_a_run_goes_on_where_a_dead_worker_left_it(queue: MigrationStore) -> None:
    run = queue.runs.begin("dc2", "crawl", "one", NOW)
    assert run
    assert queue.runs.begin("dc2", "crawl", "two", NOW) is None
    run = type(run)(
        **{name: getattr(run, name) for name in run.__struct_fields__} | {"cursor": "b"}
    )
    assert queue.runs.save(run, "one", NOW)

    taken = queue.runs.begin("dc2", "crawl", "two", NOW + LEASE * 2)

    assert taken
    assert taken.cursor == "b"
    assert not queue.runs.save(run, "one", NOW + LEASE * 2)


def test_a_verification_that_was_interrupted_is_not_gone_on_with(queue: MigrationStore) -> None:
    assert queue.runs.begin("dc2", "verify", "one", NOW, deep=True)
    assert queue.runs.begin("dc2", "verify", "two", NOW) is None

    later = NOW + LEASE * 2
    run = queue.runs.begin("dc2", "verify", "two", later)

    assert run
    assert (run.deep, run.started_at) == (False, later)
    assert queue.runs.get("dc2", "verify") == run
    assert queue.runs.begin("dc2", "verify", "three", later) is None


def test_a_closed_plan_has_no_jobs_left_and_is_listed(queue: MigrationStore) -> None:
    wish(queue)
    queue.plans.set_state("other", "live", "test", present())

    assert queue.close("dc2", "admin", present())

    assert not queue.close("dc2", "admin", present())
    assert queue.plans.find_closed() == ["dc2"]
    assert (job_of(queue).state, job_of(queue).result) == ("skipped", "waived")


def test_a_plan_is_moved_only_from_where_it_was_expected(queue: MigrationStore) -> None:
    assert not queue.plans.set_state("dc2", "frozen", "admin", present(), before=["live"])
    assert queue.plans.get("dc2").state == "draft"

    queue.plans.set_state("dc2", "live", "admin", present())
    moment = present()
    assert queue.plans.set_state("dc2", "frozen", "bob", moment, before=["live"])

    plan = queue.plans.get("dc2")
    assert (plan.state, plan.by) == ("frozen", "bob")
    assert plan.since is not None


def test_only_what_we_put_at_the_target_can_be_pruned(queue: MigrationStore) -> None:
    for reference in ("ours", "theirs"):
        wish(queue, reference)
        outcome = DONE if reference == "ours" else Outcome(state="done", result="present")
        queue.jobs.finish(claimed(queue), outcome, NOW)

    pruned = [
        queue.jobs.want_pruned("dc2", "team/app", name) for name in ("ours", "theirs", "none")
    ]

    assert pruned == [True, False, False]
    assert job_of(queue, "ours").prune


def test_a_delete_that_a_person_wants_during_a_run_is_looked_at_by_the_next(
    queue: MigrationStore,
) -> None:
    wish(queue)
    queue.jobs.finish(claimed(queue), DONE, NOW)
    wish(queue)
    running = claimed(queue)

    queue.jobs.want_pruned("dc2", "team/app", "v1")
    queue.jobs.finish(running, DONE, NOW)

    assert claimed(queue).prune


@pytest.mark.parametrize("is_running", [False, True], ids=["that is new", "that runs"])
def test_what_is_broken_is_repaired_by_a_job(queue: MigrationStore, is_running: bool) -> None:
    if is_running:
        wish(queue)
        running = claimed(queue)

    queue.jobs.wish([Wish("dc2", "team/app", "v1", broken=True)], NOW)
    if is_running:
        queue.jobs.finish(running, DONE, NOW)

    job = claimed(queue)
    assert job.broken
    queue.jobs.finish(job, Outcome(state="dead", error_class="forbidden"), NOW)
    queue.jobs.retry("dc2", "alice", NOW)
    job = claimed(queue)
    assert job.broken
    queue.jobs.finish(job, DONE, NOW)
    assert not job_of(queue).broken


def test_a_registry_process_that_appears_after_the_crawl_began_makes_another_one_due(
    queue: MigrationStore,
) -> None:
    queue.note_instance("dc2", "one")
    queue.runs.begin("dc2", "crawl", "worker", NOW)
    queue.note_instance("dc2", "one")
    assert not queue.plans.get("dc2").recrawl

    queue.note_instance("dc2", "two")

    assert queue.plans.get("dc2").recrawl
    assert queue.plans.clear_recrawl("dc2")
    assert not queue.plans.clear_recrawl("dc2")


@pytest.mark.parametrize("failing", range(3))
def test_a_registry_process_is_known_together_with_the_crawl_that_it_makes_due(
    queue: MigrationStore, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    queue.runs.begin("dc2", "crawl", "worker", NOW)
    write, writes = queue.plans._plans.update_one, itertools.count()

    def update_one(*arguments: Any, **keys: Any) -> Any:
        if next(writes) == failing:
            raise AutoReconnect
        return write(*arguments, **keys)

    with monkeypatch.context() as patch, contextlib.suppress(StoreUnavailable):
        patch.setattr(queue.plans._plans, "update_one", update_one)
        queue.note_instance("dc2", "one")
    queue.note_instance("dc2", "one")

    assert queue.plans.get("dc2").recrawl


def test_drift_is_replaced_as_a_whole(queue: MigrationStore) -> None:
    rows = [
        Drift(plan="dc2", repository="team/app", reference=tag, kind="missing", at=NOW)
        for tag in ("b", "a")
    ]
    queue.runs.set_drift("dc2", rows)
    assert [row.reference for row in queue.runs.find_drift("dc2").items] == ["a", "b"]

    queue.runs.set_drift("dc2", rows[:1])

    assert queue.runs.find_drift("dc2").items == rows[:1]


def test_drift_is_filtered_and_counted(queue: MigrationStore) -> None:
    kinds: list[tuple[str, DriftKind]] = [("a", "missing"), ("b", "extra"), ("b", "missing")]
    rows = [
        Drift(plan="dc2", repository=f"team/{name}", reference="v1", kind=kind, at=NOW)
        for name, kind in kinds
    ]
    queue.runs.set_drift("dc2", rows)

    page = queue.runs.find_drift("dc2", limit=1, kind="missing")
    rest = queue.runs.find_drift("dc2", cursor=page.next, kind="missing")

    assert [row.repository for row in (*page.items, *rest.items)] == ["team/a", "team/b"]
    assert queue.runs.count_drift("dc2", cap=9, kind="missing", repository="team/b") == Count(1)
    assert queue.runs.count_drift("dc2", cap=2) == Count(2, at_least=True)
    assert queue.runs.count_drift("dc3", cap=2) == Count(0)


def test_three_repositories_are_remembered_of_a_blob(queue: MigrationStore) -> None:
    for repository in "abcd":
        queue.blobs.add("https://new", [digest("layer")], repository, present())

    found = queue.blobs.find_repositories("https://new", [digest("layer"), digest("other")])

    assert found == {digest("layer"): ["b", "c", "d"]}


def test_workers_that_went_silent_are_not_listed(queue: MigrationStore) -> None:
    for name, beat in (("a", present(-100)), ("b", present()), ("c", present())):
        queue.workers.beat(WorkerBeat(name=name, plans=["dc2"], running=1, version="1", beat=beat))
    queue.workers.leave("c")

    assert [worker.name for worker in queue.workers.find(present())] == ["b"]


def drain(queue: MigrationStore, owner: str, running: Counter[str], overlaps: list[str]) -> None:
    while due := queue.jobs.find_due("dc2", LIVE, present(), limit=3):
        for found in due:
            key = found.id
            job = queue.jobs.claim(found, owner, present())
            if job is None:
                continue
            running[key] += 1
            if running[key] > 1:
                overlaps.append(key)
            running[key] -= 1
            assert queue.jobs.finish(job, DONE, present())


@pytest.mark.wire
def test_with_many_senders_and_workers_no_wish_is_lost_and_no_job_runs_twice_at_a_time(
    wire_database: Database[Any],
) -> None:
    queue = Stores(wire_database).migrations
    queue.ensure_indexes()
    tags = [f"v{number}" for number in range(20)]
    running: Counter[str] = Counter()
    overlaps: list[str] = []

    def send(seed: int) -> None:
        order = random.Random(seed)
        for _ in range(10):
            batch = [Wish("dc2", "team/app", order.choice(tags)) for _ in range(5)]
            queue.jobs.wish(batch, present())

    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(send, seed) for seed in range(4)]
        drained = [pool.submit(drain, queue, str(n), running, overlaps) for n in range(4)]
        for future in [*sent, *drained]:
            future.result()
    drain(queue, "last", running, overlaps)

    assert overlaps == []
    assert queue.jobs.count_by_state("dc2") == {"done": len(tags)}


@pytest.mark.wire
def test_of_many_workers_one_takes_over_the_job_of_a_silent_one(
    wire_database: Database[Any],
) -> None:
    queue = Stores(wire_database).migrations
    queue.ensure_indexes()
    tags = [f"v{number}" for number in range(10)]
    for tag in tags:
        wish(queue, tag)
        claimed(queue)

    def take_over(owner: str) -> list[str]:
        jobs = (queue.jobs.claim_expired("dc2", owner, NOW + LEASE * 2) for _ in tags)
        return [job.reference for job in jobs if job]

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take_over, map(str, range(8))))

    assert sorted(reference for references in taken for reference in references) == tags


WORKER = """
import sys, time
from datetime import UTC, datetime
from pymongo import MongoClient
from app.errors import StoreUnavailable
from app.store import Stores
uri, name = sys.argv[1:]
queue = Stores(MongoClient(uri, tz_aware=True)[name]).migrations
now = datetime.now(UTC)
job = queue.jobs.claim(queue.jobs.find_due("dc2", 0, now)[0], "killed", now)
print(job.reference, flush=True)
time.sleep(600)
"""


@pytest.mark.wire
def test_the_job_of_a_killed_process_is_done_by_another(
    wire_uri: str, wire_database: Database[Any]
) -> None:
    queue = Stores(wire_database).migrations
    queue.ensure_indexes()
    wish(queue, after=-(10**8))
    command = [sys.executable, "-c", WORKER, wire_uri, wire_database.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout
        assert worker.stdout.readline().strip() == "v1"
        worker.send_signal(signal.SIGKILL)
    now = present()
    assert queue.jobs.claim_expired("dc2", "other", now) is None

    job = queue.jobs.claim_expired("dc2", "other", now + LEASE)

    assert job
    assert queue.jobs.finish(job, DONE, now + LEASE)
    assert queue.jobs.count_by_state("dc2") == {"done": 1}


@pytest.mark.wire
@pytest.mark.parametrize("seed", range(3))
def test_the_answers_are_the_same_with_and_without_indexes(
    wire_database: Database[Any], seed: int
) -> None:
    order = random.Random(seed)
    with_indexes = Stores(wire_database).migrations
    with_indexes.ensure_indexes()
    without = MigrationStore(wire_database.client[wire_database.name])
    without.jobs._jobs = wire_database["jobs_without_indexes"]
    documents = [
        {
            "_id": f"{plan} team/app v{number}",
            "plan": plan,
            "repository": "team/app",
            "reference": f"v{number}",
            "state": order.choice(JOB_STATES),
            "priority": order.choice([LIVE, BACKFILL]),
            "due": at(order.randrange(10)),
            "wanted_at": at(order.randrange(10)),
            "wished_at": at(order.randrange(10)),
            "lease_until": at(order.randrange(10)),
            "error_class": order.choice(["", "down"]),
            "result": order.choice(["", "deleted", "copied", "waived"]),
            "bytes": order.randrange(100),
            "put_digest": order.choice(["", "sha256:1"]),
            "finished_at": at(order.randrange(10)),
        }
        for plan in ("dc2", "dc3")
        for number in range(100)
    ]
    with_indexes.jobs._jobs.insert_many(documents)
    without.jobs._jobs.insert_many(documents)

    def answers(queue: MigrationStore) -> list[Any]:
        found: list[Any] = [queue.jobs.count_by_state("dc2"), queue.jobs.count_errors("dc2")]
        found += [queue.jobs.oldest_wish("dc2")]
        found += [sorted(queue.jobs.count_alike("dc2"), key=str)]
        found += [queue.jobs.count_found("dc2", cap=cap, state="dead") for cap in (5, 500)]
        found += [queue.jobs.find("dc2", state="dead", error_class="down", limit=5).items]
        found += [queue.jobs.find("dc3", cursor="dc3 team/app v5", limit=9).items]
        for seconds in range(-1, 11):
            found += [queue.jobs.is_wanted_since("dc2", at(seconds))]
            found += [
                sorted(w.reference for w in queue.jobs.find_unwanted_since("dc2", at(seconds)))
            ]
            found += [queue.jobs.count_deleted_since("dc2", at(seconds))]
            found += [queue.jobs.count_finished_since("dc2", at(seconds))]
            for priority in (LIVE, BACKFILL):
                due = queue.jobs.find_due("dc2", priority, at(seconds), limit=200)
                found += [sorted(job.id for job in due), queue.jobs.has_open("dc2", priority)]
        taken = [queue.jobs.claim_expired("dc2", "worker", at(5)) for _ in range(50)]
        return [*found, sorted(job.id for job in taken if job)]

    assert answers(with_indexes) == answers(without)
