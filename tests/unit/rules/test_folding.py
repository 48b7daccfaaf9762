"""What is one pull, push, delete and check: rules at their edges, any history, recorded ones."""

from __future__ import annotations

import itertools
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import folding_oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.rules.events import Event, parse_envelope, position_at
from app.rules.folding import AFTER, BEFORE, Fold, fold, related

DATA = Path(__file__).parents[2] / "data"
NOW = datetime(2026, 11, 23, 18, tzinfo=UTC)
CHILDREN = {
    "index": ("amd64", "arm64"),
    "outer": ("index", "attestation"),
    "outermost": ("outer",),
    "sibling": ("arm64", "riscv"),
}
INDEXES = {*CHILDREN, "untold", "untold too"}  # nobody told the children of the last two
OTHER_CLIENTS = [{"actor": "bob"}, {"address": "10.0.0.2"}, {"user_agent": "containerd/2.1"}]
_numbers = itertools.count(1)


def make_event(
    action: Any, at: float, digest: str | None = "image", tag: str | None = None, **changes: Any
) -> Event:
    """An event so many seconds after NOW; a second node dates what says `source="b"`."""
    key = changes.pop("id", None) or f"{next(_numbers):06}"
    moment = NOW + timedelta(seconds=at)
    fields: dict[str, Any] = {
        "kind": "index" if digest in INDEXES else "image",
        "actor": "alice",
        "address": "10.0.0.1",
        "user_agent": "docker/27.3.1",
        "source": "a",
        "instance": "one",
        "tag_from": "event" if tag else None,
    }
    return Event(
        id=key,
        registry="default",
        action=action,
        namespace="team",
        repository="team/app",
        tag=tag,
        digest=digest,
        timestamp=moment,
        position=f"{position_at(moment)}-{key}",
        received_at=moment,
        **fields | changes,
    )


def check(at: float, digest: str = "image", tag: str | None = None, **changes: Any) -> Event:
    return make_event("check", at, digest, tag, **changes)


def pull(at: float, digest: str = "image", tag: str | None = None, **changes: Any) -> Event:
    return make_event("pull", at, digest, tag, **changes)


def push(at: float, digest: str = "image", tag: str | None = None, **changes: Any) -> Event:
    return make_event("push", at, digest, tag, **changes)


def delete(at: float, digest: str | None = None, tag: str | None = None, **changes: Any) -> Event:
    return make_event("delete", at, digest, tag, **changes)


def no_history(event: Event) -> None:
    return None


def history_of(tags: dict[str, str]) -> Callable[[Event], str | None]:
    return lambda event: tags.get(event.digest or "")


def folded(
    *events: Event, children: Any = CHILDREN, tags: dict[str, str] | None = None
) -> list[Fold]:
    """The fold of each event."""
    folds = fold(events, children, history_of(tags or {}))
    return [folds[event.id] for event in events]


def actions(*events: Event, **known: Any) -> list[str]:
    """What was done, in order of time: each action with its tag."""
    folds = zip(events, folded(*events, **known), strict=True)
    whole = [(e.position, f"{e.action} {f.tag or ''}".strip()) for e, f in folds if not f.part_of]
    return [action for _, action in sorted(whole)]


# An index and its children


@pytest.mark.parametrize("seconds", [-1, 1])
def test_a_child_that_is_pulled_by_a_tag_of_its_own_is_a_pull_of_its_own(seconds: float) -> None:
    events = pull(0, "index", "v1"), pull(seconds, "amd64", "v1-amd64", source="b")

    assert sorted(actions(*events)) == ["pull v1", "pull v1-amd64"]


# A check and a pull


def test_a_check_by_tag_and_the_pull_after_it_are_one_pull_with_that_tag() -> None:
    began, pulled = check(0, tag="v1"), pull(1)

    assert folded(began, pulled) == [
        Fold(part_of=pulled.id, tag="v1", tag_from="event"),
        Fold(tag="v1", tag_from="paired"),
    ]


def test_two_checks_before_two_pulls_are_two_pulls_and_no_check() -> None:
    events = check(0, tag="v1"), check(1, tag="v2"), pull(2), pull(3)

    assert actions(*events) == ["pull v2", "pull v1"]


def test_a_check_serves_one_pull() -> None:
    assert actions(check(0, tag="v1"), pull(1), pull(2)) == ["pull v1", "pull"]


def test_a_check_without_a_pull_is_a_check() -> None:
    assert actions(check(0, tag="v1")) == ["check v1"]


def test_a_pull_without_a_check_is_a_pull() -> None:
    assert actions(pull(0)) == ["pull"]


def test_of_two_checks_the_nearer_one_began_the_pull() -> None:
    assert actions(check(0, tag="v1"), check(1, tag="v2"), pull(2)) == ["check v1", "pull v2"]


def test_of_two_pulls_the_nearer_one_was_begun_by_the_check() -> None:
    assert actions(pull(0), check(4, tag="v1", source="b"), pull(5)) == ["pull", "pull v1"]
    assert actions(pull(0), check(1, tag="v1", source="b"), pull(5)) == ["pull v1", "pull"]


def test_what_the_nearest_pair_leaves_is_paired_too() -> None:
    events = check(0, tag="v1"), pull(4), check(5, tag="v2", source="b"), pull(30)

    assert actions(*events) == ["pull v2", "pull v1"]


def test_of_two_pairs_as_near_the_one_whose_check_stands_before_is_taken() -> None:
    assert actions(check(0, tag="v1"), pull(2), check(4, tag="v2", source="b")) == [
        "pull v1",
        "check v2",
    ]
    assert actions(pull(0), check(2, tag="v1", source="b"), pull(4)) == ["pull", "pull v1"]


@pytest.mark.parametrize(("later", "told"), [(60, ["pull v1"]), (60.001, ["check v1", "pull"])])
def test_a_pull_follows_its_check_within_a_minute(later: float, told: list[str]) -> None:
    assert actions(check(0, tag="v1"), pull(later)) == told


@pytest.mark.parametrize(
    ("source", "late", "told"),
    [
        ("b", 5, ["pull v1"]),
        ("b", 5.001, ["pull", "check v1"]),
        ("a", 0.1, ["pull v1"]),
        ("a", 0.101, ["pull", "check v1"]),
    ],
)
def test_clocks_differ_by_at_most_5_seconds_and_that_of_one_node_hardly(
    source: str, late: float, told: list[str]
) -> None:
    assert actions(pull(0), check(late, tag="v1", source=source)) == told


def test_a_check_on_a_clock_20_milliseconds_ahead_began_the_pull() -> None:
    assert actions(check(5.020, tag="v1", source="b"), pull(5)) == ["pull v1"]


def test_a_node_that_restarted_has_another_clock() -> None:
    events = pull(5), check(5.020, tag="v1", instance="two"), check(0, tag="v2")

    assert actions(*events) == ["check v2", "pull v1"]


