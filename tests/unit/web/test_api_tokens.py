"""API tokens: what one opens, what it never opens, and when it is dead."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from builders import basic, csrf_token, wire_event
from flask import Flask
from flask.testing import FlaskClient
from routes import MIGRATION, find_routes

from app.rules.tokens import make_token
from app.settings import Settings
from app.store import Stores, accounts, sign_ins
from app.store.sign_ins import REFUSED, SIGNED_IN, now

SignIn = Callable[[str], FlaskClient]
API = "/api/v1/repositories"
NINETY_DAYS = timedelta(days=90)


@pytest.fixture(name="settings")
def settings_with_a_migration(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, migrations=[MIGRATION])


@pytest.fixture
def make_token_of(mock_stores: Stores) -> Callable[..., str]:
    def make(account: str, name: str = "ci", lifetime: timedelta = NINETY_DAYS) -> str:
        return mock_stores.tokens.add(account, name, lifetime, now())

    return make


@pytest.fixture
def token(app: Flask, make_token_of: Callable[..., str]) -> str:
    return make_token_of("alice")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def names(response: Any) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["repository"] for item in response.json["items"]]


# What it opens


def test_a_token_sees_what_its_account_sees(
    client: FlaskClient,
    store: Callable[..., None],
    make_token_of: Callable[..., str],
    token: str,
) -> None:
    store(wire_event("push", "team/app"), wire_event("push", "ops/app"))
    others, admins = make_token_of("mallory"), make_token_of("admin")

    assert names(client.get(API, headers=bearer(token))) == ["team/app"]
    assert names(client.get(API, headers=basic("alice", token))) == ["team/app"]
    assert names(client.get(API, headers=bearer(others))) == []
    assert names(client.get(API, headers=bearer(admins))) == ["ops/app", "team/app"]


def test_no_bcrypt_is_run_for_a_token(
    client: FlaskClient, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> bool:
        raise AssertionError("bcrypt")

    monkeypatch.setattr(accounts.bcrypt, "checkpw", refuse)

    for headers in (bearer(token), basic("alice", token)):
        assert client.get(API, headers=headers).status_code == 200


def test_a_token_is_no_administrator_where_its_account_is_none(
    client: FlaskClient, token: str, make_token_of: Callable[..., str]
) -> None:
    assert client.get("/api/v1/sign-ins", headers=bearer(token)).status_code == 403
    admins = make_token_of("admin")
    assert client.get("/api/v1/sign-ins", headers=bearer(admins)).status_code == 200


EXPORTS = [
    "/search/user/login/",
    "/search/user/repo/login/",
    "/analysis/user/login/",
    "/analysis/unused",
    "/analysis/storage",
    "/analysis/recall?repository=team/app&tag=v1",
]


@pytest.mark.parametrize("path", EXPORTS)
@pytest.mark.parametrize("kind", ["csv", "ndjson"])
def test_a_token_reads_exports_and_not_their_pages(
    client: FlaskClient, store: Callable[..., None], token: str, path: str, kind: str
) -> None:
    store(wire_event("push", "team/app", tag="v1"))
    mark = "&" if "?" in path else "?"

    with client.get(f"{path}{mark}format={kind}", headers=bearer(token)) as export:
        assert export.status_code == 200
        assert export.mimetype in ("text/csv", "application/x-ndjson")
    for page in (path, f"{path}{mark}format=html", f"{path}{mark}format="):
        assert client.get(page, headers=bearer(token)).status_code == 403


# What it does not open


OPEN = {
    "/login",
    "/",
    "/healthz",
    "/readyz",
    "/static/site.css",
    "/favicon.ico",
    "/api/",
}  # to anybody


@pytest.mark.parametrize("account", ["alice", "admin"])
@pytest.mark.parametrize("query", ["", "?format=csv", "?format=ndjson"])
@pytest.mark.parametrize("as_password", [False, True])
def test_a_token_opens_no_page(
    app: Flask, make_token_of: Callable[..., str], account: str, query: str, as_password: bool
) -> None:
    token, client = make_token_of(account), app.test_client()
    headers = basic(account, token) if as_password else bearer(token)
    opened = []

    for _, path in find_routes(app, "GET"):
        if path in OPEN or path.startswith("/api/v1/"):
            continue
        with client.get(path + query, headers=headers) as answer:
            is_file = answer.mimetype in ("text/csv", "application/x-ndjson")
            # A form that wants more filters than none is no page either: its errors are 400.
            if answer.status_code < 400 and not (query and is_file):
                opened.append((path, answer.status_code, answer.mimetype))
            assert "Sign out" not in answer.get_data(as_text=True) or answer.status_code >= 400

    assert opened == []


@pytest.mark.parametrize("account", ["alice", "admin"])
@pytest.mark.parametrize("kind", ["json", "form"])
@pytest.mark.parametrize("as_password", [False, True])
def test_a_token_changes_nothing(
    app: Flask,
    mock_stores: Stores,
    make_token_of: Callable[..., str],
    account: str,
    kind: str,
    as_password: bool,
) -> None:
    token, client = make_token_of(account), app.test_client()
    page = client.get("/login").text  # a session with its token against forgery
    headers = basic(account, token) if as_password else bearer(token)
    fields = {
        "csrf_token": csrf_token(page),
        "name": "more",
        "days": "30",
        "id": "x",
        "account": account,
        "present": "secret-alice",
        "new": "longer-secret",
        "again": "longer-secret",
    }
    before = mock_stores.accounts.find(account)
    wrong = []

    routes = [
        (method, path)
        for method in ("POST", "PUT", "PATCH", "DELETE")
        for _, path in find_routes(app, method)
    ]
    for method, path in routes:
        sent: dict[str, Any] = {"json": {}} if kind == "json" else {"data": fields}
        answer = client.open(path, method=method, headers=headers, **sent)
        allowed = {400, 401, 403}
        if path == "/logout":  # ends the session that the cookie names, and there is none
            allowed |= {303}
        if answer.status_code not in allowed:
            wrong.append((method, path, answer.status_code))

    assert len(routes) > 15
    assert wrong == []
    assert mock_stores.accounts.find(account) == before
    assert [row.name for row in mock_stores.tokens.find_all(account)] == ["ci"]
    assert mock_stores.migrations.plans.find_audit(MIGRATION.name, 10) == []


@pytest.mark.parametrize("action", ["start", "pause", "resume", "lift-brake", "retry", "skip"])
def test_an_administrators_token_moves_no_migration(
    client: FlaskClient, token: str, make_token_of: Callable[..., str], action: str
) -> None:
    admins = make_token_of("admin")
    path = f"/api/v1/migrations/none/{action}"

    refused = client.post(path, headers=bearer(admins), json={})

    assert refused.status_code == 403
    assert "opens nothing else" in refused.json["detail"]
    assert client.get("/api/v1/migrations/none", headers=bearer(admins)).status_code == 200


# When it is dead


def status(client: FlaskClient, token: str) -> int:
    return client.get(API, headers=bearer(token)).status_code


def test_a_token_is_dead_once_it_is_revoked(
    client: FlaskClient, mock_stores: Stores, token: str
) -> None:
    assert status(client, token) == 200

    mock_stores.tokens.remove("alice", "ci")

    assert status(client, token) == 401


def test_a_token_is_dead_at_its_end(
    client: FlaskClient, mock_database: Any, make_token_of: Callable[..., str], token: str
) -> None:
    other = make_token_of("alice", "other")
    mock_database.api_tokens.update_one({"name": "ci"}, {"$set": {"expires_at": now()}})

    assert (status(client, token), status(client, other)) == (401, 200)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda users: users.delete_one({"username": "alice"}), id="removed"),
        pytest.param(
            lambda users: users.update_one({"username": "alice"}, {"$unset": {"password": 1}}),
            id="disabled",
        ),
        pytest.param(
            lambda users: users.update_one({"username": "alice"}, {"$set": {"password": ""}}),
            id="emptied",
        ),
    ],
)
def test_a_token_is_dead_when_its_account_cannot_sign_in_any_more(
    client: FlaskClient, mock_database: Any, token: str, change: Callable[[Any], Any]
) -> None:
    assert status(client, token) == 200

    change(mock_database.users)

    assert status(client, token) == 401


def test_a_token_goes_on_when_the_password_changes(
    client: FlaskClient, mock_stores: Stores, token: str
) -> None:
    mock_stores.accounts.set_password("alice", "another")

    assert status(client, token) == 200


def test_a_token_is_taken_with_the_name_of_its_own_account_alone(
    client: FlaskClient, token: str
) -> None:
    for name in ("mallory", "admin", "", "ALICE"):
        assert client.get(API, headers=basic(name, token)).status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        "Bearer rns_",
        "Bearer rns_" + "0" * 64,
        "Bearer secret-alice",
        "Bearer registry-token",
        "Bearer {token}x",
        "Bearer x{token}",
        "Bearer {upper}",
        "Bearer alice:{token}",
        "Token {token}",
        "{token}",
    ],
)
def test_a_wrong_token_is_refused(client: FlaskClient, token: str, header: str) -> None:
    given = header.format(token=token, upper=token.upper())

    answer = client.get(API, headers={"Authorization": given})

    assert answer.status_code == 401
    assert token not in answer.text


# Throttle and audit


def test_wrong_tokens_count_in_the_throttle_of_their_address(
    client: FlaskClient, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ins, "MAX_OF_ADDRESS", 3)
    for _ in range(3):
        assert status(client, make_token()) == 401

    refused = client.get(API, headers=bearer(make_token()))

    assert refused.status_code == 429
    assert client.get(API, headers=basic("alice")).status_code == 429
    elsewhere = {"REMOTE_ADDR": "198.51.100.7"}
    answer = client.get(API, headers=bearer(make_token()), environ_overrides=elsewhere)
    assert answer.status_code == 401


def test_a_right_token_is_taken_from_an_address_where_others_failed(
    client: FlaskClient, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ins, "MAX_OF_ADDRESS", 1)
    assert status(client, make_token()) == 401

    assert status(client, token) == 200


def test_wrong_tokens_without_a_name_throttle_nobody_elsewhere(
    client: FlaskClient, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ins, "MAX_OF_ACCOUNT", 2)
    for number in range(5):
        address = {"REMOTE_ADDR": f"203.0.113.{number}"}
        client.get(API, headers=bearer(make_token()), environ_overrides=address)

    elsewhere = {"REMOTE_ADDR": "198.51.100.7"}
    answer = client.get(API, headers=bearer(make_token()), environ_overrides=elsewhere)

    assert answer.status_code == 401


def test_the_audit_has_the_first_use_of_a_day_and_every_wrong_one(
    client: FlaskClient, mock_stores: Stores, token: str
) -> None:
    for _ in range(3):
        status(client, token)
    client.get(API, headers=basic("mallory", make_token()))
    status(client, make_token())

    rows = mock_stores.sign_ins.find_page({}).items

    assert sorted((row.account, row.means, row.outcome) for row in rows) == [
        ("", "token", REFUSED),
        ("alice", "token ci", SIGNED_IN),
        ("mallory", "token", REFUSED),
    ]


def test_the_last_use_is_written_at_most_once_a_minute(
    client: FlaskClient, mock_stores: Stores, mock_database: Any, token: str
) -> None:
    here = {"REMOTE_ADDR": "10.0.0.7"}
    client.get(API, headers=bearer(token), environ_overrides=here)
    [first] = mock_stores.tokens.find_all("alice")
    client.get(API, headers=bearer(token), environ_overrides={"REMOTE_ADDR": "10.0.0.8"})
    [second] = mock_stores.tokens.find_all("alice")
    ago = now() - timedelta(minutes=2)
    mock_database.api_tokens.update_one({"name": "ci"}, {"$set": {"used_at": ago}})
    client.get(API, headers=bearer(token), environ_overrides={"REMOTE_ADDR": "10.0.0.8"})
    [third] = mock_stores.tokens.find_all("alice")

    assert first.used_from == "10.0.0.7"
    assert second == first
    assert third.used_from == "10.0.0.8"
    assert third.used_at
    assert now() - third.used_at < timedelta(minutes=1)


def test_no_log_and_no_audit_has_a_token_wherever_it_was_given(
    client: FlaskClient, mock_stores: Stores, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        client.get(API, headers=bearer(token))
        client.get(API, headers=basic("alice", token))
        client.get(API, headers=basic(token, ""))
        client.get(API, headers=basic(token, "x"))
        client.get(API, headers=bearer(f"{token}x"))
        form = {"username": token, "password": token}
        form["csrf_token"] = csrf_token(client.get("/login").text)
        client.post("/login", data=form)

    rows = mock_stores.sign_ins.find_page({}).items
    assert "rns_…" in {row.account for row in rows}
    assert token not in str(rows)
    assert token not in caplog.text
