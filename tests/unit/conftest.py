"""The application on mongomock, and clients that are signed in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import PASSWORDS, csrf_token, deliver, envelope, time_of
from flask import Flask
from flask.testing import FlaskClient

from app import create_app
from app.settings import MongoDB, Notifications, Registry, Settings
from app.store import Stores
from app.store.paging import LONGEST_SLICE

TOKEN = "registry-token"


@pytest.fixture(autouse=True)
def nothing_goes_on() -> Iterator[None]:
    """A thread that outlives its test works in the middle of another one."""
    yield
    assert [t for t in threading.enumerate() if type(t).__module__.startswith("app.")] == []


@pytest.fixture(scope="module", autouse=True)
def in_one_slice() -> Iterator[None]:
    """mongomock reads the whole collection for each slice of time: one slice will do.

    tests/store looks into the past as a server does.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.store.paging.FIRST_SLICE", 2 * LONGEST_SLICE)
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        mongodb=MongoDB(uri="mongodb://unused", data_dir=str(tmp_path / "data")),
        registries=[Registry(token=TOKEN)],
        notifications=Notifications(max_body_bytes=100_000),
    )


@pytest.fixture
def make_app(settings: Settings, mock_stores: Stores) -> Callable[..., Flask]:
    def make(**changes: Any) -> Flask:
        app = create_app(msgspec.structs.replace(settings, **changes), mock_stores)
        app.testing = False
        return app

    return make


@pytest.fixture
def app(make_app: Callable[..., Flask], mock_stores: Stores) -> Flask:
    for name, password in PASSWORDS.items():
        mock_stores.accounts.add(name, password, {})
    mock_stores.accounts.add_acl_entry(
        {"seq": 10, "match": {"account": "alice", "name": "team/*"}, "actions": ["pull"]}
    )
    return make_app()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def store(mock_stores: Stores) -> Callable[..., None]:
    """Store wire events, each as it happens."""

    def store(*events: Any, registry: str = "default") -> None:
        for event in events:
            deliver(mock_stores, envelope(event), registry, time_of(event))

    return store


@pytest.fixture
def sign_in(app: Flask) -> Callable[..., FlaskClient]:
    """A client of its own, signed in as the account."""

    def sign_in(name: str) -> FlaskClient:
        client = app.test_client()
        token = csrf_token(client.get("/login").text)
        form = {"username": name, "password": PASSWORDS[name], "csrf_token": token}
        response = client.post("/login", data=form)
        assert response.status_code == 303
        return client

    return sign_in
