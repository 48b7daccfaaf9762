"""Clients that send or take nothing, and what all others may expect meanwhile."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from builders import wire_event
from clients import Webhook
from door import OF_ADDRESS, PATIENCE_S, Client, Door, request
from processes import TOKEN, Server, cleaned_up, eventually, need_program

pytestmark = pytest.mark.e2e

MEANWHILE_S = 1.0  # that a normal client waits at most
STOP_S = 10.0  # gunicorn kills what does not end within 20 s
TICK_S = 1.0  # the poller looks once a second for whom to cut off
EACH = 10  # bad clients of a kind
LONG = request("GET /size/200000")
STYLES = request("GET /static/vendor/bootstrap/bootstrap.min.css")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    directory = tmp_path_factory.mktemp("tls")
    files = str(directory / "cert.pem"), str(directory / "key.pem")
    options = "-x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    command = [need_program("openssl"), "req", *options.split(), "-subj", "/CN=door"]
    command += ["-out", files[0], "-keyout", files[1]]
    subprocess.run(command, check=True, capture_output=True)
    return files


@contextmanager
def opened(directory: Path, certificate: tuple[str, ...] = (), **options: int) -> Iterator[Door]:
    """A door for the clients of one test or of several."""
    with cleaned_up(Door(directory, certificate, **options)) as door:
        door.wait_until_open()
        yield door


@pytest.fixture(scope="module", params=["plain", "TLS"])
def door(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    certificate: tuple[str, str],
) -> Iterator[Door]:
    with opened(tmp_path_factory.mktemp("door"), certificate * (request.param == "TLS")) as door:
        yield door


@pytest.fixture
def client(door: Door) -> Iterator[Client]:
    with Client(door) as client:
        yield client


class BadClients:
    """So many of each kind, each kind with an address of its own."""

    def __init__(self, door: Any, stack: ExitStack, unread: bytes = LONG) -> None:
        has_tls = getattr(door, "has_tls", False)
        ways = {
            "silent": b"",
            "header": b"GET / HTTP/1.1\r\nHost: slow\r\n",
            "body": request("POST /events", None, "Content-Length: 1000") + b"{",
            "answer": unread * 40,  # more than any kernel keeps
            **({"handshake": b"\x16\x03\x01"} if has_tls else {}),
        }
        self.expected = dict.fromkeys(ways, EACH)
        self.clients: list[Client] = []
        for number, (kind, data) in enumerate(ways.items(), 2):
            for _ in range(EACH):
                client = Client(door, f"127.0.0.{number}", 4096, kind != "handshake")
                self.clients.append(stack.enter_context(client))
                client.send(data)

    def are_cut_off(self, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        return all(
            client.is_left(max(deadline - time.monotonic(), 0.01)) for client in self.clients
        )


def test_bad_clients_hold_nobody_up_and_are_cut_off_and_counted(door: Door, client: Client) -> None:
    before = door.counts()
    with ExitStack() as stack:
        bad = BadClients(door, stack)
        waited = []
        for number in range(50):
            began = time.monotonic()
            body = b"event %d" % number
            assert client.ask("POST /events", body) == (200, b"events:" + body)
            waited.append(time.monotonic() - began)
            time.sleep(0.02)

        assert max(waited) < MEANWHILE_S
        assert bad.are_cut_off(within_s=PATIENCE_S + 10.0)
    after = door.counts()
    assert {reason: after[reason] - before[reason] for reason in bad.expected} == bad.expected


def test_a_client_that_trickles_a_header_is_cut_off(door: Door) -> None:
    with Client(door, "127.0.0.9") as client:
        began = time.monotonic()
        client.send(b"GET / HTTP/1.1\r\n")
        while not client.is_cut_off(within_s=0.1):
            with suppress(OSError):
                client.send(b"A: b\r\n")
            assert time.monotonic() - began < PATIENCE_S + 2 * TICK_S


def test_requests_in_one_packet_are_answered_in_their_order(client: Client) -> None:
    client.send(
        request("POST /one", b"1")
        + request("GET /wait/0.2")
        + request("POST /unread", b"GET /not-this HTTP/1.1\r\n\r\n")
        + request("POST /two", None, "Transfer-Encoding: chunked")
        + b"2\r\nab\r\n1;x=y\r\nc\r\n0\r\nChecked: yes\r\n\r\n"
        + request("GET /three")
        + b"GET /four HTT"
    )

    assert client.answer() == (200, b"one:1")
    assert client.answer() == (200, b"waited")
    assert client.answer() == (200, b"of no interest")
    assert client.answer() == (200, b"two:abc")
    assert client.answer() == (200, b"three:")
    client.send(b"P/1.1\r\nHost: door\r\n\r\n")
    assert client.answer() == (200, b"four:")


def test_a_connection_is_used_again_however_long_it_was_idle(client: Client) -> None:
    for _ in range(2):
        assert client.ask("POST /a", b"b") == (200, b"a:b")
        time.sleep(PATIENCE_S + 1.5 * TICK_S)
    assert client.ask("POST /a", b"b") == (200, b"a:b")


def test_a_large_body_may_come_slowly(client: Client) -> None:
    body = os.urandom(3_000_000)
    data = request("POST /body", body)
    step = len(data) // 8 + 1
    for start in range(0, len(data), step):
        client.send(data[start : start + step])
        time.sleep(PATIENCE_S / 3)

    assert client.answer() == (200, b"body:" + body)


def test_an_answer_may_take_its_time_and_be_taken_slowly(client: Client) -> None:
    assert client.ask(f"GET /wait/{PATIENCE_S + 1.5 * TICK_S}") == (200, b"waited")


@pytest.mark.parametrize("path", ["size/6000000", "pieces/600"])
def test_a_long_answer_may_be_taken_slowly(door: Door, path: str) -> None:
    """A thread waits for it all the time, or the poller does for the rest."""
    # A smaller window, or longer sleep, may take nothing for a second while the machine is busy.
    with Client(door, window=32_768) as client:
        client.send(request(f"GET /{path}", None, "Connection: close"))
        taken, began = 0, time.monotonic()
        while data := client.sock.recv(65536):
            taken += len(data)
            if time.monotonic() < began + 4 * PATIENCE_S:
                time.sleep(0.1)

        assert taken > 6_000_000
        assert time.monotonic() - began > 4 * PATIENCE_S


def test_readers_of_long_answers_leave_half_of_the_threads_to_others(
    tmp_path: Path, certificate: Any
) -> None:
    with opened(tmp_path, certificate, workers=1, threads=4) as door, ExitStack() as stack:
        readers = []
        for _ in range(5):
            readers.append(stack.enter_context(Client(door, window=4096)))
            readers[-1].send(request("GET /pieces/3000"))
            time.sleep(0.1)
        began = time.monotonic()
        while time.monotonic() < began + 2 * PATIENCE_S:
            for reader in readers[3:]:  # all but the last two are to be cut off
                reader.sock.recv(65536)
            with Client(door) as client:
                assert client.ask("GET /a")[0] == 200
            time.sleep(0.05)

        assert all(reader.is_cut_off(within_s=3.0) for reader in readers[:3])
        assert door.counts() == {**dict.fromkeys(door.counts(), 0), "full": 3}


def test_who_expects_100_continue_is_told_to_send_the_body(client: Client) -> None:
    client.send(request("POST /late", None, "Content-Length: 4", "Expect: 100-continue"))
    assert client.answer() == (100, b"")
    client.send(b"body")
    assert client.answer() == (200, b"late:body")

    fields = ("Content-Length: 4", "Expect: 100-continue")
    client.send(request("POST /early", None, *fields) + b"body")
    assert client.answer() == (200, b"early:body")


def test_a_body_that_is_too_large_is_not_waited_for(client: Client) -> None:
    client.send(request("POST /unread", None, "Content-Length: 99999999"))

    assert client.answer() == (200, b"of no interest")
    assert client.is_cut_off(within_s=3.0)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (request("GET /", None, "<b>: 1"), 400),
        (request("GET /", None, "Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (request("GET /", None, "Transfer-Encoding: unheard-of"), 501),
        (request("GET /", None, "Expect: much"), 417),
        (request("GET /" + 5000 * "a"), 414),
        (request("GET /", None, "Cookie: " + 9000 * "a"), 431),
        (request("GET /", None, "Cookie: " + 70_000 * "a"), 431),
    ],
)
def test_a_request_that_is_none_is_refused(client: Client, data: bytes, status: int) -> None:
    client.send(data)

    assert client.answer()[0] == status
    assert client.is_cut_off(within_s=3.0)


def test_what_is_wrong_with_a_request_is_said_as_text_that_no_browser_runs(client: Client) -> None:
    client.send(request("GET /", None, "<b>: 1"))
    answer = b"".join(iter(lambda: client.sock.recv(4096), b""))

    assert b"\r\nContent-Type: text/plain; charset=utf-8\r\n" in answer
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in answer
    assert answer.endswith(b"\r\n\r\nInvalid HTTP header name: '<b>'\n")


def test_requests_that_are_none_are_counted_and_do_not_flood_the_log(tmp_path: Path) -> None:
    with opened(tmp_path) as door:
        for _ in range(50):
            with Client(door) as client:
                client.send(request("GET /", None, "Authorization Bearer secret"))
                assert client.answer()[0] == 400

        eventually(lambda: door.counts()["malformed"] == 50, TICK_S, "all are counted")
        told = "malformed; the last one from 127.0.0.1"
        eventually(lambda: told in door.program.log, 3 * TICK_S, "the log tells of it")
        log = door.program.log
        assert log.count(told) == 1
        assert "secret" not in log


def test_who_speaks_the_wrong_scheme_is_told_at_once_and_counted(door: Door) -> None:
    reason, before = "plain" if door.has_tls else "tls", door.counts()
    for data in (b"\x16\x03\x01\x02\x00", b"\x16\x03\x01\x02\x00" + bytes(512)):
        if door.has_tls:
            data = request("POST /events", b"{}")
        with Client(door, has_handshake=False) as client:
            client.send(data)
            status, body = client.answer()
            assert (status, b"its url" in body) == (400, True)
            assert client.is_cut_off(within_s=0.5)

    after = door.counts()
    assert {name for name in after if after[name] != before[name]} == {reason}
    assert after[reason] - before[reason] == 2


def test_who_hangs_up_halfway_is_not_counted(door: Door) -> None:
    before = door.counts()
    for data in (b"", b"GET /", request("POST /", None, "Content-Length: 9"), LONG * 40):
        with Client(door) as client:
            client.send(data)
    with Client(door, has_handshake=False) as client:
        client.send(b"\x16" if door.has_tls else b"G")
    time.sleep(PATIENCE_S + 2 * TICK_S)

    assert door.counts() == before


def test_one_address_has_so_many_connections_but_a_proxy_on_this_machine_any_number(
    tmp_path: Path,
) -> None:
    with opened(tmp_path, workers=1) as door, ExitStack() as stack:
        for address in ("127.0.0.1", "127.0.0.20", "127.0.0.21"):
            clients = [stack.enter_context(Client(door, address)) for _ in range(OF_ADDRESS + 5)]
            over = sum(client.is_cut_off(within_s=0.005) for client in clients)
            assert over == (0 if address == "127.0.0.1" else 5)
        assert door.counts()["address"] == 10


def test_where_there_is_no_room_the_oldest_go_first_that_never_asked(tmp_path: Path) -> None:
    options = {"workers": 1, "worker-connections": 30}
    with opened(tmp_path, **options) as door, ExitStack() as stack:
        regular = stack.enter_context(Client(door))
        assert regular.ask("POST /a", b"1")[0] == 200
        first = [stack.enter_context(Client(door, "127.0.0.2")) for _ in range(25)]
        later = [stack.enter_context(Client(door, "127.0.0.3")) for _ in range(24)]

        assert door.counts()["full"] == 21
        assert regular.ask("POST /a", b"2") == (200, b"a:2")
        assert [client.is_cut_off(within_s=0.01) for client in first] == [True] * 21 + [False] * 4
        assert not any(client.is_cut_off(within_s=0.01) for client in later)


def test_bodies_that_are_not_whole_fill_no_more_memory_than_they_may(tmp_path: Path) -> None:
    with opened(tmp_path, workers=1) as door, ExitStack() as stack:
        half = request("POST /", None, "Content-Length: 3000000") + b"x" * 2_000_000
        for number in range(6):
            client = stack.enter_context(Client(door, f"127.0.0.{30 + number}"))
            client.send(half)

        assert eventually(lambda: door.counts()["full"], 3.0, "some are cut off") == 2


def test_bodies_that_wait_for_a_thread_fill_no_more_memory_than_they_may(tmp_path: Path) -> None:
    with opened(tmp_path, workers=1, threads=2) as door, ExitStack() as stack:
        clients = [stack.enter_context(Client(door)) for _ in range(8)]
        for client in clients[:2]:
            client.send(request("GET /wait/4"))
        time.sleep(0.5)
        for client in clients[2:]:
            client.send(request("POST /unread", bytes(2 * 1024 * 1024)))
        with Client(door) as small:
            assert small.ask("POST /small", b"body") == (200, b"small:body")

        kept = [client for client in clients[2:] if not client.is_cut_off(within_s=0.2)]
        assert len(kept) == 3
        assert door.counts()["full"] == 3


def test_a_server_that_stops_waits_for_answers_and_for_nobody_who_is_idle(
    door: Door, tmp_path: Path, certificate: tuple[str, str]
) -> None:
    with opened(tmp_path, certificate * door.has_tls) as stopping, ExitStack() as stack:
        BadClients(stopping, stack)
        idle, busy = (stack.enter_context(Client(stopping)) for _ in range(2))
        assert idle.ask("GET /a")[0] == 200
        busy.send(request("GET /wait/1"))
        time.sleep(0.3)

        began = time.monotonic()
        assert stopping.program.end_by(signal.SIGTERM) == 0

        assert time.monotonic() - began < STOP_S
        assert busy.answer() == (200, b"waited")
        assert "Traceback" not in stopping.program.log


def test_idle_connections_cost_no_processor_time(door: Door) -> None:
    def used_s() -> float:
        rows = [Path(f"/proc/{pid}/stat").read_text().split() for pid in door.workers()]
        return sum(int(row[13]) + int(row[14]) for row in rows) / os.sysconf("SC_CLK_TCK")

    with ExitStack() as stack:
        for number in range(100):
            client = stack.enter_context(Client(door, f"127.0.0.{40 + number % 10}"))
            assert client.ask("GET /a")[0] == 200
        before = used_s()
        time.sleep(3)
        assert used_s() - before < 0.15


def test_what_is_cut_off_is_one_line_of_the_log_in_a_minute(tmp_path: Path) -> None:
    with opened(tmp_path) as door, ExitStack() as stack:
        for _ in range(2):
            for _ in range(20):
                stack.enter_context(Client(door, "127.0.0.2"))
            time.sleep(PATIENCE_S + 2 * TICK_S)

        assert door.counts()["silent"] == 40
        lines = [line for line in door.program.log.splitlines() if "cut off" in line]
        assert len(lines) == 1
        assert "silent; the last one from 127.0.0.2" in lines[0]


def test_a_renewed_certificate_needs_no_restart(tmp_path: Path, certificate: Any) -> None:
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    for file, made in zip(files, certificate, strict=True):
        file.write_bytes(Path(made).read_bytes())
    with opened(tmp_path, (str(files[0]), str(files[1])), workers=1) as door:

        def shown() -> str:
            return ssl.get_server_certificate(("127.0.0.1", door.port))

        first, key = shown(), files[1].read_bytes()
        files[1].write_text("half a renewal")
        assert shown() == first
        files[1].write_bytes(key)
        command = ["openssl", "req", "-x509", "-new", "-key", str(files[1]), "-subj", "/CN=new"]
        subprocess.run([*command, "-out", str(files[0])], check=True, capture_output=True)
        assert shown() != first
        log = door.program.log
        assert log.count("the certificate cannot be read") == 1


def test_a_registry_is_answered_beside_more_bad_clients_than_there_are_threads(
    server: Server, webhook: Webhook
) -> None:
    """With the limits that the server really has."""
    with ExitStack() as stack:
        bad = BadClients(server, stack, STYLES)
        for number in range(20):
            assert webhook.is_acknowledged(wire_event(id=f"beside bad clients {number}"))
        assert bad.are_cut_off(within_s=20.0)
    assert "connections cut off: " in server.program.log


@pytest.mark.parametrize(
    ("path", "kind"), [("/login", "x-www-form-urlencoded"), ("/events", "json")]
)
@pytest.mark.parametrize("chunk", [b"0x5\r\nhello", b"5;\x01\r\nhello", b"5\r\nhelloXX"])
def test_a_malformed_body_is_the_clients_fault_and_no_traceback(
    server: Server, path: str, kind: str, chunk: bytes
) -> None:
    fields = [f"Authorization: Bearer {TOKEN}", f"Content-Type: application/{kind}"]
    header = request(f"POST {path}", None, "Transfer-Encoding: chunked", *fields)
    with Client(server) as client:
        client.send(header + chunk + b"\r\n0\r\n\r\n")

        assert client.answer()[0] == 400
        assert client.is_cut_off(within_s=3.0)
    assert "Traceback" not in server.program.log
