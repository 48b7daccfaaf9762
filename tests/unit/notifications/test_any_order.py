"""Indexes in indexes, told late, and what is read back: as a recount has it, in any order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import mongomock
import pytest
from builders import IMAGE, INDEX, NOW, digest, envelope, wire_event
from hypothesis import given, settings
from hypothesis import strategies as st
from recount import Recount, differing

from app.notifications.derivation import Derivation
from app.rules.events import Event, parse_envelope
from app.store import Stores

CHILDREN = {"inner": ["amd64", "arm64"], "outer": ["inner"], "outermost": ["outer"]}
STORY = ("push amd64", "push inner", "push outer v1", "pull outer", "pull inner", "pull amd64")
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
        came = [coming.pop() for _ in range(min(len(coming), chance.choice([1, 1, 2])))]
        for _ in range(chance.choice([1, 1, 1, 2])):  # it may come twice
            lasting.work_in(came, LATER)
        if chance.random() < 0.1:
            lasting.forget()

    stored = {event.id: fold_of(event) for event in mock_stores.events.iterate()}
    assert differing(stored, Recount(events).folds) == {}


def fold_of(event: Event) -> Any:
    return event.part_of, event.parent, event.tag, event.tag_from


def history(chance: random.Random) -> Iterator[dict[str, Any]]:
    """Some of STORY and more of the like, by one or two clients, in seconds or in hours."""
    pause, clients = chance.choice([1, 3500]), ["helm/3.16", "oras/1.2"][chance.randrange(2) :]
    steps = [step for step in STORY if chance.random() < 0.7]
    for _ in range(chance.randrange(3)):
        more = f"{chance.choice(['push', 'pull', 'check'])} {chance.choice([*CHILDREN, 'amd64'])}"
        steps.insert(chance.randrange(len(steps) + 1), f"{more} {chance.choice(['', 'v1', 'v2'])}")
    at = 0.0
    for number, step in enumerate(steps):
        at += pause * chance.choice([0, 1, chance.random()])
        action, of, tag = f"{step} ".split(" ")[:3]
        node, ahead = chance.choice([("a", 0.0), ("b", 4.9), ("c", -2.5)])
        tells = of in CHILDREN and action == "push"
        event = wire_event(
            action,
            of=of,
            tag=tag or None,
            at=round(at + ahead, 3),
            id=f"e{number}",
            user_agent=chance.choice(clients),
            media_type=INDEX if of in CHILDREN else IMAGE,
            children=CHILDREN[of] if tells else None,
        )
        for reference in event["target"].get("references", []):
            if reference["digest"] in map(digest, CHILDREN):
                reference["mediaType"] = INDEX
        event["source"]["instanceID"] = node
        yield event


SIGNATURE = f"{digest('signed').replace(':', '-')}.sig"
RENAMED = {
    "repository": "team/app",
    "rename": {"type": "name", "from": "team/app", "to": "team/new"},
}


def bare_pulls() -> list[Event]:
    """Pulls that name no media type, of one manifest by several tags, and a rename."""
    pulls = [
        wire_event("pull", tag=tag, of=of, at=at, id=f"pull {at}", media_type="")
        for at, (tag, of) in enumerate(
            [("v1", "one"), (SIGNATURE, "one"), (SIGNATURE, "two"), ("v2", "two"), ("v1", "two")]
        )
    ]
    rename = wire_event("push", at=10, id="rename") | {"action": "rename", "target": RENAMED}
    return parse_envelope(envelope(*pulls, rename), "default", LATER).events


@settings(max_examples=60, deadline=None)
@given(st.permutations(bare_pulls()), st.sampled_from([1, 2, 6]))
def test_the_kind_of_a_tag_that_only_bare_pulls_tell_of_does_not_follow_their_order(
    events: Sequence[Event], at_once: int
) -> None:
    database: Any = mongomock.MongoClient(tz_aware=True)["registry"]
    derivation = Derivation(Stores(database))
    for start in range(0, len(events), at_once):
        derivation.work_in(events[start : start + at_once], LATER)

    kinds = {(row["repository"], row["tag"]): row["kind"] for row in database["tags"].find()}
    assert kinds == {
        ("team/new", "v1"): "image",
        ("team/new", "v2"): "image",
        ("team/new", SIGNATURE): "signature",
    }
