"""Accounts and ACL of a real docker_auth: its token server is asked, its file is read.

Needs the program `auth_server` (cesanta/docker_auth) and `openssl`; without them it is skipped.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import requests
import yaml
from builders import wire_event
from clients import Webhook
from processes import (
    CHECKOUT,
    HOST,
    PASSWORDS,
    TOOLS,
    Program,
    Server,
    answers,
    eventually,
    free_port,
    need_program,
)

pytestmark = pytest.mark.e2e

API = "/api/v1/repositories"
TOKEN_SERVER = shutil.which("auth_server", path=TOOLS)
ACL = [
    {"match": {"account": "admin"}, "actions": ["*"]},
    {"match": {"account": "alice", "name": "team/*"}, "actions": ["pull"]},
    {"match": {"account": "/^bob$/", "name": "${account}/*"}, "actions": ["pull", "push"]},
]


class DockerAuth:
    """docker_auth with static users over TLS."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.certificate = directory / "server.pem"
        self.config_file = directory / "auth_config.yml"
        key = directory / "server.key"
        self.port = free_port()
        self.url = f"https://localhost:{self.port}/auth"
        self._program: Program | None = None
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
        command += ["-keyout", str(key), "-out", str(self.certificate)]
        subprocess.run(command, check=True, capture_output=True)
        hashes = {
            name: {"password": bcrypt.hashpw(PASSWORDS[name].encode(), bcrypt.gensalt(5)).decode()}
            for name in ("admin", "alice", "bob")
        }
        self._document: dict[str, Any] = {
            "server": {
                "addr": f"{HOST}:{self.port}",
                "certificate": str(self.certificate),
                "key": str(key),
            },
            "token": {"issuer": "Acme", "expiration": 900},
            "users": hashes | {"": {}},
            "acl": ACL,
        }
        self.write()

    def write(self, **sections: Any) -> None:
        """Write its configuration, some sections changed; docker_auth takes it by itself."""
        self._document |= sections
        self.config_file.write_text(yaml.safe_dump(self._document))

    def start(self) -> None:
        assert TOKEN_SERVER
        command = [TOKEN_SERVER, "--logtostderr", str(self.config_file)]
        self._program = Program("docker_auth", command, self._directory, {"PATH": "/usr/bin:/bin"})
        eventually(self.is_up, 15, "docker_auth answers")

    def is_up(self) -> bool:
        try:
            return requests.get(self.url, verify=str(self.certificate), timeout=2).status_code > 0
        except requests.RequestException:
            return False

    def stop(self) -> None:
        if self._program:
            self._program.kill_group()


@contextmanager
def stopped(docker_auth: DockerAuth) -> Iterator[DockerAuth]:
    try:
        yield docker_auth
    finally:
        docker_auth.stop()


@pytest.fixture(scope="module")
def docker_auth(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerAuth]:
    if not TOKEN_SERVER or not shutil.which("openssl"):
        pytest.skip("the program auth_server of docker_auth, or openssl, is not installed")
    with stopped(DockerAuth(tmp_path_factory.mktemp("docker_auth"))) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def asking(make_module_server: Callable[..., Server], docker_auth: DockerAuth) -> Server:
    """A server whose accounts are docker_auth's, with a repository for each."""
    server = make_module_server(
        server={"workers": 1},  # two would see a changed file some seconds apart
        docker_auth={
            "token_url": docker_auth.url,
            "ca_file": str(docker_auth.certificate),
            "acl_file": str(docker_auth.config_file),
            "service": "registry",
        },
    )
    server.start()
    webhook = Webhook(server)
    for name in ("team/app", "bob/app", "ops/app"):
        assert webhook.post(wire_event("push", name, tag="v1")).status_code == 202
    webhook.close()
    server.wait_until_worked_in()
    return server


def seen(server: Server, name: str, password: str | None = None) -> Any:
    """The repositories that an account sees, or the status of the refusal."""
    secret = PASSWORDS.get(name, "x") if password is None else password
    answer = requests.get(server.url + API, auth=(name, secret), timeout=10)
    if answer.status_code != 200:
        return answer.status_code
    return sorted(item["repository"] for item in answer.json()["items"])


def test_the_accounts_and_the_acl_are_those_of_docker_auth(asking: Server) -> None:
    assert seen(asking, "admin") == ["bob/app", "ops/app", "team/app"]
    assert seen(asking, "alice") == ["team/app"]
    assert seen(asking, "bob") == ["bob/app"]


@pytest.mark.parametrize(
    ("name", "password"),
    [("alice", "wrong"), ("alice", ""), ("nobody", "x"), ("", ""), ("", "x"), ("Alice", None)],
)
def test_whom_docker_auth_refuses_is_refused_and_its_anonymous_account_is_none_here(
    asking: Server, name: str, password: str | None
) -> None:
    assert seen(asking, name, password) == 401


