"""What a manifest is, by what a registry says of it."""

from __future__ import annotations

import pytest

from app.rules.kinds import INDEX_TYPES, KINDS, MANIFEST_TYPES, is_blob_type, is_supplement, kind_of

OCI = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
ORAS_ARTIFACT = "application/vnd.cncf.oras.artifact.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
HELM_CONFIG = "application/vnd.cncf.helm.config.v1+json"
HELM_CHART = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
IN_TOTO = "application/vnd.in-toto+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
COSIGN = "application/vnd.dev.cosign.artifact.sig.v1+json"
NOTATION = "application/vnd.cncf.notary.signature"
CACHE = "application/vnd.buildkit.cacheconfig.v0"
PLUGIN = "application/vnd.docker.plugin.v1+json"
SPDX = "application/spdx+json"
UNKNOWN = "application/vnd.acme.thing"


@pytest.mark.parametrize(
    ("media_type", "artifact_type", "referenced", "kind"),
    [
        pytest.param(SCHEMA1, "", [], "image", id="Docker schema 1 is an image"),
        pytest.param(SCHEMA1_SIGNED, "", [], "image", id="signed schema 1 is an image"),
        pytest.param(DOCKER, "", [], "image", id="Docker schema 2 is an image"),
        pytest.param(OCI, "", [], "image", id="OCI of which nothing is told is an image"),
        pytest.param("", "", [], "image", id="what nothing is told of is an image"),
        pytest.param(
            DOCKER, "", [DOCKER_CONFIG, DOCKER_LAYER], "image", id="a Docker image is an image"
        ),
        pytest.param(OCI, "", [CONFIG, LAYER], "image", id="an OCI image is an image"),
        pytest.param(OCI, "", [DOCKER_CONFIG, LAYER], "image", id="also with Docker's config"),
        pytest.param(OCI, "", [LAYER, LAYER], "image", id="also where no config is told"),
        pytest.param(OCI, "", [DOCKER_LAYER], "image", id="also with Docker's layers"),
        pytest.param(DOCKER, "", [UNKNOWN, LAYER], "image", id="Docker allows no unknown config"),
        pytest.param(DOCKER_LIST, "", [DOCKER, DOCKER], "index", id="a Docker list is an index"),
        pytest.param(OCI_INDEX, "", [OCI, OCI], "index", id="an OCI index is an index"),
        pytest.param(OCI_INDEX, "", [], "index", id="an index without entries is an index"),
        pytest.param(OCI_INDEX, "", [OCI_INDEX], "index", id="an index of indexes is an index"),
        pytest.param(OCI_INDEX, UNKNOWN, [OCI], "index", id="an index has no artifact's kind"),
    ],
)
def test_images_and_indexes(
    media_type: str, artifact_type: str, referenced: list[str], kind: str
) -> None:
    assert kind_of(media_type, artifact_type, referenced, None) == kind


