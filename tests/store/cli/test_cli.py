"""The command line on a wire server: what it does, prints and exits with."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from builders import envelope, wire_event
from pymongo.database import Database

from app.cli import main

pytestmark = pytest.mark.wire


class Result(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(
    wire_uri: str,
    wire_database: Database[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RNS_MONGODB__URI", wire_uri)
    monkeypatch.setenv("RNS_MONGODB__DATABASE", wire_database.name)

    def run(*arguments: str, stdin: str | bytes = "") -> Result:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "argv", ["rns", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        status = 0
        try:
            main()
        except SystemExit as leave:
            status = int(leave.code or 0)
        return Result(status, *capsys.readouterr())

    return run


def rows(result: Result) -> list[Any]:
    return [json.loads(line) for line in result.out.splitlines()]


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


@pytest.mark.parametrize(
    ("arguments", "stdin", "status", "words"),
    [
        (["accounts", "add", "a:b", "--password-stdin"], "x\n", 1, "without a colon"),
        (["accounts", "add", "a", "--password-stdin"], "\n", 1, "1 to 72 bytes"),
        (["accounts", "add", "a", "--password-stdin"], "x" * 73 + "\n", 1, "1 to 72 bytes"),
        (["accounts", "add", "a", "--password-stdin", "--label", "x"], "x\n", 2, "name=value"),
        (["accounts", "add", "a"], "", 2, "--password-stdin"),
        (["accounts", "add"], "", 2, "NAME"),
        (["accounts", "remove", "nobody"], "", 1, "no account nobody"),
        (["accounts", "passwd", "nobody", "--password-stdin"], "x\n", 1, "no account nobody"),
        (["acl", "remove", "--seq", "5"], "", 1, "no entry with seq 5"),
        (["acl", "add", "--seq", "x", "--actions", "pull"], "", 2, "--seq"),
        (["acl", "add", "--seq", "1", "--name", "/(/", "--actions", ""], "", 1, "invalid"),
        (["acl", "add", "--seq", "1", "--ip", "10.0.0", "--actions", ""], "", 1, "invalid"),
        (
            ["acl", "add", "--seq", "1", "--label", "a=b", "--label", "a=c", "--actions", ""],
            "",
            2,
            "a is given twice",
        ),
        (["acl", "remove", "--seq", str(2**70)], "", 2, "--seq"),
        (["acl", "explain", "a", "b", "--address", "foo"], "", 1, "--address: foo"),
        (["usage", "refresh", "--from", "2026-11-10", "--to", "2026-11-09"], "", 1, "--to: "),
        (["events", "rejected", "--drop", "x"], "", 1, "no rejected event x"),
        (["events", "import", "none.ndjson"], "", 2, "none.ndjson"),
        (["events", "import", "--registry", "x"], '{"events":[]}\n', 2, "--registry: x"),
        (["nonsense"], "", 2, "nonsense"),
        (["--config", "none.yml", "check"], "", 1, "none.yml"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_an_error_is_one_line_and_the_status_tells_wrong_usage(
    run: Run, arguments: list[str], stdin: str, status: int, words: str
) -> None:
    result = run(*arguments, stdin=stdin)

    assert result.status == status
    assert result.err.startswith("rns: ")
    assert result.err.count("\n") == 1
    assert words in result.err


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


def test_check_reports_what_is_wrong(run: Run, wire_database: Any) -> None:
    assert run("check").status == 0

    wire_database["acl"].insert_one({"seq": 1, "match": {"name": "/(/"}, "actions": ["pull"]})

    result = run("check")
    assert result.status == 1
    assert "seq 1" in result.out


def test_demo_fills_the_catalogue_once_and_is_removed_without_trace(
    run: Run, wire_database: Any
) -> None:
    run("events", "import", stdin=envelope(wire_event("push", tag="v1")).decode())
    before = {name: list(wire_database[name].find()) for name in ("events", "manifests")}

    first = run("demo", "--days", "2")
    wire_database["events"].find_one({"registry": "demo"})
    removed = run("demo", "--remove")

    assert first.out.startswith("stored 17")
    assert removed.out.startswith("removed 17")
    after = {name: list(wire_database[name].find()) for name in ("events", "manifests")}
    assert after == before
    assert wire_database["catalogue"].count_documents({"registry": "demo"}) == 0


def test_an_export_restores_everything_elsewhere(
    run: Run, wire_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        envelope(wire_event("push", tag="v1")).decode(),
        envelope(wire_event("pull", tag="v1", at=1), {"id": "broken"}).decode(),
    ]
    monkeypatch.setenv("RNS_REGISTRIES__0__NAME", "second")
    raw = run("events", "import", "--registry", "second", stdin="\n".join(lines))
    exported = run("events", "export")
    other = f"{wire_database.name}_b"
    monkeypatch.setenv("RNS_MONGODB__DATABASE", other)

    first = run("events", "import", stdin=exported.out)
    second = run("events", "import", stdin=exported.out)

    assert raw.err.endswith("imported 2, already there 0, rejected 1\n")
    kept = ("events", "catalogue", "manifests", "rejected_events")
    database = wire_database.client[other]
    for name in kept:
        expected = sorted(wire_database[name].find(), key=lambda row: str(row["_id"]))
        assert sorted(database[name].find(), key=lambda row: str(row["_id"])) == expected
    assert "already there 0" in first.err
    assert second.err.startswith("imported 0,")
    wire_database.client.drop_database(other)


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b'{"collection": "users", "document": {"_id": 1}}', b"x", b"\x1f\x8b\xff"]
)
def test_an_import_names_the_line_it_cannot_read(run: Run, line: bytes) -> None:
    result = run("events", "import", stdin=b"\n" + line + b"\n")

    assert (result.status, result.err.startswith("rns: line 2: ")) == (1, True)


def test_rejected_events_are_listed_and_dropped(run: Run) -> None:
    run("events", "import", stdin=envelope({"id": "broken"}).decode())

    [kept] = rows(run("events", "rejected", "--json"))
    retried = run("events", "rejected", "--retry")
    dropped = run("events", "rejected", "--drop", kept["id"])

    assert "broken" in kept["body"]
    assert kept["reason"]
    assert retried.out == "stored 0, still rejected 1\n"
    assert dropped.status == 0
    assert run("events", "rejected", "--json").out == ""


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
