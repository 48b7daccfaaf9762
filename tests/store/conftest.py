"""Every command of the store is looked at: on a cluster it has to find its shard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pymongo import monitoring
from routing import Routes

routes = Routes()
monitoring.register(routes)


def pytest_sessionfinish() -> None:
    routes.end()


@pytest.fixture(autouse=True)
def every_command_finds_its_shard() -> Iterator[None]:
    """What the store sends goes where docs/scaling.md says; see routing.py."""
    yield
    assert routes.take_findings() == []
