"""What `rns migrate run` does about images that could not be copied."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import click
import pytest
from test_migration_jobs import Setting, breaker

from app.cli.migrate.attended import RETRIES, SHOWN, Attendant, ask
from app.cli.migrate.shared import until_signal
from app.errors import AppError
from app.store.migrations import present


class Person:
    """Chooses one after the other; `asked` is what was shown."""

    def __init__(self, *choices: str) -> None:
        self._choices = list(choices)
        self.asked: list[tuple[str, list[str]]] = []

    def __call__(self, what: str, choices: list[str]) -> str:
        self.asked.append((what, choices))
        return self._choices.pop(0)


def failing(make: Callable[..., Setting], *tags: str) -> Setting:
    """A plan whose target takes no layers: every tag is dead at once."""
    setting = make(options={"max_attempts": 1})
    for tag in tags:
        setting.source.push("team/app", tag)

    def fail(method: str, *arguments: str) -> None:
        if method == "put_upload":
            raise setting.target.error("server")

    setting.target.fail = fail
    setting.wish(*tags)
    setting.drain()
    return setting


def attendant(setting: Setting, on_error: str, person: Person | None = None) -> Attendant:
    return Attendant(setting.queue, "dc2", on_error, person or Person())


def test_a_person_retries_skips_and_aborts_one_after_the_other(
    make: Callable[..., Setting],
) -> None:
    setting = failing(make, "v1", "v2", "v3")
    person = Person("retry", "skip", "abort")

    with pytest.raises(AppError, match=r"aborted: team/app:v3: server"):
        attendant(setting, "prompt", person).look()

    states = [setting.job(tag).state for tag in ("v1", "v2", "v3")]
    assert states == ["pending", "skipped", "dead"]
    what, choices = person.asked[0]
    assert choices == ["retry", "skip", "abort"]
    assert "team/app:v1: server" in what
    assert "The registry failed" in what  # advice
    assert "command line" in setting.queue.plans.find_audit("dc2")[0].who


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_question_ends_by_a_signal(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait_for_the_person(prompt: str) -> str:
        os.kill(os.getpid(), number)
        return "skip"

    monkeypatch.setattr(click.termui, "visible_prompt_func", wait_for_the_person)

    with until_signal() as ended:
        with pytest.raises(click.Abort):
            ask("v1 failed", ["retry", "skip"])
        assert not ended.is_set()
        os.kill(os.getpid(), number)  # anywhere else it is taken note of
        assert ended.is_set()


def test_a_conflict_is_decided_about_too(make: Callable[..., Setting]) -> None:
    setting = make(options={"existing": "fail"})
    setting.source.push("team/app", "v1", "ours")
    setting.target.push("team/app", "v1", "theirs")
    setting.wish("v1")
    setting.drain()
    person = Person("skip")

    attendant(setting, "prompt", person).look()

    assert "exists" in person.asked[0][0]
    assert setting.job().state == "skipped"


def test_skip_asks_nobody_and_leaves_all_failures_out(make: Callable[..., Setting]) -> None:
    setting = failing(make, "v1", "v2")

    attendant(setting, "skip").look()

    assert {setting.job(tag).result for tag in ("v1", "v2")} == {"waived"}


def test_retry_ends_after_three_of_the_same_job(make: Callable[..., Setting]) -> None:
    setting = failing(make, "v1")
    automatic = attendant(setting, "retry")
    for _ in range(RETRIES):
        automatic.look()
        setting.drain()
        assert setting.job().state == "dead"

    with pytest.raises(AppError, match="after 3 retries"):
        automatic.look()


def test_abort_ends_at_the_first_failure(make: Callable[..., Setting]) -> None:
    setting = failing(make, "v1")

    with pytest.raises(AppError, match="aborted"):
        attendant(setting, "abort").look()
    assert setting.job().state == "dead"


def test_more_failures_than_are_looked_at_at_once_are_all_decided_about(
    make: Callable[..., Setting],
) -> None:
    setting = failing(make, *(f"v{number}" for number in range(SHOWN + 1)))
    attending = attendant(setting, "skip")

    assert [attending.look() for _ in range(3)] == [True, True, False]
    assert setting.queue.jobs.count_by_state("dc2") == {"skipped": SHOWN + 1}


def test_nobody_is_asked_while_nothing_fails(make: Callable[..., Setting]) -> None:
    setting = make()
    setting.source.push("team/app", "v1")
    setting.wish("v1")
    setting.drain()

    attendant(setting, "prompt").look()


@pytest.mark.parametrize("choice", ["retry", "abort"])
def test_a_plan_that_is_stopped_is_decided_about_as_a_whole(
    make: Callable[..., Setting], choice: str
) -> None:
    setting = make()
    setting.queue.plans.set_state("dc2", "live", "test", present())
    setting.queue.plans.open_breaker("dc2", breaker())
    person = Person(choice)

    if choice == "abort":
        with pytest.raises(AppError, match="aborted"):
            attendant(setting, "prompt", person).look()
    else:
        attendant(setting, "prompt", person).look()

    assert (setting.queue.plans.get("dc2").breaker is None) == (choice == "retry")
    assert person.asked[0][1] == ["retry", "abort"]


def test_a_plan_that_is_stopped_is_left_to_the_caller_without_a_person(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    setting.queue.plans.open_breaker("dc2", breaker())

    attendant(setting, "retry").look()

    assert setting.queue.plans.get("dc2").breaker
