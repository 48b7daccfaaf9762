"""The registry HTTP API of one endpoint: manifests byte for byte, blobs as streams.

Source: OCI distribution-spec 1.1; quirks without a name beside them are those of distribution 2.8.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter

from app.errors import InvalidReference
from app.events import INDEX_TYPES, OWN_USER_AGENT, Descriptor, clean_text
from app.references import is_digest, parse_digest, parse_repository, parse_tag
from app.registry.auth import Auth, Endpoint, add_query, hide_secrets, origin_of
from app.registry.errors import WRITES, ErrorClass, RegistryError, Subject, error_from_answer
from app.registry.manifests import (
    ACCEPT,
    MAX_MANIFEST_BYTES,
    OCI_IMAGE,
    Manifest,
    compute_digest,
    new_hash,
    parse_manifest,
)
from app.version import VERSION

PIECE_BYTES = 256 * 1024  # read and written at a time
MAX_ERROR_BYTES = 64 * 1024  # of an error's body; the rest is not read
MAX_LIST_BYTES = 64 * 1024 * 1024  # of one page: a registry may list all tags at once
MAX_REDIRECTS = 5
MAX_BODY_S = 600.0  # for a whole body that is not a blob
MIN_BLOB_S, MIN_BLOB_BYTES_PER_S = 600.0, 10**6  # a blob may take the longer of the two
CATALOG_PAGE = 500  # distribution answers 400 to more than 1000
POOL_SIZE = 64  # connections that are kept open

OCTETS = "application/octet-stream"
_REDIRECTS = (301, 302, 303, 307, 308)
_CATALOG_SCOPE = "registry:catalog:*"

Page = TypeVar("Page")


class _Catalog(msgspec.Struct):
    repositories: list[str] | None = None


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class Answer(msgspec.Struct, frozen=True):
    """A whole answer; `url` is where it came from, after redirects."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class Body:
    """A request body that is made while it is sent: once, and of a known length in bytes."""

    def __init__(self, pieces: Iterable[bytes], length: int) -> None:
        self._pieces = pieces
        self._length = length

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def __len__(self) -> int:
        return self._length


class BlobStream:
    """The bytes of a blob as they come. They are checked before the last of them is handed out."""

    def __init__(self, pieces: Iterator[bytes], blob: Descriptor, registry: str) -> None:
        self._pieces = pieces
        self._blob = blob
        self._registry = registry
        self._hash = new_hash(blob.digest)
        self._left = blob.size
        self._rest = b""

    def take(self, length: int) -> Iterator[bytes]:
        """The next `length` bytes, not more than the blob has left.

        Raises:
            RegistryError: `digest_mismatch`: the content is shorter, longer, or another.
        """
        while length > 0:
            piece = self._rest or self._next()
            self._rest = piece[length:]
            piece = piece[:length]
            length -= len(piece)
            yield piece

    def _next(self) -> bytes:
        piece = next(self._pieces, b"")
        self._hash.update(piece)
        self._left -= len(piece)
        if not piece or self._left < 0:
            raise self._mismatch(f"is not of {self._blob.size} bytes")
        if not self._left:
            self.check()
        return piece

    def check(self) -> None:
        """Raise `digest_mismatch` unless all bytes came and their digest is the blob's."""
        if self._left or self._hash.hexdigest() != self._blob.digest.partition(":")[2]:
            raise self._mismatch("is of other content")

    def _mismatch(self, what: str) -> RegistryError:
        message = f"{self._registry}: blob {self._blob.digest} {what}"
        return RegistryError("digest_mismatch", message, registry=self._registry)


