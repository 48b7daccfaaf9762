"""The registry client against what a real registry on this machine cannot be made to do."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_registry import Answer, FakeRegistry, Request
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigError, InvalidReference
from app.registry import BlobCopier, Endpoint, RegistryClient, RegistryError, parse_manifest
from app.registry.auth import origin_of, parse_challenges
from app.registry.errors import error_from_answer, parse_retry_after
from app.registry.transport import Body
from app.rules.clients import client_class
from app.rules.events import Descriptor

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
PASSWORD = "correct-horse"
BASIC = "Basic " + base64.b64encode(f"mig:{PASSWORD}".encode()).decode()
SESSION = "/v2/b/blobs/uploads/session"


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


BLOB = bytes(range(256)) * 12 * 1024  # 3 MiB
BLOB_DIGEST = digest_of(BLOB)
DESCRIPTOR = Descriptor(BLOB_DIGEST, len(BLOB), LAYER)
CONFIG = Descriptor(digest_of(b"{}"), 2, "application/vnd.oci.image.config.v1+json")


def wire(descriptor: Descriptor, **more: Any) -> dict[str, Any]:
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
        **more,
    }


def as_json(**content: Any) -> bytes:
    """With white space that no second writing would keep."""
    return b" " + json.dumps({"schemaVersion": 2, **content}, indent=3).encode() + b"\n\n"


MANIFEST = as_json(mediaType=IMAGE, config=wire(CONFIG), layers=[wire(DESCRIPTOR)])
MANIFEST_DIGEST = digest_of(MANIFEST)


def manifest_answer(body: bytes = MANIFEST, media_type: str = IMAGE, **headers: str) -> Answer:
    said = {"Content-Type": media_type, "Docker-Content-Digest": digest_of(body)}
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(200, body, {k: v for k, v in (said | changed).items() if v})


def errors_answer(status: int, code: str, message: str = "", **headers: str) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status, body, headers)


@pytest.fixture
def make_fake() -> Iterator[Callable[[], FakeRegistry]]:
    fakes: list[FakeRegistry] = []

    def make() -> FakeRegistry:
        fakes.append(FakeRegistry())
        return fakes[-1]

    yield make
    for fake in fakes:
        fake.close()


@pytest.fixture
def fake(make_fake: Callable[[], FakeRegistry]) -> FakeRegistry:
    return make_fake()


@pytest.fixture
def other(make_fake: Callable[[], FakeRegistry]) -> FakeRegistry:
    """A second server, on another origin."""
    return make_fake()


@pytest.fixture
def make_client() -> Iterator[Callable[..., RegistryClient]]:
    clients: list[RegistryClient] = []

    def make(fake: FakeRegistry, **options: Any) -> RegistryClient:
        hooks = {key: options.pop(key) for key in list(options) if key.endswith("_request")}
        endpoint = Endpoint(url=fake.url, plain_http=True, **options)
        clients.append(RegistryClient(endpoint, **hooks))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(fake: FakeRegistry, make_client: Callable[..., RegistryClient]) -> RegistryClient:
    return make_client(fake)


MakeClient = Callable[..., RegistryClient]

# Manifests


def test_a_manifest_is_the_same_bytes_at_both_ends(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    fake.on("GET", "/v2/a/manifests/v1", manifest_answer())
    fake.on(
        "PUT", "/v2/b/manifests/v2", Answer(201, b"", {"Docker-Content-Digest": MANIFEST_DIGEST})
    )

    manifest = client.get_manifest("a", "v1")
    client.put_manifest("b", "v2", manifest)

    (put,) = fake.asked("PUT")
    assert put.body == MANIFEST
    assert put.headers["Content-Type"] == IMAGE
    assert manifest.digest == MANIFEST_DIGEST


def test_every_request_says_who_we_are_and_accepts_every_manifest_type(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    fake.on("GET", "/v2/a/manifests/v1", manifest_answer())

    client.get_manifest("a", "v1")

    (request,) = fake.requests
    accepted = request.headers["Accept"].split(", ")
    assert sorted(accepted) == sorted([IMAGE, INDEX, DOCKER_IMAGE, DOCKER_LIST, "*/*;q=0.1"])
    assert client_class(request.headers["User-Agent"]) == "own"
    assert request.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("reference", ["v1", MANIFEST_DIGEST])
def test_bytes_other_than_the_digest_in_the_header_are_an_error(
    fake: FakeRegistry, client: RegistryClient, reference: str
) -> None:
    answer = manifest_answer(Docker_Content_Digest=digest_of(b"something else"))
    fake.on("GET", f"/v2/a/manifests/{reference}", answer)

    with pytest.raises(RegistryError) as caught:
        client.get_manifest("a", reference)

    assert caught.value.error_class == "digest_mismatch"
    assert caught.value.registry == fake.url


def test_bytes_other_than_the_digest_asked_for_are_an_error(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    wanted = digest_of(b"wanted")
    fake.on("GET", f"/v2/a/manifests/{wanted}", manifest_answer(Docker_Content_Digest=""))

    with pytest.raises(RegistryError) as caught:
        client.get_manifest("a", wanted)

    assert caught.value.error_class == "digest_mismatch"


def test_a_head_without_digest_hashes_the_bytes_instead(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    fake.on("HEAD", "/v2/a/manifests/v1", manifest_answer(Docker_Content_Digest=""))
    fake.on("GET", "/v2/a/manifests/v1", manifest_answer(Docker_Content_Digest=""))

    assert client.head_manifest("a", "v1") == Descriptor(MANIFEST_DIGEST, len(MANIFEST), IMAGE)


def test_a_head_by_digest_that_names_another_is_an_error(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    wanted = digest_of(b"wanted")
    fake.on("HEAD", f"/v2/a/manifests/{wanted}", manifest_answer())

    with pytest.raises(RegistryError) as caught:
        client.head_manifest("a", wanted)

    assert caught.value.error_class == "digest_mismatch"


def test_an_unchanged_manifest_is_known_from_its_etag(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    fake.on("HEAD", "/v2/a/manifests/v1", Answer(304))

    assert client.head_manifest("a", "v1", MANIFEST_DIGEST).digest == MANIFEST_DIGEST
    assert fake.requests[0].headers["If-None-Match"] == f'"{MANIFEST_DIGEST}"'


def test_a_blob_that_is_stored_under_another_digest_is_an_error(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    fake.on("PUT", "/session", Answer(201, b"", {"Docker-Content-Digest": CONFIG.digest}))
    body = Body([BLOB], len(BLOB))

    with pytest.raises(RegistryError, match=f"stored as {CONFIG.digest}") as caught:
        client.put_upload("b", f"{fake.url}/session", BLOB_DIGEST, body)

    assert caught.value.error_class == "digest_mismatch"


def test_a_digest_is_asked_for_as_if_nothing_were_known_of_it(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    with pytest.raises(RegistryError) as caught:
        client.head_manifest("a", MANIFEST_DIGEST, MANIFEST_DIGEST)

    assert caught.value.error_class == "gone"
    assert fake.requests[0].headers["If-None-Match"] is None


def test_a_304_that_nobody_asked_for_is_an_error(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    fake.on("HEAD", "/v2/a/manifests/v1", Answer(304))

    with pytest.raises(RegistryError):
        client.head_manifest("a", "v1")


def test_a_registry_that_stores_another_digest_is_an_error(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    fake.on(
        "PUT",
        "/v2/b/manifests/v1",
        Answer(201, b"", {"Docker-Content-Digest": digest_of(b"rewritten")}),
    )

    with pytest.raises(RegistryError) as caught:
        client.put_manifest("b", "v1", parse_manifest(MANIFEST, IMAGE))

    assert caught.value.error_class == "digest_mismatch"


def test_a_registry_that_says_no_digest_is_asked_what_it_stored(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    fake.on("PUT", "/v2/b/manifests/v1", Answer(201))
    fake.on("HEAD", "/v2/b/manifests/v1", manifest_answer(b"rewritten"))

    with pytest.raises(RegistryError) as caught:
        client.put_manifest("b", "v1", parse_manifest(MANIFEST, IMAGE))

    assert caught.value.error_class == "digest_mismatch"


def test_a_manifest_of_more_than_4_mib_is_not_read(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    fake.on("GET", "/v2/a/manifests/v1", manifest_answer(b" " * (4 * 1024 * 1024) + MANIFEST))

    with pytest.raises(RegistryError, match="more than 4194304 bytes") as caught:
        client.get_manifest("a", "v1")

    assert caught.value.error_class == "unsupported"


def test_a_name_that_is_none_is_never_asked_for(fake: FakeRegistry, client: RegistryClient) -> None:
    for call in (
        lambda: client.get_manifest("../a", "v1"),
        lambda: client.get_manifest("a", "v1/../../b"),
        lambda: client.has_blob("a", "sha256:x"),
        lambda: client.start_upload("b", BLOB_DIGEST, "a&from=b"),
    ):
        with pytest.raises(InvalidReference):
            call()

    assert fake.requests == []


def test_an_index_names_its_children_and_layers_of_a_cache() -> None:
    child = Descriptor(MANIFEST_DIGEST, len(MANIFEST), IMAGE)
    body = as_json(mediaType=INDEX, manifests=[wire(child), wire(child), wire(DESCRIPTOR)])

    index = parse_manifest(body, f"{INDEX}; charset=utf-8")

    assert index.media_type == INDEX
    assert index.children == (child,)
    assert index.blobs == (DESCRIPTOR,)


def test_an_image_names_config_layers_foreign_layers_and_subject() -> None:
    foreign = Descriptor(digest_of(b"windows"), 7, "application/vnd.oci.image.layer.v1.tar")
    subject = Descriptor(digest_of(b"image"), 5, IMAGE)
    body = as_json(
        artifactType="application/vnd.example",
        config=wire(CONFIG),
        layers=[wire(DESCRIPTOR), wire(foreign, urls=["https://example.org/"]), wire(DESCRIPTOR)],
        subject=wire(subject),
    )

    image = parse_manifest(body, IMAGE)

    assert image.blobs == (CONFIG, DESCRIPTOR)
    assert image.foreign == (foreign,)
    assert (image.subject, image.artifact_type) == (subject, "application/vnd.example")


@pytest.mark.parametrize("content_type", ["application/json", "", "text/plain"])
def test_the_manifest_tells_its_type_where_the_header_does_not(content_type: str) -> None:
    assert parse_manifest(MANIFEST, content_type).media_type == IMAGE


@pytest.mark.parametrize(
    ("body", "media_type"),
    [
        (b"", IMAGE),
        (b"[]", IMAGE),
        (b"\xff", IMAGE),
        (b"[" * 100_000, IMAGE),
        (as_json(), "application/json"),
        (as_json(config={"digest": "nonsense"}), IMAGE),
        (as_json(config={"size": 3}), IMAGE),
        (as_json(layers=[wire(DESCRIPTOR) | {"size": -1}]), IMAGE),
        (as_json(), "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ],
    ids=["empty", "list", "binary", "deep", "typeless", "digest", "no digest", "size", "schema 1"],
)
def test_what_is_no_manifest_is_unsupported(body: bytes, media_type: str) -> None:
    with pytest.raises(RegistryError) as caught:
        parse_manifest(body, media_type)

    assert caught.value.error_class == "unsupported"


def test_schema_1_is_unsupported_although_its_digest_is_not_of_its_bytes() -> None:
    media_type = "application/vnd.docker.distribution.manifest.v1+prettyjws"

    with pytest.raises(RegistryError) as caught:
        parse_manifest(as_json(), media_type, digest_of(b"payload"))

    assert caught.value.error_class == "unsupported"


@given(st.binary() | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_any_bytes_are_a_manifest_or_a_registry_error(body: bytes | str) -> None:
    content = body.encode() if isinstance(body, str) else body
    error_class = ""
    try:
        parse_manifest(content, IMAGE)
    except RegistryError as error:
        error_class = error.error_class

    assert error_class in ("", "unsupported")


# Authentication


def asks_basic(request: Request) -> Answer:
    if request.authorization == BASIC:
        return Answer()
    return Answer(401, b"", {"WWW-Authenticate": 'Basic realm="registry"'})


def test_a_password_is_sent_when_the_registry_asks_and_then_at_once(
    fake: FakeRegistry, make_client: MakeClient
) -> None:
    fake.on("GET", "/v2/", asks_basic)
    client = make_client(fake, username="mig", password=PASSWORD)

    client.ping()
    client.ping()

    assert [request.authorization for request in fake.requests] == ["", BASIC, BASIC]


def test_a_wrong_password_is_tried_once_and_never_shown(
    fake: FakeRegistry, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def throw_back(request: Request) -> Answer:
        text = f"no: {request.authorization} means wrong-horse"
        return errors_answer(401, "UNAUTHORIZED", text, **{"WWW-Authenticate": "Basic"})

    fake.on("GET", "/v2/", throw_back)
    client = make_client(fake, username="mig", password="wrong-horse")
    endpoint = Endpoint(url=fake.url, username="mig", password="wrong-horse")

    with pytest.raises(RegistryError) as caught:
        client.ping()

    shown = f"{caught.value} {vars(caught.value)} {client!r} {endpoint!r} {caplog.text}"
    assert caught.value.error_class == "auth"
    assert "means ***" in shown
    assert "wrong-horse" not in shown
    assert fake.requests[-1].authorization.partition(" ")[2] not in shown
    with pytest.raises(RegistryError):
        client.ping()
    assert len(fake.requests) == 2  # nor soon again


def test_a_new_password_in_the_file_is_taken_without_a_restart(
    fake: FakeRegistry, make_client: MakeClient, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    fake.on("GET", "/v2/", asks_basic)
    client = make_client(fake, username="mig", password_file=str(file))
    with pytest.raises(RegistryError):
        client.ping()

    file.write_text(f"{PASSWORD}\n")
    client.ping()

    assert fake.requests[-1].authorization == BASIC


def test_a_password_file_that_is_gone_is_an_error_of_credentials(
    fake: FakeRegistry, make_client: MakeClient, tmp_path: Path
) -> None:
    fake.on("GET", "/v2/", asks_basic)
    client = make_client(fake, username="mig", password_file=str(tmp_path / "none"))

    with pytest.raises(RegistryError, match="cannot be read") as caught:
        client.ping()

    assert caught.value.error_class == "auth"


def test_a_password_comes_from_a_variable_whenever_it_is_needed(
    fake: FakeRegistry, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.on("GET", "/v2/", asks_basic)
    client = make_client(fake, username_env="OUR_NAME", password_env="OUR_PASSWORD")
    monkeypatch.setenv("OUR_NAME", "mig")
    with pytest.raises(RegistryError, match="OUR_PASSWORD is not set") as caught:
        client.ping()
    assert caught.value.error_class == "auth"

    monkeypatch.setenv("OUR_PASSWORD", PASSWORD)
    client.ping()

    assert fake.requests[-1].authorization == BASIC


@pytest.mark.parametrize("key", ["{host}", "http://{host}", "http://{host}/v1/"])
def test_a_password_comes_from_a_file_of_docker(
    fake: FakeRegistry, make_client: MakeClient, tmp_path: Path, key: str
) -> None:
    fake.on("GET", "/v2/", asks_basic)
    file = tmp_path / "config.json"
    client = make_client(fake, authfile=str(file))
    name = key.format(host=fake.url.removeprefix("http://"))
    other = {"auths": {"other:5000": {"auth": "b3RoZXI6b3RoZXI="}, name: {}}}
    file.write_text(json.dumps(other))
    with pytest.raises(RegistryError, match="has no `auth` for this registry"):
        client.ping()

    other["auths"][name] = {"auth": BASIC.partition(" ")[2]}
    file.write_text(json.dumps(other))
    client.ping()

    assert fake.requests[-1].authorization == BASIC


@pytest.mark.parametrize("text", ["", "[]", '{"auths": {"HOST": {"auth": "s3cret"}}}'])
def test_a_file_of_docker_that_cannot_be_read_is_an_error_of_credentials(
    fake: FakeRegistry, make_client: MakeClient, tmp_path: Path, text: str
) -> None:
    fake.on("GET", "/v2/", asks_basic)
    file = tmp_path / "config.json"
    file.write_text(text.replace("HOST", fake.url.removeprefix("http://")))
    client = make_client(fake, authfile=str(file))

    with pytest.raises(RegistryError, match="cannot be read") as caught:
        client.ping()

    assert caught.value.error_class == "auth"
    assert "s3cret" not in str(caught.value)


def test_passwords_of_a_netrc_file_are_not_sent(
    fake: FakeRegistry, client: RegistryClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login mig password correct-horse\n")
    monkeypatch.setenv("NETRC", str(netrc))
    fake.on("GET", "/v2/", Answer())

    client.ping()

    assert fake.requests[0].authorization == ""


class TokenServer:
    """Makes a registry ask for tokens, and another server (or itself) give them."""

    def __init__(self, registry: FakeRegistry, server: FakeRegistry, expires_in: Any = 3600):
        self.registry, self.server = registry, server
        self.expires_in = expires_in
        self.valid: set[str] = set()
        server.on("GET", "/token", self._give)

    def protect(self, method: str, path: str, answer: Answer) -> None:
        def check(request: Request) -> Answer:
            if request.authorization.removeprefix("Bearer ") in self.valid:
                return answer
            challenge = f'Bearer realm="{self.server.url}/token",service="reg",scope="x:y:z"'
            return Answer(401, b"", {"WWW-Authenticate": challenge})

        self.registry.on(method, path, check)

    def _give(self, request: Request) -> Answer:
        token = f"token-{len(self.server.asked('GET', '/token'))}"
        self.valid.add(token)
        return Answer(200, json.dumps({"token": token, "expires_in": self.expires_in}).encode())


def test_a_listed_realm_gives_a_token_for_the_password(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    TokenServer(fake, other).protect("GET", "/v2/a/manifests/v1", manifest_answer())
    client = make_client(fake, username="mig", password=PASSWORD, token_realms=(other.url,))

    client.get_manifest("a", "v1")

    (asked,) = other.requests
    assert asked.authorization == BASIC
    assert asked.query == (("service", "reg"), ("scope", "repository:a:pull"))
    assert [request.authorization for request in fake.requests] == ["", "Bearer token-1"]


@pytest.mark.parametrize("listed", ["", "/token"], ids=["an origin", "a whole URL"])
def test_a_realm_is_listed_by_its_origin_or_whole(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient, listed: str
) -> None:
    TokenServer(fake, other).protect("GET", "/v2/", Answer())

    make_client(fake, token_realms=(other.url + listed,)).ping()

    assert len(other.requests) == 1


def test_a_realm_on_the_registry_itself_needs_no_listing(
    fake: FakeRegistry, make_client: MakeClient
) -> None:
    TokenServer(fake, fake).protect("GET", "/v2/", Answer())

    make_client(fake, username="mig", password=PASSWORD).ping()

    assert fake.asked("GET", "/token")[0].authorization == BASIC


@pytest.mark.parametrize("listed", [(), ("https://auth.example",), ("{url}/elsewhere",)])
def test_a_realm_that_is_not_listed_sees_nothing_of_us(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient, listed: tuple[str, ...]
) -> None:
    TokenServer(fake, other).protect("GET", "/v2/", Answer())
    realms = tuple(realm.format(url=other.url) for realm in listed)
    client = make_client(fake, username="mig", password=PASSWORD, token_realms=realms)

    with pytest.raises(RegistryError, match=f"token to {other.url}; .* token_realms") as caught:
        client.ping()

    assert caught.value.error_class == "realm"
    assert other.requests == []


@pytest.mark.parametrize(
    "realm",
    [
        "{other}\\\\@{own}/token",
        "{other}#@{own}/",
        "//{own}/token",
        "/token",
        "file:///etc/passwd",
        "",
    ],
)
def test_a_realm_that_only_looks_like_the_registry_sees_nothing_of_us(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient, realm: str
) -> None:
    text = realm.format(other=other.url, own=fake.url.removeprefix("http://"))
    fake.on("GET", "/v2/", Answer(401, b"", {"WWW-Authenticate": f'Bearer realm="{text}"'}))
    client = make_client(fake, username="mig", password=PASSWORD)

    with pytest.raises(RegistryError) as caught:
        client.ping()

    assert caught.value.error_class == "realm"
    assert other.requests == []
    assert fake.asked("GET", "/token") == []


def test_a_token_server_that_redirects_is_not_followed(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    TokenServer(fake, fake).protect("GET", "/v2/", Answer())
    fake.on("GET", "/token", Answer(302, b"", {"Location": f"{other.url}/token"}))
    client = make_client(fake, username="mig", password=PASSWORD)

    with pytest.raises(RegistryError):
        client.ping()

    assert other.requests == []


@pytest.mark.parametrize(
    ("expires_in", "tokens"), [(3600, 1), (None, 1), (0, 2)], ids=["long", "unsaid", "over"]
)
def test_a_token_is_used_as_long_as_it_lives(
    fake: FakeRegistry, make_client: MakeClient, expires_in: int | None, tokens: int
) -> None:
    TokenServer(fake, fake, expires_in).protect("GET", "/v2/", Answer())
    client = make_client(fake)

    client.ping()
    client.ping()

    assert len(fake.asked("GET", "/token")) == tokens
    assert len(fake.asked("GET", "/v2/")) == 3


def test_a_token_that_is_refused_is_renewed_once(
    fake: FakeRegistry, make_client: MakeClient
) -> None:
    tokens = TokenServer(fake, fake)
    tokens.protect("GET", "/v2/", Answer())
    client = make_client(fake)
    client.ping()

    tokens.valid.clear()
    client.ping()

    sent = [request.authorization for request in fake.asked("GET", "/v2/")]
    assert sent == ["", "Bearer token-1", "Bearer token-1", "Bearer token-2"]


def test_a_new_token_that_is_refused_too_is_an_error(
    fake: FakeRegistry, make_client: MakeClient
) -> None:
    TokenServer(fake, fake)
    challenge = f'Bearer realm="{fake.url}/token"'
    fake.on("GET", "/v2/", Answer(401, b"", {"WWW-Authenticate": challenge}))
    client = make_client(fake)

    with pytest.raises(RegistryError) as caught:
        client.ping()

    assert caught.value.error_class == "auth"
    assert len(fake.requests) == 3


@pytest.mark.parametrize(
    ("said", "error_class"),
    [
        ("", "forbidden"),
        (',error="insufficient_scope"', "forbidden"),
        (',error="invalid_token"', "auth"),
    ],
)
def test_a_token_that_does_not_allow_a_repository_says_nothing_about_the_others(
    fake: FakeRegistry, make_client: MakeClient, said: str, error_class: str
) -> None:
    TokenServer(fake, fake)
    challenge = f'Bearer realm="{fake.url}/token"{said}'
    refused = Answer(401, b"", {"WWW-Authenticate": challenge})
    fake.on("HEAD", "/v2/a/manifests/v1", refused)

    with pytest.raises(RegistryError) as caught:
        make_client(fake).head_manifest("a", "v1")

    assert (caught.value.error_class, caught.value.status) == (error_class, 401)


@pytest.mark.parametrize(
    ("said", "error_class"), [("", "server"), (',error="insufficient_scope"', "forbidden")]
)
def test_a_token_that_is_refused_for_a_stream_may_only_be_too_old(
    fake: FakeRegistry, make_client: MakeClient, said: str, error_class: str
) -> None:
    tokens = TokenServer(fake, fake)
    tokens.protect("POST", "/v2/b/blobs/uploads/", Answer(202, b"", {"Location": "/session"}))
    challenge = f'Bearer realm="{fake.url}/token"{said}'
    fake.on("PUT", "/session", Answer(401, b"", {"WWW-Authenticate": challenge}))
    client = make_client(fake)
    upload = client.start_upload("b")

    with pytest.raises(RegistryError) as caught:
        client.put_upload("b", upload, BLOB_DIGEST, Body([BLOB], len(BLOB)))

    assert caught.value.error_class == error_class


def test_a_mount_asks_for_a_token_of_both_repositories(
    fake: FakeRegistry, make_client: MakeClient
) -> None:
    TokenServer(fake, fake).protect("POST", "/v2/b/blobs/uploads/", Answer(201))

    assert make_client(fake).start_upload("b", BLOB_DIGEST, "team/a") == ""

    (token,) = fake.asked("GET", "/token")
    assert token.query[1:] == (
        ("scope", "repository:b:pull,push"),
        ("scope", "repository:team/a:pull"),
    )


def test_threads_that_need_the_same_token_make_one_request_for_it(
    fake: FakeRegistry, make_client: MakeClient
) -> None:
    tokens = TokenServer(fake, fake)
    tokens.protect("GET", "/v2/", Answer())
    tokens.protect("GET", "/v2/a/tags/list", Answer(200, b'{"tags":["v1"]}'))
    client = make_client(fake)
    client.ping()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(client.tags, ["a"] * 8))

    assert found == [["v1"]] * 8
    assert len(fake.asked("GET", "/token")) == 2


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"token":"a b"}', b'{"token":"a\\r\\nX: y"}', b'{"token":1}']
)
def test_what_is_no_token_is_never_sent(
    fake: FakeRegistry, make_client: MakeClient, body: bytes
) -> None:
    TokenServer(fake, fake).protect("GET", "/v2/", Answer())
    fake.on("GET", "/token", Answer(200, body))

    with pytest.raises(RegistryError) as caught:
        make_client(fake).ping()

    assert caught.value.error_class == "auth"
    assert len(fake.asked("GET", "/v2/")) == 1


def test_challenges_are_told_apart() -> None:
    header = 'Basic realm="a, Bearer b", Bearer realm="https://x/t?a=\\"b",service=reg , Other'

    assert [(c.scheme, c.parameters) for c in parse_challenges(header)] == [
        ("basic", {"realm": "a, Bearer b"}),
        ("bearer", {"realm": 'https://x/t?a="b', "service": "reg"}),
        ("other", {}),
    ]


def test_a_redirect_of_a_blob_to_another_host_carries_no_credentials(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    target = {"Location": f"{other.url}/store?signature=x"}

    def redirect(request: Request) -> Answer:
        return Answer(307, b"moved", target) if request.authorization else asks_basic(request)

    fake.on("GET", f"/v2/a/blobs/{BLOB_DIGEST}", redirect)
    other.on("GET", "/store", Answer(200, BLOB))
    client = make_client(fake, username="mig", password=PASSWORD)

    with client.open_blob("a", DESCRIPTOR) as stream:
        assert b"".join(stream.take(len(BLOB))) == BLOB

    (asked,) = other.requests
    assert asked.authorization == ""
    assert asked.query == (("signature", "x"),)


def test_a_foreign_host_that_asks_for_credentials_gets_none(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    fake.on("GET", "/v2/", Answer(307, b"", {"Location": f"{other.url}/v2/"}))
    other.on("GET", "/v2/", asks_basic)
    client = make_client(fake, username="mig", password=PASSWORD, token_realms=(other.url,))

    with pytest.raises(RegistryError, match=r"GET http://127\.0\.0\.1") as caught:
        client.ping()

    assert caught.value.error_class == "auth"
    assert [request.authorization for request in other.requests] == [""]


def test_redirects_in_a_circle_end(fake: FakeRegistry, client: RegistryClient) -> None:
    fake.on("GET", "/v2/", Answer(302, b"", {"Location": "/v2/"}))

    with pytest.raises(RegistryError, match="redirects"):
        client.ping()


@pytest.mark.parametrize("location", ["http://[", "http://a:x/", "//"])
def test_a_location_that_is_no_url_is_an_error(
    fake: FakeRegistry, client: RegistryClient, location: str
) -> None:
    fake.on("GET", "/v2/", Answer(307, b"", {"Location": location}))
    fake.on("POST", "/v2/b/blobs/uploads/", Answer(202, b"", {"Location": location}))

    with pytest.raises(RegistryError):
        client.ping()
    with pytest.raises(RegistryError):
        client.put_upload("b", client.start_upload("b"), BLOB_DIGEST, Body([], 0))


def test_a_redirect_of_a_write_is_not_followed(
    fake: FakeRegistry, other: FakeRegistry, client: RegistryClient
) -> None:
    moved = Answer(307, b"", {"Location": f"{other.url}/"})
    fake.on("POST", "/v2/b/blobs/uploads/", moved)
    fake.on("DELETE", f"/v2/b/manifests/{MANIFEST_DIGEST}", moved)

    with pytest.raises(RegistryError, match="307"):
        client.start_upload("b")
    with pytest.raises(RegistryError, match="307"):
        client.delete_manifest("b", MANIFEST_DIGEST)

    assert other.requests == []


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Registry.Example/v2/", ("https", "registry.example", 443)),
        ("http://a:5000", ("http", "a", 5000)),
        ("https://evil.example\\@registry.example/", ("https", "evil.example", 443)),
        ("https://registry.example@evil.example/", ("https", "evil.example", 443)),
        ("https://registry.example#@evil.example/", ("https", "registry.example", 443)),
        ("ftp://a/", None),
        ("/v2/", None),
        ("https://a:x/", None),
    ],
)
def test_an_origin_is_where_a_connection_would_go(url: str, origin: Any) -> None:
    assert origin_of(url) == origin


# Blobs


def has_source(fake: FakeRegistry, body: bytes = BLOB, **headers: str) -> None:
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    fake.on("GET", f"/v2/a/blobs/{BLOB_DIGEST}", Answer(200, body, changed))


def takes_uploads(fake: FakeRegistry, location: str = SESSION, limit: int = 10**9) -> None:
    """Make a target that takes uploads into `b`; a body above `limit` bytes is too large."""

    def patch(request: Request) -> Answer:
        return (
            Answer(413) if len(request.body) > limit else Answer(202, b"", {"Location": location})
        )

    def put(request: Request) -> Answer:
        return Answer(413) if len(request.body) > limit else Answer(201)

    fake.on("POST", "/v2/b/blobs/uploads/", Answer(202, b"", {"Location": location}))
    fake.on("PATCH", SESSION, patch)
    fake.on("PUT", SESSION, put)


@pytest.mark.parametrize(
    "location", [SESSION, "session", "{url}" + SESSION], ids=["path", "relative", "absolute"]
)
def test_a_blob_goes_up_in_one_request_to_wherever_the_location_leads(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient, location: str
) -> None:
    has_source(fake)
    takes_uploads(other, f"{location.format(url=other.url)}?_state=a%2Fb%3D")

    outcome = BlobCopier(make_client(other)).copy_blob(make_client(fake), DESCRIPTOR, "a", "b")

    (put,) = other.asked("PUT")
    assert outcome == "copied"
    assert put.body == BLOB
    assert put.headers["Content-Length"] == str(len(BLOB))
    assert put.query == (("_state", "a/b="), ("digest", BLOB_DIGEST))


def test_an_upload_location_on_another_host_gets_no_credentials(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    started = Answer(202, b"", {"Location": f"{other.url}{SESSION}"})

    def start(request: Request) -> Answer:
        return started if request.authorization else asks_basic(request)

    fake.on("POST", "/v2/b/blobs/uploads/", start)
    fake.on("HEAD", f"/v2/b/blobs/{BLOB_DIGEST}", Answer(404))
    has_source(fake)
    takes_uploads(other)
    client = make_client(fake, username="mig", password=PASSWORD)

    BlobCopier(client).copy_blob(make_client(fake), DESCRIPTOR, "a", "b")

    (put,) = other.asked("PUT")
    assert put.authorization == ""
    assert put.body == BLOB


def test_a_blob_that_is_there_is_not_sent(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    other.on("HEAD", f"/v2/b/blobs/{BLOB_DIGEST}", Answer())

    outcome = BlobCopier(make_client(other)).copy_blob(make_client(fake), DESCRIPTOR, "a", "b")

    assert outcome == "present"
    assert len(other.requests) == 1
    assert fake.requests == []


def test_candidates_are_tried_for_a_mount_one_after_the_other(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    refused = errors_answer(404, "NAME_UNKNOWN")
    started = Answer(202, b"", {"Location": SESSION})
    other.on("POST", "/v2/b/blobs/uploads/", refused, started, Answer(201))

    outcome = BlobCopier(make_client(other)).copy_blob(
        make_client(fake), DESCRIPTOR, "a", "b", ["b", "x", "y", "z", "never/asked"]
    )

    asked = [dict(request.query)["from"] for request in other.asked("POST")]
    assert outcome == "mounted"
    assert asked == ["x", "y", "z"]
    assert fake.requests == []


def test_a_mount_that_does_not_come_about_is_an_upload_in_the_same_session(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    has_source(fake)
    takes_uploads(other)

    outcome = BlobCopier(make_client(other)).copy_blob(
        make_client(fake), DESCRIPTOR, "a", "b", ["x"]
    )

    assert outcome == "copied"
    assert len(other.asked("POST")) == 1
    assert other.asked("PUT")[0].body == BLOB


def ranges(fake: FakeRegistry) -> list[tuple[str, int]]:
    return [(patch.headers["Content-Range"], len(patch.body)) for patch in fake.asked("PATCH")]


def test_a_large_blob_goes_up_in_chunks(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    has_source(fake)
    takes_uploads(other)
    target = make_client(other, max_put_bytes=2_000_000, chunk_bytes=1_200_000)

    BlobCopier(target).copy_blob(make_client(fake), DESCRIPTOR, "a", "b")

    (put,) = other.asked("PUT")
    assert b"".join(patch.body for patch in other.asked("PATCH")) == BLOB
    assert ranges(other) == [
        ("0-1199999", 1_200_000),
        ("1200000-2399999", 1_200_000),
        ("2400000-3145727", 745_728),
    ]
    assert (put.body, dict(put.query)["digest"]) == (b"", BLOB_DIGEST)


def test_a_blob_refused_as_too_large_goes_up_in_ever_smaller_chunks_and_the_next_at_once(
    fake: FakeRegistry,
    other: FakeRegistry,
    make_client: MakeClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.registry.copy.MIN_PUT_BYTES", 1000)
    has_source(fake)
    takes_uploads(other, limit=100_000)
    copier, source = BlobCopier(make_client(other)), make_client(fake)

    copier.copy_blob(source, DESCRIPTOR, "a", "b")
    first = [len(request.body) for request in other.requests]
    other.requests.clear()
    copier.copy_blob(source, DESCRIPTOR, "a", "b")

    assert first == [0, 0, len(BLOB), 0, 786_432, 0, 196_608, 0, *[49_152] * 64, 0]
    assert [len(request.body) for request in other.requests] == [0, 0, *[49_152] * 64, 0]


def test_a_target_that_refuses_any_size_is_too_large(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    has_source(fake)
    takes_uploads(other, limit=0)

    with pytest.raises(RegistryError) as caught:
        BlobCopier(make_client(other)).copy_blob(make_client(fake), DESCRIPTOR, "a", "b")

    assert caught.value.error_class == "too_large"


@pytest.mark.parametrize(
    ("body", "claimed", "error_class"),
    [
        (BLOB[:-1] + b"x", None, "digest_mismatch"),
        (BLOB[:-1], None, "digest_mismatch"),
        (BLOB + b"x", None, "digest_mismatch"),
        (BLOB[:-1], len(BLOB), "down"),
    ],
    ids=["other", "short", "long", "lying Content-Length"],
)
def test_a_wrong_blob_is_never_finished_at_the_target(
    fake: FakeRegistry,
    other: FakeRegistry,
    make_client: MakeClient,
    body: bytes,
    claimed: int | None,
    error_class: str,
) -> None:
    has_source(fake, body, **({"Content_Length": str(claimed)} if claimed else {}))
    arrived = threading.Event()
    takes_uploads(other)
    other.on("PUT", SESSION, lambda request: (arrived.set(), Answer(201))[1])

    with pytest.raises(RegistryError) as caught:
        BlobCopier(make_client(other)).copy_blob(make_client(fake), DESCRIPTOR, "a", "b")

    assert caught.value.error_class == error_class
    assert caught.value.registry == fake.url
    assert all(len(put.body) < len(BLOB) for put in other.asked("PUT"))


def test_a_blob_of_no_bytes_is_a_blob(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    empty = Descriptor(digest_of(b""), 0, LAYER)
    fake.on("GET", f"/v2/a/blobs/{empty.digest}", Answer())
    takes_uploads(other)

    assert BlobCopier(make_client(other)).copy_blob(make_client(fake), empty, "a", "b") == "copied"

    with pytest.raises(RegistryError) as caught:
        BlobCopier(make_client(other)).copy_blob(
            make_client(fake), Descriptor(BLOB_DIGEST, 0), "a", "b"
        )
    assert caught.value.error_class == "blob_unknown"


def test_a_blob_comes_as_a_stream(fake: FakeRegistry, client: RegistryClient) -> None:
    has_source(fake)

    with client.open_blob("a", DESCRIPTOR) as stream:
        pieces = list(stream.take(len(BLOB)))

    assert b"".join(pieces) == BLOB
    assert max(map(len, pieces)) <= 256 * 1024


def test_a_blob_may_come_slowly_as_long_as_it_comes(
    fake: FakeRegistry, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.registry.client.MIN_BLOB_S", 0.0)
    seconds = itertools.count(0, 0.5)  # for each piece of at most 256 kB
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("app.registry.transport.time", clock)
    has_source(fake)

    with client.open_blob("a", DESCRIPTOR) as stream:
        list(stream.take(len(BLOB)))

    assert next(seconds) > 5


def test_a_blob_that_trickles_is_given_up(
    fake: FakeRegistry, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.registry.client.MIN_BLOB_S", -1.0)
    monkeypatch.setattr("app.registry.client.MIN_BLOB_BYTES_PER_S", 1e30)
    has_source(fake)

    with client.open_blob("a", DESCRIPTOR) as stream, pytest.raises(RegistryError) as caught:
        list(stream.take(len(BLOB)))

    assert caught.value.error_class == "down"


class Target:
    """A target that holds blobs, and whose uploads take a moment."""

    def __init__(self, fake: FakeRegistry, status: int = 201) -> None:
        self.held: set[str] = set()
        self.fake = fake
        for repository in ("b", "c"):
            session = f"/v2/{repository}/blobs/uploads/session"
            fake.on("HEAD", f"/v2/{repository}/blobs/{BLOB_DIGEST}", self._head)
            fake.on("POST", f"/v2/{repository}/blobs/uploads/", self._post)
            fake.on("PUT", session, self._put)
        self._status = status

    def _head(self, request: Request) -> Answer:
        return Answer(200 if request.path.split("/")[2] in self.held else 404)

    def _post(self, request: Request) -> Answer:
        if dict(request.query).get("from") in self.held:
            self.held.add(request.path.split("/")[2])
            return Answer(201)
        return Answer(202, b"", {"Location": f"{request.path}session"})

    def _put(self, request: Request) -> Answer:
        self.fake.released.wait(0.3)  # in which the other threads would begin, too
        if self._status == 201:
            self.held.add(request.path.split("/")[2])
        return Answer(self._status)


def copy_at_once(copier: BlobCopier, source: RegistryClient, repositories: list[str]) -> list[str]:
    """The outcome, or class of error, of as many threads as there are target repositories."""
    barrier = threading.Barrier(len(repositories))

    def copy(repository: str) -> str:
        barrier.wait()
        try:
            return copier.copy_blob(source, DESCRIPTOR, "a", repository)
        except RegistryError as error:
            return error.error_class

    with ThreadPoolExecutor(len(repositories)) as pool:
        return sorted(pool.map(copy, repositories))


def test_threads_that_copy_the_same_blob_make_one_upload(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    has_source(fake)
    Target(other)
    copier = BlobCopier(make_client(other))

    outcomes = copy_at_once(copier, make_client(fake), ["b"] * 6)

    assert outcomes == ["copied"] + ["present"] * 5
    assert len(other.asked("PUT")) == 1
    assert len(other.asked("HEAD")) == 1


def test_threads_that_copy_the_same_blob_elsewhere_mount_it(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    has_source(fake)
    Target(other)
    copier = BlobCopier(make_client(other))

    outcomes = copy_at_once(copier, make_client(fake), ["b", "c"])

    assert outcomes == ["copied", "mounted"]
    assert len(other.asked("PUT")) == 1


def test_an_upload_that_fails_at_the_target_fails_for_all_who_wait_for_it(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    has_source(fake)
    Target(other, 507)
    copier = BlobCopier(make_client(other))

    outcomes = copy_at_once(copier, make_client(fake), ["b"] * 4)

    assert outcomes == ["disk_full"] * 4
    assert len(other.asked("PUT")) < 4


def test_who_waits_for_another_repository_is_not_refused_with_it(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    has_source(fake)
    Target(other)
    asked = threading.Event()

    def refuse(request: Request) -> Answer:
        asked.set()
        other.released.wait(0.3)  # in which the other thread would begin
        return errors_answer(403, "DENIED")

    other.on("POST", "/v2/b/blobs/uploads/", refuse)
    copier, source = BlobCopier(make_client(other)), make_client(fake)

    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(copier.copy_blob, source, DESCRIPTOR, "a", "b")
        assert asked.wait(10)
        outcome = copier.copy_blob(source, DESCRIPTOR, "a", "c")

    assert outcome == "copied"
    assert isinstance(refused.exception(), RegistryError)


def test_a_source_that_fails_is_tried_by_the_next_who_waits(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    fake.on("GET", f"/v2/a/blobs/{BLOB_DIGEST}", Answer(404), Answer(200, BLOB))
    Target(other)
    copier = BlobCopier(make_client(other))

    outcomes = copy_at_once(copier, make_client(fake), ["b", "b", "b"])

    assert outcomes == ["blob_unknown", "copied", "present"]


# Lists


def test_the_catalogue_is_read_page_by_page(fake: FakeRegistry, client: RegistryClient) -> None:
    fake.on(
        "GET",
        "/v2/_catalog",
        Answer(200, b'{"repositories":["a","b"]}', {"Link": '</v2/_catalog?last=b>; rel="next"'}),
        Answer(
            200, b'{"repositories":["c"]}', {"Link": f'<{fake.url}/v2/_catalog?p=3>; rel="next"'}
        ),
        Answer(200, b'{"repositories":null}'),
    )

    assert list(client.catalog("0")) == [["a", "b"], ["c"], []]
    assert [dict(request.query) for request in fake.requests] == [
        {"n": "500", "last": "0"},
        {"last": "b"},
        {"p": "3"},
    ]


@pytest.mark.parametrize("link", ["{other}/v2/_catalog", "/v2/_catalog?n=500"])
def test_a_next_page_elsewhere_or_the_same_again_is_an_error(
    fake: FakeRegistry, other: FakeRegistry, client: RegistryClient, link: str
) -> None:
    header = {"Link": f'<{link.format(other=other.url)}>; rel="next"'}
    fake.on("GET", "/v2/_catalog", Answer(200, b'{"repositories":["a"]}', header))

    with pytest.raises(RegistryError, match="Link"):
        list(client.catalog())

    assert other.requests == []


@pytest.mark.parametrize("body", [b"", b"[]", b'{"repositories":[1]}', b"<html>"])
def test_what_is_no_catalogue_is_unsupported(
    fake: FakeRegistry, client: RegistryClient, body: bytes
) -> None:
    fake.on("GET", "/v2/_catalog", Answer(200, body))

    with pytest.raises(RegistryError) as caught:
        list(client.catalog())

    assert caught.value.error_class == "unsupported"


def test_tags_come_sorted_from_all_pages(fake: FakeRegistry, client: RegistryClient) -> None:
    fake.on(
        "GET",
        "/v2/a/tags/list",
        Answer(200, b'{"tags":["c","a"]}', {"Link": '<list?last=a>; rel="next"'}),
        Answer(200, b'{"tags":["b","a"]}'),
    )

    assert client.tags("a") == ["a", "b", "c"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b'{"tags":null}'),
        errors_answer(404, "NAME_UNKNOWN"),
        errors_answer(404, "NOT_FOUND"),
    ],
    ids=["null", "distribution", "Harbor"],
)
def test_a_repository_without_tags_has_none(
    fake: FakeRegistry, client: RegistryClient, answer: Answer
) -> None:
    fake.on("GET", "/v2/a/tags/list", answer)

    assert client.tags("a") == []


@pytest.mark.parametrize("answer", [Answer(404, b"<html>"), Answer(403), Answer(500)])
def test_no_answer_about_tags_is_not_no_tags(
    fake: FakeRegistry, client: RegistryClient, answer: Answer
) -> None:
    fake.on("GET", "/v2/a/tags/list", answer)

    with pytest.raises(RegistryError) as caught:
        client.tags("a")

    assert caught.value.error_class != "gone"


REFERRER = Descriptor(digest_of(b"signature"), 9, IMAGE)
REFERRERS = as_json(mediaType=INDEX, manifests=[wire(REFERRER, artifactType="x/y")])


def test_referrers_come_from_all_pages_of_the_api(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    second = Descriptor(digest_of(b"another"), 7, IMAGE)
    path = f"/v2/a/referrers/{MANIFEST_DIGEST}"
    fake.on(
        "GET",
        path,
        Answer(200, REFERRERS, {"Content-Type": INDEX, "Link": f'<{path}?p=2>; rel="next"'}),
        Answer(200, as_json(manifests=[wire(second)]), {"Content-Type": INDEX}),
    )

    assert client.referrers("a", MANIFEST_DIGEST) == [REFERRER, second]


@pytest.mark.parametrize(
    "answer", [Answer(404), Answer(200, b"<html>", {"Content-Type": "text/html"}), Answer(405)]
)
def test_without_an_api_referrers_come_from_their_tag(
    fake: FakeRegistry, client: RegistryClient, answer: Answer
) -> None:
    fake.on("GET", f"/v2/a/referrers/{MANIFEST_DIGEST}", answer)
    tag = MANIFEST_DIGEST.replace(":", "-")
    fake.on("GET", f"/v2/a/manifests/{tag}", manifest_answer(REFERRERS, INDEX))

    assert client.referrers("a", MANIFEST_DIGEST) == [REFERRER]


def test_a_failing_registry_does_not_mean_that_there_are_no_referrers(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    fake.on("GET", f"/v2/a/referrers/{MANIFEST_DIGEST}", Answer(503))

    with pytest.raises(RegistryError):
        client.referrers("a", MANIFEST_DIGEST)


# Deletes


def test_a_tag_is_deleted_where_that_is_possible(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    fake.on("DELETE", "/v2/b/manifests/v1", Answer(202))

    client.delete_tag("b", "v1")

    assert len(fake.requests) == 1


def test_a_tag_is_not_touched_where_nothing_can_be_deleted(
    make_fake: Callable[[], FakeRegistry], make_client: MakeClient
) -> None:
    fake = make_fake()
    answer = fake._answer

    def refuse_deletes(request: Request) -> Answer:
        found = answer(request)
        return errors_answer(405, "UNSUPPORTED") if request.method == "DELETE" else found

    fake._answer = refuse_deletes  # type: ignore[method-assign]
    fake.on("GET", "/v2/b/manifests/v1", manifest_answer())

    with pytest.raises(RegistryError) as caught:
        make_client(fake).delete_tag("b", "v1")

    assert caught.value.error_class == "unsupported"
    assert fake.asked("PUT") == []


def test_a_tag_is_put_back_when_its_placeholder_cannot_be_deleted(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    answer = fake._answer

    def fail_the_second_time(request: Request) -> Answer:
        found = answer(request)
        return (
            Answer(500) if len(fake.asked("DELETE")) == 3 and request.method == "DELETE" else found
        )

    fake._answer = fail_the_second_time  # type: ignore[method-assign]
    fake.on("DELETE", "/v2/b/manifests/v1", errors_answer(400, "DIGEST_INVALID"))
    fake.on("GET", "/v2/b/manifests/v1", manifest_answer())
    fake.on("HEAD", f"/v2/b/blobs/{digest_of(b'{}')}", Answer())
    fake.on(
        "PUT",
        "/v2/b/manifests/v1",
        lambda request: Answer(201, b"", {"Docker-Content-Digest": digest_of(request.body)}),
    )

    with pytest.raises(RegistryError) as caught:
        client.delete_tag("b", "v1")

    assert caught.value.error_class == "server"
    assert fake.asked("PUT")[-1].body == MANIFEST


# Errors

NO_SPACE = "filesystem: write /var/lib/registry/x: no space left on device"


@pytest.mark.parametrize(
    ("method", "subject", "answer", "error_class"),
    [
        ("GET", "manifest", errors_answer(404, "MANIFEST_UNKNOWN"), "gone"),
        ("HEAD", "manifest", Answer(404), "gone"),
        ("GET", "api", errors_answer(404, "NAME_UNKNOWN"), "gone"),
        ("GET", "api", Answer(404, b"404 page not found"), "unsupported"),
        ("GET", "api", Answer(405), "unsupported"),
        ("GET", "blob", Answer(404), "blob_unknown"),
        ("PUT", "manifest", errors_answer(400, "MANIFEST_BLOB_UNKNOWN"), "blob_unknown"),
        ("PUT", "manifest", errors_answer(404, "MANIFEST_UNKNOWN"), "blob_unknown"),
        ("PUT", "manifest", errors_answer(404, "NAME_UNKNOWN"), "unsupported"),
        ("PUT", "manifest", errors_answer(400, "MANIFEST_INVALID"), "unsupported"),
        ("POST", "upload", errors_answer(404, "NAME_UNKNOWN"), "unsupported"),
        ("PATCH", "upload", errors_answer(404, "BLOB_UPLOAD_INVALID"), "server"),
        ("PATCH", "upload", Answer(416), "server"),
        ("PUT", "upload", errors_answer(400, "DIGEST_INVALID"), "digest_mismatch"),
        ("GET", "manifest", errors_answer(401, "UNAUTHORIZED"), "auth"),
        ("PUT", "manifest", errors_answer(403, "DENIED"), "forbidden"),
        ("GET", "manifest", errors_answer(429, "TOOMANYREQUESTS"), "rate_limited"),
        ("GET", "manifest", errors_answer(403, "TOOMANYREQUESTS"), "rate_limited"),
        ("PUT", "upload", Answer(413, b"<html>"), "too_large"),
        ("POST", "upload", Answer(405, b"Method not allowed"), "readonly"),
        ("DELETE", "manifest", Answer(405, b"Method not allowed"), "readonly"),
        ("DELETE", "manifest", errors_answer(405, "UNSUPPORTED"), "unsupported"),
        ("PUT", "manifest", Answer(409), "immutable"),
        ("PUT", "manifest", Answer(412), "immutable"),
        ("PUT", "manifest", Answer(400, b"ImageTagAlreadyExistsException"), "immutable"),
        ("PUT", "upload", errors_answer(500, "UNKNOWN", NO_SPACE), "disk_full"),
        ("POST", "upload", Answer(500, b'{"Op":"write","Path":"/x","Err":28}'), "disk_full"),
        ("POST", "upload", Answer(500, b'{"Op":"write","Path":"/x","Err":288}'), "server"),
        ("PUT", "upload", Answer(507), "disk_full"),
        ("GET", "manifest", errors_answer(500, "UNKNOWN"), "server"),
        ("GET", "manifest", Answer(502), "down"),
        ("GET", "manifest", Answer(503), "down"),
        ("GET", "manifest", Answer(504), "down"),
        ("GET", "manifest", Answer(418), "unsupported"),
    ],
)
def test_answers_fall_into_classes(
    method: str, subject: Any, answer: Answer, error_class: str
) -> None:
    error = error_from_answer("r", method, "/v2/", subject, answer.status, {}, answer.body)

    assert error.error_class == error_class
    assert error.status == answer.status
    assert str(error).startswith(f"r: {method} /v2/: {answer.status}")


def test_a_full_disk_is_told_from_other_failures_of_an_upload(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    has_source(fake)
    takes_uploads(other)
    body = json.dumps({"errors": [{"code": "UNKNOWN", "message": "x", "detail": NO_SPACE}]})
    other.on("PUT", SESSION, Answer(500, body.encode()))

    with pytest.raises(RegistryError) as caught:
        BlobCopier(make_client(other)).copy_blob(make_client(fake), DESCRIPTOR, "a", "b")

    assert caught.value.error_class == "disk_full"
    assert caught.value.registry == other.url


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:00:00 GMT", 0.0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("9" * 400, 86_400.0),
        ("Wed, 21 Oct 2099 07:00:00 GMT", 86_400.0),
    ],
)
def test_a_delay_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    now = datetime(2026, 10, 21, 7, 28, 0, tzinfo=UTC)

    assert parse_retry_after(text, now) == seconds


def test_a_rate_limit_says_how_long_to_wait(fake: FakeRegistry, client: RegistryClient) -> None:
    fake.on("GET", "/v2/", errors_answer(429, "TOOMANYREQUESTS", "slow", **{"Retry-After": "70"}))

    with pytest.raises(RegistryError) as caught:
        client.ping()

    assert (caught.value.error_class, caught.value.retry_after) == ("rate_limited", 70.0)
    assert caught.value.transient


def test_a_target_that_takes_the_request_and_hangs_is_down(
    fake: FakeRegistry, make_client: MakeClient
) -> None:
    fake.on("GET", "/v2/", fake.hang)

    with pytest.raises(RegistryError, match="timed out") as caught:
        make_client(fake, read_timeout_s=0.1).ping()

    assert caught.value.error_class == "down"


def test_a_target_that_stops_reading_an_upload_is_down(
    fake: FakeRegistry, make_client: MakeClient
) -> None:
    size = 64 * 1024 * 1024  # more than the sockets' buffers hold
    blob = bytes(size)
    large = Descriptor(digest_of(blob), size, LAYER)
    fake.on("GET", f"/v2/a/blobs/{large.digest}", Answer(200, blob))
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/deaf"
        fake.on("POST", "/v2/b/blobs/uploads/", Answer(202, b"", {"Location": url}))
        client = make_client(fake, read_timeout_s=0.2)

        with pytest.raises(RegistryError) as caught:
            BlobCopier(client).copy_blob(make_client(fake), large, "a", "b")

    assert caught.value.error_class == "down"


def test_nobody_at_the_port_is_down(client: RegistryClient, fake: FakeRegistry) -> None:
    fake.close()

    with pytest.raises(RegistryError, match="Connection refused") as caught:
        client.ping()

    assert caught.value.error_class == "down"
    assert caught.value.status == 0


def test_no_answer_is_told_by_its_own_reason_while_another_error_is_handled(
    client: RegistryClient, fake: FakeRegistry
) -> None:
    fake.close()

    try:
        raise RegistryError("gone", "of the source")
    except RegistryError:
        with pytest.raises(RegistryError, match="refused") as caught:
            client.ping()

    assert "of the source" not in str(caught.value)


def test_https_to_a_plain_http_port_is_an_error_of_tls(fake: FakeRegistry) -> None:
    client = RegistryClient(Endpoint(url=fake.url.replace("http:", "https:")))

    with pytest.raises(RegistryError, match="plain_http: true") as caught:
        client.ping()

    assert caught.value.error_class == "tls"


def test_the_state_of_an_upload_is_not_in_a_message(
    fake: FakeRegistry, client: RegistryClient
) -> None:
    upload = f"{fake.url}{SESSION}?_state=secret"
    fake.on("PATCH", SESSION, Answer(500))
    messages = []

    for _ in range(2):
        with pytest.raises(RegistryError) as caught:
            client.patch_upload("b", upload, 0, Body([b"x"], 1))
        messages.append(str(caught.value))
        if len(messages) == 1:
            fake.close()

    assert "_state" not in "".join(messages)


def test_hooks_see_every_request_and_its_answer(
    fake: FakeRegistry, make_client: MakeClient
) -> None:
    TokenServer(fake, fake).protect("GET", "/v2/", Answer())
    seen: list[Any] = []
    client = make_client(
        fake,
        before_request=seen.append,
        after_request=lambda method, status: seen.append((method, status)),
    )

    client.ping()

    assert seen == ["GET", ("GET", 401), "GET", ("GET", 200), "GET", ("GET", 200)]


def test_bytes_are_counted_before_they_are_sent(
    fake: FakeRegistry, other: FakeRegistry, make_client: MakeClient
) -> None:
    has_source(fake)
    takes_uploads(other)
    counted: list[int] = []

    BlobCopier(make_client(other), counted.append).copy_blob(
        make_client(fake), DESCRIPTOR, "a", "b"
    )

    assert sum(counted) == len(BLOB)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"url": "registry.example"}, "url"),
        ({"url": "https://mig:secret@registry.example"}, "url"),
        ({"url": "https://registry.example?x=1"}, "url"),
        ({"url": "https://registry.example/v2/"}, "url"),
        ({"url": "https://[::1"}, "url"),
        ({"url": "http://registry.example"}, "plain_http"),
        ({"url": "https://registry.example", "token_realms": ("auth",)}, r"token_realms\[0\]"),
        ({"url": "https://registry.example", "chunk_bytes": 0}, "chunk_bytes, max_put_bytes"),
        ({"url": "https://registry.example", "ca_file": "/nowhere/ca.pem"}, "ca_file"),
        ({"url": "https://registry.example", "client_cert": "/nowhere/c.pem"}, "client_cert"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_a_config_error(
    options: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{key}: ") as caught:
        RegistryClient(Endpoint(**options))

    assert "secret" not in str(caught.value)
