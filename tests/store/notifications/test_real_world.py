"""What people reported, from the webhook to the API: the lines of tests/data/real-world.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import DATA, basic, digest, time_of, wire_event, work_in
from pymongo.database import Database

from app import create_app
from app.settings import MongoDB, Registry, Settings
from app.store import Stores

pytestmark = pytest.mark.wire

NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
TEXT = (DATA / "real-world.jsonl").read_text().replace("<now>", NOW.isoformat())
CASES: dict[str, dict[str, Any]] = {case["id"]: case for case in map(json.loads, TEXT.splitlines())}
ELSEWHERE = {
    "unused-head-containerd": "tests/store/analysis/test_unused.py: a check by a runtime is use",
    "unused-artifactory": "tests/store/analysis/test_unused.py: a pull by a proxy is use",
    "seq-timeout": "tests/e2e: it takes a real registry that waits too short",
}
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
BLOB = {"media_type": "application/octet-stream"}
GIB_3 = 3 * 2**30
NGINX = "library/nginx"


class World:
    """A server of one registry, and an administrator who asks its API."""

    def __init__(self, stores: Stores, data_dir: Path) -> None:
        self.stores = stores
        stores.accounts.add("admin", "secret-admin", {})
        settings = Settings(
            mongodb=MongoDB(uri="mongodb://unused", data_dir=str(data_dir)),
            registries=[Registry(token="token")],
        )
        self._client = create_app(settings, stores).test_client()

    def send(self, body: Any, content_type: str = "application/json") -> dict[str, int]:
        """Post one envelope or bare event and have it worked in; returns the answer."""
        response = self._client.post(
            "/events",
            data=json.dumps(body),
            headers={"Authorization": "Bearer token", "Content-Type": content_type},
        )
        assert response.status_code == 202
        work_in(self.stores)
        return dict(response.json)

    def send_each(self, events: Iterable[Any]) -> None:
        """Post events, each in an envelope of its own."""
        for event in events:
            self.send({"events": [event]})

    def send_case(self, name: str) -> dict[str, int]:
        """Post what a case says."""
        given = CASES[name]["input"]
        step = given["steps"][0] if "steps" in given else given
        return self.send(step["body"], step.get("content_type", "application/json"))

    def get(self, path: str, **filters: Any) -> Any:
        answer = self._client.get(f"/api/v1/{path}", query_string=filters, headers=basic("admin"))
        assert answer.status_code == 200, answer.text
        return answer.json

    def items(self, path: str, **filters: Any) -> list[dict[str, Any]]:
        return list(self.get(path, **filters)["items"])


@pytest.fixture
def world(wire_database: Database[Any], tmp_path: Path) -> World:
    stores = Stores(wire_database)
    stores.ensure_indexes()
    return World(stores, tmp_path)


def test_every_case_is_tested_here_or_it_is_said_where() -> None:
    here = {*RECORDS, *(name for name, _ in OTHERS)}

    assert here | ELSEWHERE.keys() == CASES.keys()
    assert not here & ELSEWHERE.keys()


# One event, and what is on record of it

RECORDS: dict[str, dict[str, Any]] = {
    "big-records": {"content_size": 2**31, "size": 528, "tag": "1", "action": "push"},
    "ua-docker28": {"client": "docker"},
    "ua-jib": {"client": "builder"},
    "ua-diun": {"client": "updater"},
    "ua-ok0": {"client": "containerd"},
    "ua-ok2": {"client": "cri-o"},
    "ua-ok4": {"client": "crane"},
    "ua-ok6": {"client": "docker"},
    "gitlab-usertype": {"actor": "root", "timestamp": "2026-11-27T03:45:54.173000Z"},
    "acr-bare": {"action": "push", "repository": "hello-world", "tag": "v1", "actor": ""},
    "k-provenance": {"kind": "attestation"},
    "k-cosign-bundle": {"kind": "signature"},
    "k-plugin": {"kind": "plugin"},
    "k-helm": {"kind": "chart"},
    "k-sif": {"kind": "artifact"},
    "tag-in-url": {"tag": "latest", "size": 528},
    "null-tag": {"tag": None, "actor": "alice", "action": "push"},
    "null-actor": {"tag": "1", "actor": "", "action": "push"},
    "a-port": {"address": "192.0.2.1"},
    "a-v6": {"address": "2001:db8::1"},
    "a-unix": {"address": "@"},
}


@pytest.mark.parametrize("case", RECORDS)
def test_an_event_that_was_reported_is_on_record(world: World, case: str) -> None:
    answer = world.send_case(case)

    assert answer == {"accepted": 1, "ignored": 0, "rejected": 0}
    [record] = world.items("records")
    assert {name: record[name] for name in RECORDS[case]} == RECORDS[case]
    if case in ("a-port", "a-v6"):
        assert world.items("records", address=record["address"]) == [record]


# What takes more than one event, or is not about a record


def big_records_page(world: World) -> None:
    world.send_case("big-records")

    assert [row["content_size"] for row in world.items("records", limit=5)] == [2**31]


def big_usage(world: World) -> None:
    layers = [{"mediaType": "l", "size": GIB_3, "digest": digest("layer")}]
    for day in range(1, 6):
        at = NOW - timedelta(days=day)
        world.send_each([wire_event("push", "ml/model", tag=f"{day}", at=at, references=layers)])
    for day in world.stores.days.find_open_days(datetime.now(UTC) + timedelta(minutes=5)):
        world.stores.days.close_day(day)

    assert world.get("usage", days=7)["totals"]["bytes_pushed"] == 5 * (GIB_3 + 500)
    assert [tag["size"] for tag in world.items("tags", q="ml")] == [GIB_3] * 5


def pull_through_a_cache(world: World) -> None:
    world.send_each(
        wire_event("pull", NGINX, tag="1.27", at=NOW + 2 * n * MINUTE, user_agent="containerd/2")
        for n in range(3)
    )


MINUTE = timedelta(minutes=1)


def pullonly_tags(world: World) -> None:
    pull_through_a_cache(world)

    for filters in ({"repository": NGINX}, {"q": "nginx:1.*"}):
        [tag] = world.items("tags", **filters)
        assert (tag["tag"], tag["digest"], tag["seen_by"]) == ("1.27", digest("image"), "pull")
        assert tag["pushed_at"] is None
    [repository] = world.items("repositories")
    assert (repository["repository"], repository["tags"]) == (NGINX, 1)


def pullonly_recall(world: World) -> None:
    pull_through_a_cache(world)

    [consumer] = world.items("recall", repository=NGINX, tag="1.27")
    assert consumer["pulls"] == 3


def gitlab_rename(world: World) -> None:
    before = NOW - timedelta(hours=1)
    world.send_each([wire_event("push", "root/proj/img", tag="v1", at=before)])

    assert world.send_case("gitlab-rename")["accepted"] == 1

    assert [row["repository"] for row in world.items("repositories")] == ["root/proj-new/img"]
    [tag] = world.items("tags")
    assert (tag["repository"], tag["tag"]) == ("root/proj-new/img", "v1")
    history = world.items("history", repository="root/proj-new/img", tag="v1")
    assert [move["digest"] for move in history] == [digest("image")]
    renamed, pushed = world.items("records")
    assert (renamed["action"], renamed["from_repository"]) == ("rename", "root/proj/img")
    assert (pushed["action"], pushed["repository"]) == ("push", "root/proj/img")


def layer_url(world: World) -> None:
    image, layer = CASES["layer-url"]["input"]["body"]["events"]

    answer = world.send_case("layer-url")

    assert answer == {"accepted": 1, "ignored": 1, "rejected": 0}
    assert image["target"]["digest"] != layer["target"]["digest"]
    [tag] = world.items("tags")
    assert (tag["tag"], tag["digest"]) == ("latest", image["target"]["digest"])
    assert [record["id"] for record in world.items("records")] == ["fx0"]


def docs_example(world: World) -> None:
    assert world.send_case("docs-example") == {"accepted": 0, "ignored": 0, "rejected": 1}

    assert world.items("records") == []
    [rejected] = world.stores.rejected.find_all()
    assert rejected.reason == "not a digest: 'sha256:0123456789abcdef0'"


def size_nested(world: World) -> None:
    world.send_case("size-nested")

    [tag] = world.items("tags")
    assert (tag["tag"], tag["size"]) == ("t", 7000)


def old_date(world: World) -> None:
    yesterday = NOW - timedelta(days=1)
    world.send_each([wire_event("push", tag="v1", at=yesterday)])

    world.send_case("old-date")

    [_, record] = world.items("records")
    assert (record["tag"], record["media_type"]) == ("latest", SCHEMA1)
    then = time_of(CASES["old-date"]["input"]["body"]["events"][0]).date()
    settled = datetime.now(UTC) + timedelta(hours=2)
    assert world.stores.days.find_open_days(settled) == [yesterday.date(), then]


def seq_keel(world: World) -> None:
    layers = [f"layer {n}" for n in range(11)]
    world.send_each(
        [
            *(wire_event("check", of=layer, at=NOW, **BLOB) for layer in layers[:9]),
            *(wire_event("push", of=layer, at=NOW + MINUTE, **BLOB) for layer in layers),
            wire_event("push", tag="v1", at=NOW + 2 * MINUTE),
        ]
    )

    assert [(row["action"], row["tag"]) for row in world.items("records", parts=1)] == [
        ("push", "v1")
    ]


def seq_16230(world: World) -> None:
    world.send_each(
        [wire_event("check", tag="foo", at=NOW), wire_event("pull", at=NOW + timedelta(seconds=1))]
    )

    assert [(row["action"], row["tag"]) for row in world.items("records")] == [("pull", "foo")]


def seq_1685(world: World) -> None:
    world.send_each(
        [
            wire_event("push", tag="v1", at=NOW),
            wire_event("push", tag="v2", at=NOW + MINUTE),
            wire_event("delete", at=NOW + 2 * MINUTE),
        ]
    )

    assert world.items("tags") == []
    [record] = world.items("records", action="delete")
    assert record["digest"] == digest("image")


OTHERS = [
    ("big-records-page", big_records_page),
    ("big-usage", big_usage),
    ("pullonly-tags", pullonly_tags),
    ("pullonly-recall", pullonly_recall),
    ("gitlab-rename", gitlab_rename),
    ("layer-url", layer_url),
    ("docs-example", docs_example),
    ("size-nested", size_nested),
    ("old-date", old_date),
    ("seq-keel", seq_keel),
    ("seq-16230", seq_16230),
    ("seq-1685", seq_1685),
]


@pytest.mark.parametrize(("case", "check"), OTHERS, ids=[name for name, _ in OTHERS])
def test_what_was_reported_is_answered_rightly(world: World, case: str, check: Any) -> None:
    check(world)
