"""A registry that asks for a pause, one that does not answer, and passwords that are refused."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
from fake_registry import Answer, FakeRegistry, Request
from test_registry_client import BLOB, BLOB_DIGEST, MakeClient, errors_answer

from app.registry import Endpoint, RegistryClient, RegistryError
from app.registry.transport import Body
from app.registry.waits import Pause, Waits

SLOW = errors_answer(429, "TOOMANYREQUESTS", "slow")


@pytest.mark.parametrize(
    "later",
    [
        Answer(429, b"", {"Retry-After": "7"}),
        Answer(503, b"", {"Retry-After": "7"}),
    ],
)
def test_a_request_is_sent_again_after_the_pause_that_the_registry_asks_for(
    fake: FakeRegistry,
    make_client: MakeClient,
    later: Answer,
) -> None:
    fake.on("GET", "/v2/", later, Answer(200))
    client: RegistryClient
    waited: list[float] = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        client._transport._pause._until = 0.0

    client = make_client(fake)
    client._transport._hooks = type(client._transport._hooks)(wait=wait)
    client.ping()

    assert len(fake.requests) == 2
    assert [round(seconds) for seconds in waited] == [7]


def test_all_requests_wait_for_the_pause_that_one_of_them_was_told(
    fake: FakeRegistry,
    make_client: MakeClient,
) -> None:
    fake.on("GET", "/v2/", Answer(429, b"", {"Retry-After": "70"}))
    client = make_client(fake)
    for _ in range(3):
        with pytest.raises(RegistryError, match=r"asked to wait|429") as caught:
            client.ping()
        assert caught.value.error_class == "rate_limited"
        assert caught.value.retry_after is not None
        assert 69 < caught.value.retry_after <= 70

    assert len(fake.requests) == 1
    assert 69 < client.pause_s <= 70
    assert "asks to wait" in client.trouble


def test_after_a_pause_one_request_tries_for_all(
    fake: FakeRegistry, make_client: MakeClient
) -> None:
    at_a_time, most, answered = [0], [0], [0]
    lock = threading.Lock()

    def answer(request: Request) -> Answer:
        with lock:
            at_a_time[0] += 1
            most[0] = max(most[0], at_a_time[0])
            answered[0] += 1
            number = answered[0]
        time.sleep(0.05)
        with lock:
            at_a_time[0] -= 1
        return Answer(429, b"", {"Retry-After": "0"}) if number < 5 else Answer(200, b"{}")

    fake.on("GET", "/v2/a/tags/list", answer)
    client = make_client(fake)
    client._transport._auth.is_taken = True
    client._transport._pause.note(429, {"Retry-After": "0"})

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: client.tags("a"), range(4)))
        assert most == [1]
        assert answered == [8]
        list(threads.map(lambda _: client.tags("a"), range(4)))
    assert most[0] > 1


def test_a_bare_503_is_a_registry_that_is_down(
    fake: FakeRegistry,
    make_client: MakeClient,
) -> None:
    fake.on("GET", "/v2/", Answer(503))
    client = make_client(fake)

    with pytest.raises(RegistryError) as caught:
        client.ping()

    assert (caught.value.error_class, client.pause_s) == ("down", 0)


def test_a_stream_is_not_sent_twice(
    fake: FakeRegistry,
    make_client: MakeClient,
) -> None:
    fake.on("PUT", "/session", Answer(429, b"", {"Retry-After": "0"}))

    with pytest.raises(RegistryError) as caught:
        make_client(fake).put_upload("b", f"{fake.url}/session", BLOB_DIGEST, Body([BLOB], 3 << 20))

    assert caught.value.error_class == "rate_limited"
    assert len(fake.requests) == 1


def test_pauses_grow_while_nothing_is_answered_and_begin_anew_after_an_answer() -> None:
    now = [0.0]
    pause = Pause(clock=lambda: now[0])

    def ask() -> float:
        assert pause.note(429, {})
        left = pause.left_s
        now[0] += left
        return left

    assert [ask() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert not pause.note(200, {})
    assert ask() == 1
    assert pause.note(429, {"Retry-After": "3"})
    pause.note(429, {})  # was under way before
    pause.note(429, {"Retry-After": "2"})
    assert pause.left_s == 3


def test_who_is_waited_for_is_told_apart_from_who_makes_the_body() -> None:
    now = [0.0]
    waits = Waits(clock=lambda: now[0])

    def pieces() -> object:
        now[0] += 100  # another registry makes us wait
        assert waits.longest() == (0, "")
        yield b"piece"

    with waits.wait("PUT", "key"):
        body = waits.watch(pieces(), "PUT", "key")  # type: ignore[arg-type]
        next(body)
        now[0] += 5
        assert waits.longest() == (5, "PUT")
        assert list(body) == []
        now[0] += 7
        assert waits.longest() == (7, "PUT")
    assert waits.longest() == (0, "")


def test_a_request_without_answer_is_told_while_it_waits(
    fake: FakeRegistry,
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.registry.transport.SHOWN_S", 0.1)
    fake.on("GET", "/v2/a/tags/list", fake.hang)
    client = make_client(fake)

    def ask() -> None:
        with pytest.raises(RegistryError):
            client.tags("a")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not client.trouble and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "GET /v2/a/tags/list: no answer" in client.trouble
        assert client.silence_s > 0.1
    finally:
        fake.released.set()
        thread.join()
    assert client.trouble == ""


def test_a_ping_does_not_wait_behind_a_request_that_hangs(
    fake: FakeRegistry, make_client: MakeClient
) -> None:
    fake.on("GET", "/v2/a/tags/list", fake.hang)
    fake.on("GET", "/v2/", Answer(200))
    client = make_client(fake)
    client._transport._pause.note(429, {"Retry-After": "0"})

    def ask() -> None:
        with suppress(RegistryError):
            client.tags("a")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not fake.asked("GET", "/v2/a/tags/list") and time.monotonic() < deadline:
            time.sleep(0.01)
        began = time.monotonic()
        client.ping()
        assert time.monotonic() - began < 5
    finally:
        fake.released.set()
        thread.join()


@pytest.mark.parametrize("by_token", [False, True], ids=["Basic", "for a token"])
def test_a_wrong_password_is_sent_once_whoever_waits_and_a_new_one_at_once(
    fake: FakeRegistry, make_client: MakeClient, by_token: bool, tmp_path: Path
) -> None:
    kind = f'Bearer realm="{fake.url}/token"' if by_token else 'Basic realm="r"'
    fake.on("GET", "/v2/a/tags/list", Answer(401, b"", {"WWW-Authenticate": kind}))
    fake.on("GET", "/token", Answer(401))
    file = tmp_path / "password"
    file.write_text("wrong")
    client = make_client(fake, username="mig", password_file=str(file))

    def ask(_: int) -> None:
        with pytest.raises(RegistryError) as caught:
            client.tags("a")
        assert caught.value.error_class == "auth"

    def sent() -> int:
        return sum(request.authorization.startswith("Basic ") for request in fake.requests)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ask, range(8)))
    assert sent() == 1

    file.write_text("another")
    ask(0)
    assert sent() == 2


def test_requests_go_one_at_a_time_until_a_password_is_known_to_be_right(
    fake: FakeRegistry, make_client: MakeClient
) -> None:
    at_a_time, most = [0], [0]
    lock = threading.Lock()

    def answer(request: Request) -> Answer:
        with lock:
            at_a_time[0] += 1
            most[0] = max(most[0], at_a_time[0])
        time.sleep(0.05)
        with lock:
            at_a_time[0] -= 1
        if not request.authorization:
            return Answer(401, b"", {"WWW-Authenticate": 'Basic realm="r"'})
        return Answer(200, b"{}")

    fake.on("GET", "/v2/a/tags/list", answer)
    client = make_client(fake, username="mig", password="right")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: client.tags("a"), range(4)))
        assert most == [1]
        list(threads.map(lambda _: client.tags("a"), range(4)))
    assert most[0] > 1


@pytest.mark.parametrize(
    "body",
    [
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"<title>400 The plain HTTP request was sent to HTTPS port</title>",
        b"Reason: You're speaking plain HTTP to an SSL-enabled server port.",
    ],
)
def test_http_to_a_tls_port_is_an_error_of_tls(
    fake: FakeRegistry,
    make_client: MakeClient,
    body: bytes,
) -> None:
    fake.on("GET", "/v2/", Answer(400, body))

    with pytest.raises(RegistryError, match="it speaks TLS: write https://") as caught:
        make_client(fake).ping()

    assert caught.value.error_class == "tls"


def test_also_a_head_tells_that_a_port_speaks_tls(
    fake: FakeRegistry, make_client: MakeClient
) -> None:
    fake.on("HEAD", "/v2/a/manifests/v1", Answer(400))
    fake.on("GET", "/v2/", Answer(400, b"Client sent an HTTP request to an HTTPS server.\n"))
    client = make_client(fake)

    with pytest.raises(RegistryError) as caught:
        client.head_manifest("a", "v1")
    assert caught.value.error_class == "tls"

    for answer in (Answer(400, b"no"), Answer(200)):
        fake.on("GET", "/v2/", answer)
        with pytest.raises(RegistryError, match="HEAD /v2/a/manifests/v1: 400") as caught:
            client.head_manifest("a", "v1")
        assert caught.value.error_class == "unsupported"


def test_an_alert_of_tls_in_place_of_an_answer_is_an_error_of_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def alert() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\x15\x03\x03\x00\x02\x02\x46")

        thread = threading.Thread(target=alert)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with (
            closing(RegistryClient(Endpoint(url=url, plain_http=True))) as client,
            pytest.raises(RegistryError, match="it speaks TLS") as caught,
        ):
            client.ping()
        thread.join()

    assert caught.value.error_class == "tls"


def test_a_blob_that_the_target_does_not_know_is_named(
    fake: FakeRegistry,
    make_client: MakeClient,
) -> None:
    body = (
        b'{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry",'
        b'"detail":{"digest":"sha256:abc"}},{"code":"MANIFEST_BLOB_UNKNOWN","message":'
        b'"blob unknown to registry","detail":"sha256:def"}]}'
    )
    fake.on("GET", "/v2/", Answer(400, body))

    with pytest.raises(RegistryError, match=r"sha256:abc.*sha256:def"):
        make_client(fake).ping()
