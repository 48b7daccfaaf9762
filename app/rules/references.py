"""Names, tags and digests as the OCI distribution specification writes them.

Source: OCI distribution-spec 1.1, "Pulling manifests", and the reference grammar of distribution
(`reference/regexp.go`). A repository name here is the path alone, without the registry's host.
"""

from __future__ import annotations

import re

from app.errors import InvalidReference

MAX_REPOSITORY_LENGTH = 255  # distribution: NameTotalLengthMax
MAX_DIGEST_LENGTH = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[A-Za-z0-9=_-]{32,}")
# cosign's, and without an ending that of OCI distribution-spec 1.1, "Referrers Tag Schema".
DIGEST_TAG = r"sha256-[0-9a-f]{64}(?:\.(sig|att|sbom))?"
_DIGEST_TAG = re.compile(DIGEST_TAG)
_KINDS = {"sig": "signature", "att": "attestation", "sbom": "sbom"}


def parse_repository(name: str) -> str:
    """Return `name` unchanged if it is a repository name of one or more path components.

    Raises:
        InvalidReference: it is not, or it is longer than 255 characters.
    """
    if len(name) > MAX_REPOSITORY_LENGTH or not _REPOSITORY.fullmatch(name):
        raise InvalidReference(f"not a repository name: {name[:80]!r}")
    return name


def parse_tag(tag: str) -> str:
    """Return `tag` unchanged if it is a tag, else raise InvalidReference."""
    if not _TAG.fullmatch(tag):
        raise InvalidReference(f"not a tag: {tag[:80]!r}")
    return tag


def parse_digest(digest: str) -> str:
    """Return `digest` unchanged if it is `algorithm:encoded`, else raise InvalidReference."""
    if len(digest) > MAX_DIGEST_LENGTH or not _DIGEST.fullmatch(digest):
        raise InvalidReference(f"not a digest: {digest[:80]!r}")
    return digest


def is_digest(reference: str) -> bool:
    """Tell a digest from a tag: a tag has no colon."""
    return ":" in reference


def namespace_of(repository: str) -> str:
    """The name up to its last slash, `""` for a name of one component.

    So docker_auth's glob `team/*` means exactly `namespace == "team"`.
    """
    return repository.rpartition("/")[0]


def digest_tag_kind(tag: str) -> str | None:
    """What a cosign-style tag `sha256-<hex>.sig|att|sbom` holds: signature, attestation or sbom."""
    match = _DIGEST_TAG.fullmatch(tag)
    return _KINDS.get(match[1]) if match else None


def digest_tag_subject(tag: str) -> str | None:
    """The digest that a tag `sha256-<hex>`, or with `.sig|att|sbom` after it, is about."""
    return f"sha256:{tag[7:71]}" if _DIGEST_TAG.fullmatch(tag) else None


def referrers_tag_subject(tag: str) -> str | None:
    """The digest whose referrers are listed under a tag `sha256-<hex>`."""
    return None if digest_tag_kind(tag) else digest_tag_subject(tag)
