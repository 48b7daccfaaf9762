"""Lists of referrers between two real registries, neither of which keeps them itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import pytest
from images import INDEX
from test_migration import SETTLED_S, Migration, eventually, make_migration
from test_registry_copies import put_image, put_manifest, wire

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
    with closing(migration.client(source)) as old, closing(migration.client(target)) as new:
        image = put_image(old, "team/app", "v1", [b"a layer"])
        subject = {"subject": wire(image.descriptor), "artifactType": "x/y"}
        one = put_image(old, "team/app", "", [b"signed"], **subject)
        server.rns("migrate", "start")
        worker = migration.worker()
        tag = image.digest.replace(":", "-")
        eventually(
            lambda: new.referrers("team/app", image.digest) == [one.descriptor],
            SETTLED_S,
            "the worker lists the signature",
        )

        two = put_image(old, "team/app", "", [b"signed once more"], **subject)
        entries = [wire(one.descriptor), wire(two.descriptor)]
        theirs = put_manifest(old, "team/app", tag, INDEX, manifests=entries)
        source.wait_until_delivered()
        server.wait_until_worked_in()
        eventually(lambda: is_over(migration), SETTLED_S, "everything is over", every=1)
        assert {job["state"] for job in migration.jobs()} == {"done"}
        assert new.tags("team/app") == sorted([tag, "v1"])
        assert new.head_manifest("team/app", tag).digest == theirs.digest

        # Once more, and the artifact goes.
        other = put_image(old, "team/app", "v2", [b"another layer"])
        subject = {"subject": wire(other.descriptor), "artifactType": "x/y"}
        lone = put_image(old, "team/app", "", [b"signed alone"], **subject)
        its_tag = other.digest.replace(":", "-")
        eventually(lambda: its_tag in new.tags("team/app"), SETTLED_S, "it is listed")
        old.delete_manifest("team/app", lone.digest)
        eventually(lambda: its_tag not in new.tags("team/app"), SETTLED_S, "its list goes")
        assert new.tags("team/app") == sorted([tag, "v1", "v2"])
        assert worker.terminate() == 0
