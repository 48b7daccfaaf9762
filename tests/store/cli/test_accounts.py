"""`rns accounts` and `rns acl` on a wire server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bson import Regex
from builders import envelope, wire_event
from command_line import Run, rows

pytestmark = pytest.mark.wire


def test_accounts_are_added_listed_changed_and_removed(run: Run, wire_database: Any) -> None:
    run("accounts", "add", "bob", "--password-stdin", stdin="secret\n")
    labels = ("--label", "group=dev", "--label", "group=ops")
    run("accounts", "add", "alice", "--password-stdin", *labels, stdin="secret\n")
    before = wire_database["users"].find_one({"username": "bob"})["password"]

    listed = rows(run("accounts", "list", "--json"))
    changed = run("accounts", "passwd", "bob", "--password-stdin", stdin="other\n")
    removed = run("accounts", "remove", "alice")

    assert listed == [
        {"name": "alice", "labels": {"group": ["dev", "ops"]}},
        {"name": "bob", "labels": {}},
    ]
    assert (changed.status, removed.status) == (0, 0)
    assert before.startswith("$2b$")
    assert wire_database["users"].find_one({"username": "bob"})["password"] != before
    assert wire_database["users"].count_documents({}) == 1


def test_an_account_is_not_added_twice(run: Run) -> None:
    run("accounts", "add", "bob", "--password-stdin", stdin="secret\n")

    again = run("accounts", "add", "bob", "--password-stdin", stdin="secret\n")

    assert (again.status, "exists" in again.err) == (1, True)


def test_acl_entries_have_docker_auths_shape(run: Run, wire_database: Any) -> None:
    run("acl", "add", "--seq", "20", "--account", "", "--actions", "")
    arguments = (
        "--account",
        "dev",
        "--name",
        "team/*",
        "--label",
        "group=dev",
        "--ip",
        "10.0.0.0/8",
    )
    run("acl", "add", "--seq", "10", *arguments, "--actions", "pull,push", "--comment", "why")

    listed = rows(run("acl", "list", "--json"))
    taken = run("acl", "add", "--seq", "10", "--actions", "*")

    assert listed == [
        {
            "seq": 10,
            "match": {
                "account": "dev",
                "name": "team/*",
                "ip": "10.0.0.0/8",
                "labels": {"group": "dev"},
            },
            "actions": ["pull", "push"],
            "comment": "why",
        },
        {"seq": 20, "match": {"account": ""}, "actions": []},
    ]
    assert (taken.status, "taken" in taken.err) == (1, True)
    assert run("acl", "remove", "--seq", "20").status == 0
    assert wire_database["acl"].count_documents({}) == 1


def test_removing_an_entry_that_is_there_twice_says_so(run: Run, wire_database: Any) -> None:
    wire_database["acl"].insert_many([{"seq": 1, "actions": []}, {"seq": 1, "actions": ["pull"]}])

    assert run("acl", "remove", "--seq", "1").out == "removed 1: 2 entries had it\n"


def test_an_entry_whose_seq_cannot_be_read_is_removed_by_the_number_that_the_check_says(
    run: Run, wire_database: Any
) -> None:
    entries = [{"seq": seq, "match": {}, "actions": []} for seq in (10, 10.5, 20)]
    wire_database["acl"].insert_many([*entries, {"match": {}, "actions": []}])
    assert "without seq, number 2 in the collection: invalid" in run("check").out

    for number in ("1", "3", "5"):
        refused = run("acl", "remove", "--number", number)
        assert (refused.status, refused.out) == (1, "")
        assert f"no entry without a readable seq at number {number}" in refused.err
    assert run("acl", "remove", "--number", "2").out == "removed number 2\n"
    assert run("acl", "remove", "--number", "3").out == "removed number 3\n"

    assert [entry["seq"] for entry in wire_database["acl"].find()] == [10, 20]
    assert run("acl", "remove").status == 2
    assert run("acl", "remove", "--seq", "10", "--number", "1").status == 2


def test_the_anonymous_account_is_added_without_a_password(run: Run, wire_database: Any) -> None:
    asked = run("accounts", "add", "", "--password-stdin", stdin="secret\n")
    added = run("accounts", "add", "", "--label", "group=guests")
    again = run("accounts", "add", "")

    assert (asked.status, added.status, again.status) == (2, 0, 1)
    assert "the anonymous account exists" in again.err
    assert list(wire_database["users"].find({}, {"_id": 0})) == [
        {"username": "", "labels": {"group": ["guests"]}}
    ]
    assert run("accounts", "remove", "").status == 0
    assert wire_database["users"].count_documents({}) == 0


def test_an_access_is_explained(run: Run, wire_database: Any) -> None:
    run("acl", "add", "--seq", "10", "--account", "bob", "--name", "team/*", "--actions", "")
    run("acl", "add", "--seq", "20", "--name", "team/*", "--actions", "pull")

    text = run("acl", "explain", "bob", "team/app")
    [answer] = rows(run("acl", "explain", "alice", "team/app", "--json"))

    assert text.status == 0
    assert "may not pull: the entry with seq 10 decides" in text.out
    assert "There is no account bob" in text.out
    assert answer["explanation"]["allowed"] is True
    assert [step["verdict"] for step in answer["explanation"]["steps"]] == ["no match", "decides"]


def test_what_the_anonymous_account_may_pull_is_not_shown_without_the_setting(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("acl", "add", "--seq", "10", "--actions", "pull")
    line = "Nobody sees anything here without signing in"

    assert line in run("acl", "explain", "", "team/app").out
    assert line not in run("acl", "explain", "bob", "team/app").out
    monkeypatch.setenv("RNS_ACCESS__ANONYMOUS", "true")
    assert line not in run("acl", "explain", "", "team/app").out


def test_what_an_entry_would_change_is_shown_and_not_saved(run: Run, wire_database: Any) -> None:
    run("events", "import", stdin=envelope(wire_event(repository="team/app")).decode())
    entry = json.dumps({"seq": 1, "match": {"name": "team/*"}, "actions": ["pull"]})

    text = run("acl", "explain", "bob", "team/app", "--what-if", entry)

    assert "bob gains 1 repositories: team/app" in text.out
    assert run("acl", "list", "--json").out == ""


def test_an_entry_that_cannot_be_is_refused_in_one_line(run: Run) -> None:
    refused = run("acl", "explain", "bob", "team/app", "--what-if", '{"seq": 1}')

    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith("rns: entry: invalid: match is not a document")


def test_accounts_of_an_htpasswd_file_are_listed_and_not_changed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "htpasswd").write_text("robot:$2y$05$abc\nold:plain\n")
    monkeypatch.setenv("RNS_DOCKER_AUTH__HTPASSWD", str(tmp_path / "htpasswd"))

    assert [row["name"] for row in rows(run("accounts", "list", "--json"))] == ["robot"]
    assert "line 2: old: not bcrypt" in run("check").out
    refused = run("accounts", "add", "bob", "--password-stdin", stdin="secret\n")
    assert refused.status == 1
    assert "htpasswd -B" in refused.err


def test_a_check_names_what_cannot_be_read_and_fails(run: Run, wire_database: Any) -> None:
    wire_database["users"].insert_many(
        [{"username": "open"}, {"username": "odd", "password": "$2b$…", "labels": {"group": "dev"}}]
    )
    wire_database["acl"].insert_many(
        [
            {"seq": 10, "match": {"account": Regex("^bob")}, "actions": []},
            {"seq": 10.5, "match": {}, "actions": []},
            {"match": {}, "actions": ["pull"]},
        ]
    )

    checked = run("check")

    assert checked.status == 1
    assert "only administrators see anything" in checked.err
    lines = checked.out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("account "))
    assert lines[start : start + 5] == [
        "account        odd: label group is text and not a list, so it cannot sign in",
        "account        open: has no password, and cannot sign in",
        "ACL entry      seq 10: invalid: account is a regular expression of BSON (put quotes around"
        " it) and not text",
        "ACL entry      without seq, number 2 in the collection: invalid: seq is the number 10.5"
        " and not a whole number",
        "ACL entry      without seq, number 3 in the collection: ignored: it has no seq",
    ]


def test_entries_that_docker_auth_takes_in_another_order_are_named(
    run: Run, wire_database: Any
) -> None:
    wire_database["acl"].insert_many(
        [
            {"seq": 20, "match": {}, "actions": ["pull"]},
            {"seq": 10, "match": {"name": "team/*"}, "actions": []},
        ]
    )

    checked, explained = run("check"), run("acl", "explain", "bob", "team/app")

    assert (checked.status, explained.status) == (0, 0)
    assert "ACL order      seq 10 comes before seq 20, and is stored after it" in checked.out
    assert "order: seq 10 comes before seq 20, and is stored after it" in explained.out
    assert "seq 20 is stored before it, and allows pull" in explained.out
    assert [row["seq"] for row in rows(run("acl", "list", "--json"))] == [10, 20]
