"""Indexes in indexes, told late, and what is read back: as a recount has it, in any order."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from builders import IMAGE, INDEX, NOW, digest, envelope, wire_event
from recount import Recount, differing

from app.notifications.derivation import Derivation
from app.rules.events import Event, parse_envelope
from app.store import Stores

CHILDREN = {"inner": ["amd64", "arm64"], "outer": ["inner", "riscv"], "outermost": ["outer"]}
STEPS = ("push", "push v1", "push v2", "pull", "pull", "pull v1", "check v1", "check")
LATER = NOW + timedelta(days=1)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_told_late_all_follows_as_if_it_had_come_in_order(
    mock_stores: Stores, seed: int
) -> None:
    chance = random.Random(seed)
    body = envelope(*history(chance))
    events = list(parse_envelope(body, "default", LATER).events)
    coming = chance.sample(events, len(events))

    lasting = Derivation(mock_stores)
    while coming:
        number = chance.choice([1, 1, 2, len(coming)])
        lasting.work_in([*coming[:number], chance.choice(events)], LATER)  # one comes again
        del coming[:number]
        if chance.random() < 0.1:
            lasting.forget()

    stored = {event.id: fold_of(event) for event in mock_stores.events.iterate()}
    assert differing(stored, Recount(events).folds) == {}


def fold_of(event: Event) -> Any:
    return event.part_of, event.parent, event.tag, event.tag_from


def history(chance: random.Random) -> Iterator[dict[str, Any]]:
    """What two clients of one account do, at three nodes, in seconds or in hours."""
    pause, told = chance.choice([1, 20, 400, 1500, 3500]), chance.choice([0, 0.3, 1])
    at = 0.0
    for number in range(chance.randrange(5, 12)):
        at += pause * chance.choice([0, 1, chance.random()])
        action, _, tag = chance.choice(STEPS).partition(" ")
        of = chance.choice(["inner", "outer", "outermost", "amd64", "amd64", "riscv"])
        node, ahead = chance.choice([("a", 0.0), ("b", 4.9), ("c", -2.5)])
        tells = of in CHILDREN and (chance.random() < told or action == "push")
        event = wire_event(
            action,
            of=of,
            tag=tag or None,
            at=round(at + ahead, 3),
            id=f"e{number}",
            user_agent=chance.choice(["helm/3.16", "oras/1.2"]),
            media_type=INDEX if of in CHILDREN else IMAGE,
            children=CHILDREN[of] if tells else None,
        )
        for reference in event["target"].get("references", []):
            if reference["digest"] in map(digest, CHILDREN):
                reference["mediaType"] = INDEX
        event["source"]["instanceID"] = node
        yield event
