"""The wheel brings all that the server needs, and runs without the checkout."""

from __future__ import annotations

import subprocess
import sys
from email.parser import Parser
from pathlib import Path

import pytest
import requests
import yaml
from processes import CHECKOUT, Server, cleaned_up

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what the wheel brings, without its dependencies."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    copied = ("app", "setup.cfg", "setup.py", "README.md", "LICENSE", "config.yml")
    source.mkdir()
    subprocess.run(
        ["cp", "-r", *(CHECKOUT / name for name in copied), source], check=True
    )  # a build leaves files where it was
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    quick = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *quick, "-w", directory, source], check=True)
    (wheel,) = directory.glob("*.whl")
    target = directory / "installed"
    subprocess.run([*pip, "install", *quick, "--target", target, wheel], check=True)
    return target


def test_the_wheel_names_the_embedded_database_as_an_extra(installed: Path) -> None:
    (metadata,) = installed.glob("*.dist-info/METADATA")
    told = Parser().parsestr(metadata.read_text())

    assert told["Name"] == "registry-notification-server"
    assert told.get_all("Provides-Extra") == ["embedded"]
    assert [row for row in told.get_all("Requires-Dist") or [] if "SecantusDB" in row]
    assert not (installed / "tests").exists()


def test_what_is_installed_serves_pages_from_any_directory(installed: Path, tmp_path: Path) -> None:
    with cleaned_up(Server(tmp_path / "server", code=installed)) as server:
        sample = subprocess.run(
            [sys.executable, "-m", "app", "config"],
            cwd=tmp_path,
            env=server.environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert sample == (CHECKOUT / "config.yml").read_text()
        server.configure(analysis=yaml.safe_load(sample)["analysis"])

        server.start()

        page = requests.get(f"{server.url}/login", timeout=10)
        assert page.status_code == 200
        styles = page.text.split('rel="stylesheet" href="')[1].split('"')[0]
        assert requests.get(f"{server.url}{styles}", timeout=10).status_code == 200


def test_a_broken_configuration_does_not_hold_up_the_sample(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text("server: {foo: 1}")

    answer = subprocess.run(
        [sys.executable, "-m", "app", "config"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert yaml.safe_load(answer.stdout)["server"]["workers"] == 2
