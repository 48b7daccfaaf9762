"""The front door: throttle, sessions, htpasswd, host check, and the pages for administrators."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import bcrypt
import mongomock
import msgspec
import pytest
from bson import ObjectId, Regex
from builders import PASSWORDS, basic, csrf_token, wire_event, work_in
from flask import Flask
from flask.testing import FlaskClient
from itsdangerous import TimestampSigner

from app import MAX_FORM_BYTES, create_app
from app.settings import DockerAuth, Server, Settings
from app.store import Stores, accounts, sign_ins

SignIn = Callable[[str], FlaskClient]
Store = Callable[..., None]

API = "/api/v1/repositories"


def try_to_sign_in(client: FlaskClient, name: str, password: str, **kwargs: Any) -> Any:
    token = csrf_token(client.get("/login").text)
    fields = {"username": name, "password": password, "csrf_token": token}
    return client.post("/login", data=fields, **kwargs)


def fail(client: FlaskClient, times: int, name: str = "alice") -> None:
    for _ in range(times):
        assert try_to_sign_in(client, name, "wrong").status_code == 401


# Throttle


@pytest.mark.parametrize("name", ["alice", "nobody"])
def test_failures_are_throttled_alike_for_known_and_unknown_accounts(
    client: FlaskClient, name: str
) -> None:
    fail(client, sign_ins.MAX_OF_ACCOUNT_AND_ADDRESS, name)

    refused = try_to_sign_in(client, name, PASSWORDS["alice"])

    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 300
    assert "try again in" in refused.text


def test_who_goes_on_guessing_writes_a_line_of_the_log_a_minute(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    fail(client, sign_ins.MAX_OF_ACCOUNT_AND_ADDRESS)

    answers = [client.get(API, headers=basic("alice")).status_code for _ in range(50)]

    assert answers == [429] * 50
    [line] = caplog.messages
    assert line.startswith("sign-in of 'alice' from 127.0.0.1: throttled: for ")


def test_form_and_basic_are_one_throttle(client: FlaskClient) -> None:
    fail(client, sign_ins.MAX_OF_ACCOUNT_AND_ADDRESS)

    refused = client.get(API, headers=basic("alice"))

    assert refused.status_code == 429
    assert "Retry-After" in refused.headers
    assert refused.is_json


def test_a_throttled_account_signs_in_from_another_address(client: FlaskClient) -> None:
    fail(client, sign_ins.MAX_OF_ACCOUNT_AND_ADDRESS)

    elsewhere = {"REMOTE_ADDR": "198.51.100.7"}
    response = client.get(API, headers=basic("alice"), environ_overrides=elsewhere)

    assert response.status_code == 200


def test_a_session_goes_on_while_its_account_is_throttled(
    sign_in: SignIn, client: FlaskClient
) -> None:
    alice = sign_in("alice")
    fail(client, sign_ins.MAX_OF_ACCOUNT_AND_ADDRESS)

    assert alice.get("/search/").status_code == 200


def test_two_applications_on_one_database_share_the_throttle(
    make_app: Callable[..., Flask], client: FlaskClient
) -> None:
    fail(client, sign_ins.MAX_OF_ACCOUNT_AND_ADDRESS)

    assert make_app().test_client().get(API, headers=basic("alice")).status_code == 429


@pytest.mark.parametrize("name", ["x" * 14_000, "\x00" * 7_000, "a\r\nb" * 3_000])
def test_a_name_that_was_refused_is_cut_in_log_and_audit(
    client: FlaskClient, mock_stores: Stores, caplog: Any, name: str
) -> None:
    caplog.set_level(logging.INFO)

    assert client.get(API, headers=basic(name, "wrong")).status_code == 401

    [row] = mock_stores.sign_ins.find_page({}).items
    assert row.account == name[:255]
    [line] = caplog.messages
    assert line.startswith("refused: ")
    assert len(line) < 1100
    assert line.isprintable()


def test_a_name_of_any_length_is_throttled(client: FlaskClient) -> None:
    for _ in range(sign_ins.MAX_OF_ACCOUNT_AND_ADDRESS):
        assert client.get(API, headers=basic("x" * 1_000, "wrong")).status_code == 401

    assert client.get(API, headers=basic("x" * 1_000, "wrong")).status_code == 429


# Sessions


def test_a_copied_cookie_is_worth_nothing_after_signing_out(app: Flask, sign_in: SignIn) -> None:
    client, thief = sign_in("alice"), app.test_client()
    cookie = client.get_cookie("rns_session")
    assert cookie
    thief.set_cookie("rns_session", cookie.value)
    assert thief.get("/search/").status_code == 200

    token = csrf_token(client.get("/search/").text)
    client.post("/logout", data={"csrf_token": token})

    assert thief.get("/search/").status_code == 302


def test_a_sign_in_never_goes_on_with_the_session_it_came_with(client: FlaskClient) -> None:
    sessions = []
    for name in ("alice", "mallory", "mallory"):
        try_to_sign_in(client, name, PASSWORDS[name])
        with client.session_transaction() as session:
            sessions.append((session["account"], session["id"]))

    assert [account for account, _ in sessions] == ["alice", "mallory", "mallory"]
    assert len({session_id for _, session_id in sessions}) == 3


@pytest.mark.parametrize(
    ("ahead_s", "status"), [(-8 * 3600 - 1, 302), (-8 * 3600 + 60, 200), (50, 200), (120, 302)]
)
def test_a_session_goes_on_at_a_server_whose_clock_is_a_little_behind(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, ahead_s: int, status: int
) -> None:
    with monkeypatch.context() as other:
        clock = TimestampSigner.get_timestamp
        other.setattr(TimestampSigner, "get_timestamp", lambda self: clock(self) + ahead_s)
        assert try_to_sign_in(client, "alice", PASSWORDS["alice"]).status_code == 303

    assert client.get("/account").status_code == status


@pytest.mark.parametrize("header", ["Basic !", "Basic /zp4"])  # no Base64; no UTF-8 in it
@pytest.mark.parametrize("path", [API, "/account", "/search/"])
def test_credentials_that_cannot_be_read_are_refused_beside_a_session(
    client: FlaskClient, path: str, header: str
) -> None:
    try_to_sign_in(client, "alice", PASSWORDS["alice"])
    assert client.get(path).status_code == 200

    refused = client.get(path, headers={"Authorization": header})

    assert refused.status_code == 401
    assert "expected HTTP Basic" in refused.text
    assert client.get("/api/", headers={"Authorization": header}).status_code == 200


def test_a_password_of_more_than_72_bytes_is_told_so(client: FlaskClient) -> None:
    response = try_to_sign_in(client, "alice", "é" * 37)

    assert response.status_code == 401
    assert "72 bytes" in response.text


def test_an_account_without_password_never_signs_in(
    client: FlaskClient, mock_database: Any
) -> None:
    mock_database.users.insert_one({"username": "open"})
    mock_database.users.insert_one({"username": "empty", "password": ""})

    for name in ("open", "empty"):
        for password in ("", "x"):
            assert client.get(API, headers=basic(name, password)).status_code == 401


def test_an_unknown_account_costs_a_hash_as_dear_as_the_known_ones(
    client: FlaskClient, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[bytes] = []
    monkeypatch.setattr(
        accounts.bcrypt, "checkpw", lambda secret, hashed: bool(checked.append(hashed))
    )

    client.get(API, headers=basic("alice", "wrong"))
    client.get(API, headers=basic("nobody", "wrong"))

    known, unknown = checked
    assert known != unknown
    assert known[:7] == unknown[:7] == b"$2b$04$"


# htpasswd


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    file = tmp_path / "htpasswd"
    hashes = [bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode() for _ in range(2)]
    old = "old:$apr1$x$y\n"
    file.write_text(f"# accounts\nrobot:{hashes[0]}\n{old}ops:{hashes[1].replace('$2b', '$2y')}\n")
    return file


@pytest.fixture
def small(settings: Settings, htpasswd: Path) -> tuple[FlaskClient, Stores]:
    """A server of a small registry that has only an htpasswd file."""
    database = mongomock.MongoClient(tz_aware=True)["small"]
    stores = Stores(database, docker_auth=DockerAuth(htpasswd=str(htpasswd)))
    stores.ensure_indexes()
    client = create_app(settings, stores).test_client()
    headers = {"Authorization": "Bearer registry-token"}
    body = {"events": [wire_event("push", "team/app", tag="v1")]}
    assert client.post("/events", json=body, headers=headers).status_code == 202
    work_in(stores)
    return client, stores


def names(client: FlaskClient, headers: dict[str, str]) -> Any:
    response = client.get(API, headers=headers)
    if response.status_code != 200:
        return response.status_code
    return [item["repository"] for item in response.json["items"]]


def test_accounts_of_an_htpasswd_file_see_everything(small: tuple[FlaskClient, Stores]) -> None:
    client, _ = small

    assert names(client, basic("robot", "secret")) == ["team/app"]
    assert names(client, basic("ops", "secret")) == ["team/app"]
    assert names(client, basic("ops", "wrong")) == 401
    assert names(client, basic("old", "secret")) == 401
    assert names(client, basic("nobody", "secret")) == 401
    assert names(client, {}) == 401


def test_acl_entries_bind_the_accounts_of_an_htpasswd_file_too(
    small: tuple[FlaskClient, Stores],
) -> None:
    client, stores = small
    stores.accounts.add_acl_entry({"seq": 1, "match": {"account": "ops"}, "actions": ["pull"]})

    assert names(client, basic("ops", "secret")) == ["team/app"]
    assert names(client, basic("robot", "secret")) == []


def test_a_changed_htpasswd_file_is_read_again(
    small: tuple[FlaskClient, Stores], htpasswd: Path
) -> None:
    client, _ = small
    assert names(client, basic("robot", "secret")) == ["team/app"]

    new = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
    htpasswd.write_text(f"robot:{new}\n")

    assert names(client, basic("robot", "secret")) == 401
    assert names(client, basic("robot", "other")) == ["team/app"]
    assert names(client, basic("ops", "secret")) == 401


def test_a_byte_order_mark_is_no_part_of_a_name(
    small: tuple[FlaskClient, Stores], htpasswd: Path
) -> None:
    client, _ = small
    robot = htpasswd.read_text().splitlines()[1]
    htpasswd.write_text(f"{robot}\n", "utf-8-sig")

    assert names(client, basic("robot", "secret")) == ["team/app"]
    assert names(client, basic("\ufeffrobot", "secret")) == 401


def test_the_last_line_of_an_account_counts_as_in_the_registry(
    small: tuple[FlaskClient, Stores], htpasswd: Path
) -> None:
    client, _ = small
    new = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
    htpasswd.write_text(f"{htpasswd.read_text()}robot:{new}\nops:plain\n")

    assert names(client, basic("robot", "secret")) == 401
    assert names(client, basic("robot", "other")) == ["team/app"]
    assert names(client, basic("ops", "secret")) == 401


def test_an_htpasswd_file_that_cannot_be_read_tells_only_the_log(
    small: tuple[FlaskClient, Stores], htpasswd: Path, caplog: Any
) -> None:
    client, _ = small
    htpasswd.unlink()

    answers = [
        client.get(API, headers=basic("robot", "secret")),
        try_to_sign_in(client, "robot", "secret"),
    ]

    for answer in answers:
        assert answer.status_code == 503
        assert "Nobody can sign in just now" in answer.text
        assert htpasswd.name not in answer.text
    [line] = caplog.messages
    assert str(htpasswd) in line
    headers = {"Authorization": "Bearer registry-token"}
    assert client.get("/readyz").status_code == 200
    assert client.post("/events", json={"events": []}, headers=headers).status_code == 202


def test_lines_of_an_htpasswd_file_that_are_not_bcrypt_are_reported(
    small: tuple[FlaskClient, Stores],
) -> None:
    _, stores = small

    assert [account.name for account in stores.accounts.find_all()] == ["ops", "robot"]
    assert stores.accounts.htpasswd
    assert stores.accounts.htpasswd.problems == ["line 3: old: not bcrypt; use htpasswd -B"]


# Addresses


def behind_proxies(make_app: Callable[..., Flask], proxies: int = 1) -> FlaskClient:
    return make_app(server=Server(trusted_proxies=proxies)).test_client()


def test_an_ip_entry_sees_the_client_that_a_proxy_names_with_its_port(
    app: Flask, make_app: Callable[..., Flask], mock_stores: Stores, store: Store
) -> None:
    store(wire_event("push", "team/app", tag="v1"))
    mock_stores.accounts.add_acl_entry({"seq": 1, "match": {"ip": "6.6.6.6"}, "actions": []})
    client = behind_proxies(make_app)

    def seen_from(forwarded_for: str) -> Any:
        return names(client, basic("alice") | {"X-Forwarded-For": forwarded_for})

    assert seen_from("6.6.6.7:4711") == ["team/app"]
    for denied in ("6.6.6.6", "6.6.6.6:4711", "[::ffff:6.6.6.6]:4711", "6.6.6.7, 6.6.6.6:1"):
        assert seen_from(denied) == [], denied


def test_an_address_that_cannot_be_read_is_that_of_the_proxy(
    app: Flask, make_app: Callable[..., Flask], mock_stores: Stores, store: Store
) -> None:
    store(wire_event("push", "team/app", tag="v1"))
    mock_stores.accounts.add_acl_entry({"seq": 1, "match": {"ip": "127.0.0.1"}, "actions": []})
    client = behind_proxies(make_app)

    assert names(client, basic("alice") | {"X-Forwarded-For": "10.0.0.1"}) == ["team/app"]
    assert names(client, basic("alice") | {"X-Forwarded-For": "unknown"}) == []


def test_each_port_of_an_address_is_one_throttle(
    app: Flask, make_app: Callable[..., Flask], mock_stores: Stores
) -> None:
    client = behind_proxies(make_app)

    for port in range(sign_ins.MAX_OF_ACCOUNT_AND_ADDRESS):
        headers = basic("alice", "wrong") | {"X-Forwarded-For": f"6.6.6.6:{4711 + port}"}
        assert client.get(API, headers=headers).status_code == 401

    for port, status in (("6.6.6.6:1", 429), ("6.6.6.7:1", 200)):
        headers = basic("alice") | {"X-Forwarded-For": port}
        assert client.get(API, headers=headers).status_code == status
    assert {row.address for row in mock_stores.sign_ins.find_page({}).items} == {
        "6.6.6.6",
        "6.6.6.7",
    }


def test_the_audit_is_found_by_an_address_however_it_is_written(
    client: FlaskClient, sign_in: SignIn
) -> None:
    fail(client, 1)

    admin = sign_in("admin")
    found = admin.get("/api/v1/sign-ins?outcome=refused&address=[::ffff:127.0.0.1]:80&total=1").json

    assert found["total"] == 1


# Host


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("registry.example", 200),
        ("Registry.Example", 200),
        ("a.sub.example:8000", 200),
        ("evil.example", 400),
    ],
)
def test_pages_answer_only_to_the_hosts_of_the_configuration(
    make_app: Callable[..., Flask], host: str, status: int
) -> None:
    client = make_app(server=Server(hosts=["registry.EXAMPLE", ".sub.example"])).test_client()

    assert client.get("/login", headers={"Host": host}).status_code == status
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_an_event_is_taken_whatever_its_sender_calls_this_server(
    make_app: Callable[..., Flask],
) -> None:
    client = make_app(server=Server(hosts=["registry.example"])).test_client()

    headers = {"Authorization": "Bearer registry-token", "Host": "10.0.0.1"}
    response = client.post("/events", json={"events": []}, headers=headers)

    assert response.status_code == 202


# Tokens


def test_each_token_of_a_registry_is_taken_while_it_is_changed(
    make_app: Callable[..., Flask], settings: Settings
) -> None:
    registry = msgspec.structs.replace(settings.registries[0], token="new", tokens=["old"])
    client = make_app(registries=[registry]).test_client()

    answers = [
        client.post("/events", json={"events": []}, headers={"Authorization": f"Bearer {token}"})
        for token in ("new", "old", "older", "")
    ]

    assert [answer.status_code for answer in answers] == [202, 202, 401, 401]


# Administrators


def test_the_audit_shows_sign_ins_and_failures_to_administrators(
    client: FlaskClient, sign_in: SignIn
) -> None:
    fail(client, 2, "<b>eve</b>")

    admin = sign_in("admin")
    page = admin.get("/access/sign-ins")
    refused = admin.get("/api/v1/sign-ins?outcome=refused&total=1").json

    assert "&lt;b&gt;eve" in page.text
    assert "<b>eve" not in page.text
    assert [row["account"] for row in refused["items"]] == ["<b>eve</b>"] * 2
    assert refused["total"] == 2


@pytest.mark.parametrize(
    "path",
    ["/access/", "/access/sign-ins", "/api/v1/sign-ins", "/api/v1/access?account=a&repository=b"],
)
def test_access_pages_are_for_administrators(sign_in: SignIn, path: str) -> None:
    assert sign_in("admin").get(path).status_code == 200
    refused = sign_in("alice").get(path)
    assert refused.status_code == 403
    assert "administrators" in refused.text


def test_the_explainer_says_which_entry_decides(sign_in: SignIn) -> None:
    admin = sign_in("admin")

    page = admin.get("/access/?account=alice&repository=team/app")
    answer = admin.get("/api/v1/access?account=alice&repository=ops/app").json

    assert "the entry with seq 10 decides: it allows pull" in page.text
    assert answer["explanation"]["allowed"] is False
    assert answer["explanation"]["steps"][0]["because"] == "name 'team/*' does not match 'ops/app'"


def test_what_if_shows_what_an_entry_would_change_and_changes_nothing(
    sign_in: SignIn, store: Store, mock_stores: Stores
) -> None:
    store(wire_event("push", "team/app"), wire_event("push", "ops/app"))
    entry = {"seq": 10, "match": {"account": "alice", "name": "ops/*"}, "actions": ["pull"]}
    query = {"account": "alice", "repository": "ops/app", "entry": json.dumps(entry)}
    before = mock_stores.accounts.find_acl_documents()

    admin = sign_in("admin")
    answer = admin.get("/api/v1/access", query_string=query).json
    page = admin.get("/access/", query_string=query).text

    assert answer["what_if"]["explanation"]["allowed"] is True
    assert answer["what_if"]["gained_names"] == ["ops/app"]
    assert answer["what_if"]["lost_names"] == ["team/app"]
    assert "With the entry that is not saved" in page
    assert mock_stores.accounts.find_acl_documents() == before


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"repository": "a"}, "account"),
        ({"account": "a"}, "repository"),
        ({"account": "a", "repository": "b", "address": "10.0.0.0/8"}, "address"),
        ({"account": "a", "repository": "b", "entry": "{"}, "entry"),
        ({"account": "a", "repository": "b", "entry": "[]"}, "entry"),
        ({"account": "a", "repository": "b", "entry": '{"match": {}, "actions": []}'}, "entry"),
        ({"account": "a", "repository": "b", "other": "c"}, "other"),
    ],
)
def test_the_explainer_names_what_it_cannot_use(
    sign_in: SignIn, query: dict[str, str], field: str
) -> None:
    response = sign_in("admin").get("/api/v1/access", query_string=query)

    assert response.status_code == 400
    assert response.json["detail"].startswith(f"{field}: ")


def test_an_invalid_list_is_shown_with_its_problem_and_no_page_fails(
    sign_in: SignIn, mock_stores: Stores
) -> None:
    alice, admin = sign_in("alice"), sign_in("admin")
    mock_stores.accounts.add_acl_entry({"seq": 5, "match": {"name": "/(/"}, "actions": ["pull"]})
    mock_stores.accounts._acl.insert_one({"match": 7, "actions": None})

    pages = [admin.get("/access/"), admin.get("/access/?account=alice&repository=team/app")]

    assert [page.status_code for page in pages] == [200, 200]
    for page in pages:
        assert "missing" in page.text or "seq 5" in page.text
    assert alice.get("/search/").status_code == 200
    assert alice.get(API).json["items"] == []


@pytest.mark.parametrize(
    "entry",
    [
        {"seq": 7, "match": {"account": Regex("^<b>", "i")}, "actions": ["pull"]},
        {"seq": 7, "match": {"name": ObjectId()}, "actions": ["pull"], "comment": 7},
        {"seq": 10.5, "match": {"labels": {"group": 7}}, "actions": 7},
        {"seq": "<b>", "match": "x", "actions": "pull"},
        {"seq": float("nan"), "match": [1], "actions": {"pull": True}},
        {"seq": datetime.now(UTC)},
        {},
    ],
    ids=["regex", "ObjectId", "numbers", "text", "lists", "date", "nothing"],
)
def test_an_entry_of_any_kind_is_shown(
    sign_in: SignIn, mock_stores: Stores, entry: dict[str, Any]
) -> None:
    mock_stores.accounts._acl.insert_one(dict(entry))
    admin = sign_in("admin")

    overview = admin.get("/access/")
    explained = admin.get("/access/?account=alice&repository=team/app")
    answer = admin.get("/api/v1/access?account=alice&repository=team/app")

    where = "seq 7" if entry.get("seq") == 7 else "without seq, number 2 in the collection"
    for page in (overview, explained):
        assert page.status_code == 200
        assert f"<li>{where}: " in page.text
        assert "<b>" not in page.text
    assert answer.status_code == 200
    assert answer.json["explanation"]["allowed"] is (entry == {})


def test_entries_in_another_order_than_that_of_seq_are_shown(
    sign_in: SignIn, mock_stores: Stores
) -> None:
    mock_stores.accounts.add_acl_entry({"seq": 5, "match": {"name": "team/*"}, "actions": []})
    admin = sign_in("admin")

    overview = admin.get("/access/").text
    explained = admin.get("/access/?account=alice&repository=team/app").text
    elsewhere = admin.get("/access/?account=alice&repository=ops/app").text

    for page in (overview, explained, elsewhere):
        assert "seq 5 comes before seq 10, and is stored after it" in page
    assert "answer otherwise: seq 10 is stored before it, and allows pull" in explained
    assert "answer otherwise" not in elsewhere
    seqs = re.findall(r'data-label="seq">(.*?)<', overview)
    assert seqs == ["5", "10"]


def test_an_acl_that_another_program_changes_is_in_force_within_ten_seconds(
    sign_in: SignIn, store: Store, mock_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(wire_event("push", "ops/app", tag="v1"))
    client = sign_in("alice")
    assert client.get(API).json["items"] == []

    entry = {"seq": 1, "match": {"name": "ops/*"}, "actions": ["pull"]}
    mock_database.acl.insert_one(entry)
    later = time.monotonic() + 10
    monkeypatch.setattr(accounts, "time", Mock(wraps=time, monotonic=lambda: later))

    assert [row["repository"] for row in client.get(API).json["items"]] == ["ops/app"]


@pytest.mark.parametrize("path", ["/login", "/search/user/login/", "/api/v1/migrations/none/start"])
def test_nobody_can_make_the_server_read_a_large_form(client: FlaskClient, path: str) -> None:
    """4 MB of fields took three seconds, for anybody."""
    form = "&".join(["a=b"] * (MAX_FORM_BYTES // 4 + 1))
    kind = "application/x-www-form-urlencoded"

    refused = client.post(path, data=form, content_type=kind)

    assert refused.status_code == 413
    assert "max_body_bytes" not in refused.text


def test_of_those_who_sign_in_at_the_same_moment_some_are_refused_at_once(
    make_app: Callable[..., Flask], app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password takes a tenth of a second: a flood of them must not hold every thread."""
    few = make_app(server=Server(threads=8, secret_key="key"))
    begun, may_end = threading.Semaphore(0), threading.Event()
    check = accounts.AccountStore.sign_in

    def slow(store: Any, *given: str) -> Any:
        begun.release()
        may_end.wait(10)
        return check(store, *given)

    monkeypatch.setattr(accounts.AccountStore, "sign_in", slow)

    def ask() -> Any:
        return few.test_client().get(API, headers=basic("alice"))

    with ThreadPoolExecutor() as pool:
        two = [pool.submit(ask) for _ in range(2)]
        assert all(begun.acquire(timeout=10) for _ in two)
        third = ask()
        may_end.set()

        assert (third.status_code, third.headers["Retry-After"]) == (429, "1")
        assert [answer.result().status_code for answer in two] == [200, 200]
    assert ask().status_code == 200
