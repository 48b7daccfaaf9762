"""From the text a registry sends to events: what is read, what is rejected, what is ignored."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import IMAGE, INDEX, NOW, digest, envelope, recorded_bodies, wire_event
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidEnvelope, InvalidEvent
from app.events import (
    Event,
    client_class,
    parse_address,
    parse_envelope,
    parse_timestamp,
    position_at,
)


def parse(event: Any) -> Event:
    [found] = parse_envelope(envelope(event), "default", NOW).events
    return found


def reason(event: Any) -> str:
    [rejected] = parse_envelope(envelope(event), "default", NOW).rejected
    return rejected.reason


def test_every_recorded_envelope_is_understood() -> None:
    envelopes = [parse_envelope(body, "default", NOW) for body in recorded_bodies()]

    counts = Counter((event.action, event.kind) for one in envelopes for event in one.events)
    assert sum(len(one.rejected) for one in envelopes) == 0
    assert sum(one.ignored for one in envelopes) == 33
    assert counts == {
        ("push", "image"): 37,
        ("push", "index"): 6,
        ("push", "chart"): 2,
        ("push", "signature"): 1,
        ("pull", "image"): 17,
        ("pull", "index"): 8,
        ("check", "image"): 4,
        ("delete", "image"): 13,
        ("mount", "blob"): 3,
    }


def test_all_fields_are_read() -> None:
    event = parse(wire_event("push", tag="v1", id="e", children=["layer"], at=0.123456))

    assert event == Event(
        id="e",
        registry="default",
        action="push",
        namespace="team",
        repository="team/app",
        tag="v1",
        tag_from="event",
        digest=digest("image"),
        media_type=IMAGE,
        kind="artifact",
        size=500,
        actor="alice",
        address="10.0.0.1",
        client="docker",
        user_agent="docker/27.3.1",
        timestamp=datetime(2026, 11, 23, 18, 0, 0, 123000, tzinfo=UTC),
        position="2026-11-23T18:00:00.123456000Z-e",
        received_at=NOW,
        source="node:5000",
        instance="instance",
        request_id="r",
        references=event.references,
    )


def test_another_registrys_ids_are_its_own() -> None:
    [event] = parse_envelope(envelope(wire_event(id="e")), "second", NOW).events

    assert (event.id, event.registry) == ("second:e", "second")


def test_a_tag_may_stand_in_the_url_alone() -> None:
    event = wire_event("push", url="http://r/v2/team/app/manifests/v7")

    assert parse(event).tag == "v7"


@pytest.mark.parametrize("missing", ["actor", "request", "source"])
def test_what_a_registry_leaves_out_is_empty(missing: str) -> None:
    event = wire_event("push", tag="v1")

    assert parse({**event, missing: None}).repository == "team/app"
    del event[missing]
    assert parse(event).repository == "team/app"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": ""}, "id"),
        ({"id": "x" * 256}, "id"),
        ({"id": "a\nb"}, "id"),
        ({"id": 5}, "id"),
        ({"action": "steal"}, "action"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": "2026-02-30T00:00:00Z"}, "timestamp"),
        ({"target": {}}, "repository"),
        ({"target": {"repository": "Team/App"}}, "repository"),
        ({"target": {"repository": "a", "tag": "a b", "digest": digest("a")}}, "tag"),
        ({"target": {"repository": "a", "digest": "md5:1"}}, "digest"),
        ({"target": {"repository": "a"}}, "digest"),
        ({"target": {"repository": "a", "digest": digest("a"), "size": -1}}, "size"),
        ({"target": {"repository": "a", "digest": digest("a"), "size": 2**63}}, "size"),
    ],
)
def test_a_broken_event_is_rejected_with_its_reason(change: dict[str, Any], words: str) -> None:
    assert words in reason({**wire_event("push"), **change})


def test_a_broken_event_leaves_its_neighbours_and_is_the_same_when_it_comes_again() -> None:
    body = envelope(wire_event(id="a"), {"id": "broken"}, wire_event(id="b"))

    first, again = (parse_envelope(body, "default", NOW) for _ in range(2))

    assert [event.id for event in first.events] == ["a", "b"]
    assert json.loads(first.rejected[0].body) == {"id": "broken"}
    assert first.rejected[0].id == again.rejected[0].id


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ({"mediaType": INDEX}, "index"),
        ({"mediaType": "application/vnd.docker.distribution.manifest.list.v2+json"}, "index"),
        ({"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}, "image"),
        ({"mediaType": IMAGE, "artifactType": "application/x"}, "artifact"),
        ({"mediaType": "application/vnd.oci.artifact.manifest.v1+json"}, "artifact"),
        ({"tag": f"sha256-{'a' * 64}.sig"}, "signature"),
        ({"tag": f"sha256-{'a' * 64}.att"}, "attestation"),
        (
            {
                "references": [
                    {"digest": digest("c"), "mediaType": "application/vnd.cncf.helm.config.v1+json"}
                ]
            },
            "chart",
        ),
        (
            {
                "references": [
                    {"digest": digest("c"), "mediaType": "application/vnd.oci.image.config.v1+json"}
                ]
            },
            "image",
        ),
    ],
)
def test_the_kind_follows_from_the_media_types(target: dict[str, Any], kind: str) -> None:
    event = wire_event("push")
    event["target"] |= target

    assert parse(event).kind == kind


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:5000", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("[fd00::1]:5000", "fd00::1"),
        ("[fd00::1]", "fd00::1"),
        ("FD00:0:0::1", "fd00::1"),
        ("[::ffff:10.0.0.1]:1", "10.0.0.1"),
        ("", ""),
        ("unknown", "unknown"),
        ("a\nb", "ab"),
    ],
)
def test_addresses_lose_their_port(text: str, address: str) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "fixed"),
    [
        ("2026-11-23T18:00:00Z", "2026-11-23T18:00:00.000000000Z"),
        ("2026-11-23T18:00:00.1Z", "2026-11-23T18:00:00.100000000Z"),
        ("2026-11-23T18:00:00.123456789Z", "2026-11-23T18:00:00.123456789Z"),
        ("2026-11-23T18:00:00.5+02:00", "2026-11-23T16:00:00.500000000Z"),
        ("2026-11-23T18:00:00-05:30", "2026-11-23T23:30:00.000000000Z"),
    ],
)
def test_times_of_any_offset_become_utc(text: str, fixed: str) -> None:
    assert parse_timestamp(text)[1] == fixed


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2026"])
def test_times_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(InvalidEvent):
        parse_timestamp(text)


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1)), st.data())
def test_positions_compare_as_times_do(moment: datetime, data: st.DataObject) -> None:
    other = moment + timedelta(microseconds=data.draw(st.integers(-(10**6), 10**6)))
    first, second = (when.replace(tzinfo=UTC) for when in (moment, other))

    assert (position_at(first) < position_at(second)) == (first < second)
    assert parse_timestamp(first.isoformat())[1] == position_at(first)


@pytest.mark.parametrize(
    ("user_agent", "client"),
    [
        ("docker/20.10.7 go/go1.13 UpstreamClient(Docker-Client/20.10.7)", "docker"),
        ("containerd/v1.7.22", "containerd"),
        ("cri-o/1.30.4 go/go1.22.5 os/linux", "cri-o"),
        ("containers/5.32.0 (github.com/containers/image)", "podman"),
        ("skopeo/1.9.3", "podman"),
        ("Buildah/1.29", "podman"),
        ("buildkit/v0.16", "buildkit"),
        ("kaniko/v1.23", "kaniko"),
        ("Helm/3.16.1", "helm"),
        ("oras/1.2.0", "oras"),
        ("crane/0.20 go-containerregistry/0.20", "crane"),
        ("trivy/0.56.2", "scanner"),
        ("harbor-registry-client", "mirror"),
        ("gitlab-runner 17.4", "ci"),
        ("Mozilla/5.0", "browser"),
        ("rns-migrate/1.0", "own"),
        ("", "other"),
    ],
)
def test_the_client_class_comes_from_the_user_agent(user_agent: str, client: str) -> None:
    assert client_class(user_agent) == client


def test_text_is_bounded_and_loses_what_cannot_be_shown() -> None:
    event = parse(wire_event(actor="a\x00b\u202ec" + "x" * 999, user_agent="u\r\n" + "y" * 999))

    assert event.actor.startswith("abcx")
    assert (len(event.actor), len(event.user_agent)) == (255, 512)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b'{"events": null}', b'{"events": 5}', b"\xff", b"{"]
)
def test_what_is_no_envelope_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidEnvelope):
        parse_envelope(body, "default", NOW)


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=50)
JSON = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.binary())
def test_any_bytes_give_an_envelope_or_are_refused(body: bytes) -> None:
    try:
        parse_envelope(body, "default", NOW)
    except InvalidEnvelope:
        return


@given(st.lists(JSON | st.fixed_dictionaries({"id": JSON, "target": JSON}), max_size=4))
def test_every_event_ends_up_in_one_place(events: list[Any]) -> None:
    found = parse_envelope(envelope(*events), "default", NOW)

    assert len(found.events) + len(found.rejected) + found.ignored == len(events)


@given(st.data())
def test_a_changed_event_is_stored_clean_or_rejected(data: st.DataObject) -> None:
    event = json.loads(data.draw(st.sampled_from(recorded_bodies())))["events"][0]
    part = data.draw(st.sampled_from([event, event["target"], event["request"], event["source"]]))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(JSON)

    found = parse_envelope(envelope(event), "default", NOW)

    assert len(found.events) + len(found.rejected) + found.ignored == 1
    for kept in found.events:
        for text in (kept.actor, kept.user_agent, kept.address, kept.source, kept.request_id):
            assert len(text.encode()) <= 4 * 512
            assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in text)
