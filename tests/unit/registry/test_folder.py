"""A folder of OCI image layouts as a registry."""

from __future__ import annotations

import errno
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from test_registry_client import CONFIG, DESCRIPTOR, IMAGE, INDEX, as_json, digest_of, wire

from app.registry import Manifest, OciFolder, RegistryError, parse_manifest
from app.registry.transport import Body
from app.rules.events import Descriptor

LAYER = b"a layer"
LAYER_DIGEST = digest_of(LAYER)


@pytest.fixture
def folder(tmp_path: Path) -> OciFolder:
    return OciFolder(tmp_path / "export")


def put_blob(folder: OciFolder, content: bytes, repository: str = "team/app") -> Descriptor:
    digest = digest_of(content)
    upload = folder.start_upload(repository)
    folder.put_upload(repository, upload, digest, Body([content], len(content)))
    return Descriptor(digest, len(content), DESCRIPTOR.media_type)


def push(folder: OciFolder, tag: str, seed: str = "", repository: str = "team/app") -> Manifest:
    config, layer = put_blob(folder, b"{}", repository), put_blob(folder, LAYER, repository)
    body = as_json(
        mediaType=IMAGE,
        config=wire(Descriptor(config.digest, config.size, CONFIG.media_type)),
        layers=[wire(layer)],
        annotations={"seed": seed},
    )
    manifest = parse_manifest(body, IMAGE)
    folder.put_manifest(repository, tag or manifest.digest, manifest)
    return manifest


def error_class(call: Any, *arguments: Any) -> str:
    with pytest.raises(RegistryError) as caught:
        call(*arguments)
    assert caught.value.registry.startswith("oci:")
    return caught.value.error_class


def test_a_manifest_is_the_same_bytes_by_tag_and_by_digest(folder: OciFolder) -> None:
    manifest = push(folder, "v1")

    assert folder.get_manifest("team/app", "v1") == manifest
    assert folder.get_manifest("team/app", manifest.digest) == manifest
    assert folder.head_manifest("team/app", "v1") == manifest.descriptor


def test_each_repository_is_a_layout_that_other_tools_read(
    folder: OciFolder, tmp_path: Path
) -> None:
    manifest = push(folder, "v1")
    layout = tmp_path / "export" / "team" / "app"

    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((layout / "index.json").read_text())
    assert index["manifests"] == [
        {
            "mediaType": IMAGE,
            "digest": manifest.digest,
            "size": len(manifest.body),
            "annotations": {"org.opencontainers.image.ref.name": "v1"},
        }
    ]
    blob = layout / "blobs" / "sha256" / manifest.digest.partition(":")[2]
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    assert not list((tmp_path / "export" / ".uploads").iterdir())


def test_a_tag_moves_and_others_of_the_same_digest_stay(folder: OciFolder) -> None:
    first = push(folder, "v1", "first")
    folder.put_manifest("team/app", "stable", first)
    second = push(folder, "v1", "second")

    assert folder.tags("team/app") == ["stable", "v1"]
    assert folder.get_manifest("team/app", "v1") == second
    assert folder.get_manifest("team/app", "stable") == first
    folder.delete_tag("team/app", "v1")
    assert folder.tags("team/app") == ["stable"]
    assert error_class(folder.delete_tag, "team/app", "v1") == "gone"
    folder.delete_manifest("team/app", first.digest)
    assert folder.tags("team/app") == []
    assert error_class(folder.delete_manifest, "team/app", first.digest) == "gone"


def test_repositories_are_listed_by_name_and_from_the_middle(folder: OciFolder) -> None:
    for repository in ("team/b", "team", "a"):
        push(folder, "v1", repository=repository)

    assert list(folder.catalog()) == [["a", "team", "team/b"]]
    assert list(folder.catalog("a")) == [["team", "team/b"]]
    assert folder.tags("nobody/knows") == []