def test_a_check_that_the_same_node_dated_after_the_pull_comes_last() -> None:
    assert actions(pull(5), check(5.020, tag="v1"), check(0, tag="v2")) == ["pull v2", "check v1"]
    assert actions(pull(5), check(5.020, tag="v1"), check(10, tag="v2", source="b")) == [
        "pull v2",
        "check v1",
    ]


def test_a_check_of_another_node_is_seen_behind_one_of_the_same() -> None:
    events = pull(0), check(1, tag="v1"), check(2, tag="v2", source="b")

    assert actions(*events) == ["pull v2", "check v1"]


def test_a_check_of_the_same_node_is_left_for_the_pull_that_another_node_saw() -> None:
    events = pull(0, source="b"), pull(1), check(2, tag="v1")

    assert actions(*events) == ["pull v1", "pull"]


@pytest.mark.parametrize("other", OTHER_CLIENTS)
def test_a_check_of_another_client_began_no_pull(other: dict[str, str]) -> None:
    assert actions(check(0, tag="v1", **other), pull(1)) == ["check v1", "pull"]


def test_two_clients_on_one_host_keep_their_tags() -> None:
    docker, containerd = {"user_agent": "docker/27.3.1"}, {"user_agent": "containerd/2.1"}
    events = (
        check(0, tag="v1", **docker),
        check(1, tag="v2", **containerd),
        pull(2, **docker),
        pull(3, **containerd),
    )

    assert actions(*events) == ["pull v1", "pull v2"]


def test_a_check_of_another_digest_began_no_pull() -> None:
    assert actions(check(0, "other", "v1"), pull(1)) == ["check v1", "pull"]


def test_a_pull_by_tag_takes_the_check_of_its_tag() -> None:
    assert actions(check(0, tag="v1"), pull(1, tag="v1")) == ["pull v1"]
    assert folded(check(0, tag="v1"), pull(1, tag="v1"))[1] == Fold(tag="v1", tag_from="event")


def test_a_pull_by_tag_takes_no_check_of_another_tag() -> None:
    assert actions(check(0, tag="v1"), pull(1, tag="v2")) == ["check v1", "pull v2"]
    assert actions(check(0, tag="v1"), check(1, tag="v2"), pull(2, tag="v1"), pull(3)) == [
        "pull v1",
        "pull v2",
    ]


def test_a_pull_by_tag_competes_with_a_nearer_one_by_digest() -> None:
    assert actions(check(0, tag="v1"), pull(1), pull(50, tag="v1")) == ["pull v1", "pull v1"]
    assert actions(check(0, tag="v1"), pull(1, tag="v1"), pull(2)) == ["pull v1", "pull"]


def test_what_an_earlier_fold_derived_changes_no_later_one() -> None:
    stored = pull(1, tag="v9", tag_from="paired", part_of="other", parent="index")

    assert actions(stored) == ["pull"]
    assert actions(check(0, tag="v1"), stored) == ["pull v1"]


# A check without tag


def test_a_check_by_digest_between_check_and_pull_keeps_the_tag() -> None:
    assert actions(check(0, tag="v1"), check(1), pull(2)) == ["pull v1"]


def test_a_check_by_digest_is_part_of_the_pull() -> None:
    began, pulled = check(0), pull(1)

    assert folded(began, pulled) == [Fold(part_of=pulled.id), Fold()]


def test_any_number_of_checks_by_digest_are_part_of_the_next_pull() -> None:
    first, second, one, other = check(0), check(1), pull(2), pull(3)

    assert [f.part_of for f in folded(first, second, one, other)] == [one.id, one.id, None, None]


@pytest.mark.parametrize(("later", "told"), [(60, ["pull"]), (60.001, ["check", "pull"])])
def test_a_pull_follows_its_check_by_digest_within_a_minute(later: float, told: list[str]) -> None:
    assert actions(check(0), pull(later)) == told


@pytest.mark.parametrize(
    ("late", "source", "told"),
    [
        (5, "b", ["pull"]),
        (5.001, "b", ["pull", "check"]),
        (0.1, "a", ["pull"]),
        (0.101, "a", ["pull", "check"]),
    ],
)
def test_a_check_by_digest_is_dated_well_after_the_pull_by_another_node_only(
    late: float, source: str, told: list[str]
) -> None:
    assert actions(pull(0), check(late, source=source)) == told


def test_a_check_by_digest_goes_to_the_pull_after_it_rather_than_before() -> None:
    before, checked, after = pull(0), check(1, source="b"), pull(61)

    assert folded(before, checked, after)[1].part_of == after.id


def test_a_check_by_digest_goes_to_the_last_pull_before_it() -> None:
    first, last, checked = pull(0), pull(1), check(2, source="b")

    assert folded(first, last, checked)[2].part_of == last.id


@pytest.mark.parametrize("other", OTHER_CLIENTS)
def test_a_check_by_digest_of_another_client_is_a_check(other: dict[str, str]) -> None:
    assert actions(check(0, **other), pull(1)) == ["check", "pull"]


def test_a_check_of_another_digest_is_a_check() -> None:
    assert actions(check(0, "other"), pull(1)) == ["check", "pull"]


# The children of an index


def test_an_index_and_its_child_are_one_pull() -> None:
    began, index, child = check(0, "index", "v1"), pull(1, "index"), pull(2, "amd64")

    assert folded(began, index, child) == [
        Fold(part_of=index.id, tag="v1", tag_from="event"),
        Fold(tag="v1", tag_from="paired"),
        Fold(part_of=index.id, parent="index"),
    ]


def test_an_index_pulled_by_tag_takes_in_all_its_children() -> None:
    assert actions(pull(0, "index", "v1"), pull(1, "amd64"), pull(2, "arm64")) == ["pull v1"]


def test_what_is_no_child_is_a_pull_of_its_own() -> None:
    assert actions(pull(0, "index", "v1"), pull(1, "riscv")) == ["pull v1", "pull"]


@pytest.mark.parametrize("other", OTHER_CLIENTS)
def test_a_child_pulled_by_another_client_is_a_pull_of_its_own(other: dict[str, str]) -> None:
    assert actions(pull(0, "index", "v1"), pull(1, "amd64", **other)) == ["pull v1", "pull"]


def test_a_check_of_a_child_is_part_of_the_pull() -> None:
    index, checked, child = pull(0, "index", "v1"), check(1, "amd64"), pull(2, "amd64")

    assert [f.part_of for f in folded(index, checked, child)] == [None, index.id, index.id]
    assert actions(index, checked) == ["pull v1"]


def test_a_check_of_a_child_before_its_index_goes_with_the_pull_of_the_child() -> None:
    checked, index, child = check(0, "amd64"), pull(10, "index", "v1"), pull(11, "amd64")

    assert folded(checked, index, child)[0] == Fold(part_of=index.id, parent="index")


def test_the_check_of_an_index_takes_in_nothing() -> None:
    assert actions(check(0, "index", "v1"), pull(1, "amd64")) == ["check v1", "pull"]


def test_a_check_of_an_index_prolongs_no_pull_of_it() -> None:
    told = actions(pull(0, "index", "v1"), check(50, "index", "v1"), pull(100, "amd64"))

    assert told == ["pull v1", "check v1", "pull"]


