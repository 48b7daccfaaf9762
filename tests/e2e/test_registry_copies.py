"""The registry client between real registries; what came over is judged by skopeo."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from clients import Skopeo
from images import IMAGE, INDEX, Image
from processes import PASSWORDS, Registry, cleaned_up, need_program

from app.registry import (
    BlobCopier,
    Endpoint,
    Manifest,
    RegistryClient,
    RegistryError,
    parse_manifest,
)
from app.registry.transport import Body
from app.rules.events import Descriptor

pytestmark = pytest.mark.e2e

DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
READ_ONLY = {"maintenance": {"readonly": {"enabled": True}}}

MakeRegistry = Callable[..., Registry]
MakeClient = Callable[..., RegistryClient]


@pytest.fixture(scope="module")
def make_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeRegistry]:
    """Start a registry; `storage` is its directory, or another's to serve the same content."""
    need_program("docker-registry")
    with ExitStack() as stack:

        def make(**options: Any) -> Registry:
            registry = Registry(tmp_path_factory.mktemp("registry"), **options)
            stack.enter_context(cleaned_up(registry)).start()
            return registry

        yield make


@pytest.fixture(scope="module")
def old(make_registry: MakeRegistry) -> Registry:
    """The source, which anybody may use."""
    return make_registry(accounts=False)


@pytest.fixture(scope="module")
def new(make_registry: MakeRegistry) -> Registry:
    """The target, which asks for a password."""
    return make_registry()


@pytest.fixture(scope="module")
def make_client() -> Iterator[MakeClient]:
    with ExitStack() as stack:

        def make(registry: Registry, **options: Any) -> RegistryClient:
            plain = registry.url.startswith("http:")
            client = RegistryClient(Endpoint(url=registry.url, plain_http=plain, **options))
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture(scope="module")
def source(old: Registry, make_client: MakeClient) -> RegistryClient:
    return make_client(old)


@pytest.fixture(scope="module")
def target(new: Registry, make_client: MakeClient) -> RegistryClient:
    return make_client(new, username="ci-bot", password=PASSWORDS["ci-bot"])


@pytest.fixture(scope="module")
def make_skopeo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Registry], Skopeo]:
    need_program("skopeo")
    home = tmp_path_factory.mktemp("home")
    return lambda registry: Skopeo(registry, "ci-bot", home)


@pytest.fixture
def at_old(old: Registry, make_skopeo: Callable[[Registry], Skopeo]) -> Skopeo:
    return make_skopeo(old)


@pytest.fixture
def at_new(new: Registry, make_skopeo: Callable[[Registry], Skopeo]) -> Skopeo:
    return make_skopeo(new)


def copy(
    source: RegistryClient, target: RegistryClient, repository: str, reference: str
) -> Manifest:
    """Copy a manifest with all that it names, under the same names."""
    manifest = source.get_manifest(repository, reference)
    for child in manifest.children:
        copy(source, target, repository, child.digest)
    copier = BlobCopier(target)
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda blob: copier.copy_blob(source, blob, repository, repository), manifest.blobs
            )
        )
    target.put_manifest(repository, reference, manifest)
    return manifest


def put_blob(
    client: RegistryClient, repository: str, content: bytes, media_type: str
) -> Descriptor:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    upload = client.start_upload(repository)
    client.put_upload(repository, upload, digest, Body([content], len(content)))
    return Descriptor(digest, len(content), media_type)


def put_manifest(
    client: RegistryClient, repository: str, reference: str, media_type: str, **content: Any
) -> Manifest:
    """Store a manifest in a spelling of JSON that nobody else uses."""
    document = {"mediaType": media_type, "schemaVersion": 2, **content}
    manifest = parse_manifest(json.dumps(document, indent=7).encode() + b"\n \n", media_type)
    client.put_manifest(repository, reference or manifest.digest, manifest)
    return manifest


def wire(descriptor: Descriptor) -> dict[str, Any]:
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }


