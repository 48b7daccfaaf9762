"""One job: make a reference at the target what it is at the source now.

Level-triggered, so that pushes, moves, deletes, repetitions and any order of them are the same
job, and repeating it changes nothing. Makes no database calls: see Surroundings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from datetime import datetime

import msgspec

from app.migration.referrers import ReferrerLists
from app.migration.sides import Sides
from app.registry import (
    BlobCopier,
    Manifest,
    RegistryClient,
    RegistryError,
    make_placeholder,
)
from app.rules.events import Descriptor
from app.rules.references import is_digest, referrers_tag_subject
from app.store.migrations import WORKED, Job, Outcome, PlanStatus, present

MAX_DEPTH = 4  # of an index in an index
CONFIRM_GONE_S = 10.0  # between the two looks that a delete needs
BRAKED_S = 60.0  # until deletes that are braked are asked for again
LEFT_ALONE_S = 10.0  # until a job of a plan that was rolled back or closed is due again
BACKUP_HEX = 8  # of the digest, in the name of a backup tag
MIN_MOUNT_BYTES = 100_000  # smaller blobs are sent sooner than looked up elsewhere and noted
GB = 10**9


class LeaseLost(Exception):
    """Another worker has the job now; nothing more may be written for it."""


class Later(Exception):
    """The job has to wait, though nothing failed.

    `gone_at`: when the source said first that it has the reference no more, if it did.
    """

    def __init__(
        self, seconds: float, reason: str, message: str, gone_at: datetime | None = None
    ) -> None:
        super().__init__(message)
        self.seconds = seconds
        self.reason = reason
        self.gone_at = gone_at


class Synced(msgspec.Struct, frozen=True):
    """How a job ended, and which references of its repository have to be looked at next."""

    outcome: Outcome
    next: tuple[str, ...] = ()


class Surroundings(msgspec.Struct, frozen=True):
    """What a copier asks of the worker around it.

    `holds` tells whether the lease of a job still is ours, and notes the digest, if any, that its
    reference is about to get at the target; `status` is the plan's status as it is now,
    `may_delete` tells whether one more delete is allowed, `find_blobs` which repositories of the
    target may have some blobs, `add_blobs` that one has them now, `refuses_deletes` that the
    target deletes nothing. `find_lists` and `note_list` are those of ReferrerLists.
    """

    holds: Callable[[Job, str], bool]
    status: Callable[[], PlanStatus]
    may_delete: Callable[[], bool]
    refuses_deletes: Callable[[], None]
    find_blobs: Callable[[Sequence[str]], Mapping[str, Sequence[str]]]
    add_blobs: Callable[[Sequence[str], str], None]
    find_lists: Callable[[str, str], Collection[str]]
    note_list: Callable[[str, str, str], None]


class Copier:
    """Carries out jobs of one plan; threads share it. `blob_threads` copy the blobs of all."""

    def __init__(
        self,
        sides: Sides,
        blobs: BlobCopier,
        blob_threads: Executor,
        surroundings: Surroundings,
    ) -> None:
        self._plan = sides.plan
        self._source = sides.source
        self._target = sides.target
        self._blobs = blobs
        self._blob_threads = blob_threads
        self._around = surroundings
        self._lists = ReferrerLists(
            self._source, self._target, surroundings.find_lists, surroundings.note_list
        )

    def sync(self, job: Job) -> Synced:
        """Carry out one job.

        Raises:
            RegistryError, InvalidReference: what went wrong; the job may be repeated.
            Later: it has to wait.
            LeaseLost: it is no longer ours.
        """
        repository, reference = job.repository, job.reference
        target_repository = self._plan.map(repository)
        if not self._plan.takes(repository, reference):
            return Synced(Outcome(state="skipped", result="filtered"))
        digest = digest_of(self._source, repository, reference, job.source_digest)
        if not digest:
            return Synced(self._sync_gone(job, target_repository))
        there = digest_of(self._target, target_repository, reference)
        if there == digest and not job.broken:
            return self._note_present(job, target_repository, digest)
        kept = self._settle_conflict(job, target_repository, digest, there)
        if kept:
            return Synced(kept)
        return self._copy(job, target_repository, digest)

    def _note_present(self, job: Job, target_repository: str, digest: str) -> Synced:
        images = [digest]
        again: tuple[str, ...] = ()
        is_put_by_us = job.putting == digest
        if is_put_by_us and job.put_digest != digest:  # what follows a PUT did not come about
            manifest = self._source.get_manifest(job.repository, digest)
            again = self._list_referrer(job.repository, target_repository, manifest)
            images += [child.digest for child in manifest.children]
        elif self._plan.options.referrers and is_digest(job.reference):
            manifest = self._target.get_manifest(target_repository, digest)
            again = self._list_referrer(job.repository, target_repository, manifest)
        outcome = Outcome(
            state="done",
            result="present",
            source_digest=digest,
            target_digest=digest,
            put_digest=digest if is_put_by_us else "",
            target_repository=target_repository,
        )
        return Synced(outcome, again + self._find_referrers(job, *images))

    # Copying

    def _copy(self, job: Job, target_repository: str, digest: str) -> Synced:
        manifest = self._source.get_manifest(job.repository, digest)
        copied = _Copied(job, target_repository)
        self._copy_contents(copied, manifest, 0)
        # That took time: somebody may have pushed there or moved the plan meanwhile.
        state = self._around.status().state
        if state not in WORKED:
            raise Later(LEFT_ALONE_S, "", f"the plan is {state}")
        there = digest_of(self._target, target_repository, job.reference)
        kept = self._settle_conflict(job, target_repository, digest, there)
        if kept:
            return Synced(kept)
        if self._plan.options.existing == "backup" and self._is_of_others(job, digest, there):
            self._back_up(target_repository, job.reference, there)
        self._put(copied, job.reference, manifest)
        again = self._list_referrer(job.repository, target_repository, manifest)
        outcome = Outcome(
            state="done",
            result="copied",
            source_digest=digest,
            target_digest=digest,
            put_digest=digest,
            target_repository=target_repository,
            bytes=copied.bytes,
            media_type=manifest.media_type,
        )
        now = digest_of(self._source, job.repository, job.reference, digest)
        if now != digest:
            again += (job.reference,)
        return Synced(outcome, again + self._find_referrers(job, digest, *copied.manifests))

    def _copy_contents(self, copied: _Copied, manifest: Manifest, depth: int) -> None:
        """Copy what a manifest names: children first, so that nobody sees half an image."""
        if depth > MAX_DEPTH:
            message = f"{manifest.digest}: an index in an index more than {MAX_DEPTH} deep"
            raise RegistryError("unsupported", message)
        for child in manifest.children:
            if child.digest in copied.manifests:
                continue
            copied.manifests.add(child.digest)
            is_there = digest_of(self._target, copied.target_repository, child.digest) != ""
            if is_there and not copied.job.broken:
                continue
            inner = self._get_child(copied.job.repository, manifest, child)
            self._copy_contents(copied, inner, depth + 1)
            self._put(copied, child.digest, inner)
        self._copy_blobs(copied, self._plan.blobs_of(manifest))

    def _get_child(self, repository: str, index: Manifest, child: Descriptor) -> Manifest:
        try:
            return self._source.get_manifest(repository, child.digest)
        except RegistryError as error:
            if error.error_class != "gone":
                raise
            message = (
                f"{self._source.url}: {repository} has no {child.digest}, "
                f"which its index {index.digest} names"
            )
            raise RegistryError(
                "blob_unknown", message, registry=self._source.url, status=error.status
            ) from None

    def _copy_blobs(self, copied: _Copied, blobs: Sequence[Descriptor]) -> None:
        blobs = sorted(blobs, key=lambda blob: -blob.size)  # the others go beside the longest
        limit = self._plan.limits.max_blob_gb * GB
        for blob in blobs:
            if limit and blob.size > limit:
                message = f"blob {blob.digest} of {blob.size} bytes is above limits.max_blob_gb"
                raise RegistryError("too_large", message)
        digests = [blob.digest for blob in blobs if blob.size >= MIN_MOUNT_BYTES]
        candidates = self._around.find_blobs(digests)
        copying = [
            self._blob_threads.submit(
                self._blobs.copy_blob,
                self._source,
                blob,
                copied.job.repository,
                copied.target_repository,
                candidates.get(blob.digest, ()),
            )
            for blob in blobs
        ]
        try:
            for blob, future in zip(blobs, copying, strict=True):
                if future.result() == "copied":
                    copied.bytes += blob.size
        finally:
            for future in copying:
                future.cancel()
        self._around.add_blobs(digests, copied.target_repository)

    def _put(self, copied: _Copied, reference: str, manifest: Manifest) -> None:
        # Before it is done: were this process killed right after, nobody would know whose it is.
        putting = manifest.digest if reference == copied.job.reference else ""
        if not self._around.holds(copied.job, putting):
            raise LeaseLost
        self._target.put_manifest(copied.target_repository, reference, manifest)

    # What is at the target already

    def _settle_conflict(
        self, job: Job, target_repository: str, digest: str, there: str
    ) -> Outcome | None:
        """What to do with a tag that somebody else made; None when it may be overwritten."""
        policy = self._plan.options.existing
        # Or neither is there.
        is_as_seen = there == job.target_digest or self._is_own_list(job, there)
        if there != digest and not is_as_seen and self._around.status().target_leads:
            return Outcome(
                state="skipped",
                result="kept",
                source_digest=digest,
                target_digest=job.target_digest,
                target_repository=target_repository,
                error="changed at the target since the cut-over",
            )
        if policy in ("overwrite", "backup") or not self._is_of_others(job, digest, there):
            return None
        kept = Outcome(
            state="skipped",
            result="kept",
            source_digest=digest,
            target_repository=target_repository,
        )
        if policy == "skip":
            return kept
        message = f"{target_repository}:{job.reference} is {there} and was not put there by us"
        return msgspec.structs.replace(kept, state="conflict", error_class="exists", error=message)

    def _is_of_others(self, job: Job, digest: str, there: str) -> bool:
        """Whether what the target has under a tag was put there by somebody else."""
        is_ours = there in ("", digest, job.target_digest) or _is_put_by_us(job, there)
        return not is_ours and not self._is_own_list(job, there)

    def _is_own_list(self, job: Job, there: str) -> bool:
        """Whether a tag of the target has a list of referrers that we wrote."""
        return self._lists.is_own(job.repository, job.reference, there)

    def _back_up(self, target_repository: str, tag: str, there: str) -> None:
        backup = f"{tag[:100]}-before-{there.partition(':')[2][:BACKUP_HEX]}"
        manifest = self._target.get_manifest(target_repository, there)
        self._target.put_manifest(target_repository, backup, manifest)

    # Signatures and other referrers

    def _list_referrer(
        self, repository: str, target_repository: str, manifest: Manifest
    ) -> tuple[str, ...]:
        """What has to be looked at again, as its place in a list may be lost: itself or nothing."""
        if not self._plan.options.referrers:
            return ()
        is_written = self._lists.add(repository, target_repository, manifest)
        return (manifest.digest,) if is_written else ()

    def _find_referrers(self, job: Job, *digests: str) -> tuple[str, ...]:
        """The digests of what refers to an image or its children, each a job of its own."""
        if not self._plan.options.referrers:
            return ()
        return tuple(
            referrer.digest
            for digest in digests
            for referrer in self._source.referrers(job.repository, digest)
        )

    # Deletes

    def _sync_gone(self, job: Job, target_repository: str) -> Outcome:
        """The source has it no more: delete it at the target, if that was asked for and is ours."""
        if not is_digest(job.reference) and job.reference in self._source.tags(job.repository):
            message = (
                f"{self._source.url}: {job.repository}:{job.reference} is listed, but has no "
                "manifest; push it anew or delete the tag"
            )
            raise RegistryError("blob_unknown", message, registry=self._source.url)
        there = digest_of(self._target, target_repository, job.reference)
        absent = Outcome(state="done", result="absent", target_repository=target_repository)
        if not there:
            return absent
        kept = msgspec.structs.replace(
            absent, state="skipped", result="kept", target_digest=job.target_digest
        )
        why = self._find_why_kept(job, target_repository, there)
        if why is not None:
            return msgspec.structs.replace(kept, error=why)
        if not self._around.may_delete():
            message = "deletes are braked: see rns migrate status"
            raise Later(BRAKED_S, "braked", message, job.gone_at)
        if not self._around.holds(job, ""):
            raise LeaseLost
        try:
            if self._is_over(job, there):
                self._lists.forget(job.repository, target_repository, there)
            self._delete(target_repository, job.reference)
        except RegistryError as error:
            if error.error_class == "readonly":  # or a proxy lets no delete pass: stops no plan
                raise RegistryError("server", str(error), registry=error.registry) from None
            if error.error_class != "unsupported":
                raise
            self._around.refuses_deletes()
            return msgspec.structs.replace(kept, error="the target deletes nothing")
        return msgspec.structs.replace(absent, result="deleted")

    def _find_why_kept(self, job: Job, target_repository: str, there: str) -> str | None:
        """Why the target keeps what is gone from the source, "" if nobody asked for a delete.

        None: it has to go.
        """
        is_tag = not is_digest(job.reference)
        wanted = self._plan.deletes
        is_wanted = wanted == "tags_and_digests" or (wanted == "tags" and is_tag) or job.prune
        if self._around.status().target_leads or not is_wanted:
            return ""
        if not (_is_put_by_us(job, there) or self._is_own_list(job, there)):
            return "not put there by us"
        subject = referrers_tag_subject(job.reference)
        if subject and self._source.referrers(job.repository, subject):
            return "it lists what the source finds without such a list"
        for sharer in self._plan.find_sharers(job.repository):
            if digest_of(self._source, sharer, job.reference):
                return f"{sharer} of the source has it"
        self._confirm_gone(job)
        if not is_tag and self._is_in_use(job.repository, target_repository, there):
            return "still in use at the target"
        return "" if self._around.status().target_leads else None  # that took time

    def _is_over(self, job: Job, there: str) -> bool:
        """Whether not only a tag is gone from the source, but also what it named."""
        if not self._plan.options.referrers:
            return False
        return is_digest(job.reference) or not digest_of(self._source, job.repository, there)

    def _delete(self, target_repository: str, reference: str) -> None:
        try:
            if is_digest(reference):
                self._target.delete_manifest(target_repository, reference)
            else:
                self._target.delete_tag(target_repository, reference)
        except RegistryError as error:
            if error.error_class != "gone":
                raise

    def _confirm_gone(self, job: Job) -> None:
        """Return if the source is healthy, and said twice that it has no such reference.

        Raises:
            Later: look again after a while.
        """
        self._source.ping()
        now = present()
        gone_at = job.gone_at or now
        left_s = CONFIRM_GONE_S - (now - gone_at).total_seconds()
        if left_s > 0:
            message = "gone from the source; it is looked at again before it is deleted"
            raise Later(left_s, "gone", message, gone_at)

    def _is_in_use(self, repository: str, target_repository: str, digest: str) -> bool:
        """Whether a tag of the target names a digest, or an index that has it as a child.

        A list of referrers that we wrote does not count: it loses what is deleted.
        """
        for tag in self._target.tags(target_repository):
            named = self._target.get_manifest(target_repository, tag)
            if digest == named.digest:
                return True
            is_child = any(digest == child.digest for child in named.children)
            if is_child and not self._lists.is_own(repository, tag, named.digest):
                return True
        return False


def digest_of(client: RegistryClient, repository: str, reference: str, known: str = "") -> str:
    """The digest of a reference, "" if it is not there."""
    try:
        return client.head_manifest(repository, reference, known).digest
    except RegistryError as error:
        if error.error_class != "gone":
            raise
        return ""


def _is_put_by_us(job: Job, there: str) -> bool:
    """Whether what the target has under a reference is ours, or left of a delete of ours."""
    if there in (job.put_digest, job.putting):
        return True
    return not is_digest(job.reference) and there == make_placeholder(job.reference).digest


class _Copied:
    """What one job copied so far."""

    def __init__(self, job: Job, target_repository: str) -> None:
        self.job = job
        self.target_repository = target_repository
        self.manifests: set[str] = set()
        self.bytes = 0
