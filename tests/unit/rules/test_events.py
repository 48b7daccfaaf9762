"""What registries send, and what becomes of it: recorded events, written ones and any others."""

from __future__ import annotations

import collections
import copy
import json
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from app.errors import InvalidEnvelope, InvalidEvent
from app.rules.envelopes import MAX_REPAIRED_BYTES
from app.rules.events import (
    ACTIONS,
    INT64_MAX,
    MAX_EVENTS,
    MAX_REFERENCES,
    MAX_REJECTED_CHARACTERS,
    Descriptor,
    Envelope,
    Event,
    Kept,
    Platform,
    Rejected,
    event_key,
    join_events,
    parse_envelope,
    parse_timestamp,
    position_at,
)
from app.rules.kinds import KINDS, MANIFEST_TYPES
from app.rules.text import clean_text

DATA = Path(__file__).parents[2] / "data"
NOW = datetime(2026, 11, 28, 18, 0, 0, 123456, tzinfo=UTC)
HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"
CHILD = f"sha256:{HEX[::-1]}"
OCI = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
HELM_CONFIG = "application/vnd.cncf.helm.config.v1+json"
BLOB = "application/octet-stream"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CACHE_CONFIG = "application/vnd.buildkit.cacheconfig.v0"
ABSENT = object()


def make_wire_event(**changes: Any) -> dict[str, Any]:
    """A push; `target__tag="v2"` changes a part of it and ABSENT takes it out."""
    event: dict[str, Any] = {
        "id": "event-1",
        "timestamp": "2026-11-23T17:53:28.855807344Z",
        "action": "push",
        "target": {
            "mediaType": OCI,
            "digest": DIGEST,
            "size": 706,
            "length": 706,
            "repository": "team/app",
            "url": f"http://registry.example:5000/v2/team/app/manifests/{DIGEST}",
            "tag": "v1",
        },
        "request": {
            "id": "request-1",
            "addr": "10.0.0.1:46938",
            "host": "registry.example:5000",
            "method": "PUT",
            "useragent": "docker/27.3.1 go/go1.22.7",
        },
        "actor": {"name": "alice"},
        "source": {"addr": "node:5000", "instanceID": "instance-1"},
    }
    for path, value in changes.items():
        *sections, key = path.split("__")
        part = event
        for section in sections:
            part = part[section]
        if value is ABSENT:
            del part[key]
        else:
            part[key] = value
    return event


def make_body(*events: Any) -> bytes:
    return json.dumps({"events": list(events)}).encode()


def parse(*events: Any, registry: str = "default") -> Envelope:
    return parse_envelope(make_body(*events), registry, NOW)


def parse_one(**changes: Any) -> Event:
    envelope = parse(make_wire_event(**changes))
    assert (envelope.rejected, envelope.ignored) == ([], 0)
    return envelope.events[0]


def reason_of(**changes: Any) -> str:
    """Why this event is rejected."""
    envelope = parse(make_wire_event(**changes))
    assert (envelope.events, envelope.ignored) == ([], 0)
    return envelope.rejected[0].reason


def is_ignored(**changes: Any) -> bool:
    return parse(make_wire_event(**changes)) == Envelope([], [], ignored=1)


def real_world() -> dict[str, dict[str, Any]]:
    """Events that people reported, as cases by their id; `<now>` is the time of sending."""
    text = (DATA / "real-world.jsonl").read_text().replace("<now>", NOW.isoformat())
    return {case["id"]: case for case in map(json.loads, text.splitlines())}


def recorded(name: str) -> list[dict[str, Any]]:
    """The recorded events of a file, each under its `case` if it has one."""
    rows = [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]
    return [row.get("envelope") or row["body"] for row in rows]


RECORDED_ENVELOPES = [
    *recorded("registry-2.8.3"),
    *recorded("registry-2.8.2-cases"),
    *recorded("registry-3.1"),
]
REAL_WORLD = real_world()
RECORDED_EVENTS = [event for envelope in RECORDED_ENVELOPES for event in envelope["events"]]


# Recorded from real registries


@pytest.mark.parametrize(
    ("name", "ignored", "counts"),
    [
        (
            "registry-2.8.3",
            8,
            {
                ("push", "image"): 4,
                ("push", "index"): 1,
                ("pull", "image"): 3,
                ("pull", "index"): 1,
                ("check", "image"): 1,
                ("delete", "image"): 4,
                ("mount", "blob"): 1,
            },
        ),
        (
            "registry-2.8.2-cases",
            25,
            {
                ("push", "image"): 33,
                ("push", "index"): 5,
                ("push", "chart"): 2,
                ("push", "signature"): 1,
                ("pull", "image"): 14,
                ("pull", "index"): 7,
                ("check", "image"): 3,
                ("delete", "image"): 9,
                ("mount", "blob"): 2,
            },
        ),
        (
            "registry-3.1",
            76,
            {
                ("push", "image"): 19,
                ("push", "index"): 3,
                ("push", "chart"): 1,
                ("push", "sbom"): 1,
                ("push", "signature"): 1,
                ("pull", "image"): 15,
                ("pull", "index"): 2,
                ("check", "image"): 2,
                ("check", "index"): 1,
                ("delete", "image"): 9,
                ("mount", "blob"): 1,
            },
        ),
    ],
    ids=["2.8.3", "2.8.2", "3.1"],
)
def test_every_recorded_event_is_understood(
    name: str, ignored: int, counts: dict[tuple[str, str], int]
) -> None:
    envelopes = [
        parse_envelope(json.dumps(body).encode(), "default", NOW) for body in recorded(name)
    ]

    assert [rejected for envelope in envelopes for rejected in envelope.rejected] == []
    assert sum(envelope.ignored for envelope in envelopes) == ignored
    assert counts == collections.Counter(
        (event.action, event.kind) for envelope in envelopes for event in envelope.events
    )


def test_all_recorded_events_in_one_envelope_are_the_same_events() -> None:
    apart = [parse(event) for event in RECORDED_EVENTS]

    together = parse(*RECORDED_EVENTS)

    assert together.events == [event for envelope in apart for event in envelope.events]
    assert together.ignored == 33 + 76


def test_a_recorded_push_is_kept_whole() -> None:
    wire = next(
        event
        for event in RECORDED_EVENTS
        if event["target"].get("tag") == "dlist" and event["action"] == "push"
    )

    assert parse(wire).events == [
        Event(
            id=wire["id"],
            registry="default",
            action="push",
            namespace="team",
            repository="team/multi",
            tag="dlist",
            tag_from="event",
            digest="sha256:3799ebe3a8248b012a08bd9052d810d9501cf7a70534157ae2b5f8522035beb3",
            media_type=DOCKER_LIST,
            kind="index",
            size=964,
            content_size=964,
            actor="",
            address="127.0.0.1",
            client="other",
            user_agent="python-requests/2.34.2",
            timestamp=datetime.fromisoformat(wire["timestamp"][:23] + "Z"),
            position=f"{wire['timestamp']}-{wire['id']}",
            received_at=NOW.replace(microsecond=123000),
            source="registry-node:5701",
            instance=wire["source"]["instanceID"],
            request_id=wire["request"]["id"],
            host=wire["request"]["host"],
            references=(
                Descriptor(
                    "sha256:2fa4b0cf7a06a0b9634835aa44d26d65f4862ea32a47a3dfe9bdc7b58efc9cb6",
                    734,
                    DOCKER,
                ),
                Descriptor(
                    "sha256:f27ba545868c4d8e3dc99d630cbc24233048a6eea7b2f9d9585a3555cbc880cd",
                    734,
                    DOCKER,
                ),
                Descriptor(
                    "sha256:adbe3dbece81dd157fa94022def9a2c34f03fe48c5a6815c7c4bfc2549df834e",
                    734,
                    DOCKER,
                ),
            ),
        )
    ]