def put_image(
    client: RegistryClient, repository: str, reference: str, layers: list[bytes], **content: Any
) -> Manifest:
    """An image of uncompressed layers; without `reference` it has no tag."""
    config = put_blob(client, repository, b'{"made":"here"}', "application/vnd.example.config+json")
    tar = "application/vnd.oci.image.layer.v1.tar"
    put = [put_blob(client, repository, layer, tar) for layer in layers]
    return put_manifest(
        client,
        repository,
        reference,
        IMAGE,
        config=wire(config),
        layers=[wire(layer) for layer in put],
        **content,
    )


@pytest.mark.parametrize(
    ("kind", "options", "media_type"),
    [
        ("image", [], IMAGE),
        ("image", ["--format", "v2s2"], DOCKER_IMAGE),
        ("index", [], INDEX),
        ("index", ["--format", "v2s2"], DOCKER_LIST),
    ],
    ids=["OCI image", "schema 2", "OCI index", "manifest list"],
)
def test_what_skopeo_pushed_is_copied_unchanged_and_whole(
    source: RegistryClient,
    target: RegistryClient,
    at_old: Skopeo,
    at_new: Skopeo,
    build_image: Callable[[str], Image],
    build_index: Callable[[str], Image],
    repository: str,
    tmp_path: Path,
    kind: str,
    options: list[str],
    media_type: str,
) -> None:
    build = {"image": build_image, "index": build_index}[kind]
    at_old.push(build(f"{kind} {options}"), f"{repository}:v1", *options)

    copied = copy(source, target, repository, "v1")

    assert copied.media_type == media_type
    assert at_new.digest(f"{repository}:v1") == at_old.digest(f"{repository}:v1") == copied.digest
    assert target.head_manifest(repository, "v1") == source.head_manifest(repository, "v1")
    at_new.pull(f"{repository}:v1", tmp_path / "pulled")


def test_an_index_in_an_index_is_copied_unchanged(
    source: RegistryClient,
    target: RegistryClient,
    at_old: Skopeo,
    at_new: Skopeo,
    repository: str,
) -> None:
    image = put_image(source, repository, "", [b"a layer"])
    inner = put_manifest(source, repository, "", INDEX, manifests=[wire(image.descriptor)])
    outer = put_manifest(source, repository, "v1", INDEX, manifests=[wire(inner.descriptor)])

    copy(source, target, repository, "v1")

    assert at_new.digest(f"{repository}:v1") == at_old.digest(f"{repository}:v1") == outer.digest
    assert at_new.digest(f"{repository}@{image.digest}") == image.digest


def test_an_artifact_and_its_subject_are_copied_unchanged(
    source: RegistryClient,
    target: RegistryClient,
    at_new: Skopeo,
    repository: str,
) -> None:
    image = put_image(source, repository, "v1", [b"a layer"])
    signature = put_image(
        source, repository, "sig", [b"signed"], subject=wire(image.descriptor), artifactType="x/y"
    )
    tag = image.digest.replace(":", "-")
    put_manifest(source, repository, tag, INDEX, manifests=[wire(signature.descriptor)])

    copied = copy(source, target, repository, "sig")
    copy(source, target, repository, tag)

    assert at_new.digest(f"{repository}:sig") == signature.digest
    assert (copied.subject, copied.artifact_type) == (image.descriptor, "x/y")
    assert target.referrers(repository, image.digest) == [signature.descriptor]
    assert source.referrers(repository, signature.digest) == []


@pytest.mark.parametrize("max_put_bytes", [10**9, 20_000_000], ids=["in one piece", "in chunks"])
def test_a_layer_of_50_mb_is_copied_unchanged(
    source: RegistryClient,
    new: Registry,
    make_client: MakeClient,
    at_new: Skopeo,
    repository: str,
    tmp_path: Path,
    max_put_bytes: int,
) -> None:
    layer = os.urandom(50_000_000)
    image = put_image(source, repository, "v1", [layer])
    target = make_client(
        new,
        username="ci-bot",
        password=PASSWORDS["ci-bot"],
        max_put_bytes=max_put_bytes,
        chunk_bytes=15_000_000,
    )

    copy(source, target, repository, "v1")

    at_new.pull(f"{repository}:v1", tmp_path / "pulled")
    pulled = tmp_path / "pulled" / image.blobs[1].digest.removeprefix("sha256:")
    assert hashlib.sha256(pulled.read_bytes()).digest() == hashlib.sha256(layer).digest()


