"""Log lines that stay lines, and short: what came from outside cannot begin a new one."""

from __future__ import annotations

import logging
from typing import Any

MAX_LINE_BYTES = 1000
MAX_TRACEBACK_LINES = 100

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {
            "()": "app.logs.LineFormatter",
            "format": "%(asctime)s %(levelname)s %(name)s: %(message)s",
        }
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "loggers": {
        "gunicorn.error": {"level": "INFO"},
        "gunicorn.access": {"level": "WARNING"},
        "pymongo": {"level": "WARNING"},
    },
}


class LineFormatter(logging.Formatter):
    """Escapes control characters and cuts what is long; the lines of a traceback are indented."""

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


def _line(text: str) -> str:
    line = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text[: MAX_LINE_BYTES + 1]
    )
    if len(line.encode("utf-8", "replace")) <= MAX_LINE_BYTES:
        return line
    return line.encode("utf-8", "replace")[:MAX_LINE_BYTES].decode("utf-8", "ignore") + "…"
