"""What is known of manifests: the first word settles it, by registry, whatever comes first."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import mongomock
import pytest
from builders import DATA, IMAGE, INDEX, NOW, digest
from hypothesis import given, settings
from hypothesis import strategies as st
from mongomock import Collection

from app.rules.events import Descriptor, Event, parse_envelope, position_at
from app.store import Stores
from app.store.manifests import Manifest, ManifestStore

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def named(*sizes: int, media_type: str = LAYER) -> tuple[Descriptor, ...]:
    return tuple(Descriptor(digest(f"blob of {size}"), size, media_type) for size in sizes)


def children(*names: str, media_type: str = IMAGE) -> tuple[Descriptor, ...]:
    return tuple(Descriptor(digest(name), 500, media_type) for name in names)


def told(
    of: str = "image",
    references: Sequence[Descriptor] = (),
    *,
    at: int = 0,
    action: Any = "push",
    **given: Any,
) -> Event:
    moment = NOW + timedelta(seconds=at)
    fields: dict[str, Any] = {
        "id": f"event-{at}",
        "registry": "default",
        "action": action,
        "namespace": "team",
        "repository": "team/app",
        "digest": digest(of),
        "media_type": IMAGE,
        "size": at,
        "timestamp": moment,
        "position": f"{position_at(moment)}-event-{at}",
        "received_at": NOW,
        "references": tuple(references),
    }
    return Event(**fields | given)


def known(stores: Stores, of: str = "image", registry: str = "default") -> Manifest | None:
    return stores.manifests.find(registry, [digest(of)]).get(digest(of))


def learned(stores: Stores, *events: Event) -> set[str]:
    return {digest for _, digest in stores.manifests.learn(events)}


def test_the_first_event_settles_type_and_size_and_the_first_with_references_those(
    stores: Stores,
) -> None:
    stores.manifests.learn([told(at=1, action="check", kind="image")])
    stores.manifests.learn(
        [told(at=2, references=named(10), kind="chart", media_type="other/type")]
    )
    stores.manifests.learn([told(at=3, references=named(20), kind="sbom")])

    assert known(stores) == Manifest(
        digest=digest("image"), media_type=IMAGE, kind="chart", size=1, references=named(10)
    )


@pytest.mark.parametrize("action", ["push", "pull", "check"])
def test_pushes_pulls_and_checks_teach(stores: Stores, action: str) -> None:
    assert learned(stores, told(action=action)) == {digest("image")}
    assert known(stores)


def test_a_delete_teaches_nothing(stores: Stores) -> None:
    assert learned(stores, told(action="delete")) == set()
    assert known(stores) is None


def test_another_registry_changes_nothing(stores: Stores) -> None:
    stores.manifests.learn([told(at=5, references=named(10))])
    stores.manifests.learn([told(at=1, references=named(99), registry="other", kind="sbom")])

    assert known(stores) == Manifest(
        digest=digest("image"), media_type=IMAGE, size=5, references=named(10)
    )
    other = known(stores, registry="other")
    assert other
    assert other.kind == "sbom"


def test_an_event_without_media_type_settles_nothing_where_another_names_one(
    stores: Stores,
) -> None:
    stores.manifests.learn([told(at=1, media_type="")])
    stores.manifests.learn([told(at=2)])

    found = known(stores)
    assert found
    assert (found.media_type, found.size) == (IMAGE, 2)


def test_what_became_known_or_got_references_is_told_again_when_the_events_come_again(
    mock_stores: Stores,
) -> None:
    check, push, pull = told(at=1, action="check"), told(at=2, references=named(10)), told(at=3)
    one = {digest("image")}

    for _ in range(2):
        assert learned(mock_stores, check) == one
    for _ in range(2):
        assert learned(mock_stores, push) == one
        mock_stores.manifests.forget()
    assert learned(mock_stores, pull) == set()


def test_what_is_known_costs_no_command(
    mock_stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    mock_stores.manifests.learn([told(at=1, references=named(10))])

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError

    for name in ("find", "insert_many", "bulk_write"):
        monkeypatch.setattr(Collection, name, fail)

    assert learned(mock_stores, told(at=2), told(at=3, references=named(10))) == set()


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Event], list[list[Event]]]:
    events = [
        told(
            draw(st.sampled_from(("image", "other"))),
            draw(st.sampled_from(((), (), named(10), named(20)))),
            at=at,
            action=draw(st.sampled_from(("push", "pull", "check", "delete"))),
            kind=draw(st.sampled_from(("image", "chart", "sbom"))),
            media_type=draw(st.sampled_from(("", IMAGE, "other/type"))),
        )
        for at in draw(st.lists(st.integers(0, 20), unique=True, min_size=1, max_size=8))
    ]
    again = draw(st.lists(st.sampled_from(events), max_size=3))
    batches: list[list[Event]] = [[]]
    for event in draw(st.permutations([*events, *again])):
        if draw(st.booleans()):
            batches.append([])
        batches[-1].append(event)
    return events, batches


@settings(max_examples=100, deadline=None)
@given(deliveries())
def test_in_any_order_and_batches_the_same_is_known(
    delivery: tuple[list[Event], list[list[Event]]],
) -> None:
    events, batches = delivery
    stores = Stores(mongomock.MongoClient(tz_aware=True)["registry"])
    for batch in batches:
        stores.manifests.learn(batch)

    assert_first_words_are_known(stores, events)


class Interrupted:
    """A collection; before anything is written, others write."""

    def __init__(self, collection: Any, others: Callable[[], None], *before: str) -> None:
        self._collection = collection
        self._others = others
        self._before = before

    def __getattr__(self, name: str) -> Any:
        if name in self._before:
            self._others()
        return getattr(self._collection, name)


@settings(max_examples=100, deadline=None)
@given(deliveries())
def test_whoever_learns_at_the_same_time_the_same_is_known(
    delivery: tuple[list[Event], list[list[Event]]],
) -> None:
    events, batches = delivery
    database: Any = mongomock.MongoClient(tz_aware=True)["registry"]
    waiting = batches[::-1]
    taught: set[tuple[str, str]] = set()

    def learn() -> None:
        if waiting:
            batch = waiting.pop()
            writes = ("insert_many", "bulk_write")
            interrupted: Any = Interrupted(database["manifests"], learn, *writes)
            taught.update(ManifestStore(interrupted).learn(batch))

    while waiting:
        learn()

    stores = Stores(database)
    assert_first_words_are_known(stores, events)
    assert taught == {("default", row["digest"]) for row in database["manifests"].find()}


def test_who_learns_while_another_does_overwrites_nothing_that_came_first(stores: Stores) -> None:
    """On the wire, too: what is stored without references is found as it was read."""
    collection: Any = stores.manifests._collection
    stores.manifests.learn([told(at=5)])
    other = [told(at=1, references=named(10))]

    def learn() -> None:
        if other:
            stores.manifests.learn([other.pop()])

    interrupted: Any = Interrupted(collection, learn, "bulk_write")

    ManifestStore(interrupted).learn([told(at=3, references=named(20))])

    found = known(stores)
    assert found
    assert (found.size, found.references) == (1, named(10))
    assert learned(stores, told(at=0, references=named(30))) == {digest("image")}
    assert known(stores) != found


@pytest.mark.parametrize("is_remembered", [True, False])
@pytest.mark.parametrize("removed_before", ["find", "bulk_write"])
def test_what_another_removes_meanwhile_is_let_be_and_learned_when_the_events_come_again(
    stores: Stores, removed_before: str, is_remembered: bool
) -> None:
    collection: Any = stores.manifests._collection
    writes = iter(range(20))
    is_away = False

    def remove() -> None:
        next(writes)  # fails where it never ends
        if is_away:
            collection.delete_one({"_id": f"default {digest('image')}"})

    learner = ManifestStore(Interrupted(collection, remove, removed_before))  # type: ignore[arg-type]
    events = [told(at=1, references=named(10)), told("other", at=2)]
    first = learner if is_remembered else stores.manifests
    first.learn([told(at=5), told("other", at=5)])

    is_away = True
    assert learner.learn(events) == {("default", digest("other"))}
    assert known(stores) is None
    assert known(stores, "other") == Manifest(digest=digest("other"), media_type=IMAGE, size=2)

    is_away = False
    assert ("default", digest("image")) in learner.learn(events)
    found = known(stores)
    assert found
    assert (found.size, found.references) == (1, named(10))


def assert_first_words_are_known(stores: Stores, events: Sequence[Event]) -> None:
    for name in ("image", "other"):
        telling = [e for e in events if e.digest == digest(name) and e.action != "delete"]
        telling.sort(key=lambda event: (not event.media_type, event.position))
        found = known(stores, name)
        assert (found is None) == (not telling)
        if found:
            first = telling[0]
            teller = next((event for event in telling if event.references), None)
            assert (found.media_type, found.size) == (first.media_type, first.size)
            assert found.references == (teller.references if teller else ())
            assert found.kind == (teller or first).kind


# Sizes


def sizes(stores: Stores, *names: str) -> list[int | None]:
    found = stores.manifests.find_sizes("default", [digest(name) for name in names])
    return [found.get(digest(name)) for name in names]


def index(of: str, *names: str, at: int, media_type: str = IMAGE) -> Event:
    return told(of, children(*names, media_type=media_type), at=at, kind="index", media_type=INDEX)


def test_of_a_blob_of_which_manifests_tell_two_sizes_the_larger_one_counts(stores: Stores) -> None:
    def layer(size: int) -> tuple[Descriptor, ...]:
        return (Descriptor(digest("layer"), size, LAYER),)

    stores.manifests.learn([told("amd64", layer(5), at=1), told("arm64", layer(7), at=2)])
    stores.manifests.learn(
        [index("one", "amd64", "arm64", at=3), index("two", "arm64", "amd64", at=4)]
    )

    assert sizes(stores, "one", "two") == [7, 7]


def test_the_size_of_an_index_is_that_of_all_below_it_each_blob_once(stores: Stores) -> None:
    stores.manifests.learn(
        [
            told("amd64", named(1, 10), at=1),
            told("arm64", named(1, 200), at=2),
            index("inner", "amd64", "arm64", at=3),
            index("outer", "inner", "amd64", at=4, media_type=INDEX),
        ]
    )

    assert sizes(stores, "amd64", "inner", "outer") == [11, 211, 211]


def test_the_size_is_unknown_while_a_part_is(stores: Stores) -> None:
    stores.manifests.learn([told("amd64", named(1), at=1), index("both", "amd64", "arm64", at=2)])
    assert sizes(stores, "both", "arm64") == [None, None]

    stores.manifests.learn([told("arm64", at=3)])
    assert sizes(stores, "both", "arm64") == [None, None]

    stores.manifests.learn([told("arm64", named(20), at=4)])
    assert sizes(stores, "both") == [21]


def test_indexes_that_claim_to_hold_each_other_have_an_end(stores: Stores) -> None:
    stores.manifests.learn(
        [
            told("image", named(7), at=1),
            index("one", "two", "image", at=2),
            index("two", "one", at=3),
        ]
    )

    assert sizes(stores, "one", "two") == [7, 7]


def test_layers_that_an_index_names_itself_count_as_told(stores: Stores) -> None:
    stores.manifests.learn([told("cache", named(30, 40), at=1, kind="index", media_type=INDEX)])

    assert sizes(stores, "cache") == [70]


def test_the_index_in_an_index_of_buildkit_has_the_size_of_its_layers(stores: Stores) -> None:
    lines = (DATA / "real-world.jsonl").read_text().replace("<now>", NOW.isoformat()).splitlines()
    [case] = [row for row in map(json.loads, lines) if row["id"] == "size-nested"]
    body = json.dumps(case["input"]["body"]).encode()
    events = parse_envelope(body, "default", NOW).events
    stores.manifests.learn(events)

    found = stores.manifests.find_sizes("default", [events[-1].digest or ""])

    assert found == {events[-1].digest: 7000}


def test_many_that_are_most_of_all_are_read_at_once_with_the_same_answer(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"image {number}" for number in range(8)]
    stores.manifests.learn([told(name, at=number) for number, name in enumerate(names)])
    stores.manifests.learn([told(names[0], registry="other")])
    wanted = [digest(name) for name in names[:6]] + [digest("unknown")]

    one_by_one = stores.manifests.find("default", wanted)
    monkeypatch.setattr("app.store.manifests.MANY", 5)
    at_once = stores.manifests.find("default", wanted)

    assert at_once == one_by_one
    assert at_once.keys() == set(wanted[:6])
