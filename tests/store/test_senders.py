"""Senders, refusals and the state of the database, as the store has them."""

from __future__ import annotations

from datetime import timedelta

from builders import NOW

from app.store import Stores
from app.store.wiring import Sender


def test_a_sender_is_one_row_for_a_registry_and_an_address(stores: Stores) -> None:
    for second, (registry, address) in enumerate([("a", "1"), ("a", "2"), ("b", "1"), ("a", "1")]):
        at = NOW + timedelta(seconds=second)
        stores.wiring.note_sender(
            Sender(registry=registry, address=address, at=at, accepted=second)
        )

    found = stores.wiring.find_senders()

    assert [(s.registry, s.address, s.accepted) for s in found] == [
        ("a", "1", 3),
        ("b", "1", 2),
        ("a", "2", 1),
    ]
    assert found[0].at == NOW + timedelta(seconds=3)


def test_a_refusal_is_one_row_for_an_address_and_a_reason(stores: Stores) -> None:
    for minute, reason in enumerate(["token", "path", "token"]):
        stores.wiring.note_refusal("1", reason, f"text {minute}", NOW + timedelta(minutes=minute))

    found = stores.wiring.find_refusals()

    assert [(r.reason, r.text, r.first_at) for r in found] == [
        ("token", "text 2", NOW),
        ("path", "text 1", NOW + timedelta(minutes=1)),
    ]


def test_the_state_counts_indexes_and_names_the_missing(stores: Stores) -> None:
    whole = stores.find_state()
    stores._database["events"].drop_index("actor_1_position_1")

    lacking = stores.find_state()

    assert (whole.missing_indexes, lacking.missing_indexes) == ([], ["events.actor_1_position_1"])
    assert whole.indexes == lacking.indexes > 20
    assert whole.version
