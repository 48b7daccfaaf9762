"""Every tag of a registry that a plan takes, one repository after the other.

Events tell of what changes; a crawl finds what was there before, and what events did not tell.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from app.errors import InvalidReference
from app.migration.plan import Plan
from app.registry import OF_ENDPOINT, RegistryClient, RegistryError
from app.rules.references import parse_repository
from app.store.migrations import Run

logger = logging.getLogger(__name__)

SAVE_EVERY_S = 5.0  # well within a lease
MAX_PASSED_OVER = 100  # repositories that are named

Names = Callable[[], Iterable[str]]


def no_names() -> Iterable[str]:
    """Nothing is known of repositories from elsewhere."""
    return ()


def find_repositories(
    client: RegistryClient, last: str = "", known: Names = no_names
) -> Iterator[tuple[str, bool]]:
    """Every repository name after `last`, by the registry's catalogue: (name, False).

    Where the registry shows us none, the `known` names are taken in its place: (name, True).
    """
    try:
        for page in client.catalog(last):
            yield from ((name, False) for name in page)
    except RegistryError as error:
        if error.error_class not in ("unsupported", "forbidden", "auth", "gone"):
            raise
        names = sorted(set(known()))
        if not names:
            raise
        logger.warning("%s; known repositories are taken in its place", error)
        yield from ((name, True) for name in names if name > last)


class Crawler:
    """Crawls the source of one plan.

    `enqueue` is given a repository and its tags that the plan takes. `save` keeps how far the run
    is and answers False when another worker has it. `ranked` are repositories to begin with, the
    most important first, and the same whenever the run goes on; `known` are names for where the
    source shows no catalogue.
    """

    def __init__(
        self,
        plan: Plan,
        source: RegistryClient,
        enqueue: Callable[[str, Sequence[str]], None],
        save: Callable[[Run], bool],
        *,
        ranked: Names = no_names,
        known: Names = no_names,
    ) -> None:
        self._plan = plan
        self._source = source
        self._enqueue = enqueue
        self._save = save
        self._ranked = ranked
        self._known = known
        self._saved = 0.0  # time.monotonic()

    def crawl(self, run: Run) -> Run | None:
        """Go on with a run from its cursor to its end; None when it was lost on the way.

        Raises:
            RegistryError: the run is saved up to there.
        """
        first = [name for name in dict.fromkeys(self._ranked()) if self._plan.takes(name)]
        self._saved = time.monotonic()
        try:
            for repository in () if run.cursor else first[run.ranked_done :]:
                run = self._visit(run, repository)
                run = msgspec.structs.replace(run, ranked_done=run.ranked_done + 1)
                if not self._is_ours(run):
                    return None
            visited = set(first)
            found = find_repositories(self._source, run.cursor, self._known)
            for repository, is_from_events in found:
                if self._plan.takes(repository) and repository not in visited:
                    run = self._visit(run, repository)
                run = msgspec.structs.replace(
                    run,
                    cursor=repository,
                    names_from_events=run.names_from_events or is_from_events,
                )
                if not self._is_ours(run):
                    return None
            # Once more, as what ailed them may be over; an interruption here begins with the first.
            ended = msgspec.structs.replace(run, passed_over=[])
            for repository in run.passed_over:
                ended = self._visit(ended, repository)
        except RegistryError:
            self._save(run)
            raise
        return ended

    def _is_ours(self, run: Run) -> bool:
        """Save a run now and then; False when another worker has it."""
        if time.monotonic() - self._saved <= SAVE_EVERY_S:
            return True
        self._saved = time.monotonic()
        return self._save(run)

    def _visit(self, run: Run, repository: str) -> Run:
        try:
            tags = self._plan.tags.choose(self._source.tags(parse_repository(repository)))
        except InvalidReference as error:
            logger.warning("%s: %s", self._source.url, error)
            return run
        except RegistryError as error:
            if error.error_class in OF_ENDPOINT or error.error_class == "rate_limited":
                raise
            logger.warning("%s is passed over: %s", repository, error)
            passed_over = [*run.passed_over, repository][:MAX_PASSED_OVER]
            return msgspec.structs.replace(run, passed_over=passed_over)
        if not tags:
            return run
        self._enqueue(repository, tags)
        return msgspec.structs.replace(
            run, repositories=run.repositories + 1, tags=run.tags + len(tags)
        )