def test_a_blob_is_mounted_from_where_the_target_has_it(
    source: RegistryClient, target: RegistryClient, repository: str
) -> None:
    blob = put_blob(source, repository, b"of both", "application/octet-stream")
    copier = BlobCopier(target)

    outcomes = [
        copier.copy_blob(source, blob, repository, f"{repository}/one"),
        copier.copy_blob(source, blob, repository, f"{repository}/one"),
        copier.copy_blob(source, blob, repository, f"{repository}/two", [f"{repository}/one"]),
        copier.copy_blob(source, blob, repository, f"{repository}/three", ["not/there"]),
    ]

    assert outcomes == ["copied", "present", "mounted", "copied"]
    assert target.has_blob(f"{repository}/two", blob.digest)


def test_an_unchanged_manifest_is_known_without_a_pull(
    source: RegistryClient, repository: str
) -> None:
    image = put_image(source, repository, "v1", [])

    assert source.head_manifest(repository, "v1", image.digest) == Descriptor(image.digest)
    assert source.head_manifest(repository, "v1").digest == image.digest


def test_a_manifest_without_its_blobs_is_refused_as_such(
    target: RegistryClient, repository: str
) -> None:
    missing = Descriptor(f"sha256:{'0' * 64}", 3, "application/octet-stream")

    with pytest.raises(RegistryError) as caught:
        put_manifest(target, repository, "v1", IMAGE, config=wire(missing), layers=[])

    assert (caught.value.error_class, caught.value.status) == ("blob_unknown", 400)


def test_what_is_not_there_is_gone(source: RegistryClient, repository: str) -> None:
    for ask in (source.get_manifest, source.head_manifest):
        with pytest.raises(RegistryError) as caught:
            ask(repository, "v1")
        assert caught.value.error_class == "gone"


