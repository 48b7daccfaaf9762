"""What gunicorn's master and workers do around the application."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from app import server
from app.errors import StoreUnavailable
from app.server import Hooks, prepare
from app.settings import Server, Settings
from app.store import Stores


@pytest.fixture
def hooks(
    settings: Settings, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Hooks]:
    """Hooks that touch neither this process's signals nor its log."""
    monkeypatch.setattr("signal.signal", Mock())
    monkeypatch.setattr("logging.config.dictConfig", Mock())
    monkeypatch.setattr(server, "Closer", Mock())
    monkeypatch.setattr(server, "connect", lambda settings: mock_stores)
    monkeypatch.setattr(server, "PREPARE_PAUSE_S", 0.001)
    listening = msgspec.structs.replace(settings, server=Server(bind="127.0.0.1:0"))
    return lambda **changes: Hooks(msgspec.structs.replace(listening, **changes))


def test_a_database_that_answers_after_the_start_is_prepared_then(
    hooks: Any, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    ensure = Mock(side_effect=[StoreUnavailable("away")] * 3 + [None])
    monkeypatch.setattr(mock_stores, "ensure_indexes", ensure)
    master = hooks()

    master.on_starting(Mock())
    before = capsys.readouterr().out
    master.post_worker_init(Mock())
    for thread in threading.enumerate():
        if thread.name == "preparer":
            thread.join(5)

    assert before == ""
    assert capsys.readouterr().out.count("Password:") == 1
    assert mock_stores.accounts.find("admin")
    assert ensure.call_count == 4


def test_of_processes_that_prepare_at_once_one_prints_a_password(
    settings: Settings, mock_stores: Stores, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    add = mock_stores.accounts.add

    def add_while_another_one_prepares(*arguments: Any) -> bool:
        monkeypatch.setattr(mock_stores.accounts, "add", add)
        prepare(mock_stores, settings)
        return add(*arguments)

    monkeypatch.setattr(mock_stores.accounts, "add", add_while_another_one_prepares)
    prepare(mock_stores, settings)
    prepare(mock_stores, settings)

    printed = capsys.readouterr().out
    password = printed.split("Password:")[1].split()[0]
    assert printed.count("Password:") == 1
    assert mock_stores.accounts.sign_in("admin", password)