def test_a_recorded_redelivery_is_the_same_event() -> None:
    slow = [event for event in RECORDED_EVENTS if event["target"].get("tag") == "slow1"]

    events = [parse(event).events[0] for event in slow]

    assert events == [events[0]] * 3


# Reported by people


def parse_case(case: str) -> Envelope:
    given = REAL_WORLD[case]["input"]
    body = given["body"] if "body" in given else given["steps"][0]["body"]
    return parse_envelope(json.dumps(body).encode(), "default", NOW)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("big-records", {"content_size": 2**31, "size": 528}),
        ("ua-docker28", {"client": "docker"}),
        ("ua-jib", {"client": "builder"}),
        ("ua-diun", {"client": "updater"}),
        ("ua-ok0", {"client": "containerd"}),
        ("ua-ok2", {"client": "cri-o"}),
        ("ua-ok4", {"client": "crane"}),
        ("ua-ok6", {"client": "docker"}),
        (
            "gitlab-rename",
            {
                "action": "rename",
                "repository": "root/proj-new/img",
                "from_repository": "root/proj/img",
            },
        ),
        (
            "gitlab-usertype",
            {"actor": "root", "timestamp": datetime(2026, 11, 27, 3, 45, 54, 173000, tzinfo=UTC)},
        ),
        ("acr-bare", {"action": "push", "repository": "hello-world", "tag": "v1", "actor": ""}),
        ("k-provenance", {"kind": "attestation"}),
        ("k-cosign-bundle", {"kind": "signature"}),
        ("k-plugin", {"kind": "plugin"}),
        ("k-helm", {"kind": "chart"}),
        ("k-sif", {"kind": "artifact"}),
        ("old-date", {"tag": "latest", "media_type": SCHEMA1}),
        ("tag-in-url", {"tag": "latest", "size": 528}),
        ("null-tag", {"tag": None, "actor": "alice"}),
        ("null-actor", {"tag": "1", "actor": ""}),
        ("a-port", {"address": "192.0.2.1"}),
        ("a-v6", {"address": "2001:db8::1"}),
        ("a-unix", {"address": "@"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_event_that_was_reported_is_understood(case: str, expected: dict[str, Any]) -> None:
    envelope = parse_case(case)

    (event,) = envelope.events
    assert {name: getattr(event, name) for name in expected} == expected
    assert (envelope.rejected, envelope.ignored) == ([], 0)


def test_a_layer_does_not_become_the_image_of_a_tag() -> None:
    envelope = parse_case("layer-url")

    assert [(event.id, event.tag) for event in envelope.events] == [("fx0", "latest")]
    assert (envelope.rejected, envelope.ignored) == ([], 1)


def test_an_index_in_an_index_has_its_own_size() -> None:
    sizes = [(event.kind, event.content_size) for event in parse_case("size-nested").events]

    assert sizes == [("image", 7528), ("index", 528), ("index", 528)]


# Actions


@pytest.mark.parametrize(
    ("action", "method", "expected"),
    [
        ("push", "PUT", "push"),
        ("pull", "GET", "pull"),
        ("pull", "HEAD", "check"),
        ("pull", "head", "check"),
        ("pull", "", "pull"),
        ("push", "HEAD", "push"),
        ("delete", "DELETE", "delete"),
        ("mount", "POST", "mount"),
    ],
)
def test_a_pull_by_head_is_a_check(action: str, method: str, expected: str) -> None:
    assert parse_one(action=action, request__method=method).action == expected


@pytest.mark.parametrize("action", ["", "PUSH", "pulled", "check", "repo:delete", "x" * 99])
def test_an_unknown_action_is_rejected(action: str) -> None:
    assert reason_of(action=action) == (
        f"action: expected push, pull, mount, delete or rename, got {action[:40]!r}"
    )


def test_a_mount_says_where_the_blob_came_from() -> None:
    event = parse_one(
        action="mount",
        target__mediaType=BLOB,
        target__tag=ABSENT,
        target__url=f"http://r/v2/team/app/blobs/{DIGEST}",
        target__fromRepository="other/x/y",
    )

    assert (event.action, event.kind, event.tag) == ("mount", "blob", None)
    assert (event.repository, event.from_repository) == ("team/app", "other/x/y")


def test_a_mount_of_which_no_media_type_is_told_is_of_a_blob() -> None:
    assert parse_one(action="mount", target={"repository": "a", "digest": DIGEST}).kind == "blob"


def test_a_mount_of_a_manifest_has_the_kind_of_the_manifest() -> None:
    assert parse_one(action="mount", target__mediaType=OCI_INDEX).kind == "index"


@pytest.mark.parametrize(
    ("target", "digest", "tag"),
    [
        ({"repository": "team/app", "digest": DIGEST}, DIGEST, None),
        ({"repository": "team/app", "tag": "v1"}, None, "v1"),
        ({"repository": "team/app"}, None, None),
    ],
    ids=["digest", "tag", "repository"],
)
def test_a_delete_needs_neither_digest_nor_tag(
    target: dict[str, str], digest: str | None, tag: str | None
) -> None:
    event = parse_one(action="delete", target=target, request__method="DELETE")

    assert (event.action, event.digest, event.tag) == ("delete", digest, tag)
    assert (event.media_type, event.size, event.references) == ("", None, ())


@pytest.mark.parametrize("action", ["push", "pull", "mount"])
@pytest.mark.parametrize("digest", [ABSENT, ""], ids=["absent", "empty"])
def test_what_is_no_delete_needs_a_digest(action: str, digest: object) -> None:
    reason = reason_of(action=action, target__digest=digest, target__url=ABSENT)

    assert reason == f"target.digest: is missing from a {action}"


def test_a_check_needs_a_digest() -> None:
    reason = reason_of(action="pull", request__method="HEAD", target__digest=ABSENT)

    assert reason == "target.digest: is missing from a check"


@pytest.mark.parametrize(
    ("kind", "old", "new", "namespace"),
    [
        pytest.param("name", "root/proj", "root/other", "root", id="a project's path"),
        pytest.param("namespace", "old/proj", "a/b/proj", "a/b", id="a project's namespace"),
        pytest.param("", "team", "other", "", id="a kind that is not told"),
    ],
)
def test_a_rename_has_the_new_name_and_the_old_one(
    kind: str, old: str, new: str, namespace: str
) -> None:
    renaming = {"type": kind, "from": old, "to": new}
    target = {"repository": old, "rename": renaming, "digest": DIGEST, "mediaType": BLOB}

    event = parse_one(action="rename", request__method="PATCH", target=target)

    assert (event.action, event.repository, event.namespace) == ("rename", new, namespace)
    assert event.from_repository == old
    assert (event.tag, event.tag_from, event.digest, event.content_size) == (None,) * 4


@pytest.mark.parametrize(
    ("renaming", "reason"),
    [
        pytest.param(ABSENT, "target.rename: is missing from a rename", id="absent"),
        pytest.param(None, "target.rename: is missing from a rename", id="null"),
        pytest.param(
            {"from": "a"},
            "not an event: Object missing required field `to` - at `$.target.rename`",
            id="without the new name",
        ),
        pytest.param({"from": "A", "to": "b"}, "not a repository name: 'A'", id="wrong old name"),
        pytest.param({"from": "a", "to": "B"}, "not a repository name: 'B'", id="wrong new name"),
    ],
)
def test_a_rename_without_two_names_is_rejected(renaming: object, reason: str) -> None:
    target = {"repository": "a", "rename": renaming}
    if renaming is ABSENT:
        del target["rename"]

    assert reason_of(action="rename", target=target) == reason


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"target": {}}, id="an empty target"),
        pytest.param({"target": ABSENT}, id="no target"),
        pytest.param({"target": None, "request": None, "actor": {"name": None}}, id="nulls"),
        pytest.param({"id": "", "timestamp": ""}, id="no id and no time"),
        pytest.param({}, id="the target of a push"),
    ],
)
def test_a_ping_is_ignored(changes: dict[str, Any]) -> None:
    assert is_ignored(action="ping", **changes)


