"""`rns check` and `rns demo` on a wire server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import envelope, wire_event
from command_line import PLAN, Run, rows
from fake_token_server import running_token_server

from app.demo import company

pytestmark = pytest.mark.wire


def test_check_reports_what_is_wrong(run: Run, wire_database: Any) -> None:
    assert run("check").status == 0

    wire_database["acl"].insert_one({"seq": 1, "match": {"name": "/(/"}, "actions": ["pull"]})

    result = run("check")
    assert result.status == 1
    assert "seq 1" in result.out


def test_check_asks_the_token_server_whether_it_refuses_a_wrong_password(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_token_server() as fake:
        monkeypatch.setenv("RNS_DOCKER_AUTH__TOKEN_URL", fake.url)
        right = run("check")
        fake.lets_everybody_in = True
        open_to_all = run("check")
        fake.failing = (500, {}, "")
        broken = run("check")

    assert (right.status, "refuses a wrong password" in right.out) == (0, True)
    assert "unencrypted" not in right.out
    assert (open_to_all.status, "made-up password" in open_to_all.err) == (1, True)
    assert (broken.status, "answers 500" in broken.err) == (1, True)
    assert "nothing came from it" in broken.out, "the rest is checked all the same"


def test_check_warns_of_passwords_that_go_unencrypted(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNS_DOCKER_AUTH__TOKEN_URL", "http://auth.invalid/auth")

    result = run("check")

    assert "passwords go there unencrypted: http://auth.invalid/auth" in result.out
    assert result.status == 1


def test_check_reads_the_acl_of_a_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "auth_config.yml"
    monkeypatch.setenv("RNS_DOCKER_AUTH__ACL_FILE", str(file))

    missing = run("check")
    file.write_text("acl: [{match: {name: '/(/'}, actions: [pull]}]")
    invalid = run("check")
    file.write_text("acl: [{match: {name: 'team/*'}, actions: [pull]}]")
    right = run("check")

    assert (missing.status, "docker_auth.acl_file: " in missing.err) == (1, True)
    assert (invalid.status, "seq 1: invalid" in invalid.out) == (1, True)
    assert right.status == 0
    [entry] = rows(run("acl", "list", "--json"))
    assert entry["match"] == {"name": "team/*"}
    assert "change it there" in run("acl", "add", "--seq", "2", "--actions", "*").err


def test_check_says_that_there_is_no_anonymous_account_to_let_in(
    run: Run, wire_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = 'access.anonymous has no effect: no account "" without password'
    assert line not in run("check").out
    monkeypatch.setenv("RNS_ACCESS__ANONYMOUS", "true")
    assert line in run("check").out

    wire_database["users"].insert_one({"username": ""})

    result = run("check")
    assert (result.status, line in result.out) == (0, False)


def test_demo_fills_the_catalogue_once_and_is_removed_without_trace(
    run: Run, wire_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(company, "DAYS", 4)  # at a weekend little happens
    run("events", "import", stdin=envelope(wire_event("push", tag="v1")).decode())
    kept = ("events", "manifests", "repositories", "tags", "tag_history")
    before = {name: list(wire_database[name].find()) for name in kept}

    first = run("demo")
    numbers = {name: wire_database[name].count_documents({"registry": "demo"}) for name in kept}
    second = run("demo")
    removed = run("demo", "--remove")

    assert first.out == f"stored {numbers['events']:,} events of the registry `demo`\n"
    assert all(number > 10 for number in numbers.values()), numbers
    assert second.out.startswith("the demonstration data is there already")
    assert removed.out == f"removed {numbers['events']:,} events\n"
    assert {name: list(wire_database[name].find()) for name in kept} == before


def test_a_plan_that_cannot_be_is_found_by_check(run: Run, config: Path) -> None:
    config.write_text(PLAN + "    repos: {include: ['re:(']}\n")

    result = run("check")

    assert result.status == 1
    assert "migrations[0].repos.include[0]: not a regular expression" in result.err
