"""/metrics for Prometheus: every process of a server answers alike.

All is read from the database anew each time, but for what this server itself counts: its answers,
the events that came, the clients that it has cut off.
"""

from __future__ import annotations

import hmac
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.errors import StoreUnavailable
from app.migration import Plan
from app.migration.progress import find_failures
from app.migration.readiness import LOOK_AGE, find_checks, lag_s
from app.notifications.meter import Meter
from app.settings import Settings
from app.store import Stores, deadline
from app.store.checks import DIFFERENCE_KINDS
from app.store.migrations import (
    BACKFILL,
    BROKEN,
    DRIFT_KINDS,
    JOB_STATES,
    LIVE,
    WorkerBeat,
    present,
)
from app.version import VERSION
from app.web.runtime import meter, runtime

logger = logging.getLogger(__name__)
bp = Blueprint("metrics", __name__)

DEADLINE_S = 7.0  # Prometheus waits 10 s by default
PRIORITIES = {LIVE: "live", BACKFILL: "backfill"}

# Name → help and labels beside `plan`.
_OF_PLANS: dict[str, tuple[str, list[str]]] = {
    "state": ("1 for the state that the plan is in.", ["state"]),
    "paused": ("Whether a person paused it.", []),
    "jobs": (
        "Jobs; one for each tag, and each digest that comes without one.",
        ["state", "priority"],
    ),
    "results": ("Jobs by what their last run found or did.", ["result"]),
    "errors": ("Jobs that are not done and whose last attempt failed.", ["class"]),
    "copied_bytes": ("What the last copy of each job sent to the target, together.", []),
    "lag_seconds": ("Age of the oldest push that is not at the target yet.", []),
    "drift": ("Differences that the last verification found.", ["kind"]),
    "ready": ("Whether every condition of a cut-over is known to be met.", []),
    "workers": ("Worker processes that are alive.", []),
    "breaker_open": ("Whether work waits because this registry fails.", ["side"]),
    "deletes_braked": ("Whether deletes wait for a person.", []),
    "source_queue_pending": (
        "Events that wait in the source; absent where nobody can tell.",
        [],
    ),
}


@bp.get("/metrics")
def metrics() -> Response:
    """200 the metrics, also while the database is away; 401, and 403 where no token is set."""
    settings = runtime().settings
    token = settings.server.metrics_token
    if not token:
        return _refuse(403, "server.metrics_token in config.yml is empty: nobody may read metrics.")
    given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(f"Bearer {token}".encode(), given):
        return _refuse(401, "Authorization: expected Bearer and server.metrics_token.")
    registry = CollectorRegistry()
    # app.server.worker puts it there; another server may run the application, in tests for example.
    cut_off = request.environ.get("rns.cut_off", dict)()
    registry.register(_Metrics(settings, runtime().stores, runtime().plans, cut_off, meter()))
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)


def _refuse(status: int, message: str) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return Response(f"{message}\n", status, headers, mimetype="text/plain")


class _Metrics(Collector):
    """What one scrape reads."""

    def __init__(
        self,
        settings: Settings,
        stores: Stores,
        plans: list[Plan],
        cut_off: dict[str, int],
        meter: Meter,
    ) -> None:
        self._settings = settings
        self._stores = stores
        self._plans = plans
        self._cut_off = cut_off
        self._meter = meter

    def collect(self) -> Iterable[Metric]:
        """The metrics; without a database only those of this server, and that it is away."""
        yield _gauge("rns_info", "The program.", [({"version": VERSION}, 1)])
        if self._cut_off:
            yield _cut_off_connections(self._cut_off)
        yield from _intake(self._meter)
        found: list[Metric] = []
        try:
            with deadline(DEADLINE_S):
                self._stores.check()
                found += self._server(present())
                found += self._migrations(present())
        except StoreUnavailable as error:
            runtime().complaints.tell(logger, "metrics", error)
            yield _gauge("rns_database_up", _UP, [({}, 0)])
            return
        yield _gauge("rns_database_up", _UP, [({}, 1)])
        yield from found

    def _server(self, now: datetime) -> Iterator[Metric]:
        stores = self._stores
        yield _gauge(
            "rns_rejected_events",
            "Events that could not be understood and wait for rns events rejected.",
            [({}, stores.rejected.count())],
        )
        yield _gauge(
            "rns_open_days",
            "Days that are over and not summarised yet.",
            [({}, len(stores.days.find_open_days(now)))],
        )
        yield _gauge(
            "rns_inbox_envelopes",
            "Accepted envelopes that are not worked in yet.",
            [({}, stores.inbox.count())],
        )
        progress = stores.inbox.find_progress()
        if progress:
            behind = max(progress.seconds_behind(now), 0.0)
            yield _gauge(
                "rns_inbox_oldest_seconds",
                "How long ago came the oldest envelope that waits; about 1 where none does.",
                [({}, behind)],
            )
            yield _gauge(
                "rns_projector_batch_seconds",
                "What the newest batch of envelopes took to be worked in.",
                [({}, progress.batch_s)],
            )
            yield _gauge(
                "rns_projector_lag_seconds",
                "How long the oldest envelope of the newest batch had waited; 0 once none waits.",
                [({}, progress.lag_s)],
            )
        yield from self._checks()
        newest = stores.events.find_newest()
        if newest:
            yield _gauge(
                "rns_newest_event_timestamp_seconds",
                "When the newest event happened, in seconds since 1970.",
                [({}, newest.timestamp.timestamp())],
            )

    def _checks(self) -> Iterator[Metric]:
        """What the last check of each registry found."""
        names = [registry.name for registry in self._settings.registries]
        checks = {name: self._stores.checks.get(name) for name in names}
        ended = {name: check for name, check in checks.items() if check and check.finished_at}
        if ended:
            yield _gauge(
                "rns_catalogue_check_timestamp_seconds",
                "When the last check of a registry that came to its end began, since 1970.",
                [({"registry": n}, c.started_at.timestamp()) for n, c in ended.items()],
            )
            yield _gauge(
                "rns_catalogue_differences",
                "Tags of which catalogue and registry did not say the same in that check.",
                [
                    ({"registry": name, "kind": kind}, check.differences.get(kind, 0))
                    for name, check in ended.items()
                    for kind in DIFFERENCE_KINDS
                ],
            )
            yield _gauge(
                "rns_catalogue_repaired",
                "How many of them were repaired.",
                [({"registry": name}, check.repaired) for name, check in ended.items()],
            )
        yield _gauge(
            "rns_event_gaps",
            "Times of which events may be missing, and behind which no check looked yet.",
            [({"registry": n}, len(self._stores.checks.find_open_gaps(n))) for n in names],
        )

    def _migrations(self, now: datetime) -> list[Metric]:
        families = {
            name: GaugeMetricFamily(f"rns_migration_{name}", text, labels=["plan", *labels])
            for name, (text, labels) in _OF_PLANS.items()
        }
        workers = self._stores.migrations.workers.find(now) if self._plans else []
        for plan in self._plans:
            for name, labels, value in _samples(self._stores, plan, workers, now):
                families[name].add_metric([plan.name, *labels], value)
        return [family for family in families.values() if family.samples]


