"""`rns events` on a wire server."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from builders import envelope, wire_event
from command_line import Run, rows
from pymongo.database import Database

from app.store import Stores
from app.store.migrations import MigrationStore
from app.store.transfer import DUMPED

pytestmark = pytest.mark.wire


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
    database = wire_database.client[other]
    for name in DUMPED:
        there, here = ([*of[name].find().sort("_id")] for of in (wire_database, database))
        if name == "usage_days":  # an event that is stored opens its day
            there, here = ([row["_id"] for row in rows] for rows in (there, here))
        assert here == there
        assert bool(there) == (name not in ("usage", "usage_sums", "inbox")), name
    assert "already there 0" in first.err
    assert second.err.startswith("imported 0,")
    wire_database.client.drop_database(other)


def test_an_export_brings_what_waits_in_the_inbox_too(
    run: Run, wire_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = Stores(wire_database).inbox
    inbox.add("default", envelope(wire_event("push", tag="v1", id="waits")), datetime.now(UTC))
    exported = run("events", "export")
    other = f"{wire_database.name}_b"
    monkeypatch.setenv("RNS_MONGODB__DATABASE", other)

    run("events", "import", stdin=exported.out)

    database = wire_database.client[other]
    assert [row["_id"] for row in database["events"].find()] == ["waits"]
    assert database["inbox"].count_documents({}) == 0
    wire_database.client.drop_database(other)


def test_raw_envelopes_need_a_registry_that_is_configured(
    run: Run, wire_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNS_REGISTRIES__0__NAME", "second")

    result = run("events", "import", stdin=envelope(wire_event("push", tag="v1")).decode())

    assert (result.status, result.err.startswith("rns: line 1: ")) == (1, True)
    assert "--registry" in result.err
    assert wire_database["events"].count_documents({}) == 0


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


@pytest.mark.usefixtures("config")
def test_what_is_imported_or_retried_is_looked_at_as_what_is_sent(
    run: Run, queue: MigrationStore, wire_database: Database[Any]
) -> None:
    run("events", "import", stdin=envelope(wire_event(tag="v1"), wire_event(tag="-")).decode())
    assert [job.reference for job in queue.jobs.find("dc2").items] == ["v1"]

    understood = json.dumps(wire_event(tag="v2"))
    wire_database["rejected_events"].update_one({}, {"$set": {"body": understood}})
    run("events", "rejected", "--retry")

    assert {job.reference for job in queue.jobs.find("dc2").items} == {"v1", "v2"}
