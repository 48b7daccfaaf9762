"""Single sign-on: a trusted proxy says in a header who asks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from builders import basic, csrf_token, wire_event
from flask import Flask
from flask.testing import FlaskClient

from app.settings import Access, Server
from app.store import Stores
from app.web import credentials

API = "/api/v1/repositories"
HEADER = "X-Forwarded-User"
PROXY = "127.0.0.1"  # what the test client's requests come from
CLIENT = "203.0.113.9"

Ask = Callable[..., Any]


@pytest.fixture
def behind_proxy(app: Flask, make_app: Callable[..., Flask]) -> Callable[..., FlaskClient]:
    """A client of a server behind one proxy that names accounts."""

    def make(proxies: int = 1, **access: Any) -> FlaskClient:
        access = {"sign_in_header": HEADER} | access
        return make_app(
            server=Server(secret_key="key", trusted_proxies=proxies), access=Access(**access)
        ).test_client()

    return make


@pytest.fixture
def ask(behind_proxy: Callable[..., FlaskClient]) -> Ask:
    client = behind_proxy()

    def ask(value: Any, path: str = API, peer: str = PROXY, **headers: str) -> Any:
        named = [(HEADER, one) for one in ([value] if isinstance(value, str) else value)]
        given = [*named, ("X-Forwarded-For", CLIENT), *headers.items()]
        return client.get(path, headers=given, environ_overrides={"REMOTE_ADDR": peer})

    return ask


def names(response: Any) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["repository"] for item in response.json["items"]]


def test_whom_the_proxy_names_sees_what_that_account_sees(
    ask: Ask, store: Callable[..., None]
) -> None:
    store(wire_event("push", "team/app"), wire_event("push", "ops/app"))

    assert names(ask("alice")) == ["team/app"]
    assert names(ask("mallory")) == []
    assert names(ask("admin")) == ["ops/app", "team/app"]
    assert "Sign out" in ask("alice", "/search/").text


def test_without_the_header_nobody_is_signed_in(ask: Ask) -> None:
    assert ask([]).status_code == 401
    assert ask([], "/search/").status_code == 302


@pytest.mark.parametrize(
    ("peer", "is_taken"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.5", False),
        (CLIENT, False),
        ("fe80::1%eth0", False),
        ("", False),  # a Unix socket
        ("unknown", False),
    ],
)
def test_the_header_is_taken_from_the_proxy_alone(ask: Ask, peer: str, is_taken: bool) -> None:
    assert ask("admin", peer=peer).status_code == (200 if is_taken else 401)


def test_what_x_forwarded_for_says_makes_nobody_a_proxy(
    behind_proxy: Callable[..., FlaskClient],
) -> None:
    client = behind_proxy(sign_in_from=["10.0.0.5"])
    headers = {HEADER: "admin", "X-Forwarded-For": "10.0.0.5"}
    spoofed = {**headers, "X-Forwarded-For": "10.0.0.5, 10.0.0.5", "X-Real-IP": "10.0.0.5"}

    for given in (headers, spoofed):
        answer = client.get(API, headers=given, environ_overrides={"REMOTE_ADDR": "10.0.0.6"})
        assert answer.status_code == 401
    proxy = {"REMOTE_ADDR": "10.0.0.5"}
    assert client.get(API, headers=headers, environ_overrides=proxy).status_code == 200
    assert client.get(API, headers=headers).status_code == 401, "loopback is not in the list"


def test_a_list_without_proxies_or_without_a_header_takes_nobody(
    behind_proxy: Callable[..., FlaskClient],
) -> None:
    for client in (behind_proxy(proxies=0), behind_proxy(sign_in_header="")):
        assert client.get(API, headers={HEADER: "admin"}).status_code == 401


def test_the_log_tells_once_of_a_proxy_that_is_not_in_the_list(
    ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    credentials._tell_once.cache_clear()
    with caplog.at_level(logging.WARNING, "app.web.credentials"):
        for _ in range(3):
            ask("alice", peer="10.0.0.5")

    assert caplog.text.count("access.sign_in_from does not have this address") == 1
    assert "10.0.0.5" in caplog.text


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        ["alice", "admin"],
        ["admin", "admin"],
        ["", "admin"],
        "alice,admin",
        "alice, admin",
        "x" * 256,
        "al\x01ice",
        "al\x7fice",
        "al\tice",
        "al:ice",
        "alice\xa0",
        "\xff\xfe",
        "nobody",
        "Alice",
    ],
)
def test_what_is_no_account_is_refused_and_not_anonymous(ask: Ask, value: Any) -> None:
    for path in (API, "/search/", "/search/user/"):
        assert ask(value, path).status_code == 403


def test_a_name_that_is_not_ascii_is_read_as_utf8(ask: Ask, mock_stores: Stores) -> None:
    mock_stores.accounts.add("Zoë", "secret", {})

    assert ask("Zoë".encode().decode("latin-1")).status_code == 200


def test_an_account_that_cannot_sign_in_is_refused(
    ask: Ask, mock_stores: Stores, mock_database: Any
) -> None:
    assert ask("alice").status_code == 200

    mock_database.users.update_one({"username": "alice"}, {"$unset": {"password": 1}})

    refused = ask("alice")
    assert refused.status_code == 403
    assert "there is no account alice" in refused.json["detail"]


def test_the_header_wins_over_a_session_and_credentials_win_over_the_header(
    behind_proxy: Callable[..., FlaskClient], store: Callable[..., None]
) -> None:
    store(wire_event("push", "team/app"))
    client = behind_proxy()
    form = {"username": "alice", "password": "secret-alice"}
    form["csrf_token"] = csrf_token(client.get("/login").text)
    assert client.post("/login", data=form).status_code == 303
    assert names(client.get(API)) == ["team/app"]

    assert names(client.get(API, headers={HEADER: "mallory"})) == []
    both = {HEADER: "alice", **basic("mallory")}
    assert names(client.get(API, headers=both)) == []
    wrong = {HEADER: "alice", **basic("mallory", "wrong")}
    assert client.get(API, headers=wrong).status_code == 401
    unreadable = {HEADER: "alice", "Authorization": "Basic /w=="}
    assert client.get(API, headers=unreadable).status_code == 401


def test_the_token_against_forgery_is_asked_for_all_the_same(
    behind_proxy: Callable[..., FlaskClient], mock_stores: Stores
) -> None:
    client = behind_proxy()
    headers = {HEADER: "alice"}
    fields = {"name": "ci", "days": "30"}

    forged = client.post("/account/tokens", data=fields, headers=headers)
    api = client.post("/api/v1/migrations/dc2/start", json={}, headers={HEADER: "admin"})

    assert (forged.status_code, api.status_code) == (400, 400)
    assert mock_stores.tokens.find_all("alice") == []
    fields["csrf_token"] = csrf_token(client.get("/account", headers=headers).text)
    assert client.post("/account/tokens", data=fields, headers=headers).status_code == 200
    assert len(mock_stores.tokens.find_all("alice")) == 1


def test_signing_out_says_where_that_is_done(behind_proxy: Callable[..., FlaskClient]) -> None:
    client, headers = behind_proxy(), {HEADER: "alice"}
    token = csrf_token(client.get("/search/", headers=headers).text)

    answer = client.post("/logout", data={"csrf_token": token}, headers=headers)

    assert answer.status_code == 200
    assert "You are still signed in" in answer.text
    assert "alice" in answer.text


def test_the_account_page_says_where_the_password_is_changed(
    behind_proxy: Callable[..., FlaskClient],
) -> None:
    client, headers = behind_proxy(), {HEADER: "alice"}

    page = client.get("/account", headers=headers).text
    fields = {"present": "secret-alice", "new": "a-new-secret", "again": "a-new-secret"}
    fields["csrf_token"] = csrf_token(page)
    refused = client.post("/account/password", data=fields, headers=headers)

    assert "sign in at the proxy" in page
    assert 'name="present"' not in page
    assert refused.status_code == 403


def test_the_audit_has_each_account_once_a_day_with_the_address_of_the_client(
    ask: Ask, mock_stores: Stores
) -> None:
    for _ in range(3):
        ask("alice")
        ask("nobody")

    rows = mock_stores.sign_ins.find_page({}).items

    assert sorted((row.account, row.address, row.means, row.outcome) for row in rows) == [
        ("alice", CLIENT, "header", "signed in"),
        ("nobody", CLIENT, "header", "refused"),
    ]
