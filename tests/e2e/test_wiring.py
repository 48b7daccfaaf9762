"""A real registry that is wired wrongly, and what the server says of it."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from builders import wire_event
from clients import Account, Webhook
from images import Image
from playwright.sync_api import Page, expect
from processes import HOST, TOKEN, Registry, Server, cleaned_up, eventually, need_program

pytestmark = pytest.mark.e2e

SEEN_S = 30.0
MakeServer = Callable[..., Server]


def endpoint(name: str, url: str) -> dict[str, Any]:
    return {
        "name": name,
        "url": url,
        "headers": {"Authorization": [f"Bearer {TOKEN}"]},
        "timeout": "1s",
        "threshold": 5,
        "backoff": "1s",
    }


@pytest.fixture
def plain(make_server: MakeServer) -> Server:
    server = make_server(
        access={"administrators": ["admin"]},
        server={"metrics_token": TOKEN, "base_path": "/rns"},
        log={"format": "json", "level": "debug"},
    )
    server.start()
    server.add_account_of_administrator()
    return server


def test_each_wrong_wiring_of_a_registry_is_named(
    plain: Server, tmp_path: Path, build_image: Callable[[str], Image]
) -> None:
    skopeo = need_program("skopeo")
    need_program("docker-registry")
    urls = {
        "slash": f"{plain.url}/events/",
        "path": f"{plain.url}/notifications",
        "root": f"{plain.url}/",
        "tls": f"https://{HOST}:{plain.port}/events",
    }
    endpoints = [endpoint(name, url) for name, url in urls.items()]
    config = {"notifications": {"endpoints": endpoints}}
    registry = Registry(tmp_path / "registry", accounts=False, config=config)
    with cleaned_up(registry):
        registry.start()
        target = f"docker://{registry.address}/team/app:v1"
        source = build_image("wiring").source
        command = [skopeo, "copy", "--dest-tls-verify=false", source, target]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        words = {
            "it sends them to /rns/notifications: the url of its endpoint has to end in /rns/ev",
            "it sends them to /rns/: the url of its endpoint has to end in /rns/events",
            "it speaks TLS to a port without: its url begins with https",
        }
        eventually(lambda: all(word in plain.program.log for word in words), SEEN_S, "all is told")
        eventually(
            lambda: "HTTP response to HTTPS client" in registry.program.log, SEEN_S, "its own log"
        )
        checked = plain.rns("check")
    with closing(Account(plain, "admin")) as admin:
        page = admin.read("/rns/wiring/")
    for word in words:
        assert word in checked
        assert word in page
    assert "includereferences: true" in checked
    assert "default: last a push of team/app" in checked


def test_the_log_is_json_and_the_numbers_are_of_all_workers(plain: Server) -> None:
    with closing(Webhook(plain)) as webhook:
        for number in range(20):
            with closing(Webhook(plain)) as other:  # connections go to either worker
                other.post(wire_event(id=f"json {number}"))
        webhook.session.headers["Authorization"] = "Bearer wrong"
        webhook.post(wire_event())
    with closing(Account(plain, "admin")) as reader:
        reader.session.auth = None
        reader.session.headers["Authorization"] = f"Bearer {TOKEN}"
        text = reader.get("/metrics").text
        for pid in plain.worker_pids():
            subprocess.run(["kill", "-KILL", str(pid)], check=True)
        plain.wait_until_ready()
        later = reader.get("/metrics").text
    for scraped in (text, later):
        assert 'action="push",registry="default",result="accepted"} 20.0' in scraped
        assert 'rns_intake_requests_total{status="202"} 20.0' in scraped
        assert 'rns_intake_requests_total{status="401"} 1.0' in scraped
        assert "rns_intake_derivation_seconds_count 20.0" in scraped
    rows = [json.loads(line) for line in plain.program.log.splitlines()]
    killed = [row for row in rows if "was sent SIGKILL" in row["message"]]
    assert len(killed) == 2
    envelopes = [row for row in rows if row["message"].startswith("envelope ")]
    assert len(envelopes) == 20
    assert {row["accepted"] for row in envelopes} == {1}
    assert len({row["request_id"] for row in envelopes}) == 20


def test_an_administrator_waits_for_a_push_and_retries_what_was_rejected(
    open_page: Callable[..., Page], server: Server
) -> None:
    page = open_page("admin", javascript=False)

    page.goto("/search/")
    page.get_by_role("navigation").get_by_role("link", name="Wiring").click()
    page.get_by_role("link", name="Wait for the next push or pull").click()
    expect(page.get_by_role("status")).to_contain_text("Nothing came in")
    with closing(Webhook(server)) as webhook:
        now = datetime.now(UTC)
        broken = wire_event(id="from the future", at=now + timedelta(days=3))
        webhook.post(wire_event("push", "team/waited-for", tag="v1", at=now), broken)
    expect(page.get_by_role("status")).to_contain_text("It works:", timeout=SEEN_S * 1000)
    expect(page.locator("tbody")).to_contain_text("team/waited-for")
    page.goto("/wiring/rejected")
    row = page.locator("tbody tr").filter(has_text="set the clock of the registry's host").first
    row.get_by_role("button", name="Retry").click()
    expect(page.get_by_role("status")).to_contain_text("1 are still not understood")
    row.get_by_role("button", name="Drop").click()
    expect(page.get_by_role("status")).to_have_text("Dropped 1.")


@pytest.fixture
def encrypted(make_server: MakeServer, tmp_path: Path) -> Server:
    files = [str(tmp_path / name) for name in ("cert.pem", "key.pem")]
    options = "-x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1"
    command = [need_program("openssl"), "req", *options.split(), "-subj", "/CN=door"]
    subprocess.run([*command, "-out", files[0], "-keyout", files[1]], check=True)
    server = make_server(server={"tls": {"certificate": files[0], "private_key": files[1]}})
    program = server.launch()
    eventually(lambda: "registries send to https" in program.log, SEEN_S, "it listens")
    return server


def test_plain_http_to_a_port_with_tls_is_answered_in_words(encrypted: Server) -> None:
    with socket.create_connection((HOST, encrypted.port), 10) as sock:
        sock.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    with trusting.wrap_socket(socket.create_connection((HOST, encrypted.port), 10)) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200")

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    words = "it speaks plain HTTP to a port with TLS: its url has to begin with https"
    assert words.encode() in answer
    eventually(lambda: words in encrypted.program.log, SEEN_S, "the log tells")
