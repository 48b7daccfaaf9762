"""A folder with the methods of a registry: for sites that no network reaches.

Each repository is an OCI image layout of its own, in a folder of its name, which other tools read
too (`skopeo copy oci:FOLDER/team/app:v1 …`). What has no tag stands in its index.json without name.

Source: OCI image-spec 1.1, "Image Layout".
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from app.registry.client import BlobStream, RegistryClient
from app.registry.errors import ErrorClass, RegistryError
from app.registry.manifests import OCI_IMAGE, OCI_INDEX, Manifest, new_hash, parse_manifest
from app.registry.transport import PIECE_BYTES, Body
from app.rules.events import Descriptor
from app.rules.references import is_digest, parse_digest, parse_repository, parse_tag

SCHEME = "oci:"
_NAME = "org.opencontainers.image.ref.name"
_OWN = {"blobs", "index.json", "oci-layout"}  # names that a layout has for itself
_CLASSES: dict[int, ErrorClass] = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EROFS: "readonly",
    errno.EACCES: "readonly",
}

Entry = dict[str, Any]


class OciFolder(RegistryClient):
    """The repositories of one folder, which is made when something is written. Threads share it.

    Any number of processes may write. A crash leaves whole blobs, whole manifests and, in
    `.uploads`, parts that nobody needs.
    """

    pause_s = silence_s = 0.0
    trouble = ""

    def __init__(self, folder: Path) -> None:
        self.url = f"{SCHEME}{folder}"
        self.chunk_bytes = self.max_put_bytes = 2**62
        self._folder = folder

    def close(self) -> None:
        """Nothing is open."""

    def ping(self) -> None:
        """Return if the folder is there."""
        if not self._folder.is_dir():
            raise self._error("down", "there is no such folder")

    def catalog(self, last: str = "") -> Iterator[list[str]]:
        """The repositories, by name."""
        self.ping()
        found = (file.parent for file in self._folder.rglob("oci-layout") if file.is_file())
        names = (folder.relative_to(self._folder).as_posix() for folder in found)
        yield sorted(name for name in names if name > last and name != ".")

    def tags(self, repository: str) -> list[str]:
        """See RegistryClient."""
        return sorted({tag for entry in self._entries(repository) if (tag := _tag_of(entry))})

    # Manifests

    def head_manifest(self, repository: str, reference: str, known: str = "") -> Descriptor:
        """See RegistryClient; nothing is counted here, so `known` spares nothing."""
        return self.get_manifest(repository, reference).descriptor

    def get_manifest(self, repository: str, reference: str) -> Manifest:
        """See RegistryClient."""
        entries = self._entries(repository)
        if is_digest(reference):
            digest = parse_digest(reference)
        else:
            named = [e["digest"] for e in entries if _tag_of(e) == parse_tag(reference)]
            if not named:
                raise self._error("gone", f"{repository} has no tag {reference}", status=404)
            digest = named[-1]
        try:
            body = self._blob(repository, digest).read_bytes()
        except FileNotFoundError:
            # A tag whose manifest is not there is damage, and no delete.
            is_lost = not is_digest(reference)
            error_class: ErrorClass = "blob_unknown" if is_lost else "gone"
            raise self._error(error_class, f"{repository} has no {digest}", status=404) from None
        kinds = [e.get("mediaType", "") for e in entries if e["digest"] == digest]
        return parse_manifest(body, kinds[0] if kinds else _media_type_in(body), digest)

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> None:
        """See RegistryClient."""
        named = [*manifest.children, *manifest.blobs]
        lost = [entry.digest for entry in named if not self.has_blob(repository, entry.digest)]
        if lost:
            raise self._error("blob_unknown", f"{repository} has no {lost[0]}")
        self._store(repository, manifest.digest, [manifest.body])
        tag = "" if is_digest(reference) else parse_tag(reference)
        entry: Entry = {
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": len(manifest.body),
        }
        with self._changing(repository) as entries:
            if tag:
                entries[:] = [e for e in entries if _tag_of(e) != tag]
                entries.append(entry | {"annotations": {_NAME: tag}})
            elif not any(e["digest"] == manifest.digest for e in entries):
                entries.append(entry)

    def delete_manifest(self, repository: str, digest: str) -> None:
        """See RegistryClient."""
        with self._changing(repository) as entries:
            entries[:] = [entry for entry in entries if entry["digest"] != digest]
        try:
            self._blob(repository, digest).unlink()
        except FileNotFoundError:
            raise self._error("gone", f"{repository} has no {digest}", status=404) from None

    def delete_tag(self, repository: str, tag: str) -> None:
        """See RegistryClient."""
        with self._changing(repository) as entries:
            kept = [entry for entry in entries if _tag_of(entry) != tag]
            if len(kept) == len(entries):
                raise self._error("gone", f"{repository} has no tag {tag}", status=404)
            entries[:] = kept

    def referrers(self, repository: str, digest: str) -> list[Descriptor]:
        """Those of the list under a tag: a folder keeps none itself."""
        return self._referrers_by_tag(repository, digest)

    # Blobs

    def has_blob(self, repository: str, digest: str) -> bool:
        """See RegistryClient."""
        return self._blob(repository, digest).is_file()

    @contextmanager
    def open_blob(self, repository: str, blob: Descriptor) -> Iterator[BlobStream]:
        """See RegistryClient."""
        try:
            file = self._blob(repository, blob.digest).open("rb")
        except FileNotFoundError:
            message = f"{repository} has no blob {blob.digest}"
            raise self._error("blob_unknown", message, status=404) from None
        with file:
            yield BlobStream(iter(lambda: file.read(PIECE_BYTES), b""), blob, self.url)

    def start_upload(self, repository: str, digest: str = "", mount_from: str = "") -> str:
        """See RegistryClient: a blob of another repository is linked, and takes no space."""
        if mount_from:
            there, here = self._blob(mount_from, digest), self._blob(repository, digest)
            with suppress(OSError):
                here.parent.mkdir(parents=True, exist_ok=True)
                os.link(there, here)
                return ""
        return uuid.uuid4().hex

    def put_upload(self, repository: str, upload: str, digest: str, body: Body | bytes) -> None:
        """See RegistryClient; the digest is checked."""
        self._store(repository, digest, [body] if isinstance(body, bytes) else body)

    def cancel_upload(self, repository: str, upload: str) -> None:
        """Nothing was begun."""

    # Files

    def _store(self, repository: str, digest: str, pieces: Any) -> None:
        """Write a blob whole or not at all."""
        part = self._folder / ".uploads" / uuid.uuid4().hex
        blob = self._blob(repository, digest)
        hashed = new_hash(digest)
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            blob.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                for piece in pieces:
                    hashed.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            if hashed.hexdigest() != digest.partition(":")[2]:
                raise self._error("digest_mismatch", f"what came is not {digest}")
            part.replace(blob)
        except OSError as error:
            raise self._failed(error) from None
        finally:
            with suppress(OSError):
                part.unlink()

    @contextmanager
    def _changing(self, repository: str) -> Iterator[list[Entry]]:
        """The entries of a repository's index.json, stored at the end if nothing is raised."""
        folder = self._repository(repository)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                entries = self._entries(repository)
                yield entries
                (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
                index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
                new = folder / "index.json.new"
                new.write_text(json.dumps(index, indent=1))
                new.replace(folder / "index.json")
        except OSError as error:
            raise self._failed(error) from None

    def _entries(self, repository: str) -> list[Entry]:
        try:
            text = (self._repository(repository) / "index.json").read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failed(error) from None
        try:
            return [entry for entry in json.loads(text)["manifests"] if entry["digest"]]
        except (ValueError, KeyError, TypeError):
            message = f"index.json of {repository} cannot be read"
            raise self._error("unsupported", message) from None

    def _repository(self, repository: str) -> Path:
        if _OWN & set(parse_repository(repository).split("/")):
            raise self._error("unsupported", f"{repository} cannot be the name of a folder")
        return self._folder / repository

    def _blob(self, repository: str, digest: str) -> Path:
        algorithm, _, value = parse_digest(digest).partition(":")
        return self._repository(repository) / "blobs" / algorithm / value

    def _failed(self, error: OSError) -> RegistryError:
        return self._error(_CLASSES.get(error.errno or 0, "server"), error.strerror or "an error")

    def _error(self, error_class: ErrorClass, message: str, status: int = 0) -> RegistryError:
        text = f"{self.url}: {message}"
        return RegistryError(error_class, text, registry=self.url, status=status)


def _tag_of(entry: Entry) -> str:
    return str((entry.get("annotations") or {}).get(_NAME, ""))


def _media_type_in(body: bytes) -> str:
    """What a manifest says of itself, or what it must be: older ones say nothing."""
    try:
        content = json.loads(body)
        said = content.get("mediaType", "")
        return said or (OCI_INDEX if "manifests" in content else OCI_IMAGE)
    except (ValueError, AttributeError):
        return ""
