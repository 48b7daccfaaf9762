"""From the inbox to the record: batches, failures, leases, and what waits."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from builders import INDEX, abandon, deliver, envelope, rule, wire_event, work_in

from app.errors import StoreUnavailable
from app.notifications import lease
from app.notifications import projector as module
from app.notifications.derivation import Derivation
from app.notifications.intake import Intake, Receipt
from app.notifications.loading import load_events, load_lines, rebuild
from app.notifications.projector import MAX_FAILURES, Projector
from app.rules.events import Event, parse_envelope
from app.store import Stores
from app.store.catalogue import CatalogueQuery
from app.store.events import EventStore, RecordQuery
from app.store.inbox import Progress

RECENTLY = datetime.now(UTC) - timedelta(minutes=30)


def event(*arguments: Any, at: float = 0, **fields: Any) -> dict[str, Any]:
    """A wire event so many seconds after RECENTLY."""
    return wire_event(*arguments, at=RECENTLY + timedelta(seconds=at), **fields)


def intake(stores: Stores, max_bytes: int = 2**30) -> Intake:
    return Intake(stores, max_bytes)


def send(stores: Stores, *events: Any, registry: str = "default") -> Receipt:
    return intake(stores).receive(envelope(*events), registry)


def records(stores: Stores, **query: Any) -> list[Event]:
    scope = stores.catalogue.find_scope(rule())
    return stores.events.find_page(RecordQuery(**query), scope, limit=1000).items


def tags(stores: Stores) -> list[str]:
    scope = stores.catalogue.find_scope(rule())
    return [tag.tag for tag in stores.catalogue.find_tags(CatalogueQuery(), scope).items]


def test_what_was_received_is_on_record_once_the_projector_had_its_turn(stores: Stores) -> None:
    receipt = send(stores, event("push", tag="v1"))
    before = records(stores)

    work_in(stores)

    assert receipt == Receipt(accepted=1)
    assert before == []
    assert [row.tag for row in records(stores)] == ["v1"]
    assert stores.inbox.find_oldest(10, 10**6) == []


def test_an_envelope_of_blobs_alone_is_not_kept(stores: Stores) -> None:
    blob = event("push", of="layer", media_type="application/octet-stream")

    receipt = send(stores, blob, blob)

    assert receipt == Receipt(ignored=2)
    assert stores.inbox.count() == 0


def test_of_a_mixed_envelope_all_but_blobs_is_kept_as_it_came(stores: Stores) -> None:
    blob = event("push", of="layer", media_type="application/octet-stream")
    push = event("push", tag="v1")

    receipt = send(stores, blob, push, {"id": "broken"})

    assert receipt == Receipt(accepted=1, ignored=1, rejected=1)
    [letter] = stores.inbox.find_oldest(10, 10**6)
    assert letter.body == envelope(push, {"id": "broken"}).replace(b", {", b",{", 0) or letter.body
    kept = parse_envelope(letter.body, "default", datetime.now(UTC))
    assert [one.id for one in kept.events] == [push["id"]]


def test_an_envelope_of_many_hundred_pushes_is_one_write_and_is_worked_in(stores: Stores) -> None:
    pushes = [event("push", tag=f"v{n}", of=f"image {n}", at=n / 100) for n in range(700)]

    receipt = send(stores, *pushes)

    assert receipt == Receipt(accepted=700)
    assert stores.inbox.count() == 1
    work_in(stores)
    assert len(records(stores)) == 700


def test_the_same_event_three_times_is_on_record_once(stores: Stores) -> None:
    push = event("push", tag="v1")
    for _ in range(2):
        send(stores, push)
    work_in(stores)
    send(stores, push)
    work_in(stores)

    assert len(records(stores)) == 1


def test_parts_of_one_pull_that_come_in_different_batches_are_one_pull(stores: Stores) -> None:
    children = {"media_type": INDEX, "children": ["amd64"]}
    parts = [
        event("check", tag="v1", of="index", **children),
        event("pull", of="index", at=0.1, **children),
        event("pull", of="amd64", at=0.2),
    ]
    for order in itertools.permutations(parts):
        for part in order:
            send(stores, part)
            work_in(stores)

        assert [(row.action, row.tag) for row in records(stores)] == [("pull", "v1")]
        stores.events.remove_registry("default")


def test_a_projector_that_has_events_at_hand_says_the_same_as_one_that_reads_them(
    stores: Stores,
) -> None:
    chance = random.Random(5)
    history = list(_history(chance, 120))
    lasting = Projector(stores)
    for part in history:
        send(stores, part)
        if chance.random() < 0.5:
            lasting.drain()
    lasting.drain()
    lasting.stop()
    one = {row.id: row for row in records(stores, parts=True)}

    stores.events.remove_registry("default")
    chance.shuffle(history)
    for part in history:
        send(stores, part)
        if chance.random() < 0.2:
            work_in(stores)
    work_in(stores)

    other = {row.id: row for row in records(stores, parts=True)}
    assert {k: derived(v) for k, v in one.items()} == {k: derived(v) for k, v in other.items()}


def derived(row: Event) -> tuple[Any, ...]:
    return (row.part_of, row.parent, row.tag, row.tag_from, row.kind)


def _history(chance: random.Random, number: int) -> Any:
    at = 0.0
    for _ in range(number):
        at += chance.choice([0.05, 0.5, 3, 20, 70])
        actor = chance.choice(["alice", "bob"])
        build = chance.choice("abc")
        what = chance.random()
        index = {"media_type": INDEX, "children": [f"{build} amd64", f"{build} arm64"]}
        if what < 0.25:
            yield event("push", tag=chance.choice(["v1", "latest"]), of=build, at=at, actor=actor)
        elif what < 0.5:
            yield event("check", tag="latest", of=build, at=at, actor=actor)
            yield event("pull", of=build, at=at + 0.1, actor=actor)
        elif what < 0.65:
            yield event("pull", tag="multi", of=f"{build} index", at=at, actor=actor, **index)
            yield event("pull", of=f"{build} amd64", at=at + 1, actor=actor)
        elif what < 0.75:
            yield event("push", of=f"{build} amd64", at=at, actor=actor)
            yield event("push", tag="multi", of=f"{build} index", at=at + 2, actor=actor, **index)
        elif what < 0.9:
            yield event("pull", of=build, at=at, actor=actor)
        else:
            yield event("delete", of=build, at=at, actor=actor)


def test_an_envelope_that_fails_three_times_is_rejected_whole_and_the_others_go_on(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(stores, event("push", tag="before"))
    send(stores, event("push", tag="poison"), event("push", tag="beside"))
    send(stores, event("push", tag="after"))
    parse = module.parse_envelope

    def fail(body: bytes, *rest: Any) -> Any:
        if b"poison" in body:
            raise RuntimeError("no")
        return parse(body, *rest)

    monkeypatch.setattr(module, "parse_envelope", fail)
    work_in(stores)

    assert sorted(row.tag or "" for row in records(stores)) == ["after", "before"]
    [rejected] = stores.rejected.find_all()
    assert "beside" in rejected.body
    assert "RuntimeError: no" in rejected.reason
    assert stores.inbox.count() == 0


def test_an_outage_uses_up_no_envelope(mock_database: Any) -> None:
    stores = Stores(mock_database)
    stores.ensure_indexes()
    send(stores, event("push", tag="v1"))
    projector = Projector(stores)
    add = stores.events.add
    for _ in range(MAX_FAILURES + 2):
        stores.events.add = _raise  # type: ignore[method-assign]
        stores.check, check = _raise, stores.check  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            projector.turn()
        stores.check = check  # type: ignore[method-assign]

    stores.events.add = add  # type: ignore[method-assign]
    projector.drain()

    assert len(records(stores)) == 1
    assert stores.rejected.count() == 0


def _raise(*_: Any) -> Any:
    raise StoreUnavailable("away")


def test_only_one_projector_works_at_a_time_and_another_takes_over_when_it_is_gone(
    stores: Stores,
) -> None:
    first, second = Projector(stores), Projector(stores)
    assert first.turn() is False

    assert second.turn() is None
    stores.leases._collection.update_one(
        {"_id": lease.LEASE}, {"$set": {"until": datetime.now(UTC) - timedelta(seconds=1)}}
    )
    assert second.turn() is False
    time.sleep(lease.HELD.total_seconds())
    assert first.turn() in (None, False)


def slow_down(stores: Stores, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let the inbox be read so slowly."""
    find_oldest = stores.inbox.find_oldest

    def find_slowly(*arguments: Any) -> Any:
        time.sleep(seconds)
        return find_oldest(*arguments)

    monkeypatch.setattr(stores.inbox, "find_oldest", find_slowly)