# Blobs


@pytest.mark.parametrize("action", ["push", "pull"])
@pytest.mark.parametrize(
    "target",
    [
        {"mediaType": BLOB, "url": f"http://r/v2/a/blobs/{DIGEST}", "digest": DIGEST},
        {"mediaType": BLOB, "digest": DIGEST},
        {"mediaType": OCI, "url": f"http://r/v2/a/blobs/{DIGEST}", "digest": DIGEST},
        {"url": f"http://r/v2/a/blobs/{DIGEST}?ns=x", "digest": DIGEST},
        {"mediaType": LAYER},
        {"mediaType": LAYER, "url": f"http://r/v2/a/manifests/{DIGEST}", "digest": DIGEST},
        {"mediaType": LAYER, "url": "http://r/v2/a/manifests/latest", "digest": DIGEST},
        {"mediaType": LAYER, "tag": "latest", "digest": DIGEST},
        {"mediaType": OCI_CONFIG, "url": "http://r/v2/a/manifests/latest", "digest": DIGEST},
    ],
    ids=[
        "usual",
        "no url",
        "manifest stored as blob",
        "no media type",
        "layer type",
        "layer type at the digest of a manifest",
        "layer type at a tag",
        "layer type with a tag",
        "config type at a tag",
    ],
)
def test_a_blob_is_ignored_and_counted(action: str, target: dict[str, Any]) -> None:
    assert is_ignored(action=action, target={"repository": "a"} | target)


def test_a_blob_check_is_ignored() -> None:
    assert is_ignored(
        action="pull",
        request__method="HEAD",
        target={"mediaType": BLOB, "url": f"http://r/v2/a/blobs/{DIGEST}"},
    )


def test_a_blob_is_ignored_whatever_else_is_wrong_with_it() -> None:
    assert is_ignored(id="", timestamp="", target={"mediaType": BLOB, "repository": "NO"})


@pytest.mark.parametrize(
    "target",
    [
        {"url": f"http://r/v2/a/manifests/{DIGEST}", "mediaType": BLOB},
        {"mediaType": "application/x-unknown", "tag": "v1"},
        {},
        {"url": "nonsense", "mediaType": OCI},
    ],
    ids=["url of a manifest", "tag", "nothing known", "manifest type"],
)
def test_what_may_be_a_manifest_is_no_blob(target: dict[str, Any]) -> None:
    event = parse_one(target={"repository": "a", "digest": DIGEST} | target)

    assert event.kind == "image"


@pytest.mark.parametrize("media_type", [BLOB, LAYER])
def test_a_delete_by_digest_may_be_of_a_blob_and_is_kept(media_type: str) -> None:
    target = {"repository": "a", "digest": DIGEST, "mediaType": media_type}

    assert parse_one(action="delete", target=target).digest == DIGEST


# Kinds


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        pytest.param({"target__mediaType": OCI_INDEX}, "index", id="the manifest's"),
        pytest.param(
            {"target__artifactType": "application/spdx+json"}, "sbom", id="the artifact's"
        ),
        pytest.param(
            {"target__references": [{"digest": CHILD, "mediaType": HELM_CONFIG}]},
            "chart",
            id="the config's",
        ),
        pytest.param(
            {
                "target__references": [
                    {"digest": CHILD, "mediaType": OCI_CONFIG},
                    {"digest": DIGEST, "mediaType": "application/vnd.in-toto+json"},
                ]
            },
            "attestation",
            id="a layer's",
        ),
        pytest.param({"target__tag": f"sha256-{HEX}.sig"}, "signature", id="none: the tag does"),
    ],
)
def test_whose_media_type_tells_the_kind(changes: dict[str, Any], kind: str) -> None:
    assert parse_one(**changes).kind == kind


@pytest.mark.parametrize("media_type", sorted(MANIFEST_TYPES))
def test_every_media_type_of_a_manifest_is_recorded(media_type: str) -> None:
    event = parse_one(target__mediaType=media_type, target__url=ABSENT, target__tag=ABSENT)

    assert event.media_type == media_type


# Names, tags, digests


@pytest.mark.parametrize(
    ("repository", "namespace"),
    [("ubuntu", ""), ("team/app", "team"), ("a/b/c/d", "a/b/c"), ("n" * 255, "")],
    ids=["one part", "two", "four", "longest"],
)
def test_a_repository_has_one_or_more_parts(repository: str, namespace: str) -> None:
    event = parse_one(target__repository=repository)

    assert (event.repository, event.namespace) == (repository, namespace)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"target__repository": ""}, "not a repository name: ''"),
        ({"target__repository": "Team/app"}, "not a repository name: 'Team/app'"),
        ({"target__repository": "n" * 256}, f"not a repository name: {'n' * 80!r}"),
        ({"target__fromRepository": "a//b"}, "not a repository name: 'a//b'"),
        ({"target__tag": "t" * 129}, f"not a tag: {'t' * 80!r}"),
        ({"target__tag": "a b"}, "not a tag: 'a b'"),
        ({"target__tag": "a\x1b[0m"}, "not a tag: 'a\\x1b[0m'"),
        ({"target__digest": "sha256:abc"}, "not a digest: 'sha256:abc'"),
        ({"target__references": [{"digest": "x"}]}, "not a digest: 'x'"),
    ],
    ids=["empty", "upper case", "long", "from", "long tag", "tag", "escape", "digest", "reference"],
)
def test_a_name_outside_the_grammar_is_rejected(change: dict[str, Any], reason: str) -> None:
    assert reason_of(**change) == reason


