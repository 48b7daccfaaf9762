"""What becomes of a job that failed, and when it is the whole endpoint that fails."""

from __future__ import annotations

import logging
import random
from collections import Counter
from datetime import timedelta

from app.registry import OF_ENDPOINT, RegistryError
from app.store.migrations import Breaker, PlanStore, present

logger = logging.getLogger(__name__)

FIRST_DELAY_S, LONGEST_DELAY_S = 2.0, 900.0
BREAKER_FAILURES = 5  # in a row
FIRST_PROBE_S, LONGEST_PROBE_S = 2.0, 8.0
FIRST_SIGN_IN_S, LONGEST_SIGN_IN_S = 300.0, 6 * 3600.0  # after a password that was refused
MISMATCH_ATTEMPTS = 2
MAX_MESSAGE_LENGTH = 500

# What no repetition changes: a person has to.
CONFLICTS = {"unsupported", "immutable", "too_large"}

# What the next request meets too, and a refused password may not be tried again and again.
AT_ONCE = {"auth", "realm", "tls"}

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


def probe_delay_s(probes: int, error_class: str = "down") -> float:
    """Seconds until an endpoint is tried again that was so many times."""
    if error_class == "auth":
        return min(LONGEST_SIGN_IN_S, FIRST_SIGN_IN_S * 2.0 ** min(probes, 10))
    return min(LONGEST_PROBE_S, FIRST_PROBE_S * 2.0 ** min(probes, 10))


class Failures:
    """The errors of a plan's endpoints, in a row; the fifth opens the plan's breaker.

    One is enough where the next request would meet the same (AT_ONCE).
    """

    def __init__(self, plans: PlanStore, plan: str) -> None:
        self._plans = plans
        self._plan = plan
        self._in_a_row: Counter[tuple[str, str]] = Counter()  # by registry and class

    def note(self, error: RegistryError, weight: int = 1) -> bool:
        """Count an error; whether it is one of the endpoint."""
        if error.error_class not in OF_ENDPOINT:
            return False
        key = (error.registry, error.error_class)
        self._in_a_row[key] += weight
        if self._in_a_row[key] >= BREAKER_FAILURES or error.error_class in AT_ONCE:
            now = present()
            breaker = Breaker(
                registry=error.registry,
                error_class=error.error_class,
                message=str(error)[:MAX_MESSAGE_LENGTH],
                since=now,
                probe_at=now + timedelta(seconds=probe_delay_s(0, error.error_class)),
            )
            if self._plans.open_breaker(self._plan, breaker):
                logger.error("plan %s waits: %s", self._plan, error)
        return True

    def note_result(self, result: str) -> None:
        """Forget the errors that a job with this result shows to be over."""
        for key in list(self._in_a_row):
            if shows_over(key[1], result):
                self._in_a_row.pop(key, None)  # or another thread was faster

    def clear(self) -> None:
        """Forget all errors: the endpoints work again."""
        self._in_a_row.clear()
