"""What tags hold by namespace: sums of any catalogue, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from app.analysis.contents import Contents
from app.analysis.storage import Storage, add_up
from app.rules.events import Descriptor
from app.rules.sizes import MAX_SIZE
from app.rules.usage import Calendar
from app.store.catalogue import Tag
from app.store.manifests import Manifest

CALENDAR = Calendar("Asia/Tokyo")
LAST = date(2026, 11, 28)
NOON = datetime(2026, 11, 28, 3, tzinfo=UTC)  # in Tokyo
LAYER = "application/octet-stream"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
GB = 10**9


def tag(namespace: str = "team", name: str = "v1", of: str | None = "image", **more: Any) -> Tag:
    days = more.pop("days", 0)
    pushed = None if days is None else NOON - timedelta(days=days)
    fields = {"registry": "default", "repository": f"{namespace}/app", "pushed_at": pushed, **more}
    return Tag(namespace=namespace, tag=name, digest=of, **fields)


def holding(**images: dict[str, int] | None) -> Contents:
    """Images by digest: the sizes of their layers, None where nobody told of them."""
    return Contents(
        {
            ("default", digest): Manifest(
                digest=digest,
                references=tuple(Descriptor(name, size, LAYER) for name, size in layers.items()),
            )
            for digest, layers in images.items()
            if layers is not None
        }
    )


def held(tags: Sequence[Tag], contents: Contents, days: int = 30) -> Storage:
    return add_up(tags, contents, CALENDAR, LAST - timedelta(days=days - 1), LAST)


def rows(found: Storage) -> dict[str, tuple[int, int, int]]:
    return {row.namespace: (row.tags, row.size, row.came) for row in found.namespaces}


def test_a_layer_counts_once_in_its_namespace_and_once_in_all() -> None:
    contents = holding(a={"base": 5, "a": 1}, b={"base": 5, "b": 2})
    tags = [tag(), tag(name="v2", of="b"), tag("ops", of="b"), tag("ops", "v2", "b")]

    found = held(tags, contents)

    assert rows(found) == {"ops": (2, 7, 7), "team": (2, 7, 7)}
    assert (held(tags[:1], contents).size, found.size, found.came) == (0, 7, 7)


def test_a_layer_came_with_the_first_of_the_tags_that_hold_it() -> None:
    contents = holding(a={"base": 5, "a": 1}, b={"base": 5, "b": 2})
    tags = [tag(of="a", days=30), tag(name="v2", of="b", days=29), tag("ops", of="b", days=3)]

    found = held(tags, contents)

    assert rows(found) == {"ops": (1, 7, 7), "team": (2, 8, 2)}
    assert (found.size, found.came) == (8, 2)
    assert found.by_day == {("default", "team"): {LAST - timedelta(days=29): 2}}


def test_days_are_those_of_the_zone() -> None:
    contents = holding(a={"a": 1})
    for at, day in ((datetime(2026, 11, 27, 14, 59, tzinfo=UTC), 27), (NOON, 28)):
        found = held([tag(of="a", pushed_at=at)], contents, days=2)
        assert found.by_day == {("default", "team"): {date(2026, 11, day): 1}}
    assert held([tag(of="a", pushed_at=NOON - timedelta(hours=13))], contents, days=1).came == 0


def test_a_period_begins_with_the_first_moment_of_its_first_day() -> None:
    start = CALENDAR.start_of(LAST - timedelta(days=6))
    for at, came in ((start, 1), (start - timedelta(microseconds=1), 0)):
        found = held([tag(of="a", pushed_at=at)], holding(a={"a": 1}), days=7)
        assert (found.came, found.namespaces[0].came, len(found.by_day)) == (came, came, came)


def test_what_comes_to_several_at_once_stands_with_the_first_by_name() -> None:
    tags = [tag(of="a"), tag("ops", of="a"), tag("zoo", of="a")]

    assert held(tags, holding(a={"a": 1})).by_day == {("default", "ops"): {LAST: 1}}


def test_what_a_clock_that_is_ahead_says_came_today() -> None:
    found = held([tag(of="a", days=-3)], holding(a={"a": 1}), days=7)

    assert (found.came, found.by_day) == (1, {("default", "team"): {LAST: 1}})


def test_what_nobody_told_is_named_and_what_is_known_of_it_counts() -> None:
    index = Manifest(
        digest="index",
        kind="index",
        references=(*(Descriptor(of, 9, IMAGE) for of in ("a", "gone")),),
    )
    image = Manifest(digest="a", references=(Descriptor("base", 5, LAYER),))
    contents = Contents({("default", "index"): index, ("default", "a"): image})
    tags = [tag(of="index"), tag(name="v2", of="gone"), tag("ops", of=None), tag("dev", of="a")]

    found = held(tags, contents)

    unknown = {row.namespace: row.unknown for row in found.namespaces}
    assert unknown == {"dev": 0, "ops": 1, "team": 2}
    assert (found.unknown, found.size) == (3, 5)
    assert rows(found)["ops"] == (1, 0, 0)


def test_what_only_pulls_tell_of_was_there_before() -> None:
    contents = holding(a={"base": 5, "a": 1}, b={"base": 5, "b": 2})
    tags = [tag(of="a", days=None, seen_at=NOON), tag(name="v2", of="b")]

    found = held(tags, contents)

    assert rows(found) == {"team": (2, 8, 2)}
    assert (found.undated, found.namespaces[0].undated) == (1, 1)


def test_a_digest_in_another_registry_is_another_one() -> None:
    image = Manifest(digest="a", references=(Descriptor("base", 5, LAYER),))
    contents = Contents({(name, "a"): image for name in ("default", "other")})

    found = held([tag(of="a"), tag(of="a", registry="other")], contents)

    assert [(row.registry, row.size) for row in found.namespaces] == [("default", 5), ("other", 5)]
    assert found.size == 10


def test_sizes_are_exact_up_to_what_can_be_stored() -> None:
    large = holding(a={"a": 2**62}, b={"b": 2**62 - 1}, c={"c": 1})
    tags = [tag(of="a"), tag(name="v2", of="b")]

    exact, full = held(tags, large), held([*tags, tag(name="v3", of="c")], large)
    over = held([*tags, tag("ops", of="a"), tag(name="v4", of="c"), tag(name="v5", of="b")], large)

    assert (exact.size, exact.came) == (2**63 - 1, 2**63 - 1)
    assert full.size == over.size == rows(over)["team"][1] == MAX_SIZE
    assert all(size <= MAX_SIZE for days in full.by_day.values() for size in days.values())


LAYERS = st.dictionaries(st.sampled_from("uvwxyz"), st.integers(0, 4 * GB), max_size=4)
TAGS = st.lists(
    st.builds(
        tag,
        namespace=st.sampled_from(["", "ops", "team", "team/sub"]),
        name=st.sampled_from(["v1", "v2", "v3"]),
        of=st.sampled_from(["a", "b", "c", "gone", None]),
        days=st.one_of(st.none(), st.integers(-1, 9)),
    ),
    max_size=12,
)


@given(TAGS, st.fixed_dictionaries(dict.fromkeys("abc", LAYERS)), st.randoms(), st.data())
def test_sums_of_any_tags_are_those_of_a_recount_in_any_order(
    tags: list[Tag], images: dict[str, dict[str, int]], dice: Any, data: st.DataObject
) -> None:
    days = data.draw(st.integers(1, 10))
    contents, shuffled = holding(**images), list(tags)
    dice.shuffle(shuffled)

    found = held(tags, contents, days)

    assert held(shuffled, contents, days) == found
    for row in found.namespaces:
        mine = [each for each in tags if each.namespace == row.namespace]
        assert row.tags == len(mine)
        assert row.unknown == sum(not images.get(each.digest or "") for each in mine)
        assert (row.size, row.came) == recount(mine, images, days)
    assert {row.namespace for row in found.namespaces} == {each.namespace for each in tags}
    assert (found.size, found.came) == recount(tags, images, days)
    came = sum(size for by_day in found.by_day.values() for size in by_day.values())
    assert came == found.came
    assert all(found.first <= day <= LAST for by_day in found.by_day.values() for day in by_day)
    if all(each.pushed_at for each in tags):
        assert held(tags, contents, days=20).came == found.size, "the days are all there is"


def recount(tags: list[Tag], images: dict[str, dict[str, int]], days: int) -> tuple[int, int]:
    size = came = 0
    for layer in "uvwxyz":
        sizes, ages = [], []
        for each in tags:
            if layer in images.get(each.digest or "", {}):
                sizes.append(images[each.digest or ""][layer])
                ages.append((NOON - each.pushed_at).days if each.pushed_at else 10**6)
        size += max(sizes, default=0)
        came += max(sizes, default=0) if max(ages, default=10**6) < days else 0
    return size, came
