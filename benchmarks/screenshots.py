"""Writes every page as it looks with the data of `rns demo`, into build/screenshots/.

    make screenshots                    # every page
    make pictures                       # the parts that docs/pages.md shows, into docs/images/

A server of its own is started on a free port, with an embedded database in a temporary directory;
its days are summarised first, which takes two minutes. Each page is taken in every language, at
360, 768 and 1440 px, light and dark. Printed are its height, and a page that is wider than its
window. Chinese takes a font that has it, as Debian's fonts-wqy-microhei.
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

from app.store.usage.days import OPEN

CHECKOUT = Path(__file__).resolve().parents[1]
TARGET = CHECKOUT / "build" / "screenshots"
PICTURES = CHECKOUT / "docs" / "images"
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


class Part(NamedTuple):
    """An element of a page, its first `height` px; `sample` is shown in place of the page."""

    path: str
    selector: str
    width: int = 992
    height: int = 2000
    scheme: str = "light"
    sample: str = ""


ACTIONS = " ".join(
    f'<span class="badge action-{action}">{action}</span>'
    for action in ("push", "pull", "delete", "check", "mount", "rename")
)
TYPE = (
    '<h1 class="h3">Heading of a page</h1><h2 class="h5">Heading of a part</h2>'
    "<p>Text, cells, <a href='#'>a link</a>, <code>a command</code></p>"
    "<dl class='facts'><div><dt>Label of a fact</dt><dd>3 h ago "
    "<span class='exact'>2026-11-28 09:30:00 UTC</span></dd></div></dl>"
)
TAG = "/search/tag?repository=platform/base/python&tag=3.12&registry=demo"
PARTS = {
    "head": Part("/search/", "header", 1440),
    "head-phone": Part("/search/", "header", 360),
    "type": Part("/search/", "main", 480, sample=TYPE),
    "colours-light": Part("/search/", "main", 480, sample=ACTIONS),
    "colours-dark": Part("/search/", "main", 480, scheme="dark", sample=ACTIONS),
    "list": Part("/analysis/user/login/?registry=demo", "table.rows", 1440, 165),
    "list-phone": Part("/analysis/user/login/?registry=demo", "table.rows", 360, 229),
    "filters": Part("/analysis/user/login/?action=pull&actor=ci-web", ".titled"),
    "facts": Part(TAG, "dl.facts"),
    "copy": Part(TAG, "main p:has(button.copy)", 768),
    "chart": Part("/analysis/?days=30&registry=demo", "section[aria-labelledby=over-time]"),
    "hours": Part("/analysis/?days=30&registry=demo", "section[aria-labelledby=week]"),
}


def main() -> None:
    """Start, take all or the parts, stop."""
    with TemporaryDirectory() as directory, served(Path(directory)) as url:
        password = (Path(directory) / "data" / "first_password").read_text().strip()
        with sync_playwright() as playwright:
            program = shutil.which("chromium")
            browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
            if sys.argv[1:] == ["parts"]:
                take_parts(browser, url, password)
                return
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
            time.sleep(OPEN.total_seconds() + 1)  # days rest so long before they are summarised
            subprocess.run([*rns, "usage", "refresh"], cwd=directory, env=environment, check=True)
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


def open_page(browser: Browser, url: str, look: Look) -> Page:
    """The page on which one signs in, in a context of its own."""
    context = browser.new_context(
        base_url=url,
        viewport={"width": look.width, "height": 900},
        color_scheme=look.scheme,  # type: ignore[arg-type]
        locale=look.language,
    )
    context.set_default_timeout(1000 * READY_S)
    page = context.new_page()
    page.goto("/login")
    return page


def sign_in(page: Page, password: str) -> None:
    """Sign in as the administrator."""
    page.locator("#username").fill("admin")
    page.locator("#password").fill(password)
    page.locator("#password").press("Enter")
    page.locator('form[action="/logout"]').wait_for()


def take_all(browser: Browser, url: str, password: str, look: Look) -> None:
    """Every page of one look."""
    page = open_page(browser, url, look)
    take(page, "login", look)
    sign_in(page, password)
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
    page.context.close()


def take_parts(browser: Browser, url: str, password: str) -> None:
    """A picture of each of PARTS, with its size in bytes printed."""
    for name, part in PARTS.items():
        page = open_page(browser, url, Look("en", part.width, part.scheme))
        sign_in(page, password)
        page.goto(part.path)
        element = page.locator(part.selector).first
        if part.sample:
            element.evaluate("(element, sample) => { element.innerHTML = sample; }", part.sample)
        box = element.bounding_box()
        assert box
        file = PICTURES / f"part-{name}.png"
        clip = {**box, "height": min(box["height"], part.height)}
        page.screenshot(path=file, full_page=True, clip=clip)  # type: ignore[arg-type]
        print(f"{file.name:24} {file.stat().st_size:6} B", flush=True)
        page.context.close()


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
