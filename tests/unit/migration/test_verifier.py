"""The comparison of both sides: what counts as a difference, and what was changed on purpose."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest
from memory_registry import MemoryRegistry

from app.errors import AppError, ConfigError
from app.migration import Plan, verifier
from app.migration.sides import Sides
from app.migration.verification import verify_plan, wanted_again
from app.migration.verifier import Extent, Verifier
from app.registry import RegistryError
from app.settings import Migration
from app.store import Stores
from app.store.migrations import DRIFT_KINDS, Drift, Job, Run, present

OLD, NEW = "https://old", "https://new"


class Pair:
    """Two registries in memory, and jobs that are known of what was copied."""

    def __init__(
        self, threads: ThreadPoolExecutor, exclude: Sequence[str] = (), **options: Any
    ) -> None:
        self.source, self.target = MemoryRegistry(OLD), MemoryRegistry(NEW)
        self.jobs: dict[str, Job] = {}
        self._threads = threads
        sides = {"source": {"url": OLD}, "target": {"url": NEW}, "options": options}
        chosen = {"name": "dc2", "repos": {"exclude": list(exclude)}}
        self.plan = Plan(msgspec.convert({**chosen, **sides}, Migration))

    @property
    def sides(self) -> Any:
        return Sides(self.plan, self.source, self.target)  # type: ignore[arg-type]

    def copied(self, tag: str, seed: str = "") -> str:
        for registry in (self.source, self.target):
            digest = registry.push("team/app", tag, seed).digest
        self.know(tag, source_digest=digest, target_digest=digest)
        return digest

    def know(self, tag: str, state: Any = "done", **fields: Any) -> None:
        now = present()
        self.jobs[tag] = Job(
            id=tag,
            plan="dc2",
            repository="team/app",
            reference=tag,
            state=state,
            wanted_at=now,
            due=now,
            **fields,
        )

    def run(self, **more: Any) -> tuple[Run, list[Drift]] | None:
        save = more.pop("save", lambda run: True)
        extent = Extent(recheck_s=more.pop("recheck_s", 0), **more.pop("extent", {}))
        comparing = Verifier(
            self.sides,
            self._threads,
            find_job=lambda repository, tag: self.jobs.get(tag),
            extent=extent,
            **more,
        )
        return comparing.verify(Run(plan="dc2", kind="verify", started_at=present()), save)

    def found(self, **more: Any) -> dict[str, str]:
        ended = self.run(**more)
        assert ended
        return {row.reference: row.kind for row in ended[1]}


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def pair(threads: ThreadPoolExecutor) -> Pair:
    return Pair(threads)


def test_after_the_cut_over_what_changed_at_the_target_is_no_difference(pair: Pair) -> None:
    for tag in ("same", "moved", "deleted", "late", "both"):
        pair.copied(tag)
    pair.target.push("team/app", "moved", "by a client")
    del pair.target.content["team/app"].tags["deleted"]
    pair.source.push("team/app", "late", "pushed to the source")
    pair.source.push("team/app", "never-copied")
    pair.know("never-copied")
    pair.source.push("team/app", "both", "pushed to the source")
    pair.target.push("team/app", "both", "by a client")
    pair.target.push("team/app", "new at the target")

    differs = {"moved": "different", "deleted": "missing", "both": "different"}
    always = {"late": "different", "never-copied": "missing", "new at the target": "extra"}
    assert pair.found() == differs | always
    assert pair.found(target_leads=True) == dict.fromkeys(differs, "left_out") | always
    ended = pair.run(target_leads=True)
    assert ended
    (row,) = (row for row in ended[1] if row.reference == "moved")
    assert row.message == "different, and the target was changed after the cut-over."


def test_what_a_person_skipped_or_an_option_keeps_is_left_out(
    threads: ThreadPoolExecutor,
) -> None:
    for options, left_out in (({"existing": "skip"}, {"kept"}), ({}, set())):
        pair = Pair(threads, **options)
        for tag in ("waived", "kept", "kept-moved", "kept-missing", "filtered", "running"):
            source = pair.source.push("team/app", tag).digest
            if tag != "kept-missing":
                pair.target.push("team/app", tag, "theirs")
            result = tag.partition("-")[0]
            state = "running" if tag == "running" else "skipped"
            digest = "sha256:other" if tag == "kept-moved" else source
            pair.know(tag, state, result=result, source_digest=digest)
        pair.know("running", "running", result="waived")

        found = pair.found()

        assert {tag for tag, kind in found.items() if kind == "left_out"} == left_out | {"waived"}
        assert len(found) == 6
        assert found["kept-missing"] == "missing"


def test_a_tag_that_is_deleted_at_the_source_meanwhile_is_too_much_at_the_target_at_most(
    pair: Pair,
) -> None:
    for tag in ("there", "nowhere"):
        pair.copied(tag)
    del pair.target.content["team/app"].tags["nowhere"]

    def delete_then_answer(method: str, *arguments: str) -> None:
        if method == "head_manifest":
            pair.source.content["team/app"].tags.clear()

    pair.source.fail = delete_then_answer

    assert pair.found() == {"there": "extra"}


def test_a_conflict_of_before_the_option_was_changed_is_still_a_difference(
    threads: ThreadPoolExecutor,
) -> None:
    pair = Pair(threads, existing="skip")
    source = pair.source.push("team/app", "v1").digest
    pair.target.push("team/app", "v1", "theirs")
    pair.know("v1", "conflict", result="kept", source_digest=source)

    assert pair.found() == {"v1": "different"}


def test_a_comparison_counts_what_it_saw_and_found(pair: Pair) -> None:
    for tag in ("v1", "v2"):
        pair.copied(tag)
    for tag in ("v3", "v4"):
        pair.source.push("team/app", tag)
    pair.source.push("team/other", "v1")
    pair.target.push("team/other", "v1", "theirs")

    ended = pair.run()

    assert ended
    run, rows = ended
    assert (run.repositories, run.tags, run.cursor) == (2, 5, "team/other")
    assert run.drift == {"missing": 2, "different": 1}
    assert {row.plan for row in rows} == {"dc2"}
    assert all(row.source_digest for row in rows)
    assert [bool(row.target_digest) for row in rows] == [False, False, True]
    assert not run.names_from_events


def test_every_tag_is_told_to_who_watches_and_may_end_it(pair: Pair) -> None:
    for tag in ("v1", "v2"):
        pair.copied(tag)
    told: list[int] = []
    pair.found(each=lambda: told.append(1))
    assert len(told) == 2

    def end() -> None:
        raise AppError("enough")

    with pytest.raises(AppError, match="enough"):
        pair.run(each=end)


def test_a_difference_that_is_gone_at_the_second_look_is_none(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = pair.source.push("team/app", "on-its-way").digest
    pair.source.push("team/app", "missing")
    for tag in ("extra", "extra-for-a-moment", "extra-deleted"):
        pair.target.push("team/app", tag)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        pair.target.push("team/app", "on-its-way")
        pair.source.push("team/app", "extra-for-a-moment")
        pair.target.content["team/app"].tags.pop("extra-deleted", None)
        clock.monotonic = lambda: begun + 100

    begun = time.monotonic()
    clock = Mock(wraps=time, sleep=sleep)
    monkeypatch.setattr(verifier, "time", clock)

    assert pair.found(recheck_s=30) == {"missing": "missing", "extra": "extra"}
    assert waited == [verifier.SAVE_EVERY_S]
    assert pair.target.state()["team/app:on-its-way"] == digest


def test_nothing_is_waited_for_where_nothing_differs(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.copied("v1")
    waiting = Mock(side_effect=AssertionError("waits"))
    monkeypatch.setattr(verifier, "time", Mock(wraps=time, sleep=waiting))

    assert pair.found(recheck_s=30) == {}


@pytest.mark.parametrize("differs", [True, False])
def test_a_comparison_that_another_process_has_ends(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, differs: bool
) -> None:
    """Where nothing differs only a save that is due tells."""
    pair.copied("v1")
    if differs:
        pair.source.push("team/app", "v2")
    saved: list[Run] = []

    def lose(run: Run) -> bool:
        saved.append(run)
        return False

    assert (pair.run(save=lose, recheck_s=30) is None) is differs
    assert [run.tags for run in saved] == ([2] if differs else [])
    monkeypatch.setattr(verifier, "SAVE_EVERY_S", -1)
    assert pair.run(save=lose) is None


def test_a_tag_that_the_source_lists_but_does_not_have_is_never_equal(pair: Pair) -> None:
    digest = pair.copied("v1")
    pair.copied("v2")
    del pair.source.content["team/app"].manifests[digest]
    pair.target.content["team/app"].tags.pop("v1")

    ended = pair.run()

    assert ended
    (row,) = ended[1]
    assert (row.reference, row.kind) == ("v1", "unknown")
    assert row.message == "the source lists it, but has no manifest"


def test_a_registry_that_fails_for_one_repository_ends_nothing_and_one_that_is_down_does(
    pair: Pair,
) -> None:
    pair.copied("v1")
    pair.source.push("other", "v1")

    def fail(error_class: str, method_that_fails: str) -> None:
        def fail(method: str, *arguments: str) -> None:
            if method == method_that_fails and arguments[0] == "other":
                raise pair.source.error(error_class)

        pair.source.fail = fail

    fail("forbidden", "tags")
    assert pair.found() == {"": "unknown"}
    fail("server", "head_manifest")
    assert pair.found() == {"v1": "unknown"}
    fail("down", "tags")
    with pytest.raises(RegistryError):
        pair.run()


@pytest.mark.parametrize(("status", "kind"), [(404, "missing"), (500, "unknown")])
def test_a_target_that_does_not_list_what_it_does_not_have_is_compared(
    pair: Pair, status: int, kind: str
) -> None:
    pair.source.push("team/app", "v1")

    def fail(method: str, *arguments: str) -> None:
        if method == "tags":
            raise pair.target.error("gone", status=status)

    pair.target.fail = fail

    assert set(pair.found().values()) == {kind}


@pytest.mark.parametrize(("deep", "hashed"), [(True, False), (False, True), (False, False)])
def test_what_manifests_name_is_asked_for_where_that_is_wanted(
    pair: Pair, deep: bool, hashed: bool
) -> None:
    child = pair.source.push("team/app", "child", "child")
    pair.target.push("team/app", "child", "child")
    for registry in (pair.source, pair.target):
        registry.push_index("team/app", "index", [child])
    pair.copied("damaged")
    damaged = pair.target.get_manifest("team/app", "damaged").blobs[1].digest
    blobs = pair.target.content["team/app"].blobs
    blobs[damaged] = b"x" * len(blobs[damaged])
    assert pair.found(extent={"deep": deep, "hashed": hashed}) == (
        {"damaged": "broken_blob"} if hashed else {}
    )

    del blobs[pair.target.get_manifest("team/app", "child").blobs[1].digest]
    some = {"child": "broken_blob", "index": "broken_blob"} if deep or hashed else {}
    found = pair.found(extent={"deep": deep, "hashed": hashed})
    found.pop("damaged", None)
    assert found == some

    del pair.target.content["team/app"].manifests[child.digest]
    del pair.target.content["team/app"].tags["child"]
    found = pair.found(extent={"deep": deep, "hashed": hashed})
    assert found["child"] == "missing"
    assert found.get("index") == ("broken_child" if deep or hashed else None)


def test_what_is_whole_is_asked_for_once(pair: Pair) -> None:
    for tag in ("v1", "v2"):
        pair.copied(tag, "same")

    pair.found(extent={"deep": True})

    asked = [call for call in pair.target.calls if call[0] in ("get_manifest", "has_blob")]
    assert 3 <= len(asked) <= 6, "two threads may ask at the same moment"
    pair.target.calls.clear()
    with ThreadPoolExecutor(1) as one:
        pair._threads = one
        pair.found(extent={"deep": True})
    asked = [call for call in pair.target.calls if call[0] in ("get_manifest", "has_blob")]
    assert len(asked) == len(set(asked)) == 3


def test_an_error_of_the_target_is_no_broken_image(pair: Pair) -> None:
    pair.copied("v1")
    failing: list[str] = []

    def fail(method: str, *arguments: str) -> None:
        if method == failing[-1]:
            raise pair.target.error("server")

    pair.target.fail = fail
    for method in ("get_manifest", "has_blob", "open_blob"):
        failing.append(method)
        assert pair.found(extent={"hashed": True}) == {"v1": "unknown"}


def test_a_blob_that_is_lost_while_it_is_read_is_broken(pair: Pair) -> None:
    pair.copied("v1")

    def fail(method: str, *arguments: str) -> None:
        if method == "open_blob":
            raise pair.target.error("blob_unknown")

    pair.target.fail = fail

    assert pair.found(extent={"hashed": True}) == {"v1": "broken_blob"}


def test_only_the_repositories_of_the_plan_and_of_the_extent_are_compared(
    threads: ThreadPoolExecutor,
) -> None:
    pair = Pair(threads, exclude=["team/secret"])
    for repository in ("team/app", "team/secret", "else/app"):
        pair.source.push(repository, "v1", repository)

    def seen(repositories: str) -> list[str]:
        ended = pair.run(extent={"repositories": repositories})
        assert ended
        return [row.repository for row in ended[1]]

    assert seen("") == ["else/app", "team/app"]
    assert seen("team/**") == ["team/app"]
    assert seen("team/secret") == []


def test_after_the_cut_over_only_what_was_copied_and_then_changed_is_the_targets_own(
    pair: Pair,
) -> None:
    pair.copied("away")
    for registry in (pair.source, pair.target):
        registry.push("team/app", "never-copied", registry.url)
    pair.know("never-copied")

    def fail(method: str, *arguments: str) -> None:
        if method == "head_manifest" and arguments[-1] == "away":
            raise pair.target.error("server")

    pair.target.fail = fail

    assert pair.found(target_leads=True) == {"never-copied": "different", "away": "unknown"}


def test_a_share_is_some_of_the_tags() -> None:
    tags = [f"v{number}" for number in range(2_000)]

    some = Extent(share=0.2).choose(tags)

    assert set(some) < set(tags)
    assert 200 < len(some) < 600
    assert Extent().choose(tags) == tags


def test_a_part_says_what_it_is_of(pair: Pair) -> None:
    assert Extent() == Extent(share=1, repositories="", deep=False, hashed=False)
    assert Extent().part == ""
    assert Extent(share=0.05).part == "5.000% of the tags"
    assert Extent(repositories="team/*").part == "team/*"
    assert Extent(share=0.5, repositories="a").part == "50.000% of the tags, a"
    assert Extent(repositories="team/*").takes("team/app")
    assert not Extent(repositories="team/*").takes("app")
    assert Extent(share=1).choose(["a", "b"]) == ["a", "b"]
    with pytest.raises(ConfigError):
        Extent(repositories="re:(")


@pytest.mark.parametrize(
    ("referrers", "known", "is_extra"),
    [(True, True, False), (True, False, True), (False, True, True)],
)
def test_a_list_of_referrers_at_the_target_alone_is_ours_where_the_source_has_its_image(
    threads: ThreadPoolExecutor, referrers: bool, known: bool, is_extra: bool
) -> None:
    pair = Pair(threads, referrers=referrers)
    digest = pair.copied("v1") if known else f"sha256:{'0' * 64}"
    pair.copied("v2")
    tag = digest.replace(":", "-")
    pair.target.push_index("team/app", tag, [])
    pair.target.push_index("team/app", "else", [])

    assert pair.found() == {"else": "extra", **({tag: "extra"} if is_extra else {})}


def test_only_what_a_job_can_repair_is_wanted_again() -> None:
    rows = [
        Drift(plan="dc2", repository="a", reference=kind, kind=kind, at=present())
        for kind in DRIFT_KINDS
    ]

    again = [row.kind for row in wanted_again(rows)]

    assert again == ["missing", "different", "broken_child", "broken_blob"]


def test_after_the_cut_over_a_verification_of_the_plan_knows_who_leads(
    pair: Pair, mock_stores: Stores
) -> None:
    queue = mock_stores.migrations
    digest = pair.copied("v1")
    pair.target.push("team/app", "v1", "by a client")
    queue.jobs._jobs.insert_one(
        msgspec.structs.asdict(pair.jobs["v1"])
        | {"_id": "dc2 team/app v1", "target_digest": digest}
    )

    def kinds() -> list[str]:
        rows = verify_plan(mock_stores, pair.sides, "test", extent=Extent(recheck_s=0))
        assert rows is not None
        return [row.kind for row in rows]

    queue.plans.set_state("dc2", "live", "test", present())
    assert kinds() == ["different"]
    queue.plans.set_state("dc2", "cut_over", "test", present())
    assert kinds() == ["left_out"]


def test_a_catalogue_that_breaks_off_is_known_though_no_name_from_events_is_of_the_plan(
    pair: Pair,
) -> None:
    for name in ("team/app", "team/base", "team/core"):
        pair.source.push(name, "v1")
        pair.target.push(name, "v1")

    def catalog(last: str = "") -> Iterator[list[str]]:
        yield ["team/app", "team/base"]
        raise pair.source.error("unsupported")  # a Link that leads in a circle

    pair.source.catalog = catalog  # type: ignore[method-assign]
    pair.plan.takes = lambda name, reference="": name != "other"  # type: ignore[method-assign]

    found = pair.run(known=lambda: ["other"])

    assert found
    assert found[0].names_from_events
