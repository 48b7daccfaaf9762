"""The history of the demonstration company: the same each time, and like a real one."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from builders import INDEX, NOW, time_of

from app.demo.company import DAYS, REGISTRY, envelopes, history, parsed_history
from app.demo.schedule import Release, Schedule
from app.rules.events import Event, parse_envelope

UNTIL = NOW.replace(minute=47)


@pytest.fixture(scope="module")
def wire() -> list[dict[str, Any]]:
    """The history as it is sent."""
    return list(history(UNTIL))


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """The history as it is stored."""
    return list(parsed_history(UNTIL))


@pytest.fixture(scope="module")
def releases() -> list[Release]:
    """What is released in that time."""
    first = UNTIL.date() - timedelta(days=DAYS)
    schedule = Schedule(first, UNTIL.date())
    days = [first + timedelta(days=number) for number in range(DAYS + 1)]
    found = [release for day in days for release in schedule.releases_on(day)]
    return sorted(found, key=lambda release: release.at)


def test_same_end_gives_same_history_in_whatever_time_zone_it_is_said(wire):
    elsewhere = UNTIL.astimezone(timezone(timedelta(hours=9)))

    assert list(history(elsewhere)) == wire


def test_later_on_the_same_day_history_only_goes_on(wire):
    later = list(history(UNTIL + timedelta(hours=5)))

    assert later[: len(wire)] == wire
    assert len(later) > len(wire)


def test_on_a_later_day_history_tells_nothing_else_about_the_time_before(wire):
    known = {event["id"]: event for event in wire}

    later = history(UNTIL + timedelta(days=30))
    overlap = [event for event in later if time_of(event) <= UNTIL]

    assert overlap
    assert all(known.get(event["id"]) == event for event in overlap)


@pytest.mark.parametrize(
    "until", [UNTIL, datetime(2027, 1, 10, 0, 2, tzinfo=UTC)], ids=["autumn", "new year"]
)
def test_every_event_is_understood(until):
    parsed = [parse_envelope(body, REGISTRY, until) for body in envelopes(until, 700)]

    assert [rejected for envelope in parsed for rejected in envelope.rejected] == []
    assert {len(envelope.events) for envelope in parsed[:-1]} == {700}
    assert 8_000 < sum(len(envelope.events) for envelope in parsed) < 25_000


def test_stored_events_are_received_soon_after_they_happened(events):
    assert {event.received_at - event.timestamp for event in events} == {timedelta(seconds=0.2)}


def test_ids_are_unique_and_times_in_order_up_to_the_end(wire):
    times = [event["timestamp"] for event in wire]

    assert len({event["id"] for event in wire}) == len(wire)
    assert times == sorted(times)
    assert UNTIL - timedelta(hours=4, minutes=30) < time_of(wire[-1]) <= UNTIL
    assert time_of(wire[0]).date() == UNTIL.date() - timedelta(days=DAYS)


def test_digests_look_like_digests(wire):
    digests = {event["target"]["digest"] for event in wire} - {""}
    named = {
        reference["digest"] for event in wire for reference in event["target"].get("references", ())
    }

    assert all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in digests | named)
    assert all(len(set(digest[7:])) > 6 for digest in digests | named)


def test_a_digest_has_one_media_type_size_and_content(wire):
    facts: dict[str, Any] = {}
    for event in wire:
        target = event["target"]
        if target["digest"] and event["action"] != "delete":
            fact = (target["mediaType"], target["size"], target["references"])
            assert facts.setdefault(target["digest"], fact) == fact


def test_children_of_an_index_are_pushed_before_it(events):
    pushed: set[tuple[str, str | None]] = set()
    indexes = 0
    for event in events:
        if event.action != "push":
            continue
        if event.media_type == INDEX:
            indexes += 1
            assert all((event.repository, child.digest) in pushed for child in event.references)
        pushed.add((event.repository, event.digest))

    assert indexes > 500


def test_what_is_pulled_checked_or_deleted_was_pushed_and_is_not_deleted(events):
    present: set[tuple[str, str]] = set()
    for event in events:
        if event.digest is None:
            continue
        if event.action == "push":
            present.add((event.repository, event.digest))
        else:
            assert (event.repository, event.digest) in present
        if event.action == "delete":
            present.remove((event.repository, event.digest))


def test_a_tag_that_is_asked_for_points_at_the_digest_that_is_given(events):
    tags: dict[tuple[str, str], str] = {}
    for event in events:
        if event.tag is None or event.digest is None:
            continue
        if event.action == "push":
            tags[event.repository, event.tag] = event.digest
        else:
            assert tags[event.repository, event.tag] == event.digest


def test_a_dozen_teams_push_and_all_kinds_of_clients_come(events):
    pushers = {event.actor for event in events if event.action == "push"}
    clients = {event.client for event in events}
    kinds = {event.kind for event in events}

    assert len([actor for actor in pushers if actor.startswith("ci-")]) >= 12
    assert len({event.namespace for event in events}) >= 12
    assert clients >= {"docker", "podman", "containerd", "cri-o", "buildkit", "builder", "helm"}
    assert clients >= {"scanner", "replication", "updater", "crane", "oras"}
    assert kinds >= {"image", "index", "chart", "signature"}


def test_work_is_done_on_weekdays_by_day(events):
    weekdays = Counter(event.timestamp.weekday() for event in events)
    hours = Counter(event.timestamp.hour for event in events)

    assert min(weekdays[day] for day in range(5)) > 1.3 * max(weekdays[5], weekdays[6])
    assert min(hours[hour] for hour in range(8, 14)) > 3 * max(hours[hour] for hour in (0, 22))


def test_many_releases_are_pulled_no_longer(events):
    last_pulls = _last_pulls_by_tag(events)
    unused = {
        (repository, tag)
        for (repository, tag), at in last_pulls.items()
        if at < UNTIL - timedelta(days=60) and re.fullmatch(r"\d+\.\d+\.\d+", tag)
    }

    assert len(unused) >= 50
    assert len({repository for repository, _ in unused}) >= 12


def test_some_tags_are_deleted_with_their_digests(events):
    by_request = Counter(event.request_id for event in events if event.action == "delete")

    assert len(by_request) > 50
    assert set(by_request.values()) == {2}


def test_a_faulty_release_is_replaced_after_two_days_and_was_pulled_by_many(events, releases):
    faulty = next(release for release in releases if release.faulty)
    successor = next(
        release
        for release in releases
        if release.repository == faulty.repository and release.at > faulty.at
    )
    pulls = [
        event
        for event in events
        if event.digest == faulty.manifest.digest and event.action == "pull"
    ]
    pullers = {event.actor for event in pulls}

    assert (successor.at.date() - faulty.at.date()).days == 2
    assert len({actor for actor in pullers if actor.startswith(("k8s-", "ocp-"))}) == 3
    assert len({actor for actor in pullers if "." in actor}) >= 2
    assert pulls[-1].timestamp > successor.at


def test_one_tag_moves_back_to_what_it_pointed_at_before(events, releases):
    moved = next(release for release in releases if release.at > release.manifest.pushed_at)
    history_of_tag = [
        event.digest
        for event in events
        if event.action == "push"
        and (event.repository, event.tag) == (moved.repository, "latest")
        and event.timestamp <= moved.at
    ]

    assert history_of_tag[-1] == history_of_tag[-3] != history_of_tag[-2]


@pytest.mark.parametrize("offset", range(0, 63, 7))
def test_every_hundred_days_have_a_faulty_release_and_a_tag_moved_back(offset):
    last = UNTIL.date() + timedelta(days=offset)
    schedule = Schedule(last - timedelta(days=DAYS), last)
    days = [last - timedelta(days=number) for number in range(3, DAYS)]
    releases = [release for day in days for release in schedule.releases_on(day)]

    assert any(release.faulty for release in releases)
    assert any(release.at > release.manifest.pushed_at for release in releases)


def _last_pulls_by_tag(events: list[Event]) -> dict[tuple[str, str], datetime]:
    """When each tag was last pulled, by tag or by the digest that it points at."""
    tags = {
        (event.repository, event.tag): event.digest
        for event in events
        if event.action == "push" and event.tag
    }
    pulls = {
        (event.repository, event.digest): event.timestamp
        for event in events
        if event.action in ("pull", "check")
    }
    return {key: pulls[key[0], digest] for key, digest in tags.items() if (key[0], digest) in pulls}
