"""What a manifest is: image, index, chart, signature … Pure."""

from __future__ import annotations

from app.rules.references import digest_tag_kind

INDEX_TYPES = {
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
}
MANIFEST_TYPES = INDEX_TYPES | {
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.artifact.manifest.v1+json",
}
_CHART_CONFIG = "application/vnd.cncf.helm.config.v1+json"
_IMAGE_CONFIGS = {
    "application/vnd.docker.container.image.v1+json",
    "application/vnd.oci.image.config.v1+json",
}
KINDS = ("image", "index", "chart", "signature", "attestation", "sbom", "artifact", "blob")


def kind_of(media_type: str, artifact_type: str, config: str, tag: str | None) -> str:
    """What a manifest is, by its media types, or by a cosign-style tag.

    `config` is the media type of its config, `""` where the registry did not tell.
    """
    if tag and (kind := digest_tag_kind(tag)):
        return kind
    if media_type in INDEX_TYPES:
        return "index"
    if _CHART_CONFIG in (config, artifact_type):
        return "chart"
    if artifact_type or media_type == "application/vnd.oci.artifact.manifest.v1+json":
        return "artifact"
    if media_type == "application/vnd.oci.image.manifest.v1+json" and config:
        return "image" if config in _IMAGE_CONFIGS else "artifact"
    return "image"
