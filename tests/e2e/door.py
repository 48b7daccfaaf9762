"""A small application behind the server's own worker, whose patience is short; and its clients."""

from __future__ import annotations

import json
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from processes import CHECKOUT, HOST, READY_S, Program, eventually, free_port

from app.server import worker
from app.server.connection import Limits

PATIENCE_S = 1.0
OF_ADDRESS = 40
Counts = dict[str, int]
TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE


class Worker(worker.Worker):
    """As the real one, with less time and room."""

    room = worker.Room(
        of_address=OF_ADDRESS,
        held_bytes=8 * 1024 * 1024,
        limits=Limits(send_s=PATIENCE_S, take_s=PATIENCE_S, idle_s=30, close_s=0.5),
    )


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """/counts; /size/N: so many bytes; /pieces/N: of 10,000 bytes; /wait/S; else what came."""
    _, action, *rest = environ["PATH_INFO"].split("/")
    if action == "pieces":
        start_response("200 OK", [])
        return (b"p" * 10_000 for _ in range(int(rest[0])))
    if action == "counts":
        body = json.dumps(environ["rns.cut_off"]()).encode()
    elif action == "size":
        body = b"s" * int(rest[0])
    elif action == "wait":
        time.sleep(float(rest[0]))
        body = b"waited"
    elif action == "unread":
        body = b"of no interest"
    else:
        body = action.encode() + b":" + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


class Door:
    """The application, running."""

    def __init__(self, directory: Path, certificate: tuple[str, ...] = (), **options: int) -> None:
        self.port = free_port()
        self.has_tls = bool(certificate)
        given = {"workers": 2, "threads": 4, "worker-connections": 200, **options}
        command = [sys.executable, "-m", "gunicorn", "--bind", f"{HOST}:{self.port}"]
        command += [f"--{name}={value}" for name, value in given.items()]
        command += ["--config", str(CHECKOUT / "tests/e2e/door.py")]  # it sets nothing
        command += ["--keep-alive=75", "--graceful-timeout=20", "--no-sendfile"]
        command += ["--no-control-socket", "--worker-class=door.Worker", "door:application"]
        if certificate:
            command += [f"--certfile={certificate[0]}", f"--keyfile={certificate[1]}"]
        path = f"{CHECKOUT}:{CHECKOUT / 'tests/e2e'}"
        self.program = Program("door", command, directory, {"PYTHONPATH": path})

    def wait_until_open(self) -> None:
        """Return when it answers."""
        eventually(self._is_open, READY_S, "the door is open")

    def _is_open(self) -> bool:
        with suppress(OSError), Client(self) as client:
            return client.ask("GET /unread")[0] == 200
        return False

    def counts(self) -> Counts:
        """How many were cut off, by reason."""
        with Client(self) as client:
            return dict(json.loads(client.ask("GET /counts")[1]))

    def workers(self) -> list[int]:
        pid = self.program.pid
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def clean_up(self) -> None:
        self.program.kill_group()


class Client:
    """One connection, of an address of its own if need be."""

    def __init__(
        self, door: Any, source: str = HOST, window: int = 0, has_handshake: bool = True
    ) -> None:
        self.sock = socket.socket()
        if window:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.sock.settimeout(20)
        self.sock.bind((source, 0))
        try:
            self.sock.connect((HOST, door.port))
            if getattr(door, "has_tls", False) and has_handshake:
                self.sock = TRUSTING.wrap_socket(self.sock)
        except OSError:
            self.sock.close()
            raise
        self._file = self.sock.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, line: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send a request and read its answer."""
        self.send(request(line, body))
        return self.answer()

    def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer."""
        status = int(self._file.readline().split()[1])
        fields = dict(iter(self._fields()))
        if fields.get("transfer-encoding") == "chunked":
            return status, b"".join(self._chunks())
        return status, self._file.read(int(fields.get("content-length", "0")))

    def _fields(self) -> Iterator[tuple[str, str]]:
        while line := self._file.readline().decode().strip():
            name, _, value = line.partition(":")
            yield name.lower(), value.strip()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._file.readline(), 16):
            yield self._file.read(size)
            self._file.readline()
        self._file.readline()

    def is_cut_off(self, within_s: float) -> bool:
        """Whether the server hangs up in that time; throws away what it sends until then."""
        self.sock.settimeout(within_s)
        try:
            while self.sock.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def is_left(self, within_s: float) -> bool:
        """Whether the server hangs up in that time; reads nothing, which would be progress."""
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        return bool(poll.poll(within_s * 1000))


def request(line: str, body: bytes | None = None, *fields: str) -> bytes:
    """A request of HTTP/1.1."""
    if body is not None:
        fields += (f"Content-Length: {len(body)}",)
    head = "\r\n".join([f"{line} HTTP/1.1", "Host: door", *fields])
    return f"{head}\r\n\r\n".encode() + (body or b"")
