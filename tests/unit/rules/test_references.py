"""The grammar of names, tags and digests."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import InvalidReference
from app.rules.references import (
    digest_tag_kind,
    digest_tag_subject,
    is_digest,
    namespace_of,
    parse_digest,
    parse_repository,
    parse_tag,
    referrers_tag_subject,
)

HEX = "0123456789abcdef" * 4
SHA256 = f"sha256:{HEX}"
SHA512 = f"sha512:{HEX}{HEX}"

_component = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,8}){0,3}", fullmatch=True)
_names = st.lists(_component, min_size=1, max_size=6).map("/".join)
_near_misses = st.text("aZ0._-/:@ \n\u00e9\ud800", max_size=300)


@pytest.mark.parametrize(
    "name",
    [
        "ubuntu",
        "a",
        "0",
        "team/app",
        "a/b/c/d",
        "a.b/c_d/e__f/g-h/i---j",
        "xn--n3h.example/app",
        "1/2/3",
        "n" * 255,
        "/".join(["n"] * 128),
    ],
    ids=lambda name: name[:20],
)
def test_a_name_of_one_or_many_parts_is_a_repository(name: str) -> None:
    assert parse_repository(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        "Team/app",
        "team/App",
        "a..b",
        "a___b",
        "a._b",
        "a_-b",
        ".a",
        "a.",
        "_a",
        "a_",
        "-a",
        "a-",
        "a/-b",
        "a b",
        "a:b",
        "a@b",
        "a\n",
        "a\0",
        "\u00e9",
        "\u0661",
        "a/../b",
        "registry.example:5000/a",
        "n" * 256,
        "/".join(["n"] * 129),
        "a\ud800",
    ],
    ids=lambda name: ascii(name)[:20],
)
def test_another_name_is_no_repository(name: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_repository(name)

    assert str(caught.value) == f"not a repository name: {name[:80]!r}"


@pytest.mark.parametrize(
    "tag",
    ["latest", "1", "_", "1.0.0-rc.1_x", "V1.A", "a--b..c__d", "t" * 128, f"sha256-{HEX}.sig"],
    ids=lambda tag: tag[:20],
)
def test_a_tag_is_a_tag(tag: str) -> None:
    assert parse_tag(tag) == tag


@pytest.mark.parametrize(
    "tag",
    [
        "",
        ".a",
        "-a",
        "a b",
        "a/b",
        "a:b",
        "a@b",
        "a+b",
        "a\n",
        "\u00e9",
        "\ud800",
        "t" * 129,
        SHA256,
    ],
    ids=lambda tag: ascii(tag)[:20],
)
def test_another_text_is_no_tag(tag: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_tag(tag)

    assert str(caught.value) == f"not a tag: {tag[:80]!r}"


@pytest.mark.parametrize(
    "digest",
    [
        SHA256,
        SHA512,
        f"sha384:{HEX}{HEX[:32]}",
        f"blake3:{HEX}",
        "tarsum+sha256:" + "a" * 32,
        "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
        "a.b_c-d:" + "A_-=" * 8,
        "x:" + "a" * 253,
    ],
    ids=lambda digest: digest[:20],
)
def test_an_algorithm_and_its_value_are_a_digest(digest: str) -> None:
    assert parse_digest(digest) == digest


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256",
        "sha256:",
        ":" + HEX,
        HEX,
        "sha256:" + "a" * 31,
        f"SHA256:{HEX}",
        f"sha256:{HEX}\n",
        f" {SHA256}",
        f"sha256:{HEX}/a",
        f"sha256:{HEX}.",
        f"sha256::{HEX}",
        f"sha256++b:{HEX}",
        f"+sha256:{HEX}",
        f"sha256:\u00e9{HEX}",
        f"team/app@{SHA256}",
        "x:" + "a" * 254,
    ],
    ids=lambda digest: ascii(digest)[:20],
)
def test_another_text_is_no_digest(digest: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse_digest(digest)

    assert str(caught.value) == f"not a digest: {digest[:80]!r}"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [(SHA256, True), ("latest", False), (f"sha256-{HEX}", False), ("", False)],
    ids=["digest", "tag", "tag that names a digest", "nothing"],
)
def test_a_colon_tells_a_digest_from_a_tag(reference: str, expected: bool) -> None:
    assert is_digest(reference) is expected


@pytest.mark.parametrize(
    ("repository", "namespace"),
    [("ubuntu", ""), ("team/app", "team"), ("a/b/c/d", "a/b/c")],
)
def test_the_namespace_is_the_name_up_to_the_last_slash(repository: str, namespace: str) -> None:
    assert namespace_of(repository) == namespace


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        (f"sha256-{HEX}.sig", "signature"),
        (f"sha256-{HEX}.att", "attestation"),
        (f"sha256-{HEX}.sbom", "sbom"),
        (f"sha256-{HEX}", None),
        (f"sha256-{HEX}.pub", None),
        (f"sha256-{HEX}.sig2", None),
        (f"sha256-{HEX}.sig\n", None),
        (f"x-sha256-{HEX}.sig", None),
        (f"sha256-{HEX[1:]}.sig", None),
        (f"sha256-{HEX.upper()}.sig", None),
        (f"sha256:{HEX}.sig", None),
        ("latest", None),
        ("", None),
    ],
    ids=lambda value: str(value).replace(HEX, "HEX")[:24],
)
def test_a_cosign_tag_tells_what_it_holds(tag: str, kind: str | None) -> None:
    assert digest_tag_kind(tag) == kind


@pytest.mark.parametrize(
    ("tag", "is_about", "lists"),
    [
        (f"sha256-{HEX}", True, True),
        (f"sha256-{HEX}.sig", True, False),
        (f"sha256-{HEX}.sig2", False, False),
        (f"sha256-{HEX[1:]}", False, False),
        ("latest", False, False),
    ],
    ids=lambda value: str(value).replace(HEX, "HEX")[:24],
)
def test_a_tag_made_of_a_digest_tells_what_it_is_about(
    tag: str, is_about: bool, lists: bool
) -> None:
    assert digest_tag_subject(tag) == (f"sha256:{HEX}" if is_about else None)
    assert referrers_tag_subject(tag) == (f"sha256:{HEX}" if lists else None)


@given(name=_names)
def test_every_name_of_the_grammar_is_taken_and_has_a_namespace(name: str) -> None:
    namespace = namespace_of(parse_repository(name))

    assert name.removeprefix(f"{namespace}/" if namespace else "").count("/") == 0
    assert not namespace or parse_repository(namespace) == namespace


@pytest.mark.parametrize("parse", [parse_repository, parse_tag, parse_digest])
@given(text=st.text() | _near_misses)
@example(text="a" + "-" * 250 + "/")
@example(text="a-" * 127)
def test_any_text_is_refused_or_taken_unchanged(parse: Callable[[str], str], text: str) -> None:
    try:
        taken = parse(text)
    except InvalidReference:
        return

    assert taken == text
    assert re.fullmatch(r"[!-~]{1,255}", taken)
