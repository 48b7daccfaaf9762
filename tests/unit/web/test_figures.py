"""The dashboard and the pages of unused tags and recall: right for each account, page and API."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import INDEX, basic, deliver, digest, envelope, wire_event
from flask import Flask
from flask.testing import FlaskClient

from app.rules.usage import Calendar
from app.settings import Access
from app.store import Stores

SignIn = Callable[[str], FlaskClient]
Store = Callable[..., None]

FIRST = datetime(2026, 11, 10, tzinfo=UTC)
DAYS = 10
PERIOD = {"from": "2026-11-10", "to": "2026-11-19"}
Happening = tuple[datetime, str, str, str, str, str, str]  # time, action, repository, tag, …

SIGNATURE = f"{digest('signed').replace(':', '-')}.sig"
USER_AGENTS = {"docker": "docker/27", "helm": "Helm/3", "scanner": "trivy/0.5"}


def happenings(seed: int) -> list[Happening]:
    """What happened in twice the period, so that there is a period before it."""
    dice = random.Random(seed)
    moments = sorted(
        FIRST + timedelta(days=DAYS * dice.uniform(-1, 1), seconds=90 * number)
        for number in range(80)
    )
    return [
        (
            moment,
            dice.choice(["push", "pull", "pull", "check", "delete"]),
            dice.choice(["team/app", "team/db", "ops/app", "ubuntu"]),
            dice.choice(["v1", "v2", SIGNATURE]),
            dice.choice(["alice", "bob", ""]),
            dice.choice(["docker", "helm", "scanner"]),
            dice.choice(["10.0.0.1", "10.0.0.2"]),
        )
        for moment in moments
    ]


@pytest.fixture(params=range(5))
def happened(request: pytest.FixtureRequest, mock_stores: Stores) -> list[Happening]:
    rows = happenings(request.param)
    events = [
        wire_event(
            action,
            repository,
            tag=tag,
            of=None if action == "delete" else f"{repository} {tag} {moment}",
            at=moment,
            actor=actor,
            address=f"{address}:1",
            user_agent=USER_AGENTS[client],
        )
        for moment, action, repository, tag, actor, client, address in rows
    ]
    deliver(mock_stores, envelope(*events), "default", rows[-1][0])
    return rows


def within(rows: list[Happening], offset: int = 0) -> list[Happening]:
    start = FIRST + timedelta(days=offset * DAYS)
    return [row for row in rows if start <= row[0] < start + timedelta(days=DAYS)]


def visible_to(name: str, rows: list[Happening]) -> list[Happening]:
    return [row for row in rows if name == "admin" or row[2].startswith("team/")]


FILTERS: list[tuple[dict[str, str], Callable[[Happening], bool]]] = [
    ({}, lambda row: True),
    ({"repository": "team/app"}, lambda row: row[2] == "team/app"),
    ({"namespace": "team"}, lambda row: row[2].startswith("team/")),
    ({"namespace": "-"}, lambda row: row[2] == "ubuntu"),
    ({"actor": "bob"}, lambda row: row[4] == "bob"),
    ({"actor": "-"}, lambda row: row[4] == ""),
    ({"client": "helm"}, lambda row: row[5] == "helm"),
    ({"registry": "other"}, lambda row: False),
    ({"repository": "team/app", "client": "docker"}, lambda r: r[2:6:3] == ("team/app", "docker")),
    ({"repository": "team/app", "namespace": "ops"}, lambda row: False),
    ({"repository": "team/app", "namespace": "team"}, lambda row: row[2] == "team/app"),
    ({"supplements": "1"}, lambda row: True),
    ({"supplements": "1", "namespace": "team"}, lambda row: row[2].startswith("team/")),
    ({"supplements": "1", "client": "helm"}, lambda row: row[5] == "helm"),
    ({"tag": SIGNATURE}, lambda row: row[3] == SIGNATURE),
]


def counts(query: dict[str, str], row: Happening) -> bool:
    """A signature counts only where it is asked for."""
    return row[3] != SIGNATURE or query.keys() >= {"supplements"} or query.keys() >= {"tag"}


@pytest.mark.parametrize("is_closed", [False, True])
def test_every_figure_equals_a_recount_for_each_account(
    happened: list[Happening], sign_in: SignIn, mock_stores: Stores, is_closed: bool
) -> None:
    if is_closed:
        for day in mock_stores.days.find_open_days(datetime.now(UTC)):
            mock_stores.days.close_day(day)

    for name in ("admin", "alice"):
        client = sign_in(name)
        for query, holds in FILTERS:
            visible = visible_to(name, happened)
            rows = [row for row in visible if holds(row) and counts(query, row)]
            figures = client.get("/api/v1/usage", query_string={**PERIOD, **query}).json
            assert_totals(figures["totals"], within(rows))
            assert_totals(figures["before"], within(rows, -1))
            assert_slots(figures["slots"], within(rows))
            assert_tops(figures["tops"], within(rows))
            assert figures["missing"] == []


def assert_totals(totals: dict[str, int], rows: list[Happening]) -> None:
    actions = Counter(row[1] for row in rows)
    expected = {
        "pushes": actions["push"],
        "pulls": actions["pull"],
        "checks": actions["check"],
        "deletes": actions["delete"],
        "repositories": len({row[2] for row in rows if row[1] in ("push", "pull")}),
        "bytes_pushed": 500 * actions["push"],
    }
    assert {key: totals[key] for key in expected} == expected


def assert_slots(slots: list[Any], rows: list[Happening]) -> None:
    assert len(slots) == DAYS
    for number, slot in enumerate(slots):
        day = (FIRST + timedelta(days=number)).date()
        actions = Counter(row[1] for row in rows if row[0].date() == day)
        found = [slot[key] for key in ("pushes", "pulls", "checks", "deletes")]
        assert found == [actions[key] for key in ("push", "pull", "check", "delete")]


def assert_tops(tops: dict[str, Any], rows: list[Happening]) -> None:
    names: dict[str, Callable[[Happening], str]] = {
        "repositories": lambda row: row[2],
        "tags": lambda row: f"{row[2]}:{row[3]}",
        "accounts": lambda row: row[4] or "anonymous",
        "clients": lambda row: row[5],
        "addresses": lambda row: row[6],
    }
    for kind, name_of in names.items():
        pulls = Counter(name_of(row) for row in rows if row[1] == "pull")
        pushes = Counter(name_of(row) for row in rows if row[1] == "push")
        numbers = {name: (pulls[name], pushes[name]) for name in pulls | pushes}
        found = {top["name"]: (top["pulls"], top["pushes"]) for top in tops[kind]}
        assert found.items() <= numbers.items()
        assert sorted(found.values()) == sorted(numbers.values())[-10:]
        assert list(found.values()) == sorted(found.values(), reverse=True)


def test_new_tags_are_those_pushed_for_the_first_time(store: Store, sign_in: SignIn) -> None:
    before = FIRST - timedelta(days=1)
    store(
        wire_event("push", tag="old", at=before),
        wire_event("push", tag="old", of="again", at=FIRST + timedelta(days=1)),
        wire_event("push", tag="late", of="b", at=FIRST + timedelta(days=2)),
        wire_event("push", tag="late", of="a", at=before),
        wire_event("push", tag="new", at=FIRST + timedelta(days=3)),
        wire_event("push", "ops/app", tag="new", at=FIRST + timedelta(days=3)),
    )

    def new_tags(name: str, **query: str) -> Any:
        figures = sign_in(name).get("/api/v1/usage", query_string={**PERIOD, **query}).json
        return figures["totals"].get("new_tags")

    assert (new_tags("alice"), new_tags("admin")) == (1, 2)
    assert new_tags("admin", repository="ops/app") == 1
    assert new_tags("admin", namespace="team") == 1
    assert new_tags("admin", client="docker") is None, "a tag has no client"

    page = sign_in("admin").get("/analysis/", query_string=PERIOD).text
    [href] = re.findall(r'<a href="(/search/user/repo/login/[^"]*)">2</a>', page)
    assert "2 tags</span>" in sign_in("admin").get(href.replace("&amp;", "&")).text


@pytest.mark.parametrize("more", [{}, {"supplements": "1"}, {"tag": SIGNATURE}])
@pytest.mark.parametrize("days", ["10", "1"])
def test_every_number_leads_to_exactly_as_many_records(
    happened: list[Happening], sign_in: SignIn, days: str, more: dict[str, str]
) -> None:
    client = sign_in("alice")
    rows = [row for row in within(visible_to("alice", happened)) if counts(more, row)]
    rows = [row for row in rows if row[3] == more.get("tag", row[3])]
    busiest = Counter(row[0].date() for row in rows).most_common(1)[0][0]
    period = PERIOD if days == "10" else {"from": str(busiest), "to": str(busiest)}
    page = client.get("/analysis/", query_string=period | more).text

    links = re.findall(r'<a[^>]* href="(/analysis/user/login/\?[^"]*)">([0-9,]+)</a>', page)

    assert len(links) > (2 if "tag" in more else 6)
    assert days == "1" or any("to=2026-11-10T00" in href for href, _ in links), "the period before"
    for href, number in set(links):
        records = client.get(href.replace("&amp;", "&"))
        shown = re.search(r"([0-9,]+) records?</span>", records.text)
        assert shown, href
        assert shown[1] == number, href


def test_what_no_filter_can_select_has_no_link(store: Store, sign_in: SignIn) -> None:
    at = FIRST + timedelta(hours=1)
    for number, who in enumerate(({"address": "@"}, {"actor": " bob "}, {"actor": "-"})):
        store(wire_event("pull", tag="v1", at=at + timedelta(minutes=2 * number), **who))
    client = sign_in("alice")

    figures = client.get("/api/v1/usage", query_string=PERIOD).json["tops"]
    pages = [
        client.get("/analysis/", query_string=PERIOD).text,
        client.get(f"/analysis/recall?digest={digest('image')}").text,
        client.get("/analysis/user/login/?action=pull").text,
    ]

    found = {top["name"]: top["filters"] for top in figures["accounts"] + figures["addresses"]}
    assert found == {
        "alice": {"actor": "alice"},
        " bob ": None,
        "-": None,
        "10.0.0.1": {"address": "10.0.0.1"},
        "@": None,
    }
    for page in pages:
        links = re.findall(r'href="(/analysis/user/login/[^"]*)"', page)
        assert '<td class="n' in page
        assert {client.get(href.replace("&amp;", "&")).status_code for href in links} == {200}


def test_top_lists_name_the_registry_where_there_are_several(store: Store, sign_in: SignIn) -> None:
    at = FIRST + timedelta(hours=1)

    def names() -> list[str]:
        page = sign_in("alice").get("/analysis/", query_string=PERIOD).text
        rows = re.findall(r'<td class="name">(.*?)</td>', page)
        texts = [re.sub("<[^>]*>", "", row) for row in rows]
        return [text for text in texts if text.startswith("team/app")]

    store(wire_event("pull", tag="v1", at=at, id="one"))
    assert names() == ["team/app", "team/app:v1"]

    store(wire_event("pull", tag="v1", at=at, id="two"), registry="other")
    assert sorted(names()) == [
        "team/app default",
        "team/app other",
        "team/app:v1 default",
        "team/app:v1 other",
    ]


def test_a_short_period_is_shown_by_the_hour(store: Store, sign_in: SignIn) -> None:
    store(
        wire_event("push", tag="v1", at=FIRST + timedelta(hours=3, minutes=10)),
        wire_event("pull", tag="v1", at=FIRST + timedelta(hours=3, minutes=20)),
    )

    query = {"from": "2026-11-10", "to": "2026-11-10"}
    slots = sign_in("alice").get("/api/v1/usage", query_string=query).json["slots"]

    assert len(slots) == 24
    assert [(slot["pushes"], slot["pulls"]) for slot in slots][2:5] == [(0, 0), (1, 1), (0, 0)]


def test_each_hour_of_the_day_on_which_clocks_go_back_is_one_hour(
    store: Store, sign_in: SignIn, mock_stores: Stores
) -> None:
    mock_stores.days.calendar = Calendar("Europe/Berlin")
    for hour in (0, 1):
        store(wire_event("push", tag="v1", at=datetime(2025, 10, 26, hour, 30, tzinfo=UTC)))
    query, client = {"from": "2025-10-26", "to": "2025-10-26"}, sign_in("alice")

    slots = client.get("/api/v1/usage", query_string=query).json["slots"]
    page = client.get("/analysis/", query_string=query).text

    assert [slot["pushes"] for slot in slots] == [0, 0, 1, 1] + 21 * [0]
    starts = [datetime.fromisoformat(slot["start"]) for slot in slots]
    ends = [datetime.fromisoformat(slot["end"]) for slot in slots]
    assert {end - start for start, end in zip(starts, ends, strict=True)} == {timedelta(hours=1)}
    assert ends[:-1] == starts[1:]
    assert "from=2025-10-26T00:00:00Z&amp;to=2025-10-26T01:00:00Z" in page
    assert "from=2025-10-26T01:00:00Z&amp;to=2025-10-26T02:00:00Z" in page
    assert ">2025-10-26 02:00 CEST<" in page
    assert ">2025-10-26 02:00 CET<" in page


def test_a_short_period_is_shown_by_the_day_where_hours_are_not_known(
    store: Store, sign_in: SignIn, mock_stores: Stores
) -> None:
    store(wire_event("push", tag="v1", at=FIRST))
    for day in mock_stores.days.find_open_days(datetime.now(UTC)):
        mock_stores.days.close_day(day)
    mock_stores.days.retention_days = 1
    assert mock_stores.days.remove_events(datetime.now(UTC)) == 1
    query, client = {"from": "2026-11-10", "to": "2026-11-10"}, sign_in("alice")
    query_one = {**query, "repository": "team/app"}

    of_all = client.get("/api/v1/usage", query_string=query).json
    of_one = client.get("/api/v1/usage", query_string=query_one).json

    assert (of_all["hourly"], len(of_all["slots"])) == (True, 24)
    assert (of_one["hourly"], [slot["pushes"] for slot in of_one["slots"]]) == (False, [1])
    note = "By day: the hours of what you selected"
    assert note in client.get("/analysis/", query_string=query_one).text
    assert note not in client.get("/analysis/", query_string=query).text


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("from=yesterday", "from: "),
        ("from=0001-01-01", "from: "),
        ("from=2026-11-10&to=2026-11-09", "to: "),
        ("from=2000-01-01&to=2026-11-09", "to: "),
        ("days=0", "days: expected a number of days, 1 to "),
        ("client=nobody", "client: expected one of scanner, replication, "),
        ("other=1", "other: "),
    ],
)
def test_figures_name_what_they_cannot_use(sign_in: SignIn, query: str, says: str) -> None:
    response = sign_in("alice").get(f"/api/v1/usage?{query}")

    assert response.status_code == 400
    assert response.json["detail"].startswith(says)


def test_the_dashboard_names_a_period_that_it_does_not_have(sign_in: SignIn) -> None:
    page = sign_in("alice").get("/analysis/?days=0")

    assert page.status_code == 400
    assert "days: expected a number of days, 1 to" in page.text


def test_an_empty_server_says_what_to_do_next(sign_in: SignIn) -> None:
    for path in ("/analysis/", "/analysis/unused"):
        assert "Nothing ever arrived" in sign_in("admin").get(path).text


# Unused and recall


def show_life_and_close(stores: Stores) -> None:
    """Events that keep no tag, so that the registry is silent for nobody.

    Of the day before yesterday: soon after midnight yesterday may not be closed yet.
    """
    lately = datetime.now(UTC) - timedelta(days=2)
    for name in ("team/alive", "zz/alive"):
        check = wire_event("check", name, of="alive", at=lately)
        deliver(stores, envelope(check), "default", lately)
    for day in {*stores.days.find_open_days(datetime.now(UTC)), lately.date()}:
        stores.days.close_day(day)


@pytest.fixture
def forgotten(store: Store, mock_stores: Stores) -> None:
    start = datetime(2026, 8, 1, tzinfo=UTC)
    for name in ("team/app", "ops/app"):
        store(wire_event("push", name, tag="old", of="old", at=start))
        store(wire_event("pull", name, tag="old", of="old", at=start + timedelta(days=1)))
    show_life_and_close(mock_stores)


def test_a_host_that_not_all_clients_name_is_in_no_command_that_deletes(
    forgotten: None, sign_in: SignIn, store: Store
) -> None:
    event = wire_event("pull", "ops/app", tag="new", of="new", at=datetime.now(UTC))
    event["request"]["host"] = "elsewhere.example"
    store(event)

    page = sign_in("admin").get("/analysis/unused?days=30").text

    assert "regctl tag delete REGISTRY/ops/app:old\n" in page


def test_unused_tags_are_the_same_on_page_api_and_export(forgotten: None, sign_in: SignIn) -> None:
    client = sign_in("alice")

    page = client.get("/analysis/unused?days=30")
    answer = client.get("/api/v1/unused?days=30").json
    export = client.get("/analysis/unused?days=30&format=csv").text.splitlines()

    assert "regctl tag delete registry.example:5000/team/app:old\n" in page.text
    assert "ops/app" not in page.text
    assert 'href="/api/v1/unused?days=30"' in page.text
    assert [(row["repository"], row["tag"]) for row in answer["items"]] == [("team/app", "old")]
    assert answer["items"][0]["last_pulled_at"] == "2026-08-02T00:00:00Z"
    assert len(export) == 2
    assert "team/app" in export[1]


def test_the_api_says_why_no_tag_is_called_unused(
    store: Store, sign_in: SignIn, mock_stores: Stores
) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    store(wire_event("push", tag="v1", at=FIRST))
    store(wire_event("check", of="other", at=datetime.now(UTC) - timedelta(days=1)))
    client, url = sign_in("alice"), "/api/v1/unused?days=1"

    mock_stores.usage.max_live_rows = 0
    unprepared = client.get(url).json
    show_life_and_close(mock_stores)
    mock_stores.usage.max_live_rows = 1
    judged = client.get(url).json
    too_new = client.get("/api/v1/unused?days=1000").json

    assert (unprepared["items"], unprepared["missing"][0]) == ([], yesterday)
    assert [row["tag"] for row in judged["items"]] == ["v1"]
    assert (judged["since"], judged["too_new"]) == (f"{yesterday}T00:00:00Z", {})
    assert (too_new["items"], list(too_new["too_new"])) == ([], ["default"])


def test_a_newcomer_sees_the_unused_tags_of_the_days_that_are_known(
    store: Store, sign_in: SignIn
) -> None:
    now = datetime.now(UTC)
    store(wire_event("push", tag="old", at=now - timedelta(days=6)))
    store(wire_event("push", tag="young", of="young", at=now - timedelta(hours=1)))
    client = sign_in("alice")

    first = client.get("/analysis/unused")
    shown = client.get(first.headers["Location"]).text
    asked = client.get("/analysis/unused?days=90").text

    assert first.headers["Location"] == "/analysis/unused?days=5"
    assert "known so far: 5, not 90" in shown
    assert "tag=old" in shown
    assert "tag=young" not in shown
    assert 'href="/analysis/unused?days=5"' in asked
    stranger = sign_in("mallory").get("/analysis/unused")
    assert stranger.status_code == 200
    assert "days=5" not in stranger.text


def test_the_page_says_which_registries_and_repositories_are_not_judged(
    store: Store, sign_in: SignIn, mock_stores: Stores
) -> None:
    client = sign_in("alice")
    store(wire_event("push", tag="v1", at=FIRST))
    for day in mock_stores.days.find_open_days(datetime.now(UTC)):
        mock_stores.days.close_day(day)
    silent = client.get("/analysis/unused?days=1").text

    shape = {"media_type": "application/vnd.oci.image.index.v1+json"}
    store(wire_event("push", tag="multi", of="index", at=FIRST, **shape))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    pull = wire_event("pull", tag="multi", of="index", at=yesterday, **shape)
    deliver(mock_stores, envelope(pull), "default", yesterday)  # a day late shows no life
    show_life_and_close(mock_stores)
    unclear = client.get("/analysis/unused?days=1").text
    filtered = client.get("/analysis/unused?days=1&repository=team/other").text

    assert "no event since 2026-11-10" in silent
    assert "of the repositories that you may see" in silent
    assert "was used in the last" not in silent + unclear + filtered
    assert "In 1 repository an index is in use" in unclear
    assert "No unused tag matches these filters." in filtered


def test_the_clients_whose_pulls_count_can_be_chosen(
    forgotten: None, sign_in: SignIn, mock_stores: Stores
) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    pull = wire_event("pull", tag="old", of="old", at=yesterday, user_agent="trivy/0.5")
    deliver(mock_stores, envelope(pull), "default")
    client = sign_in("alice")

    def unused(query: str) -> int:
        return len(client.get(f"/api/v1/unused?days=30{query}").json["items"])

    assert [unused(""), unused("&clients=scanner, docker"), unused("&clients=docker")] == [1, 0, 1]
    [row] = client.get("/api/v1/unused?days=30").json["items"]
    assert (row["last_used_at"], row["last_used_client"]) == ("2026-08-02T00:00:00Z", "docker")
    assert row["last_pulled_at"] > row["last_used_at"]
    assert row["last_pulled_client"] == "scanner"
    wrong = client.get("/api/v1/unused?clients=nobody")
    assert wrong.status_code == 400
    assert wrong.json["detail"].startswith("clients: no such client: nobody")


def test_the_days_of_the_figures_are_exported(store: Store, sign_in: SignIn) -> None:
    store(wire_event("push", tag="v1", at=FIRST))

    csv = sign_in("alice").get("/api/v1/usage", query_string={**PERIOD, "format": "csv"}).text

    lines = csv.splitlines()
    assert lines[0] == "start,end,pushes,pulls,checks,deletes"
    assert lines[1] == "2026-11-10T00:00:00Z,2026-11-11T00:00:00Z,1,0,0,0"
    assert len(lines) == 1 + DAYS


def test_unused_tags_page_by_page_are_all_of_them(
    store: Store, sign_in: SignIn, mock_stores: Stores
) -> None:
    start = datetime(2026, 8, 1, tzinfo=UTC)
    store(*(wire_event("push", tag=f"v{n}", of=f"{n}", at=start) for n in range(7)))
    show_life_and_close(mock_stores)
    client, url, tags = sign_in("alice"), "/api/v1/unused?days=30&limit=3&total=1", []

    while url:
        answer = client.get(url).json
        tags += [row["tag"] for row in answer["items"]]
        url = answer["next"]

    assert tags == [f"v{n}" for n in range(7)]
    assert answer["total"] == 7


def test_recall_is_the_same_on_page_api_and_export(forgotten: None, sign_in: SignIn) -> None:
    client = sign_in("alice")
    query = f"digest={digest('old')}"

    page = client.get(f"/analysis/recall?{query}")
    answer = client.get(f"/api/v1/recall?{query}").json
    export = client.get(f"/analysis/recall?{query}&format=ndjson").text.splitlines()

    assert "1 consumer<" in page.text
    assert [(row["repository"], row["pulls"]) for row in answer["items"]] == [("team/app", 1)]
    assert len(export) == 1


def test_the_api_tells_what_a_recall_looked_for(forgotten: None, sign_in: SignIn) -> None:
    client = sign_in("alice")

    by_tag = client.get("/api/v1/recall?repository=team/app&tag=old").json
    by_digest = client.get(f"/api/v1/recall?digest={digest('old')}").json

    since = {"since": "2026-08-01T00:00:00Z", "until": None, "actor": "alice", "seen_by": "push"}
    assert by_tag["intervals"] == [{"digest": digest("old"), **since}]
    assert by_tag["digests"] == by_digest["digests"] == [digest("old")]
    assert (by_digest["intervals"], by_tag["kept_since"]) == ([], None)


def test_recall_and_dashboard_say_since_when_records_are_kept(
    forgotten: None, sign_in: SignIn, mock_stores: Stores
) -> None:
    client, now = sign_in("alice"), datetime.now(UTC)
    kept = "2026-08-03"  # the last day of which anything was removed is the one before
    recall = f"recall?digest={digest('old')}"
    paths = [f"/analysis/{recall}", "/analysis/?from=2026-08-01&to=2026-08-03"]
    note = f"{kept} 00:00:00 UTC</time> are removed"
    assert not any("are removed" in client.get(path).text for path in paths)

    mock_stores.days.retention_days = 3
    assert mock_stores.days.remove_events(now) == 4

    assert all(note in client.get(path).text for path in paths)
    assert "are removed" not in client.get(f"/analysis/?from={kept}&to={kept}").text
    answer = client.get(f"/api/v1/{recall}").json
    assert (answer["items"], answer["kept_since"]) == ([], f"{kept}T00:00:00Z")


def test_a_client_that_calls_itself_ours_is_recalled_and_can_be_looked_for(
    store: Store, sign_in: SignIn
) -> None:
    at = FIRST + timedelta(hours=1)
    store(wire_event("pull", of="bad", tag="v1", at=at, actor="eve", user_agent="rns-migrate/1"))
    client = sign_in("alice")

    recalled = client.get(f"/api/v1/recall?digest={digest('bad')}").json["items"]
    assert [(row["actor"], row["client"], row["pulls"]) for row in recalled] == [("eve", "own", 1)]
    page = client.get(f"/analysis/recall?digest={digest('bad')}").text
    (href,) = re.findall(r'href="(/analysis/user/login/[^"]*actor=eve[^"]*)"', page)
    assert "1 record<" in client.get(href.replace("&amp;", "&")).text
    assert client.get("/api/v1/records?client=own&total=1").json["total"] == 1
    assert client.get("/api/v1/records?total=1").json["total"] == 0


def test_the_history_of_a_tag_is_told_page_by_page_to_who_may_see_it(
    store: Store, sign_in: SignIn
) -> None:
    for number in range(5):
        store(wire_event(tag="v1", of=f"image {number}", at=FIRST + timedelta(hours=number)))
    store(wire_event("delete", tag="v1", of=None, at=FIRST + timedelta(hours=9)))
    client, url = sign_in("alice"), "/api/v1/history?repository=team/app&tag=v1&limit=4"

    first = client.get(f"{url}&total=1").json
    second = client.get(first["next"]).json

    rows = first["items"] + second["items"]
    assert [row["digest"] for row in rows] == [
        None,
        *(digest(f"image {number}") for number in reversed(range(5))),
    ]
    assert (rows[1]["since"], rows[1]["actor"]) == ("2026-11-10T04:00:00Z", "alice")
    assert {row["seen_by"] for row in rows} == {"push"}
    assert (first["total"], second["next"]) == (6, None)
    csv = client.get(f"{url}&format=csv").text.splitlines()
    assert (csv[0], len(csv)) == ("digest,since,actor,seen_by", 7)
    hidden, nothing = (
        sign_in("mallory").get(f"/api/v1/history?repository=team/app&tag={tag}")
        for tag in ("v1", "no")
    )
    assert (hidden.status_code, hidden.text) == (nothing.status_code, nothing.text)
    assert hidden.status_code == 404


def test_figures_of_one_tag_or_digest_are_those_of_their_records(
    happened: list[Happening], sign_in: SignIn
) -> None:
    client = sign_in("alice")
    moves = [row for row in within(happened) if row[1] == "pull" and row[2] == "team/app"]
    of = digest("{2} {3} {0}".format(*moves[0])) if moves else digest("none")

    for filters in (
        {"tag": "v1"},
        {"tag": SIGNATURE},
        {"repository": "team/app", "tag": "v2"},
        {"digest": of},
    ):
        figures = client.get("/api/v1/usage", query_string={**PERIOD, **filters}).json
        times = {"from": "2026-11-10", "to": "2026-11-19"}
        for action in ("push", "pull", "check"):
            query = {**times, **filters, "action": action, "total": 1}
            records = client.get("/api/v1/records", query_string=query).json
            name = "checks" if action == "check" else f"{action}es" if action == "push" else "pulls"
            assert figures["totals"][name] == records["total"], (filters, action)
        assert "new_tags" not in figures["totals"]


def test_the_page_of_a_platform_tells_who_pulled_it(store: Store, sign_in: SignIn) -> None:
    of_index = {"of": "index", "tag": "v1", "media_type": INDEX, "children": ["amd64"]}
    store(wire_event("push", of="amd64", at=FIRST), wire_event("push", **of_index, at=FIRST))
    at = FIRST + timedelta(hours=1)
    store(wire_event("pull", **of_index, at=at, actor="bob"))
    store(wire_event("pull", of="amd64", at=at + timedelta(seconds=1), actor="bob"))

    page = sign_in("alice").get(f"/search/digest?digest={digest('amd64')}").text

    shown = re.sub(r"<[^>]*>", "", page)
    assert "2026-11-10 01:00:01 UTC by bob, as a platform of an index" in shown


def test_the_proof_of_an_unused_tag_is_also_a_pull_by_digest(
    store: Store, sign_in: SignIn, mock_stores: Stores
) -> None:
    start = datetime(2026, 8, 1, tzinfo=UTC)
    for tag in ("a", "b"):
        store(wire_event("push", tag=tag, of="same", at=start))
    store(wire_event("pull", tag=None, of="same", at=start + timedelta(days=1), actor="k8s"))
    show_life_and_close(mock_stores)

    rows = sign_in("alice").get("/api/v1/unused?days=30").json["items"]

    assert [(row["tag"], row["last_pulled_by"]) for row in rows] == [("a", "k8s"), ("b", "k8s")]
    assert [row["last_used_by"] for row in rows] == ["k8s", "k8s"]


def test_what_is_pulled_daily_by_a_mirror_is_unused_and_says_so(
    store: Store, sign_in: SignIn, mock_stores: Stores
) -> None:
    now = datetime.now(UTC)
    store(wire_event("push", tag="v1", at=now - timedelta(days=100)))
    store(wire_event("pull", tag="v1", at=now - timedelta(days=99), actor="k8s"))
    mirror = {"actor": "copy", "user_agent": "regclient/regsync (v0.7)"}
    poller = {"actor": "poll", "user_agent": "diun/4.28"}
    for day in (3, 2):
        store(wire_event("pull", tag="v1", at=now - timedelta(days=day), **mirror))
        store(wire_event("check", tag="v1", at=now - timedelta(days=day, hours=1), **poller))
    show_life_and_close(mock_stores)
    client = sign_in("alice")

    [row] = client.get("/api/v1/unused?days=30").json["items"]
    page = client.get("/analysis/unused?days=30").text
    lines = client.get("/analysis/unused?days=30&format=csv").text.splitlines()

    names = ("used", "pulled", "checked")
    found = [(row[f"last_{name}_by"], row[f"last_{name}_client"]) for name in names]
    assert found == [("k8s", "docker"), ("copy", "replication"), ("poll", "updater")]
    days = [datetime.fromisoformat(row[f"last_{name}_at"]).date() for name in names]
    assert days == [
        (now - timedelta(days=day, hours=hour)).date() for day, hour in ((99, 0), (2, 0), (2, 1))
    ]
    assert "by copy, replication: no use" in page
    assert "by poll, updater: no use" in page
    assert "by k8s, docker" in page
    assert "none on record" not in page
    assert lines[0].endswith("last_checked_at,last_checked_by,last_checked_client")
    assert lines[1].endswith(",poll,updater")


KINDS = {
    "image": {"of": "image", "tag": "v1"},
    "signature": {"of": "signature", "tag": SIGNATURE},
    "attestation": {
        "of": "attestation",
        "references": [{"mediaType": "application/vnd.in-toto+json", "digest": digest("a")}],
    },
    "sbom": {"of": "sbom", "tag": SIGNATURE.replace(".sig", ".sbom")},
    "index": {"of": "referrers", "tag": SIGNATURE.removesuffix(".sig"), "media_type": INDEX},
    "chart": {
        "of": "chart",
        "tag": "1.0",
        "references": [
            {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": digest("c")}
        ],
    },
}


@pytest.mark.parametrize("action", ["push", "pull", "check"])
def test_what_supplements_an_image_is_recorded_and_counts_where_it_is_asked_for(
    store: Store, sign_in: SignIn, action: str
) -> None:
    for number, shape in enumerate(KINDS.values()):
        at = FIRST + timedelta(minutes=10 * number)
        store(wire_event(action, at=at, **shape))
    client = sign_in("alice")

    def records(**query: str) -> list[str]:
        found = client.get("/api/v1/records", query_string={"action": action, **query}).json
        return sorted(row["kind"] for row in found["items"])

    def figure(**query: str) -> Any:
        totals = client.get("/api/v1/usage", query_string={**PERIOD, **query}).json["totals"]
        return totals[{"push": "pushes", "pull": "pulls", "check": "checks"}[action]]

    assert records() == sorted(KINDS)
    assert {kind: records(kind=kind) for kind in KINDS} == {kind: [kind] for kind in KINDS}
    assert records(kind="content") == ["chart", "image"]
    assert records(kind="content", tag="v1") == ["image"]
    assert (figure(), figure(supplements="1")) == (2, 6)
    assert figure(tag=SIGNATURE) == figure(digest=digest("sbom")) == 1
    assert client.get("/api/v1/records?kind=other").status_code == 400


def test_the_page_of_a_repository_counts_its_images_and_that_of_a_signature_itself(
    store: Store, sign_in: SignIn
) -> None:
    now = datetime.now(UTC) - timedelta(hours=2)
    for number, tag in enumerate(["v1", SIGNATURE, SIGNATURE]):
        store(wire_event("push", tag=tag, of=f"{tag}", at=now + timedelta(minutes=number)))
    client, of = sign_in("alice"), "repository=team/app"

    def pushes(path: str) -> str:
        page = client.get(path).text
        [(href, number)] = re.findall(r'<a href="(/analysis/user[^"]*)">(\d+) push', page)
        listed = client.get(href.replace("&amp;", "&")).text
        assert f"{number} record" in listed
        return str(number)

    assert pushes(f"/search/repository?{of}") == "1"
    assert pushes(f"/search/repository?{of}&supplements=1") == "3"
    assert pushes(f"/search/tag?{of}&tag={SIGNATURE}") == "2"
    assert pushes(f"/search/digest?digest={digest(SIGNATURE)}") == "2"


def test_the_chart_is_drawn_by_the_server_with_its_table(
    happened: list[Happening], sign_in: SignIn
) -> None:
    page = sign_in("alice").get("/analysis/", query_string=PERIOD).text
    rows = [row for row in visible_to("alice", happened) if row[3] != SIGNATURE]

    [plot] = re.findall(r'<div class="plot" aria-hidden="true">(.*?)</div>\s*<details', page, re.S)
    drawn = re.findall(r": (\w+) ([0-9,]+)</title><rect class=\"fill-\w+( before)?\"", plot)
    for is_before, found in ((False, within(rows)), (True, within(rows, -1))):
        of_days = Counter((row[1], row[0].date()) for row in found)
        names = {"push": "Pushes", "pull": "Pulls", "check": "Checks", "delete": "Deletes"}
        expected = Counter((names[action], number) for (action, _), number in of_days.items())
        marks = [(label, int(number)) for label, number, mark in drawn if bool(mark) == is_before]
        assert Counter(marks) == expected
    assert plot.count('<a tabindex="-1"') == len(drawn)
    assert '<details class="mb-4">\n    <summary>As a table' in page
    assert "<canvas" not in page


def test_every_mark_of_the_chart_leads_to_exactly_as_many_records(
    store: Store, sign_in: SignIn
) -> None:
    for number in range(3):
        at = FIRST + timedelta(days=1, hours=2 * number)
        store(wire_event("pull", tag="v1", at=at), wire_event("pull", "ops/app", tag="v1", at=at))
    store(wire_event("pull", tag="v1", at=FIRST - timedelta(days=9)))
    client = sign_in("alice")

    page = client.get("/analysis/", query_string=PERIOD).text

    marks = re.findall(r'<a tabindex="-1" href="([^"]*)">\s*<title>(.*?): Pulls (\d+)<', page)
    assert [(day, number) for _, day, number in marks] == [("2026-11-01", "1"), ("2026-11-11", "3")]
    for href, _, number in marks:
        found = client.get(href.replace("&amp;", "&")).text
        assert re.search(r"([0-9,]+) records?</span>", found)[1] == number
    assert "200% more than before" in page
    hidden = sign_in("mallory").get("/analysis/", query_string=PERIOD).text
    assert 'class="plot"' not in hidden, "not even the height of a bar"
    assert "Nothing that you may see." in hidden


def test_pulls_by_client_class_are_those_of_their_records(
    happened: list[Happening], sign_in: SignIn
) -> None:
    client = sign_in("alice")
    page = client.get("/analysis/", query_string={**PERIOD, "by": "client"}).text

    links = re.findall(r'href="(/analysis/user/login/\?[^"]*client=[^"]*)"', page)
    marks = re.findall(r'<a tabindex="-1" href="([^"]*)">\s*<title>[^<]*: (\w+) (\d+)<', page)

    rows = [row for row in visible_to("alice", happened) if row[3] != SIGNATURE]
    pulls = [row for row in (*within(rows), *within(rows, -1)) if row[1] == "pull"]
    of_days = Counter((row[5], row[0].date()) for row in pulls)
    expected = Counter((name, str(number)) for (name, _), number in of_days.items())
    assert Counter((name, number) for _, name, number in marks) == expected
    for href, name, number in marks[:3]:
        assert f"client={name}" in href
        found = client.get(href.replace("&amp;", "&")).text
        assert f">{number} record" in found
    assert links


def test_of_many_client_classes_the_least_are_added_up(store: Store, sign_in: SignIn) -> None:
    agents = ("docker/27", "Helm/3", "trivy/0.5", "podman/5", "containerd/2", "skopeo/1", "kaniko")
    for number, agent in enumerate([*agents, "unheard of"]):
        for turn in range(9 - number):
            at = FIRST + timedelta(hours=number, minutes=5 * turn)
            store(wire_event("pull", tag="v1", at=at, user_agent=agent))
    client = sign_in("alice")

    page = client.get("/analysis/", query_string={**PERIOD, "by": "client"}).text

    [plot] = re.findall(r'<div class="plot" aria-hidden="true">(.*?)</div>\s*<details', page, re.S)
    numbers = re.findall(r": ([\w -]+) (\d+)</title>", plot)
    assert sum(int(number) for _, number in numbers) == sum(range(2, 10))
    assert len(numbers) == 7
    assert numbers[-1][0] == "all others"


def test_clients_of_others_are_drawn_for_nobody_who_may_not_know_them(
    store: Store, make_app: Callable[..., Flask], app: Flask
) -> None:
    store(wire_event("pull", tag="v1", at=FIRST, actor="bob", user_agent="trivy/0.5"))
    query = {**PERIOD, "by": "client"}

    def page(records: Any) -> str:
        client = make_app(access=Access(records=records)).test_client()
        return client.get("/analysis/", query_string=query, headers=basic("alice")).text

    seen = page("all")
    assert "By client" in seen
    assert ": scanner 1</title>" in seen
    for records in ("own", "without_addresses"):
        hidden = page(records)
        assert ": Pulls 1</title>" in hidden
        assert "By client" not in hidden
        assert ": scanner" not in hidden


def week_of(page: str) -> dict[str, tuple[int, int]]:
    """What happened in each hour of the week, and in how many such hours, where anything did."""
    cells = re.findall(
        r"<title>(\w{3} \d\d):00: [0-9.]+ in an hour, ([0-9,]+) in (\d+)</title>", page
    )
    assert len(cells) in (0, 7 * 24)
    return {name: (int(number), int(hours)) for name, number, hours in cells if int(number)}


def test_hours_of_the_week_are_a_recount_of_what_an_account_may_see(
    happened: list[Happening], sign_in: SignIn, mock_stores: Stores
) -> None:
    for day in mock_stores.days.find_open_days(datetime.now(UTC)):
        mock_stores.days.close_day(day)
    days = Counter(f"{FIRST + timedelta(days=number):%a}" for number in range(DAYS))

    for name in ("admin", "alice", "mallory"):
        visible = [] if name == "mallory" else visible_to(name, happened)
        for query, holds in FILTERS[:1] + FILTERS[2:3] + FILTERS[11:12]:
            rows = [row for row in within(visible) if holds(row) and counts(query, row)]
            expected = Counter(f"{row[0]:%a %H}" for row in rows)
            page = sign_in(name).get("/analysis/", query_string={**PERIOD, **query}).text
            assert week_of(page) == {
                hour: (number, days[hour[:3]]) for hour, number in expected.items()
            }
            assert (name == "mallory") == (not expected)


def test_hours_of_the_week_are_left_out_where_events_would_have_to_be_counted(
    happened: list[Happening], sign_in: SignIn, mock_stores: Stores
) -> None:
    client = sign_in("admin")
    title = ">Hours and weekdays<"
    assert title not in client.get("/analysis/", query_string=PERIOD).text, "all days are open"
    for day in mock_stores.days.find_open_days(datetime.now(UTC)):
        mock_stores.days.close_day(day)

    assert title in client.get("/analysis/", query_string=PERIOD).text
    for query in ({"repository": "team/app"}, {"tag": "v1"}, {"to": "2026-11-11"}):
        assert title not in client.get("/analysis/", query_string={**PERIOD, **query}).text


def test_hours_to_come_do_not_count(store: Store, sign_in: SignIn) -> None:
    now = datetime.now(UTC)
    store(wire_event("push", at=now - timedelta(minutes=1)))

    page = sign_in("alice").get("/analysis/?days=7").text

    hours = re.findall(r"in an hour, [0-9,]+ in (\d+)</title>", page)
    assert sum(map(int, hours)) in (6 * 24 + now.hour + 1, 6 * 24 + datetime.now(UTC).hour + 1)


def test_recall_by_digest_is_narrowed_to_a_registry(store: Store, sign_in: SignIn) -> None:
    for registry in ("default", "other"):
        at = FIRST + timedelta(hours=1)
        store(wire_event("pull", of="bad", at=at, id=f"in-{registry}"), registry=registry)
    client = sign_in("alice")

    def registries(query: str) -> list[str]:
        answer = client.get(f"/api/v1/recall?digest={digest('bad')}{query}").json
        return sorted(row["registry"] for row in answer["items"])

    assert registries("") == ["default", "other"]
    assert registries("&registry=other") == ["other"]


def test_a_recall_tells_nothing_of_a_digest_that_only_a_hidden_repository_told(
    store: Store, sign_in: SignIn
) -> None:
    at, of = FIRST + timedelta(hours=1), "multi"
    pushed = wire_event("push", "ops/app", of=of, at=at, media_type=INDEX, children=["amd64"])
    store(pushed, registry="other")
    store(wire_event("pull", tag="v1", of=of, at=at, media_type=INDEX))

    def digests(name: str, query: str = "") -> list[str]:
        answer = sign_in(name).get(f"/api/v1/recall?digest={digest(of)}{query}").json
        return list(answer["digests"])

    assert digests("admin") == [digest(of), digest("amd64")]
    for name in ("alice", "mallory"):
        for query in ("", "&registry=other"):
            assert digests(name, query) == [digest(of)]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "digest"),
        ("digest=sha256:abc", "digest"),
        (f"digest={digest('a')}&tag=v1", "digest"),
        (f"digest={digest('a')}&from=2026-11-10", "digest"),
        (f"digest={digest('a')}&to=2026-11-10", "digest"),
        ("repository=team/app", "tag"),
        ("tag=v1", "repository"),
        ("repository=team/app&tag=v1&from=2026-11-10&to=2026-11-09", "to"),
    ],
)
def test_recall_names_what_it_cannot_use(sign_in: SignIn, query: str, field: str) -> None:
    response = sign_in("alice").get(f"/api/v1/recall?{query}")

    assert response.status_code == 400
    assert response.json["detail"].startswith(f"{field}: ")


def test_the_period_is_chosen_by_a_link_or_by_days_and_the_filters_stay(
    store: Store, sign_in: SignIn
) -> None:
    store(wire_event("push", at=FIRST))
    today = datetime.now(UTC).date()
    this = today.replace(day=1)
    end = this - timedelta(days=1)
    client = sign_in("alice")

    def chosen(query: str) -> tuple[str, dict[str, str]]:
        """The label in force, and the links by label."""
        page = client.get(f"/analysis/?{query}").text
        nav = page[page.index('aria-label="Period"') : page.index("</nav>", page.index("Period"))]
        links = re.findall(r'<a class="[^"]*" (.*?) ?href="([^"]*)">([^<]*)</a>', nav)
        here = [label for mark, _, label in links if mark]
        assert 'name="namespace" value="team"' in page[page.index('class="period"') :]
        return "".join(here), {label: href.replace("&amp;", "&") for _, href, label in links}

    here, links = chosen("namespace=team")
    assert here == "30 days"
    assert list(links) == [
        *("Today", "2 days", "7 days", "30 days", "90 days", "This month", "Last month")
    ]
    for label, href in links.items():
        assert chosen(href.partition("?")[2])[0] == label
    assert links["Last month"].endswith(f"from={end.replace(day=1)}&to={end}")
    shown = client.get(links["This month"]).text
    assert f"{this}{f' to {today}' if today != this else ''}, days of UTC" in shown
    assert 'value="2026-11-10"' in client.get("/analysis/", query_string=PERIOD).text


def test_a_day_that_is_none_is_named_beside_the_days(sign_in: SignIn) -> None:
    response = sign_in("alice").get("/analysis/?from=2026-11-10&to=2026-11-09")

    assert response.status_code == 400
    assert "is before from" in response.text
