"""The process that carries out jobs: any number of them work on the same plans.

One dispatcher thread for each plan claims jobs and gives them to threads; one more crawls and
verifies (app.migration.conductor). The lease of every running job is renewed as long as this
process lives. A plan whose endpoint fails again and again is left alone, with a try now and then,
so that an outage uses up no attempts.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import socket
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from app.errors import AppError, InvalidReference, StoreUnavailable
from app.migration.conductor import Aborted, Conductor
from app.migration.copier import Copier, Later, LeaseLost, Surroundings, Synced
from app.migration.limits import Bucket, Width
from app.migration.plan import MB, Plan
from app.registry import OF_ENDPOINT, BlobCopier, RegistryClient, RegistryError
from app.store import Stores
from app.store.migrations import (
    BACKFILL,
    LEASE,
    LIVE,
    WORKED,
    Breaker,
    Job,
    Outcome,
    PlanStatus,
    Wish,
    WorkerBeat,
    present,
)
from app.version import VERSION

logger = logging.getLogger(__name__)

IDLE_S = 0.2  # between two looks into an empty queue
BEAT_S = LEASE.total_seconds() / 3
EXPIRED_EVERY_S = 5.0  # between two looks for jobs of workers that went silent
STATUS_S = 1.0  # for which the status of a plan is remembered
GRACE_S = 20.0  # for running jobs to end after SIGTERM
RESERVED = 5  # one claim in so many goes to the backfill first, which pushes would starve else

FIRST_DELAY_S, LONGEST_DELAY_S = 2.0, 900.0
BREAKER_FAILURES = 5  # in a row
FIRST_PROBE_S, LONGEST_PROBE_S = 2.0, 8.0
MISMATCH_ATTEMPTS = 2
BRAKE_WINDOW = timedelta(minutes=10)
BRAKE_LEAST, BRAKE_SHARE = 20, 0.05  # deletes in the window, and as a share of all jobs done
MAX_MESSAGE_LENGTH = 500

# What no repetition changes: a person has to.
CONFLICTS = {"unsupported", "immutable", "too_large"}

# A registry that ails from these answers to reads all the same: only a write shows that it is over.
OF_WRITES = {"readonly", "disk_full"}
WRITTEN = {"copied", "deleted"}


def retry_delay_s(attempts: int, retry_after: float | None = None) -> float:
    """Seconds until another attempt: what the registry asks for, else longer and longer."""
    if retry_after is not None:
        return retry_after
    longest = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**attempts)
    return random.uniform(0, longest)  # noqa: S311 - spreads load, guards nothing


def state_after(error_class: str, attempts: int, max_attempts: int) -> str:
    """What becomes of a job after an error: `conflict`, `dead`, or `pending` for another try."""
    if error_class in CONFLICTS:
        return "conflict"
    most = MISMATCH_ATTEMPTS if error_class == "digest_mismatch" else max_attempts
    if error_class == "forbidden" or attempts >= most:
        return "dead"
    return "pending"


def shows_over(error_class: str, result: str) -> bool:
    """Whether a job with this result shows that its registries do not fail like this any more.

    The result of a job that failed for a reason of its own is empty.
    """
    return result in WRITTEN or error_class not in OF_WRITES


class PlanWorker:
    """Work on one plan in this process."""

    def __init__(
        self,
        stores: Stores,
        plan: Plan,
        owner: str,
        *,
        connect: Callable[..., RegistryClient] = RegistryClient,
    ) -> None:
        self.plan = plan
        self._stores = stores
        self._queue = stores.migrations
        self._owner = owner
        limits = plan.limits
        self._width = Width(limits.images)
        self._requests = Bucket(limits.requests_per_s)
        self._bytes = Bucket(limits.mb_per_s * MB)
        self._abort = threading.Event()
        self.stopping = threading.Event()
        self._source = connect(plan.source, before_request=self._check_abort)
        self._target = connect(
            plan.target, before_request=self._pass_request, after_request=self._note_status
        )
        self._threads = ThreadPoolExecutor(limits.blobs, "blob")
        surroundings = Surroundings(
            holds=lambda job, putting: self._queue.renew(job, present(), putting),
            status=lambda: self.status(fresh=True),
            may_delete=self._may_delete,
            refuses_deletes=lambda: self._queue.set_cannot_delete(plan.name),
            find_blobs=lambda digests: self._queue.find_blob_repositories(
                self._target.url, digests
            ),
            add_blobs=lambda digests, repository: self._queue.add_blobs(
                self._target.url, digests, repository, present()
            ),
        )
        self.conductor = Conductor(
            stores,
            plan,
            owner,
            self._source,
            self._target,
            status=lambda: self.status(fresh=True),
            stop_plan=lambda error: self._note_failure(error, weight=BREAKER_FAILURES),
            stopping=self.stopping,
        )
        self._copier = Copier(
            plan,
            self._source,
            self._target,
            BlobCopier(self._target, self._pass_bytes),
            self._threads,
            surroundings,
        )
        self.running: dict[str, Job] = {}
        self._failures: Counter[tuple[str, str]] = Counter()  # in a row, by registry and class
        self._due: dict[int, deque[Job]] = {LIVE: deque(), BACKFILL: deque()}  # to be claimed
        self._looked_for_pushes = 0.0
        self._turns = itertools.count(1)
        self._status: tuple[float, PlanStatus] = (0.0, PlanStatus(name=plan.name))
        self._looked_for_expired = 0.0
        self._lock = threading.Lock()
        self.done = 0  # jobs that this process ended

    def close(self) -> None:
        """Close the connections; the jobs must have ended."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._source.close()
        self._target.close()

    # Hooks of the registry clients

    def _check_abort(self, method: str) -> None:
        if self._abort.is_set():
            raise Aborted

    def _pass_request(self, method: str) -> None:
        self._check_abort(method)
        self._requests.take()

    def _pass_bytes(self, size_bytes: int) -> None:
        self._check_abort("")
        self._bytes.take(size_bytes)

    def _note_status(self, method: str, status: int) -> None:
        if status == 429:
            self._width.narrow()

    def share_limits(self, workers: int) -> None:
        """Take this process's part of the target's limits."""
        limits = self.plan.limits
        self._requests.rate = limits.requests_per_s / max(1, workers)
        self._bytes.rate = limits.mb_per_s * MB / max(1, workers)

    # Jobs

    def dispatch(self) -> None:
        """Claim jobs and begin them, until told to stop. Run by one thread."""
        while not self.stopping.is_set():
            try:
                begun = self.dispatch_one()
            except AppError as error:
                logger.warning("plan %s: %s", self.plan.name, error)
                begun = False
            except Exception:  # whatever it is, the jobs of the others must go on
                logger.exception("plan %s", self.plan.name)
                begun = False
            if not begun:
                self.stopping.wait(IDLE_S)

    def dispatch_one(self) -> bool:
        """Begin a job, or see whether a plan that waits may go on; False if nothing is to do."""
        status = self.status()
        if status.state not in WORKED:
            return False
        if status.breaker:
            return self._probe(status, status.breaker)
        if not status.is_worked_on:
            return False
        if len(self.running) >= self._width.jobs:
            self.stopping.wait(0.01)
            return True
        job = self._claim()
        if job is None:
            return False
        self.running[job.id] = job
        thread = threading.Thread(target=self._carry_out, args=(job,), name=job.id, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there are too many: the next look into the queue tries again
            del self.running[job.id]
            self._queue.postpone(job, present(), counts=False)
            raise
        return True

    def run_one(self) -> bool:
        """Claim a job and run it in this thread; False when none is due."""
        job = self._claim()
        if job is None:
            return False
        self.running[job.id] = job
        self._carry_out(job)
        return True

    def status(self, fresh: bool = False) -> PlanStatus:
        """The plan's status as of a second ago at most."""
        read_at, status = self._status
        if fresh or time.monotonic() - read_at > STATUS_S:
            status = self._queue.get_plan(self.plan.name)
            self._status = (time.monotonic(), status)
        return status

    def _claim(self) -> Job | None:
        now = present()
        if time.monotonic() - self._looked_for_expired > EXPIRED_EVERY_S:
            job = self._queue.claim_expired(self.plan.name, self._owner, now)
            if job and job.attempts > self.plan.options.max_attempts:
                self._end_failed(job, "dead", "bug", "every worker that began it died")
            elif job:
                return job
            self._looked_for_expired = time.monotonic()
        is_reserved = next(self._turns) % RESERVED == 0
        if self._due[BACKFILL] and not self._due[LIVE]:  # a look for each job of a backfill is dear
            is_reserved |= time.monotonic() - self._looked_for_pushes < IDLE_S
        for priority in (BACKFILL, LIVE) if is_reserved else (LIVE, BACKFILL):
            job = self._claim_of(priority, now)
            if job:
                return job
        return None

    def _claim_of(self, priority: int, now: datetime) -> Job | None:
        due = self._due[priority]
        for is_fresh in (False, True):  # what was seen before may be gone by now
            if is_fresh:
                if priority == LIVE:
                    self._looked_for_pushes = time.monotonic()
                due.extend(self._queue.find_due(self.plan.name, priority, now))
            while due:
                job = self._queue.claim(due.popleft(), self._owner, now)
                if job:
                    return job
        return None

    def _carry_out(self, job: Job) -> str | None:
        """Run one job to its end, whatever that is.

        Returns its result, empty if it has none, or None when an endpoint is at fault.
        """
        try:
            return self._attempt(job)
        except (LeaseLost, Aborted):
            return ""
        except StoreUnavailable as error:
            logger.warning("%s: %s; its lease runs out", job.id, error)
            return ""
        finally:
            self.running.pop(job.id, None)

    def _attempt(self, job: Job) -> str | None:
        try:
            synced = self._copier.sync(job)
        except Later as later:
            self._postpone(
                job, later.seconds, later.reason, str(later), counts=False, gone_at=later.gone_at
            )
            return ""
        except (LeaseLost, Aborted, StoreUnavailable):
            raise
        except RegistryError as error:
            return None if self._fail(job, error) else ""
        except InvalidReference as error:
            self._end_failed(job, "conflict", "unsupported", str(error))
            return ""
        except Exception as error:
            logger.exception("%s failed", job.id)
            self._fail_once(job, "bug", f"{type(error).__name__}: {error}", None)
            return ""
        result = synced.outcome.result
        for key in list(self._failures):
            if shows_over(key[1], result):
                self._failures.pop(key, None)  # or another thread was faster
        self._end(job, synced)
        return result

    def _end(self, job: Job, synced: Synced) -> None:
        if synced.next:
            wishes = [
                Wish(self.plan.name, job.repository, reference, job.priority)
                for reference in synced.next
            ]
            self._queue.wish(wishes, present())
        if self._queue.finish(job, synced.outcome, present(), self.plan.debounce):
            self.done += 1
            logger.info("%s: %s %s", job.id, synced.outcome.result, synced.outcome.source_digest)

    def _fail(self, job: Job, error: RegistryError) -> bool:
        """Decide about a job that a registry's error ended; whether the endpoint is at fault."""
        is_of_endpoint = self._note_failure(error)
        if is_of_endpoint and self.status(fresh=True).breaker:
            self._postpone(job, 0, error.error_class, str(error), counts=False)
        else:
            self._fail_once(job, error.error_class, str(error), error.retry_after)
        return is_of_endpoint

    def _fail_once(
        self, job: Job, error_class: str, message: str, retry_after: float | None
    ) -> None:
        state = state_after(error_class, job.attempts, self.plan.options.max_attempts)
        if state == "pending":
            delay = retry_delay_s(job.attempts, retry_after)
            self._postpone(job, delay, error_class, message, counts=True)
        else:
            self._end_failed(job, state, error_class, message)

    def _postpone(
        self,
        job: Job,
        seconds: float,
        error_class: str,
        message: str,
        *,
        counts: bool,
        gone_at: datetime | None = None,
    ) -> None:
        due = present() + timedelta(seconds=seconds)
        shown = message[:MAX_MESSAGE_LENGTH]
        self._queue.postpone(job, due, error_class, shown, counts=counts, gone_at=gone_at)
        logger.info("%s: %s; again in %.0f s", job.id, shown, seconds)

    def _end_failed(self, job: Job, state: str, error_class: str, message: str) -> None:
        outcome = Outcome(
            state="conflict" if state == "conflict" else "dead",
            source_digest=job.source_digest,
            target_digest=job.target_digest,
            target_repository=job.target_repository,
            error_class=error_class,
            error=message[:MAX_MESSAGE_LENGTH],
        )
        self._queue.finish(job, outcome, present())
        self.done += 1
        logger.warning("%s: %s: %s", job.id, state, message)

    # The breaker

    def _note_failure(self, error: RegistryError, weight: int = 1) -> bool:
        """Count an error of an endpoint, and open the breaker at the fifth in a row."""
        if error.error_class not in OF_ENDPOINT:
            return False
        key = (error.registry, error.error_class)
        self._failures[key] += weight
        if self._failures[key] >= BREAKER_FAILURES:
            now = present()
            breaker = Breaker(
                registry=error.registry,
                error_class=error.error_class,
                message=str(error)[:MAX_MESSAGE_LENGTH],
                since=now,
                probe_at=now + timedelta(seconds=FIRST_PROBE_S),
            )
            if self._queue.open_breaker(self.plan.name, breaker):
                logger.error("plan %s waits: %s", self.plan.name, error)
        return True

    def _probe(self, status: PlanStatus, breaker: Breaker) -> bool:
        """Try with one request and some job whether the endpoint works again."""
        now = present()
        delay = min(LONGEST_PROBE_S, FIRST_PROBE_S * 2 ** min(breaker.probes, 10))
        next_at = now + timedelta(seconds=delay)
        if breaker.probe_at > now or status.paused:
            return False
        if not self._queue.claim_probe(self.plan.name, now, next_at):
            self.status(fresh=True)
            return False
        try:
            for client in (self._source, self._target):
                client.ping()
        except (RegistryError, Aborted):
            self.status(fresh=True)
            return False
        if not self._try_jobs(breaker.error_class):
            self.status(fresh=True)
            return False
        self._failures.clear()
        self._queue.close_breaker(self.plan.name)
        self.status(fresh=True)
        logger.warning("plan %s goes on: %s answers", self.plan.name, breaker.registry)
        return True

    def _try_jobs(self, error_class: str) -> bool:
        """Run jobs one by one until one shows that the endpoint works, or does not."""
        while not self.stopping.is_set():
            status = self.status(fresh=True)
            if status.state not in WORKED or status.paused or not status.breaker:
                return False  # a person was faster
            job = self._claim()
            if job is None:  # none is due: what answered is enough, unless a write has to tell
                return error_class not in OF_WRITES or not any(
                    error_class in self._queue.count_errors(self.plan.name, state)
                    for state in ("running", "pending")
                )
            self.running[job.id] = job
            result = self._carry_out(job)
            if result is None or shows_over(error_class, result):
                return result is not None
        return False

    # Deletes

    def _may_delete(self) -> bool:
        """Whether one more delete is no sign of something going wrong."""
        with self._lock:
            status = self.status(fresh=True)
            if status.deletes_allowed:
                return self._queue.take_delete(self.plan.name)
            if status.deletes_braked:
                return False
            since = present() - BRAKE_WINDOW
            deleted = self._queue.count_deleted_since(
                self.plan.name, max(since, status.brake_lifted_at or since)
            )
            if deleted < BRAKE_LEAST:
                return True
            if deleted < BRAKE_SHARE * self._queue.count_done(self.plan.name):
                return True
            why = f"{deleted} deletes within {BRAKE_WINDOW.seconds // 60} minutes"
            self._queue.brake_deletes(self.plan.name, why, present())
            logger.error("plan %s: deletes are braked: %s", self.plan.name, why)
            return False

    # The process around it

    def beat(self) -> None:
        """Renew the leases of all that runs here."""
        now = present()
        for job in list(self.running.values()):
            self._queue.renew(job, now)
        self.conductor.beat(now)

    def hand_back(self) -> None:
        """Give up what still runs: another worker begins it at once."""
        self._abort.set()
        for job in list(self.running.values()):
            self._queue.postpone(job, present(), counts=False)


class Worker:
    """All plans of one process."""

    def __init__(self, stores: Stores, plans: Iterable[Plan]) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._queue = stores.migrations
        self.plans = [PlanWorker(stores, plan, self.name) for plan in plans]
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to work, in threads of this process."""
        for plan in self.plans:
            for work in (plan.dispatch, plan.conductor.conduct):
                self._threads.append(threading.Thread(target=work, daemon=True))
        self._threads.append(threading.Thread(target=self._beat, daemon=True))
        for thread in self._threads:
            thread.start()

    def _beat(self) -> None:
        while not self._stopped.is_set():
            try:
                self._beat_once()
            except AppError as error:
                logger.warning("%s", error)
            except Exception:  # a worker that is silent loses its jobs
                logger.exception("no sign of life")
            self._stopped.wait(BEAT_S)

    def _beat_once(self) -> None:
        now = present()
        beat = WorkerBeat(
            name=self.name,
            plans=[plan.plan.name for plan in self.plans],
            running=sum(len(plan.running) for plan in self.plans),
            version=VERSION,
            beat=now,
        )
        self._queue.beat(beat)
        workers = self._queue.find_workers(now)
        for plan in self.plans:
            plan.share_limits(sum(plan.plan.name in worker.plans for worker in workers))
            plan.beat()

    def stop(self) -> bool:
        """End: begin nothing more, wait a while for what runs, and hand back what is left.

        False when a thread is still in the middle of a request; ending the process ends it.
        """
        for plan in self.plans:
            plan.stopping.set()
        is_idle = wait_until(lambda: not any(plan.running for plan in self.plans), GRACE_S)
        try:
            for plan in self.plans:
                plan.hand_back()
            self._queue.leave(self.name)
        except StoreUnavailable as error:
            logger.warning("%s; what runs here is begun anew when its lease runs out", error)
        self._stopped.set()
        if not is_idle:
            is_idle = wait_until(lambda: not any(plan.running for plan in self.plans), 2)
        if is_idle:
            for plan in self.plans:
                plan.close()
        return is_idle


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether a condition comes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
