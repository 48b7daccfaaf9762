"""What clients do with a registry, and what the server says happened."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from builders import wire_event
from clients import Account, DockerClient, Item, Skopeo, Webhook
from images import Image
from processes import HOST, Registry, Server, cleaned_up, eventually

pytestmark = pytest.mark.e2e

AsSkopeo = Callable[[str], Skopeo]
AsDocker = Callable[[str], DockerClient]
Build = Callable[[str], Image]

WITHIN_S = 1.0  # what the start page promises
HUGE = "x" * 3_000_000  # together with the rest of an envelope still below the limit of the body


def told(record: Item) -> tuple[Any, ...]:
    """Who did what to which content, and from where."""
    return tuple(record[name] for name in ("action", "tag", "digest", "actor", "address"))


def new_event(**changes: Any) -> Item:
    """A push as a registry sends it, which happened now."""
    return wire_event(id=str(uuid.uuid4()), at=datetime.now(UTC), tag="v1") | changes


@pytest.mark.parametrize("options", [(), ("--format", "v2s2")], ids=["oci", "docker schema 2"])
def test_a_push_and_its_pulls_are_in_the_api_and_on_the_pages_within_a_second(
    server: Server,
    registry: Registry,
    skopeo: AsSkopeo,
    alice: Account,
    build_image: Build,
    repository: str,
    options: tuple[str, ...],
    tmp_path: Any,
) -> None:
    image = build_image(f"single {options}")
    with closing(Account(server, "alice", patient=False)) as hasty:
        skopeo("ci-bot").push(image, f"{repository}:v1", *options)
        eventually(lambda: hasty.records(repository=repository), WITHIN_S, "the push is visible")
        digest = skopeo("alice").inspect(f"{repository}:v1")["Digest"]
        skopeo("alice").pull(f"{repository}:v1", tmp_path / "pulled")
        eventually(
            lambda: len(hasty.records(repository=repository)) >= 3,
            WITHIN_S,
            "the pulls are visible",
        )
    registry.wait_until_delivered()

    pulled = ("pull", "v1", digest, "alice", HOST)
    pushed = ("push", "v1", digest, "ci-bot", HOST)
    assert [told(record) for record in alice.records(repository=repository)] == [
        pulled,
        pulled,
        pushed,
    ]
    (tag,) = alice.tags(repository=repository)
    assert (tag["tag"], tag["digest"], tag["pushed_by"]) == ("v1", digest, "ci-bot")
    (found,) = alice.repositories(q=repository)
    assert (found["repository"], found["tags"]) == (repository, 1)
    short = digest.removeprefix("sha256:")[:12]
    for path, parameters, expected in (
        ("/search/user/login/", {"q": repository}, [repository]),
        ("/search/user/repo/login/", {"q": repository}, [repository, "v1", short, "ci-bot"]),
        ("/analysis/user/login/", {"repository": repository}, [repository, short, "alice", HOST]),
        ("/search/repository", {"repository": repository}, ["v1", short, "ci-bot", "alice", HOST]),
        ("/search/tag", {"repository": repository, "tag": "v1"}, [digest, "ci-bot", "alice", HOST]),
        ("/search/digest", {"digest": digest}, [repository, "v1", "ci-bot", "alice", HOST]),
    ):
        text = alice.read(path, **parameters)
        assert [word for word in expected if word not in text] == [], path


def test_blobs_are_not_recorded(
    registry: Registry, skopeo: AsSkopeo, alice: Account, build_image: Build, repository: str
) -> None:
    image = build_image("blobs")
    skopeo("ci-bot").push(image, f"{repository}:v1")
    skopeo("alice").pull(f"{repository}:v1", image.directory.with_name("pulled"))
    registry.wait_until_delivered()

    records = alice.records(repository=repository, parts=1)

    assert {record["digest"] for record in records} == {image.digest}
    blobs = [path.name for path in (image.directory / "blobs" / "sha256").iterdir()]
    layers = [f"sha256:{name}" for name in blobs if f"sha256:{name}" != image.digest]
    assert len(layers) == 3
    assert [alice.get("/search/digest", digest=layer).status_code for layer in layers] == [404] * 3


def test_an_account_without_rights_sees_nothing_of_the_traffic(
    registry: Registry, skopeo: AsSkopeo, mallory: Account, build_image: Build, repository: str
) -> None:
    image = build_image("secret")
    skopeo("ci-bot").push(image, f"{repository}:v1")
    registry.wait_until_delivered()

    lists = [mallory.items(name) for name in ("records", "tags", "repositories")]
    direct = [
        mallory.get("/search/repository", repository=repository),
        mallory.get("/search/tag", repository=repository, tag="v1"),
        mallory.get("/search/digest", digest=image.digest),
    ]

    assert lists == [[], [], []]
    assert [answer.status_code for answer in direct] == [404, 404, 404]
    assert repository not in mallory.read("/search/") + mallory.read("/analysis/")


def test_a_mounted_layer_is_a_mount_and_nothing_else(
    registry: Registry,
    skopeo: AsSkopeo,
    alice: Account,
    mallory: Account,
    build_image: Build,
    repository: str,
) -> None:
    image = build_image("mounted")
    skopeo("ci-bot").push(image, f"secret/{repository}:v1")
    skopeo("ci-bot").push(image, f"{repository}:v1")
    registry.wait_until_delivered()

    mounts = alice.records(repository=repository, action="mount")
    records = alice.records(repository=repository)

    assert {(mount["kind"], mount["actor"]) for mount in mounts} == {("blob", "ci-bot")}
    assert [told(record) for record in records] == [("push", "v1", image.digest, "ci-bot", HOST)]
    assert f"secret/{repository}" not in json.dumps(mounts), "alice may not see it"
    assert mallory.records(action="mount") == []


def test_a_multi_arch_push_is_one_push_of_the_tag_and_its_pull_one_pull(
    registry: Registry,
    skopeo: AsSkopeo,
    alice: Account,
    build_index: Build,
    repository: str,
    tmp_path: Any,
) -> None:
    index = build_index("multi-arch")
    skopeo("ci-bot").push(index, f"{repository}:v1")
    skopeo("alice").pull(f"{repository}:v1", tmp_path / "pulled")
    registry.wait_until_delivered()

    (push,) = alice.records(repository=repository, action="push")
    (pull,) = alice.records(repository=repository, action="pull")
    everything = alice.records(repository=repository, action="pull", parts=1)

    assert (push["kind"], told(push)) == ("index", ("push", "v1", index.digest, "ci-bot", HOST))
    assert told(pull) == ("pull", "v1", index.digest, "alice", HOST)
    parts = {record["digest"]: record["parent"] for record in everything if record["parent"]}
    assert len(everything) == 3
    assert parts == dict.fromkeys(index.children, index.digest)


@pytest.mark.parametrize("kind", ["image", "index"])
def test_a_docker_pull_is_one_pull_with_its_tag(
    registry: Registry,
    skopeo: AsSkopeo,
    docker: AsDocker,
    alice: Account,
    request: pytest.FixtureRequest,
    repository: str,
    kind: str,
) -> None:
    built: Image = request.getfixturevalue(f"build_{kind}")("docker pull")
    skopeo("ci-bot").push(built, f"{repository}:v1")
    docker("alice").pull(repository, "v1")
    registry.wait_until_delivered()

    records = [record for record in alice.records(repository=repository) if record["tag"]]

    assert [told(record) for record in records] == [
        ("pull", "v1", built.digest, "alice", HOST),
        ("push", "v1", built.digest, "ci-bot", HOST),
    ]
    assert (records[0]["kind"], records[0]["client"]) == (kind, "docker")
    assert len(alice.records(repository=repository, actor="alice")) == 1


def test_a_pull_whose_requests_meet_two_replicas_is_one_pull_with_its_tag(
    server: Server,
    registry: Registry,
    skopeo: AsSkopeo,
    alice: Account,
    build_index: Build,
    repository: str,
    tmp_path: Path,
) -> None:
    index = build_index("two replicas")
    skopeo("ci-bot").push(index, f"{repository}:v1")
    with cleaned_up(Registry(tmp_path / "replica", server, storage=registry.storage)) as replica:
        replica.start()
        with (
            closing(DockerClient(registry, "alice")) as here,
            closing(DockerClient(replica, "alice")) as there,
        ):
            there.get_manifest(repository, here.look_up(repository, "v1"))
            here.get_manifest(repository, index.children[0])
        replica.wait_until_delivered()
    registry.wait_until_delivered()

    (pull,) = alice.records(repository=repository, actor="alice")
    everything = alice.records(repository=repository, actor="alice", parts=1)

    assert told(pull) == ("pull", "v1", index.digest, "alice", HOST)
    assert len(everything) == 3
    assert len({record["instance"] for record in everything}) == 2


def test_pulls_of_several_accounts_at_once_are_told_apart(
    registry: Registry,
    skopeo: AsSkopeo,
    docker: AsDocker,
    alice: Account,
    build_index: Build,
    repository: str,
) -> None:
    index = build_index("together")
    skopeo("ci-bot").push(index, f"{repository}:v1")
    skopeo("ci-bot").push(index, f"{repository}:v2")
    docker("alice").look_up(repository, "v1")
    docker("bob").look_up(repository, "v2")
    docker("alice").get_manifest(repository, index.digest)
    docker("bob").get_manifest(repository, index.digest)
    registry.wait_until_delivered()

    pulls = alice.records(repository=repository, action="pull")

    assert [told(pull) for pull in pulls] == [
        ("pull", "v2", index.digest, "bob", HOST),
        ("pull", "v1", index.digest, "alice", HOST),
    ]


def test_a_lone_look_up_is_a_check_and_no_pull(
    registry: Registry,
    skopeo: AsSkopeo,
    docker: AsDocker,
    alice: Account,
    build_image: Build,
    repository: str,
) -> None:
    image = build_image("check")
    skopeo("ci-bot").push(image, f"{repository}:v1")
    docker("alice").look_up(repository, "v1")
    registry.wait_until_delivered()

    records = alice.records(repository=repository, actor="alice")

    assert [told(record) for record in records] == [("check", "v1", image.digest, "alice", HOST)]


def test_a_tag_that_moves_shows_its_new_digest_and_its_history(
    registry: Registry, skopeo: AsSkopeo, alice: Account, build_image: Build, repository: str
) -> None:
    first, second = build_image("first"), build_image("second")
    skopeo("ci-bot").push(first, f"{repository}:v1")
    skopeo("bob").push(second, f"{repository}:v1")
    registry.wait_until_delivered()

    (tag,) = alice.tags(repository=repository)
    page = alice.read("/search/tag", repository=repository, tag="v1")

    assert (tag["digest"], tag["pushed_by"]) == (second.digest, "bob")
    assert page.index(second.digest) < page.index(" History ")
    moves = page[page.index(" History ") : page.index("Latest records")]
    assert moves.index(second.digest[7:19]) < moves.index(first.digest[7:19])
    assert moves.index("bob") < moves.index("ci-bot")


def test_a_deleted_tag_leaves_the_lists_and_can_still_be_found(
    registry: Registry,
    skopeo: AsSkopeo,
    alice: Account,
    mallory: Account,
    build_image: Build,
    repository: str,
) -> None:
    image, other = build_image("deleted"), build_image("kept")
    skopeo("ci-bot").push(image, f"{repository}:old")
    skopeo("ci-bot").push(other, f"{repository}:new")
    skopeo("bob").delete(f"{repository}:old")
    registry.wait_until_delivered()

    shown = alice.tags(repository=repository)
    everything = alice.tags(repository=repository, deleted=1)
    deletes = alice.records(repository=repository, action="delete")

    assert [tag["tag"] for tag in shown] == ["new"]
    assert [(tag["tag"], tag["deleted"]) for tag in everything] == [("new", False), ("old", True)]
    assert [(delete["actor"], delete["digest"]) for delete in deletes] == [("bob", image.digest)]
    assert "deleted" in alice.read("/search/tag", repository=repository, tag="old")
    assert mallory.tags(deleted=1) == []


def test_the_delete_of_an_image_with_three_tags_is_one_delete(
    registry: Registry, skopeo: AsSkopeo, alice: Account, build_image: Build, repository: str
) -> None:
    image = build_image("three tags")
    for tag in ("v1", "v2", "v3"):
        skopeo("ci-bot").push(image, f"{repository}:{tag}")
    skopeo("bob").delete(f"{repository}:v1")
    registry.wait_until_delivered()

    deletes = alice.records(repository=repository, action="delete")
    parts = alice.records(repository=repository, action="delete", parts=1)

    assert [(delete["actor"], delete["digest"]) for delete in deletes] == [("bob", image.digest)]
    of_tags = {record["tag"] for record in parts if record["part_of"] == deletes[0]["id"]}
    assert of_tags == {"v1", "v2", "v3"}
    assert alice.tags(repository=repository) == []


def test_a_tag_pushed_again_after_its_deletion_is_back(
    registry: Registry, skopeo: AsSkopeo, alice: Account, build_image: Build, repository: str
) -> None:
    image = build_image("back")
    skopeo("ci-bot").push(image, f"{repository}:v1")
    skopeo("ci-bot").delete(f"{repository}:v1")
    skopeo("ci-bot").push(image, f"{repository}:v1")
    registry.wait_until_delivered()

    tags = alice.tags(repository=repository)

    assert [(tag["tag"], tag["digest"], tag["deleted"]) for tag in tags] == [
        ("v1", image.digest, False)
    ]


def with_target(**changes: Any) -> Item:
    """A push with an unusual target."""
    event = new_event()
    event["target"] |= changes
    return event


def nested(depth: int) -> Any:
    value: Any = "core"
    for _ in range(depth):
        value = [value]
    return value


GARBAGE = {
    "null": None,
    "a number": 7,
    "a text": "push",
    "a list": [[]],
    "an empty object": {},
    "an unknown action": new_event(action="explode"),
    "an action that is an object": new_event(action={"$ne": ""}),
    "no id": new_event(id=""),
    "a huge id": new_event(id=HUGE),
    "an id with a line break": new_event(id="a\nb"),
    "no timestamp": new_event(timestamp=None),
    "a timestamp that is none": new_event(timestamp="yesterday"),
    "a timestamp before all times": new_event(timestamp="0001-01-01T00:00:00+23:59"),
    "a repository that breaks the grammar": with_target(repository="Team//App"),
    "a repository that is a query": with_target(repository={"$gt": ""}),
    "a huge repository": with_target(repository=HUGE),
    "a huge tag": with_target(tag=HUGE),
    "a tag with markup": with_target(tag="<script>alert(1)</script>"),
    "a digest that is none": with_target(digest="sha256:short"),
    "a size beyond 64 bits": with_target(size=2**64),
    "a negative size": with_target(size=-1),
    "a reference without digest": with_target(references=[{"size": 1}]),
    "too many references": with_target(
        references=[{"digest": f"sha256:{number:064x}"} for number in range(10_001)]
    ),
    "no target": new_event(target=None),
    "deep nesting": new_event(target=nested(500)),
    "a huge user agent": new_event(request={"useragent": HUGE}),
    "a huge actor": new_event(actor={"name": HUGE}),
    "NUL and marks of direction": new_event(actor={"name": "a\0b\u202ec"}),
    "half a surrogate pair": new_event(actor={"name": "a\ud800b"}),
    "keys that MongoDB reserves": new_event(**{"$where": "1", "a.b": 1, "__proto__": {}}),
}


@pytest.mark.parametrize("event", GARBAGE.values(), ids=GARBAGE.keys())
def test_an_event_is_acknowledged_whatever_it_says(webhook: Webhook, event: Any) -> None:
    neighbour = new_event()

    answer = webhook.post(event, neighbour)

    assert answer.status_code == 202, answer.text
    receipt = answer.json()
    assert sum(receipt.values()) == 2
    assert receipt["accepted"] >= 1
    assert answer.elapsed.total_seconds() < 1.0


def test_the_queue_of_the_registry_moves_on_behind_garbage(
    server: Server,
    registry: Registry,
    webhook: Webhook,
    skopeo: AsSkopeo,
    alice: Account,
    build_image: Build,
    repository: str,
) -> None:
    unknown = new_event(action=f"explode {repository}")
    webhook.post(unknown)
    webhook.post(unknown)
    skopeo("ci-bot").push(build_image("after garbage"), f"{repository}:v1")
    registry.wait_until_delivered()

    assert len(alice.records(repository=repository)) == 1
    lines = server.rns("events", "rejected", "--json").splitlines()
    rejected = [json.loads(line) for line in lines]
    assert len([event for event in rejected if unknown["id"] in event["body"]]) == 1
    assert all(len(event["body"]) <= 64 * 1024 for event in rejected)


def test_an_envelope_that_comes_three_times_counts_once(
    webhook: Webhook, alice: Account, repository: str
) -> None:
    event = with_target(repository=repository)

    receipts = [webhook.post(event).json() for _ in range(3)]

    assert [receipt["accepted"] for receipt in receipts] == [1, 1, 1]
    assert len(alice.records(repository=repository, parts=1)) == 1
