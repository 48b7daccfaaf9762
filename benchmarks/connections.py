"""A registry beside clients that send or take nothing: `python benchmarks/connections.py`.

Some hundred bad clients at once, of several addresses of loopback, each reopened as soon as it is
cut off: silent ones, half a header, half a body, answers that nobody reads, and with TLS handshakes
that stop halfway. Beside them a normal sender posts one event after the other over a connection
that it keeps, as a registry does. The same with 3,000 silent ones, with nobody beside, and with
gunicorn's own gthread of 4 threads, which version 0.1 had.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import multiprocessing
import os
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

from database import database_uri
from ingest import free_port
from stream import Registry, at, body

CHECKOUT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 10.0  # of the sender; a registry's own is 1 s
PAUSE_S = 0.05  # between two events
ADDRESSES = [f"127.0.0.{number}" for number in range(2, 22)]
UNREAD = b"GET /static/vendor/bootstrap/bootstrap.min.css HTTP/1.1\r\nHost: rns\r\n\r\n"
KINDS = {
    "silent": b"",
    "header": b"GET / HTTP/1.1\r\nHost: rns\r\nAccept: ",
    "body": b"POST /events HTTP/1.1\r\nHost: rns\r\nContent-Length: 1000\r\n\r\n{",
    "answer": UNREAD * 5,
}
GTHREAD = "--worker-class gthread --threads 4 --worker-connections 1000"
HALF_A_HANDSHAKE = b"\x16\x03\x01\x02\x00\x01\x00"
HEAD = "beside                            cut off   answered  p50 ms  p95 ms     max  busy  503"
HUNG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname, TRUSTING.verify_mode = False, ssl.CERT_NONE


class BadClient:
    """One connection, driven by epoll."""

    def __init__(self, kind: str, address: str, port: int, has_tls: bool) -> None:
        self._data = HALF_A_HANDSHAKE if kind == "handshake" else KINDS[kind]
        self._must_shake_hands = has_tls and kind not in ("silent", "handshake")
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.setblocking(False)
        self.sock.bind((address, 0))
        self.sock.connect_ex(("127.0.0.1", port))

    def advance(self) -> int:
        """Go on; returns the events of epoll to wait for."""
        try:
            if self._must_shake_hands:
                if not isinstance(self.sock, ssl.SSLSocket):  # it is connected only now
                    self.sock = TRUSTING.wrap_socket(self.sock, do_handshake_on_connect=False)
                self.sock.do_handshake()
                self._must_shake_hands = False
            while self._data:
                self._data = self._data[self.sock.send(self._data) :]
        except (BlockingIOError, ssl.SSLWantWriteError):
            return HUNG_UP | select.EPOLLOUT
        except ssl.SSLWantReadError:
            return HUNG_UP | select.EPOLLIN
        return HUNG_UP


def be_bad(port: int, kinds: list[str], number: int, has_tls: bool, cut: Synchronized[int]) -> None:
    """Keep so many bad clients connected until killed; counts how many were cut off."""
    epoll = select.epoll()
    clients: dict[int, tuple[BadClient, str, str]] = {}

    def open_one(kind: str, address: str) -> None:
        client = BadClient(kind, address, port, has_tls)
        clients[client.sock.fileno()] = client, kind, address
        epoll.register(client.sock, HUNG_UP | select.EPOLLOUT)

    ways = zip(itertools.cycle(kinds), itertools.cycle(ADDRESSES))
    for kind, address in itertools.islice(ways, number):
        open_one(kind, address)
    while True:
        for descriptor, events in epoll.poll():
            client, kind, address = clients[descriptor]
            with contextlib.suppress(OSError):
                if not events & HUNG_UP:
                    epoll.modify(descriptor, client.advance())
                    continue
            epoll.unregister(descriptor)
            del clients[descriptor]
            client.sock.close()
            cut.value += 1
            open_one(kind, address)


@contextlib.contextmanager
def bad_clients(port: int, kinds: list[str], number: int, has_tls: bool) -> Iterator[Any]:
    """So many bad clients, in a process of their own; gives the number of those cut off."""
    cut = multiprocessing.Value("q", lock=False)
    process = multiprocessing.Process(target=be_bad, args=(port, kinds, number, has_tls, cut))
    process.start()
    try:
        yield cut
    finally:
        process.kill()
        process.join()


class Sender:
    """A registry that sends an event, waits for the answer, and sends the next one."""

    def __init__(self, port: int, has_tls: bool) -> None:
        where = "127.0.0.1", port
        self._connection = (
            http.client.HTTPSConnection(*where, timeout=TIMEOUT_S, context=TRUSTING)
            if has_tls
            else http.client.HTTPConnection(*where, timeout=TIMEOUT_S)
        )

    def ask(self, method: str, path: str, content: bytes | None = None) -> int:
        """The status; 0 if there was no answer."""
        try:
            self._connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = self._connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 0

    def post_for(self, seconds: float) -> tuple[Counter[int], list[float]]:
        """Post one event after the other; returns statuses, and the seconds of each answer."""
        statuses: Counter[int] = Counter()
        taken = []
        end = time.perf_counter() + seconds
        for event in Registry(time.time_ns()).events():
            began = time.perf_counter()
            if began > end:
                break
            status = self.ask("POST", "/events", body(at(event)))
            statuses[status] += 1
            if status:
                taken.append(time.perf_counter() - began)
            time.sleep(PAUSE_S)
        self._connection.close()
        return statuses, sorted(taken)


@contextlib.contextmanager
def served(uri: str, directory: str, options: str, tls: dict[str, str]) -> Iterator[Any]:
    """The server, until the block ends; gives its port and its process."""
    port = free_port()
    environment = {
        **os.environ,
        "RNS_CONFIG": "",
        "RNS_MONGODB__URI": uri,
        "RNS_MONGODB__DATA_DIR": directory,
        "RNS_SERVER__BIND": f"127.0.0.1:{port}",
        "GUNICORN_CMD_ARGS": options,
        **tls,
    }
    command = [sys.executable, "-m", "gunicorn", "wsgi:app"]
    with open(Path(directory) / "server.log", "ab") as log:
        process = subprocess.Popen(command, env=environment, cwd=CHECKOUT, stdout=log, stderr=log)
    try:
        sender = Sender(port, bool(tls))
        while sender.ask("GET", "/readyz") != 200:
            if process.poll() is not None:
                raise SystemExit((Path(directory) / "server.log").read_text())
            time.sleep(0.2)
        yield port, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def make_certificate(directory: str) -> dict[str, str]:
    """Settings of a server with TLS."""
    files = [str(Path(directory) / name) for name in ("certificate.pem", "key.pem")]
    command = "openssl req -x509 -nodes -newkey rsa:2048 -days 2 -subj /CN=rns -out"
    command = [*command.split(), files[0], "-keyout", files[1]]
    subprocess.run(command, check=True, capture_output=True)
    return {"RNS_SERVER__TLS__CERTIFICATE": files[0], "RNS_SERVER__TLS__PRIVATE_KEY": files[1]}


def used_s(process: subprocess.Popen[bytes]) -> float:
    """Processor time of the workers so far, in seconds."""
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    rows = [Path(f"/proc/{worker}/stat").read_text().split() for worker in workers]
    return sum(int(row[13]) + int(row[14]) for row in rows) / os.sysconf("SC_CLK_TCK")


def measure(name: str, server: Any, kinds: list[str], number: int, options: Any) -> None:
    """One row of the table.

    `busy` is how many processors the workers kept busy. `503` are answers too: the database took
    longer than 0.8 s, for want of a processor.
    """
    has_tls = "TLS" in name
    port, process = server
    with bad_clients(port, kinds, number, has_tls) as cut:
        time.sleep(1)  # until they are there
        used = used_s(process)
        statuses, taken = Sender(port, has_tls).post_for(options.seconds)
        ended, busy = cut.value, (used_s(process) - used) / options.seconds
    p50, p95 = (1000 * taken[int(len(taken) * part)] for part in (0.5, 0.95)) if taken else (0, 0)
    answered = f"{sum(statuses.values()) - statuses[0]}/{sum(statuses.values())}"
    slowest = 1000 * taken[-1] if taken else 0
    print(
        f"{name:32} {ended:8} {answered:>10} {p50:7.0f} {p95:7.0f} {slowest:7.0f} {busy:5.2f}"
        f"{statuses[503]:5}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--bad", type=int, default=500)
    parser.add_argument("--silent", type=int, default=3000)
    options = parser.parse_args()
    kinds, silent = list(KINDS), ["silent"]
    bad, many = f"{options.bad} bad clients", f"{options.silent} silent clients"
    cases = [
        ("nobody", kinds, 0, ""),
        (bad, kinds, options.bad, ""),
        (many, silent, options.silent, ""),
        ("nobody, TLS", kinds, 0, ""),
        (f"{bad}, TLS", [*kinds, "handshake"], options.bad, ""),
        (f"{many}, TLS", silent, options.silent, ""),
        (f"{bad}, gthread", kinds, options.bad, GTHREAD),
    ]
    with database_uri() as uri, tempfile.TemporaryDirectory() as directory:
        tls = make_certificate(directory)
        print(HEAD)
        for name, ways, number, settings in cases:
            if options.only in name:
                has_tls = "TLS" in name
                with served(uri, directory, settings, tls if has_tls else {}) as server:
                    measure(name, server, ways, number, options)


if __name__ == "__main__":
    main()
