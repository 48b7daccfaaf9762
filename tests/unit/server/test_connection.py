"""One connection, without a worker."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from app.server.connection import CONTINUE, READ, WRITE, Connection, Limits
from app.server.held import HeldThreads

ASKS = b"POST /events HTTP/1.1\r\nHost: rns\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"

Ends = tuple[Connection, socket.socket]


@contextmanager
def opened() -> Iterator[Ends]:
    server, client = socket.socketpair()
    client.settimeout(5)
    connection = Connection(server, ("127.0.0.1", 1), ("127.0.0.1", 2), Limits())
    yield connection, client
    connection.close()
    client.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    with opened() as ends:
        yield ends


def fill(connection: Connection) -> int:
    """Leave no room in the kernel, as an answer does that the client has not taken."""
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += connection.sock.send(b"a" * 4096)
    with suppress(BlockingIOError):
        while True:
            filled += connection.sock.send(b"a")
    return filled


def take(client: socket.socket, size: int) -> bytes:
    taken = b""
    while len(taken) < size:
        taken += client.recv(size - len(taken))
    return taken


def test_100_continue_comes_as_soon_as_there_is_room_for_it(ends: Ends) -> None:
    connection, client = ends
    filled = fill(connection)
    client.sendall(ASKS)

    assert connection.advance() == READ | WRITE
    take(client, filled)
    assert connection.advance() == READ
    assert take(client, len(CONTINUE)) == CONTINUE


def test_a_body_is_read_although_there_is_no_room_for_100_continue(ends: Ends) -> None:
    connection, client = ends
    filled = fill(connection)
    client.sendall(ASKS)
    assert connection.advance() == READ | WRITE

    client.sendall(b"body")
    connection.advance()

    assert connection.state == "whole"
    assert connection.take_request()[0].endswith(b"body")
    connection.unsent += b"answer"
    take(client, filled)
    connection.give_back(is_last=False)
    connection.advance()
    assert take(client, len(CONTINUE) + 6) == CONTINUE + b"answer"


def test_of_too_many_who_hold_a_thread_the_first_is_cut_off() -> None:
    held = HeldThreads(2)
    with ExitStack() as stack:
        connections = [stack.enter_context(opened())[0] for _ in range(4)]
        first, second, third, fourth = connections

        for connection in (first, second, first):
            held.enter(connection)
        assert not any(connection.cut_for for connection in connections)

        held.enter(third)
        assert [connection.cut_for for connection in connections] == ["full", "", "", ""]
        with pytest.raises(OSError, match="pipe"):
            first.sock.send(b"more")

        held.leave(second)
        held.enter(fourth)
        assert [connection.cut_for for connection in connections] == ["full", "", "", ""]
