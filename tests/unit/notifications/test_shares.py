"""Several projectors: who works in what, who has which share, and what one is told by another."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from builders import INDEX, abandon, deliver, digest, divide, envelope, wire_event

from app.notifications import lease
from app.notifications import projector as projector_module
from app.notifications.crew import agree
from app.notifications.derivation import Derivation
from app.notifications.intake import Intake
from app.notifications.lease import LEASE, WANTED, Held
from app.notifications.projector import Outvoted, Projector, ProjectorThread
from app.rules.events import Event, parse_envelope
from app.rules.shares import WHOLE, Share, share_of
from app.store import Stores
from app.store.inbox import InboxStore, Progress
from app.store.leases import LeaseStore

BEGIN = datetime.now(UTC) - timedelta(minutes=30)
HERE, THERE = "team/app-0", "team/app-4"  # of two shares, 0 and 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has a lease looks each time whether to make way."""
    monkeypatch.setattr(lease, "RENEWED_S", 0.0)


@pytest.fixture
def two(mock_stores: Stores) -> list[Projector]:
    """The projectors of two shares."""
    divide(mock_stores, 2)
    return [Projector(mock_stores, share=Share(number, 2)) for number in range(2)]


def event(action: str, repository: str = HERE, at: float = 0, **fields: Any) -> dict[str, Any]:
    return wire_event(action, repository, at=BEGIN + timedelta(seconds=at), **fields)


def rename(old: str, new: str, at: float) -> dict[str, Any]:
    renaming = {"type": "name", "from": old, "to": new}
    target = {"repository": old, "rename": renaming}
    return event("push", old, at, of=None) | {"action": "rename", "target": target}


def send(stores: Stores, *events: Any) -> None:
    Intake(stores, 2**30).receive(envelope(*events), "default")


def settle(projectors: list[Projector]) -> None:
    while [projector.turn() for projector in projectors] != [False] * len(projectors):
        pass


def letters(stores: Stores) -> list[dict[str, Any]]:
    return list(stores.inbox._collection.find())


def stored(stores: Stores, id: str) -> Event:
    [found] = stores.events.find_by_ids([id])
    return found


# Shares


def test_a_repository_is_always_in_the_same_share_and_in_one_only() -> None:
    names = [f"team/app-{number}" for number in range(300)]
    body = envelope(*(event("push", name) for name in names))
    events = parse_envelope(body, "default", datetime.now(UTC)).events
    for of in (1, 2, 7, 64):
        shares = [Share(number, of) for number in range(of)]
        holders = [[share for share in shares if share.has(event)] for event in events]
        assert {len(having) for having in holders} == {1}
        assert {share for [share] in holders} == set(shares)

    assert [share_of(event, 64) for event in events[:4]] == [56, 46, 20, 2]


# Taking in


