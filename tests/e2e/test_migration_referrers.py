"""Lists of referrers between two real registries, neither of which keeps them itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from clients import Item, Publisher
from images import IMAGE, INDEX
from processes import eventually
from test_migration import SETTLED_S, Migration, make_migration

__all__ = ["make_migration"]

pytestmark = pytest.mark.e2e


def is_over(migration: Migration) -> bool:
    jobs = migration.status()["jobs"]
    return bool(jobs) and not jobs.get("pending") and not jobs.get("running")


@pytest.mark.parametrize("existing", ["fail", "backup", "skip"])
def test_our_own_list_is_no_tag_of_somebody_else_and_goes_with_its_artifact(
    make_migration: Callable[..., Migration], existing: str
) -> None:
    migration = make_migration(options={"existing": existing, "deletes": "tags_and_digests"})
    source, target, server = migration.source, migration.target, migration.server
    for program in (source, target, server):
        program.start()
    with closing(Publisher(source, "ci-bot")) as old, closing(migration.client(target)) as new:

        def image(tag: str, layer: bytes, **content: Any) -> Item:
            config = old.put_blob("team/app", b"{}", "application/vnd.example.config+json")
            layers = [old.put_blob("team/app", layer, "application/vnd.example.layer")]
            return old.put_manifest("team/app", tag, IMAGE, config=config, layers=layers, **content)

        def listed(of: Item) -> list[str]:
            return [entry.digest for entry in new.referrers("team/app", of["digest"])]

        v1 = image("v1", b"a layer")
        one = image("", b"signed", subject=v1, artifactType="x/y")
        server.rns("migrate", "start")
        worker = migration.worker()
        is_listed = partial(eventually, within=SETTLED_S, what="it is listed", every=0.5)
        is_listed(lambda: listed(v1) == [one["digest"]])

        two = image("", b"signed once more", subject=v1, artifactType="x/y")
        tag = v1["digest"].replace(":", "-")
        theirs = old.put_manifest("team/app", tag, INDEX, manifests=[one, two])
        source.wait_until_delivered()
        server.wait_until_worked_in()
        eventually(lambda: is_over(migration), SETTLED_S, "everything is over", every=1)
        assert {job["state"] for job in migration.jobs()} == {"done"}
        assert new.tags("team/app") == sorted([tag, "v1"])
        assert new.head_manifest("team/app", tag).digest == theirs["digest"]

        v2 = image("v2", b"another layer")
        alone = image("", b"signed alone", subject=v2, artifactType="x/y")
        its_tag = v2["digest"].replace(":", "-")
        is_listed(lambda: listed(v2) == [alone["digest"]])
        old.delete("team/app", alone["digest"])
        eventually(lambda: its_tag not in new.tags("team/app"), SETTLED_S, "it goes", every=0.5)
        assert new.tags("team/app") == sorted([tag, "v1", "v2"])
        assert worker.terminate() == 0
