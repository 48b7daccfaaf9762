"""What tags and digests hold: size and platforms, signatures, attestations and SBOMs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from app.rules.references import digest_tag_kind, digest_tag_subject
from app.store.catalogue import Tag
from app.store.manifests import Manifest, Whole
from app.store.paging import Page
from app.web.lists import Item, fields_of
from app.web.runtime import runtime
from app.web.signin import visitor

SIGNATURES = (".sig", "")  # of the tags that are about a digest: cosign's, and lists of referrers
SUPPLEMENTS = (".sig", ".att", ".sbom", "")

Content = tuple[str, str]  # registry and digest
Subject = tuple[str, str, str]  # registry, repository, digest


class Supplement(msgspec.Struct, frozen=True):
    """What is about an image: a signature, an attestation, an SBOM or another artifact.

    `tag` tells of it: its own, or that of a list of referrers.
    """

    kind: str
    digest: str
    tag: Tag


def tag_items(page: Page[Tag]) -> Page[Item]:
    """A page of tags, each with the size and platforms of what it points to, and if it is signed.

    Platforms are those of an index, with commas between: of an image a registry tells none.
    """
    known = _find_whole((row.registry, row.digest) for row in page.items)
    subjects = {(t.registry, t.repository, t.digest) for t in page.items if t.digest}
    signed = {
        subject
        for subject, found in find_supplements(subjects, SIGNATURES).items()
        if any(one.kind == "signature" for one in found)
    }
    items = []
    for row in page.items:
        whole = known.get((row.registry, row.digest or ""))
        items.append(
            {
                **fields_of(row),
                "size": whole.size if whole else None,
                "platforms": ",".join(whole.manifest.platforms) or None if whole else None,
                "signed": (row.registry, row.repository, row.digest) in signed,
            }
        )
    return Page(items, page.next)


def find_supplements(
    subjects: Iterable[Subject], endings: Sequence[str] = SUPPLEMENTS
) -> dict[Subject, list[Supplement]]:
    """What there is about some digests, as the tags beside them tell; by digest.

    Four queries at most for a page: the tags, the lists of referrers among them, and what these
    name. A registry tells nothing of what has no such tag.
    """
    names = {
        (registry, repository, digest.replace(":", "-", 1) + ending)
        for registry, repository, digest in subjects
        for ending in endings
    }
    tags = runtime().stores.catalogue.find_named(names, visitor().scope)
    lists = _find_whole((t.registry, t.digest) for t in tags if not digest_tag_kind(t.tag))
    entries = _find_whole(
        (registry, child)
        for (registry, _), whole in lists.items()
        for child in whole.manifest.children
    )
    found: defaultdict[Subject, list[Supplement]] = defaultdict(list)
    for tag in sorted(tags, key=lambda tag: tag.tag):
        about = (tag.registry, tag.repository, digest_tag_subject(tag.tag) or "")
        kind, of_list = digest_tag_kind(tag.tag), lists.get((tag.registry, tag.digest or ""))
        if kind and tag.digest:
            found[about].append(Supplement(kind, tag.digest, tag))
        elif of_list:
            for child in of_list.manifest.children:
                entry = entries.get((tag.registry, child))
                found[about].append(Supplement(_kind_of(entry), child, tag))
    return found


def _kind_of(whole: Whole | None) -> str:
    """That of what a list of referrers names; an image in it is somebody's artifact."""
    manifest: Manifest | None = whole.manifest if whole else None
    return "artifact" if manifest is None or manifest.kind == "image" else manifest.kind


def _find_whole(contents: Iterable[tuple[str, str | None]]) -> dict[Content, Whole]:
    digests: defaultdict[str, set[str]] = defaultdict(set)
    for registry, digest in contents:
        if digest:
            digests[registry].add(digest)
    store = runtime().stores.manifests
    return {
        (registry, digest): whole
        for registry, some in digests.items()
        for digest, whole in store.find_whole(registry, some).items()
    }
