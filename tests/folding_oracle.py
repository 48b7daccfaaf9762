"""The rules of folding once more, word by word and as slow as they read.

Nothing here is shared with the product but the shape of an event: the lengths stand here again, and
every step looks through all events. Manifests hold each other in no history given to it. `fold`
takes what `app.rules.folding.fold` takes and returns
(part of, parent, tag, where the tag is from) for each event by its id.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from app.rules.events import Event

SKEW = timedelta(seconds=5)
BLINK = timedelta(milliseconds=100)
WINDOW = timedelta(seconds=60)
LONGEST = timedelta(minutes=10)
UPLOAD = timedelta(hours=1)
BURST = timedelta(seconds=2)

Answer = tuple[str | None, str | None, str | None, str | None]


def fold(events: Any, children: Any, tag_at: Any) -> dict[str, Answer]:
    history = each_once(events)
    part_of: dict[str, Event] = {}
    paired: dict[str, str] = {}
    pair_checks_with_pulls(history, children, part_of, paired)
    let_indexes_take_in(history, children, part_of, paired)
    let_checks_join_a_pull(history, part_of, paired)
    guess_children(history, children, tag_at, part_of, paired)
    let_pushes_join_their_index_or_tag(history, children, part_of)
    let_pulls_join_their_own_push(history, part_of, paired)
    let_tags_join_their_delete(history, part_of)
    return {event.id: answer(event, part_of, paired, tag_at) for event in history}


def order(event: Event) -> Any:
    return (event.timestamp, event.position)


def each_once(events: Any) -> list[Event]:
    history: list[Event] = []
    for event in sorted(events, key=order):
        if event.id not in [other.id for other in history]:
            history.append(event)
    return history


def own_tag(event: Event) -> str | None:
    return event.tag if event.tag_from == "event" else None


def same_client(one: Event, other: Event) -> bool:
    return (
        one.actor == other.actor
        and one.address == other.address
        and one.user_agent == other.user_agent
    )


def same_node(one: Event, other: Event) -> bool:
    return one.source == other.source and one.instance == other.instance


def skew(one: Event, other: Event) -> timedelta:
    return BLINK if same_node(one, other) else SKEW


def held_by(digest: str | None, children: Any) -> set[str]:
    """What an index holds; never itself."""
    return set(children.get(digest, ())) - {digest}


# Rule 1


def pair_checks_with_pulls(
    history: list[Event], children: Any, part_of: dict[str, Event], paired: dict[str, str]
) -> None:
    while True:
        pairs = [
            (check, pull)
            for check in history
            for pull in history
            if may_pair(check, pull)
            and check.id not in part_of
            and pull.id not in paired
            and not index_between(check, pull, history, children)
        ]
        if not pairs:
            return
        check, pull = min(pairs, key=lambda pair: how_far(*pair, history))
        part_of[check.id] = pull
        paired[pull.id] = check.tag or ""


def may_pair(check: Event, pull: Event) -> bool:
    return (
        check.action == "check"
        and pull.action == "pull"
        and same_client(check, pull)
        and check.digest == pull.digest
        and own_tag(check) is not None
        and own_tag(pull) in (None, own_tag(check))
        and -skew(check, pull) <= pull.timestamp - check.timestamp <= WINDOW
    )


def how_far(check: Event, pull: Event, history: list[Event]) -> Any:
    """The nearest first; of equals a check before, then the inner pair."""
    late = order(check) > order(pull)
    first, second = sorted((check, pull), key=order)
    return (
        late and same_node(check, pull),
        abs(pull.timestamp - check.timestamp),
        late,
        -history.index(first),
        history.index(second),
    )


def index_between(check: Event, pull: Event, history: list[Event], children: Any) -> bool:
    return own_tag(pull) is None and any(
        order(check) < order(index) < order(pull)
        and index.action == "pull"
        and same_client(index, pull)
        and pull.digest in held_by(index.digest, children)
        for index in history
    )


# Rule 2


def let_indexes_take_in(
    history: list[Event], children: Any, part_of: dict[str, Event], paired: dict[str, str]
) -> None:
    takes_for = {event.id: event for event in history}
    last = {event.id: event.timestamp for event in history}
    for child in history:
        if not is_free(child, part_of, paired):
            continue
        takers = [
            takes_for[index.id]
            for index in pulls_of_holders(child, history, children)
            if order(index) < order(child)
        ]
        takers = [
            taker
            for taker in takers
            if child.timestamp <= last[taker.id] + WINDOW
            and child.timestamp <= taker.timestamp + LONGEST
        ]
        if takers:
            part_of[child.id] = takes_for[child.id] = takers[-1]
            last[takers[-1].id] = child.timestamp
    for child in history:
        takers = [
            index
            for index in pulls_of_holders(child, history, children)
            if order(index) > order(child)
            and index.timestamp <= child.timestamp + skew(index, child)
        ]
        if takers and is_free(child, part_of, paired):
            part_of[child.id] = takers[0]


def pulls_of_holders(child: Event, history: list[Event], children: Any) -> list[Event]:
    return [
        index
        for index in history
        if index.action == "pull"
        and same_client(index, child)
        and child.digest in held_by(index.digest, children)
    ]


def is_free(event: Event, part_of: dict[str, Event], paired: dict[str, str]) -> bool:
    return (
        event.action in ("pull", "check")
        and own_tag(event) is None
        and event.id not in part_of
        and event.id not in paired
    )


# Rule 3


def let_checks_join_a_pull(
    history: list[Event], part_of: dict[str, Event], paired: dict[str, str]
) -> None:
    for check in history:
        if check.action != "check" or not is_free(check, part_of, paired):
            continue
        pulls = [
            pull
            for pull in history
            if pull.action == "pull" and same_client(pull, check) and pull.digest == check.digest
        ]
        later = [pull for pull in pulls if order(pull) > order(check)]
        earlier = [pull for pull in pulls if order(pull) < order(check)]
        if later and later[0].timestamp <= check.timestamp + WINDOW:
            part_of[check.id] = later[0]
        elif earlier and earlier[-1].timestamp >= check.timestamp - skew(earlier[-1], check):
            part_of[check.id] = earlier[-1]


# Rule 4


def guess_children(
    history: list[Event],
    children: Any,
    tag_at: Any,
    part_of: dict[str, Event],
    paired: dict[str, str],
) -> None:
    wholes = [event for event in history if event.action == "pull" and event.id not in part_of]
    guessed: list[tuple[Event, str]] = []
    for index in wholes:
        others = [
            pull
            for pull in wholes
            if same_client(pull, index)
            and pull.digest != index.digest
            and abs(pull.timestamp - index.timestamp) <= WINDOW
        ]
        if (
            is_index(index, children)
            and not children.get(index.digest)
            and len({pull.digest for pull in others}) == 1
            and not any(is_index(pull, children) for pull in others)
            and all(is_free(pull, part_of, paired) for pull in others)
            and all(tag_at(pull) is None for pull in others)
        ):
            guessed.append((index, others[0].digest or ""))
    for pull in wholes:
        takers = [
            index for index, child in guessed if child == pull.digest and same_client(index, pull)
        ]
        earlier = [
            index
            for index in takers
            if order(index) < order(pull) and pull.timestamp <= index.timestamp + WINDOW
        ]
        later = [
            index
            for index in takers
            if order(index) > order(pull) and index.timestamp <= pull.timestamp + skew(index, pull)
        ]
        if earlier or later:
            part_of[pull.id] = earlier[-1] if earlier else later[0]


def is_index(event: Event, children: Any) -> bool:
    return event.kind == "index" or event.digest in children


# Pushes and deletes


def let_pushes_join_their_index_or_tag(
    history: list[Event], children: Any, part_of: dict[str, Event]
) -> None:
    for push in history:
        indexes = [
            index
            for index in history
            if push.action == index.action == "push"
            and push.actor == index.actor
            and own_tag(push) is None
            and (
                own_tag(index) is not None
                if push.digest == index.digest
                else push.digest in children.get(index.digest, ())
            )
        ]
        later = [
            index
            for index in indexes
            if order(index) > order(push) and index.timestamp <= push.timestamp + UPLOAD
        ]
        earlier = [
            index
            for index in indexes
            if order(index) < order(push) and index.timestamp >= push.timestamp - SKEW
        ]
        if later or earlier:
            part_of[push.id] = later[0] if later else earlier[-1]


def let_pulls_join_their_own_push(
    history: list[Event], part_of: dict[str, Event], paired: dict[str, str]
) -> None:
    for pull in history:
        if pull.action != "pull" or not is_free(pull, part_of, paired):
            continue
        own = [
            push
            for push in history
            if push.action == "push" and same_client(push, pull) and push.digest == pull.digest
        ]
        begun = any(
            own_tag(push) is None
            and (
                push.timestamp >= pull.timestamp - WINDOW
                if order(push) < order(pull)
                else push.timestamp <= pull.timestamp + skew(push, pull)
            )
            for push in own
        )
        tags = [push for push in own if own_tag(push) is not None]
        later = [
            tag
            for tag in tags
            if order(tag) > order(pull) and tag.timestamp <= pull.timestamp + SKEW
        ]
        earlier = [
            tag
            for tag in tags
            if order(tag) < order(pull) and tag.timestamp >= pull.timestamp - skew(tag, pull)
        ]
        if begun and (later or earlier):
            part_of[pull.id] = later[0] if later else earlier[-1]


def let_tags_join_their_delete(history: list[Event], part_of: dict[str, Event]) -> None:
    deletes = [event for event in history if event.action == "delete"]
    for by_tag in deletes:
        if by_tag.digest is not None or own_tag(by_tag) is None:
            continue
        same_request = [
            delete
            for delete in deletes
            if delete.digest is not None
            and by_tag.request_id != ""
            and delete.request_id == by_tag.request_id
            and abs(delete.timestamp - by_tag.timestamp) <= LONGEST
        ]
        same_burst = [
            delete
            for delete in deletes
            if delete.digest is not None
            and same_client(delete, by_tag)
            and abs(delete.timestamp - by_tag.timestamp) <= BURST
        ]
        if same_request or same_burst:
            part_of[by_tag.id] = nearest(same_request or same_burst, by_tag, history)


def nearest(deletes: list[Event], by_tag: Event, history: list[Event]) -> Event:
    """Of two as near the one before; of two at one time the neighbour."""

    def far(delete: Event) -> Any:
        places = history.index(delete) - history.index(by_tag)
        return (abs(delete.timestamp - by_tag.timestamp), places > 0, abs(places))

    return min(deletes, key=far)


# The answer


def answer(event: Event, part_of: dict[str, Event], paired: dict[str, str], tag_at: Any) -> Answer:
    whole = event
    while whole.id in part_of and part_of[whole.id].timestamp <= event.timestamp + UPLOAD:
        whole = part_of[whole.id]
    tag = own_tag(event)
    if whole != event:
        told_apart = event.action != "delete" and whole.digest != event.digest
        return (whole.id, whole.digest if told_apart else None, tag, "event" if tag else None)
    if tag:
        return (None, None, tag, "event")
    if event.id in paired:
        return (None, None, paired[event.id], "paired")
    if event.action in ("pull", "check") and tag_at(event):
        return (None, None, tag_at(event), "history")
    return (None, None, None, None)
