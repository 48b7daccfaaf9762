"""Every command of the store is looked at: on a cluster it has to find its shard."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import ferretdb
import pytest
from pymongo import monitoring
from routing import Routes

routes = Routes()
monitoring.register(routes)


def pytest_sessionfinish() -> None:
    routes.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if ferretdb.IS_MEANT:
        ferretdb.leave_out(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if ferretdb.IS_MEANT and report.failed and call.excinfo:
        ferretdb.explain(report, call.excinfo.value)
    return report


@pytest.fixture(autouse=True)
def every_command_finds_its_shard() -> Iterator[None]:
    """What the store sends goes where docs/scaling.md says; see routing.py."""
    yield
    assert routes.take_findings() == []
