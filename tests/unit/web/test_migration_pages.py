"""The pages and the API of migrations: what administrators see, what they may change, and how."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, get_args

import msgspec
import pytest
from builders import basic, csrf_token
from fake_registry import Answer, FakeRegistry
from flask.testing import FlaskClient

from app.migration.advice import ADVICE
from app.migration.plan import Plan
from app.migration.progress import LEAST_SPAN_S, WINDOW, find_eta_s, find_progress
from app.registry.debug_server import DebugState, ask_debug_server
from app.registry.errors import ErrorClass
from app.settings import Migration, Settings, Source, Target
from app.store import Stores
from app.store.migrations import (
    BACKFILL,
    LIVE,
    Breaker,
    Drift,
    MigrationStore,
    Outcome,
    Wish,
    WorkerBeat,
    present,
)

SignIn = Callable[[str], FlaskClient]

DC2 = Migration(
    name="dc2",
    source=Source(url="https://old.invalid", username="mover", password="password-of-source"),
    target=Target(url="https://new.invalid", username="mover", password="password-of-target"),
)
PAGES = ["/migration/", "/migration/dc2", "/migration/dc2/jobs", "/migration/dc2/drift"]
API = ["", "/dc2", "/dc2/jobs", "/dc2/drift", "/dc2/ready"]
DONE = Outcome(state="done", result="copied", bytes=1_000_000)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return msgspec.structs.replace(settings, migrations=[DC2])


@pytest.fixture
def queue(mock_stores: Stores) -> MigrationStore:
    return mock_stores.migrations


@pytest.fixture
def admin(sign_in: SignIn) -> FlaskClient:
    return sign_in("admin")


def end_job(
    queue: MigrationStore,
    tag: str,
    outcome: Outcome = DONE,
    repository: str = "team/app",
    at: Any = None,
) -> str:
    now = at or present()
    queue.jobs.wish([Wish("dc2", repository, tag)], now)
    key = f"dc2 {repository} {tag}"
    due = queue.jobs.get("dc2", repository, tag)
    assert due
    job = queue.jobs.claim(due, "worker", now)
    assert job
    assert queue.jobs.finish(job, outcome, now)
    return key


def dead(error_class: str = "forbidden", error: str = "no") -> Outcome:
    return Outcome(state="dead", error_class=error_class, error=error)


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def post(client: FlaskClient, path: str, **form: str) -> Any:
    token = csrf_token(client.get("/migration/dc2").text)
    return client.post(path, data={"csrf_token": token, **form})


# What is shown


def test_a_deep_verification_is_shown_beside_a_later_one_of_tags_alone(
    admin: FlaskClient, queue: MigrationStore
) -> None:
    now = present()
    for seconds, deep, drift in ((0, True, {"broken_blob": 7}), (60, False, {})):
        run = queue.runs.begin("dc2", "verify", "test", now + timedelta(seconds=seconds), deep=deep)
        assert run
        queue.runs.end(msgspec.structs.replace(run, drift=drift), "test", now)

    page = text_of(admin.get("/migration/dc2").text)
    assert "verify, deep" in page
    assert "7 broken blob" in page
    assert "found 7 broken" in page  # of the conditions
    assert "by the deep one that ended" in text_of(admin.get("/migration/dc2/drift").text)
    plan = admin.get("/api/v1/migrations/dc2").json
    assert (plan["verify"]["deep"], plan["deep"]["drift"]) == (False, {"broken_blob": 7})
    checks = admin.get("/api/v1/migrations/dc2/ready").json["items"]
    assert "found 7 broken" in next(item for item in checks if item["name"] == "verified")["reason"]


def test_without_a_plan_the_page_says_what_to_do_first(make_app: Any, admin: FlaskClient) -> None:
    app = make_app(migrations=[])
    page = app.test_client().get("/migration/", headers=basic("admin"))

    assert "migrations:" in page.text
    assert "rns migrate worker" in page.text
    assert "dc2" not in page.text


def test_the_list_of_plans_shows_progress_failures_and_that_nobody_works(
    admin: FlaskClient, queue: MigrationStore
) -> None:
    queue.plans.start("dc2", "alice", present())
    end_job(queue, "v1")
    end_job(queue, "v2", dead())
    queue.jobs.wish([Wish("dc2", "team/app", "v3", BACKFILL)], present())

    page = admin.get("/migration/").text
    text = text_of(page)

    assert '<progress class="w-100" max="3" value="1"' in page
    assert "1 of 3 tags 1 failed" in text
    assert "Failures: 1 forbidden" in text
    assert "No worker is alive" in text


def test_a_plan_shows_why_it_is_not_ready_and_what_to_do_about_failures(
    admin: FlaskClient, queue: MigrationStore
) -> None:
    queue.plans.start("dc2", "alice", present())
    end_job(queue, "v1", dead())
    queue.workers.beat(
        WorkerBeat(name="h:1:x", plans=["dc2"], running=0, version="1", beat=present())
    )

    text = text_of(admin.get("/migration/dc2").text)

    assert "not ready" in text
    assert "1 jobs are dead or in conflict" in text
    assert "no verification of everything is complete" in text
    assert text.count("nobody asked the registries within 45 s") == 2  # registries, and events
    assert ADVICE["forbidden"] in text
    assert "alice start" in text
    assert "No worker is alive" not in text


@pytest.mark.parametrize("state", ["cut_over", "rolled_back", "closed"])
def test_after_the_cutover_it_is_no_question_whether_it_may_be(
    admin: FlaskClient, queue: MigrationStore, state: Any
) -> None:
    queue.plans.start("dc2", "alice", present())
    end_job(queue, "v1", dead())
    queue.plans.set_state("dc2", state, "alice", present())

    text = text_of(admin.get("/migration/dc2").text)

    assert "ready" not in text
    assert "Work goes on" not in text
    assert "1 jobs are dead or in conflict" in text


def test_a_plan_that_waits_shows_for_what(admin: FlaskClient, queue: MigrationStore) -> None:
    now = present()
    queue.plans.start("dc2", "alice", now)
    queue.plans.pause("dc2", "bob", now)
    queue.plans.brake_deletes("dc2", "21 deletes within 10 minutes", now)
    broken = Breaker(
        registry="https://new.invalid",
        error_class="down",
        message="Connection refused",
        since=now,
        probe_at=now,
    )
    queue.plans.open_breaker("dc2", broken)

    for path in ("/migration/", "/migration/dc2"):
        text = text_of(admin.get(path).text)
        for expected in ("Paused by bob", "down Connection refused", "21 deletes within 10"):
            assert expected in text, path


@pytest.mark.parametrize(
    ("error_class", "told"),
    [("auth", "It is tried again at 2026-11-28 13:00:00 UTC"), ("down", "every 8 seconds")],
)
def test_a_plan_that_waits_tells_when_it_is_tried_again(
    admin: FlaskClient, queue: MigrationStore, error_class: str, told: str
) -> None:
    queue.plans.start("dc2", "alice", present())
    broken = Breaker(
        registry="https://new.invalid",
        error_class=error_class,
        message="no",
        since=present(),
        probe_at=datetime(2026, 11, 28, 13, tzinfo=UTC),
    )
    queue.plans.open_breaker("dc2", broken)

    text = text_of(admin.get("/migration/dc2").text)

    assert told in text
    assert ("every 8 seconds" in text) is (error_class == "down")


def test_a_crawl_that_found_no_tag_is_told_from_one_to_come(
    admin: FlaskClient, queue: MigrationStore
) -> None:
    assert "nothing is known yet" in admin.get("/migration/").text
    run = queue.runs.begin("dc2", "crawl", "worker", present())
    assert run
    queue.runs.end(run, "worker", present())

    assert "the crawl saw no tag that this plan takes" in admin.get("/migration/").text


def test_the_page_shows_itself_anew_only_when_asked_to_and_while_work_goes_on(
    admin: FlaskClient, queue: MigrationStore
) -> None:
    assert "Refresh" not in admin.get("/migration/dc2?refresh=1").headers
    queue.plans.start("dc2", "alice", present())

    assert admin.get("/migration/dc2?refresh=1").headers["Refresh"] == "10"
    assert admin.get("/migration/?refresh=1").headers["Refresh"] == "10"
    assert "Refresh" not in admin.get("/migration/dc2").headers

    queue.plans.pause("dc2", "alice", present())
    assert "Refresh" not in admin.get("/migration/dc2?refresh=1").headers


def test_runs_of_jobs_and_of_the_plan_are_shown(admin: FlaskClient, queue: MigrationStore) -> None:
    end_job(queue, "v1", dead(error="the proxy said no"))
    for number in (1, 2):
        run = queue.runs.begin("dc2", "crawl", "test", present() + timedelta(seconds=number))
        assert run
        queue.runs.end(msgspec.structs.replace(run, tags=1_000 + number), "test", present())

    jobs = text_of(admin.get("/migration/dc2/jobs").text)
    assert "after attempt 1" in jobs
    assert "Last 1 run" in jobs
    assert jobs.count("the proxy said no") == 2
    page = text_of(admin.get("/migration/dc2").text)
    assert "Earlier runs" in page
    assert "1,001" in page
    assert admin.get("/api/v1/migrations/dc2/jobs").json["items"][0]["log"][0]["error"]
    assert "proxy" in admin.get("/migration/dc2/jobs?format=csv").text


def test_a_worker_shows_for_which_registry_it_waits(
    admin: FlaskClient, queue: MigrationStore
) -> None:
    troubles = {"dc2": "https://new.invalid asks to wait, for 40 s more", "other": "not this"}
    queue.workers.beat(
        WorkerBeat(
            name="host:1:a",
            plans=["dc2"],
            running=0,
            version="1",
            beat=present(),
            troubles=troubles,
        )
    )

    page = text_of(admin.get("/migration/dc2").text)

    assert "asks to wait, for 40 s more" in page
    assert "not this" not in page


def test_what_registries_say_is_no_markup(admin: FlaskClient, queue: MigrationStore) -> None:
    end_job(queue, "v1", dead(error="<script>alert(1)</script>"))

    page = admin.get("/migration/dc2/jobs").text

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_no_page_and_no_answer_shows_a_password_or_the_token_of_a_job(
    admin: FlaskClient, queue: MigrationStore
) -> None:
    queue.jobs.wish([Wish("dc2", "team/app", "v1")], present())
    (due,) = queue.jobs.find_due("dc2", LIVE, present())
    job = queue.jobs.claim(due, "worker", present())
    assert job

    for path in [*PAGES, *(f"/api/v1/migrations{path}" for path in API)]:
        for format in ("", "?format=csv", "?format=ndjson"):
            text = admin.get(path + format).text
            assert "password-of" not in text, path
            assert job.token not in text, path


# Who sees it


@pytest.mark.parametrize("name", ["alice", "mallory"])
def test_nobody_but_administrators_sees_or_changes_anything(
    sign_in: SignIn, queue: MigrationStore, name: str
) -> None:
    end_job(queue, "v1", dead())
    client = sign_in(name)
    token = csrf_token(client.get("/search/").text)

    for path in [*PAGES, "/migration/other", *(f"/api/v1/migrations{path}" for path in API)]:
        answer = client.get(path)
        assert answer.status_code == 403, path
        assert "old.invalid" not in answer.text, path
    for action in ("start", "pause", "resume", "lift-brake", "retry", "skip"):
        form = {"csrf_token": token, "class": "forbidden"}
        assert client.post(f"/migration/dc2/{action}", data=form).status_code == 403
        url, json = f"/api/v1/migrations/dc2/{action}", {"class": "forbidden"}
        assert client.post(url, json=json, headers={"X-CSRFToken": token}).status_code == 403
        assert client.post(url, json=json, headers=basic(name)).status_code == 403

    assert queue.jobs.count_by_state("dc2") == {"dead": 1}
    assert queue.plans.get("dc2").state == "draft"
    assert "Migration" not in client.get("/search/").text


def test_a_plan_that_does_not_exist_is_not_found(admin: FlaskClient) -> None:
    for path in ("/migration/other", "/migration/other/jobs", "/api/v1/migrations/other/ready"):
        assert admin.get(path).status_code == 404


# What is changed


def test_an_administrator_starts_pauses_and_resumes_a_plan_and_that_is_on_record(
    admin: FlaskClient, queue: MigrationStore
) -> None:
    answer = post(admin, "/migration/dc2/start", back="/migration/?refresh=1")
    assert (answer.status_code, answer.location) == (303, "/migration/?refresh=1")
    assert queue.plans.get("dc2").state == "backfill"
    assert "Started: a worker" in admin.get("/migration/").text
    assert "Started: a worker" not in admin.get("/migration/").text

    post(admin, "/migration/dc2/pause")
    assert queue.plans.get("dc2").paused == "admin"
    queue.plans.brake_deletes("dc2", "many deletes", present())
    post(admin, "/migration/dc2/resume", allow_deletes="30")

    status = queue.plans.get("dc2")
    assert (status.paused, status.deletes_braked, status.deletes_allowed) == (
        "",
        "many deletes",
        30,
    )
    assert "Lift the brake" in admin.get("/migration/dc2").text
    post(admin, "/migration/dc2/lift-brake")
    assert queue.plans.get("dc2").deletes_braked == ""
    assert sorted((row.who, row.what) for row in queue.plans.find_audit("dc2")) == [
        ("admin", "lift the brake"),
        ("admin", "pause"),
        ("admin", "resume, 30 deletes allowed"),
        ("admin", "start"),
        ("admin", "state backfill"),
        ("brake", "many deletes"),
    ]


@pytest.mark.parametrize("state", ["live", "frozen", "cut_over"])
def test_another_crawl_leaves_the_state_of_a_plan_as_it_is(
    admin: FlaskClient, queue: MigrationStore, state: Any
) -> None:
    queue.plans.set_state("dc2", state, "alice", present())

    post(admin, "/migration/dc2/start")

    status = queue.plans.get("dc2")
    assert (status.state, status.recrawl) == (state, True)


@pytest.mark.parametrize(
    ("state", "text"),
    [("live", "still being crawled"), ("rolled_back", "has to be crawled once more")],
)
def test_only_a_plan_that_is_worked_on_is_said_to_be_crawled(
    admin: FlaskClient, queue: MigrationStore, state: Any, text: str
) -> None:
    queue.jobs.wish([Wish("dc2", "team/app", "v1")], present())
    queue.plans.set_state("dc2", state, "alice", present())

    page = admin.get("/migration/dc2").text

    assert text in page
    assert "rolled_back, not live" not in page


def test_an_administrator_retries_a_class_or_a_job_and_skips_a_job(
    admin: FlaskClient, queue: MigrationStore
) -> None:
    keys = [end_job(queue, tag, dead(of)) for tag, of in (("a", "down"), ("b", "down"), ("c", "x"))]

    post(admin, "/migration/dc2/retry", **{"class": "down"})
    assert queue.jobs.count_by_state("dc2") == {"pending": 2, "dead": 1}
    post(admin, "/migration/dc2/retry", id=keys[2])
    assert queue.jobs.count_by_state("dc2") == {"pending": 3}
    post(admin, "/migration/dc2/skip", id=keys[0])
    assert queue.jobs.count_by_state("dc2") == {"pending": 2, "skipped": 1}

    assert sorted((row.who, row.what) for row in queue.plans.find_audit("dc2")) == [
        ("admin", "retry error_class down: 2 jobs"),
        ("admin", f"retry id {keys[2]}: 1 jobs"),
        ("admin", f"skip {keys[0]}"),
    ]


@pytest.mark.parametrize(
    ("action", "form", "message"),
    [
        ("retry", {}, "id, class: expected one of the two"),
        ("retry", {"id": "x", "class": "y"}, "id, class: expected one of the two"),
        ("skip", {"id": "dc3 team/app v1"}, "there is no job"),
        ("resume", {"allow_deletes": "-1"}, "allow_deletes: expected 0 to 1,000,000"),
        ("resume", {"allow_deletes": "9" * 400}, "allow_deletes: expected 0 to 1,000,000"),
    ],
)
def test_what_cannot_be_done_is_said_on_the_page_and_in_the_api(
    admin: FlaskClient, queue: MigrationStore, action: str, form: dict[str, str], message: str
) -> None:
    end_job(queue, "v1", dead())

    answer = post(admin, f"/migration/dc2/{action}", **form)
    assert answer.status_code == 303
    assert message in admin.get(answer.location).text
    url = f"/api/v1/migrations/dc2/{action}"
    refused = admin.post(url, json=form, headers=basic("admin"))

    assert refused.status_code == 400
    assert message in refused.json["detail"]
    assert queue.jobs.count_by_state("dc2") == {"dead": 1}
    assert queue.plans.find_audit("dc2") == []


@pytest.mark.parametrize("back", ["//evil.example/", "https://evil.example/", "/\\evil.example"])
def test_a_button_never_leads_to_another_server(admin: FlaskClient, back: str) -> None:
    assert post(admin, "/migration/dc2/start", back=back).location == "/migration/dc2"


# The API


def test_the_api_answers_plans_jobs_and_drift_like_other_lists(
    admin: FlaskClient, queue: MigrationStore
) -> None:
    for tag in ("v1", "v2", "v3"):
        end_job(queue, tag, dead())
    end_job(queue, "v1", repository="team/other")
    rows = [
        Drift(plan="dc2", repository="team/app", reference="v1", kind=kind, at=present())
        for kind in ("missing", "extra")
    ]
    queue.runs.set_drift("dc2", rows)

    plans = admin.get("/api/v1/migrations?total=1").json
    assert (plans["total"], plans["next"], len(plans["items"])) == (1, None, 1)
    plan = admin.get("/api/v1/migrations/dc2").json
    assert (plan["done"], plan["failed"], plan["total"]) == (1, 3, 4)
    assert plan["failures"][0]["advice"] == ADVICE["forbidden"]

    url = "/api/v1/migrations/dc2/jobs?state=dead&class=forbidden&repository=team/app&limit=2"
    first = admin.get(f"{url}&total=1").json
    second = admin.get(first["next"]).json
    assert [job["reference"] for job in first["items"] + second["items"]] == ["v1", "v2", "v3"]
    assert (first["total"], second["next"]) == (3, None)
    assert admin.get("/api/v1/migrations/dc2/jobs?class=down").json["items"] == []

    drift = admin.get("/api/v1/migrations/dc2/drift?kind=extra&total=1").json
    assert ([row["kind"] for row in drift["items"]], drift["total"]) == (["extra"], 1)


def test_jobs_and_drift_are_exported_whole(admin: FlaskClient, queue: MigrationStore) -> None:
    for tag in ("v1", "=cmd()"):
        queue.jobs.wish([Wish("dc2", "team/app", tag)], present())
    rows = [Drift(plan="dc2", repository="a", reference="v1", kind="missing", at=present())]
    queue.runs.set_drift("dc2", rows)

    for prefix in ("/migration", "/api/v1/migrations"):
        csv = admin.get(f"{prefix}/dc2/jobs?format=csv").text.splitlines()
        assert csv[0].startswith("id,plan,repository,reference,state")
        assert (len(csv), "'=cmd()" in csv[1]) == (3, True)
        ndjson = admin.get(f"{prefix}/dc2/drift?format=ndjson").text
        assert msgspec.json.decode(ndjson)["kind"] == "missing"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("", "q"),
        ("/dc2", "q"),
        ("/dc2/ready", "q"),
        ("/dc2/jobs", "state"),
        ("/dc2/jobs", "class"),
        ("/dc2/jobs", "error_class"),
        ("/dc2/drift", "kind"),
    ],
)
def test_a_filter_that_does_not_exist_is_refused(admin: FlaskClient, path: str, field: str) -> None:
    answer = admin.get(f"/api/v1/migrations{path}?{field}=nonsense")

    assert answer.status_code == 400
    assert answer.json["detail"].startswith(f"{field}: ")


def test_an_administrator_has_both_sides_compared_by_a_worker(
    admin: FlaskClient, queue: MigrationStore
) -> None:
    assert (
        "a plan that is live or frozen is compared"
        in post(admin, "/migration/dc2/verify").headers.get("Location", "")
        + admin.get("/migration/dc2").text
    )
    assert not queue.plans.get("dc2").verify_wanted
    queue.plans.set_state("dc2", "live", "alice", present())

    assert "Compare both sides now" in admin.get("/migration/dc2").text
    assert post(admin, "/migration/dc2/verify").status_code == 303

    assert queue.plans.get("dc2").verify_wanted
    assert queue.plans.find_audit("dc2")[0].what == "verify"


def test_the_api_tells_what_a_cutover_still_needs(
    admin: FlaskClient, queue: MigrationStore
) -> None:
    answer = admin.get("/api/v1/migrations/dc2/ready").json

    assert answer["ready"] is False
    assert answer["total"] == len(answer["items"])
    events = next(item for item in answer["items"] if item["name"] == "events")
    assert events == {
        "name": "events",
        "is_met": None,
        "reason": "nobody asked the registries within 45 s",
    }


def test_a_program_with_the_password_of_an_administrator_needs_no_token(
    client: FlaskClient, queue: MigrationStore
) -> None:
    url = "/api/v1/migrations/dc2"
    end_job(queue, "v1", dead())

    empty = {**basic("admin"), "Content-Type": "application/json"}
    started = client.post(f"{url}/start", headers=empty)
    retried = client.post(f"{url}/retry", json={"class": "forbidden"}, headers=basic("admin"))
    resumed = client.post(f"{url}/resume", json={"allow_deletes": 5}, headers=basic("admin"))

    assert started.json == {
        "message": "Started: a worker crawls the source and copies what is missing."
    }
    assert retried.json == {"message": "1 job begins anew."}
    assert resumed.json == {"message": "Resumed, 5 deletes allowed."}
    assert {row.who for row in queue.plans.find_audit("dc2")} == {"admin"}


@pytest.mark.parametrize(
    "body",
    [
        {"data": {"class": "forbidden"}},
        {"data": '{"class": "forbidden"}', "content_type": "text/plain"},
        {"data": '{"class": "forbidden"}', "content_type": "multipart/form-data"},
        {"data": '{"class": "forbidden"}'},
    ],
    ids=["form", "text", "multipart", "no type"],
)
def test_what_a_foreign_page_can_have_a_browser_send_changes_nothing(
    client: FlaskClient, admin: FlaskClient, queue: MigrationStore, body: dict[str, Any]
) -> None:
    """With the cookie, or with a password of HTTP Basic that the browser remembers."""
    end_job(queue, "v1", dead())
    url = "/api/v1/migrations/dc2/retry"

    with_cookie = admin.post(url, **body)
    with_password = client.post(url, headers=basic("admin"), **body)

    assert (with_cookie.status_code, with_password.status_code) == (400, 400)
    assert queue.jobs.count_by_state("dc2") == {"dead": 1}


def test_a_session_needs_its_token_in_a_header(admin: FlaskClient, queue: MigrationStore) -> None:
    end_job(queue, "v1", dead())
    token = csrf_token(admin.get("/migration/dc2").text)
    url, json = "/api/v1/migrations/dc2/retry", {"class": "forbidden"}

    assert admin.post(url, json=json).status_code == 400
    assert admin.post(url, json=json, headers={"X-CSRFToken": "forged"}).status_code == 400
    assert queue.jobs.count_by_state("dc2") == {"dead": 1}

    assert admin.post(url, json=json, headers={"X-CSRFToken": token}).status_code == 200
    assert queue.jobs.count_by_state("dc2") == {"pending": 1}


def test_the_token_of_one_session_is_of_no_use_in_another(
    sign_in: SignIn, admin: FlaskClient, queue: MigrationStore
) -> None:
    token = csrf_token(sign_in("mallory").get("/search/").text)

    page = admin.post("/migration/dc2/start", data={"csrf_token": token})
    api = admin.post("/api/v1/migrations/dc2/start", json={}, headers={"X-CSRFToken": token})

    assert (page.status_code, api.status_code) == (400, 400)
    assert queue.plans.get("dc2").state == "draft"


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"class": ["x"]}', b'{"class": null}', b'{"other": "x"}', b"\xff"]
)
def test_a_body_that_is_no_object_of_known_values_is_refused(
    client: FlaskClient, body: bytes
) -> None:
    headers = {**basic("admin"), "Content-Type": "application/json"}

    answer = client.post("/api/v1/migrations/dc2/retry", data=body, headers=headers)

    assert answer.status_code == 400


# Progress


def progress_at(queue: MigrationStore, now: Any) -> Any:
    return find_progress(queue, Plan(DC2), now)


def test_rates_are_those_of_ten_minutes_and_tell_the_time_left(queue: MigrationStore) -> None:
    now = present()
    queue.plans.start("dc2", "alice", now - WINDOW * 3)
    queue.workers.beat(WorkerBeat(name="h:1:x", plans=["dc2"], running=0, version="1", beat=now))
    run = queue.runs.begin("dc2", "crawl", "worker", now - WINDOW * 3)
    assert run
    for number in range(30):
        end_job(queue, f"old{number}", at=now - WINDOW * 2)
    for number in range(20):
        end_job(queue, f"new{number}", at=now - timedelta(minutes=number / 3))
    queue.jobs.wish([Wish("dc2", "team/app", f"open{number}") for number in range(4)], now)

    found = progress_at(queue, now)

    assert (found.done, found.open, found.total) == (50, 4, 54)
    assert found.jobs_per_min == pytest.approx(2)
    assert found.bytes_per_s == pytest.approx(20_000_000 / 600)
    assert found.eta_s == pytest.approx(120)
    assert found.copied_bytes == 50_000_000


def test_a_crawl_that_just_began_is_not_measured_against_ten_minutes(
    queue: MigrationStore,
) -> None:
    now = present()
    began = now - timedelta(seconds=60)
    queue.plans.start("dc2", "alice", began)
    assert queue.runs.begin("dc2", "crawl", "worker", began)
    end_job(queue, "v1", at=began + timedelta(seconds=30))
    assert LEAST_SPAN_S < 60

    assert progress_at(queue, now).jobs_per_min == pytest.approx(1)


@pytest.mark.parametrize("reason", ["paused", "no worker"])
def test_nobody_can_tell_the_time_left_of_what_does_not_go_on(
    queue: MigrationStore, reason: str
) -> None:
    now = present()
    queue.plans.start("dc2", "alice", now)
    end_job(queue, "v1", at=now)
    queue.jobs.wish([Wish("dc2", "team/app", "v2")], now)
    worker = WorkerBeat(name="h:1:x", plans=["dc2"], running=0, version="1", beat=now)
    queue.workers.beat(worker)
    assert progress_at(queue, now).eta_s is not None

    if reason == "paused":
        queue.plans.pause("dc2", "alice", now)
    else:
        queue.workers.leave(worker.name)

    assert progress_at(queue, now).eta_s is None


@pytest.mark.parametrize(("jobs", "rate", "eta_s"), [(0, 0, 0), (10, 0, None), (10, 2.5, 4)])
def test_the_time_left(jobs: int, rate: float, eta_s: float | None) -> None:
    assert find_eta_s(jobs, rate) == eta_s


def test_every_class_of_errors_has_its_advice() -> None:
    assert set(ADVICE) == {*get_args(ErrorClass), "exists", "braked", "bug"}


# The source's debug server


VARIABLES = msgspec.json.encode(
    {"registry": {"notifications": {"endpoints": [{"Metrics": {"Pending": 3}}]}}}
)


@pytest.fixture
def fake() -> Iterator[FakeRegistry]:
    registry = FakeRegistry()
    yield registry
    registry.close()


class Dripping(NamedTuple):
    url: str
    is_over: threading.Event


@pytest.fixture
def dripping() -> Iterator[Dripping]:
    """A server that answers byte by byte, each of them in time, and is over after a while."""
    listener, is_over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(VARIABLES)}\r\nX: {'x' * 100}\r\n\r\n"
        with connection:
            for byte in head.encode():
                connection.sendall(bytes([byte]))
                time.sleep(0.01)
            is_over.set()
            connection.sendall(VARIABLES)

    thread = threading.Thread(target=serve)
    thread.start()
    yield Dripping(f"http://127.0.0.1:{listener.getsockname()[1]}", is_over)
    listener.close()
    thread.join()


def test_the_events_that_wait_are_counted(fake: FakeRegistry) -> None:
    fake.on("GET", "/debug/vars", Answer(200, VARIABLES))

    state = ask_debug_server(fake.url)

    assert state
    assert state.pending == 3


def test_a_debug_server_is_not_waited_for_longer_than_said(
    fake: FakeRegistry, dripping: Dripping
) -> None:
    fake.on("GET", "/debug/vars", fake.hang)

    assert ask_debug_server(fake.url, 0.3) is None
    assert ask_debug_server(dripping.url, 0.3) is None
    assert not dripping.is_over.is_set()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404),
        Answer(500, VARIABLES),
        Answer(200, b"not JSON"),
        Answer(200, b"[" * 100_000),
        Answer(200, b"{}"),
        Answer(302, b"", {"Location": "http://127.0.0.1/"}),
        Answer(200, b"short", {"Content-Length": "500"}),
    ],
)
def test_a_debug_server_that_makes_no_sense_tells_nothing(
    fake: FakeRegistry, answer: Answer
) -> None:
    fake.on("GET", "/debug/vars", answer)

    assert ask_debug_server(fake.url) is None


@pytest.mark.parametrize(
    ("collections", "ends", "known", "goes_on"),
    [
        (3, (10, 20, 30, 0), (3, 30), True),
        (5, (50, 20, 30, 40), (3, 30), True),
        (3, (10, 20, 30, 0), (3, 29), False),  # another process with as many
        (2, (10, 20, 0, 0), (3, 30), False),  # it began anew
        (7, (50, 60, 70, 40), (3, 30), False),  # that moment is not told any more
        (6, (50, 60, 30, 40), (3, 30), True),
        (0, (0, 0, 0, 0), (0, 0), True),
        (0, (0, 0, 0, 0), (1, 10), False),
        (0, (), (0, 0), False),
    ],
)
def test_a_process_of_a_registry_is_known_by_when_it_collected_its_garbage(
    collections: int, ends: tuple[int, ...], known: tuple[int, int], goes_on: bool
) -> None:
    assert DebugState(0, collections, ends).goes_on(*known) is goes_on


def test_the_moment_of_the_last_collection_is_told() -> None:
    assert DebugState(0, 5, (50, 20, 30, 40)).last_at == 50
    assert DebugState(0, 4, (50, 20, 30, 40)).last_at == 40
    assert DebugState(0, 0, (0, 0)).last_at == 0