@pytest.mark.parametrize(
    ("url", "tag"),
    [
        ("http://r:5000/v2/team/app/manifests/v2", "v2"),
        ("http://r:5000/v2/team/app/manifests/v2?ns=docker.io", "v2"),
        ("/v2/manifests/manifests/v2", "v2"),
        (f"http://r:5000/v2/team/app/manifests/{DIGEST}", None),
        ("http://r:5000/v2/team/app/manifests/", None),
        ("", None),
    ],
    ids=["tag", "query", "relative", "digest", "nothing", "no url"],
)
def test_before_2_4_the_tag_is_only_in_the_url(url: str, tag: str | None) -> None:
    event = parse_one(target__tag=ABSENT, target__url=url)

    assert (event.tag, event.tag_from) == (tag, "event" if tag else None)


def test_the_tag_of_the_event_goes_before_that_of_the_url() -> None:
    event = parse_one(target__tag="v1", target__url="http://r/v2/team/app/manifests/v2")

    assert event.tag == "v1"


@pytest.mark.parametrize(
    ("registry", "key"), [("default", "event-1"), ("eu", "eu:event-1")], ids=["default", "other"]
)
def test_another_registry_puts_its_name_before_the_id(registry: str, key: str) -> None:
    event = parse(make_wire_event(), registry=registry).events[0]

    assert (event.registry, event.id) == (registry, key)
    assert event.position == f"2026-11-23T17:53:28.855807344Z-{key}"
    assert event_key(registry, "event-1") == key


@pytest.mark.parametrize(
    "event_id",
    ["", "i" * 256, "a\nb", "a\x00", "a\u202eb"],
    ids=["empty", "long", "line end", "null", "bidi"],
)
def test_an_id_that_is_no_key_is_rejected(event_id: str) -> None:
    assert reason_of(id=event_id) == "id: empty, unprintable or longer than 255 characters"


@pytest.mark.parametrize("event_id", ["1", "i" * 255, "a b", "\u4e8b\u4ef6"])
def test_an_id_may_be_any_printable_text(event_id: str) -> None:
    assert parse_one(id=event_id).id == event_id


# Who and from where


@pytest.mark.parametrize("part", ["actor", "request", "source"])
@pytest.mark.parametrize("value", [ABSENT, None, {}], ids=["absent", "null", "empty"])
def test_actor_request_and_source_may_be_missing(part: str, value: object) -> None:
    whole, event = parse_one(), parse_one(**{part: value})

    missing = {
        "actor": {"actor": ""},
        "request": dict.fromkeys(("request_id", "address", "user_agent", "host"), "")
        | {"client": "other"},
        "source": {"source": "", "instance": ""},
    }[part]
    assert event == msgspec.structs.replace(whole, **missing)


_OPTIONAL = [
    "request__id",
    "request__addr",
    "request__host",
    "request__method",
    "request__useragent",
    "actor__name",
    "source__addr",
    "source__instanceID",
    "target__mediaType",
    "target__size",
    "target__length",
    "target__tag",
    "target__url",
    "target__references",
]


@pytest.mark.parametrize("path", _OPTIONAL)
def test_null_in_an_optional_field_is_the_same_as_none(path: str) -> None:
    whole = make_wire_event(target__references=[{"digest": CHILD, "size": 7}])
    section, field = path.split("__")
    null = whole | {section: whole[section] | {field: None}}
    none = whole | {section: {k: v for k, v in whole[section].items() if k != field}}

    assert parse(null).events == parse(none).events
    assert (len(parse(null).events), parse(null).rejected) == (1, [])


def test_fields_that_most_events_lack_may_be_null() -> None:
    event = parse_one(
        target__fromRepository=None, target__artifactType=None, target__rename=None, x=None
    )

    assert event == parse_one()


def test_null_in_a_reference_is_the_same_as_none() -> None:
    platform = {"os": "linux", "architecture": None, "variant": None}
    child = {"digest": CHILD, "size": None, "mediaType": None, "annotations": None}

    event = parse_one(target__references=[child | {"platform": platform}, child])

    assert event.references == (
        Descriptor(CHILD, platform=Platform("linux")),
        Descriptor(CHILD),
    )


@pytest.mark.parametrize("field", ["id", "timestamp", "action"])
def test_null_in_a_required_field_is_rejected(field: str) -> None:
    reason = f"not an event: Object missing required field `{field}`"

    assert reason_of(**{field: None}) == reason


def test_null_in_the_digest_of_a_delete_is_none() -> None:
    assert parse_one(action="delete", target__digest=None).digest is None


@pytest.mark.parametrize("deep", ["[" * 600 + "]" * 600, '{"":' * 600 + "0" + "}" * 600])
def test_nulls_beside_something_deep_are_the_same_as_none(deep: str) -> None:
    event = json.dumps(make_wire_event(actor__name=None))
    body = f'{{"events":[{event[:-1]},"y":{deep}}}]}}'.encode()

    assert parse_envelope(body, "default", NOW).events == [parse_one(actor__name=ABSENT)]


def test_a_field_that_is_not_known_is_passed_over() -> None:
    event = make_wire_event(target__subject={"digest": 5}, actor={"name": "alice", "uid": 7})

    assert parse(event | {"version": 3}).events == [parse_one()]


def test_the_address_is_that_of_the_client_alone() -> None:
    assert parse_one(request__addr="[2001:DB8::1]:46938, 10.0.0.1").address == "2001:db8::1"


def test_the_client_class_comes_from_the_user_agent() -> None:
    event = parse_one(request__useragent="\x00podman/5.3.1")

    assert (event.client, event.user_agent) == ("podman", "podman/5.3.1")


@pytest.mark.parametrize(
    ("path", "field", "limit"),
    [
        ("request__useragent", "user_agent", 512),
        ("request__id", "request_id", 255),
        ("actor__name", "actor", 255),
        ("source__addr", "source", 255),
        ("source__instanceID", "instance", 255),
        ("target__mediaType", "media_type", 255),
    ],
)
def test_long_text_is_cut(path: str, field: str, limit: int) -> None:
    for text in ("x" * 100_000, "\u4f60" * 100_000):
        event = parse_one(**{path: text})

        assert getattr(event, field) == text[:limit]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("alice", "alice"),
        ("a\x00l\x1b[31mi\r\nc\x7fe\x9b", "al[31mice"),
        ("a\u202el\u2066i\u200ec\u200fe\u061c", "alice"),
        ("a\u200bl\u200di\ufeffc\u00ade", "alice"),
        ("al\u2028ic\u2029e", "alice"),
        ("al\U000e0041ice", "alice"),
        ("\u827e\u4e3d\u7d72 \u00c5sa \U0001f600", "\u827e\u4e3d\u7d72 \u00c5sa \U0001f600"),
        ("\u202e" * 300, ""),
    ],
    ids=[
        "plain",
        "control",
        "bidi",
        "invisible",
        "line ends",
        "tags",
        "other scripts",
        "only bidi",
    ],
)
def test_what_cannot_be_seen_is_taken_out_of_text(text: str, shown: str) -> None:
    event = parse_one(actor__name=text, request__useragent=text, source__addr=text)

    assert (event.actor, event.user_agent, event.source) == (shown, shown, shown)


