"""Names, tags and digests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidReference
from app.references import (
    digest_tag_kind,
    is_digest,
    namespace_of,
    parse_digest,
    parse_repository,
    parse_tag,
)

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "name", ["ubuntu", "team/app", "a/b/c/d", "a-b__c.d/e---f", "0/1", "x" * 255]
)
def test_names_of_one_or_many_parts_are_repositories(name: str) -> None:
    assert parse_repository(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "/", "a/", "/a", "a//b", "Team/app", "a b", "a_", "-a", "a..b", "a___b", "x" * 256, "é"],
)
def test_other_names_are_not(name: str) -> None:
    with pytest.raises(InvalidReference):
        parse_repository(name)


@pytest.mark.parametrize("tag", ["v1", "_", "1.0-rc.1", "A" * 128])
def test_tags(tag: str) -> None:
    assert parse_tag(tag) == tag


@pytest.mark.parametrize("tag", ["", ".a", "-a", "a:b", "a/b", "A" * 129, "a\n"])
def test_other_text_is_no_tag(tag: str) -> None:
    with pytest.raises(InvalidReference):
        parse_tag(tag)


@pytest.mark.parametrize("digest", [f"sha256:{HEX}", f"sha512:{HEX}{HEX}", f"a+b.c:{HEX}"])
def test_digests(digest: str) -> None:
    assert parse_digest(digest) == digest
    assert is_digest(digest)


@pytest.mark.parametrize("digest", ["", "sha256", "sha256:", "sha256:abc", f"SHA256:{HEX}", HEX])
def test_other_text_is_no_digest(digest: str) -> None:
    with pytest.raises(InvalidReference):
        parse_digest(digest)


@given(st.text())
def test_parsing_raises_nothing_else(text: str) -> None:
    for parse in (parse_repository, parse_tag, parse_digest):
        try:
            assert parse(text) == text
        except InvalidReference:
            continue


@pytest.mark.parametrize(
    ("name", "namespace"), [("ubuntu", ""), ("team/app", "team"), ("a/b/c", "a/b")]
)
def test_the_namespace_is_what_stands_before_the_last_slash(name: str, namespace: str) -> None:
    assert namespace_of(name) == namespace


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        (f"sha256-{HEX}.sig", "signature"),
        (f"sha256-{HEX}.att", "attestation"),
        (f"sha256-{HEX}.sbom", "sbom"),
        (f"sha256-{HEX}", None),
        (f"sha256-{HEX}.sig2", None),
        ("latest", None),
    ],
)
def test_a_digest_tag_tells_its_kind(tag: str, kind: str | None) -> None:
    assert digest_tag_kind(tag) == kind
