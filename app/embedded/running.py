"""The database of a data directory, for whoever did not start it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pymongo.errors import PyMongoError

from app.embedded.connection import connect, listens
from app.embedded.database import EmbeddedDatabase
from app.errors import StartupError


def has_database(data_dir: Path) -> bool:
    """Whether a database was ever started on `data_dir`, or another process is just doing so."""
    return (data_dir / "embedded").is_dir()


def recorded_uri(data_dir: Path) -> str:
    """The URI of the database of `data_dir`, without asking it whether it is there just now.

    Raises:
        StartupError: no server runs one.
    """
    try:
        return (data_dir / "embedded.uri").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise StartupError(f"no embedded database runs on data_dir {data_dir}") from None


def running_uri(data_dir: Path) -> str | None:
    """The URI of the database that serves `data_dir` now, or None if none answers a read."""
    try:
        uri = recorded_uri(data_dir)
        if not listens(urlsplit(uri).port or 0):
            return None
        with connect(uri, answer_ms=10_000) as client:
            client["rns_health"]["probe"].find_one({"_id": "probe"})
    except (StartupError, ValueError, PyMongoError):
        return None
    return uri


@contextmanager
def running_or_started(data_dir: Path) -> Iterator[str]:
    """The URI of the running database, or of one that runs as long as the context.

    Who finds the database of another command running loses it when that command ends.

    Raises:
        StartupError: none runs, and none can be started.
    """
    database = EmbeddedDatabase(data_dir)
    uri = running_uri(data_dir)
    if uri is None:
        try:
            database.start()
            uri = database.uri
        except StartupError:
            uri = running_uri(data_dir)  # somebody else was starting it
            if uri is None:
                raise
    try:
        yield uri
    finally:
        database.stop()
