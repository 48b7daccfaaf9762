"""POST /events: what a registry gets back."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from typing import Any

import pytest
from builders import envelope, wire_event
from flask import Flask
from flask.testing import FlaskClient

from app.errors import StoreUnavailable
from app.settings import Registry
from app.store import Stores
from app.web import notifications

V1 = "application/vnd.docker.distribution.events.v1+json"
BEARER = {"Authorization": "Bearer registry-token"}


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
def test_an_envelope_is_stored_and_counted(client: FlaskClient, content_type: str) -> None:
    blob = wire_event(of="blob", media_type="application/octet-stream")
    body = envelope(wire_event(tag="v1"), blob, {"id": "broken"})

    response = post(client, body, content_type=content_type)

    assert response.status_code == 202
    assert response.json == {"stored": 1, "duplicate": 0, "ignored": 1, "rejected": 1}


def test_the_answer_to_a_redelivery_counts_duplicates(client: FlaskClient) -> None:
    body = envelope(wire_event(tag="v1"))
    post(client, body)

    assert post(client, body).json == {"stored": 0, "duplicate": 1, "ignored": 0, "rejected": 0}


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
    assert response.json["error"]


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
    assert mock_stores.days.find_first_day() is None


def test_the_log_names_who_is_refused_once_a_minute_and_no_token(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_refused", {})

    for _ in range(3):
        post(client, envelope(wire_event()), headers={"Authorization": "Bearer secret-typo"})

    assert caplog.text.count("events from 127.0.0.1 are refused") == 1
    assert "secret-typo" not in caplog.text


def test_a_bare_token_is_taken_too(client: FlaskClient) -> None:
    headers = {"Authorization": "registry-token"}

    assert post(client, envelope(), headers=headers).status_code == 202


def test_the_token_names_the_registry(make_app: Callable[..., Flask], mock_stores: Stores) -> None:
    registries = [Registry(name="one", token="t1"), Registry(name="two", token="t2")]
    client = make_app(registries=registries).test_client()

    post(client, envelope(wire_event()), headers={"Authorization": "Bearer t2"})

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
    assert {event.registry for event in mock_stores.events.iterate()} == {"one", "two"}


def test_a_token_is_not_looked_at_where_no_registry_has_one(
    make_app: Callable[..., Flask],
) -> None:
    client = make_app(registries=[Registry()]).test_client()

    assert post(client, envelope(wire_event())).status_code == 202


def test_a_body_over_the_limit_is_refused(client: FlaskClient) -> None:
    response = post(client, b" " * 100_001)

    assert response.status_code == 413
    assert "max_body_bytes" in response.json["error"]


@pytest.mark.parametrize(("length", "status"), [(100_001, 413), (5_000, 202)])
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


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH"])
def test_other_methods_are_answered_without_redirect(client: FlaskClient, method: str) -> None:
    response = client.open("/events", method=method)

    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]


def test_the_path_with_a_slash_is_no_redirect(client: FlaskClient) -> None:
    assert client.post("/events/").status_code == 404


def test_an_outage_is_answered_so_that_the_registry_sends_again(
    client: FlaskClient, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(events: Any) -> int:
        raise StoreUnavailable("away")

    monkeypatch.setattr(mock_stores.events, "add", away)

    response = post(client, envelope(wire_event()))

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"


def test_ready_says_so_and_live_needs_no_database(client: FlaskClient) -> None:
    assert client.get("/readyz").json == {"status": "ready"}
    assert client.get("/healthz").json == {"status": "ok"}
