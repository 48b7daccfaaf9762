"""The page of what tags hold by namespace: the same in page, API and export, for each account."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest
from builders import IMAGE, INDEX, digest, wire_event
from flask.testing import FlaskClient

SignIn = Callable[[str], FlaskClient]
Store = Callable[..., None]

NOW = datetime.now(UTC)
GB = 10**9


def push(name: str, tag: str, days: float, **sizes: int) -> Any:
    references = [
        {"mediaType": "application/octet-stream", "digest": digest(layer), "size": size}
        for layer, size in sizes.items()
    ]
    at = NOW - timedelta(days=days)
    return wire_event("push", name, tag=tag, of=f"{name}:{tag}", at=at, references=references)


@pytest.fixture
def pushed(store: Store) -> None:
    """Three namespaces share a layer, which came first to one that alice may not see."""
    store(
        push("ops/app", "v1", 90, base=8 * GB, ops=GB),
        push("team/app", "v1", 60, old=GB),
        push("team/app", "v2", 3, base=8 * GB, new=2 * GB),
        push("team/sub/app", "v1", 2, base=8 * GB, small=GB // 2),
    )


def cells(page: str) -> list[list[str]]:
    """The rows of the list, without what only a program reads."""
    table = page.partition("align-middle rows")[2].partition("</table>")[0]
    return [
        [unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in re.findall(r"<td.*?</td>", row)]
        for row in table.split("<tr>")[2:]
    ]


def test_page_api_and_export_say_the_same(pushed: None, sign_in: SignIn) -> None:
    client = sign_in("alice")

    page = client.get("/analysis/storage").text
    answer = client.get("/api/v1/storage").json
    csv = client.get("/analysis/storage?format=csv").text.splitlines()

    assert cells(page) == [["team", "2", "11.0 GB", "10.0 GB", "91%", "default", "repositories"]]
    assert "ops" not in re.sub(r'class="[^"]*"', "", page)
    assert re.search(r"hold <strong[^>]*>11.0 GB</strong>, of which <strong[^>]*>10.0 GB<", page)
    assert '(<span class="number">91%</span>)' in page
    [row] = answer["items"]
    assert (row["namespace"], row["size"], row["came"]) == ("team", 11 * GB, 10 * GB)
    assert (answer["size"], answer["came"]) == (11 * GB, 10 * GB)
    assert answer["first"] == (NOW - timedelta(days=29)).date().isoformat()
    assert csv == [
        "registry,namespace,tags,size,came,unknown,undated",
        f"default,team,2,{11 * GB},{10 * GB},0,0",
    ]
    assert 'href="/api/v1/storage"' in page


def named(media_type: str, **sizes: int) -> list[dict[str, Any]]:
    return [
        {"mediaType": media_type, "digest": digest(name), "size": size}
        for name, size in sizes.items()
    ]


def test_an_index_with_a_layer_of_its_own_has_one_size_on_all_pages(
    store: Store, sign_in: SignIn
) -> None:
    layer = "application/vnd.oci.image.layer.v1.tar+gzip"
    for child, own in (("amd64", GB), ("arm64", 2 * GB)):
        holds = named(layer, base=8 * GB, **{f"layer of {child}": own})
        store(wire_event("push", "team/app", of=child, at=NOW, references=holds))
    holds = named(IMAGE, amd64=500, arm64=500) + named(layer, extra=4 * GB, base=8 * GB)
    store(
        wire_event(
            "push", "team/app", tag="v1", of="all", at=NOW, media_type=INDEX, references=holds
        )
    )
    client = sign_in("alice")

    [tag] = client.get("/api/v1/tags").json["items"]
    storage = client.get("/api/v1/storage").json

    assert tag["size"] == storage["size"] == storage["items"][0]["size"] == 15 * GB
    assert (storage["unknown"], storage["came"]) == (0, 15 * GB)


def test_links_of_a_row_lead_to_what_the_row_counts(store: Store, sign_in: SignIn) -> None:
    store(push("team/app", "v1", 1, a=GB), push("team/other", "v1", 1, b=GB))
    client = sign_in("admin")

    page = client.get("/analysis/storage?repository=team/app").text

    links = re.findall(r'href="(/search/user/repo/login/\?[^"]+)"', page)
    assert cells(page)[0][:2] == ["team", "1"]
    assert len(links) >= 3, "of the row, the legend and the bars"
    for link in links:
        assert "team/other" not in client.get(unescape(link)).text


def test_each_account_has_its_own_sums(pushed: None, sign_in: SignIn) -> None:
    answer = sign_in("admin").get("/api/v1/storage").json

    assert (answer["size"], answer["came"]) == (25 * GB // 2, 5 * GB // 2)
    assert [row["namespace"] for row in answer["items"]] == ["team", "team/sub", "ops"]


def test_the_bars_add_up_what_came_each_layer_once(pushed: None, sign_in: SignIn) -> None:
    page = sign_in("admin").get("/analysis/storage").text

    table = page.partition('id="slots"')[2].partition("</table>")[0]
    lines = [re.sub(r"\s*<[^>]*>\s*", " ", row).split() for row in table.split("<tr>")]
    day = (NOW - timedelta(days=3)).date().isoformat()
    assert lines[-1] == [NOW.date().isoformat(), "2.0", "GB", "500.0", "MB"]
    assert [day, "2.0", "GB", "0", "B"] in lines
    assert len(lines) == 2 + 30
    assert "/search/user/repo/login/?sort=pushed&amp;registry=default&amp;namespace=team" in page


def test_bars_of_a_long_period_end_today_and_are_few(pushed: None, sign_in: SignIn) -> None:
    page = sign_in("admin").get("/analysis/storage?days=365").text

    table = page.partition('id="slots"')[2].partition("</table>")[0]
    days = re.findall(r'<th scope="row"[^>]*>([0-9-]+)</th>', table)
    assert len(days) == 53
    assert days[-2:] == [(NOW - timedelta(days=n)).date().isoformat() for n in (7, 0)]
    assert "9.0 GB" in table.rpartition("<tr>")[2], "of ops, which came first"


def test_more_namespaces_than_colours_are_drawn_together(store: Store, sign_in: SignIn) -> None:
    store(*(push(f"n{n}/app", "v1", 1, **{f"layer{n}": n * GB}) for n in range(1, 10)))

    page = sign_in("admin").get("/analysis/storage").text

    legend = page.partition('class="legend"')[2].partition("</ul>")[0].partition(">")[2]
    text = " ".join(re.sub(r"<[^>]*>", " ", legend).split())
    assert text == " ".join([*(f"n{n} {n}.0 GB" for n in range(9, 3, -1)), "all others 6.0 GB"])


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("came", ["team", "ops", "zoo"]),
        ("size", ["zoo", "ops", "team"]),
        ("tags", ["ops", "team", "zoo"]),
        ("name", ["ops", "team", "zoo"]),
    ],
)
def test_a_head_orders_the_list(store: Store, sign_in: SignIn, sort: str, order: list[str]) -> None:
    store(
        push("zoo/app", "v1", 60, zoo=9 * GB),
        push("ops/app", "v1", 60, ops=3 * GB),
        push("ops/app", "v2", 1, more=GB),
        push("team/app", "v1", 1, team=2 * GB),
    )
    client = sign_in("admin")

    page = client.get(f"/analysis/storage?sort={sort}").text
    first = client.get(f"/api/v1/storage?sort={sort}&limit=2").json
    second = client.get(first["next"]).json

    assert [row[0] for row in cells(page)] == order
    assert [row["namespace"] for row in (*first["items"], *second["items"])] == order
    [head] = re.findall(r'<th scope="col"[^>]*aria-sort="(\w+)"', page)
    assert head == ("ascending" if sort == "name" else "descending")


def test_sizes_that_are_not_known_are_named_and_not_nothing(store: Store, sign_in: SignIn) -> None:
    store(
        wire_event("push", "ops/app", tag="v1", of="untold", at=NOW),
        wire_event("push", "team/app", tag="v1", of="untold too", at=NOW),
        push("team/app", "v2", 1, layer=GB),
        wire_event("pull", "team/app", tag="seen", of="untold too", at=NOW),
    )

    page = sign_in("admin").get("/analysis/storage").text

    assert cells(page) == [
        ["team 2 unknown", "3", "1.0 GB", "1.0 GB", "100%", "default", "repositories"],
        ["ops 1 unknown", "1", "–", "–", "–", "default", "repositories"],
    ]
    assert "What 3 tags hold is not known" in page
    assert "Of 1 tag no push was seen" in page


def test_names_without_a_namespace_have_a_row(store: Store, sign_in: SignIn) -> None:
    store(push("ubuntu", "v1", 1, layer=GB))
    client = sign_in("admin")

    page = client.get("/analysis/storage").text
    filtered = client.get("/analysis/storage?namespace=-").text

    assert cells(page)[0][:3] == cells(filtered)[0][:3] == ["no namespace", "1", "1.0 GB"]
    assert "/search/user/repo/login/?sort=pushed&amp;registry=default&amp;namespace=-" in page


def test_who_sees_nothing_is_told_what_to_do_and_no_name(pushed: None, sign_in: SignIn) -> None:
    client = sign_in("mallory")

    page = client.get("/analysis/storage")
    answer = client.get("/api/v1/storage").json

    assert page.status_code == 200
    assert "ask an administrator" in page.text
    assert not re.search(r"ops|sub|GB", page.text.partition("<main")[2])
    assert (answer["items"], answer["size"], answer["came"], answer["unknown"]) == ([], 0, 0, 0)


def test_nobody_is_sent_to_sign_in(client: FlaskClient, pushed: None) -> None:
    page = client.get("/analysis/storage")

    assert page.status_code == 302
    assert page.headers["Location"].startswith("/login")
    assert client.get("/api/v1/storage").status_code == 401


def test_an_empty_page_says_what_to_do_next(sign_in: SignIn, store: Store) -> None:
    client = sign_in("admin")
    nothing = client.get("/analysis/storage").text
    store(push("team/app", "v1", 60, layer=GB))
    filtered = client.get("/analysis/storage?namespace=other").text
    still = client.get("/analysis/storage").text

    assert "Nothing ever arrived" in nothing
    assert "No tag that you may see matches these filters." in filtered
    assert "Nothing in this period." in still
    assert cells(still)[0][:5] == ["team", "1", "1.0 GB", "0 B", "0%"]


@pytest.mark.parametrize("query", ["days=0", "days=x", "sort=growth", "days=1101"])
def test_what_cannot_be_used_is_named(sign_in: SignIn, query: str) -> None:
    client = sign_in("alice")

    page = client.get(f"/analysis/storage?{query}")

    assert page.status_code == 400
    assert "expected" in page.text
    assert client.get(f"/api/v1/storage?{query}").json["field"] == query.partition("=")[0]


def test_the_page_is_found_from_the_dashboard_and_unused(sign_in: SignIn, pushed: None) -> None:
    client = sign_in("alice")

    for path in ("/analysis/", "/analysis/unused?days=1", "/search/"):
        assert 'href="/analysis/storage"' in client.get(path).text
    assert 'aria-current=page href="/analysis/">' in client.get("/analysis/storage").text
