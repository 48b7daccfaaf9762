"""Manifests that the company pushes: images, indexes, charts, signatures, SBOMs. Pure.

A manifest's digest is the hash of what it is; sizes are those that such content has.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from app.demo.chance import between, digest_of
from app.demo.tables import BOTH, RUNTIMES, Chart, Mirrored, Service

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_EMPTY = {
    "mediaType": "application/vnd.oci.empty.v1+json",
    "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
    "size": 2,
}

Reference = dict[str, Any]  # a descriptor as the registry writes it


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest event is about. Its children are pushed before it, at its time as well."""

    repository: str
    media_type: str
    digest: str
    size: int  # bytes
    references: list[Reference]
    pushed_at: datetime  # UTC, for the first time
    children: tuple[Manifest, ...] = ()
    architecture: str = ""  # of an image, "unknown" of an attestation


def _descriptor(media_type: str, size: float, *key: object) -> Reference:
    return {"mediaType": media_type, "digest": digest_of(*key), "size": int(size)}


def _layer(megabytes: float, *key: object) -> Reference:
    """A layer of about this size, as OCI writes it."""
    size = megabytes * 1e6 * between(0.97, 1.03, "size", *key)
    return _descriptor(_OCI_LAYER, size, "layer", *key)


def base_layers(runtime: str, architecture: str, day: date) -> list[Reference]:
    """The layers of the base image that was newest on a day; a new one comes every Monday."""
    monday = day - timedelta(days=day.weekday())
    sizes = RUNTIMES[runtime].megabytes
    return [_layer(size, runtime, architecture, monday, n) for n, size in enumerate(sizes)]


def base_image(repository: str, runtime: str, pushed_at: datetime) -> Manifest:
    """The base image of one week, for both architectures."""
    day = pushed_at.date()
    return _index(
        [
            _image(
                repository, base_layers(runtime, architecture, day), pushed_at, architecture, day
            )
            for architecture in BOTH
        ]
    )


def service_image(
    service: Service, label: str, builder: str, pushed_at: datetime, architectures: tuple[str, ...]
) -> Manifest:
    """What a build makes; `label` is the version or commit.

    BuildKit makes an index with attestations, Kaniko and Docker one image, unless it is for several
    architectures.
    """
    images = []
    for architecture in architectures:
        key = (service.repository, architecture)
        month = pushed_at.strftime("%Y-%m")
        layers = [
            *base_layers(service.runtime, architecture, pushed_at.date()),
            _layer(service.megabytes, "dependencies", *key, month),
            _layer(0.4 + service.megabytes * 0.06, "application", *key, label),
        ]
        images.append(_image(service.repository, layers, pushed_at, architecture, label))
    if builder == "buildkit":
        return _index([*images, *map(_attestation, images)])
    return _index(images) if len(images) > 1 else _as_docker(images[0])


def mirrored_image(mirrored: Mirrored, pushed_at: datetime) -> Manifest:
    """A public image as it was at that time."""
    repository, key = mirrored.repository, pushed_at.date()
    images = [
        _image(
            repository,
            [
                _layer(size, repository, architecture, key, n)
                for n, size in enumerate(mirrored.megabytes)
            ],
            pushed_at,
            architecture,
            key,
        )
        for architecture in BOTH
    ]
    return _index([*images, *map(_attestation, images)])


def chart(of: Chart, version: str, pushed_at: datetime) -> Manifest:
    """A version of a Helm chart."""
    key = (of.repository, version)
    config = "application/vnd.cncf.helm.config.v1+json"
    content = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
    references = [
        _descriptor(config, between(180, 420, *key), config, *key),
        _descriptor(content, between(6_000, 31_000, *key), content, *key),
    ]
    return _manifest(of.repository, references, pushed_at)


def signature(of: Manifest, pushed_at: datetime) -> Manifest:
    """What `cosign sign` pushes for a manifest."""
    payload = "application/vnd.dev.cosign.simplesigning.v1+json"
    references = [
        _descriptor(_OCI_CONFIG, 233, "signature", of.digest),
        _descriptor(payload, 210 + len(of.repository), payload, of.digest),
    ]
    return _manifest(of.repository, references, pushed_at)


def sbom_list(of: Manifest, pushed_at: datetime) -> Manifest:
    """The referrers list that `oras attach` pushes for a manifest; its child is the SBOM."""
    spdx = "application/spdx+json"
    size = between(40_000, 900_000, spdx, of.digest)
    references = [_EMPTY, _descriptor(spdx, size, spdx, of.digest)]
    return _index([_manifest(of.repository, references, pushed_at)])


def _image(
    repository: str, layers: list[Reference], pushed_at: datetime, architecture: str, label: object
) -> Manifest:
    key = ("config", repository, label, architecture)
    config = _descriptor(_OCI_CONFIG, between(2_400, 9_800, *key), *key)
    return _manifest(repository, [config, *layers], pushed_at, architecture)


def _attestation(of: Manifest) -> Manifest:
    """The provenance and SBOM that BuildKit adds to an index for each of its images."""
    statement = "application/vnd.in-toto+json"
    references = [
        _descriptor(_OCI_CONFIG, 241, "attestation", of.digest),
        _descriptor(statement, between(90_000, 700_000, of.digest), "sbom", of.digest),
        _descriptor(statement, between(3_000, 21_000, of.digest), "provenance", of.digest),
    ]
    return _manifest(of.repository, references, of.pushed_at, "unknown")


def _manifest(
    repository: str, references: list[Reference], pushed_at: datetime, architecture: str = ""
) -> Manifest:
    digest = digest_of(repository, *(reference["digest"] for reference in references))
    size = 220 + 165 * len(references)
    return Manifest(
        repository, OCI_MANIFEST, digest, size, references, pushed_at, architecture=architecture
    )


def _as_docker(image: Manifest) -> Manifest:
    """The image with the media types that Docker and Kaniko write."""
    config, *layers = image.references
    references = [
        config | {"mediaType": _DOCKER_CONFIG},
        *(layer | {"mediaType": _DOCKER_LAYER} for layer in layers),
    ]
    digest = digest_of("docker", image.digest)
    return Manifest(
        image.repository, _DOCKER_MANIFEST, digest, image.size + 40, references, image.pushed_at
    )


def _index(children: list[Manifest]) -> Manifest:
    images = [child for child in children if child.architecture not in ("", "unknown")]
    references = []
    for position, child in enumerate(children):
        entry = {"mediaType": child.media_type, "digest": child.digest, "size": child.size}
        if child.architecture:
            system = "unknown" if child.architecture == "unknown" else "linux"
            entry["platform"] = {"architecture": child.architecture, "os": system}
        if child.architecture == "unknown":
            entry["annotations"] = {
                "vnd.docker.reference.digest": images[position - len(images)].digest,
                "vnd.docker.reference.type": "attestation-manifest",
            }
        references.append(entry)
    size = 90 + sum(420 if "annotations" in entry else 240 for entry in references)
    first = children[0]
    digest = digest_of("index", *(child.digest for child in children))
    return Manifest(
        first.repository, OCI_INDEX, digest, size, references, first.pushed_at, tuple(children)
    )