@pytest.mark.parametrize(
    ("media_type", "artifact_type", "referenced", "kind"),
    [
        pytest.param(OCI, "", [HELM_CONFIG, HELM_CHART], "chart", id="Helm's config: chart"),
        pytest.param(OCI, HELM_CONFIG, [EMPTY, LAYER], "chart", id="Helm's artifact type: chart"),
        pytest.param(
            OCI, "", [CONFIG, IN_TOTO, IN_TOTO], "attestation", id="buildx provenance: attestation"
        ),
        pytest.param(
            OCI,
            "application/vnd.docker.attestation.manifest.v1+json",
            [],
            "attestation",
            id="BuildKit's attestation as an artifact: attestation",
        ),
        pytest.param(
            OCI,
            "application/vnd.in-toto.provenance+dsse",
            [],
            "attestation",
            id="in-toto's artifact type: attestation",
        ),
        pytest.param(
            OCI,
            "application/vnd.dev.cosign.artifact.att.v1+json",
            [],
            "attestation",
            id="cosign 1.1's attestation: attestation",
        ),
        pytest.param(
            OCI,
            "",
            [CONFIG, "application/vnd.dsse.envelope.v1+json"],
            "attestation",
            id="DSSE envelopes as layers: attestation",
        ),
        pytest.param(OCI, BUNDLE, [], "signature", id="Sigstore's artifact type: signature"),
        pytest.param(OCI, "", [EMPTY, BUNDLE], "signature", id="Sigstore's layer: signature"),
        pytest.param(OCI, COSIGN, [], "signature", id="cosign 1.1's artifact type: signature"),
        pytest.param(
            OCI, "", [CONFIG, SIMPLE_SIGNING], "signature", id="cosign's layer: signature"
        ),
        pytest.param(OCI, NOTATION, [], "signature", id="Notation's artifact type: signature"),
        pytest.param(
            OCI, "", [NOTATION, "application/jose+json"], "signature", id="its config: signature"
        ),
        pytest.param(
            ORAS_ARTIFACT,
            NOTATION,
            ["application/cose"],
            "signature",
            id="Notation in an ORAS manifest: signature",
        ),
        pytest.param(OCI, SPDX, [], "sbom", id="SPDX as artifact type: sbom"),
        pytest.param(OCI, "", [EMPTY, SPDX], "sbom", id="SPDX as layer: sbom"),
        pytest.param(OCI, "", [EMPTY, "text/spdx"], "sbom", id="SPDX as text: sbom"),
        pytest.param(OCI, "application/vnd.cyclonedx+json", [], "sbom", id="CycloneDX JSON: sbom"),
        pytest.param(OCI, "", [EMPTY, "application/vnd.cyclonedx+xml"], "sbom", id="XML: sbom"),
        pytest.param(OCI, "", [CONFIG, "application/vnd.syft+json"], "sbom", id="Syft: sbom"),
        pytest.param(
            OCI,
            "application/vnd.dev.cosign.artifact.sbom.v1+json",
            [],
            "sbom",
            id="cosign 1.1's SBOM: sbom",
        ),
        pytest.param(DOCKER, "", [PLUGIN, DOCKER_LAYER], "plugin", id="a Docker plugin: plugin"),
        pytest.param(OCI_ARTIFACT, "", [], "artifact", id="an OCI artifact manifest: artifact"),
        pytest.param(ORAS_ARTIFACT, "", [], "artifact", id="an ORAS manifest: artifact"),
        pytest.param(
            ORAS_ARTIFACT, "", [CONFIG, LAYER], "artifact", id="an ORAS manifest is no image"
        ),
        pytest.param(
            ORAS_ARTIFACT, "", [SPDX], "sbom", id="an ORAS manifest's first blob is no config: sbom"
        ),
        pytest.param(
            ORAS_ARTIFACT,
            "",
            [SPDX, LAYER],
            "artifact",
            id="an ORAS manifest is not what one of two blobs is",
        ),
        pytest.param(OCI, UNKNOWN, [], "artifact", id="an unknown artifact type: artifact"),
        pytest.param(
            OCI, UNKNOWN, [CONFIG], "artifact", id="also with an image's config: artifact"
        ),
        pytest.param(OCI, "", [UNKNOWN, LAYER], "artifact", id="an unknown config: artifact"),
        pytest.param(OCI, "", [EMPTY, LAYER], "artifact", id="an empty config: artifact"),
        pytest.param(
            OCI,
            "",
            ["application/vnd.wasm.config.v0+json", "application/wasm"],
            "artifact",
            id="WebAssembly: artifact",
        ),
        pytest.param(OCI, "", [CACHE, LAYER], "artifact", id="BuildKit's cache image: artifact"),
        pytest.param(
            OCI_INDEX, "", [LAYER, LAYER, CACHE], "artifact", id="BuildKit's cache index: artifact"
        ),
        pytest.param(
            DOCKER_LIST, "", [DOCKER_LAYER, CACHE], "artifact", id="also as a Docker list: artifact"
        ),
    ],
)
def test_the_media_types_tell_the_kind(
    media_type: str, artifact_type: str, referenced: list[str], kind: str
) -> None:
    assert kind_of(media_type, artifact_type, referenced, None) == kind


