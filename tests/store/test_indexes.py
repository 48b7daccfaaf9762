"""Indexes: those of the documents, and whole after a kill in the middle of building one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mongomock
import pytest
from pymongo.database import Database

from app.errors import StartupError
from app.store import Stores
from app.store.sign_ins import KEPT


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


def test_the_documents_say_which_indexes_there_are_and_with_which_options(
    mock_database: Any,
) -> None:
    Stores(mock_database).ensure_indexes()
    made = {
        (name, ", ".join(field for field, _ in index["key"]), options(index))
        for name in mock_database.list_collection_names()
        for index in mock_database[name].index_information().values()
    }
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", page.split("## Indexes")[1], re.MULTILINE)
    told = {
        (name, *re.findall(r"`([\w, ]+)`(?: \(`([^`]+)`)?", index)[0])
        for name, indexes in rows
        for index in indexes.split("; ")
    }

    assert told == {one for one in made if one[1] != "_id"}


@pytest.mark.wire
@pytest.mark.parametrize(
    ("name", "options"),
    [("at_1", {}), ("mine", {"expireAfterSeconds": int(KEPT.total_seconds())})],
    ids=["other options", "another name"],
)
def test_an_index_that_is_in_the_way_of_ours_is_named_at_the_start(
    wire_database: Database[Any], name: str, options: dict[str, Any]
) -> None:
    wire_database["sign_ins"].create_index("at", name=name, **options)

    with pytest.raises(StartupError, match=f"drop the index that is in the way: .*{name}"):
        Stores(wire_database).ensure_indexes()


def options(index: dict[str, Any]) -> str:
    found = {name: index[name] for name in ("expireAfterSeconds", "sparse") if name in index}
    return ", ".join(f"{name}: {str(value).lower()}" for name, value in found.items())


def die(*_: Any, **__: Any) -> None:
    raise Died
