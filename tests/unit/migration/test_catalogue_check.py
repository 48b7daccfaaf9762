"""The catalogue compared with a registry, repaired, and when events may have been lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from builders import NOW, deliver, digest, envelope, wire_event
from memory_registry import MemoryRegistry

from app.errors import IllegalState
from app.migration.catalogue_check import CatalogueCheck
from app.notifications.derivation import Derivation
from app.notifications.listening import NodeWatch, note_silence
from app.notifications.projector import Projector
from app.registry import RegistryError
from app.rules.events import Event, parse_envelope
from app.rules.original import Row, parse_record
from app.server import catalogue_checks
from app.server.catalogue_checks import CatalogueChecker, check_catalogue, is_due
from app.settings import Registry, Settings
from app.store import Stores
from app.store.checks import Check, Difference, Gap
from app.store.inbox import Progress
from app.store.migrations import present

URL = "https://registry"
REGISTRY = Registry(url=URL)


class Place:
    """A registry in memory, of which events told some; the check of its catalogue."""

    def __init__(self, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stores = stores
        self.registry = MemoryRegistry(URL)
        monkeypatch.setattr(catalogue_checks, "RegistryClient", self.registry)

    def push(self, tag: str, seed: str = "", *, repository: str = "team/app") -> str:
        """Push and have the event of it come."""
        pushed = self.registry.push(repository, tag, seed).digest
        self.tell("push", tag, pushed, repository)
        return pushed

    def tell(self, action: str, tag: str, of: str, repository: str = "team/app") -> None:
        event = wire_event(action, repository, tag=tag, at=present())
        event["target"]["digest"] = of
        deliver(self.stores, envelope(event))

    def check(self, *, repair: bool = False, all_: bool = False) -> tuple[Check, dict[str, str]]:
        make = (lambda: Projector(self.stores)) if repair else None
        check, rows = check_catalogue(self.stores, REGISTRY, make, all_=all_, recheck_s=0)
        return check, {f"{row.repository}:{row.tag}": row.kind for row in rows}

    def recorded(self, repository: str = "team/app") -> dict[str, str]:
        return self.stores.catalogue.find_digests("default", repository)


@pytest.fixture
def place(mock_stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(mock_stores, monkeypatch)


def drift_apart(place: Place) -> dict[str, str]:
    """Let all happen of which nobody tells; returns what is at the registry."""
    for tag in ("same", "moved", "gone"):
        place.push(tag)
    place.push("v1", repository="team/emptied")
    content = place.registry.content
    place.registry.push("team/app", "moved", "elsewhere")
    place.registry.push("team/app", "unheard")
    place.registry.push("team/new", "v1", "unheard")
    del content["team/app"].tags["gone"]
    del content["team/emptied"]
    return dict(place.registry.state())


def test_what_no_event_told_of_is_found_and_nothing_is_changed(place: Place) -> None:
    drift_apart(place)
    before = place.recorded()

    check, found = place.check()

    assert found == {
        "team/app:gone": "gone",
        "team/app:moved": "moved",
        "team/app:unheard": "unheard",
        "team/emptied:v1": "gone",
        "team/new:v1": "unheard",
    }
    assert check.differences == {"gone": 2, "moved": 1, "unheard": 2}
    assert (check.tags, check.repaired) == (4, 0)
    assert place.stores.checks.get("default") == check
    rows = place.stores.checks.find_differences("default", 10)
    moved = next(row for row in rows if row.tag == "moved")
    assert (moved.recorded, moved.found) == (
        before["moved"],
        place.registry.state()["team/app:moved"],
    )
    assert place.recorded() == before


def test_a_repair_makes_the_catalogue_say_what_the_registry_does(place: Place) -> None:
    there = drift_apart(place)

    check, _ = place.check(repair=True)

    assert check.repaired == 5
    recorded = {
        f"{repository}:{tag}": of
        for repository in place.stores.catalogue.find_names("default")
        for tag, of in place.recorded(repository).items()
    }
    assert recorded == there
    tag = place.stores.catalogue.get_tag("default", "team/app", "gone", None)
    assert tag
    assert tag.deleted
    assert place.check() == (place.stores.checks.get("default"), {})


def test_a_tag_without_a_digest_gets_the_one_that_the_registry_tells(place: Place) -> None:
    for number, tag in enumerate(("there", "gone")):
        fields = {"repo": f"team/app:{tag}", "action": "push", "timestamp": NOW}
        taken = parse_record(Row(f"{number}", None, fields), "default", NOW)
        Derivation(place.stores).work_in([taken])
    pushed = place.registry.push("team/app", "there").digest
    assert place.recorded() == {"there": "", "gone": ""}

    check, found = place.check(repair=True)

    assert found == {"team/app:there": "unheard", "team/app:gone": "gone"}
    assert check.repaired == 2
    assert place.recorded() == {"there": pushed}
    assert place.check()[1] == {}


def test_an_event_that_is_on_its_way_is_no_difference(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed = place.registry.push("team/app", "v1").digest
    monkeypatch.setattr(
        "app.migration.catalogue_check.time.sleep",
        lambda seconds: place.tell("push", "v1", pushed),
    )

    assert place.check()[1] == {}


def test_a_push_after_the_check_wins_over_its_repair(place: Place) -> None:
    place.registry.push("team/app", "v1")
    place.check(repair=True)

    later = place.push("v1", "later")

    assert place.recorded() == {"v1": later}


@pytest.mark.parametrize("was", ["gone", "moved"])
def test_a_push_while_a_repair_asks_wins_over_it(place: Place, was: str) -> None:
    place.push("v1")
    if was == "gone":
        del place.registry.content["team/app"].tags["v1"]
    else:
        place.registry.push("team/app", "v1", "elsewhere")
    later: list[str] = []
    looks = 0

    def push_after_the_answer(method: str, *arguments: str) -> None:
        nonlocal looks
        looks += method == "head_manifest"
        if looks == 3 and not later:  # the check asks twice, then the repair
            asked_at = present()
            while present() == asked_at:
                pass
            later.append(place.registry.push("team/other", "v1", "later").digest)
            place.tell("push", "v1", later[0])

    place.registry.fail = push_after_the_answer
    place.check(repair=True, all_=True)

    assert place.recorded() == {"v1": later[0]}


def test_what_is_pushed_again_before_a_repair_is_not_deleted(place: Place) -> None:
    place.push("v1")
    of = place.registry.content["team/app"].tags.pop("v1")
    looks = 0

    def push_again(method: str, *arguments: str) -> None:
        nonlocal looks
        looks += method == "head_manifest"
        if looks == 3:
            place.registry.content["team/app"].tags["v1"] = of

    place.registry.fail = push_again
    place.check(repair=True, all_=True)

    assert place.recorded() == {"v1": of}


def test_what_the_registry_does_not_tell_is_not_changed(place: Place) -> None:
    place.push("v1")
    place.push("v1", repository="team/other")

    def fail(method: str, *arguments: str) -> None:
        if method == "tags" and arguments[0] == "team/app":
            raise place.registry.error("forbidden")
        if method == "head_manifest" and arguments[0] == "team/other":
            raise place.registry.error("server")

    place.registry.fail = fail

    check, found = place.check(repair=True)

    assert found == {"team/app:": "unknown", "team/other:v1": "unknown"}
    assert check.repaired == 0
    assert list(place.recorded()) == ["v1"]
    assert list(place.recorded("team/other")) == ["v1"]


def test_a_registry_that_is_down_is_told_and_changes_nothing(place: Place) -> None:
    place.push("v1")

    def fail(method: str, *arguments: str) -> None:
        if method == "head_manifest":
            raise place.registry.error("down")

    place.registry.fail = fail

    with pytest.raises(RegistryError):
        place.check(repair=True)

    check = place.stores.checks.get("default")
    assert check
    assert (check.finished_at, check.message) == (None, f"{URL}: down")
    assert list(place.recorded()) == ["v1"]
    place.registry.fail = lambda *_: None
    assert place.check()[1] == {}, "the lease was given back"


@pytest.mark.parametrize(
    ("gone", "left", "is_braked"), [(20, 0, False), (21, 84, False), (21, 83, True)]
)
def test_a_registry_that_lost_unusually_much_is_left_to_a_person(
    place: Place, gone: int, left: int, is_braked: bool
) -> None:
    for number in range(gone + left):
        place.push(f"v{number}", "same")
    for number in range(gone):
        del place.registry.content["team/app"].tags[f"v{number}"]
    place.registry.push("team/app", "unheard")

    check, _ = place.check(repair=True)

    assert check.repaired == (1 if is_braked else gone + 1)
    assert len(place.recorded()) == left + 1 + (gone if is_braked else 0)
    assert check.message.startswith(f"{gone} of {gone + left} tags are gone") is is_braked
    assert ("check --registry default --repair --force" in check.message) is is_braked
    check, _ = place.check(repair=True, all_=True)
    assert len(place.recorded()) == left + 1
    assert check.message == ""


def test_a_registry_that_lists_nothing_is_left_to_a_person_however_little_it_had(
    place: Place,
) -> None:
    for tag in ("v1", "v2"):
        place.push(tag)
    place.registry.content.clear()  # as if its storage were not mounted

    check, found = place.check(repair=True)

    assert set(found.values()) == {"gone"}
    assert check.repaired == 0
    assert check.message.startswith("2 of 2 tags are gone, as if")
    assert list(place.recorded()) == ["v1", "v2"]
    assert place.check(repair=True, all_=True)[0].repaired == 2
    assert place.check(repair=True) == (place.stores.checks.get("default"), {})


def test_our_own_look_at_a_tag_is_no_sighting_of_it(place: Place) -> None:
    pushed = place.registry.push("team/app", "v1").digest
    look = wire_event("check", "team/app", tag="v1", user_agent="rns-migrate/1.0")
    look["target"]["digest"] = pushed
    deliver(place.stores, envelope(look))

    assert place.check()[1] == {"team/app:v1": "unheard"}


def test_two_checks_of_a_registry_are_not_under_way_at_a_time(place: Place) -> None:
    assert place.stores.leases.take("catalogue check default", "other", datetime.now(UTC))

    with pytest.raises(IllegalState):
        place.check()


def test_each_tag_is_told_to_who_watches(place: Place) -> None:
    for tag in ("v1", "v2"):
        place.push(tag)
    told: list[int] = []
    with ThreadPoolExecutor(2) as threads:
        client: Any = place.registry
        CatalogueCheck(
            place.stores, client, "default", threads, going_on=lambda: told.append(1), recheck_s=0
        ).check()

    assert len(told) == 2


# When it is due


def test_a_check_is_due_as_often_as_asked_for_and_after_lost_events(place: Place) -> None:
    now = present()

    def due(ago: timedelta, every: str = "24h", url: str = URL, **fields: Any) -> bool:
        started = now - ago
        fields = {"finished_at": started, **fields}
        place.stores.checks.put(Check(registry="default", started_at=started, **fields))
        return is_due(place.stores, Registry(url=url, check_every=every), now)

    assert is_due(place.stores, Registry(url=URL), now)
    assert not is_due(place.stores, Registry(), now)
    assert due(timedelta(hours=24))
    assert not due(timedelta(hours=23))
    assert not due(timedelta(hours=25), every="0")
    assert not due(timedelta(hours=25), url="")
    assert not due(timedelta(minutes=59), finished_at=None)
    assert due(timedelta(minutes=60), finished_at=None)
    assert due(timedelta(minutes=10), every="10m", finished_at=None)
    lost = Gap(registry="default", began=now - timedelta(hours=3), ended=now, why="x")
    place.stores.checks.add_gap(lost)
    assert due(timedelta(hours=1))
    assert not due(timedelta(minutes=59))
    place.stores.checks._gaps.delete_many({})
    place.stores.checks.add_gap(
        Gap(
            registry="default",
            began=now - timedelta(hours=3),
            ended=now - timedelta(hours=2),
            why="x",
        )
    )
    assert not due(timedelta(hours=1))
    assert due(timedelta(hours=2))


def test_a_refused_password_is_tried_again_ever_later_and_by_a_person_at_once(
    place: Place,
) -> None:
    often = Registry(url=URL, check_every="5m")
    error_class = "auth"
    place.registry.fail = lambda *_: (_ for _ in ()).throw(place.registry.error(error_class))

    def refused() -> tuple[int, float]:
        """How often it was refused in a row, and the minutes until it is tried again."""
        with pytest.raises(RegistryError):
            place.check()
        check = place.stores.checks.get("default")
        assert check
        pause = next(
            minutes
            for minutes in range(1, 1000)
            if is_due(place.stores, often, check.started_at + timedelta(minutes=minutes))
        )
        return check.refusals, pause

    assert [refused() for _ in range(9)] == [
        (number, min(360, 5 * 2 ** (number - 1))) for number in range(1, 10)
    ]
    check = place.stores.checks.get("default")
    assert check
    assert check.message.endswith(
        "; tried again ever later, by rns catalogue check --registry default now"
    )
    assert not is_due(place.stores, REGISTRY, check.started_at + timedelta(minutes=359))
    error_class = "down"
    assert refused() == (0, 5)
    error_class = "auth"
    assert refused() == (1, 5)
    place.registry.fail = lambda *_: None
    assert place.check()[0].refusals == 0


def test_a_server_checks_and_repairs_what_is_due(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue_checks, "RECHECK_S", 0)
    place.registry.push("team/app", "v1")
    settings = Settings(registries=[REGISTRY])
    checker = CatalogueChecker(
        settings, lambda: place.stores, lambda settings, stores: Projector(stores)
    )

    check = checker.check(place.stores, REGISTRY)

    assert check
    assert check.repaired == 1
    assert list(place.recorded()) == ["v1"]
    assert checker.check(place.stores, REGISTRY) is None


# Lost events


NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)


def told(instance: str, at_s: float, node: str = "node:5000") -> Event:
    event = wire_event("pull", at=NOON + timedelta(seconds=at_s))
    event["source"] = {"addr": node, "instanceID": instance}
    (found,) = parse_envelope(envelope(event), "default", NOON + timedelta(hours=2)).events
    return found


def heard(watch: NodeWatch, instance: str, at_s: float, node: str = "node:5000") -> None:
    watch([told(instance, at_s, node)])


def spans(stores: Stores) -> list[tuple[float, float, str]]:
    return [
        ((gap.began - NOON).total_seconds(), (gap.ended - NOON).total_seconds(), gap.why)
        for gap in stores.checks.find_gaps("default")
    ]


def test_a_registry_that_is_started_anew_leaves_a_gap_with_its_time_span(
    mock_stores: Stores,
) -> None:
    watch = NodeWatch(mock_stores.checks)
    for at_s in (0, 30, 60, 100):
        heard(watch, "first", at_s)
    assert spans(mock_stores) == []

    heard(watch, "second", 300)
    heard(watch, "second", 301)
    heard(NodeWatch(mock_stores.checks), "first", 50)  # repeated, by another process

    assert spans(mock_stores) == [(60, 300, "node:5000 was started anew")]


def test_each_node_has_gaps_of_its_own_and_a_new_name_is_a_new_start(mock_stores: Stores) -> None:
    watch = NodeWatch(mock_stores.checks)
    heard(watch, "a1", 0, "a")
    heard(watch, "b1", 10, "b")  # perhaps what was called a before
    heard(watch, "a1", 100, "a")
    heard(watch, "b2", 200, "b")

    assert spans(mock_stores) == [
        (10, 200, "b was started anew"),
        (0, 10, "b was started anew"),
    ]


def test_a_history_at_once_has_the_same_gaps_as_one_by_one_and_few_writes(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = [told("first", at_s) for at_s in range(0, 6_000, 100)]
    history += [told("second", at_s) for at_s in range(6_500, 7_000, 100)]
    writes: list[datetime] = []
    note_node = mock_stores.checks.note_node

    def count(registry: str, node: str, instance: str, at: datetime) -> None:
        writes.append(at)
        note_node(registry, node, instance, at)

    monkeypatch.setattr(mock_stores.checks, "note_node", count)
    NodeWatch(mock_stores.checks)(history)

    assert spans(mock_stores) == [(5_900, 6_500, "node:5000 was started anew")]
    assert [(at - NOON).total_seconds() for at in writes] == [0, 5_900, 6_500, 6_900]


def test_a_gap_is_open_until_a_complete_check_began_after_it(mock_stores: Stores) -> None:
    checks = mock_stores.checks
    gap = Gap(registry="default", began=NOON, ended=NOON + timedelta(minutes=5), why="x")
    checks.add_gap(gap)
    checks.add_gap(gap)

    def is_open(minutes: int, *, is_over: bool = True) -> bool:
        at = NOON + timedelta(minutes=minutes)
        checks.put(Check(registry="default", started_at=at, finished_at=at if is_over else None))
        return checks.find_open_gaps("default") == [gap]

    assert checks.find_open_gaps("default") == [gap]
    assert is_open(4)
    assert not is_open(6)
    assert is_open(6, is_over=False)
    assert checks.find_gaps("other") == []


@pytest.mark.parametrize(("silent_s", "is_gap"), [(14, False), (16, True)])
def test_a_server_that_starts_notes_since_when_none_listened(
    mock_stores: Stores, silent_s: int, is_gap: bool
) -> None:
    note_silence(mock_stores, ["default"], NOON)
    assert spans(mock_stores) == []
    mock_stores.inbox.note_progress(Progress(until=NOON - timedelta(seconds=silent_s)))

    note_silence(mock_stores, ["default"], NOON)

    assert spans(mock_stores) == ([(-silent_s, 0, "no server listened")] if is_gap else [])


@pytest.mark.parametrize(("came_s", "gaps"), [(10, []), (20, [(-20, 0, "no server listened")])])
def test_a_server_listened_while_what_waits_came(
    mock_stores: Stores, came_s: int, gaps: list[tuple[float, float, str]]
) -> None:
    mock_stores.inbox.note_progress(Progress(until=NOON - timedelta(seconds=60)))
    for ago_s in (40, came_s):
        mock_stores.inbox.add("default", b"{}", NOON - timedelta(seconds=ago_s))

    note_silence(mock_stores, ["default"], NOON)

    assert spans(mock_stores) == gaps


def test_a_silence_that_every_process_of_a_server_notes_is_one(mock_stores: Stores) -> None:
    mock_stores.inbox.note_progress(Progress(until=NOON - timedelta(seconds=60)))

    for second in (0, 1, 2):
        note_silence(mock_stores, ["default"], NOON + timedelta(seconds=second))

    assert spans(mock_stores) == [(-60, 2, "no server listened")]


def test_differences_are_kept_until_the_next_check(mock_stores: Stores) -> None:
    row = Difference(repository="team/app", tag="v1", kind="gone", recorded=digest("a"))
    mock_stores.checks.set_differences("default", [row])
    mock_stores.checks.set_differences("other", [row])
    assert mock_stores.checks.find_differences("default", 10) == [row]

    mock_stores.checks.set_differences("default", [])

    assert mock_stores.checks.find_differences("default", 10) == []
    assert mock_stores.checks.find_differences("other", 10) == [row]


def test_a_node_that_is_removed_while_it_is_heard_again_is_still_known_whole(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks, nodes = mock_stores.checks, mock_stores.checks._nodes
    long_ago = present() - timedelta(days=9)
    checks.note_node("default", "node", "process", long_ago)

    def find_then_lose(query: Any) -> Any:
        found = find_one(query)
        nodes.delete_many({})
        return found

    find_one = nodes.find_one
    monkeypatch.setattr(nodes, "find_one", find_then_lose)
    checks.note_node("default", "node", "process", long_ago)
    monkeypatch.undo()

    checks.note_node("default", "node", "next", present())
    assert [gap.began for gap in checks.find_gaps("default")] == [long_ago]