@pytest.mark.parametrize(
    "text", ["a\ud800b", "\udfff", "\ud83d\ud83d\ude00", "\\\ud800"], ids=ascii
)
def test_half_a_surrogate_pair_does_not_stop_an_event(text: str) -> None:
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    envelope = parse(make_wire_event(actor__name=text), make_wire_event(id="2"))

    assert [event.actor for event in envelope.events] == [whole, "alice"]


def test_half_a_surrogate_pair_does_not_become_a_name() -> None:
    assert reason_of(target__repository="te\ud800am/app").startswith("not a repository name: ")


def test_an_escaped_backslash_before_u_is_no_surrogate() -> None:
    body = make_body(make_wire_event(actor__name="\\ud800"), make_wire_event(actor__name="\ud800"))

    events = parse_envelope(body, "default", NOW).events

    assert [event.actor for event in events] == ["\\ud800", "\ufffd"]


def test_clean_text_leaves_nothing_that_is_unshown() -> None:
    every = "".join(map(chr, range(0x110000)))

    kept = clean_text(every, 0x110000)

    assert {unicodedata.category(c) for c in kept}.isdisjoint({"Cc", "Cf", "Cs", "Zl", "Zp"})
    assert len(kept) == sum(
        unicodedata.category(c) not in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in every
    )


# Times


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("2026-11-23T17:53:28.855807344Z", "2026-11-23T17:53:28.855807344Z"),
        ("2026-11-23T17:53:28Z", "2026-11-23T17:53:28.000000000Z"),
        ("2026-11-23T17:53:28.1Z", "2026-11-23T17:53:28.100000000Z"),
        ("2026-11-23T17:53:28.000000001Z", "2026-11-23T17:53:28.000000001Z"),
        ("2026-11-23T17:53:28.9999999999Z", "2026-11-23T17:53:28.999999999Z"),
        ("2026-11-23T17:53:28.5+01:00", "2026-11-23T16:53:28.500000000Z"),
        ("2026-11-23T17:53:28.5-09:30", "2026-11-24T03:23:28.500000000Z"),
        ("2026-01-01T00:00:00+14:00", "2025-12-31T10:00:00.000000000Z"),
        ("2026-01-01T00:00:00+23:59", "2025-12-31T00:01:00.000000000Z"),
        ("2026-01-01T00:00:00-23:59", "2026-01-01T23:59:00.000000000Z"),
        ("2026-01-01T00:00:00-00:00", "2026-01-01T00:00:00.000000000Z"),
        ("2026-11-23t17:53:28z", "2026-11-23T17:53:28.000000000Z"),
        ("2026-11-23 17:53:28Z", "2026-11-23T17:53:28.000000000Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000000000Z"),
    ],
)
def test_a_time_is_kept_in_milliseconds_and_in_fixed_width(text: str, fixed: str) -> None:
    event = parse_one(timestamp=text)

    assert event.position == f"{fixed}-event-1"
    assert event.timestamp == datetime.fromisoformat(f"{fixed[:23]}Z")
    assert event.timestamp.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-11-23",
        "2026-11-23T17:53:28",
        "2026-11-23T17:53Z",
        "2026-11-23T17:53:28.Z",
        "2026-11-23T17:53:28,5Z",
        "2026-11-23T17:53:28+0100",
        "2026-11-23T17:53:28Z\n",
        " 2026-11-23T17:53:28Z",
        "+2026-11-23T17:53:28Z",
        "12026-11-23T17:53:28Z",
        "\N{FULLWIDTH DIGIT TWO}026-11-23T17:53:28Z",
        "2" * 1000,
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_what_is_no_rfc_3339_time_is_rejected(text: str) -> None:
    assert reason_of(timestamp=text) == f"timestamp: not RFC 3339: {text[:40]!r}"


@pytest.mark.parametrize(
    "text",
    [
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00-00:60",
        "2026-01-01T00:00:00+99:99",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
    ],
)
def test_a_time_that_does_not_exist_is_rejected(text: str) -> None:
    assert reason_of(timestamp=text) == f"timestamp: no such time: {text!r}"


@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        ("0001-01-01T00:00:00Z", False),  # Go's zero time
        ("0001-01-01T00:00:00-00:01", False),
        ("1970-01-01T00:00:07Z", False),  # a host without a clock
        ("2012-12-31T23:59:59.999999999Z", False),
        ("2013-01-01T00:00:00Z", True),
        ("2026-11-29T08:00:00Z", True),  # local time said to be UTC
        ("2026-11-29T18:00:01Z", False),
        ("9999-12-31T23:59:59.999999999Z", False),
        ("9999-12-31T23:59:59.999999999+00:01", False),
    ],
)
def test_a_time_that_only_a_wrong_clock_can_mean_is_rejected(text: str, is_taken: bool) -> None:
    if is_taken:
        assert parse_one(timestamp=text).timestamp == datetime.fromisoformat(text)
    else:
        reason = reason_of(timestamp=text)
        assert reason.startswith(f"timestamp: {parse_timestamp(text)[1][:19]} is before 2013 or ")
        assert reason.endswith("set the clock of the registry's host")


def test_the_time_of_receipt_is_kept_in_milliseconds() -> None:
    assert parse_one().received_at == NOW.replace(microsecond=123000)


_offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda m: timezone(timedelta(minutes=m)))
_moments = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=st.just(UTC)).map(
    lambda moment: moment.replace(microsecond=0)
)


@st.composite
def _instants(draw: st.DrawFn) -> tuple[tuple[datetime, int], str]:
    """A second and its nanoseconds, and the RFC 3339 time that says so at some offset."""
    moment, nanoseconds = draw(_moments), draw(st.integers(0, 999_999_999))
    local = moment.astimezone(draw(_offsets))
    fraction = f".{nanoseconds:09}" if nanoseconds or draw(st.booleans()) else ""
    digits = fraction.rstrip("0") if len(fraction.rstrip("0")) > 1 else fraction
    return (moment, nanoseconds), f"{local.isoformat()[:19]}{digits}{local.isoformat()[19:]}"


@given(first=_instants(), second=_instants())
@example(
    first=((datetime(2026, 1, 1, tzinfo=UTC), 0), "2026-01-01T00:00:00Z"),
    second=((datetime(2026, 1, 1, tzinfo=UTC), 1), "2026-01-01T01:00:00.000000001+01:00"),
)
def test_positions_are_in_the_order_of_time(first: Any, second: Any) -> None:
    (one, one_text), (other, other_text) = first, second

    one_position, other_position = parse_timestamp(one_text)[1], parse_timestamp(other_text)[1]

    assert (one_position < other_position) == (one < other)
    assert (one_position == other_position) == (one == other)
    assert len(one_position) == len("2026-11-23T17:53:28.855807344Z")


