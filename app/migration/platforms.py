"""A source as if its indexes had some platforms only.

An index that loses entries is another document: it gets another digest, and what was signed by the
old digest does not fit it. The images in it keep theirs.

Source: OCI image-spec 1.1, "Image Index" and "Image Configuration"; BuildKit's docs "Image
Attestation Storage".
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from app.registry import Manifest, RegistryClient, RegistryError, parse_manifest
from app.registry.client import BlobStream
from app.rules.events import Descriptor, Platform
from app.rules.kinds import INDEX_TYPES
from app.rules.references import is_digest

MAX_MADE = 1_000  # indexes that are kept; others are made anew
MAX_CONFIG_BYTES = 4_000_000
CONFIGS = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
_OF = "vnd.docker.reference.digest"  # which image an attestation of BuildKit is about


def is_chosen(platform: Platform, chosen: Collection[str]) -> bool:
    """Whether a platform is among `os/architecture` or `os/architecture/variant`."""
    name = f"{platform.os}/{platform.architecture}"
    return name in chosen or f"{name}/{platform.variant}" in chosen


def select(index: Manifest, chosen: Collection[str]) -> Manifest:
    """The index with the entries of some platforms, and with those that are of none.

    Attestations go with their image. The very same index where nothing is left out, or where it has
    none of these platforms: nothing is lost that somebody did not ask for.
    """
    content = json.loads(index.body)
    entries: list[dict[str, Any]] = content["manifests"]
    of_images = [entry for entry in entries if not _is_attestation(entry) and entry.get("platform")]
    left_out = {
        entry["digest"]
        for entry in of_images
        if not is_chosen(msgspec.convert(entry["platform"], Platform, strict=False), chosen)
    }
    if len(left_out) == len({entry["digest"] for entry in of_images}):
        return index
    kept = [
        entry
        for entry in entries
        if entry["digest"] not in left_out and _subject(entry) not in left_out
    ]
    if len(kept) == len(entries):
        return index
    return parse_manifest(json.dumps(content | {"manifests": kept}).encode(), index.media_type)


def _subject(entry: dict[str, Any]) -> str:
    return str((entry.get("annotations") or {}).get(_OF, ""))


def _is_attestation(entry: dict[str, Any]) -> bool:
    return bool(_subject(entry))


class PlatformSource(RegistryClient):
    """What a plan with `options.platforms` sees of its source; nothing is written there.

    A tag that names an index names what `select` makes of it. By its digest an image of another
    platform is not there, nor is an index that would lose entries: only their tags bring them.
    """

    def __init__(self, inner: RegistryClient, chosen: Collection[str]) -> None:
        self._inner = inner
        self._chosen = chosen
        self.url = inner.url
        self.chunk_bytes, self.max_put_bytes = inner.chunk_bytes, inner.max_put_bytes
        self._made: dict[tuple[str, str], Manifest] = {}

    def head_manifest(self, repository: str, reference: str, known: str = "") -> Descriptor:
        """What a tag names after the selection; `known` spares nothing where that is an index."""
        made = self._made.get((repository, reference))
        if made:
            return made.descriptor
        found = self._inner.head_manifest(repository, reference)
        if is_digest(reference):
            self._check_digest(repository, reference)
        elif found.media_type in INDEX_TYPES:
            return self._select(repository, found.digest).descriptor
        return found

    def get_manifest(self, repository: str, reference: str) -> Manifest:
        """A manifest: what was made of an index by its new digest, all others as they are."""
        made = self._made.get((repository, reference))
        if made:
            return made
        manifest = self._inner.get_manifest(repository, reference)
        is_index = manifest.media_type in INDEX_TYPES
        if is_index and not is_digest(reference):
            return self._select(repository, manifest.digest)
        return manifest

    def _select(self, repository: str, digest: str) -> Manifest:
        made = select(self._inner.get_manifest(repository, digest), self._chosen)
        if made.digest != digest:
            while len(self._made) >= MAX_MADE:
                self._made.pop(next(iter(self._made)), None)
            self._made[repository, made.digest] = made
        return made

    def _check_digest(self, repository: str, digest: str) -> None:
        manifest = self._inner.get_manifest(repository, digest)
        if manifest.media_type in INDEX_TYPES:
            is_taken = select(manifest, self._chosen).digest == digest
        else:
            is_taken = manifest.subject is not None or self._is_chosen(repository, manifest)
        if not is_taken:
            message = f"{self.url}: {repository} has {digest} for other platforms"
            raise RegistryError("gone", message, registry=self.url, status=404)

    def _is_chosen(self, repository: str, manifest: Manifest) -> bool:
        """Whether an image is of a platform that is wanted, or of none."""
        config = next((blob for blob in manifest.blobs if blob.media_type in CONFIGS), None)
        if config is None or config.size > MAX_CONFIG_BYTES:
            return True
        with self._inner.open_blob(repository, config) as stream:
            content = b"".join(stream.take(config.size))
        try:
            platform = msgspec.json.decode(content, type=Platform)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return True
        return not platform.os or is_chosen(platform, self._chosen)

    # As the source has it

    @property
    def pause_s(self) -> float:
        """See RegistryClient."""
        return self._inner.pause_s

    @property
    def silence_s(self) -> float:
        """See RegistryClient."""
        return self._inner.silence_s

    @property
    def trouble(self) -> str:
        """See RegistryClient."""
        return self._inner.trouble

    def start_upload(self, repository: str, digest: str = "", mount_from: str = "") -> str:
        """See RegistryClient; only to see whether the source takes pushes."""
        return self._inner.start_upload(repository, digest, mount_from)

    def cancel_upload(self, repository: str, upload: str) -> None:
        """See RegistryClient."""
        self._inner.cancel_upload(repository, upload)

    def close(self) -> None:
        """See RegistryClient."""
        self._inner.close()

    def ping(self) -> None:
        """See RegistryClient."""
        self._inner.ping()

    def catalog(self, last: str = "") -> Iterator[list[str]]:
        """See RegistryClient."""
        return self._inner.catalog(last)

    def tags(self, repository: str) -> list[str]:
        """See RegistryClient."""
        return self._inner.tags(repository)

    def referrers(self, repository: str, digest: str) -> list[Descriptor]:
        """See RegistryClient."""
        return self._inner.referrers(repository, digest)

    def has_blob(self, repository: str, digest: str) -> bool:
        """See RegistryClient."""
        return self._inner.has_blob(repository, digest)

    @contextmanager
    def open_blob(self, repository: str, blob: Descriptor) -> Iterator[BlobStream]:
        """See RegistryClient."""
        with self._inner.open_blob(repository, blob) as stream:
            yield stream
