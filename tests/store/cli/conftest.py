"""The command line on a wire server."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import PLAN, Result, Run
from pymongo.database import Database

from app.cli import main
from app.store import Stores
from app.store.migrations import MigrationStore


@pytest.fixture
def run(
    wire_uri: str,
    wire_database: Database[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RNS_MONGODB__URI", wire_uri)
    monkeypatch.setenv("RNS_MONGODB__DATABASE", wire_database.name)

    def run(*arguments: str, stdin: str | bytes = "") -> Result:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "argv", ["rns", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        status = 0
        try:
            main()
        except SystemExit as leave:
            status = int(leave.code or 0)
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture
def queue(wire_database: Database[Any]) -> MigrationStore:
    stores = Stores(wire_database)
    stores.ensure_indexes()
    return stores.migrations


@pytest.fixture
def config(tmp_path: Path, run: Run) -> Path:
    file = tmp_path / "config.yml"
    file.write_text(PLAN)
    return file
