"""Commands that are run at the wrong place or with a wrong word, each told in a sentence."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from builders import deliver, envelope, leave_version_0_1, wire_event
from command_line import Run, rows

from app.store import Stores
from app.store.schema import NEWEST

pytestmark = pytest.mark.wire


@pytest.fixture
def elsewhere(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory without a database, and no variables of the server."""
    for key in ("URI", "DATABASE"):
        monkeypatch.delenv(f"RNS_MONGODB__{key}")
    return tmp_path


@pytest.mark.parametrize(
    "arguments",
    [["check"], ["accounts", "list"], ["events", "export"], ["demo"], ["acl", "list", "--json"]],
    ids=" ".join,
)
def test_a_command_makes_no_database_and_says_where_it_looked(
    run: Run, elsewhere: Path, arguments: list[str]
) -> None:
    result = run(*arguments)

    assert result.status == 1
    assert result.err.count("\n") == 1
    where = f"there is no database in {elsewhere}/data, which mongodb.data_dir of the defaults"
    assert where in result.err
    assert f"(no config.yml in {elsewhere})" in result.err
    assert "rns serve" in result.err
    assert not (elsewhere / "data").exists()


def test_the_configuration_that_was_read_is_named(run: Run, elsewhere: Path) -> None:
    file = elsewhere / "other.yml"
    file.write_text("mongodb: {data_dir: /nowhere/data}\n")

    result = run("--config", str(file), "check")

    assert f"no database in /nowhere/data, which mongodb.data_dir of {file} names" in result.err
    assert str(file) in result.out


@pytest.mark.parametrize("arguments", [[], ["accounts"], ["events"]], ids=["rns", "acc", "ev"])
def test_without_a_command_the_help_is_shown_as_it_is(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.status == 2
    assert result.err.startswith("Usage: ")
    assert result.err.count("\n") > 5
    assert "\nCommands:\n" in result.err


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["accounts", "add", "bob", "--password-stdin"], b"p\xe4ssword\n"),
        (["accounts", "passwd", "b\udce4b", "--password-stdin"], b"password\n"),
        (["accounts", "remove", "b\udce4b"], b""),
        (["tokens", "add", "--account", "b\udce4b", "--name", "ci"], b""),
        (["acl", "add", "--seq", "1", "--account", "b\udce4b", "--actions", "pull"], b""),
    ],
    ids=lambda value: value[1] if isinstance(value, list) else "",
)
def test_what_is_not_utf8_is_told_in_a_line(run: Run, arguments: list[str], stdin: bytes) -> None:
    result = run(*arguments, stdin=stdin)

    assert (result.status, result.out) == (1, "")
    assert result.err == "rns: an argument, or what came on stdin, is not UTF-8\n"


def test_the_last_administrator_stays(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("accounts", "add", "admin", "--password-stdin", stdin="secret\n")
    run("accounts", "add", "alice", "--password-stdin", stdin="secret\n")

    refused = run("accounts", "remove", "admin")
    assert (refused.status, "admin is the last administrator" in refused.err) == (1, True)
    assert [row["name"] for row in rows(run("accounts", "list", "--json"))] == ["admin", "alice"]
    assert run("accounts", "remove", "alice").status == 0

    monkeypatch.setenv("RNS_ACCESS__ADMINISTRATORS", '["admin", "root"]')
    run("accounts", "add", "root", "--password-stdin", stdin="secret\n")
    assert run("accounts", "remove", "admin").status == 0
    assert run("accounts", "remove", "root").status == 1


def test_an_action_that_no_registry_knows_is_refused_and_the_others_are_named(run: Run) -> None:
    result = run("acl", "add", "--seq", "1", "--name", "a", "--actions", "push,pul")

    assert result.status == 2
    assert "--actions: 'pul' is none of pull, push, delete, *" in result.err
    assert rows(run("acl", "list", "--json")) == []


def findings(run: Run, *arguments: str) -> list[tuple[str, str]]:
    return [(row["level"], row["text"]) for row in rows(run("check", "--json", *arguments))]


def test_check_names_what_it_looked_at(run: Run, tmp_path: Path, wire_database: Any) -> None:
    file = tmp_path / "config.yml"
    file.write_text("{}")

    texts = " ".join(text for _, text in findings(run))

    assert str(file) in texts
    assert f"{wire_database.name} at mongodb://127.0.0.1:" in texts
    assert "password" not in texts
    assert "indexes" in texts


def test_check_sees_what_was_stored_wrong(run: Run, wire_database: Any) -> None:
    wire_database["acl"].insert_one({"seq": 3, "match": {"name": "a"}, "actions": ["pul"]})
    wire_database["users"].insert_one({"username": "alice", "password": "x"})

    found = findings(run)

    assert ("warning", "seq 3: no registry asks for the action 'pul'") in found
    names = "no account is an administrator: access.administrators names admin"
    assert ("warning", names) in found


def test_check_reminds_of_the_first_password_until_its_file_is_gone(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "data" / "first_password"
    file.parent.mkdir()
    file.write_text("secret\n")

    text = next(text for level, text in findings(run) if "first_password" in text)

    assert text == (
        f"{file} has the first password of admin for who can read it: change it with "
        "rns accounts passwd admin, if nobody did, and remove the file"
    )
    file.unlink()
    assert "first_password" not in str(findings(run))


def test_check_tells_who_was_refused_and_what_is_odd(run: Run, wire_database: Any) -> None:
    stores = Stores(wire_database)
    stores.ensure_indexes()
    stores.wiring.note_refusal("10.0.0.1", "path", "it sends them to /", datetime.now(UTC))
    now = datetime.now(UTC)
    deliver(stores, envelope(wire_event(tag="v1", at=now), {"id": "broken"}), now=now)

    texts = [text for level, text in findings(run) if level == "warning"]

    assert any(text.startswith("10.0.0.1, last ") and "to /" in text for text in texts)
    assert any("includereferences: true" in text for text in texts)
    assert any(text.startswith("1 events; see rns events rejected") for text in texts)


def test_check_waits_for_what_comes(run: Run, wire_database: Any) -> None:
    stores = Stores(wire_database)
    stores.ensure_indexes()

    ended = threading.Event()

    def push() -> None:
        while not ended.wait(0.5):
            now = datetime.now(UTC)
            deliver(stores, envelope(wire_event(tag="v1", at=now)), now=now)

    pusher = threading.Thread(target=push)
    pusher.start()
    result = run("check", "--wait", "60")
    ended.set()
    pusher.join()

    assert result.status == 0
    assert "default: push of team/app:v1 by alice" in result.out


def test_check_ends_when_nothing_comes(run: Run) -> None:
    result = run("check", "--wait", "1")

    assert result.status == 1
    assert "nothing came" in result.out


def test_a_command_leaves_a_database_of_another_schema_alone(run: Run, wire_database: Any) -> None:
    leave_version_0_1(wire_database)
    older = run("events", "export")
    wire_database["schema"].replace_one({"_id": "schema"}, {"_id": "schema", "number": NEWEST + 1})
    newer = run("events", "rebuild")

    assert (older.status, newer.status) == (1, 1)
    assert f"has schema 1, which an older version wrote, and this one needs {NEWEST}" in older.err
    assert "rns serve" in older.err
    assert f"has schema {NEWEST + 1}" in newer.err
    assert f"none after {NEWEST}" in newer.err
    assert wire_database["tags"].find_one() is None


def test_check_says_the_schema_of_a_new_database(run: Run) -> None:
    assert f", schema {NEWEST}, " in run("check").out