def test_a_catalogue_of_more_than_100_repositories_is_read_in_pages_and_from_the_middle(
    make_registry: MakeRegistry, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.registry.client.CATALOG_PAGE", 50)
    client = make_client(make_registry(accounts=False))
    names = [f"many/r{number:03}" for number in range(120)]
    image = put_image(client, names[0], "v1", [])
    for name in names[1:]:
        assert client.start_upload(name, image.blobs[0].digest, names[0]) == ""
        client.put_manifest(name, "v1", image)

    pages = list(client.catalog())

    assert list(map(len, pages)) == [50, 50, 20]
    assert [*chain(*pages)] == names
    assert [*chain(*client.catalog(last=pages[0][-1]))] == names[50:]


def test_tags_are_sorted_and_none_of_an_unknown_or_emptied_repository(
    source: RegistryClient, repository: str
) -> None:
    image = put_image(source, repository, "v1", [])
    for tag in ("v9", "v10", "latest"):
        source.put_manifest(repository, tag, image)

    assert source.tags(repository) == ["latest", "v1", "v10", "v9"]
    source.delete_manifest(repository, image.digest)
    assert source.tags(repository) == []
    assert source.tags(f"{repository}/never") == []


def test_the_deletion_of_a_tag_leaves_other_tags_of_the_same_digest(
    target: RegistryClient, at_new: Skopeo, repository: str
) -> None:
    image = put_image(target, repository, "v1", [b"kept"])
    target.put_manifest(repository, "v2", image)

    target.delete_tag(repository, "v1")

    assert target.tags(repository) == ["v2"]
    assert at_new.digest(f"{repository}:v2") == image.digest


def test_the_deletion_of_a_digest_takes_all_its_tags(
    target: RegistryClient, repository: str
) -> None:
    image = put_image(target, repository, "v1", [])
    target.put_manifest(repository, "v2", image)

    target.delete_manifest(repository, image.digest)

    assert target.tags(repository) == []
    with pytest.raises(RegistryError) as caught:
        target.delete_manifest(repository, image.digest)
    assert caught.value.error_class == "gone"


def test_a_registry_without_deletes_keeps_the_tag(
    make_registry: MakeRegistry, make_client: MakeClient, repository: str
) -> None:
    client = make_client(
        make_registry(accounts=False, config={"storage": {"delete": {"enabled": False}}})
    )
    image = put_image(client, repository, "v1", [])

    with pytest.raises(RegistryError) as caught:
        client.delete_tag(repository, "v1")

    assert caught.value.error_class == "unsupported"
    assert client.head_manifest(repository, "v1").digest == image.digest


def test_a_read_only_registry_is_told_from_a_broken_one(
    old: Registry,
    source: RegistryClient,
    make_registry: MakeRegistry,
    make_client: MakeClient,
    repository: str,
) -> None:
    image = put_image(source, repository, "v1", [])
    frozen = make_client(
        make_registry(accounts=False, storage=old.storage, config={"storage": READ_ONLY})
    )
    writes: list[Callable[[], Any]] = [
        lambda: frozen.put_manifest(repository, "v2", image),
        lambda: frozen.start_upload(repository),
        lambda: frozen.delete_manifest(repository, image.digest),
        lambda: frozen.delete_tag(repository, "v1"),
    ]

    for write in writes:
        with pytest.raises(RegistryError) as caught:
            write()
        assert caught.value.error_class == "readonly"

    assert frozen.get_manifest(repository, "v1") == image


@pytest.mark.parametrize(
    "options", [{}, {"username": "ci-bot", "password": "wrong"}], ids=["none", "wrong"]
)
def test_missing_or_wrong_credentials_are_told(
    new: Registry, make_client: MakeClient, options: dict[str, str]
) -> None:
    with pytest.raises(RegistryError, match="check user name and password") as caught:
        make_client(new, **options).ping()

    assert (caught.value.error_class, caught.value.status) == ("auth", 401)


def test_a_password_that_was_changed_at_the_registry_is_read_again(
    new: Registry, make_client: MakeClient, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("old password")
    client = make_client(new, username="ci-bot", password_file=str(file))
    with pytest.raises(RegistryError):
        client.ping()

    file.write_text(PASSWORDS["ci-bot"])

    client.ping()


def test_a_registry_that_hangs_and_one_that_is_gone_are_down(
    make_registry: MakeRegistry, make_client: MakeClient
) -> None:
    registry = make_registry(accounts=False)
    client = make_client(registry, read_timeout_s=0.5)

    registry.program.freeze()
    with pytest.raises(RegistryError, match="timed out") as hanging:
        client.ping()
    registry.program.kill_group()
    with pytest.raises(RegistryError) as gone:
        client.ping()

    assert hanging.value.error_class == "down"
    assert gone.value.error_class == "down"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate of 127.0.0.1, its own authority, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    files = str(directory / "cert.pem"), str(directory / "key.pem")
    options = "-x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    names = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [need_program("openssl"), "req", *options.split(), *names]
    subprocess.run(
        [*command, "-out", files[0], "-keyout", files[1]], check=True, capture_output=True
    )
    return files


@pytest.fixture(scope="module")
def with_tls(make_registry: MakeRegistry, certificate: tuple[str, str]) -> Registry:
    """A registry that speaks TLS and wants a certificate of its clients."""
    cert, key = certificate
    return make_registry(
        accounts=False,
        config={"http": {"tls": {"certificate": cert, "key": key, "clientcas": [cert]}}},
    )


@pytest.mark.parametrize("trust", [{"ca_file": 0}, {"insecure": True}], ids=["CA", "insecure"])
def test_a_registry_with_tls_is_reached_with_its_authority_or_without_looking(
    with_tls: Registry, make_client: MakeClient, certificate: tuple[str, str], trust: dict[str, Any]
) -> None:
    options = {key: certificate[0] if key == "ca_file" else True for key in trust}

    make_client(with_tls, client_cert=certificate[0], client_key=certificate[1], **options).ping()


def test_an_unknown_authority_is_an_error_of_tls(
    with_tls: Registry, make_client: MakeClient, certificate: tuple[str, str]
) -> None:
    client = make_client(with_tls, client_cert=certificate[0], client_key=certificate[1])

    with pytest.raises(RegistryError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        client.ping()

    assert caught.value.error_class == "tls"


def test_a_missing_client_certificate_is_an_error_of_tls(
    with_tls: Registry, make_client: MakeClient, certificate: tuple[str, str]
) -> None:
    with pytest.raises(RegistryError) as caught:
        make_client(with_tls, ca_file=certificate[0]).ping()

    assert caught.value.error_class == "tls"
