"""What one envelope becomes, and when it is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from builders import envelope, wire_event

from app.errors import StoreUnavailable
from app.notifications import intake as module
from app.notifications.intake import Intake
from app.notifications.projector import came
from app.store import Stores
from app.store.inbox import InboxStore, Progress

BODY = envelope(wire_event("push", tag="v1"))
BLOB = wire_event("push", of="layer", media_type="application/octet-stream")
FULL = 3 * 2**20  # bytes


@pytest.fixture
def fill(mock_stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, float], list[int]]:
    """So many bytes wait, and the projector is so many seconds behind; returns each look at it."""
    looks: list[int] = []

    def fill(size: int, behind_s: float) -> list[int]:
        def look(self: InboxStore) -> int:
            looks.append(size)
            return size

        monkeypatch.setattr(InboxStore, "size", look)
        until = datetime.now(UTC) - timedelta(seconds=behind_s)
        mock_stores.inbox.note_progress(Progress(until=until))
        return looks

    return fill


@pytest.mark.parametrize(
    ("size", "behind_s", "refused"),
    [
        (FULL - 1, 3600, False),
        (FULL, 3600, True),
        (FULL, 11, True),
        (FULL, 5, False),  # so much is worked in at once
    ],
)
def test_a_full_inbox_that_is_not_worked_in_is_refused(
    mock_stores: Stores, fill: Callable[..., object], size: int, behind_s: float, refused: bool
) -> None:
    fill(size, behind_s)
    intake = Intake(mock_stores, FULL)

    if refused:
        with pytest.raises(StoreUnavailable, match="max_inbox_bytes"):
            intake.receive(BODY, "default")
    else:
        intake.receive(BODY, "default")

    assert mock_stores.inbox.count() == (0 if refused else 1)


def test_before_the_projector_first_ran_nothing_is_refused(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InboxStore, "size", lambda self: FULL)

    Intake(mock_stores, FULL).receive(BODY, "default")

    assert mock_stores.inbox.count() == 1


def test_a_full_inbox_is_refused_until_the_next_look_finds_room(
    mock_stores: Stores,
    fill: Callable[[int, float], list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 3600.0)
    looks = fill(FULL, 3600)
    intake = Intake(mock_stores, FULL)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="the inbox is full"):
            intake.receive(BODY, "default")
    assert looks == [FULL]

    fill(FULL - 1, 3600)
    monkeypatch.setattr(intake, "_look_at", 0.0)
    for _ in range(3):
        intake.receive(BODY, "default")

    assert looks == [FULL, FULL - 1]
    assert mock_stores.inbox.count() == 3


def test_a_look_that_fails_does_not_end_looking(
    mock_stores: Stores, fill: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    intake = Intake(mock_stores, FULL)

    def away(self: InboxStore) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as outage:
        outage.setattr(InboxStore, "find_progress", away)
        with pytest.raises(StoreUnavailable, match="away"):
            intake.receive(BODY, "default")
    intake.receive(BODY, "default")
    fill(FULL, 3600)

    with pytest.raises(StoreUnavailable, match="max_inbox_bytes"):
        intake.receive(BODY, "default")


def test_while_one_request_looks_the_others_do_not_wait_for_it(
    mock_stores: Stores, fill: Callable[[int, float], list[int]]
) -> None:
    looks = fill(FULL - 1, 3600)
    intake = Intake(mock_stores, FULL)

    with intake._looking:
        intake.receive(BODY, "default")

    assert looks == []
    assert mock_stores.inbox.count() == 1


def test_an_envelope_without_blobs_is_kept_to_the_byte_with_the_millisecond_it_came(
    mock_stores: Stores,
) -> None:
    body = BODY.replace(b"{", b" {\n")
    now = datetime(2026, 11, 23, 12, 0, 0, 999_987, tzinfo=UTC)

    Intake(mock_stores, FULL).receive(body, "dc2", now)

    [letter] = mock_stores.inbox.find_oldest(2, 2**20)
    assert (letter.registry, letter.body) == ("dc2", body)
    assert letter.received_at == now.replace(microsecond=999_000)


def test_the_projector_is_woken_by_what_is_kept_alone(mock_stores: Stores) -> None:
    intake = Intake(mock_stores, FULL)
    came.clear()
    intake.receive(envelope(BLOB), "default")
    assert not came.is_set()

    intake.receive(envelope(BLOB, wire_event("push", tag="v1")), "default")

    assert came.is_set()
    [letter] = mock_stores.inbox.find_oldest(2, 2**20)
    assert b"octet-stream" not in letter.body
