"""The projectors of a process: which shares it has, and when it waits for others."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from unittest.mock import Mock

import pytest
from builders import divide, work_in

from app.errors import StoreUnavailable
from app.notifications import crew as crews
from app.notifications.crew import Crew
from app.notifications.lease import LEASE, WANTED, lease_of
from app.notifications.projector import Projector
from app.rules.shares import WHOLE, Share
from app.store import Stores


@pytest.fixture
def crew(mock_stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Iterator[Crew]:
    """That of one process, where five projectors are to be."""
    monkeypatch.setattr(Stores, "close", lambda self: None)
    divide(mock_stores, 5)
    crew = Crew(
        5,
        lambda: mock_stores,
        lambda stores, share: Projector(Stores(stores._database), share=share),
    )
    yield crew
    for member in crew._members.values():
        member.thread.stop()
        member.thread.join()


def numbers(crew: Crew) -> list[int]:
    """The shares of a crew, once those it gave back are."""
    for member in crew._members.values():
        if member.thread._ended.is_set():
            member.thread.join()
    crew._let_go()
    return sorted(crew._members)


def join(stores: Stores, process: str, length: timedelta = crews.PRESENCE) -> None:
    stores.leases.take(f"{crews.PRESENT}{process}", process, datetime.now(UTC), length)


def test_a_process_takes_its_fair_part_and_gives_back_what_is_more(
    crew: Crew, mock_stores: Stores
) -> None:
    crew.look()
    assert numbers(crew) == [0, 1, 2, 3, 4]

    join(mock_stores, "other")
    crew.look()
    assert numbers(crew) == [0, 1, 2]
    now = datetime.now(UTC)
    assert mock_stores.leases.find_held(now).isdisjoint({lease_of(3), lease_of(4)})

    join(mock_stores, "third")
    crew.look()
    assert numbers(crew) == [0, 1]
    crew.look()
    assert numbers(crew) == [0, 1]

    for process in ("other", "third"):  # they died
        join(mock_stores, process, -timedelta(minutes=2))
    crew.look()
    assert numbers(crew) == [0, 1, 2, 3, 4]


def test_a_process_takes_only_what_nobody_has(crew: Crew, mock_stores: Stores) -> None:
    for number in (0, 3):
        mock_stores.leases.take(lease_of(number), "other", datetime.now(UTC))
    crew.look()
    assert numbers(crew) == [1, 2, 4]


def test_a_share_that_another_process_took_first_is_let_go(crew: Crew, mock_stores: Stores) -> None:
    mock_stores.leases.take(lease_of(2), "other", datetime.now(UTC))
    crew._begin(2)
    crew._members[2].thread.join(10)
    assert numbers(crew) == []


def test_a_share_that_was_begun_is_not_begun_again_before_it_has_its_lease(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew._members[2] = Mock()
    begun: list[int] = []
    monkeypatch.setattr(crew, "_begin", begun.append)

    crew.look()

    assert begun == [0, 1, 3, 4]


def test_while_somebody_wants_all_nobody_begins(crew: Crew, mock_stores: Stores) -> None:
    mock_stores.leases.take(WANTED, "a command", datetime.now(UTC))
    crew.look()
    assert numbers(crew) == []


def test_the_leases_of_processes_that_are_gone_are_removed(
    crew: Crew, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    join(mock_stores, "gone", -timedelta(minutes=2))
    crew._swept_at = -1e9
    crew.look()

    names = [row["_id"] for row in mock_stores.leases._collection.find()]
    assert [name for name in names if name.startswith(crews.PRESENT)] == [crew._name]


def look_on(crew: Crew, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let a crew run until it has looked so many times."""
    left = iter(range(times))
    monkeypatch.setattr(crew._ended, "is_set", lambda: next(left, None) is None)
    monkeypatch.setattr(crew._ended, "wait", lambda seconds: None)
    crew.run()


def test_a_crew_begins_with_its_shares_as_soon_as_so_many_are_agreed(
    crew: Crew, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Share] = []
    make = crew._make
    crew._make = lambda stores, share: (made.append(share), make(stores, share))[1]
    divide(mock_stores, 1)
    look_on(crew, monkeypatch, 1)
    assert made == []

    mock_stores.schema.want_projectors(5)
    look_on(crew, monkeypatch, 1)

    assert made == [Share(number, 5) for number in range(5)]


