"""Nobody sees anything without signing in, unless docker_auth's anonymous account is let in here.

The routes are taken from the application, so that a new one is closed the day it is added.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bcrypt
import msgspec
import pytest
from builders import INDEX, basic, csrf_token, digest, wire_event
from flask import Flask
from flask.testing import FlaskClient
from routes import MIGRATION, find_routes
from werkzeug.test import TestResponse

from app.settings import Access, Settings
from app.store import Stores

Store = Callable[..., None]
SignIn = Callable[[str], FlaskClient]

REPOSITORY, HIDDEN = "team/visible", "ops/hidden"
NAMES = [REPOSITORY, HIDDEN, "tag-of-it", "sha256:", digest("image")[7:19]]
PEOPLE = ["carol", "10.77.7.7", "agent-of-carol", "id-of-event"]

# What tells of neither repositories nor people, and asks for nothing or for a name and password.
OPEN = {
    "static",
    "favicon",
    "health.live",
    "health.ready",
    "signin.login",
    "signin.index",
    "api.openapi",
    "api_page.page",
}
FORMS = {"search.repositories_form", "search.tags_form", "analysis.records_form"}
RESULTS = {"search.repositories", "search.tags", "analysis.records"}
SEARCH = {
    "search.home",
    "search.repositories",
    "search.tags",
    "search.repository",
    "search.tag",
    "search.digest",
    "find.results",
}
LISTS = {"/api/v1/repositories", "/api/v1/tags"}
RESOURCES = {"api.repository", "api.tag", "api.manifest"}

QUERIES: list[dict[str, str]] = [
    {},
    {"format": "csv"},
    {"format": "ndjson"},
    {"repository": REPOSITORY, "tag": "tag-of-it"},
    {"repository": REPOSITORY},
    {"digest": digest("image")},
    {"repository": REPOSITORY, "tag": "tag-of-it", "format": "csv"},
    {"deleted": "1", "sort": "pushed"},
    {"actor": "carol", "address": "10.77.7.7", "client": "docker"},
]
EVERYTHING_TO_EVERYBODY: list[dict[str, Any]] = [
    {"seq": 1, "match": {}, "actions": ["*"]},
    {"seq": 2, "match": {"account": ""}, "actions": ["*"]},
    {"seq": 3, "match": {"account": "/.*/", "name": "/.*/"}, "actions": ["*"]},
]


@pytest.fixture(name="settings")
def settings_with_everything(settings: Settings) -> Settings:
    server = msgspec.structs.replace(settings.server, metrics_token="token-of-prometheus")
    return msgspec.structs.replace(settings, migrations=[MIGRATION], server=server)


@pytest.fixture(autouse=True)
def recorded(app: Flask, store: Store, mock_stores: Stores) -> None:
    carol = {"actor": "carol", "address": "10.77.7.7:1", "user_agent": "agent-of-carol/1"}
    shape = {"tag": "tag-of-it", "media_type": INDEX, "children": ["child"], **carol}
    store(
        wire_event("push", REPOSITORY, of="image", id="id-of-event-1", **shape),
        wire_event("pull", REPOSITORY, of="image", id="id-of-event-2", at=5, **shape),
        wire_event("push", HIDDEN, tag="v1", of="other", id="id-of-event-3", at=9, **carol),
    )
    allow(mock_stores, *EVERYTHING_TO_EVERYBODY)


def allow(stores: Stores, *entries: dict[str, Any]) -> None:
    for entry in stores.accounts.find_acl_documents():
        stores.accounts.remove_acl_entry(entry["seq"])
    for entry in entries:
        stores.accounts.add_acl_entry(entry)


def let_in(stores: Stores, **document: Any) -> None:
    """Make docker_auth's anonymous account."""
    stores.accounts._accounts.insert_one({"username": "", **document})


def without_echo(text: str, query: dict[str, str]) -> str:
    """An answer without what was asked for, which it may repeat."""
    for value in query.values():
        for spelling in (value, value.replace(":", "%3A"), value.replace("/", "%2F")):
            text = text.replace(spelling, "")
    return text.replace("as team/app", "").replace("sha256:… ", "").replace("as sha256:…", "")


def is_closed(response: TestResponse, endpoint: str, path: str, query: dict[str, str]) -> bool:
    """Whether it asks to sign in: a program by 401, a browser by the way to a form."""
    if path.startswith("/api/") or query.get("format"):
        wanted = response.headers.get("WWW-Authenticate", "").startswith("Basic ")
        return response.status_code == 401 and wanted
    place = response.headers.get("Location", "")
    form = path.removesuffix("login/") if endpoint in RESULTS else "/login?next="
    return response.status_code == 302 and place.startswith(form)


def walk(app: Flask, is_open: Callable[[str, str], bool]) -> set[str]:
    """Ask every route in every way; returns the paths that answered without asking to sign in."""
    client, answered, wrong = app.test_client(), set[str](), []
    for endpoint, path in find_routes(app, "GET"):
        if endpoint in OPEN or endpoint == "metrics.metrics":
            continue
        for query in QUERIES:
            with client.get(path, query_string=query) as response:
                text = without_echo(response.text, query)
                closed = is_closed(response, endpoint, path, query)
                told = [word for word in PEOPLE if word in text]
                if not is_open(endpoint, path):
                    told += [word for word in NAMES if word in text]
                    if not closed and not (
                        endpoint in FORMS and response.status_code in (200, 302)
                    ):
                        wrong.append((path, query, response.status_code))
                elif response.status_code == 200:
                    answered.add(path)
            if told:
                wrong.append((path, query, *told))
    assert wrong == []
    return answered


