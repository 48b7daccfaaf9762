"""Sizes of 2 GB, of 2^62 and of more than MongoDB can add up: everywhere where a size is shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import (
    IMAGE,
    INDEX,
    PASSWORDS,
    basic,
    csrf_token,
    deliver,
    digest,
    envelope,
    wire_event,
)
from flask.testing import FlaskClient
from pymongo.database import Database

from app import create_app
from app.rules.sizes import MAX_CONTENT_SIZE, MAX_SIZE
from app.settings import MongoDB, Registry, Server, Settings
from app.store import Stores

pytestmark = pytest.mark.wire

GB2 = 2**31
LARGE = 2**62
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
Get = Callable[..., Any]


@pytest.fixture
def large_stores(wire_database: Database[Any]) -> Stores:
    made = Stores(wire_database)
    made.ensure_indexes()
    made.accounts.add("admin", PASSWORDS["admin"], {})
    return made


@pytest.fixture
def client(large_stores: Stores, tmp_path: Path) -> FlaskClient:
    settings = Settings(
        server=Server(metrics_token="t" * 32),
        mongodb=MongoDB(uri="mongodb://unused", data_dir=str(tmp_path / "data")),
        registries=[Registry(token="token")],
    )
    client = create_app(settings, large_stores).test_client()
    form = {"username": "admin", "password": PASSWORDS["admin"]}
    token = csrf_token(client.get("/login").text)
    assert client.post("/login", data={**form, "csrf_token": token}).status_code == 303
    return client


def layers(*sizes: int) -> list[dict[str, Any]]:
    return [
        {"mediaType": "application/octet-stream", "digest": digest(f"{size} {n}"), "size": size}
        for n, size in enumerate(sizes)
    ]


def push(stores: Stores, tag: str, at: datetime, *sizes: int, **fields: Any) -> None:
    fields = {"references": layers(*sizes), **fields}
    event = wire_event("push", tag=tag, of=tag, at=at, **fields)
    deliver(stores, envelope(event), "default", at)


@pytest.fixture
def pushed(large_stores: Stores) -> list[int]:
    """Tags whose sizes are as given, pushed 100 days ago, one of them an index of two others."""
    at = NOW - 100 * DAY
    push(large_stores, "gb2", at, GB2)
    push(large_stores, "one", at, LARGE, size=LARGE)
    push(large_stores, "three", at, LARGE, LARGE, LARGE)
    children = [
        {"mediaType": IMAGE, "digest": digest(of), "size": LARGE} for of in ("one", "three")
    ]
    push(large_stores, "all", at, media_type=INDEX, references=children)
    push(large_stores, "alive", NOW - DAY, 1)
    return [GB2, LARGE, MAX_SIZE, MAX_SIZE]


def close(stores: Stores) -> None:
    for day in stores.days.find_open_days(NOW):
        stores.days.close_day(day)


def test_records_tell_sizes_as_they_came(client: FlaskClient, pushed: list[int]) -> None:
    query = "/api/v1/records?tag=one"

    [row] = client.get(query).json["items"]
    [line] = client.get(f"{query}&format=ndjson").text.splitlines()
    csv = client.get(f"{query}&format=csv").text

    assert (row["size"], row["content_size"]) == (LARGE, MAX_CONTENT_SIZE)
    assert json.loads(line) == row
    assert f",{LARGE},{MAX_CONTENT_SIZE}," in csv


@pytest.mark.parametrize("is_closed", [False, True])
def test_figures_add_up_what_they_can_hold(
    client: FlaskClient, large_stores: Stores, pushed: list[int], is_closed: bool
) -> None:
    if is_closed:
        close(large_stores)
    day = (NOW - 100 * DAY).date()
    query = f"from={day}&to={day}"

    for more in ("", "&repository=team/app", "&tag=three"):
        totals = client.get(f"/api/v1/usage?{query}{more}").json["totals"]
        few = 1 if "tag" in more else 2
        assert totals["bytes_pushed"] >= few * MAX_CONTENT_SIZE
        assert totals["bytes_pushed"] < MAX_SIZE
        assert client.get(f"/analysis/?{query}{more}").status_code == 200
        assert client.get(f"/api/v1/usage?{query}{more}&format=csv").status_code == 200


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_day_of_more_bytes_than_a_number_can_hold_is_closed_and_read(
    client: FlaskClient,
    large_stores: Stores,
    monkeypatch: pytest.MonkeyPatch,
    is_closed: bool,
) -> None:
    monkeypatch.setattr("app.rules.events.MAX_CONTENT_SIZE", LARGE)
    at = NOW - 5 * DAY
    for number in range(3):
        push(large_stores, "v1", at + number * DAY, LARGE)
        for more in range(1, 4):
            # Once more under the same name, and under another.
            tag = "v1" if more < 3 else "v2"
            push(large_stores, tag, at + number * DAY + timedelta(hours=more), LARGE)
    if is_closed:
        close(large_stores)
        assert large_stores.days.find_open_days(NOW) == []

    answer = client.get("/api/v1/usage").json["totals"]

    assert (answer["pushes"], answer["bytes_pushed"]) == (12, MAX_SIZE)
    assert client.get("/analysis/").status_code == 200


def test_tags_and_unused_tags_have_their_sizes(
    client: FlaskClient, large_stores: Stores, pushed: list[int]
) -> None:
    close(large_stores)
    names = ["gb2", "one", "three", "all"]

    tags = client.get("/api/v1/tags").json["items"]
    unused = client.get("/api/v1/unused?days=30").json

    sizes = {row["tag"]: row["size"] for row in tags}
    assert [sizes[name] for name in names] == pushed
    assert {row["tag"]: row["size"] for row in unused["items"]} == dict(
        zip(names, pushed, strict=True)
    )
    assert unused["freed"] == MAX_SIZE
    storage = client.get("/api/v1/storage").json
    assert storage["size"] == storage["items"][0]["size"] == MAX_SIZE
    assert (storage["came"], storage["items"][0]["came"]) == (1, 1)
    assert client.get("/api/v1/storage?days=365").json["came"] == MAX_SIZE
    for format in ("csv", "ndjson"):
        for path in ("/api/v1/tags?", "/api/v1/unused?days=30&"):
            text = client.get(f"{path}format={format}").text
            assert str(MAX_SIZE) in text
            assert str(GB2) in text


@pytest.mark.parametrize(
    "path",
    [
        "/search/user/repo/login/",
        "/search/repository?repository=team/app",
        "/search/tag?repository=team/app&tag=three",
        f"/search/digest?digest={digest('all')}",
        "/analysis/user/login/",
        "/analysis/unused?days=30",
        "/analysis/storage?days=365",
        f"/analysis/recall?digest={digest('one')}",
    ],
)
def test_pages_show_them(client: FlaskClient, pushed: list[int], path: str) -> None:
    assert client.get(path).status_code == 200


def test_the_api_takes_a_password_for_them_as_well(client: FlaskClient, pushed: list[int]) -> None:
    answer = client.application.test_client().get("/api/v1/tags?total=1", headers=basic("admin"))

    assert answer.json["total"] == 5
    assert (
        client.get("/metrics", headers={"Authorization": f"Bearer {'t' * 32}"}).status_code == 200
    )
