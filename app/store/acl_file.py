"""The ACL in a file: `acl:` of docker_auth's own configuration."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

from app.errors import ConfigError
from app.rules.access.auth_config import acl_documents
from app.settings import read_yaml
from app.store.paging import Document

logger = logging.getLogger(__name__)


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
        """The entries as documents `{seq, match, actions}`; none while there is a problem."""
        with self._lock:
            try:
                status = os.stat(self.file)
                seen = (status.st_mtime_ns, status.st_size, status.st_ino)
                if seen != self._seen:
                    self._documents = acl_documents(read_yaml(self.file))
                    self._seen, self.problem = seen, ""
            except ConfigError as error:
                self._fail(str(error))
            except (OSError, ValueError) as error:
                self._fail(f"{self.file}: {getattr(error, 'strerror', None) or error}")
            return self._documents

    def _fail(self, reason: str) -> None:
        problem = f"docker_auth.acl_file: {reason}; so nothing is allowed"
        if problem != self.problem:
            logger.error("%s", problem)
        self._documents, self._seen, self.problem = [], None, problem
