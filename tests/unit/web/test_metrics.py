"""/metrics: who may read it, and what Prometheus gets."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from builders import NOW, basic, deliver, envelope, wire_event
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from app import create_app
from app.settings import Migration, MongoDB, Server, Settings, Source, Target
from app.store import Stores
from app.store.checks import Check, Gap
from app.store.inbox import Progress
from app.store.migrations import BACKFILL, LIVE, Breaker, Look, Outcome, Wish, WorkerBeat, present
from app.version import VERSION

TOKEN = "token-of-prometheus"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PLANS = [
    Migration(
        name=name,
        source=Source(url="https://old.invalid", password="password-of-source"),
        target=Target(url=f"https://{name}.invalid"),
    )
    for name in ("dc2", "dc3")
]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    server = Server(metrics_token=TOKEN)
    return msgspec.structs.replace(settings, migrations=PLANS, server=server)


def scrape(client: FlaskClient) -> Samples:
    answer = client.get("/metrics", headers=BEARER)
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer registry-token"},
        {"Authorization": "Bearer tok\xe9n"},
        basic("admin"),
    ],
    ids=str,
)
def test_nobody_without_the_token_reads_metrics(
    client: FlaskClient, headers: dict[str, str]
) -> None:
    answer = client.get("/metrics", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "dc2" not in answer.text


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, BEARER, basic("admin")])
def test_where_no_token_is_set_nobody_reads_metrics(
    make_app: Callable[..., Any], headers: dict[str, str]
) -> None:
    client = make_app(server=Server()).test_client()

    answer = client.get("/metrics", headers=headers)

    assert answer.status_code == 403
    assert "server.metrics_token" in answer.text
    assert "dc2" not in answer.text


def test_the_session_of_an_administrator_is_no_token(
    sign_in: Callable[[str], FlaskClient],
) -> None:
    client = sign_in("admin")
    assert client.get("/migration/").status_code == 200

    assert client.get("/metrics").status_code == 401


def test_prometheus_may_call_the_server_by_any_name(
    make_app: Callable[..., Any], settings: Settings
) -> None:
    server = msgspec.structs.replace(settings.server, hosts=["rns.example"])
    client = make_app(server=server).test_client()

    assert client.get("/search/").status_code == 400
    assert value(scrape(client), "rns_database_up") == 1


def test_an_operator_sees_what_checks_of_the_catalogue_found(
    client: FlaskClient, mock_stores: Stores
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    assert value(scrape(client), "rns_event_gaps", registry="default") == 0
    gap = Gap(registry="default", began=now - timedelta(minutes=5), ended=now, why="x")
    mock_stores.checks.add_gap(gap)
    check = Check(
        registry="default",
        started_at=now - timedelta(hours=1),
        differences={"gone": 3},
        repaired=2,
    )
    mock_stores.checks.put(check)
    assert ("rns_catalogue_repaired", frozenset({("registry", "default")})) not in scrape(client)
    mock_stores.checks.put(msgspec.structs.replace(check, finished_at=now))

    samples = scrape(client)

    assert value(samples, "rns_event_gaps", registry="default") == 1
    assert value(samples, "rns_catalogue_repaired", registry="default") == 2
    found = {
        kind: value(samples, "rns_catalogue_differences", registry="default", kind=kind)
        for kind in ("unheard", "moved", "gone", "unknown")
    }
    assert found == {"unheard": 0, "moved": 0, "gone": 3, "unknown": 0}
    at = value(samples, "rns_catalogue_check_timestamp_seconds", registry="default")
    assert at == check.started_at.timestamp()


def test_a_plan_tells_how_many_events_wait_at_its_source_while_somebody_asks(
    client: FlaskClient, mock_stores: Stores
) -> None:
    def waiting(ago: timedelta, pending: int | None) -> float | None:
        look = Look(at=present() - ago, pending=pending)
        mock_stores.migrations.plans.set_look("dc2", look, [], "")
        key = ("rns_migration_source_queue_pending", frozenset({("plan", "dc2")}))
        return scrape(client).get(key)

    assert waiting(timedelta(0), 3) == 3
    assert waiting(timedelta(0), 0) == 0
    assert waiting(timedelta(0), None) is None
    assert waiting(timedelta(minutes=1), 3) is None


def test_an_operator_sees_the_state_of_the_server(client: FlaskClient, mock_stores: Stores) -> None:
    two = envelope(wire_event(tag="v1"), wire_event(tag="v2", at=60))
    deliver(mock_stores, two, "default", NOW)
    deliver(mock_stores, envelope({"id": "broken"}), "default", NOW)

    samples = scrape(client)

    assert value(samples, "rns_info", version=VERSION) == 1
    assert value(samples, "rns_database_up") == 1
    assert value(samples, "rns_rejected_events") == 1
    assert value(samples, "rns_newest_event_timestamp_seconds") == NOW.timestamp() + 60
    assert value(samples, "rns_open_days") >= 0


def test_an_operator_sees_whom_the_server_has_cut_off(client: FlaskClient) -> None:
    """As app.server.worker counts them, which is not there in this test."""
    environ = {"rns.cut_off": lambda: {"silent": 3, "full": 0}}

    text = client.get("/metrics", headers=BEARER, environ_overrides=environ).text

    assert 'rns_connections_cut_off_total{reason="silent"} 3.0' in text
    assert 'rns_connections_cut_off_total{reason="full"} 0.0' in text
    assert "cut_off" not in client.get("/metrics", headers=BEARER).text


def test_a_server_without_events_and_migrations_has_metrics(make_app: Callable[..., Any]) -> None:
    samples = scrape(make_app(migrations=[]).test_client())

    assert {name for name, _ in samples if "intake" not in name} == {
        "rns_info",
        "rns_database_up",
        "rns_rejected_events",
        "rns_open_days",
        "rns_inbox_envelopes",
        "rns_event_gaps",
    }


def test_an_operator_sees_what_waits_in_the_inbox_and_for_how_long(
    client: FlaskClient, mock_stores: Stores
) -> None:
    inbox, now = mock_stores.inbox, datetime.now(UTC)
    for number in range(3):
        inbox.add("default", envelope(wire_event()), now - timedelta(seconds=number))
    inbox.note_progress(Progress(until=now - timedelta(seconds=90), batch_s=0.5))

    samples = scrape(client)

    assert value(samples, "rns_inbox_envelopes") == 3
    assert 90 <= value(samples, "rns_inbox_oldest_seconds") < 120
    assert value(samples, "rns_projector_batch_seconds") == 0.5


def test_every_plan_has_its_own_figures(client: FlaskClient, mock_stores: Stores) -> None:
    queue, now = mock_stores.migrations, present()
    queue.plans.start("dc2", "alice", now)
    ends = [
        Outcome(state="done", result="copied", bytes=700),
        Outcome(state="done", result="copied", bytes=300),
        Outcome(state="dead", error_class="forbidden", error="no"),
    ]
    for number, outcome in enumerate(ends):
        queue.jobs.wish([Wish("dc2", "team/app", f"v{number}")], now)
        (due,) = queue.jobs.find_due("dc2", LIVE, now)
        job = queue.jobs.claim(due, "worker", now)
        assert job
        queue.jobs.finish(job, outcome, now)
    queue.jobs.wish([Wish("dc2", "team/app", "open", BACKFILL)], now)
    queue.workers.beat(WorkerBeat(name="h:1:x", plans=["dc2"], running=0, version="1", beat=now))
    queue.plans.brake_deletes("dc2", "many", now)
    broken = Breaker(
        registry="https://dc2.invalid", error_class="down", message="no", since=now, probe_at=now
    )
    queue.plans.open_breaker("dc2", broken)
    run = queue.runs.begin("dc2", "verify", "worker", now)
    assert run
    deep = msgspec.structs.replace(run, deep=True, drift={"broken_blob": 3, "missing": 9})
    queue.runs.end(deep, "worker", now)
    run = queue.runs.begin("dc2", "verify", "worker", now + timedelta(seconds=1))
    assert run
    queue.runs.end(msgspec.structs.replace(run, drift={"missing": 2}), "worker", now)

    samples = scrape(client)

    expected: list[tuple[str, dict[str, str], float, float]] = [
        ("jobs", {"state": "done", "priority": "live"}, 2, 0),
        ("jobs", {"state": "pending", "priority": "backfill"}, 1, 0),
        ("jobs", {"state": "dead", "priority": "live"}, 1, 0),
        ("copied_bytes", {}, 1000, 0),
        ("lag_seconds", {}, 0, 0),
        ("ready", {}, 0, 0),
        ("paused", {}, 0, 0),
        ("workers", {}, 1, 0),
        ("deletes_braked", {}, 1, 0),
        ("breaker_open", {"side": "target"}, 1, 0),
        ("breaker_open", {"side": "source"}, 0, 0),
    ]
    for name, labels, of_dc2, of_dc3 in expected:
        assert value(samples, f"rns_migration_{name}", plan="dc2", **labels) == of_dc2, name
        assert value(samples, f"rns_migration_{name}", plan="dc3", **labels) == of_dc3, name
    assert value(samples, "rns_migration_state", plan="dc2", state="backfill") == 1
    assert value(samples, "rns_migration_state", plan="dc3", state="draft") == 1
    assert value(samples, "rns_migration_results", plan="dc2", result="copied") == 2
    assert value(samples, "rns_migration_errors", plan="dc2", **{"class": "forbidden"}) == 1
    assert value(samples, "rns_migration_drift", plan="dc2", kind="missing") == 2
    assert value(samples, "rns_migration_drift", plan="dc2", kind="broken_blob") == 3
    assert value(samples, "rns_migration_drift", plan="dc2", kind="extra") == 0
    assert not [name for name, _ in samples if name == "rns_migration_source_queue_pending"]


def test_the_lag_is_the_age_of_the_oldest_push_that_waits(
    client: FlaskClient, mock_stores: Stores
) -> None:
    mock_stores.migrations.plans.start("dc2", "admin", NOW)
    mock_stores.migrations.jobs.wish([Wish("dc2", "team/app", "v1")], NOW.replace(year=2020))

    assert value(scrape(client), "rns_migration_lag_seconds", plan="dc2") > 10**7


def test_metrics_name_no_repository_and_no_password(
    client: FlaskClient, mock_stores: Stores
) -> None:
    mock_stores.migrations.jobs.wish([Wish("dc2", "team/app", "v1")], present())
    deliver(mock_stores, envelope(wire_event(tag="v1")), "default", NOW)

    text = client.get("/metrics", headers=BEARER).text

    assert 'plan="dc2"' in text
    for hidden in ("team", "password", "alice", TOKEN):
        assert hidden not in text


def test_every_process_answers_alike(make_app: Callable[..., Any], mock_stores: Stores) -> None:
    first, second = (make_app().test_client() for _ in range(2))
    deliver(mock_stores, envelope(wire_event(tag="v1")), "default", NOW)

    assert scrape(first) == scrape(second) == scrape(first)


def test_a_database_that_is_away_is_a_metric_and_no_error(settings: Settings) -> None:
    nowhere = MongoDB(uri="mongodb://127.0.0.1:9", data_dir=settings.mongodb.data_dir)
    app = create_app(msgspec.structs.replace(settings, mongodb=nowhere))

    samples = scrape(app.test_client())
    app.extensions["rns"].stores.close()

    assert value(samples, "rns_database_up") == 0
    own = {name for name, _ in samples if "intake" not in name}
    assert own == {"rns_info", "rns_database_up"}


def test_the_intake_counts_events_answers_and_seconds(client: FlaskClient) -> None:
    post = lambda body, token: client.post(  # noqa: E731
        "/events",
        data=body,
        content_type="application/json",
        headers={"Authorization": f"Bearer {token}"},
    )
    blob = wire_event(of="blob", media_type="application/octet-stream")
    post(envelope(wire_event(), wire_event("pull"), blob, {"id": "broken"}), "registry-token")
    post(b"{", "registry-token")
    post(envelope(), "wrong")

    samples = scrape(client)

    events = "rns_intake_events_total"
    labels = {"registry": "default"}
    assert value(samples, events, action="push", result="accepted", **labels) == 1
    assert value(samples, events, action="pull", result="accepted", **labels) == 1
    assert value(samples, events, action="blob", result="ignored", **labels) == 1
    assert value(samples, events, action="unknown", result="rejected", **labels) == 1
    for status, number in {"202": 1, "400": 1, "401": 1, "503": 0}.items():
        assert value(samples, "rns_intake_requests_total", status=status) == number
    assert value(samples, "rns_intake_seconds_count") == 3
    assert value(samples, "rns_intake_delivery_seconds_count") == 2
    assert value(samples, "rns_intake_derivation_seconds_count") == 0
