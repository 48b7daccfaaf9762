"""Source and target compared, by digest: what a migration is judged by.

Only digests count, and the comparison is the one that jobs make. A reference that cannot be asked
for is `unknown`, never equal.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from threading import Lock

import msgspec

from app.errors import InvalidReference
from app.migration.copier import digest_of
from app.migration.crawler import SAVE_EVERY_S, Names, find_repositories, no_names
from app.migration.filters import compile_filter
from app.migration.sides import Sides
from app.registry import OF_ENDPOINT, RegistryError
from app.rules.events import Descriptor
from app.rules.references import referrers_tag_subject
from app.store.migrations import Drift, DriftKind, Job, Run, present

RECHECK_S = 30.0  # after which a push that was on its way must have come through

FindJob = Callable[[str, str], Job | None]


class Extent(msgspec.Struct, frozen=True, kw_only=True):
    """How much a verification looks at, and how closely.

    `share` of the tags, chosen at random, of the repositories that the pattern `repositories`
    matches at the source. `deep` also asks the target for everything that manifests name, `hashed`
    reads every blob there too; each once. What differs is compared once more after `recheck_s`.

    Raises ConfigError for a pattern that is none.
    """

    share: float = 1
    repositories: str = ""
    deep: bool = False
    hashed: bool = False
    recheck_s: float = RECHECK_S

    def __post_init__(self) -> None:
        self.takes("")

    @property
    def part(self) -> str:
        """What is looked at, "" for all of the plan."""
        said = [f"{self.share:.3%} of the tags"] if self.share < 1 else []
        return ", ".join(said + ([self.repositories] if self.repositories else []))

    def takes(self, repository: str) -> bool:
        """Whether a repository of the source is looked at."""
        if not self.repositories:
            return True
        return compile_filter(self.repositories, versions=False)(repository)

    def choose(self, tags: Sequence[str]) -> Sequence[str]:
        """The tags that are looked at."""
        if self.share >= 1:
            return tags
        return [tag for tag in tags if random.random() < self.share]  # noqa: S311 - a sample


ALL = Extent()


class Verifier:
    """Compares the two sides of a plan; `threads` ask for several references at a time.

    `find_job` is the ledger: what it knows spares the source a pull event. `target_leads`: people
    push to the target, so that what changed there is no difference. `each` is called for every tag.
    """

    def __init__(
        self,
        sides: Sides,
        threads: Executor,
        *,
        find_job: FindJob = lambda repository, reference: None,
        known: Names = no_names,
        extent: Extent = ALL,
        target_leads: bool = False,
        each: Callable[[], object] = lambda: None,
    ) -> None:
        self._plan = sides.plan
        self._source = sides.source
        self._target = sides.target
        self._threads = threads
        self._find_job = find_job
        self._known = known
        self._extent = extent
        self._target_leads = target_leads
        self._each = each
        self._sound: set[tuple[str, str]] = set()  # target repository and digest, wholly there
        self._read: dict[str, Future[bool]] = {}  # by digest: whether the target's bytes are right
        self._lock = Lock()

    def verify(self, run: Run, save: Callable[[Run], bool]) -> tuple[Run, list[Drift]] | None:
        """Compare everything; None when `save` says that another process has the run.

        Raises:
            RegistryError: one side does not list what it has.
        """
        run = msgspec.structs.replace(run, repositories=0, tags=0)
        found: list[Drift] = []
        saved, is_partly_seen = time.monotonic(), False
        for repository, is_from_events in find_repositories(self._source, "", self._known):
            is_partly_seen |= is_from_events
            if not (self._plan.takes(repository) and self._extent.takes(repository)):
                continue
            tags, rows = self.compare(repository)
            found += rows
            run = msgspec.structs.replace(
                run,
                repositories=run.repositories + 1,
                tags=run.tags + tags,
                cursor=repository,
            )
            if time.monotonic() - saved > SAVE_EVERY_S:
                saved = time.monotonic()
                if not save(run):
                    return None
        run = msgspec.structs.replace(run, names_from_events=is_partly_seen)
        if found:
            deadline = time.monotonic() + self._extent.recheck_s
            while time.monotonic() < deadline:
                if not save(run):
                    return None
                time.sleep(min(SAVE_EVERY_S, max(0.0, deadline - time.monotonic())))
            found = [row for row in self._recheck(found) if row]
        counts: dict[str, int] = {}
        for row in found:
            counts[row.kind] = counts.get(row.kind, 0) + 1
        return msgspec.structs.replace(run, drift=counts), found

    def compare(self, repository: str) -> tuple[int, list[Drift]]:
        """How many tags a repository has that are compared, and how they differ.

        One difference without a reference stands for all of a repository that cannot be listed.
        """
        try:
            return self._compare(repository)
        except (InvalidReference, RegistryError) as error:
            if isinstance(error, RegistryError) and error.error_class in OF_ENDPOINT:
                raise
            return 0, [self._row(repository, "", "unknown", message=str(error))]

    def _compare(self, repository: str) -> tuple[int, list[Drift]]:
        every = self._source.tags(repository)
        tags = self._extent.choose(self._plan.tags.choose(every))
        try:
            target_repository = self._plan.map(repository)
        except InvalidReference as error:
            return len(tags), [
                self._row(repository, tag, "unknown", message=str(error)) for tag in tags
            ]
        rows = self._threads.map(lambda tag: self._check(repository, tag), tags)
        there = filter(self._plan.tags.takes, self._tags_at_target(target_repository))
        more = sorted(set(there) - set(every))
        extra = [tag for tag in more if not self._is_our_list(repository, tag)]
        found = [row for row in rows if row]
        return len(tags), found + [self._row(repository, tag, "extra") for tag in extra]

    def _tags_at_target(self, repository: str) -> Sequence[str]:
        """What may be too much there: nothing where a bare 404 is all that the target answers."""
        try:
            return self._target.tags(repository)
        except RegistryError as error:
            if error.status != 404:
                raise
            return ()

    def _is_our_list(self, repository: str, tag: str) -> bool:
        """Whether a tag lists the referrers of an image whose source lists them by its API."""
        subject = referrers_tag_subject(tag) if self._plan.options.referrers else None
        return subject is not None and digest_of(self._source, repository, subject) != ""

    def _recheck(self, rows: Iterable[Drift]) -> Iterator[Drift | None]:
        self._sound.clear()
        self._read.clear()
        return self._threads.map(self._check_again, rows)

    def _check_again(self, row: Drift) -> Drift | None:
        if not row.reference:
            return row
        if row.kind != "extra":
            return self._check(row.repository, row.reference)
        is_extra = row.reference in self._tags_at_target(self._plan.map(row.repository))
        is_extra = is_extra and row.reference not in self._source.tags(row.repository)
        return row if is_extra else None

    def _check(self, repository: str, tag: str) -> Drift | None:
        """How a tag differs, None if it does not."""
        self._each()
        job = self._find_job(repository, tag)
        try:
            row = self._compare_tag(repository, tag, job)
        except (InvalidReference, RegistryError) as error:
            row = self._row(repository, tag, "unknown", message=str(error))
        why = self._find_why_left_out(row, job) if row and job else ""
        if row and why:
            message = f"{row.kind}, and {why}. {row.message}".rstrip()
            return msgspec.structs.replace(row, kind="left_out", message=message)
        return row

    def _find_why_left_out(self, row: Drift, job: Job) -> str:
        """Why no job will repair a difference, "" if one will."""
        if job.state == "skipped" and job.result == "waived":
            return "a person skipped it"
        is_changed = row.kind in ("missing", "different") and row.target_digest != job.target_digest
        if self._target_leads and job.target_digest and is_changed:
            return "the target was changed after the cut-over"
        # "missing" is no difference that the option speaks of, nor is what was pushed since.
        is_as_kept = row.kind == "different" and row.source_digest == job.source_digest
        is_kept = job.state == "skipped" and job.result == "kept" and is_as_kept
        if is_kept and self._plan.options.existing == "skip":
            return "options.existing: skip keeps it"
        return ""

    def _compare_tag(self, repository: str, tag: str, job: Job | None) -> Drift | None:
        source = digest_of(self._source, repository, tag, job.source_digest if job else "")
        target_repository = self._plan.map(repository)
        target = digest_of(self._target, target_repository, tag)
        if not source and tag in self._source.tags(repository):
            message = "the source lists it, but has no manifest"
            return self._row(repository, tag, "unknown", target=target, message=message)
        if source != target:
            kind: DriftKind = "missing" if not target else "different" if source else "extra"
            return self._row(repository, tag, kind, source, target)
        if not (self._extent.deep or self._extent.hashed) or not source:
            return None
        broken = self._find_broken(target_repository, source)
        if not broken:
            return None
        broken_kind, what = broken
        return self._row(repository, tag, broken_kind, source, target, what)

    def _row(
        self,
        repository: str,
        reference: str,
        kind: DriftKind,
        source: str = "",
        target: str = "",
        message: str = "",
    ) -> Drift:
        return Drift(
            plan=self._plan.name,
            repository=repository,
            reference=reference,
            kind=kind,
            source_digest=source,
            target_digest=target,
            message=message[:500],
            at=present(),
        )

    def _find_broken(self, repository: str, digest: str) -> tuple[DriftKind, str] | None:
        """What of all that a manifest of the target names is not there: the first, by name."""
        if (repository, digest) in self._sound:
            return None
        try:
            manifest = self._target.get_manifest(repository, digest)
        except RegistryError as error:
            if error.error_class != "gone":
                raise
            return "broken_child", f"{repository} of the target lacks manifest {digest}"
        for child in manifest.children:
            if broken := self._find_broken(repository, child.digest):
                return broken
        for blob in self._plan.blobs_of(manifest):
            if (repository, blob.digest) in self._sound:
                continue
            named = f"blob {blob.digest}, which {digest} names"
            if not self._target.has_blob(repository, blob.digest):
                return "broken_blob", f"{repository} of the target lacks {named}"
            if self._extent.hashed and not self._is_right(repository, blob):
                return "broken_blob", f"{repository} of the target has other bytes as {named}"
            with self._lock:
                self._sound.add((repository, blob.digest))
        with self._lock:
            self._sound.add((repository, digest))
        return None

    def _is_right(self, repository: str, blob: Descriptor) -> bool:
        """Whether the target has the bytes of a blob: read by the first thread that asks."""
        with self._lock:
            is_first = blob.digest not in self._read
            read = self._read.setdefault(blob.digest, Future())
        if is_first:
            try:
                read.set_result(self._is_readable(repository, blob))
            except Exception as error:
                read.set_exception(error)
        return read.result()

    def _is_readable(self, repository: str, blob: Descriptor) -> bool:
        try:
            with self._target.open_blob(repository, blob) as stream:
                for _ in stream.take(blob.size):
                    pass
                stream.check()
        except RegistryError as error:
            if error.error_class not in ("digest_mismatch", "blob_unknown"):
                raise
            return False
        return True
