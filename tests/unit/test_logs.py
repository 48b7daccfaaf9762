"""Log lines, whatever stands in them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import Any
from unittest.mock import Mock

import pytest

from app.errors import StoreUnavailable
from app.logs import LINE, Complaints, JsonFormatter, LineFormatter, logging_config, request_id

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
    return LineFormatter(LINE).format(record)


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


def as_json(text: str, error: BaseException | None = None, **more: Any) -> Any:
    told: Any = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("app.web", logging.WARNING, "", 0, "refused: %s", (text,), told)
    record.__dict__.update(more)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    return json.loads(line)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_json_line_is_one_object_whatever_stands_in_it(text: str) -> None:
    row = as_json(text)

    assert row["message"].startswith("refused: ")
    assert row["message"].isprintable()
    assert (row["level"], row["logger"]) == ("warning", "app.web")
    assert row["time"].endswith("Z")


def test_a_json_line_has_the_request_its_fields_and_the_traceback() -> None:
    before = request_id.set("abc-1")
    try:
        raise ValueError("why")
    except ValueError as error:
        row = as_json("x", error, fields={"accepted": 2})
    finally:
        request_id.reset(before)

    assert (row["request_id"], row["accepted"]) == ("abc-1", 2)
    assert "ValueError: why" in row["traceback"]
    assert "request_id" not in as_json("x")


def test_a_json_line_shows_no_token() -> None:
    assert "rns_0123456789abcdef" not in json.dumps(as_json("rns_0123456789abcdef0123"))


def test_debug_is_for_lines_of_this_program_alone() -> None:
    levels = {level: logging_config("text", level) for level in ("debug", "warning")}

    assert levels["debug"]["loggers"]["app"]["level"] == "DEBUG"
    assert levels["debug"]["root"]["level"] == "INFO"
    assert levels["warning"]["root"]["level"] == "WARNING"


def test_what_gunicorn_says_is_a_line_like_any_other() -> None:
    program = (
        "from gunicorn.config import Config; from gunicorn.glogging import Logger;"
        "from app.logs import logging_config;"
        "config = Config(); config.set('logconfig_dict', logging_config());"
        "Logger(config).warning('G<T\\n%s', 'a' * 3000)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    [line] = done.stderr.splitlines()
    assert " WARNING gunicorn.error: G<T\\naaa" in line
    assert len(line) < 1020


def test_a_form_without_its_token_is_no_line_of_the_log() -> None:
    config = logging_config()

    assert config["loggers"]["flask_wtf.csrf"]["level"] == "WARNING"


def test_what_many_requests_would_tell_is_told_once_a_minute_with_their_number(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    at = 0.0
    monkeypatch.setattr("app.logs.time", Mock(monotonic=lambda: at))
    complaints, logger = Complaints(), logging.getLogger("app.test")
    for free in range(1200):
        error = StoreUnavailable(f"/data: only {free} MB are free")
        complaints.tell(logger, "POST /events", error)
    complaints.tell(logger, "GET /", StoreUnavailable("the database refuses: it: 28"))
    assert caplog.messages == [
        "POST /events: /data: only 0 MB are free",
        "GET /: the database refuses: it: 28",
    ]

    at = 60.0
    for _ in range(5):
        complaints.tell(logger, "GET /readyz", StoreUnavailable("/data: only 7 MB are free"))
    at = 3600.0
    complaints.tell(logger, "GET /readyz", StoreUnavailable("/data: only 8 MB are free"))
    assert caplog.messages[2:] == [
        "GET /readyz: /data: only 7 MB are free; 1,199 more since this was last told",
        "GET /readyz: /data: only 8 MB are free; 4 more since this was last told",
    ]
