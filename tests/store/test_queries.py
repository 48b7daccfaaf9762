"""Every list against a recount in plain Python, with indexes and without.

An index must change the cost of an answer and never the answer: the embedded database is known to
get some shapes of index wrong.
"""

from __future__ import annotations

import ipaddress
import random
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from builders import INDEX, NOW, deliver, digest, envelope, rule, wire_event
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pymongo import ReadPreference
from pymongo.collection import Collection
from pymongo.database import Database

from app.settings import DockerAuth, MongoDB, Settings
from app.store import Stores, connect
from app.store.catalogue import CatalogueQuery
from app.store.catalogue.queries import glob_expression
from app.store.events import CONTENT, RecordQuery

REPOSITORIES = [
    "alice/a",
    "alice/deep/er/b",
    "team/app",
    "team/web",
    "ubuntu",
    "alicia/x",
    "other/y",
]
TOGETHER = 25  # events of one envelope
LIST = digest("one").replace(":", "-")
ATTESTED = [{"mediaType": "application/vnd.in-toto+json", "digest": digest("note"), "size": 1}]
ACLS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "everything": ("admin", []),
    "own namespace": ("alice", []),
    "a namespace": ("bob", [{"seq": 1, "match": {"name": "team/*"}, "actions": ["pull"]}]),
    "a name and a namespace": (
        "alice",
        [
            {"seq": 1, "match": {"name": "ubuntu"}, "actions": ["*"]},
            {"seq": 2, "match": {"name": "team/app"}, "actions": ["pull"]},
        ],
    ),
    "a regex": ("bob", [{"seq": 1, "match": {"name": "/^[at].*a/"}, "actions": ["pull"]}]),
    "all but one": (
        "bob",
        [
            {"seq": 1, "match": {"name": "team/web"}, "actions": []},
            {"seq": 2, "match": {}, "actions": ["pull"]},
        ],
    ),
    "nothing": ("bob", []),
}


