"""What stands in `deploy/`, looked at by the programs that it is for."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
import requests
import yaml
from builders import wire_event
from clients import Webhook
from processes import CHECKOUT, HOST, Server, eventually, need_program

pytestmark = pytest.mark.e2e

DEPLOY = CHECKOUT / "deploy"
CHART = DEPLOY / "helm" / "registry-notification-server"
RULES = DEPLOY / "prometheus" / "rules.yml"
DASHBOARD = DEPLOY / "grafana" / "dashboard.json"
METRIC = re.compile(r"\b(?:rns|registry_notifications)_[a-z_]+\b")


def output(*command: str | Path, **options: object) -> str:
    """What a program prints; fails with its words."""
    answer = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return str(answer.stdout)


def test_promtool_takes_the_alerts() -> None:
    assert "SUCCESS" in output(need_program("promtool"), "check", "rules", RULES)


def test_every_metric_of_ours_in_alerts_and_dashboard_is_told(
    make_server: Callable[..., Server],
) -> None:
    source, target = ({"url": f"http://{HOST}:{port}", "plain_http": True} for port in (9, 10))
    server = make_server(server={"metrics_token": "m"})
    server.configure(migrations=[{"name": "dc2", "source": source, "target": target}])
    wanted = {
        name
        for name in names_in(RULES.read_text()) | names_in(DASHBOARD.read_text())
        if name.startswith("rns_")
    }
    server.start()
    told: set[str] = set()

    def all_told() -> bool:
        answer = requests.get(
            f"{server.url}/metrics", headers={"Authorization": "Bearer m"}, timeout=10
        )
        lines = [row for row in answer.text.splitlines() if row.startswith("# TYPE ")]
        told.update(names_in("\n".join(lines)))
        return wanted <= told

    with (
        socket.create_connection((HOST, server.port)),  # which says nothing, and is cut off
        closing(Webhook(server)) as webhook,
        suppress(AssertionError),
    ):
        assert webhook.is_acknowledged(wire_event(at=datetime.now(UTC)))
        eventually(all_told, 15, "all are told", every=1)
    assert wanted - told == set()


def test_the_dashboard_asks_only_the_chosen_prometheus() -> None:
    dashboard = json.loads(DASHBOARD.read_text())

    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {"${datasource}"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


@pytest.mark.parametrize("unit", ["rns.service", "rns-worker@.service"])
def test_systemd_takes_the_units(unit: str, tmp_path: Path) -> None:
    text = (DEPLOY / "systemd" / unit).read_text()
    assert "ExecStart=/opt/rns/bin/rns " in text
    (tmp_path / unit).write_text(text.replace("/opt/rns/bin/rns", "/bin/true"))

    answer = subprocess.run(
        [need_program("systemd-analyze"), "verify", tmp_path / unit],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (answer.returncode, [row for row in answer.stderr.splitlines() if unit in row]) == (
        0,
        [],
    )


def test_compose_takes_the_file_and_what_was_prepared(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    for name in ("compose.yml", "config.yml", "Dockerfile", "deploy/compose"):
        subprocess.run(["cp", "-r", CHECKOUT / name, tmp_path / name], check=True)
    subprocess.run(["rm", "-rf", tmp_path / "deploy/compose/secrets"], check=True)
    prepare = tmp_path / "deploy/compose/prepare"

    output(prepare, "registry.example.org")
    secrets = prepare.parent / "secrets"
    token = (secrets / "events-token").read_text()
    output(prepare, "registry.example.org")

    assert (secrets / "events-token").read_text() == token
    assert secrets.stat().st_mode & 0o077 == 0
    registry = yaml.safe_load((secrets / "registry.yml").read_text())
    (endpoint,) = registry["notifications"]["endpoints"]
    assert endpoint["headers"] == {"Authorization": [f"Bearer {token.strip()}"]}
    docker_auth = yaml.safe_load((prepare.parent / "docker_auth.yml").read_text())
    for section in ("mongo_auth", "acl_mongo"):
        # Its driver takes no URI without a name.
        place = docker_auth[section]["dial_info"]
        assert place["username"] in (prepare.parent / "mongodb.js").read_text()
        assert (secrets / Path(place["password_file"]).name).read_text().strip()
    composed = yaml.safe_load(output(need_program("docker-compose"), "config", cwd=tmp_path))
    assert composed["services"]["registry"]["image"] == "registry:3"
    assert docker_auth["token"]["disable_legacy_key_id"] is True  # registry 3 takes no other
    for service in composed["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0] if isinstance(volume, str) else volume["source"]
            assert not source.startswith("/") or Path(source).exists(), source


def test_the_kubernetes_file_is_what_the_chart_makes() -> None:
    """`docs/containers.md` tells how the file is made."""
    helm = need_program("helm")

    assert output(helm, "template", "rns", CHART) == (DEPLOY / "kubernetes/rns.yaml").read_text()
    output(helm, "lint", "--strict", CHART)


def test_all_that_the_chart_can_make_is_what_kubernetes_knows(tmp_path: Path) -> None:
    helm = need_program("helm")
    switches = ("worker.enabled", "ingress.enabled", "serviceMonitor.enabled")

    made = output(helm, "template", "rns", CHART, *(f"--set={name}=true" for name in switches))

    kinds = [document["kind"] for document in yaml.safe_load_all(made)]
    assert sorted(kinds) == [
        *("ConfigMap", "Deployment", "Deployment", "Ingress", "PodDisruptionBudget"),
        *("Service", "ServiceMonitor"),
    ]


def names_in(text: str) -> set[str]:
    """The metrics that a text names, without what a histogram or counter adds."""
    return {re.sub("_(bucket|total)$", "", name) for name in METRIC.findall(text)}
