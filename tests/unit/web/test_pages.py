"""The pages, exports and the API, each as an account that may and as one that must see nothing."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from builders import INDEX, NOW, PASSWORDS, basic, csrf_token, digest, wire_event
from flask import Flask
from flask.testing import FlaskClient
from mongomock.collection import Cursor
from werkzeug.datastructures import MultiDict

from app.notifications.derivation import Derivation
from app.rules.original import Row, parse_record
from app.store import Stores
from app.web import forms
from app.web.display import ago
from app.web.lists import url_with

SignIn = Callable[[str], FlaskClient]
Store = Callable[..., None]

FORMS = {
    "/search/user/": "/search/user/login/",
    "/search/user/repo/": "/search/user/repo/login/",
    "/analysis/user/": "/analysis/user/login/",
}
DASHBOARD = "/analysis/?from=2026-11-20&to=2026-11-24"
PAGES = [
    "/search/",
    DASHBOARD,
    *FORMS.values(),
    "/search/repository?repository=team/app",
    "/search/tag?repository=team/app&tag=v1",
    f"/search/digest?digest={digest('image')}",
    f"/analysis/recall?digest={digest('image')}",
    "/analysis/recall?repository=team/app&tag=v1",
]


@pytest.fixture(autouse=True)
def recorded(app: Flask, store: Store) -> None:
    store(
        wire_event("push", tag="v1", actor="ci-bot"),
        wire_event("pull", tag="v1", at=1, actor="k8s", address="10.9.8.7:1234"),
        wire_event("push", "other/app", tag="v9", of="other", at=2, actor="eavesdropper"),
    )


@pytest.mark.parametrize("path", PAGES)
def test_an_account_sees_what_it_may_pull_and_nothing_else(sign_in: SignIn, path: str) -> None:
    response = sign_in("alice").get(path)

    assert response.status_code == 200
    assert "team/app" in response.text
    assert "other/app" not in response.text
    assert "eavesdropper" not in response.text


@pytest.mark.parametrize("path", PAGES)
def test_an_account_without_rights_sees_nothing(sign_in: SignIn, path: str) -> None:
    response = sign_in("mallory").get(path)

    text = response.text.replace("team/*", "").replace("as team/app", "")
    assert "team/app" not in text
    assert "ci-bot" not in text
    if "recall" not in path:  # which repeats what it was asked for
        assert digest("image") not in text


@pytest.mark.parametrize("path", PAGES)
def test_an_administrator_sees_everything(sign_in: SignIn, path: str) -> None:
    assert sign_in("admin").get(path).status_code == 200


@pytest.mark.parametrize("path", PAGES)
def test_nobody_sees_a_page_without_signing_in(client: FlaskClient, path: str) -> None:
    response = client.get(path)

    assert response.status_code in (302, 401)
    assert "ci-bot" not in response.text


@pytest.mark.parametrize(
    ("real", "missing"),
    [
        ("/search/repository?repository=team/app", "/search/repository?repository=team/none"),
        ("/search/tag?repository=team/app&tag=v1", "/search/tag?repository=team/none&tag=v1"),
        (f"/search/digest?digest={digest('image')}", f"/search/digest?digest={digest('none')}"),
    ],
)
def test_what_may_not_be_seen_answers_as_what_does_not_exist(
    sign_in: SignIn, real: str, missing: str
) -> None:
    client = sign_in("mallory")

    hidden, absent = client.get(real), client.get(missing)

    assert (hidden.status_code, absent.status_code) == (404, 404)
    # A token is signed with the second at which it was made.
    tokens = csrf_token(hidden.text), csrf_token(absent.text)
    assert hidden.text.replace(tokens[0], "") == absent.text.replace(tokens[1], "")


@pytest.mark.parametrize(("form", "result"), FORMS.items())
def test_a_form_signs_in_and_leads_to_a_result_that_can_be_linked(
    client: FlaskClient, form: str, result: str
) -> None:
    token = csrf_token(client.get(form).text)
    fields = {"username": "alice", "password": PASSWORDS["alice"], "csrf_token": token}

    posted = client.post(result, data={**fields, "registry": "default"})
    shown = client.get(posted.headers["Location"])

    assert posted.status_code == 303
    assert posted.headers["Location"] == f"{result}?registry=default"
    assert "team/app" in shown.text


@pytest.mark.parametrize(("form", "result"), FORMS.items())
def test_a_result_without_session_goes_to_its_form(
    client: FlaskClient, form: str, result: str
) -> None:
    response = client.get(result)

    assert (response.status_code, response.headers["Location"]) == (302, form)


@pytest.mark.parametrize("result", FORMS.values())
@pytest.mark.parametrize(
    ("name", "password"),
    [("alice", "wrong"), ("nobody", "wrong"), ("", ""), ("alice", ""), ("alice", "x" * 73)],
)
def test_wrong_credentials_show_the_form_again(
    client: FlaskClient, result: str, name: str, password: str
) -> None:
    token = csrf_token(client.get("/login").text)

    response = client.post(
        result, data={"username": name, "password": password, "csrf_token": token}
    )

    assert response.status_code == 401
    assert 'role="alert"' in response.text
    assert "team/app" not in response.text.replace("as team/app", "")


@pytest.mark.parametrize("path", [*FORMS.values(), "/login", "/logout"])
def test_a_post_without_csrf_token_is_refused(client: FlaskClient, path: str) -> None:
    fields = {"username": "alice", "password": PASSWORDS["alice"]}

    assert client.post(path, data=fields).status_code == 400


def test_an_account_without_password_cannot_sign_in(
    client: FlaskClient, mock_database: Any
) -> None:
    mock_database["users"].insert_one({"username": "open"})
    token = csrf_token(client.get("/login").text)

    response = client.post(
        "/login", data={"username": "open", "password": "anything", "csrf_token": token}
    )

    assert response.status_code == 401


def test_signing_out_ends_the_session(sign_in: SignIn) -> None:
    client = sign_in("alice")
    token = csrf_token(client.get("/search/").text)

    client.post("/logout", data={"csrf_token": token})

    assert client.get("/search/").status_code == 302


def test_a_changed_password_or_removed_account_ends_the_session(
    sign_in: SignIn, mock_stores: Stores
) -> None:
    alice, mallory = sign_in("alice"), sign_in("mallory")

    mock_stores.accounts.set_password("alice", "new")
    mock_stores.accounts.remove("mallory")

    assert [c.get("/search/").status_code for c in (alice, mallory)] == [302, 302]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/analysis/?a=b", "/analysis/?a=b"),
        ("//evil.example", "/search/"),
        ("https://evil.example", "/search/"),
        ("/\\evil.example", "/search/"),
        ("/\tx", "/search/"),
        ("javascript:alert(1)", "/search/"),
    ],
)
def test_sign_in_leads_only_to_local_pages(client: FlaskClient, target: str, expected: str) -> None:
    token = csrf_token(client.get("/login").text)
    fields = {"username": "alice", "password": PASSWORDS["alice"], "csrf_token": token}

    response = client.post("/login", data={**fields, "next": target})

    assert response.headers["Location"] == expected


def test_every_answer_carries_a_strict_policy(client: FlaskClient) -> None:
    for path in ("/login", "/nowhere", "/api/v1/records", "/events", "/static/site.css"):
        with client.get(path) as response:
            headers = response.headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_no_page_has_inline_code_or_style(sign_in: SignIn) -> None:
    for path in [*PAGES, *FORMS, "/login"]:
        text = sign_in("admin").get(path).text
        assert "<style" not in text
        assert " style=" not in text
        assert " onclick=" not in text
        assert text.count("<script") == text.count("<script src=")


def test_hostile_names_are_shown_as_text(sign_in: SignIn, store: Store) -> None:
    script = "<script>alert(1)</script>"
    store(wire_event("push", tag="x", actor=script, user_agent=f'"{script}', at=5))

    text = sign_in("alice").get(DASHBOARD).text

    assert script not in text
    assert "&lt;script&gt;" in text


RECORD_FILTERS = [
    ("action=pull", 1),
    ("action=delete", 0),
    ("repository=team/app", 2),
    ("repository=team", 0),
    ("tag=v1", 2),
    (f"digest={digest('image')}", 2),
    ("actor=k8s", 1),
    ("address=10.9.8.7", 1),
    ("address=[::ffff:10.9.8.7]:1234", 1),
    ("address=10.0.0.0/8", 2),
    ("address=10.9.0.0/16", 1),
    ("address=fd00::/8", 0),
    ("client=docker", 2),
    ("client=helm", 0),
    ("from=2026-11-23", 2),
    ("from=2026-11-24", 0),
    ("to=2026-11-23", 2),
    ("to=2026-11-22", 0),
    ("from=2026-11-23T18:00:01Z", 1),
    ("to=2026-11-23T18:00:01Z", 1),
    ("from=2026-11-23T20:00:01%2B02:00", 1),
    ("registry=default", 2),
    ("registry=other", 0),
    ("action=pull&actor=k8s&tag=v1", 1),
]


@pytest.mark.parametrize(("query", "number"), RECORD_FILTERS)
def test_record_filters_are_the_same_on_page_api_and_export(
    sign_in: SignIn, query: str, number: int
) -> None:
    client = sign_in("alice")

    page = client.get(f"/analysis/user/login/?{query}")
    api = client.get(f"/api/v1/records?{query}&total=1").json
    export = client.get(f"/analysis/user/login/?{query}&format=ndjson").text.splitlines()

    assert page.text.count("badge action-") == number
    assert (len(api["items"]), api["total"], api["next"]) == (number, number, None)
    assert [json.loads(line) for line in export] == api["items"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=yesterday", "from"),
        ("to=2026-13-01", "to"),
        ("from=2026-11-24&to=2026-11-22", "to"),
        ("address=10.0.0.300", "address"),
        ("digest=sha256:1", "digest"),
        ("action=steal", "action"),
        ("client=none", "client"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("limit=0000000000500000000", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("format=pdf", "format"),
        ("parts=2", "parts"),
        ("repo=x", "repo"),
        ("actor=" + "x" * 300, "actor"),
    ],
)
def test_a_wrong_filter_is_named(client: FlaskClient, query: str, field: str) -> None:
    response = client.get(f"/api/v1/records?{query}", headers=basic("alice"))

    assert response.status_code == 400
    assert response.json["detail"].startswith(f"{field}: ")


def test_a_wrong_filter_is_shown_beside_its_field(sign_in: SignIn) -> None:
    response = sign_in("alice").get("/analysis/user/login/?from=yesterday")

    assert response.status_code == 400
    assert "expected a day or a time" in response.text
    assert 'value="yesterday"' in response.text


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["other/app", "team/app"]),
        ("q=app", ["other/app", "team/app"]),
        ("q=TEAM", ["team/app"]),
        ("q=^team", ["team/app"]),
        ("q=^app", []),
        ("q=*/app", ["other/app", "team/app"]),
        ("q=te%3Fm/app", ["team/app"]),
        ("q=.*", []),
        ("sort=pushed", ["other/app", "team/app"]),
    ],
)
def test_repositories_are_found_by_pattern(
    client: FlaskClient, query: str, expected: list[str]
) -> None:
    found = client.get(f"/api/v1/repositories?{query}&total=1", headers=basic("admin")).json

    assert [row["repository"] for row in found["items"]] == expected
    assert found["total"] == len(expected)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["v9", "v1"]),
        ("q=team/app", ["v1"]),
        ("q=app:v*", ["v9", "v1"]),
        ("q=^team:v1", ["v1"]),
        ("q=:v9", ["v9"]),
        ("tag=^v", ["v9", "v1"]),
        ("tag=V1", []),
        ("repository=team/app", ["v1"]),
        (f"digest={digest('image')}", ["v1"]),
        (f"digest={digest('image')[:12]}", ["v1"]),
        (f"digest={digest('image')[7:19]}", ["v1"]),
        ("digest=sha256:0000", []),
    ],
)
def test_tags_are_found_by_pattern(client: FlaskClient, query: str, expected: list[str]) -> None:
    found = client.get(f"/api/v1/tags?{query}", headers=basic("admin")).json

    assert [row["tag"] for row in found["items"]] == expected


def test_a_tag_in_the_api_has_digest_pusher_and_size(client: FlaskClient, store: Store) -> None:
    layers = [
        {"digest": digest("layer"), "size": 1000, "mediaType": "l"},
        {"digest": digest("config"), "size": 50, "mediaType": "c"},
    ]
    store(
        wire_event("push", "team/x", of="amd64", references=layers, at=3),
        wire_event("push", "team/x", of="arm64", references=layers, at=4),
        wire_event(
            "push",
            "team/x",
            tag="multi",
            of="index",
            media_type=INDEX,
            children=["amd64", "arm64"],
            at=5,
        ),
    )

    [tag] = client.get("/api/v1/tags?q=team/x", headers=basic("alice")).json["items"]

    assert tag == {
        "registry": "default",
        "namespace": "team",
        "repository": "team/x",
        "tag": "multi",
        "digest": digest("index"),
        "media_type": INDEX,
        "kind": "index",
        "pushed_at": "2026-11-23T18:00:05Z",
        "pushed_by": "alice",
        "seen_by": "push",
        "seen_at": None,
        "deleted": False,
        "deleted_at": None,
        "size": 1050,
        "platforms": None,
        "signed": False,
    }


def test_a_tag_that_was_only_pulled_is_found_and_shown_as_seen_by_pull(
    sign_in: SignIn, store: Store
) -> None:
    store(wire_event("pull", "library/nginx", tag="1.27", of="nginx", at=3))
    client = sign_in("admin")

    [tag] = client.get("/api/v1/tags?q=nginx:1.*", headers=basic("admin")).json["items"]
    found = client.get("/search/user/repo/login/?q=nginx:1.*").text
    page = client.get("/search/tag?repository=library/nginx&tag=1.27").text

    assert (tag["tag"], tag["digest"], tag["seen_by"]) == ("1.27", digest("nginx"), "pull")
    assert (tag["pushed_at"], tag["seen_at"]) == (None, "2026-11-23T18:00:03Z")
    assert "seen by pull" in found
    assert "seen by pull" in page
    assert digest("nginx") in page


def test_the_api_pages_through_everything_exactly_once(client: FlaskClient, store: Store) -> None:
    store(*(wire_event("pull", tag="v1", at=NOW) for _ in range(25)))

    for name in ("records", "tags", "repositories"):
        url: str | None = f"/api/v1/{name}?limit=4&total=1"
        seen: list[Any] = []
        while url:
            page = client.get(url, headers=basic("admin")).json
            seen += page["items"]
            url = page["next"]
        keys = {json.dumps(item, sort_keys=True) for item in seen}
        assert len(keys) == len(seen) == page["total"]


def test_tags_that_went_with_one_delete_are_paged_through_once(
    client: FlaskClient, store: Store
) -> None:
    tags = [f"t{number}" for number in range(7)]
    store(*(wire_event("push", "team/many", tag=tag, of="same", at=NOW) for tag in tags))
    store(wire_event("delete", "team/many", of="same", at=NOW + timedelta(seconds=1)))
    store(wire_event("push", "team/many", tag="after", at=NOW + timedelta(seconds=2)))

    url: str | None = "/api/v1/tags?repository=team/many&deleted=1&sort=pushed&limit=3"
    pages = []
    while url:
        page = client.get(url, headers=basic("admin")).json
        pages.append([row["tag"] for row in page["items"]])
        url = page["next"]

    assert [len(page) for page in pages] == [3, 3, 2]
    assert pages[0][0] == "after"
    assert sorted(tag for page in pages for tag in page) == ["after", *tags]


@pytest.mark.parametrize(
    ("text", "number"),
    [("", 3), ("0", 3), ("no", 3), ("false", 3), ("1", 4), ("y", 4), ("true", 4)],
)
def test_the_parts_of_a_pull_are_shown_where_asked_for(
    client: FlaskClient, store: Store, text: str, number: int
) -> None:
    store(wire_event("check", tag="v1", at=NOW, id="check"))
    store(wire_event("pull", at=NOW + timedelta(seconds=1), id="its pull"))

    found = client.get(f"/api/v1/records?parts={text}&total=1", headers=basic("admin")).json

    assert found["total"] == number + 1


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/search/user/login/?q=app", forms.RepositoryFilter),
        ("/search/user/repo/login/?repository=team/app", forms.TagFilter),
        ("/analysis/user/login/?repository=team/app", forms.RecordFilter),
        ("/analysis/?repository=team/app", forms.UsageFilter),
        ("/analysis/unused?repository=team/app", forms.UnusedFilter),
        ("/analysis/storage?repository=team/app", forms.StorageFilter),
    ],
)
def test_no_filter_is_lost_when_a_form_is_sent_again(
    sign_in: SignIn, path: str, form: type[forms.FilterForm]
) -> None:
    page = sign_in("alice").get(path).text

    fields = set(re.findall(r'<(?:input|select)[^>]* name="([a-z_]+)"', page))
    assert {field.name for field in form(MultiDict())} <= fields


def test_a_digest_with_more_tags_than_a_page_links_to_all_of_them(
    sign_in: SignIn, store: Store
) -> None:
    store(*(wire_event("push", tag=f"t{n:02}", of="many", at=NOW) for n in range(52)))
    browser = sign_in("alice")

    pages = [
        browser.get(f"/search/digest?digest={digest('many')}").text,
        browser.get("/search/tag?repository=team/app&tag=t00").text,
    ]

    for page in pages:
        (link,) = re.findall(r'href="(/search/user/repo/login/[^"]*digest=[^"]*)"', page)
        assert "52 tags" in browser.get(link.replace("&amp;", "&")).text


def test_a_number_in_a_cursor_does_not_make_a_page_read_more(
    client: FlaskClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(*(wire_event("push", "team/many", tag=f"t{n}", at=NOW - timedelta(n)) for n in range(9)))
    limits = []
    limit = Cursor.limit
    monkeypatch.setattr(Cursor, "limit", lambda self, n: limits.append(n) or limit(self, n))

    with client.application.test_request_context("/api/v1/tags"):
        cursor = parse_qs(url_with(cursor="999999 9").partition("?")[2])["cursor"][0]
    query = {"repository": "team/many", "sort": "pushed", "limit": 3, "cursor": cursor}
    page = client.get("/api/v1/tags", query_string=query, headers=basic("admin")).json

    assert [row["tag"] for row in page["items"]] == ["t0", "t1", "t2"]
    assert max(limits) < 999_999


@pytest.mark.parametrize("cursor", ["xyz", "2 ", "eA", "eA.00000000", "9" * 30, "ü", "."])
def test_a_cursor_that_no_page_gave_is_refused(client: FlaskClient, cursor: str) -> None:
    for name in ("records", "tags", "repositories", "unused", "storage", "sign-ins"):
        query = {"cursor": cursor}
        response = client.get(f"/api/v1/{name}", query_string=query, headers=basic("admin"))
        assert response.status_code == 400, name
        assert (response.json["code"], response.json["field"]) == ("invalid_cursor", "cursor")


def test_a_cursor_of_another_list_is_refused(client: FlaskClient) -> None:
    following = client.get("/api/v1/records?limit=1", headers=basic("admin")).json["next"]

    right = client.get(following, headers=basic("admin"))
    wrong = client.get(following.replace("/records", "/tags"), headers=basic("admin"))

    assert (right.status_code, wrong.status_code) == (200, 400)


def test_a_list_is_counted_only_where_that_is_asked_for(
    client: FlaskClient, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = lambda query: client.get(  # noqa: E731
        f"/api/v1/records?limit=1{query}", headers=basic("admin")
    )
    counted = get("&total=1").json
    monkeypatch.setattr(type(mock_stores.events), "count", lambda *_, **__: pytest.fail("counted"))

    answer = get("").json

    assert (counted["total"], counted["total_is_minimum"]) == (3, False)
    assert answer.keys() == {"items", "next"}
    assert get("&total=0").json.keys() == answer.keys()
    assert get("&total=x").json["detail"] == "total: expected 0 or 1"


@pytest.mark.parametrize(
    ("path", "code", "field", "words"),
    [
        ("records?action=pul", "invalid_value", "action", "one of push, pull, check, delete"),
        ("repositories?sort=x", "invalid_value", "sort", "expected one of name, pushed"),
        ("records?no=1", "unknown_parameter", "no", "known are action, actor"),
        ("usage?days=0", "invalid_value", "days", "a number of days, 1 to 1100"),
        ("records?limit=0", "invalid_value", "limit", "expected 1 to 500"),
        ("records?from=x", "invalid_value", "from", "expected a day or a time"),
        ("records?format=xml", "invalid_value", "format", "expected csv or ndjson"),
        ("repositories/none/none", "not_found", None, "no such repository"),
        ("nothing", "not_found", None, "no such resource"),
    ],
)
def test_an_error_is_a_problem_that_names_field_code_and_choices(
    client: FlaskClient, path: str, code: str, field: str | None, words: str
) -> None:
    answer = client.get(f"/api/v1/{path}", headers=basic("admin"))

    problem = answer.json
    assert answer.content_type == "application/problem+json"
    assert (problem["status"], problem["type"]) == (answer.status_code, "about:blank")
    assert (problem["code"], problem.get("field")) == (code, field)
    assert words in problem["detail"]


@pytest.mark.parametrize(("days", "number"), [("1", 1), ("45", 45), ("1100", 1100)])
def test_figures_are_of_any_number_of_days(
    client: FlaskClient, sign_in: SignIn, days: str, number: int
) -> None:
    figures = client.get(f"/api/v1/usage?days={days}", headers=basic("admin")).json
    page = sign_in("admin").get(f"/analysis/?days={days}").text

    first, last = (date.fromisoformat(figures[name]) for name in ("first", "last"))
    assert (last - first).days + 1 == number
    assert re.search(rf'aria-current=true href="[^"]*days={days}"', page)


@pytest.mark.parametrize(
    ("path", "of_list"),
    [
        ("repositories/team/app", "repositories?q=team/app"),
        ("tags/team/app:v1", "tags?repository=team/app"),
    ],
)
def test_one_resource_is_as_its_list_has_it(client: FlaskClient, path: str, of_list: str) -> None:
    [item] = client.get(f"/api/v1/{of_list}", headers=basic("alice")).json["items"]

    assert client.get(f"/api/v1/{path}", headers=basic("alice")).json == item
    hidden = client.get(f"/api/v1/{path}", headers=basic("mallory"))
    missing = client.get(f"/api/v1/{path}x", headers=basic("mallory"))
    assert (hidden.status_code, hidden.data) == (missing.status_code, missing.data)
    assert hidden.status_code == 404
    other = client.get(f"/api/v1/{path}?registry=other", headers=basic("alice"))
    assert other.status_code == 404


def test_one_record_is_as_its_list_has_it_and_hidden_from_others(client: FlaskClient) -> None:
    for item in client.get("/api/v1/records", headers=basic("admin")).json["items"]:
        path = f"/api/v1/records/{item['id']}"
        assert client.get(path, headers=basic("admin")).json == item
        is_own = item["repository"] == "team/app"
        assert client.get(path, headers=basic("alice")).status_code == (200 if is_own else 404)
        hidden, missing = (client.get(p, headers=basic("mallory")) for p in (path, f"{path}x"))
        assert (hidden.status_code, hidden.data) == (missing.status_code, missing.data)
    assert client.get(path).status_code == 401


def test_one_manifest_is_told_to_whom_its_repository_is_shown(client: FlaskClient) -> None:
    path = f"/api/v1/manifests/{digest('image')}"

    found = client.get(path, headers=basic("alice")).json

    assert (found["digest"], found["kind"], found["size"]) == (digest("image"), "image", 500)
    hidden, missing = (
        client.get(f"/api/v1/manifests/{digest(name)}", headers=basic("mallory"))
        for name in ("image", "none")
    )
    assert (hidden.status_code, hidden.data) == (missing.status_code, missing.data)
    assert hidden.status_code == 404


@pytest.mark.parametrize("name", ["records", "tags", "repositories"])
def test_the_api_shows_each_account_its_own(client: FlaskClient, name: str) -> None:
    found = {
        account: client.get(f"/api/v1/{name}?total=1", headers=basic(account)).json["total"]
        for account in PASSWORDS
    }

    everything = {"records": 3, "tags": 2, "repositories": 2}[name]
    assert found == {"admin": everything, "alice": everything - 1, "mallory": 0}


@pytest.mark.parametrize("path", ["/api/v1/records", "/api/v1/nothing", "/api/v1/"])
@pytest.mark.parametrize(
    "headers",
    [{}, basic("alice", "wrong"), basic("nobody", "x"), {"Authorization": "Bearer x"}],
    ids=["none", "wrong password", "unknown account", "bearer"],
)
def test_the_api_asks_for_an_account(
    client: FlaskClient, path: str, headers: dict[str, str]
) -> None:
    response = client.get(path, headers=headers)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Basic ")


def test_an_unknown_resource_of_the_api_is_404_as_json(client: FlaskClient) -> None:
    response = client.get("/api/v1/nothing", headers=basic("alice"))

    assert (response.status_code, list(response.json)) == (
        404,
        ["type", "title", "status", "detail", "code"],
    )


def test_a_page_that_does_not_exist_knows_who_asks(client: FlaskClient, sign_in: SignIn) -> None:
    mine, nobodys = sign_in("alice").get("/search/nothing-here"), client.get("/search/nothing-here")

    assert (mine.status_code, nobodys.status_code) == (404, 404)
    assert ">Sign out<" in mine.text
    assert ">Sign in<" not in mine.text
    assert ">Sign in<" in nobodys.text


@pytest.mark.parametrize(
    ("path", "chip"),
    [
        ("/search/user/login/?sort=pushed", "Sort by: Last push"),
        ("/search/user/repo/login/?sort=pushed", "Sort by: Last push"),
        ("/analysis/user/login/?kind=content", "Kind: what figures count"),
        ("/analysis/user/login/?action=pull", "Action: pull"),
        ("/analysis/?client=docker", "Client: docker"),
    ],
)
def test_a_filter_in_force_is_named_as_in_the_form(sign_in: SignIn, path: str, chip: str) -> None:
    page = sign_in("admin").get(path).text

    chips = page.partition('aria-label="Filters in force"')[2].partition("</ul>")[0]
    text = " ".join(re.sub("<[^>]*>", " ", chips.partition("<a ")[0].partition(">")[2]).split())
    assert text == chip


def test_csv_is_complete_and_safe_in_a_spreadsheet(client: FlaskClient, store: Store) -> None:
    store(wire_event("push", tag="x", actor="=HYPERLINK(1)", at=5))

    text = client.get("/api/v1/records?format=csv", headers=basic("alice")).text

    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["actor"] for row in rows] == ["'=HYPERLINK(1)", "k8s", "ci-bot"]
    assert rows[0]["timestamp"] == "2026-11-23T18:00:05Z"


def test_an_acl_with_an_invalid_entry_shows_nothing_but_to_administrators(
    client: FlaskClient, mock_stores: Stores
) -> None:
    mock_stores.accounts.add_acl_entry({"seq": 99, "match": {"name": "/(/"}, "actions": ["pull"]})

    totals = [
        client.get("/api/v1/tags?total=1", headers=basic(name)).json["total"]
        for name in ("alice", "admin")
    ]

    assert totals == [0, 2]


def test_a_mount_does_not_name_a_repository_that_may_not_be_seen(
    client: FlaskClient, store: Store
) -> None:
    for number, source in enumerate(("secret/base", "team/base")):
        store(
            wire_event(
                "mount",
                of="layer",
                media_type="application/octet-stream",
                fromRepository=source,
                at=5 + number,
            )
        )

    found = {
        name: [
            row["from_repository"]
            for row in client.get("/api/v1/records?action=mount", headers=basic(name)).json["items"]
        ]
        for name in ("admin", "alice")
    }

    assert found == {"admin": ["team/base", "secret/base"], "alice": ["team/base", None]}


def test_an_account_sees_its_own_namespace_however_deep(client: FlaskClient, store: Store) -> None:
    store(
        wire_event("push", "mallory/a", tag="x", of="a", at=5),
        wire_event("push", "mallory/a/b/c", tag="x", of="b", at=6),
        wire_event("push", "mallory-x/a", tag="x", of="c", at=7),
        wire_event("push", "mallory", tag="x", of="d", at=8),
    )

    found = client.get("/api/v1/tags", headers=basic("mallory")).json["items"]

    assert [row["repository"] for row in found] == ["mallory/a", "mallory/a/b/c"]


@pytest.mark.parametrize(("form", "result"), FORMS.items())
def test_the_navigation_leads_to_the_list_at_one_click(
    sign_in: SignIn, form: str, result: str
) -> None:
    client = sign_in("alice")

    assert f'href="{result}"' in client.get("/search/").text
    assert client.get(form).headers["Location"] == result
    assert "team/app" in client.get(result).text
    assert "team/app" not in re.sub("(as|:) team/app", "", sign_in("mallory").get(result).text)


def test_pulls_of_a_list_of_repositories_are_shown_when_they_are_asked_for(
    sign_in: SignIn, client: FlaskClient, store: Store
) -> None:
    now = datetime.now(UTC)
    fresh = "team/fresh"
    store(wire_event("push", fresh, tag="v1", at=now), wire_event("pull", fresh, tag="v1", at=now))
    path = f"/api/v1/repositories?q={fresh}&pulls=1"

    [item] = client.get(path, headers=basic("alice")).json["items"]
    [without] = client.get(path.removesuffix("&pulls=1"), headers=basic("alice")).json["items"]

    assert (item["pulls"], without["pulls"]) == (1, None)
    assert client.get(path, headers=basic("mallory")).json["items"] == []
    page = sign_in("alice").get(f"/search/user/login/?q={fresh}&pulls=1").text
    assert re.search(r'data-label="Pulls"><svg.*</svg> <span[^>]*>1<', page)


def test_the_tags_of_a_small_repository_stand_in_the_order_of_their_versions(
    sign_in: SignIn, store: Store
) -> None:
    tags = ["1.1", "1.10", "1.2", "latest", "1.2-rc1"]
    store(*(wire_event("push", "team/many", tag=tag, of=tag, at=9) for tag in tags))

    page = sign_in("alice").get("/search/repository?repository=team/many").text

    assert re.findall(r'data-label="Tag">.*?>([^<]+)</a>', page)[:5] == [
        "1.10",
        "1.2",
        "1.2-rc1",
        "1.1",
        "latest",
    ]
    assert sign_in("mallory").get("/search/repository?repository=team/many").status_code == 404


def test_the_pages_of_a_list_lead_forth_and_back(sign_in: SignIn, store: Store) -> None:
    store(
        *(
            wire_event("push", "team/many", tag=f"t{number:03}", of=str(number), at=9 + number)
            for number in range(120)
        )
    )
    client = sign_in("alice")

    def tags(page: str) -> list[str]:
        return re.findall(r'data-label="Tag">.*?>([^<]+)</a>', page)

    def follow(page: str, way: str) -> str:
        href = re.search(rf'rel="{way}" href="([^"]+)"', page)
        assert href
        return client.get(href[1].replace("&amp;", "&")).text

    first = client.get("/search/user/repo/login/?repository=team/many").text
    second = follow(first, "next")
    third = follow(second, "next")

    assert [len(tags(page)) for page in (first, second, third)] == [50, 50, 20]
    assert tags(follow(third, "prev")) == tags(second)
    assert 'rel="prev"' not in first + second  # the first page has a link of its own
    assert "back=" not in re.findall(r'href="([^"]+)">First page', third)[0]


@pytest.mark.parametrize("path", ["/analysis/user/login/?digest=", "/search/digest?digest="])
def test_the_beginning_of_a_digest_finds_what_one_may_see(sign_in: SignIn, path: str) -> None:
    start = digest("image")[7:15]

    for text in (start, f"sha256:{start}"):
        assert "team/app" in sign_in("alice").get(path + text).text
        stranger = sign_in("mallory").get(path + text).text
        assert digest("image")[7:19] not in stranger
    assert sign_in("alice").get(f"/analysis/user/login/?digest={start[:5]}").status_code == 400


def test_digests_that_begin_alike_are_named_to_whom_they_are_shown(
    sign_in: SignIn, store: Store
) -> None:
    alike = [f"sha256:abcdef{number}{'0' * 57}" for number in range(3)]
    for number, (repository, of) in enumerate(
        zip(("team/app", "team/app", "other/app"), alike, strict=True)
    ):
        event = wire_event("push", repository, tag=f"x{number}", at=20 + number)
        event["target"]["digest"] = of
        store(event)

    answer = sign_in("alice").get("/search/digest?digest=abcdef")

    assert answer.status_code == 400
    assert [of in answer.text for of in alike] == [True, True, False]


def test_what_is_cut_in_a_cell_is_whole_on_hover_and_focus(sign_in: SignIn, store: Store) -> None:
    name, tag = f"team/{'n' * 195}", "t" * 128
    store(wire_event("push", name, tag=tag, at=30, actor="a-robot-with-a-long-name"))

    page = sign_in("alice").get("/analysis/user/login/").text

    assert f'class="clip" href="/search/repository?repository={name}' in page
    assert f'title="{name}"' in page
    assert f'title="{tag}"' in page
    assert 'title="a-robot-with-a-long-name"' in page


def test_a_time_is_told_as_an_age_with_the_exact_time_beside(sign_in: SignIn, store: Store) -> None:
    at = datetime.now(UTC) - timedelta(hours=3)
    store(wire_event("push", tag="v3", at=at))

    page = sign_in("alice").get("/analysis/user/login/").text

    exact = f"{at:%Y-%m-%d %H:%M:%S} UTC"
    assert re.search(rf'<time datetime="[^"]+Z" title="{exact}">3 h ago <span[^>]*>{exact}<', page)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-100, "in the future"),
        (-5, "just now"),
        (59, "just now"),
        (60, "1 min ago"),
        (3600, "1 h ago"),
        (47 * 3600, "47 h ago"),
        (48 * 3600, "2 days ago"),
        (59 * 86400, "59 days ago"),
        (60 * 86400, "2 months ago"),
        (731 * 86400, "2 years ago"),
    ],
)
def test_an_age_is_rounded_down(seconds: int, words: str) -> None:
    assert ago(datetime.now(UTC) - timedelta(seconds=seconds)) == words


def test_a_tag_page_copies_its_digest_and_the_command_that_pulls_it(sign_in: SignIn) -> None:
    page = sign_in("alice").get("/search/tag?repository=team/app&tag=v1").text

    assert f'data-copy="{digest("image")}"' in page
    assert 'data-copy="docker pull registry.example:5000/team/app:v1"' in page
    assert "copy.js" in page
    assert "onclick" not in page


CHART = "application/vnd.cncf.helm.config.v1+json"


@pytest.mark.parametrize(
    ("config", "of_tag", "of_digest"),
    [
        (
            CHART,
            "helm pull oci://registry.example:5000/team/x --version 1.2.3+4",
            "helm pull oci://",
        ),
        ("application/spdx+json", "oras pull registry.example:5000/team/x:1.2.3_4", "oras pull "),
    ],
    ids=["chart", "artifact"],
)
def test_what_is_no_image_is_pulled_by_its_own_program(
    sign_in: SignIn, store: Store, config: str, of_tag: str, of_digest: str
) -> None:
    event = wire_event("push", "team/x", tag="1.2.3_4", of="files", at=40)
    event["target"]["references"] = [
        {"mediaType": config, "digest": digest("config"), "size": 10},
        {"mediaType": "application/octet-stream", "digest": digest("files of it"), "size": 10},
    ]
    store(event)
    reader = sign_in("alice")

    tag = reader.get("/search/tag?repository=team/x&tag=1.2.3_4").text
    page = reader.get(f"/search/digest?digest={digest('files')}").text

    assert f'data-copy="{of_tag}"' in tag
    assert f'data-copy="{of_digest}registry.example:5000/team/x@{digest("files")}"' in page


def test_a_digest_is_pulled_from_each_repository_that_has_it(sign_in: SignIn, store: Store) -> None:
    store(
        wire_event("push", "team/other", tag="v1", at=40),
        wire_event("push", "ops/secret", tag="v1", at=41),
        wire_event("push", "team/gone", tag="v1", at=42),
        wire_event("delete", "team/gone", at=43),
    )

    page = sign_in("alice").get(f"/search/digest?digest={digest('image')}").text

    assert re.findall('data-copy="docker pull ([^"]*)"', page) == [
        f"registry.example:5000/team/{name}@{digest('image')}" for name in ("app", "other")
    ]


def test_a_digest_without_a_tag_is_pulled_from_where_it_was_last(
    sign_in: SignIn, store: Store
) -> None:
    store(wire_event("pull", "team/x", of="untagged", at=40))
    path = f"/search/digest?digest={digest('untagged')}"
    before = sign_in("alice").get(path).text
    store(wire_event("delete", "team/x", of="untagged", at=41))

    after = sign_in("alice").get(path).text

    assert f"docker pull registry.example:5000/team/x@{digest('untagged')}" in before
    assert "docker pull" not in after


@pytest.mark.parametrize("host", ["elsewhere.example", "-evil;rm", "a b", ""])
def test_a_host_that_only_one_client_names_is_not_taken_for_the_registrys(
    sign_in: SignIn, store: Store, host: str
) -> None:
    event = wire_event("pull", tag="v1", at=40)
    event["request"]["host"] = host
    store(event)

    page = sign_in("alice").get("/search/tag?repository=team/app&tag=v1").text

    named = "REGISTRY" if host == "elsewhere.example" else "registry.example:5000"
    assert f"docker pull {named}/team/app:v1" in page
    assert "evil" not in page


def test_a_tag_whose_digest_nobody_told_is_shown_as_such(
    sign_in: SignIn, mock_stores: Stores
) -> None:
    fields = {"repo": "team/old:v0", "action": "push", "timestamp": NOW, "src": "10.0.0.1:4711"}
    taken = parse_record(Row("0", None, fields), "default", NOW)
    Derivation(mock_stores).work_in([taken])
    alice, mallory = sign_in("alice"), sign_in("mallory")

    listed = alice.get("/search/user/repo/login/?repository=team/old")
    page = alice.get("/search/tag?repository=team/old&tag=v0")
    records = alice.get("/analysis/user/login/?repository=team/old")

    assert listed.status_code == page.status_code == records.status_code == 200
    assert '<td class="line-2" data-label="Digest">unknown</td>' in listed.text
    assert '<dd class="digest">unknown</dd>' in page.text
    assert "v0" in records.text
    assert "team/old" not in mallory.get("/search/user/repo/login/").text
    assert mallory.get("/search/tag?repository=team/old&tag=v0").status_code == 404
