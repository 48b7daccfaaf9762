"""Both registries asked: by a worker all the time, and by who wants to cut over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from unittest.mock import Mock

import msgspec
import pytest
from fake_registry import Answer, FakeRegistry
from night import OLD, Night

from app.migration import conductor as conductor_module
from app.migration import looking
from app.migration.conductor import LOOK_EVERY, Conductor
from app.migration.looking import examine, look
from app.registry import RegistryError
from app.store import Stores
from app.store.migrations import SourceProcess, present


@pytest.fixture
def night(mock_stores: Stores) -> Night:
    return Night(mock_stores)


def examined(night: Night, within_s: float = 60) -> dict[str, str]:
    night.hear(present() + timedelta(seconds=5))
    examine(night.stores, night.sides, "test", within_s=within_s, recheck_s=0)
    night.now = present()
    return night.unmet()


def test_what_was_pushed_unheard_is_found_by_asking(night: Night) -> None:
    for tag in ("v1", "v2"):
        night.source.push("team/app", tag)
        night.target.push("team/app", tag)
    assert set(examined(night)) == {"events"}

    night.source.push("team/app", "v2", "moved")
    night.source.push("team/app", "v3")
    assert night.checks()["verified"].is_met, "nobody told of it"

    unmet = examined(night)
    assert unmet["verified"] == (
        "the last verification found 1 different, 1 missing: team/app:v3, team/app:v2"
    )
    assert unmet["drained"] == "2 jobs are open"  # which copy it anew


def test_what_came_during_the_comparison_is_worked_in_before_the_verdict(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    night.hear(present() - timedelta(seconds=2))
    waited: list[float] = []

    def work_in(seconds: float) -> None:
        waited.append(seconds)
        night.hear(present() + timedelta(seconds=1))

    monkeypatch.setattr(looking, "time", Mock(wraps=time, sleep=work_in))
    examine(night.stores, night.sides, "test", within_s=60, recheck_s=0)

    assert waited == [looking.INBOX_LOOK_S]


def test_nobody_waits_for_a_server_that_works_nothing_in(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = Mock(side_effect=AssertionError("waits"))
    monkeypatch.setattr(looking, "time", Mock(wraps=time, sleep=waiting))
    night.hear(present() - timedelta(seconds=12))

    examine(night.stores, night.sides, "test", within_s=60, recheck_s=0)

    night.now = present()
    assert "is not worked in" in night.unmet()["inbox"]


def test_a_source_that_lists_nothing_any_more_is_not_equal(night: Night) -> None:
    night.target.push("team/app", "v1")

    assert examined(night)["verified"] == (
        "the last verification saw 0 tags, the crawl 2: if the source lists all that it has, "
        "rns migrate crawl looks once more"
    )


def test_a_side_that_fails_in_the_middle_of_a_comparison_is_no_yes(night: Night) -> None:
    night.source.push("team/app", "v1")

    def fail(method: str, *arguments: str) -> None:
        if method == "tags":
            raise night.source.error("down")

    night.source.fail = fail

    assert examined(night)["verified"].endswith("the last one stopped: https://old: down")


def test_a_side_that_does_not_answer_is_not_compared(night: Night) -> None:
    def fail(method: str, *arguments: str) -> None:
        raise night.target.error("down")

    night.target.fail = fail

    assert examined(night) == {
        "reached": "https://new: down",
        "events": "source.debug_url tells nothing",
    }
    assert [call[0] for call in night.source.calls] == ["ping"]


def test_a_side_that_hangs_shows_in_time(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "ANSWER_S", 0.1)
    is_over = threading.Event()
    night.source.fail = lambda method, *arguments: is_over.wait(10)

    (error,) = look(night.queue, night.sides)
    is_over.set()

    assert (error.error_class, error.registry) == ("down", OLD)
    assert night.unmet()["reached"] == "https://old: does not answer within 0 s"


def test_a_comparison_is_bounded(night: Night) -> None:
    night.source.push("team/app", "v1")
    night.target.push("team/app", "v1")

    unmet = examined(night, within_s=-1)

    assert unmet["verified"].endswith("takes longer than -1 s; rns migrate verify has no limit")


def test_nothing_is_compared_of_a_plan_that_cannot_be_cut_over(night: Night) -> None:
    night.queue.plans.set_state("dc2", "backfill", "x", night.now)
    night.source.push("team/app", "v1")

    examined(night)

    assert [call[0] for call in night.source.calls] == ["ping"]


def variables(collections: int, *ends: int, pending: int = 0) -> bytes:
    return msgspec.json.encode(
        {
            "registry": {"notifications": {"endpoints": [{"Metrics": {"Pending": pending}}]}},
            "memstats": {"NumGC": collections, "PauseEnd": [*ends, *([0] * (4 - len(ends)))]},
        }
    )


@pytest.fixture
def debug(mock_stores: Stores) -> Iterator[tuple[Night, Callable[..., None]]]:
    fake = FakeRegistry()
    night = Night(mock_stores, fake.url)

    def say(*arguments: int, **more: int) -> None:
        fake.on("GET", "/debug/vars", Answer(200, variables(*arguments, **more)))
        look(night.queue, night.sides)
        night.now = present()

    yield night, say
    fake.close()


def test_a_source_that_was_restarted_is_crawled_once_more_without_any_event(
    debug: tuple[Night, Callable[..., None]],
) -> None:
    night, say = debug
    say(1, 10)
    say(3, 10, 20, 30)
    assert night.unmet() == {}
    assert night.queue.plans.get("dc2").processes == [SourceProcess(3, 30)]

    say(3, 11, 21, 31)

    assert night.unmet() == {
        "crawled": "another crawl is wanted: the source was restarted, and may have lost events"
    }
    night.queue.plans.clear_recrawl("dc2")
    say(4, 11, 21, 31, 41, pending=2)
    assert night.unmet() == {"events": "2 events wait there"}


def test_a_name_that_leads_to_several_processes_is_no_restart_each_time(
    debug: tuple[Night, Callable[..., None]],
) -> None:
    night, say = debug
    say(1, 10)
    say(1, 11)
    assert night.queue.plans.get("dc2").recrawl
    night.queue.plans.clear_recrawl("dc2")

    for _ in range(2):
        say(1, 10)
        say(2, 11, 22)

    assert night.unmet() == {}


def test_the_first_look_at_a_source_and_one_before_the_crawl_wish_for_nothing(
    debug: tuple[Night, Callable[..., None]],
) -> None:
    night, say = debug
    night.queue.runs._runs.delete_many({})
    say(1, 10)
    say(1, 11)

    assert not night.queue.plans.get("dc2").recrawl


def test_a_source_that_tells_nothing_for_a_while_keeps_its_processes(
    debug: tuple[Night, Callable[..., None]],
) -> None:
    night, say = debug
    say(1, 10)
    night.plan.debug_url = "http://127.0.0.1:1"
    look(night.queue, night.sides)

    assert night.queue.plans.get("dc2").processes == [SourceProcess(1, 10)]
    assert night.checks()["events"].is_met is None


# A worker


@pytest.fixture
def worker(night: Night) -> tuple[Conductor, list[RegistryError]]:
    """The conductor of the night's plan, and the errors by which it stopped the plan."""
    stopped: list[RegistryError] = []
    conductor = Conductor(
        night.stores,
        night.sides,
        "worker",
        status=lambda: night.queue.plans.get("dc2"),
        stop_plan=stopped.append,
        stopping=threading.Event(),
    )
    return conductor, stopped


