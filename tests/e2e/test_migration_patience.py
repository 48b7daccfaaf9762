"""A live migration whose registries ask for a pause, hang, refuse a password or speak TLS."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from images import Image
from processes import HOST, Registry, Server, cleaned_up, eventually
from test_migration import BOT, SETTLED_S, Migration, make_migration
from test_registry_copies import certificate

__all__ = ["certificate", "make_migration"]

pytestmark = pytest.mark.e2e

RELATIVE = {"http": {"relativeurls": True}}  # so that uploads go through what stands before it
SHOWN_S = 15.0


class Busy:
    """Stands before a registry; while `answer` is set, that is all that anybody gets."""

    def __init__(self) -> None:
        self.answer: tuple[int, dict[str, str]] | None = None
        self.refused = 0
        self.registry = ""
        self._http = ThreadingHTTPServer((HOST, 0), self._make_handler())
        self._http.daemon_threads = True
        self.url = f"http://{HOST}:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.1,), daemon=True).start()

    def clean_up(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _make_handler(self) -> type[BaseHTTPRequestHandler]:
        busy = self

        class Handler(BaseHTTPRequestHandler):
            def respond(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if busy.answer:
                    busy.refused += 1
                    return self.send(*busy.answer, b"")
                with requests.Session() as session:
                    session.trust_env = False
                    answer = session.request(
                        self.command,
                        busy.registry + self.path,
                        headers=dict(self.headers),
                        data=body,
                        allow_redirects=False,
                        timeout=30,
                    )
                kept = {
                    name: value
                    for name, value in answer.headers.items()
                    if name.lower() not in ("transfer-encoding", "connection", "date")
                }
                return self.send(answer.status_code, kept, answer.content)

            def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response_only(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = respond

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


@pytest.fixture
def busy() -> Iterator[Busy]:
    with cleaned_up(Busy()) as busy:
        yield busy


def is_all_done(migration: Migration, number: int) -> bool:
    return bool(migration.status()["jobs"].get("done", 0) == number)


@pytest.mark.parametrize("answer", [(429, {}), (503, {"Retry-After": "4"})])
def test_a_target_that_asks_for_pauses_costs_no_job_its_attempts(
    make_migration: Callable[..., Migration],
    build_image: Callable[..., Image],
    busy: Busy,
    answer: tuple[int, dict[str, str]],
) -> None:
    migration = make_migration(
        target={"url": busy.url}, target_config=RELATIVE, options={"max_attempts": 2}
    )
    busy.registry = migration.target.url
    for program in (migration.source, migration.target, migration.server):
        program.start()
    old, new = migration.skopeo(migration.source), migration.skopeo(migration.target)
    tags = [f"team/app:v{number}" for number in range(8)]
    for tag in tags:
        old.push(build_image(tag), tag)
    busy.answer = answer
    migration.server.rns("migrate", "start")
    worker = migration.worker()
    eventually(lambda: "the crawl begins" in worker.log, SETTLED_S, "the worker works")

    eventually(lambda: migration.status()["waits"], SHOWN_S, "it is shown that the target waits")
    assert "asks to wait" in migration.status()["waits"]
    before = busy.refused
    time.sleep(8)
    status = migration.status()
    assert (status["stopped"], status["jobs"].get("dead", 0)) == (None, 0)
    # About one for each pause, those that were under way, and a look every ten seconds.
    assert busy.refused - before <= 12

    busy.answer = None
    eventually(lambda: is_all_done(migration, 8), SETTLED_S, "everything is copied", every=1)
    assert {tag: new.digest(tag) for tag in tags} == {tag: old.digest(tag) for tag in tags}
    assert worker.terminate() == 0


def test_a_side_that_hangs_shows_within_fifteen_seconds_and_goes_on_afterwards(
    make_migration: Callable[..., Migration], build_image: Callable[..., Image]
) -> None:
    migration = make_migration(options={"max_attempts": 1})
    for program in (migration.source, migration.target, migration.server):
        program.start()
    old = migration.skopeo(migration.source)
    old.push(build_image("v1"), "team/app:v1")
    migration.server.rns("migrate", "start")
    migration.worker()
    eventually(lambda: is_all_done(migration, 1), SETTLED_S, "the first is copied", every=1)

    migration.target.program.freeze()
    old.push(build_image("v2"), "team/app:v2")
    stopped = eventually(lambda: migration.status()["stopped"], SHOWN_S, "it is shown", every=0.5)
    assert stopped.startswith("down: ")
    assert migration.target.url in stopped

    os.kill(migration.target.program.pid, signal.SIGCONT)
    eventually(lambda: is_all_done(migration, 2), 2 * SETTLED_S, "it goes on", every=1)


def test_a_refused_password_is_tried_once_until_a_person_says_so(
    make_migration: Callable[..., Migration], build_image: Callable[..., Image]
) -> None:
    migration = make_migration(target={"password": "not-the-password"})
    for program in (migration.source, migration.target, migration.server):
        program.start()
    old = migration.skopeo(migration.source)
    for number in range(6):
        old.push(build_image(f"v{number}"), f"team/app:v{number}")

    def refusals() -> int:
        return migration.target.program.log.count("error authenticating user")

    migration.server.rns("migrate", "start")
    worker = migration.worker()
    eventually(lambda: "the crawl begins" in worker.log, SETTLED_S, "the worker works")
    stopped = eventually(lambda: migration.status()["stopped"], SHOWN_S, "it stops", every=0.5)
    assert stopped.startswith("auth: ")
    assert "rns migrate resume" in stopped
    first = refusals()
    assert first <= 2  # a look at whether it answers waits for no other request
    time.sleep(35)  # version 0.1 tried every eight seconds; for 30 s it is not sent at all
    assert refusals() == first

    assert migration.server.run_rns("migrate", "once").returncode == 1
    assert refusals() == first

    migration.server.rns("migrate", "resume")
    eventually(lambda: refusals() > first, SHOWN_S, "it is tried once more")
    assert "not-the-password" not in str(migration.status())


def test_the_wrong_protocol_stops_the_plan_and_says_so(
    make_migration: Callable[..., Migration],
    make_server: Callable[..., Server],
    build_image: Callable[..., Image],
    certificate: tuple[str, str],
    tmp_path: Any,
) -> None:
    migration = make_migration()
    tls = {"http": {"tls": dict(zip(("certificate", "key"), certificate, strict=True))}}
    with closing(_running(Registry(tmp_path / "tls", config=tls))) as with_tls:
        source = {"url": migration.source.url, "plain_http": True, **BOT}
        targets = {
            "plain": with_tls.url.replace("https:", "http:"),
            "secret": migration.target.url.replace("http:", "https:"),
        }
        migration.server.configure(
            migrations=[
                {"name": name, "source": source, "target": {"url": url, "plain_http": True, **BOT}}
                for name, url in targets.items()
            ]
        )
        for program in (migration.source, migration.target, migration.server):
            program.start()
        old = migration.skopeo(migration.source)
        for number in range(6):
            old.push(build_image(f"v{number}"), f"team/app:v{number}")
        for name in targets:
            migration.server.rns("migrate", "start", "--plan", name)
        worker = migration.worker()
        eventually(lambda: "the crawl begins" in worker.log, SETTLED_S, "the worker works")

        for name, words in (("plain", "write https://"), ("secret", "plain_http: true")):

            def stopped(name: str = name) -> Any:
                text = migration.server.ask("migrate", "status", "--plan", name)
                return text if "tls: " in text else None

            assert words in eventually(stopped, SHOWN_S, f"{name} stops", every=0.5)
            jobs = migration.jobs(plan=name)
            assert {job["state"] for job in jobs} <= {"pending", "running"}
            assert {job["attempts"] for job in jobs if job["state"] == "pending"} <= {0}


def _running(registry: Registry) -> Any:
    class Running:
        url = registry.url
        close = staticmethod(registry.clean_up)

    registry.start()
    return Running
