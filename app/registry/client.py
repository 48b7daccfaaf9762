"""The registry HTTP API of one endpoint: manifests byte for byte, blobs as streams.

Source: OCI distribution-spec 1.1; quirks without a name beside them are those of distribution 2.8.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from requests.utils import parse_header_links

from app.errors import InvalidReference
from app.registry.auth import Endpoint, add_query, origin_of
from app.registry.errors import DAMAGED, RegistryError
from app.registry.manifests import (
    ACCEPT,
    MAX_MANIFEST_BYTES,
    OCI_IMAGE,
    Manifest,
    compute_digest,
    new_hash,
    parse_manifest,
)
from app.registry.transport import Answer, Body, Hooks, Transport
from app.rules.events import Descriptor
from app.rules.kinds import INDEX_TYPES
from app.rules.references import is_digest, parse_digest, parse_repository, parse_tag
from app.rules.text import clean_text

MAX_LIST_BYTES = 64 * 1024 * 1024  # of one page: a registry may list all tags at once
# A blob may take the longer of the two. Slow enough for a slow link that many blobs share, and for
# our own limits, which count: what stalls is ended by read_timeout_s.
MIN_BLOB_S, MIN_BLOB_BYTES_PER_S = 600.0, 10_000
PING_S = 5.0  # of a registry that does nothing for it
CATALOG_PAGE = 500  # distribution answers 400 to more than 1000

OCTETS = "application/octet-stream"
_PLACEHOLDER_CONFIG = b"{}"
_CATALOG_SCOPE = "registry:catalog:*"

Page = TypeVar("Page")


class _Catalog(msgspec.Struct):
    repositories: list[str] | None = None


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


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
        is_too_long = self._left < 0 or (not self._left and next(self._pieces, b""))
        if not piece or is_too_long:
            raise self._mismatch(f"is not of {self._blob.size} bytes")
        if not self._left:
            self.check()
        return piece

    def check(self) -> None:
        """Raise `digest_mismatch` unless all bytes came and their digest is the blob's."""
        if self._left or self._hash.hexdigest() != self._blob.digest.partition(":")[2]:
            raise self._mismatch("is of other content")

    def _mismatch(self, what: str) -> RegistryError:
        message = f"{self._registry}: blob {self._blob.digest} {what}; {DAMAGED}"
        return RegistryError("digest_mismatch", message, registry=self._registry)