def test_a_child_pulled_by_tag_is_a_pull_of_its_own() -> None:
    assert actions(pull(0, "index", "v1"), pull(1, "amd64", "v1-amd64")) == [
        "pull v1",
        "pull v1-amd64",
    ]


def test_a_child_whose_tag_was_checked_after_the_index_is_a_pull_of_its_own() -> None:
    events = pull(0, "index", "v1"), check(1, "amd64", "v1-amd64"), pull(2, "amd64")

    assert actions(*events) == ["pull v1", "pull v1-amd64"]


def test_a_check_of_the_tag_of_a_child_is_no_part_of_the_pull() -> None:
    assert actions(pull(0, "index", "v1"), check(1, "amd64", "v1-amd64")) == [
        "pull v1",
        "check v1-amd64",
    ]


def test_between_a_check_and_the_pull_of_a_child_the_index_is_nearer() -> None:
    events = check(0, "amd64", "v1-amd64"), pull(1, "index", "v1"), pull(30, "amd64")

    assert actions(*events) == ["check v1-amd64", "pull v1"]
    assert actions(events[0], pull(1, "outer", "v1"), events[2]) == ["pull v1", "pull v1-amd64"]


def test_an_index_that_is_not_between_leaves_the_check_to_the_pull() -> None:
    checked, pulled = check(1, "amd64", "v1-amd64"), pull(2, "amd64")

    assert actions(pull(0, "index", "v1"), checked, pulled) == ["pull v1", "pull v1-amd64"]
    assert actions(checked, pulled, pull(3, "index", "v1")) == ["pull v1-amd64", "pull v1"]
    assert actions(checked, pull(1.5, "sibling", "v1"), pulled) == ["pull v1", "pull v1-amd64"]
    assert actions(checked, check(1.5, "index", "v1"), pulled) == [
        "check v1",
        "pull v1-amd64",
    ]
    assert actions(checked, pull(1.5, "index", "v1", actor="bob"), pulled) == [
        "pull v1",
        "pull v1-amd64",
    ]


def test_an_index_at_the_same_millisecond_is_between_where_its_position_is() -> None:
    moments = itertools.permutations("123")
    between = {
        "".join(order)
        for order in moments
        if actions(
            check(0, "amd64", "v1-amd64", id=order[0]),
            pull(0, "index", "v1", id=order[1]),
            pull(0, "amd64", id=order[2]),
        ).count("check v1-amd64")
    }

    assert between == {"123"}


def test_a_pull_by_tag_takes_its_check_across_an_index() -> None:
    events = (
        check(0, "amd64", "v1-amd64"),
        pull(1, "index", "v1"),
        pull(2, "amd64", "v1-amd64"),
    )

    assert actions(*events) == ["pull v1", "pull v1-amd64"]


@pytest.mark.parametrize(("later", "pulls"), [(60, 1), (60.001, 2)])
def test_a_child_follows_its_index_within_a_minute(later: float, pulls: int) -> None:
    assert len(actions(pull(0, "index"), pull(later, "amd64"))) == pulls


@pytest.mark.parametrize(("later", "pulls"), [(65, 1), (90, 1), (90.001, 2)])
def test_a_child_follows_the_last_part_within_a_minute(later: float, pulls: int) -> None:
    events = pull(0, "index"), pull(30, "amd64"), pull(later, "arm64")

    assert len(actions(*events)) == pulls


@pytest.mark.parametrize(("later", "pulls"), [(600, 1), (600.001, 2)])
def test_a_pull_lasts_at_most_ten_minutes(later: float, pulls: int) -> None:
    parts = [pull(at, "amd64") for at in range(55, 600, 55)]

    assert len(actions(pull(0, "index"), *parts, pull(later, "arm64"))) == pulls


@pytest.mark.parametrize(
    ("source", "before", "pulls"),
    [("b", 0.020, 1), ("b", 5, 1), ("b", 5.001, 2), ("a", 0.1, 1), ("a", 0.101, 2)],
)
@pytest.mark.parametrize("action", [pull, check])
def test_a_child_is_dated_at_most_5_seconds_before_its_index_and_hardly_by_one_node(
    action: Any, source: str, before: float, pulls: int
) -> None:
    child = action(10 - before, "amd64", source=source)

    assert len(actions(child, pull(10, "index"))) == pulls


def test_of_two_pulls_of_indexes_the_newest_before_the_child_takes_it() -> None:
    one, other, child = pull(0, "index"), pull(1, "sibling"), pull(2, "arm64")

    assert folded(one, other, child)[2] == Fold(part_of=other.id, parent="sibling")
    assert folded(one, pull(1, "untold"), child)[2].part_of == one.id


def test_an_index_before_the_child_takes_it_rather_than_one_after_it() -> None:
    before, child, after = pull(0, "index"), pull(10, "arm64"), pull(10.1, "sibling")

    assert folded(before, child, after)[1].part_of == before.id


def test_of_two_indexes_after_the_child_the_first_takes_it() -> None:
    child = pull(0, "arm64", source="b")
    one, other = pull(1, "index"), pull(2, "sibling")

    assert folded(child, one, other)[0].part_of == one.id
    assert folded(child, pull(1, "index", source="b"), other)[0].part_of == other.id
    assert folded(child, pull(1, "sibling"), pull(2, "index"))[0].parent == "sibling"


def test_an_older_index_takes_a_child_that_the_newest_has_not() -> None:
    one, other, child = pull(0, "index"), pull(1, "sibling"), pull(2, "amd64")

    assert folded(one, other, child)[2].part_of == one.id


def test_an_older_index_still_takes_a_child_when_a_newer_one_no_longer_does() -> None:
    older, newer = pull(0, "index"), pull(1, "sibling")
    parts = pull(50, "amd64"), pull(100, "amd64"), pull(150, "arm64")

    assert folded(older, newer, *parts)[-1].part_of == older.id


def test_a_child_of_a_child_is_part_of_the_outermost_pull() -> None:
    events = pull(0, "outer", "v1"), pull(1, "index"), pull(2, "amd64"), pull(3, "attestation")
    outer = events[0]

    assert folded(*events) == [
        Fold(tag="v1", tag_from="event"),
        *[Fold(part_of=outer.id, parent="outer")] * 3,
    ]
    outermost = pull(0, "outermost", "v1"), pull(0.5, "outer")
    assert actions(*outermost, *events[1:]) == ["pull v1"]


def test_a_child_of_a_child_is_taken_in_with_the_index_between_alone() -> None:
    outer, child = pull(0, "outer", "v1"), pull(2, "amd64")

    assert actions(outer, pull(1, "index"), child) == ["pull v1"]
    assert actions(outer, child) == ["pull v1", "pull"]
    assert actions(outer, pull(1, "index", "v2"), child) == ["pull v1", "pull v2"]


def test_a_child_dated_before_an_inner_index_is_part_of_the_outer_one() -> None:
    outer, child, inner = pull(0, "outer", "v1"), pull(1, "amd64", source="b"), pull(2, "index")

    assert folded(outer, child, inner)[1] == Fold(part_of=outer.id, parent="outer")


