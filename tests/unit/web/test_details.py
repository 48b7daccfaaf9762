"""The pages of one record, one account and one address; and what pages tell beside their lists."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import INDEX, basic, csrf_token, digest, wire_event
from flask import Flask
from flask.testing import FlaskClient

from app.settings import Access
from app.store import Stores
from app.web.display import bars, last_day

SignIn = Callable[[str], FlaskClient]
Store = Callable[..., None]

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LAYERS = [{"digest": digest("layer"), "size": 1000, "mediaType": "l"}]


@pytest.fixture(autouse=True)
def recorded(app: Flask, store: Store) -> None:
    store(
        wire_event("push", tag="v1", of="old", actor="ci-bot", at=NOW - 3 * DAY),
        wire_event("push", tag="v1", actor="ci-bot", id="the push", at=NOW - 2 * DAY),
        wire_event("pull", tag="v1", actor="k8s", address="10.9.8.7:1", at=NOW - 5 * HOUR),
        wire_event("check", tag="v1", actor="k8s", address="10.9.8.7:1", at=NOW - 4 * HOUR),
        wire_event(
            "pull",
            "other/app",
            tag="v9",
            of="other",
            at=NOW - 3 * HOUR,
            actor="eavesdropper",
            address="10.6.6.6:1",
        ),
    )


RECORD = "/analysis/record?id=the+push"
ACCOUNT = "/analysis/account?name=ci-bot"
ADDRESS = "/analysis/address?address=10.9.8.7"
PAGES = {
    RECORD: "/analysis/record?id=none",
    ACCOUNT: "/analysis/account?name=none",
    ADDRESS: "/analysis/address?address=10.0.0.99",
}


@pytest.mark.parametrize(("path", "missing"), PAGES.items())
def test_who_may_not_see_it_gets_what_there_is_for_what_does_not_exist(
    sign_in: SignIn, path: str, missing: str
) -> None:
    client = sign_in("mallory")

    shown, hidden, absent = sign_in("alice").get(path), client.get(path), client.get(missing)

    assert (shown.status_code, hidden.status_code, absent.status_code) == (200, 404, 404)
    tokens = csrf_token(hidden.text), csrf_token(absent.text)
    assert hidden.text.replace(tokens[0], "") == absent.text.replace(tokens[1], "")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_tells_what_may_be_seen_and_nothing_else(sign_in: SignIn, path: str) -> None:
    text = sign_in("alice").get(path).text

    assert "team/app" in text
    assert "other/app" not in text
    assert "eavesdropper" not in text


@pytest.mark.parametrize(
    "path", ["/analysis/account?name=eavesdropper", "/analysis/address?address=10.6.6.6"]
)
def test_whoever_did_nothing_that_may_be_seen_is_not_there(sign_in: SignIn, path: str) -> None:
    assert sign_in("alice").get(path).status_code == 404
    assert sign_in("admin").get(path).status_code == 200


@pytest.mark.parametrize("records", ["without_addresses", "own"])
def test_pages_of_other_people_are_only_for_whom_they_are_shown(
    make_app: Callable[..., Flask], app: Flask, records: Any
) -> None:
    client = make_app(access=Access(records=records)).test_client()

    found = [client.get(path, headers=basic("alice")).status_code for path in PAGES]

    names = 200 if records == "without_addresses" else 404
    assert found == [names, names, 404]
    assert "10.9.8.7" not in client.get("/search/tag?repository=team/app&tag=v1").text


def test_who_moved_a_tag_is_a_link_where_others_may_be_named(
    make_app: Callable[..., Flask], sign_in: SignIn, app: Flask
) -> None:
    path, link = "/search/tag?repository=team/app&tag=v1", 'href="/analysis/account?name=ci-bot"'
    stranger = make_app(access=Access(records="own")).test_client()

    page, hidden = sign_in("alice").get(path).text, stranger.get(path, headers=basic("alice")).text

    moved_by = 'data-label="Moved by">'
    assert [cell[:80].count(link) for cell in page.split(moved_by)[1:]] == [1, 1]
    assert [cell[:1] for cell in hidden.split(moved_by)[1:]] == ["–", "–"]
    assert "ci-bot" not in hidden


@pytest.mark.parametrize("records", ["without_addresses", "own"])
def test_everybody_sees_the_pages_of_oneself(
    make_app: Callable[..., Flask], app: Flask, store: Store, records: Any
) -> None:
    store(
        wire_event("pull", tag="v1", address="10.1.1.1:5", user_agent="helm/3", at=NOW - HOUR),
        wire_event("pull", tag="v1", address="10.1.1.1:5", actor="k8s", at=NOW - HOUR),
    )
    client = make_app(access=Access(records=records)).test_client()

    account, address = (
        client.get(path, headers=basic("alice"))
        for path in ("/analysis/account?name=alice", "/analysis/address?address=10.1.1.1")
    )

    assert (account.status_code, address.status_code) == (200, 200)
    assert "helm" in account.text
    assert "k8s" not in address.text
    assert re.search(r"<dt>Pulls, 30 days</dt><dd class=\"number\">.* 1</dd>", address.text)


def test_a_record_tells_what_its_tag_pointed_to_before_and_after(
    sign_in: SignIn, store: Store
) -> None:
    store(wire_event("push", tag="v1", of="new", at=NOW - DAY))

    text = sign_in("alice").get(RECORD).text

    facts = dict(re.findall(r"<dt>(Before|Next change)</dt><dd>(.*?)</dd>", text))
    assert digest("old")[7:19] in facts["Before"]
    assert digest("new")[7:19] in facts["Next change"]


def test_a_record_leads_to_all_that_happened_around_it(sign_in: SignIn) -> None:
    client = sign_in("alice")

    links = re.findall(r'href="(/analysis/user/login/\?[^"]*from=[^"]*)"', client.get(RECORD).text)

    assert len(links) == 2
    for href in links:
        assert "1 record<" in client.get(href.replace("&amp;", "&")).text


def test_an_account_is_shown_with_its_figures_and_the_latest_records(sign_in: SignIn) -> None:
    text = sign_in("alice").get("/analysis/account?name=k8s").text

    assert re.search(r'<dt>Pulls, 30 days</dt><dd class="number"><a href="[^"]*">1</a>', text)
    assert re.search(r'<dt>Checks, 30 days</dt><dd class="number"><a href="[^"]*">1</a>', text)
    assert "/analysis/address?address=10.9.8.7" in text
    assert text.count("badge action-") == 2


def test_requests_without_account_have_a_page_too(sign_in: SignIn, store: Store) -> None:
    store(wire_event("pull", tag="v1", actor="", at=NOW - HOUR))

    text = sign_in("alice").get("/analysis/account?name=-").text

    assert "Account anonymous" in text
    assert text.count("badge action-") == 1


# Where it runs, what it is, what is about it


def pullers(page: str) -> list[tuple[str, ...]]:
    part = page.partition("Who pulled or checked it in 30 days")[2].partition("</table>")[0]
    cells = r'data-label="(?:Account|Client|Address|Pulls|Checks)">(.*?)</td>'
    texts = [re.sub("<[^>]*>", "", cell) for cell in re.findall(cells, part)]
    return [tuple(texts[start : start + 5]) for start in range(0, len(texts), 5)]


@pytest.mark.parametrize(
    "path",
    [
        "/search/repository?repository=team/app",
        "/search/tag?repository=team/app&tag=v1",
        f"/search/digest?digest={digest('image')}",
    ],
)
def test_a_page_tells_who_pulled_in_30_days_and_with_what(
    sign_in: SignIn, make_app: Callable[..., Flask], path: str
) -> None:
    assert pullers(sign_in("alice").get(path).text) == [("k8s", "docker", "10.9.8.7", "1", "1")]
    for records, expected in (
        ("without_addresses", [("k8s", "–", "–", "1", "1")]),
        ("own", []),
    ):
        client = make_app(access=Access(records=records)).test_client()
        assert pullers(client.get(path, headers=basic("alice")).text) == expected


def test_a_platform_that_was_pulled_with_its_index_was_pulled(
    sign_in: SignIn, store: Store
) -> None:
    store(
        wire_event(
            "push", tag="multi", of="index", media_type=INDEX, children=["arm"], at=NOW - DAY
        ),
        wire_event("pull", tag="multi", of="index", media_type=INDEX, at=NOW - HOUR),
        wire_event("pull", of="arm", at=NOW - HOUR + timedelta(seconds=1)),
    )

    page = sign_in("alice").get(f"/search/digest?digest={digest('arm')}").text

    assert pullers(page) == [("alice", "docker", "10.0.0.1", "1", "0")]


def test_tags_of_a_repository_tell_when_and_with_what_they_were_pulled_last(
    sign_in: SignIn, store: Store
) -> None:
    store(wire_event("push", tag="v2", of="second", at=NOW - DAY))

    page = sign_in("alice").get("/search/repository?repository=team/app").text

    assert re.search(r'data-label="Pulls"><span[^>]*><svg[^>]*>.*?<a href="[^"]*">1</a>', page)
    assert re.search(r'data-label="Last pull"><time [^>]*>5 h ago</time>, docker</td>', page)
    assert 'data-label="Last pull">–</td>' in page


PLATFORMS = [
    {
        "digest": digest(name),
        "size": 500,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "platform": platform,
    }
    for name, platform in (
        ("amd", {"os": "linux", "architecture": "amd64"}),
        ("arm", {"os": "linux", "architecture": "arm", "variant": "v7"}),
        ("provenance", {"os": "unknown", "architecture": "unknown"}),
    )
]


def test_an_index_tells_its_platforms(sign_in: SignIn, client: FlaskClient, store: Store) -> None:
    store(
        wire_event(
            "push",
            "team/x",
            tag="multi",
            of="index",
            media_type=INDEX,
            references=PLATFORMS,
            at=NOW - DAY,
        )
    )

    [item] = client.get("/api/v1/tags?q=team/x", headers=basic("alice")).json["items"]
    page = sign_in("alice").get("/search/tag?repository=team/x&tag=multi").text
    rows = sign_in("alice").get("/search/repository?repository=team/x").text

    assert item["platforms"] == "linux/amd64,linux/arm/v7"
    assert "linux/arm/v7" in page
    assert ">amd64, arm/v7<" in rows


def signature_of(of: str) -> str:
    return f"sha256-{digest(of)[7:]}.sig"


@pytest.mark.parametrize(
    "path", ["/search/tag?repository=team/app&tag=v1", "/search/digest?digest="]
)
def test_what_is_about_an_image_stands_on_its_page(
    sign_in: SignIn, store: Store, path: str
) -> None:
    bundle = {"artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json"}
    stem = f"sha256-{digest('image')[7:]}"
    store(
        wire_event("push", tag=f"{stem}.sbom", of="sbom", at=NOW - DAY),
        wire_event("push", of="bundle", at=NOW - DAY, **bundle),
        wire_event(
            "push", tag=stem, of="list", media_type=INDEX, children=["bundle", "x"], at=NOW - DAY
        ),
    )
    path += digest("image") if path.endswith("=") else ""

    part = sign_in("alice").get(path).text.partition("Signatures, attestations, SBOMs</h2>")[2]

    kinds = re.findall(r'data-label="Kind">(\w+)</td>\s*<td[^>]*>.*?>(\w{12})<', part)
    assert sorted(kinds) == [
        ("artifact", digest("x")[7:19]),
        ("sbom", digest("sbom")[7:19]),
        ("signature", digest("bundle")[7:19]),
    ]


def test_a_tag_is_signed_if_a_signature_of_its_digest_is_beside_it(
    client: FlaskClient, store: Store
) -> None:
    def signed() -> Any:
        items = client.get("/api/v1/tags?tag=v1", headers=basic("admin")).json["items"]
        return {row["repository"]: row["signed"] for row in items}

    store(
        wire_event("push", "team/copy", tag="v1", at=NOW - DAY),
        wire_event("push", "team/bundled", tag="v1", of="other image", at=NOW - DAY),
    )
    assert not any(signed().values())

    store(wire_event("push", tag=signature_of("image"), of="signature", at=NOW - DAY))
    assert signed() == {"team/app": True, "team/bundled": False, "team/copy": False}

    store(wire_event("delete", tag=signature_of("image"), of=None, at=NOW - HOUR))
    assert not any(signed().values())


# Recall as a sentence


@pytest.mark.parametrize(
    ("image", "query"),
    [
        ("team/app:v1", "repository=team/app&tag=v1"),
        ("team/app", "repository=team/app"),
        (digest("image"), f"digest={digest('image')}"),
        (f"team/app@{digest('image')}", f"digest={digest('image')}"),
        (digest("image")[7:19], f"digest={digest('image')}"),
        (digest("image")[:19], f"digest={digest('image')}"),
        ("ab12cd", "repository=ab12cd"),
    ],
)
def test_the_image_of_a_recall_is_named_as_people_name_it(
    sign_in: SignIn, image: str, query: str
) -> None:
    client = sign_in("alice")

    given = {"image": image, "from": "2026-11-01"}
    answer = client.get("/analysis/recall", query_string=given)

    path, _, found = answer.headers["Location"].partition("?")
    assert path == "/analysis/recall"
    assert sorted(found.split("&")) == sorted([*query.split("&"), "from=2026-11-01"])


def test_a_recall_stands_as_the_sentence_that_was_asked(sign_in: SignIn) -> None:
    client = sign_in("alice")

    page = client.get("/analysis/recall?repository=team/app&tag=v1&from=2026-11-01").text
    wrong = client.get("/analysis/recall?repository=team/app")

    assert 'value="team/app:v1"' in page
    assert re.search(r'name="from" type="date" value="2026-11-01"', page)
    assert page.count('<svg class="span"') == 1
    assert wrong.status_code == 400
    assert "tag: is missing" in wrong.text
    hidden = sign_in("mallory").get("/analysis/recall?repository=team/app&tag=v1")
    assert hidden.status_code == 404


def test_the_beginning_of_a_hidden_digest_is_not_completed(sign_in: SignIn) -> None:
    start = digest("image")[7:19]

    answer = sign_in("mallory").get(f"/analysis/recall?image={start}")

    assert answer.headers["Location"] == f"/analysis/recall?digest=sha256:{start}"


# Unused tags


def test_the_days_without_use_can_be_slid_and_lead_to_what_they_free(
    sign_in: SignIn, store: Store, mock_stores: Stores
) -> None:
    store(wire_event("push", tag="old", of="heavy", at=NOW - 40 * DAY, references=LAYERS))
    store(wire_event("pull", tag="v1", at=NOW - DAY))
    close_all(mock_stores)

    page = sign_in("alice").get("/analysis/unused?days=30&repository=team/app").text
    empty = sign_in("mallory").get("/analysis/unused?days=30").text

    assert re.search(r'type="range" id="slide" name="days" min="1" max="365" value="30"', page)
    assert 'type="hidden" name="repository" value="team/app"' in page
    point = r"days=(\d+)[^>]*>\1 days</a><span[^>]*>1 tag</span>, <span[^>]*>1.0 kB<"
    assert re.findall(point, page) == ["3", "7", "14", "30"]
    assert "days=7" in page
    assert 'class="curve' not in empty


# The list of repositories


def close_all(stores: Stores) -> None:
    """Close what is over, as the server does."""
    for day in stores.days.find_open_days(NOW):
        stores.days.close_day(day)
    for hour in stores.days.find_open_hours(NOW):
        stores.days.close(hour)


def test_repositories_tell_their_pulls_by_day_and_the_last(
    sign_in: SignIn, store: Store, mock_stores: Stores
) -> None:
    store(
        wire_event("pull", tag="v1", actor="k8s", at=NOW - 9 * DAY),
        wire_event("push", "team/new", tag="v1", at=NOW - DAY),
    )
    close_all(mock_stores)

    page = sign_in("alice").get("/search/user/login/?pulls=1").text
    rows = re.findall(r'data-label="Pulls">(.*?)</td>\s*<td[^>]*>(.*?)</td>', page)

    assert len(rows) == 2
    numbers = re.search(r'aria-label="by day, the last 30: ([0-9 ]*)"', rows[0][0])
    assert numbers
    assert sum(map(int, numbers[1].split())) == 2
    assert numbers[1].split()[20] == "1"
    assert rows[0][1] in ("today", "yesterday")
    assert (re.sub("<[^>]*>", "", rows[1][0]), rows[1][1]) == (" 0", "–")


def test_pulls_of_the_newest_hours_are_counted_when_they_are_asked_for(
    sign_in: SignIn, store: Store, mock_stores: Stores
) -> None:
    close_all(mock_stores)
    store(wire_event("pull", tag="v1", actor="k8s", at=NOW + timedelta(seconds=1)))

    def pulls(query: str) -> int:
        page = sign_in("alice").get(f"/search/user/login/?q=team{query}").text
        return sum(map(int, re.findall(r'data-label="Pulls">.*>(\d+)</span></td>', page)))

    assert (pulls(""), pulls("&pulls=1")) == (1, 2)


def test_pulls_of_days_that_are_being_prepared_are_not_said_to_be_none(
    sign_in: SignIn, store: Store, mock_stores: Stores
) -> None:
    store(wire_event("pull", "team/old", tag="v1", actor="k8s", at=NOW - 9 * DAY))
    store(wire_event("pull", tag="v1", actor="k8s", at=NOW - 3 * DAY))
    mock_stores.days.close_day((NOW - 3 * DAY).date())

    page = sign_in("alice").get("/search/user/login/").text

    assert "being prepared and not in these figures" in page
    assert 'data-label="Pulls"> <span class="beside">–</span></td>' in page


def test_pulls_of_repositories_are_the_same_for_every_shape_of_access(
    client: FlaskClient, store: Store, mock_stores: Stores
) -> None:
    entry = {"match": {"account": "mallory", "name": "team/app"}, "actions": ["pull"]}
    mock_stores.accounts.add_acl_entry({"seq": 1, **entry})
    close_all(mock_stores)

    def pulls(name: str) -> dict[str, int]:
        items = client.get("/api/v1/repositories?pulls=1", headers=basic(name)).json["items"]
        return {row["repository"]: row["pulls"] for row in items}

    assert pulls("admin") == {"other/app": 1, "team/app": 1}
    assert pulls("alice") == pulls("mallory") == {"team/app": 1}


@pytest.mark.parametrize("path", ["/analysis/", "/analysis/unused", "/analysis/unused?days=7"])
def test_who_may_see_nothing_is_told_so_in_place_of_figures(sign_in: SignIn, path: str) -> None:
    seen, nothing = sign_in("alice").get(path), sign_in("mallory").get(path, follow_redirects=True)

    assert "Nothing that you may see." in nothing.text
    assert "Nothing that you may see." not in seen.text


def test_bars_are_as_high_as_their_numbers() -> None:
    assert bars([0, 4, 2], 20) == "M4 20V0.0 M7 20V10.0"
    assert bars([0, 0]) == ""


def test_the_last_day_with_anything_is_told_in_words() -> None:
    days = [[0, 0, 1], [0, 3, 0], [2, 0, 0], [0, 0, 0]]

    assert [last_day(numbers) for numbers in days] == ["today", "yesterday", "2 days ago", "–"]