class RegistryClient:
    """The API of one registry. Threads share it; it keeps connections and tokens.

    Every method raises RegistryError, and InvalidReference for a repository, tag or digest that is
    none. When the registry asks for a pause (429, or 503 with Retry-After), all requests wait for
    it, and those that can be are sent again; `rate_limited` is raised after a minute.
    """

    def __init__(self, endpoint: Endpoint, **hooks: Any) -> None:
        """`hooks` are those of Hooks, by name."""
        self._transport = Transport(endpoint, Hooks(**hooks))
        self.url = self._transport.url
        self.chunk_bytes = endpoint.chunk_bytes
        self.max_put_bytes = endpoint.max_put_bytes  # falls when the registry answers 413

    def __repr__(self) -> str:
        return f"RegistryClient({self.url!r})"

    def close(self) -> None:
        """Close the connections that are kept."""
        self._transport.close()

    @property
    def pause_s(self) -> float:
        """Seconds until the registry wants to be asked again; 0 when it may be now."""
        return self._transport.pause_s

    @property
    def silence_s(self) -> float:
        """For how many seconds the registry has let a request wait that is under way."""
        return self._transport.silence_s

    @property
    def trouble(self) -> str:
        """Why requests do not get on just now, for people; "" while they do."""
        return self._transport.trouble

    # The API as a whole

    def ping(self) -> None:
        """Return if the registry answers, within five seconds, and takes our credentials."""
        self._transport.ping(f"{self.url}/v2/", PING_S)

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
            # A 404 without a code may be a proxy's, of a repository that is full.
            if error.code not in ("NAME_UNKNOWN", "NOT_FOUND"):  # the latter is Harbor's
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
        if is_digest(reference):
            known = ""  # distribution 2.8 answers 304 to its own digest, there or not
        headers = {"Accept": ACCEPT} | (
            {"If-None-Match": f'"{parse_digest(known)}"'} if known else {}
        )
        url = self._manifest_url(repository, reference)
        scopes = [_scope(repository, "pull")]
        expected = (200, 304) if known else (200,)
        answer = self._transport.request(
            "HEAD", url, "manifest", scopes, headers=headers, expected=expected
        )
        if answer.status == 304:
            return Descriptor(known)
        digest = self._digest_of(answer)
        if not digest:
            return self.get_manifest(repository, reference).descriptor
        if is_digest(reference) and digest != reference:
            raise self._transport.error(
                "digest_mismatch", f"{reference} of {repository} names {digest}"
            )
        length = answer.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() and len(length) < 10 else 0
        return Descriptor(digest, size, _media_type_of(answer))

    def get_manifest(self, repository: str, reference: str) -> Manifest:
        """The manifest that a tag or digest names, its digest computed from its bytes.

        Raises:
            RegistryError: `digest_mismatch`: the bytes are not those of the digest that was asked
                for or that the registry says; `unsupported`: see parse_manifest; and others.
        """
        url = self._manifest_url(repository, reference)
        scopes = [_scope(repository, "pull")]
        answer = self._transport.request(
            "GET", url, "manifest", scopes, headers={"Accept": ACCEPT}, limit=MAX_MANIFEST_BYTES
        )
        said = self._digest_of(answer)
        wanted = reference if is_digest(reference) else said
        try:
            manifest = parse_manifest(answer.body, answer.headers.get("Content-Type", ""), wanted)
        except RegistryError as error:
            raise self._transport.error(
                error.error_class, f"{repository}:{reference}: {error}"
            ) from None
        if said and compute_digest(answer.body, said) != said:
            raise self._transport.error(
                "digest_mismatch", f"{reference} of {repository} is not {said}"
            )
        return manifest

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> None:
        """Store the very bytes of a manifest under a tag or its digest.

        Raises:
            RegistryError: `blob_unknown`: a child or blob is not there yet; `digest_mismatch`: the
                registry made something else of it; and others.
        """
        if len(manifest.body) > MAX_MANIFEST_BYTES:
            raise self._transport.error("unsupported", f"{manifest.digest} is larger than 4 MiB")
        answer = self._transport.request(
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
            raise self._transport.error("digest_mismatch", what)

    def delete_manifest(self, repository: str, digest: str) -> None:
        """Delete a manifest and, in most registries, every tag that names it.

        Raises:
            RegistryError: `gone`: it is not there; `unsupported`: deletes are off; and others.
        """
        self._delete(repository, parse_digest(digest))

    def delete_tag(self, repository: str, tag: str) -> None:
        """Delete one tag and no other of the same digest.

        Where tags cannot be deleted, the tag is moved to a manifest of its own (see
        make_placeholder) and that is deleted; a push of the tag between the two is lost, and
        an end of this process there leaves the tag at its placeholder.

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
        config = _PLACEHOLDER_CONFIG
        blob = Descriptor(compute_digest(config, "sha256:"), len(config), OCTETS)
        placeholder = make_placeholder(tag)
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
        self._transport.request("DELETE", url, "manifest", scopes, expected=(200, 202, 204))

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
                    raise self._transport.error("unsupported", "no referrers API")
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
        answer = self._transport.request("HEAD", url, "blob", scopes, expected=(200, 404))
        return answer.status == 200

    @contextmanager
    def open_blob(self, repository: str, blob: Descriptor) -> Iterator[BlobStream]:
        """The content of a blob as a stream, which must be read while the context lasts.

        Raises:
            RegistryError: `blob_unknown`; while reading also `digest_mismatch`, and `down` when it
                takes longer than ten minutes and than 10 kB/s.
        """
        url = self._blob_url(repository, blob.digest)
        within_s = max(MIN_BLOB_S, blob.size / MIN_BLOB_BYTES_PER_S)
        scopes = [_scope(repository, "pull")]
        with self._transport.open(url, "blob", scopes, within_s) as pieces:
            yield BlobStream(pieces, blob, self.url)

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
        answer = self._transport.request("POST", url, "upload", scopes, expected=(201, 202))
        return "" if answer.status == 201 and mount_from else self._location_of(answer)

    def patch_upload(self, repository: str, upload: str, start: int, body: Body) -> str:
        """Send the bytes of an upload from offset `start` on; returns its URL from now on."""
        headers = {
            "Content-Type": OCTETS,
            "Content-Range": f"{start}-{start + len(body) - 1}",
        }
        scopes = [_scope(repository, "pull,push")]
        answer = self._transport.request(
            "PATCH", upload, "upload", scopes, headers=headers, body=body, expected=(202, 204)
        )
        return self._location_of(answer)

    def put_upload(self, repository: str, upload: str, digest: str, body: Body) -> None:
        """Send what is left of an upload and finish it as the blob `digest`."""
        answer = self._transport.request(
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
            raise self._transport.error("digest_mismatch", f"blob {digest} was stored as {stored}")

    def cancel_upload(self, repository: str, upload: str) -> None:
        """End an upload that was begun; whatever the registry says, it purges old ones itself."""
        scopes = [_scope(repository, "pull,push")]
        with suppress(RegistryError):
            self._transport.request("DELETE", upload, "upload", scopes, expected=(200, 202, 204))

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
            raise self._transport.error("unsupported", "an upload began without a Location")
        return self._transport.resolve(answer.url, location)

    def _digest_of(self, answer: Answer) -> str:
        digest = answer.headers.get("Docker-Content-Digest", "")
        try:
            return parse_digest(digest) if digest else ""
        except InvalidReference as error:
            raise self._transport.error(
                "digest_mismatch", f"Docker-Content-Digest: {error}"
            ) from None

    # Pages

    def _pages(self, url: str, scopes: Sequence[str]) -> Iterator[Answer]:
        """The answer at `url` and those that its Link header, relative or absolute, leads to."""
        seen: set[str] = set()
        while url:
            seen.add(url)
            answer = self._transport.request("GET", url, "api", scopes, limit=MAX_LIST_BYTES)
            yield answer
            links = parse_header_links(answer.headers.get("Link", ""))
            following = [link["url"] for link in links if link.get("rel") == "next"]
            url = self._transport.resolve(answer.url, following[0]) if following else ""
            if url and (origin_of(url) != self._transport.origin or url in seen):
                raise self._transport.error(
                    "unsupported", "a Link to the next page leads out or in a circle"
                )

    def _decode(self, answer: Answer, kind: type[Page]) -> Page:
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            path = urlsplit(answer.url).path
            raise self._transport.error("unsupported", f"the answer of {path} is no list") from None


def make_placeholder(tag: str) -> Manifest:
    """What stands for a tag while it is deleted; no image, and the same whenever it is made."""
    digest = compute_digest(_PLACEHOLDER_CONFIG, "sha256:")
    content = {
        "schemaVersion": 2,
        "mediaType": OCI_IMAGE,
        "config": {"mediaType": OCTETS, "digest": digest, "size": len(_PLACEHOLDER_CONFIG)},
        "layers": [],
        "annotations": {"placeholder": tag},
    }
    return parse_manifest(json.dumps(content).encode(), OCI_IMAGE)


def _media_type_of(answer: Answer) -> str:
    return clean_text(answer.headers.get("Content-Type", "").partition(";")[0].strip(), 255)


def _scope(repository: str, actions: str) -> str:
    """What a token must allow (docs "Token Scope Documentation")."""
    return f"repository:{repository}:{actions}"
