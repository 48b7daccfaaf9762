"""What one process may send to the registries of a plan; the hooks of their clients."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

from app.migration.limits import Bucket, Width
from app.migration.plan import MB, Plan
from app.migration.sides import Sides, connect_source, connect_target
from app.registry import RegistryClient


class Aborted(Exception):
    """The worker ends; what is under way is handed back."""


class Traffic:
    """The target's limits, as one process keeps them; `abort` ends all requests.

    `stopping` is set when the process ends: nobody then waits for a registry that asks for a pause.
    """

    def __init__(self, plan: Plan, stopping: Event) -> None:
        self._plan = plan
        self._stopping = stopping
        self._width = Width(plan.limits.images)
        self._requests = Bucket(plan.limits.requests_per_s)
        self._bytes = Bucket(plan.limits.mb_per_s * MB)
        self._abort = Event()

    @property
    def jobs(self) -> int:
        """The number of jobs that may run now."""
        return self._width.jobs

    def connect(self, connect: Callable[..., RegistryClient]) -> Sides:
        """Clients of both registries that are held to this."""
        plan = self._plan
        source = connect_source(
            plan,
            connect,
            before_request=self._check_abort,
            after_request=self._note_status,
            wait=self._wait,
        )
        target = connect_target(
            plan,
            connect,
            before_request=self._pass_request,
            after_request=self._note_status,
            wait=self._wait,
        )
        return Sides(plan, source, target)

    def pass_bytes(self, size_bytes: int) -> None:
        """Wait until so many bytes may be sent to the target.

        Raises:
            Aborted: nothing is sent any more.
        """
        self._check_abort("")
        self._bytes.take(size_bytes)

    def share(self, workers: int) -> None:
        """Keep to this process's part of the limits."""
        limits = self._plan.limits
        self._requests.rate = limits.requests_per_s / max(1, workers)
        self._bytes.rate = limits.mb_per_s * MB / max(1, workers)

    def abort(self) -> None:
        """Let every request from now on raise Aborted."""
        self._abort.set()

    def _check_abort(self, method: str) -> None:
        if self._abort.is_set():
            raise Aborted

    def _pass_request(self, method: str) -> None:
        self._check_abort(method)
        self._requests.take()

    def _note_status(self, method: str, status: int) -> None:
        if status in (429, 503):
            self._width.narrow()

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Aborted
