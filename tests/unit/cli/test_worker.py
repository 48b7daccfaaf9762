"""`rns migrate worker` before it begins."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from app.cli.migrate import work
from app.settings import MongoDB, Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(work, "MOVED_EVERY_S", 0.001)
    (tmp_path / "embedded").mkdir()
    return Settings(mongodb=MongoDB(uri="embedded", data_dir=str(tmp_path)))


def test_a_worker_waits_for_the_server_whose_database_it_takes(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    places = [None, None, "mongodb://127.0.0.1:1"]
    monkeypatch.setattr(work, "running_uri", lambda data_dir: places.pop(0))

    assert work.find_server(threading.Event(), settings)

    assert places == []
    assert caplog.text.count("waiting for rns serve") == 1


def test_a_worker_that_waits_ends_by_a_signal(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "running_uri", lambda data_dir: None)
    ended = threading.Event()
    ended.set()

    assert not work.find_server(ended, settings)


def test_a_worker_without_any_database_does_not_wait(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "embedded").rmdir()

    assert work.find_server(threading.Event(), settings)
