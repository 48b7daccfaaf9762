"""The list of an image's referrers at a target that keeps none itself.

Source: OCI distribution-spec 1.1, "Referrers Tag Schema".
"""

from __future__ import annotations

import json
from typing import Any

from app.registry import Manifest, RegistryClient, RegistryError, parse_manifest
from app.registry.manifests import OCI_INDEX

TRIES = 3


def fallback_tag(digest: str) -> str:
    """The tag under which the referrers of a digest are listed."""
    return digest.replace(":", "-", 1)[:128]


def list_referrer(
    source: RegistryClient,
    target: RegistryClient,
    repository: str,
    target_repository: str,
    referrer: Manifest,
) -> bool:
    """See to it that the target finds a manifest by its subject; idempotent.

    True when a list was written for that: look again after a while, as another process may have
    read the list before and write it after us. A list that the source keeps under a tag is copied
    as any tag, and not touched here. A list is only ever added to.

    Raises:
        RegistryError: `server`: others wrote the list again and again.
    """
    subject = referrer.subject
    if subject is None:
        return False
    tag = fallback_tag(subject.digest)
    for left in reversed(range(TRIES + 1)):
        listed = target.referrers(target_repository, subject.digest)
        if any(entry.digest == referrer.digest for entry in listed):
            return left < TRIES
        if _find(source, repository, tag):
            return False
        if left:
            index = _find(target, target_repository, tag)
            target.put_manifest(target_repository, tag, _with(index, referrer))
    message = f"{target.url}: {target_repository} does not list {referrer.digest} by its subject"
    raise RegistryError("server", message, registry=target.url)


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
