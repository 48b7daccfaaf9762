"""What `rns check --explain` says of a query, and what it keeps to itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.cli.explain import Verdict
from app.store.explaining import SentQuery
from app.store.query_plans import QueryPlan

QUERY = SentQuery(
    collection="events",
    method="EventStore.find_page",
    fields=("repository", "kind"),
    sort=("position",),
    is_counted=False,
    command={"find": "events", "filter": {"repository": "hidden/app", "kind": "image"}},
)


def verdict(*, counted: bool = False, fields: tuple[str, ...] = QUERY.fields, **plan: Any) -> Any:
    query = msgspec.structs.replace(QUERY, is_counted=counted, fields=fields)
    return Verdict(query, QueryPlan(**({"is_told": True} | plan)))


@pytest.mark.parametrize(
    ("one", "level"),
    [
        (verdict(indexes=("a",), read=5_000, returned=4_000), "ok"),
        (verdict(indexes=("a",), read=5_000, returned=400), "look"),
        (verdict(indexes=("a",), read=5_000, returned=400, counted=True), "ok"),
        (verdict(indexes=("a",), read=5_000, returned=4_000, is_sorted=True), "look"),
        (verdict(is_whole=True, read=5_000, returned=4_000), "look"),
        (verdict(is_whole=True, read=5_000, returned=5_000, fields=()), "ok"),  # all is wanted
        (verdict(is_whole=True, is_sorted=True, read=900, returned=1), "ok"),
        (verdict(is_told=False), "not told"),
        (verdict(is_whole=True), "look"),  # it is not told how much was read
        (verdict(indexes=("a",)), "ok"),
        (verdict(is_told=False, is_too_slow=True), "look"),
        (verdict(indexes=("a",), is_too_slow=True, read=9, counted=True), "look"),
        (verdict(indexes=("a",), refusal="failed with code 292", read=9), "look"),
        (verdict(is_told=False, refusal="refused with code 13"), "not told"),
    ],
)
def test_what_reads_much_for_little_is_to_be_looked_at(one: Verdict, level: str) -> None:
    assert one.level == level


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (verdict(indexes=("a_1", "b_1"), read=12, returned=3), "index a_1, b_1, read 12 for 3"),
        (
            verdict(is_whole=True, is_sorted=True, read=1_200, returned=3),
            "whole collection, sorted in memory, read 1,200 for 3",
        ),
        (verdict(indexes=("a_1",), read=12, returned=1, counted=True), "index a_1, read 12"),
        (verdict(), "nothing to read"),
        (verdict(is_told=False), "not told"),
        (verdict(is_told=False, refusal="refused with code 13"), "refused with code 13"),
        (verdict(is_told=False, is_too_slow=True), "took longer than 10 s"),
        (
            verdict(is_whole=True, is_too_slow=True, read=1_200, returned=0),
            "took longer than 10 s, whole collection, read 1,200 for 0",
        ),
        (
            verdict(is_sorted=True, refusal="failed with code 292", read=12, returned=0),
            "failed with code 292, sorted in memory, read 12 for 0",
        ),
    ],
)
def test_a_plan_in_words(one: Verdict, text: str) -> None:
    assert one.text == text


def test_fields_are_named_and_never_their_values() -> None:
    one = verdict(indexes=("a_1",), read=12, returned=3)

    assert one.row()["fields"] == "repository, kind; by position"
    for shown in (one.row(), one.data()):
        text = msgspec.json.encode(shown).decode()
        assert "hidden" not in text
        assert "image" not in text
