"""The ACL in a file: `acl:` of docker_auth's own configuration."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from app.errors import AppError
from app.store.auth_config import read_acl
from app.store.paging import Document


class AclFile:
    """The file, read again whenever it has changed; safe for threads.

    `problem` says why it cannot be read: then nothing is allowed. Empty: it can.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problem = ""
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._documents: list[Document] = []

    def find_all(self) -> list[Document]:
        """The entries as documents `{seq, match, actions}`; none while there is a problem.

        The order of the file decides, so they are numbered from 1. What docker_auth ignores in
        an entry is ignored here too.
        """
        with self._lock:
            try:
                status = os.stat(self.file)
                seen = (status.st_mtime_ns, status.st_size, status.st_ino)
                if seen != self._seen:
                    entries = read_acl(self.file)
                    self._documents = [{**e.document, "seq": n} for n, e in enumerate(entries, 1)]
                    self._seen, self.problem = seen, ""
            except OSError as error:
                self._fail(f"{self.file}: {error.strerror}")
            except AppError as error:
                self._fail(str(error))
            return self._documents

    def _fail(self, reason: str) -> None:
        self.problem = f"docker_auth.acl_file: {reason}; so nothing is allowed"
        self._documents, self._seen = [], None
