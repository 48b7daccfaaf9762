"""Log lines that stay lines, and tell no token of ours, whatever came from outside."""

from __future__ import annotations

import logging
import re
from typing import Any

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


_TOKEN = re.compile(r"rns_[0-9a-f]{16,}")  # of app.rules.tokens, or a good part of one


def hide_tokens(text: str) -> str:
    """`text` without API tokens: somebody may give one as a user name, or in a path."""
    return _TOKEN.sub("rns_…", text)


class LineFormatter(logging.Formatter):
    """Escapes control characters in the message; a traceback keeps its lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The formatted line, with its traceback if there is one."""
        return hide_tokens(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The formatted line, before a traceback is added."""
        text = super().formatMessage(record)
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
