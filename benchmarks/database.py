"""The wire server that a benchmark measures."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.embedded import EmbeddedDatabase


@contextlib.contextmanager
def database_uri() -> Iterator[str]:
    """The wire server to measure."""
    uri = os.environ.get("RNS_TEST_MONGODB_URI")
    if uri:
        print("on RNS_TEST_MONGODB_URI")
        yield uri
        return
    print("on the embedded SecantusDB, not mongod")
    with tempfile.TemporaryDirectory() as directory:
        database = EmbeddedDatabase(Path(directory) / "data")
        database.start()
        try:
            yield database.uri
        finally:
            database.stop()