def nothing_is_open(endpoint: str, path: str) -> bool:
    return False


def search_is_open(endpoint: str, path: str) -> bool:
    return endpoint in SEARCH | RESOURCES or path in LISTS


def test_without_credentials_no_route_shows_anything_though_the_acl_allows_all_to_everybody(
    app: Flask,
) -> None:
    assert walk(app, nothing_is_open) == set()


def test_an_anonymous_account_alone_opens_nothing(app: Flask, mock_stores: Stores) -> None:
    let_in(mock_stores)

    assert walk(app, nothing_is_open) == set()


def test_the_setting_alone_opens_nothing(make_app: Callable[..., Flask], app: Flask) -> None:
    assert walk(make_app(access=Access(anonymous=True)), nothing_is_open) == set()


@pytest.mark.parametrize(
    "password",
    ["x", "", bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode(), 7],
    ids=["text", "empty", "hash", "number"],
)
def test_an_anonymous_account_that_docker_auth_asks_for_a_password_opens_nothing(
    make_app: Callable[..., Flask], app: Flask, mock_stores: Stores, password: Any
) -> None:
    let_in(mock_stores, password=password)
    opened = make_app(access=Access(anonymous=True))

    assert opened.test_client().get("/api/v1/tags").status_code == 401
    assert opened.test_client().get("/search/").status_code == 302


@pytest.mark.parametrize(
    "document",
    [{}, {"password": None}, {"password": bcrypt.hashpw(b"", bcrypt.gensalt(4)).decode()}],
    ids=["without password", "null", "empty password"],
)
def test_the_anonymous_account_sees_repositories_and_tags_and_nothing_of_people(
    make_app: Callable[..., Flask], app: Flask, mock_stores: Stores, document: dict[str, Any]
) -> None:
    let_in(mock_stores, **document)
    opened = make_app(access=Access(anonymous=True))

    answered = walk(opened, search_is_open)

    assert {path for endpoint, path in find_routes(opened, "GET") if endpoint in SEARCH} < answered
    assert answered >= LISTS
    client = opened.test_client()
    tag = client.get("/search/tag", query_string=QUERIES[3]).text
    assert all(word in tag for word in (REPOSITORY, "tag-of-it", digest("image")))
    assert not any(word in tag for word in ("Last pull", "History", "records of", "Who pulled"))


def test_what_the_anonymous_account_may_not_see_leads_to_the_sign_in_as_what_does_not_exist(
    make_app: Callable[..., Flask], app: Flask, mock_stores: Stores
) -> None:
    let_in(mock_stores, labels={"group": ["team"]})
    allow(
        mock_stores,
        {"seq": 1, "match": {"name": "${labels:group}/*"}, "actions": ["pull"]},
    )
    client = make_app(access=Access(anonymous=True)).test_client()

    found = client.get("/api/v1/repositories").json["items"]

    assert [row["repository"] for row in found] == [REPOSITORY]
    for path in ("/search/repository", "/search/tag"):
        asked = [
            client.get(path, query_string={"repository": name, "tag": "v1"})
            for name in (HIDDEN, "ops/absent")
        ]
        assert [answer.status_code for answer in asked] == [302, 302]
        assert {answer.headers["Location"].partition("?")[0] for answer in asked} == {"/login"}
    for of in ("other", "absent"):
        assert client.get("/search/digest", query_string={"digest": digest(of)}).status_code == 302


def test_where_the_acl_shows_nothing_to_the_anonymous_account_it_is_asked_to_sign_in(
    make_app: Callable[..., Flask], app: Flask, mock_stores: Stores
) -> None:
    let_in(mock_stores)
    allow(mock_stores, {"seq": 1, "match": {"account": "alice"}, "actions": ["*"]})

    assert walk(make_app(access=Access(anonymous=True)), nothing_is_open) == set()


def test_the_anonymous_account_is_not_signed_in_to_and_changes_nothing_for_others(
    make_app: Callable[..., Flask], app: Flask, mock_stores: Stores
) -> None:
    let_in(mock_stores)
    client = make_app(access=Access(anonymous=True, administrators=[""])).test_client()

    assert client.get("/api/v1/records", headers=basic("", "")).status_code == 401
    assert client.get("/api/v1/tags", headers=basic("", "")).status_code == 401
    assert client.get("/api/v1/tags", headers=basic("alice", "wrong")).status_code == 401
    assert client.get("/access/").status_code == 302
    records = client.get("/api/v1/records", headers=basic("alice")).json["items"]
    assert {row["actor"] for row in records} == {"carol"}


def test_the_anonymous_account_searches_without_password_and_may_sign_in_on_the_way(
    make_app: Callable[..., Flask], app: Flask, mock_stores: Stores
) -> None:
    let_in(mock_stores)
    client = make_app(access=Access(anonymous=True)).test_client()

    assert 'name="password"' not in client.get("/search/user/").text
    page = client.get("/analysis/user/").text
    form = {"csrf_token": csrf_token(page), "username": "alice", "password": "secret-alice"}
    assert client.post("/analysis/user/login/", data=form).status_code == 303
    assert "carol" in client.get("/analysis/user/login/").text