@given(moment=st.datetimes(timezones=_offsets | st.just(UTC)), instant=_instants())
def test_position_at_is_the_lower_bound_of_its_moment(moment: datetime, instant: Any) -> None:
    (second, nanoseconds), text = instant
    if not 1 < moment.year < 9999:
        moment = second

    position = f"{parse_timestamp(text)[1]}-event-1"

    exact = (second, nanoseconds)
    bound = (moment.astimezone(UTC).replace(microsecond=0), moment.microsecond * 1000)
    assert (position_at(moment) <= position) == (bound <= exact)


# Sizes and references


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"target__size": 5, "target__length": 7}, 5),
        ({"target__size": 5, "target__length": ABSENT}, 5),
        ({"target__size": ABSENT, "target__length": 7}, 7),
        ({"target__size": None, "target__length": 7}, 7),
        ({"target__size": ABSENT, "target__length": ABSENT}, None),
        ({"target__size": 0, "target__length": 7}, 0),
        ({"target__size": 528.0, "target__length": 7.0}, 528),
        ({"target__size": ABSENT, "target__length": 7.0}, 7),
        ({"target__size": -0.0}, 0),
        ({"target__size": 2**31}, 2**31),
        ({"target__size": 2**62}, 2**62),
        ({"target__size": INT64_MAX}, INT64_MAX),
    ],
    ids=[
        "both",
        "size",
        "length",
        "null",
        "neither",
        "zero",
        "a whole number with a fraction",
        "a whole length with a fraction",
        "minus zero",
        "2 GiB",
        "2^62",
        "largest",
    ],
)
def test_the_size_is_said_as_size_or_length(changes: dict[str, Any], size: int | None) -> None:
    assert parse_one(**changes).size == size


@pytest.mark.parametrize("size", [-1, -1.0, INT64_MAX + 1, 2**64, 2**70, -(2**70), 1e300])
def test_a_size_beyond_int64_is_rejected(size: int) -> None:
    reason = "target.size: not between 0 and 2^63-1"
    at_reference = "target.references[1].size: not between 0 and 2^63-1"
    references = [{"digest": CHILD}, {"digest": CHILD, "size": size}]

    assert reason_of(target__size=size) == reason
    assert reason_of(target__size=ABSENT, target__length=size) == reason
    assert reason_of(target__references=references) == at_reference


@pytest.mark.parametrize("size", ["5", 5.5, 0.1, True, [5]], ids=repr)
def test_a_size_that_is_no_whole_number_is_rejected(size: object) -> None:
    at_reference = reason_of(target__references=[{"digest": CHILD, "size": size}])

    assert reason_of(target__size=size).startswith("not an event: Expected `int | null`, got ")
    assert at_reference.startswith("not an event: Expected `int`, got ")


ENTRIES = [
    {"digest": CHILD, "size": 10, "mediaType": OCI_CONFIG},
    *[{"digest": DIGEST, "size": 700.0, "mediaType": LAYER}] * 3,
]
CACHE_ENTRIES = [*ENTRIES[1:], {"digest": CHILD, "size": 10, "mediaType": CACHE_CONFIG}]


@pytest.mark.parametrize(
    ("changes", "content_size"),
    [
        pytest.param({"target__references": ENTRIES}, 6 + 710, id="config and layer, each once"),
        pytest.param({}, 6, id="the manifest alone where no references are sent"),
        pytest.param(
            {"target__size": ABSENT, "target__references": ENTRIES}, 710, id="without its own size"
        ),
        pytest.param(
            {"target__mediaType": OCI_INDEX, "target__references": [{"digest": CHILD, "size": 9}]},
            6,
            id="an index without its children",
        ),
        pytest.param(
            {"target__mediaType": OCI_INDEX, "target__references": CACHE_ENTRIES},
            6 + 710,
            id="an index of layers with them",
        ),
        pytest.param(
            {"target__references": [{"digest": CHILD, "size": 2**31}]},
            2**31 + 6,
            id="more than 2 GiB",
        ),
        pytest.param(
            {
                "target__references": [
                    {"digest": CHILD, "size": 2**62},
                    {"digest": DIGEST, "size": 1},
                ]
            },
            2**43,
            id="never more than a day's sum can hold",
        ),
        pytest.param(
            {"target__size": 2**62, "target__mediaType": OCI_INDEX}, 2**43, id="nor an index"
        ),
        pytest.param({"action": "pull", "target__references": ENTRIES}, None, id="not of a pull"),
        pytest.param({"action": "delete"}, None, id="not of a delete"),
        pytest.param({"action": "mount"}, None, id="not of a mount"),
    ],
)
def test_a_push_has_the_bytes_of_all_it_names(
    changes: dict[str, Any], content_size: int | None
) -> None:
    event = parse_one(**{"target__size": 6, "target__length": ABSENT, **changes})

    assert event.content_size == content_size


def test_references_are_kept_with_their_platform() -> None:
    event = parse_one(
        target__mediaType=OCI_INDEX,
        target__references=[
            {
                "mediaType": OCI,
                "size": 706,
                "digest": CHILD,
                "annotations": {"a": "b"},
                "urls": ["https://elsewhere.example"],
                "platform": {
                    "architecture": "arm64",
                    "os": "linux",
                    "variant": "v8",
                    "os.version": "10.0.20348.2849",
                    "os.features": ["win32k", "x"],
                    "features": ["sse4"],
                },
            },
            {"digest": DIGEST, "platform": {"os": "win\u202edows" + "x" * 200}},
            {"digest": DIGEST, "platform": None, "mediaType": "\x00a" * 300},
        ],
    )

    assert event.references == (
        Descriptor(CHILD, 706, OCI, Platform("linux", "arm64", "v8")),
        Descriptor(DIGEST, platform=Platform("windows" + "x" * 93)),
        Descriptor(DIGEST, media_type="a" * 255),
    )


@pytest.mark.parametrize("references", [ABSENT, None, []], ids=["absent", "null", "empty"])
def test_references_may_be_missing(references: Any) -> None:
    changes = {} if references is ABSENT else {"target__references": references}

    assert parse_one(**changes).references == ()


@pytest.mark.parametrize(
    "references", [{}, "x", [None], [{}], [{"digest": 1}], [{"digest": DIGEST, "platform": "x"}]]
)
def test_references_of_another_shape_are_rejected(references: Any) -> None:
    assert "target.references" in reason_of(target__references=references)


def test_an_event_with_too_many_references_is_rejected() -> None:
    references = [{"digest": CHILD}] * (MAX_REFERENCES + 1)

    assert len(parse_one(target__references=references[1:]).references) == MAX_REFERENCES
    assert reason_of(target__references=references) == "target.references: more than 10000"


