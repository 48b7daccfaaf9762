"""`rns catalogue` on a wire server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from builders import IMAGE, digest
from command_line import Run, rows

from app.migration import catalogue_check
from app.registry import RegistryClient, RegistryError
from app.rules.events import Descriptor
from app.server import catalogue_checks

pytestmark = pytest.mark.wire


def test_an_import_needs_the_address_of_a_registry(run: Run) -> None:
    for command in ("import", "check"):
        result = run("catalogue", command)

        assert (result.status, result.err) == (1, "rns: registries: default has no url\n")


class Source(RegistryClient):
    """A registry that has one tag, which nobody told of."""

    def catalog(self, last: str = "") -> Iterator[list[str]]:
        yield ["team/app"]

    def tags(self, repository: str) -> list[str]:
        return ["v1"]

    def head_manifest(self, repository: str, reference: str, known: str = "") -> Descriptor:
        return Descriptor(digest("image"), 500, IMAGE)


class Unmounted(Source):
    """A registry that cannot read its storage."""

    def catalog(self, last: str = "") -> Iterator[list[str]]:
        yield []

    def tags(self, repository: str) -> list[str]:
        return []

    def head_manifest(self, repository: str, reference: str, known: str = "") -> Descriptor:
        raise RegistryError("gone", "there is none")


def test_what_no_event_told_of_is_listed_and_repaired_if_asked_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yml").write_text('registries: [{url: "https://old.invalid"}]')
    monkeypatch.setattr(catalogue_checks, "RegistryClient", Source)
    monkeypatch.setattr(catalogue_check, "time", Mock(sleep=lambda seconds: None))

    found = run("catalogue", "check", "--json")
    (row,) = rows(found)
    assert (found.status, found.err) == (1, "rns: 1 differences between catalogue and registry\n")
    assert (row["kind"], row["repository"], row["tag"]) == ("unheard", "team/app", "v1")

    repaired = run("catalogue", "check", "--repair")
    assert (repaired.status, repaired.out.split()[6]) == (0, "unheard")

    assert rows(run("catalogue", "check", "--json")) == []
    assert run("catalogue", "check", "--registry", "other").status == 1
    meant_otherwise = run("catalogue", "check", "--force")
    assert meant_otherwise.status == 2
    assert "--force is for --repair" in meant_otherwise.err

    monkeypatch.setattr(catalogue_checks, "RegistryClient", Unmounted)
    refused = run("catalogue", "check", "--repair")
    assert refused.status == 1
    assert "1 of 1 tags are gone" in refused.err
    assert refused.err.endswith("until rns catalogue check --registry default --repair --force\n")
    assert run("catalogue", "check", "--repair", "--force").status == 0
