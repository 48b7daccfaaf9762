"""`rns check` and `rns demo` on a wire server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import envelope, wire_event
from command_line import PLAN, Run

from app.demo import company

pytestmark = pytest.mark.wire


def test_check_reports_what_is_wrong(run: Run, wire_database: Any) -> None:
    assert run("check").status == 0

    wire_database["acl"].insert_one({"seq": 1, "match": {"name": "/(/"}, "actions": ["pull"]})

    result = run("check")
    assert result.status == 1
    assert "seq 1" in result.out


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
    monkeypatch.setattr(company, "DAYS", 2)
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
