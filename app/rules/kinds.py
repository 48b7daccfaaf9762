"""What a manifest is: image, index, chart, signature … Pure.

A registry tells it by media types: of the artifact, of the config, and of what else the manifest
names. Sources: OCI image-spec 1.1, "Guidelines for Artifact Usage"; the specifications of cosign,
Notation, in-toto, BuildKit and Helm.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.rules.references import digest_tag_kind, digest_tag_subject

INDEX_TYPES = {
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
}
# Manifests that name blobs only, without a config.
_ARTIFACT_TYPES = {
    "application/vnd.oci.artifact.manifest.v1+json",
    "application/vnd.cncf.oras.artifact.manifest.v1+json",
}
_OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MANIFEST_TYPES = (
    INDEX_TYPES
    | _ARTIFACT_TYPES
    | {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/vnd.docker.distribution.manifest.v2+json",
        _OCI_MANIFEST,
    }
)
KINDS = (
    "image",
    "index",
    "chart",
    "signature",
    "attestation",
    "sbom",
    "plugin",
    "artifact",
    "blob",
)
# They come with an image and are pulled and pushed for its sake: see is_supplement.
SUPPLEMENTS = frozenset({"signature", "attestation", "sbom"})

_IMAGE_PARTS = (
    "application/vnd.docker.container.image.",
    "application/vnd.docker.image.rootfs.",
    "application/vnd.oci.image.config.",
    "application/vnd.oci.image.layer.",
)
_CACHE_CONFIG = "application/vnd.buildkit.cacheconfig."
# What the beginning of an artifact's, config's or layer's media type tells.
_TOLD = {
    "application/vnd.cncf.helm.": "chart",
    "application/vnd.cncf.notary.signature": "signature",
    "application/vnd.dev.cosign.artifact.sig.": "signature",
    "application/vnd.dev.cosign.simplesigning.": "signature",
    "application/vnd.dev.sigstore.bundle": "signature",
    "application/vnd.dev.cosign.artifact.att.": "attestation",
    "application/vnd.docker.attestation.": "attestation",
    "application/vnd.dsse.envelope.": "attestation",
    "application/vnd.in-toto": "attestation",
    "application/vnd.dev.cosign.artifact.sbom.": "sbom",
    "application/vnd.cyclonedx": "sbom",
    "application/spdx": "sbom",
    "application/vnd.syft": "sbom",
    "text/spdx": "sbom",
    "application/vnd.docker.plugin.": "plugin",
}
_BLOB_TYPES = (*_IMAGE_PARTS, *_TOLD, _CACHE_CONFIG, "application/vnd.oci.empty.")


def is_blob_type(media_type: str) -> bool:
    """Whether this is the media type of a config or a layer, never that of a manifest."""
    return media_type.startswith(_BLOB_TYPES)


def is_supplement(kind: str, tag: str | None) -> bool:
    """Whether what has this kind and tag only supplements an image.

    Signatures, attestations, SBOMs, and the lists of referrers, which their tag tells.
    """
    return kind in SUPPLEMENTS or bool(tag and digest_tag_subject(tag))


def kind_of(media_type: str, artifact_type: str, referenced: Sequence[str], tag: str | None) -> str:
    """What a manifest is, by its media types, or by a cosign-style tag.

    `referenced` are the media types of what it names, in its order: config and layers of an image,
    children of an index; empty where the registry did not tell.
    """
    if tag and (kind := digest_tag_kind(tag)):
        return kind
    if media_type in INDEX_TYPES:
        # BuildKit keeps its cache as an index of layers: they are its content, not its children.
        is_cache = any(entry.startswith(_CACHE_CONFIG) for entry in referenced)
        return "artifact" if is_cache else "index"
    has_config = bool(referenced) and media_type not in _ARTIFACT_TYPES
    config, layers = (referenced[0], referenced[1:]) if has_config else ("", referenced)
    told = _told_by(artifact_type) or _told_by(config) or _told_by_all(layers)
    if told:
        return told
    if artifact_type or media_type in _ARTIFACT_TYPES:
        return "artifact"
    if media_type == _OCI_MANIFEST and config and not config.startswith(_IMAGE_PARTS):
        return "artifact"
    return "image"


def _told_by(media_type: str) -> str:
    return next((kind for start, kind in _TOLD.items() if media_type.startswith(start)), "")


def _told_by_all(media_types: Sequence[str]) -> str:
    """The kind that all of them tell; an image with a note among its layers is an image."""
    told = {_told_by(media_type) for media_type in media_types}
    return told.pop() if len(told) == 1 else ""
