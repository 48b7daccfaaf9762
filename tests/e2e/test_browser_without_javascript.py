"""The main ways through the pages without JavaScript."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from browser import fill_in_account
from builders import wire_event
from clients import Webhook
from playwright.sync_api import Page, expect
from processes import Server

pytestmark = pytest.mark.e2e

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def plain(server: Server) -> str:
    """A repository of `bob` with 120 pushes of as many tags."""
    webhook = Webhook(server)
    for number in range(120):
        event = wire_event(
            "push", "plain/app", id=str(uuid.uuid4()), at=datetime.now(UTC), tag=f"1.{number}"
        )
        assert webhook.post(event).status_code == 202
    webhook.close()
    server.wait_until_worked_in()
    return "plain/app"


def choose(page: Page, name: str, value: str) -> None:
    """A choice of *View*."""
    page.locator("details.look > summary").click()
    page.locator(f'button[name="{name}"][value="{value}"]').click()


def test_a_list_is_filtered_paged_and_sorted(open_page: OpenPage, plain: str) -> None:
    page = open_page("bob", javascript=False)

    page.goto("/search/user/repo/login/")
    page.get_by_text("More filters").click()
    page.get_by_label("Namespace").fill("plain")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("tbody tr")).to_have_count(50)
    page.get_by_role("link", name="Next page").first.click()
    second = page.url
    page.get_by_role("link", name="Next page").first.click()
    expect(page.locator("tbody tr")).to_have_count(20)
    page.get_by_role("link", name="Previous page").first.click()
    assert page.url == second
    page.get_by_role("link", name="Pushed", exact=True).click()

    expect(page.locator("th[aria-sort]")).to_contain_text("Pushed")
    expect(page.locator(".chip").first).to_contain_text("plain")
    page.get_by_role("link", name="Remove Namespace").click()
    assert "namespace=" not in page.url


def test_what_a_reader_chose_holds_on_the_same_page(open_page: OpenPage, plain: str) -> None:
    page = open_page("bob", javascript=False)
    html = page.locator("html")

    page.goto("/search/user/repo/login/?namespace=plain")
    choose(page, "rows", "100")
    expect(page.locator("tbody tr")).to_have_count(100)
    choose(page, "theme", "dark")
    expect(html).to_have_attribute("data-bs-theme", "dark")
    choose(page, "times", "utc")
    expect(html).to_have_attribute("data-times", "utc")
    choose(page, "language", "zh-Hans")
    expect(html).to_have_attribute("lang", "zh-Hans")

    assert page.url.endswith("/search/user/repo/login/?namespace=plain")


def test_a_recall_is_asked_and_days_without_use_are_slid(open_page: OpenPage, plain: str) -> None:
    page = open_page("bob", javascript=False)

    page.goto("/analysis/recall")
    page.locator("#image").fill(f"{plain}:1.7")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("main")).to_contain_text(f"What {plain}:1.7 pointed to")
    page.goto("/analysis/unused?days=90")
    page.locator("#slide").press("End")
    page.get_by_role("button", name="Show").click()

    page.wait_for_url("**/analysis/unused?*days=365*")


def test_somebody_signs_in_and_out_and_finds_no_button_that_does_nothing(
    open_page: OpenPage, plain: str
) -> None:
    page = open_page(javascript=False)

    page.goto(f"/login?next=/search/tag?repository={plain}%26tag=1.7")
    fill_in_account(page, "bob")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"{plain}:1.7")
    assert page.locator("button.copy").count() == 2
    assert page.locator("button.copy:visible").count() == 0
    page.get_by_role("button", name="Sign out").click()

    page.wait_for_url(re.compile("/login"))
