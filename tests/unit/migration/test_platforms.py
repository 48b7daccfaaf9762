"""Plans that take some platforms of each index."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from memory_registry import IMAGE, INDEX
from test_migration_jobs import Setting, verify

from app.migration.platforms import select
from app.registry import Manifest

CONFIG = "application/vnd.oci.image.config.v1+json"


def image(setting: Setting, architecture: str, **content: Any) -> Manifest:
    config = json.dumps({"os": "linux", "architecture": architecture}).encode()
    stored = setting.source.add_blob("team/app", config) | {"mediaType": CONFIG}
    layer = setting.source.add_blob("team/app", f"layer of {architecture}".encode())
    fields = {"config": stored, "layers": [layer], **content}
    return setting.source.push_manifest("team/app", "", IMAGE, **fields)


def entry(manifest: Manifest, platform: str = "", of: Manifest | None = None) -> dict[str, Any]:
    os, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    named: dict[str, Any] = {"os": os, "architecture": architecture}
    named |= {"variant": variant} if variant else {}
    return {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.body),
        **({"platform": named} if platform else {}),
        **({"annotations": {"vnd.docker.reference.digest": of.digest}} if of else {}),
    }


def push_index(setting: Setting, tag: str, *entries: dict[str, Any]) -> Manifest:
    return setting.source.push_manifest("team/app", tag, INDEX, manifests=list(entries))


@pytest.fixture
def setting(make: Callable[..., Setting]) -> Setting:
    return make(options={"platforms": ["linux/amd64"]})


def test_an_index_comes_with_the_platforms_that_are_asked_for(setting: Setting) -> None:
    amd64, arm64 = image(setting, "amd64"), image(setting, "arm64")
    provenance, foreign = image(setting, "unknown", annotations={"a": "1"}), image(setting, "x")
    whole = push_index(
        setting,
        "v1",
        entry(amd64, "linux/amd64"),
        entry(arm64, "linux/arm64"),
        entry(provenance, "unknown/unknown", of=amd64),
        entry(foreign, "unknown/unknown", of=arm64),
    )

    setting.wish("v1")
    setting.drain()

    made = setting.target.get_manifest("team/app", "v1")
    assert made.digest != whole.digest
    assert [child.digest for child in made.children] == [amd64.digest, provenance.digest]
    there = set(setting.target.content["team/app"].manifests)
    assert there == {made.digest, amd64.digest, provenance.digest}
    assert setting.target.get_manifest("team/app", amd64.digest).body == amd64.body
    assert verify(setting, deep=True) == {}

    setting.target.calls.clear()
    setting.wish("v1")
    setting.drain()
    assert setting.outcome() == ("done", "present", "")


@pytest.mark.parametrize(
    ("platforms", "chosen"),
    [
        ("linux/arm64 linux/amd64", "linux/arm64/v8 linux/amd64"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux/s390x", "linux/arm64/v8 linux/arm/v7 linux/arm/v6 linux/amd64"),
    ],
    ids=["any variant", "a variant", "none of them: all"],
)
def test_platforms_are_told_apart_and_none_means_the_whole_index(
    setting: Setting, platforms: str, chosen: str
) -> None:
    every = ["linux/arm64/v8", "linux/arm/v7", "linux/arm/v6", "linux/amd64"]
    images = {platform: image(setting, platform) for platform in every}
    index = push_index(setting, "v1", *(entry(images[name], name) for name in every))

    made = select(index, platforms.split())

    kept = [name for name in every if images[name].digest in {c.digest for c in made.children}]
    assert kept == chosen.split()
    assert (made is index) == (len(kept) == len(every))


def test_an_index_that_loses_nothing_is_the_same_to_the_byte(setting: Setting) -> None:
    amd64, chart = image(setting, "amd64"), image(setting, "")
    index = push_index(setting, "v1", entry(amd64, "linux/amd64"), entry(chart))

    setting.wish("v1")
    setting.drain()

    assert setting.target.state() == {"team/app:v1": index.digest}


def test_a_child_that_was_pushed_by_its_digest_does_not_come_for_itself(setting: Setting) -> None:
    amd64, arm64 = image(setting, "amd64"), image(setting, "arm64")
    chart = image(setting, "", config=setting.source.add_blob("team/app", b"{}"))
    index = push_index(setting, "", entry(amd64, "linux/amd64"), entry(arm64, "linux/arm64"))

    setting.wish(amd64.digest, arm64.digest, chart.digest, index.digest)
    setting.drain()

    assert set(setting.target.content["team/app"].manifests) == {amd64.digest, chart.digest}
    assert setting.outcome(arm64.digest) == ("done", "absent", "")


def test_an_image_without_an_index_comes_by_its_tag_whatever_it_runs_on(setting: Setting) -> None:
    arm64 = image(setting, "arm64")
    setting.source.content["team/app"].tags["v1"] = arm64.digest

    setting.wish("v1")
    setting.drain()

    assert setting.target.state() == {"team/app:v1": arm64.digest}


def test_a_referrer_comes_whatever_its_platform(setting: Setting) -> None:
    arm64 = image(setting, "arm64")
    signature = image(setting, "arm64", subject=entry(arm64))

    setting.wish(signature.digest)
    setting.drain()

    assert signature.digest in setting.target.content["team/app"].manifests
