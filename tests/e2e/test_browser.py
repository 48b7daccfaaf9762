"""The pages in a browser: as somebody who may see something, and as somebody who may not."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import images
import pytest
import requests
from axe_playwright_python.sync_playwright import Axe
from browser import fill_in_account, main_text, sign_in, too_wide, unlabelled_fields
from builders import INDEX, digest, wire_event
from clients import Skopeo, Webhook
from playwright.sync_api import Page, expect
from processes import Registry, Server

pytestmark = pytest.mark.e2e

OpenPage = Callable[..., Page]

SCREENSHOTS = os.environ.get("RNS_SCREENSHOTS")  # a directory to keep a picture of each page in

VISIBLE = "team/shop"
HIDDEN = "secret/vault"
HIDDEN_TAG = "hidden-tag"
LONG = f"long/{'a-name-without-end-' * 13}x"[:255].rstrip("-")  # only `bob` may see it
LONG_TAG = ("tag_without_end_" * 8)[:128]


class Pushed(NamedTuple):
    """What the registry holds: an index in both repositories, one more image to see."""

    visible: images.Image
    hidden: images.Image


@pytest.fixture(scope="session")
def pushed(
    server: Server,
    registry: Registry,
    skopeo: Callable[[str], Skopeo],
    tmp_path_factory: pytest.TempPathFactory,
) -> Pushed:
    directory = tmp_path_factory.mktemp("pushed")
    visible = images.build_index(directory / "visible", "shop")
    hidden = images.build_index(directory / "hidden", "vault")
    skopeo("ci-bot").push(visible, f"{VISIBLE}:v1")
    skopeo("ci-bot").push(hidden, f"{HIDDEN}:{HIDDEN_TAG}")
    skopeo("alice").pull(f"{VISIBLE}:v1", directory / "pulled")
    registry.wait_until_delivered()
    post_long_names(server)
    server.wait_until_worked_in()
    return Pushed(visible, hidden)


def post_long_names(server: Server) -> None:
    """A push and a pull whose names, addresses and programs are as long as they may be."""
    webhook = Webhook(server)
    for action in ("push", "pull"):
        event = wire_event(
            action,
            LONG,
            id=str(uuid.uuid4()),
            at=datetime.now(UTC),
            tag=LONG_TAG,
            of="long",
            media_type=INDEX,
            children=["first child", "second child"],
            actor="robot$" + "x" * 249,
            address="[2001:db8:1111:2222:3333:4444:5555:6666]:5000",
            user_agent="docker/" + "9" * 500,
        )
        assert webhook.post(event).status_code == 202
    webhook.close()


FORMS = [
    pytest.param("/search/user/", "shop", [VISIBLE], id="repositories"),
    pytest.param("/search/user/repo/", "shop:v*", [VISIBLE, "v1"], id="tags"),
    pytest.param("/analysis/user/", VISIBLE, ["push", "pull", "ci-bot"], id="records"),
]


def paths(of: str, tag: str, digest: str) -> list[str]:
    """Every page that can show one repository, its tag and its digest."""
    return [
        "/search/",
        "/search/user/login/",
        "/search/user/repo/login/",
        f"/search/repository?repository={of}",
        f"/search/tag?repository={of}&tag={tag}",
        f"/search/digest?digest={digest}",
        "/analysis/",
        "/analysis/unused",
        "/analysis/storage",
        f"/analysis/storage?repository={of}",
        "/analysis/recall",
        f"/analysis/recall?digest={digest}",
        f"/analysis/recall?repository={of}&tag={tag}",
        "/analysis/user/login/?parts=1",
        f"/analysis/user/login/?repository={of}&parts=1",
        f"/search/user/repo/login/?repository={of}&deleted=1",
    ]


def without_ages(text: str) -> str:
    return re.sub(r"just now|\d+ (?:min|h) ago|\d\d:00:00 UTC", "", text)


def is_result_of(form: str) -> re.Pattern[str]:
    return re.compile(re.escape(f"{form}login/?"))


@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without"])
def test_somebody_signs_in_with_the_search_form_and_follows_the_links_to_the_records(
    open_page: OpenPage, pushed: Pushed, javascript: bool
) -> None:
    page = open_page(javascript=javascript)
    digest = pushed.visible.digest

    page.goto("/search/user/")
    fill_in_account(page, "alice")
    page.get_by_label("Repository", exact=True).fill("shop")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name=VISIBLE).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(VISIBLE)
    page.get_by_role("link", name="v1", exact=True).first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"{VISIBLE}:v1")
    page.get_by_role("link", name=digest, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(digest)
    page.get_by_role("link", name="All records of this digest").click()

    rows = page.locator("tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.first).to_contain_text("pull")
    expect(rows.first).to_contain_text("alice")
    expect(rows.last).to_contain_text("push")
    expect(rows.last).to_contain_text("ci-bot")


@pytest.mark.parametrize(("form", "text", "expected"), FORMS)
def test_a_form_with_account_and_filter_leads_to_a_result_that_can_be_linked(
    open_page: OpenPage, pushed: Pushed, form: str, text: str, expected: list[str]
) -> None:
    page = open_page()

    page.goto(form)
    fill_in_account(page, "alice")
    page.get_by_label("Repository", exact=True).fill(text)
    page.get_by_role("button", name="Search").click()

    page.wait_for_url(is_result_of(form))
    assert "password" not in page.url
    for word in expected:
        expect(page.locator("tbody")).to_contain_text(word)
    shown = main_text(page)
    page.goto(page.url)
    assert without_ages(main_text(page)) == without_ages(shown)
    assert page.get_by_label("Password").count() == 0


@pytest.mark.parametrize(("form", "text", "expected"), FORMS)
def test_somebody_signed_in_searches_without_a_password(
    open_page: OpenPage, pushed: Pushed, form: str, text: str, expected: list[str]
) -> None:
    page = open_page("alice")

    page.goto(form)
    assert page.get_by_label("Password").count() == 0
    page.get_by_label("Repository", exact=True).fill(text)
    page.get_by_role("button", name="Search").click()

    page.wait_for_url(is_result_of(form))
    expect(page.locator("tbody")).to_contain_text(expected[0])


@pytest.mark.parametrize(("form", "text", "expected"), FORMS)
def test_an_account_without_rights_finds_nothing(
    open_page: OpenPage, pushed: Pushed, form: str, text: str, expected: list[str]
) -> None:
    page = open_page()

    page.goto(form)
    fill_in_account(page, "mallory")
    page.get_by_label("Repository", exact=True).fill(text)
    page.get_by_role("button", name="Search").click()

    page.wait_for_url(is_result_of(form))
    expect(page.locator("main")).to_contain_text("matches")
    assert page.locator("tbody").count() == 0


@pytest.mark.parametrize(
    ("home", "part"), [("/search/", "Latest pushes"), ("/analysis/", "Top repositories")]
)
def test_a_home_page_asks_to_sign_in_and_comes_back(
    open_page: OpenPage, pushed: Pushed, home: str, part: str
) -> None:
    page = open_page()

    page.goto(home)
    fill_in_account(page, "alice")
    page.get_by_role("button", name="Sign in").click()

    page.wait_for_url(f"**{home}")
    expect(page.locator("main")).to_contain_text(part)


def test_the_search_box_of_every_page_leads_to_results(
    open_page: OpenPage, pushed: Pushed, server: Server
) -> None:
    page = open_page("alice")

    for text in ("shop", "shop:v?"):
        page.goto("/search/")
        page.get_by_role("searchbox").fill(text)
        page.get_by_role("searchbox").press("Enter")
        expect(page.get_by_role("main")).to_contain_text(VISIBLE)
        assert page.url != f"{server.url}/search/"


@pytest.mark.parametrize("width", [360, 768, 1440])
def test_the_menu_of_the_view_fits_and_closes_at_escape_and_when_something_else_is_chosen(
    open_page: OpenPage, width: int
) -> None:
    page = open_page("bob", width)
    page.goto("/")
    menu = page.get_by_text("View", exact=True)
    choice = page.get_by_role("button", name="Dark")

    menu.click()
    box = page.locator(".look-choices").bounding_box()
    assert box
    assert 0 <= box["x"] <= box["x"] + box["width"] <= width
    choice.press("Escape")
    choice.wait_for(state="hidden")
    assert menu.evaluate("node => node === document.activeElement")

    menu.click()
    page.mouse.click(1, 1)
    choice.wait_for(state="hidden")

    menu.click()
    page.get_by_role("searchbox").focus()
    choice.wait_for(state="hidden")


def test_no_page_shows_what_an_account_may_not_see(open_page: OpenPage, pushed: Pushed) -> None:
    page, unseen = (
        open_page("mallory"),
        [VISIBLE, HIDDEN, LONG, "ci-bot", pushed.visible.digest[7:19]],
    )

    for path in ["/search/", "/analysis/", *(f"{form.values[0]}login/" for form in FORMS)]:
        page.goto(path)
        text = main_text(page)
        assert [word for word in unseen if word in text] == [], path


@pytest.mark.parametrize("account", ["mallory", "alice"])
def test_what_may_not_be_seen_answers_like_what_does_not_exist(
    open_page: OpenPage, pushed: Pushed, account: str
) -> None:
    of, tag, image = {
        "mallory": (VISIBLE, "v1", pushed.visible),
        "alice": (HIDDEN, HIDDEN_TAG, pushed.hidden),
    }[account]
    page = open_page(account)

    def answer(path: str, *names: str) -> tuple[int, str]:
        """Status and page, without the names that were asked for."""
        response = page.request.get(path)
        text = re.sub(r'(name="csrf_token") value="[^"]*"', r"\1", response.text())
        for name in (*names, *(name.replace("/", "%2F") for name in names)):
            text = text.replace(name, "…")
        return response.status, text

    hidden = of, tag, image.digest
    missing = "no/such", "no-such-tag", f"sha256:{'0' * 64}"
    for there, nowhere in zip(paths(*hidden), paths(*missing), strict=True):
        if there != nowhere:
            assert answer(there, *hidden) == answer(nowhere, *missing), there


@pytest.mark.parametrize("page_of", ["repository?", "tag?tag=v1&"])
def test_what_may_be_seen_is_there(open_page: OpenPage, pushed: Pushed, page_of: str) -> None:
    page = open_page("alice")

    statuses = [
        page.request.get(f"/search/{page_of}repository={name}").status for name in (VISIBLE, HIDDEN)
    ]

    assert statuses == [200, 404]


def test_signing_out_ends_it(open_page: OpenPage, pushed: Pushed) -> None:
    page = open_page()
    sign_in(page, "alice")  # a session of its own, as signing out ends every copy of its cookie
    page.goto(f"/search/repository?repository={VISIBLE}")
    expect(page.locator("main")).to_contain_text("ci-bot")

    page.get_by_role("button", name="Sign out").click()

    page.wait_for_url("**/login")
    for path in paths(VISIBLE, "v1", pushed.visible.digest):
        answer = page.request.get(path)
        assert "ci-bot" not in answer.text(), path
        assert "Sign out" not in answer.text(), path
    page.go_back()
    assert "ci-bot" not in main_text(page)


@pytest.mark.parametrize(
    ("form", "account"),
    [
        ("/search/user/", "alice"),
        ("/search/user/repo/", "alice"),
        ("/analysis/user/", "alice"),
        ("/analysis/user/", "nobody"),
    ],
)
def test_a_wrong_password_is_said_and_the_filter_kept(
    open_page: OpenPage, pushed: Pushed, form: str, account: str
) -> None:
    page = open_page()

    page.goto(form)
    fill_in_account(page, account, "wrong")
    page.get_by_label("Repository", exact=True).fill("shop")
    page.get_by_role("button", name="Search").click()

    expect(page.get_by_role("alert")).to_have_text("The user name or the password is wrong.")
    expect(page.get_by_label("Repository", exact=True)).to_have_value("shop")
    expect(page.get_by_label("User name")).to_have_value(account)
    expect(page.get_by_label("Password")).to_have_value("")
    assert page.locator("tbody").count() == 0


def test_the_sign_in_page_says_a_wrong_password(open_page: OpenPage) -> None:
    page = open_page()

    page.goto("/login")
    fill_in_account(page, "alice", "wrong")
    page.get_by_role("button", name="Sign in").click()

    expect(page.get_by_role("alert")).to_have_text("The user name or the password is wrong.")


def test_a_list_can_be_exported_from_its_page(open_page: OpenPage, pushed: Pushed) -> None:
    page = open_page("alice")

    page.goto(f"/analysis/user/login/?repository={VISIBLE}")
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()

    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("id,")
    assert len(lines) == 1 + page.locator("tbody tr").count()


MIGRATION_PAGES = [
    "/migration/",
    "/migration/dc2",
    "/migration/dc2/jobs",
    "/migration/dc2/jobs?state=pending",
    "/migration/dc2/drift",
]


def test_an_administrator_resumes_a_migration_and_skips_a_job(
    open_page: OpenPage, server: Server, pushed: Pushed
) -> None:
    page = open_page("admin", javascript=False)
    server.run_rns("migrate", "once")  # finds that its source is away

    page.goto("/migration/")
    expect(page.locator("main")).to_contain_text("Work stopped")
    page.get_by_role("link", name="dc2").click()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("status")).to_have_text("Resumed.")
    expect(page.locator("main")).not_to_contain_text("Work stopped")
    page.get_by_role("link", name="All jobs").click()
    page.get_by_role("button", name=f"Skip {VISIBLE}:v1").click()

    expect(page.get_by_role("status")).to_contain_text(f"Skipped {VISIBLE} v1")
    expect(page.locator("tbody tr").filter(has_text="waived")).to_have_count(1)


def test_somebody_makes_a_token_uses_it_and_revokes_it(open_page: OpenPage, server: Server) -> None:
    page = open_page("alice", javascript=False)
    url = f"{server.url}/api/v1/repositories"

    page.goto("/search/")
    page.get_by_title("Your account").click()
    page.get_by_label("Name", exact=True).fill("nightly")
    page.get_by_role("button", name="Make a token").click()
    token = page.get_by_role("status").locator("#new-token").inner_text()
    headers = {"Authorization": f"Bearer {token}"}
    assert requests.get(url, headers=headers, timeout=10).status_code == 200
    page.goto("/account")
    assert token not in page.content()
    expect(page.locator("tr").filter(has_text="nightly")).to_contain_text("127.0.0.1")
    page.get_by_role("button", name="Revoke the token nightly").click()

    expect(page.get_by_role("status")).to_have_text("Revoked the token nightly.")
    assert requests.get(url, headers=headers, timeout=10).status_code == 401
    assert token not in server.program.log


def test_somebody_ends_the_sessions_of_other_browsers(open_page: OpenPage, server: Server) -> None:
    server.add_account("ci-bot")  # the sessions of the others go on for other tests
    here, there = open_page(), open_page()
    for page in (here, there):
        sign_in(page, "ci-bot")

    here.goto("/account")
    here.get_by_role("button", name="End all others").click()

    expect(here.get_by_role("status").filter(has_text="Ended")).to_be_visible()
    there.goto("/search/")
    expect(there.get_by_role("heading", level=1)).to_have_text("Sign in")
    here.goto("/search/")
    expect(here.get_by_role("button", name="Sign out")).to_be_visible()


WINDOWS = [(360, "dark"), (360, "light"), (1440, "dark"), (1440, "light")]


@pytest.mark.parametrize(("width", "scheme"), WINDOWS if SCREENSHOTS else WINDOWS[:1])
def test_every_page_is_readable(
    open_page: OpenPage, pushed: Pushed, width: int, scheme: str
) -> None:
    wide = []

    def look_at(page: Page, path: str, name: str) -> None:
        page.goto(path)
        assert page.get_by_role("heading", level=1).count() == 1, path
        assert unlabelled_fields(page) == [], path
        assert page.locator("html").get_attribute("data-bs-theme") == scheme, path
        wide.extend(too_wide(page))
        if SCREENSHOTS:
            file = Path(SCREENSHOTS) / f"{name}-{width}-{scheme}.png"
            page.screenshot(path=file, full_page=True)

    signed_out = open_page(width=width, scheme=scheme)
    for number, path in enumerate(["/login", *(form.values[0] for form in FORMS)]):
        look_at(signed_out, path, f"signed-out-{number}")
    signed_in = open_page("alice", width, scheme)
    for number, path in enumerate(paths(VISIBLE, "v1", pushed.visible.digest)):
        look_at(signed_in, path, f"page-{number:02}")
    administrator = open_page("admin", width, scheme)
    for number, path in enumerate(MIGRATION_PAGES):
        look_at(administrator, path, f"migration-{number}")
    look_at(signed_in, "/account", "account")
    look_at(administrator, "/access/tokens", "tokens")
    look_at(signed_in, "/search/repository?repository=no/such", "not-found")
    look_at(signed_in, "/analysis/user/login/?digest=wrong&from=yesterday", "wrong-filter")
    assert not wide, "\n".join(wide)


@pytest.mark.parametrize("width", [360, 1440])
def test_names_as_long_as_can_be_fit_into_every_page(
    open_page: OpenPage, pushed: Pushed, width: int
) -> None:
    page = open_page("bob", width)

    wide = []
    of_all = ("/search/", "/analysis/", "/analysis/user/login/?parts=1")  # others push, too
    for path in paths(LONG, LONG_TAG, digest("long")):
        if path in of_all or "=" in path:
            page.goto(path)
            assert LONG in page.content() or path in of_all, path
            wide += too_wide(page)

    assert not wide, "\n".join(wide)


@pytest.mark.parametrize("width", [360, 1440])
def test_a_namespace_as_long_as_can_be_fits_into_what_tags_hold(
    open_page: OpenPage, pushed: Pushed, server: Server, width: int
) -> None:
    webhook, namespace = Webhook(server), LONG.removeprefix("long/")
    layer = {"mediaType": "application/octet-stream", "size": 10**6, "digest": digest(namespace)}
    event = wire_event(
        "push",
        f"{namespace}/app",
        of=namespace,  # whoever told of a manifest first settles what it holds
        id=str(uuid.uuid4()),
        at=datetime.now(UTC),
        tag="v1",
        references=[layer],
    )
    assert webhook.post(event).status_code == 202
    webhook.close()
    server.wait_until_worked_in()
    page = open_page("admin", width)

    page.goto("/analysis/storage")

    expect(page.locator(".legend")).to_contain_text(namespace)
    assert too_wide(page) == []


@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without"])
def test_the_digest_of_a_tag_is_copied_where_that_can_be_done(
    open_page: OpenPage, pushed: Pushed, javascript: bool
) -> None:
    page = open_page("alice", javascript=javascript)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])

    page.goto(f"/search/tag?repository={VISIBLE}&tag=v1")
    button = page.locator("button.copy").first

    if javascript:
        button.click()
        expect(button).to_have_text("Copied")
        expect(page.get_by_role("status").filter(has_text="Copied")).to_have_count(1)
        assert page.evaluate("navigator.clipboard.readText()") == pushed.visible.digest
    else:
        expect(button).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_fault_for_people_with_disabilities(
    open_page: OpenPage, pushed: Pushed, scheme: str
) -> None:
    faults = []

    def examine(page: Page, path: str) -> None:
        page.goto(path)
        for violation in Axe().run(page).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                places = [node["target"] for node in violation["nodes"]][:3]
                faults.append(f"{path}: {violation['id']}: {violation['help']}: {places}")

    examine(open_page(scheme=scheme), "/login")
    page = open_page("alice", scheme=scheme)
    for path in paths(VISIBLE, "v1", pushed.visible.digest):
        examine(page, path)
    examine(page, "/account")
    admin = open_page("admin", scheme=scheme)
    for path in (
        "/access/",
        f"/access/?account=alice&repository={VISIBLE}",
        "/access/sign-ins",
        "/access/tokens",
        "/wiring/",
        "/wiring/test?since=0",
        "/wiring/rejected",
        "/api/",
        *MIGRATION_PAGES,
    ):
        examine(admin, path)

    assert not faults, "\n".join(faults)


def test_the_chart_is_drawn_and_a_bar_leads_to_its_records(
    open_page: OpenPage, pushed: Pushed
) -> None:
    page = open_page("alice", 1440)

    page.goto("/analysis/?days=1")
    page.locator(".plot rect.fill-push:not(.before)").first.click()

    page.wait_for_url("**/analysis/user/login/?*action=push*")
    expect(page.locator("tbody")).to_contain_text(VISIBLE)