def test_an_inner_index_dated_before_the_outer_one_is_part_of_it_with_its_children() -> None:
    inner, child = pull(0, "index", source="b"), pull(1, "amd64")
    outer = pull(2, "outer", "v1")

    assert folded(inner, child, outer)[:2] == [Fold(part_of=outer.id, parent="outer")] * 2


def test_an_inner_index_takes_no_children_for_longer_than_the_outer_one() -> None:
    parts = [pull(at, "attestation") for at in range(55, 595, 55)]
    events = pull(0, "outer", "v1"), *parts, pull(595, "index"), pull(601, "amd64")

    assert actions(*events) == ["pull v1", "pull"]


def test_two_pulls_of_an_index_take_a_child_each() -> None:
    events = pull(0, "index"), pull(1, "amd64"), pull(2, "index"), pull(3, "amd64")
    folds = folded(*events)

    assert [f.part_of for f in folds] == [None, events[0].id, None, events[2].id]


def test_an_index_is_no_child_of_itself() -> None:
    assert actions(pull(0, "index"), pull(1, "index")) == ["pull", "pull"]
    assert actions(pull(0, "a"), pull(1, "a"), children={"a": ("a",)}) == ["pull", "pull"]


# Indexes that nobody told the children of


def test_the_one_other_digest_is_taken_for_the_child() -> None:
    index, child = pull(0, "untold", "v1"), pull(1, "amd64")

    assert folded(index, child) == [
        Fold(tag="v1", tag_from="event"),
        Fold(part_of=index.id, parent="untold"),
    ]


def test_an_index_that_names_no_children_is_one_that_told_none() -> None:
    assert actions(pull(0, "list", "v1"), pull(1), children={"list": ()}) == ["pull v1"]


def test_the_check_of_an_untold_index_leaves_its_child_a_child() -> None:
    events = check(0, "untold", "v1"), pull(1, "untold"), check(2, "amd64"), pull(3, "amd64")

    assert actions(*events) == ["pull v1"]


def test_two_other_digests_are_pulls_of_their_own() -> None:
    events = pull(0, "untold", "v1"), pull(1, "amd64"), pull(2, "other")

    assert actions(*events) == ["pull v1", "pull", "pull"]


def test_a_check_is_nothing_else_that_was_pulled() -> None:
    told = actions(pull(0, "untold", "v1"), pull(1, "amd64"), check(2, "other", "v2"))

    assert told == ["pull v1", "check v2"]


def test_any_number_of_pulls_of_the_one_digest_are_the_child() -> None:
    assert actions(pull(0, "untold", "v1"), pull(1, "amd64"), pull(2, "amd64")) == ["pull v1"]


def test_an_untold_index_pulled_twice_takes_its_child_each_time() -> None:
    events = pull(0, "untold"), pull(1, "amd64"), pull(20, "untold"), pull(21, "amd64")
    folds = folded(*events)

    assert [f.part_of for f in folds] == [None, events[0].id, None, events[2].id]


@pytest.mark.parametrize("other", OTHER_CLIENTS)
def test_what_another_client_pulled_is_no_child(other: dict[str, str]) -> None:
    assert actions(pull(0, "untold", "v1"), pull(1, "amd64", **other)) == ["pull v1", "pull"]
    assert actions(pull(0, "untold", "v1"), pull(1, "amd64"), pull(2, "other", **other)) == [
        "pull v1",
        "pull",
    ]


def test_a_pull_with_a_tag_is_not_taken_for_a_child() -> None:
    index = pull(0, "untold", "v1")

    assert actions(index, pull(1, "app", "v2")) == ["pull v1", "pull v2"]
    assert actions(index, check(1, "app", "v2"), pull(2, "app")) == ["pull v1", "pull v2"]
    assert actions(index, pull(1, "app"), tags={"app": "v2"}) == ["pull v1", "pull v2"]


def test_a_pull_with_a_tag_is_something_else_that_was_pulled() -> None:
    index, child = pull(0, "untold", "v1"), pull(1, "amd64")

    assert actions(index, child, pull(2, "amd64", "v2")) == ["pull v1", "pull", "pull v2"]


def test_an_index_is_not_taken_for_a_child() -> None:
    assert actions(pull(0, "untold", "v1"), pull(1, "index")) == ["pull v1", "pull"]
    assert actions(pull(0, "untold", "v1"), pull(1, "untold too")) == ["pull v1", "pull"]


def test_the_pull_of_another_index_is_something_else_but_its_children_are_not() -> None:
    untold, child = pull(0, "untold", "v1"), pull(1, "app")
    index, part = pull(3, "index", "v2"), pull(4, "amd64")

    assert actions(untold, child, index, part) == ["pull v1", "pull", "pull v2"]
    assert actions(untold, index, part) == ["pull v1", "pull v2"]


def test_an_index_that_was_taken_in_guesses_nothing() -> None:
    children = {"outer": ("untold",)}

    assert actions(pull(0, "outer", "v1"), pull(1, "untold"), pull(2), children=children) == [
        "pull v1",
        "pull",
    ]


@pytest.mark.parametrize(("at", "pulls"), [(60, 1), (60.001, 2), (-5, 1), (-5.001, 2)])
def test_a_guessed_child_is_as_near_as_a_known_one(at: float, pulls: int) -> None:
    assert len(actions(pull(0, "untold"), pull(at, "amd64", source="b"))) == pulls


@pytest.mark.parametrize(("at", "pulls"), [(60, 3), (60.001, 2), (-60, 3), (-60.001, 2)])
def test_only_what_was_pulled_within_a_minute_is_something_else(at: float, pulls: int) -> None:
    events = pull(0, "untold"), pull(1, "amd64"), pull(at, "other")

    assert len(actions(*events)) == pulls


def test_an_earlier_pull_of_the_child_alone_stays_one() -> None:
    events = pull(0, "amd64"), pull(30, "untold", "v1"), pull(31, "amd64")

    assert actions(*events) == ["pull", "pull v1"]


def test_of_two_untold_indexes_the_one_before_the_child_takes_it() -> None:
    before, after = pull(0, "untold"), pull(2, "untold")
    child = pull(1, "amd64", source="b")

    assert folded(before, child, after)[1].part_of == before.id
    assert folded(child, after, pull(3, "untold"))[0].part_of == after.id


# Tags from the history


@pytest.mark.parametrize("action", [pull, check])
def test_what_is_left_without_tag_has_the_tag_of_that_time(action: Any) -> None:
    assert folded(action(0), tags={"image": "v1"}) == [Fold(tag="v1", tag_from="history")]


def test_the_history_is_asked_about_the_event() -> None:
    early, late = pull(0), pull(100)
    folds = fold([early, late], {}, lambda event: "v1" if event is early else None)

    assert [folds[event.id].tag for event in (early, late)] == ["v1", None]


def test_the_history_does_not_overrule_a_tag_that_was_named() -> None:
    tags = {"image": "v9"}

    assert actions(pull(0, tag="v1"), tags=tags) == ["pull v1"]
    assert actions(check(0, tag="v1"), pull(1), tags=tags) == ["pull v1"]


