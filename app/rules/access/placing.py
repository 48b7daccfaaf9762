"""Which `seq` entries get that come from a list, whose order is that of the list."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

STEP = 10  # between entries that follow all others: there is room for more


class Place(NamedTuple):
    """Where an entry stands; one that is not new is stored already, with this `seq`."""

    seq: int
    is_new: bool


def place_entries(
    stored: Mapping[int, Mapping[str, Any]], given: Sequence[Mapping[str, Any]]
) -> list[Place]:
    """A place for each of `given`: where its own `seq` says, else so that they keep their order.

    An entry that is stored (by `seq`) with the same content stays where it is. New ones stand
    before the next that is, or after all that are stored.

    Raises:
        ValueError: there is no such place; the message says why.
    """
    contents = {seq: _content(document) for seq, document in stored.items()}
    if any("seq" in entry for entry in given):
        return _own_places(given, contents)
    seqs = {content: seq for seq, content in sorted(contents.items(), reverse=True)}
    known = [seqs.get(_content(entry)) for entry in given]
    kept = [seq for seq in dict.fromkeys(known) if seq is not None]
    for before, after in pairwise(kept):
        if before > after:
            raise ValueError(f"seq {before} and {after} are stored in the opposite order")
    return _in_order(given, known, set(contents))


def _own_places(given: Sequence[Mapping[str, Any]], contents: Mapping[int, str]) -> list[Place]:
    seqs: list[Any] = [entry.get("seq") for entry in given]
    if None in seqs:
        raise ValueError("some entries have a seq and some have none")
    for number, (seq, entry) in enumerate(zip(seqs, given, strict=True)):
        if seq in seqs[:number]:
            raise ValueError(f"seq {seq} is given twice")
        if contents.get(seq, _content(entry)) != _content(entry):
            raise ValueError(f"seq {seq} is another entry in the collection")
    return [Place(entry["seq"], entry["seq"] not in contents) for entry in given]


def _in_order(
    given: Sequence[Mapping[str, Any]], known: Sequence[int | None], taken: set[int]
) -> list[Place]:
    places: dict[str, Place] = {}  # by content: one that is given twice has one place
    waiting: list[str] = []
    for entry, seq in zip(given, known, strict=True):
        content = _content(entry)
        if seq is None:
            if content not in waiting and content not in places:
                waiting.append(content)
            continue
        _place_before(seq, waiting, taken, places)
        waiting = []
        places.setdefault(content, Place(seq, False))
    first = (max(taken, default=0) // STEP + 1) * STEP
    for number, content in enumerate(waiting):
        places.setdefault(content, Place(first + STEP * number, True))
    return [places[_content(entry)] for entry in given]


def _place_before(
    seq: int, waiting: Sequence[str], taken: set[int], places: dict[str, Place]
) -> None:
    """Spread what waits between the entry at `seq` and the one before it."""
    count = len(waiting)
    before = max((other for other in taken if other < seq), default=seq - STEP * (count + 1))
    if seq - before <= count:
        raise ValueError(f"there is no room for {count} more between seq {before} and {seq}")
    for number, content in enumerate(waiting, 1):
        place = before + (seq - before) * number // (count + 1)
        taken.add(place)
        places[content] = Place(place, True)


def _content(entry: Mapping[str, Any]) -> str:
    """What an entry says, its `seq` apart, as a key: conditions that are null are none."""
    match = entry.get("match")
    if isinstance(match, Mapping):
        match = {field: value for field, value in match.items() if value is not None}
    parts = [match, entry.get("actions"), entry.get("comment") or ""]
    return json.dumps(parts, sort_keys=True, default=str)
