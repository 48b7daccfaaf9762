"""What the fields of filters offer while somebody types, and to whom."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import basic, wire_event
from flask import Flask
from flask.testing import FlaskClient

from app.settings import Access
from app.store import Stores

SignIn = Callable[[str], FlaskClient]

NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
RECORDS = "/analysis/user/login/"
LISTS = [
    RECORDS,
    "/search/user/login/",
    "/search/user/repo/login/",
    "/analysis/",
    "/analysis/unused?days=1",
    "/analysis/recall",
]


@pytest.fixture(autouse=True)
def recorded(app: Flask, store: Callable[..., None], mock_stores: Stores) -> None:
    store(
        wire_event("push", tag="v1", actor="ci-bot", at=NOW - 2 * DAY),
        wire_event("pull", tag="v1", actor="", at=NOW - 2 * DAY),
        wire_event("pull", tag="v1", actor="gone", at=NOW - 20 * DAY),
        wire_event("push", "ops/secret", tag="v9", of="other", at=NOW - 2 * DAY, actor="eve"),
        wire_event("push", "single", tag="v1", of="other", at=NOW - 2 * DAY, actor="eve"),
    )
    for day in mock_stores.days.find_open_days(NOW):
        mock_stores.days.close_day(day)


def offered(page: str) -> dict[str, list[str]]:
    """The choices of a page by the name of their field."""
    return {
        name: re.findall('<option value="([^"]*)"', choices)
        for name, choices in re.findall(r'<datalist id="(\w+)-choices">(.*?)</datalist>', page)
    }


def test_fields_offer_what_pulled_or_pushed_within_a_week(sign_in: SignIn) -> None:
    assert offered(sign_in("admin").get(RECORDS).text) == {
        "registry": ["default"],
        "namespace": ["ops", "team"],
        "actor": ["ci-bot", "eve"],
    }


def test_fields_offer_nothing_of_what_may_not_be_seen(sign_in: SignIn) -> None:
    page = sign_in("alice").get(RECORDS).text

    assert offered(page) == {"registry": ["default"], "namespace": ["team"], "actor": ["ci-bot"]}


@pytest.mark.parametrize("path", LISTS)
def test_who_may_see_nothing_is_offered_nothing(sign_in: SignIn, path: str) -> None:
    seen, nothing = sign_in("alice").get(path).text, sign_in("mallory").get(path).text

    assert "default" in offered(seen)["registry"]
    assert offered(nothing) == {}
    assert " list=" not in nothing


def test_who_has_not_signed_in_is_offered_nothing(client: FlaskClient) -> None:
    page = client.get("/analysis/user/").text

    assert 'name="actor"' in page
    assert offered(page) == {}


@pytest.mark.parametrize("records", ["without_addresses", "own"])
def test_accounts_are_offered_where_they_may_be_named(
    make_app: Callable[..., Flask], records: Any
) -> None:
    client = make_app(access=Access(records=records)).test_client()

    page = client.get(RECORDS, headers=basic("alice")).text

    assert ("actor" in offered(page)) == (records == "without_addresses")


def test_a_repository_that_alone_may_be_seen_costs_no_reading_of_its_rows(
    sign_in: SignIn, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"seq": 5, "match": {"account": "mallory", "name": "team/app"}, "actions": ["pull"]}
    mock_stores.accounts.add_acl_entry(entry)
    client = sign_in("mallory")
    monkeypatch.setattr(mock_stores.usage, "_read_rows", None)
    monkeypatch.setattr(mock_stores.usage, "_make_rows", None)

    page = client.get(RECORDS).text

    assert "team/app" in page
    assert offered(page) == {}


def test_choices_are_read_once_a_minute_and_anew_for_another_rule(
    sign_in: SignIn, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, asked = mock_stores.usage.read_sums, []

    def read_sums(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs)
        return read(*args, **kwargs)

    client = sign_in("alice")
    monkeypatch.setattr(mock_stores.usage, "read_sums", read_sums)
    pages = [client.get(RECORDS).text for _ in range(3)]
    entry = {"seq": 1, "match": {"account": "alice", "name": "team/*"}, "actions": []}
    mock_stores.accounts.add_acl_entry(entry)
    after = client.get(RECORDS).text

    assert [offered(page)["actor"] for page in pages] == [["ci-bot"]] * 3
    assert offered(after) == {}
    assert len(asked) == 2