def test_parts_pushes_and_deletes_get_no_tag_from_the_history() -> None:
    tags = {"image": "v1", "amd64": "v2"}

    assert [f.tag for f in folded(pull(0, "index"), pull(1, "amd64"), tags=tags)] == [None, None]
    assert [f.tag for f in folded(push(0), delete(1, "image"), tags=tags)] == [None, None]


# Pushes


def test_children_are_part_of_the_push_of_their_index() -> None:
    one, other, index = push(0, "amd64"), push(1, "arm64"), push(2, "index", "v1")

    assert folded(one, other, index) == [
        *[Fold(part_of=index.id, parent="index")] * 2,
        Fold(tag="v1", tag_from="event"),
    ]


def test_a_push_that_is_no_child_is_a_push_of_its_own() -> None:
    assert actions(push(0, "riscv"), push(1, "index", "v1")) == ["push", "push v1"]


def test_a_push_by_another_account_is_a_push_of_its_own() -> None:
    assert actions(push(0, "amd64", actor="bob"), push(1, "index", "v1")) == ["push", "push v1"]


@pytest.mark.parametrize("other", OTHER_CLIENTS[1:])
def test_one_account_may_push_from_many_places(other: dict[str, str]) -> None:
    assert actions(push(0, "amd64", **other), push(1, "index", "v1")) == ["push v1"]


def test_a_child_pushed_with_a_tag_is_a_push_of_its_own() -> None:
    events = push(0, "amd64", "v1-amd64"), push(1, "index", "v1")

    assert actions(*events) == ["push v1-amd64", "push v1"]


@pytest.mark.parametrize(
    ("after", "pushes"), [(3600, 1), (3600.001, 2), (0, 1), (-5, 1), (-5.001, 2)]
)
def test_an_index_is_pushed_at_most_an_hour_after_its_child(after: float, pushes: int) -> None:
    assert len(actions(push(0, "amd64"), push(after, "index", "v1"))) == pushes


def test_the_first_index_after_the_child_takes_it() -> None:
    child, one, other = push(0, "arm64"), push(1, "index", "v1"), push(2, "sibling", "v2")

    assert folded(child, one, other)[0].part_of == one.id
    assert folded(child, push(1, "sibling"), push(2, "index"))[0].parent == "sibling"
    assert folded(child, push(-1, "index"), one)[0].part_of == one.id


def test_the_first_index_after_the_child_takes_it_between_two_pushes_of_another() -> None:
    one, child, other, again = (
        push(0, "index"),
        push(2, "arm64"),
        push(5, "sibling"),
        push(10, "index"),
    )

    assert folded(one, child, other, again)[1].part_of == other.id


def test_the_last_index_before_the_child_takes_it_where_none_is_after() -> None:
    one, other, child = push(0, "index", "v1"), push(1, "sibling", "v2"), push(2, "arm64")

    assert folded(one, other, child)[2].part_of == other.id


def test_the_last_index_before_the_child_takes_it_where_the_next_is_too_late() -> None:
    one, child, later = push(0, "index", "v1"), push(2, "arm64"), push(3602.001, "sibling", "v2")

    assert folded(one, child, later)[1].part_of == one.id


def test_a_nested_index_is_part_of_the_outer_one_in_whatever_order_they_come() -> None:
    events = push(0, "amd64"), push(1, "index"), push(2, "outer", "v1")

    for order in itertools.permutations(events):
        assert actions(*order) == ["push v1"]
    assert folded(*events)[0] == Fold(part_of=events[2].id, parent="outer")


@pytest.mark.parametrize("begun", [-3600, -3600.001])
def test_a_push_an_hour_before_the_outer_index_is_part_of_the_inner_one(begun: float) -> None:
    child, inner, outer = push(begun, "amd64"), push(-1800, "index"), push(0, "outer", "v1")

    whole = outer if begun == -3600 else inner
    assert folded(child, inner, outer)[:2] == [
        Fold(part_of=whole.id, parent=whole.digest),
        Fold(part_of=outer.id, parent="outer"),
    ]


def test_a_grandchild_is_no_part_of_an_index_whose_child_was_not_pushed() -> None:
    assert actions(push(0, "amd64"), push(1, "outer", "v1")) == ["push", "push v1"]


def test_an_index_pushed_twice_without_tag_is_two_pushes() -> None:
    children = {"a": ("a",)}

    assert actions(push(0, "index"), push(1, "index")) == ["push", "push"]
    assert actions(push(0, "a"), push(1, "a"), children=children) == ["push", "push"]


def test_a_push_by_digest_and_then_by_tag_is_one_push() -> None:
    by_digest, by_tag = push(0), push(1, tag="v1")

    assert folded(by_digest, by_tag) == [
        Fold(part_of=by_tag.id),
        Fold(tag="v1", tag_from="event"),
    ]
    assert actions(push(0, actor="bob"), push(1, tag="v1")) == ["push", "push v1"]
    assert actions(push(0, "other"), push(1, tag="v1")) == ["push", "push v1"]


@pytest.mark.parametrize(
    ("after", "pushes"), [(3600, 1), (3600.001, 2), (0, 1), (-5, 1), (-5.001, 2)]
)
def test_a_tag_is_pushed_at_most_an_hour_after_its_digest(after: float, pushes: int) -> None:
    assert len(actions(push(0), push(after, tag="v1"))) == pushes


def test_a_digest_that_gets_two_tags_is_part_of_the_first() -> None:
    by_digest, one, other = push(0), push(1, tag="v1"), push(2, tag="v2")

    assert folded(other, by_digest, one)[1].part_of == one.id
    assert actions(by_digest, one, other) == ["push v1", "push v2"]


def test_an_index_by_digest_is_part_of_its_tag_with_all_its_children() -> None:
    events = push(0, "amd64"), push(1, "index"), push(2, "index", "v1")

    assert folded(*events) == [
        Fold(part_of=events[2].id, parent="index"),
        Fold(part_of=events[2].id),
        Fold(tag="v1", tag_from="event"),
    ]


# What a client reads back


def test_what_a_client_reads_back_while_it_pushes_is_part_of_the_push() -> None:
    """As helm does: PUT by digest, GET by digest, PUT by tag."""
    events = push(0), pull(0.1), push(0.2, tag="v1")

    for order in itertools.permutations(events):
        assert actions(*order) == ["push v1"]
    assert folded(*events)[1] == Fold(part_of=events[2].id)


def test_a_check_while_a_client_pushes_is_a_check() -> None:
    assert actions(push(0), check(0.1), push(0.2, tag="v1")) == ["check", "push v1"]


def test_what_was_pulled_with_its_index_is_not_read_back() -> None:
    index = pull(0.05, "index", "v2")
    events = push(0, "amd64"), index, pull(0.1, "amd64"), push(0.2, "amd64", tag="v1")

    assert folded(*events)[2].part_of == index.id


