"""Rules of the copier that decide rarely, and would be missed then."""

from __future__ import annotations

from collections.abc import Callable

from test_migration_jobs import Setting

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
