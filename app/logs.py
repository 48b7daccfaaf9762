"""Log lines that stay lines, and short, whatever came from outside; no token of ours is in one."""

from __future__ import annotations

import logging
import re
import threading
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

MAX_LINE_BYTES = 1000
MAX_TRACEBACK_LINES = 100
COMPLAIN_S = 60.0  # between two lines about the same

LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"

request_id: ContextVar[str] = ContextVar("request_id", default="")  # of the one being answered


def logging_config(form: Literal["text", "json"] = "text", level: str = "info") -> dict[str, Any]:
    """What logging.config.dictConfig takes; `level` is that of this program's own lines."""
    own = level.upper()
    others = "INFO" if own == "DEBUG" else own
    formatter = {"()": "app.logs.LineFormatter", "format": LINE}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": "app.logs.JsonFormatter"} if form == "json" else formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"level": others, "handlers": ["stderr"]},
        "loggers": {
            "app": {"level": own},
            # It does not pass on to the root what it says.
            "gunicorn.error": {"level": "WARNING", "handlers": ["stderr"]},
            "gunicorn.access": {"level": "WARNING"},
            "pymongo": {"level": "WARNING"},
            "flask_wtf.csrf": {"level": "WARNING"},  # a line for each form that lacks its token
        },
    }


class Complaints:
    """What would be told again and again while something is away or wrong; threads share it.

    One line a minute tells what is wrong, and how many there were since the one before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, tuple[float, int]] = {}  # when, and how many since

    def tell(
        self, logger: logging.Logger, whom: str, error: object, level: int = logging.ERROR
    ) -> None:
        """Log that `error` happened to `whom`, unless the same was logged within a minute.

        Those are the same that begin alike, up to a colon, as in `the database refuses: …`.
        """
        now = time.monotonic()
        about = str(error).partition(":")[0]
        with self._lock:
            told_at, since = self._told.get(about, (-COMPLAIN_S, 0))
            is_due = now - told_at >= COMPLAIN_S
            self._told[about] = (now, 0) if is_due else (told_at, since + 1)
        if is_due:
            others = f"; {since:,} more since this was last told" if since else ""
            logger.log(level, "%s: %s%s", whom, error, others)


_TOKEN = re.compile(r"rns_[0-9a-f]{16,}")  # of app.rules.tokens, or a good part of one


def hide_tokens(text: str) -> str:
    """`text` without API tokens: somebody may give one as a user name, or in a path."""
    return _TOKEN.sub("rns_…", text)


class LineFormatter(logging.Formatter):
    """Escapes control characters and cuts what is long; the lines of a traceback are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """The formatted line, with its traceback if there is one."""
        return hide_tokens(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The formatted line, before a traceback is added."""
        return _line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """The traceback. An error's message may have any number of lines, of any length."""
        lines = super().formatException(ei).splitlines()
        half = MAX_TRACEBACK_LINES // 2
        if len(lines) > MAX_TRACEBACK_LINES:
            lines[half:-half] = ["…"]
        return "\n".join(f"  {_line(line)}" for line in lines)


class JsonFormatter(LineFormatter):
    """One JSON object a line: time, level, logger, message, request_id, traceback.

    What a line is logged with as `extra={"fields": {…}}` stands beside these.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        moment = datetime.fromtimestamp(record.created, UTC)
        row: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _line(record.getMessage()),
        }
        if known := request_id.get():
            row["request_id"] = known
        row |= getattr(record, "fields", {})
        if record.exc_info:
            row["traceback"] = self.formatException(record.exc_info)
        return hide_tokens(msgspec.json.encode(row).decode())


def _line(text: str) -> str:
    line = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text[: MAX_LINE_BYTES + 1]
    )
    if len(line.encode("utf-8", "replace")) <= MAX_LINE_BYTES:
        return line
    return line.encode("utf-8", "replace")[:MAX_LINE_BYTES].decode("utf-8", "ignore") + "…"
