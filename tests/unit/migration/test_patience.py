"""Registries that ask for a pause, hang or refuse a password: what becomes of plan and jobs."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import timedelta

import pytest
from test_migration_jobs import NEW, Setting, breaker

from app.cli.migrate.shared import why_stopped
from app.cli.migrate.work import _go_on
from app.errors import AppError
from app.migration import worker as worker_module
from app.migration.failures import probe_delay_s
from app.registry import Endpoint, RegistryClient, RegistryError
from app.store.migrations import Breaker, present


def test_a_429_uses_up_no_attempts_however_often_it_comes(make: Callable[..., Setting]) -> None:
    setting = make(options={"max_attempts": 1})
    setting.source.push("team/app", "v1")

    def fail(method: str, *arguments: str) -> None:
        if method == "put_manifest":
            raise setting.target.error("rate_limited", status=429, retry_after=30)

    setting.target.fail = fail
    setting.wish("v1")
    for _ in range(12):
        setting.hurry()
        setting.drain()

    assert setting.outcome() == ("pending", "", "rate_limited")
    assert setting.job().attempts == 0
    assert timedelta(seconds=25) < setting.job().due - present() < timedelta(seconds=40)
    assert setting.queue.plans.get("dc2").breaker is None

    setting.target.fail = lambda *_: None
    setting.hurry()
    setting.drain()
    assert setting.target.state() == setting.source.state()


@pytest.mark.parametrize("side", ["source", "target"])
def test_no_job_begins_while_a_registry_wants_to_be_left_alone(
    make: Callable[..., Setting],
    side: str,
) -> None:
    setting = make()
    setting.source.push("team/app", "v1")
    setting.wish("v1")
    getattr(setting, side).pause_s = 20.0

    assert not setting.worker.dispatch_one()
    assert setting.job().state == "pending"

    getattr(setting, side).pause_s = 0.0
    assert setting.worker.dispatch_one()


def test_a_registry_that_hangs_stops_the_plan_long_before_its_requests_time_out(
    make: Callable[..., Setting],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "SILENT_S", 0.1)
    monkeypatch.setattr("app.registry.client.PING_S", 0.1)
    setting = make()
    setting.queue.plans.set_state("dc2", "live", "test", present())
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        with closing(RegistryClient(Endpoint(url=url, plain_http=True))) as target:
            worker = setting.worker
            worker._sides = type(worker._sides)(setting.plan, setting.source, target)  # type: ignore[arg-type]

            def ask() -> None:
                with suppress(RegistryError):
                    target.tags("team/app")

            threading.Thread(target=ask, daemon=True).start()
            deadline = time.monotonic() + 10
            while not setting.queue.plans.get("dc2").breaker and time.monotonic() < deadline:
                worker.look_for_silence()
                time.sleep(0.01)

    opened = setting.queue.plans.get("dc2").breaker
    assert opened
    assert (opened.registry, opened.error_class) == (url, "down")


def test_a_registry_that_is_slow_at_one_request_stops_nothing(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    setting.queue.plans.set_state("dc2", "live", "test", present())
    setting.target.silence_s = 20.0

    setting.worker.look_for_silence()

    assert ("ping",) in setting.target.calls
    assert setting.queue.plans.get("dc2").breaker is None


@pytest.mark.parametrize("error_class", ["auth", "realm", "tls"])
def test_what_every_request_would_meet_stops_the_plan_at_once(
    make: Callable[..., Setting],
    error_class: str,
) -> None:
    setting = make()
    setting.source.push("team/app", "v1")

    def fail(method: str, *arguments: str) -> None:
        raise setting.target.error(error_class)

    setting.target.fail = fail
    setting.wish("v1")
    setting.worker.run_one()

    opened = setting.queue.plans.get("dc2").breaker
    assert opened
    assert opened.error_class == error_class
    assert setting.job().attempts == 0


def test_a_refused_password_is_tried_again_after_ever_longer_waits() -> None:
    assert [probe_delay_s(number, "auth") for number in range(3)] == [300, 600, 1200]
    assert probe_delay_s(100, "auth") == 6 * 3600
    assert probe_delay_s(100) == 8


def test_a_refused_password_is_not_probed_before_its_time_and_then_once(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    setting.source.push("team/app", "v1")

    def fail(method: str, *arguments: str) -> None:
        raise setting.target.error("auth")

    setting.target.fail = fail
    setting.wish("v1")
    setting.worker.run_one()
    asked = len(setting.target.calls)
    for _ in range(3):
        setting.worker.status(fresh=True)
        assert not setting.worker.dispatch_one()
    assert len(setting.target.calls) == asked

    for number in (1, 2):
        setting.probe_now()
        for _ in range(3):
            assert not setting.worker.dispatch_one()
        assert len(setting.target.calls) == asked + number
        opened = setting.queue.plans.get("dc2").breaker
        assert opened
        left_s = (opened.probe_at - present()).total_seconds()
        assert 300 * 2**number - 10 < left_s <= 300 * 2**number

    assert "rns migrate resume" in why_stopped(setting.queue.plans.get("dc2"))


def test_a_run_from_cron_does_not_try_a_refused_password_before_its_time(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    now = present()
    later = Breaker(
        registry=NEW, error_class="auth", message="", since=now, probe_at=now + timedelta(hours=1)
    )
    setting.queue.plans.open_breaker("dc2", later)

    with pytest.raises(AppError, match="auth"):
        _go_on(setting.queue, setting.worker)
    assert setting.target.calls == []

    setting.probe_now()
    _go_on(setting.queue, setting.worker)
    assert setting.queue.plans.get("dc2").breaker is None

    setting.queue.plans.open_breaker("dc2", breaker())
    _go_on(setting.queue, setting.worker)
    assert setting.queue.plans.get("dc2").breaker is None
