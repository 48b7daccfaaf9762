"""Writes every page as it looks with the data of `rns demo`, into build/screenshots/.

    make screenshots

A server of its own is started on a free port, with an embedded database in a temporary directory.
Each page is taken in every language, at 360, 768 and 1440 px, light and dark. Printed are its
height, and a page that is wider than its window.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import requests
from playwright.sync_api import Browser, Page, sync_playwright

CHECKOUT = Path(__file__).resolve().parents[1]
TARGET = CHECKOUT / "build" / "screenshots"
LANGUAGES = ("en", "zh-Hans")
WIDTHS = (360, 768, 1440)
READY_S = 120
PAGES = {
    "home": "/search/",
    "repositories": "/search/user/login/",
    "tags": "/search/user/repo/login/",
    "search": "/search/all?q=api",
    "records": "/analysis/user/login/",
    "dashboard": "/analysis/",
    "unused": "/analysis/unused",
    "storage": "/analysis/storage",
    "recall": "/analysis/recall",
    "migration": "/migration/",
    "registries": "/registries/",
    "wiring": "/wiring/",
    "rejected": "/wiring/rejected",
    "sign-ins": "/access/sign-ins",
    "explain": "/access/",
    "tokens": "/access/tokens",
    "api": "/api/",
    "own-account": "/account",
    "not-found": "/search/nothing-here",
}
# Pages of one thing: the page with a link to it, and what its address begins with.
LINKED = {
    "repository": ("repositories", "/search/repository"),
    "tag": ("tags", "/search/tag"),
    "digest": ("tags", "/search/digest"),
    "record": ("records", "/analysis/record"),
    "account": ("records", "/analysis/account"),
    "address": ("records", "/analysis/address"),
}


class Look(NamedTuple):
    """How a reader has the pages."""

    language: str
    width: int
    scheme: str


def main() -> None:
    """Start, take all, stop."""
    with TemporaryDirectory() as directory, served(Path(directory)) as url:
        password = (Path(directory) / "data" / "first_password").read_text().strip()
        with sync_playwright() as playwright:
            program = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            for look in product(LANGUAGES, WIDTHS, ("light", "dark")):
                take_all(browser, url, password, Look(*look))


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """The address of a server with the demonstration data; it stops at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{probe.getsockname()[1]}"
    environment = {**os.environ, "RNS_SERVER__BIND": bind, "PYTHONPATH": str(CHECKOUT)}
    rns = [sys.executable, "-m", "app"]
    with (directory / "log").open("w") as log:
        server = subprocess.Popen([*rns, "serve"], cwd=directory, env=environment, stderr=log)
        try:
            wait_until_ready(f"http://{bind}/readyz")
            subprocess.run([*rns, "demo"], cwd=directory, env=environment, check=True)
            yield f"http://{bind}"
        finally:
            server.terminate()
            server.wait()


def wait_until_ready(url: str) -> None:
    """Raises TimeoutError after two minutes."""
    deadline = time.monotonic() + READY_S
    with requests.Session() as session:
        session.trust_env = False  # no proxy
        while time.monotonic() < deadline:
            with suppress(requests.RequestException):
                if session.get(url, timeout=3).ok:
                    return
            time.sleep(0.2)
    raise TimeoutError(f"{url} is not ready")


def take_all(browser: Browser, url: str, password: str, look: Look) -> None:
    """Every page of one look."""
    context = browser.new_context(
        base_url=url,
        viewport={"width": look.width, "height": 900},
        color_scheme=look.scheme,  # type: ignore[arg-type]
        locale=look.language,
    )
    context.set_default_timeout(1000 * READY_S)
    page = context.new_page()
    page.goto("/login")
    take(page, "login", look)
    page.locator("#username").fill("admin")
    page.locator("#password").fill(password)
    page.locator("#password").press("Enter")
    page.locator('form[action="/logout"]').wait_for()
    found: dict[str, str] = {}
    for name, path in PAGES.items():
        page.goto(path)
        take(page, name, look)
        for linked, (on, begin) in LINKED.items():
            link = page.locator(f'main a[href^="{begin}"]').first
            if on == name and link.count():
                found[linked] = link.get_attribute("href") or ""
    for name in LINKED:
        if name in found:
            page.goto(found[name])
            take(page, name, look)
        else:
            print(f"{name}: no link to one was found")
    context.close()


def take(page: Page, name: str, look: Look) -> None:
    """Write the picture of the page that is shown, and print its height."""
    folder = TARGET / f"{look.language}-{look.width}-{look.scheme}"
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)
    root = "document.documentElement"
    height, wide = page.evaluate(f"[{root}.scrollHeight, {root}.scrollWidth]")
    remark = f"  WIDER THAN ITS WINDOW: {wide} px" if wide > look.width else ""
    print(f"{folder.name:20} {name:14} {height:6} px{remark}", flush=True)


if __name__ == "__main__":
    main()