def test_what_is_not_there_is_gone_and_a_lost_manifest_is_damage(
    folder: OciFolder, tmp_path: Path
) -> None:
    manifest = push(folder, "v1")
    assert error_class(folder.get_manifest, "team/app", "v2") == "gone"
    assert error_class(folder.get_manifest, "team/app", LAYER_DIGEST.replace("a", "b")) == "gone"

    blobs = tmp_path / "export" / "team" / "app" / "blobs" / "sha256"
    (blobs / manifest.digest.partition(":")[2]).unlink()
    assert error_class(folder.get_manifest, "team/app", "v1") == "blob_unknown"


def test_a_manifest_waits_for_what_it_names(folder: OciFolder) -> None:
    child = push(folder, "", repository="other")
    index = parse_manifest(as_json(mediaType=INDEX, manifests=[wire(child.descriptor)]), INDEX)

    assert error_class(folder.put_manifest, "team/app", "v1", index) == "blob_unknown"
    assert folder.tags("team/app") == []


def test_bytes_of_another_digest_are_not_stored(folder: OciFolder) -> None:
    upload = folder.start_upload("team/app")
    arguments = ("team/app", upload, LAYER_DIGEST, Body([b"b layer"], 7))

    assert error_class(folder.put_upload, *arguments) == "digest_mismatch"
    assert not folder.has_blob("team/app", LAYER_DIGEST)


def test_a_blob_of_another_repository_is_linked(folder: OciFolder, tmp_path: Path) -> None:
    put_blob(folder, LAYER, "one")

    assert folder.start_upload("two", LAYER_DIGEST, "one") == ""
    assert folder.start_upload("two", CONFIG.digest, "one") != ""
    name = LAYER_DIGEST.partition(":")[2]
    files = [tmp_path / "export" / name_ / "blobs" / "sha256" / name for name_ in ("one", "two")]
    assert files[0].samefile(files[1])
    with folder.open_blob("two", Descriptor(LAYER_DIGEST, len(LAYER))) as stream:
        assert b"".join(stream.take(len(LAYER))) == LAYER
    with pytest.raises(RegistryError, match="no blob"), folder.open_blob("two", CONFIG):
        pass


def test_children_of_a_layout_that_another_tool_wrote_are_read(
    folder: OciFolder, tmp_path: Path
) -> None:
    manifest = push(folder, "v1")
    index_file = tmp_path / "export" / "team" / "app" / "index.json"
    index_file.write_text(json.dumps({"schemaVersion": 2, "manifests": []}))

    assert folder.get_manifest("team/app", manifest.digest).media_type == IMAGE


def test_threads_that_write_at_the_same_time_lose_no_tag(folder: OciFolder) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: push(folder, f"v{number}", str(number)), range(24)))

    assert len(folder.tags("team/app")) == 24


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, "disk_full"), (errno.EROFS, "readonly"), (errno.EIO, "server")],
)
def test_what_the_disk_says_is_told_apart(
    folder: OciFolder, monkeypatch: pytest.MonkeyPatch, number: int, expected: str
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr("app.registry.folder.os.fsync", fail)

    assert error_class(put_blob, folder, LAYER) == expected
    assert not folder.has_blob("team/app", LAYER_DIGEST)


def test_a_folder_that_is_missing_is_down_and_bad_names_are_refused(folder: OciFolder) -> None:
    assert error_class(folder.ping) == "down"
    assert error_class(push, folder, "v1", "", "team/blobs") == "unsupported"
    push(folder, "v1")
    folder.ping()
    assert (folder.pause_s, folder.silence_s, folder.trouble) == (0, 0, "")


def test_an_index_that_is_damaged_is_told(folder: OciFolder, tmp_path: Path) -> None:
    push(folder, "v1")
    (tmp_path / "export" / "team" / "app" / "index.json").write_text("{")

    assert error_class(folder.tags, "team/app") == "unsupported"
