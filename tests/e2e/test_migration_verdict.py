"""`ready` and `cutover` say yes only where everything is there, whatever nobody told."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
from images import Image
from processes import PASSWORDS, Server, eventually, need_program
from test_migration import SETTLED_S, Migration

pytestmark = pytest.mark.e2e


class Night(Migration):
    """A migration that is live and ready, and what then happens unheard."""

    def begin(self, build_image: Callable[[str], Image]) -> None:
        for program in (self.source, self.target, self.server):
            program.start()
        given = f"{PASSWORDS['admin']}\n"
        self.server.rns("accounts", "passwd", "admin", "--password-stdin", given=given)
        self.people = self.skopeo(self.source)
        for tag in ("v1", "v2"):
            self.people.push(build_image(tag), f"team/app:{tag}")
        self.server.rns("migrate", "start")
        self.last_worker = self.worker()
        eventually(self.is_copied, SETTLED_S, "everything is copied", every=1)

    def is_copied(self) -> bool:
        status = self.status()
        return status["state"] == "live" and set(status["jobs"]) == {"done"}

    def lose_what_was_pushed(self, build_image: Callable[[str], Image]) -> None:
        """The server dies, people push, and the source forgets to tell of it."""
        self.last_worker.end_by(signal.SIGKILL)
        self.server.program.end_by(signal.SIGKILL, whole_group=True)
        self.people.push(build_image("v3"), "team/app:v3")
        self.people.push(build_image("v1 moved"), "team/app:v1")
        assert self.source.pending() > 0
        self.source.program.end_by(signal.SIGKILL)
        self.source.start()
        self.server.restart_until_ready()

    def verdict(self) -> tuple[int, dict[str, Any]]:
        """Exit status of `ready`, and each condition that is not met with its reason."""
        finished = self.server.run_rns("migrate", "ready", "--json")
        rows = [json.loads(line) for line in finished.stdout.splitlines()]
        unmet = {row["name"]: row["reason"] for row in rows if row["is_met"] is not True}
        return finished.returncode, unmet

    def told_by_api(self) -> dict[str, str]:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.get(
                f"{self.server.url}/api/v1/migrations/dc2/ready",
                auth=("admin", PASSWORDS["admin"]),
                timeout=10,
            ).json()
        unmet = {item["name"]: item["reason"] for item in answer["items"] if not item["is_met"]}
        assert answer["ready"] is (not unmet)
        return unmet

    def digests(self) -> list[dict[str, str]]:
        """What skopeo says of both sides."""
        found = []
        for registry in (self.source, self.target):
            skopeo = self.skopeo(registry)
            tags = skopeo.tags("team/app")
            found.append({tag: skopeo.digest(f"team/app:{tag}") for tag in tags})
        return found


@pytest.fixture
def make_night(
    make_server: Callable[..., Server], tmp_path: Path
) -> Iterator[Callable[..., Night]]:
    for program in ("docker-registry", "skopeo"):
        need_program(program)
    with ExitStack() as stack:
        yield lambda **plan: Night(stack, tmp_path, make_server(), **plan)


def test_what_was_pushed_while_nobody_listened_is_found_where_the_source_tells_nothing(
    make_night: Callable[..., Night], build_image: Callable[[str], Image]
) -> None:
    night = make_night(source={"debug_url": ""})
    night.begin(build_image)
    assert night.verdict() == (1, {"events": "source.debug_url tells nothing"})
    night.lose_what_was_pushed(build_image)

    status, unmet = night.verdict()

    assert status == 1
    assert unmet["verified"].startswith(
        "the last verification found 1 different, 1 missing: team/app:v3, team/app:v1"
    )
    assert "worker" in unmet
    refused = night.server.run_rns("migrate", "cutover", "--force")
    assert refused.returncode == 1
    assert "not ready: worker" in refused.stderr
    assert night.status()["state"] == "live"

    worker = night.worker()
    eventually(night.is_copied, SETTLED_S, "it is copied", every=1)
    assert night.verdict() == (1, {"events": "source.debug_url tells nothing"})
    assert night.told_by_api() == {"events": "source.debug_url tells nothing"}
    source, target = night.digests()
    assert sorted(source) == ["v1", "v2", "v3"]
    assert source == target
    assert "is cut over" in night.server.rns("migrate", "cutover", "--force")

    # What is pushed to the target from now on is no fault.
    night.skopeo(night.target).push(build_image("v2 of the target"), "team/app:v2")
    assert night.server.run_rns("migrate", "verify").returncode == 0
    rolled_back = night.server.run_rns("migrate", "rollback")
    assert rolled_back.returncode == 0
    assert "it overwrites tags that were pushed there" in rolled_back.stderr
    assert worker.terminate() == 0


def test_a_source_that_was_restarted_is_no_longer_ready_though_no_event_came(
    make_night: Callable[..., Night], build_image: Callable[[str], Image]
) -> None:
    night = make_night()
    night.begin(build_image)
    assert night.verdict() == (0, {})
    assert night.told_by_api() == {}
    night.lose_what_was_pushed(build_image)

    status, unmet = night.verdict()

    restarted = "another crawl is wanted: the source was restarted, and may have lost events"
    assert status == 1
    assert unmet["crawled"] == restarted
    assert unmet["verified"].endswith("1 different, 1 missing: team/app:v3, team/app:v1")
    assert night.told_by_api() == unmet

    night.worker()
    eventually(lambda: night.is_copied() and night.verdict()[0] == 0, SETTLED_S, "it is ready")
    source, target = night.digests()
    assert sorted(source) == ["v1", "v2", "v3"]
    assert source == target

    night.people.push(build_image("v4"), "team/app:v4")  # its event is on its way
    status, unmet = night.verdict()
    source, target = night.digests()
    assert status == 1 or source == target
    night.target.program.terminate()
    status, unmet = night.verdict()
    assert status == 1
    assert "Connection refused" in unmet["reached"]
