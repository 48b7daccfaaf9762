"""A server on a database of another schema, older or newer."""

from __future__ import annotations

import signal
import threading
from typing import Any
from unittest.mock import Mock

import pytest
from builders import PASSWORDS, basic, leave_version_0_1
from test_server import arbiter, hooks

from app.analysis.summaries import Closer
from app.errors import StartupError, StoreUnavailable
from app.server.preparation import prepare
from app.settings import Settings
from app.store import Stores
from app.store.schema import NEWEST

__all__ = ["hooks"]


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
