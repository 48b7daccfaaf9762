"""Where docker_auth's code, which does not sort, would decide otherwise than `seq` says."""

from __future__ import annotations

from itertools import combinations, islice

import msgspec

from app.rules.access.acl import FIELDS, Acl, Entry
from app.rules.access.rule import covers
from app.rules.patterns import TooComplex, compile_pattern

MAX_COMPARED = 200_000  # pairs; a page waits for it
MAX_NAMED = 100


class Disorder(msgspec.Struct, frozen=True):
    """Two entries of which one allows and one denies, stored in another order than `seq` says.

    Both are a `seq`. The documentation of docker_auth has `first` decide where both match; its
    code takes the entries as they are stored, and there `second` comes before it.
    """

    first: int
    second: int


def find_disorder(acl: Acl) -> tuple[Disorder, ...]:
    """The pairs of entries whose order matters and is not that of the documents; the first 100.

    Two patterns that hardly can match the same are taken for two that may.
    """
    places = [entry.index for entry in acl.entries]
    if places == sorted(places):
        return ()
    found = (
        Disorder(first.seq, second.seq)
        for first, second in islice(combinations(acl.entries, 2), MAX_COMPARED)
        if first.index > second.index and first.allows != second.allows and _meet(first, second)
    )
    return tuple(islice(found, MAX_NAMED))


def _meet(one: Entry, other: Entry) -> bool:
    """Whether a request may match both."""
    networks = one.network, other.network
    if networks[0] and networks[1]:
        if networks[0].version != networks[1].version:
            return False
        if not networks[0].overlaps(networks[1]):
            return False
    return not any(_exclude(one.patterns[field], other.patterns[field]) for field in FIELDS)


def _exclude(one: str | None, other: str | None) -> bool:
    """Whether two patterns surely match nothing in common."""
    if one is None or other is None or "${" in one or "${" in other:
        return False
    try:
        first, second = compile_pattern(one), compile_pattern(other)
    except TooComplex:
        return False
    if first is None or second is None:
        return True  # a glob that is malformed matches nothing
    if "test" not in (first.kind, second.kind):
        return not covers(first, second) and not covers(second, first)
    if first.kind == "exact" or second.kind == "exact":
        exact, wide = (first, second) if first.kind == "exact" else (second, first)
        return not wide.test(exact.text)
    return not first.text.startswith(second.text) and not second.text.startswith(first.text)
