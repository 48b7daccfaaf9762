"""Which `seq` the entries of a list get among those that are stored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.rules.access import place_entries


def entry(name: str, **fields: Any) -> dict[str, Any]:
    return {"match": {"name": name}, "actions": ["pull"], **fields}


def placed(stored: dict[int, str], *names: str) -> list[tuple[int, bool]]:
    there = {seq: entry(name, seq=seq) for seq, name in stored.items()}
    return [tuple(place) for place in place_entries(there, [entry(name) for name in names])]


@pytest.mark.parametrize(
    ("stored", "names", "places"),
    [
        pytest.param({}, "abc", [(10, True), (20, True), (30, True)], id="the first"),
        pytest.param({7: "x"}, "ab", [(10, True), (20, True)], id="after all that are stored"),
        pytest.param({10: "x"}, "ab", [(20, True), (30, True)], id="never at one that is taken"),
        pytest.param({-5: "x"}, "a", [(0, True)], id="after a negative one"),
        pytest.param({10: "a", 20: "b"}, "ab", [(10, False), (20, False)], id="once more"),
        pytest.param({10: "a", 20: "c"}, "abc", [(10, False), (15, True), (20, False)], id="in"),
        pytest.param({10: "c"}, "abc", [(-10, True), (0, True), (10, False)], id="at the head"),
        pytest.param({10: "a", 18: "x", 20: "c"}, "abc", [(10, False), (19, True), (20, False)]),
        pytest.param({10: "b", 20: "x"}, "bc", [(10, False), (30, True)], id="at the end"),
        pytest.param({}, "aba", [(10, True), (20, True), (10, True)], id="given twice is one"),
        pytest.param(
            {10: "b"}, "ababc", [(0, True), (10, False), (0, True), (10, False), (20, True)]
        ),
    ],
)
def test_new_entries_get_a_place_in_the_order_in_which_they_are_given(
    stored: dict[int, str], names: str, places: list[tuple[int, bool]]
) -> None:
    assert placed(stored, *names) == places


@given(
    stored=st.dictionaries(st.integers(-50, 50), st.sampled_from("abcdefgh"), max_size=6),
    names=st.lists(st.sampled_from("abcdefghij"), unique=True),
)
def test_places_are_in_order_and_free(stored: dict[int, str], names: list[str]) -> None:
    try:
        places = placed(stored, *names)
    except ValueError:
        return

    assert [seq for seq, _ in places] == sorted({seq for seq, _ in places})
    for name, (seq, is_new) in zip(names, places, strict=True):
        assert (seq not in stored) if is_new else (stored[seq] == name)


@pytest.mark.parametrize(
    ("stored", "names", "message"),
    [
        ({10: "b", 20: "a"}, "ab", "seq 20 and 10 are stored in the opposite order"),
        ({10: "a", 11: "c"}, "abc", "there is no room for 1 more between seq 10 and 11"),
        ({10: "a", 12: "d"}, "abcd", "there is no room for 2 more between seq 10 and 12"),
    ],
)
def test_what_has_no_place_is_told(stored: dict[int, str], names: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        placed(stored, *names)


def test_the_content_of_an_entry_is_what_it_says() -> None:
    stored = {5: {"seq": 5, "match": {"name": "a", "ip": None}, "actions": ["pull"], "comment": ""}}

    assert place_entries(stored, [entry("a")]) == [(5, False)]
    assert place_entries(stored, [entry("a", comment="other")]) == [(10, True)]
    assert place_entries(stored, [{**entry("a"), "actions": []}]) == [(10, True)]


def test_an_entry_with_its_own_seq_stands_there() -> None:
    stored = {5: entry("a")}

    assert place_entries(stored, [entry("b", seq=7), entry("a", seq=5)]) == [(7, True), (5, False)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([entry("b", seq=5)], "seq 5 is another entry in the collection"),
        ([entry("b", seq=7), entry("c", seq=7)], "seq 7 is given twice"),
        ([entry("b", seq=7), entry("c")], "some entries have a seq and some have none"),
    ],
)
def test_a_seq_that_cannot_be_is_told(given: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        place_entries({5: entry("a")}, given)