@pytest.mark.parametrize(
    ("artifact_type", "referenced", "kind"),
    [
        pytest.param(SPDX, [HELM_CONFIG, BUNDLE], "sbom", id="the artifact type goes first"),
        pytest.param(UNKNOWN, [HELM_CONFIG, BUNDLE], "chart", id="then the config"),
        pytest.param(UNKNOWN, [EMPTY, BUNDLE], "signature", id="then the layers"),
        pytest.param("", [CONFIG, LAYER, SPDX], "image", id="one of several layers tells nothing"),
        pytest.param("", [CONFIG, SPDX, BUNDLE], "image", id="layers that differ tell nothing"),
    ],
)
def test_which_media_type_goes_before_another(
    artifact_type: str, referenced: list[str], kind: str
) -> None:
    assert kind_of(OCI, artifact_type, referenced, None) == kind


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        pytest.param(".sig", "signature", id="sig is a signature"),
        pytest.param(".att", "attestation", id="att is an attestation"),
        pytest.param(".sbom", "sbom", id="sbom is an SBOM"),
        pytest.param("", "chart", id="a list of referrers has no kind of its own"),
        pytest.param(".txt", "chart", id="an unknown ending tells nothing"),
    ],
)
def test_a_cosign_tag_goes_before_every_media_type(ending: str, kind: str) -> None:
    tag = f"sha256-{'0123456789abcdef' * 4}{ending}"

    assert kind_of(OCI, HELM_CONFIG, [CONFIG, LAYER], tag) == kind


def test_a_cosign_tag_may_name_an_index() -> None:
    tag = f"sha256-{'0123456789abcdef' * 4}"

    assert kind_of(OCI_INDEX, "", [OCI], f"{tag}.sig") == "signature"
    assert kind_of(OCI_INDEX, "", [OCI], tag) == "index"


@pytest.mark.parametrize(
    "media_type",
    [
        pytest.param(CONFIG, id="an OCI config"),
        pytest.param(DOCKER_CONFIG, id="a Docker config"),
        pytest.param(EMPTY, id="the empty config"),
        pytest.param(HELM_CONFIG, id="Helm's config"),
        pytest.param(PLUGIN, id="a plugin's config"),
        pytest.param(CACHE, id="a build cache's config"),
        pytest.param(LAYER, id="an OCI layer"),
        pytest.param("application/vnd.oci.image.layer.nondistributable.v1.tar", id="a foreign one"),
        pytest.param(DOCKER_LAYER, id="a Docker layer"),
        pytest.param(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", id="from Windows"
        ),
        pytest.param(
            "application/vnd.docker.container.image.rootfs.diff+x-gtar", id="an old layer"
        ),
        pytest.param(HELM_CHART, id="a chart's content"),
        pytest.param(IN_TOTO, id="an in-toto statement"),
        pytest.param(BUNDLE, id="a Sigstore bundle"),
        pytest.param(SIMPLE_SIGNING, id="what cosign signs"),
        pytest.param(SPDX, id="an SBOM"),
    ],
)
def test_configs_and_layers_are_blobs(media_type: str) -> None:
    assert is_blob_type(media_type)


@pytest.mark.parametrize(
    "media_type", [*sorted(MANIFEST_TYPES), UNKNOWN, "application/octet-stream", ""]
)
def test_what_is_or_may_be_a_manifest_is_not_said_to_be_a_blob(media_type: str) -> None:
    assert not is_blob_type(media_type)


def test_these_are_all_manifests() -> None:
    assert {OCI_INDEX, DOCKER_LIST} == INDEX_TYPES
    assert {SCHEMA1, SCHEMA1_SIGNED, DOCKER, OCI, OCI_ARTIFACT, ORAS_ARTIFACT} == (
        MANIFEST_TYPES - INDEX_TYPES
    )


def test_these_are_all_kinds() -> None:
    manifests = "image", "index", "chart", "signature", "attestation", "sbom", "plugin", "artifact"

    assert (*manifests, "blob") == KINDS


@pytest.mark.parametrize(
    ("kind", "tag", "supplements"),
    [
        ("signature", None, True),
        ("image", f"sha256-{'a' * 64}.sig", True),
        ("index", f"sha256-{'a' * 64}", True),
        ("image", "v1", False),
        ("image", None, False),
    ],
)
def test_a_supplement_is_told_by_its_kind_or_by_its_tag(
    kind: str, tag: str | None, supplements: bool
) -> None:
    assert is_supplement(kind, tag) is supplements
