"""`rns tokens` on a wire server, and what `rns accounts` does to tokens and sessions."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from command_line import Run, rows

from app.rules.tokens import is_token
from app.store import Stores
from app.store.sign_ins import FORM, SIGNED_IN, SignIn, now

pytestmark = pytest.mark.wire


@pytest.fixture
def stores(run: Run, wire_database: Any) -> Stores:
    """With the account `alice`."""
    run("accounts", "add", "alice", "--password-stdin", stdin="secret\n")
    return Stores(wire_database)


def test_a_token_is_made_shown_once_listed_and_removed(run: Run, stores: Stores) -> None:
    made = run("tokens", "add", "--account", "alice", "--name", "ci")
    [shown] = rows(
        run("tokens", "add", "--account", "alice", "--name", "b", "--days", "7", "--json")
    )

    token = made.out.strip()
    assert is_token(token)
    assert stores.tokens.find(token, now())
    assert is_token(shown["token"])
    lifetime = datetime.fromisoformat(shown["expires_at"]) - datetime.fromisoformat(
        shown["created_at"]
    )
    assert (shown["account"], shown["name"], lifetime.days) == ("alice", "b", 7)
    listed = run("tokens", "list", "--json")
    assert [(row["account"], row["name"]) for row in rows(listed)] == [
        ("alice", "b"),
        ("alice", "ci"),
    ]
    assert "rns_" not in listed.out + run("tokens", "list").out
    assert run("tokens", "list", "--account", "bob", "--json").out == ""
    assert run("tokens", "remove", "--account", "alice", "--name", "ci").out == "removed ci\n"
    assert stores.tokens.find(token, now()) is None


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("add", "--account", "nobody", "--name", "ci"), 1, "there is no account nobody"),
        (("add", "--account", "alice", "--name", "a:b"), 1, "without a colon"),
        (("add", "--account", "alice", "--name", "ci", "--days", "366"), 2, "1<=x<=365"),
        (("add", "--account", "alice", "--name", "ci", "--days", "0"), 2, "1<=x<=365"),
        (("add", "--account", "alice"), 2, "--name"),
        (("remove", "--account", "alice", "--name", "ci"), 1, "no token ci of alice"),
        (("remove", "--account", "alice"), 2, "one of --name and --all"),
        (("remove", "--account", "alice", "--name", "ci", "--all"), 2, "one of --name and --all"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    run: Run, stores: Stores, arguments: tuple[str, ...], status: int, message: str
) -> None:
    refused = run("tokens", *arguments)

    assert (refused.status, refused.out) == (status, "")
    assert message in refused.err
    assert refused.err.count("\n") == 1


def test_all_tokens_of_one_who_left_are_removed(run: Run, stores: Stores) -> None:
    for name in ("a", "b"):
        run("tokens", "add", "--account", "alice", "--name", name)

    assert run("tokens", "remove", "--account", "alice", "--all").out == "removed 2\n"
    assert stores.tokens.find_all("alice") == []


def test_an_account_takes_its_tokens_with_it_and_a_new_one_of_that_name_has_none(
    run: Run, stores: Stores, wire_database: Any
) -> None:
    run("tokens", "add", "--account", "alice", "--name", "ci")
    run("accounts", "remove", "alice")
    assert stores.tokens.find_all("alice") == []

    run("accounts", "add", "alice", "--password-stdin", stdin="secret\n")
    run("tokens", "add", "--account", "alice", "--name", "ci")
    wire_database["users"].delete_one({"username": "alice"})  # by another program
    run("accounts", "add", "alice", "--password-stdin", stdin="secret\n")

    assert stores.tokens.find_all("alice") == []


def test_an_account_that_is_imported_has_no_tokens_of_somebody_before(
    run: Run, stores: Stores, wire_database: Any, tmp_path: Path
) -> None:
    run("tokens", "add", "--account", "alice", "--name", "ci")
    user = wire_database["users"].find_one_and_delete({"username": "alice"})
    file = tmp_path / "auth_config.yml"
    file.write_text(f"users: {{alice: {{password: '{user['password']}'}}}}")

    assert run("accounts", "import", str(file)).status == 0

    assert stores.accounts.find("alice")
    assert stores.tokens.find_all("alice") == []


def begin_session(stores: Stores, session: str) -> None:
    stores.sign_ins.add(SignIn(now(), "alice", "192.0.2.1", FORM, SIGNED_IN, "Firefox"), session)


def sessions(stores: Stores) -> list[str]:
    return [row.id for row in stores.sign_ins.find_sessions("alice", now() - timedelta(days=7))]


def test_the_next_one_of_a_name_is_not_shown_the_sessions_of_the_one_before(
    run: Run, stores: Stores, wire_database: Any, tmp_path: Path
) -> None:
    add = ("accounts", "add", "alice", "--password-stdin")
    begin_session(stores, "first")
    run("accounts", "remove", "alice")
    assert sessions(stores) == []

    begin_session(stores, "second")
    run(*add, stdin="secret\n")
    assert sessions(stores) == []

    begin_session(stores, "third")
    user = wire_database["users"].find_one_and_delete({"username": "alice"})  # by another program
    file = tmp_path / "auth_config.yml"
    file.write_text(f"users: {{alice: {{password: '{user['password']}'}}}}")
    run("accounts", "import", str(file))
    assert sessions(stores) == []


def test_a_new_password_ends_what_the_account_page_lists_as_open(run: Run, stores: Stores) -> None:
    begin_session(stores, "first")

    run("accounts", "passwd", "alice", "--password-stdin", stdin="other\n")

    assert sessions(stores) == []
    assert stores.sign_ins.is_ended("first")


def test_adding_an_account_that_exists_leaves_its_tokens_and_sessions(
    run: Run, stores: Stores
) -> None:
    run("tokens", "add", "--account", "alice", "--name", "ci")
    begin_session(stores, "first")

    assert run("accounts", "add", "alice", "--password-stdin", stdin="secret\n").status == 1

    assert len(stores.tokens.find_all("alice")) == 1
    assert sessions(stores) == ["first"]