class RegistryClient:
    """The API of one registry. Threads share it; it keeps connections and tokens.

    `before_request` is called with the method before each HTTP request and may wait;
    `after_request` with the method and the answer's status. Every method raises RegistryError, and
    InvalidReference for a repository, tag or digest that is none.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        before_request: Callable[[str], None] = lambda method: None,
        after_request: Callable[[str, int], None] = lambda method, status: None,
    ) -> None:
        endpoint.check()
        self.url = endpoint.url.rstrip("/")
        self.chunk_bytes = endpoint.chunk_bytes
        self.max_put_bytes = endpoint.max_put_bytes  # falls when the registry answers 413
        self._endpoint = endpoint
        self._origin = origin_of(endpoint.url)
        self._auth = Auth(endpoint, self._fetch_token)
        self._before_request = before_request
        self._after_request = after_request
        self._session = _make_session(endpoint)

    def __repr__(self) -> str:
        return f"RegistryClient({self.url!r})"

    def close(self) -> None:
        """Close the connections that are kept."""
        self._session.close()

    # The API as a whole

    def ping(self) -> None:
        """Return if the registry answers and takes our credentials."""
        self._request("GET", f"{self.url}/v2/", "api", [])

    def catalog(self, last: str = "") -> Iterator[list[str]]:
        """Repository names in the registry's order, page by page, those after `last` only.

        Emptied repositories may be among them. To go on later, give the last name of a page.
        """
        parameters = [("n", str(CATALOG_PAGE))] + ([("last", last)] if last else [])
        url = add_query(f"{self.url}/v2/_catalog", parameters)
        for answer in self._pages(url, [_CATALOG_SCOPE]):
            yield self._decode(answer, _Catalog).repositories or []

    def tags(self, repository: str) -> list[str]:
        """All tags, sorted; none of a repository that was emptied, or that nobody knows."""
        url = f"{self._repository_url(repository)}/tags/list"
        found: set[str] = set()
        try:
            for answer in self._pages(url, [_scope(repository, "pull")]):
                found.update(self._decode(answer, _Tags).tags or [])
        except RegistryError as error:
            if error.code != "NAME_UNKNOWN":
                raise
        return sorted(found)

    # Manifests

    def head_manifest(self, repository: str, reference: str, known: str = "") -> Descriptor:
        """What a tag or digest names, without its bytes.

        With `known`, the digest it was last seen at, an unchanged manifest costs the registry no
        pull event; then only the digest of the result is set.

        Raises:
            RegistryError: `gone` and others; a digest is never missing from the result.
        """
        headers = {"Accept": ACCEPT} | (
            {"If-None-Match": f'"{parse_digest(known)}"'} if known else {}
        )
        url = self._manifest_url(repository, reference)
        scopes = [_scope(repository, "pull")]
        expected = (200, 304) if known else (200,)
        answer = self._request("HEAD", url, "manifest", scopes, headers=headers, expected=expected)
        if answer.status == 304:
            return Descriptor(known)
        digest = self._digest_of(answer)
        if not digest:
            return self.get_manifest(repository, reference).descriptor
        if is_digest(reference) and digest != reference:
            raise self._error("digest_mismatch", f"{reference} of {repository} names {digest}")
        length = answer.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() else 0
        return Descriptor(digest, size, _media_type_of(answer))

    def get_manifest(self, repository: str, reference: str) -> Manifest:
        """The manifest that a tag or digest names, its digest computed from its bytes.

        Raises:
            RegistryError: `digest_mismatch`: the bytes are not those of the digest that was asked
                for or that the registry says; `unsupported`: see parse_manifest; and others.
        """
        url = self._manifest_url(repository, reference)
        scopes = [_scope(repository, "pull")]
        answer = self._request(
            "GET", url, "manifest", scopes, headers={"Accept": ACCEPT}, limit=MAX_MANIFEST_BYTES
        )
        said = self._digest_of(answer)
        wanted = reference if is_digest(reference) else said
        try:
            manifest = parse_manifest(answer.body, answer.headers.get("Content-Type", ""), wanted)
        except RegistryError as error:
            raise self._error(error.error_class, f"{repository}:{reference}: {error}") from None
        if said and compute_digest(answer.body, said) != said:
            raise self._error("digest_mismatch", f"{reference} of {repository} is not {said}")
        return manifest

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> None:
        """Store the very bytes of a manifest under a tag or its digest.

        Raises:
            RegistryError: `blob_unknown`: a child or blob is not there yet; `digest_mismatch`: the
                registry made something else of it; and others.
        """
        if len(manifest.body) > MAX_MANIFEST_BYTES:
            raise self._error("unsupported", f"{manifest.digest} is larger than 4 MiB")
        answer = self._request(
            "PUT",
            self._manifest_url(repository, reference),
            "manifest",
            [_scope(repository, "pull,push")],
            headers={"Content-Type": manifest.media_type},
            body=manifest.body,
            expected=(200, 201, 202),
        )
        stored = self._digest_of(answer) or self.head_manifest(repository, reference).digest
        if stored != manifest.digest:
            what = f"{manifest.digest} was stored in {repository} as {stored}"
            raise self._error("digest_mismatch", what)

    def delete_manifest(self, repository: str, digest: str) -> None:
        """Delete a manifest and, in most registries, every tag that names it.

        Raises:
            RegistryError: `gone`: it is not there; `unsupported`: deletes are off; and others.
        """
        self._delete(repository, parse_digest(digest))

    def delete_tag(self, repository: str, tag: str) -> None:
        """Delete one tag and no other of the same digest.

        Where tags cannot be deleted, the tag is moved to a manifest of its own and that is
        deleted; a push of the tag between the two is lost.

        Raises:
            RegistryError: `gone`, `unsupported`, `readonly` and others; the tag is as it was.
        """
        try:
            self._delete(repository, parse_tag(tag))
        except RegistryError as error:
            if error.status not in (400, 405):
                raise
            self._delete_through_placeholder(repository, tag)

    def _delete_through_placeholder(self, repository: str, tag: str) -> None:
        original = self.get_manifest(repository, tag)
        config = b"{}"
        blob = Descriptor(compute_digest(config, "sha256:"), len(config), OCTETS)
        content = {
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE,
            "config": {"mediaType": OCTETS, "digest": blob.digest, "size": blob.size},
            "layers": [],
            "annotations": {"placeholder": str(uuid.uuid4())},
        }
        placeholder = parse_manifest(json.dumps(content).encode(), OCI_IMAGE)
        try:  # tells whether deletes are on before the tag is touched
            self._delete(repository, placeholder.digest)
        except RegistryError as error:
            if error.error_class != "gone":
                raise
        if not self.has_blob(repository, blob.digest):
            upload = self.start_upload(repository)
            self.put_upload(repository, upload, blob.digest, Body([config], len(config)))
        self.put_manifest(repository, tag, placeholder)
        try:
            self._delete(repository, placeholder.digest)
        except RegistryError:
            self.put_manifest(repository, tag, original)
            raise

    def _delete(self, repository: str, reference: str) -> None:
        url = self._manifest_url(repository, reference)
        scopes = [_scope(repository, "delete")]
        self._request("DELETE", url, "manifest", scopes, expected=(200, 202, 204))

    def referrers(self, repository: str, digest: str) -> list[Descriptor]:
        """The manifests whose subject is `digest`; [] where there are none.

        From the referrers API, or, where the registry has none, from the index under the tag
        `sha256-<hex>` (OCI distribution-spec 1.1, "Referrers Tag Schema").
        """
        url = f"{self._repository_url(repository)}/referrers/{parse_digest(digest)}"
        found: dict[str, Descriptor] = {}
        try:
            for answer in self._pages(url, [_scope(repository, "pull")]):
                # Some registries answer with a page for people.
                if _media_type_of(answer) not in INDEX_TYPES:
                    raise self._error("unsupported", "no referrers API")
                page = parse_manifest(answer.body, _media_type_of(answer))
                found.update((child.digest, child) for child in page.children)
        except RegistryError as error:
            if error.error_class not in ("gone", "unsupported"):
                raise
            return self._referrers_by_tag(repository, digest)
        return list(found.values())

    def _referrers_by_tag(self, repository: str, digest: str) -> list[Descriptor]:
        try:
            index = self.get_manifest(repository, digest.replace(":", "-", 1)[:128])
        except RegistryError as error:
            if error.error_class != "gone":
                raise
            return []
        return list(index.children)

    # Blobs

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository, not only the registry, has the blob."""
        scopes = [_scope(repository, "pull")]
        url = self._blob_url(repository, digest)
        answer = self._request("HEAD", url, "blob", scopes, expected=(200, 404))
        return answer.status == 200

    @contextmanager
    def open_blob(self, repository: str, blob: Descriptor) -> Iterator[BlobStream]:
        """The content of a blob as a stream, which must be read while the context lasts.

        Raises:
            RegistryError: `blob_unknown`; while reading also `digest_mismatch`, and `down` when it
                takes longer than ten minutes and than 1 MB/s.
        """
        url = self._blob_url(repository, blob.digest)
        deadline = time.monotonic() + max(MIN_BLOB_S, blob.size / MIN_BLOB_BYTES_PER_S)
        response = self._send("GET", url, [_scope(repository, "pull")])
        try:
            self._expect(response, "blob", (200,))
            yield BlobStream(self._read(response, deadline), blob, self.url)
        finally:
            response.close()

    def start_upload(self, repository: str, digest: str = "", mount_from: str = "") -> str:
        """Begin an upload and return its URL.

        With `mount_from`, a repository of this registry that has the blob `digest`, the result is
        "" when the registry took the blob from there, and nothing is left to upload.
        """
        url = f"{self._repository_url(repository)}/blobs/uploads/"
        scopes = [_scope(repository, "pull,push")]
        if mount_from:
            source = parse_repository(mount_from)
            url = add_query(url, [("mount", parse_digest(digest)), ("from", source)])
            scopes.append(_scope(source, "pull"))
        answer = self._request("POST", url, "upload", scopes, expected=(201, 202))
        return "" if answer.status == 201 and mount_from else self._location_of(answer)

    def patch_upload(self, repository: str, upload: str, start: int, body: Body) -> str:
        """Send the bytes of an upload from offset `start` on; returns its URL from now on."""
        headers = {
            "Content-Type": OCTETS,
            "Content-Range": f"{start}-{start + len(body) - 1}",
        }
        scopes = [_scope(repository, "pull,push")]
        answer = self._request(
            "PATCH", upload, "upload", scopes, headers=headers, body=body, expected=(202, 204)
        )
        return self._location_of(answer)

    def put_upload(self, repository: str, upload: str, digest: str, body: Body) -> None:
        """Send what is left of an upload and finish it as the blob `digest`."""
        answer = self._request(
            "PUT",
            add_query(upload, [("digest", parse_digest(digest))]),
            "upload",
            [_scope(repository, "pull,push")],
            headers={"Content-Type": OCTETS},
            body=body if len(body) else b"",
            expected=(200, 201, 204),
        )
        stored = self._digest_of(answer)
        if stored and stored != digest:
            raise self._error("digest_mismatch", f"blob {digest} was stored as {stored}")

    # URLs

    def _repository_url(self, repository: str) -> str:
        return f"{self.url}/v2/{parse_repository(repository)}"

    def _manifest_url(self, repository: str, reference: str) -> str:
        checked = parse_digest(reference) if is_digest(reference) else parse_tag(reference)
        return f"{self._repository_url(repository)}/manifests/{checked}"

    def _blob_url(self, repository: str, digest: str) -> str:
        return f"{self._repository_url(repository)}/blobs/{parse_digest(digest)}"

    def _location_of(self, answer: Answer) -> str:
        location = answer.headers.get("Location", "")
        if not location:
            raise self._error("unsupported", "an upload began without a Location")
        return urljoin(answer.url, location)

    def _digest_of(self, answer: Answer) -> str:
        digest = answer.headers.get("Docker-Content-Digest", "")
        try:
            return parse_digest(digest) if digest else ""
        except InvalidReference as error:
            raise self._error("digest_mismatch", f"Docker-Content-Digest: {error}") from None

    # Pages

    def _pages(self, url: str, scopes: Sequence[str]) -> Iterator[Answer]:
        """The answer at `url` and those that its Link header, relative or absolute, leads to."""
        seen: set[str] = set()
        while url:
            seen.add(url)
            answer = self._request("GET", url, "api", scopes, limit=MAX_LIST_BYTES)
            yield answer
            links = requests.utils.parse_header_links(answer.headers.get("Link", ""))
            following = [link["url"] for link in links if link.get("rel") == "next"]
            url = urljoin(answer.url, following[0]) if following else ""
            if url and (origin_of(url) != self._origin or url in seen):
                raise self._error("unsupported", "a Link to the next page leads out or in a circle")

    def _decode(self, answer: Answer, kind: type[Page]) -> Page:
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            path = urlsplit(answer.url).path
            raise self._error("unsupported", f"the answer of {path} is no list") from None

    # Requests

    def _request(
        self,
        method: str,
        url: str,
        subject: Subject,
        scopes: Sequence[str],
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None,
        expected: Sequence[int] = (200,),
        limit: int = MAX_ERROR_BYTES,
    ) -> Answer:
        """Send, and read the whole answer; RegistryError unless its status is among `expected`."""
        response = self._send(method, url, scopes, headers or {}, body)
        try:
            self._expect(response, subject, expected)
            content = self._read_all(response, limit)
        finally:
            response.close()
        return Answer(response.status_code, response.headers, content, response.url)

    def _expect(
        self, response: requests.Response, subject: Subject, expected: Sequence[int]
    ) -> None:
        if response.status_code in expected:
            return
        body = self._read_all(response, MAX_ERROR_BYTES, cut=True)
        url = urlsplit(response.url)
        is_own = origin_of(response.url) == self._origin
        raise error_from_answer(
            self.url,
            response.request.method or "",
            url.path if is_own else f"{url.scheme}://{url.hostname}{url.path}",
            subject,
            response.status_code,
            response.headers,
            hide_secrets(body, response.request.headers.get("Authorization", "")),
        )

    def _send(
        self,
        method: str,
        url: str,
        scopes: Sequence[str],
        headers: Mapping[str, str] | None = None,
        body: bytes | Body | None = None,
    ) -> requests.Response:
        """Send, authenticate where asked to, follow redirects of reads; the body is still unread.

        Credentials go to the registry's own origin only: not with a redirect to a blob store, and
        not to an upload URL elsewhere.
        """
        for _ in range(MAX_REDIRECTS):
            request = requests.Request(method, url, dict(headers or {}), data=body)
            prepared = self._prepare(request)
            is_own = origin_of(prepared.url or "") == self._origin
            authorization = self._auth.header(scopes) if is_own else ""
            response = self._transmit(prepared, authorization)
            if response.status_code == 401 and is_own:
                challenge = response.headers.get("WWW-Authenticate", "")
                renewed = self._auth.renew(challenge, scopes, authorization)
                if renewed and not isinstance(body, Body):  # which cannot be sent twice
                    self._read_all(response, MAX_ERROR_BYTES, cut=True)
                    response.close()
                    response = self._transmit(prepared, renewed)
            location = response.headers.get("Location", "")
            if response.status_code not in _REDIRECTS or not location or method in WRITES:
                return response
            self._read_all(response, MAX_ERROR_BYTES, cut=True)
            response.close()
            url = urljoin(response.url, location)
        raise self._error("unsupported", f"more than {MAX_REDIRECTS} redirects")

    def _prepare(self, request: requests.Request) -> requests.PreparedRequest:
        try:
            return self._session.prepare_request(request)
        except requests.RequestException:
            raise self._error("unsupported", "the registry sends us to what is no URL") from None

    def _transmit(
        self, prepared: requests.PreparedRequest, authorization: str
    ) -> requests.Response:
        endpoint = self._endpoint
        method = prepared.method or ""
        if authorization:
            prepared.headers["Authorization"] = authorization
        # urllib3 lets each write of a new connection take the time for connecting.
        is_stream = isinstance(prepared.body, Body)
        connect_s = endpoint.read_timeout_s if is_stream else endpoint.connect_timeout_s
        timeout = (connect_s, endpoint.read_timeout_s)
        self._before_request(method)
        try:
            response = self._session.send(
                prepared, stream=True, allow_redirects=False, timeout=timeout
            )
        except OSError as error:
            raise self._unreachable(error) from None  # its text has a URL with an upload's state
        self._after_request(method, response.status_code)
        return response

    def _fetch_token(self, url: str, authorization: str) -> bytes:
        prepared = self._prepare(requests.Request("GET", url))
        response = self._transmit(prepared, authorization)
        try:
            self._expect(response, "api", (200,))
            return self._read_all(response, MAX_ERROR_BYTES)
        finally:
            response.close()

    def _read(self, response: requests.Response, deadline: float) -> Iterator[bytes]:
        """The body in pieces, as they come and undecoded; `down` past the deadline (monotonic)."""
        while True:
            try:
                piece = response.raw.read1(PIECE_BYTES, decode_content=False)
            except (OSError, urllib3.exceptions.HTTPError) as error:
                raise self._unreachable(error) from None
            if not piece:
                return
            if time.monotonic() > deadline:
                raise self._error("down", "takes too long to send a body")
            yield piece

    def _read_all(self, response: requests.Response, limit: int, cut: bool = False) -> bytes:
        """The body, of which more than `limit` bytes is an error, or is left out with `cut`."""
        content = bytearray()
        for piece in self._read(response, time.monotonic() + MAX_BODY_S):
            content += piece
            if len(content) > limit:
                if cut:
                    break
                raise self._error("unsupported", f"an answer of more than {limit} bytes")
        return bytes(content[:limit])

    def _unreachable(self, error: BaseException) -> RegistryError:
        error_class: ErrorClass = "down"
        while True:
            if isinstance(error, (requests.exceptions.SSLError, urllib3.exceptions.SSLError)):
                error_class = "tls"
            if error.__context__ is None:
                break
            error = error.__context__
        reason = clean_text(str(error), 200) or type(error).__name__
        if "WRONG_VERSION_NUMBER" in reason:
            reason = "it speaks no TLS; for plain HTTP write http:// and plain_http: true"
        return self._error(error_class, f"no answer: {reason}")

    def _error(self, error_class: ErrorClass, message: str) -> RegistryError:
        return RegistryError(error_class, f"{self.url}: {message}", registry=self.url)


def _media_type_of(answer: Answer) -> str:
    return clean_text(answer.headers.get("Content-Type", "").partition(";")[0].strip(), 255)


def _scope(repository: str, actions: str) -> str:
    """What a token must allow (docs "Token Scope Documentation")."""
    return f"repository:{repository}:{actions}"


def _make_session(endpoint: Endpoint) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # neither a netrc's passwords nor another CA
    session.cookies.set_policy(
        DefaultCookiePolicy(allowed_domains=[])
    )  # one thread's are not all's
    session.headers["User-Agent"] = f"{OWN_USER_AGENT}{VERSION}"
    session.headers["Accept-Encoding"] = "identity"  # digests are of the bytes themselves
    session.verify = not endpoint.insecure and (endpoint.ca_file or True)
    if endpoint.client_cert:
        files = (endpoint.client_cert, endpoint.client_key)
        session.cert = files if endpoint.client_key else endpoint.client_cert
    if endpoint.insecure:  # asked for: not worth a warning for each request
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    adapter = HTTPAdapter(pool_maxsize=POOL_SIZE)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session