Sample = tuple[str, list[str], float]  # metric, its labels beside the plan, value


def _samples(
    stores: Stores, plan: Plan, workers: list[WorkerBeat], now: datetime
) -> Iterator[Sample]:
    migrations = stores.migrations
    status, counts = migrations.plans.get(plan.name), migrations.jobs.count_alike(plan.name)
    yield "state", [status.state], 1
    yield "paused", [], bool(status.paused)
    jobs: Counter[str] = Counter()
    for state in JOB_STATES:
        for priority, name in PRIORITIES.items():
            alike = [c for c in counts if (c.state, c.priority) == (state, priority)]
            number = sum(count.number for count in alike)
            jobs[state] += number
            yield "jobs", [state, name], number
    for result in sorted({count.result for count in counts if count.result}):
        yield "results", [result], sum(c.number for c in counts if c.result == result)
    for failure in find_failures(counts):
        yield "errors", [failure.error_class], failure.given_up + failure.waiting
    yield "copied_bytes", [], sum(count.bytes for count in counts)
    yield "lag_seconds", [], lag_s(migrations, plan.name, now)
    verify, deep = migrations.runs.get(plan.name, "verify"), migrations.runs.get(plan.name, "deep")
    if verify and verify.state == "done":
        for kind in DRIFT_KINDS:
            found = deep if deep and kind in BROKEN else verify
            yield "drift", [kind], found.drift.get(kind, 0)
    checks = find_checks(stores, plan, now, jobs)
    yield "ready", [], all(check.is_met for check in checks)
    yield "workers", [], sum(plan.name in worker.plans for worker in workers)
    failing = status.breaker.registry if status.breaker else ""
    for side, endpoint in (("source", plan.source), ("target", plan.target)):
        yield "breaker_open", [side], failing.rstrip("/") == endpoint.url.rstrip("/")
    yield "deletes_braked", [], bool(status.deletes_braked)
    if status.look and now - status.look.at <= LOOK_AGE and status.look.pending is not None:
        yield "source_queue_pending", [], status.look.pending


def _cut_off_connections(cut_off: dict[str, int]) -> Metric:
    family = CounterMetricFamily(
        "rns_connections_cut_off",
        "Connections that this server ended because of what the client did or did not do.",
        labels=["reason"],
    )
    for reason, number in cut_off.items():
        family.add_metric([reason], number)
    return family


_HISTOGRAMS = {
    "answer": ("rns_intake_seconds", "What an answer to POST /events took."),
    "delivery": (
        "rns_intake_delivery_seconds",
        "From an event, by the registry's clock, until it came here.",
    ),
    "derivation": (
        "rns_intake_derivation_seconds",
        "From the receipt of an envelope until it was worked in.",
    ),
}


def _intake(meter: Meter) -> Iterator[Metric]:
    totals = meter.totals()
    events = CounterMetricFamily(
        "rns_intake_events",
        "Events that came: accepted, ignored (transfers of blobs) or rejected (not understood).",
        labels=["registry", "action", "result"],
    )
    answers = CounterMetricFamily(
        "rns_intake_requests", "Answers to POST /events.", labels=["status"]
    )
    for (kind, *labels), number in totals.items():
        if kind == "events":
            events.add_metric(labels, number)
        elif kind == "status":
            answers.add_metric(labels, number)
    yield from (events, answers)
    for name, (metric, text) in _HISTOGRAMS.items():
        buckets, total = meter.histogram(totals, name)
        yield HistogramMetricFamily(metric, text, buckets=buckets, sum_value=total)


_UP = "Whether the database takes and returns a write."


def _gauge(name: str, text: str, samples: list[tuple[dict[str, str], float]]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=list(samples[0][0]))
    for labels, value in samples:
        family.add_metric(list(labels.values()), value)
    return family
