"""The lists of referrers that a worker writes where the target keeps none itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_migration_jobs import Setting, sign, verify

from app.registry import Manifest

DELETES = {"deletes": "tags_and_digests"}


def tag_of(image: Manifest) -> str:
    return image.digest.replace(":", "-")


def signed(setting: Setting, number: int = 1) -> tuple[Manifest, list[Manifest]]:
    """An image whose signatures are at the target, with a list that we wrote."""
    image = setting.source.push("team/app", "v1")
    signatures = sign(setting, image, number)
    setting.wish("v1")
    setting.drain()
    assert f"team/app:{tag_of(image)}" in setting.target.state()
    return image, signatures


def delete_at_source(setting: Setting, *digests: str) -> None:
    content = setting.source.content["team/app"]
    for digest in digests:
        del content.manifests[digest]
        content.tags = {tag: named for tag, named in content.tags.items() if named != digest}
    setting.wish(*digests)
    for _ in range(3):
        setting.drain()
        setting.hurry()


@pytest.mark.parametrize("existing", ["overwrite", "skip", "fail", "backup"])
def test_a_list_that_we_wrote_is_ours_when_the_source_gets_one(
    make: Callable[..., Setting], existing: str
) -> None:
    setting = make(options={"existing": existing})
    image, (signature,) = signed(setting)
    tag = tag_of(image)
    theirs = setting.source.push_index("team/app", tag, [signature])

    setting.wish(tag)
    setting.drain()

    assert setting.outcome(tag) == ("done", "copied", "")
    assert setting.target.state() == {"team/app:v1": image.digest, f"team/app:{tag}": theirs.digest}


def test_an_earlier_list_that_we_wrote_is_ours_too(make: Callable[..., Setting]) -> None:
    setting = make(options={"existing": "fail"})
    image, signatures = signed(setting, 2)
    tag = tag_of(image)
    (earlier,) = (
        manifest.digest
        for manifest in setting.target.content["team/app"].manifests.values()
        if [child.digest for child in manifest.children] in [[s.digest] for s in signatures]
    )
    setting.target.content["team/app"].tags[tag] = earlier  # another process wrote it later
    theirs = setting.source.push_index("team/app", tag, signatures)

    setting.wish(tag)
    setting.drain()

    assert setting.outcome(tag) == ("done", "copied", "")
    assert setting.target.state()[f"team/app:{tag}"] == theirs.digest


@pytest.mark.parametrize(
    ("existing", "outcome"),
    [("skip", ("skipped", "kept", "")), ("fail", ("conflict", "kept", "exists"))],
)
def test_a_list_of_others_stays_theirs_although_we_added_to_it(
    make: Callable[..., Setting], existing: str, outcome: tuple[str, str, str]
) -> None:
    setting = make(options={"existing": existing})
    image = setting.source.push("team/app", "v1")
    (signature,) = sign(setting, image)
    other = setting.target.push("team/app", "", "of others")
    setting.target.push_index("team/app", tag_of(image), [other])
    setting.wish("v1")
    setting.drain()
    listed = {child.digest for child in setting.target.referrers("team/app", image.digest)}
    assert listed == {other.digest, signature.digest}

    setting.source.push_index("team/app", tag_of(image), [signature])
    setting.wish(tag_of(image))
    setting.drain()

    assert setting.outcome(tag_of(image)) == outcome


def test_a_list_goes_with_its_last_entry(make: Callable[..., Setting]) -> None:
    setting = make(options=DELETES)
    image, signatures = signed(setting, 2)

    delete_at_source(setting, signatures[0].digest)
    listed = setting.target.referrers("team/app", image.digest)
    assert [entry.digest for entry in listed] == [signatures[1].digest]

    delete_at_source(setting, signatures[1].digest)
    assert setting.target.state() == {"team/app:v1": image.digest}
    assert setting.outcome(signatures[1].digest)[1] == "deleted"


def test_a_list_goes_with_what_it_is_about(make: Callable[..., Setting]) -> None:
    setting = make(options={"deletes": "tags"})
    image, _ = signed(setting)
    del setting.source.content["team/app"].manifests[image.digest]
    del setting.source.content["team/app"].tags["v1"]

    setting.wish("v1")
    for _ in range(3):
        setting.drain()
        setting.hurry()

    assert setting.target.state() == {}


def test_a_list_stays_while_only_a_tag_is_gone(make: Callable[..., Setting]) -> None:
    setting = make(options={"deletes": "tags"})
    image, _ = signed(setting)
    del setting.source.content["team/app"].tags["v1"]

    setting.wish("v1")
    for _ in range(3):
        setting.drain()
        setting.hurry()

    assert set(setting.target.state()) == {f"team/app:{tag_of(image)}"}


def test_a_list_of_others_is_not_touched_by_a_delete(make: Callable[..., Setting]) -> None:
    setting = make(options=DELETES)
    image = setting.source.push("team/app", "v1")
    (signature,) = sign(setting, image)
    other = setting.target.push("team/app", "", "of others")
    setting.target.push_index("team/app", tag_of(image), [other])
    setting.wish("v1")
    setting.drain()
    before = setting.target.state()

    delete_at_source(setting, signature.digest)

    assert setting.target.state() == before


def test_a_list_that_the_source_does_not_need_is_not_deleted_for_it(
    make: Callable[..., Setting],
) -> None:
    setting = make(options=DELETES)
    image, _ = signed(setting)
    before = setting.target.state()

    setting.wish(tag_of(image))
    for _ in range(3):
        setting.drain()
        setting.hurry()

    assert setting.target.state() == before
    assert setting.outcome(tag_of(image))[:2] == ("skipped", "kept")
    assert verify(setting) == {}


def test_nobody_is_asked_for_lists_of_what_refers_to_nothing(make: Callable[..., Setting]) -> None:
    setting = make()
    setting.source.push("team/app", "v1")

    setting.wish("v1")
    setting.drain()

    assert not [call for call in setting.target.calls if call[0] == "referrers"]
    assert [call[0] for call in setting.source.calls].count("referrers") == 1


def test_no_list_is_written_where_referrers_are_left_out(make: Callable[..., Setting]) -> None:
    setting = make(options={"referrers": False})
    image = setting.source.push("team/app", "v1")
    (signature,) = sign(setting, image)

    setting.wish("v1", signature.digest)
    setting.drain()

    assert setting.target.state() == {"team/app:v1": image.digest}
    assert signature.digest in setting.target.content["team/app"].manifests
    calls = setting.source.calls + setting.target.calls
    assert "referrers" not in {call[0] for call in calls}
