"""The path that stands before every path of this server, where a proxy has it below one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


class BasePath:
    """WSGI middleware: SCRIPT_NAME is `base_path`, or what a trusted proxy says.

    A proxy may pass the path on with the prefix or without it.
    """

    def __init__(self, application: Any, base_path: str, trusted_proxies: int) -> None:
        self._application = application
        self._base_path = base_path
        self._trusted_proxies = trusted_proxies

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer the request."""
        prefix = self._find_forwarded(environ) or self._base_path
        if prefix:
            path = environ.get("PATH_INFO", "")
            if path == prefix or path.startswith(f"{prefix}/"):
                environ["PATH_INFO"] = path.removeprefix(prefix) or "/"
            environ["SCRIPT_NAME"] = prefix
        return self._application(environ, start_response)  # type: ignore[no-any-return]

    def _find_forwarded(self, environ: dict[str, Any]) -> str:
        """What the outermost trusted proxy says in X-Forwarded-Prefix; "" for what is no path."""
        if not self._trusted_proxies:
            return ""
        values = environ.get("HTTP_X_FORWARDED_PREFIX", "").split(",")
        if len(values) < self._trusted_proxies:
            return ""
        prefix = values[-self._trusted_proxies].strip().rstrip("/")
        return prefix if _PREFIX.fullmatch(prefix) else ""
