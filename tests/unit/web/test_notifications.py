"""POST /events: what a registry gets back."""

from __future__ import annotations

import gzip
import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from builders import envelope, wire_event, work_in
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.embedded import space
from app.errors import StoreUnavailable
from app.settings import MongoDB, Registry, Settings
from app.store import Stores
from app.store.inbox import Progress

V1 = "application/vnd.docker.distribution.events.v1+json"
BEARER = {"Authorization": "Bearer registry-token"}
BLOB = wire_event(of="blob", media_type="application/octet-stream")
LIMIT = 100_000  # max_body_bytes of these tests


def post(client: FlaskClient, body: bytes, **kwargs: Any) -> Any:
    kwargs.setdefault("headers", BEARER)
    kwargs.setdefault("content_type", V1)
    return client.post("/events", data=body, **kwargs)


@pytest.mark.parametrize(
    "content_type",
    [
        V1,
        "application/vnd.docker.distribution.events.v2+json",
        "application/json",
        "application/json; charset=utf-8",
    ],
)
def test_an_envelope_is_kept_and_counted(
    client: FlaskClient, mock_stores: Stores, content_type: str
) -> None:
    body = envelope(wire_event(tag="v1"), BLOB, {"id": "broken"})

    response = post(client, body, content_type=content_type)

    assert response.status_code == 202
    assert response.json == {"accepted": 1, "ignored": 1, "rejected": 1}
    work_in(mock_stores)
    assert [event.tag for event in mock_stores.events.iterate()] == ["v1"]
    assert [rejected.body for rejected in mock_stores.rejected.find_all()] == ['{"id": "broken"}']


def test_what_is_accepted_waits_in_the_inbox_and_is_on_record_a_moment_later(
    client: FlaskClient, mock_stores: Stores
) -> None:
    post(client, envelope(wire_event(tag="v1")))

    assert (mock_stores.inbox.count(), [*mock_stores.events.iterate()]) == (1, [])
    work_in(mock_stores)
    assert (mock_stores.inbox.count(), len([*mock_stores.events.iterate()])) == (0, 1)


def test_a_redelivery_is_accepted_and_is_one_event(
    client: FlaskClient, mock_stores: Stores
) -> None:
    body = envelope(wire_event(tag="v1"))

    answers = [post(client, body).json for _ in range(3)]

    assert answers == [{"accepted": 1, "ignored": 0, "rejected": 0}] * 3
    work_in(mock_stores)
    assert len([*mock_stores.events.iterate()]) == 1


def test_transfers_of_blobs_are_counted_and_not_kept(
    client: FlaskClient, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(mock_stores.inbox), "add", lambda *_: pytest.fail("written"))

    response = post(client, envelope(BLOB, BLOB))

    assert response.status_code == 202
    assert response.json == {"accepted": 0, "ignored": 2, "rejected": 0}


def test_a_bare_event_is_an_envelope_of_one(client: FlaskClient, mock_stores: Stores) -> None:
    body = json.dumps(wire_event(tag="v1")).encode()

    response = post(client, body, content_type="application/json; charset=utf-8")

    assert (response.status_code, response.json["accepted"]) == (202, 1)
    work_in(mock_stores)
    assert [event.tag for event in mock_stores.events.iterate()] == ["v1"]


