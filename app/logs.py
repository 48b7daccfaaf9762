"""Log lines that stay lines, and short, whatever came from outside; no token of ours is in one."""

from __future__ import annotations

import logging
import re
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
        # gunicorn switches this off, and its lines would go past the formatter.
        "gunicorn.error": {"level": "INFO", "propagate": True},
        "gunicorn.access": {"level": "WARNING"},
        "pymongo": {"level": "WARNING"},
    },
}


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


def _line(text: str) -> str:
    line = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode()
        for c in text[: MAX_LINE_BYTES + 1]
    )
    if len(line.encode("utf-8", "replace")) <= MAX_LINE_BYTES:
        return line
    return line.encode("utf-8", "replace")[:MAX_LINE_BYTES].decode("utf-8", "ignore") + "…"
