"""`rns check` and `rns demo` on a wire server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import envelope, wire_event
from command_line import PLAN, Run

pytestmark = pytest.mark.wire


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
    for name in ("repositories", "tags", "tag_history", "manifests"):
        assert wire_database[name].count_documents({"registry": "demo"}) == 0


def test_a_plan_that_cannot_be_is_found_by_check(run: Run, config: Path) -> None:
    config.write_text(PLAN + "    repos: {include: ['re:(']}\n")

    result = run("check")

    assert result.status == 1
    assert "migrations[0].repos.include[0]: not a regular expression" in result.err
