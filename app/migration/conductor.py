"""What a plan does besides its jobs: crawl, verify, become live."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from threading import Event

import msgspec

from app.errors import AppError, IllegalState
from app.migration.crawler import Crawler
from app.migration.looking import look
from app.migration.ranking import find_digests, rank_repositories
from app.migration.sides import Sides
from app.migration.traffic import Aborted
from app.migration.verification import verify_plan
from app.migration.verifier import RECHECK_S, Extent
from app.registry import RegistryError
from app.rules.references import is_digest
from app.store import Stores
from app.store.migrations import BACKFILL, LEAST_SHARE, PlanStatus, Run, Wish, present

logger = logging.getLogger(__name__)

CONDUCT_S = 1.0  # between two looks at what is due
LOOK_EVERY = timedelta(seconds=10)
LOCKS_OUT = ("auth", "realm")  # who knocks again and again with a wrong password is locked out
RETRY_S = 10.0  # after a crawl or verification that failed


class Conductor:
    """Crawls and verifies one plan when that is due; any number of workers have one each.

    `status` gives the plan's status as it is now, `stop_plan` opens its breaker if the error is
    the registry's, `stopping` is set when the worker ends.
    """

    def __init__(
        self,
        stores: Stores,
        sides: Sides,
        owner: str,
        *,
        status: Callable[[], PlanStatus],
        stop_plan: Callable[[RegistryError], object],
        stopping: Event,
    ) -> None:
        self._stores = stores
        self._migrations = stores.migrations
        self._sides = sides
        self._plan = sides.plan
        self._owner = owner
        self._status = status
        self._stop_plan = stop_plan
        self._stopping = stopping
        self._run: Run | None = None
        self.failed: AppError | None = None  # why nothing goes on here, at the last try

    def beat(self, now: datetime) -> None:
        """Renew the lease of the crawl that is under way here."""
        run = self._run
        if run:
            self._migrations.runs.renew(run, self._owner, now)

    def conduct(self) -> None:
        """Crawl when it is due and move the plan on, until told to stop. Run by one thread."""
        while not self._stopping.is_set():
            pause = CONDUCT_S
            try:
                self.conduct_once()
                self.failed = None
            except RegistryError as error:
                logger.warning("plan %s: crawl or verification stops: %s", self._plan.name, error)
                self.failed = error if error.error_class != "rate_limited" else None
                self._stop_plan(error)
                pause = max(RETRY_S, error.retry_after or 0)
            except IllegalState as error:
                logger.warning("plan %s: the crawl waits: %s", self._plan.name, error)
                self.failed, pause = error, RETRY_S
            except AppError as error:
                logger.warning("plan %s: %s", self._plan.name, error)
            except Aborted:
                return
            except Exception:
                logger.exception("plan %s: crawl or verification failed", self._plan.name)
                pause = RETRY_S
            self._stopping.wait(pause)

    def conduct_once(self) -> None:
        """Do what is due now, if anything is."""
        status = self._status()
        if not status.is_worked_on:
            return
        self._look_if_due(status)
        last = self._migrations.runs.get(self._plan.name, "crawl")
        is_unfinished = last is not None and last.state == "running"
        if status.recrawl or is_unfinished:
            run = self._migrations.runs.begin(self._plan.name, "crawl", self._owner, present())
            if run:
                self._crawl(run, is_new=not is_unfinished)
        elif status.state == "backfill" and not self._migrations.jobs.has_open(
            self._plan.name, BACKFILL
        ):
            # A crawl that ended meanwhile has put its jobs there before it was over.
            fresh = self._status()
            crawl = self._migrations.runs.get(self._plan.name, "crawl")
            if fresh.recrawl or crawl is None or crawl.state != "done":
                return
            now = present()
            if self._migrations.plans.set_state(
                self._plan.name, "live", "worker", now, before=["backfill"]
            ):
                logger.info("plan %s: everything that was there is over", self._plan.name)
        elif last and self._is_verification_due(status, last):
            self._verify()

    def _look_if_due(self, status: PlanStatus) -> None:
        """Ask both registries whether they answer, as somebody may want to cut over any time."""
        if status.look and present() - status.look.at < LOOK_EVERY:
            return
        for error in look(self._migrations, self._sides):
            if error.error_class in LOCKS_OUT:
                self._stop_plan(error)

    def _is_stopped(self) -> bool:
        """Whether a crawl or verification is to end; asked all the time while one is under way."""
        if not self._stopping.is_set():
            self._look_if_due(self._status())
        return self._stopping.is_set()

    def _is_verification_due(self, status: PlanStatus, crawl: Run) -> bool:
        """Whether a person wants one, or there was none for `options.verify_every`, nor a crawl."""
        if status.state not in ("live", "frozen"):
            return False
        every = self._plan.verify_every
        last = self._migrations.runs.get(self._plan.name, "verify")
        before = max(run.finished_at or run.started_at for run in (crawl, last) if run)
        return status.verify_wanted or (bool(every) and present() - before >= every)

    def _verify(self) -> None:
        self._migrations.plans.clear_verify(self._plan.name)
        logger.info("plan %s: the verification begins", self._plan.name)
        rows = verify_plan(
            self._stores,
            self._sides,
            self._owner,
            extent=Extent(recheck_s=RECHECK_S),
            is_stopped=self._is_stopped,
        )
        if rows is not None:
            logger.info("plan %s: the verification found %d", self._plan.name, len(rows))

    def _crawl(self, run: Run, *, is_new: bool) -> None:
        if is_new:
            run = msgspec.structs.replace(run, why=self._status().recrawl_why)
            self._migrations.plans.clear_recrawl(self._plan.name)
        logger.info("plan %s: the crawl begins after %r", self._plan.name, run.cursor)
        crawler = Crawler(
            self._plan,
            self._sides.source,
            self._enqueue,
            self._save_run,
            ranked=lambda: self._rank(is_new=is_new),
            known=lambda: self._stores.catalogue.find_names(self._plan.registry),
        )
        self._run = msgspec.structs.replace(run, message="")
        why = ""
        try:
            ended = crawler.crawl(self._run)
            if ended:
                self._end_crawl(ended)
        except (RegistryError, IllegalState) as error:
            why = str(error)
            raise
        finally:
            self._run = None
            self._migrations.runs.release(run, self._owner, present(), why)

    def _end_crawl(self, ended: Run) -> None:
        if ended.tags < LEAST_SHARE * ended.tags_before and self._plan.deletes != "off":
            why = f"a crawl saw {ended.tags} tags, the one before it {ended.tags_before}"
            self._migrations.plans.brake_deletes(self._plan.name, why, present())
        self._enqueue_untagged()
        self._wish_for_unlisted(ended)
        self._migrations.runs.end(ended, self._owner, present())
        logger.info(
            "plan %s: the crawl saw %d tags in %d repositories",
            self._plan.name,
            ended.tags,
            ended.repositories,
        )

    def _wish_for_unlisted(self, run: Run) -> None:
        """Have looked at what we copied once and a crawl did not find: it may have been deleted."""
        if self._plan.deletes == "off":
            return
        unlisted = self._migrations.jobs.find_unwanted_since(self._plan.name, run.started_at)
        with_digests = self._plan.deletes == "tags_and_digests"
        wishes = [wish for wish in unlisted if with_digests or not is_digest(wish.reference)]
        self._migrations.jobs.wish(wishes, present())

    def _rank(self, *, is_new: bool) -> list[str]:
        """What a crawl begins with; the same list when it goes on after an interruption."""
        if is_new:
            ranked = rank_repositories(self._stores, self._plan.registry, present())
            self._migrations.runs.set_ranking(self._plan.name, ranked)
        return self._migrations.runs.get_ranking(self._plan.name)

    def _enqueue_untagged(self) -> None:
        """Have the digests looked at that only our events know."""
        now = present()
        known = find_digests(self._stores, self._plan.registry, self._plan.options, now)
        for repository, digests in known.items():
            if self._plan.takes(repository):
                self._enqueue(repository, sorted(digests))

    def _save_run(self, run: Run) -> bool:
        self._run = run
        return self._migrations.runs.save(run, self._owner, present()) and not self._is_stopped()

    def _enqueue(self, repository: str, references: Sequence[str]) -> None:
        wishes = [Wish(self._plan.name, repository, name, BACKFILL) for name in references]
        self._migrations.jobs.wish(wishes, present())
