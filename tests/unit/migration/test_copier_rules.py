"""Rules of the copier that decide rarely, and would be missed then."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from test_migration_jobs import NEW, Setting, deleting, sign

from app.migration import copier
from app.store.migrations import LIVE, Wish, present


def test_after_the_cut_over_what_is_equal_but_broken_at_the_target_is_repaired(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    image = setting.source.push("team/app", "v1")
    setting.target.push("team/app", "v1")  # by somebody else
    setting.target.content["team/app"].blobs.clear()
    setting.queue.plans.set_state("dc2", "cut_over", "test", present())

    setting.queue.jobs.wish([Wish("dc2", "team/app", "v1", LIVE, broken=True)], present())
    setting.drain()

    assert setting.outcome() == ("done", "copied", "")
    there = setting.target.content["team/app"].blobs
    assert set(there) == {blob.digest for blob in image.blobs}


def test_what_we_copied_before_costs_no_manifest(make: Callable[..., Setting]) -> None:
    setting = make()
    setting.source.push("team/app", "v1")
    setting.wish("v1")
    setting.drain()
    setting.source.calls.clear()
    setting.target.calls.clear()

    setting.wish("v1")
    setting.drain()

    assert setting.outcome() == ("done", "present", "")
    calls = setting.source.calls + setting.target.calls
    assert {call[0] for call in calls} == {"head_manifest", "referrers"}


def test_after_the_cut_over_a_list_that_we_wrote_gives_way_to_that_of_the_source(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    image = setting.source.push("team/app", "v1")
    signatures = sign(setting, image)
    setting.wish("v1")
    setting.drain()
    tag = image.digest.replace(":", "-")
    assert f"team/app:{tag}" in setting.target.state()
    cut_over(setting)

    theirs = setting.source.push_index("team/app", tag, signatures)
    setting.wish(tag)
    setting.drain()

    assert setting.outcome(tag) == ("done", "copied", "")
    assert setting.target.state()[f"team/app:{tag}"] == theirs.digest


def test_a_tag_that_both_sides_had_alike_is_no_conflict_when_it_moves(
    make: Callable[..., Setting],
) -> None:
    setting = make(options={"existing": "fail"})
    for registry in (setting.source, setting.target):
        registry.push("team/app", "v1")
    setting.wish("v1")
    setting.drain()
    assert setting.outcome() == ("done", "present", "")

    setting.source.push("team/app", "v1", "moved")
    setting.wish("v1")
    setting.drain()

    assert setting.outcome() == ("done", "copied", "")
    assert setting.target.state() == setting.source.state()


def test_after_the_cut_over_what_is_gone_from_the_source_is_kept_without_a_second_look(
    make: Callable[..., Setting],
) -> None:
    setting = deleting(make, "tags")
    cut_over(setting)

    setting.drain()

    assert setting.outcome() == ("skipped", "kept", "")
    assert "team/app:v1" in setting.target.state()


@pytest.mark.parametrize("is_needed", [False, True])
def test_a_list_that_people_deleted_goes_unless_the_source_finds_without_it(
    make: Callable[..., Setting], is_needed: bool
) -> None:
    setting = make(options={"deletes": "tags"})
    image = setting.source.push("team/app", "v1")
    signatures = sign(setting, image) if is_needed else [setting.source.push("team/app", "", "s")]
    tag = image.digest.replace(":", "-")
    setting.source.push_index("team/app", tag, signatures)
    setting.wish("v1", tag)
    setting.drain()
    assert f"team/app:{tag}" in setting.target.state()

    del setting.source.content["team/app"].tags[tag]
    setting.wish(tag)
    for _ in range(3):
        setting.drain()
        setting.hurry()

    assert (f"team/app:{tag}" in setting.target.state()) is is_needed


def cut_over(setting: Setting) -> None:
    setting.queue.plans.set_state("dc2", "cut_over", "test", present())
    setting.worker.status(fresh=True)


def test_where_referrers_do_not_come_a_digest_that_is_there_costs_no_manifest(
    make: Callable[..., Setting],
) -> None:
    setting = make(options={"referrers": False})
    image = setting.source.push("team/app", "v1")
    setting.target.push("team/app", "v1")

    setting.wish(image.digest)
    setting.drain()

    assert setting.outcome(image.digest) == ("done", "present", "")
    assert {call[0] for call in setting.target.calls} == {"head_manifest"}


def test_a_child_that_the_source_lost_is_named_with_its_index(
    make: Callable[..., Setting],
) -> None:
    setting = make(options={"max_attempts": 1})
    child = setting.source.push("team/app", "", "child")
    index = setting.source.push_index("team/app", "v1", [child])
    del setting.source.content["team/app"].manifests[child.digest]

    setting.wish("v1")
    setting.drain()

    assert setting.outcome() == ("dead", "", "blob_unknown")
    message = f"team/app has no {child.digest}, which its index {index.digest} names"
    assert message in setting.job().error


def test_a_source_that_fails_at_a_child_has_not_lost_it(make: Callable[..., Setting]) -> None:
    setting = make(options={"max_attempts": 1})
    child = setting.source.push("team/app", "", "child")
    setting.source.push_index("team/app", "v1", [child])

    def fail(method: str, *arguments: str) -> None:
        if method == "get_manifest" and arguments[1] == child.digest:
            raise setting.source.error("server")

    setting.source.fail = fail
    setting.wish("v1")
    setting.drain()

    assert setting.outcome() == ("dead", "", "server")


def test_where_tags_alone_are_deleted_a_digest_stays(make: Callable[..., Setting]) -> None:
    setting = make(options={"deletes": "tags"})
    image = setting.source.push("team/app", "")
    setting.wish(image.digest)
    setting.drain()
    del setting.source.content["team/app"].manifests[image.digest]

    setting.wish(image.digest)
    for _ in range(3):
        setting.drain()
        setting.hurry()

    assert ("tags", "team/app") not in setting.source.calls
    assert setting.outcome(image.digest) == ("skipped", "kept", "")
    assert image.digest in setting.target.content["team/app"].manifests


def test_where_referrers_do_not_come_a_delete_looks_for_no_list(
    make: Callable[..., Setting],
) -> None:
    setting = make(options={"deletes": "tags", "referrers": False})
    setting.source.push("team/app", "v1")
    setting.wish("v1")
    setting.drain()
    setting.source.content["team/app"].tags.clear()
    setting.source.content["team/app"].manifests.clear()
    setting.target.calls.clear()

    setting.wish("v1")
    for _ in range(3):
        setting.drain()
        setting.hurry()

    assert setting.outcome() == ("done", "deleted", "")
    assert {call[0] for call in setting.target.calls} == {"head_manifest", "delete_tag"}


def test_a_blob_that_a_child_lacks_is_copied_once_more_with_its_index(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    child = setting.source.push("team/app", "", "child")
    setting.source.push_index("team/app", "v1", [child])
    setting.wish("v1")
    setting.drain()
    there = setting.target.content["team/app"].blobs
    before = dict(there)
    there.clear()

    setting.queue.jobs.wish([Wish("dc2", "team/app", "v1", LIVE, broken=True)], present())
    setting.drain()

    assert there == before


@pytest.mark.parametrize(("size", "outcome"), [(20, "done"), (21, "conflict")])
def test_a_blob_may_be_as_large_as_the_limit_and_no_larger(
    make: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch, size: int, outcome: str
) -> None:
    monkeypatch.setattr(copier, "GB", 20)
    setting = make(target={"url": NEW, "limits": {"max_blob_gb": 1}})
    layer = setting.source.add_blob("team/app", bytes(size))
    setting.source.push("team/app", "v1", layers=[layer])

    setting.wish("v1")
    setting.drain()

    assert setting.outcome()[0] == outcome


def test_an_earlier_list_that_we_wrote_goes_when_the_source_finds_nothing_any_more(
    make: Callable[..., Setting],
) -> None:
    setting = make(options={"deletes": "tags"})
    image = setting.source.push("team/app", "v1")
    sign(setting, image, 2)
    setting.wish("v1")
    setting.drain()
    tag = image.digest.replace(":", "-")
    there = setting.target.content["team/app"]
    (earlier,) = (m.digest for m in there.manifests.values() if len(m.children) == 1)
    there.tags[tag] = earlier  # another process wrote it later
    setting.source._has_referrers_api = False

    setting.wish(tag)
    for _ in range(3):
        setting.drain()
        setting.hurry()

    assert setting.target.state() == {"team/app:v1": image.digest}


def test_a_tag_that_others_put_at_both_sides_is_not_deleted(make: Callable[..., Setting]) -> None:
    setting = make(options={"deletes": "tags"})
    for registry in (setting.source, setting.target):
        registry.push("team/app", "v1")
    setting.wish("v1")
    setting.drain()
    setting.source.content["team/app"].tags.clear()

    setting.wish("v1")
    for _ in range(3):
        setting.drain()
        setting.hurry()

    assert setting.outcome() == ("skipped", "kept", "")
    assert "team/app:v1" in setting.target.state()


def test_a_digest_that_a_tag_of_the_target_names_stays(make: Callable[..., Setting]) -> None:
    setting = make(options={"deletes": "tags_and_digests"})
    image = setting.source.push("team/app", "")
    setting.wish(image.digest)
    setting.drain()
    setting.target.content["team/app"].tags["theirs"] = image.digest
    del setting.source.content["team/app"].manifests[image.digest]

    setting.wish(image.digest)
    for _ in range(3):
        setting.drain()
        setting.hurry()

    assert setting.job(image.digest).error == "still in use at the target"
    assert image.digest in setting.target.content["team/app"].manifests


@pytest.mark.parametrize(
    ("indexes", "outcome"), [(4, ("done", "copied", "")), (5, ("conflict", "", "unsupported"))]
)
def test_an_index_lies_in_an_index_four_deep_and_no_deeper(
    make: Callable[..., Setting], indexes: int, outcome: tuple[str, str, str]
) -> None:
    setting = make()
    inner = setting.source.push("team/app", "")
    for level in reversed(range(indexes)):
        inner = setting.source.push_index("team/app", "" if level else "v1", [inner])

    setting.wish("v1")
    setting.drain()

    assert setting.outcome() == outcome


def test_the_bytes_of_a_job_are_those_that_it_sent(make: Callable[..., Setting]) -> None:
    setting = make()
    layer = setting.source.add_blob("team/app", bytes(1000))
    for tag in ("v1", "v2"):  # of different manifests
        setting.source.push("team/app", tag, layers=[layer], annotations={"tag": tag})
        setting.wish(tag)
        setting.drain()

    assert (setting.job("v1").bytes, setting.job("v2").bytes) == (1002, 0)