def test_azures_ping_is_answered_and_not_kept(client: FlaskClient, mock_stores: Stores) -> None:
    ping = {"id": "1", "timestamp": "2026-11-23T18:00:00Z", "action": "ping", "target": {}}

    response = post(client, json.dumps(ping | {"request": {}}).encode())

    assert response.status_code == 202
    assert response.json == {"accepted": 0, "ignored": 1, "rejected": 0}
    assert mock_stores.inbox.count() == 0


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", V1),
        (b"{", V1),
        (b"[]", V1),
        (b'{"event": []}', V1),
        (b'{"events": {}}', V1),
        (b"\xff\xfe", V1),
        (gzip.compress(b'{"events": []}', mtime=0), V1),
        (b'{"events": []}', "text/plain"),
        (b'{"events": []}', "application/x-www-form-urlencoded"),
        (b'{"events": []}', ""),
    ],
)
def test_what_is_no_json_envelope_is_refused(
    client: FlaskClient, body: bytes, content_type: str
) -> None:
    response = post(client, body, content_type=content_type)

    assert response.status_code == 400
    assert response.json["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer registry-tokeN"},
        {"Authorization": "Bearer registry-token2"},
        {"Authorization": "Bearer régistry-token"},
        {"Authorization": "Basic registry-token"},
        {"X-Registry-Id": "default"},
    ],
)
def test_without_the_token_nothing_is_stored(
    client: FlaskClient, mock_stores: Stores, headers: dict[str, str]
) -> None:
    response = post(client, envelope(wire_event()), headers=headers)

    assert response.status_code == 401
    assert mock_stores.inbox.count() == 0


def test_the_log_names_who_is_refused_once_a_minute_and_no_token(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        post(client, envelope(wire_event()), headers={"Authorization": "Bearer secret-typo"})

    assert caplog.text.count("notifications from 127.0.0.1 are refused") == 1
    assert "secret-typo" not in caplog.text


def test_a_bare_token_is_taken_too(client: FlaskClient) -> None:
    headers = {"Authorization": "registry-token"}

    assert post(client, envelope(), headers=headers).status_code == 202


def test_the_token_names_the_registry(make_app: Callable[..., Flask], mock_stores: Stores) -> None:
    registries = [Registry(name="one", token="t1"), Registry(name="two", token="t2")]
    client = make_app(registries=registries).test_client()

    post(client, envelope(wire_event()), headers={"Authorization": "Bearer t2"})
    work_in(mock_stores)

    assert next(mock_stores.events.iterate()).registry == "two"


def test_registries_without_token_are_told_apart_by_a_header(
    make_app: Callable[..., Flask], mock_stores: Stores
) -> None:
    registries = [Registry(name="one"), Registry(name="two"), Registry(name="three", token="t3")]
    client = make_app(registries=registries).test_client()

    statuses = [
        post(client, envelope(wire_event()), headers=headers).status_code
        for headers in ({}, {"X-Registry-Id": "two"}, {"X-Registry-Id": "three"}, BEARER)
    ]

    assert statuses == [202, 202, 401, 401]
    work_in(mock_stores)
    assert {event.registry for event in mock_stores.events.iterate()} == {"one", "two"}


def test_a_token_is_not_looked_at_where_no_registry_has_one(
    make_app: Callable[..., Flask],
) -> None:
    client = make_app(registries=[Registry()]).test_client()

    assert post(client, envelope(wire_event())).status_code == 202


def test_a_body_over_the_limit_is_refused(client: FlaskClient) -> None:
    response = post(client, b" " * (LIMIT + 1))

    assert response.status_code == 413
    assert "max_body_bytes" in response.json["detail"]


@pytest.mark.parametrize(("length", "status"), [(LIMIT + 1, 413), (LIMIT, 202)])
def test_a_chunked_body_has_the_same_limit(client: FlaskClient, length: int, status: int) -> None:
    body = envelope().ljust(length)

    response = client.post(
        "/events",
        input_stream=io.BytesIO(body),
        headers=BEARER,
        content_type=V1,
        environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
    )

    assert response.status_code == status


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", " gzip "])
def test_a_gzip_body_is_inflated(client: FlaskClient, mock_stores: Stores, encoding: str) -> None:
    body = gzip.compress(envelope(wire_event(tag="v1")).ljust(LIMIT))

    response = post(client, body, headers={**BEARER, "Content-Encoding": encoding})

    assert (response.status_code, response.json["accepted"]) == (202, 1)
    work_in(mock_stores)
    assert [event.tag for event in mock_stores.events.iterate()] == ["v1"]


def test_a_body_that_is_not_encoded_may_say_so(client: FlaskClient) -> None:
    headers = {**BEARER, "Content-Encoding": "identity"}

    assert post(client, envelope(wire_event()), headers=headers).status_code == 202


@pytest.mark.parametrize("length", [LIMIT + 1, 1000 * LIMIT])
def test_a_gzip_body_that_inflates_over_the_limit_is_refused(
    client: FlaskClient, mock_stores: Stores, length: int
) -> None:
    body = gzip.compress(envelope(wire_event()).ljust(length))
    assert len(body) <= LIMIT

    response = post(client, body, headers={**BEARER, "Content-Encoding": "gzip"})

    assert response.status_code == 413
    assert "max_body_bytes" in response.json["detail"]
    assert mock_stores.inbox.count() == 0


ZIPPED = gzip.compress(envelope(wire_event()))


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b""),
        ("gzip", b"{}"),
        ("gzip", ZIPPED[:-1]),
        ("gzip", ZIPPED[:-8]),
        ("gzip", ZIPPED[:40]),
        ("gzip", ZIPPED[:-8] + bytes(8)),
        ("gzip", ZIPPED * 2),
        ("gzip", ZIPPED[:20] + b"\xff" + ZIPPED[21:]),
        ("deflate", ZIPPED),
        ("br", ZIPPED),
        ("gzip, gzip", gzip.compress(ZIPPED)),
        ("x", envelope(wire_event())),
    ],
    ids=[
        "empty",
        "not gzip",
        "a byte short",
        "no checksum",
        "truncated",
        "wrong checksum",
        "two streams",
        "broken",
        "deflate",
        "br",
        "twice",
        "unknown",
    ],
)
def test_what_cannot_be_inflated_is_refused(
    client: FlaskClient, mock_stores: Stores, encoding: str, body: bytes
) -> None:
    response = post(client, body, headers={**BEARER, "Content-Encoding": encoding})

    assert response.status_code == 400
    assert "Content-Encoding" in response.json["detail"]
    assert mock_stores.inbox.count() == 0