def test_what_was_not_pushed_by_digest_is_not_read_back() -> None:
    assert actions(pull(0.1), push(0.2, tag="v1")) == ["pull", "push v1"]
    assert actions(push(0, "other"), pull(0.1), push(0.2, tag="v1"))[1:] == ["pull", "push v1"]


@pytest.mark.parametrize("other", OTHER_CLIENTS)
def test_what_another_client_gets_in_the_middle_of_a_push_is_its_pull(
    other: dict[str, str],
) -> None:
    assert actions(push(0), pull(0.1, **other), push(0.2, tag="v1")) == ["pull", "push v1"]


def test_a_pull_that_names_a_tag_or_has_one_is_not_read_back() -> None:
    assert actions(push(0), pull(0.1, tag="v1"), push(0.2, tag="v1")) == ["pull v1", "push v1"]
    events = push(0), check(0.05, tag="v1"), pull(0.1), push(0.2, tag="v1")
    assert actions(*events) == ["pull v1", "push v1"]


@pytest.mark.parametrize(
    ("begun", "at", "told"),
    [
        (0, 60, 1),
        (0, 60.001, 2),
        (60.1, 60, 1),
        (60.101, 60, 2),
    ],
)
def test_the_push_by_digest_was_within_a_minute(begun: float, at: float, told: int) -> None:
    assert len(actions(push(begun), pull(at), push(at + 1, tag="v1"))) == told


@pytest.mark.parametrize(("tag", "told"), [(6, 1), (6.001, 2), (0.9, 1), (0.899, 2)])
def test_the_tag_is_pushed_within_5_seconds_of_what_was_read_back(tag: float, told: int) -> None:
    assert len(actions(push(0), pull(1), push(tag, tag="v1"))) == told


@pytest.mark.parametrize(("at", "told"), [(-4, 1), (-4.001, 2), (6, 1), (6.001, 2)])
def test_another_node_dates_it_up_to_5_seconds_apart(at: float, told: int) -> None:
    events = push(0), pull(at, source="b"), push(1, tag="v1")

    assert len(actions(*events)) == told


def test_the_first_tag_after_what_was_read_back_takes_it() -> None:
    before, read, one, other = push(0.95, tag="v0"), pull(1), push(2, tag="v1"), push(3, tag="v2")

    assert folded(push(0), before, read, one, other)[2].part_of == one.id
    assert folded(push(0), before, read)[2].part_of == before.id


def test_a_push_of_another_node_is_seen_behind_one_of_the_same() -> None:
    begun, tag = push(2, source="b"), push(3, tag="v1")
    assert folded(pull(0), push(1), begun, tag)[0].part_of == tag.id

    before, nearer = push(-2, tag="v1", source="b"), push(-1, tag="v2")
    assert folded(push(-3), before, nearer, pull(0))[3].part_of == before.id


def test_pushes_and_pulls_are_told_apart() -> None:
    assert actions(push(0, "amd64"), pull(1, "index", "v1")) == ["push", "pull v1"]
    assert actions(pull(0, "amd64"), push(1, "index", "v1")) == ["pull", "push v1"]
    assert actions(check(0, tag="v1"), push(1)) == ["check v1", "push"]


# Deletes


def test_a_delete_by_digest_with_three_tags_is_one_delete() -> None:
    request = {"request_id": "r1"}
    whole = delete(0, "image", **request)
    tags = [delete(0.003, tag=tag, **request) for tag in ("v1", "v2", "v3")]

    assert folded(whole, *tags) == [
        Fold(),
        *[Fold(part_of=whole.id, tag=e.tag, tag_from="event") for e in tags],
    ]


def test_the_request_tells_two_deletes_apart() -> None:
    one, other = delete(0, "one", request_id="r1"), delete(1, "other", request_id="r2")
    tag = delete(1.1, tag="v1", request_id="r1")

    assert folded(one, other, tag)[2].part_of == one.id


@pytest.mark.parametrize("at", [600, -600])
def test_the_tags_of_a_request_follow_within_ten_minutes(at: float) -> None:
    whole = delete(0, "image", request_id="r1")

    assert actions(whole, delete(at, tag="v1", request_id="r1")) == ["delete"]
    assert len(actions(whole, delete(at * 1.00001, tag="v1", request_id="r1"))) == 2


@pytest.mark.parametrize(("at", "deletes"), [(2, 1), (2.001, 2), (-2, 1), (-2.001, 2)])
def test_without_a_request_the_tags_are_dated_within_2_seconds(at: float, deletes: int) -> None:
    assert len(actions(delete(0, "image"), delete(at, tag="v1"))) == deletes
    assert (
        len(actions(delete(0, "image", request_id="r1"), delete(at, tag="v1", request_id="r2")))
        == deletes
    )


def test_the_nearest_delete_by_digest_takes_the_tag() -> None:
    one, other = delete(0, "one"), delete(1.5, "other")

    assert folded(one, other, delete(0.7, tag="v1"))[2].part_of == one.id
    assert folded(one, other, delete(0.8, tag="v1"))[2].part_of == other.id
    assert folded(one, other, delete(0.75, tag="v1"))[2].part_of == one.id
    assert folded(one, other, delete(1.6, tag="v1"))[2].part_of == other.id


@pytest.mark.parametrize("other", OTHER_CLIENTS)
def test_a_delete_by_another_client_is_one_of_its_own(other: dict[str, str]) -> None:
    assert len(actions(delete(0, "image"), delete(1, tag="v1", **other))) == 2


def test_two_deletes_by_digest_are_two() -> None:
    one, other = delete(0, "one", request_id="r1"), delete(1, "other", request_id="r1")

    assert actions(one, other) == ["delete", "delete"]


def test_two_deletes_by_tag_are_two() -> None:
    assert actions(delete(0, tag="v1"), delete(1, tag="v2")) == ["delete v1", "delete v2"]


def test_the_delete_of_a_repository_is_no_part_and_has_none() -> None:
    request = {"request_id": "r1"}

    assert actions(delete(0, **request), delete(1, tag="v1", **request)) == ["delete", "delete v1"]
    assert actions(delete(0, **request), delete(1, "image", **request)) == ["delete", "delete"]


def test_a_delete_by_tag_and_digest_is_one_of_its_own() -> None:
    assert actions(delete(0, "image"), delete(1, "other", "v1")) == ["delete", "delete v1"]
    assert actions(delete(0, "image"), delete(0, "other", "v1")) == ["delete", "delete v1"]


def test_a_mount_is_what_it_is() -> None:
    mount = make_event("mount", 0, "amd64")

    assert folded(mount, pull(1, "index"), push(2, "index"))[0] == Fold()
    assert actions(mount, delete(1, tag="v1")) == ["mount", "delete v1"]


# Any history


def test_of_two_events_with_one_id_the_first_in_time_counts() -> None:
    first, second = pull(0, tag="v1", id="x"), pull(1, tag="v2", id="x")

    assert fold([second, first], {}, no_history) == {"x": Fold(tag="v1", tag_from="event")}


