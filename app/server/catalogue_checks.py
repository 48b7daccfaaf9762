"""Compares each registry with the catalogue from time to time, in one process among all."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

from app.errors import AppError, IllegalState, StoreUnavailable
from app.migration.catalogue_check import RECHECK_S, CatalogueCheck
from app.migration.failures import probe_delay_s
from app.notifications.projector import Projector
from app.registry import Endpoint, RegistryClient
from app.rules.events import Event
from app.settings import Registry, Settings, parse_duration
from app.store import Stores
from app.store.checks import Check, Difference
from app.store.leases import LEASE

logger = logging.getLogger(__name__)

PAUSE_S = 60.0  # between two looks at what is due
AFTER_GAP = timedelta(hours=1)  # between two checks because of lost events
AFTER_FAILURE = timedelta(hours=1)
ASKED_AT_A_TIME = 8

MakeProjector = Callable[[Settings, Stores], Projector]


def endpoint_of(registry: Registry) -> Endpoint:
    """Where a registry of the configuration is, and with what credentials."""
    return Endpoint(
        url=registry.url,
        username=registry.username,
        password=registry.password,
        ca_file=registry.ca_file,
        insecure=registry.insecure,
        plain_http=registry.url.startswith("http://"),
    )


def check_catalogue(
    stores: Stores,
    registry: Registry,
    make_projector: Callable[[], Projector] | None,
    *,
    all_: bool = False,
    each: Callable[[], object] = lambda: None,
    recheck_s: float = RECHECK_S,
) -> tuple[Check, list[Difference]]:
    """Compare one registry with the catalogue, and repair this where a projector can be made.

    `all_`: although unusually many tags are gone. `each` is called for every tag, by several
    threads.

    Raises:
        IllegalState: another process is at it.
        RegistryError: the registry does not list what it has.
    """
    with (
        _leased(stores, registry.name) as renew,
        contextlib.closing(RegistryClient(endpoint_of(registry))) as client,
        ThreadPoolExecutor(ASKED_AT_A_TIME) as threads,
    ):

        def going_on() -> None:
            renew()
            each()

        checking = CatalogueCheck(
            stores, client, registry.name, threads, going_on=going_on, recheck_s=recheck_s
        )
        check, rows = checking.check()
        if rows and make_projector:
            projector = make_projector()
            try:
                apply = partial(_apply, stores, projector)
                check = checking.repair(check, rows, apply, all_=all_)
            finally:
                projector.stop()
    return check, rows


def _apply(stores: Stores, projector: Projector, events: Sequence[Event]) -> None:
    def apply() -> None:
        stores.manifests.learn([event for event in events if event.action == "push"])
        stores.catalogue_writer.forget()
        stores.catalogue_writer.apply(events)

    projector.alone(apply)


@contextlib.contextmanager
def _leased(stores: Stores, registry: str) -> Iterator[Callable[[], None]]:
    """Hold the right to check a registry; gives what renews it now and then."""
    name, owner = f"catalogue check {registry}", secrets.token_hex(8)
    if not stores.leases.take(name, owner, datetime.now(UTC)):
        raise IllegalState(f"another check of {registry} is under way")
    renewed, lock = [time.monotonic()], threading.Lock()

    def renew() -> None:
        with lock:
            if time.monotonic() - renewed[0] < LEASE.total_seconds() / 5:
                return
            renewed[0] = time.monotonic()
        if not stores.leases.take(name, owner, datetime.now(UTC)):
            raise IllegalState(f"another check of {registry} began meanwhile")

    try:
        yield renew
    finally:
        stores.leases.give_back(name, owner)


def is_due(stores: Stores, registry: Registry, now: datetime) -> bool:
    """Whether a registry is to be compared: it is time, or events may have been lost."""
    every = parse_duration(str(registry.check_every))
    if not registry.url or not every:
        return False
    last = stores.checks.get(registry.name)
    if last is None:
        return True
    age = now - last.started_at
    if last.finished_at is None:  # it failed, or its process ended
        pause = min(AFTER_FAILURE, every)
        if last.refusals:  # each may be one too many for the account
            pause = max(pause, timedelta(seconds=probe_delay_s(last.refusals - 1, "auth")))
        return age >= pause
    return age >= every or (age >= AFTER_GAP and bool(stores.checks.find_open_gaps(registry.name)))


class CatalogueChecker(threading.Thread):
    """Checks what is due, once a minute, while the process lives."""

    def __init__(
        self, settings: Settings, make_stores: Callable[[], Stores], make: MakeProjector
    ) -> None:
        super().__init__(name="catalogue checker", daemon=True)
        self._settings = settings
        self._make_stores = make_stores
        self._make_projector = make
        self._ended = threading.Event()

    def run(self) -> None:
        """Until the process ends; what fails is tried again later."""
        stores = self._make_stores()
        while not self._ended.wait(PAUSE_S):
            for registry in self._settings.registries:
                try:
                    self.check(stores, registry)
                except (IllegalState, StoreUnavailable):
                    continue
                except AppError as error:
                    logger.warning("check of %s: %s", registry.name, error)
                except Exception:
                    logger.exception("the check of %s failed", registry.name)

    def check(self, stores: Stores, registry: Registry) -> Check | None:
        """Compare and repair one registry if that is due."""
        if not is_due(stores, registry, datetime.now(UTC)):
            return None
        make = partial(self._make_projector, self._settings, stores)
        check, _ = check_catalogue(stores, registry, make, recheck_s=RECHECK_S)
        if check.differences:
            told = ", ".join(f"{number} {kind}" for kind, number in check.differences.items())
            text = "check of %s: %d tags; %s; %d repaired %s"
            logger.warning(text, registry.name, check.tags, told, check.repaired, check.message)
        else:
            logger.info("check of %s: %d tags, no difference", registry.name, check.tags)
        return check

    def stop(self) -> None:
        """End before the next round."""
        self._ended.set()
