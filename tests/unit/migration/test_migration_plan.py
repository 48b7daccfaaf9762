"""What a migration takes, and under which name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from app.errors import ConfigError, InvalidReference
from app.migration import Plan, load_plans
from app.migration.filters import compare_versions, newest_first, parse_version
from app.settings import Migration, Settings

HEX = "ab" * 32


def plan(**keys: Any) -> Plan:
    document = {
        "name": "dc2",
        "source": {"url": "https://old"},
        "target": {"url": "https://new"},
        **keys,
    }
    return Plan(msgspec.convert(document, Migration))


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("team/**", ["team/a", "team/a/b"], ["team", "teams/a", "x/team/a"]),
        ("team/*", ["team/a"], ["team/a/b", "team"]),
        ("**/cache", ["cache", "a/cache", "a/b/cache"], ["a/cache/b", "a/xcache"]),
        ("a?c", ["abc"], ["a/c", "abbc"]),
        ("**", ["a", "a/b"], []),
        ("a.b", ["a.b"], ["axb"]),
        ("re:^(a|b)/", ["a/x", "b/x"], ["c/a/x"]),
    ],
)
def test_a_pattern_chooses_repositories(pattern: str, taken: list[str], left: list[str]) -> None:
    included, excluded = plan(repos={"include": [pattern]}), plan(repos={"exclude": [pattern]})

    assert [name for name in taken + left if included.takes(name)] == taken
    assert [name for name in taken + left if excluded.takes(name)] == left


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("semver:>=1.2 <3", ["v1.2", "1.2.0", "2.9.9"], ["1.1.9", "3.0.0", "2.0.0-rc1", "latest"]),
        ("semver:>=1.2,<3", ["2"], ["3"]),
        ("semver:>=2.0.0-rc.2", ["2.0.0-rc.10", "2.0.0"], ["2.0.0-rc.1", "1.9"]),
        ("semver:1.2", ["1.2.0", "v1.2"], ["1.2.1"]),
        ("*-dev", ["a-dev"], ["a-dev2"]),
        ("latest", ["latest"], ["latest2"]),
    ],
)
def test_a_pattern_chooses_tags(pattern: str, taken: list[str], left: list[str]) -> None:
    choice = plan(tags={"include": [pattern]})

    assert [tag for tag in taken + left if choice.takes("app", tag)] == taken


def test_versions_are_ordered_as_semver_says() -> None:
    ordered = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2"]
    ordered += ["1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "2", "2.1", "2.1.1", "10"]

    assert newest_first(sorted(ordered)) == ordered[::-1]
    same = parse_version("1.0")
    assert same
    assert compare_versions(same, same) == 0


def test_of_old_tags_the_newest_versions_are_kept() -> None:
    choice = plan(tags={"keep_latest": 2, "exclude": ["9*"]}).tags

    assert choice.choose(["1.9", "9.0", "1.10", "latest", "1.2"]) == ["1.10", "1.9"]


@pytest.mark.parametrize("suffix", ["", ".sig", ".att", ".sbom"])
def test_signatures_follow_their_repository(suffix: str) -> None:
    tag = f"sha256-{HEX}{suffix}"
    tags = {"include": ["v*"], "keep_latest": 1}

    assert plan(tags=tags).tags.choose(["v1", tag, "v2", "x"]) == ["v2", tag]
    assert plan(tags=tags | {"digest_tags": "filter"}).tags.choose(["v1", tag]) == ["v1"]
    assert not plan(repos={"include": ["other"]}).takes("app", tag)


def test_a_digest_needs_its_repository_only() -> None:
    assert plan(tags={"include": ["v1"]}).takes("app", f"sha256:{HEX}")


def test_the_first_prefix_that_fits_is_replaced() -> None:
    renaming = plan(
        map=[{"from": "team/old/", "to": "x/"}, {"from": "team/", "to": "new-team/"}]
    ).map

    assert [renaming(name) for name in ("team/app", "team/old/app", "other/team/app")] == [
        "new-team/app",
        "x/app",
        "other/team/app",
    ]


def test_a_prefix_may_be_added_to_everything() -> None:
    assert plan(map=[{"from": "", "to": "mirror/"}]).map("a/b") == "mirror/a/b"


def test_repositories_that_are_mapped_to_one_are_known_of_each_other() -> None:
    mapped = plan(
        map=[{"from": "old/", "to": "team/"}, {"from": "older/", "to": "team/"}],
        repos={"exclude": ["older/**"]},
    )

    assert mapped.find_sharers("old/app") == ["team/app"]
    assert mapped.find_sharers("team/app") == ["old/app"]
    assert mapped.find_sharers("other/app") == []


def test_a_name_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidReference):
        plan(map=[{"from": "team/", "to": "Team"}]).map("team/app")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"repos": {"include": ["a", "re:("]}}, "repos.include[1]: not a regular expression"),
        ({"repos": {"include": ["semver:1"]}}, "repos.include[0]: expected a glob"),
        ({"tags": {"exclude": ["semver:>=x"]}}, "tags.exclude[0]: not a version: 'x'"),
        ({"tags": {"include": ["semver:"]}}, "tags.include[0]: expected bounds"),
        ({"tags": {"include": ["semver:~1"]}}, "tags.include[0]: not a version"),
        ({"tags": {"include": ["semver:>1 ="]}}, "tags.include[0]: expected bounds"),
        ({"tags": {"include": [""]}}, "tags.include[0]: expected a glob"),
        ({"target": {"url": "http://new"}}, "target.plain_http: must be true"),
        ({"source": {"url": "ftp://old"}}, "source.url: expected https://host"),
    ],
)
def test_what_cannot_be_is_told_with_its_path(keys: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        plan(**keys)

    assert str(refusal.value).startswith(f"migration.{message}")


def test_a_bare_off_of_yaml_means_no_deletes() -> None:
    assert plan(options={"deletes": False}).deletes == "off"
    assert plan(options={"deletes": "tags"}).deletes == "tags"


def test_a_plan_is_found_by_name() -> None:
    migration = msgspec.convert(
        {"name": "dc2", "source": {"url": "https://old"}, "target": {"url": "https://new"}},
        Migration,
    )
    settings = Settings(migrations=[migration])

    assert [found.name for found in load_plans(settings, ["dc2"])] == ["dc2"]
    with pytest.raises(ConfigError, match="none with the name other"):
        load_plans(settings, ["other"])


def test_no_secret_is_in_the_text_of_a_plan() -> None:
    made = plan(target={"url": "https://new", "username": "u", "password": "s3cret"})

    assert "s3cret" not in f"{made!r} {made.target!r}"


# The way back


def both(**keys: Any) -> tuple[Plan, Plan]:
    """A plan and its way back."""
    document = {
        "name": "dc2",
        "source": {"url": "https://old", "username": "u"},
        "target": {"url": "https://new", "registry_id": "new", "debug_url": "http://new:5001"},
        **keys,
    }
    migrations = [document, {"name": "back", "reverse_of": "dc2"}]
    there, back = load_plans(Settings(migrations=msgspec.convert(migrations, list[Migration])))
    return there, back


def test_a_way_back_reads_where_the_other_writes() -> None:
    there, back = both(target={"url": "https://new", "registry_id": "new", "limits": {"images": 2}})

    assert (back.source.url, back.target.url) == ("https://new", "https://old")
    assert (back.registry, back.target.username, back.limits.images) == ("new", "u", 2)
    assert (there.counterpart, back.counterpart) == ("back", "dc2")


@pytest.mark.parametrize(
    ("renaming", "name", "there"),
    [
        ([("team/", "x/")], "team/app", "x/app"),
        ([("team/", "x/")], "other/app", "other/app"),
        ([("team/old/", "y/"), ("team/", "x/")], "team/old/app", "y/app"),
        ([("team/old/", "y/"), ("team/", "x/")], "team/app", "x/app"),
        ([("", "mirror/")], "a/b", "mirror/a/b"),
        ([("a/", "b/"), ("b/", "a/")], "a/x", "b/x"),
    ],
)
def test_names_come_back_as_they_were(
    renaming: list[tuple[str, str]], name: str, there: str
) -> None:
    forth, back = both(map=[{"from": before, "to": after} for before, after in renaming])

    assert (forth.map(name), back.map(there)) == (there, name)
    assert back.takes(there)


def test_names_that_the_map_never_makes_do_not_come_back() -> None:
    _, back = both(map=[{"from": "", "to": "mirror/"}])

    assert not back.takes("app")


def test_names_that_two_may_have_become_come_back_as_none() -> None:
    _, back = both(map=[{"from": "a/", "to": "x/"}, {"from": "b/", "to": "x/"}])

    assert back.takes("x/app")
    with pytest.raises(InvalidReference, match="could be a/app or b/app by"):
        back.map("x/app")


def test_filters_of_a_way_back_are_for_the_names_at_the_old_place() -> None:
    _, back = both(
        repos={"include": ["team/**"], "exclude": ["team/cache"]},
        tags={"exclude": ["*-dev"]},
        map=[{"from": "team/", "to": "x/"}],
    )

    taken = [name for name in ("x/app", "x/cache", "other") if back.takes(name)]
    assert taken == ["x/app"]
    assert not back.takes("x/app", "v1-dev")
