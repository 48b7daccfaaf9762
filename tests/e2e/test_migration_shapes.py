"""A registry by way of a folder to another site, and plans that take some platforms."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from images import INDEX, Image
from test_migration import BOT, Migration, make_migration
from test_registry_copies import put_image, put_manifest, pytestmark, wire

__all__ = ["make_migration", "pytestmark"]


def test_a_registry_goes_through_a_folder_to_a_site_that_no_network_reaches(
    make_migration: Callable[..., Migration],
    build_image: Callable[..., Image],
    build_index: Callable[..., Image],
    tmp_path: Path,
) -> None:
    migration = make_migration()
    server, folder = migration.server, tmp_path / "export"
    source = {"url": migration.source.url, "plain_http": True, **BOT}
    target = {"url": migration.target.url, "plain_http": True, **BOT}
    server.configure(
        migrations=[
            {"name": "out", "source": source, "target": {"oci_dir": str(folder)}},
            {"name": "in", "source": {"oci_dir": str(folder)}, "target": target},
        ]
    )
    migration.server.make_database()
    for program in (migration.source, migration.target):
        program.start()
    old, new = migration.skopeo(migration.source), migration.skopeo(migration.target)
    for repository in ("team/app", "team/other", "single"):
        old.push(build_image(repository), f"{repository}:v1")
        old.push(build_index(repository), f"{repository}:multi")
        old.push(build_image("shared"), f"{repository}:docker", "--format", "v2s2")
    with closing(migration.client(migration.source)) as client:
        image = put_image(client, "team/app", "signed", [b"a layer"])
        signature = put_image(client, "team/app", "", [b"s"], subject=wire(image.descriptor))
        entries = [wire(signature.descriptor)]
        tag = image.digest.replace(":", "-")
        put_manifest(client, "team/app", tag, INDEX, manifests=entries)
        digests = {
            (repository, name): client.head_manifest(repository, name).digest
            for repository in ("team/app", "team/other", "single")
            for name in client.tags(repository)
        }

    server.rns("migrate", "once", "--plan", "out")
    server.rns("migrate", "verify", "--plan", "out", "--bytes", "--recheck", "0")
    migration.source.program.terminate()
    server.rns("migrate", "once", "--plan", "in")
    server.rns("migrate", "verify", "--plan", "in", "--bytes", "--recheck", "0")

    assert len(digests) == 11
    assert {key: new.digest(f"{key[0]}:{key[1]}") for key in digests} == digests
    assert new._run("inspect", "--raw", f"oci:{folder}/team/other:v1")
    with closing(migration.client(migration.target)) as client:
        assert client.referrers("team/app", image.digest) == [signature.descriptor]


def test_some_platforms_come_with_digests_of_their_own(
    make_migration: Callable[..., Migration],
    build_index: Callable[..., Image],
    tmp_path: Path,
) -> None:
    migration = make_migration(options={"platforms": ["linux/amd64"]})
    migration.server.make_database()
    for program in (migration.source, migration.target):
        program.start()
    old, new = migration.skopeo(migration.source), migration.skopeo(migration.target)
    whole = build_index("multi")
    old.push(whole, "team/app:v1")
    server = migration.server

    server.rns("migrate", "once")
    server.rns("migrate", "verify", "--deep", "--recheck", "0")

    with closing(migration.client(migration.target)) as client:
        made = client.get_manifest("team/app", "v1")
    assert made.digest != whole.digest
    assert [child.digest for child in made.children] == [whole.children[0]]
    new.pull("team/app:v1", tmp_path / "pulled")
    assert '"to_copy":0' in server.rns("migrate", "plan", "--json")