# Envelopes


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"events",
        b"null",
        b"[]",
        b'"events"',
        b"{}",
        b'{"events": null}',
        b'{"events": {}}',
        b'{"Events": []}',
        b'{"events": [',
        b'{"events": [{"id": "1"},]}',
        b'{"events": [{"id": nope}]}',
        b'{"events": [{"id": "\\x"}]}',
        b'{"events": ["\x01"]}',
        b'{"events": []} {"events": []}',
        b"\xff",
        b"\xef\xbb\xbf{}",
        '{"events": []}'.encode("utf-16"),
        b"[" * 100_000,
        b"\x00" * 100,
    ],
    ids=lambda body: ascii(body)[:30],
)
def test_a_body_that_is_no_envelope_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidEnvelope, match=r"^not a notification envelope: "):
        parse_envelope(body, "default", NOW)


def test_the_text_of_all_events_but_the_ignored_ones_is_kept() -> None:
    push, broken = make_wire_event(), {"id": "broken"}
    ping = make_wire_event(action="ping", target={})

    envelope = parse(push, ping, broken)

    assert [json.loads(kept.text) for kept in envelope.kept] == [push, broken]
    assert parse_envelope(join_events(envelope.kept), "default", NOW) == Envelope(
        envelope.events, envelope.rejected, kept=envelope.kept
    )


def test_a_bare_event_is_an_envelope_of_one() -> None:
    body = f" {json.dumps(make_wire_event())}\n".encode()

    event = parse_one()
    assert parse_envelope(body, "default", NOW) == Envelope([event], [], kept=[Kept(body, event)])


def test_a_bare_event_may_lack_what_a_registry_of_its_own_does_not_send() -> None:
    wire = make_wire_event(target__url=ABSENT, request__addr=ABSENT)
    del wire["actor"], wire["source"]

    (event,) = parse_envelope(json.dumps(wire).encode(), "default", NOW).events

    assert (event.repository, event.tag, event.actor, event.address) == ("team/app", "v1", "", "")


def test_a_bare_event_with_half_a_surrogate_pair_is_repaired() -> None:
    body = json.dumps(make_wire_event(actor__name="a\ud800")).encode()

    assert parse_envelope(body, "default", NOW).events == [parse_one(actor__name="a\ufffd")]


def test_a_bare_ping_is_ignored() -> None:
    body = json.dumps(make_wire_event(action="ping", target={})).encode()

    assert parse_envelope(body, "default", NOW) == Envelope([], [], ignored=1)


def test_a_bare_event_that_cannot_be_parsed_is_rejected_whole() -> None:
    body = b'{"action": "chart_push", "id": "1", "timestamp": ""}'

    envelope = parse_envelope(body, "default", NOW)

    assert [rejected.body for rejected in envelope.rejected] == [body.decode()]


def test_what_only_looks_like_a_bare_event_is_no_envelope() -> None:
    with pytest.raises(InvalidEnvelope, match=r"missing required field `events`$"):
        parse_envelope(b'{"type": "PUSH_ARTIFACT", "action": null}', "default", NOW)


@pytest.mark.parametrize(
    "body", [b'{"events":[]}', b' {"x": {"y": [1]}, "events": [ ] }\n', b'{"events":[],"z":"\xff"}']
)
def test_an_envelope_without_events_is_one(body: bytes) -> None:
    assert parse_envelope(body, "default", NOW) == Envelope([], [])


def test_too_many_events_are_refused() -> None:
    body = b'{"events":[' + b",".join([b"1"] * (MAX_EVENTS + 1)) + b"]}"

    with pytest.raises(InvalidEnvelope, match=r"^events: 10001 in one envelope, at most 10000$"):
        parse_envelope(body, "default", NOW)


def test_as_many_events_as_may_be_are_taken() -> None:
    body = b'{"events":[' + b",".join([b"1"] * MAX_EVENTS) + b"]}"

    assert len(parse_envelope(body, "default", NOW).rejected) == MAX_EVENTS


@pytest.mark.parametrize(
    "broken",
    [
        b"null",
        b"1",
        b'"event"',
        b"[]",
        b"{}",
        b'{"id": "2"}',
        b'{"id": 2, "timestamp": "", "action": "push", "target": {}}',
        b'{"id": "2", "timestamp": "", "action": "push", "target": null}',
        b'{"id": "2", "timestamp": "", "action": "push", "target": {"tag": []}}',
        b'{"id": "\xff\xfe", "timestamp": "", "action": "push", "target": {}}',
        b'{"id": "\\ud800", "timestamp": "", "action": "push", "target": {}}',
        b'{"id": "2", "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"id": "2", "deep": ' + b'{"a":[' * 20_000 + b"]}" * 20_000 + b"}",
        b'{"id": "2", "number": ' + b"9" * 10_000 + b"}",
        b'{"id": "2", "timestamp": "", "action": "push", "target": {"size": 1e999}}',
        b'{"id": "2", "long": "' + b"x" * 1_000_000 + b'"}',
    ],
    ids=lambda broken: ascii(broken)[:40] + str(len(broken)),
)
def test_a_broken_event_leaves_its_neighbours(broken: bytes) -> None:
    first = json.dumps(make_wire_event(id="1")).encode()
    last = json.dumps(make_wire_event(id="3")).encode()
    body = b'{"events":[' + b",".join([first, broken, last]) + b"]}"

    envelope = parse_envelope(body, "default", NOW)

    assert [event.id for event in envelope.events] == ["1", "3"]
    assert (len(envelope.rejected), envelope.ignored) == (1, 0)


@pytest.mark.parametrize(
    "deep",
    [
        "[" * 5000 + "]" * 5000,
        '{"":' * 5000 + "0" + "}" * 5000,
        '[{"":"\\"]}"},' * 2000 + "0" + "]" * 2000,
    ],
)
def test_what_is_nested_deeply_in_an_unknown_field_does_not_matter(deep: str) -> None:
    event = json.dumps(make_wire_event())
    body = f'{{"x":{deep},"events":[{event[:-1]},"y":{deep}}},{event}]}}'.encode()

    assert parse_envelope(body, "default", NOW).events == [parse_one(), parse_one()]


def test_a_large_envelope_that_is_nested_too_deeply_is_kept_as_one() -> None:
    body = b'{"events":[' + b"[" * 200_000 + b"]" * 200_000 + b"]}"

    envelope = parse_envelope(body, "default", NOW)

    assert envelope.events == []
    assert [rejected.reason for rejected in envelope.rejected] == ["nested too deeply"]


