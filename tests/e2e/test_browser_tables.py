"""Tables with names that are hard on them, in a browser of any width."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from browser import broken_words, too_wide
from builders import wire_event
from clients import Webhook
from playwright.sync_api import Page
from processes import Server

pytestmark = pytest.mark.e2e

OpenPage = Callable[..., Page]


@pytest.fixture(scope="module")
def wordy(server: Server) -> str:
    """A namespace of `bob` with 60 records, some of them with names that are hard on a table."""
    names = {0: ("n" * 195, "v1"), 1: ("app", "t" * 128), 2: ("app", f"sha256-{'a' * 64}.sig")}
    webhook = Webhook(server)
    for number in range(60):
        name, tag = names.get(number % 12, ("containers", f"1.{number}"))
        event = wire_event(
            "push" if number % 2 else "pull",
            f"wordy/{name}",
            id=str(uuid.uuid4()),
            at=datetime.now(UTC),
            tag=tag,
            of=f"{name}:{tag}:{number}",
            actor="containerd-of-the-cluster",
            address="[2001:db8:1111:2222:3333:4444:5555:6666]:5000",
            user_agent="containerd/2.1",
        )
        assert webhook.post(event).status_code == 202
    webhook.close()
    server.wait_until_worked_in()
    return "wordy"


@pytest.mark.parametrize(("width", "highest"), [(360, 5000), (768, 2600), (1440, 2400)])
def test_a_long_name_breaks_no_word_and_makes_no_row_higher(
    open_page: OpenPage, wordy: str, width: int, highest: int
) -> None:
    page, wrong = open_page("bob", width), []

    for path in (
        f"/analysis/user/login/?namespace={wordy}",
        f"/search/user/repo/login/?namespace={wordy}",
        f"/search/user/login/?q=^{wordy}/",
        f"/search/repository?repository={wordy}/app",
    ):
        page.goto(path)
        wrong += [f"{path}: {word}" for word in broken_words(page)] + too_wide(page)
        rows = page.locator("table.rows tbody tr")
        heights = {round(box["height"]) for row in rows.all() if (box := row.bounding_box())}
        if width >= 768 and heights != {41}:
            wrong.append(f"{path}: rows of {heights} px")
        if "analysis" in path:
            assert rows.count() == 50
            height = page.evaluate("document.documentElement.scrollHeight")
            if height > highest:
                wrong.append(f"{path}: {height} px high")

    assert not wrong, "\n".join(wrong)


def test_a_name_that_is_cut_is_whole_when_it_has_the_focus(open_page: OpenPage, wordy: str) -> None:
    page = open_page("bob", 768)

    page.goto(f"/search/user/repo/login/?namespace={wordy}&tag=ttt")
    name = page.get_by_role("link", name="t" * 128)
    is_cut = "element => element.scrollWidth > element.clientWidth"
    before = name.evaluate(is_cut)
    name.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")

    assert before
    assert name.get_attribute("title") == "t" * 128
    assert not name.evaluate(is_cut)
    assert too_wide(page) == []


def test_an_address_that_is_whole_makes_the_page_no_wider(open_page: OpenPage, wordy: str) -> None:
    page = open_page("bob", 1440)

    page.goto(f"/analysis/user/login/?namespace={wordy}")
    page.get_by_role("link", name="2001:db8:1111:2222:3333:4444:5555:6666").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")

    assert page.evaluate("document.activeElement.getBoundingClientRect().right") <= 1440
    assert too_wide(page) == []


def test_what_has_the_focus_is_not_under_the_head_of_its_table(
    open_page: OpenPage, wordy: str
) -> None:
    page = open_page("bob", 1440)
    page.emulate_media(reduced_motion="reduce")  # or the page still moves

    page.goto(f"/analysis/user/login/?namespace={wordy}")
    page.locator("tbody a").last.focus()
    for _ in range(200):
        page.keyboard.press("Shift+Tab")
    focus = page.locator("tbody a:focus").bounding_box()
    head = page.locator("thead th").first.bounding_box()

    assert focus
    assert head
    assert focus["y"] >= head["y"] + head["height"] - 1


def test_a_token_with_a_long_name_makes_no_page_wider_and_no_row_higher(
    open_page: OpenPage,
) -> None:
    page, name = open_page("alice", 768), "long-name-" * 6

    page.goto("/account")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("button", name="Make a token").click()
    page.goto("/account")
    wide = too_wide(page)
    rows = page.locator("section[aria-labelledby=tokens] tbody tr")
    heights = {round(box["height"]) for row in rows.all() if (box := row.bounding_box())}
    page.get_by_role("button", name=f"Revoke the token {name}").click()

    assert wide == []
    assert heights == {41}


def post_what_is_rejected(server: Server) -> None:
    """Events whose names are no names, and as long as they may be."""
    webhook = Webhook(server)
    for tag in ("t" * 300, "with blanks and more of them " * 9):
        event = wire_event("push", "wordy/app", id=str(uuid.uuid4()), at=datetime.now(UTC), tag=tag)
        assert webhook.post(event).status_code == 202
    webhook.close()
    server.wait_until_worked_in()


def test_a_long_reason_makes_no_row_higher_and_unfolds(open_page: OpenPage, server: Server) -> None:
    post_what_is_rejected(server)
    page = open_page("admin", 1440)

    page.goto("/wiring/rejected")
    rows = page.locator("table.rows tbody tr")
    heights = {round(box["height"]) for row in rows.all() if (box := row.bounding_box())}
    reason = rows.locator("summary", has_text="t" * 20).first
    is_cut = "element => element.scrollWidth > element.clientWidth"
    before = reason.evaluate(is_cut)
    reason.click()

    assert rows.count() >= 2
    assert heights == {41}
    assert before
    assert not reason.evaluate(is_cut)
    assert too_wide(page) == []


def test_an_account_with_a_long_name_makes_no_page_wider(
    open_page: OpenPage, server: Server
) -> None:
    page = open_page("alice", 360)

    page.goto("/search/")
    page.locator("header .account").evaluate("link => { link.textContent = 'robot-'.repeat(20); }")

    assert too_wide(page) == []
