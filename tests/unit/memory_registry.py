"""A registry in memory, with the methods of RegistryClient and the rules of distribution."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from app.registry import Manifest, RegistryError, parse_manifest
from app.registry.client import BlobStream
from app.rules.events import Descriptor
from app.rules.references import is_digest

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


class _Repository:
    def __init__(self) -> None:
        self.manifests: dict[str, Manifest] = {}
        self.tags: dict[str, str] = {}
        self.blobs: dict[str, bytes] = {}


class MemoryRegistry:
    """`fail` is called with the method's name and arguments first, and may raise."""

    def __init__(self, url: str = "https://registry", *, has_referrers_api: bool = False) -> None:
        self.url = url
        self.chunk_bytes = self.max_put_bytes = 10**9
        self.pause_s = self.silence_s = 0.0
        self.trouble = ""
        self.content: dict[str, _Repository] = defaultdict(_Repository)
        self.fail: Callable[..., None] = lambda method, *arguments: None
        self.calls: list[tuple[str, ...]] = []
        self._has_referrers_api = has_referrers_api

    def __call__(self, *_: Any, **__: Any) -> MemoryRegistry:
        return self

    def close(self) -> None:
        pass

    def _note(self, method: str, *arguments: str) -> None:
        self.calls.append((method, *arguments))
        self.fail(method, *arguments)

    def error(self, error_class: Any, **details: Any) -> RegistryError:
        message = f"{self.url}: {error_class}"
        return RegistryError(error_class, message, registry=self.url, **details)

    # What tests do

    def push(self, repository: str, tag: str, seed: str = "", **content: Any) -> Manifest:
        """Store an image of one layer; the same seed is the same image."""
        layer = self.add_blob(repository, f"layer {seed or tag}".encode())
        config = self.add_blob(repository, b"{}")
        fields = {"config": config, "layers": [layer], **content}
        return self.push_manifest(repository, tag, IMAGE, **fields)

    def push_index(self, repository: str, tag: str, children: list[Manifest]) -> Manifest:
        manifests = [_wire(child.descriptor) for child in children]
        return self.push_manifest(repository, tag, INDEX, manifests=manifests)

    def push_manifest(self, repository: str, tag: str, media_type: str, **content: Any) -> Manifest:
        document = {"schemaVersion": 2, "mediaType": media_type, **content}
        manifest = parse_manifest(json.dumps(document, indent=5).encode(), media_type)
        self.content[repository].manifests[manifest.digest] = manifest
        if tag:
            self.content[repository].tags[tag] = manifest.digest
        return manifest

    def add_blob(self, repository: str, content: bytes) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self.content[repository].blobs[digest] = content
        return _wire(Descriptor(digest, len(content), LAYER))

    def state(self) -> dict[str, str]:
        """The digest of every tag."""
        return {
            f"{name}:{tag}": digest
            for name, repository in self.content.items()
            for tag, digest in repository.tags.items()
        }

    # RegistryClient

    def ping(self) -> None:
        self._note("ping")

    def catalog(self, last: str = "") -> Iterator[list[str]]:
        self._note("catalog", last)
        names = sorted(name for name in self.content if name > last)
        for start in range(0, len(names), 2):
            yield names[start : start + 2]

    def tags(self, repository: str) -> list[str]:
        self._note("tags", repository)
        return sorted(self.content[repository].tags) if repository in self.content else []

    def head_manifest(self, repository: str, reference: str, known: str = "") -> Descriptor:
        self._note("head_manifest", repository, reference)
        return self._find(repository, reference).descriptor

    def get_manifest(self, repository: str, reference: str) -> Manifest:
        self._note("get_manifest", repository, reference)
        return self._find(repository, reference)

    def _find(self, repository: str, reference: str) -> Manifest:
        content = self.content.get(repository) or _Repository()
        digest = reference if is_digest(reference) else content.tags.get(reference, "")
        if digest not in content.manifests:
            raise self.error("gone", status=404)
        return content.manifests[digest]

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> None:
        self._note("put_manifest", repository, reference)
        content = self.content[repository]
        for child in manifest.children:
            if child.digest not in content.manifests:
                raise self.error("blob_unknown")
        for blob in manifest.blobs:
            if blob.digest not in content.blobs:
                raise self.error("blob_unknown")
        content.manifests[manifest.digest] = manifest
        if not is_digest(reference):
            content.tags[reference] = manifest.digest

    def delete_manifest(self, repository: str, digest: str) -> None:
        self._note("delete_manifest", repository, digest)
        content = self.content[repository]
        if content.manifests.pop(digest, None) is None:
            raise self.error("gone")
        content.tags = {tag: named for tag, named in content.tags.items() if named != digest}

    def delete_tag(self, repository: str, tag: str) -> None:
        self._note("delete_tag", repository, tag)
        if self.content[repository].tags.pop(tag, None) is None:
            raise self.error("gone")

    def referrers(self, repository: str, digest: str) -> list[Descriptor]:
        self._note("referrers", repository, digest)
        if self._has_referrers_api:
            stored = list(self.content[repository].manifests.values())
            return [m.descriptor for m in stored if m.subject and m.subject.digest == digest]
        try:
            return list(self._find(repository, digest.replace(":", "-")).children)
        except RegistryError:
            return []

    def has_blob(self, repository: str, digest: str) -> bool:
        self._note("has_blob", repository, digest)
        return digest in self.content[repository].blobs

    @contextmanager
    def open_blob(self, repository: str, blob: Descriptor) -> Iterator[BlobStream]:
        self._note("open_blob", repository, blob.digest)
        if blob.digest not in self.content[repository].blobs:
            raise self.error("blob_unknown", status=404)
        pieces = iter([self.content[repository].blobs[blob.digest]])
        yield BlobStream(pieces, blob, self.url)

    def start_upload(self, repository: str, digest: str = "", mount_from: str = "") -> str:
        self._note("start_upload", repository, digest, mount_from)
        if mount_from and digest in self.content[mount_from].blobs:
            self.content[repository].blobs[digest] = self.content[mount_from].blobs[digest]
            return ""
        return "upload"

    def cancel_upload(self, repository: str, upload: str) -> None:
        self._note("cancel_upload", repository, upload)

    def put_upload(self, repository: str, upload: str, digest: str, body: Any) -> None:
        self._note("put_upload", repository, digest)
        self.content[repository].blobs[digest] = b"".join(body)


def _wire(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
