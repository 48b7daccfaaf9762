"""Accounts and ACL entries as other programs write them into docker_auth's collections."""

from __future__ import annotations

import logging
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Code, Decimal128, ObjectId, Regex, decode, encode
from bson.datetime_ms import DatetimeMS

from app.analysis.explain import explain_access
from app.rules.access import Account, compile_rule
from app.settings import MongoDB, Settings
from app.store import Stores, accounts, connect

UNREADABLE: dict[str, dict[str, Any]] = {
    "regex": {"match": {"account": Regex("^ali")}},
    "ObjectId": {"match": {"name": ObjectId()}},
    "date": {"match": {"service": datetime(2026, 11, 23, tzinfo=UTC)}},
    "label": {"match": {"labels": {"group": Regex("dev")}}},
    "actions": {"actions": "pull"},
    "fraction": {"seq": 10.5},
    "text": {"seq": "10"},
    "decimal": {"seq": Decimal128("10")},
}


def put(stores: Stores, *entries: dict[str, Any]) -> None:
    stores.accounts._acl.insert_many([dict(entry) for entry in entries])


def may_pull(stores: Stores, account: str = "alice", name: str = "team/app") -> bool:
    rule = compile_rule(
        stores.accounts.load_acl(),
        Account(account, {}),
        address=None,
        service="registry",
        own_namespace=True,
        administrators=["admin"],
    )
    return rule.may_pull(name)


@pytest.mark.parametrize("entry", UNREADABLE.values(), ids=UNREADABLE)
def test_an_entry_that_cannot_be_read_denies_and_is_named(
    stores: Stores, entry: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    put(
        stores,
        {"seq": 20, "match": {}, "actions": ["*"]},
        {"seq": 10, "match": {}, "actions": []} | entry,
    )

    assert not may_pull(stores)
    assert may_pull(stores, "admin")
    [problem] = stores.accounts.load_acl().problems
    assert problem.index == 1
    assert caplog.messages == [f"ACL entry {problem.where}: {problem.message}"]
    explained = explain_access(stores, Settings(), "alice", "team/app").explanation
    assert (explained.allowed, explained.problems) == (False, (problem,))


def test_a_year_that_python_has_not_makes_its_own_entry_unreadable_only() -> None:
    """As MongoDB sends it; the embedded database takes no such year."""
    year_10000 = DatetimeMS(253_402_300_800_000)
    entries = [
        {"seq": 1, "match": {"account": "bob"}, "actions": ["*"]},
        {"seq": 2, "match": {"account": year_10000}, "actions": ["*"], "comment": year_10000},
    ]
    with closing(connect(Settings(mongodb=MongoDB(uri="mongodb://127.0.0.1:9")))) as stores:
        options = stores.accounts._acl.codec_options

        read = [decode(encode(entry), codec_options=options) for entry in entries]

        [problem] = stores.accounts.parse(read).problems
    assert (problem.index, "is a date" in problem.message) == (1, True)


def test_a_problem_is_named_in_the_log_once_until_it_changes(
    stores: Stores, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "ACL_LIFETIME_S", 0)
    put(stores, {"seq": float("nan"), "match": {}, "actions": []})  # no number equals itself

    for _ in range(3):
        stores.accounts.load_acl()
    assert len(caplog.messages) == 1

    put(stores, {"match": {}, "actions": []})
    stores.accounts.load_acl()
    stores.accounts.load_acl()
    assert len(caplog.messages) == 3


def test_the_log_names_some_of_many_problems(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    put(stores, *({"seq": n, "match": {"name": "/(/"}, "actions": []} for n in range(100)))

    stores.accounts.load_acl()

    assert len(caplog.messages) == accounts.MAX_LOGGED + 1
    assert caplog.messages[-1] == "80 more ACL entries have problems"


def test_entries_that_docker_auth_takes_in_another_order_are_explained(stores: Stores) -> None:
    put(
        stores,
        {"seq": 20, "match": {"name": "team/*"}, "actions": ["pull"]},
        {"seq": 10, "match": {"name": "team/app"}, "actions": []},
        {"seq": 30, "match": {"name": "ops/*"}, "actions": []},
    )

    answer = explain_access(stores, Settings(), "alice", "team/app")

    assert not answer.explanation.allowed
    assert answer.explanation.unsorted == "seq 20 is stored before it, and allows pull"
    assert [(pair.first, pair.second) for pair in answer.disorder] == [(10, 20)]
    assert [entry["seq"] for entry in answer.entries] == [20, 10, 30]


ODD_FIELDS: list[dict[str, Any]] = [
    {"labels": "dev"},
    {"labels": {"group": "dev"}},
    {"labels": {"group": [Regex("dev")]}},
    {"Labels": {"group": ["ops"]}},
    {"PASSWORD": "$2b$10$of-docker-auth"},
    {"password": Code("$2b$10$of-docker-auth")},
    {"password": ["$2b$10$of-docker-auth"]},
    {"Username": 1},
]


@pytest.mark.parametrize("odd", ODD_FIELDS, ids=str)
def test_an_account_that_cannot_be_read_does_not_sign_in(
    stores: Stores, odd: dict[str, Any]
) -> None:
    stores.accounts.add("alice", "secret", {"group": ["dev"]})
    assert stores.accounts.sign_in("alice", "secret")
    assert stores.accounts.find_problems() == []

    stores.accounts._accounts.update_one({"username": "alice"}, {"$set": odd})

    assert stores.accounts.sign_in("alice", "secret") is None
    [line] = stores.accounts.find_problems()
    assert line.lower().startswith(f"alice: {next(iter(odd)).lower()[:5]}")


@pytest.mark.parametrize("odd", ODD_FIELDS, ids=str)
def test_an_anonymous_account_that_cannot_be_read_is_none(
    stores: Stores, odd: dict[str, Any]
) -> None:
    stores.accounts._accounts.insert_one({"username": ""})
    assert stores.accounts.find_anonymous()

    stores.accounts._accounts.update_one({"username": ""}, {"$set": odd})

    assert stores.accounts.find_anonymous() is None


def test_a_list_of_names_is_no_account(stores: Stores) -> None:
    stores.accounts.add("alice", "secret", {})
    change = {"$set": {"username": ["alice", ""]}}
    stores.accounts._accounts.update_one({"username": "alice"}, change)

    assert stores.accounts.sign_in("alice", "secret") is None
    assert stores.accounts.find_anonymous() is None
    assert stores.accounts.find_all() == []
    [line] = stores.accounts.find_problems()
    assert line == "['alice', '']: username is a list and not text, so it cannot sign in"


def test_an_account_without_a_password_is_named(stores: Stores) -> None:
    stores.accounts._accounts.insert_many([{"username": "open"}, {"username": ""}])

    assert stores.accounts.find_problems() == ["open: has no password, and cannot sign in"]
