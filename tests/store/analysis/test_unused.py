"""Unused tags and recall: against a recount, and the cases that people get bitten by."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import mongomock
import pytest
from builders import INDEX, deliver, digest, envelope, rule, time_of, wire_event

from app.analysis.recall import recall_digest, recall_tag
from app.analysis.unused import UnusedQuery, find_unused
from app.errors import NotFound
from app.store import Stores
from app.store.scope import Scope

START = datetime(2026, 8, 1, 12, tzinfo=UTC)
NOW = START + timedelta(days=100)
DAY = timedelta(days=1)
Send = Callable[..., None]
Thing = tuple[str, str]  # a repository and what has a digest there


@pytest.fixture
def send(stores: Stores) -> Send:
    """Store one wire event at a day after the start, as it happens."""

    def send(action: str, repository: str = "team/app", day: float = 0, **fields: Any) -> None:
        at = START + day * DAY
        fields.setdefault("actor", "k8s" if action in ("pull", "check") else "ci")
        event = wire_event(action, repository, at=at, **fields)
        deliver(stores, envelope(event), "default", at)

    return send


def everything(stores: Stores) -> Scope:
    return stores.catalogue.find_scope(rule())


def close(stores: Stores, now: datetime = NOW) -> None:
    for day in stores.days.find_open_days(now):
        stores.days.close_day(day)


def show_life(stores: Stores, now: datetime) -> None:
    """An event that keeps no tag, so that the registry is not silent."""
    at = now - DAY
    event = wire_event("check", "zz/alive", of=f"alive {at}", at=at, id=f"alive {at}")
    deliver(stores, envelope(event), "default", at)


def unused(stores: Stores, days: int = 30, now: datetime = NOW, **filters: Any) -> list[str]:
    show_life(stores, now)
    close(stores, now)
    query = UnusedQuery(days=days, **filters)
    report = find_unused(stores, everything(stores), query, now)
    assert not report.missing
    return [f"{row.repository}:{row.tag}" for row in report.tags]


def layers(*sizes: int) -> dict[str, Any]:
    return {
        "references": [
            {"mediaType": "application/octet-stream", "digest": digest(f"layer {n}"), "size": n}
            for n in sizes
        ]
    }


# Unused


def test_a_tag_that_nobody_pulled_is_unused_and_one_that_was_is_not(
    stores: Stores, send: Send
) -> None:
    send("push", tag="old", of="a")
    send("push", tag="live", of="b")
    send("pull", tag="live", of="b", day=90)

    assert unused(stores) == ["team/app:old"]


@pytest.mark.parametrize(("day", "expected"), [(69, ["team/app:v1"]), (71, [])])
def test_a_pull_counts_within_the_days_asked_for(
    stores: Stores, send: Send, day: int, expected: list[str]
) -> None:
    send("push", tag="v1")
    send("pull", tag="v1", day=day)

    assert unused(stores) == expected


def test_a_tag_pushed_lately_is_not_unused(stores: Stores, send: Send) -> None:
    send("push", tag="other", of="x")
    send("push", tag="v1", day=80)

    assert unused(stores) == ["team/app:other"]


@pytest.mark.parametrize(
    ("action", "user_agent", "is_use"),
    [
        ("pull", "docker/27.3.1", True),
        ("pull", "curl/8.5", True),
        ("pull", "Artifactory/7.77.5", True),
        ("pull", "Nexus/3.68 (OSS)", True),
        ("pull", "harbor-registry-client", True),
        ("pull", "trivy/0.5", False),
        ("pull", "regclient/regsync (v0.7)", False),
        ("pull", "Watchtower (Docker)", False),
        ("pull", "rns-migrate/1", False),
        # With imagePullPolicy: Always a node only checks an image that is there.
        ("check", "containerd/v1.7.13", True),
        ("check", "docker/27.3.1", True),
        ("check", "cri-o/1.30", True),
        ("check", "libpod/5.0", True),
        ("check", "Artifactory/7.77.5", False),
        ("check", "curl/8.5", False),
        ("check", "diun/4.28", False),
        ("check", "rns-migrate/1", False),
    ],
)
def test_what_is_a_use(mock_stores: Stores, action: str, user_agent: str, is_use: bool) -> None:
    push = wire_event("push", tag="v1", at=START)
    deliver(mock_stores, envelope(push), "default", START)
    for day in range(70, 100):
        at = START + day * DAY
        event = wire_event(action, tag="v1", at=at, user_agent=user_agent)
        deliver(mock_stores, envelope(event), "default", at)

    assert unused(mock_stores) == ([] if is_use else ["team/app:v1"])


def test_only_clients_that_are_asked_for_use_something(stores: Stores, send: Send) -> None:
    send("push", tag="scanned", of="a")
    send("push", tag="checked", of="b")
    send("pull", tag="scanned", of="a", day=90, user_agent="trivy/0.5")
    send("check", tag="checked", of="b", day=90, user_agent="docker/27")

    assert unused(stores) == ["team/app:scanned"]
    assert unused(stores, clients=frozenset({"scanner"})) == ["team/app:checked"]
    assert unused(stores, clients=frozenset({"scanner", "docker"})) == []


def test_a_grandchild_of_a_used_index_is_kept(stores: Stores, send: Send) -> None:
    inner = {"mediaType": INDEX, "size": 500, "digest": digest("inner")}
    send("push", tag="v1-amd64", of="amd64")
    send("push", of="inner", media_type=INDEX, children=["amd64"])
    send("push", tag="v1", of="outer", media_type=INDEX, references=[inner])
    send("pull", tag="v1", of="outer", media_type=INDEX, references=[inner], day=90)

    assert unused(stores) == []


def test_a_tag_that_shares_its_digest_with_a_used_one_is_kept(stores: Stores, send: Send) -> None:
    send("push", tag="v1", of="same")
    send("push", tag="latest", of="same")
    send("push", "other/app", tag="v1", of="same")
    send("pull", tag="latest", of="same", day=90)

    assert unused(stores) == ["other/app:v1"]


def test_a_pull_by_digest_keeps_its_tags(stores: Stores, send: Send) -> None:
    send("push", tag="v1", of="same")
    send("push", tag="v2", of="same")
    send("pull", of="same", day=90)

    assert unused(stores) == []


def test_a_child_of_a_used_index_is_kept(stores: Stores, send: Send) -> None:
    send("push", tag="v1-amd64", of="amd64")
    send("push", tag="v1", of="index", media_type=INDEX, children=["amd64", "arm64"])
    send("push", tag="alone", of="alone")
    send("pull", tag="v1", of="index", media_type=INDEX, children=["amd64", "arm64"], day=90)

    assert unused(stores) == ["team/app:alone"]


def test_a_child_of_a_used_index_is_kept_though_the_tag_of_the_index_has_moved_on(
    stores: Stores, send: Send
) -> None:
    send("push", tag="v1-amd64", of="amd64")
    send("push", tag="v1", of="index", media_type=INDEX, children=["amd64", "arm64"])
    send("push", tag="v1", of="next", day=1)
    send("pull", of="index", media_type=INDEX, day=90)

    assert unused(stores) == ["team/app:v1"]


def test_an_index_is_kept_whose_child_is_used(stores: Stores, send: Send) -> None:
    send("push", tag="v1", of="index", media_type=INDEX, children=["amd64"])
    send("pull", of="amd64", day=90)

    assert unused(stores) == []


def test_a_signature_is_kept_with_its_subject(stores: Stores, send: Send) -> None:
    send("push", tag="used", of="used")
    send("push", tag="gone", of="gone")
    for name in ("used", "gone"):
        send("push", tag=f"{digest(name).replace(':', '-')}.sig", of=f"signature of {name}")
    send("pull", tag="used", of="used", day=90)

    assert unused(stores) == sorted(
        ["team/app:gone", f"team/app:{digest('gone').replace(':', '-')}.sig"]
    )


def test_a_signature_that_is_pulled_is_used(stores: Stores, send: Send) -> None:
    tag = f"{digest('image').replace(':', '-')}.sig"
    send("push", tag="v1")
    send("push", tag=tag, of="signature")
    send("pull", tag=tag, of="signature", day=90)

    assert unused(stores) == ["team/app:v1"]


def test_the_list_of_referrers_is_kept_with_its_subject(stores: Stores, send: Send) -> None:
    send("push", tag="used", of="used")
    send("push", tag="gone", of="gone")
    for name in ("used", "gone"):
        shape = {"media_type": INDEX, "children": [f"signature of {name}"]}
        send("push", tag=digest(name).replace(":", "-"), of=f"referrers of {name}", **shape)
    send("pull", tag="used", of="used", day=90)

    assert unused(stores) == ["team/app:gone", f"team/app:{digest('gone').replace(':', '-')}"]


def test_need_leads_on_over_any_number_of_steps(stores: Stores, send: Send) -> None:
    shape = {"media_type": INDEX, "children": ["amd64", "arm64"]}
    send("push", tag="v1-arm64", of="arm64")
    send("push", tag="v1", of="index", **shape)
    send("pull", of="amd64", day=90)
    for subject, of in (("arm64", "sbom"), ("sbom", "signature")):
        tag = digest(subject).replace(":", "-")
        send("push", tag=tag, of=f"list of {of}", media_type=INDEX, children=[of])
    send("push", tag="alone", of="alone")

    assert unused(stores) == ["team/app:alone"]


def test_nothing_is_unused_where_the_children_of_a_used_index_are_not_known(
    stores: Stores, send: Send
) -> None:
    send("push", tag="v1-amd64", of="amd64")
    send("push", tag="v1", of="index", media_type=INDEX)
    send("pull", tag="v1", of="index", media_type=INDEX, day=90)
    send("push", "other/app", tag="v1", of="other")

    assert unused(stores) == ["other/app:v1"]
    report = find_unused(stores, everything(stores), UnusedQuery(days=30), NOW)
    assert report.unclear == ["team/app"]


def test_nothing_is_unused_of_a_registry_that_sent_nothing_in_all_the_time(
    stores: Stores, send: Send
) -> None:
    send("push", tag="v1")
    send("check", tag="v1", day=69)
    close(stores)

    report = find_unused(stores, everything(stores), UnusedQuery(days=30), NOW)

    assert report.tags == []
    assert report.silent == {"default": (START + 69 * DAY).date()}


def test_nothing_is_unused_in_a_time_whose_events_came_long_after(
    stores: Stores, send: Send
) -> None:
    # A registry of which this server heard first yesterday, with events that were older.
    yesterday = NOW - DAY
    for day in (0, 69):
        event = wire_event("push", tag=f"v{day}", of=f"image {day}", at=START + day * DAY)
        deliver(stores, envelope(event), "default", yesterday)
    show_life(stores, NOW)
    close(stores)

    report = find_unused(stores, everything(stores), UnusedQuery(days=30), NOW)

    assert report.tags == []
    assert list(report.too_new) == ["default"]
    assert report.too_new["default"] > NOW


def test_a_registry_that_sends_something_today_is_not_silent(stores: Stores, send: Send) -> None:
    send("push", tag="v1")
    send("check", tag="v1", day=69)
    close(stores)
    today = (NOW - START) / DAY - 0.01

    late = wire_event("check", tag="v1", at=NOW - 3 * DAY)
    deliver(stores, envelope(late), "default", NOW)
    assert find_unused(stores, everything(stores), UnusedQuery(days=30), NOW).silent != {}

    send("check", tag="v1", day=today)
    assert find_unused(stores, everything(stores), UnusedQuery(days=30), NOW).silent == {}


def test_what_stays_protects_the_layers_of_it_that_are_known(stores: Stores, send: Send) -> None:
    send("push", of="known", **layers(1000, 20))
    send("push", tag="used", of="index", media_type=INDEX, children=["known", "unknown"])
    send("pull", tag="used", of="index", media_type=INDEX, children=["known", "unknown"], day=90)
    send("push", "other/app", tag="old", of="old", **layers(1000, 3))
    show_life(stores, NOW)
    close(stores)

    report = find_unused(stores, everything(stores), UnusedQuery(days=30), NOW)

    assert [row.tag for row in report.tags] == ["old"]
    assert (report.freed, report.maybe_shared) == (3, 1)


def test_indexes_that_name_each_other_and_themselves_many_times_are_counted_once(
    stores: Stores, send: Send
) -> None:
    names = [f"index {number}" for number in range(12)]
    for number, name in enumerate(names):
        children = [name, names[number - 1]] * 20
        send("push", tag=f"i{number}", of=name, media_type=INDEX, children=children)

    assert len(unused(stores)) == 12


def test_nothing_is_unused_that_could_not_have_been_seen_used(stores: Stores, send: Send) -> None:
    send("push", tag="v1", day=80)
    show_life(stores, NOW)

    report = find_unused(stores, everything(stores), UnusedQuery(days=30), NOW)
    close(stores)
    later = find_unused(stores, everything(stores), UnusedQuery(days=30), NOW)

    assert report.tags == later.tags == []
    assert list(later.too_new) == ["default"]
    assert later.too_new["default"] == datetime(2026, 11, 20, tzinfo=UTC)
    assert unused(stores, days=15) == ["team/app:v1"]


def test_fewer_days_are_counted_as_if_they_were_asked_for(stores: Stores, send: Send) -> None:
    send("push", tag="old", day=0, of="old", **layers(1000))
    send("push", tag="new", day=80, of="new", **layers(10, 20))
    for day in (70, 88, 96):
        send("pull", tag="old" if day == 70 else "new", of="old" if day == 70 else "new", day=day)
    show_life(stores, NOW)
    close(stores)

    def curve(days: int) -> list[tuple[int, int, int]]:
        query = UnusedQuery(days=days)
        report = find_unused(stores, everything(stores), query, NOW, (2, 15, 40))
        return [tuple(point) for point in report.curve]

    assert curve(90) == [(2, 2, 1030), (15, 1, 1000), (40, 0, 0), (90, 0, 0)]
    assert curve(1000) == [(2, 2, 1030), (15, 1, 1000), (40, 0, 0)], "as far as it is known"
    assert find_unused(stores, everything(stores), UnusedQuery(days=90), NOW).curve == []


def test_a_deleted_tag_is_not_unused(stores: Stores, send: Send) -> None:
    send("push", tag="v1")
    send("delete", tag="v1", of=None, day=1)

    assert unused(stores) == []


def test_layers_are_freed_once_and_only_if_nothing_kept_holds_them(
    stores: Stores, send: Send
) -> None:
    send("push", tag="a", of="a", **layers(1, 10, 100))
    send("push", tag="b", of="b", **layers(1, 10, 1000))
    send("push", "other/app", tag="kept", of="c", **layers(1, 5))
    send("push", tag="unknown", of="d")
    send("pull", "other/app", tag="kept", of="c", day=90)
    close(stores)

    report = find_unused(stores, everything(stores), UnusedQuery(days=30), NOW)

    assert {row.tag: row.size for row in report.tags} == {"a": 111, "b": 1011, "unknown": None}
    assert (report.freed, report.unknown) == (1110, 1)


def test_layers_of_what_is_used_without_a_tag_are_not_freed(stores: Stores, send: Send) -> None:
    send("push", tag="old", of="old", **layers(1, 10))
    send("push", tag="v1", of="pinned", **layers(1, 100))
    send("push", tag="v1", of="next", day=1, **layers(1000))
    send("pull", of="pinned", day=90)
    close(stores)

    report = find_unused(stores, everything(stores), UnusedQuery(days=30), NOW)

    assert [row.tag for row in report.tags] == ["old", "v1"]
    assert report.freed == 1010


def test_a_check_of_an_unused_tag_does_not_keep_its_layers(stores: Stores, send: Send) -> None:
    send("push", tag="old", of="old", **layers(1, 10))
    send("check", tag="old", of="old", day=90, user_agent="diun/4.28")
    close(stores)

    report = find_unused(stores, everything(stores), UnusedQuery(days=30), NOW)

    assert ([row.tag for row in report.tags], report.freed) == (["old"], 11)


BOB = [{"seq": 1, "match": {"account": "bob", "name": "ops/*"}, "actions": ["pull"]}]


def scope_of(stores: Stores, name: str) -> Scope:
    return stores.catalogue.find_scope(rule(name, BOB))


def test_each_account_gets_its_own_unused_tags(stores: Stores, send: Send) -> None:
    send("push", tag="v1", of="a", **layers(7))
    send("push", "ops/app", tag="v1", of="b", **layers(7))
    send("check", "ops/other", tag="v1", of="c", day=90)
    close(stores)

    found = {
        name: find_unused(stores, scope_of(stores, name), UnusedQuery(days=30), NOW)
        for name in ("admin", "bob", "mallory")
    }

    names = {who: [row.repository for row in report.tags] for who, report in found.items()}
    assert names == {"admin": ["ops/app", "team/app"], "bob": ["ops/app"], "mallory": []}
    assert {who: report.freed for who, report in found.items()} == {
        "admin": 7,
        "bob": 7,
        "mallory": 0,
    }


@pytest.mark.parametrize("is_closed", [True, False])
@pytest.mark.parametrize("is_late", [True, False])
@pytest.mark.parametrize("seen", [[0], [0, 40], [60, 61, 75], [95]])
def test_what_may_not_be_seen_changes_nothing_of_the_answer(
    seen: list[int], is_late: bool, is_closed: bool
) -> None:
    twins = []
    for hidden in ([], [1, 30, 69], [20, 99], seen):
        stores = Stores(mongomock.MongoClient(tz_aware=True)["registry"])
        for name, days in (("ops/app", seen), ("team/app", hidden)):
            for day in days:
                at = START + day * DAY
                event = wire_event("push", name, tag=f"v{day}", of=f"{name} {day}", at=at)
                came = at + 3 * DAY if is_late and name == "ops/app" else at
                deliver(stores, envelope(event), "default", came)
        if is_closed:
            close(stores)
        bob = scope_of(stores, "bob")
        lengths = (1, 2, 5, 25, 26, 29, 30, 31, 39, 40, 41, 60, 99, 100, 101, 200)
        twins.append([find_unused(stores, bob, UnusedQuery(days=n), NOW) for n in lengths])

    assert twins[1:] == [twins[0]] * 3
    assert any(report.silent or report.too_new for report in twins[0])
    assert not (is_late and any(report.silent for report in twins[0])), "it was never heard of"
    assert any(report.judged for report in twins[0]) == (not is_late and len(seen) > 1)


def test_a_registry_is_silent_for_who_sees_nothing_of_what_it_sent(
    stores: Stores, send: Send
) -> None:
    send("push", "ops/app", tag="v1", of="b")
    send("check", "ops/app", tag="v1", of="b", day=65, user_agent="diun/4.28")
    send("push", tag="v2", of="c", day=99)
    close(stores)

    of_bob, of_admin, over_longer = (
        find_unused(stores, scope_of(stores, name), UnusedQuery(days=days), NOW)
        for name, days in (("bob", 30), ("admin", 30), ("bob", 40))
    )

    assert of_bob.silent == {"default": (START + 65 * DAY).date()}
    assert of_bob.tags == []
    assert [row.repository for row in of_admin.tags] == ["ops/app"]
    assert [row.repository for row in over_longer.tags] == ["ops/app"]


def test_unused_tags_are_filtered(stores: Stores, send: Send) -> None:
    send("push", tag="v1")
    send("push", "ops/app", tag="v1", of="b")

    assert unused(stores, namespace="ops") == ["ops/app:v1"]
    assert unused(stores, repository="team/app") == ["team/app:v1"]
    assert unused(stores, registry="other") == []


def test_the_newest_pull_check_and_use_are_found_for_all_rows_at_once(
    stores: Stores, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["team/app", "team/db", "ops/app"]
    for name in names:
        send("pull", name, tag="v1", day=1)
        send("pull", name, tag="v1", day=2, actor="other")
        send("pull", name, tag="v1", day=3, user_agent="trivy/0.5")
        send("check", name, tag="v1", day=4, user_agent="diun/4.28")
    close(stores)
    covers: list[Any] = []
    cover: Callable[..., Any] = stores.usage._cover
    monkeypatch.setattr(stores.usage, "_cover", lambda *days: covers.append(days) or cover(*days))

    is_use = UnusedQuery(days=1).is_use
    newest = stores.usage.find_newest(names, everything(stores), NOW, is_use)

    keys = {("default", name, of) for name in names for of in ("v1", digest("image"))}
    assert newest.keys() == keys
    for found in newest.values():
        proofs = (found.use, found.pull, found.check)
        assert [(proof.client, proof.last) for proof in proofs if proof] == [
            ("docker", START + 2 * DAY),
            ("scanner", START + 3 * DAY),
            ("updater", START + 4 * DAY),
        ]
    assert len(covers) == 2, "before and after, whatever the number of repositories"


def test_a_platform_that_was_pulled_with_its_index_was_pulled(stores: Stores, send: Send) -> None:
    shape = {"media_type": INDEX, "children": ["amd64"]}
    send("push", tag="v1", of="index", **shape)
    send("pull", tag="v1", of="index", day=1, **shape)
    send("pull", of="amd64", day=1.00001)

    is_use = UnusedQuery(days=1).is_use
    newest = stores.usage.find_newest(["team/app"], everything(stores), NOW, is_use)

    of_child = newest["default", "team/app", digest("amd64")]
    assert of_child.pull
    assert of_child.pull == of_child.use


# Recall


def consumers(found: Any) -> list[tuple[str, int, int]]:
    return [(row.actor, row.pulls, row.checks) for row in found.consumers]


def test_everybody_who_pulled_a_digest_is_recalled(stores: Stores, send: Send) -> None:
    send("push", tag="v1", of="bad")
    send("pull", tag="v1", of="bad", day=1, actor="a", address="10.0.0.1:1")
    send("pull", tag="v1", of="bad", day=2, actor="a", address="10.0.0.1:2")
    send("pull", of="bad", day=3, actor="b")
    send("check", tag="v1", of="bad", day=4, actor="c")
    send("pull", tag="v2", of="good", day=5, actor="d")

    found = recall_digest(stores, everything(stores), digest("bad"))

    assert consumers(found) == [("c", 0, 1), ("b", 1, 0), ("a", 2, 0)]
    assert (found.consumers[2].first, found.consumers[2].last) == (START + DAY, START + 2 * DAY)


def test_an_index_and_its_child_are_one_pull(stores: Stores, send: Send) -> None:
    shape = {"media_type": INDEX, "children": ["amd64", "arm64"]}
    send("push", tag="v1", of="index", **shape)
    send("check", tag="v1", of="index", day=1, **shape)
    send("pull", of="index", day=1.00001, **shape)
    send("pull", of="amd64", day=1.00002)
    send("pull", of="arm64", day=2, actor="by digest")

    of_index = recall_digest(stores, everything(stores), digest("index"))
    of_child = recall_digest(stores, everything(stores), digest("amd64"))

    assert consumers(of_index) == [("by digest", 1, 0), ("k8s", 1, 0)]
    assert consumers(of_child) == [("k8s", 1, 0)]


def test_an_index_in_an_index_is_one_pull_with_all_that_it_holds(
    stores: Stores, send: Send
) -> None:
    inner = {"media_type": INDEX, "children": ["amd64"]}
    send("push", of="inner", **inner)
    send("pull", tag="v1", of="outer", day=1, media_type=INDEX, children=["inner"])
    send("pull", of="inner", day=1.00001, **inner)
    send("pull", of="amd64", day=1.00002)
    send("pull", of="amd64", day=2, actor="by digest")

    for name in ("outer", "inner"):
        found = recall_digest(stores, everything(stores), digest(name))
        assert consumers(found) == [("by digest", 1, 0), ("k8s", 1, 0)]


def test_who_reads_back_what_it_pushes_has_not_pulled_it(stores: Stores, send: Send) -> None:
    second = 1 / 86_400
    send("push", of="chart", actor="ci")
    send("pull", of="chart", day=second, actor="ci")
    send("push", tag="1.0.0", of="chart", day=2 * second, actor="ci")
    send("pull", tag="1.0.0", of="chart", day=1, actor="ops")

    found = recall_digest(stores, everything(stores), digest("chart"))

    assert consumers(found) == [("ops", 1, 0), ("ci", 0, 1)]


def test_what_is_read_back_of_a_push_is_no_use(stores: Stores, send: Send) -> None:
    second = 1 / 86_400
    send("push", of="chart")
    send("pull", of="chart", day=second, actor="ci")
    send("push", tag="1.0.0", of="chart", day=2 * second)

    is_use = UnusedQuery(days=1).is_use
    newest = stores.usage.find_newest(["team/app"], everything(stores), NOW, is_use)

    assert not any(proofs.pull or proofs.use for proofs in newest.values())
    assert unused(stores) == ["team/app:1.0.0"]


def test_what_a_tag_pointed_to_for_a_time_is_recalled(stores: Stores, send: Send) -> None:
    for day, of in ((0, "good"), (10, "bad"), (12, "fixed")):
        send("push", tag="latest", of=of, day=day, actor=f"pushed {of}")
        send("pull", tag="latest", of=of, day=day + 1, actor=f"pulled {of}")
    send("pull", of="bad", day=50, actor="much later")

    def recall(since: float, until: float) -> Any:
        times = START + since * DAY, START + until * DAY
        return recall_tag(stores, everything(stores), "default", "team/app", "latest", *times)

    assert consumers(recall(10.5, 11)) == [("much later", 1, 0), ("pulled bad", 1, 0)]
    [interval] = recall(10.5, 11).intervals
    assert (interval.digest, interval.actor) == (digest("bad"), "pushed bad")
    assert (interval.since, interval.until) == (START + 10 * DAY, START + 12 * DAY)
    assert [row.digest for row in recall(5, 100).intervals] == [
        digest("fixed"),
        digest("bad"),
        digest("good"),
    ]
    assert recall(-5, -1).consumers == []


def test_a_tag_that_was_only_pulled_is_recalled(stores: Stores, send: Send) -> None:
    send("pull", tag="v1", of="bad", day=1, actor="had bad")
    send("pull", tag="v1", of="good", day=2, actor="had good")

    of_tag = recall_tag(
        stores, everything(stores), "default", "team/app", "v1", None, START + 1.5 * DAY
    )

    assert consumers(of_tag) == [("had bad", 1, 0)]
    [interval] = of_tag.intervals
    assert (interval.digest, interval.seen_by) == (digest("bad"), "pull")
    assert (interval.since, interval.until) == (START + DAY, START + 2 * DAY)


def test_a_tag_is_recalled_in_its_own_registry(stores: Stores, send: Send) -> None:
    send("push", tag="v1", of="bad")
    send("pull", tag="v1", of="bad", day=1, actor="here")
    pull = wire_event("pull", tag="v1", of="bad", at=START + 2 * DAY, actor="there")
    deliver(stores, envelope(pull), "other", START + 2 * DAY)

    of_tag = recall_tag(stores, everything(stores), "default", "team/app", "v1", None, None)
    of_digest = recall_digest(stores, everything(stores), digest("bad"))

    assert consumers(of_tag) == [("here", 1, 0)]
    assert consumers(of_digest) == [("there", 1, 0), ("here", 1, 0)]


def test_a_recall_shows_only_what_may_be_seen(stores: Stores, send: Send) -> None:
    send("push", tag="v1", of="bad")
    send("pull", tag="v1", of="bad", day=1)
    send("pull", "ops/app", tag="v1", of="bad", day=1, actor="ops")
    acl = [{"seq": 1, "match": {"account": "bob", "name": "ops/*"}, "actions": ["pull"]}]
    bob = stores.catalogue.find_scope(rule("bob", acl))

    assert consumers(recall_digest(stores, bob, digest("bad"))) == [("ops", 1, 0)]
    with pytest.raises(NotFound):
        recall_tag(stores, bob, "default", "team/app", "v1", None, None)


def test_what_an_index_holds_is_told_only_to_those_who_may_see_it(
    stores: Stores, send: Send
) -> None:
    send("push", tag="v1", of="index", media_type=INDEX, children=["amd64", "arm64"])

    shown = {
        name: recall_digest(stores, stores.catalogue.find_scope(rule(name)), digest("index"))
        for name in ("admin", "mallory")
    }

    assert len(shown["admin"].digests) == 3
    assert shown["mallory"].digests == [digest("index")]


# Against a recount


CLIENTS = ["containerd/1.7", "containerd/1.7", "Artifactory/7", "diun/4", "regsync/0.7", "curl/8"]
USES = {
    ("pull", "containerd/1.7"),
    ("check", "containerd/1.7"),
    ("pull", "Artifactory/7"),
    ("pull", "curl/8"),
}


class History:
    """A random history of tags that move, of images and of indexes of images that have tags too."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.day = 0.0
        self.events: list[Any] = []
        self.tags: dict[tuple[str, str], tuple[str, float]] = {}
        self.shapes: dict[Thing, dict[str, Any]] = {}
        self.pulls: list[tuple[float, str, str, str, str]] = []
        self.uses: list[tuple[float, str, str, str, str]] = []
        for number in range(60):
            self.day += self.dice.choice([0.3, 1.5, 3])
            repository, tag = self.dice.choice(["team/app", "ops"]), f"v{self.dice.randrange(5)}"
            if (repository, tag) not in self.tags or self.dice.random() < 0.3:
                self.push(repository, tag, number)
            elif self.dice.random() < 0.2:
                self.event("delete", repository, tag=tag, of=None)
                del self.tags[repository, tag]
            else:
                self.use(repository, tag)

    def event(self, action: str, repository: str, **fields: Any) -> str:
        at = START + self.day * DAY
        event = wire_event(action, repository, at=at, **fields)
        self.events.append(event)
        return str(event["id"])

    def names(self, repository: str) -> list[str]:
        return [of for where, of in self.shapes if where == repository]

    def push(self, repository: str, tag: str, number: int) -> None:
        of = f"{repository} {number // 3}"
        images = [
            name
            for name in self.names(repository)
            if name != of and "children" not in self.shapes[repository, name]
        ]
        shape = layers(1000 + number, number % 5)
        if images and self.dice.random() < 0.4:
            children = self.dice.sample(images, min(2, len(images)))
            shape = {"media_type": INDEX, "children": children}
        shape = self.shapes.setdefault((repository, of), shape)
        self.event("push", repository, tag=tag, of=of, **shape)
        self.tags[repository, tag] = (of, self.day)

    def use(self, repository: str, tag: str) -> None:
        of, actor = self.tags[repository, tag][0], self.dice.choice(["a", "b"])
        client = self.dice.choice(CLIENTS)
        action, name = self.dice.choice(["pull", "pull", "pull", "check"]), tag
        if action == "pull" and self.dice.random() < 0.4:
            # By digest, also of what no tag points to any more.
            of, name = self.dice.choice([of, *self.names(repository)]), None
        shape = self.shapes[repository, of]
        who = {"actor": actor, "user_agent": client}
        id = self.event(action, repository, tag=name, of=of, **who, **shape)
        if action == "pull":
            self.pulls.append((self.day, repository, id, of, actor))
        if (action, client) in USES:
            self.uses.append((self.day, repository, id, of, actor))

    def whole(self, things: set[Thing]) -> set[Thing]:
        """These and their children."""
        children = {
            (repository, child)
            for repository, of in things
            for child in self.shapes[repository, of].get("children", ())
        }
        return things | children

    def blobs(self, things: set[Thing]) -> dict[str, int]:
        shapes = [self.shapes[thing] for thing in self.whole(things)]
        found = [blob for shape in shapes for blob in shape.get("references", ())]
        return {blob["digest"]: blob["size"] for blob in found}


