"""Log lines, whatever stands in them."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest

from app.logs import LOGGING, LineFormatter

FORMAT = LOGGING["formatters"]["line"]["format"]
HOSTILE = [
    "x" * 14_000,
    "\x00" * 14_000,
    "\U0001f600" * 14_000,
    "\n2026-11-27 00:00:00,000 INFO app: forged\n" * 400,
    "\r\x0b\x85\u2028\x1b[31m\ud800\u202e",
]


def formatted(text: str, error: BaseException | None = None) -> str:
    told: Any = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("app", logging.WARNING, "", 0, "refused: %r %s", (text, text), told)
    return LineFormatter(FORMAT).format(record)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_log_line_is_one_and_short(text: str) -> None:
    line = formatted(text)

    assert line.isprintable()
    assert "WARNING app: refused: " in line
    assert len(line.encode()) <= 1010


def test_a_short_line_stays_whole() -> None:
    assert formatted("alice").endswith(" WARNING app: refused: 'alice' alice")


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_the_message_of_an_error_forges_no_line_and_is_bounded(text: str) -> None:
    try:
        raise ValueError(text)
    except ValueError:
        lines = formatted("alice", sys.exc_info()[1]).split("\n")

    assert "Traceback" in lines[1]
    assert len(lines) <= 110
    assert all(line.startswith("  ") and line.isprintable() for line in lines[1:])
    assert max(len(line.encode()) for line in lines) <= 1010
