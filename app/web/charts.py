"""Bars over time as the server draws them: stacked, beside those of the period before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec
from flask_babel import LazyString, format_decimal, gettext

STEP = 10  # the width of a day (or hour) in the drawing
HEIGHT = 100  # of a bar as high as the scale
TOPS = (2, 4, 6, 8, 10, 12, 16, 20, 30, 40, 50, 60, 80, 100)  # of a scale, times powers of ten
LEAST = 1  # of a bar that stands for anything


class Series(NamedTuple):
    """One colour of the bars; `filters` (beside the action) select its records, if any do."""

    style: str
    label: LazyString | str
    action: str
    filters: Mapping[str, str] | None


class Column(NamedTuple):
    """A day or an hour: how much of what, in the order of the series."""

    start: datetime
    end: datetime
    numbers: Sequence[int]


class Mark(NamedTuple):
    """One piece of a bar, and where it stands in the drawing."""

    series: Series
    column: Column
    number: int
    is_before: bool
    x: float
    width: float
    y: float
    height: float


class Chart(msgspec.Struct, frozen=True):
    """Bars over time; those `before` stand beside the ones of the same place in their period."""

    series: Sequence[Series]
    columns: Sequence[Column]
    before: Sequence[Column] = ()
    by: str = "action"
    choices: Sequence[str] = ()  # of `by`, where there is a choice
    is_size: bool = False  # numbers are bytes, each with those of the columns before it

    @property
    def width(self) -> int:
        """That of the drawing."""
        return STEP * max(len(self.columns), len(self.before))

    @property
    def top(self) -> int:
        """The number that the highest bar may reach, of which half is a whole one."""
        highest = max((sum(column.numbers) for column in (*self.columns, *self.before)), default=0)
        scale = 1
        while highest > TOPS[-1] * scale:
            scale *= 10
        return next(scale * top for top in TOPS if scale * top >= highest)

    @property
    def marks(self) -> list[Mark]:
        """All pieces of all bars."""
        if not self.before:
            return self._stack(self.columns, 1, 8, is_before=False)
        before = self._stack(self.before, 0.5, 3, is_before=True)
        return before + self._stack(self.columns, 3.5, 6, is_before=False)

    def _stack(
        self, columns: Sequence[Column], offset: float, width: float, *, is_before: bool
    ) -> list[Mark]:
        marks, top = list[Mark](), self.top
        for place, column in enumerate(columns):
            y = float(HEIGHT)
            for series, number in zip(self.series, column.numbers, strict=True):
                if number:
                    height = round(max(LEAST, HEIGHT * number / top), 2)
                    y = round(y - height, 2)
                    x = place * STEP + offset
                    marks.append(Mark(series, column, number, is_before, x, width, y, height))
        return marks

    def total(self, place: int) -> int:
        """All of a series."""
        if self.is_size:
            return self.columns[-1].numbers[place]
        return sum(column.numbers[place] for column in self.columns)

    def total_before(self, place: int) -> int:
        """The sum of a series in the period before."""
        return sum(column.numbers[place] for column in self.before)


def change(number: int, before: int) -> str:
    """How a number differs from the one before, in words."""
    if number == before:
        return gettext("as many as before") if number else gettext("none, as before")
    if not before:
        return gettext("none before")
    percent = format_decimal(round(100 * abs(number - before) / before))
    if percent == "0":
        return gettext("about as many as before")
    if number > before:
        return gettext("%(percent)s%% more than before", percent=percent)
    return gettext("%(percent)s%% fewer than before", percent=percent)