@pytest.mark.parametrize("piece", [b'\\"', b'"\\', b"\\ud800", b"[{"])
def test_any_body_is_refused_in_a_time_that_grows_as_its_length(piece: bytes) -> None:
    body = piece * (MAX_REPAIRED_BYTES // len(piece))  # where it grew as the square: minutes

    with pytest.raises(InvalidEnvelope):
        parse_envelope(body, "default", NOW)


# Rejected events


def test_a_rejected_event_is_kept_whole_with_the_reason() -> None:
    raw = '{ "id" : "1",\n "name": "\u4f60\\u4f60\\u0000" }'

    envelope = parse_envelope(f'{{"events":[ {raw} ]}}'.encode(), "eu", NOW)

    assert envelope.rejected == [
        Rejected(
            id=envelope.rejected[0].id,
            registry="eu",
            reason="not an event: Object missing required field `timestamp`",
            body=raw,
            received_at=NOW,
        )
    ]


def test_a_rejected_event_is_the_same_on_redelivery() -> None:
    first = parse(make_wire_event(id=""), make_wire_event(id="2")).rejected
    again = parse_envelope(
        make_body(make_wire_event(id="")), "default", NOW + timedelta(1)
    ).rejected
    other = parse(make_wire_event(id="", action="pull")).rejected
    elsewhere = parse(make_wire_event(id=""), registry="eu").rejected

    ids = [rejected[0].id for rejected in (first, again, other, elsewhere)]

    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_two_long_events_that_begin_alike_are_two_rejected_events() -> None:
    filling = "x" * MAX_REJECTED_CHARACTERS

    rejected = parse({"a": filling, "b": 1}, {"a": filling, "b": 2}).rejected

    assert rejected[0].body == rejected[1].body
    assert rejected[0].id != rejected[1].id


@pytest.mark.parametrize("letter", ["x", "\u4f60", "\U0001f600"], ids=["1 byte", "3", "4"])
def test_the_text_of_a_rejected_event_is_cut_in_characters(letter: str) -> None:
    raw = f'{{"a":"{letter * MAX_REJECTED_CHARACTERS}"}}'

    rejected = parse_envelope(f'{{"events":[{raw}]}}'.encode(), "default", NOW).rejected

    assert rejected[0].body == raw[:MAX_REJECTED_CHARACTERS]


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    rejected = parse_envelope(b'{"events":[{"id":"\xff"}]}', "default", NOW).rejected[0]

    assert rejected.body == '{"id":"\ufffd"}'
    assert rejected.reason.startswith("not an event: 'utf-8' codec can't decode byte 0xff")


def test_a_reason_is_bounded_and_shows_nothing_unseen() -> None:
    reason = (
        parse({"id": "1", "timestamp": "t", "action": "\u202e" * 999, "target": {}})
        .rejected[0]
        .reason
    )

    assert reason.isprintable()
    assert len(reason) < 500


# Anything at all

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
_nasty: st.SearchStrategy[Any] = (
    st.sampled_from(
        [
            None,
            True,
            -1,
            2**63,
            2**64,
            1e308,
            "",
            "\x00",
            "\ud800",
            "\u202e\u2066\x1b[0m\r\n",
            "x" * 70_000,
            "\U0001f600" * 600,
            "../..",
            "[::1]:80",
            [],
            {},
            [[[[]]]],
        ]
    )
    | _json
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every part of a JSON value but the whole."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield (*path, key)
        yield from _paths(value[key], (*path, key))


@st.composite
def _mutated_events(draw: st.DrawFn) -> Any:
    """A recorded event with up to three parts replaced, removed or added."""
    event = copy.deepcopy(draw(st.sampled_from(RECORDED_EVENTS)))
    for _ in range(draw(st.integers(1, 3))):
        *path, key = draw(st.sampled_from(sorted(_paths(event), key=repr)))
        part = event
        for step in path:
            part = part[step]
        change = draw(st.sampled_from(["replace", "remove", "add"]))
        if change == "remove":
            del part[key]
        elif change == "replace" or isinstance(part, list):
            part[key] = copy.deepcopy(draw(_nasty))
        else:
            part[draw(st.text())] = copy.deepcopy(draw(_nasty))
        if not event:
            break
    return event


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)


def assert_sound(envelope: Envelope) -> None:
    """Whatever came, what is kept can be stored and shown."""
    for event in envelope.events:
        texts = list(_texts(msgspec.structs.asdict(event)))
        texts += [text for each in event.references for text in _texts(msgspec.to_builtins(each))]
        assert all(len(text) <= 512 for text in texts)
        assert {unicodedata.category(c) for text in texts for c in text}.isdisjoint(
            {"Cc", "Cf", "Cs", "Zl", "Zp"}
        )
        assert event.action in ACTIONS
        assert event.kind in KINDS
        assert event.size is None or 0 <= event.size <= INT64_MAX
    for rejected in envelope.rejected:
        assert len(rejected.id) == 64
        assert rejected.reason.isprintable()
        assert len(rejected.reason) <= 500
        assert len(rejected.body.encode("utf-8")) <= 4 * MAX_REJECTED_CHARACTERS


def parse_or_refuse(body: bytes) -> Envelope:
    try:
        envelope = parse_envelope(body, "eu", NOW)
    except InvalidEnvelope:
        envelope = Envelope([], [])
    assert_sound(envelope)
    return envelope


@given(body=st.binary() | st.binary().map(lambda filling: b'{"events":[' + filling + b"]}"))
@example(body=b'{"events":[{"\xff":1}]}')
def test_any_bytes_are_an_envelope_or_refused(body: bytes) -> None:
    parse_or_refuse(body)


@given(value=_json)
def test_any_json_is_an_envelope_or_refused(value: Any) -> None:
    parse_or_refuse(json.dumps(value).encode())
    parse_or_refuse(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))


@given(values=st.lists(_json, max_size=5))
def test_any_json_as_an_event_ends_up_in_one_place(values: list[Any]) -> None:
    envelope = parse_or_refuse(make_body(*values))

    assert len(envelope.events) + len(envelope.rejected) + envelope.ignored == len(values)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(events=st.lists(_mutated_events(), min_size=1, max_size=4))
def test_every_mutated_event_ends_up_in_one_place(events: list[Any]) -> None:
    body = make_body(*events)
    assume(len(body) <= MAX_REPAIRED_BYTES)  # what is larger is refused where it needs repair

    envelope = parse_or_refuse(body)

    assert len(envelope.events) + len(envelope.rejected) + envelope.ignored == len(events)


@settings(max_examples=300, deadline=None)
@given(
    event=st.sampled_from(RECORDED_EVENTS),
    place=st.integers(0, 2000),
    length=st.integers(0, 8),
    filling=st.binary(max_size=8),
)
def test_a_damaged_body_is_an_envelope_or_refused(
    event: Any, place: int, length: int, filling: bytes
) -> None:
    body = make_body(event, event)

    parse_or_refuse(body[:place] + filling + body[place + length :])


@given(text=st.text(st.characters()), limit=st.integers(0, 600))
def test_clean_text_is_bounded_and_clean_twice_over(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)

    assert len(cleaned) <= limit
    assert cleaned == clean_text(cleaned, limit)
    assert cleaned.encode("utf-8").decode("utf-8") == cleaned


@given(text=st.text(st.characters()) | st.text("0123456789-:.TZ+ "))
def test_any_time_is_understood_or_rejected(text: str) -> None:
    try:
        moment, fixed = parse_timestamp(text)
    except InvalidEvent:
        return

    assert fixed.startswith(moment.replace(tzinfo=None).isoformat(timespec="milliseconds"))