def pings(night: Night) -> int:
    return sum(call == ("ping",) for call in night.source.calls)


def test_a_worker_asks_both_registries_every_ten_seconds(
    night: Night, worker: tuple[Conductor, list[RegistryError]]
) -> None:
    conductor, _ = worker
    night.look(LOOK_EVERY - timedelta(seconds=5))
    conductor.conduct_once()
    assert pings(night) == 0

    night.look(LOOK_EVERY)
    for _ in range(2):
        conductor.conduct_once()

    assert pings(night) == 1
    found = night.queue.plans.get("dc2").look
    assert found
    assert (found.source, found.target, found.at >= night.now) == ("", "", True)


def test_nobody_knocks_at_a_registry_for_a_plan_that_is_paused(
    night: Night, worker: tuple[Conductor, list[RegistryError]]
) -> None:
    night.look(LOOK_EVERY)
    night.queue.plans.pause("dc2", "bob", present())

    worker[0].conduct_once()

    assert pings(night) == 0


@pytest.mark.parametrize(
    ("error_class", "stops"), [("auth", True), ("realm", True), ("down", False)]
)
def test_a_password_that_is_refused_is_not_tried_every_ten_seconds(
    night: Night,
    worker: tuple[Conductor, list[RegistryError]],
    error_class: str,
    stops: bool,
) -> None:
    conductor, stopped = worker

    def fail(method: str, *arguments: str) -> None:
        raise night.target.error(error_class)

    night.target.fail = fail
    night.look(LOOK_EVERY)

    conductor.conduct_once()

    assert [error.error_class for error in stopped] == ([error_class] if stops else [])
    assert night.unmet()["reached"] == f"https://new: {error_class}"


@pytest.mark.parametrize("state", ["live", "frozen", "cut_over"])
def test_a_worker_compares_when_a_person_wants_it(
    night: Night,
    worker: tuple[Conductor, list[RegistryError]],
    monkeypatch: pytest.MonkeyPatch,
    state: str,
) -> None:
    monkeypatch.setattr(conductor_module, "RECHECK_S", 0)
    night.source.push("team/app", "v1")
    night.queue.plans.set_state("dc2", state, "test", present())  # type: ignore[arg-type]
    worker[0].conduct_once()
    assert not night.queue.plans.get("dc2").verify_wanted
    night.queue.plans.want_verify("dc2", "alice", present())

    for _ in range(2):
        worker[0].conduct_once()

    run = night.queue.runs.get("dc2", "verify")
    assert run
    assert (run.drift == {"missing": 1}) is (state != "cut_over")
    assert night.queue.plans.get("dc2").verify_wanted is (state == "cut_over")
