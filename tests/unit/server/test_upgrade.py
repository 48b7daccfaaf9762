"""A server on a database of another schema, older or newer."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest
from builders import PASSWORDS, basic, leave_version_0_1, wire_event
from test_server import arbiter, hooks

from app.analysis.summaries import Closer
from app.errors import StartupError, StoreUnavailable
from app.server.preparation import prepare
from app.server.upgrade import LEASE, bring_forward
from app.settings import Settings
from app.store import Stores
from app.store.schema import NEWEST

__all__ = ["hooks"]
BEARER = {"Authorization": "Bearer registry-token"}
OPEN = ("/healthz", "/readyz", "/metrics", "/events")


def make_newer(stores: Stores) -> None:
    stores.schema.note()
    stores.schema.advance(NEWEST + 1)


def test_a_server_does_not_start_on_a_newer_database_and_writes_nothing(
    hooks: Any, mock_stores: Stores, mock_database: Any, capsys: Any, monkeypatch: Any
) -> None:
    make_newer(mock_stores)
    monkeypatch.setattr(mock_stores, "ensure_indexes", Mock(side_effect=AssertionError))

    with pytest.raises(SystemExit) as leave:
        hooks().on_starting(arbiter())

    assert leave.value.code == 1
    error = capsys.readouterr().err
    assert f"schema {NEWEST + 1}" in error
    assert f"none after {NEWEST}" in error
    assert error.count("\n") == 1
    assert not mock_stores.accounts.has_any()


def test_a_database_that_answers_late_and_is_newer_ends_the_server(
    hooks: Any, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_newer(mock_stores)
    away, note, kill = iter([1, 2]), mock_stores.schema.note, Mock()

    def answer_late() -> int:
        if next(away, None):
            raise StoreUnavailable("away")
        return note()

    monkeypatch.setattr(mock_stores.schema, "note", answer_late)
    monkeypatch.setattr("app.server.hooks.os.kill", kill)
    work_beside = Mock()
    master = hooks()
    monkeypatch.setattr(master, "_work_beside", work_beside)

    master.on_starting(arbiter())
    master.post_worker_init(Mock(age=1))
    for thread in threading.enumerate():
        if thread.name == "preparer":
            thread.join(5)

    assert kill.call_args.args[1] == signal.SIGTERM
    work_beside.assert_not_called()


def preparers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "preparer"]


def test_a_worker_brings_the_database_forward_while_the_port_is_open(
    hooks: Any, mock_stores: Stores, mock_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_version_0_1(mock_database)
    work_beside = Mock()
    master = hooks()
    monkeypatch.setattr(master, "_work_beside", work_beside)

    master.on_starting(arbiter())
    master.worker_exit(Mock(), Mock())  # gunicorn's master calls it, too, where a worker is gone
    before = mock_stores.schema.find()
    master.post_worker_init(Mock(age=1))
    for thread in preparers():
        thread.join(20)

    assert (before, mock_stores.schema.find()) == (1, NEWEST)
    work_beside.assert_called_once_with()


def test_a_worker_that_ends_breaks_the_step_off_and_nobody_waits_for_its_lease(
    hooks: Any, mock_stores: Stores, mock_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_version_0_1(mock_database)
    monkeypatch.setattr("app.store.version_0_1.BULK", 1)
    master = hooks()
    under_way = threading.Event()
    note = mock_stores.schema.note_progress

    def end_meanwhile(progress: Any) -> None:
        note(progress)
        under_way.set()
        assert master._ended.wait(10)

    monkeypatch.setattr(mock_stores.schema, "note_progress", end_meanwhile)
    monkeypatch.setattr(master, "_work_beside", Mock(side_effect=AssertionError))
    master.on_starting(arbiter())
    master.post_worker_init(Mock(age=1))
    assert under_way.wait(10)

    master.worker_exit(Mock(), Mock())

    assert preparers() == []
    assert mock_stores.schema.find() == 1
    assert mock_stores.leases.take(LEASE, "the next server", datetime.now(UTC))


def test_what_goes_wrong_in_a_step_is_logged_and_tried_again(
    hooks: Any,
    mock_stores: Stores,
    mock_database: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    leave_version_0_1(mock_database)
    monkeypatch.setattr("app.server.hooks.COMPLAIN_S", 0.001)
    forward = Mock(side_effect=[KeyError("of"), True])
    monkeypatch.setattr("app.server.preparation.bring_forward", forward)
    master = hooks()
    monkeypatch.setattr(master, "_work_beside", Mock())

    master.on_starting(arbiter())
    master.post_worker_init(Mock(age=1))
    for thread in preparers():
        thread.join(10)

    assert forward.call_count == 2
    assert "cannot be prepared" in caplog.text


def test_while_the_database_is_brought_forward_events_are_kept_and_nothing_is_shown(
    make_app: Any, mock_stores: Stores, mock_database: Any, settings: Settings
) -> None:
    leave_version_0_1(mock_database)
    mock_stores.schema.note()
    mock_stores.accounts.add("admin", PASSWORDS["admin"], {})
    app = make_app()
    client = app.test_client()
    told = f"the database is brought from schema 1 to {NEWEST}"

    ready = client.get("/readyz")
    sent = client.post("/events", json={"events": [wire_event()]}, headers=BEARER)

    assert (ready.status_code, ready.json["reason"]) == (503, told)
    assert client.get("/healthz").status_code == 200
    assert (sent.status_code, mock_stores.inbox.count()) == (202, 1)
    for rule in app.url_map.iter_rules():
        if "GET" in rule.methods and not rule.arguments and rule.rule not in OPEN:
            answer = client.get(rule.rule, headers=basic("admin"))
            assert (answer.status_code, told in answer.text) == (503, True), rule
            assert answer.headers["Retry-After"]
    assert client.get("/api/v1/tags", headers=basic("admin")).json["code"] == "not_ready"

    bring_forward(mock_stores, settings)

    assert client.get("/readyz").status_code == 200
    assert client.get("/api/v1/tags", headers=basic("admin")).status_code == 200
    assert mock_stores.inbox.count() == 0


def test_a_server_that_runs_closes_no_day_of_a_newer_database(mock_stores: Stores) -> None:
    make_newer(mock_stores)

    with pytest.raises(StartupError):
        Closer(lambda: mock_stores).close(mock_stores)


def test_the_pages_of_what_version_0_1_left(
    make_app: Any, mock_stores: Stores, mock_database: Any, settings: Settings
) -> None:
    leave_version_0_1(mock_database)
    prepare(mock_stores, settings)
    mock_stores.accounts.set_password("admin", PASSWORDS["admin"])
    app = make_app()
    client = app.test_client()

    def get(path: str) -> Any:
        return client.get(path, headers=basic("admin"))

    figures = get("/api/v1/usage?from=2026-11-13&to=2026-11-23").json
    assert figures["totals"]["pulls"] == 5  # one of a day whose events are removed
    for rule in app.url_map.iter_rules():
        if "GET" in rule.methods and not rule.arguments:
            assert get(rule.rule).status_code < 500, rule