def test_a_step_that_takes_longer_than_the_lease_does_not_cost_it(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HELD", timedelta(seconds=0.5))
    monkeypatch.setattr(lease, "RENEWED_S", 0.1)
    slow_down(stores, monkeypatch, 1.0)
    send(stores, event("push", tag="v1"))
    other, turns = Projector(stores), list[bool | None]()
    looking = threading.Timer(0.8, lambda: turns.append(other.turn()))
    looking.start()

    projector = Projector(stores)
    assert projector.turn() is True
    looking.join()
    projector.stop()

    assert turns == [None]
    assert len(records(stores)) == 1


def test_who_hangs_loses_the_lease_and_writes_nothing_more(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HELD", timedelta(seconds=0.3))
    monkeypatch.setattr(lease, "RENEWED_S", 0.1)
    monkeypatch.setattr(lease, "TURN_S", 0.3)
    monkeypatch.setattr(module, "deadline", lambda seconds: contextlib.nullcontext())
    slow_down(stores, monkeypatch, 1.0)
    send(stores, event("push", tag="v1"))

    assert Projector(stores).turn() is None

    assert records(stores) == []
    assert stores.inbox.count() == 1


def test_a_server_makes_way_for_a_command_and_goes_on_after_it(stores: Stores) -> None:
    server, command = Projector(stores), Projector(stores, passing=True)
    assert server.turn() is False
    assert command.turn() is None  # it asks
    time.sleep(lease.RENEWED_S)

    assert server.turn() is None
    assert command.turn() is False
    assert server.turn() is None
    command.stop()
    assert server.turn() is False


def leave_half_done(stores: Stores, ago_s: int = 30) -> None:
    """Let a check that is part of a pull stand on record as one of its own."""
    now = datetime.now(UTC) - timedelta(seconds=ago_s)
    check = wire_event("check", tag="v1", at=now)
    pull = wire_event("pull", at=now + timedelta(seconds=1))
    deliver(stores, envelope(check, pull))
    [stored] = [row for row in records(stores, parts=True) if row.id == check["id"]]
    stores.events.set_derived([msgspec.structs.replace(stored, part_of=None)])
    assert len(records(stores)) == 2


@pytest.mark.parametrize("ago_s", [30, -30], ids=["", "with a clock that is ahead"])
def test_who_takes_over_puts_right_what_an_older_holder_stored_last(
    stores: Stores, ago_s: int
) -> None:
    leave_half_done(stores, ago_s)
    abandon(stores)

    work_in(stores)

    assert [(row.action, row.tag) for row in records(stores)] == [("pull", "v1")]


def test_who_breaks_off_while_it_takes_over_begins_again_though_it_has_the_lease(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_half_done(stores)
    abandon(stores)
    fold_anew, outages = Derivation.fold_anew, [StoreUnavailable("away")]

    def fail_once(self: Derivation, events: Sequence[Event]) -> None:
        if outages:
            raise outages.pop()
        fold_anew(self, events)

    monkeypatch.setattr(Derivation, "fold_anew", fail_once)
    projector = Projector(stores)
    with pytest.raises(StoreUnavailable):
        projector.turn()

    assert projector.turn() is False

    assert [(row.action, row.tag) for row in records(stores)] == [("pull", "v1")]


def test_what_breaks_off_in_the_middle_is_put_right_by_the_next_turn(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    projector = Projector(stores)
    assert projector.turn() is False
    leave_half_done(stores)
    monkeypatch.setattr(EventStore, "add", _raise)
    monkeypatch.setattr(stores, "check", _raise)
    send(stores, event("push", tag="v2"))
    with pytest.raises(StoreUnavailable):
        projector.turn()
    monkeypatch.undo()

    assert projector.turn() is True

    assert [(row.action, row.tag) for row in records(stores)] == [("pull", "v1"), ("push", "v2")]


def test_what_can_never_be_folded_anew_does_not_stop_the_others(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    leave_half_done(stores)
    abandon(stores)
    send(stores, event("push", tag="v2"))

    def fail(self: Derivation, events: Sequence[Event]) -> None:
        raise ValueError("odd")

    monkeypatch.setattr(Derivation, "fold_anew", fail)

    work_in(stores)

    assert "v2" in [row.tag for row in records(stores)]
    assert "could not be folded anew" in caplog.text


def test_a_full_inbox_refuses_and_loses_nothing(
    mock_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = Stores(mock_database)
    stores.inbox.note_progress(Progress(until=RECENTLY))
    monkeypatch.setattr(type(stores.inbox), "size", lambda self: 2**20)
    full = intake(stores, max_bytes=2**20)

    with pytest.raises(StoreUnavailable, match=r"the inbox is full: .*max_inbox_bytes"):
        full.receive(envelope(event("push", tag="v1")), "default")


def test_a_backlog_of_more_than_a_batch_is_worked_in_whole(stores: Stores) -> None:
    events = [event("push", tag="latest", of=f"build {n}", at=n) for n in range(450)]
    for push in events:
        send(stores, push)

    work_in(stores)

    assert len(records(stores)) == len(events)
    assert stores.inbox.count() == 0


def test_taking_over_has_a_deadline_for_each_step_however_much_came_lately(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC) - timedelta(seconds=5)
    for n in range(4):
        deliver(stores, envelope(wire_event("push", tag="v1", at=now + timedelta(seconds=n))))
    monkeypatch.setattr(module, "TURN_S", 0.4)
    monkeypatch.setattr(module, "RECENT", timedelta(seconds=8))
    fold_anew, folded = Derivation.fold_anew, Counter[str]()

    def slowly(self: Derivation, events: Sequence[Event]) -> None:
        time.sleep(0.15 * len(events))
        folded.update(event.id for event in events)
        fold_anew(self, events)

    monkeypatch.setattr(Derivation, "fold_anew", slowly)
    abandon(stores)
    send(stores, event("push", tag="v2"))

    assert Projector(stores).turn()
    assert list(folded.values()) == [1, 1, 1, 1]


def test_after_an_outage_in_the_middle_of_a_backlog_nothing_is_left_out(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(300):
        send(stores, event("push", tag="v1", of=f"build {n}", at=n))
    add, calls = EventStore.add, itertools.count()

    def fail_once(self: EventStore, events: Sequence[Event]) -> set[str]:
        if next(calls) == 0:
            raise StoreUnavailable("away")
        return add(self, events)

    monkeypatch.setattr(lease, "HELD", timedelta(minutes=10))  # also on a slow machine
    monkeypatch.setattr(EventStore, "add", fail_once)
    monkeypatch.setattr(Stores, "check", lambda self: (_ for _ in ()).throw(StoreUnavailable("")))
    projector = Projector(stores)

    with pytest.raises(StoreUnavailable):
        projector.turn()
    monkeypatch.undo()
    projector.turn()

    oldest = min(row.timestamp for row in records(stores))
    assert oldest - RECENTLY < timedelta(seconds=1)


def test_derived_anew_everything_is_what_it_was(stores: Stores) -> None:
    history = list(_history(random.Random(11), 80))
    send(stores, *history)
    work_in(stores)
    before = {row.id: derived(row) for row in records(stores, parts=True)}
    for row in records(stores, parts=True):
        stores.events.set_derived([_spoilt(row)])
    projector = Projector(stores)

    number = sum(map(len, rebuild(stores, projector, None)))
    projector.stop()

    assert number == len(before)
    assert {row.id: derived(row) for row in records(stores, parts=True)} == before


def _spoilt(row: Event) -> Event:
    return msgspec.structs.replace(row, part_of=None, parent=None, kind="artifact")


def test_events_that_are_loaded_another_way_mark_their_days(stores: Stores) -> None:
    then = datetime.now(UTC) - timedelta(days=3)
    push = wire_event("push", tag="v1", at=then)
    events = parse_envelope(envelope(push), "default", datetime.now(UTC)).events
    projector = Projector(stores)

    [loaded] = load_events(stores, projector, events)
    [again] = load_events(stores, projector, events)
    projector.stop()

    assert (loaded.stored, again.duplicate) == (1, 1)
    assert stores.days.find_first_day() == then.date()


def test_an_export_read_into_an_empty_database_gives_the_same_record(
    stores: Stores, mock_database: Any
) -> None:
    send(stores, *_history(random.Random(3), 60))
    work_in(stores)
    lines = [f"{line}\n".encode() for line in stores.transfer.dump()]
    before = {row.id: derived(row) for row in records(stores, parts=True)}
    mock_database.client.drop_database("other")
    other = Stores(mock_database.client["other"])
    other.ensure_indexes()
    projector = Projector(other)

    loaded = list(load_lines(other, projector, lines, "default"))
    again = list(load_lines(other, projector, lines, "default"))
    projector.stop()

    assert sum(one.stored for one in loaded) == len(lines)
    assert sum(one.stored for one in again) == 0
    assert {row.id: derived(row) for row in records(other, parts=True)} == before
    assert tags(other) == tags(stores)


def test_senders_beside_a_projector_lose_nothing(stores: Stores) -> None:
    ended = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        projector = Projector(stores)
        try:
            while not ended.is_set():
                projector.turn()
            projector.drain()
            projector.stop()
        except BaseException as error:
            failures.append(error)

    worker = threading.Thread(target=work)
    worker.start()
    senders = [
        threading.Thread(
            target=lambda name=name: [
                send(stores, event("push", tag=f"{name}-{n}", of=f"{name} {n}", at=n))
                for n in range(40)
            ]
        )
        for name in "abc"
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    ended.set()
    worker.join()

    assert failures == []
    assert Counter(row.action for row in records(stores)) == {"push": 120}
