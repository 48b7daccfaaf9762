"""The search box of the page head, as an account that may see what it finds and as others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from builders import NOW, PASSWORDS, basic, digest, wire_event
from flask import Flask
from flask.testing import FlaskClient
from mongomock.collection import Collection

from app.settings import Access

SignIn = Callable[[str], FlaskClient]

DIGEST = digest("image")
TAG_PAGE = "/search/tag?repository=team/app&tag=v1.2&registry=default"
FOUND = [
    ("team/ap", "/search/repository?repository=team/app&registry=default"),
    ("app:v1.*", TAG_PAGE),
    ("v1.2", TAG_PAGE),
    (DIGEST[7:13], f"/search/digest?digest={DIGEST}"),
    (DIGEST[7:13].upper(), f"/search/digest?digest={DIGEST}"),
    (DIGEST, f"/search/digest?digest={DIGEST}"),
    ("carol", "/analysis/account?name=carol"),
]


@pytest.fixture(autouse=True)
def recorded(app: Flask, store: Callable[..., None], now_of_pages: None) -> None:
    store(
        wire_event("push", "team/app", tag="v1.2", actor="carol"),
        wire_event("push", "ops/secret", tag="v9", of="other", at=2, actor="eve"),
    )


@pytest.fixture
def now_of_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The accounts that are found are those of the 30 days before now."""

    class Clock:
        @staticmethod
        def now(_zone: Any) -> Any:
            return NOW

    monkeypatch.setattr("app.web.find.datetime", Clock)


def find(client: FlaskClient, text: str) -> Any:
    return client.get("/search/all", query_string={"q": text})


@pytest.mark.parametrize(("text", "page"), FOUND)
def test_what_is_the_only_thing_found_is_shown_at_once(
    sign_in: SignIn, text: str, page: str
) -> None:
    response = find(sign_in("alice"), text)

    assert response.status_code == 302
    assert response.headers["Location"].replace("%3A", ":") == page


@pytest.mark.parametrize(("text", "page"), FOUND)
def test_who_may_not_see_it_finds_nothing(sign_in: SignIn, text: str, page: str) -> None:
    response = find(sign_in("mallory"), text)

    assert response.status_code == 200
    assert "Nothing that you may see." in response.text
    assert page not in response.text


@pytest.mark.parametrize("text", ["secret", "v9", digest("other"), digest("other")[7:14], "eve"])
def test_of_another_namespace_nothing_is_found(sign_in: SignIn, text: str) -> None:
    assert "Nothing that you may see." in find(sign_in("alice"), text).text
    assert find(sign_in("admin"), text).status_code == 302


@pytest.mark.parametrize(
    "path", ["/search/all?q={}", "/search/digest?digest={}", "/analysis/recall?image={}"]
)
def test_a_hidden_digest_takes_as_many_queries_as_one_that_does_not_exist(
    sign_in: SignIn, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    alice, asked, find = sign_in("alice"), list[str](), Collection.find
    alice.get("/search/all?q=abcdef")  # what is read once is read now

    def count(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(self.name)
        return find(self, *args, **kwargs)

    monkeypatch.setattr(Collection, "find", count)
    queries = []
    for name in ("other", "no image"):
        asked.clear()
        alice.get(path.format(digest(name)[7:19]))
        queries.append(sorted(asked))

    hidden, missing = queries
    assert "events" in hidden
    assert hidden == missing


def test_several_things_are_listed_by_what_they_are(sign_in: SignIn) -> None:
    page = find(sign_in("admin"), "e").text

    for link in ("?repository=team/app&", "?repository=ops/secret&", "/analysis/account?name=eve"):
        assert link in page.replace("&amp;", "&")
    assert "/analysis/account?name=carol" not in page


def test_an_account_of_whom_one_may_not_know_is_not_found(
    make_app: Callable[..., Flask], app: Flask, settings: Any
) -> None:
    own = make_app(access=msgspec.structs.replace(Access(), records="own")).test_client()

    response = own.get("/search/all?q=carol", headers=basic("alice", PASSWORDS["alice"]))

    assert "Nothing that you may see." in response.text


def test_a_list_longer_than_shown_leads_to_the_rest(
    sign_in: SignIn, store: Callable[..., None]
) -> None:
    store(*(wire_event("push", f"team/many{n}", tag="x", at=n) for n in range(12)))

    page = find(sign_in("alice"), "many").text

    assert page.count("/search/repository?repository=team/many") == 10
    assert 'href="/search/user/login/?q=many"' in page


@pytest.mark.parametrize("text", ["*" * 9, "x" * 500, "a\0b"])
def test_a_pattern_that_no_list_takes_is_400(sign_in: SignIn, text: str) -> None:
    assert find(sign_in("alice"), text).status_code == 400


def test_an_empty_text_says_what_can_be_found(sign_in: SignIn) -> None:
    page = find(sign_in("alice"), " ")

    assert page.status_code == 200
    assert "app:1.*" in page.text


def test_who_did_not_sign_in_has_no_search_box(client: FlaskClient) -> None:
    assert 'id="find"' not in client.get("/login").text
    assert find(client, "team").status_code == 302
