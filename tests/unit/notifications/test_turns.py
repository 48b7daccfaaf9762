"""When the projector takes its turns, how much it does in one, and what it notes of it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from unittest.mock import Mock

import pytest
from builders import abandon, envelope, wire_event

from app.errors import StoreUnavailable
from app.notifications import intake, lease
from app.notifications import projector as module
from app.notifications.derivation import Derivation
from app.notifications.projector import Projector, ProjectorThread
from app.rules.events import Event, parse_envelope
from app.store import Stores
from app.store.inbox import InboxStore, Progress
from app.store.leases import LeaseStore

PATIENCE_S = 60.0  # for what takes milliseconds on an idle machine


class Scripted:
    """Takes its turns as it is told, then has nothing to do."""

    is_behind = False
    is_alone = False

    def __init__(self, *turns: bool | Exception | None) -> None:
        self._turns = deque(turns)
        self.times: list[float] = []
        self.is_over = threading.Event()

    def turn(self) -> bool | None:
        self.times.append(time.monotonic())
        if not self._turns:
            self.is_over.set()
            return False
        turned = self._turns.popleft()
        if isinstance(turned, Exception):
            raise turned
        return turned

    def wait(self) -> list[float]:
        """How long each turn came after the one before."""
        assert self.is_over.wait(PATIENCE_S)
        return [later - earlier for earlier, later in pairwise(self.times)]


@pytest.fixture
def run() -> Iterator[Callable[[Any], ProjectorThread]]:
    threads: list[ProjectorThread] = []

    def run(projector: Any) -> ProjectorThread:
        threads.append(ProjectorThread(lambda: projector))
        threads[-1].start()
        return threads[-1]

    yield run
    for thread in threads:
        thread.stop()
        module.came.set()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def send(stores: Stores, *events: Any, ago_s: float = 0) -> None:
    now = datetime.now(UTC) - timedelta(seconds=ago_s)
    intake.Intake(stores, 2**30).receive(envelope(*events), "default", now)


def push(number: int = 0) -> dict[str, Any]:
    at = datetime.now(UTC) - timedelta(minutes=30)
    return wire_event("push", tag=f"v{number}", of=f"build {number}", at=at)


# The thread


def test_what_this_process_receives_is_worked_in_without_waiting_for_the_poll(
    mock_stores: Stores, run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_S", 10 * PATIENCE_S)
    worked_in, idle = threading.Event(), threading.Event()
    projector = Projector(mock_stores, lambda events: worked_in.set())
    turn = projector.turn

    def watched() -> bool | None:
        turned = turn()
        if turned is False:
            idle.set()
        return turned

    monkeypatch.setattr(projector, "turn", watched)
    run(projector)
    assert idle.wait(PATIENCE_S)

    send(mock_stores, push())

    assert worked_in.wait(PATIENCE_S)


@pytest.mark.parametrize(
    ("turned", "pause"), [(False, "POLL_S"), (None, "LOOK_S"), (True, "GATHER_S")]
)
def test_between_two_turns_the_thread_pauses(
    run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch, turned: bool | None, pause: str
) -> None:
    for name in ("POLL_S", "LOOK_S", "GATHER_S"):
        monkeypatch.setattr(module, name, 0.15 if name == pause else 0.0)
    projector = Scripted(turned, turned)
    module.came.set()  # something came before the first turn, and nothing since
    run(projector)

    assert min(projector.wait()[:2]) > 0.14


@pytest.mark.parametrize("is_alone", [False, True])
def test_a_thread_of_a_share_ends_without_its_lease_unless_it_waits_to_be_alone(
    monkeypatch: pytest.MonkeyPatch, is_alone: bool
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    projector = Scripted(None)
    projector.is_alone = is_alone
    thread = ProjectorThread(lambda: projector, stays=False)  # type: ignore[arg-type,return-value]
    thread.start()
    goes_on = projector.is_over.wait(PATIENCE_S if is_alone else 0.5)
    thread.stop()
    module.came.set()
    thread.join(PATIENCE_S)

    assert goes_on is is_alone


def test_a_thread_that_is_behind_does_not_pause(
    run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GATHER_S", 10 * PATIENCE_S)
    projector = Scripted(True, True, True)
    projector.is_behind = True
    run(projector)

    assert len(projector.wait()) >= 3


def test_a_batch_that_took_long_is_followed_by_the_next_at_once(
    run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GATHER_S", 0.2)
    projector = Scripted(True)
    turn = projector.turn
    monkeypatch.setattr(projector, "turn", lambda: (turn(), time.sleep(0.2))[0])
    waits: list[float | None] = []
    thread = ProjectorThread(lambda: projector)  # type: ignore[arg-type,return-value]
    wait = thread._ended.wait
    monkeypatch.setattr(thread._ended, "wait", lambda s=None: (waits.append(s), wait(s))[1])
    thread.start()
    projector.wait()
    thread.stop()
    module.came.set()
    thread.join(PATIENCE_S)

    assert waits == [0.0]


def test_an_outage_is_waited_out_and_told_once_a_minute(
    run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.1)
    projector = Scripted(*(StoreUnavailable("away") for _ in range(3)), True)
    run(projector)

    assert min(projector.wait()[:3]) > 0.09
    assert [line.message for line in caplog.records] == ["waiting for the database: away"]


def test_an_outage_that_lasts_is_told_again(
    run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    monkeypatch.setattr("app.logs.COMPLAIN_S", 0.0)
    projector = Scripted(StoreUnavailable("away"), StoreUnavailable("away"))
    run(projector)
    projector.wait()

    assert [line.message for line in caplog.records] == ["waiting for the database: away"] * 2


def test_a_thread_goes_on_a_second_after_a_failure(
    run: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    projector = Scripted(RuntimeError("no"), True)
    run(projector)

    assert projector.wait()[0] > 0.9
    [line] = caplog.records
    assert (line.levelno, bool(line.exc_info)) == (logging.ERROR, True)


# How much at once


def _turns(stores: Stores, projector: Projector, number: int) -> list[int]:
    """How many envelopes each of so many turns worked in."""
    waiting = [stores.inbox.count()]
    for _ in range(number):
        projector.turn()
        waiting.append(stores.inbox.count())
    return [before - after for before, after in pairwise(waiting)]


def test_a_batch_holds_so_many_envelopes(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 4)
    for number in range(9):
        send(mock_stores, push(number))

    assert _turns(mock_stores, Projector(mock_stores), 4) == [4, 4, 1, 0]


def test_an_envelope_of_more_events_than_a_batch_holds_is_worked_in_in_parts(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 8)
    sizes: list[int] = []
    work_in = Derivation.work_in

    def counted(self: Derivation, events: Sequence[Event]) -> int:
        sizes.append(len(events))
        return work_in(self, events)

    monkeypatch.setattr(Derivation, "work_in", counted)
    send(mock_stores, *(push(number) for number in range(15)))

    Projector(mock_stores).turn()

    assert sizes == [8, 7]


def test_large_envelopes_are_worked_in_few_at_a_time(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        send(mock_stores, push(number))
    [first, *_] = mock_stores.inbox.find_oldest(1, 1)
    monkeypatch.setattr(module, "BATCH_BYTES", len(first.body) + 1)
    projector = Projector(mock_stores)

    assert _turns(mock_stores, projector, 1) == [2]
    assert projector.is_behind
    assert _turns(mock_stores, projector, 2) == [2, 1]
    assert not projector.is_behind


# What became of envelopes


def test_an_envelope_that_fails_twice_is_worked_in_the_third_time(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(mock_stores, push())
    parse, failures = module.parse_envelope, iter([1] * 4)  # with others, then alone

    def fail(*arguments: Any) -> Any:
        if next(failures, None):
            raise RuntimeError("no")
        return parse(*arguments)

    monkeypatch.setattr(module, "parse_envelope", fail)
    projector = Projector(mock_stores)

    assert _turns(mock_stores, projector, 3) == [0, 0, 1]
    assert mock_stores.rejected.count() == 0


def test_an_envelope_is_given_up_when_it_fails_the_third_time(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(mock_stores, push())
    monkeypatch.setattr(module, "parse_envelope", _fail)

    assert _turns(mock_stores, Projector(mock_stores), 3) == [0, 0, 1]
    assert mock_stores.rejected.count() == 1


def test_an_outage_while_envelopes_are_tried_one_by_one_is_no_failure_of_theirs(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(mock_stores, push())
    monkeypatch.setattr(module, "parse_envelope", _fail)
    checks = iter([None, StoreUnavailable("away")])

    def check(self: Stores) -> None:
        if error := next(checks):
            raise error

    monkeypatch.setattr(Stores, "check", check)

    with pytest.raises(StoreUnavailable):
        Projector(mock_stores).turn()

    [letter] = mock_stores.inbox.find_oldest(2, 2**20)
    assert letter.failures == 0


def _fail(*_: Any) -> Any:
    raise RuntimeError("no")


def test_what_is_no_event_in_an_envelope_is_kept_as_rejected(mock_stores: Stores) -> None:
    send(mock_stores, push(), {"id": "broken"})

    Projector(mock_stores).turn()

    [rejected] = mock_stores.rejected.find_all()
    assert "broken" in rejected.body


# What is noted


def test_how_far_the_projector_is_and_how_long_it_took_is_noted_with_each_batch(
    mock_stores: Stores,
) -> None:
    projector = Projector(mock_stores)
    for seconds in (900, 600):
        send(mock_stores, push(), ago_s=seconds)
    [_, newest] = mock_stores.inbox.find_oldest(2, 2**20)
    began = time.monotonic()

    projector.turn()

    took = time.monotonic() - began
    progress = mock_stores.inbox.find_progress()
    assert progress is not None
    assert progress.until == newest.received_at
    assert 900 <= progress.lag_s <= 900 + PATIENCE_S
    assert 0 < progress.batch_s <= took


def test_that_nothing_waits_is_noted_now_and_then(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted: list[Progress] = []
    note = InboxStore.note_progress

    def count(self: InboxStore, progress: Progress, *more: Any) -> None:
        noted.append(progress)
        note(self, progress)

    monkeypatch.setattr(InboxStore, "note_progress", count)
    monkeypatch.setattr(module, "NOTED_S", PATIENCE_S)
    projector = Projector(mock_stores)
    send(mock_stores, push(), ago_s=900)
    projector.turn()
    projector.turn()
    assert len(noted) == 1

    monkeypatch.setattr(projector, "_note_at", 0.0)
    began = datetime.now(UTC)
    projector.turn()
    projector.turn()

    [batch, idle] = noted
    assert idle.until >= began
    assert (idle.batch_s, idle.lag_s) == (batch.batch_s, 0)


# The lease


def test_the_lease_is_renewed_when_that_is_due_and_not_each_time(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def count(name: str) -> None:
        method = getattr(LeaseStore, name)

        def counted(*arguments: Any) -> Any:
            asked.append(name)
            return method(*arguments)

        monkeypatch.setattr(LeaseStore, name, counted)

    count("take_all")
    count("renew_all")
    monkeypatch.setattr(lease, "HELD", timedelta(seconds=10 * PATIENCE_S))
    monkeypatch.setattr(lease, "RENEWED_S", PATIENCE_S)
    projector = Projector(mock_stores)
    for _ in range(3):
        projector.turn()
    assert asked == ["take_all"]

    monkeypatch.setattr(projector._held, "_renew_at", 0.0)
    projector.turn()
    projector.turn()

    assert asked == ["take_all", "renew_all"]


def test_who_stops_lets_another_one_work_at_once(mock_stores: Stores) -> None:
    first, second = Projector(mock_stores), Projector(mock_stores)
    assert first.turn() is False
    assert second.turn() is None

    first.stop()

    assert second.turn() is False
    assert first.turn() is None


def test_who_has_events_to_load_waits_for_the_lease(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Projector(mock_stores), Projector(mock_stores)
    assert first.turn() is False
    waited: list[float] = []

    def give_way(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            first.stop()

    monkeypatch.setattr(module, "time", Mock(wraps=time, sleep=give_way))
    now = datetime.now(UTC)

    assert second.load(parse_envelope(envelope(push()), "default", now).events) == 1
    assert waited == [module.LOOK_S] * 3


def test_who_works_all_in_waits_for_the_lease_and_then_no_more(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Projector(mock_stores), Projector(mock_stores)
    assert first.turn() is False
    send(mock_stores, push())
    waited: list[float] = []

    def give_way(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            first.stop()
        assert len(waited) < 9

    monkeypatch.setattr(module, "time", Mock(wraps=time, sleep=give_way))

    assert second.drain() == 4
    assert waited == [module.LOOK_S] * 3


def test_who_is_to_do_something_alone_waits_where_the_lease_was_lost_since(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Projector(mock_stores), Projector(mock_stores)
    assert first.turn() is False
    first.stop()
    assert second.turn() is False
    happened: list[str] = []

    def give_way(_: float) -> None:
        happened.append("waited")
        second.stop()

    monkeypatch.setattr(module, "time", Mock(wraps=time, sleep=give_way))
    first.alone(lambda: happened.append("done"))

    assert happened == ["waited", "done"]


@pytest.mark.parametrize("breaks_off", [False, True])
def test_who_takes_over_sees_what_another_one_stored_since(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch, breaks_off: bool
) -> None:
    def fail() -> int:
        raise StoreUnavailable("away")

    first, second = Projector(mock_stores), Projector(mock_stores)
    then = datetime.now(UTC) - timedelta(minutes=30)
    steps = [("pull", None, first), ("check", "v1", second), ("pull", None, first)]
    for number, (action, tag, projector) in enumerate(steps):
        at = then + timedelta(seconds=100 * number - (number == 2) * 99)
        send(mock_stores, wire_event(action, tag=tag, at=at, id=f"{number}"))
        if number == 2 and breaks_off:
            with monkeypatch.context() as broken:
                broken.setattr(mock_stores.schema, "check_projectors", fail)
                with pytest.raises(StoreUnavailable):
                    projector.turn()
        projector.drain()
        projector.stop()

    [check] = mock_stores.events.find_by_ids(["1"])
    assert check.part_of == "2"


@pytest.fixture
def caught_up(monkeypatch: pytest.MonkeyPatch) -> list[Projector]:
    """Who folded anew what came last."""
    found: list[Projector] = []
    catch_up = Projector._catch_up

    def note(self: Projector) -> None:
        catch_up(self)
        found.append(self)

    monkeypatch.setattr(Projector, "_catch_up", note)
    return found


def test_what_was_given_back_in_order_is_not_folded_anew(
    mock_stores: Stores, caught_up: list[Projector]
) -> None:
    for number in range(3):
        send(mock_stores, push(number))
        projector = Projector(mock_stores, passing=number == 1)
        projector.drain()
        projector.load(parse_envelope(envelope(push(9)), "default", datetime.now(UTC)).events)
        projector.stop()

    assert caught_up == []


@pytest.mark.parametrize("by", [KeyboardInterrupt, StoreUnavailable])
@pytest.mark.parametrize("what", ["a batch", "events to load", "something else"])
def test_what_broke_off_in_the_midst_is_folded_anew_by_who_has_the_lease_next(
    mock_stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
    caught_up: list[Projector],
    what: str,
    by: type[BaseException],
) -> None:
    first, second = Projector(mock_stores), Projector(mock_stores)
    events = parse_envelope(envelope(push()), "default", datetime.now(UTC)).events
    send(mock_stores, push())

    def fail(*_: Any) -> None:
        raise by("broken off")

    with monkeypatch.context() as broken:
        broken.setattr(Derivation, "work_in", fail)
        broken.setattr(Stores, "check", fail)
        does = {
            "a batch": first.turn,
            "events to load": lambda: first.load(events),
            "something else": lambda: first.alone(fail),
        }
        with pytest.raises(by):
            does[what]()
    first.stop()

    second.drain()
    assert caught_up == [second]
    second.stop()
    Projector(mock_stores).drain()
    assert caught_up == [second]


def test_who_loses_the_lease_between_two_batches_has_left_nothing(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch, caught_up: list[Projector]
) -> None:
    monkeypatch.setattr(lease, "RENEWED_S", 0.0)
    server, command = Projector(mock_stores), Projector(mock_stores, passing=True)
    assert server.turn() is False
    assert command.turn() is None
    assert server.turn() is None
    assert command.turn() is False
    command.stop()
    assert server.turn() is False

    assert caught_up == []


def test_who_loses_the_lease_in_the_midst_of_a_batch_folds_anew_when_it_has_it_again(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch, caught_up: list[Projector]
) -> None:
    projector = Projector(mock_stores)
    send(mock_stores, push())

    def lose(*_: Any) -> int:
        raise lease.LeaseLost("lost")

    with monkeypatch.context() as lost:
        lost.setattr(Derivation, "work_in", lose)
        assert projector.turn() is None

    assert projector.turn() is True
    assert caught_up == [projector]
    assert projector.turn() is False
    assert caught_up == [projector]


def test_a_batch_that_failed_is_folded_anew_though_one_by_one_all_went_well(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch, caught_up: list[Projector]
) -> None:
    projector = Projector(mock_stores)
    send(mock_stores, push())
    work_in, fails = Derivation.work_in, [False, True]

    def fail_once(self: Derivation, events: Any) -> int:
        if fails.pop():
            raise RuntimeError("once")
        return work_in(self, events)

    monkeypatch.setattr(Derivation, "work_in", fail_once)
    assert projector.turn() is True
    assert (mock_stores.inbox.count(), caught_up) == (0, [])

    assert projector.turn() is False
    assert caught_up == [projector]


def test_a_quiet_time_is_folded_anew_in_few_steps_and_none_of_it_is_left_out(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[datetime, datetime | None]] = []

    def find(since: datetime, until: datetime | None) -> list[Event]:
        steps.append((since, until))
        return []

    abandon(mock_stores)
    monkeypatch.setattr(mock_stores.events, "find_all_between", find)
    began = datetime.now(UTC)
    assert Projector(mock_stores).turn() is False

    assert abs(steps[0][0] - (began - module.RECENT)) < timedelta(seconds=PATIENCE_S)
    assert [until for _, until in steps[:-1]] == [since for since, _ in steps[1:]]
    assert steps[-1][1] is None
    assert len(steps) == 7


def test_of_a_busy_time_little_is_folded_anew_at_once(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3,000 events in the first minute, as many a second as a step may take; then nothing."""
    now = datetime.now(UTC)
    busy = parse_envelope(envelope(push()), "default", now).events
    lengths: list[float] = []

    def find(since: datetime, until: datetime | None) -> list[Event]:
        lengths.append(((until or now) - since).total_seconds())
        is_busy = since < now - module.RECENT / 2
        return busy * int(50 * lengths[-1]) if is_busy else []

    abandon(mock_stores)
    monkeypatch.setattr(mock_stores.events, "find_all_between", find)
    monkeypatch.setattr(Derivation, "fold_anew", lambda self, events: None)
    assert Projector(mock_stores).turn() is False

    assert lengths[:8] == [1, 2, 4, 8, 16, 8, 16, 8]


def test_who_loses_the_lease_while_it_loads_folds_anew_before_it_loads_again(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch, caught_up: list[Projector]
) -> None:
    projector = Projector(mock_stores, passing=True)
    work_in, losses = Derivation.work_in, [lease.LeaseLost("lost")]

    def lose_once(self: Derivation, *arguments: Any) -> int:
        if losses:
            raise losses.pop()
        return work_in(self, *arguments)

    monkeypatch.setattr(Derivation, "work_in", lose_once)
    monkeypatch.setattr(module, "time", Mock(wraps=time, sleep=lambda _: None))

    events = parse_envelope(envelope(push()), "default", datetime.now(UTC)).events
    assert projector.load(events) == 1
    assert caught_up == [projector]
