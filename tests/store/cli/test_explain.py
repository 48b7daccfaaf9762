"""`rns check --explain`: each query of the store, and what the database makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from builders import deliver, digest, envelope, wire_event
from command_line import Run, rows
from pymongo.database import Database
from pymongo.errors import ExecutionTimeout, OperationFailure
from routing import PAGE, read_table
from wire_proxy import WireProxy

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
WRITING = {"insert", "update", "delete", "findAndModify", "createIndexes"}
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


@pytest.mark.parametrize("options", [[], ["--explain"]], ids=["check", "explain"])
def test_an_index_that_is_missing_is_named_and_not_made(
    run: Run, filled: Stores, wire_database: Database[Any], options: list[str]
) -> None:
    wire_database["events"].drop_index("digest_1_position_1")

    result = run("check", *options)

    assert result.status == 0
    assert "the index events.digest_1_position_1 is missing: restart the server" in result.out
    assert "digest_1_position_1" not in wire_database["events"].index_information()


def test_how_many_indexes_are_there_is_said_beside_how_many_there_should_be(
    run: Run, filled: Stores, wire_database: Database[Any]
) -> None:
    wire_database["events"].drop_index("digest_1_position_1")

    [(there, wanted)] = re.findall(r"(\d+) of (\d+) indexes", run("check").out)

    assert int(there) == int(wanted) - 1


def test_of_a_database_without_any_index_only_that_is_said(run: Run) -> None:
    assert "no index is there: a server creates them" in run("check", "--explain").out


@pytest.fixture
def read_only(wire_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[WireProxy]:
    """The database of an account that may not write."""
    proxy = WireProxy(wire_uri)
    proxy.weather = lambda command: "not allowed" if command in WRITING else None
    monkeypatch.setenv("RNS_MONGODB__URI", proxy.uri)
    yield proxy
    proxy.close()


def test_an_account_that_may_only_read_is_enough(
    run: Run, filled: Stores, read_only: WireProxy
) -> None:
    result = run("check", "--explain", "--json")

    assert (result.status, result.err) == (0, "")
    assert len(rows(result)) > 100
    assert not WRITING & {next(iter(body)) for body in read_only.seen}


def test_a_refusal_of_the_database_is_no_silence(run: Run, read_only: WireProxy) -> None:
    result = run("accounts", "list")

    assert result.status == 1
    assert result.err == "rns: the database refuses: OperationFailure: Unauthorized\n"


def test_what_several_projectors_ask_is_explained(run: Run, filled: Stores) -> None:
    filled.schema.note()
    filled.schema.set_projectors(4)

    asked = {
        (row["method"], tuple(row["fields"])) for row in rows(run("check", "--explain", "--json"))
    }

    assert ("InboxStore.find_oldest", ("of", "share")) in asked
    assert ("InboxStore.find_common", ("of",)) in asked


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
