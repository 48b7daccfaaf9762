"""The process that carries out jobs: any number of them work on the same plans.

One dispatcher thread for each plan claims jobs and gives them to threads; one more crawls and
verifies (app.migration.conductor). The lease of every running job is renewed as long as this
process lives. A plan whose endpoint fails again and again is left alone, with a try now and then,
so that an outage uses up no attempts.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial

from app.errors import AppError, InvalidReference, StoreUnavailable
from app.migration.brake import Brake
from app.migration.claims import IDLE_S, Claims
from app.migration.conductor import Conductor
from app.migration.copier import Copier, Later, LeaseLost, Surroundings, Synced
from app.migration.failures import (
    BREAKER_FAILURES,
    MAX_MESSAGE_LENGTH,
    OF_WRITES,
    Failures,
    probe_delay_s,
    retry_delay_s,
    shows_over,
    state_after,
)
from app.migration.plan import Plan
from app.migration.traffic import Aborted, Traffic
from app.registry import BlobCopier, RegistryClient, RegistryError
from app.store import Stores
from app.store.migrations import (
    BACKFILL,
    LEASE,
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

BEAT_S = LEASE.total_seconds() / 3
STATUS_S = 1.0  # for which the status of a plan is remembered
SILENT_S = 6.0  # until a registry that does not answer is asked whether it is there at all
GRACE_S = 20.0  # for running jobs to end after SIGTERM
ABORTED_S = 2.0  # for what is told to end in the middle of a request


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
        self._migrations = stores.migrations
        self._jobs = stores.migrations.jobs
        self._status: tuple[float, PlanStatus] = (0.0, PlanStatus(name=plan.name))
        self.stopping = threading.Event()
        self.running: dict[str, Job] = {}
        self.done = 0  # jobs that this process ended
        self._pinged = 0.0  # time.monotonic(), a registry that does not answer
        fresh_status = partial(self.status, fresh=True)
        self._claims = Claims(self._jobs, plan, owner, self._give_up)
        self._failures = Failures(self._migrations.plans, plan.name)
        self._brake = Brake(self._migrations, plan.name, fresh_status)
        self.traffic = Traffic(plan, self.stopping)
        self._sides = self.traffic.connect(connect)
        self._threads = ThreadPoolExecutor(plan.limits.blobs, "blob")
        self._copier = Copier(
            self._sides,
            BlobCopier(self._sides.target, self.traffic.pass_bytes),
            self._threads,
            self._surroundings(),
        )
        self.conductor = Conductor(
            stores,
            self._sides,
            owner,
            status=fresh_status,
            stop_plan=partial(self._failures.note, weight=BREAKER_FAILURES),
            stopping=self.stopping,
        )

    def _surroundings(self) -> Surroundings:
        plans, blobs, url = self._migrations.plans, self._migrations.blobs, self._sides.target.url
        return Surroundings(
            holds=lambda job, putting: self._jobs.renew(job, present(), putting),
            status=partial(self.status, fresh=True),
            may_delete=self._brake.may_delete,
            refuses_deletes=partial(plans.set_cannot_delete, self.plan.name),
            find_blobs=partial(blobs.find_repositories, url),
            add_blobs=lambda digests, repository: blobs.add(url, digests, repository, present()),
            find_lists=partial(self._jobs.find_lists, self.plan.name),
            note_list=self._note_list,
        )

    def _note_list(self, repository: str, tag: str, digest: str) -> None:
        wish = Wish(self.plan.name, repository, tag, BACKFILL)
        self._jobs.note_list(wish, digest, self.plan.map(repository), present())

    def close(self) -> None:
        """Close the connections; the jobs must have ended."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients:
            client.close()

    # Jobs

    def dispatch(self) -> None:
        """Claim jobs and begin them, until told to stop. Run by one thread."""
        while not self.stopping.is_set():
            try:
                self.look_for_silence()
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
        if not status.is_worked_on or any(side.pause_s for side in self._clients):
            return False
        if len(self.running) >= self.traffic.jobs:
            self.stopping.wait(0.01)
            return True
        job = self._claims.claim()
        if job is None:
            return False
        self.running[job.id] = job
        thread = threading.Thread(target=self._carry_out, args=(job,), name=job.id, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there are too many: the next look into the queue tries again
            del self.running[job.id]
            self._jobs.postpone(job, present(), counts=False)
            raise
        return True

    def look_for_silence(self) -> None:
        """Stop the plan when a registry lets requests wait and does not answer a small one either.

        Long before these requests time out: a slow answer may be a long list.
        """
        silent = [client for client in self._clients if client.silence_s > SILENT_S]
        now = time.monotonic()
        if not silent or now - self._pinged < SILENT_S or not self.status().is_worked_on:
            return
        self._pinged = now
        for client in silent:
            try:
                client.ping()
            except RegistryError as error:
                self._failures.note(error, weight=BREAKER_FAILURES)
                self.status(fresh=True)

    @property
    def trouble(self) -> str:
        """What keeps requests waiting just now, for people; "" while nothing does."""
        return "; ".join(filter(None, (client.trouble for client in self._clients)))

    @property
    def _clients(self) -> tuple[RegistryClient, RegistryClient]:
        return self._sides.source, self._sides.target

    def run_one(self) -> bool:
        """Claim a job and run it in this thread; False when none is due."""
        job = self._claims.claim()
        if job is None:
            return False
        self.running[job.id] = job
        self._carry_out(job)
        return True

    def status(self, fresh: bool = False) -> PlanStatus:
        """The plan's status as of a second ago at most."""
        read_at, status = self._status
        if fresh or time.monotonic() - read_at > STATUS_S:
            status = self._migrations.plans.get(self.plan.name)
            self._status = (time.monotonic(), status)
        return status

    def _carry_out(self, job: Job) -> str | None:
        """Run one job to its end, whatever that is.

        Returns its result, empty if it has none, or None when an endpoint is at fault.
        """
        try:
            return self._attempt(job)
        except LeaseLost:
            return ""
        except Aborted:
            with contextlib.suppress(StoreUnavailable):  # then its lease runs out
                self._jobs.postpone(job, present(), counts=False)
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
        self._failures.note_result(result)
        self._end(job, synced)
        return result

    def _end(self, job: Job, synced: Synced) -> None:
        if synced.next:
            wishes = [
                Wish(self.plan.name, job.repository, reference, job.priority)
                for reference in synced.next
            ]
            self._jobs.wish(wishes, present())
        if self._jobs.finish(job, synced.outcome, present(), self.plan.debounce):
            self.done += 1
            logger.info("%s: %s %s", job.id, synced.outcome.result, synced.outcome.source_digest)

    def _fail(self, job: Job, error: RegistryError) -> bool:
        """Decide about a job that a registry's error ended; whether the endpoint is at fault."""
        is_of_endpoint = self._failures.note(error)
        if is_of_endpoint and self.status(fresh=True).breaker:
            self._postpone(job, 0, error.error_class, str(error), counts=False)
        elif error.error_class == "rate_limited":
            delay = max(error.retry_after or 0, retry_delay_s(0))
            self._postpone(job, delay, error.error_class, str(error), counts=False)
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
        self._jobs.postpone(job, due, error_class, shown, counts=counts, gone_at=gone_at)
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
        self._jobs.finish(job, outcome, present())
        self.done += 1
        logger.warning("%s: %s: %s", job.id, state, message)

    def _give_up(self, job: Job) -> None:
        self._end_failed(job, "dead", "bug", "every worker that began it died")

    # The breaker

    def _probe(self, status: PlanStatus, breaker: Breaker) -> bool:
        """Try with one request and some job whether the endpoint works again."""
        now = present()
        delay_s = probe_delay_s(breaker.probes + 1, breaker.error_class)
        next_at = now + timedelta(seconds=delay_s)
        if breaker.probe_at > now or status.paused:
            return False
        if not self._migrations.plans.claim_probe(self.plan.name, now, next_at):
            self.status(fresh=True)
            return False
        try:
            for client in self._clients:
                client.ping()
        except (RegistryError, Aborted):
            self.status(fresh=True)
            return False
        if not self._try_jobs(breaker.error_class):
            self.status(fresh=True)
            return False
        self._failures.clear()
        self._migrations.plans.close_breaker(self.plan.name)
        self.status(fresh=True)
        logger.warning("plan %s goes on: %s answers", self.plan.name, breaker.registry)
        return True

    def _try_jobs(self, error_class: str) -> bool:
        """Run jobs one by one until one shows that the endpoint works, or does not."""
        while not self.stopping.is_set():
            status = self.status(fresh=True)
            if status.state not in WORKED or status.paused or not status.breaker:
                return False  # a person was faster
            job = self._claims.claim()
            if job is None:  # none is due: what answered is enough, unless a write has to tell
                return error_class not in OF_WRITES or not any(
                    error_class in self._jobs.count_errors(self.plan.name, state)
                    for state in ("running", "pending")
                )
            self.running[job.id] = job
            result = self._carry_out(job)
            if result is None or shows_over(error_class, result):
                return result is not None
        return False

    # The process around it

    def beat(self) -> None:
        """Renew the leases of all that runs here."""
        now = present()
        for job in list(self.running.values()):
            self._jobs.renew(job, now)
        self.conductor.beat(now)

    def hand_back(self) -> None:
        """Give up what still runs: another worker begins it at once."""
        self.traffic.abort()
        for job in list(self.running.values()):
            self._jobs.postpone(job, present(), counts=False)


class Worker:
    """All plans of one process."""

    def __init__(self, stores: Stores, plans: Iterable[Plan]) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._migrations = stores.migrations
        self._workers = stores.migrations.workers
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
        self._migrations.follow_clock()
        now = present()
        beat = WorkerBeat(
            name=self.name,
            plans=[plan.plan.name for plan in self.plans],
            running=sum(len(plan.running) for plan in self.plans),
            version=VERSION,
            beat=now,
            troubles={plan.plan.name: plan.trouble for plan in self.plans if plan.trouble},
        )
        self._workers.beat(beat)
        workers = self._workers.find(now)
        for plan in self.plans:
            plan.traffic.share(sum(plan.plan.name in worker.plans for worker in workers))
            plan.beat()

    def stop(self, grace_s: float | None = None) -> bool:
        """End: begin nothing more, wait a while for what runs, and hand back what is left.

        False when a thread is still in the middle of a request; ending the process ends it.
        """
        grace = GRACE_S if grace_s is None else grace_s
        for plan in self.plans:
            plan.stopping.set()
        is_idle = wait_until(lambda: not any(plan.running for plan in self.plans), grace)
        try:
            for plan in self.plans:
                plan.hand_back()
            self._workers.leave(self.name)
        except StoreUnavailable as error:
            logger.warning("%s; what runs here is begun anew when its lease runs out", error)
        self._stopped.set()
        if not is_idle:
            is_idle = wait_until(lambda: not any(plan.running for plan in self.plans), ABORTED_S)
        # Else they find connections closed that are not theirs to close.
        wait_until(lambda: not any(thread.is_alive() for thread in self._threads), ABORTED_S)
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
