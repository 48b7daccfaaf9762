"""`rns check --explain`: each query of the store, and what the database makes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from builders import deliver, digest, envelope, wire_event
from command_line import Run, rows
from pymongo.database import Database
from pymongo.errors import ExecutionTimeout, OperationFailure
from routing import PAGE, read_table

from app.store import Stores
from app.store.explaining import SentQuery, explain

pytestmark = pytest.mark.wire

# What pages, API and background read of these collections; writers are not asked.
READERS = ("Catalogue.", "EventStore.", "ManifestStore.")
WRITES = {
    "EventStore.find_known",
    "EventStore.remove_registry",
    "ManifestStore.learn",
    "ManifestStore.remove_registry",
}
SECRETS = ("hidden", "v7.7.7", digest("image"), "mallory", "10.66.77.88")


@pytest.fixture
def filled(wire_database: Database[Any]) -> Stores:
    stores = Stores(wire_database)
    stores.ensure_indexes()
    now = datetime.now(UTC)
    what: dict[str, Any] = {"tag": "v7.7.7", "actor": "mallory", "address": "10.66.77.88:1234"}
    events = [
        wire_event(action, "hidden/app", **what, at=now, id=action) for action in ("push", "pull")
    ]
    deliver(stores, envelope(*events), now=now)
    return stores


def test_every_query_that_pages_send_is_explained_and_no_value_is_shown(
    run: Run, filled: Stores, config: Path
) -> None:
    result = run("check", "--explain", "--json")

    found = rows(result)
    assert (result.status, result.err) == (0, "")
    assert {row["level"] for row in found} <= {"ok", "not told"}, "there are two events"
    told = [row for row in found if row["is_told"]]
    assert not told or any("position_1" in row["indexes"] for row in told)
    assert not any(secret in result.out for secret in SECRETS)

    asked = {(row["collection"], row["method"]) for row in found}
    wanted = {
        (collection, method)
        for collection, method in read_table(PAGE.read_text("utf-8"))
        if method.startswith(READERS) and method not in WRITES
    }
    assert wanted <= asked
    assert any(collection == "migration_jobs" for collection, _ in asked)


def test_an_empty_database_has_nothing_to_look_at(run: Run) -> None:
    result = run("check", "--explain")

    assert result.status == 0
    assert "rns demo" in result.out


def test_one_does_not_wait_for_events_meanwhile(run: Run) -> None:
    assert run("check", "--explain", "--wait", "5").status == 2


class Refusing:
    """A database that answers no explain."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def command(self, *_: Any, **__: Any) -> Any:
        raise self._error


@pytest.mark.parametrize(
    ("error", "is_too_slow", "refusal"),
    [
        (ExecutionTimeout("operation exceeded time limit", 50), True, ""),
        (OperationFailure("not authorized on registry", 13), False, "refused with code 13"),
    ],
)
def test_what_is_not_explained_is_said(error: Any, is_too_slow: bool, refusal: str) -> None:
    query = SentQuery(
        collection="events",
        method="EventStore.find",
        fields=("_id",),
        sort=(),
        is_counted=False,
        command={"find": "events"},
    )

    plan = explain(Refusing(error), query)  # type: ignore[arg-type]

    assert (plan.is_told, plan.is_too_slow, plan.refusal) == (False, is_too_slow, refusal)
