"""Accounts that docker_auth's token server knows, and an ACL in docker_auth's file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import mongomock
import msgspec
import pytest
from builders import basic, csrf_token, wire_event, work_in
from fake_token_server import FakeTokenServer, running_token_server
from flask.testing import FlaskClient

from app import create_app
from app.rules.tokens import MAX_LIFETIME_UNKNOWN
from app.settings import Access, DockerAuth, Server, Settings
from app.store import Stores, accounts, sign_ins
from app.web import signin

API = "/api/v1/repositories"
ACL = """
acl:
  - match: {account: alice, name: "team/*"}
    actions: [pull]
  - match: {labels: {group: "*"}}
    actions: ["*"]
"""


@pytest.fixture
def fake() -> Iterator[FakeTokenServer]:
    with running_token_server() as server:
        server.accounts["bob"] = "secret-bob"
        yield server


@pytest.fixture
def acl_file(tmp_path: Path) -> Path:
    file = tmp_path / "auth_config.yml"
    file.write_text(ACL)
    return file


@pytest.fixture
def stores(fake: FakeTokenServer, acl_file: Path) -> Stores:
    there = DockerAuth(token_url=fake.url, acl_file=str(acl_file))
    made = Stores(mongomock.MongoClient(tz_aware=True)["registry"], docker_auth=there)
    made.ensure_indexes()
    return made


@pytest.fixture
def make_client(
    settings: Settings, stores: Stores, fake: FakeTokenServer, acl_file: Path
) -> Callable[..., FlaskClient]:
    there = DockerAuth(token_url=fake.url, acl_file=str(acl_file))

    def make(**changes: Any) -> FlaskClient:
        config = msgspec.structs.replace(settings, docker_auth=there, **changes)
        return create_app(config, stores).test_client()

    return make


@pytest.fixture
def client(make_client: Callable[..., FlaskClient], stores: Stores) -> FlaskClient:
    client = make_client()
    headers = {"Authorization": "Bearer registry-token"}
    events = [wire_event("push", name, tag="v1") for name in ("team/app", "ops/app", "bob/app")]
    assert client.post("/events", json={"events": events}, headers=headers).status_code == 202
    work_in(stores)
    return client


def names(response: Any) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["repository"] for item in response.json["items"]]


def sign_in(client: FlaskClient, name: str = "alice", password: str = "secret-alice") -> Any:
    form = {"username": name, "password": password}
    form["csrf_token"] = csrf_token(client.get("/login").text)
    return client.post("/login", data=form)


def test_an_account_of_the_token_server_sees_what_the_file_allows_it(client: FlaskClient) -> None:
    assert names(client.get(API, headers=basic("alice"))) == ["team/app"]
    assert names(client.get(API, headers=basic("bob", "secret-bob"))) == ["bob/app"]
    assert sign_in(client).status_code == 303
    assert names(client.get(API)) == ["team/app"]


def test_a_wrong_password_and_nobody_are_refused(
    client: FlaskClient, fake: FakeTokenServer
) -> None:
    for headers in (basic("alice", "wrong"), basic("nobody", "x"), basic("alice", ""), {}):
        assert client.get(API, headers=headers).status_code == 401
    assert sign_in(client, password="wrong").status_code == 401
    assert sign_in(client, "", "").status_code == 401
    assert all(password for _, password, _ in fake.asked)


def test_the_store_lets_nobody_in_whose_password_the_server_knows(
    stores: Stores, fake: FakeTokenServer
) -> None:
    for password in ("secret-alice", fake.url, ""):
        assert stores.accounts.sign_in("alice", password) is None


def test_a_long_password_is_no_matter_of_bcrypt(client: FlaskClient) -> None:
    assert sign_in(client, "long", "x" * 100).status_code == 303


def test_an_outage_signs_nobody_in_and_is_no_failed_attempt(
    client: FlaskClient, fake: FakeTokenServer, stores: Stores
) -> None:
    fake.failing = (500, {}, "LDAP is away: cn=admin")

    page, api = sign_in(client), client.get(API, headers=basic("alice"))

    assert (page.status_code, api.status_code) == (503, 503)
    assert api.headers["Retry-After"]
    assert "LDAP" not in page.text + api.text
    assert "Nobody can sign in just now" in api.json["detail"]
    assert stores.sign_ins.find_page({}).items == []
    assert client.get("/search/").status_code == 302
    fake.failing = None
    assert sign_in(client).status_code == 303


def test_a_server_that_lets_everybody_in_signs_nobody_in(
    client: FlaskClient, fake: FakeTokenServer
) -> None:
    fake.lets_everybody_in = True

    assert client.get(API, headers=basic("alice")).status_code == 503
    assert sign_in(client).status_code == 503


def test_failures_are_throttled_and_on_record(
    client: FlaskClient, stores: Stores, fake: FakeTokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ins, "MAX_OF_ACCOUNT_AND_ADDRESS", 3)
    for _ in range(3):
        assert client.get(API, headers=basic("alice", "wrong")).status_code == 401
    number = len(fake.asked)

    assert client.get(API, headers=basic("alice")).status_code == 429

    assert len(fake.asked) == number, "a throttled attempt must not reach the server"
    assert stores.sign_ins.count({"outcome": "refused"}, cap=10).number == 3


def test_spellings_that_ldap_takes_for_one_account_are_throttled_as_one(
    client: FlaskClient, fake: FakeTokenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_ins, "MAX_OF_ACCOUNT_AND_ADDRESS", 3)
    for name in ("Bob", "bOB", " bob"):
        assert client.get(API, headers=basic(name, "wrong")).status_code == 401

    assert client.get(API, headers=basic("BOB", "wrong")).status_code == 429
    assert client.get(API, headers=basic("bob", "secret-bob")).status_code == 429
    assert client.get(API, headers=basic("alice")).status_code == 200


def test_a_token_of_who_may_have_left_lasts_no_more_than_ninety_days(
    client: FlaskClient, stores: Stores
) -> None:
    sign_in(client)
    days = {"name": "ci", "days": "91", "csrf_token": csrf_token(client.get("/account").text)}
    long_ago = sign_ins.now() - timedelta(days=91)
    stores.tokens.longest = timedelta(days=365)  # it was made while the accounts were known
    old = stores.tokens.add("alice", "old", timedelta(days=365), long_ago)
    assert client.get(API, headers={"Authorization": f"Bearer {old}"}).status_code == 200
    stores.tokens.longest = MAX_LIFETIME_UNKNOWN

    refused = client.post("/account/tokens", data=days)
    made = client.post("/account/tokens", data={**days, "days": "90"})

    assert refused.status_code == 400
    assert "expected 1 to 90" in refused.text
    assert made.status_code == 200
    assert client.get(API, headers={"Authorization": f"Bearer {old}"}).status_code == 401


def test_a_session_asks_the_server_no_more_and_lasts_eight_hours(
    client: FlaskClient, fake: FakeTokenServer
) -> None:
    sign_in(client)
    number = len(fake.asked)
    fake.accounts.clear()

    assert client.get("/search/").status_code == 200
    assert len(fake.asked) == number
    with client.session_transaction() as session:
        session["since"] -= signin.UNKNOWN_SESSION_LIFETIME.total_seconds()
    assert client.get("/search/").status_code == 302


def test_a_session_ends_when_another_server_is_asked(client: FlaskClient, stores: Stores) -> None:
    sign_in(client)

    stores.accounts.token_url = "https://other.example/auth"

    assert client.get("/search/").status_code == 302


def test_a_token_needs_no_token_server(client: FlaskClient, fake: FakeTokenServer) -> None:
    sign_in(client)
    fields = {"name": "ci", "days": "30", "csrf_token": csrf_token(client.get("/account").text)}
    made = client.post("/account/tokens", data=fields).text
    token = made.partition(">rns_")[2][:64]
    number = len(fake.asked)
    client.delete_cookie("rns_session")

    answer = client.get(API, headers={"Authorization": f"Bearer rns_{token}"})

    assert names(answer) == ["team/app"]
    assert len(fake.asked) == number


def test_the_account_page_says_that_the_password_is_elsewhere(client: FlaskClient) -> None:
    sign_in(client)

    page = client.get("/account").text
    fields = {"present": "secret-alice", "new": "a-new-secret", "again": "a-new-secret"}
    refused = client.post("/account/password", data={**fields, "csrf_token": csrf_token(page)})

    assert "token server (docker_auth)" in page
    assert 'name="present"' not in page
    assert refused.status_code == 403


def test_a_proxy_may_name_anybody_where_the_accounts_are_not_known(
    client: FlaskClient, make_client: Callable[..., FlaskClient]
) -> None:
    behind = make_client(
        server=Server(trusted_proxies=1), access=Access(sign_in_header="X-Forwarded-User")
    )

    assert names(behind.get(API, headers={"X-Forwarded-User": "alice"})) == ["team/app"]
    assert names(behind.get(API, headers={"X-Forwarded-User": "stranger"})) == []
    for odd in ("", " ", "alice,bob", "alice, alice", "al:ice", "al\x01ice", "x" * 256, "\xff"):
        assert behind.get(API, headers={"X-Forwarded-User": odd}).status_code == 403
    twice = [("X-Forwarded-User", "alice"), ("X-Forwarded-User", "alice")]
    assert behind.get(API, headers=twice).status_code == 403


# The ACL's file


def rewrite(file: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the file, and let the time pass in which the old ACL is in force."""
    file.write_text(text)
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))
    later = accounts.time.monotonic() + 10
    monkeypatch.setattr(accounts, "time", Mock(wraps=time, monotonic=lambda: later))


