"""Container images built from nothing: OCI image layouts whose content follows from a seed.

Source: OCI image-spec 1.0, "Image Layout". The same seed always gives the same digests.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
REFERENCE = "image"  # the name that skopeo finds it by in its layout

Descriptor = dict[str, Any]


class Image(NamedTuple):
    """A layout on disk; `digest` is what its reference points to, `children` those of an index."""

    directory: Path
    digest: str
    children: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """What `skopeo copy` reads it by."""
        return f"oci:{self.directory}:{REFERENCE}"


def build_image(directory: Path, seed: str, layers: int = 2) -> Image:
    """An image for one platform."""
    manifest = _add_image(directory, seed, "amd64", layers)
    return _finish(directory, manifest)


def build_index(
    directory: Path, seed: str, architectures: tuple[str, ...] = ("amd64", "arm64")
) -> Image:
    """An index with one image for each architecture."""
    children = [
        _add_image(directory, f"{seed} {architecture}", architecture, 1)
        | {"platform": {"os": "linux", "architecture": architecture}}
        for architecture in architectures
    ]
    content = {"schemaVersion": 2, "mediaType": INDEX, "manifests": children}
    index = _add_json(directory, INDEX, content)
    return _finish(directory, index, children)


def _add_image(directory: Path, seed: str, architecture: str, layers: int) -> Descriptor:
    archives = [_archive(f"{seed} {number}") for number in range(layers)]
    descriptors = [_add_blob(directory, LAYER, gzip.compress(tar, mtime=0)) for tar in archives]
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/hello"], "Labels": {"seed": seed}},
        "rootfs": {"type": "layers", "diff_ids": [_digest(tar) for tar in archives]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": _add_json(directory, CONFIG, config),
        "layers": descriptors,
    }
    return _add_json(directory, IMAGE, manifest)


def _archive(seed: str) -> bytes:
    """A tar with one small file."""
    text = f"built from {seed}\n".encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(f"hello-{hashlib.sha256(text).hexdigest()[:8]}")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    return buffer.getvalue()


def _add_json(directory: Path, media_type: str, content: Any) -> Descriptor:
    return _add_blob(directory, media_type, json.dumps(content, sort_keys=True).encode())


def _add_blob(directory: Path, media_type: str, content: bytes) -> Descriptor:
    digest = _digest(content)
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    (blobs / digest.removeprefix("sha256:")).write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _finish(directory: Path, top: Descriptor, children: list[Descriptor] | None = None) -> Image:
    named = top | {"annotations": {"org.opencontainers.image.ref.name": REFERENCE}}
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
    (directory / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    return Image(directory, top["digest"], tuple(child["digest"] for child in children or []))


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
