"""What an export shows when what its account may see changes before its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from builders import basic, csrf_token, wire_event
from flask import Flask
from flask.testing import FlaskClient

from app.settings import Access
from app.store import Stores
from app.store.sign_ins import REFUSED

SignIn = Callable[[str], FlaskClient]

PATHS = [
    "/api/v1/records?format=ndjson",
    "/api/v1/tags?format=ndjson",
    "/api/v1/repositories?format=ndjson",
    "/analysis/user/login/?format=ndjson",
]


@pytest.fixture(autouse=True)
def recorded(store: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Three rows of each list, each on a page of its own."""
    monkeypatch.setattr("app.web.lists.EXPORT_PAGE_SIZE", 1)
    store(*(wire_event("push", f"team/app{n}", tag="v1", at=n) for n in range(3)))


def start(client: FlaskClient, path: str, headers: dict[str, str] | None = None) -> Iterator[bytes]:
    """The rows still to come of an export, of which the first is there."""
    rows = iter(client.get(path, headers=headers).response)
    assert b"team/app" in next(rows)
    return rows


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("name", "left"), [("alice", 0), ("admin", 2)])
def test_the_rest_of_an_export_goes_by_the_acl_as_it_is_then(
    mock_stores: Stores, sign_in: SignIn, path: str, name: str, left: int
) -> None:
    rows = start(sign_in(name), path)

    mock_stores.accounts.remove_acl_entry(10)

    assert len(list(rows)) == left


def breaks_off(rows: Iterator[bytes]) -> bool:
    """Whether an export does not come to its end, which has two rows more."""
    try:
        assert len(list(rows)) == 2
    except ConnectionResetError:
        return True
    return False


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["alice", "admin"])
@pytest.mark.parametrize("means", ["form", "basic"])
def test_an_export_breaks_off_when_its_account_is_gone_and_that_of_another_one_does_not(
    mock_stores: Stores,
    sign_in: SignIn,
    client: FlaskClient,
    caplog: pytest.LogCaptureFixture,
    path: str,
    name: str,
    means: str,
) -> None:
    rows = start(sign_in(name), path) if means == "form" else start(client, path, basic(name))

    mock_stores.accounts.remove("alice")

    assert breaks_off(rows) is (name == "alice")
    line = "for 'alice' from 127.0.0.1 breaks off: whoever asked is no longer signed in"
    assert (line in caplog.text) is (name == "alice")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("is_ended", [True, False])
def test_an_export_breaks_off_when_its_session_is_ended_and_not_when_another_one_is(
    sign_in: SignIn, path: str, is_ended: bool
) -> None:
    browser, ended = sign_in("alice"), sign_in("alice")
    page = ended.get("/account").text
    rows = start(ended if is_ended else browser, path)

    ended.post("/logout", data={"csrf_token": csrf_token(page)})

    assert breaks_off(rows) is is_ended


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("revoked", ["script", "other"])
def test_an_export_breaks_off_when_its_token_is_revoked_and_not_when_another_one_is(
    mock_stores: Stores, client: FlaskClient, path: str, revoked: str
) -> None:
    script, _ = (
        mock_stores.tokens.add("alice", name, timedelta(days=1), datetime.now(UTC))
        for name in ("script", "other")
    )
    rows = start(client, path, {"Authorization": f"Bearer {script}"})

    mock_stores.tokens.remove("alice", revoked)

    assert breaks_off(rows) is (revoked == "script")
    refused = mock_stores.sign_ins.find_page({"outcome": REFUSED})
    assert refused.items == [], "nobody guessed anything"


@pytest.mark.parametrize("path", PATHS[1:3])
def test_the_anonymous_account_gets_the_rest_of_an_export_that_it_may_see(
    make_app: Callable[..., Flask], mock_stores: Stores, path: str
) -> None:
    mock_stores.accounts._accounts.insert_one({"username": ""})
    mock_stores.accounts.add_acl_entry(
        {"seq": 20, "match": {"name": "team/*"}, "actions": ["pull"]}
    )
    rows = start(make_app(access=Access(anonymous=True)).test_client(), path)

    mock_stores.accounts.remove_acl_entry(20)

    assert list(rows) == []


@pytest.mark.parametrize("path", PATHS)
def test_who_may_see_nothing_gets_an_empty_export(sign_in: SignIn, path: str) -> None:
    assert sign_in("mallory").get(path).data == b""
