"""What an account sees of other people: `access.records`, on every page, export and API path."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import mongomock
import pytest
from builders import INDEX, PASSWORDS, basic, deliver, digest, envelope, time_of, wire_event
from flask.testing import FlaskClient
from routes import MIGRATION, find_routes

from app import create_app
from app.settings import Access, MongoDB, Server, Settings
from app.store import Stores

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ME, BOB, CAROL = "alice", "bob-the-other", "carol-the-other"
NETWORKS = {ME: "10.1.0", BOB: "10.2.0", CAROL: "10.3.0", "": "10.4.0"}
# Every other person has clients that nobody else has.
AGENTS = {
    ME: ["docker/27 mark-of-alice", "helm/3 mark-of-alice"],
    BOB: ["docker/27 mark-of-bob", "trivy/0.5 mark-of-bob"],
    CAROL: ["containerd/1.7 mark-of-carol", "regsync/0.7 mark-of-carol"],
    "": ["curl/8 mark-of-nobody"],
}
ADDRESSES_OF_OTHERS = re.compile(r"10\.[234]\.0")
AGENTS_OF_OTHERS = re.compile(r"mark-of-(?!alice)")
NAMES_OF_OTHERS = re.compile("-the-other")

Happened = list[dict[str, Any]]


def happenings(dice: random.Random) -> Iterator[dict[str, Any]]:
    """Forty days; what is called old is used in the first of them alone."""
    moment = NOW - 40 * DAY
    for number, action in enumerate(["push", "check", "pull", "pull"]):
        actor = [BOB, CAROL, ME, dice.choice([BOB, CAROL])][number]
        yield happening(dice, action, "team/app", "old", "old", actor, moment + number * HOUR)
    while moment < NOW - 2 * HOUR:
        repository = dice.choice(["team/app", "team/app", "team/db", "ops/app"])
        yield happening(
            dice,
            dice.choice(["push", "pull", "pull", "check", "delete"]),
            repository,
            dice.choice(["v1", "v2", None]),
            f"{repository} {dice.randrange(4)}",
            dice.choice([ME, BOB, BOB, CAROL, ""]),
            moment,
        )
        moment += dice.choice([5, 20, 30]) * HOUR
    # The registry is heard of to the end, and the last pull is another one's.
    yield happening(dice, "push", "team/app", "v1", "team/app 0", ME, NOW - HOUR)
    yield happening(dice, "pull", "team/app", "v1", "team/app 0", BOB, NOW - HOUR / 2)


def happening(
    dice: random.Random,
    action: str,
    repository: str,
    tag: str | None,
    of: str,
    actor: str,
    moment: datetime,
) -> dict[str, Any]:
    return wire_event(
        action,
        repository,
        tag=tag,
        of=of,
        at=moment,
        media_type=INDEX,
        children=[f"child of {of}"],
        actor=actor,
        address=f"{NETWORKS[actor]}.{dice.randrange(3)}:1234",
        user_agent=dice.choice(AGENTS[actor]),
    )


class Seen(NamedTuple):
    """What happened, and where it is stored."""

    stores: Stores
    events: Happened

    def by(self, records: Any) -> FlaskClient:
        """A client of an application with this setting, signed in as alice by HTTP Basic."""
        config = Settings(
            server=Server(secret_key="key"),
            mongodb=MongoDB(uri="mongodb://unused"),
            access=Access(records=records),
            migrations=[MIGRATION],
        )
        client = create_app(config, self.stores).test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = basic(ME)["Authorization"]
        return client


@pytest.fixture(scope="module", params=range(2))
def seen(request: pytest.FixtureRequest) -> Seen:
    """A random history, of which most days are closed."""
    stores = Stores(mongomock.MongoClient(tz_aware=True)["registry"])
    stores.ensure_indexes()
    events = list(happenings(random.Random(request.param)))
    for event in events:
        deliver(stores, envelope(event), "default", time_of(event))
    for day in stores.days.find_open_days(NOW)[request.param :]:
        stores.days.close_day(day)
    for name in (ME, "admin"):
        stores.accounts.add(name, PASSWORDS[name], {})
    entry = {"seq": 1, "match": {"account": ME, "name": "team/*"}, "actions": ["pull"]}
    stores.accounts.add_acl_entry(entry)
    return Seen(stores, events)


@pytest.fixture
def restricted(seen: Seen, records: str) -> FlaskClient:
    return seen.by(records)


RESTRICTED = pytest.mark.parametrize("records", ["without_addresses", "own"])
IMAGES = ["old", "team/app 0", "team/app 1"]
RICH = {"/api/v1/records", "/api/v1/recall", "/search/digest", "/search/tag"}
QUERIES: list[dict[str, str]] = [
    {},
    {"format": "csv"},
    {"format": "ndjson"},
    {"limit": "500", "parts": "1"},
    {"days": "1"},
    {"days": "90", "supplements": "1"},
    {"repository": "team/app", "tag": "v1"},
    {"repository": "team/app", "tag": "v1", "format": "csv"},
    {"repository": "team/app", "days": "30"},
    {"sort": "pushed", "deleted": "1"},
    {"client": "docker"},
    {"client": "containerd"},
    {"action": "pull", "client": "own"},
    {"clients": "docker,containerd"},
    *({"digest": digest(image)} for image in IMAGES),
    *({"digest": digest(image), "format": "ndjson"} for image in IMAGES),
]


@RESTRICTED
def test_no_route_tells_an_account_of_other_people(restricted: FlaskClient, records: str) -> None:
    told, shown, dice = [], "", random.Random(records)

    for _, path in find_routes(restricted.application, "GET"):
        for query in QUERIES if path in RICH else dice.sample(QUERIES, 4):
            with restricted.get(path, query_string=query) as response:
                text = response.text
            assert response.status_code < 500
            shown += text
            hidden = [ADDRESSES_OF_OTHERS, AGENTS_OF_OTHERS]
            hidden += [NAMES_OF_OTHERS] if records == "own" else []
            if any(pattern.search(text) for pattern in hidden):
                told.append((path, query))

    assert told == []
    assert "mark-of-alice" in shown
    assert "10.1.0." in shown
    assert bool(NAMES_OF_OTHERS.search(shown)) == (records == "without_addresses")


def test_all_is_shown_where_nothing_is_set_and_to_administrators_in_any_case(
    seen: Seen,
) -> None:
    for client, name in ((seen.by(Access().records), ME), (seen.by("own"), "admin")):
        for path in ("/api/v1/records?limit=500", "/api/v1/usage?days=90"):
            text = client.get(path, headers=basic(name)).text
            assert ADDRESSES_OF_OTHERS.search(text), path
            assert NAMES_OF_OTHERS.search(text), path
            assert AGENTS_OF_OTHERS.search(text) or "usage" in path, path


# Filters: who asks for other people learns nothing, who asks for himself finds himself

ASKED = [
    ({"address": "10.2.0.0/24"}, {"address": "10.9.0.0/24"}),
    ({"address": "10.4.0.0/24"}, {"address": "10.9.0.0/24"}),
    ({"client": "containerd"}, {"client": "crane"}),
    (
        {"client": "scanner", "repository": "team/app"},
        {"client": "crane", "repository": "team/app"},
    ),
    ({"client": "other", "actor": "-"}, {"client": "crane", "actor": "-"}),
    ({"client": "docker", "actor": BOB}, {"client": "docker", "actor": "no-one"}),
]
ASKED_OF_NAMES = [
    ({"actor": BOB}, {"actor": "no-one"}),
    ({"actor": "-"}, {"actor": "no-one"}),
    ({"actor": CAROL, "tag": "v1"}, {"actor": "no-one", "tag": "v1"}),
]


def answers(client: FlaskClient, query: dict[str, str]) -> list[Any]:
    """What the API says to a filter, without the links that repeat it."""
    found = []
    for path in ("records", "usage"):
        if path == "usage" and "address" in query:
            continue
        more = {"limit": "5", "parts": "1", "total": "1"} if path == "records" else {"days": "90"}
        answer = client.get(f"/api/v1/{path}", query_string=query | more)
        assert answer.status_code == 200, answer.text
        found.append({name: value for name, value in answer.json.items() if name != "next"})
        found.append(bool(answer.json.get("next")))
    return found


@RESTRICTED
def test_a_filter_by_what_is_hidden_finds_what_one_finds_that_matches_nobody(
    restricted: FlaskClient, records: str
) -> None:
    for asked, of_nobody in ASKED + (ASKED_OF_NAMES if records == "own" else []):
        assert answers(restricted, asked) == answers(restricted, of_nobody), asked


@RESTRICTED
def test_a_filter_by_what_is_hidden_finds_what_the_account_did_itself(
    seen: Seen, restricted: FlaskClient
) -> None:
    unrestricted = seen.by("all")
    for query in ({"address": "10.0.0.0/8"}, {"client": "docker"}, {"client": "helm"}):
        mine = answers(unrestricted, {**query, "actor": ME})
        assert mine[0]["total"] > 0
        assert answers(restricted, query) == mine
        assert answers(restricted, {**query, "actor": ME}) == mine


# Single pages


def get(client: FlaskClient, path: str, **query: str) -> Any:
    answer = client.get(f"/api/v1/{path}", query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.json


@RESTRICTED
def test_the_records_of_others_are_shown_without_place_or_not_at_all(
    seen: Seen, restricted: FlaskClient, records: str
) -> None:
    rows = get(restricted, "records", limit="500", parts="1")["items"]

    visible = [event for event in seen.events if event["target"]["repository"].startswith("team/")]
    ids = {event["id"] for event in visible if records != "own" or event["actor"] == {"name": ME}}
    assert {row["id"] for row in rows} == ids
    for row in rows:
        place = (row["address"], row["client"], row["user_agent"])
        assert all(place) if row["actor"] == ME else place == ("", "", "")


@RESTRICTED
def test_figures_count_everybody_and_top_lists_name_only_whom_they_may(
    seen: Seen, restricted: FlaskClient, records: str
) -> None:
    full, mine = (get(seen.by("all"), "usage", days="90", **query) for query in ({}, {"actor": ME}))

    found = get(restricted, "usage", days="90")

    for part in ("totals", "before", "slots"):
        assert found[part] == full[part]
    own = {"clients", "addresses"} | ({"accounts"} if records == "own" else set())
    for name, lines in found["tops"].items():
        assert lines == (mine if name in own else full)["tops"][name], name
    assert mine["tops"]["addresses"]


@RESTRICTED
def test_figures_of_another_account_tell_no_client_and_no_address(restricted: FlaskClient) -> None:
    tops = get(restricted, "usage", days="90", actor=BOB)["tops"]

    assert (tops["clients"], tops["addresses"]) == ([], [])


@RESTRICTED
def test_a_recall_has_one_row_of_others_for_each_account_or_none(
    seen: Seen, restricted: FlaskClient, records: str
) -> None:
    for image in IMAGES:
        full = get(seen.by("all"), "recall", digest=digest(image), limit="500")["items"]
        rows = get(restricted, "recall", digest=digest(image), limit="500")["items"]

        pulls: Counter[tuple[str, str]] = Counter()
        for row in full:
            if row["actor"] == ME or records != "own":
                pulls[row["actor"], row["address"] if row["actor"] == ME else ""] += row["pulls"]
        of_rows: Counter[tuple[str, str]] = Counter()
        for row in rows:
            of_rows[row["actor"], row["address"]] += row["pulls"]
        assert of_rows == pulls
        others = [row["actor"] for row in rows if row["actor"] != ME]
        assert len(others) == len(set(others))


@RESTRICTED
def test_the_last_pull_is_that_of_anybody_and_named_where_it_may_be(
    seen: Seen, restricted: FlaskClient, records: str
) -> None:
    pulls = [
        event
        for event in seen.events
        if event["action"] == "pull"
        and event["request"]["method"] == "GET"
        and event["target"]["repository"] == "team/app"
    ]
    last = max(pulls, key=lambda event: event["timestamp"])

    page = restricted.get("/search/repository?repository=team/app").text

    fact = re.search(r"<dt>Last pull</dt><dd[^>]*>(.*?)</dd>", page)
    assert fact
    assert f'datetime="{last["timestamp"]}"' in fact[1]
    name = last["actor"].get("name", "anonymous")
    is_named = records == "without_addresses" or name == ME
    assert (f"by {name}" in re.sub(r"<[^>]*>", "", fact[1])) == is_named
    assert is_named or name not in fact[1]


@RESTRICTED
def test_who_moved_a_tag_is_told_where_it_may_be(restricted: FlaskClient, records: str) -> None:
    hidden = 0
    for tag in ("v1", "v2", "old"):
        for move in get(restricted, "history", repository="team/app", tag=tag)["items"]:
            hidden += move["actor"] is None
            assert records == "without_addresses" or move["actor"] in (ME, None)
    pushed_by = {row["pushed_by"] for row in get(restricted, "tags", deleted="1")["items"]}

    assert bool(hidden) == (records == "own")
    assert records == "without_addresses" or pushed_by <= {ME, ""}


@RESTRICTED
def test_unused_tags_are_judged_by_everybody_and_prove_it_without_what_is_hidden(
    seen: Seen, restricted: FlaskClient, records: str
) -> None:
    full, found = (get(client, "unused", days="1") for client in (seen.by("all"), restricted))

    hidden = {"pushed_by", *(f"last_{what}_{of}" for what in PROOFS for of in ("by", "client"))}
    for rows in (full, found):
        rows["shown"] = [
            {name: value for name, value in row.items() if name not in hidden}
            for row in rows["items"]
        ]
    assert found["shown"] == full["shown"] != []
    for row, whole in zip(found["items"], full["items"], strict=True):
        for what in PROOFS:
            by, client = whole[f"last_{what}_by"], whole[f"last_{what}_client"]
            named = by if by == ME or records != "own" else None
            placed = client if by == ME else None
            assert (row[f"last_{what}_by"], row[f"last_{what}_client"]) == (named, placed)


PROOFS = ("used", "pulled", "checked")


@RESTRICTED
def test_which_clients_of_others_use_a_tag_cannot_be_asked(
    seen: Seen, restricted: FlaskClient
) -> None:
    path = "/api/v1/unused?days=1&clients=containerd"

    assert "access.records" in restricted.get(path).json["detail"]
    assert restricted.get(path).status_code == 400
    assert restricted.get(path.replace("/api/v1/", "/analysis/")).status_code == 400
    assert restricted.get(path, headers=basic("admin")).status_code == 200
    assert seen.by("all").get(path).status_code == 200


@RESTRICTED
def test_pages_say_what_is_left_out(seen: Seen, restricted: FlaskClient, records: str) -> None:
    note = {"own": "how often, not who", "without_addresses": "neither address nor client"}
    paths = ("/analysis/user/login/", f"/analysis/recall?digest={digest(IMAGES[0])}")

    for path in paths:
        assert note[records] in restricted.get(path).text
        assert "Of other people" not in seen.by("all").get(path).text
