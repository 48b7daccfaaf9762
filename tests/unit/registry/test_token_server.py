"""Asking docker_auth's token server whether a password is right."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import HTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import parse_qs

import pytest
from fake_token_server import TOKEN, FakeTokenServer, running_token_server

from app.errors import AccountsUnavailable
from app.registry import token_server
from app.registry.token_server import TokenServer


@pytest.fixture
def fake() -> Iterator[FakeTokenServer]:
    with running_token_server() as server:
        yield server


@pytest.fixture
def asked(fake: FakeTokenServer) -> TokenServer:
    return TokenServer(fake.url, "registry")


@pytest.mark.parametrize(
    ("name", "password", "is_right"),
    [
        ("alice", "secret-alice", True),
        ("Zoë", "pässword", True),
        ("long", "x" * 100, True),  # bcrypt's 72 bytes are no limit of LDAP
        ("alice", "wrong", False),
        ("nobody", "secret-alice", False),
        ("Alice", "secret-alice", False),
    ],
)
def test_a_password_is_right_when_the_server_gives_a_token_for_it(
    asked: TokenServer, name: str, password: str, is_right: bool
) -> None:
    assert asked.accepts(name, password) is is_right


def test_the_server_is_asked_as_a_registry_sends_its_clients_there(
    fake: FakeTokenServer, asked: TokenServer
) -> None:
    asked.accepts("Zoë", "pässword")

    name, password, query = fake.asked[-1]
    assert (name, password) == ("Zoë", "pässword")
    assert parse_qs(query) == {"service": ["registry"], "account": ["Zoë"]}


def test_a_query_of_the_url_is_kept(fake: FakeTokenServer) -> None:
    TokenServer(f"{fake.url}?client_id=rns", "registry").accepts("alice", "x")

    assert parse_qs(fake.asked[-1][2])["client_id"] == ["rns"]


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("", ""),
        ("", "secret"),
        ("alice", ""),  # LDAP: a bind without password succeeds
        ("ali:ce", "x"),  # Basic would send another name
        ("a" * 256, "x"),
        ("alice", "x" * 1025),
        ("\ud800", "x"),
    ],
)
def test_what_no_account_can_send_is_wrong_without_asking(
    fake: FakeTokenServer, asked: TokenServer, name: str, password: str
) -> None:
    assert asked.accepts(name, password) is False
    assert fake.asked_for == []


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, ""),
        (200, {}, "<html>signed in</html>"),
        (200, {}, "{}"),
        (200, {}, '{"token": ""}'),
        (200, {}, '["token"]'),
        (204, {}, ""),
        (301, {"Location": "/auth"}, ""),
        (400, {}, "Bad request"),
        (403, {}, TOKEN),
        (404, {}, ""),
        (429, {}, ""),
        (500, {}, "Authentication failed (LDAP is away)"),
        (503, {}, TOKEN),
    ],
    ids=lambda answer: f"{answer[0]} {answer[2][:15]}",
)
def test_anything_but_yes_and_no_is_an_outage_and_never_a_sign_in(
    fake: FakeTokenServer, asked: TokenServer, answer: Any
) -> None:
    assert asked.accepts("alice", "secret-alice")
    fake.failing = answer

    with pytest.raises(AccountsUnavailable):
        asked.accepts("alice", "secret-alice")


def test_a_redirect_gets_no_password(fake: FakeTokenServer, asked: TokenServer) -> None:
    with running_token_server() as elsewhere:
        fake.failing = (307, {"Location": elsewhere.url}, "")

        with pytest.raises(AccountsUnavailable, match="307"):
            asked.accepts("alice", "secret-alice")

        assert elsewhere.asked == []


def test_a_server_that_gives_everybody_a_token_lets_nobody_in(
    fake: FakeTokenServer, asked: TokenServer
) -> None:
    fake.lets_everybody_in = True

    with pytest.raises(AccountsUnavailable, match="made-up password"):
        asked.check()
    with pytest.raises(AccountsUnavailable, match="made-up password"):
        asked.accepts("alice", "secret-alice")

    assert fake.asked_for == [], "the password was sent to a server that is not to be believed"


def test_that_a_wrong_password_is_refused_is_tried_again_after_an_hour(
    fake: FakeTokenServer, asked: TokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked.accepts("alice", "secret-alice")
    fake.lets_everybody_in = True
    assert asked.accepts("alice", "anything")

    later = time.monotonic() + token_server.CHECKED_S
    monkeypatch.setattr(token_server, "time", Mock(wraps=time, monotonic=lambda: later))

    with pytest.raises(AccountsUnavailable):
        asked.accepts("alice", "anything")


def test_the_made_up_account_and_password_are_new_each_time(
    fake: FakeTokenServer, asked: TokenServer
) -> None:
    asked.check()
    asked.check()

    (first, one, _), (second, other, _) = fake.asked
    assert first != second
    assert one != other


def test_a_server_that_is_away_is_an_outage_whose_message_has_no_name_and_no_password() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/auth"

    with pytest.raises(AccountsUnavailable) as caught:
        TokenServer(url, "registry").accepts("alice", "secret-alice")

    assert str(caught.value) == "docker_auth.token_url: no answer: Connection refused"
    assert caught.value.status == 503


def test_a_server_that_hangs_holds_a_sign_in_for_its_time_and_only_a_few_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_server, "TIMEOUT_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        asked = TokenServer(f"http://127.0.0.1:{silent.getsockname()[1]}/auth", "registry")
        failed: list[str] = []

        def sign_in() -> None:
            with pytest.raises(AccountsUnavailable) as caught:
                asked.accepts("alice", "secret-alice")
            failed.append(str(caught.value))

        started = time.monotonic()
        threads = [threading.Thread(target=sign_in) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(failed) == 20
    assert sum("too many" in message for message in failed) >= 10
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_server_that_sends_a_byte_now_and_then_holds_a_sign_in_no_longer(
    monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(token_server, "TIMEOUT_S", 0.3)
    monkeypatch.setattr(token_server, "ANSWER_S", 0.6)
    is_over = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(head)
            while not is_over.wait(0.1):
                connection.sendall(b" ")

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=drip, args=[listener])
        thread.start()
        asked = TokenServer(f"http://127.0.0.1:{listener.getsockname()[1]}/auth", "registry")
        ended_by_us = threading.Timer(10, is_over.set)
        ended_by_us.start()

        with pytest.raises(AccountsUnavailable, match="no whole answer"):
            asked.accepts("alice", "secret-alice")

        assert not is_over.is_set()
        is_over.set()
        ended_by_us.cancel()
        thread.join()


@pytest.mark.parametrize(
    ("url", "is_plain"),
    [
        ("https://auth.example:5001/auth", False),
        ("http://127.0.0.1:5001/auth", False),
        ("http://[::1]:5001/auth", False),
        ("http://localhost/auth", False),
        ("http://auth.example/auth", True),
        ("http://10.0.0.1/auth", True),
        ("http://127.example.org/auth", True),
    ],
)
def test_passwords_that_go_unencrypted_are_known(url: str, is_plain: bool) -> None:
    assert TokenServer(url, "registry").is_plain is is_plain


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate of localhost, and its key, in one file."""
    file = tmp_path / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    key = tmp_path / "key.pem"
    command += ["-keyout", str(key), "-out", str(file)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("the program openssl is not installed")
    file.write_bytes(file.read_bytes() + key.read_bytes())
    return file


def test_the_certificate_is_verified(fake: FakeTokenServer, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    http: HTTPServer = fake._http
    http.socket = context.wrap_socket(http.socket, server_side=True)
    url = fake.url.replace("http://127.0.0.1", "https://localhost")

    with pytest.raises(AccountsUnavailable, match="certificate is not right: self-signed"):
        TokenServer(url, "registry").accepts("alice", "secret-alice")
    assert fake.asked == []
    assert TokenServer(url, "registry", str(certificate)).accepts("alice", "secret-alice")
    other = url.replace("localhost", "127.0.0.1")  # the certificate is not for this name
    with pytest.raises(AccountsUnavailable, match="not right: IP address mismatch"):
        TokenServer(other, "registry", str(certificate)).accepts("alice", "secret-alice")