def as_event(number: int, drawn: tuple[Any, ...]) -> Event:
    action, at, digest, tag, actor, source, request = drawn
    if action == "delete":
        digest, tag = (digest, None) if tag is None else (None, tag)
    return make_event(
        action,
        at,
        digest,
        tag,
        id=f"{number * 7919 % 1000:03}",  # so that events of one time are in any order
        actor=actor,
        source=source,
        request_id=request,
    )


DIGESTS = [
    ["amd64"],
    ["amd64", "index"],
    ["amd64", "arm64", "index", "sibling", "outer"],
    ["amd64", "untold"],
    ["amd64", "arm64", "untold", "untold too"],
    ["amd64", "arm64", "attestation", *sorted(INDEXES)],
]
STEPS = [0.001, 0.5, 1, 2.5, 10, 20, 61, 600]  # seconds


@st.composite
def histories(draw: Any, max_size: int = 10) -> list[Event]:
    """Few digests, tags, clients and nodes; dense and sparse, and often at the edge of a rule."""
    digests = draw(st.sampled_from(DIGESTS))
    kinds = draw(
        st.sampled_from(
            [["pull"], ["pull", "check"], ["push"], ["delete"], ["pull", "check", "push", "delete"]]
        )
    )
    step = draw(st.sampled_from(STEPS))
    drawn = st.tuples(
        st.sampled_from(kinds),
        st.integers(0, 30).map(lambda n: round(n * step, 3)),
        st.sampled_from(digests),
        st.sampled_from([None, None, "v1", "v2"]),
        st.sampled_from(draw(st.sampled_from([["alice"], ["alice", "bob"]]))),
        st.sampled_from(["a", "b"]),
        st.sampled_from(["", "r1", "r2"]),
    )
    return [as_event(*numbered) for numbered in enumerate(draw(st.lists(drawn, max_size=max_size)))]


def tag_at(event: Event) -> str | None:
    """Some history: a tag pointed to some digests for a time."""
    return {"arm64": "old", "riscv": "old"}.get(event.digest or "") if event.id < "500" else None


def ask(events: Iterable[Event], children: Any = CHILDREN) -> dict[str, Fold]:
    return fold(events, children, tag_at)


@settings(max_examples=500, deadline=None)
@given(histories())
def test_any_history_folds_as_the_rules_say_word_by_word(events: list[Event]) -> None:
    assert ask(events) == folding_oracle.fold(events, CHILDREN, tag_at)


@settings(max_examples=40, deadline=None)
@given(histories(max_size=5))
def test_every_order_gives_the_same_answer(events: list[Event]) -> None:
    answer = ask(events)

    assert all(ask(order) == answer for order in itertools.permutations(events))


@settings(max_examples=100, deadline=None)
@given(histories(max_size=30), st.data())
def test_order_and_repetition_change_nothing(events: list[Event], data: st.DataObject) -> None:
    again = data.draw(st.permutations([*events, *events[::2]]))

    assert ask(again) == ask(events)


@settings(max_examples=100, deadline=None)
@given(histories(), histories(), histories())
def test_what_is_more_than_an_hour_away_changes_nothing(
    events: list[Event], before: list[Event], after: list[Event]
) -> None:
    far = timedelta(hours=1, milliseconds=1)
    moments = [event.timestamp for event in events] or [NOW]
    away = [
        *moved(before, min(moments) - far - timedelta(seconds=30 * STEPS[-1]), "before"),
        *moved(after, max(moments) + far, "after"),
    ]

    answer = ask([*events, *away])

    assert {event.id: answer[event.id] for event in events} == ask(events)


def moved(events: Sequence[Event], since: datetime, name: str) -> list[Event]:
    """The same events, named anew, from `since` on instead of NOW."""
    shift = (since - NOW).total_seconds()
    return [
        make_event(
            event.action,
            (event.timestamp - NOW).total_seconds() + shift,
            event.digest,
            event.tag,
            id=f"{name} {event.id}",
            actor=event.actor,
            source=event.source,
            request_id=event.request_id,
        )
        for event in events
    ]


PARTS = [
    [("check", "image", "v1"), ("pull", "image", None)],
    [("check", "image", "v1"), ("check", "image", None), ("pull", "image", None)],
    [("check", "index", "v1"), ("pull", "index", None), ("pull", "amd64", None)],
    [("check", "untold", "v1"), ("pull", "untold", None), ("pull", "amd64", None)],
    [
        ("check", "outer", "v1"),
        ("pull", "outer", None),
        ("pull", "index", None),
        ("check", "amd64", None),
        ("pull", "amd64", None),
        ("pull", "arm64", None),
    ],
]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(PARTS),
            st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 10)), min_size=6, max_size=6),
        ),
        min_size=1,
        max_size=6,
    ),
    st.lists(st.floats(0, 5), min_size=3, max_size=3),
)
def test_clocks_that_differ_by_5_seconds_count_each_pull_once(
    pulls: list[Any], clocks: list[float]
) -> None:
    events = []
    for number, (parts, nodes) in enumerate(pulls):
        at = number * 200.0
        for (action, digest, tag), (node, pause) in zip(parts, nodes, strict=False):
            at = round(at + pause, 3)
            dated = round(at + clocks["abc".index(node)], 3)
            key = f"{len(events):03}"  # one node dates events in the order in which it saw them
            events.append(make_event(action, dated, digest, tag, source=node, id=key))

    assert actions(*events) == ["pull v1"] * len(pulls)


@settings(max_examples=200, deadline=None)
@given(
    histories(),
    st.dictionaries(
        st.sampled_from(sorted(INDEXES | {"amd64"})),
        st.lists(st.sampled_from(sorted(INDEXES | {"amd64"})), max_size=4),
    ),
)
def test_parts_are_part_of_a_whole_even_where_manifests_claim_to_hold_each_other(
    events: list[Event], children: dict[str, list[str]]
) -> None:
    folds = ask(events, children)

    assert folds.keys() == {event.id for event in events}
    for key, one in folds.items():
        assert one.part_of is None or (one.part_of != key and folds[one.part_of].part_of is None)


def test_pushes_that_claim_to_hold_each_other_are_part_of_the_first() -> None:
    children = {"a": ("b", "leaf"), "b": ("a",), "leaf": ("twig",)}
    events = push(0, "twig"), push(1, "leaf"), push(2, "a"), push(3, "b")

    for order in itertools.permutations(events):
        folds = fold(order, children, no_history)
        assert [folds[e.id].part_of for e in events] == [
            events[2].id,
            events[2].id,
            None,
            events[2].id,
        ]


def long_history(rng: random.Random) -> list[Event]:
    """Hours of one client's pulls, checks and deletes, all at once dense and sparse."""
    digests, span = rng.choice(DIGESTS), rng.choice([600, 3600, 10800])
    step = rng.choice([0.001, 0.001, 0.5, 5])
    kinds = rng.choice([["pull", "check"], ["pull", "check", "delete"]])
    return [
        as_event(
            number,
            (
                rng.choice(kinds),
                round(rng.randrange(int(span / step)) * step, 3),
                rng.choice(digests),
                rng.choice([None, None, "v1", "v2"]),
                "alice",
                rng.choice("ab"),
                rng.choice(["", "r1", "r2"]),
            ),
        )
        for number in range(rng.choice([20, 100, 400]))
    ]