def test_a_crew_waits_an_outage_out_and_tells_it_once_a_minute(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks: list[None] = []

    def fail() -> None:
        looks.append(None)
        raise StoreUnavailable("away")

    monkeypatch.setattr(crew, "look", fail)
    look_on(crew, monkeypatch, 3)
    assert len(looks) == 3
    assert [line.message for line in caplog.records] == ["waiting for the database: away"]

    monkeypatch.setattr("app.logs.COMPLAIN_S", 0.0)
    look_on(crew, monkeypatch, 2)
    assert len(caplog.records) == 3


def test_a_crew_tells_when_it_has_waited_for_others_for_a_minute(
    crew: Crew,
    mock_stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    crew._agreed_at = -1e9
    look_on(crew, monkeypatch, 1)  # its number is wanted
    mock_stores.schema.want_projectors(2)
    look_on(crew, monkeypatch, 1)
    assert caplog.records == []

    crew._agreed_at = -1e9
    look_on(crew, monkeypatch, 1)
    [line] = caplog.records
    assert "others have another notifications.projectors" in line.message


def test_a_crew_has_its_number_wanted_when_the_others_have_been_gone_for_a_minute(
    crew: Crew, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    mock_stores.schema.want_projectors(2)
    look_on(crew, monkeypatch, 150)
    mock_stores.schema.want_projectors(5)
    look_on(crew, monkeypatch, 1)
    mock_stores.schema.want_projectors(2)
    for member in crew._members.values():
        member.thread.stop()
        member.thread.join()
    look_on(crew, monkeypatch, 150)
    assert mock_stores.schema.find_wanted_projectors() == 2

    look_on(crew, monkeypatch, 1)
    assert mock_stores.schema.find_wanted_projectors() == 5


def test_a_crew_whose_number_is_wanted_waits_until_all_others_have_made_way(
    crew: Crew, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    divide(mock_stores, 2)
    mock_stores.schema.want_projectors(5)
    mock_stores.leases.take(lease_of(1), "other", datetime.now(UTC))

    look_on(crew, monkeypatch, 1)
    assert mock_stores.schema.check_projectors() == 2
    assert mock_stores.leases.is_held(WANTED, datetime.now(UTC))

    mock_stores.leases.give_back(lease_of(1), "other")
    look_on(crew, monkeypatch, 1)
    assert mock_stores.schema.check_projectors() == 5


def test_a_crew_of_one_does_not_work_while_more_are_wanted(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    divide(mock_stores, 2)
    made: list[Share] = []
    crew = Crew(1, lambda: mock_stores, lambda stores, share: made.append(share))  # type: ignore[arg-type,return-value]

    look_on(crew, monkeypatch, 2)

    assert made == []


def test_one_projector_works_without_counting_processes(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    divide(mock_stores, 1)
    made: list[Share] = []

    class Ended(Exception):
        pass

    def make(stores: Stores, share: Share) -> Projector:
        made.append(share)
        crew._ended.set()
        raise Ended

    crew = Crew(1, lambda: mock_stores, make)
    crew.run()

    assert made == [WHOLE]
    assert mock_stores.leases.find_held(datetime.now(UTC)) == set()
    work_in(mock_stores)


def test_a_server_that_wanted_another_number_and_is_gone_is_waited_for_a_minute(
    crew: Crew, mock_stores: Stores
) -> None:
    divide(mock_stores, 1)
    now = datetime.now(UTC)

    def wait(looks: int) -> int:
        for _ in range(looks):
            crew.wait_for_others()
        return mock_stores.schema.find_wanted_projectors()

    mock_stores.leases.take(LEASE, "other", now)
    assert wait(200) == 1
    mock_stores.leases.give_back(LEASE, "other")
    assert wait(100) == 1
    mock_stores.leases.take(LEASE, "other", now)  # it was started anew
    assert wait(1) == 1
    mock_stores.leases.give_back(LEASE, "other")
    assert wait(150) == 1
    assert wait(1) == 5

    mock_stores.schema.want_projectors(2)
    mock_stores.leases.take(WANTED, "other", now)  # it waits until all have made way
    assert wait(200) == 2
    mock_stores.leases.give_back(WANTED, "other")
    mock_stores.leases.take(lease_of(1), "of those before", now)
    assert wait(151) == 5


def test_a_crew_counts_for_longer_as_present_where_the_database_is_slow(
    crew: Crew, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each believes that it is alone, takes all, and gives it back."""
    clock = [1_000_000.0]
    monkeypatch.setattr(crews, "time", Mock(wraps=time, monotonic=lambda: clock[0]))
    mock_stores.leases.take(WANTED, "a command", datetime.now(UTC))
    present: list[bool] = []
    for _ in range(2):
        crew.look()
        later = datetime.now(UTC) + timedelta(seconds=14)
        present.append(mock_stores.leases.is_held(crew._name, later))
        clock[0] += 3.0

    assert present == [False, True]
