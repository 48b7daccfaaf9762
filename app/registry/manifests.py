"""Manifests as bytes, and what they name. Bytes are never written anew from what was parsed.

Source: OCI image-spec 1.1, "Image Manifest" and "Image Index"; distribution's docs "Image Manifest
Version 2, Schema 2".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from app.errors import InvalidReference
from app.registry.errors import RegistryError
from app.rules.events import INT64_MAX, Descriptor
from app.rules.kinds import INDEX_TYPES, MANIFEST_TYPES
from app.rules.references import parse_digest

MAX_MANIFEST_BYTES = 4 * 1024 * 1024  # OCI distribution-spec, "Pushing Manifests": at least 4 MB
MAX_DESCRIPTORS = 100_000

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_IMAGE = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
# Without all four a registry converts, or says that there is nothing; `*/*` brings the rest.
ACCEPT = f"{OCI_INDEX}, {OCI_IMAGE}, {DOCKER_LIST}, {DOCKER_IMAGE}, */*;q=0.1"

_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+"
_ALGORITHMS = ("sha256", "sha512")  # OCI image-spec, "Registered algorithms"


class Manifest(msgspec.Struct, frozen=True):
    """A manifest: its bytes and media type as the registry sent them, and what it names.

    Each digest stands once, in the manifest's order.
    """

    body: bytes
    media_type: str
    digest: str  # of `body`, computed here
    children: tuple[Descriptor, ...] = ()  # manifests of an index
    blobs: tuple[Descriptor, ...] = ()  # config and layers that the registry holds
    foreign: tuple[Descriptor, ...] = ()  # layers with `urls`: usually elsewhere
    subject: Descriptor | None = None  # the manifest that this one is a referrer of
    artifact_type: str = ""

    @property
    def descriptor(self) -> Descriptor:
        """Digest, size and media type of the manifest itself."""
        return Descriptor(self.digest, len(self.body), self.media_type)


class _Named(Descriptor, frozen=True, rename="camel"):
    urls: list[str] | None = None


class _Wire(msgspec.Struct, rename="camel"):
    media_type: str = ""
    artifact_type: str = ""
    config: _Named | None = None
    layers: list[_Named] | None = None
    blobs: list[_Named] | None = None  # OCI artifact manifest, withdrawn before 1.1
    manifests: list[_Named] | None = None
    subject: _Named | None = None


_decode = msgspec.json.Decoder(_Wire).decode


def parse_manifest(body: bytes, content_type: str, digest: str = "") -> Manifest:
    """Read a manifest; `digest` is what it must hash to, if that is known.

    Raises:
        RegistryError: `digest_mismatch`; or `unsupported`: no manifest, or Docker's schema 1,
            whose digest is not the one of its bytes.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type.startswith(_SCHEMA1):
        raise RegistryError("unsupported", "Docker schema 1 manifests cannot be copied unchanged")
    computed = compute_digest(body, digest or "sha256:")
    if digest and computed != digest:
        raise RegistryError("digest_mismatch", f"manifest {digest} came as bytes of {computed}")
    try:
        wire = _decode(body)
        named = _check(wire)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidReference) as error:
        reason = str(error)[:200]
        raise RegistryError("unsupported", f"{computed} is not a manifest: {reason}") from None
    if media_type not in MANIFEST_TYPES:  # some registries and proxies say application/json
        media_type = wire.media_type
    if media_type not in MANIFEST_TYPES or media_type.startswith(_SCHEMA1):
        raise RegistryError("unsupported", f"{computed} is not of a known manifest media type")
    children = [entry for entry in named if _is_child(entry, media_type)]
    blobs = [entry for entry in named if not _is_child(entry, media_type)]
    return Manifest(
        body,
        media_type,
        computed,
        children=_once(children),
        blobs=_once(entry for entry in blobs if not entry.urls),
        foreign=_once(entry for entry in blobs if entry.urls),
        subject=_once([wire.subject])[0] if wire.subject else None,
        artifact_type=wire.artifact_type,
    )


def compute_digest(content: bytes, like: str) -> str:
    """The digest of `content` by the algorithm of the digest `like`."""
    return f"{like.partition(':')[0]}:{new_hash(like, content).hexdigest()}"


def new_hash(digest: str, content: bytes = b"") -> hashlib._Hash:
    """A hash object of a digest's algorithm; `unsupported` for any but SHA-256 and SHA-512."""
    algorithm = digest.partition(":")[0]
    if algorithm not in _ALGORITHMS:
        raise RegistryError("unsupported", f"digest algorithm {algorithm[:40]!r} is not supported")
    return hashlib.new(algorithm, content)


def _is_child(entry: Descriptor, media_type: str) -> bool:
    """Whether an entry is a manifest: BuildKit's cache index names layers among its manifests."""
    is_manifest = not entry.media_type or entry.media_type in MANIFEST_TYPES
    return media_type in INDEX_TYPES and is_manifest


def _check(wire: _Wire) -> list[_Named]:
    """All that a manifest names but its subject; InvalidReference for a digest that is none."""
    config = [wire.config] if wire.config else []
    named = config + (wire.layers or []) + (wire.blobs or []) + (wire.manifests or [])
    if len(named) > MAX_DESCRIPTORS:
        raise InvalidReference(f"more than {MAX_DESCRIPTORS} descriptors")
    for entry in [*named, wire.subject] if wire.subject else named:
        parse_digest(entry.digest)
        if not 0 <= entry.size <= INT64_MAX:
            raise InvalidReference("a size that is not between 0 and 2^63-1")
    return named


def _once(entries: Iterable[_Named]) -> tuple[Descriptor, ...]:
    found: dict[str, Descriptor] = {}
    for entry in entries:
        descriptor = Descriptor(entry.digest, entry.size, entry.media_type, entry.platform)
        found.setdefault(entry.digest, descriptor)
    return tuple(found.values())
