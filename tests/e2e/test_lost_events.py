"""What a registry never told of is found in it, and the catalogue repaired."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from clients import Account, Skopeo
from images import Image
from processes import PASSWORDS, TOKEN, Registry, Server, cleaned_up, eventually, need_program

pytestmark = pytest.mark.e2e


def test_what_was_pushed_moved_and_deleted_unheard_is_found_and_repaired(
    make_server: Callable[..., Server],
    tmp_path: Path,
    build_image: Callable[[str], Image],
) -> None:
    for program in ("docker-registry", "skopeo"):
        need_program(program)
    server = make_server()
    with cleaned_up(Registry(tmp_path / "registry", server)) as registry:
        credentials = {"username": "ci-bot", "password": PASSWORDS["ci-bot"]}
        server.configure(
            registries=[{"name": "default", "token": TOKEN, "url": registry.url, **credentials}]
        )
        registry.start()
        server.start()
        given = f"{PASSWORDS['admin']}\n"
        server.rns("accounts", "passwd", "admin", "--password-stdin", given=given)
        people = Skopeo(registry, "ci-bot", tmp_path)
        for tag in ("v1", "v2"):
            people.push(build_image(tag), f"team/app:{tag}")
        registry.wait_until_delivered()
        server.wait_until_worked_in()
        assert server.rns("catalogue", "check", "--json") == ""

        server.program.end_by(signal.SIGKILL, whole_group=True)
        people.push(build_image("moved"), "team/app:v1")
        people.push(build_image("v3"), "team/app:v3")
        people.delete("team/app:v2")
        assert registry.pending() > 0
        registry.program.end_by(signal.SIGKILL)
        registry.start()
        server.restart_until_ready()

        finished = server.run_rns("catalogue", "check", "--json")
        assert finished.returncode == 1
        found = [json.loads(line) for line in finished.stdout.splitlines()]
        assert {row["tag"]: row["kind"] for row in found} == {
            "v1": "moved",
            "v2": "gone",
            "v3": "unheard",
        }
        with closing(Account(server, "admin")) as admin:

            def shows_gap() -> bool:
                return "was started anew" in admin.get("/registries/").text

            eventually(shows_gap, 30, "the gap is shown: our own look made the registry tell")
            server.rns("catalogue", "check", "--repair")
            assert server.rns("catalogue", "check", "--json") == ""
            tags = {item["tag"]: item["digest"] for item in admin.tags() if not item["deleted"]}
        assert tags == {tag: people.digest(f"team/app:{tag}") for tag in ("v1", "v3")}
