"""POST /events against a real database."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from builders import envelope, wire_event
from pymongo.database import Database

from app import create_app
from app.notifications import intake
from app.settings import MongoDB, Settings
from app.store import Stores

pytestmark = pytest.mark.wire


def test_an_envelope_that_takes_long_to_read_is_not_refused_for_it(
    wire_database: Database[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mongodb = MongoDB(uri="mongodb://unused", data_dir=str(tmp_path / "data"))
    stores = Stores(wire_database)
    client = create_app(Settings(mongodb=mongodb), stores).test_client()
    parse = intake.parse_envelope

    def slowly(*arguments: Any) -> Any:
        time.sleep(1)
        return parse(*arguments)

    monkeypatch.setattr(intake, "parse_envelope", slowly)

    response = client.post(
        "/events", data=envelope(wire_event(tag="v1")), content_type="application/json"
    )

    assert response.status_code == 202
    assert len(stores.inbox.find_oldest(2, 2**20)) == 1