@pytest.mark.parametrize("path", ["/events", "/events/"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_answered_without_redirect(
    client: FlaskClient, method: str, path: str
) -> None:
    response = client.open(path, method=method)

    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]


def test_the_path_with_a_slash_is_the_same(client: FlaskClient, mock_stores: Stores) -> None:
    body = envelope(wire_event())

    response = client.post("/events/", data=body, headers=BEARER, content_type=V1)

    assert response.status_code == 202
    assert response.json == {"accepted": 1, "ignored": 0, "rejected": 0}
    assert mock_stores.inbox.count() == 1
    assert client.post("/events/", data=body, content_type=V1).status_code == 401


def test_an_outage_is_answered_so_that_the_registry_sends_again(
    client: FlaskClient, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(mock_stores.inbox, "add", away)

    response = post(client, envelope(wire_event()))

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"


def test_an_outage_is_one_line_of_the_log_and_not_one_for_each_request(
    client: FlaskClient,
    mock_stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    away = Mock(side_effect=StoreUnavailable("the database refuses: it"))
    monkeypatch.setattr(mock_stores.inbox, "add", away)
    monkeypatch.setattr(mock_stores, "check", away)

    answers = [post(client, envelope(wire_event())) for _ in range(50)]
    answers += [client.get("/readyz") for _ in range(50)]

    assert {answer.status_code for answer in answers} == {503}
    assert caplog.messages == ["POST /events: the database refuses: it"]


def test_events_that_are_not_understood_are_one_line_of_the_log(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The clock of a registry's host may be days ahead, and then it is every event."""
    ahead = envelope(wire_event(at=datetime.now(UTC) + timedelta(days=3)))

    answers = [post(client, ahead).json for _ in range(50)]

    assert all(answer and answer["rejected"] == 1 for answer in answers)
    told = "not understood: events of default: kept whole, see rns events rejected"
    assert caplog.messages == [told]


@pytest.fixture
def silent_database() -> Iterator[str]:
    """The URI of a server that takes every connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as server:
        yield f"mongodb://127.0.0.1:{server.getsockname()[1]}"


def test_a_database_that_hangs_is_answered_before_the_registry_gives_up(
    settings: Settings, silent_database: str
) -> None:
    mongodb = MongoDB(uri=silent_database, data_dir=settings.mongodb.data_dir)
    app = create_app(msgspec.structs.replace(settings, mongodb=mongodb))
    began = time.monotonic()

    response = post(app.test_client(), envelope(wire_event()))

    lasted = time.monotonic() - began
    app.extensions["rns"].stores.close()
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert 0.7 < lasted < 1.3


def test_a_full_inbox_is_answered_so_that_the_registry_sends_again(
    client: FlaskClient, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(mock_stores.inbox), "size", lambda _: 2**40)
    mock_stores.inbox.note_progress(Progress(until=datetime.now(UTC) - timedelta(minutes=1)))

    response = post(client, envelope(wire_event()))

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert mock_stores.inbox.count() == 0
    assert post(client, envelope(BLOB)).status_code == 202


def test_ready_says_so_and_live_needs_no_database(client: FlaskClient) -> None:
    assert client.get("/readyz").json == {"status": "ready"}
    assert client.get("/healthz").json == {"status": "ok"}


def test_a_server_that_refuses_events_is_not_ready_and_says_why(
    make_app: Callable[..., Flask],
    settings: Settings,
    mock_stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embedded = msgspec.structs.replace(settings.mongodb, uri="embedded", data_dir="/")
    make: Callable[[], FlaskClient] = lambda: make_app(mongodb=embedded).test_client()  # noqa: E731
    reasons = []

    def refuse() -> None:
        client = make()
        answer, sent = client.get("/readyz"), post(client, envelope(wire_event()))
        assert (answer.status_code, sent.status_code) == (503, 503)
        assert answer.json
        assert answer.json.keys() == {"status", "reason"}
        reasons.append(answer.json["reason"])

    with monkeypatch.context() as patch:
        patch.setattr(space, "MIN_FREE_BYTES", 2**80)
        refuse()
    with monkeypatch.context() as patch:
        patch.setattr(type(mock_stores.inbox), "size", lambda _: 2**40)
        mock_stores.inbox.note_progress(Progress(until=datetime.now(UTC) - timedelta(minutes=1)))
        refuse()
    mock_stores.inbox.note_progress(Progress(until=datetime.now(UTC)))
    with monkeypatch.context() as patch:
        patch.setattr(mock_stores, "check", Mock(side_effect=StoreUnavailable("at host:27017")))
        patch.setattr(mock_stores.inbox, "add", Mock(side_effect=StoreUnavailable("away")))
        refuse()
    with monkeypatch.context() as patch:
        patch.setattr(
            mock_stores.inbox, "find_progress", Mock(side_effect=StoreUnavailable("away"))
        )
        patch.setattr(mock_stores.inbox, "add", Mock(side_effect=StoreUnavailable("away")))
        refuse()

    assert reasons == [
        "too little disk is free",
        "the inbox is full",
        "the database does not take or return a write",
        "the database does not take or return a write",
    ]
    assert make().get("/readyz").json == {"status": "ready"}


def test_at_debug_there_is_a_line_for_each_envelope(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "app")

    post(client, envelope(wire_event(), BLOB))

    [record] = [r for r in caplog.records if r.levelname == "DEBUG"]
    assert record.getMessage().startswith(
        "envelope registry=default address=127.0.0.1 accepted=1 ignored=1 rejected=0 bytes="
    )
    assert record.fields["ms"] >= 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "is_taken"), [("abc-1.x", True), ("", False), ("a b", False), ("x" * 65, False)]
)
def test_a_request_has_an_id_its_own_or_a_new_one(
    client: FlaskClient, given: str, is_taken: bool
) -> None:
    answers = [client.get("/healthz", headers={"X-Request-Id": given}) for _ in range(2)]

    ids = [answer.headers["X-Request-Id"] for answer in answers]
    assert (ids == [given, given]) is is_taken
    if not is_taken:
        assert len({*ids}) == 2
        assert all(len(id) == 16 for id in ids)
