"""A primary that steps down and a network that is cut: nothing is lost, and nothing doubled."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from builders import envelope, rule, wire_event
from pymongo import MongoClient, common
from recount import Recount, differing, tag_states
from traffic import deliver, live
from wire_proxy import Fault, WireProxy

from app import create_app
from app.notifications.projector import Projector, ProjectorThread
from app.rules.events import parse_envelope
from app.settings import MongoDB, Settings
from app.store import SERVER_SELECTION_TIMEOUT_MS, Stores, connect
from app.store.events import RecordQuery

pytestmark = pytest.mark.wire

SECONDS = 1.5  # of the registry's life
FAULTS = 12  # besides those of
LONG_S = 0.9  # in which every command fails: longer than a registry is to wait
CAUTIOUS = {"w": "majority", "j": True}


@pytest.fixture
def proxy(wire_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[WireProxy]:
    monkeypatch.setattr(common, "MIN_HEARTBEAT_INTERVAL", 0.02)  # half a second after each fault
    made = WireProxy(wire_uri)
    yield made
    made.close()


@pytest.fixture
def settings(proxy: WireProxy, wire_client: MongoClient[Any], tmp_path: Path) -> Iterator[Settings]:
    """Of a server whose URI asks for less than a 202 promises."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    uri = f"{proxy.uri}&w=1&journal=false&readConcernLevel=local&readPreference=nearest"
    yield Settings(mongodb=MongoDB(uri=uri, database=name, data_dir=str(tmp_path / "data")))
    wire_client.drop_database(name)


@pytest.fixture
def failing(settings: Settings) -> Iterator[Stores]:
    with closing(connect(settings)) as stores:
        stores.ensure_indexes()
        yield stores


def sender(settings: Settings, stores: Stores) -> Any:
    """POSTs an envelope as a registry does; returns the answer."""
    client = create_app(settings, stores).test_client()
    return lambda *events: client.post(
        "/events", data=envelope(*events), content_type="application/json"
    )


@pytest.mark.parametrize("fault", get_args(Fault))
def test_whatever_fails_all_that_was_acknowledged_is_on_record_once(
    proxy: WireProxy,
    settings: Settings,
    failing: Stores,
    wire_client: MongoClient[Any],
    fault: Fault,
) -> None:
    chance = random.Random(fault)
    happened = list(live(chance, SECONDS))
    arrivals = [event for _, event in deliver(happened, chance)]
    post = sender(settings, failing)
    projector = ProjectorThread(lambda: Projector(failing))
    until = time.monotonic() + 60
    refused = 0
    projector.start()

    for number, event in enumerate(arrivals):
        if number % (len(arrivals) // FAULTS) == 0:
            strikes = iter([fault] * chance.choice([1, 1, 3]))
            proxy.weather = lambda command, strikes=strikes: next(strikes, None)
        if number == len(arrivals) // 2:
            over = time.monotonic() + LONG_S
            proxy.weather = lambda command, over=over: fault if time.monotonic() < over else None
        while (answer := post(event)).status_code != 202:
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            assert time.monotonic() < until
            refused += 1
    proxy.weather = lambda command: None
    while failing.inbox.find_oldest(1, 1):
        assert time.monotonic() < until
        time.sleep(0.05)
    projector.stop()
    projector.join()

    assert proxy.faults >= FAULTS
    assert refused > 0
    sent = json.dumps({"events": [event for _, _, event in happened]}).encode()
    recount = Recount(parse_envelope(sent, "default", datetime.now(UTC)).events)
    scope = failing.catalogue.find_scope(rule())
    rows = failing.events.find_page(RecordQuery(parts=True), scope, limit=2 * len(happened)).items
    folds = {row.id: (row.part_of, row.parent, row.tag, row.tag_from) for row in rows}
    assert len(rows) == len(folds)
    assert differing(folds, recount.folds) == {}
    tags = wire_client[settings.mongodb.database]["tags"].find()
    assert differing(tag_states(tags), recount.tags) == {}


def test_during_an_election_a_sender_is_put_off_in_time_and_taken_in_afterwards(
    proxy: WireProxy, settings: Settings, failing: Stores
) -> None:
    post = sender(settings, failing)
    event = wire_event(tag="v1")
    proxy.has_primary = False

    began = time.monotonic()
    during = post(event)
    took = time.monotonic() - began
    proxy.has_primary = True
    after = post(event)

    assert (during.status_code, during.headers["Retry-After"]) == (503, "1")
    assert took < SERVER_SELECTION_TIMEOUT_MS / 1000  # that of a page; the machine may be slow
    assert after.status_code == 202
    assert len(failing.inbox.find_oldest(9, 2**20)) == 1


def test_an_election_that_is_over_in_time_is_not_noticed(
    proxy: WireProxy, settings: Settings, failing: Stores
) -> None:
    strikes = iter(["not primary", "stepped down", "lost"])
    proxy.weather = lambda command: next(strikes, None) if command == "insert" else None  # type: ignore[return-value]

    assert sender(settings, failing)(wire_event(tag="v1")).status_code == 202
    assert next(strikes, None) is None
    assert len(failing.inbox.find_oldest(9, 2**20)) == 1


def test_what_a_majority_did_not_confirm_is_not_acknowledged(
    proxy: WireProxy, settings: Settings, failing: Stores
) -> None:
    proxy.weather = lambda command: "unsure" if command == "insert" else None

    assert sender(settings, failing)(wire_event(tag="v1")).status_code == 503


def test_a_majority_keeps_all_that_is_written_and_read_whatever_the_uri_says(
    proxy: WireProxy, settings: Settings, failing: Stores
) -> None:
    sender(settings, failing)(wire_event(tag="v1"))
    Projector(failing).drain()

    writes = [body for body in proxy.seen if {"insert", "update", "delete"} & body.keys()]
    reads = [body for body in proxy.seen if {"find", "aggregate"} & body.keys()]
    assert {"inbox", "events", "tags", "leases"} <= {next(iter(body.values())) for body in writes}
    for body in writes:
        assert {key: body["writeConcern"][key] for key in CAUTIOUS} == CAUTIOUS
    assert {body["readConcern"]["level"] for body in reads} == {"majority"}
    assert not any("$readPreference" in body for body in reads)  # of another than the primary


def test_single_writes_are_retried_on_a_replica_set_and_not_on_the_embedded_database(
    proxy: WireProxy, settings: Settings, failing: Stores, wire_uri: str
) -> None:
    embedded = wire_uri.replace(wire_uri.split("@")[-1].split("/")[0], proxy.address)
    with closing(connect(settings, embedded)) as stores:
        for each in (failing, stores):
            each.inbox.add("default", b"{}", datetime.now(UTC))

    inserts = [body for body in proxy.seen if body.get("insert") == "inbox"]
    assert ["txnNumber" in body for body in inserts] == [True, False]
