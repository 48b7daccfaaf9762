"""A real registry that notifies a real server, and the people who use both."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import images
import pytest
from browser import CHROMIUM, TIMEOUT_MS, sign_in, watch
from clients import Account, DockerClient, Skopeo, Webhook
from engine import Engine
from playwright.sync_api import Browser, Page, sync_playwright
from processes import LOGS, Registry, Server, cleaned_up, need_program

LONGEST = (
    "test_migration_whole.py",
    "test_migration_verdict.py",
    "test_migration_patience.py",
    "test_image.py",
)
LOG_TAIL = 4_000  # characters of each log in the report of a failed test


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that no process waits for one alone at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    report = yield
    if report.failed and Path(__file__).parent in item.path.parents:
        for name, file in LOGS.items():
            if file.exists():
                text = file.read_text("utf-8", "replace")[-LOG_TAIL:]
                report.sections.append((f"log {name}", text))
    return report


@contextmanager
def servers(directories: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Makes servers, each in a directory of its own; the caller starts them. All end with it."""
    with ExitStack() as stack:

        def make(**config: Any) -> Server:
            server = Server(directories.mktemp("rns"), config)
            return stack.enter_context(cleaned_up(server))

        yield make


@pytest.fixture
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Make a server for one test."""
    with servers(tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="module")
def make_module_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Make a server for the tests of a module."""
    with servers(tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="session")
def make_session_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., Server]]:
    """Make a server for all tests."""
    with servers(tmp_path_factory) as make:
        yield make


@pytest.fixture(scope="session")
def server(make_session_server: Callable[..., Server]) -> Server:
    """A running server: `alice` may see team/*, `bob` all of two parts, `mallory` nothing.

    It has a migration that nobody works on, of one repository.
    """
    server = make_session_server()
    endpoints = {
        side: {"url": f"http://127.0.0.1:{port}", "plain_http": True}
        for side, port in (("source", 9), ("target", 10))
    }
    plan = {"name": "dc2", **endpoints, "repos": {"include": ["team/shop"]}}
    server.configure(migrations=[plan])
    server.start()
    for name in ("alice", "bob", "mallory"):
        server.add_account(name)
    server.add_acl_entry(10, "alice", "team/*")
    server.add_acl_entry(20, "bob", "*/*")
    server.add_account_of_administrator()
    return server


@pytest.fixture(scope="session")
def registry(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A running registry that notifies `server`."""
    need_program("docker-registry")
    with cleaned_up(Registry(tmp_path_factory.mktemp("registry"), server)) as registry:
        registry.start()
        yield registry


@pytest.fixture(scope="session")
def skopeo(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Skopeo]:
    """skopeo as an account: `skopeo("alice").pull(…)`."""
    need_program("skopeo")
    home = tmp_path_factory.mktemp("home")
    return lambda name: Skopeo(registry, name, home)


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A running Docker engine."""
    for program in ("docker", "dockerd", "containerd", "ctr"):
        need_program(program)
    if os.geteuid() != 0:
        pytest.skip("only root starts a Docker engine")
    with cleaned_up(Engine(tmp_path_factory.mktemp("engine"))) as engine:
        engine.start()
        yield engine


@pytest.fixture
def docker(registry: Registry) -> Iterator[Callable[[str], DockerClient]]:
    """The requests of docker as an account: `docker("alice").pull(…)`."""
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(closing(DockerClient(registry, name)))


@pytest.fixture
def alice(server: Server) -> Iterator[Account]:
    with closing(Account(server, "alice")) as account:
        yield account


@pytest.fixture
def mallory(server: Server) -> Iterator[Account]:
    with closing(Account(server, "mallory")) as account:
        yield account


@pytest.fixture
def webhook(server: Server) -> Iterator[Webhook]:
    with closing(Webhook(server)) as webhook:
        yield webhook


_numbers = count(1)


@pytest.fixture
def repository() -> str:
    """A name that no other test uses, and that `alice` may see."""
    return f"team/app-{next(_numbers)}"


@pytest.fixture
def build_image(tmp_path: Path) -> Callable[..., images.Image]:
    return lambda seed: images.build_image(tmp_path / f"image-{next(_numbers)}", seed)


@pytest.fixture
def build_index(tmp_path: Path) -> Callable[..., images.Image]:
    return lambda seed: images.build_index(tmp_path / f"index-{next(_numbers)}", seed)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    path = need_program("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def sessions(browser: Browser, server: Server) -> Callable[[str], Any]:
    """The cookies of an account that signed in on the sign-in page, once for all tests."""

    @cache
    def session_of(name: str) -> Any:
        with browser.new_context(base_url=server.url) as context:
            sign_in(context.new_page(), name)
            return context.storage_state()

    return session_of


@pytest.fixture
def open_page(
    browser: Browser, server: Server, sessions: Callable[[str], Any]
) -> Iterator[Callable[..., Page]]:
    """A page in a window of its own, signed in or not; at its end nothing may have gone wrong."""
    with ExitStack() as stack:
        problems: list[list[str]] = []

        def open_page(
            account: str = "", width: int = 1440, scheme: Any = "light", javascript: bool = True
        ) -> Page:
            context = browser.new_context(
                base_url=server.url,
                viewport={"width": width, "height": 900},
                color_scheme=scheme,
                java_script_enabled=javascript,
                storage_state=sessions(account) if account else None,
            )
            stack.enter_context(context)
            page = context.new_page()
            page.set_default_timeout(TIMEOUT_MS)
            problems.append(watch(page, server.url))
            return page

        yield open_page
        assert [problem for of_page in problems for problem in of_page] == []
