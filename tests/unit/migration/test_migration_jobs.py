"""Jobs, crawls and workers, between two registries in memory."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from builders import deliver, envelope, wire_event
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from memory_registry import MemoryRegistry

from app.errors import IllegalState
from app.migration import Plan, load_plans, states
from app.migration import brake as brake_module
from app.migration import conductor as conductor_module
from app.migration import worker as worker_module
from app.migration.copier import MIN_MOUNT_BYTES, LeaseLost
from app.migration.crawler import Crawler, find_repositories
from app.migration.failures import retry_delay_s, state_after
from app.migration.limits import Bucket, Width
from app.migration.progress import find_progress
from app.migration.ranking import rank_repositories
from app.migration.readiness import find_checks
from app.migration.verification import prune_extra, verify_plan
from app.migration.verifier import Extent, Verifier
from app.migration.worker import PlanWorker, Worker, wait_until
from app.registry import Endpoint, Manifest, RegistryClient, RegistryError, make_placeholder
from app.rules.references import parse_repository
from app.settings import Migration, Settings
from app.store import Stores
from app.store.migrations import (
    BACKFILL,
    LEASE,
    LIVE,
    Breaker,
    Drift,
    Job,
    Run,
    Wish,
    present,
)

OLD, NEW = "https://old", "https://new"


class Setting:
    """A plan between two registries in memory, and one worker that runs when it is told to."""

    def __init__(self, stores: Stores, **keys: Any) -> None:
        options = {"debounce_s": 0, **keys.pop("options", {})}
        document = {"name": "dc2", "source": {"url": OLD}, "target": {"url": NEW}, **keys}
        document["options"] = options
        self.plan = Plan(msgspec.convert(document, Migration))
        self.source, self.target = MemoryRegistry(OLD), MemoryRegistry(NEW)
        self.stores, self.queue = stores, stores.migrations
        by_url = {OLD: self.source, NEW: self.target}
        self.worker = PlanWorker(
            stores,
            self.plan,
            "worker",
            connect=lambda endpoint, **hooks: by_url[endpoint.url],  # type: ignore[arg-type, return-value]
        )
        self.queue.plans.start("dc2", "test", present())

    def connect_target(self, target: RegistryClient) -> None:
        """Copy to a registry over HTTP instead."""
        self.worker._copier._target = target

    def wish(self, *references: str, repository: str = "team/app") -> None:
        wishes = [Wish("dc2", repository, reference, LIVE) for reference in references]
        self.queue.jobs.wish(wishes, present())

    def drain(self) -> None:
        while self.worker.run_one():
            pass

    def hurry(self) -> None:
        """Let no job wait any longer, as if the time had passed."""
        jobs = self.queue.jobs._jobs
        jobs.update_many({"state": "pending"}, {"$set": {"due": present()}})
        seen_gone = {"state": "pending", "gone_at": {"$ne": None}}
        jobs.update_many(seen_gone, {"$set": {"gone_at": present() - LEASE}})

    def expire_leases(self) -> None:
        """Let the workers of all running jobs have been silent for long."""
        self.queue.jobs._jobs.update_many(
            {"state": "running"}, {"$set": {"lease_until": present() - LEASE}}
        )
        self.worker._claims._looked_for_expired = 0.0

    def probe_now(self) -> None:
        """Let the breaker be tried without a pause."""
        self.queue.plans._plans.update_one({}, {"$set": {"breaker.probe_at": present()}})
        self.worker.status(fresh=True)

    def job(self, reference: str = "v1", repository: str = "team/app") -> Job:
        job = self.queue.jobs.get("dc2", repository, reference)
        assert job
        return job

    def outcome(self, reference: str = "v1") -> tuple[str, str, str]:
        job = self.job(reference)
        return job.state, job.result, job.error_class


@pytest.fixture
def make(mock_stores: Stores) -> Iterator[Callable[..., Setting]]:
    settings: list[Setting] = []

    def make(**keys: Any) -> Setting:
        settings.append(Setting(mock_stores, **keys))
        return settings[-1]

    yield make
    for setting in settings:
        setting.worker.close()


def test_an_index_comes_with_its_children_and_their_layers(make: Callable[..., Setting]) -> None:
    setting = make(map=[{"from": "team/", "to": "new/"}])
    child = setting.source.push("team/app", "", "child")
    inner = setting.source.push_index("team/app", "", [child])
    outer = setting.source.push_index("team/app", "v1", [inner])

    setting.wish("v1")
    setting.drain()

    assert setting.target.state() == {"new/app:v1": outer.digest}
    assert setting.target.get_manifest("new/app", child.digest).body == child.body
    assert setting.outcome() == ("done", "copied", "")


def test_what_is_there_already_costs_one_look_at_each_side(make: Callable[..., Setting]) -> None:
    setting = make(options={"referrers": False})
    for registry in (setting.source, setting.target):
        registry.push("team/app", "v1")

    setting.wish("v1")
    setting.drain()

    assert setting.outcome() == ("done", "present", "")
    assert setting.source.calls == setting.target.calls == [("head_manifest", "team/app", "v1")]


def test_a_large_layer_that_another_repository_of_the_target_has_is_mounted(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    for repository in ("team/one", "team/two"):
        layer = setting.source.add_blob(repository, bytes(MIN_MOUNT_BYTES))
        setting.source.push(repository, "v1", layers=[layer])
        setting.wish("v1", repository=repository)
        setting.drain()

    mounts = [call for call in setting.target.calls if call[0] == "start_upload" and call[3]]
    assert mounts == [("start_upload", "team/two", layer["digest"], "team/one")]
    assert ("open_blob", "team/two", layer["digest"]) not in setting.source.calls
    assert setting.target.state() == setting.source.state()


def test_a_tag_that_moves_while_it_is_copied_is_copied_again(make: Callable[..., Setting]) -> None:
    setting = make()
    setting.source.push("team/app", "v1", "first")

    def move(method: str, *arguments: str) -> None:
        if method == "put_manifest":
            setting.target.fail = lambda *_: None
            setting.source.push("team/app", "v1", "second")

    setting.target.fail = move
    setting.wish("v1")
    setting.drain()

    assert setting.target.state() == setting.source.state()
    assert setting.job().generation == 2


def test_who_lost_the_lease_writes_no_manifest(make: Callable[..., Setting]) -> None:
    setting = make()
    setting.source.push("team/app", "v1")

    def lose(method: str, *arguments: str) -> None:
        if method == "put_upload":
            later = present() + timedelta(minutes=5)
            setting.queue.jobs.claim_expired("dc2", "other", later)

    setting.target.fail = lose
    setting.wish("v1")
    setting.drain()

    assert setting.target.state() == {}
    assert (setting.job().state, setting.job().owner) == ("running", "other")


@pytest.mark.parametrize(
    ("existing", "outcome", "tags"),
    [
        ("overwrite", ("done", "copied", ""), {"v1": "ours"}),
        ("skip", ("skipped", "kept", ""), {"v1": "theirs"}),
        ("fail", ("conflict", "kept", "exists"), {"v1": "theirs"}),
        ("backup", ("done", "copied", ""), {"v1": "ours", "v1-before": "theirs"}),
    ],
)
def test_a_tag_that_somebody_else_made_is_treated_as_the_plan_says(
    make: Callable[..., Setting], existing: str, outcome: Any, tags: dict[str, str]
) -> None:
    setting = make(options={"existing": existing})
    theirs = setting.target.push("team/app", "v1", "theirs").digest
    ours = setting.source.push("team/app", "v1", "ours").digest

    setting.wish("v1")
    setting.drain()

    names = {ours: "ours", theirs: "theirs"}
    assert setting.outcome() == outcome
    assert {
        tag.rpartition(":")[2].replace(f"-{theirs[7:15]}", ""): names[digest]
        for tag, digest in setting.target.state().items()
    } == tags


def test_a_tag_that_we_made_ourselves_is_no_conflict_when_it_moves(
    make: Callable[..., Setting],
) -> None:
    setting = make(options={"existing": "fail"})
    for seed in ("first", "second"):
        setting.source.push("team/app", "v1", seed)
        setting.wish("v1")
        setting.drain()

    assert setting.target.state() == setting.source.state()


def test_what_the_filters_leave_out_is_not_copied(make: Callable[..., Setting]) -> None:
    setting = make(tags={"exclude": ["*-dev"]})
    setting.source.push("team/app", "v1-dev")

    setting.wish("v1-dev")
    setting.drain()

    assert setting.target.state() == {}
    assert setting.outcome("v1-dev") == ("skipped", "filtered", "")


# Deletes


def deleting(make: Callable[..., Setting], deletes: str, reference: str = "v1") -> Setting:
    """A setting in which an image was copied and is gone from the source."""
    setting = make(options={"deletes": deletes})
    setting.source.push("team/app", "v1", "image")
    setting.source.push("team/app", "other", "image")
    setting.wish("v1", "other")
    setting.drain()
    del setting.source.content["team/app"].tags["v1"]
    setting.wish(reference)
    return setting


def test_nothing_is_deleted_unless_asked_for(make: Callable[..., Setting]) -> None:
    setting = deleting(make, "off")

    setting.drain()

    assert "team/app:v1" in setting.target.state()
    assert setting.outcome() == ("skipped", "kept", "")


def test_a_tag_is_deleted_at_the_second_look_and_its_image_stays(
    make: Callable[..., Setting],
) -> None:
    setting = deleting(make, "tags")

    setting.drain()
    assert "team/app:v1" in setting.target.state()
    setting.hurry()
    setting.drain()

    assert set(setting.target.state()) == {"team/app:other"}
    assert setting.outcome() == ("done", "deleted", "")


def test_the_second_look_is_not_brought_forward_by_a_push_during_the_first(
    make: Callable[..., Setting],
) -> None:
    setting = deleting(make, "tags")

    def push(method: str, *arguments: str) -> None:
        if method == "ping":
            setting.source.fail = lambda *_: None
            setting.wish("v1")

    setting.source.fail = push
    setting.drain()

    assert "team/app:v1" in setting.target.state()
    assert setting.outcome() == ("pending", "copied", "gone")


def test_a_copy_that_fails_as_its_image_is_gone_is_no_first_look(
    make: Callable[..., Setting],
) -> None:
    setting = deleting(make, "tags")
    setting.source.push("team/app", "v1", "new")

    def lose(method: str, *arguments: str) -> None:
        if method == "get_manifest":
            setting.source.fail = lambda *_: None
            setting.source.content["team/app"].tags.pop("v1")
            setting.source.content["team/app"].manifests.pop(arguments[1])

    setting.source.fail = lose
    setting.drain()
    assert setting.outcome() == ("pending", "copied", "gone")
    setting.hurry()
    setting.drain()

    assert "team/app:v1" in setting.target.state()
    setting.hurry()
    setting.drain()
    assert "team/app:v1" not in setting.target.state()


def test_a_tag_that_comes_back_before_the_second_look_stays(make: Callable[..., Setting]) -> None:
    setting = deleting(make, "tags")
    setting.drain()

    setting.source.push("team/app", "v1", "image")
    setting.hurry()
    setting.drain()

    assert setting.target.state() == setting.source.state()


def test_a_tag_is_known_as_ours_although_the_worker_that_stored_it_was_killed(
    make: Callable[..., Setting],
) -> None:
    setting = make(options={"deletes": "tags", "existing": "fail"})
    setting.source.push("team/app", "v1", "image")
    setting.wish("v1")
    put = setting.target.put_manifest

    def put_and_die(*arguments: Any) -> None:
        put(*arguments)
        setting.target.put_manifest = put  # type: ignore[method-assign]
        raise LeaseLost  # which leaves the job as it is, like SIGKILL

    setting.target.put_manifest = put_and_die  # type: ignore[method-assign]
    setting.drain()
    assert setting.target.state() == setting.source.state()
    setting.expire_leases()
    setting.drain()
    assert setting.outcome() == ("done", "present", "")

    del setting.source.content["team/app"].tags["v1"]
    setting.wish("v1")
    for _ in range(2):
        setting.hurry()
        setting.drain()

    assert setting.target.state() == {}


@pytest.mark.parametrize("is_back", [False, True], ids=["gone", "pushed again"])
def test_a_delete_that_was_broken_off_in_the_middle_is_brought_to_its_end(
    make: Callable[..., Setting], is_back: bool
) -> None:
    setting = make(options={"deletes": "tags", "existing": "fail"})
    for registry in (setting.source, setting.target):
        registry.push("team/app", "v1", "image")
    target = setting.target.content["team/app"]
    placeholder = make_placeholder("v1")
    target.manifests[placeholder.digest] = placeholder
    target.tags["v1"] = placeholder.digest
    if not is_back:
        del setting.source.content["team/app"].tags["v1"]

    setting.wish("v1")
    for _ in range(2):
        setting.hurry()
        setting.drain()

    assert setting.target.state() == setting.source.state()


def test_a_tag_that_somebody_moved_at_the_target_is_not_deleted(
    make: Callable[..., Setting],
) -> None:
    setting = deleting(make, "tags")
    setting.target.push("team/app", "v1", "theirs")

    setting.drain()
    setting.hurry()
    setting.drain()

    assert "team/app:v1" in setting.target.state()
    assert setting.outcome() == ("skipped", "kept", "")


def test_a_tag_that_a_person_restored_at_the_target_stays(make: Callable[..., Setting]) -> None:
    setting = deleting(make, "tags")
    there = setting.target.content["team/app"].tags
    digest = there["v1"]
    for _ in range(2):
        setting.hurry()
        setting.drain()
    assert "v1" not in there

    there["v1"] = digest
    setting.wish("v1")
    for _ in range(2):
        setting.hurry()
        setting.drain()

    assert there["v1"] == digest
    assert setting.outcome() == ("skipped", "kept", "")


def test_a_tag_that_another_repository_of_the_source_still_has_is_not_deleted(
    make: Callable[..., Setting],
) -> None:
    setting = make(options={"deletes": "tags"}, map=[{"from": "old/", "to": "team/"}])
    for repository in ("old/app", "team/app"):
        setting.source.push(repository, "v1", "image")
        setting.wish("v1", repository=repository)
        setting.drain()
    del setting.source.content["old/app"].tags["v1"]

    setting.wish("v1", repository="old/app")
    for _ in range(2):
        setting.hurry()
        setting.drain()

    assert set(setting.target.state()) == {"team/app:v1"}
    assert setting.job("v1", "old/app").error == "team/app of the source has it"


def test_a_source_that_fails_deletes_nothing(make: Callable[..., Setting]) -> None:
    setting = deleting(make, "tags")

    def fail(method: str, *arguments: str) -> None:
        if method == "tags":
            raise setting.source.error("server", status=500)

    setting.source.fail = fail
    for _ in range(3):
        setting.drain()
        setting.hurry()

    assert "team/app:v1" in setting.target.state()
    assert setting.job().error_class == "server"


def test_a_digest_that_is_in_use_is_not_deleted(make: Callable[..., Setting]) -> None:
    setting = make(options={"deletes": "tags_and_digests"})
    child = setting.source.push("team/app", "", "child")
    alone = setting.source.push("team/app", "", "alone")
    setting.source.push_index("team/app", "v1", [child])
    setting.wish("v1", child.digest, alone.digest)
    setting.drain()
    setting.queue.jobs._jobs.update_one(  # as if it had been copied before its index
        {"reference": child.digest}, {"$set": {"put_digest": child.digest}}
    )
    for manifest in (child, alone):
        del setting.source.content["team/app"].manifests[manifest.digest]
        setting.wish(manifest.digest)

    setting.drain()
    setting.hurry()
    setting.drain()

    assert setting.outcome(alone.digest) == ("done", "deleted", "")
    assert setting.outcome(child.digest) == ("skipped", "kept", "")


def test_many_deletes_at_once_wait_for_a_person(
    make: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brake_module, "BRAKE_LEAST", 2)
    setting = make(options={"deletes": "tags"})
    tags = [f"v{number}" for number in range(6)]
    for tag in tags:
        setting.source.push("team/app", tag)
    setting.wish(*tags)
    setting.drain()
    setting.source.content["team/app"].tags.clear()
    setting.wish(*tags)

    def look_twice() -> int:
        for _ in range(2):
            setting.hurry()
            setting.drain()
        return len(setting.target.state())

    assert look_twice() == 4
    assert setting.queue.plans.get("dc2").deletes_braked

    setting.queue.plans.resume("dc2", "admin", present(), deletes=3)
    assert look_twice() == 1
    setting.queue.plans.resume("dc2", "admin", present(), deletes=3)
    assert look_twice() == 0


def test_a_brake_holds_beyond_the_deletes_that_a_person_allowed_until_it_is_lifted(
    make: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brake_module, "BRAKE_LEAST", 4)
    setting = make(options={"deletes": "tags"})
    tags = [f"v{number}" for number in range(5)]
    for tag in tags:
        setting.source.push("team/app", tag)
    setting.wish(*tags)
    setting.drain()
    setting.queue.plans.brake_deletes("dc2", "a crawl saw 0 tags, the one before it 5", present())
    setting.source.content["team/app"].tags.clear()
    setting.wish(*tags)

    def look_thrice() -> int:
        for _ in range(3):
            setting.hurry()
            setting.drain()
        return len(setting.target.state())

    assert look_thrice() == 5
    setting.queue.plans.resume("dc2", "admin", present(), deletes=3)
    assert look_thrice() == 2
    setting.queue.plans.resume("dc2", "admin", present())
    assert look_thrice() == 2
    setting.queue.plans.lift_brake("dc2", "admin", present())
    assert look_thrice() == 0


def test_a_target_that_deletes_nothing_is_told_once(make: Callable[..., Setting]) -> None:
    setting = deleting(make, "tags")

    def refuse(method: str, *arguments: str) -> None:
        if method == "delete_tag":
            raise setting.target.error("unsupported", status=405)

    setting.target.fail = refuse
    for _ in range(2):
        setting.hurry()
        setting.drain()

    assert setting.outcome() == ("skipped", "kept", "")
    assert setting.queue.plans.get("dc2").cannot_delete


# After the cut-over


def test_after_the_cut_over_nothing_is_overwritten_that_changed_at_the_target(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    tags = ["moved", "deleted", "stays", "new", "theirs"]
    for tag in tags[:3]:
        setting.source.push("team/app", tag)
    setting.wish(*tags[:3])
    setting.drain()
    setting.queue.plans.set_state("dc2", "cut_over", "admin", present())
    moved = setting.target.push("team/app", "moved", "of a client").digest
    theirs = setting.target.push("team/app", "theirs", "of a client").digest
    del setting.target.content["team/app"].tags["deleted"]
    for tag in ("moved", "deleted", "stays", "new", "theirs"):  # of somebody who is late
        setting.source.push("team/app", tag, f"late {tag}")

    for _ in range(2):
        setting.wish(*tags)
        setting.drain()

    late = {name: setting.source.state()[name] for name in ("team/app:stays", "team/app:new")}
    there = late | {"team/app:moved": moved, "team/app:theirs": theirs}
    assert setting.target.state() == there
    assert setting.outcome("moved") == ("skipped", "kept", "")


def while_a_layer_comes(setting: Setting, happens: Callable[[], object]) -> None:
    """Have something happen once, while a layer is read from the source."""

    def fail(method: str, *arguments: str) -> None:
        if method == "open_blob":
            setting.source.fail = lambda *_: None
            happens()

    setting.source.fail = fail


def test_what_a_client_pushes_while_a_late_push_is_copied_stays(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    setting.source.push("team/app", "v1", "first")
    setting.wish("v1")
    setting.drain()
    setting.queue.plans.set_state("dc2", "cut_over", "admin", present())
    setting.source.push("team/app", "v1", "late")
    while_a_layer_comes(setting, lambda: setting.target.push("team/app", "v1", "of a client"))

    setting.wish("v1")
    setting.drain()

    of_client = setting.target.push("team/other", "", "of a client").digest
    assert setting.target.state() == {"team/app:v1": of_client}
    assert setting.outcome() == ("skipped", "kept", "")


@pytest.mark.parametrize(
    ("existing", "outcome", "is_kept"),
    [
        ("overwrite", ("done", "copied", ""), False),
        ("skip", ("skipped", "kept", ""), True),
        ("fail", ("conflict", "kept", "exists"), True),
        ("backup", ("done", "copied", ""), True),
    ],
)
def test_a_tag_that_somebody_makes_while_it_is_copied_is_treated_as_the_plan_says(
    make: Callable[..., Setting], existing: str, outcome: Any, is_kept: bool
) -> None:
    setting = make(options={"existing": existing})
    setting.source.push("team/app", "v1", "ours")
    while_a_layer_comes(setting, lambda: setting.target.push("team/app", "v1", "theirs"))

    setting.wish("v1")
    setting.drain()

    theirs = setting.target.push("team/other", "", "theirs").digest
    assert setting.outcome() == outcome
    assert (theirs in setting.target.state().values()) == is_kept


@pytest.mark.parametrize("state", ["rolled_back", "closed"])
def test_a_job_that_is_under_way_when_its_plan_ends_writes_nothing_more(
    make: Callable[..., Setting], state: Any
) -> None:
    setting = make()
    setting.source.push("team/app", "v1")
    while_a_layer_comes(
        setting, lambda: setting.queue.plans.set_state("dc2", state, "admin", present())
    )

    setting.wish("v1")
    setting.drain()

    assert setting.target.state() == {}
    assert (setting.job().state, setting.job().attempts) == ("pending", 0)


def test_a_plan_that_is_rolled_back_is_not_tried_although_an_endpoint_failed(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    setting.source.push("team/app", "v1")
    setting.wish("v1")
    setting.queue.plans.open_breaker("dc2", breaker())
    setting.queue.plans.set_state("dc2", "rolled_back", "admin", present())
    setting.worker.status(fresh=True)

    assert not setting.worker.dispatch_one()

    assert setting.target.state() == {}


def test_after_the_cut_over_nothing_is_deleted(make: Callable[..., Setting]) -> None:
    setting = deleting(make, "tags")
    setting.queue.plans.set_state("dc2", "cut_over", "admin", present())

    for _ in range(2):
        setting.drain()
        setting.hurry()

    assert "team/app:v1" in setting.target.state()
    assert setting.outcome() == ("skipped", "kept", "")


# The way back


def test_what_was_pushed_after_the_cut_over_comes_back_under_its_old_name(
    make: Callable[..., Setting], mock_stores: Stores
) -> None:
    setting = make(map=[{"from": "team/", "to": "new/"}])
    setting.source.push("team/app", "v1", "old")
    setting.wish("v1")
    setting.drain()
    setting.target.push("new/app", "v1", "newer")
    setting.target.push("new/other", "v1")
    migrations = [
        {
            "name": "dc2",
            "source": {"url": OLD},
            "target": {"url": NEW, "registry_id": "new"},
            "map": [{"from": "team/", "to": "new/"}],
        },
        {"name": "back", "reverse_of": "dc2"},
    ]
    _, back = load_plans(Settings(migrations=msgspec.convert(migrations, list[Migration])))
    by_url = {OLD: setting.source, NEW: setting.target}
    worker = PlanWorker(
        mock_stores,
        back,
        "worker",
        connect=lambda endpoint, **hooks: by_url[endpoint.url],  # type: ignore[arg-type, return-value]
    )
    setting.queue.plans.start("back", "test", present())

    worker.conductor.conduct_once()
    while worker.run_one():
        pass

    assert setting.source.state() == {
        name.replace("new/", "team/"): digest for name, digest in setting.target.state().items()
    }
    worker.close()


# Referrers


def sign(setting: Setting, image: Manifest, number: int = 1) -> list[Manifest]:
    """Have the source keep signatures of an image, and list them by its API."""
    setting.source._has_referrers_api = True
    subject = {"mediaType": image.media_type, "digest": image.digest, "size": len(image.body)}
    return [
        setting.source.push("team/app", "", f"signature {number} {image.digest}", subject=subject)
        for number in range(number)
    ]


def test_a_referrer_comes_with_its_image_and_is_listed_where_the_target_lists_none(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    image = setting.source.push("team/app", "v1")
    signatures = sign(setting, image, 2)

    setting.wish("v1")
    setting.drain()

    listed = setting.target.referrers("team/app", image.digest)
    assert {entry.digest for entry in listed} == {signature.digest for signature in signatures}
    job = setting.job(signatures[0].digest)
    assert (job.state, job.put_digest) == ("done", signatures[0].digest)
    assert verify(setting) == {}  # although only the target has a tag for the list


@pytest.mark.parametrize("is_killed", [False, True], ids=["at once", "at the second attempt"])
def test_referrers_of_the_children_of_an_index_come_with_it(
    make: Callable[..., Setting], is_killed: bool
) -> None:
    setting = make()
    child = setting.source.push("team/app", "", "child")
    index = setting.source.push_index("team/app", "v1", [child])
    signatures = [*sign(setting, child), *sign(setting, index)]

    def die(method: str, *arguments: str) -> None:
        if method == "referrers" and is_killed:
            setting.source.fail = lambda *_: None
            raise LeaseLost

    setting.source.fail = die
    setting.wish("v1")
    setting.drain()
    setting.expire_leases()
    setting.drain()

    there = setting.target.content["team/app"].manifests
    assert {signature.digest for signature in signatures} <= set(there)


@pytest.mark.parametrize("tries", [1, 4], ids=["for once", "for a while"])
def test_a_referrer_that_could_not_be_listed_is_listed_by_the_next_attempt(
    make: Callable[..., Setting], tries: int
) -> None:
    setting = make()
    image = setting.source.push("team/app", "v1")
    (signature,) = sign(setting, image)
    refused: list[str] = []

    def refuse(method: str, *arguments: str) -> None:
        is_list = method == "put_manifest" and arguments[1].startswith("sha256-")
        if is_list and len(refused) < tries:
            refused.append(arguments[1])
            raise setting.target.error("rate_limited", status=429)

    setting.target.fail = refuse
    setting.wish("v1")
    for _ in range(tries + 1):
        setting.drain()
        setting.hurry()

    assert setting.target.referrers("team/app", image.digest) == [signature.descriptor]
    assert setting.outcome(signature.digest) == ("done", "present", "")


def test_referrers_of_an_image_that_come_at_the_same_time_are_all_listed(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    image = setting.source.push("team/app", "v1")
    signatures = sign(setting, image, 4)
    setting.wish("v1")
    setting.worker.run_one()
    begun = threading.Barrier(len(signatures))

    def begin_together(method: str, *arguments: str) -> None:
        if method == "put_manifest" and arguments[1].startswith("sha256-"):
            try:
                begun.wait(0.05)
            except threading.BrokenBarrierError:
                begun.reset()

    setting.target.fail = begin_together
    threads = [threading.Thread(target=setting.worker.run_one) for _ in signatures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    listed = setting.target.referrers("team/app", image.digest)
    assert {entry.digest for entry in listed} == {signature.digest for signature in signatures}


def test_a_referrer_that_another_process_dropped_from_the_list_is_listed_again(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    by_url = {OLD: setting.source, NEW: setting.target}
    other = PlanWorker(
        setting.stores,
        setting.plan,
        "other",
        connect=lambda endpoint, **hooks: by_url[endpoint.url],  # type: ignore[arg-type, return-value]
    )
    image = setting.source.push("team/app", "v1")
    signatures = sign(setting, image, 2)
    setting.wish("v1")
    setting.worker.run_one()

    def overtake(method: str, *arguments: str) -> None:
        if method == "put_manifest" and arguments[1].startswith("sha256-"):
            setting.target.fail = lambda *_: None
            other.run_one()

    setting.target.fail = overtake
    setting.worker.run_one()
    assert len(setting.target.referrers("team/app", image.digest)) == 1

    setting.drain()

    listed = setting.target.referrers("team/app", image.digest)
    assert {entry.digest for entry in listed} == {signature.digest for signature in signatures}
    other.close()


def test_a_referrer_that_the_target_does_not_list_is_not_done(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    image = setting.source.push("team/app", "v1")
    (signature,) = sign(setting, image)

    def lose(method: str, *arguments: str) -> None:  # to another process that writes later
        if method == "referrers":
            setting.target.content["team/app"].tags.pop(arguments[1].replace(":", "-"), None)

    setting.target.fail = lose
    setting.wish("v1")
    setting.drain()

    assert (setting.job(signature.digest).state, setting.job(signature.digest).error_class) == (
        "pending",
        "server",
    )


def test_a_list_of_referrers_of_an_image_that_is_gone_is_extra(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    setting.source.push("team/app", "v1")
    setting.wish("v1")
    setting.drain()
    of_nothing = f"sha256-{'0' * 64}"
    tags = {of_nothing, f"{of_nothing}.sig", f"commit-{'0' * 40}"}
    for tag in tags:
        setting.target.push("team/app", tag)

    assert verify(setting) == dict.fromkeys(tags, "extra")


# Errors


@pytest.mark.parametrize(
    ("error_class", "attempts", "state"),
    [
        ("down", 1, "pending"),
        ("down", 8, "dead"),
        ("rate_limited", 7, "pending"),
        ("server", 8, "dead"),
        ("bug", 1, "pending"),
        ("forbidden", 1, "dead"),
        ("digest_mismatch", 1, "pending"),
        ("digest_mismatch", 2, "dead"),
        ("unsupported", 1, "conflict"),
        ("immutable", 1, "conflict"),
        ("too_large", 1, "conflict"),
    ],
)
def test_an_error_decides_what_becomes_of_a_job(
    error_class: str, attempts: int, state: str
) -> None:
    assert state_after(error_class, attempts, 8) == state


def test_the_pause_grows_up_to_a_limit_unless_the_registry_names_it() -> None:
    assert all(retry_delay_s(1) <= 4 for _ in range(100))
    assert all(retry_delay_s(1000) <= 900 for _ in range(100))
    assert max(retry_delay_s(6) for _ in range(1000)) > 60
    assert retry_delay_s(1, 17.0) == 17.0


def test_a_job_that_fails_for_ever_dies_with_its_reason(make: Callable[..., Setting]) -> None:
    setting = make(options={"max_attempts": 3})
    setting.source.push("team/app", "v1")

    def fail(method: str, *arguments: str) -> None:
        if method == "put_manifest":
            raise setting.target.error("server", status=500)

    setting.target.fail = fail
    setting.wish("v1")
    for _ in range(4):
        setting.drain()
        setting.hurry()

    assert setting.outcome() == ("dead", "", "server")
    assert setting.job().error == f"{NEW}: server"


def test_a_tag_whose_manifest_the_source_lost_is_neither_done_nor_equal(
    make: Callable[..., Setting],
) -> None:
    setting = make(options={"deletes": "tags"})
    for tag in ("v1", "v2"):
        setting.source.push("team/app", tag)
    setting.wish("v1")
    setting.drain()
    setting.source.content["team/app"].manifests.clear()

    setting.wish("v1", "v2")
    for _ in range(9):
        setting.drain()
        setting.hurry()

    assert setting.outcome("v1") == setting.outcome("v2") == ("dead", "", "blob_unknown")
    assert set(setting.target.state()) == {"team/app:v1"}
    assert verify(setting) == {"v1": "unknown", "v2": "unknown"}


def test_a_target_that_takes_requests_and_hangs_stops_the_plan(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    for number in range(6):
        setting.source.push("team/app", f"v{number}")
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        endpoint = Endpoint(url=url, plain_http=True, read_timeout_s=0.2)
        with closing(RegistryClient(endpoint)) as target:
            setting.connect_target(target)
            setting.wish(*(f"v{number}" for number in range(6)))
            for _ in range(6):
                setting.worker.run_one()

    breaker = setting.queue.plans.get("dc2").breaker
    assert breaker
    assert (breaker.registry, breaker.error_class) == (url, "down")
    assert "timed out" in breaker.message
    assert setting.queue.jobs.count_by_state("dc2") == {"pending": 6}


def test_a_bug_kills_neither_the_worker_nor_the_other_jobs(make: Callable[..., Setting]) -> None:
    setting = make()
    for tag in ("v1", "v2"):
        setting.source.push("team/app", tag)

    def fail(method: str, *arguments: str) -> None:
        if arguments[-1:] == ("v1",):
            raise ZeroDivisionError("a bug")

    setting.source.fail = fail
    setting.wish("v1", "v2")
    setting.drain()

    assert set(setting.target.state()) == {"team/app:v2"}
    assert (setting.job().state, setting.job().error) == ("pending", "ZeroDivisionError: a bug")


def test_an_outage_stops_the_plan_and_uses_up_no_attempts(make: Callable[..., Setting]) -> None:
    setting = make()
    tags = [f"v{number}" for number in range(8)]
    for tag in tags:
        setting.source.push("team/app", tag)

    def fail(method: str, *arguments: str) -> None:
        if method == "put_manifest":  # a read-only registry answers to reads
            raise setting.target.error("readonly")

    def attempts() -> int:
        return sum(setting.job(tag).attempts for tag in tags)

    setting.target.fail = fail
    setting.wish(*tags)
    for _ in range(5):
        setting.worker.run_one()
    breaker = setting.queue.plans.get("dc2").breaker
    assert breaker
    assert (breaker.registry, breaker.error_class, attempts()) == (NEW, "readonly", 4)

    for _ in range(10):
        setting.probe_now()
        assert not setting.worker.dispatch_one()
    assert setting.queue.plans.get("dc2").breaker
    assert attempts() == 4

    setting.target.fail = lambda *_: None
    setting.hurry()
    setting.probe_now()
    assert setting.worker.dispatch_one()
    assert setting.queue.plans.get("dc2").breaker is None
    setting.drain()
    assert setting.target.state() == setting.source.state()


def breaker(probes: int = 0, error_class: str = "down") -> Breaker:
    now = present()
    return Breaker(
        registry=NEW, error_class=error_class, message="", since=now, probe_at=now, probes=probes
    )


def test_a_plan_goes_on_by_itself_after_the_longest_outage(make: Callable[..., Setting]) -> None:
    setting = make()
    setting.queue.plans.open_breaker("dc2", breaker(probes=10_000))

    assert setting.worker.dispatch_one()

    assert setting.queue.plans.get("dc2").breaker is None


def test_only_a_write_shows_that_a_target_takes_writes_again(make: Callable[..., Setting]) -> None:
    setting = make()
    tags = [f"v{number}" for number in range(5)]
    for tag in tags:
        setting.source.push("team/app", tag)

    def fail(method: str, *arguments: str) -> None:
        if method == "put_manifest":
            raise setting.target.error("readonly")

    def is_stopped() -> bool:
        setting.probe_now()
        setting.worker.dispatch_one()
        return setting.queue.plans.get("dc2").breaker is not None

    setting.target.fail = fail
    for tag in tags:  # what the target has already does not hide that it takes nothing new
        setting.wish(tag)
        setting.worker.run_one()
        present_tag = f"present-{tag}"
        for registry in (setting.source, setting.target):
            registry.push("team/app", present_tag)
        setting.wish(present_tag)
        setting.worker.run_one()
    assert is_stopped()

    setting.queue.jobs._jobs.update_many(
        {"state": "pending"}, {"$set": {"due": present() + LEASE, "attempts": 1}}
    )
    assert is_stopped()  # when nothing is due
    lost = setting.source.push("team/app", "lost")
    del setting.source.content["team/app"].manifests[lost.digest]
    for registry in (setting.source, setting.target):
        registry.push("team/app", "there")
    setting.wish("lost", "there")
    assert is_stopped()  # when all that is due tells nothing
    assert setting.outcome("there") == ("done", "present", "")
    assert {setting.job(tag).attempts for tag in tags} == {1}

    setting.target.fail = lambda *_: None
    setting.hurry()
    assert not is_stopped()
    setting.drain()
    assert {setting.outcome(tag)[:2] for tag in tags} == {("done", "copied")}


def test_a_full_target_for_which_nothing_is_left_to_do_stops_no_plan(
    make: Callable[..., Setting],
) -> None:
    setting = deleting(make, "tags")
    setting.drain()
    setting.hurry()
    setting.queue.plans.brake_deletes("dc2", "too many", present())
    setting.drain()
    assert setting.job().error_class == "braked"
    setting.queue.plans.open_breaker("dc2", breaker(error_class="disk_full"))
    setting.probe_now()

    assert setting.worker.dispatch_one()

    assert setting.queue.plans.get("dc2").breaker is None


@pytest.mark.parametrize("what", ["pause", "resume", "roll back"])
def test_a_person_interrupts_the_search_for_a_job_that_writes(
    make: Callable[..., Setting], what: str
) -> None:
    setting = make()
    tags = [f"v{number}" for number in range(5)]
    for tag in tags:
        for registry in (setting.source, setting.target):
            registry.push("team/app", tag)
    setting.wish(*tags)
    setting.queue.plans.open_breaker("dc2", breaker(error_class="readonly"))

    def act(method: str, *arguments: str) -> None:
        if method != "head_manifest":
            return
        if what == "pause":
            setting.queue.plans.pause("dc2", "alice", present())
        elif what == "resume":
            setting.queue.plans.resume("dc2", "alice", present())
        else:
            setting.queue.plans.set_state("dc2", "rolled_back", "alice", present())

    setting.source.fail = act

    assert not setting.worker.dispatch_one()

    assert setting.queue.jobs.count_by_state("dc2") == {"done": 1, "pending": 4}


def test_a_target_that_refuses_only_deletes_stops_no_plan(make: Callable[..., Setting]) -> None:
    setting = make(options={"deletes": "tags", "max_attempts": 2})
    tags = [f"v{number}" for number in range(6)]
    for tag in tags:
        setting.source.push("team/app", tag)
    setting.wish(*tags)
    setting.drain()

    def fail(method: str, *arguments: str) -> None:
        if method.startswith("delete"):
            raise setting.target.error("readonly")

    setting.target.fail = fail
    setting.source.content["team/app"].tags.clear()
    setting.wish(*tags)
    for _ in range(4):  # two looks before each of two attempts
        setting.drain()
        setting.hurry()

    assert setting.queue.plans.get("dc2").breaker is None
    assert {setting.outcome(tag) for tag in tags} == {("dead", "", "server")}


def test_a_job_that_was_skipped_and_retried_begins_anew_for_a_worker_that_knew_it(
    make: Callable[..., Setting],
) -> None:
    setting = deleting(make, "tags")
    setting.drain()
    setting.hurry()
    setting.worker._claims._due[LIVE].extend(setting.queue.jobs.find_due("dc2", LIVE, present()))
    setting.queue.jobs.waive("dc2", "alice", setting.job().id, present())
    setting.queue.jobs.retry("dc2", "alice", present(), id=setting.job().id)

    setting.drain()

    assert (setting.job().state, setting.job().error_class) == ("pending", "gone")
    assert "team/app:v1" in setting.target.state()


def test_pushes_go_first_but_do_not_starve_the_backfill(make: Callable[..., Setting]) -> None:
    setting = make()
    for number in range(20):
        setting.source.push("team/app", f"v{number}")
        setting.wish(f"v{number}")
    setting.source.push("team/old", "v1")
    setting.queue.jobs.wish([Wish("dc2", "team/old", "v1", BACKFILL)], present() - LEASE)

    setting.worker.run_one()
    assert setting.job("v1", "team/old").state == "pending"
    for _ in range(4):
        setting.worker.run_one()

    assert setting.job("v1", "team/old").state == "done"


def test_a_job_that_kills_every_worker_dies(make: Callable[..., Setting]) -> None:
    setting = make(options={"max_attempts": 2})
    setting.queue.jobs.wish([Wish("dc2", "team/app", "v1", LIVE)], present() - LEASE * 5)
    assert setting.queue.jobs.claim(setting.job(), "killed", present() - LEASE * 4)
    assert setting.queue.jobs.claim_expired("dc2", "killed", present() - LEASE * 2)

    assert not setting.worker.run_one()

    assert setting.outcome() == ("dead", "", "bug")


def test_a_job_that_gets_no_thread_is_handed_back(
    make: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = make()
    setting.wish("v1")

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError):
            setting.worker.dispatch_one()

    job = setting.job()
    assert (job.state, job.attempts, setting.worker.running) == ("pending", 0, {})


def test_a_worker_that_is_stopped_hands_back_what_it_cannot_end(
    make: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "GRACE_S", 0.1)
    setting = make()
    setting.source.push("team/app", "v1")
    begun, released = threading.Event(), threading.Event()

    def hang(method: str, *arguments: str) -> None:
        if method == "put_upload":
            begun.set()
            released.wait(20)

    setting.target.fail = hang
    setting.wish("v1")
    process = Worker(setting.stores, [])
    process.plans.append(setting.worker)
    process.start()
    assert begun.wait(20)

    assert not process.stop()

    assert (setting.job().state, setting.job().attempts) == ("pending", 0)
    released.set()
    assert wait_until(lambda: not setting.worker.running, 20)
    assert setting.target.state() == {}
    assert setting.job().state == "pending"


def test_a_worker_copies_what_is_there_and_then_what_is_pushed(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    for name in "abc":
        setting.source.push(f"team/{name}", "v1")
    process = Worker(setting.stores, [])
    process.plans.append(setting.worker)
    process.start()
    assert wait_until(lambda: setting.queue.plans.get("dc2").state == "live", 20)
    assert setting.target.state() == setting.source.state()

    setting.source.push("team/a", "v2")
    setting.wish("v2", repository="team/a")

    assert wait_until(lambda: setting.target.state() == setting.source.state(), 20)
    assert process.stop()
    assert setting.queue.workers.find(present()) == []


def test_nothing_of_a_worker_runs_once_it_is_stopped(
    make: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = make()
    begun = threading.Event()

    def take_a_while() -> None:
        begun.set()
        time.sleep(0.3)

    monkeypatch.setattr(setting.worker.conductor, "conduct_once", take_a_while)
    process = Worker(setting.stores, [])
    process.plans.append(setting.worker)
    process.start()
    assert begun.wait(20)

    process.stop()

    assert not any(thread.is_alive() for thread in process._threads)


# Crawls


def test_a_crawl_says_why_it_was_begun(make: Callable[..., Setting]) -> None:
    setting = make()
    setting.source.push("team/app", "v1")
    setting.worker.conductor.conduct_once()
    first = setting.queue.runs.get("dc2", "crawl")
    setting.queue.plans.want_crawl("dc2", "the source was restarted", "test", present())
    setting.worker.conductor.conduct_once()
    second = setting.queue.runs.get("dc2", "crawl")

    assert first
    assert second
    assert (first.why, second.why) == ("started", "the source was restarted")


def test_a_crawl_goes_on_where_it_stopped(make: Callable[..., Setting]) -> None:
    setting = make()
    for name in "abcde":
        setting.source.push(f"team/{name}", "v1")
    seen: list[str] = []
    saved: list[Run] = []

    def save(run: Run) -> bool:
        saved.append(run)
        return True

    def fail(method: str, *arguments: str) -> None:
        if arguments == ("team/d",):
            raise setting.source.error("down")

    crawler = Crawler(
        setting.plan,
        setting.source,  # type: ignore[arg-type]
        lambda repository, tags: seen.append(repository),
        save,
    )
    setting.source.fail = fail
    with pytest.raises(Exception, match="down"):
        crawler.crawl(Run(plan="dc2", kind="crawl", started_at=present()))
    assert saved[-1].cursor == "team/c"
    setting.source.fail = lambda *_: None

    ended = crawler.crawl(saved[-1])

    assert seen == [f"team/{name}" for name in "abcde"]
    assert ended
    assert (ended.repositories, ended.tags) == (5, 5)


@pytest.mark.parametrize(
    ("deletes", "left"), [("tags", {"team/a:v1"}), ("off", {"team/a:v1", "team/a:v2", "team/b:v1"})]
)
def test_a_crawl_finds_what_was_deleted_unheard_where_deletes_follow(
    make: Callable[..., Setting], deletes: str, left: set[str]
) -> None:
    setting = make(options={"deletes": deletes})
    for name, tag in (("team/a", "v1"), ("team/a", "v2"), ("team/b", "v1")):
        setting.source.push(name, tag)
    setting.worker.conductor.conduct_once()
    setting.drain()
    assert setting.target.state() == setting.source.state()

    del setting.source.content["team/a"].tags["v2"]
    del setting.source.content["team/b"]
    setting.queue.plans.start("dc2", "test", present())
    setting.worker.conductor.conduct_once()
    if deletes == "tags":  # a third of all is gone
        assert setting.queue.plans.get("dc2").deletes_braked
        setting.queue.plans.resume("dc2", "admin", present(), deletes=2)
    for _ in range(2):
        setting.hurry()
        setting.drain()

    assert set(setting.target.state()) == left


def test_a_crawl_begins_with_what_is_pulled_most_and_visits_nothing_twice(
    make: Callable[..., Setting],
) -> None:
    setting = make(repos={"exclude": ["team/x"]})
    for name in "abcx":
        setting.source.push(f"team/{name}", "v1")
    seen: list[str] = []
    crawler = Crawler(
        setting.plan,
        setting.source,  # type: ignore[arg-type]
        lambda repository, tags: seen.append(repository),
        lambda run: True,
        ranked=lambda: ["team/c", "team/x"],
    )

    crawler.crawl(Run(plan="dc2", kind="crawl", started_at=present()))

    assert seen == ["team/c", "team/a", "team/b"]


def test_a_crawl_goes_on_in_the_order_in_which_it_began(make: Callable[..., Setting]) -> None:
    setting = make()
    for name in "abcd":
        setting.source.push(f"team/{name}", "v1")
    seen: list[str] = []
    saved: list[Run] = []

    def fail(method: str, *arguments: str) -> None:
        if arguments == ("team/b",):
            raise setting.source.error("down")

    crawler = Crawler(
        setting.plan,
        setting.source,  # type: ignore[arg-type]
        lambda repository, tags: seen.append(repository),
        lambda run: not saved.append(run),  # type: ignore[func-returns-value]
        ranked=lambda: ["team/d", "team/b", "team/c"],
    )
    setting.source.fail = fail
    with pytest.raises(Exception, match="down"):
        crawler.crawl(Run(plan="dc2", kind="crawl", started_at=present()))
    setting.source.fail = lambda *_: None

    ended = crawler.crawl(saved[-1])

    assert seen == ["team/d", "team/b", "team/c", "team/a"]
    assert ended
    assert (ended.repositories, ended.tags) == (4, 4)


def pull(
    stores: Stores, repository: str, *, of: str = "image", times: int = 1, days: int = 0
) -> None:
    """Events of pulls by a client, so many days ago."""
    moment = present() - timedelta(days=days)
    events = [
        wire_event("pull", repository, of=of, at=moment, address=f"10.0.0.{number}:1")
        for number in range(times)
    ]
    deliver(stores, envelope(*events), "default", present())


def test_what_was_pulled_most_of_late_is_crawled_first(make: Callable[..., Setting]) -> None:
    setting = make(options={"referrers": False})
    for name in "abcd":
        setting.source.push(f"team/{name}", "v1")
    pull(setting.stores, "team/b")
    pull(setting.stores, "team/d", times=3)
    pull(setting.stores, "team/a", times=9, days=200)

    setting.worker.conductor.conduct_once()

    listed = [call[1] for call in setting.source.calls if call[0] == "tags"]
    assert listed == ["team/d", "team/b", "team/a", "team/c"]
    assert rank_repositories(setting.stores, "other", present()) == []


@pytest.mark.parametrize(
    ("untagged", "copied"),
    [
        ("none", set()),
        ({"pulled_within": "30d"}, {"pulled"}),
        ("all_known", {"pulled", "pulled long ago", "pushed"}),
    ],
)
def test_digests_without_a_tag_come_as_far_as_asked_for_and_known(
    make: Callable[..., Setting], untagged: Any, copied: set[str]
) -> None:
    setting = make(options={"untagged": untagged}, repos={"exclude": ["team/x"]})
    names = ("pulled", "pulled long ago", "pushed", "unknown")
    digests = {}
    for name in names:
        setting.source.push("team/x", "", name)
        digests[setting.source.push("team/app", "", name).digest] = name
    by_name = {name: digest for digest, name in digests.items()}
    push = wire_event("push", "team/app", at=present())
    push["target"]["digest"] = by_name["pushed"]
    deliver(setting.stores, envelope(push), "default", present())
    for name, days in (("pulled", 1), ("pulled long ago", 40)):
        for repository in ("team/app", "team/x"):
            event = wire_event("pull", repository, at=present() - timedelta(days=days))
            event["target"]["digest"] = by_name[name]
            if name == "pulled":  # a signature is wanted like an image
                event["target"]["artifactType"] = "application/vnd.dev.sigstore.bundle.v0.3+json"
            deliver(setting.stores, envelope(event), "default", present())

    setting.worker.conductor.conduct_once()
    setting.drain()

    assert {digests[digest] for digest in setting.target.content["team/app"].manifests} == copied
    assert "team/x" not in setting.target.content


def test_a_crawl_waits_for_days_whose_digests_are_not_known_yet(
    make: Callable[..., Setting],
) -> None:
    setting = make(options={"untagged": "all_known"})
    setting.source.push("team/app", "v1")
    digest = setting.source.push("team/app", "", "pulled").digest
    pull = wire_event("pull", "team/app", at=present() - timedelta(days=9))
    pull["target"]["digest"] = digest
    deliver(setting.stores, envelope(pull), "default", present() - timedelta(days=8))
    setting.stores.usage.max_live_rows = 0

    with pytest.raises(IllegalState, match="rns usage refresh"):
        setting.worker.conductor.conduct_once()
    run = setting.queue.runs.get("dc2", "crawl")
    assert run
    assert (run.state, run.message[:17]) == ("running", "options.untagged:")

    setting.stores.usage.max_live_rows = 1
    for day in setting.stores.days.find_open_days(present()):
        setting.stores.days.close_day(day)
    setting.worker.conductor.conduct_once()
    setting.drain()
    assert digest in setting.target.content["team/app"].manifests
    assert find_progress(setting.queue, setting.plan, present()).is_crawled


def test_without_a_catalogue_the_known_repositories_are_crawled(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    setting.source.push("team/app", "v1")

    def fail(method: str, *arguments: str) -> None:
        if method == "catalog":
            raise setting.source.error("unsupported", status=404)

    setting.source.fail = fail
    seen: list[str] = []
    crawler = Crawler(
        setting.plan,
        setting.source,  # type: ignore[arg-type]
        lambda repository, tags: seen.append(repository),
        lambda run: True,
        known=lambda: ["team/app", "team/none"],
    )

    crawler.crawl(Run(plan="dc2", kind="crawl", started_at=present()))

    assert seen == ["team/app"]


def check_of(setting: Setting, name: str) -> bool | None:
    checks = find_checks(setting.stores, setting.plan, present())
    return next(check.is_met for check in checks if check.name == name)


def test_a_crawl_by_names_that_events_told_is_not_known_to_be_of_everything(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    for name in ("team/app", "team/quiet"):
        setting.source.push(name, "v1")

    def fail(method: str, *arguments: str) -> None:
        if method == "catalog":
            raise setting.source.error("forbidden", status=401)

    setting.source.fail = fail
    for registry, name in (("default", "team/app"), ("other", "team/other")):
        push = wire_event("push", name, at=present())
        deliver(setting.stores, envelope(push), registry, present())
    setting.worker.conductor.conduct_once()
    setting.drain()
    assert verify_plan_of(setting) == []

    assert ("tags", "team/other") not in setting.source.calls
    assert check_of(setting, "crawled") is check_of(setting, "verified") is None
    setting.source.fail = lambda *_: None
    setting.queue.plans.start("dc2", "test", present())
    setting.worker.conductor.conduct_once()
    setting.drain()
    assert verify_plan_of(setting) == []
    assert check_of(setting, "crawled") is check_of(setting, "verified") is True


@pytest.mark.parametrize("error_class", ["forbidden", "server", "unsupported"])
def test_a_repository_that_cannot_be_listed_holds_up_the_cut_over_and_nothing_else(
    make: Callable[..., Setting], error_class: str
) -> None:
    setting = make()
    for name in ("team/app", "team/secret", "team/z"):
        setting.source.push(name, "v1")

    def refuse(method: str, *arguments: str) -> None:
        if arguments[:1] == ("team/secret",):
            raise setting.source.error(error_class)

    setting.source.fail = refuse
    setting.worker.conductor.conduct_once()
    setting.drain()

    assert set(setting.target.state()) == {"team/app:v1", "team/z:v1"}
    assert check_of(setting, "crawled") is False
    run = setting.queue.runs.get("dc2", "crawl")
    assert run
    assert (run.state, run.passed_over) == ("done", ["team/secret"])
    (row,) = verify_plan_of(setting)
    assert (row.repository, row.reference, row.kind) == ("team/secret", "", "unknown")


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_a_repository_that_cannot_be_listed_for_a_while_is_visited_at_the_end_of_the_crawl(
    make: Callable[..., Setting], is_interrupted: bool
) -> None:
    setting = make()
    for name in ("a", "b", "c"):
        setting.source.push(name, "v1")
    errors = ["server", "server", "down"] if is_interrupted else ["server", "server"]

    def fail(method: str, *arguments: str) -> None:
        if method == "tags" and arguments[0] in "ab" and errors:
            raise setting.source.error(errors.pop(0))

    setting.source.fail = fail
    if is_interrupted:
        with pytest.raises(RegistryError):
            setting.worker.conductor.conduct_once()
    setting.worker.conductor.conduct_once()
    setting.drain()

    assert setting.target.state() == setting.source.state()
    run = setting.queue.runs.get("dc2", "crawl")
    assert run
    assert (run.state, run.passed_over, run.tags) == ("done", [], 3)


def test_a_crawl_by_names_that_was_interrupted_at_the_last_one_ends(
    make: Callable[..., Setting],
) -> None:
    setting = make()

    def fail(method: str, *arguments: str) -> None:
        if method == "catalog":
            raise setting.source.error("unsupported", status=404)

    setting.source.fail = fail

    assert list(find_repositories(setting.source, "b", lambda: ["a", "b"])) == []  # type: ignore[arg-type]


def test_a_crawl_is_held_until_its_last_job_is_wished_for(
    make: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = make(options={"untagged": "all_known"})
    setting.source.push("team/app", "v1")
    soon = present() + LEASE * 1.5
    taken: list[Run | None] = []

    def look_long(*_: Any) -> dict[str, set[str]]:
        setting.worker.conductor.beat(present() + LEASE)
        taken.append(setting.queue.runs.begin("dc2", "crawl", "other", soon))
        return {}

    monkeypatch.setattr(conductor_module, "find_digests", look_long)
    setting.worker.conductor.conduct_once()

    assert taken == [None]
    run = setting.queue.runs.get("dc2", "crawl")
    assert run
    assert run.state == "done"


def test_a_source_that_refuses_the_crawl_stops_the_plan_at_once(
    make: Callable[..., Setting],
) -> None:
    setting = make()

    def refuse(method: str, *arguments: str) -> None:
        raise setting.source.error("auth", status=401)

    setting.source.fail = refuse
    process = Worker(setting.stores, [])
    process.plans.append(setting.worker)

    process.start()

    assert wait_until(lambda: setting.queue.plans.get("dc2").breaker is not None, 20)
    process.stop()
    run = setting.queue.runs.get("dc2", "crawl")
    assert run
    assert (run.state, run.message) == ("running", f"{OLD}: auth")


# Verification


def verify(setting: Setting, **extent: Any) -> dict[str, str]:
    run = Run(plan="dc2", kind="verify", started_at=present())
    with ThreadPoolExecutor(2) as threads:
        verifier = Verifier(
            setting.worker._sides,
            threads,
            extent=Extent(**extent, recheck_s=0),
        )
        verified = verifier.verify(run, lambda run: True)
    assert verified
    return {row.reference: row.kind for row in verified[1]}


def test_every_kind_of_difference_is_found(make: Callable[..., Setting]) -> None:
    setting = make()
    for tag in ("equal", "missing", "different", "unknown"):
        setting.source.push("team/app", tag)
    for tag, seed in (("equal", "equal"), ("different", "other"), ("extra", ""), ("unknown", "")):
        setting.target.push("team/app", tag, seed)

    def fail(method: str, *arguments: str) -> None:
        if arguments[-1:] == ("unknown",):
            raise setting.source.error("down")

    setting.source.fail = fail

    assert verify(setting) == {
        "missing": "missing",
        "different": "different",
        "extra": "extra",
        "unknown": "unknown",
    }


def test_a_target_that_answers_404_for_what_it_does_not_have_is_compared(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    setting.source.push("team/app", "v1")

    def refuse(method: str, *arguments: str) -> None:
        if method == "tags":
            raise setting.target.error("unsupported", status=404)

    setting.target.fail = refuse

    assert verify(setting) == {"v1": "missing"}


def test_a_deep_look_finds_lost_blobs_and_children_and_the_next_job_repairs_them(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    child = setting.source.push("team/app", "", "child")
    setting.source.push_index("team/app", "index", [child])
    setting.source.push("team/app", "image")
    setting.wish("index", "image")
    setting.drain()
    assert verify(setting, deep=True) == {}
    setting.target.content["team/app"].blobs.clear()
    assert verify(setting) == {}

    assert verify(setting, deep=True) == {"index": "broken_blob", "image": "broken_blob"}
    del setting.target.content["team/app"].manifests[child.digest]
    assert verify(setting, deep=True)["index"] == "broken_child"

    rows = {row.reference: row for row in verify_plan_of(setting, deep=True)}
    assert child.digest in rows["index"].message
    blobs = setting.source.content["team/app"].blobs
    assert any(digest in rows["image"].message for digest in blobs)
    setting.drain()
    assert verify(setting, deep=True) == {}


@pytest.mark.parametrize("foreign_layers", ["copy", "skip"])
def test_a_deep_look_finds_a_lost_foreign_layer_where_they_are_copied(
    make: Callable[..., Setting], foreign_layers: str
) -> None:
    setting = make(options={"foreign_layers": foreign_layers})
    layer = setting.source.add_blob("team/app", b"windows")
    layers = [{**layer, "urls": ["https://example.org/"]}]
    setting.source.push("team/app", "v1", layers=layers)
    setting.wish("v1")
    setting.drain()
    assert verify(setting, deep=True) == {}

    setting.target.content["team/app"].blobs.pop(layer["digest"], None)

    is_lost = foreign_layers == "copy"
    assert verify(setting, deep=True) == ({"v1": "broken_blob"} if is_lost else {})


def test_a_part_is_compared_as_asked_for(make: Callable[..., Setting]) -> None:
    setting = make()
    for number in range(200):
        setting.source.push("team/app", f"v{number}", "same")
    setting.source.push("other", "v1")

    assert verify(setting, repositories="oth*") == {"v1": "missing"}
    found = len(verify(setting, share=0.25))
    assert 20 < found < 80
    assert len(verify(setting)) == 200  # v1 is the same name twice


def test_all_bytes_are_read_once_where_asked_for(make: Callable[..., Setting]) -> None:
    setting = make()
    for repository in ("team/app", "team/copy"):
        setting.source.push(repository, "v1", "same")
        setting.wish("v1", repository=repository)
        setting.drain()
    setting.target.calls.clear()
    assert verify(setting, hashed=True) == {}
    read = [call[2] for call in setting.target.calls if call[0] == "open_blob"]
    assert len(read) == len(set(read)) == 2

    blobs = setting.target.content["team/app"].blobs
    for digest, content in blobs.items():
        blobs[digest] = content[:-1] + b"!"

    assert verify(setting, deep=True) == {}
    assert verify(setting, hashed=True) == {"v1": "broken_blob"}


def verify_plan_of(setting: Setting, **extent: Any) -> list[Drift]:
    rows = verify_plan(
        setting.stores,
        setting.worker._sides,
        "test",
        extent=Extent(**extent, recheck_s=0),
    )
    assert rows is not None
    return rows


def test_after_a_clean_up_at_the_source_a_frozen_plan_is_crawled_once_more_and_stays_frozen(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    for number in range(5):
        setting.source.push("team/app", f"v{number}")
    setting.worker.conductor.conduct_once()
    setting.drain()
    setting.queue.plans.set_state("dc2", "frozen", "test", present())
    for number in range(2):
        del setting.source.content["team/app"].tags[f"v{number}"]

    def verified() -> tuple[bool | None, str]:
        verify_plan_of(setting)
        checks = find_checks(setting.stores, setting.plan, present())
        return next((c.is_met, c.reason) for c in checks if c.name == "verified")

    is_met, reason = verified()
    assert (is_met, "rns migrate crawl looks once more" in reason) == (False, True)

    states.crawl(setting.queue, setting.plan, "alice", present())
    setting.worker.conductor.conduct_once()
    setting.drain()

    assert setting.queue.plans.get("dc2").state == "frozen"
    assert verified() == (True, "3 tags are equal")


def test_what_only_a_deep_look_finds_stays_known_when_tags_alone_are_compared(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    for tag in ("v1", "v2"):
        setting.source.push("team/app", tag)
    setting.wish("v1", "v2")
    setting.drain()
    setting.target.content["team/app"].blobs.clear()
    setting.source.push("team/app", "v2", "moved")

    def known() -> set[tuple[str, str]]:
        rows = setting.queue.runs.find_drift("dc2").items
        return {(row.reference, row.kind) for row in rows}

    verify_plan_of(setting, deep=True)
    assert known() == {("v1", "broken_blob"), ("v2", "different")}
    setting.drain()
    verify_plan_of(setting)
    assert known() == {("v1", "broken_blob")}

    verify_plan_of(setting, deep=True)
    assert known() == set()
    run = setting.queue.runs.get("dc2", "deep")
    assert run
    assert (run.deep, run.broken, run.tags) == (True, 0, 2)


def test_only_a_verification_of_everything_makes_a_plan_ready(make: Callable[..., Setting]) -> None:
    setting = make()
    setting.source.push("team/app", "v1")
    setting.worker.conductor.conduct_once()
    setting.drain()

    assert verify_plan_of(setting, share=0.5) == []
    assert verify_plan_of(setting, repositories="team/*") == []
    assert not check_of(setting, "verified")
    assert verify_plan_of(setting) == []
    assert check_of(setting, "verified")

    del setting.target.content["team/app"].tags["v1"]
    (row,) = verify_plan_of(setting, repositories="team/*")
    assert setting.queue.runs.find_drift("dc2").items == [row]
    assert not check_of(setting, "verified")  # as it is to be copied anew
    setting.drain()
    assert setting.target.state() == setting.source.state()


def test_what_a_person_skipped_is_shown_and_is_no_reason_against_a_cut_over(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    for tag in ("v1", "bad"):
        setting.source.push("team/app", tag)
    setting.worker.conductor.conduct_once()
    assert setting.queue.jobs.waive("dc2", "alice", "dc2 team/app bad", present())
    setting.drain()

    (row,) = verify_plan_of(setting)

    assert (row.reference, row.kind) == ("bad", "left_out")
    assert check_of(setting, "verified")
    assert not setting.worker.run_one(), "it is left out until it is pushed again"

    setting.wish("bad")
    assert not check_of(setting, "verified")
    setting.drain()
    assert verify_plan_of(setting) == []


def test_a_tag_of_others_that_the_plan_keeps_is_no_reason_against_a_cut_over(
    make: Callable[..., Setting],
) -> None:
    setting = make(options={"existing": "skip"})
    setting.source.push("team/app", "v1")
    setting.target.push("team/app", "v1", "theirs")
    setting.worker.conductor.conduct_once()
    setting.drain()

    (row,) = verify_plan_of(setting)

    message = "different, and options.existing: skip keeps it."
    assert (row.kind, row.message) == ("left_out", message)
    assert check_of(setting, "verified")

    setting.source.push("team/app", "v1", "moved unheard")
    assert [row.kind for row in verify_plan_of(setting)] == ["different"]
    del setting.target.content["team/app"].tags["v1"]
    assert [row.kind for row in verify_plan_of(setting)] == ["missing"]


def test_a_repository_whose_name_is_none_is_a_difference_and_stops_no_verification(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    for name in ("Odd/Name", "team/app"):
        setting.source.push(name, "v1")

    def check(method: str, *arguments: str) -> None:
        if method == "tags":
            parse_repository(arguments[0])

    setting.source.fail = check

    (unknown, missing) = verify_plan_of(setting)

    assert (unknown.repository, unknown.reference, unknown.kind) == ("Odd/Name", "", "unknown")
    assert (missing.repository, missing.kind) == ("team/app", "missing")


def test_a_verification_that_is_broken_off_says_why(make: Callable[..., Setting]) -> None:
    setting = make()
    setting.source.push("team/app", "v1")

    def fail(method: str, *arguments: str) -> None:
        if method == "tags":
            raise setting.source.error("down")

    setting.source.fail = fail
    with pytest.raises(RegistryError):
        verify_plan_of(setting)

    run = setting.queue.runs.get("dc2", "verify")
    assert run
    assert (run.state, run.message) == ("running", f"{OLD}: down")
    setting.queue.plans.pause("dc2", "test", present())
    assert not find_progress(setting.queue, setting.plan, present()).is_going_on


def test_two_verifications_are_not_under_way_at_a_time(make: Callable[..., Setting]) -> None:
    setting = make()
    setting.queue.runs.begin("dc2", "verify", "other", present())

    rows = verify_plan(
        setting.stores,
        setting.worker._sides,
        "test",
    )

    assert rows is None


@pytest.mark.parametrize("every", ["1h", "0"])
def test_a_worker_verifies_as_often_as_asked_for_and_repairs(
    make: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch, every: str
) -> None:
    monkeypatch.setattr(conductor_module, "RECHECK_S", 0)
    setting = make(options={"verify_every": every})
    setting.source.push("team/app", "v1")
    setting.worker.conductor.conduct_once()
    setting.drain()
    setting.worker.conductor.conduct_once()
    assert setting.queue.plans.get("dc2").state == "live"
    setting.target.content["team/app"].tags.clear()

    setting.worker.conductor.conduct_once()
    assert setting.queue.runs.get("dc2", "verify") is None
    hour_ago = present() - timedelta(hours=1, minutes=1)
    setting.queue.runs._runs.update_one({"_id": "dc2 crawl"}, {"$set": {"finished_at": hour_ago}})
    for _ in range(2):
        setting.worker.conductor.conduct_once()
        setting.drain()

    run = setting.queue.runs.get("dc2", "verify")
    if every == "0":
        assert run is None
    else:
        assert run
        assert (run.state, run.drift) == ("done", {"missing": 1})
        assert setting.target.state() == setting.source.state()


def test_what_is_too_much_at_the_target_is_deleted_if_we_put_it_there_and_a_person_wants_it(
    make: Callable[..., Setting],
) -> None:
    setting = make()
    for tag in ("v1", "v2", "v3"):
        setting.source.push("team/app", tag)
    setting.wish("v1", "v2", "v3")
    setting.drain()
    setting.target.push("team/app", "theirs")
    for tag in ("v1", "v2"):
        del setting.source.content["team/app"].tags[tag]
    rows = verify_plan_of(setting)
    assert {row.reference for row in rows} == {"v1", "v2", "theirs"}
    setting.target.push("team/app", "v2", "changed by somebody")

    assert prune_extra(setting.queue.jobs, setting.plan, rows) == 2
    for _ in range(2):
        setting.drain()
        setting.hurry()

    assert set(setting.target.state()) == {f"team/app:{tag}" for tag in ("v2", "v3", "theirs")}
    assert setting.outcome("v1") == ("done", "deleted", "")
    assert not setting.job("v1").prune


# Limits


def test_a_bucket_lets_its_rate_through_and_no_more() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    bucket = Bucket(10, lambda: now[0], sleep)

    for _ in range(100):
        bucket.take()

    assert 9 <= now[0] <= 10


def test_a_429_halves_the_width_and_each_quiet_minute_adds_one() -> None:
    now = [0.0]
    width = Width(8, lambda: now[0])

    width.narrow()
    width.narrow()
    assert width.jobs == 4
    now[0] = 2
    width.narrow()
    assert width.jobs == 2
    now[0] = 63
    assert width.jobs == 3
    assert width.jobs == 3
    for _ in range(10):
        now[0] += 61
        assert width.jobs <= 8
    assert width.jobs == 8


# Anything at all

_actions = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "index", "delete", "run", "crawl", "repeat"]),
        st.sampled_from(["v1", "v2", "latest"]),
        st.sampled_from(["red", "green", "blue"]),
    ),
    max_size=30,
)


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(actions=_actions)
def test_whatever_happens_in_whatever_order_both_sides_are_equal_in_the_end(
    make: Callable[..., Setting], mock_stores: Stores, actions: list[tuple[str, str, str]]
) -> None:
    mock_stores.migrations.jobs._jobs.delete_many({})
    mock_stores.migrations.plans._plans.delete_many({})
    setting = make(options={"deletes": "tags"})
    wished: list[str] = []
    for action, tag, seed in actions:
        if action == "run":
            setting.worker.run_one()
        elif action == "crawl":
            setting.wish(*setting.source.tags("team/app"))
        elif action == "repeat":  # an old event once more, and late
            setting.wish(*wished[:1])
        else:
            if action == "push":
                setting.source.push("team/app", tag, seed)
            elif action == "index":
                child = setting.source.push("team/app", "", seed)
                setting.source.push_index("team/app", tag, [child])
            else:
                setting.source.content["team/app"].tags.pop(tag, None)
            wished.append(tag)
            setting.wish(tag)

    for _ in range(3):
        setting.drain()
        setting.hurry()

    assert setting.target.state() == setting.source.state()
    assert set(setting.queue.jobs.count_by_state("dc2")) <= {"done", "skipped"}
