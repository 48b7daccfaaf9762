"""Where it listens, and whether it works."""

from __future__ import annotations

import secrets
import socket
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from app.errors import StartupError

HOST = "127.0.0.1"
PORTS = range(20000, 32768)  # below those that Linux and macOS give to outgoing connections
USER = "rns"
AUTHENTICATION_FAILED = 18  # MongoDB error code


class PasswordRefused(StartupError):
    """The database has no such user, or another password."""


def free_port() -> int:
    """A port on which nothing listens just now; StartupError if there is none."""
    for port in secrets.SystemRandom().sample(PORTS, 100):
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the program does
            with suppress(OSError):
                server.bind((HOST, port))
                return port
    raise StartupError(f"no free port from {PORTS.start} to {PORTS.stop - 1} of {HOST}")


def make_uri(port: int, password: str | None) -> str:
    """The URI to reach it by; without a password the program must ask for none."""
    # SCRAM-SHA-256 proves the server, too: whoever took the port learns no password.
    user, mechanism = (
        (f"{USER}:{password}@", "&authMechanism=SCRAM-SHA-256") if password else ("", "")
    )
    return (
        f"mongodb://{user}{HOST}:{port}/"
        f"?authSource=admin{mechanism}&retryWrites=false&directConnection=true"
    )


def connect(uri: str, answer_ms: int = 5_000) -> MongoClient[dict[str, Any]]:
    """A client that waits at most `answer_ms` for an answer."""
    return MongoClient(
        uri,
        serverSelectionTimeoutMS=min(answer_ms, 5_000),
        connectTimeoutMS=answer_ms,
        socketTimeoutMS=answer_ms,
        retryReads=False,
    )


def listens(port: int) -> bool:
    """Whether anything takes a connection at `port`."""
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


def listens_at(uri: str) -> bool:
    """Whether anything takes a connection where this URI says."""
    try:
        port = urlsplit(uri.strip()).port
    except ValueError:
        return False
    return port is not None and listens(port)


def probe(client: MongoClient[dict[str, Any]]) -> PyMongoError | None:
    """Write and read a document; what goes wrong is returned.

    `ping` still answers when WiredTiger has given up.
    """
    try:
        kept = client["rns_health"]["probe"]
        kept.update_one({"_id": "probe"}, {"$set": {"at": time.time()}}, upsert=True)
        kept.find_one({"_id": "probe"})
    except PyMongoError as error:
        return error
    return None


def is_ready(port: int, uri: str) -> bool:
    """Whether reads and writes work; False while it is silent, StartupError if it refuses."""
    if not listens(port):
        return False
    with connect(uri, answer_ms=2_000) as client:
        error = probe(client)
    if isinstance(error, OperationFailure):
        if error.code == AUTHENTICATION_FAILED:
            raise PasswordRefused("the embedded database refuses its password")
        raise StartupError(f"the embedded database does not work: {error}")
    return error is None