def test_a_changed_file_is_read_again(
    client: FlaskClient, acl_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names(client.get(API, headers=basic("alice"))) == ["team/app"]

    rewrite(acl_file, ACL.replace("team/*", "ops/*"), monkeypatch)

    assert names(client.get(API, headers=basic("alice"))) == ["ops/app"]


def test_who_may_be_denied_something_by_a_label_does_not_see_it(
    client: FlaskClient, fake: FakeTokenServer, acl_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.accounts["admin"] = "secret-admin"
    guests = 'acl:\n  - match: {labels: {group: guests}, name: "team/*"}\n    actions: []\n'
    rewrite(acl_file, guests + "  - match: {account: /./}\n    actions: [pull]\n", monkeypatch)

    assert names(client.get(API, headers=basic("alice"))) == ["bob/app", "ops/app"]
    assert client.get(f"{API}/default/team/app", headers=basic("alice")).status_code == 404
    seen = names(client.get(API, headers=basic("admin", "secret-admin")))
    assert seen == ["bob/app", "ops/app", "team/app"]
    told = client.get("/api/v1/access?account=alice&repository=team/app", headers=basic("admin"))
    explanation = told.json["explanation"]  # type: ignore[index]
    assert explanation["allowed"] is False
    assert "which a token server does not tell" in explanation["problems"][0]["message"]


@pytest.mark.parametrize("text", ["acl: [", "acl:\n  match: {}", "users: {}", "", "\0", None])
def test_a_file_that_cannot_be_read_denies_all_and_says_so(
    client: FlaskClient,
    stores: Stores,
    acl_file: Path,
    text: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert names(client.get(API, headers=basic("bob", "secret-bob"))) == ["bob/app"]

    rewrite(acl_file, text or "", monkeypatch)
    if text is None:
        acl_file.unlink()

    assert names(client.get(API, headers=basic("bob", "secret-bob"))) == []
    assert names(client.get(API, headers=basic("alice"))) == []
    assert caplog.text.count("docker_auth.acl_file:") == 1
    assert "nothing is allowed" in stores.accounts.load_acl().problems[0].message


def test_an_empty_list_that_cannot_be_read_any_more_denies_what_own_namespace_allowed(
    client: FlaskClient, acl_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(acl_file, "acl: []", monkeypatch)
    assert names(client.get(API, headers=basic("bob", "secret-bob"))) == ["bob/app"]

    rewrite(acl_file, "acl: [", monkeypatch)
    later = accounts.time.monotonic() + 10
    monkeypatch.setattr(accounts, "time", Mock(wraps=time, monotonic=lambda: later))

    assert names(client.get(API, headers=basic("bob", "secret-bob"))) == []


def test_the_explainer_shows_the_file_and_its_problem(
    client: FlaskClient,
    make_client: Callable[..., FlaskClient],
    fake: FakeTokenServer,
    acl_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake.accounts["admin"] = "secret-admin"
    headers, query = basic("admin"), "?account=alice&repository=team/app"

    answer = client.get(f"/api/v1/access{query}", headers=headers).json
    assert answer["explanation"]["allowed"] is True
    assert answer["is_known"] is True
    rewrite(acl_file, "acl: [", monkeypatch)

    page = client.get("/access/", headers=headers).text
    answer = client.get(f"/api/v1/access{query}", headers=headers).json
    assert "acl_file" in page
    assert answer["explanation"]["allowed"] is False


def test_entries_of_a_file_are_changed_in_the_file_alone(stores: Stores) -> None:
    entry = {"seq": 1, "match": {}, "actions": ["*"]}

    for change in (
        lambda: stores.accounts.add_acl_entry(entry),
        lambda: stores.accounts.remove_acl_entry(1),
        lambda: stores.accounts.add("bob", "secret", {}),
        lambda: stores.accounts.set_password("bob", "secret"),
        lambda: stores.accounts.remove("bob"),
    ):
        with pytest.raises(accounts.InvalidQuery, match=r"change (it|them) there"):
            change()
