"""What a browser chose: theme, zone of times, rows of a list."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from builders import csrf_token, wire_event
from flask.testing import FlaskClient

from app.store import Stores
from app.store.sign_ins import SignIn

Login = Callable[[str], FlaskClient]
HOST = "http://localhost"


def choose(client: FlaskClient, before: str = "", **fields: str) -> Any:
    token = csrf_token(client.get("/search/").text)
    headers = {"Referer": before} if before else {}
    return client.post("/preferences", data={**fields, "csrf_token": token}, headers=headers)


def test_a_theme_is_kept_until_another_is_chosen(sign_in: Login) -> None:
    client = sign_in("alice")
    assert 'data-bs-theme="light" data-theme="auto"' in client.get("/search/").text

    response = choose(client, theme="dark")

    assert response.status_code == 303
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Max-Age=31536000" in cookie
    assert 'data-bs-theme="dark" data-theme="dark"' in client.get("/search/").text
    choose(client, theme="light")
    assert 'data-bs-theme="light" data-theme="light"' in client.get("/search/").text


def test_times_are_those_of_the_reader_or_utc(sign_in: Login) -> None:
    client = sign_in("alice")
    assert 'data-times="local"' in client.get("/search/").text

    choose(client, times="utc")

    assert 'data-times="utc"' in client.get("/search/").text


def test_a_list_has_as_many_rows_as_were_chosen(sign_in: Login, store: Callable[..., None]) -> None:
    store(*(wire_event("push", f"team/app{n}", at=n) for n in range(60)))
    client = sign_in("alice")
    link = "/search/repository?repository=team/app"
    assert client.get("/search/user/login/").text.count(link) == 50

    choose(client, rows="100")

    assert client.get("/search/user/login/").text.count(link) == 60


@pytest.mark.parametrize(
    "path",
    [
        "/search/repository?repository=team/app",
        "/search/repository?repository=team/app&sort=pushed",
        "/search/tag?repository=team/moving&tag=latest",
        "/access/sign-ins",
    ],
)
def test_so_have_all_other_lists(
    sign_in: Login, store: Callable[..., None], mock_stores: Stores, path: str
) -> None:
    store(*(wire_event("push", "team/app", tag=f"v{n}", of=f"{n}", at=n) for n in range(60)))
    store(*(wire_event("push", "team/moving", tag="latest", of=f"{n}", at=n) for n in range(60)))
    client = sign_in("admin")
    for n in range(60):
        row = SignIn(datetime.now(UTC), f"a{n}", "10.0.0.1", "form", "refused", "curl/8")
        mock_stores.sign_ins.add(row)

    def count() -> int:
        tables = client.get(path).text.split("<table")[1:]
        return max(table.count("<tr>") for table in tables) - 1  # the head

    before = count()
    choose(client, rows="100")

    assert before == 50
    assert count() >= 60


@pytest.mark.parametrize(
    "fields", [{"theme": "pink"}, {"rows": "1000000"}, {"session": "x"}, {}, {"theme": ""}]
)
def test_anything_else_is_400_and_sets_nothing(sign_in: Login, fields: dict[str, str]) -> None:
    response = choose(sign_in("alice"), **fields)

    assert response.status_code == 400
    assert "Max-Age=31536000" not in response.headers.get("Set-Cookie", "")


def test_a_cookie_that_was_never_given_is_the_default(sign_in: Login) -> None:
    client = sign_in("alice")
    client.set_cookie("theme", '"><script>')
    client.set_cookie("rows", "1000000")

    page = client.get("/search/user/login/")

    assert page.status_code == 200
    assert 'data-theme="auto"' in page.text


@pytest.mark.parametrize(
    ("before", "target"),
    [
        (f"{HOST}/analysis/?days=7", "/analysis/?days=7"),
        ("", "/search/"),
        ("https://evil.example/analysis/", "/search/"),
        (f"{HOST}//evil.example/", "/search/"),
    ],
)
def test_a_choice_leads_back_to_its_page_and_nowhere_else(
    sign_in: Login, before: str, target: str
) -> None:
    assert choose(sign_in("alice"), before, theme="dark").headers["Location"] == target
