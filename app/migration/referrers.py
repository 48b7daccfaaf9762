"""The list of an image's referrers at a target that keeps none itself.

Source: OCI distribution-spec 1.1, "Referrers Tag Schema".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from threading import Lock
from typing import Any

from app.registry import Manifest, RegistryClient, RegistryError, parse_manifest
from app.registry.manifests import OCI_INDEX
from app.rules.references import referrers_tag_subject

TRIES = 3


def fallback_tag(digest: str) -> str:
    """The tag under which the referrers of a digest are listed."""
    return digest.replace(":", "-", 1)[:128]


class ReferrerLists:
    """The lists that we keep at the target; threads share it.

    `find_own` gives the digests of the lists that we stored under a tag of a repository of the
    source, as far back as is kept; `note_own` is told of one before it is stored.
    """

    def __init__(
        self,
        source: RegistryClient,
        target: RegistryClient,
        find_own: Callable[[str, str], Collection[str]],
        note_own: Callable[[str, str, str], None],
    ) -> None:
        self._source = source
        self._target = target
        self._find_own = find_own
        self._note_own = note_own
        self._lock = Lock()  # a list is read, changed and written as a whole

    def is_own(self, repository: str, tag: str, digest: str) -> bool:
        """Whether what the target has under a tag is a list that we wrote."""
        is_list = referrers_tag_subject(tag) is not None
        return is_list and digest in self._find_own(repository, tag)

    def add(self, repository: str, target_repository: str, referrer: Manifest) -> bool:
        """See to it that the target finds a manifest by its subject; idempotent.

        True when a list was written for that: look again after a while, as another process may
        have read the list before and write it after us. A list that the source keeps under a tag
        is copied as any tag, and not touched here. A list of others is added to, and stays theirs.

        Raises:
            RegistryError: `server`: others wrote the list again and again.
        """
        subject = referrer.subject
        if subject is None:
            return False
        tag = fallback_tag(subject.digest)
        with self._lock:
            for left in reversed(range(TRIES + 1)):
                listed = self._target.referrers(target_repository, subject.digest)
                if any(entry.digest == referrer.digest for entry in listed):
                    return left < TRIES
                if _find(self._source, repository, tag):
                    return False
                if left:
                    index = _find(self._target, target_repository, tag)
                    made = _with(index, referrer)
                    if index is None or self.is_own(repository, tag, index.digest):
                        self._note_own(repository, tag, made.digest)
                    self._target.put_manifest(target_repository, tag, made)
        url = self._target.url
        message = f"{url}: {target_repository} does not list {referrer.digest} by its subject"
        raise RegistryError("server", message, registry=url)

    def forget(self, repository: str, target_repository: str, digest: str) -> None:
        """Take what is to be deleted at the target out of the lists that we wrote; idempotent.

        That is its place in the list of its subject, and the list of what refers to it.
        """
        manifest = _find(self._target, target_repository, digest)
        with self._lock:
            if manifest and manifest.subject:
                self._take_out(repository, target_repository, manifest.subject.digest, digest)
            self._take_out(repository, target_repository, digest)

    def _take_out(self, repository: str, target_repository: str, of: str, digest: str = "") -> None:
        """Take a digest out of the list of a subject; the last, or all, takes the list away."""
        tag = fallback_tag(of)
        index = _find(self._target, target_repository, tag)
        if index is None or not self.is_own(repository, tag, index.digest):
            return
        if digest and any(child.digest != digest for child in index.children):
            made = _without(index, digest)
            if made.digest != index.digest:
                self._note_own(repository, tag, made.digest)
                self._target.put_manifest(target_repository, tag, made)
        else:
            self._target.delete_manifest(target_repository, index.digest)


def _find(client: RegistryClient, repository: str, tag: str) -> Manifest | None:
    try:
        return client.get_manifest(repository, tag)
    except RegistryError as error:
        if error.error_class != "gone":
            raise
        return None


def _with(index: Manifest | None, referrer: Manifest) -> Manifest:
    content: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    if index is not None:
        content = json.loads(index.body)
    entry: dict[str, Any] = {
        "mediaType": referrer.media_type,
        "digest": referrer.digest,
        "size": len(referrer.body),
    }
    if referrer.artifact_type:
        entry["artifactType"] = referrer.artifact_type
    content["manifests"] = [*content.get("manifests", []), entry]
    return parse_manifest(json.dumps(content).encode(), OCI_INDEX)


def _without(index: Manifest, digest: str) -> Manifest:
    content = json.loads(index.body)
    kept = [entry for entry in content["manifests"] if entry["digest"] != digest]
    if len(kept) == len(content["manifests"]):
        return index
    return parse_manifest(json.dumps(content | {"manifests": kept}).encode(), index.media_type)