def test_the_check_says_that_docker_auth_refuses_a_wrong_password(asking: Server) -> None:
    assert "refuses a wrong password" in asking.rns("check")


def test_a_changed_file_is_in_force_without_a_restart(
    asking: Server, docker_auth: DockerAuth
) -> None:
    assert seen(asking, "alice") == ["team/app"]
    try:
        docker_auth.write(acl=[{"match": {"account": "alice", "name": "ops/*"}, "actions": ["*"]}])
        eventually(lambda: seen(asking, "alice") == ["ops/app"], 15, "the new ACL is in force")
    finally:
        docker_auth.write(acl=ACL)
    eventually(lambda: seen(asking, "alice") == ["team/app"], 15, "the old ACL is in force")


def test_while_docker_auth_is_away_nobody_signs_in_events_come_in_and_tokens_go_on(
    asking: Server, docker_auth: DockerAuth
) -> None:
    token = asking.rns("tokens", "add", "--account", "alice", "--name", "ci").strip()
    bearer = {"Authorization": f"Bearer {token}"}
    docker_auth.stop()
    try:
        refused = requests.get(asking.url + API, auth=("alice", PASSWORDS["alice"]), timeout=10)
        checked = asking.run_rns("check")
        webhook = Webhook(asking)
        accepted = webhook.post(wire_event("push", "team/app", tag="v2"))
        webhook.close()
        read = requests.get(asking.url + API, headers=bearer, timeout=10)
    finally:
        docker_auth.start()

    assert refused.status_code == 503
    assert refused.headers["Retry-After"]
    assert checked.returncode == 1
    assert "docker_auth.token_url: no answer" in checked.stderr
    assert accepted.status_code == 202
    assert [item["repository"] for item in read.json()["items"]] == ["team/app"]
    assert seen(asking, "alice") == ["team/app"]
    assert token not in asking.program.log


@pytest.mark.skipif(not TOKEN_SERVER, reason="the program auth_server is not installed")
def test_the_registry_of_the_compose_file_takes_the_tokens_of_docker_auth(tmp_path: Path) -> None:
    """Registry 3 names the key of a token in another way than registry 2."""
    subprocess.run(["cp", "-r", CHECKOUT / "deploy" / "compose", tmp_path], check=True)
    compose = tmp_path / "compose"
    subprocess.run([compose / "prepare", HOST], check=True, capture_output=True)
    secrets, ports = compose / "secrets", (free_port(), free_port())
    hashed = bcrypt.hashpw(b"password", bcrypt.gensalt(5)).decode()
    docker_auth = yaml.safe_load((compose / "docker_auth.yml").read_text())
    del docker_auth["mongo_auth"], docker_auth["acl_mongo"]
    docker_auth["server"]["addr"] = f"{HOST}:{ports[0]}"
    docker_auth["token"] |= {
        "certificate": str(secrets / "auth.crt"),
        "key": str(secrets / "auth.key"),
    }
    docker_auth |= {"users": {"alice": {"password": hashed}}, "acl": ACL}
    registry = yaml.safe_load((secrets / "registry.yml").read_text())
    registry["storage"]["filesystem"]["rootdirectory"] = str(tmp_path / "storage")
    registry["http"]["addr"] = f"{HOST}:{ports[1]}"
    registry["auth"]["token"]["rootcertbundle"] = str(secrets / "auth.crt")
    del registry["notifications"]
    (compose / "docker_auth.yml").write_text(yaml.safe_dump(docker_auth))
    (compose / "registry.yml").write_text(yaml.safe_dump(registry))
    environment = {"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"}
    asked, url = f"http://{HOST}:{ports[0]}/auth", f"http://{HOST}:{ports[1]}/v2/team/app/tags/list"
    commands = {
        "docker_auth": [TOKEN_SERVER, str(compose / "docker_auth.yml")],
        "registry": [need_program("registry"), "serve", str(compose / "registry.yml")],
    }

    with ExitStack() as running:
        for name, command in commands.items():
            program = Program(name, command, compose, environment)
            running.callback(program.kill_group)
        eventually(lambda: answers(asked, 401) and answers(url, 401), 30, "both answer")
        query = {"service": "registry", "scope": "repository:team/app:pull"}
        told = requests.get(asked, params=query, auth=("alice", "password"), timeout=10).json()
        bearer = {"Authorization": f"Bearer {told['token']}"}
        answer = requests.get(url, headers=bearer, timeout=10)

    assert answer.status_code == 404, answer.text
    assert answer.json()["errors"][0]["code"] == "NAME_UNKNOWN"