def make_events() -> Iterator[dict[str, Any]]:
    chance = random.Random(3)
    for number in range(250):
        kind = chance.choice(["push", "push", "pull", "pull", "check", "delete"])
        event = wire_event(
            kind,
            chance.choice(REPOSITORIES),
            tag=chance.choice(["v1", "v2", "latest", None, f"{LIST}.sig", LIST]),
            of=chance.choice(["one", "two", "three", "four"]),
            at=NOW - timedelta(hours=chance.choice([0, 1, 30, 200, 2000]), seconds=number // 4),
            id=f"id-{number}",
            actor=chance.choice(["alice", "bob", ""]),
            address=chance.choice(["10.0.0.1:1", "10.1.0.1:1", "[fd00::1]:1", "odd"]),
            user_agent=chance.choice(["docker/1", "trivy/1"]),
            media_type=chance.choice([INDEX, "application/vnd.oci.image.manifest.v1+json"]),
        )
        if event["target"].get("digest") == digest("four"):
            event["target"]["references"] = ATTESTED
        if kind == "delete" and event["target"].get("tag"):
            event["target"].pop("digest", None)
        yield event


@pytest.fixture(scope="module")
def filled(wire_client: Any) -> Any:
    """The same events twice: in a database with our indexes, and in one without any."""
    names = ("test_indexed", "test_bare")
    for name in names:
        wire_client.drop_database(name)
    indexed, bare = (Stores(wire_client[name]) for name in names)
    indexed.ensure_indexes()
    events = list(make_events())
    for stores in (indexed, bare):
        for first in range(0, len(events), TOGETHER):
            deliver(stores, envelope(*events[first : first + TOGETHER]), "default", NOW)
    yield indexed, bare
    for name in names:
        wire_client.drop_database(name)


def random_query(chance: random.Random) -> RecordQuery:
    times = [None, NOW - timedelta(hours=30), NOW - timedelta(days=9)]
    since = chance.choice(times)
    return RecordQuery(
        action=chance.choice([None, "push", "pull", "check", "delete"]),
        repository=chance.choice([None, None, *REPOSITORIES, "none/such"]),
        tag=chance.choice([None, None, "v1"]),
        actor=chance.choice([None, None, "alice"]),
        client=chance.choice([None, None, "scanner"]),
        kind=chance.choice([None, None, "image", "signature", "attestation", "blob", CONTENT]),
        network=chance.choice([None, None, ipaddress.ip_network("10.0.0.0/15")]),
        since=since,
        until=chance.choice([None, NOW - timedelta(hours=1)]) if since else None,
        parts=chance.choice([True, False]),
    )


def recount(
    stores: Stores, query: RecordQuery, visible: Any, account: str, records: str
) -> list[str]:
    """The ids that a query must give, newest first, by looking at every event."""
    found = []
    by_client = query.client is not None or query.network is not None
    only_own = records == "own" or (records == "without_addresses" and by_client)
    for event in stores.events.iterate():
        if only_own and event.actor != account:
            continue
        is_about_another = (event.tag or "").startswith("sha256-")
        kinds = {event.kind}
        if event.kind not in ("blob", "signature", "attestation") and not is_about_another:
            kinds |= {CONTENT}
        if event.kind != "blob":
            kinds |= {None}
        network = query.network
        try:
            is_near = network is None or ipaddress.ip_address(event.address) in network
        except ValueError:
            is_near = False
        wanted = ("action", "repository", "tag", "actor", "client")
        if (
            visible(event.repository)
            and (query.parts or not event.part_of)
            and query.kind in kinds
            and is_near
            and all(getattr(query, f) in (None, getattr(event, f)) for f in wanted)
            and (query.since is None or event.timestamp >= query.since)
            and (query.until is None or event.timestamp < query.until)
        ):
            found.append((event.position, event.id))
    return [event_id for _, event_id in sorted(found, reverse=True)]


@pytest.mark.wire
@pytest.mark.parametrize("name", ACLS)
def test_records_equal_a_recount_with_and_without_indexes(filled: Any, name: str) -> None:
    account, acl = ACLS[name]
    compiled = rule(account, acl)
    chance = random.Random(name)
    for _ in range(18):
        query = random_query(chance)
        records: Any = chance.choice(["all", "without_addresses", "own"])
        expected = recount(filled[1], query, compiled.may_pull, account, records)
        for stores in filled:
            scope = stores.catalogue.find_scope(compiled, account, records)
            found: list[str] = []
            cursor = None
            while True:
                page = stores.events.find_page(query, scope, cursor=cursor, limit=17)
                found += [event.id for event in page.items]
                for event in page.items:
                    place = (event.address, event.client, event.user_agent)
                    is_shown = records == "all" or event.actor == account
                    assert all(place) if is_shown else place == ("", "", "")
                cursor = page.next
                if cursor is None:
                    break
            assert found == expected, (query, records)
            assert stores.events.count(query, scope, cap=1000).number == len(expected), query


@pytest.mark.wire
@pytest.mark.parametrize("name", ACLS)
@pytest.mark.parametrize(
    "query",
    [
        {},
        {"sort": "pushed"},
        {"deleted": True},
        {"q": "a"},
        {"q": "^alic"},
        {"q": "*/a*"},
        {"q": "*a*e*b"},
        {"q": "team:v"},
        {"tag_pattern": "v?"},
        {"repository": "team/app", "deleted": True},
        {"sort": "pushed", "q": "^team", "deleted": True},
        {"q": "^team/app", "deleted": True},
        {"q": "team/app:v", "sort": "pushed"},
        {"namespace": ""},
        {"namespace": "team", "sort": "pushed", "deleted": True},
        {"digest": "sha256:", "deleted": True},
        {"digest": digest("one")},
        {"since": NOW - timedelta(hours=31)},
        {"until": NOW - timedelta(hours=31), "sort": "pushed"},
    ],
    ids=str,
)
def test_the_catalogue_is_the_same_with_and_without_indexes_and_holds_only_what_is_visible(
    filled: Any, name: str, query: dict[str, Any]
) -> None:
    account, acl = ACLS[name]
    compiled = rule(account, acl)
    answers = []
    for stores in filled:
        scope = stores.catalogue.find_scope(compiled)
        everything = stores.catalogue.find_scope(rule())
        answer: list[Any] = []
        for kind in ("repository", "tag"):
            if kind == "repository" and (
                {"tag_pattern", "digest", "since", "until"} & query.keys()
                or ":" in query.get("q", "")
            ):
                continue
            find = {
                "repository": stores.catalogue.find_repositories,
                "tag": stores.catalogue.find_tags,
            }[kind]
            wanted = CatalogueQuery(**query)
            rows: list[Any] = []
            cursor = None
            while True:
                page = find(wanted, scope, cursor=cursor, limit=3)
                rows += page.items
                cursor = page.next
                if cursor is None:
                    break
            all_rows = find(wanted, everything, limit=1000).items
            assert rows == [row for row in all_rows if compiled.may_pull(row.repository)]
            assert stores.catalogue.count(kind, wanted, scope, cap=100).number == len(rows)
            answer.append(rows)
        answers.append(answer)

    assert answers[0] == answers[1]


@pytest.mark.wire
def test_a_count_stops_at_its_cap(filled: Any, wire_database: Database[Any]) -> None:
    stores = filled[0]
    scope = stores.catalogue.find_scope(rule())

    count = stores.events.count(RecordQuery(parts=True), scope, cap=50)

    assert (count.number, count.at_least) == (50, True)


def matches(pattern: str, text: str) -> bool:
    """Whether a glob matches, restated."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(matches(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and matches(pattern[1:], text[1:])


@settings(max_examples=500, deadline=None)
@given(pattern=st.text("ab.*?", max_size=8), text=st.text("ab.", max_size=10))
@example(pattern="*ab*ab", text="abab")
@example(pattern="*ab*ab", text="ababa")
@example(pattern="*a?b*b", text="aaabab")
def test_a_glob_as_a_regular_expression_matches_as_its_restatement(pattern: str, text: str) -> None:
    assert bool(re.search(glob_expression(pattern), text)) == matches(pattern, text)


@pytest.mark.parametrize("name", ["a" * 255, "ab" * 127, "sha256-" + "0a" * 32 + ".sig"])
def test_a_glob_of_many_stars_gives_up_at_once(name: str) -> None:
    """Without atomic groups this pattern takes minutes for one name of fifty letters."""
    assert not re.search(glob_expression("*a*a*a*a*a*a*a*~"), name)


def test_what_was_just_written_is_read_whatever_the_uri_prefers() -> None:
    uri = "mongodb://127.0.0.1:9/?readPreference=secondary&readPreferenceTags=dc:a"
    stores = connect(Settings(mongodb=MongoDB(uri=uri), docker_auth=DockerAuth(uri=uri)))

    for store in (stores.events, stores.catalogue, stores.accounts, stores.sign_ins):
        collections = [value for value in vars(store).values() if isinstance(value, Collection)]
        assert collections
        assert all(each.read_preference == ReadPreference.PRIMARY for each in collections)
    stores.close()
