"""The verdict: what a plan still needs before it may be cut over, and what asks for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from night import NEW, Night

from app.errors import IllegalState
from app.migration import Plan, states
from app.migration.readiness import LOOK_AGE, VERIFIED_FOR, find_checks, lag_s
from app.rules.shares import Share
from app.settings import Migration
from app.store import Stores
from app.store.checks import Gap
from app.store.migrations import (
    ASKED_FOR,
    Breaker,
    Drift,
    present,
)

ORDER = [
    "runs",
    "worker",
    "reached",
    "crawled",
    "drained",
    "healthy",
    "inbox",
    "verified",
    "events",
    "deletes",
]


@pytest.fixture
def night(mock_stores: Stores) -> Night:
    return Night(mock_stores)


def test_a_plan_is_ready_when_nothing_speaks_against_it(night: Night) -> None:
    checks = find_checks(night.stores, night.plan, night.now)

    assert [check.name for check in checks] == ORDER
    assert [check.is_met for check in checks] == [True] * len(ORDER)
    assert night.checks()["verified"].reason == "2 tags are equal"
    assert night.checks()["worker"].reason == "1 alive"
    assert night.checks()["reached"].reason == "both registries answer"
    assert night.checks()["deletes"].reason == "not braked"
    states.cut_over(night.stores, night.plan, "test", night.now)
    assert night.queue.plans.get("dc2").state == "cut_over"


def breaker() -> Breaker:
    now = present()
    return Breaker(registry=NEW, error_class="down", message="no", since=now, probe_at=now)


NOON = present().replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("happens", "name", "reason"),
    [
        (lambda n: n.queue.plans.pause("dc2", "bob", n.now), "runs", "paused by bob"),
        (lambda n: n.queue.plans.open_breaker("dc2", breaker()), "runs", "no"),
        (
            lambda n: n.queue.plans.set_state("dc2", "backfill", "x", n.now),
            "runs",
            "it is backfill, not live or frozen",
        ),
        (
            lambda n: n.queue.workers.leave("h:1:x"),
            "worker",
            "none is alive to copy what is pushed: rns migrate worker",
        ),
        (
            lambda n: n.beat(n.now, "another"),
            "worker",
            "none is alive to copy what is pushed: rns migrate worker",
        ),
        (lambda n: n.look(source="down", pending=0), "reached", "down"),
        (lambda n: n.look(source="down", target="401", pending=0), "reached", "down; 401"),
        (lambda n: n.look(pending=3), "events", "3 events wait there"),
        (lambda n: n.end_job("pending", n.now - 9 * MINUTE), "drained", "1 jobs are open"),
        (lambda n: n.end_job("running", n.now - 9 * MINUTE), "drained", "1 jobs are open"),
        (
            lambda n: n.end_job("dead", n.now - 9 * MINUTE),
            "healthy",
            "1 jobs are dead or in conflict",
        ),
        (
            lambda n: n.end_job("conflict", n.now - 9 * MINUTE),
            "healthy",
            "1 jobs are dead or in conflict",
        ),
        (
            lambda n: n.hear(n.now - 12 * SECOND),
            "inbox",
            "what came in the last 12 s is not worked in: does rns serve run?",
        ),
        (  # one share of four stands still
            lambda n: (n.hear(n.now, of=4), n.hear(n.now - 12 * SECOND, Share(2, 4))),
            "inbox",
            "what came in the last 12 s is not worked in: does rns serve run?",
        ),
        (
            lambda n: n.hear(n.now + 12 * SECOND),
            "inbox",
            "the clock of rns serve is 12 s ahead of the database's",
        ),
        (
            lambda n: (n.run("verify", 8 * SECOND, SECOND), n.hear(n.now - 8 * SECOND)),
            "inbox",
            "what came during the last verification is not worked in yet",
        ),
        (
            lambda n: n.end_job("done", n.now - 7 * MINUTE),
            "verified",
            "something was pushed since the last verification began",
        ),
        (
            lambda n: n.run("crawl", 9 * MINUTE, 2 * MINUTE),
            "verified",
            "a crawl ended after the last verification began",
        ),
        (
            lambda n: n.queue.plans.set_state("dc2", "frozen", "x", n.now - 7 * MINUTE),
            "verified",
            "the source was frozen after the last verification began",
        ),
        (
            lambda n: n.queue.plans.want_crawl("dc2", "asked for", "x", n.now),
            "crawled",
            "another crawl is wanted: asked for",
        ),
        (lambda n: n.queue.plans.brake_deletes("dc2", "many", n.now), "deletes", "many"),
        (
            lambda n: n.stores.checks.add_gap(
                Gap(registry="default", began=NOON, ended=n.now - 7 * MINUTE, why="why")
            ),
            "verified",
            None,
        ),
    ],
)
def test_one_thing_against_a_cut_over_is_enough(
    night: Night, happens: Callable[[Night], object], name: str, reason: str | None
) -> None:
    happens(night)

    if reason is None:
        ended = night.now - 7 * MINUTE
        reason = (
            f"events of 12:00:00 to {ended:%H:%M:%S} UTC may be missing (why), "
            "and the last verification began before"
        )
    assert night.unmet() == {name: reason}
    with pytest.raises(IllegalState):
        states.cut_over(night.stores, night.plan, "test", night.now, force=True)


@pytest.mark.parametrize(
    "happens",
    [
        lambda n: n.queue.plans.set_state("dc2", "frozen", "x", n.now - 8 * MINUTE),
        lambda n: n.queue.plans.set_state("dc2", "frozen", "x", n.now - 9 * MINUTE),
        lambda n: n.queue.plans.set_state("dc2", "live", "x", n.now - 7 * MINUTE),
        lambda n: n.hear(n.now - 10 * SECOND),
        lambda n: n.end_job("done", n.now - 8 * MINUTE),
        lambda n: n.run("crawl", 9 * MINUTE, 1 * MINUTE),
        lambda n: n.stores.checks.add_gap(
            Gap(registry="default", began=NOON, ended=n.now - 8 * MINUTE, why="x")
        ),
        lambda n: n.stores.checks.add_gap(Gap(registry="other", began=NOON, ended=n.now, why="x")),
    ],
)
def test_what_the_verification_must_have_seen_is_nothing_against_a_cut_over(
    night: Night, happens: Callable[[Night], object]
) -> None:
    happens(night)

    assert night.unmet() == {}


def test_a_plan_that_nobody_crawled_or_looked_at_yet_is_told_so(night: Night) -> None:
    night.queue.runs._runs.delete_one({"_id": "dc2 crawl"})
    assert night.unmet() == {"crawled": "there was no crawl"}
    assert night.queue.runs.begin("dc2", "crawl", "test", night.now)
    assert night.unmet() == {"crawled": "the crawl saw 0 tags so far"}
    night.queue.runs._runs.delete_one({"_id": "dc2 crawl"})
    night.run("crawl", 9 * MINUTE)
    night.queue.plans._plans.update_one({"_id": "dc2"}, {"$set": {"look": None}})
    assert night.unmet() == {
        "reached": "nobody asked the registries within 45 s",
        "events": "nobody asked the registries within 45 s",
    }


def test_a_verification_counts_for_a_while_after_its_end(night: Night) -> None:
    def is_met(ago: timedelta) -> bool | None:
        night.run("verify", ago + 5 * MINUTE, took=5 * MINUTE)
        return night.checks()["verified"].is_met

    night.run("crawl", timedelta(hours=1))
    assert is_met(VERIFIED_FOR)
    assert not is_met(VERIFIED_FOR + SECOND)
    assert "ended 10 minutes ago" in night.checks()["verified"].reason


@pytest.mark.parametrize(("ago", "counts"), [(LOOK_AGE, True), (LOOK_AGE + SECOND, False)])
def test_what_the_registries_said_long_ago_does_not_count(
    night: Night, ago: timedelta, counts: bool
) -> None:
    night.look(ago, pending=0)

    told = {
        "reached": "nobody asked the registries within 45 s",
        "events": "nobody asked the registries within 45 s",
    }
    assert night.unmet() == ({} if counts else told)


def test_a_source_that_lists_less_than_before_is_looked_at_by_a_person(night: Night) -> None:
    reason = (
        "the crawl saw 1 tags, the one before it 2: if the source lists all that it has, "
        "rns migrate crawl looks once more"
    )
    for _ in range(2):  # as after a restart without its storage; the second must not hide the first
        night.run("crawl", 9 * MINUTE, tags=1, why="the source was restarted")
        assert night.unmet() == {"crawled": reason}

    night.run("crawl", 9 * MINUTE, tags=1, why=ASKED_FOR)
    assert night.unmet() == {}
    night.run("crawl", 9 * MINUTE, tags=1, why="the source was restarted")
    assert night.unmet() == {}


def test_a_plan_that_takes_no_tag_needs_force(night: Night) -> None:
    night.run("crawl", 9 * MINUTE, tags=0, why=ASKED_FOR)

    assert night.unmet() == {
        "crawled": "the crawl saw no tag that this plan takes: "
        "see its repos and tags, and the source"
    }
    with pytest.raises(IllegalState, match="not ready: crawled"):
        states.cut_over(night.stores, night.plan, "test", night.now)
    states.cut_over(night.stores, night.plan, "test", night.now, force=True)


def test_no_events_can_wait_in_a_folder(night: Night) -> None:
    night.look()
    document = {"name": "dc2", "source": {"oci_dir": "/export"}, "target": {"url": NEW}}
    plan = Plan(msgspec.convert(document, Migration))

    assert all(check.is_met for check in find_checks(night.stores, plan, night.now))


@pytest.mark.parametrize("source_tells", [True, False])
def test_what_nobody_can_tell_needs_force(night: Night, source_tells: bool) -> None:
    if source_tells:
        night.run("crawl", 9 * MINUTE, names_from_events=True)
        night.run("verify", 8 * MINUTE, names_from_events=True)
    else:
        night.look()

    assert {c.name: c.is_met for c in night.checks().values() if not c.is_met} == (
        {"crawled": None, "verified": None} if source_tells else {"events": None}
    )
    with pytest.raises(IllegalState, match="not ready"):
        states.cut_over(night.stores, night.plan, "test", night.now)
    states.cut_over(night.stores, night.plan, "test", night.now, force=True)


def test_differences_that_count_are_named_and_others_are_not(night: Night) -> None:
    def found(*rows: tuple[str, Any]) -> None:
        drift = [
            Drift(plan="dc2", repository="team/app", reference=tag, kind=kind, at=night.now)
            for tag, kind in rows
        ]
        night.queue.runs.set_drift("dc2", drift)
        counts = {kind: sum(kind == other for _, other in rows) for _, kind in rows}
        night.run("verify", 8 * MINUTE, drift=counts)

    found(("a", "extra"), ("b", "left_out"))
    assert night.checks()["verified"].reason == "1 tags are equal, 1 are left out on purpose"
    assert night.unmet() == {}

    found(("a", "extra"), ("v1", "different"), ("v2", "missing"))
    assert night.unmet() == {
        "verified": "the last verification found 1 different, 1 missing: team/app:v2, team/app:v1"
    }

    found(*((f"v{number}", "missing") for number in range(5)), ("", "unknown"))
    assert night.unmet()["verified"].endswith(
        "5 missing, 1 unknown: team/app:v0, team/app:v1, team/app:v2 and 3 more"
    )
    found(("", "unknown"))
    assert night.unmet()["verified"].endswith("1 unknown: team/app")


def test_what_a_deep_verification_found_broken_stands_until_one_looks_as_closely(
    night: Night,
) -> None:
    broken = [
        Drift(plan="dc2", repository="team/app", reference=tag, kind="broken_blob", at=night.now)
        for tag in ("v1", "v2")
    ]
    night.queue.runs.set_drift("dc2", broken)

    def verified(*, drift: dict[str, int], deep: bool = False, hashed: bool = False) -> str:
        night.run("verify", 8 * MINUTE, drift=drift, deep=deep or hashed, hashed=hashed)
        check = night.checks()["verified"]
        assert check.is_met is ("found nothing broken" in check.reason)
        return check.reason

    begun = f"{night.now - 8 * MINUTE:%Y-%m-%d %H:%M} UTC"
    assert verified(drift={"extra": 1}, deep=True) == (
        f"2 tags are equal; a verification of all blobs, begun {begun}, found nothing broken"
    )
    assert verified(drift={}).endswith("found nothing broken")
    assert "found 2 broken blob: team/app:v1, team/app:v2" in verified(
        drift={"broken_blob": 2}, deep=True
    )
    assert verified(drift={}) == (
        f"a verification of all blobs, begun {begun}, found 2 broken: team/app:v1, team/app:v2; "
        "rns migrate verify --deep tells if they still are"
    )
    assert verified(drift={}, deep=True).endswith("found nothing broken")

    verified(drift={"broken_child": 1}, hashed=True)
    for is_deep in (False, True):
        reason = verified(drift={}, deep=is_deep)
        assert "of all bytes" in reason
        assert "found 1 broken" in reason
        assert "verify --bytes tells" in reason
    assert verified(drift={}, hashed=True).endswith("found nothing broken")


def test_a_part_that_is_looked_at_deeply_is_no_deep_verification(night: Night) -> None:
    night.run("partial", 8 * MINUTE, drift={}, deep=True, part="team/*")

    assert night.checks()["verified"].reason == "2 tags are equal"
    assert night.queue.runs.get("dc2", "deep") is None


def test_a_run_that_is_not_over_tells_how_far_it_is_and_what_stopped_it(night: Night) -> None:
    for kind in ("crawl", "verify"):
        begun = night.queue.runs.begin("dc2", kind, "test", night.now)  # type: ignore[arg-type]
        assert begun
        night.queue.runs.save(msgspec.structs.replace(begun, tags=7), "test", night.now)
    assert night.unmet() == {
        "crawled": "the crawl saw 7 tags so far",
        "verified": "no verification of everything is complete",
    }
    for kind in ("crawl", "verify"):
        run = night.queue.runs.get("dc2", kind)  # type: ignore[arg-type]
        assert run
        night.queue.runs.release(run, "test", night.now, "it is down")
    assert night.unmet() == {
        "crawled": "the crawl saw 7 tags so far; it stopped: it is down",
        "verified": "no verification of everything is complete; the last one stopped: it is down",
    }
    night.queue.runs._runs.delete_many({})
    assert night.unmet() == {
        "crawled": "there was no crawl",
        "verified": "no verification of everything is complete",
    }


@pytest.mark.parametrize("number", [2, 3, 5])
def test_repositories_that_cannot_be_listed_are_named(night: Night, number: int) -> None:
    night.run("crawl", 9 * MINUTE, passed_over=[f"r{n}" for n in range(number)])

    named = {2: "r0, r1", 3: "r0, r1, r2", 5: "r0, r1, r2 and 2 more"}[number]
    assert night.unmet() == {"crawled": f"the source does not list the tags of {named}"}


def test_without_a_server_nobody_knows_of_events(night: Night) -> None:
    night.stores.inbox._progress.delete_many({})

    assert night.checks()["inbox"].is_met is None


def test_the_lag_is_the_age_of_the_oldest_push_of_a_plan_that_is_worked_on(night: Night) -> None:
    assert lag_s(night.queue, "dc2", night.now) == 0
    night.end_job("pending", night.now - MINUTE)
    assert lag_s(night.queue, "dc2", night.now) == 60
    assert lag_s(night.queue, "dc2", night.now - timedelta(hours=1)) == 0
    night.queue.plans.set_state("dc2", "rolled_back", "x", night.now)
    assert lag_s(night.queue, "dc2", night.now) == 0
