"""The catalogue and its registry compared: what no event told of, and what is on record only."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor

import msgspec

from app.errors import InvalidReference
from app.migration.crawler import find_repositories
from app.migration.registry_tags import make_delete, make_push
from app.registry import OF_ENDPOINT, RegistryClient, RegistryError
from app.rules.events import Event
from app.rules.references import parse_repository, parse_tag
from app.store import Stores
from app.store.checks import Check, Difference, DifferenceKind
from app.store.migrations import present

logger = logging.getLogger(__name__)

RECHECK_S = 10.0  # after which an event that was on its way must have been worked in
MIN_GONE = 20  # tags; so many may be gone at once without a person looking
MAX_GONE = 0.2  # of all tags on record
REPAIRED_AT_ONCE = 100

Apply = Callable[[Sequence[Event]], None]


class CatalogueCheck:
    """Compares one registry with what the catalogue has of it; `threads` ask for several tags.

    `going_on` is called before each tag with how far it is, by several threads.
    """

    def __init__(
        self,
        stores: Stores,
        client: RegistryClient,
        registry: str,
        threads: Executor,
        *,
        going_on: Callable[[], object] = lambda: None,
        recheck_s: float = RECHECK_S,
    ) -> None:
        self._catalogue = stores.catalogue
        self._checks = stores.checks
        self._client = client
        self._registry = registry
        self._threads = threads
        self._going_on = going_on
        self._recheck_s = recheck_s
        self._named = f"--registry {registry}"

    def check(self) -> tuple[Check, list[Difference]]:
        """Compare all and note it.

        Raises:
            RegistryError: the registry does not list what it has.
        """
        last = self._checks.get(self._registry)
        refusals = last.refusals if last else 0
        check = Check(registry=self._registry, started_at=present(), refusals=refusals)
        self._checks.put(check)
        found: list[Difference] = []
        repositories = tags = 0
        try:
            for repository in self._find_repositories():
                number, rows = self._compare(repository)
                found += rows
                repositories, tags = repositories + 1, tags + number
            if found:
                time.sleep(self._recheck_s)
                found = [row for row in self._threads.map(self._look_again, found) if row]
        except RegistryError as error:
            is_refused, message = error.error_class == "auth", str(error)
            if is_refused:
                message += f"; tried again ever later, by rns catalogue check {self._named} now"
            refusals = refusals + 1 if is_refused else 0
            self._checks.put(msgspec.structs.replace(check, message=message, refusals=refusals))
            raise
        counts: dict[str, int] = {}
        for row in found:
            counts[row.kind] = counts.get(row.kind, 0) + 1
        self._checks.set_differences(self._registry, found)
        check = msgspec.structs.replace(
            check,
            finished_at=present(),
            repositories=repositories,
            tags=tags,
            differences=counts,
            refusals=0,
        )
        self._checks.put(check)
        return check, found

    def repair(
        self, check: Check, rows: Sequence[Difference], apply: Apply, *, all_: bool
    ) -> Check:
        """Have the catalogue say what the registry does, as if that happened now.

        Where unusually many tags are gone, or all, they stay on record, unless `all_` is true: it
        may be that the registry cannot read its storage.
        """
        gone = sum(row.kind == "gone" for row in rows)
        known = check.tags + gone - sum(row.kind == "unheard" for row in rows)
        is_unusual = gone > max(MIN_GONE, MAX_GONE * known) or (gone > 0 and not check.tags)
        is_braked = is_unusual and not all_
        events = [event for row in rows if (event := self._event_of(row, is_braked=is_braked))]
        for start in range(0, len(events), REPAIRED_AT_ONCE):
            apply(events[start : start + REPAIRED_AT_ONCE])
        message = (
            f"{gone} of {known} tags are gone, as if the registry could not read its storage; they "
            f"stay on record until rns catalogue check {self._named} --repair --force"
        )
        check = msgspec.structs.replace(
            check, repaired=len(events), message=message if is_braked else check.message
        )
        self._checks.put(check)
        return check

    def _find_repositories(self) -> Iterator[str]:
        """Those of the registry, then those that are only on record."""
        known = self._catalogue.find_names(self._registry)
        listed: set[str] = set()
        for repository, _ in find_repositories(self._client, known=lambda: known):
            listed.add(repository)
            yield repository
        yield from (name for name in known if name not in listed)

    def _compare(self, repository: str) -> tuple[int, list[Difference]]:
        """How many tags the registry has there, and where it differs from the catalogue."""
        recorded = self._catalogue.find_digests(self._registry, repository)
        try:
            listed = self._client.tags(parse_repository(repository))
        except (InvalidReference, RegistryError) as error:
            if isinstance(error, RegistryError) and error.error_class in OF_ENDPOINT:
                raise
            row = Difference(repository=repository, tag="", kind="unknown", message=str(error))
            return 0, [row]
        tags = sorted({*listed, *recorded})
        rows = self._threads.map(
            lambda tag: self._compare_tag(repository, tag, recorded.get(tag)), tags
        )
        return len(listed), [row for row in rows if row]

    def _look_again(self, row: Difference) -> Difference | None:
        """A difference as it is now: the event may have been on its way."""
        if not row.tag:
            return row
        tag = self._catalogue.get_tag(self._registry, row.repository, row.tag, None)
        recorded = tag.digest or "" if tag and not tag.deleted else None
        return self._compare_tag(row.repository, row.tag, recorded)

    def _compare_tag(self, repository: str, tag: str, recorded: str | None) -> Difference | None:
        """`recorded` is None where there is no such tag, "" where nobody told its digest."""
        self._going_on()
        known = recorded or ""
        found: str | None
        try:
            found = self._client.head_manifest(repository, parse_tag(tag), known).digest
        except (InvalidReference, RegistryError) as error:
            if isinstance(error, RegistryError) and error.error_class in OF_ENDPOINT:
                raise
            if not isinstance(error, RegistryError) or error.error_class != "gone":
                return Difference(
                    repository=repository,
                    tag=tag,
                    kind="unknown",
                    recorded=known,
                    message=str(error),
                )
            found = None
        if found == recorded:
            return None
        kind: DifferenceKind = "gone" if not found else "moved" if known else "unheard"
        return Difference(
            repository=repository, tag=tag, kind=kind, recorded=known, found=found or ""
        )

    def _event_of(self, row: Difference, *, is_braked: bool) -> Event | None:
        """What must have happened; None where nobody knows, or a person has to look first."""
        if row.kind == "unknown" or (row.kind == "gone" and is_braked):
            return None
        # Before it is asked: what is pushed right after that wins.
        now = present()
        try:
            manifest = self._client.head_manifest(row.repository, row.tag)
        except RegistryError as error:
            if row.kind == "gone" and error.error_class == "gone":
                return make_delete(self._registry, row.repository, row.tag, now)
            logger.warning("%s:%s is not repaired: %s", row.repository, row.tag, error)
            return None
        return make_push(self._registry, row.repository, row.tag, manifest, now)
