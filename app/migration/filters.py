"""Which repositories and tags a migration takes. Pure.

Source: semver.org 2.0.0, sections 9 to 11, for versions and their order.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cmp_to_key
from typing import Literal

import msgspec

from app.errors import ConfigError
from app.rules.patterns import InvalidPattern, TooComplex, compile_regex, encode
from app.rules.references import is_digest
from app.settings import RepositoryFilter, TagFilter

Test = Callable[[str], bool]

_DIGEST_TAG = re.compile(r"sha256-[0-9a-f]{64}(\.(sig|att|sbom))?")
_VERSION = re.compile(
    r"v?(?P<major>\d{1,18})(\.(?P<minor>\d{1,18}))?(\.(?P<patch>\d{1,18}))?"
    r"(-(?P<pre>[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*))?",
    re.ASCII,
)
_BOUND = re.compile(r"(>=|<=|>|<|=)?\s*([^\s,<>=]+)")
_COMPARE: dict[str, Callable[[int, int], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}


class Version(msgspec.Struct, frozen=True):
    """A version as tags spell it: `v1.2.3-rc.1`, and `1` and `1.2` with zeros for the rest."""

    numbers: tuple[int, int, int]
    pre: tuple[str, ...] = ()


def parse_version(tag: str) -> Version | None:
    """The version that a tag is, or None."""
    match = _VERSION.fullmatch(tag)
    if not match:
        return None
    numbers = (int(match["major"]), int(match["minor"] or 0), int(match["patch"] or 0))
    return Version(numbers, tuple(match["pre"].split(".")) if match["pre"] else ())


def compare_versions(a: Version, b: Version) -> int:
    """Below 0 when `a` comes before `b`, 0 when neither does, above 0 when it comes after."""
    if a.numbers != b.numbers:
        return 1 if a.numbers > b.numbers else -1
    if not a.pre or not b.pre:
        return bool(b.pre) - bool(a.pre)  # a pre-release comes before its release
    left, right = _pre_key(a.pre), _pre_key(b.pre)
    return (left > right) - (left < right)


def _pre_key(pre: Sequence[str]) -> list[tuple[bool, int, str]]:
    """Numbers come before words (semver 11.4)."""
    return [(False, int(part), "") if part.isdecimal() else (True, 0, part) for part in pre]


def _compile_range(text: str) -> Test:
    """The test of a range: bounds that all hold, as in `>=1.2 <3`.

    A pre-release matches only where a bound names one, as in npm and Helm.
    """
    bounds: list[tuple[str, Version]] = []
    rest = _BOUND.sub("", text).replace(",", "").strip()
    for sign, number in _BOUND.findall(text):
        version = parse_version(number)
        if version is None:
            raise ConfigError(f"not a version: {number!r}")
        bounds.append((sign or "=", version))
    if rest or not bounds:
        raise ConfigError(f"expected bounds as in >=1.2 <3, got {text!r}")
    takes_pre = any(version.pre for _, version in bounds)

    def test(tag: str) -> bool:
        version = parse_version(tag)
        if version is None or (version.pre and not takes_pre):
            return False
        return all(_COMPARE[sign](compare_versions(version, bound), 0) for sign, bound in bounds)

    return test


def _compile_glob(text: str) -> Test:
    """`*` and `?` stay within a component, `**` crosses; `**/` may be nothing."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    expression = re.sub(
        r"\*\*/|\*\*|\*|\?|[^*?]+", lambda part: parts.get(part[0]) or re.escape(part[0]), text
    )
    compiled = re.compile(expression)
    return lambda value: compiled.fullmatch(value) is not None


def compile_filter(pattern: str, *, versions: bool) -> Test:
    """The test of one pattern.

    Raises:
        ConfigError: it is none.
    """
    kind, separator, rest = pattern.partition(":")
    if separator and kind == "re":
        try:
            compiled = compile_regex(rest)
        except (InvalidPattern, TooComplex) as error:
            raise ConfigError(f"not a regular expression: {error}") from None
        return lambda value: compiled.search(encode(value)) is not None
    if separator and kind == "semver" and versions:
        return _compile_range(rest)
    if separator or not pattern:
        known = "re: or semver:" if versions else "re:"
        raise ConfigError(f"expected a glob, or a pattern that begins with {known}")
    return _compile_glob(pattern)


class Choice:
    """What is included, nothing named meaning all, and not excluded."""

    def __init__(self, settings: RepositoryFilter, path: str, *, versions: bool = False) -> None:
        self._include = _compile_all(settings.include, f"{path}.include", versions)
        self._exclude = _compile_all(settings.exclude, f"{path}.exclude", versions)

    def takes(self, value: str) -> bool:
        """Whether a name is chosen."""
        included = not self._include or any(test(value) for test in self._include)
        return included and not any(test(value) for test in self._exclude)


def _compile_all(patterns: Sequence[str], path: str, versions: bool) -> list[Test]:
    tests = []
    for index, pattern in enumerate(patterns):
        try:
            tests.append(compile_filter(pattern, versions=versions))
        except ConfigError as error:
            raise ConfigError(f"{path}[{index}]: {error}") from None
    return tests


class TagChoice:
    """Which tags of a repository, and in what order they are worth it."""

    def __init__(self, settings: TagFilter, path: str) -> None:
        self._choice = Choice(settings, path, versions=True)
        self._keep_latest = settings.keep_latest
        self._digest_tags: Literal["follow", "filter"] = settings.digest_tags

    def takes(self, reference: str) -> bool:
        """Whether a reference that was pushed just now is chosen; a digest always is."""
        return is_digest(reference) or self._follows(reference) or self._choice.takes(reference)

    def choose(self, tags: Iterable[str]) -> list[str]:
        """Of all tags of a repository those to take, the newest versions first.

        `keep_latest` counts versions before other tags, and those by name, the last first.
        """
        every = list(tags)
        following = [tag for tag in every if self._follows(tag)]
        chosen = [tag for tag in every if not self._follows(tag) and self._choice.takes(tag)]
        chosen = newest_first(chosen)
        return (chosen[: self._keep_latest] if self._keep_latest else chosen) + following

    def _follows(self, tag: str) -> bool:
        return self._digest_tags == "follow" and _DIGEST_TAG.fullmatch(tag) is not None


def newest_first(tags: Iterable[str]) -> list[str]:
    """Versions, the highest first, then all other tags, the last by name first."""
    versions: list[tuple[str, Version]] = []
    others: list[str] = []
    for tag in tags:
        version = parse_version(tag)
        if version:
            versions.append((tag, version))
        else:
            others.append(tag)
    key = cmp_to_key(compare_versions)
    versions.sort(key=lambda entry: key(entry[1]), reverse=True)
    return [tag for tag, _ in versions] + sorted(others, reverse=True)