@pytest.mark.parametrize("seed", range(30))
def test_unused_and_recall_equal_a_recount_of_any_history(seed: int) -> None:
    stores = Stores(mongomock.MongoClient(tz_aware=True)["registry"])
    stores.ensure_indexes()
    history = History(seed)
    now = START + history.day * DAY
    for event in history.dice.sample(history.events, len(history.events)):
        deliver(stores, envelope(event), "default", time_of(event))

    close(stores, now + timedelta(minutes=2))
    shorter = (3, 7, 12, 19)[seed % 4 :: 2]
    report = find_unused(stores, everything(stores), UnusedQuery(days=20), now, shorter)
    for days, tags, freed in report.curve:
        alone = find_unused(stores, everything(stores), UnusedQuery(days=days), now)
        assert (len(alone.tags), alone.freed) == (tags, freed)
    assert [point.days for point in report.curve] in ([*shorter, 20], [])

    # The tag of a pull by digest is what the catalogue told when the event came.
    told = {event.id: event.tag for event in stores.events.iterate()}
    since = (report.since - START) / DAY
    lately = [use[1:4] for use in history.uses if use[0] >= since]
    pulled = {(repository, of) for repository, _, of in lately}
    by_name = {(repository, told[id]) for repository, id, _ in lately}
    used = {
        (key[0], of)
        for key, (of, pushed) in history.tags.items()
        if pushed >= since or key in by_name
    }
    needed = history.whole(pulled | used)
    ends = {key: (key[0], of) for key, (of, _) in history.tags.items()}
    for _ in ends:  # as many steps as there can be
        held = [history.whole({thing}) for thing in ends.values()]
        needed = needed.union(*(things for things in held if things & needed))
    expected = sorted(key for key, thing in ends.items() if not history.whole({thing}) & needed)
    assert [(row.repository, row.tag) for row in report.tags] == expected

    going = history.blobs({ends[key] for key in expected})
    kept = history.blobs(pulled | {ends[key] for key in ends if key not in expected})
    assert report.freed == sum(going[blob] for blob in going.keys() - kept.keys())

    for repository, of in sorted({(pull[1], pull[3]) for pull in history.pulls}):
        found = recall_digest(stores, everything(stores), digest(of))
        counted: Counter[tuple[str, str]] = Counter()
        for row in found.consumers:
            counted[row.actor, row.repository] += row.pulls
        wanted = history.whole({(repository, of)})
        matching = [(pull[4], pull[1]) for pull in history.pulls if (pull[1], pull[3]) in wanted]
        assert +counted == Counter(matching)
