"""API tokens in the database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from app.errors import InvalidQuery
from app.rules.tokens import make_token
from app.store import Stores
from app.store.sign_ins import now

DAY = timedelta(days=1)


def add(stores: Stores, account: str = "alice", name: str = "ci", days: int = 30) -> str:
    return stores.tokens.add(account, name, days * DAY, now())


def test_a_token_is_found_by_what_its_owner_has_and_by_nothing_that_is_kept(
    stores: Stores,
) -> None:
    token = add(stores)

    found = stores.tokens.find(token, now())
    [document] = stores._database["api_tokens"].find()

    assert found
    assert (found.account, found.name, found.used_at) == ("alice", "ci", None)
    assert token[4:] not in str(document)
    for kept in (document["hash"], document["_id"], f"rns_{document['hash']}", make_token()):
        assert stores.tokens.find(kept, now()) is None


def test_one_row_each_and_a_name_is_taken_once_for_an_account(stores: Stores) -> None:
    first = add(stores)
    other = add(stores, "bob")

    with pytest.raises(InvalidQuery, match="has a token ci"):
        add(stores)

    assert stores._database["api_tokens"].count_documents({}) == 2
    assert stores.tokens.find(first, now())
    assert stores.tokens.find(other, now())


@pytest.mark.wire
def test_of_several_who_take_a_name_at_the_same_moment_one_gets_it(wire_database: Any) -> None:
    stores = Stores(wire_database)
    stores.ensure_indexes()

    def take(_: int) -> str | None:
        try:
            return add(stores)
        except InvalidQuery:
            return None

    with ThreadPoolExecutor(8) as pool:
        made = [token for token in pool.map(take, range(8)) if token]

    assert len(made) == 1
    assert stores.tokens.find(made[0], now())
    assert wire_database["api_tokens"].count_documents({}) == 1


@pytest.mark.parametrize("days", [0, -1, 366])
def test_a_token_ends_within_a_year(stores: Stores, days: int) -> None:
    with pytest.raises(InvalidQuery, match="expected 1 to 365"):
        add(stores, days=days)


def test_a_token_is_found_until_its_end_and_listed_after_it(stores: Stores) -> None:
    token = add(stores, days=30)
    [row] = stores.tokens.find_all("alice")

    assert stores.tokens.find(token, row.expires_at - timedelta(milliseconds=1))
    assert stores.tokens.find(token, row.expires_at) is None
    assert row.is_over(row.expires_at)
    assert not row.is_over(row.expires_at - DAY)


def test_a_use_is_noted_once_a_minute(stores: Stores) -> None:
    token, start = add(stores), now()
    fresh = stores.tokens.find(token, start)
    assert fresh

    noted = stores.tokens.note_use(fresh, "10.0.0.1", start)
    again = stores.tokens.note_use(fresh, "10.0.0.2", start)  # another request, at the same moment
    used = stores.tokens.find(token, start)
    assert used
    soon = stores.tokens.note_use(used, "10.0.0.3", start + timedelta(seconds=59))
    later = stores.tokens.note_use(used, "10.0.0.4", start + timedelta(seconds=60))

    assert (noted, again, soon, later) == (True, False, False, True)
    assert (used.used_at, used.used_from) == (start, "10.0.0.1")
    [row] = stores.tokens.find_all("alice")
    assert row.used_from == "10.0.0.4"


def test_a_use_brings_no_revoked_token_back(stores: Stores) -> None:
    token = add(stores)
    found = stores.tokens.find(token, now())
    assert found

    assert stores.tokens.remove("alice", "ci")

    assert not stores.tokens.note_use(found, "10.0.0.1", now())
    assert stores._database["api_tokens"].count_documents({}) == 0
    assert not stores.tokens.remove("alice", "ci")


def test_all_tokens_of_an_account_are_revoked_and_no_others(stores: Stores) -> None:
    for name in ("a", "b"):
        add(stores, "alice", name)
    kept = add(stores, "alice2", "a")

    assert stores.tokens.remove_all("alice") == 2

    assert stores.tokens.find(kept, now())
    assert stores.tokens.find_all("alice") == []


def test_tokens_are_listed_by_account_and_name_page_by_page(stores: Stores) -> None:
    for account in ("bob", "alice"):
        for name in ("z", "a"):
            add(stores, account, name)

    first = stores.tokens.find_page(limit=3)
    second = stores.tokens.find_page(cursor=first.next, limit=3)
    of_bob = stores.tokens.find_page("bob")

    assert [(t.account, t.name) for t in first.items] == [
        ("alice", "a"),
        ("alice", "z"),
        ("bob", "a"),
    ]
    assert [(t.account, t.name) for t in second.items] == [("bob", "z")]
    assert second.next is None
    assert [t.name for t in of_bob.items] == ["a", "z"]


@pytest.mark.parametrize("account", ["$where", "a.b", "a:b", "\\", "ünï", "x" * 255])
def test_any_account_can_have_a_token(stores: Stores, account: str) -> None:
    token = add(stores, account)

    found = stores.tokens.find(token, now())
    assert found
    assert found.account == account
    assert stores.tokens.remove(account, "ci")