@pytest.mark.parametrize("seed", range(60))
def test_a_part_of_a_history_folds_as_the_whole(seed: int) -> None:
    rng = random.Random(seed)
    events = long_history(rng)
    whole = ask(events)

    for _ in range(5):
        begin = rng.choice(events).timestamp
        end = begin + timedelta(seconds=rng.choice([0, 1, 60]))
        near = [e for e in events if between(e, begin, end, minutes(15), minutes(30))]
        asked = [e.id for e in events if between(e, begin, end, minutes(2.5), minutes(13))]

        part = ask(near)

        assert {key: part[key] for key in asked} == {key: whole[key] for key in asked}


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def between(
    event: Event, begin: datetime, end: datetime, before: timedelta, after: timedelta
) -> bool:
    return begin - before <= event.timestamp <= end + after


@pytest.mark.parametrize("seed", range(60))
def test_a_new_event_changes_no_fold_that_is_further_away(seed: int) -> None:
    rng = random.Random(seed)
    events = [event for event in long_history(rng) if event.action != "delete"]
    whole = ask(events)

    for new in rng.sample(events, 5):
        without = ask(event for event in events if event is not new)
        changed = [e for e in events if e is not new and without[e.id] != whole[e.id]]

        assert [
            e for e in changed if not between(e, new.timestamp, new.timestamp, BEFORE, AFTER)
        ] == []


def test_a_new_event_changes_the_fold_of_a_check_two_minutes_and_5_seconds_before() -> None:
    checked, child = check(0, "amd64"), pull(60, "amd64", source="b")
    index, new = pull(65, "untold"), pull(125, "other")

    assert folded(checked, child, index)[0].part_of == index.id
    assert folded(checked, child, index, new)[0].part_of == child.id
    assert new.timestamp - checked.timestamp == BEFORE


def test_a_new_event_changes_the_fold_of_a_check_12_minutes_and_5_seconds_after() -> None:
    new, *parts = pull(0, "index"), *[pull(at, "arm64") for at in range(60, 601, 60)]
    untold, child, checked = pull(660, "untold"), pull(720, "app"), check(725, "app", source="b")
    events = checked, child, untold, *parts

    assert folded(*events)[0].part_of == child.id
    assert folded(*events, new)[0].part_of == untold.id
    assert checked.timestamp - new.timestamp == AFTER


@pytest.mark.parametrize("seed", range(60))
def test_related_digests_are_all_that_a_fold_looks_at(seed: int) -> None:
    rng = random.Random(seed)
    events = [event for event in long_history(rng) if event.action != "delete"]
    whole = ask(events)
    pulled = {event.digest or "" for event in events if event.action == "pull"}
    asked = {event.digest or "" for event in rng.sample(events, 2)}

    found = related(asked, pulled & INDEXES, CHILDREN)
    part = ask(event for event in events if found is None or event.digest in found)

    ids = [event.id for event in events if event.digest in asked]
    assert {key: part[key] for key in ids} == {key: whole[key] for key in ids}


def test_the_families_of_indexes_that_share_a_child_are_related() -> None:
    assert related({"amd64"}, {"index"}, CHILDREN) == {"amd64", "arm64", "index"}
    for order in itertools.permutations(["index", "sibling"]):
        for first in ("amd64", "arm64", "riscv"):
            everything = {"amd64", "arm64", "index", "riscv", "sibling"}
            assert related({first}, order, CHILDREN) == everything
    assert related({"other"}, {"index"}, CHILDREN) == {"other"}
    assert related({"other"}, {"untold"}, CHILDREN) is None


# What real registries sent


def recorded(name: str) -> dict[str, list[Event]]:
    """Manifest events of a recording, by what the client did."""
    cases: defaultdict[str, list[Event]] = defaultdict(list)
    for line in (DATA / name).read_text().splitlines():
        row = json.loads(line)
        body = json.dumps(row.get("envelope") or row["body"]).encode()
        events = parse_envelope(body, "default", NOW + timedelta(days=30)).events
        cases[str(row.get("action") or row.get("case"))] += events
    return cases


def told_by_case(name: str) -> dict[str, list[str]]:
    """What each case was folded into; parts are left out, also those of another case."""
    cases = recorded(name)
    by_repository: defaultdict[str, list[Event]] = defaultdict(list)
    children: dict[str, list[str]] = {}
    for event in itertools.chain.from_iterable(cases.values()):
        by_repository[event.repository].append(event)
        if event.kind == "index" and event.references:
            children[event.digest or ""] = [child.digest for child in event.references]
    folds: dict[str, Fold] = {}
    for events in by_repository.values():
        folds |= fold(events, children, no_history)
    return {
        case: [
            f"{event.action} {event.repository} {folds[event.id].tag or ''}".strip()
            for event in {event.id: event for event in events}.values()
            if not folds[event.id].part_of
        ]
        for case, events in cases.items()
    }


def starting(cases: dict[str, list[str]], name: str) -> list[str]:
    (found,) = [told for case, told in cases.items() if case.startswith(name)]
    return found


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("push multi-arch OCI index (3 children)", ["push team/multi v1"]),
        ("pull multi-arch by tag: index then child", ["pull team/multi v1"]),
        ("skopeo copy registry->registry as puller", ["pull team/multi v1"]),
        ("skopeo inspect (full)", ["pull team/app v1"]),
        ("delete manifest by digest (tag v1 points to it)", ["delete team/app"]),
        ("skopeo delete", ["pull busybox latest", "delete busybox"]),
        ("GET manifest list with Accept v2s2 only", ["pull ev2/multi v1"]),
        ("delete by digest with two tags on it", ["delete ev2/app"]),
        ("redelivery 3 of 3", ["push q/app slow1"]),
    ],
)
def test_each_action_at_a_registry_2_8_is_told_once(case: str, told: list[str]) -> None:
    assert starting(told_by_case("registry-2.8.2-cases.jsonl"), case) == told


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("HEAD tag + GET digest (docker pull)", ["pull team/app v1"]),
        ("push OCI index 3 platforms", ["push team/multi latest"]),
        ("docker-style pull of the index", ["pull team/multi latest"]),
        ("skopeo copy --all index", ["pull team/multi latest", "push team/multi-copy latest"]),
        ("skopeo copy registry -> dir", ["pull team/app v1"]),
        ("move tag team/app:stable", ["push team/app stable"]),
        ("DELETE tag team/app:stable (by tag)", ["delete team/app stable"]),
        ("DELETE manifest by digest d1", ["delete team/app"]),
        ("DELETE index manifest by digest", ["delete team/multi"]),
        ("skopeo delete a/b/c/d:1.0", ["pull a/b/c/d 1.0", "delete a/b/c/d"]),
    ],
)
def test_each_action_at_a_registry_3_1_is_told_once(case: str, told: list[str]) -> None:
    assert starting(told_by_case("registry-3.1.jsonl"), case) == told
