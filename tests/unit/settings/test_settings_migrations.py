"""Migrations in the configuration: which cannot be, and the times in them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import yaml

from app.settings import Settings, parse_duration

Load = Callable[..., Settings]
Refusal = Callable[..., str]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: Dc2",
            "migrations[0].name: expected up to 63 of a-z, 0-9, dot, _ and -, "
            "beginning with a letter or digit",
        ),
        (
            "source: {url: a, registry_id: b}",
            "migrations[0].source.registry_id: no registry in registries has this name",
        ),
        ("target: {url: https://old/}", "migrations[0].target.url: is the source's"),
        (
            "options: {deletes: on}",
            "migrations[0].options.deletes: expected off, tags or tags_and_digests",
        ),
        (
            "options: {existing: no}",
            "migrations[0].options.existing: expected text, got true or false; "
            "put quotes around it",
        ),
        ("tags: {latest: 1}", "migrations[0].tags.latest: unknown key"),
        ("target: {}", "migrations[0].target.url: is needed"),
        ("target: {url: HTTPS://OLD:443}", "migrations[0].target.url: is the source's"),
        (
            "target: {url: https://new, registry_id: new}",
            "migrations[0].target.registry_id: no registry in registries has this name",
        ),
        (
            "options: {platforms: linux/amd64}",
            "migrations[0].options.platforms: expected all, or a list as [linux/amd64]",
        ),
        (
            "options: {platforms: [amd64]}",
            "migrations[0].options.platforms: expected all, or a list as [linux/amd64]",
        ),
        (
            "options: {platforms: [linux/amd64], deletes: tags_and_digests}",
            "migrations[0].options.platforms: with deletes: tags_and_digests a filter would "
            "delete; use tags",
        ),
        (
            "options: {verify_every: 1 day}",
            "migrations[0].options.verify_every: expected a time as 90m, 24h or 30d",
        ),
        (
            "options: {untagged: {pulled_within: 30}}",
            "migrations[0].options.untagged.pulled_within: expected text, got a whole number; "
            "put quotes around it",
        ),
        (
            "options: {untagged: {pulled_within: '30'}}",
            "migrations[0].options.untagged.pulled_within: expected a time as 90m, 24h or 30d",
        ),
        (
            "source: {url: https://old, username: u, authfile: f}",
            "migrations[0].source.authfile: username is given too; keep one of the two",
        ),
        (
            "source: {url: https://old, password: p, password_env: P}",
            "migrations[0].source.password_env: password is given too; keep one of the two",
        ),
        (
            "reverse_of: other",
            "migrations[0].source: comes from other; leave it out",
        ),
    ],
    ids=[
        *("name", "registry", "same", "deletes", "existing", "unknown", "no url", "same place"),
        *(
            "target registry",
            "platforms",
            "platform",
            "filter",
            "verify",
            "pulled",
            "pulled text",
            "authfile",
        ),
        *("two passwords", "reverse"),
    ],
)
def test_a_migration_that_cannot_be_is_refused(refusal: Refusal, text: str, message: str) -> None:
    keys = {
        "name": "dc2",
        "source": {"url": "https://old"},
        "target": {"url": "https://new"},
        **yaml.safe_load(text),
    }

    assert refusal(yaml.safe_dump({"migrations": [keys]})) == message


WAY = {
    "name": "dc2",
    "source": {"url": "https://old"},
    "target": {"url": "https://new", "registry_id": "new"},
}
BACK = {"name": "back", "reverse_of": "dc2"}


def migrations_text(*migrations: dict[str, object]) -> str:
    registries = [{"name": "default"}, {"name": "new"}]
    return yaml.safe_dump({"migrations": migrations, "registries": registries})


def test_a_way_back_has_a_name_and_options_only(load: Load) -> None:
    way_back = load(migrations_text(WAY, BACK | {"options": {"deletes": "tags"}})).migrations[1]

    assert (way_back.reverse_of, way_back.options.deletes) == ("dc2", "tags")


@pytest.mark.parametrize(
    ("migrations", "message"),
    [
        ([WAY, BACK | {"tags": {"keep_latest": 1}}], "migrations[1].tags: comes from dc2; leave"),
        (
            [WAY | {"options": {"platforms": ["linux/amd64"]}}, BACK],
            "migrations[1].reverse_of: dc2 takes some platforms only; its way back would put them "
            "in the place of whole images",
        ),
        ([BACK], "migrations[0].reverse_of: expected the name of a migration"),
        ([WAY, BACK, {"name": "b", "reverse_of": "back"}], "migrations[2].reverse_of: expected"),
        ([WAY, BACK, BACK | {"name": "b"}], "migrations[1].reverse_of: dc2 has another way back"),
        (
            [WAY | {"target": {"url": "https://new"}}, BACK],
            "migrations[0].target.registry_id: is needed for back",
        ),
        (
            [WAY, {"name": "b", "source": WAY["target"] | {}, "target": WAY["source"]}],
            "migrations[0].target.url: leads back to its source",
        ),
        (
            [
                {"name": name, "source": {"url": f"https://{a}"}, "target": {"url": f"https://{b}"}}
                for name, a, b in (("x", "a", "b"), ("y", "b", "c"), ("z", "c", "b"))
            ],
            "migrations[1].target.url: leads back to its source",
        ),
    ],
    ids=[
        *("tags", "platforms", "none", "of a way back", "two", "no registry", "circle of two"),
        "behind another",
    ],
)
def test_a_way_back_that_cannot_be_is_refused(
    refusal: Refusal, migrations: list[dict[str, object]], message: str
) -> None:
    assert refusal(migrations_text(*migrations)).startswith(message)


@pytest.mark.parametrize("text", ["0", "90s", "15m", "24h", "30d"])
def test_a_time_is_a_number_and_a_unit(text: str) -> None:
    seconds = {"0": 0, "90s": 90, "15m": 900, "24h": 86_400, "30d": 2_592_000}

    assert parse_duration(text).total_seconds() == seconds[text]


@pytest.mark.parametrize("text", ["", "1", "h", "-1h", "1.5h", "1 h", "999999d", "1w"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^.*$"):
        parse_duration(text)


def test_a_folder_needs_no_name_in_registries(load: Load) -> None:
    text = yaml.safe_dump(
        {
            "registries": [{"name": "new", "token": "a-long-random-text"}],
            "migrations": [
                {"name": "in", "source": {"oci_dir": "/export"}, "target": {"url": "https://new"}}
            ],
        }
    )

    assert load(text).migrations[0].source.oci_dir == "/export"
