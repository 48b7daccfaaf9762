"""Bars of a chart: how high, how wide, and how a change is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.web.charts import HEIGHT, LEAST, Chart, Column, Series, change

SERIES = (Series("pull", "Pulls", "pull", {}), Series("push", "Pushes", "push", {}))


def columns(*numbers: tuple[int, int]) -> list[Column]:
    start = datetime(2026, 11, 10, tzinfo=UTC)
    day = timedelta(days=1)
    return [Column(start + n * day, start + n * day + day, both) for n, both in enumerate(numbers)]


def test_the_pieces_of_a_bar_stand_on_each_other_and_reach_as_far_as_their_sum() -> None:
    chart = Chart(SERIES, columns((30, 10), (0, 0), (5, 0)))

    pulls, pushes, last = chart.marks

    assert chart.top == 40
    assert (pulls.y + pulls.height, pulls.y) == (HEIGHT, pushes.y + pushes.height)
    assert pushes.y == 0
    assert (last.number, last.height) == (5, HEIGHT / 8)


def test_what_hardly_happened_can_still_be_seen() -> None:
    [_, little] = Chart(SERIES, columns((100_000, 1))).marks

    assert little.height == LEAST


def test_bars_of_the_period_before_stand_beside_and_share_the_scale() -> None:
    chart = Chart(SERIES, columns((1, 0)), columns((9, 0), (1, 1)))

    assert chart.top == 10
    first, *_, now = chart.marks
    assert (first.is_before, now.is_before) == (True, False)
    assert first.x + first.width <= now.x
    assert all(mark.x >= 0 and mark.x + mark.width <= chart.width for mark in chart.marks)
    assert (chart.total(0), chart.total_before(0)) == (1, 10)


@pytest.mark.parametrize(
    ("highest", "top"),
    [(0, 2), (1, 2), (2, 2), (3, 4), (10, 10), (11, 12), (61, 80), (101, 120), (999, 1000)],
)
def test_the_scale_is_round_and_its_half_a_whole_number(highest: int, top: int) -> None:
    assert Chart(SERIES, columns((highest, 0))).top == top


@pytest.mark.parametrize(
    ("number", "before", "words"),
    [
        (0, 0, "none, as before"),
        (5, 5, "as many as before"),
        (5, 0, "none before"),
        (0, 5, "100% fewer than before"),
        (3, 2, "50% more than before"),
        (1001, 1000, "about as many as before"),
    ],
)
def test_a_change_is_told_in_words(number: int, before: int, words: str) -> None:
    assert change(number, before) == words
