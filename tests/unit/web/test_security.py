"""Every route of the URL map: who may open it, what it shows to whom, what attacks do to it.

The routes are taken from the application, so that a new one is covered the day it is added.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import mongomock
import msgspec
import pytest
from builders import PASSWORDS, basic, csrf_token, deliver, digest, envelope, wire_event
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from routes import MIGRATION, find_routes
from werkzeug.datastructures import MultiDict

from app import create_app
from app.rules.access import Account, compile_rule, parse_acl
from app.settings import MongoDB, Server, Settings
from app.store import Stores
from app.web import forms
from app.web.openapi import LISTS

SignIn = Callable[[str], FlaskClient]

OPEN = {
    "static",
    "favicon",
    "health.live",
    "health.ready",
    "signin.login",
    "api.openapi",
    "api_page.page",
}
FORM = {"search.repositories_form", "search.tags_form", "analysis.records_form"}
ADMINISTRATORS_ALONE = re.compile(
    r"/access/|/migration/|/registries/|/wiring/"
    r"|/api/v1/(sign-ins|access|migrations|rejected-events)"
)


@pytest.fixture(name="settings")
def settings_with_everything(settings: Settings) -> Settings:
    return msgspec.structs.replace(
        settings,
        migrations=[MIGRATION],
        server=msgspec.structs.replace(settings.server, metrics_token="token-of-prometheus"),
    )


# Who may open what


def expected_get(endpoint: str, path: str, role: str) -> set[int]:
    """The statuses of GET without any parameter."""
    is_api = path.startswith("/api/")
    if endpoint in OPEN:
        return {200}
    if endpoint == "metrics.metrics":
        return {401}  # whoever it is: a token of its own opens it
    if endpoint == "signin.index":
        return {302}
    if role in ("anonymous", "wrong password"):
        if endpoint in FORM and role == "anonymous":
            return {200}
        return {401} if is_api or role == "wrong password" else {302}
    if endpoint == "api.unknown":
        return {404}
    if ADMINISTRATORS_ALONE.match(path) and role != "administrator":
        return {403}
    # Without parameters there is no repository, tag or digest to show.
    if endpoint in FORM:
        return {302}  # to the list
    if endpoint == "analysis.unused":
        return {200, 302}  # to as many days as are known
    needs = endpoint in NEEDS_PARAMETERS or path == "/api/v1/history"
    return {400, 404} if needs else {200}


NEEDS_PARAMETERS = {
    "search.repository",
    "search.tag",
    "search.digest",
    "details.account",
    "details.address",
    "details.record",
    "api.access",
    "api.recall",
    "wiring.test",
    "api.repository",
    "api.tag",
    "api.manifest",
    "api.record",
}
ROLES = {"other account": "mallory", "owner": "alice", "administrator": "admin"}


@pytest.mark.parametrize("role", ["anonymous", "wrong password", *ROLES])
def test_every_route_is_open_to_exactly_those_who_may_open_it(
    app: Flask, mock_stores: Stores, sign_in: SignIn, role: str
) -> None:
    client = sign_in(ROLES[role]) if role in ROLES else app.test_client()
    headers = basic("alice", "wrong") if role == "wrong password" else {}
    wrong = []

    for endpoint, path in find_routes(app, "GET"):
        mock_stores.sign_ins._collection.delete_many({"outcome": "refused"})
        with client.get(path, headers=headers) as response:
            status = response.status_code
        expected = expected_get(endpoint, path, role)
        if status not in expected:
            wrong.append((endpoint, path, status, expected))

    assert wrong == []


@pytest.mark.parametrize("role", ["anonymous", "wrong password", *ROLES])
def test_nothing_is_changed_without_a_token_against_forgery_or_of_a_registry(
    app: Flask, sign_in: SignIn, role: str
) -> None:
    client = sign_in(ROLES[role]) if role in ROLES else app.test_client()
    headers = basic("alice", "wrong") if role == "wrong password" else {}

    answers = {
        endpoint: client.post(path, headers=headers, data={"username": "alice"}).status_code
        for method in ("POST", "PUT", "DELETE", "PATCH")
        for endpoint, path in find_routes(app, method)
    }

    assert answers.pop("notifications.receive") == 401
    assert answers
    assert set(answers.values()) == {400}


def test_a_head_is_answered_as_a_get(app: Flask, sign_in: SignIn) -> None:
    for client in (app.test_client(), sign_in("admin")):
        for endpoint, path in find_routes(app, "GET"):
            with client.get(path) as whole, client.head(path) as head:
                assert head.status_code == whole.status_code, endpoint
                assert head.data == b"", endpoint


def test_a_static_file_can_be_kept_and_has_no_cookie(sign_in: SignIn) -> None:
    alice = sign_in("alice")
    found = re.findall(r'(?:src|href)="(/static/[^"]+)"', alice.get("/analysis/").text)
    assert len(found) > 3

    for url in found:
        with alice.get(url) as kept, alice.get(url.partition("?")[0]) as asked_again:
            assert (kept.status_code, asked_again.status_code) == (200, 200)
            assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert asked_again.headers["Cache-Control"] == "no-cache"
            for answer in (kept, asked_again):
                assert "Set-Cookie" not in answer.headers
                assert "Vary" not in answer.headers
        tag = {"If-None-Match": asked_again.headers["ETag"]}
        with alice.get(url, headers=tag) as unchanged:
            assert unchanged.status_code == 304
            assert "Set-Cookie" not in unchanged.headers
    with alice.get(f"/static/none.css?{found[0].partition('?')[2]}") as missing:
        assert (missing.status_code, missing.headers["Cache-Control"]) == (404, "no-store")
    with alice.get("/search/") as page:
        assert page.headers["Cache-Control"] == "no-store"


# What is shown to whom

REPOSITORIES = 500
NAMESPACES = ["", "team/", "team/deep/", "ops/", "a-b/", *(f"user{n}/" for n in range(20))]


def name_of(number: int) -> str:
    return f"{NAMESPACES[number % len(NAMESPACES)]}r{number:03}q"


def shown_in(text: str) -> set[str]:
    """The repositories whose name, or part of it, or digest stands in a page.

    A token against forgery may hold anything.
    """
    text = re.sub(r'name="csrf_token"[^>]*>', "", text)
    return {name_of(int(number)) for number in re.findall(r"r([0-9]{3})q", text)} | {
        name for name, of in BY_DIGEST if of in text
    }


ALL_NAMES = [name_of(number) for number in range(REPOSITORIES)]
BY_DIGEST = [(name, digest(name)[7:19]) for name in ALL_NAMES]  # pages show 12 digits
PATTERNS = [
    "${account}/*",
    "team/*",
    "team/deep/*",
    "ops/r0*",
    "r*",
    "*/r1?[0-5]q",
    "a-b/r004q",
    "/^team/",
    "/q$/",
    "/^(ops|a-b)/r[0-9]*[02468]q$/",
    "/(?i)USER1/",
    "${labels:group}/*",
    "/^${labels:group}/",
    "nothing/*",
]


def random_acl(dice: random.Random) -> list[dict[str, Any]]:
    entries = []
    for seq in range(dice.randint(1, 6)):
        match: dict[str, Any] = {}
        if dice.random() < 0.9:
            match["name"] = dice.choice(PATTERNS)
        if dice.random() < 0.4:
            match["account"] = dice.choice([f"user{dice.randrange(20)}", "user1*", "/[05]$/"])
        if dice.random() < 0.2:
            match["labels"] = {"group": dice.choice(["team", "o*"])}
        if dice.random() < 0.1:
            match["ip"] = dice.choice(["127.0.0.0/8", "10.0.0.0/8"])
        actions = dice.choice([["pull"], ["*"], ["pull", "push"], [], ["push"]])
        entries.append({"seq": seq, "match": match, "actions": actions})
    if dice.random() < 0.05:
        entries.append({"seq": 99, "match": {"name": "/(/"}, "actions": ["*"]})
    return entries


def labels_of(number: int) -> dict[str, list[str]]:
    return [{}, {"group": ["team"]}, {"group": ["ops", "a-b"]}, {"group": []}][number % 4]


@pytest.fixture(scope="module")
def crowded() -> tuple[Flask, Stores]:
    """500 repositories, each with a tag and its push, and 20 accounts."""
    stores = Stores(mongomock.MongoClient(tz_aware=True)["registry"])
    stores.ensure_indexes()
    pushes = [
        wire_event("push", name, tag="v1", of=name, at=number)
        for number, name in enumerate(ALL_NAMES)
    ]
    deliver(stores, envelope(*pushes), "default")
    for number in range(20):
        stores.accounts.add(f"user{number}", "secret", labels_of(number))
    config = Settings(
        server=Server(secret_key="key"),
        mongodb=MongoDB(uri="mongodb://unused"),
        migrations=[MIGRATION],
    )
    return create_app(config, stores), stores


def signed_in(app: Flask, name: str) -> FlaskClient:
    client = app.test_client()
    token = csrf_token(client.get("/login").text)
    form = {"username": name, "password": "secret", "csrf_token": token}
    assert client.post("/login", data=form).status_code == 303
    return client


def everything_listed(client: FlaskClient, path: str, dice: random.Random) -> set[str]:
    """What a list shows on all its pages: as an export, or page by page through the API."""
    if not path.startswith("/api/") or dice.random() < 0.5:
        export = client.get(path, query_string={"format": dice.choice(["ndjson", "csv"])})
        assert export.status_code == 200
        return shown_in(export.text)
    shown: set[str] = set()
    url: str | None = f"{path}?limit=300&total=1"
    while url:
        answer = client.get(url).json
        shown |= shown_in(str(answer["items"]))
        assert not answer["items"] or answer["total"] >= len(answer["items"])
        url = answer["next"]
    return shown


# Records are dear on mongomock: about one of twenty accounts lists them.
LISTS_OF_EVERYTHING = ["/analysis/user/login/", "/api/v1/records"]
LISTS_OF_EVERYTHING += [
    "/search/user/login/",
    "/search/user/repo/login/",
    "/api/v1/repositories",
    "/api/v1/tags",
] * 10


@pytest.mark.parametrize("seed", range(50))
def test_every_list_shows_exactly_what_the_rule_allows_and_no_route_shows_more(
    crowded: tuple[Flask, Stores], seed: int
) -> None:
    app, stores = crowded
    dice = random.Random(seed)
    documents = random_acl(dice)
    stores.accounts._acl.delete_many({})
    for document in documents:
        stores.accounts.add_acl_entry(document)

    walker = dice.randrange(20)
    for number in range(20):
        allowed = allowed_to(documents, number)
        client = signed_in(app, f"user{number}")
        path = LISTS_OF_EVERYTHING[(number + seed) % len(LISTS_OF_EVERYTHING)]
        assert everything_listed(client, path, dice) == allowed, (path, number, documents)
        if number == walker:
            walk(app, client, allowed, dice, seed % 3)


def allowed_to(documents: list[dict[str, Any]], number: int) -> set[str]:
    rule = compile_rule(
        parse_acl(documents),
        Account(f"user{number}", {key: tuple(v) for key, v in labels_of(number).items()}),
        address="127.0.0.1",
        service="registry",
        own_namespace=True,
        administrators=["admin"],
    )
    return {name for name in ALL_NAMES if rule.may_pull(name)}


def walk(
    app: Flask, client: FlaskClient, allowed: set[str], dice: random.Random, third: int
) -> None:
    """Open a third of all routes in several ways: none may show a repository that is not allowed.

    What was asked for is shown as the value of a filter, so the answer must be the one to a
    question for something that does not exist.
    """
    hidden = sorted(set(ALL_NAMES) - allowed)
    for _, path in find_routes(app, "GET")[third::3]:
        if path.startswith("/static/"):
            continue
        for query in dice.sample(VARIANTS, 1):
            with client.get(path, query_string=query) as response:
                assert response.status_code < 500
                assert shown_in(response.text) <= allowed, (path, query)
        if not hidden:
            continue
        name = dice.choice(hidden)
        absent = f"{name[:-4]}___q"
        make = dice.choice(QUESTIONS)
        asked, missing = (client.get(path, query_string=make(n)) for n in (name, absent))
        texts = [
            response.text.replace(made_of, "").replace(digest(made_of), "")
            for response, made_of in ((asked, name), (missing, absent))
        ]
        assert asked.status_code == missing.status_code, (path, name)
        assert shown_in(texts[0]) <= allowed, (path, name)
        assert strip_links(texts[0]) == strip_links(texts[1]), (path, name)


VARIANTS: list[dict[str, str]] = [
    {},
    {"format": "ndjson"},
    {"q": "r"},
    {"limit": "500"},
    {"sort": "pushed"},
]
QUESTIONS: list[Callable[[str], dict[str, str]]] = [
    lambda name: {"repository": name},
    lambda name: {"repository": name, "tag": "v1"},
    lambda name: {"repository": name, "days": "1"},
    lambda name: {"digest": digest(name)},
]


def strip_links(text: str) -> str:
    """A page without the filters that its links and fields repeat, and without ages."""
    text = re.sub(r'(href|value|name="csrf_token" [^>]*)="[^"]*"', "", text)
    text = re.sub(r"<time [^>]*>", "", text)
    return re.sub(r"sha256(%3A|:)[0-9a-f]*", "", text)


# What it does with attacks

MARK = "rnsx"
ATTACKS = [
    f"<{MARK}>alert(1)</{MARK}>",
    f"'\"><{MARK} src=x onerror=alert(1)>",
    f"javascript:alert('{MARK}')//<{MARK}>",
    "rns{{7*7}}rns",
    "rns{%print(7*7)%}rns",
    '{"$gt": ""}',
    "{$ne: null}",
    "[$ne]=1",
    "'; return true; //",
    "' OR '1'='1",
    "../../../../etc/passwd",
    "%00",
    "\x00",
    "\ud800",
    "x\r\nX-Injected: yes",
    "^" * 300,
    "(" * 200,
    "*" * 9,
    "[" * 100,
    "a" * 70_000,
    "9" * 400,
    "-1",
    "0",
    "1e309",
    "NaN",
    "2026-02-30",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "10.0.0.0/999",
    "::1/0",
    "sha256:",
    "http://evil.example/",
    "//evil.example",
    "\u202egnp.exe",
    "=cmd|' /C calc'!A0",
    "",
    " ",
]
VALUES = st.one_of(st.sampled_from(ATTACKS), st.text(max_size=40))


def field_names(kind: Any) -> Iterator[str]:
    for below in kind.__subclasses__():
        yield from field_names(below)
        yield from (name for name, _ in vars(below).items() if not name.startswith("_"))


PARAMETERS = sorted(
    {name for name in field_names(forms.FilterForm) if not name.startswith("validate")}
    | {"from", "to", "cursor", "limit", "format", "history", "next", "username", "password"}
    | {"endpoint", "name", "filename", "values", "_external", "_scheme", "_anchor", "_method"}
)
NAMES = st.one_of(
    st.sampled_from(PARAMETERS),
    st.sampled_from(PARAMETERS),
    st.sampled_from([f"{name}[$ne]" for name in PARAMETERS]),
    st.sampled_from(ATTACKS[:12]),
)


@pytest.fixture
def attacked(app: Flask, sign_in: SignIn, store: Callable[..., None]) -> FlaskClient:
    store(
        wire_event("push", tag="v1", actor=ATTACKS[0], user_agent=ATTACKS[1]),
        wire_event("pull", tag="v1", actor=ATTACKS[3], address=ATTACKS[1]),
        wire_event("push", tag="v2", of="other", actor=ATTACKS[14]),
    )
    return sign_in("admin")


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_five_thousand_hostile_requests_fail_softly_and_reflect_no_markup(
    app: Flask, attacked: FlaskClient, data: st.DataObject
) -> None:
    routes = [path for endpoint, path in find_routes(app, "GET") if endpoint != "static"]
    routes += [path for _, path in find_routes(app, "POST") if path != "/logout"]
    requests = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(routes),
                st.lists(st.tuples(NAMES, VALUES), max_size=6),
                st.sampled_from(["GET", "GET", "GET", "POST"]),
            ),
            min_size=50,
            max_size=50,
        )
    )

    for path, parameters, method in requests:
        pairs = [(_sendable(name), _sendable(value)) for name, value in parameters]
        sent = {"query_string": pairs} if method == "GET" else {"data": dict(pairs)}
        with attacked.open(path, method=method, **sent) as response:
            text = response.get_data(as_text=True)
        assert response.status_code < 500, (path, parameters, text)
        assert "X-Injected" not in response.headers
        assert "evil.example" not in response.headers.get("Location", "").partition("?")[0]
        if response.mimetype == "text/html":
            assert f"<{MARK}" not in text, (path, parameters)
            assert "rns49rns" not in text, (path, parameters)


@pytest.mark.parametrize(
    "query",
    [
        "endpoint=x",
        "name=x",
        "format=html",
        "_external=1&_scheme=javascript",
        "_anchor=x",
        "_method=x",
        "values=x",
        "url=x",
        "external=1",
        "self=x",
    ],
)
def test_no_parameter_is_taken_for_an_argument_of_the_program(
    app: Flask, attacked: FlaskClient, query: str
) -> None:
    for _, path in find_routes(app, "GET"):
        with attacked.get(f"{path}?{query}&digest={digest('other')}&repository=team/app") as answer:
            assert answer.status_code < 500, path
            assert 'href="javascript' not in answer.get_data(as_text=True), path


def _sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def test_nul_is_in_no_filter(sign_in: SignIn) -> None:
    """mongod refuses it in a pattern, which would be told as an outage."""
    admin = sign_in("admin")
    tried = 0
    for path, entry in LISTS.items():
        for field in entry.form(MultiDict()):
            query = {field.name: "a\0b"}
            answer = admin.get(f"/api/v1{path.replace('{name}', 'none')}", query_string=query)
            assert answer.status_code == 400, (path, field.name)
            assert answer.json["detail"], (path, field.name)
            tried += 1
    assert tried > 40
    page = admin.get("/search/user/login/?q=%00")
    assert page.status_code == 400
    assert "has a NUL character" in page.text


@pytest.mark.parametrize("name", ["repositories", "tags", "records"])
@pytest.mark.parametrize("value", ['{"$gt": ""}', '{"$ne": null}', "{'$regex': '.*'}"])
def test_an_operator_of_mongodb_is_a_text_like_any_other(
    attacked: FlaskClient, name: str, value: str
) -> None:
    free = {"repositories": ["q", "registry"], "tags": ["q", "tag", "repository", "registry"]}
    for parameter in free.get(name, ["repository", "tag", "actor", "registry"]):
        plain = attacked.get(f"/api/v1/{name}", query_string={parameter: value})
        nested = attacked.get(f"/api/v1/{name}", query_string={f"{parameter}[$ne]": "x"})

        assert plain.json["items"] == []
        assert nested.status_code == 400


@pytest.mark.parametrize("value", ['{"$gt": ""}', '{"$ne": null}'])
def test_an_operator_of_mongodb_is_no_account_and_no_password(
    client: FlaskClient, value: str
) -> None:
    for name, password in ((value, "x"), ("alice", value), (value, value)):
        assert client.get("/api/v1/records", headers=basic(name, password)).status_code == 401
    token = csrf_token(client.get("/login").text)
    form = {"username[$ne]": "", "password[$ne]": "", "csrf_token": token}
    assert client.post("/login", data=form).status_code == 401


def test_the_passwords_of_the_tests_are_not_shown_anywhere(
    attacked: FlaskClient, app: Flask
) -> None:
    for _, path in find_routes(app, "GET"):
        with attacked.get(path) as response:
            text = response.get_data(as_text=True)
        assert not any(password in text for password in PASSWORDS.values())
        assert "$2b$" not in text