def test_one_projector_needs_no_more_than_before(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWED_S", 60.0)
    monkeypatch.setattr(lease, "HELD", timedelta(seconds=90))
    divide(mock_stores, 1)
    calls: Counter[str] = Counter()
    collection = type(mock_stores.inbox._collection)
    for name in ("find", "find_one", "insert_one", "insert_many", "update_one", "update_many"):
        method = getattr(collection, name)

        def count(
            self: Any, *given: Any, name: str = name, method: Any = method, **more: Any
        ) -> Any:
            calls[f"{self.name} {name}"] += name != "find" or "find_one" not in calls_under_way
            calls_under_way.append(name)
            try:
                return method(self, *given, **more)
            finally:
                calls_under_way.pop()

        monkeypatch.setattr(collection, name, count)
    calls_under_way: list[str] = []

    send(mock_stores, event("push", HERE), event("push", THERE))
    [letter] = letters(mock_stores)
    projector = Projector(mock_stores)
    assert projector.turn() is True
    calls.clear()
    assert projector.turn() is False

    assert letter.keys() == {"_id", "registry", "received_at", "body"}
    assert +calls == {"inbox find": 1}
    assert mock_stores.inbox._collection.index_information().keys() <= {"_id_"}


def test_an_envelope_is_divided_and_kept_in_one_write(
    mock_stores: Stores, two: list[Projector], monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    insert_many = type(mock_stores.inbox._collection).insert_many

    def insert(self: Any, documents: Any, **more: Any) -> Any:
        if self.name == "inbox":
            writes.append(len(documents))
        return insert_many(self, documents, **more)

    monkeypatch.setattr(type(mock_stores.inbox._collection), "insert_many", insert)
    events = [event("push", f"team/app-{number}", id=f"{number}") for number in range(9)]

    send(mock_stores, *events, {"id": "broken"})

    assert writes == [2]
    found = letters(mock_stores)
    assert {(row["share"], row["of"]) for row in found} == {(0, 2), (1, 2)}
    kept = [one["id"] for row in found for one in json.loads(bytes(row["body"]))["events"]]
    assert sorted(kept) == [*"012345678", "broken"]
    for row in found:
        for one in parse_envelope(bytes(row["body"]), "default", datetime.now(UTC)).events:
            assert Share(row["share"], 2).has(one)
    settle(two)
    assert len([*mock_stores.events.iterate()]) == 9
    assert mock_stores.rejected.count() == 1


def test_what_holds_a_rename_is_kept_whole(mock_stores: Stores, two: list[Projector]) -> None:
    send(mock_stores, event("push", HERE), event("push", THERE), rename(HERE, THERE, 1))

    assert ["share" in row for row in letters(mock_stores)] == [False]


def test_envelopes_are_divided_as_the_database_says_and_not_by_a_setting(
    mock_stores: Stores,
) -> None:
    intake = Intake(mock_stores, 2**30)
    for number in (2, 3, 1):
        divide(mock_stores, number)
        intake._look_at = 0.0
        intake.receive(envelope(event("push")), "default")

    assert [row.get("of") for row in letters(mock_stores)] == [2, 3, None]


# Working in


def test_each_works_in_its_own_share_and_at_the_same_time(
    mock_stores: Stores, two: list[Projector]
) -> None:
    send(mock_stores, event("push", HERE, id="here"), event("push", THERE, id="there"))

    assert two[0].turn() is True
    assert [one.id for one in mock_stores.events.iterate()] == ["here"]
    assert two[1].turn() is True
    assert len([*mock_stores.events.iterate()]) == 2
    assert Projector(mock_stores, share=Share(1, 2)).turn() is None


@pytest.mark.parametrize("of", [None, 1, 3])
def test_what_is_no_ones_share_waits_until_all_others_have_made_way(
    mock_stores: Stores, two: list[Projector], of: int | None
) -> None:
    settle(two)
    send(mock_stores, event("push", THERE, id="own"))
    mock_stores.inbox.add("default", envelope(event("push", THERE)), datetime.now(UTC))
    if of:
        mock_stores.inbox._collection.update_one({"of": None}, {"$set": {"share": 1, "of": of}})

    assert two[0].turn() is True  # it found the envelope, and asks
    assert two[0].turn() is None
    assert mock_stores.inbox.count() == 2
    assert two[1].turn() is None  # it makes way
    assert two[0].turn() is True
    assert mock_stores.inbox.count() == 1
    assert two[1].turn() is None
    settle(two)
    assert mock_stores.inbox.count() == 0
    assert mock_stores.leases.find_held(datetime.now(UTC)) == {LEASE, f"{LEASE} 1"}


def test_who_has_all_others_make_way_does_not_pause_until_it_goes_back(
    mock_stores: Stores, two: list[Projector]
) -> None:
    settle(two)
    mock_stores.inbox.add("default", envelope(event("push", THERE)), datetime.now(UTC))

    assert two[0].turn() is True
    assert two[0].is_behind

    settle(two)
    assert not two[0].is_behind


def test_who_goes_alone_and_back_trusts_nothing_that_it_read_before(
    mock_stores: Stores, two: list[Projector], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nobody has to make way, and each lease is in its first term."""
    two[0].drain()
    forgot: list[Share] = []
    forget = Derivation.forget

    def note(self: Derivation) -> None:
        forgot.append(self.share)
        forget(self)

    monkeypatch.setattr(Derivation, "forget", note)
    mock_stores.inbox.add("default", envelope(event("push", THERE)), datetime.now(UTC))

    assert [two[0].turn() for _ in range(4)] == [True, True, False, False]
    assert forgot == [WHOLE, Share(0, 2)]


def test_an_event_by_an_old_name_is_no_ones_share(
    mock_stores: Stores, two: list[Projector]
) -> None:
    """Its tag stands under the new name, which is another one's."""
    send(mock_stores, rename(HERE, THERE, 10))
    settle(two)
    worked_in: list[bool] = []
    for projector in two:
        projector._derivation._after = lambda events: worked_in.append(
            mock_stores.leases.is_held(WANTED, datetime.now(UTC))
        )

    send(mock_stores, event("push", HERE, 5, tag="old"))
    settle(two)
    send(mock_stores, event("push", HERE, 15, tag="new"))
    settle(two)

    assert worked_in == [True, False]
    tags = mock_stores.catalogue_writer._tags._collection.find()
    assert {row["tag"]: row["repository"] for row in tags} == {"old": THERE, "new": HERE}


def pull_an_index(stores: Stores) -> None:
    """In one repository the index is pulled; what it holds is told in another one."""
    send(
        stores,
        event("pull", THERE, 1, of="index", media_type=INDEX, id="index"),
        event("pull", THERE, 2, of="amd64", id="child"),
        event("pull", THERE, 3, of="unrelated", id="unrelated"),
    )


def push_an_index(stores: Stores) -> None:
    children = ["amd64", "arm64"]
    send(stores, event("push", HERE, 0, of="index", media_type=INDEX, children=children))


def test_what_one_learns_of_a_manifest_the_others_are_told(
    mock_stores: Stores, two: list[Projector]
) -> None:
    pull_an_index(mock_stores)
    settle(two)
    assert stored(mock_stores, "child").part_of is None

    push_an_index(mock_stores)
    assert two[0].turn() is True
    assert stored(mock_stores, "child").part_of is None  # the other one's repository
    [told] = letters(mock_stores)
    assert (told["share"], told["digests"]) == (1, [digest("index")])
    assert two[1].turn() is True

    assert stored(mock_stores, "child").part_of == "index"


def test_what_is_worked_in_while_something_is_learned_is_looked_at_again(
    mock_database: Any, two: list[Projector], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores, other = Stores(mock_database), two[0]
    pulling = Projector(stores, share=Share(1, 2))
    pull_an_index(stores)
    push_an_index(stores)
    add = stores.events.add

    def learn_meanwhile(events: Any) -> set[str]:
        assert other.turn() is True
        return add(events)

    stores.events.add = learn_meanwhile  # type: ignore[method-assign]
    assert pulling.turn() is True
    stores.events.add = add  # type: ignore[method-assign]
    assert stored(stores, "child").part_of is None

    assert pulling.turn() is True
    assert stored(stores, "child").part_of == "index"
    assert stores.inbox.count() == 0


def test_who_takes_over_folds_anew_what_is_its_own(
    mock_stores: Stores, two: list[Projector]
) -> None:
    now = datetime.now(UTC) - timedelta(seconds=30)
    check = wire_event("check", THERE, tag="v1", at=now, id="check")
    deliver(mock_stores, envelope(check, wire_event("pull", THERE, at=now, id="pull")))
    half_done = msgspec.structs.replace(stored(mock_stores, "check"), part_of=None)
    mock_stores.events.set_derived([half_done])
    for number in range(2):
        abandon(mock_stores, number)

    two[0].turn()
    assert stored(mock_stores, "check") == half_done
    two[1].turn()
    assert stored(mock_stores, "check").part_of == "pull"


def test_a_rename_has_nothing_folded_anew_though_all_make_way_for_it(
    mock_stores: Stores, two: list[Projector], monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(two)
    monkeypatch.delattr(Projector, "_catch_up")
    for number in range(3):
        for name in (HERE, THERE):
            send(mock_stores, event("push", name, tag=f"v{number}", at=number))
        two[1].turn()
        send(mock_stores, rename(HERE, f"{HERE}-{number}", number + 0.5))
        settle(two)

    assert mock_stores.inbox.count() == 0
    assert mock_stores.events.find_newest()


# Progress


def test_progress_is_the_worst_of_all_shares(mock_stores: Stores) -> None:
    divide(mock_stores, 3)
    seconds = [(30, 0.1, 9.0), (50, 0.2, 8.0), (40, 3.0, 7.0)]
    for number, (behind, batch_s, lag_s) in enumerate(seconds):
        until = BEGIN - timedelta(seconds=behind)
        progress = Progress(until=until, batch_s=batch_s, lag_s=lag_s)
        mock_stores.inbox.note_progress(progress, Share(number, 3))

    found = mock_stores.inbox.find_progress()
    assert found is not None
    assert round((BEGIN - found.until).total_seconds()) == 50
    assert (found.batch_s, found.lag_s, found.of) == (3.0, 9.0, 3)

    divide(mock_stores, 2)  # none is said to be further than all were
    again = mock_stores.inbox.find_progress()
    assert again is not None
    assert (again.until, again.of) == (found.until, 2)
    for number in range(2):
        mock_stores.inbox.note_progress(Progress(until=BEGIN), Share(number, 2))
    newest = mock_stores.inbox.find_progress()
    assert newest is not None
    assert round((BEGIN - newest.until).total_seconds()) == 0  # and not that of the third


def test_a_share_that_has_nothing_left_to_do_says_no_lag_of_before(
    mock_stores: Stores, two: list[Projector], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lag_s() -> float:
        progress = mock_stores.inbox.find_progress()
        assert progress
        return progress.lag_s

    monkeypatch.setattr(projector_module, "NOTED_S", 0.0)
    now = datetime.now(UTC)
    intake = Intake(mock_stores, 2**30)
    intake.receive(envelope(event("push", THERE)), "default", now - timedelta(minutes=15))
    intake.receive(envelope(event("push", HERE)), "default", now - timedelta(minutes=1))
    for projector in two:
        projector.turn()
    assert lag_s() >= 900

    two[1].turn()
    assert 60 <= lag_s() < 900
    settle(two)
    assert lag_s() == 0


def test_while_something_waits_for_all_it_is_not_said_that_all_is_worked_in(
    mock_stores: Stores, two: list[Projector]
) -> None:
    settle(two)
    send(mock_stores, rename(HERE, THERE, 10))
    [letter] = letters(mock_stores)
    two[0]._note_at = two[1]._note_at = 0.0

    two[0].turn()
    two[1].turn()

    progress = mock_stores.inbox.find_progress()
    assert progress is not None
    assert progress.until <= letter["received_at"]


def test_the_repository_of_another_share_is_let_alone_where_an_id_comes_twice(
    mock_stores: Stores, two: list[Projector], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(mock_stores, event("pull", THERE, id="twice"))
    settle(two)
    changed: list[Event] = []
    monkeypatch.setattr(mock_stores.events, "set_derived", changed.extend)
    mock_stores.events._collection.update_one({}, {"$set": {"part_of": "what was told meanwhile"}})

    send(mock_stores, event("pull", HERE, id="twice"))
    settle(two)
    send(mock_stores, event("delete", HERE, of=None, tag=None), event("pull", HERE, id="twice"))
    settle(two)

    assert [one.id for one in changed if one.repository == THERE] == []


# How many


def test_the_server_that_started_last_decides_how_many_there_are(
    mock_stores: Stores, two: list[Projector]
) -> None:
    settle(two)
    mock_stores.schema.want_projectors(1)
    held = Held(mock_stores, passing=True)

    assert not agree(mock_stores, 2, held)
    assert not agree(mock_stores, 1, held)  # it asks
    assert [projector.turn() for projector in two] == [None, None]
    assert agree(mock_stores, 1, held)

    for projector in two:
        with pytest.raises(Outvoted):
            projector.turn()
    assert Projector(mock_stores).turn() is False


def test_where_so_many_work_as_are_wanted_no_lease_is_touched(
    mock_stores: Stores, two: list[Projector], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(mock_stores, passing=True)
    for name in ("take", "take_all", "renew_all", "give_back"):
        monkeypatch.delattr(LeaseStore, name)

    assert agree(mock_stores, 2, held)


def test_who_wants_another_number_than_the_server_that_started_last_does_not_ask(
    mock_stores: Stores, two: list[Projector]
) -> None:
    settle(two)

    assert not agree(mock_stores, 3, Held(mock_stores, passing=True))

    assert mock_stores.schema.check_projectors() == 2
    assert [projector.turn() for projector in two] == [False, False]


def test_who_asks_for_another_number_asks_no_more_when_another_server_starts(
    mock_stores: Stores, two: list[Projector]
) -> None:
    settle(two)
    mock_stores.schema.want_projectors(3)
    held = Held(mock_stores, passing=True)
    assert not agree(mock_stores, 3, held)
    assert [projector.turn() for projector in two] == [None, None]

    mock_stores.schema.want_projectors(2)
    assert not agree(mock_stores, 3, held)

    assert [projector.turn() for projector in two] == [False, False]


@pytest.mark.parametrize(
    ("of", "is_embedded", "indexes"), [(1, False, 0), (2, False, 1), (2, True, 0)]
)
def test_the_inbox_has_an_index_by_shares_where_it_is_divided_and_not_embedded(
    mock_database: Any, of: int, is_embedded: bool, indexes: int
) -> None:
    inbox = InboxStore(mock_database["inbox"], mock_database["progress"], is_embedded=is_embedded)

    inbox.ensure_indexes(of)

    made = [name for name in mock_database["inbox"].index_information() if name != "_id_"]
    assert len(made) == indexes


def test_who_loses_the_lease_before_another_number_is_noted_leaves_the_number_as_it_was(
    mock_stores: Stores, two: list[Projector], monkeypatch: pytest.MonkeyPatch
) -> None:
    mock_stores.schema.want_projectors(3)
    held = Held(mock_stores, passing=True)
    divided: list[int] = []

    def hang(of: int, now: datetime) -> None:
        divided.append(of)
        held.give_back()

    monkeypatch.setattr(mock_stores.inbox, "divide", hang)

    assert not agree(mock_stores, 3, held)
    assert divided == [3]
    assert mock_stores.schema.check_projectors() == 2


def test_a_command_works_in_all_that_waits_and_no_server_meanwhile(
    mock_stores: Stores, two: list[Projector]
) -> None:
    settle(two)
    command = Projector(mock_stores, passing=True)
    send(mock_stores, event("push", HERE), event("push", THERE), rename(HERE, THERE, 1))

    assert command.turn() is None
    assert [projector.turn() for projector in two] == [None, None]
    assert command.turn() is True
    assert mock_stores.inbox.count() == 0
    assert [projector.turn() for projector in two] == [None, None]
    command.stop()
    settle(two)


def test_while_a_command_works_envelopes_are_divided_as_before(
    mock_stores: Stores, mock_database: Any, two: list[Projector]
) -> None:
    """Else what comes meanwhile concerns all, and stops all once more when the command is done."""
    settle(two)
    command = Projector(mock_stores, passing=True)
    began = datetime.now(UTC).replace(microsecond=0)

    command.drain()

    progress = mock_stores.inbox.find_progress()
    assert progress
    assert progress.of == 2
    assert progress.until >= began, "of both"
    send(mock_stores, event("push", HERE), event("push", THERE))
    assert [row.get("share") for row in mock_database["inbox"].find()] == [0, 1]
    command.stop()
    settle(two)


def test_a_thread_that_is_not_to_stay_ends_where_another_process_has_the_share(
    mock_stores: Stores, two: list[Projector]
) -> None:
    settle(two)
    other = Projector(mock_stores, share=Share(1, 2))
    thread = ProjectorThread(lambda: other, stays=False)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
