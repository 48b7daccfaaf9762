"""Accounts in an htpasswd file, as the registry's own `auth: htpasswd` reads it: bcrypt only."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from app.errors import AccountsUnavailable


class Htpasswd:
    """The file, read again whenever it has changed; safe for threads."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._hashes: dict[str, str] = {}
        self.problems: list[str] = []

    def find_all(self) -> dict[str, str]:
        """The bcrypt hash of each account by name; lines that are none are in `problems`.

        Raises:
            AccountsUnavailable: the file cannot be read.
        """
        with self._lock:
            try:
                status = os.stat(self.file)
                seen = (status.st_mtime_ns, status.st_size, status.st_ino)
                if seen != self._seen:
                    self._read()
                    self._seen = seen
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not UTF-8"
                raise AccountsUnavailable(
                    f"docker_auth.htpasswd: {self.file} cannot be read: {reason}"
                ) from None
            return self._hashes

    def _read(self) -> None:
        hashes: dict[str, str] = {}
        problems = []
        lines = self.file.read_bytes().decode("utf-8-sig").split("\n")
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            name, separator, hashed = text.partition(":")
            if not separator or not name:
                problems.append(f"line {number}: expected name:hash")
            elif not hashed.startswith(("$2a$", "$2b$", "$2y$")):
                hashes.pop(name, None)  # the registry takes the last line of an account
                problems.append(f"line {number}: {name}: not bcrypt; use htpasswd -B")
            else:
                hashes[name] = hashed
        self._hashes, self.problems = hashes, problems
