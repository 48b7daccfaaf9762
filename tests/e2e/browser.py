"""A real browser, and everything that it may complain about."""

from __future__ import annotations

from playwright.sync_api import ConsoleMessage, Page, Request, Response
from processes import PASSWORDS

CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_MS = 10_000


def watch(page: Page, url: str) -> list[str]:
    """A list that fills with what goes wrong on a page of the server at `url`.

    Messages of the console, violations of the content security policy among them, scripts that
    fail, parts of a page that do not load, errors of the server, and requests to anybody else.
    Whether a page itself may be refused is for the test to judge.
    """
    problems: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        is_status = message.text.startswith("Failed to load resource")  # see on_response
        if message.type in ("error", "warning") and not is_status:
            problems.append(f"{page.url}: console: {message.text}")

    def on_request(request: Request) -> None:
        if not request.url.startswith((f"{url}/", "data:")):
            problems.append(f"{page.url}: asks {request.url}")

    def on_response(response: Response) -> None:
        is_page = response.request.resource_type == "document"
        if response.status >= (500 if is_page else 400):
            problems.append(f"{page.url}: {response.status} for {response.url}")

    def on_request_failed(request: Request) -> None:
        # A page that is left, or one that turns out to be a download, is aborted.
        if request.failure != "net::ERR_ABORTED":
            problems.append(f"{page.url}: {request.failure} for {request.url}")

    page.on("console", on_console)
    page.on("request", on_request)
    page.on("response", on_response)
    page.on("requestfailed", on_request_failed)
    page.on("pageerror", lambda error: problems.append(f"{page.url}: script: {error}"))
    return problems


def fill_in_account(page: Page, name: str, password: str | None = None) -> None:
    """Fill user name and password into the form that is shown."""
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(PASSWORDS[name] if password is None else password)


def sign_in(page: Page, name: str) -> None:
    """Sign in on the sign-in page."""
    page.goto("/login")
    fill_in_account(page, name)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()


def main_text(page: Page) -> str:
    """What stands in the middle of the page."""
    return page.locator("main").inner_text()


def too_wide(page: Page) -> list[str]:
    """The page, if it is wider than its window, and the texts that stick out of it."""
    return list(page.evaluate(TOO_WIDE))


TOO_WIDE = """() => {
    if (document.documentElement.scrollWidth <= innerWidth) return [];
    const found = [location.pathname];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const [text, parent] = [texts.currentNode.data.trim(), texts.currentNode.parentElement];
        const range = document.createRange();
        range.selectNodeContents(texts.currentNode);
        if (text && !parent.closest("thead") && range.getBoundingClientRect().right > innerWidth)
            found.push(`  <${parent.closest("[class]").className}> ${text.slice(0, 60)}`);
    }
    return found;
}"""


def broken_words(page: Page) -> list[str]:
    """The words in cells of tables that stand on more than one line."""
    return list(page.evaluate(BROKEN_WORDS))


BROKEN_WORDS = r"""() => {
    const found = [];
    for (const cell of document.querySelectorAll("table.rows :is(td, th)")) {
        const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
        while (texts.nextNode()) {
            for (const word of texts.currentNode.data.matchAll(/\S+/g)) {
                const range = document.createRange();
                range.setStart(texts.currentNode, word.index);
                range.setEnd(texts.currentNode, word.index + word[0].length);
                const lines = new Set([...range.getClientRects()].map(at => Math.round(at.top)));
                if (lines.size > 1) found.push(word[0].slice(0, 60));
            }
        }
    }
    return found;
}"""


def unlabelled_fields(page: Page) -> list[str]:
    """The names of the fields that a screen reader cannot name."""
    script = """[...document.querySelectorAll("input:not([type=hidden]), select")]
        .filter(field => !field.labels.length).map(field => field.name)"""
    return list(page.evaluate(script))
