"""The embedded database keeps a part of an index that it was killed over."""

from __future__ import annotations

from typing import Any

import mongomock
import pytest

from app.store import Stores


class Died(BaseException):
    """What a kill -9 is to the code that it stops."""


def names(database: Any) -> dict[str, set[str]]:
    found = {name: database[name].index_information() for name in database.list_collection_names()}
    return {name: set(indexes) - {"_id_"} for name, indexes in found.items() if len(indexes) > 1}


def test_indexes_that_were_being_built_at_a_kill_are_all_built_anew(
    mock_database: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stores = Stores(mock_database, is_embedded=True)
    stores.ensure_indexes()
    whole = names(mock_database)
    mock_database["events"].drop_index("actor_1_position_1")
    mock_database["tags"].create_index("left")  # as the part of one
    with monkeypatch.context() as patch:
        patch.setattr(mongomock.Collection, "create_index", die)
        with pytest.raises(Died):
            stores.ensure_indexes()

    Stores(mock_database, is_embedded=True).ensure_indexes()

    assert names(mock_database) == whole
    assert caplog.text.count("all are built anew") == 1


def test_indexes_that_are_there_are_left_alone(
    mock_database: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Stores(mock_database, is_embedded=True).ensure_indexes()
    mock_database["tags"].create_index("mine")
    monkeypatch.setattr(mongomock.Collection, "create_index", die)

    Stores(mock_database, is_embedded=True).ensure_indexes()

    assert "mine_1" in names(mock_database)["tags"]
    assert caplog.text == ""


def die(*_: Any, **__: Any) -> None:
    raise Died
