"""Numbers of the intake, counted by several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from datetime import timedelta

import pytest
from builders import NOW, envelope, wire_event

from app.notifications.meter import ROWS, Meter
from app.rules.events import parse_envelope

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def meter() -> Meter:
    return Meter(["default", "other"])


def test_processes_count_together_and_what_a_killed_one_counted_stays(meter: Meter) -> None:
    def count(number: int, is_killed: bool) -> None:
        meter.use_row(number)
        for _ in range(100):
            meter.count_answer(202, 0.003)
        if is_killed:
            os.kill(os.getpid(), signal.SIGKILL)

    for number, is_killed in ((1, True), (2, False), (1 + ROWS, False)):
        process = FORK.Process(target=count, args=(number, is_killed))
        process.start()
        process.join()

    assert meter.totals()["status", "202"] == 300


def test_threads_of_a_process_lose_nothing(meter: Meter) -> None:
    def count() -> None:
        for _ in range(2_000):
            meter.count_answer(503, 1.0)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert meter.totals()["status", "503"] == 8_000


def test_events_count_by_registry_action_and_result(meter: Meter) -> None:
    blob = wire_event(of="blob", media_type="application/octet-stream")
    body = envelope(wire_event(), wire_event("check"), blob, blob, {"id": "broken"})

    meter.count_envelope("other", parse_envelope(body, "other", NOW), NOW)

    counted = {key: value for key, value in meter.totals().items() if key[0] == "events" and value}
    assert counted == {
        ("events", "other", "push", "accepted"): 1,
        ("events", "other", "check", "accepted"): 1,
        ("events", "other", "blob", "ignored"): 2,
        ("events", "other", "unknown", "rejected"): 1,
    }


def test_a_histogram_is_cumulative_and_has_its_bounds(meter: Meter) -> None:
    for seconds in (0.005, 0.006, 0.9, 7.0):
        meter.count_answer(202, seconds)

    buckets, total = meter.histogram(meter.totals(), "answer")

    found = dict(buckets)
    assert (found["0.005"], found["0.01"], found["0.8"], found["1.0"], found["+Inf"]) == (
        1,
        2,
        2,
        3,
        4,
    )
    assert total == pytest.approx(7.911)


def test_an_event_from_a_clock_that_is_ahead_came_at_once(meter: Meter) -> None:
    parsed = parse_envelope(envelope(wire_event(at=60)), "default", NOW + timedelta(seconds=1))
    meter.count_envelope("default", parsed, NOW)

    buckets, total = meter.histogram(meter.totals(), "delivery")

    assert (dict(buckets)["0.1"], total) == (1, 0)


def test_what_has_no_column_is_not_counted(meter: Meter) -> None:
    meter.count_answer(418, 0.1)
    meter.count_envelope("unknown", parse_envelope(envelope(wire_event()), "unknown", NOW), NOW)

    assert not any(
        value
        for key, value in meter.totals().items()
        if key[0] != "answer" and key[0] != "delivery"
    )
